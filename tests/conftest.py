"""A sandbox MDaemon, a small CA that looks at it, and the program set up for both."""

from __future__ import annotations

import itertools
import os
import random
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from tests.program import Program, at, beside_sandbox
from tests.wine import DIFFERS, is_wine

# How long an example takes says nothing about what it shows.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So it is in the background of a shell; what tests start would ignore it as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)

if sys.platform == "win32" and is_wine():
    # The first process with a window starts Wine's desktop, which inherits its pipes:
    # whoever reads what that process says would wait for ever. So be the first.
    import ctypes

    ctypes.windll.user32.GetDesktopWindow()


def own_ports(worker: int) -> None:
    """Let free ports be of a range that no other worker takes any from.

    Else one that a server of a test has left may be the next server's in another
    worker, and somebody listens where nobody should any more.
    """
    first = 10_000 + worker % 5 * 4_000
    ports = itertools.cycle(range(first, first + 4_000))
    for _ in range(random.randrange(4_000)):  # noqa: S311 - others may do the same
        next(ports)
    bind = socket.socket.bind

    def bind_own(self: socket.socket, address: Any) -> None:  # noqa: ANN401
        if not isinstance(address, tuple) or address[1] != 0:
            bind(self, address)
            return
        for port in itertools.islice(ports, 4_000):
            with suppress(OSError):
                bind(self, (address[0], port, *address[2:]))
                return
        bind(self, address)

    socket.socket.bind = bind_own  # type: ignore[assignment,method-assign]


if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    own_ports(int(worker.removeprefix("gw")))


def pytest_configure(config: pytest.Config) -> None:
    """Make the marks of `tests.wine` known."""
    config.addinivalue_line("markers", f"{DIFFERS}(reason): Wine is not Windows here")
    config.addinivalue_line("markers", "windows_too: also run on Windows")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expect what Wine does otherwise to fail, and only that."""
    for item in items:
        mark = item.get_closest_marker(DIFFERS)
        if mark and is_wine():
            # A Wine that has learned it fails the test: then the mark has to go.
            item.add_marker(pytest.mark.xfail(reason=mark.args[0], strict=True))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count what Wine does otherwise than Windows."""
    if is_wine():
        count = len(terminalreporter.stats.get("xfailed", []))
        line = f"Known differences between Wine and Windows: {count}"
        terminalreporter.write_line(line)


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
