"""Check that a CA issued the certificate that we requested."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509

from letsencrypt_mdaemon.errors import AcmeError
from letsencrypt_mdaemon.pki.certificate import (
    Certificate,
    alternative_names,
    dns_names,
    extension,
    is_issued_by,
    public_key,
)
from letsencrypt_mdaemon.pki.names import twins
from letsencrypt_mdaemon.text import printable, when

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime


def check(
    certificate: Certificate, names: Iterable[str], *, now: datetime
) -> tuple[Certificate, str]:
    """Return a certificate with the members of its chain that clients need.

    Its leaf must have our key and our names, and no others but their `www.` twins. It
    must be valid now, and signed by another member of the chain, if there is one. The
    path that the CA sent is kept as
    far as it is good, for clients that do not know the newest root. Members that are
    expired, self-signed or not on the path are left out, in whatever order they came.

    Returns:
        The certificate, and which member cuts its path short; "" if none does.

    Raises:
        AcmeError: Listing all problems.
    """
    leaf = certificate.leaf
    problems = _check_leaf(certificate, set(names))
    path, cut = _path(certificate.chain, now)
    if cut and len(path) == 1:
        problems.append(cut)
    hint = "Nothing was changed. Report this to the CA."
    if late := _check_dates(leaf, now):
        problems.append(f"{_subject(leaf)} {late}")
        hint = (
            f"Check this machine's clock: it shows {now.astimezone():%Y-%m-%d %H:%M}."
        )
    if problems:
        message = "The CA returned a certificate that cannot be used: "
        raise AcmeError(message + "; ".join(problems) + ".", hint=hint)
    return certificate._replace(chain=path), cut


def _check_leaf(certificate: Certificate, wanted: set[str]) -> list[str]:
    problems = []
    leaf = certificate.leaf
    if public_key(leaf) != certificate.key.public_key():
        problems.append("its key is not ours")
    alternatives = alternative_names(leaf)
    if not alternatives:
        return [*problems, "it has no subjectAltName, or a malformed one"]
    found = set(dns_names(leaf))
    if missing := sorted(wanted - found):
        problems.append(f"it lacks {', '.join(missing)}")
    others = [name for name in alternatives if not isinstance(name, x509.DNSName)]
    extra = sorted(found - wanted - twins(wanted)) + [
        str(name.value) for name in others
    ]
    if extra:
        problems.append(f"it also has {printable(', '.join(extra))}, not requested")
    return problems


def _path(
    chain: tuple[x509.Certificate, ...], now: datetime
) -> tuple[tuple[x509.Certificate, ...], str]:
    """Return the leaf, its issuer and so on, and what cuts the path short, if so."""
    path, others = [chain[0]], [one for one in chain if one != chain[0]]
    while issuers := [one for one in others if is_issued_by(path[-1], one)]:
        faults = {one: _fault(one, now) for one in issuers}
        good = [one for one in issuers if not faults[one]]
        if not good:
            listed = (f"{_member(chain, one)} {faults[one]}" for one in issuers)
            return tuple(path), "; ".join(listed)
        # A root is needless, also if the CA sent its cross-sign as well.
        above = [one for one in good if not is_issued_by(one, one)]
        if not above:
            return tuple(path), ""
        path.append(above[0])
        others.remove(above[0])
    strangers = "; ".join(_member(chain, one) for one in others)
    if strangers and len(path) == 1:
        return tuple(path), f"{_subject(path[0])} is not signed by {strangers}"
    return tuple(path), ""


def _fault(issuer: x509.Certificate, now: datetime) -> str:
    """Return why a certificate cannot vouch for another one, or ""."""
    late = _check_dates(issuer, now)
    return late if late or _is_ca(issuer) else "is not a CA certificate"


def _check_dates(certificate: x509.Certificate, now: datetime) -> str:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if start > now:
        return f"is not valid before {when(start, now)}"
    return f"expired on {when(end, now)}" if end <= now else ""


def _is_ca(certificate: x509.Certificate) -> bool:
    constraints = extension(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def _member(chain: Sequence[x509.Certificate], one: x509.Certificate) -> str:
    return f"certificate {chain.index(one) + 1} of its chain ({_subject(one)})"


def _subject(certificate: x509.Certificate) -> str:
    try:
        name = certificate.subject.rfc4514_string()
    except (ValueError, TypeError):
        name = ""
    return printable(name or ", ".join(dns_names(certificate)) or "without a subject")
