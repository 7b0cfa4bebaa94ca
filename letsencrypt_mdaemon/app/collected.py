"""Read what `status --json` or `check --format json` printed on some server.

Nobody vouches for such a file: it may be of another version, damaged, or written to
harm. Every text is made printable and cut, every list is cut.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from letsencrypt_mdaemon.app.health import Grade, Limits, Problem
from letsencrypt_mdaemon.text import days, local, printable, when

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_T = TypeVar("_T")

SCHEMA = 1
MAX_TEXT, MAX_NAME, MAX_ITEMS = 500, 253, 120
"""Characters of a text and of a name, and entries of a list, that a report shows."""
MAX_AGE, MAX_AHEAD = timedelta(days=2), timedelta(hours=1)
"""How old a file may be, and how far ahead its server's clock."""
LIFETIME = timedelta(days=90)
"""Of a certificate whose beginning is not known."""

_LEAF = ("thumbprint", "issuer", "not_before", "not_after")
_MOMENTS = {"not_before", "not_after", "due_at", "since", "until", "last"}
_RANKS = (Grade.OK, Grade.WARNING, Grade.UNKNOWN, Grade.CRITICAL)
_BROKEN = (ValueError, LookupError, TypeError, OverflowError, RecursionError)


class Port(NamedTuple):
    """A port, and what it shows of the certificate in use: see `renewal.adapters`."""

    endpoint: str
    verdict: str
    reason: str


class Server(NamedTuple):
    """What is known of one server.

    Args:
        name: Its own name, or else the file's.
        names: Those of the certificate that is wanted.
        host: The machine's name; "" if unknown.
        sources: The files that it was read from; none for this machine.
        taken: When they were made.
        end: When the first certificate in use expires.
        due: When that is due.
        ports: How many are proven, of how many; None if none was asked.
        problems: The worst first.
        details: Labels with their values.
    """

    name: str
    problems: tuple[Problem, ...] = ()
    names: tuple[str, ...] = ()
    host: str = ""
    sources: tuple[str, ...] = ()
    version: str = ""
    taken: datetime | None = None
    end: datetime | None = None
    due: datetime | None = None
    ports: tuple[int, int] | None = None
    last_run: datetime | None = None
    lifetime: timedelta = LIFETIME
    seen: tuple[Port, ...] = ()
    details: tuple[tuple[str, tuple[str, ...]], ...] = ()
    is_check: bool = False

    @property
    def grade(self) -> Grade:
        """That of the worst problem; an unknown one is less than a critical one."""
        return worst(item.grade for item in self.problems)

    @property
    def why(self) -> str:
        """The problems in a line."""
        return "; ".join(item.text for item in self.problems)

    def days_left(self, now: datetime) -> float | None:
        """Return the days until the first certificate in use expires."""
        return round((self.end - now) / timedelta(days=1), 2) if self.end else None


def rank(grade: Grade) -> int:
    """Return how bad a grade is."""
    return _RANKS.index(grade)


def worst(grades: Iterable[Grade]) -> Grade:
    """Return the worst of some grades; OK of none."""
    return max(grades, key=rank, default=Grade.OK)


def unknown(name: str, why: str, **known: Any) -> Server:  # noqa: ANN401 - any field
    """Return a server of which only that is known."""
    return Server(name, (Problem(Grade.UNKNOWN, why),), **known)


def parse(data: bytes, name: str, now: datetime) -> Server:
    """Return the server that a file describes; whatever it holds, it raises nothing.

    Args:
        data: The content, as JSON in UTF-8, UTF-16 or UTF-32.
        name: The printable name of the file.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return unknown(name, "the file is not JSON", sources=(name,))
    return read(document, name, now)


def read(document: object, source: str, now: datetime) -> Server:
    """Return the server that a JSON document describes.

    Args:
        source: The printable name of the file; "" = it is of this server, and now.
    """
    sources = (source,) if source else ()
    known: dict[str, Any] = {"sources": sources}
    try:
        if not isinstance(document, dict):
            raise TypeError
        if "schema" not in document and document.get("state") == Grade.UNKNOWN.name:
            # `check --format json` that could not be made.
            return unknown(source, _problems(document)[0].text, **known)
        if document["schema"] != SCHEMA or document["schema"] is True:
            why = f"its schema is {_text(document['schema'], 20)}, not {SCHEMA}"
            return unknown(source, f"{why}: use the same version everywhere", **known)
        generator = _is(document["generator"], dict)
        known["host"] = host = _text(generator.get("host") or "", MAX_NAME).strip()
        known["version"] = _text(generator["version"], 20)
        known["taken"] = taken = _moment(generator["time"])
        if "error" in document:
            error = _text(_is(document["error"], dict)["message"])
            return unknown(host or source, error, **known)
        if document["command"] == "check":
            found = _of_check(document, taken)
        elif document["command"] == "status":
            found = _of_status(document, now)
        else:
            raise TypeError
        if not found.name.strip():
            raise ValueError
    except _BROKEN:
        why = "the file is not what `status --json` or `check --format json` prints"
        return unknown(known.get("host") or source, why, **known)
    return _judged(found._replace(**known), now)


def _of_check(document: Mapping[str, Any], taken: datetime) -> Server:
    left, last = document["days_left"], document["last_run_seconds"]
    end = None if left is None else taken + timedelta(days=_is(left, (int, float)))
    ran = None if last is None else taken - timedelta(seconds=_is(last, (int, float)))
    proven, ports = document["ports_proven"], document["ports"]
    name = _text(document["name"], MAX_NAME)
    return Server(
        name,
        _problems(document),
        names=(name,),
        end=end,
        ports=None if ports is None else (_is(proven, int), _is(ports, int)),
        last_run=ran,
        is_check=True,
    )


def _of_status(document: Mapping[str, Any], now: datetime) -> Server:
    names = _texts(document["names"], MAX_NAME)
    leaf = document["certificate"]
    seen: tuple[Port, ...] = ()
    proof = document["proof"]
    if proof is not None:
        rows = _is(_is(proof, dict)["ports"], list)
        seen = tuple(Port(*(_text(x[key]) for key in Port._fields)) for x in rows)
    ours = [row.verdict for row in seen if row.verdict != "foreign"]
    named = [leaf, *(row["certificate"] for row in _is(document["targets"], list))]
    ends = [_moment(item["not_after"]) for item in named if item is not None]
    return Server(
        names[0],
        _problems(document),
        names=names,
        end=min(ends, default=None),
        due=_moment_or_none(document["due_at"]),
        ports=None if proof is None else (ours.count("new"), len(ours)),
        last_run=_moment_or_none(_is(document["schedule"], dict)["last_run"]),
        lifetime=LIFETIME if leaf is None else _lifetime(_is(leaf, dict)),
        seen=seen[:MAX_ITEMS],
        details=tuple(_details(document, now)),
    )


def _lifetime(leaf: Mapping[str, Any]) -> timedelta:
    return _moment(leaf["not_after"]) - _moment(leaf["not_before"])


def _details(
    document: Mapping[str, Any], now: datetime
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the rest of a status, as labels with values; skip empty ones."""
    leaf = document["certificate"] or dict.fromkeys(_LEAF)
    due = _of_row(document, ("due_at", "reason", "rule"), now)

    def lines(found: object, *keys: str) -> list[str]:
        rows = found if isinstance(found, list) else [found]
        return [
            ", ".join(_of_row(_is(row, dict), keys, now))
            for row in rows
            if row is not None
        ]

    rows = {
        "Verdict": [document["verdict"]],
        "Names": document["names"],
        "Certificate": [leaf["thumbprint"]],
        "Issuer": [leaf["issuer"]],
        "Valid from": _of_row(leaf, ("not_before",), now),
        "Valid until": _of_row(leaf, ("not_after",), now),
        "Due": due,
        "Waiting": lines(document["waiting"], "reason", "until"),
        "Held": lines(document["held"], "by", "since", "until"),
        "Issued, not in use": lines(document["pending"], "thumbprint", "not_after"),
        "Dropped": lines(document["dropped"], "name", "since", "why"),
        "Would fail": lines(document["would_fail"], "name", "since", "why", "change"),
        "Failed": lines(document["ledger"]["failing"], "name", "last", "why"),
        "TLSA record": [document["tlsa"]],
        "CA": [document["directory_url"]],
        "MDaemon": [document["mdaemon_dir"]],
        "Store": [document["store"]],
        "Named by": lines(document["targets"], "file", "section", "key"),
        "Warnings": document.get("warnings", []),
    }
    for label, values in rows.items():
        if shown := _texts([item for item in _is(values, list) if item is not None]):
            yield label, shown


def _of_row(row: Mapping[str, Any], keys: Iterable[str], now: datetime) -> list[str]:
    """Return what there is of a row, with its moments in local time."""
    found = {key: row[key] for key in keys if row[key] is not None}
    return [
        when(_moment(value), now) if key in _MOMENTS else _text(value)
        for key, value in found.items()
    ]


def _judged(server: Server, now: datetime) -> Server:
    """Add what time makes of it: what was good when the file was made may be over."""
    found = []
    if server.end is not None:
        warning, critical = Limits().of(server.lifetime)
        left = server.end - now
        grade = Grade.CRITICAL if left < critical else Grade.WARNING
        was_good = server.taken is not None and server.taken < server.end
        # Its own server may have said so already.
        is_worse = rank(grade) > rank(server.grade)
        if left <= timedelta():
            if was_good or is_worse:
                found.append(Problem(Grade.CRITICAL, "expired"))
        elif left < warning and is_worse:
            found.append(Problem(grade, f"expires on {local(server.end):%Y-%m-%d}"))
    if server.sources and server.taken is not None:
        age = now - server.taken
        if age > MAX_AGE:
            found.append(Problem(Grade.UNKNOWN, f"collected {days(age)} ago"))
        elif -age > MAX_AHEAD:
            ahead = f"its clock is ahead by {days(-age)}, or the file is wrong"
            found.append(Problem(Grade.UNKNOWN, ahead))
    return with_problems(server, found)


def with_problems(server: Server, more: Iterable[Problem]) -> Server:
    """Return a server with more problems, the worst first."""
    every = dict.fromkeys([*server.problems, *more])
    ordered = sorted(every, key=lambda item: -rank(item.grade))
    return server._replace(problems=tuple(ordered))


def _problems(document: Mapping[str, Any]) -> tuple[Problem, ...]:
    """Return what the server itself says; it cannot be good with a problem."""
    rows = [_is(row, dict) for row in _is(document["problems"], list)]
    found = [Problem(Grade[row["state"]], _text(row["text"])) for row in rows]
    if rank(grade := Grade[document["state"]]) > rank(worst(x.grade for x in found)):
        found.append(Problem(grade, f"its own verdict is {grade.name}"))
    found.sort(key=lambda item: -rank(item.grade))  # the worst is never cut off
    return tuple(found[:MAX_ITEMS])


def _is(value: object, kind: type[_T] | tuple[type[_T], ...]) -> _T:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError
    return value


def _text(value: object, limit: int = MAX_TEXT) -> str:
    if isinstance(value, (dict, list)):
        raise TypeError
    return printable(value, limit)


def _texts(values: object, limit: int = MAX_TEXT) -> tuple[str, ...]:
    texts = [_text(item, limit) for item in _is(values, list)[:MAX_ITEMS]]
    more = len(_is(values, list)) - MAX_ITEMS
    return (*texts, *([f"and {more} more"] if more > 0 else []))


def _moment(text: object) -> datetime:
    moment = datetime.fromisoformat(_is(text, str))
    if moment.tzinfo is None:
        raise ValueError
    return moment.astimezone(UTC)


def _moment_or_none(text: object) -> datetime | None:
    return None if text is None else _moment(text)
