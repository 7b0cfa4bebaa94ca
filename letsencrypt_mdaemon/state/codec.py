"""The state files' JSON: written from values, and read back with suspicion."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import InvalidVersion

from letsencrypt_mdaemon.pki.certificate import Certificate
from letsencrypt_mdaemon.state.ledger import Failure, Ledger
from letsencrypt_mdaemon.state.memory import (
    Account,
    Attempt,
    Issued,
    Memory,
    OpenOrder,
)
from letsencrypt_mdaemon.state.told import Told

_T = TypeVar("_T")

DAMAGE = (
    *(ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError),
    *(InvalidVersion, UnsupportedAlgorithm),
)
"""What the functions below raise for a damaged file."""

_ADDED: dict[type, set[str]] = {
    Memory: {
        *("dropped", "compromised", "runs", "in_use", "exit_code", "sizes"),
        *("rungs", "restarted", "host_name", "put_back", "checked", "proven"),
        *("told", "rehearsed", "disabled", "hold", "succeeded", "hooked"),
        *("script", "intermediates"),
    },
    Attempt: {"rungs"},
    Issued: {"revoked", "rolled_back", "advised"},
    Account: {"next_key", "contact"},
    OpenOrder: {"issued"},
    Failure: {"limited"},
    Told: {"dropped"},
}
"""Fields that files of earlier versions lack: they get their default."""


def encode(record: object) -> bytes:
    """Return a record as the JSON of a state file, with a line for each field."""
    # With json's own indentation, the slow encoder would be used.
    fields = _plain(record)
    lines = [f"  {json.dumps(name)}: {json.dumps(fields[name])}" for name in fields]
    return "{{\n{}\n}}\n".format(",\n".join(lines)).encode()


def _plain(value: object) -> Any:  # noqa: ANN401 - what JSON has
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if type(value) is tuple:
        return [_plain(item) for item in value]
    names = getattr(type(value), "__annotations__", None)
    if names is None:  # text, a number, a JWK
        return value
    return {name: _plain(getattr(value, name)) for name in names}


def decode(data: bytes, kind: type[_T]) -> _T:
    """Return the record that a state file holds.

    Args:
        kind: A named tuple of text, numbers, times, tuples, dictionaries,
            and further records.

    Raises:
        Exception: One of `DAMAGE`.
    """
    found: _T = _typed(json.loads(data), kind)
    return found


def _typed(value: object, hint: Any) -> Any:  # noqa: ANN401 - any type hint
    if hint in (str, int, bool):
        return _require(value, hint)
    if hint is datetime:
        moment = datetime.fromisoformat(_require(value, str))
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC)
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        return tuple(_typed(item, inner[0]) for item in _require(value, list))
    if origin is dict:
        rows = _require(value, dict).items()
        return {key: _typed(item, inner[1]) for key, item in rows}
    if inner:  # or None
        return None if value is None else _typed(value, inner[0])
    document, added = _require(value, dict), _ADDED.get(hint, ())
    return hint(
        **{
            name: _typed(document[name], inside)
            for name, inside in _hints(hint).items()
            if name in document or name not in added
        }
    )


_hints = cache(get_type_hints)


def _require(value: object, kind: type[_T]) -> _T:
    if not isinstance(value, kind):
        raise TypeError
    return value


def decode_ledger(data: bytes) -> Ledger:
    """Return what ledger.json holds; a failure without a time is damage."""
    ledger = decode(data, Ledger)
    if not all(item.times for item in ledger.failures):
        raise ValueError
    return ledger


def decode_pending(data: bytes) -> Certificate:
    """Return the pending certificate with its key."""
    certificate = Certificate.from_pem(data, data)
    if certificate.leaf.public_key() != certificate.key.public_key():
        raise ValueError
    return certificate
