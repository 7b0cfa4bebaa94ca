r"""Keep the certificate of an MDaemon mail server up to date.

    from letsencrypt_mdaemon import load_config, renew

    outcome = renew(load_config(r"C:\MDaemon\LetsEncrypt\letsencrypt-mdaemon.ini"))

The names in `__all__` are the public API; everything else may change without notice.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from letsencrypt_mdaemon._version import __version__

__all__ = [
    "AcmeError",
    "BusyError",
    "Certificate",
    "ChallengeError",
    "Config",
    "ConfigError",
    "DeployError",
    "Error",
    "Outcome",
    "__version__",
    "load_config",
    "renew",
]

if TYPE_CHECKING:
    from letsencrypt_mdaemon.app.api import renew
    from letsencrypt_mdaemon.config.load import load_config
    from letsencrypt_mdaemon.config.settings import Config
    from letsencrypt_mdaemon.errors import (
        AcmeError,
        BusyError,
        ChallengeError,
        ConfigError,
        DeployError,
        Error,
    )
    from letsencrypt_mdaemon.pki.certificate import Certificate
    from letsencrypt_mdaemon.renewal.adapters import Outcome

_HOMES = {
    "Certificate": "letsencrypt_mdaemon.pki.certificate.Certificate",
    "Config": "letsencrypt_mdaemon.config.settings.Config",
    "Outcome": "letsencrypt_mdaemon.renewal.adapters.Outcome",
    "load_config": "letsencrypt_mdaemon.config.load.load_config",
    "renew": "letsencrypt_mdaemon.app.api.renew",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: the command line starts at once."""
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    home = _HOMES.get(name, f"letsencrypt_mdaemon.errors.{name}")
    module, _, member = home.rpartition(".")
    return getattr(import_module(module), member)
