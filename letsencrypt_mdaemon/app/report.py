"""Gather what a pilot may send: how a server is made, without what it holds.

Values are chosen, never copied: numbers, words of this program and of Windows, shapes.
No text of an error is in it, as it may name a path, a host or an account; its kind and
its codes are. What cannot be read is listed, with these.
"""

from __future__ import annotations

import importlib.metadata
import ssl
import sys
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from letsencrypt_mdaemon._version import __version__
from letsencrypt_mdaemon.app import build, masks, scheduling, selftest, trust
from letsencrypt_mdaemon.config import load
from letsencrypt_mdaemon.mdaemon import folders
from letsencrypt_mdaemon.pki.certificate import key_type, thumbprint
from letsencrypt_mdaemon.state.memory import utc
from letsencrypt_mdaemon.system import drop_in, process
from letsencrypt_mdaemon.system.schedule import MARK
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from letsencrypt_mdaemon.app.installation import Installation
    from letsencrypt_mdaemon.verify.endpoints import Endpoint
    from letsencrypt_mdaemon.verify.served import Served

Section = dict[str, Any] | list[Any] | None

SCHEMA = 1
"""The version of the report."""
ABOUT = (
    "No name, address, path, thumbprint or key is in this file. Read it, and send it."
)


def gather(
    installation: Installation | None,
    root: Path | None,
    config_file: Path | None,
    tests: selftest.Report | None,
    *,
    problem: BaseException | None = None,
) -> dict[str, Any]:
    """Return the report.

    Args:
        installation: None if it could not be opened.
        root: MDaemon's folder, if it was found.
        tests: The results of the self-test, if it was made.
        problem: Why the installation could not be opened, or the test not be made.
    """
    parts: dict[str, Callable[[], Section]] = {
        "machine": _machine,
        "schedule": _schedule,
    }
    if root is not None:
        parts["access"] = lambda: _access(installation, root, config_file)
        parts["service"] = lambda: _service(root)
        parts["script"] = lambda: _script(installation, root)
    if (opened := installation) is not None:

        @cache
        def looked() -> Installation:
            return opened.look([opened.server_name()])

        parts |= {
            "shape": lambda: _shape(looked()),
            "keys": lambda: _keys(opened),
            "iis": lambda: _iis(opened),
            "reloads": lambda: _reloads(opened),
            "ports": lambda: _ports(looked()),
        }
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "about": ABOUT,
        "generator": {
            "version": __version__,
            "time": utc(datetime.now(UTC)).isoformat(),
        },
        "tests": _tests(tests),
    }
    unread = {} if problem is None else {"installation": masks.codes(problem)}
    for name in SECTIONS:
        found[name] = None
        if name in parts:
            try:
                found[name] = parts[name]()
            except Exception as exc:  # noqa: BLE001 - it is listed
                unread[name] = masks.codes(exc)
        elif name not in unread:
            unread[name] = []
    return {**found, "unread": unread}


SECTIONS = (
    *("machine", "service", "script", "schedule", "access", "shape", "keys", "iis"),
    *("reloads", "ports"),
)
"""The parts of a report; None if one cannot be read."""


def _machine() -> Section:
    found: dict[str, Any] = dict(selftest.machine())
    found["openssl"] = ssl.OPENSSL_VERSION
    for name in ("cryptography", "pywin32"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    streams = {"stdin": sys.stdin, "stdout": sys.stdout, "stderr": sys.stderr}
    found["streams"] = {
        name: None if stream is None else stream.isatty()
        for name, stream in streams.items()
    }
    found["windows"] = masks.windows()
    return found


def _service(root: Path) -> Section:
    service = build.windows_service(root)
    found: dict[str, Any] = {"found": service is not None, "account": None}
    if sys.platform == "win32" and service is not None:
        from letsencrypt_mdaemon.windows import security  # noqa: PLC0415 - Windows only

        found["account"] = masks.sid(security.sid_of(service.account()))
    return found


def _script(installation: Installation | None, root: Path) -> Section:
    file = folders.child(root, "LetsEncrypt", drop_in.NAME)
    return {
        "there": file.is_file(),
        "ours": drop_in.is_ours(file),
        "installed": bool(installation and installation.memory.script),
    }


def _schedule() -> Section:
    scheduler = scheduling.of_this_system()
    job = scheduler.show()
    options = ["--config", MARK, *(f"--{name}" for name, _ in load.settings())]
    return {
        "job": job
        and {
            "options": [name for name in options if name in job.command],
            "isolated": " -I " in job.command,
            "next_run": bool(job.next_run),
            "last_run": bool(job.last_run),
            "last_exit_code": job.last_code,
        },
        "rivals": len(scheduler.rivals()),
        "twins": len(scheduler.twins()),
    }


def _access(
    installation: Installation | None, root: Path, config_file: Path | None
) -> Section:
    """Describe who owns and may change what; a place by what it is."""
    places: dict[str, Path | None] = {
        "MDaemon": root,
        "App": folders.child(root, "App"),
        "MDaemon.ini": folders.main_ini(root),
        "LetsEncrypt": folders.child(root, "LetsEncrypt"),
        "Logs": folders.child(root, "Logs"),
        "config file": config_file,
        "state": installation.state.folder if installation else None,
    }
    for number, folder in enumerate(dict.fromkeys(trust.program_folders()), 1):
        places[f"program {number}"] = folder
    rows = []
    for what, path in places.items():
        if path is None or not path.exists():
            continue
        try:
            rows.append({"place": what, **masks.permissions(path)})
        except (OSError, ValueError) as exc:
            rows.append({"place": what, "unread": masks.codes(exc)})
    return rows


def _shape(installation: Installation) -> Section:
    found = installation.shape()
    return {
        "files": list(found.files),
        "values": [value._asdict() for value in found.values],
        "semaphores": {"used": list(found.used), "present": list(found.present)},
    }


def _keys(installation: Installation) -> Section:
    """Describe the keys of the certificates that are ours or in use."""
    store, rows = installation.store, []
    place_of: Callable[[str], Any] | None = getattr(store, "key_place", None)
    is_usable: Callable[[str], bool] | None = getattr(store, "is_key_usable", None)
    for leaf, _ in installation.stored:
        digest = thumbprint(leaf)
        is_in_use = digest == installation.memory.in_use
        if not is_in_use and digest not in installation.ours:
            continue
        place = place_of(digest) if place_of else None
        rows.append(
            {
                "in_use": is_in_use,
                "type": key_type(leaf),
                "provider": printable(place.provider, 100) if place else None,
                "kind": place.kind if place else None,
                "key_spec": getattr(place, "key_spec", None),
                "usable": is_usable(digest) if is_usable else None,
            }
        )
    return rows


def _iis(installation: Installation) -> Section:
    site = build.web_site(installation.config, installation.known)
    bindings: list[dict[str, Any]] = []
    flags = site.flags() if site else {}
    for target, leaf in site.named().items() if site else ():
        address, port, host = target.key.removeprefix("https ").rsplit(":", 2)
        bindings.append(
            {
                "address": "every" if address in {"", "*"} else "one",
                "port": int(port) if port.isdecimal() else None,
                "host": bool(host),
                "ssl_flags": flags.get(target),
                "certificate": _whose(installation, thumbprint(leaf) if leaf else None),
            }
        )
    there = (
        sys.platform == "win32"
        and (process.windows_system() / "inetsrv" / "appcmd.exe").exists()
    )
    return {"appcmd": there, "site": site is not None, "bindings": bindings}


def _reloads(installation: Installation) -> Section:
    memory = installation.memory
    return {
        "rungs": [
            {
                "name": _semaphore(rung.name),
                "kinds": list(rung.kinds),
                "seconds": rung.seconds,
            }
            for rung in memory.rungs
        ],
        "restarted": memory.restarted is not None,
        "runs": len(memory.runs),
        "exit_code": memory.exit_code,
    }


def _semaphore(name: str) -> str:
    from letsencrypt_mdaemon.mdaemon import shape  # noqa: PLC0415 - seldom needed

    return shape.semaphore(name) if name.upper().endswith(".SEM") else "service"


def _ports(installation: Installation) -> Section:
    seen = installation.observed.items()
    return [_port(installation, at, served) for at, served in seen]


def _port(installation: Installation, at: Endpoint, served: Served) -> dict[str, Any]:
    return {
        "scheme": at.scheme,
        "port": at.port,
        "address": masks.address(at.host),
        "outcome": served.outcome.value,
        "tls": served.tls or None,
        "seconds": round(served.seconds, 2),
        "certificate": _whose(installation, served.thumbprint),
        "key": key_type(served.leaf) if served.leaf else None,
        "chain": len(served.chain),
        "differently": len(served.differently),
    }


def _whose(installation: Installation, digest: str | None) -> str | None:
    if not digest:
        return None
    if digest in installation.ours:
        return "ours, in use" if digest == installation.memory.in_use else "ours"
    stored = {thumbprint(leaf) for leaf, _ in installation.stored}
    return "of the store" if digest in stored else "another"


def _tests(tests: selftest.Report | None) -> Section:
    if tests is None:
        return None
    return [
        {
            "name": check.name,
            "result": check.result,
            "seconds": round(check.seconds, 2),
            "codes": masks.codes(check.failure),
        }
        for check in tests.checks
    ]
