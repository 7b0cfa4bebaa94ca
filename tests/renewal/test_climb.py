"""The climb of the reload ladder, second by second, on ports that are made up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest
from cryptography import x509

from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.renewal import climb as climbing
from letsencrypt_mdaemon.renewal.adapters import Adapters, Proof, Request
from letsencrypt_mdaemon.renewal.climb import MAX_CONNECTIONS, Climbed, climb
from letsencrypt_mdaemon.renewal.proof import Judge, restored
from letsencrypt_mdaemon.state.folder import CaState, State
from letsencrypt_mdaemon.state.memory import Attempt, Memory, Rung
from letsencrypt_mdaemon.verify.endpoints import Endpoint
from letsencrypt_mdaemon.verify.served import Answer, Served
from tests.certificates import NAME, leaf
from tests.fakes import MemoryStore, answer, snapshot

NOW = datetime(2026, 11, 28, tzinfo=UTC)
OLD, NEW, THIRD = leaf(serial=1), leaf(serial=2), leaf(serial=3)
NEW_PRINT = thumbprint(NEW)
MAIL, WEB, ADMIN = "smtps://127.0.0.1:465", "https://127.0.0.1:443", "https://[::1]:444"
EVERY = (MAIL, WEB, ADMIN)
CLOSED = Served(outcome=Answer.NOT_LISTENING, detail="refuses the connection")
BANNED = Served(outcome=Answer.TURNED_AWAY, detail='greets with "421 No"')
BROKEN = Served(outcome=Answer.HANDSHAKE_FAILED)
CACHE, WEBMAIL, RESTART = "RELOADCACHE.SEM", "RESTARTWC.SEM", "RESTART.SEM"
SERVICE = "a restart of the service MDaemon"
Effects: TypeAlias = Sequence[tuple[float, Served]]
"""Seconds after a rung, and what a port answers from then on."""
Rungs: TypeAlias = dict[str, dict[str, Effects]]


def at_once(shown: x509.Certificate = NEW) -> Effects:
    return [(0, answer(shown))]


@dataclass
class Server:
    """A server whose ports change some time after a rung.

    Args:
        rungs: Rung -> port -> what it does to it.
        first: What the ports answer before.
        refuses: Rungs that it does not take.
    """

    rungs: Rungs
    first: dict[str, Served] = field(
        default_factory=lambda: dict.fromkeys(EVERY, answer(OLD))
    )
    refuses: tuple[str, ...] = ()
    clock: float = 0.0
    done: list[tuple[str, float]] = field(default_factory=list)
    connections: Counter[str] = field(default_factory=Counter)
    looks: list[float] = field(default_factory=list)
    thorough: int = 0
    saved: list[Any] = field(default_factory=list)

    def ladder(self) -> list[str]:
        return [*self.rungs]

    def take(self, rung: str) -> bool:
        if rung in self.refuses:
            return False
        self.done.append((rung, self.clock))
        return True

    def now(self, url: str) -> Served:
        shown = self.first[url]
        for rung, began in self.done:
            for seconds, later in self.rungs[rung].get(url, ()):
                if self.clock >= began + seconds:
                    shown = later
        return shown

    def observe(self, only: Collection[Endpoint] = ()) -> dict[Endpoint, Served]:
        answers = {Endpoint.parse(url): self.now(url) for url in self.first}
        if not only:
            self.thorough += 1
            return answers
        self.looks.append(self.clock)
        for at in only:
            self.connections[str(at)] += answers[at].is_listening
        return {at: replace(answers[at], differently=()) for at in only}

    def save(self, record: object) -> None:
        self.saved.append(record)

    def climb(
        self,
        *,
        timeout: float = 60,
        scheduled: bool = True,
        memory: Memory | None = None,
        taken: tuple[str, ...] = (),
        undoing: bool = False,
    ) -> Climbed:
        before = {
            url: thumbprint(shown.leaf)
            for url, shown in self.first.items()
            if shown.leaf
        }
        request = Request((NAME,), "p256", "", timeout=timeout, scheduled=scheduled)
        found = snapshot(request, OLD, now=NOW, memory=memory or Memory())
        attempt = Attempt(NEW_PRINT, before, (), undoing=undoing, rungs=taken)
        state = State(Path())
        state.save = self.save  # type: ignore[method-assign]
        adapters = Adapters(
            store=MemoryStore(),
            server=self,  # type: ignore[arg-type]
            observe=self.observe,
            state=state,
            ca=CaState(Path()),
            issuer=lambda: pytest.fail("no CA is asked"),
        )

        def judge(seen: Mapping[Endpoint, Served]) -> Proof:
            if undoing:
                return restored(dict.fromkeys(before, thumbprint(OLD)), seen)
            return Judge(before, NEW_PRINT, (), given=False, now=NOW)(seen)

        fake = SimpleNamespace(monotonic=lambda: self.clock, sleep=self.sleep)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(climbing, "time", fake)
            return climb(judge, found, attempt, adapters)

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.clock += seconds


def proof(climbed: Climbed) -> Proof:
    assert climbed.proof is not None
    return climbed.proof


def test_a_rung_follows_at_once_when_what_is_old_is_none_of_its_business() -> None:
    server = Server(
        {CACHE: {MAIL: at_once()}, WEBMAIL: {WEB: at_once(), ADMIN: at_once()}}
    )

    climbed = server.climb()

    assert proof(climbed).new == EVERY
    assert server.done == [(CACHE, 0), (WEBMAIL, 0)]
    assert server.clock == 0


def test_the_next_gentle_rung_follows_five_seconds_after_the_last_change() -> None:
    server = Server(
        {
            CACHE: {MAIL: [(3, answer(NEW))]},
            "DOMAINS.SEM": {WEB: [(2, answer(NEW))]},
            WEBMAIL: {ADMIN: at_once()},
        }
    )

    climbed = server.climb()

    assert proof(climbed).is_complete
    (_, first), (_, second), (_, third) = server.done
    assert first == 0
    assert second < 5.5  # the look that sees the change at 3 s comes a bit later
    assert 5 <= third - second < 10.5


def test_what_is_remembered_of_a_rung_is_used_the_next_time() -> None:
    def made() -> Server:
        return Server({CACHE: {}, WEBMAIL: dict.fromkeys(EVERY, at_once())})

    first, second = made(), made()

    memory = first.climb().memory
    second.climb(memory=memory)

    assert first.clock == 5
    assert memory.rungs == (
        Rung(CACHE, (), 0),
        Rung(WEBMAIL, ("mail", "webmail", "administration", "web"), 0),
    )
    assert second.clock == 0


def test_nothing_ever_changes_and_few_connections_show_it() -> None:
    server = Server({CACHE: {}, WEBMAIL: {}})

    climbed = server.climb()

    assert proof(climbed).old == EVERY
    assert server.clock == pytest.approx(65)
    assert max(server.connections.values()) <= MAX_CONNECTIONS
    assert server.thorough == 2  # at the beginning and at the end
    pauses = [b - a for a, b in zip(server.looks, server.looks[1:], strict=False)]
    last_rung = pauses[len(pauses) // 2 :]
    assert last_rung == sorted(last_rung)


def test_the_connections_of_a_whole_run_are_bounded() -> None:
    names = (CACHE, WEBMAIL, RESTART, SERVICE)
    server = Server({name: {} for name in names})

    climbed = server.climb()

    assert climbed.rungs == names
    assert max(server.connections.values()) == MAX_CONNECTIONS


def test_a_restart_may_take_three_times_as_long() -> None:
    back = [(0.0, CLOSED), (150.0, answer(NEW))]
    server = Server({RESTART: dict.fromkeys(EVERY, back)})

    climbed = server.climb()

    assert proof(climbed).new == EVERY
    assert 150 <= server.clock < 151
    # Who refuses a connection counts none.
    assert max(server.connections.values()) <= 2


def test_a_port_that_stays_silent_is_broken_at_last() -> None:
    for name, seconds in ((CACHE, 60), (RESTART, 180)):
        server = Server({name: {MAIL: [(0, CLOSED)], WEB: at_once(), ADMIN: at_once()}})

        climbed = server.climb()

        assert proof(climbed).broken == (MAIL,)
        (row,) = proof(climbed).of("broken")
        assert row.reason == "not listening: refuses the connection"
        assert server.clock == pytest.approx(seconds)


def test_a_port_that_answers_wrongly_for_a_moment_is_waited_for() -> None:
    passing = [(0.0, BROKEN), (20.0, answer(NEW))]
    server = Server({CACHE: {MAIL: passing, WEB: at_once(), ADMIN: at_once()}})

    assert proof(server.climb()).new == EVERY


@pytest.mark.parametrize("before", [CLOSED, BROKEN, BANNED])
@pytest.mark.parametrize("after", [CLOSED, BROKEN, BANNED, None])
def test_a_port_that_was_not_seen_before_is_no_reason_to_roll_back(
    before: Served, after: Served | None
) -> None:
    changes = {MAIL: at_once(), WEB: at_once()}
    effects = {ADMIN: [(0.0, after)]} if after else {}
    server = Server({CACHE: {**changes, **effects}})
    server.first[ADMIN] = before

    climbed = server.climb()

    assert proof(climbed).is_complete
    assert proof(climbed).new == (MAIL, WEB)
    shown = after or before
    assert proof(climbed).unproven == ((ADMIN,) if shown.is_listening else ())
    assert server.clock == 0


def test_a_port_that_turns_us_away_now_is_not_proven_and_not_broken() -> None:
    server = Server(
        {CACHE: {MAIL: [(0, BANNED)], WEB: at_once(), ADMIN: at_once()}, WEBMAIL: {}}
    )

    climbed = server.climb()

    assert proof(climbed).unproven == (MAIL,)
    assert proof(climbed).is_complete
    assert climbed.rungs == (CACHE,)


def mixed(other: x509.Certificate) -> Served:
    return replace(answer(NEW), differently=(answer(other),))


def test_what_is_stale_for_another_name_is_seen_and_waited_for() -> None:
    half = [(0.0, mixed(OLD)), (30.0, answer(NEW))]
    server = Server({CACHE: {MAIL: half, WEB: at_once(), ADMIN: at_once()}})

    climbed = server.climb()

    assert proof(climbed).new == EVERY
    assert server.thorough <= 3


def test_what_stays_stale_for_another_name_is_old() -> None:
    for other, verdict in ((OLD, "old"), (THIRD, "broken")):
        effects = {MAIL: [(0.0, mixed(other))], WEB: at_once(), ADMIN: at_once()}
        server = Server({CACHE: effects, WEBMAIL: {}})

        (row,) = proof(server.climb()).of("old", "broken")

        assert (row.endpoint, row.verdict) == (MAIL, verdict)
        assert "for the name" in row.reason
        assert server.thorough <= 5


def test_the_server_is_restarted_at_once_only_after_a_reload_has_shown() -> None:
    changed = Server(
        {CACHE: {MAIL: at_once()}, RESTART: dict.fromkeys(EVERY, at_once())}
    )
    deaf = Server({CACHE: {}, RESTART: dict.fromkeys(EVERY, at_once())})

    assert proof(changed.climb()).is_complete
    assert proof(deaf.climb()).is_complete

    assert changed.clock == 5
    assert deaf.clock == 60


@pytest.mark.parametrize("name", [RESTART, SERVICE])
def test_a_restart_is_remembered_before_it_begins(name: str) -> None:
    server = Server({name: {}})
    taken: list[Any] = []
    take = server.take

    def noting(rung: str) -> bool:
        taken.extend(server.saved)
        return take(rung)

    server.take = noting  # type: ignore[method-assign]

    climbed = server.climb(timeout=0)

    assert any(isinstance(x, Memory) and x.restarted == NOW for x in taken)
    assert any(isinstance(x, Attempt) and x.rungs == (name,) for x in taken)
    assert climbed.memory.restarted == NOW


def test_a_restart_that_the_server_refuses_is_not_remembered() -> None:
    server = Server({RESTART: {}}, refuses=(RESTART,))

    climbed = server.climb()

    assert climbed.rungs == ()
    assert climbed.memory.restarted is None
    assert [x for x in server.saved if isinstance(x, Attempt)][-1].rungs == ()


def test_after_a_refused_semaphore_only_the_service_is_left() -> None:
    server = Server(
        {CACHE: {}, WEBMAIL: {}, SERVICE: dict.fromkeys(EVERY, at_once())},
        refuses=(CACHE,),
    )

    climbed = server.climb()

    assert climbed.rungs == (SERVICE,)
    assert proof(climbed).is_complete


@pytest.mark.parametrize(
    ("taken", "hours", "expected"),
    [
        ((), None, (CACHE, RESTART, SERVICE)),
        ((CACHE,), None, (CACHE, RESTART, SERVICE)),
        ((CACHE, RESTART), 25, (CACHE, SERVICE)),
        ((CACHE, RESTART, SERVICE), 25, ()),
        ((), 23, (CACHE,)),
        ((CACHE,), 23, ()),
    ],
)
def test_a_scheduled_run_restarts_once_in_an_attempt_and_once_a_day(
    taken: tuple[str, ...], hours: int | None, expected: tuple[str, ...]
) -> None:
    last = None if hours is None else NOW - timedelta(hours=hours)
    memory = Memory(restarted=last)
    ladder: Rungs = {CACHE: {}, RESTART: {}, SERVICE: {}}

    scheduled = Server(dict(ladder)).climb(timeout=0, taken=taken, memory=memory)
    typed = Server(dict(ladder)).climb(
        timeout=0, taken=taken, memory=memory, scheduled=False
    )
    undone = Server(dict(ladder), first={MAIL: answer(NEW)}).climb(
        timeout=0, taken=taken, memory=memory, undoing=True
    )

    assert scheduled.rungs == expected
    assert typed.rungs == undone.rungs == (CACHE, RESTART, SERVICE)


def test_a_roll_back_waits_for_what_is_silent_and_climbs_on() -> None:
    ladder: Rungs = {
        CACHE: {MAIL: [(0.0, CLOSED)]},
        SERVICE: {MAIL: [(10.0, answer(OLD))]},
    }
    server = Server(ladder, first={MAIL: answer(NEW)})

    climbed = server.climb(undoing=True)

    assert climbed.rungs == (CACHE, SERVICE)
    assert proof(climbed).is_complete
