"""When the next rung of the reload ladder is taken: the whole table, without a port."""

from __future__ import annotations

from itertools import product

import pytest

from letsencrypt_mdaemon.renewal import ladder
from letsencrypt_mdaemon.renewal.ladder import KINDS, Patience, Progress, patience
from letsencrypt_mdaemon.state.memory import Rung

TIMEOUT = 60.0
FULL = Patience(TIMEOUT)
AT_ONCE = Patience(0)
SOON = Patience(5, from_change=True)
CACHE = ladder.known("RELOADCACHE.SEM", ())
WEBMAIL = ladder.known("RESTARTWC.SEM", ())
RESTART = ladder.known("RESTART.SEM", ())
SERVICE = ladder.known("a restart of the service MDaemon", ())
RUNGS = (CACHE, WEBMAIL, RESTART, SERVICE)


def after(
    rung: Rung,
    *old: str,
    following: Rung | None = WEBMAIL,
    broken: bool = False,
    silent: bool = False,
    changed: bool = False,
) -> Patience:
    progress = Progress(frozenset(old), broken, silent, changed)
    return patience(rung, following.name if following else None, progress, TIMEOUT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("changed", [True, False])
def test_after_a_rung_only_what_it_can_change_is_waited_for(
    kind: str, *, changed: bool
) -> None:
    expected = SOON if kind == "mail" else AT_ONCE

    assert after(CACHE, kind, changed=changed) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_rung_of_unknown_name_can_change_everything(kind: str) -> None:
    assert after(ladder.known("DOMAINS.SEM", ()), kind) == SOON


@pytest.mark.parametrize(("rung", "kind"), [*product(RUNGS, KINDS)])
def test_after_the_last_rung_there_is_full_patience(rung: Rung, kind: str) -> None:
    for changed in (True, False):
        assert after(rung, kind, following=None, changed=changed) == FULL


@pytest.mark.parametrize(("rung", "harsh"), [*product(RUNGS[:3], RUNGS[2:])])
@pytest.mark.parametrize("kind", KINDS)
def test_before_a_restart_there_is_full_patience_unless_a_reload_showed(
    rung: Rung, harsh: Rung, kind: str
) -> None:
    assert after(rung, kind, following=harsh, changed=True) == SOON
    assert after(rung, kind, following=harsh) == FULL


@pytest.mark.parametrize(("rung", "following"), [*product(RUNGS, [*RUNGS, None])])
def test_a_broken_port_has_full_patience(rung: Rung, following: Rung | None) -> None:
    for old in ((), KINDS):
        for changed in (True, False):
            found = after(rung, *old, following=following, broken=True, changed=changed)
            assert found == FULL


@pytest.mark.parametrize(("rung", "following"), [*product(RUNGS, [*RUNGS, None])])
def test_a_silent_port_has_full_patience_and_more_after_a_restart(
    rung: Rung, following: Rung | None
) -> None:
    expected = Patience(180) if rung in (RESTART, SERVICE) else FULL

    assert after(rung, "mail", following=following, silent=True) == expected


@pytest.mark.parametrize(("rung", "following"), [*product(RUNGS, [*RUNGS, None])])
def test_nothing_is_waited_for_when_all_is_right(
    rung: Rung, following: Rung | None
) -> None:
    assert after(rung, following=following, changed=True) == AT_ONCE


def test_no_patience_is_longer_than_the_timeout() -> None:
    progress = Progress(frozenset(["mail"]))

    assert patience(CACHE, WEBMAIL.name, progress, 1.0).seconds == 1


def test_a_rung_that_took_long_is_given_that_time_again() -> None:
    slow = CACHE._replace(seconds=8)

    assert after(slow, "mail") == Patience(16, from_change=True)


@pytest.mark.parametrize(
    ("name", "harsh"),
    [
        ("RELOADCACHE.SEM", False),
        ("reloadcache.sem", False),
        ("RESTARTWC.SEM", False),
        ("Restart.sem", True),
        ("a restart of the service MDaemon", True),
    ],
)
def test_it_is_known_what_interrupts_the_mail(name: str, *, harsh: bool) -> None:
    assert ladder.is_restart(name) is harsh


def test_what_a_rung_changed_is_remembered_and_what_it_did_not_change_is_too() -> None:
    found = ladder.learned(CACHE, {"mail", "web"}, {"web"}, 2.3)

    assert found == Rung("RELOADCACHE.SEM", ("web",), 3)
    assert ladder.known("RELOADCACHE.SEM", [WEBMAIL, found]) == found
    assert after(found, "mail") == AT_ONCE


def test_nothing_is_learned_of_endpoints_that_were_right_before() -> None:
    assert ladder.learned(WEBMAIL, (), (), 9.0) == WEBMAIL
