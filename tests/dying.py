"""Run the program, and die as by `kill -9` before a change of a file.

python -m tests.dying FOLDER PATTERN N ARGUMENT…

It dies before the n-th change in the folder of something whose path, with forward
slashes, has the pattern in it.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import sys
from pathlib import Path

from letsencrypt_mdaemon.cli import main as cli_main
from tests.fakes import watched

KILL: int = getattr(signal, "SIGKILL", signal.SIGTERM)
"""On Windows the other one ends a process just as hard."""


def main() -> None:
    """Run the program."""
    folder, pattern, number, *sys.argv[1:] = sys.argv[1:]
    count = itertools.count(1)

    def die(path: Path) -> None:
        if re.search(pattern, path.as_posix()) and next(count) == int(number):
            os.kill(os.getpid(), KILL)

    with watched(Path(folder), die):
        cli_main.main()


if __name__ == "__main__":
    main()
