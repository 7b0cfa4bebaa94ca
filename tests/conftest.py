"""A sandbox MDaemon, a small CA that looks at it, and the program set up for both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from letsencrypt_mdaemon.sandbox.ca import CertificateAuthority
from tests.program import Program, at, beside_sandbox

# How long an example takes says nothing about what it shows.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put last what hooks into Python, for the sake of threads (`fakes._listen`)."""
    hooks = {"fakes", "full_disk", "read_only", "unreadable", "watched"}
    items.sort(key=lambda item: bool(hooks & set(vars(getattr(item, "module", item)))))


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Program]:
    """The program beside a sandbox, without a CA."""
    with beside_sandbox(tmp_path / "MDaemon") as program:
        yield program


@pytest.fixture
def ca(beside: Program, tmp_path: Path) -> Iterator[CertificateAuthority]:
    """A CA that finds every name on the sandbox's web server."""
    with CertificateAuthority(
        tmp_path / "ca", http_port=beside.server.http_port
    ) as running:
        yield running


@pytest.fixture
def program(beside: Program, ca: CertificateAuthority) -> Program:
    """The program beside a sandbox, with that CA; RSA keys would only cost time."""
    beside.options += [*at(ca.directory_url, ca.ca_bundle), "--key-type", "p256"]
    return beside


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Program]:
    """The program beside a sandbox whose ports all speak TLS, and a CA of its own.

    All of them use another certificate as soon as the first semaphore is taken up.
    """
    with (
        beside_sandbox(tmp_path / "MDaemon", tls=True) as program,
        CertificateAuthority(tmp_path / "ca", http_port=program.server.http_port) as ca,
    ):
        program.options += [*at(ca.directory_url, ca.ca_bundle), "--key-type", "p256"]
        program.options += ["--verify-timeout", "1"]
        program.server.reloads["RELOADCACHE.SEM"] = ("mail", "webmail", "admin")
        yield program
