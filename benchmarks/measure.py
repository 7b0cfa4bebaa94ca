"""Run one command, and print what it cost: run as a script, by a bare Python.

A program's peak memory includes that of the process that started it, as it was then
(Linux keeps it over exec), so it is started by one that is smaller than all of them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import NoReturn


def main() -> NoReturn:
    """Run the command; its output goes where ours goes, the figures to a file.

    Arguments: the file for the figures, seconds that it may take, the command.
    """
    file, patience, *command = sys.argv[1:]
    started = time.monotonic()
    child = os.posix_spawnp(command[0], command, os.environ, setsid=True)

    def end(*_: object) -> None:
        os.killpg(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, float(patience))
    try:
        # Of the program and of all that it started and waited for.
        _, status, usage = os.wait4(child, 0)
    except KeyboardInterrupt:
        end()
        raise
    wall = time.monotonic() - started
    figures = {
        "exit_code": os.waitstatus_to_exitcode(status),
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "memory": usage.ru_maxrss / 1024,
    }
    with open(file, "w", encoding="ascii") as stream:  # noqa: PTH123 - see above
        json.dump(figures, stream)
    sys.exit(0)


if __name__ == "__main__":
    main()
