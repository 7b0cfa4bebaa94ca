"""One conversation with a CA: HTTPS, nonces, retries, Retry-After, problem documents.

`acme` and `josepy` supply the JWS. The transport's rules are ours: theirs retries a
rejected nonce once and nothing else, and drops Retry-After and problem documents.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from threading import Condition, Lock
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from letsencrypt_mdaemon.acme.exchange import Adapter, check_url, follow, route, send
from letsencrypt_mdaemon.acme.http import Reply, TransientError, http_date
from letsencrypt_mdaemon.acme.jws import Signer, sign
from letsencrypt_mdaemon.acme.problem import MAX_PAUSE_SECONDS, refuse
from letsencrypt_mdaemon.errors import ACME_ERROR, AcmeError, problem_kind
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_log = logging.getLogger(__name__)

NONCE_ATTEMPTS = 100
"""At a CA that rejects 9 of 10 nonces, 1 request in 40,000 still fails."""

MAX_BODY_BYTES = 1 << 20
"""A certificate chain has about 10,000."""

CALL_SECONDS = 300.0
"""For one request with all its repetitions, where no certificate is obtained."""

LAST_ANSWER_SECONDS = 10.0
"""How long after the end of all waiting the last answer may take."""

ATTEMPTS = 4
"""For a request that was lost on the way or met an overloaded CA."""

NONCE_WAIT_SECONDS = 0.02
"""How long to wait for the nonce in the answer to another thread's request.

After that a nonce is fetched, and one more request is under way from then on. A CA that
is near answers sooner, so that it is asked for hardly more than the first nonce.
"""


class Session:
    """Requests to one CA, from several threads at once.

    Args:
        ca_bundle: PEM file with the only roots to trust for the CA's HTTPS; None =
            those of REQUESTS_CA_BUNDLE, or else Mozilla's.
        proxy: The URL of the proxy; "" = that of the environment, on Windows also of
            this account's settings.
        timeout: Seconds for one request and its answer, however slowly it comes.
        delay: Maximum random delay before the first request, in seconds, so that not
            all servers of the world contact the CA at once.
        sleep: Waits for some seconds.

    Attributes:
        deadline: The end of a conversation of many requests; None = each has its own.
    """

    def __init__(  # noqa: PLR0913 - its options
        self,
        directory_url: str,
        *,
        ca_bundle: Path | None = None,
        proxy: str = "",
        timeout: float = 45.0,
        delay: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.directory_url = directory_url
        self.deadline: Deadline | None = None
        self._ca_bundle = ca_bundle
        self._proxy = proxy
        self._timeout = timeout
        self._sleep = sleep
        self._delay = delay
        self._starting = Lock()
        self._nonces: deque[str] = deque(maxlen=50)
        self._under_way = 0
        self._answered = Condition()
        self._turn: AbstractContextManager[object] = nullcontext()
        self._last_answer = 0.0
        self._directory: dict[str, Any] | None = None
        self.clocks: tuple[datetime, datetime] | None = None
        """Our time and the CA's (RFC 9110, 6.6.1), when it last sent one."""
        self._adapter = Adapter()
        self._routes: dict[str, Mapping[str, Any]] = {}

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
                message = f"{printable(self.directory_url, 300)} is not an ACME "
                message += f"directory: it has no {', '.join(missing)}."
                raise AcmeError(message, hint="Check directory-url.")
            self._directory = directory
        return self._directory

    @property
    def meta(self) -> dict[str, Any]:
        """The CA's metadata (`meta` in its directory)."""
        meta = self.directory.get("meta")
        return meta if isinstance(meta, dict) else {}

    def now(self) -> datetime:
        """Return the time by our clock or by the CA's, whichever is ahead.

        By a clock that is behind, a new certificate is not valid yet.
        """
        ours = datetime.now(UTC)
        return max(ours, *self.clocks or (ours,))

    def get(self, url: str) -> Reply:
        """Fetch a public resource.

        Raises:
            AcmeError: If that fails.
        """
        self._delay_start()
        limit = self._limit()

        def once() -> Reply:
            return self._accept(follow(lambda at: self._send("GET", at, limit), url))

        return self._attempt(once, limit)

    def post(
        self, url: str, payload: object, signer: Signer, *, accept: str = ""
    ) -> Reply:
        """Send a signed request (RFC 8555, 6.2).

        Args:
            payload: The JSON value to send; None makes it a POST-as-GET (6.3).

        Raises:
            TransientError: If the CA cannot be reached or is overloaded.
            AcmeError: If it refuses.
        """
        body = b"" if payload is None else json.dumps(payload).encode()
        headers = {"Content-Type": "application/jose+json"}
        if accept:
            headers["Accept"] = accept
        new_nonce = self.directory["newNonce"]
        limit = self._limit()

        def once() -> Reply:
            with self._turn:
                return at_once()

        def at_once() -> Reply:
            nonce = self._spare_nonce()
            try:
                nonce = nonce or self._new_nonce(new_nonce, limit)
                for _ in range(NONCE_ATTEMPTS):
                    signed = sign(url, body, signer, nonce)
                    reply = self._send("POST", url, limit, headers, signed)
                    if problem_kind(reply.problem) != "badNonce":
                        return self._accept(reply)
                    # 6.5: the rejection brings a fresh nonce, for this request and no
                    # other thread's. Its detail may quote the old one: it is not shown.
                    nonce = reply.nonce or self._new_nonce(new_nonce, limit)
            finally:
                with self._answered:
                    self._under_way -= 1
                    self._last_answer = time.monotonic()
                    self._answered.notify()
            raise AcmeError(
                f"{printable(url, 300)} rejected {NONCE_ATTEMPTS} nonces in a row.",
                hint="Run again; if it happens again, report this to the CA.",
                problem={"type": f"{ACME_ERROR}badNonce"},
            )

        return self._attempt(once, limit)

    def _spare_nonce(self) -> str:
        """Return the newest spare nonce, as old ones may have expired; "" if none.

        If a request is under way whose answer may bring one in a moment, wait for it.
        """
        with self._answered:
            while self._under_way and not self._nonces:
                self._answered.wait(NONCE_WAIT_SECONDS)
                if time.monotonic() > self._last_answer + NONCE_WAIT_SECONDS:
                    break
            self._under_way += 1
            return self._nonces.pop() if self._nonces else ""

    def _new_nonce(self, url: str, limit: Deadline) -> str:
        """Fetch a nonce (RFC 8555, 7.2)."""
        reply = self._send("HEAD", url, limit)
        if reply.is_refusal:
            refuse(reply)
        if not reply.nonce:
            message = f"{printable(url, 300)} sent no nonce (Replay-Nonce)."
            hint = "Check that directory-url is the URL of an ACME directory."
            raise AcmeError(message, hint=hint)
        return reply.nonce

    def _attempt(self, once: Callable[[], Reply], limit: Deadline) -> Reply:
        """Send, and send again after a pause if the failure may pass."""
        pause = 0.5
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return once()
            except TransientError as exc:
                wait = max(exc.retry_after or 0.0, pause)
                if attempt == ATTEMPTS or wait > min(MAX_PAUSE_SECONDS, limit.left):
                    raise
                _log.info("%s Trying again in %.3g s.", exc, wait)
                # Some CAs fail whenever they are asked several things at once: one on
                # SQLite answers "database is locked". From now on, one by one.
                if isinstance(self._turn, nullcontext):
                    self._turn = Lock()
                self._sleep(wait * random.uniform(1, 1.2))  # noqa: S311 - no secret
                pause *= 3
        raise AssertionError  # pragma: no cover - the loop returns or raises

    def _limit(self) -> Deadline:
        return self.deadline or Deadline(CALL_SECONDS, self._sleep, time.monotonic)

    def _send(
        self,
        method: str,
        url: str,
        limit: Deadline,
        headers: Mapping[str, str] = MappingProxyType({}),
        data: str | None = None,
    ) -> Reply:
        check_url(url, self.directory_url)
        left = limit.left + LAST_ANSWER_SECONDS
        if left <= 0:
            message = f"{printable(self.directory_url, 300)} did not finish within "
            message += f"{limit.timeout:.0f} s."
            raise TransientError(message, hint="Try again later.")
        reply = send(
            self._adapter,
            method,
            url,
            seconds=min(left, self._timeout),
            most=MAX_BODY_BYTES,
            by=self._route(url),
            headers=headers,
            data=data,
        )
        dated = http_date(reply.headers.get("Date", ""))
        self.clocks = (datetime.now(UTC), dated) if dated else None
        return reply

    def _delay_start(self) -> None:
        """Wait before the very first request; other threads wait as well."""
        with self._starting:
            if not self._delay:
                return
            delay, self._delay = random.uniform(0, self._delay), 0.0  # noqa: S311
            if delay >= 1:
                _log.info(
                    "Waiting %.0f s before contacting the CA (random delay)", delay
                )
            self._sleep(delay)

    def _route(self, url: str) -> Mapping[str, Any]:
        """Return the proxies and roots for a URL, determined once for each host."""
        host = urlsplit(url).netloc
        if host not in self._routes:
            self._routes[host] = route(url, self._ca_bundle, proxy=self._proxy)
        return self._routes[host]

    def _accept(self, reply: Reply) -> Reply:
        """Keep the nonce of an answer; raise if it is a refusal."""
        if reply.nonce:
            self._nonces.append(reply.nonce)
        if reply.is_refusal:
            refuse(reply)
        return reply


class Deadline:
    """The end of all waiting for the CA, `timeout` seconds from now."""

    def __init__(
        self, timeout: float, sleep: Callable[[float], None], clock: Callable[[], float]
    ) -> None:
        self.timeout = timeout
        self.clock = clock
        self._sleep = sleep
        self._end = clock() + timeout

    @property
    def has_passed(self) -> bool:
        """Whether the deadline has passed."""
        return self.clock() > self._end

    @property
    def left(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self._end - self.clock()

    def pause(self, seconds: float, retry_after: float | None) -> None:
        """Wait at least so many seconds, but not much beyond the deadline.

        Args:
            retry_after: What the CA asks for; 30 seconds of it are granted.
        """
        left = max(self.left, 0.05)
        wait = max(seconds, min(retry_after or 0.0, MAX_PAUSE_SECONDS))
        self._sleep(min(wait, left))


class AccountSession:
    """Requests of one account for one certificate, until a deadline."""

    def __init__(self, session: Session, signer: Signer, deadline: Deadline) -> None:
        self.session = session
        self.signer = signer
        self.deadline = deadline

    def post(self, url: str, payload: object = None, *, accept: str = "") -> Reply:
        """Send a request that the account signs; see `Session.post`."""
        return self.session.post(url, payload, self.signer, accept=accept)
