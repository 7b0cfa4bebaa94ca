"""Make the setup program of the frozen folder, with NSIS, on Debian or on Windows."""

from __future__ import annotations

import argparse
import os
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from icon import icon
from packaging.version import Version

NAME = "letsencrypt-mdaemon"
HERE = Path(__file__).parent
VERSION = str(HERE.parents[1] / "letsencrypt_mdaemon" / "_version.py")
SCRIPT = HERE / f"{NAME}.nsi"
PRE_RELEASES = {"a": 10_000, "b": 20_000, "rc": 30_000}
FINAL = 60_000
# Where the official installer of NSIS puts it, which is not on PATH.
OFFICIAL = Path(r"C:\Program Files (x86)\NSIS\makensis.exe")


def numbers(version: str) -> str:
    """Return a version as Windows' resources have it: four numbers."""
    return ".".join(map(str, [*_release(Version(version)), 0]))


def comparable(version: str) -> str:
    """Return four numbers that sort as versions do: 0.2.0rc1 is before 0.2.0.

    Raises:
        ValueError: If it is a version of development, or has more than three numbers.
    """
    found = Version(version)
    if found.is_devrelease or found.is_postrelease or found.local or found.epoch:
        raise ValueError(f"{version} is not a version to release")
    last = FINAL
    if found.pre:
        kind, count = found.pre
        last = PRE_RELEASES[kind] + count
    return ".".join(map(str, [*_release(found), last]))


def _release(version: Version) -> list[int]:
    if len(version.release) > 3:  # noqa: PLR2004
        raise ValueError(f"{version} has more than three numbers")
    return [version.major, version.minor, version.micro]


def build(  # noqa: PLR0913 - what makensis is told
    folder: Path,
    out: Path,
    version: str,
    *,
    makensis: str,
    target: str,
    compressor: str,
    sign: str = "",
) -> None:
    """Make the setup program.

    Args:
        folder: The frozen folder.
        out: The folder for the setup program.
        target: The stub: amd64-unicode with Debian's NSIS, else x86-unicode.
        sign: A command that signs the file named in place of %1: the program, the
            uninstaller, and the setup program; "" = do not sign.

    Raises:
        CalledProcessError: If NSIS refuses, or the file cannot be signed.
    """
    if sign:
        line = sign.replace("%1", str((folder / f"{NAME}.exe").resolve()))
        subprocess.run(line if os.name == "nt" else shlex.split(line), check=True)
    files = [path for path in folder.rglob("*") if path.is_file()]
    with tempfile.TemporaryDirectory() as temporary:
        drawn = Path(temporary) / "icon.ico"
        drawn.write_bytes(icon())
        defines = {
            "TARGET": target,
            "COMPRESSOR": compressor,
            "VERSION": version,
            "NUMBERS": numbers(version),
            "COMPARABLE": comparable(version),
            "FOLDER": folder.resolve(),
            "FILES": len(files),
            "BYTES": sum(path.stat().st_size for path in files),
            "ICON": drawn,
            "OUT": out.resolve() / f"{NAME}-{version}-x64.exe",
        }
        if sign:
            defines["SIGN"] = sign
        given = [f"-D{name}={value}" for name, value in defines.items()]
        command = [makensis, "-V2", "-WX", "-INPUTCHARSET", "UTF8", *given, str(SCRIPT)]
        subprocess.run(command, check=True)


def main() -> None:
    """Read the command line, and make the setup program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the frozen folder")
    parser.add_argument("out", type=Path, help="the folder for the setup program")
    parser.add_argument("--version", default=runpy.run_path(VERSION)["__version__"])
    found = shutil.which("makensis") or (str(OFFICIAL) if OFFICIAL.exists() else "")
    parser.add_argument("--makensis", default=found)
    parser.add_argument("--target", default="x86-unicode")
    parser.add_argument("--compressor", default="lzma", choices=["lzma", "zlib"])
    parser.add_argument("--sign", default=os.environ.get("SIGN_COMMAND", ""))
    given = parser.parse_args()
    if not given.makensis:
        sys.exit("NSIS is needed: makensis was not found.")
    if not (given.folder / f"{NAME}.exe").is_file():
        sys.exit(f"{given.folder} is not the frozen folder.")
    build(**vars(given))


if __name__ == "__main__":
    main()
