"""Write a certificate into the INI values that name one."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import ConfigError, DeployError
from letsencrypt_mdaemon.mdaemon import folders, forms, ini
from letsencrypt_mdaemon.mdaemon.discovery import form_of
from letsencrypt_mdaemon.pki.certificate import dns_names, thumbprint
from letsencrypt_mdaemon.state.memory import Change, Target
from letsencrypt_mdaemon.system import disk
from letsencrypt_mdaemon.system.backups import Backups, tidy
from letsencrypt_mdaemon.system.files import Edits
from letsencrypt_mdaemon.system.locks import courtesy_lock
from letsencrypt_mdaemon.text import CHOOSE_ONCE, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.system.files import Edit

_log = logging.getLogger(__name__)

KEPT_BACKUPS = 10
"""The number of changes whose backups are kept."""


@dataclass(slots=True)
class Bindings:
    """The targets of one installation, and the certificates they may name.

    Args:
        known: The certificates of the store and the ports.
        ours: The thumbprints of those that this program obtained.
        backups: The folder for the previous contents of the files.

    Raises:
        ConfigError: By each method, if a file or a value cannot be understood. Then
            nothing is changed.
        DeployError: By each method, if a file cannot be written; all are restored.
    """

    files: folders.IniFiles
    targets: Sequence[Target]
    known: Collection[x509.Certificate]
    ours: Collection[str]
    backups: Path
    _edits: Edits | None = field(default=None, repr=False)

    def named(self, names: Collection[str]) -> dict[Target, x509.Certificate | None]:
        """Return the known certificate that each target names; None if unknown.

        Args:
            names: Our names, which choose among several certificates in a value.
        """
        named: dict[Target, x509.Certificate | None] = {}
        for target in self.targets:
            found = {
                hits[0].certificate if hits else None
                for entry in self.files.lookup(target)
                for hits in [self._choose(target, entry.value, names)]
            }
            # Repeated keys that name different certificates count as unknown.
            named[target] = found.pop() if len(found) == 1 else None
        return named

    def planned(self, certificate: x509.Certificate) -> list[Change]:
        """Return the changes that `bind` would make."""
        changes: list[Change] = []
        for path, targets in self._by_file(self.targets).items():
            self._bind_one(folders.read_ini(path), targets, certificate, changes)
        return changes

    def writes(self, certificate: x509.Certificate | None) -> list[Path]:
        """Return the files that `bind` writes; without a certificate, for any new one.

        The program writes beside each file; and the file may be a link to another.
        """
        targets = self.targets
        if certificate is not None:
            targets = [change.target for change in self.planned(certificate)]
        files = list(self._by_file(targets))
        beside = [disk.neighbour(file) for file in files]
        places = [Path(os.path.realpath(file)) for file in files]
        return [*places, *beside, self.backups / "new"]

    def bind(
        self,
        certificate: x509.Certificate,
        *,
        now: datetime,
        announce: Callable[[Sequence[Change]], None] = lambda _: None,
    ) -> list[Change]:
        """Make every target name this certificate; change no other byte.

        All files are prepared, then all are replaced.

        Args:
            announce: Called with the changes before the first of them is made.
        """
        by_file: dict[Target, list[Change]] = {}

        def edit(targets: Sequence[Target], data: bytes) -> bytes:
            by_file[targets[0]] = []
            return self._bind_one(data, targets, certificate, by_file[targets[0]])

        def changes() -> list[Change]:
            return [change for rows in by_file.values() for change in rows]

        self._rewrite(edit, self.targets, now=now, announce=lambda: announce(changes()))
        return changes()

    def restore(self, changes: Sequence[Change], *, now: datetime) -> None:
        """Undo the changes whose values nobody has changed since."""

        def edit(targets: Sequence[Target], data: bytes) -> bytes:
            found, edits = ini.entries(data), dict[ini.Entry, str]()
            for target in targets:
                ours = [change for change in changes if change.target == target]
                # Lines may have moved; of several equal values, the line decides.
                by_value = {change.after: change.before for change in ours}
                by_line = {(item.line, item.after): item.before for item in ours}
                edits |= {
                    entry: by_line.get((entry.line, entry.value), by_value[entry.value])
                    for entry in ini.matching(found, target.section, target.key)
                    if entry.value in by_value
                }
            return _written(targets, lambda: ini.substitute(data, edits, found))

        self._rewrite(edit, [change.target for change in changes], now=now)

    def _by_file(self, targets: Sequence[Target]) -> dict[Path, list[Target]]:
        by_file: dict[Path, list[Target]] = defaultdict(list)
        for target in dict.fromkeys(targets):
            by_file[folders.file_below(self.files.root, target.file)].append(target)
        return by_file

    def settle(self) -> None:
        """Carry over what others wrote into the files while they were replaced.

        Raises:
            DeployError: If that cannot be written.
        """
        edits, self._edits = self._edits, None
        if edits is None:
            return
        with ExitStack() as locks:
            if edits.have_late_changes:
                for path in self._by_file(self.targets):
                    try:
                        locks.enter_context(courtesy_lock(path))
                    except DeployError as exc:  # better without than not at all
                        _log.warning("%s", exc)
            edits.settle()
        for path in self._by_file(self.targets):
            with suppress(OSError):  # it can wait
                for left in tidy(path, self.backups):
                    _log.warning(
                        "%s is left of a run that was killed. What another program "
                        "wrote into %s then may be only there: compare the two, copy "
                        "what is missing, and remove it.",
                        left,
                        path,
                    )

    def strays(self, certificate: x509.Certificate) -> list[Target]:
        """Return the targets that do not name a certificate now.

        Raises:
            ConfigError: If a file cannot be read.
        """
        found = folders.IniFiles(self.files.root)
        return [
            target
            for target in self.targets
            if not (values := found.lookup(target))
            or not all(forms.find(row.value, [certificate]) for row in values)
        ]

    def _rewrite(
        self,
        edit: Callable[[Sequence[Target], bytes], bytes],
        targets: Sequence[Target],
        *,
        now: datetime,
        announce: Callable[[], None] = lambda: None,
    ) -> None:
        """Edit all files of some targets, or none; announce the changes before."""
        self.settle()
        with ExitStack() as locks:
            edits: dict[Path, Edit] = {}
            for path, in_file in self._by_file(targets).items():
                locks.enter_context(courtesy_lock(path))
                edits[path] = partial(edit, in_file)
            self._edits = Edits(edits, read=folders.read_ini, merge=ini.merged)
            announce()
            self._edits.make(Backups(self.backups, KEPT_BACKUPS, now))
            announce()

    def _bind_one(
        self,
        data: bytes,
        targets: Sequence[Target],
        certificate: x509.Certificate,
        changes: list[Change],
    ) -> bytes:
        """Return a file's bytes with its targets bound; append the changes."""
        names = dns_names(certificate)
        entries, edits = ini.entries(data), dict[ini.Entry, str]()
        absent: dict[tuple[str, str], Change] = {}
        for target in targets:
            found = ini.matching(entries, target.section, target.key)
            changed = {}
            for entry in found:
                before = edits.get(entry, entry.value)
                after = self._replaced(target, before, certificate, names)
                if after != before:
                    changed[entry] = after
                    changes.append(Change(target, entry.line, before, after))
            if len(found) > 1 and changed:
                _warn_of_repetition(target, found, changed)
            edits |= changed
            place = target.section.lower(), target.key.lower()
            if not found and place not in absent:
                value = form_of(target).write(certificate)
                absent[place] = Change(target, 0, "", value)
                changes.append(absent[place])

        def write() -> bytes:
            written = ini.substitute(data, edits, entries) if edits else data
            for new in absent.values():
                place = new.target.section, new.target.key
                written = ini.set_value(written, *place, new.after)
            return written

        return _written(targets, write)

    def _replaced(
        self,
        target: Target,
        value: str,
        certificate: x509.Certificate,
        names: Collection[str],
    ) -> str:
        """Return the value with the certificate in place of the current one."""
        if forms.find(value, [certificate]):
            return value
        form = form_of(target)
        if not value:
            return form.write(certificate)
        if hits := self._choose(target, value, names):
            for hit in reversed(hits):
                new = hit.form.write(certificate)
                value = value[: hit.start] + new + value[hit.end :]
            return value
        shaped = list(form.shape().finditer(value))
        if len(shaped) == 1:
            # An unknown certificate in a known form.
            unknown = printable(shaped[0][0], 100)
            what = "Replacing the value of %s: %s is not in the store."
            _log.warning(what, target, unknown)
            start, end = shaped[0].span()
            return value[:start] + form.write(certificate) + value[end:]
        message = f"{target} has the value {printable(value, 200)!r}, which names no "
        message += "certificate of the store."
        raise ConfigError(message, hint=f"{CHOOSE_ONCE}.")

    def _choose(
        self, target: Target, value: str, names: Collection[str]
    ) -> list[forms.Hit]:
        """Return where a value names the certificate to replace.

        Of several this is ours, else the one with most of our names.
        """
        hits = forms.find(value, self.known)
        certificates = dict.fromkeys(hit.certificate for hit in hits)
        wanted = set(names)

        def rank(certificate: x509.Certificate) -> tuple[bool, int, datetime]:
            shared = len(wanted & set(dns_names(certificate)))
            ours = thumbprint(certificate) in self.ours
            return ours, shared, certificate.not_valid_after_utc

        best = max(certificates, key=rank, default=None)
        if best and len(certificates) > 1 and rank(best)[:2] == (False, 0):
            message = f"{target} lists {len(certificates)} certificates, but none for "
            message += f"{', '.join(sorted(wanted))}, so the one to replace is unclear."
            hint = "In MDaemon's dialog, leave only the certificate to replace."
            raise ConfigError(message, hint=hint)
        return [hit for hit in hits if hit.certificate == best]


def _warn_of_repetition(
    target: Target, found: Sequence[ini.Entry], changed: Collection[ini.Entry]
) -> None:
    every, these = (
        ", ".join(str(entry.line) for entry in entries) for entries in (found, changed)
    )
    _log.warning(
        "%s occurs %d times (lines %s); changed in line %s. Windows uses the first "
        "one, other readers use the last: remove all but one.",
        target,
        len(found),
        every,
        these,
    )


def _written(targets: Sequence[Target], write: Callable[[], bytes]) -> bytes:
    try:
        return write()
    except ValueError as exc:
        message = f"Could not write {' and '.join(map(str, targets))}: {exc}."
        hint = "Check the file. Nothing was changed."
        raise DeployError(message, hint=hint) from exc
