"""A server whose values somebody puts back, and what never ends with exit code 0."""

from __future__ import annotations

import errno
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from letsencrypt_mdaemon.app import scheduling
from letsencrypt_mdaemon.sandbox.ca.messages import Problem
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.sandbox.folder import INI_FILES, find
from letsencrypt_mdaemon.system.schedule import Cron
from tests.ca_faults import shifted
from tests.crls import crl, serving
from tests.dying import KILL
from tests.fakes import touched
from tests.program import HOST_NAME, Program, Ran, unmeasured
from tests.schedulers import Crontab


def ini_files(program: Program) -> dict[str, bytes]:
    """Return the content of the server's INI files."""
    folder = program.layout.folder
    return {name: (folder / name).read_bytes() for name in INI_FILES}


def put_back(program: Program, files: dict[str, bytes]) -> None:
    """Write former contents into the server's files, as a restored backup does."""
    for name, data in files.items():
        (program.layout.folder / name).write_bytes(data)


def resources(ca: CertificateAuthority) -> list[str]:
    """Return what the CA was asked for since the last time."""
    found = [request.resource for request in ca.requests]
    ca.requests.clear()
    return found


def test_five_times_the_values_are_put_back_and_one_certificate_is_ordered(
    secure: Program,
) -> None:
    former = ini_files(secure)
    first = secure.renew()
    assert first.exit_code == 0, first.messages
    ours = first.report["certificate"]["thumbprint"]
    tries = []
    for _ in range(5):
        put_back(secure, former)
        tries.append(secure.renew())
        assert secure.bound() == {ours}
        assert set(secure.server.serving.values()) == {ours}

    assert [ran.exit_code for ran in tries] == [0, 0, 5, 5, 5]
    error = tries[-1].report["error"]
    assert "put back a former certificate 5 times in 7 days" in error["message"]
    assert "MDaemon's own Let's Encrypt scheduler" in error["hint"]
    issued = secure.here("status").report["ledger"]["issued_this_week"]
    assert len(issued) == 1


def test_a_second_line_of_the_crontab_is_the_first_suspect(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"{hour} 3 * * * letsencrypt-mdaemon renew" for hour in (1, 2)]
    crontab = Cron(Path("crontab"), Crontab("\n".join([*lines, ""])))
    monkeypatch.setattr(scheduling, "of_this_system", lambda: crontab)
    former = ini_files(program)
    ran = program.here("renew")
    for _ in range(3):
        put_back(program, former)
        ran = program.here("renew")

    assert ran.exit_code == 5
    _, _, steps = ran.report["error"]["hint"].partition("most probable first. ")
    assert steps.startswith("this program ran on another machine or with another ")
    assert f"({', '.join(lines)})" in steps


def test_what_was_put_back_is_mended_while_the_ca_is_down(
    program: Program, ca: CertificateAuthority
) -> None:
    former = ini_files(program)
    ours = program.here("renew").report["certificate"]["thumbprint"]
    put_back(program, former)
    ca.requests.clear()

    ran = program.here("renew")

    assert ran.exit_code == 0, ran.messages
    assert program.bound() == {ours}
    assert resources(ca) == []
    assert "; a good one is in the store" in ran.report["reason"]
    assert ran.report["ordered"] is False


def test_what_is_used_again_without_an_order_is_not_said_to_be_renewed(
    program: Program,
) -> None:
    former = ini_files(program)
    assert program.here("renew", as_json=False).output.startswith("Renewed: ")
    put_back(program, former)

    ran = program.here("renew", as_json=False)

    assert ran.output.startswith(f"In use again: {HOST_NAME}, valid until "), ran.output


def test_the_third_time_is_mailed(program: Program) -> None:
    former = ini_files(program)
    program.here("renew")
    tries = []
    for _ in range(3):
        put_back(program, former)
        tries.append(program.here("renew", "--to", "anna@example.test"))

    assert tries[-1].exit_code == 5
    assert tries[-1].report["renewed"]
    program.server.wait_for(lambda: program.server.delivered)
    (mail,) = program.server.delivered
    assert "3 times in 7 days" in " ".join(mail.read_text("ascii").split())


# 0 means good


def rejected(program: Program, ca: CertificateAuthority) -> None:
    """Let the CA find no name."""
    ca.resolve = lambda _: None
    assert program.here("renew").exit_code == 4


def limited(program: Program, ca: CertificateAuthority) -> None:
    """Let the CA refuse an order until two hours later."""
    refusal = Problem("rateLimited", "Too many.", 429, headers={"Retry-After": "7200"})
    ca.faults.before("newOrder", refusal, times=1)
    assert program.here("renew").exit_code == 3


@pytest.mark.parametrize(("fail", "code"), [(rejected, 4), (limited, 3)])
def test_a_wait_on_a_bad_certificate_ends_with_the_code_of_the_failure_and_is_mailed(
    fail: Callable[[Program, CertificateAuthority], None],
    code: int,
    program: Program,
    ca: CertificateAuthority,
) -> None:
    fail(program, ca)

    ran = program.here("renew", "--to", "anna@example.test")

    assert ran.exit_code == code
    assert ran.report["waiting_until"]
    assert "The certificate in use is self-signed" in ran.report["error"]["message"]
    assert "The next attempt is after" in ran.report["error"]["hint"]
    program.server.wait_for(lambda: program.server.delivered)
    for options in (("--dry-run",), ("--no-activate",)):
        assert program.here("renew", *options).exit_code == 0


def test_a_wait_on_a_good_certificate_is_no_error(
    program: Program, ca: CertificateAuthority
) -> None:
    ca.faults.draft = lambda draft: shifted(draft, timedelta(days=-70))
    assert program.here("renew").exit_code == 0
    rejected(program, ca)

    assert program.here("renew").exit_code == 0


def test_a_wait_on_a_revoked_certificate_is_an_error(
    program: Program, ca: CertificateAuthority
) -> None:
    ca.faults.draft = lambda draft: shifted(draft, timedelta(days=-70))
    assert program.here("renew").exit_code == 0
    rejected(program, ca)
    state = program.state / "installation.json"
    memory = json.loads(state.read_text())
    memory["issued"][0]["revoked"] = datetime.now(UTC).isoformat()
    state.write_text(json.dumps(memory))

    ran = program.here("renew")

    assert ran.exit_code == 4
    assert "The certificate in use was revoked on" in ran.report["error"]["message"]


def test_a_certificate_on_the_crl_that_it_names_is_renewed_and_a_wait_for_it_fails(
    program: Program, ca: CertificateAuthority
) -> None:
    listed: list[int] = []

    def answer(_: str) -> bytes:
        return crl(ca.intermediates[0], ca.key, listed, at=datetime.now(UTC))

    with serving(answer) as url:
        ca.faults.draft = lambda draft: replace(draft, crl=url)
        former = program.here("renew").report["certificate"]["thumbprint"]
        (folder,) = program.layout.certificates.glob("letsencrypt-mdaemon *")
        pem = (folder / "cert.pem").read_bytes()
        listed.append(x509.load_pem_x509_certificate(pem).serial_number)
        ca.resolve = lambda _: None

        failed = program.here("renew")
        waiting = program.here("renew")
        ca.resolve = lambda _: "127.0.0.1"
        renewed = program.here("renew", "--force")

    assert failed.exit_code == waiting.exit_code == 4
    message = waiting.report["error"]["message"]
    assert "The certificate in use was revoked on" in message
    assert renewed.exit_code == 0, renewed.messages
    assert program.bound().isdisjoint({former})
    assert program.here("renew").exit_code == 0


@pytest.mark.parametrize(
    "reason", [x509.ReasonFlags.superseded, x509.ReasonFlags.key_compromise]
)
def test_a_key_that_the_crl_calls_compromised_is_not_reused(
    program: Program, ca: CertificateAuthority, reason: x509.ReasonFlags
) -> None:
    listed: list[int] = []

    def answer(_: str) -> bytes:
        now = datetime.now(UTC)
        return crl(ca.intermediates[0], ca.key, listed, at=now, reason=reason)

    def leaf_in_use() -> x509.Certificate:
        (digest,) = program.bound()
        found = find(program.layout.certificates, digest)
        assert found is not None
        return found.leaf

    with serving(answer) as url:
        ca.faults.draft = lambda draft: replace(draft, crl=url)
        program.options += ["--key-policy", "reuse"]
        program.here("renew", "--force")
        former = leaf_in_use()
        listed.append(former.serial_number)
        renewed = program.here("renew")

    assert renewed.exit_code == 0, renewed.messages
    assert leaf_in_use() != former
    is_reused = leaf_in_use().public_key() == former.public_key()
    assert is_reused == (reason is x509.ReasonFlags.superseded)
    said = "because its key is compromised. That key is not used again."
    assert any(said in line for line in renewed.report["warnings"]) != is_reused


def test_activate_with_nothing_to_do_does_not_call_a_bad_certificate_good(
    program: Program,
) -> None:
    ran = program.here("activate")

    assert ran.exit_code == 5
    assert ran.report["error"]["message"] == (
        "The certificate in use is self-signed, and it stays in use."
    )
    assert ran.report["error"]["hint"] == "Run `renew`."
    shown = program.here("activate", as_json=False)
    assert shown.output.startswith("No certificate waits for activation.\n")
    assert "certificate waits" not in shown.output.partition("\n")[2] + shown.messages
    assert "Nothing" not in shown.output + shown.messages
    assert program.here("activate", "--dry-run").exit_code == 0


def test_a_certificate_that_is_not_valid_yet_is_no_good_one(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert program.here("renew").exit_code == 0
    before = ran_at(program, monkeypatch, datetime.now(UTC) - timedelta(days=1))

    assert before.exit_code == 5
    assert "is not valid before" in before.report["error"]["message"]
    assert "clock" in before.report["error"]["hint"]


def ran_at(program: Program, monkeypatch: pytest.MonkeyPatch, moment: datetime) -> Ran:
    """Run `renew` as if it were another time."""
    from letsencrypt_mdaemon.app import renewal  # noqa: PLC0415 - as the command does

    renew = renewal.Prepared.renew
    monkeypatch.setattr(
        renewal.Prepared, "renew", lambda prepared, _: renew(prepared, moment)
    )
    return program.here("renew")


# The CRL, while something fails


@pytest.fixture
def on_crl(program: Program, ca: CertificateAuthority) -> Iterator[Program]:
    """The program with a certificate in use whose CRL was not fetched today."""

    def answer(_: str) -> bytes:
        return crl(ca.intermediates[0], ca.key, [], at=datetime.now(UTC))

    with serving(answer) as url:
        ca.faults.draft = lambda draft: replace(draft, crl=url)
        assert program.here("renew", "--no-reload").exit_code == 0
        assert checked(program) == 0
        yield program


def checked(program: Program) -> int:
    """Return how many answers of CRLs are remembered."""
    text = (program.state / "installation.json").read_text("utf-8")
    return len(json.loads(text)["checked"])


@contextmanager
def failing(part: str, number: int) -> Iterator[list[Path]]:
    """Let the n-th touch of a file with this in its name fail; yields what failed."""
    count, failed = itertools.count(), list[Path]()

    def fail(path: Path) -> None:
        if part in path.name and next(count) == number:
            failed.append(path)
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with touched(fail):
        yield failed


def test_whatever_fails_while_the_crl_is_asked_the_next_run_asks_again(
    on_crl: Program,
) -> None:
    former, state = on_crl.bound(), on_crl.state / "installation.json"
    before = state.read_bytes()
    codes = set()
    for number in itertools.count():
        with failing("installation.json", number) as failed:
            ran = on_crl.here("renew", "--no-reload")

        codes.add(ran.exit_code)
        assert "Traceback" not in ran.messages
        assert on_crl.bound() == former
        json.loads(state.read_bytes())
        again = on_crl.here("renew", "--no-reload")
        assert again.exit_code == 0, again.messages
        assert checked(on_crl) == 1
        assert not [*on_crl.state.glob(".*.tmp")]
        if not failed:
            break
        state.write_bytes(before)
    assert codes == {0, 1}


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_run_killed_while_it_remembers_what_the_crl_says_is_finished_by_the_next(
    number: int, on_crl: Program
) -> None:
    former = on_crl.bound()
    dying = [sys.executable, "-m", "tests.dying", str(on_crl.layout.folder)]
    died = subprocess.run(
        [*dying, "/.installation.json", str(number), "renew", *on_crl.options],
        cwd=Path(__file__).parents[2],
        env=unmeasured(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert abs(died.returncode) == KILL, died.stderr

    ran = on_crl.here("renew", "--no-reload")

    assert ran.exit_code == 0, ran.messages
    assert "Nothing is due" in ran.messages
    assert checked(on_crl) == 1
    assert on_crl.bound() == former
    assert not [*on_crl.state.glob(".*.tmp")]
