"""Translate the command line of the old script, LetsEncrypt.ps1.

PowerShell accepts parameters with one dash, in upper or lower case, by any unambiguous
prefix: `-Name value`, `-Name:value`, several values; a switch also as `-Name:$false`.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

PARAMETERS = {
    "AlternateHostNames": "--alternate-host-names",
    "IISSiteName": "--iis-site-name",
    "To": "--to",
    "RemoveOldCertificates": "--remove-old-certificates",
    "SkipPortCheck": "--skip-port-check",
}
MAX_VALUES = {"IISSiteName": 1, "RemoveOldCertificates": 0, "SkipPortCheck": 0}
"""The other parameters take a list."""

# PowerShell accepts a dash, an en dash, an em dash or a horizontal bar.
_PARAMETER = re.compile(r"[-\u2013\u2014\u2015]([A-Za-z]+)(?::(.*))?\Z", re.DOTALL)
_OURS = re.compile(r"--|-[chv]+\Z")
_ANSWERS = {"$true": True, "true": True, "1": True}
_ANSWERS |= {"$false": False, "false": False, "0": False}


def is_legacy(arguments: Sequence[str]) -> bool:
    """Return whether a command line is one for the old script."""
    return bool(arguments) and _match(arguments[0]) is not None


def spelling(word: str) -> str:
    """Return our option for a parameter of the old script; "" if it is none.

    Only the parameters that no option of ours abbreviates: at least two letters.
    """
    match = _match(word)
    name = _name(match[1], []) if match and len(match[1]) > 1 else ""
    return PARAMETERS.get(name, "")


def translate(arguments: Sequence[str]) -> list[str]:
    """Return our command line for one of the old script's; our options may follow.

    Raises:
        ConfigError: With all parameters that are unknown, ambiguous or incomplete.
    """
    ours = ["renew"]
    problems = []
    waiting = deque(arguments)
    while waiting and not _OURS.match(waiting[0]):
        word = waiting.popleft()
        match = _match(word)
        if match is None:
            problems.append(f"{word!r} has no parameter")
            continue
        name = _name(match[1], problems)
        values = _values(name, match[2], waiting)
        try:
            ours += _option(name, values) if name else []
        except ValueError as exc:
            problems.append(f"-{name} {exc}")
    if problems:
        known = ", ".join(f"-{name}" for name in PARAMETERS)
        message = f"The command line is invalid: {'; '.join(problems)}."
        raise ConfigError(message, hint=f"The old script's parameters are {known}.")
    return [*ours, *waiting]


def script(command: Sequence[str]) -> bytes:
    """Return a LetsEncrypt.ps1 that runs a command of ours with these parameters."""
    from letsencrypt_mdaemon.system import drop_in  # noqa: PLC0415 - slow to import

    switches = {
        name: PARAMETERS[name] for name in PARAMETERS if MAX_VALUES.get(name) == 0
    }
    lists = {name: PARAMETERS[name] for name in PARAMETERS if name not in switches}
    return drop_in.script(command, lists, switches)


def _match(word: str) -> re.Match[str] | None:
    return None if _OURS.match(word) else _PARAMETER.match(word)


def _name(prefix: str, problems: list[str]) -> str:
    found = [name for name in PARAMETERS if name.lower().startswith(prefix.lower())]
    if len(found) == 1:
        return found[0]
    problems.append(f"-{prefix} matches {' and '.join(found) or 'no parameter'}")
    return ""


def _values(name: str, first: str | None, waiting: deque[str]) -> list[str]:
    """Take the values of a parameter; `first` is the text after its colon."""
    values = [] if first is None else [first]
    most = MAX_VALUES.get(name, len(waiting) + 1)
    while waiting and (len(values) < most or values == [""]):
        if _OURS.match(waiting[0]) or _match(waiting[0]):
            break
        # Nothing after the colon: the value is the next word.
        values = [value for value in values if value] + [waiting.popleft()]
    return values


def _option(name: str, values: list[str]) -> list[str]:
    """Return our option; raise ValueError if the value is missing or invalid."""
    if MAX_VALUES.get(name) == 0:
        answer = _ANSWERS.get(values[0].lower()) if values else True
        if answer is None:
            raise ValueError(f"is {values[0]!r}, not $true or $false")
        return [PARAMETERS[name]] if answer else []
    value = ",".join(value.strip(" ,") for value in values if value.strip(" ,"))
    if not value:
        raise ValueError("has no value")
    return [PARAMETERS[name], value]
