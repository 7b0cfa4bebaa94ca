"""The folder for servers without Python, as packaging/windows makes it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from letsencrypt_mdaemon import __version__
from tests.program import LOCALHOST, Ran, beside_sandbox, run
from tests.servers import free_port

MACHINE = Path(os.environ["WINDOWS_MACHINE"])
SYSTEM32 = MACHINE / "prefix" / "drive_c" / "windows" / "system32"
SPEC = Path(__file__).parents[3] / "packaging" / "windows" / "letsencrypt-mdaemon.spec"
WINE = {
    "WINEPREFIX": str(MACHINE / "prefix"),
    "WINEDEBUG": "-all",
    "WINEDLLOVERRIDES": "mscoree,mshtml=",
}


def freeze(folder: Path, *options: str) -> Ran:
    """Make the folder, with Python for Windows."""
    return run(
        [
            *(str(MACHINE / "wpy"), "-m", "PyInstaller", "--log-level=ERROR"),
            *(f"--distpath={folder}", f"--workpath={folder / 'work'}", str(SPEC)),
            *("--", *options),
        ]
    )


def frozen(folder: Path, *arguments: str) -> Ran:
    """Run the frozen program to its end."""
    return run(["wine", str(folder / "letsencrypt-mdaemon.exe"), *arguments], WINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder, without what stands in for files of Windows here."""
    dist = tmp_path_factory.mktemp("frozen")
    made = freeze(dist, "--leave-out-stand-ins")
    assert made.exit_code == 0, made.messages
    return dist / "letsencrypt-mdaemon"


def test_a_build_for_release_refuses_what_stands_in_for_files_of_windows(
    tmp_path: Path,
) -> None:
    made = freeze(tmp_path)
    assert made.exit_code == 1
    assert "must not be released" in made.messages
    assert "python3.dll" in made.messages
    assert "bcryptprimitives.dll" in made.messages
    assert not (tmp_path / "letsencrypt-mdaemon").exists()


def test_nothing_of_wines_and_of_the_machines_own_is_in_the_folder(
    folder: Path,
) -> None:
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    names = {path.name.lower() for path in files}
    assert "python311.dll" in names
    assert names.isdisjoint({"bcryptprimitives.dll", "python3.dll"})
    stand_ins = [*(MACHINE / "python").glob("*.exe"), *SYSTEM32.glob("python3.dll")]
    stand_ins.append(SYSTEM32 / "bcryptprimitives.dll")
    digests = {hashlib.sha256(path.read_bytes()).digest() for path in stand_ins}
    assert len(digests) == 3
    for path, content in files.items():
        assert hashlib.sha256(content).digest() not in digests, path
        assert b"Wine builtin DLL" not in content[:512], path
        assert b"Wine placeholder DLL" not in content[:512], path


def test_it_says_its_version_and_its_commands(folder: Path) -> None:
    version = frozen(folder, "--version")
    assert version.output == f"letsencrypt-mdaemon, version {__version__}\n"
    assert "renew" in frozen(folder, "--help").output


def test_it_works_as_far_as_the_ca_without_python(folder: Path, tmp_path: Path) -> None:
    with beside_sandbox(tmp_path / "MDaemon") as program:
        layout = program.layout
        options = [
            *("--mdaemon-dir", f"Z:{layout.folder}", "--store", ""),
            *("--smtp-address", f"{LOCALHOST}:{program.server.smtp_port}"),
            *("--directory-url", f"https://{LOCALHOST}:{free_port()}/directory"),
            *("--agree-tos", "--skip-port-check"),
        ]
        shown = frozen(folder, "config", "show", *options, "--json")
        status = frozen(folder, "status", *options, "--json")
        renewed = frozen(folder, "renew", *options, "--json")
    assert shown.report["settings"]["agree-tos"]["from"] == "command line"
    assert status.exit_code == 0, status.messages
    assert renewed.exit_code == 3
    assert renewed.report["error"]["type"] == "AcmeError"
