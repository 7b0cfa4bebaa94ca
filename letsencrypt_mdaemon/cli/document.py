"""What commands print: JSON for programs, a few aligned lines for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from letsencrypt_mdaemon.pki import certificate as certificates
from letsencrypt_mdaemon.pki.chain import title
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.app.checkup import Checkup
    from letsencrypt_mdaemon.app.selftest import Report
    from letsencrypt_mdaemon.doctor.examination import Examined
    from letsencrypt_mdaemon.doctor.findings import Finding
    from letsencrypt_mdaemon.mdaemon.discovery import Found
    from letsencrypt_mdaemon.renewal.adapters import Outcome, Proof
    from letsencrypt_mdaemon.state.memory import Account, Change, Dropped, Target
    from letsencrypt_mdaemon.system.schedule import Job
    from letsencrypt_mdaemon.verify.served import Served
    from letsencrypt_mdaemon.verify.verdict import Port, Verification


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
        "names": [printable(name) for name in certificates.dns_names(value)],
        "issuer": title(value, "issuer"),
        "not_before": iso(value.not_valid_before_utc),
        "not_after": iso(value.not_valid_after_utc),
    }


def target(value: Target) -> Document:
    """Return which INI value it is."""
    return {"file": value.file, "section": value.section, "key": value.key}


def change(value: Change) -> Document:
    """Return which INI value changed, from what to what."""
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
        "reason": value.reason,
        "names": list(value.names),
        "certificate": certificate(value.certificate),
        "due_at": iso(value.next_at),
        "waiting_until": iso(value.waits_until),
        "changes": [change(item) for item in value.changes],
        "reloaded": list(value.reloaded),
        "proof": proof(value.proof),
        "removed": list(value.removed),
        "dropped": [dropped(item) for item in value.dropped],
    }


def dropped(value: Dropped) -> Document:
    """Return a name that the certificate goes without, since when, and why."""
    return {"name": value.name, "since": iso(value.since), "why": printable(value.why)}


def proof(value: Proof | None) -> Document | None:
    """Return how the ports serve a certificate."""
    if value is None:
        return None
    return {"new": value.new, "old": value.old, "broken": value.broken}


def selftest(value: Report) -> Document:
    """Return what the self-test found."""
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
    """Return what the scheduler has of ours, and what we remember of the last run."""
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
    }


def verification(value: Verification) -> Document:
    """Return what the ports serve, beside what they should."""
    right = value.right
    return {
        "names": list(value.names),
        "expected": None if right is None else [certificate(one) for one in right],
        "proven": value.is_proven,
        "ports": [port(each) for each in value.ports],
    }


def port(value: Port) -> Document:
    """Return what an endpoint answered, and what that is worth."""
    endpoint, chain = value.endpoint, value.chain
    return {
        "endpoint": endpoint.url,
        "address": endpoint.host,
        "port": endpoint.port,
        "origin": value.origin,
        "good": value.is_good,
        **_answer(value.served),
        "expected": value.is_expected,
        "tls": value.served.tls or None,
        "seconds": round(value.served.seconds, 3),
        "chain": chain
        and {
            "subjects": [title(one, "subject") for one in value.served.chain],
            "in_order": chain.in_order,
            "complete": chain.is_complete,
            "ending": chain.ending.name.lower(),
            "ends_at": chain.ends_at,
            "missing": list(chain.missing),
            "as_issued": chain.as_issued,
            "trusted": not chain.distrust,
            "distrust": chain.distrust,
        },
        "differently": [_answer(other) for other in value.served.differently],
    }


def _answer(value: Served) -> Document:
    return {
        "server_name": value.server_name,
        "outcome": value.outcome.name.lower(),
        "detail": value.detail,
        "certificate": certificate(value.chain[0] if value.chain else None),
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
    }


def examined(value: Examined) -> Document:
    """Return what was found about a name."""
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
        "ca": value.advice.ca,
        "change": value.advice.change,
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
