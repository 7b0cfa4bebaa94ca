"""Which of our certificates is used instead of an order, and who put a value back."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.pki.certificate import OURS, public_key_hash, thumbprint
from letsencrypt_mdaemon.renewal import due as rules
from letsencrypt_mdaemon.renewal import run, spare
from letsencrypt_mdaemon.renewal.adapters import Request
from letsencrypt_mdaemon.renewal.due import Due
from letsencrypt_mdaemon.renewal.snapshot import Snapshot
from letsencrypt_mdaemon.state.memory import Attempt, Checked, Draw, Issued, Memory
from tests import certificates
from tests.certificates import NAME, START, key, leaf, sign
from tests.fakes import snapshot

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
CA = "https://ca.test/directory"
NOW = START + 10 * DAY
FOREIGN = leaf([NAME], serial=1, own_key=key(7))
OLD = leaf([NAME], serial=2, start=START - 80 * DAY)
GOOD = leaf([NAME], serial=3)
LATER = leaf([NAME], serial=4, start=START + DAY)
REQUEST = Request(names=(NAME,), key_type="p256", directory_url=CA)
SELF_SIGNED = sign("self", own_key=key(8)).certificate


def issued(certificate: x509.Certificate, **more: object) -> Issued:
    row = Issued(thumbprint(certificate), CA, (NAME,))
    return row._replace(**more)  # type: ignore[arg-type]


def found(
    *in_use: x509.Certificate | None,
    memory: Memory | None = None,
    stored: tuple[x509.Certificate, ...] = (FOREIGN, OLD, GOOD, LATER),
    name: str = "",
    now: datetime = NOW,
    attempt: Attempt | None = None,
    **request: Any,  # noqa: ANN401
) -> Snapshot:
    """Return a snapshot with some certificates in the store, three of them ours."""
    if memory is None:
        memory = Memory(issued=(issued(OLD), issued(GOOD)), in_use=thumbprint(GOOD))
    wanted = REQUEST._replace(**request)
    made = snapshot(wanted, *in_use, now=now, memory=memory, attempt=attempt)
    kept = {thumbprint(item): (item, name) for item in stored}
    return made._replace(stored=kept)


def remembering(*rows: Issued, **more: object) -> Memory:
    return Memory(issued=rows)._replace(**more)  # type: ignore[arg-type]


# What is a spare


@pytest.mark.parametrize(
    "in_use",
    [(FOREIGN,), (SELF_SIGNED,), (None,), (GOOD, FOREIGN), (OLD,), (None, OLD)],
)
def test_whatever_is_in_use_instead_the_good_one_is_taken(
    in_use: tuple[x509.Certificate | None, ...],
) -> None:
    assert spare.spares(found(*in_use)) == [GOOD]


def test_nothing_replaces_a_good_one() -> None:
    assert spare.spares(found(GOOD)) == []
    assert spare.spares(found(GOOD, activate_only=True)) == []


@pytest.mark.parametrize(
    "without",
    [
        found(FOREIGN, names=("other.test",)),
        found(FOREIGN, names=(NAME, "other.test")),
        found(FOREIGN, key_type="rsa2048"),
        found(FOREIGN, directory_url="https://another.test"),
        found(FOREIGN, force=True),
        found(FOREIGN, memory=Memory()),
        found(FOREIGN, stored=(FOREIGN, OLD)),
        found(FOREIGN, memory=remembering(issued(GOOD, revoked=START))),
        found(FOREIGN, memory=remembering(issued(GOOD, rolled_back=START))),
        found(
            FOREIGN,
            memory=remembering(
                issued(GOOD), checked=(Checked(thumbprint(GOOD), START, START),)
            ),
        ),
        found(
            FOREIGN,
            memory=remembering(issued(GOOD), compromised=(public_key_hash(GOOD),)),
        ),
        found(FOREIGN, now=START + 60 * DAY),  # due
        found(FOREIGN, now=START + 91 * DAY),  # expired
        found(FOREIGN, now=START - HOUR),  # not yet valid
        found(FOREIGN, days_left=60, now=START + 50 * DAY),
        found(
            FOREIGN,
            attempt=Attempt(thumbprint(GOOD), {}, (), failed=NOW - 19 * HOUR),
        ),
    ],
)
def test_what_would_be_due_or_failed_is_no_spare(without: Snapshot) -> None:
    assert spare.spares(without) == []


def test_the_best_is_the_last_activated_then_a_verified_one_then_the_latest() -> None:
    rows = issued(GOOD), issued(LATER)
    proven = issued(GOOD, verified=START)

    def first(*rows: Issued, in_use: str = "") -> x509.Certificate:
        return spare.spares(found(FOREIGN, memory=Memory(issued=rows, in_use=in_use)))[
            0
        ]

    assert first(*rows) == LATER
    assert first(proven, rows[1]) == GOOD
    assert first(proven, rows[1], in_use=thumbprint(LATER)) == LATER


def test_without_a_record_the_friendly_name_tells_which_are_ours() -> None:
    name = f"{OURS} {NAME} 2026-01-01 AB"
    ours = found(SELF_SIGNED, memory=Memory(), stored=(GOOD,), name=name)

    assert spare.spares(ours) == [GOOD]


def test_what_failed_a_day_ago_may_be_tried_again() -> None:
    attempt = Attempt(thumbprint(GOOD), {}, (), failed=NOW - 20 * HOUR)

    assert spare.spares(found(FOREIGN, attempt=attempt)) == [GOOD]


def test_an_old_one_gives_way_only_to_one_that_ends_later() -> None:
    memory = remembering(issued(OLD), issued(GOOD), issued(LATER))
    late = START + 60 * DAY

    assert spare.spares(found(GOOD, memory=memory, now=late)) == [LATER]
    assert spare.spares(found(LATER, memory=memory, now=late + DAY)) == []


def test_activate_takes_a_newer_one_that_was_rolled_back_and_renew_does_not() -> None:
    rows = issued(GOOD), issued(LATER, rolled_back=START)
    memory = remembering(*rows, in_use=thumbprint(GOOD))

    assert spare.spares(found(GOOD, memory=memory)) == []
    assert spare.spares(found(GOOD, memory=memory, activate_only=True)) == [LATER]
    assert spare.spares(found(FOREIGN, memory=memory)) == [GOOD]
    older = remembering(issued(GOOD, rolled_back=START), issued(LATER))
    assert spare.spares(found(LATER, memory=older, activate_only=True)) == []
    both = spare.spares(found(FOREIGN, memory=memory, activate_only=True))
    assert both == [LATER, GOOD]


@given(
    st.sampled_from([FOREIGN, SELF_SIGNED, None, OLD, GOOD, LATER]),
    st.integers(-10, 100),
    st.lists(st.sampled_from([OLD, GOOD, LATER]), unique=True),
)
def test_whatever_is_taken_leaves_nothing_due(
    in_use: x509.Certificate | None, days: int, ours: list[x509.Certificate]
) -> None:
    memory = remembering(*map(issued, ours), in_use=thumbprint(GOOD))
    now = START + days * DAY
    for taken in spare.spares(found(in_use, memory=memory, now=now)):
        after = found(taken, memory=memory._replace(in_use=thumbprint(taken)), now=now)
        assert not rules.by_rule(after, (NAME,)).due
        assert spare.fault(after) == ""
        assert spare.spares(after) == []


# The reason


@pytest.mark.parametrize(
    ("named", "cause"),
    [
        (OLD, spare.KEPT),
        (LATER, spare.TWIN),
        (leaf([NAME], serial=9, start=START - DAY), spare.RESTORED),
        (leaf([NAME], serial=9, start=START + DAY), spare.SCRIPT),
        (certificates.root().certificate, spare.RESTORED),
        (sign("self", start=START + DAY).certificate, spare.CHOSEN),
        (None, spare.RESTORED),
    ],
)
def test_the_reason_names_who_probably_put_the_value_back(
    named: x509.Certificate | None, cause: str
) -> None:
    rows = [issued(each) for each in (OLD, GOOD, LATER)]
    seen = found(named, memory=remembering(*rows, in_use=thumbprint(GOOD)))

    due, _ = run.plan(seen._replace(spare=GOOD))

    assert due.due
    assert due.reason.endswith(
        f", probably because {cause}; a good one is in the store"
    )


def test_nobody_is_suspected_where_nothing_was_put_back() -> None:
    first = found(FOREIGN, memory=Memory(issued=(issued(GOOD),)))
    lost = found(None, memory=Memory(in_use="AB"))
    ours = found(OLD, attempt=Attempt(thumbprint(OLD), {}, ()))

    for seen in (first, lost, ours, found(GOOD)):
        assert spare.suspect(seen) == ""
        assert spare.noted(seen).put_back == ()


# The same value again and again


def returns(
    *days: float, tasks: tuple[list[str], list[str]] = ([], [])
) -> DeployError | None:
    """Let the same value be put back on some days, and return the last complaint."""
    named = FOREIGN
    memory = found(named).memory
    error = None
    for at in days:
        seen = found(named, memory=memory, now=START + at * DAY)
        memory = spare.noted(seen)
        error = spare.complaint(seen, memory, lambda: tasks)
    return error


@pytest.mark.parametrize(
    ("days", "is_said"),
    [
        ((1,), False),
        ((1, 2), False),
        ((1, 1.5, 2), True),
        ((1, 4, 7.9), True),
        ((1, 4, 8), False),  # the first is a week old
        ((9, 1, 2), False),  # a clock was wrong
    ],
)
def test_three_times_in_a_week_is_an_error(
    days: tuple[float, ...], *, is_said: bool
) -> None:
    error = returns(*days)

    assert (error is not None) == is_said


def test_the_error_lists_the_values_and_the_suspects_most_probable_first() -> None:
    error = returns(1, 2, 3)

    assert error is not None
    assert error.exit_code == 5
    assert "3 times in 7 days: x.ini [SSL] Certificate0." in error.message
    places = [error.hint.index(remedy) for remedy in spare.REMEDIES]
    assert min(places) == error.hint.index(spare.RESTORED)


@pytest.mark.parametrize(
    ("tasks", "first"),
    [
        (([r"\MDaemon"], []), rf"{spare.REMEDIES[spare.SCRIPT]} (\MDaemon). "),
        (([], ["a", "b"]), f"{spare.REMEDIES[spare.TWIN]} (a, b). "),
    ],
)
def test_a_task_that_is_there_is_the_first_suspect_and_named(
    tasks: tuple[list[str], list[str]], first: str
) -> None:
    error = returns(1, 2, 3, tasks=tasks)

    assert error is not None
    _, _, steps = error.hint.partition("most probable first. ")
    assert steps.partition(": ")[2].startswith(first)
    assert error.hint.index(spare.RESTORED) < error.hint.index(spare.KEPT)
    assert [steps.count(remedy) for remedy in spare.REMEDIES] == [1] * 5


# What is bad about the certificate in use


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (found(GOOD), ""),
        (found(FOREIGN), ""),
        (found(None), "is not in the store"),
        (found(GOOD, now=START + 90 * DAY), "expired on "),
        (found(GOOD, now=START - HOUR), "is not valid before "),
        (found(SELF_SIGNED), "is self-signed"),
        (found(GOOD, SELF_SIGNED), "is self-signed"),
        (found(GOOD, memory=remembering(issued(GOOD, revoked=NOW))), "was revoked on "),
        (
            found(GOOD, memory=Memory(checked=(Checked(thumbprint(GOOD), NOW, NOW),))),
            "was revoked on ",
        ),
        (
            found(GOOD, memory=Memory(checked=(Checked(thumbprint(GOOD), NOW, None),))),
            "",
        ),
    ],
)
def test_what_is_bad_is_said(seen: Snapshot, said: str) -> None:
    assert spare.fault(seen).startswith(said)
    assert bool(spare.fault(seen)) == bool(said)


# The CA's advice


def advised(*rows: Issued, now: datetime = NOW, **request: Any) -> Due:  # noqa: ANN401
    """Decide with a window that is always in the past."""
    memory = remembering(*rows, in_use=thumbprint(GOOD))
    draw = Draw(thumbprint(GOOD), START - DAY, START, START, ask_again=now)
    seen = found(GOOD, memory=memory, now=now, **request)
    return rules.decide(seen._replace(draw=draw))


def test_the_advice_brings_one_order_in_a_quarter_of_the_lifetime() -> None:
    quarter = timedelta(days=22.5)
    other = issued(LATER, advised=START, names=("other.test",))
    there = issued(LATER, advised=START, directory_url="https://another.test")

    assert advised(issued(GOOD), other, there).is_advised
    ignored = advised(issued(GOOD, advised=START), now=START + quarter - HOUR)
    assert not ignored.due
    assert ignored.ignores == START + quarter
    again = advised(issued(GOOD, advised=START), now=START + quarter)
    assert again.is_advised
    assert again.ignores is None


def test_other_reasons_to_renew_are_not_held_by_the_advice() -> None:
    row = issued(GOOD, advised=NOW - DAY)

    assert not advised(row).due
    assert advised(row, force=True).due
    assert advised(row, names=("other.test",)).due
    assert advised(row, key_type="rsa2048").due
    assert advised(row._replace(revoked=NOW)).due
    old = advised(row._replace(advised=START + 59 * DAY), now=START + 61 * DAY)
    assert old.due
    assert "a third" in old.rule
