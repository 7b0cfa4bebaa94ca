"""Put a certificate into use and verify it at every port, or roll back."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.pki.certificate import OURS, dns_names, thumbprint
from letsencrypt_mdaemon.renewal import hold, ladder, removal
from letsencrypt_mdaemon.renewal.adapters import Outcome
from letsencrypt_mdaemon.renewal.climb import RESTART_INTERVAL, climb
from letsencrypt_mdaemon.renewal.proof import Judge, restored
from letsencrypt_mdaemon.renewal.proof import baseline as ours_before
from letsencrypt_mdaemon.state.memory import Attempt, Issued, utc
from letsencrypt_mdaemon.text import day, when

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cryptography import x509

    from letsencrypt_mdaemon.renewal.adapters import Adapters, Proof, Row
    from letsencrypt_mdaemon.renewal.snapshot import Snapshot
    from letsencrypt_mdaemon.state.memory import Change, Memory, Target

_log = logging.getLogger(__name__)


def put_into_use(
    snapshot: Snapshot, leaf: x509.Certificate, reason: str, adapters: Adapters
) -> Outcome:
    """Put a certificate of the store into use, verify it, or roll back.

    Raises:
        ConfigError: If the server's files cannot be understood; nothing is changed.
        DeployError: If the certificate is not in use everywhere afterwards.
    """
    snapshot = snapshot.searched(adapters)
    request, attempt = snapshot.request, snapshot.attempt
    if attempt is None or attempt.failed is not None:
        attempt = Attempt(thumbprint(leaf), baseline(snapshot, adapters), ())
    # Else a run was killed, or left ports on the old certificate: keep its baseline.
    adapters.store.let_read(thumbprint(leaf))
    deployed = cut_over(snapshot, attempt, leaf, adapters)
    proof, memory = deployed.proof, deployed.memory
    snapshot = snapshot._replace(memory=memory)
    _require_in_use(snapshot, deployed, adapters)
    if proof is None or not proof.new:
        kept = " Superseded certificates are kept." if request.remove_old else ""
        _log.warning("Nothing could be verified: no port serves TLS.%s", kept)
    held = memory.hold
    held = held if held and held.thumbprint == thumbprint(leaf) else None
    # A person's choice may be undone by hand.
    may_remove = proof and proof.new and not proof.unproven and held is None
    error = _unproven(proof) if request.given and proof and proof.unproven else None
    if issued := memory.find(thumbprint(leaf)):
        is_proven = error is None and proof is not None and proof.new
        seen = utc(snapshot.now) if is_proven else issued.verified
        memory = memory.remember(issued._replace(verified=seen, rolled_back=None))
    # Without it, the next run could not know the server's own name by its certificate.
    first = request.names[0]
    host = first if first in dns_names(leaf) else memory.host_name
    proven = tuple(proof.new) if proof else memory.proven
    memory = memory._replace(
        in_use=thumbprint(leaf), host_name=host, proven=proven, hold=held
    )
    adapters.state.save(memory)
    # In this order: an attempt that outlives its certificate would harm the next one.
    # While a port that the administrator named is unproven, the next run looks again.
    if error is None:
        adapters.state.forget_attempt()
        adapters.ca.forget_pending()
    snapshot = snapshot._replace(memory=memory)
    next_at = hold.next_due(snapshot, leaf)
    following = "the next run of renew replaces it"
    if next_at is not None:
        following = f"the next renewal is due about {day(next_at, snapshot.now)}"
    elif held is not None:
        following = f"runs keep it until {day(held.until, snapshot.now)}"
    _log.info(
        "In use%s: %s, valid until %s; %s",
        f" ({proof.headline})" if proof else "",
        thumbprint(leaf),
        day(leaf.not_valid_after_utc, snapshot.now),
        following,
        extra={"result": True},
    )
    removed = removal.clean_up(snapshot, leaf, adapters) if may_remove else ()
    return Outcome(
        renewed=True,
        reason=reason,
        names=request.names,
        certificate=leaf,
        next_at=next_at,
        changes=deployed.changes,
        reloaded=deployed.rungs,
        proof=proof,
        dropped=memory.dropped,
        held=held,
        removed=removed,
        error=error,
    )


def _require_in_use(snapshot: Snapshot, deployed: Deployed, adapters: Adapters) -> None:
    """Roll back if a port is broken.

    Raises:
        DeployError: If a port is broken or old, or a file names the former certificate.
    """
    proof = deployed.proof
    if proof is not None:
        _say(proof)
        if proof.broken:
            undo(snapshot, deployed.attempt, proof.of("broken"), adapters)
    if deployed.strays or (proof is not None and proof.old):
        adapters.state.save(deployed.memory)
    if deployed.strays:
        message = "Another program put back the former certificate while the new one "
        message += f"was put into use: {'; '.join(map(str, deployed.strays))}."
        hint = "Close MDaemon's settings window and switch off its own Let's Encrypt "
        hint += "scheduler. The next run tries again, and places no order."
        raise DeployError(message, hint=hint)
    if proof is not None and proof.old:
        raise _still_old(proof, deployed, snapshot)


def _say(proof: Proof) -> None:
    """Warn of each port that could not be seen, and of others' expired certificates."""
    for row in proof.of("unproven"):
        _log.warning("Not proven: %s: %s.", row.endpoint, row.reason)
    for row in proof.of("foreign"):
        expired = "expired" in row.reason
        level = logging.WARNING if expired else logging.INFO
        _log.log(level, "Not ours: %s: %s.", row.endpoint, row.reason)


def _still_old(proof: Proof, deployed: Deployed, snapshot: Snapshot) -> DeployError:
    again = "The next run checks the ports again, and places no order."
    request, last = snapshot.request, deployed.memory.restarted
    hint = "Restart MDaemon, or set allow-restart = yes."
    if request.scheduled and last and snapshot.now - last < RESTART_INTERVAL:
        hint = f"This program restarted MDaemon already on {when(last, snapshot.now)}. "
        hint += "Scheduled runs do that at most once a day. Restart MDaemon yourself."
    elif request.may_restart:
        hint = "MDaemon did not process the request to restart. Restart it yourself."
    hint += f" {again}"
    if any(map(ladder.is_restart, deployed.attempt.rungs)):
        hint = (
            "MDaemon was restarted, so a restart does not help: most likely another "
            "program answers there with a copy of the certificate, such as a proxy or "
            "an antivirus mail shield, or MDaemon lost the INI value in an upgrade. "
            "Give that program the new certificate, or run `discover`. To check only "
            f"MDaemon's own ports, set endpoint. {again}"
        )
    return DeployError(
        "The server's files name the new certificate, but these ports still serve the "
        f"old one: {', '.join(proof.old)}. {proof.headline}.",
        hint=hint,
    )


def _unproven(proof: Proof) -> DeployError:
    return DeployError(
        "The new certificate is in use, but these ports of the setting endpoint could "
        f"not be checked: {', '.join(map(str, proof.of('unproven')))}.",
        hint="Let the ports answer this machine, or correct endpoint. The next run "
        "checks the ports again, and places no order.",
    )


def undo(
    snapshot: Snapshot, attempt: Attempt, broken: Sequence[Row], adapters: Adapters
) -> NoReturn:
    """Roll back after a failure, or after a run that died while rolling back.

    Raises:
        DeployError: Always; it says whether the ports serve their old certificates.
    """
    what = "An earlier run was interrupted during a rollback"
    if broken:
        what = f"The new certificate broke {', '.join(map(str, broken))}"
    _log.warning("Rolling back: %s.", what)
    attempt = attempt._replace(undoing=True, rungs=())
    adapters.state.save(attempt)
    lost = put_back(snapshot, attempt, adapters)
    # With the restart and the rungs of the roll-back.
    snapshot = snapshot._replace(memory=adapters.state.load())
    done = Attempt(attempt.thumbprint, {}, (), failed=utc(snapshot.now))
    adapters.state.save(done)
    adapters.state.save(without(snapshot, {attempt.thumbprint}))
    if lost:
        message = f"{what}. The files are restored, but these ports do not serve "
        message += f"their previous certificate: {', '.join(lost)}."
        raise DeployError(message, hint="Restart MDaemon, then check these ports.")
    served = ", ".join(attempt.before)
    is_ours = snapshot.memory.find(attempt.thumbprint)
    again = " The program tries it again in a day." if is_ours else ""
    raise DeployError(
        f"Rolled back: {what}. Every port serves its previous certificate: {served}.",
        hint="Check why the server rejects the new certificate: its key (key-type), "
        f"its chain, the server's log.{again}",
    )


def without(snapshot: Snapshot, thumbprints: Collection[str]) -> Memory:
    """Return the memory in which these certificates were rolled back."""
    memory = snapshot.memory
    for digest in thumbprints:
        leaf, name = snapshot.stored.get(digest, (None, ""))
        issued = memory.find(digest)
        if issued is None and leaf is not None and name.startswith(f"{OURS} "):
            issued = Issued(digest, snapshot.request.directory_url, dns_names(leaf))
        if issued is not None:
            issued = issued._replace(rolled_back=utc(snapshot.now))
            memory = memory.remember(issued)
    return memory


class Deployed(NamedTuple):
    """The changes, the rungs and the proof of a new certificate.

    Args:
        attempt: With all changes and rungs.
        changes: Those of this run.
        rungs: The rungs of the reload ladder that this run took.
        proof: None if the ports were not checked, or none serves TLS.
        strays: The targets that name another certificate again.
    """

    attempt: Attempt
    changes: tuple[Change, ...]
    rungs: tuple[str, ...]
    proof: Proof | None
    memory: Memory
    strays: tuple[Target, ...] = ()


def cut_over(
    snapshot: Snapshot, attempt: Attempt, leaf: x509.Certificate, adapters: Adapters
) -> Deployed:
    """Bind a certificate, climb the reload ladder, and check after each rung.

    The attempt is saved with all its changes before the first change.

    Raises:
        ConfigError: If the server's files cannot be understood; nothing is changed.
        DeployError: If writing the files, or restarting the service, fails.
    """
    new, before = thumbprint(leaf), attempt.before
    saved = [attempt]

    def keep(planned: Sequence[Change]) -> None:
        rungs = attempt.rungs if attempt.thumbprint == new else ()
        if planned:
            # The server needs its rungs once more; but not a restart.
            rungs = tuple(filter(ladder.is_restart, rungs))
        changes = (*attempt.changes, *planned)
        saved.append(Attempt(new, before, changes, rungs=rungs))
        adapters.state.save(saved[-1])

    changes = tuple(adapters.server.bind(leaf, now=snapshot.now, announce=keep))
    for item in changes:
        told = item.target, item.before or "(nothing)", item.after
        _log.info("%s: %s -> %s", *told, extra={"result": True})
    attempt, memory, request = saved[-1], snapshot.memory, snapshot.request
    taken: tuple[str, ...] = ()
    proof = None
    try:
        if request.reload:
            judge = Judge(
                before, new, ours(snapshot), given=request.given, now=snapshot.now
            )
            # Perhaps an earlier run wrote the files, and MDaemon was restarted since.
            seen = adapters.observe() if not changes and before else None
            proof = judge(seen) if seen else None
            if proof is None or not proof.is_complete:
                taken, proof, memory = climb(judge, snapshot, attempt, adapters, seen)
        else:
            _log.info("Skipping the reload (no-reload).")
    finally:
        strays = adapters.server.settle(leaf)
    attempt = attempt._replace(rungs=(*attempt.rungs, *taken))
    return Deployed(attempt, changes, taken, proof, memory, tuple(strays))


def put_back(
    snapshot: Snapshot, attempt: Attempt, adapters: Adapters
) -> tuple[str, ...]:
    """Undo an attempt's changes, and reload the server.

    Returns:
        The ports that do not serve their previous certificate.

    Raises:
        DeployError: If writing the files, or restarting the service, fails.
    """
    adapters.server.restore(attempt.changes, now=snapshot.now)
    try:
        judge = partial(restored, attempt.before)
        seen = adapters.observe()
        _, proof, memory = climb(judge, snapshot, attempt, adapters, seen)
    finally:
        adapters.server.settle(None)
    adapters.state.save(memory)
    return (*proof.old, *proof.silent) if proof else ()


def baseline(snapshot: Snapshot, adapters: Adapters) -> dict[str, str]:
    """Return the endpoints whose certificate is ours, with what they serve."""
    request = snapshot.request
    if not request.reload:
        return {}
    return ours_before(adapters.observe(), ours(snapshot), given=request.given)


def ours(snapshot: Snapshot) -> set[str]:
    """Return the thumbprints that the server's files name, and that we obtained."""
    named = {thumbprint(leaf) for leaf in snapshot.named.values() if leaf}
    return named | {item.thumbprint for item in snapshot.memory.issued}
