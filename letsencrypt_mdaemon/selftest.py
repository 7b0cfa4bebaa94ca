"""What an administrator runs once: do the parts of this machine do what we rely on?

Each check makes something throw-away, looks at it, and removes it. Nothing that the
server uses is touched; no CA is asked.
"""

from __future__ import annotations

import logging
import platform
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from letsencrypt_mdaemon import __version__, mdaemon
from letsencrypt_mdaemon.certificate import Certificate, new_key
from letsencrypt_mdaemon.errors import DeployError, Error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from letsencrypt_mdaemon.assembly import Installation
    from letsencrypt_mdaemon.certificate import KeyType
    from letsencrypt_mdaemon.parts import Store

_log = logging.getLogger(__name__)

NAME = "selftest.letsencrypt-mdaemon.invalid"
"""What the throw-away certificates are for: no such name can exist (RFC 6761, 6.4)."""

Result = Literal["ok", "failed", "left out"]


class LeftOut(Exception):  # noqa: N818 - not an error
    """A check has nothing to look at here; the text says why."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried.

    Args:
        detail: What was seen, or what went wrong and what to do.
    """

    name: str
    result: Result
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """What the checks found, and on what machine: what goes into a bug report."""

    machine: dict[str, str]
    checks: tuple[Check, ...]

    @property
    def failed(self) -> list[str]:
        """The names of the checks that failed."""
        return [check.name for check in self.checks if check.result == "failed"]

    def error(self) -> DeployError:
        """Return the failures as an error."""
        return DeployError(
            f"The self-test failed: {', '.join(self.failed)}.",
            hint="Put the whole report into an issue, if its advice does not help.",
        )


def machine() -> dict[str, str]:
    """Return what tells one machine from another; no names, no addresses."""
    return {
        "letsencrypt-mdaemon": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "frozen": "yes" if getattr(sys, "frozen", False) else "no",
    }


def run(checks: Sequence[tuple[str, Callable[[], str]]]) -> Report:
    """Carry out every check, whatever the others find."""
    done = []
    for name, check in checks:
        _log.info("testing %s", name, extra={"progress": True})
        start = time.monotonic()
        result: Result = "ok"
        try:
            detail = check()
        except LeftOut as exc:
            result, detail = "left out", str(exc)
        except Error as exc:
            result, detail = "failed", f"{exc.message} {exc.hint}".strip()
        except Exception as exc:  # noqa: BLE001 - told like any other
            _log.debug("%s", name, exc_info=True)
            result, detail = "failed", f"{type(exc).__name__}: {exc}"
        done.append(Check(name, result, detail, time.monotonic() - start))
    return Report(machine(), tuple(done))


def throw_away(kind: KeyType) -> Certificate:
    """Return a self-signed certificate for a day."""
    key, now = new_key(kind), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    leaf = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False
        )
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    return Certificate((leaf,), key)


def store(
    store: Store, kind: KeyType, *more: Callable[[str], str]
) -> Callable[[], str]:
    """Return a check: a certificate goes into the store, is found, and goes again.

    Args:
        more: Looks at the one with this thumbprint while it is there.
    """

    def check() -> str:
        certificate = throw_away(kind)
        print_ = certificate.thumbprint
        try:
            store.install(certificate)
            if certificate.leaf not in [leaf for leaf, _ in store.certificates()]:
                message = f"{print_} was put into the store, and is not there."
                raise DeployError(message, hint="Does another program remove it?")
            seen = [look(print_) for look in more]
        finally:
            store.remove(print_)
        if certificate.leaf in [leaf for leaf, _ in store.certificates()]:
            message = f"{print_} is still in the store."
            raise DeployError(message, hint="Remove it by hand.")
        return "; ".join(["put there, found, removed", *seen])

    return check


def semaphores(installation: Installation) -> Callable[[], str]:
    """Return a check: the server takes up a semaphore file that does nothing else."""

    def check() -> str:
        app = mdaemon.child(installation.root, "App")
        ears = mdaemon.Semaphores(app, (), patience=installation.config.reload_timeout)
        if reason := ears.deaf():
            raise DeployError(f"{reason}.", hint="Does MDaemon run?")
        return f"{ears.PROBE} was taken up"

    return check


def of(installation: Installation) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield the checks for an installation on this system."""
    yield "store", store(installation.store, installation.config.key_type)
    yield "semaphores", semaphores(installation)
