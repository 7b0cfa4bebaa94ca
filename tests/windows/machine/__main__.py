"""Make the machine, and say how long each step took."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = HERE.parent
PACKAGING = HERE.parents[2] / "packaging" / "windows"
PACKAGES = ("wine", "wine64", "gcc-mingw-w64-x86-64-win32")
WINE = "wine-8.0"
PANDA3D = "1.10.16"
PANDA3D_SHA256 = "37acfb92655c4226879f95c988e2ef1449a53c54486d6c1ebc00e2772429af82"
PYTHON_DLL_SHA256 = "0817a2a657a24c0d5fbb60df56960f42fc66b3039d522ec952dab83e2d869364"
LIBRARIES = ("libffi-8.dll", "libcrypto-3.dll", "libssl-3.dll", "sqlite3.dll")
PATIENCE = 600
MINGW = "x86_64-w64-mingw32-"
RUNNER = """\
#!/bin/bash
# Python for Windows. Wine cannot use a file as standard input or output: pipes it is.
export WINEPREFIX={folder}/prefix WINEDEBUG=${{WINEDEBUG:--all}}
export WINEDLLOVERRIDES="{overrides}"
set -o pipefail
{{ wine {folder}/python/python.exe "$@" < <(cat) 2>&3 3>&- | cat; }} 3> >(cat >&2)
"""
# Programs that a test may put in the place of Wine's own, which do nothing.
OVERRIDES = "mscoree,mshtml=;netsh.exe,schtasks.exe=n,b"


class Machine:
    """The machine in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.python = self.folder / "python"
        self.prefix = self.folder / "prefix"
        self.site_packages = self.python / "Lib" / "site-packages"
        self.environment = {
            **os.environ,
            "WINEPREFIX": str(self.prefix),
            "WINEDEBUG": "-all",
            "WINEDLLOVERRIDES": OVERRIDES,
        }

    def make(self, wheel: Path) -> None:
        """Make it, as far as it is not made, with this wheel of ours."""
        with _timed("Wine and MinGW"):
            _install_packages()
        done = self.folder / "made-of"
        made_of = _digest(HERE, *SOURCES.glob("*.c"), PACKAGING / "requirements.txt")
        if not done.is_file() or done.read_text() != made_of:
            shutil.rmtree(self.folder, ignore_errors=True)
            for what, step in (
                ("CPython for Windows", self._unpack_python),
                ("what Python and the tests miss", self._compile),
                ("a new Windows", self._start_windows),
                ("what the tests and we need", self._install_requirements),
            ):
                with _timed(what):
                    step()
            done.write_text(made_of)
        with _timed("our wheel"):
            self._install("--no-deps", "--reinstall", str(wheel))
        with _timed("first start"):
            self._start_python()

    def _unpack_python(self) -> None:
        (self.python / "DLLs").mkdir(parents=True)
        pin = self.folder / "panda3d.txt"
        pin.write_text(f"panda3d=={PANDA3D} --hash=sha256:{PANDA3D_SHA256}\n")
        _run(
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--only-binary=:all:", "--platform=win_amd64", "--implementation=cp"),
            *("--python-version=3.11", "--require-hashes", "-r", str(pin)),
            *("-d", str(self.folder)),
        )
        (wheel,) = self.folder.glob("panda3d-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                path = Path(name)
                if path.parent.name != "deploy_libs" or path.stem == "_tkinter":
                    continue
                if path.suffix == ".pyd" or path.name in LIBRARIES:
                    (self.python / "DLLs" / path.name).write_bytes(archive.read(name))
                elif path.name == "python311.dll":
                    (self.python / path.name).write_bytes(archive.read(name))
        wheel.unlink()
        found = hashlib.sha256((self.python / "python311.dll").read_bytes()).hexdigest()
        if found != PYTHON_DLL_SHA256:
            sys.exit(f"python311.dll of panda3d {PANDA3D} has the SHA-256 {found}.")
        shutil.copytree(
            sysconfig.get_path("stdlib"),
            self.python / "Lib",
            ignore=shutil.ignore_patterns(
                *("site-packages", "__pycache__", "lib-dynload", "config-*"),
                *("test", "tests", "*.so"),
            ),
        )
        self.site_packages.mkdir()

    def _compile(self) -> None:
        manifest = self.folder / "manifest"
        resource = f'1 24 "{HERE / "python.manifest"}"\n'
        manifest.with_suffix(".rc").write_text(resource)
        _run(f"{MINGW}windres", f"{manifest}.rc", f"{manifest}.o")
        self._link("python.exe", HERE / "python.c", f"{manifest}.o", "-municode")
        self._link(
            "bcryptprimitives.dll", HERE / "bcryptprimitives.c", "-shared", "-ladvapi32"
        )
        # Wheels for every Python 3 link to this one, which forwards to the real one.
        exports = _run(f"{MINGW}objdump", "-p", str(self.python / "python311.dll"))
        table = exports.partition("[Ordinal/Name Pointer] Table")[2]
        names = re.findall(r"^\t\[ *\d+\].* (\S+)$", table, re.MULTILINE)
        definitions = self.folder / "python3.def"
        lines = ["LIBRARY python3.dll", "EXPORTS"]
        lines += [f"  {name}=python311.{name}" for name in names]
        definitions.write_text("\n".join(lines) + "\n")
        self._link("python3.dll", definitions, "-shared", "-nostdlib", "-Wl,--entry,0")

    def _link(self, name: str, *arguments: str | Path) -> None:
        target = self.python / name
        _run(f"{MINGW}gcc", "-O2", "-s", "-o", str(target), *map(str, arguments))

    def _start_windows(self) -> None:
        for command in (
            "wineboot -i",
            # Windows that nobody sees, where there is no screen.
            r"wine reg add HKCU\Software\Wine\Drivers /v Graphics /d null /f",
            "wine winecfg -v win10",
            "wineserver -w",
        ):
            _run(*command.split(), env=self.environment)
        drive = self.prefix / "drive_c"
        for source in SOURCES.glob("*.c"):
            _run(
                *(f"{MINGW}gcc", "-O2", "-s", "-o", str(drive / f"{source.stem}.exe")),
                *(str(source), "-ladvapi32"),
            )
        # Where programs find them that are not in Python's own folder.
        for name in ("bcryptprimitives.dll", "python3.dll"):
            shutil.copy(self.python / name, drive / "windows" / "system32")
        runner = self.folder / "wpy"
        runner.write_text(RUNNER.format(folder=self.folder, overrides=OVERRIDES))
        runner.chmod(0o755)

    def _install_requirements(self) -> None:
        for folder in (HERE, PACKAGING):
            requirements = str(folder / "requirements.txt")
            self._install("--require-hashes", "-r", requirements)

    def _install(self, *what: str) -> None:
        # uv asks for whom packages are; pip would judge by the machine it runs on.
        _run(
            *(sys.executable, "-m", "uv", "pip", "install", "--quiet"),
            *("--python-platform", "x86_64-pc-windows-msvc", "--python-version=3.11"),
            *("--only-binary=:all:", "--target", str(self.site_packages), *what),
        )

    def _start_python(self) -> None:
        said = _run(
            str(self.folder / "wpy"),
            *("-P", "-c", "import sys, ssl, letsencrypt_mdaemon as program"),
        )
        if said:
            sys.exit(f"Python for Windows says:\n{said}")


def _install_packages() -> None:
    """Have Wine and MinGW; they are installed if need be, which takes root."""
    if not (shutil.which("wine") and shutil.which(f"{MINGW}gcc")):
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            names = " ".join(PACKAGES)
            sys.exit(f"Wine and MinGW are needed: as root, apt-get install {names}")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        options = ("-q", "-o", "DPkg::Lock::Timeout=300")
        # A source of the system may be down though ours is there: what comes counts.
        subprocess.run(
            ("apt-get", *options, "update"), check=False, capture_output=True
        )
        _run(
            *("apt-get", *options, "install", "--yes", "--no-install-recommends"),
            *PACKAGES,
            env=environment,
        )
    # It may first say that it misses what nobody here needs.
    version = _run("wine", "--version").strip().splitlines()[-1]
    if not version.startswith(WINE):
        sys.stdout.write(f"This is {version}, not {WINE}: it may differ elsewhere.\n")


def _digest(folder: Path, *files: Path) -> str:
    """Return what tells one state of files from another."""
    digest = hashlib.sha256()
    for file in sorted([*folder.iterdir(), *files]):
        if file.is_file():
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def _run(*command: str, env: dict[str, str] | None = None) -> str:
    """Run a program that has to succeed; return what it printed."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env=env,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed ({done.returncode}):\n{done.stdout}")
    return done.stdout


@contextmanager
def _timed(what: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    sys.stdout.write(f"{time.monotonic() - start:6.1f} s  {what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.version_info[:2] != (3, 11):
        sys.exit("The standard library has to be Python 3.11's: that is the DLL's.")
    Machine(Path(os.environ["WINDOWS_MACHINE"])).make(Path(os.environ["TOX_PACKAGE"]))
