"""Starts real ACME servers on loopback, and ends them."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.limits import HANG_SECONDS

HOST = "127.0.0.1"
STOP_SECONDS = 10

# An external account (RFC 8555, 7.3.4) that is known: key id and base64url MAC key.
EAB_KEY_ID = "key-1"
EAB_MAC_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v"

PROFILES = {"classic": "The usual one", "tlsserver": "Without a common name"}
"""What acme2certifier advertises."""


class ServerError(Exception):
    """A server did not come up; the message ends with what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcmeServer:
    """A running ACME server; every name it asks about resolves to 127.0.0.1.

    Args:
        directory_url: Where its directory is.
        ca_bundle: PEM file with the root to trust for its HTTPS.
        http_port: Where on 127.0.0.1 it asks http-01 challenges.
        root: PEM file with the root of the certificates it issues.
        log: What it says while it runs.
        other_roots: PEM files with the roots of the other chains it offers.
    """

    directory_url: str
    ca_bundle: Path
    http_port: int
    root: Path
    log: Path
    other_roots: tuple[Path, ...] = ()


@contextmanager
def name_server(program: Path, folder: Path, *, port: int) -> Iterator[str]:
    """Run a DNS server that says 127.0.0.1 for every name; yield its host:port."""
    address = f"{HOST}:{port}"
    command = [
        str(program),
        *("-dns01", address),
        *("-management", f"{HOST}:{free_port()}"),
        *("-defaultIPv4", HOST),
        *("-defaultIPv6", ""),
        *("-http01", ""),
        *("-https01", ""),
        *("-tlsalpn01", ""),
    ]
    with _running(command, folder / "dns.log", ready=lambda: _answers_dns(port)):
        yield address


@contextmanager
def pebble(
    program: Path,
    folder: Path,
    *,
    dns: str,
    environment: Mapping[str, str],
    eab_required: bool,
) -> Iterator[AcmeServer]:
    """Run Pebble, Let's Encrypt's small test CA.

    Args:
        program: The program pebble.
        folder: An empty folder for its files.
        dns: host:port of the DNS server it asks.
        environment: Its switches: PEBBLE_WFE_NONCEREJECT and the like.
        eab_required: Whether new accounts need an external account.
    """
    ca_bundle, certificate, key = _write_tls_files(folder)
    alternates = int(environment.get("PEBBLE_ALTERNATE_ROOTS", "0"))
    others = [folder / f"issuer-{number}.pem" for number in range(1, alternates + 1)]
    port, management_port, http_port = free_port(), free_port(), free_port()
    config = folder / "pebble.json"
    config.write_text(
        json.dumps(
            {
                "pebble": {
                    "listenAddress": f"{HOST}:{port}",
                    "managementListenAddress": f"{HOST}:{management_port}",
                    "certificate": str(certificate),
                    "privateKey": str(key),
                    "httpPort": http_port,
                    "tlsPort": free_port(),
                    "ocspResponderURL": "",
                    "externalAccountBindingRequired": eab_required,
                    "externalAccountMACKeys": {EAB_KEY_ID: EAB_MAC_KEY},
                    "domainBlocklist": ["blocked.test"],
                }
            }
        ),
        encoding="utf-8",
    )
    server = AcmeServer(
        directory_url=f"https://{HOST}:{port}/dir",
        ca_bundle=ca_bundle,
        http_port=http_port,
        root=folder / "issuer.pem",
        log=folder / "pebble.log",
        other_roots=tuple(others),
    )
    command = [str(program), "-config", str(config), "-dnsserver", dns]
    # Pebble makes new roots at each start and shows them on its second port.
    roots = f"https://{HOST}:{management_port}/roots"
    root_url = f"{roots}/0"
    with _running(
        command,
        server.log,
        environment=environment,
        ready=lambda: (
            _serves(root_url, ca_bundle) and _serves(server.directory_url, ca_bundle)
        ),
    ):
        for number, file in enumerate([server.root, *others]):
            file.write_bytes(_get(f"{roots}/{number}", ca_bundle))
        yield server


@contextmanager
def caddy(folder: Path) -> Iterator[AcmeServer]:
    """Run Caddy, which holds Smallstep's ACME server.

    It asks challenges on port 80 and resolves names as the system does, so it needs
    the private network.
    """
    port = free_port()
    root = folder / "data/pki/authorities/local/root.crt"
    server = AcmeServer(
        # Not by address: Caddy chooses its certificate by the name asked for.
        directory_url=f"https://localhost:{port}/acme/local/directory",
        ca_bundle=root,
        http_port=80,
        root=root,
        log=folder / "caddy.log",
    )
    caddyfile = folder / "Caddyfile"
    caddyfile.write_text(
        f"""{{
            admin off
            storage file_system {folder}/data
            skip_install_trust
            auto_https disable_redirects
            http_port {free_port()}
            https_port {port}
        }}
        https://localhost:{port} {{
            bind {HOST}
            tls internal
            acme_server
        }}
        """,
        encoding="utf-8",
    )
    command = [_program("caddy"), "run", "--adapter", "caddyfile", "--config"]
    with _running(
        [*command, str(caddyfile)],
        server.log,
        environment={"HOME": str(folder)},
        ready=lambda: _serves(server.directory_url, root),
    ):
        yield server


@contextmanager
def acme2certifier(folder: Path, *, eab_required: bool = False) -> Iterator[AcmeServer]:
    """Run acme2certifier, which knows renewal information (RFC 9773) and profiles.

    It wants accounts to have a contact. It asks challenges on port 80, so it needs the
    private network. Its profiles make no difference to what it issues.

    Args:
        folder: An empty folder for its files.
        eab_required: Whether new accounts need an external account.
    """
    root, certificate, key = _write_tls_files(folder)
    port = free_port()
    server = AcmeServer(
        directory_url=f"https://{HOST}:{port}/directory",
        ca_bundle=root,
        http_port=80,
        root=root,
        log=folder / "acme2certifier.log",
    )
    (folder / "issued").mkdir()
    config = folder / "acme_srv.cfg"
    config.write_text(
        f"""
[CAhandler]
handler_module: acme2certifier.cahandlers.openssl_ca_handler
issuing_ca_cert: {root}
issuing_ca_key: {_key_of(root)}
issuing_ca_crl: {folder}/crl.pem
cert_save_path: {folder}/issued
cert_validity_days: 90
[DBhandler]
handler_module: acme2certifier.dbhandlers.wsgi_handler
dbfile: {folder}/acme_srv.db
[Challenge]
dns_server_list: ["{HOST}"]
[Order]
identifier_limit: 100
profiles: {json.dumps(PROFILES)}
""",
        encoding="utf-8",
    )
    if eab_required:
        keys = folder / "eab.json"
        keys.write_text(json.dumps({EAB_KEY_ID: EAB_MAC_KEY}), encoding="utf-8")
        with config.open("a", encoding="utf-8") as file:
            file.write(
                "[EABhandler]\n"
                "eab_handler_module: acme2certifier.eabhandlers.json_handler\n"
                f"key_file: {keys}\n"
            )
    command = [
        *(sys.executable, "-m", "gunicorn", "--bind", f"{HOST}:{port}"),
        *("--certfile", str(certificate), "--keyfile", str(key)),
        "acme2certifier.share.acme2certifier_wsgi:application",
    ]
    with _running(
        command,
        server.log,
        environment={
            "ACME_SRV_CONFIGFILE": str(config),
            "ACME2CERTIFIER_BASE_DIR": str(folder),
            "HOME": str(folder),
        },
        ready=lambda: _serves(server.directory_url, root),
    ):
        yield server


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on."""
    with closing(socket.create_server((HOST, 0))) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def _running(
    command: list[str],
    log: Path,
    *,
    ready: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """Run a program until the block ends, entered once it is ready.

    The kernel ends it should this process be killed.

    Raises:
        ServerError: It ended, or was not ready in time.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env={**os.environ, **(environment or {})},
        )
    try:
        deadline = time.monotonic() + HANG_SECONDS
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(encoding="utf-8", errors="replace")[-2000:]
                message = f"{command[0]} did not start. It said:\n{said}"
                raise ServerError(message)
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _program(name: str) -> str:
    """Return the path of a program that is installed beside this Python, or on PATH."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    found = shutil.which(name, path=path)
    if found is None:
        message = f"The program {name} is missing; pip install --group ca brings it."
        raise ServerError(message)
    return found


def _get(url: str, ca_bundle: Path) -> bytes:
    context = ssl.create_default_context(cafile=ca_bundle)
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    with opener.open(url, timeout=HANG_SECONDS) as response:
        body: bytes = response.read()
        return body


def _serves(url: str, ca_bundle: Path) -> bool:
    try:
        return bool(_get(url, ca_bundle))
    except OSError:  # not listening, no answer yet, or no root written yet
        return False


def _answers_dns(port: int) -> bool:
    # RFC 1035, 4.1: a header that counts one question; ready.test, A, IN.
    query = struct.pack(">6H", 1, 0x0100, 1, 0, 0, 0)
    query += b"\x05ready\x04test\x00" + struct.pack(">2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        client.connect((HOST, port))
        try:
            client.send(query)
            return bool(client.recv(512))
        except OSError:
            return False


def _key_of(certificate: Path) -> Path:
    return certificate.with_suffix(".key")


def _write_tls_files(folder: Path) -> tuple[Path, Path, Path]:
    """Write a root, and a certificate and key for localhost; return their paths."""
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test root")])
    root = (
        _certificate(root_name, root_name, root_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(root_key.public_key()),
            critical=False,
        )
        .sign(root_key, hashes.SHA256())
    )
    leaf = (
        _certificate(x509.Name([]), root_name, key.public_key())
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.DNSName("localhost"),
                    x509.IPAddress(ipaddress.ip_address(HOST)),
                ]
            ),
            critical=True,
        )
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()),
            critical=False,
        )
        .sign(root_key, hashes.SHA256())
    )
    root_path, leaf_path = folder / "root.pem", folder / "server.pem"
    for path, value, its_key in (
        (root_path, root, root_key),
        (leaf_path, leaf, key),
    ):
        path.write_bytes(value.public_bytes(serialization.Encoding.PEM))
        _key_of(path).write_bytes(
            its_key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    return root_path, leaf_path, _key_of(leaf_path)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=365))
    )
