"""Command lines and blocks that `tests.shown` does not run, each with the reason."""

from __future__ import annotations

from typing import NamedTuple


class Excepted(NamedTuple):
    """Command lines of a page, or a block of text, by how they begin.

    Args:
        reason: Why they are not run, or where else they are.
    """

    page: str
    starts: str
    reason: str


TOX = "tox itself: it runs these tests"
FIRST_CHANGE = "a change by hand, of a clone"
CHANGING = (".venv/bin/pip", ".venv/bin/pytest", ".venv/bin/tox -q -e")
DEMO = "the line of `tox -e dist`, which also runs the demo; its output is compared"
SETUP_PROGRAM = "the setup program, on Windows; `tox -e wine` runs it"
WINDOWS = "a program of Windows"
LOG = "the setup program's log; `tox -e wine` looks at it"
POWERSHELL = "no PowerShell is at hand; the page says so"
OTHERS = "another program's config file, not a command"
INSTALLERS = "installs on Windows: tried under Wine by hand, no test does it"
FREEZE = "makes the folder for Windows: `tox -e wine` does so, under Wine"
ANSIBLE = "`tox -e fleet` runs the playbook"
WIN, PACKAGING = "docs/windows.md", "packaging/windows/README.md"
FLEET = "examples/ansible/README.md"
EXCEPTIONS = (
    Excepted("CONTRIBUTING.md", "python3 -m venv .venv", TOX),
    Excepted("CONTRIBUTING.md", "7  cli/", "a picture of the house"),
    *(Excepted("CONTRIBUTING.md", start, FIRST_CHANGE) for start in CHANGING),
    Excepted("README.md", "python3 -m venv .venv", DEMO),
    Excepted("README.md", ".venv/bin/tox -m debian", TOX),
    Excepted("README.md", "py -m venv", INSTALLERS),
    Excepted(
        "README.md", '"C:\\Program Files\\letsencrypt-mdaemon\\Scripts', INSTALLERS
    ),
    Excepted(
        "docs/benchmarks.md", "python3 -m venv", "takes long: `tox -e benchmarks`"
    ),
    Excepted("docs/fleet.md", "ansible-playbook renew.yml", ANSIBLE),
    Excepted("docs/fleet.md", "UNKNOWN,mail2", "`tox -e fleet` prints it"),
    Excepted(
        "docs/keys-and-dane.md",
        "_25._tcp.mail.example.com. IN TLSA",
        "a DNS record, not a command's output",
    ),
    Excepted("docs/json.md", "$status =", POWERSHELL),
    Excepted("docs/json.md", "if ($status", POWERSHELL),
    Excepted("docs/json.md", '"{0} {1} {2}"', POWERSHELL),
    Excepted("docs/moving-over.md", "schtasks", WINDOWS),
    Excepted("docs/port-80.md", "frontend http", "HAProxy's config: `tox -e mail`"),
    Excepted("docs/monitoring.md", "object CheckCommand", OTHERS),
    Excepted("docs/monitoring.md", "Certificate (interval=3600)", OTHERS),
    Excepted("docs/notifications.md", "# Teams, then Telegram", OTHERS),
    Excepted(
        "docs/notifications.md",
        "pip install letsencrypt-mdaemon[apprise]",
        "`tox -e py` installs with this extra",
    ),
    Excepted(WIN, "start /wait", SETUP_PROGRAM),
    Excepted(WIN, "type C:\\Windows\\Logs", LOG),
    Excepted(
        WIN, '"C:\\Program Files\\letsencrypt-mdaemon\\uninstall.exe"', SETUP_PROGRAM
    ),
    Excepted(WIN, "2026-11-28 13:10:33  Installing", LOG),
    Excepted(WIN, "icacls", f"{WINDOWS}; tests/windows looks at what it would do"),
    Excepted(
        WIN,
        "error: SYSTEM must not run programs",
        "needs an access list of Windows: tests/windows/anywhere/test_trust.py",
    ),
    Excepted(PACKAGING, "certutil", WINDOWS),
    Excepted(PACKAGING, "start /wait", SETUP_PROGRAM),
    Excepted(PACKAGING, "echo %ERRORLEVEL%", SETUP_PROGRAM),
    Excepted(
        PACKAGING, '"C:\\Program Files\\letsencrypt-mdaemon\\uninstall', SETUP_PROGRAM
    ),
    Excepted(PACKAGING, "set UV_", INSTALLERS),
    Excepted(PACKAGING, "uv tool", INSTALLERS),
    Excepted(PACKAGING, "set PIPX_", INSTALLERS),
    Excepted(PACKAGING, "pipx install", INSTALLERS),
    Excepted(PACKAGING, "rmdir /s /q", WINDOWS),
    Excepted(PACKAGING, "tar -xf", WINDOWS),
    Excepted(PACKAGING, "py -3.13 -m venv", FREEZE),
    Excepted(PACKAGING, "%TEMP%\\freeze\\Scripts", FREEZE),
    Excepted(FLEET, "pip wheel", "`tox -e fleet` makes the same folder"),
    Excepted(FLEET, "ansible-playbook", ANSIBLE),
)
OPTIONS_OF_OTHERS = {
    "--fix": "ruff",
    "--upgrade": "tox -e pins",
    "--seconds": "tox -e fuzz",
    "--require-hashes": "pip",
    "--no-deps": "pip",
    "--user": "pip",
    "--repo": "gh",
    "--check": "ansible-playbook",
    "-vvv": "ansible-playbook",
    "--limit": "ansible-playbook",
    "-vv": "apprise",
    "--pip-args": "pipx",
    "-store": "certutil",
    "--global": "pipx",
    "--sign": "installer.py",
    "--target": "installer.py",
    "--cancel": "wacs.exe",
    "--id": "wacs.exe",
    "--renew": "wacs.exe",
    "-importpfx": "certutil",
    "-ano": "netstat",
    "--write": "python -m tests.shown",
}
"""Options in running text that are another program's."""


def excepted(page: str, text: str) -> list[Excepted]:
    """Return the exceptions that a command line or the first line of a block is."""
    found = (x for x in EXCEPTIONS if page == x.page and text.startswith(x.starts))
    return list(found)
