"""What Prometheus itself says of the metrics file and of the alert rules."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from letsencrypt_mdaemon.app import metrics
from letsencrypt_mdaemon.app.metrics import HELPS, PREFIX, Sample
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.system.schedule import MARK
from tests.program import HOST_NAME, Program

HERE = Path(__file__).parent
RULES = HERE.parents[1] / "examples" / "monitoring" / "alerts.yml"
IMAP = "imap.example.test"

Promtool = Callable[..., str]


def test_a_good_and_a_failed_run_leave_what_it_accepts(
    program: Program, ca: CertificateAuthority, tmp_path: Path, promtool: Promtool
) -> None:
    file = tmp_path / "letsencrypt.prom"
    options = (MARK, "--metrics-file", str(file))

    assert program.here("renew", *options).exit_code == 0
    promtool("check", "metrics", given=file.read_text("utf-8"))
    ca.resolve = lambda name: None if name == IMAP else "127.0.0.1"
    ran = program.here("renew", *options, "--alternate-host-names", IMAP)

    assert ran.exit_code == 4
    text = file.read_text("utf-8")
    assert "_name_failing{" in text
    promtool("check", "metrics", given=text)


def test_it_accepts_what_check_prints(secure: Program, promtool: Promtool) -> None:
    assert secure.here("renew", MARK).exit_code == 0

    text = secure.here("check", "--format", "prometheus", as_json=False).output

    assert f'name="{HOST_NAME}"' in text
    promtool("check", "metrics", given=text)


def test_it_accepts_every_gauge_and_any_label(promtool: Promtool) -> None:
    odd = 'a\\b"c\nd}e{f,g="h" \x1b[0m \u202e'
    samples = [Sample(gauge, 1, (("name", odd),)) for gauge in HELPS]

    promtool("check", "metrics", given=metrics.render(samples))


def test_it_finds_what_is_wrong(promtool: Promtool) -> None:
    with pytest.raises(AssertionError, match="error while linting"):
        promtool("check", "metrics", given=f'{PREFIX}exit_code{{name="a}} 1\n')


def test_the_rules_of_the_example_are_valid_and_fire_when_they_should(
    promtool: Promtool,
) -> None:
    assert "SUCCESS" in promtool("check", "rules", RULES)
    assert "SUCCESS" in promtool("test", "rules", HERE / "alerts.yml")


def test_the_rules_use_no_gauge_that_is_not_written_and_each_is_tested() -> None:
    text, tested = RULES.read_text("utf-8"), (HERE / "alerts.yml").read_text("utf-8")

    assert set(re.findall(rf"{PREFIX}(\w+)", text)) <= HELPS.keys()
    alerts = set(re.findall(r"alert: (\w+)", text))
    fired = set(re.findall(r"alertname: (\w+)\n", tested))
    silent = set(re.findall(r"alertname: (\w+),", tested))
    assert alerts == fired == silent
