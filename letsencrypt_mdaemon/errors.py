"""List the kinds of errors, each with its exit code.

Error                     1  an unexpected error
├── ConfigError           2  usage or configuration
├── AcmeError             3  the CA refused, limited or could not be reached
│   └── ChallengeError    4  the CA could not validate a name, or refused it
├── DeployError           5  issued, but not (everywhere) in use
└── BusyError             6  another run holds the lock
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ACME_ERROR = "urn:ietf:params:acme:error:"
"""The prefix of ACME's types of problems (RFC 8555, 6.7)."""


class Error(Exception):
    """A failure that somebody can act on.

    Args:
        message: What happened, and to what: the file, key, name, URL or port.
        hint: What to do, in one sentence.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(Error):
    """The usage or the configuration is invalid; the message lists every problem."""

    exit_code = 2


class AcmeError(Error):
    """The CA refused, limited us, sent an invalid answer, or could not be reached.

    Args:
        problem: The CA's problem document (RFC 8555, 6.7); empty if it sent none.
        retry_after: The seconds that the CA asked us to wait, if it did.
        paused: The URL where the administrator resumes a paused account; "" if none.
        names: The CA's message for each name that the refusal is about.

    Attributes:
        is_limit: Whether this is a rate limit (RFC 8555, 6.6).
        spent: Whether the CA issued a certificate that cannot be used.
    """

    exit_code = 3

    def __init__(  # noqa: PLR0913 - what a CA says
        self,
        message: str,
        *,
        hint: str = "",
        problem: dict[str, object] | None = None,
        retry_after: float | None = None,
        paused: str = "",
        names: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.problem = problem or {}
        self.retry_after = retry_after
        self.paused = paused
        self.names = names or {}
        self.is_limit = self.kind == "rateLimited"
        self.spent = False

    @property
    def kind(self) -> str:
        """The type of the CA's problem document, without ACME's prefix."""
        return problem_kind(self.problem)


class ChallengeError(AcmeError):
    """The CA could not validate one or more names, or does not serve them."""

    exit_code = 4


class DeployError(Error):
    """A certificate is issued, but not (everywhere) in use.

    Attributes:
        unchosen: Whether nobody has chosen a certificate in MDaemon yet.
    """

    exit_code = 5
    unchosen = False


class BusyError(Error):
    """Another run holds the lock of this installation."""

    exit_code = 6


@contextmanager
def after_issuance() -> Iterator[None]:
    """Raise what this machine refuses as a `DeployError`, whatever the cause.

    The CA has issued, and the next run continues with that certificate.
    """
    try:
        yield
    except Error as exc:
        if type(exc) not in {Error, ConfigError}:
            raise
        raise DeployError(exc.message, hint=exc.hint) from exc


def problem_kind(problem: Mapping[str, object]) -> str:
    """Return the type that a problem document names, without ACME's prefix."""
    kind = problem.get("type")
    return kind.removeprefix(ACME_ERROR) if isinstance(kind, str) else ""


class Doubt(NamedTuple):
    """Why a path is not trusted.

    Args:
        commands: What mends it, as lists of arguments.
    """

    path: Path
    why: str
    commands: tuple[tuple[str, ...], ...] = ()
