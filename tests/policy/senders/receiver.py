"""A sandbox MDaemon that receives the mail, and the CA of its certificate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

from letsencrypt_mdaemon.policy import anchors
from letsencrypt_mdaemon.sandbox import ports
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from tests.policy.senders.servers import Zones
from tests.program import Program, at, beside_sandbox

OWNER = "_25._tcp.mail"


@contextmanager
def receiver(
    folder: Path, dns: Zones, lifetime: timedelta = timedelta(days=90)
) -> Iterator[tuple[Program, CertificateAuthority]]:
    """Run a sandbox MDaemon whose port 25 is port 25, and a CA.

    Args:
        lifetime: Of the certificates.
    """
    make = ports.Ports.__init__

    def at_25(self: ports.Ports, *args: object, **named: object) -> None:
        make(self, *args, **named)  # type: ignore[arg-type]
        self.numbers["smtp"] = 25

    with (
        patch.object(ports.Ports, "__init__", at_25),
        patch.object(anchors, "LABORATORY", dns.anchors),
        beside_sandbox(folder / "MDaemon", tls=True, http_port=80) as found,
        CertificateAuthority(folder / "ca", http_port=80, lifetime=lifetime) as ca,
    ):
        found.options[found.options.index("--validation-dns") + 1] = "127.0.0.1:53"
        # A restart, which the others need, would turn mail away for a moment.
        mail = [url for url in found.server.endpoints.values() if "http" not in url]
        found.options[found.options.index("--endpoint") + 1] = ",".join(mail)
        found.options += [*at(ca.directory_url, ca.ca_bundle), "--key-type", "p256"]
        dns.publish("example.test", OWNER, 1, "TLSA")
        yield found, ca
