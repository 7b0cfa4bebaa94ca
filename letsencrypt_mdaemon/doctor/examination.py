"""Each name as the CA will see it: its DNS, its CAA records, and a file of our own."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from letsencrypt_mdaemon.doctor import caa, validator
from letsencrypt_mdaemon.doctor.advice import Code, Weight
from letsencrypt_mdaemon.doctor.findings import Finding, Notes
from letsencrypt_mdaemon.doctor.nameservers import Status, is_public
from letsencrypt_mdaemon.doctor.web import (
    GRACE,
    LOCALHOST,
    NO_CONNECTION,
    WEBMAIL,
    WRONG_CONTENT,
    Token,
    elsewhere,
    is_own,
    note_https,
    sample_token,
    unfinished,
)
from letsencrypt_mdaemon.errors import Error
from letsencrypt_mdaemon.system.disk import read_limited
from letsencrypt_mdaemon.system.parallel import ask_all
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from letsencrypt_mdaemon.doctor.caa import Authority
    from letsencrypt_mdaemon.doctor.nameservers import Answer, Kind
    from letsencrypt_mdaemon.doctor.validator import Dial, Fetched


_log = logging.getLogger(__name__)


MOST = 6
"""Addresses of each kind that are asked."""


# RFC 6761, 7686, 8375 and 9476; what ICANN keeps for private use; and what it will not
# delegate, as it is used so much.
_NOT_PUBLIC = (
    *("alt", "example", "home.arpa", "internal", "invalid", "local", "localhost"),
    *("onion", "test", "corp", "home", "mail", "lan", "localdomain"),
)


class Dns(Protocol):
    """Tells what DNS says of a name."""

    def look_up(self, name: str, kind: Kind, deadline: float) -> Answer:
        """Return it, in time."""
        ...


class Solver(Protocol):
    """Shows tokens below a folder that is served."""

    @property
    def folder(self) -> Path:
        """The webroot."""
        ...

    def present(self, tokens: Mapping[str, str]) -> AbstractContextManager[None]:
        """Show each token's key authorization as long as the context lasts."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
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


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found about all names.

    Args:
        server: What concerns the web server on this machine.
    """

    server: tuple[Finding, ...]
    names: tuple[Examined, ...]


class Doctor:
    """Examines names.

    Args:
        solver: Shows our file; None if nothing is to be fetched.
        dial: How to connect; elsewhere than usual in a laboratory.
    """

    def __init__(
        self,
        dns: Dns,
        authority: Authority,
        solver: Solver | None,
        *,
        dial: Dial = validator.connect,
    ) -> None:
        self._dns = dns
        self._authority = authority
        self._solver = solver
        self._dial = dial
        self._validator = validator.Validator(self._address_of, dial)

    def examine(self, names: Sequence[str], *, patience: float) -> Examination:
        """Look at all the names at once.

        Args:
            patience: Seconds for all of them.
        """
        deadline = time.monotonic() + patience
        server: list[Finding] = []
        notes = {name: Notes() for name in names}
        with ExitStack() as exits:
            token = self._show(exits, server) if names else None

            def work(name: str) -> bool:
                try:
                    self._examine(name, notes[name], token, deadline)
                except Exception as exc:  # noqa: BLE001 - the rest is worth having
                    _log.debug("%s", name, exc_info=True)
                    said = f"{type(exc).__name__}: {printable(exc, 200)}"
                    notes[name].add(Code.UNFINISHED, f"{name}: {said}")
                return True

            left = deadline - time.monotonic()
            done = ask_all(work, names, timeout=left + GRACE)
            if token and not any(row.served for row in notes.values()):
                server += self._port80(names[0], token, deadline)
        for name in names:
            if name not in done:
                seen = f"{name} could not be examined in {patience:g} s"
                notes[name].add(Code.UNFINISHED, seen)
        return Examination(
            tuple(server),
            tuple(
                Examined(
                    name=name,
                    served=tuple(row.served),
                    findings=tuple(row.findings),
                    publish=row.publish,
                )
                for name, row in notes.items()
            ),
        )

    def _show(self, exits: ExitStack, server: list[Finding]) -> Token | None:
        """Show a file of ours until the exits, and read it back."""
        if self._solver is None:
            return None
        token = Token()
        file = self._solver.folder / validator.path_of(token.name).removeprefix("/")
        try:
            exits.enter_context(self._solver.present({token.name: token.text}))
            if read_limited(file, 1 << 10) == token.text.encode():
                return token
            seen = f"{file} does not hold what was written into it"
        except Error as exc:
            seen = exc.message
        except (OSError, ValueError) as exc:
            seen = f"{file} cannot be read back: {exc}"
        server.append(Finding(kind=Code.WEBROOT_NOT_WRITABLE, seen=seen))
        return None

    def _examine(
        self, name: str, notes: Notes, token: Token | None, deadline: float
    ) -> None:
        if self._authority.public and not is_public_name(name):
            seen = f"{name} ends in a name that is not on the Internet"
            notes.add(Code.NAME_NOT_PUBLIC_TLD, seen, certain=True)
            return
        # What remains is for fetching.
        left = deadline - time.monotonic()
        dns_deadline = deadline - min(validator.PATIENCE, left / 2)
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
        if token is not None:
            self._fetch(name, addresses, token, notes, deadline)

    # DNS

    def _addresses(self, name: str, notes: Notes, deadline: float) -> list[str] | None:
        """Return the addresses, IPv6 first; None if the name has none."""
        six = self._dns.look_up(name, "AAAA", deadline)
        four = self._dns.look_up(name, "A", deadline)
        for answer in (six, four):
            if answer.status is Status.NXDOMAIN:
                kind = Code.DNS_NXDOMAIN
                if answer.zone == "." and self._authority.public:
                    kind = Code.NAME_NOT_PUBLIC_TLD
                seen = f"{name} does not exist, says {answer.by}"
                notes.add(kind, seen, certain=answer.is_own)
                return None
        if not six.addresses and not four.addresses:
            kind, seen = _nothing(name, six, four)
            notes.add(kind, seen)
            return None
        if Status.SERVFAIL in (six.resolver, four.resolver):
            seen = (
                f"{name}: this machine's resolver fails to answer, and {four.by} does"
            )
            notes.add(Code.DNS_SERVFAIL, f"{seen}: perhaps DNSSEC is wrong")
        for row in (six.addresses, four.addresses):
            if len(row) > MOST:
                left_out = f"; only {', '.join(row[:MOST])} were asked"
                notes.add(Code.ADDR_MANY, f"{name} has {len(row)} addresses{left_out}")
        return [*six.addresses[:MOST], *four.addresses[:MOST]]

    def _check_caa(self, name: str, notes: Notes, deadline: float) -> None:
        """Look for the records that count: the nearest ones (RFC 8659, 3)."""
        authority = self._authority
        if not authority.identities:
            return
        owner = name
        records: Sequence[caa.Property] = ()
        while owner:
            answer = self._dns.look_up(owner, "CAA", deadline)
            if answer.status is Status.SERVFAIL:
                seen = f"{owner}: {answer.by} fails to answer about CAA"
                notes.add(Code.DNS_SERVFAIL, seen)
            if answer.status in (Status.SERVFAIL, Status.SILENT):
                return
            if answer.properties:
                if found := caa.judge(
                    owner, answer.properties, authority, certain=answer.is_own
                ):
                    notes.findings.append(found)
                    return
                records = answer.properties
                break
            owner = owner.partition(".")[2]
        if authority.account and not any("accounturi" in x.value for x in records):
            notes.publish = caa.record(name, authority)

    def _address_of(self, host: str, deadline: float) -> str:
        """Return the address that the CA asks for the host of a redirect."""
        if self._authority.public and not is_public_name(host):
            seen = f"the redirect leads to {host}, which is not on the Internet"
            raise validator.Stopped(Code.HTTP_REDIRECT_HOST, seen)
        six = self._dns.look_up(host, "AAAA", deadline)
        four = self._dns.look_up(host, "A", deadline)
        addresses = six.addresses or four.addresses
        if not addresses:
            kind, seen = _nothing(host, six, four)
            raise validator.Stopped(kind, f"the redirect leads to {seen}")
        if self._authority.public and not is_public(addresses[0]):
            seen = f"the redirect leads to {host} with the private address "
            raise validator.Stopped(Code.ADDR_PRIVATE, seen + addresses[0])
        return addresses[0]

    # HTTP

    def _fetch(
        self,
        name: str,
        addresses: Sequence[str],
        token: Token,
        notes: Notes,
        deadline: float,
    ) -> None:
        """Fetch our file at every address; say why not where it does not come."""

        def fetch(address: str) -> Fetched:
            path, text = validator.path_of(token.name), token.text.encode()
            try:
                return self._validator.fetch(name, address, path, text, deadline)
            except Exception as exc:  # noqa: BLE001 - the others are worth having
                _log.debug("%s at %s", name, address, exc_info=True)
                return unfinished(f"{name} at {address}: {type(exc).__name__}")

        left = deadline - time.monotonic()
        answers = ask_all(fetch, addresses, timeout=left + GRACE / 2)
        late = {item: unfinished(f"{name} at {item}: no answer") for item in addresses}
        found = late | answers
        notes.served += [x for x, fetched in found.items() if not fetched.finding]
        note_https([found[address] for address in notes.served], notes)
        by_ipv4 = [address for address in addresses if ":" not in address]
        four_is_good = any(address in notes.served for address in by_ipv4)

        here = found.get(LOCALHOST)
        for address, fetched in found.items():
            finding = fetched.finding
            if finding is None:
                continue
            first = len(fetched.urls) == 1
            lost = finding.kind in NO_CONNECTION and first
            wrong = finding.kind in WRONG_CONTENT
            if ":" in address and lost and by_ipv4:
                finding = replace(finding, kind=Code.AAAA_UNREACHABLE)
            elif ":" in address and wrong and four_is_good:
                finding = replace(finding, kind=Code.AAAA_DIFFERENT_CONTENT)
            elif better := self._about_extension(name, address, fetched, deadline):
                finding = replace(finding, kind=better)
            elif first and (lost or wrong) and not is_own(address):
                here = here or fetch(LOCALHOST)
                finding = elsewhere(finding, here, lost=lost)
            notes.findings.append(finding)

    def _about_extension(
        self, name: str, address: str, fetched: Fetched, deadline: float
    ) -> Code | None:
        """Return why a file without an extension is not found, if another one is."""
        if fetched.status != 404 or self._solver is None:  # noqa: PLR2004 - RFC 9110
            return None
        sample = sample_token(self._solver.folder)
        if sample is None:
            return None
        path, content = f"/{quote(sample.name)}", sample.read_bytes()
        other = self._validator.fetch(name, address, path, content, deadline)
        limit = validator.BODY_LIMIT
        if other.status != 200 or other.body[:limit] != content[:limit]:  # noqa: PLR2004 - RFC 9110
            return None
        is_iis = "Microsoft-IIS" in fetched.server
        return Code.IIS_MIME if is_iis else Code.HTTP_404_EXTENSIONLESS

    def _port80(self, name: str, token: Token, deadline: float) -> list[Finding]:
        """Return why this machine itself does not serve our file, if so."""
        path, text = validator.path_of(token.name), token.text.encode()
        fetched = self._validator.fetch(name, LOCALHOST, path, text, deadline)
        finding = fetched.finding
        if finding is None:
            return []
        silent = finding.kind in (Code.PORT80_REFUSED, Code.HTTP_NO_ANSWER)
        if silent and len(fetched.urls) == 1:
            for port, kind in WEBMAIL.items():
                if self._listens(port):
                    seen = f"{finding.seen}; port {port} of this machine answers"
                    return [replace(finding, kind=kind, seen=seen)]
        elif better := self._about_extension(name, LOCALHOST, fetched, deadline):
            finding = replace(finding, kind=better)
        elif finding.kind in WRONG_CONTENT:
            finding = replace(finding, kind=Code.WEBROOT_NOT_SERVED)
        return [finding]

    def _listens(self, port: int) -> bool:
        try:
            self._dial(LOCALHOST, port, 1.0).close()
        except OSError:
            return False
        return True


_NOTHING = {
    Status.NXDOMAIN: (Code.DNS_NXDOMAIN, "says that it does not exist"),
    Status.SERVFAIL: (Code.DNS_SERVFAIL, "fails to answer"),
    Status.SILENT: (Code.DNS_UNREACHABLE, "does not answer"),
    Status.NO_DATA: (Code.DNS_NO_ADDRESS, "knows no address of it"),
}


def _nothing(name: str, *answers: Answer) -> tuple[Code, str]:
    """Return why there is no address."""
    by_status = {answer.status: answer for answer in answers}
    for status, (kind, said) in _NOTHING.items():
        if status in by_status:
            return kind, f"{name}: {by_status[status].by} {said}"
    return Code.DNS_NO_ADDRESS, f"{name} has no address"  # pragma: no cover


def is_public_name(name: str) -> bool:
    """Whether a name may be on the Internet, going by how it ends."""
    dotted = f".{name.rstrip('.')}"
    return not any(dotted.endswith(f".{ending}") for ending in _NOT_PUBLIC)
