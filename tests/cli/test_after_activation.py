"""The hook `after-activation`: once for each certificate that is put into use."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from letsencrypt_mdaemon.app import renewal
from letsencrypt_mdaemon.config.load import load_config
from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.state.folder import State
from tests import schemas
from tests.program import HOST_NAME, Program, Ran

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="temporary folders are not trusted there"
)

RECORDER = """
import json, os, sys
from pathlib import Path
here = Path(sys.argv[0]).parent
facts = {k: v for k, v in os.environ.items() if "CERT" in k or "LETSENCRYPT" in k}
with (here / "calls").open("a") as file:
    print(json.dumps([json.load(sys.stdin), facts]), file=file)
if (here / "fail").exists():
    print("cannot reach \\x1b[31mthe balancer")
    sys.exit(9)
"""


class Hook:
    """A hook that records what it is told, and fails if it should."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.program = folder / "hook"
        self.write(RECORDER)

    def write(self, code: str) -> None:
        """Let it do this."""
        self.program.write_text(f"#!{sys.executable} -I\n{code}")
        self.program.chmod(0o700)

    @property
    def options(self) -> tuple[str, str]:
        """Return the option that names it."""
        return "--after-activation", str(self.program)

    def calls(self) -> list[tuple[dict[str, Any], dict[str, str]]]:
        """Return what it was told since the last time."""
        file = self.program.with_name("calls")
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [tuple(json.loads(line)) for line in lines]

    def fails(self, *, on: bool) -> None:
        """Let it fail from now on, or not any more."""
        file = self.program.with_name("fail")
        if on:
            file.touch()
        else:
            file.unlink()


@pytest.fixture
def hook(tmp_path: Path) -> Hook:
    """A hook in a folder that only this account can change."""
    return Hook(tmp_path / "hooks")


def renew(program: Program, hook: Hook, *options: str) -> Ran:
    """Run what the scheduler runs."""
    return program.here("renew", *hook.options, *options)


def test_it_is_told_the_facts_once_for_each_certificate(
    program: Program, hook: Hook
) -> None:
    secret = {"LETSENCRYPT_MDAEMON_MAIL_PASSWORD": "hunter2"}

    ran = program.here("renew", *hook.options, environ=secret)

    assert ran.exit_code == 0, ran.messages
    leaf = ran.report["certificate"]
    ((facts, environ),) = hook.calls()
    schemas.check_as("after-activation", facts)
    assert facts["thumbprint"] == leaf["thumbprint"]
    assert (facts["names"], facts["not_after"]) == ([HOST_NAME], leaf["not_after"])
    key = Path(facts["folder"], "privkey.pem")
    assert key.is_file()
    assert environ["CERTIFICATE_THUMBPRINT"] == leaf["thumbprint"]
    assert environ["CERTIFICATE_NAMES"] == HOST_NAME
    assert environ["CERTIFICATE_FOLDER"] == facts["folder"]
    assert not any("LETSENCRYPT" in name for name in environ)

    assert renew(program, hook).exit_code == 0
    assert hook.calls() == []
    assert renew(program, hook, "--force").exit_code == 0
    assert len(hook.calls()) == 1


def test_its_failure_is_exit_5_kept_and_it_runs_again(
    program: Program, hook: Hook
) -> None:
    hook.fails(on=True)

    ran = renew(program, hook)

    assert ran.exit_code == 5
    report = ran.report
    assert report["renewed"]
    assert report["error"]["type"] == "DeployError"
    message = f"The hook {hook.program} ended with exit code 9: cannot reach "
    assert report["error"]["message"].startswith(message)
    assert "\x1b" not in ran.messages
    assert "runs the hook again" in report["error"]["hint"]
    assert len(program.bound()) == 1
    variable = {"LETSENCRYPT_MDAEMON_AFTER_ACTIVATION": str(hook.program)}
    checked = program.here("check", "--no-ports", as_json=False, environ=variable)
    assert "the hook after-activation has not run" in checked.output

    assert renew(program, hook).exit_code == 5, "nothing is due, and it still fails"
    hook.fails(on=False)
    assert len(hook.calls()) == 2
    ran = renew(program, hook)
    assert ran.exit_code == 0, ran.messages
    assert not ran.report["renewed"]
    assert len(hook.calls()) == 1
    assert renew(program, hook).exit_code == 0
    assert hook.calls() == []


def test_a_failure_of_the_ca_does_not_keep_it_from_running_again(
    program: Program, ca: CertificateAuthority, hook: Hook
) -> None:
    hook.fails(on=True)
    assert renew(program, hook).exit_code == 5
    hook.fails(on=False)
    hook.calls()
    ca.resolve = lambda _: None

    ran = renew(program, hook, "--alternate-host-names", "imap.example.test")

    assert ran.exit_code == 4
    assert len(hook.calls()) == 1
    assert State(program.state).load().hooked


def test_a_killed_run_is_caught_up_with(program: Program, hook: Hook) -> None:
    assert program.here("renew").exit_code == 0

    assert renew(program, hook).exit_code == 0

    assert len(hook.calls()) == 1


def test_it_runs_whichever_command_activates(secure: Program, hook: Hook) -> None:
    assert secure.here("renew").exit_code == 0
    (first,) = secure.bound()
    assert secure.here("renew", "--force").exit_code == 0
    (second,) = secure.bound()
    told = []
    for command in (
        f"use {first}",
        "rollback",
        "self-signed --use",
        f"use {second}",
        "reload",
    ):
        name, *options = command.split()
        ran = secure.here(name, *hook.options, *options)
        assert ran.exit_code in (0, 5), ran.messages
        told.append([facts["thumbprint"] for facts, _ in hook.calls()])

    assert told[0] == [first]
    assert [len(row) for row in told[2:]] == [1, 1, 0]
    assert told[3] == [second]


@pytest.mark.parametrize("option", ["--dry-run", "--staging", "--no-activate"])
def test_what_activates_nothing_runs_nothing(
    program: Program, hook: Hook, option: str
) -> None:
    assert renew(program, hook, option).exit_code == 0
    assert hook.calls() == []


def test_one_that_hangs_is_ended_and_named(program: Program, hook: Hook) -> None:
    hook.write("import time\ntime.sleep(3600)")

    ran = renew(program, hook, "--after-activation-timeout", "1")

    assert ran.exit_code == 5
    message = ran.report["error"]["message"]
    assert message == f"The hook {hook.program} did not end within 1 s, and was ended."


@pytest.mark.parametrize("place", ["file", "folder"])
def test_one_that_others_can_change_is_not_run(
    program: Program, hook: Hook, place: str
) -> None:
    path = hook.program if place == "file" else hook.program.parent
    path.chmod(0o777)

    ran = renew(program, hook)

    assert ran.exit_code == 5
    assert hook.calls() == []
    error = ran.report["error"]
    assert f"{path}: others can write to it" in error["message"]
    assert "chmod" in error["hint"]
    path.chmod(0o700)
    assert renew(program, hook).exit_code == 0
    assert len(hook.calls()) == 1


def test_one_where_others_may_put_files_beside_it_is_not_run(
    program: Program, hook: Hook, tmp_path: Path
) -> None:
    link = tmp_path / "other" / "link"
    link.parent.mkdir()
    link.symlink_to(hook.program)
    hook.program.parent.chmod(0o1777)  # as /tmp: they cannot exchange it

    for path in (hook.program, link):
        ran = program.here("renew", "--after-activation", str(path))

        assert ran.exit_code == 5
        assert hook.calls() == []
        text = f"{hook.program.parent}: others can write to it"
        assert text in ran.report["error"]["message"]


def test_one_behind_a_link_is_judged_by_where_the_link_leads(
    program: Program, hook: Hook, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(hook.program)
    hook.program.chmod(0o777)

    ran = program.here("renew", "--after-activation", str(link))

    assert ran.exit_code == 5
    assert hook.calls() == []
    assert "not trusted" in ran.report["error"]["message"]


def test_one_that_is_missing_is_named_and_the_certificate_is_in_use(
    program: Program, tmp_path: Path
) -> None:
    ran = program.here("renew", "--after-activation", str(tmp_path / "none"))

    assert ran.exit_code == 5
    assert f"Could not run {tmp_path / 'none'}" in ran.report["error"]["message"]
    assert ran.report["renewed"]


@pytest.mark.parametrize("word", ["hook", "./hook", "hook.cmd --now", "C:hook.cmd"])
def test_a_relative_path_is_refused(program: Program, word: str) -> None:
    ran = program.here("renew", "--after-activation", word)

    assert ran.exit_code == 2
    assert "use an absolute path" in ran.report["error"]["message"]


def test_a_program_in_python_runs_it_too(program: Program, hook: Hook) -> None:
    names = [word.removeprefix("--") for word in program.options[::2]]
    given = program.here("config show").report["settings"]
    settings = {
        name.replace("-", "_"): row["value"]
        for name, row in given.items()
        if row["from"] != "default" and name != "json"
    }
    assert names

    outcome = renewal.renew(load_config(after_activation=hook.program, **settings))

    assert outcome.error is None
    assert outcome.certificate is not None
    ((facts, _),) = hook.calls()
    assert facts["thumbprint"] == thumbprint(outcome.certificate)
