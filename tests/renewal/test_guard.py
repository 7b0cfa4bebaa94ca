"""No run puts a certificate into use that senders with DANE would refuse."""

from __future__ import annotations

import hashlib
import itertools
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.pki.certificate import (
    Certificate,
    PrivateKey,
    load_key,
    thumbprint,
)
from letsencrypt_mdaemon.pki.tlsa import Tlsa, of_key
from letsencrypt_mdaemon.policy.dane import Found, Published
from letsencrypt_mdaemon.renewal import by_hand, run
from letsencrypt_mdaemon.renewal.adapters import Adapters, Outcome, Request
from letsencrypt_mdaemon.state.folder import State
from tests.certificates import START, certificate
from tests.fakes import MemoryIssuer, MemoryServer, MemoryStore

NAME = "mail.example.test"
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
DIRECTORY = "https://ca.test/directory"
ORDER = Request(names=(NAME,), key_type="p256", directory_url=DIRECTORY, timeout=0)
TTL = 3600


class Issuer(MemoryIssuer):
    """A CA that certifies the key it is given, or else a new one."""

    key: PrivateKey | None = None

    def obtain(
        self,
        names: Sequence[str],
        replaces: x509.Certificate | None,
        key: PrivateKey | None,
    ) -> Certificate:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        return super().obtain(names, replaces, key)


@dataclass
class Scene:
    """An installation whose certificate in use is ours, and its zone."""

    store: MemoryStore
    server: MemoryServer
    issuer: Issuer
    state: State
    parts: Adapters
    now: datetime = START + HOUR
    records: list[Tlsa] = field(default_factory=list)
    why: str = ""
    policy: str = "new"

    def look(self) -> Found:
        row = Published(f"_25._tcp.{NAME}", NAME, 25, tuple(self.records), (), TTL)
        return Found((row._replace(why=self.why),), hosts=(NAME,))

    def renew(self, **order: object) -> Outcome:
        wanted = ORDER._replace(key_policy=self.policy, **order)  # type: ignore[arg-type]
        return run.renew(wanted, self.parts, self.state.load(), now=self.now)

    @property
    def in_use(self) -> x509.Certificate:
        (digest,) = set(self.server.values.values())
        return self.store.kept[digest][0]

    @property
    def pin(self) -> Tlsa:
        """The record of the key in use."""
        return of_key(self.in_use)

    @property
    def next_pin(self) -> Tlsa:
        kept = self.state.next_key()
        assert kept is not None
        return of_key(load_key(kept.key_pem.encode()))

    def is_pinned(self) -> bool:
        return self.pin in self.records

    def to_the_end(self, days: float) -> None:
        """Let so much be left of the certificate in use."""
        self.now = self.in_use.not_valid_after_utc - timedelta(days=days)

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    serials = itertools.count(2)

    def issue(names: Sequence[str]) -> Certificate:
        return certificate(
            names, own_key=issuer.key, start=made.now, serial=next(serials)
        )

    store, issuer = MemoryStore(), Issuer(issue)
    first = certificate((NAME,), serial=1)
    store.put(first.leaf, "chosen by hand")
    server, state = MemoryServer(store, first.leaf), State(tmp_path / "state")
    parts = Adapters(
        store=store,
        server=server,
        observe=server.observe,
        state=state,
        ca=state.ca(DIRECTORY, staging=False),
        issuer=lambda: issuer,
        tlsa=lambda: made.look(),  # noqa: PLW0108 - it is made below
    )
    made = Scene(store, server, issuer, state, parts)
    assert made.renew().renewed
    made.records = [made.pin]
    return made


def warnings(caplog: pytest.LogCaptureFixture) -> str:
    rows = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    return "\n".join(rows)


# key-policy = new


def test_a_new_key_is_refused_before_the_cut_over_with_its_record(scene: Scene) -> None:
    before, done = scene.in_use, len(scene.server.done)
    scene.to_the_end(29)

    with pytest.raises(DeployError) as caught:
        scene.renew()

    pending = scene.parts.ca.pending()
    assert pending is not None
    record = f"_25._tcp.{NAME}. IN TLSA {of_key(pending.leaf)}"
    assert record in caught.value.hint
    assert "key-policy = next" in caught.value.hint
    assert scene.in_use == before
    assert len(scene.server.done) == done


def test_the_refused_certificate_is_used_once_its_record_counts(scene: Scene) -> None:
    scene.to_the_end(29)
    with pytest.raises(DeployError):
        scene.renew()
    pending = scene.parts.ca.pending()
    assert pending is not None
    scene.records.append(of_key(pending.leaf))

    held = scene.renew()
    assert (held.renewed, held.error) == (False, None)
    assert "caches may hold the former records" in held.waits_for
    scene.pass_time(TTL)
    assert scene.renew().certificate == pending.leaf
    assert len(scene.issuer.orders) == 2


def test_without_a_record_nothing_is_guarded(scene: Scene) -> None:
    scene.records = []
    scene.to_the_end(29)

    assert scene.renew().renewed
    assert scene.issuer.keys[-1] is None


# key-policy = reuse


def test_a_key_that_is_reused_loses_nothing(scene: Scene) -> None:
    scene.policy = "reuse"
    scene.to_the_end(29)

    assert scene.renew().renewed
    assert scene.is_pinned()


def test_a_key_that_cannot_be_reused_is_held_up(scene: Scene) -> None:
    scene.policy = "reuse"
    scene.store.keys.clear()
    scene.to_the_end(29)

    with pytest.raises(DeployError, match="no TLSA record"):
        scene.renew()
    assert scene.is_pinned()


def test_a_record_of_the_whole_certificate_breaks_also_with_the_same_key(
    scene: Scene,
) -> None:
    scene.policy = "reuse"
    der = scene.in_use.public_bytes(Encoding.DER)
    scene.records = [Tlsa.read(3, 0, 1, hashlib.sha256(der).digest())]
    scene.to_the_end(29)

    with pytest.raises(DeployError, match="no TLSA record"):
        scene.renew()
    scene.to_the_end(6)
    with pytest.raises(DeployError, match="no TLSA record"):
        scene.renew()
    scene.to_the_end(2)
    assert scene.renew().renewed
    assert len(scene.issuer.orders) == 2


# key-policy = next


def test_the_next_key_exists_before_it_is_used(scene: Scene) -> None:
    scene.policy = "next"

    assert not scene.renew().renewed

    assert scene.next_pin != scene.pin
    kept = (scene.state.folder / "next-key.json").read_text("ascii")
    assert "PRIVATE KEY" in kept
    assert "PRIVATE" not in repr(scene.state.next_key())


def test_a_dry_run_makes_no_key_and_remembers_nothing(scene: Scene) -> None:
    scene.policy = "next"
    (scene.state.folder / "tlsa.json").unlink(missing_ok=True)

    scene.renew(dry_run=True)

    assert scene.state.next_key() is None
    assert scene.state.pins().pins == ()


def test_an_order_waits_until_the_record_of_the_next_key_counts(scene: Scene) -> None:
    scene.policy = "next"
    scene.to_the_end(29)

    held = scene.renew()
    assert not held.renewed
    assert held.error is None
    assert held.waits_for.startswith(
        "held: the TLSA record of the next key is not published yet"
    )
    assert f"_25._tcp.{NAME}. IN TLSA {scene.next_pin}" in held.waits_for
    assert len(scene.issuer.orders) == 1
    wanted = scene.next_pin
    scene.records.append(wanted)
    assert "caches" in scene.renew().waits_for
    scene.pass_time(TTL - 1)
    assert not scene.renew().renewed
    scene.pass_time(1)

    assert scene.renew().renewed

    assert scene.pin == wanted
    assert scene.is_pinned()
    assert scene.next_pin != wanted
    assert len(scene.issuer.orders) == 2


def test_the_next_key_is_used_at_once_where_nothing_is_pinned(scene: Scene) -> None:
    scene.policy, scene.records = "next", []
    scene.renew()
    wanted = scene.next_pin
    scene.to_the_end(29)

    assert scene.renew().renewed
    assert scene.pin == wanted


def test_a_forced_order_keeps_the_current_key_while_the_next_one_waits(
    scene: Scene,
) -> None:
    scene.policy = "next"
    scene.renew()
    wanted = scene.pin

    assert scene.renew(force=True).renewed
    assert scene.pin == wanted


def test_a_next_key_of_another_type_or_a_compromised_one_is_made_again(
    scene: Scene,
) -> None:
    scene.policy = "next"
    scene.renew()
    first = scene.next_pin
    memory = scene.state.load()
    scene.state.save(memory._replace(compromised=(first.digest,)))
    scene.renew()
    second = scene.next_pin
    scene.records = []
    scene.renew(key_type="rsa2048")

    assert len({first, second, scene.next_pin}) == 3


# No deadlock


@pytest.mark.parametrize("policy", ["new", "next"])
def test_with_seven_days_left_it_renews_with_the_current_key(
    policy: str, scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.policy = policy
    scene.to_the_end(7.1)
    if policy == "new":
        with pytest.raises(DeployError):
            scene.renew()
    else:
        assert not scene.renew().renewed
    scene.to_the_end(6.9)

    outcome = scene.renew()

    assert outcome.renewed
    assert outcome.error is None
    assert scene.is_pinned()
    assert "Keeping the current key" in warnings(caplog)


@pytest.mark.parametrize("policy", ["new", "reuse", "next"])
def test_with_three_days_left_any_certificate_is_used_with_an_error_to_mail(
    policy: str, scene: Scene
) -> None:
    scene.policy = policy
    scene.store.keys.clear()
    scene.to_the_end(3.1)
    if policy == "next":
        assert not scene.renew().renewed
    else:
        with pytest.raises(DeployError):
            scene.renew()
    before = scene.in_use
    scene.to_the_end(2.9)

    outcome = scene.renew()

    assert outcome.renewed
    assert scene.in_use != before
    assert isinstance(outcome.error, DeployError)
    assert "keep their mail back" in outcome.error.message
    assert str(scene.pin) in outcome.error.hint
    # The next run says what is wrong, and does nothing.
    scene.pass_time(43_200)
    assert not scene.renew().renewed


def test_a_record_that_is_too_new_in_the_last_days_is_no_reason_to_expire(
    scene: Scene,
) -> None:
    scene.store.keys.clear()
    scene.to_the_end(2.9)
    scene.renew(issue_only=True, scheduled=True)
    pending = scene.parts.ca.pending()
    assert pending is not None
    scene.records = [scene.pin, of_key(pending.leaf)]

    outcome = scene.renew()

    assert outcome.renewed
    assert isinstance(outcome.error, DeployError)
    assert "too new for some caches" in outcome.error.message
    assert "counts from" in outcome.error.hint


def test_no_run_orders_again_and_again_where_nothing_helps(scene: Scene) -> None:
    """The CA took another issuer: even the current key does not match."""
    scene.policy = "next"
    issuer = scene.store.chain(thumbprint(scene.in_use))[1]
    pin = of_key(issuer)
    scene.records = [Tlsa(2, 1, 1, pin.digest)]
    make = scene.issuer.issue

    def another(names: Sequence[str]) -> Certificate:
        made = make(names)
        return Certificate(made.chain[:1], made.key)

    scene.issuer.issue = another
    scene.to_the_end(29)
    outcomes = []
    for _ in range(27):
        outcomes.append(scene.renew())
        scene.pass_time(86_400)

    # With the next key, and in the last week with the current one.
    assert len(scene.issuer.orders) == 3
    assert [row.renewed for row in outcomes] == [False] * 26 + [True]


# DNS fails


def test_while_dns_fails_the_last_answer_counts(scene: Scene) -> None:
    scene.to_the_end(35)
    scene.renew()
    scene.why = "bogus"
    scene.to_the_end(29)

    with pytest.raises(DeployError, match="no TLSA record"):
        scene.renew()


def test_without_any_answer_it_warns_and_goes_on(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.why = "its signature has expired"
    scene.to_the_end(29)

    assert scene.renew().renewed
    assert "its signature has expired" in warnings(caplog)


def test_records_that_match_nothing_in_use_are_named(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.records = [Tlsa(3, 1, 1, "ab" * 32)]

    scene.renew()

    assert f"No TLSA record of _25._tcp.{NAME} matches" in warnings(caplog)
    assert str(scene.pin) in warnings(caplog)


# What else changes the certificate


def second(scene: Scene) -> x509.Certificate:
    """Return the certificate before the one in use, which alone is pinned."""
    former = scene.in_use
    scene.records = []
    scene.to_the_end(29)
    assert scene.renew().renewed
    scene.records = [scene.pin]
    return former


def test_a_rollback_is_refused(scene: Scene) -> None:
    former = second(scene)
    wanted, memory = scene.in_use, scene.state.load()

    with pytest.raises(DeployError, match="no TLSA record"):
        run.roll_back(ORDER, scene.parts, memory, now=scene.now)
    dry = ORDER._replace(dry_run=True)
    shown = run.roll_back(dry, scene.parts, memory, now=scene.now)

    assert isinstance(shown.error, DeployError)
    assert scene.in_use == wanted
    assert scene.state.load().hold is None
    scene.records.append(of_key(former))
    with pytest.raises(DeployError, match="caches may hold"):
        run.roll_back(ORDER, scene.parts, memory, now=scene.now)
    scene.pass_time(TTL)
    run.roll_back(ORDER, scene.parts, scene.state.load(), now=scene.now)
    assert scene.in_use == former


def test_a_chosen_certificate_is_refused(scene: Scene) -> None:
    former = second(scene)
    wanted = scene.in_use

    def use() -> Outcome:
        memory = scene.state.load()
        return by_hand.use(former, ORDER, scene.parts, memory, now=scene.now, held=None)

    with pytest.raises(DeployError, match="no TLSA record"):
        use()
    assert scene.in_use == wanted
    scene.records = []
    assert use().renewed


def test_a_spare_that_would_break_is_passed_over(scene: Scene) -> None:
    """A good one in the store, but another key: an order with the pinned key."""
    scene.to_the_end(40)
    scene.renew(issue_only=True, force=True, scheduled=True)
    scene.parts.ca.forget_pending()
    scene.policy = "reuse"
    scene.to_the_end(29)

    assert scene.renew().renewed
    assert scene.is_pinned()
    assert len(scene.issuer.orders) == 3


def test_activate_says_why_it_does_not(scene: Scene) -> None:
    scene.renew(issue_only=True, force=True, scheduled=True)

    with pytest.raises(DeployError, match="no TLSA record"):
        scene.renew(activate_only=True)


def test_a_dry_run_tells_the_refusal(scene: Scene) -> None:
    scene.to_the_end(29)
    with pytest.raises(DeployError):
        scene.renew()

    outcome = scene.renew(dry_run=True)

    assert isinstance(outcome.error, DeployError)
    assert "no TLSA record" in outcome.error.message


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_mail_is_lost_only_in_the_last_days(
    scene: Scene, seed: int
) -> None:
    """The administrator publishes when and what comes to mind."""
    chance = random.Random(seed)  # noqa: S311 - a test
    losses = 0
    for _ in range(250):
        scene.now += timedelta(hours=chance.choice([12, 12, 12, 24, 36]))
        scene.policy = chance.choice([scene.policy] * 30 + ["new", "reuse", "next"])
        scene.why = chance.choice([""] * 9 + ["no answer"])
        if not scene.is_pinned() or chance.random() < 0.02:
            scene.records = [scene.pin]
        if chance.random() < 0.05 and scene.state.next_key():
            scene.records = [scene.pin, scene.next_pin]
        before, end = scene.in_use, scene.in_use.not_valid_after_utc
        left = end - scene.now
        try:
            scene.renew()
        except DeployError:
            assert scene.in_use == before
        assert scene.in_use.not_valid_after_utc > scene.now, "it never expires"
        if not scene.is_pinned():
            losses += 1
            assert left <= timedelta(days=3)
    assert losses == 0  # the keys can be had
