"""One conversation with a CA: HTTPS, nonces, retries, Retry-After, problem documents.

`acme` and `josepy` supply the JWS. The transport's policy is ours: theirs retries a
rejected nonce once and nothing else, and drops Retry-After and problem documents.
"""

from __future__ import annotations

import json
import logging
import random
import re
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NoReturn

import requests
from acme import jws
from josepy.json_util import field as jose_field
from josepy.jwa import ES256, ES384, RS256, JWASignature
from josepy.jwk import JWK, JWKEC, JWKRSA

from letsencrypt_mdaemon import __version__
from letsencrypt_mdaemon.errors import AcmeError, words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

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
    """A CA's answer with a 2xx status."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def location(self) -> str:
        """The resource's URL, empty if the CA named none."""
        return self.headers.get("Location", "")

    @property
    def retry_after(self) -> float | None:
        """Seconds the CA asks us to wait."""
        return retry_after(self.headers.get("Retry-After"), datetime.now(UTC))

    def document(self) -> dict[str, Any]:
        """Return the JSON object.

        Raises:
            AcmeError: If it is something else.
        """
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            kind = words(self.headers.get("Content-Type", "no content type"), 80)
            message = f"{self.url} answered with something else than a JSON object"
            raise AcmeError(
                f"{message} ({kind}): {words(self.body[:80].decode('latin-1'))!r}.",
                hint="Check that directory-url is the URL of an ACME directory.",
            )
        return document


class Session:
    """Requests to one CA.

    May be used by several threads at once.

    Args:
        ca_bundle: PEM file with the only roots to trust for the CA's HTTPS; None =
            those of the system. Proxies come from the environment.
        sleep: Waits for some seconds.
    """

    def __init__(
        self,
        directory_url: str,
        *,
        ca_bundle: Path | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.directory_url = directory_url
        self._verify: bool | str = str(ca_bundle) if ca_bundle else True
        self._sleep = sleep
        self._nonces: deque[str] = deque(maxlen=50)
        self._directory: dict[str, Any] | None = None
        self._http = requests.Session()
        self._http.headers["User-Agent"] = (
            f"letsencrypt-mdaemon/{__version__} (+https://github.com/"
            "letsencrypt-mdaemon/letsencrypt-mdaemon)"
        )

    @property
    def directory(self) -> dict[str, Any]:
        """The CA's directory (RFC 8555, 7.1.1), fetched once."""
        if self._directory is None:
            directory = self.get(self.directory_url).document()
            missing = {"newNonce", "newAccount", "newOrder"} - directory.keys()
            if missing:
                message = f"{self.directory_url} is no ACME directory: it names no "
                message += f"{', '.join(sorted(missing))}."
                raise AcmeError(message, hint="Check directory-url.")
            self._directory = directory
        return self._directory

    @property
    def meta(self) -> dict[str, Any]:
        """What the CA says of itself (`meta` in its directory)."""
        meta = self.directory.get("meta")
        return meta if isinstance(meta, dict) else {}

    def get(self, url: str) -> Reply:
        """Fetch a public resource.

        Raises:
            AcmeError: If it cannot be had.
        """
        return self._attempt(lambda: self._send("GET", url))

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
            AcmeError: If the CA refuses, or cannot be reached.
        """
        body = b"" if payload is None else json.dumps(payload).encode()
        headers = {"Content-Type": "application/jose+json"}
        if accept:
            headers["Accept"] = accept

        def once() -> Reply:
            signed = self._sign(url, body, signer)
            return self._send("POST", url, data=signed, headers=headers)

        rejected = 0
        while True:
            try:
                return self._attempt(once)
            except AcmeError as exc:
                # 6.5: the rejection brings a fresh nonce; _send has kept it.
                rejected += 1
                bad_nonce = exc.problem.get("type") == f"{ERROR}badNonce"
                if not bad_nonce or rejected == NONCE_TRIES:
                    raise

    def _sign(self, url: str, body: bytes, signer: Signer) -> str:
        signed = _Jws.sign(
            body,
            key=signer.key,
            alg=_algorithm(signer.key),
            nonce=self._nonce(),  # type: ignore[arg-type] # see _Header
            url=url,
            kid=signer.kid or None,
        )
        return str(signed.json_dumps())

    def _nonce(self) -> str:
        while True:
            try:
                return self._nonces.popleft()
            except IndexError:
                self._fetch_nonce()  # Another thread may take it.

    def _fetch_nonce(self) -> None:
        url = self.directory["newNonce"]
        reply = self._attempt(lambda: self._send("HEAD", url))
        if not _nonce_in(reply.headers):
            message = f"{url} gave no nonce in the header Replay-Nonce."
            hint = "Check that directory-url is the URL of an ACME directory."
            raise AcmeError(message, hint=hint)

    def _attempt(self, send: Callable[[], Reply]) -> Reply:
        """Send, and again after a pause if the request was lost or the CA overloaded."""
        pause = 0.5
        for attempt in range(1, TRIES + 1):
            try:
                return send()
            except _TransientError as exc:
                wait = max(exc.error.retry_after or 0.0, pause)
                if attempt == TRIES or wait > PATIENCE:
                    raise exc.error from exc.__cause__
                _log.info("%s Trying again in %.0f s.", exc.error, wait)
                self._sleep(wait * random.uniform(1, 1.2))  # noqa: S311 - no secret
                pause *= 3
        raise AssertionError  # pragma: no cover - the loop returns or raises

    def _send(self, method: str, url: str, **options: Any) -> Reply:  # noqa: ANN401
        try:
            with self._http.request(
                method,
                url,
                # Given each time: REQUESTS_CA_BUNDLE would override the session's.
                verify=self._verify,
                timeout=(10, 45),
                allow_redirects=method == "GET",
                stream=True,
                **options,
            ) as response:
                body = _read(response)
                headers = response.headers
                status = response.status_code
        except requests.exceptions.SSLError as exc:
            message = f"{url}: no trusted TLS connection: {_cause(exc)}."
            hint = "For a private CA name its roots by ca-bundle; check the clock."
            raise AcmeError(message, hint=hint) from exc
        except (requests.ConnectionError, requests.Timeout) as exc:
            message = f"{url} could not be reached: {_cause(exc)}."
            hint = "Check the network, DNS, the proxy and directory-url."
            raise _TransientError(AcmeError(message, hint=hint)) from exc
        except (requests.RequestException, OSError, ValueError) as exc:
            message = f"{url} could not be asked: {_cause(exc)}."
            raise AcmeError(message, hint="Check directory-url and ca-bundle.") from exc
        if nonce := _nonce_in(headers):
            self._nonces.append(nonce)
        if len(body) > BODY_LIMIT:
            message = f"{url} sent more than {BODY_LIMIT} bytes."
            raise AcmeError(message, hint="Check directory-url.")
        if not 200 <= status < 300:  # noqa: PLR2004 - success, RFC 9110, 15.3
            _refuse(url, status, headers, body)
        return Reply(url, status, headers, body)


def _algorithm(key: JWK) -> JWASignature:
    # RFC 8555, 6.2: a CA has to know ES256; RFC 7518, 3.4 ties the others to the curve.
    if isinstance(key, JWKRSA):
        return RS256
    if isinstance(key, JWKEC) and key.key.curve.name == "secp384r1":
        return ES384
    return ES256


class _TransientError(Exception):
    """Something that may be gone in a moment."""

    def __init__(self, error: AcmeError) -> None:
        super().__init__(str(error))
        self.error = error


def _nonce_in(headers: Mapping[str, str]) -> str:
    """Return an answer's nonce; only base64url may be sent back (RFC 8555, 6.5.1)."""
    nonce = headers.get("Replay-Nonce", "")
    return nonce if re.fullmatch(r"[A-Za-z0-9_-]{1,500}", nonce) else ""


def _read(response: requests.Response) -> bytes:
    body = b""
    for part in response.iter_content(65536):
        body += part
        if len(body) > BODY_LIMIT:
            break
    return body


def _refuse(url: str, status: int, headers: Mapping[str, str], body: bytes) -> NoReturn:
    """Raise what an answer that is no success means.

    Errors come as problem documents (RFC 8555, 6.7), or as HTML from a load balancer.
    """
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        problem = None
    if not isinstance(problem, dict) or not problem.keys() & {"type", "detail"}:
        problem = {}
    wait = retry_after(headers.get("Retry-After"), datetime.now(UTC))
    said = describe(problem) or words(_title(body), 200)
    message = f"{url} refused with HTTP {status}" + (f": {said}" if said else "") + "."
    kind = str(problem.get("type", "")).removeprefix(ERROR)
    hint = _HINTS.get(kind, "")
    if kind == "rateLimited" and wait:
        until = datetime.now(UTC) + timedelta(seconds=wait)
        hint = f"Wait until {until:%Y-%m-%d %H:%M} UTC."
    error = AcmeError(message, hint=hint, problem=problem, retry_after=wait)
    overloaded = status in {500, 502, 503, 504} or (status == 429 and not kind)  # noqa: PLR2004
    if overloaded:
        raise _TransientError(error)
    raise error


_HINTS = {
    "accountDoesNotExist": "Remove account.json in the state folder to register anew.",
    "externalAccountRequired": "This CA wants an external account; that is not "
    "available yet.",
    "invalidContact": "Set contact to a mail address that the CA accepts.",
    "unsupportedContact": "Set contact to a mail address that the CA accepts.",
    "userActionRequired": "Open the URL that the CA names, agree, and run again.",
    "rateLimited": "Open the URL that the CA names, if any; do not force further runs.",
    "caa": "Change the CAA records of the name, or choose another CA.",
}


def describe(problem: Mapping[str, object]) -> str:
    """Return a problem document's words, its subproblems included (RFC 8555, 6.7.1)."""
    parts = [
        words(problem.get("detail") or problem.get("title") or "", 1000).rstrip(".")
    ]
    if kind := words(problem.get("type", ""), 200).removeprefix(ERROR):
        parts.append(f"({kind})")
    subproblems = problem.get("subproblems")
    for sub in subproblems if isinstance(subproblems, list) else []:
        if isinstance(sub, dict):
            identifier = sub.get("identifier")
            name = identifier.get("value") if isinstance(identifier, dict) else "?"
            parts.append(f"[{words(name, 260)}: {describe(sub)}]")
    if instance := problem.get("instance"):
        parts.append(f"– see {words(instance, 300)}")
    return " ".join(part for part in parts if part)


def retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for, from 0 to a day.

    An integer or a date (RFC 9110, 10.2.3), in whatever time zone; else None.
    """
    if value is None:
        return None
    if re.fullmatch(r"\s*-?[0-9]{1,18}\s*", value):
        seconds = float(value)
    else:
        try:
            moment = parsedate_to_datetime(value)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            seconds = (moment - now).total_seconds()
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
    return min(max(seconds, 0.0), 86400.0)


def _title(body: bytes) -> str:
    """Return an HTML page's title, or the beginning of whatever it is."""
    text = body[:4096].decode("utf-8", "replace")
    title = re.search(r"<title[^>]*>([^<]*)", text, re.IGNORECASE)
    return (title[1] if title else text).strip().rstrip(".")


def _cause(exc: BaseException) -> str:
    """Return the innermost reason: the outer ones repeat the URL and class names."""
    while exc.__cause__ or exc.__context__:
        exc = exc.__cause__ or exc.__context__  # type: ignore[assignment]
    return words(getattr(exc, "strerror", None) or exc, 300) or type(exc).__name__
