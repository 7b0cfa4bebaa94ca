"""The installation is found, its host name is not guessed, semaphores are polite."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.mdaemon import folders
from letsencrypt_mdaemon.mdaemon.folders import Place
from letsencrypt_mdaemon.mdaemon.server import MailServer, Semaphores
from tests.fakes import huge, read_only, unreadable, watched
from tests.wine import wine_differs

if TYPE_CHECKING:
    from letsencrypt_mdaemon.mdaemon.bindings import Bindings


def install(root: Path, ini: str = "", *, app: str = "App") -> Path:
    """Make the least that counts as an MDaemon."""
    (root / app).mkdir(parents=True)
    (root / app / "MDaemon.ini").write_bytes(ini.replace("\n", "\r\n").encode())
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return install(tmp_path / "MDaemon")


def tell(ini: Path, text: str) -> None:
    ini.write_bytes(text.replace("\n", "\r\n").encode())


# Where it is


def test_only_the_folder_that_was_named_is_looked_at(tmp_path: Path) -> None:
    assert folders.places(tmp_path, "--mdaemon-dir") == [
        Place(tmp_path, "--mdaemon-dir")
    ]


def test_without_a_word_the_default_folder_is_looked_at_last() -> None:
    *_, last = folders.places(None, "")
    assert last == Place(Path("C:/MDaemon"), "the default folder")


@pytest.mark.parametrize("app", ["App", "APP", "app"])
def test_the_server_is_found_whatever_case_its_folder_has(
    tmp_path: Path, app: str
) -> None:
    root = install(tmp_path / "MDaemon", app=app)
    assert folders.find([Place(root, "")]) == root


@pytest.mark.parametrize("app", ["App", "APP"])
def test_the_folder_app_itself_may_be_named(tmp_path: Path, app: str) -> None:
    # As the registry does.
    root = install(tmp_path / "MDaemon", app=app)
    assert folders.find([Place(root / app, "")]) == root


def test_the_file_mdaemon_ini_itself_may_be_named(tmp_path: Path) -> None:
    root = install(tmp_path / "MDaemon")
    assert folders.find([Place(root / "App" / "MDaemon.ini", "")]) == root


def test_a_server_in_a_folder_called_app_is_found(tmp_path: Path) -> None:
    root = install(tmp_path / "app")
    assert folders.find([Place(root, "")]) == root


def test_the_first_place_that_has_a_server_wins(tmp_path: Path) -> None:
    places = [
        Place(tmp_path / "none", "a"),
        Place(install(tmp_path / "one"), "b"),
        Place(install(tmp_path / "two"), "c"),
    ]
    assert folders.find(places) == tmp_path / "one"


def test_if_there_is_no_server_the_error_says_where_it_looked_and_what_was_missing(
    tmp_path: Path,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "half" / "App").mkdir(parents=True)
    (tmp_path / "file").touch()
    install(tmp_path / "odd")
    (tmp_path / "odd" / "App" / "MDaemon.ini").unlink()
    (tmp_path / "odd" / "App" / "MDaemon.ini").mkdir()
    missing = {
        "gone": ("gone", "does not exist"),
        "empty": ("empty/App", "does not exist"),
        "half": ("half/App/MDaemon.ini", "does not exist"),
        "file": ("file", "has the wrong type"),
        "odd": ("odd/App/MDaemon.ini", "has the wrong type"),
    }
    with pytest.raises(ConfigError) as caught:
        folders.find([Place(tmp_path / name, f"said {name}") for name in missing])
    assert caught.value.message.splitlines() == [
        "Could not find MDaemon. Checked:",
        *(
            f"  - {tmp_path / name} (said {name}): {tmp_path / path} {why}"
            for name, (path, why) in missing.items()
        ),
    ]
    assert "--mdaemon-dir" in caught.value.hint


def test_what_is_not_there_keeps_the_name_it_was_given(root: Path) -> None:
    assert folders.child(root, "app", "New.SEM") == root / "App" / "New.SEM"
    assert folders.child(root, "None", "MDaemon.ini") == root / "None" / "MDaemon.ini"


def test_an_exact_name_goes_before_one_in_another_case(tmp_path: Path) -> None:
    (tmp_path / "APP").mkdir()
    (tmp_path / "App").mkdir(exist_ok=True)  # the same on Windows
    assert folders.child(tmp_path, "App") == tmp_path / "App"


def test_a_file_below_the_server_is_found_by_either_slash(root: Path) -> None:
    ini = root / "App" / "MDaemon.ini"
    assert folders.file_below(root, r"app\mdaemon.INI") == ini
    assert folders.file_below(root, "App/MDaemon.ini") == ini


@pytest.mark.parametrize("name", ["../x.ini", r"App\..\..\x.ini", "App/../../x.ini"])
def test_a_name_that_leads_out_of_the_server_is_refused(root: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="leads out of"):
        folders.file_below(root, name)


@wine_differs("its symbolic links lead nowhere")
def test_a_link_that_leads_out_of_the_server_is_refused(
    root: Path, tmp_path: Path
) -> None:
    (tmp_path / "else").mkdir()
    (root / "linked").symlink_to(tmp_path / "else", target_is_directory=True)
    with pytest.raises(ConfigError, match="leads out of"):
        folders.file_below(root, "linked/x.ini")


def test_a_circle_of_links_is_no_way_into_the_server(root: Path) -> None:
    (root / "circle").symlink_to(root / "circle")
    assert not folders.file_below(root, "circle/x.ini").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Path.resolve, "does not exist"),
        (Path.mkdir, "it is a folder"),
        (huge, "it is larger than"),
    ],
)
def test_an_ini_file_that_is_none_is_an_error_with_its_name(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "X.ini"
    make(path)
    with pytest.raises(ConfigError, match=message) as caught:
        folders.read_ini(path)
    assert str(path) in caught.value.message


def test_an_ini_file_that_cannot_be_read_is_an_error_with_its_name(root: Path) -> None:
    path = root / "App" / "MDaemon.ini"
    with unreadable(path), pytest.raises(ConfigError, match="Permission") as caught:
        folders.read_ini(path)
    assert str(path) in caught.value.message


# The RAW queue


@pytest.mark.parametrize(
    "value",
    [
        r"C:\MDaemon\Queues\Raw",
        r"c:\mdaemon\queues\RAW\\"[:-1],
        r'"C:\MDaemon\Queues\Raw"',
        r"\\server\share\MDaemon\Queues\Raw",
        r"Queues\Raw",
        r"D:\elsewhere\Raw",
    ],
)
def test_the_raw_queue_is_found_below_the_mounted_folder(
    root: Path, value: str
) -> None:
    # As seen from another machine. Only the last one stands where it says it does.
    queue = root / ("Raw" if "elsewhere" in value else "Queues/Raw")
    queue.mkdir(parents=True)
    tell(root / "App" / "MDaemon.ini", f"[Directories]\nRaw={value}\n")
    assert folders.raw_queue(root) == queue


def test_the_raw_queue_may_be_far_from_the_server(root: Path, tmp_path: Path) -> None:
    queue = tmp_path / "Spool"
    queue.mkdir()
    tell(root / "App" / "MDaemon.ini", f"[directories]\nRAW = {queue}\n")
    assert folders.raw_queue(root) == queue


@pytest.mark.parametrize("ini", ["", "[Directories]\nRaw=\n", "[Other]\nRaw=C:\\x\n"])
def test_without_its_key_there_is_no_raw_queue(root: Path, ini: str) -> None:
    tell(root / "App" / "MDaemon.ini", ini)
    with pytest.raises(ConfigError, match=r"has no \[Directories\] Raw") as error:
        folders.raw_queue(root)
    assert "mail-server = smtp://" in error.value.hint


@pytest.mark.parametrize(
    "value", [r"C:\MDaemon\Queues\Raw", "..", r"..\..", "\\", ".", "a\0b", '""', "C:"]
)
def test_a_raw_queue_that_is_not_there_is_an_error(root: Path, value: str) -> None:
    tell(root / "App" / "MDaemon.ini", f"[Directories]\nRaw={value}\n")
    with pytest.raises(ConfigError, match="which does not exist"):
        folders.raw_queue(root)


# Semaphores


class Ear:
    """A server that looks for semaphores whenever somebody waits.

    Args:
        deaf: Those it does not take up.
    """

    def __init__(self, app: Path, *deaf: str) -> None:
        self.app = app
        self.deaf = deaf
        self.heard: list[str] = []
        self.waited = 0

    def __call__(self, _: float) -> None:
        self.waited += 1
        found = [path for path in self.app.iterdir() if path.suffix == ".SEM"]
        assert len(found) == 1, "one at a time"
        if found[0].name not in self.deaf:
            assert found[0].read_bytes() == b""
            found[0].unlink()
            self.heard.append(found[0].name)


NAMES = ("RELOADCACHE.SEM", "RESTARTWC.SEM")


@pytest.fixture
def app(root: Path) -> Path:
    return root / "App"


def never(_: float) -> None:
    pytest.fail("waited for nothing")


def semaphores(app: Path, server: Callable[[float], None]) -> Semaphores:
    return Semaphores(app, NAMES, timeout=2, sleep=server)


def reload(made: Semaphores, *, running: bool) -> Iterator[str]:
    """Take one semaphore after the other, as a run does."""
    bindings = cast("Bindings", None)
    server = MailServer(
        bindings,
        made,
        running=lambda: running,
        own_folders=[],
        look_everywhere=lambda: ((), ()),
    )
    for name in server.ladder():
        if not server.take(name):
            return
        yield name


def left(app: Path) -> list[str]:
    return sorted(path.name for path in app.iterdir() if path.suffix == ".SEM")


def test_semaphores_are_put_there_one_after_the_other_gentlest_first(app: Path) -> None:
    server = Ear(app)
    reloading = reload(semaphores(app, server), running=True)
    assert server.heard == []
    assert next(reloading) == NAMES[0]
    assert server.heard == [NAMES[0]]
    assert list(reloading) == [NAMES[1]]
    assert server.heard == list(NAMES)


def test_the_caller_may_stop_after_a_gentle_one(app: Path) -> None:
    server = Ear(app)
    reloading = reload(semaphores(app, server), running=True)
    assert isinstance(reloading, Iterator)
    assert next(reloading) == NAMES[0]
    del reloading
    assert server.heard == [NAMES[0]]
    assert left(app) == []


def test_a_server_that_takes_its_time_is_waited_for(app: Path) -> None:
    server = Ear(app)
    looks = iter([False] * 19)
    patient = semaphores(app, lambda _: server(_) if next(looks, True) else None)
    assert list(reload(patient, running=True)) == list(NAMES)


def test_a_semaphore_that_is_not_taken_up_is_withdrawn_and_said(
    app: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = Ear(app, "RELOADCACHE.SEM")
    assert list(reload(semaphores(app, server), running=True)) == []
    assert left(app) == []
    assert server.waited == 20
    (message,) = caplog.messages
    assert message == (
        "MDaemon did not process RELOADCACHE.SEM within 2 s. MDaemon uses the "
        "certificate that its files name after its next start. If it runs, restart it."
    )


def test_a_semaphore_taken_up_at_the_last_moment_counts(app: Path) -> None:
    taken: list[str] = []

    def take(path: Path) -> None:
        # It vanishes between our last look and our removing it.
        if path.exists() and path.name not in taken:
            taken.append(path.name)
            path.unlink()

    with watched(app, take):
        silent = semaphores(app, lambda _: None)
        assert list(reload(silent, running=True)) == list(NAMES)
    assert taken == list(NAMES)


def test_waiting_is_shown_as_progress(
    app: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert list(reload(semaphores(app, Ear(app)), running=True)) == list(NAMES)
    shown = [
        (record.getMessage(), vars(record).get("progress", False))
        for record in caplog.records
    ]
    assert shown == [
        row
        for name in NAMES
        for row in (
            (f"waiting for MDaemon to process {name}", True),
            (f"MDaemon processed {name}", False),
        )
    ]


@pytest.mark.parametrize("lock", ["LOCKSEMS.SEM", "LockSems.sem"])
@pytest.mark.parametrize("running", [True, False])
def test_nothing_is_asked_while_semaphores_are_locked(
    app: Path, caplog: pytest.LogCaptureFixture, lock: str, *, running: bool
) -> None:
    (app / lock).touch()
    assert list(reload(semaphores(app, never), running=running)) == []
    assert [path.name for path in app.iterdir() if path.suffix.lower() == ".sem"] == [
        lock
    ]
    said = os.path.normcase(f"{app / lock} forbids semaphores")
    assert said in os.path.normcase(caplog.text)
    assert "restart it" in caplog.text


def test_nothing_more_is_asked_once_semaphores_are_locked(
    app: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reloading = reload(semaphores(app, Ear(app)), running=True)
    assert next(reloading) == NAMES[0]
    (app / "LOCKSEMS.SEM").touch()
    assert list(reloading) == []
    assert left(app) == ["LOCKSEMS.SEM"]
    assert "Could not create RESTARTWC.SEM" in caplog.text


def test_a_server_that_may_not_run_is_probed_first(app: Path) -> None:
    server = Ear(app)
    assert list(reload(semaphores(app, server), running=False)) == list(NAMES)
    assert server.heard == ["WATCHDOG.SEM", *NAMES]


def test_a_server_that_does_not_run_is_asked_for_nothing_but_the_probe(
    app: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen = set()
    silent = semaphores(app, lambda _: seen.update(left(app)))
    assert list(reload(silent, running=False)) == []
    assert seen == {"WATCHDOG.SEM"}
    assert left(app) == []
    assert "did not process WATCHDOG.SEM" in caplog.text
    assert "after its next start" in caplog.text


def test_a_semaphore_that_somebody_else_put_there_stays(
    app: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (app / "RELOADCACHE.SEM").write_bytes(b"theirs")
    silent = semaphores(app, lambda _: None)
    assert list(reload(silent, running=True)) == []
    assert (app / "RELOADCACHE.SEM").read_bytes() == b"theirs"
    assert left(app) == ["RELOADCACHE.SEM"]
    assert "already existed" in caplog.text


@wine_differs("its symbolic links lead nowhere")
def test_a_semaphore_put_there_while_we_look_stays(
    app: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Twice(Ear):
        def __call__(self, seconds: float) -> None:
            super().__call__(seconds)
            (self.app / self.heard[-1]).symlink_to(self.app / "dangling")

    (app / NAMES[0]).touch()
    assert list(reload(semaphores(app, Twice(app)), running=True)) == []
    assert (app / NAMES[0]).is_symlink()
    assert "Another program created" in caplog.text


def test_after_somebody_elses_semaphore_we_put_our_own(app: Path) -> None:
    # The server may have read its files for that one before they were changed.
    (app / "RELOADCACHE.SEM").touch()
    server = Ear(app)
    assert list(reload(semaphores(app, server), running=True)) == list(NAMES)
    assert server.heard == ["RELOADCACHE.SEM", *NAMES]


def test_a_semaphore_is_withdrawn_when_the_run_is_interrupted(app: Path) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    reloading = reload(semaphores(app, interrupt), running=True)
    with pytest.raises(KeyboardInterrupt):
        next(reloading)
    assert left(app) == []


def test_a_semaphore_that_cannot_be_written_is_a_warning(
    app: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with read_only(app):
        assert list(reload(semaphores(app, never), running=True)) == []
    (message,) = caplog.messages
    assert message.startswith(f"Could not write {app / NAMES[0]}: Permission denied.")


def test_a_semaphore_that_cannot_be_withdrawn_is_a_warning(
    app: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with read_only(app, allowed=1):
        silent = semaphores(app, lambda _: None)
        assert list(reload(silent, running=True)) == []
    assert f"Could not remove {app / NAMES[0]}: Permission denied" in caplog.text
