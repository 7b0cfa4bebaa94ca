"""What a person asks for: use a certificate of the store, or reload the server."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.errors import DeployError, Error
from letsencrypt_mdaemon.pki.certificate import dns_names, thumbprint
from letsencrypt_mdaemon.renewal import guard, ladder
from letsencrypt_mdaemon.renewal.adapters import Proof
from letsencrypt_mdaemon.renewal.climb import Watch
from letsencrypt_mdaemon.renewal.deploy import baseline, ours, put_into_use
from letsencrypt_mdaemon.renewal.proof import Judge
from letsencrypt_mdaemon.renewal.snapshot import take_snapshot
from letsencrypt_mdaemon.state.memory import IIS, Hold, Memory, utc
from letsencrypt_mdaemon.text import CHOOSE, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.renewal.adapters import Adapters, Outcome, Request
    from letsencrypt_mdaemon.renewal.snapshot import Snapshot
    from letsencrypt_mdaemon.verify.endpoints import Endpoint
    from letsencrypt_mdaemon.verify.served import Served

_log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""Between two looks at a port that a restart should close."""


def use(  # noqa: PLR0913 - what a person says
    leaf: x509.Certificate,
    request: Request,
    adapters: Adapters,
    memory: Memory,
    *,
    now: datetime,
    held: Hold | None,
) -> Outcome:
    """Put a certificate of the store into use as a renewal does.

    Args:
        held: The hold that begins with it, if one does.

    Raises:
        ConfigError: If the server's files do not allow it; nothing is changed.
        DeployError: If the certificate is not in use everywhere afterwards.
    """
    snapshot = guard.look(take_snapshot(request, adapters, memory, now), adapters)
    if not snapshot.named:
        _, name = snapshot.stored.get(thumbprint(leaf), (leaf, ""))
        raise DeployError(
            "The server's files name no certificate yet, so none can be replaced.",
            hint=f"{CHOOSE} {printable(name or thumbprint(leaf))!r} on each.",
        )
    verdict = guard.judge(snapshot, leaf, adapters, asked=True)
    if verdict.refusal is not None:
        raise verdict.refusal
    with holding(snapshot, leaf, held, adapters) as snapshot:
        outcome = put_into_use(snapshot, leaf, "you chose it", adapters)
    error = outcome.error or verdict.loss
    return outcome._replace(names=dns_names(leaf), error=error)


@contextmanager
def holding(
    snapshot: Snapshot, leaf: x509.Certificate, held: Hold | None, adapters: Adapters
) -> Iterator[Snapshot]:
    """Hold a certificate while it is put into use, so that a killed run is continued.

    If the server's files do not name it afterwards, an earlier hold stays.
    """
    former = snapshot.memory.hold
    snapshot = snapshot._replace(memory=snapshot.memory._replace(hold=held))
    adapters.state.save(snapshot.memory)
    try:
        yield snapshot
    except BaseException:
        with suppress(Error):
            others = set(adapters.server.settle(leaf))
            if others >= {at for at in snapshot.named if at.file != IIS}:
                memory = adapters.state.load()
                adapters.state.save(memory._replace(hold=former))
        raise


class Reloaded(NamedTuple):
    """What a reload did.

    Args:
        rungs: The rungs that the server took.
        proof: What the ports show of the certificate that the server's files name.
        error: Why that is not good.
    """

    rungs: tuple[str, ...]
    proof: Proof
    error: Error | None


def reload(
    request: Request,
    adapters: Adapters,
    memory: Memory,
    *,
    now: datetime,
    restart: bool,
) -> Reloaded:
    """Make the server reload its certificate, and look at its ports.

    Every gentle rung is taken, and then one that restarts the server, if it should.

    Raises:
        DeployError: If the restart of its service fails.
    """
    snapshot = take_snapshot(request, adapters, memory, now)
    watch = Watch(_judge(snapshot, adapters), snapshot, adapters, {})
    taken: list[str] = []
    names = adapters.server.ladder()
    for name in [each for each in names if not ladder.is_restart(each)]:
        taken += [name] * adapters.server.take(name)
    seen = adapters.observe() if restart else {}
    for name in [each for each in names if restart and ladder.is_restart(each)]:
        if adapters.server.take(name):
            taken.append(name)
            adapters.state.save(adapters.state.load()._replace(restarted=utc(now)))
            _wait_until_down(seen, adapters)
            break
    proof = watch.look()
    if taken and not proof.is_complete:
        proof, _ = watch.after(ladder.known(taken[-1], memory.rungs), None)
    return Reloaded(tuple(taken), proof, _error(proof, taken))


def _judge(
    snapshot: Snapshot, adapters: Adapters
) -> Callable[[Mapping[Endpoint, Served]], Proof]:
    """Return what judges the ports by the certificate that the server's files name."""
    leaf = snapshot.in_use
    judge = Judge(
        baseline(snapshot, adapters),
        thumbprint(leaf) if leaf else "",
        ours(snapshot),
        given=snapshot.request.given,
        now=snapshot.now,
    )
    if leaf is not None:
        return judge

    def unclear(seen: Mapping[Endpoint, Served]) -> Proof:
        """Prove nothing: the files name several certificates."""
        rows = judge(seen).rows
        return Proof(tuple(row._replace(verdict="unproven") for row in rows))

    return unclear


def _wait_until_down(before: Mapping[Endpoint, Served], adapters: Adapters) -> None:
    """Wait until the server closes a port to restart; it does so some seconds later."""
    port = next((at for at, served in before.items() if served.is_listening), None)
    end = time.monotonic() + ladder.GENTLE_SECONDS
    while port is not None and time.monotonic() < end:
        if not adapters.observe([port])[port].is_listening:
            return
        time.sleep(POLL_SECONDS)


def _error(proof: Proof, taken: Collection[str]) -> Error | None:
    if not taken:
        return DeployError(
            "MDaemon was not reloaded: it did not process any semaphore.",
            hint="Check that MDaemon runs, or restart it.",
        )
    if proof.is_complete:
        return None
    wrong = ", ".join(map(str, proof.of("old", "broken", "silent")))
    return DeployError(
        "These ports do not serve the certificate that the server's files name: "
        f"{wrong}. {proof.headline}.",
        hint="Run `reload --restart`, or restart MDaemon. `verify` shows more.",
    )
