"""Who we are to a CA: the account, its key, and what may be done with them."""

from __future__ import annotations

import binascii
import json
import logging
import re
from base64 import urlsafe_b64decode
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric import ec
from josepy.errors import DeserializationError
from josepy.jwk import JWK, JWKEC, JWKRSA, JWKOct

from letsencrypt_mdaemon.acme.http import TransientError
from letsencrypt_mdaemon.acme.jws import Signer, sign
from letsencrypt_mdaemon.acme.problem import kind_of
from letsencrypt_mdaemon.errors import AcmeError, ConfigError
from letsencrypt_mdaemon.state.memory import Account
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from letsencrypt_mdaemon.acme.http import Reply
    from letsencrypt_mdaemon.acme.transport import Session
    from letsencrypt_mdaemon.state.folder import CaState

_log = logging.getLogger(__name__)

_OURS = {"accountDoesNotExist", "rateLimited", "unauthorized", "userActionRequired"}
"""Kinds of problems with an account, whatever it is used for."""


@dataclass(frozen=True, slots=True)
class ExternalAccount:
    """An account at the CA's web site that ours is bound to (RFC 8555, 7.3.4).

    Args:
        kid: The key identifier that the CA gave.
        key: The MAC key that it gave with it; never part of the `repr`.
    """

    kid: str
    key: bytes = field(repr=False)

    @classmethod
    def read(cls, kid: str, text: str) -> ExternalAccount:
        """Return the account from the CA's texts; the key is base64url.

        Raises:
            ValueError: If the key is something else.
        """
        # Some sites show it with padding, or in the other alphabet.
        text = text.strip().translate(str.maketrans("+/", "-_")).rstrip("=")
        if not re.fullmatch("[A-Za-z0-9_-]+", text):
            raise ValueError("is not base64url")
        try:
            return cls(kid, urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except binascii.Error:
            raise ValueError("is not base64url: its end is missing") from None

    def bind(self, key: JWK, url: str) -> dict[str, str]:
        """Return what binds a new account's key to this account."""
        payload = json.dumps(_public(key)).encode()
        signer = Signer(JWKOct(key=self.key), self.kid)
        bound: dict[str, str] = json.loads(sign(url, payload, signer))
        return bound


class Accounts:
    """The account at one CA: found, made, shown, given a new key, closed.

    Args:
        contact: Mail addresses that the CA may use; may be empty.
        agree_tos: Whether the terms of service are agreed to, for a new account.
        external: Returns what a new account is bound to, if the CA wants that; asked
            only then, and may raise ConfigError.
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

    def signer(self) -> Signer:
        """Return the account as requests are signed with it; make one if need be.

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
        if key is None:
            key = _new_key()
        return self.register(key)

    def register(self, key: JWK) -> Signer:
        """Make an account for a key, or find the one that it has."""
        terms = self.session.meta.get("termsOfService")
        if terms and not self.agree_tos:
            message = (
                f"The CA's terms of service are not agreed to: {printable(terms, 300)}"
            )
            hint = (
                "Read them, then say --agree-tos (agree-tos = yes in the config file)."
            )
            raise ConfigError(message, hint=hint)
        url = self.session.directory["newAccount"]
        request: dict[str, object] = {"termsOfServiceAgreed": True} if terms else {}
        if self.contact:
            # RFC 6068, 2: what would end the address there is encoded.
            safe = "@+!$'*/=^_`{|}~.-"
            request["contact"] = [
                f"mailto:{quote(address, safe=safe)}" for address in self.contact
            ]
        external = self.external()
        if external is not None:
            request["externalAccountBinding"] = external.bind(key, url)
        elif self.session.meta.get("externalAccountRequired") is True:
            raise ConfigError(
                f"{printable(self.session.directory_url, 300)} wants every account to "
                "be bound to one at its web site (external account binding).",
                hint="Get a key id and a key there; set eab-kid and eab-key-file.",
            )
        self.state.save_account(Account(_private(key), ""))
        try:
            location = self.session.post(url, request, Signer(key)).location
        except AcmeError as exc:
            if external is not None and exc.problem:
                exc.hint = exc.hint or "Check eab-kid and its key (eab-key-file)."
            raise
        if not location:
            message = (
                f"{printable(url, 300)} made an account but did not say where it is."
            )
            raise AcmeError(message, hint="Tell the CA's operators.")
        self.state.save_account(Account(_private(key), location))
        _log.info("Registered the account %s", printable(location, 300))
        return Signer(key, location)

    def document(self) -> dict[str, Any]:
        """Return the account as the CA describes it (7.1.2).

        Raises:
            ConfigError: If there is none yet.
        """
        signer = self._existing()
        return self._post(signer.kid, None, signer).document()

    def deactivate(self) -> str:
        """Close the account for good (7.3.6); return its URL.

        Its key is set aside: nobody can use it at this CA any more.

        Raises:
            ConfigError: If there is none.
        """
        signer = self._existing()
        self._post(signer.kid, {"status": "deactivated"}, signer)
        self.state.retire_account()
        return signer.kid

    def roll_over(self) -> str:
        """Give the account a new key (7.3.5); return its URL.

        The new key is on disk before the CA hears of it, the old one until the CA has
        agreed: a run that dies in between leaves both, and the next one finds out.

        Raises:
            ConfigError: If there is no account, or the CA offers no key change.
        """
        signer = self._existing()
        url = self.session.directory.get("keyChange")
        if not isinstance(url, str):
            message = (
                f"{printable(self.session.directory_url, 300)} offers no key change."
            )
            hint = "Deactivate the account instead; the next run makes another."
            raise ConfigError(message, hint=hint)
        account = self.state.account()
        assert account is not None  # noqa: S101 - it has just signed
        new = _new_key()
        account = replace(account, next_key=_private(new))
        self.state.save_account(account)
        claim = {"account": signer.kid, "oldKey": _public(signer.key)}
        inner = sign(url, json.dumps(claim).encode(), Signer(new))
        try:
            reply = self._post(url, json.loads(inner), signer)
            if reply.body.strip():
                reply.document()  # A page of a proxy is no agreement.
        except AcmeError as exc:
            # Perhaps it was taken and only the answer got lost: sent once more, it was
            # signed by a key that the CA does not know any more.
            with suppress(AcmeError):
                if exc.problem and self._settled(account).key == account.next_key:
                    return signer.kid
            kept, kind = self.state.account(), kind_of(exc.problem)
            if kept is not None and not kept.next_key and kind not in _OURS:
                # One server says rejectedIdentifier (501) where it means that it has
                # no key change: what is usually to be done about that is not.
                exc.hint = "The account keeps the key that it had."
            raise
        self.state.save_account(Account(_private(new), signer.kid))
        return signer.kid

    def _existing(self) -> Signer:
        account = self.state.account()
        if account is None or not account.url or _jwk(account.key) is None:
            message = (
                f"There is no account at {printable(self.session.directory_url, 300)}"
            )
            hint = "`renew` makes one when it orders."
            raise ConfigError(f"{message} yet.", hint=hint)
        return self.signer()

    def _settled(self, account: Account) -> Account:
        """Return the account with the key that the CA knows after a rollover.

        Both are kept while it does not say which.
        """
        settled = replace(account, next_key={})
        old, new = _jwk(account.key), _jwk(account.next_key)
        try:
            if new is not None:
                self._find(new)
                settled = replace(settled, key=account.next_key)
                _log.info("The CA has taken the new key of the account.")
        except TransientError:
            raise
        except AcmeError as exc:
            if not exc.problem or old is None:
                raise
            if kind_of(exc.problem) != "accountDoesNotExist":
                self._find(old)  # Some CAs refuse a new key for another reason.
        self.state.save_account(settled)
        return settled

    def _find(self, key: JWK) -> None:
        """Ask whether there is an account with this key (7.3.1)."""
        url, asked = self.session.directory["newAccount"], {"onlyReturnExisting": True}
        if not self._post(url, asked, Signer(key)).location:
            message = f"{printable(url, 300)} did not say where the account is."
            raise AcmeError(message, hint="Run again later.")

    def _post(self, url: str, payload: object, signer: Signer) -> Reply:
        try:
            return self.session.post(url, payload, signer)
        except AcmeError as exc:
            if kind_of(exc.problem) == "unauthorized":
                file = self.state.folder / "account.json"
                exc.hint = f"If the account was closed, remove {file}: the next "
                exc.hint += "`renew` makes another."
            raise


def _new_key() -> JWK:
    # RFC 8555, 6.2: every CA has to know ES256.
    return JWKEC(key=ec.generate_private_key(ec.SECP256R1()))


def _private(key: JWK) -> dict[str, str]:
    return {name: str(value) for name, value in key.to_json().items()}


def _public(key: JWK) -> dict[str, str]:
    return {name: str(value) for name, value in key.public_key().to_json().items()}


def _jwk(private: dict[str, str]) -> JWK | None:
    """Return an account's private key, if it can be used."""
    try:
        key = JWK.from_json(private)
    except (ValueError, KeyError, TypeError, DeserializationError):
        key = None
    if isinstance(key, JWKEC | JWKRSA) and "d" in private:
        return key
    _log.warning("The account key cannot be read; a new one is made.")
    return None
