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
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

from letsencrypt_mdaemon.errors import DeployError, Error
from letsencrypt_mdaemon.state.codec import (
    NONSENSE,
    decode_account,
    decode_attempt,
    decode_draw,
    decode_ledger,
    decode_memory,
    decode_order,
    decode_pending,
    encode,
)
from letsencrypt_mdaemon.state.ledger import Ledger
from letsencrypt_mdaemon.state.memory import Account, Attempt, Memory, OpenOrder
from letsencrypt_mdaemon.system.disk import (
    make_private_folder,
    read_limited,
    write_private,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from letsencrypt_mdaemon.pki.certificate import Certificate
    from letsencrypt_mdaemon.state.advice import Draw


_log = logging.getLogger(__name__)


_T = TypeVar("_T")


LIMIT = 1 << 20
"""Bytes of a state file; ours have some ten thousand at most."""


SEALED = b"sealed for this machine\n"
"""What a file begins with that is not plain."""


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
        read_only: Leave a file that makes no sense where it is.
        seal: Encrypts the files with a private key, where that is to be had.
    """

    def __init__(
        self, folder: Path, *, read_only: bool = False, seal: Seal | None = None
    ) -> None:
        self.folder = folder
        self.read_only = read_only
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
            read_only=self.read_only,
            seal=self.seal,
        )

    def load(self) -> Memory:
        """Return what is remembered of the installation."""
        return self._read("installation.json", decode_memory) or Memory()

    def save(self, memory: Memory) -> None:
        """Remember it."""
        _write(self.folder / "installation.json", asdict(memory))

    def attempt(self) -> Attempt | None:
        """Return the attempt that an earlier run left, or that was rolled back."""
        return self._read("attempt.json", decode_attempt)

    def _read(self, name: str, parse: Callable[[bytes], _T]) -> _T | None:
        return _read(self.folder / name, parse, read_only=self.read_only)

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
        read_only: Leave a file that makes no sense where it is.
        seal: Encrypts the files with a private key, where that is to be had.
    """

    def __init__(
        self, folder: Path, *, read_only: bool = False, seal: Seal | None = None
    ) -> None:
        self.folder = folder
        self.read_only = read_only
        self.seal = seal

    def account(self) -> Account | None:
        """Return the account, or at least its key (then the URL is empty)."""
        return self._read(
            "account.json", lambda data: decode_account(self._opened(data))
        )

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
        return _read(self.folder / name, parse, read_only=self.read_only)

    def retire_account(self) -> Path | None:
        """Set the account's file aside, if there is one; return where it is now."""
        return _rename(self.folder / "account.json", "retired")

    def order(self) -> OpenOrder | None:
        """Return the open order."""
        return self._read("order.json", lambda data: decode_order(self._opened(data)))

    def save_order(self, order: OpenOrder) -> None:
        """Keep the open order, before anything depends on it."""
        _save(self.folder / "order.json", self._closed(_encoded(asdict(order))))

    def forget_order(self) -> None:
        """Forget the open order."""
        _forget(self.folder / "order.json")

    def pending(self) -> Certificate | None:
        """Return the certificate that was issued and is not in use yet."""
        return self._read(
            "pending.pem", lambda data: decode_pending(self._opened(data))
        )

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
        return self._read("renewal.json", decode_draw)

    def save_draw(self, draw: Draw) -> None:
        """Keep the moment drawn."""
        _write(self.folder / "renewal.json", asdict(draw))

    def ledger(self) -> Ledger:
        """Return what was issued and what failed."""
        return self._read("ledger.json", decode_ledger) or Ledger()

    def save_ledger(self, ledger: Ledger) -> None:
        """Keep it."""
        _write(self.folder / "ledger.json", asdict(ledger))


def _write(path: Path, document: dict[str, object]) -> None:
    _save(path, _encoded(document))


def _encoded(document: dict[str, object]) -> bytes:
    return (json.dumps(document, indent=2, default=encode) + "\n").encode()


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


def _read(path: Path, parse: Callable[[bytes], _T], *, read_only: bool) -> _T | None:
    """Read a file of ours; one that makes no sense is set aside and said."""
    try:
        return parse(read_limited(path, LIMIT))
    except FileNotFoundError:
        return None
    except NONSENSE as exc:
        reason = type(exc).__name__
    except OSError as exc:
        message = f"{path} cannot be read: {exc.strerror or exc}."
        raise Error(message, hint="Let this account read and write there.") from exc
    if read_only:
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
