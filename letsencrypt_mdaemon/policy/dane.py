"""The TLSA records of a mail server's ports, as senders look them up (RFC 7672, 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dns.rdatatype import CNAME, MX, TLSA, A

from letsencrypt_mdaemon.pki.tlsa import SMTP, Tlsa
from letsencrypt_mdaemon.policy.answer import State

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from letsencrypt_mdaemon.policy.answer import Answer
    from letsencrypt_mdaemon.policy.validator import Validator

MAX_HOSTS = 20
"""The MX hosts of one domain that are looked up."""
MAX_RECORDS = 100
"""The TLSA records of one port that count; an honest zone has a handful."""


class Published(NamedTuple):
    """What senders may see of a port.

    Args:
        owner: The name of the records.
        host: The name that clients look for in the certificate.
        records: Those that every server of the zone has. None are there if the zone is
            unsigned: then clients ask for none.
        partly: Those that only some servers have.
        ttl: Seconds that caches may keep them.
        why: Why nothing can be said of it; "" if something can.
    """

    owner: str
    host: str
    port: int
    records: tuple[Tlsa, ...] = ()
    partly: tuple[Tlsa, ...] = ()
    ttl: int = 0
    why: str = ""


class Found(NamedTuple):
    """What was looked up.

    Args:
        ports: Those with records, and those of which nothing can be said.
        failed: The domains whose MX hosts could not be looked up, with why.
        hosts: The names that were looked up.
    """

    ports: tuple[Published, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    hosts: tuple[str, ...] = ()


def look_up(
    dns: Validator,
    names: Iterable[str],
    ports: Collection[int],
    domains: Iterable[str],
) -> Found:
    """Look up the TLSA records of some names and of the MX hosts of some domains.

    Args:
        names: Looked up at all of the ports; the MX hosts only where mail is delivered.
    """
    wanted = {name: sorted({SMTP, *ports}) for name in names}
    failed = []
    for domain in domains:
        answer = dns.look_up(domain, MX)
        if not answer.is_known:
            failed.append((domain, answer.why))
        for host in mx_hosts(answer):
            wanted.setdefault(host, [SMTP])
    found = []
    for host, at in wanted.items():
        found += _of_host(dns, host, at)
    return Found(tuple(found), tuple(failed), tuple(wanted))


def mx_hosts(answer: Answer) -> list[str]:
    """Return the hosts of MX records, the preferred first; a lone "." is none.

    RFC 5321, 5.1; RFC 7505. A domain without MX records is its own host.
    """
    rows = sorted(answer.rdatas, key=lambda row: row.preference)[:MAX_HOSTS]
    hosts = [row.exchange.to_text(omit_final_dot=True).lower() for row in rows]
    if not rows and answer.is_known and answer.exists:
        hosts = [answer.owner.lower()]
    return [host for host in dict.fromkeys(hosts) if host not in ("", ".", "@")]


def _of_host(dns: Validator, host: str, ports: Sequence[int]) -> list[Published]:
    address = dns.look_up(host, A)
    if not address.is_known:
        return [_failed(host, port, address) for port in ports]
    # The name that the aliases lead to comes first (RFC 7671, 7).
    bases = list(dict.fromkeys([address.owner.lower(), host]))
    if address.state is State.INSECURE:
        alias = dns.look_up(host, CNAME)
        if alias.state is not State.SECURE or not alias.rdatas:
            return []  # RFC 7672, 2.2.2
        bases = [host]
    open_ports = set(ports)
    found = []
    for base in bases:
        parent = dns.look_up(f"_tcp.{base}", TLSA)
        if parent.state is State.SECURE and not parent.exists:
            continue  # nothing is below it, either (RFC 8020)
        for port in sorted(open_ports):
            row = _of_port(dns, base, port)
            if row is not None:
                open_ports.remove(port)
                found.append(row)
    return found


def _of_port(dns: Validator, host: str, port: int) -> Published | None:
    """Return what is published of a port; None if nothing is."""
    answer = dns.look_up(f"_{port}._tcp.{host}", TLSA)
    if not answer.is_known:
        return _failed(host, port, answer)
    if answer.state is State.INSECURE:
        return None
    rows = dns.at_all_servers(answer, TLSA) or [answer]
    seen = [_records(row) for row in rows if row.state is State.SECURE]
    if any(row.state is State.BOGUS for row in rows):
        seen.append(frozenset())  # senders who ask that server get no proof
    everywhere, anywhere = frozenset.intersection(*seen), frozenset.union(*seen)
    if not anywhere:
        return None
    return Published(
        owner=f"_{port}._tcp.{host}",
        host=host,
        port=port,
        records=tuple(sorted(everywhere)),
        partly=tuple(sorted(anywhere - everywhere)),
        ttl=max(row.ttl for row in [*rows, answer]),
    )


def _records(answer: Answer) -> frozenset[Tlsa]:
    rows = {
        Tlsa.read(row.usage, row.selector, row.mtype, row.cert) for row in answer.rdatas
    }
    # Servers give them in any order, but the same ones have to count.
    return frozenset(sorted(rows)[:MAX_RECORDS])


def _failed(host: str, port: int, answer: Answer) -> Published:
    why = answer.why or answer.state.value
    return Published(f"_{port}._tcp.{host}", host, port, why=why)
