"""The program, where two parts of `setup` cannot succeed, so that others stand in.

Wine's Task Scheduler shows no task, and the Python of these tests is in no folder that
SYSTEM could trust. Everything else is as it is.
"""

from __future__ import annotations

from letsencrypt_mdaemon.app import selftest, trust
from letsencrypt_mdaemon.cli.main import main

selftest.scheduler = lambda tasks, **_: f"{tasks.name}: not under Wine"
trust.program_doubts = lambda *_: []

if __name__ == "__main__":
    main()
