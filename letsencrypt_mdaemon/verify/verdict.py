"""Whether every port serves the certificate that it should, and if not, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.pki import chain as chains
from letsencrypt_mdaemon.pki.certificate import dns_names, thumbprint
from letsencrypt_mdaemon.pki.chain import Chain, Ending, Roots, title
from letsencrypt_mdaemon.text import day, printable, when
from letsencrypt_mdaemon.verify.observe import failing
from letsencrypt_mdaemon.verify.served import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from datetime import datetime
    from typing import Literal

    from cryptography import x509

    from letsencrypt_mdaemon.verify.endpoints import Endpoint
    from letsencrypt_mdaemon.verify.served import Served

    Origin = Literal["own", "given", "dns"]

EXPIRED, NOT_YET_VALID = "expired certificate", "certificate not yet valid"
INCOMPLETE = "incomplete chain"
_FLAWS = {
    EXPIRED: "Run `renew`, and read its message if it fails.",
    NOT_YET_VALID: "Check the clock and the time zone of this machine.",
    INCOMPLETE: "Restart MDaemon. On Windows, check that the missing certificate is in "
    "Intermediate Certification Authorities.",
}
"""What is wrong with a certificate -> what to do."""


class Port(NamedTuple):
    """An endpoint's answer, and the verdict on it.

    Args:
        origin: Whether the endpoint is one of this machine's usual ones, was given, or
            was found through DNS.
        chain: None if no certificate was sent.
        is_expected: Whether the port serves an expected certificate; None if the
            expected one is unknown, or none is served.
        is_good: Whether the port is as it should be; that may be not listening.
        flaw: Why no client accepts the certificate, whichever it should be; else empty.
    """

    endpoint: Endpoint
    origin: Origin
    served: Served
    chain: Chain | None
    is_expected: bool | None
    is_good: bool
    flaw: str = ""

    @property
    def likeness(self) -> object:
        """What ports that are shown as one have in common."""
        at = self.endpoint
        where = "" if self.origin == "own" else at.url
        return self.origin, where, at.scheme, at.port, self.served, self.is_good


class Verification(NamedTuple):
    """What the ports of an installation serve, beside what they should.

    Args:
        expected: The certificates that the server's files name; None if the INI values
            are unknown, empty if the certificate is.
        is_running: Whether MDaemon runs; so its ports should listen.
    """

    names: tuple[str, ...]
    expected: tuple[x509.Certificate, ...] | None
    ports: tuple[Port, ...]
    now: datetime
    require_trusted: bool
    is_running: bool = True

    @property
    def is_listening(self) -> bool:
        """Whether any port listens."""
        return any(port.served.is_listening for port in self.ports)

    @property
    def is_proven(self) -> bool | None:
        """Whether every port serves what it should; None if nothing shows it."""
        if not all(port.is_good for port in self.ports):
            return False
        if not self.is_listening:
            return False if self.is_running else None
        return None if self.expected is None else True

    def failure(self) -> tuple[str, str]:
        """Return what is wrong, and what to do; two empty texts if all is good."""
        message, hint = failure(self.ports)
        if message or self.is_listening or not self.is_running:
            return message, hint
        return (
            "Verification failed: no port listens.",
            "Start MDaemon. If it runs, name its ports with --endpoint.",
        )


def assess(  # noqa: PLR0913 - what a verdict depends on
    observed: Mapping[Endpoint, Served],
    *,
    expected: Collection[str] | None,
    given: Collection[Endpoint],
    roots: Roots,
    issued: Callable[[str], Sequence[x509.Certificate]],
    require_trusted: bool,
    now: datetime,
) -> list[Port]:
    """Return the verdict on each port that was observed.

    Args:
        expected: Thumbprints; if None, any certificate is good.
        issued: Returns the chain that the CA issued, by the leaf's thumbprint; empty if
            it is unknown.
        require_trusted: Whether a chain that is not trusted is bad.
    """
    wanted = expected
    if wanted is None:
        answers = [row for it in observed.values() for row in (it, *it.differently)]
        wanted = {row.thumbprint for row in answers if row.leaf}
    bad = set(failing(observed, wanted, given))
    sent = dict.fromkeys(one for it in observed.values() for one in it.chain)
    ports = []
    for endpoint, served in observed.items():
        chain = None
        if served.chain:
            leaf = thumbprint(served.chain[0])
            chain = chains.trace(served.chain, roots, issued(leaf), sent)
        untrusted = require_trusted and chain is not None and bool(chain.distrust)
        flaw = _flaw(served, chain, now)
        knows = expected is not None and served.leaf is not None
        origin: Origin = "dns" if endpoint.name else "own"
        port = Port(
            endpoint=endpoint,
            origin="given" if endpoint in given else origin,
            served=served,
            chain=chain,
            is_expected=served.serves(wanted) if knows else None,
            is_good=endpoint not in bad and not untrusted and not flaw,
            flaw=flaw,
        )
        ports.append(port)
    return ports


def grouped(ports: Iterable[Port]) -> list[list[Port]]:
    """Return the ports, those together that differ only in their address.

    Skips addresses of this machine where a port does not listen, if it listens at
    another one.
    """
    ports = list(ports)
    listening = {_number(port) for port in ports if port.served.is_listening}
    groups: dict[object, list[Port]] = {}
    for port in ports:
        idle = port.origin == "own" and not port.served.is_listening
        if not (idle and _number(port) in listening):
            groups.setdefault(port.likeness, []).append(port)
    return sorted(
        groups.values(),
        key=lambda group: (group[0].origin == "dns", group[0].endpoint.port),
    )


def place(group: Sequence[Port], groups: Iterable[Sequence[Port]]) -> str:
    """Return which ports a group is, among the others, such as `993 imaps at ::1`."""
    at, groups = group[0].endpoint, list(groups)
    name, host = f"{at.port} {at.scheme}", where(group, groups)
    # An address that all of them share is left out.
    elsewhere = {where(other, groups) for other in groups} - {host}
    return f"{name} at {host}" if host and elsewhere else name


def where(group: Sequence[Port], groups: Iterable[Sequence[Port]]) -> str:
    """Return where a group is; empty if this machine answers alike everywhere."""
    port = group[0]
    if port.origin != "own":
        return port.endpoint.name or port.endpoint.host
    alike = [other for other in groups if _number(other[0]) == _number(port)]
    return ", ".join(each.endpoint.host for each in group) if len(alike) > 1 else ""


def remarks(port: Port, *, now: datetime, require_trusted: bool) -> list[str]:
    """Return what is odd about a port, as phrases about it."""
    served, chain, leaf = port.served, port.chain, port.served.leaf
    phrases = []
    if leaf is None:
        if served.is_listening or not port.is_good:
            phrases.append(str(served))
    elif served.detail:
        phrases.append(served.detail)
    if leaf is not None and port.is_expected is False and not served.differently:
        phrases.append(f"serves {described(leaf)}")
    phrases += differences(served)
    if leaf is not None and chain is not None:
        name, end = served.server_name, leaf.not_valid_after_utc
        if name and not served.covers(name):
            phrases.append(f"its certificate does not cover {name}")
        if end <= now:
            phrases.append(f"its certificate expired on {day(end, now)}")
        if (start := leaf.not_valid_before_utc) > now:
            phrases.append(f"its certificate is not valid before {when(start, now)}")
        phrases += _remarks_on_chain(chain)
        if require_trusted and chain.distrust:
            phrases.append(f"its certificate is not trusted: {chain.distrust}")
    return phrases


def fault(port: Port) -> str:
    """Return in a few words why a port is not good."""
    if port.served.outcome is not Answer.SERVED:
        return str(port.served.outcome.value)
    others = port.served.differently
    some = "clients" if all(other.key for other in others) else "names"
    if any(other.leaf is None for other in others):
        return "handshake failed for some names"
    if port.is_expected is False:
        return "another certificate" + (f" for some {some}" if others else "")
    return port.flaw or "not trusted"


def failure(ports: Iterable[Port]) -> tuple[str, str]:
    """Return what is wrong with the ports that are not good, and what to do.

    Two empty texts if all are good.
    """
    groups = grouped(ports)
    bad = [group for group in groups if not group[0].is_good]
    if not bad:
        return "", ""
    rows = [f"{place(group, groups)} ({fault(group[0])})" for group in bad]
    hints = dict.fromkeys(_hint(group[0]) for group in bad)
    return f"Verification failed: {', '.join(rows)}.", " ".join(hints)


def _hint(port: Port) -> str:
    """Return what to do about a port that is not good."""
    if port.origin == "dns":
        return (
            "Test the ports reached through DNS from outside as well: they may fail "
            "only from inside your network."
        )
    if not port.served.is_listening:
        return (
            "Start the server on the ports that do not listen, or correct --endpoint."
        )
    if port.served.outcome is Answer.TURNED_AWAY:
        return (
            "Where a port turns this machine away, exempt its address from MDaemon's "
            "screening, or correct --endpoint."
        )
    if port.served.leaf is None or not all(row.leaf for row in port.served.differently):
        return "Where TLS fails, check MDaemon's SSL & TLS settings and its log."
    if port.is_expected is False:
        return (
            "Restart MDaemon, so that it loads the certificate that its files name. If "
            "another program owns a port, list only MDaemon's ports with --endpoint."
        )
    private = "If the CA is a private one, set --ca-bundle to a file with its roots."
    return _FLAWS.get(port.flaw, private)


def _flaw(served: Served, chain: Chain | None, now: datetime) -> str:
    """Return a key of `_FLAWS` if no client accepts a certificate; else ""."""
    leaves = [row.leaf for row in (served, *served.differently) if row.leaf]
    if any(leaf.not_valid_after_utc <= now for leaf in leaves):
        return EXPIRED
    if any(leaf.not_valid_before_utc > now for leaf in leaves):
        return NOT_YET_VALID
    incomplete = bool(leaves) and chain is not None and chain.is_complete is False
    return INCOMPLETE if incomplete else ""


def _remarks_on_chain(chain: Chain) -> list[str]:
    phrases = []
    missing = " and ".join(chain.missing)
    if chain.ending is Ending.SELF_SIGNED:
        phrases.append("its certificate is self-signed")
    elif not chain.in_order:
        phrases.append(
            "its chain is in the wrong order, or contains unrelated certificates"
        )
    if chain.ending is Ending.MISSING:
        phrases.append(f"its chain lacks {missing}")
    elif chain.ending is Ending.UNKNOWN:
        phrases.append(f"its chain ends before {chain.ends_at}, neither sent nor known")
    elif missing:
        phrases.append(
            f"its chain lacks {missing}, which the CA issued with it; on Windows, look "
            "for that name in Trusted Root Certification Authorities"
        )
    if chain.replaced:
        phrases.append(
            f"its chain has {' and '.join(chain.replaced)} instead of another "
            "certificate of that name and key, which the CA issued with it; on "
            "Windows, remove it from Intermediate Certification Authorities if it is "
            "older"
        )
    return phrases


def differences(served: Served) -> list[str]:
    """Return the answers for other names and another kind of key, as phrases."""
    return [
        (
            f"to clients that accept only {other.key} keys, it "
            if other.key
            else f"for the name {other.server_name}, it "
        )
        + (f"serves {described(other.leaf)}" if other.leaf else f"fails: {other}")
        for other in served.differently
    ]


def described(leaf: x509.Certificate) -> str:
    """Return which certificate it is, whose, and until when."""
    names = dns_names(leaf)
    shown = ", ".join(printable(name, 60) for name in names[:3]) or "no name"
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""  # noqa: PLR2004
    issuer, until = title(leaf, "issuer"), leaf.not_valid_after_utc.astimezone()
    return f"{thumbprint(leaf)} for {shown}{more}, by {issuer}, until {until:%Y-%m-%d}"


def _number(port: Port) -> tuple[bool, str, int]:
    return port.origin == "dns", port.endpoint.scheme, port.endpoint.port
