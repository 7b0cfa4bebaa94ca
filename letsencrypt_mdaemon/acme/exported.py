"""A file with the account at a CA, encrypted, for another server of the same owner."""

from __future__ import annotations

import json
import secrets
from base64 import b64decode, b64encode, urlsafe_b64encode
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.state.memory import Account
from letsencrypt_mdaemon.text import printable

FORMAT = "letsencrypt-mdaemon account 1"
MAX_EXPORT_BYTES = 1 << 14
"""Of such a file; ours have about a thousand."""
MIN_PASSPHRASE = 16
"""Characters: whoever has the file can try passphrases for as long as they like."""

# RFC 7914, 2: 32 MB of memory and some 0.1 s for each passphrase that is tried. They
# are part of the format: a file cannot ask for more.
_COST, _BLOCK_SIZE, _PARALLELIZATION = 1 << 15, 8, 1
_HINT = "Export it again with this version, and copy the file as it is."


def seal(account: Account, directory_url: str, passphrase: str) -> bytes:
    """Return the content of a file with the account's URL and private key.

    Raises:
        ConfigError: If the passphrase is too short.
    """
    if len(passphrase) < MIN_PASSPHRASE:
        message = f"The passphrase has less than {MIN_PASSPHRASE} characters."
        raise ConfigError(message, hint="Use a longer one, such as five words.")
    salt = secrets.token_bytes(16)
    content = {"directory_url": directory_url, "url": account.url, "key": account.key}
    token = _cipher(passphrase, salt).encrypt(json.dumps(content).encode())
    items = {
        "format": FORMAT,
        "salt": b64encode(salt).decode(),
        "sealed": token.decode(),
    }
    return json.dumps(items, indent=1).encode() + b"\n"


def unseal(data: bytes, passphrase: str, directory_url: str) -> Account:
    """Return the account in such a file.

    Args:
        directory_url: The CA that the account has to be at.

    Raises:
        ConfigError: If it is no such file, for another CA, or has another passphrase.
    """
    try:
        items = json.loads(data)
        known = items["format"] == FORMAT
        salt, token = b64decode(items["salt"], validate=True), items["sealed"].encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        known, salt, token = False, b"", b""
    if not known:
        message = "The file is not an account that this version exported."
        raise ConfigError(message, hint=_HINT)
    try:
        content: Any = json.loads(_cipher(passphrase, salt).decrypt(token))
    except InvalidToken:
        message = "The passphrase does not open the file, or the file was changed."
        raise ConfigError(message, hint="Check --passphrase-file.") from None
    if content["directory_url"] != directory_url:
        message = (
            "The file has an account at another CA: "
            f"{printable(content['directory_url'], 300)}."
        )
        raise ConfigError(message, hint="Set directory-url to that CA.")
    return Account(content["key"], content["url"])


def _cipher(passphrase: str, salt: bytes) -> Fernet:
    kdf = Scrypt(salt, 32, _COST, _BLOCK_SIZE, _PARALLELIZATION)
    return Fernet(urlsafe_b64encode(kdf.derive(passphrase.encode())))
