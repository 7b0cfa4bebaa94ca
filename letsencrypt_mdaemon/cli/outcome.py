"""Print what a run did, or would do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from letsencrypt_mdaemon.cli.text import (
    NOT_SCHEDULED,
    day,
    dropped,
    held,
    place,
    print_unproven,
    row,
    when,
)

if TYPE_CHECKING:
    from letsencrypt_mdaemon.cli.document import Document


def print_outcome(document: Document) -> None:
    """Print what a run did, or would do."""
    click.echo(_headline(document))
    row("reason", not _is_idle(document) and document["reason"])
    row("names", *document["names"])
    _print_certificates(document)
    row("due", _due(document))
    changes = [f"{place(c)} = {c['after']}" for c in document["changes"]]
    if not document["dry_run"]:
        row("changed", *changes)
    elif document["ordered"]:
        row("CA", document["directory_url"])
        if not (document["no_activate"] or document["held"]):
            row("would change", *map(place, document["targets"]))
    else:
        row("would change", *changes)
    row("reloaded", *document["reloaded"])
    if item := document["proof"]:
        row("verified at", *item["new"])
    print_unproven(document["proof"])
    row("removed", *document["removed"])
    row("TLSA record", document["tlsa"])
    row("dropped", *map(dropped, document["dropped"]))
    if document["scheduled"] is False:
        row("schedule", NOT_SCHEDULED)
    row("held", document["held"] and held(document["held"]))
    row("log", document["log"])


def _print_certificates(document: Document) -> None:
    """Print the certificate in use, or a new one, or both."""
    used, new = document["certificate"], document["pending"]
    if new or (document["dry_run"] and not document["staging"]):
        for name, item in {"in use": used, "new": new if new != used else None}.items():
            if item:
                until = f"valid until {day(item['not_after'])}"
                row(name, item["thumbprint"], item["issuer"], until)
    elif used:
        row("certificate", used["thumbprint"])
        row("issued by", used["issuer"])
        row("valid until", day(used["not_after"]))


def _due(document: Document) -> str:
    """Return when the certificate is due: no moment in the past."""
    if at := document["due_at"]:
        return "now" if _is_over(at) else when(at)
    is_replaced = document["renewed"] and not document["held"]
    return "now: the next run of `renew` replaces it" if is_replaced else ""


def _is_over(stamp: str) -> bool:
    return datetime.fromisoformat(stamp) <= datetime.now(UTC)


def _unchanged(document: Document) -> str:
    """Return why a run changed nothing."""
    if _is_idle(document):
        return "No certificate waits for activation."
    if item := document["held"]:
        return f"Held by you since {when(item['since'])}."
    return f"Nothing due until {when(document['due_at'])}."


def _is_idle(document: Document) -> bool:
    """Whether `activate` found nothing: the headline says all."""
    is_kept = not (document["renewed"] or document["due_at"] or document["dry_run"])
    return is_kept and document["command"] == "activate"


def _headline(document: Document) -> str:
    """Return the result of a run in a line."""
    if document["dry_run"]:
        fails = "the run would fail; " if document["exit_code"] else ""
        return f"Dry run: {fails}nothing was changed, and no certificate was ordered."
    if document["staging"]:
        return "Rehearsal: nothing in use was changed."
    if until := document["waiting_until"]:
        return f"Waiting: due, next try after {when(until)}. --force tries now."
    first, *more = document["names"]
    names = first + (f" and {len(more)} more" if more else "")
    if item := document["pending"]:
        until = day(item["not_after"])
        return f"Issued, not in use: {names}, valid until {until}."
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
