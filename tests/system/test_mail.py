"""The mail arrives, adds no headers, and gives no password away."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import re
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from letsencrypt_mdaemon.errors import ConfigError, Error
from letsencrypt_mdaemon.pki.certificate import key_pem
from letsencrypt_mdaemon.sandbox.folder import parse_raw
from letsencrypt_mdaemon.system.mail import Mail, RawQueue, Smtp
from tests.certificates import sign
from tests.fakes import LOCALHOST, full_disk, read_only, talker, watched
from tests.limits import HANG_SECONDS

SENDER = "mdaemon@example.test"
ADMIN = "postmaster@example.test"
SECRET = "hunter2-\N{BULLET}"[:-2]
NASTY = [
    "a\r\nBcc: evil@example.org\r\n\r\nhello",
    "x>\r\nBcc <evil@example.org",
    "<b>\x00\x1b[31m\x07\x7f",
    "\u202egnirts\u2066 \u2028 \u2029 \x85 \ufeff",
    "Grüße aus München – 5 €",
    "\N{PILE OF POO}" * 1500,
    "\ud800 alone",
    "",
]


def mail(
    subject: str = "It failed", *lines: str, to: tuple[str, ...] = (ADMIN,)
) -> Mail:
    return Mail.compose(SENDER, to, subject, lines or ("one", "two"))


# Composing


@settings(deadline=None)
@given(st.text(), st.lists(st.text(), min_size=1), st.text(), st.lists(st.text()))
def test_whatever_it_is_made_of_a_mail_is_lines_of_plain_ascii(
    sender: str, to: list[str], subject: str, lines: list[str]
) -> None:
    made = Mail.compose(sender, to, subject, lines)
    for text in (made.sender, *made.recipients, made.subject):
        assert text.isascii()
        assert text.isprintable()
    assert made.body == "" or made.body.endswith("\r\n")
    for line in made.body.removesuffix("\r\n").split("\r\n"):
        assert line.isascii()
        assert line.isprintable()
        assert len(line) <= 998  # RFC 5321, 4.5.3.1.6


def test_a_long_line_is_broken_and_ends_somewhere() -> None:
    body = mail("x", "\N{PILE OF POO}" * 10_000).body
    assert body.startswith(r"\U0001f4a9\U0001f4a9")
    assert 1000 < len(body) < 5000


# The RAW queue


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "Queues" / "Raw"
    folder.mkdir(parents=True)
    return folder


def raw(folder: Path) -> bytes:
    """Return the one message in the folder, its date replaced."""
    (path,) = folder.iterdir()
    data = path.read_bytes()
    (date,) = re.findall(rb"Header <Date: ([^<>\r\n]+)>\r\n", data)
    assert parsedate_to_datetime(date.decode("ascii")).tzinfo
    return data.replace(date, b"DATE")


def test_a_raw_message_is_written_as_the_server_wants_it(folder: Path) -> None:
    where = RawQueue(lambda: folder).send(mail(to=(ADMIN, "b@example.test")))
    assert raw(folder) == (
        b"From <mdaemon@example.test>\r\n"
        b"To <postmaster@example.test,b@example.test>\r\n"
        b"Subject <It failed>\r\n"
        b"Header <Date: DATE>\r\n"
        b"\r\n"
        b"one\r\n"
        b"two\r\n"
    )
    (path,) = folder.iterdir()
    assert where == f"through the RAW queue ({path})"
    assert path.suffix == ".raw"
    # Such a file would pass by the content filter.
    assert not path.name.lower().startswith("p")


def test_each_raw_message_has_a_file_of_its_own(folder: Path) -> None:
    transport = RawQueue(lambda: folder)
    transport.send(mail())
    transport.send(mail())
    assert len(list(folder.glob("*.raw"))) == 2


def test_the_server_never_sees_half_a_raw_message(folder: Path) -> None:
    seen: list[tuple[str, bool]] = []

    def look(path: Path) -> None:
        whole = path.exists() and path.read_bytes().endswith(b"two\r\n")
        seen.append((path.suffix, whole))
        assert list(folder.glob("*.raw")) == []

    with watched(folder, look):
        RawQueue(lambda: folder).send(mail())
    # Made and filled under another name, then renamed.
    assert seen[0] == (".tmp", False)
    assert seen[-1] == (".tmp", True)
    assert len(list(folder.glob("*.raw"))) == 1


@pytest.mark.parametrize("nasty", NASTY)
def test_hostile_text_adds_no_header_to_a_raw_message(folder: Path, nasty: str) -> None:
    made = Mail.compose(nasty + SENDER, [nasty + ADMIN], nasty, [nasty, "end"])
    RawQueue(lambda: folder).send(made)
    head, _, body = raw(folder).partition(b"\r\n\r\n")
    headers = [line.partition(b" <") for line in head.split(b"\r\n")]
    assert [name for name, _, _ in headers] == [b"From", b"To", b"Subject", b"Header"]
    for _, _, value in headers:
        assert re.fullmatch(rb"[ -;=?-~]*>", value)
    assert body.endswith(b"\r\nend\r\n")


@pytest.mark.parametrize("nasty", NASTY)
def test_a_server_as_strict_as_the_sandbox_takes_it(folder: Path, nasty: str) -> None:
    RawQueue(lambda: folder).send(mail(nasty, nasty, "end"))
    (path,) = folder.iterdir()
    parsed = message_from_bytes(parse_raw(path.read_bytes()))
    assert sorted(parsed.keys()) == ["Date", "From", "Subject", "To"]


@pytest.mark.parametrize("failing", [full_disk, read_only])
def test_a_raw_message_that_cannot_be_written_is_an_error_and_leaves_nothing(
    folder: Path, failing: Callable[[Path], contextlib.AbstractContextManager[None]]
) -> None:
    with failing(folder), pytest.raises(Error, match="Could not write") as caught:
        RawQueue(lambda: folder).send(mail())
    assert str(folder) in caught.value.message
    assert caught.value.hint
    assert list(folder.iterdir()) == []


def test_a_raw_message_that_cannot_be_renamed_is_an_error_and_leaves_nothing(
    folder: Path,
) -> None:
    with (
        read_only(folder, allowed=1, refused=1),
        pytest.raises(Error, match="Permission denied"),
    ):
        RawQueue(lambda: folder).send(mail())
    assert list(folder.iterdir()) == []


def test_a_queue_that_is_gone_is_an_error(folder: Path) -> None:
    folder.rmdir()
    with pytest.raises(Error, match=r"Could not write .*: No such file"):
        RawQueue(lambda: folder).send(mail())


def test_a_queue_that_cannot_be_found_is_the_finders_error() -> None:
    def find() -> Path:
        raise ConfigError("no queue")

    with pytest.raises(ConfigError, match="no queue"):
        RawQueue(find).send(mail())


# SMTP


@dataclass  # aiosmtpd stumbles over slots on Python 3.11.2
class Box:
    """What a mail server took, and how.

    Args:
        refused: Recipients it does not know.
        says: Its words to a login it refuses; none: it accepts every login.
    """

    refused: set[str] = field(default_factory=set)
    says: str = ""
    mails: list[Envelope] = field(default_factory=list)
    secured: list[bool] = field(default_factory=list)
    logins: list[LoginPassword] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802 - aiosmtpd looks for this name
        self,
        _server: SMTP,
        _session: Session,
        envelope: Envelope,
        address: str,
        _options: list[str],
    ) -> str:
        if address in self.refused:
            return "550 No such user here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802
        self, _server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        self.mails.append(envelope)
        self.secured.append(session.ssl is not None)
        return "250 OK"

    def authenticate(
        self,
        _server: SMTP,
        _session: Session,
        _envelope: Envelope,
        _mechanism: str,
        data: Any,  # noqa: ANN401 - depends on the mechanism
    ) -> AuthResult:
        self.logins.append(data)
        if self.says:
            return AuthResult(success=False, handled=False, message=self.says)
        return AuthResult(success=True)


def taken(box: Box) -> bytes:
    """Return the one message that a box took."""
    (envelope,) = box.mails
    assert isinstance(envelope.original_content, bytes)
    return envelope.original_content


@contextmanager
def serving(
    box: Box,
    *,
    tls: ssl.SSLContext | None = None,
    at_once: bool = False,
) -> Iterator[str]:
    """Run a mail server and return its URL.

    Args:
        tls: With it STARTTLS is offered; with `at_once` TLS stands before SMTP.
    """
    started: queue.Queue[tuple[int, Callable[[], object]]] = queue.Queue()

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        sessions: list[SMTP] = []

        def session() -> SMTP:
            sessions.append(
                SMTP(
                    box,
                    hostname="mail.example.test",
                    tls_context=None if at_once else tls,
                    authenticator=box.authenticate,
                    auth_require_tls=False,
                    loop=loop,
                )
            )
            return sessions[-1]

        first = tls if at_once else None
        server = await loop.create_server(session, LOCALHOST, 0, ssl=first)
        port = server.sockets[0].getsockname()[1]
        started.put((port, lambda: loop.call_soon_threadsafe(stop.set)))
        await stop.wait()
        server.close()
        for item in sessions:
            if item.transport is not None:
                item.transport.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    port, stop = started.get()
    try:
        yield f"{'smtps' if at_once else 'smtp'}://{LOCALHOST}:{port}"
    finally:
        stop()
        thread.join()


@pytest.fixture
def box() -> Box:
    return Box()


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    """A self-signed certificate of this machine's address with its key."""
    names = [x509.IPAddress(ip_address(LOCALHOST))]
    signed = sign(
        "MDaemon",
        start=datetime(2020, 1, 1, tzinfo=UTC),
        lifetime=timedelta(days=36500),  # here the clock that counts is the real one
        extensions=[x509.SubjectAlternativeName(names)],
    )
    path = tmp_path / "server.pem"
    path.write_bytes(
        key_pem(signed.key) + signed.certificate.public_bytes(Encoding.PEM)
    )
    return path


@pytest.fixture
def tls(pem: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


@pytest.fixture
def trusted(pem: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust that certificate and nothing else."""
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))


def test_a_mail_is_sent_by_smtp(box: Box) -> None:
    with serving(box) as url:
        where = Smtp(url).send(mail("It failed", "one", ".", "..two", ""))
    assert where == f"by {url}"
    (envelope,) = box.mails
    assert envelope.mail_from == SENDER
    assert envelope.rcpt_tos == [ADMIN]
    parsed = message_from_bytes(taken(box))
    assert parsed["From"] == SENDER
    assert parsed["To"] == ADMIN
    assert parsed["Subject"] == "It failed"
    assert parsedate_to_datetime(parsed["Date"]).tzinfo
    assert parsed.get_content_type() == "text/plain"
    assert parsed.get_payload() == "one\r\n.\r\n..two\r\n\r\n"
    assert box.secured == [False]


def test_several_recipients_get_one_mail(box: Box) -> None:
    with serving(box) as url:
        Smtp(url).send(mail(to=(ADMIN, "b@example.test")))
    assert box.mails[0].rcpt_tos == [ADMIN, "b@example.test"]
    to = message_from_bytes(taken(box))["To"]
    assert re.split(r",\s+", to) == [ADMIN, "b@example.test"]


def test_hostile_text_adds_no_header_to_a_mail(box: Box) -> None:
    with serving(box) as url:
        for nasty in NASTY:
            Smtp(url).send(mail(nasty, nasty, "end"))
    assert len(box.mails) == len(NASTY)
    for envelope in box.mails:
        content = envelope.original_content
        assert isinstance(content, bytes)
        assert content.isascii()
        parsed = message_from_bytes(content)
        names = ["From", "To", "Subject", "Date", "MIME-Version", "Content-Type"]
        assert parsed.keys() == names
        assert envelope.rcpt_tos == [ADMIN]


def test_tls_is_used_when_offered_whatever_the_certificate(
    box: Box, tls: ssl.SSLContext
) -> None:
    # The mail may be about this very certificate.
    with serving(box, tls=tls) as url:
        Smtp(url).send(mail())
    assert box.secured == [True]


def test_tls_may_come_first(box: Box, tls: ssl.SSLContext) -> None:
    with serving(box, tls=tls, at_once=True) as url:
        Smtp(url).send(mail())
    assert taken(box)


# Logging in


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("at_once", [False, True])
def test_a_login_works_over_tls_that_is_trusted(
    box: Box, tls: ssl.SSLContext, *, at_once: bool
) -> None:
    with serving(box, tls=tls, at_once=at_once) as url:
        Smtp(url, "someone", SECRET).send(mail())
    assert taken(box)
    assert box.logins == [LoginPassword(b"someone", SECRET.encode())]


def failed_login(url: str, password: str = SECRET) -> str:
    """Return all that is said about a login that fails."""
    with pytest.raises(Error) as caught:
        Smtp(url, "someone", password).send(mail())
    error = caught.value
    assert error.hint
    said = traceback.format_exception(error)
    return "".join([*said, error.message, error.hint, repr(error.__cause__)])


@pytest.mark.parametrize("at_once", [False, True])
def test_no_password_is_sent_over_tls_that_is_not_trusted(
    box: Box, tls: ssl.SSLContext, *, at_once: bool
) -> None:
    with serving(box, tls=tls, at_once=at_once) as url:
        said = failed_login(url)
    assert re.search(r"CERTIFICATE_VERIFY_FAILED.*self.signed certificate", said)
    assert SECRET not in said
    assert box.logins == []
    assert box.mails == []


@pytest.mark.usefixtures("trusted")
def test_no_password_is_sent_to_a_server_of_another_name(
    box: Box, tls: ssl.SSLContext
) -> None:
    with serving(box, tls=tls) as url:
        said = failed_login(url.replace(LOCALHOST, "localhost"))
    assert "Hostname mismatch" in said
    assert SECRET not in said
    assert box.logins == []


def test_no_password_is_sent_without_tls(box: Box) -> None:
    with serving(box) as url:
        said = failed_login(url)
    assert "STARTTLS" in said
    assert SECRET not in said
    assert box.logins == []
    assert box.mails == []


@pytest.mark.usefixtures("trusted")
def test_a_refused_login_is_an_error_that_does_not_tell_the_password(
    box: Box, tls: ssl.SSLContext
) -> None:
    box.says = f"535 5.7.8 {SECRET} is wrong"
    with serving(box, tls=tls) as url:
        said = failed_login(url)
    assert box.logins
    assert "did not accept the login of someone (code 535)" in said
    assert SECRET not in said


@pytest.mark.usefixtures("trusted")
def test_a_password_that_smtp_cannot_send_is_an_error_that_does_not_tell_it(
    box: Box, tls: ssl.SSLContext
) -> None:
    with serving(box, tls=tls) as url:
        said = failed_login(url, "geheim-\N{SNOWMAN}")
    assert "is not ASCII" in said
    assert "geheim" not in said
    assert "\N{SNOWMAN}" not in said


@pytest.mark.usefixtures("trusted")
def test_a_server_that_knows_no_login_is_an_error(tls: ssl.SSLContext) -> None:
    class Deaf(Box):
        async def handle_EHLO(  # noqa: N802
            self,
            _server: SMTP,
            session: Session,
            _envelope: Envelope,
            name: str,
            responses: list[str],
        ) -> list[str]:
            session.host_name = name
            return [line for line in responses if "AUTH" not in line]

    with serving(Deaf(), tls=tls) as url:
        said = failed_login(url)
    assert "did not accept the mail" in said
    assert SECRET not in said


def test_the_password_is_not_part_of_the_repr() -> None:
    smtp = Smtp("smtp://localhost", "someone", SECRET)
    assert smtp.password == SECRET
    assert SECRET not in repr(smtp)
    assert "someone" in repr(smtp)


# Servers that do not take it


def test_a_recipient_that_is_refused_is_an_error(box: Box) -> None:
    box.refused = {ADMIN}
    with serving(box) as url, pytest.raises(Error, match="No such user here") as caught:
        Smtp(url).send(mail())
    assert url in caught.value.message
    assert caught.value.hint
    assert box.mails == []


def test_one_refused_recipient_is_an_error_though_the_others_get_it(box: Box) -> None:
    box.refused = {"b@example.test"}
    with serving(box) as url, pytest.raises(Error, match=r"b@example\.test") as caught:
        Smtp(url).send(mail(to=(ADMIN, "b@example.test")))
    assert ADMIN not in caught.value.message
    assert box.mails[0].rcpt_tos == [ADMIN]


def test_a_server_that_is_down_is_an_error() -> None:
    with talker() as (host, port):
        pass
    with pytest.raises(Error, match="did not accept the mail") as caught:
        Smtp(f"smtp://{host}:{port}").send(mail())
    assert f"smtp://{host}:{port}" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "says", [b"", b"421 \x1b[31mbusy\r\n", b"\xff" * 9000, b"220 x\r\n", b"220 x\r\n5"]
)
def test_a_server_that_talks_nonsense_is_an_error_without_control_characters(
    says: bytes,
) -> None:
    with (
        talker(says=says) as (host, port),
        pytest.raises(Error, match="did not accept the mail") as caught,
    ):
        Smtp(f"smtp://{host}:{port}", timeout=HANG_SECONDS).send(mail())
    assert caught.value.message.isprintable()


def test_a_silent_server_is_an_error() -> None:
    with (
        talker(forever=True) as (host, port),
        pytest.raises(Error, match="timed out"),
    ):
        Smtp(f"smtp://{host}:{port}", timeout=0.2).send(mail())


@pytest.mark.parametrize("url", ["smtp://localhost:99999", "smtp://", "smtp://[::1"])
def test_a_url_that_is_none_is_an_error(url: str) -> None:
    with pytest.raises(Error, match="did not accept the mail"):
        Smtp(url, timeout=0.2).send(mail())
