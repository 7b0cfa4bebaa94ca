"""A person's choice of certificate stands for a while, and then no longer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from cryptography import x509

from letsencrypt_mdaemon.errors import AcmeError, DeployError
from letsencrypt_mdaemon.pki.certificate import public_key_hash, thumbprint
from letsencrypt_mdaemon.renewal import by_hand, hold
from letsencrypt_mdaemon.renewal.adapters import Outcome, Request
from letsencrypt_mdaemon.renewal.snapshot import Snapshot
from letsencrypt_mdaemon.state.memory import Checked, Hold, Memory
from tests.certificates import NAME, START, certificate, key, leaf, sign
from tests.fakes import PORTS, TARGETS, snapshot
from tests.renewal.test_run import DAY, HOUR, NAMES, ORDER, Scene, new, scene

__all__ = ["scene"]

BOUGHT = certificate(NAMES, serial=900, lifetime=365 * DAY)
CHOSEN = leaf([NAME], serial=901, lifetime=90 * DAY)
OTHER = leaf([NAME], serial=902)
NOW = START + DAY


def held(
    *in_use: x509.Certificate | None,
    now: datetime = NOW,
    item: Hold | None = None,
    memory: Memory | None = None,
    **request: object,
) -> Snapshot:
    """Return a snapshot in which the chosen certificate is held."""
    wanted = Request((NAME,), "p256", "https://ca.test/directory")
    item = item or hold.begin(CHOSEN, "use", START)
    return snapshot(
        wanted._replace(**request),  # type: ignore[arg-type]
        *in_use,
        now=now,
        memory=(memory or Memory())._replace(hold=item),
    )


# How long


@pytest.mark.parametrize(
    ("lifetime", "left"), [(90, 7), (365, 7), (45, 4.5), (6, 0.6), (70, 7)]
)
def test_a_hold_ends_with_a_tenth_of_the_lifetime_or_a_week(
    lifetime: float, left: float
) -> None:
    chosen = leaf([NAME], lifetime=lifetime * DAY)

    begun = hold.begin(chosen, "use", START)

    assert begun is not None
    assert begun.until == chosen.not_valid_after_utc - left * DAY
    assert (begun.since, begun.why) == (START, "use")
    assert begun.thumbprint == thumbprint(chosen)


def test_a_hold_ends_when_it_is_said() -> None:
    begun = hold.begin(CHOSEN, "use", START, START + 3 * DAY)

    assert begun is not None
    assert begun.until == START + 3 * DAY


def test_a_self_signed_certificate_is_not_held() -> None:
    assert hold.begin(sign("self").certificate, "use", START) is None


@pytest.mark.parametrize(("left", "is_held"), [(7, False), (8, True)])
def test_a_hold_that_would_be_over_does_not_begin(left: int, *, is_held: bool) -> None:
    now = CHOSEN.not_valid_after_utc - left * DAY

    assert (hold.begin(CHOSEN, "use", now) is not None) is is_held


# When it is in force


def test_a_hold_is_in_force_until_its_end_and_not_later() -> None:
    until = CHOSEN.not_valid_after_utc - 7 * DAY

    assert hold.in_force(held(CHOSEN, now=until - timedelta(seconds=1)))
    assert hold.in_force(held(CHOSEN, now=until)) is None
    assert hold.in_force(held(CHOSEN)._replace(memory=Memory())) is None


def test_a_hold_counts_only_for_what_the_files_name() -> None:
    assert hold.in_force(held(OTHER)) is None
    assert hold.in_force(held(None)) is None
    assert hold.in_force(held(OTHER, CHOSEN, None))


def test_activate_ends_it() -> None:
    assert hold.in_force(held(CHOSEN, activate_only=True)) is None


LONG = Hold(thumbprint(CHOSEN), START, START + 999 * DAY, "use")


@pytest.mark.parametrize(
    ("now", "memory"),
    [
        (CHOSEN.not_valid_after_utc, Memory()),
        (START - HOUR, Memory()),
        (NOW, Memory(checked=(Checked(thumbprint(CHOSEN), NOW, NOW),))),
        (NOW, Memory(compromised=(public_key_hash(CHOSEN),))),
    ],
)
def test_a_certificate_with_a_fault_is_not_held(now: datetime, memory: Memory) -> None:
    assert hold.in_force(held(CHOSEN, item=LONG, now=now, memory=memory)) is None


def test_a_fault_of_another_value_does_not_end_it() -> None:
    expired = leaf([NAME], serial=903, start=START - 90 * DAY)

    assert hold.in_force(held(expired, CHOSEN))


# What is due


@pytest.mark.parametrize(("days", "due"), [(59, False), (60, True)])
def test_only_time_makes_a_held_certificate_due(days: int, due: bool) -> None:  # noqa: FBT001
    found = held(CHOSEN, now=START + days * DAY, key_type="rsa4096")
    item = hold.in_force(found)
    assert item

    decided = hold.decide(found, item)

    assert decided.due is due
    assert (decided.rule != "") is due


def test_what_waits_already_is_not_ordered_again() -> None:
    found = held(CHOSEN, now=START + 61 * DAY)._replace(pending=certificate([NAME]))
    item = hold.in_force(found)
    assert item

    decided = hold.decide(found, item)

    assert not decided.due
    assert "waits for `activate`" in decided.reason
    assert decided.at == item.until


# Runs


def use(
    scene: Scene, chosen: x509.Certificate = BOUGHT.leaf, **more: object
) -> Outcome:
    """Choose a certificate, as `use` does."""
    return by_hand.use(
        chosen,
        ORDER._replace(**more),  # type: ignore[arg-type]
        scene.parts,
        scene.parts.state.load(),
        now=scene.now,
        held=hold.begin(chosen, "use", scene.now),
    )


@pytest.fixture
def bought(scene: Scene) -> Scene:
    """An installation that uses a certificate of ours, and has a bought one."""
    new(scene.renew())
    scene.store.install(BOUGHT)
    # As another program gives it.
    scene.store.put(BOUGHT.leaf, "bought")
    return scene


def memory_hold(scene: Scene) -> Hold | None:
    """Return the hold that is remembered."""
    return scene.parts.state.load().hold


def test_the_servers_account_may_read_the_key_before_its_files_name_a_bought_one(
    bought: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, seen = thumbprint(BOUGHT.leaf), []
    monkeypatch.setattr(
        bought.store, "let_read", lambda wanted: seen.append((wanted, bought.bound))
    )
    before = bought.bound
    assert use(bought).renewed
    assert seen == [(digest, before)]
    assert bought.bound == {digest}


def test_a_choice_by_hand_stays_and_a_due_certificate_waits(bought: Scene) -> None:
    digest = thumbprint(BOUGHT.leaf)
    outcome = use(bought)
    assert outcome.renewed
    assert outcome.held
    assert bought.bound == set(bought.server.ports.values()) == {digest}
    orders = len(bought.issuer.orders)

    first = bought.renew()
    bought.now = BOUGHT.leaf.not_valid_after_utc - 120 * DAY
    second = bought.renew()
    third = bought.renew()

    assert first.held == second.held == memory_hold(bought)
    assert not any(ran.renewed or ran.error for ran in (first, second, third))
    assert bought.bound == {digest}
    assert len(bought.issuer.orders) == orders + 1
    assert bought.pending in bought.store.kept
    assert "waits for `activate`" in third.reason

    bought.now = BOUGHT.leaf.not_valid_after_utc - 7 * DAY
    assert new(bought.renew()) != digest
    assert memory_hold(bought) is None


def test_a_good_certificate_of_ours_in_the_store_waits_without_an_order(
    bought: Scene,
) -> None:
    short = certificate(NAMES, serial=910, start=bought.now, lifetime=12 * DAY)
    bought.store.install(short)
    bought.store.put(short.leaf, "bought")
    use(bought, short.leaf)
    orders = len(bought.issuer.orders)
    bought.now += 9 * DAY

    outcome = bought.renew()

    assert not outcome.renewed
    assert "waits for `activate`" in outcome.reason
    assert len(bought.issuer.orders) == orders


def test_force_obtains_and_puts_nothing_to_use(bought: Scene) -> None:
    use(bought)
    orders = len(bought.issuer.orders)

    outcome = bought.renew(force=True)

    assert not outcome.renewed
    assert outcome.held
    assert len(bought.issuer.orders) == orders + 1
    assert bought.bound == {thumbprint(BOUGHT.leaf)}


def test_a_ca_that_fails_is_an_error_though_the_certificate_is_held(
    bought: Scene,
) -> None:
    use(bought)
    bought.now = BOUGHT.leaf.not_valid_after_utc - 100 * DAY
    bought.issuer.errors.append(AcmeError("The CA is off."))

    with pytest.raises(AcmeError, match="is off"):
        bought.renew()


def test_activate_ends_a_hold_and_finds_the_former_certificate(bought: Scene) -> None:
    (former,) = bought.bound
    use(bought)

    outcome = bought.renew(activate_only=True)

    assert new(outcome) == former
    assert memory_hold(bought) is None
    assert not bought.renew().renewed


def test_activate_finds_one_of_ours_that_gave_way_to_an_older_one(scene: Scene) -> None:
    older = new(scene.renew())
    scene.now += 10 * DAY
    newer = new(scene.renew(force=True))
    use(scene, scene.store.kept[older][0])
    assert scene.bound == {older}

    assert new(scene.renew(activate_only=True)) == newer


def test_a_roll_back_by_hand_stays(scene: Scene) -> None:
    first = new(scene.renew())
    scene.now += 61 * DAY
    second = new(scene.renew())

    outcome = scene.roll_back()
    after = scene.renew()

    assert outcome.held
    assert outcome.held.why == "rollback"
    assert not after.renewed
    assert scene.bound == {first}
    scene.parts.ca.forget_pending()
    assert new(scene.renew(activate_only=True)) == second


def test_what_is_only_issued_by_hand_waits_for_the_end_of_the_hold(
    scene: Scene,
) -> None:
    first = new(scene.renew())
    scene.now += 61 * DAY

    issued = scene.renew(issue_only=True)
    after = scene.renew()

    assert issued.held
    assert issued.held.why == "no-activate"
    assert f"runs keep the certificate in use until {issued.held.until:%Y-%m-%d}" in (
        issued.reason
    )
    assert not after.renewed
    assert after.held == issued.held
    assert scene.bound == {first}
    scene.now = issued.held.until
    assert new(scene.renew()) == scene.server.values[TARGETS[0]] != first


def test_the_schedule_holds_nothing(scene: Scene) -> None:
    new(scene.renew())
    scene.now += 61 * DAY

    assert scene.renew(issue_only=True, scheduled=True).held is None
    assert scene.renew().renewed


def test_nothing_is_held_when_nothing_was_issued(scene: Scene) -> None:
    new(scene.renew())

    assert scene.renew(issue_only=True).held is None
    assert memory_hold(scene) is None


def test_a_self_signed_certificate_in_use_does_not_keep_the_first_real_one_waiting(
    scene: Scene,
) -> None:
    first = sign("self", own_key=key(9), start=scene.now - HOUR).certificate
    scene.store.put(first, "self-signed")
    scene.server.values = dict.fromkeys(TARGETS, thumbprint(first))
    scene.server.ports = dict.fromkeys(PORTS, thumbprint(first))

    assert scene.renew(issue_only=True).held is None
    assert scene.renew().renewed


# Failures


def test_a_port_that_rejects_the_choice_brings_everything_back(bought: Scene) -> None:
    former = dict(bought.server.values)
    bought.server.broken = {PORTS[0]}
    bought.server.first = former[TARGETS[0]]

    with pytest.raises(DeployError, match="Rolled back") as caught:
        use(bought)

    assert "tries it again" not in caught.value.hint
    assert bought.server.values == former
    assert memory_hold(bought) is None
    memory = bought.parts.state.load()
    assert memory.find(thumbprint(BOUGHT.leaf)) is None
    assert not bought.renew().renewed


def test_a_choice_that_fails_leaves_the_one_before(bought: Scene) -> None:
    use(bought)
    before = memory_hold(bought)
    another = certificate(NAMES, serial=911, start=bought.now, lifetime=40 * DAY)
    bought.store.install(another)
    bought.server.failing = {"bind"}

    with pytest.raises(DeployError, match="bind is not possible"):
        use(bought, another.leaf)

    assert memory_hold(bought) == before
    bought.server.failing = set()
    assert bought.renew().held == before


def test_a_port_that_stays_old_is_looked_at_again_by_the_next_run(
    bought: Scene,
) -> None:
    digest = thumbprint(BOUGHT.leaf)
    bought.server.deaf = {PORTS[1]}
    with pytest.raises(DeployError, match="still serve the old one"):
        use(bought)
    assert memory_hold(bought)

    with pytest.raises(DeployError, match="still serve the old one"):
        bought.renew()
    bought.server.restart()
    outcome = bought.renew()

    assert new(outcome) == digest
    assert outcome.held == memory_hold(bought)
    assert bought.parts.state.attempt() is None
    assert not bought.renew().renewed


def test_a_value_that_names_another_one_again_is_mended(bought: Scene) -> None:
    former = bought.server.values[TARGETS[0]]
    use(bought)
    bought.server.values[TARGETS[1]] = former
    orders = len(bought.issuer.orders)

    outcome = bought.renew()

    assert new(outcome) == thumbprint(BOUGHT.leaf)
    assert outcome.held
    assert bought.bound == {thumbprint(BOUGHT.leaf)}
    assert len(bought.issuer.orders) == orders


def test_a_held_certificate_that_is_revoked_is_replaced(bought: Scene) -> None:
    use(bought)
    memory = bought.parts.state.load()
    row = Checked(thumbprint(BOUGHT.leaf), bought.now, bought.now)
    bought.parts.state.save(memory._replace(checked=(row,)))

    assert new(bought.renew()) != thumbprint(BOUGHT.leaf)


def test_nothing_is_removed_for_a_held_certificate(bought: Scene) -> None:
    (former,) = bought.bound
    bought.now += DAY
    later = certificate(NAMES, serial=912, start=bought.now, lifetime=40 * DAY)
    bought.store.install(later)
    bought.store.put(later.leaf, "bought")
    before = set(bought.store.kept)

    use(bought, later.leaf, remove_old=True)
    bought.server.values[TARGETS[1]] = former
    assert bought.renew(remove_old=True).renewed

    assert set(bought.store.kept) == before


@pytest.mark.parametrize("step", ["save", "bind", "take"])
def test_a_choice_that_is_killed_is_kept_or_was_never_made(
    bought: Scene, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed process cannot do either: mend the memory afterwards."""
    digest = thumbprint(BOUGHT.leaf)
    (former,) = bought.bound

    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    monkeypatch.setattr(bought.server, "settle", killed)
    if step == "save":
        monkeypatch.setattr(bought.server, "bind", killed)
    elif step == "take":
        monkeypatch.setattr(bought.server, "take", killed)
    else:
        bind: Callable[..., object] = bought.server.bind

        def bound(*arguments: object, **named: object) -> None:
            bind(*arguments, **named)
            killed()

        monkeypatch.setattr(bought.server, "bind", bound)
    with pytest.raises(Killed):
        use(bought)
    monkeypatch.undo()

    bought.renew()
    outcome = bought.renew()

    assert not outcome.renewed
    assert bought.bound == {former if step == "save" else digest}
    assert bought.bound == set(bought.server.ports.values())


def test_a_dry_run_tells_of_the_hold_and_changes_nothing(
    bought: Scene,
) -> None:
    use(bought)
    before = bought.parts.state.load()

    outcome = bought.renew(dry_run=True)

    assert outcome.held == before.hold
    assert bought.parts.state.load() == before
