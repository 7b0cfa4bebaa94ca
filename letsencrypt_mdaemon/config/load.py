"""Load the settings from the command line, the environment and the config file."""

from __future__ import annotations

import codecs
import io
import logging
import re
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.config import parsers
from letsencrypt_mdaemon.config.settings import Config, TargetText
from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from letsencrypt_mdaemon.config.fields import Setting

_log = logging.getLogger(__name__)

PREFIX = "LETSENCRYPT_MDAEMON_"
CONFIG = PREFIX + "CONFIG"
FILE_NAME = "letsencrypt-mdaemon.ini"
SECTION = "letsencrypt-mdaemon"

MAX_FILE_BYTES = 1 << 20
"""Of a config file."""
MAX_PROBLEMS = 100
"""How many problems are shown; the words of the first ones get a suggestion."""

REMOVED = ("max-names", "keep-backups")
"""Former settings: they are skipped with a warning, so that old files still work."""


def settings() -> Iterator[tuple[str, Setting]]:
    """Yield every setting with its name, for example `host-name`."""
    for item in fields(Config):
        if row := item.metadata.get("setting"):
            yield item.name.replace("_", "-"), row


def as_option(name: str, texts: Sequence[str]) -> str:
    """Return a setting as an option of a command line that works in any folder."""
    text = absolute(name, texts)
    if dict(settings())[name].flag and text == "yes":
        return f"--{name}"
    return f"--{name}={text}"


def absolute(name: str, texts: Sequence[str]) -> str:
    """Return a setting's text with absolute paths: it works in any folder."""
    row, text = dict(settings())[name], ",".join(texts)
    if name == "store":
        kind, colon, folder = text.partition(":")
        return f"{kind}:{Path(folder).absolute()}" if colon else text
    return str(Path(text).absolute()) if row.metavar in {"DIR", "FILE"} else text


class Loaded(NamedTuple):
    """A `Config`, and the origin of each value that is set."""

    config: Config
    origins: Mapping[str, str]
    file: Path | None

    def shown(self) -> dict[str, dict[str, str]]:
        """Return the value and the origin of every setting; secrets are hidden.

        Where an unset value has an effect, its default is told in words.
        """
        rows = {}
        for name, row in settings():
            value = getattr(self.config, name.replace("-", "_"))
            text = "(set)" if row.secret and value else parsers.shown(value)
            rows[name] = {"value": text, "from": self.origins.get(name, "default")}
            if name not in self.origins and row.usual not in {"", text}:
                usual = {"delay": str(self.config.longest_delay)}
                rows[name]["default"] = usual.get(name, row.usual)
        for target in self.config.targets:
            text = f"{target.file} [{target.section}] {target.key} {target.form}"
            name = f"target {target.name}"
            rows[name] = {"value": text.strip(), "from": self.origins[name]}
        return rows


def load(
    options: Mapping[str, Sequence[str]], environ: Mapping[str, str], file: Path | None
) -> Loaded:
    """Return the settings; see `read`.

    Raises:
        ConfigError: With every problem and its place.
    """
    return checked(read(options, environ, file))


def read(
    options: Mapping[str, Sequence[str]],
    environ: Mapping[str, str],
    file: Path | None,
) -> tuple[Loaded, list[str]]:
    """Merge file, environment and command line; each overrides the one before.

    Args:
        options: The options of the command line: texts by setting name.
        environ: The environment; an empty variable counts as unset.
        file: The config file, if there is one.

    Returns:
        The settings that are valid, and every problem with its place.
    """
    draft = _Draft()
    if file is not None:
        draft.take_file(file)
    draft.take_environment(environ)
    for name, texts in options.items():
        draft.take(name, ",".join(texts), f"command line --{name}", Path())
    return Loaded(draft.valid(), draft.origins, file), draft.problems


def checked(found: tuple[Loaded, list[str]]) -> Loaded:
    """Return what was read, if there are no problems.

    Raises:
        ConfigError: With every problem and its place.
    """
    loaded, problems = found
    if problems:
        raise _error(problems)
    return loaded


def load_config(file: str | Path | None = None, **settings: object) -> Config:
    """Return a configuration from a file and from settings, which override the file.

    The environment is not read, and no config file is searched for.

    Args:
        file: A config file as `docs/settings.md` describes it.
        settings: Values by the setting's name, with `_` in place of `-`. A value is the
            text of the config file, or a `Path`, a number, a bool or a list. None
            leaves the setting as it is.

    Raises:
        ConfigError: With every problem and its place.
    """
    draft = _Draft()
    if file is not None:
        draft.take_file(Path(file))
    draft.take_arguments(settings)
    return draft.config()


class _Draft:
    """The values so far, and every problem."""

    def __init__(self) -> None:
        self.table = dict(settings())
        self.values: dict[str, parsers.Parsed] = {}
        self.origins: dict[str, str] = {}
        self.targets: list[TargetText] = []
        self.problems: list[str] = []

    def config(self) -> Config:
        if self.problems:
            raise _error(self.problems)
        return self.valid()

    def valid(self) -> Config:
        given = {name.replace("-", "_"): value for name, value in self.values.items()}
        return Config(**given, targets=tuple(self.targets))

    def take(self, name: str, text: str, origin: str, base: Path) -> None:
        try:
            self.values[name] = self.table[name].parse(text, base)
        except ValueError as exc:
            self.problems.append(f"{origin}: {printable(exc)}")
        self.origins[name] = origin

    def take_arguments(self, settings: Mapping[str, object]) -> None:
        names = {name.replace("-", "_"): name for name in self.table}
        for argument, value in settings.items():
            if argument not in names:
                self._unknown(argument, argument, names)
            elif value is not None:
                self.take(names[argument], parsers.shown(value), argument, Path())

    def take_environment(self, environ: Mapping[str, str]) -> None:
        names = {name.replace("-", "_").upper(): name for name in self.table}
        for variable, text in environ.items():
            if not variable.startswith(PREFIX) or variable == CONFIG:
                continue
            name = variable.removeprefix(PREFIX)
            where = f"environment {printable(variable)}"
            if name not in names:
                self._unknown(where, name, names, PREFIX)
            elif text:
                self.take(names[name], text, where, Path())

    def take_file(self, file: Path) -> None:
        sections, problems = _read(file)
        self.problems += problems
        seen = set()
        for section, keys in sections.items():
            where = f"{file} [{printable(section)}]"
            name = " ".join(section.lower().split())
            if name in seen:
                self.problems.append(f"{where}: this section appears twice")
            seen.add(name)
            if section.lower() == SECTION:
                self._take_settings(keys, where, file.absolute().parent)
            elif match := re.fullmatch(r"target\s+(\S.*)", section, re.IGNORECASE):
                self._take_target(match[1].strip(), keys, where)
            else:
                known = [SECTION, "target NAME"]
                self._unknown(where, section, known, kind="unknown section")

    def _take_settings(self, keys: Mapping[str, str], where: str, base: Path) -> None:
        for key, text in keys.items():
            if key in self.table:
                self.take(key, parsers.unquoted(text), f"{where} {key}", base)
            else:
                self._unknown(f"{where} {printable(key)}", key, self.table)

    def _take_target(self, name: str, keys: Mapping[str, str], where: str) -> None:
        values = {"file": "", "section": "", "key": "", "form": ""}
        for key, text in keys.items():
            if key not in values:
                self._unknown(f"{where} {printable(key)}", key, values)
                continue
            try:
                values[key] = parsers.parse_text(parsers.unquoted(text), Path())
            except ValueError as exc:
                self.problems.append(f"{where} {key}: {exc}")
        if not values["file"] or not values["key"]:
            self.problems.append(f"{where}: set both file and key")
        parts = re.split(r"[\\/]", values["file"] or "x")
        if {"", ".."} & set(parts) or ":" in values["file"]:
            self.problems.append(f"{where} file: use a path below MDaemon's folder")
        self.targets.append(TargetText(printable(name), **values))
        self.origins[f"target {printable(name)}"] = where

    def _unknown(
        self,
        where: str,
        word: str,
        known: Iterable[str],
        prefix: str = "",
        kind: str = "unknown",
    ) -> None:
        """Add a problem with the nearest known word, or warn of a removed setting."""
        if word.lower().replace("_", "-") in REMOVED:
            _log.warning("%s: skipped, this setting was removed; delete it", where)
            return
        # Comparing words takes long, and no file has so many misspelled ones.
        few = len(self.problems) < MAX_PROBLEMS
        by_lower = {name.lower(): name for name in known if few}
        found = get_close_matches(word.lower(), list(by_lower), 1)
        hint = f"; did you mean {prefix}{by_lower[found[0]]}?" if found else ""
        self.problems.append(f"{where}: {kind}{hint}")


def own_settings(data: bytes, file: Path) -> dict[str, str]:
    """Return what the section of this program in a config file sets: texts by name.

    Raises:
        ConfigError: If that is no config file.
    """
    sections, problems = _parse(lambda: data, file)
    if problems:
        raise _error(problems)
    return {
        key: parsers.unquoted(text)
        for section, keys in sections.items()
        if section.lower() == SECTION
        for key, text in keys.items()
    }


def _read(file: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Read the config file.

    Returns:
        The sections, and the problems. They quote no line: it may hold a password.
    """
    from letsencrypt_mdaemon.system.disk import read_limited  # noqa: PLC0415 - slow

    return _parse(lambda: read_limited(file, MAX_FILE_BYTES, "a config file"), file)


def _parse(
    read: Callable[[], bytes], file: Path
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Parse a config file: INI, where a backslash has no special meaning."""
    # --help needs neither.
    import configparser  # noqa: PLC0415

    from letsencrypt_mdaemon.system.disk import reason  # noqa: PLC0415

    parser = configparser.ConfigParser(
        interpolation=None, delimiters=("=",), default_section=""
    )
    mail: dict[str, dict[str, str]] = {}
    try:
        data = read()
        # As Notepad and PowerShell write it; other encodings cannot be told apart.
        is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        encoding = "utf-16" if is_utf16 else "utf-8-sig"
        text = io.TextIOWrapper(io.BytesIO(data), encoding).read()
        mail = _about_mail(text)
        parser.read_string(text)
    except UnicodeDecodeError:
        return {}, [f"{file} is not UTF-8 text; save it as UTF-8"]
    except (OSError, ValueError) as exc:
        return {}, [f"Could not read {file}: {reason(exc)}"]
    except configparser.MissingSectionHeaderError as exc:
        return mail, [f"{file} line {exc.lineno}: add [{SECTION}] above it"]
    except configparser.ParsingError as exc:
        problems = [f"{file} line {line}: write name = value" for line, _ in exc.errors]
        return mail, problems
    except (
        configparser.DuplicateSectionError,
        configparser.DuplicateOptionError,
    ) as exc:
        what = getattr(exc, "option", f"[{exc.section}]")
        return mail, [f"{file} line {exc.lineno}: {printable(what)} appears twice"]
    return {name: dict(parser[name]) for name in parser.sections()}, []


def _about_mail(text: str) -> dict[str, dict[str, str]]:
    """Return the settings about mail in a file that is no INI: its owner is told."""
    names = "to|metrics-file|(?:mail|notify|heartbeat)[a-z-]*"
    rows = re.findall(rf"(?m)^[ \t]*({names})[ \t]*=(.*)$", text)
    table = dict(settings())
    return {SECTION: {name: value for name, value in rows if name in table}}


def _error(problems: Sequence[str]) -> ConfigError:
    if len(problems) == 1:
        return ConfigError(f"The configuration is invalid: {problems[0]}")
    more = len(problems) - MAX_PROBLEMS
    left_out = [f"and {more} more"] if more > 0 else []
    shown = [*problems[:MAX_PROBLEMS], *left_out]
    lines = "".join(f"\n  - {problem}" for problem in shown)
    return ConfigError(f"The configuration has {len(problems)} problems:{lines}")
