"""Each name as the CA will see it: its DNS, its CAA records, and a file of our own."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.doctor import caa, validator, web
from letsencrypt_mdaemon.doctor.findings import Code, Finding, Notes, Weight
from letsencrypt_mdaemon.doctor.nameservers import Status, is_public
from letsencrypt_mdaemon.system.parallel import ask_all
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from letsencrypt_mdaemon.doctor.caa import Authority
    from letsencrypt_mdaemon.doctor.nameservers import DnsAnswer, Kind
    from letsencrypt_mdaemon.doctor.validator import Dial
    from letsencrypt_mdaemon.doctor.web import Probe, Solver

_log = logging.getLogger(__name__)

MAX_ADDRESSES = 6
"""Addresses of each kind that are checked for a name."""

# RFC 6761, 7686, 8375 and 9476; what ICANN reserves for private use; and what it will
# not delegate because private networks use it so much.
_NOT_PUBLIC = (
    *("alt", "example", "home.arpa", "internal", "invalid", "local", "localhost"),
    *("onion", "test", "corp", "home", "mail", "lan", "localdomain"),
)


class Examined(NamedTuple):
    """What was found about a name.

    Args:
        served: The addresses at which the CA would find a token.
        publish: The CAA record that would keep others from getting certificates.
    """

    name: str
    served: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    publish: str = ""

    @property
    def weight(self) -> Weight:
        """The worst of the findings; a note if there are none."""
        weights = {finding.weight for finding in self.findings}
        return next((item for item in Weight if item in weights), Weight.NOTE)


class Examination(NamedTuple):
    """What was found about all names.

    Args:
        server: What is wrong with the web server on this machine.
        fetched: Whether a test file was fetched, or tried to be.
    """

    server: tuple[Finding, ...]
    names: tuple[Examined, ...]
    fetched: bool


class Doctor:
    """Examines names.

    Args:
        look_up: `Nameservers.look_up`; tests answer themselves.
        solver: Puts a test file into the webroot; None to fetch nothing.
        dial: How to connect; tests connect elsewhere.
        webmail: Further ports that may be webmail's.
    """

    def __init__(
        self,
        look_up: Callable[[str, Kind, float], DnsAnswer],
        authority: Authority,
        solver: Solver | None,
        *,
        dial: Dial,
        webmail: Sequence[int] = (),
    ) -> None:
        self._look_up = look_up
        self._authority = authority
        self._probe = (
            web.Probe(solver, self._address_of, dial, webmail) if solver else None
        )

    def examine(self, names: Sequence[str], *, timeout: float) -> Examination:
        """Examine all names at once, in this many seconds for all of them."""
        deadline = time.monotonic() + timeout
        server: list[Finding] = []
        notes = {name: Notes() for name in names}
        with ExitStack() as exits:
            probe = self._probe if names else None
            if probe and (failed := probe.show(exits)):
                server.append(failed)
                probe = None

            def work(name: str) -> bool:
                try:
                    self._check_name(name, notes[name], probe, deadline)
                except Exception as exc:  # noqa: BLE001 - the other names count
                    _log.debug("%s", name, exc_info=True)
                    error = f"{type(exc).__name__}: {printable(exc, 200)}"
                    notes[name].add(Code.UNFINISHED, f"{name}: {error}")
                return True

            left = deadline - time.monotonic()
            done = ask_all(work, names, timeout=left + web.OVERTIME_SECONDS)
            if probe and not any(row.served for row in notes.values()):
                server += probe.port80(names[0], deadline)
                _explain(server, notes.values())
        for name in names:
            if name not in done:
                seen = f"could not check {name} within {timeout:g} s"
                notes[name].add(Code.UNFINISHED, seen)
        examined = [
            Examined(name, tuple(row.served), tuple(row.findings), row.publish)
            for name, row in notes.items()
        ]
        return Examination(tuple(server), tuple(examined), probe is not None)

    def _check_name(
        self, name: str, notes: Notes, probe: Probe | None, deadline: float
    ) -> None:
        if self._authority.public and not is_public_name(name):
            seen = f"{name} ends in a domain that does not exist on the Internet"
            notes.add(Code.NAME_NOT_PUBLIC_TLD, seen, certain=True)
            return
        # The rest of the time is for fetching.
        left = deadline - time.monotonic()
        dns_deadline = deadline - min(validator.TIMEOUT_SECONDS, left / 2)
        addresses = self._addresses(name, notes, dns_deadline)
        if addresses is None:
            return
        self._check_caa(name, notes, dns_deadline)
        if self._authority.public:
            private = [item for item in addresses if not is_public(item)]
            addresses = [item for item in addresses if item not in private]
            if private:
                seen = f"{name} has the private address {', '.join(private)}"
                notes.add(Code.ADDR_PRIVATE, seen)
        if probe is not None:
            probe.fetch(name, addresses, notes, deadline)

    def _addresses(self, name: str, notes: Notes, deadline: float) -> list[str] | None:
        """Return the addresses, IPv6 first; None if the name has none."""
        six = self._look_up(name, "AAAA", deadline)
        four = self._look_up(name, "A", deadline)
        for answer in (six, four):
            if answer.status is Status.NXDOMAIN:
                kind = Code.DNS_NXDOMAIN
                if answer.zone == "." and self._authority.public:
                    kind = Code.NAME_NOT_PUBLIC_TLD
                seen = f"{name} does not exist, according to {answer.by}"
                notes.add(kind, seen, certain=bool(answer.zone))
                return None
        if not six.addresses and not four.addresses:
            notes.add(*_no_address(name, four, six))
            return None
        if Status.SERVFAIL in (six.resolver, four.resolver):
            seen = f"{name}: {four.by} answers, but this machine's resolver returns an "
            notes.add(Code.DNS_SERVFAIL, f"{seen}error, perhaps because of DNSSEC")
        for row in (six.addresses, four.addresses):
            if len(row) > MAX_ADDRESSES:
                only = f"only {', '.join(row[:MAX_ADDRESSES])} were checked"
                notes.add(Code.ADDR_MANY, f"{name} has {len(row)} addresses; {only}")
        return [*six.addresses[:MAX_ADDRESSES], *four.addresses[:MAX_ADDRESSES]]

    def _check_caa(self, name: str, notes: Notes, deadline: float) -> None:
        """Check the records that count: the nearest ones (RFC 8659, 3)."""
        authority = self._authority
        if not authority.identities:
            return
        owner = name
        records: Sequence[caa.Property] = ()
        while owner and not records:
            answer = self._look_up(owner, "CAA", deadline)
            if answer.status is Status.SERVFAIL:
                seen = f"{owner}: {answer.by} returns an error when asked about CAA"
                notes.add(Code.DNS_SERVFAIL, seen)
            if answer.status in (Status.SERVFAIL, Status.SILENT):
                return
            records = answer.properties
            if found := caa.check(owner, records, authority, certain=bool(answer.zone)):
                notes.findings.append(found)
                return
            owner = owner.partition(".")[2]
        if authority.account and not any("accounturi" in x.value for x in records):
            notes.publish = caa.exclusive_record(name, authority)

    def _address_of(self, host: str, deadline: float) -> str:
        """Return the address that the CA connects to for the host of a redirect."""
        if self._authority.public and not is_public_name(host):
            seen = f"the redirect leads to {host}, which is not on the Internet"
            raise validator.FetchError(Code.HTTP_REDIRECT_HOST, seen)
        six = self._look_up(host, "AAAA", deadline)
        four = self._look_up(host, "A", deadline)
        addresses = six.addresses or four.addresses
        if not addresses:
            kind, seen = _no_address(host, four, six)
            raise validator.FetchError(kind, f"the redirect leads to {seen}")
        if self._authority.public and not is_public(addresses[0]):
            seen = f"the redirect leads to {host} with the private address "
            raise validator.FetchError(Code.ADDR_PRIVATE, seen + addresses[0])
        return addresses[0]


def _explain(server: Sequence[Finding], names: Iterable[Notes]) -> None:
    """Give the names the cause that was found on this machine, instead of its effect.

    Else they would be told to bind port 80, which webmail does in no HTTPS only mode.
    """
    modes = {Code.WEBMAIL_OTHER_PORT, Code.WEBMAIL_HTTPS_ONLY}
    for cause in (finding.kind for finding in server if finding.kind in modes):
        for notes in names:
            notes.findings = [
                replace(x, kind=cause) if x.kind is Code.PORT80_REFUSED else x
                for x in notes.findings
            ]


_NO_ADDRESS = {
    Status.NXDOMAIN: (Code.DNS_NXDOMAIN, "answers that the name does not exist"),
    Status.SERVFAIL: (Code.DNS_SERVFAIL, "returns an error"),
    Status.SILENT: (Code.DNS_UNREACHABLE, "does not answer"),
    Status.NO_DATA: (Code.DNS_NO_ADDRESS, "has no address for the name"),
}


def _no_address(name: str, *answers: DnsAnswer) -> tuple[Code, str]:
    worst = min(answers, key=lambda answer: list(_NO_ADDRESS).index(answer.status))
    kind, phrase = _NO_ADDRESS[worst.status]
    return kind, f"{name}: {worst.by} {phrase}"


def is_public_name(name: str) -> bool:
    """Whether a name may be on the Internet, going by how it ends."""
    dotted = f".{name.rstrip('.')}"
    return not any(dotted.endswith(f".{ending}") for ending in _NOT_PUBLIC)
