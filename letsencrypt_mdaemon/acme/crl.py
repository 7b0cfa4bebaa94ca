"""Ask by a CA's CRL whether it revoked a certificate (RFC 5280, 5 and 6.3)."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from letsencrypt_mdaemon.acme.exchange import Adapter, follow, route, send
from letsencrypt_mdaemon.errors import AcmeError
from letsencrypt_mdaemon.pki.certificate import MALFORMED, crl_urls, is_issued_by
from letsencrypt_mdaemon.state.memory import Revocation
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from datetime import datetime

    from letsencrypt_mdaemon.acme.http import Reply

MAX_CRL_BYTES = 16 << 20
MAX_SECONDS = 30.0
"""For one CRL, however slowly it comes."""
CLOCK_ERROR = timedelta(days=1)


def revocation(
    leaf: x509.Certificate,
    issuer: x509.Certificate,
    *,
    now: datetime,
    proxy: str = "",
) -> Revocation | None:
    """Return when the CA revoked a certificate, and why; None if it did not.

    Args:
        proxy: See `exchange.route`.

    Raises:
        AcmeError: If no CRL that the certificate names can be fetched and trusted.
    """
    failure = AcmeError("The certificate names no CRL.")
    for url in crl_urls(leaf):
        try:
            crl = _parsed(fetch(url, proxy=proxy), url)
        except AcmeError as exc:
            failure = exc
            continue
        if problem := _problem(crl, url, leaf, issuer, now):
            failure = AcmeError(f"The CRL {printable(url, 300)} {problem}.")
            continue
        found = crl.get_revoked_certificate_by_serial_number(leaf.serial_number)
        if found is None:
            return None
        return Revocation(found.revocation_date_utc, _is_key_compromised(found))
    raise failure


def _is_key_compromised(entry: x509.RevokedCertificate) -> bool:
    """Whether an entry gives that reason (RFC 5280, 5.3.1); not if it is malformed."""
    try:
        reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except MALFORMED:
        return False
    return reason is x509.ReasonFlags.key_compromise


def fetch(url: str, *, proxy: str = "") -> bytes:
    """Fetch a CRL, within limits of time and size.

    The CA's signature protects it, so it comes without TLS (RFC 5280, 8).

    Raises:
        AcmeError: If that fails.
    """
    deadline = time.monotonic() + MAX_SECONDS
    with closing(Adapter()) as adapter:

        def get(at: str) -> Reply:
            left = max(deadline - time.monotonic(), 0.001)
            by = route(at, proxy=proxy)
            return send(adapter, "GET", at, seconds=left, most=MAX_CRL_BYTES, by=by)

        reply = follow(get, url)
    if reply.status != HTTPStatus.OK:
        shown = printable(url, 300)
        raise AcmeError(f"The CRL {shown} was answered with HTTP {reply.status}.")
    return reply.body


def _parsed(data: bytes, url: str) -> x509.CertificateRevocationList:
    try:
        return x509.load_der_x509_crl(data)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise AcmeError(f"{printable(url, 300)} returned no CRL.") from exc


def _problem(
    crl: x509.CertificateRevocationList,
    url: str,
    leaf: x509.Certificate,
    issuer: x509.Certificate,
    now: datetime,
) -> str:
    """Return why a CRL proves nothing about a certificate; "" if it does."""
    try:
        key = issuer.public_key()
        signed = is_issued_by(leaf, issuer) and crl.is_signature_valid(key)  # type: ignore[arg-type]
        if not signed or crl.issuer != leaf.issuer:
            return "is not signed by the issuer of the certificate"
        following = crl.next_update_utc
        if following is None or following <= now:
            return "is out of date"
        if crl.last_update_utc > now + CLOCK_ERROR:
            return "is from the future"
        if any(not _is_known(item, url) for item in crl.extensions if item.critical):
            return "is for other certificates"
    except (*MALFORMED, TypeError):
        return "is malformed"
    return ""


def _is_known(extension: x509.Extension[x509.ExtensionType], url: str) -> bool:
    """Whether a critical extension lets the CRL hold for certificates that name it.

    A CA with many certificates splits its CRL: each part says which one it is (5.2.5).
    """
    scope = extension.value
    if not isinstance(scope, x509.IssuingDistributionPoint):
        return False
    partial = scope.only_contains_ca_certs or scope.only_contains_attribute_certs
    if partial or scope.indirect_crl or scope.only_some_reasons:
        return False
    return scope.full_name is None or url in [name.value for name in scope.full_name]
