"""A run that is killed at any step is finished by the next one; nothing is lost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.sandbox.ca.messages import LOST, Answer
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.sandbox.mdaemon import Fault
from tests.dying import KILL
from tests.limits import HANG_SECONDS
from tests.program import Program, unmeasured

ROOT = Path(__file__).parents[2]
IMAP = ("--alternate-host-names", "imap.example.test")

# Before which change a run dies: a part of the path, and how often it is changed until
# then. A file that is written is made under another name (1), gets its own (2), and
# nothing is left of the other one (3).
CHANGES = [
    ("/lock$", 1),
    ("/LetsEncrypt.log$", 1),
    ("/.installation.json", 2),
    ("/.account.json", 3),
    ("/.account.json", 5),
    ("/.order.json", 2),
    ("/.order.json", 3),
    ("/.presented.json", 3),
    ("/.well-known/acme-challenge$", 1),
    ("/.well-known/acme-challenge/", 1),
    ("/.well-known/acme-challenge/", 2),
    ("/.well-known/acme-challenge/", 3),
    ("/.well-known/acme-challenge$", 2),
    ("/presented.json$", 1),
    ("/.ledger.json", 1),
    ("/.ledger.json", 2),
    ("/.ledger.json", 3),
    ("/.order.json", 5),
    ("/.pending.pem", 1),
    ("/.pending.pem", 2),
    ("/.pending.pem", 3),
    ("/.installation.json", 5),
    ("/.unfinished [^/]*$", 1),
    ("/privkey.pem$", 1),
    ("/fullchain.pem$", 1),
    ("/.unfinished [^/]*$", 2),
    ("/.attempt.json", 1),
    ("/.attempt.json", 2),
    ("/WebAdmin.ini.lck$", 1),
    ("/App/.MDaemon.ini", 2),
    ("/backups$", 1),
    ("/backups/.*/WebAdmin.ini$", 1),
    ("/App/.MDaemon.ini", 3),
    ("/WebAdmin/.WebAdmin.ini", 3),
    ("/WorldClient/.WorldClient.ini", 3),
    ("/WorldClient/.WorldClient.ini", 4),
    ("/WebAdmin.ini.lck$", 2),
    ("/RELOADCACHE.SEM$", 1),
    ("/RESTARTWC.SEM$", 1),
    ("/pending.pem$", 1),
    ("/attempt.json$", 1),
]
NOT_TOLD = "--no-reload"
"""Where a death is not about reloading, the server is not told: only for speed."""
# Before the CA hears a request, or after it has acted on it and nobody hears of that.
REQUESTS = [
    ("before", "directory"),
    ("before", "newAccount"),
    ("after", "newAccount"),
    ("before", "newOrder"),
    ("after", "newOrder"),
    ("before", "authorization"),
    ("before", "challenge"),
    ("after", "challenge"),
    ("before", "order"),
    ("before", "finalize"),
    ("after", "finalize"),
    ("before", "certificate"),
]
FORGOTTEN = [("after", "newOrder"), ("/.order.json", 2)]
"""Deaths between an order and its being kept: the next run orders another one."""


def numbered(steps: list[tuple[str, object]]) -> list[str]:
    """Return a name for each step, with its number."""
    named = [re.sub(r"[^\w.]+", " ", f"{one} {other}").strip() for one, other in steps]
    return [f"{i:02} of {len(steps)} {name}" for i, name in enumerate(named, 1)]


def converges(program: Program, ca: CertificateAuthority, *, orders: int) -> None:
    """Check that the next run finishes the job as if nobody had died."""
    forget_locks(program)

    ran = program.here("renew", *IMAP)

    assert ran.exit_code == 0, ran.messages
    new = ran.report["certificate"]["thumbprint"]
    assert program.bound() == {new}
    if NOT_TOLD not in program.options:
        assert program.server.serving["mail"] == new
        assert program.server.serving["webmail"] == new
    assert len(ca.orders) == orders
    assert len(ca.accounts) == len(ca.issued) == 1
    (place,) = program.layout.certificates.glob("letsencrypt-mdaemon *")
    leaf = x509.load_pem_x509_certificate((place / "fullchain.pem").read_bytes())
    key = load_pem_private_key((place / "privkey.pem").read_bytes(), None)
    assert thumbprint(leaf) == new
    assert leaf.public_key() == key.public_key()
    assert program.tokens() == []
    waiting = (
        r"pending\.pem|(order|attempt|presented)\.json|.*\.(lck|SEM)|\.unfinished.*"
    )
    assert [
        path.name
        for path in program.layout.folder.rglob("*")
        if re.fullmatch(waiting, path.name)
    ] == []


def die(program: Program, part: str, number: int) -> None:
    """Let a run die before a change."""
    dying = [sys.executable, "-m", "tests.dying", str(program.layout.folder), part]
    died = subprocess.run(
        [*dying, str(number), "renew", *program.options, *IMAP],
        cwd=ROOT,
        env=unmeasured(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert abs(died.returncode) == KILL, died.stderr


def forget_locks(program: Program) -> None:
    """Let it be a minute later for who finds the lock files of a dead run."""
    for path in program.layout.folder.rglob("*.lck"):
        minute_ago = path.stat().st_mtime - 60
        os.utime(path, (minute_ago, minute_ago))


@pytest.mark.parametrize(("part", "number"), CHANGES, ids=numbered([*CHANGES]))
def test_a_run_killed_before_a_change_of_a_file_is_finished_by_the_next(
    part: str, number: int, program: Program, ca: CertificateAuthority
) -> None:
    if ".SEM" not in part:
        program.options.append(NOT_TOLD)
    die(program, part, number)

    converges(program, ca, orders=2 if (part, number) in FORGOTTEN else 1)


@pytest.mark.parametrize(("moment", "request_"), REQUESTS, ids=numbered([*REQUESTS]))
def test_a_run_killed_while_it_asks_the_ca_is_finished_by_the_next(
    moment: str, request_: str, program: Program, ca: CertificateAuthority
) -> None:
    program.options.append(NOT_TOLD)
    started: list[subprocess.Popen[str]] = []

    def kill(_: object) -> Answer:
        os.kill(started[0].pid, KILL)
        return LOST

    hooks = {"before": ca.faults.before, "after": ca.faults.after}
    hooks[moment](request_, kill, times=1)
    with running(program) as process:
        started.append(process)
        _, messages = process.communicate(timeout=HANG_SECONDS)

    assert abs(process.returncode) == KILL, messages
    converges(program, ca, orders=2 if (moment, request_) in FORGOTTEN else 1)


@contextmanager
def running(program: Program, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Start a run; whatever happens, it ends with the context."""
    with subprocess.Popen(
        program.command("renew", *IMAP, *options),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=unmeasured(),
        encoding="utf-8",
    ) as process:
        try:
            yield process
        finally:
            process.kill()


# Ended politely


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_run_that_is_interrupted_removes_its_token_files(
    name: str, program: Program, ca: CertificateAuthority
) -> None:
    asked = threading.Event()
    ca.faults.slow_validation = HANG_SECONDS
    ca.faults.after("challenge", lambda _: asked.set())
    number = getattr(signal, name)
    with running(program) as process:
        assert asked.wait(HANG_SECONDS)
        assert len(program.tokens()) == 2
        process.send_signal(number)
        _, messages = process.communicate(timeout=HANG_SECONDS)

    assert process.returncode == (1 if name == "SIGINT" else 128 + number), messages
    assert "Traceback" not in messages
    assert list(program.layout.webroot.iterdir()) == []
    assert "Interrupted. The next run continues." in program.log()
    # The CA that looked too late will not look again.
    ca.faults.slow_validation = 0


# While it proves, and while it rolls back


PROVING = [
    ("/.attempt.json", 3),
    ("/WebAdmin.ini.lck$", 2),
    ("/RELOADCACHE.SEM$", 1),
    ("/attempt.json$", 1),
    ("/pending.pem$", 1),
]
ROLLING_BACK = [
    ("/.attempt.json", 5),
    ("/WebAdmin/.WebAdmin.ini", 8),
    ("/RELOADCACHE.SEM$", 2),
    ("/.attempt.json", 8),
]


@pytest.mark.parametrize(("part", "number"), PROVING, ids=numbered([*PROVING]))
def test_a_run_killed_while_it_proves_is_finished_by_the_next(
    part: str, number: int, secure: Program
) -> None:
    die(secure, part, number)
    forget_locks(secure)

    ran = secure.here("renew", *IMAP)

    assert ran.exit_code == 0, ran.messages
    new = ran.report["certificate"]["thumbprint"]
    assert secure.bound() == set(secure.server.serving.values()) == {new}
    status = secure.here("status", *IMAP)
    assert not status.report["due"]
    assert set(status.report["served"].values()) == {new}
    assert list(secure.state.rglob("attempt.json")) == []
    assert list(secure.state.rglob("pending.pem")) == []


@pytest.mark.parametrize(
    ("part", "number"), ROLLING_BACK, ids=numbered([*ROLLING_BACK])
)
def test_a_run_killed_while_it_rolls_back_is_rolled_back_by_the_next(
    part: str, number: int, secure: Program
) -> None:
    (old,) = secure.bound()
    secure.server.spoil(Fault.DEAD, "webmail")
    die(secure, part, number)
    forget_locks(secure)

    ran = secure.here("renew", *IMAP)

    assert ran.exit_code == 5, ran.messages
    assert "Rolled back" in ran.report["error"]["message"]
    assert secure.bound() == {old}
    served = secure.here("status", *IMAP).report["served"]
    assert len(served) == 9
    assert set(served.values()) == {old}
    secure.server.faults.clear()
    cured = secure.here("activate", *IMAP)
    assert cured.exit_code == 0, cured.messages
    assert secure.bound() == {cured.report["certificate"]["thumbprint"]} != {old}
