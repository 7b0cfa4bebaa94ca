"""The command that reports on this server, or on many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from letsencrypt_mdaemon.cli import options
from letsencrypt_mdaemon.cli.monitoring import unknown
from letsencrypt_mdaemon.cli.options import Result, command
from letsencrypt_mdaemon.cli.parameters import number, offer
from letsencrypt_mdaemon.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from letsencrypt_mdaemon.app.fleet import Fleet
    from letsencrypt_mdaemon.app.rollout import Case
    from letsencrypt_mdaemon.cli.context import Context
    from letsencrypt_mdaemon.cli.document import Document

MAX_SERVERS = 100_000

WIDTH = 40
"""Of a server's name in the table."""

_NOTES = (
    "Computed from the CA's limits, for servers that are spread evenly over accounts, "
    "addresses and registered domains, and for no order that fails. Take the servers "
    "of each domain in turn.\n"
    "Renewals do not count: a certificate for the same names is exempt from these "
    "limits, also after a mass revocation. Each server renews at its next run."
).splitlines()


@command(
    *("json", "mdaemon-dir", "store"),
    takes=(*options.SERVER, *options.DUE),
    helps=options.STAGING,
    own=(
        click.Option(
            ["--from", "folder"],
            metavar="DIR",
            shell_complete=offer((), path="dir"),
            help="Report on the servers whose `status --json` is in this folder.",
        ),
        click.Option(
            ["--html"],
            metavar="FILE",
            shell_complete=offer((), path="file"),
            help="Write the report as HTML.",
        ),
        click.Option(
            ["--csv"],
            metavar="FILE",
            shell_complete=offer((), path="file"),
            help="Write the table as CSV.",
        ),
        click.Option(
            ["--plan"],
            callback=number(1, MAX_SERVERS, int),
            metavar="SERVERS",
            help="Show how long a first rollout takes within the CA's limits.",
        ),
        click.Option(
            ["--domains"],
            callback=number(1, MAX_SERVERS, int),
            metavar="NUMBER",
            help="For --plan: the registered domains of all names.",
        ),
    ),
    example="report --from collected --html report.html",
    on_failure=unknown,
)
def report(  # noqa: PLR0913 - its options
    context: Context,
    *,
    folder: str | None,
    html: str | None,
    csv: str | None,
    plan: int | None,
    domains: int | None,
) -> Result:
    """Report on this server, or on many.

    Shows the worst first, and the renewals and expiries of the next twelve weeks. Exits
    as `check` does, with the state of the worst server: 0 OK, 1 warning, 2 critical, 3
    unknown. Changes nothing, and contacts no CA.
    """
    if plan is None and domains is not None:
        raise ConfigError("--domains is for --plan.")
    if plan is not None:
        if folder or html or csv:
            raise ConfigError("--plan is a command of its own: leave out the others.")
        return _plan(context, plan, domains)
    return _report(context, folder, html, csv)


def _report(
    context: Context, folder: str | None, html: str | None, csv: str | None
) -> Result:
    from pathlib import Path  # noqa: PLC0415 - slow to import

    from letsencrypt_mdaemon.app import collected, fleet  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.cli import document  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.cli.commands import read_status  # noqa: PLC0415
    from letsencrypt_mdaemon.render import csv as table  # noqa: PLC0415 - seldom
    from letsencrypt_mdaemon.render import html as page  # noqa: PLC0415 - seldom
    from letsencrypt_mdaemon.system.publish import publish  # noqa: PLC0415 - seldom

    written = [Path(name) for name in (html, csv) if name]
    if folder is None:
        status = {**document.common("status", 0), **read_status(context)}
        server = collected.read({**status, "warnings": []}, "", context.now)
        found, title = fleet.of([server], context.now), f"Certificate of {server.name}"
    else:
        found = fleet.collect(Path(folder), context.now, without=written)
        title = f"Certificates of {_servers(len(found.servers))}"
    if html:
        publish(Path(html), page.write(found, title=title))
    if csv:
        publish(Path(csv), table.write(found))
    items = _document(found, [str(path) for path in written])
    return Result(items, lambda _: _print(found, written), exit_code=int(found.grade))


def _servers(number: int) -> str:
    return f"{number} mail server{'s' * (number != 1)}"


def _document(found: Fleet, written: Sequence[str]) -> Document:
    from letsencrypt_mdaemon.cli.document import iso  # noqa: PLC0415 - slow

    left = [server.days_left(found.now) for server in found.servers]
    return {
        "verdict": found.verdict,
        "state": found.grade.name,
        "days_left": min((days for days in left if days is not None), default=None),
        "servers": [
            {
                "state": server.grade.name,
                "name": server.name,
                "names": list(server.names),
                "host": server.host or None,
                "files": list(server.sources),
                "version": server.version or None,
                "collected": server.taken and iso(server.taken),
                "not_after": server.end and iso(server.end),
                "days_left": server.days_left(found.now),
                "due_at": server.due and iso(server.due),
                "ports": server.ports and server.ports[1],
                "ports_proven": server.ports and server.ports[0],
                "last_run": server.last_run and iso(server.last_run),
                "problems": [
                    {"state": item.grade.name, "text": item.text}
                    for item in server.problems
                ],
            }
            for server in found.servers
        ],
        "weeks": [
            {
                "start": week.start.isoformat(),
                "renewals": list(week.renewals),
                "expiries": list(week.expiries),
            }
            for week in found.weeks()
        ],
        "written": list(written),
    }


def _print(found: Fleet, written: Sequence[object]) -> None:
    """Print the verdict, and the table unless it was written to a file."""
    from letsencrypt_mdaemon.render.words import HEADS, cells  # noqa: PLC0415
    from letsencrypt_mdaemon.text import printable  # noqa: PLC0415

    click.echo(found.verdict)
    for path in written:
        click.echo(f"Written: {path}")
    if written:
        return
    rows = []
    for server in found.servers:
        row = cells(server, found.now)
        names = f"{len(server.names) or ''}"
        rows.append(row._replace(server=printable(row.server, WIDTH), names=names))
    _print_table([HEADS[:-1], *(row[:-1] for row in rows)], [row.why for row in rows])
    click.echo("\nThe next twelve weeks:")
    weeks = [
        (f"{week.start}", f"{len(week.renewals)}", f"{len(week.expiries)}")
        for week in found.weeks()
    ]
    _print_table([("Week from", "Renewals", "Expiries"), *weeks])


def _print_table(rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> None:
    """Print a table with its heads first, and a note below each row."""
    from letsencrypt_mdaemon.cli.text import print_wrapped  # noqa: PLC0415 - slow

    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row, note in zip(rows, ["", *notes, *[""] * len(rows)], strict=False):
        line = "  ".join(f"{x:<{width}}" for x, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())
        if note:
            print_wrapped(f"    {note}")


def _plan(context: Context, servers: int, domains: int | None) -> Result:
    from letsencrypt_mdaemon import authorities  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.app import rollout  # noqa: PLC0415 - seldom

    ca = context.config.ca
    limits = authorities.at(ca).limits
    if limits is None:
        message = f"The limits of the CA {ca} are not known."
        raise ConfigError(message, hint="Ask the CA, and use --directory-url.")
    if domains is not None and domains > servers:
        message = f"--domains {domains} is more than --plan {servers}."
        raise ConfigError(message, hint="A server has names of one domain or more.")
    found = rollout.cases(servers, limits, domains=domains)
    spans = sorted(row.takes for row in found)
    takes = " to ".join(dict.fromkeys(map(_long, (spans[0], spans[-1]))))
    verdict = f"First rollout of {servers} servers: {takes}."
    items = {
        "verdict": verdict,
        "plan": {
            "directory_url": ca,
            "servers": servers,
            "cases": [
                {
                    "accounts": row.accounts,
                    "addresses": row.addresses,
                    "domains": row.domains,
                    "at_once": row.at_once,
                    "then_every_seconds": round(row.every.total_seconds(), 1),
                    "hours": round(row.takes.total_seconds() / 3600, 1),
                    "limit": row.limit or None,
                }
                for row in found
            ],
        },
    }
    return Result(items, lambda _: _print_plan(verdict, found))


def _print_plan(verdict: str, found: Sequence[Case]) -> None:
    from letsencrypt_mdaemon.cli.text import print_wrapped  # noqa: PLC0415 - slow

    click.echo(verdict)
    heads = ("Accounts", "Addresses", "Domains", "At once", "Then one every", "Takes")
    rows = [
        (
            *(f"{x}" for x in row[:4]),
            _long(row.every) if row.every else "-",
            _long(row.takes),
            row.limit or "-",
        )
        for row in found
    ]
    _print_table([(*heads, "Limit"), *rows])
    for text in _NOTES:
        print_wrapped(text, indent=0)


def _long(span: timedelta) -> str:
    """Return a span with a decimal."""
    if not span:
        return "at once"
    seconds = span.total_seconds()
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}".replace(".0 ", " ")
    return f"{seconds:.0f} seconds"
