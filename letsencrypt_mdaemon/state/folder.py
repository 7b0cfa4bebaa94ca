"""What a run remembers for the next one: account, open order, pending, history.

    <state>/installation.json      targets learned, certificates obtained and verified
    <state>/attempt.json           a certificate being put into use, or rolled back
    <state>/restart.json           a restart of the server's service that has not ended
    <state>/next-key.json          the key of the next certificate (key-policy = next)
    <state>/tlsa.json              the TLSA records that were seen last
    <state>/mail.json              what was seen last of the domains' mail policies
    <state>/<CA>/account.json      the account key at this CA, and the account's URL
    <state>/<CA>/order.json        the open order, with the key of its certificate
    <state>/<CA>/pending.pem       issued, not yet in use: chain and key
    <state>/<CA>/renewal.json      the moment drawn from the CA's suggested window
    <state>/<CA>/ledger.json       what the CA issued, and what failed there
    <state>/staging/<CA>/...       the same for rehearsals
    <state>/backups/, <state>/lock

Every file is private, and written whole or not at all. A damaged file is renamed, with
a warning, and rebuilt. On Windows the files with a private key are also encrypted for
this machine, so that a copy of them is of no use elsewhere.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from letsencrypt_mdaemon.errors import DeployError, Error
from letsencrypt_mdaemon.state import codec
from letsencrypt_mdaemon.state.codec import DAMAGE, decode, encode
from letsencrypt_mdaemon.state.ledger import Ledger
from letsencrypt_mdaemon.state.memory import (
    Account,
    Attempt,
    Draw,
    Memory,
    OpenOrder,
    Restart,
)
from letsencrypt_mdaemon.state.pins import MailLook, NextKey, Pins
from letsencrypt_mdaemon.system import disk
from letsencrypt_mdaemon.system.disk import read_limited

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from letsencrypt_mdaemon.pki.certificate import Certificate

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

MAX_FILE_BYTES = 1 << 20
"""Of a state file; ours have some ten thousand at most."""

SEALED = b"sealed for this machine\n"
"""How an encrypted file begins."""

_NAMES: dict[type, str] = {
    Memory: "installation.json",
    Attempt: "attempt.json",
    Restart: "restart.json",
    Account: "account.json",
    OpenOrder: "order.json",
    Draw: "renewal.json",
    Ledger: "ledger.json",
    NextKey: "next-key.json",
    Pins: "tlsa.json",
    MailLook: "mail.json",
}
_WITH_KEY = {"account.json", "order.json", "pending.pem", "next-key.json"}


class Seal(Protocol):
    """Encrypts what only this machine may read."""

    def close(self, data: bytes) -> bytes:
        """Return the data encrypted."""

    def open(self, data: bytes) -> bytes:
        """Return what `close` was given.

        Raises:
            ValueError: If another machine encrypted it.
        """


class _Files:
    """A folder of state files.

    Args:
        read_only: Leave a damaged file where it is.
        seal: Encrypts the files with a private key, where the system can do that.

    Attributes:
        damaged: The files that could not be understood.
    """

    def __init__(
        self, folder: Path, *, read_only: bool = False, seal: Seal | None = None
    ) -> None:
        self.folder = folder
        self.read_only = read_only
        self.seal = seal
        self.damaged: list[Path] = []

    def writes(self) -> list[Path]:
        """Return the files that a run writes here."""
        # Not the lock: this run may hold it, and Windows lets nobody else open it then.
        return [self.folder / name for name in (*_NAMES.values(), "pending.pem")]

    def save(self, record: object) -> None:
        """Keep a record in the file of its kind, before anything depends on it."""
        self._write(_NAMES[type(record)], encode(record))

    def _load(self, kind: type[_T]) -> _T | None:
        return self._read(_NAMES[kind], partial(decode, kind=kind))

    def _read(self, name: str, parse: Callable[[bytes], _T]) -> _T | None:
        """Read a file; a damaged one is renamed, with a warning."""
        path, hint = self.folder / name, "Let this account read and write it."
        try:
            with disk.explained(f"read {path}", hint=hint):
                try:
                    return parse(
                        self._opened(read_limited(path, MAX_FILE_BYTES, "a state file"))
                    )
                except FileNotFoundError:
                    return None
        except DAMAGE as exc:
            reason = type(exc).__name__
        self.damaged.append(path)
        if self.read_only:
            _log.warning("%s is damaged (%s).", path, reason)
            return None
        aside = self._rename(name, "damaged")
        _log.warning(
            "%s is damaged (%s) and was renamed to %s; it is rebuilt as far as "
            "possible.",
            path,
            reason,
            aside.name if aside else "nothing: it is gone",
        )
        return None

    def _opened(self, data: bytes) -> bytes:
        """Return a file's content; one from before, or from elsewhere, is plain."""
        if not data.startswith(SEALED):
            return data
        if self.seal is None:
            raise ValueError
        return self.seal.open(data.removeprefix(SEALED))

    def _write(
        self, name: str, data: bytes, failure: type[Error] | None = None
    ) -> None:
        if self.seal and name in _WITH_KEY:
            data = SEALED + self.seal.close(data)
        path = self.folder / name
        with disk.explained(f"write {path}", failure=failure):
            disk.make_private_folder(path.parent)
            disk.write_private(path, data)

    def _remove(self, name: str) -> None:
        path = self.folder / name
        with disk.explained(f"remove {path}"), suppress(FileNotFoundError):
            disk.delete(path)

    def _rename(self, name: str, why: str) -> Path | None:
        """Rename a file within its folder; return None if it is not there."""
        path = self.folder / name
        stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        aside = path.with_name(f"{path.name}.{why}-{stamp}")
        with disk.explained(f"rename {path}, which is {why}"):
            try:
                disk.rename(path, aside)
            except FileNotFoundError:
                return None
        return aside


class State(_Files):
    """The state folder of one installation."""

    @property
    def lock(self) -> Path:
        """The file that the one running process holds locked."""
        return self.folder / "lock"

    @property
    def backups(self) -> Path:
        """The folder for the former contents of INI files."""
        return self.folder / "backups"

    def ca(self, directory_url: str, *, staging: bool) -> CaState:
        """Return the state that belongs to one CA; rehearsals have their own."""
        address = directory_url.partition("://")[2].lower()
        readable = re.sub(r"[^a-z0-9.-]+", "_", address)
        # Two URLs may look the same when written like this.
        digest = hashlib.sha256(directory_url.encode("utf-8", "replace")).hexdigest()
        folder = self.folder / "staging" if staging else self.folder
        folder /= f"{readable[:60].strip('_.')}-{digest[:12]}"
        return CaState(folder, read_only=self.read_only, seal=self.seal)

    def load(self) -> Memory:
        """Return what is remembered of the installation."""
        return self._load(Memory) or Memory()

    def attempt(self) -> Attempt | None:
        """Return the attempt that an earlier run left, or that was rolled back."""
        return self._load(Attempt)

    def mail(self) -> MailLook | None:
        """Return what was seen last of the domains' mail policies."""
        return self._load(MailLook)

    def pins(self) -> Pins:
        """Return the TLSA records that were seen last."""
        return self._load(Pins) or Pins()

    def next_key(self) -> NextKey | None:
        """Return the key that the next certificate gets, if there is one."""
        return self._load(NextKey)

    def forget_next_key(self) -> None:
        """Forget it, because it must not be used."""
        self._remove("next-key.json")

    def forget_attempt(self) -> None:
        """Forget the attempt, once it is decided."""
        self._remove("attempt.json")

    def restart(self) -> Restart | None:
        """Return the restart that an earlier run began, if it has not ended well."""
        return self._load(Restart)

    def forget_restart(self) -> None:
        """Forget the restart, once the service runs again."""
        self._remove("restart.json")


class CaState(_Files):
    """What is remembered at one CA.

    Accounts at different CAs, and staging and production, never mix.
    """

    def account(self) -> Account | None:
        """Return the account, or at least its key (then the URL is empty)."""
        return self._load(Account)

    def retire_account(self) -> Path | None:
        """Rename the account's file; return its new path, or None if there is none."""
        return self._rename("account.json", "retired")

    def order(self) -> OpenOrder | None:
        """Return the open order."""
        return self._load(OpenOrder)

    def forget_order(self) -> None:
        """Forget the open order."""
        self._remove("order.json")

    def pending(self) -> Certificate | None:
        """Return the certificate that was issued and is not in use yet."""
        return self._read("pending.pem", codec.decode_pending)

    def keep(self, certificate: Certificate) -> None:
        """Keep an issued certificate before anything else can fail.

        Raises:
            DeployError: If it cannot be kept; then the order is, and can be resumed.
        """
        pem = certificate.key_pem + certificate.fullchain_pem
        self._write("pending.pem", pem, DeployError)
        self.forget_order()

    def forget_pending(self) -> None:
        """Forget the pending certificate, once it is in use."""
        self._remove("pending.pem")

    def draw(self) -> Draw | None:
        """Return the moment drawn from the last suggested window."""
        return self._load(Draw)

    def ledger(self) -> Ledger:
        """Return what the CA issued and what failed there."""
        return self._read(_NAMES[Ledger], codec.decode_ledger) or Ledger()
