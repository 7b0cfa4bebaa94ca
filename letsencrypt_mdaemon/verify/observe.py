"""Ask every port for its certificate: TLS at once, or after STARTTLS.

Nothing is trusted here: a certificate is looked at, not relied on.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.system.parallel import ask_all
from letsencrypt_mdaemon.verify.handshake import TIMEOUT_SECONDS, ask
from letsencrypt_mdaemon.verify.served import Answer, Served

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from letsencrypt_mdaemon.verify.endpoints import Endpoint

_log = logging.getLogger(__name__)

OVERTIME_SECONDS = 1.0
"""Seconds more until a conversation that DNS holds up is abandoned."""


def observe(
    endpoints: Iterable[Endpoint],
    server_names: Sequence[str] = (),
    *,
    timeout: float = TIMEOUT_SECONDS,
) -> dict[Endpoint, Served]:
    """Return what each endpoint answers; all are asked at once.

    An endpoint with a name is asked for that name. The others are asked for the first
    server name and, if they serve a certificate, for the second; only if those two
    answers differ, for all the rest.

    Args:
        timeout: Seconds for a conversation.
    """
    names = {endpoint: _names(endpoint, server_names) for endpoint in endpoints}
    found = _ask_all([(at, row[0]) for at, row in names.items()], timeout)
    first = {at: served for (at, _), served in found.items()}
    second = [(at, row[1]) for at, row in names.items() if row[1:] and first[at].leaf]
    found = _ask_all(second, timeout)
    differing = [at for (at, _), served in found.items() if served != first[at]]
    rest = [(at, name) for at in differing for name in names[at][2:]]
    found |= _ask_all(rest, timeout)
    for endpoint, served in first.items():
        others = [other for (at, _), other in found.items() if at == endpoint]
        differently = tuple(other for other in others if other != served)
        first[endpoint] = replace(served, differently=differently)
        _log.debug("%s: %s", endpoint, served.thumbprint or served)
    return first


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
    questions: list[tuple[Endpoint, str]], timeout: float
) -> dict[tuple[Endpoint, str], Served]:
    answers = ask_all(
        lambda question: ask(*question, timeout),
        questions,
        timeout=timeout + OVERTIME_SECONDS,
    )
    late = Served(
        outcome=Answer.NOT_LISTENING,
        detail=f"no answer within {timeout:g} s",
        seconds=timeout,
    )
    return {question: answers.get(question, late) for question in questions}
