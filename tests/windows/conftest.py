"""Tests that only Python for Windows can run; elsewhere `tox -e wine` runs them."""

from __future__ import annotations

import sys

collect_ignore_glob = [] if sys.platform == "win32" else ["test_*.py"]
