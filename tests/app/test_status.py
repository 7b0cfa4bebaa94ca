"""`status`: what is in use, why it waits, the CA's account book, the schedule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from letsencrypt_mdaemon import authorities
from letsencrypt_mdaemon.cli.text import when
from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.state.folder import CaState, State
from letsencrypt_mdaemon.state.ledger import CLOCK_ERROR, Ledger
from letsencrypt_mdaemon.state.memory import Draw, Dropped
from tests.program import HOST_NAME, Program

IMAP = "imap.example.test"
BOTH = ("--alternate-host-names", IMAP)
PUBLIC = ("--directory-url", "letsencrypt")
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)


def now() -> datetime:
    """Return the time as files hold it."""
    return datetime.now(UTC).replace(microsecond=0)


def at_ca(program: Program, ca: CertificateAuthority | None = None) -> CaState:
    """Return what is remembered at a CA; that is Let's Encrypt if none is given."""
    url = ca.directory_url if ca else authorities.LETSENCRYPT.url
    return State(program.state).ca(url, staging=False)


def shown(program: Program, *options: str) -> str:
    """Return what a person gets to see, all on one line."""
    ran = program.here("status", *options, as_json=False)
    assert ran.exit_code == 0, ran.messages
    return " ".join(ran.output.split())


def renew(program: Program, *options: str) -> str:
    """Renew, and return the thumbprint of what is in use then."""
    ran = program.here("renew", "--no-reload", *options)
    assert ran.exit_code == 0, ran.messages
    return str(ran.report["certificate"]["thumbprint"])


# What waits


def test_what_waits_is_shown_with_until_when_and_why(
    program: Program, ca: CertificateAuthority
) -> None:
    moment = now()
    failed = Ledger().failed({IMAP: "Nobody\x1b[2J answers"}, moment - 2 * HOUR)
    failed = failed.failed({IMAP: "Nobody\x1b[2J answers"}, moment - MINUTE)
    at_ca(program, ca).save(failed)

    report = program.here("status", *BOTH).report
    text = shown(program, *BOTH)

    until = (moment + 9 * MINUTE).isoformat()
    assert report["due"]
    assert report["waiting"]["until"] == until
    assert IMAP in report["waiting"]["reason"]
    (row,) = report["ledger"]["failing"]
    assert row == {
        "name": IMAP,
        "times": 2,
        "last": (moment - MINUTE).isoformat(),
        "this_hour": 1,
        "this_hour_limit": None,
        "not_before": until,
        "why": "Nobody\\x1b[2J answers",
        "paused": None,
    }
    assert f"waiting until {when(until)}" in text
    assert f"failed {IMAP}, 2 times" in text
    assert "Nobody\\x1b[2J answers" in text


def test_what_does_not_wait_any_more_is_still_shown_as_failing(
    program: Program, ca: CertificateAuthority
) -> None:
    failed = Ledger().failed({HOST_NAME: "no"}, now() - DAY)
    at_ca(program, ca).save(failed)

    report = program.here("status").report

    assert report["waiting"] is None
    assert [row["name"] for row in report["ledger"]["failing"]] == [HOST_NAME]
    assert "waiting" not in shown(program)
    assert f"failed {HOST_NAME}, once" in shown(program)


def test_what_failed_of_other_names_is_not_shown(
    program: Program, ca: CertificateAuthority
) -> None:
    failed = Ledger().failed({IMAP: "no"}, now())
    at_ca(program, ca).save(failed)

    report = program.here("status").report

    assert report["ledger"]["failing"] == []
    assert report["waiting"] is None


def test_an_order_that_failed_as_a_whole_is_shown_without_a_name(
    program: Program, ca: CertificateAuthority
) -> None:
    until = now() + 3 * HOUR
    failed = Ledger().failed({"": "Too many."}, now(), until=until)
    at_ca(program, ca).save(failed)

    report = program.here("status").report

    assert report["ledger"]["failing"][0]["name"] is None
    assert report["waiting"]["until"] == until.isoformat()
    assert "failed the order, once" in shown(program)


def test_a_pause_is_shown_as_waiting_for_somebody_with_the_url(
    program: Program, ca: CertificateAuthority
) -> None:
    url = "https://ca.test/unpause"
    said = f"Paused. Please visit: {url}"
    failed = Ledger().failed({HOST_NAME: said}, now(), paused=url)
    at_ca(program, ca).save(failed)

    report = program.here("status").report

    assert report["waiting"]["until"] is None
    assert report["ledger"]["failing"][0]["paused"] == url
    assert "waiting until you act" in shown(program)
    assert url in shown(program)


# The limits


def test_what_is_used_of_the_limits_is_shown_where_a_ca_publishes_some(
    program: Program,
) -> None:
    moment, ledger = now(), Ledger()
    for ago in (9 * DAY, 6 * DAY, 5 * DAY, HOUR):
        ledger = ledger.issued([HOST_NAME], moment - ago)
    ledger = ledger.issued([HOST_NAME, IMAP], moment)
    at_ca(program).save(ledger.failed({HOST_NAME: "no"}, moment))

    report = program.here("status", *PUBLIC).report
    text = shown(program, *PUBLIC)

    book = report["ledger"]
    used = [(moment - ago).isoformat() for ago in (6 * DAY, 5 * DAY, HOUR)]
    assert book["issued_this_week"] == used
    assert book["issued_this_week_limit"] == 5
    assert book["failing"][0]["this_hour"] == 1
    assert book["failing"][0]["this_hour_limit"] == 5
    assert "this week 3 of 5 certificates for exactly these names" in text
    assert "1 of 5 in this hour" in text


def test_a_week_that_is_used_up_is_shown_as_waiting(program: Program) -> None:
    moment, ledger = now(), Ledger()
    for ago in range(5):
        ledger = ledger.issued([HOST_NAME], moment - ago * DAY)
    at_ca(program).save(ledger)

    report = program.here("status", *PUBLIC).report

    assert report["waiting"]["until"] == (moment + 3 * DAY + CLOCK_ERROR).isoformat()
    assert "names is reached" in report["waiting"]["reason"]
    text = shown(program, *PUBLIC)
    assert "5 of 5 certificates" in text
    assert "names is reached" in text


def test_no_limits_are_shown_where_a_ca_publishes_none(
    program: Program, ca: CertificateAuthority
) -> None:
    renew(program)

    book = program.here("status").report["ledger"]

    assert len(book["issued_this_week"]) == 1
    assert book["issued_this_week_limit"] is None
    assert "certificates for exactly these names" not in shown(program)
    assert len(ca.issued) == 1


# The CA's advice


def test_the_cas_advice_and_the_moment_drawn_are_shown(
    program: Program, ca: CertificateAuthority
) -> None:
    in_use, start = renew(program), now() + 5 * DAY
    url = "https://ca.test/why\x1b[2J"
    draw = Draw(in_use, start, start + DAY, start + HOUR, now() + HOUR, url)
    at_ca(program, ca).save(draw)

    report = program.here("status").report
    text = shown(program)

    assert report["advice"] == {
        "start": start.isoformat(),
        "end": (start + DAY).isoformat(),
        "drawn": (start + HOUR).isoformat(),
        "ask_again": draw.ask_again.isoformat(),
        "explanation_url": "https://ca.test/why\\x1b[2J",
    }
    assert not report["due"]
    assert report["due_at"] == (start + HOUR).isoformat()
    assert report["rule"] == "the CA suggests renewing the certificate (ARI)"
    assert f"chosen: {when((start + HOUR).isoformat())}" in text
    assert "reason: https://ca.test/why\\x1b[2J" in text
    assert f"due {when(report['due_at'])}: {report['rule']}" in text


def test_advice_on_another_certificate_is_not_shown(
    program: Program, ca: CertificateAuthority
) -> None:
    renew(program)
    draw = Draw("AB" * 20, now(), now() + DAY, now(), now() + HOUR)
    at_ca(program, ca).save(draw)

    report = program.here("status").report

    assert report["advice"] is None
    assert not report["due"]
    assert "CA suggests" not in shown(program)


def test_a_ca_that_gave_no_advice_is_shown_with_when_it_is_asked_again(
    program: Program, ca: CertificateAuthority
) -> None:
    draw = Draw(renew(program), None, None, None, now() + HOUR)
    at_ca(program, ca).save(draw)

    advice = program.here("status").report["advice"]

    assert advice["drawn"] is None
    assert advice["ask_again"] == draw.ask_again.isoformat()
    assert "CA suggests" not in shown(program)


# The schedule


def schedule(program: Program, *ago: timedelta) -> None:
    """Remember scheduled runs that began so long ago."""
    state = State(program.state)
    runs = tuple(now() - span for span in ago)
    state.save(state.load()._replace(runs=runs))


def test_how_often_there_are_runs_is_shown(program: Program) -> None:
    renew(program)
    schedule(program, 2 * DAY, 1.5 * DAY, DAY, DAY / 2, HOUR)

    found = program.here("status").report["schedule"]

    assert found["every_hours"] == 12.0
    assert found["last_run"] is not None
    assert found["warning"] is None
    assert "usually every 12 hours" in shown(program)


def test_runs_that_are_too_sparse_are_warned_of(program: Program) -> None:
    renew(program)
    schedule(program, 60 * DAY, 45 * DAY, 30 * DAY, 15 * DAY)

    found = program.here("status").report["schedule"]

    apart = "15 days apart, too infrequent for a certificate valid for 90 days"
    assert apart in found["warning"]
    assert "run twice a day" in found["warning"]
    assert f"warning {found['warning']}" in shown(program)


def test_what_shorter_lifetimes_will_mean_is_shown(program: Program) -> None:
    renew(program)
    schedule(program, 24 * DAY, 18 * DAY, 12 * DAY, 6 * DAY)

    rows = program.here("status", *PUBLIC).report["schedule"]["lifetimes"]
    text = shown(program, *PUBLIC)

    assert [(row["days"], row["letsencrypt_from"]) for row in rows] == [
        (64, "2027-02-10"),
        (45, "2028-02-16"),
    ]
    assert [row["due_days_before_end"] for row in rows] == [21, 15]
    assert [row["too_sparse"] for row in rows] == [False, True]
    assert "64 days Let's Encrypt's lifetime from 2027-02-10: due 21 days" in text
    assert "15 days before the end; your runs are too infrequent" in text


@pytest.mark.parametrize(("days", "left"), [(64, [45]), (45, []), (90, [64, 45])])
def test_lifetimes_that_are_not_shorter_are_not_shown(
    program: Program, ca: CertificateAuthority, days: int, left: list[int]
) -> None:
    ca.lifetime = days * DAY
    renew(program)

    rows = program.here("status", *PUBLIC).report["schedule"]["lifetimes"]

    assert [row["days"] for row in rows] == left
    assert all(row["too_sparse"] is None for row in rows)
    assert all(later["days"] < row["days"] for row, later in pairwise(rows))


def test_of_another_ca_no_future_lifetimes_are_shown(program: Program) -> None:
    renew(program)

    assert program.here("status").report["schedule"]["lifetimes"] == []
    assert "Let's Encrypt's lifetime" not in shown(program)


@pytest.mark.parametrize("option", ["--force", "--staging", "--dry-run"])
def test_what_is_asked_for_by_hand_is_no_scheduled_run(
    program: Program, option: str
) -> None:
    renew(program, option)

    assert program.here("status").report["schedule"]["last_run"] is None
    renew(program)
    assert program.here("status").report["schedule"]["last_run"] is not None


def test_without_scheduled_runs_nothing_is_said_of_them(program: Program) -> None:
    found = program.here("status").report["schedule"]

    assert found["last_run"] is None
    assert found["every_hours"] is None
    assert found["warning"] is None
    assert "last run" not in shown(program)


# What is in use


@pytest.mark.parametrize(
    ("days", "rule"),
    [
        (90, "a third or less of the certificate's lifetime is left"),
        (8, "half or less of the certificate's lifetime is left"),
    ],
)
def test_the_rule_that_makes_it_due_is_shown(
    program: Program, ca: CertificateAuthority, days: int, rule: str
) -> None:
    ca.lifetime = days * DAY
    renew(program)

    report = program.here("status").report

    assert report["rule"] == rule
    assert f"due {when(report['due_at'])}: {rule}" in shown(program)


def test_the_days_that_were_chosen_are_shown_as_the_rule(program: Program) -> None:
    renew(program)

    report = program.here("status", "--renew-days", "40").report

    assert report["rule"] == "renew-days is set to 40 days before the end"


def test_what_is_wrong_is_no_rule(program: Program) -> None:
    assert program.here("status").report["rule"] is None


def test_several_certificates_in_use_are_no_reason_to_fail(
    program: Program, ca: CertificateAuthority
) -> None:
    renew(program)
    ini = program.layout.app / "MDaemon.ini"
    data = ini.read_bytes()
    renew(program, "--force")
    ini.write_bytes(data)

    report = program.here("status", "--key-policy", "reuse").report

    assert report["due"]
    assert report["certificate"] is None
    assert report["tlsa"] is None
    assert report["advice"] is None
    assert len({item["certificate"]["thumbprint"] for item in report["targets"]}) == 2
    assert shown(program, "--key-policy", "reuse")
    assert len({thumbprint(known.certificate) for known in ca.issued.values()}) == 2


def test_a_name_that_the_certificate_goes_without_is_shown(program: Program) -> None:
    renew(program)
    state, moment = State(program.state), now()
    dropped = Dropped(IMAP, moment - DAY, moment, "Nobody\x1b[2J answers")
    state.save(state.load()._replace(dropped=(dropped,)))
    options = (*BOTH, "--on-name-failure", "drop")

    report = program.here("status", *options).report

    assert report["dropped"] == [
        {
            "name": IMAP,
            "since": (moment - DAY).isoformat(),
            "why": "Nobody\\x1b[2J answers",
        }
    ]
    assert not report["due"]
    since = when((moment - DAY).isoformat())
    assert f"dropped {IMAP}, since {since}: Nobody" in shown(program, *options)


def test_more_names_than_a_profile_allows_are_refused_without_asking_the_ca(
    program: Program,
) -> None:
    names = ",".join(f"{number}.example.test" for number in range(25))
    options = (*PUBLIC, "--alternate-host-names", names)

    many = program.here("status", *options, "--profile", "tlsserver,classic")
    few = program.here("status", *options, "--profile", "classic")
    other = program.here(
        "status", "--alternate-host-names", names, "--profile", "tlsserver"
    )

    assert many.exit_code == 2
    assert "26 names exceed the CA's limit of 25" in many.report["error"]["message"]
    assert few.exit_code == other.exit_code == 0


def test_of_runs_within_an_hour_the_first_and_the_last_are_remembered(
    program: Program,
) -> None:
    state = State(program.state)
    began = now() - 50 * MINUTE
    renew(program, "--scheduled")
    state.save(state.load()._replace(runs=(began, began + MINUTE)))

    assert program.here("renew", "--scheduled", "--no-reload").exit_code == 0

    memory = state.load()
    assert memory.runs[0] == began
    assert len(memory.runs) == 2
    assert now() - memory.runs[-1] < 5 * MINUTE
    assert memory.exit_code == 0
