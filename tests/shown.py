"""Runs what the pages show, and writes what it prints into them.

    python -m tests.shown [--write] [PAGE ...]

Each page has a server of its own (`tests.stage`), and its commands run in their order.
Set up is that server already, unless the page begins with `setup`. Without --write, the
command shows what differs.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from letsencrypt_mdaemon.app import mail_checkup, mail_policy
from letsencrypt_mdaemon.config.load import FILE_NAME, SECTION
from letsencrypt_mdaemon.policy.mta_sts import Policy
from letsencrypt_mdaemon.sandbox.mdaemon import Fault
from letsencrypt_mdaemon.system.schedule import MARK
from tests import fleets, pages
from tests.laboratory import page as answer_page
from tests.laboratory import web
from tests.pages import ROOT, Shown
from tests.program import PREFIX
from tests.servers import listening
from tests.signed import SignedZone, World
from tests.stage import HOST_NAME, OTHER, Stage, masked, stage
from tests.unrun import excepted

US = "letsencrypt-mdaemon"
ELIDED = "..."
"""A line of an output that stands for any number of lines."""
ECHOES = {"echo $?", "echo %ERRORLEVEL%"}
"""What shows the exit code of the command before."""
NEEDS_NOTHING = {"demo", "--version"}
BY_HAND = "docs/setting-up.md"
"""The page on which nothing is set up before it begins."""
PORTS_80 = ("192.0.2.7:80", "127.0.0.1:80")
DAY = timedelta(days=1)


# What happens before a command, by page and command.


def _person(stage: Stage) -> None:
    stage.types = [f"{HOST_NAME}, {OTHER}", "me@example.com", "y", "", ""]


def _again(stage: Stage) -> None:
    stage.types = ["", "", ""]


def _name_is_gone(stage: Stage) -> None:
    del stage.dns.records[OTHER]
    stage.ca.resolve = lambda name: None if name == OTHER else "127.0.0.1"


def _webmail_breaks(stage: Stage) -> None:
    stage.server.spoil(Fault.DEAD, "webmail")


def _webmail_is_mended(stage: Stage) -> None:
    stage.server.faults.clear()
    said = stage.run(f"{US} activate")
    assert stage.exit_code == 0, said


def _ours_is_in_place(stage: Stage) -> None:
    stage.run(f"{US} script install")


def _collected(stage: Stage) -> None:
    now = datetime.now(UTC)
    folder = stage.home / "collected"
    folder.mkdir()
    a = fleets.status("mail.a.example", now=now)
    trouble = "no longer served at imaps:993 (timed out)"
    b = fleets.status(
        "mail.b.example", days=3, now=now, state="CRITICAL", problem=trouble
    )
    fleets.write(folder, "mail.a.json", a)
    fleets.write(folder, "mail.b.json", b)
    (folder / "mail.c.json").write_text("Permission denied")


def _signed(stage: Stage, *more: str) -> None:
    """Let DNS have what senders look up, signed; only the reports are missing."""
    now = datetime.now(UTC)
    records = ["mail 60 IN A 192.0.2.7", "@ 60 IN MX 10 mail"]
    records += ['_mta-sts 60 IN TXT "v=STSv1; id=1"', "mta-sts 60 IN A 192.0.2.9"]
    records += more
    zones = [SignedZone("."), SignedZone("com"), SignedZone("example.com", records)]
    world = World(*zones)
    for zone in zones:
        zone.since, zone.until = now - DAY, now + 30 * DAY
    world.refresh()
    policy = Policy("enforce", (HOST_NAME,), 604800)
    stage.patch.setattr(
        mail_policy, "validator", lambda _, at=None: world.validator(at=at or now)
    )
    stage.patch.setattr(mail_checkup, "fetch", lambda *_: policy)


def _next_key_is_published(stage: Stage) -> None:
    """Use `key-policy = next`; let DNS have the records of both keys since now."""
    stage.run(f"{US} setup --yes --key-policy next")
    records = re.findall(r"IN (TLSA .*)", stage.run(f"{US} status"))
    _signed(stage, *(f"_25._tcp.mail 86400 IN {record}" for record in records))
    stage.run(f"{US} renew")


def _the_schedule_ran(stage: Stage) -> None:
    said = stage.run(f"{US} renew {MARK} --delay 0")
    assert stage.exit_code == 0, said


def _another_answers(stage: Stage) -> None:
    """Let a web server that knows nothing of MDaemon answer at port 80."""
    answer = answer_page(b"", "404 Not Found", "Server: nginx")
    port = stage.exits.enter_context(listening(web(lambda *_: answer)))
    stage.scenery.ports.update(dict.fromkeys(PORTS_80, port))


def _webmail_answers(stage: Stage) -> None:
    stage.scenery.ports.update(dict.fromkeys(PORTS_80, stage.server.http_port))


def _config_is_written(stage: Stage) -> None:
    """Write the config file of the page; the rest is what this server needs."""
    settings = {f"{name.removeprefix(PREFIX)}": v for name, v in stage.environ.items()}
    settings |= {"ALTERNATE_HOST_NAMES": OTHER, "AGREE_TOS": "yes"}
    settings["TO"] = "postmaster@example.com"
    rows = (f"{name.lower().replace('_', '-')} = {v}\n" for name, v in settings.items())
    file = stage.layout.letsencrypt / FILE_NAME
    file.touch(mode=0o600)
    file.write_text("".join([f"[{SECTION}]\n", *rows]), "utf-8")


class Scene(NamedTuple):
    """What happens before a command, and how it ends."""

    before: Callable[[Stage], object] = lambda _: None
    ends: int = 0


SCENES = {
    ("README.md", f"{US} setup"): (Scene(_person),),
    ("docs/keys-and-dane.md", f"{US} status"): (Scene(_next_key_is_published),),
    ("docs/mail-policy.md", f"{US} doctor --mail --mail-domains example.com"): (
        Scene(_signed),
    ),
    (
        "docs/report.md",
        f"{US} report --from collected --html report.html --csv report.csv",
    ): (Scene(_collected, ends=2),),
    ("docs/report.md", f"{US} report --from collected"): (Scene(ends=2),),
    ("docs/monitoring.md", f"{US} check"): (Scene(_the_schedule_ran),),
    ("docs/port-80.md", f"{US} doctor"): (
        Scene(_another_answers),
        Scene(_webmail_answers),
    ),
    ("docs/setting-up.md", f"{US} doctor"): (Scene(_config_is_written),),
    ("docs/usage.md", f"{US} doctor"): (Scene(_name_is_gone, ends=4),),
    ("docs/usage.md", f"{US} renew --force"): (
        Scene(_webmail_breaks, ends=5),
        Scene(_webmail_is_mended, ends=4),
    ),
    ("docs/windows.md", f"{US} setup"): (Scene(_person), Scene(_again)),
    ("docs/windows.md", f"{US} script remove"): (Scene(_ours_is_in_place),),
}
"""By page and command, in the order of the page; else nothing happens, all is good."""


def commands(page: str) -> list[Shown]:
    """Return the command lines of a page that are run, and looks at exit codes."""
    found = [line for block in pages.blocks(page) for line in pages.shown(block)]
    return [
        line
        for line in found
        if not excepted(page, line.typed) and (line.is_ours or line.typed in ECHOES)
    ]


class Ran(NamedTuple):
    """A command line of a page, what it printed, and whether it ended as it should."""

    shown: Shown
    printed: str
    exit_code: int
    expected: int

    @property
    def is_as_shown(self) -> bool:
        """Whether the page shows what was printed; where it shows nothing, it is."""
        if not self.shown.block.is_dialogue:
            return True
        return agrees(self.shown.output, self.printed)


def agrees(shown: Sequence[str], printed: str) -> bool:
    """Whether a page shows what was printed, but for the masks and what is left out."""
    lines = masked("\n".join([*shown, ""])).splitlines()
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == ELIDED else re.escape(line) + "\n"
        for line in lines
    )
    real = "".join(f"{line.rstrip()}\n" for line in masked(printed).splitlines())
    return re.fullmatch(pattern, real) is not None


def elided(shown: Sequence[str], printed: str) -> list[str]:
    """Return what was printed without what the page leaves out, where that is found."""
    new = printed.splitlines()
    for number, line in enumerate(shown):
        if line.strip() != ELIDED:
            continue
        lines = [masked(one) for one in new]
        before, after = shown[:number], shown[number + 1 :]
        start = 0 if not before else _place(lines, before[-1], 0) + 1
        end = len(lines) if not after else _place(lines, after[0], start)
        if (start or not before) and end >= start:
            new[start:end] = [ELIDED]
    return new


def _place(lines: Sequence[str], line: str, start: int) -> int:
    """Return where a line stands; -1 if it is not there."""
    wanted = masked(line)
    found = (n for n, one in enumerate(lines) if n >= start and one == wanted)
    return next(found, -1)


def play(page: str) -> Iterator[Ran]:
    """Run the command lines of a page."""
    lines = commands(page)
    if not lines:
        return
    with tempfile.TemporaryDirectory() as folder, stage(Path(folder)) as scenery:
        count: Counter[str] = Counter()
        verbs = [pages.words(line.typed)[1] for line in lines]
        first = next((x for x in verbs if x not in NEEDS_NOTHING), "")
        if first != "setup" and page != BY_HAND:
            scenery.run(f"{US} setup --yes --no-rehearsal")
        for line in lines:
            if line.typed in ECHOES:
                yield Ran(line, f"{scenery.exit_code}\n", 0, 0)
                continue
            scenes = SCENES.get((page, line.typed), (Scene(),))
            scene = scenes[min(count[line.typed], len(scenes) - 1)]
            count[line.typed] += 1
            scene.before(scenery)
            printed = scenery.run(line.typed)
            scenery.types = None
            yield Ran(line, printed.rstrip() + "\n", scenery.exit_code, scene.ends)


def rewritten(text: str, ran: Sequence[Ran]) -> str:
    """Return a page with what was printed, where it shows something else."""
    lines = text.splitlines()
    for one in reversed(ran):
        if not one.is_as_shown:
            indent, start = one.shown.block.indent, one.shown.start
            left = elided(one.shown.output, one.printed)
            new = [f"{indent}{line}".rstrip() for line in left]
            lines[start : start + len(one.shown.output)] = new
    return "\n".join([*lines, ""])


def main() -> None:
    """Show or write what differs."""
    parser = argparse.ArgumentParser(description="Run what the pages show.")
    parser.add_argument("--write", action="store_true", help="Write it into the pages.")
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="Only these pages.")
    arguments = parser.parse_args()
    for page in arguments.pages or pages.pages():
        file = ROOT / page
        ran = list(play(page))
        for one in ran:
            if one.exit_code != one.expected:
                said = f"{page}: {one.shown.typed} ended with {one.exit_code}\n"
                sys.stdout.write(said + one.printed)
        before = file.read_text("utf-8")
        after = rewritten(before, ran)
        both = before.splitlines(keepends=True), after.splitlines(keepends=True)
        sys.stdout.writelines(difflib.unified_diff(*both, page, page))
        if arguments.write and after != before:
            file.write_text(after, "utf-8")


if __name__ == "__main__":
    main()
