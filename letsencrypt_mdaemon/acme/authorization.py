"""Authorizations and their challenges (RFC 8555, sections 7.5 and 8)."""

from __future__ import annotations

import logging
import math
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from josepy.json_util import encode_b64jose

from letsencrypt_mdaemon.acme.order import FIRST_POLL_SECONDS
from letsencrypt_mdaemon.acme.problem import describe, may_pass
from letsencrypt_mdaemon.errors import AcmeError, ChallengeError
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from letsencrypt_mdaemon.acme.order import Order
    from letsencrypt_mdaemon.acme.transport import AccountSession, Deadline

    Present = Callable[[Mapping[str, str]], AbstractContextManager[None]]
    """Shows each token's key authorization as long as the context lasts."""

_log = logging.getLogger(__name__)

_T = TypeVar("_T")
_U = TypeVar("_U")

MAX_REQUESTS_AT_ONCE = 6
"""For a CA that is far away (see `transport.NONCE_WAIT_SECONDS`).

As many connections as a browser opens to one host over HTTP/1.1. Each needs a nonce to
begin with, and Let's Encrypt gives an address no more than 10 of these at once. It
takes 250 other requests a second (its documentation of rate limits, "Overall
Requests"): at 50 ms a round trip, 6 at once make 120.

Not more names are validated at once, either: Let's Encrypt fetches each token from five
places, and a web server with a short queue turns some of them away.
"""

MORE_AUTHORIZATIONS = 10
"""An order has one for each name; some CAs send further ones (7.1.4)."""

MAX_VALIDATION_SECONDS = 5.0
"""How long the next names wait for the CA to validate those before them."""

AFTER_FAILURE_SECONDS = 10.0
"""How long to wait for the other names after the first one failed."""


_DNS = re.compile(r"NXDOMAIN|SERVFAIL|DNS problem|\(dns\)")
"""In the CA's words: it did not get as far as port 80 (RFC 8555, 6.7: `dns`)."""


class Authorization:
    """One name's authorization, and its http-01 challenge."""

    def __init__(self, session: AccountSession, url: str) -> None:
        self.session = session
        self.url = url
        self.is_settled = False
        self.document: dict[str, Any] = session.post(url).document()

    @property
    def name(self) -> str:
        """The name to validate, as the CA writes it."""
        identifier = self.document.get("identifier")
        value = identifier.get("value") if isinstance(identifier, dict) else None
        return printable(value, 260).lower() if isinstance(value, str) else "?"

    @property
    def status(self) -> str:
        """The CA's status for the name; empty if there is none."""
        return str(self.document.get("status", ""))

    @property
    def challenge(self) -> dict[str, Any]:
        """The http-01 challenge; empty if the CA offers none."""
        challenges = self.document.get("challenges")
        for challenge in challenges if isinstance(challenges, list) else []:
            if isinstance(challenge, dict) and challenge.get("type") == "http-01":
                return challenge
        return {}

    @property
    def is_answerable(self) -> bool:
        """Whether the challenge has what an answer needs: a token and a URL."""
        challenge = self.challenge
        return all(isinstance(challenge.get(key), str) for key in ("token", "url"))

    def refreshed(self) -> Authorization:
        """Return the authorization as it is now."""
        return Authorization(self.session, self.url)

    @property
    def is_undecided(self) -> bool:
        """Whether the CA may still be validating the name."""
        return self.status == "pending" and self.failure() is None

    def failure(self) -> str | None:
        """Return why it can no longer become valid, in the CA's words; else None.

        The states decide, not the presence of an error: some CAs send none, and some
        leave a failed challenge pending with an error beside it.
        """
        error = self.challenge.get("error")
        said = describe(error) if isinstance(error, dict) else ""
        state = str(self.challenge.get("status", ""))
        final = self.status in {"invalid", "deactivated", "expired", "revoked"}
        if final or state == "invalid":
            return said or f"the authorization is {printable(self.status or state, 40)}"
        if state == "pending" and said and self.status != "valid":
            return said
        return None

    def answer(self) -> str | None:
        """Ask the CA to validate the name; return why, if it refuses at once."""
        if self.challenge.get("status", "pending") != "pending":
            return None
        try:
            reply = self.session.post(self.challenge["url"], {})
        except AcmeError as exc:
            if not exc.problem or may_pass(exc):
                raise
            # Perhaps the CA has decided already.
            self.document = self.refreshed().document
            if self.status == "valid":
                return None
            return self.failure() or describe(exc.problem)
        with suppress(AcmeError):
            # Some CAs validate before they answer.
            self.is_settled = reply.document().get("status") in {"valid", "invalid"}
        return None


def authorize(order: Order, present: Present, count: int) -> None:
    """Prove control of every name that the CA has not validated yet.

    Args:
        count: How many names the order has.

    Raises:
        ChallengeError: If names could not be validated.
        AcmeError: If the CA refuses otherwise, or does not finish in time.
    """
    session, urls = order.session, _urls(order)
    most = 2 * count + MORE_AUTHORIZATIONS
    if len(urls) > most:
        order.state.forget_order()
        raise AcmeError(
            f"The CA's order has {len(urls)} authorizations; for its {count} names, "
            f"this program asks for at most {most}.",
            hint="Report this to the CA.",
        )
    found = _each(lambda url: Authorization(session, url), urls)
    todo = [item for item in found if item.status == "pending"]
    if others := [item.name for item in todo if not item.is_answerable]:
        order.state.forget_order()
        raise ChallengeError(
            f"The CA offers no http-01 challenge for {', '.join(others)}.",
            hint="This program needs http-01: remove the names, or choose another CA.",
            names=dict.fromkeys(others, "the CA offers no http-01 challenge"),
        )
    # A pending one may still carry the error of an earlier attempt.
    decided = (item for item in found if item.status != "pending")
    if failed := {item.name: said for item in decided if (said := item.failure())}:
        _fail(order, failed)
    thumbprint = encode_b64jose(session.signer.key.thumbprint())
    tokens = [item.challenge["token"] for item in todo]
    texts = {token: f"{token}.{thumbprint}" for token in tokens}
    with present(texts) if texts else nullcontext():
        started = session.deadline.clock()
        names = ", ".join(item.name for item in todo)
        _log.info("Asking the CA to validate %s", names or "nothing new")
        failed = {}
        for first in range(0, len(todo), MAX_REQUESTS_AT_ONCE):
            batch = todo[first : first + MAX_REQUESTS_AT_ONCE]
            refused = zip(batch, _each(Authorization.answer, batch), strict=True)
            failed |= {item.name: said for item, said in refused if said is not None}
            if batch[-1] is not todo[-1]:
                asked = (item for item in batch if item.name not in failed)
                undecided = (item for item in asked if not item.is_settled)
                _let_pass(undecided, session.deadline)
        _settle(order, todo, failed)
        _log.info("Validated in %.1f s", session.deadline.clock() - started)


def renounce(order: Order, most: int) -> bool:
    """Deactivate the valid authorizations of an order (RFC 8555, 7.5.2).

    Args:
        most: How many authorizations are looked at.

    Returns:
        Whether there were any. Then the order is of no use any more, and the next one
        has to prove control of these names again.
    """
    session, gone = order.session, {"status": "deactivated"}
    found = _each(lambda url: Authorization(session, url), _urls(order)[:most])
    valid = [item for item in found if item.status == "valid"]
    _each(lambda item: session.post(item.url, gone), valid)
    return bool(valid)


def _urls(order: Order) -> list[str]:
    """Return the URLs of the authorizations of an order."""
    urls = order.document.get("authorizations")
    urls = urls if isinstance(urls, list) else []
    return [url for url in urls if isinstance(url, str)]


def _let_pass(batch: Iterable[Authorization], deadline: Deadline) -> None:
    """Wait some seconds until the CA has decided about names, before the next ones."""
    until = deadline.clock() + MAX_VALIDATION_SECONDS
    pause = FIRST_POLL_SECONDS
    for item in batch:
        while item.refreshed().is_undecided:
            if deadline.has_passed or deadline.clock() > until:
                return
            deadline.pause(pause, None)
            pause = min(pause * 2, 0.5)


def _settle(
    order: Order, todo: Sequence[Authorization], failed: dict[str, str]
) -> None:
    """Wait until the CA has decided about every name.

    At first only the order is fetched. The authorizations follow if it takes longer, as
    some CAs leave an order pending after an authorization failed. After a failure the
    other names get some seconds to fail as well, so that one run shows all of them.
    """
    deadline, until = order.session.deadline, math.inf
    started = deadline.clock()
    waiting = [item for item in todo if item.name not in failed]
    tokens = {item.name: str(item.challenge.get("token")) for item in todo}
    pause = FIRST_POLL_SECONDS
    while True:
        pause = order.pause(pause)
        order.refresh()
        if order.status in {"ready", "processing", "valid"}:
            return
        now = deadline.clock()
        if order.status == "invalid" or failed or now - started > 1:
            waiting = _refresh(waiting, failed)
        if failed:
            until = min(until, now + AFTER_FAILURE_SECONDS)
        elif order.status == "invalid":
            order.fail()
        if deadline.has_passed or now > until or (failed and not waiting):
            if deadline.has_passed:
                late = f"the CA did not check it within {deadline.timeout:.0f} s"
                failed |= {item.name: late for item in waiting}
            if failed:
                _fail(order, failed, tokens)
            order.give_up("validated every name but did not go on")
        _log.info(
            "waiting for the CA to validate %s (%.0f s)",
            ", ".join(item.name for item in waiting) or "the order",
            now - started,
            extra={"progress": True},
        )


def _refresh(
    waiting: Sequence[Authorization], failed: dict[str, str]
) -> list[Authorization]:
    """Fetch authorizations; add the names that failed, return those still undecided."""
    fresh = _each(Authorization.refreshed, waiting)
    failed |= {item.name: said for item in fresh if (said := item.failure())}
    return [item for item in fresh if item.is_undecided]


def _fail(
    order: Order, failed: Mapping[str, str], tokens: Mapping[str, str] | None = None
) -> NoReturn:
    order.state.forget_order()
    lines = []
    for name, said in failed.items():
        where = ""
        if tokens and name in tokens:
            url = f"http://{name}/.well-known/acme-challenge/{tokens[name]}"
            where = f"{printable(url, 400)}: "
        lines.append(f"\n  - {name}: {where}{said}")
    count = "1 name" if len(failed) == 1 else f"{len(failed)} names"
    hint = "Make port 80 of each name reach, from anywhere, the web server that serves "
    hint += "the webroot; or remove the name."
    if all(_DNS.search(said) for said in failed.values()):
        hint = "Correct each name in DNS, where the CA looks it up; or remove the name."
    raise ChallengeError(
        f"The CA could not validate {count}; nothing was changed:{''.join(lines)}",
        hint=hint,
        names=dict(failed),
    )


def _each(act: Callable[[_T], _U], items: Iterable[_T]) -> list[_U]:
    """Do the same for every item, a few at once; return the results in order."""
    with ThreadPoolExecutor(MAX_REQUESTS_AT_ONCE) as pool:
        return list(pool.map(act, items))
