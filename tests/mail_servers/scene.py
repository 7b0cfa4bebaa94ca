"""An MDaemon folder whose files name the certificate that a server should serve."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from letsencrypt_mdaemon.pki.certificate import Certificate
from letsencrypt_mdaemon.sandbox.folder import TARGETS, bound, create
from letsencrypt_mdaemon.stores.pem import PemStore
from tests.certificates import intermediate, key, leaf
from tests.limits import HANG_SECONDS
from tests.mail_servers.servers import MailServer
from tests.program import Ran, run

NAME = "mail.example.test"


def certificate(serial: int) -> Certificate:
    """Return a certificate that is valid now, with its chain."""
    now = datetime.now(UTC)
    own = key(serial)
    issued = leaf(
        [NAME],
        own_key=own,
        serial=serial,
        start=now - timedelta(hours=1),
        lifetime=timedelta(days=90),
    )
    return Certificate((issued, intermediate().certificate), own)


class Scene:
    """The folder, the store in it, and the program to look with."""

    def __init__(self, folder: Path) -> None:
        self.layout = create(folder, host_name=NAME)
        self.store = PemStore(self.layout.certificates)

    def name(self, wanted: Certificate) -> None:
        """Put a certificate into the store and let the server's files name it."""
        self.store.install(wanted)
        before = bound(self.layout.folder)["mail"]
        for target in TARGETS.values():
            path = self.layout.folder / target.file
            text = path.read_bytes()
            for old, new in zip(_forms(before), _forms(wanted.thumbprint), strict=True):
                text = text.replace(old, new)
            path.write_bytes(text)

    def verify(self, server: MailServer) -> Ran:
        """Let the program look at a server's ports."""
        endpoints = [f"--endpoint={url}" for url in server.endpoints]
        return run(
            [
                *(sys.executable, "-m", "letsencrypt_mdaemon", "verify", "--json"),
                *("--mdaemon-dir", str(self.layout.folder)),
                *("--store", f"pem:{self.layout.certificates}"),
                *("--smtp-address", "none", *endpoints),
            ]
        )

    def verify_until(self, server: MailServer, exit_code: int) -> Ran:
        """Look until the program says so: a reload takes these servers a moment."""
        deadline = time.monotonic() + HANG_SECONDS
        while True:
            ran = self.verify(server)
            if ran.exit_code == exit_code or time.monotonic() > deadline:
                return ran

    def follows_a_change(self, server: MailServer, old: Certificate) -> None:
        """Check what `verify` says before, during and after a change."""
        self.name(old)
        ran = self.verify(server)
        assert ran.exit_code == 0, ran.messages
        ports = ran.report["ports"]
        assert {port["endpoint"] for port in ports} == set(server.endpoints)
        for port in ports:
            assert port["outcome"] == "served", port
            assert port["certificate"]["thumbprint"] == old.thumbprint
            assert port["chain"]["in_order"]
            assert port["chain"]["as_issued"]

        new = certificate(serial=12)
        self.name(new)
        ran = self.verify(server)
        assert ran.exit_code == 5, ran.messages
        for url in server.endpoints:
            assert url.rpartition(":")[2] in ran.report["error"]["message"]

        server.use(new)
        ran = self.verify_until(server, 0)
        assert ran.exit_code == 0, ran.messages
        assert {port["certificate"]["thumbprint"] for port in ran.report["ports"]} == {
            new.thumbprint
        }


def _forms(thumbprint: str) -> tuple[bytes, bytes, bytes]:
    spaced = bytes.fromhex(thumbprint).hex(" ").upper()
    return thumbprint.encode(), thumbprint.lower().encode(), spaced.encode()
