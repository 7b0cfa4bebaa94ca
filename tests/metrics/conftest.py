"""Prometheus' own judge: `promtool`, one file of Debian's package."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import debian_archive
from tests.limits import HANG_SECONDS

FILE = "usr/bin/promtool"

Promtool = Callable[..., str]


@pytest.fixture(scope="session")
def promtool(request: pytest.FixtureRequest) -> Promtool:
    """Run promtool; fail with what it says, and if it is not to be had."""
    cache = request.config.cache
    assert cache is not None
    folder = cache.mkdir("debian") / "prometheus"
    program = Path(shutil.which("promtool") or folder / FILE)
    if not program.exists():
        shutil.rmtree(folder, ignore_errors=True)
        debian_archive.unpack("prometheus", into=folder, only=FILE)

    def run(*arguments: str | Path, given: str = "") -> str:
        done = subprocess.run(
            [program, *arguments],
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=HANG_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run
