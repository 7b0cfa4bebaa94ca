"""Every command in the pages is one, runs, and prints what stands below it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import click
import pytest

from tests import pages, recordings, screenshot, shown, unrun
from tests.pages import Block, Shown

BLOCKS = [block for page in pages.pages() for block in pages.blocks(page)]
LINES = [line for block in BLOCKS for line in pages.shown(block)]
PLAYED = sorted({line.page for line in LINES if shown.commands(line.page)})
# Stand-ins that are to be replaced by a number, and what is no command.
STAND_INS = {"SERVERS": "300"}
NO_COMMANDS = {"letsencrypt-mdaemon <name> <date> <serial>": "a certificate's name"}


def typed() -> list[tuple[str, str]]:
    """Return every command line of ours, with its page: in blocks and inline."""
    found = [(line.page, line.typed) for line in LINES if line.is_ours]
    found += [
        (page, span)
        for page in pages.pages()
        for span in pages.spans(page)
        if pages.is_command(span) and span not in NO_COMMANDS
    ]
    return sorted(set(found))


@pytest.mark.parametrize(("page", "line"), typed())
def test_the_program_takes_every_command_line(page: str, line: str) -> None:
    assert page
    for stand_in, value in STAND_INS.items():
        if line.endswith(stand_in):
            line = line.removesuffix(stand_in) + value

    pages.parse(line)


def test_a_command_line_that_the_program_would_refuse_is_noticed() -> None:
    for line in ("renew --fore", "schedule instal", f"{pages.NAME} renw", "use ID ID"):
        assert pages.is_command(line)
        with pytest.raises(click.ClickException):
            pages.parse(line)


def test_every_option_in_running_text_is_one() -> None:
    known = pages.options()
    foreign = {
        word
        for page in pages.pages()
        for span in pages.spans(page)
        for word in re.findall(r"(?<![\w-])--?[a-z][\w-]+", span)
        if word not in known
    }

    assert foreign == unrun.OPTIONS_OF_OTHERS.keys()


def test_what_is_not_run_is_listed_and_nothing_else_is() -> None:
    unlisted: list[str] = []
    used: list[unrun.Excepted] = []
    for block in BLOCKS:
        rows = _rows(block)
        for row in rows:
            found = unrun.excepted(block.page, row)
            used += found
            if not found:
                unlisted.append(f"{block.page}: {row}")

    assert unlisted == []
    assert [one for one in unrun.EXCEPTIONS if one not in used] == []


def _rows(block: Block) -> list[str]:
    """Return what must be an exception: what is no command of ours, or no command."""
    if block.language in {"", "text"}:  # not MyST's directives
        return [block.lines[0]]
    lines = list(pages.shown(block))
    return [
        line.typed
        for line in lines
        if not (line.is_ours or line.typed in shown.ECHOES)
        or unrun.excepted(line.page, line.typed)
    ]


def test_no_block_is_made_by_indenting() -> None:
    assert {page: pages.indented(page) for page in pages.pages()} == {
        page: [] for page in pages.pages()
    }


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminal")
@pytest.mark.parametrize("name", recordings.RECORDINGS)
def test_the_recordings_have_the_words_of_the_program(name: str) -> None:
    file = recordings.PICTURES / f"{name}.svg"
    # Where they differ, "tox -e pictures" records it again.
    text = recordings.record(name)

    assert recordings.words_in(file.read_text("utf-8")) == recordings.words(text)


@pytest.mark.parametrize("name", recordings.RECORDINGS)
def test_a_recording_shows_its_text_and_needs_nothing_from_elsewhere(name: str) -> None:
    text = (recordings.PICTURES / f"{name}.svg").read_text("utf-8")
    svg = ET.fromstring(text)  # noqa: S314 - our own file

    told = "".join(svg.findtext(f"{recordings.SVG}desc", "").split())
    parts = [part.text or "" for part in svg.iter(f"{recordings.SVG}text")]
    drawn = "".join("".join(parts).split())
    assert told
    assert told in drawn
    assert not re.search(r"url\((?!#)|href|@import|@font-face|<script", text)
    assert len(text) < 60_000


def test_the_picture_of_the_report_has_the_words_of_the_program(tmp_path: Path) -> None:
    png = screenshot.FILE.read_bytes()

    assert screenshot.words_in(png) == screenshot.words_of(screenshot.report(tmp_path))
    assert len(png) < 120_000


def test_every_picture_is_on_a_page_with_a_text_in_its_place() -> None:
    text = "".join((pages.ROOT / page).read_text("utf-8") for page in pages.pages())
    used = dict(re.findall(r"!\[([^]]*)\]\(pictures/([\w-]+\.\w+)\)", text))
    files = {file.name for file in recordings.PICTURES.iterdir()}

    assert set(used.values()) >= {f"{name}.svg" for name in recordings.RECORDINGS}
    assert screenshot.FILE.name in used.values()
    assert set(used.values()) <= files
    assert all(len(alternative) > 40 for alternative in used)


def test_every_scene_belongs_to_a_command() -> None:
    lines = {(line.page, line.typed) for line in LINES}
    assert shown.SCENES.keys() <= lines


@pytest.mark.skipif(
    sys.platform == "win32", reason="the pages show what is printed on Linux"
)
@pytest.mark.parametrize("page", PLAYED)
def test_the_pages_show_what_the_program_prints(page: str) -> None:
    for ran in shown.play(page):
        assert ran.exit_code == ran.expected, (ran.shown.typed, ran.printed)
        # Where they differ, "python -m tests.shown --write" writes the page anew.
        expected = "\n".join([*ran.shown.output, ""])
        assert ran.is_as_shown, f"{page}: {ran.shown.typed}\n{expected}\n{ran.printed}"


PRINTED = """\
Renewed: mail.example.com, valid until 2027-02-26 (in 89 days)
  certificate  0D8083453DBCA24F2BDFA90C748B48E75CC3517F
Validated in 0.2 s
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [("2027-02-26", "2031-01-01"), ("0D80", "AAAA"), ("0.2 s", "3 s")],
)
def test_what_no_two_runs_have_in_common_may_differ(old: str, new: str) -> None:
    assert shown.agrees(PRINTED.splitlines(), PRINTED.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Renewed", "Replaced"),
        ("89 days", "88 days"),
        ("mail.", "imap."),
        ("  certificate", " certificate"),
        ("Validated in 0.2 s\n", ""),
        ("0D8083", "0D80"),
    ],
)
def test_a_changed_word_is_noticed(old: str, new: str) -> None:
    assert not shown.agrees(PRINTED.splitlines(), PRINTED.replace(old, new))


def test_three_dots_stand_for_the_lines_that_are_left_out() -> None:
    first, *_, last = PRINTED.splitlines()

    assert shown.agrees([first, "...", last], PRINTED)
    assert not shown.agrees([first, last], PRINTED)
    assert not shown.agrees(["...", "Something else"], PRINTED)


def test_what_a_page_leaves_out_stays_out_when_it_is_written_anew() -> None:
    before = ["...", "b 2 s", "...", "e", "f", "..."]

    after = shown.elided(before, "a\nb 3 s\nc\nd\ne\nnew\nf\ng\n")

    assert after == ["...", "b 3 s", "...", "e", "new", "f", "..."]
    assert shown.elided(before, "x\ny\n") == ["x", "y"]
    assert shown.elided(["a"], "a\nb\n") == ["a", "b"]


def test_a_page_is_written_only_where_it_differs() -> None:
    text = "x\n\n  ```console\n  $ a\n  in 2 s\n  $ b\n  old\n  ```\n"
    block = Block("a", 3, "console", "  ", ("$ a", "in 2 s", "$ b", "old"))
    rows = list(pages.shown(block))
    ran = [
        shown.Ran(rows[0], "in 3 s\n", 0, 0),
        shown.Ran(rows[1], "new\nlines\n", 0, 0),
    ]

    assert rows[1] == Shown(block, "b", ("old",), 6)
    assert shown.rewritten(text, ran) == text.replace("old", "new\n  lines")
