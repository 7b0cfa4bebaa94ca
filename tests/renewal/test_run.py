"""What a run leaves when a step of it fails, and what the next run makes of that."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from letsencrypt_mdaemon.errors import (
    AcmeError,
    ChallengeError,
    ConfigError,
    DeployError,
)
from letsencrypt_mdaemon.pki.certificate import Certificate, thumbprint
from letsencrypt_mdaemon.renewal import deploy, due, run
from letsencrypt_mdaemon.renewal import snapshot as snapshots
from letsencrypt_mdaemon.renewal.adapters import Adapters, Outcome, Request
from letsencrypt_mdaemon.renewal.climb import Climbed, climb
from letsencrypt_mdaemon.state.folder import State
from letsencrypt_mdaemon.state.memory import Attempt, OpenOrder, Revocation, Window
from letsencrypt_mdaemon.text import when
from tests.certificates import START, certificate, leaf
from tests.fakes import PORTS, RUNGS, MemoryIssuer, MemoryServer, MemoryStore, contents

NAMES = ("mail.example.test", "imap.example.test")
NOW = START + timedelta(hours=1)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
DIRECTORY = "https://ca.test/directory"
ORDER = Request(names=NAMES, key_type="p256", directory_url=DIRECTORY, timeout=0)


class Store(MemoryStore):
    """A store in memory; what is in `failing` cannot be done with it."""

    def __init__(self) -> None:
        super().__init__()
        self.failing: set[str] = set()

    def install(self, certificate: Certificate) -> tuple[str, ...]:
        self._try("install")
        return super().install(certificate)

    def remove(self, wanted: str) -> None:
        self._try("remove")
        super().remove(wanted)

    def _try(self, what: str) -> None:
        if what in self.failing:
            raise DeployError(f"{what} is not possible.", hint="Wait.")


@dataclass
class Scene:
    """An installation in memory, and a CA that issues for 90 days from then on."""

    store: Store
    server: MemoryServer
    issuer: MemoryIssuer
    parts: Adapters
    first: x509.Certificate
    now: datetime = NOW

    def renew(self, **order: object) -> Outcome:
        """Run with an order that differs from the usual one."""
        wanted = ORDER._replace(**order)  # type: ignore[arg-type]
        memory = self.parts.state.load()
        return run.renew(wanted, self.parts, memory, now=self.now)

    def roll_back(self) -> Outcome:
        """Go back to the last certificate that worked."""
        memory = self.parts.state.load()
        return run.roll_back(ORDER, self.parts, memory, now=self.now)

    @property
    def bound(self) -> set[str]:
        """The thumbprints that the server's files name."""
        return set(self.server.values.values())

    @property
    def old(self) -> str:
        """The thumbprint of what was there in the beginning."""
        return thumbprint(self.first)

    @property
    def pending(self) -> str:
        """The thumbprint of the certificate that waits; empty if none does."""
        found = self.parts.ca.pending()
        return found.thumbprint if found else ""


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    serials = itertools.count(2)

    def issue(names: Sequence[str]) -> Certificate:
        return certificate(names, start=made.now, serial=next(serials))

    store, issuer = Store(), MemoryIssuer(issue)
    first = leaf(NAMES, serial=1)
    store.put(first, "chosen by hand")
    server = MemoryServer(store, first)
    state = State(tmp_path / "state")
    parts = Adapters(
        store=store,
        server=server,
        observe=server.observe,
        state=state,
        ca=state.ca(DIRECTORY, staging=False),
        issuer=lambda: issuer,
    )
    made = Scene(store, server, issuer, parts, first)
    return made


def new(outcome: Outcome) -> str:
    """Return the thumbprint of the certificate that a run has put into use."""
    assert outcome.renewed
    assert outcome.certificate is not None
    return thumbprint(outcome.certificate)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was warned of."""
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


# Nothing fails


def test_a_run_obtains_installs_binds_reloads_and_proves_in_this_order(
    scene: Scene,
) -> None:
    outcome = scene.renew()

    assert scene.issuer.orders == [(NAMES, None)]
    assert scene.server.done == ["bind", *RUNGS]
    assert scene.bound == {new(outcome)}
    assert outcome.reloaded == RUNGS
    assert outcome.proof is not None
    assert outcome.proof.new == PORTS
    assert len(outcome.changes) == 2
    assert scene.pending == ""
    assert scene.parts.state.attempt() is None


def test_the_next_run_does_nothing(scene: Scene) -> None:
    first = new(scene.renew())
    scene.server.done.clear()
    scene.now += DAY

    outcome = scene.renew()

    assert not outcome.renewed
    assert scene.server.done == []
    assert len(scene.issuer.orders) == 1
    assert scene.bound == {first}


def test_an_order_replaces_the_certificate_in_use_only_if_it_is_ours(
    scene: Scene,
) -> None:
    ours = new(scene.renew())
    scene.now += 80 * DAY

    scene.renew()

    assert scene.issuer.orders == [(NAMES, None), (NAMES, ours)]


def test_ports_that_speak_no_tls_leave_a_warning(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.server.ports = dict.fromkeys(PORTS, "")
    scene.server.deaf.update(PORTS)

    outcome = scene.renew()

    assert outcome.renewed
    assert outcome.proof is not None
    assert outcome.proof.unproven == PORTS
    assert outcome.error is None
    assert any("Nothing could be verified" in line for line in warnings(caplog))


# decide, obtain: as before


@pytest.mark.parametrize("error", [AcmeError("Too many."), ConfigError("Agree first.")])
def test_a_certificate_that_is_not_issued_leaves_all_as_it_was(
    error: Exception, scene: Scene
) -> None:
    scene.issuer.errors.append(error)

    with pytest.raises(type(error)):
        scene.renew()

    assert scene.server.done == []
    assert scene.store.kept.keys() == {scene.old}
    assert scene.pending == ""
    assert new(scene.renew())


def test_a_ca_that_gives_no_advice_keeps_no_run_from_deciding(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.renew()
    scene.now += DAY
    scene.issuer.errors.append(AcmeError("It cannot be reached."))

    outcome = scene.renew()

    assert not outcome.renewed
    assert any("It cannot be reached." in line for line in warnings(caplog))


def test_a_window_is_drawn_from_once_and_obeyed(scene: Scene) -> None:
    scene.renew()
    window = Window(start=scene.now + 5 * DAY, end=scene.now + 6 * DAY)
    scene.issuer.windows = [window, window, window]
    drawn = set()
    for _ in range(3):
        scene.now += DAY
        outcome = scene.renew()
        assert not outcome.renewed
        drawn.add(outcome.next_at)

    (moment,) = drawn
    assert moment is not None
    assert window.start <= moment <= window.end
    scene.now = moment
    assert "ARI" in scene.renew().reason


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (40, "; renewal is planned for "),
        (80, " of the certificate's lifetime is left "),
    ],
)
def test_of_the_advice_and_the_rules_only_the_earliest_is_dated(
    scene: Scene, caplog: pytest.LogCaptureFixture, days: int, said: str
) -> None:
    caplog.set_level(logging.INFO)
    scene.renew()
    start = scene.now + days * DAY
    scene.issuer.windows.append(Window(start, start + DAY))

    outcome = scene.renew()

    (line,) = [x for x in caplog.messages if x.startswith("The CA suggests renewing")]
    assert outcome.next_at is not None
    assert said in line
    assert line.endswith(f" {when(outcome.next_at, scene.now)}")


def test_changed_names_are_told_in_their_order(scene: Scene) -> None:
    scene.renew()
    more = tuple(f"{letter}.example.test" for letter in "zyxabc")

    outcome = scene.renew(names=NAMES + more)

    assert outcome.reason == f"the names changed: with {', with '.join(more)}"


# obtain: a name fails, and the certificate may go without it

POP = "pop.example.test"


def unproven(*names: str) -> ChallengeError:
    """Return what a CA says that cannot validate some names."""
    return ChallengeError("It failed.", names=dict.fromkeys(names, "Nobody answers."))


def test_a_name_that_fails_is_left_out_if_wanted_and_tried_again_a_day_later(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.issuer.errors.append(unproven(POP))

    outcome = scene.renew(names=(*NAMES, POP), drop=True)

    assert new(outcome)
    assert scene.issuer.orders == [(NAMES, None)]
    assert any(POP in line for line in warnings(caplog))
    assert [item.name for item in outcome.dropped] == [POP]
    assert not scene.renew(names=(*NAMES, POP), drop=True).renewed
    scene.now += DAY
    scene.issuer.errors += [AcmeError("No advice."), unproven(POP)]
    again = scene.renew(names=(*NAMES, POP), drop=True)
    assert not again.renewed
    assert [item.since for item in again.dropped] == [NOW]
    scene.now += DAY
    whole = scene.renew(names=(*NAMES, POP), drop=True)
    assert new(whole)
    assert whole.dropped == ()
    assert scene.issuer.orders[-1][0] == (*NAMES, POP)


@pytest.mark.parametrize(
    ("failing", "drop"), [(POP, False), (NAMES[0], True), (NAMES[1], True)]
)
def test_a_name_that_fails_ends_the_run_unless_it_is_wanted_otherwise_and_no_loss(
    failing: str,
    drop: bool,  # noqa: FBT001
    scene: Scene,
) -> None:
    scene.issuer.errors.append(unproven(failing))

    with pytest.raises(ChallengeError):
        scene.renew(names=(*NAMES, POP), drop=drop)

    assert scene.server.done == []
    assert scene.issuer.orders == []


# install, bind: the certificate is kept, the files are old


def test_a_certificate_that_cannot_be_installed_is_kept_and_installed_by_the_next_run(
    scene: Scene,
) -> None:
    scene.store.failing.add("install")

    with pytest.raises(DeployError, match="install is not possible"):
        scene.renew()

    assert scene.bound == {scene.old}
    kept = scene.pending
    assert kept
    scene.store.failing.clear()
    assert new(scene.renew()) == kept
    assert len(scene.issuer.orders) == 1
    assert scene.pending == ""


def test_a_certificate_that_cannot_be_bound_is_kept_and_bound_by_the_next_run(
    scene: Scene,
) -> None:
    scene.server.failing.add("bind")

    with pytest.raises(DeployError, match="bind is not possible"):
        scene.renew()

    assert scene.bound == {scene.old}
    kept = scene.pending
    assert set(scene.store.kept) == {scene.old, kept}
    scene.server.failing.clear()
    assert new(scene.renew()) == kept
    assert len(scene.issuer.orders) == 1


@pytest.mark.parametrize(
    "order", [{"names": NAMES[:1]}, {"key_type": "p384"}, {"force": True}]
)
def test_a_kept_certificate_that_is_not_wanted_any_more_is_not_used(
    order: dict[str, object], scene: Scene
) -> None:
    scene.server.failing.add("bind")
    with pytest.raises(DeployError):
        scene.renew()
    kept = scene.pending
    scene.server.failing.clear()

    outcome = scene.renew(**order)

    assert new(outcome) != kept
    assert len(scene.issuer.orders) == 2


def test_a_kept_certificate_that_would_be_due_itself_is_not_used(scene: Scene) -> None:
    scene.server.failing.add("bind")
    with pytest.raises(DeployError):
        scene.renew()
    kept = scene.pending
    scene.server.failing.clear()
    scene.now += 61 * DAY

    assert new(scene.renew()) != kept


# reload, prove: a port is broken


def broken(scene: Scene) -> str:
    """Let a port break with the new certificate, and return that."""
    scene.server.broken.add(PORTS[1])
    with pytest.raises(DeployError, match="Rolled back") as failed:
        scene.renew()
    assert PORTS[1] in failed.value.message
    return scene.pending


def test_a_broken_port_puts_everything_back(scene: Scene) -> None:
    kept = broken(scene)

    assert scene.bound == set(scene.server.ports.values()) == {scene.old}
    assert scene.server.done == ["bind", *RUNGS, "restore", *RUNGS]
    assert kept in scene.store.kept


def test_what_a_roll_back_learned_of_the_rungs_is_kept(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_a_restart(*args: Any) -> Climbed:  # noqa: ANN401 - handed on
        climbed = climb(*args)
        attempt = next(arg for arg in args if isinstance(arg, Attempt))
        if not attempt.undoing:
            return climbed
        memory = climbed.memory._replace(restarted=scene.now, rungs=())
        return climbed._replace(memory=memory)

    monkeypatch.setattr(deploy, "climb", with_a_restart)

    kept = broken(scene)

    memory = scene.parts.state.load()
    assert (memory.restarted, memory.rungs) == (scene.now, ())
    assert (issued := memory.find(kept))
    assert issued.rolled_back is not None


def test_what_was_rolled_back_is_tried_again_a_day_later_without_an_order(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    kept = broken(scene)
    scene.server.broken.clear()
    scene.server.done.clear()
    scene.now += timedelta(hours=12)

    outcome = scene.renew()

    assert not outcome.renewed
    assert scene.server.done == []
    assert any("the next attempt is after" in line for line in warnings(caplog))
    scene.now += timedelta(hours=12)
    assert new(scene.renew()) == kept
    assert len(scene.issuer.orders) == 1


def test_what_was_rolled_back_is_tried_at_once_if_asked(scene: Scene) -> None:
    kept = broken(scene)
    scene.server.broken.clear()

    assert new(scene.renew(activate_only=True)) == kept


def test_what_was_rolled_back_is_tried_at_every_run_when_it_is_urgent(
    scene: Scene,
) -> None:
    scene.now = scene.first.not_valid_after_utc - 2 * DAY
    kept = broken(scene)
    scene.server.broken.clear()
    scene.now += timedelta(hours=1)

    assert new(scene.renew()) == kept


def test_a_roll_back_that_fails_is_finished_by_the_next_run(scene: Scene) -> None:
    scene.server.broken.add(PORTS[1])
    scene.server.failing.add("restore")
    with pytest.raises(DeployError, match="restore is not possible"):
        scene.renew()
    assert scene.bound != {scene.old}
    scene.server.failing.clear()

    with pytest.raises(DeployError, match="interrupted during a rollback"):
        scene.renew()

    assert scene.bound == set(scene.server.ports.values()) == {scene.old}
    scene.server.broken.clear()
    assert new(scene.renew(activate_only=True))


def test_a_port_that_stays_lost_after_a_roll_back_is_named(scene: Scene) -> None:
    scene.server.broken.add(PORTS[1])
    ladder = scene.server.ladder

    def deaf_from_now_on() -> tuple[str, ...]:
        if "restore" in scene.server.done:
            scene.server.deaf.add(PORTS[1])
        return ladder()

    scene.server.ladder = deaf_from_now_on  # type: ignore[method-assign]

    with pytest.raises(
        DeployError, match="do not serve their previous certificate"
    ) as failed:
        scene.renew()

    assert PORTS[1] in failed.value.message
    assert scene.bound == {scene.old}


# reload, prove: a port is still old


def test_a_port_that_stays_old_fails_the_run_and_the_next_one_looks_again(
    scene: Scene,
) -> None:
    scene.server.deaf.add(PORTS[1])

    with pytest.raises(DeployError, match="still serve the old one") as failed:
        scene.renew()

    assert PORTS[1] in failed.value.message
    assert PORTS[0] not in failed.value.message
    kept = scene.pending
    assert scene.bound == {kept}
    with pytest.raises(DeployError, match="still serve the old one"):
        scene.renew()
    assert scene.server.done == ["bind", *RUNGS, "bind", *RUNGS]
    scene.server.restart()
    scene.server.done.clear()
    outcome = scene.renew()
    assert new(outcome) == kept
    assert outcome.reloaded == ()
    assert len(scene.issuer.orders) == 1


# remove


def test_an_old_certificate_that_cannot_be_removed_is_a_warning_until_the_next_time(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    first = new(scene.renew(remove_old=True))
    scene.now += 80 * DAY
    scene.store.failing.add("remove")

    outcome = scene.renew(remove_old=True)

    assert outcome.removed == ()
    assert any("remove is not possible" in line for line in warnings(caplog))
    second = new(outcome)
    scene.store.failing.clear()
    scene.now += 80 * DAY
    assert set(scene.renew(remove_old=True).removed) == {first, second}
    assert scene.old in scene.store.kept


def test_an_old_certificate_that_something_else_names_is_not_removed(
    scene: Scene,
) -> None:
    first = new(scene.renew())
    scene.server.others.add(first)
    scene.now += 80 * DAY

    assert scene.renew(remove_old=True).removed == ()


# A certificate that is there already


def put_back(scene: Scene, value: str = "") -> None:
    """Let somebody write a value back into the server's files."""
    scene.server.values = dict.fromkeys(scene.server.values, value or scene.old)
    scene.server.restart()


@pytest.mark.parametrize("whose", ["theirs", "ours"])
def test_a_value_that_was_put_back_is_mended_without_the_ca(
    scene: Scene, whose: str
) -> None:
    former = new(scene.renew())
    ours = new(scene.renew(force=True))
    put_back(scene, former if whose == "ours" else "")
    scene.now += DAY
    scene.issuer.errors.append(AssertionError("the CA is asked"))

    outcome = scene.renew()

    assert new(outcome) == ours
    assert "; a good one is in the store" in outcome.reason
    assert outcome.error is None
    assert len(scene.issuer.orders) == 2
    assert scene.parts.state.load().in_use == ours


def test_the_third_time_in_a_week_is_an_error_though_it_is_mended(scene: Scene) -> None:
    ours = new(scene.renew())
    errors = []
    for _ in range(4):
        scene.now += DAY
        put_back(scene)
        outcome = scene.renew()
        assert new(outcome) == ours
        errors.append(outcome.error)

    assert [error is not None for error in errors] == [False, False, True, True]
    assert len(scene.issuer.orders) == 1


def test_a_dry_run_tells_what_it_would_put_into_use(scene: Scene) -> None:
    ours = new(scene.renew())
    put_back(scene)

    outcome = scene.renew(dry_run=True)

    assert [change.after for change in outcome.changes] == [ours] * 2
    assert scene.bound == {scene.old}
    assert scene.parts.state.load().put_back == ()


def test_without_activation_the_one_in_the_store_waits_too(scene: Scene) -> None:
    ours = new(scene.renew())
    put_back(scene)

    scene.renew(issue_only=True)

    assert scene.bound == {scene.old}
    assert len(scene.issuer.orders) == 1
    assert new(scene.renew(activate_only=True)) == ours


def test_one_without_a_key_is_not_used(scene: Scene) -> None:
    ours = new(scene.renew())
    put_back(scene)
    del scene.store.keys[ours]

    assert new(scene.renew()) != ours
    assert len(scene.issuer.orders) == 2


def test_a_spare_that_breaks_a_port_is_used_no_more_until_it_is_activated(
    scene: Scene,
) -> None:
    ours = new(scene.renew())
    put_back(scene)
    scene.server.broken.add(PORTS[1])
    with pytest.raises(DeployError, match="Rolled back"):
        scene.renew()
    scene.server.broken.clear()
    scene.now += 2 * DAY

    another = new(scene.renew())

    assert another != ours
    put_back(scene)
    assert new(scene.renew()) == another
    scene.store.remove(another)
    put_back(scene)
    assert new(scene.renew(activate_only=True)) == ours
    put_back(scene)
    assert new(scene.renew()) == ours
    assert len(scene.issuer.orders) == 2


def test_one_that_somebody_rolled_back_is_used_again_only_when_activated(
    scene: Scene,
) -> None:
    first = new(scene.renew())
    scene.now += DAY
    second = new(scene.renew(force=True))
    assert new(scene.roll_back()) == first
    put_back(scene)

    assert new(scene.renew()) == first
    assert new(scene.renew(activate_only=True)) == second
    put_back(scene)
    assert new(scene.renew()) == second


def test_a_spare_is_looked_at_again_until_every_port_serves_it(scene: Scene) -> None:
    ours = new(scene.renew())
    put_back(scene)
    scene.server.deaf.add(PORTS[1])
    for _ in range(2):
        with pytest.raises(DeployError, match="still serve the old one"):
            scene.renew()
    scene.server.restart()

    outcome = scene.renew()

    assert new(outcome) == ours
    assert outcome.reason.startswith("an earlier run did not see")
    assert not scene.renew().renewed
    assert len(scene.issuer.orders) == 1


def test_one_that_has_to_wait_does_not_keep_a_good_one_from_use(scene: Scene) -> None:
    first = new(scene.renew())
    scene.server.broken.add(PORTS[1])
    scene.server.first = first
    with pytest.raises(DeployError, match="Rolled back"):
        scene.renew(force=True)
    assert scene.pending
    put_back(scene)

    assert new(scene.renew()) == first
    assert len(scene.issuer.orders) == 2


def test_a_window_that_is_always_in_the_past_brings_one_order_in_a_quarter(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.renew()
    window = Window(start=scene.now - DAY, end=scene.now - HOUR)
    for _ in range(44):
        scene.issuer.windows.append(window)
        scene.now += DAY / 2
        scene.renew()

    assert len(scene.issuer.orders) == 2
    ignored = [line for line in warnings(caplog) if "Ignoring the CA's advice" in line]
    assert len(ignored) == 43
    scene.now += DAY
    scene.issuer.windows.append(window)
    scene.renew()
    assert len(scene.issuer.orders) == 3


# Revoked by the CA


@dataclass
class Crls:
    """The CRLs of a CA, and the thumbprints that it was asked for."""

    revoked: set[str]
    asked: list[str]
    fails: bool = False
    is_compromised: bool = False

    def __call__(
        self, leaf: x509.Certificate, issuer: x509.Certificate
    ) -> Revocation | None:
        leaf.verify_directly_issued_by(issuer)
        self.asked.append(thumbprint(leaf))
        if self.fails:
            raise AcmeError("Could not reach it.")
        if thumbprint(leaf) not in self.revoked:
            return None
        return Revocation(NOW, self.is_compromised)


@pytest.fixture
def crls(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Crls:
    monkeypatch.setattr(snapshots, "crl_urls", lambda _: ["http://ca.test/1.crl"])
    made = Crls(set(), [])
    scene.parts = scene.parts._replace(revocation=made)
    return made


def test_a_certificate_that_the_ca_revoked_is_renewed(scene: Scene, crls: Crls) -> None:
    ours = new(scene.renew())
    crls.revoked.add(ours)

    outcome = scene.renew()

    assert new(outcome) != ours
    assert "was revoked on" in outcome.reason
    scene.now += 2 * DAY
    assert not scene.renew().renewed


def test_the_crl_is_asked_once_a_day(scene: Scene, crls: Crls) -> None:
    ours = new(scene.renew())
    for _ in range(8):
        assert not scene.renew().renewed
        scene.now += DAY / 4

    assert crls.asked == [ours, ours]


def test_told_to_ask_the_ca_a_run_asks_the_crl_again(scene: Scene, crls: Crls) -> None:
    ours = new(scene.renew())
    assert not scene.renew().renewed
    crls.revoked.add(ours)

    assert not scene.renew().renewed
    assert new(scene.renew(ask_ca=True)) != ours


def test_a_crl_that_cannot_be_had_is_a_warning_a_day(
    scene: Scene, crls: Crls, caplog: pytest.LogCaptureFixture
) -> None:
    ours = new(scene.renew())
    crls.fails = True
    for _ in range(2):
        assert not scene.renew().renewed

    (said,) = [line for line in warnings(caplog) if "is revoked" in line]
    assert said.endswith(f"the certificate {ours} is revoked: Could not reach it.")


def test_a_spare_that_the_ca_revoked_is_not_used(scene: Scene, crls: Crls) -> None:
    first = new(scene.renew())
    second = new(scene.renew(force=True))
    put_back(scene)
    crls.revoked.add(second)

    assert new(scene.renew()) == first
    assert set(crls.asked) >= {first, second}


@pytest.mark.parametrize("compromised", [False, True])
def test_a_key_that_the_ca_calls_compromised_is_not_used_again(
    scene: Scene, crls: Crls, *, compromised: bool
) -> None:
    first = new(scene.renew(key_policy="reuse"))
    crls.revoked.add(first)
    crls.is_compromised = compromised

    assert new(scene.renew(key_policy="reuse")) != first

    assert (scene.issuer.keys[-1] is None) == compromised
    assert len(scene.parts.state.load().compromised) == int(compromised)


def test_what_waits_with_a_key_that_the_ca_calls_compromised_is_forgotten(
    scene: Scene, crls: Crls
) -> None:
    """A pending certificate and the open order may have that key, too."""
    first = new(scene.renew())
    scene.renew(key_policy="reuse", force=True, issue_only=True)
    pending = scene.parts.ca.pending()
    assert pending is not None
    order = OpenOrder("https://ca.test/1", "https://ca.test/2", NAMES, "p256", "")
    scene.parts.ca.save(order)
    scene.now += DAY
    crls.revoked.add(first)
    crls.is_compromised = True

    scene.renew(dry_run=True)
    assert scene.parts.ca.order() == order
    assert scene.parts.state.load().compromised == ()
    new_one = new(scene.renew())

    assert new_one not in {first, pending.thumbprint}
    assert scene.parts.ca.order() is None


def test_a_dry_run_does_not_remember_what_the_crl_says(
    scene: Scene, crls: Crls
) -> None:
    crls.revoked.add(new(scene.renew()))

    outcome = scene.renew(dry_run=True)

    assert "was revoked on" in outcome.reason
    assert scene.parts.state.load().checked == ()


def test_a_wait_with_a_certificate_that_the_ca_revoked_is_an_error(
    scene: Scene, crls: Crls
) -> None:
    crls.revoked.add(new(scene.renew()))
    scene.issuer.errors += [AcmeError("No advice."), unproven(NAMES[0])]
    with pytest.raises(ChallengeError):
        scene.renew()

    error = scene.renew().error

    assert error is not None
    assert error.exit_code == 4
    assert "The certificate in use was revoked on" in error.message


# Not all of it


def test_a_dry_run_leaves_nothing_anywhere(scene: Scene, tmp_path: Path) -> None:
    outcome = scene.renew(dry_run=True)

    assert not outcome.renewed
    assert "did not obtain the certificate in use from this CA" in outcome.reason
    assert scene.server.done == []
    assert scene.issuer.orders == []
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_tells_what_a_kept_certificate_would_change(
    scene: Scene, tmp_path: Path
) -> None:
    scene.server.failing.add("bind")
    with pytest.raises(DeployError):
        scene.renew()
    before = contents(tmp_path)

    outcome = scene.renew(dry_run=True)

    assert [change.after for change in outcome.changes] == [scene.pending] * 2
    assert scene.bound == {scene.old}
    assert contents(tmp_path) == before


def test_a_dry_run_does_not_finish_a_roll_back(scene: Scene, tmp_path: Path) -> None:
    scene.server.broken.add(PORTS[1])
    scene.server.failing.add("restore")
    with pytest.raises(DeployError):
        scene.renew()
    scene.server.failing.clear()
    scene.server.done.clear()
    before = contents(tmp_path)

    scene.renew(dry_run=True)

    assert scene.server.done == []
    assert contents(tmp_path) == before


def test_a_rehearsal_keeps_its_certificate_and_uses_it_nowhere(scene: Scene) -> None:
    outcome = scene.renew(rehearse=True)

    assert not outcome.renewed
    assert outcome.certificate is not None
    assert scene.pending == thumbprint(outcome.certificate)
    assert scene.server.done == []
    assert scene.store.kept.keys() == {scene.old}
    again = scene.renew(rehearse=True)
    assert again.certificate == outcome.certificate
    assert len(scene.issuer.orders) == 1


def test_a_certificate_that_is_only_issued_waits_until_it_is_activated(
    scene: Scene,
) -> None:
    issued = scene.renew(issue_only=True)

    assert not issued.renewed
    assert scene.server.done == []
    kept = scene.pending
    assert set(scene.store.kept) == {scene.old, kept}
    assert new(scene.renew(activate_only=True)) == kept
    assert len(scene.issuer.orders) == 1


def test_there_may_be_nothing_to_activate(scene: Scene) -> None:
    outcome = scene.renew(activate_only=True)

    assert not outcome.renewed
    assert outcome.reason == "no certificate waits for activation"
    assert scene.issuer.orders == []


# Back


def test_back_is_to_the_last_certificate_that_was_proven(scene: Scene) -> None:
    first = new(scene.renew())
    scene.now += 61 * DAY
    second = new(scene.renew())

    outcome = scene.roll_back()

    assert new(outcome) == first
    assert scene.bound == set(scene.server.ports.values()) == {first}
    assert second in scene.store.kept


def test_back_is_nowhere_if_nothing_proven_is_left(scene: Scene) -> None:
    first = new(scene.renew())
    scene.now += 61 * DAY
    second = new(scene.renew())
    scene.store.remove(first)

    with pytest.raises(
        ConfigError, match="no certificate that was verified on every port"
    ):
        scene.roll_back()

    assert scene.bound == {second}


def test_the_backstop_is_told_as_when_it_is_due_again(scene: Scene) -> None:
    outcome = scene.renew()

    assert outcome.certificate is not None
    assert outcome.next_at == due.backstop(outcome.certificate)
