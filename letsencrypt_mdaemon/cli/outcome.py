"""Print what a run did, or would do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.cli.text import (
    NOT_SCHEDULED,
    day,
    dropped,
    held,
    place,
    print_unproven,
    row,
    say,
    when,
)
from letsencrypt_mdaemon.cli.verdict import is_idle

if TYPE_CHECKING:
    from letsencrypt_mdaemon.cli.document import Document


def print_outcome(document: Document) -> None:
    """Print what a run did, or would do."""
    said = document["verdict"]
    say(said)
    row("reason", not is_idle(document) and document["reason"])
    # What the headline says is not repeated.
    first, *more = document["names"]
    row("names", *(document["names"] if more or first not in said else ()))
    _print_certificates(document, f"{said} {document['reason']}")
    due = _due(document)
    row("due", not said.endswith(f" until {due}.") and due)
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
    row("TLSA record", document["tlsa"], whole=True)
    row("dropped", *map(dropped, document["dropped"]))
    if document["scheduled"] is False:
        row("schedule", NOT_SCHEDULED)
    row("held", document["held"] and held(document["held"]))
    row("log", document["log"], whole=True)


def _print_certificates(document: Document, said: str) -> None:
    """Print the certificate in use, or a new one, or both.

    Args:
        said: What was said before.
    """
    used, new = document["certificate"], document["pending"]
    if new or (document["dry_run"] and not document["staging"]):
        for name, item in {"in use": used, "new": new if new != used else None}.items():
            if item:
                until = f"valid until {day(item['not_after'])}"
                row(name, item["thumbprint"], item["issuer"], until)
    elif used:
        row("certificate", used["thumbprint"])
        row("issued by", used["issuer"])
        until = day(used["not_after"])
        row("valid until", until not in said and until)


def _due(document: Document) -> str:
    """Return when the certificate is due: no moment in the past."""
    if at := document["due_at"]:
        return "now" if _is_over(at) else when(at)
    is_replaced = document["renewed"] and not document["held"]
    return "now: the next run of `renew` replaces it" if is_replaced else ""


def _is_over(stamp: str) -> bool:
    return datetime.fromisoformat(stamp) <= datetime.now(UTC)
