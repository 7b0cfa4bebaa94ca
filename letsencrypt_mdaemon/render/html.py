"""Write a report as one HTML file: without a script, and without a request.

A text becomes HTML in one place: whatever is not `_Html` is escaped by `_element`. The
content security policy allows the one style sheet by its hash and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import html
from typing import TYPE_CHECKING

from letsencrypt_mdaemon._version import __version__
from letsencrypt_mdaemon.app.health import Grade
from letsencrypt_mdaemon.render.style import STYLE
from letsencrypt_mdaemon.render.words import HEADS, cells
from letsencrypt_mdaemon.text import when

if TYPE_CHECKING:
    from collections.abc import Iterable

    from letsencrypt_mdaemon.app.collected import Server
    from letsencrypt_mdaemon.app.fleet import Fleet, Week

MAX_NAMES = 8
"""The servers that are named in a week."""

_VOID = {"meta"}
_MARKS = {
    Grade.OK: "\N{CHECK MARK}",
    Grade.WARNING: "\N{WHITE UP-POINTING TRIANGLE}",
    Grade.CRITICAL: "\N{BLACK DIAMOND}",
    Grade.UNKNOWN: "?",
}
"""Beside the words: no verdict is told by its colour alone."""


class _Html(str):
    """HTML, which is not escaped again."""

    __slots__ = ()


def write(fleet: Fleet, *, title: str) -> bytes:
    """Return the report as HTML."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )
    head = _element(
        "head",
        _element("meta", charset="utf-8"),
        _element("meta", http_equiv="Content-Security-Policy", content=policy),
        _element("meta", name="viewport", content="width=device-width"),
        _element("meta", name="referrer", content="no-referrer"),
        _element("meta", name="color-scheme", content="light dark"),
        _element("title", title),
        _element("style", _Html(STYLE)),
    )
    one = len(fleet.servers) == 1
    made = f"{when(fleet.now, fleet.now).rpartition(' (')[0]}, version {__version__}"
    body = _element(
        "body",
        _element("a", "Skip to the servers", href="#servers", class_="skip"),
        _element(
            "header",
            _element("h1", title),
            _counts(fleet),
            _element("p", f"Made {made}."),
        ),
        _element(
            "main",
            _section("servers", "Servers, the worst first", _table(fleet)),
            _section("weeks", "The next twelve weeks", _weeks(fleet.weeks())),
            _section(
                "details",
                "Details",
                *(
                    _details(number, server, is_open=one)
                    for number, server in enumerate(fleet.servers, 1)
                ),
            ),
        ),
    )
    text = f"<!DOCTYPE html>\n{_element('html', head, body, lang='en')}\n"
    return text.encode("utf-8", "backslashreplace")


def _element(tag: str, /, *children: str | None, **attributes: str | None) -> _Html:
    """Return an element; texts and values are escaped, empty ones left out.

    Args:
        attributes: An underscore stands for a hyphen; one at the end is dropped.
    """
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return _Html(f"<{tag}{shown}>")
    inner = "".join(
        child if isinstance(child, _Html) else html.escape(child)
        for child in children
        if child
    )
    return _Html(f"<{tag}{shown}>{inner}</{tag}>\n")


def _breakable(name: str) -> _Html:
    """Return a name that may go on in the next line behind a dot."""
    return _Html(html.escape(name).replace(".", ".<wbr>"))


def _section(name: str, title: str, *children: str) -> _Html:
    heading = _element("h2", title, id=f"{name}-title")
    label = f"{name}-title"
    return _element(
        "section", heading, *children, id=name, tabindex="-1", aria_labelledby=label
    )


def _counts(fleet: Fleet) -> _Html:
    rows = [
        _element("li", _verdict(grade), f" {count}")
        for grade, count in fleet.counts.items()
        if count
    ]
    return _element("ul", *rows, class_="counts")


def _verdict(grade: Grade) -> _Html:
    mark = _element("span", _MARKS[grade], aria_hidden="true")
    name = grade.name if grade is Grade.OK else grade.name.capitalize()
    return _element("strong", mark, f" {name}", class_=f"verdict {grade.name.lower()}")


def _table(fleet: Fleet) -> _Html:
    rows = []
    for number, server in enumerate(fleet.servers, 1):
        row = cells(server, fleet.now)
        link = _element("a", _breakable(row.server), href=f"#server-{number}")
        shown = row._replace(
            verdict=_verdict(server.grade), server=link, names=_breakable(row.names)
        )
        rows.append(_row(HEADS, shown, header=HEADS.index("Server")))
    return _grid(HEADS, rows, "Verdict, certificate and reasons, by server")


def _grid(heads: Iterable[str], rows: Iterable[str], caption: str) -> _Html:
    # The roles: a table that is shown as cards on a narrow screen stays a table.
    columns = [_element("th", x, scope="col", role="columnheader") for x in heads]
    top = _element("tr", *columns, role="row")
    return _element(
        "table",
        _element("caption", caption),
        _element("thead", top, role="rowgroup"),
        _element("tbody", *rows, role="rowgroup"),
        role="table",
    )


def _row(heads: Iterable[str], values: Iterable[str], *, header: int = 0) -> _Html:
    found = []
    for number, (head, value) in enumerate(zip(heads, values, strict=True)):
        label = _element("span", head, class_="label", aria_hidden="true")
        inner = _element("span", value, class_="value")
        empty = None if value else "empty"
        if number == header:
            found.append(_element("th", label, inner, scope="row", role="rowheader"))
        else:
            found.append(_element("td", label, inner, role="cell", class_=empty))
    return _element("tr", *found, role="row")


def _weeks(weeks: list[Week]) -> _Html:
    heads = ("Week from", "Renewals", "Expiries")
    most = max(len(x) for week in weeks for x in (week.renewals, week.expiries)) or 1
    rows = [
        _row(
            heads,
            (
                f"{week.start:%Y-%m-%d}",
                _amount(week.renewals, most, "renewals"),
                _amount(week.expiries, most, "expiries"),
            ),
        )
        for week in weeks
    ]
    return _grid(heads, rows, "How many certificates are due, and how many expire")


def _amount(names: tuple[str, ...], most: int, kind: str) -> _Html:
    """Return a number with its bar and the first names."""
    shown = ", ".join(names[:MAX_NAMES])
    more = len(names) - MAX_NAMES
    bar = _element(
        "svg",
        _element("rect", width=f"{100 * len(names) / most:.1f}", height="8"),
        class_=f"bar {kind}",
        viewBox="0 0 100 8",
        preserveAspectRatio="none",
        aria_hidden="true",
    )
    text = shown + (f" and {more} more" if more > 0 else "")
    who = _element("small", text) if names else None
    return _Html(f"{len(names)} {bar if names else ''}{who or ''}")


def _details(number: int, server: Server, *, is_open: bool) -> _Html:
    title = _element("summary", _verdict(server.grade), f" {server.name}")
    rows: list[_Html] = []
    problems = [f"{item.grade.name}: {item.text}" for item in server.problems]
    taken = [when(server.taken)] if server.taken else []
    ran = [when(server.last_run)] if server.last_run else []
    for label, values in (
        ("Why", problems),
        *server.details,
        ("Last run", ran),
        ("Machine", [server.host]),
        ("Version", [server.version]),
        ("Collected", taken),
        ("File", server.sources),
    ):
        if shown := [_element("dd", value) for value in values if value]:
            rows.append(_element("div", _element("dt", label), *shown))
    heads = ("Port", "Verdict", "Reason")
    ports = None
    if server.seen:
        lines = [_row(heads, (x.endpoint, x.verdict, x.reason)) for x in server.seen]
        ports = _grid(heads, lines, f"Ports of {server.name}")
    # A link to what is inside opens it.
    inner = _element(
        "div", _element("dl", *rows), ports, id=f"server-{number}", tabindex="-1"
    )
    return _element("details", title, inner, open="" if is_open else None)
