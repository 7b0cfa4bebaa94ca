"""Choose among the certificates that this program has, before it orders another.

Also notice who put a value back. Rules over the snapshot, without the CA.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.pki.certificate import OURS, is_self_signed, thumbprint
from letsencrypt_mdaemon.renewal import due as rules
from letsencrypt_mdaemon.state.ledger import RETRY_INTERVAL, WEEK
from letsencrypt_mdaemon.state.memory import PutBack, Target, utc
from letsencrypt_mdaemon.text import CHOOSE, day, when

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.pki.certificate import Certificate
    from letsencrypt_mdaemon.renewal.due import Due
    from letsencrypt_mdaemon.renewal.snapshot import Snapshot
    from letsencrypt_mdaemon.state.memory import Memory

MAX_RETURNS = 3
"""When a value was put back so often in a week, the run is not good."""

MAX_KEPT = 100
"""The values put back that are remembered."""

_NOWHERE = Target("", "", "", "")

KEPT = "MDaemon saved settings that it kept in memory"
RESTORED = "a backup was restored"
SCRIPT = "MDaemon's own Let's Encrypt scheduler or the old script ran"
TWIN = "this program ran on another machine or with another state folder"
CHOSEN = "somebody chose another one in MDaemon's settings"
REMEDIES = {
    KEPT: "close MDaemon's settings windows, then restart MDaemon once",
    RESTORED: "look for a backup or a cluster that restores its files",
    SCRIPT: "switch off MDaemon's own Let's Encrypt scheduler and tasks that run "
    "LetsEncrypt.ps1",
    TWIN: "remove other scheduled tasks that run this program",
    CHOSEN: "ask the administrators who use MDaemon's SSL & TLS dialog",
}
"""What to do about each suspect."""


def spares(snapshot: Snapshot) -> list[x509.Certificate]:
    """Return our certificates of the store to use instead of an order, best first.

    Whether their keys can be used is not known. Nothing would be due if one of them
    were in use. A certificate that is only old gives way to one that ends later, and
    a good one only on `activate`, to a newer one that was rolled back, or that waits
    because of a hold. The certificate in use is put into use again if an earlier run
    did not see it on every port.
    """
    request, in_use, memory = snapshot.request, snapshot.in_use, snapshot.memory
    if in_use is not None and _is_unfinished(snapshot, in_use):
        return [in_use]
    due = rules.by_rule(snapshot, snapshot.names)
    if request.force or not (due.due or request.activate_only):
        return []
    if snapshot.pending is not None and rules.decide(snapshot).due:
        return []
    is_only_old = in_use is not None and (not due.due or due.rule)
    ends = {
        digest: leaf.not_valid_after_utc
        for digest, (leaf, name) in snapshot.stored.items()
        if leaf != in_use
        # `_would_do` says the same, slower: a store may hold thousands of others.
        and (memory.find(digest) or name.startswith(f"{OURS} "))
        and (due.due or memory.hold or is_rolled_back(memory, digest))
        and _would_do(snapshot, leaf)
    }
    if in_use is not None and is_only_old:
        last = in_use.not_valid_after_utc
        ends = {digest: end for digest, end in ends.items() if end >= last}

    def rank(digest: str) -> tuple[object, ...]:
        known = memory.find(digest)
        is_verified = known is not None and known.verified is not None
        is_last = digest == memory.in_use
        return is_rolled_back(memory, digest), is_last, is_verified, ends[digest]

    return [snapshot.stored[each][0] for each in sorted(ends, key=rank, reverse=True)]


def is_rolled_back(memory: Memory, digest: str) -> bool:
    """Whether a certificate was rolled back, and not activated since."""
    known = memory.find(digest)
    return known is not None and known.rolled_back is not None


def _is_unfinished(snapshot: Snapshot, in_use: x509.Certificate) -> bool:
    """Whether an earlier run bound it, and did not see it on every port."""
    attempt = snapshot.attempt
    if attempt is None or attempt.failed is not None or attempt.undoing:
        return False
    is_left = snapshot.pending is None and not snapshot.request.force
    is_same = attempt.thumbprint == thumbprint(in_use)
    return is_left and is_same and _would_do(snapshot, in_use)


def _would_do(snapshot: Snapshot, leaf: x509.Certificate) -> bool:
    """Whether nothing would be due with this certificate in use, and it may be used."""
    digest, memory, now = thumbprint(leaf), snapshot.memory, snapshot.now
    attempt = snapshot.attempt
    failed = attempt.failed if attempt and attempt.thumbprint == digest else None
    has_failed = failed is not None and now - failed < RETRY_INTERVAL
    is_barred = has_failed or is_rolled_back(memory, digest)
    if is_barred and not snapshot.request.activate_only:
        return False
    used = snapshot._replace(
        # On a new server, as if somebody had chosen it.
        named=dict.fromkeys(snapshot.named or [_NOWHERE], leaf),
        memory=memory._replace(in_use=digest),
    )
    return not fault(used) and not rules.by_rule(used, snapshot.names).due


def fault(snapshot: Snapshot) -> str:
    """Return what is bad about a certificate in use, as a clause; "" if nothing is."""
    now = snapshot.now
    for leaf in dict.fromkeys(snapshot.named.values()):
        if leaf is None:
            return "is not in the store"
        if leaf.not_valid_after_utc <= now:
            return f"expired on {day(leaf.not_valid_after_utc, now)}"
        if leaf.not_valid_before_utc > now:
            return f"is not valid before {when(leaf.not_valid_before_utc, now)}"
        if is_self_signed(leaf):
            return "is self-signed"
        if revoked := snapshot.memory.revoked(thumbprint(leaf)):
            return f"was revoked on {day(revoked, now)}"
    return ""


def choose(snapshot: Snapshot, due: Due) -> Due:
    """Decide to use the spare certificate, if there is one, instead of an order."""
    if snapshot.spare is None:
        return due
    found = rules.by_rule(snapshot, snapshot.names)
    reason = "a newer certificate was rolled back; this is another attempt"
    if snapshot.spare == snapshot.in_use:
        reason = "an earlier run did not see the certificate in use on every port"
    elif found.due:
        cause = suspect(snapshot)
        reason = found.reason + (f", probably because {cause}" if cause else "")
        reason += "; a good one is in the store"
    return rules.Due(due=True, reason=reason, at=snapshot.now)


def put_back(snapshot: Snapshot) -> dict[str, str]:
    """Return the targets that somebody changed since the last activation.

    Returns:
        Target -> the thumbprint that it names; "" if that is unknown.
    """
    memory, attempt = snapshot.memory, snapshot.attempt
    if memory.in_use not in snapshot.stored:
        return {}  # The values may be as they were.
    ours = {memory.in_use, attempt.thumbprint if attempt else ""}
    named = {
        str(target): thumbprint(leaf) if leaf else ""
        for target, leaf in snapshot.named.items()
    }
    return {
        at: digest for at, digest in named.items() if not digest or digest not in ours
    }


def suspect(snapshot: Snapshot) -> str:
    """Return who probably put a value back; "" if none was."""
    changed = put_back(snapshot)
    if not changed:
        return ""
    digest = next(iter(changed.values()))
    leaf, name = snapshot.stored.get(digest, (None, ""))
    leaf = leaf or next(
        (one for one in snapshot.named.values() if one and thumbprint(one) == digest),
        None,
    )
    last, _ = snapshot.stored[snapshot.memory.in_use]
    if leaf is None:
        return RESTORED
    is_newer = leaf.not_valid_before_utc > last.not_valid_before_utc
    if snapshot.memory.find(digest) or name.startswith(f"{OURS} "):
        return TWIN if is_newer else KEPT
    if is_self_signed(leaf):
        return CHOSEN if is_newer else RESTORED
    return SCRIPT if is_newer else RESTORED


def noted(snapshot: Snapshot) -> Memory:
    """Return the memory with the values that were put back now."""
    memory, now = snapshot.memory, snapshot.now
    kept = [row for row in memory.put_back if timedelta() <= now - row.at < WEEK]
    for target, digest in put_back(snapshot).items():
        kept.append(PutBack(target, digest, utc(now)))
    return memory._replace(put_back=tuple(kept[-MAX_KEPT:]))


def complaint(
    before: Snapshot,
    memory: Memory,
    suspects: Callable[[], tuple[Sequence[str], Sequence[str]]],
) -> DeployError | None:
    """Return the error if values that were put back now were so too often.

    Args:
        before: The snapshot before the certificate was bound again.
        memory: With the values put back now.
        suspects: Returns the tasks that run the old script, and those of this program.
    """
    counted = Counter((row.target, row.thumbprint) for row in memory.put_back)
    changed = put_back(before)
    times = max((counted[pair] for pair in changed.items()), default=0)
    if times < MAX_RETURNS:
        return None
    first, found = suspect(before), dict(zip((SCRIPT, TWIN), suspects(), strict=True))
    # A task that is there is more than a guess.
    causes = sorted(REMEDIES, key=lambda each: (not found.get(each), each != first))
    steps = [f"{each}: {REMEDIES[each]}{_named(found.get(each))}" for each in causes]
    return DeployError(
        f"Another program put back a former certificate {times} times in 7 days: "
        f"{'; '.join(changed)}. The right certificate is bound again, and none was "
        "ordered.",
        hint=f"Find out what does it, most probable first. {'. '.join(steps)}.",
    )


def _named(tasks: Sequence[str] | None) -> str:
    return f" ({', '.join(tasks)})" if tasks else ""


def unchosen(
    snapshot: Snapshot, leaf: x509.Certificate, pending: Certificate | None
) -> DeployError:
    """Return what is left to do on a new server, whose files name no certificate."""
    _, name = snapshot.stored.get(thumbprint(leaf), (leaf, ""))
    error = DeployError(
        "The certificate is issued and in the store, but MDaemon does not use it yet: "
        "its files name no certificate.",
        hint=f"{CHOOSE} {(pending.friendly_name if pending else name)!r} on each. The "
        "next run then goes on by itself, and places no order.",
    )
    error.unchosen = True
    return error


def last_verified(snapshot: Snapshot) -> tuple[x509.Certificate, datetime] | None:
    """Return the certificate for a rollback, and when every port served it."""
    for issued in reversed(snapshot.memory.issued):
        leaf, _ = snapshot.stored.get(issued.thumbprint, (None, ""))
        if leaf is None or issued.verified is None:
            continue
        if snapshot.memory.revoked(issued.thumbprint):
            continue
        if leaf == snapshot.in_use or rules.is_compromised(leaf, snapshot.memory):
            continue
        if leaf.not_valid_before_utc <= snapshot.now < leaf.not_valid_after_utc:
            return leaf, issued.verified
    return None
