"""Load the settings from the command line, the environment and the config file."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.config.parsers import Parsed, Setting, TargetText, parse_text
from letsencrypt_mdaemon.config.settings import Config
from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


PREFIX = "LETSENCRYPT_MDAEMON_"


CONFIG = PREFIX + "CONFIG"


FILE_NAME = "letsencrypt-mdaemon.ini"


SECTION = "letsencrypt-mdaemon"


def settings() -> Iterator[tuple[str, Setting]]:
    """Yield every setting with its name as an option is spelled, without dashes."""
    for item in fields(Config):
        if row := item.metadata.get("setting"):
            yield item.name.replace("_", "-"), row


def absolute(name: str, text: str) -> str:
    """Return a setting's text so that it means the same in whatever folder."""
    if name == "store":
        kind, colon, folder = text.partition(":")
        return f"{kind}:{Path(folder).absolute()}" if colon else text
    if dict(settings())[name].metavar in {"DIR", "FILE"}:
        return str(Path(text).absolute())
    return text


def is_flag(name: str) -> bool:
    """Whether a setting is yes or no."""
    return dict(settings())[name].flag


@dataclass(frozen=True, slots=True)
class Loaded:
    """A `Config`, and for each setting where its value came from."""

    config: Config
    origins: Mapping[str, str]
    file: Path | None

    def shown(self) -> dict[str, dict[str, str]]:
        """Return value and origin of every setting, secrets hidden."""
        rows = {}
        for name, row in settings():
            value = getattr(self.config, name.replace("-", "_"))
            text = "(set)" if row.secret and value else _show(value)
            rows[name] = {"value": text, "from": self.origins.get(name, "default")}
        for target in self.config.targets:
            text = f"{target.file} [{target.section}] {target.key} {target.form}"
            name = f"target {target.name}"
            rows[name] = {"value": text.strip(), "from": self.origins[name]}
        return rows


def load(
    options: Mapping[str, Sequence[str]],
    environ: Mapping[str, str],
    file: Path | None,
) -> Loaded:
    """Merge file, environment and command line, in this order of rising precedence.

    Args:
        options: What the command line gave, by setting name.
        environ: The environment; an empty variable counts as none.
        file: The config file, if there is one.

    Raises:
        ConfigError: Listing every problem, each with where it stands.
    """
    draft = _Draft()
    if file is not None:
        draft.take_file(file)
    draft.take_environment(environ)
    for name, texts in options.items():
        draft.take(name, ",".join(texts), f"command line --{name}", Path())
    if draft.problems:
        raise _error(draft.problems)
    return Loaded(draft.config(), draft.origins, file)


class _Draft:
    """What was taken so far, and what is wrong with it."""

    def __init__(self) -> None:
        self.table = dict(settings())
        self.values: dict[str, Parsed] = {}
        self.origins: dict[str, str] = {}
        self.targets: list[TargetText] = []
        self.problems: list[str] = []

    def config(self) -> Config:
        given = {name.replace("-", "_"): value for name, value in self.values.items()}
        return Config(**given, targets=tuple(self.targets))

    def take(self, name: str, text: str, origin: str, base: Path) -> None:
        try:
            self.values[name] = self.table[name].parse(text, base)
        except ValueError as exc:
            self.problems.append(f"{origin}: {printable(exc)}")
        self.origins[name] = origin

    def take_environment(self, environ: Mapping[str, str]) -> None:
        names = {name.replace("-", "_").upper(): name for name in self.table}
        for variable, text in environ.items():
            if not variable.startswith(PREFIX) or variable == CONFIG:
                continue
            name = variable.removeprefix(PREFIX)
            where = f"environment {printable(variable)}"
            if name not in names:
                nearest = _nearest(name, names, PREFIX)
                self.problems.append(f"{where}: unknown{nearest}")
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
                self.problems.append(f"{where}: stands there again")
            seen.add(name)
            if section.lower() == SECTION:
                self._take_settings(keys, where, file.absolute().parent)
            elif match := re.fullmatch(r"target\s+(\S.*)", section, re.IGNORECASE):
                self._take_target(match[1].strip(), keys, where)
            else:
                nearest = _nearest(section, [SECTION, "target NAME"])
                self.problems.append(f"{where}: unknown section{nearest}")

    def _take_settings(self, keys: Mapping[str, str], where: str, base: Path) -> None:
        for key, text in keys.items():
            if key in self.table:
                self.take(key, text, f"{where} {key}", base)
            else:
                nearest = _nearest(key, self.table)
                self.problems.append(f"{where} {printable(key)}: unknown{nearest}")

    def _take_target(self, name: str, keys: Mapping[str, str], where: str) -> None:
        values = {"file": "", "section": "", "key": "", "form": ""}
        for key, text in keys.items():
            if key not in values:
                nearest = _nearest(key, values)
                self.problems.append(f"{where} {printable(key)}: unknown{nearest}")
                continue
            try:
                values[key] = parse_text(text, Path())
            except ValueError as exc:
                self.problems.append(f"{where} {key}: {exc}")
        if not values["file"] or not values["key"]:
            self.problems.append(f"{where}: file and key are needed")
        parts = re.split(r"[\\/]", values["file"] or "x")
        if {"", ".."} & set(parts) or ":" in values["file"]:
            self.problems.append(f"{where} file: write a path below MDaemon's folder")
        self.targets.append(TargetText(printable(name), **values))
        self.origins[f"target {printable(name)}"] = where


def _read(file: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Read the config file: INI, where a backslash is just a backslash.

    Returns:
        The sections, and what is wrong. No line is quoted: it may hold a password.
    """
    import configparser  # noqa: PLC0415 - not needed for --help

    parser = configparser.ConfigParser(
        interpolation=None, delimiters=("=",), default_section=""
    )
    try:
        parser.read_string(file.read_text("utf-8-sig"))
    except OSError as exc:
        return {}, [f"{file} cannot be read: {exc.strerror}"]
    except UnicodeDecodeError:
        return {}, [f"{file} is not UTF-8 text: save it as such"]
    except configparser.MissingSectionHeaderError as exc:
        return {}, [f"{file} line {exc.lineno}: stands before [{SECTION}]"]
    except configparser.ParsingError as exc:
        return {}, [
            f"{file} line {line}: is not name = value" for line, _ in exc.errors
        ]
    except (
        configparser.DuplicateSectionError,
        configparser.DuplicateOptionError,
    ) as exc:
        what = getattr(exc, "option", f"[{exc.section}]")
        return {}, [f"{file} line {exc.lineno}: {printable(what)} stands there again"]
    return {name: dict(parser[name]) for name in parser.sections()}, []


def _nearest(word: str, known: Iterable[str], prefix: str = "") -> str:
    by_lower = {name.lower(): name for name in known}
    found = get_close_matches(word.lower(), list(by_lower), 1)
    return f"; did you mean {prefix}{by_lower[found[0]]}?" if found else ""


def _error(problems: Sequence[str]) -> ConfigError:
    if len(problems) == 1:
        return ConfigError(f"The configuration is wrong: {problems[0]}")
    lines = "".join(f"\n  - {problem}" for problem in problems)
    return ConfigError(f"The configuration has {len(problems)} problems:{lines}")


def _show(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case (str(host), int(port)):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case tuple():
            return ",".join(map(str, value))
        case _:
            return str(value)
