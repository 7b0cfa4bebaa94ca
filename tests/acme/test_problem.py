"""What is read from Retry-After, and how problem documents are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from letsencrypt_mdaemon.acme.http import TransientError, retry_after
from letsencrypt_mdaemon.acme.problem import about_names, describe
from letsencrypt_mdaemon.errors import ACME_ERROR, AcmeError

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


# Retry-After


@given(st.integers())
def test_a_number_of_seconds_is_taken_up_to_a_day(seconds: int) -> None:
    assert retry_after(str(seconds), NOW) == min(max(seconds, 0), 86400)


@given(
    st.integers(min_value=-(10**9), max_value=10**9),
    st.integers(min_value=-23 * 60, max_value=23 * 60),
)
def test_a_date_is_taken_up_to_a_day_whatever_its_time_zone(
    seconds: int, minutes: int
) -> None:
    zone = timezone(timedelta(minutes=minutes))
    text = format_datetime((NOW + timedelta(seconds=seconds)).astimezone(zone))

    assert retry_after(text, NOW) == min(max(seconds, 0), 86400)


@pytest.mark.parametrize(
    "text",
    [
        "Mon, 23 Nov 2026 12:01:00 GMT",
        "Mon, 23 Nov 2026 12:01:00 UTC",
        "Mon, 23 Nov 2026 12:01:00 -0000",
        "Mon, 23 Nov 2026 12:01:00",
        "Mon, 23 Nov 2026 07:01:00 EST",
        "Monday, 23-Nov-26 12:01:00 GMT",
        "Mon Nov 23 12:01:00 2026",
        " 60 ",
    ],
)
def test_each_way_to_write_a_date_is_understood(text: str) -> None:
    assert retry_after(text, NOW) == 60


dates = st.from_regex(
    r"\A(Mon, )?[0-9]{1,4}[ -](Nov|Feb|[0-9]{1,3})[ -][0-9]{1,6} "
    r"[0-9]{1,3}(:[0-9]{1,3}){0,3}( [+-]?[0-9A-Z]{1,10})?\Z"
)


@given(st.text() | dates | st.from_regex(r"\A[+-]?[0-9]+(\.[0-9]*)?\Z"))
@example("9" * 5000)
@example("-" + "9" * 5000)
@example("1e5")
@example("٣")
@example("Mon, 31 Dec 9999 23:59:59 -2359")
@example("Mon, 01 Jan 0001 00:00:00 +2359")
@example("Mon, 01 Jan 2027 00:00:00 +99999999")
@example("Mon, 01 Jan 2027 00:00:00 +" + "9" * 30)
@example("Mon, 01 Jan 99999999999 00:00:00 GMT")
def test_whatever_retry_after_holds_is_nothing_or_up_to_a_day(text: str) -> None:
    seconds = retry_after(text, NOW)

    assert seconds is None or 0 <= seconds <= 86400


def test_no_retry_after_is_no_wait() -> None:
    assert retry_after(None, NOW) is None


# Problem documents


def test_a_problem_is_told_with_each_name_it_is_about() -> None:
    problem = {
        "type": f"{ACME_ERROR}malformed",
        "detail": "Some of the identifiers were rejected.",
        "subproblems": [
            {
                "type": f"{ACME_ERROR}rejectedIdentifier",
                "detail": "No.",
                "identifier": {"type": "dns", "value": "_a.example.test"},
            },
            {"type": "about:blank", "title": "Odd"},
        ],
        "instance": "https://ca.example.test/why",
    }

    assert describe(problem) == (
        "Some of the identifiers were rejected (malformed) "
        "[_a.example.test: No (rejectedIdentifier)] [?: Odd (about:blank)] "
        "- see https://ca.example.test/why"
    )


# The names that a refusal is about


def part(kind: str, name: str) -> dict[str, object]:
    """Return a subproblem."""
    identifier = {"type": "dns", "value": name}
    return {"type": f"{ACME_ERROR}{kind}", "detail": "No", "identifier": identifier}


def refusal(kind: str, detail: str, *parts: dict[str, object]) -> AcmeError:
    """Return the error that a problem document means."""
    problem = {"type": f"{ACME_ERROR}{kind}", "detail": detail, "subproblems": parts}
    return AcmeError("No.", problem={**problem, "subproblems": list(parts)})


@pytest.mark.parametrize(
    ("error", "code", "names"),
    [
        # A limit among refusals is asked again without the refused names.
        (
            refusal(
                "malformed",
                "Some",
                part("rateLimited", "a.test"),
                part("rejectedIdentifier", "b.test"),
            ),
            4,
            ["b.test"],
        ),
        (refusal("malformed", "Some", part("rateLimited", "A.test")), 3, ["a.test"]),
        (refusal("rateLimited", "Some", part("caa", "a.test")), 3, ["a.test"]),
        (refusal("caa", "No", part("caa", "other.test")), 3, []),
        (refusal("caa", "CAA of a.test. and of b.test."), 4, ["a.test", "b.test"]),
        (refusal("caa", "CAA of aa.test, www.a.test and a.test.org"), 3, []),
        (refusal("accountDoesNotExist", "a.test"), 3, []),
        (refusal("rateLimited", "exact set of names: b.test"), 3, ["b.test"]),
        (TransientError("Down.", problem={"detail": "a.test"}), 3, []),
    ],
)
def test_the_names_of_a_refusal_are_found(
    error: AcmeError, code: int, names: list[str]
) -> None:
    found = about_names(error, ["a.test", "b.test"])

    assert found.exit_code == code
    assert list(found.names) == names
    assert found.is_limit == (code == 3 and bool(names))


values = st.none() | st.integers() | st.text() | st.lists(st.text(), max_size=1)
members = dict.fromkeys(("type", "detail", "title", "instance"), values)
one = st.fixed_dictionaries(
    {}, optional={**members, "identifier": values | st.just({"value": "\x1b"})}
)
problems = st.fixed_dictionaries(
    {}, optional={**members, "subproblems": values | st.lists(values | one, max_size=3)}
)


@given(problems)
def test_any_problem_is_told_in_one_harmless_line(problem: dict[str, object]) -> None:
    said = describe(problem)

    assert said.isprintable()
    assert len(said) <= 5000
    names = about_names(AcmeError("No.", problem=problem), ["a.test"]).names
    assert "".join(names.values()).isprintable()


def test_a_problem_nested_without_end_is_told_as_well() -> None:
    deep: dict[str, Any] = {"detail": "x"}
    for _ in range(5000):
        deep = {"detail": "x", "subproblems": [deep], "title": [deep]}

    assert describe(deep) == "x [?: x]"


def test_a_problem_with_many_parts_is_told_briefly() -> None:
    parts = [{"detail": "x" * 900}] * 1000

    assert len(describe({"subproblems": parts})) == 5000
