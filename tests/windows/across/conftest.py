"""The program on Windows beside a sandbox MDaemon and Pebble, which are on Linux."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path
from socketserver import ThreadingUDPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from letsencrypt_mdaemon.pki.certificate import Certificate
from letsencrypt_mdaemon.sandbox import mdaemon
from letsencrypt_mdaemon.sandbox.folder import create, find, write
from tests.integration import acme_servers, pebble_package
from tests.integration.acme_servers import AcmeServer
from tests.limits import HANG_SECONDS
from tests.program import HOST_NAME, LOCALHOST, NoDns, Program, at, taken
from tests.windows.across.frozen import MACHINE, NAME, freeze

DRIVE = MACHINE / "prefix" / "drive_c"
PYTHON = str(MACHINE / "wpy")
HERE = Path(__file__).parent


class Server(mdaemon.Server):
    """The sandbox, whose certificates come from the Windows store, as MDaemon's do."""

    def load(self, *parts: str) -> None:
        """Look into the Windows store first."""
        shown = json.loads(windows(str(HERE / "windows_keys.py")))
        leaves, issuers = (
            [
                x509.load_der_x509_certificate(base64.b64decode(der))
                for der in shown[name]
            ]
            for name in ("MY", "CA")
        )
        keys = [private_key(base64.b64decode(blob)) for blob in shown["keys"]]
        for leaf in leaves:
            key = next((k for k in keys if k.public_key() == leaf.public_key()), None)
            if key:
                certificate = Certificate(chain_of(leaf, issuers), key)
                name = certificate.thumbprint
                if not find(self.layout.certificates, name):
                    write(certificate, self.layout.certificates / name)
        super().load(*parts)


class WindowsProgram(Program):
    """The program as Python for Windows runs it."""

    def command(self, name: str, *options: str) -> list[str]:
        """Return the command line of one run."""
        program = [PYTHON, "-P", "-m", "letsencrypt_mdaemon"]
        words = name.split()
        return [*program, *words, *taken(words, self.options), *options, "--json"]

    @property
    def raw_log(self) -> bytes:
        """The last run's log."""
        return (self.layout.logs / "LetsEncrypt.log").read_bytes()


def windows(*arguments: str) -> str:
    """Run Python for Windows to its end, and return what it prints."""
    done = subprocess.run(
        [PYTHON, "-P", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=HANG_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def chain_of(
    leaf: x509.Certificate, issuers: list[x509.Certificate]
) -> tuple[x509.Certificate, ...]:
    """Return a certificate with its issuers, as far as they are there."""
    chain = [leaf]
    while found := [
        one for one in issuers if one.subject == chain[-1].issuer and one not in chain
    ]:
        chain.append(found[0])
    for child, parent in pairwise(chain):
        child.verify_directly_issued_by(parent)
    return tuple(chain)


def private_key(blob: bytes) -> rsa.RSAPrivateKey:
    """Read Windows' PRIVATEKEYBLOB of an RSA key: numbers in little-endian.

    The primes are enough. What Wine writes as the exponent is not always it.
    """
    assert blob[8:12] == b"RSA2"
    size = int.from_bytes(blob[12:16], "little") // 8
    e = int.from_bytes(blob[16:20], "little")
    start, half = 20 + size, size // 2
    p = int.from_bytes(blob[start : start + half], "little")
    q = int.from_bytes(blob[start + half : start + size], "little")
    d = rsa.rsa_recover_private_exponent(e, p, q)
    return rsa.RSAPrivateNumbers(
        *(p, q, d, rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q)),
        iqmp=rsa.rsa_crt_iqmp(p, q),
        public_numbers=rsa.RSAPublicNumbers(e, p * q),
    ).private_key()


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where PyInstaller keeps what it found, which takes it long."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="session")
def folder(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder, without what stands in for files of Windows here."""
    dist = tmp_path_factory.mktemp("dist")
    made = freeze(work, dist, "--leave-out-stand-ins")
    assert made.exit_code == 0, made.messages
    return dist / NAME


@pytest.fixture(scope="session")
def pebble(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AcmeServer]:
    """Pebble, from Debian's archive if it is not installed."""
    cache = request.config.cache
    assert cache is not None
    programs = pebble_package.find(cache.mkdir("debian"))
    with (
        acme_servers.name_server(
            programs.dns,
            tmp_path_factory.mktemp("dns"),
            port=acme_servers.free_port(),
        ) as dns,
        acme_servers.pebble(
            programs.server,
            tmp_path_factory.mktemp("pebble"),
            dns=dns,
            environment={"PEBBLE_VA_NOSLEEP": "1"},
            eab_required=False,
        ) as server,
    ):
        yield server


@pytest.fixture
def program(pebble: AcmeServer) -> Iterator[WindowsProgram]:
    r"""The program, and a sandbox in C:\MDaemon, where it is looked for."""
    folder = DRIVE / "MDaemon"
    shutil.rmtree(folder, ignore_errors=True)
    with ExitStack() as running:
        running.callback(shutil.rmtree, folder)
        create(folder, host_name=HOST_NAME)
        server = running.enter_context(
            Server(folder, http_port=pebble.http_port, tls=True)
        )
        server.reloads["RELOADCACHE.SEM"] = ("mail", "webmail", "admin")
        dns = running.enter_context(ThreadingUDPServer((LOCALHOST, 0), NoDns))
        running.enter_context(
            mdaemon.thread(partial(dns.serve_forever, 0.05), dns.shutdown)
        )
        options = [
            *at(pebble.directory_url, pebble.ca_bundle),
            *("--smtp-address", f"{LOCALHOST}:{server.smtp_port}"),
            *("--endpoint", ",".join(server.endpoints.values())),
            *("--validation-dns", f"{LOCALHOST}:{dns.server_address[1]}"),
            *("--key-exportable", "--skip-port-check"),
        ]
        yield WindowsProgram(server, options)
