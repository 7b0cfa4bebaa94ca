"""Write a report as CSV (RFC 4180), for spreadsheets."""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.render.words import HEADS, cells

if TYPE_CHECKING:
    from letsencrypt_mdaemon.app.fleet import Fleet

_FORMULA = re.compile(r"(?:^|(?<=[;,\t]))(?=[\s\"']*[=+\-@])")
"""The beginning of what a spreadsheet would compute (OWASP, "CSV Injection").

In many countries Excel ends a cell at a semicolon.
"""


def write(fleet: Fleet) -> bytes:
    """Return the table as CSV in UTF-8, with the mark by which Excel recognises it."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(HEADS)
    for server in fleet.servers:
        row = cells(server, fleet.now)._replace(names=" ".join(server.names))
        writer.writerow([_inert(text) for text in row])
    return out.getvalue().encode("utf-8-sig", "backslashreplace")


def _inert(text: str) -> str:
    """Return a text that no spreadsheet computes; a number stays one."""
    if _is_number(text):
        return text
    return _FORMULA.sub("'", text)


def _is_number(text: str) -> bool:
    return text.removeprefix("-").replace(".", "", 1).isdecimal()
