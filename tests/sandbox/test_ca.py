"""The sandbox's CA: strict where RFC 8555 and RFC 9773 are, and wrong on demand."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from acme import challenges, messages
from acme import client as acme_client
from acme.crypto_util import make_csr
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from josepy import b64, jwa, jwk

from letsencrypt_mdaemon.sandbox.ca.faults import Faults
from letsencrypt_mdaemon.sandbox.ca.messages import LOST, Answer, Problem, Request, html
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from tests import ca_faults
from tests.limits import HANG_SECONDS

Document = dict[str, Any]
NAME = "mail.example.test"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
TOKEN = "a-token"  # noqa: S105 - shown to everybody
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())


# A web server, a client that can be wrong in every way, and a CA for each test


@dataclass
class Page:
    """What the web server shows at a path."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Web(ThreadingHTTPServer):
    """A web server for every name, on a free port of this machine."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Shown)
        self.pages: dict[str, Page] = {}
        self.hosts: list[str] = []

    def show(self, token: str, page: Page) -> None:
        self.pages[f"/.well-known/acme-challenge/{token}"] = page


class Shown(BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        self.server.hosts.append(self.headers["Host"])
        page = self.server.pages.get(self.path, Page(status=404))
        self.send_response(page.status)
        for name, value in page.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(page.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def shared_web() -> Iterator[Web]:
    with Web() as web:
        thread = Thread(target=web.serve_forever, args=(0.02,))
        thread.start()
        yield web
        web.shutdown()
        thread.join()


@pytest.fixture
def web(shared_web: Web) -> Web:
    shared_web.pages.clear()
    shared_web.hosts.clear()
    return shared_web


MakeCa = Callable[..., CertificateAuthority]


@pytest.fixture
def make_ca(tmp_path: Path, web: Web) -> Iterator[MakeCa]:
    """Return a function that starts a CA whose answers wait for its validator."""
    with ExitStack() as stack:

        def make(**options: Any) -> CertificateAuthority:  # noqa: ANN401
            options = {"http_port": web.server_port, "clock": lambda: NOW, **options}
            ca = CertificateAuthority(tmp_path, **options)
            ca.faults.validation_in_answer = True
            return stack.enter_context(ca)

        yield make


@pytest.fixture
def ca(make_ca: MakeCa) -> CertificateAuthority:
    return make_ca()


@pytest.fixture
def make_client(web: Web) -> Iterator[Callable[[CertificateAuthority], Client]]:
    with ExitStack() as stack:

        def make(ca: CertificateAuthority) -> Client:
            session = stack.enter_context(requests.Session())
            session.trust_env, session.verify = False, str(ca.ca_bundle)
            return Client(session, ca.directory_url, web)

        yield make


MakeClient = Callable[[CertificateAuthority], "Client"]


@pytest.fixture
def client(make_client: MakeClient, ca: CertificateAuthority) -> Client:
    return make_client(ca)


@pytest.fixture
def member(client: Client) -> Client:
    """Return a client that has an account."""
    client.register()
    return client


def encode(value: bytes | Document) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return b64.b64encode(data).decode()


class Client:
    """An ACME client that says what it is told to say."""

    def __init__(self, session: requests.Session, directory: str, web: Web) -> None:
        self.session, self.web = session, web
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.key: jwk.JWK = jwk.JWKEC(key=self.private)
        self.algorithm: jwa.JWASignature = jwa.ES256
        self.kid = ""
        self.directory: Document = session.get(directory).json()

    def nonce(self) -> str:
        return self.session.head(self.directory["newNonce"]).headers["Replay-Nonce"]

    def jws(self, url: str, payload: Document | None, **header: object) -> Document:
        """Return a good JWS, but for what `header` says otherwise (None: leave out)."""
        name = {"kid": self.kid} if self.kid else {"jwk": self.public}
        nonce = {} if "nonce" in header else {"nonce": self.nonce()}
        header = {"alg": self.algorithm.name, "url": url, **nonce, **name, **header}
        protected = encode({k: v for k, v in header.items() if v is not None})
        body = "" if payload is None else encode(payload)
        signature = self.algorithm.sign(self.key.key, f"{protected}.{body}".encode())
        return {"protected": protected, "payload": body, "signature": encode(signature)}

    @property
    def public(self) -> Document:
        return dict(self.key.public_key().to_partial_json())

    def send(
        self,
        url: str,
        body: Document | bytes,
        content_type: str = "application/jose+json",
    ) -> requests.Response:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": content_type}
        return self.session.post(url, data, headers=headers, timeout=HANG_SECONDS)

    def post(
        self, url: str, payload: Document | None = None, **header: object
    ) -> requests.Response:
        return self.send(url, self.jws(url, payload, **header))

    def register(self, **payload: object) -> requests.Response:
        self.kid = ""
        asked = {"termsOfServiceAgreed": True, **payload}
        response = self.post(self.directory["newAccount"], asked)
        self.kid = response.headers.get("Location", "")
        return response

    def order(self, *names: str, **more: object) -> requests.Response:
        identifiers = [{"type": "dns", "value": name} for name in names or (NAME,)]
        return self.post(
            self.directory["newOrder"], {"identifiers": identifiers, **more}
        )

    def authorizations(self, order: Document) -> list[Document]:
        return [self.post(url).json() for url in order["authorizations"]]

    def challenge(self, order: Document) -> Document:
        """Return the http-01 challenge of an order's first authorization."""
        known = self.authorizations(order)[0]["challenges"]
        return dict(next(one for one in known if one["type"] == "http-01"))

    def key_authorization(self, token: str) -> bytes:
        return f"{token}.{encode(self.key.thumbprint())}".encode()

    def prove(self, order: Document) -> None:
        """Show what every http-01 challenge wants, and say so."""
        for authorization in self.authorizations(order):
            for one in authorization["challenges"]:
                if one["type"] == "http-01":
                    body = self.key_authorization(one["token"])
                    self.web.show(one["token"], Page(body))
                    self.post(one["url"], {})

    def finalize(self, order: Document, csr: bytes | None = None) -> requests.Response:
        names = [one["value"].lower() for one in order["identifiers"]]
        return self.post(order["finalize"], {"csr": encode(csr or new_csr(names))})

    def issue(self, *names: str, **more: object) -> list[x509.Certificate]:
        """Obtain a certificate; return its chain."""
        order = self.order(*names, **more).json()
        self.prove(order)
        return self.chain(self.finalize(order).json())

    def chain(self, order: Document) -> list[x509.Certificate]:
        return x509.load_pem_x509_certificates(self.post(order["certificate"]).content)


def new_csr(
    names: list[str], key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = OTHER_KEY
) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    san = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    builder = builder.add_extension(san, critical=False) if names else builder
    return builder.sign(key, hashes.SHA256()).public_bytes(ser.Encoding.DER)


def kind(response: requests.Response | Document) -> str:
    """Return what an error is called."""
    document = response if isinstance(response, dict) else response.json()
    return str(document["type"]).removeprefix("urn:ietf:params:acme:error:")


def refusal(response: requests.Response) -> tuple[str, int]:
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["status"] == response.status_code
    return kind(response), response.status_code


def san(certificate: x509.Certificate) -> list[str]:
    extension = x509.SubjectAlternativeName
    value = certificate.extensions.get_extension_for_class(extension).value
    return value.get_values_for_type(x509.DNSName)


# Issuance, by another's client


def acme_account(
    ca: CertificateAuthority, key: jwk.JWK, alg: jwa.JWASignature
) -> acme_client.ClientV2:
    net = acme_client.ClientNetwork(key, alg=alg, verify_ssl=True)
    net.verify_ssl = str(ca.ca_bundle)  # type: ignore[assignment]
    net.session.trust_env = False
    directory = acme_client.ClientV2.get_directory(ca.directory_url, net)
    return acme_client.ClientV2(directory, net)


@pytest.mark.parametrize("algorithm", [jwa.RS256, jwa.ES384], ids=str)
def test_the_acme_package_obtains_a_certificate(
    tmp_path: Path, web: Web, algorithm: jwa.JWASignature
) -> None:
    key: jwk.JWK
    if algorithm is jwa.RS256:
        key = jwk.JWKRSA(key=rsa.generate_private_key(65537, 2048))
    else:
        key = jwk.JWKEC(key=ec.generate_private_key(ec.SECP384R1()))
    names = [NAME, "imap.example.test", "xn--bcher-kva.example.test"]
    private = OTHER_KEY.private_bytes(
        ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.NoEncryption()
    )
    with CertificateAuthority(tmp_path, http_port=web.server_port, alternates=1) as ca:
        ca.faults.validation_in_answer = algorithm is not jwa.RS256
        client = acme_account(ca, key, algorithm)
        registration = messages.NewRegistration.from_data(
            email="postmaster@example.test", terms_of_service_agreed=True
        )
        client.new_account(registration)
        order = client.new_order(make_csr(private, names))
        for authorization in order.authorizations:
            for one in authorization.body.challenges:
                if isinstance(one.chall, challenges.HTTP01):
                    response, validation = one.response_and_validation(key)
                    web.show(one.chall.encode("token"), Page(validation.encode()))
                    client.answer_challenge(one, response)
        deadline = datetime.now() + timedelta(seconds=30)  # noqa: DTZ005 - as acme wants it
        order = client.poll_authorizations(order, deadline)
        order = client.finalize_order(order, deadline, fetch_alternative_chains=True)
        chain = x509.load_pem_x509_certificates(order.fullchain_pem.encode())
        (other,) = order.alternative_fullchains_pem
        window, _ = client.renewal_time(order.fullchain_pem.encode())
        client.revoke(chain[0], 1)

        assert san(chain[0]) == names
        assert chain[0].public_key() == OTHER_KEY.public_key()
        chain[1].verify_directly_issued_by(ca.root)
        chain[0].verify_directly_issued_by(chain[1])
        leaf, sub = x509.load_pem_x509_certificates(other.encode())
        assert leaf == chain[0]
        leaf.verify_directly_issued_by(sub)
        sub.verify_directly_issued_by(ca.roots[1])
        assert window is not None
        assert [issued.revoked for issued in ca.issued.values()] == [True]
        assert sorted(set(web.hosts)) == sorted(names)
        del client.net


def test_a_certificate_says_what_a_public_ca_would_say(
    member: Client, ca: CertificateAuthority
) -> None:
    leaf, issuer = member.issue(NAME, "imap.example.test")
    common_name = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    above = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert [name.value for name in common_name] == [NAME]
    assert san(leaf) == [NAME, "imap.example.test"]
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert above.key_identifier == own.digest
    assert leaf.not_valid_before_utc == NOW - timedelta(hours=1)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(days=90)
    leaf.verify_directly_issued_by(issuer)
    issuer.verify_directly_issued_by(ca.root)


def test_a_name_too_long_for_a_common_name_stands_in_the_alternative_names_only(
    member: Client,
) -> None:
    name = f"{'a' * 63}.example.test"
    leaf = member.issue(name)[0]
    assert list(leaf.subject) == []
    assert san(leaf) == [name]
    assert leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical


def test_validation_does_not_hold_up_other_requests(
    make_ca: MakeCa, make_client: MakeClient
) -> None:
    ca = make_ca()
    ca.faults.validation_in_answer = False
    ca.faults.slow_validation = 3600  # seconds; leaving the CA cuts it short
    client = make_client(ca)
    client.register()
    order = client.order().json()
    client.prove(order)
    assert client.challenge(order)["status"] == "processing"
    assert client.authorizations(order)[0]["status"] == "pending"


def test_nobody_is_answered_once_the_ca_has_ended(
    tmp_path: Path, web: Web, make_client: MakeClient
) -> None:
    with CertificateAuthority(tmp_path, http_port=web.server_port) as ca:
        client = make_client(ca)
    with pytest.raises(requests.ConnectionError):
        client.nonce()


def test_one_connection_serves_many_requests(ca: CertificateAuthority) -> None:
    url = urlsplit(ca.directory_url)
    context = ssl.create_default_context(cafile=str(ca.ca_bundle))
    with closing(
        http.client.HTTPSConnection(url.netloc, context=context)
    ) as connection:
        connection.connect()
        first = connection.sock
        for _ in range(3):
            connection.request("GET", url.path)
            assert connection.getresponse().read()
            assert connection.sock is first


def test_a_client_that_does_not_trust_the_ca_does_not_disturb_it(
    ca: CertificateAuthority, client: Client
) -> None:
    client.session.verify = True
    with pytest.raises(requests.exceptions.SSLError):
        client.session.get(ca.directory_url)
    client.session.verify = str(ca.ca_bundle)
    assert client.nonce()


def test_a_ca_can_be_started_by_hand(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "letsencrypt_mdaemon.sandbox.ca.server"]
    arguments = ["--http-port", "5002", "--directory", str(tmp_path)]
    with subprocess.Popen(
        [*command, *arguments], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr
            found = re.search(r"https://[^;]+", process.stderr.readline())
            assert found
            root = str(tmp_path / "https-root.pem")
            with requests.Session() as session:
                session.trust_env = False
                answer = session.get(found[0], verify=root, timeout=HANG_SECONDS)
            assert "newOrder" in answer.json()
        finally:
            process.terminate()


# Transport: RFC 8555, section 6


def test_the_directory_tells_what_there_is(
    make_ca: MakeCa, make_client: MakeClient
) -> None:
    directory = make_client(make_ca(profiles={"classic": "as ever"})).directory
    resources = {"newNonce", "newAccount", "newOrder", "revokeCert", "keyChange"}
    assert {*resources, "renewalInfo"} < directory.keys()
    assert directory["meta"]["profiles"] == {"classic": "as ever"}
    assert directory["meta"]["externalAccountRequired"] is False
    assert directory["meta"]["termsOfService"].startswith("https://")


def test_every_answer_brings_a_nonce_of_its_own(member: Client) -> None:
    url = member.directory["newNonce"]
    answers = [member.session.get(url), member.session.head(url), member.order()]
    answers += [member.post(url), member.session.get(url + "x")]
    nonces = {answer.headers["Replay-Nonce"] for answer in answers}
    assert [answer.status_code for answer in answers] == [204, 200, 201, 405, 404]
    assert len(nonces) == len(answers)
    assert all('rel="index"' in answer.headers["Link"] for answer in answers)


def test_a_nonce_is_good_once(member: Client) -> None:
    nonce = member.nonce()
    assert member.post(member.kid, nonce=nonce).status_code == 200
    assert refusal(member.post(member.kid, nonce=nonce)) == ("badNonce", 400)


@pytest.mark.parametrize("nonce", ["bm90LW91cnM", "", None, ["a"]])
def test_a_nonce_of_somebody_else_is_refused(member: Client, nonce: object) -> None:
    assert refusal(member.post(member.kid, nonce=nonce)) == ("badNonce", 400)


def test_a_request_signed_for_another_url_is_refused(member: Client) -> None:
    body = member.jws(member.directory["newOrder"], None)
    assert refusal(member.send(member.kid, body)) == ("unauthorized", 403)


def test_a_changed_request_is_refused(member: Client) -> None:
    body = member.jws(member.kid, {"contact": ["mailto:a@example.test"]})
    body["payload"] = encode({"contact": ["mailto:b@example.test"]})
    assert refusal(member.send(member.kid, body)) == ("malformed", 400)


def test_a_request_signed_by_another_key_is_refused(
    member: Client, ca: CertificateAuthority
) -> None:
    member.key = jwk.JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
    assert refusal(member.post(member.kid, {"status": "deactivated"}))[0] == "malformed"
    assert ca.accounts[member.kid].document["status"] == "valid"


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/jose+json; charset=utf-8", ""]
)
def test_another_content_type_is_refused(member: Client, content_type: str) -> None:
    body = member.jws(member.kid, None)
    assert refusal(member.send(member.kid, body, content_type)) == ("malformed", 415)


@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS1", None, ["ES256"]])
def test_an_algorithm_that_proves_nothing_is_refused(
    member: Client, algorithm: object
) -> None:
    response = member.post(member.kid, alg=algorithm)
    assert refusal(response) == ("badSignatureAlgorithm", 400)
    assert response.json()["algorithms"] == ["RS256", "ES256", "ES384"]


def test_a_mac_with_the_public_key_as_secret_is_refused(member: Client) -> None:
    url, secret = member.kid, encode(member.public).encode()
    header = {"alg": "HS256", "url": url, "nonce": member.nonce(), "kid": member.kid}
    protected = encode(header)
    signature = encode(jwa.HS256.sign(secret, f"{protected}.".encode()))
    body = {"protected": protected, "payload": "", "signature": signature}
    assert refusal(member.send(url, body)) == ("badSignatureAlgorithm", 400)


def test_a_signature_of_another_kind_of_key_is_refused(member: Client) -> None:
    assert refusal(member.post(member.kid, alg="RS256")) == ("malformed", 400)
    member.algorithm = jwa.ES384
    assert refusal(member.post(member.kid)) == ("malformed", 400)


def test_the_key_is_named_by_kid_for_an_account_and_by_jwk_for_a_new_one(
    member: Client,
) -> None:
    new, public = member.directory["newAccount"], member.public
    tries: list[tuple[str, Document]] = [
        (member.kid, {"jwk": public}),
        (member.kid, {"jwk": public, "kid": None}),
        (member.kid, {"kid": None}),
        (new, {}),
        (new, {"jwk": public}),
        (member.directory["newOrder"], {"jwk": public, "kid": None}),
    ]
    for url, header in tries:
        assert refusal(member.post(url, None, **header)) == ("malformed", 400)


def test_an_unknown_account_is_refused(member: Client) -> None:
    response = member.post(member.kid, kid=member.kid + "x")
    assert refusal(response) == ("accountDoesNotExist", 400)


@pytest.mark.parametrize(
    "change",
    [
        {"header": {"alg": "ES256"}},
        {"signatures": []},
        {"payload": None},
        {"payload": "e30="},
        {"payload": "e31"},
        {"protected": "e30"},
        {"protected": "bm8"},
        {"signature": ""},
    ],
    ids=str,
)
def test_what_is_not_a_flattened_jws_is_refused(
    member: Client, change: Document
) -> None:
    body = {**member.jws(member.kid, None), **change}
    assert member.send(member.kid, body).status_code in {400, 403}


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"[" * 60000], ids=len)
def test_what_is_not_a_json_object_is_refused(member: Client, body: bytes) -> None:
    assert refusal(member.send(member.kid, body)) == ("malformed", 400)


def test_an_extension_of_jws_that_must_be_understood_is_refused(member: Client) -> None:
    assert refusal(member.post(member.kid, crit=["exp"])) == ("malformed", 400)


@pytest.mark.parametrize(
    "header",
    [
        ("Content-Length", "100000"),
        ("Content-Length", "-1"),
        ("Transfer-Encoding", "chunked"),
    ],
    ids=str,
)
def test_a_body_of_any_size_is_not_read(
    ca: CertificateAuthority, client: Client, header: tuple[str, str]
) -> None:
    url = urlsplit(client.directory["newOrder"])
    context = ssl.create_default_context(cafile=str(ca.ca_bundle))
    with closing(
        http.client.HTTPSConnection(url.netloc, context=context)
    ) as connection:
        connection.putrequest("POST", url.path)
        connection.putheader(*header)
        connection.endheaders()
        with connection.getresponse() as response:
            assert response.status == 413
            assert kind(json.load(response)) == "malformed"
            assert response.will_close


def test_a_method_that_is_not_for_a_resource_is_named(member: Client) -> None:
    get = member.session.get(member.kid)
    put = member.session.put(member.directory["newNonce"], b"{}")
    assert (refusal(get), get.headers["Allow"]) == (("malformed", 405), "POST")
    assert (refusal(put), put.headers["Allow"]) == (("malformed", 405), "GET, HEAD")


def test_an_order_is_looked_at_without_a_payload(member: Client) -> None:
    url = member.order().headers["Location"]
    assert refusal(member.post(url, {})) == ("malformed", 400)


def test_what_was_asked_is_kept_for_the_test(
    member: Client, ca: CertificateAuthority
) -> None:
    member.order(NAME)
    last = ca.requests[-1]
    assert (last.method, last.resource) == ("POST", "newOrder")
    assert last.payload["identifiers"] == [{"type": "dns", "value": NAME}]
    assert last.headers["User-Agent"].startswith("python-requests")
    member.send(member.directory["newOrder"], b"{}")
    assert ca.requests[-1].payload == {}


# Accounts: section 7.3


def test_a_known_key_finds_its_account(client: Client) -> None:
    first = client.register(contact=["mailto:a@example.test"])
    again = client.register(contact=["mailto:b@example.test"])
    found = client.register(termsOfServiceAgreed=None, onlyReturnExisting=True)
    assert [r.status_code for r in (first, again, found)] == [201, 200, 200]
    assert len({r.headers["Location"] for r in (first, again, found)}) == 1
    assert found.json()["contact"] == ["mailto:a@example.test"]


def test_an_unknown_key_finds_no_account(
    client: Client, ca: CertificateAuthority
) -> None:
    response = client.register(onlyReturnExisting=True)
    assert refusal(response) == ("accountDoesNotExist", 400)
    assert ca.accounts == {}


@pytest.mark.parametrize("agreed", [False, None, "yes", 1])
def test_nobody_gets_an_account_without_agreeing(
    client: Client, agreed: object
) -> None:
    response = client.register(termsOfServiceAgreed=agreed)
    assert refusal(response) == ("userActionRequired", 403)


@pytest.mark.parametrize(
    ("contact", "error"),
    [
        (["tel:+1"], "invalidContact"),
        (["mailto:a@example.test,b@example.test"], "invalidContact"),
        ([7], "invalidContact"),
        ("mailto:a@example.test", "malformed"),
    ],
)
def test_a_contact_is_a_list_of_mail_addresses(
    client: Client, contact: object, error: str
) -> None:
    assert refusal(client.register(contact=contact)) == (error, 400)


@pytest.mark.parametrize("weak", ["rsa-1024", "oct", "private", "nonsense", "P-521"])
def test_a_weak_or_strange_account_key_is_refused(client: Client, weak: str) -> None:
    shown: object
    if weak == "rsa-1024":
        key = jwk.JWKRSA(key=rsa.generate_private_key(65537, 1024))  # noqa: S505
        shown = key.public_key().to_partial_json()
    elif weak == "P-521":
        longer = jwk.JWKEC(key=ec.generate_private_key(ec.SECP521R1()))
        shown = longer.public_key().to_partial_json()
    elif weak == "private":
        shown = client.key.to_partial_json()
    else:
        shown = {"kty": "oct", "k": "c2VjcmV0"} if weak == "oct" else "nonsense"
    response = client.post(client.directory["newAccount"], {}, jwk=shown)
    assert refusal(response) == ("badPublicKey", 400)


def test_contacts_can_be_changed(member: Client) -> None:
    contact = ["mailto:new@example.test"]
    assert member.post(member.kid, {"contact": contact}).json()["contact"] == contact
    assert member.post(member.kid).json()["contact"] == contact


def test_a_deactivated_account_is_good_for_nothing(member: Client) -> None:
    kid = member.kid
    gone = member.post(kid, {"status": "deactivated"})
    assert gone.json()["status"] == "deactivated"
    assert refusal(member.order()) == ("unauthorized", 401)
    assert refusal(member.register()) == ("unauthorized", 401)


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_an_external_account_binding_of_the_acme_package_is_taken(
    make_ca: MakeCa, algorithm: str
) -> None:
    secret = bytes(range(32))
    ca = make_ca(external_accounts={"kid-1": secret})
    key = jwk.JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
    client = acme_account(ca, key, jwa.ES256)
    binding = messages.ExternalAccountBinding.from_data(
        key.public_key(), "kid-1", encode(secret), client.directory, algorithm
    )
    registration = messages.NewRegistration.from_data(
        terms_of_service_agreed=True, external_account_binding=binding
    )
    assert client.external_account_required()
    assert client.new_account(registration).uri in ca.accounts
    del client.net


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"secret": b"wrong"}, "malformed"),
        ({"kid": "kid-2"}, "unauthorized"),
        ({"url": "https://elsewhere.test/"}, "malformed"),
        ({"nonce": "bm8"}, "malformed"),
        ({"alg": "none"}, "badSignatureAlgorithm"),
        ({"key": True}, "malformed"),
        ({"absent": True}, "externalAccountRequired"),
    ],
    ids=str,
)
def test_a_wrong_external_account_binding_is_refused(
    make_ca: MakeCa, make_client: MakeClient, change: Document, error: str
) -> None:
    ca = make_ca(external_accounts={"kid-1": b"secret"})
    client = make_client(ca)
    change = dict(change)
    key = jwk.JWKEC(key=OTHER_KEY) if change.pop("key", False) else client.key
    secret, absent = change.pop("secret", b"secret"), change.pop("absent", False)
    url = client.directory["newAccount"]
    protected = encode({"alg": "HS256", "kid": "kid-1", "url": url, **change})
    payload = encode(dict(key.public_key().to_partial_json()))
    signature = encode(jwa.HS256.sign(secret, f"{protected}.{payload}".encode()))
    binding = {"protected": protected, "payload": payload, "signature": signature}
    response = client.register(externalAccountBinding=None if absent else binding)
    assert refusal(response)[0] == error
    assert ca.accounts == {}


def roll_over(
    client: Client, new: jwk.JWK, signer: jwk.JWK | None = None, **change: object
) -> requests.Response:
    """Ask for another account key (7.3.5)."""
    url, old = client.directory["keyChange"], client.key
    public = dict(new.public_key().to_partial_json())
    inner_url = str(change.pop("url", url))
    payload = {"account": client.kid, "oldKey": client.public, **change}
    client.key = signer or new
    inner = client.jws(inner_url, payload, kid=None, nonce=None, jwk=public)
    client.key = old
    return client.post(url, inner)


def test_an_account_can_change_its_key(member: Client) -> None:
    new = jwk.JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
    assert roll_over(member, new).status_code == 200
    assert refusal(member.order()) == ("malformed", 400)
    member.key = new
    assert member.order().status_code == 201


def test_a_key_change_for_something_else_is_refused(
    member: Client, make_client: MakeClient, ca: CertificateAuthority
) -> None:
    new = jwk.JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
    other = make_client(ca)
    other.register()
    assert refusal(roll_over(member, new, account=other.kid)) == ("malformed", 400)
    assert refusal(roll_over(member, new, oldKey=other.public)) == ("malformed", 400)
    assert refusal(roll_over(member, new, url=member.kid)) == ("malformed", 400)
    assert refusal(roll_over(member, new, other.key)) == ("malformed", 400)
    taken = roll_over(member, other.key)
    assert (taken.status_code, taken.headers["Location"]) == (409, other.kid)
    assert member.order().status_code == 201


# Orders: section 7.4


def test_names_are_lower_cased_and_ordered_once(member: Client) -> None:
    order = member.order("Mail.Example.TEST", NAME, "imap.example.test").json()
    values = [one["value"] for one in order["identifiers"]]
    assert values == [NAME, "imap.example.test"]
    assert len(order["authorizations"]) == 2
    assert order["status"] == "pending"


def test_an_order_goes_from_pending_to_ready_to_valid(member: Client) -> None:
    response = member.order()
    order, url = response.json(), response.headers["Location"]
    member.prove(order)
    ready = member.post(url).json()
    done = member.finalize(order)
    assert (response.status_code, order["status"]) == (201, "pending")
    assert (ready["status"], "certificate" in ready) == ("ready", False)
    assert (done.json()["status"], done.headers["Location"]) == ("valid", url)
    assert member.post(url).json() == done.json()


def test_one_wrong_name_makes_the_order_invalid(member: Client) -> None:
    response = member.order(NAME, "imap.example.test")
    member.post(member.challenge(response.json())["url"], {})
    order = member.post(response.headers["Location"]).json()
    assert order["status"] == "invalid"
    assert kind(order["error"]) == "unauthorized"


def test_an_order_expires(make_ca: MakeCa, make_client: MakeClient) -> None:
    times = [NOW]
    client = make_client(make_ca(clock=lambda: times[-1]))
    client.register()
    response = client.order()
    client.prove(response.json())
    times.append(NOW + timedelta(days=8))
    assert client.post(response.headers["Location"]).json()["status"] == "invalid"
    assert refusal(client.finalize(response.json())) == ("orderNotReady", 403)


def test_refused_names_are_named_one_by_one(
    make_ca: MakeCa, make_client: MakeClient
) -> None:
    client = make_client(make_ca(blocked={"blocked.test"}))
    client.register()
    bad = [
        "blocked.test",
        "*.example.test",
        "localhost",
        "-a.test",
        "127.0.0.1",
        "a..b",
    ]
    response = client.order(NAME, *bad)
    parts = response.json()["subproblems"]
    assert refusal(response) == ("rejectedIdentifier", 403)
    assert [part["identifier"]["value"] for part in parts] == bad
    assert {kind(part) for part in parts} == {"rejectedIdentifier"}


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        ({}, "malformed"),
        ({"identifiers": []}, "malformed"),
        ({"identifiers": "mail.example.test"}, "malformed"),
        ({"identifiers": ["mail.example.test"]}, "unsupportedIdentifier"),
        ({"identifiers": [{"type": "ip", "value": "::1"}]}, "unsupportedIdentifier"),
        ({"identifiers": [{"type": "dns", "value": 7}]}, "malformed"),
        ({"notAfter": "2027-01-01T00:00:00Z"}, "malformed"),
        (
            {
                "identifiers": [
                    {"type": "dns", "value": f"a{n}.test"} for n in range(101)
                ]
            },
            "malformed",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_order_that_makes_no_sense_is_refused(
    member: Client, payload: Document, error: str
) -> None:
    named = {"identifiers": [{"type": "dns", "value": NAME}], **payload}
    asked = payload if not payload else named
    assert refusal(member.post(member.directory["newOrder"], asked)) == (error, 400)


def test_a_profile_must_be_one_of_those_offered(
    make_ca: MakeCa, make_client: MakeClient
) -> None:
    client = make_client(make_ca(profiles={"classic": "as ever"}))
    client.register()
    assert client.order(profile="classic").json()["profile"] == "classic"
    assert refusal(client.order(profile="tlsclient")) == ("invalidProfile", 400)
    assert refusal(client.order(profile=["classic"])) == ("invalidProfile", 400)


def test_a_ca_without_profiles_does_not_look_at_them(member: Client) -> None:
    response = member.order(profile="classic")
    assert response.status_code == 201
    assert "profile" not in response.json()


def test_another_accounts_things_are_out_of_reach(
    member: Client, make_client: MakeClient, ca: CertificateAuthority
) -> None:
    order = member.order()
    member.prove(order.json())
    done = member.finalize(order.json()).json()
    challenge = member.challenge(done)["url"]
    other = make_client(ca)
    other.register()
    urls = [order.headers["Location"], done["certificate"], member.kid, challenge]
    for url in [*urls, *done["authorizations"], done["finalize"]]:
        assert refusal(other.post(url)) == ("unauthorized", 403)


def test_an_open_order_is_given_out_again_if_that_is_wanted(
    make_ca: MakeCa, make_client: MakeClient
) -> None:
    ca = make_ca(reuse_orders=True)
    client, other = make_client(ca), make_client(ca)
    client.register()
    other.register()
    first = client.order().headers["Location"]
    assert client.order().headers["Location"] == first
    assert client.order(NAME, "b.test").headers["Location"] != first
    name = ari_name(client.issue("b.test")[0])
    second = client.order("b.test").headers["Location"]
    assert client.order("b.test", replaces=name).headers["Location"] != second
    assert other.order().headers["Location"] != first
    client.issue()
    assert client.order().headers["Location"] != first


def test_an_order_is_not_finalized_before_its_time_nor_twice(member: Client) -> None:
    order = member.order().json()
    assert refusal(member.finalize(order)) == ("orderNotReady", 403)
    member.prove(order)
    assert member.finalize(order).status_code == 200
    assert refusal(member.finalize(order)) == ("orderNotReady", 403)


def csr_with(*names: x509.GeneralName, common_name: str) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = x509.CertificateSigningRequestBuilder(subject)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(OTHER_KEY, hashes.SHA256()).public_bytes(ser.Encoding.DER)


def csr_by_sha224() -> bytes:
    builder = x509.CertificateSigningRequestBuilder(x509.Name([]))
    names = x509.SubjectAlternativeName([x509.DNSName(NAME)])
    builder = builder.add_extension(names, critical=False)
    return builder.sign(OTHER_KEY, hashes.SHA224()).public_bytes(ser.Encoding.DER)


def spoiled(csr: bytes) -> bytes:
    return csr[:-1] + bytes([csr[-1] ^ 1])


@pytest.mark.parametrize(
    "csr",
    [
        new_csr([]),
        new_csr(["imap.example.test"]),
        new_csr([NAME, "imap.example.test"]),
        csr_with(x509.DNSName(NAME), common_name="imap.example.test"),
        csr_with(x509.DNSName(NAME), x509.RFC822Name("a@b.test"), common_name=NAME),
        spoiled(new_csr([NAME])),
        csr_by_sha224(),
        new_csr([NAME], ec.generate_private_key(ec.SECP521R1())),
        new_csr([NAME], rsa.generate_private_key(65537, 1024)),  # noqa: S505
        b"not a CSR",
    ],
    ids=[
        *("no names", "other name", "one more", "other common name", "mail address"),
        *("bad signature", "SHA-224", "P-521", "RSA 1024", "nonsense"),
    ],
)
def test_a_csr_that_does_not_fit_the_order_is_refused(
    member: Client, csr: bytes, ca: CertificateAuthority
) -> None:
    order = member.order().json()
    member.prove(order)
    assert refusal(member.finalize(order, csr)) == ("badCSR", 400)
    assert ca.issued == {}
    assert member.finalize(order).status_code == 200


def test_the_accounts_key_is_not_certified(member: Client) -> None:
    order = member.order().json()
    member.prove(order)
    response = member.finalize(order, new_csr([NAME], member.private))
    assert refusal(response) == ("badCSR", 400)


# Validation: section 8


def failed(client: Client, *, name: str = NAME) -> Document:
    """Try a challenge; return the error the CA shows, which must be there."""
    order = client.order(name).json()
    tried = client.post(client.challenge(order)["url"], {}).json()
    authorization = client.authorizations(order)[0]
    assert (tried["status"], authorization["status"]) == ("invalid", "invalid")
    assert authorization["challenges"] == [tried]
    return dict(tried["error"])


def test_a_challenge_that_was_met_is_the_only_one_left(member: Client) -> None:
    order = member.order().json()
    (before,) = member.authorizations(order)
    member.prove(order)
    (after,) = member.authorizations(order)
    kinds = [one["type"] for one in before["challenges"]]
    assert (before["status"], kinds) == ("pending", ["dns-01", "http-01"])
    assert after["status"] == "valid"
    assert [one["type"] for one in after["challenges"]] == ["http-01"]
    assert after["challenges"][0]["status"] == "valid"
    assert after["challenges"][0]["validated"] == "2026-11-23T12:00:00Z"
    assert member.web.hosts == [NAME]


def test_looking_at_a_challenge_does_not_start_it(member: Client) -> None:
    order = member.order().json()
    url = member.challenge(order)["url"]
    assert member.post(url).json()["status"] == "pending"
    assert member.web.hosts == []


def test_a_decided_challenge_is_not_tried_again(member: Client) -> None:
    order = member.order().json()
    dns, http_01 = member.authorizations(order)[0]["challenges"]
    member.post(http_01["url"], {})
    assert member.post(http_01["url"], {}).json()["status"] == "invalid"
    assert refusal(member.post(dns["url"], {})) == ("malformed", 400)
    assert len(member.web.hosts) == 1


def test_a_dns_challenge_is_never_met(member: Client) -> None:
    order = member.order().json()
    dns = member.authorizations(order)[0]["challenges"][0]
    error = member.post(dns["url"], {}).json()["error"]
    assert kind(error) == "unauthorized"
    assert error["detail"] == f"No TXT record found at _acme-challenge.{NAME}"


def test_a_token_that_is_not_there_is_reported_with_its_url(
    ca: CertificateAuthority, member: Client
) -> None:
    ca.faults.token = TOKEN
    url = f"http://{NAME}/.well-known/acme-challenge/{TOKEN}"
    assert failed(member) == {
        "type": "urn:ietf:params:acme:error:unauthorized",
        "status": 403,
        "detail": f"127.0.0.1: Invalid response from {url}: 404",
    }


@pytest.mark.parametrize("change", ["else", "bom", "space before", "too long"])
def test_another_content_is_reported_with_what_was_seen(
    ca: CertificateAuthority, member: Client, change: str
) -> None:
    ca.faults.token = TOKEN
    right = member.key_authorization(TOKEN)
    shown = {
        "else": b"<html>",
        "bom": b"\xef\xbb\xbf" + right,
        "space before": b" " + right,
    }
    page = shown.get(change, right + b" " * 100 + b"x")
    member.web.show(TOKEN, Page(page))
    error = failed(member)
    seen = page[:128].decode()
    assert kind(error) == "unauthorized"
    assert f'Expected "{right.decode()}" (got "{seen}")' in error["detail"]


def test_space_after_the_key_authorization_does_not_matter(
    ca: CertificateAuthority, member: Client
) -> None:
    ca.faults.token = TOKEN
    member.web.show(TOKEN, Page(member.key_authorization(TOKEN) + b"\r\n \t"))
    order = member.order().json()
    assert member.post(member.challenge(order)["url"], {}).json()["status"] == "valid"


def test_a_name_without_address_is_reported(
    make_ca: MakeCa, make_client: MakeClient
) -> None:
    client = make_client(make_ca(resolve={}.get))
    client.register()
    error = failed(client)
    assert kind(error) == "dns"
    assert error["detail"].startswith(f"DNS problem: NXDOMAIN looking up A for {NAME}")


def test_a_web_server_that_is_not_there_is_reported(
    make_ca: MakeCa, make_client: MakeClient, web: Web
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Shown) as gone:
        port = gone.server_port
    ca = make_ca(http_port=port)
    ca.faults.token = TOKEN
    client = make_client(ca)
    client.register()
    url = f"http://{NAME}/.well-known/acme-challenge/{TOKEN}"
    error = failed(client)
    assert kind(error) == "connection"
    assert error["detail"] == f"127.0.0.1: Fetching {url}: Connection refused"
    assert web.hosts == []


def test_a_web_server_that_says_nothing_is_reported(
    make_ca: MakeCa, make_client: MakeClient
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = make_client(make_ca(http_port=silent.getsockname()[1], timeout=0.05))
        client.register()
        error = failed(client)
    assert kind(error) == "connection"
    assert "Timeout" in error["detail"]


def moved(to: str, status: int = 302) -> Page:
    return Page(status=status, headers={"Location": to})


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_followed_to_another_name(
    ca: CertificateAuthority, member: Client, status: int
) -> None:
    ca.faults.token = TOKEN
    member.web.show(TOKEN, moved("http://WWW.example.test:80/elsewhere?a=b", status))
    member.web.pages["/elsewhere?a=b"] = moved("there")
    member.web.pages["/there"] = Page(member.key_authorization(TOKEN))
    order = member.order().json()
    assert member.post(member.challenge(order)["url"], {}).json()["status"] == "valid"
    assert member.web.hosts == [NAME, "www.example.test", "www.example.test"]


@pytest.mark.parametrize(
    ("page", "error", "detail"),
    [
        (
            moved("/.well-known/acme-challenge/a-token"),
            "connection",
            "Too many redirects",
        ),
        (moved("http://mail.example.test:5002/"), "connection", "Only port 80"),
        (moved("ftp://mail.example.test/"), "connection", "Only port 80"),
        (moved("http://[broken/"), "connection", "Invalid redirect"),
        (moved("http://mail.example.test/a b\x7f"), "connection", "Error getting"),
        (moved("http://mail.example.test", 303), "unauthorized", ": 303"),
        (moved("http://unknown.example.test/"), "dns", "unknown.example.test"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_redirect_that_leads_nowhere_is_reported(
    make_ca: MakeCa, make_client: MakeClient, page: Page, error: str, detail: str
) -> None:
    ca = make_ca(resolve={NAME: "127.0.0.1"}.get)
    ca.faults.token = TOKEN
    client = make_client(ca)
    client.register()
    client.web.show(TOKEN, page)
    seen = failed(client)
    assert kind(seen) == error
    assert detail in seen["detail"]


def test_an_authorization_can_be_given_up(member: Client) -> None:
    response = member.order()
    url = response.json()["authorizations"][0]
    given_up = member.post(url, {"status": "deactivated"}).json()
    assert given_up["status"] == "deactivated"
    assert member.post(response.headers["Location"]).json()["status"] == "invalid"


# Revocation: section 7.6, and renewal information: RFC 9773


def revoke(client: Client, leaf: x509.Certificate, **more: object) -> requests.Response:
    der = leaf.public_bytes(ser.Encoding.DER)
    return client.post(
        client.directory["revokeCert"], {"certificate": encode(der), **more}
    )


def test_an_account_revokes_its_certificate_once(member: Client) -> None:
    leaf = member.issue()[0]
    assert refusal(revoke(member, leaf, reason=9)) == ("badRevocationReason", 400)
    assert refusal(revoke(member, leaf, reason=[])) == ("badRevocationReason", 400)
    done = revoke(member, leaf, reason=1)
    assert (done.status_code, done.content) == (200, b"")
    assert refusal(revoke(member, leaf)) == ("alreadyRevoked", 400)


@pytest.mark.parametrize("wrong", ["{}=", "{}A", "\n{}", "{}é", "{}\0"], ids=ascii)
def test_base64url_has_one_spelling(member: Client, wrong: str) -> None:
    text = encode(member.issue()[0].public_bytes(ser.Encoding.DER))
    url = member.directory["revokeCert"]
    refused = member.post(url, {"certificate": wrong.format(text)})
    assert refusal(refused)[0] == "malformed"
    assert member.post(url, {"certificate": text}).status_code == 200


def test_the_certificates_key_revokes_it(
    member: Client, make_client: MakeClient, ca: CertificateAuthority
) -> None:
    leaf = member.issue()[0]
    other = make_client(ca)
    assert refusal(revoke(other, leaf)) == ("unauthorized", 403)
    other.key = jwk.JWKEC(key=OTHER_KEY)
    assert revoke(other, leaf).status_code == 200


def test_nobody_revokes_anothers_certificate_or_anothers_cas(
    member: Client, make_client: MakeClient, ca: CertificateAuthority
) -> None:
    leaf = member.issue()[0]
    other = make_client(ca)
    other.register()
    assert refusal(revoke(other, leaf)) == ("unauthorized", 403)
    assert refusal(revoke(member, ca.root)) == ("malformed", 404)


def ari_name(leaf: x509.Certificate) -> str:
    """Return what RFC 9773, 4.1 calls a certificate, from the bytes of its DER."""
    kind_ = x509.AuthorityKeyIdentifier
    above = leaf.extensions.get_extension_for_class(kind_).value.key_identifier
    serial = f"{leaf.serial_number:x}"
    serial = serial if len(serial) % 2 == 0 else f"0{serial}"
    serial = f"00{serial}" if int(serial[:2], 16) > 127 else serial
    return f"{encode(above or b'')}.{encode(bytes.fromhex(serial))}"


def renewal_info(client: Client, name: str) -> requests.Response:
    return client.session.get(f"{client.directory['renewalInfo']}/{name}")


def window(client: Client, leaf: x509.Certificate) -> list[datetime]:
    shown = renewal_info(client, ari_name(leaf)).json()["suggestedWindow"]
    return [datetime.fromisoformat(shown[end]) for end in ("start", "end")]


def test_renewal_is_suggested_after_two_thirds_of_the_lifetime(member: Client) -> None:
    leaf = member.issue()[0]
    start, end = window(member, leaf)
    two_thirds = leaf.not_valid_before_utc + timedelta(days=60)
    assert start < end
    assert start + (end - start) / 2 == two_thirds
    response = renewal_info(member, ari_name(leaf))
    assert int(response.headers["Retry-After"]) > 0
    assert "explanationURL" not in response.json()


def test_the_suggested_window_can_be_moved_and_explained(
    member: Client, ca: CertificateAuthority
) -> None:
    leaf = member.issue()[0]
    ca.suggested_window = (NOW, NOW + timedelta(hours=3))
    ca.explanation_url = "https://ca.test/incident"
    shown = renewal_info(member, ari_name(leaf)).json()
    assert window(member, leaf) == [NOW, NOW + timedelta(hours=3)]
    assert shown["explanationURL"] == "https://ca.test/incident"


def test_a_revoked_certificate_should_have_been_renewed_already(member: Client) -> None:
    leaf = member.issue()[0]
    revoke(member, leaf)
    assert max(window(member, leaf)) < NOW


def test_nothing_is_suggested_for_an_unknown_certificate(member: Client) -> None:
    assert refusal(renewal_info(member, "AAAA.AAAA")) == ("malformed", 404)


def test_a_certificate_is_replaced_once(member: Client) -> None:
    name = ari_name(member.issue()[0])
    first = member.order(replaces=name)
    assert (first.status_code, first.json()["replaces"]) == (201, name)
    assert refusal(member.order(replaces=name)) == ("alreadyReplaced", 409)


def test_a_failed_order_replaces_nothing(member: Client) -> None:
    name = ari_name(member.issue()[0])
    order = member.order(replaces=name).json()
    member.post(member.challenge(order)["url"], {})
    assert member.order(replaces=name).status_code == 201


def test_a_certificate_is_replaced_by_its_owner_for_one_of_its_names(
    member: Client, make_client: MakeClient, ca: CertificateAuthority
) -> None:
    name = ari_name(member.issue()[0])
    other = make_client(ca)
    other.register()
    assert refusal(other.order(replaces=name)) == ("unauthorized", 403)
    assert refusal(member.order("b.test", replaces=name)) == ("malformed", 400)
    assert refusal(member.order(replaces="AAAA.AAAA")) == ("malformed", 404)
    assert refusal(member.order(replaces=["x"])) == ("malformed", 404)
    assert member.order("b.test", NAME, replaces=name).status_code == 201


# Faults


def test_a_ca_does_nothing_wrong_unasked(member: Client) -> None:
    assert len(member.issue()) == 2


def test_good_nonces_are_rejected_as_often_as_wanted(
    member: Client, ca: CertificateAuthority
) -> None:
    ca.faults.nonce_rejections = 2
    answers = [member.post(member.kid) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [400, 400, 200, 200]
    assert kind(answers[0]) == "badNonce"
    assert "Replay-Nonce" in answers[0].headers


def test_a_share_of_good_nonces_is_rejected_the_same_way_each_time(
    member: Client, ca: CertificateAuthority
) -> None:
    runs = []
    for _ in range(2):
        ca.faults = Faults(rejection_rate=0.5)
        runs.append([member.post(member.kid).status_code for _ in range(20)])
    assert runs[0] == runs[1]
    assert set(runs[0]) == {200, 400}


def test_the_error_may_come_without_a_fresh_nonce(
    member: Client, ca: CertificateAuthority
) -> None:
    ca.faults.nonce_rejections = 1
    ca.faults.after("account", lambda answer: answer.headers.pop("Replay-Nonce"))
    assert "Replay-Nonce" not in member.post(member.kid).headers


@pytest.mark.parametrize(
    ("retry_after", "header"),
    [(None, None), (7, "7"), (-1, "-1"), (NOW, "Mon, 23 Nov 2026 12:00:00 GMT")],
    ids=str,
)
def test_a_proxy_may_answer_in_the_cas_place(
    member: Client,
    ca: CertificateAuthority,
    retry_after: int | datetime | None,
    header: str | None,
) -> None:
    ca.faults.before("newOrder|account", html(503, retry_after), times=2)
    answers = [member.order(), member.post(member.kid), member.order()]
    assert [answer.status_code for answer in answers] == [503, 503, 201]
    assert answers[0].headers["Content-Type"] == "text/html"
    assert answers[0].text.startswith("<html>")
    assert answers[0].headers.get("Retry-After") == header
    assert "Replay-Nonce" not in answers[0].headers
    assert len(ca.orders) == 1


def test_a_resource_may_be_refused_with_a_problem(
    member: Client, ca: CertificateAuthority
) -> None:
    headers = {"Retry-After": "3600"}
    problem = Problem("rateLimited", "Too many orders.", 429, headers)
    ca.faults.before("newOrder", problem, times=1)
    limited = member.order()
    assert refusal(limited) == ("rateLimited", 429)
    assert limited.headers["Retry-After"] == "3600"
    assert "Replay-Nonce" in limited.headers
    assert member.order().status_code == 201


def test_a_hook_may_choose_by_what_is_asked(
    member: Client, ca: CertificateAuthority
) -> None:
    def refuse_replacing(request: Request) -> Problem | bool:
        if "replaces" not in request.payload:
            return False
        return Problem("serverInternal", "Oops.", 500)

    ca.faults.before("newOrder", refuse_replacing, times=1)
    name = ari_name(member.issue()[0])
    assert member.order().status_code == 201
    assert refusal(member.order(replaces=name)) == ("serverInternal", 500)
    assert member.order(replaces=name).status_code == 201


def test_the_connection_may_break_before_or_after_the_work_is_done(
    member: Client, ca: CertificateAuthority
) -> None:
    ca.faults.before("newOrder", LOST, times=1)
    with pytest.raises(requests.ConnectionError):
        member.order()
    before = len(ca.orders)
    ca.faults.after("newOrder", LOST, times=1)
    with pytest.raises(requests.ConnectionError):
        member.order()
    assert (before, len(ca.orders)) == (0, 1)


def test_a_body_may_be_cut(member: Client, ca: CertificateAuthority) -> None:
    ca.faults.after("newOrder", lambda answer: replace(answer, cut=True), times=1)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        member.order()
    assert len(ca.orders) == 1
    assert member.order().status_code == 201


def test_an_answer_may_be_replaced_after_the_work_is_done(
    member: Client, ca: CertificateAuthority
) -> None:
    ca.faults.after("newOrder", Problem("serverInternal", "Oops.", 500), times=1)
    ca.faults.after("newOrder", Answer(200, body=b"not JSON"), times=1)
    assert refusal(member.order()) == ("serverInternal", 500)
    assert member.order().content == b"not JSON"
    assert len(ca.orders) == 2


def test_a_valid_order_may_seem_to_be_processed_for_a_while(
    member: Client, ca: CertificateAuthority
) -> None:
    ca.faults.after("order|finalize", ca_faults.processing, times=2)
    response = member.order()
    order, url = response.json(), response.headers["Location"]
    member.prove(order)
    assert member.post(url).json()["status"] == "ready"
    answers = [member.finalize(order).json(), member.post(url).json()]
    assert [answer["status"] for answer in answers] == ["processing", "processing"]
    assert all("certificate" not in answer for answer in answers)
    assert member.post(url).json()["status"] == "valid"


Change = Callable[[Answer], object]


@pytest.mark.parametrize(
    ("resource", "change", "seen"),
    [
        ("finalize", lambda a: a.headers.pop("Location"), lambda r: r.headers),
        ("order", lambda a: a.document.pop("finalize"), lambda r: r.json()),
        ("finalize", lambda a: a.document.pop("certificate"), lambda r: r.json()),
    ],
    ids=["no Location", "no finalize", "no certificate"],
)
def test_something_may_be_missing(
    member: Client,
    ca: CertificateAuthority,
    resource: str,
    change: Change,
    seen: Callable[[requests.Response], Document],
) -> None:
    def answers() -> dict[str, requests.Response]:
        response = member.order()
        member.prove(response.json())
        ready = member.post(response.headers["Location"])
        return {"order": ready, "finalize": member.finalize(response.json())}

    whole = seen(answers()[resource]).keys()
    ca.faults.after(resource, change)
    part = seen(answers()[resource]).keys()
    assert len(whole - part) == 1


def test_names_may_be_echoed_in_upper_case(
    member: Client, ca: CertificateAuthority
) -> None:
    ca.faults.after("newOrder|order|authorization", ca_faults.upper_case)
    order = member.order().json()
    assert order["identifiers"][0]["value"] == NAME.upper()
    assert member.authorizations(order)[0]["identifier"]["value"] == NAME.upper()
    member.prove(order)
    assert san(member.chain(member.finalize(order).json())[0]) == [NAME]


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.document.update(authorizations=a.document["authorizations"] * 2),
        lambda a: a.document.update(surprise={"nested": [None, 1.5]}),
        lambda a: a.headers.update({"Content-Type": "text/plain"}),
    ],
    ids=["doubled authorizations", "unknown members", "another content type"],
)
def test_a_sandbox_order_can_be_dressed_up_and_still_be_fulfilled(
    member: Client, ca: CertificateAuthority, change: Change
) -> None:
    ca.faults.after("newOrder|order", change)
    response = member.order()
    assert response.headers["Content-Type"] in {"application/json", "text/plain"}
    member.prove(response.json())
    assert member.finalize(response.json()).status_code == 200


@pytest.mark.parametrize("token", ["../../evil", "", "a/b", "con", "a\0b", "a b"])
def test_a_token_may_be_hostile(
    member: Client, ca: CertificateAuthority, token: str
) -> None:
    ca.faults.token = token
    challenge = member.challenge(member.order().json())
    assert challenge["token"] == token
    assert member.post(challenge["url"], {}).json()["status"] == "invalid"


def test_authorizations_may_be_valid_at_once(
    member: Client, ca: CertificateAuthority
) -> None:
    ca.faults.authorizations_valid = True
    order = member.order().json()
    assert order["status"] == "ready"
    assert member.challenge(order)["status"] == "valid"
    assert member.finalize(order).status_code == 200
    assert member.web.hosts == []


def test_a_failed_challenge_may_stay_pending_until_it_is_tried_again(
    member: Client, ca: CertificateAuthority
) -> None:
    ca.faults.failures_stay_pending = True
    response = member.order()
    challenge = member.challenge(response.json())
    tried = member.post(challenge["url"], {}).json()
    assert (tried["status"], kind(tried["error"])) == ("pending", "unauthorized")
    assert member.authorizations(response.json())[0]["status"] == "pending"
    member.prove(response.json())
    assert member.post(response.headers["Location"]).json()["status"] == "ready"
    assert "error" not in member.challenge(response.json())


def test_an_invalid_authorization_may_come_without_a_reason_or_an_invalid_order(
    member: Client, ca: CertificateAuthority
) -> None:
    ca.faults.after("authorization|challenge", ca_faults.without_error)
    ca.faults.after("order", ca_faults.never_invalid)
    response = member.order()
    challenge = member.challenge(response.json())
    tried = member.post(challenge["url"], {}).json()
    (authorization,) = member.authorizations(response.json())
    order = member.post(response.headers["Location"]).json()
    assert (tried["status"], "error" in tried) == ("invalid", False)
    assert authorization["status"] == "invalid"
    assert "error" not in authorization["challenges"][0]
    assert (order["status"], "error" in order) == ("pending", False)


def test_the_chain_may_be_wrong(member: Client, ca: CertificateAuthority) -> None:
    leaf, above = member.issue()
    order = next(iter(ca.orders.values()))
    for change, chain in [
        (lambda a: a.chain.reverse(), [above, leaf]),
        (lambda a: a.chain.pop(), [leaf]),
        (lambda a: a.chain.append(ca.root), [leaf, above, ca.root]),
    ]:
        ca.faults = Faults()
        ca.faults.after("certificate", change)
        assert member.chain(order) == chain
    ca.faults = Faults()
    assert member.chain(order) == [leaf, above]


def test_the_certificate_may_be_for_another_key_or_other_names(
    member: Client, ca: CertificateAuthority
) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    ca.faults.draft = lambda draft: replace(draft, key=key)
    assert member.issue()[0].public_key() == key
    ca.faults.draft = lambda draft: replace(draft, names=(*draft.names, "evil.test"))
    assert san(member.issue()[0]) == [NAME, "evil.test"]
    ca.faults.draft = lambda draft: replace(draft, names=draft.names[1:])
    assert san(member.issue(NAME, "imap.example.test")[0]) == ["imap.example.test"]
    ca.faults.draft = lambda draft: replace(draft, names=())
    with pytest.raises(x509.ExtensionNotFound):
        san(member.issue()[0])


def test_the_certificate_may_be_of_another_time(
    member: Client, ca: CertificateAuthority
) -> None:
    ca.faults.draft = lambda draft: ca_faults.shifted(draft, timedelta(days=-100))
    assert member.issue()[0].not_valid_after_utc < NOW
    ca.faults.draft = lambda draft: ca_faults.shifted(draft, timedelta(days=1))
    assert member.issue()[0].not_valid_before_utc > NOW


def test_the_certificate_may_be_badly_signed(
    member: Client, ca: CertificateAuthority
) -> None:
    ca.faults.draft = lambda draft: replace(draft, signer=OTHER_KEY)
    leaf, above = member.issue()
    assert leaf.issuer == above.subject
    with pytest.raises(InvalidSignature):
        leaf.verify_directly_issued_by(above)
