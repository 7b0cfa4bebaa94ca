"""What an endpoint answered when it was asked for its certificate."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.pki.certificate import covers, thumbprint

if TYPE_CHECKING:
    from collections.abc import Collection

    from cryptography import x509


class Answer(Enum):
    """How far an endpoint came towards showing its certificate."""

    SERVED = "served"
    NOT_LISTENING = "not listening"
    TIMED_OUT = "timed out"
    TURNED_AWAY = "turned away"
    NO_STARTTLS = "no STARTTLS offered"
    HANDSHAKE_FAILED = "handshake failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What an endpoint answered; equal answers are equal however long they took.

    Args:
        detail: Why no certificate is served, or what is odd about the port, as a phrase
            about it; may be empty.
        chain: As the server sent it, leaf first.
        tls: The version, such as `TLS 1.3`.
        server_name: The SNI that was sent (RFC 6066, 3); may be empty.
        key: The only kind of key that was accepted, `RSA` or `ECDSA`; empty for both.
        differently: The answers for other names, and for the other kind of key, where
            they were not the same.
    """

    outcome: Answer
    detail: str = ""
    chain: tuple[x509.Certificate, ...] = ()
    tls: str = ""
    server_name: str = field(default="", compare=False)
    key: str = field(default="", compare=False)
    seconds: float = field(default=0.0, compare=False)
    differently: tuple[Served, ...] = ()

    def __str__(self) -> str:
        """Return the outcome, and its reason if there is one."""
        return ": ".join(filter(None, (self.outcome.value, self.detail)))

    @property
    def leaf(self) -> x509.Certificate | None:
        """The certificate, if one is served."""
        return self.chain[0] if self.outcome is Answer.SERVED else None

    @property
    def thumbprint(self) -> str:
        """The certificate's thumbprint; empty if none is served."""
        return thumbprint(self.leaf) if self.leaf else ""

    @property
    def is_listening(self) -> bool:
        """Whether the port accepts connections."""
        return self.outcome is not Answer.NOT_LISTENING

    @property
    def shown(self) -> frozenset[str]:
        """The thumbprints of all certificates that are served, whoever asks."""
        others = (other.shown for other in self.differently)
        return frozenset(filter(None, [self.thumbprint])).union(*others)

    def serves(self, thumbprints: Collection[str]) -> bool:
        """Whether one of these certificates is served for every name asked for."""
        others = (other.serves(thumbprints) for other in self.differently)
        return self.thumbprint in thumbprints and all(others)

    def covers(self, name: str) -> bool:
        """Whether the certificate covers a name (RFC 9525, 6.3)."""
        return self.leaf is not None and covers(self.leaf, name)
