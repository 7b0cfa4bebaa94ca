"""What a collected file says, and what it cannot make the report say."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letsencrypt_mdaemon.app.collected import (
    MAX_AGE,
    MAX_ITEMS,
    MAX_TEXT,
    Server,
    parse,
    read,
    worst,
)
from letsencrypt_mdaemon.app.health import Grade
from tests import fleets, schemas
from tests.fleets import DAY, HOSTILE, NOW, check, failed, status

NOT_PRINTED = "the file is not what `status --json` or `check --format json` prints"


def server(document: object) -> Server:
    return read(document, "a.json", NOW)


@pytest.mark.parametrize("document", [status(), check(), failed("It failed.")])
def test_the_documents_of_these_tests_are_what_the_program_prints(
    document: dict[str, Any],
) -> None:
    schemas.check(document)


def test_a_status_becomes_a_server() -> None:
    found = server(status("mail.a.test", days=60))

    assert found.grade is Grade.OK
    assert (found.name, found.names) == (
        "mail.a.test",
        ("mail.a.test", "imap.mail.a.test"),
    )
    assert found.end == NOW + 60 * DAY
    assert found.due == NOW + 30 * DAY
    assert found.ports == (5, 5)
    assert found.last_run == NOW - timedelta(hours=7)
    assert found.sources == ("a.json",)
    details = dict(found.details)
    assert details["Store"] == ("windows",)
    assert details["Valid until"][0].endswith(" (in 60 days)")
    assert details["Named by"] == ("App/MDaemon.ini, SSL, Hash",)


def test_a_check_becomes_a_server() -> None:
    found = server(check("mail.a.test", days=3, state="CRITICAL", problem="expires"))

    assert found.grade is Grade.CRITICAL
    assert found.name == "mail.a.test"
    assert found.end == NOW + 3 * DAY
    assert found.ports == (5, 5)
    assert found.last_run == NOW - timedelta(seconds=25_200)


def test_ports_of_other_programs_are_not_counted() -> None:
    document = status()
    document["proof"]["ports"][0]["verdict"] = "foreign"
    document["proof"]["ports"][1]["verdict"] = "old"

    assert server(document).ports == (3, 4)


def test_the_first_certificate_to_expire_counts() -> None:
    document = status(days=60)
    soon = document["certificate"] | {"not_after": fleets.iso(NOW + 3 * DAY)}
    document["targets"][0]["certificate"] = soon

    assert server(document).end == NOW + 3 * DAY


def test_a_failure_is_unknown_with_its_message() -> None:
    found = server(failed("No MDaemon was found."))

    assert (found.grade, found.why) == (Grade.UNKNOWN, "No MDaemon was found.")
    assert found.name == "host-bad"


def test_a_machine_without_a_name_is_named_as_its_file() -> None:
    document = failed("It failed.")
    for host in (None, "", " "):
        document["generator"]["host"] = host
        assert server(document).name == "a.json"


def test_a_check_that_could_not_be_made_is_unknown_with_its_message() -> None:
    problem = {"state": "UNKNOWN", "text": "No MDaemon was found."}
    found = server({"state": "UNKNOWN", "problems": [problem]})

    assert (found.grade, found.why) == (Grade.UNKNOWN, "No MDaemon was found.")
    assert found.name == "a.json"


@pytest.mark.parametrize(
    ("days", "grade", "why"),
    [
        (22, Grade.OK, ""),
        (20, Grade.WARNING, "expires on 2026-12-18"),
        (6, Grade.CRITICAL, "expires on 2026-12-04"),
        (0, Grade.CRITICAL, "expired"),
    ],
)
def test_the_end_is_judged_at_the_time_of_the_report(
    days: int, grade: Grade, why: str
) -> None:
    found = server(status(days=days))

    assert (found.grade, found.why) == (grade, why)


def test_what_expired_since_it_was_collected_is_said_though_it_was_critical() -> None:
    document = status(days=0.5, state="CRITICAL", problem="no longer served at a")

    assert read(document, "a.json", NOW + DAY).why == "no longer served at a; expired"


def test_short_lived_certificates_have_their_own_limits() -> None:
    document = status(days=5)
    document["certificate"]["not_before"] = fleets.iso(NOW - DAY)

    assert server(document).grade is Grade.OK


def test_the_server_s_own_words_are_not_said_twice() -> None:
    document = status(days=3, state="CRITICAL", problem="expires on 2026-12-01")

    assert server(document).why == "expires on 2026-12-01"


@pytest.mark.parametrize(
    ("taken", "grade", "why"),
    [
        (NOW - MAX_AGE, Grade.OK, ""),
        (NOW - 3 * DAY, Grade.UNKNOWN, "collected 3 days ago"),
        (
            NOW + 3 * DAY,
            Grade.UNKNOWN,
            "its clock is ahead by 3 days, or the file is wrong",
        ),
    ],
)
def test_old_news_is_no_news(taken: datetime, grade: Grade, why: str) -> None:
    document = status()
    document["generator"]["time"] = fleets.iso(taken)

    found = server(document)

    assert (found.grade, found.why) == (grade, why)


def test_the_state_of_this_server_is_never_old() -> None:
    assert read(status(), "", NOW + 9 * DAY).grade is Grade.OK


def test_a_server_that_calls_itself_good_with_a_problem_is_not() -> None:
    document = status(problem="x")
    document["problems"][0]["state"] = "CRITICAL"

    assert server(document).grade is Grade.CRITICAL


def test_a_server_that_is_bad_without_a_reason_is_bad() -> None:
    found = server(status(state="CRITICAL"))

    assert (found.grade, found.why) == (
        Grade.CRITICAL,
        "its own verdict is CRITICAL",
    )


def test_the_worst_problem_is_not_lost_among_many() -> None:
    many = [{"state": "WARNING", "text": str(number)} for number in range(500)]
    worst_of_all = {"state": "CRITICAL", "text": "x"}

    found = server(status(state="CRITICAL") | {"problems": [*many, worst_of_all]})

    assert (found.grade, found.problems[0].text) == (Grade.CRITICAL, "x")
    assert len(found.problems) == MAX_ITEMS


def test_critical_is_worse_than_unknown() -> None:
    assert worst([Grade.UNKNOWN, Grade.CRITICAL, Grade.OK]) is Grade.CRITICAL
    assert worst([Grade.UNKNOWN, Grade.WARNING]) is Grade.UNKNOWN
    assert worst([]) is Grade.OK


@pytest.mark.parametrize("schema", [2, "1", None, True, [1], 10**400])
def test_another_schema_is_unknown(schema: object) -> None:
    found = server(status() | {"schema": schema})

    assert found.grade is Grade.UNKNOWN
    assert "schema" in found.why or found.why == NOT_PRINTED


@pytest.mark.parametrize(
    "change",
    [
        {"names": []},
        {"names": ["", "x"]},
        {"names": "mail.example.test"},
        {"names": [["x"]]},
        {"certificate": []},
        {"certificate": {}},
        {"certificate": "x"},
        {"targets": ["x"]},
        {"problems": [{"state": "FINE", "text": "x"}]},
        {"problems": None},
        {"state": ["OK"]},
        {"state": "GOOD"},
        {"due_at": "tomorrow"},
        {"due_at": "2026-11-28T09:00:00"},
        {"due_at": 5},
        {"proof": {"ports": 5}},
        {"proof": []},
        {"schedule": None},
        {"schedule": {}},
        {"ledger": {"failing": {"name": "x"}}},
        {"generator": []},
        {"generator": {"version": "1", "host": None, "time": "never"}},
        {"generator": {"version": {}, "host": None, "time": "2026-11-28T09:00Z"}},
        {"command": "renew"},
        {"command": ["status"]},
        {"error": "x"},
        {"error": {}},
    ],
)
def test_what_is_not_as_the_program_prints_it_is_unknown(
    change: dict[str, object],
) -> None:
    found = server(status() | change)

    assert (found.grade, found.why) == (Grade.UNKNOWN, NOT_PRINTED)


@pytest.mark.parametrize("key", [*status(), *check()])
def test_what_lacks_a_part_is_never_good_by_that(key: str) -> None:
    for document in (status(state="WARNING", problem="x"), check(state="WARNING")):
        document.pop(key, None)
        assert server(document).grade in {Grade.WARNING, Grade.UNKNOWN}


@pytest.mark.parametrize("number", ["1e999", "NaN", "-Infinity", "9" * 5000, "true"])
def test_numbers_that_are_none_are_unknown(number: str) -> None:
    text = json.dumps(check(days=12345.5)).replace("12345.5", number)

    assert parse(text.encode(), "a.json", NOW).grade is Grade.UNKNOWN


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\xff\xfe",
        b"not JSON",
        b"[" * 100_000,
        b'{"schema":' * 100_000,
        b"null",
        b"[]",
        b'"x"',
        "\ud800".encode("utf-8", "surrogatepass"),
    ],
)
def test_what_is_no_document_is_unknown(data: bytes) -> None:
    found = parse(data, "a.json", NOW)

    assert found.grade is Grade.UNKNOWN
    assert found.name == "a.json"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_what_powershell_writes_can_be_read(encoding: str) -> None:
    data = json.dumps(status("m\xe4il.test"), ensure_ascii=False).encode(encoding)

    assert parse(data, "a.json", NOW).name == "m\xe4il.test"


@pytest.mark.parametrize("text", HOSTILE)
def test_every_text_is_printable_and_short(text: str) -> None:
    found = server(fleets.hostile(text))

    texts = [*found.names, found.name, found.why, found.host, found.version]
    texts += [item for row in found.seen for item in row]
    texts += [item for _, values in found.details for item in values]
    assert found.grade is Grade.WARNING
    assert all(item.isprintable() for item in texts)
    assert max(map(len, texts)) <= MAX_TEXT * 5  # what stands in a line together


def test_long_lists_are_cut() -> None:
    document = status()
    document["proof"]["ports"] *= 1000
    document["warnings"] = ["x"] * 5000

    found = server(document)

    assert len(found.seen) == MAX_ITEMS
    assert len(dict(found.details)["Warnings"]) == MAX_ITEMS + 1
    assert dict(found.details)["Warnings"][-1] == f"and {5000 - MAX_ITEMS} more"
    assert found.ports == (5000, 5000)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.sampled_from([*status()]), JSON)
def test_whatever_stands_in_a_status_it_is_a_server(key: str, value: object) -> None:
    assert server(status() | {key: value}).name


@given(st.sampled_from([*check()]), JSON)
def test_whatever_stands_in_a_check_it_is_a_server(key: str, value: object) -> None:
    assert server(check() | {key: value}).name


def test_moments_are_those_of_utc() -> None:
    document = status() | {"due_at": "2026-12-24T02:00:00+05:00"}

    due = server(document).due
    assert due
    assert due.isoformat() == "2026-12-23T21:00:00+00:00"
