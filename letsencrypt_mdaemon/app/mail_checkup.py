"""Check whether senders that insist on TLS would deliver to the server's domains."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from dns.rdatatype import AAAA, CAA, MX, TXT, A

from letsencrypt_mdaemon.app import mail_policy
from letsencrypt_mdaemon.errors import ConfigError, Error
from letsencrypt_mdaemon.pki.certificate import covers, is_self_signed
from letsencrypt_mdaemon.pki.tlsa import SMTP
from letsencrypt_mdaemon.policy import dane, mail, mta_sts
from letsencrypt_mdaemon.policy.answer import State
from letsencrypt_mdaemon.policy.mail import Domain, Host, Ports
from letsencrypt_mdaemon.policy.troubles import Code, Trouble, Weight
from letsencrypt_mdaemon.state.pins import MailLook, MailProblem
from letsencrypt_mdaemon.text import day, printable
from letsencrypt_mdaemon.verify.served import Answer as PortAnswer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.app.installation import Installation
    from letsencrypt_mdaemon.policy.answer import Answer
    from letsencrypt_mdaemon.policy.mta_sts import Policy
    from letsencrypt_mdaemon.policy.validator import Validator

_log = logging.getLogger(__name__)

FETCH_SECONDS = 10.0
"""The time limit for one domain's policy; senders wait a minute (RFC 8461, 3.3)."""
MAX_DOMAINS = 10
"""The domains that are checked; of more, `mail-domains` chooses."""
MAX_SEEN = 200
"""The characters of what was seen that are kept."""
_NO_TLS = (PortAnswer.NO_STARTTLS, PortAnswer.HANDSHAKE_FAILED)


class Checkup(NamedTuple):
    """The table, the worst first, and what is remembered of it."""

    rows: tuple[Trouble, ...]
    look: MailLook

    @property
    def loses(self) -> bool:
        """Whether mail is lost, now or soon."""
        return any(row.weight is Weight.LOSES for row in self.rows)


def check(installation: Installation, *, now: datetime) -> Checkup:
    """Look at the domains as senders do.

    Raises:
        ConfigError: In a laboratory without a trusted root, or if no domain is known.
        Error: If the server's files cannot be read.
    """
    dns = mail_policy.validator(installation.config, at=now)
    if dns is None:
        message = "A laboratory's DNS has no root that senders trust."
        raise ConfigError(message, hint="Remove validation-dns.")
    names = mail_policy.domains(installation)[:MAX_DOMAINS]
    if not names:
        message = "MDaemon's files show no domain that receives mail."
        raise ConfigError(message, hint="Set mail-domains.")
    former = installation.state.mail()
    known = {name: (tag, text) for name, tag, text in former.policies} if former else {}
    leaf = _in_use(installation)
    wanted = installation.wanted_names()
    own = _Own(dns, wanted, leaf)
    domains = [_domain(dns, name, own, known.get(name)) for name in names]
    ports = _ports(installation, leaf, now)
    rows = [row for domain in domains for row in mail.judge(domain, ports)]
    rows += _of_tlsa(dns, installation, leaf, names)
    for name in wanted:
        rows += _of_name(dns, name)
    done = {row.subject for row in rows}
    rows += [
        Trouble.of(name, Code.GOOD, "nothing to do")
        for name in names
        if name not in done
    ]
    order = list(Weight)
    rows.sort(key=lambda row: order.index(row.weight))
    policies = [
        (domain.name, domain.tag, str(domain.policy))
        for domain in domains
        if isinstance(domain.policy, mta_sts.Policy)
    ]
    problems = [
        MailProblem(
            row.subject,
            str(row.code),
            printable(row.seen, MAX_SEEN),
            row.weight is Weight.LOSES,
        )
        for row in rows
        if row.weight is not Weight.NOTE
    ]
    return Checkup(
        tuple(rows),
        MailLook(now, tuple(problems), tuple(policies), mail.needed(domains)),
    )


def refreshed(
    installation: Installation, former: MailLook | None, *, now: datetime
) -> MailLook | None:
    """Look again, and remember it; if that fails, the former look counts."""
    try:
        look = check(installation, now=now).look
        installation.state.save(look)
    except Error as exc:
        _log.debug("Could not look at the mail policies: %s", exc)
        return former
    return look


class _Own:
    """Tells which hosts are this server: by name, or by the same addresses."""

    def __init__(
        self, dns: Validator, names: Sequence[str], leaf: x509.Certificate | None
    ) -> None:
        self._dns, self._leaf = dns, leaf
        self._names = {name.lower() for name in names}
        self._addresses = {at for name in names[:1] for at in addresses(dns, name)}

    def host(self, name: str) -> Host:
        """Return what is known of an MX host."""
        ours = name in self._names or bool(
            self._addresses.intersection(addresses(self._dns, name))
        )
        covered = self._leaf is not None and covers(self._leaf, name)
        return Host(name, ours, covered)


def addresses(dns: Validator, name: str) -> list[str]:
    """Return the addresses that DNS has for a name."""
    rows = [*dns.look_up(name, A).rdatas, *dns.look_up(name, AAAA).rdatas]
    return [row.address for row in rows]


def _domain(
    dns: Validator, name: str, own: _Own, former: tuple[str, str] | None
) -> Domain:
    answer = dns.look_up(name, MX)
    tag, fault = "", ""
    policy: Policy | mta_sts.FetchError | None = None
    try:
        tag = mta_sts.identifier(_texts(dns.look_up(f"_mta-sts.{name}", TXT))) or ""
    except ValueError as exc:
        fault = str(exc)
    if tag:
        try:
            policy = fetch(name, addresses(dns, f"mta-sts.{name}"))
        except mta_sts.FetchError as exc:
            policy = exc
    return Domain(
        name=name,
        mx=answer,
        hosts=[own.host(host) for host in dane.mx_hosts(answer)],
        tag=tag,
        fault=fault,
        policy=policy,
        former=former,
        reports=_texts(dns.look_up(f"_smtp._tls.{name}", TXT)),
    )


def fetch(name: str, at: Sequence[str]) -> Policy:
    """Return the policy of a domain (`mta_sts.fetch`)."""
    if not at:
        raise mta_sts.FetchError("unreachable", "it has no address")
    return mta_sts.fetch(name, timeout=FETCH_SECONDS, addresses=at)


def _texts(answer: Answer) -> list[str]:
    return [b"".join(row.strings).decode("utf-8", "replace") for row in answer.rdatas]


def _in_use(installation: Installation) -> x509.Certificate | None:
    return installation.known.get(installation.memory.in_use)


def _ports(
    installation: Installation, leaf: x509.Certificate | None, now: datetime
) -> Ports:
    """Return what the ports for incoming mail offer: 25, or all of SMTP's."""
    smtp = {
        endpoint: served
        for endpoint, served in installation.observed.items()
        if endpoint.scheme.startswith("smtp")
    }
    some = {at: served for at, served in smtp.items() if at.port == SMTP} or smtp
    without = [str(at) for at, served in some.items() if served.outcome in _NO_TLS]
    fault = ""
    if leaf is not None and leaf.not_valid_after_utc <= now:
        fault = f"expired on {day(leaf.not_valid_after_utc, now)}"
    elif leaf is not None and is_self_signed(leaf):
        fault = "is self-signed"
    return Ports(without, fault)


def _of_tlsa(
    dns: Validator,
    installation: Installation,
    leaf: x509.Certificate | None,
    domains: Sequence[str],
) -> Iterator[Trouble]:
    if leaf is None:
        return
    chain = installation.issued_chain(installation.memory.in_use) or (leaf,)
    hosts = {
        name
        for domain in domains
        for name in dane.mx_hosts(dns.look_up(domain, MX))
        if covers(leaf, name)
    }
    found = dane.look_up(dns, {*hosts, *installation.wanted_names()}, (), ())
    for port in found.ports:
        usable = [row for row in port.records if row.is_usable(port.port)]
        if usable and not any(row.matches(chain, port.host) for row in usable):
            seen = f"{port.owner} has {'; '.join(map(str, usable))}"
            yield Trouble.of(port.host, Code.TLSA_NO_MATCH, seen)
        if port.partly:
            seen = f"some servers lack {'; '.join(map(str, port.partly))}"
            yield Trouble.of(port.host, Code.TLSA_PARTLY, seen)


def _of_name(dns: Validator, name: str) -> Iterator[Trouble]:
    """Yield the state of a name's DNS, and its CAA records (RFC 8659, 3)."""
    address = dns.look_up(name, A)
    if address.state is State.BOGUS:
        yield Trouble.of(name, Code.DNS_BOGUS, address.why)
        return
    if address.state is State.FAILED:
        yield Trouble.of(name, Code.DNS_FAILS, address.why or "no answer")
        return
    if address.state is State.INSECURE:
        yield Trouble.of(name, Code.DNSSEC_UNSIGNED, "its address is not signed")
    labels = name.split(".")
    for at in range(len(labels)):
        owner = ".".join(labels[at:])
        if rows := dns.look_up(owner, CAA).rdatas:
            shown = "; ".join(row.to_text() for row in rows)
            yield Trouble.of(name, Code.CAA_RECORDS, f"{owner}: {shown}")
            return
    yield Trouble.of(name, Code.CAA_NONE, "it has no CAA record")
