"""What is wrong with a name or the server: what was seen, a stable code, and advice."""

from __future__ import annotations

from dataclasses import dataclass, field

from letsencrypt_mdaemon.doctor.advice import ADVICE, Advice, Code, Weight
from letsencrypt_mdaemon.text import printable

MAX_SEEN_CHARACTERS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Args:
        seen: What was seen, in a phrase; made harmless to terminals, logs and mails.
        certain: Whether the CA sees the same, wherever it connects from.
        number: The HTTP status in `http-status-N`.
    """

    kind: Code
    seen: str
    certain: bool = False
    number: int = 0

    def __post_init__(self) -> None:
        """Make harmless what others sent."""
        object.__setattr__(self, "seen", printable(self.seen, MAX_SEEN_CHARACTERS))

    @property
    def code(self) -> str:
        """The code, such as `http-status-404`."""
        return self.kind.replace("-N", f"-{self.number}")

    @property
    def advice(self) -> Advice:
        """What the finding means, and what to do."""
        return ADVICE[self.kind]

    @property
    def weight(self) -> Weight:
        """How bad the finding is."""
        return Weight.FAILURE if self.certain else self.advice.weight

    def __str__(self) -> str:
        """Return what was seen, with the code."""
        return f"{self.seen} ({self.code})"


@dataclass(slots=True)
class Notes:
    """What is found about a name, while it is being examined."""

    served: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    publish: str = ""

    def add(self, kind: Code, seen: str, *, certain: bool = False) -> None:
        """Note one finding."""
        self.findings.append(Finding(kind=kind, seen=seen, certain=certain))
