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
from letsencrypt_mdaemon.cli.verdict import is_idle

if TYPE_CHECKING:
    from letsencrypt_mdaemon.cli.document import Document


def print_outcome(document: Document) -> None:
    """Print what a run did, or would do."""
    click.echo(document["verdict"])
    row("reason", not is_idle(document) and document["reason"])
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
