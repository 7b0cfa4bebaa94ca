"""Authorizations and their challenges (RFC 8555, sections 7.5 and 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from letsencrypt_mdaemon.acme.problem import describe
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager


IN_FLIGHT = 6
"""Requests at once, if the CA is far away (see `session.NONCE_PATIENCE`).

As many connections as a browser opens to one host over HTTP/1.1. Each needs a nonce to
begin with, and Let's Encrypt gives an address no more than 10 of these at once; of the
other requests, 250 a second (its documentation of rate limits, "Overall Requests"): at
50 ms a round trip, 6 at once make 120.
"""


FIRST_LOOK = 0.01
"""Seconds until an order is asked how it fares; each further pause is twice as long."""


GRACE = 10.0
"""Seconds that the other names have to fail as well, after the first did."""


_FINAL = {"valid", "invalid", "deactivated", "expired", "revoked"}


class Solver(Protocol):
    """Shows tokens to the CA."""

    def present(self, tokens: Mapping[str, str]) -> AbstractContextManager[None]:
        """Show each token's key authorization as long as the context lasts."""
        ...


@dataclass(slots=True)
class Authorization:
    """One name's authorization, and the http-01 challenge to be answered."""

    url: str
    document: dict[str, Any]

    @property
    def name(self) -> str:
        """The name that it is for, as the CA writes it."""
        identifier = self.document.get("identifier")
        value = identifier.get("value") if isinstance(identifier, dict) else None
        return printable(value, 260).lower() if isinstance(value, str) else "?"

    @property
    def status(self) -> str:
        """Its status; empty if it has none."""
        return str(self.document.get("status", ""))

    @property
    def challenge(self) -> dict[str, Any]:
        """Its http-01 challenge; empty if it offers none."""
        challenges = self.document.get("challenges")
        for challenge in challenges if isinstance(challenges, list) else []:
            if isinstance(challenge, dict) and challenge.get("type") == "http-01":
                return challenge
        return {}

    def failure(self) -> str | None:
        """Return why it can no longer become valid, in the CA's words; else None.

        Judged by the states, not by the presence of an error: some CAs send none, and
        some leave a failed challenge pending with an error beside it.
        """
        error = self.challenge.get("error")
        said = describe(error) if isinstance(error, dict) else ""
        state = str(self.challenge.get("status", ""))
        if self.status in _FINAL - {"valid"} or state == "invalid":
            return said or f"the authorization is {printable(self.status or state, 40)}"
        if state == "pending" and said and self.status != "valid":
            return said
        return None


def is_answerable(challenge: Mapping[str, object]) -> bool:
    """Whether a challenge has what an answer needs: a token and a URL."""
    return isinstance(challenge.get("token"), str) and isinstance(
        challenge.get("url"), str
    )
