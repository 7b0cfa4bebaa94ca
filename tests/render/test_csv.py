"""The report as CSV: what a spreadsheet opens, and does not compute."""

from __future__ import annotations

import csv
import io

import pytest

from letsencrypt_mdaemon.app import fleet
from letsencrypt_mdaemon.app.collected import read
from letsencrypt_mdaemon.render import csv as table
from tests.fleets import NOW, hostile, status


def rows(*documents: object, delimiter: str = ",") -> list[list[str]]:
    servers = [read(document, "a.json", NOW) for document in documents]
    text = table.write(fleet.of(servers, NOW)).decode("utf-8-sig")
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))


def test_a_row_has_all_names_and_numbers_stay_numbers() -> None:
    heads, row = rows(status("mail.a.test", days=-1.5))

    found = dict(zip(heads, row, strict=True))
    assert found["Names"] == "mail.a.test imap.mail.a.test"
    assert found["Verdict"] == "CRITICAL"
    assert found["Days"] == "-2"


FORMULAS = [
    *("=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", " =1+1", '"=1+1', "'=1+1"),
    *("x;=1+1", "x; =1+1", 'x;"=1+1"', "x,=1+1", "\t=1+1", "\r\n=1+1", "\n=1+1"),
]


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula_wherever_a_spreadsheet_ends_it(
    text: str, delimiter: str
) -> None:
    for row in rows(hostile(text), delimiter=delimiter):
        for cell in row:
            is_number = cell.removeprefix("-").isdecimal()
            assert (
                is_number
                or cell.strip(" \t\"'\r\n")[:1] not in set("=+-@")
                or (cell.startswith("'"))
            ), cell
