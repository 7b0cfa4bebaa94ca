"""Fuzz one target: `python -m fuzz.one MODULE NAME FOLDER`, and libFuzzer's options."""

from __future__ import annotations

import importlib
import logging
import sys
import time
from typing import TYPE_CHECKING

import atheris  # type: ignore[import-untyped] # it has no stubs

if TYPE_CHECKING:
    from collections.abc import Callable

LARGE_BYTES = 1 << 16
LARGE_SECONDS = 5.0
"""Of the processor: what takes longer does not grow in proportion to its input."""


def also_large(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Return a target that also repeats inputs to large ones, a tenth of the time."""
    due = 0.0

    def tried(data: bytes) -> None:
        nonlocal due
        run(data)
        start = time.process_time()
        if data and start >= due:
            run(data * (LARGE_BYTES // len(data)))
            seconds = time.process_time() - start
            if seconds > LARGE_SECONDS:
                raise RuntimeError(f"repeated to {LARGE_BYTES} bytes: {seconds:.1f} s")
            due = start + seconds * 10

    return tried


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    module, name = sys.argv.pop(1), sys.argv.pop(1)
    atheris.enabled_hooks.add("str")
    if module == "texts":
        # The feedback learns what regular expressions look for. But it fails for those
        # of bytes, and for positions in a text, which others' modules have.
        importlib.import_module("cryptography.hazmat.primitives.serialization")
        importlib.import_module("json")
        atheris.enabled_hooks.add("RegEx")
    with atheris.instrument_imports(include=["letsencrypt_mdaemon"]):
        run, _ = importlib.import_module(f"fuzz.{module}").TARGETS[name]
    logging.disable()
    atheris.Setup(sys.argv, also_large(run))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
