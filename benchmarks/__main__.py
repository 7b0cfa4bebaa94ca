"""Measure whole runs of ACME clients side by side, and print a table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from itertools import count as counting
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benchmarks import fleet, ladder, status
from benchmarks.clients import CLIENTS, Scene, environment
from benchmarks.surroundings import far_away, scene

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
BUDGET_SECONDS = 40.0
"""A client whose runs for one number of names took longer is not run again."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One run.

    Args:
        latency: Seconds that a round trip to the CA takes longer.
        names: How many.
        wall: Seconds.
        cpu: Seconds, of the client and its children.
        memory: MiB, of its largest process.
        requests: How many the CA saw.
        failed: Why it does not count; "" if it does.
    """

    client: str
    latency: float
    names: int
    wall: float
    cpu: float
    memory: float
    requests: int
    failed: str


class Stopwatch:
    """Runs clients.

    Args:
        log: Where the CA writes a line for each request.
        patience: Seconds that a run may take.
    """

    def __init__(self, scene: Scene, log: Path, patience: float) -> None:
        self.scene = scene
        self.log = log
        self.patience = patience
        self.serial = counting()

    def run(self, client: str, latency: float, names: int) -> Sample:
        """Run a client once, for names that nobody asked for before."""
        serial = next(self.serial)
        fresh = [f"n{number}.r{serial}.example.test" for number in range(names)]
        command = CLIENTS[client](self.scene, fresh)
        figures = self.scene.folder / "figures.json"
        os.sync()  # Else a client that is careful would wait for what others wrote.
        before = self._requests()
        done = subprocess.run(
            [
                *(sys.executable, "-I", "-S", str(HERE / "measure.py")),
                *(str(figures), str(self.patience), *command),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment(self.scene),
            check=True,
        )
        found = json.loads(figures.read_text("ascii"))
        code = found.pop("exit_code")
        said = (done.stderr + done.stdout).decode("utf-8", "replace").strip()
        failed = f"exit code {code}: {said[-500:]}" if code else ""
        if found["wall"] > self.patience:
            failed = f"> {self.patience:g}"
        requests = self._requests() - before
        return Sample(client, latency, names, **found, requests=requests, failed=failed)

    def _requests(self) -> int:
        return self.log.read_bytes().count(b"-> calling handler()")


def measure(
    stopwatch: Stopwatch, latency: float, chosen: argparse.Namespace
) -> list[Sample]:
    """Run all clients in turn, again and again."""
    samples: list[Sample] = []
    left = []
    for client in chosen.clients:
        # Makes the account, and Python's compiled files.
        first = stopwatch.run(client, latency, 1)
        if first.failed:
            samples.append(first)
            _say(f"{client} does not run: {first.failed}")
        else:
            left.append(client)
    for names in chosen.names:
        spent = dict.fromkeys(left, 0.0)
        for _ in range(chosen.runs):
            for client in [name for name in left if spent[name] < BUDGET_SECONDS]:
                sample = stopwatch.run(client, latency, names)
                samples.append(sample)
                spent[client] += sample.wall
                _say(
                    f"{latency * 1000:3.0f} ms  {names:3} names  {client:20} "
                    f"{sample.wall:7.2f} s  {sample.failed}"
                )
                if sample.wall > stopwatch.patience:
                    left.remove(client)
    return samples


def table(samples: Sequence[Sample], runs: int) -> str:
    """Return the medians as Markdown; a column for each number of names."""
    sizes = sorted({sample.names for sample in samples})
    clients = dict.fromkeys(sample.client for sample in samples)
    head = ["client", *(f"{n} name{'s' * (n > 1)}" for n in sizes), "MiB", "requests"]
    lines = [_row(head), _row(["---"] * len(head))]
    for client in clients:
        mine = [sample for sample in samples if sample.client == client]
        groups = [[sample for sample in mine if sample.names == n] for n in sizes]
        memory = " / ".join(_middle(group, "memory", "{:.0f}") for group in groups)
        requests = " / ".join(_middle(group, "requests", "{:.0f}") for group in groups)
        times = [_times(group, runs) for group in groups]
        lines.append(_row([client, *times, memory, requests]))
    return "\n".join(lines)


def _times(group: Sequence[Sample], runs: int) -> str:
    if not group:
        return "–"
    good = [sample for sample in group if not sample.failed]
    failed = [sample.failed for sample in group if sample.failed]
    if not good:
        return failed[0] if failed[0].startswith(">") else "failed"
    text = f"**{_middle(good, 'wall', '{:.2f}')}** ({_middle(good, 'cpu', '{:.2f}')})"
    if failed:
        text += f", {len(failed)} of {len(group)} failed"
    return text if len(group) == runs else f"{text}, {len(group)} of {runs} runs"


def _middle(group: Sequence[Sample], figure: str, form: str) -> str:
    values = [getattr(sample, figure) for sample in group if not sample.failed]
    return form.format(median(values)) if values else "–"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _machine() -> str:
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    return f"{system}, Python {platform.python_version()}"


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _clients(text: str) -> list[str]:
    chosen = text.split(",")
    if unknown := set(chosen) - CLIENTS.keys():
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: unknown")
    return chosen


def main() -> None:
    """Measure, and print a table for each latency."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--runs", type=int, default=5, help="of each client; default %(default)s")
    add("--names", type=_numbers, default=[1, 5, 25, 100], help="default 1,5,25,100")
    add("--latencies", type=_numbers, default=[0, 50], help="in ms; default 0,50")
    add("--clients", type=_clients, default=[*CLIENTS], help="default: all")
    add("--patience", type=float, default=60.0, help="seconds for a run; default 60")
    add("--cache", type=Path, default=Path("build/benchmarks"), help="for programs")
    add("--json", type=Path, help="a file for every single figure")
    chosen = parser.parse_args()
    samples: list[Sample] = []
    cache = chosen.cache.absolute()
    cache.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(prefix="benchmarks-") as name,
        scene(cache, Path(name)) as (near, ca),
    ):
        stopwatch = Stopwatch(near, ca.log, chosen.patience)
        for latency in chosen.latencies:
            with far_away(near.directory_url, latency / 1000) as url:
                folder = near.folder / str(latency)
                folder.mkdir()
                stopwatch.scene = replace(near, directory_url=url, folder=folder)
                load = os.getloadavg()[0]
                found = measure(stopwatch, latency / 1000, chosen)
                samples += found
            sys.stdout.write(
                f"\n{latency} ms added to each round trip to the CA. {_machine()}; "
                f"load {load:.1f} before, {os.getloadavg()[0]:.1f} after. Medians of "
                f"{chosen.runs} runs, seconds: **wall** (cpu).\n\n"
                f"{table(found, chosen.runs)}\n"
            )
            sys.stdout.flush()
    if chosen.json:
        text = json.dumps([asdict(sample) for sample in samples], indent=1)
        chosen.json.write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["ladder"]:
        ladder.main(sys.argv[2:])
    elif sys.argv[1:2] == ["status"]:
        status.main(sys.argv[2:])
    elif sys.argv[1:2] == ["fleet"]:
        fleet.main(sys.argv[2:])
    else:
        main()
