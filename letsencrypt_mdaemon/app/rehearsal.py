"""Rehearse the next renewal, so that what would fail is known while there is time.

A CA may reuse a validation for weeks: what broke meanwhile shows only when it validates
again. Its staging service validates in the same way, and nothing it says has an effect.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from letsencrypt_mdaemon import authorities
from letsencrypt_mdaemon.app import adapters
from letsencrypt_mdaemon.errors import AcmeError, ChallengeError, ConfigError, Error
from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.renewal.due import lifetime
from letsencrypt_mdaemon.state.ledger import RETRY_INTERVAL
from letsencrypt_mdaemon.state.memory import utc
from letsencrypt_mdaemon.state.told import Rehearsed, WouldFail
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.app.installation import Installation
    from letsencrypt_mdaemon.config.settings import Config
    from letsencrypt_mdaemon.doctor.examination import Examined
    from letsencrypt_mdaemon.renewal.adapters import Outcome
    from letsencrypt_mdaemon.state.memory import Memory

_log = logging.getLogger(__name__)

PART = 10
"""It takes place that part of the lifetime before the renewal is due."""

DOCTOR_SECONDS = 20


def rehearse(installation: Installation, outcome: Outcome, now: datetime) -> None:
    """Rehearse the next renewal if it is time; a failure here is only a warning.

    Args:
        outcome: That of the run before it.
    """
    try:
        memory = installation.state.load()
        leaf = outcome.certificate
        if leaf is None or not _is_time(outcome, memory.rehearsed, now):
            return
        without = {item.name for item in outcome.dropped}
        names = [name for name in outcome.names if name not in without]
        said, found, is_known = _said(installation, names, now)
        rows = tuple(_would_fail(memory, leaf, now, said, found))
        if not (rows or is_known):
            _log.info("No name seems to fail; the next run rehearses again")
            return
        last = Rehearsed(thumbprint(leaf), utc(now), rows)
        installation.state.save(installation.state.load()._replace(rehearsed=last))
    except Exception as exc:  # noqa: BLE001 - the run before it succeeded
        text = exc.message if isinstance(exc, Error) else f"{type(exc).__name__}: {exc}"
        _log.warning("Could not rehearse the next renewal: %s", printable(text))
        _log.debug("Unexpected", exc_info=True)
        return
    for row in rows:
        _log.warning("The next renewal would fail: %s: %s", row.name, row.why)
    if not rows:
        _log.info("Rehearsed the next renewal: every name is good")


def failing(
    memory: Memory,
    config: Config,
    names: Sequence[str],
    in_use: Iterable[x509.Certificate],
) -> list[WouldFail]:
    """Return the names that failed when the next renewal was rehearsed."""
    last, is_on = memory.rehearsed, config.rehearse == "yes"
    if last is None or not is_on or last.thumbprint not in map(thumbprint, in_use):
        return []
    return [row for row in last.failing if row.name in names]


def _is_time(outcome: Outcome, last: Rehearsed | None, now: datetime) -> bool:
    """Whether to rehearse: once for a certificate, and daily after a failure."""
    leaf, due = outcome.certificate, outcome.next_at
    if outcome.renewed or outcome.error or outcome.waits_until:
        return False
    if leaf is None or due is None or not due - lifetime(leaf) / PART <= now < due:
        return False
    if last is None or last.thumbprint != thumbprint(leaf):
        return True
    return bool(last.failing) and not timedelta() <= now - last.at < RETRY_INTERVAL


def _said(
    installation: Installation, names: Sequence[str], now: datetime
) -> tuple[Mapping[str, str], Mapping[str, Examined], bool]:
    """Return what the CA says about names that fail, and what the doctor finds.

    The doctor looks at all names if the CA has no staging service, or none that
    answers. The last value says whether no finding means that all is well: not if a
    staging service is only of no help for now.
    """
    from letsencrypt_mdaemon.app import checkup  # noqa: PLC0415 - slow, and seldom

    said: Mapping[str, str] = {}
    asked, is_known = list(names), True
    if authorities.at(installation.config.ca).staging:
        account = installation.ca.account()
        # Who has an account agreed to the terms, perhaps only once, by an option.
        agrees = installation.config.agree_tos or bool(account and account.url)
        config = replace(installation.config, staging=True, agree_tos=agrees)
        staging = installation._replace(config=config, scheduled=False)
        _log.info("Rehearsing the next renewal at %s", config.ca)
        try:
            adapters.webroot(staging).sweep()
            adapters.issuer(staging).validate(names)
        except ChallengeError as exc:
            said = exc.names
        except (AcmeError, ConfigError) as exc:
            _log.info("The staging service is of no help: %s", exc)
            said, is_known = {}, False
        else:
            return {}, {}, True
        asked = [name for name in names if name in said] or asked
    found = checkup.check_names(installation, asked, now=now, timeout=DOCTOR_SECONDS)
    return said, {row.name: row for row in found.names}, is_known


def _would_fail(
    memory: Memory,
    leaf: x509.Certificate,
    now: datetime,
    said: Mapping[str, str],
    found: Mapping[str, Examined],
) -> Iterable[WouldFail]:
    """Yield the names that fail; without a word of the CA, those of the doctor."""
    last = memory.rehearsed
    before = last.failing if last and last.thumbprint == thumbprint(leaf) else ()
    since = {row.name: row.since for row in before}
    for name in said or found:
        rows = found[name].findings if name in found else ()
        bad = [row for row in rows if row.weight != "note"]
        if not said and not bad:
            continue
        seen = "; ".join(map(str, bad))
        words = [said.get(name, ""), f"seen from here: {seen}" if seen else ""]
        yield WouldFail(
            name=name,
            since=since.get(name, utc(now)),
            code=str(bad[0].code) if bad else "",
            why=printable(" - ".join(filter(None, words)), 1000),
            change=bad[0].kind.change if bad else "",
        )
