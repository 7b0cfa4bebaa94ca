"""Check that a CA issued the certificate that we requested."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from cryptography import x509

from letsencrypt_mdaemon.errors import AcmeError
from letsencrypt_mdaemon.pki.certificate import (
    MALFORMED,
    Certificate,
    alternative_names,
    dns_names,
    is_issued_by,
    public_key,
)
from letsencrypt_mdaemon.text import printable, when

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime


def check(certificate: Certificate, names: Iterable[str], *, now: datetime) -> None:
    """Refuse a certificate that is not the one we requested.

    It must have our key and exactly our names, a chain in order with good signatures,
    and be valid now.

    Raises:
        AcmeError: Listing all problems.
    """
    problems = [*_check_leaf(certificate, set(names)), *_check_chain(certificate.chain)]
    hint = "Nothing was changed. Report this to the CA."
    if late := _check_dates(certificate.chain, now):
        problems += late
        hint = (
            f"Check this machine's clock: it shows {now.astimezone():%Y-%m-%d %H:%M}."
        )
    if problems:
        message = "The CA returned a certificate that cannot be used: "
        raise AcmeError(message + "; ".join(problems) + ".", hint=hint)


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
    extra = sorted(found - wanted) + [str(name.value) for name in others]
    if extra:
        problems.append(f"it also has {printable(', '.join(extra))}, not requested")
    return problems


def _check_chain(chain: tuple[x509.Certificate, ...]) -> list[str]:
    problems = []
    for number, (child, parent) in enumerate(pairwise(chain), 1):
        if not is_issued_by(child, parent):
            problems.append(
                f"certificate {number} of its chain ({_subject(child)}) is not "
                f"signed by certificate {number + 1} ({_subject(parent)})"
            )
        if not _is_ca(parent):
            problems.append(
                f"certificate {number + 1} of its chain ({_subject(parent)}) is not "
                "a CA certificate"
            )
    return problems


def _check_dates(chain: tuple[x509.Certificate, ...], now: datetime) -> list[str]:
    problems = []
    for certificate in chain:
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if start > now:
            early = f"is not valid before {when(start, now)}"
            problems.append(f"{_subject(certificate)} {early}")
        if end <= now:
            problems.append(f"{_subject(certificate)} expired on {when(end, now)}")
    return problems


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        extension = certificate.extensions.get_extension_for_class(
            x509.BasicConstraints
        )
    except MALFORMED:
        return False
    return extension.value.ca


def _subject(certificate: x509.Certificate) -> str:
    try:
        name = certificate.subject.rfc4514_string()
    except (ValueError, TypeError):
        name = ""
    return printable(name or ", ".join(dns_names(certificate)) or "without a subject")
