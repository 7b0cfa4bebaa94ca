"""`status` and `renew` look at the TLSA records that senders see."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import pytest

from letsencrypt_mdaemon.app import mail_policy
from letsencrypt_mdaemon.pki.tlsa import Tlsa
from letsencrypt_mdaemon.policy.dane import Found, Published
from tests.program import HOST_NAME, Program

OWNER = f"_25._tcp.{HOST_NAME}"
NEXT = ("--key-policy", "next")


class Zone:
    """What DNS says about port 25."""

    def __init__(self) -> None:
        self.records: list[str] = []

    def look(self, _: object) -> Found:
        rows = [text.split() for text in self.records]
        found = tuple(
            Tlsa(int(row[0]), int(row[1]), int(row[2]), row[3]) for row in rows
        )
        ports = (Published(OWNER, HOST_NAME, 25, found, (), 1),) if found else ()
        return Found(ports, hosts=(HOST_NAME,))


@pytest.fixture
def zone() -> Iterator[Zone]:
    made = Zone()
    with patch.object(mail_policy, "tlsa", made.look):
        yield made


def test_status_shows_both_records_and_whether_the_next_one_counts(
    program: Program, zone: Zone
) -> None:
    assert program.here("renew", *NEXT).exit_code == 0
    report = program.here("status", *NEXT).report
    current = report["tlsa"].partition(" TLSA ")[2]
    following = report["next_tlsa"]["record"].partition(" TLSA ")[2]
    assert current != following
    assert report["tlsa_ports"] == []
    text = program.here("status", *NEXT, as_json=False).output
    assert f"  next TLSA    {OWNER}. IN TLSA {following}\n" in text
    assert "no TLSA record pins the current key" in text

    zone.records = [current]
    report = program.here("status", *NEXT).report
    assert report["next_tlsa"]["counts"] is None
    assert report["tlsa_ports"] == [
        {"name": OWNER, "records": [current], "matches": True}
    ]
    text = program.here("status", *NEXT, as_json=False).output
    assert "it is not published yet" in text
    zone.records = [current, following]
    assert program.here("status", *NEXT).report["next_tlsa"]["counts"]
    text = program.here("status", *NEXT, as_json=False).output
    assert "published; the next certificate may be used from" in text
    zone.records = ["3 1 1 " + "ab" * 32]
    text = program.here("status", *NEXT, as_json=False).output
    assert f"{OWNER}: matches no certificate in use: 3 1 1" in text


def test_a_held_renewal_says_what_to_publish(program: Program, zone: Zone) -> None:
    assert program.here("renew", *NEXT).exit_code == 0
    report = program.here("status", *NEXT).report
    zone.records = [report["tlsa"].partition(" TLSA ")[2]]
    # Half of the lifetime is a third for renew-days; the names make it due.
    more = ("--alternate-host-names", "imap.example.test")

    ran = program.here("renew", *NEXT, *more)

    assert ran.exit_code == 0
    assert not ran.report["renewed"]
    assert ran.report["waiting_until"]
    held = "eld: the TLSA record of the next key is not published yet"
    assert ran.report["waiting_for"].startswith(f"h{held}")
    assert ran.report["verdict"].startswith(f"H{held}. At most until ")
    (said,) = [line for line in ran.report["warnings"] if "held" in line]
    assert said.startswith("held: the TLSA record of the next key is not published yet")
    assert report["next_tlsa"]["record"] in said
    waiting = program.here("status", *NEXT, *more).report["waiting"]
    assert waiting["reason"].startswith("held: ")


def test_a_refusal_ends_with_5_and_leaves_the_server_alone(
    program: Program, zone: Zone
) -> None:
    assert program.here("renew").exit_code == 0
    report = program.here("status", *NEXT).report
    zone.records = [report["tlsa"].partition(" TLSA ")[2]]
    before = program.bound()

    ran = program.here("renew", "--force")

    assert ran.exit_code == 5
    assert f"no TLSA record of {OWNER} matches it" in ran.report["error"]["message"]
    assert "key-policy = next" in ran.report["error"]["hint"]
    assert program.bound() == before


def test_a_self_signed_certificate_is_refused_as_well(
    program: Program, zone: Zone
) -> None:
    assert program.here("renew").exit_code == 0
    report = program.here("status", *NEXT).report
    zone.records = [report["tlsa"].partition(" TLSA ")[2]]
    before = program.bound()

    ran = program.here("self-signed", "--use")

    assert ran.exit_code == 5
    assert "Then run `use " in ran.report["error"]["hint"]
    assert program.bound() == before


def test_in_a_laboratory_without_a_root_nobody_is_asked(program: Program) -> None:
    ran = program.here("renew")

    assert ran.exit_code == 0
    assert not [line for line in ran.report["warnings"] if "TLSA" in line]
