"""What is said when there is no CA at the other end, or none to be trusted."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from josepy.jwk import JWKEC

from letsencrypt_mdaemon.acme.exchange import route, unanswered
from letsencrypt_mdaemon.acme.http import Reply, TransientError
from letsencrypt_mdaemon.acme.jws import Signer
from letsencrypt_mdaemon.acme.transport import ATTEMPTS, Session
from letsencrypt_mdaemon.errors import AcmeError
from letsencrypt_mdaemon.sandbox.ca.messages import Answer
from tests.peer import PAGE, ok, reset, serving_peer, tunnel
from tests.program import LOCALHOST
from tests.scene import STRANGER, Clock, Scene, scene_in


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with scene_in(tmp_path) as scene:
        yield scene


def unreachable(session: Session) -> AcmeError:
    """Return the error of a session that cannot even get the directory."""
    with pytest.raises(AcmeError) as caught:
        _ = session.directory
    error = caught.value
    assert error.exit_code == 3
    assert session.directory_url in error.message
    assert error.hint
    return error


def test_a_web_page_is_no_directory(scene: Scene) -> None:
    page = Answer(200, body=PAGE)
    scene.ca.faults.before("directory", page)

    error = unreachable(scene.issuer().session)

    assert "answered with 'Back soon' (text/html) instead of a JSON object." in str(
        error
    )
    assert "Check directory-url" in error.hint


def test_a_directory_url_that_leads_nowhere_is_to_be_checked(scene: Scene) -> None:
    url = f"{scene.ca.directory_url}/nowhere"

    error = unreachable(Session(url, ca_bundle=scene.ca.ca_bundle))

    assert "refused with HTTP 404" in str(error)
    assert error.hint == "Check directory-url."


@pytest.mark.parametrize(
    "document", [{"newNonce": "x", "newOrder": 1, "newAccount": None}, {}]
)
def test_json_that_is_no_directory_is_not_taken_for_one(
    document: dict[str, object],
) -> None:
    with serving_peer() as peer:
        peer.directory = document
        error = unreachable(Session(peer.url))

    assert "is not an ACME directory: it has no " in str(error)
    assert "newAccount, newOrder." in str(error)
    assert error.hint == "Check directory-url."


def test_a_directory_may_have_moved(scene: Scene) -> None:
    there = Answer(302, headers={"Location": scene.ca.directory_url})
    scene.ca.faults.before("directory", there, times=1)

    assert "newOrder" in scene.issuer().session.directory


@pytest.mark.parametrize("body", [b"[]", b"1", b"{", b"\xff", b"[" * 100_000, b""])
def test_an_answer_that_is_no_json_object_is_an_error(body: bytes) -> None:
    reply = Reply("https://ca.example.test/x", 200, {}, body)

    with pytest.raises(AcmeError, match=r"https://ca.example.test/x answered with"):
        reply.document()


def test_a_ca_whose_root_is_not_trusted_gets_no_request(scene: Scene) -> None:
    session = Session(scene.ca.directory_url, sleep=scene.clock.sleep)

    error = unreachable(session)

    assert "Could not make a trusted TLS connection" in str(error)
    assert "certificate verify failed" in str(error)
    assert "ca-bundle" in error.hint
    assert scene.clock.slept == []
    assert scene.ca.requests == []


def test_a_ca_with_the_certificate_of_another_host_gets_no_request(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = urlsplit(scene.ca.directory_url).port
    address = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (LOCALHOST, port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: address)
    url = f"https://ca.example.test:{port}/directory"

    error = unreachable(Session(url, ca_bundle=scene.ca.ca_bundle))

    assert "Could not make a trusted TLS connection" in str(error)
    assert "Hostname mismatch" in str(error)
    assert scene.ca.requests == []


def test_the_ca_bundle_wins_over_the_environment(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(scene.folder / "missing.pem"))

    assert scene.obtain().names


def test_the_roots_are_read_once_for_all_connections(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[str | None, str | None]] = []
    make = ssl.create_default_context

    def counting(*, cafile: str | None, capath: str | None) -> ssl.SSLContext:
        read.append((cafile, capath))
        return make(cafile=cafile, capath=capath)

    monkeypatch.setattr(ssl, "create_default_context", counting)
    session = scene.issuer().session
    together = threading.Barrier(4)

    def ask(_: int) -> None:
        together.wait(10)
        assert session.get(scene.ca.directory_url).status == 200

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))

    assert read == [(str(scene.ca.ca_bundle), None)]


@pytest.mark.parametrize("content", [None, b"", b"no PEM"])
def test_a_ca_bundle_that_cannot_be_used_is_to_be_checked(
    scene: Scene, content: bytes | None
) -> None:
    bundle = scene.folder / "bundle.pem"
    if content is not None:
        bundle.write_bytes(content)

    error = unreachable(Session(scene.ca.directory_url, ca_bundle=bundle))

    assert "ca-bundle" in error.hint


def test_a_host_that_dns_does_not_know_is_named(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    error = unreachable(Session("https://ca.example.test/dir", sleep=clock.sleep))

    assert (
        "Could not reach https://ca.example.test/dir: Name or service not known."
        in str(error)
    )
    assert "DNS" in error.hint
    assert len(clock.slept) == ATTEMPTS - 1


def test_a_proxy_that_refuses_is_told_from_a_ca_that_refuses(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy", raising=False)
    with closed_port() as port:
        proxy = f"http://user:pass-phrase@127.0.0.1:{port}"
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, proxy)
        error = unreachable(scene.issuer().session)

    assert "Could not reach " in str(error)
    assert f" through the proxy 127.0.0.1:{port}: " in str(error)
    assert "HTTPS_PROXY" in error.hint
    assert "pass-phrase" not in f"{error.message}{error.hint}"
    assert scene.ca.requests == []


def test_the_proxy_of_the_settings_is_used_whatever_the_environment_says(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy", raising=False)
    url = "https://ca.example.test/directory"
    with closed_port() as port:
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        ours = f"http://127.0.0.1:{port}"
        error = unreachable(Session(url, proxy=ours, sleep=scene.clock.sleep))
        assert f" through the proxy 127.0.0.1:{port}: " in str(error)
        monkeypatch.setenv("NO_PROXY", "ca.example.test")
        assert route(url, proxy=ours)["proxies"] == {}


def test_a_proxy_that_inspects_tls_is_named_with_who_signed_what_came(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy", raising=False)
    inspecting = urlsplit(scene.ca.directory_url).port
    assert inspecting
    with tunnel(inspecting) as (port, asked):
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, f"http://user:pass-phrase@127.0.0.1:{port}")
        url = "https://localhost/directory"
        error = unreachable(Session(url, sleep=scene.clock.sleep))

    via = f"Could not make a trusted TLS connection to {url} through the proxy "
    assert f"{via}127.0.0.1:{port}: " in str(error)
    assert "signed by CN=Sandbox HTTPS Root." in str(error)
    assert "TLS inspection" in error.hint
    assert "pass-phrase" not in f"{error.message}{error.hint}"
    assert all(b"Proxy-Authorization: Basic " in head for head in asked)
    assert scene.clock.slept == []
    assert scene.ca.requests == []


def test_a_proxy_whose_certificate_nobody_gets_to_see_is_named_as_well() -> None:
    refusal = requests.exceptions.SSLError()
    refusal.__context__ = ssl.SSLCertVerificationError(1, "self-signed certificate")
    with closed_port() as port:
        proxies = {"https": f"https://127.0.0.1:{port}"}
        error = unanswered("https://localhost/directory", refusal, proxies)

    assert f" through the proxy 127.0.0.1:{port}: self-signed" in str(error)
    assert "signed by somebody unknown" in str(error)


def test_a_port_where_nobody_listens_is_tried_a_few_times(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with closed_port() as port:
        session = Session(f"https://127.0.0.1:{port}/dir", sleep=clock.sleep)
        error = unreachable(session)

    assert f"Could not reach https://127.0.0.1:{port}/dir: " in str(error)
    assert len(clock.slept) == ATTEMPTS - 1


def test_a_handshake_that_breaks_off_is_tried_again(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        callers = []

        def hang_up_on_each() -> None:
            for _ in range(ATTEMPTS):
                connection, caller = listener.accept()
                with connection:
                    connection.recv(10000)
                callers.append(caller)

        thread = threading.Thread(target=hang_up_on_each)
        thread.start()
        port = listener.getsockname()[1]
        session = Session(f"https://127.0.0.1:{port}/dir", sleep=clock.sleep)
        error = unreachable(session)
        thread.join()

    assert len(callers) == ATTEMPTS
    assert isinstance(error, TransientError)


def test_a_connection_that_is_reset_while_a_request_is_sent_is_no_matter_of_trust(
    scene: Scene, clock: Clock
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(scene.ca.folder / "https-key.pem")
    signer = Signer(JWKEC(key=STRANGER), "https://ca.example.test/account/1")
    # More than the buffers of both ends hold, so that it is still being sent.
    payload = {"long": "x" * 8_000_000}
    with serving_peer(context) as peer:
        session = Session(peer.url, ca_bundle=scene.ca.ca_bundle, sleep=clock.sleep)
        peer.steps = [reset, ok]
        assert session.post(f"{peer.url}/newOrder", payload, signer).status == 200
        slept = len(clock.slept)
        peer.steps = [reset]
        with pytest.raises(TransientError, match="Could not reach ") as caught:
            session.post(f"{peer.url}/newOrder", payload, signer)

    assert slept == 1
    assert len(clock.slept) == 1 + ATTEMPTS - 1
    assert "trust" not in f"{caught.value.message}{caught.value.hint}"


@contextmanager
def closed_port() -> Iterator[int]:
    """Yield a port of this machine that refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        yield bound.getsockname()[1]
