"""What another user puts where we write: his links and pipes are not followed."""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from letsencrypt_mdaemon.errors import DeployError, Error
from letsencrypt_mdaemon.mdaemon.server import Semaphores
from letsencrypt_mdaemon.mdaemon.webroot import FOLDERS, Webroot
from letsencrypt_mdaemon.system import backups, disk, files, handles, locks
from letsencrypt_mdaemon.system.backups import tidy
from letsencrypt_mdaemon.system.log import FILE_NAME, FileLog
from letsencrypt_mdaemon.system.mail import Mail, RawQueue
from tests.hostile.attacker import Attacker
from tests.limits import HANG_SECONDS

NOW = datetime(2026, 11, 23, tzinfo=UTC)
SECRET = b"root's secret\n"
ROUNDS = 300
"""How often he may try to be faster; without handles, a few rounds were enough."""

if sys.platform != "win32":

    @pytest.fixture
    def his(ground: Path) -> Path:
        """A folder of his, in which we write."""
        folder = ground / "his"
        folder.mkdir()
        os.chown(folder, Attacker.uid, Attacker.uid)
        return folder

    @pytest.fixture
    def secret(ground: Path) -> Path:
        """A file that only root may read, where he can name it but not go."""
        path = ground / "root" / "secret"
        path.parent.mkdir(mode=0o755)
        path.write_bytes(SECRET)
        path.chmod(0o600)
        return path

    def untouched(secret: Path) -> bool:
        status = secret.stat()
        return (
            secret.read_bytes() == SECRET
            and (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o600)
            and list(secret.parent.iterdir()) == [secret]
        )

    def in_time(act: Callable[[], object]) -> None:
        """Do something that must not wait for him."""
        failed: list[BaseException] = []

        def run() -> None:
            try:
                act()
            except BaseException as exc:  # noqa: BLE001 - raised below
                failed.append(exc)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(HANG_SECONDS)
        assert not thread.is_alive(), "it waits for another user"
        for exc in failed:
            raise exc

    def log_in(folder: Path) -> None:
        FileLog(folder, now=NOW, keep=0).close()

    # What a killed run seems to have left

    @pytest.mark.parametrize(
        "put", ["os.mkfifo(sys.argv[1])", "os.symlink('pipe', sys.argv[1])"]
    )
    def test_what_seems_to_be_left_of_a_killed_run_is_not_waited_for(
        attacker: Attacker, his: Path, put: str
    ) -> None:
        ini = his / "MDaemon.ini"
        ini.write_bytes(b"now")
        attacker.run("os.mkfifo(sys.argv[1])", his / "pipe")
        planted, ours = disk.neighbour(ini), disk.neighbour(ini)
        attacker.run(put, planted)
        ours.write_bytes(b"now")

        in_time(lambda: tidy(ini, his / "backups"))

        assert not ours.exists()
        assert os.path.lexists(planted)

    def test_a_huge_file_that_seems_to_be_left_of_a_killed_run_is_told_but_not_read(
        attacker: Attacker, his: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ini = his / "MDaemon.ini"
        ini.write_bytes(b"now")
        planted = disk.neighbour(ini)
        attacker.run("open(sys.argv[1], 'w').write('x' * 100)", planted)
        monkeypatch.setattr(backups, "MAX_BYTES", 10)

        assert tidy(ini, his / "backups") == [planted]

        assert planted.exists()

    # The log

    def test_a_log_replaces_a_link_and_leaves_its_target(
        attacker: Attacker, his: Path, secret: Path
    ) -> None:
        attacker.run("os.symlink(*sys.argv[1:])", secret, his / FILE_NAME)

        log_in(his)

        assert untouched(secret)
        assert not (his / FILE_NAME).is_symlink()
        assert (his / FILE_NAME).stat().st_uid == 0

    def test_a_log_creates_no_file_where_a_link_leads(
        attacker: Attacker, his: Path, secret: Path
    ) -> None:
        planted = secret.with_name("planted")
        attacker.run("os.symlink(*sys.argv[1:])", planted, his / FILE_NAME)

        log_in(his)

        assert untouched(secret)

    def test_a_log_replaces_a_pipe_without_waiting(
        attacker: Attacker, his: Path
    ) -> None:
        attacker.run("os.mkfifo(sys.argv[1])", his / FILE_NAME)

        in_time(lambda: log_in(his))

        assert (his / FILE_NAME).is_file()

    def test_a_log_is_not_written_into_a_file_that_he_has_open(
        attacker: Attacker, his: Path
    ) -> None:
        attacker.run("open(sys.argv[1], 'w').write('his')", his / FILE_NAME)

        with (his / FILE_NAME).open() as file:
            log_in(his)
            assert file.read() == "his"

    def test_a_log_that_he_keeps_putting_back_is_not_cut_off(
        attacker: Attacker, his: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        attacker.run("open(sys.argv[1], 'w').write('his')", his / FILE_NAME)
        monkeypatch.setattr(handles.Folder, "remove", lambda *_: None)

        with pytest.raises(OSError, match="Another file or account"):
            log_in(his)

        assert (his / FILE_NAME).read_text() == "his"

    def test_a_log_behind_a_folder_that_is_his_link_is_refused(
        attacker: Attacker, his: Path, secret: Path
    ) -> None:
        attacker.run("os.symlink(*sys.argv[1:])", secret.parent, his / "Logs")

        with pytest.raises(OSError, match="A link of another account"):
            log_in(his / "Logs")

        assert untouched(secret)

    def test_the_log_never_follows_a_link_that_comes_and_goes(
        attacker: Attacker, his: Path, secret: Path
    ) -> None:
        race = """
name, target = sys.argv[1:]
print("ready", flush=True)
while True:
    try:
        os.symlink(target, name)
    except FileExistsError:
        try:
            os.unlink(name)
        except FileNotFoundError:
            pass
"""
        with attacker.running(race, his / FILE_NAME, secret) as process:
            assert process.stdout
            process.stdout.readline()
            for _ in range(ROUNDS):
                try:
                    log_in(his)
                except OSError:
                    continue  # he was faster, and the run goes on without a log

        assert untouched(secret)

    # Modes and owners

    def test_a_webroots_owner_opens_no_file_of_roots(
        attacker: Attacker, his: Path, secret: Path, ground: Path
    ) -> None:
        (his / FOLDERS[-1]).mkdir(parents=True)
        for name in FOLDERS:
            os.chown(his / name, attacker.uid, attacker.uid)
        webroot = Webroot(his, ground / "journal")

        with attacker.running(RACE, his / FOLDERS[-1] / "token", secret) as process:
            assert process.stdout
            process.stdout.readline()
            for _ in range(ROUNDS):
                try:
                    with webroot.present({"token": "token.text"}):
                        pass
                except Error:
                    continue  # he was faster
                assert untouched(secret)

        assert untouched(secret)

    def test_apps_owner_opens_no_file_of_roots(
        attacker: Attacker, his: Path, secret: Path
    ) -> None:
        ini = his / "MDaemon.ini"
        with attacker.running(RACE_FOR_NEW_FILES, his, secret) as process:
            assert process.stdout
            process.stdout.readline()
            for number in range(ROUNDS):
                ini.unlink(missing_ok=True)
                ini.write_bytes(b"%d" % number)
                ini.chmod(0o666)
                os.chown(ini, attacker.uid, attacker.uid)
                try:
                    edits = files.Edits(
                        {ini: lambda data: data + b"x"},
                        read=lambda path: disk.read_limited(path, 1000),
                        merge=lambda *contents: contents[-1],
                    )
                    edits.make()
                    edits.settle()
                except (Error, OSError, ValueError):
                    continue  # he was faster
                assert untouched(secret)

        assert untouched(secret)

    def test_what_only_root_may_read_is_not_copied_for_all(
        his: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # His file is there while the status is read, and root's while the content is.
        ini, open_one = his / "MDaemon.ini", his / "open"
        ini.write_bytes(SECRET)
        ini.chmod(0o600)
        open_one.write_bytes(b"his")
        open_one.chmod(0o666)
        edits = files.Edits(
            {ini: lambda data: data + b"x"},
            read=lambda path: disk.read_limited(path, 1000),
            merge=lambda *contents: contents[-1],
        )
        ini.rename(his / "aside")
        open_one.rename(ini)
        seen: list[tuple[bytes, int]] = []
        create = handles.Folder.create

        def looked_at(
            self: handles.Folder, name: str, data: bytes, **more: int
        ) -> None:
            create(self, name, data, **more)  # type: ignore[arg-type]
            seen.append((data, stat.S_IMODE(self.status(name).st_mode)))

        monkeypatch.setattr(handles.Folder, "create", looked_at)
        edits.make()

        assert seen == [(b"hisx", 0o666)]

    # Other files

    def test_an_ini_file_that_is_his_link_is_neither_read_nor_replaced(
        attacker: Attacker, his: Path, secret: Path
    ) -> None:
        attacker.run("os.symlink(*sys.argv[1:])", secret, his / "MDaemon.ini")

        with pytest.raises(DeployError, match="A link of another account"):
            files.Edits(
                {his / "MDaemon.ini": lambda data: data + b"x"},
                read=lambda path: disk.read_limited(path, 1000),
                merge=lambda *contents: contents[-1],
            )
        with pytest.raises(OSError, match="A link of another account"):
            disk.read_limited(his / "MDaemon.ini", 1000)

        assert untouched(secret)

    def test_a_link_to_a_link_of_his_is_not_followed_either(
        attacker: Attacker, his: Path, secret: Path
    ) -> None:
        attacker.run("os.symlink(*sys.argv[1:])", secret.parent, his / "way")
        (his.parent / "ours").symlink_to(his / "way" / "secret")

        with pytest.raises(OSError, match="A link of another account"):
            disk.read_limited(his.parent / "ours", 1000)

    @pytest.mark.parametrize(
        "write", ["private", "folder", "semaphore", "mail", "lock"]
    )
    def test_nothing_is_written_into_a_folder_that_is_his_link(
        attacker: Attacker, his: Path, secret: Path, write: str
    ) -> None:
        attacker.run("os.symlink(*sys.argv[1:])", secret.parent, his / "way")
        way = his / "way"

        def mail() -> None:
            RawQueue(lambda: way).send(Mail.compose("a@b.test", ["c@d.test"], "x", []))

        def semaphore() -> None:
            problem = Semaphores(way, [], 0).problem("RELOAD.SEM")
            raise Error(problem, hint="")

        def lock() -> None:
            with locks.courtesy_lock(way / "MDaemon.ini", timeout=0):
                pytest.fail("it was locked")

        acts = {
            "private": lambda: disk.write_private(way / "state.json", b"x"),
            "folder": lambda: disk.make_private_folder(way / "one" / "two"),
            "semaphore": semaphore,
            "mail": mail,
            "lock": lock,
        }
        with pytest.raises((OSError, Error), match="A link of another account"):
            acts[write]()

        assert untouched(secret)

    def test_a_lock_that_has_a_second_name_is_refused(his: Path, secret: Path) -> None:
        os.link(secret, his / "lock")

        with (
            pytest.raises(Error, match="Could not open"),
            locks.exclusive_lock(his / "lock"),
        ):
            pytest.fail("it was locked")

        (his / "lock").unlink()
        assert untouched(secret)

    def test_a_lock_that_is_a_pipe_is_refused_without_waiting(
        attacker: Attacker, his: Path
    ) -> None:
        attacker.run("os.mkfifo(sys.argv[1])", his / "lock")

        def lock() -> None:
            with (
                pytest.raises(Error, match="Could not open"),
                locks.exclusive_lock(his / "lock"),
            ):
                pytest.fail("it was locked")

        in_time(lock)

    def test_a_link_of_roots_is_followed(ground: Path, secret: Path) -> None:
        (ground / "way").symlink_to(secret.parent)
        disk.write_private(ground / "way" / "new", b"x")

        assert secret.with_name("new").read_bytes() == b"x"

    def test_a_loop_of_links_is_refused(ground: Path) -> None:
        (ground / "one").symlink_to(ground / "two")
        (ground / "two").symlink_to(ground / "one")

        with pytest.raises(OSError, match="Too many levels"):
            disk.read_limited(ground / "one" / "file", 100)
        with pytest.raises(OSError, match="Too many levels"):
            disk.read_limited(ground / "one", 100)


# He puts a link to root's file in the place of the one just made.
RACE = """
name, target = sys.argv[1:]
link = name + ".link"
print("ready", flush=True)
while True:
    try:
        os.stat(name)
        os.symlink(target, link)
        os.rename(link, name)
        while os.path.lexists(name):
            os.unlink(name)
    except OSError:
        pass
"""
RACE_FOR_NEW_FILES = """
folder, target = sys.argv[1:]
link = os.path.join(folder, "link")
print("ready", flush=True)
while True:
    for name in os.listdir(folder):
        if name.endswith(".tmp"):
            try:
                os.symlink(target, link)
                os.rename(link, os.path.join(folder, name))
            except OSError:
                pass
"""
