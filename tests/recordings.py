"""Records `setup`, `renew` and `verify` at a terminal, as the pictures of the pages.

    python -m tests.recordings

The real program runs in a pseudo-terminal, beside a small MDaemon (`tests.stage`). A
picture is written only if its words are no longer those of the program, so that a run
changes nothing else.
"""

from __future__ import annotations

import html
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

from tests.limits import HANG_SECONDS
from tests.pages import ROOT
from tests.program import unmeasured
from tests.stage import HOST_NAME, OTHER, Stage, masked, stage

PICTURES = ROOT / "docs" / "pictures"
COLUMNS = 100
SVG = "{http://www.w3.org/2000/svg}"
DAY = timedelta(days=1)


class Recording(NamedTuple):
    """A command, the answers to its questions, and what happened before."""

    words: str
    before: Callable[[Stage], object]
    answers: tuple[str, ...] = ()


def _set_up(stage: Stage) -> None:
    said = stage.run("letsencrypt-mdaemon setup --yes --to me@example.com")
    assert stage.exit_code == 0, said


def _is_due(stage: Stage) -> None:
    """Let less than a third of the lifetime of the certificate in use be left."""
    stage.ca.clock = lambda: datetime.now(UTC) - 63 * DAY
    _set_up(stage)
    stage.ca.clock = lambda: datetime.now(UTC)


RECORDINGS = {
    "setup": Recording(
        "setup",
        lambda _: None,
        (f"{HOST_NAME}, {OTHER}", "me@example.com", "y", "", ""),
    ),
    "renew": Recording("renew", _is_due),
    "verify": Recording("verify", _set_up),
}


def record(name: str) -> str:
    """Run a command at a terminal; return what that shows, with escapes of colours."""
    import pexpect  # noqa: PLC0415 - not on Windows

    recording = RECORDINGS[name]
    with tempfile.TemporaryDirectory() as folder, stage(Path(folder)) as scenery:
        recording.before(scenery)
        environ = {**unmeasured(), **scenery.environ, "TERM": "xterm-256color"}
        environ["COLUMNS"] = str(COLUMNS)
        environ.pop("NO_COLOR", None)
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), *sys.path]))
        shown = json.dumps(asdict(scenery.scenery))
        terminal = pexpect.spawn(
            sys.executable,
            ["-m", "tests.performer", shown, *recording.words.split()],
            cwd=str(scenery.home),
            env=environ,
            encoding="utf-8",
            dimensions=(50, COLUMNS),
            timeout=HANG_SECONDS,
        )
        terminal.logfile_read = read = StringIO()
        for answer in recording.answers:
            terminal.expect(r"[\])]: $|\?.*: $")
            terminal.sendline(answer)
        terminal.expect(pexpect.EOF)
        terminal.close()
        output = read.getvalue()
        assert terminal.exitstatus == 0, output
        lines = [
            # What follows a carriage return replaces what was there.
            line.rstrip("\r").rpartition("\r")[2].replace("\x1b[K", "")
            for line in output.split("\n")
        ]
        said = scenery.told("\n".join(lines)).strip("\n")
    return f"C:\\>letsencrypt-mdaemon {recording.words}\n{said}\n"


def plain(text: str) -> str:
    """Return a recording without its colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def words(text: str) -> str:
    """Return the words of a recording, masked, whatever the width of the terminal."""
    return masked(" ".join(plain(text).split()))


def words_in(picture: str) -> str:
    """Return the words of a picture: it has them as text for who does not see it."""
    return words(ET.fromstring(picture).findtext(f"{SVG}desc", ""))  # noqa: S314 - ours


def picture(name: str, text: str) -> str:
    """Return a recording as SVG, without fonts from elsewhere."""
    from rich.console import Console  # noqa: PLC0415 - only "tox -e pictures" has it
    from rich.text import Text  # noqa: PLC0415

    console = Console(
        record=True, width=COLUMNS, file=StringIO(), force_terminal=True, no_color=False
    )
    for line in text.splitlines():
        whole = Text.from_ansi(line)
        # A terminal breaks a long line anywhere.
        for part in whole.divide(range(COLUMNS, len(whole), COLUMNS)):
            console.print(part, soft_wrap=True)
    svg = console.export_svg(title="Command Prompt", unique_id=f"recording-{name}")
    svg = re.sub(r"(?s)@font-face \{.*?\}\s*", "", svg)
    fonts = "Consolas, Menlo, 'DejaVu Sans Mono', 'Liberation Mono', monospace"
    svg = svg.replace("font-family: Fira Code, monospace", f"font-family: {fonts}")
    title = f"letsencrypt-mdaemon {RECORDINGS[name].words}"
    told = f"<title>{title}</title>\n<desc>{html.escape(plain(text))}</desc>\n"
    head, end, rest = svg.partition(">\n")
    svg = f"{head}{end}{told}{rest}"
    return re.sub(r"(?m)[ \t]+$", "", svg).rstrip() + "\n"


def main() -> None:
    """Write the pictures whose words are no longer those of the program."""
    PICTURES.mkdir(exist_ok=True)
    for name in RECORDINGS:
        file = PICTURES / f"{name}.svg"
        text = record(name)
        is_new = not file.exists() or words_in(file.read_text("utf-8")) != words(text)
        if is_new:
            file.write_text(picture(name, text), "utf-8")
        sys.stdout.write(f"{file}: {'written' if is_new else 'unchanged'}\n")


if __name__ == "__main__":
    main()
