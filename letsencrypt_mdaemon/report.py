"""What commands print: JSON for programs, a few aligned lines for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from letsencrypt_mdaemon import certificate as certificates
from letsencrypt_mdaemon.errors import words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.state import Target
    from letsencrypt_mdaemon.targets import Change, Found

SCHEMA = 1
"""Version of the JSON; it grows when a key changes its meaning or goes away."""

Document = dict[str, Any]


def print_json(document: Mapping[str, object]) -> None:
    """Print a result for a program."""
    click.echo(json.dumps(document, indent=2))


# Values as JSON


def certificate(value: x509.Certificate | None) -> Document | None:
    """Return what matters of a certificate."""
    if value is None:
        return None
    return {
        "thumbprint": certificates.thumbprint(value),
        "names": [words(name) for name in certificates.dns_names(value)],
        "issuer": words(value.issuer.rfc4514_string()),
        "not_before": iso(value.not_valid_before_utc),
        "not_after": iso(value.not_valid_after_utc),
    }


def target(value: Target) -> Document:
    """Return which INI value it is."""
    return {"file": value.file, "section": value.section, "key": value.key}


def change(value: Change) -> Document:
    """Return which INI value changed, from what to what."""
    lines = {"lines": list(value.lines), "before": value.before, "after": value.after}
    return target(value.target) | lines


def found(value: Found) -> Document:
    """Return where a certificate is named, and how."""
    place: Document = {"file": value.file, "section": None, "key": None}
    if value.target is not None:
        place = target(value.target)
    return {
        **place,
        "line": value.line,
        "form": value.target.form if value.target else None,
        "thumbprint": certificates.thumbprint(value.certificate),
    }


def iso(moment: datetime | None) -> str | None:
    """Return a moment as RFC 3339 has it."""
    return moment.isoformat(timespec="seconds") if moment else None


def in_use(values: Iterable[x509.Certificate | None]) -> str:
    """Return in a sentence which certificates are in use."""
    rows = [row for value in dict.fromkeys(values) if (row := certificate(value))]
    return "; ".join(
        f"{row['thumbprint']} for {', '.join(row['names'])}, until {row['not_after']}"
        for row in rows
    )


# Results for people


def print_outcome(document: Mapping[str, Any], head: str) -> None:
    """Print what a run did, or would do."""
    click.echo(f"{head}: {document['reason']}.")
    _row("names", *document["names"])
    if row := document["certificate"]:
        _row("certificate", row["thumbprint"])
        _row("issued by", row["issuer"])
        _row("valid until", row["not_after"])
    if document["due_at"]:
        _row("due", document["due_at"])
    if document["dry_run"]:
        _row("from", document["directory_url"])
        _row("would change", *(_place(item) for item in document["targets"]))
    _row("changed", *(f"{_place(c)} = {c['after']}" for c in document["changes"]))
    _row("reloaded", *document["reloaded"])
    _row("removed", *document["removed"])
    if document["log"]:
        _row("log", document["log"])


def print_status(document: Mapping[str, Any]) -> None:
    """Print what is in use, and when it is due."""
    click.echo(f"MDaemon in {document['mdaemon_dir']}")
    _row("names", *document["names"])
    _row("CA", document["directory_url"])
    if row := document["certificate"]:
        _row("in use", row["thumbprint"], row["issuer"])
        _row("valid until", row["not_after"])
    at = "now" if document["due"] else document["due_at"]
    _row("due", f"{at}: {document['reason']}")
    if row := document["pending"]:
        _row("pending", f"{row['thumbprint']}, issued and not in use yet")
    for item in document["targets"]:
        row = item["certificate"]
        named = row["thumbprint"] if row else "nothing that is in the store"
        _row("target", f"{_place(item)}: {named}")
    for endpoint, thumbprint in document["served"].items():
        _row("served", f"{endpoint}: {thumbprint}")


def print_found(document: Mapping[str, Any]) -> None:
    """Print where the server's files name which certificates."""
    places, rows = document["found"], document["certificates"]
    click.echo(f"{len(places)} places in {document['mdaemon_dir']} name a certificate:")
    for item in places:
        where = f"{item['file']} (not in an INI value)"
        if item["key"] is not None:
            where = f"{_place(item)}, line {item['line']}, as {item['form']}"
        click.echo(f"  {where}: {item['thumbprint']}")
    click.echo(f"Looked for were {len(rows)} certificates of the store and the ports:")
    for row in rows:
        names = ", ".join(row["names"]) or "without a name"
        click.echo(f"  {row['thumbprint']}: {names}, until {row['not_after']}")
    if not places:
        click.echo(
            "Choose any certificate of the store once in MDaemon's SSL & TLS dialog, "
            "then run this again; or name the INI values in the config file."
        )


def print_settings(document: Mapping[str, Any]) -> None:
    """Print every setting, and where its value comes from."""
    click.echo(f"Config file: {document['config_file'] or 'none'}")
    for name, row in document["settings"].items():
        click.echo(f"{name:<24} {row['value'] or '-':<40} {row['from']}")


def _row(name: str, *values: object) -> None:
    """Print one thing, its values below each other."""
    for label, value in zip((name, *[""] * len(values)), values, strict=False):
        click.echo(f"  {label:<12} {value}")


def _place(item: Mapping[str, Any]) -> str:
    return f"{item['file']} [{item['section']}] {item['key']}"
