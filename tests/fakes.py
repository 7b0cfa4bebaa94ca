"""What others meet, made small: a store, a server and a CA in memory; sick disks."""

from __future__ import annotations

import base64
import builtins
import errno
import io
import itertools
import os
import socket
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any, TypeAlias
from unittest.mock import patch

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.pki.certificate import Certificate, PrivateKey, thumbprint
from letsencrypt_mdaemon.pki.chain import unneeded
from letsencrypt_mdaemon.renewal.adapters import Request
from letsencrypt_mdaemon.renewal.snapshot import Snapshot
from letsencrypt_mdaemon.state.ledger import Ledger
from letsencrypt_mdaemon.state.memory import Attempt, Change, Memory, Target, Window
from letsencrypt_mdaemon.system import disk, identity, swap
from letsencrypt_mdaemon.verify.endpoints import Endpoint
from letsencrypt_mdaemon.verify.served import Answer, Served
from letsencrypt_mdaemon.windows.service import (
    ALREADY_RUNNING,
    CANNOT_NOW,
    DENIED,
    DEPENDENTS_RUN,
    DISABLED,
    NOT_ACTIVE,
    RUNNING,
    START_PENDING,
    STOP_PENDING,
    STOPPED,
    RefusedError,
    Status,
)

if sys.platform != "win32":
    import resource

LOCALHOST = "127.0.0.1"


class MemoryStore:
    """A store that keeps certificates nowhere else: `adapters.Store`."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[x509.Certificate, str]] = {}
        self.keys: dict[str, PrivateKey] = {}
        self.chains: dict[str, tuple[x509.Certificate, ...]] = {}
        self.issuers: dict[str, x509.Certificate] = {}
        self.let_in: list[str] = []

    def certificates(self) -> list[tuple[x509.Certificate, str]]:
        """Return each certificate with its friendly name."""
        return list(self.kept.values())

    def writes(self) -> list[Path]:
        """Return no files: it has none."""
        return []

    def install(self, certificate: Certificate) -> tuple[str, ...]:
        """Make sure that it is there, and return the issuers that were not."""
        entry = (certificate.leaf, certificate.friendly_name)
        self.kept.setdefault(certificate.thumbprint, entry)
        self.keys[certificate.thumbprint] = certificate.key
        self.chains[certificate.thumbprint] = certificate.chain
        above = {thumbprint(one): one for one in certificate.chain[1:]}
        added = tuple(digest for digest in above if digest not in self.issuers)
        self.issuers |= above
        return added

    def remove_issuers(self, added: Collection[str], *, now: datetime) -> list[str]:
        """Remove those of them that are expired or not needed."""
        leaves = [leaf for leaf, _ in self.kept.values()]
        known = {digest: self.issuers[digest] for digest in added}
        gone = unneeded(leaves, known, self.issuers.values(), now=now)
        for digest in gone:
            del self.issuers[digest]
        return gone

    def key_provider(self, wanted: str) -> str | None:
        """Return who keeps the key."""
        return "Memory" if wanted in self.keys else None

    def let_read(self, wanted: str) -> None:
        """Remember who was let in."""
        self.let_in.append(wanted)

    def chain(self, wanted: str) -> tuple[x509.Certificate, ...]:
        """Return it with its issuers; empty if it is not there."""
        return self.chains.get(wanted, ())

    def key(self, wanted: str) -> PrivateKey | None:
        """Return a certificate's private key; None if it cannot be had."""
        return self.keys.get(wanted)

    def is_key_usable(self, wanted: str) -> bool:
        """Whether the key is there."""
        return wanted in self.keys

    def usable_keys(self) -> set[str]:
        """Return the thumbprints of the certificates with their keys."""
        return {wanted for wanted in self.kept if wanted in self.keys}

    def key_readers(self, wanted: str) -> list[str] | None:
        """Return the accounts that may read the key."""
        return ["NT AUTHORITY\\SYSTEM"] if wanted in self.keys else None

    def remove(self, wanted: str) -> None:
        """Make sure that it is not there."""
        self.kept.pop(wanted, None)
        self.keys.pop(wanted, None)
        self.chains.pop(wanted, None)

    def put(self, leaf: x509.Certificate, friendly_name: str) -> None:
        """Put a certificate there as somebody else would."""
        self.kept[thumbprint(leaf)] = (leaf, friendly_name)


def answer(
    leaf: x509.Certificate | None, otherwise: Answer = Answer.HANDSHAKE_FAILED
) -> Served:
    """Return what a port answers that serves a certificate, or none."""
    if leaf is None:
        return Served(outcome=otherwise)
    return Served(outcome=Answer.SERVED, chain=(leaf,))


TARGETS = tuple(
    Target(file, "SSL", "Certificate", "sha1:upper")
    for file in ("App/MDaemon.ini", "WorldClient/WorldClient.ini")
)
PORTS = ("smtps://127.0.0.1:465", "https://127.0.0.1:443")
RUNGS = ("RELOADCACHE.SEM", "RESTARTWC.SEM")


class MemoryServer:
    """A server of two INI values and two ports: `adapters.Server`, and its verifier.

    Its first semaphore reloads the first port, the second one the second.

    Args:
        store: Where it knows certificates from.

    Attributes:
        values: Target → thumbprint that it names.
        ports: Endpoint → thumbprint that it serves; empty if it serves none.
        others: Thumbprints that other INI values name.
        broken: Ports that serve nothing with any certificate but the first one.
        deaf: Ports that use no other certificate before the server is restarted.
        failing: What cannot be done: bind, restore.
        done: What was asked of it, in order.
    """

    def __init__(self, store: MemoryStore, first: x509.Certificate) -> None:
        self.store = store
        self.first = thumbprint(first)
        self.values = dict.fromkeys(TARGETS, self.first)
        self.ports = dict.fromkeys(PORTS, self.first)
        self.others: set[str] = set()
        self.broken: set[str] = set()
        self.deaf: set[str] = set()
        self.failing: set[str] = set()
        self.done: list[str] = []
        self.leaves = {self.first: first}

    def named(self, names: Collection[str]) -> dict[Target, x509.Certificate | None]:
        """Return which certificate each target names."""
        assert names
        known = {digest: leaf for digest, (leaf, _) in self.store.kept.items()}
        return {target: known.get(value) for target, value in self.values.items()}

    def settle(self, certificate: x509.Certificate | None) -> list[Target]:
        """Return the targets that do not name the certificate."""
        wanted = thumbprint(certificate) if certificate else None
        return [at for at, value in self.values.items() if wanted not in (None, value)]

    def search(self) -> tuple[Target, ...]:
        """Return nothing: every target is known."""
        return ()

    def planned(self, certificate: x509.Certificate) -> list[Change]:
        """Return what `bind` would change."""
        new = thumbprint(certificate)
        return [
            Change(target, 1, value, new)
            for target, value in self.values.items()
            if value != new
        ]

    def bind(
        self,
        certificate: x509.Certificate,
        *,
        now: datetime,
        announce: Callable[[Sequence[Change]], None],
    ) -> list[Change]:
        """Make every target name it."""
        changes = self.planned(certificate)
        announce(changes)
        self._do("bind", now)
        self.values = dict.fromkeys(TARGETS, thumbprint(certificate))
        return changes

    def restore(self, changes: Sequence[Change], *, now: datetime) -> None:
        """Take changes back, as far as the values are still what they became."""
        self._do("restore", now)
        for change in reversed(changes):
            if self.values[change.target] == change.after:
                self.values[change.target] = change.before

    def ladder(self) -> tuple[str, ...]:
        """Return the semaphores: it is no service."""
        return RUNGS

    def take(self, rung: str) -> bool:
        """Take up a semaphore."""
        self.done.append(rung)
        port, value = dict(
            zip(RUNGS, zip(PORTS, self.values.values(), strict=True), strict=True)
        )[rung]
        broken = port in self.broken and value != self.first
        if port not in self.deaf:
            self.ports[port] = "" if broken else value
        return True

    def restart(self) -> None:
        """Let every port use what the files name, as somebody does by hand."""
        self.ports = dict(zip(PORTS, self.values.values(), strict=True))

    def observe(self, only: Collection[Endpoint] = ()) -> dict[Endpoint, Served]:
        """Return which certificate each port serves."""
        known = {digest: leaf for digest, (leaf, _) in self.store.kept.items()}
        self.leaves |= known
        answers = {
            Endpoint.parse(port): answer(self.leaves.get(served))
            for port, served in self.ports.items()
        }
        return {at: answers[at] for at in only or answers}

    def references(self) -> set[str]:
        """Return the thumbprints that any value names."""
        return {*self.values.values(), *self.others}

    def _do(self, what: str, now: datetime) -> None:
        assert now.tzinfo
        if what in self.failing:
            raise DeployError(f"{what} is not possible.", hint="Wait.")
        self.done.append(what)


class MemoryIssuer:
    """A CA that issues at once: `adapters.Issuer`.

    Args:
        issue: Makes a certificate for some names.

    Attributes:
        errors: What is raised instead, one after the other.
        windows: What is advised, one after the other; then nothing.
        orders: The names of each order that was taken, and what it replaces.
        keys: The key that each was for; None = a new one.
        revoked: The thumbprint, reason and key of each revocation.
    """

    def __init__(self, issue: Callable[[Sequence[str]], Certificate]) -> None:
        self.issue = issue
        self.errors: list[Exception] = []
        self.windows: list[Window] = []
        self.orders: list[tuple[tuple[str, ...], str | None]] = []
        self.keys: list[PrivateKey | None] = []
        self.revoked: list[tuple[str, int, PrivateKey | None]] = []

    def suggested_window(self, _: x509.Certificate) -> tuple[Window | None, float]:
        """Return the next advice, good for an hour."""
        if self.errors:
            raise self.errors.pop(0)
        return (self.windows.pop(0) if self.windows else None), 3600.0

    def obtain(
        self,
        names: Sequence[str],
        replaces: x509.Certificate | None,
        key: PrivateKey | None,
    ) -> Certificate:
        """Return a new certificate."""
        if self.errors:
            raise self.errors.pop(0)
        replaced = thumbprint(replaces) if replaces is not None else None
        self.orders.append((tuple(names), replaced))
        self.keys.append(key)
        return self.issue(names)

    def revoke(
        self, certificate: x509.Certificate, reason: int, key: PrivateKey | None
    ) -> None:
        """Remember that it was revoked, by whom and why."""
        if self.errors:
            raise self.errors.pop(0)
        self.revoked.append((thumbprint(certificate), reason, key))


def snapshot(
    request: Request,
    *in_use: x509.Certificate | None,
    now: datetime,
    memory: Memory,
    attempt: Attempt | None = None,
) -> Snapshot:
    """Return what a run finds whose targets name these certificates, and no more."""
    named = {
        Target("x.ini", "SSL", f"Certificate{number}", "sha1:upper"): leaf
        for number, leaf in enumerate(in_use)
    }
    return Snapshot(
        request=request,
        now=now,
        memory=memory,
        attempt=attempt,
        ledger=Ledger(),
        order=None,
        draw=None,
        pending=None,
        named=named,
        stored={},
    )


Rule: TypeAlias = Callable[[Path], None]

# Whoever opens or changes a file by its path does it by one of these, found by name.
# An audit hook (PEP 578) would see the same, but stays, and starts no threads safely.
_WAYS = [(builtins, "open"), (io, "open"), (os, "open")]
_WAYS += [(os, name) for name in ("mkdir", "remove", "rename", "replace")]
_WAYS += [(os, name) for name in ("rmdir", "unlink", "link")]
if sys.platform == "win32":
    _WAYS.append((identity, "make_folder"))
_WAYS.append((swap, "_replace_file" if sys.platform == "win32" else "_exchange"))


@contextmanager
def _told(rule: Rule, *, of_reads: bool) -> Iterator[None]:
    """Call `rule` before every change, or else before every file that is only read.

    An error that it raises is what the caller gets.
    """

    def telling(act: Callable[..., Any]) -> Callable[..., Any]:
        def told(path: Any, *more: Any, **named: Any) -> Any:  # noqa: ANN401
            how = more[0] if more else named.get("flags", named.get("mode", "r"))
            reads = act.__name__ == "open" and _only_reads(how)
            if isinstance(path, str | bytes | os.PathLike) and reads == of_reads:
                handle = named.get("dir_fd", named.get("src_dir_fd"))
                rule(_folder(handle) / os.fsdecode(path))
            return act(path, *more, **named)

        return wraps(act)(told)

    with ExitStack() as patches:
        for module, name in _WAYS:
            told = telling(getattr(module, name))
            patches.enter_context(patch.object(module, name, told))
        yield


def _folder(handle: int | None) -> Path:
    """Return the folder of this handle; the current one for none."""
    return Path() if handle is None else Path(f"/proc/self/fd/{handle}").readlink()


def _only_reads(how: int | str) -> bool:
    """Whether a file is only read, by the flags of `os.open` or the mode of `open`."""
    if isinstance(how, int):
        return not how & (os.O_WRONLY | os.O_RDWR)
    return not set(how) & set("wxa+")


@contextmanager
def watched(folder: Path, rule: Rule) -> Iterator[None]:
    """Call `rule` before each change in a folder, with what is about to change."""

    def below(path: Path) -> None:
        if path.is_relative_to(folder):
            rule(path)

    with _told(below, of_reads=False):
        yield


@contextmanager
def touched(rule: Rule) -> Iterator[None]:
    """Call `rule` before each change of a file, and before each one that is read."""
    with _told(rule, of_reads=False), _told(rule, of_reads=True):
        yield


@contextmanager
def unreadable(file: Path) -> Iterator[None]:
    """Let nobody read a file, not even root."""

    def refuse(path: Path) -> None:
        if path == file:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with _told(refuse, of_reads=True):
        yield


@contextmanager
def read_only(
    folder: Path, *, allowed: int = 0, refused: int = sys.maxsize
) -> Iterator[None]:
    """Let nobody change anything in a folder, not even root.

    Args:
        allowed: How many changes are let through before the first is refused.
        refused: How many are refused then.
    """
    count = itertools.count()

    def refuse(path: Path) -> None:
        if allowed <= next(count) < allowed + refused:
            # On Windows: write-protected, not open elsewhere, which is tried again.
            code = None if refused == sys.maxsize else 19
            said = os.strerror(errno.EACCES)
            raise PermissionError(errno.EACCES, said, str(path), code)

    def asked(path: Path) -> None:
        if path.is_relative_to(folder) and not allowed and refused == sys.maxsize:
            refuse(path)

    # Once it refuses only some, whoever asks beforehand hears nothing of it.
    with patch.object(disk, "_ask", asked), watched(folder, refuse):
        yield


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Let nobody write to files in a folder; they can still be made."""
    if sys.platform == "win32":

        def fill(path: Path) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

        with watched(folder, fill):
            yield
    else:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

        def fill(_: Path) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))

        try:
            with watched(folder, fill):
                yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def huge(path: Path) -> None:
    """Make a file of 50 MB that takes no room."""
    with path.open("xb") as stream:
        stream.truncate(50 << 20)


@contextmanager
def private(folder: Path) -> Iterator[None]:
    """Fail if a file in a folder can be read by others, be it for a moment.

    Looked at before each change that follows, with a umask that hides nothing.
    """

    def look(_: Path) -> None:
        for path in (folder, *folder.rglob("*")):
            with suppress(FileNotFoundError):
                assert os.name == "nt" or not path.stat().st_mode & 0o077, path

    former = os.umask(0)
    try:
        with watched(folder, look):
            yield
        look(folder)
    finally:
        os.umask(former)


def odd_version(certificate: x509.Certificate) -> bytes:
    """Return a certificate in PEM as of a version that does not exist."""
    pem = certificate.public_bytes(Encoding.PEM).decode()
    der = base64.b64decode("".join(pem.splitlines()[1:-1]))
    third = b"\xa0\x03\x02\x01\x02"
    assert der.count(third) == 1
    odd = base64.encodebytes(der.replace(third, third[:-1] + b"\x09"))
    begin, end = b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n"
    return begin + odd + end


@contextmanager
def talker(
    *, says: bytes = b"", forever: bool = False, heard: list[bytes] | None = None
) -> Iterator[tuple[str, int]]:
    """Listen on a port of this machine, say something to the first who comes, hang up.

    Args:
        forever: Say it again and again until the other side hangs up; nothing said
            again and again is silence.
        heard: Filled with what the other side says until it hangs up.
    """

    def talk() -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.sendall(says)
                while forever and says:
                    connection.sendall(says)
                while forever and connection.recv(1000):
                    pass
                while heard is not None and (piece := connection.recv(1000)):
                    heard.append(piece)

    with socket.create_server((LOCALHOST, 0)) as listener:
        thread = threading.Thread(target=talk)
        thread.start()
        try:
            yield LOCALHOST, listener.getsockname()[1]
        finally:
            with suppress(OSError):  # nobody may have come
                socket.create_connection(listener.getsockname()).close()
            thread.join()


class MemoryService:
    """A service that behaves by its kind: `service.Service`.

    Args:
        kind: good, slow, never (stops), dies (at start), disabled, absent,
            denied (to us), needed (by another service).
        program: What starts it.
    """

    def __init__(
        self, kind: str = "good", *, program: str = r"C:\MDaemon\App\MDaemon.exe"
    ) -> None:
        self.name = kind
        self.kind = kind
        self.path = program
        self.now = Status(STOPPED if kind in {"dies", "disabled"} else RUNNING)
        self.done: list[str] = []
        self._looks = 0

    def status(self) -> Status | None:
        """Return what it does; a slow one stops while it is looked at."""
        if self.kind == "absent":
            return None
        if self.now.state == STOP_PENDING and self.kind != "never":
            self._looks += 1
            if self._looks > 2 * (self.kind == "slow"):
                self.now = Status(STOPPED)
        elif self.now.state == START_PENDING:
            dies = self.kind == "dies"
            self.now = Status(STOPPED, 1067) if dies else Status(RUNNING)
        return self.now

    def account(self) -> str:
        """Return the account it runs as."""
        self._must_be_there()
        return "LocalSystem"

    def program(self) -> str:
        """Return what starts it."""
        self._must_be_there()
        return self.path

    def is_disabled(self) -> bool:
        """Whether it cannot be started."""
        self._must_be_there()
        return self.kind == "disabled"

    def dependents(self) -> list[str]:
        """Return who runs and depends on it."""
        self._must_be_there()
        return ["follower"] if self.kind == "needed" else []

    def stop(self) -> None:
        """Begin to stop."""
        self._must_be_there()
        if self.kind == "denied":
            raise RefusedError(DENIED, "Access is denied.")
        if self.kind == "needed":
            raise RefusedError(DEPENDENTS_RUN, "Running services depend on it.")
        if self.now.state == STOPPED:
            raise RefusedError(NOT_ACTIVE, "The service has not been started.")
        if self.now.state != RUNNING:
            raise RefusedError(CANNOT_NOW, "It cannot accept control messages.")
        self.now = Status(STOP_PENDING)
        self.done.append("stop")

    def start(self) -> None:
        """Begin to start."""
        self._must_be_there()
        if self.kind == "disabled":
            raise RefusedError(DISABLED, "The service cannot be started.")
        if self.now.state != STOPPED:
            raise RefusedError(ALREADY_RUNNING, "An instance is already running.")
        self.now = Status(START_PENDING)
        self.done.append("start")

    def _must_be_there(self) -> None:
        if self.kind == "absent":
            raise RefusedError(1060, "The specified service does not exist.")


class MemoryEventLog:
    """The log of a system: `windows.eventlog.EventLog`.

    Attributes:
        entries: Each event and its text.
        failing: Whether nothing can be written.
    """

    def __init__(self) -> None:
        self.entries: list[tuple[int, str]] = []
        self.failing = False

    def error(self, event: int, text: str) -> None:
        """Write one entry."""
        if self.failing:
            raise OSError(1502, "The event log file is full.")
        self.entries.append((event, text))
