"""Accounts of the sandbox CA (RFC 8555, 7.3)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from josepy import jwk

from letsencrypt_mdaemon.sandbox.ca.certificates import public_key
from letsencrypt_mdaemon.sandbox.ca.messages import (
    ACCOUNT_ALGORITHMS,
    BINDING_ALGORITHMS,
    Account,
    Answer,
    Document,
    Message,
    Problem,
    Resource,
    member,
    parse,
)

if TYPE_CHECKING:
    from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority


def signer(ca: CertificateAuthority, header: Document, resource: str) -> Account:
    """Return the account that claims to have signed, or only its key."""
    may = resource == "revokeCert" and "jwk" in header
    bare = may or resource == "newAccount"
    if ("jwk" in header, "kid" in header) != (bare, not bare):  # 6.2
        wanted = "jwk" if bare else "kid"
        raise Problem("malformed", f"The JWS must have {wanted} and no other key")
    if bare:
        return Account(public_key(header["jwk"]))
    account = ca.accounts.get(str(header["kid"]))
    if not account:
        raise Problem("accountDoesNotExist", f"There is no account {header['kid']}")
    return _usable(account)


def new_account(ca: CertificateAuthority, sender: Account, payload: Document) -> Answer:
    """Register an account, or return the one that has this key."""
    if known := _account_with(ca, sender.key):
        return Answer(200, _usable(known).document, {"Location": known.url})
    if payload.get("onlyReturnExisting"):
        raise Problem("accountDoesNotExist", "No account has this key")
    if payload.get("termsOfServiceAgreed") is not True:
        raise Problem("userActionRequired", "Agree to the terms of service", 403)
    if ca.external_accounts:
        _check_binding(ca, payload.get("externalAccountBinding"), sender.key)
    sender.document["contact"] = _contacts(payload)
    sender.url = ca.publish(Resource("account", update, sender))
    ca.accounts[sender.url] = sender
    return Answer(201, sender.document, {"Location": sender.url})


def update(account: Account, payload: Document) -> Answer:
    """Change the contacts, or deactivate the account (7.3.2, 7.3.6)."""
    if "contact" in payload:
        account.document["contact"] = _contacts(payload)
    if payload.get("status") == "deactivated":
        account.document["status"] = "deactivated"
    return Answer(document=account.document)


def change_key(ca: CertificateAuthority, account: Account, payload: Document) -> Answer:
    """Replace the account's key (7.3.5)."""
    inner = Message.read(payload)
    key, claim = public_key(inner.header.get("jwk")), parse(inner.payload)
    inner.verify(key, ACCOUNT_ALGORITHMS)
    right_url = inner.header.get("url") == ca.directory["keyChange"]
    mine = claim.get("account") == account.url
    if not (right_url and mine and public_key(claim.get("oldKey")) == account.key):
        raise Problem("malformed", "The inner JWS does not match the request")
    if known := _account_with(ca, key):
        taken = {"Location": known.url}
        raise Problem("malformed", "The new key already has an account", 409, taken)
    account.key = key
    return Answer(document=account.document)


def _account_with(ca: CertificateAuthority, key: jwk.JWK) -> Account | None:
    return next((a for a in ca.accounts.values() if a.key == key), None)


def _usable(account: Account) -> Account:
    """Return an account unless it is deactivated (RFC 8555, 7.3.6)."""
    if account.document["status"] != "valid":
        raise Problem("unauthorized", "The account is deactivated", 401)
    return account


def _contacts(payload: Document) -> list[str]:
    """Return the contact addresses; they are optional (RFC 8555, 7.3)."""
    given = member(payload, "contact", list) if "contact" in payload else []
    if not all(re.fullmatch(r"mailto:[^@,?\s]+@[^@,?\s]+", str(one)) for one in given):
        raise Problem("invalidContact", "A contact is not one mailto address")
    return given


def _check_binding(ca: CertificateAuthority, value: object, key: jwk.JWK) -> None:
    """Refuse a new account that is not bound to an external one (7.3.4)."""
    if not isinstance(value, dict):
        raise Problem("externalAccountRequired", "Bind an external account", 403)
    binding = Message.read(value)
    secret = ca.external_accounts.get(str(binding.header.get("kid")))
    if secret is None:
        raise Problem("unauthorized", "The external account is unknown", 403)
    binding.verify(jwk.JWKOct(key=secret), BINDING_ALGORITHMS)
    right_url = binding.header.get("url") == ca.directory["newAccount"]
    same_key = public_key(parse(binding.payload)) == key
    if not (right_url and same_key) or "nonce" in binding.header:
        raise Problem("malformed", "The external binding does not match the request")
