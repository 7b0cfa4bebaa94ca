"""The yardstick: an order with as few requests as can be, and nothing else around it.

It checks nothing, keeps nothing, and has no second try. Run as a script with the
directory's URL, its CA bundle, the webroot, a folder of its own, and the names.
"""

from __future__ import annotations

import json
import ssl
import sys
import time
from base64 import urlsafe_b64encode
from hashlib import sha256
from http.client import HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

POLL_SECONDS = 0.01


class Conversation:
    """Signed requests over one connection, each with the nonce of the last answer."""

    def __init__(
        self, url: str, ca_bundle: str, key: ec.EllipticCurvePrivateKey
    ) -> None:
        self.key = key
        self.kid = ""
        context = ssl.create_default_context(cafile=ca_bundle)
        self.connection = HTTPSConnection(urlsplit(url).netloc, context=context)
        self.directory = json.loads(self.ask("GET", url)[1])
        response, _ = self.ask("HEAD", self.directory["newNonce"])
        self.nonce = response.headers["Replay-Nonce"]

    @property
    def jwk(self) -> dict[str, str]:
        """The public key (RFC 7517), its members sorted as RFC 7638 wants them."""
        numbers = self.key.public_key().public_numbers()
        x, y = (b64(n.to_bytes(32, "big")) for n in (numbers.x, numbers.y))
        return {"crv": "P-256", "kty": "EC", "x": x, "y": y}

    def ask(self, method: str, url: str, body: str = "") -> tuple[HTTPResponse, bytes]:
        """Send a request and read the answer."""
        headers = {"Content-Type": "application/jose+json"}
        self.connection.request(method, urlsplit(url).path, body, headers)
        response = self.connection.getresponse()
        return response, response.read()

    def post(self, url: str, payload: object = None) -> tuple[HTTPResponse, bytes]:
        """Send a signed request (RFC 8555, 6.2)."""
        who: dict[str, Any] = {"kid": self.kid} if self.kid else {"jwk": self.jwk}
        protected = compact({"alg": "ES256", "nonce": self.nonce, "url": url, **who})
        text = "" if payload is None else compact(payload)
        der = self.key.sign(f"{protected}.{text}".encode(), ec.ECDSA(hashes.SHA256()))
        r, s = (n.to_bytes(32, "big") for n in decode_dss_signature(der))
        request = {"protected": protected, "payload": text, "signature": b64(r + s)}
        response, body = self.ask("POST", url, json.dumps(request))
        self.nonce = response.headers["Replay-Nonce"]
        if response.status >= 400:  # noqa: PLR2004 - RFC 9110, 15.5
            sys.exit(body.decode())
        return response, body


def main() -> None:
    """Obtain a certificate; register first if there is no account yet."""
    url, ca_bundle, webroot, own, *names = sys.argv[1:]
    folder, tokens = Path(own), Path(webroot, ".well-known/acme-challenge")
    account = folder / "account.json"
    if account.exists():
        kid, pem = json.loads(account.read_text("ascii"))
        key = load_pem_private_key(pem.encode(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101 - ours
        ca = Conversation(url, ca_bundle, key)
        ca.kid = kid
    else:
        ca = Conversation(url, ca_bundle, ec.generate_private_key(ec.SECP256R1()))
        agree = {"termsOfServiceAgreed": True}
        response, _ = ca.post(ca.directory["newAccount"], agree)
        ca.kid = response.headers["Location"]
        account.write_text(json.dumps([ca.kid, pem_of(ca.key)]), "ascii")

    wanted = [{"type": "dns", "value": name} for name in names]
    response, body = ca.post(ca.directory["newOrder"], {"identifiers": wanted})
    order_url, order = response.headers["Location"], json.loads(body)
    jwk = json.dumps(ca.jwk, separators=(",", ":")).encode()
    thumbprint = b64(sha256(jwk).digest())
    for authorization_url in order["authorizations"]:
        authorization = json.loads(ca.post(authorization_url)[1])
        (challenge,) = (
            item for item in authorization["challenges"] if item["type"] == "http-01"
        )
        token = challenge["token"]
        (tokens / token).write_text(f"{token}.{thumbprint}", "ascii")
        ca.post(challenge["url"], {})
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(subject, critical=False)
        .sign(key, hashes.SHA256())
    )
    order["status"] = "pending"
    while order["status"] == "pending":
        time.sleep(POLL_SECONDS)
        order = json.loads(ca.post(order_url)[1])
    request = {"csr": b64(csr.public_bytes(Encoding.DER))}
    order = json.loads(ca.post(order["finalize"], request)[1])
    while order["status"] == "processing":
        time.sleep(POLL_SECONDS)
        order = json.loads(ca.post(order_url)[1])
    chain = ca.post(order["certificate"])[1]
    (folder / "fullchain.pem").write_bytes(chain)
    (folder / "privkey.pem").write_text(pem_of(key), "ascii")


def pem_of(key: ec.EllipticCurvePrivateKey) -> str:
    """Return a private key in PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def compact(value: object) -> str:
    """Return JSON in base64url."""
    return b64(json.dumps(value).encode())


def b64(data: bytes) -> str:
    """Return base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


if __name__ == "__main__":
    main()
