"""What a run remembers for the next one: account, open order, pending, history.

    <state>/installation.json      targets learned, certificates bound, and since when
    <state>/<CA>/account.json      the account key at this CA, and the account's URL
    <state>/<CA>/order.json        the open order, with the key of its certificate
    <state>/<CA>/pending.pem       issued, not yet in use: chain and key
    <state>/<CA>/renewal.json      the moment drawn from the CA's suggested window
    <state>/staging/<CA>/…         the same for rehearsals
    <state>/backups/, <state>/lock

Every file is private, and written whole or not at all. One that cannot be read is set
aside under another name, said so, and rebuilt.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from letsencrypt_mdaemon.certificate import Certificate
from letsencrypt_mdaemon.files import make_private_folder, write_private

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

HISTORY = 50
"""Certificates remembered, newest last."""


@dataclass(frozen=True, slots=True)
class Target:
    """One INI value that names the certificate.

    Args:
        file: Path below the installation, with forward slashes.
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
class Issued:
    """A certificate this program obtained.

    Args:
        bound: When the server's files began to name it; None if they never did.
    """

    thumbprint: str
    directory_url: str
    names: tuple[str, ...]
    obtained: datetime
    bound: datetime | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of the installation, whatever the CA."""

    targets: tuple[Target, ...] = ()
    issued: tuple[Issued, ...] = ()

    def find(self, thumbprint: str) -> Issued | None:
        """Return what is remembered of a certificate."""
        found = [item for item in self.issued if item.thumbprint == thumbprint]
        return found[-1] if found else None

    def remember(self, item: Issued) -> Memory:
        """Return the memory with a certificate added or replaced."""
        others = [old for old in self.issued if old.thumbprint != item.thumbprint]
        return Memory(self.targets, tuple([*others, item][-HISTORY:]))


@dataclass(frozen=True, slots=True)
class Account:
    """Who we are to a CA: the key (as JWK, private) and the account's URL."""

    key: dict[str, str]
    url: str

    def __repr__(self) -> str:
        """Leave the key out."""
        return f"Account(url={self.url!r})"


@dataclass(frozen=True, slots=True)
class OpenOrder:
    """An order that is not done: its URL, and the key it will be finalized with."""

    url: str
    finalize: str
    names: tuple[str, ...]
    key_type: str
    key_pem: str

    def __repr__(self) -> str:
        """Leave the key out."""
        return f"OpenOrder(url={self.url!r}, names={self.names!r})"


@dataclass(frozen=True, slots=True)
class Draw:
    """The moment drawn once from the CA's suggested window (RFC 9773, 4.2).

    Args:
        at: The moment drawn; None if the CA gave no advice.
        ask_again: Not before this moment is the CA asked again (4.3).
    """

    thumbprint: str
    start: datetime | None
    end: datetime | None
    at: datetime | None
    ask_again: datetime
    explanation_url: str = ""


class State:
    """The state folder of one installation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

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
        name = re.sub(r"[^A-Za-z0-9.-]+", "_", directory_url.split("://", 1)[1])
        folder = self.folder / "staging" if staging else self.folder
        return CaState(folder / name.strip("_."))

    def load(self) -> Memory:
        """Return what is remembered of the installation."""
        return _read(self.folder / "installation.json", _memory) or Memory()

    def save(self, memory: Memory) -> None:
        """Remember it."""
        _write(self.folder / "installation.json", asdict(memory))


class CaState:
    """What is remembered at one CA.

    Accounts at different CAs, and staging and production, never mix.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def account(self) -> Account | None:
        """Return the account, or at least its key (then the URL is empty)."""
        return _read(self.folder / "account.json", _account)

    def save_account(self, account: Account) -> None:
        """Keep the account."""
        _write(self.folder / "account.json", asdict(account))

    def order(self) -> OpenOrder | None:
        """Return the open order."""
        return _read(self.folder / "order.json", _order)

    def save_order(self, order: OpenOrder) -> None:
        """Keep the open order, before anything depends on it."""
        _write(self.folder / "order.json", asdict(order))

    def forget_order(self) -> None:
        """Forget the open order."""
        (self.folder / "order.json").unlink(missing_ok=True)

    def pending(self) -> Certificate | None:
        """Return the certificate that was issued and is not in use yet."""
        return _read(self.folder / "pending.pem", _pending)

    def keep(self, certificate: Certificate) -> None:
        """Keep an issued certificate before anything else can fail."""
        make_private_folder(self.folder)
        pem = certificate.key_pem + certificate.fullchain_pem
        write_private(self.folder / "pending.pem", pem)
        self.forget_order()

    def forget_pending(self) -> None:
        """Forget the pending certificate, once it is in use."""
        (self.folder / "pending.pem").unlink(missing_ok=True)

    def draw(self) -> Draw | None:
        """Return the moment drawn from the last suggested window."""
        return _read(self.folder / "renewal.json", _draw)

    def save_draw(self, draw: Draw) -> None:
        """Keep the moment drawn."""
        _write(self.folder / "renewal.json", asdict(draw))


def _write(path: Path, document: dict[str, object]) -> None:
    make_private_folder(path.parent)
    text = json.dumps(document, indent=2, default=_encode) + "\n"
    write_private(path, text.encode())


def _encode(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    raise TypeError(type(value).__name__)


def _read(path: Path, parse: Callable[[bytes], _T]) -> _T | None:
    """Read a file of ours; one that makes no sense is set aside and said."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return parse(data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        aside = _free_name(path)
        path.replace(aside)
        _log.warning(
            "%s could not be read (%s) and was set aside as %s; it is rebuilt as far "
            "as possible.",
            path,
            type(exc).__name__,
            aside.name,
        )
        return None


def _free_name(path: Path) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    names = (path.with_name(f"{path.name}.damaged-{stamp}{n}") for n in ("", *"bcdefgh"))
    return next((name for name in names if not name.exists()), path.with_suffix(".damaged"))


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


def _memory(data: bytes) -> Memory:
    document = _document(data)
    targets = [_target(item) for item in _list(document["targets"])]
    issued = [_issued(item) for item in _list(document["issued"])]
    return Memory(tuple(targets), tuple(issued))


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
        bound=_optional(item["bound"]),
    )


def _account(data: bytes) -> Account:
    document = _document(data)
    key = document["key"]
    if not isinstance(key, dict):
        raise TypeError
    jwk = {_string(name): _string(value) for name, value in key.items()}
    return Account(jwk, _string(document["url"]))


def _order(data: bytes) -> OpenOrder:
    document = _document(data)
    return OpenOrder(
        url=_string(document["url"]),
        finalize=_string(document["finalize"]),
        names=_strings(document["names"]),
        key_type=_string(document["key_type"]),
        key_pem=_string(document["key_pem"]),
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
