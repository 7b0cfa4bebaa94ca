"""Chromium from Debian's package and axe-core from npm, seen by nobody but these tests.

Screenshots and the PDF stay in the cache of pytest, to be looked at.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests import debian_archive
from tests.chromium import chromium
from tests.limits import HANG_SECONDS

AXE = "axe-core@4.14.1"
AXE_SHA512 = (
    "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37Og"
    "udVGtQ=="
)


def _cache(request: pytest.FixtureRequest, name: str) -> Path:
    cache = request.config.cache
    assert cache is not None
    return cache.mkdir("browser") / name


@pytest.fixture(scope="session")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """Chromium, running."""
    try:
        with chromium(_cache(request, "chromium")) as started:
            yield started
    except debian_archive.ArchiveError as exc:
        pytest.fail(str(exc), pytrace=False)


@pytest.fixture(scope="session")
def axe(request: pytest.FixtureRequest) -> str:
    """The script of axe-core."""
    folder = _cache(request, "axe")
    archive = folder / f"{AXE.replace('@', '-')}.tgz"
    if not archive.exists():
        if shutil.which("npm") is None:
            pytest.fail(f"npm is needed, to get {AXE}", pytrace=False)
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["npm", "pack", "--silent", AXE],
            cwd=folder,
            check=True,
            timeout=HANG_SECONDS,
        )
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != AXE_SHA512:
        archive.unlink()
        pytest.fail(f"{archive} is not {AXE}", pytrace=False)
    with tarfile.open(archive) as packed:
        script = packed.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


@pytest.fixture(scope="session")
def album(request: pytest.FixtureRequest) -> Path:
    """The folder of the pictures of this run."""
    folder = _cache(request, "pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
