"""Orders: finalize them, and wait until the CA has issued (RFC 8555, 7.1.3 and 7.4)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NoReturn

from josepy.json_util import encode_b64jose

from letsencrypt_mdaemon.acme.problem import HINTS, describe, kind_of, may_pass
from letsencrypt_mdaemon.errors import AcmeError
from letsencrypt_mdaemon.pki.certificate import signing_request
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from letsencrypt_mdaemon.acme.http import Reply
    from letsencrypt_mdaemon.acme.transport import AccountSession
    from letsencrypt_mdaemon.pki.certificate import PrivateKey
    from letsencrypt_mdaemon.state.folder import CaState

_log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.01
"""Until an order is asked how it fares; each further pause is twice as long."""


class Order:
    """An order as the CA last described it, with what the CA may leave out later.

    Args:
        state: Where the order is kept for a later run, until it is of no use.
        finalize_url: Some CAs show it only at first.
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
        """Its status; empty if it has none."""
        return str(self.document.get("status", ""))

    def update(self, reply: Reply) -> None:
        """Take over what the CA answered about it."""
        self.document = reply.document()
        self.retry_after = reply.retry_after
        finalize_url = self.document.get("finalize")
        if isinstance(finalize_url, str):
            self.finalize_url = finalize_url

    def refresh(self) -> None:
        """Ask the CA how it fares."""
        self.update(self.session.post(self.url))

    def pause(self, seconds: float) -> None:
        """Wait, longer if the CA asked for that."""
        self.session.deadline.pause(seconds, self.retry_after)

    def finalize(self, key: PrivateKey, names: Sequence[str]) -> None:
        """Send the CSR, again while the CA is not ready for it."""
        request = {"csr": encode_b64jose(signing_request(key, names))}
        deadline, pause = self.session.deadline, 0.1
        while True:
            try:
                self.update(self.session.post(self.finalize_url, request))
            except AcmeError as exc:
                # Perhaps it was taken and only the answer was lost: the order tells.
                self.refresh()
                if self.status in {"processing", "valid"}:
                    return
                if self.status == "invalid":
                    self.fail()
                if kind_of(exc.problem) != "orderNotReady" or deadline.has_passed:
                    if not may_pass(exc):
                        self.state.forget_order()
                    raise
                deadline.pause(pause, exc.retry_after)
                pause = min(pause * 1.6, 5.0)
            else:
                return

    def wait_for_certificate(self) -> str:
        """Return the certificate's URL once the order is valid."""
        deadline, pause = self.session.deadline, FIRST_PAUSE_SECONDS
        started = deadline.clock()
        while True:
            url = self.document.get("certificate")
            if self.status == "valid" and isinstance(url, str):
                return url
            if self.status == "invalid":
                self.fail()
            if deadline.has_passed:
                self.give_up("had not issued")
            _log.info(
                "waiting for the CA to issue (%.0f s)",
                deadline.clock() - started,
                extra={"progress": True},
            )
            self.pause(pause)
            pause = min(pause * 2, 5.0)
            self.refresh()

    def fail(self) -> NoReturn:
        """Raise why the order is invalid."""
        self.state.forget_order()
        error = self.document.get("error")
        problem = error if isinstance(error, dict) else {}
        said = describe(problem) or "no reason given"
        hint = HINTS.get(kind_of(problem), "Run again; if it stays so, ask the CA.")
        message = f"The CA made the order invalid: {said}."
        raise AcmeError(message, hint=hint, problem=problem)

    def give_up(self, what: str) -> NoReturn:
        """Raise what the CA did not do in time."""
        message = f"The CA {what} after {self.session.deadline.timeout:.0f} s: the "
        message += f"order {printable(self.url, 300)} is "
        message += f"{printable(self.status, 40)!r}."
        raise AcmeError(message, hint="The next run resumes this very order.")
