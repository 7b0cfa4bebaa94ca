"""The program as a user runs it beside a sandbox MDaemon, or else in this process."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from socketserver import DatagramRequestHandler, ThreadingUDPServer
from typing import Any
from unittest.mock import patch

import click
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import rsa

from letsencrypt_mdaemon.cli.main import cli
from letsencrypt_mdaemon.sandbox import folder as sandbox_folder
from letsencrypt_mdaemon.sandbox import mdaemon
from letsencrypt_mdaemon.system import log
from tests import schemas
from tests.limits import HANG_SECONDS

LOCALHOST = "127.0.0.1"
HOST_NAME = "mail.example.test"
PREFIX = "LETSENCRYPT_MDAEMON_"


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run ended, and what it said."""

    exit_code: int
    output: str
    messages: str
    shown: str = ""
    """Both, as a terminal shows them; only of a run in this process."""

    @property
    def report(self) -> dict[str, Any]:
        """What --json printed, which is as its schema says."""
        document: dict[str, Any] = json.loads(self.output)
        schemas.check(document)
        return document


@dataclass(slots=True)
class Program:
    """`letsencrypt-mdaemon` and the sandbox it works on.

    Args:
        options: Given to every command that takes them.
        server: The running sandbox.
        agrees: Whether every command that asks gets --yes.
    """

    server: mdaemon.Server
    options: list[str] = field(default_factory=list)
    agrees: bool = True

    @property
    def layout(self) -> sandbox_folder.Layout:
        """Where things are."""
        return self.server.layout

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.layout.letsencrypt / "letsencrypt-mdaemon"

    def command(self, name: str, *options: str) -> list[str]:
        """Return the command line of one run."""
        program = [sys.executable, "-m", "letsencrypt_mdaemon"]
        words = name.split()
        return [*program, *words, *self._taken(words), *options, "--json"]

    def run(
        self, name: str, *options: str, environ: Mapping[str, str] | None = None
    ) -> Ran:
        """Run a command to its end, in a process of its own."""
        return run(self.command(name, *options), environ)

    def renew(self, *options: str, environ: Mapping[str, str] | None = None) -> Ran:
        """Run `renew` in a process of its own."""
        return self.run("renew", *options, environ=environ)

    def here(
        self,
        name: str,
        *options: str,
        environ: Mapping[str, str] | None = None,
        as_json: bool = True,
    ) -> Ran:
        """Run a command in this process: that is faster, and can be patched."""
        reports, words = ["--json"] if as_json else [], name.split()
        common = self._taken(words)
        return here([*words, *common, *options, *reports], environ)

    def _taken(self, words: Sequence[str]) -> list[str]:
        # `setup` asks other questions.
        agrees = self.agrees and words != ["setup"]
        return taken(words, [*self.options, *["--yes"] * agrees])

    def bound(self) -> set[str]:
        """Return the thumbprints that the server's files name now."""
        return set(sandbox_folder.bound(self.layout.folder).values())

    def snapshot(self) -> dict[str, bytes]:
        """Return every file of the server's own, without logs and our state."""
        folder, ours = self.layout.folder, (self.layout.logs, self.state)
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not any(path.is_relative_to(our) for our in ours)
        }

    def tokens(self) -> list[Path]:
        """Return the files below the webroot."""
        return [path for path in self.layout.webroot.rglob("*") if path.is_file()]

    def log(self) -> str:
        """Return the last run's log."""
        return (self.layout.logs / "LetsEncrypt.log").read_text("utf-8-sig")


def options_of(words: Sequence[str]) -> set[str]:
    """Return the options of a command, with their dashes."""
    command: click.Command = cli
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    context = click.Context(command, help_option_names=["-h", "--help"])
    return {name for param in command.get_params(context) for name in param.opts}


def taken(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """Return those options that a command takes: it would refuse the others."""
    known, takes, kept = options_of(words), True, []
    for word in options:
        takes = word in known if word.startswith("--") else takes
        kept += [word] if takes else []
    return kept


def run(command: Sequence[str], environ: Mapping[str, str] | None = None) -> Ran:
    """Run the program to its end."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        env={**environment(), **(environ or {})},
        timeout=HANG_SECONDS,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def here(
    arguments: Sequence[str],
    environ: Mapping[str, str] | None = None,
    given: str | None = None,
) -> Ran:
    """Run the program in this process; leave the package's logger as it was.

    Nothing is flushed to the disk: no power is cut, and it takes half of the time.

    Args:
        given: What is typed at its questions.
    """
    gone = {name: None for name in os.environ if name.startswith(PREFIX)}
    logger = logging.getLogger(log.PACKAGE)
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    try:
        with patch.object(os, "fsync"):
            result = CliRunner().invoke(
                cli,
                list(arguments),
                input=given,
                env={**gone, "NO_PROXY": "*", **(environ or {})},
                catch_exceptions=False,
                prog_name="letsencrypt-mdaemon",
            )
    finally:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)
    return Ran(result.exit_code, result.stdout, result.stderr, result.output)


def environment() -> dict[str, str]:
    """Return an environment without settings of ours and without proxies."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
    return kept | {"NO_PROXY": "*", "PYTHONIOENCODING": "utf-8"}


def unmeasured() -> dict[str, str]:
    """Return the same for a process that gets signals: it is not measured.

    A signal that comes while coverage.py holds its lock would leave it locked for ever,
    and one that is killed cannot tell what was measured.
    """
    return {k: v for k, v in environment().items() if not k.startswith("COVERAGE_")}


class NoDns(DatagramRequestHandler):
    """Refuses every question, so that nobody asks the real DNS or waits for long."""

    def handle(self) -> None:
        """Send the question back as an answer (RFC 1035, 4.1.1: QR, RCODE 5)."""
        question: bytes = self.rfile.read()
        self.wfile.write(question[:2] + b"\x80\x05" + question[4:])


_made_once = cache(rsa.generate_private_key)


@contextmanager
def beside_sandbox(
    folder: Path, *, http_port: int = 0, host_name: str = HOST_NAME, tls: bool = False
) -> Iterator[Program]:
    """Make a sandbox MDaemon, let it live, and return the program set up for it.

    Args:
        tls: Let all its ports speak TLS, and be looked at.
    """
    # Only for speed: the first certificate of every sandbox has the same key.
    with patch.object(rsa, "generate_private_key", _made_once):
        layout = sandbox_folder.create(folder, host_name=host_name)
    with (
        mdaemon.Server(folder, http_port=http_port, tls=tls) as server,
        ThreadingUDPServer((LOCALHOST, 0), NoDns) as dns,
        mdaemon.thread(partial(dns.serve_forever, 0.005), dns.shutdown),
    ):
        # Else nothing listens where is looked.
        endpoints = server.endpoints.values() or ["https://127.0.0.1:1"]
        options = [
            *("--mdaemon-dir", str(folder)),
            *("--store", f"pem:{layout.certificates}"),
            *("--smtp-address", f"127.0.0.1:{server.smtp_port}"),
            *("--endpoint", ",".join(endpoints)),
            "--skip-port-check",
            *("--validation-dns", f"{LOCALHOST}:{dns.server_address[1]}"),
        ]
        yield Program(server, options)


def at(directory_url: str, ca_bundle: Path) -> list[str]:
    """Return the options that name a CA."""
    return [
        "--directory-url",
        directory_url,
        "--ca-bundle",
        str(ca_bundle),
        "--agree-tos",
    ]
