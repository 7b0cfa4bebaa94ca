"""The account at a CA and its key (RFC 8555, section 7.3)."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric import ec
from josepy.errors import DeserializationError
from josepy.jwk import JWK, JWKEC, JWKRSA

from letsencrypt_mdaemon.acme.exchange import check_url
from letsencrypt_mdaemon.acme.http import TransientError
from letsencrypt_mdaemon.acme.jws import Signer, sign
from letsencrypt_mdaemon.acme.problem import BIND_ACCOUNT
from letsencrypt_mdaemon.errors import AcmeError, ConfigError
from letsencrypt_mdaemon.state.memory import Account
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from letsencrypt_mdaemon.acme.external import ExternalAccount
    from letsencrypt_mdaemon.acme.http import Reply
    from letsencrypt_mdaemon.acme.transport import Session
    from letsencrypt_mdaemon.state.folder import CaState

_log = logging.getLogger(__name__)

_ABOUT_ACCOUNT = {
    *("accountDoesNotExist", "rateLimited", "unauthorized", "userActionRequired"),
}
"""Problems with the account itself, whatever the request was."""


class Accounts:
    """The account at one CA: register it, show it, change its key, deactivate it.

    Args:
        contact: Mail addresses for the CA; may be empty.
        agree_tos: Whether a new account agrees to the terms of service.
        external: Returns what a new account is bound to, None for nothing; called only
            for a new account, and may raise ConfigError.
    """

    def __init__(
        self,
        session: Session,
        state: CaState,
        *,
        contact: Sequence[str] = (),
        agree_tos: bool = False,
        external: Callable[[], ExternalAccount | None] = lambda: None,
    ) -> None:
        self.session = session
        self.state = state
        self.contact = contact
        self.agree_tos = agree_tos
        self.external = external

    @property
    def ca(self) -> str:
        """The CA's directory URL, as messages show it."""
        return printable(self.session.directory_url, 300)

    def signer(self) -> Signer:
        """Return the account's signer; register an account if there is none.

        Raises:
            AcmeError: If the CA refuses.
            ConfigError: If its terms of service have to be agreed to first.
        """
        account = self.state.account()
        key = _jwk(account.key) if account else None
        if account is not None and key is not None and account.url:
            if account.next_key:
                key = _jwk(self._settled(account).key) or key
            return Signer(key, account.url)
        return self.register(key or _new_key())

    def update_contact(self, signer: Signer) -> None:
        """Send a changed contact to the CA (7.3.2); a failure is only a warning."""
        account = self.state.account()
        if account is None or account.contact == tuple(self.contact):
            return
        try:
            self.session.post(signer.kid, {"contact": self._contact_urls()}, signer)
        except AcmeError as exc:
            _log.warning("Could not change the contact at the CA: %s", exc)
        else:
            self.state.save(account._replace(contact=tuple(self.contact)))
            _log.info("The CA has the contact %s", ", ".join(self.contact) or "nobody")

    def _contact_urls(self) -> list[str]:
        # RFC 6068, 2: characters that would end the address in a URL are encoded.
        safe = "@+!$'*/=^_`{|}~.-"
        return [f"mailto:{quote(address, safe=safe)}" for address in self.contact]

    def require_agreement(self) -> object:
        """Return the CA's terms of service, if it has some.

        Raises:
            ConfigError: If a new account does not agree to them.
        """
        terms = self.session.meta.get("termsOfService")
        if terms and not self.agree_tos:
            raise ConfigError(
                "You have not agreed to the CA's terms of service: "
                f"{printable(terms, 300)}",
                hint="Read them, then set --agree-tos (agree-tos = yes in the config "
                "file).",
            )
        return terms

    def register(self, key: JWK) -> Signer:
        """Register an account for a key, or find the one that has this key."""
        terms = self.require_agreement()
        url = self.session.directory["newAccount"]
        request: dict[str, object] = {"termsOfServiceAgreed": True} if terms else {}
        if self.contact:
            request["contact"] = self._contact_urls()
        external = self.external()
        if external is not None:
            request["externalAccountBinding"] = external.bind(key, url)
        elif self.session.meta.get("externalAccountRequired") is True:
            message = f"{self.ca} requires an external account (EAB)."
            raise ConfigError(message, hint=BIND_ACCOUNT)
        self.state.save(Account(_private(key), ""))
        try:
            reply = self.session.post(url, request, Signer(key))
        except AcmeError as exc:
            if external is not None and exc.problem:
                exc.hint = exc.hint or "Check eab-kid and its key (eab-key-file)."
            raise
        location = reply.location
        if not location:
            message = f"{printable(url, 300)} registered an account but sent no URL."
            raise AcmeError(message, hint="Report this to the CA.")
        check_url(location, self.session.directory_url)
        # An account that the CA has already keeps its contact (7.3.1).
        contact = tuple(self.contact) if reply.status == HTTPStatus.CREATED else ()
        self.state.save(Account(_private(key), location, contact=contact))
        _log.info("Registered the account %s", printable(location, 300))
        return Signer(key, location)

    def document(self) -> dict[str, Any]:
        """Return the account as the CA describes it (7.1.2).

        Raises:
            ConfigError: If there is none yet.
        """
        signer = self._existing()
        return self.post(signer.kid, None, signer).document()

    def deactivate(self) -> str:
        """Deactivate the account for good (7.3.6); return its URL.

        Its key is set aside, as the CA accepts it no longer.

        Raises:
            ConfigError: If there is none.
        """
        signer = self._existing()
        self.post(signer.kid, {"status": "deactivated"}, signer)
        self.state.retire_account()
        return signer.kid

    def roll_over(self) -> str:
        """Give the account a new key (7.3.5); return its URL.

        The new key is saved before the request, and the old key is kept until the CA
        agrees. If the run is killed in between, the next run asks the CA which of the
        two keys is in use.

        Raises:
            ConfigError: If there is no account, or the CA does not support key changes.
        """
        signer = self._existing()
        url = self.session.directory.get("keyChange")
        if not isinstance(url, str):
            message = f"{self.ca} does not support key changes."
            hint = "Deactivate the account instead; the next run registers a new one."
            raise ConfigError(message, hint=hint)
        account = self.state.account()
        assert account is not None  # noqa: S101 - it has just signed
        new = _new_key()
        account = account._replace(next_key=_private(new))
        self.state.save(account)
        claim = {"account": signer.kid, "oldKey": _public(signer.key)}
        inner = sign(url, json.dumps(claim).encode(), Signer(new))
        try:
            reply = self.post(url, json.loads(inner), signer)
            if reply.body.strip():
                reply.document()  # A proxy's page is no agreement.
        except AcmeError as exc:
            # Perhaps the CA accepted it and only the answer was lost: then the second
            # attempt was signed with a key that the CA no longer knows.
            with suppress(AcmeError):
                if exc.problem and self._settled(account).key == account.next_key:
                    return signer.kid
            kept = self.state.account()
            if kept and not kept.next_key and exc.kind not in _ABOUT_ACCOUNT:
                # One server answers rejectedIdentifier (501) if it has no key change:
                # the usual hint for that is wrong here.
                exc.hint = "The account keeps its key."
            raise
        self.state.save(account._replace(key=account.next_key, next_key={}))
        return signer.kid

    def exported(self) -> Account:
        """Return the account with the key that the CA knows.

        Raises:
            ConfigError: If there is none.
        """
        self._existing()
        account = self.state.account()
        assert account is not None  # noqa: S101 - it exists
        return account

    def adopt(self, account: Account) -> Path | None:
        """Use another server's account; return the file of a former one, if any.

        The CA says which account has the key (7.3.1): a URL from a file is not
        believed. A former account is set aside, and its open order is forgotten.

        Raises:
            AcmeError: If the CA knows no account with this key.
            ConfigError: If it is no key.
        """
        key = _jwk(account.key)
        if key is None:
            raise ConfigError("The file holds no account key.", hint="Export it again.")
        taken = Account(account.key, self._find(key))
        former, aside = self.state.account(), None
        if former is not None and former.url != taken.url:
            self.state.forget_order()
            aside = self.state.retire_account()
        if former is None or (former.key, former.url) != (taken.key, taken.url):
            self.state.save(taken)
        return aside

    def post(self, url: str, payload: object, signer: Signer) -> Reply:
        """Send a signed request; say what to do if the account is deactivated."""
        try:
            return self.session.post(url, payload, signer)
        except AcmeError as exc:
            if exc.kind == "unauthorized":
                file = self.state.folder / "account.json"
                exc.hint = f"If the account was deactivated, remove {file}; the next "
                exc.hint += "`renew` registers a new one."
            raise

    def _existing(self) -> Signer:
        account = self.state.account()
        if account is None or not account.url or _jwk(account.key) is None:
            hint = "`renew` registers one when it places an order."
            raise ConfigError(f"There is no account at {self.ca} yet.", hint=hint)
        return self.signer()

    def _settled(self, account: Account) -> Account:
        """Return the account with the key that the CA knows after a rollover.

        Both keys are kept until the CA answers.
        """
        settled = account._replace(next_key={})
        old, new = _jwk(account.key), _jwk(account.next_key)
        try:
            if new is not None:
                self._find(new)
                settled = settled._replace(key=account.next_key)
                _log.info("The CA accepted the new account key.")
        except TransientError:
            raise
        except AcmeError as exc:
            if not exc.problem or old is None:
                raise
            if exc.kind != "accountDoesNotExist":
                self._find(old)  # Some CAs refuse a new key for another reason.
        self.state.save(settled)
        return settled

    def _find(self, key: JWK) -> str:
        """Return the URL of the account with this key (7.3.1)."""
        url = self.session.directory["newAccount"]
        request = {"onlyReturnExisting": True}
        location = self.post(url, request, Signer(key)).location
        if not location:
            message = f"{printable(url, 300)} found the account but sent no URL."
            raise AcmeError(message, hint="Try again later.")
        check_url(location, self.session.directory_url)
        return location


def _new_key() -> JWK:
    # RFC 8555, 6.2: every CA accepts ES256.
    return JWKEC(key=ec.generate_private_key(ec.SECP256R1()))


def _private(key: JWK) -> dict[str, str]:
    return {name: str(value) for name, value in key.to_json().items()}


def _public(key: JWK) -> dict[str, str]:
    return _private(key.public_key())


def _jwk(private: dict[str, str]) -> JWK | None:
    """Return an account's private key, if it can be used."""
    try:
        key = JWK.from_json(private)
    except (ValueError, KeyError, TypeError, DeserializationError):
        key = None
    if isinstance(key, JWKEC | JWKRSA) and "d" in private:
        return key
    _log.warning("Could not read the account key; a new one is created.")
    return None
