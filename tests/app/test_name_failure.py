"""One name that fails need not cost all the others, if that is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from tests.program import HOST_NAME, Program, at

GOOD, BAD = "imap.example.test", "pop.example.test"
BOTH = ("--alternate-host-names", f"{GOOD},{BAD}")
DROP = ("--on-name-failure", "drop")


@pytest.fixture
def unknown() -> set[str]:
    """Names that DNS does not know; a test changes them."""
    return {BAD}


@pytest.fixture
def authority(
    beside: Program, unknown: set[str], tmp_path: Path
) -> Iterator[CertificateAuthority]:
    """A CA that does not find some names."""
    with CertificateAuthority(
        tmp_path / "ca",
        http_port=beside.server.http_port,
        resolve=lambda name: None if name in unknown else "127.0.0.1",
    ) as ca:
        yield ca


@pytest.fixture
def program(beside: Program, authority: CertificateAuthority) -> Program:
    """The program beside a sandbox and that CA."""
    ours = at(authority.directory_url, authority.ca_bundle)
    beside.options += [*ours, "--key-type", "p256"]
    return beside


def test_a_name_that_fails_costs_all_unless_it_is_wanted_otherwise(
    program: Program,
) -> None:
    (old,) = program.bound()

    ran = program.here("renew", *BOTH)

    assert ran.exit_code == 4
    assert list(ran.report["error"]["names"]) == [BAD]
    assert program.bound() == {old}


def test_a_name_that_fails_is_left_out_and_shown_until_it_is_there(
    program: Program, unknown: set[str]
) -> None:
    first = program.here("renew", *BOTH, *DROP)

    assert first.exit_code == 0, first.messages
    assert set(first.report["certificate"]["names"]) == {HOST_NAME, GOOD}
    (dropped,) = first.report["dropped"]
    assert dropped["name"] == BAD
    assert BAD in first.messages
    status = program.here("status", *BOTH, *DROP).report
    assert status["dropped"] == [dropped]
    assert not status["due"]

    again = program.here("renew", *BOTH, *DROP)
    assert again.exit_code == 0
    assert not again.report["renewed"], "it was tried a moment ago"

    unknown.clear()
    cured = program.here("renew", *BOTH, *DROP, "--force")
    assert set(cured.report["certificate"]["names"]) == {HOST_NAME, GOOD, BAD}
    assert cured.report["dropped"] == []


def test_a_name_that_the_ca_does_not_serve_is_left_out_as_well(
    program: Program, unknown: set[str], authority: CertificateAuthority
) -> None:
    unknown.clear()
    authority.blocked = (BAD,)

    failed = program.here("renew", *BOTH)
    assert failed.exit_code == 4
    assert list(failed.report["error"]["names"]) == [BAD]
    assert "is not served (rejectedIdentifier)" in failed.report["error"]["message"]

    dropped = program.here("renew", *BOTH, *DROP, "--force")
    assert dropped.exit_code == 0, dropped.messages
    assert set(dropped.report["certificate"]["names"]) == {HOST_NAME, GOOD}
    assert [row["name"] for row in dropped.report["dropped"]] == [BAD]


def test_the_first_name_is_never_left_out(program: Program, unknown: set[str]) -> None:
    unknown.add(HOST_NAME)

    ran = program.here("renew", *BOTH, *DROP)

    assert ran.exit_code == 4
    assert set(ran.report["error"]["names"]) == {HOST_NAME, BAD}


def test_a_name_that_the_certificate_in_use_covers_is_not_left_out(
    program: Program, unknown: set[str]
) -> None:
    unknown.clear()
    (kept,) = {program.here("renew", *BOTH, *DROP).report["certificate"]["thumbprint"]}
    unknown.add(BAD)

    ran = program.here("renew", *BOTH, *DROP, "--force")

    assert ran.exit_code == 4
    assert program.bound() == {kept}
