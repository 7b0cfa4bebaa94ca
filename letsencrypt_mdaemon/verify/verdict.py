"""Whether every port serves the certificate that it should, and if not, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from letsencrypt_mdaemon.pki import chain as chains
from letsencrypt_mdaemon.pki.certificate import dns_names, thumbprint
from letsencrypt_mdaemon.pki.chain import Chain, Ending, Roots, title
from letsencrypt_mdaemon.text import printable
from letsencrypt_mdaemon.verify.observe import failing
from letsencrypt_mdaemon.verify.served import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.verify.endpoints import Endpoint
    from letsencrypt_mdaemon.verify.served import Served

    Origin = Literal["own", "given", "dns"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """An endpoint's answer, and what it is worth.

    Args:
        origin: Whether it is asked as one of this machine's, as one that was given, or
            through DNS.
        chain: None if no certificate is shown.
        is_expected: Whether it serves the right certificate; None if nobody knows which
            one that is.
        is_good: Whether it is as it should be; one that does not listen may be.
    """

    endpoint: Endpoint
    origin: Origin
    served: Served
    chain: Chain | None
    is_expected: bool | None
    is_good: bool

    @property
    def likeness(self) -> object:
        """What ports have in common that need not be told apart."""
        at = self.endpoint
        where = "" if self.origin == "own" else at.url
        return self.origin, where, at.scheme, at.port, self.served, self.is_good


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What the ports of an installation serve, beside what they should.

    Args:
        right: The certificates that the server's files name; None if it is not known
            where they do, empty if the certificate is not known.
    """

    names: tuple[str, ...]
    right: tuple[x509.Certificate, ...] | None
    ports: tuple[Port, ...]
    now: datetime
    require_trusted: bool

    @property
    def is_proven(self) -> bool | None:
        """Whether every port serves what it should; None if nobody can tell."""
        if not all(port.is_good for port in self.ports):
            return False
        listening = any(port.served.is_listening for port in self.ports)
        return True if listening and self.right is not None else None


def judge(  # noqa: PLR0913 - what a judgement is made from
    observed: Mapping[Endpoint, Served],
    *,
    expected: Collection[str] | None,
    given: Collection[Endpoint],
    roots: Roots,
    issued: Callable[[str], Sequence[x509.Certificate]],
    require_trusted: bool,
) -> list[Port]:
    """Judge what was observed.

    Args:
        expected: Thumbprints; if it is not known, any certificate will do.
        issued: Returns the chain that the CA issued, by the leaf's thumbprint; empty if
            it is not known.
        require_trusted: A chain that is not trusted is not good.
    """
    wanted = expected
    if wanted is None:
        wanted = {one.thumbprint for row in observed.values() for one in _answers(row)}
        wanted -= {""}
    bad = set(failing(observed, wanted, given))
    ports = []
    for endpoint, served in observed.items():
        chain = None
        if served.chain:
            leaf = thumbprint(served.chain[0])
            chain = chains.assess(served.chain, roots, issued(leaf))
        untrusted = require_trusted and chain is not None and bool(chain.distrust)
        knows = expected is not None and served.leaf is not None
        origin: Origin = "dns" if endpoint.name else "own"
        port = Port(
            endpoint=endpoint,
            origin="given" if endpoint in given else origin,
            served=served,
            chain=chain,
            is_expected=served.serves(wanted) if knows else None,
            is_good=endpoint not in bad and not untrusted,
        )
        ports.append(port)
    return ports


def grouped(ports: Iterable[Port]) -> list[list[Port]]:
    """Return the ports, those together that differ in nothing but the address.

    Of this machine's addresses those where nobody listens are left out, as long as
    somebody does at another.
    """
    ports = list(ports)
    listening = {_number(port) for port in ports if port.served.is_listening}
    groups: dict[object, list[Port]] = {}
    for port in ports:
        idle = port.origin == "own" and not port.served.is_listening
        if not (idle and _number(port) in listening):
            groups.setdefault(port.likeness, []).append(port)
    return sorted(groups.values(), key=lambda group: _order(group[0]))


def place(group: Sequence[Port], groups: Iterable[Sequence[Port]]) -> str:
    """Return in words which ports a group is, among the others."""
    at, groups = group[0].endpoint, list(groups)
    name, host = f"{at.port} {at.scheme}", where(group, groups)
    # Where all of them are goes without saying.
    elsewhere = {where(other, groups) for other in groups} - {host}
    return f"{name} at {host}" if host and elsewhere else name


def where(group: Sequence[Port], groups: Iterable[Sequence[Port]]) -> str:
    """Return where a group is; empty if it is this machine, and alike everywhere."""
    port = group[0]
    if port.origin != "own":
        return port.endpoint.name or port.endpoint.host
    alike = [other for other in groups if _number(other[0]) == _number(port)]
    return ", ".join(each.endpoint.host for each in group) if len(alike) > 1 else ""


def remarks(port: Port, *, now: datetime, require_trusted: bool) -> list[str]:
    """Return what is to be said about a port beside that it is there."""
    served, chain = port.served, port.chain
    said = []
    if served.leaf is None:
        if served.is_listening or not port.is_good:
            said.append(in_words(served))
    elif port.is_expected is False and not served.differently:
        said.append(f"serves {_described(served)}")
    said += [
        f"asked for {other.server_name}, it "
        + (f"serves {_described(other)}" if other.leaf else f"fails: {in_words(other)}")
        for other in served.differently
    ]
    if served.leaf is not None and chain is not None:
        name = served.server_name
        if name and not served.covers(name):
            said.append(f"its certificate is not for {name}")
        if served.leaf.not_valid_after_utc <= now:
            end = served.leaf.not_valid_after_utc
            said.append(f"its certificate expired on {end:%Y-%m-%d}")
        said += _remarks_on_chain(chain)
        if require_trusted and chain.distrust:
            said.append(f"its certificate is not trusted: {chain.distrust}")
    return said


def in_words(served: Served) -> str:
    """Return what came of asking, with the reason if there is more to say."""
    detail = f": {served.detail}" if served.detail else ""
    return f"{served.outcome.value}{detail}"


def fault(port: Port) -> str:
    """Return in a few words why a port is not good."""
    if port.served.outcome is not Outcome.SERVED:
        return str(port.served.outcome.value)
    others = port.served.differently
    if any(other.leaf is None for other in others):
        return "handshake failed for some names"
    if port.is_expected is False:
        return "another certificate" + (" for some names" if others else "")
    return "not trusted"


def failure(ports: Iterable[Port]) -> tuple[str, str]:
    """Return what is wrong with the ports that are not good, and what to do.

    Two empty texts if all are good.
    """
    groups = grouped(ports)
    bad = [group for group in groups if not group[0].is_good]
    if not bad:
        return "", ""
    rows = [f"{place(group, groups)} ({fault(group[0])})" for group in bad]
    message = f"Not every port serves what it should: {', '.join(rows)}."
    hints = dict.fromkeys(_hint(group[0]) for group in bad)
    return message, " ".join(hints)


def _hint(port: Port) -> str:
    """Return what to do about a port that is not good."""
    if port.origin == "dns":
        return "What fails through DNS may be right for others: look from outside too."
    if not port.served.is_listening:
        return "Start the server where nobody listens, or correct --endpoint."
    if port.served.leaf is None or not all(row.leaf for row in port.served.differently):
        return "Where TLS fails look at MDaemon's SSL & TLS settings, and at its log."
    if port.is_expected is False:
        return (
            "Restart MDaemon, so that it loads the certificate that its files name; "
            "where a port is another program's, name only MDaemon's by --endpoint."
        )
    return "A private CA's roots are named by --ca-bundle."


def _remarks_on_chain(chain: Chain) -> list[str]:
    said = []
    missing = " and ".join(chain.missing)
    if chain.ending is Ending.SELF_SIGNED:
        said.append("its certificate is self-signed")
    elif not chain.in_order:
        said.append("its chain is in the wrong order, or holds what does not belong")
    if chain.ending is Ending.MISSING:
        said.append(f"its chain lacks {missing}")
    elif chain.ending is Ending.UNKNOWN:
        said.append(f"its chain ends before {chain.ends_at}, neither sent nor known")
    elif chain.as_issued is False:
        said.append(
            f"its chain lacks {missing}, which the CA issued with it; on Windows, look "
            "for that name among the Trusted Root Certification Authorities"
        )
    return said


def _described(served: Served) -> str:
    leaf = served.leaf
    assert leaf is not None  # noqa: S101 - or nothing would be served
    names = dns_names(leaf)
    shown = ", ".join(printable(name, 60) for name in names[:3]) or "no name"
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""  # noqa: PLR2004
    issuer = title(leaf, "issuer")
    until = f"{leaf.not_valid_after_utc:%Y-%m-%d}"
    return f"{served.thumbprint} for {shown}{more}, by {issuer}, until {until}"


def _answers(served: Served) -> list[Served]:
    return [served, *served.differently]


def _number(port: Port) -> tuple[bool, str, int]:
    return port.origin == "dns", port.endpoint.scheme, port.endpoint.port


def _order(port: Port) -> tuple[bool, int]:
    return port.origin == "dns", port.endpoint.port
