"""Ask every port for its certificate: TLS at once, or after STARTTLS.

Nothing is trusted here: a certificate is looked at, not relied on.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.pki.certificate import key_type
from letsencrypt_mdaemon.system.parallel import ask_all
from letsencrypt_mdaemon.verify.handshake import (
    GREETING_TIMEOUTS,
    TIMEOUT_SECONDS,
    ask,
)
from letsencrypt_mdaemon.verify.served import Answer, Served

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from letsencrypt_mdaemon.verify.endpoints import Endpoint

_log = logging.getLogger(__name__)

MAX_NAMES = 100
"""Names that a port is asked for: as many as a certificate of Let's Encrypt has."""
LANES = 4
"""Conversations with one port at a time."""
LOOK_TIMEOUTS = 12.0
"""Timeouts until no further name is asked for, 120 s."""
OVERTIME_SECONDS = 1.0
"""Seconds more until a conversation that DNS holds up is abandoned."""

_MUTE = {Answer.NOT_LISTENING, Answer.TIMED_OUT}


class _Question(NamedTuple):
    """An endpoint, the SNI, and the only kind of key to accept."""

    endpoint: Endpoint
    server_name: str
    key: str = ""


def observe(
    endpoints: Iterable[Endpoint],
    server_names: Sequence[str] = (),
    *,
    timeout: float = TIMEOUT_SECONDS,
    briefly: bool = False,
    within: float | None = None,
) -> dict[Endpoint, Served]:
    """Return what each endpoint answers; all are asked at once, for the first name.

    An endpoint that serves a certificate is asked for the other kind of key, too, and
    for the second name; one address of each port for all names, up to `MAX_NAMES`. Only
    where its answers differ, another address is asked for all names. An endpoint with a
    name of its own is asked for that name alone.

    Args:
        timeout: Seconds for a conversation, without its greeting.
        briefly: Ask for the first name only, with one connection to each endpoint.
        within: Seconds for all of it; None = as long as the ports need.
    """
    deadline = time.monotonic() + timeout * LOOK_TIMEOUTS
    names = {endpoint: _names(endpoint, server_names) for endpoint in endpoints}

    def ask_for(questions: list[_Question]) -> None:
        answers.update(_ask_all(questions, timeout, deadline, within))

    answers: dict[_Question, Served] = {}
    ask_for([_Question(at, row[0]) for at, row in names.items()])
    first = {question.endpoint: served for question, served in answers.items()}
    if not briefly:
        leaves = {at: served.leaf for at, served in first.items() if served.leaf}
        leaders = {(at.scheme, at.port): at for at in reversed(leaves)}
        ask_for(
            [
                _Question(
                    at,
                    names[at][0],
                    "ECDSA" if key_type(leaf).startswith("rsa") else "RSA",
                )
                for at, leaf in leaves.items()
            ]
            + [
                _Question(at, name)
                for at in leaves
                for name in names[at][1:][: MAX_NAMES if at in leaders.values() else 1]
            ]
        )
        differ = {row.endpoint for row in answers if _differs(row, answers, first)}
        asked = answers.keys()
        more = [_Question(at, name) for at in differ for name in names[at][:MAX_NAMES]]
        ask_for([question for question in more if question not in asked])
    for endpoint, served in first.items():
        others = [
            answer
            for question, answer in answers.items()
            if question.endpoint == endpoint and _differs(question, answers, first)
        ]
        first[endpoint] = replace(served, differently=tuple(others))
        _log.debug("%s: %s", endpoint, served.thumbprint or served)
    return first


def _differs(
    question: _Question,
    answers: Mapping[_Question, Served],
    first: Mapping[Endpoint, Served],
) -> bool:
    """Whether an answer is another one than that for the first name.

    A port has a certificate for one kind of key, or for both.
    """
    answer, usual = answers[question], first[question.endpoint]
    if question.key:
        return answer.leaf not in (None, usual.leaf)
    return answer != usual


def failing(
    observed: Mapping[Endpoint, Served],
    expected: Collection[str],
    given: Collection[Endpoint] = (),
) -> list[Endpoint]:
    """Return the endpoints that should serve one of some certificates, and do not.

    Every endpoint that listens should; so should each given one, unless it listens at
    another address of its name.

    Args:
        expected: Thumbprints.
    """
    listening = {at.url for at, served in observed.items() if served.is_listening}
    return [
        at
        for at, served in observed.items()
        if not served.serves(expected)
        and (served.is_listening or (at in given and at.url not in listening))
    ]


def _names(endpoint: Endpoint, server_names: Sequence[str]) -> Sequence[str]:
    if endpoint.name or endpoint.is_by_name:
        return (endpoint.name or endpoint.host,)
    return server_names or ("",)


def _ask_all(
    questions: Sequence[_Question],
    timeout: float,
    deadline: float,
    within: float | None = None,
) -> dict[_Question, Served]:
    """Return the answers, in the order of the questions, `LANES` at a time from a port.

    Leaves out questions that followed a port's silence, or the deadline.
    """
    lanes: dict[tuple[Endpoint, int], list[_Question]] = {}
    for number, question in enumerate(questions):
        lanes.setdefault((question.endpoint, number % LANES), []).append(question)

    def ask_lane(lane: tuple[_Question, ...]) -> dict[_Question, Served]:
        answers: dict[_Question, Served] = {}
        for question in lane:
            answers[question] = answer = ask(*question, timeout)
            if answer.outcome in _MUTE or time.monotonic() > deadline:
                break
        return answers

    most = timeout * (2 + GREETING_TIMEOUTS) + OVERTIME_SECONDS
    if len(questions) > len(lanes):
        most += max(deadline - time.monotonic(), 0)
    most = most if within is None else min(most, within)
    rows = [tuple(lane) for lane in lanes.values()]
    found = ask_all(ask_lane, rows, timeout=most)
    late = Served(
        outcome=Answer.NOT_LISTENING,
        detail=f"no answer within {most:g} s",
        seconds=most,
    )
    answers = {lane[0]: late for lane in rows}
    for lane in found.values():
        answers |= lane
    return {
        question: answers[question] for question in questions if question in answers
    }
