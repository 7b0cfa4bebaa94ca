"""Climb the reload ladder, and look at the ports after each rung."""

from __future__ import annotations

import logging
import time
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.renewal import ladder
from letsencrypt_mdaemon.renewal.adapters import Proof
from letsencrypt_mdaemon.state.memory import Rung, utc

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from letsencrypt_mdaemon.renewal.adapters import Adapters, Row, Verdict
    from letsencrypt_mdaemon.renewal.snapshot import Snapshot
    from letsencrypt_mdaemon.state.memory import Attempt, Memory
    from letsencrypt_mdaemon.verify.endpoints import Endpoint
    from letsencrypt_mdaemon.verify.served import Served

_log = logging.getLogger(__name__)

MAX_CONNECTIONS = 12
"""Connections to an endpoint, to see it change: a screening counts them."""
FIRST_PAUSE_SECONDS = 0.5
PAUSE_GROWTH = 2.5
RESTART_INTERVAL = timedelta(days=1)


class Climbed(NamedTuple):
    """The rungs taken and the proof; None if no port serves TLS."""

    rungs: tuple[str, ...]
    proof: Proof | None
    memory: Memory


def climb(
    judge: Callable[[Mapping[Endpoint, Served]], Proof],
    snapshot: Snapshot,
    attempt: Attempt,
    adapters: Adapters,
    seen: Mapping[Endpoint, Served] | None = None,
) -> Climbed:
    """Take one rung after the other until every port serves the right certificate.

    A broken port ends the climb, except in a roll-back. A restart of the server comes
    last, and only if a port needs it. The attempt is saved with each rung, before a
    restart and after a semaphore: a killed run may repeat only what does no harm.

    Args:
        judge: Returns the verdicts on what is seen.
        seen: What the ports answer now; None if all of them still serve what they
            served before.

    Raises:
        DeployError: If restarting the service fails.
    """
    watch = Watch(judge, snapshot, adapters, seen or {})
    memory, proof = snapshot.memory, None
    taken: list[str] = []
    refused = False
    blind = not attempt.before
    names = _allowed(adapters.server.ladder(), attempt, snapshot)
    for number, name in enumerate(names):
        untaken = attempt, memory
        if refused and not _is_service(name):
            continue
        if ladder.is_restart(name):
            proof = watch.look()
            if proof.is_complete and not blind:
                break
            memory = memory._replace(restarted=utc(snapshot.now))
            adapters.state.save(memory)
            attempt = attempt._replace(rungs=(*attempt.rungs, name))
            adapters.state.save(attempt)
        if not adapters.server.take(name):
            refused = True
            attempt, memory = untaken
            adapters.state.save(attempt)
            continue
        if not ladder.is_restart(name):
            attempt = attempt._replace(rungs=(*attempt.rungs, name))
            adapters.state.save(attempt)
        taken.append(name)
        rung = ladder.known(name, memory.rungs)
        following = next(iter(names[number + 1 :]), None)
        proof, rung = watch.after(rung, following)
        others = [item for item in memory.rungs if item.name != name]
        memory = memory._replace(rungs=(*others, rung))
        if not blind and _is_settled(proof, attempt):
            break
    if proof is None or not watch.is_thorough:
        proof = watch.look()
    if not attempt.undoing:
        proof = _given_up(proof, "broken" if taken else "unproven")
    return Climbed(tuple(taken), proof if proof.rows else None, memory)


def _is_settled(proof: Proof, attempt: Attempt) -> bool:
    """Whether no further rung helps: all is right, or the certificate breaks a port."""
    wrong = proof.of("broken", "silent") and not attempt.undoing
    return proof.is_complete or bool(wrong)


def _is_service(name: str) -> bool:
    return ladder.is_restart(name) and name.upper() != ladder.RESTART


def _allowed(names: Sequence[str], attempt: Attempt, snapshot: Snapshot) -> list[str]:
    """Return the rungs that this run may take.

    A scheduled run restarts the server once in an attempt, and once a day; once all
    rungs were taken, it only looks. A roll-back may need every rung again.
    """
    if not attempt.before:
        # No port can prove that it needs a restart of the service.
        names = [name for name in names if not _is_service(name)]
    if attempt.undoing or not snapshot.request.scheduled:
        return [*names]
    last, taken = snapshot.memory.restarted, attempt.rungs
    recently = last is not None and snapshot.now - last < RESTART_INTERVAL
    allowed = [
        name
        for name in names
        if not (ladder.is_restart(name) and (recently or name in taken))
    ]
    return allowed if set(allowed) - set(taken) else []


def _given_up(proof: Proof, verdict: Verdict) -> Proof:
    """Return the proof when silence has lasted long enough, with a verdict on it."""
    return Proof(
        tuple(
            row._replace(verdict=verdict) if row.verdict == "silent" else row
            for row in proof.rows
        )
    )


class Watch:
    """Looks at the ports, with few connections.

    Args:
        judge: Returns the verdicts on what is seen.
    """

    def __init__(
        self,
        judge: Callable[[Mapping[Endpoint, Served]], Proof],
        snapshot: Snapshot,
        adapters: Adapters,
        seen: Mapping[Endpoint, Served],
    ) -> None:
        self._judge = judge
        self._observe = adapters.observe
        self._timeout = snapshot.request.timeout
        self._seen = dict(seen)
        self._right = set(judge(seen).new) if seen else set[str]()
        self._connections: Counter[Endpoint] = Counter()
        self._changed = False
        self.is_thorough = False

    def look(self) -> Proof:
        """Ask every port for all names."""
        self._seen = dict(self._observe())
        self.is_thorough = True
        return self._judge(self._seen)

    def after(self, rung: Rung, following: str | None) -> tuple[Proof, Rung]:
        """Ask the ports that are not right yet until it is time for the next rung.

        The first name is asked for. When that is right everywhere, a thorough look
        follows. A port that it shows to be wrong for other names is asked once more.

        Args:
            following: The next rung; None if this is the last one.

        Returns:
            The proof, and what the rung did.
        """
        if not self._seen:
            self.look()
        self.is_thorough = False
        proof = self._judge(self._seen)
        ours = proof.of("new", "old", "broken", "silent")
        before = _kinds(self._seen, {row.endpoint for row in ours} - self._right)
        began = changed = time.monotonic()
        due: dict[Endpoint, float] = {}
        pauses: dict[Endpoint, float] = {}
        later: set[Endpoint] = set()
        while True:
            now = time.monotonic()
            left = self._left(proof, later)
            asked = [at for at in left if due.get(at, 0.0) <= now]
            proof = self._poll(asked)
            now = time.monotonic()
            if set(proof.new) - self._right:
                self._changed, changed = True, now
            self._right = set(proof.new)
            for at in asked:
                # Who refuses a connection does not count it.
                growth = PAUSE_GROWTH if self._seen[at].is_listening else 1.0
                pauses[at] = (
                    pauses[at] * growth if at in pauses else FIRST_PAUSE_SECONDS
                )
                due[at] = now + pauses[at]
            if proof.is_complete and not self.is_thorough:
                proof = self.look()
                later = {at for at, served in self._seen.items() if served.differently}
            patience = ladder.patience(
                rung, following, self._progress(proof), self._timeout
            )
            end = (changed if patience.from_change else began) + patience.seconds
            if proof.is_complete or now >= end:
                break
            waiting = ", ".join(row.endpoint for row in _wrong(proof))
            _log.info("waiting for %s", waiting, extra={"progress": True})
            soon = [due.get(at, now) for at in self._left(proof, later)]
            time.sleep(max(min([end, *soon]) - now, 0.0))
        if later and not proof.is_complete:
            proof = self.look()
        wrong = {row.endpoint for row in _wrong(proof)}
        done = before - _kinds(self._seen, wrong)
        return proof, ladder.learned(rung, before, done, changed - began)

    def _poll(self, asked: Collection[Endpoint]) -> Proof:
        if asked:
            answers = self._observe(asked)
            for at, served in answers.items():
                self._connections[at] += served.is_listening
            self._seen |= answers
            self.is_thorough = False
        return self._judge(self._seen)

    def _left(self, proof: Proof, later: Collection[Endpoint]) -> list[Endpoint]:
        """Return the endpoints to ask again."""
        wrong = {row.endpoint for row in _wrong(proof)}
        return [
            at
            for at in self._seen
            if str(at) in wrong
            and at not in later
            and self._connections[at] < MAX_CONNECTIONS
        ]

    def _progress(self, proof: Proof) -> ladder.Progress:
        return ladder.Progress(
            old=frozenset(_kinds(self._seen, proof.old)),
            broken=bool(proof.broken),
            silent=bool(proof.silent),
            changed=self._changed,
        )


def _wrong(proof: Proof) -> tuple[Row, ...]:
    return proof.of("old", "broken", "silent")


def _kinds(seen: Mapping[Endpoint, Served], endpoints: Collection[str]) -> set[str]:
    return {at.kind for at in seen if str(at) in endpoints}
