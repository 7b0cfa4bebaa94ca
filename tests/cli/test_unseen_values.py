"""A known INI value that cannot be seen, or is gone, and what a run does about it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from letsencrypt_mdaemon.mdaemon import folders
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.sandbox.folder import TARGETS, bound
from tests.ca_faults import shifted
from tests.fakes import unreadable
from tests.program import Program

PLACE = TARGETS["webmail"]
WEBMAIL = f"{PLACE.file} [{PLACE.section}] {PLACE.key}"


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Believe soon what looks wrong."""
    monkeypatch.setattr(folders, "BELIEVED_AFTER_SECONDS", 0.1)


@pytest.fixture
def renewed(program: Program) -> Program:
    assert program.here("renew").exit_code == 0
    return program


def named(program: Program) -> set[str]:
    return set(bound(program.layout.folder).values()) - {""}


def webmail(program: Program) -> Path:
    return program.layout.folder / PLACE.file


def test_nothing_is_ordered_or_changed_while_a_known_file_cannot_be_read(
    renewed: Program,
) -> None:
    before = renewed.snapshot()
    path = webmail(renewed)

    with unreadable(path):
        ran = renewed.here("renew", "--force")

    assert ran.exit_code == 5
    assert f"Could not check {WEBMAIL}: Could not read {path}" in ran.messages
    assert "Ordered" not in ran.messages
    assert renewed.snapshot() == before


def test_a_value_that_is_gone_does_not_stop_the_others_until_it_is_forgotten(
    renewed: Program,
) -> None:
    path = webmail(renewed)
    path.unlink()
    former = named(renewed)

    ran = renewed.here("renew", "--force")

    assert ran.exit_code == 5
    assert f"{WEBMAIL}: the file does not exist." in ran.messages
    assert f'discover --forget "{WEBMAIL}"' in ran.messages
    assert named(renewed).isdisjoint(former)
    assert len(named(renewed)) == 1

    again = renewed.here("renew")
    assert again.exit_code == 5
    assert "Nothing is due" in again.messages

    assert renewed.here("discover", "--forget", WEBMAIL).exit_code == 0
    assert renewed.here("renew").exit_code == 0


def test_an_unknown_value_is_not_forgotten(renewed: Program) -> None:
    ran = renewed.here("discover", "--forget", "x.ini [a] b")

    assert ran.exit_code == 2
    assert "'x.ini [a] b' is not a known INI value. Known are: " in ran.messages
    assert WEBMAIL in ran.messages


def test_what_can_be_seen_is_renewed_when_the_end_is_near(
    program: Program, ca: CertificateAuthority
) -> None:
    ca.faults.draft = lambda draft: shifted(draft, timedelta(days=-85))
    assert program.here("renew").exit_code == 0
    ca.faults.draft = lambda draft: draft
    former = named(program)

    with unreadable(webmail(program)):
        ran = program.here("renew")

    assert ran.exit_code == 5
    assert f"not named by every known INI value: {WEBMAIL}: Could not" in ran.messages
    assert len(named(program) & former) == 1
    assert len(named(program)) == 2
