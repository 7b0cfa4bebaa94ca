r"""The server that the pages show: mail.example.com, on a sandbox, as Windows has it.

Beside a small MDaemon are two small CAs (one is the staging service of the other), a
DNS that knows the names, and a Task Scheduler in memory. Connections to 192.0.2.7 reach
the small MDaemon. What commands print is told as a reader would see it: with the folder
`C:\MDaemon`, and with the dates of one day. `masked` then hides what no two runs have
in common.
"""

from __future__ import annotations

import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from letsencrypt_mdaemon import authorities
from letsencrypt_mdaemon.app import scheduling, script, trust
from letsencrypt_mdaemon.authorities import LETSENCRYPT
from letsencrypt_mdaemon.cli import legacy
from letsencrypt_mdaemon.cli import setup as asking
from letsencrypt_mdaemon.cli.context import Context
from letsencrypt_mdaemon.mdaemon import folders
from letsencrypt_mdaemon.sandbox import folder as sandbox_folder
from letsencrypt_mdaemon.sandbox import mdaemon
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.sandbox.ports import PORTS
from letsencrypt_mdaemon.state.memory import Window
from letsencrypt_mdaemon.system import tasks
from letsencrypt_mdaemon.system.tasks import TaskScheduler, task
from tests import pages
from tests.laboratory import Dns, dns_server
from tests.program import PREFIX, here, run
from tests.schedulers import Schtasks
from tests.servers import LOCALHOST, OTHER_HOST

HOST_NAME, OTHER = "mail.example.com", "imap.example.com"
TODAY = date(2026, 11, 28)
"""The day on which the pages play."""
ADDRESS = "192.0.2.7"
NODES = (ADDRESS, "192.0.2.11", "192.0.2.12")
"""Where the small MDaemon answers; the others are those of a cluster."""
NUMBERS = {
    "smtp": 25,
    "submission": 587,
    "smtps": 465,
    "imap": 143,
    "imaps": 993,
    "pop3": 110,
    "pop3s": 995,
    "webmail": 443,
    "admin": 444,
}
PROGRAM = r"C:\Program Files\letsencrypt-mdaemon\letsencrypt-mdaemon.exe"
REGISTRY = r"HKLM\SOFTWARE\Alt-N Technologies\MDaemon AppPath"
_MASKS = (
    (r"\b20\d\d-\d\d-\d\d\b", "DATE"),
    (r"\b\d\d:\d\d(:\d\d)?\b", "TIME"),
    (
        r"\b([0-9A-F]{40}|[0-9a-f]{40}|[0-9a-f]{64}|([0-9A-F]{2} ){19}[0-9A-F]{2})\b",
        "H",
    ),
    (r"\b\d+(\.\d+)? ?s\b", "SECONDS"),
    (r"127\.0\.0\.1:\d+", "PORT"),
    (r"/acme/[\w-]{12}(?![\w-])", "/acme/ID"),
    (r"/acme-challenge/[\w-]{43}(?![\w-])", "/acme-challenge/TOKEN"),
    (r"letsencrypt-[0-9a-f]{16}\.raw", "letsencrypt-ID.raw"),
    (r"(?<![\d.])\d+\.\d+\.\d+(?!\.?\d)", "VERSION"),
)


def masked(text: str) -> str:
    """Hide dates, times, hashes, seconds, ports of CAs, identifiers, and versions."""
    for pattern, mask in _MASKS:
        text = re.sub(pattern, mask, text)
    return text


@dataclass(frozen=True, slots=True)
class Scenery:
    """What the program takes for a Windows with an MDaemon; it fits into JSON.

    Args:
        folder: MDaemon's.
        ports: Address and port, as shown → the port of this machine.
        tasks: Name → definition in the Task Scheduler.
    """

    folder: str
    directory_url: str
    staging_url: str
    ports: dict[str, int]
    tasks: dict[str, str]


def build(scenery: Scenery, patch: pytest.MonkeyPatch) -> None:
    """Let the program in this process see it."""
    jobs = Schtasks()
    jobs.tasks = scenery.tasks
    scheduler = TaskScheduler(Path("schtasks.exe"), jobs, account="S-1-5-18")
    patch.setattr(scheduling, "of_this_system", lambda: scheduler)
    patch.setattr(tasks, "random_time", lambda: (3, 17))
    # Windows only, and where the program is in a safe folder.
    patch.setattr(scheduling, "_require_isolated", lambda _: None)
    patch.setattr(script, "_require_powershell", lambda: None)
    patch.setattr(trust, "program_doubts", lambda *_: [])
    patch.setattr(trust, "require_script", lambda *_: None)
    places = [folders.Place(Path(scenery.folder), REGISTRY)]
    patch.setattr(folders, "places", lambda *_: places)
    connect = socket.create_connection

    def reach(address: tuple[str, int], *more: Any) -> socket.socket:  # noqa: ANN401
        host, port = address
        real = scenery.ports.get(f"{host}:{port}")
        return connect(address if real is None else (LOCALHOST, real), *more)

    patch.setattr(socket, "create_connection", reach)
    url, staging = scenery.directory_url, scenery.staging_url
    known = LETSENCRYPT._replace(url=url, staging=staging, lifetimes=())
    patch.setitem(authorities.AUTHORITIES, "sandbox", known)
    # A person types: no run waits before it asks the CA.
    typed = property(lambda context: not context.is_marked)
    patch.setattr(Context, "is_typed", typed)
    # The first moment that the CA suggests, instead of any.
    patch.setattr(Window, "draw", lambda self, _: self.start)


class Stage:
    """That server, and a person in front of it.

    Attributes:
        types: What the person types at questions; None = there is no terminal.
        exit_code: The last command's.
    """

    def __init__(
        self, folder: Path, exits: ExitStack, patch: pytest.MonkeyPatch
    ) -> None:
        self.exits, self.patch = exits, patch
        self.home = folder / "me"
        self.home.mkdir()
        self.types: Sequence[str] | None = None
        self.exit_code = 0
        self.layout = sandbox_folder.create(folder / "MDaemon", host_name=HOST_NAME)
        for name in sandbox_folder.INI_FILES:
            file = self.layout.folder / name
            file.write_bytes(file.read_bytes().replace(b"example.test", b"example.com"))
        old = self.layout.letsencrypt / "LetsEncrypt.ps1"
        old.write_bytes(b"# LetsEncrypt.ps1 of MDaemon\r\nparam($To)\r\n")
        enter = exits.enter_context
        self.server = enter(mdaemon.Server(self.layout.folder, tls=True))
        self.server.reloads["RELOADCACHE.SEM"] = ("mail", "webmail", "admin")
        http = self.server.http_port
        self.ca = enter(CertificateAuthority(folder / "ca", http_port=http))
        staging = enter(CertificateAuthority(folder / "staging", http_port=http))
        self.roots = folder / "roots.pem"
        roots = self.ca.ca_bundle.read_bytes() + staging.ca_bundle.read_bytes()
        self.roots.write_bytes(roots)
        self.dns = enter(dns_server(Dns(zones=["example.com", "com"])))
        for name in (HOST_NAME, OTHER):
            self.dns.records[name] = {"A": [ADDRESS]}
        command = ["powershell", "-File", r"C:\MDaemon\LetsEncrypt\LetsEncrypt.ps1"]
        xml = task([*command, "-AlternateHostNames", OTHER], 1, 1, "S-1-5-18")
        definition = re.sub(r"\A<\?xml.*?\?>\s*", "", xml.decode("utf-16"))
        self.scenery = Scenery(
            folder=str(self.layout.folder),
            directory_url=self.ca.directory_url,
            staging_url=staging.directory_url,
            ports=self._ports(),
            tasks={"LetsEncrypt": definition},
        )

    def _ports(self) -> dict[str, int]:
        ports = {"127.0.0.1:25": self.server.smtp_port}
        ports["127.0.0.1:80"] = self.server.http_port
        for node in NODES:
            ports[f"{node}:80"] = self.server.http_port
            for label, number in NUMBERS.items():
                url = self.server.endpoints[label]
                ports[f"{node}:{number}"] = int(url.rpartition(":")[2])
        return ports

    @property
    def environ(self) -> dict[str, str]:
        """The settings for the CA and the store; `setup` writes them into its file."""
        if (self.layout.letsencrypt / "letsencrypt-mdaemon.ini").exists():
            return {}
        urls = (f"{PORTS[k].scheme}://{ADDRESS}:{n}" for k, n in NUMBERS.items())
        settings = {
            "store": f"pem:{self.layout.certificates}",
            "endpoint": ",".join(urls),
            "directory-url": self.ca.directory_url,
            "ca-bundle": str(self.roots),
            "validation-dns": f"{LOCALHOST}:{self.dns.port}",
            "key-type": "p256",
            "verify-timeout": "1",
        }
        names = (PREFIX + key.replace("-", "_").upper() for key in settings)
        return dict(zip(names, settings.values(), strict=True))

    def run(self, typed: str) -> str:
        """Run a command line as it stands in a page; return what it prints."""
        _, *words = pages.words(typed)
        if words[0] == "demo":  # It has a server of its own.
            ended = run([sys.executable, "-m", "letsencrypt_mdaemon", *words])
            self.exit_code = ended.exit_code
            return self.told(ended.output + ended.messages)
        if legacy.is_legacy(words):
            words = legacy.translate(words)
        given = "".join(f"{line}\n" for line in self.types or ())
        terminal = SimpleNamespace(isatty=lambda: self.types is not None)
        with chdir(self.home), pytest.MonkeyPatch.context() as patch:
            patch.setattr(asking, "sys", SimpleNamespace(stdin=terminal))
            ran = here(words, self.environ, given=given)
        self.exit_code = ran.exit_code
        return self.told(ran.shown)

    def told(self, text: str) -> str:
        """Return what is printed here as it is on the server that is shown."""
        python = (
            rf'"?{re.escape(sys.executable)}"? -I( -X utf8)? -m letsencrypt_mdaemon'
        )
        text = re.sub(python, lambda _: f'"{PROGRAM}"', text)
        for folder, shown in (
            (self.layout.folder, r"C:\MDaemon"),
            (self.home, r"C:\Users\me"),
        ):
            path = re.escape(str(folder)) + r"((?:/[\w.-]*\w)*)"
            text = re.sub(path, lambda x: shown + x[1].replace("/", "\\"), text)  # noqa: B023
        text = text.replace(f" ({OTHER_HOST})", " (192.0.2.53)")
        shift = TODAY - datetime.now(UTC).date()
        return re.sub(
            r"\b20\d\d-\d\d-\d\d\b",
            lambda day: (date.fromisoformat(day[0]) + shift).isoformat(),
            text,
        )


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Raise the curtain: the clock shows UTC, and nobody has set up anything."""
    with ExitStack() as exits:
        # Windows has no tzset, and these pages are not played there.
        follow_zone: Callable[[], None] = getattr(time, "tzset", lambda: None)
        exits.callback(follow_zone)
        patch = exits.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("TZ", "UTC")
        follow_zone()
        patch.setenv("NO_PROXY", "*")
        made = Stage(folder, exits, patch)
        build(made.scenery, patch)
        yield made
