"""A small MDaemon in one folder, for the demo and the tests.

It has the folders, INI files, semaphores and RAW queue of the real server, serves its
webroot over HTTP and greets on SMTP. On request, it offers TLS on all its ports, with
faults. The real server's INI keys for its certificate, and the file name of its domain
database, are not public: `TARGETS`, `Domains.dat` and `[Domain]` are made up.
"""

from __future__ import annotations

import argparse
import sys
import threading
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Self

from letsencrypt_mdaemon.errors import Error
from letsencrypt_mdaemon.sandbox.folder import (
    TARGETS,
    Layout,
    create,
    find,
    named,
    parse_raw,
    read_value,
    self_signed,
    tls_context,
    waiting,
)
from letsencrypt_mdaemon.sandbox.ports import LOCALHOST, PORTS, Ports
from letsencrypt_mdaemon.sandbox.web import Fault, Page, Request, WebServer, thread

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from letsencrypt_mdaemon.pki.certificate import Certificate

RELOADS = {
    "RELOADCACHE.SEM": ("mail",),
    "RESTARTWC.SEM": ("webmail",),
    "RESTART.SEM": ("mail", "webmail", "admin"),
}
"""Semaphore -> the parts that reload their INI file; other semaphores do nothing.

`RESTART*.SEM` also closes the parts' connections and ports for a moment.
"""


class Server:
    """The running sandbox, as a context manager.

    Each part serves the first certificate that its INI file names and the store has. If
    there is none, or its key does not match, the part continues without TLS. A test or
    the demo can make it fail:

        server.ignore.add("RESTARTWC.SEM")  # like a server that hangs
        server.reloads["RESTARTWC.SEM"] = ()  # deletes it, and changes nothing
        server.reloads = dict.fromkeys(RELOADS, ("mail",))  # only mail reloads
        server.downtime = 5  # seconds that a restart takes
        server.spoil(Fault.DEAD, "webmail")  # with any certificate but the current one

    Args:
        folder: A folder made by `create`.
        http_port: The webroot's port; 0 = a free port, known once entered.
        pickup: Seconds between two checks of the semaphores and the RAW queue.
        tls: Open all ports with TLS, instead of only SMTP without TLS.

    Attributes:
        smtp_port: The SMTP port; known once entered, like `endpoints`.
        ignore: Semaphores to ignore, in upper case.
        reloads: The parts that each semaphore reloads, like `RELOADS`.
        downtime: Seconds that a restart takes.
        faults: Part -> its fault, and the certificate that is served without the fault.
        semaphores: Names consumed so far, in upper case, in order.
        serving: Part -> thumbprint of the certificate that it last loaded.
        down: Part that is restarting -> the time when it stopped listening.
        passes: Number of checks of the semaphores and the RAW queue.
    """

    def __init__(
        self,
        folder: Path,
        *,
        http_port: int = 0,
        pickup: float = 0.05,
        tls: bool = False,
    ) -> None:
        self.layout = Layout(folder)
        self.http_port = http_port
        self.smtp_port = 0
        self.pickup = pickup
        self.tls = tls
        self.ignore: set[str] = set()
        self.reloads = RELOADS.copy()
        self.downtime = 0.0
        self.faults: dict[str, tuple[Fault, str]] = {}
        self.down: dict[str, float] = {}
        self.requests: list[Request] = []
        self.semaphores: list[str] = []
        self.delivered: list[Path] = []
        self.serving: dict[str, str] = {}
        self.passes = 0
        self.changed = threading.Condition()
        self.running = ExitStack()

    def __enter__(self) -> Self:
        ini = self.layout.app / "MDaemon.ini"
        if read_value(ini, "Sandbox", "Made") != "Yes":
            # In a real server's folder, the sandbox would take that server's mail.
            raise Error(
                f"{self.layout.folder} is not a sandbox.",
                hint="Choose a folder that does not exist yet, or an existing sandbox.",
            )
        self.host_name = read_value(ini, "Domain", "FQDN")
        self.raw = Path(read_value(ini, "Directories", "Raw"))
        labels = PORTS if self.tls else ["smtp"]
        self.ports = Ports(self.host_name, self.deliver, labels)
        with ExitStack() as starting:
            starting.enter_context(self.ports)
            self.load(*TARGETS)
            self.smtp_port = self.ports.numbers["smtp"]
            starting.enter_context(self.web())
            starting.enter_context(self.watch())
            self.running = starting.pop_all()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.running.close()

    def wait_for(self, predicate: Callable[[], object], timeout: float = 10) -> None:
        """Wait until the predicate is true; it is checked after every change and pass.

        Raises:
            TimeoutError: If it is not true within `timeout` seconds.
        """
        with self.changed:
            if not self.changed.wait_for(predicate, timeout):
                raise TimeoutError(f"the condition was not met within {timeout:g} s")

    @property
    def endpoints(self) -> dict[str, str]:
        """Label, as in `ports.PORTS` -> URL; empty without TLS."""
        numbers = self.ports.numbers if self.tls else {}
        return {
            label: f"{PORTS[label].scheme}://{LOCALHOST}:{number}"
            for label, number in numbers.items()
        }

    @contextmanager
    def web(self) -> Iterator[None]:
        """Serve the webroot over HTTP."""
        page = partial(Page, directory=str(self.layout.webroot))
        try:
            server = WebServer((LOCALHOST, self.http_port), page)
        except OSError as exc:
            raise Error(
                f"Could not listen on {LOCALHOST}:{self.http_port}: {exc}.",
                hint="Choose another port, or 0 for a free one.",
            ) from exc
        server.record = self.record
        self.http_port = server.socket.getsockname()[1]
        with server, thread(partial(server.serve_forever, 0.05), server.shutdown):
            yield

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Check the semaphores and the RAW queue again and again."""
        ending = threading.Event()

        def look() -> None:
            while not ending.wait(self.pickup):
                with self.changed:
                    self.come_back()
                    if "mail" not in self.down:  # that is MDaemon itself
                        self.take_semaphores()
                        self.take_raw()
                    self.passes += 1
                    self.changed.notify_all()

        with thread(look, ending.set):
            yield

    def take_semaphores(self) -> None:
        """Act on each semaphore, then delete it: its absence ends the reload."""
        found = {path: path.name.upper() for path in waiting(self.layout.app, ".sem")}
        if "LOCKSEMS.SEM" in found.values():
            return
        for path, name in found.items():
            if name not in self.ignore:
                with suppress(OSError):  # on Windows, still open elsewhere: next pass
                    parts = self.reloads.get(name, ())
                    if name.startswith("RESTART"):
                        self.go_down(*parts)
                        self.come_back()
                    else:
                        self.load(*(part for part in parts if part not in self.down))
                    path.unlink()
                    self.semaphores.append(name)

    def go_down(self, *parts: str) -> None:
        """Stop listening, until `come_back` starts the parts again."""
        for part in parts:
            self.ports.close(part)
            self.down[part] = monotonic()

    def come_back(self) -> None:
        """Start each part that has been down for long enough."""
        for part, since in list(self.down.items()):
            if monotonic() - since >= self.downtime:
                with suppress(OSError):  # file or port not available: next pass
                    self.load(part)
                    del self.down[part]

    def load(self, *parts: str) -> None:
        """Load the certificates that the parts' INI files name now, and listen."""
        store = self.layout.certificates
        for part in parts:
            names = named(self.layout.folder, part)
            found = next(filter(None, (find(store, name) for name in names)), None)
            self.serving[part] = found.thumbprint if found else names[0]
            fault, good = self.faults.get(part, (None, ""))
            if self.serving[part] == good:
                fault = None
            if fault is Fault.DEAD:
                self.ports.close(part)
            elif self.tls:
                self.ports.open(part, self.context(found, fault, good))
            else:
                self.ports.open(part, None)

    def context(
        self, found: Certificate | None, fault: Fault | None, good: str
    ) -> ssl.SSLContext | None:
        """Return a part's TLS settings; None if it offers no TLS."""
        if found and fault is Fault.NO_CHAIN:
            found = found._replace(chain=found.chain[:1])
        elif found and fault is Fault.STALE_CHAIN:
            former = find(self.layout.certificates, good)
            others = former.chain[1:] if former else ()
            found = found._replace(chain=(found.leaf, *others))
        elif fault is Fault.WRONG:
            found = self.stranger
        elif fault is Fault.NO_TLS:
            found = None
        with suppress(OSError):  # the key does not match
            return tls_context(found) if found else None
        return None

    @cached_property
    def stranger(self) -> Certificate:
        """The wrong certificate, for `Fault.WRONG`."""
        return self_signed("other.example.test", datetime.now(UTC))

    def spoil(self, fault: Fault, *parts: str) -> None:
        """Let parts fail with any certificate but the one that they serve now.

        Args:
            parts: The parts; none = all. The fault appears when a part reloads.
        """
        with self.changed:
            for part in parts or TARGETS:
                self.faults[part] = fault, self.serving[part]

    def take_raw(self) -> None:
        """Deliver each RAW message, or move it to `bad` with the reason."""
        for path in waiting(self.raw, ".raw"):
            with suppress(OSError):  # on Windows, still open elsewhere: next pass
                try:
                    mail = parse_raw(path.read_bytes())
                except ValueError as exc:
                    reason = self.layout.bad / f"{path.name}.txt"
                    reason.write_text(f"{exc}\n", encoding="utf-8")
                    path.replace(self.layout.bad / path.name)
                else:
                    path.unlink()
                    self.deliver(mail)

    def deliver(self, mail: bytes) -> None:
        """Write a mail as the next numbered file."""
        with self.changed:
            number = len(list(self.layout.delivered.glob("*.eml"))) + 1
            file = self.layout.delivered / f"{number:04}.eml"
            file.write_bytes(mail)
            self.delivered.append(file)
            self.changed.notify_all()

    def record(self, request: Request) -> None:
        """Record an HTTP request."""
        with self.changed:
            self.requests.append(request)
            self.changed.notify_all()


def main() -> None:
    """Run a sandbox until standard input ends."""
    parser = argparse.ArgumentParser(description="Run a small MDaemon for tests.")
    parser.add_argument("--directory", type=Path, required=True)
    folder = parser.parse_args().directory
    if not folder.exists():
        create(folder)
    with Server(folder, tls=True) as server:
        sys.stdout.write(f"HTTP port {server.http_port}, SMTP {server.smtp_port}\n")
        for label, url in server.endpoints.items():
            sys.stdout.write(f"{label}: {url}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
