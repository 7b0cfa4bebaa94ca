"""List, judge and remove the certificates of the store."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.app import adapters
from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.mdaemon import forms
from letsencrypt_mdaemon.pki.certificate import (
    OURS,
    covers,
    is_self_signed,
    key_type,
    thumbprint,
)
from letsencrypt_mdaemon.pki.chain import Roots
from letsencrypt_mdaemon.pki.self_signed import weakness
from letsencrypt_mdaemon.renewal import due
from letsencrypt_mdaemon.state.memory import IIS
from letsencrypt_mdaemon.text import day, printable, when
from letsencrypt_mdaemon.verify import verdict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.app.installation import Installation
    from letsencrypt_mdaemon.mdaemon.discovery import Unseen
    from letsencrypt_mdaemon.state.memory import Attempt, Target

SERVICES = {
    "mdaemon.ini": "mail",
    "worldclient.ini": "webmail",
    "webadmin.ini": "Remote Administration",
}
"""The server's INI file -> the service that uses its certificate."""

MIN_DIGITS = 4
"""The shortest beginning of a thumbprint that may name a certificate."""


class Entry(NamedTuple):
    """A certificate of the store.

    Args:
        name: Its friendly name.
        key: The type of its key.
        provider: Who keeps its key; None for a file, or without a key.
        used_by: The services that use it, by the server's files.
        served_at: The ports that serve it.
        is_ours: Whether this program obtained or made it.
        flaw: Why the server cannot use it; empty if it can.
        is_needed: Whether an unfinished renewal needs it.
        is_alone: Whether every service uses it already.
    """

    leaf: x509.Certificate
    name: str
    key: str
    used_by: tuple[str, ...]
    served_at: tuple[str, ...]
    is_ours: bool
    flaw: str
    provider: str | None = None
    is_needed: bool = False
    is_alone: bool = False

    @property
    def actions(self) -> tuple[str, ...]:
        """The commands that take it."""
        is_free = not (self.used_by or self.served_at or self.is_needed)
        is_useful = not (self.flaw or self.is_alone)
        return ("use",) * is_useful + ("remove",) * is_free


class Unfinished(NamedTuple):
    """What a renewal has not finished.

    Args:
        pending: The thumbprint of the certificate that waits for `activate`, or "".
        attempt: The certificate being put into use; None if there is none.
    """

    pending: str
    attempt: Attempt | None

    @classmethod
    def of(cls, installation: Installation) -> Unfinished:
        """Read it from the state."""
        pending, attempt = installation.ca.pending(), installation.state.attempt()
        # A rollback that has ended needs nothing any more.
        is_open = attempt is not None and attempt.failed is None
        return cls(pending.thumbprint if pending else "", attempt if is_open else None)

    def need(self, leaf: x509.Certificate) -> str:
        """Return why it needs a certificate, as a clause; "" if it does not."""
        digest = thumbprint(leaf)
        if digest == self.pending:
            return "it waits for `activate`"
        if self.attempt is None:
            return ""
        if digest == self.attempt.thumbprint:
            return "an unfinished renewal puts it into use"
        is_former = digest in self.attempt.before.values()
        values = (change.before for change in self.attempt.changes)
        if is_former or any(forms.find(value, [leaf]) for value in values):
            return "an unfinished renewal puts it back if a port fails"
        return ""


def entries(installation: Installation, *, now: datetime) -> list[Entry]:
    """Return the certificates of the store: those in use first, then by their end.

    Raises:
        ConfigError: If the server's files or the store cannot be read.
    """
    named, ours = services(installation), installation.ours
    usable, served = installation.store.usable_keys(), installation.served.items()
    unfinished, found = Unfinished.of(installation), []
    for leaf, name in installation.stored:
        digest = thumbprint(leaf)
        ports = [at for at, each in served if each == digest]
        found.append(
            Entry(
                leaf=leaf,
                name=printable(name),
                key=key_type(leaf),
                used_by=named.get(digest, ()),
                served_at=tuple(ports),
                is_ours=digest in ours or name.startswith(f"{OURS} "),
                flaw=flaw(installation, leaf, now=now, has_usable_key=digest in usable),
                provider=installation.store.key_provider(digest),
                is_needed=bool(unfinished.need(leaf)),
                is_alone=named.keys() == {digest},
            )
        )

    def rank(entry: Entry) -> tuple[bool, float]:
        in_use = bool(entry.used_by or entry.served_at)
        return not in_use, -entry.leaf.not_valid_after_utc.timestamp()

    return sorted(found, key=rank)


def services(installation: Installation) -> dict[str, tuple[str, ...]]:
    """Return the services that use each certificate, by its thumbprint."""
    targets, _ = _targets(installation)
    try:
        names = installation.wanted_names()
    except ConfigError:
        names = ()
    named: Mapping[Target, x509.Certificate | None]
    named = adapters.server(installation, targets).named(names)
    found: dict[str, set[str]] = {}
    for target, leaf in named.items():
        # Under "": the services whose certificate is unknown.
        digest = thumbprint(leaf) if leaf is not None else ""
        found.setdefault(digest, set()).add(service(target))
    order = [*SERVICES.values(), IIS]
    return {
        digest: (
            *(each for each in order if each in names),
            *sorted(names.difference(order)),
        )
        for digest, names in found.items()
    }


def _targets(
    installation: Installation,
) -> tuple[tuple[Target, ...], tuple[Unseen, ...]]:
    try:
        return installation.known_targets()
    except ConfigError:
        if installation.config.targets:
            raise
        return (), ()


def service(target: Target) -> str:
    """Return the service that uses a target's certificate."""
    if target.file == IIS:
        return IIS
    file = target.file.rpartition("/")[2].lower()
    return SERVICES.get(file, str(target))


def find(installation: Installation, text: str) -> x509.Certificate:
    """Return the only certificate of the store whose thumbprint begins like that.

    Raises:
        ConfigError: If there is none, or more than one.
    """
    # Windows' dialog adds a mark (U+200E) to what is copied.
    wanted = re.sub(r"[\s:\u200e]", "", text).upper()
    if not re.fullmatch(rf"[0-9A-F]{{{MIN_DIGITS},40}}", wanted):
        raise ConfigError(
            f"{printable(text, 60)!r} is not the beginning of a thumbprint.",
            hint=f"Give at least {MIN_DIGITS} hex digits; `certificates` shows them.",
        )
    known = {thumbprint(leaf): leaf for leaf, _ in installation.stored}
    found = [leaf for digest, leaf in known.items() if digest.startswith(wanted)]
    if not found:
        raise ConfigError(
            f"The store holds no certificate {wanted}.",
            hint="`certificates` shows all of them.",
        )
    if len(found) > 1:
        listed = "; ".join(map(verdict.described, found))
        raise ConfigError(
            f"{wanted} is the beginning of {len(found)} thumbprints: {listed}.",
            hint="Give more digits.",
        )
    return found[0]


def flaw(
    installation: Installation,
    leaf: x509.Certificate,
    *,
    now: datetime,
    has_usable_key: bool,
) -> str:
    """Return why the server cannot use a certificate, as a clause; "" if it can."""
    digest, memory = thumbprint(leaf), installation.memory
    begin, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if end <= now:
        return f"it expired on {day(end, now)}"
    if begin > now:
        return f"it is not valid before {when(begin, now)}"
    if memory.revoked(digest) or due.is_compromised(leaf, memory):
        return "it was revoked, or its key was"
    if weak := weakness(leaf):
        return weak
    return "" if has_usable_key else "its private key is missing or unusable"


def doubts(
    installation: Installation, leaf: x509.Certificate, *, now: datetime
) -> list[str]:
    """Return why clients may not accept a certificate that the server can use."""
    found = []
    if is_self_signed(leaf):
        found.append("It is self-signed: clients warn of it.")
    else:
        chain = installation.issued_chain(thumbprint(leaf)) or (leaf,)
        try:
            roots = Roots(installation.config.ca_bundle, now=now)
        except ValueError as exc:
            raise ConfigError(
                f"ca-bundle: {exc}.",
                hint="Set ca-bundle to a PEM file of root certificates.",
            ) from exc
        why, _ = roots.distrust(chain)
        if why:
            found.append(f"Clients do not trust it: {why}.")
    missing = [name for name in _names(installation) if not covers(leaf, name)]
    if missing:
        found.append(f"It does not cover {', '.join(missing)}.")
    return found


def _names(installation: Installation) -> tuple[str, ...]:
    try:
        return installation.wanted_names()
    except ConfigError:
        return ()


def uses(installation: Installation, leaf: x509.Certificate) -> str:
    """Return what uses a certificate; "" if nothing does.

    Raises:
        ConfigError: If the server's files cannot be read.
        DeployError: If other services of this machine cannot be asked.
    """
    digest = thumbprint(leaf)
    found = [*services(installation).get(digest, ())]
    found += [at for at, each in installation.served.items() if each == digest]
    server = adapters.server(installation, ())
    if not found and (user := server.references().get(digest)):
        found.append(user)
    if needed := Unfinished.of(installation).need(leaf):
        found.append(needed)
    return ", ".join(found)


def require_unused(installation: Installation, leaf: x509.Certificate) -> None:
    """Refuse to remove a certificate that something uses, or may use.

    Raises:
        ConfigError: If the server's files name it, or a port serves it; or if a known
            target cannot be read now.
    """
    if used := uses(installation, leaf):
        raise ConfigError(
            f"The certificate {thumbprint(leaf)} is not removed, because it is in use: "
            f"{used}.",
            hint="Choose another certificate with `use` first.",
        )
    _, unseen = _targets(installation)
    if hidden := [str(item) for item in unseen if not item.is_gone]:
        raise ConfigError(
            f"The certificate {thumbprint(leaf)} is not removed, because it may be in "
            f"use: could not check {'; '.join(hidden)}.",
            hint="Close the program that has the file open, or let this account read "
            "it, and run again.",
        )


def described(installation: Installation, wanted: str) -> list[str]:
    """Return which certificate has a thumbprint, and what uses it, for a question.

    Raises:
        ConfigError: If the store has no such certificate.
    """
    known = [leaf for leaf, _ in installation.stored]
    pending = installation.ca.pending()
    known += [pending.leaf] if pending else []
    leaf = next((leaf for leaf in known if thumbprint(leaf) == wanted), None)
    if leaf is None:
        raise ConfigError(
            f"The store holds no certificate {printable(wanted, 60)}.",
            hint="`certificates` shows all of them.",
        )
    used = uses(installation, leaf)
    by = f"Used by: {used}." if used else "No service and no port uses it."
    return [f"The certificate {verdict.described(leaf)}.", by]
