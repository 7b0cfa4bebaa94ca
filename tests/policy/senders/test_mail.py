"""Across a renewal, a sender that uses DANE defers no mail."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest

from letsencrypt_mdaemon.app import mail_policy
from letsencrypt_mdaemon.policy import anchors
from letsencrypt_mdaemon.sandbox import ports
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from tests.limits import HANG_SECONDS
from tests.policy.senders.sender import Sender, sender
from tests.policy.senders.servers import Zones
from tests.program import HOST_NAME, Program, Ran, at, beside_sandbox

MAILS = 200
OWNER = "_25._tcp.mail"


@pytest.fixture
def program(dns: Zones, tmp_path: Path) -> Iterator[Program]:
    """Run a sandbox MDaemon whose port 25 is port 25, and a CA."""
    make = ports.Ports.__init__

    def at_25(self: ports.Ports, *args: object, **named: object) -> None:
        make(self, *args, **named)  # type: ignore[arg-type]
        self.numbers["smtp"] = 25

    with (
        patch.object(ports.Ports, "__init__", at_25),
        patch.object(anchors, "LABORATORY", dns.anchors),
        beside_sandbox(tmp_path / "MDaemon", tls=True, http_port=80) as found,
        CertificateAuthority(tmp_path / "ca", http_port=80) as ca,
    ):
        found.options[found.options.index("--validation-dns") + 1] = "127.0.0.1:53"
        # A restart, which the others need, would turn mail away for a moment.
        mail = [url for url in found.server.endpoints.values() if "http" not in url]
        found.options[found.options.index("--endpoint") + 1] = ",".join(mail)
        found.options += [
            *at(ca.directory_url, ca.ca_bundle),
            *("--key-type", "p256", "--mail-domains", "example.test"),
        ]
        dns.publish("example.test", OWNER, 1, "TLSA")
        assert found.here("renew").exit_code == 0
        yield found


@pytest.fixture
def postfix() -> Iterator[Sender]:
    with TemporaryDirectory(prefix="sender-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with sender(folder) as running:
            yield running


def record(program: Program, name: str = "tlsa") -> str:
    """Return the data of a record that `status` shows."""
    found = program.here("status", "--key-policy", "next").report[name]
    text: str = found if isinstance(found, str) else found["record"]
    return text.partition(" TLSA ")[2]


@contextmanager
def mails(postfix: Sender, number: int) -> Iterator[None]:
    """Send mails all the while: a third before, the rest during and after."""
    begun = threading.Event()

    def send() -> None:
        for piece in range(number // 10):
            postfix.send(10)
            if piece >= number // 30:
                begun.set()

    thread = threading.Thread(target=send)
    thread.start()
    assert begun.wait(HANG_SECONDS)
    yield
    thread.join(HANG_SECONDS)


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
