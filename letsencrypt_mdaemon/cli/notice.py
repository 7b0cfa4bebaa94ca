"""Send the mail or notification about a run, if it is news to the recipients."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.app import build, notifications, rehearsal
from letsencrypt_mdaemon.cli import announcement, letter
from letsencrypt_mdaemon.cli.text import in_use
from letsencrypt_mdaemon.errors import BusyError, Error
from letsencrypt_mdaemon.state import news
from letsencrypt_mdaemon.state.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cryptography import x509

    from letsencrypt_mdaemon.app.notifications import Sent
    from letsencrypt_mdaemon.cli.context import Context
    from letsencrypt_mdaemon.cli.letter import Cause
    from letsencrypt_mdaemon.state.folder import State
    from letsencrypt_mdaemon.state.memory import Dropped

_log = logging.getLogger(__name__)


def tell(
    context: Context,
    error: Error | None,
    *,
    codes: Mapping[str, str],
    log: Sequence[str],
) -> None:
    """Tell how a run ended; a failure here is only a warning.

    Args:
        error: Why the run failed; None if it did not.
        codes: What the doctor found first about each name that failed.
        log: The lines of the log, without the failure itself.
    """
    config = context.valid.config
    if context.is_typed and not {"to", "notify-file"} & context.options.keys():
        return
    # Only the usual run can tell that all is well again.
    is_usual = context.command == "renew" and not config.staging
    if error is None and not is_usual:
        return
    try:
        state = _state(context, error) if is_usual else None
        memory = state.load() if state is not None else Memory()
        now, cause = _ended(context, memory, error, codes)
        told = news.count(memory.told, now)
        if event := news.decide(told, now, config.notify_on):
            outcome = context.outcome
            whys = {item.name: item.why for item in _dropped(context)}
            about = letter.About(
                name=(*context.names, config.host_name)[0],
                at=now.at,
                told=told,
                cause=cause,
                in_use=in_use(_in_use(context)),
                result=outcome.reason if outcome else "",
                log=log,
                scheduled=_is_scheduled(context, memory, now.at),
                dropped={name: whys[name] for name in news.dropped(told, now)},
                returned=news.returned(told, now),
            )
            if _send(context, event, about):
                told = news.note(told, now)
        if state is not None and told != memory.told:
            state.save(memory._replace(told=told))
    except Error as exc:
        _log.warning("What was mailed could not be saved: %s", exc)


def _ended(
    context: Context, memory: Memory, error: Error | None, codes: Mapping[str, str]
) -> tuple[news.Now, Cause | None]:
    """Return how the run ended, and why it failed, or the next renewal would."""
    outcome, leaves = context.outcome, _in_use(context)
    first = min(leaves, key=lambda leaf: leaf.not_valid_after_utc, default=None)
    failure: str | None = ""
    cause = None
    if error is not None:
        cause = letter.cause(error, codes)
    elif outcome is not None and (
        outcome.waits_until is not None or outcome.pending is not None or outcome.fault
    ):
        failure = None
        cause = letter.waiting(outcome)
    elif failing := rehearsal.failing(
        memory, context.valid.config, context.names, leaves
    ):
        cause = letter.foreseen(failing)
    if cause is not None and failure is not None:
        failure = cause.key
    now = news.Now(
        at=datetime.now(UTC),
        failure=failure,
        renewed=outcome is not None and outcome.renewed,
        begins=first.not_valid_before_utc if first else None,
        ends=first.not_valid_after_utc if first else None,
        names=tuple(context.names),
        dropped=tuple(item.name for item in _dropped(context)),
    )
    return now, cause


def _dropped(context: Context) -> list[Dropped]:
    """Return the wanted names that the certificate lacks after a run."""
    found = context.outcome.dropped if context.outcome else ()
    return [item for item in found if item.name in context.names]


def _is_scheduled(context: Context, memory: Memory, now: datetime) -> bool:
    """Whether something runs `renew`, as far as known; also beside another run."""
    if context.is_marked:
        return True
    from letsencrypt_mdaemon.app import scheduling  # noqa: PLC0415 - seldom

    runs = memory.runs
    if not runs:
        with suppress(Error):
            last, _ = scheduling.last_run(context.valid.config, context.root)
            runs = (last,) if last else ()
    return scheduling.is_scheduled(context.job, runs, now)


def _in_use(context: Context) -> list[x509.Certificate]:
    """Return the certificates that the server's files name, as far as known."""
    outcome, prepared = context.outcome, context.prepared
    if outcome is not None and outcome.renewed and outcome.certificate is not None:
        return [outcome.certificate]
    named = prepared.named.values() if prepared else ()
    return [leaf for leaf in dict.fromkeys(named) if leaf is not None]


def _state(context: Context, error: Error | None) -> State | None:
    """Return the state, with the lock held; None if it cannot be had.

    Without it nothing is known of earlier mails, so that each failure is mailed.
    """
    if context.state is not None or isinstance(error, BusyError):
        return context.state
    try:
        return context.lock()
    except Error as exc:
        _log.debug("Nothing is known of earlier mails: %s", exc)
        return None


def _send(context: Context, event: news.Event, about: letter.About) -> bool:
    """Send it by every way of the settings; return whether one of them took it."""
    config = context.valid.config
    subject, lines = letter.write(event, about)
    is_sent = _mail(context, subject, lines) if config.to else False
    if not notifications.is_set(config):
        return is_sent
    message = announcement.message(event, about, subject, lines)
    try:
        found = notifications.send(config, message)
    except Error as exc:
        _log.warning("Could not send a notification: %s %s", exc, exc.hint)
        return is_sent
    return warn(found) or is_sent


def warn(found: Iterable[Sent]) -> bool:
    """Warn of what was not sent; return whether anything was."""
    is_sent = False
    for row in found:
        if row.problem:
            _log.warning("Could not send %s: %s", row.what, row.problem)
        else:
            is_sent = True
            _log.info("Sent %s", row.what)
    return is_sent


def _mail(context: Context, subject: str, lines: Sequence[str]) -> bool:
    try:
        *recipients, where = build.send_mail(
            context.valid.config, lambda: context.root, subject, lines
        )
    except Error as exc:
        _log.warning("Could not send the mail about it: %s %s", exc, exc.hint)
        return False
    _log.info("Sent a mail to %s %s", ", ".join(recipients), where)
    return True
