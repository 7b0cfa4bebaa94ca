"""The folder for servers without Python, as packaging/windows makes it."""

from __future__ import annotations

import getpass
import hashlib
from pathlib import Path

from letsencrypt_mdaemon import __version__
from tests.program import LOCALHOST, beside_sandbox
from tests.servers import free_port
from tests.windows.across.frozen import MACHINE, freeze, frozen

SYSTEM32 = MACHINE / "prefix" / "drive_c" / "windows" / "system32"


def test_a_build_for_release_refuses_what_stands_in_for_files_of_windows(
    folder: Path, work: Path, tmp_path: Path
) -> None:
    assert folder.is_dir()
    made = freeze(work, tmp_path)
    assert made.exit_code == 1
    assert "must not be released" in made.messages
    assert "python3.dll" in made.messages
    assert "bcryptprimitives.dll" in made.messages
    assert not list(tmp_path.iterdir())


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
        here = ["--mdaemon-dir", f"Z:{layout.folder}", "--json"]
        pem = ["--store", f"pem:Z:{layout.certificates}"]
        # Wine knows no sticky bit: others could rename what is in /tmp.
        here += ["--state-dir", rf"C:\users\{getpass.getuser()}\Temp\{tmp_path.name}"]
        shown = frozen(folder, "config", "show", *here)
        status = frozen(folder, "status", *here, *pem)
        # The sandbox's certificate is not in the store that Windows has.
        unknown = frozen(folder, "status", *here, "--store", "windows")
        ca = ["--directory-url", f"https://{LOCALHOST}:{free_port()}/", "--agree-tos"]
        renewed = frozen(folder, "renew", *here, *pem, *ca, "--skip-port-check")
    given = shown.report["settings"]["mdaemon-dir"]
    assert given["from"] == "command line --mdaemon-dir"
    assert status.exit_code == 0, status.messages
    assert unknown.exit_code == 0, unknown.messages
    assert not any(row["certificate"] for row in unknown.report["targets"])
    assert renewed.exit_code == 3
    assert renewed.report["error"]["type"] == "TransientError"


def test_it_imports_nothing_from_where_it_is_started(
    folder: Path, tmp_path: Path
) -> None:
    for name in ("click", "encodings", "letsencrypt_mdaemon", "site"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(77)")
    version = frozen(folder, "--version", planted=tmp_path)
    assert version.output == f"letsencrypt-mdaemon, version {__version__}\n"


def test_it_renews_in_the_demonstration(folder: Path) -> None:
    shown = frozen(folder, "demo")
    assert shown.exit_code == 0, shown.output
    assert "All checks passed." in shown.output
