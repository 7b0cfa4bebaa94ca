"""The sandbox's CA: strict where RFC 8555 and RFC 9773 are, and wrong on demand."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Literal
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

from letsencrypt_mdaemon.sandbox import ca as sandbox
from letsencrypt_mdaemon.sandbox.ca import (
    LOST,
    Answer,
    CertificateAuthority,
    Faults,
    Problem,
    html,
    processing,
)

Document = dict[str, Any]
NAME = "mail.example.test"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
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
        self.key: jwk.JWK = jwk.JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
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
        return self.session.post(url, data, headers={"Content-Type": content_type})

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
        return self.post(self.directory["newOrder"], {"identifiers": identifiers, **more})

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
    net = acme_client.ClientNetwork(key, alg=alg, verify_ssl=str(ca.ca_bundle))
    net.session.trust_env = False
    directory = acme_client.ClientV2.get_directory(ca.directory_url, net)
    return acme_client.ClientV2(directory, net)


@pytest.mark.parametrize("algorithm", [jwa.RS256, jwa.ES256, jwa.ES384], ids=str)
def test_the_acme_package_obtains_a_certificate(
    tmp_path: Path, web: Web, algorithm: jwa.JWASignature
) -> None:
    key: jwk.JWK
    if algorithm is jwa.RS256:
        key = jwk.JWKRSA(key=rsa.generate_private_key(65537, 2048))
    else:
        curve = ec.SECP256R1() if algorithm is jwa.ES256 else ec.SECP384R1()
        key = jwk.JWKEC(key=ec.generate_private_key(curve))
    names = [NAME, "imap.example.test", "xn--bcher-kva.example.test"]
    private = OTHER_KEY.private_bytes(
        ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.NoEncryption()
    )
    with CertificateAuthority(tmp_path, http_port=web.server_port, alternates=1) as ca:
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
    connection = http.client.HTTPSConnection(url.netloc, context=context)
    connection.connect()
    first = connection.sock
    for _ in range(3):
        connection.request("GET", url.path)
        assert connection.getresponse().read()
        assert connection.sock is first
    connection.close()


def test_a_client_that_does_not_trust_the_ca_does_not_disturb_it(
    ca: CertificateAuthority, client: Client
) -> None:
    with pytest.raises(requests.exceptions.SSLError), requests.Session() as session:
        session.trust_env = False
        session.get(ca.directory_url)
    assert client.nonce()


# Transport: RFC 8555, section 6


def test_the_directory_tells_what_there_is(
    make_ca: MakeCa, make_client: MakeClient
) -> None:
    directory = make_client(make_ca(profiles={"classic": "as ever"})).directory
    resources = "newNonce newAccount newOrder revokeCert keyChange renewalInfo".split()
    assert set(resources) < directory.keys()
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
    assert refusal(member.post(member.kid, alg="ES384")) == ("malformed", 400)


def test_the_key_is_named_by_kid_for_an_account_and_by_jwk_for_a_new_one(
    member: Client,
) -> None:
    new, public = member.directory["newAccount"], member.public
    for url, header in [
        (member.kid, {"jwk": public}),
        (member.kid, {"jwk": public, "kid": None}),
        (member.kid, {"kid": None}),
        (new, {}),
        (new, {"jwk": public}),
        (member.directory["newOrder"], {"jwk": public, "kid": None}),
    ]:
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


def test_a_body_of_any_size_is_not_read(member: Client) -> None:
    assert refusal(member.send(member.kid, b"x" * 100_000)) == ("malformed", 413)
    assert member.post(member.kid).status_code == 200


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
def test_nobody_gets_an_account_without_agreeing(client: Client, agreed: object) -> None:
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


def roll_over(client: Client, new: jwk.JWK, **claim: object) -> requests.Response:
    """Ask for another account key (7.3.5)."""
    url, old = client.directory["keyChange"], client.key
    public = dict(new.public_key().to_partial_json())
    payload = {"account": client.kid, "oldKey": client.public, **claim}
    client.key = new
    inner = client.jws(url, payload, kid=None, nonce=None, jwk=public)
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
    bad = ["blocked.test", "*.example.test", "localhost", "-a.test", "127.0.0.1", "a..b"]
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
            {"identifiers": [{"type": "dns", "value": f"a{n}.test"} for n in range(101)]},
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
    assert other.order().headers["Location"] != first
    client.issue()
    assert client.order().headers["Location"] != first


def test_an_order_is_not_finalized_before_its_time_nor_twice(member: Client) -> None:
    order = member.order().json()
    assert refusal(member.finalize(order)) == ("orderNotReady", 403)
    member.prove(order)
    assert member.finalize(order).status_code == 200
    assert refusal(member.finalize(order)) == ("orderNotReady", 403)


def csr_with(
    *names: x509.GeneralName, common_name: str = "", sha1: bool = False
) -> bytes:
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    builder = x509.CertificateSigningRequestBuilder(
        x509.Name(subject if common_name else [])
    ).add_extension(x509.SubjectAlternativeName(names), critical=False)
    digest = hashes.SHA512() if sha1 else hashes.SHA256()
    return builder.sign(OTHER_KEY, digest).public_bytes(ser.Encoding.DER)


def spoiled(csr: bytes) -> bytes:
    return csr[:-1] + bytes([csr[-1] ^ 1])


@pytest.mark.parametrize(
    "csr",
    [
        new_csr([]),
        new_csr(["imap.example.test"]),
        new_csr([NAME, "imap.example.test"]),
        csr_with(x509.DNSName(NAME), common_name="imap.example.test"),
        csr_with(x509.DNSName(NAME), x509.RFC822Name("a@example.test")),
        spoiled(new_csr([NAME])),
        new_csr([NAME], ec.generate_private_key(ec.SECP521R1())),
        new_csr([NAME], rsa.generate_private_key(65537, 1024)),  # noqa: S505
        b"not a CSR",
    ],
    ids=[
        *("no names", "other name", "one more", "other common name", "mail address"),
        *("bad signature", "P-521", "RSA 1024", "nonsense"),
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


def test_the_accounts_key_is_not_certified(make_client: MakeClient) -> None:
    pass
