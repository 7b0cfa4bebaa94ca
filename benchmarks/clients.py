"""The clients: how each is set up, and told to obtain one certificate by webroot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from letsencrypt_mdaemon.sandbox.folder import create

HERE = Path(__file__).parent
INSTALLED = Path(sys.executable).with_name("letsencrypt-mdaemon")


@dataclass(frozen=True, slots=True)
class Scene:
    """What the clients meet.

    Args:
        directory_url: The CA's.
        ca_bundle: PEM file with the root to trust for its HTTPS.
        webroot: What is served to the CA; the same for all clients.
        folder: Where each client may keep a folder.
        peers: Folder of the programs from PyPI.
    """

    directory_url: str
    ca_bundle: Path
    webroot: Path
    folder: Path
    peers: Path

    @property
    def tokens(self) -> Path:
        """Where the CA looks for tokens."""
        return self.webroot / ".well-known/acme-challenge"

    def own(self, name: str) -> Path:
        """Return the folder of a client, made if it is not there yet."""
        path = self.folder / name
        path.mkdir(exist_ok=True)
        return path


Client: TypeAlias = Callable[[Scene, list[str]], list[str]]
"""Prepares a run for some names, untimed, and returns its command.

The first run at a CA is for one name and not measured: it makes the account.
"""


def ours(scene: Scene, names: list[str]) -> list[str]:
    """Renew ours, on a small MDaemon, as it was after its first certificate."""
    own = scene.own("ours")
    first, folder = own / "first", own / "MDaemon"
    if not folder.exists():
        create(folder)
    elif not first.exists():
        shutil.copytree(folder, first)
    else:
        shutil.rmtree(folder)
        shutil.copytree(first, folder)
    module = [sys.executable, "-m", "letsencrypt_mdaemon"]
    return [
        *([str(INSTALLED)] if INSTALLED.exists() else module),
        *("renew", "--mdaemon-dir", str(folder), "--webroot", str(scene.webroot)),
        *("--store", f"pem:{folder / 'certificates'}"),
        *("--directory-url", scene.directory_url),
        *("--ca-bundle", str(scene.ca_bundle), "--agree-tos", "--key-type", "p256"),
        *("--smtp-address", "none", "--endpoint", "https://127.0.0.1:1"),
        *("--no-reload", "--skip-port-check"),
        *("--host-name", names[0]),
        *(["--alternate-host-names", ",".join(names[1:])] if names[1:] else []),
    ]


def bare(scene: Scene, names: list[str]) -> list[str]:
    """Run the yardstick."""
    return [
        *(sys.executable, str(HERE / "bare.py")),
        *(scene.directory_url, str(scene.ca_bundle), str(scene.webroot)),
        *(str(scene.own("bare")), *names),
    ]


def certbot(scene: Scene, names: list[str]) -> list[str]:
    """Certbot, from PyPI."""
    own = scene.own("certbot")
    return [
        *(str(scene.peers / "certbot"), "certonly", "--non-interactive", "--quiet"),
        *("--agree-tos", "--email", "postmaster@example.test", "--no-eff-email"),
        *("--server", scene.directory_url, "--webroot", "-w", str(scene.webroot)),
        *("--config-dir", str(own), "--work-dir", str(own), "--logs-dir", str(own)),
        *("--key-type", "ecdsa", "--elliptic-curve", "secp256r1"),
        *("--domains", ",".join(names)),
    ]


def acme_tiny(scene: Scene, names: list[str]) -> list[str]:
    """acme-tiny, from PyPI; its key and its CSR are made beforehand."""
    own = scene.own("acme-tiny")
    account, csr = own / "account.key", own / "csr.pem"
    if not account.exists():
        _openssl("genrsa", "-out", str(account), "2048")
    _openssl(
        *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-nodes", "-keyout", str(own / "key.pem"), "-out", str(csr), "-subj", "/"),
        *("-addext", f"subjectAltName={','.join(f'DNS:{name}' for name in names)}"),
    )
    return [
        *(str(scene.peers / "acme-tiny"), "--quiet", "--disable-check"),
        *("--account-key", str(account), "--csr", str(csr)),
        *("--acme-dir", str(scene.tokens), "--directory-url", scene.directory_url),
    ]


def uacme(scene: Scene, names: list[str]) -> list[str]:
    """Uacme, from Debian."""
    own = scene.own("uacme")
    issue = [
        *("uacme", "--confdir", str(own), "--acme-url", scene.directory_url),
        *("--hook", "/usr/share/uacme/uacme.sh", "--type", "EC", "--yes"),
    ]
    if not (own / "private/key.pem").exists():
        subprocess.run([*issue, "new"], check=True, capture_output=True)
    return [*issue, "issue", *names]


def lego(scene: Scene, names: list[str]) -> list[str]:
    """Lego, from Debian."""
    return [
        *("lego", "--path", str(scene.own("lego")), "--server", scene.directory_url),
        *("--email", "postmaster@example.test", "--accept-tos", "--key-type", "ec256"),
        *("--http", "--http.webroot", str(scene.webroot)),
        *(f"--domains={name}" for name in names),
        "run",
    ]


def dehydrated(scene: Scene, names: list[str]) -> list[str]:
    """Run dehydrated, from Debian."""
    own = scene.own("dehydrated")
    config = own / "config"
    config.write_text(
        f"""\
BASEDIR={own}
CA={scene.directory_url}
CURL_OPTS="--cacert {scene.ca_bundle}"
WELLKNOWN={scene.tokens}
KEY_ALGO=prime256v1
""",
        "ascii",
    )
    command = ["dehydrated", "--config", str(config)]
    if not (own / "accounts").exists():
        register = [*command, "--register", "--accept-terms"]
        subprocess.run(register, check=True, capture_output=True)
    return [*command, "--cron", "--domain", " ".join(names)]


CLIENTS: dict[str, Client] = {
    "letsencrypt-mdaemon": ours,
    "certbot": certbot,
    "acme-tiny": acme_tiny,
    "uacme": uacme,
    "lego": lego,
    "dehydrated": dehydrated,
    "bare script": bare,
}


def environment(scene: Scene) -> dict[str, str]:
    """Return what all clients find in their environment."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(scene.folder),
        "NO_PROXY": "*",
        "no_proxy": "*",
        # Who trusts by which: OpenSSL and Go, requests, uacme's script. Curl's library
        # knows the system's file only.
        "SSL_CERT_FILE": str(scene.ca_bundle),
        "REQUESTS_CA_BUNDLE": str(scene.ca_bundle),
        "LEGO_CA_CERTIFICATES": str(scene.ca_bundle),
        "UACME_CHALLENGE_PATH": str(scene.tokens),
    }


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
