"""What happens to a certificate, by TLSA records, key policy and the time left."""

from __future__ import annotations

import itertools
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.pki.tlsa import Tlsa, of_key
from letsencrypt_mdaemon.policy.dane import Found, Published
from letsencrypt_mdaemon.renewal import dane
from letsencrypt_mdaemon.renewal.adapters import Request
from letsencrypt_mdaemon.renewal.dane import Act, Dane, Fit, Left, decide, merge
from letsencrypt_mdaemon.renewal.snapshot import Snapshot
from letsencrypt_mdaemon.state.memory import Issued, Memory
from letsencrypt_mdaemon.state.pins import Pins
from tests.certificates import NAME, START, certificate, key
from tests.fakes import snapshot

DAY = timedelta(days=1)
NOW = START + DAY
POLICIES = ("new", "reuse", "next")
OWNER = f"_25._tcp.{NAME}"
OLD, NEW, THIRD = (certificate(own_key=key(n), serial=n) for n in (21, 22, 23))
OLD_PIN, NEW_PIN = of_key(OLD.key), of_key(NEW.key)
FULL = Tlsa(3, 0, 1, "0" * 64)

# The table of docs/keys-and-dane.md; * = whatever it is.
TABLE = """\
free     *     *       *    use
matches  *     *       *    use
unknown  *     *       *    warn
soon     *     plenty  *    wait
breaks   next  plenty  *    wait
breaks   new   plenty  *    refuse
breaks   reuse plenty  *    refuse
soon     *     little  yes  current
soon     *     little  no   wait
breaks   *     little  yes  current
breaks   next  little  no   wait
breaks   new   little  no   refuse
breaks   reuse little  no   refuse
soon     *     last    yes  current
breaks   *     last    yes  current
soon     *     last    no   mail
breaks   *     last    no   mail
"""
ROWS = [line.split() for line in TABLE.splitlines()]
CASES = list(itertools.product(Fit, POLICIES, Left, [True, False]))


@pytest.mark.parametrize(("fit", "policy", "left", "has_current"), CASES)
def test_one_row_of_the_table_decides(
    fit: Fit, policy: str, left: Left, *, has_current: bool
) -> None:
    case = fit.name.lower(), policy, left.name.lower(), "yes" if has_current else "no"

    (act,) = {
        act
        for *row, act in ROWS
        if all(cell in ("*", is_) for cell, is_ in zip(row, case, strict=True))
    }

    assert decide(fit, policy, left, has_current=has_current) is Act[act.upper()]


def test_the_table_is_in_the_manual() -> None:
    text = (Path(__file__).parents[2] / "docs/keys-and-dane.md").read_text("utf-8")

    for fit in (Fit.SOON, Fit.BREAKS, Fit.UNKNOWN):
        for act in {
            decide(fit, policy, left, has_current=has)
            for each, policy, left, has in CASES
            if each is fit
        }:
            assert act.value in text, act
    assert all(left.value in text for left in Left)


CALM = st.sampled_from([Fit.FREE, Fit.MATCHES])
DANGER = st.sampled_from([Fit.SOON, Fit.BREAKS])
POLICY, LEFT, HAS = st.sampled_from(POLICIES), st.sampled_from(Left), st.booleans()


@given(CALM, POLICY, LEFT, HAS)
def test_what_breaks_nothing_is_never_held_up(
    fit: Fit,
    policy: str,
    left: Left,
    has: bool,  # noqa: FBT001 - hypothesis
) -> None:
    assert decide(fit, policy, left, has_current=has) is Act.USE


@given(DANGER, POLICY, HAS)
def test_nothing_that_breaks_mail_is_used_before_the_last_days(
    fit: Fit,
    policy: str,
    has: bool,  # noqa: FBT001 - hypothesis
) -> None:
    for left in (Left.PLENTY, Left.LITTLE):
        act = decide(fit, policy, left, has_current=has)
        assert act in (Act.WAIT, Act.REFUSE, Act.CURRENT)


@given(st.sampled_from(Fit), POLICY, HAS)
def test_nothing_waits_for_ever(
    fit: Fit,
    policy: str,
    has: bool,  # noqa: FBT001 - hypothesis
) -> None:
    assert decide(fit, policy, Left.LAST, has_current=has) not in (
        Act.WAIT,
        Act.REFUSE,
    )


@given(DANGER, POLICY, LEFT)
def test_the_current_key_spares_a_loss_once_little_is_left(
    fit: Fit, policy: str, left: Left
) -> None:
    act = decide(fit, policy, left, has_current=True)
    assert (act is Act.CURRENT) == (left is not Left.PLENTY)


# The time left


@pytest.mark.parametrize(
    ("lifetime", "little", "last"),
    [(90, 7.0, 3.0), (45, 4.5, 1.93), (6, 0.6, 0.257), (365, 7.0, 3.0)],
)
def test_little_is_left_in_the_last_week_or_tenth(
    lifetime: int, little: float, last: float
) -> None:
    leaf = certificate(lifetime=timedelta(days=lifetime)).leaf
    end = leaf.not_valid_after_utc

    begins = [(end - at) / DAY for at in dane.limits(leaf)]

    assert begins == pytest.approx([little, last], abs=0.01)
    at, after = dane.limits(leaf)
    tick = timedelta(seconds=1)
    for now, left in [
        (at - tick, Left.PLENTY),
        (at, Left.LITTLE),
        (after - tick, Left.LITTLE),
        (after, Left.LAST),
        (end + DAY, Left.LAST),
    ]:
        shown = snapshot(found().request, leaf, now=now, memory=Memory())
        assert dane.left(shown) is left


def found(*pins: object, **changes: object) -> Snapshot:
    """Return what a run sees with OLD in use."""
    request = Request(names=(NAME,), key_type="p256", directory_url="https://ca.test")
    made = snapshot(request, OLD.leaf, now=NOW, memory=Memory())
    rows = [dane.pinned(pin, [OLD.chain]) for pin in pins]  # type: ignore[arg-type]
    known = Dane(tuple(row for row in rows if row.matched), pins)  # type: ignore[arg-type]
    return made._replace(dane=known, **changes)  # type: ignore[arg-type]


def test_a_certificate_that_was_revoked_has_nothing_left() -> None:
    revoked = Issued(thumbprint(OLD.leaf), "https://ca.test", (NAME,), revoked=NOW)

    assert dane.left(found(memory=Memory(issued=(revoked,)))) is Left.LAST
    assert dane.left(found()) is Left.PLENTY


# What was published, and since when


def published(*records: Tlsa, ttl: int = 3600, why: str = "", **more: object) -> Found:
    row = Published(OWNER, NAME, 25, records, (), ttl, why)
    return Found((row._replace(**more),), hosts=(NAME,))  # type: ignore[arg-type]


def seen(*looks: tuple[Found, timedelta]) -> Pins:
    """Return what is known after some looks."""
    pins = Pins()
    for look, after in looks:
        pins, _ = merge(pins, look, NOW + after)
    return pins


def judged(pins: Pins, after: timedelta, of: object = NEW) -> dane.Judged:
    at = found(*pins.pins)._replace(now=NOW + after)
    return dane.judge(at, of.chain)  # type: ignore[attr-defined]


HOUR = timedelta(hours=1)
ZERO = timedelta()


def test_a_new_record_counts_when_caches_have_forgotten_the_former_ones() -> None:
    pins = seen((published(OLD_PIN), ZERO), (published(OLD_PIN, NEW_PIN), HOUR))

    assert judged(seen((published(OLD_PIN), ZERO)), ZERO).fit is Fit.BREAKS
    soon = judged(pins, HOUR)
    assert (soon.fit, soon.until) == (Fit.SOON, NOW + 2 * HOUR)
    assert judged(pins, 2 * HOUR - timedelta(seconds=1)).fit is Fit.SOON
    assert judged(pins, 2 * HOUR).fit is Fit.MATCHES


@pytest.mark.parametrize(
    ("before", "after", "wait"),
    [(1, 1, 1), (86_400, 1, 86_400), (1, 86_400, 86_400), (2**31, 60, 7 * 86_400)],
)
def test_the_longer_ttl_of_before_and_after_counts(
    before: int, after: int, wait: int
) -> None:
    pins = seen(
        (published(OLD_PIN, ttl=before), ZERO),
        (published(OLD_PIN, NEW_PIN, ttl=after), HOUR),
    )

    span = timedelta(seconds=wait)
    assert judged(pins, HOUR + span - timedelta(seconds=1)).fit is Fit.SOON
    assert judged(pins, HOUR + span).fit is Fit.MATCHES


def test_looking_again_does_not_begin_the_wait_again() -> None:
    both = published(OLD_PIN, NEW_PIN)
    pins = seen((both, ZERO), (both, HOUR / 2), (both, HOUR))

    assert judged(pins, HOUR).fit is Fit.MATCHES


def test_a_record_that_was_gone_for_a_while_begins_to_wait_again() -> None:
    both = published(OLD_PIN, NEW_PIN)
    pins = seen((both, ZERO), (published(OLD_PIN), HOUR), (both, 2 * HOUR))

    assert judged(pins, 2 * HOUR).fit is Fit.SOON


def test_a_record_that_one_server_lacks_is_not_published() -> None:
    pins = seen((published(OLD_PIN, partly=(NEW_PIN,)), ZERO))

    assert judged(pins, 10 * DAY).fit is Fit.BREAKS


def test_a_clock_that_was_wrong_makes_nobody_wait_longer_than_a_ttl() -> None:
    pins = seen((published(OLD_PIN, NEW_PIN), 100 * DAY))
    pins, _ = merge(pins, published(OLD_PIN, NEW_PIN), NOW)

    assert judged(pins, HOUR).fit is Fit.MATCHES


@pytest.mark.parametrize(
    ("records", "fit"),
    [
        ((), Fit.FREE),
        ((THIRD_PIN := of_key(THIRD.key),), Fit.FREE),  # it pins another server
        ((FULL,), Fit.FREE),
        ((OLD_PIN,), Fit.BREAKS),
        ((OLD_PIN, THIRD_PIN), Fit.BREAKS),
        ((OLD_PIN, Tlsa(3, 1, 9, NEW_PIN.digest)), Fit.BREAKS),
        ((Tlsa(1, 1, 1, OLD_PIN.digest),), Fit.FREE),  # unusable at port 25
    ],
)
def test_only_what_matches_now_can_be_broken(
    records: tuple[Tlsa, ...], fit: Fit
) -> None:
    assert judged(seen((published(*records), ZERO)), DAY).fit is fit


def test_the_same_key_waits_for_nothing_and_the_same_issuer_neither() -> None:
    again = certificate(own_key=key(21), serial=99)
    issuer = Tlsa.read(2, 1, 1, bytes.fromhex(of_key(OLD.chain[1]).digest))

    key_only = seen((published(OLD_PIN), ZERO))
    issuer_only = seen((published(issuer), ZERO))

    assert judged(key_only, ZERO, again).fit is Fit.MATCHES
    assert judged(issuer_only, ZERO, NEW).fit is Fit.MATCHES
    alone = dane.judge(found(*issuer_only.pins), NEW.chain[:1])
    assert alone.fit is Fit.BREAKS


def test_every_pinned_port_has_to_match() -> None:
    row = published(OLD_PIN, NEW_PIN).ports[0]
    other = row._replace(owner="_465._tcp.x", port=465, records=(OLD_PIN,))
    pins = seen((Found((row, other), hosts=(NAME,)), ZERO))

    found_ = judged(pins, DAY)

    assert found_.fit is Fit.BREAKS
    assert [pin.owner for pin in found_.ports] == ["_465._tcp.x"]


# DNS that fails


def test_the_last_answer_counts_for_seven_days() -> None:
    known, failing = seen((published(OLD_PIN), ZERO)), published(why="bogus")

    for after, fit in [(DAY, Fit.BREAKS), (7 * DAY, Fit.BREAKS)]:
        pins, unknown = merge(known, failing, NOW + after)
        assert judged(pins, after).fit is fit
        assert unknown == ""
    pins, unknown = merge(known, failing, NOW + 7 * DAY + HOUR)
    assert pins == Pins()
    assert "bogus" in unknown


def test_an_unknown_answer_is_a_warning_only_if_nothing_else_decides() -> None:
    pins, unknown = merge(Pins(), published(why="bogus"), NOW)
    at = found(*pins.pins)
    at = at._replace(dane=at.dane._replace(unknown=unknown))

    assert dane.judge(at, NEW.chain).fit is Fit.UNKNOWN
    known = found(*seen((published(OLD_PIN), ZERO)).pins)
    known = known._replace(dane=known.dane._replace(unknown=unknown))
    assert dane.judge(known, NEW.chain).fit is Fit.BREAKS


def test_ports_of_a_domain_whose_mx_hosts_are_unknown_stay_pinned() -> None:
    known = seen((published(OLD_PIN), ZERO))
    failing = Found(failed=(("example.test", "no answer"),), hosts=("other.test",))

    pins, unknown = merge(known, failing, NOW + DAY)
    assert pins == known
    assert "example.test: no answer" in unknown
    # Unless the host itself was looked up, and has no records any more.
    assert merge(known, failing._replace(hosts=(NAME,)), NOW + DAY)[0] == Pins()
    assert merge(known, Found(hosts=("other.test",)), NOW + DAY)[0] == Pins()
