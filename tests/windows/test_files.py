"""Files that another process holds are waited for, and otherwise left as they were."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from letsencrypt_mdaemon.errors import BusyError, DeployError
from letsencrypt_mdaemon.system import disk, files, locks

NOW = datetime(2026, 11, 23, tzinfo=UTC)
OLD, NEW = b"[SSL]\r\nCertificate=old\r\n", b"[SSL]\r\nCertificate=new\r\n"

# Each does something with the file named, says so, and undoes it when it is told.
READS = """\
import sys
with open(sys.argv[1], "rb"):
    print("ready", flush=True)
    sys.stdin.readline()
print("done", flush=True)
"""
SHARES_NOTHING = """\
import sys, win32con, win32file
handle = win32file.CreateFile(
    sys.argv[1], win32con.GENERIC_READ, 0, None, win32con.OPEN_EXISTING, 0, None
)
print("ready", flush=True)
sys.stdin.readline()
handle.Close()
print("done", flush=True)
"""
LOCKS = """\
import sys
from pathlib import Path
from letsencrypt_mdaemon.system.locks import courtesy_lock, exclusive_lock
with {lock}(Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.readline()
print("done", flush=True)
"""


@contextmanager
def other_process(program: str, path: Path) -> Iterator[Callable[[], None]]:
    """Let another process hold a file; yield what makes it let go."""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        stdin, stdout = process.stdin, process.stdout

        def release() -> None:
            stdin.write("\n")
            stdin.flush()
            assert stdout.readline() == "done\n"

        try:
            assert stdout.readline() == "ready\n"
            yield release
        finally:
            process.kill()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "MDaemon.ini"
    path.write_bytes(OLD)
    return path


@pytest.fixture
def at_first_pause(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """Return what is done once, as soon as something is waited for."""
    pending: list[Callable[[], None]] = []
    sleep = time.sleep

    def pause(seconds: float) -> None:
        while pending:
            pending.pop()()
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", pause)
    return pending


def replace_all(*paths: Path) -> None:
    edits = files.Edits(
        dict.fromkeys(paths, lambda _: NEW),
        read=lambda path: disk.read_limited(path, 1 << 20),
        merge=lambda *contents: contents[-1],
    )
    edits.make()
    edits.settle()


def write_private(path: Path) -> None:
    disk.write_private(path, NEW)


WAYS = pytest.mark.parametrize("write", [replace_all, write_private])


@WAYS
def test_a_file_that_another_process_lets_go_in_time_is_replaced(
    file: Path,
    write: Callable[[Path], None],
    at_first_pause: list[Callable[[], None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(disk, "SHARING_TIMEOUT_SECONDS", 60.0)
    with other_process(READS, file) as release:
        at_first_pause.append(release)

        write(file)

        assert not at_first_pause, "nothing had to be waited for"
    assert file.read_bytes() == NEW
    assert list(file.parent.iterdir()) == [file]


@WAYS
def test_a_file_that_another_process_holds_stays_as_it_was(
    file: Path, write: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "SHARING_TIMEOUT_SECONDS", 0.2)
    with other_process(READS, file):
        with pytest.raises((DeployError, PermissionError)) as caught:
            write(file)

        assert file.read_bytes() == OLD
    assert list(file.parent.iterdir()) == [file]
    if isinstance(caught.value, DeployError):
        assert str(file) in caught.value.message
        assert caught.value.hint.startswith("Close the program that has it open")


def test_a_file_that_nobody_else_may_even_open_for_a_moment_is_waited_for(
    file: Path,
    at_first_pause: list[Callable[[], None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(disk, "SHARING_TIMEOUT_SECONDS", 60.0)
    with other_process(SHARES_NOTHING, file) as release:
        at_first_pause.append(release)

        files.Edits(
            {file: lambda _: NEW}, read=lambda _: OLD, merge=lambda *three: three[-1]
        )

        assert not at_first_pause, "nothing had to be waited for"


def test_none_of_several_files_changes_if_one_is_held(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "SHARING_TIMEOUT_SECONDS", 0.2)
    other = file.with_name("WorldClient.ini")
    other.write_bytes(OLD)

    with (
        other_process(READS, other),
        pytest.raises(DeployError, match=r"Could not write .*WorldClient\.ini"),
    ):
        replace_all(file, other)

    assert file.read_bytes() == other.read_bytes() == OLD
    assert sorted(file.parent.iterdir()) == [file, other]


def test_a_file_that_cannot_even_be_read_meanwhile_is_told(file: Path) -> None:
    with (
        other_process(SHARES_NOTHING, file),
        pytest.raises(DeployError) as caught,
    ):
        replace_all(file)

    assert caught.value.hint.startswith("Close the program that has it open")
    assert file.read_bytes() == OLD
    assert list(file.parent.iterdir()) == [file]


def test_the_vendors_lock_is_waited_for(
    file: Path, at_first_pause: list[Callable[[], None]]
) -> None:
    with other_process(LOCKS.format(lock="courtesy_lock"), file) as release:
        assert file.with_name("MDaemon.ini.lck").is_file()
        at_first_pause.append(release)

        with locks.courtesy_lock(file, timeout=60):
            assert not at_first_pause, "nothing had to be waited for"

    assert list(file.parent.iterdir()) == [file]


def test_the_vendors_lock_held_all_the_time_is_told(file: Path) -> None:
    with (
        other_process(LOCKS.format(lock="courtesy_lock"), file),
        pytest.raises(DeployError, match=r"MDaemon\.ini\.lck is held"),
        locks.courtesy_lock(file, timeout=0.2),
    ):
        pass


def test_one_process_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with other_process(LOCKS.format(lock="exclusive_lock"), lock) as release:
        with (
            pytest.raises(BusyError, match=r"Another run holds .*: process"),
            locks.exclusive_lock(lock),
        ):
            pass
        release()
        with locks.exclusive_lock(lock):
            pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with other_process(LOCKS.format(lock="exclusive_lock"), lock):
        pass

    with locks.exclusive_lock(lock):
        pass
