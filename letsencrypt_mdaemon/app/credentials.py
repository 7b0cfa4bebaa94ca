"""Read the files with passwords and keys that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.system.disk import read_limited, reason

if TYPE_CHECKING:
    from pathlib import Path

    from letsencrypt_mdaemon.acme.external import ExternalAccount
    from letsencrypt_mdaemon.config.settings import Config

MAX_SECRET_BYTES = 64 << 10
"""Of a file with a password or a key."""


def external_account(config: Config) -> ExternalAccount | None:
    """Return the external account at the CA, if the settings name one."""
    from letsencrypt_mdaemon.acme.external import ExternalAccount  # noqa: PLC0415 - slow

    key = config.eab_key
    if config.eab_key_file:
        key = secret(config.eab_key_file, "eab-key-file")
    if not config.eab_kid and not key:
        return None
    if not config.eab_kid or not key:
        missing = "its key (eab-key-file)" if config.eab_kid else "eab-kid"
        message = f"The external account is incomplete: {missing} is missing."
        raise ConfigError(message, hint="The CA's web site shows both.")
    try:
        return ExternalAccount.read(config.eab_kid, key)
    except ValueError as exc:
        where = config.eab_key_file or "eab-key"
        message = f"The key of the external account ({where}) {exc}."
        raise ConfigError(message, hint="Copy it from the CA's web site.") from exc


def secret(path: Path, setting: str) -> str:
    """Return the text of a file with a secret, without the end of its last line.

    Raises:
        ConfigError: If it cannot be read.
    """
    try:
        # Windows' editors may write a byte order mark.
        data = read_limited(path, MAX_SECRET_BYTES, "a secret")
        return data.decode("utf-8-sig").rstrip("\r\n")
    except (OSError, ValueError) as exc:
        message = f"Could not read {path} ({setting}): {reason(exc)}"
        hint = "Check the path and its permissions."
        raise ConfigError(message, hint=hint) from exc
