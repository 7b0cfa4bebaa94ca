"""Orders: finalize them, and wait for the certificate (RFC 8555, 7.1.3 and 7.4)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NoReturn

from josepy.json_util import encode_b64jose

from letsencrypt_mdaemon.acme.problem import HINT_BY_KIND, describe, may_pass
from letsencrypt_mdaemon.errors import AcmeError, problem_kind
from letsencrypt_mdaemon.pki.certificate import signing_request
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from letsencrypt_mdaemon.acme.http import Reply
    from letsencrypt_mdaemon.acme.transport import AccountSession
    from letsencrypt_mdaemon.pki.certificate import PrivateKey
    from letsencrypt_mdaemon.state.folder import CaState

_log = logging.getLogger(__name__)

FIRST_POLL_SECONDS, MAX_POLL_SECONDS = 0.01, 5.0
"""Pauses between two polls of an order; each is twice as long as the one before."""


class Order:
    """An order as the CA last described it.

    Args:
        state: Where the order is saved for a later run, until it is of no use.
        finalize_url: Kept here because some CAs show it only at first.
    """

    def __init__(
        self, session: AccountSession, state: CaState, url: str, finalize_url: str = ""
    ) -> None:
        self.session = session
        self.state = state
        self.url = url
        self.finalize_url = finalize_url
        self.document: dict[str, Any] = {}
        self.retry_after: float | None = None

    @property
    def status(self) -> str:
        """The order's status; empty if the CA sent none."""
        return str(self.document.get("status", ""))

    def update(self, reply: Reply) -> None:
        """Replace the document with the one in the CA's answer."""
        self.document = reply.document()
        self.retry_after = reply.retry_after
        finalize_url = self.document.get("finalize")
        if isinstance(finalize_url, str):
            self.finalize_url = finalize_url

    def refresh(self) -> None:
        """Fetch the document."""
        self.update(self.session.post(self.url))

    def pause(self, seconds: float) -> float:
        """Wait, longer if the CA asked for it; return the seconds of the next pause."""
        self.session.deadline.pause(seconds, self.retry_after)
        return min(seconds * 2, MAX_POLL_SECONDS)

    def finalize(self, key: PrivateKey, names: Sequence[str]) -> None:
        """Send the CSR; repeat while the CA is not ready for it."""
        request = {"csr": encode_b64jose(signing_request(key, names))}
        deadline, pause = self.session.deadline, 0.1
        while True:
            try:
                self.update(self.session.post(self.finalize_url, request))
            except AcmeError as exc:
                # Perhaps the CA accepted it and only the answer was lost.
                self.refresh()
                if self.status in {"processing", "valid"}:
                    return
                if self.status == "invalid":
                    self.fail()
                if exc.kind != "orderNotReady" or deadline.has_passed:
                    if not may_pass(exc):
                        self.state.forget_order()
                    raise
                deadline.pause(pause, exc.retry_after)
                pause = min(pause * 1.6, MAX_POLL_SECONDS)
            else:
                return

    def wait_for_certificate(self) -> str:
        """Return the certificate's URL once the order is valid."""
        deadline, pause = self.session.deadline, FIRST_POLL_SECONDS
        started = deadline.clock()
        while True:
            url = self.document.get("certificate")
            if self.status == "valid" and isinstance(url, str):
                return url
            if self.status == "invalid":
                self.fail()
            if deadline.has_passed:
                self.give_up("did not issue the certificate")
            _log.info(
                "waiting for the CA to issue the certificate (%.0f s)",
                deadline.clock() - started,
                extra={"progress": True},
            )
            pause = self.pause(pause)
            self.refresh()

    def fail(self) -> NoReturn:
        """Raise why the order is invalid."""
        self.state.forget_order()
        error = self.document.get("error")
        problem = error if isinstance(error, dict) else {}
        said = describe(problem) or "no reason given"
        default = "Run again; if it fails again, ask the CA."
        hint = HINT_BY_KIND.get(problem_kind(problem), default)
        message = f"The CA made the order invalid: {said}."
        raise AcmeError(message, hint=hint, problem=problem)

    def give_up(self, what: str) -> NoReturn:
        """Raise what the CA did not do before the deadline."""
        message = f"The CA {what} within {self.session.deadline.timeout:.0f} s: the "
        message += f"order {printable(self.url, 300)} is "
        message += f"{printable(self.status, 40)!r}."
        raise AcmeError(message, hint="The next run resumes this order.")
