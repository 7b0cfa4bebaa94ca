"""One conversation with a CA: HTTPS, nonces, retries, Retry-After, problem documents.

`acme` and `josepy` supply the JWS. The transport's policy is ours: theirs retries a
rejected nonce once and nothing else, and drops Retry-After and problem documents.
"""

from __future__ import annotations

import json
import logging
import random
import re
import ssl
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from threading import Condition, Lock
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urljoin, urlsplit

import requests
from acme import jws
from josepy.json_util import field as jose_field
from josepy.jwa import ES256, ES384, HS256, RS256, JWASignature
from josepy.jwk import JWK, JWKEC, JWKRSA, JWKOct
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from letsencrypt_mdaemon._version import __version__
from letsencrypt_mdaemon.errors import AcmeError
from letsencrypt_mdaemon.text import words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_log = logging.getLogger(__name__)

ERROR = "urn:ietf:params:acme:error:"
BODY_LIMIT = 1 << 20
"""Bytes; a chain of certificates has some ten thousand."""
NONCE_TRIES = 100
"""At a CA that rejects 9 of 10 nonces, 1 request in 40,000 still fails."""
TRIES = 4
"""Attempts for a request that was lost on the way or met an overloaded CA."""
PATIENCE = 30.0
"""Seconds; a CA that asks for a longer pause in mid-request ends the run."""
NONCE_PATIENCE = 0.02
"""Seconds to wait for the nonce that another thread's answer brings.

Then one is fetched, which lets one more request be under way for good: a CA that is
near answers sooner, and is hardly asked for more than the first.
"""


class TransientError(AcmeError):
    """A request that was lost on the way or met an overloaded CA."""


class _Header(jws.Header):
    # A nonce is sent back as it came (RFC 8555, 6.5.1). Decoded and encoded again, as
    # acme does, it changes when its last character carries bits that nobody reads.
    nonce: str | None = jose_field("nonce", omitempty=True)  # type: ignore[assignment]


class _Signature(jws.Signature):
    __slots__ = jws.Signature._orig_slots  # noqa: SLF001 - how josepy is extended
    header_cls = _Header
    header: _Header = jose_field(
        "header", omitempty=True, default=_Header(), decoder=_Header.from_json
    )


class _Jws(jws.JWS):
    __slots__ = jws.JWS._orig_slots  # noqa: SLF001 - how josepy is extended
    signature_cls = _Signature


@dataclass(frozen=True, slots=True)
class Signer:
    """The key that signs requests, and the account's URL (`kid`) once it has one."""

    key: JWK = field(repr=False)
    kid: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """A CA's answer."""

    url: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def location(self) -> str:
        """The resource's URL, empty if the CA named none."""
        location = self.headers.get("Location", "")
        return self._resolved(location) if location else ""

    @property
    def alternates(self) -> list[str]:
        """The URLs of the alternate chains (RFC 8555, 7.4.2; RFC 8288)."""
        links = requests.utils.parse_header_links(self.headers.get("Link", ""))
        found = [
            self._resolved(link["url"])
            for link in links
            if "alternate" in link.get("rel", "").lower().split()
        ]
        return [url for url in found if url]

    def _resolved(self, url: str) -> str:
        """Return a URL that may be relative to this one; "" if it makes no sense."""
        try:
            return urljoin(self.url, url)
        except ValueError:
            return ""

    @property
    def retry_after(self) -> float | None:
        """Seconds the CA asks us to wait."""
        return retry_after(self.headers.get("Retry-After"), datetime.now(UTC))

    @property
    def nonce(self) -> str:
        """The nonce it brings; "" if none, or one that is not base64url (6.5.1)."""
        nonce = self.headers.get("Replay-Nonce", "")
        return nonce if re.fullmatch(r"[A-Za-z0-9_-]{1,500}", nonce) else ""

    @property
    def is_refusal(self) -> bool:
        """Whether it is no success."""
        return not 200 <= self.status < 300  # noqa: PLR2004 - RFC 9110, 15.3

    @property
    def problem(self) -> dict[str, Any]:
        """What a refusal says (6.7); empty if it is a page of a load balancer."""
        problem = (_object(self.body) if self.is_refusal else None) or {}
        return problem if problem.keys() & {"type", "detail"} else {}

    def document(self) -> dict[str, Any]:
        """Return the JSON object.

        Raises:
            AcmeError: If it is something else.
        """
        document = _object(self.body)
        if document is None:
            kind = words(self.headers.get("Content-Type", "no content type"), 80)
            message = f"{words(self.url, 300)} answered with something else than a JSON"
            raise AcmeError(
                f"{message} object ({kind}): {words(_title(self.body), 80)!r}.",
                hint="Check directory-url, and whether a proxy answers instead.",
            )
        return document


class _Adapter(HTTPAdapter):
    """Connections that share a TLS context.

    Else each would read its roots anew; Mozilla's take 16 ms.
    """

    def __init__(self) -> None:
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._making = Lock()
        super().__init__()

    def build_connection_pool_key_attributes(
        self,
        request: requests.PreparedRequest,
        verify: bool | str,  # noqa: FBT001 - the library's signature, as all here
        cert: Any = None,  # noqa: ANN401
    ) -> tuple[Any, Any]:
        """Return how a connection is made."""
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        if host["scheme"] == "https":
            roots = DEFAULT_CA_BUNDLE_PATH if verify is True else str(verify)
            context = self._context(roots)
            pool = {"ssl_context": context, "cert_reqs": "CERT_REQUIRED"}
        return host, pool

    def cert_verify(self, *_: object) -> None:
        """Do nothing: the context verifies."""

    def _context(self, roots: str) -> ssl.SSLContext:
        with self._making:
            if roots not in self._contexts:
                folder, file = (roots, None) if Path(roots).is_dir() else (None, roots)
                context = ssl.create_default_context(cafile=file, capath=folder)
                self._contexts[roots] = context
            return self._contexts[roots]


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
        self._http.mount("https://", _Adapter())
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
                message = f"{words(self.directory_url, 300)} is no ACME directory: "
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
                for _ in range(NONCE_TRIES):
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
            message = f"{words(url, 300)} refused {NONCE_TRIES} nonces of its own, one "
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
                self._answered.wait(NONCE_PATIENCE)
                if time.monotonic() > self._last_answer + NONCE_PATIENCE:
                    break
            self._under_way += 1
            return self._nonces.pop() if self._nonces else ""

    def _new_nonce(self, url: str) -> str:
        """Fetch a nonce (RFC 8555, 7.2)."""
        reply = self._send("HEAD", url)
        if reply.is_refusal:
            _refuse(reply)
        if not reply.nonce:
            message = f"{words(url, 300)} gave no nonce in its Replay-Nonce."
            hint = "Check that directory-url is the URL of an ACME directory."
            raise AcmeError(message, hint=hint)
        return reply.nonce

    def _attempt(self, send: Callable[[], Reply]) -> Reply:
        """Send, and again after a pause if that failed for a reason that may pass."""
        pause = 0.5
        for attempt in range(1, TRIES + 1):
            try:
                return send()
            except TransientError as exc:
                wait = max(exc.retry_after or 0.0, pause)
                if attempt == TRIES or wait > PATIENCE:
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
                    url, response.status_code, response.headers, _read(response)
                )
        except (requests.RequestException, OSError, ValueError) as exc:
            raise _unanswered(words(url, 300), exc) from exc
        self._came = datetime.now(UTC)
        self._dated = http_date(response.headers.get("Date", ""))
        if len(reply.body) > BODY_LIMIT:
            message = f"{words(url, 300)} sent more than {BODY_LIMIT} bytes."
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
            _refuse(reply)
        return reply


def sign(url: str, body: bytes, signer: Signer, nonce: str = "") -> str:
    """Return a flattened JWS as JSON (RFC 8555, 6.2).

    Args:
        nonce: "" for one inside another: 7.3.4 and 7.3.5 forbid a nonce there.
    """
    signed = _Jws.sign(
        body,
        key=signer.key,
        alg=_algorithm(signer.key),
        nonce=nonce or None,  # type: ignore[arg-type] # see _Header
        url=url,
        kid=signer.kid or None,
    )
    return str(signed.json_dumps())


def _algorithm(key: JWK) -> JWASignature:
    if isinstance(key, JWKOct):
        return HS256  # 7.3.4
    # RFC 8555, 6.2: a CA has to know ES256; RFC 7518, 3.4 ties the others to the curve.
    if isinstance(key, JWKRSA):
        return RS256
    if isinstance(key, JWKEC) and key.key.curve.name == "secp384r1":
        return ES384
    return ES256


def _read(response: requests.Response) -> bytes:
    body = b""
    for part in response.iter_content(65536):
        body += part
        if len(body) > BODY_LIMIT:
            break
    return body


def _unanswered(url: str, exc: Exception) -> AcmeError:
    """Return what it means that a request brought no answer."""
    # The innermost reason: the outer ones repeat the URL and the names of classes.
    cause: BaseException = exc
    while inner := cause.__cause__ or cause.__context__:
        if isinstance(inner, AcmeError):
            break  # An earlier request's, which somebody is just handling.
        cause = inner
    said = words(getattr(cause, "strerror", None) or cause, 300) or type(cause).__name__
    if isinstance(exc, requests.exceptions.ProxyError):
        message = f"{url} could not be reached through the proxy: {said}."
        hint = "Check HTTPS_PROXY or the system's proxy; NO_PROXY names exceptions."
        return TransientError(message, hint=hint)
    hung_up = isinstance(cause, ssl.SSLEOFError | ConnectionError | TimeoutError)
    if isinstance(exc, requests.exceptions.SSLError) and not hung_up:
        message = f"{url}: no trusted TLS connection: {said}."
        hint = "For a private CA name its roots by ca-bundle; check the clock."
        return AcmeError(message, hint=hint)
    if isinstance(exc, _LOST):
        hint = "Check the network, DNS, the proxy and directory-url."
        return TransientError(f"{url} could not be reached: {said}.", hint=hint)
    hint = "Check directory-url and ca-bundle."
    return AcmeError(f"{url} could not be asked: {said}.", hint=hint)


_LOST = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,  # the body ended too early
    requests.exceptions.ContentDecodingError,
)


def _refuse(reply: Reply) -> NoReturn:
    """Raise what an answer that is no success means.

    Errors come as problem documents (RFC 8555, 6.7), or as HTML from a load balancer.
    """
    problem, status, wait = reply.problem, reply.status, reply.retry_after
    said = describe(problem) or words(_title(reply.body), 200)
    kind = kind_of(problem)
    hint, paused = HINTS.get(kind, ""), ""
    transient = status in {429, 500, 502, 503, 504}
    if kind == "rateLimited":
        # Most of a CA's own limits hold for hours; what passes soon, it says so.
        brief = wait is not None and wait <= PATIENCE
        transient = brief and status in {429, 503}
    if reply.location and status < 400:  # noqa: PLR2004 - RFC 9110, 15.4
        said = f"it redirects to {words(reply.location, 300)}, as no CA does"
        hint = "Check directory-url, and whether a proxy answers instead."
    elif wait is not None and (transient or kind == "rateLimited"):
        # Rounded up. The CA may want more: a day is the most that is believed.
        until = datetime.now(UTC) + timedelta(seconds=wait + 59)
        hint = f"Do not try again before {until:%Y-%m-%d %H:%M} UTC."
    elif kind == "rateLimited" and (url := _PAUSED.search(said)):
        paused = url[1].rstrip(".,;:")
        hint = f"Open {paused} to resume, then `renew --force`; further tries are "
        hint += "useless before."
    elif transient:
        hint = "The CA has trouble: run again later."
    message = f"{words(reply.url, 300)} refused with HTTP {status}"
    message += f": {said}." if said else "."
    error = TransientError if transient else AcmeError
    raise error(message, hint=hint, problem=problem, retry_after=wait, paused=paused)


# So Let's Encrypt says that a name failed too often to be tried any more; there is no
# Retry-After then.
_PAUSED = re.compile(r"\bvisit:?\s+(https://[^\s<>\"]+)", re.IGNORECASE)


HINTS = {
    "accountDoesNotExist": "Remove account.json in the state folder to register anew.",
    "alreadyRevoked": "Nothing is left to do: renew, if it is still in use.",
    "badRevocationReason": "Choose another --reason.",
    "externalAccountRequired": "Get a key id and a key from the CA's web site; set "
    "eab-kid and eab-key-file.",
    "invalidProfile": "Choose another profile, or none.",
    "invalidContact": "Set contact to a mail address that the CA accepts.",
    "unsupportedContact": "Set contact to a mail address that the CA accepts.",
    "userActionRequired": "Open the URL that the CA names, agree, and run again.",
    "rateLimited": "Do not force further runs; the scheduled ones try again.",
    "rejectedIdentifier": "Leave the name out, or choose another CA.",
    "caa": "Change the CAA records of the name, or choose another CA.",
}


def describe(problem: Mapping[str, object]) -> str:
    """Return a problem document's words, its subproblems included (RFC 8555, 6.7.1)."""
    parts = [_said(problem)]
    subproblems = problem.get("subproblems")
    for sub in subproblems if isinstance(subproblems, list) else []:
        if isinstance(sub, dict):
            identifier = sub.get("identifier")
            value = identifier.get("value") if isinstance(identifier, dict) else None
            name = words(value, 260) if isinstance(value, str) else "?"
            parts.append(f"[{name}: {_said(sub)}]")
    if isinstance(instance := problem.get("instance"), str):
        parts.append(f"– see {words(instance, 300)}")
    return words(" ".join(part for part in parts if part), 5000)


def _said(problem: Mapping[str, object]) -> str:
    """Return detail (or title) and type, whatever else may stand in their places."""
    texts = (problem.get(name) for name in ("detail", "title"))
    said = next((text for text in texts if isinstance(text, str) and text), "")
    kind = words(kind_of(problem), 200)
    parts = (words(said, 1000).strip().rstrip("."), f"({kind})" if kind else "")
    return " ".join(part for part in parts if part)


def kind_of(problem: Mapping[str, object]) -> str:
    """Return the type that a problem document names, without ACME's prefix."""
    kind = problem.get("type")
    return kind.removeprefix(ERROR) if isinstance(kind, str) else ""


def retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for, from 0 to a day.

    An integer or a date (RFC 9110, 10.2.3), in whatever time zone; else None.
    """
    if value is None:
        return None
    if re.fullmatch(r"\s*-?[0-9]+\s*", value):
        seconds = float(value)
    else:
        moment = http_date(value)
        if moment is None:
            return None
        seconds = (moment - now).total_seconds()
    return min(max(seconds, 0.0), 86400.0)


def http_date(value: str) -> datetime | None:
    """Return an HTTP-date in UTC (RFC 9110, 5.6.7), whatever its zone; None if none."""
    try:
        moment = parsedate_to_datetime(value)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _title(body: bytes) -> str:
    """Return an HTML page's title, or the beginning of whatever it is."""
    text = body[:4096].decode("utf-8", "replace")
    title = re.search(r"<title[^>]*>([^<]*)", text, re.IGNORECASE)
    return (title[1] if title else text).strip().rstrip(".")


def _object(body: bytes) -> dict[str, Any] | None:
    """Return a JSON object; None if it is anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
