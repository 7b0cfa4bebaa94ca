"""Print results as text."""

from __future__ import annotations

import shutil
import sys
import textwrap
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING

import click

from letsencrypt_mdaemon import text
from letsencrypt_mdaemon.cli.document import certificate
from letsencrypt_mdaemon.text import CHOOSE_ONCE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography import x509

    from letsencrypt_mdaemon.cli.document import Document
    from letsencrypt_mdaemon.doctor.examination import Examination
    from letsencrypt_mdaemon.doctor.findings import Finding

WIDTH = 100
"""Columns of a line that is broken, where stdout is no terminal."""

LEAST_WIDTH = 40
"""Columns that a terminal has that says that it has fewer, or none."""

MAX_HINTS = 3
"""The pieces of the doctor's advice that a failed run shows."""

NOT_SCHEDULED = "Not scheduled. `schedule install` schedules `renew` twice a day."
SWITCH_OFF = (
    "Switch off MDaemon's own scheduler: Security, Security Manager, SSL & TLS, Let's "
    "Encrypt."
)

_FIREWALL_HINT = (
    "This machine can read the file, but not the CA, which asks from several "
    "countries: check Location and Dynamic Screening and the firewall."
)


def print_unproven(proof: Document | None) -> None:
    """Print which ports do not show the certificate in use, and why."""
    words = {"old": "not proven", "unproven": "not proven", "foreign": "not ours"}
    rows: dict[str, list[str]] = {"not proven": [], "not ours": []}
    for item in proof["ports"] if proof else ():
        if word := words.get(item["verdict"]):
            rows[word].append(f"{item['endpoint']}: {item['reason']}")
    for word, lines in rows.items():
        row(word, *lines)


def print_account(document: Document) -> None:
    """Print the account at the CA."""
    click.echo(f"Account at {document['directory_url']}")
    row("account", document["account"])
    row("status", document["status"])
    row("contact", *document["contact"])
    row("CAA record", document["caa_parameters"], whole=True)


def print_found(document: Document) -> None:
    """Print where the server's files name which certificates."""
    places, certificates = document["found"], document["certificates"]
    if places:
        click.echo(f"Places in {document['mdaemon_dir']} that name a certificate:")
    for item in places:
        where = f"{item['file']} (not in an INI value)"
        if item["key"] is not None:
            where = f"{place(item)}, line {item['line']}, as {item['form']}"
        click.echo(f"  {where}: {item['thumbprint']}")
    store = f"the store {document['store']}"
    if certificates:
        click.echo(f"Searched for the certificates from {store} and the ports:")
    else:
        click.echo(f"There is no certificate in {store}, and no port serves one.")
    for item in certificates:
        names = ", ".join(item["names"]) or "no name"
        until = day(item["not_after"])
        click.echo(f"  {item['thumbprint']}: {names}, valid until {until}")
    if not places:
        click.echo(
            f"No place in {document['mdaemon_dir']} names a known certificate. "
            f"{CHOOSE_ONCE}, then run this again. Or name the INI values in the config "
            "file."
        )


def print_shape(document: Document) -> None:
    """Print what may be published of the server's files."""
    values, semaphores = document["values"], document["semaphores"]
    for file in document["files"]:
        click.echo(file)
        for item in values:
            if item["file"] == file:
                click.echo(f"  [{item['section']}] {item['key']} = {item['form']}")
    row("semaphores", *semaphores["used"])
    row("there now", *semaphores["present"])
    say(document["verdict"])


def second_opinion(found: Examination) -> tuple[str, list[str]]:
    """Return the doctor's findings about names that the CA refused, and the advice.

    A cause is shown once, with the names that have it.
    """
    findings = [*found.server, *chain(*(item.findings for item in found.names))]
    lines = [f"  - {item}" for item in dict.fromkeys(map(str, found.server))]
    of_server = {item.code for item in found.server}
    by_cause: dict[tuple[str, str], list[tuple[str, Finding]]] = {}
    for row_ in found.names:
        for item in row_.findings:
            if item.code not in of_server:
                cause = _cause(row_.name, item.code, item.seen)
                by_cause.setdefault(cause, []).append((row_.name, item))
    for (_, first), *others in by_cause.values():
        also = f"; the same for {', '.join(name for name, _ in others)}"
        lines.append(f"  - {first}{also if others else ''}")
    changes = [item.kind.change for item in findings if item.weight != "note"]
    hints = list(dict.fromkeys(changes))[:MAX_HINTS]
    good = [item.name for item in found.names if item.served and item.weight == "note"]
    if good:
        lines.append(f"  - the file can be read: {', '.join(good)}")
        hints.append(_FIREWALL_HINT)
    if lines:
        return "\n".join(["Seen from this machine:", *lines]), hints
    if found.fetched:
        return "This machine finds no problem.", hints
    return "This machine finds no problem in DNS. It did not check port 80.", hints


def _cause(name: str, code: str, seen: str) -> tuple[str, str]:
    """Return what findings with the same cause have in common: all but the name."""
    return code, seen.replace(name, "")


def print_checkup(document: Document) -> None:
    """Print what the doctor found; what concerns several names, once."""
    said: set[object] = set()
    of_machine = {finding["code"] for finding in document["machine"]}
    for item in document["names"]:
        new: list[Document] = []
        elsewhere: list[Document] = []
        for finding in item["findings"]:
            cause = _cause(item["name"], finding["code"], finding["seen"])
            is_said = cause in said or finding["code"] in of_machine
            (elsewhere if is_said else new).append(finding)
            said.add(cause)
        codes = ", ".join(dict.fromkeys(finding["code"] for finding in elsewhere))
        result = _result(item, fetched=document["fetched"])
        say(f"{item['name']}: {result}{f' ({codes})' if codes else ''}")
        row("served at", *item["served_at"])
        _print_findings(new)
    good = "good" if document["fetched"] else "good, but port 80 was not checked"
    click.echo("This machine and the CA:" + ("" if document["machine"] else f" {good}"))
    _print_findings(document["machine"])
    if records := [x["caa_record"] for x in document["names"] if x["caa_record"]]:
        click.echo("To allow only this account to get certificates, publish in DNS:")
        for record in records:
            click.echo(f"  {record}")
    say(document["verdict"])


def _result(item: Document, *, fetched: bool = True) -> str:
    """Return how the validation of a name would end."""
    weights = {finding["weight"] for finding in item["findings"]}
    if "failure" in weights:
        return "would fail"
    if "warning" in weights:
        return "may fail"
    if item["served_at"]:
        return "good"
    return "no problem found" if fetched else "no problem in DNS, port 80 not checked"


def checkup_verdict(document: Document) -> str:
    """Return the result of a checkup in a sentence."""
    results = {item["name"]: _result(item) for item in document["names"]}
    parts = []
    for result in ("would fail", "may fail"):
        if names := [name for name in results if results[name] == result]:
            counted = f"{len(names)} of {len(results)} names {result}"
            parts.append(f"{counted}: {', '.join(names)}")
    if parts:
        return f"{'; '.join(parts)}."
    if any(finding["weight"] != "note" for finding in document["machine"]):
        return "No name has a problem of its own, but this machine or the CA has one."
    if set(results.values()) == {"good"}:
        return "Every name can be validated as far as this machine sees."
    return "DNS shows no problem. Port 80 was not checked: no token file was fetched."


def _print_findings(items: Iterable[Document]) -> None:
    for item in items:
        row(item["weight"], f"{item['code']}: {item['seen']}")
        row("effect", item["ca"])
        row("to do", item["change"])


def print_selftest(document: Document) -> None:
    """Print the result of each check of the self-test."""
    for name, value in document["machine"].items():
        click.echo(f"{name}: {value}")
    for check in document["checks"]:
        mark = {"ok": "ok", "failed": "FAIL"}.get(check["result"], "-")
        print_wrapped(f"{mark:<4}  {check['name']}: {check['detail']}", indent=6)
    if path := document["report"]:
        click.echo(f"The report is in {path}. Read it before you send it.")


def print_job(document: Document) -> None:
    """Print the scheduled task."""
    found = document["job"]
    if found is None:
        say(NOT_SCHEDULED)
        return
    click.echo("Scheduled:")
    row("daily at", found["when"])
    row("command", found["command"], whole=True)
    row("next run", found["next_run"] and when(found["next_run"]))
    code = found["last_exit_code"]
    ended = "exit code unknown" if code is None else f"exit code {code}"
    ended = found["last_result"] or ended
    last = found["last_run"]
    row("last run", f"{when(last)}, {ended}" if last else "never")


def print_installed(document: Document) -> None:
    """Print the scheduled task, and what to switch off."""
    print_job(document)
    for name in document["rivals"]:
        say(f"The task {name} runs the old script. Delete it or disable it.")
    say(SWITCH_OFF)


def print_settings(document: Document) -> None:
    """Print every setting and its origin."""
    click.echo(f"Config file: {document['config_file'] or 'none'}")
    for name, item in document["settings"].items():
        value = item.get("default") or item["value"] or "-"
        click.echo(f"{name:<24} {value:<40} {item['from']}")


def in_use(values: Iterable[x509.Certificate | None]) -> str:
    """Return which certificates are in use, as text."""
    rows = [item for value in dict.fromkeys(values) if (item := certificate(value))]
    return "; ".join(
        f"{item['thumbprint']} for {', '.join(item['names'])}, "
        f"valid until {day(item['not_after'])}"
        for item in rows
    )


def row(name: str, *values: object, whole: bool = False) -> None:
    """Print values below each other, with a name beside the first; skip empty ones.

    Args:
        whole: Never break a line: somebody may copy it.
    """
    for value in filter(None, values):
        line = f"  {name:<12} {value}"
        click.echo(line if whole else wrapped(line, columns(), 15))
        name = ""


def columns() -> int | None:
    """Return the columns of the terminal; None if stdout is none.

    One less than there are: after the last one, some terminals begin a line.
    """
    if not sys.stdout.isatty():
        return None
    return max(shutil.get_terminal_size().columns - 1, LEAST_WIDTH)


def say(line: str, indent: int = 4) -> None:
    """Print a line; at a terminal, in lines that fit. Elsewhere programs read it."""
    click.echo(wrapped(line, columns(), indent))


def wrapped(line: str, width: int | None, indent: int) -> str:
    """Return a line in lines that fit; a longer word stays whole.

    Args:
        width: None = any.
    """
    if width is None or len(line) <= width:
        return line
    lead = line[: len(line) - len(line.lstrip())]
    lines = textwrap.wrap(
        line.lstrip(),
        width,
        initial_indent=lead,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines)


def place(item: Document) -> str:
    """Return which INI value it is."""
    return f"{item['file']} [{item['section']}] {item['key']}"


def dropped(item: Document) -> str:
    """Return a name that the certificate does not have, since when, and why."""
    return f"{item['name']}, since {when(item['since'])}: {item['why']}"


def held(item: Document) -> str:
    """Return until when a person's choice of certificate stands."""
    return f"runs keep it until {day(item['until'])}; `use --release` ends that"


def when(stamp: str) -> str:
    """Return a moment in local time, with the zone and the distance from now.

    Args:
        stamp: ISO 8601; any other text, as some schedulers write it, is returned as is.
    """
    try:
        return text.when(datetime.fromisoformat(stamp))
    except ValueError:
        return stamp


def day(stamp: str) -> str:
    """Return the local day of an ISO 8601 moment, with the distance from now."""
    return text.day(datetime.fromisoformat(stamp))


def print_wrapped(sentence: str, indent: int = 4) -> None:
    """Print a sentence or two in lines that fit; a longer word stays whole."""
    click.echo(wrapped(sentence, columns() or WIDTH, indent))
