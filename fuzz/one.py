"""Fuzz one target: `python -m fuzz.one MODULE NAME FOLDER`, and libFuzzer's options."""

from __future__ import annotations

import importlib
import sys

import atheris  # type: ignore[import-untyped] # it has no stubs


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    module, name = sys.argv.pop(1), sys.argv.pop(1)
    atheris.enabled_hooks.add("str")
    if module == "texts":
        # The feedback learns what regular expressions look for. It fails for those of
        # bytes, which this library has.
        importlib.import_module("cryptography.hazmat.primitives.serialization")
        atheris.enabled_hooks.add("RegEx")
    with atheris.instrument_imports(include=["letsencrypt_mdaemon"]):
        run, _ = importlib.import_module(f"fuzz.{module}").TARGETS[name]
    atheris.Setup(sys.argv, run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
