"""Write the config file that `setup` leaves behind."""

from __future__ import annotations

import codecs
import os
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.config import load
from letsencrypt_mdaemon.config.settings import Config
from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.mdaemon import folders, ini
from letsencrypt_mdaemon.system.disk import explained, read_limited

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from letsencrypt_mdaemon.config.load import Loaded

ONCE = ("staging", "dry-run", "force", "ask-ca", "no-activate", "json")
"""Settings of one run: they never go into the config file."""


def place(loaded: Loaded, root: Path) -> Path:
    """Return the config file that is there, else where it belongs."""
    return loaded.file or folders.child(root, "LetsEncrypt") / load.FILE_NAME


def content(file: Path, values: Mapping[str, str]) -> bytes:
    """Return the config file with these settings; the rest stays byte by byte.

    Args:
        values: Texts by setting name. A setting that is not in the file, and has the
            default, is left out.

    Raises:
        ConfigError: If the file cannot be read, or cannot hold a value.
    """
    table = dict(load.settings())
    data = former(file)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        message = f"{file} is UTF-16 text, which `setup` does not change."
        raise ConfigError(message, hint="Save it as UTF-8, then run `setup` again.")
    expected = {**load.own_settings(data, file), **values}
    if not data.strip():
        data += _HEAD
    for name, text in values.items():
        found = ini.lookup(data, load.SECTION, name)
        if [entry.value for entry in found] == [text]:
            continue
        try:
            data = ini.set_value(data, load.SECTION, name, text)
            if not found:
                data = _with_comment(data, name, table[name].help)
        except ValueError as exc:
            message = f"{file} cannot hold {name} = {text}: {exc}."
            raise ConfigError(message, hint="Correct it in the file.") from exc
    if load.own_settings(data, file) != expected:
        message = f"{file} has values over several lines, which `setup` cannot change."
        raise ConfigError(message, hint="Write each value on one line.")
    return data


def former(file: Path) -> bytes:
    """Return the config file as it is; b"" if there is none.

    Raises:
        ConfigError: If it cannot be read.
    """
    with explained(f"read {file}", failure=ConfigError):
        return read_limited(file, load.MAX_FILE_BYTES) if file.exists() else b""


_HEAD = (
    b"; Settings of letsencrypt-mdaemon, made by `setup`.\r\n"
    b"; Others have their defaults: `letsencrypt-mdaemon config show` shows all.\r\n"
    b"\r\n[letsencrypt-mdaemon]\r\n"
)


def _with_comment(data: bytes, name: str, text: str) -> bytes:
    """Return the file with a comment above a setting that was added to it."""
    (entry,) = ini.lookup(data, load.SECTION, name)
    start = max(data.rfind(b"\n", 0, entry.start) + 1, 0)
    ending = b"\r\n" if b"\r\n" in data else b"\n"
    return data[:start] + b"; " + text.encode() + ending + data[start:]


def wanted(
    loaded: Loaded, options: Mapping[str, Sequence[str]], answers: Mapping[str, str]
) -> dict[str, str]:
    """Return the settings for the config file: texts by name.

    Those of the environment are among them: the scheduled command does not get it.

    Args:
        options: Those of the command line.
        answers: What was asked; they override the options.
    """
    given = {
        name: load.absolute(name, texts)
        for name, texts in {**_environment(loaded), **options}.items()
        if name not in ONCE
    }
    values = {**given, **answers}
    kept = load.read({}, {}, loaded.file)[0].origins
    new, usual = (
        load.load({k: (text,) for k, text in values.items()}, {}, None),
        Config(),
    )
    fields = {name: name.replace("-", "_") for name in values}
    return {
        name: text
        for name, text in values.items()
        if name in kept
        or getattr(new.config, fields[name]) != getattr(usual, fields[name])
    }


def _environment(loaded: Loaded) -> dict[str, tuple[str]]:
    """Return the settings that the environment has, without secrets."""
    return {
        name: (os.environ[variable],)
        for name, variable in _variables(loaded).items()
        if not dict(load.settings())[name].secret
    }


def _variables(loaded: Loaded) -> dict[str, str]:
    """Return the variables that settings come from, by the setting's name."""
    return {
        name: load.PREFIX + name.replace("-", "_").upper()
        for name, origin in loaded.origins.items()
        if origin.startswith("environment ")
    }


def require_no_secret(loaded: Loaded, scheduled: Loaded) -> None:
    """Require that the scheduled command lacks no secret of the environment.

    Args:
        loaded: The settings with the environment.
        scheduled: Those without it.

    Raises:
        ConfigError: If it lacks one: it is not written into a file unasked.
    """
    for name, variable in _variables(loaded).items():
        secret = dict(load.settings())[name].secret
        if secret and not {name, f"{name}-file"} & scheduled.origins.keys():
            message = f"The scheduled command does not get {variable}."
            hint = f"Write it to a file that only you can read, and set {name}-file."
            raise ConfigError(message, hint=hint)
