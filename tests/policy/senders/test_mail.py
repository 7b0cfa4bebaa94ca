"""Across a renewal, a sender that uses DANE defers no mail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from letsencrypt_mdaemon.app import mail_policy
from tests.limits import HANG_SECONDS
from tests.policy.senders.receiver import OWNER, receiver
from tests.policy.senders.sender import Sender, mails, sender
from tests.policy.senders.servers import Zones
from tests.program import HOST_NAME, Program, Ran

MAILS = 200


@pytest.fixture
def program(dns: Zones, tmp_path: Path) -> Iterator[Program]:
    """Run a sandbox MDaemon whose port 25 is port 25, and a CA."""
    with receiver(tmp_path, dns) as (found, _):
        found.options += ["--mail-domains", "example.test"]
        assert found.here("renew").exit_code == 0
        yield found


@pytest.fixture
def postfix() -> Iterator[Sender]:
    with sender() as running:
        yield running


def record(program: Program, name: str = "tlsa") -> str:
    """Return the data of a record that `status` shows."""
    found = program.here("status", "--key-policy", "next").report[name]
    text: str = found if isinstance(found, str) else found["record"]
    return text.partition(" TLSA ")[2]


def renewed(program: Program, *options: str) -> Ran:
    ran = program.here("renew", "--force", *options)
    assert ran.exit_code == 0, ran.messages
    assert ran.report["renewed"], ran.report
    return ran


def test_with_the_next_key_no_mail_of_200_is_deferred(
    program: Program, postfix: Sender, dns: Zones
) -> None:
    assert program.here("renew", "--key-policy", "next").exit_code == 0
    current, following = record(program), record(program, "next_tlsa")
    dns.publish("example.test", OWNER, 1, "TLSA", current)
    held = program.here("status", "--key-policy", "next").report
    assert held["next_tlsa"]["counts"] is None
    dns.publish("example.test", OWNER, 1, "TLSA", current, following)

    with mails(postfix, MAILS):
        deadline = time.monotonic() + HANG_SECONDS
        # While caches may hold the former records, --force keeps the current key.
        while record(program) != following:
            assert time.monotonic() < deadline
            renewed(program, "--key-policy", "next")

    fates = postfix.settle()
    assert len(fates["sent"]) == MAILS, postfix.log[-3000:]
    assert fates["deferred"] == set()
    assert "Verified TLS connection established to mail.example.test" in postfix.log
    assert record(program, "next_tlsa") not in (current, following)


def test_with_the_key_that_is_kept_no_mail_of_200_is_deferred(
    program: Program, postfix: Sender, dns: Zones
) -> None:
    current = record(program)
    dns.publish("example.test", OWNER, 1, "TLSA", current)

    with mails(postfix, MAILS):
        renewed(program, "--key-policy", "reuse")

    assert record(program) == current
    fates = postfix.settle()
    assert len(fates["sent"]) == MAILS, postfix.log[-3000:]
    assert fates["deferred"] == set()


def test_with_a_new_key_the_run_is_refused_and_no_mail_is_deferred(
    program: Program, postfix: Sender, dns: Zones
) -> None:
    current, before = record(program), program.bound()
    dns.publish("example.test", OWNER, 1, "TLSA", current)

    with mails(postfix, 40):
        ran = program.here("renew", "--force")

    assert ran.exit_code == 5
    assert f"{OWNER}.example.test" in ran.report["error"]["message"]
    assert program.bound() == before
    assert postfix.settle()["deferred"] == set()


def test_without_the_guard_a_new_key_loses_mail(
    program: Program, postfix: Sender, dns: Zones
) -> None:
    dns.publish("example.test", OWNER, 1, "TLSA", record(program))

    with mails(postfix, MAILS), patch.object(mail_policy, "tlsa", lambda _: None):
        renewed(program)

    fates = postfix.settle()
    assert fates["sent"]
    assert fates["deferred"]
    assert "Server certificate not verified" in postfix.log or (
        "no matching DANE TLSA records" in postfix.log
    )
    assert HOST_NAME == "mail.example.test"
