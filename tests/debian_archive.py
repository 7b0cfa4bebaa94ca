"""Unpacks Debian's packages into a folder without installing anything, as any user."""

from __future__ import annotations

import re
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

PATIENCE_SECONDS = 300


class ArchiveError(Exception):
    """Packages are not to be had; the message says why."""


def unpack(*packages: str, into: Path, only: str = "") -> None:
    """Unpack packages, and those they need that are not installed.

    Args:
        into: A folder; only complete if no error is raised.
        only: The one file of the one package that is wanted, which needs no other.

    Raises:
        ArchiveError: There is no apt here, or it cannot fetch one of them.
    """
    into.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=into.parent) as temporary:
        folder = Path(temporary)
        for name in ("state/lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        # Lists and caches of our own, so that it takes no root.
        options = (
            "--quiet",
            f"--option=Dir::State={folder / 'state'}",
            f"--option=Dir::Cache={folder / 'cache'}",
            "--option=Dir::State::status=/var/lib/dpkg/status",
            # As root, apt would drop to a user who may not write here.
            "--option=APT::Sandbox::User=root",
        )
        # A source of the system that is down makes apt fail, though ours may be there:
        # whether the packages come is what counts.
        update = _run("apt-get", *options, "update")
        plan = _run(
            *("apt-get", *options, "install", "--yes", "--no-install-recommends"),
            *("--reinstall", "--print-uris", *packages),
        )
        wanted = re.findall(r"^'[^']+' ([^_ ]+)_", plan.stdout, re.MULTILINE)
        if only:
            wanted = [name for name in wanted if name in packages]
        fetch = _run("apt-get", *options, "download", *wanted, cwd=folder)
        files = list(folder.glob("*.deb"))
        if not wanted or len(files) != len(wanted):
            said = update.stderr + plan.stderr + fetch.stderr
            message = f"Debian's packages {', '.join(packages)} are needed; apt says:\n"
            raise ArchiveError(message + said)
        for file in files:
            if only:
                _take_out(file, only, into)
            else:
                _run("dpkg-deb", "-x", str(file), str(into))


def _take_out(package: Path, name: str, into: Path) -> None:
    """Unpack one file: the others of its package may have hundreds of megabytes."""
    command = ("dpkg-deb", "--fsys-tarfile", str(package))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                if member.name == f"./{name}":
                    archive.extract(member, into, filter="data")
                    break
        process.kill()


def _run(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            cwd=cwd,
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        message = f"{command[0]} did not run: {exc}"
        raise ArchiveError(message) from exc
