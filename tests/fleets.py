"""The files that many servers would have printed, good and hostile ones."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from letsencrypt_mdaemon._version import __version__

NOW = datetime(2026, 11, 28, 9, 0, tzinfo=UTC)
DAY = timedelta(days=1)
THUMBPRINT = "0D8083453DBCA24F2BDFA90C748B48E75CC3517F"

HOSTILE = (
    '<script>document.title="run"</script>',
    "<img src=//192.0.2.1/x onerror=alert(1)>",
    "\"'><svg onload=alert(2)><a href=javascript:alert(3)>x</a>",
    "</style></title><meta http-equiv=refresh content='0;url=//192.0.2.1'>",
    "\u202emoc.live\u2066\u200b\x1b[2J\x07\x00",
    "=cmd|' /C calc'!A0",
    "\ud800 lone",
    "m" * 3000,
)


def iso(moment: datetime) -> str:
    """Return a moment as the program's JSON has it."""
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def status(
    name: str = "mail.example.test",
    *,
    days: float = 60,
    now: datetime = NOW,
    state: str = "OK",
    problem: str = "",
    **changes: Any,  # noqa: ANN401 - any key
) -> dict[str, Any]:
    """Return what `status --json --ports` prints on a server."""
    end = now + days * DAY
    leaf = {
        "thumbprint": THUMBPRINT,
        "names": [name, f"imap.{name}"],
        "issuer": "CN=R12,O=Let's Encrypt,C=US",
        "not_before": iso(end - 90 * DAY),
        "not_after": iso(end),
    }
    ports = [f"{name}:{port}" for port in (25, 443, 465, 993, 995)]
    return {
        "schema": 1,
        "command": "status",
        "generator": {"version": __version__, "host": f"host-{name}", "time": iso(now)},
        "exit_code": 0,
        "days_left": days,
        "verdict": f"{name}: valid until {end:%Y-%m-%d}, due later.",
        "state": state,
        "problems": [{"state": state, "text": problem}] if problem else [],
        "mdaemon_dir": r"C:\MDaemon",
        "store": "windows",
        "directory_url": "https://acme-v02.api.letsencrypt.org/directory",
        "names": [name, f"imap.{name}"],
        "due": False,
        "reason": "the certificate is good",
        "due_at": iso(end - 30 * DAY),
        "rule": "two thirds of its lifetime",
        "advice": None,
        "waiting": None,
        "certificate": leaf,
        "key_provider": None,
        "key_readers": None,
        "next_tlsa": None,
        "tlsa_ports": None,
        "rolled_back": None,
        "script": {"installed": False, "warning": None},
        "tlsa": None,
        "pending": None,
        "held": None,
        "targets": [
            {
                "file": "App/MDaemon.ini",
                "section": "SSL",
                "key": "Hash",
                "certificate": leaf,
            }
        ],
        "dropped": [],
        "served": dict.fromkeys(ports, THUMBPRINT),
        "proof": {
            "new": ports,
            "old": [],
            "broken": [],
            "silent": [],
            "unproven": [],
            "foreign": [],
            "ports": [
                {"endpoint": port, "verdict": "new", "reason": "serves it"}
                for port in ports
            ],
        },
        "would_fail": [],
        "ledger": {
            "issued_this_week": [],
            "issued_this_week_limit": 5,
            "failing": [],
        },
        "schedule": {
            "scheduled": True,
            "last_run": iso(now - timedelta(hours=7)),
            "every_hours": 12.0,
            "warning": None,
            "lifetimes": [],
        },
        "warnings": [],
        "log": None,
        **changes,
    }


def check(
    name: str = "mail.example.test",
    *,
    state: str = "OK",
    problem: str = "",
    days: float = 60,
    now: datetime = NOW,
    **changes: Any,  # noqa: ANN401 - any key
) -> dict[str, Any]:
    """Return what `check --format json` prints on a server."""
    return {
        "schema": 1,
        "command": "check",
        "generator": {"version": __version__, "host": f"host-{name}", "time": iso(now)},
        "exit_code": 0,
        "days_left": days,
        "verdict": f"{state} - {name}",
        "state": state,
        "name": name,
        "warning_days": 21,
        "critical_days": 7,
        "ports": 5,
        "ports_proven": 5,
        "last_run_seconds": 25_200,
        "problems": [{"state": state, "text": problem}] if problem else [],
        "warnings": [],
        "log": None,
        **changes,
    }


def failed(message: str, *, now: datetime = NOW) -> dict[str, Any]:
    """Return what `status --json` prints if it fails."""
    return {
        "schema": 1,
        "command": "status",
        "generator": {"version": __version__, "host": "host-bad", "time": iso(now)},
        "exit_code": 2,
        "days_left": None,
        "verdict": message,
        "error": {"type": "ConfigError", "message": message, "hint": ""},
        "warnings": [],
        "log": None,
    }


def hostile(text: str, *, now: datetime = NOW) -> dict[str, Any]:
    """Return a status with a text wherever a text may be."""
    made = status(now=now, state="WARNING", problem=text)

    def spoiled(value: Any, key: str = "") -> Any:  # noqa: ANN401 - JSON
        if isinstance(value, dict):
            return {key: spoiled(item, key) for key, item in value.items()}
        if isinstance(value, list):
            return [spoiled(item) for item in value]
        kept = {"schema", "command", "state", "time", "due_at", "last_run"}
        kept |= {"not_before", "not_after"}
        return text if isinstance(value, str) and key not in kept else value

    found: dict[str, Any] = spoiled(made)
    return found


def write(folder: Path, name: str, document: object) -> Path:
    """Write a document as a server's file."""
    path = folder / name
    path.write_text(json.dumps(document), "utf-8")
    return path


def make(folder: Path, count: int, *, now: datetime = NOW, bad_of: int = 10) -> Path:
    """Fill a folder with the files of so many servers; one of so many is not good."""
    folder.mkdir(parents=True, exist_ok=True)
    bad: list[dict[str, Any]] = [
        {"state": "WARNING", "problem": "a port could not be proven at smtp:25"},
        {"state": "CRITICAL", "problem": "no longer served at imaps:993 (timed out)"},
        {"days": 3.5},
        {
            "days": -1.0,
            "state": "CRITICAL",
            "problem": "the certificate in use expired",
        },
    ]
    for number in range(count):
        how: dict[str, Any] = {"days": 31 + number * 7 % 55}
        if number % bad_of == 3:
            how |= bad[number // bad_of % len(bad)]
        name = f"mail{number:04}.example.test"
        write(folder, f"{name}.json", status(name, now=now, **how))
    return folder


def make_mixed(folder: Path, *, now: datetime = NOW) -> Path:
    """Fill a folder with a few servers of every kind, and hostile files."""
    make(folder, 16, now=now, bad_of=4)
    for number, text in enumerate(HOSTILE):
        write(folder, f"hostile{number}.json", hostile(text, now=now))
    write(folder, "failed.json", failed("No MDaemon was found.", now=now))
    old = status("old.example.test", now=now - 9 * DAY)
    write(folder, "old.json", old)
    write(folder, "schema.json", status() | {"schema": 2})
    (folder / "text.json").write_text("no JSON")
    return folder
