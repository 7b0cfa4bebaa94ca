"""Let the doctor check an installation: names, machine, connection to the CA."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from letsencrypt_mdaemon import authorities
from letsencrypt_mdaemon.acme.transport import Session
from letsencrypt_mdaemon.app import adapters, trust
from letsencrypt_mdaemon.doctor import machine
from letsencrypt_mdaemon.doctor.caa import Authority
from letsencrypt_mdaemon.doctor.examination import Doctor, is_public_name
from letsencrypt_mdaemon.doctor.findings import Code, Finding, Weight
from letsencrypt_mdaemon.doctor.nameservers import Nameservers, is_public
from letsencrypt_mdaemon.errors import AcmeError, ChallengeError, ConfigError, Error
from letsencrypt_mdaemon.mdaemon.webroot import webmail_ports
from letsencrypt_mdaemon.system.parallel import ask_all
from letsencrypt_mdaemon.text import when

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from letsencrypt_mdaemon.app.installation import Installation
    from letsencrypt_mdaemon.config.settings import Config
    from letsencrypt_mdaemon.doctor.examination import Examination, Examined
    from letsencrypt_mdaemon.state.memory import Target

_REFUSED = {
    "state": Code.STATE_UNUSABLE,
    "webroot": Code.WEBROOT_NOT_WRITABLE,
    "store": Code.STORE_UNUSABLE,
    "files": Code.INI_NOT_WRITABLE,
}
CA_SECONDS = 10.0
"""The time limit for the CA's directory."""


class Checkup(NamedTuple):
    """The findings.

    Args:
        machine: The findings that concern all names.
        account: The URL of the account at the CA; empty if there is none.
        fetched: Whether a test file was fetched, or tried to be.
        refusal: What this machine does not let a renewal write; None if nothing.
    """

    names: tuple[Examined, ...]
    machine: tuple[Finding, ...]
    account: str
    fetched: bool
    refusal: Error | None = None

    @property
    def failures(self) -> dict[str, str]:
        """The certain failures by name; those of all names by ""."""
        rows = {"": self.machine} | {row.name: row.findings for row in self.names}
        found = {
            name: "; ".join(str(x) for x in findings if x.weight is Weight.FAILURE)
            for name, findings in rows.items()
        }
        return {name: text for name, text in found.items() if text}

    def error(self) -> ChallengeError:
        """Return the failures as an error."""
        lines = "".join(f"\n  - {text}" for text in self.failures.values())
        return ChallengeError(
            f"The CA cannot validate these names:{lines}",
            hint="Follow the advice above, or remove these names.",
            names=self.failures,
        )


def check(
    installation: Installation,
    names: Sequence[str],
    *,
    now: datetime,
    timeout: float,
    unlocked: Error | None = None,
) -> Checkup:
    """Check everything.

    Args:
        timeout: Seconds for the names, in addition to those for the CA.
        unlocked: The error if the lock is not free. Then the webroot is left alone,
            because another run may use it.
    """
    authority, found = _ask_ca(installation, now)
    limit = installation.config.most_names
    if limit is not None and len(names) > limit:
        seen = f"{len(names)} names exceed the CA's limit of {limit}"
        found.append(Finding(kind=Code.TOO_MANY_NAMES, seen=seen, certain=True))
    doctor = _doctor(installation, authority, shows=unlocked is None)
    examination = doctor.examine(names, timeout=timeout)
    found += _ledger(installation, names, now)
    found += examination.server
    refused = {} if unlocked is None else {("state", Path()): unlocked}
    found += _files(installation, names, refused, public=authority.public)
    known = {finding.kind for finding in found}
    found += [
        Finding(kind=_REFUSED[kind], seen=error.message)
        for (kind, _), error in refused.items()
        if _REFUSED[kind] not in known
    ]
    return Checkup(
        examination.names,
        tuple(found),
        authority.account,
        examination.fetched,
        adapters.as_error(refused),
    )


def check_names(
    installation: Installation, names: Sequence[str], *, now: datetime, timeout: float
) -> Examination:
    """Check some names, and whether this machine serves their token files."""
    half = timeout / 2
    authority, _ = _ask_ca(installation, now, min(CA_SECONDS, half))
    return _doctor(installation, authority).examine(names, timeout=half)


def _doctor(
    installation: Installation, authority: Authority, *, shows: bool = True
) -> Doctor:
    config = installation.config
    dns = Nameservers()
    if config.validation_dns is not None:
        address, port = config.validation_dns
        dns = Nameservers([address], port=port)
    solver = None
    if shows and not config.skip_port_check:
        solver = adapters.webroot(installation, "examined.json")
    dial = partial(_connect, config.validation_port)
    webmail = webmail_ports(installation.files)
    return Doctor(dns.look_up, authority, solver, dial=dial, webmail=webmail)


def _connect(port80: int, address: str, port: int, timeout: float) -> socket.socket:
    return socket.create_connection((address, {80: port80}.get(port, port)), timeout)


def _ask_ca(
    installation: Installation, now: datetime, timeout: float = CA_SECONDS
) -> tuple[Authority, list[Finding]]:
    """Return the CA, and the problems with the connection to it."""
    config = installation.config

    def ask(url: str) -> tuple[frozenset[str], list[Finding]] | Finding:
        session = Session(
            url, ca_bundle=config.ca_bundle, proxy=config.proxy, timeout=timeout
        )
        try:
            identities = session.meta.get("caaIdentities")
        except AcmeError as exc:
            return Finding(kind=Code.CA_UNREACHABLE, seen=exc.message)
        rows = identities if isinstance(identities, list) else []
        texts = frozenset(row.lower() for row in rows if isinstance(row, str))
        return texts, machine.clock(*session.clocks or (now, None))

    account = installation.ca.account()
    seen = f"{config.ca} did not answer within {timeout:g} s"
    late = Finding(kind=Code.CA_UNREACHABLE, seen=seen)
    answer = ask_all(ask, [config.ca], timeout=timeout).get(config.ca, late)
    if isinstance(answer, Finding):
        answer = frozenset(), [answer]
    identities, found = answer
    authority = Authority(
        identities=identities,
        account=account.url if account else "",
        public=_is_public_ca(config),
    )
    return authority, found


def _is_public_ca(config: Config) -> bool:
    """Return whether the CA is public: with known roots and a public name."""
    host = urlsplit(config.ca).hostname or ""
    try:
        public = is_public(host)
    except ValueError:  # not an address
        public = is_public_name(host)
    return public and config.ca_bundle is None


def _ledger(
    installation: Installation, names: Sequence[str], now: datetime
) -> list[Finding]:
    """Return why the next run has to wait."""
    limits = authorities.at(installation.config.ca).limits
    wait = installation.ca.ledger().settled(now).wait(names, now, limits=limits)
    if wait is None:
        return []
    if wait.until is None:
        return [Finding(kind=Code.CA_PAUSED, seen=f"{wait.reason} - {wait.paused}")]
    seen = f"no run tries before {when(wait.until, now)}: {wait.reason}"
    return [Finding(kind=Code.RATE_LIMIT_LOCAL_LEDGER, seen=seen)]


def _files(
    installation: Installation,
    names: Sequence[str],
    refused: dict[tuple[str, Path], Error],
    *,
    public: bool,
) -> list[Finding]:
    """Return what would prevent a new certificate from being used.

    Args:
        refused: Gets what a renewal could not write, in addition to what it has.
    """
    found = []
    targets: tuple[Target, ...] = ()
    try:
        targets = installation.targets()
        if not targets:
            seen = f"no INI file below {installation.root} names a known certificate"
            found.append(Finding(kind=Code.TARGETS_UNKNOWN, seen=seen))
        named = adapters.server(installation, targets).named(names).values()
        for leaf in dict.fromkeys(named):
            found += machine.client_auth(leaf, public=public)
    except ConfigError as exc:
        found.append(Finding(kind=Code.TARGETS_UNKNOWN, seen=exc.message))
    except Error as exc:
        found.append(Finding(kind=Code.INI_NOT_WRITABLE, seen=exc.message))
    server = adapters.server(installation, targets)
    asked = adapters.refusals(installation, server, None)
    known = {kind for kind, _ in refused}
    refused |= {at: error for at, error in asked.items() if at[0] not in known}
    if installation.config.to and installation.config.mail_server == "raw":
        try:
            trust.raw_queue(installation.root)
        except Error as exc:
            found.append(Finding(kind=Code.RAW_QUEUE_UNUSABLE, seen=exc.message))
    return found
