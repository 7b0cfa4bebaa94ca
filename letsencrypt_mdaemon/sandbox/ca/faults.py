"""Faults of the sandbox CA, on request."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from letsencrypt_mdaemon.sandbox.ca.messages import Answer, Hook, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from letsencrypt_mdaemon.sandbox.ca.certificates import Draft


@dataclass
class Faults:
    """The CA's faults; none at first.

    Resources are named as in the directory (newNonce, newOrder, renewalInfo) or in
    RFC 8555 (account, order, authorization, challenge, finalize, certificate).

        faults.before("newOrder", html(503, retry_after=5), times=2)
        faults.before("newOrder", Problem("rateLimited", "Too many.", 429))
        faults.before("finalize", LOST)  # the request is lost
        faults.after("finalize", LOST)  # the answer is lost
        faults.after("order", lambda answer: answer.document.update(surprise=1))
        faults.after("certificate", lambda answer: answer.chain.reverse())
        faults.draft = lambda draft: replace(draft, names=("other.test",))
    """

    nonce_rejections: int = 0  # number of valid nonces to reject
    rejection_rate: float = 0.0  # share of valid nonces to reject
    random: Random = field(default_factory=lambda: Random(0))  # noqa: S311 - no secret
    token: str | None = None  # the token of every challenge
    authorizations_valid: bool = False  # without a challenge
    slow_validation: float = 0.0  # seconds
    validation_in_answer: bool = False  # a challenge's POST waits for the outcome
    failures_stay_pending: bool = False  # with an `error`, as in smallstep's CA
    draft: Callable[[Draft], Draft] = lambda draft: draft  # changes what is signed
    _hooks: list[list[Any]] = field(default_factory=list)

    def before(self, resources: str, hook: Hook, times: int = sys.maxsize) -> None:
        """Answer the next requests with `hook` instead of processing them.

        Args:
            resources: A regular expression, such as `order|finalize`.
            hook: An answer, a problem, or a function of the `Request` that may return
                either. A function that returns False has not acted.
            times: The number of times that it acts.
        """
        self._hooks.append([f"before ({resources})", hook, times])

    def after(self, resources: str, hook: Hook, times: int = sys.maxsize) -> None:
        """Process the request; then `hook` may change or replace the `Answer`."""
        self._hooks.append([f"after ({resources})", hook, times])

    def overrule(self, moment: str, subject: object) -> Answer | Problem | None:
        """Return the replacement answer at a moment such as `before newOrder`."""
        for entry in self._hooks:
            moments, hook, times = entry
            if times and re.fullmatch(moments, moment):
                said = hook(subject) if callable(hook) else hook
                entry[2] -= said is not False
                if isinstance(said, Answer | Problem):
                    return said
        return None

    def reject_nonce(self) -> bool:
        """Whether to reject a valid nonce this time."""
        if self.nonce_rejections > 0:
            self.nonce_rejections -= 1
            return True
        return self.random.random() < self.rejection_rate
