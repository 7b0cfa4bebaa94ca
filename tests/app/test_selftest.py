"""The self-test tells what works on a machine, and leaves nothing behind."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from letsencrypt_mdaemon.app import selftest
from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.pki.certificate import Certificate
from letsencrypt_mdaemon.system.process import Ended
from letsencrypt_mdaemon.system.tasks import TaskScheduler
from letsencrypt_mdaemon.windows import access
from tests.fakes import MemoryStore
from tests.program import Program
from tests.schedulers import Schtasks


def test_beside_a_good_server_everything_passes_and_nothing_is_left(
    beside: Program,
) -> None:
    before = beside.snapshot()
    ran = beside.here("selftest")
    assert ran.exit_code == 0, ran.messages
    results = {check["name"]: check["result"] for check in ran.report["checks"]}
    assert results["store"] == results["semaphores"] == "ok"
    assert beside.server.semaphores == ["WATCHDOG.SEM"]
    assert beside.snapshot() == before


def test_a_server_that_hangs_fails_with_what_to_look_at(beside: Program) -> None:
    beside.server.ignore.add("WATCHDOG.SEM")
    ran = beside.here("selftest", "--reload-timeout", "1", as_json=False)
    assert ran.exit_code == 5
    assert "FAIL  semaphores: MDaemon did not process WATCHDOG.SEM" in ran.output
    assert "Check that MDaemon runs." in " ".join(ran.output.split())
    assert "ok    store: " in ran.output
    assert list(beside.layout.app.glob("*.SEM")) == []


def test_what_one_check_breaks_is_told_and_the_next_goes_on() -> None:
    def broken() -> str:
        raise DeployError("It is broken.", hint="Mend it.")

    def absent() -> str:
        raise selftest.Skipped("none here")

    def odd() -> str:
        return str(1 // 0)

    checks = [("a", broken), ("b", absent), ("c", odd), ("d", lambda: "seen")]
    found = selftest.run(checks)
    assert [(check.result, check.detail) for check in found.checks] == [
        ("failed", "It is broken. Mend it."),
        ("skipped", "none here"),
        ("failed", "ZeroDivisionError: integer division or modulo by zero"),
        ("ok", "seen"),
    ]
    assert found.failed == ["a", "c"]
    assert "a, c" in found.error().message


class Forgetful(MemoryStore):
    """A store that takes a certificate and has it not."""

    def install(self, certificate: Certificate) -> tuple[str, ...]:
        """Do nothing."""
        del certificate
        return ()


class Clinging(MemoryStore):
    """A store that removes nothing."""

    def remove(self, wanted: str) -> None:
        """Do nothing."""


def test_a_store_that_loses_or_keeps_what_it_should_not_fails() -> None:
    checks = [
        (type(one).__name__, partial(selftest.store, one, "p256"))
        for one in (MemoryStore(), Forgetful(), Clinging())
    ]
    found = selftest.run(checks)
    assert found.failed == ["Forgetful", "Clinging"]
    assert "but is not in the store" in found.checks[1].detail
    assert "is still in the store" in found.checks[2].detail


def test_its_task_runs_once_as_system_and_is_deleted() -> None:
    schtasks = Schtasks()
    schtasks.before = ["267045", "267011", "267009"]
    shown: list[str] = []

    def run(program: Path, *arguments: str, **more: Any) -> Ended:  # noqa: ANN401
        shown.append(schtasks.text or "")
        return schtasks(program, *arguments, **more)

    tasks = TaskScheduler(Path("schtasks.exe"), run, account=access.SYSTEM)
    assert "run as SYSTEM with result 0" in selftest.scheduler(tasks)
    assert schtasks.tasks == {}
    assert schtasks.before == []
    # This program, and not Python alone, which SYSTEM may find without it.
    assert "-I -m letsencrypt_mdaemon --version</" in shown[-1]


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ("3", "ended with 3"),
        ("2147942402", "its program is not there"),
        ("267009", "is running now"),
        ("267011", "did not run"),
    ],
)
def test_a_task_that_does_not_end_well_is_a_failure(result: str, words: str) -> None:
    schtasks = Schtasks()
    schtasks.ends_with = result
    tasks = TaskScheduler(Path("schtasks.exe"), schtasks, account=access.SYSTEM)
    with pytest.raises(DeployError, match=words) as caught:
        selftest.scheduler(tasks, patience=0)
    assert "for all users" in caught.value.hint
    assert schtasks.tasks == {}


def test_a_python_of_32_bits_is_refused() -> None:
    assert selftest.python() == "64 bits"
    with pytest.raises(DeployError, match="32 bits"):
        selftest.python((1 << 31) - 1)
