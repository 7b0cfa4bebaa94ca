r"""A LetsEncrypt.ps1 that runs this program in place of the vendor's script.

Windows PowerShell 5.1 reads it: ASCII, as a file without a byte order mark is ANSI to
it; lines end as Windows' do. A mark in it tells it, and the tasks that run it, from the
vendor's.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.system.disk import read_limited
from letsencrypt_mdaemon.system.schedule import THIS_PROGRAM

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

NAME = "LetsEncrypt.ps1"
KEPT = f"{NAME}.vendor"
"""The vendor's script, while ours has its name: PowerShell runs no such file."""

MARK = "# letsencrypt-mdaemon runs in place of MDaemon's script."
"""The first line of ours."""

MAX_BYTES = 1 << 20
"""The largest script to read."""

OLD_SCRIPT = re.compile(r"letsencrypt\.ps1|scheduled-renew\.cmd", re.IGNORECASE)

_SCRIPT = re.compile(
    r"""(?i)([a-z]:[\\/][^"'<>|*?:\r\n]*?)?(letsencrypt\.ps1|scheduled-renew\.cmd)"""
)
_FOLDER = re.compile(r"(?is)<WorkingDirectory>(.*?)</WorkingDirectory>")

_TEXT = """\
{mark}
# `letsencrypt-mdaemon script install` wrote this file. `script remove` puts
# MDaemon's own back, which is in {kept} meanwhile.
# The parameters are those of MDaemon's script. Everything else is set in the
# config file of letsencrypt-mdaemon.
param(
{parameters}
)
$ErrorActionPreference = 'Continue'
$program = {program}
$words = @(
{words}
)
if (-not (Test-Path -LiteralPath $program -PathType Leaf)) {{
    Write-Error "$program does not exist. Run: letsencrypt-mdaemon script install"
    exit 1
}}
# Nobody sees a run without a desktop: it is one of a schedule.
if (-not [Environment]::UserInteractive) {{ $words += '--scheduled' }}
{switches}
$values = [ordered]@{{
{values}
}}
foreach ($name in $values.Keys) {{
    $value = @($values[$name]) -join ','
    # Windows PowerShell would hand these over as something else.
    if ($value -match '"|\\\\$') {{
        Write-Error "$name must not contain a quotation mark or end with a backslash."
        exit 2
    }}
    if ($value) {{ $words += "$name=$value" }}
}}
if ($args) {{ Write-Warning "Skipping unknown parameters: $args" }}
# In case the program cannot be started.
$global:LASTEXITCODE = 1
& $program $words
exit $LASTEXITCODE
"""


def script(
    command: Sequence[str], lists: Mapping[str, str], switches: Mapping[str, str]
) -> bytes:
    """Return the script that runs a command with the parameters of the old one.

    Args:
        command: An absolute path and its arguments.
        lists: Our option by parameter, of those with values.
        switches: The same of those without.
    """
    program, *words = command
    parameters = [f"    ${name}" for name in lists]
    parameters += [f"    [switch]${name}" for name in switches]
    text = _TEXT.format(
        mark=MARK,
        kept=KEPT,
        parameters=",\n".join(parameters),
        program=literal(program),
        words=",\n".join(f"    {literal(word)}" for word in words),
        switches="\n".join(
            f"if (${name}) {{ $words += {literal(option)} }}"
            for name, option in switches.items()
        ),
        values="\n".join(
            f"    {literal(option)} = ${name}" for name, option in lists.items()
        ),
    )
    return text.replace("\n", "\r\n").encode("ascii")


def literal(text: str) -> str:
    """Return an expression of PowerShell for a text, in ASCII and on one line.

    Nothing in single quotes means anything, but for a single quote, also a curly one:
    those of ASCII are doubled, and every other character is written by its number
    (about_Quoting_Rules).
    """
    data = text.encode("utf-16-le", "surrogatepass")
    units = [
        int.from_bytes(data[at : at + 2], "little") for at in range(0, len(data), 2)
    ]
    parts = ["''"]
    for unit in units:
        if not 0x20 <= unit < 0x7F:  # noqa: PLR2004 - what ASCII can show
            parts.append(f"[char]0x{unit:04X}")
            continue
        shown = chr(unit).replace("'", "''")
        if parts[-1].startswith("'"):
            parts[-1] = f"{parts[-1][:-1]}{shown}'"
        else:
            parts.append(f"'{shown}'")
    # A comma would bind more than a plus.
    return parts[0] if len(parts) == 1 else f"({' + '.join(parts)})"


def is_ours(path: Path) -> bool:
    """Whether a file is such a script; false if it cannot be read."""
    return MARK.encode() in _read(path)[:200]


def runs(path: Path, program: Path) -> bool:
    """Whether a file is such a script, and runs that program.

    Args:
        program: An absolute path, of any case.
    """
    line = f"$program = {literal(str(program))}\r\n".encode("ascii")
    return is_ours(path) and line.lower() in _read(path).lower()


def is_run_by(definition: str) -> bool:
    """Whether all old scripts that a task runs are ours.

    A .cmd file counts, too: by the script that it runs, or by this program.

    Args:
        definition: The XML of a scheduled task.
    """
    text = html.unescape(definition)
    folder = _FOLDER.search(text)
    found = list(_scripts(text, folder[1].strip() if folder else ""))
    return bool(found) and all(map(_runs_us, found))


def _runs_us(path: Path) -> bool:
    if path.suffix.lower() != ".cmd":
        return is_ours(path)
    here = f"{path.parent}\\"
    text = re.sub("(?i)%~dp0", lambda _: here, _read(path).decode("latin-1"))
    lines = [
        line for line in text.splitlines() if not re.match(r"(?i)\s*(rem\b|::)", line)
    ]
    inner = [
        found
        for found in _scripts("\n".join(lines), str(path.parent))
        if found.suffix.lower() != ".cmd"
    ]
    if inner:
        return all(map(is_ours, inner))
    return any(THIS_PROGRAM.search(line) for line in lines)


def _scripts(text: str, folder: str) -> Iterator[Path]:
    """Yield the old scripts that a text names.

    Args:
        folder: Where one without a folder is; "" if unknown.
    """
    for place, name in _SCRIPT.findall(text):
        yield Path(f"{place}{name}") if place else Path(folder, name)


def _read(path: Path) -> bytes:
    try:
        return read_limited(path, MAX_BYTES, "a script")
    except (OSError, ValueError):
        return b""
