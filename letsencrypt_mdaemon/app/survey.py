"""Find what a first setup can offer: names, the CA's terms, the schedule before us."""

from __future__ import annotations

import json
import logging
import os
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.app import adapters, build, checkup
from letsencrypt_mdaemon.doctor.findings import Weight
from letsencrypt_mdaemon.mdaemon import folders, host_name
from letsencrypt_mdaemon.pki.names import normalise
from letsencrypt_mdaemon.system.disk import read_limited, reason
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from letsencrypt_mdaemon.app.installation import Installation
    from letsencrypt_mdaemon.app.scheduling import Scheduler
    from letsencrypt_mdaemon.config.load import Loaded

_log = logging.getLogger(__name__)

NAMES_SECONDS = 20
"""For the doctor's look at all names together."""

MAX_RENEWAL_BYTES = 1_000_000
"""Of a file of simple-acme, which has some kilobytes."""

MAX_NAMES = 100
"""Names that are offered: as many as a certificate of Let's Encrypt may have."""

SOURCES = ("auto", "script", "simple-acme", "none")
"""Where else names are looked for: `setup --import`."""


class Offer(NamedTuple):
    """A name for the certificate.

    Args:
        origin: Who uses it today.
        verdict: What the doctor says; "" if nothing is wrong.
        chosen: Whether it is offered as a part of the certificate.
    """

    name: str
    origin: str
    verdict: str = ""
    chosen: bool = True


class Survey(NamedTuple):
    """What was found on this machine.

    Args:
        origin: Where the server's folder was found.
        others: Further folders with an MDaemon.
        offers: The server's own name first.
        mail: The address that failures are mailed to; "" if nobody's is known.
        terms: The URL of the CA's terms of service, if nobody agreed to them yet.
        rivals: The tasks that run the vendor's script.
        running: Whether MDaemon runs; None if that is unknown.
    """

    root: Path
    origin: str
    others: tuple[Path, ...]
    offers: tuple[Offer, ...]
    mail: str
    terms: str
    rivals: tuple[str, ...]
    running: bool | None = None


def look(  # noqa: PLR0913 - what there is to look at
    installation: Installation,
    loaded: Loaded,
    scheduler: Scheduler | None,
    source: str,
    *,
    now: datetime,
    examines: bool = True,
) -> Survey:
    """Look around, and let the doctor look at each name.

    Args:
        scheduler: None if this system has none.
        source: One of `SOURCES`.
        examines: Whether the doctor looks at the names, with the lock held.

    Raises:
        Error: If the server's own name is unclear, or the CA cannot be reached.
    """
    config, root = installation.config, installation.root
    origin, others = _origins(loaded, root)
    found = _names(installation, scheduler, source)
    ours = installation.wanted_names()
    offers = tuple(Offer(name, origin) for name, origin in found.items())
    if examines:
        # What the settings name is never dropped for what is seen today.
        offers = tuple(
            row._replace(chosen=row.chosen or row.name in ours)
            for row in examine(installation, found, now=now)
        )
    files = host_name.witnesses(installation.files, "")
    domain = min(files.default_domains(), default=offers[0].name.partition(".")[2])
    return Survey(
        root=root,
        origin=origin,
        others=tuple(others),
        offers=offers,
        mail=", ".join(config.to) or (f"postmaster@{domain}" if domain else ""),
        terms=_terms(installation),
        rivals=tuple(scheduler.rivals()) if scheduler else (),
        running=is_running(installation),
    )


def examine(
    installation: Installation, names: Mapping[str, str], *, now: datetime
) -> tuple[Offer, ...]:
    """Let the doctor look at each name.

    Args:
        names: Each with who uses it today; the server's own first.
    """
    wanted = list(names)[:MAX_NAMES]
    examination = checkup.check_names(
        installation, wanted, now=now, timeout=NAMES_SECONDS
    )
    offers = []
    for row in examination.names:
        bad = [item for item in row.findings if item.weight is not Weight.NOTE]
        verdict = "; ".join(map(str, bad))
        # What cannot be judged from here (NAT) is offered: the rehearsal decides.
        chosen = row.weight is not Weight.FAILURE or row.name == wanted[0]
        offers.append(Offer(row.name, names[row.name], verdict, chosen))
    return tuple(offers)


def _origins(loaded: Loaded, root: Path) -> tuple[str, list[Path]]:
    """Return where the server's folder was found, and other servers' folders."""
    given = loaded.origins.get("mdaemon-dir", "")
    origin, others = given, []
    for place in folders.places(
        None if not given else loaded.config.mdaemon_dir, given
    ):
        found = folders.root_of(place.folder)
        if found == root:
            origin = origin or place.origin
        elif folders.child(found, "App", "MDaemon.ini").is_file():
            others.append(found)
    return origin, others


def _names(
    installation: Installation, scheduler: Scheduler | None, source: str
) -> dict[str, str]:
    """Return each name that is found, with who uses it today."""
    first, *more = installation.wanted_names()
    found = {first: "default domain"}
    found |= dict.fromkeys(more, "this program's settings")
    for host in host_name.witnesses(installation.files, "").hosts:
        if name := host.name():
            found.setdefault(name, f"domain {printable(host.domain, 100)}")
    if scheduler is not None and source in {"auto", "script"}:
        for task, names in scheduler.old_names().items():
            for name in _valid(names):
                found.setdefault(name, f'task "{title(task)}", to be replaced')
    if source in {"auto", "simple-acme"}:
        for name in _valid(simple_acme_names()):
            found.setdefault(name, "simple-acme")
    return found


def title(task: str) -> str:
    """Return a task's name as a person writes it."""
    return task.removeprefix("\\")


def _valid(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        try:
            yield normalise(name)
        except ValueError:
            _log.debug("Not a name for a certificate: %s", printable(name, 100))


def simple_acme_names(root: Path | None = None) -> list[str]:
    """Return the names of simple-acme's and win-acme's renewals, which are only read.

    Args:
        root: The folder of all programs' data; None = Windows' own.
    """
    if root is None:
        data = os.environ.get("ProgramData")  # noqa: SIM112 - Windows' name
        if not data:
            return []
        root = Path(data)
    files = chain.from_iterable(
        root.glob(f"{program}/*/*.renewal.json")
        for program in ("simple-acme", "win-acme")
    )
    names: list[str] = []
    for file in sorted(files):
        try:
            document = json.loads(read_limited(file, MAX_RENEWAL_BYTES))
            target = document["TargetPluginOptions"]
            found = [target.get("CommonName"), *(target.get("AlternativeNames") or ())]
        except OSError as exc:
            _log.warning("Could not read %s: %s", file, reason(exc))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            _log.warning("%s is not a renewal of simple-acme; skipped", file)
        else:
            names += [name for name in found if isinstance(name, str) and name]
    return list(dict.fromkeys(names))


def _terms(installation: Installation) -> str:
    """Return the terms of service to agree to; "" if that was done, or there are none.

    Raises:
        AcmeError: If the CA cannot be reached.
    """
    account = installation.ca.account()
    if installation.config.agree_tos or (account is not None and account.url):
        return ""
    terms = adapters.accounts(installation).session.meta.get("termsOfService")
    return printable(terms, 300) if isinstance(terms, str) else ""


def is_running(installation: Installation) -> bool | None:
    """Return whether MDaemon runs; None if that is unknown."""
    service = build.windows_service(installation.root)
    if service is not None:
        from letsencrypt_mdaemon.windows import service as rules  # noqa: PLC0415

        return not rules.is_stopped(service)
    greeted = installation.greeted()
    return bool(greeted.value) if greeted is not None else None
