"""Fuzz targets, two at a time, and show how it went.

python -m fuzz [--seconds N] [NAME…]

A finding is an exception that a function does not document, an input that takes more
than some seconds, or memory that grows beyond a limit. The exit code is 1 if there are
any; each input is kept, and its path is shown. Inputs that reached new code are kept as
well, for the next time.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from fuzz import network, texts

MODULES = {
    **dict.fromkeys(texts.TARGETS, "texts"),
    **dict.fromkeys(network.TARGETS, "network"),
}
SEEDS = {name: seeds for name, (_, seeds) in (texts.TARGETS | network.TARGETS).items()}
AT_ONCE = 2
MAX_INPUT_BYTES = 8192
MAX_INPUT_SECONDS = 30
"""For one input, however busy the machine is; see also `fuzz.one`."""
MAX_MEMORY_MB = 1024


class Outcome(NamedTuple):
    """How fuzzing a target ended.

    Args:
        findings: The inputs that led to one.
        said: What the fuzzer said last.
    """

    name: str
    seconds: float
    executions: int
    kept: int
    findings: list[Path]
    said: str


def fuzz(name: str, folder: Path, seconds: int) -> Outcome:
    """Fuzz a target; a finding ends it early."""
    corpus, findings = folder / "corpus" / name, folder / "findings" / name
    for path in (corpus, findings):
        path.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS[name]:
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    before, start = set(findings.iterdir()), time.monotonic()
    done = subprocess.run(
        (
            *(sys.executable, "-m", "fuzz.one", MODULES[name], name, str(corpus)),
            *(f"-max_total_time={seconds}", f"-max_len={MAX_INPUT_BYTES}"),
            "-len_control=0",
            *(f"-timeout={MAX_INPUT_SECONDS}", f"-rss_limit_mb={MAX_MEMORY_MB}"),
            *("-print_final_stats=1", f"-artifact_prefix={findings}/"),
        ),
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    counted = re.search(r"number_of_executed_units: *(\d+)", done.stdout)
    found = sorted(set(findings.iterdir()) - before)
    if not counted or (done.returncode and not found):
        sys.exit(f"{name} did not run:\n{done.stdout[-5000:]}")
    return Outcome(
        name=name,
        seconds=time.monotonic() - start,
        executions=int(counted[1]),
        kept=len(list(corpus.iterdir())),
        findings=found,
        said=done.stdout[-5000:] if found else "",
    )


def main() -> int:
    """Return 1 if there are findings."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODULES))
    parser.add_argument("--seconds", type=int, default=20, help="for each target")
    default = Path(tempfile.gettempdir()) / "letsencrypt-mdaemon-fuzz"
    folder = Path(os.environ.get("FUZZ_FOLDER", default))
    given = parser.parse_args()
    if unknown := set(given.names) - set(MODULES):
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(MODULES)}")
    print(
        f"{'target':10} {'seconds':>8} {'executions':>11} {'corpus':>7} {'findings':>9}"
    )
    bad = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for one in pool.map(
            lambda name: fuzz(name, folder, given.seconds), given.names or MODULES
        ):
            row = f"{one.name:10} {one.seconds:8.0f} {one.executions:11,}"
            print(f"{row} {one.kept:7} {len(one.findings):9}", flush=True)
            bad += [one] if one.findings else []
    for one in bad:
        print(f"\n{one.name}: {', '.join(map(str, one.findings))}\n{one.said}")
    return 1 if bad else 0


if __name__ == "__main__":
    logging.disable()
    sys.exit(main())
