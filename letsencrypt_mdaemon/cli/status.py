"""Show `status`: as JSON, and as text."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.app import script
from letsencrypt_mdaemon.cli import document
from letsencrypt_mdaemon.cli.document import iso
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
from letsencrypt_mdaemon.renewal import hold
from letsencrypt_mdaemon.system import drop_in
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from letsencrypt_mdaemon.app.health import Health
    from letsencrypt_mdaemon.app.installation import Installation
    from letsencrypt_mdaemon.app.status import Status
    from letsencrypt_mdaemon.cli.document import Document
    from letsencrypt_mdaemon.renewal.snapshot import Snapshot
    from letsencrypt_mdaemon.state.memory import Draw
    from letsencrypt_mdaemon.state.told import WouldFail


ACTIVATE = "when the cause is mended, run `activate`"
TRY_AGAIN = f"runs try it again daily; {ACTIVATE}"


def status(
    value: Status, installation: Installation, health: Health, *, is_scheduled: bool
) -> Document:
    """Return the JSON document of a status.

    Args:
        health: How `check` judges it: for a report of many servers.
    """
    due, wait, snapshot = value.due, value.wait, value.snapshot
    memory, every = installation.memory, snapshot.request.interval
    return {
        "state": health.grade.name,
        "problems": [
            {"state": item.grade.name, "text": item.text} for item in health.problems
        ],
        "mdaemon_dir": str(installation.root),
        "store": str(installation.store),
        "directory_url": installation.config.ca,
        "names": list(snapshot.request.names),
        "due": due.due,
        "reason": due.reason,
        "due_at": iso(due.at),
        "rule": due.rule or None,
        "advice": value.draw and _advice(value.draw),
        "waiting": wait and {"reason": wait.reason, "until": iso(wait.until)},
        "certificate": document.certificate(snapshot.in_use),
        "key_provider": value.key_provider,
        "key_readers": value.key_readers,
        "tlsa": value.tlsa,
        "next_tlsa": value.next_tlsa
        and {"record": value.next_tlsa.record, "counts": iso(value.next_tlsa.counts)},
        "tlsa_ports": None
        if value.tlsa_ports is None
        else [
            {
                "name": item.owner,
                "records": [str(record) for record in item.records],
                "matches": item.matches,
            }
            for item in value.tlsa_ports
        ],
        "pending": document.certificate(value.pending),
        "rolled_back": iso(value.rolled_back),
        "held": document.hold(hold.in_force(snapshot)),
        "targets": [
            document.target(item) | {"certificate": document.certificate(leaf)}
            for item, leaf in snapshot.named.items()
        ],
        "dropped": [document.dropped(item) for item in memory.dropped],
        "served": installation.served,
        "script": {
            "installed": bool(memory.script),
            "warning": script.flaw(memory.script, installation.root) or None,
        },
        "proof": document.proof(value.proof),
        "would_fail": [_would_fail(item) for item in value.failing],
        "ledger": _ledger(snapshot),
        "schedule": {
            "scheduled": is_scheduled,
            "last_run": iso(memory.runs[-1]) if memory.runs else None,
            "every_hours": every and round(every / timedelta(hours=1), 1),
            "warning": value.sparse or None,
            "lifetimes": [
                {
                    "days": item.days,
                    "letsencrypt_from": item.starts.isoformat(),
                    "due_days_before_end": item.due_before_end.days,
                    "too_sparse": item.is_sparse,
                }
                for item in value.outlook
            ],
        },
    }


def _advice(draw: Draw) -> Document:
    return {
        "start": iso(draw.start),
        "end": iso(draw.end),
        "drawn": iso(draw.at),
        "ask_again": iso(draw.ask_again),
        "explanation_url": printable(draw.explanation_url) or None,
    }


def _ledger(snapshot: Snapshot) -> Document:
    ledger, request, now = snapshot.ledger, snapshot.request, snapshot.now
    limits, used = request.limits, ledger.used(request.names, now)
    return {
        "issued_this_week": [iso(moment) for moment in used],
        "issued_this_week_limit": limits and limits.exact_set,
        "failing": [
            {
                "name": item.name or None,
                "times": len(item.times),
                "last": iso(item.times[-1]),
                "this_hour": sum(now - at < timedelta(hours=1) for at in item.times),
                "this_hour_limit": limits and limits.failures,
                "not_before": iso(item.not_before(urgent=False)),
                "why": printable(item.why),
                "paused": printable(item.paused) or None,
            }
            for item in ledger.failing(request.names)
        ],
    }


def _would_fail(value: WouldFail) -> Document:
    return {
        "name": value.name,
        "since": iso(value.since),
        "code": value.code or None,
        "why": printable(value.why),
        "change": value.change or None,
    }


def print_status(found: Document, *, each: bool = False) -> None:
    """Print what is in use, and when it is due.

    Args:
        each: List each INI value and port, also those that agree.
    """
    say(found["verdict"])
    say(f"MDaemon in {found['mdaemon_dir']}")
    row("store", found["store"])
    row("names", *found["names"])
    row("CA", found["directory_url"])
    if item := found["certificate"]:
        row("in use", item["thumbprint"], item["issuer"])
        row("valid until", day(item["not_after"]))
    reason = found["reason"]
    if found["due"]:
        row("due", f"now: {reason}")
    else:
        rule = f": {found['rule']}" if found["rule"] else ""
        # What the verdict says is not repeated.
        is_said = found["rolled_back"] or (item and day(item["not_after"]) in reason)
        row("due", f"{when(found['due_at'])}{rule}", not is_said and reason)
    if item := found["waiting"]:
        until = f"until {when(item['until'])}" if item["until"] else "until you act"
        row("waiting", until if found["ledger"]["failing"] else item["reason"])
    _print_outlook(found)
    row("key kept by", found["key_provider"])
    row("key read by", *(found["key_readers"] or []))
    _print_tlsa(found)
    row("dropped", *map(dropped, found["dropped"]))
    for item in found["would_fail"]:
        who = f"{item['name']}, since {when(item['since'])}: {item['why']}"
        row("would fail", who, item["change"])
    if item := found["held"]:
        row("held", f"by you since {when(item['since'])}", held(item))
    if (item := found["pending"]) and item == found["certificate"]:
        row("in use on", _partly(found))
    elif item and found["rolled_back"]:
        row("rolled back", item["thumbprint"], ACTIVATE if found["held"] else TRY_AGAIN)
    elif item:
        row("pending", f"{item['thumbprint']}, issued and not in use yet")
    _print_places(found, each=each)
    print_unproven(found["proof"])


def _print_tlsa(found: Document) -> None:
    row("TLSA record", found["tlsa"], whole=True)
    if item := found["next_tlsa"]:
        row("next TLSA", item["record"], whole=True)
        row("", _counts(item["counts"], found["tlsa_ports"]))
    for item in found["tlsa_ports"] or []:
        matches = "" if item["matches"] else "matches no certificate in use: "
        row("published", f"{item['name']}: {matches}{'; '.join(item['records'])}")


def _counts(moment: str | None, ports: Sequence[Document] | None) -> str:
    """Return whether the record of the next key is published, and counts."""
    if not any(port["matches"] for port in ports or []):
        return "publish it if you use DANE; no TLSA record pins the current key"
    if moment is None:
        return "publish it beside the current one; it is not published yet"
    return f"published; the next certificate may be used from {when(moment)}"


def _partly(found: Document) -> str:
    """Return on which ports a new certificate is in use that is not proven yet."""
    proof = found["proof"]
    new, old = proof["new"], proof["old"]
    total = _count(len(proof["ports"]) - len(proof["foreign"]), "port")
    left = "the next run completes the renewal"
    if old:
        left = f"{', '.join(old)} still serve{'s' * (len(old) == 1)} the old one"
    return f"{len(new)} of {total}; {left}"


def _print_places(found: Document, *, each: bool) -> None:
    """Print the INI values and the ports: what agrees in one line."""
    leaf, targets, served = found["certificate"], found["targets"], found["served"]
    if not targets:
        row("INI value", "none names a certificate of the store yet")
    if leaf and not each:  # all of them name it
        row("named by", _count(len(targets), "INI value"))
        targets = []
        alike = [at for at in served if served[at] == leaf["thumbprint"]]
        row("served at", alike and _count(len(alike), "port"))
        served = {at: served[at] for at in served if at not in alike}
    for item in targets:
        named = item["certificate"]
        digest = named["thumbprint"] if named else "no certificate of the store"
        row("INI value", f"{place(item)}: {digest}")
    for endpoint, digest in served.items():
        row("served", f"{endpoint}: {digest}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _print_outlook(found: Document) -> None:
    """Print the CA's suggested window, failures, limits, and the schedule."""
    if (item := found["advice"]) and item["drawn"]:
        window = f"{when(item['start'])} to {when(item['end'])}"
        reason = item["explanation_url"]
        row(
            "CA suggests",
            f"{window}; chosen: {when(item['drawn'])}",
            reason and f"reason: {reason}",
        )
    ledger, schedule = found["ledger"], found["schedule"]
    if limit := ledger["issued_this_week_limit"]:
        used = len(ledger["issued_this_week"])
        row("this week", f"{used} of {limit} certificates for exactly these names")
    for item in ledger["failing"]:
        times = "once" if item["times"] == 1 else f"{item['times']} times"
        if limit := item["this_hour_limit"]:
            times += f" ({item['this_hour']} of {limit} in this hour)"
        who = item["name"] or "the order"
        row("failed", f"{who}, {times}, last {when(item['last'])}: {item['why']}")
    if not schedule["scheduled"]:
        row("schedule", NOT_SCHEDULED)
    if schedule["last_run"]:
        every = schedule["every_hours"]
        often = f", usually every {every:g} hours" if every else ""
        row("scheduled", f"last run {when(schedule['last_run'])}{often}")
    for item in schedule["lifetimes"]:
        sparse = "; your runs are too infrequent" if item["too_sparse"] else ""
        row(
            f"{item['days']} days",
            f"Let's Encrypt's lifetime from {item['letsencrypt_from']}: due "
            f"{item['due_days_before_end']} days before the end{sparse}",
        )
    row("warning", schedule["warning"])
    if (item := found["script"])["installed"]:
        row("script", item["warning"] or f"{drop_in.NAME} runs this program")
