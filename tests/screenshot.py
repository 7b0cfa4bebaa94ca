"""Takes the picture of a report on eight servers: docs/pictures/report.png.

    python -m tests.screenshot FOLDER

Chromium is unpacked into FOLDER. The picture has the report's words inside, as text: it
is taken again only if they are no longer those of the program.
"""

from __future__ import annotations

import re
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from tests import fleets
from tests.program import here
from tests.recordings import PICTURES, words

FILE = PICTURES / "report.png"
SIZE: Any = {"width": 1200, "height": 650}
KEYWORD = b"Description"
_HEAD = 8  # of a PNG, before the first chunk (PNG, 5.2)


def report(folder: Path) -> Path:
    """Make a report on eight servers: good ones, and one of every trouble."""
    now = datetime.now(UTC)
    collected = folder / "collected"
    collected.mkdir()
    gone = "no longer served at imaps:993 (timed out)"
    unproven = "a port could not be proven at smtp:25"
    rows: dict[str, dict[str, Any]] = {
        "berlin": {"days": 61},
        "bern": {"days": 88},
        "graz": {"days": 34},
        "linz": {"days": 74},
        "oslo": {"days": 4, "state": "CRITICAL", "problem": gone},
        "riga": {"days": 40, "state": "WARNING", "problem": unproven},
        "turin": {"days": 55, "state": "WARNING", "problem": "no renewal is scheduled"},
    }
    for city, row in rows.items():
        name = f"mail.{city}.example"
        fleets.write(collected, f"{name}.json", fleets.status(name, now=now, **row))
    (collected / "mail.wien.example.json").write_text("Permission denied")
    file = folder / "report.html"
    ran = here(["report", "--from", str(collected), "--html", str(file)])
    assert ran.exit_code == 2, ran.output
    return file


class _Text(HTMLParser):
    """What a page shows, without its style."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.is_style = False

    def handle_starttag(self, tag: str, _: object) -> None:
        """Notice where the style begins."""
        self.is_style = tag == "style"

    def handle_endtag(self, _: str) -> None:
        """Notice where it ends."""
        self.is_style = False

    def handle_data(self, data: str) -> None:
        """Take a text."""
        if not self.is_style:
            self.parts.append(data)


def words_of(file: Path) -> str:
    """Return the words of a report, masked."""
    parser = _Text()
    parser.feed(file.read_text("utf-8"))
    return words(re.sub(r"[^ -~\n]", "?", " ".join(parser.parts)))


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the type and the content of each chunk (PNG, 5.3)."""
    at = _HEAD
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        at += length + 12


def words_in(png: bytes) -> str:
    """Return the words inside a picture (PNG, 11.3.3.2)."""
    texts = (data.partition(b"\0") for kind, data in chunks(png) if kind == b"tEXt")
    found = {keyword: text for keyword, _, text in texts}
    return words(found.get(KEYWORD, b"").decode("ascii"))


def with_words(png: bytes, text: str) -> bytes:
    """Put words inside a picture, behind its first chunk."""
    data = KEYWORD + b"\0" + text.encode("ascii")
    kind = b"tEXt"
    checksum = zlib.crc32(kind + data)
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
    first = _HEAD + 12 + 13  # IHDR has 13 bytes (PNG, 11.2.1)
    return png[:first] + chunk + png[first:]


def main() -> None:
    """Take the picture, if its words changed."""
    from tests.chromium import chromium  # noqa: PLC0415 - only "tox -e pictures" has it

    with tempfile.TemporaryDirectory() as folder:
        page = report(Path(folder))
        text = words_of(page)
        if FILE.exists() and words_in(FILE.read_bytes()) == text:
            sys.stdout.write(f"{FILE}: unchanged\n")
            return
        with chromium(Path(sys.argv[1])) as browser:
            window = browser.new_page(viewport=SIZE, color_scheme="light")
            window.goto(page.as_uri())
            FILE.write_bytes(with_words(window.screenshot(), text))
    sys.stdout.write(f"{FILE}: written\n")


if __name__ == "__main__":
    main()
