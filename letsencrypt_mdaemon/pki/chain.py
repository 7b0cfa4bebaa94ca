"""What a chain of certificates is worth, as a server sent it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import certifi
from OpenSSL import crypto

from letsencrypt_mdaemon.pki.certificate import is_issued_by
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from pathlib import Path
    from typing import Literal

    from cryptography import x509

# What OpenSSL says when a chain leads nowhere, whatever the dates (X509_V_ERR_…):
# unable to get an issuer (2, 20), self-signed (18, 19), one certificate alone (21).
_LEADS_NOWHERE = {2, 18, 19, 20, 21}


class Ending(Enum):
    """Where the path from the leaf, of each certificate's issuer, ends."""

    SELF_SIGNED = "self-signed"
    """At once: the leaf is its own issuer."""
    ROOT_SENT = "root sent"
    """At a root that is sent along: needless, and harmless."""
    ROOT = "root"
    """At a certificate of a trusted root, which is not sent: as it should be."""
    AS_ISSUED = "as issued"
    """Where the chain that the CA issued ends: a private root."""
    MISSING = "missing"
    """Before a certificate that the CA issued with it, and that is not sent."""
    UNKNOWN = "unknown"
    """At a certificate whose issuer is neither sent nor known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A judgement on a chain.

    Args:
        in_order: Whether each certificate's issuer follows it, and nothing else.
        ends_at: The issuer of the last certificate of the path, in words.
        missing: Certificates of the issued chain that are not sent, in words.
        as_issued: Whether it holds all that the CA issued; None if that is not known.
        distrust: Why it is not trusted; empty if it is.
    """

    in_order: bool
    ending: Ending
    ends_at: str
    missing: tuple[str, ...] = ()
    as_issued: bool | None = None
    distrust: str = ""

    @property
    def is_complete(self) -> bool | None:
        """Whether clients that know the root can follow it; None if we cannot tell."""
        match self.ending:
            case Ending.UNKNOWN:
                return None
            case Ending.MISSING:
                return False
            case _:
                return True


class Roots:
    """The roots that are trusted: Mozilla's list, and those of a file.

    Not the roots of this machine: what matters is whom clients elsewhere trust, and
    Windows fetches many of its roots only when it first meets them.

    Args:
        more: A PEM file with roots of one's own.
        now: The time that certificates have to be valid at.

    Raises:
        ValueError: If the file holds no certificates, or cannot be read.
    """

    def __init__(self, more: Path | None = None, *, now: datetime) -> None:
        self._store = crypto.X509Store()
        self._store.load_locations(certifi.where())
        if more is not None:
            try:
                self._store.load_locations(str(more))
            except crypto.Error:
                raise ValueError(f"{more} holds no certificates as PEM") from None
        self._store.set_time(now)

    def distrust(self, chain: Sequence[x509.Certificate]) -> tuple[str, bool]:
        """Return why a chain is not trusted, if so, and whether it leads to a root.

        Names, purposes and revocation do not count, and neither does the order.
        """
        try:
            leaf, *others = map(crypto.X509.from_cryptography, chain)
            crypto.X509StoreContext(self._store, leaf, others).verify_certificate()
        except crypto.X509StoreContextError as exc:
            return printable(exc, 200), exc.errors[0] not in _LEADS_NOWHERE
        except crypto.Error:
            return "it cannot be read", False
        return "", True


def judge(
    chain: Sequence[x509.Certificate],
    roots: Roots,
    issued: Iterable[x509.Certificate] = (),
) -> Chain:
    """Judge a chain as it was sent, leaf first.

    Args:
        issued: The chain that the CA issued, if this leaf's is known.
    """
    path = _path(chain)
    last = path[-1]
    issued = list(issued)
    # Nobody needs the root: who does not have it does not trust it either.
    missing = [one for one in issued if one not in chain and not is_issued_by(one, one)]
    distrust, leads_to_root = roots.distrust(chain)
    if is_issued_by(last, last):
        ending = Ending.ROOT_SENT if len(path) > 1 else Ending.SELF_SIGNED
    elif leads_to_root:
        ending = Ending.ROOT
    elif missing:
        ending = Ending.MISSING
    elif issued:
        ending = Ending.AS_ISSUED
    else:
        ending = Ending.UNKNOWN
    return Chain(
        in_order=path == list(chain),
        ending=ending,
        ends_at=title(last, "issuer"),
        missing=tuple(title(one, "subject") for one in missing),
        as_issued=not missing if issued else None,
        distrust=distrust,
    )


def title(certificate: x509.Certificate, part: Literal["subject", "issuer"]) -> str:
    """Return a certificate's subject or issuer, harmless to read; "?" if it is odd."""
    try:
        name = certificate.subject if part == "subject" else certificate.issuer
        return printable(name.rfc4514_string(), 300)
    except (ValueError, TypeError):  # what cryptography makes of odd names
        return "?"


def _path(chain: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """Return the leaf, its issuer, the issuer's issuer, as far as they were sent."""
    path, others = [chain[0]], list(chain[1:])
    while not is_issued_by(path[-1], path[-1]):
        issuer = next((one for one in others if is_issued_by(path[-1], one)), None)
        if issuer is None:
            break
        others.remove(issuer)
        path.append(issuer)
    return path
