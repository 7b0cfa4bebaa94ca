"""A run looks once: it reads and parses nothing again and again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from letsencrypt_mdaemon.mdaemon import folders, ini
from letsencrypt_mdaemon.sandbox.folder import INI_FILES, TARGETS
from letsencrypt_mdaemon.state import folder as state
from tests.program import Program

Read: TypeAlias = Callable[[Path, int, str], bytes]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file of the server and of the state was read."""
    counts: Counter[str] = Counter()

    def counting(read: Read) -> Read:
        def counted(path: Path, limit: int, kind: str) -> bytes:
            data = read(path, limit, kind)
            counts[path.name] += 1
            return data

        return counted

    for module in (folders, state):
        monkeypatch.setattr(module, "read_limited", counting(module.read_limited))
    return counts


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """How often each content of an INI file was parsed."""
    counts: Counter[bytes] = Counter()
    parse = ini.entries

    def counted(data: bytes) -> list[ini.Entry]:
        counts[data] += 1
        return parse(data)

    monkeypatch.setattr(ini, "entries", counted)
    return counts


def test_a_renewal_reads_each_state_file_twice_and_parses_each_ini_file_twice(
    secure: Program, read: Counter[str], parsed: Counter[bytes]
) -> None:
    secure.here("renew")
    bound = {target.file for target in TARGETS.values()}
    before = [(secure.layout.folder / name).read_bytes() for name in bound]
    read.clear()
    parsed.clear()

    ran = secure.here("renew", "--alternate-host-names", "imap.example.test")

    assert ran.report["renewed"], ran.messages
    assert {Path(name).name for name in INI_FILES} <= read.keys()
    assert {"installation.json", "account.json", "ledger.json"} <= read.keys()
    # An INI file is looked at, edited, looked at before and after the swap, and twice
    # at the end; what was swapped out, after the swap and at the end.
    limits = {Path(name).name: 6 for name in INI_FILES}
    # Once more at the end, to decide which news are mailed.
    limits["installation.json"] = 3
    over = {
        name: count
        for name, count in read.items()
        if count > (3 if name.endswith(".tmp") else limits.get(name, 2))
    }
    assert over == {}
    # Once to find out what it names, and once to edit it; then the result is checked.
    assert {parsed[data] for data in before} == {2}
    assert max(parsed.values()) == 2


def test_a_run_with_nothing_to_do_reads_and_parses_each_file_once(
    secure: Program, read: Counter[str], parsed: Counter[bytes]
) -> None:
    secure.here("renew")
    read.clear()
    parsed.clear()

    ran = secure.here("renew", "--dry-run")

    assert not ran.report["renewed"], ran.messages
    assert {Path(name).name for name in INI_FILES} <= read.keys()
    assert set(read.values()) == set(parsed.values()) == {1}
