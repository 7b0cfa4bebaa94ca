"""What a run remembers for the next one: account, open order, pending, history.

    <state>/installation.json      targets learned, certificates obtained and verified
    <state>/attempt.json           a certificate being put into use, or rolled back
    <state>/<CA>/account.json      the account key at this CA, and the account's URL
    <state>/<CA>/order.json        the open order, with the key of its certificate
    <state>/<CA>/pending.pem       issued, not yet in use: chain and key
    <state>/<CA>/renewal.json      the moment drawn from the CA's suggested window
    <state>/<CA>/ledger.json       what was issued and what failed there
    <state>/staging/<CA>/…         the same for rehearsals
    <state>/backups/, <state>/lock

Every file is private, and written whole or not at all. One that makes no sense is set
aside under another name, said so, and rebuilt. On Windows those with a private key are
sealed for this machine besides: a copy of them is of no use elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import InvalidVersion

from letsencrypt_mdaemon.errors import DeployError, Error
from letsencrypt_mdaemon.ledger import Failure, Issuance, Ledger
from letsencrypt_mdaemon.pki.certificate import Certificate
from letsencrypt_mdaemon.renewal import Draw
from letsencrypt_mdaemon.system.disk import (
    make_private_folder,
    read_limited,
    write_private,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

HISTORY = 50
"""Certificates remembered, newest last."""
RUNS = 10
"""Scheduled runs remembered."""
LIMIT = 1 << 20
"""Bytes of a state file; ours have some ten thousand at most."""
SEALED = b"sealed for this machine\n"
"""What a file begins with that is not plain."""
_NONSENSE = (
    *(ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError),
    *(InvalidVersion, UnsupportedAlgorithm),
)


@dataclass(frozen=True, slots=True)
class Target:
    """One INI value that names the certificate, or one binding of an IIS site.

    Args:
        file: Path below the installation, with forward slashes; or `IIS`.
        form: How the value names it; see `mdaemon.forms`.
    """

    file: str
    section: str
    key: str
    form: str

    def __str__(self) -> str:
        """Return it as messages show it."""
        return f"{self.file} [{self.section}] {self.key}"


@dataclass(frozen=True, slots=True)
class Change:
    """One target, before and after.

    Args:
        line: Counted from 1; 0 if the key was not there.
    """

    target: Target
    line: int
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """A certificate being put into use: kept until it is proven, or rolled back.

    Args:
        before: What each port served before: endpoint → thumbprint.
        changes: What was changed in the server's files.
        failed: When it was rolled back; None while it is under way.
        undoing: Whether it is being rolled back.
    """

    thumbprint: str
    before: dict[str, str]
    changes: tuple[Change, ...]
    undoing: bool = False
    failed: datetime | None = None


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate this program obtained.

    Args:
        verified: When every port that spoke TLS was seen to serve it; None if never.
        revoked: When this program revoked it; None if it did not.
    """

    thumbprint: str
    directory_url: str
    names: tuple[str, ...]
    obtained: datetime
    verified: datetime | None = None
    revoked: datetime | None = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """A name that is wanted, and that the certificate goes without for now.

    Args:
        since: When the CA first could not validate it.
        tried: When it was tried last.
        why: The CA's words.
    """

    name: str
    since: datetime
    tried: datetime
    why: str


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of the installation, whatever the CA.

    Args:
        compromised: Public keys that must not be used again: SHA-256 in hex.
        runs: When the last scheduled runs began.
        in_use: The thumbprint that was put into use last; "" if it is not known.
        exit_code: How the last scheduled run ended; None if it did not, or never ran.
    """

    targets: tuple[Target, ...] = ()
    issued: tuple[Issued, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    compromised: tuple[str, ...] = ()
    runs: tuple[datetime, ...] = ()
    in_use: str = ""
    exit_code: int | None = None

    def find(self, thumbprint: str) -> Issued | None:
        """Return what is remembered of a certificate."""
        found = [item for item in self.issued if item.thumbprint == thumbprint]
        return found[-1] if found else None

    def remember(self, item: Issued) -> Memory:
        """Return the memory with a certificate added or replaced."""
        others = [old for old in self.issued if old.thumbprint != item.thumbprint]
        return replace(self, issued=tuple([*others, item][-HISTORY:]))


@dataclass(frozen=True, slots=True)
class Account:
    """Who we are to a CA.

    Args:
        key: The account key as JWK, private.
        url: The account's URL; "" until the CA has told it.
        next_key: The key that a rollover under way puts in its place; else empty.
    """

    key: dict[str, str]
    url: str
    next_key: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Leave the key out."""
        return f"Account(url={self.url!r})"


@dataclass(frozen=True, slots=True)
class OpenOrder:
    """An order that is not done: its URL, and the key it will be finalized with.

    Args:
        issued: Whether the CA has issued, and the ledger says so.
    """

    url: str
    finalize: str
    names: tuple[str, ...]
    key_type: str
    key_pem: str
    issued: bool = False

    def __repr__(self) -> str:
        """Leave the key out."""
        return f"OpenOrder(url={self.url!r}, names={self.names!r})"


class Seal(Protocol):
    """Encrypts what only this machine may read."""

    def close(self, data: bytes) -> bytes:
        """Return it encrypted."""
        ...

    def open(self, data: bytes) -> bytes:
        """Return what `close` was given; raise ValueError if that was elsewhere."""
        ...


class State:
    """The state folder of one installation.

    Args:
        look_only: Leave a file that makes no sense where it is.
        seal: Encrypts the files with a private key, where that is to be had.
    """

    def __init__(
        self, folder: Path, *, look_only: bool = False, seal: Seal | None = None
    ) -> None:
        self.folder = folder
        self.look_only = look_only
        self.seal = seal

    @property
    def lock(self) -> Path:
        """The file that the one running process holds locked."""
        return self.folder / "lock"

    @property
    def backups(self) -> Path:
        """Where the INI files' former contents go."""
        return self.folder / "backups"

    def ca(self, directory_url: str, *, staging: bool) -> CaState:
        """Return what belongs to one CA; rehearsals have their own."""
        readable = re.sub(
            r"[^a-z0-9.-]+", "_", directory_url.partition("://")[2].lower()
        )
        # Two URLs may look the same when written like this.
        digest = hashlib.sha256(directory_url.encode("utf-8", "replace")).hexdigest()
        folder = self.folder / "staging" if staging else self.folder
        return CaState(
            folder / f"{readable[:60].strip('_.')}-{digest[:12]}",
            look_only=self.look_only,
            seal=self.seal,
        )

    def load(self) -> Memory:
        """Return what is remembered of the installation."""
        return self._read("installation.json", _memory) or Memory()

    def save(self, memory: Memory) -> None:
        """Remember it."""
        _write(self.folder / "installation.json", asdict(memory))

    def attempt(self) -> Attempt | None:
        """Return the attempt that an earlier run left, or that was rolled back."""
        return self._read("attempt.json", _attempt)

    def _read(self, name: str, parse: Callable[[bytes], _T]) -> _T | None:
        return _read(self.folder / name, parse, look_only=self.look_only)

    def save_attempt(self, attempt: Attempt) -> None:
        """Keep an attempt before it changes anything."""
        _write(self.folder / "attempt.json", asdict(attempt))

    def forget_attempt(self) -> None:
        """Forget the attempt, once it is decided."""
        _forget(self.folder / "attempt.json")


class CaState:
    """What is remembered at one CA.

    Accounts at different CAs, and staging and production, never mix.

    Args:
        look_only: Leave a file that makes no sense where it is.
        seal: Encrypts the files with a private key, where that is to be had.
    """

    def __init__(
        self, folder: Path, *, look_only: bool = False, seal: Seal | None = None
    ) -> None:
        self.folder = folder
        self.look_only = look_only
        self.seal = seal

    def account(self) -> Account | None:
        """Return the account, or at least its key (then the URL is empty)."""
        return self._read("account.json", lambda data: _account(self._opened(data)))

    def save_account(self, account: Account) -> None:
        """Keep the account."""
        document = _encoded(asdict(account))
        _save(self.folder / "account.json", self._closed(document))

    def _closed(self, data: bytes) -> bytes:
        return SEALED + self.seal.close(data) if self.seal else data

    def _opened(self, data: bytes) -> bytes:
        """Return a file's content; one from before, or from elsewhere, is plain."""
        if not data.startswith(SEALED):
            return data
        if self.seal is None:
            raise ValueError
        return self.seal.open(data.removeprefix(SEALED))

    def _read(self, name: str, parse: Callable[[bytes], _T]) -> _T | None:
        return _read(self.folder / name, parse, look_only=self.look_only)

    def retire_account(self) -> Path | None:
        """Set the account's file aside, if there is one; return where it is now."""
        return _rename(self.folder / "account.json", "retired")

    def order(self) -> OpenOrder | None:
        """Return the open order."""
        return self._read("order.json", lambda data: _order(self._opened(data)))

    def save_order(self, order: OpenOrder) -> None:
        """Keep the open order, before anything depends on it."""
        _save(self.folder / "order.json", self._closed(_encoded(asdict(order))))

    def forget_order(self) -> None:
        """Forget the open order."""
        _forget(self.folder / "order.json")

    def pending(self) -> Certificate | None:
        """Return the certificate that was issued and is not in use yet."""
        return self._read("pending.pem", lambda data: _pending(self._opened(data)))

    def keep(self, certificate: Certificate) -> None:
        """Keep an issued certificate before anything else can fail.

        Raises:
            DeployError: If it cannot be kept; then the order is, and can be resumed.
        """
        pem = certificate.key_pem + certificate.fullchain_pem
        _save(self.folder / "pending.pem", self._closed(pem), DeployError)
        self.forget_order()

    def forget_pending(self) -> None:
        """Forget the pending certificate, once it is in use."""
        _forget(self.folder / "pending.pem")

    def draw(self) -> Draw | None:
        """Return the moment drawn from the last suggested window."""
        return self._read("renewal.json", _draw)

    def save_draw(self, draw: Draw) -> None:
        """Keep the moment drawn."""
        _write(self.folder / "renewal.json", asdict(draw))

    def ledger(self) -> Ledger:
        """Return what was issued and what failed."""
        return self._read("ledger.json", _ledger) or Ledger()

    def save_ledger(self, ledger: Ledger) -> None:
        """Keep it."""
        _write(self.folder / "ledger.json", asdict(ledger))


def _write(path: Path, document: dict[str, object]) -> None:
    _save(path, _encoded(document))


def _encoded(document: dict[str, object]) -> bytes:
    return (json.dumps(document, indent=2, default=_encode) + "\n").encode()


def _save(path: Path, data: bytes, failure: type[Error] = Error) -> None:
    try:
        make_private_folder(path.parent)
        write_private(path, data)
    except OSError as exc:
        message = f"{path} cannot be written: {exc.strerror or exc}."
        hint = "Make room, or let this account write there."
        raise failure(message, hint=hint) from exc


def _forget(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as exc:
        message = f"{path} cannot be removed: {exc.strerror or exc}."
        raise Error(message, hint="Let this account write there.") from exc


def _encode(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


def _read(path: Path, parse: Callable[[bytes], _T], *, look_only: bool) -> _T | None:
    """Read a file of ours; one that makes no sense is set aside and said."""
    try:
        return parse(read_limited(path, LIMIT))
    except FileNotFoundError:
        return None
    except _NONSENSE as exc:
        reason = type(exc).__name__
    except OSError as exc:
        message = f"{path} cannot be read: {exc.strerror or exc}."
        raise Error(message, hint="Let this account read and write there.") from exc
    if look_only:
        _log.warning("%s could not be read (%s).", path, reason)
    else:
        _set_aside(path, reason)
    return None


def _set_aside(path: Path, reason: str) -> None:
    aside = _rename(path, "damaged")
    _log.warning(
        "%s could not be read (%s) and was set aside as %s; it is rebuilt as far as "
        "possible.",
        path,
        reason,
        aside.name if aside else "nothing: it is gone",
    )


def _rename(path: Path, why: str) -> Path | None:
    """Give a file a name of its own beside the old one; None if it is not there."""
    stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    aside = path.with_name(f"{path.name}.{why}-{stamp}")
    try:
        path.replace(aside)
    except FileNotFoundError:
        return None
    except OSError as exc:
        message = f"{path} cannot be set aside ({why}): {exc}."
        hint = "Remove it, or let this account write there."
        raise Error(message, hint=hint) from exc
    return aside


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


def _memory(data: bytes) -> Memory:
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


def _attempt(data: bytes) -> Attempt:
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


def _account(data: bytes) -> Account:
    document = _document(data)
    url = _string(document["url"])
    return Account(_jwk(document["key"]), url, _jwk(document.get("next_key", {})))


def _jwk(key: object) -> dict[str, str]:
    if not isinstance(key, dict):
        raise TypeError
    return {_string(name): _string(value) for name, value in key.items()}


def _order(data: bytes) -> OpenOrder:
    document = _document(data)
    return OpenOrder(
        url=_string(document["url"]),
        finalize=_string(document["finalize"]),
        names=_strings(document["names"]),
        key_type=_string(document["key_type"]),
        key_pem=_string(document["key_pem"]),
        issued=document.get("issued") is True,
    )


def _pending(data: bytes) -> Certificate:
    certificate = Certificate.from_pem(data, data)
    if certificate.leaf.public_key() != certificate.key.public_key():
        raise ValueError
    return certificate


def _draw(data: bytes) -> Draw:
    document = _document(data)
    return Draw(
        thumbprint=_string(document["thumbprint"]),
        start=_optional(document["start"]),
        end=_optional(document["end"]),
        at=_optional(document["at"]),
        ask_again=_moment(document["ask_again"]),
        explanation_url=_string(document["explanation_url"]),
    )


def _ledger(data: bytes) -> Ledger:
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
