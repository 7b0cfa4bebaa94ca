"""Which of the server's INI values name its certificate, and making them name another.

No public source tells the keys, so they are learned: a value that names a certificate
which is in the store, or which a port of the server serves, is a target.
"""

from __future__ import annotations

import codecs
import logging
import os
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from letsencrypt_mdaemon import forms, ini
from letsencrypt_mdaemon.errors import ConfigError, DeployError
from letsencrypt_mdaemon.mdaemon import file_below, is_below, read_ini
from letsencrypt_mdaemon.pki.certificate import dns_names, thumbprint
from letsencrypt_mdaemon.state.memory import Change, Target
from letsencrypt_mdaemon.system.files import replace_all
from letsencrypt_mdaemon.system.locks import courtesy_lock
from letsencrypt_mdaemon.text import words

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from cryptography import x509

_log = logging.getLogger(__name__)

LEFT_OUT = {"users", "queues", "logs", "public folders"}
"""Folders of mail and logs: large, and no place of settings."""


@dataclass(frozen=True, slots=True)
class Found:
    """A place in the server's files that names a certificate.

    Args:
        target: The INI value; None if the place is not in an INI value.
        line: Counted from 1; 0 if the place is not in an INI value.
    """

    file: str
    line: int
    target: Target | None
    certificate: x509.Certificate


def discover(
    root: Path, certificates: Collection[x509.Certificate], *, skip: Sequence[Path] = ()
) -> list[Found]:
    """Return every place below the installation that names one of the certificates.

    Searched are `*.ini` and `*.dat`, except in folders of mail, logs and backups.

    Args:
        skip: Folders of our own.
    """
    found = []
    for path in _files(root, skip):
        try:
            data = read_ini(path)
        except ConfigError as exc:
            _log.warning("Not searched: %s", exc)
            continue
        found += _in_file(path.relative_to(root).as_posix(), data, certificates)
    return found


def learned(found: Sequence[Found]) -> tuple[Target, ...]:
    """Return the targets among some places, each once."""
    return merged([item.target for item in found if item.target is not None], ())


def merged(new: Sequence[Target], old: Sequence[Target]) -> tuple[Target, ...]:
    """Return all the targets, each INI value once; what is new counts."""
    by_place = {_place(target): target for target in (*old, *new)}
    return tuple(by_place.values())


def still_there(root: Path, remembered: Sequence[Target]) -> tuple[Target, ...]:
    """Return the remembered targets whose value is still there; say which are not."""
    there = []
    for target in remembered:
        try:
            data = read_ini(file_below(root, target.file))
        except ConfigError as exc:
            _log.warning("%s is forgotten: %s", target, exc.message)
            continue
        if any(item.value for item in ini.lookup(data, target.section, target.key)):
            there.append(target)
        else:
            _log.warning("%s is forgotten: it has no value any more.", target)
    return tuple(there)


def _files(root: Path, skip: Sequence[Path]) -> Iterator[Path]:
    ours = {path.resolve() for path in skip}
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        top = here == root
        folders[:] = sorted(
            name
            for name in folders
            if not (top and name.lower() in LEFT_OUT)
            and not name.lower().startswith("backup")
            and (here / name).resolve() not in ours
        )
        for name in sorted(files):
            if not name.lower().endswith((".ini", ".dat")):
                continue
            if is_below(here / name, root):
                yield here / name
            else:
                _log.warning("Not searched: %s leads out of %s", here / name, root)


def _in_file(
    name: str, data: bytes, certificates: Collection[x509.Certificate]
) -> list[Found]:
    # One look at the whole file first: hardly any names a certificate at all.
    everywhere = [
        hit for text in _texts(data) for hit in forms.find(text, certificates)
    ]
    if not everywhere:
        return []
    found = []
    for entry in ini.entries(data):
        for hit in forms.find(entry.value, certificates):
            target = Target(name, entry.section, entry.key, str(hit.form))
            found.append(Found(name, entry.line, target, hit.certificate))
    inside = {item.certificate for item in found}
    found += [
        Found(name, 0, None, certificate)
        for certificate in dict.fromkeys(hit.certificate for hit in everywhere)
        if certificate not in inside
    ]
    return found


def _texts(data: bytes) -> Iterator[str]:
    """Yield what the file may say, whether it is INI or not."""
    # What is not ASCII is no part of a name, and must not look like one.
    yield data.decode("ascii", "replace")
    if b"\0" in data:
        yield data.replace(b"\0", b"").decode("ascii", "replace")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        yield data.decode("utf-16", "replace")


class Bindings:
    """The targets of one installation, and the certificates they may name.

    Args:
        known: Certificates of the store, and those that the ports serve.
        ours: The thumbprints among them that this program obtained.
        backups: Where the files' former contents go; the last `keep` changes are kept.
    """

    def __init__(  # noqa: PLR0913 - what a change of the files needs
        self,
        root: Path,
        targets: Sequence[Target],
        known: Collection[x509.Certificate],
        *,
        ours: Collection[str],
        backups: Path,
        keep: int,
    ) -> None:
        self.root = root
        self.targets = targets
        self.known = known
        self.ours = ours
        self.backups = backups
        self.keep = keep

    def named(self, names: Collection[str]) -> dict[Target, x509.Certificate | None]:
        """Return which certificate each target names, of those that are known.

        Args:
            names: The names we are about: they tell which one counts in a list.
        """
        files = {
            name: read_ini(file_below(self.root, name))
            for name in {target.file for target in self.targets}
        }
        named: dict[Target, x509.Certificate | None] = {}
        for target in self.targets:
            values = ini.lookup(files[target.file], target.section, target.key)
            found = {
                hits[0].certificate if hits else None
                for hits in (
                    self._choose(target, entry.value, names) for entry in values
                )
            }
            # Repeated keys that name different certificates count as naming none.
            named[target] = found.pop() if len(found) == 1 else None
        return named

    def bind(
        self,
        certificate: x509.Certificate,
        *,
        now: datetime,
        dry_run: bool = False,
    ) -> list[Change]:
        """Make every target name this certificate; other bytes and entries stay.

        All files are prepared, then all are replaced. Done twice, it changes nothing.

        Raises:
            ConfigError: If a file or a value cannot be understood; nothing is changed.
            DeployError: If a file cannot be written; all are as they were.
        """
        changes: list[Change] = []

        def edit(target: Target, data: bytes) -> bytes:
            return self._bind_one(target, data, certificate, changes)

        self._rewrite(edit, self.targets, now=now, dry_run=dry_run)
        return changes

    def restore(self, changes: Sequence[Change], *, now: datetime) -> None:
        """Take changes back, where the value is still what it became.

        Raises:
            ConfigError: If a file cannot be read; nothing is changed.
            DeployError: If a file cannot be written; all are as they were.
        """

        def edit(target: Target, data: bytes) -> bytes:
            ours = [change for change in changes if change.target == target]
            # The lines may have moved, but among several they tell which is which.
            by_value = {change.after: change.before for change in ours}
            by_line = {(change.line, change.after): change.before for change in ours}
            edits = {
                entry: by_line.get((entry.line, entry.value), by_value[entry.value])
                for entry in ini.lookup(data, target.section, target.key)
                if entry.value in by_value
            }
            return _written(target, lambda: ini.substitute(data, edits))

        self._rewrite(edit, [change.target for change in changes], now=now)

    def _rewrite(
        self,
        edit: Callable[[Target, bytes], bytes],
        targets: Sequence[Target],
        *,
        now: datetime,
        dry_run: bool = False,
    ) -> None:
        """Edit the files of some targets: all are prepared, then all are replaced."""
        by_file: dict[Path, list[Target]] = defaultdict(list)
        for target in dict.fromkeys(targets):
            by_file[file_below(self.root, target.file)].append(target)
        contents: dict[Path, bytes] = {}
        with ExitStack() as locks:
            for path, in_file in by_file.items():
                if not dry_run:
                    locks.enter_context(courtesy_lock(path))
                data = former = read_ini(path)
                for target in in_file:
                    data = edit(target, data)
                if data != former:
                    contents[path] = data
            if contents and not dry_run:
                replace_all(contents, backups=self.backups, keep=self.keep, now=now)

    def references(self, *, skip: Sequence[Path]) -> set[str]:
        """Return the thumbprints of the known certificates that any INI value names."""
        found = discover(self.root, self.known, skip=skip)
        return {thumbprint(item.certificate) for item in found}

    def _bind_one(
        self,
        target: Target,
        data: bytes,
        certificate: x509.Certificate,
        changes: list[Change],
    ) -> bytes:
        found = ini.lookup(data, target.section, target.key)
        if not found:
            value = _form(target).write(certificate)
            changes.append(Change(target, 0, "", value))
            place = target.section, target.key
            return _written(target, lambda: ini.set_value(data, *place, value))
        names = dns_names(certificate)
        edits = {
            entry: self._replaced(target, entry.value, certificate, names)
            for entry in found
        }
        edits = {entry: value for entry, value in edits.items() if value != entry.value}
        if not edits:
            return data
        if len(found) > 1:
            every = ", ".join(str(entry.line) for entry in found)
            _log.warning(
                "%s stands %d times (lines %s); changed in line %s. Windows' own "
                "functions take the first, other readers the last: remove all but one.",
                target,
                len(found),
                every,
                ", ".join(str(entry.line) for entry in edits),
            )
        changes += [
            Change(target, entry.line, entry.value, value)
            for entry, value in edits.items()
        ]
        return _written(target, lambda: ini.substitute(data, edits))

    def _replaced(
        self,
        target: Target,
        value: str,
        certificate: x509.Certificate,
        names: Collection[str],
    ) -> str:
        """Return the value, naming the certificate in place of the one it names now."""
        if forms.find(value, [certificate]):
            return value
        form = _form(target)
        if not value:
            return form.write(certificate)
        if hits := self._choose(target, value, names):
            done, pieces = 0, []
            for hit in hits:
                pieces += [value[done : hit.start], hit.form.write(certificate)]
                done = hit.end
            return "".join([*pieces, value[done:]])
        shaped = list(form.shape().finditer(value))
        if len(shaped) == 1:
            # Another certificate than any we know, in the form that we do know.
            _log.warning(
                "%s named %s, which is not in the store; it is replaced.",
                target,
                words(shaped[0][0], 100),
            )
            start, end = shaped[0].span()
            return value[:start] + form.write(certificate) + value[end:]
        message = f"{target} names {words(value, 200)!r}, in which no certificate that "
        message += "is in the store can be found."
        hint = "Choose any certificate of the store there once in MDaemon's dialog."
        raise ConfigError(message, hint=hint)

    def _choose(
        self, target: Target, value: str, names: Collection[str]
    ) -> list[forms.Hit]:
        """Return where a value names the certificate that we look after.

        In a list of several this is ours, else the one for most of our names.
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
            message = f"{target} lists {len(certificates)} certificates, none of them "
            message += f"for {', '.join(sorted(wanted))}: which is to be replaced?"
            hint = "Leave only that one there in MDaemon's dialog, once."
            raise ConfigError(message, hint=hint)
        return [hit for hit in hits if hit.certificate == best]


def _place(target: Target) -> tuple[str, str, str]:
    return target.file, target.section.lower(), target.key.lower()


def _form(target: Target) -> forms.Form:
    return forms.parse(target.form) if target.form else forms.DEFAULT


def _written(target: Target, write: Callable[[], bytes]) -> bytes:
    try:
        return write()
    except ValueError as exc:
        message = f"{target} cannot be written: {exc}."
        hint = "Nothing was changed; look at the file."
        raise DeployError(message, hint=hint) from exc


def explicit(root: Path, targets: Mapping[str, Target]) -> tuple[Target, ...]:
    """Check the targets that the config file names.

    Raises:
        ConfigError: Listing every file that is not there and every unknown form.
    """
    problems = []
    for name, target in targets.items():
        try:
            read_ini(file_below(root, target.file))
            _form(target)
        except (ConfigError, ValueError) as exc:
            problems.append(f"[target {name}]: {exc}")
    if problems:
        raise ConfigError("; ".join(problems), hint="Correct it in the config file.")
    return tuple(targets.values())
