"""The words of the mails: subjects that fit, and bodies in whole sentences."""

from __future__ import annotations

import re
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from letsencrypt_mdaemon.cli import letter
from letsencrypt_mdaemon.cli.checks import EVENTS
from letsencrypt_mdaemon.cli.letter import MAX_CAUSE_CHARACTERS, About, cause, write
from letsencrypt_mdaemon.errors import ChallengeError, DeployError, Error
from letsencrypt_mdaemon.state.news import Event
from letsencrypt_mdaemon.state.told import Told
from tests.program import here

PAGE = (Path(__file__).parents[2] / "docs/notifications.md").read_text("utf-8")
NAME, NOW = "mail.example.test", datetime(2027, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
START = f"[{NAME}] certificate not renewed: "
PORTS = [f"https://127.0.0.1:{port}" for port in range(8443, 8449)]
NAMES = [f"{first}.example.test" for first in "abcdefg"]


def mail(
    event: Event = Event.FAILED,
    told: Told | None = None,
    **about: Any,  # noqa: ANN401 - as `About` takes it
) -> tuple[str, list[str]]:
    """Return a mail."""
    found = About(NAME, NOW, told or Told())
    return write(event, found._replace(**about))


def subject_of(message: str, *names: str) -> str:
    """Return the cause in the subject of the mail about a failure."""
    error: Error = Error(message)
    if names:
        error = ChallengeError(message, names=dict.fromkeys(names, message))
    subject, _ = mail(cause=cause(error, {}))
    assert subject.startswith(START)
    return subject.removeprefix(START)


@pytest.mark.parametrize("padding", range(MAX_CAUSE_CHARACTERS))
def test_no_url_in_a_subject_is_cut(padding: int) -> None:
    url = "https://ca.example.test/directory/with/a/long/path?and=query"

    words = subject_of(f"{'a ' * (padding // 2)}{'b' * (padding % 2)} {url} is down")

    assert "://" not in words or url in words
    assert len(words) <= MAX_CAUSE_CHARACTERS


def test_a_long_list_ends_at_a_comma_and_counts_the_rest() -> None:
    assert subject_of(f"These ports are old: {', '.join(PORTS)}. 1 of 7 proven") == (
        f"These ports are old: {', '.join(PORTS[:2])} and 4 more"
    )
    long = "The server's files name the new certificate, but these ports serve the old"
    assert subject_of(f"{long}: {', '.join(PORTS)}.") == (
        f"{long}: {PORTS[0]} and 5 more"
    )
    assert subject_of("They failed", *NAMES) == f"{', '.join(NAMES[:3])} and 4 more"
    assert subject_of("They failed", *NAMES[:3]) == ", ".join(NAMES[:3])


def test_a_long_sentence_ends_at_a_space() -> None:
    words = subject_of("If it fails, which it does, " + "word " * 40)

    assert words.endswith("word word...")
    assert len(words) <= MAX_CAUSE_CHARACTERS


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (3 * DAY, ": x, for 3 days, 7th run"),
        (timedelta(hours=5), ": x, for 5 hours, 7th run"),
        (timedelta(seconds=90), ": x, 7th run"),
    ],
)
def test_a_subject_says_for_how_long(span: timedelta, words: str) -> None:
    told = Told(failure="x", since=NOW - span, runs=7)

    subject, lines = mail(Event.AGAIN, told, cause=cause(Error("x"), {}))

    assert subject.endswith(words)
    (line,) = [line for line in lines if line.endswith(", 7 runs.")]
    assert line.startswith("It has failed since ")


def test_the_host_has_a_line_of_its_own_and_a_sentence_follows() -> None:
    _, lines = mail(Event.RENEWED, result="the names changed: with x")
    assert lines[:3] == [
        f"Host: {socket.gethostname()}",
        "",
        "The names changed: with x.",
    ]

    _, lines = mail(cause=cause(Error("x"), {}))
    assert lines[2] == "The certificate was not renewed (exit 1)."
    _, lines = mail(cause=cause(DeployError("x"), {}))
    assert lines[2] == "The certificate is not properly in use (exit 5)."


@pytest.mark.parametrize("kind", EVENTS)
def test_the_docs_show_the_subject_of_each_event(kind: str) -> None:
    (row,) = re.findall(rf"^\| `{kind}` \| .* \| `(.*)` \|$", PAGE, re.MULTILINE)

    subject, _ = letter.example(kind)

    assert re.sub(r"\d+", "9", f"TEST {row}") == re.sub(r"\d+", "9", subject)


@pytest.mark.parametrize("word", ["fail", "would fail", "recover", "expiry"])
def test_the_help_of_to_says_what_is_mailed(word: str) -> None:
    said = " ".join(here(["renew", "--help-all"]).output.split())

    assert word in said.partition("--to ")[2].partition("--notify-on")[0]


def test_a_mail_about_the_end_says_what_to_do() -> None:
    told = Told(begins=NOW - 83 * DAY, ends=NOW + 7 * DAY)

    subject, lines = mail(Event.EXPIRING, told, result="nothing is due")

    assert subject == f"[{NAME}] certificate expires in 7 days"
    todo = lines.index("What to do:")
    assert "Run `status`" in lines[todo + 1]
    _, lines = letter.example("expiring")
    assert "What to do:" in lines
    _, lines = mail(Event.EXPIRING, told, cause=cause(Error("x", hint="Do y."), {}))
    assert lines[lines.index("What to do:") + 1] == "  Do y."
