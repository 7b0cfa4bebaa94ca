"""The setup program: what it does to Windows, what it refuses, and what it leaves."""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from letsencrypt_mdaemon import __version__
from letsencrypt_mdaemon.system import drop_in
from letsencrypt_mdaemon.system.tasks import task
from tests.limits import HANG_SECONDS
from tests.program import beside_sandbox, environment
from tests.windows.across import nsis
from tests.windows.across.conftest import DRIVE, windows
from tests.windows.across.frozen import NAME, PACKAGING, WINE

HERE = Path(__file__).parent
WINDOWS = DRIVE / "windows"
MDAEMON = DRIVE / "MDaemon"
INSTALLED = DRIVE / "Program Files" / NAME
EXE = INSTALLED / f"{NAME}.exe"
FOLDER = rf"C:\Program Files\{NAME}"
UNINSTALL = rf"{FOLDER}\uninstall.exe"
KEY = rf"HKLM\Software\Microsoft\Windows\CurrentVersion\Uninstall\{NAME}"
LOG = WINDOWS / "logs" / f"{NAME}-setup.log"
LINK = DRIVE / "ProgramData/Microsoft/Windows/Start Menu/Programs" / f"{NAME} setup.lnk"
RECORDED = DRIVE / "recorder.log"
LONG = ";".join(["%SystemRoot%\\system32", "%SystemRoot%", *["C:\\some folder"] * 250])
STRING, EXPANDED, NUMBER = 1, 2, 4  # REG_SZ, REG_EXPAND_SZ, REG_DWORD
Nsis = tuple[str, dict[str, str]]


def start(*command: str, output: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    """Start a program of Windows."""
    return subprocess.Popen(
        ["wine", *command],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.DEVNULL,
        encoding="cp1252",
        env={**environment(), **WINE},
    )


def run(*command: str) -> int:
    """Run a program of Windows to its end."""
    return end(start(*command))


def end(program: subprocess.Popen[str]) -> int:
    """Wait for the end of a program; return its exit code."""
    program.communicate("", HANG_SECONDS)
    return program.returncode


def remove(*options: str, folder: str = FOLDER) -> None:
    """Remove what is installed; the uninstaller goes on in a copy of itself."""
    before = log()
    assert run(rf"{folder}\uninstall.exe", "/S", *options) == 0
    latest = time.monotonic() + HANG_SECONDS
    while not re.search("Nothing renews|Ended with", log().removeprefix(before)):
        assert time.monotonic() < latest
        time.sleep(0.05)


def version() -> str:
    """Return which version Apps & features shows."""
    query = ("reg", "query", KEY, "/v", "DisplayVersion", "/reg:64")
    shown = start(*query, output=subprocess.PIPE).communicate("", HANG_SECONDS)[0]
    found = re.search(r"REG_SZ\s+(\S+)", shown)
    return found[1] if found else ""


def pressed(line: str, answer: str = "no") -> dict[str, Any]:
    """Run a setup program with its window; return its exit code and all texts."""
    shown = json.loads(windows(str(HERE / "windows_buttons.py"), line, answer))
    assert isinstance(shown, dict)
    return shown


def registry(*path: str) -> dict[str, Any]:
    """Return what a setup program writes there."""
    shown = json.loads(windows(str(HERE / "windows_registry.py"), *path))
    assert isinstance(shown, dict)
    return shown


def log() -> str:
    return LOG.read_text("utf-16") if LOG.exists() else ""


def recorded() -> str:
    """Return what our stand-ins were started with, since this was last asked."""
    text = RECORDED.read_text() if RECORDED.exists() else ""
    RECORDED.unlink(missing_ok=True)
    return text


def content(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def makensis(request: pytest.FixtureRequest) -> Nsis:
    cache = request.config.cache
    assert cache is not None
    return nsis.find(cache.mkdir("debian"))


@pytest.fixture(scope="module", autouse=True)
def _awake() -> Iterator[None]:
    """Keep Wine running, whose start takes longer than that of what runs in it."""
    prompt = start("cmd")
    yield
    prompt.communicate("exit\n", HANG_SECONDS)


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    """Leave Windows as it was."""
    yield
    (DRIVE / f"recorder-{NAME}.txt").unlink(missing_ok=True)
    if (INSTALLED / "uninstall.exe").exists():
        remove()
    shutil.rmtree(INSTALLED, ignore_errors=True)
    for file in (LOG, RECORDED, LINK):
        file.unlink(missing_ok=True)
    assert not version()


# A program that only writes down what it is told: quick, and fails as it is told


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stand-in")
    shutil.copy(DRIVE / "recorder.exe", folder / f"{NAME}.exe")
    (folder / "_internal").mkdir()
    (folder / "_internal" / "old").write_bytes(b"old")
    return folder


@pytest.fixture(scope="module")
def first(
    makensis: Nsis, stand_in: Path, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Return a setup program; what signs it adds a few bytes."""
    folder = tmp_path_factory.mktemp("first")
    files = shutil.copytree(stand_in, folder / "files")
    signer = folder / "sign"
    signer.write_text('#!/bin/sh\nprintf "a signature" >> "$1"\n')
    signer.chmod(0o755)
    made = nsis.make(
        *(makensis, files, folder, "0.9.0"),
        *("--sign", f'"{signer}" "%1"'),
    )
    return str(made)


@pytest.fixture(scope="module")
def second(
    makensis: Nsis, stand_in: Path, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Return the setup program of the next version, with other files."""
    folder = tmp_path_factory.mktemp("second")
    shutil.copytree(stand_in, folder / "files")
    (folder / "files/_internal/old").rename(folder / "files/_internal/new")
    version = "0.10.0rc1"
    return str(nsis.make(makensis, folder / "files", folder, version))


def answers(code: int) -> None:
    """Let the stand-in end with this exit code."""
    (DRIVE / f"recorder-{NAME}.txt").write_text(f"{code}\nsaid so\n")


def files() -> list[str]:
    """Return what is installed."""
    return sorted(content(INSTALLED))


OLD = ["_internal/old", f"{NAME}.exe", "uninstall.exe"]
NEW = ["_internal/new", f"{NAME}.exe", "uninstall.exe"]


def test_a_window_leads_through_installation_and_removal(first: str) -> None:
    there = pressed(f'"Z:{first}"')

    assert there["code"] == 0
    seen = "\n".join(there["seen"])
    assert "Completing letsencrypt-mdaemon 0.9.0 Setup" in seen
    assert "Set up the certificate now" in seen
    assert FOLDER in seen
    assert files() == OLD
    assert recorded().splitlines()[-1].endswith(" add-to-windows")

    # What signs gets the program and the uninstaller, too.
    assert EXE.read_bytes().endswith(b"a signature")
    assert (INSTALLED / "uninstall.exe").read_bytes().endswith(b"a signature")
    assert Path(first).read_bytes().endswith(b"a signature")

    gone = pressed(f'"{UNINSTALL}" _?={FOLDER}', "yes")
    assert gone["code"] == 0
    seen = "\n".join(gone["seen"])
    assert "Also delete the history" in seen
    assert "Nothing renews MDaemon's certificate from now on." in seen
    assert recorded().splitlines()[-1].endswith(" remove-from-windows --delete-state")
    assert files() == ["uninstall.exe"]  # it runs from there


def test_an_upgrade_takes_the_place_of_all_files_and_a_downgrade_is_refused(
    first: str, second: str
) -> None:
    assert run(first, "/S") == 0
    (INSTALLED / "mine.txt").write_bytes(b"mine")
    assert run(second, "/S") == 0
    assert files() == sorted([*NEW, "mine.txt"])
    assert (
        "Installing 0.10.0rc1 in C:\\Program Files\\letsencrypt-mdaemon, in place"
        in (log())
    )
    before = content(INSTALLED)

    assert run(first, "/S") == 4

    assert content(INSTALLED) == before
    assert "The newer version 0.10.0rc1 is installed" in log()
    assert version() == "0.10.0rc1"
    recorded()
    remove("/DELETESTATE")
    assert recorded().splitlines() == [
        rf'"{FOLDER}\{NAME}.exe" remove-from-windows --delete-state'
    ]
    assert files() == ["mine.txt"]


def test_a_new_program_that_does_not_run_changes_nothing(
    first: str, second: str
) -> None:
    assert run(first, "/S") == 0
    before = content(INSTALLED)
    answers(3)

    assert run(second, "/S") == 7

    assert content(INSTALLED) == before
    assert "The new program does not run on this computer (3)" in log()
    assert version() == "0.9.0"
    # Nor is it removed, if what it has in Windows cannot be.
    remove()
    assert content(INSTALLED) == before
    assert "said so" in log()
    assert log().rstrip().endswith("Ended with 7.")


def test_a_program_in_use_is_waited_for_and_then_left(first: str, second: str) -> None:
    assert run(first, "/S") == 0
    before = content(INSTALLED)
    # As a process does that runs it: others may read it, not write.
    held = (
        "import sys, win32file as w; "
        rf"f = w.CreateFile(r'{FOLDER}\{NAME}.exe', 0x80000000, 1, None, 3, 0, None); "
        "print('held', flush=True); sys.stdin.read()"
    )
    python = rf"Z:{os.environ['WINDOWS_MACHINE']}\python\python.exe"
    holder = start(python, "-c", held, output=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"

    late = run(second, "/S", "/WAIT=1")
    gone = pressed(f'"{UNINSTALL}" /S /WAIT=1 _?={FOLDER}')["code"]

    holder.communicate("")
    assert (late, gone) == (5, 5)
    assert content(INSTALLED) == before
    assert "Waiting up to 1 seconds for that run to end." in log()
    assert run(second, "/S") == 0
    assert files() == NEW


def test_another_folder_is_for_a_first_installation_only(
    first: str, second: str
) -> None:
    other = DRIVE / "elsewhere"
    assert run(first, "/S", r"/D=C:\elsewhere") == 0
    try:
        assert sorted(content(other)) == OLD
        assert run(second, "/S", r"/D=C:\third") == 6
        assert not (DRIVE / "third").exists()
        assert run(second, "/S") == 0
        assert (other / "_internal" / "new").exists()
        assert not INSTALLED.exists()
    finally:
        remove(folder=r"C:\elsewhere")
    assert not other.exists()


def test_what_a_killed_setup_left_is_put_right(first: str, second: str) -> None:
    assert run(first, "/S") == 0
    # It was killed between the two names that it gave the new program.
    (INSTALLED / "old").mkdir()
    EXE.rename(INSTALLED / "old" / EXE.name)
    (INSTALLED / "_internal").rename(INSTALLED / "old" / "_internal")
    (INSTALLED / "_internal").mkdir()
    (INSTALLED / "_internal" / "half").write_bytes(b"")
    (INSTALLED / "new").mkdir()
    (INSTALLED / "new" / "junk").write_bytes(b"")
    answers(3)

    assert run(second, "/S") == 7

    assert files() == OLD
    assert "The former program is back in its place." in log()


def test_the_folder_from_the_zip_is_taken_over(first: str, stand_in: Path) -> None:
    shutil.copytree(stand_in, INSTALLED)
    (INSTALLED / "_internal" / "older").write_bytes(b"")

    assert run(first, "/S") == 0

    assert files() == OLD


# The real program


@pytest.fixture(scope="module")
def setups(
    makensis: Nsis, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str]:
    """Return the setup program, and that of a later version, of the frozen folder."""
    work = tmp_path_factory.mktemp("setups")
    one = nsis.make(makensis, folder, work, __version__)
    shutil.copytree(folder, work / "files")
    (work / "files" / "_internal" / "later").write_bytes(b"")
    return str(one), str(nsis.make(makensis, work / "files", work, "99.0"))


@pytest.fixture
def schtasks() -> Iterator[None]:
    """Let the Task Scheduler have our task, as it shows it; Wine's shows nothing."""
    program = WINDOWS / "system32" / "schtasks.exe"
    kept = program.with_suffix(".kept")
    program.rename(kept)
    shutil.copy(DRIVE / "recorder.exe", program)
    command = [rf"{FOLDER}\{NAME}.exe", "renew", "--scheduled"]
    shown = task(command, 3, 17, "S-1-5-18").decode("utf-16")
    (DRIVE / "recorder-schtasks.txt").write_text(f"0\n{shown}")
    yield
    kept.replace(program)


@pytest.fixture
def state() -> Iterator[Path]:
    """The state folder, as Windows' program trusts one, and an MDaemon to be found."""
    folder = DRIVE / "users" / getpass.getuser() / "Temp" / f"{NAME}-state"
    yield folder
    for path in (folder, MDAEMON):
        shutil.rmtree(path, ignore_errors=True)


def is_as_installed(shown: dict[str, Any]) -> None:
    """Compare what is in the registry and the Start menu."""
    assert shown["path"] == [f"{LONG};{FOLDER}", EXPANDED]
    entry = shown["entry"]
    size = sum(map(len, content(INSTALLED).values())) // 1024
    assert entry["DisplayName"] == [NAME, STRING]
    assert entry["DisplayVersion"] == [__version__, STRING]
    assert entry["InstallLocation"] == [FOLDER, STRING]
    assert entry["QuietUninstallString"] == [f'"{UNINSTALL}" /S', STRING]
    assert entry["EstimatedSize"][1] == NUMBER
    assert abs(entry["EstimatedSize"][0] - size) < 1024
    link = LINK.read_bytes()
    assert int.from_bytes(link[20:24], "little") & 0x2000  # [MS-SHLLINK] RunAsUser
    assert "cmd.exe".encode("utf-16-le") in link or b"cmd.exe" in link
    assert f'/d /k ""{FOLDER}\\{NAME}.exe" setup"'.encode("utf-16-le") in link


def upgraded_during_a_run(setup: str) -> None:
    """Upgrade while a run, in MDaemon's folder, waits for a CA that says nothing."""
    later = INSTALLED / "_internal" / "later"
    with socket.socket() as ca:
        ca.bind(("127.0.0.1", 0))
        ca.listen()
        directory = f"https://127.0.0.1:{ca.getsockname()[1]}/"
        renewal = start(
            *(str(EXE), "renew", "--scheduled", "--delay", "0", "--json"),
            *("--directory-url", directory),
            output=subprocess.PIPE,
        )
        said, _ = ca.accept()
        upgrade = start(setup, "/S")
        while "Waiting up to 600 seconds" not in log():
            assert upgrade.poll() is None
            time.sleep(0.05)
        assert not later.exists()
        said.close()
    ended = json.loads(renewal.communicate("", HANG_SECONDS)[0])
    assert end(upgrade) == 0
    assert ended["error"]["type"] == "TransientError"
    assert later.exists()


@pytest.fixture
def _long_path() -> Iterator[None]:
    """Let the machine's PATH be longer than the texts of NSIS."""
    former = registry()["path"][0]
    registry(LONG)
    yield
    registry(former)


def test_a_new_prompt_finds_the_program(setups: tuple[str, str]) -> None:
    # With the PATH that Windows has: Wine takes no notice of a long one.
    assert run(setups[0], "/S") == 0

    prompt = start("cmd", "/c", f"{NAME} --version", output=subprocess.PIPE)

    said = prompt.communicate("", HANG_SECONDS)[0].strip()
    assert said == f"{NAME}, version {__version__}"


@pytest.mark.usefixtures("schtasks", "_long_path")
def test_from_nothing_over_an_upgrade_during_a_run_to_the_removal(
    setups: tuple[str, str], state: Path
) -> None:
    assert run(setups[0], "/S") == 0
    shown = registry()
    is_as_installed(shown)

    with beside_sandbox(MDAEMON) as program:
        layout = program.layout
        script = layout.letsencrypt / drop_in.NAME
        script.parent.mkdir(exist_ok=True)
        script.write_bytes(drop_in.script([rf"{FOLDER}\{NAME}.exe"], {}, {}))
        # The vendor's is not there: under Wine no file is trusted enough to return.
        (script.parent / f"{NAME}.ini").write_text(
            f"[{NAME}]\nstore = pem:Z:{layout.certificates}\nagree-tos = yes\n"
            rf"state-dir = C:\users\{getpass.getuser()}\Temp\{state.name}"
            "\nskip-port-check = yes\n"
        )
        ours = content(layout.letsencrypt)
        upgraded_during_a_run(setups[1])
    assert content(layout.letsencrypt) == ours
    history = content(state)
    assert history
    assert registry()["path"] == shown["path"]
    assert "/Delete" not in recorded()

    remove()

    assert not INSTALLED.exists()
    after = registry()
    assert after["path"] == [LONG, EXPANDED]
    assert (after["entry"], after["source"]) == (None, False)
    assert not LINK.exists()
    assert recorded().rstrip().endswith(f"/Delete /TN {NAME} /F")
    assert not script.exists()
    assert content(state).keys() >= history.keys()
    text = log()
    done = (
        r"Removed the scheduled task; removed C:\MDaemon\LetsEncrypt\L",
        "event source",
        "Removed.",
    )
    for part in done:
        assert part in text
    assert "Nothing renews MDaemon's certificate from now on." in text
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  Installing", text)


def test_the_program_and_its_setup_program_have_version_and_icon(
    folder: Path, setups: tuple[str, str]
) -> None:
    code = (
        "import sys, win32api; "
        r"[print(win32api.GetFileVersionInfo(p, '\\StringFileInfo\\040904B0\\' + n)) "
        "for p in sys.argv[1:] for n in ('ProductVersion', 'FileDescription')]"
    )
    shown = windows("-c", code, f"Z:{folder / NAME}.exe", f"Z:{setups[0]}")

    assert shown.splitlines() == [
        *(__version__, "Keeps the certificate of MDaemon up to date"),
        *(__version__, f"Setup of {NAME}"),
    ]
    # The biggest image of the icon, as it is drawn.
    drawn = subprocess.run(
        [
            sys.executable,
            "-c",
            "import icon, sys; sys.stdout.buffer.write(icon.icon())",
        ],
        cwd=PACKAGING,
        capture_output=True,
        check=True,
    ).stdout
    for file in (folder / f"{NAME}.exe", Path(setups[0])):
        assert drawn[-9000:-1000] in file.read_bytes()
