"""The state files' JSON, read defensively and written."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import InvalidVersion

from letsencrypt_mdaemon.pki.certificate import Certificate
from letsencrypt_mdaemon.state.advice import Draw
from letsencrypt_mdaemon.state.ledger import Failure, Issuance, Ledger
from letsencrypt_mdaemon.state.memory import (
    Account,
    Attempt,
    Change,
    Dropped,
    Issued,
    Memory,
    OpenOrder,
    Target,
)

NONSENSE = (
    *(ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError),
    *(InvalidVersion, UnsupportedAlgorithm),
)


def encode(moment: datetime) -> str:
    """Return a moment as ISO 8601 in UTC."""
    return moment.astimezone(UTC).isoformat()


def _document(data: bytes) -> dict[str, object]:
    document = json.loads(data)
    if not isinstance(document, dict):
        raise TypeError
    return document


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _moment(value: object) -> datetime:
    moment = datetime.fromisoformat(_string(value))
    if moment.tzinfo is None:
        raise ValueError
    return moment.astimezone(UTC)


def _optional(value: object) -> datetime | None:
    return None if value is None else _moment(value)


def _strings(value: object) -> tuple[str, ...]:
    return tuple(map(_string, _list(value)))


def _moments(value: object) -> tuple[datetime, ...]:
    return tuple(map(_moment, _list(value)))


def decode_memory(data: bytes) -> Memory:
    """Return what installation.json holds."""
    document = _document(data)
    targets = [_target(item) for item in _list(document["targets"])]
    issued = [_issued(item) for item in _list(document["issued"])]
    dropped = [_dropped(item) for item in _list(document.get("dropped", []))]
    return Memory(
        targets=tuple(targets),
        issued=tuple(issued),
        dropped=tuple(dropped),
        compromised=_strings(document.get("compromised", [])),
        runs=_moments(document.get("runs", [])),
        in_use=_string(document.get("in_use", "")),
        exit_code=_exit_code(document.get("exit_code")),
    )


def _exit_code(value: object) -> int | None:
    if value is not None and not isinstance(value, int):
        raise TypeError
    return value


def _dropped(item: object) -> Dropped:
    if not isinstance(item, dict):
        raise TypeError
    since, tried = _moment(item["since"]), _moment(item["tried"])
    return Dropped(_string(item["name"]), since, tried, _string(item["why"]))


def _target(item: object) -> Target:
    if not isinstance(item, dict):
        raise TypeError
    return Target(*(_string(item[name]) for name in ("file", "section", "key", "form")))


def _issued(item: object) -> Issued:
    if not isinstance(item, dict):
        raise TypeError
    return Issued(
        thumbprint=_string(item["thumbprint"]),
        directory_url=_string(item["directory_url"]),
        names=_strings(item["names"]),
        obtained=_moment(item["obtained"]),
        verified=_optional(item["verified"]),
        revoked=_optional(item.get("revoked")),
    )


def decode_attempt(data: bytes) -> Attempt:
    """Return what attempt.json holds."""
    document = _document(data)
    before = document["before"]
    undoing = document["undoing"]
    if not isinstance(before, dict) or not isinstance(undoing, bool):
        raise TypeError
    return Attempt(
        thumbprint=_string(document["thumbprint"]),
        before={_string(port): _string(was) for port, was in before.items()},
        changes=tuple(_change(item) for item in _list(document["changes"])),
        undoing=undoing,
        failed=_optional(document["failed"]),
    )


def _change(item: object) -> Change:
    if not isinstance(item, dict) or not isinstance(item["line"], int):
        raise TypeError
    before, after = _string(item["before"]), _string(item["after"])
    return Change(_target(item["target"]), item["line"], before, after)


def decode_account(data: bytes) -> Account:
    """Return what account.json holds."""
    document = _document(data)
    url = _string(document["url"])
    return Account(_jwk(document["key"]), url, _jwk(document.get("next_key", {})))


def _jwk(key: object) -> dict[str, str]:
    if not isinstance(key, dict):
        raise TypeError
    return {_string(name): _string(value) for name, value in key.items()}


def decode_order(data: bytes) -> OpenOrder:
    """Return what order.json holds."""
    document = _document(data)
    return OpenOrder(
        url=_string(document["url"]),
        finalize=_string(document["finalize"]),
        names=_strings(document["names"]),
        key_type=_string(document["key_type"]),
        key_pem=_string(document["key_pem"]),
        issued=document.get("issued") is True,
    )


def decode_pending(data: bytes) -> Certificate:
    """Return the pending certificate with its key."""
    certificate = Certificate.from_pem(data, data)
    if certificate.leaf.public_key() != certificate.key.public_key():
        raise ValueError
    return certificate


def decode_draw(data: bytes) -> Draw:
    """Return what draw.json holds."""
    document = _document(data)
    return Draw(
        thumbprint=_string(document["thumbprint"]),
        start=_optional(document["start"]),
        end=_optional(document["end"]),
        at=_optional(document["at"]),
        ask_again=_moment(document["ask_again"]),
        explanation_url=_string(document["explanation_url"]),
    )


def decode_ledger(data: bytes) -> Ledger:
    """Return what ledger.json holds."""
    document = _document(data)
    issuances = [_issuance(item) for item in _list(document["issuances"])]
    failures = [_failure(item) for item in _list(document["failures"])]
    return Ledger(tuple(issuances), tuple(failures))


def _issuance(item: object) -> Issuance:
    if not isinstance(item, dict):
        raise TypeError
    return Issuance(_strings(item["names"]), _moment(item["at"]))


def _failure(item: object) -> Failure:
    if not isinstance(item, dict):
        raise TypeError
    times = _moments(item["times"])
    if not times:
        raise ValueError
    return Failure(
        name=_string(item["name"]),
        times=times,
        why=_string(item["why"]),
        until=_optional(item["until"]),
        paused=_string(item["paused"]),
    )
