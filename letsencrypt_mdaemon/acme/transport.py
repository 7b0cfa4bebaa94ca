"""One conversation with a CA: HTTPS, nonces, retries, Retry-After, problem documents.

`acme` and `josepy` supply the JWS. The transport's policy is ours: theirs retries a
rejected nonce once and nothing else, and drops Retry-After and problem documents.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections import deque
from datetime import UTC, datetime
from threading import Condition, Lock
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests

from letsencrypt_mdaemon._version import __version__
from letsencrypt_mdaemon.acme.http import (
    MAX_BODY_BYTES,
    Adapter,
    Reply,
    TransientError,
    http_date,
    read,
    unanswered,
)
from letsencrypt_mdaemon.acme.jws import Signer, sign
from letsencrypt_mdaemon.acme.problem import ERROR, MAX_PAUSE_SECONDS, kind_of, refuse
from letsencrypt_mdaemon.errors import AcmeError
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


_log = logging.getLogger(__name__)


NONCE_ATTEMPTS = 100
"""At a CA that rejects 9 of 10 nonces, 1 request in 40,000 still fails."""


ATTEMPTS = 4
"""Attempts for a request that was lost on the way or met an overloaded CA."""


NONCE_WAIT_SECONDS = 0.02
"""Seconds to wait for the nonce that another thread's answer brings.

Then one is fetched, which lets one more request be under way for good: a CA that is
near answers sooner, and is hardly asked for more than the first.
"""


class Session:
    """Requests to one CA.

    May be used by several threads at once.

    Args:
        ca_bundle: PEM file with the only roots to trust for the CA's HTTPS; None =
            those of REQUESTS_CA_BUNDLE, or else Mozilla's. Proxies come from the
            environment, on Windows also from the system's settings.
        timeout: Seconds that the CA may be silent.
        delay: Seconds, of which a random part is waited before the first request, so
            that not all servers of the world ask the CA at once.
        sleep: Waits for some seconds.
    """

    def __init__(
        self,
        directory_url: str,
        *,
        ca_bundle: Path | None = None,
        timeout: float = 45.0,
        delay: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.directory_url = directory_url
        self._verify: bool | str = str(ca_bundle) if ca_bundle else True
        self._timeout = (min(timeout, 10.0), timeout)
        self._sleep = sleep
        self._delay = delay
        self._starting = Lock()
        self._nonces: deque[str] = deque(maxlen=50)
        self._under_way = 0
        self._answered = Condition()
        self._last_answer = 0.0
        self._dated: datetime | None = None
        self._came = datetime.now(UTC)
        self._directory: dict[str, Any] | None = None
        self._http = requests.Session()
        self._http.mount("https://", Adapter())
        self._ways: dict[str, Mapping[str, Any]] = {}
        # RFC 8555, 6.1: name and version of the client.
        agent = f"letsencrypt-mdaemon/{__version__}"
        self._headers = {**self._http.headers, "User-Agent": agent}

    @property
    def directory(self) -> dict[str, Any]:
        """The CA's directory (RFC 8555, 7.1.1), fetched once."""
        if self._directory is None:
            try:
                directory = self.get(self.directory_url).document()
            except AcmeError as exc:
                exc.hint = exc.hint or "Check directory-url."
                raise
            needed = ("newNonce", "newAccount", "newOrder")
            missing = [x for x in needed if not isinstance(directory.get(x), str)]
            if missing:
                message = f"{printable(self.directory_url, 300)} is no ACME directory: "
                message += f"it names no {', '.join(missing)}."
                raise AcmeError(message, hint="Check directory-url.")
            self._directory = directory
        return self._directory

    @property
    def meta(self) -> dict[str, Any]:
        """What the CA says of itself (`meta` in its directory)."""
        meta = self.directory.get("meta")
        return meta if isinstance(meta, dict) else {}

    @property
    def clocks(self) -> tuple[datetime, datetime] | None:
        """Our time and the CA's, when it answered last; None if it told none.

        RFC 9110, 6.6.1 (`Date`).
        """
        return (self._came, self._dated) if self._dated is not None else None

    def now(self) -> datetime:
        """Return the time, by our clock or by the CA's, whichever is ahead.

        What it has just issued may not be valid yet by ours, and is by others'.
        """
        ours = datetime.now(UTC)
        return max(ours, *self.clocks or (ours,))

    def get(self, url: str) -> Reply:
        """Fetch a public resource.

        Raises:
            AcmeError: If it cannot be had.
        """
        return self._attempt(lambda: self._accept(self._send("GET", url)))

    def post(
        self,
        url: str,
        payload: object,
        signer: Signer,
        *,
        accept: str = "",
    ) -> Reply:
        """Send a signed request (RFC 8555, 6.2).

        Args:
            payload: What to send as JSON; None makes it a POST-as-GET (6.3).

        Raises:
            TransientError: If the CA cannot be reached or is overloaded.
            AcmeError: If it refuses.
        """
        body = b"" if payload is None else json.dumps(payload).encode()
        headers = {"Content-Type": "application/jose+json"}
        if accept:
            headers["Accept"] = accept

        new_nonce = self.directory["newNonce"]

        def once() -> Reply:
            nonce = self._spare_nonce()
            try:
                nonce = nonce or self._new_nonce(new_nonce)
                for _ in range(NONCE_ATTEMPTS):
                    signed = sign(url, body, signer, nonce)
                    reply = self._send("POST", url, headers, signed)
                    if kind_of(reply.problem) != "badNonce":
                        return self._accept(reply)
                    # 6.5: the rejection brings a fresh nonce, for this request and no
                    # other thread's. Its detail may quote the old one: it is not shown.
                    nonce = reply.nonce or self._new_nonce(new_nonce)
            finally:
                with self._answered:
                    self._under_way -= 1
                    self._last_answer = time.monotonic()
                    self._answered.notify()
            message = f"{printable(url, 300)} refused {NONCE_ATTEMPTS} nonces of its own, one "
            raise AcmeError(
                f"{message}after the other.",
                hint="Run again; if it happens again, ask the CA's operators.",
                problem={"type": f"{ERROR}badNonce"},
            )

        return self._attempt(once)

    def _spare_nonce(self) -> str:
        """Return the freshest nonce at hand, as old ones may have expired; "" if none.

        One that another request may bring in a moment is waited for.
        """
        with self._answered:
            while self._under_way and not self._nonces:
                self._answered.wait(NONCE_WAIT_SECONDS)
                if time.monotonic() > self._last_answer + NONCE_WAIT_SECONDS:
                    break
            self._under_way += 1
            return self._nonces.pop() if self._nonces else ""

    def _new_nonce(self, url: str) -> str:
        """Fetch a nonce (RFC 8555, 7.2)."""
        reply = self._send("HEAD", url)
        if reply.is_refusal:
            refuse(reply)
        if not reply.nonce:
            message = f"{printable(url, 300)} gave no nonce in its Replay-Nonce."
            hint = "Check that directory-url is the URL of an ACME directory."
            raise AcmeError(message, hint=hint)
        return reply.nonce

    def _attempt(self, send: Callable[[], Reply]) -> Reply:
        """Send, and again after a pause if that failed for a reason that may pass."""
        pause = 0.5
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return send()
            except TransientError as exc:
                wait = max(exc.retry_after or 0.0, pause)
                if attempt == ATTEMPTS or wait > MAX_PAUSE_SECONDS:
                    raise
                _log.info("%s Trying again in %.3g s.", exc, wait)
                self._sleep(wait * random.uniform(1, 1.2))  # noqa: S311 - no secret
                pause *= 3
        raise AssertionError  # pragma: no cover - the loop returns or raises

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] = MappingProxyType({}),
        data: str | None = None,
    ) -> Reply:
        self._hold_back()
        try:
            # Without the session's cookies, and without what .netrc knows of the host:
            # a signature says who asks.
            heads = {**self._headers, **headers}
            with self._http.send(
                requests.Request(method, url, heads, data=data).prepare(),
                timeout=self._timeout,
                allow_redirects=method == "GET",
                **self._way(url),
            ) as response:
                reply = Reply(
                    url, response.status_code, response.headers, read(response)
                )
        except (requests.RequestException, OSError, ValueError) as exc:
            raise unanswered(printable(url, 300), exc) from exc
        self._came = datetime.now(UTC)
        self._dated = http_date(response.headers.get("Date", ""))
        if len(reply.body) > MAX_BODY_BYTES:
            message = f"{printable(url, 300)} sent more than {MAX_BODY_BYTES} bytes."
            raise AcmeError(message, hint="Check directory-url.")
        return reply

    def _hold_back(self) -> None:
        """Wait before the first request of all; the others wait as well."""
        with self._starting:
            if not self._delay:
                return
            delay, self._delay = random.uniform(0, self._delay), 0.0  # noqa: S311
            if delay >= 1:
                _log.info(
                    "Waiting %.0f s, so that not all servers ask the CA at once", delay
                )
            self._sleep(delay)

    def _way(self, url: str) -> Mapping[str, Any]:
        """Return the proxies and roots for a URL, looked for once for each host."""
        host = urlsplit(url).netloc
        if host not in self._ways:
            self._ways[host] = self._http.merge_environment_settings(
                url, {}, stream=True, verify=self._verify, cert=None
            )
        return self._ways[host]

    def _accept(self, reply: Reply) -> Reply:
        """Keep the nonce an answer brings, and raise what a refusal means."""
        if reply.nonce:
            self._nonces.append(reply.nonce)
        if reply.is_refusal:
            refuse(reply)
        return reply


class Deadline:
    """The end of all waiting for the CA, for one certificate.

    Args:
        timeout: Seconds from now.
        sleep: Waits for some seconds.
        clock: Seconds since any moment.
    """

    def __init__(
        self,
        timeout: float,
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self.timeout = timeout
        self.clock = clock
        self._sleep = sleep
        self._end = clock() + timeout

    @property
    def has_passed(self) -> bool:
        """Whether it is over."""
        return self.clock() > self._end

    def pause(self, seconds: float, asked: float | None) -> None:
        """Wait, longer if the CA asked for it (within reason), but not much longer."""
        left = max(self._end - self.clock(), 0.05)
        wait = max(seconds, min(asked or 0.0, MAX_PAUSE_SECONDS))
        self._sleep(min(wait, left))


class AccountSession:
    """Requests of one account for one certificate, until a deadline."""

    def __init__(self, session: Session, signer: Signer, deadline: Deadline) -> None:
        self.session = session
        self.signer = signer
        self.deadline = deadline
        self.now = session.now

    def post(self, url: str, payload: object = None, *, accept: str = "") -> Reply:
        """Send a request that the account signs; see `Session.post`."""
        return self.session.post(url, payload, self.signer, accept=accept)
