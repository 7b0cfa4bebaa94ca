"""Requests and answers of the sandbox CA."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar

from cryptography.hazmat.primitives import serialization as ser
from josepy import jwa, jwk
from josepy.json_util import encode_b64jose

if TYPE_CHECKING:
    from cryptography import x509

Document = dict[str, Any]
T = TypeVar("T")
ACCOUNT_ALGORITHMS = {"RS256": jwa.RS256, "ES256": jwa.ES256, "ES384": jwa.ES384}
BINDING_ALGORITHMS = {"HS256": jwa.HS256, "HS384": jwa.HS384, "HS512": jwa.HS512}
CURVES = {"ES256": "secp256r1", "ES384": "secp384r1"}

POST_AS_GET: Document = {}
"""The payload of a POST-as-GET request, compared by identity (RFC 8555, 6.3)."""

HOUR, WEEK = timedelta(hours=1), timedelta(weeks=1)


@dataclass(slots=True)
class Answer:
    """An answer: `body` as it is, else `chain` as PEM, else `document` as JSON.

    Status 0 closes the connection without an answer, `cut` in the middle of the body.
    """

    status: int = 200
    document: Document = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    chain: list[x509.Certificate] = field(default_factory=list)
    body: bytes | None = None
    cut: bool = False

    def render(self) -> tuple[str, bytes]:
        """Return the media type and the body."""
        if self.body is not None:
            return "text/html", self.body
        if self.chain:
            chain = b"".join(link.public_bytes(ser.Encoding.PEM) for link in self.chain)
            return "application/pem-certificate-chain", chain
        kind = "json" if self.status < http.client.BAD_REQUEST else "problem+json"
        body = json.dumps(self.document) if self.document else ""
        return f"application/{kind}", body.encode()


@dataclass(eq=False)
class Problem(Exception):  # noqa: N818 - the RFC's word
    """A refusal (RFC 8555, 6.7); `kind` follows `urn:ietf:params:acme:error:`."""

    kind: str
    detail: str
    status: int = 400
    headers: dict[str, str] = field(default_factory=dict)
    more: Document = field(default_factory=dict)

    @property
    def answer(self) -> Answer:
        """The answer with the problem document."""
        kind = f"urn:ietf:params:acme:error:{self.kind}"
        document = {"type": kind, "detail": self.detail, "status": self.status}
        return Answer(self.status, document | self.more, dict(self.headers))


@dataclass(slots=True)
class Request:
    """A client's request."""

    method: str
    path: str
    resource: str
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def payload(self) -> Document:
        """The payload, not verified; empty if it cannot be read."""
        with suppress(Problem):
            return parse(Message.read(parse(self.body)).payload)
        return {}


Hook = Answer | Problem | Callable[[Any], object]
LOST = Answer(status=0)


def html(status: int, retry_after: int | datetime | None = None) -> Answer:
    """Return the answer of a proxy before the CA: a page, not a problem document."""
    headers = {}
    if isinstance(retry_after, datetime):
        headers["Retry-After"] = format_datetime(retry_after, usegmt=True)
    elif retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return Answer(status, headers=headers, body=b"<html><h1>Back soon</h1></html>")


@dataclass(frozen=True, slots=True)
class Message:
    """A flattened JWS whose header is fully protected (RFC 8555, 6.2)."""

    header: Document
    payload: bytes
    signed: bytes
    signature: bytes

    @classmethod
    def read(cls, value: Document) -> Self:
        """Return the message, without verifying it."""
        if value.keys() != {"protected", "payload", "signature"}:
            raise Problem("malformed", "The body is not a flattened JWS")
        parts = {name: unb64url(member(value, name, str)) for name in value}
        signed = f"{value['protected']}.{value['payload']}".encode()
        header = parse(parts["protected"])
        return cls(header, parts["payload"], signed, parts["signature"])

    def verify(self, key: jwk.JWK, accepted: Mapping[str, jwa.JWASignature]) -> None:
        """Refuse the message unless the key has signed it."""
        name = str(self.header.get("alg"))
        if name not in accepted:
            detail, more = f"Unsupported algorithm: {name}", {"algorithms": [*accepted]}
            raise Problem("badSignatureAlgorithm", detail, more=more)
        curve = getattr(getattr(key.key, "curve", None), "name", None)
        if (
            "crit" in self.header
            or curve != CURVES.get(name)
            or not accepted[name].verify(key.key, self.signed, self.signature)
        ):
            raise Problem("malformed", "JWS verification error")


@dataclass(eq=False)
class Account:
    """An account (RFC 8555, 7.1.2); without a URL, only a key that signed a request."""

    key: jwk.JWK
    url: str = ""
    document: Document = field(default_factory=lambda: {"status": "valid"})


@dataclass(eq=False)
class Issued:
    """An issued certificate and its state."""

    certificate: x509.Certificate
    owner: Account
    names: list[str]
    revoked: bool = False
    replaced_by: Document | None = None  # an order


@dataclass(frozen=True, slots=True)
class Resource:
    """A URL's resource: its name, its owner, and its actions."""

    name: str
    post: Callable[[Account, Document], Answer] | None = None
    owner: Account | None = None
    get: Callable[[], Answer] | None = None


def identifier(name: str) -> dict[str, str]:
    """Return a name as an ACME identifier."""
    return {"type": "dns", "value": name}


def rfc3339(moment: datetime) -> str:
    """Return a time as RFC 3339 text."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def parse(text: bytes) -> Document:
    """Return a JSON object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Problem("malformed", "Not a JSON object")
    return value


def member(document: Document, name: str, kind: type[T]) -> T:
    """Return a required member of an object."""
    value = document.get(name)
    if not isinstance(value, kind):
        raise Problem("malformed", f"{name} is missing or of the wrong type")
    return value


def unb64url(text: object) -> bytes:
    """Decode base64url without padding; refuse any non-canonical text."""
    try:
        data = base64.urlsafe_b64decode(f"{text}==")
    except ValueError:
        data = b""
    if encode_b64jose(data) != text:
        raise Problem("malformed", "Not base64url without padding")
    return data
