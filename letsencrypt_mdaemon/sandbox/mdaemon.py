"""A small MDaemon that lives in one folder: the demo and the tests try things on it.

It has the folders, INI files, semaphores and RAW queue of the real server, serves its
webroot over HTTP and greets on SMTP. Which keys of the real server name its certificate
is not public, nor is the domain database's file name: `TARGETS`, `Domains.dat` and
`[Domain]` are the sandbox's own invention and say nothing about the real one.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import TYPE_CHECKING, NamedTuple, Self, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from letsencrypt_mdaemon.errors import Error

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from aiosmtpd.smtp import SMTP, Envelope, Session

LOCALHOST = "127.0.0.1"
FOREIGN = "0F1E2D3C4B5A69788796A5B4C3D2E1F001234567"
"""Thumbprint of somebody else's certificate: it is named, too, and must survive."""


class Target(NamedTuple):
    """One INI value that names a certificate; `file` is relative to the folder."""

    file: str
    section: str
    key: str


TARGETS = {
    "mail": Target("App/MDaemon.ini", "SSL", "Certificate"),  # upper-case hex
    "webmail": Target("WorldClient/WorldClient.ini", "SSL", "Certificates"),  # a list
    "admin": Target("WebAdmin/WebAdmin.ini", "SSL", "Certificate"),  # "AB CD EF ..."
}
"""Part of the server → where its certificate is named. The sandbox's own invention."""

RELOADS = {
    "RELOADCACHE.SEM": ("mail",),
    "RESTARTWC.SEM": ("webmail",),
    "RESTART.SEM": ("mail", "webmail", "admin"),
}
"""Semaphore → the parts that read their INI file again; any other one does nothing."""

# In Windows-1252 this has the bytes 96, FC, DF, 80 and 85: they are not UTF-8, and
# str.splitlines makes two lines of it.
REMARK = (
    "; Sandbox \u2013 Gr\u00fc\u00dfe, 5 \u20ac\u2026 its certificate keys are made up"
)
INI_FILES = {
    "App/MDaemon.ini": """\
{remark}
[Sandbox]
Made=Yes
[Domain]
Name={domain}
FQDN={host_name}
[Directories]
Raw={raw}
[Special]
IMAPKeywordFlags=Yes
DisabledAccountsSend550=Yes
[SSL]
Certificate={mail}
[Partner]
Certificate={foreign}
""",
    "App/Domains.dat": """\
{remark}
[{domain}]
FQDN={host_name}
IP=127.0.0.1
MaxUsers=0
[{other_domain}]
FQDN=mail.{other_domain}
IP=127.0.0.1
MaxUsers=5
""",
    "WorldClient/WorldClient.ini": """\
{remark}
[General]
HelpURL=https://help.{domain}/?topic=ssl&lang=de
[Session]
UseCSRFTokens=Yes
[SSL]
Certificates={webmail}
""",
    "WorldClient/Domains.ini": """\
{remark}
[Default:Settings]
WorldClientAPI:AllowTheseExternalOrigins=https://intranet.{domain}
[{domain}:Settings]
WorldClientAPI:AllowTheseExternalOrigins=https://{host_name}
""",
    # Its first section follows right after a byte order mark.
    "WebAdmin/WebAdmin.ini": """\
\ufeff[SSL]
Certificate={admin}
{remark}
[General]
Language=de
""",
}

ADDRESS = r"[^\s@,]+@[^\s@,]+"
RAW_HEADERS = {
    "from": ("From: ", ADDRESS),
    "to": ("To: ", rf"{ADDRESS}(?: *, *{ADDRESS})*"),
    "replyto": ("Reply-To: ", ADDRESS),
    "cc": ("Cc: ", rf"{ADDRESS}(?: *, *{ADDRESS})*"),
    "subject": ("Subject: ", r".*"),
    "header": ("", r"[!-9;-~]+: .*"),
}
"""Header of a RAW message → how a mail says it, and what its value looks like."""

PLACES = ("App", "WorldClient/HTML", "Queues/Raw", "Logs", "LetsEncrypt",
          "certificates", "delivered", "bad")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are in the sandbox's folder; all paths are absolute."""

    folder: Path
    app: Path
    webroot: Path
    raw: Path
    logs: Path
    letsencrypt: Path
    certificates: Path
    delivered: Path
    bad: Path

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Return the layout of a folder, whether it exists or not."""
        folder = folder.absolute()
        return cls(folder, *(folder / place for place in PLACES))


class Request(NamedTuple):
    """One HTTP request, and the status it was answered with."""

    method: str
    path: str
    host: str
    status: int


def create(
    folder: Path,
    *,
    host_name: str = "mail.example.test",
    domain: str = "example.test",
    other_domain: str = "example.org",
    now: datetime | None = None,
) -> Layout:
    """Write a new sandbox, with a self-signed certificate valid from `now` on.

    Raises:
        Error: The folder is not empty, or its name cannot be written in an INI file.
    """
    layout = Layout.of(folder)
    if layout.folder.exists() and any(layout.folder.iterdir()):
        raise Error(
            f"{layout.folder} is not empty: no sandbox was made there",
            hint="Name a folder that does not exist yet.",
        )
    try:
        str(layout.folder).encode("cp1252")
    except UnicodeEncodeError as exc:
        raise Error(
            f"{layout.folder} has characters that Windows-1252 lacks",
            hint="Choose a folder with a simpler name.",
        ) from exc
    for place in PLACES:
        (layout.folder / place).mkdir(parents=True)
    thumbprint = write_certificate(
        layout.certificates / "self-signed", host_name, now or datetime.now(UTC)
    )
    values = {
        "remark": REMARK,
        "host_name": host_name,
        "domain": domain,
        "other_domain": other_domain,
        "raw": str(layout.raw),
        "mail": thumbprint,
        "webmail": f"{thumbprint},{FOREIGN}".lower(),
        "admin": bytes.fromhex(thumbprint).hex(" ").upper(),
        "foreign": FOREIGN,
    }
    for name, template in INI_FILES.items():
        text = template.format_map(values).replace("\n", "\r\n")
        file = layout.folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(text.encode("utf-8" if text[0] == "\ufeff" else "cp1252"))
    return layout


def write_certificate(place: Path, host_name: str, now: datetime) -> str:
    """Write a self-signed certificate and its key as PEM; return its thumbprint."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host_name)])
    names = x509.SubjectAlternativeName([x509.DNSName(host_name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=3652))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    place.mkdir()
    (place / "cert.pem").write_bytes(pem)
    (place / "chain.pem").write_bytes(b"")
    (place / "fullchain.pem").write_bytes(pem)
    (place / "privkey.pem").touch(mode=0o600)  # private before the key is in it
    (place / "privkey.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate.fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303  a name


def read_value(file: Path, section: str, key: str) -> str:
    """Return an INI value as Windows' profile functions do, empty if it is not there.

    Letter case does not count, and the first of two equal keys wins. The program's own
    `ini` is not used, so that each checks the other.
    """
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return ""
    encoding = "utf-8-sig" if data.startswith(b"\xef\xbb\xbf") else "cp1252"
    inside = False
    for line in data.decode(encoding, "replace").split("\n"):
        name, equals, value = line.partition("=")
        if line.startswith("["):
            inside = line.strip().lower() == f"[{section}]".lower()
        elif inside and equals and name.strip().lower() == key.lower():
            return value.strip()
    return ""


def bound(folder: Path) -> dict[str, str]:
    """Return the thumbprint each part's INI file names now; of a list, the first."""
    values = {part: read_value(folder / t.file, *t[1:]) for part, t in TARGETS.items()}
    return {
        part: value.split(",")[0].replace(" ", "").upper()
        for part, value in values.items()
    }


def parse_raw(data: bytes) -> bytes:
    """Turn a RAW message into an Internet message.

    Strict where the specification is silent: a header that is unknown or given twice
    is refused, and so are angle brackets inside a value.

    Raises:
        ValueError: The message is malformed; the text says how.
    """
    head, blank, body = data.decode("ascii").partition("\r\n\r\n")
    if not blank:
        raise ValueError("no blank line after the headers")
    lines: list[str] = []
    seen: set[str] = set()
    for line in head.split("\r\n"):
        match = re.fullmatch(r"([A-Za-z]+) <([ -;=?-~]*)>", line)
        name = match[1].lower() if match else ""
        if not match or name not in RAW_HEADERS:
            raise ValueError(f"not a RAW header: {line!r}")
        if name in seen and name != "header":
            raise ValueError(f"header given twice: {line!r}")
        says, pattern = RAW_HEADERS[name]
        if not re.fullmatch(pattern, match[2]):
            raise ValueError(f"malformed value: {line!r}")
        seen.add(name)
        lines.append(says + match[2])
    if missing := {"from", "to"} - seen:
        raise ValueError(f"header missing: {', '.join(sorted(missing))}")
    return "\r\n".join([*lines, "", body]).encode("ascii")


def waiting(folder: Path, suffix: str) -> list[Path]:
    """Return the files with that suffix in any letter case, oldest first."""
    found = []
    for path in folder.glob("*"):
        with suppress(FileNotFoundError):  # taken away since it was listed
            if path.suffix.lower() == suffix and path.is_file():
                found.append((path.stat().st_mtime_ns, path.name, path))
    return [path for *_, path in sorted(found)]


class WebServer(ThreadingTCPServer):
    """A thread for each connection; closing it waits for all of them."""

    # Elsewhere than on POSIX this option would let two servers share a port.
    allow_reuse_address = os.name == "posix"
    record: Callable[[Request], None]


class Page(SimpleHTTPRequestHandler):
    """Answers with a file below the webroot; never lists a folder."""

    server: WebServer
    timeout = 2  # seconds: so long can a silent client hold up the end
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {"": "text/plain"}

    def list_directory(self, path: str | os.PathLike[str]) -> None:  # noqa: ARG002
        """Say that there is nothing."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:  # noqa: ARG002
        """Record the request; called before the answer leaves."""
        headers = getattr(self, "headers", {})  # unset when it could not be parsed
        path = getattr(self, "path", "")
        host = headers.get("Host", "")
        self.server.record(Request(self.command or "", path, host, int(code)))

    def log_message(self, *_args: object) -> None:
        """Write nothing: requests are recorded."""


class Server:
    """The running sandbox: a context manager around all that lives in its folder.

    Args:
        folder: A folder made by `create`.
        http_port: Where the webroot is served; 0 = a free port, known once entered.
        pickup: Seconds between two looks at semaphores and RAW queue.

    Attributes:
        ignore: Semaphores to leave alone, in upper case, to play a server that hangs.
        semaphores: Names consumed so far, in upper case, in order.
        serving: Part of the server → thumbprint of the certificate it would use now.
        passes: How often it has looked at semaphores and RAW queue.
    """

    def __init__(
        self, folder: Path, *, http_port: int = 0, pickup: float = 0.05
    ) -> None:
        self.layout = Layout.of(folder)
        self.http_port = http_port
        self.smtp_port = 0
        self.pickup = pickup
        self.ignore: set[str] = set()
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
            # In a real server's folder it would eat that server's mail.
            raise Error(
                f"{self.layout.folder} is not a sandbox",
                hint="Name a folder that does not exist yet, or one made earlier.",
            )
        self.host_name = read_value(ini, "Domain", "FQDN")
        self.raw = Path(read_value(ini, "Directories", "Raw"))
        self.serving = bound(self.layout.folder)
        with ExitStack() as starting:
            for part in (self.smtp, self.web, self.watch):
                starting.enter_context(part())
            self.running = starting.pop_all()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.running.close()

    def wait_for(self, predicate: Callable[[], object], timeout: float = 10) -> None:
        """Wait until the predicate is true; it is asked after every change and pass.

        Raises:
            TimeoutError: It was not true for `timeout` seconds.
        """
        with self.changed:
            if not self.changed.wait_for(predicate, timeout):
                raise TimeoutError(f"the sandbox did not get there in {timeout:g} s")

    @contextmanager
    def web(self) -> Iterator[None]:
        """Serve the webroot over HTTP."""
        page = partial(Page, directory=str(self.layout.webroot))
        try:
            server = WebServer((LOCALHOST, self.http_port), page)
        except OSError as exc:
            raise Error(
                f"cannot listen on {LOCALHOST}:{self.http_port}: {exc}",
                hint="Choose another port, or 0 for a free one.",
            ) from exc
        server.record = self.record
        self.http_port = server.socket.getsockname()[1]
        with server, thread(partial(server.serve_forever, 0.05), server.shutdown):
            yield

    @contextmanager
    def smtp(self) -> Iterator[None]:
        """Greet on SMTP and take mail."""
        try:
            from aiosmtpd.controller import Controller  # noqa: PLC0415  an extra
        except ImportError as exc:
            raise Error(
                "the sandbox speaks SMTP by aiosmtpd, which is not installed",
                hint='pip install "letsencrypt-mdaemon[demo]"',
            ) from exc

        class FreePort(Controller):
            def _trigger_server(self) -> None:
                # It knocks at its own port to see it work; 0 is none to knock at.
                server = cast("asyncio.Server", self.server)
                self.port = server.sockets[0].getsockname()[1]
                super()._trigger_server()  # type: ignore[no-untyped-call]

        name, ident = self.host_name, "ESMTP sandbox"
        controller = FreePort(self, LOCALHOST, 0, server_hostname=name, ident=ident)
        try:
            controller.start()
            self.smtp_port = controller.port
            yield
        finally:
            controller.stop(no_assert=True)

    async def handle_DATA(  # noqa: N802  aiosmtpd looks for this name
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        """Deliver what came by SMTP, its envelope on top (RFC 5321, section 4.4)."""
        lines = [f"Return-Path: <{envelope.mail_from}>"]
        lines += [f"Delivered-To: {address}" for address in envelope.rcpt_tos]
        head = "".join(f"{line}\r\n" for line in lines).encode()
        self.deliver(head + (envelope.original_content or b""))
        return "250 Message accepted for delivery"

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Look at semaphores and RAW queue again and again."""
        ending = threading.Event()

        def look() -> None:
            while not ending.wait(self.pickup):
                with self.changed:
                    self.take_semaphores()
                    self.take_raw()
                    self.passes += 1
                    self.changed.notify_all()

        with thread(look, ending.set):
            yield

    def take_semaphores(self) -> None:
        """Act on each semaphore, then delete it: once it is gone, the act is done."""
        found = {path: path.name.upper() for path in waiting(self.layout.app, ".sem")}
        if "LOCKSEMS.SEM" in found.values():
            return
        for path, name in found.items():
            if name not in self.ignore:
                with suppress(OSError):  # on Windows, still open elsewhere: next time
                    now = bound(self.layout.folder)
                    self.serving |= {part: now[part] for part in RELOADS.get(name, ())}
                    path.unlink()
                    self.semaphores.append(name)

    def take_raw(self) -> None:
        """Deliver each RAW message, or put it aside with the reason why not."""
        for path in waiting(self.raw, ".raw"):
            with suppress(OSError):  # on Windows, still open elsewhere: next time
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
        """Remember an HTTP request."""
        with self.changed:
            self.requests.append(request)
            self.changed.notify_all()


@contextmanager
def thread(work: Callable[[], None], end: Callable[[], None]) -> Iterator[None]:
    """Run `work` in a thread that is told to end, and waited for, on the way out."""
    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        end()
        worker.join()


def main() -> None:
    """Run a sandbox by hand until standard input ends."""
    parser = argparse.ArgumentParser(description="A small MDaemon to try things on.")
    parser.add_argument("--directory", type=Path, required=True)
    folder = parser.parse_args().directory
    if not folder.exists():
        create(folder)
    with Server(folder) as server:
        sys.stdout.write(f"HTTP port {server.http_port}, SMTP {server.smtp_port}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
