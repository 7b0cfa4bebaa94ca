"""Notifications by Apprise, the real one, to a server on this machine."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import apprise
import pytest

from letsencrypt_mdaemon.app import notifications
from letsencrypt_mdaemon.app.notifications import Message, Sent
from letsencrypt_mdaemon.config.settings import Config
from tests import receivers
from tests.limits import HANG_SECONDS
from tests.receivers import SECRET, Answer, receiving

MESSAGE = Message("A subject", "A text\nof lines: ö", "{}")


def notified(*urls: str) -> list[Sent]:
    """Send the message to URLs, which stand in the environment."""
    return notifications.send(Config(notify=" ".join(urls), notify_key="key"), MESSAGE)


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What comes to a log of everything, but for the library that speaks HTTP."""
    text = io.StringIO()
    handler, root = logging.StreamHandler(text), logging.getLogger()
    handler.addFilter(lambda record: not record.name.startswith("urllib3"))
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.setLevel(level)
    root.removeHandler(handler)


def test_apprise_gets_subject_and_text() -> None:
    with receiving() as server:
        found = notified(f"json://{server.host}/{SECRET}")

    assert found == [Sent("apprise", "json://...", "")]
    (got,) = server.got
    assert got.path == f"/{SECRET}"
    document: dict[str, Any] = json.loads(got.body)
    assert (document["title"], document["message"]) == (MESSAGE.subject, MESSAGE.text)


@pytest.mark.parametrize(
    "answer",
    [
        partial(receivers.with_status, status=500),
        receivers.hang,
        receivers.hang_up,
    ],
)
def test_what_apprise_cannot_send_is_said_without_the_secret(
    answer: Answer, logged: io.StringIO
) -> None:
    with receiving(answer) as server:
        url = f"json://user:{SECRET}@{server.host}/{SECRET}?rto=0.5"
        ((_, where, problem),) = notified(url)

    assert len(server.got) == 1
    assert where == "json://..."
    assert problem.startswith("Apprise could not send to the service json://. Check ")
    assert SECRET not in problem + logged.getvalue()


@pytest.mark.parametrize("status", [302, 307])
def test_apprise_follows_no_redirect(status: int) -> None:
    with receiving() as other:
        answer = partial(receivers.with_status, status=status, location=other.url)
        with receiving(answer) as server:
            ((_, _, problem),) = notified(f"json://{server.host}/{SECRET}")

    assert problem
    assert (len(server.got), other.got) == (1, [])


def test_a_service_that_apprise_does_not_know_is_said(
    logged: io.StringIO,
) -> None:
    ((_, where, problem),) = notified(f"nonsense://{SECRET}/x")

    assert where == "nonsense://..."
    wanted = "Apprise does not know the service nonsense://, or the rest of its URL is"
    assert problem.startswith(wanted)
    assert SECRET not in logged.getvalue()


def test_an_unexpected_failure_of_apprise_is_said_without_the_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(apprise.Apprise, "instantiate", fail)

    ((_, _, problem),) = notified(f"json://{SECRET}")

    assert problem.startswith("Could not notify the service json://: RuntimeError.")
    assert SECRET not in problem


def test_without_apprise_it_is_said_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with receiving() as server:
        rows = notified(f"tgram://{SECRET}/1", server.url)

    wanted = "Could not notify the service tgram://: Apprise is not installed. "
    wanted += "Install it: pip install letsencrypt-mdaemon[apprise]."
    assert [row.problem for row in rows] == [wanted, ""]
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    ((_, _, problem),) = notified(f"tgram://{SECRET}/1")
    assert problem.endswith("The program without Python cannot have it: use a webhook.")


IMPORTED = """\
import sys
from letsencrypt_mdaemon.app import notifications
from letsencrypt_mdaemon.config.settings import Config
message = notifications.Message("subject", "text", "{}")
for url in sys.argv[1:]:
    ((_, _, problem),) = notifications.send(Config(notify=url), message)
    print(problem or "sent", "apprise" in sys.modules)
"""


def test_apprise_is_imported_only_when_it_sends() -> None:
    with receiving() as server:
        urls = [server.url, f"json://{server.host}"]
        done = subprocess.run(
            [sys.executable, "-c", IMPORTED, *urls],
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
            check=True,
        )

    assert done.stdout.splitlines() == ["sent False", "sent True"]
