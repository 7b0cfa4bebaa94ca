"""Where tests for Windows run: on Windows, and beside it.

`tox -e wine` runs both: what is in this folder with Python for Windows, and what is in
`across` on Linux, where it drives the machine that WINDOWS_MACHINE names.
"""

from __future__ import annotations

import os
import sys

collect_ignore_glob = []
if sys.platform != "win32":
    collect_ignore_glob.append("test_*.py")
if sys.platform == "win32" or "WINDOWS_MACHINE" not in os.environ:
    collect_ignore_glob.append("across")
