"""The next renewal is rehearsed at the staging service, in good time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from letsencrypt_mdaemon import authorities
from letsencrypt_mdaemon.app import checkup, rehearsal
from letsencrypt_mdaemon.authorities import Authority
from letsencrypt_mdaemon.sandbox.ca.messages import Problem
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.state.folder import State
from letsencrypt_mdaemon.state.told import Rehearsed
from letsencrypt_mdaemon.system.schedule import MARK
from tests.cli.test_notice import mails, subjects
from tests.program import HOST_NAME, Program, Ran

IMAP = "imap.example.test"
BOTH = ("--alternate-host-names", IMAP)
DAY = timedelta(days=1)
LIFETIME = 90 * DAY


@pytest.fixture
def staging(
    program: Program,
    ca: CertificateAuthority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[CertificateAuthority]:
    """The staging service of the CA."""
    http_port = program.server.http_port
    with CertificateAuthority(tmp_path / "staging", http_port=http_port) as service:
        roots = tmp_path / "roots.pem"
        roots.write_bytes(ca.ca_bundle.read_bytes() + service.ca_bundle.read_bytes())
        program.options += ["--ca-bundle", str(roots), *BOTH]
        monkeypatch.setitem(
            authorities.AUTHORITIES,
            "sandbox",
            Authority(url=ca.directory_url, staging=service.directory_url),
        )
        yield service


def job(program: Program, *options: str) -> Ran:
    """Run what the scheduler runs."""
    ran = program.here(
        "renew", MARK, "--to", "anna@example.test", "--delay", "0", *options
    )
    assert ran.exit_code == 0, ran.messages
    return ran


def due_in(ca: CertificateAuthority, days: float) -> None:
    """Let the next certificate be due after some days: a third is left then."""
    age = LIFETIME * 2 / 3 - days * DAY
    ca.clock = lambda: datetime.now(UTC) - age


def renewed(program: Program, ca: CertificateAuthority, days: float = 5) -> None:
    """Renew; the certificate is due after some days."""
    due_in(ca, days)
    assert job(program).report["renewed"]
    ca.clock = lambda: datetime.now(UTC)


def last(program: Program) -> Rehearsed | None:
    """Return the last rehearsal."""
    return State(program.state).load().rehearsed


def a_day_passes(program: Program) -> None:
    """Let the last rehearsal and the last mails be a day old."""
    state = State(program.state)
    memory = state.load()
    assert memory.rehearsed is not None
    told = memory.told
    rows = tuple(row._replace(at=row.at - DAY) for row in told.mailed)
    state.save(
        memory._replace(
            rehearsed=memory.rehearsed._replace(at=memory.rehearsed.at - DAY),
            told=told._replace(mailed=rows),
        )
    )


def asked(service: CertificateAuthority) -> list[str]:
    """Return what a service was asked for since the last time."""
    found = [request.resource for request in service.requests]
    service.requests.clear()
    return found


def test_every_name_is_validated_afresh_once_and_nothing_is_issued(
    program: Program, ca: CertificateAuthority, staging: CertificateAuthority
) -> None:
    renewed(program, ca)
    assert asked(staging) == []
    before, orders = program.snapshot(), len(ca.orders)

    ran = job(program)

    assert not ran.report["renewed"]
    assert sorted(
        row["identifier"]["value"] for row in staging.authorizations.values()
    ) == [IMAP, HOST_NAME]
    assert not staging.issued
    assert len(ca.orders) == orders
    assert program.snapshot() == before
    assert program.tokens() == []
    assert mails(program) == []
    assert (found := last(program))
    assert found.failing == ()
    assert asked(staging)

    job(program)
    assert asked(staging) == []


def test_former_validations_of_the_staging_service_do_not_count(
    program: Program, ca: CertificateAuthority, staging: CertificateAuthority
) -> None:
    renewed(program, ca)
    # As after an earlier rehearsal: the first order has valid authorizations.
    staging.faults.authorizations_valid = True

    def once(_: object) -> None:
        if len(staging.orders) == 1:
            staging.faults.authorizations_valid = False

    staging.faults.before("authorization", once)
    staging.resolve = lambda name: None if name == IMAP else "127.0.0.1"

    job(program)

    assert len(staging.orders) == 2
    statuses = [row["status"] for row in staging.authorizations.values()]
    assert statuses[:2] == ["deactivated"] * 2
    assert (found := last(program))
    assert [row.name for row in found.failing] == [IMAP]


def test_what_was_validated_is_given_up(
    program: Program, ca: CertificateAuthority, staging: CertificateAuthority
) -> None:
    renewed(program, ca)

    job(program)

    found = {row["status"] for row in staging.authorizations.values()}
    assert found == {"deactivated"}


@pytest.mark.parametrize("days", [11, 20])
def test_a_rehearsal_is_a_tenth_of_the_lifetime_before_the_renewal(
    program: Program,
    ca: CertificateAuthority,
    staging: CertificateAuthority,
    days: float,
) -> None:
    renewed(program, ca, days)

    job(program)

    assert asked(staging) == []
    assert last(program) is None


@pytest.mark.parametrize(
    "options", [(MARK, "--rehearse", "no"), (MARK, "--dry-run")], ids=str
)
def test_without_leave_nothing_is_rehearsed(
    program: Program,
    ca: CertificateAuthority,
    staging: CertificateAuthority,
    options: tuple[str, ...],
) -> None:
    renewed(program, ca)

    assert program.here("renew", *options, "--delay", "0").exit_code == 0

    assert asked(staging) == []


def test_a_name_that_would_fail_is_mailed_shown_and_told_again_when_it_is_mended(
    program: Program, ca: CertificateAuthority, staging: CertificateAuthority
) -> None:
    renewed(program, ca)
    staging.resolve = lambda name: None if name == IMAP else "127.0.0.1"

    job(program)

    ((subject, body),) = mails(program)
    assert subject.startswith(f"[{HOST_NAME}] a renewal would fail: {IMAP} (")
    assert subject.endswith(" days left")
    assert "What to do:" in body
    status = program.here("status")
    (row,) = status.report["would_fail"]
    assert row["name"] == IMAP
    assert row["code"] in subject
    assert row["why"] in " ".join(body.split())
    assert f"would fail   {IMAP}, since" in program.here("status", as_json=False).output
    check = program.here("check", "--no-ports", as_json=False)
    assert f"{IMAP} ({row['code']}) would fail at the next renewal" in check.output

    asked(staging)
    job(program)
    assert (asked(staging), mails(program)) == ([], []), "daily"
    a_day_passes(program)
    job(program)
    (subject,) = subjects(program)
    assert "a renewal would still fail" in subject

    staging.resolve = lambda _: "127.0.0.1"
    a_day_passes(program)
    job(program)
    (subject,) = subjects(program)
    assert "recovered" in subject
    assert program.here("status").report["would_fail"] == []
    job(program)
    assert mails(program) == []


def test_what_failed_in_the_rehearsal_and_is_renewed_is_told_once(
    program: Program, ca: CertificateAuthority, staging: CertificateAuthority
) -> None:
    renewed(program, ca)
    staging.resolve = lambda _: None
    job(program)
    assert len(mails(program)) == 1

    job(program, "--renew-days", "45")

    (subject,) = subjects(program)
    assert "recovered" in subject
    job(program)
    assert mails(program) == []


def test_a_staging_service_that_is_of_no_help_leaves_it_to_the_doctor(
    program: Program, ca: CertificateAuthority, staging: CertificateAuthority
) -> None:
    renewed(program, ca)
    staging.faults.before("newOrder", Problem("rateLimited", "Later", 429))

    ran = job(program)

    assert (found := last(program))
    # The DNS of these tests refuses every question.
    assert {row.name for row in found.failing} == {HOST_NAME, IMAP}
    assert all(row.code.startswith("dns-") for row in found.failing)
    assert ran.exit_code == 0


def test_a_staging_service_that_is_down_is_asked_again_by_the_next_run(
    program: Program,
    ca: CertificateAuthority,
    staging: CertificateAuthority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    renewed(program, ca)
    problem = Problem("rateLimited", "Later", 429)
    is_down = [True]
    staging.faults.before("newOrder", lambda _: problem if is_down else False)
    nothing = SimpleNamespace(names=[])
    monkeypatch.setattr(checkup, "check_names", lambda *_, **__: nothing)

    job(program)

    assert last(program) is None
    assert mails(program) == []

    is_down.clear()
    job(program)
    assert (found := last(program))
    assert found.failing == ()
    assert len(staging.authorizations) == 2


@pytest.mark.parametrize("has_account", [True, False])
def test_an_account_at_the_ca_is_consent_to_its_staging_service_else_the_doctor_looks(
    program: Program,
    ca: CertificateAuthority,
    staging: CertificateAuthority,
    *,
    has_account: bool,
) -> None:
    renewed(program, ca)
    program.options.remove("--agree-tos")
    for path in [] if has_account else program.state.rglob("account.json"):
        path.unlink()

    job(program)

    assert (found := last(program))
    names = set() if has_account else {HOST_NAME, IMAP}
    assert {row.name for row in found.failing} == names
    assert len(staging.authorizations) == (2 if has_account else 0)


def test_of_a_ca_without_a_staging_service_the_doctor_looks(
    program: Program, ca: CertificateAuthority
) -> None:
    renewed(program, ca)
    orders = len(ca.orders)

    job(program)

    assert (found := last(program))
    assert [row.name for row in found.failing] == [HOST_NAME]
    assert len(ca.orders) == orders
    (subject,) = subjects(program)
    assert f"a renewal would fail: {HOST_NAME} (dns-" in subject


def test_a_rehearsal_that_breaks_fails_no_run(
    program: Program,
    ca: CertificateAuthority,
    staging: CertificateAuthority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    renewed(program, ca)
    assert staging.directory_url

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(rehearsal, "_said", broken)

    ran = job(program)

    assert ran.report["warnings"] == [
        "Could not rehearse the next renewal: ZeroDivisionError: "
    ]
    assert last(program) is None
    assert mails(program) == []
