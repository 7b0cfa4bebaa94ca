"""Send notifications that are no mail, and heartbeats; their URLs are secrets."""

from __future__ import annotations

import time
import uuid
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.app import credentials
from letsencrypt_mdaemon.errors import AcmeError, ConfigError, Error
from letsencrypt_mdaemon.notify import address, heartbeat, relay, webhook
from letsencrypt_mdaemon.system import parallel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from letsencrypt_mdaemon.config.settings import Config

POST_SECONDS = 10.0
"""For one request, from the connection to the last byte of the answer."""

ALL_SECONDS = 20.0
"""For all of them together, with what nothing else bounds: DNS, and Apprise."""

MAX_ANSWER_BYTES = 64 << 10


class Message(NamedTuple):
    """What is sent.

    Args:
        document: The JSON for webhooks.
    """

    subject: str
    text: str
    document: str


class Sent(NamedTuple):
    """What became of one notification.

    Args:
        where: The part of its URL that is no secret.
        problem: Why it was not sent; "" if it was.
    """

    kind: str
    where: str
    problem: str

    @property
    def what(self) -> str:
        """It, in words."""
        name = "message by Apprise" if self.kind == "apprise" else self.kind
        return f"the {name} to {self.where}"


def is_set(config: Config) -> bool:
    """Whether anything but mail is to be sent."""
    return bool(config.notify or config.notify_file)


def beats(config: Config) -> bool:
    """Whether heartbeats are to be sent."""
    return bool(config.heartbeat_url or config.heartbeat_url_file)


def send(config: Config, message: Message) -> list[Sent]:
    """Send a message by each URL of the settings, all at once.

    Raises:
        ConfigError: If their file or the key cannot be read.
    """
    if not is_set(config):
        return []
    urls = _urls(config.notify, config.notify_file, "notify-file")
    key = config.notify_key
    if config.notify_key_file:
        key = credentials.secret(config.notify_key_file, "notify-key-file").strip()
        if not key:
            what = f"{config.notify_key_file} (notify-key-file) is empty."
            raise ConfigError(what, hint="Write the key into it.")
    acts: dict[int, tuple[str, str, Callable[[], None]]] = {}
    for number, url in enumerate(dict.fromkeys(urls)):
        if address.scheme(url) in {"http", "https"}:
            act = partial(_post_signed, url, message.document, key)
            acts[number] = ("webhook", address.shown(url), act)
        else:
            act = partial(relay.send, url, message.subject, message.text)
            acts[number] = ("apprise", f"{address.scheme(url)}://...", act)
    return _all(acts)


def beat(config: Config, what: str, run: str, lines: Iterable[str] = ()) -> list[Sent]:
    """Send a heartbeat.

    Args:
        what, run: See `heartbeat.url`.
        lines: The log; its end is sent.

    Raises:
        ConfigError: If the file with its URL cannot be read.
    """
    if not beats(config):
        return []
    urls = _urls(config.heartbeat_url, config.heartbeat_url_file, "heartbeat-url-file")
    body = heartbeat.body(lines)
    acts: dict[int, tuple[str, str, Callable[[], None]]] = {
        number: ("heartbeat", address.shown(url), partial(_ping, url, what, run, body))
        for number, url in enumerate(dict.fromkeys(urls))
    }
    return _all(acts)


def _urls(value: str, file: Path | None, name: str) -> list[str]:
    """Return the URLs of a setting, or those of its file, without remarks.

    Raises:
        ConfigError: If the file has none, or something else; it is not quoted.
    """
    if file is None:
        return value.split()
    text = credentials.secret(file, name)
    lines = {number: line.strip() for number, line in enumerate(text.splitlines(), 1)}
    found = {no: line for no, line in lines.items() if line and line[0] not in "#;"}
    for number, line in found.items():
        if not address.scheme(line) or not line.isprintable():
            message = f"Line {number} of {file} ({name}) is not a URL."
            raise ConfigError(message, hint="Write one URL in each line.")
    if not found:
        raise ConfigError(f"{file} ({name}) is empty.", hint="Write a URL into it.")
    return list(found.values())


def _all(acts: Mapping[int, tuple[str, str, Callable[[], None]]]) -> list[Sent]:
    def ask(number: int) -> str:
        try:
            acts[number][2]()
        except Error as exc:
            return f"{exc.message} {exc.hint}".strip()
        except Exception as exc:  # noqa: BLE001 - no run fails of it, and it may quote
            return f"Unexpected: {type(exc).__name__}."
        return ""

    late = f"It did not answer within {ALL_SECONDS:.0f} s."
    try:
        found = parallel.ask_all(ask, acts, timeout=ALL_SECONDS)
    except RuntimeError:
        found, late = {}, "This machine is out of threads or memory."
    return [
        Sent(kind, where, found.get(number, late))
        for number, (kind, where, _) in acts.items()
    ]


def _post_signed(url: str, body: str, key: str) -> None:
    try:
        identifier = f"msg_{uuid.uuid4().hex}"
        now = int(time.time())
        headers = webhook.headers(body, key, identifier=identifier, timestamp=now)
    except ValueError as exc:
        message = f"notify-key {exc}."
        raise ConfigError(message, hint="Write another one.") from None
    _post(url, body, headers)


def _ping(url: str, what: str, run: str, body: str) -> None:
    _require(url)
    _post(
        heartbeat.url(url, what, run),
        body,
        {"Content-Type": "text/plain; charset=utf-8"},
    )


def _require(url: str) -> None:
    try:
        address.require_https(url)
    except ValueError as exc:
        raise ConfigError(f"Its URL {exc}.", hint="Correct the setting.") from None


def _post(url: str, body: str, headers: Mapping[str, str]) -> None:
    """Send a request by the rules for a CA: in time, within limits, never redirected.

    Raises:
        Error: If it is not accepted; no message has more of the URL than the host.
    """
    from letsencrypt_mdaemon.acme import exchange  # noqa: PLC0415 - slow

    _require(url)
    try:
        reply = exchange.send(
            exchange.Adapter(),
            "POST",
            url,
            seconds=POST_SECONDS,
            most=MAX_ANSWER_BYTES,
            by=exchange.route(url),
            headers=headers,
            data=body,
        )
    except AcmeError as exc:
        text = exc.message.replace(url, address.shown(url))
        hint = "Check the network, DNS and the proxy."
        raise Error(address.without(text, url), hint=hint) from None
    status = reply.status
    if not 200 <= status < 300:  # noqa: PLR2004 - RFC 9110, 15.3
        what = f"{status}"
        if 300 <= status < 400:  # noqa: PLR2004 - RFC 9110, 15.4
            what += ", a redirect, which is not followed"
        message = f"{address.shown(url)} answered {what}."
        raise Error(message, hint="Check its URL, and what its own log says.")
