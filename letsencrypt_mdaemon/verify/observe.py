"""Which certificate each port serves: TLS at once, or after STARTTLS.

Nothing is trusted: what is served is looked at, not relied on.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.system.parallel import ask_all
from letsencrypt_mdaemon.verify.handshake import PATIENCE, ask
from letsencrypt_mdaemon.verify.served import Outcome, Served

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from cryptography import x509

    from letsencrypt_mdaemon.verify.endpoints import Endpoint


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ports:
    """The server's ports: `deployment.Verifier`."""

    endpoints: Sequence[Endpoint]
    server_name: str

    def observe(self) -> dict[str, str]:
        """Return which certificate each endpoint serves now."""
        leaves = served(self.endpoints, self.server_name)
        return {str(endpoint): thumbprint(leaf) for endpoint, leaf in leaves.items()}


GRACE = 1.0
"""Seconds more until a conversation that DNS holds up is given up."""


def observe(
    endpoints: Iterable[Endpoint],
    server_names: Sequence[str] = (),
    *,
    patience: float = PATIENCE,
) -> dict[Endpoint, Served]:
    """Return what each endpoint answers; all are asked at once.

    An endpoint that has a name is asked for this one. The others are asked for the
    first of the server names, and, where a certificate is served, for the second; only
    where the answers differ, for all the rest.

    Args:
        patience: Seconds for a conversation.
    """
    names = {endpoint: _names(endpoint, server_names) for endpoint in endpoints}
    found = _ask_all([(at, row[0]) for at, row in names.items()], patience)
    first = {at: served for (at, _), served in found.items()}
    second = [(at, row[1]) for at, row in names.items() if row[1:] and first[at].leaf]
    found = _ask_all(second, patience)
    differing = [at for (at, _), served in found.items() if served != first[at]]
    rest = [(at, name) for at in differing for name in names[at][2:]]
    found |= _ask_all(rest, patience)
    for endpoint, served in first.items():
        others = [other for (at, _), other in found.items() if at == endpoint]
        differently = tuple(other for other in others if other != served)
        first[endpoint] = replace(served, differently=differently)
        _log.debug("%s: %s", endpoint, served.thumbprint or _in_words(served))
    return first


def served(
    endpoints: Iterable[Endpoint], server_name: str = "", *, patience: float = PATIENCE
) -> dict[Endpoint, x509.Certificate]:
    """Return the certificate of each endpoint that serves one.

    Args:
        server_name: What those without a name of their own are asked for.
    """
    observed = observe(endpoints, [server_name], patience=patience)
    return {at: answer.leaf for at, answer in observed.items() if answer.leaf}


def failing(
    observed: Mapping[Endpoint, Served],
    expected: Collection[str],
    given: Collection[Endpoint] = (),
) -> list[Endpoint]:
    """Return the endpoints that should serve one of some certificates, and do not.

    That is each one that listens; and each of those given, unless it listens at another
    address of its name.

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


def _in_words(served: Served) -> str:
    return ": ".join(part for part in (served.outcome.value, served.detail) if part)


def _ask_all(
    questions: Iterable[tuple[Endpoint, str]], patience: float
) -> dict[tuple[Endpoint, str], Served]:
    questions = list(questions)
    answers = ask_all(
        lambda question: ask(*question, patience),
        questions,
        timeout=patience + GRACE,
    )
    late = Served(
        outcome=Outcome.NOT_LISTENING,
        detail=f"no answer in {patience:g} s",
        seconds=patience,
    )
    return {question: answers.get(question, late) for question in questions}
