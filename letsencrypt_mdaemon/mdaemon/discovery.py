"""Find the INI values that name the server's certificate.

The keys are not documented, so they are learned: a value that names a certificate of
the store, or one that a port serves, is a target.
"""

from __future__ import annotations

import codecs
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.mdaemon import forms, ini
from letsencrypt_mdaemon.mdaemon.folders import IniFiles, file_below, is_below, main_ini
from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.state.memory import Target

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from cryptography import x509

_log = logging.getLogger(__name__)

SKIPPED_FOLDERS = {"users", "queues", "logs", "public folders"}
"""Folders of mail and logs: large, and without settings."""

SETTINGS_FOLDERS = {"app", "worldclient", "webadmin"}
"""Folders whose own files are the server's settings."""


class Found(NamedTuple):
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
    files: IniFiles,
    certificates: Collection[x509.Certificate],
    *,
    skip: Sequence[Path] = (),
    everywhere: bool = True,
) -> list[Found]:
    """Return every place below the installation that names one of the certificates.

    The search covers `*.ini` and `*.dat` outside folders of mail, logs and backups, and
    outside those to skip.

    Args:
        everywhere: Else only the server's settings folders, without those in them.
    """
    found = []
    paths = ini_files(files.root, skip, everywhere=everywhere)
    for path, data, named in _naming(files, certificates, paths):
        is_below_root = path.is_relative_to(files.root)
        name = (path.relative_to(files.root) if is_below_root else path).as_posix()
        inside = [
            Found(
                name,
                entry.line,
                Target(name, entry.section, entry.key, str(hit.form)),
                hit.certificate,
            )
            for entry in files.entries(path, data)
            for hit in forms.find(entry.value, certificates)
        ]
        values = {item.certificate for item in inside}
        outside = [each for each in named if each not in values]
        found += [*inside, *(Found(name, 0, None, each) for each in outside)]
    return found


def references(
    root: Path, certificates: Collection[x509.Certificate], *, skip: Sequence[Path]
) -> set[str]:
    """Return the thumbprints of the certificates that any file names."""
    return {
        thumbprint(certificate)
        for _, _, named in _naming(
            IniFiles(root), certificates, ini_files(root, skip, everywhere=True)
        )
        for certificate in named
    }


def _naming(
    files: IniFiles, certificates: Collection[x509.Certificate], paths: Iterable[Path]
) -> Iterator[tuple[Path, bytes, dict[x509.Certificate, None]]]:
    """Yield each file that names certificates, its bytes, and the certificates.

    Few files do, so only these need parsing.
    """
    for path in paths:
        try:
            data = files.data(path)
        except ConfigError as exc:
            _log.warning("Skipped: %s", exc)
            continue
        named = {
            hit.certificate: None
            for text in _texts(data)
            for hit in forms.find(text, certificates)
        }
        if named:
            yield path, data, named


def learned(found: Sequence[Found], old: Sequence[Target]) -> tuple[Target, ...]:
    """Return old targets and those of some places, which replace them; each once."""
    new = [item.target for item in found if item.target]
    by_place = {(x.file, x.section.lower(), x.key.lower()): x for x in (*old, *new)}
    return tuple(by_place.values())


class Unseen(NamedTuple):
    """A known target whose value cannot be seen.

    Args:
        is_gone: Whether it is not there, rather than unreadable for now.
    """

    target: Target
    why: str
    is_gone: bool

    def __str__(self) -> str:
        """Return it as messages show it."""
        return f"{self.target}: {self.why}"


def look_at(
    files: IniFiles, known: Sequence[Target], sizes: Mapping[str, int]
) -> tuple[list[Target], list[Unseen]]:
    """Return the known targets that have a value, and the others.

    A value that is missing, and a file that is unreadable or has lost more than half of
    its size, are looked at for some seconds: somebody may be writing the file.

    Args:
        sizes: The bytes of each file when it was last read.
    """
    seen: list[Target] = []
    unseen: list[Unseen] = []
    for name in dict.fromkeys(target.file for target in known):
        inside = [target for target in known if target.file == name]

        def is_wrong(
            data: bytes, found: list[ini.Entry], inside: list[Target] = inside
        ) -> bool:
            is_short = 2 * len(data) < sizes.get(inside[0].file, 0)
            return is_short or not all(_has_value(found, target) for target in inside)

        try:
            found = files.steady(file_below(files.root, name), is_wrong)
        except ConfigError as exc:
            is_gone = _is_gone(files.root, name)
            why = "the file does not exist" if is_gone else exc.message.rstrip(".")
            unseen += [Unseen(target, why, is_gone) for target in inside]
            continue
        for target in inside:
            if _has_value(found, target):
                seen.append(target)
            else:
                unseen.append(Unseen(target, "it has no value", is_gone=True))
    return seen, unseen


def _has_value(found: list[ini.Entry], target: Target) -> bool:
    return any(x.value for x in ini.matching(found, target.section, target.key))


def _is_gone(root: Path, name: str) -> bool:
    try:
        return root.is_dir() and not file_below(root, name).exists()
    except ConfigError:  # it leads out of the folder
        return True


def ini_files(root: Path, skip: Sequence[Path], *, everywhere: bool) -> Iterator[Path]:
    """Yield the INI and DAT files; see `discover`."""
    if not (main := main_ini(root)).is_relative_to(root):
        yield main
    ours = {path.resolve() for path in skip}
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        top = here == root
        if not everywhere:
            names = folders if top else []
            folders[:] = [name for name in names if name.lower() in SETTINGS_FOLDERS]
        folders[:] = sorted(
            name
            for name in folders
            if not (top and name.lower() in SKIPPED_FOLDERS)
            and not name.lower().startswith("backup")
            and (here / name).resolve() not in ours
        )
        for name in sorted(files):
            if not name.lower().endswith((".ini", ".dat")):
                continue
            if is_below(here / name, root):
                yield here / name
            else:
                _log.warning("Skipped: %s leads out of %s", here / name, root)


def _texts(data: bytes) -> Iterator[str]:
    """Yield a file's possible texts, whether it is INI or not."""
    # Bytes beyond ASCII are no part of a form, and must not look like one.
    yield data.decode("ascii", "replace")
    if b"\0" in data:
        yield data.replace(b"\0", b"").decode("ascii", "replace")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        yield data.decode("utf-16", "replace")


def form_of(target: Target) -> forms.Form:
    """Return the form in which a target names its certificate."""
    return forms.parse(target.form) if target.form else forms.DEFAULT


def explicit(
    files: IniFiles, targets: Mapping[str, Target]
) -> tuple[list[Target], list[Unseen]]:
    """Return the targets that the config file names, and those that cannot be read.

    Raises:
        ConfigError: If a file is missing or a form is unknown; it lists all of them.
    """
    problems, seen, unseen = [], [], []
    for name, target in targets.items():
        try:
            form_of(target)
            files.steady(file_below(files.root, target.file), lambda data, _: not data)
            seen.append(target)
        except (ConfigError, ValueError) as exc:
            if isinstance(exc, ConfigError) and not _is_gone(files.root, target.file):
                unseen.append(Unseen(target, exc.message.rstrip("."), is_gone=False))
            else:
                problems.append(f"[target {name}]: {exc}")
    if problems:
        raise ConfigError("; ".join(problems), hint="Correct it in the config file.")
    return seen, unseen
