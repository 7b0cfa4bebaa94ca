"""The small MDaemon's ports, spoken to by clients that nobody here wrote."""

from __future__ import annotations

import gc
import http.client
import imaplib
import logging
import poplib
import shutil
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from letsencrypt_mdaemon.pki.certificate import Certificate, thumbprint
from letsencrypt_mdaemon.sandbox.folder import (
    FOREIGN,
    TARGETS,
    Layout,
    bound,
    create,
    write,
)
from letsencrypt_mdaemon.sandbox.mdaemon import RELOADS, Fault, Server
from letsencrypt_mdaemon.sandbox.ports import MAX_REQUEST_BYTES, PORTS, imap, pop3
from letsencrypt_mdaemon.sandbox.ports import http as answer_http
from tests import certificates
from tests.limits import HANG_SECONDS

MAIL = ("smtp", "submission", "smtps", "imap", "imaps", "pop3", "pop3s")
AT_ONCE = ("smtps", "imaps", "pop3s", "webmail", "admin")
BY_COMMAND = ("smtp", "submission", "imap", "pop3")
TIMEOUT = HANG_SECONDS


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that no test changes."""
    layout = create(tmp_path_factory.mktemp("quiet") / "MDaemon")
    with Server(layout.folder, tls=True) as running:
        yield running


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return create(tmp_path / "MDaemon")


@pytest.fixture
def server(layout: Layout) -> Iterator[Server]:
    with Server(layout.folder, pickup=0.01, tls=True) as running:
        yield running


# Clients


@cache
def anybody() -> ssl.SSLContext:
    """Return a client's settings to talk with anybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def address(server: Server, label: str) -> tuple[str, int]:
    parts = urlsplit(server.endpoints[label])
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


@contextmanager
def connected(
    server: Server, label: str, context: ssl.SSLContext | None = None
) -> Iterator[ssl.SSLSocket]:
    """Start TLS with the standard library's client, and log out at the end."""
    host, port = address(server, label)
    context = context or anybody()
    with ExitStack() as exits:
        sock: object
        match PORTS[label].scheme:
            case "smtp+starttls":
                smtp = exits.enter_context(smtplib.SMTP(host, port, timeout=TIMEOUT))
                smtp.starttls(context=context)
                assert smtp.ehlo()[0] == 250
                assert not smtp.has_extn("starttls")
                sock = smtp.sock
            case "smtps":
                smtp = smtplib.SMTP_SSL(host, port, timeout=TIMEOUT, context=context)
                exits.enter_context(smtp)
                assert smtp.ehlo()[0] == 250
                assert not smtp.has_extn("starttls")
                sock = smtp.sock
            case "imap+starttls":
                imap4 = exits.enter_context(imaplib.IMAP4(host, port, timeout=TIMEOUT))
                assert "STARTTLS" in imap4.capabilities
                imap4.starttls(context)
                assert "STARTTLS" not in imap4.capabilities
                assert imap4.noop()[0] == "OK"
                sock = imap4.socket()
            case "imaps":
                imap4 = exits.enter_context(
                    imaplib.IMAP4_SSL(host, port, ssl_context=context, timeout=TIMEOUT)
                )
                assert "STARTTLS" not in imap4.capabilities
                assert imap4.noop()[0] == "OK"
                sock = imap4.socket()
            case "pop3+stls":
                pop = poplib.POP3(host, port, timeout=TIMEOUT)
                exits.callback(pop.quit)
                assert "STLS" in pop.capa()
                pop.stls(context)
                assert "STLS" not in pop.capa()
                sock = pop.sock
            case "pop3s":
                pop = poplib.POP3_SSL(host, port, context=context, timeout=TIMEOUT)
                exits.callback(pop.quit)
                assert "STLS" not in pop.capa()
                sock = pop.sock
            case _:
                web = http.client.HTTPSConnection(
                    host, port, timeout=TIMEOUT, context=context
                )
                exits.enter_context(closing(web))
                web.connect()
                sock = web.sock
        assert isinstance(sock, ssl.SSLSocket)
        yield sock


def shown(server: Server, label: str) -> str:
    """Return the thumbprint of the certificate that a port shows."""
    with connected(server, label) as client:
        der = client.getpeercert(binary_form=True)
    assert der
    return thumbprint(x509.load_der_x509_certificate(der))


def shown_by_all(server: Server) -> dict[str, str]:
    return {label: shown(server, label) for label in PORTS}


def chain(server: Server, label: str) -> list[x509.Certificate]:
    """Return what a port shows, the leaf first; only where TLS begins at once."""
    with socket.create_connection(address(server, label), TIMEOUT) as plain:
        plain.settimeout(None)  # pyOpenSSL knows no time-out
        client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), plain)
        client.set_connect_state()
        client.do_handshake()
        found = client.get_peer_cert_chain(as_cryptography=True)
        assert found
        return found


def plainly(server: Server, label: str) -> socket.socket:
    """Connect without TLS, and read the greeting."""
    client = socket.create_connection(address(server, label), TIMEOUT)
    assert client.recv(1000).endswith(b"\r\n")
    return client


def until(client: socket.socket, end: bytes) -> bytes:
    """Return what comes, up to its end."""
    said = b""
    while not said.endswith(end):
        said += client.recv(1000)
    return said


def rest(client: socket.socket) -> bytes:
    """Return what comes until the other side hangs up, be it rudely."""
    said = b""
    try:
        while data := client.recv(1000):
            said += data
    except ConnectionError:
        pass
    return said


def listens(server: Server, label: str) -> bool:
    try:
        socket.create_connection(address(server, label), TIMEOUT).close()
    except ConnectionRefusedError:
        return False
    return True


# Its folder


def put(layout: Layout, certificate: Certificate, name: str) -> str:
    """Put a certificate into the store; return its thumbprint."""
    write(certificate, layout.certificates / name)
    return certificate.thumbprint


def rename(layout: Layout, new: str, *parts: str) -> None:
    """Name another certificate in some parts' INI files, each in its own form."""
    for part in parts or TARGETS:
        old = bound(layout.folder)[part]
        file = layout.folder / TARGETS[part].file
        data = file.read_bytes()
        forms: list[Callable[[str], str]] = [
            str.upper,
            str.lower,
            lambda hex_: bytes.fromhex(hex_).hex(" ").upper(),
        ]
        for form in forms:
            data = data.replace(form(old).encode(), form(new).encode())
        file.write_bytes(data)
        assert bound(layout.folder)[part] == new


def ask(server: Server, name: str) -> None:
    """Ask for something by a semaphore, and wait until it is taken up."""
    taken = len(server.semaphores)
    (server.layout.app / name).touch()
    server.wait_for(lambda: len(server.semaphores) > taken)


@pytest.fixture
def old(layout: Layout) -> str:
    """The certificate of the beginning."""
    return bound(layout.folder)["mail"]


@pytest.fixture
def new(layout: Layout) -> str:
    """Another certificate in the store, which no file names yet."""
    return put(layout, certificates.certificate(), "new")


# Every port


@pytest.mark.parametrize("label", PORTS)
def test_a_port_shows_the_certificate_that_its_file_names(
    quiet: Server, label: str
) -> None:
    assert shown(quiet, label) == bound(quiet.layout.folder)["mail"]


def test_the_endpoints_are_urls_on_this_machine_and_numbers_of_their_own(
    quiet: Server,
) -> None:
    parts = {label: urlsplit(url) for label, url in quiet.endpoints.items()}
    assert {label: part.scheme for label, part in parts.items()} == {
        "smtp": "smtp+starttls",
        "submission": "smtp+starttls",
        "smtps": "smtps",
        "imap": "imap+starttls",
        "imaps": "imaps",
        "pop3": "pop3+stls",
        "pop3s": "pop3s",
        "webmail": "https",
        "admin": "https",
    }
    assert {part.hostname for part in parts.values()} == {"127.0.0.1"}
    assert len({part.port for part in parts.values()}) == len(PORTS)
    assert parts["smtp"].port == quiet.smtp_port


def test_without_tls_there_is_one_port_and_it_offers_none(layout: Layout) -> None:
    with Server(layout.folder) as server:
        assert server.endpoints == {}
        with smtplib.SMTP("127.0.0.1", server.smtp_port, timeout=TIMEOUT) as client:
            client.ehlo()
            assert not client.has_extn("starttls")


@pytest.mark.parametrize("label", ["smtp", "submission", "smtps"])
def test_mail_is_taken_over_tls(layout: Layout, label: str) -> None:
    with Server(layout.folder, tls=True) as server:
        host, port = address(server, label)
        if label == "smtps":
            client: smtplib.SMTP = smtplib.SMTP_SSL(
                host, port, timeout=TIMEOUT, context=anybody()
            )
        else:
            client = smtplib.SMTP(host, port, timeout=TIMEOUT)
            client.starttls(context=anybody())
        with client:
            client.sendmail("a@example.test", "b@example.test", "Subject: s\r\n\r\n")
        assert b"Subject: s" in server.delivered[0].read_bytes()


def test_the_ports_answer_while_a_mail_waits_to_be_delivered(quiet: Server) -> None:
    with plainly(quiet, "smtp") as mail, plainly(quiet, "imap") as imap4:
        for command in (b"EHLO a", b"MAIL FROM:<a@example.test>"):
            mail.sendall(command + b"\r\n")
            until(mail, b"\r\n")
        mail.sendall(b"RCPT TO:<b@example.test>\r\nDATA\r\n")
        until(mail, b"354 End data with <CR><LF>.<CR><LF>\r\n")
        with quiet.changed:  # nobody can deliver now
            mail.sendall(b"Subject: s\r\n\r\n.\r\n")
            for _ in range(50):
                imap4.sendall(b"a NOOP\r\n")
                assert until(imap4, b"\r\n") == b"a OK NOOP completed\r\n"
        assert until(mail, b"\r\n").startswith(b"250 ")


@pytest.mark.parametrize("label", ["webmail", "admin"])
def test_a_page_is_served_over_https(quiet: Server, label: str) -> None:
    host, port = address(quiet, label)
    web = http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=anybody())
    with closing(web):
        for method, status in (("GET", 200), ("HEAD", 200), ("POST", 501)):
            web.request(method, "/")
            response = web.getresponse()
            body = response.read()
            assert response.status == status
            assert bool(body) == (method == "GET")
            assert response.getheader("Content-Type") == "text/plain"


def test_nobody_can_log_in(quiet: Server) -> None:
    host, port = address(quiet, "imaps")
    with imaplib.IMAP4_SSL(host, port, ssl_context=anybody(), timeout=TIMEOUT) as imap4:
        assert "LOGINDISABLED" in imap4.capabilities
        with pytest.raises(imaplib.IMAP4.error, match="Login is disabled"):
            imap4.login("somebody", "anything")
    host, port = address(quiet, "pop3s")
    pop = poplib.POP3_SSL(host, port, context=anybody(), timeout=TIMEOUT)
    with pytest.raises(poplib.error_proto, match="-ERR"):
        pop.user("somebody")
    pop.quit()


def test_starttls_is_refused_the_second_time(quiet: Server) -> None:
    for label in ("imap", "pop3"):
        with connected(quiet, label) as client:
            client.sendall(b"a STARTTLS\r\n" if label == "imap" else b"STLS\r\n")
            expected = b"a BAD " if label == "imap" else b"-ERR "
            assert client.recv(1000).startswith(expected)


@pytest.mark.parametrize("label", PORTS)
def test_clients_that_leave_at_any_moment_leave_no_trace(
    quiet: Server, label: str, caplog: pytest.LogCaptureFixture
) -> None:
    commands = {"smtp": b"EHLO a\r\nSTARTTLS\r\n", "imap": b"a STARTTLS\r\n"}
    start = commands.get(PORTS[label].speaks, b"STLS\r\n")
    with caplog.at_level(logging.WARNING):
        for garbage in (b"", b"\x16\x03\x01", b"HELLO\r\n\r\n", bytes(300)):
            with socket.create_connection(address(quiet, label), TIMEOUT) as client:
                if label in BY_COMMAND:
                    client.recv(1000)
                    client.sendall(start)
                    client.recv(1000)
                client.sendall(garbage)
        assert shown(quiet, label)  # it has seen all of them by now
    assert caplog.messages == []


class Patient:
    """A TLS client that has shaken hands and not yet sent the last bytes of it."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = anybody().wrap_bio(self.incoming, self.outgoing)
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                client.sendall(self.outgoing.read())
                self.incoming.write(client.recv(10_000))
            else:
                break

    def rest(self) -> bytes:
        """Send what there is, and return what is said until the other side's end."""
        said = b""
        while True:
            self.client.sendall(self.outgoing.read())
            try:
                heard = self.tls.read(1000)
            except ssl.SSLWantReadError:
                heard = self.client.recv(10_000)
                self.incoming.write(heard)
            else:
                said += heard
            if not heard:
                return said


@pytest.mark.parametrize("label", AT_ONCE)
def test_a_client_may_leave_with_the_last_bytes_of_its_handshake(
    quiet: Server, label: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.WARNING),
        socket.create_connection(address(quiet, label), TIMEOUT) as client,
    ):
        patient = Patient(client)
        with pytest.raises(ssl.SSLWantReadError):
            patient.tls.unwrap()
        client.sendall(patient.outgoing.read())
        rest(client)  # it hangs up as well
    assert caplog.messages == []


BYE = b"* BYE The sandbox closes the connection\r\nb OK Goodbye\r\n"
IMAP_GREETS = b"* OK mail.example.test IMAP4rev1 sandbox\r\n"
POP3_GREETS = b"+OK mail.example.test POP3 sandbox\r\n"
SMTP_GREETS = b"220 mail.example.test ESMTP sandbox\r\n"


@pytest.mark.parametrize(
    ("label", "starts", "says", "answer"),
    [
        ("imap", b"a STARTTLS\r\n", b"b LOGOUT\r\n", BYE),
        ("imaps", b"", b"b LOGOUT\r\n", IMAP_GREETS + BYE),
        ("pop3", b"STLS\r\n", b"QUIT\r\n", b"+OK Goodbye\r\n"),
        ("pop3s", b"", b"QUIT\r\n", POP3_GREETS + b"+OK Goodbye\r\n"),
        ("smtps", b"", b"QUIT\r\n", SMTP_GREETS + b"221 Bye\r\n"),
        ("webmail", b"", b"GET\r\n\r\n", answer_http(b"GET", offers_tls=False).says),
    ],
)
def test_a_client_may_speak_with_the_last_bytes_of_its_handshake(
    quiet: Server, label: str, starts: bytes, says: bytes, answer: bytes
) -> None:
    with socket.create_connection(address(quiet, label), TIMEOUT) as client:
        if starts:
            client.recv(1000)
            client.sendall(starts)
            client.recv(1000)
        patient = Patient(client)
        patient.tls.write(says)
        assert patient.rest() == answer


@pytest.mark.parametrize("label", ["imap", "pop3"])
def test_a_client_that_never_ends_a_command_is_hung_up_on(
    quiet: Server, label: str
) -> None:
    with plainly(quiet, label) as client:
        client.sendall(b"a" * (MAX_REQUEST_BYTES + 1))
        assert rest(client) == b""


# What comes with STARTTLS may be anybody's


@pytest.mark.parametrize(
    ("label", "says"),
    [("imap", b"a STARTTLS\r\nb NOOP\r\n"), ("pop3", b"STLS\r\nCAPA\r\n")],
)
def test_commands_behind_starttls_end_the_connection(
    quiet: Server, label: str, says: bytes
) -> None:
    with plainly(quiet, label) as client:
        client.sendall(says)
        assert rest(client) == b""


def test_commands_behind_starttls_are_forgotten_by_smtp(quiet: Server) -> None:
    with plainly(quiet, "smtp") as client:
        client.sendall(b"EHLO client.example.test\r\n")
        assert b"250-STARTTLS\r\n" in until(client, b"250 HELP\r\n")
        client.sendall(b"STARTTLS\r\nVRFY injected@example.test\r\n")
        assert client.recv(1000).startswith(b"220 ")
        patient = Patient(client)
        # The EHLO of before is forgotten as well.
        patient.tls.write(b"MAIL FROM:<a@example.test>\r\nQUIT\r\n")
        said = patient.rest().split(b"\r\n")
        assert [line[:3] for line in said] == [b"503", b"221", b""]


# What is said


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"a noop", b"a OK NOOP completed\r\n"),
        (b"A1.~] NOOP", b"A1.~] OK NOOP completed\r\n"),
        (b"a LOGOUT", b"* BYE The sandbox closes the connection\r\na OK Goodbye\r\n"),
        (b"a STARTTLS", b"a OK Begin TLS now\r\n"),
        (b"a STARTTLS now", b"a BAD Command not supported\r\n"),
        (b"a SELECT inbox", b"a BAD Command not supported\r\n"),
        (b"a AUTHENTICATE PLAIN", b"a NO Login is disabled\r\n"),
        (b"a LOGIN {4}", b"a NO Login is disabled\r\n"),
        (b"a+ NOOP", b"* BAD Invalid command\r\n"),
        (b"* NOOP", b"* BAD Invalid command\r\n"),
        (b"NOOP", b"* BAD Invalid command\r\n"),
        (b"a  NOOP", b"* BAD Invalid command\r\n"),
        (b"", b"* BAD Invalid command\r\n"),
    ],
)
def test_imap_answers_carry_the_tag_of_the_command(line: bytes, answer: bytes) -> None:
    assert imap(line, offers_tls=True).says == answer


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"capa", b"+OK\r\nSTLS\r\nIMPLEMENTATION sandbox\r\n.\r\n"),
        (b"STLS", b"+OK Begin TLS now\r\n"),
        (b"QUIT", b"+OK Goodbye\r\n"),
        (b"NOOP", b"-ERR Command not supported\r\n"),
        (b"", b"-ERR Command not supported\r\n"),
    ],
)
def test_pop3_answers_ok_or_err(line: bytes, answer: bytes) -> None:
    assert pop3(line, offers_tls=True).says == answer


def test_tls_is_not_started_where_it_is_not_offered() -> None:
    assert imap(b"a STARTTLS", offers_tls=False).says.startswith(b"a BAD ")
    assert pop3(b"STLS", offers_tls=False).says.startswith(b"-ERR ")
    assert not imap(b"a STARTTLS", offers_tls=False).then_tls
    assert not pop3(b"STLS", offers_tls=False).then_tls


@given(
    st.binary().map(lambda line: line.replace(b"\r\n", b""))
    | st.tuples(
        st.sampled_from([b"a ", b"", b"* "]),
        st.sampled_from([b"CAPABILITY", b"LOGIN", b"CAPA", b"GET / HTTP/1.1\r\n"]),
        st.binary(),
    ).map(b"".join)
)
def test_anything_said_gets_one_whole_answer(said: bytes) -> None:
    tagged = imap(said, offers_tls=True).says.split(b"\r\n")
    assert tagged[-1] == b""
    assert tagged[-2].startswith((said.split(b" ")[0] + b" ", b"* BAD "))
    assert all(line.startswith(b"* ") for line in tagged[:-2])
    status = pop3(said, offers_tls=True).says
    assert status.startswith((b"+OK", b"-ERR"))
    assert status.endswith(b"\r\n")
    head, _, body = answer_http(said, offers_tls=False).says.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 ")
    assert said.startswith(b"HEAD ") or f"Content-Length: {len(body)}".encode() in head


# Which certificate


@pytest.mark.parametrize(
    ("semaphore", "labels"),
    [
        ("RELOADCACHE.SEM", set(MAIL)),
        ("RESTARTWC.SEM", {"webmail"}),
        ("RESTART.SEM", set(PORTS)),
        ("DOMAINS.SEM", set[str]()),
    ],
)
def test_a_port_shows_another_certificate_once_its_semaphore_is_taken(
    server: Server, old: str, new: str, semaphore: str, labels: set[str]
) -> None:
    rename(server.layout, new)
    assert shown_by_all(server) == dict.fromkeys(PORTS, old)
    endpoints = server.endpoints
    ask(server, semaphore)
    assert shown_by_all(server) == {
        label: new if label in labels else old for label in PORTS
    }
    assert server.endpoints == endpoints


def test_a_restart_hangs_up_and_a_reload_does_not(server: Server) -> None:
    with plainly(server, "imap") as imap4, connected(server, "webmail") as web:
        ask(server, "RELOADCACHE.SEM")
        imap4.sendall(b"a NOOP\r\n")
        assert imap4.recv(1000) == b"a OK NOOP completed\r\n"
        ask(server, "RESTARTWC.SEM")
        assert rest(web) == b""
        imap4.sendall(b"b NOOP\r\n")
        assert imap4.recv(1000) == b"b OK NOOP completed\r\n"
        ask(server, "RESTART.SEM")
        assert rest(imap4) == b""


def test_the_chain_is_shown_with_the_certificate(server: Server, new: str) -> None:
    rename(server.layout, new)
    ask(server, "RESTART.SEM")
    for label in AT_ONCE:
        leaf, intermediate = chain(server, label)
        assert thumbprint(leaf) == new
        assert intermediate == certificates.intermediate().certificate


@pytest.mark.parametrize(
    "listed", ["{foreign},{new}", "{new},{old}", "{foreign},{old}"]
)
def test_of_a_list_the_first_that_is_in_the_store_is_shown(
    server: Server, old: str, new: str, listed: str
) -> None:
    file = server.layout.folder / TARGETS["webmail"].file
    before = f"{old},{FOREIGN}".lower().encode()
    value = listed.format(foreign=FOREIGN, old=old, new=new).lower().encode()
    assert before in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(before, value))
    ask(server, "RESTARTWC.SEM")
    expected = new if "{new}" in listed else old
    assert shown(server, "webmail") == server.serving["webmail"] == expected


def offers_tls(server: Server, label: str) -> bool:
    """Whether TLS can be started at a port that listens."""
    try:
        shown(server, label)
    except (
        AssertionError,  # STARTTLS is not among the capabilities
        smtplib.SMTPNotSupportedError,
        ssl.SSLError,
        ConnectionError,
    ):
        assert listens(server, label)
        return False
    return True


@pytest.mark.parametrize(
    "what", ["not there", "other key", "no key", "encrypted key", "garbage", "no chain"]
)
def test_a_part_whose_certificate_cannot_be_used_goes_on_without_tls(
    server: Server, new: str, what: str
) -> None:
    rename(server.layout, new, "webmail", "mail")
    place = server.layout.certificates / "new"
    key = certificates.key(7)
    match what:
        case "not there":
            shutil.rmtree(place)
        case "other key" | "encrypted key":
            secret: serialization.KeySerializationEncryption = (
                serialization.NoEncryption()
                if what == "other key"
                else serialization.BestAvailableEncryption(b"secret")
            )
            (place / "privkey.pem").write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    secret,
                )
            )
        case "no key":
            (place / "privkey.pem").unlink()
        case "garbage":
            (place / "cert.pem").write_bytes(b"\xff")
        case _:
            (place / "chain.pem").write_bytes(b"garbage")
    ask(server, "RESTART.SEM")
    can = {label for label in PORTS if offers_tls(server, label)}
    assert can == {"admin"}
    assert server.serving["webmail"] == new


# Going wrong on demand


def two_passes(server: Server) -> None:
    """Wait until the server has certainly looked at all that is there now."""
    seen = server.passes
    server.wait_for(lambda: server.passes >= seen + 2)


def test_a_restart_takes_as_long_as_it_is_told_to(server: Server, new: str) -> None:
    server.downtime = 3600
    endpoints = server.endpoints
    ask(server, "RESTART.SEM")
    assert not [label for label in PORTS if listens(server, label)]
    # It reads its files when it begins anew, and takes up nothing before.
    rename(server.layout, new)
    (server.layout.app / "ALIAS.SEM").touch()
    two_passes(server)
    assert server.semaphores == ["RESTART.SEM"]
    server.downtime = 0
    server.wait_for(lambda: "ALIAS.SEM" in server.semaphores)
    assert not server.down
    assert server.endpoints == endpoints
    assert shown_by_all(server) == dict.fromkeys(PORTS, new)


def test_mail_goes_on_while_webmail_restarts(server: Server, new: str) -> None:
    server.downtime = 3600
    server.reloads["RELOADCACHE.SEM"] = ("mail", "webmail")
    rename(server.layout, new)
    ask(server, "RESTARTWC.SEM")
    ask(server, "RELOADCACHE.SEM")
    assert not listens(server, "webmail")
    assert shown(server, "imaps") == new
    server.downtime = 0
    server.wait_for(lambda: not server.down)
    assert shown(server, "webmail") == new


def test_a_server_that_cannot_listen_again_tries_until_it_can(server: Server) -> None:
    server.downtime = 3600
    ask(server, "RESTART.SEM")
    with socket.create_server(address(server, "imap")):
        server.downtime = 0
        two_passes(server)
        assert "mail" in server.down
        assert "webmail" not in server.down
    server.wait_for(lambda: not server.down)
    assert shown(server, "imap") == server.serving["mail"]


def test_mail_alone_reloads_whatever_the_semaphore(
    server: Server, old: str, new: str
) -> None:
    server.reloads = dict.fromkeys(RELOADS, ("mail",))
    rename(server.layout, new)
    for semaphore in RELOADS:
        ask(server, semaphore)
    assert shown_by_all(server) == {
        label: new if label in MAIL else old for label in PORTS
    }


def test_a_semaphore_is_taken_up_and_nothing_changes(
    server: Server, old: str, new: str
) -> None:
    server.reloads["RELOADCACHE.SEM"] = ()
    rename(server.layout, new)
    ask(server, "RELOADCACHE.SEM")
    assert shown_by_all(server) == dict.fromkeys(PORTS, old)


def seen(server: Server, label: str) -> str:
    """Return what a client finds at a port."""
    if not listens(server, label):
        return "nothing"
    return shown(server, label) if offers_tls(server, label) else "no TLS"


@pytest.mark.parametrize("fault", Fault)
def test_a_fault_shows_with_another_certificate_and_is_gone_with_the_old_one(
    server: Server, old: str, new: str, fault: Fault
) -> None:
    server.spoil(fault)
    ask(server, "RESTART.SEM")
    assert shown_by_all(server) == dict.fromkeys(PORTS, old)

    rename(server.layout, new)
    ask(server, "RELOADCACHE.SEM")
    ask(server, "RESTART.SEM")
    assert server.serving == dict.fromkeys(TARGETS, new)
    expected = {
        Fault.DEAD: "nothing",
        Fault.NO_TLS: "no TLS",
        Fault.WRONG: server.stranger.thumbprint,
        Fault.NO_CHAIN: new,
        Fault.STALE_CHAIN: new,
    }
    found = {label: seen(server, label) for label in PORTS}
    assert found == dict.fromkeys(PORTS, expected[fault])

    rename(server.layout, old)
    ask(server, "RELOADCACHE.SEM")
    assert seen(server, "smtp") == seen(server, "imaps") == old
    ask(server, "RESTART.SEM")
    assert shown_by_all(server) == dict.fromkeys(PORTS, old)


def test_a_fault_may_be_in_one_part_alone(server: Server, new: str) -> None:
    server.spoil(Fault.DEAD, "webmail")
    rename(server.layout, new)
    ask(server, "RESTART.SEM")
    assert {label for label in PORTS if listens(server, label)} == {*MAIL, "admin"}
    server.faults.clear()
    ask(server, "RESTARTWC.SEM")
    assert shown(server, "webmail") == new


@pytest.mark.parametrize("fault", [Fault.NO_CHAIN, Fault.STALE_CHAIN])
def test_a_chain_lacks_its_intermediate_or_has_the_former_ones(
    layout: Layout, fault: Fault
) -> None:
    rename(layout, put(layout, certificates.certificate(), "former"))
    other = certificates.authority("Example R2", issuer=certificates.root())
    leaf = certificates.leaf(issuer=other)
    later = Certificate((leaf, other.certificate), certificates.key())
    rest_ = [certificates.intermediate().certificate]
    with Server(layout.folder, pickup=0.01, tls=True) as server:
        server.spoil(fault)
        rename(layout, put(layout, later, "later"))
        ask(server, "RESTART.SEM")
        expected = [leaf, *(rest_ if fault is Fault.STALE_CHAIN else [])]
        assert chain(server, "imaps") == chain(server, "webmail") == expected
        server.faults.clear()
        ask(server, "RESTART.SEM")
        assert chain(server, "imaps") == [leaf, other.certificate]


# Ending


def test_all_ends_on_the_way_out_though_clients_hold_their_connections(
    layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    before = set(threading.enumerate())
    with ExitStack() as exits:
        with Server(layout.folder, tls=True) as server:
            with smtplib.SMTP(*address(server, "smtp"), timeout=TIMEOUT) as client:
                client.sendmail("a@example.test", "b@example.test", "\r\n")
            clients = [
                exits.enter_context(plainly(server, label)) for label in BY_COMMAND
            ]
            for label in AT_ONCE:
                where = address(server, label)
                plain = exits.enter_context(socket.create_connection(where, TIMEOUT))
                plain.sendall(b"\x16\x03\x01")  # the beginning of a handshake
                clients.append(plain)
        assert set(threading.enumerate()) <= before
        assert [rest(client) for client in clients] == [b""] * len(PORTS)
        assert not [label for label in PORTS if listens(server, label)]
    del server
    gc.collect()  # what was not ended says so now
    assert caplog.messages == []
