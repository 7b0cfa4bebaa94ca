"""The command line of the old script, LetsEncrypt.ps1, as ours.

PowerShell takes parameters with one dash in any case, by any prefix that fits only one,
as `-Name value`, `-Name:value` or several values; switches also as `-Name:$false`.
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
MOST_VALUES = {"IISSiteName": 1, "RemoveOldCertificates": 0, "SkipPortCheck": 0}
"""The others take a list."""

# PowerShell takes a dash, an en dash, an em dash and a horizontal bar alike.
_PARAMETER = re.compile(r"[-\u2013\u2014\u2015]([A-Za-z]+)(?::(.*))?\Z", re.DOTALL)
_OURS = re.compile(r"--|-[chv]+\Z")
_ANSWERS = {"$true": True, "true": True, "1": True}
_ANSWERS |= {"$false": False, "false": False, "0": False}


def is_legacy(arguments: Sequence[str]) -> bool:
    """Whether a command line is written as for the old script."""
    return bool(arguments) and _match(arguments[0]) is not None


def translate(arguments: Sequence[str]) -> list[str]:
    """Return our command line for one of the old script's.

    Options of ours may follow.

    Raises:
        ConfigError: Listing all parameters that are unknown, ambiguous or incomplete.
    """
    ours = ["renew"]
    problems = []
    waiting = deque(arguments)
    while waiting and not _OURS.match(waiting[0]):
        word = waiting.popleft()
        match = _match(word)
        if match is None:
            problems.append(f"{word!r} belongs to no parameter")
            continue
        name = _name(match[1], problems)
        values = _values(name, match[2], waiting)
        try:
            ours += _option(name, values) if name else []
        except ValueError as exc:
            problems.append(f"-{name} {exc}")
    if problems:
        known = ", ".join(f"-{name}" for name in PARAMETERS)
        message = f"The command line is wrong: {'; '.join(problems)}."
        raise ConfigError(message, hint=f"The old script's parameters: {known}.")
    return [*ours, *waiting]


def _match(word: str) -> re.Match[str] | None:
    return None if _OURS.match(word) else _PARAMETER.match(word)


def _name(prefix: str, problems: list[str]) -> str:
    found = [name for name in PARAMETERS if name.lower().startswith(prefix.lower())]
    if len(found) == 1:
        return found[0]
    problems.append(f"-{prefix} fits {' and '.join(found) or 'no parameter'}")
    return ""


def _values(name: str, first: str | None, waiting: deque[str]) -> list[str]:
    """Take the values of a parameter: `first` is what stands behind its colon."""
    values = [] if first is None else [first]
    most = MOST_VALUES.get(name, len(waiting) + 1)
    while waiting and (len(values) < most or values == [""]):
        if _OURS.match(waiting[0]) or _match(waiting[0]):
            break
        # Nothing behind the colon: the next word is meant.
        values = [value for value in values if value] + [waiting.popleft()]
    return values


def _option(name: str, values: list[str]) -> list[str]:
    """Return our option; raise ValueError if it lacks a value."""
    if MOST_VALUES.get(name) == 0:
        answer = _ANSWERS.get(values[0].lower()) if values else True
        if answer is None:
            raise ValueError(f"is {values[0]!r}, not $true or $false")
        return [PARAMETERS[name]] if answer else []
    value = ",".join(value.strip(" ,") for value in values if value.strip(" ,"))
    if not value:
        raise ValueError("has no value")
    return [PARAMETERS[name], value]
