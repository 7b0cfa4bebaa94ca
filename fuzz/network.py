"""What others answer or send: functions of any bytes, which raise nothing."""

from __future__ import annotations

import io
import itertools
import json
import re
import shutil
import tempfile
import time
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast
from unittest import mock

import dns.flags
import dns.message
import dns.query
import dns.rrset
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from dns.exception import DNSException
from requests.structures import CaseInsensitiveDict

from fuzz.texts import SEPARATOR
from letsencrypt_mdaemon.acme import crl
from letsencrypt_mdaemon.acme.account import Accounts
from letsencrypt_mdaemon.acme.http import Reply
from letsencrypt_mdaemon.acme.issuer import Issuer
from letsencrypt_mdaemon.acme.problem import refuse
from letsencrypt_mdaemon.acme.transport import Session
from letsencrypt_mdaemon.app import collected, fleet
from letsencrypt_mdaemon.doctor import caa, nameservers
from letsencrypt_mdaemon.doctor.findings import Code
from letsencrypt_mdaemon.doctor.validator import MAX_REDIRECTS, FetchError, Validator
from letsencrypt_mdaemon.errors import AcmeError, Error
from letsencrypt_mdaemon.render import csv, html
from letsencrypt_mdaemon.state.folder import CaState
from letsencrypt_mdaemon.verify import starttls
from tests import fleets

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from letsencrypt_mdaemon.acme.jws import Signer

NAME = "mail.example.test"
KINDS: tuple[nameservers.Kind, ...] = ("A", "AAAA", "CAA")
CA = "https://ca.example.test"

# STARTTLS

_REFUSALS = (
    starttls.NoStarttlsError,
    starttls.TurnedAwayError,
    starttls.ProtocolError,
)


def start_tls(data: bytes) -> None:
    """Speak with a mail server; the first byte says which protocol."""
    lines = iter(data[1:].split(b"\n"))
    conversation = {b"i": starttls.imap, b"p": starttls.pop3}.get(
        data[:1], lambda: starttls.smtp("192.0.2.1", NAME)
    )()
    with suppress(StopIteration, *_REFUSALS):
        sent = next(conversation)
        for line in lines:
            starttls.is_refusal(line)
            assert starttls.quoted(line).isprintable()
            sent = conversation.send(line)
            assert not sent or sent.endswith(b"\r\n")


# The validator's HTTP


class _Connection:
    """A connection that brings an answer, and then its end."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def gettimeout(self) -> None:
        """Have no limit: what comes is here."""

    def settimeout(self, _: float) -> None:
        """Do nothing."""

    def sendall(self, request: bytes) -> None:
        """Take a request."""
        assert request.count(b"\r\n\r\n") == 1
        assert request.endswith(b"\r\n\r\n")

    def makefile(self, _: str, *, buffering: int) -> io.BytesIO:
        """Return what brings the answer."""
        del buffering
        return io.BytesIO(self._answer)

    def close(self) -> None:
        """Do nothing."""


def fetch_token_file(data: bytes) -> None:
    """Fetch a token file; each part of the input answers a request."""
    answers = iter(data.split(SEPARATOR))

    def dial(_: str, port: int, __: float) -> socket.socket:
        answer = next(answers, None)
        if answer is None or port != 80:  # noqa: PLR2004 - only a real one speaks TLS
            raise ConnectionRefusedError
        return cast("socket.socket", _Connection(answer))

    def address_of(host: str, _: float) -> str:
        if host == "none.example.test":
            raise FetchError(Code.DNS_NXDOMAIN, host)
        return "192.0.2.1"

    found = Validator(address_of, dial).fetch(
        NAME,
        "192.0.2.1",
        "/.well-known/acme-challenge/x",
        b"x.y",
        time.monotonic() + 60,
    )
    assert len(found.urls) <= MAX_REDIRECTS + 1
    assert (found.finding is None) <= (found.status == 200)  # noqa: PLR2004 - OK


# DNS


def look_up(data: bytes) -> None:
    """Look up a name; each part of the input answers a query, the last one all others.

    A part may also be the text of an answer: changed at random, it often still is one.
    """
    answers = data.split(SEPARATOR)
    order = itertools.chain(answers, itertools.repeat(answers[-1]))

    def answer(*_: object, **__: object) -> tuple[dns.message.Message, bool]:
        part = next(order)
        if part.startswith(b"id"):
            try:
                part = dns.message.from_text(part.decode("utf-8", "replace")).to_wire()
            except Exception as exc:
                raise DNSException from exc  # no server could send it
        return dns.message.from_wire(part), False

    with mock.patch.object(dns.query, "udp_with_fallback", answer):
        servers = nameservers.Nameservers(["192.0.2.53"])
        for kind in KINDS:
            found = servers.look_up(NAME, kind, time.monotonic() + 60)
            for address in found.addresses:
                nameservers.is_public(address)
            us = caa.Authority(frozenset({"ca.example.test"}), f"{CA}/acct/1")
            caa.check(NAME, found.properties, us, certain=True)


# The CA


class _Session(Session):
    """A CA whose answers are parts of an input; it needs no connection."""

    def __init__(self, answers: Iterator[bytes]) -> None:
        super().__init__(f"{CA}/directory")
        self._answers = answers

    def get(self, url: str) -> Reply:
        """Return the next answer."""
        reply = _reply(url, next(self._answers, None))
        if reply.is_refusal:
            refuse(reply)
        return reply

    def post(
        self, url: str, payload: object, signer: Signer, *, accept: str = ""
    ) -> Reply:
        """Return the next answer."""
        del payload, signer, accept
        return self.get(url)


def _reply(url: str, answer: bytes | None) -> Reply:
    if answer is None:
        raise AcmeError("There are no more answers.")
    head, _, body = answer.partition(b"\n\n")
    status, *rows = head.decode("latin-1").split("\n")
    headers = CaseInsensitiveDict[str]()
    for row in rows:
        name, _, value = row.partition(":")
        headers[name] = value.strip()
    number = int(status) if re.fullmatch("[1-9][0-9]{2}", status) else 200
    return Reply(url, number, headers, body)


_KEY = ec.derive_private_key(7, ec.SECP256R1())
# In memory, as what is written there is flushed each time.
_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder in it has a name of its own
_FOLDER = tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None)


def obtain(data: bytes) -> None:
    """Obtain a certificate; each part of the input answers a request."""
    clock = itertools.count(0.0, 1.0)
    state = CaState(Path(_FOLDER.name, "ca"))
    session = _Session(iter(data.split(SEPARATOR)))
    accounts = Accounts(session, state, agree_tos=True)
    issuer = Issuer(
        accounts,
        lambda _: nullcontext(),
        key_type="p256",
        profiles=["shortlived"],
        preferred_chain="none",  # so alternate chains are fetched
        timeout=30,
        sleep=lambda _: None,
        clock=lambda: next(clock),
    )
    try:
        with suppress(Error):
            got = issuer.obtain([NAME], key=_KEY)
            assert got.leaf.public_key() == _KEY.public_key()
            assert NAME in got.names
            issuer.suggested_window(got.leaf)
            listed = session.get(f"{CA}/crl").body
            with mock.patch.object(crl, "fetch", return_value=listed):
                crl.revocation(got.leaf, got.chain[-1], now=datetime.now(UTC))
    finally:
        shutil.rmtree(state.folder, ignore_errors=True)


# Inputs of our own


def _answer(*records: str, name: str = f"{NAME}.", referral: bool = False) -> bytes:
    """Return the text of an answer with records such as `A 192.0.2.1`."""
    query = dns.message.make_query(NAME, "A", id=7)
    message = dns.message.make_response(query)
    message.flags |= 0 if referral else dns.flags.AA
    section = message.authority if referral else message.answer
    for record in records:
        section.append(dns.rrset.from_text(name, 60, "IN", *record.split(" ", 1)))
    return message.to_text().encode()


_ROOT = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Root")])


def _certificate() -> bytes:
    listed = x509.UniformResourceIdentifier(f"{CA}/crl")
    point = x509.DistributionPoint([listed], None, None, None)
    builder = x509.CertificateBuilder(
        issuer_name=_ROOT,
        subject_name=_ROOT,
        public_key=_KEY.public_key(),
        serial_number=1,
        not_valid_before=datetime.now(UTC) - timedelta(days=1),
        not_valid_after=datetime.now(UTC) + timedelta(days=1),
        extensions=[
            x509.Extension(value.oid, critical=False, value=value)
            for value in (
                x509.SubjectAlternativeName([x509.DNSName(NAME)]),
                x509.CRLDistributionPoints([point]),
                x509.AuthorityKeyIdentifier(b"key", None, None),
            )
        ],
    )
    return builder.sign(_KEY, hashes.SHA256()).public_bytes(Encoding.PEM)


def _crl() -> bytes:
    now = datetime.now(UTC)
    builder = x509.CertificateRevocationListBuilder(
        issuer_name=_ROOT, last_update=now, next_update=now + timedelta(days=1)
    )
    return builder.sign(_KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def _conversation() -> bytes:
    order = (
        b'{"status":"%s","finalize":"/f","authorizations":["/z"],"certificate":"/c"}'
    )
    answers = (
        (
            b'200\n\n{"newNonce":"/n","newAccount":"/a","newOrder":"/o","renewalInfo":"/r",'
            b'"meta":{"profiles":{"shortlived":"x"},"termsOfService":"/t"}}'
        ),
        b"201\nLocation: /acct/1\n\n{}",
        b"201\nLocation: /order/1\n\n" + order % b"pending",
        b'200\n\n{"status":"pending","identifier":{"type":"dns","value":"'
        + NAME.encode()
        + b'"},"challenges":[{"type":"http-01","token":"t","url":"/h"}]}',
        b"200\n\n{}",
        b"200\nRetry-After: 1\n\n" + order % b"ready",
        b"200\n\n" + order % b"valid",
        b'200\nLink: </c2>;rel="alternate"\n\n' + _certificate(),
        b"200\n\n" + _certificate(),
        (
            b"200\nRetry-After: 60\n\n"
            b'{"suggestedWindow":{"start":"2026-01-01T00:00:00Z","end":"2026-01-02T00:00:00Z"},"explanationURL":"https://ca.test/why"}'
        ),
        b"200\n\n" + _crl(),
    )
    # Each URL is absolute (RFC 8555, 6.1).
    return SEPARATOR.join(answers).replace(b'"/', b'"' + CA.encode() + b"/")


_TALK = _conversation()
_PROBLEM = (
    b'{"type":"urn:ietf:params:acme:error:rateLimited","detail":"visit https://x.test/",'
    b'"subproblems":[{"type":"urn:ietf:params:acme:error:caa","detail":"no",'
    b'"identifier":{"type":"dns","value":"mail.example.test"}}]}'
)


def report(data: bytes) -> None:
    """Report on a server by the file that it sent."""
    found = fleet.of([collected.parse(data, "a.json", fleets.NOW)], fleets.NOW)
    assert found.servers[0].name.strip()
    page = html.write(found, title="Report").decode()
    assert all(c.isprintable() or c == "\n" for c in page)
    assert page.count("<script") == page.count("<img") == 0
    csv.write(found)
    found.weeks()


TARGETS = {
    "report": (
        report,
        [json.dumps(made).encode() for made in (fleets.status(), fleets.check())]
        + [json.dumps(fleets.hostile(text)).encode() for text in fleets.HOSTILE],
    ),
    "starttls": (
        start_tls,
        [
            b"s220 hi\n250-mail hi\n250 STARTTLS\n220 go",
            b"s220-hi\n220 hi\n501 no\n250-x\n250-SIZE\n250 starttls\n220 go",
            b"i* OK hi\n* CAPABILITY IMAP4rev1 STARTTLS\na1 OK\na2 OK go",
            b"p+OK hi\n+OK\nSTLS\nUIDL\n.\n+OK go",
        ],
    ),
    "validator": (
        fetch_token_file,
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nServer: s\r\n\r\nx.y",
            (
                b"HTTP/1.1 301 M\r\nLocation: http://b.example.test/x\r\n\r\n\n===\n"
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"3\r\nx.y\r\n0\r\n"
            ),
            b"HTTP/1.0 302 M\r\nLocation: //none.example.test:80/\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 N\r\nVia: p\r\n\r\n<html>",
        ],
    ),
    "dns": (
        look_up,
        [
            dns.message.from_text(_answer("A 192.0.2.1").decode()).to_wire(),
            _answer("A 192.0.2.1", "AAAA ::1", 'CAA 128 x "y"'),
            SEPARATOR.join(
                [
                    _answer("CNAME www.example.test."),
                    _answer("NS a.root.test.", name="."),
                    _answer("A 8.8.8.8", name="a.root.test."),
                    _answer("NS ns.example.test.", name="example.test.", referral=True),
                    _answer("A 9.9.9.9", name="ns.example.test."),
                    _answer("CNAME www.example.test."),
                    _answer("A 9.9.9.9", name="www.example.test."),
                    _answer('CAA 0 issue "ca.example.test; validationmethods=http-01"'),
                ]
            ),
        ],
    ),
    "ca": (
        obtain,
        [
            _TALK,
            _TALK.replace(b"201\nLocation: /order/1\n\n", b"429\n\n" + _PROBLEM + b" "),
            _TALK.replace(b'"ready"', b'"invalid","error":' + _PROBLEM),
            _TALK.replace(
                b'"token"', b'"status":"invalid","error":' + _PROBLEM + b',"t"'
            ),
        ],
    ),
}
"""By name: the function, and inputs of our own to start from."""
