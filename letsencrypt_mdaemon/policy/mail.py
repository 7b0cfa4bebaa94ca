"""Whether senders that insist on TLS would deliver (RFC 8461, 8460, 8689)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.policy import mta_sts
from letsencrypt_mdaemon.policy.answer import State
from letsencrypt_mdaemon.policy.troubles import Code, Trouble, Weight

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from letsencrypt_mdaemon.policy.answer import Answer
    from letsencrypt_mdaemon.policy.mta_sts import FetchError, Policy

_REPORTS = re.compile(r"v=TLSRPTv1[ \t]*;[ \t]*rua=[ \t]*(?:mailto:|https://)[^\s;]+.*")


class Host(NamedTuple):
    """An MX host.

    Args:
        ours: Whether it is this server.
        covered: Whether the certificate in use has its name.
    """

    name: str
    ours: bool
    covered: bool


class Domain(NamedTuple):
    """What was looked up about a domain.

    Args:
        mx: The answer for its MX records.
        tag: The id in its `_mta-sts` record; "" without one.
        fault: What is wrong with that record; "" if nothing is.
        policy: Its policy, why senders get none, or None if it has no record.
        former: The id and the policy that were seen last.
        reports: The TXT records at `_smtp._tls`.
    """

    name: str
    mx: Answer
    hosts: Sequence[Host]
    tag: str
    fault: str
    policy: Policy | FetchError | None
    former: tuple[str, str] | None
    reports: Sequence[str]

    @property
    def is_unclear(self) -> bool:
        """Whether senders may have a policy, or MX hosts, that were not seen now."""
        got_none = isinstance(self.policy, mta_sts.FetchError)
        return got_none or bool(self.fault) or not self.mx.is_known


class Ports(NamedTuple):
    """What the ports for incoming mail offer.

    Args:
        without_tls: Those that offer no TLS.
        fault: Why clients do not trust the certificate in use; "" if they do.
    """

    without_tls: Sequence[str] = ()
    fault: str = ""


def judge(domain: Domain, ports: Ports) -> Iterator[Trouble]:
    """Yield what is worth knowing of a domain, the worst not first."""
    name = domain.name
    yield from _of_dns(name, domain.mx)
    if not domain.mx.is_known:
        return
    if not domain.hosts:
        yield Trouble.of(name, Code.MX_NONE, "it has no MX host")
        return
    ours = [host for host in domain.hosts if host.ours]
    others = [host.name for host in domain.hosts if not host.ours]
    if others:
        seen = f"mail goes to {', '.join(others)}, too" if ours else ""
        seen = seen or f"mail goes to {', '.join(others)}"
        yield Trouble.of(name, Code.MX_ELSEWHERE, seen)
    yield from _of_sts(domain, ours, ports)
    yield from _of_reports(name, domain.reports)
    has_policy = isinstance(domain.policy, mta_sts.Policy)
    if ours and domain.mx.state is State.INSECURE and not has_policy:
        seen = "neither DNSSEC nor MTA-STS proves its MX hosts"
        yield Trouble.of(name, Code.REQUIRETLS_UNPROVEN, seen)  # RFC 8689, 4.2.1


def needed(domains: Iterable[Domain]) -> tuple[str, ...]:
    """Return our MX hosts that an enforced policy lists: no certificate lacks them."""
    return tuple(
        dict.fromkeys(
            host.name
            for domain in domains
            for host in domain.hosts
            if host.ours
            and isinstance(domain.policy, mta_sts.Policy)
            and domain.policy.mode == "enforce"
            and domain.policy.allows(host.name)
        )
    )


def _of_dns(name: str, answer: Answer) -> Iterator[Trouble]:
    if answer.state is State.BOGUS:
        yield Trouble.of(name, Code.DNS_BOGUS, answer.why)
    elif answer.state is State.FAILED:
        yield Trouble.of(name, Code.DNS_FAILS, answer.why or "no answer")
    elif answer.state is State.INSECURE:
        yield Trouble.of(name, Code.DNSSEC_UNSIGNED, "its MX records are not signed")


def _of_sts(domain: Domain, ours: list[Host], ports: Ports) -> Iterator[Trouble]:
    name, policy = domain.name, domain.policy
    missing = [host.name for host in ours if not host.covered]
    if domain.fault:
        yield Trouble.of(name, Code.STS_RECORD_INVALID, domain.fault)
    if isinstance(policy, mta_sts.FetchError):
        code = Code[f"STS_{policy.kind.replace('-', '_').upper()}"]
        yield Trouble.of(name, code, f"mta-sts.{name}: {policy}")
    if isinstance(policy, mta_sts.Policy) and policy.mode != "none":
        yield from _of_policy(domain, policy, missing, ports if ours else Ports())
    else:
        if policy is None and not domain.fault:
            yield Trouble.of(name, Code.STS_NONE, "it has no MTA-STS policy")
        for host in missing:
            seen = f"the certificate has no {host}"
            yield Trouble.of(name, Code.MX_NAME_MISSING, seen)


def _of_policy(
    domain: Domain, policy: Policy, missing: list[str], ports: Ports
) -> Iterator[Trouble]:
    """Yield what senders that follow the policy stumble over."""
    is_enforced = policy.mode == "enforce"
    rows = [
        (Code.STS_MX_MISSING, f"the policy does not list {host.name}")
        for host in domain.hosts
        if not policy.allows(host.name)
    ]
    rows += [
        (Code.STS_NAME_MISSING, f"the certificate has no {host}") for host in missing
    ]
    if ports.without_tls:
        rows.append((Code.STS_NO_TLS, f"no TLS at {', '.join(ports.without_tls)}"))
    if ports.fault:
        rows.append((Code.STS_NOT_TRUSTED, f"the certificate {ports.fault}"))
    for code, seen in rows:
        weight = code.weight if is_enforced else Weight.WARNING
        yield Trouble(domain.name, code, seen, weight)
    if not is_enforced:
        seen = "its policy is in mode testing"
        yield Trouble.of(domain.name, Code.STS_TESTING, seen)
    former_tag, former_policy = domain.former or ("", "")
    if domain.tag and domain.tag == former_tag and str(policy) != former_policy:
        seen = f"the policy changed, the id {domain.tag} did not"
        yield Trouble.of(domain.name, Code.STS_ID_UNCHANGED, seen)
    if policy.max_age < mta_sts.LEAST_SECONDS:
        seen = f"max_age is {policy.max_age} s"
        yield Trouble.of(domain.name, Code.STS_SHORT, seen)


def _of_reports(name: str, texts: Sequence[str]) -> Iterator[Trouble]:
    """Judge the record for reports (RFC 8460, 3)."""
    rows = [text for text in texts if text.startswith("v=TLSRPTv1")]
    if not rows:
        yield Trouble.of(name, Code.TLSRPT_NONE, "it asks for no reports (TLS-RPT)")
    elif len(rows) > 1:
        seen = f"there are {len(rows)} TLS-RPT records: senders ignore them"
        yield Trouble.of(name, Code.TLSRPT_INVALID, seen)
    elif not _REPORTS.fullmatch(rows[0]):
        yield Trouble.of(name, Code.TLSRPT_INVALID, f"no address in {rows[0][:80]!r}")
