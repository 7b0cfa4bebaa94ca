"""The sandbox's CA, a webroot that is served, and issuers that never really sleep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from letsencrypt_mdaemon.acme.account import Accounts
from letsencrypt_mdaemon.acme.issuer import Issuer
from letsencrypt_mdaemon.acme.transport import Session
from letsencrypt_mdaemon.errors import AcmeError
from letsencrypt_mdaemon.mdaemon.webroot import Webroot
from letsencrypt_mdaemon.pki.certificate import Certificate
from letsencrypt_mdaemon.sandbox.ca.messages import Answer, Document, Request
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.state.folder import CaState, State

Fault = Callable[[Answer], object]
NAME = "mail.example.test"
OTHER = "imap.example.test"
STRANGER = ec.generate_private_key(ec.SECP256R1())
"""A key that no CA here certifies."""


class Clock:
    """A clock that only sleeping moves, and that remembers each sleep."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self._lock = Lock()

    def __call__(self) -> float:
        """Return the seconds since the beginning."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Be later."""
        with self._lock:
            self.now += seconds
            self.slept.append(seconds)


@dataclass(slots=True)
class Scene:
    """A CA, and what a client of it has on this machine."""

    ca: CertificateAuthority
    folder: Path
    clock: Clock = field(default_factory=Clock)

    @property
    def webroot(self) -> Path:
        """The folder that the web server of every name publishes."""
        return self.folder / "webroot"

    @property
    def state(self) -> CaState:
        """What is remembered at this CA."""
        return state_at(self.folder, self.ca)

    @property
    def order(self) -> Document:
        """The CA's only order."""
        (order,) = self.ca.orders.values()
        return order

    def issuer(self, ca: CertificateAuthority | None = None, **options: Any) -> Issuer:  # noqa: ANN401
        """Return an issuer as a new run has it, that forgets all but the state."""
        ca = ca or self.ca
        sleep = options.get("sleep", self.clock.sleep)
        session = Session(ca.directory_url, ca_bundle=ca.ca_bundle, sleep=sleep)
        solver = Webroot(self.webroot, self.folder / "state" / "tokens.json")
        ours = {"contact", "agree_tos", "external"}
        about_us = {name: options.pop(name) for name in ours & options.keys()}
        accounts = Accounts(
            session, state_at(self.folder, ca), **{"agree_tos": True, **about_us}
        )
        options = {"sleep": self.clock.sleep, "clock": self.clock, **options}
        options = {"key_type": "p256", **options}
        return Issuer(accounts, solver.present, **options)

    def obtain(
        self,
        *names: str,
        replaces: x509.Certificate | None = None,
        **options: Any,  # noqa: ANN401
    ) -> Certificate:
        """Obtain a certificate in a new run, and keep it as a run does."""
        certificate = self.issuer(**options).obtain(names or (NAME,), replaces)
        self.state.keep(certificate)
        return certificate

    def failing(self, *names: str, **options: Any) -> AcmeError:  # noqa: ANN401
        """Return the error of a new run, which has to leave the webroot empty."""
        with pytest.raises(AcmeError) as caught:
            self.obtain(*names, **options)
        assert self.tokens() == []
        return caught.value

    def requests(self, resource: str) -> list[Request]:
        """Return what the CA was asked of one kind of resource."""
        return [known for known in self.ca.requests if known.resource == resource]

    def count(self, *resources: str) -> tuple[int, ...]:
        """Return how often the CA was asked for each."""
        return tuple(len(self.requests(resource)) for resource in resources)

    def tokens(self) -> list[Path]:
        """Return all that is in the webroot."""
        return list(self.webroot.rglob("*"))


def showing(**members: object) -> Fault:
    """Return a fault: these members in the document shown."""
    return lambda answer: answer.document.update(members)


def without(*names: str) -> Fault:
    """Return a fault: no such members in the document shown."""

    def fault(answer: Answer) -> None:
        for name in names:
            answer.document.pop(name, None)

    return fault


def state_at(folder: Path, ca: CertificateAuthority) -> CaState:
    """Return what is remembered at a CA."""
    return State(folder / "state").ca(ca.directory_url, staging=False)


def certificate_of(serial: int, authority: bytes | None) -> x509.Certificate:
    """Return a certificate with a serial number and an authority key identifier."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "anybody")])
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=STRANGER.public_key(),
        serial_number=serial,
        not_valid_before=datetime(2026, 1, 1, tzinfo=UTC),
        not_valid_after=datetime(2027, 1, 1, tzinfo=UTC),
    )
    if authority is not None:
        extension = x509.AuthorityKeyIdentifier(authority, None, None)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(STRANGER, hashes.SHA256())


class _Served(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    """Publish a folder on a free port, for every host name; yield the port."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = partial(_Served, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.005,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def scene_in(folder: Path, **options: Any) -> Iterator[Scene]:  # noqa: ANN401
    """Start a CA whose answers wait for its validator, and a web server."""
    with (
        pytest.MonkeyPatch.context() as patch,
        serving(folder / "webroot") as port,
        CertificateAuthority(folder / "ca", http_port=port, **options) as ca,
    ):
        patch.setenv("NO_PROXY", "*")
        ca.faults.validation_in_answer = True
        yield Scene(ca, folder)
