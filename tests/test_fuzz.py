"""The inputs that fuzzing starts from, which need no fuzzer."""

from __future__ import annotations

import sys
from importlib import import_module, util
from pathlib import Path

import pytest

from letsencrypt_mdaemon.acme import crl

# From the checkout, which is not on the path: the installed package is tested.
_spec = util.spec_from_file_location(
    "fuzz", Path(__file__).parents[1] / "fuzz/__init__.py"
)
assert _spec is not None
sys.modules["fuzz"] = util.module_from_spec(_spec)
TARGETS = {
    **import_module("fuzz.texts").TARGETS,
    **import_module("fuzz.network").TARGETS,
}


@pytest.mark.parametrize("name", TARGETS)
def test_an_input_to_start_from_is_no_finding(name: str) -> None:
    run, seeds = TARGETS[name]
    for seed in [*seeds, b""]:
        run(seed)


def test_the_conversation_with_a_ca_gets_as_far_as_the_crl(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[object] = []
    revocation = crl.revocation
    monkeypatch.setattr(
        crl, "revocation", lambda *args, **more: found.append(revocation(*args, **more))
    )
    run, seeds = TARGETS["ca"]
    run(seeds[0])
    assert found == [None]
