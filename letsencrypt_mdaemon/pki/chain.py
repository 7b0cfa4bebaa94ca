"""Whether clients can verify a chain of certificates as a server sent it."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.pki.certificate import (
    claims_public_rules,
    is_issued_by,
    public_key_hash,
    thumbprint,
)
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path
    from typing import Literal

    from cryptography import x509

# OpenSSL's codes for a chain without a known root (X509_V_ERR_...): unable to get an
# issuer (2, 20), self-signed (18, 19), one certificate alone (21).
_NO_ROOT = {2, 18, 19, 20, 21}


class Ending(Enum):
    """Where the path from the leaf, from issuer to issuer, ends."""

    SELF_SIGNED = "self-signed"
    """At the leaf, which is its own issuer."""
    ROOT_SENT = "root sent"
    """At a root that the server sends: needless and harmless."""
    ROOT = "root"
    """At a certificate issued by a trusted root that the server does not send: good."""
    AS_ISSUED = "as issued"
    """Where the chain that the CA issued ends, below a private root."""
    MISSING = "missing"
    """Before an intermediate certificate that the server does not send."""
    UNKNOWN = "unknown"
    """At a certificate whose issuer the server does not send, and we do not know."""


class Chain(NamedTuple):
    """A chain, traced to its root.

    Args:
        in_order: Whether each certificate is followed by its issuer, and nothing else.
        ends_at: The issuer of the last certificate of the path, as text.
        missing: The certificates that should be sent and are not, as text.
        replaced: Those that are sent in place of what the CA issued, with the same
            name and key: their thumbprint and subject, such as an older certificate of
            the same CA.
        as_issued: Whether it contains all that the CA issued; None if unknown.
        distrust: Why clients do not trust it; empty if they do.
    """

    in_order: bool
    ending: Ending
    ends_at: str
    missing: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    as_issued: bool | None = None
    distrust: str = ""

    @property
    def is_complete(self) -> bool | None:
        """Whether clients that trust the root can verify it; None if unknown."""
        match self.ending:
            case Ending.UNKNOWN:
                return None
            case Ending.MISSING:
                return False
            case _:
                return True


class Roots:
    """The trusted roots: Mozilla's list, and further roots from a file.

    Not the roots of this machine: it matters whom clients elsewhere trust, and Windows
    fetches many roots only when it first needs them.

    Args:
        more: A PEM file with private roots.
        now: The time at which certificates have to be valid.

    Raises:
        ValueError: If the file holds no certificates, or cannot be read.
    """

    def __init__(self, more: Path | None = None, *, now: datetime) -> None:
        import certifi  # noqa: PLC0415 - both are slow to import, and seldom needed
        from OpenSSL import crypto  # noqa: PLC0415

        self._store = crypto.X509Store()
        self._store.load_locations(certifi.where())
        if more is not None:
            try:
                self._store.load_locations(str(more))
            except crypto.Error:
                raise ValueError(f"{more} contains no PEM certificates") from None
        self._store.set_time(now)

    def distrust(self, chain: Sequence[x509.Certificate]) -> tuple[str, bool]:
        """Return why a chain is not trusted ("" if it is), and whether it has a root.

        Names, purposes, revocation and the order of the chain do not matter.
        """
        from OpenSSL import crypto  # noqa: PLC0415 - as above

        try:
            leaf, *others = map(crypto.X509.from_cryptography, chain)
            crypto.X509StoreContext(self._store, leaf, others).verify_certificate()
        except crypto.X509StoreContextError as exc:
            return printable(exc, 200), exc.errors[0] not in _NO_ROOT
        except crypto.Error:
            return "it is malformed", False
        return "", True


def trace(
    chain: Sequence[x509.Certificate],
    roots: Roots,
    issued: Iterable[x509.Certificate] = (),
    known: Iterable[x509.Certificate] = (),
) -> Chain:
    """Trace a chain as a server sent it, leaf first, to its root.

    Args:
        issued: The chain that the CA issued for this leaf, if known.
        known: Further certificates, such as those that other ports send.
    """
    path = _path(chain)
    last = path[-1]
    issued = list(issued)
    # No client needs the root: one without it does not trust it either.
    lacks = [one for one in issued if one not in chain and not is_issued_by(one, one)]
    twins = [(sent, one) for one in lacks for sent in path[1:] if _is_twin(sent, one)]
    lacks = [one for one in lacks if all(one != other for _, other in twins)]
    missing = [title(one, "subject") for one in lacks]
    distrust, leads_to_root = roots.distrust(chain)
    if is_issued_by(last, last):
        ending = Ending.ROOT_SENT if len(path) > 1 else Ending.SELF_SIGNED
    elif leads_to_root:
        ending = Ending.ROOT
    elif missing:
        ending = Ending.MISSING
    elif issued:
        ending = Ending.AS_ISSUED
    elif len(path) == 1 and _is_below_intermediate(last, known):
        ending, missing = Ending.MISSING, [title(last, "issuer")]
    else:
        ending = Ending.UNKNOWN
    return Chain(
        in_order=path == list(chain),
        ending=ending,
        ends_at=title(last, "issuer"),
        missing=tuple(missing),
        replaced=tuple(
            f"{thumbprint(one)} ({title(one, 'subject')}, until "
            f"{one.not_valid_after_utc:%Y-%m-%d})"
            for one, _ in twins
        ),
        as_issued=not (missing or twins) if issued else None,
        distrust=distrust,
    )


def _is_twin(one: x509.Certificate, other: x509.Certificate) -> bool:
    # A root in its place is another matter: it cuts the chain short.
    if one == other or one.subject != other.subject or is_issued_by(one, one):
        return False
    return public_key_hash(one) == public_key_hash(other)


def unneeded(
    leaves: Iterable[x509.Certificate],
    added: Mapping[str, x509.Certificate],
    issuers: Iterable[x509.Certificate],
    *,
    now: datetime,
) -> list[str]:
    """Return the thumbprints of issuers that are expired, or that nothing needs.

    Every issuer of a needed certificate is needed, also a twin with the same key.

    Args:
        leaves: The certificates of the stores.
        added: The issuers in question, by thumbprint.
        issuers: All issuers of the store.
    """
    needed: list[x509.Certificate] = []
    fresh, others = list(leaves), list(issuers)
    while fresh:
        above = [
            one for one in others if any(is_issued_by(each, one) for each in fresh)
        ]
        fresh = [one for one in above if one not in needed]
        needed += fresh
    return [
        digest
        for digest, one in added.items()
        if one not in needed or one.not_valid_after_utc <= now
    ]


def title(certificate: x509.Certificate, part: Literal["subject", "issuer"]) -> str:
    """Return a certificate's subject or issuer as printable text; "?" if malformed."""
    try:
        name = certificate.subject if part == "subject" else certificate.issuer
        return printable(name.rfc4514_string(), 300)
    except (ValueError, TypeError):  # from cryptography, for malformed names
        return "?"


def _path(chain: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """Return the leaf, its issuer, the issuer's issuer and so on, as far as sent."""
    path, others = [chain[0]], list(chain[1:])
    while not is_issued_by(path[-1], path[-1]):
        issuer = next((one for one in others if is_issued_by(path[-1], one)), None)
        if issuer is None:
            break
        others.remove(issuer)
        path.append(issuer)
    return path


def _is_below_intermediate(
    leaf: x509.Certificate, known: Iterable[x509.Certificate]
) -> bool:
    """Whether the issuer of a leaf is certainly no root, so that it has to be sent.

    That a leaf says where to fetch its issuer (AIA) does not show it: private roots
    sign leaves as well.
    """
    issuers = [one for one in known if is_issued_by(leaf, one)]
    return claims_public_rules(leaf) or any(
        not is_issued_by(one, one) for one in issuers
    )
