"""Write the mails: a subject that says it all, and a body that says each thing once."""

from __future__ import annotations

import re
import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.errors import AcmeError, ChallengeError, DeployError
from letsencrypt_mdaemon.state.news import Event
from letsencrypt_mdaemon.state.told import Told, WouldFail
from letsencrypt_mdaemon.system import mail
from letsencrypt_mdaemon.text import day, days, printable, when

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from letsencrypt_mdaemon.errors import Error
    from letsencrypt_mdaemon.renewal.adapters import Outcome

MAX_CAUSE_CHARACTERS = 90
MAX_NAMES = 3
"""The names that a subject lists."""

MOMENT = timedelta(minutes=2)
"""What fails for less than that has only begun to."""

NOT_RENEWED, NOT_IN_USE = "not renewed", "not properly in use"

AGAIN = "The next scheduled run tries again."
NOTHING = "Nothing is scheduled: run `renew`, or `setup`."

EXPIRING = (
    "Run `status`: it shows when the certificate is due, and what delays the renewal.",
    "If the renewal is overdue, run `renew`.",
)
"""What to do about a certificate that comes near its end, whatever the cause."""

DROPPED = ("Run `doctor`: it shows what is wrong with a name. Runs try again daily.",)
"""What to do about a name that the CA could not validate."""


class Cause(NamedTuple):
    """Why runs fail.

    Args:
        key: What tells this failure from others.
        short: For the subject.
        lines: For the body.
        advice: What to do.
        result: What became of the certificate; "" if a renewal would fail later.
        code: The exit code; 0 if the run did not fail.
    """

    key: str
    short: str
    lines: Sequence[str]
    advice: Sequence[str] = ()
    result: str = NOT_RENEWED
    code: int = 0


class About(NamedTuple):
    """What a mail is about.

    Args:
        name: The first name of the certificate; "" if unknown.
        cause: Why the run failed; None if it did not.
        in_use: The certificate in use; "" if unknown.
        result: What a run that did not fail did, or why it did nothing.
        log: The lines of the log, without the failure itself.
        scheduled: Whether something runs `renew`.
        dropped: The names that the certificate lacks, and nobody was told; and why.
        returned: The names that it has again.
    """

    name: str
    at: datetime
    told: Told
    cause: Cause | None = None
    in_use: str = ""
    result: str = ""
    log: Sequence[str] = ()
    scheduled: bool = True
    dropped: Mapping[str, str] = {}
    returned: Sequence[str] = ()


def cause(error: Error, codes: Mapping[str, str]) -> Cause:
    """Return the cause of a failed run.

    Args:
        codes: What the doctor found first about each name that failed.
    """
    rows = error.names if isinstance(error, AcmeError) else {}
    names = {name: why for name, why in sorted(rows.items()) if name}
    first = error.message.partition("\n")[0]
    short, said = first.rstrip(".:"), _steady(first)
    if names:
        short = _listed({name: codes.get(name, "") for name in names})
        seen = {name: codes.get(name) or _steady(why) for name, why in names.items()}
        said = " ".join(f"{name} {what}" for name, what in seen.items())
    return Cause(
        key=f"{type(error).__name__} {said}",
        short=short,
        lines=error.message.splitlines(),
        advice=error.hint.splitlines(),
        result=NOT_IN_USE if isinstance(error, DeployError) else NOT_RENEWED,
        code=error.exit_code,
    )


def waiting(outcome: Outcome) -> Cause:
    """Return the cause of a run that only waits after a failure."""
    if outcome.waits_until is not None:
        why = outcome.waits_for
        return Cause(key="", short=printable(why, 200), lines=[why])
    lines = [_sentence(outcome.reason)]
    if outcome.fault:
        lines.append(f"The certificate in use {outcome.fault}.")
    return Cause(
        key="",
        short="the new certificate waits for `activate`",
        lines=lines,
        advice=["Correct the cause of the failure, then run `activate`."],
        result=NOT_IN_USE,
    )


def foreseen(failing: Iterable[WouldFail]) -> Cause:
    """Return the cause of a renewal that would fail."""
    rows = sorted(failing)
    return Cause(
        key=f"rehearsal {' '.join(map(str, rows))}",
        short=_listed({row.name: row.code for row in rows}),
        lines=[f"{row.name}: {row.why}" for row in rows],
        advice=list(dict.fromkeys(row.change for row in rows if row.change)),
        result="",
    )


def write(event: Event, about: About) -> tuple[str, list[str]]:
    """Return subject and lines of the mail about an event."""
    told, found = about.told, about.cause
    left = told.ends - about.at if told.ends else None
    subject = f"[{about.name or 'letsencrypt-mdaemon'}] {_headline(event, about, left)}"
    lines = [f"Host: {socket.gethostname()}", ""]
    lines += [text, ""] if (text := _happened(about)) else []
    advice: Sequence[str] = EXPIRING if event is Event.EXPIRING else ()
    if found is not None:
        lines += [*(f"  {line}" for line in found.lines), ""]
        advice = found.advice or advice
    else:
        lines += _changed(about)
        advice = advice or DROPPED * bool(about.dropped)
    if advice:
        lines += ["What to do:", *(f"  {line}" for line in advice), ""]
    if about.in_use:
        lines += ["In use now:", f"  {about.in_use}", ""]
    if told.since is not None and (told.runs > 1 or found is None):
        has = ("has" if found.result else "would have") if found else "had"
        runs = f"{told.runs} run{'s' * (told.runs > 1)}"
        lines += [f"It {has} failed since {when(told.since, about.at)}, {runs}.", ""]
    if found is not None:
        lines += [AGAIN if about.scheduled else NOTHING, ""]
    if about.log:
        lines += ["The log:", "", *(f"  {line}" for line in about.log)]
    return subject, lines


def _happened(about: About) -> str:
    """Return what the run did to the certificate, as a sentence."""
    found = about.cause
    if found is None:
        return _sentence(about.result)
    if not found.result:
        return "The next renewal would fail. Nothing in use has changed."
    verb = "was" if found.result == NOT_RENEWED else "is"
    exit_code = f" (exit {found.code})" if found.code else ""
    return f"The certificate {verb} {found.result}{exit_code}."


def _changed(about: About) -> list[str]:
    """Return the names that the certificate lacks now, and those that it has again."""
    lines = []
    if about.dropped:
        lines += ["The certificate was issued without these names:"]
        rows = [f"  {name}: {why}" for name, why in about.dropped.items()]
        lines += [*(printable(row) for row in rows), ""]
    if about.returned:
        lines += [f"In the certificate again: {', '.join(about.returned)}.", ""]
    return lines


def example(kind: str | None) -> tuple[str, list[str]]:
    """Return an example of the mail about an event; "would-fail" is one, too.

    None = a test without any event.
    """
    if kind is None:
        return mail.trial()
    subject, lines = write(*invented(kind))
    return f"TEST {subject}", ["This is a test.", "", *lines]


def invented(kind: str) -> tuple[Event, About]:
    """Return an event that did not happen, and what the mail is about."""
    event = Event.FAILED if kind == "would-fail" else Event(kind)
    name = "mail.example.com"
    at = datetime.now(UTC)
    is_late = event in (Event.FAILED, Event.AGAIN, Event.EXPIRING)
    ends = at + timedelta(days=12 if is_late else 89, hours=1)
    told = Told(begins=ends - timedelta(days=90), ends=ends)
    row = WouldFail(
        "imap.example.com",
        at,
        "port80-timeout",
        "port80-timeout: port 80 does not answer",
        "Open port 80 in the firewall.",
    )
    found = None
    if kind == "would-fail":
        found = foreseen([row])
    elif event in (Event.FAILED, Event.AGAIN):
        message = f"The CA could not validate 1 name:\n  - {row.name}: {row.why}"
        error = ChallengeError(message, hint=row.change, names={row.name: row.why})
        found = cause(error, {row.name: row.code})
    if event in (Event.AGAIN, Event.RECOVERED):
        told = told._replace(since=at - timedelta(days=3, hours=1), runs=7)
    result = f"The certificate is valid until {day(ends, at)}."
    about = About(name, at, told, found, result="" if found else result)
    if event is Event.DROPPED:
        about = about._replace(dropped={row.name: row.why})
    if event is Event.RETURNED:
        about = about._replace(returned=[row.name])
    return event, about


def _headline(event: Event, about: About, left: timedelta | None) -> str:
    told, found = about.told, about.cause
    is_over = left is not None and left <= timedelta()
    ends = f"valid until {day(told.ends, about.at)}" if told.ends else ""
    if found is None:
        what = {
            Event.RECOVERED: "recovered",
            Event.RENEWED: "certificate renewed",
            Event.EXPIRING: "certificate expires",
        }.get(event, "run ended")
        if event is Event.EXPIRING and left is not None:
            return "certificate expired" if is_over else f"{what} in {days(left)}"
        if event is Event.DROPPED:
            what = f"certificate without {_listed(dict.fromkeys(about.dropped, ''))}"
        if event is Event.RETURNED:
            names = _listed(dict.fromkeys(about.returned, ""))
            what = f"certificate with {names} again"
        return ": ".join(filter(None, [what, ends]))
    still = "still " if event is Event.AGAIN else ""
    what = f"certificate {still}{found.result}"
    if not found.result:
        what = f"a renewal would {still}fail"
    facts = [f"{what}: {_cut(found.short)}"]
    if told.runs > 1 and told.since is not None:
        span = about.at - told.since
        facts += [f"for {days(span)}"] if span >= MOMENT else []
        facts.append(f"{_ordinal(told.runs)} run")
    if left is not None:
        facts.append("expired" if is_over else f"{days(left)} left")
    return ", ".join(facts)


def _listed(names: Mapping[str, str]) -> str:
    rows = [f"{name} ({code})" if code else name for name, code in names.items()]
    return _joined(rows, MAX_CAUSE_CHARACTERS, MAX_NAMES)


def _joined(items: Sequence[str], room: int, most: int) -> str:
    """Return a list with as many items as there is room for, at least one."""
    number = 1
    while number < min(len(items), most):
        kept, rest = items[: number + 1], len(items) - number - 1
        if len(", ".join(kept)) + (len(f" and {rest} more") if rest else 0) > room:
            break
        number += 1
    rest = len(items) - number
    return ", ".join(items[:number]) + (f" and {rest} more" if rest else "")


def _cut(text: str) -> str:
    """Return a cause for the subject: a list ends at a comma, other text at a space.

    A URL that is cut leads elsewhere.
    """
    text, most = printable(text, 10 * MAX_CAUSE_CHARACTERS), MAX_CAUSE_CHARACTERS
    if len(text) <= most:
        return text
    text, _, _ = text.partition(". ")
    lead, colon, listed = text.rpartition(": ")
    items = listed.split(", ")
    if len(items) > 1 and all(re.fullmatch(r"\S+( \(\S+\))?", item) for item in items):
        room = most - len(lead + colon)
        return lead + colon + _joined(items, room, len(items))
    if len(text) <= most:
        return text
    start = text[: most - 3]
    return f"{start.rpartition(' ')[0] or start}..."


def _sentence(clause: str) -> str:
    """Return a clause as a sentence."""
    end = "" if clause.endswith((".", "!", "?")) else "."
    return f"{clause[:1].upper()}{clause[1:]}{end}" if clause else ""


def _steady(text: str) -> str:
    """Return a message without what differs each time: numbers, tokens, URLs."""
    return " ".join(re.sub(r"\S*(://|\d)\S*", "", printable(text, 300)).split())


def _ordinal(number: int) -> str:
    teen = number // 10 % 10 == 1
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if teen else ending}"
