"""All folders are searched for targets only when that can matter."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from letsencrypt_mdaemon.sandbox.folder import TARGETS
from tests.program import Program, Ran

ARCHIVE = "Archive"


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The folders that were searched, by name."""
    names: set[str] = set()
    walk = os.walk

    def recorded(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for folder, folders, files in walk(root):
            if "letsencrypt-mdaemon" not in Path(folder).parts:  # our own
                names.add(Path(folder).name)
            yield folder, folders, files

    monkeypatch.setattr(os, "walk", recorded)
    return names


@pytest.fixture
def learned(program: Program, searched: set[str]) -> Program:
    """The program after a renewal, beside a folder that may have a million files."""
    (program.layout.folder / ARCHIVE / "2025").mkdir(parents=True)
    renew(program)
    assert {ARCHIVE, "2025"} <= searched
    searched.clear()
    return program


def renew(program: Program, *options: str) -> Ran:
    ran = program.here("renew", "--no-reload", *options)
    assert ran.exit_code == 0, ran.messages
    return ran


def test_while_the_known_targets_name_a_certificate_they_are_enough(
    learned: Program, searched: set[str]
) -> None:
    for command in ("status", "verify", "renew --dry-run", "renew --no-reload"):
        learned.here(*command.split())

    assert searched == {"MDaemon", "App", "WorldClient", "WebAdmin"}


def test_discover_searches_all_folders(learned: Program, searched: set[str]) -> None:
    learned.here("discover")

    assert {ARCHIVE, "2025"} <= searched


@pytest.mark.parametrize("value", [b"", b"0" * 40])
def test_a_stale_target_has_all_folders_searched(
    value: bytes, learned: Program, searched: set[str]
) -> None:
    (digest,) = learned.bound()
    file = learned.layout.folder / TARGETS["mail"].file
    file.write_bytes(file.read_bytes().replace(digest.encode(), value))

    assert learned.here("status").exit_code == 0

    assert {ARCHIVE, "2025"} <= searched


def test_a_target_that_nobody_knew_is_found_when_a_certificate_is_put_into_use(
    learned: Program, searched: set[str]
) -> None:
    (digest,) = learned.bound()
    new = learned.layout.folder / ARCHIVE / "2025" / "new.ini"
    new.write_text(f"[a]\nb={digest}\n")

    ran = renew(learned, "--force")

    digest = ran.report["certificate"]["thumbprint"]
    assert new.read_text() == f"[a]\nb={digest}\n"
    # From now on it is known.
    searched.clear()
    new.write_text("[a]\nb=\n")
    learned.here("status")
    assert ARCHIVE in searched
