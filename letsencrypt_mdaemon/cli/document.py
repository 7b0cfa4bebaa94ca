"""Turn results into the JSON that --json prints."""

from __future__ import annotations

import json
import re
import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from letsencrypt_mdaemon._version import __version__
from letsencrypt_mdaemon.pki import certificate as certificates
from letsencrypt_mdaemon.pki.chain import title
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cryptography import x509

    from letsencrypt_mdaemon.app.checkup import Checkup
    from letsencrypt_mdaemon.app.selftest import Report
    from letsencrypt_mdaemon.doctor.examination import Examined
    from letsencrypt_mdaemon.doctor.findings import Finding
    from letsencrypt_mdaemon.mdaemon.discovery import Found
    from letsencrypt_mdaemon.renewal.adapters import Outcome, Proof
    from letsencrypt_mdaemon.state.memory import Account, Change, Dropped, Hold, Target
    from letsencrypt_mdaemon.system.schedule import Job

SCHEMA = 1
"""The version of the JSON; it rises when a key changes its meaning or disappears."""

DAY = timedelta(days=1)

Document = dict[str, Any]


def common(command: str, exit_code: int, message: str = "") -> Document:
    """Return what the JSON of every command begins with.

    Args:
        message: That of its failure.
    """
    return {
        "schema": SCHEMA,
        "command": command,
        "generator": {
            "version": __version__,
            "host": socket.gethostname(),
            "time": iso(datetime.now(UTC)),
        },
        "exit_code": exit_code,
        "days_left": None,
        "verdict": first_sentence(message) or None,
    }


def failure(
    command: str, exit_code: int, message: str, *, kind: str, hint: str = ""
) -> Document:
    """Return the JSON of a command that failed before it began."""
    details = {"type": kind, "message": message, "hint": hint}
    return {
        **common(command, exit_code, message),
        "error": details,
        "warnings": [],
        "log": None,
    }


def days_left(leaves: Iterable[x509.Certificate | None]) -> float | None:
    """Return the days until the first of some certificates expires; None for none."""
    ends = [leaf.not_valid_after_utc for leaf in leaves if leaf is not None]
    return round((min(ends) - datetime.now(UTC)) / DAY, 2) if ends else None


def first_sentence(message: str) -> str:
    """Return the sentence with which an error's message begins."""
    line = message.partition("\n")[0].removesuffix(":")
    return re.split(r"(?<=\.) ", line, maxsplit=1)[0]


def print_json(document: Mapping[str, object]) -> None:
    """Print a result as JSON."""
    click.echo(json.dumps(document, indent=2))


def certificate(value: x509.Certificate | None) -> Document | None:
    """Return the parts of a certificate that matter."""
    if value is None:
        return None
    return {
        "thumbprint": certificates.thumbprint(value),
        "names": [printable(name) for name in certificates.dns_names(value)],
        "issuer": title(value, "issuer"),
        "not_before": iso(value.not_valid_before_utc),
        "not_after": iso(value.not_valid_after_utc),
    }


def target(value: Target) -> Document:
    """Return which INI value it is."""
    return {"file": value.file, "section": value.section, "key": value.key}


def change(value: Change) -> Document:
    """Return which INI value changed, with its line before and after."""
    text = {"line": value.line, "before": value.before, "after": value.after}
    return target(value.target) | text


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


def outcome(value: Outcome) -> Document:
    """Return what a run did, or would do."""
    return {
        "renewed": value.renewed,
        "ordered": value.ordered,
        "reason": value.reason,
        "names": list(value.names),
        "certificate": certificate(value.certificate),
        "pending": certificate(value.pending),
        "fault": value.fault or None,
        "due_at": iso(value.next_at),
        "waiting_until": iso(value.waits_until),
        "waiting_for": printable(value.waits_for) or None,
        "changes": [change(item) for item in value.changes],
        "reloaded": list(value.reloaded),
        "proof": proof(value.proof),
        "removed": list(value.removed),
        "dropped": [dropped(item) for item in value.dropped],
        "held": hold(value.held),
    }


def hold(value: Hold | None) -> Document | None:
    """Return which certificate a person chose, and until when runs keep it."""
    if value is None:
        return None
    return {
        "thumbprint": value.thumbprint,
        "since": iso(value.since),
        "until": iso(value.until),
        "by": value.why,
    }


def dropped(value: Dropped) -> Document:
    """Return a name that the certificate does not have, since when, and why."""
    return {"name": value.name, "since": iso(value.since), "why": printable(value.why)}


def proof(value: Proof | None) -> Document | None:
    """Return what each port shows of the new certificate, also by the verdict."""
    if value is None:
        return None
    verdicts = ("new", "old", "broken", "silent", "unproven", "foreign")
    return {
        **{verdict: getattr(value, verdict) for verdict in verdicts},
        "ports": [row._asdict() for row in value.rows],
    }


def selftest(value: Report) -> Document:
    """Return the results of the self-test."""
    return {
        "machine": value.machine,
        "checks": [
            {
                "name": check.name,
                "result": check.result,
                "detail": printable(check.detail),
                "seconds": round(check.seconds, 2),
            }
            for check in value.checks
        ],
    }


def job(
    value: Job | None, remembered: tuple[datetime | None, int | None]
) -> Document | None:
    """Return the scheduled task, with its last run.

    Args:
        remembered: When the last run began and its exit code, from our own state.
    """
    if value is None:
        return None
    began, code = remembered
    known = value.last_code is not None
    return {
        "when": value.when,
        "command": value.command,
        "next_run": value.next_run or None,
        "last_run": value.last_run or iso(began),
        "last_exit_code": value.last_code if known else code,
        "last_result": value.last_result or None,
    }


def account(value: Mapping[str, Any], kept: Account | None) -> Document:
    """Return an account as the CA describes it."""
    contact = value.get("contact") if isinstance(value.get("contact"), list) else ()
    url = printable(kept.url, 300) if kept else ""
    return {
        "account": url,
        "status": printable(value.get("status", "")),
        "contact": [printable(item) for item in contact or ()],
        "caa_parameters": f"accounturi={url}; validationmethods=http-01",
    }


def checkup(value: Checkup) -> Document:
    """Return what the doctor found."""
    return {
        "names": [examined(item) for item in value.names],
        "machine": [finding(item) for item in value.machine],
        "account": printable(value.account) or None,
        "fetched": value.fetched,
    }


def examined(value: Examined) -> Document:
    """Return the findings about a name."""
    return {
        "name": value.name,
        "served_at": list(value.served),
        "findings": [finding(item) for item in value.findings],
        "caa_record": printable(value.publish) or None,
    }


def finding(value: Finding) -> Document:
    """Return a finding with its advice."""
    return {
        "code": value.code,
        "weight": value.weight,
        "seen": value.seen,
        "ca": value.kind.ca,
        "change": value.kind.change,
    }


def iso(moment: datetime | None) -> str | None:
    """Return a moment as RFC 3339 writes it."""
    return moment.isoformat(timespec="seconds") if moment else None
