"""The command line of the old script, LetsEncrypt.ps1, as ours.

PowerShell takes parameters with one dash in any case, by any prefix that fits only one,
as `-Name value`, `-Name:value` or several values; switches also as `-Name:$false`.
"""

from __future__ import annotations

import re
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
SWITCHES = {"RemoveOldCertificates", "SkipPortCheck"}

# PowerShell takes a dash, an en dash, an em dash and a horizontal bar alike.
_PARAMETER = re.compile(r"[-\u2013\u2014\u2015]([A-Za-z]{2,}|[AIRSTairst])(?::(.*))?\Z", re.DOTALL)


def is_legacy(arguments: Sequence[str]) -> bool:
    """Whether a command line is written as for the old script."""
    return bool(arguments) and bool(_match(arguments[0]))


def translate(arguments: Sequence[str]) -> list[str]:
    """Return our command line for one of the old script's.

    Options of ours, with two dashes, may follow.

    Raises:
        ConfigError: Listing all parameters that are unknown, ambiguous or incomplete.
    """
    ours = ["renew"]
    problems = []
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        match = _match(word)
        if match is None:
            if word.startswith("--"):
                ours += [word, *waiting]
                break
            problems.append(f"{word!r} belongs to no parameter")
            continue
        name = _name(match[1], problems)
        values = [] if match[2] is None else [match[2]]
        if name in SWITCHES:
            if not values or values[0].lower() not in {"$false", "false", "0", ""}:
                ours.append(PARAMETERS[name])
            continue
        while waiting and not waiting[0].startswith("--") and not _match(waiting[0]):
            values.append(waiting.pop(0))
        value = ",".join(value.strip(" ,") for value in values if value.strip(" ,"))
        if name and not value:
            problems.append(f"-{name} has no value")
        elif name:
            ours += [PARAMETERS[name], value]
    if problems:
        known = ", ".join(f"-{name}" for name in PARAMETERS)
        message = f"The command line is wrong: {'; '.join(problems)}."
        raise ConfigError(message, hint=f"The old script's parameters: {known}.")
    return ours


def _match(word: str) -> re.Match[str] | None:
    return _PARAMETER.match(word)


def _name(prefix: str, problems: list[str]) -> str:
    found = [name for name in PARAMETERS if name.lower().startswith(prefix.lower())]
    if len(found) == 1:
        return found[0]
    problems.append(f"-{prefix} is no parameter")
    return ""
