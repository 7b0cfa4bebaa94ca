"""What a run sends besides mail: news to webhooks, and heartbeats."""

from __future__ import annotations

import json
import re
import ssl
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from letsencrypt_mdaemon.app import notifications
from letsencrypt_mdaemon.cli.checks import EVENTS
from letsencrypt_mdaemon.cli.context import Context
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.system.locks import exclusive_lock
from letsencrypt_mdaemon.system.schedule import MARK
from tests import receivers, schemas
from tests.program import HOST_NAME, PREFIX, Program, Ran
from tests.receivers import SECRET, Answer, Receiver, receiving
from tests.schedulers import Jobs, in_memory

IMAP = "imap.example.test"
LATER = ("--notify-on", "renewed")


@pytest.fixture(autouse=True)
def jobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Jobs:
    """A scheduler with our job, and nothing else."""
    folder = f"--mdaemon-dir={tmp_path / 'MDaemon'}"
    return in_memory(monkeypatch, sys.executable, "-m", "x", "renew", folder, MARK)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A server that accepts everything."""
    with receiving() as server:
        yield server


def job(program: Program, receiver: Receiver, *options: str, ways: str = "") -> Ran:
    """Run what the scheduler runs, with a webhook or a heartbeat or both."""
    environ = {f"{PREFIX}{way}": receiver.url for way in ways.split()}
    return program.here("renew", MARK, *options, environ=environ)


def documents(receiver: Receiver) -> list[dict[str, Any]]:
    """Return what a webhook got since the last time, which is as its schema says."""
    rows = [json.loads(got.body) for got in receiver.got]
    receiver.got.clear()
    for row in rows:
        schemas.check_as("notification", row)
    return rows


def pings(receiver: Receiver) -> list[tuple[str, str]]:
    """Return what heartbeats of one run said since the last time, and their bodies."""
    rows = []
    runs: set[str] = set()
    for got in receiver.got:
        parts = urlsplit(got.path)
        runs.add(*parse_qs(parts.query)["rid"])
        rows.append((parts.path.removeprefix(f"/{SECRET}/"), got.body))
    receiver.got.clear()
    assert len(runs) <= 1
    return rows


def forget_waits(program: Program) -> None:
    """Let the next run try again at once."""
    for file in program.state.rglob("ledger.json"):
        file.unlink()


# News


def test_a_webhook_gets_what_is_news_and_nothing_twice(
    program: Program, ca: CertificateAuthority, receiver: Receiver
) -> None:
    run = partial(job, program, receiver, ways="NOTIFY")
    assert run().exit_code == 0
    assert documents(receiver) == []
    names = ("--alternate-host-names", IMAP)
    ca.resolve = lambda name: None if name == IMAP else "127.0.0.1"

    assert run(*names).exit_code == 4
    (failed,) = documents(receiver)
    forget_waits(program)
    assert run(*names).exit_code == 4
    assert documents(receiver) == [], "nobody is told twice"
    ca.resolve = lambda _: "127.0.0.1"
    forget_waits(program)
    assert run(*names, *LATER).exit_code == 0
    (recovered,) = documents(receiver)

    assert (failed["event"], failed["exit_code"], failed["test"]) == (
        *("failed", 4),
        False,
    )
    assert failed["name"] == HOST_NAME
    assert failed["subject"].startswith(
        f"[{HOST_NAME}] certificate not renewed: {IMAP}"
    )
    assert any(IMAP in line for line in failed["cause"])
    assert failed["advice"]
    assert 80 < failed["days_left"] < 91
    assert "What to do:" in failed["text"]
    assert (recovered["event"], recovered["exit_code"]) == ("recovered", 0)
    assert recovered["failing_since"] is not None


def test_a_name_that_is_dropped_is_told(
    program: Program, ca: CertificateAuthority, receiver: Receiver
) -> None:
    ca.resolve = lambda name: None if name == IMAP else "127.0.0.1"
    options = ("--alternate-host-names", IMAP, "--on-name-failure", "drop")

    assert job(program, receiver, *options, ways="NOTIFY").exit_code == 0

    (document,) = documents(receiver)
    assert (document["event"], document["returned"]) == ("dropped", [])
    assert document["dropped"].keys() == {IMAP}


@pytest.mark.parametrize(
    "answer",
    [
        partial(receivers.with_status, status=500),
        partial(receivers.with_status, status=302, location="https://a.test/"),
        receivers.hang,
        receivers.drip,
        receivers.gigabyte,
    ],
    ids=["500", "redirect", "hang", "drip", "gigabyte"],
)
@pytest.mark.parametrize("way", ["NOTIFY", "HEARTBEAT_URL"])
def test_one_that_fails_is_a_warning_and_changes_no_exit_code(
    program: Program, answer: Answer, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "POST_SECONDS", 0.5)
    with receiving(answer) as server:
        ran = job(program, server, *LATER, "--verbose", ways=way)

    assert ran.exit_code == 0
    assert server.got
    kind = "webhook" if way == "NOTIFY" else "heartbeat"
    wanted = f"Could not send the {kind} to http://{server.host}: "
    assert wanted in ran.messages
    assert wanted in program.log()
    assert SECRET not in ran.messages + ran.output + program.log()


def test_the_next_run_sends_what_could_not_be_sent(
    program: Program, ca: CertificateAuthority, receiver: Receiver
) -> None:
    ca.resolve = lambda _: None
    receiver.answer = partial(receivers.with_status, status=503)
    assert job(program, receiver, ways="NOTIFY").exit_code == 4
    assert len(documents(receiver)) == 1
    receiver.answer = receivers.ok

    forget_waits(program)
    assert job(program, receiver, ways="NOTIFY").exit_code == 4
    assert [row["event"] for row in documents(receiver)] == ["failed"]
    forget_waits(program)
    assert job(program, receiver, ways="NOTIFY").exit_code == 4
    assert documents(receiver) == []


def test_a_file_with_urls_that_is_gone_is_a_warning(
    program: Program, tmp_path: Path
) -> None:
    gone = str(tmp_path / "gone")
    options = ("--notify-file", gone, "--heartbeat-url-file", gone)

    ran = program.here("renew", MARK, *LATER, *options)

    assert ran.exit_code == 0
    for name in ("notify-file", "heartbeat-url-file"):
        assert f"{gone} ({name})" in ran.messages


def test_a_run_that_a_person_started_sends_nothing_unless_asked(
    program: Program,
    receiver: Receiver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Context, "is_typed", property(lambda self: not self.is_marked))
    environ = {f"{PREFIX}NOTIFY": receiver.url, f"{PREFIX}HEARTBEAT_URL": receiver.url}
    assert program.here("renew", *LATER, environ=environ).exit_code == 0
    assert receiver.got == []

    file = tmp_path / "urls"
    file.write_text(receiver.url)
    options = (*LATER, "--force", "--notify-file", str(file))
    assert program.here("renew", *options).exit_code == 0
    assert [row["event"] for row in documents(receiver)] == ["renewed"]


# Heartbeats


def test_a_run_beats_at_its_beginning_and_its_end(
    program: Program, ca: CertificateAuthority, receiver: Receiver
) -> None:
    run = partial(job, program, receiver, ways="HEARTBEAT_URL")
    assert run().exit_code == 0
    (start, (code, body)) = pings(receiver)
    assert start == ("start", "")
    assert code == "0"
    assert "the next renewal is due" in body

    ca.resolve = lambda _: None
    assert run("--force").exit_code == 4
    (start, (code, body)) = pings(receiver)
    assert (start, code) == (("start", ""), "4")
    assert re.search("could not validate .*name", body)


def test_wrong_settings_beat_only_the_end(program: Program, receiver: Receiver) -> None:
    ran = job(program, receiver, "--key-type", "dsa", ways="HEARTBEAT_URL")

    assert ran.exit_code == 2
    ((code, body),) = pings(receiver)
    assert code == "2"
    assert "--key-type" in body


def test_a_config_file_that_is_no_ini_names_who_is_told(
    program: Program, receiver: Receiver, tmp_path: Path
) -> None:
    urls, file = tmp_path / "urls", tmp_path / "our.ini"
    urls.write_text(receiver.url)
    lines = [f"{name} = {urls}" for name in ("notify-file", "heartbeat-url-file")]
    text = "\n".join(["[letsencrypt-mdaemon]", *lines, "this is no INI", ""])
    file.write_text(text)

    ran = program.here("renew", MARK, environ={f"{PREFIX}CONFIG": str(file)})

    assert ran.exit_code == 2
    told, beat = receiver.got
    assert json.loads(told.body)["exit_code"] == 2
    assert urlsplit(beat.path).path == f"/{SECRET}/2"


def test_a_dry_run_a_busy_run_and_other_commands_beat_nothing(
    program: Program, receiver: Receiver
) -> None:
    ways = {f"{PREFIX}HEARTBEAT_URL": receiver.url}
    assert job(program, receiver, ways="HEARTBEAT_URL").exit_code == 0
    receiver.got.clear()

    assert job(program, receiver, "--dry-run", ways="HEARTBEAT_URL").exit_code == 0
    program.here("reload", environ=ways)
    program.here("status", environ=ways)
    with exclusive_lock(program.state / "lock"):
        assert job(program, receiver, ways="HEARTBEAT_URL").exit_code == 6

    assert receiver.got == []


# Secrets


def test_no_url_is_shown(program: Program, receiver: Receiver) -> None:
    environ = {
        f"{PREFIX}NOTIFY": receiver.url,
        f"{PREFIX}NOTIFY_KEY": SECRET,
        f"{PREFIX}HEARTBEAT_URL": receiver.url,
    }
    shown = program.here("config show", environ=environ)
    ran = program.here("renew", MARK, *LATER, "--verbose", environ=environ)

    assert (shown.exit_code, ran.exit_code) == (0, 0)
    assert len(receiver.got) == 3
    for got in receiver.got:
        assert SECRET not in got.body
    assert SECRET not in shown.output + shown.messages
    assert SECRET not in ran.output + ran.messages + program.log()


@pytest.mark.parametrize("name", ["NOTIFY", "HEARTBEAT_URL"])
def test_a_wrong_url_is_refused_and_not_quoted(program: Program, name: str) -> None:
    ran = program.here("config show", environ={f"{PREFIX}{name}": f"https:/{SECRET}"})

    assert ran.exit_code == 2
    wanted = f"{PREFIX}{name}: is not valid; use URLs such as https://HOST/PATH"
    assert wanted in ran.report["error"]["message"]
    assert SECRET not in ran.output + ran.messages


# notify-test


@pytest.mark.parametrize("event", ["", *EVENTS])
def test_notify_test_sends_an_example_by_every_way(
    program: Program, receiver: Receiver, event: str
) -> None:
    with receiving() as heart:
        environ = {
            f"{PREFIX}NOTIFY": f"{receiver.url} json://{receiver.host}/{SECRET}",
            f"{PREFIX}HEARTBEAT_URL": heart.url,
        }
        options = ("--event", event) if event else ()
        ran = program.here("notify-test", *options, environ=environ)

    assert ran.exit_code == 0, ran.messages
    where = f"http://{receiver.host}"
    assert ran.report["notified"] == [
        {"kind": "webhook", "where": where},
        {"kind": "apprise", "where": "json://..."},
        {"kind": "heartbeat", "where": f"http://{heart.host}"},
    ]
    assert ran.report["verdict"].startswith(
        f"Sent the webhook to {where}; the message by"
    )
    assert pings(heart) == [("log", "This is a test.")]
    found = {got.headers.get("webhook-id") is not None: got for got in receiver.got}
    document = json.loads(found[True].body)
    schemas.check_as("notification", document)
    assert (document["event"], document["test"]) == (event or "test", True)
    by_apprise = json.loads(found[False].body)
    assert by_apprise["title"] == document["subject"]
    assert SECRET not in ran.output + ran.messages


def test_a_webhook_must_have_a_trusted_certificate(
    program: Program, ca: CertificateAuthority
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca.folder / "https-key.pem")
    with receiving(context=context) as server:
        environ = {f"{PREFIX}NOTIFY": server.url}
        distrusted = program.here("notify-test", environ=environ)
        environ["REQUESTS_CA_BUNDLE"] = str(ca.ca_bundle)
        trusted = program.here("notify-test", environ=environ)

    assert (distrusted.exit_code, trusted.exit_code) == (1, 0)
    message = distrusted.report["error"]["message"]
    wanted = f"Could not make a trusted TLS connection to https://{server.host}: "
    assert wanted in message
    assert len(server.got) == 1


def test_notify_test_fails_with_everything_that_was_not_sent(
    program: Program, receiver: Receiver
) -> None:
    receiver.answer = partial(receivers.with_status, status=500)
    environ = {f"{PREFIX}NOTIFY": receiver.url, f"{PREFIX}HEARTBEAT_URL": receiver.url}
    to = ("--to", "a@example.test", "--mail-server")

    bad = program.here("notify-test", *to, "smtp://127.0.0.1:1", environ=environ)
    url = f"smtp://127.0.0.1:{program.server.smtp_port}"
    mailed = program.here("notify-test", *to, url, environ=environ)

    assert (bad.exit_code, mailed.exit_code) == (1, 1)
    first, second, third = bad.report["error"]["message"].splitlines()
    assert "did not accept the mail" in first
    assert second.startswith(f"Could not send the webhook to http://{receiver.host}: ")
    assert third.startswith("Could not send the heartbeat to ")
    assert len(mailed.report["error"]["message"].splitlines()) == 2
    assert mailed.report["error"]["hint"] == f"Sent to a@example.test by {url}."
