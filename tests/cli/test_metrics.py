"""The metrics file: what a run leaves for collectors, and for `check`."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from letsencrypt_mdaemon.app import metrics
from letsencrypt_mdaemon.app.metrics import Sample
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.state.folder import State
from letsencrypt_mdaemon.state.memory import Memory
from letsencrypt_mdaemon.system import disk
from letsencrypt_mdaemon.system.handles import Folder
from letsencrypt_mdaemon.system.locks import exclusive_lock
from letsencrypt_mdaemon.system.schedule import MARK
from tests.limits import HANG_SECONDS
from tests.program import HOST_NAME, Program, Ran
from tests.schedulers import Jobs, in_memory

DAY = timedelta(days=1)
IMAP = "imap.example.test"


@pytest.fixture(autouse=True)
def jobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Jobs:
    """A scheduler with our job, and nothing else."""
    folder = f"--mdaemon-dir={tmp_path / 'MDaemon'}"
    return in_memory(monkeypatch, sys.executable, "-m", "x", "renew", folder, MARK)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the collector looks."""
    folder = tmp_path / "collector"
    folder.mkdir()
    return folder / "letsencrypt.prom"


def job(program: Program, file: Path, *options: str) -> Ran:
    """Run what the scheduler runs."""
    return program.here("renew", MARK, "--metrics-file", str(file), *options)


def change(program: Program, act: Callable[[Memory], Memory]) -> None:
    """Change what is remembered."""
    state = State(program.state)
    state.save(act(state.load()))


def gauges(file: Path) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return what Prometheus' own parser sees."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(file.read_text("utf-8")):
        assert family.type == "gauge"
        assert family.documentation
        short = family.name.removeprefix("letsencrypt_mdaemon_")
        assert short not in found, "each family stands once"
        found[short] = [(row.labels, row.value) for row in family.samples]
    return found


def value(file: Path, gauge: str) -> float:
    """Return the only value of a gauge, which has the server's name."""
    ((labels, number),) = gauges(file)[gauge]
    assert labels == {"name": HOST_NAME}
    return number


def test_a_good_run_leaves_every_gauge(secure: Program, file: Path) -> None:
    began = datetime.now(UTC).replace(microsecond=0)

    ran = job(secure, file)

    assert ran.exit_code == 0, ran.messages
    leaf = ran.report["certificate"]
    ends = datetime.fromisoformat(leaf["not_after"]).timestamp()
    found = gauges(file)
    assert value(file, "end_timestamp_seconds") == ends
    begins = datetime.fromisoformat(leaf["not_before"]).timestamp()
    assert value(file, "begin_timestamp_seconds") == begins
    left = ends - value(file, "seconds_left") - began.timestamp()
    assert -1 < left < HANG_SECONDS
    due = datetime.fromisoformat(ran.report["due_at"]).timestamp()
    assert abs(value(file, "due_timestamp_seconds") - due) < 1
    for gauge in ("last_run", "last_scheduled_run", "last_success"):
        assert value(file, f"{gauge}_timestamp_seconds") >= began.timestamp()
    assert (value(file, "exit_code"), value(file, "held")) == (0, 0)
    assert (value(file, "state"), value(file, "ports_unproven")) == (0, 0)
    ports = {row["endpoint"]: (row["verdict"], on) for row, on in _ports(found)}
    assert ports == dict.fromkeys(ran.report["proof"]["new"], ("new", 1))
    assert "name_failing" not in found


def _ports(
    found: dict[str, list[tuple[dict[str, str], float]]],
) -> list[tuple[dict[str, str], float]]:
    rows = found["endpoint_proven"]
    assert rows
    return rows


def test_a_failed_run_says_its_exit_code_and_which_name_fails(
    program: Program, ca: CertificateAuthority, file: Path
) -> None:
    assert job(program, file).exit_code == 0
    ends, good = (
        value(file, f"{gauge}_timestamp_seconds") for gauge in ("end", "last_success")
    )
    change(program, lambda memory: memory._replace(succeeded=memory.runs[-1] - DAY))
    ca.resolve = lambda name: None if name == IMAP else "127.0.0.1"

    ran = job(program, file, "--alternate-host-names", IMAP)

    assert ran.exit_code == 4
    assert value(file, "exit_code") == 4
    assert value(file, "state") == 1
    assert value(file, "end_timestamp_seconds") == ends
    assert value(file, "last_success_timestamp_seconds") < good
    labels = {"name": HOST_NAME, "failing": IMAP, "why": "failed"}
    assert gauges(file)["name_failing"] == [(labels, 1)]


def test_a_port_that_does_not_serve_it_is_told_with_its_verdict(
    secure: Program, file: Path
) -> None:
    assert job(secure, file).exit_code == 0
    secure.server.downtime = HANG_SECONDS
    secure.server.go_down("mail")

    assert job(secure, file).exit_code == 0

    verdicts = {row["verdict"]: on for row, on in _ports(gauges(file))}
    assert verdicts == {"new": 1, "silent": 0}
    assert value(file, "ports_unproven") > 0
    assert value(file, "state") == 2, "it is no longer served there"


def test_a_hold_and_an_end_by_hand_are_told(secure: Program, file: Path) -> None:
    assert job(secure, file).exit_code == 0
    former = next(iter(secure.bound()))
    assert job(secure, file, "--force").exit_code == 0

    ran = secure.here("use", former, "--metrics-file", str(file))

    assert ran.exit_code == 0, ran.messages
    assert value(file, "held") == 1


def test_wrong_settings_are_told_as_far_as_the_file_is_known(
    secure: Program, file: Path
) -> None:
    assert job(secure, file, "--to", "a@example.test").exit_code == 0
    ends = value(file, "end_timestamp_seconds")

    ran = job(secure, file, "--key-type", "rsa1")

    assert ran.exit_code == 2
    assert value(file, "exit_code") == 2
    assert value(file, "end_timestamp_seconds") == ends


def test_without_any_server_the_exit_code_is_told(
    program: Program, file: Path, tmp_path: Path
) -> None:
    assert job(program, file).exit_code == 0
    program.options = ["--mdaemon-dir", str(tmp_path / "nowhere")]

    assert job(program, file, "--host-name", HOST_NAME).exit_code == 2

    assert (value(file, "exit_code"), value(file, "state")) == (2, 1)
    assert "end_timestamp_seconds" not in gauges(file)


def test_a_rehearsal_a_dry_run_and_a_busy_run_leave_it_alone(
    program: Program, file: Path
) -> None:
    for option in ("--staging", "--dry-run"):
        job(program, file, option)
        assert not file.exists()
    program.state.mkdir(exist_ok=True)
    with exclusive_lock(State(program.state).lock):
        assert job(program, file).exit_code == 6
    assert not file.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has access lists instead")
def test_every_account_may_read_it(program: Program, file: Path) -> None:
    former = os.umask(0o077)
    try:
        assert job(program, file).exit_code == 0
    finally:
        os.umask(former)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_a_link_is_refused_and_what_it_leads_to_stays(
    program: Program, file: Path, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    file.symlink_to(precious)

    ran = job(program, file)

    assert ran.exit_code == 0
    assert "a link, a folder or a device has that name" in ran.messages
    assert (precious.read_text(), file.is_symlink()) == ("mine", True)


@pytest.mark.parametrize("where", ["folder", "missing/x.prom", "plain/x.prom"])
def test_a_place_that_cannot_be_written_is_a_warning(
    program: Program, tmp_path: Path, where: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").write_text("")

    ran = job(program, tmp_path / where)

    assert ran.exit_code == 0
    (said,) = re.findall(
        r"(?i)warning:? (.*metrics file.*)", ran.messages
    ) or pytest.fail(ran.messages)
    assert str(tmp_path / where) in said


def test_a_full_disk_leaves_the_former_file_and_no_other(
    program: Program, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert job(program, file).exit_code == 0
    before = file.read_bytes()
    create = Folder.create

    def full(self: Folder, name: str, data: bytes, **options: object) -> None:
        if ".prom" in name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        create(self, name, data, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Folder, "create", full)

    ran = job(program, file)

    assert ran.exit_code == 0
    assert "Make room on that disk" in ran.messages
    assert file.read_bytes() == before
    assert disk.neighbours(file) == []


# What `check` makes of it


def check(program: Program, file: Path, *options: str) -> Ran:
    """Run `check` as an agent that may read nothing else."""
    words = ["check", "--metrics-file", str(file), *options]
    return program.here(*words, as_json=False)


def test_check_reads_only_the_file_and_says_so(secure: Program, file: Path) -> None:
    assert job(secure, file).exit_code == 0
    for path in secure.state.rglob("*.json"):
        path.unlink()

    ran = check(secure, file)

    assert ran.exit_code == 0, ran.output
    assert re.match(rf"OK - {HOST_NAME}: 8\d days left, (\d+) of \1 ports", ran.output)
    assert f"; read from {file}, which is less than 2 minutes old |" in ran.output


@pytest.mark.parametrize(
    ("row", "code", "said"),
    [
        (("exit_code", "4"), 1, "the last run ended with 4"),
        (("end_timestamp_seconds", "1000000000"), 2, "has expired"),
        (("last_run_timestamp_seconds", "1000000000"), 1, "the last run was"),
        (("held", "1"), 1, "is held"),
        (("state", "1"), 1, "the last run found a problem"),
        (("state", "2"), 2, "the last run found a problem"),
        (("end_timestamp_seconds", "1e300"), 2, "has expired"),
        (("end_timestamp_seconds", "NaN"), 1, "certificate in use is unknown"),
    ],
)
def test_check_judges_by_the_gauges(
    secure: Program, file: Path, row: tuple[str, str], code: int, said: str
) -> None:
    gauge, new = row
    assert job(secure, file).exit_code == 0
    text = file.read_text("utf-8")
    changed = re.sub(
        rf"(?m)^(letsencrypt_mdaemon_{gauge}{{.*}}) .*", rf"\1 {new}", text
    )
    assert changed != text
    file.write_text(changed)

    ran = check(secure, file)

    assert ran.exit_code == code, ran.output
    assert said in ran.output


def test_check_tells_failing_names_and_ports_of_the_file(
    secure: Program, file: Path
) -> None:
    assert job(secure, file).exit_code == 0
    text = file.read_text("utf-8").replace('verdict="new"} 1', 'verdict="old"} 0', 1)
    row = 'letsencrypt_mdaemon_name_failing{name="x",failing="a.test",why="failed"} 1'
    file.write_text(f"{text}{row}\n")

    ran = check(secure, file)

    assert ran.exit_code == 1
    assert "a.test: failed" in ran.output
    assert re.search(r"not proven at \S+ \(old\)", ran.output)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe" * 9, b"x" * (2 << 20)])
def test_a_metrics_file_that_is_none_is_unknown(
    program: Program, file: Path, content: bytes | None
) -> None:
    if content is not None:
        file.write_bytes(content)

    ran = check(program, file)

    assert ran.exit_code == 3
    assert ran.output.startswith("UNKNOWN - ")
    assert ran.output.count("\n") == 1


def test_an_account_without_rights_gets_the_file_or_is_told_of_it(
    secure: Program, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert job(secure, file).exit_code == 0

    def refuse(self: State) -> Memory:
        with disk.explained(f"read {self.folder}"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(State, "load", refuse)
    refused = secure.here("check", as_json=False)
    variable = {"LETSENCRYPT_MDAEMON_METRICS_FILE": str(file)}
    ran = secure.here("check", as_json=False, environ=variable)

    assert refused.exit_code == 3
    assert "check --metrics-file FILE" in refused.output
    assert ran.exit_code == 0, ran.output
    assert f"read from {file}" in ran.output


def test_an_account_that_may_not_enter_mdaemons_folder_names_the_file(
    secure: Program, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert job(secure, file).exit_code == 0
    is_file = Path.is_file

    def refuse(self: Path) -> bool:
        if self.is_relative_to(secure.layout.folder):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return is_file(self)

    monkeypatch.setattr(Path, "is_file", refuse)
    variable = {"LETSENCRYPT_MDAEMON_METRICS_FILE": str(file)}
    refused = secure.here("check", as_json=False, environ=variable)
    ran = check(secure, file)

    assert refused.exit_code == 3
    assert "Could not look for " in refused.output
    assert "check --metrics-file FILE" in refused.output
    assert ran.exit_code == 0, ran.output


# The text format


def test_labels_with_anything_in_them_are_read_as_they_are() -> None:
    odd = 'a\\b"c\nd}e{f,g="h" \x1b[0m \u202e'
    text = metrics.render([Sample("exit_code", 7, (("name", odd),))])

    assert text.isascii()
    assert text.count("\n") == 3
    ((family,),) = ([*text_string_to_metric_families(text)],)
    (sample,) = family.samples
    (again,) = metrics.parse(text)
    assert dict(again.labels) == sample.labels
    assert sample.value == again.value == 7
