"""A CA, or who speaks in its place, that sends without end, or elsewhere."""

from __future__ import annotations

import json
import socket
import ssl
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.jwk import JWKEC

from letsencrypt_mdaemon.acme import crl, transport
from letsencrypt_mdaemon.acme.exchange import (
    MAX_HEAD_BYTES,
    MAX_REDIRECTS,
    check_url,
)
from letsencrypt_mdaemon.acme.http import TransientError
from letsencrypt_mdaemon.acme.jws import Signer
from letsencrypt_mdaemon.acme.transport import Deadline, Session
from letsencrypt_mdaemon.errors import AcmeError
from letsencrypt_mdaemon.sandbox import mdaemon
from letsencrypt_mdaemon.sandbox.ca.messages import Answer
from tests.peer import Peer, Step, Talk, rejecting, serving_peer, tunnel
from tests.scene import Scene, scene_in, showing

SIGNER = Signer(JWKEC(key=ec.generate_private_key(ec.SECP256R1())), "https://ca/1")
PIECES, PAUSE_SECONDS = 200, 0.02
"""Who drips sends this many pieces, and is well done after that."""
PATIENCE_SECONDS = 0.25
"""For one answer: ended by a deadline it fails, and otherwise it succeeds late."""


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with scene_in(tmp_path) as scene:
        yield scene


@pytest.fixture
def peer(scene: Scene) -> Iterator[Peer]:
    """Return a CA with TLS that says what the test wants."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(scene.ca.folder / "https-key.pem")
    with serving_peer(context) as peer:
        yield peer


def session_with(scene: Scene, url: str, timeout: float = 45) -> Session:
    bundle, sleep = scene.ca.ca_bundle, scene.clock.sleep
    return Session(url, ca_bundle=bundle, timeout=timeout, sleep=sleep)


# Whatever drips, one request has an end


def drip(talk: Talk, before: bytes, piece: bytes, after: bytes) -> None:
    talk.read()
    talk.close_connection = True
    for data in (before, *[piece] * PIECES, after):
        talk.wfile.write(data)
        talk.wfile.flush()
        time.sleep(PAUSE_SECONDS if data == piece else 0)


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
FINE = HEAD + b"Content-Length: 2\r\n\r\n{}"
DRIPPING = {
    "status": (b"HTTP/1.1 200 ", b"K", FINE.removeprefix(b"HTTP/1.1 200 OK")),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", FINE),
    "header": (HEAD + b"Drip: ", b"x", FINE.removeprefix(HEAD[:-2])),
    "body": (HEAD + b"Content-Length: %d\r\n\r\n{" % (PIECES + 2), b" ", b"}"),
    "body-to-the-end": (HEAD + b"\r\n{", b" ", b"}"),
    "chunks": (CHUNKED + b"1\r\n{\r\n", b"1\r\n \r\n", b"1\r\n}\r\n0\r\n\r\n"),
    "chunk-size": (CHUNKED, b"0", b"2\r\n{}\r\n0\r\n\r\n"),
    "chunk-extension": (CHUNKED + b"2;", b"x", b"\r\n{}\r\n0\r\n\r\n"),
    "trailer": (CHUNKED + b"2\r\n{}\r\n0\r\n", b"x: y\r\n", b"\r\n"),
}


@pytest.mark.parametrize("kind", DRIPPING)
def test_an_answer_that_drips_is_given_up(scene: Scene, peer: Peer, kind: str) -> None:
    peer.steps = [lambda talk: drip(talk, *DRIPPING[kind])]
    session = session_with(scene, peer.url, PATIENCE_SECONDS)
    # The directory and the nonce come at once, as soon as the machine is.
    session.get(peer.url)

    with pytest.raises(TransientError, match="timed out"):
        session.post(f"{peer.url}/newOrder", {}, SIGNER)


@pytest.mark.parametrize("kind", DRIPPING)
def test_what_drips_and_ends_in_time_is_an_answer(
    scene: Scene, peer: Peer, kind: str
) -> None:
    before, piece, after = DRIPPING[kind]
    whole = before + piece * PIECES + after

    def at_once(talk: Talk) -> None:
        talk.read()
        talk.wfile.write(whole)
        talk.close_connection = True

    peer.steps = [at_once]
    session = session_with(scene, peer.url)

    assert session.post(f"{peer.url}/newOrder", {}, SIGNER).document() == {}


@contextmanager
def listening(talk: Callable[[socket.socket], object]) -> Iterator[int]:
    """Talk to everybody who comes, one after the other; yield the port."""
    ended = threading.Event()

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                if ended.is_set():
                    return
                talk(connection)

    def end() -> None:
        ended.set()
        socket.create_connection(listener.getsockname()).close()

    listener = socket.create_server(("127.0.0.1", 0))
    with listener, mdaemon.thread(accept, end):
        yield listener.getsockname()[1]


def drip_to(connection: socket.socket, before: bytes, piece: bytes) -> None:
    connection.sendall(before)
    for _ in range(PIECES):
        connection.sendall(piece)
        time.sleep(PAUSE_SECONDS)


def test_a_handshake_that_drips_is_given_up(scene: Scene) -> None:
    # The record that it begins is long, and never complete.
    with listening(lambda it: drip_to(it, b"\x16\x03\x03\x40\x00", b"\x02")) as port:
        url = f"https://127.0.0.1:{port}/dir"
        session = session_with(scene, url, PATIENCE_SECONDS)
        with pytest.raises(TransientError, match="timed out"):
            _ = session.directory


@pytest.mark.parametrize(
    ("before", "piece"),
    [(b"HTTP/1.1 200 ", b"K"), (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n")],
)
def test_a_proxy_whose_consent_drips_is_given_up(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, before: bytes, piece: bytes
) -> None:
    with listening(lambda it: drip_to(it, before, piece)) as port:
        through(monkeypatch, port)
        session = session_with(scene, "https://ca.example.test/dir", PATIENCE_SECONDS)
        with pytest.raises(TransientError, match="timed out"):
            _ = session.directory


def through(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://user:pass-phrase@127.0.0.1:{port}")


@pytest.mark.skipif(sys.platform != "linux", reason="needs 127.0.0.2 and the like")
def test_all_addresses_of_a_host_share_the_time_of_one(
    scene: Scene, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = [f"127.0.0.{number}" for number in range(2, 12)]
    rows = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in hosts]
    rows.append((*rows[0][:4], ("127.0.0.1", 0)))
    look_up = socket.getaddrinfo

    def getaddrinfo(host: str, *args: object, **options: object) -> object:
        return rows if host == "localhost" else look_up(host, *args, **options)  # type: ignore[arg-type]

    with ExitStack() as stack:
        for host in hosts:
            # Nobody accepts, and the queue is full: whoever comes waits.
            deaf = stack.enter_context(socket.socket())
            deaf.bind((host, peer.server_port))
            deaf.listen(0)
            for _ in range(2):
                first = stack.enter_context(socket.socket())
                first.settimeout(0)
                first.connect_ex((host, peer.server_port))
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        url = f"https://localhost:{peer.server_port}/dir"
        with pytest.raises(TransientError, match="timed out"):
            _ = session_with(scene, url, PATIENCE_SECONDS).directory


# The whole conversation has an end


def test_one_answer_gets_only_what_is_left_for_the_conversation(
    scene: Scene, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "LAST_ANSWER_SECONDS", PATIENCE_SECONDS)
    peer.steps = [lambda talk: drip(talk, *DRIPPING["body"])]
    session = session_with(scene, peer.url)
    _ = session.directory
    session.deadline = Deadline(0, scene.clock.sleep, scene.clock)

    with pytest.raises(TransientError, match="timed out"):
        session.post(f"{peer.url}/newOrder", {}, SIGNER)

    assert len(peer.heads) == 1


def test_a_conversation_that_goes_on_and_on_is_ended(scene: Scene, peer: Peer) -> None:
    def late(talk: Talk) -> None:
        scene.clock.now += 100
        rejecting("another-nonce")(talk)

    peer.steps = [late]
    session = session_with(scene, peer.url)
    _ = session.directory
    session.deadline = Deadline(300, scene.clock.sleep, scene.clock)

    with pytest.raises(TransientError, match="did not finish within 300 s"):
        session.post(f"{peer.url}/newOrder", {}, SIGNER)

    assert len(peer.posts) == 4


def test_the_validation_timeout_holds_for_every_request_of_an_order(
    scene: Scene,
) -> None:
    def late(_: object) -> Answer:
        scene.clock.now += 200
        return Answer(503)

    scene.ca.faults.before("newOrder", late)

    error = scene.failing(timeout=300)

    assert isinstance(error, TransientError)
    assert scene.count("newOrder") == (2,)


def test_after_an_order_that_ended_late_the_ca_can_be_asked_again(scene: Scene) -> None:
    issuer = scene.issuer(timeout=0)

    def late(_: object) -> Answer:
        scene.clock.now += 200
        return Answer(503)

    scene.ca.faults.before("newOrder", late, times=1)
    with pytest.raises(TransientError):
        issuer.obtain(["mail.example.test"])

    assert issuer.session.get(scene.ca.directory_url).status == 200


# Redirects


def moved(to: str, **headers: str) -> Answer:
    return Answer(302, headers={"Location": to, **headers})


def test_the_body_of_a_redirect_is_not_waited_for(scene: Scene, peer: Peer) -> None:
    def redirect(talk: Talk) -> None:
        length = {"Content-Length": "1000000", "Location": scene.ca.directory_url}
        talk.send_response(302)
        for name, value in length.items():
            talk.send_header(name, value)
        talk.end_headers()
        talk.wfile.flush()
        talk.rfile.read(1)  # until the client hangs up
        talk.close_connection = True

    with getting(redirect):
        session = session_with(scene, peer.url)
        assert session.directory["newOrder"] == scene.ca.directory["newOrder"]


def test_a_redirect_with_a_gzip_bomb_is_followed_and_not_unpacked(
    scene: Scene, peer: Peer
) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(100))
    bomb += packer.flush()

    def redirect(talk: Talk) -> None:
        to = {"Location": scene.ca.directory_url, "Content-Encoding": "gzip"}
        talk.say(302, bomb, **to)

    with getting(redirect):
        session = session_with(scene, peer.url)
        tracemalloc.start()
        try:
            assert "newOrder" in session.directory
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert peak < 10 << 20


@contextmanager
def getting(step: Step) -> Iterator[None]:
    """Let each GET of a peer be answered so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Talk, "do_GET", step)
        yield


@pytest.mark.parametrize("count", [MAX_REDIRECTS, MAX_REDIRECTS + 1])
def test_so_many_redirects_are_followed_and_no_more(scene: Scene, count: int) -> None:
    there = moved(scene.ca.directory_url)
    scene.ca.faults.before("directory", there, times=count)
    session = scene.issuer().session

    if count <= MAX_REDIRECTS:
        assert "newOrder" in session.directory
    else:
        with pytest.raises(AcmeError, match="it redirects to"):
            _ = session.directory

    assert scene.count("directory") == (MAX_REDIRECTS + 1,)


def test_no_signed_request_is_redirected(scene: Scene) -> None:
    there = scene.ca.directory["newAccount"]
    scene.ca.faults.before("newOrder", moved(there))

    error = scene.failing()

    assert "it redirects to" in str(error)
    assert scene.count("newOrder", "newAccount") == (1, 1)


@contextmanager
def stranger(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """Yield a URL of another host over http, and the requests that reach it."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.headers['Authorization']}")
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_HEAD = do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server,
        mdaemon.thread(partial(server.serve_forever, 0.005), server.shutdown),
    ):
        look_up = socket.getaddrinfo

        def getaddrinfo(host: str, *args: object, **options: object) -> object:
            host = "127.0.0.1" if host == "ca.example.test" else host
            return look_up(host, *args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield f"http://ca.example.test:{server.server_port}/x", asked


def test_a_redirect_to_http_is_refused(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stranger(monkeypatch) as (url, asked):
        scene.ca.faults.before("directory", moved(url))
        with pytest.raises(AcmeError, match="must begin with https://"):
            _ = scene.issuer().session.directory

    assert asked == []


# Logins


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let .netrc have a login for every host."""
    file = tmp_path / ".netrc"
    file.write_text("default login me password secret\n", "ascii")
    file.chmod(0o600)
    monkeypatch.setenv("NETRC", str(file))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.usefixtures("netrc")
def test_no_login_of_netrc_is_sent_to_the_ca_or_after_a_redirect(scene: Scene) -> None:
    there = moved(scene.ca.directory_url)
    scene.ca.faults.before("directory", there, times=2)

    assert scene.obtain().names

    assert len(scene.requests("directory")) == 3
    assert all("Authorization" not in one.headers for one in scene.ca.requests)


@pytest.mark.usefixtures("netrc")
def test_no_login_of_netrc_is_sent_for_a_crl(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stranger(monkeypatch) as (url, asked):
        assert crl.fetch(url) == b"{}"

    assert asked == ["GET None"]
    assert scene.ca.requests == []


def test_a_login_in_a_url_is_refused_and_not_shown(scene: Scene) -> None:
    with_login = scene.ca.directory_url.replace("//", "//user:pass-phrase@")
    scene.ca.faults.before("directory", moved(with_login))

    with pytest.raises(AcmeError, match="without a login") as caught:
        _ = scene.issuer().session.directory

    assert "pass-phrase" not in str(caught.value)
    assert scene.count("directory") == (1,)


@pytest.mark.usefixtures("netrc")
def test_a_proxy_of_the_environment_is_used_with_its_login(
    scene: Scene, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def once(talk: Talk) -> None:
        # The tunnel lasts as long as the connection.
        talk.close_connection = True
        talk.say(200, json.dumps(peer.directory).encode(), Connection="close")

    with getting(once), tunnel(peer.server_port) as (port, asked):
        through(monkeypatch, port)
        session = session_with(scene, f"https://localhost:{peer.server_port}/dir")
        assert "newOrder" in session.directory

    (head,) = asked
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNzLXBocmFzZQ==" in head


# Every URL of the CA


def at_directory(name: str) -> Callable[[Scene, str], None]:
    def change(scene: Scene, url: str) -> None:
        scene.ca.faults.after("directory", showing(**{name: url}))

    return change


def at(resource: str, name: str) -> Callable[[Scene, str], None]:
    def change(scene: Scene, url: str) -> None:
        value = [url] if name == "authorizations" else url
        scene.ca.faults.after(resource, showing(**{name: value}))

    return change


def location(resource: str) -> Callable[[Scene, str], None]:
    def change(scene: Scene, url: str) -> None:
        def fault(answer: Answer) -> None:
            answer.headers["Location"] = url

        scene.ca.faults.after(resource, fault)

    return change


def at_challenge(scene: Scene, url: str) -> None:
    def fault(answer: Answer) -> None:
        for challenge in answer.document["challenges"]:
            challenge["url"] = url

    scene.ca.faults.after("authorization", fault)


def at_new_nonce(scene: Scene, url: str) -> None:
    at_directory("newNonce")(scene, url)
    # Else the first nonce comes with the directory.
    scene.ca.faults.after("directory", lambda it: it.headers.pop("Replay-Nonce") and 0)


URLS = {
    "newNonce": at_new_nonce,
    "newAccount": at_directory("newAccount"),
    "newOrder": at_directory("newOrder"),
    "account": location("newAccount"),
    "order": location("newOrder"),
    "finalize": at("newOrder|order", "finalize"),
    "authorizations": at("newOrder|order", "authorizations"),
    "challenge": at_challenge,
    "certificate": at("order|finalize", "certificate"),
}


@pytest.mark.parametrize("field", URLS)
def test_a_url_without_tls_is_refused_wherever_it_stands(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    with stranger(monkeypatch) as (url, asked):
        URLS[field](scene, url)
        error = scene.failing()

    assert "must begin with https://" in str(error)
    assert url in str(error)
    assert error.exit_code == 3
    assert asked == []
    account, order = scene.state.account(), scene.state.order()
    assert account is None or not account.url.startswith("http:")
    assert order is None or not order.url.startswith("http:")


def test_an_alternate_chain_without_tls_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scene_in(tmp_path) as scene, stranger(monkeypatch) as (url, asked):

        def fault(answer: Answer) -> None:
            answer.headers["Link"] = f'<{url}>;rel="alternate"'

        scene.ca.faults.after("certificate", fault)
        assert scene.obtain(preferred_chain="Nobody").names

    assert asked == []


def test_a_revocation_and_a_question_of_when_to_renew_go_nowhere_without_tls(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaf = scene.obtain().leaf
    with stranger(monkeypatch) as (url, asked):
        for name in ("revokeCert", "renewalInfo", "keyChange"):
            at_directory(name)(scene, url)
        issuer = scene.issuer()
        assert issuer.suggested_window(leaf)[0] is None
        with pytest.raises(AcmeError, match="must begin with https://"):
            issuer.revoke(leaf, 0, None)
        with pytest.raises(AcmeError, match="must begin with https://"):
            issuer.accounts.roll_over()

    assert asked == []


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://ca.example.test/x", True),
        ("HTTPS://ca.example.test/x", True),
        ("http://127.0.0.1/x", False),
        ("http://localhost/x", False),
        ("ftp://ca.example.test/x", False),
        ("https:///x", False),
        ("//ca.example.test/x", False),
    ],
)
def test_a_ca_elsewhere_leads_nobody_to_this_machine_without_tls(
    url: str, *, good: bool
) -> None:
    directory_url = "https://ca.example.test/directory"
    with ExitStack() as stack:
        if not good:
            stack.enter_context(pytest.raises(AcmeError, match="must begin with"))
        check_url(url, directory_url)


# Size


def test_an_endless_head_is_not_read_to_its_end(scene: Scene, peer: Peer) -> None:
    def endless(talk: Talk) -> None:
        talk.read()
        talk.close_connection = True
        with suppress(OSError):
            while True:
                talk.wfile.write(
                    b"HTTP/1.1 100 Continue\r\nx: %a\r\n\r\n" % ("y" * 999)
                )

    peer.steps = [endless]
    session = session_with(scene, peer.url)

    with pytest.raises(TransientError, match=f"more than {MAX_HEAD_BYTES >> 10} KB"):
        session.post(f"{peer.url}/newOrder", {}, SIGNER)


def test_a_few_long_headers_are_as_much_as_many_short_ones(
    scene: Scene, peer: Peer
) -> None:
    def long(talk: Talk) -> None:
        talk.read()
        talk.say(200, b"{}", A="x" * (MAX_HEAD_BYTES // 2), B="y" * MAX_HEAD_BYTES)

    peer.steps = [long]
    session = session_with(scene, peer.url)

    with pytest.raises(TransientError, match=f"more than {MAX_HEAD_BYTES >> 10} KB"):
        session.post(f"{peer.url}/newOrder", {}, SIGNER)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
def test_an_encoded_answer_is_refused_and_none_is_asked_for(
    scene: Scene, peer: Peer, coding: str
) -> None:
    asked: list[str | None] = []

    def encoded(talk: Talk) -> None:
        asked.append(talk.headers["Accept-Encoding"])
        talk.read()
        headers = {"Content-Encoding": coding}
        talk.say(200, b"{}", **headers)

    peer.steps = [encoded]
    session = session_with(scene, peer.url)

    with pytest.raises(AcmeError, match=f"the encoding {coding}"):
        session.post(f"{peer.url}/newOrder", {}, SIGNER)

    assert asked == ["identity"]


def test_an_order_with_20000_authorizations_is_refused_before_any_is_asked_for(
    scene: Scene,
) -> None:
    def many(answer: Answer) -> None:
        answer.document["authorizations"] *= 20_000

    scene.ca.faults.after("newOrder", many)

    error = scene.failing("a.example.test")

    assert "20000 authorizations" in str(error)
    assert "at most 12" in str(error)
    assert scene.count("authorization") == (0,)
    assert scene.state.order() is None


def test_a_few_superfluous_authorizations_are_no_reason_to_refuse(scene: Scene) -> None:
    def some(answer: Answer) -> None:
        answer.document["authorizations"] *= 12

    scene.ca.faults.after("newOrder", some)

    assert scene.obtain("a.example.test").names


# CRLs, which come without TLS


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(crl, "MAX_SECONDS", PATIENCE_SECONDS)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", DRIPPING)
def test_a_crl_that_drips_is_given_up(kind: str) -> None:
    before, piece, _ = DRIPPING[kind]
    with listening(lambda it: drip_to(it, before, piece)) as port:
        url = f"http://127.0.0.1:{port}/1.crl"
        with pytest.raises(AcmeError, match="timed out"):
            crl.fetch(url)


def test_a_crl_that_moves_round_in_circles_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    count = []

    def circle(connection: socket.socket) -> None:
        connection.recv(10_000)
        count.append(1)
        head = b"HTTP/1.1 302 Found\r\nLocation: /1.crl\r\nContent-Length: 0\r\n\r\n"
        connection.sendall(head)

    with listening(circle) as port:
        url = f"http://127.0.0.1:{port}/1.crl"
        with pytest.raises(AcmeError, match="HTTP 302"):
            crl.fetch(url)

    assert len(count) == MAX_REDIRECTS + 1
