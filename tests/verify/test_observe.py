"""What each port serves, asked by real TLS; and what ports do that mean no good."""

import errno
import re
import socket
import ssl
import struct
import threading
from contextlib import ExitStack, suppress
from itertools import repeat

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from letsencrypt_mdaemon.pki.certificate import (
    KeyType,
    dns_names,
    new_key,
    thumbprint,
)
from letsencrypt_mdaemon.sandbox import ports as sandbox
from letsencrypt_mdaemon.system import parallel
from letsencrypt_mdaemon.verify import observe as observing
from letsencrypt_mdaemon.verify.endpoints import PORTS, Endpoint
from letsencrypt_mdaemon.verify.handshake import GREETING_TIMEOUTS, MAX_PLAIN_BYTES
from letsencrypt_mdaemon.verify.observe import LANES, failing, observe
from letsencrypt_mdaemon.verify.served import Answer, Served
from tests import certificates, servers
from tests.limits import HANG_SECONDS, SOON_SECONDS, in_time
from tests.servers import LOCALHOST, Serve, context, endpoint, honest

NAME = "mail.example.test"
OTHER = "imap.example.test"
THIRD = "pop.example.test"
CERTIFICATE = certificates.certificate((NAME, OTHER))
STARTTLS = ("smtp+starttls", "imap+starttls", "pop3+stls")
EVERY_SCHEME = pytest.mark.parametrize("scheme", PORTS)
EVERY_STARTTLS = pytest.mark.parametrize("scheme", STARTTLS)


def tls(*names: str) -> ssl.SSLContext:
    made = certificates.certificate(names) if names else CERTIFICATE
    return context(made.chain, made.key)


def ask(scheme: str, serve: Serve, *, timeout: float = HANG_SECONDS) -> Served:
    with endpoint(scheme, serve) as at:
        return observe([at], [NAME], timeout=timeout, briefly=True)[at]


def failed(
    scheme: str,
    serve: Serve,
    *,
    outcome: Answer = Answer.HANDSHAKE_FAILED,
    timeout: float = HANG_SECONDS,
) -> str:
    answer = ask(scheme, serve, timeout=timeout)
    assert answer.outcome is outcome
    assert answer.leaf is None
    assert answer.thumbprint == ""
    return answer.detail


# Ports that behave


@EVERY_SCHEME
def test_a_port_is_asked_for_its_chain_and_its_version_of_tls(scheme: str) -> None:
    answer = ask(scheme, honest(scheme, tls()))

    assert answer.outcome is Answer.SERVED
    assert answer.detail == ""
    assert answer.chain == CERTIFICATE.chain
    assert answer.thumbprint == CERTIFICATE.thumbprint
    assert dns_names(answer.chain[0]) == (NAME, OTHER)
    assert answer.tls == "TLS 1.3"
    assert answer.server_name == NAME
    assert 0 < answer.seconds < HANG_SECONDS


def test_every_port_of_the_sandbox_is_understood() -> None:
    labels = sandbox.PORTS
    with sandbox.Ports(NAME, print, labels) as running:
        for part in ("mail", "webmail", "admin"):
            running.open(part, tls())
        at = {
            Endpoint(labels[label].scheme, LOCALHOST, number)
            for label, number in running.numbers.items()
        }

        observed = observe(at, [NAME])

    assert len(at) == 9
    leaves = {where: answer.leaf for where, answer in observed.items()}
    assert leaves == dict.fromkeys(at, CERTIFICATE.leaf)


@servers.needs_ipv6
@EVERY_SCHEME
def test_ipv6_is_spoken(scheme: str) -> None:
    heard: list[bytes] = []
    with endpoint(scheme, honest(scheme, tls(), heard), "::1") as at:
        answer = observe([at], briefly=True)[at]

    assert answer.chain == CERTIFICATE.chain
    if scheme.startswith("smtp+"):
        assert heard[0] == b"EHLO [IPv6:::1]"


@EVERY_SCHEME
def test_a_mail_server_is_told_goodbye(scheme: str) -> None:
    heard: list[bytes] = []

    ask(scheme, honest(scheme, tls(), heard))

    farewell = {"smtp": [b"QUIT"], "imap": [b"a3 LOGOUT"], "pop3": [b"QUIT"]}
    assert heard[-1:] == farewell.get(scheme[:4], [])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_todays_versions_of_tls_are_told(version: ssl.TLSVersion) -> None:
    answer = ask("imaps", honest("imaps", servers.only(tls(), version)))

    assert answer.outcome is Answer.SERVED
    assert answer.tls == version.name.replace("TLSv1_", "TLS 1.")


def test_all_are_asked_at_once_and_each_gets_its_own_answer() -> None:
    schemes = [*PORTS, *STARTTLS, "https", "imaps"]
    assert len(schemes) == 12
    meeting = threading.Barrier(len(schemes))
    names = [f"host{number}.example.test" for number in range(12)]

    def meets(scheme: str, made: ssl.SSLContext) -> Serve:
        serve = honest(scheme, made)

        def serve_when_all_are_here(connection: socket.socket) -> None:
            # It opens only when everybody is at some port; else it breaks.
            with suppress(threading.BrokenBarrierError):
                meeting.wait(HANG_SECONDS)
                serve(connection)

        return serve_when_all_are_here

    with ExitStack() as exits:
        at = [
            exits.enter_context(endpoint(scheme, meets(scheme, tls(name))))
            for scheme, name in zip(schemes, names, strict=True)
        ]
        observed = observe(at, ["whoever.example.test"])

    assert list(observed) == at
    found = [dns_names(answer.chain[0]) for answer in observed.values()]
    assert found == [(name,) for name in names]


def test_the_slow_and_the_broken_do_not_keep_the_others_from_being_seen() -> None:
    with ExitStack() as exits:
        silent = exits.enter_context(endpoint("imaps", servers.says()))
        good = exits.enter_context(endpoint("https", honest("https", tls())))
        closed = Endpoint("smtps", LOCALHOST, servers.free_port())

        ports = [silent, good, closed]
        observed = in_time(
            lambda seconds: observe(ports, [NAME], timeout=seconds),
            lambda found: found[good].leaf,
        )

    assert [answer.outcome for answer in observed.values()] == [
        Answer.TIMED_OUT,
        Answer.SERVED,
        Answer.NOT_LISTENING,
    ]
    leaves = [answer.leaf for answer in observed.values()]
    assert leaves == [None, CERTIFICATE.leaf, None]


def test_the_same_answer_is_equal_however_long_it_took() -> None:
    with endpoint("https", honest("https", tls())) as at:
        first, second = (observe([at], [NAME])[at] for _ in range(2))

    assert first == second
    assert first.seconds != second.seconds


def test_nothing_to_ask_is_no_error() -> None:
    assert observe([], [NAME]) == {}


# Whom they are asked for


class Virtual:
    """A server of several certificates, which notes whom it was asked for."""

    def __init__(self, *others: str) -> None:
        self.asked: list[str | None] = []
        self.context = tls(NAME)
        self.others = {name: tls(name) for name in others}
        self.context.sni_callback = self.choose

    def choose(self, connection: ssl.SSLObject, name: str | None, _: object) -> None:
        self.asked.append(name)
        if name in self.others:
            connection.context = self.others[name]


def test_one_address_is_asked_for_every_name_and_the_others_for_two() -> None:
    there, beside = Virtual(), Virtual()
    with servers.listening(honest("imaps", there.context)) as port:
        serve = honest("imaps", beside.context)
        with servers.listening(serve, servers.OTHER_HOST, port):
            ports = [
                Endpoint("imaps", host, port)
                for host in (LOCALHOST, servers.OTHER_HOST)
            ]
            answers = observe(ports, [NAME, OTHER, THIRD])

    # Once more, to be shown a certificate with a key of the other kind.
    assert sorted(filter(None, there.asked)) == sorted([NAME, NAME, OTHER, THIRD])
    assert sorted(filter(None, beside.asked)) == sorted([NAME, NAME, OTHER])
    assert [answer.differently for answer in answers.values()] == [(), ()]
    assert all(answer.serves({answer.thumbprint}) for answer in answers.values())


def test_a_brief_look_takes_one_connection() -> None:
    virtual = Virtual(OTHER)
    with endpoint("imaps", honest("imaps", virtual.context)) as at:
        answer = observe([at], [NAME, OTHER, THIRD], briefly=True)[at]

    assert virtual.asked == [NAME]
    assert answer.differently == ()


def test_a_certificate_is_seen_that_only_the_last_of_many_names_gets() -> None:
    names = [f"n{number}.example.test" for number in range(30)]
    virtual = Virtual(names[-1])
    with endpoint("imaps", honest("imaps", virtual.context)) as at:
        answer = observe([at], names)[at]

    (other,) = answer.differently
    assert other.server_name == names[-1]
    assert len(virtual.asked) == len(names) + 1


def test_a_port_is_talked_to_by_four_at_a_time() -> None:
    lock, present, most = threading.Lock(), [0], [0]
    serve = honest("imaps", tls())

    def counted(connection: socket.socket) -> None:
        with lock:
            present[0] += 1
            most[0] = max(most[0], present[0])
        try:
            serve(connection)
        finally:
            with lock:
                present[0] -= 1

    with endpoint("imaps", counted) as at:
        observe([at], [f"n{number}.example.test" for number in range(40)])

    # One that has said goodbye may be counted still, while the next one comes.
    assert 1 < most[0] <= 2 * LANES


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("stale", ["rsa2048", "p256"])
def test_both_kinds_of_key_are_asked_for(
    stale: KeyType, version: ssl.TLSVersion
) -> None:
    """What was preferred is said first; the other one is not overlooked."""
    kinds: tuple[KeyType, KeyType] = ("rsa2048", "p256")
    made = servers.only(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), version)
    leaves = {}
    for kind in kinds:
        own = new_key(kind)
        leaves[kind] = leaf = certificates.leaf((NAME,), own_key=own)
        servers.load(made, [leaf], own)
    with endpoint("imaps", honest("imaps", made)) as at:
        answer = observe([at], [NAME])[at]

    assert answer.shown == {thumbprint(leaf) for leaf in leaves.values()}
    (other,) = answer.differently
    assert (
        other.key
        == {"rsa2048": "RSA", "p256": "ECDSA"}[
            next(kind for kind, leaf in leaves.items() if leaf == other.leaf)
        ]
    )
    (new,) = (thumbprint(leaf) for kind, leaf in leaves.items() if kind != stale)
    assert not answer.serves({new})


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_port_that_wants_a_client_certificate_shows_its_own(
    version: ssl.TLSVersion,
) -> None:
    made = servers.only(tls(), version)
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(
        cadata=certificates.root().certificate.public_bytes(Encoding.DER)
    )

    answer = ask("https", honest("https", made))

    assert answer.outcome is Answer.SERVED
    assert answer.chain == CERTIFICATE.chain
    assert answer.detail == "wants a client certificate"


@EVERY_STARTTLS
def test_a_greeting_may_take_longer_than_the_rest(scheme: str) -> None:
    """The server greets when the timeout of a conversation is over for sure."""
    over = threading.Event()
    serve = honest(scheme, tls())

    def slow(connection: socket.socket) -> None:
        over.wait(HANG_SECONDS)
        serve(connection)

    def look(seconds: float) -> Served:
        over.clear()
        timer = threading.Timer(1.5 * seconds, over.set)
        timer.start()
        try:
            return observe([at], [NAME], timeout=seconds, briefly=True)[at]
        finally:
            over.set()
            timer.join()

    with endpoint(scheme, slow) as at:
        answer = in_time(look, lambda found: found.leaf)

    assert answer.outcome is Answer.SERVED


def test_an_smtp_server_that_wants_a_name_is_told_its_own() -> None:
    heard: list[bytes] = []

    def picky(connection: socket.socket) -> None:
        connection.sendall(servers.GREETINGS["smtp"])
        said = servers.lines(connection)
        heard.append(next(said))
        connection.sendall(b"550 5.7.1 Invalid HELO\r\n")
        heard.append(next(said))
        connection.sendall(servers.OFFERS["smtp"])
        heard.append(next(said))
        connection.sendall(servers.GOES["smtp"])
        with tls().wrap_socket(connection, server_side=True) as secure:
            secure.recv(1000)

    answer = ask("smtp+starttls", picky)

    assert answer.outcome is Answer.SERVED
    assert heard == [b"EHLO [127.0.0.1]", b"EHLO mail.example.test", b"STARTTLS"]


def test_every_name_that_an_smtp_server_refuses_turns_us_away() -> None:
    def refuses(connection: socket.socket) -> None:
        connection.sendall(servers.GREETINGS["smtp"])
        for _ in servers.lines(connection):
            connection.sendall(b"550 Not you\r\n")

    detail = failed("smtp+starttls", refuses, outcome=Answer.TURNED_AWAY)

    assert detail == 'answers EHLO with "550 Not you"'


def test_every_name_is_asked_for_where_two_get_different_answers() -> None:
    virtual = Virtual(OTHER, "ftp.example.test")
    names = [NAME, OTHER, THIRD, "ftp.example.test"]
    with endpoint("imaps", honest("imaps", virtual.context)) as at:
        answer = observe([at], names)[at]

    assert sorted(filter(None, virtual.asked)) == sorted([NAME, *names])
    assert dns_names(answer.chain[0]) == (NAME,)
    assert [
        (other.server_name, dns_names(other.chain[0])) for other in answer.differently
    ] == [(OTHER, (OTHER,)), ("ftp.example.test", ("ftp.example.test",))]
    assert not answer.serves({answer.thumbprint})
    every = {answer.thumbprint, *(other.thumbprint for other in answer.differently)}
    assert answer.serves(every)


def test_a_server_that_knows_only_one_name_is_seen_to_refuse_the_other() -> None:
    made = tls()
    made.sni_callback = lambda _, name, __: (
        None if name == NAME else ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    )
    with endpoint("https", honest("https", made)) as at:
        answer = observe([at], [NAME, OTHER])[at]

    assert answer.outcome is Answer.SERVED
    (other,) = answer.differently
    assert other.outcome is Answer.HANDSHAKE_FAILED
    assert "unrecognized name" in other.detail
    assert not answer.serves({CERTIFICATE.thumbprint})


def test_an_endpoint_with_a_name_is_asked_for_this_one_only() -> None:
    virtual = Virtual()
    with servers.listening(honest("https", virtual.context)) as port:
        by_name = Endpoint("https", "localhost", port)
        resolved = Endpoint("https", LOCALHOST, port, THIRD)
        observed = observe([by_name, resolved], [NAME, OTHER])

    assert set(virtual.asked) == {"localhost", THIRD}
    assert [answer.server_name for answer in observed.values()] == ["localhost", THIRD]


def test_without_a_name_none_is_asked_for() -> None:
    virtual = Virtual()
    with endpoint("https", honest("https", virtual.context)) as at:
        assert observe([at])[at].outcome is Answer.SERVED

    assert set(virtual.asked) == {None}


@pytest.mark.parametrize(
    ("held", "name", "covered"),
    [
        ((NAME, OTHER), OTHER, True),
        ((NAME,), OTHER, False),
        (("*.example.test",), OTHER, True),
        (("*.example.test",), "a.b.example.test", False),
        (("*.example.test",), "example.test", False),
    ],
)
def test_it_is_told_whether_a_certificate_is_for_a_name(
    held: tuple[str, ...], name: str, *, covered: bool
) -> None:
    leaf = certificates.leaf(held)

    assert Served(outcome=Answer.SERVED, chain=(leaf,)).covers(name) is covered


# Certificates that nobody should trust are shown all the same


@pytest.mark.parametrize("scheme", ["smtp+starttls", "https"])
def test_an_expired_certificate_is_shown(scheme: str) -> None:
    old = certificates.certificate(start=certificates.START.replace(year=2001))

    answer = ask(scheme, honest(scheme, context(old.chain, old.key)))

    assert answer.leaf == old.leaf


def test_a_self_signed_certificate_is_shown() -> None:
    root = certificates.root()

    answer = ask("imaps", honest("imaps", context([root.certificate], root.key)))

    assert answer.chain == (root.certificate,)


def test_a_chain_is_shown_as_it_was_sent() -> None:
    leaf, issuer = CERTIFICATE.chain
    root = certificates.root().certificate
    for chain in ([leaf], [leaf, root, issuer], [leaf, issuer, root, leaf]):
        answer = ask("pop3s", honest("pop3s", context(chain, CERTIFICATE.key)))

        assert list(answer.chain) == chain


def test_a_certificate_that_only_openssl_can_read_is_said_to_be_odd() -> None:
    der = certificates.leaf().public_bytes(Encoding.DER)
    # Its version: the sixth, of which nobody ever heard.
    der = der.replace(b"\xa0\3\2\1\2", b"\xa0\3\2\1\5")
    pem = ssl.DER_cert_to_PEM_cert(der).encode()
    made = servers.context_of(pem, certificates.key())

    detail = failed("imaps", honest("imaps", made))

    assert detail == "sends a certificate that cannot be read"


# Nobody there


def test_a_closed_port_is_not_listening() -> None:
    at = Endpoint("https", LOCALHOST, servers.free_port())

    answer = observe([at], [NAME])[at]

    assert answer.outcome is Answer.NOT_LISTENING
    assert answer.detail == "refuses the connection"
    assert not answer.is_listening
    assert answer.chain == ()


def test_a_host_that_is_no_name_is_not_listening() -> None:
    at = Endpoint("https", "a" * 64 + ".test", 443)

    answer = observe([at])[at]

    assert answer.outcome is Answer.NOT_LISTENING
    assert answer.detail == "is not a valid DNS name"


@pytest.mark.parametrize(
    "at",
    [
        Endpoint("https", "255.255.255.255", 443),  # nobody's address
        Endpoint("https", LOCALHOST, 70_000),  # no port
    ],
)
def test_what_cannot_be_connected_to_is_not_listening(at: Endpoint) -> None:
    answer = observe([at], timeout=SOON_SECONDS)[at]

    assert answer.outcome is Answer.NOT_LISTENING
    assert answer.detail
    assert answer.detail.isprintable()


@pytest.mark.parametrize(
    "lack",
    [
        MemoryError(),
        RuntimeError("can't start new thread"),
        OSError(errno.EMFILE, "Too many open files"),
    ],
)
def test_what_this_machine_lacks_says_nothing_about_a_port(
    lack: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise lack

    monkeypatch.setattr(socket, "create_connection", fail)

    with pytest.raises(type(lack)):
        observe([Endpoint("https", LOCALHOST, 443)], [NAME])


# Silence, noise, and hanging up


def test_silent_ports_are_left_at_the_deadline() -> None:
    with ExitStack() as exits:
        at = [exits.enter_context(endpoint(row, servers.says())) for row in PORTS]
        observed = observe(at, [NAME], timeout=SOON_SECONDS)

    for port, answer in observed.items():
        assert answer.outcome is Answer.TIMED_OUT
        most = SOON_SECONDS * (GREETING_TIMEOUTS if "+" in port.scheme else 1)
        assert answer.detail == f"no answer within {most:g} s"


def test_the_deadline_is_for_the_whole_conversation() -> None:
    ended = threading.Event()

    def dripping(scheme: str) -> Serve:
        begin = b"\x16\x03\x03\x3f\xff"  # a record of 16 KB
        if "+" in scheme:
            begin = servers.GREETINGS[scheme[:4]][:3]

        def serve(connection: socket.socket) -> None:
            connection.sendall(begin)
            while not ended.wait(SOON_SECONDS / 10):
                connection.sendall(b" ")

        return serve

    with ExitStack() as exits:
        at = [exits.enter_context(endpoint(row, dripping(row))) for row in PORTS]
        observed = in_time(
            lambda seconds: observe(at, [NAME], timeout=seconds),
            lambda found: not any("no answer" in row.detail for row in found.values()),
        )
        ended.set()

    for answer in observed.values():
        assert answer.outcome is Answer.TIMED_OUT
        assert re.fullmatch(r"not finished within [\d.]+ s", answer.detail)


@EVERY_SCHEME
def test_a_port_that_hangs_up_at_once_is_said_to(scheme: str) -> None:
    starts = "+" in scheme
    outcome = Answer.TURNED_AWAY if starts else Answer.HANDSHAKE_FAILED

    detail = failed(scheme, lambda _: None, outcome=outcome)

    # Which one depends on who was faster.
    ending = " without a greeting" if starts else ""
    assert detail in {f"{did} the connection{ending}" for did in ("closes", "resets")}


@EVERY_SCHEME
def test_a_port_that_resets_the_connection_is_said_to(scheme: str) -> None:
    def reset(connection: socket.socket) -> None:
        if "+" not in scheme:
            connection.recv(1)
        linger = struct.pack("ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        connection.close()

    if "+" not in scheme:
        assert failed(scheme, reset) == "resets the connection"
        return
    # The certificate has no part in it.
    detail = failed(scheme, reset, outcome=Answer.TURNED_AWAY)
    assert detail == "resets the connection without a greeting"


@EVERY_STARTTLS
def test_a_port_that_resets_the_connection_before_it_stands_turns_us_away(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the server is faster than we are."""

    def reset(*_: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(socket, "create_connection", reset)
    at = Endpoint(scheme, LOCALHOST, 993)

    answer = observe([at], [NAME])[at]

    assert answer.outcome is Answer.TURNED_AWAY
    assert answer.detail == "resets the connection without a greeting"


@EVERY_STARTTLS
@pytest.mark.parametrize(
    "garbage", [b"\0\xff\x1b]0;owned\x07\n", b"HTTP/1.1 400 No\r\n"]
)
def test_garbage_is_no_greeting_and_is_shown_harmless(
    scheme: str, garbage: bytes
) -> None:
    detail = failed(scheme, servers.says(garbage))

    assert detail.startswith(("greets with", "sends"))
    assert detail.isprintable()
    assert ("owned" in detail) == (b"owned" in garbage)


@pytest.mark.parametrize("scheme", ["smtps", "imaps", "pop3s", "https"])
def test_a_port_without_tls_is_quoted(scheme: str) -> None:
    detail = failed(scheme, servers.says(b"220 \x1b[31mmail\r\n220 next\r\n"))

    assert detail == r'sends "220 \x1b[31mmail" instead of TLS'


@pytest.mark.parametrize(
    ("scheme", "greeting"),
    [
        ("smtp+starttls", b"554 5.7.1 Go away\r\n"),
        ("smtp+starttls", b"421-Too\r\n421 many\r\n"),
        ("imap+starttls", b"* BYE Too many\r\n"),
        ("imap+starttls", b"+OK I am POP3\r\n"),
        ("pop3+stls", b"-ERR Too many\r\n"),
        ("pop3+stls", b"* OK I am IMAP\r\n"),
    ],
)
def test_a_server_that_does_not_want_us_is_quoted(scheme: str, greeting: bytes) -> None:
    last = greeting.splitlines()[-1].decode()
    is_another = b"I am" in greeting
    outcome = Answer.HANDSHAKE_FAILED if is_another else Answer.TURNED_AWAY

    detail = failed(scheme, servers.says(greeting), outcome=outcome)

    assert detail == f'greets with "{last}"'


@pytest.mark.parametrize("line", [b"421 4.7.0 Too many", b"* BYE Banned", b"-ERR No"])
def test_a_tls_port_that_turns_us_away_in_plain_text_is_quoted(line: bytes) -> None:
    serve = servers.says(line + b"\r\n")

    detail = failed("imaps", serve, outcome=Answer.TURNED_AWAY)

    assert detail == f'sends "{line.decode()}" instead of TLS'


@EVERY_SCHEME
@pytest.mark.parametrize("has_lines", [True, False])
def test_a_banner_of_a_hundred_megabytes_is_not_read(
    scheme: str, *, has_lines: bool
) -> None:
    count, piece = 1600, b"-" * 65_536
    if scheme.startswith("smtp+") and has_lines:
        piece = b"220-mail.example.test ESMTP\r\n" * 2260
    elif scheme.startswith("imap+") and has_lines:
        piece = b"* OK hello\r\n" * 5461
    elif scheme.startswith("pop3+") and has_lines:
        piece = b"+OK hello\r\n" * 5957
    sent: list[int] = []

    detail = failed(scheme, servers.endless(repeat(piece, count), sent))

    assert sum(sent) < 100_000_000
    if "+" in scheme:
        assert detail == f"sends more than {MAX_PLAIN_BYTES >> 10} KB"
    else:
        assert detail.endswith('" instead of TLS')


# STARTTLS that is not offered, or means harm


@EVERY_STARTTLS
def test_starttls_that_was_stripped_is_missed_and_nothing_is_begun(scheme: str) -> None:
    heard: list[bytes] = []
    offers = servers.OFFERS_NONE[scheme[:4]]

    def serve(connection: socket.socket) -> None:
        said = servers.lines(connection)
        connection.sendall(servers.GREETINGS[scheme[:4]])
        heard.append(next(said))
        connection.sendall(offers)
        heard.append(next(said))

    answer = ask(scheme, serve)

    assert answer.outcome is Answer.NO_STARTTLS
    assert answer.is_listening
    assert answer.detail == ""
    commands = {
        "smtp": [b"EHLO [127.0.0.1]", b"QUIT"],
        "imap": [b"a1 CAPABILITY", b"a3 LOGOUT"],
        "pop3": [b"CAPA", b"QUIT"],
    }
    assert heard == commands[scheme[:4]]


@pytest.mark.parametrize(
    ("scheme", "goes"),
    [
        ("smtp+starttls", b"454 4.7.0 TLS not available\r\n"),
        ("imap+starttls", b"a2 NO No certificate\r\n"),
        ("pop3+stls", b"-ERR No certificate\r\n"),
    ],
)
def test_starttls_that_is_refused_is_quoted(scheme: str, goes: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        servers.talk(scheme, connection, [], goes=goes)
        next(servers.lines(connection))

    answer = ask(scheme, serve)

    assert answer.outcome is Answer.NO_STARTTLS
    command = "STLS" if scheme.startswith("pop3") else "STARTTLS"
    assert answer.detail == f'answers {command} with "{goes.decode().strip()}"'


@EVERY_STARTTLS
def test_what_comes_with_the_answer_to_starttls_ends_it_all(scheme: str) -> None:
    """RFC 3207, 4.2: it may be anybody's, and would be taken as said under TLS."""
    injected = b"250 trust me\r\n"
    rest: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        goes = servers.GOES[scheme[:4]] + injected
        servers.talk(scheme, connection, [], goes=goes)
        rest.append(connection.recv(1000))

    detail = failed(scheme, serve)

    assert detail == (
        f"sends {len(injected)} bytes between its answer to STARTTLS and TLS, which "
        "somebody may have injected"
    )
    assert rest == [b""]


@EVERY_STARTTLS
def test_what_comes_between_starttls_and_tls_is_not_believed(scheme: str) -> None:
    def serve(connection: socket.socket) -> None:
        servers.talk(scheme, connection, [])
        connection.recv(1)  # the handshake is under way
        connection.sendall(b"250 trust me\r\n")
        servers.says()(connection)

    assert failed(scheme, serve) == 'sends "250 trust me" instead of TLS'


def test_an_imap_server_that_greets_as_logged_in_cannot_begin_tls() -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(b"* PREAUTH You are root\r\n")
        assert next(servers.lines(connection)) == b"a3 LOGOUT"

    answer = ask("imap+starttls", serve)

    assert answer.outcome is Answer.NO_STARTTLS
    assert "PREAUTH" in answer.detail


def test_a_pop3_server_without_capa_may_know_stls() -> None:
    serve = honest("pop3+stls", tls())
    heard: list[bytes] = []

    def without_capa(connection: socket.socket) -> None:
        offers = b"-ERR What?\r\n"
        servers.talk("pop3+stls", connection, heard, offers=offers)
        with tls().wrap_socket(connection, server_side=True) as secure:
            secure.recv(1000)

    assert ask("pop3+stls", without_capa).chain == ask("pop3+stls", serve).chain
    assert heard == [b"CAPA", b"STLS"]


# TLS that fails


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.parametrize("scheme", ["imaps", "smtp+starttls"])
def test_outdated_tls_is_told_from_no_tls(scheme: str, version: ssl.TLSVersion) -> None:
    answer = ask(scheme, honest(scheme, servers.only(tls(), version)))

    assert answer.outcome is Answer.HANDSHAKE_FAILED
    name = {"TLSv1": "TLS 1.0", "TLSv1_1": "TLS 1.1"}[version.name]
    assert answer.detail == f"offers only {name}, which clients refuse"
    assert answer.thumbprint == ""
    assert answer.chain == CERTIFICATE.chain  # to look at


@pytest.mark.parametrize(
    ("record", "detail"),
    [
        ("15 0303 0002 02 46", "refuses TLS 1.0 to 1.3"),
        ("15 0303 0002 02 28", 'sends the TLS alert "handshake failure"'),
        # A server's hello that chooses SSL 3.
        (
            "16 0300 002a 02 000026 0300" + "00" * 32 + "00 0035 00",
            "offers none of TLS 1.0 to 1.3",
        ),
        ("16 0303 0004 01 000000", "unexpected message"),
    ],
)
def test_a_failing_handshake_is_explained(record: str, detail: str) -> None:
    found = failed("https", servers.says(bytes.fromhex(record)))

    assert detail in found


def test_a_handshake_that_stops_is_left_at_the_deadline() -> None:
    hello = bytes.fromhex("16 0303 00ff 02")

    detail = in_time(
        lambda seconds: failed(
            "https", servers.says(hello), outcome=Answer.TIMED_OUT, timeout=seconds
        ),
        lambda found: "no answer" not in found,
    )

    assert re.fullmatch(r"not finished within [\d.]+ s", detail)


def test_a_handshake_of_a_hundred_megabytes_is_not_read() -> None:
    # Records of a hello that is said to be as long as can be said.
    sent: list[int] = []
    first = bytes.fromhex("16 0303 4000 02 ffffff") + bytes(0x4000 - 4)
    more = bytes.fromhex("16 0303 4000") + bytes(0x4000)

    detail = failed("https", servers.endless([first, *repeat(more, 6400)], sent))

    assert detail
    assert sum(sent) < 100_000_000


# What should serve, and does not

NEW, OLD = certificates.leaf(), certificates.leaf(serial=4711)
HERE = Endpoint("imaps", LOCALHOST, 993)
THERE = Endpoint("imaps", "192.0.2.1", 993, NAME)
BESIDE = Endpoint("imaps", "2001:db8::1", 993, NAME)
GOOD = Served(outcome=Answer.SERVED, chain=(NEW,))
BAD = Served(outcome=Answer.SERVED, chain=(OLD,))
CLOSED = Served(outcome=Answer.NOT_LISTENING)
BROKEN = Served(outcome=Answer.HANDSHAKE_FAILED, chain=(NEW,))


def fails(
    observed: dict[Endpoint, Served], given: tuple[Endpoint, ...] = ()
) -> list[Endpoint]:
    return failing(observed, {thumbprint(NEW)}, given)


def test_who_listens_should_serve_it() -> None:
    stripped = Served(outcome=Answer.NO_STARTTLS)

    assert fails({HERE: GOOD, THERE: CLOSED}) == []
    for answer in (BAD, BROKEN, stripped):
        assert fails({HERE: answer, THERE: GOOD}) == [HERE]


def test_who_was_given_should_listen() -> None:
    assert fails({HERE: CLOSED, THERE: CLOSED}, (HERE,)) == [HERE]


def test_of_a_name_that_was_given_one_address_that_listens_is_enough() -> None:
    given = (THERE, BESIDE)

    assert fails({THERE: GOOD, BESIDE: CLOSED}, given) == []
    assert fails({THERE: GOOD, BESIDE: BAD}, given) == [BESIDE]
    assert fails({THERE: BAD, BESIDE: CLOSED}, given) == [THERE]
    assert fails({THERE: CLOSED, BESIDE: CLOSED}, given) == [THERE, BESIDE]


def test_whoever_is_asked_for_should_be_served() -> None:
    for other in (BAD, CLOSED):
        mixed = Served(outcome=Answer.SERVED, chain=(NEW,), differently=(other,))
        assert fails({HERE: mixed}) == [HERE]


def test_a_hundred_names_at_36_endpoints_are_asked_in_a_hundred_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leaves = [certificates.certificate((NAME,), serial=n).chain for n in (1, 2)]
    threads: set[threading.Thread] = set()
    asked: set[tuple[Endpoint, str]] = set()

    def answer(at: Endpoint, name: str, key: str, _: float) -> Served:
        threads.add(threading.current_thread())
        asked.add((at, name))
        chain = leaves[name != NAME and not key]
        return Served(outcome=Answer.SERVED, chain=chain, server_name=name, key=key)

    monkeypatch.setattr(observing, "ask", answer)
    endpoints = [Endpoint("imaps", f"192.0.2.{n}", 993) for n in range(36)]
    names = [NAME, *(f"{n}.example.test" for n in range(99))]

    found = observe(endpoints, names, timeout=HANG_SECONDS)

    assert {len(served.differently) for served in found.values()} == {99}
    assert len(asked) == 3600
    assert len(threads) <= 3 * parallel.MAX_THREADS  # so many at once, three times
