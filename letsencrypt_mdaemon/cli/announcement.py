"""The JSON that webhooks get: what a mail says, for programs."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from letsencrypt_mdaemon._version import __version__
from letsencrypt_mdaemon.app.notifications import Message
from letsencrypt_mdaemon.cli import letter
from letsencrypt_mdaemon.cli.document import DAY, iso
from letsencrypt_mdaemon.state.news import Event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from letsencrypt_mdaemon.cli.document import Document
    from letsencrypt_mdaemon.cli.letter import About

SCHEMA = 1
"""The version of the JSON; see docs/schemas/notification.json."""


def message(event: Event, about: About, subject: str, lines: Sequence[str]) -> Message:
    """Return what is sent about an event of a run."""
    return _message(_document(event, about), subject, lines)


def example(kind: str | None) -> Message:
    """Return what `notify-test` sends; see `letter.example`."""
    subject, lines = letter.example(kind)
    found: Document = {"event": "test", "name": ""}
    if kind is not None:
        found = _document(*letter.invented(kind))
    return _message({**found, "test": True}, subject, lines)


def _message(found: Document, subject: str, lines: Sequence[str]) -> Message:
    text = "\n".join(lines)
    document = {
        "schema": SCHEMA,
        "generator": {
            "version": __version__,
            "host": socket.gethostname(),
            "time": iso(datetime.now(UTC)),
        },
        "test": False,
        **found,
        "subject": subject,
        "text": text,
    }
    return Message(subject, text, json.dumps(document))


def _document(event: Event, about: About) -> Document:
    told, cause = about.told, about.cause
    is_foreseen = cause is not None and not cause.result
    kind = "would-fail" if is_foreseen and event is Event.FAILED else event.value
    left = told.ends - about.at if told.ends else None
    return {
        "event": kind,
        "name": about.name,
        "exit_code": cause.code if cause else 0,
        "not_before": iso(told.begins),
        "not_after": iso(told.ends),
        "days_left": None if left is None else round(left / DAY, 2),
        "failing_since": iso(told.since),
        "failed_runs": told.runs,
        "cause": list(cause.lines) if cause else [],
        "advice": list(cause.advice) if cause else [],
        "dropped": dict(about.dropped),
        "returned": list(about.returned),
        "scheduled": about.scheduled,
    }
