"""Other programs write the server's files at any moment: nothing of anybody is lost."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import Mock

import pytest
from cryptography import x509

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.mdaemon import ini
from letsencrypt_mdaemon.mdaemon.bindings import Bindings
from letsencrypt_mdaemon.mdaemon.folders import IniFiles
from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.state.memory import Target
from letsencrypt_mdaemon.system import files, swap
from tests.certificates import leaf
from tests.limits import HANG_SECONDS

OLD, NEW = leaf(serial=1), leaf(serial=2)
NOW = datetime(2026, 3, 9, tzinfo=UTC)
MAIL = Target("App/MDaemon.ini", "SSL", "Certificate", "sha1:upper")
ROUNDS = 25

# A program that writes a count into the file every 10 ms, while its stdin is open. On
# Windows nobody may open or replace what somebody has just open: then it tries again.
# Wine takes 30 ms for a new file, so there it writes every 100 ms.
WRITER = """
import os, sys, threading, time
path, way, locks = sys.argv[1], sys.argv[2], sys.argv[3] == "locks"
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
stop, done = threading.Event(), 0
in_use = (PermissionError, FileNotFoundError) if os.name == "nt" else ()

def persistently(act, *names):
    while True:
        try:
            return act(*names)
        except in_use:
            time.sleep(0.001)

def write():
    flags = os.O_RDWR | getattr(os, "O_BINARY", 0)
    handle = persistently(os.open, path, flags)
    lines = os.read(handle, 1 << 20).split(b"\\r\\n")
    place = next(n for n, line in enumerate(lines) if line.startswith(b"Count="))
    lines[place] = b"Count=%d" % (done + 1)
    data = b"\\r\\n".join(lines)
    if way == "in place":
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, data)
        os.ftruncate(handle, len(data))
        os.close(handle)
    else:
        os.close(handle)
        with open(path + ".new", "wb") as new:
            new.write(data)
        try:
            os.replace(path + ".new", path)
        except in_use:
            return False
    return True

while not stop.is_set():
    if locks:
        try:
            os.close(os.open(path + ".lck", os.O_CREAT | os.O_EXCL))
        except (FileExistsError, *in_use):
            time.sleep(0.001)
            continue
    while not write():
        time.sleep(0.001)
    done += 1
    if done == 1:
        print("begun", flush=True)
    if locks:
        persistently(os.unlink, path + ".lck")
    time.sleep(0.1 if os.name == "nt" else 0.01)
print(done, flush=True)
"""


@pytest.fixture
def ini_file(tmp_path: Path) -> Path:
    path = tmp_path / "App" / "MDaemon.ini"
    path.parent.mkdir()
    path.write_bytes(
        b"[Other]\r\nCount=0\r\n; a comment\r\n[SSL]\r\nCertificate="
        + thumbprint(OLD).encode()
        + b"\r\n"
    )
    return path


@contextmanager
def writer(path: Path, way: str, locks: str) -> Iterator[Callable[[], int]]:
    """Let another program write the file; yields what ends it and says how often."""
    command = [sys.executable, "-c", WRITER, str(path), way, locks]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"

        def end() -> int:
            out, _ = process.communicate(timeout=HANG_SECONDS)
            return int(out)

        try:
            yield end
        finally:
            process.kill()


def bind(path: Path, certificate: x509.Certificate) -> list[Target]:
    """Bind a certificate as a run does, to its last reading; return what strays."""
    bound = bindings(path)
    bound.bind(certificate, now=NOW)
    bound.settle()
    return bound.strays(certificate)


@pytest.mark.parametrize("locks", ["locks", "does not"])
@pytest.mark.parametrize("way", ["in place", "by rename"])
def test_no_change_of_another_program_is_lost(
    ini_file: Path, way: str, locks: str
) -> None:
    put_back = 0
    with writer(ini_file, way, locks) as end:
        for number in range(ROUNDS):
            wanted = (OLD, NEW)[number % 2]
            # What somebody put back after our last look is bound at the next run.
            while bind(ini_file, wanted):
                put_back += 1
        written = end()

    text = ini_file.read_bytes()
    assert ini.lookup(text, "Other", "Count")[0].value == str(written)
    assert put_back <= ROUNDS
    assert b"; a comment" in text
    assert not list(ini_file.parent.glob("*.tmp"))


def bindings(path: Path) -> Bindings:
    root = path.parent.parent
    return Bindings(
        IniFiles(root), [MAIL], [OLD, NEW], ours=(), backups=root / "backups"
    )


def replaced(path: Path, old: bytes, new: bytes) -> bytes:
    data = path.read_bytes()
    assert old in data
    return data.replace(old, new)


@pytest.fixture(params=["swaps", "has links", "has neither"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the file system can do; a swap is in one step, or falls back."""
    if request.param != "swaps" and sys.platform != "win32":
        monkeypatch.setattr(swap, "_exchange", lambda *_: False)
    if request.param == "has neither":
        error = PermissionError(errno.EPERM, "Operation not permitted")
        monkeypatch.setattr(os, "link", Mock(side_effect=error))
    return str(request.param)


@pytest.mark.usefixtures("file_system")
def test_a_file_is_replaced_on_any_file_system(ini_file: Path) -> None:
    expected = replaced(ini_file, thumbprint(OLD).encode(), thumbprint(NEW).encode())

    assert bind(ini_file, NEW) == []

    assert ini_file.read_bytes() == expected
    assert list(ini_file.parent.iterdir()) == [ini_file]


@pytest.mark.usefixtures("file_system")
def test_what_is_written_just_before_the_swap_is_carried_over(
    ini_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = swap.swap

    def late(fresh: Path, target: Path) -> Path:
        monkeypatch.setattr(files, "swap", exchange)
        target.write_bytes(replaced(target, b"Count=0", b"Count=1"))
        return exchange(fresh, target)

    monkeypatch.setattr(files, "swap", late)

    assert bind(ini_file, NEW) == []
    assert b"Count=1\r\n; a comment" in ini_file.read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="an open file is not replaced")
@pytest.mark.parametrize("also", [b"", b"[New]\r\nKey=1\r\n"])
def test_what_is_written_to_the_replaced_file_is_carried_over_at_the_end(
    ini_file: Path, also: bytes
) -> None:
    bound = bindings(ini_file)
    text = replaced(ini_file, b"Count=0\r\n", b"Count=1\r\nMore=x\r\n")
    with ini_file.open("r+b") as by_another_program:
        bound.bind(NEW, now=NOW)
        ini_file.write_bytes(ini_file.read_bytes() + also)
        by_another_program.write(text)

    bound.settle()

    assert bound.strays(NEW) == []
    data = ini_file.read_bytes()
    assert b"Count=1\r\nMore=x\r\n; a comment" in data
    assert data.endswith(also or b"\r\n")
    assert list(ini_file.parent.iterdir()) == [ini_file]


def test_what_is_newer_in_the_file_is_not_overwritten_by_what_is_late(
    ini_file: Path,
) -> None:
    base = ini_file.read_bytes()
    late = base.replace(b"Count=0", b"Count=1")
    newer = base.replace(b"Count=0", b"Count=2")

    assert ini.merged(base, late, newer) == newer


def test_a_key_that_was_removed_meanwhile_stays_removed(ini_file: Path) -> None:
    base = ini_file.read_bytes()
    late = base.replace(b"Count=0\r\n", b"")

    assert ini.merged(base, late, base + b"[A]\r\nb=c\r\n") == (
        late + b"[A]\r\nb=c\r\n"
    )


def test_a_value_that_is_put_back_again_and_again_ends_the_run(
    ini_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange, data = swap.swap, ini_file.read_bytes()

    def put_back(fresh: Path, target: Path) -> Path:
        out = exchange(fresh, target)
        target.write_bytes(data)
        return out

    monkeypatch.setattr(files, "MAX_ROUNDS", 3)
    monkeypatch.setattr(files, "swap", put_back)

    with pytest.raises(DeployError) as caught:
        bind(ini_file, NEW)

    assert caught.value.message == (
        f"Another program writes {ini_file} again and again."
    )
    assert ini_file.read_bytes() == data
    assert list(ini_file.parent.iterdir()) == [ini_file]


def test_a_failure_takes_back_our_change_and_no_other(
    ini_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ini_file.with_name("Other.ini")
    other.write_bytes(ini_file.read_bytes())
    target = Target("App/Other.ini", "SSL", "Certificate", "sha1:upper")
    exchange = swap.swap

    def refused(fresh: Path, at: Path) -> Path:
        if at.name == "Other.ini":
            ini_file.write_bytes(replaced(ini_file, b"Count=0", b"Count=1"))
            raise OSError(errno.EIO, "Input/output error")
        return exchange(fresh, at)

    monkeypatch.setattr(files, "swap", refused)
    bound = bindings(ini_file)
    bound.targets = [MAIL, target]

    with pytest.raises(DeployError, match="Input/output error"):
        bound.bind(NEW, now=NOW)

    assert bound.strays(OLD) == []
    assert b"Count=1" in ini_file.read_bytes()
    assert sorted(ini_file.parent.iterdir()) == [ini_file, other]
