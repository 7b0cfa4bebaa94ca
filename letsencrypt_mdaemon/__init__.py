"""Keep the certificate of an MDaemon mail server fresh.

The names in `__all__` are the public API; everything else may change without notice.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"
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
    from letsencrypt_mdaemon.certificate import Certificate
    from letsencrypt_mdaemon.config import Config
    from letsencrypt_mdaemon.config import load as load_config
    from letsencrypt_mdaemon.errors import (
        AcmeError,
        BusyError,
        ChallengeError,
        ConfigError,
        DeployError,
        Error,
    )
    from letsencrypt_mdaemon.workflow import Outcome, renew

_HOMES = {
    "Certificate": "certificate",
    "Config": "config",
    "Outcome": "workflow",
    "load_config": "config:load",
    "renew": "workflow",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: the command line starts at once."""
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    module, _, member = _HOMES.get(name, "errors").partition(":")
    return getattr(import_module(f"{__name__}.{module}"), member or name)
