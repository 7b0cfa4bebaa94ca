"""Put a certificate into use and verify it at every port, or roll back."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.pki.certificate import OURS, dns_names, thumbprint
from letsencrypt_mdaemon.renewal import due
from letsencrypt_mdaemon.renewal.adapters import Outcome, Proof
from letsencrypt_mdaemon.state.memory import Attempt, Issued, utc
from letsencrypt_mdaemon.text import day

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from cryptography import x509

    from letsencrypt_mdaemon.renewal.adapters import Adapters
    from letsencrypt_mdaemon.renewal.snapshot import Snapshot
    from letsencrypt_mdaemon.state.memory import Change, Memory, Target

_log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""The time between two checks of ports that have not changed yet."""


def put_into_use(
    snapshot: Snapshot, leaf: x509.Certificate, reason: str, adapters: Adapters
) -> Outcome:
    """Put a certificate of the store into use, verify it, or roll back.

    Raises:
        ConfigError: If the server's files cannot be understood; nothing is changed.
        DeployError: If the certificate is not in use everywhere afterwards.
    """
    request, attempt = snapshot.request, snapshot.attempt
    if attempt is None or attempt.failed is not None:
        attempt = Attempt(thumbprint(leaf), baseline(snapshot, adapters), ())
    # Else a run was killed, or left ports on the old certificate: keep its baseline.
    deployed = cut_over(snapshot, attempt, leaf, adapters)
    proof = deployed.proof
    if proof is not None and proof.broken:
        changes = attempt.changes + deployed.changes
        attempt = Attempt(thumbprint(leaf), attempt.before, changes)
        undo(snapshot, attempt, proof.broken, adapters)
    if deployed.strays:
        message = "Another program put back the former certificate while the new one "
        message += f"was put into use: {'; '.join(map(str, deployed.strays))}."
        hint = "Close MDaemon's settings window and switch off its own Let's Encrypt "
        hint += "scheduler. The next run tries again, and places no order."
        raise DeployError(message, hint=hint)
    if proof is not None and proof.old:
        raise DeployError(
            "The server's files name the new certificate, but these ports still serve "
            f"the old one: {', '.join(proof.old)}.",
            hint="Restart MDaemon, or set allow-restart = yes. The next run checks the "
            "ports again, and places no order.",
        )
    if proof is None:
        kept = " Superseded certificates are kept." if request.remove_old else ""
        _log.warning("Nothing could be verified: no port serves TLS.%s", kept)
    memory = snapshot.memory
    if issued := memory.find(thumbprint(leaf)):
        seen = issued.verified if proof is None else utc(snapshot.now)
        memory = memory.remember(issued._replace(verified=seen, rolled_back=None))
    adapters.state.save(memory._replace(in_use=thumbprint(leaf)))
    # In this order: an attempt that outlives its certificate would harm the next one.
    adapters.state.forget_attempt()
    adapters.ca.forget_pending()
    next_at = due.backstop(leaf)
    _log.info(
        "In use%s: %s, valid until %s; the next renewal is due about %s",
        f" at {len(proof.new)} ports" if proof else "",
        thumbprint(leaf),
        day(leaf.not_valid_after_utc, snapshot.now),
        day(next_at, snapshot.now),
    )
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
        removed=_remove_old(snapshot, leaf, adapters) if proof is not None else (),
    )


def undo(
    snapshot: Snapshot, attempt: Attempt, broken: Sequence[str], adapters: Adapters
) -> NoReturn:
    """Roll back after a failure, or after a run that died while rolling back.

    Raises:
        DeployError: Always; it says whether the ports serve their old certificates.
    """
    what = "An earlier run was interrupted during a rollback"
    if broken:
        what = f"The new certificate broke {', '.join(broken)}"
    _log.warning("Rolling back: %s.", what)
    adapters.state.save(attempt._replace(undoing=True))
    lost = put_back(snapshot, attempt, adapters)
    done = Attempt(attempt.thumbprint, {}, (), failed=utc(snapshot.now))
    adapters.state.save(done)
    adapters.state.save(without(snapshot, {attempt.thumbprint}))
    if lost:
        message = f"{what}. The files are restored, but these ports do not serve "
        message += f"their previous certificate: {', '.join(lost)}."
        raise DeployError(message, hint="Restart MDaemon, then check these ports.")
    served = ", ".join(attempt.before)
    raise DeployError(
        f"Rolled back: {what}. Every port serves its previous certificate: {served}.",
        hint="Check why the server rejects the new certificate: its key (key-type), "
        "its chain, the server's log. The program tries it again in a day.",
    )


def without(snapshot: Snapshot, thumbprints: Collection[str]) -> Memory:
    """Return the memory in which these certificates were rolled back."""
    memory = snapshot.memory
    for digest in thumbprints:
        leaf, _ = snapshot.stored.get(digest, (None, ""))
        issued = memory.find(digest)
        if issued is None and leaf is not None:
            issued = Issued(digest, snapshot.request.directory_url, dns_names(leaf))
        if issued is not None:
            issued = issued._replace(rolled_back=utc(snapshot.now))
            memory = memory.remember(issued)
    return memory


class Deployed(NamedTuple):
    """The changes, the rungs and the proof of a new certificate.

    Args:
        rungs: The rungs of the reload ladder that were taken.
        proof: None if no port served TLS before, or no rung was taken.
        strays: The targets that name another certificate again.
    """

    changes: tuple[Change, ...]
    rungs: tuple[str, ...]
    proof: Proof | None
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

    def keep(planned: Sequence[Change]) -> None:
        changes = (*attempt.changes, *planned)
        adapters.state.save(Attempt(new, before, changes))

    def look() -> Proof:
        return compare(before, adapters.observe(), new)

    changes = tuple(adapters.server.bind(leaf, now=snapshot.now, announce=keep))
    for change in changes:
        was = change.before or "(nothing)"
        _log.info("%s: %s -> %s", change.target, was, change.after)
    rungs: tuple[str, ...] = ()
    proof = look() if not changes and before else None
    try:
        # Perhaps an earlier run wrote the files, and MDaemon was restarted since.
        if proof is None or not proof.is_complete:
            rungs, proof = _climb(look if before else None, snapshot, adapters)
    finally:
        strays = adapters.server.settle(leaf)
    return Deployed(changes, rungs, proof, tuple(strays))


def put_back(
    snapshot: Snapshot, attempt: Attempt, adapters: Adapters
) -> tuple[str, ...]:
    """Undo an attempt's changes, and reload the server.

    Returns:
        The ports that do not serve their previous certificate.

    Raises:
        DeployError: If writing the files, or restarting the service, fails.
    """
    before = attempt.before

    def look() -> Proof:
        served = adapters.observe()
        lost = tuple(port for port, was in before.items() if served.get(port) != was)
        return Proof(old=lost)

    adapters.server.restore(attempt.changes, now=snapshot.now)
    try:
        _, proof = _climb(look, snapshot, adapters)
    finally:
        adapters.server.settle(None)
    return tuple(before) if proof is None else proof.old


def compare(before: Mapping[str, str], after: Mapping[str, str], new: str) -> Proof:
    """Compare what each port served before with what it serves now."""
    shown: dict[str, list[str]] = {"new": [], "old": [], "broken": []}
    for endpoint, served in before.items():
        now = after.get(endpoint, "")
        verdict = "new" if now == new else "old" if now == served else "broken"
        shown[verdict].append(endpoint)
    return Proof(**{verdict: tuple(ports) for verdict, ports in shown.items()})


def baseline(snapshot: Snapshot, adapters: Adapters) -> dict[str, str]:
    """Return the ports whose certificate is ours to change, with its thumbprint.

    If neither the server's files name a port's certificate nor we obtained it, the port
    belongs to another program, unless the administrator named the endpoints.
    """
    if not snapshot.request.reload:
        return {}
    ours = {thumbprint(leaf) for leaf in snapshot.named.values() if leaf}
    ours |= {item.thumbprint for item in snapshot.memory.issued}
    return {
        endpoint: served
        for endpoint, served in adapters.observe().items()
        if served and (snapshot.request.given or served in ours)
    }


def _climb(
    look: Callable[[], Proof] | None, snapshot: Snapshot, adapters: Adapters
) -> tuple[tuple[str, ...], Proof | None]:
    """Take one rung after the other until every port serves the right certificate.

    A broken port ends the climb. The service is restarted last, and only if a port
    still serves the old certificate.

    Args:
        look: Returns what the ports serve; None if there are no ports to check.
    """

    def rungs() -> Iterator[str]:
        yield from adapters.server.reload()
        if look is not None and look().old:
            yield from adapters.server.restart_service()

    taken, proof = [], None
    for rung in rungs():
        taken.append(rung)
        if look is not None:
            proof = _wait(look, snapshot.request.timeout)
            if proof.is_complete or proof.broken:
                break
    return tuple(taken), proof


def _wait(look: Callable[[], Proof], timeout: float) -> Proof:
    """Check the ports until all serve the right certificate, or time is up.

    Args:
        timeout: Seconds; a server that restarts serves nothing for a while.
    """
    deadline = time.monotonic() + timeout
    while True:
        proof = look()
        if proof.is_complete or time.monotonic() > deadline:
            return proof
        waiting = ", ".join([*proof.broken, *proof.old])
        _log.info("waiting for %s", waiting, extra={"progress": True})
        time.sleep(POLL_SECONDS)


def _remove_old(
    snapshot: Snapshot, new: x509.Certificate, adapters: Adapters
) -> tuple[str, ...]:
    """Remove our superseded certificates that no file names.

    A failure is only a warning, because the new certificate is in use.
    """
    if not snapshot.request.remove_old:
        return ()
    superseded = {
        digest: name
        for digest, (leaf, name) in snapshot.stored.items()
        if (snapshot.memory.find(digest) or name.startswith(f"{OURS} "))
        and leaf.not_valid_before_utc <= new.not_valid_before_utc
        and set(dns_names(leaf)) & set(dns_names(new))
        and leaf != new
    }
    removed = []
    try:
        # Read again: an administrator may have chosen a superseded one meanwhile.
        in_files = adapters.server.references() if superseded else ()
        for digest, name in superseded.items():
            if digest not in in_files:
                adapters.store.remove(digest)
                _log.info("Removed the superseded certificate %s", name)
                removed.append(digest)
    except DeployError as exc:
        _log.warning("%s %s", exc.message, exc.hint)
    return tuple(removed)
