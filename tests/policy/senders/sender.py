"""Postfix as others run it, which sends to MX hosts as DANE asks, and its log."""

from __future__ import annotations

import re
import smtplib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
smtp_tls_security_level = dane
smtp_host_lookup = dns
smtp_tls_loglevel = 1
smtp_tls_connection_reuse = no
smtp_connection_cache_on_demand = no
smtp_tls_session_cache_database =
max_use = 1
bounce_queue_lifetime = 1h
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

    def send(self, number: int) -> None:
        """Hand over some mails."""
        with smtplib.SMTP(ADDRESS, 25, timeout=60) as smtp:
            for _ in range(number):
                self.queued += 1
                smtp.sendmail(
                    "me@plain.test",
                    [f"user{self.queued}@example.test"],
                    f"Subject: {self.queued}\r\n\r\nHello\r\n",
                )

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
def sender(folder: Path) -> Iterator[Sender]:
    """Run Postfix."""
    for name in ("queue", "data", "config"):
        (folder / name).mkdir()
    call("/bin/chown", "daemon", str(folder / "data"))
    (folder / "config/main.cf").write_text(MAIN.format(folder=folder), "ascii")
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
