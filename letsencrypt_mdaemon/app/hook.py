"""Run the hook `after-activation`, once for each certificate that is put into use."""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.app import trust
from letsencrypt_mdaemon.config.load import PREFIX
from letsencrypt_mdaemon.errors import ConfigError, DeployError, Error
from letsencrypt_mdaemon.pki.certificate import dns_names, thumbprint
from letsencrypt_mdaemon.pki.chain import title
from letsencrypt_mdaemon.stores.pem import PemStore
from letsencrypt_mdaemon.system import hook
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography import x509

    from letsencrypt_mdaemon.app.installation import Installation

_log = logging.getLogger(__name__)

SCHEMA = 1
"""The version of the JSON on its standard input; see docs/schemas."""

MAX_LINES, MAX_LINE = 20, 300
"""The end of its output that the log shows."""

AGAIN = "The certificate is in use. The next run of `renew` runs the hook again."


def catch_up(installation: Installation, in_use: x509.Certificate | None) -> None:
    """Run the hook if it has not succeeded for the certificate in use.

    It has not for one that this run put into use, nor if it failed or was killed.

    Raises:
        DeployError: If it cannot be trusted or started, fails, or takes too long.
        Error: If that it ran cannot be saved.
    """
    config, state = installation.config, installation.state
    path = config.after_activation
    if path is None or in_use is None or config.dry_run or config.staging:
        return
    digest, memory = thumbprint(in_use), state.load()
    if memory.in_use != digest or memory.hooked == digest:
        return
    _run(path, installation, in_use)
    state.save(state.load()._replace(hooked=digest))


def _run(path: Path, installation: Installation, leaf: x509.Certificate) -> None:
    try:
        trust.require_hook(path, installation.root)
    except ConfigError as exc:
        raise DeployError(exc.message, hint=f"{exc.hint} {AGAIN}") from exc
    facts = _facts(installation, leaf)
    timeout = installation.config.after_activation_timeout
    _log.info("Running the hook %s", path)
    try:
        ended = hook.run(
            path,
            environ=_environment(facts),
            given=json.dumps(facts).encode(),
            timeout=timeout,
        )
    except Error as exc:
        raise DeployError(exc.message, hint=f"{exc.hint} {AGAIN}") from exc
    lines = [printable(row, MAX_LINE) for row in ended.output.splitlines() if row]
    for row in lines[-MAX_LINES:]:
        _log.info("%s: %s", path.name, row)
    last = f": {lines[-1]}" if lines else "."
    if ended.code is None:
        message = f"The hook {path} did not end within {timeout} s, and was ended"
        hint = "Correct it, or set after-activation-timeout."
    elif ended.code:
        message = f"The hook {path} ended with exit code {ended.code}"
        hint = "Correct its cause."
    else:
        _log.info("The hook ended after %.1f s", ended.seconds)
        return
    raise DeployError(message + last, hint=f"{hint} {AGAIN}")


def _facts(installation: Installation, leaf: x509.Certificate) -> dict[str, object]:
    """Return what the hook is told; nothing of it is secret."""
    store, digest = installation.store, thumbprint(leaf)
    names = {thumbprint(one): name for one, name in store.certificates()}
    friendly = names.get(digest, "")
    folder = isinstance(store, PemStore) and friendly and str(store.folder / friendly)
    return {
        "schema": SCHEMA,
        "event": "after-activation",
        "thumbprint": digest,
        "names": [printable(name) for name in dns_names(leaf)],
        "issuer": title(leaf, "issuer"),
        "not_before": leaf.not_valid_before_utc.isoformat(),
        "not_after": leaf.not_valid_after_utc.isoformat(),
        "friendly_name": printable(friendly),
        "store": str(store),
        "folder": folder or None,
        "mdaemon_dir": str(installation.root),
    }


def _environment(facts: dict[str, object]) -> dict[str, str]:
    """Return this environment without our settings, some of which are secret."""
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(PREFIX)}
    for name, value in facts.items():
        if name not in {"schema", "event"}:
            text = ",".join(value) if isinstance(value, list) else str(value or "")
            kept[f"CERTIFICATE_{name.upper()}"] = text
    return kept
