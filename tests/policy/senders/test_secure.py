"""A sender that trusts only a CA's certificate for the MX host, as MTA-STS asks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from unittest.mock import patch

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from letsencrypt_mdaemon.policy import mail
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.state.folder import State
from tests import certificates
from tests.policy.policy_host import ok, serving
from tests.policy.senders.receiver import receiver
from tests.policy.senders.sender import Sender, mails, sender
from tests.policy.senders.servers import RESOLVER, Zones
from tests.program import HOST_NAME, Program

ZONE, MX_HOST, MAILS = "example.test", "mx2.example.test", 40
DOMAINS = (ZONE, "second.example.test")
POLICY = f"version: STSv1\nmode: enforce\nmx: {MX_HOST}\nmax_age: 604800\n".encode()
RECORDS = {
    ("second", "MX"): f"10 {MX_HOST}.",
    ("mx2", "A"): RESOLVER,
    ("_mta-sts.second", "TXT"): '"v=STSv1; id=1"',
    ("mta-sts.second", "A"): RESOLVER,
}
LIFETIME = timedelta(days=6)
"""In its last week, a certificate may be replaced by one that lacks a name."""


@pytest.fixture(scope="module")
def served(
    dns: Zones, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Program, CertificateAuthority]]:
    """Run a server with two MX hosts; an enforced policy lists the second one."""
    folder = tmp_path_factory.mktemp("served")
    root = folder / "policy-root.pem"
    root.write_bytes(certificates.root().certificate.public_bytes(Encoding.PEM))
    for (name, kind), data in RECORDS.items():
        dns.publish(ZONE, name, 1, kind, data)
    with (
        patch.dict(os.environ, SSL_CERT_FILE=str(root)),
        serving(ok(POLICY), f"mta-sts.{DOMAINS[1]}", port=443),
        receiver(folder, dns, LIFETIME) as (program, ca),
    ):
        program.options += [
            *("--mail-domains", ",".join(DOMAINS)),
            *("--alternate-host-names", MX_HOST, "--on-name-failure", "drop"),
        ]
        yield program, ca
    for name, kind in RECORDS:
        dns.publish(ZONE, name, 1, kind)


@pytest.fixture
def program(served: tuple[Program, CertificateAuthority]) -> Program:
    """Return the program beside a server that no policy was looked up for yet."""
    found, ca = served
    ca.resolve = lambda _: RESOLVER
    (found.state / "mail.json").unlink(missing_ok=True)
    return found


@pytest.fixture
def ca(served: tuple[Program, CertificateAuthority]) -> CertificateAuthority:
    return served[1]


@pytest.fixture
def postfix(ca: CertificateAuthority) -> Iterator[Sender]:
    with sender(ca.root.public_bytes(Encoding.PEM)) as running:
        yield running


def lose_name(ca: CertificateAuthority) -> None:
    """Let the CA no longer find the second MX host."""
    ca.resolve = lambda name: None if name == MX_HOST else RESOLVER


def test_no_mail_is_deferred_across_a_renewal(
    program: Program, postfix: Sender
) -> None:
    assert program.here("renew", "--force").exit_code == 0
    before = program.bound()

    with mails(postfix, MAILS, *DOMAINS, size=5):
        assert program.here("renew", "--force").exit_code == 0

    assert program.bound() != before
    later = {number for domain in DOMAINS for number in postfix.send(5, domain)}
    assert postfix.settle() == {
        "sent": {*range(1, MAILS + 1), *later},
        "deferred": set(),
    }
    for host in (HOST_NAME, MX_HOST):
        assert f"Verified TLS connection established to {host}" in postfix.log


def test_a_name_that_the_policy_lists_is_not_dropped_and_no_mail_is_deferred(
    program: Program, ca: CertificateAuthority, postfix: Sender
) -> None:
    assert program.here("renew", "--force").exit_code == 0
    look = State(program.state).mail()
    assert look is not None
    assert look.needed == (MX_HOST,)
    before = program.bound()
    lose_name(ca)

    with mails(postfix, MAILS, *DOMAINS, size=5):
        ran = program.here("renew", "--force")

    assert ran.exit_code == 4, ran.messages
    assert MX_HOST in ran.report["error"]["message"]
    assert program.bound() == before
    assert postfix.settle() == {"sent": {*range(1, MAILS + 1)}, "deferred": set()}


def test_without_the_guard_the_mails_to_a_dropped_name_are_deferred(
    program: Program, ca: CertificateAuthority, postfix: Sender
) -> None:
    with patch.object(mail, "needed", lambda _: ()):
        assert program.here("renew", "--force").exit_code == 0
        delivered = postfix.send(5, DOMAINS[1])
        assert postfix.settle()["sent"] == delivered
        lose_name(ca)
        ran = program.here("renew", "--force")

    assert ran.exit_code == 0, ran.messages
    assert ran.report["certificate"]["names"] == [HOST_NAME]
    delivered |= postfix.send(5, DOMAINS[0])
    lost = postfix.send(5, DOMAINS[1])
    assert postfix.settle() == {"sent": delivered, "deferred": lost}
    assert "Server certificate not verified" in postfix.log
