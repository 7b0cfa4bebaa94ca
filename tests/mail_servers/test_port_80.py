"""What docs/port-80.md tells other web servers to do lets the CA validate names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from tests import program
from tests.mail_servers.servers import web_server
from tests.program import Program

PAGE = Path(__file__).parents[2] / "docs" / "port-80.md"
WEBMAIL_PORT = 3000  # as on the page
WEBROOT = "C:/MDaemon/WorldClient/HTML"


def shown(language: str) -> list[str]:
    """Return the configurations of the page for a web server."""
    text = PAGE.read_text("utf-8")
    return re.findall(rf"(?s)```{language}\n(.*?)```", text)


EVERY = [
    *(("nginx", config) for config in shown("nginx")),
    *(("apache", config) for config in shown("apache")),
    # No highlighter knows the language of HAProxy.
    *(("haproxy", config) for config in shown("text") if "frontend" in config),
]


# As in conftest.py: Apache becomes another user.
RUNNING = [item for item in EVERY if item[0] != "apache" or os.geteuid() == 0]


@pytest.fixture
def sandbox(folder: Path) -> Iterator[tuple[Program, CertificateAuthority]]:
    """A sandbox with Webmail on its usual port, and a CA that asks port 80."""
    with (
        program.beside_sandbox(
            folder / "MDaemon", http_port=WEBMAIL_PORT, host_name="mail.example.com"
        ) as ours,
        CertificateAuthority(folder / "ca", http_port=80) as ca,
    ):
        ours.options += program.at(ca.directory_url, ca.ca_bundle)
        ours.options += ["--alternate-host-names", "imap.example.com"]
        yield ours, ca


def test_the_page_has_every_configuration() -> None:
    assert [kind for kind, _ in EVERY] == ["nginx"] * 2 + ["apache"] * 2 + ["haproxy"]


@pytest.mark.parametrize(("kind", "config"), RUNNING, ids=[kind for kind, _ in RUNNING])
def test_the_ca_validates_every_name_through_another_web_server(
    sandbox: tuple[Program, CertificateAuthority], folder: Path, kind: str, config: str
) -> None:
    ours, ca = sandbox
    passes = WEBROOT not in config
    own = folder / "web"
    own.mkdir()

    with web_server(kind, own, config.replace(WEBROOT, str(ours.layout.webroot))):
        ran = ours.renew()

    # Nothing listens with TLS, so nothing can be proven.
    assert ran.exit_code == 0, ran.messages
    assert ran.report["renewed"]
    (order,) = ca.orders.values()
    assert order["status"] == "valid"
    assert len(order["authorizations"]) == 2
    assert any(ours.server.requests) == passes
    assert not ours.tokens()


def test_without_it_no_name_is_validated(
    sandbox: tuple[Program, CertificateAuthority], folder: Path
) -> None:
    ours, _ = sandbox
    config = shown("nginx")[0].replace("location ^~ /.well-known/", "location /other/")
    own = folder / "web"
    own.mkdir()

    with web_server("nginx", own, config):
        ran = ours.renew()

    assert ran.exit_code == 4, ran.messages
