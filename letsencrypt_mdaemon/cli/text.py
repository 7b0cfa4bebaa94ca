"""What is printed for people."""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING, Any

import click

from letsencrypt_mdaemon.pki import certificate as certificates
from letsencrypt_mdaemon.pki.chain import Ending
from letsencrypt_mdaemon.text import printable
from letsencrypt_mdaemon.verify import verdict as verify
from letsencrypt_mdaemon.verify.served import Answer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from letsencrypt_mdaemon.cli.document import Document
    from letsencrypt_mdaemon.doctor.examination import Examination
    from letsencrypt_mdaemon.verify.verdict import Port, Verification


WIDTH = 100
"""Columns of a table."""


HINTS = 3
"""Pieces of the doctor's advice that a failed run shows."""


_SCREENING = (
    "Where all is well from here the CA's networks are treated otherwise: it asks from "
    "several countries, so look at Location and Dynamic Screening and the firewall."
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
    if document["waiting_until"]:
        _row("tried again", f"after {document['waiting_until']}; --force tries now")
    if document["dry_run"]:
        _row("from", document["directory_url"])
        _row("would change", *(_place(item) for item in document["targets"]))
    _row("changed", *(f"{_place(c)} = {c['after']}" for c in document["changes"]))
    _row("reloaded", *document["reloaded"])
    if row := document["proof"]:
        _row("proven at", *row["new"])
    _row("removed", *document["removed"])
    _row("TLSA record", *filter(None, [document["tlsa"]]))
    _row("goes without", *map(_missing, document["dropped"]))
    if document["log"]:
        _row("log", document["log"])


def print_account(document: Mapping[str, Any]) -> None:
    """Print the account at the CA."""
    click.echo(f"Account at {document['directory_url']}")
    _row("account", document["account"])
    _row("status", document["status"])
    _row("contact", *document["contact"])
    _row("CAA may say", document["caa_parameters"])


def print_status(document: Mapping[str, Any]) -> None:
    """Print what is in use, and when it is due."""
    click.echo(f"MDaemon in {document['mdaemon_dir']}")
    _row("names", *document["names"])
    _row("CA", document["directory_url"])
    if row := document["certificate"]:
        _row("in use", row["thumbprint"], row["issuer"])
        _row("valid until", row["not_after"])
    if document["due"]:
        _row("due", f"now: {document['reason']}")
    else:
        rule = f": {document['rule']} then" if document["rule"] else ""
        _row("due", f"{document['due_at']}{rule}", document["reason"])
    if row := document["waiting"]:
        until = f"until {row['until']}" if row["until"] else "until you act"
        _row("waits", until if document["ledger"]["failing"] else row["reason"])
    _print_outlook(document)
    _row("Key read by", *(document["key_readers"] or []))
    _row("TLSA record", *filter(None, [document["tlsa"]]))
    _row("goes without", *map(_missing, document["dropped"]))
    if row := document["pending"]:
        _row("pending", f"{row['thumbprint']}, issued and not in use yet")
    for item in document["targets"]:
        row = item["certificate"]
        named = row["thumbprint"] if row else "nothing that is in the store"
        _row("target", f"{_place(item)}: {named}")
    for endpoint, thumbprint in document["served"].items():
        _row("served", f"{endpoint}: {thumbprint}")


def _print_outlook(document: Mapping[str, Any]) -> None:
    """Print the CA's advice, its account book, and what the schedule is worth."""
    if (row := document["advice"]) and row["drawn"]:
        why = [f"why: {row['explanation_url']}"] if row["explanation_url"] else []
        window = f"{row['start']} to {row['end']}; drawn: {row['drawn']}"
        _row("CA suggests", window, *why)
    book, schedule = document["ledger"], document["schedule"]
    if limit := book["issued_this_week_limit"]:
        used = len(book["issued_this_week"])
        _row("this week", f"{used} of {limit} certificates for exactly these names")
    for row in book["failing"]:
        times = "once" if row["times"] == 1 else f"{row['times']} times"
        if limit := row["this_hour_limit"]:
            times += f" ({row['this_hour']} of {limit} in this hour)"
        who = row["name"] or "the order"
        _row("failed", f"{who}, {times}, last {row['last']}: {row['why']}")
    if schedule["last_run"]:
        every = schedule["every_hours"]
        often = f", usually every {every:g} hours" if every else ""
        _row("scheduled", f"last run {schedule['last_run']}{often}")
    for row in schedule["lifetimes"]:
        sparse = "; these runs are too few for it" if row["too_sparse"] else ""
        _row(
            f"{row['days']} days",
            f"will be Let's Encrypt's lifetime from {row['letsencrypt_from']} on: due "
            f"{row['due_days_before_end']} days before the end{sparse}",
        )
    if schedule["warning"]:
        _row("warning", schedule["warning"])


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


def print_verification(found: Verification) -> None:
    """Print a table of what the ports serve, and below it what is odd about them."""
    ports, right = found.ports, found.right
    if right is None:
        _say(
            "It is not known which certificate the ports should serve: no INI value is "
            "known to name one. `discover` tells more."
        )
    elif not right:
        _say("The server's files name a certificate that is not known.")
    for one in right or ():
        names = ", ".join(printable(name) for name in certificates.dns_names(one))
        until = f"{one.not_valid_after_utc:%Y-%m-%d}"
        _say(f"Expected: {certificates.thumbprint(one)}, until {until}, for {names}.")
    columns = "{:<4} {:>5} {:<13}  {:<16}  {:<10}  {:<11}  {:<3}  {:>6}  {}"
    head = ("", "Port", "", "Serves", "Until", "Chain", "TLS", "Time", "Where")
    click.echo(columns.format(*head).rstrip())
    groups = verify.grouped(ports)
    notes: dict[str, list[str]] = {}
    origin = ""
    for group in groups:
        if group[0].origin == "dns" != origin:
            click.echo(
                "Through DNS, which may fail behind NAT and be right for others:"
            )
        origin = group[0].origin
        row = columns.format(*_cells(group, groups)).rstrip()
        listens = group[0].served.is_listening
        colour = ("green" if listens else None) if group[0].is_good else "red"
        click.echo(row if os.environ.get("NO_COLOR") else click.style(row, fg=colour))
        place = verify.place(group, groups)
        for remark in verify.remarks(
            group[0], now=found.now, require_trusted=found.require_trusted
        ):
            notes.setdefault(remark, []).append(place)
    for remark, places in notes.items():
        shown = ", ".join(places[:6])
        if len(places) > 6:  # noqa: PLR2004 - the table has them all
            shown += f" and {len(places) - 6} more"
        _say(f"{shown if len(places) < len(groups) else 'Every port'}: {remark}.")
    if not any(each.served.is_listening for each in ports):
        _say("Nobody listens at any of these ports, so nothing could be proven.")


def _cells(group: Sequence[Port], groups: Sequence[Sequence[Port]]) -> Sequence[str]:
    port = group[0]
    served, listens = port.served, port.served.is_listening
    serves = {
        Answer.SERVED: f"{served.thumbprint[:8]}...",
        Answer.NOT_LISTENING: "not listening",
        Answer.NO_STARTTLS: "no STARTTLS",
        Answer.HANDSHAKE_FAILED: "handshake failed",
    }[served.outcome]
    if port.is_expected is not None:
        other = "differs by name" if served.differently else "another"
        serves = "the expected one" if port.is_expected else other
    leaf = served.chain[0] if served.chain else None
    where = verify.where(group, groups)
    return (
        "FAIL" if not port.is_good else "ok" if listens else "-",
        str(port.endpoint.port),
        port.endpoint.scheme,
        serves,
        f"{leaf.not_valid_after_utc:%Y-%m-%d}" if leaf else "",
        _chain_in_a_word(port),
        served.tls.removeprefix("TLS "),
        f"{served.seconds:.2f}s" if listens else "",
        where if len(where) <= 18 else f"{where[:16]}..",  # noqa: PLR2004 - the rest
    )


def _chain_in_a_word(port: Port) -> str:
    chain = port.chain
    if chain is None:
        return ""
    if chain.ending is Ending.SELF_SIGNED:
        return "self-signed"
    if not chain.in_order:
        return "wrong order"
    if not chain.distrust:
        return "trusted"
    words_ = {True: "complete", False: "incomplete", None: "unknown"}
    return words_[chain.is_complete]


def _say(text: str) -> None:
    """Print a sentence or two, in lines that fit."""
    lines = textwrap.wrap(text, WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    click.echo("\n".join(lines))


def second_opinion(found: Examination) -> tuple[str, list[str]]:
    """Return what the doctor sees of names that the CA refused, and what to do."""
    rows = [("", item) for item in found.server]
    rows += [(f"{row.name}: ", item) for row in found.names for item in row.findings]
    lines = [f"  - {item}" for item in dict.fromkeys(str(row[1]) for row in rows)]
    counted = [row[1] for row in rows if row[1].weight != "note"]
    hints = list(dict.fromkeys(item.advice.change for item in counted))[:HINTS]
    good = [row.name for row in found.names if row.served and row.weight == "note"]
    if good:
        lines.append(f"  - the file is there: {', '.join(good)}")
        hints.append(_SCREENING)
    head = "Seen from this machine:" if lines else "From here nothing wrong is seen."
    return "\n".join([head, *lines]), hints


def print_checkup(document: Mapping[str, Any]) -> None:
    """Print what the doctor found."""
    for row in document["names"]:
        weights = {item["weight"] for item in row["findings"]}
        verdict = "good" if row["served_at"] else "nothing wrong is seen"
        if "failure" in weights:
            verdict = "would fail"
        elif "warning" in weights:
            verdict = "may fail"
        click.echo(f"{row['name']}: {verdict}")
        _row("served at", *row["served_at"])
        _findings(row["findings"])
    click.echo("This machine and the CA: " + ("" if document["machine"] else "good"))
    _findings(document["machine"])
    if records := [row["caa_record"] for row in document["names"] if row["caa_record"]]:
        click.echo("To let only this account get certificates, publish in DNS:")
        for text in records:
            click.echo(f"  {text}")


def _findings(items: Iterable[Mapping[str, Any]]) -> None:
    for item in items:
        _row(item["weight"], f"{item['code']}: {item['seen']}")
        _row("the CA", *filter(None, [item["ca"]]))
        _row("to do", item["change"])


def print_selftest(document: Document) -> None:
    """Print what the self-test found, to read and to paste."""
    for name, value in document["machine"].items():
        click.echo(f"{name}: {value}")
    for check in document["checks"]:
        mark = {"ok": "ok", "failed": "FAIL"}.get(check["result"], "-")
        click.echo(
            textwrap.fill(
                f"{mark:<4}  {check['name']}: {check['detail']}",
                WIDTH,
                subsequent_indent=" " * 6,
                break_on_hyphens=False,
            )
        )


def print_job(document: Document) -> None:
    """Print what the scheduler does."""
    found = document["job"]
    if found is None:
        click.echo("Not scheduled: `schedule install` does it.")
        return
    click.echo("Scheduled:")
    _row("Daily at", found["when"])
    _row("Command", found["command"])
    _row("Next run", *filter(None, [found["next_run"]]))
    code = found["last_exit_code"]
    ended = "how it ended is not known" if code is None else f"exit code {code}"
    _row("Last run", f"{found['last_run']}, {ended}" if found["last_run"] else "never")


def print_settings(document: Mapping[str, Any]) -> None:
    """Print every setting, and where its value comes from."""
    click.echo(f"Config file: {document['config_file'] or 'none'}")
    for name, row in document["settings"].items():
        click.echo(f"{name:<24} {row['value'] or '-':<40} {row['from']}")


def _row(name: str, *values: object) -> None:
    """Print one thing, its values below each other."""
    for label, value in zip((name, *[""] * len(values)), values, strict=False):
        click.echo(f"  {label:<12} {value}")


def _missing(item: Mapping[str, Any]) -> str:
    return f"{item['name']} since {item['since']}: {item['why']}"


def _place(item: Mapping[str, Any]) -> str:
    return f"{item['file']} [{item['section']}] {item['key']}"
