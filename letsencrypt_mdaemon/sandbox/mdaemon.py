"""A small MDaemon in one folder, for the demo and the tests.

It has the folders, INI files, semaphores and RAW queue of the real server, serves its
webroot over HTTP and greets on SMTP. On request, it offers TLS on all its ports, with
faults. The real server's INI keys for its certificate, and the file name of its domain
database, are not public: `TARGETS`, `Domains.dat` and `[Domain]` are made up.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import cached_property, partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, Self

from letsencrypt_mdaemon.errors import Error
from letsencrypt_mdaemon.sandbox import folder as files
from letsencrypt_mdaemon.sandbox.folder import TARGETS
from letsencrypt_mdaemon.sandbox.ports import LOCALHOST, PORTS, Ports

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


class Request(NamedTuple):
    """One HTTP request, and the status of its answer."""

    method: str
    path: str
    host: str
    status: int


class WebServer(ThreadingTCPServer):
    """A thread for each connection; closing it waits for all of them."""

    # On Windows, this option would let two servers share a port.
    allow_reuse_address = os.name == "posix"
    record: Callable[[Request], None]


class Page(SimpleHTTPRequestHandler):
    """Answers with a file below the webroot; never lists a folder."""

    server: WebServer
    timeout = 2  # seconds that a silent client can delay the shutdown
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {"": "text/plain"}

    def list_directory(self, path: str | os.PathLike[str]) -> None:  # noqa: ARG002
        """Answer with 404."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:  # noqa: ARG002
        """Record the request; called before the answer is sent."""
        headers = getattr(self, "headers", {})  # unset if the request is malformed
        path = getattr(self, "path", "")
        host = headers.get("Host", "")
        self.server.record(Request(self.command or "", path, host, int(code)))

    def log_message(self, *_args: object) -> None:
        """Write nothing: requests are recorded."""


class Fault(Enum):
    """A fault of a part of the server, once its INI file names another certificate."""

    DEAD = "the ports are closed"
    NO_TLS = "the ports offer no TLS"
    WRONG = "the ports serve a self-signed certificate for another name"
    NO_CHAIN = "the ports serve the new certificate without intermediates"
    STALE_CHAIN = "the ports serve the new certificate with the old intermediates"


@contextmanager
def thread(work: Callable[[], None], end: Callable[[], None]) -> Iterator[None]:
    """Run `work` in a thread; at exit, call `end` and wait for the thread."""
    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        end()
        worker.join()


@dataclass(eq=False, repr=False)
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
    """

    folder: Path  # made by `create`
    _: KW_ONLY
    http_port: int = 0  # of the webroot; 0 = a free port, known once entered
    pickup: float = 0.05  # seconds between two checks of semaphores and RAW queue
    tls: bool = False  # open all ports with TLS, instead of only SMTP without TLS

    def __post_init__(self) -> None:
        self.layout = files.Layout(self.folder)
        self.smtp_port = 0  # known once entered, like `endpoints`
        self.ignore: set[str] = set()  # semaphores to ignore, in upper case
        self.reloads = RELOADS.copy()  # semaphore -> the parts that it reloads
        self.downtime = 0.0  # seconds that a restart takes
        # Part -> its fault, and the certificate that is served without the fault.
        self.faults: dict[str, tuple[Fault, str]] = {}
        self.down: dict[str, float] = {}  # part -> when it stopped listening to restart
        self.requests: list[Request] = []
        self.semaphores: list[str] = []  # consumed so far, in upper case, in order
        self.delivered: list[Path] = []
        self.serving: dict[str, str] = {}  # part -> thumbprint that it last loaded
        self.passes = 0  # checks of the semaphores and the RAW queue so far
        self.changed = threading.Condition()
        self.running = ExitStack()

    def __enter__(self) -> Self:
        ini = self.layout.app / "MDaemon.ini"
        if files.read_value(ini, "Sandbox", "Made") != "Yes":
            # In a real server's folder, the sandbox would take that server's mail.
            raise Error(
                f"{self.layout.folder} is not a sandbox.",
                hint="Choose a folder that does not exist yet, or an existing sandbox.",
            )
        self.host_name = files.read_value(ini, "Domain", "FQDN")
        self.raw = Path(files.read_value(ini, "Directories", "Raw"))
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
        found = {at: at.name.upper() for at in files.waiting(self.layout.app, ".sem")}
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
            names = files.named(self.layout.folder, part)
            stored = (files.find(store, name) for name in names)
            found = next(filter(None, stored), None)
            self.serving[part] = found.thumbprint if found else names[0]
            fault, good = self.faults.get(part, (None, ""))
            if self.serving[part] == good:
                fault = None
            if fault is Fault.DEAD:
                self.ports.close(part)
            else:
                tls = self.context(found, fault, good) if self.tls else None
                self.ports.open(part, tls)

    def context(
        self, found: Certificate | None, fault: Fault | None, good: str
    ) -> ssl.SSLContext | None:
        """Return a part's TLS settings; None if it offers no TLS."""
        if fault is Fault.NO_TLS:
            found = None
        elif fault is Fault.WRONG:
            found = self.stranger
        elif found and fault in {Fault.NO_CHAIN, Fault.STALE_CHAIN}:
            stale = fault is Fault.STALE_CHAIN
            former = files.find(self.layout.certificates, good) if stale else None
            others = former.chain[1:] if former else ()
            found = found._replace(chain=(found.leaf, *others))
        with suppress(OSError):  # the key does not match
            return files.tls_context(found) if found else None
        return None

    @cached_property
    def stranger(self) -> Certificate:
        """The wrong certificate, for `Fault.WRONG`."""
        return files.self_signed("other.example.test", datetime.now(UTC))

    def spoil(self, fault: Fault, *parts: str) -> None:
        """Let parts (none = all) fail with any certificate but their current one.

        The fault appears when a part reloads.
        """
        with self.changed:
            for part in parts or TARGETS:
                self.faults[part] = fault, self.serving[part]

    def take_raw(self) -> None:
        """Deliver each RAW message, or move it to `bad` with the reason."""
        for path in files.waiting(self.raw, ".raw"):
            with suppress(OSError):  # on Windows, still open elsewhere: next pass
                try:
                    mail = files.parse_raw(path.read_bytes())
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
        files.create(folder)
    with Server(folder, tls=True) as server:
        sys.stdout.write(f"HTTP port {server.http_port}, SMTP {server.smtp_port}\n")
        for label, url in server.endpoints.items():
            sys.stdout.write(f"{label}: {url}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
