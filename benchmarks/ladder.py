"""Measure how long a renewal takes after it has changed the server's files.

The rows differ in which rung of the reload ladder makes which port use the new
certificate. A client connects to a mail port and to webmail every 50 ms, and notes how
long nobody answers. The last row is the CPU time of `status` with many certificates.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from letsencrypt_mdaemon.sandbox import folder as sandbox
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from tests import certificates
from tests.program import at, beside_sandbox, environment

if TYPE_CHECKING:
    from tests.program import Program

EVERY = ("mail", "webmail", "admin")
CLIENT_SECONDS = 0.05
STORED = 2000


class Row(NamedTuple):
    """Who reloads on which rung, and the time that is wanted.

    Args:
        down: Seconds that a restart of the sandbox takes.
    """

    title: str
    reloads: dict[str, tuple[str, ...]]
    before: str
    wanted: float
    options: tuple[str, ...] = ()
    down: float = 0.0


CACHE, WEBMAIL, RESTART = "RELOADCACHE.SEM", "RESTARTWC.SEM", "RESTART.SEM"
_BOTH = {CACHE: ("mail",), WEBMAIL: ("webmail", "admin")}
_APART = {CACHE: ("mail",), WEBMAIL: ("webmail",), RESTART: EVERY}
_ALLOWED = ("--allow-restart",)
_BY_RESTART = "Remote Administration only by RESTART, with `allow-restart`"
_SLOWLY = "the same, where each restart takes 5 s"
_BY_BOTH = "mail on the first, webmail and Remote Administration on the second"
ROWS = (
    Row("all on the first", {CACHE: EVERY}, "0.14", 0.5),
    Row(_BY_BOTH, _BOTH, "60.6", 3),
    Row("all on the second", {WEBMAIL: EVERY}, "60.5", 8),
    Row(_BY_RESTART, _APART, "121", 20, _ALLOWED),
    Row(_SLOWLY, _APART, "-", 30, _ALLOWED, down=5),
    Row("nothing ever", {}, "120.5", 75),
)


class Client(threading.Thread):
    """Connects to some ports again and again, until it is ended.

    Attributes:
        down: Port -> seconds that nobody answered, at the longest.
    """

    def __init__(self, ports: list[int]) -> None:
        super().__init__(daemon=True)
        self.down = dict.fromkeys(ports, 0.0)
        self._ended = threading.Event()

    def run(self) -> None:
        """Connect."""
        answered = dict.fromkeys(self.down, time.monotonic())
        while not self._ended.wait(CLIENT_SECONDS):
            for port in self.down:
                try:
                    socket.create_connection(("127.0.0.1", port), 5).close()
                except OSError:
                    since = time.monotonic() - answered[port]
                    self.down[port] = max(self.down[port], since)
                else:
                    answered[port] = time.monotonic()

    def end(self) -> float:
        """Stop, and return the longest time that nobody answered."""
        self._ended.set()
        self.join()
        return max(self.down.values())


class Measured(NamedTuple):
    """Seconds from the last change of a file to the end, and that a port was down."""

    seconds: float
    down: float
    exit_code: int


def measure(row: Row, folder: Path, *runs: str) -> list[Measured]:
    """Renew once for each run, and return what each took."""
    with ExitStack() as exits:
        program = exits.enter_context(beside_sandbox(folder / "MDaemon", tls=True))
        server = program.server
        ca = exits.enter_context(
            CertificateAuthority(folder / "ca", http_port=server.http_port)
        )
        program.options += [*at(ca.directory_url, ca.ca_bundle), "--key-type", "p256"]
        server.reloads = {name: row.reloads.get(name, ()) for name in server.reloads}
        server.downtime = row.down
        urls = [server.endpoints[label] for label in ("imaps", "webmail")]
        ports = [port for url in urls if (port := urlsplit(url).port)]
        return [_renew(program, row, ports) for _ in runs]


def _renew(program: Program, row: Row, ports: list[int]) -> Measured:
    client = Client(ports)
    client.start()
    code = _run(program.command("renew", "--force", *row.options))
    ended = time.time()
    files = [program.layout.folder / target.file for target in sandbox.TARGETS.values()]
    changed = max(file.stat().st_mtime for file in files)
    return Measured(ended - changed, client.end(), code)


def _run(command: list[str]) -> int:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(),
        check=False,
    )
    return done.returncode


def status_seconds(folder: Path) -> float:
    """Return the CPU seconds of `status` with 2,000 certificates in the store."""
    with beside_sandbox(folder / "MDaemon", tls=True) as program:
        store = program.layout.certificates
        for number in range(STORED):
            made = certificates.certificate(serial=number + 1000)
            sandbox.write(made, store / f"old-{number}")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        _run(program.command("status"))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(arguments: list[str]) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks ladder", description=__doc__
    )
    parser.add_argument("--rows", help="only rows with this text")
    chosen = parser.parse_args(arguments)
    say = sys.stdout.write
    say(f"Load {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs.\n\n")
    say("| who reloads on which rung | before | wanted | seconds | again | down |\n")
    say("| --- | --- | --- | --- | --- | --- |\n")
    for row in ROWS:
        if chosen.rows and chosen.rows not in row.title:
            continue
        with TemporaryDirectory(prefix="ladder-") as name:
            first, again = measure(row, Path(name), "first", "again")
        say(
            f"| {row.title} | {row.before} | {row.wanted:g} | {first.seconds:.2f} | "
            f"{again.seconds:.2f} | {max(first.down, again.down):.2f} |\n"
        )
        sys.stdout.flush()
    if not chosen.rows:
        with TemporaryDirectory(prefix="ladder-") as name:
            seconds = status_seconds(Path(name))
        say(
            f"\nCPU seconds of `status` with {STORED} certificates in the store: "
            f"{seconds:.2f} (before: 13 to 18; wanted: 1).\n"
        )
