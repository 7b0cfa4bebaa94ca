"""The inputs that fuzzing starts from, which need no fuzzer."""

from __future__ import annotations

import pytest

from fuzz import network, texts
from letsencrypt_mdaemon.acme import crl

TARGETS = texts.TARGETS | network.TARGETS


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
    network.obtain(network.TARGETS["ca"][1][0])
    assert found == [None]
