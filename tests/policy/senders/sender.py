"""Postfix as others run it, which sends as DANE or MTA-STS ask, and its log."""

from __future__ import annotations

import re
import smtplib
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.limits import HANG_SECONDS
from tests.mail_servers.servers import POSTFIX_SERVICES
from tests.policy.senders.servers import call, running, until

ADDRESS = "127.0.0.8"
MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
shlib_directory = /usr/lib/postfix
daemon_directory = /usr/lib/postfix/sbin
mail_owner = daemon
setgid_group = mail
default_privs = nobody
myhostname = sender.plain.test
mydestination =
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
local_recipient_maps =
inet_interfaces = 127.0.0.8
inet_protocols = ipv4
smtp_bind_address = 127.0.0.8
maillog_file = {folder}/log
maillog_file_prefixes = /
smtpd_relay_restrictions = permit_mynetworks, reject
smtp_dns_support_level = dnssec
smtp_host_lookup = dns
smtp_tls_loglevel = 1
smtp_tls_connection_reuse = no
smtp_connection_cache_on_demand = no
smtp_tls_session_cache_database =
max_use = 1
bounce_queue_lifetime = 1h
"""
DANE = "smtp_tls_security_level = dane\n"
SECURE = """\
smtp_tls_security_level = secure
smtp_tls_secure_cert_match = hostname
smtp_tls_CAfile = {folder}/roots.pem
"""
MORE = """\
smtp unix - - n - - smtp
relay unix - - n - - smtp
qmgr unix n - n 300 1 qmgr
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
retry unix - - n - - error
error unix - - n - - error
scache unix - - n - 1 scache
verify unix - - n - 1 verify
"""


@dataclass
class Sender:
    """A running Postfix."""

    folder: Path
    queued: int = 0

    def send(self, number: int, domain: str = "example.test") -> set[int]:
        """Hand over some mails; return their numbers."""
        first = self.queued + 1
        with smtplib.SMTP(ADDRESS, 25, timeout=60) as smtp:
            for _ in range(number):
                self.queued += 1
                smtp.sendmail(
                    "me@plain.test",
                    [f"user{self.queued}@{domain}"],
                    f"Subject: {self.queued}\r\n\r\nHello\r\n",
                )
        return {*range(first, self.queued + 1)}

    @property
    def log(self) -> str:
        """What it logged."""
        path = self.folder / "log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def fates(self) -> dict[str, set[int]]:
        """Return the mails that were sent, and those that were deferred."""
        found: dict[str, set[int]] = {"sent": set(), "deferred": set()}
        rows = re.findall(r"to=<user(\d+)@.*status=(\w+)", self.log)
        for number, status in rows:
            found.setdefault(status, set()).add(int(number))
        return found

    def settle(self) -> dict[str, set[int]]:
        """Wait until every mail was tried; return the fates."""

        def is_done() -> bool:
            return len(set().union(*self.fates().values())) == self.queued

        until(is_done, self.folder / "log")
        return self.fates()


@contextmanager
def sender(roots: bytes = b"") -> Iterator[Sender]:
    """Run Postfix.

    Args:
        roots: The CAs (PEM) that a certificate for the MX host must come from, as an
            enforced MTA-STS policy demands (RFC 8461, 4.2); by default, DANE decides.
    """
    with TemporaryDirectory(prefix="sender-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        (folder / "roots.pem").write_bytes(roots)
        with _postfix(folder, MAIN + (SECURE if roots else DANE)) as running:
            yield running


@contextmanager
def mails(
    postfix: Sender, number: int, *domains: str, size: int = 10
) -> Iterator[None]:
    """Send mails all the while: a third before, the rest during and after.

    Args:
        domains: They get them in turn.
        size: The mails of one connection.
    """
    begun = threading.Event()
    names = domains or ("example.test",)

    def send() -> None:
        for piece in range(number // size):
            postfix.send(size, names[piece % len(names)])
            if piece >= number // (3 * size):
                begun.set()

    thread = threading.Thread(target=send)
    thread.start()
    assert begun.wait(HANG_SECONDS)
    yield
    thread.join(HANG_SECONDS)


@contextmanager
def _postfix(folder: Path, settings: str) -> Iterator[Sender]:
    for name in ("queue", "data", "config"):
        (folder / name).mkdir()
    call("/bin/chown", "daemon", str(folder / "data"))
    (folder / "config/main.cf").write_text(settings.format(folder=folder), "ascii")
    services = "".join(
        line
        for line in POSTFIX_SERVICES.splitlines(keepends=True)
        if not line.startswith(("587", "465"))
    )
    (folder / "config/master.cf").write_text(services + MORE, "ascii")
    control = ["/usr/sbin/postfix", "-c", str(folder / "config")]
    try:
        with running([*control, "start-fg"], folder):
            until(_listens, folder / "log")
            yield Sender(folder)
            call(*control, "stop")
    finally:
        subprocess.run([*control, "abort"], check=False, capture_output=True)


def _listens() -> bool:
    try:
        smtplib.SMTP(ADDRESS, 25, timeout=5).close()
    except (OSError, smtplib.SMTPException):
        return False
    return True
