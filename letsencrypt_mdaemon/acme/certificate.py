"""Certificates: download and alternate chains, renewal information, revocation."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from josepy.json_util import encode_b64jose
from josepy.jwk import JWKEC, JWKRSA

from letsencrypt_mdaemon.acme.jws import Signer
from letsencrypt_mdaemon.acme.problem import may_pass
from letsencrypt_mdaemon.errors import AcmeError, ConfigError
from letsencrypt_mdaemon.pki.certificate import (
    MALFORMED,
    Certificate,
    public_key,
    serial_der,
)
from letsencrypt_mdaemon.pki.chain import title
from letsencrypt_mdaemon.pki.checks import check
from letsencrypt_mdaemon.state.memory import Window
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from letsencrypt_mdaemon.acme.account import Accounts
    from letsencrypt_mdaemon.acme.http import Reply
    from letsencrypt_mdaemon.acme.transport import AccountSession, Session
    from letsencrypt_mdaemon.pki.certificate import PrivateKey

_log = logging.getLogger(__name__)

MAX_ALTERNATES = 10
"""Chains to try; Let's Encrypt has two or three."""

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


# Download (RFC 8555, 7.4.2)


def download(
    session: AccountSession,
    url: str,
    key: PrivateKey,
    names: Sequence[str],
    preferred_chain: str = "",
) -> Certificate:
    """Fetch an issued certificate, and check it.

    The first chain of the CA is taken that is not cut short and leads to the preferred
    issuer; if there is none, one that is not cut short.

    Raises:
        AcmeError: If the CA refuses, or does not send a usable certificate in PEM.
    """
    try:
        reply = _fetch(session, url)
    except AcmeError as exc:
        if may_pass(exc):
            raise
        # A CA may need a moment to copy the certificate to all its servers.
        session.deadline.pause(2.0, exc.retry_after)
        reply = _fetch(session, url)
    usable, refused = [], []
    for offered in _offered(session, reply, key):
        try:
            found, cut = check(offered, names, now=session.session.now())
        except AcmeError as exc:
            refused.append(exc)
            continue
        strays = not _leads_to(found.chain, preferred_chain)
        usable.append((bool(cut), strays, offered, found, cut))
        if not cut and not strays:
            break
    if not usable:
        raise refused[0]
    _, strays, offered, found, cut = min(usable, key=lambda each: each[:2])
    if cut:
        _log.warning("The CA's chain is used only up to a bad certificate: %s", cut)
    if strays:
        _log.warning(
            "The CA offers no chain that leads to %s (preferred-chain); using its "
            "default.",
            preferred_chain,
        )
    if spare := [one for one in offered.chain if one not in found.chain]:
        shown = "; ".join(title(one, "subject") for one in spare)
        _log.info("Left out of the CA's chain, because no client needs it: %s", shown)
    return found


def _fetch(session: AccountSession, url: str) -> Reply:
    return session.post(url, accept="application/pem-certificate-chain")


def _offered(
    session: AccountSession, reply: Reply, key: PrivateKey
) -> Iterator[Certificate]:
    """Yield the certificate with each chain that the CA offers, its default first."""
    yield _read(reply, key)
    for url in reply.alternates[:MAX_ALTERNATES]:
        try:
            yield _read(_fetch(session, url), key)
        except AcmeError as exc:
            _log.info("Could not use an alternate chain: %s", exc)


def _read(reply: Reply, key: PrivateKey) -> Certificate:
    try:
        chain = x509.load_pem_x509_certificates(reply.body)
    except ValueError as exc:
        message = f"{printable(reply.url, 300)} is not a certificate chain in PEM: "
        message += f"{printable(exc, 200)}."
        raise AcmeError(message, hint="Report this to the CA.") from exc
    # RFC 8555, 7.4.2: the leaf comes first; if not, the key tells which it is.
    chain.sort(key=lambda one: public_key(one) != key.public_key())
    return Certificate(tuple(chain), key)


def _leads_to(chain: Sequence[x509.Certificate], authority: str) -> bool:
    """Whether an authority's common name is among the issuers; "" always is."""
    wanted = x509.oid.NameOID.COMMON_NAME, authority.casefold()
    try:
        return not authority or any(
            (item.oid, str(item.value).casefold()) == wanted
            for certificate in chain
            for item in certificate.issuer
        )
    except MALFORMED:
        return False


# Renewal information (RFC 9773)


def suggested_window(
    session: Session, certificate: x509.Certificate
) -> tuple[Window | None, float]:
    """Ask when the CA suggests to renew a certificate (RFC 9773, 4).

    Returns:
        The window, None if the CA suggests none or an empty one; and the seconds until
        it may be asked again (4.3), from a minute to a day.
    """
    url = session.directory.get("renewalInfo")
    identifier = ari_id(certificate)
    if not isinstance(url, str) or identifier is None:
        return None, DAY
    try:
        reply = session.get(f"{url.rstrip('/')}/{identifier}")
        advice = reply.document()
        window = advice["suggestedWindow"]
        start, end = _moment(window["start"]), _moment(window["end"])
    except (AcmeError, KeyError, TypeError, ValueError, OverflowError) as exc:
        _log.info("Could not get the CA's suggested window (ARI): %s", printable(exc))
        return None, 6 * HOUR
    wait = 6 * HOUR if reply.retry_after is None else reply.retry_after
    wait = min(max(wait, MINUTE), DAY)
    if end <= start:
        _log.info("The CA's suggested window (ARI) is empty")
        return None, wait
    explanation = printable(advice.get("explanationURL") or "", 300)
    return Window(start=start, end=end, explanation_url=explanation), wait


def ari_id(certificate: x509.Certificate) -> str | None:
    """Return a certificate's identifier for ARI (RFC 9773, 4.1).

    None if it has no authority key identifier, like self-signed ones.
    """
    try:
        extension = certificate.extensions.get_extension_for_class(
            x509.AuthorityKeyIdentifier
        )
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return None
    identifier = extension.value.key_identifier
    if identifier is None:
        return None
    number = serial_der(certificate)
    return f"{encode_b64jose(identifier)}.{encode_b64jose(number)}"


def _moment(text: str) -> datetime:
    """Return a time of a suggested window; `ValueError` without a zone (RFC 3339)."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no time zone (RFC 3339)")
    return moment.astimezone(UTC)


# Revocation (RFC 8555, 7.6)


def revoke(
    accounts: Accounts,
    certificate: x509.Certificate,
    reason: int,
    key: PrivateKey | None,
) -> None:
    """Revoke a certificate; succeed if it is already revoked.

    The account signs. If there is none, or if the CA says that the certificate belongs
    to another one, the certificate's own key signs.

    Args:
        reason: RFC 5280, 5.3.1.
        key: The certificate's key; None if it is not at hand.

    Raises:
        AcmeError: If the CA refuses.
        ConfigError: If it offers no revocation.
    """
    session = accounts.session
    url = session.directory.get("revokeCert")
    if not isinstance(url, str):
        message = f"{accounts.ca} does not support revocation."
        raise ConfigError(message, hint="Ask the CA how to revoke a certificate.")
    der = certificate.public_bytes(serialization.Encoding.DER)
    request = {"certificate": encode_b64jose(der), "reason": reason}
    account = accounts.state.account()
    own = None
    if key is not None:
        is_rsa = isinstance(key, rsa.RSAPrivateKey)
        own = Signer(JWKRSA(key=key) if is_rsa else JWKEC(key=key))
    # No account is registered only for this, if the key is at hand.
    by_account = own is None or (account is not None and bool(account.url))
    try:
        try:
            by = accounts.signer() if own is None or by_account else own
            session.post(url, request, by)
        except AcmeError as exc:
            not_ours = {"unauthorized", "accountDoesNotExist"}
            if own is None or not by_account or exc.kind not in not_ours:
                raise
            _log.info("Revoking with the certificate's own key: %s", exc)
            session.post(url, request, own)
    except AcmeError as exc:
        if exc.kind != "alreadyRevoked":
            raise
        _log.info("The certificate is already revoked: %s", exc)
