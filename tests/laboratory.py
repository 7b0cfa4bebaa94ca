"""A small DNS, odd web servers, and a doctor who sees nothing else of the world."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from letsencrypt_mdaemon.doctor.caa import Authority
from letsencrypt_mdaemon.doctor.examination import Doctor, Examination, Examined
from letsencrypt_mdaemon.doctor.nameservers import DnsAnswer, Kind, Nameservers
from letsencrypt_mdaemon.mdaemon.webroot import Webroot
from tests.limits import HANG_SECONDS
from tests.servers import LOCALHOST, OTHER_HOST, Serve, listening

# Public addresses at which nobody is at home (RFC 7534 and 7535).
FOUR = "192.31.196.1"
OTHER_FOUR = "192.175.48.1"
SIX = "2620:4f:8000::1"
NAME = "mail.laboratory.org"
ZONE = "laboratory.org"
CA = "ca.laboratory.net"
ACCOUNT = f"https://{CA}/acct/1"

RESOLVER, OWN = "resolver", "own"


@dataclass
class Dns:
    """A resolver and root at 127.0.0.1, and the servers of all zones at `OTHER_HOST`.

    Args:
        records: By name, then by type, as in zone files.
        broken: What is done to a question about a name instead of answering it, by
            who is asked: an answer's code, or None to say nothing.
        referrals: By name, where the zones' servers refer to: a server, and what they
            say its address is.
        without_aa: Let the zones' servers answer like a proxy.
        says: What is said to every question by UDP.
    """

    records: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    zones: list[str] = field(default_factory=lambda: [ZONE, "org"])
    glue: bool = True
    broken: dict[tuple[str, str], dns.rcode.Rcode | None] = field(default_factory=dict)
    referrals: dict[str, tuple[str, str]] = field(default_factory=dict)
    without_aa: bool = False
    says: bytes | None = None
    asked: list[tuple[str, str, str, str]] = field(default_factory=list)
    port: int = 0

    def answer(self, data: bytes, role: str, transport: str) -> bytes | None:
        """Return the answer to a question."""
        query = dns.message.from_wire(data)
        if self.says is not None and transport == "udp":
            return self.says
        (question,) = query.question
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        if role == RESOLVER and not query.flags & dns.flags.RD:
            role = "root"
        self.asked.append((role, name, kind, transport))
        response = dns.message.make_response(query)
        if (role, name) in self.broken:
            rcode = self.broken[role, name]
            if rcode is None:
                return None
            response.set_rcode(rcode)
        elif role == "root" and (zone := self._zone(name)):
            self._refer(response, zone, f"ns.{zone}", OTHER_HOST)
        elif role == OWN and name in self.referrals:
            self._refer(response, name, *self.referrals[name])
        else:
            self._fill(response, name, kind, follow=role == RESOLVER)
            if role == RESOLVER:
                response.flags |= dns.flags.RA
            elif not self.without_aa:
                response.flags |= dns.flags.AA
        wire = response.to_wire(max_size=65535)
        limit = query.payload if query.edns >= 0 else 512
        if transport == "udp" and len(wire) > limit:
            short = dns.message.make_response(query)
            short.flags |= dns.flags.TC
            return short.to_wire()
        return wire

    def _zone(self, name: str) -> str | None:
        above = [zone for zone in self.zones if f".{name}".endswith(f".{zone}")]
        return max(above, key=len, default=None)

    def _refer(
        self, response: dns.message.Message, zone: str, server: str, address: str
    ) -> None:
        response.authority.append(
            dns.rrset.from_text(f"{zone}.", 60, "IN", "NS", f"{server}.")
        )
        if self.glue:
            response.additional.append(
                dns.rrset.from_text(f"{server}.", 60, "IN", _kind(address), address)
            )

    def _fill(
        self, response: dns.message.Message, name: str, kind: str, *, follow: bool
    ) -> None:
        known = dict(self.records)
        known["."] = {"NS": ["ns.root."]}
        known["ns.root"] = {"A": [LOCALHOST]}
        for zone in self.zones:
            known.setdefault(zone, {})
            known.setdefault(f"ns.{zone}", {_kind(OTHER_HOST): [OTHER_HOST]})
        for _ in range(20):
            rows = known.get(name)
            if rows is None:
                if not any(other.endswith(f".{name}") for other in known):
                    response.set_rcode(dns.rcode.NXDOMAIN)
                return
            wanted = "CNAME" if "CNAME" in rows else kind
            if wanted not in rows:
                return
            response.answer.append(
                dns.rrset.from_text(
                    dns.name.from_text(name), 60, "IN", wanted, *rows[wanted]
                )
            )
            if wanted == kind or not follow:
                return
            name = rows["CNAME"][0].rstrip(".")


class _Udp(socketserver.BaseRequestHandler):
    server: _DnsServer

    def handle(self) -> None:
        data, connection = self.request
        reply = self.server.dns.answer(data, self.server.role, "udp")
        if reply is not None:
            connection.sendto(reply, self.client_address)


def _kind(address: str) -> str:
    return "AAAA" if ":" in address else "A"


class _Tcp(socketserver.StreamRequestHandler):
    server: _DnsServer

    def handle(self) -> None:
        (length,) = struct.unpack("!H", self.rfile.read(2))
        reply = self.server.dns.answer(self.rfile.read(length), self.server.role, "tcp")
        if reply is not None:
            self.wfile.write(struct.pack("!H", len(reply)) + reply)


class _DnsServer(socketserver.BaseServer):
    dns: Dns
    role: str


@contextmanager
def _dns_server(dns_: Dns, host: str, role: str, kind: str, port: int) -> Iterator[int]:
    base = {
        "udp": socketserver.ThreadingUDPServer,
        "tcp": socketserver.ThreadingTCPServer,
    }
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = type("Server", (base[kind],), {"address_family": family})
    with made((host, port), _Udp if kind == "udp" else _Tcp) as server:
        server.dns, server.role = dns_, role
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def dns_server(dns_: Dns) -> Iterator[Dns]:
    """Let a DNS live on one port: at both addresses, by UDP and by TCP."""
    with ExitStack() as exits:
        for _ in range(50):
            attempt = ExitStack()
            try:
                start = attempt.enter_context
                port = start(_dns_server(dns_, LOCALHOST, RESOLVER, "tcp", 0))
                start(_dns_server(dns_, LOCALHOST, RESOLVER, "udp", port))
                start(_dns_server(dns_, OTHER_HOST, OWN, "udp", port))
                start(_dns_server(dns_, OTHER_HOST, OWN, "tcp", port))
            except OSError:  # the port is taken at another of them
                attempt.close()
                continue
            exits.enter_context(attempt)
            dns_.port = port
            break
        yield dns_


# Web servers

Answer = bytes | Iterable[bytes]


def web(answer: Callable[[str, str], Answer]) -> Serve:
    """Answer each request by a function of its path and host."""

    def serve(connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(4096)
            if not piece:
                return
            head += piece
        lines = head.decode("ascii").split("\r\n")
        path = lines[0].split(" ")[1]
        host = next(x[6:] for x in lines if x.lower().startswith("host: "))
        said = answer(path, host)
        for piece in [said] if isinstance(said, bytes) else said:
            connection.sendall(piece)

    return serve


def page(
    body: bytes = b"", status: str = "200 OK", *headers: str, length: bool = True
) -> bytes:
    """Return an answer."""
    lines = [f"HTTP/1.1 {status}", *headers]
    lines += [f"Content-Length: {len(body)}"] if length else []
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def moved(location: str, status: str = "301 Moved") -> bytes:
    """Return a redirect."""
    return page(b"", status, f"Location: {location}")


# All together

Way = int | Exception


@dataclass
class World:
    """What a doctor sees.

    Args:
        ways: Where connections to an address and a port of the world really lead: to a
            port of this machine, or to an error. Any other is refused.
        webmail: The ports in the server's files.
    """

    folder: Path
    dns: Dns
    exits: ExitStack
    authority: Authority = field(default_factory=Authority)
    ways: dict[tuple[str, int], Way] = field(default_factory=dict)
    dialled: list[tuple[str, int]] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    webmail: tuple[int, ...] = ()

    @property
    def webroot(self) -> Path:
        """The folder that is served."""
        return self.folder / "webroot"

    def serve(
        self,
        answer: Callable[[str, str], Answer] | Serve,
        *addresses: str,
        port: int = 80,
        raw: bool = False,
    ) -> None:
        """Let a web server answer at some addresses."""
        serve: Serve = answer if raw else web(answer)  # type: ignore[assignment, arg-type]
        host = OTHER_HOST if any(":" in address for address in addresses) else LOCALHOST
        real = self.exits.enter_context(listening(serve, host))
        for address in addresses:
            self.ways[address, port] = real

    def file(self, path: str, host: str) -> bytes:
        """Answer as a web server that publishes the webroot."""
        self.requests.append((host, path))
        path = path.partition("?")[0]
        file = self.webroot / path.removeprefix("/")
        if not file.is_file():
            return page(b"Not here", "404 Not Found")
        return page(file.read_bytes())

    def token(self) -> bytes:
        """Return the content of the only token file."""
        (file,) = (self.webroot / ".well-known" / "acme-challenge").iterdir()
        return file.read_bytes()

    def dial(self, address: str, port: int, timeout: float) -> socket.socket:
        """Connect to where the way leads."""
        self.dialled.append((address, port))
        way = self.ways.get((address, port), ConnectionRefusedError(111, "refused"))
        if isinstance(way, Exception):
            raise way
        host = OTHER_HOST if ":" in address else LOCALHOST
        return socket.create_connection((host, way), timeout)

    def has(self, name: str, **records: list[str] | str) -> None:
        """Put records of a name into DNS."""
        self.dns.records[name] = {
            kind: [row] if isinstance(row, str) else row
            for kind, row in records.items()
        }

    def doctor(
        self,
        look_up: Callable[[str, Kind, float], DnsAnswer] | None = None,
        *,
        fetch: bool = True,
    ) -> Doctor:
        """Return a doctor."""
        return Doctor(
            look_up or Nameservers([LOCALHOST], port=self.dns.port).look_up,
            self.authority,
            Webroot(self.webroot, self.folder / "journal.json") if fetch else None,
            dial=self.dial,
            webmail=self.webmail,
        )

    def examine(
        self, *names: str, fetch: bool = True, timeout: float = HANG_SECONDS
    ) -> Examination:
        """Examine names."""
        return self.doctor(fetch=fetch).examine(names or [NAME], timeout=timeout)

    def found(self, name: str = NAME, *, fetch: bool = True) -> Examined:
        """Examine one name."""
        (examined,) = self.examine(name, fetch=fetch).names
        return examined

    def codes(self, name: str = NAME, *, fetch: bool = True) -> list[str]:
        """Return the codes found about a name."""
        return [finding.code for finding in self.found(name, fetch=fetch).findings]


@contextmanager
def world(folder: Path, dns_: Dns) -> Iterator[World]:
    """Make a world in which a name is served as it should be, at both its addresses.

    Args:
        dns_: One that lives; it forgets what it knew.
    """
    vars(dns_).update(vars(Dns(port=dns_.port)))
    with ExitStack() as exits:
        made = World(folder, dns_, exits)
        made.webroot.mkdir()
        made.has(NAME, A=FOUR, AAAA=SIX)
        made.serve(made.file, FOUR, LOCALHOST)
        made.serve(made.file, SIX)
        yield made
    assert not list(folder.rglob(".well-known"))
    assert not list(folder.rglob("journal.json"))
