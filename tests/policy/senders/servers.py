"""Zones that Knot serves and signs, Unbound that validates them, Postfix that sends."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dns.dnssec
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.update
from dns.rdatatype import DNSKEY, RdataType

from letsencrypt_mdaemon.policy.anchors import Anchor
from letsencrypt_mdaemon.policy.network import Network
from letsencrypt_mdaemon.policy.validator import Validator
from tests.limits import HANG_SECONDS
from tests.signed import SignedZone

RESOLVER, KNOT, SECOND, SILENT = "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.44"
NOW = datetime.now(UTC)
DATA = "ab" * 32

ROOT = """\
. 60 IN SOA ns1.test. admin.test. 1 60 60 600 1
. 60 IN NS ns1.test.
test. 60 IN NS ns1.test.
test. 60 IN NS ns2.test.
ns1.test. 60 IN A 127.0.0.2
ns2.test. 60 IN A 127.0.0.3
"""
HEAD = """\
@ 60 IN SOA ns1.test. admin.test. 1 60 60 600 1
@ 60 IN NS ns1.test.
@ 60 IN NS ns2.test.
"""
MAIL = f"""\
@ 1 IN MX 10 mail
mail 60 IN A 127.0.0.1
_25._tcp.mail 1 IN TLSA 3 1 1 {DATA}
alias 60 IN CNAME mail
_25._tcp.alias 60 IN CNAME _25._tcp.mail
*.wild 60 IN A 127.0.0.9
"""
SIGNED = {
    ".": ROOT,
    "test": HEAD + "ns1 60 IN A 127.0.0.2\nns2 60 IN A 127.0.0.3\n"
    "lame 60 IN A 127.0.0.1\nsilent 60 IN A 127.0.0.44\n",
    "example.test": HEAD + f"@ 1 IN MX 10 mail\nmail 60 IN A {RESOLVER}\n",
    "nsec.test": HEAD + MAIL,
    "nsec3.test": HEAD + MAIL + "under 60 IN NS ns1.test.\n",
    "wrong.test": HEAD + MAIL,
    "lamed.test": HEAD + MAIL + "@ 60 IN NS lame.test.\n@ 60 IN NS silent.test.\n",
}
UNSIGNED = {"plain.test": HEAD + MAIL, "under.nsec3.test": HEAD + MAIL}
PLAIN_HEAD = ["@ 60 IN NS ns2.test."]

KNOT_CONF = """\
server:
  rundir: {folder}/run
  listen: [ 127.0.0.2@53, 127.0.0.3@53 ]
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
log:
  - target: {folder}/knot.log
    any: info
database:
  storage: {folder}/db
acl:
  - id: update
    address: 127.0.0.0/8
    action: update
policy:
  - id: nsec
    algorithm: ECDSAP256SHA256
    single-type-signing: on
  - id: nsec3
    algorithm: ECDSAP256SHA256
    single-type-signing: on
    nsec3: on
    nsec3-iterations: 0
    nsec3-opt-out: on
template:
  - id: default
    storage: {folder}
    file: "%s.zone"
    acl: update
    journal-content: all
    zonefile-load: difference-no-serial
    zonefile-sync: -1
zone:
"""
UNBOUND_CONF = """\
server:
  interface: 127.0.0.1
  username: ""
  chroot: ""
  directory: {folder}
  pidfile: {folder}/unbound.pid
  logfile: {folder}/unbound.log
  use-syslog: no
  do-daemonize: no
  num-threads: 1
  root-hints: {folder}/hints
  trust-anchor-file: {folder}/anchor
  do-not-query-localhost: no
  local-zone: "test." nodefault
  cache-max-ttl: 0
  cache-max-negative-ttl: 0
  do-ip6: no
remote-control:
  control-enable: yes
  control-interface: {folder}/unbound.sock
  control-use-cert: no
"""


@dataclass
class Zones:
    """The running DNS."""

    folder: Path
    anchors: tuple[Anchor, ...]
    static: dict[str, SignedZone] = field(default_factory=dict)

    def validator(self, at: datetime | None = None) -> Validator:
        """Return our validator, which trusts this root."""
        at = at or datetime.now(UTC)
        return Validator(Network([RESOLVER]), at=at, trusted=self.anchors)

    def second_opinion(self, name: str, kind: RdataType) -> str:
        """Return what Unbound thinks: secure, unsigned or bogus."""
        query = dns.message.make_query(name, kind, want_dnssec=True)
        answer = dns.query.udp(query, RESOLVER, timeout=30)
        if answer.rcode() == dns.rcode.SERVFAIL:
            return "bogus"
        return "secure" if answer.flags & dns.flags.AD else "unsigned"

    def forget(self) -> None:
        """Let Unbound forget also the keys of zones."""
        conf = f"{self.folder}/unbound.conf"
        call("/usr/sbin/unbound-control", "-c", conf, "flush_zone", ".")

    def publish(self, zone: str, name: str, ttl: int, kind: str, *rows: str) -> None:
        """Replace records of a zone; Knot signs and serves them at once."""
        update = dns.update.UpdateMessage(zone)
        update.delete(name, kind)
        for row in rows:
            update.add(name, ttl, kind, row)
        answer = dns.query.tcp(update, KNOT, timeout=30)
        assert answer.rcode() == dns.rcode.NOERROR, answer

    def write(self, zone: SignedZone, text: str) -> None:
        """Serve a zone as it is, signed elsewhere."""
        self.static[zone.name] = zone
        (self.folder / f"{zone.name}.zone").write_text(text, "ascii")
        knotc(self.folder, "zone-reload", zone.name)

    def hashes(self, zone: str, *rows: str) -> None:
        """Let the parent name these keys."""
        label, _, parent = zone.partition(".")
        self.publish(parent, label, 60, "DS", *rows)


def knotc(folder: Path, *words: str) -> None:
    """Tell Knot something, and wait until it is done."""
    call("/usr/sbin/knotc", "-b", "-s", f"{folder}/run/knot.sock", *words)


def call(*command: str) -> str:
    """Run a program to its good end."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def zones(folder: Path) -> Iterator[Zones]:
    """Run Knot and Unbound with all zones, and let each parent name its children."""
    for name in ("run", "db"):
        (folder / name).mkdir()
    conf = KNOT_CONF.format(folder=folder)
    made = statics()
    texts = {**SIGNED, **UNSIGNED, **{zone.name: text for zone, text in made}}
    for name, text in texts.items():
        file = "root" if name == "." else name
        (folder / f"{file}.zone").write_text(text, "ascii")
        conf += f'  - domain: "{name}"\n    file: "{file}.zone"\n'
        if name in SIGNED:
            policy = "nsec3" if name == "nsec3.test" else "nsec"
            conf += f"    dnssec-signing: on\n    dnssec-policy: {policy}\n"
        elif name not in UNSIGNED:
            # Else Knot would raise its serial, and so break a signature.
            conf += "    zonefile-load: whole\n    journal-content: none\n"
    (folder / "knot.conf").write_text(conf, "ascii")
    with ExitStack() as exits:
        start = exits.enter_context
        start(running(["/usr/sbin/knotd", "-c", str(folder / "knot.conf")], folder))
        until(lambda: key_of(".") is not None, folder / "knot.log")
        (anchor,) = ds_of(".")
        tag, algorithm, kind, digest = anchor.split()
        (folder / "anchor").write_text(f". IN DS {anchor}\n", "ascii")
        (folder / "hints").write_text(
            f". 60 IN NS ns1.test.\nns1.test. 60 IN A {KNOT}\n", "ascii"
        )
        (folder / "unbound.conf").write_text(UNBOUND_CONF.format(folder=folder))
        anchors = (Anchor(int(tag), int(algorithm), int(kind), digest.lower()),)
        found = Zones(folder, anchors, {zone.name: zone for zone, _ in made})
        found.publish(".", "test.", 60, "DS", *ds_of("test"))
        for name in texts:
            if name.count(".") == 1 and name not in (".", "test"):
                found.publish(
                    "test", name.partition(".")[0], 60, "NS", *served_by(name)
                )
        for name in SIGNED:
            if name not in (".", "test", "wrong.test"):
                until(lambda name=name: key_of(name) is not None, folder / "knot.log")  # type: ignore[misc]
                found.hashes(name, *ds_of(name))
        found.hashes("wrong.test", SignedZone("wrong.test").ds)
        for zone, _ in made:
            found.hashes(zone.name, zone.ds)
        unbound = ["/usr/sbin/unbound", "-d", "-p", "-c", f"{folder}/unbound.conf"]
        start(running(unbound, folder))
        until(lambda: resolves(), folder / "unbound.log")  # noqa: PLW0108 - a look
        yield found


def served_by(name: str) -> list[str]:
    """Return the servers of a zone."""
    more = ["lame.test.", "silent.test."] if name == "lamed.test" else []
    return ["ns1.test.", "ns2.test.", *more]


def statics() -> list[tuple[SignedZone, str]]:
    """Return zones that were signed elsewhere, each with something wrong."""
    records = [*PLAIN_HEAD, *MAIL.splitlines()]
    day = timedelta(days=1)
    times = {"since": NOW - day, "until": NOW + 30 * day}
    expired = {"since": NOW - 30 * day, "until": NOW - day}
    made = [
        SignedZone("expired.test", records, **expired),  # type: ignore[arg-type]
        SignedZone("forged.test", records, **times),  # type: ignore[arg-type]
        SignedZone("rolled.test", records, **times),  # type: ignore[arg-type]
    ]
    texts = [text_of(zone) for zone in made]
    assert DATA in texts[1]
    texts[1] = texts[1].replace(DATA, "cd" * 32)
    return list(zip(made, texts, strict=True))


def text_of(zone: SignedZone, *others: SignedZone) -> str:
    """Return a signed zone file; with the keys of others, it is signed by all."""
    return zone.sign(*others).to_text(want_origin=False, relativize=False)


def key_of(name: str) -> object:
    """Return the keys that Knot serves of a zone."""
    query = dns.message.make_query(name, DNSKEY)
    try:
        answer = dns.query.udp(query, KNOT, timeout=1)
    except (dns.exception.Timeout, OSError):
        return None
    return answer.answer[0] if answer.answer else None


def ds_of(name: str) -> list[str]:
    """Return the hashes of the keys that Knot serves of a zone."""
    found: object = key_of(name)
    owner = dns.name.from_text(name)
    return [
        dns.dnssec.make_ds(owner, row, "SHA256").to_text()
        for row in found  # type: ignore[attr-defined]
        if row.flags & 1
    ]


def resolves() -> bool:
    """Whether Unbound answers."""
    query = dns.message.make_query("mail.example.test", "A")
    try:
        answer = dns.query.udp(query, RESOLVER, timeout=1)
    except (dns.exception.Timeout, OSError):
        return False
    return answer.rcode() == dns.rcode.NOERROR


def until(look: Callable[[], object], log: Path) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + HANG_SECONDS / 10
    while not look():
        if time.monotonic() > deadline:
            logs = [
                path for path in (*log.parent.glob("*.output"), log) if path.exists()
            ]
            said = "".join(path.read_text("utf-8", "replace") for path in logs)
            message = f"It did not come. The logs say:\n{said[-3000:]}"
            raise AssertionError(message)
        time.sleep(0.02)


@contextmanager
def running(command: Sequence[str], folder: Path) -> Iterator[None]:
    """Run a program until the block ends."""
    name = Path(command[0]).name
    with (folder / f"{name}.output").open("wb") as stream:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(HANG_SECONDS)
