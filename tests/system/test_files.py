"""Files change all or none, stay private, and are locked against others."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import pytest

from letsencrypt_mdaemon.errors import BusyError, DeployError, Error
from letsencrypt_mdaemon.system import disk, files, locks
from letsencrypt_mdaemon.system import swap as system_swap
from letsencrypt_mdaemon.system.backups import Backups
from letsencrypt_mdaemon.system.disk import (
    make_private_folder,
    read_limited,
    write_private,
)
from letsencrypt_mdaemon.system.files import Edits
from letsencrypt_mdaemon.system.handles import Folder
from letsencrypt_mdaemon.system.locks import courtesy_lock, exclusive_lock
from tests.wine import wine_differs

if sys.platform != "win32":
    import fcntl

NOW = datetime(2026, 3, 9, 10, 11, 12, tzinfo=UTC)
STAMP = "20260309-101112"
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Failing:
    """A function of `os` that fails at the nth call, or from there on."""

    def __init__(
        self, name: str, nth: int, error: BaseException, *, times: int = 1
    ) -> None:
        self.name = name
        self.real: Callable[..., object] = getattr(os, name)
        self.fatal = range(nth, nth + times)
        self.error = error
        self.calls = 0

    def __call__(self, *args: object, **kwargs: object) -> object:
        self.calls += 1
        if self.calls in self.fatal:
            raise self.error
        return self.real(*args, **kwargs)


@contextmanager
def failing(
    name: str, nth: int, error: BaseException = FULL, *, times: int = 1
) -> Iterator[Failing]:
    function = Failing(name, nth, error, times=times)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, name, function)
        yield function


def in_use(code: int = 32) -> PermissionError:
    error = PermissionError(errno.EACCES, "Another process uses the file")
    error.winerror = code  # type: ignore[attr-defined,unused-ignore]
    return error


def tree(folder: Path) -> dict[str, bytes]:
    """Return what is in a folder: the path and content of every file below it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def read(path: Path) -> bytes:
    return read_limited(path, 1 << 20)


def merge(base: bytes, late: bytes, onto: bytes) -> bytes:
    """Merge contents that are words: the third with what was added to the first."""
    gone, new = set(base.split()), [x for x in late.split() if x not in base.split()]
    kept = [word for word in onto.split() if word in late.split() or word not in gone]
    return b" ".join([*kept, *(word for word in new if word not in kept)])


def replace_all(
    contents: dict[Path, bytes], *, backups: Path, keep: int, now: datetime
) -> Path | None:
    edits = {path: partial(to, data) for path, data in contents.items()}
    made = Edits(edits, read=read, merge=merge)
    saved = made.make(Backups(backups, keep, now))
    made.settle()
    return saved


def to(data: bytes, _: bytes) -> bytes:
    return data


def replace(contents: dict[Path, bytes], backups: Path | None = None) -> Path | None:
    if backups:
        return replace_all(contents, backups=backups, keep=3, now=NOW)
    edits = {path: partial(to, data) for path, data in contents.items()}
    made = Edits(edits, read=read, merge=merge)
    made.make()
    made.settle()
    return None


@contextmanager
def failing_swap(
    nth: int, error: BaseException = FULL, *, times: int = 1
) -> Iterator[None]:
    calls, real = iter(range(1, 1000)), system_swap.swap

    def swap(fresh: Path, target: Path) -> Path:
        if next(calls) in range(nth, nth + times):
            raise error
        return real(fresh, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "swap", swap)
        yield


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """Two INI files of one name in two folders, and one of another name."""
    root = tmp_path / "server"
    for name in ("App/MDaemon.ini", "WorldClient/MDaemon.ini", "WorldClient/W.ini"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"old " + name.encode())
    return root


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Let the umask hide nothing of the mode that a file is made with."""
    former = os.umask(0)
    yield
    os.umask(former)


@pytest.fixture
def wanted(server: Path) -> dict[Path, bytes]:
    return {server / name: b"new " + name.encode() for name in tree(server)}


# Replacing


def test_all_files_get_their_new_content(
    server: Path, wanted: dict[Path, bytes]
) -> None:
    assert replace(wanted) is None
    assert {path: path.read_bytes() for path in wanted} == wanted
    assert len(tree(server)) == 3


def test_the_former_contents_are_kept_under_the_paths_of_the_files(
    server: Path, wanted: dict[Path, bytes], tmp_path: Path
) -> None:
    before = tree(server)
    saved = replace(wanted, tmp_path / "backups")
    assert saved == tmp_path / "backups" / STAMP
    root = server.resolve()
    inside = saved.joinpath(root.drive.strip(":\\"), *root.parts[1:])
    assert tree(inside) == before
    assert len(tree(saved)) == 3


def test_a_file_that_has_its_content_is_left_alone(
    server: Path, tmp_path: Path
) -> None:
    same = server / "App" / "MDaemon.ini"
    other = server / "WorldClient" / "W.ini"
    before = same.stat()
    saved = replace({same: same.read_bytes(), other: b"new"}, tmp_path / "backups")
    assert saved is not None
    assert [path.rsplit("/", 1)[1] for path in tree(saved)] == ["W.ini"]
    after = same.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_nothing_to_change_makes_no_backup(server: Path, tmp_path: Path) -> None:
    same = {server / name: data for name, data in tree(server).items()}
    assert replace(same, tmp_path / "backups") is None
    assert not (tmp_path / "backups").exists()


@pytest.mark.parametrize("data", [b"new", b""])
def test_a_change_is_seen_by_programs_that_look_at_the_time(
    server: Path, data: bytes
) -> None:
    path = server / "App" / "MDaemon.ini"
    os.utime(path, (1_000_000_000, 1_000_000_000))
    replace({path: data})
    assert path.stat().st_mtime > 1_000_000_000


@wine_differs("its symbolic links lead nowhere")
def test_a_link_stays_and_its_target_changes(server: Path) -> None:
    link = server / "link.ini"
    link.symlink_to(Path("App") / "MDaemon.ini")
    replace({link: b"new"})
    assert link.is_symlink()
    assert (server / "App" / "MDaemon.ini").read_bytes() == b"new"


@wine_differs("its symbolic links lead nowhere")
def test_a_file_of_two_names_is_changed_once(server: Path) -> None:
    link = server / "link.ini"
    real = server / "App" / "MDaemon.ini"
    link.symlink_to(real)
    replace({link: b"new", real: b"new"})
    assert real.read_bytes() == b"new"
    with pytest.raises(DeployError, match=r"are the same file\."):
        replace({link: b"one", real: b"another"})
    assert real.read_bytes() == b"new"


def test_a_write_may_take_only_a_part_at_a_time(
    server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:3]))
    path = server / "App" / "MDaemon.ini"
    replace({path: b"0123456789"})
    assert path.read_bytes() == b"0123456789"


# Three files, and three backups.
STEPS = 3 + 3


@pytest.mark.parametrize("nth", range(1, STEPS + 1))
@pytest.mark.parametrize("times", [1, 1000], ids=["once", "for good"])
@pytest.mark.parametrize("name", ["write", "fsync"])
def test_a_full_disk_at_any_moment_changes_nothing(
    wanted: dict[Path, bytes], tmp_path: Path, name: str, times: int, nth: int
) -> None:
    before = tree(tmp_path)
    with failing(name, nth, times=times), pytest.raises(DeployError) as caught:
        replace(wanted, tmp_path / "backups")
    assert ": No space left on device." in caught.value.message
    assert caught.value.hint == "Make room on that disk and run again."
    assert tree(tmp_path) == before


def test_nothing_is_written_once_the_first_file_has_changed(
    server: Path, wanted: dict[Path, bytes], tmp_path: Path
) -> None:
    with failing("write", STEPS + 1) as write, failing("fsync", STEPS + 1):
        replace(wanted, tmp_path / "backups")
    assert write.calls == STEPS
    assert {path: path.read_bytes() for path in wanted} == wanted
    assert not list(server.rglob("*.tmp"))


def test_a_refused_swap_brings_back_those_already_made(
    server: Path, wanted: dict[Path, bytes], tmp_path: Path
) -> None:
    before = tree(server)
    for nth, path in enumerate(wanted, start=1):
        # On Windows with its code for a disk that is write-protected.
        error = PermissionError(errno.EPERM, "Operation not permitted", None, 19)
        with (
            failing_swap(nth, error),
            pytest.raises(DeployError) as caught,
        ):
            replace(wanted, tmp_path / "backups")
        assert caught.value.message == (
            f"Could not write {path}: Operation not permitted."
        )
        assert caught.value.hint == "Let this account write to it and to its folder."
        assert tree(server) == before
        assert tree(tmp_path / "backups") == {}


def test_an_interruption_brings_back_those_already_made(
    server: Path, wanted: dict[Path, bytes], tmp_path: Path
) -> None:
    before = tree(server)
    ways = (
        failing("write", 2, KeyboardInterrupt()),
        failing_swap(2, KeyboardInterrupt()),
    )
    for way in ways:
        with way, pytest.raises(KeyboardInterrupt):
            replace(wanted, tmp_path / "backups")
        assert tree(server) == before
        assert tree(tmp_path / "backups") == {}


def test_a_swap_that_was_made_when_it_was_interrupted_is_brought_back(
    server: Path,
    wanted: dict[Path, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = tree(server)
    real = Folder.rename

    def rename(folder: Folder, name: str, to: str) -> None:
        real(folder, name, to)
        monkeypatch.setattr(Folder, "rename", real)
        raise KeyboardInterrupt

    step = "_replace_file" if sys.platform == "win32" else "_exchange"
    swapped = getattr(system_swap, step)

    def interrupted(*args: object) -> None:
        monkeypatch.setattr(system_swap, step, swapped)
        swapped(*args)
        raise KeyboardInterrupt

    ways: list[tuple[object, str, object]] = [(system_swap, step, interrupted)]
    if sys.platform != "win32":  # without RENAME_EXCHANGE
        ways.insert(0, (Folder, "rename", rename))
        monkeypatch.setattr(system_swap, step, lambda *_: False)
    for where, name, what in ways:
        monkeypatch.setattr(where, name, what)
        with pytest.raises(KeyboardInterrupt):
            replace(wanted, tmp_path / "backups")
        assert tree(server) == before
        monkeypatch.undo()


def test_what_somebody_writes_while_a_file_is_brought_back_stays(
    server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = server / "App" / "MDaemon.ini", server / "WorldClient" / "W.ini"
    calls = iter(range(1, 1000))

    def swap(fresh: Path, target: Path) -> Path:
        call = next(calls)
        if call == 2:
            raise FULL
        if call in range(3, 6):
            target.write_bytes(target.read_bytes() + b" late%d" % call)
        return system_swap.swap(fresh, target)

    monkeypatch.setattr(files, "swap", swap)
    with pytest.raises(DeployError, match="No space left"):
        replace({first: b"new", second: b"new"}, tmp_path / "backups")

    words = b"old App/MDaemon.ini late3 late4 late5"
    assert sorted(first.read_bytes().split()) == sorted(words.split())
    assert second.read_bytes() == b"old WorldClient/W.ini"
    assert not list(server.rglob("*.tmp"))


def test_what_cannot_be_put_back_is_named_with_its_former_content(
    server: Path, tmp_path: Path
) -> None:
    first, second = server / "App" / "MDaemon.ini", server / "WorldClient" / "W.ini"
    former = first.read_bytes()
    with (
        failing_swap(2, times=9),
        pytest.raises(DeployError) as caught,
    ):
        replace({first: b"new", second: b"new"}, tmp_path / "backups")
    assert caught.value.message == (
        f"Could not write {second}: No space left on device."
        f" The new content remains in {first}."
    )
    (spare,) = first.parent.glob(".*.tmp")
    assert caught.value.hint == f"Restore the former content by hand from {spare}."
    assert spare.read_bytes() == former
    assert first.read_bytes() == b"new"
    assert not list(second.parent.glob(".*.tmp"))
    assert former in tree(tmp_path / "backups").values()


@pytest.mark.parametrize("code", [5, 32])
def test_a_file_that_is_open_elsewhere_on_windows_is_tried_again(
    server: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(disk, "POLL_SECONDS", 0)
    path = server / "App" / "MDaemon.ini"
    with failing("replace", 1, in_use(code), times=2) as function:
        write_private(path, b"new")
    assert function.calls == 3
    assert path.read_bytes() == b"new"


def test_a_file_that_stays_open_elsewhere_is_given_up(
    server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "SHARING_TIMEOUT_SECONDS", 0)
    path = server / "App" / "MDaemon.ini"
    before = tree(server)
    with (
        failing("replace", 1, in_use(), times=9),
        pytest.raises(PermissionError),
    ):
        write_private(path, b"new")
    with (
        failing_swap(1, in_use()),
        pytest.raises(DeployError, match="Another process uses the file") as caught,
    ):
        replace({path: b"new"})
    assert caught.value.hint.startswith("Close the program that has it open")
    assert tree(server) == before


def test_other_refusals_are_not_tried_again(server: Path) -> None:
    path = server / "App" / "MDaemon.ini"
    # On Windows: write-protected.
    error = PermissionError(errno.EACCES, "Permission denied", str(path), 19)
    with (
        failing("replace", 1, error, times=9) as function,
        pytest.raises(PermissionError),
    ):
        write_private(path, b"new")
    assert function.calls == 1


def refused(server: Path, path: Path) -> DeployError:
    """Return why `path` cannot be replaced; a good file beside it must not change."""
    good = server / "App" / "MDaemon.ini"
    before = good.read_bytes()
    with pytest.raises(DeployError) as caught:
        replace({good: b"new", path: b"new"})
    assert good.read_bytes() == before
    assert not list(server.rglob("*.tmp"))
    assert caught.value.hint
    return caught.value


def test_a_read_only_file_is_refused_even_where_it_could_be_replaced(
    server: Path,
) -> None:
    path = server / "WorldClient" / "W.ini"
    path.chmod(0o444)
    assert refused(server, path).message == f"Could not write {path}: it is read-only."
    path.chmod(0o644)


def test_a_file_in_a_missing_folder_is_refused(server: Path) -> None:
    path = server / "missing" / "W.ini"
    assert refused(server, path).message == (
        f"Could not write {path}: its folder does not exist."
    )


def test_backups_of_the_same_second_get_folders_of_their_own(
    server: Path, tmp_path: Path
) -> None:
    path = server / "App" / "MDaemon.ini"
    saved = [replace({path: data}, tmp_path / "b") for data in (b"1", b"2", b"3")]
    names = [folder.name for folder in saved if folder]
    assert names == [STAMP, f"{STAMP}-002", f"{STAMP}-003"]


def test_the_name_of_a_backup_is_the_time_in_utc(server: Path, tmp_path: Path) -> None:
    here = NOW.astimezone(timezone(timedelta(hours=-7)))
    path = server / "App" / "MDaemon.ini"
    saved = replace_all({path: b"new"}, backups=tmp_path / "b", keep=1, now=here)
    assert saved == tmp_path / "b" / STAMP


@pytest.mark.parametrize(("keep", "left"), [(3, 3), (1, 1), (0, 1), (9, 5)])
def test_only_the_newest_backups_stay(
    server: Path, tmp_path: Path, keep: int, left: int
) -> None:
    backups = tmp_path / "backups"
    path = server / "App" / "MDaemon.ini"
    names = []
    for number in range(5):
        now = NOW + timedelta(days=number)
        data = str(number).encode()
        saved = replace_all({path: data}, backups=backups, keep=keep, now=now)
        assert saved is not None
        names.append(saved.name)
    assert sorted(folder.name for folder in backups.iterdir()) == names[-left:]


def test_a_clock_that_went_back_does_not_cost_the_new_backup(
    server: Path, tmp_path: Path
) -> None:
    path = server / "App" / "MDaemon.ini"
    backups = tmp_path / "backups"
    replace({path: b"1"}, backups)
    now = NOW - timedelta(days=1)
    saved = replace_all({path: b"2"}, backups=backups, keep=1, now=now)
    assert list(backups.iterdir()) == [saved]


@wine_differs("its symbolic links lead nowhere")
def test_what_is_not_a_backup_of_ours_stays(server: Path, tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    (backups / "by hand").mkdir(parents=True)
    (backups / "20000101-000000").write_bytes(b"a file")
    (backups / "20000101-000001").symlink_to(server)
    (backups / "20000101-000002").mkdir()
    replace_all(
        {server / "App" / "MDaemon.ini": b"new"}, backups=backups, keep=1, now=NOW
    )
    assert sorted(path.name for path in backups.iterdir()) == [
        "20000101-000000",
        "20000101-000001",
        STAMP,
        "by hand",
    ]
    assert (server / "WorldClient" / "W.ini").exists()


def test_an_old_backup_that_cannot_go_is_only_a_warning(
    server: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = server / "App" / "MDaemon.ini"
    replace({path: b"1"}, tmp_path / "b")
    later = NOW + timedelta(days=1)
    with failing("rmdir", 1, times=9):
        replace_all({path: b"2"}, backups=tmp_path / "b", keep=1, now=later)
    assert path.read_bytes() == b"2"
    assert "Could not remove old backups in" in caplog.text


def test_a_backup_folder_that_cannot_be_made_changes_nothing(
    wanted: dict[Path, bytes], tmp_path: Path
) -> None:
    backups = tmp_path / "backups"
    backups.write_bytes(b"a file")
    before = tree(tmp_path)
    with pytest.raises(DeployError, match="Could not write") as caught:
        replace(wanted, backups)
    assert str(backups) in caught.value.message
    assert tree(tmp_path) == before


# Private files and folders


def test_a_private_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "account.json"
    write_private(path, b"one")
    write_private(path, b"two")
    assert tree(tmp_path) == {"account.json": b"two"}


@pytest.mark.parametrize("name", ["write", "fsync", "replace"])
def test_a_private_file_that_cannot_be_written_stays_as_it_was(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "account.json"
    write_private(path, b"one")
    with failing(name, 1), pytest.raises(OSError, match="No space left"):
        write_private(path, b"two")
    assert tree(tmp_path) == {"account.json": b"one"}


def test_a_private_file_takes_the_place_of_a_link(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / "account.json").symlink_to("other")
    write_private(tmp_path / "account.json", b"secret")
    assert not (tmp_path / "account.json").is_symlink()
    assert (tmp_path / "other").read_bytes() == b"other"


def test_a_folder_is_made_with_those_above_it_and_only_once(tmp_path: Path) -> None:
    path = tmp_path / "one" / "two" / "three"
    make_private_folder(path)
    make_private_folder(path)
    assert path.is_dir()


@pytest.mark.parametrize("below", ["", "one/two"])
def test_a_file_in_the_place_of_a_folder_is_an_error(
    tmp_path: Path, below: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        make_private_folder(tmp_path / "file" / below)
    assert (tmp_path / "file").is_file()


# Reading


@pytest.mark.parametrize("size", [0, 1, 99, 100])
def test_a_file_up_to_the_limit_is_read(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\r\n\x1a"[:1] * size)
    assert read_limited(path, 100) == b"\r" * size


def test_no_more_than_one_byte_above_the_limit_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    read = os.read
    sizes: list[int] = []

    def counted(handle: int, size: int) -> bytes:
        data = read(handle, size)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(os, "read", counted)
    with pytest.raises(ValueError, match="it is larger than 100 bytes"):
        read_limited(path, 100)
    assert sum(sizes) == 101


def test_a_folder_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it is a folder"):
        read_limited(tmp_path, 100)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_limited(tmp_path / "missing", 100)


# The vendor's lock files


@pytest.fixture
def ini(server: Path) -> Path:
    return server / "App" / "MDaemon.ini"


@pytest.fixture
def lock(ini: Path) -> Path:
    return ini.with_name("MDaemon.ini.lck")


def test_the_lock_file_is_there_while_the_lock_is_held(ini: Path, lock: Path) -> None:
    with courtesy_lock(ini):
        assert lock.is_file()
    assert not lock.exists()


def test_the_lock_file_goes_when_something_fails(ini: Path, lock: Path) -> None:
    with pytest.raises(ZeroDivisionError), courtesy_lock(ini):
        _ = 1 / 0
    assert not lock.exists()


def test_a_lock_of_another_program_is_respected(ini: Path, lock: Path) -> None:
    lock.write_bytes(b"")
    with (
        pytest.raises(DeployError) as caught,
        courtesy_lock(ini, timeout=0.02),
    ):
        pytest.fail("the lock of another program was taken")
    assert caught.value.message == f"{lock} is held by another program."
    assert lock.read_bytes() == b""


def test_a_lock_that_is_released_meanwhile_is_taken(
    ini: Path, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock.write_bytes(b"")
    monkeypatch.setattr(time, "sleep", lambda _: lock.unlink())
    with courtesy_lock(ini, timeout=60):
        assert lock.read_bytes()


def test_a_forgotten_lock_is_removed_without_waiting(ini: Path, lock: Path) -> None:
    lock.write_bytes(b"")
    past = time.time() - 11
    os.utime(lock, (past, past))
    with courtesy_lock(ini, timeout=0):
        assert lock.read_bytes()
    assert not lock.exists()


def test_a_lock_with_a_time_to_come_is_forgotten_after_watching_it(
    ini: Path, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock.write_bytes(b"")
    future = time.time() + 86400
    os.utime(lock, (future, future))
    monkeypatch.setattr(locks, "ABANDONED_AFTER_SECONDS", 0.05)
    monkeypatch.setattr(disk, "POLL_SECONDS", 0.01)
    with courtesy_lock(ini, timeout=60):
        assert lock.read_bytes()


def test_a_lock_that_others_took_from_us_is_theirs(ini: Path, lock: Path) -> None:
    with courtesy_lock(ini):
        lock.write_bytes(b"somebody else's")
    assert lock.read_bytes() == b"somebody else's"


def test_a_lock_file_that_was_removed_meanwhile_is_no_error(
    ini: Path, lock: Path
) -> None:
    with courtesy_lock(ini):
        lock.unlink()
    assert not lock.exists()


def test_a_lock_file_that_is_in_use_on_windows_is_waited_for(
    ini: Path, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "POLL_SECONDS", 0)
    lock.write_bytes(b"")
    os.utime(lock, (0, 0))
    with failing("unlink", 1, in_use(), times=3), courtesy_lock(ini):
        assert lock.read_bytes()


def test_a_lock_that_cannot_be_made_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "MDaemon.ini"
    with (
        pytest.raises(DeployError) as caught,
        courtesy_lock(path),
    ):
        pytest.fail("there is no folder for the lock")
    assert caught.value.message.startswith(f"Could not write {path}.lck: ")


def test_a_lock_that_may_not_be_made_is_not_waited_for(ini: Path, lock: Path) -> None:
    # On Windows with its code for a disk that is write-protected.
    error = PermissionError(errno.EACCES, "Permission denied", None, 19)
    with (
        failing("open", 1, error),
        pytest.raises(DeployError, match=r"Could not write .*: Permission denied"),
        courtesy_lock(ini, timeout=3600),
    ):
        pytest.fail("the lock could not be made")
    assert not lock.exists()


def test_a_lock_that_cannot_be_written_leaves_no_file(ini: Path, lock: Path) -> None:
    with (
        failing("write", 1),
        pytest.raises(DeployError, match="No space left"),
        courtesy_lock(ini),
    ):
        pytest.fail("the lock was not complete")
    assert not lock.exists()


# The lock of a whole run

HOLDER = """
import sys
from pathlib import Path
from letsencrypt_mdaemon.system.locks import exclusive_lock

with exclusive_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
# The program that the holder starts outlives it, with everything it inherited.
HOLDER_WITH_CHILD = """
import subprocess, sys
from pathlib import Path
from letsencrypt_mdaemon.system.locks import exclusive_lock

child = "import sys; print('held', flush=True); sys.stdin.read()"
with exclusive_lock(Path(sys.argv[1])):
    subprocess.Popen([sys.executable, "-c", child], close_fds=False).wait()
"""


@contextmanager
def holder(lock: Path, script: str = HOLDER) -> Iterator[subprocess.Popen[str]]:
    """Start another process that holds the lock until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.stdin.close()
            # Ends when the last one that inherited it has ended.
            process.stdout.read()


def test_a_second_process_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with holder(lock) as process:
        with pytest.raises(BusyError) as caught, exclusive_lock(lock):
            pytest.fail("two processes hold the lock")
        since = json.loads(lock.read_bytes())["since"]
        assert caught.value.message == (
            f"Another run holds {lock}: process {process.pid}"
            f" on {socket.gethostname()}, since {since}."
        )
        assert datetime.fromisoformat(since).tzinfo is not None
    with exclusive_lock(lock):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with holder(lock) as process:
        process.kill()
        process.wait()
        with exclusive_lock(lock):
            assert json.loads(lock.read_bytes())["pid"] == os.getpid()


def test_a_program_that_the_holder_started_does_not_hold_the_lock(
    tmp_path: Path,
) -> None:
    lock = tmp_path / "lock"
    with holder(lock, HOLDER_WITH_CHILD) as process:
        process.kill()
        process.wait()
        with exclusive_lock(lock):
            assert json.loads(lock.read_bytes())["pid"] == os.getpid()


def test_the_lock_is_held_once_in_one_process_as_well(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with (
        exclusive_lock(lock),
        pytest.raises(BusyError),
        exclusive_lock(lock),
    ):
        pytest.fail("the lock is held twice")


def test_the_lock_file_stays_and_is_empty_afterwards(tmp_path: Path) -> None:
    lock = tmp_path / "new" / "folder" / "lock"
    with exclusive_lock(lock):
        number = lock.stat().st_ino
    assert lock.read_bytes() == b""
    with exclusive_lock(lock):
        assert lock.stat().st_ino == number


def test_what_an_earlier_holder_left_is_gone(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_bytes(b"x" * 1000)
    with exclusive_lock(lock):
        assert json.loads(lock.read_bytes())["pid"] == os.getpid()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"1", b'{"pid": 1}', b"\xff\x00", b"[" * 9999]
)
def test_a_lock_file_that_makes_no_sense_is_held_all_the_same(
    tmp_path: Path, content: bytes
) -> None:
    lock = tmp_path / "lock"
    with exclusive_lock(lock):
        lock.write_bytes(content)
        with pytest.raises(BusyError) as caught, exclusive_lock(lock):
            pytest.fail("the lock is held twice")
    assert caught.value.message == f"Another run holds {lock}."


def test_what_a_lock_file_says_is_shown_without_control_characters(
    tmp_path: Path,
) -> None:
    lock = tmp_path / "lock"
    with exclusive_lock(lock):
        lock.write_text(json.dumps({"pid": 1, "host": "\x1b[2J", "since": "now"}))
        with pytest.raises(BusyError) as caught, exclusive_lock(lock):
            pytest.fail("the lock is held twice")
    assert "\x1b" not in caught.value.message


def test_a_full_disk_does_not_stop_the_lock(tmp_path: Path) -> None:
    with failing("write", 1) as function, exclusive_lock(tmp_path / "lock"):
        assert function.calls == 1


def test_a_lock_without_a_place_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    lock = tmp_path / "file" / "lock"
    with pytest.raises(Error) as caught, exclusive_lock(lock):
        pytest.fail("there is no folder for the lock")
    assert caught.value.message.startswith(f"Could not open {lock}: ")
    assert not isinstance(caught.value, BusyError)


if sys.platform != "win32":
    # Modes, owners, pipes and devices as Windows does not have them.

    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    @pytest.mark.usefixtures("open_umask")
    def test_no_file_is_ever_more_open_than_it_will_be(
        server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (server / "App" / "MDaemon.ini").chmod(0o640)
        write = os.write
        modes = set()

        def watched(handle: int, data: bytes) -> int:
            modes.add(stat.S_IMODE(os.fstat(handle).st_mode))
            return write(handle, data)

        monkeypatch.setattr(os, "write", watched)
        write_private(tmp_path / "account.json", b"secret")
        replace({server / "App" / "MDaemon.ini": b"new"}, tmp_path / "backups")
        with courtesy_lock(server / "W.ini"), exclusive_lock(tmp_path / "lock"):
            assert mode(tmp_path / "lock") == 0o600
        assert modes == {0o600, 0o640}
        assert mode(tmp_path / "account.json") == 0o600
        assert mode(server / "App" / "MDaemon.ini") == 0o640
        for path in (tmp_path / "backups").rglob("*"):
            assert mode(path) == (0o700 if path.is_dir() else 0o600)

    def test_a_private_file_does_not_keep_the_mode_of_an_open_one(
        tmp_path: Path,
    ) -> None:
        path = tmp_path / "account.json"
        path.touch()
        path.chmod(0o644)
        write_private(path, b"secret")
        assert mode(path) == 0o600

    @pytest.mark.usefixtures("open_umask")
    def test_every_new_folder_is_private_and_existing_ones_stay(
        tmp_path: Path,
    ) -> None:
        (tmp_path / "one").mkdir(mode=0o755)
        make_private_folder(tmp_path / "one" / "two" / "three")
        assert mode(tmp_path / "one") == 0o755
        assert mode(tmp_path / "one" / "two") == 0o700
        assert mode(tmp_path / "one" / "two" / "three") == 0o700

    @pytest.mark.usefixtures("open_umask")
    @pytest.mark.parametrize("bits", [0o640, 0o600, 0o664])
    def test_the_mode_of_a_file_stays(server: Path, bits: int) -> None:
        path = server / "App" / "MDaemon.ini"
        path.chmod(bits)
        replace({path: b"new"})
        assert mode(path) == bits

    def test_the_owner_of_a_file_stays(server: Path) -> None:
        path = server / "App" / "MDaemon.ini"
        owner = (12345, 23456) if os.geteuid() == 0 else (os.getuid(), os.getgid())
        os.chown(path, *owner)
        replace({path: b"new"})
        assert (path.stat().st_uid, path.stat().st_gid) == owner

    def test_the_group_may_stay_where_the_owner_may_not(
        server: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = server / "App" / "MDaemon.ini"
        asked = []

        def fchown(_handle: int, owner: int, group: int) -> None:
            asked.append((owner, group))
            if owner != -1:
                raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "fchown", fchown)
        replace({path: b"new"})
        status = path.stat()
        first = [(status.st_uid, status.st_gid), (-1, status.st_gid)]
        assert asked == first

    def test_another_group_is_not_given_what_the_first_may_do(
        server: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = server / "App" / "MDaemon.ini"
        path.chmod(0o664)
        real = os.fstat

        def in_another_group(handle: int) -> os.stat_result:
            status = list(real(handle))
            if not status[stat.ST_SIZE]:  # the new one
                status[stat.ST_GID] += 1
            return os.stat_result(status)

        monkeypatch.setattr(os, "fstat", in_another_group)
        replace({path: b"new"})
        assert mode(path) == 0o604

    def test_a_pipe_is_not_read_and_not_waited_for(tmp_path: Path) -> None:
        path = tmp_path / "pipe"
        os.mkfifo(path)
        with pytest.raises(ValueError, match="it is not a regular file"):
            read_limited(path, 100)

    def test_a_pipe_that_takes_the_place_of_a_file_does_not_make_us_wait(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "pipe"
        os.mkfifo(path)
        regular = Path(__file__).stat()
        monkeypatch.setattr(Folder, "status", lambda *_: regular)
        with pytest.raises(ValueError, match="it is not a regular file"):
            read_limited(path, 100)

    def test_a_device_is_not_even_opened(monkeypatch: pytest.MonkeyPatch) -> None:
        real = os.open

        def of_a_folder(name: str, flags: int, *, dir_fd: int | None = None) -> int:
            assert name != "zero", "it was opened"
            return real(name, flags, dir_fd=dir_fd)

        monkeypatch.setattr(os, "open", of_a_folder)
        with pytest.raises(ValueError, match="it is not a regular file"):
            read_limited(Path("/dev/zero"), 100)

    def test_a_loop_of_links_is_refused(server: Path) -> None:
        path = server / "loop.ini"
        path.symlink_to("loop.ini")
        assert "Could not write" in refused(server, path).message

    def test_a_file_system_without_locks_is_named(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def flock(_handle: int, _operation: int) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", flock)
        lock = tmp_path / "lock"
        with pytest.raises(Error) as caught, exclusive_lock(lock):
            pytest.fail("nothing was locked")
        assert caught.value.message == f"Could not lock {lock}: No locks available."

    def test_a_lock_is_not_written_through_a_link(tmp_path: Path) -> None:
        (tmp_path / "other").write_bytes(b"other")
        (tmp_path / "lock").symlink_to("other")
        with pytest.raises(Error), exclusive_lock(tmp_path / "lock"):
            pytest.fail("the lock is a link")
        assert (tmp_path / "other").read_bytes() == b"other"


def test_what_a_killed_process_left_unfinished_is_swept_up_and_nothing_else(
    tmp_path: Path,
) -> None:
    below = tmp_path / "ca"
    below.mkdir()
    write_private(below / "pending.pem", b"kept")
    left = below / f".pending.pem.{'0a' * 6}.tmp"
    left.write_bytes(b"secret")
    others = [below / "notes.tmp", below / ".hidden.tmp", below / ".x.0A0A0A0A0A0A.tmp"]
    for other in others:
        other.write_bytes(b"somebody's")

    disk.sweep(tmp_path)

    assert not left.exists()
    assert all(other.exists() for other in [*others, below / "pending.pem"])


def test_what_sweep_looks_for_is_what_a_writer_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "killed")

    monkeypatch.setattr(os, "replace", die)
    monkeypatch.setattr(disk, "remove", lambda _: None)
    with pytest.raises(OSError, match="killed"):
        write_private(tmp_path / "pending.pem", b"secret")
    assert len(list(tmp_path.iterdir())) == 1

    disk.sweep(tmp_path)

    assert list(tmp_path.iterdir()) == []


# Asked beforehand


def test_asking_whether_a_file_can_be_written_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.ini"
    file.write_bytes(b"[a]\n")
    before = file.stat(), tmp_path.stat().st_mtime_ns

    for path in (file, tmp_path / "new", tmp_path / "far" / "below" / "new"):
        disk.ask_to_write(path)

    assert [*tmp_path.iterdir()] == [file]
    assert (file.stat(), tmp_path.stat().st_mtime_ns) == before
    assert file.read_bytes() == b"[a]\n"


def test_asking_names_what_is_read_only_or_in_the_way(tmp_path: Path) -> None:
    file = tmp_path / "a.ini"
    file.write_bytes(b"[a]\n")
    with pytest.raises(NotADirectoryError):
        disk.ask_to_write(file / "state" / "x")
    file.chmod(0o444)
    with pytest.raises(PermissionError, match="it is read-only"):
        disk.ask_to_write(file)
    file.chmod(0o644)


@pytest.mark.skipif(sys.platform != "win32", reason="an open file can be replaced")
def test_asking_notices_who_has_a_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "SHARING_TIMEOUT_SECONDS", 0.1)
    file = tmp_path / "a.ini"
    with file.open("wb"), pytest.raises(PermissionError):
        disk.ask_to_write(file)
    disk.ask_to_write(file)
