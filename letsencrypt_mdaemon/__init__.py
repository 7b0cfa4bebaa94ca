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
    from letsencrypt_mdaemon.app.renewal import renew
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

_MODULES = {
    "Certificate": "pki.certificate",
    "Config": "config.settings",
    "Outcome": "renewal.adapters",
    "load_config": "config.load",
    "renew": "app.renewal",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: the command line starts at once."""
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    module = import_module(f"{__name__}.{_MODULES.get(name, 'errors')}")
    return getattr(module, name)
