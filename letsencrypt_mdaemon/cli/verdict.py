"""Say the result of a command in a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from letsencrypt_mdaemon.cli.text import NOT_SCHEDULED, day, when

if TYPE_CHECKING:
    from collections.abc import Iterable

    from letsencrypt_mdaemon.cli.document import Document
    from letsencrypt_mdaemon.verify.verdict import Verification


def outcome(document: Document, *, fails: bool = False) -> str:
    """Return what a run did, or would do.

    Args:
        fails: Whether it ends with an error.
    """
    if document["dry_run"]:
        how = "the run would fail; " if fails else ""
        return f"Dry run: {how}nothing was changed, and no certificate was ordered."
    if document["staging"]:
        return "Rehearsal: nothing in use was changed."
    if document["waiting_until"]:
        return _waiting(document)
    first, *more = document["names"]
    names = first + (f" and {len(more)} more" if more else "")
    if item := document["pending"]:
        until = day(item["not_after"])
        text = (
            f"Issued, not in use: {names}, valid until {until}, {item['thumbprint']}."
        )
        bad = document["fault"]
        return f"{text} The certificate in use {bad}." if bad else text
    if not document["renewed"]:
        return _unchanged(document)
    done = {"activate": "Activated", "rollback": "Rolled back"}
    done |= dict.fromkeys(("use", "self-signed"), "In use")
    done["renew"] = "Renewed" if document["ordered"] else "In use again"
    proven = ""
    if (item := document["proof"]) and item["unproven"]:
        ports = len(item["new"]) + len(item["unproven"])
        proven = f"; {len(item['new'])} of {ports} ports proven"
    return (
        f"{done[document['command']]}: {names}, "
        f"valid until {day(document['certificate']['not_after'])}{proven}"
    )


def _waiting(document: Document) -> str:
    """Return what a renewal waits for, and until when."""
    until = when(document["waiting_until"])
    why = (document["waiting_for"] or "").partition(". ")[0]
    if why.startswith("held: "):
        return f"{why[0].upper()}{why[1:]}. At most until {until}."
    return f"Waiting: due, next try after {until}. --force tries now."


def _unchanged(document: Document) -> str:
    """Return why a run changed nothing."""
    if is_idle(document):
        return "No certificate waits for activation."
    if item := document["held"]:
        return f"Held by you since {when(item['since'])}."
    return f"Nothing due until {when(document['due_at'])}."


def is_idle(document: Document) -> bool:
    """Whether `activate` found nothing: the headline says all."""
    is_kept = not (document["renewed"] or document["due_at"] or document["dry_run"])
    return is_kept and document["command"] == "activate"


def status(found: Document) -> str:
    """Return what counts of a status."""
    leaf, pending = found["certificate"], found["pending"]
    until = f"valid until {day(leaf['not_after'])}" if leaf else "nothing known in use"
    if found["due"]:
        due = "due now"
    else:
        due = f"due {when(found['due_at'])}" if found["due_at"] else "not due"
    is_waiting = pending and pending != leaf
    issued = "; another certificate is issued and not in use" if is_waiting else ""
    if is_waiting and found["rolled_back"]:
        issued = f"; a new certificate was rolled back {when(found['rolled_back'])}"
    return f"{found['names'][0]}: {until}, {due}{issued}."


def verification(found: Verification) -> str:
    """Return what the ports serve, if nothing is wrong with them."""
    if not found.is_listening:
        why = "" if found.is_running else ": MDaemon's service is stopped"
        return f"No port listens, so nothing could be verified{why}."
    answering = [port for port in found.ports if port.served.is_listening]
    count = len(answering)
    serve = "1 port serves" if count == 1 else f"All {count} ports serve"
    if found.expected is None:
        return f"{serve} a valid certificate; the expected one is unknown."
    return f"{serve} the expected certificate."


def schedule(job: Document | None, rivals: Iterable[str]) -> Document:
    """Return the scheduled task and the tasks of the old script, with the verdict."""
    verdict = f"Scheduled daily at {job['when']}." if job else NOT_SCHEDULED
    return {"verdict": verdict, "job": job, "rivals": rivals}
