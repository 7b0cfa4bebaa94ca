"""What the clients need around them: programs, a CA, a web server, a long way."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

from benchmarks.clients import Scene
from tests import debian_archive
from tests.integration import acme_servers, private_network
from tests.integration.acme_servers import HOST, AcmeServer, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEBIAN = ("pebble", "uacme", "lego", "dehydrated", "nginx-light", "curl", "openssl")
PYPI = ("certbot", "acme-tiny")
START_SECONDS = 20

# Debian's Pebble without its pauses before a validation, and without its jokes.
PEBBLE = {
    "PEBBLE_VA_NOSLEEP": "1",
    "PEBBLE_WFE_NONCEREJECT": "0",
    "PEBBLE_AUTHZREUSE": "0",
}
NGINX = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{ listen {host}:{port}; root {webroot}; }}
}}
"""


def fetch(cache: Path) -> tuple[Path, Path]:
    """Have the programs; nothing is installed in the system.

    Returns:
        The tree of Debian's packages, and the folder of the programs from PyPI.
    """
    tree, venv = cache / "debian", cache / "venv"
    if not (tree / "usr/bin/uacme").exists():
        debian_archive.unpack(*DEBIAN, into=tree)
    if not (venv / "bin/acme-tiny").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        pip = [str(venv / "bin/python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *PYPI], check=True)
    return tree, venv / "bin"


@contextmanager
def scene(cache: Path, folder: Path) -> Iterator[tuple[Scene, AcmeServer]]:
    """Start a CA and a web server, in a private network, with the programs in /usr."""
    tree, peers = fetch(cache)
    private_network.enter(folder, keep_users=os.geteuid() == 0)
    private_network.lay_over(tree / "usr", Path("/usr"))
    webroot = folder / "webroot"
    (webroot / ".well-known/acme-challenge").mkdir(parents=True)
    (folder / "clients").mkdir()
    with ExitStack() as running:
        dns = running.enter_context(
            acme_servers.name_server(
                Path("/usr/bin/pebble-challtestsrv"), folder, port=free_port()
            )
        )
        pebble = acme_servers.pebble(
            Path("/usr/bin/pebble"),
            folder,
            dns=dns,
            environment=PEBBLE,
            eab_required=False,
        )
        ca = running.enter_context(pebble)
        # What uacme trusts cannot be set: it is the system's file.
        trusted = folder / "etc/ssl/certs/ca-certificates.crt"
        trusted.parent.mkdir(parents=True)
        trusted.write_bytes(ca.ca_bundle.read_bytes())
        private_network.lay_over(folder / "etc", Path("/etc"))
        port = ca.http_port
        text = NGINX.format(folder=folder, host=HOST, port=port, webroot=webroot)
        (folder / "nginx.conf").write_text(text, "ascii")
        nginx = ["/usr/sbin/nginx", "-e", f"{folder}/nginx.log"]
        running.enter_context(_listening([*nginx, "-c", f"{folder}/nginx.conf"], port))
        yield (
            Scene(ca.directory_url, ca.ca_bundle, webroot, folder / "clients", peers),
            ca,
        )


@contextmanager
def far_away(directory_url: str, seconds: float) -> Iterator[str]:
    """Yield the URL of a directory that is a round trip of some seconds away."""
    if not seconds:
        yield directory_url
        return
    target, port = urlsplit(directory_url).port, free_port()
    relay = [sys.executable, str(Path(__file__).with_name("relay.py"))]
    with _listening([*relay, str(port), str(target), str(seconds)], port):
        yield directory_url.replace(f":{target}/", f":{port}/")


@contextmanager
def _listening(command: Sequence[str], port: int) -> Iterator[None]:
    """Run a program until the block ends, entered once it listens."""
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *command], stdin=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                _fail(f"{command[0]} did not start.")
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection((HOST, port), timeout=5).close()
        return True
    return False


def _fail(message: str) -> NoReturn:
    raise acme_servers.ServerError(message)
