"""A certificate is in use when every port says so, or everything is put back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.renewal import climb
from letsencrypt_mdaemon.renewal.adapters import Adapters, Request
from letsencrypt_mdaemon.renewal.deploy import (
    Deployed,
    baseline,
    cut_over,
    put_back,
)
from letsencrypt_mdaemon.renewal.proof import Judge
from letsencrypt_mdaemon.state.folder import CaState, State
from letsencrypt_mdaemon.state.memory import Attempt, Change, Memory, Target
from letsencrypt_mdaemon.verify.endpoints import Endpoint
from letsencrypt_mdaemon.verify.served import Answer, Served
from tests.certificates import NAME, leaf
from tests.fakes import MemoryStore, answer, snapshot

NOW = datetime(2026, 11, 23, tzinfo=UTC)
OLD, NEW = leaf(serial=1), leaf(serial=2)
OLD_PRINT, NEW_PRINT = thumbprint(OLD), thumbprint(NEW)
THIRD = leaf(serial=3)
THIRD_PRINT = thumbprint(THIRD)
LEAVES = {thumbprint(one): one for one in (OLD, NEW, THIRD)}
SERVICE = "a restart of the service good"
TARGET = Target("App/MDaemon.ini", "SSL", "Certificate", "sha1:upper")
MAIL, WEB, ADMIN = "smtps://127.0.0.1:465", "https://127.0.0.1:443", "https://[::1]:444"


@dataclass
class Scene:
    """A server that is its own verifier.

    Args:
        reloads: Semaphore → endpoints that use the bound certificate afterwards.
        breaks: Endpoints that serve nothing while they should serve the new one.
        slow: How often one has to look before a reload shows.
        service: Endpoints that use it after a restart; None if there is no service.
    """

    reloads: dict[str, tuple[str, ...]]
    breaks: tuple[str, ...] = ()
    slow: int = 0
    service: tuple[str, ...] | None = None
    bound: str = OLD_PRINT
    served: dict[str, str] = field(
        default_factory=lambda: dict.fromkeys((MAIL, WEB, ADMIN), OLD_PRINT)
    )
    done: list[str] = field(default_factory=list)
    fails: Answer = Answer.HANDSHAKE_FAILED
    settled: int = 0
    is_put_back: bool = False
    _next: dict[str, str] = field(default_factory=dict)
    _looks: int = 0

    def search(self) -> tuple[Target, ...]:
        raise AssertionError("not asked while a certificate is put into use")

    def planned(self, certificate: x509.Certificate) -> list[Change]:
        after = thumbprint(certificate)
        return [Change(TARGET, 1, self.bound, after)] if after != self.bound else []

    def bind(
        self,
        certificate: x509.Certificate,
        *,
        now: datetime,
        announce: Callable[[Sequence[Change]], None],
    ) -> list[Change]:
        assert now == NOW
        changes = self.planned(certificate)
        announce(changes)
        self.bound = thumbprint(certificate)
        return changes

    def named(self, names: Collection[str]) -> dict[Target, x509.Certificate | None]:
        raise AssertionError(f"not asked while {names} are put into use")

    def references(self) -> Collection[str]:
        raise AssertionError("not asked while a certificate is put into use")

    def settle(self, certificate: x509.Certificate | None) -> list[Target]:
        self.settled += 1
        return [TARGET] if self.is_put_back and certificate else []

    def restore(self, changes: Sequence[Change], *, now: datetime) -> None:
        assert now == NOW
        for change in changes:
            assert change.after == self.bound
            self.bound = change.before

    def ladder(self) -> list[str]:
        return [*self.reloads, *[SERVICE] * (self.service is not None)]

    def take(self, rung: str) -> bool:
        endpoints = self.reloads.get(rung, self.service)
        self._use(rung, endpoints or ())
        return True

    def _use(self, name: str, endpoints: Sequence[str]) -> None:
        self.done.append(name)
        for endpoint in endpoints:
            broken = endpoint in self.breaks and self.bound == NEW_PRINT
            self._next[endpoint] = "" if broken else self.bound
        self._looks = 0

    def observe(self, only: Collection[Endpoint] = ()) -> dict[Endpoint, Served]:
        self._looks += 1
        if self._looks > self.slow:
            self.served |= self._next
        answers = {
            Endpoint.parse(url): answer(LEAVES.get(was), self.fails)
            for url, was in self.served.items()
        }
        return {at: answers[at] for at in only or answers}

    def deployment(self, *, timeout: float = 0) -> Deployment:
        before = {endpoint: was for endpoint, was in self.served.items() if was}
        return Deployment(self, before, timeout)


class Remembered(State):
    """A state that keeps the attempts alone."""

    def __init__(self) -> None:
        super().__init__(Path())
        self.kept: list[Attempt] = []

    def save(self, record: object) -> None:
        if isinstance(record, Attempt):
            self.kept.append(record)


class Deployment:
    """One certificate being put into use on ports that served others before."""

    def __init__(self, scene: Scene, before: dict[str, str], timeout: float) -> None:
        self.attempt = Attempt(NEW_PRINT, before, ())
        self.state = Remembered()
        self.adapters = Adapters(
            store=MemoryStore(),
            server=scene,
            observe=scene.observe,
            state=self.state,
            ca=CaState(Path()),
            issuer=lambda: pytest.fail("no CA is asked"),
        )
        request = Request(
            names=(NAME,), key_type="p256", directory_url="", timeout=timeout
        )
        self.snapshot = snapshot(request, OLD, now=NOW, memory=Memory())

    def carry_out(self) -> Deployed:
        deployed = cut_over(self.snapshot, self.attempt, NEW, self.adapters)
        before = self.attempt.before
        first = Attempt(NEW_PRINT, before, deployed.changes)
        # Once before the changes, and once before each rung.
        assert self.state.kept == [
            first._replace(rungs=deployed.rungs[:number])
            for number in range(len(deployed.rungs) + 1)
        ]
        return deployed

    def roll_back(self, changes: tuple[Change, ...]) -> tuple[str, ...]:
        attempt = self.attempt._replace(changes=changes, undoing=True)
        return put_back(self.snapshot, attempt, self.adapters)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let time pass only while somebody sleeps."""
    clock = [0.0]
    fake = SimpleNamespace(
        monotonic=lambda: clock[0],
        sleep=lambda seconds: clock.append(clock.pop() + seconds),
    )
    monkeypatch.setattr(climb, "time", fake)


def test_the_ladder_is_left_at_the_first_rung_that_suffices() -> None:
    everything = (MAIL, WEB, ADMIN)
    scene = Scene({"RELOADCACHE.SEM": everything, "RESTARTWC.SEM": everything})

    deployed = scene.deployment().carry_out()

    assert scene.done == ["RELOADCACHE.SEM"]
    assert deployed.rungs == ("RELOADCACHE.SEM",)
    assert deployed.proof is not None
    assert set(deployed.proof.new) == set(everything)
    assert deployed.proof.is_complete


def test_the_ladder_is_climbed_as_long_as_a_port_is_left() -> None:
    scene = Scene(
        {"RELOADCACHE.SEM": (MAIL,), "RESTARTWC.SEM": (WEB,), "RESTART.SEM": (ADMIN,)}
    )

    deployed = scene.deployment().carry_out()

    assert scene.done == ["RELOADCACHE.SEM", "RESTARTWC.SEM", "RESTART.SEM"]
    assert deployed.proof is not None
    assert deployed.proof.is_complete


def test_a_port_that_never_reloads_is_told_as_old_and_nothing_is_put_back() -> None:
    scene = Scene({"RELOADCACHE.SEM": (MAIL,), "RESTARTWC.SEM": (WEB,)})

    deployed = scene.deployment().carry_out()

    assert deployed.proof is not None
    assert deployed.proof.old == (ADMIN,)
    assert not deployed.proof.broken
    assert scene.bound == NEW_PRINT


def test_a_broken_port_stops_the_climb() -> None:
    scene = Scene({"RELOADCACHE.SEM": (MAIL,), "RESTARTWC.SEM": (WEB,)}, breaks=(MAIL,))

    deployed = scene.deployment().carry_out()

    assert scene.done == ["RELOADCACHE.SEM"]
    assert deployed.proof is not None
    assert deployed.proof.broken == (MAIL,)


def test_a_server_that_takes_a_while_is_waited_for() -> None:
    scene = Scene({"RELOADCACHE.SEM": (MAIL, WEB, ADMIN)}, slow=5)

    deployed = scene.deployment(timeout=60).carry_out()

    assert deployed.proof is not None
    assert deployed.proof.is_complete


def test_without_a_port_that_spoke_before_nothing_is_proven_and_all_rungs_taken() -> (
    None
):
    scene = Scene({"RELOADCACHE.SEM": (), "RESTARTWC.SEM": ()}, served={})

    deployed = scene.deployment().carry_out()

    assert deployed.proof is None
    assert deployed.rungs == ("RELOADCACHE.SEM", "RESTARTWC.SEM")


def test_a_server_restarted_by_hand_meanwhile_is_not_told_again() -> None:
    scene = Scene({"RELOADCACHE.SEM": (MAIL,)}, bound=NEW_PRINT)
    deployment = scene.deployment()
    scene.served = dict.fromkeys(scene.served, NEW_PRINT)

    deployed = deployment.carry_out()

    assert scene.done == []
    assert deployed.proof is not None
    assert deployed.proof.is_complete


def test_rolling_back_serves_again_what_was_served_and_says_that_nothing_is_lost() -> (
    None
):
    scene = Scene(
        {"RELOADCACHE.SEM": (MAIL,), "RESTARTWC.SEM": (WEB, ADMIN)}, breaks=(WEB,)
    )
    before = dict(scene.served)
    deployment = scene.deployment()
    deployed = deployment.carry_out()
    assert deployed.proof is not None
    assert deployed.proof.broken == (WEB,)

    lost = deployment.roll_back(deployed.changes)

    assert lost == ()
    assert scene.served == before
    assert scene.bound == OLD_PRINT


def test_a_port_that_stays_broken_after_the_roll_back_is_named() -> None:
    scene = Scene({"RELOADCACHE.SEM": (MAIL,)}, breaks=(MAIL,))
    deployment = scene.deployment()
    deployed = deployment.carry_out()
    scene.reloads = {"RELOADCACHE.SEM": ()}

    assert deployment.roll_back(deployed.changes) == (MAIL,)


def test_a_server_that_takes_no_semaphore_up_is_judged_by_what_it_serves() -> None:
    scene = Scene({})
    deployment = scene.deployment()
    scene.served[WEB] = NEW_PRINT

    assert deployment.roll_back(()) == (WEB,)


@pytest.mark.parametrize("reloads", [{}, {"RELOADCACHE.SEM": (MAIL,)}])
def test_the_service_is_restarted_if_the_semaphores_do_not_suffice(
    reloads: dict[str, tuple[str, ...]],
) -> None:
    scene = Scene(reloads, service=(MAIL, WEB, ADMIN))

    deployed = scene.deployment().carry_out()

    assert scene.done == [*reloads, SERVICE]
    assert deployed.proof is not None
    assert deployed.proof.is_complete


def test_the_service_is_not_restarted_if_the_semaphores_suffice() -> None:
    scene = Scene({"RELOADCACHE.SEM": (MAIL, WEB, ADMIN)}, service=())

    scene.deployment().carry_out()

    assert scene.done == ["RELOADCACHE.SEM"]


def test_the_service_is_not_restarted_if_the_ports_change_unasked() -> None:
    scene = Scene({}, service=())
    deployment = scene.deployment()
    scene.served = dict.fromkeys(scene.served, NEW_PRINT)

    deployed = deployment.carry_out()

    assert scene.done == []
    assert deployed.rungs == ()


def test_the_service_is_not_restarted_if_no_port_can_prove_the_need() -> None:
    scene = Scene({"RELOADCACHE.SEM": ()}, service=(), served={})

    scene.deployment().carry_out()

    assert scene.done == ["RELOADCACHE.SEM"]


def test_the_service_is_not_restarted_over_a_broken_port() -> None:
    scene = Scene({"RELOADCACHE.SEM": (MAIL,)}, breaks=(MAIL,), service=(WEB,))

    scene.deployment().carry_out()

    assert scene.done == ["RELOADCACHE.SEM"]


def test_rolling_back_may_take_a_restart_of_the_service() -> None:
    scene = Scene({}, breaks=(WEB,), service=(MAIL, WEB, ADMIN))
    deployment = scene.deployment()
    deployed = deployment.carry_out()

    assert deployment.roll_back(deployed.changes) == ()
    assert scene.done == [SERVICE, SERVICE]


leaves = st.sampled_from([None, OLD, NEW, THIRD])
ports = st.dictionaries(st.sampled_from([MAIL, WEB, ADMIN]), leaves)


@given(before=ports, after=ports, named=st.booleans())
def test_every_port_that_served_before_gets_exactly_one_verdict(
    before: dict[str, x509.Certificate | None],
    after: dict[str, x509.Certificate | None],
    *,
    named: bool,
) -> None:
    served = {endpoint: thumbprint(was) for endpoint, was in before.items() if was}
    seen = {Endpoint.parse(url): answer(shown) for url, shown in after.items()}
    judge = Judge(served, NEW_PRINT, (), given=named, now=NOW)

    proof = judge(seen)

    assert [row.endpoint for row in proof.rows] == list(after)
    for row in proof.rows:
        was, shown = before.get(row.endpoint), after[row.endpoint]
        if shown == NEW:
            assert row.verdict == "new"
        elif was is None:
            assert row.verdict in {"unproven", "foreign", "old"}
        elif shown is None:
            assert row.verdict == "broken"
        else:
            assert row.verdict == ("old" if shown in before.values() else "broken")
        assert row.reason or row.verdict == "new"


@pytest.mark.parametrize(("named", "expected"), [(True, {MAIL, WEB}), (False, {MAIL})])
def test_a_port_of_another_program_counts_only_if_it_was_named(
    *, named: bool, expected: set[str]
) -> None:
    scene = Scene({}, served={MAIL: OLD_PRINT, WEB: THIRD_PRINT, ADMIN: ""})
    deployment = scene.deployment()
    found = deployment.snapshot
    found = found._replace(request=found.request._replace(given=named))

    assert set(baseline(found, deployment.adapters)) == expected


def test_values_that_were_put_back_at_the_end_are_told() -> None:
    scene = Scene({"RELOADCACHE.SEM": (MAIL, WEB, ADMIN)}, is_put_back=True)

    deployed = scene.deployment().carry_out()

    assert deployed.strays == (TARGET,)


def test_what_was_written_late_is_settled_even_if_the_reload_fails() -> None:
    scene = Scene({"RELOADCACHE.SEM": (MAIL, WEB, ADMIN)})

    with (
        patch.object(scene, "take", side_effect=DeployError("No.")),
        pytest.raises(DeployError),
    ):
        scene.deployment().carry_out()

    assert scene.settled == 1
