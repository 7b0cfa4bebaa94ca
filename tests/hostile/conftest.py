"""Ground that an attacker walks on, too."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.attacker import Attacker
from tests.program import Program, beside_sandbox

LEFT_OUT = "only root can try what another user may do: run this as root"


@pytest.fixture
def attacker() -> Attacker:
    """Another user of this machine; without root the test says what it leaves out."""
    if sys.platform == "win32":
        pytest.skip(LEFT_OUT)
    if os.geteuid() != 0:
        pytest.skip(LEFT_OUT)
    return Attacker()


@pytest.fixture
def ground() -> Iterator[Path]:
    """Return a folder of ours that others may enter and read; pytest's they may not."""
    folder = Path(tempfile.mkdtemp(prefix="ground-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say aloud how many attacks were left out."""
    skipped = [
        report
        for report in terminalreporter.stats.get("skipped", [])
        if "hostile" in report.nodeid and LEFT_OUT in str(report.longrepr)
    ]
    if skipped:
        terminalreporter.write_line(
            f"NOT TRIED: {len(skipped)} attacks of another user; {LEFT_OUT}", red=True
        )


@pytest.fixture
def beside(ground: Path) -> Iterator[Program]:
    """The program beside a sandbox where others may go and look."""
    with beside_sandbox(ground / "MDaemon") as program:
        yield program
