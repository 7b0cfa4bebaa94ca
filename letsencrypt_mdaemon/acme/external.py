"""An account at the CA's web site, which ours is bound to (RFC 8555, section 7.3.4)."""

from __future__ import annotations

import binascii
import json
import re
from base64 import urlsafe_b64decode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from josepy.jwk import JWKOct

from letsencrypt_mdaemon.acme.jws import Signer, sign

if TYPE_CHECKING:
    from josepy.jwk import JWK


@dataclass(frozen=True)
class ExternalAccount:
    """An account at the CA's web site that ours is bound to (RFC 8555, 7.3.4).

    Args:
        kid: The key identifier from the CA.
        key: The MAC key from the CA; never part of the `repr`.
    """

    kid: str
    key: bytes = field(repr=False)

    @classmethod
    def read(cls, kid: str, text: str) -> ExternalAccount:
        """Return the account; the text is the key in base64url.

        Raises:
            ValueError: If it is not base64url.
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
        """Return the JWS that binds a new account's key to this account."""
        payload = json.dumps(key.public_key().to_json()).encode()
        signer = Signer(JWKOct(key=self.key), self.kid)
        bound: dict[str, str] = json.loads(sign(url, payload, signer))
        return bound
