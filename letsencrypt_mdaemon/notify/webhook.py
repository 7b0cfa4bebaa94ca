"""Sign what a webhook gets, so that its receiver knows who sent it, and when.

Standard Webhooks 1.0.0 (standardwebhooks.com), "Signature scheme": HMAC-SHA-256 of
`ID.TIMESTAMP.BODY`. Libraries that verify it exist for most languages.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from contextlib import suppress

SECRET_PREFIX = "whsec_"  # noqa: S105 - how a secret begins, by that specification


def headers(body: str, key: str, *, identifier: str, timestamp: int) -> dict[str, str]:
    """Return the headers of a request with this body.

    Args:
        key: `whsec_` and the secret in Base64, or the secret itself; "" = sign nothing.
        identifier: Of this message, the same if it is sent again.

    Raises:
        ValueError: If what follows `whsec_` is not Base64.
    """
    found = {
        "Content-Type": "application/json",
        "webhook-id": identifier,
        "webhook-timestamp": str(timestamp),
    }
    if key:
        signed = f"{identifier}.{timestamp}.{body}".encode()
        digest = hmac.new(_secret(key), signed, hashlib.sha256).digest()
        found["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return found


def _secret(key: str) -> bytes:
    if not key.startswith(SECRET_PREFIX):
        return key.encode()
    with suppress(ValueError):
        found = base64.b64decode(key.removeprefix(SECRET_PREFIX), validate=True)
        if found:
            return found
    raise ValueError(f"is not Base64 after {SECRET_PREFIX}")
