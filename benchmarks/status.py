"""Measure what a folder with very many files beside `Users` costs `status`.

Each pair of runs differs in that folder alone: it is moved out of MDaemon's folder and
back. `discover`, which has to search every folder, shows that the folder is there.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from tests.program import at, beside_sandbox, environment

if TYPE_CHECKING:
    from tests.program import Program

FILES, FOLDERS, PAIRS = 1_000_000, 100, 5


def main(arguments: list[str]) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks status", description=__doc__
    )
    parser.add_argument("--files", type=int, default=FILES, help=f"[{FILES}]")
    files = parser.parse_args(arguments).files
    with TemporaryDirectory(prefix="status-") as name:
        folder = Path(name)
        mailbox = folder / "Archive"
        for number in range(FOLDERS):
            (mailbox / str(number)).mkdir(parents=True)
            for message in range(files // FOLDERS):
                (mailbox / str(number) / f"md{message:08}.msg").touch()
        with (
            beside_sandbox(folder / "MDaemon", tls=True) as program,
            CertificateAuthority(
                folder / "ca", http_port=program.server.http_port
            ) as ca,
        ):
            program.options += at(ca.directory_url, ca.ca_bundle)
            program.server.reloads["RELOADCACHE.SEM"] = ("mail", "webmail", "admin")
            _cpu_seconds(program, "renew")
            rows = {
                command: _pairs(program, command, mailbox)
                for command in ("status", "discover")
            }
    say = sys.stdout.write
    say(f"Load {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs.\n\n")
    say(
        f"| CPU seconds, medians of {PAIRS} pairs | nothing there | {files:,} files |\n"
    )
    say("| --- | --- | --- |\n")
    for command, (without, beside) in rows.items():
        say(f"| `{command}` | {without:.2f} | {beside:.2f} |\n")


def _pairs(program: Program, command: str, mailbox: Path) -> tuple[float, float]:
    """Return the CPU seconds of a command without and with the folder."""
    inside = program.layout.folder / mailbox.name
    without, beside = [], []
    for _ in range(PAIRS):
        without.append(_cpu_seconds(program, command))
        mailbox.rename(inside)
        beside.append(_cpu_seconds(program, command))
        inside.rename(mailbox)
    return median(without), median(beside)


def _cpu_seconds(program: Program, command: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        program.command(command),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(),
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
