"""The doctor's visit to an installation: its names, machine, and way to the CA."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from letsencrypt_mdaemon import authorities
from letsencrypt_mdaemon.acme.transport import Session
from letsencrypt_mdaemon.app import adapters
from letsencrypt_mdaemon.doctor import machine, validator
from letsencrypt_mdaemon.doctor.advice import Code, Weight
from letsencrypt_mdaemon.doctor.caa import Authority
from letsencrypt_mdaemon.doctor.examination import Doctor, is_public_name
from letsencrypt_mdaemon.doctor.findings import Finding
from letsencrypt_mdaemon.doctor.nameservers import Nameservers, is_public
from letsencrypt_mdaemon.errors import AcmeError, ChallengeError, ConfigError, Error
from letsencrypt_mdaemon.mdaemon import folders
from letsencrypt_mdaemon.mdaemon.webroot import Webroot
from letsencrypt_mdaemon.system.parallel import ask_all

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from datetime import datetime

    from letsencrypt_mdaemon.app.installation import Installation
    from letsencrypt_mdaemon.config.settings import Config
    from letsencrypt_mdaemon.doctor.examination import Examination, Examined

CA_PATIENCE = 10.0
"""Seconds for the CA's directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkup:
    """What was found.

    Args:
        machine: What concerns all the names.
        account: The URL of our account at the CA; empty if there is none yet.
    """

    names: tuple[Examined, ...]
    machine: tuple[Finding, ...]
    account: str

    @property
    def failures(self) -> dict[str, str]:
        """What would fail wherever we stand, by name; by "" for all of them."""
        rows = {"": self.machine} | {row.name: row.findings for row in self.names}
        found = {
            name: "; ".join(str(x) for x in findings if x.weight is Weight.FAILURE)
            for name, findings in rows.items()
        }
        return {name: said for name, said in found.items() if said}

    def error(self) -> ChallengeError:
        """Return the failures as an error."""
        lines = "".join(f"\n  - {said}" for said in self.failures.values())
        return ChallengeError(
            f"The CA would not validate, wherever it looks from:{lines}",
            hint="Do what is said above, or leave these names out.",
            names=self.failures,
        )


def examine(
    installation: Installation,
    names: Sequence[str],
    *,
    now: datetime,
    patience: float,
    alone: Error | None = None,
) -> Checkup:
    """Look at everything.

    Args:
        patience: Seconds for the names; the CA gets a few more.
        alone: Why it is not sure that no other run shows files, if so: then none is
            shown.
    """
    authority, found = _ask_ca(installation, now)
    most = installation.config.most_names
    if len(names) > most:
        seen = f"{len(names)} names are more than the {most} that the CA allows"
        found.append(Finding(kind=Code.TOO_MANY_NAMES, seen=seen, certain=True))
    doctor = _doctor(installation, authority, shows=alone is None)
    examination = doctor.examine(names, timeout=patience)
    if alone is not None:
        found.append(Finding(kind=Code.STATE_UNUSABLE, seen=alone.message))
    found += _ledger(installation, names, now)
    found += examination.server
    found += _files(installation, names, public=authority.public)
    return Checkup(
        names=examination.names, machine=tuple(found), account=authority.account
    )


def examine_names(
    installation: Installation, names: Sequence[str], *, now: datetime, patience: float
) -> Examination:
    """Look at some names, and at why this machine would not serve them."""
    half = patience / 2
    authority, _ = _ask_ca(installation, now, patience=min(CA_PATIENCE, half))
    return _doctor(installation, authority).examine(names, timeout=half)


def _doctor(
    installation: Installation, authority: Authority, *, shows: bool = True
) -> Doctor:
    config = installation.config
    dns = Nameservers()
    if config.validation_dns is not None:
        address, port = config.validation_dns
        dns = Nameservers([address], port=port)
    folder = config.webroot or folders.child(installation.root, "WorldClient", "HTML")
    # With a journal of its own: what the CA is being shown stays.
    webroot = Webroot(folder, installation.ca.folder / "examined.json")
    solver = webroot if shows and not config.skip_port_check else None
    dial = partial(_connect, config.validation_port)
    return Doctor(dns, authority, solver, dial=dial)


def _connect(port80: int, address: str, port: int, timeout: float) -> socket.socket:
    return validator.connect(address, {80: port80}.get(port, port), timeout)


def _ask_ca(
    installation: Installation, now: datetime, *, patience: float = CA_PATIENCE
) -> tuple[Authority, list[Finding]]:
    """Return who the CA is, and what is wrong with the way to it."""
    config = installation.config

    def ask(url: str) -> tuple[frozenset[str], list[Finding]] | Finding:
        session = Session(url, ca_bundle=config.ca_bundle, timeout=patience)
        try:
            identities = session.meta.get("caaIdentities")
        except AcmeError as exc:
            return Finding(kind=Code.CA_UNREACHABLE, seen=exc.message)
        rows = identities if isinstance(identities, list) else []
        texts = frozenset(row.lower() for row in rows if isinstance(row, str))
        return texts, machine.clock(*session.clocks or (now, None))

    account = installation.ca.account()
    seen = f"{config.ca} did not answer in {patience:g} s"
    late = Finding(kind=Code.CA_UNREACHABLE, seen=seen)
    answer = ask_all(ask, [config.ca], timeout=patience).get(config.ca, late)
    identities: frozenset[str] = frozenset()
    found = [answer] if isinstance(answer, Finding) else []
    if not isinstance(answer, Finding):
        identities, found = answer
    authority = Authority(
        identities=identities,
        account=account.url if account else "",
        public=_is_public_ca(config),
    )
    return authority, found


def _is_public_ca(config: Config) -> bool:
    """Whether the CA is one for the Internet: with known roots, and a public name."""
    host = urlsplit(config.ca).hostname or ""
    try:
        ip_address(host)
    except ValueError:
        return config.ca_bundle is None and is_public_name(host)
    return config.ca_bundle is None and is_public(host)


def _ledger(
    installation: Installation, names: Sequence[str], now: datetime
) -> list[Finding]:
    """Return why the next run would wait, after what failed before."""
    limits = authorities.at(installation.config.ca).limits
    wait = installation.ca.ledger().settled(now).wait(names, now, limits=limits)
    if wait is None:
        return []
    if wait.until is None:
        return [Finding(kind=Code.CA_PAUSED, seen=f"{wait.reason} – {wait.paused}")]
    seen = f"until {wait.until:%Y-%m-%d %H:%M} UTC no run tries: {wait.reason}"
    return [Finding(kind=Code.RATE_LIMIT_LOCAL_LEDGER, seen=seen)]


def _files(
    installation: Installation, names: Sequence[str], *, public: bool
) -> list[Finding]:
    """Return what keeps a new certificate from being put into use."""
    found = []
    try:
        targets = installation.targets()
        paths = [folders.file_below(installation.root, row.file) for row in targets]
        found += machine.ini_files(paths)
        named = adapters.server(installation, targets).named(names).values()
        for leaf in dict.fromkeys(named):
            found += machine.client_auth(leaf, public=public)
    except ConfigError as exc:
        found.append(Finding(kind=Code.TARGETS_UNKNOWN, seen=exc.message))
    except Error as exc:
        found.append(Finding(kind=Code.INI_NOT_WRITABLE, seen=exc.message))
    found += machine.folder(installation.state.folder, Code.STATE_UNUSABLE)
    store = getattr(installation.store, "folder", None)
    if store is not None:
        found += machine.folder(store, Code.STORE_UNUSABLE)
    return found
