"""Show `verify`: as JSON, and as a table."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from letsencrypt_mdaemon.cli import verdict as sentence
from letsencrypt_mdaemon.cli.document import certificate, days_left
from letsencrypt_mdaemon.cli.text import print_wrapped
from letsencrypt_mdaemon.pki.certificate import dns_names, thumbprint
from letsencrypt_mdaemon.pki.chain import Ending, title
from letsencrypt_mdaemon.text import day, printable
from letsencrypt_mdaemon.verify import verdict
from letsencrypt_mdaemon.verify.served import Answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from letsencrypt_mdaemon.cli.document import Document
    from letsencrypt_mdaemon.verify.served import Served
    from letsencrypt_mdaemon.verify.verdict import Port, Verification


def verification(value: Verification) -> Document:
    """Return what the ports serve, and what they should serve."""
    expected = value.expected
    return {
        "days_left": days_left(expected or ()),
        "verdict": sentence.verification(value),
        "names": list(value.names),
        "expected": None
        if expected is None
        else [certificate(one) for one in expected],
        "proven": value.is_proven,
        "ports": [port(each) for each in value.ports],
    }


def port(value: Port) -> Document:
    """Return what an endpoint answered, and whether that is good."""
    endpoint, chain = value.endpoint, value.chain
    return {
        "endpoint": endpoint.url,
        "address": endpoint.host,
        "port": endpoint.port,
        "origin": value.origin,
        "good": value.is_good,
        "flaw": value.flaw or None,
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
            "replaced": list(chain.replaced),
            "as_issued": chain.as_issued,
            "trusted": not chain.distrust,
            "distrust": chain.distrust,
        },
        "differently": [_answer(other) for other in value.served.differently],
    }


def _answer(value: Served) -> Document:
    return {
        "server_name": value.server_name,
        "only_key": value.key or None,
        "outcome": value.outcome.name.lower(),
        "detail": value.detail,
        "certificate": certificate(value.chain[0] if value.chain else None),
    }


def print_verification(found: Verification, store: str) -> None:
    """Print a table of what the ports serve, and remarks below it.

    Args:
        store: The store that was searched for certificates.
    """
    print_wrapped(f"Store: {store}")
    _print_expected(found)
    ports = found.ports
    groups = verdict.grouped(ports)
    head = ("", "Port", "", "Serves", "Until", "Chain", "TLS", "Time", "Where")
    cells = [_cells(group, groups) for group in groups]
    columns = _columns([head, *cells])
    if ports:
        click.echo(columns.format(*head).rstrip())
    notes: dict[str, list[str]] = {}
    origin = ""
    for group, shown in zip(groups, cells, strict=True):
        if group[0].origin == "dns" != origin:
            click.echo("At the addresses in DNS (this can fail behind NAT):")
        origin = group[0].origin
        line = columns.format(*shown).rstrip()
        listens = group[0].served.is_listening
        colour = ("green" if listens else None) if group[0].is_good else "red"
        click.echo(line if os.environ.get("NO_COLOR") else click.style(line, fg=colour))
        for remark in verdict.remarks(
            group[0], now=found.now, require_trusted=found.require_trusted
        ):
            notes.setdefault(remark, []).append(verdict.place(group, groups))
    for remark, places in notes.items():
        where = ", ".join(places[:6])
        if len(places) > 6:  # noqa: PLR2004 - the table shows all
            where += f" and {len(places) - 6} more"
        where = where if len(places) < len(groups) else "Every port"
        print_wrapped(f"{where}: {remark}.")
    if not found.is_listening:
        print_wrapped(sentence.verification(found))


def _print_expected(found: Verification) -> None:
    if found.expected is None:
        print_wrapped(
            "The expected certificate is unknown: no known INI value names one. "
            "Run `discover`."
        )
    elif not found.expected:
        print_wrapped("The server's files name an unknown certificate.")
    for one in found.expected or ():
        names = ", ".join(printable(name) for name in dns_names(one))
        until = day(one.not_valid_after_utc, found.now)
        digest = thumbprint(one)
        print_wrapped(f"Expected: {digest}, valid until {until}, for {names}.")


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """Return the format of a table's rows: no column is wider than it has to be."""
    aligned = ("<", ">", "<", "<", "<", "<", "<", ">")
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    pairs = zip(aligned, widths, strict=False)
    shown = [f"{{:{to}{width}}}" for to, width in pairs]
    return f"{' '.join(shown[:3])}  {'  '.join(shown[3:])}  {{}}"


def _cells(group: Sequence[Port], groups: Sequence[Sequence[Port]]) -> tuple[str, ...]:
    port = group[0]
    served, listens = port.served, port.served.is_listening
    serves = {
        Answer.SERVED: f"{served.thumbprint[:8]}...",
        Answer.NOT_LISTENING: "not listening",
        Answer.TIMED_OUT: "timed out",
        Answer.TURNED_AWAY: "turned away",
        Answer.NO_STARTTLS: "no STARTTLS",
        Answer.HANDSHAKE_FAILED: "handshake failed",
    }[served.outcome]
    if port.is_expected is not None:
        other = "differs by name" if served.differently else "another"
        serves = "expected" if port.is_expected else other
    leaf = served.chain[0] if served.chain else None
    where = verdict.where(group, groups)
    return (
        "FAIL" if not port.is_good else "ok" if listens else "-",
        str(port.endpoint.port),
        port.endpoint.scheme,
        serves,
        f"{leaf.not_valid_after_utc.astimezone():%Y-%m-%d}" if leaf else "",
        _chain_state(port),
        served.tls.removeprefix("TLS "),
        f"{served.seconds:.2f}s" if listens else "",
        where if len(where) <= 18 else f"{where[:16]}..",  # noqa: PLR2004 - the rest
    )


def _chain_state(port: Port) -> str:
    chain = port.chain
    if chain is None:
        return ""
    if chain.ending is Ending.SELF_SIGNED:
        return "self-signed"
    if not chain.in_order:
        return "wrong order"
    if not chain.distrust:
        return "trusted"
    words = {True: "complete", False: "incomplete", None: "unknown"}
    return words[chain.is_complete]
