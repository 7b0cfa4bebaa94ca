"""Notifications and heartbeats to servers that behave, and to servers that do not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Thread

import pytest

from letsencrypt_mdaemon.app import notifications
from letsencrypt_mdaemon.app.notifications import Message, Sent
from letsencrypt_mdaemon.config.load import load
from letsencrypt_mdaemon.config.settings import Config
from letsencrypt_mdaemon.errors import ConfigError
from tests import receivers
from tests.receivers import SECRET, Answer, receiving

MESSAGE = Message("A subject", "A text\nof lines: ö", json.dumps({"event": "test"}))
RUN = "c0ffee00-0000-4000-8000-000000000000"
KEY = "a key"

BAD_ANSWERS: dict[str, tuple[Answer, str]] = {
    "500": (partial(receivers.with_status, status=500), "answered 500."),
    "304": (
        partial(receivers.with_status, status=304),
        "answered 304, a redirect, which is not followed.",
    ),
    "404": (partial(receivers.with_status, status=404), "answered 404."),
    "hang": (receivers.hang, "Could not reach "),
    "drip": (receivers.drip, "Could not reach "),
    "drip the head": (receivers.drip_head, "Could not reach "),
    "gigabyte": (receivers.gigabyte, "sent more than 65536 bytes."),
    "hang up": (receivers.hang_up, "Could not reach "),
}


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up early what never comes."""
    monkeypatch.setattr(notifications, "POST_SECONDS", 0.5)


def notified(*urls: str, key: str = "") -> list[Sent]:
    """Send the message to URLs, which stand in the environment."""
    return notifications.send(Config(notify=" ".join(urls), notify_key=key), MESSAGE)


def sends(url: str) -> list[Sent]:
    """Send the message to a URL."""
    return notified(url)


def beats(url: str) -> list[Sent]:
    """Send a heartbeat to a URL."""
    return notifications.beat(Config(heartbeat_url=url), "0", RUN, ["The log"])


def test_a_webhook_gets_the_document_signed_with_the_time() -> None:
    with receiving() as server:
        began = int(time.time())
        assert notified(server.url, key=KEY) == [
            Sent("webhook", f"http://{server.host}", "")
        ]

    (got,) = server.got
    assert (got.path, got.body) == (f"/{SECRET}", MESSAGE.document)
    assert got.headers["Content-Type"] == "application/json"
    assert got.headers["User-Agent"].startswith("letsencrypt-mdaemon/")
    identifier, stamp = got.headers["webhook-id"], got.headers["webhook-timestamp"]
    assert began <= int(stamp) <= time.time()
    signed = f"{identifier}.{stamp}.{got.body}".encode()
    digest = hmac.new(KEY.encode(), signed, hashlib.sha256).digest()
    wanted = f"v1,{base64.b64encode(digest).decode()}"
    assert got.headers["webhook-signature"] == wanted


def test_each_message_has_an_identifier_of_its_own() -> None:
    with receiving() as server:
        notified(server.url)
        notified(server.url)

    assert len({got.headers["webhook-id"] for got in server.got}) == 2


def test_a_heartbeat_has_the_exit_code_the_run_and_the_log() -> None:
    with receiving() as server:
        config = Config(heartbeat_url=f"{server.url}/?create=1")
        for what, lines in {"start": (), "4": ("It failed", "zwölf €")}.items():
            found = notifications.beat(config, what, RUN, lines)
            assert found == [Sent("heartbeat", f"http://{server.host}", "")]

    start, end = server.got
    assert start.path == f"/{SECRET}/start?create=1&rid={RUN}"
    assert start.body == ""
    assert end.path == f"/{SECRET}/4?create=1&rid={RUN}"
    assert end.body == "It failed\nzwölf €"


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("send", [sends, beats])
@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_what_is_not_accepted_is_said_without_the_secret(
    name: str, send: Callable[[str], list[Sent]]
) -> None:
    answer, wanted = BAD_ANSWERS[name]
    with receiving(answer) as server:
        ((_, where, problem),) = send(server.url)

    assert len(server.got) == 1
    assert where == f"http://{server.host}"
    assert wanted in problem
    assert SECRET not in problem
    # What the sockets hold, and no more.
    assert server.written < receivers.GIGABYTE // 4


@pytest.mark.parametrize("send", [sends, beats])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(
    status: int, send: Callable[[str], list[Sent]]
) -> None:
    with receiving() as other:
        answer = partial(receivers.with_status, status=status, location=other.url)
        with receiving(answer) as server:
            ((_, _, problem),) = send(server.url)

    assert other.got == []
    assert f"answered {status}, a redirect, which is not followed." in problem
    assert other.host not in problem


def test_who_does_not_listen_is_said_without_the_secret() -> None:
    ((_, where, problem),) = notified(f"http://127.0.0.1:1/{SECRET}")

    assert where == "http://127.0.0.1:1"
    assert problem.startswith("Could not reach http://127.0.0.1:1: ")
    assert SECRET not in problem


@pytest.mark.usefixtures("soon")
def test_who_hangs_keeps_nothing_from_the_others() -> None:
    with receiving(receivers.hang) as bad, receiving() as good:
        found = notified(bad.url, good.url)

    assert [bool(row.problem) for row in found] == [True, False]
    assert len(good.got) == 1


def test_all_together_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "ALL_SECONDS", 0.5)
    with receiving(receivers.hang) as server:
        ((_, _, problem),) = notified(server.url)

    assert problem == "It did not answer within 0 s."


@pytest.mark.parametrize("send", [sends, beats])
@pytest.mark.parametrize("url", ["http://a.test/x", "https://user:pass@a.test/x"])
def test_nothing_is_sent_without_tls_or_with_a_login(
    url: str, send: Callable[[str], list[Sent]]
) -> None:
    ((_, where, problem),) = send(url)

    assert where in {"http://a.test", "https://a.test"}
    wanted = "Its URL must begin with https:// and a host, without a login."
    assert problem == f"{wanted} Correct the setting."


# Files


def configured(folder: Path, **files: str | bytes) -> Config:
    """Return the settings with files."""
    options: dict[str, tuple[str, ...]] = {}
    for name, content in files.items():
        file = folder / f"{name}.txt"
        data = content if isinstance(content, bytes) else content.encode()
        file.write_bytes(data)
        options[name.replace("_", "-")] = (str(file),)
    return load(options, {}, None).config


def test_urls_and_key_come_from_files(tmp_path: Path) -> None:
    with receiving() as server:
        text = f"# ours\r\n; old\r\n\r\n {server.url} \r\n{server.url}/b\r\n"
        config = configured(
            tmp_path,
            notify_file="\ufeff" + text,
            notify_key_file=f"{KEY}\r\n",
            heartbeat_url_file=f"{server.url}\n",
        )
        assert notifications.is_set(config)
        assert notifications.beats(config)
        found = notifications.send(config, MESSAGE)
        found += notifications.beat(config, "0", RUN)

    assert [row.problem for row in found] == ["", "", ""]
    assert len(server.got) == 3
    signed = {row.path for row in server.got if "webhook-signature" in row.headers}
    assert signed == {f"/{SECRET}", f"/{SECRET}/b"}


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("notify_file", "", "notify_file.txt (notify-file) is empty."),
        ("notify_file", "# only\n", "notify_file.txt (notify-file) is empty."),
        ("notify_file", f"\n{SECRET}\n", "Line 2 of "),
        ("notify_file", f"json://{SECRET}\0/x", "Line 1 of "),
        ("notify_file", f"{SECRET} https://a.test/x", "Line 1 of "),
        ("notify_file", b"\xff", "Could not read "),
        ("heartbeat_url_file", "\n", "(heartbeat-url-file) is empty."),
        ("notify_key_file", " \n", "(notify-key-file) is empty."),
    ],
)
def test_a_file_that_is_of_no_use_is_said_and_not_quoted(
    name: str, content: str | bytes, wanted: str, tmp_path: Path
) -> None:
    files: dict[str, str | bytes] = {"notify_file": "https://a.test/x", name: content}
    config = configured(tmp_path, **files)

    with pytest.raises(ConfigError) as caught:
        _ = notifications.beat(config, "0", RUN), notifications.send(config, MESSAGE)

    assert wanted in caught.value.message
    assert SECRET not in f"{caught.value.message} {caught.value.hint}"


def test_a_file_that_is_missing_is_said(tmp_path: Path) -> None:
    config = Config(notify_file=tmp_path / "gone")

    with pytest.raises(ConfigError, match=r"Could not read .*gone \(notify-file\)"):
        notifications.send(config, MESSAGE)


def test_a_key_that_is_no_key_is_said_and_nothing_is_sent() -> None:
    with receiving() as server:
        ((_, _, problem),) = notified(server.url, key=f"whsec_{SECRET}")

    assert problem == "notify-key is not Base64 after whsec_. Write another one."
    assert server.got == []


def test_the_same_url_gets_one_message() -> None:
    with receiving() as server:
        assert len(notified(server.url, server.url)) == 1

    assert len(server.got) == 1


def test_a_machine_without_threads_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Thread) -> None:
        raise RuntimeError("can't start new thread")

    with receiving() as server:
        monkeypatch.setattr(Thread, "start", fail)
        ((_, _, problem),) = notified(server.url)
        monkeypatch.undo()

    assert problem == "This machine is out of threads or memory."


def test_nothing_set_sends_nothing() -> None:
    config = Config()

    assert not notifications.is_set(config)
    assert not notifications.beats(config)
    assert notifications.send(config, MESSAGE) == []
    assert notifications.beat(config, "0", RUN) == []
