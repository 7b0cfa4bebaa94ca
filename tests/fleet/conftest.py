"""What the hosts are made of: OpenSSH from Debian's package, Ansible's collections.

Nothing is installed on this machine. It takes root: hosts mount, and have networks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests import debian_archive
from tests.fleet.fleet import CHECKOUT, Fleet, Parts, fleet
from tests.limits import HANG_SECONDS

ANSIBLE = "ansible==12.3.0"
COLLECTIONS = ("ansible/windows", "community/windows")
PROGRAMS = ("unshare", "nsenter", "ip", "ssh", "ssh-keygen")


def _pip(*words: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", *words],
        check=True,
        timeout=HANG_SECONDS,
    )


@pytest.fixture(scope="session")
def collections(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return the folder of the collections for Windows."""
    cache = request.config.cache
    assert cache is not None
    kept = cache.mkdir("fleet") / ANSIBLE
    if not kept.exists():
        folder = tmp_path_factory.mktemp("ansible")
        _pip("download", "--no-deps", "--only-binary=:all:", "-d", str(folder), ANSIBLE)
        (wheel,) = folder.glob("*.whl")
        wanted = tuple(f"ansible_collections/{name}/" for name in COLLECTIONS)
        with ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.startswith(wanted)]
            for name in names:
                archive.extract(name, folder / "extracted")
        wheel.unlink()
        shutil.move(folder / "extracted", kept)
    return kept


@pytest.fixture(scope="session")
def parts(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    collections: Path,
) -> Parts:
    """Return what fleets are made of."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    if sys.platform == "win32" or lacking or os.geteuid() != 0:
        pytest.fail(f"It takes root, and {' '.join(lacking)}", pytrace=False)
    cache = request.config.cache
    assert cache is not None
    sshd = cache.mkdir("debian") / "openssh-server"
    if not (sshd / "usr/sbin/sshd").exists():
        try:
            debian_archive.unpack("openssh-server", into=sshd)
        except debian_archive.ArchiveError as exc:
            pytest.fail(str(exc), pytrace=False)
    return Parts(sshd, collections, _package(tmp_path_factory.mktemp("package")))


def _package(folder: Path) -> Path:
    """Make the archive of wheels, as examples/ansible/README.md says."""
    # A copy: a wheel built in the checkout leaves its traces there.
    source, wheels = folder / "source", folder / "wheels"
    hidden = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(
        CHECKOUT / "letsencrypt_mdaemon", source / "letsencrypt_mdaemon", ignore=hidden
    )
    shutil.copytree(CHECKOUT / "docs" / "man", source / "docs" / "man")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    constraints = str(CHECKOUT / "constraints.txt")
    _pip("wheel", "-w", str(wheels), "-c", constraints, "pip", str(source))
    with tarfile.open(folder / "package.tar.gz", "w:gz") as archive:
        archive.add(wheels, ".")
    return folder / "package.tar.gz"


@pytest.fixture
def start(parts: Parts, tmp_path: Path) -> Iterator[Callable[[int], Fleet]]:
    """Return what starts a fleet of so many hosts; they end with the test."""
    with ExitStack() as ending:
        yield lambda size: ending.enter_context(fleet(parts, tmp_path, size))
