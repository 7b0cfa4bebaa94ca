"""The command for monitors, in the formats that they read."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import click

from letsencrypt_mdaemon.cli import options
from letsencrypt_mdaemon.cli.options import Result, command
from letsencrypt_mdaemon.cli.parameters import number, offer
from letsencrypt_mdaemon.errors import ConfigError, Error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta
    from pathlib import Path

    from letsencrypt_mdaemon.app.health import Health, Limits
    from letsencrypt_mdaemon.cli.context import Context
    from letsencrypt_mdaemon.cli.document import Document

UNKNOWN = 3
"""The exit code of a check that could not be made."""

NO_RIGHTS = (
    "Run `check` as the account that renews; or let that account set metrics-file, and "
    "run `check --metrics-file FILE`."
)
"""What a monitor's agent can do that may not read the state."""

FORMATS = ("text", "json", "prtg", "prometheus")
DAY = 86_400
MAX_DAYS, MAX_SECONDS = 10_000, 600


def unknown(message: str, words: Sequence[str]) -> tuple[int, Document]:
    """Print that the check could not be made, unless as JSON: the caller does.

    Args:
        words: The command line.

    Returns:
        The exit code of that, and the state for the JSON.
    """
    text = f"UNKNOWN - {_one_line(message)}"
    form = _asked_format(words)
    if form == "prtg":
        click.echo(json.dumps({"prtg": {"error": 1, "text": text}}))
    elif form == "prometheus":
        lines = f"# {text}\nletsencrypt_mdaemon_state {UNKNOWN}"
        click.echo(lines)
    elif form != "json":
        click.echo(text)
    problem = {"state": "UNKNOWN", "text": message}
    return UNKNOWN, {"state": "UNKNOWN", "problems": [problem]}


def _asked_format(words: Sequence[str]) -> str:
    """Return the format that a command line asks for, even if it is wrong otherwise."""
    form = FORMATS[0]
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, _, value = word.partition("=")
        if name == "--format":
            form = value or following
    return "json" if options.wants_json(words) else form


@command(
    *("json", "mdaemon-dir", "store", "endpoint", "metrics-file"),
    takes=(*options.SERVER, "after-activation"),
    own=(
        click.Option(
            ["--warning"],
            callback=number(0, MAX_DAYS, int),
            metavar="DAYS",
            help="Warn below this.  [default: 21, or a quarter of the lifetime]",
        ),
        click.Option(
            ["--critical"],
            callback=number(0, MAX_DAYS, int),
            metavar="DAYS",
            help="Critical below this.  [default: 7, or an eighth of the lifetime]",
        ),
        click.Option(["--no-ports"], is_flag=True, help="Do not ask the ports."),
        click.Option(
            ["--timeout"],
            callback=number(0.1, MAX_SECONDS),
            default="8",
            metavar="SECONDS",
            help="For all ports together.  [default: 8]",
        ),
        click.Option(
            ["--format", "form"],
            metavar="FORMAT",
            default=FORMATS[0],
            shell_complete=offer(FORMATS),
            help=f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}.  [default: text]",
        ),
    ),
    helps={
        **options.STAGING,
        "metrics-file": "Read only this file, which `renew` writes.",
    },
    example="check --critical 5",
    on_failure=unknown,
)
def check(  # noqa: PLR0913 - its options
    context: Context,
    *,
    warning: int | None,
    critical: int | None,
    no_ports: bool,
    timeout: float,
    form: str,
) -> Result:
    """Report the state to a monitor.

    Prints one line and exits as monitoring plugins do: 0 OK, 1 warning, 2 critical, 3
    unknown. The usual exit codes do not apply here. Changes nothing, contacts no CA,
    and works beside a run. Asks one address of each port, once. An account that may not
    read the state gets what the last run wrote into metrics-file.
    """
    from letsencrypt_mdaemon.app import health  # noqa: PLC0415 - slow

    if form not in FORMATS:
        message = f"--format: {form!r} is not valid; use {', '.join(FORMATS)}."
        raise ConfigError(message)
    if warning is not None and critical is not None and critical > warning:
        message = f"--critical {critical} is more than --warning {warning}."
        raise ConfigError(message, hint="Warn first: --warning is the larger one.")
    limits = health.Limits(warning, critical)
    try:
        found = None
        if "metrics-file" not in context.options:
            found = health.check(
                context.open(look=False, read_only=True),
                limits,
                now=context.now,
                port_timeout=None if no_ports else timeout,
                file=context.valid.file,
            )
    except Error as exc:
        if not _lacks_rights(exc):
            raise
        if _metrics_file(context) is None:
            exc.hint = f"{exc.hint} {NO_RIGHTS}".strip()
            raise
    found = found or _by_file(context, limits)
    prints = {
        "text": lambda _: click.echo(line(found)),
        "prtg": lambda _: click.echo(json.dumps(prtg(found), indent=2)),
        "prometheus": lambda _: click.echo(prometheus(found), nl=False),
    }
    # As JSON it is printed as by any other command.
    text = prints.get(form, prints[FORMATS[0]])
    return Result(_document(found), text, exit_code=int(found.grade))


def _by_file(context: Context, limits: Limits) -> Health:
    """Judge by the metrics file, which every account may read."""
    from letsencrypt_mdaemon.app import metrics_file  # noqa: PLC0415 - slow

    path = context.valid.config.metrics_file
    if path is None:  # what the command line gave is no path
        context.loaded  # noqa: B018 - raises
        raise AssertionError
    return metrics_file.read(path, limits, context.now)


def _metrics_file(context: Context) -> Path | None:
    """Return the metrics file, as far as the settings can be read."""
    try:
        return context.valid.config.metrics_file
    except ConfigError:
        return None


def _lacks_rights(error: BaseException | None) -> bool:
    """Whether an error comes from what this account may not read."""
    while error is not None:
        if isinstance(error, PermissionError):
            return True
        error = error.__cause__ or error.__context__
    return False


def line(found: Health) -> str:
    """Return the state in one line, with performance data behind the bar.

    Monitoring Plugins Development Guidelines, "Plugin Output for Nagios".
    """
    problems = "; ".join(item.text for item in found.problems)
    text = ", ".join(_facts(found)) + (f"; {problems}" if problems else "")
    data = " ".join(f"{name}={value}" for name, value in _measured(found).items())
    return f"{found.grade.name} - {_one_line(f'{found.name}: {text}')} | {data}"


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "/").strip()


def _facts(found: Health) -> list[str]:
    """Return what is known, as phrases."""
    from letsencrypt_mdaemon.text import days  # noqa: PLC0415

    facts = ["no known certificate in use"]
    if found.left is not None:
        is_valid = found.left.total_seconds() > 0
        facts = [f"{_days(found.left)} days left" if is_valid else "expired"]
    if ports := _counted(found):
        facts.append("{} of {} ports proven".format(*ports))
    last = found.last_run
    ran = "no scheduled run" if last is None else f"last run {days(last)} ago"
    if found.renewed is not None:
        ran = f"renewed by hand {days(found.renewed)} ago, no scheduled run yet"
    return [*facts, ran]


def _counted(found: Health) -> tuple[int, int] | None:
    """Return how many ports are proven, of how many of ours; None if none was asked."""
    proof = found.proof
    if proof is None:
        return None
    return len(proof.new), len(proof.rows) - len(proof.foreign)


def _measured(found: Health) -> dict[str, str]:
    """Return the performance data: values with their limits."""
    data = {}
    if found.left is not None:
        limits = f"{_days(found.warning)}:;{_days(found.critical)}:"
        data["days"] = f"{_days(found.left)};{limits};0"
    if ports := _counted(found):
        data["ports_unproven"] = str(ports[1] - ports[0])
    if found.last_run is not None:
        data["last_run"] = f"{found.last_run.total_seconds():.0f}s"
    return data


def _days(span: timedelta) -> str:
    """Return whole days, or a decimal more if they are few."""
    number = span.total_seconds() / DAY
    return f"{number:.1f}" if abs(number) < 10 and number % 1 else f"{number // 1:.0f}"  # noqa: PLR2004


def _rounded(span: timedelta) -> float:
    return round(span.total_seconds() / DAY, 2)


def _document(found: Health) -> Document:
    proven, ports = _counted(found) or (None, None)
    left, last = found.left, found.last_run
    return {
        "verdict": line(found).rpartition(" | ")[0],
        "state": found.grade.name,
        "name": found.name,
        "days_left": None if left is None else _rounded(left),
        "warning_days": _rounded(found.warning),
        "critical_days": _rounded(found.critical),
        "ports": ports,
        "ports_proven": proven,
        "last_run_seconds": None if last is None else round(last.total_seconds()),
        "problems": [
            {"state": item.grade.name, "text": item.text} for item in found.problems
        ],
    }


def prtg(found: Health) -> Mapping[str, object]:
    """Return the state as PRTG's custom sensors read it (JSON, Advanced)."""
    document, channels = _document(found), []
    if found.left is not None:
        channels.append(
            {
                "channel": "Days left",
                "value": document["days_left"],
                "float": 1,
                "limitmode": 1,
                "limitminwarning": document["warning_days"],
                "limitminerror": document["critical_days"],
            }
        )
    if ports := _counted(found):
        unproven = ports[1] - ports[0]
        channels.append({"channel": "Ports not proven", "value": unproven})
    if found.last_run is not None:
        seconds, unit = document["last_run_seconds"], "TimeSeconds"
        channels.append(
            {"channel": "Since the last run", "value": seconds, "unit": unit}
        )
    state = {
        "channel": "State",
        "value": int(found.grade),
        "limitmode": 1,
        "limitmaxwarning": 0.5,
        "limitmaxerror": 1.5,
    }
    return {"prtg": {"result": [*channels, state], "text": document["verdict"]}}


def prometheus(found: Health) -> str:
    """Return the state in Prometheus' text format."""
    from letsencrypt_mdaemon.app import metrics  # noqa: PLC0415 - slow

    proven, ports = _counted(found) or (0, None)
    left, last = found.left, found.last_run
    rows = {
        "state": int(found.grade),
        "seconds_left": None if left is None else left.total_seconds(),
        "ports_unproven": None if ports is None else ports - proven,
        "last_run_age_seconds": None if last is None else last.total_seconds(),
    }
    name = (("name", found.name),)
    return metrics.render(
        metrics.Sample(gauge, value, name)
        for gauge, value in rows.items()
        if value is not None
    )
