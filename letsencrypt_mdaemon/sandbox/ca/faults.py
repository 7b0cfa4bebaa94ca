"""Faults that the sandbox CA shows when told to."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Any

from letsencrypt_mdaemon.sandbox.ca.messages import Answer, Hook, Problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from letsencrypt_mdaemon.sandbox.ca.certificates import Draft


@dataclass
class Faults:
    """What this CA does wrong on purpose; nothing at first.

    Resources are named as in the directory (newNonce, newOrder, renewalInfo) or in
    RFC 8555 (account, order, authorization, challenge, finalize, certificate).

        faults.before("newOrder", html(503, retry_after=5), times=2)
        faults.before("newOrder", Problem("rateLimited", "Too many.", 429))
        faults.before("finalize", LOST)  # nothing happened
        faults.after("finalize", LOST)  # it happened, and nobody is told
        faults.after("order", lambda answer: answer.document.update(surprise=1))
        faults.after("order|finalize", processing, times=3)
        faults.after("certificate", lambda answer: answer.chain.reverse())
        faults.draft = lambda draft: replace(draft, names=("other.test",))
    """

    nonce_rejections: int = 0  # how many good nonces are called bad
    rejection_rate: float = 0.0  # the share of good nonces called bad
    random: Random = field(default_factory=lambda: Random(0))  # noqa: S311 - no secret
    token: str | None = None  # the token of every challenge
    authorizations_valid: bool = False  # before anything is proved
    slow_validation: float = 0.0  # seconds
    validation_in_answer: bool = False  # a challenge's POST waits for the outcome
    failures_stay_pending: bool = False  # with an `error`, as in smallstep's CA
    draft: Callable[[Draft], Draft] = lambda draft: draft  # what is about to be signed
    _hooks: list[list[Any]] = field(default_factory=list)

    def before(self, resources: str, hook: Hook, times: int = sys.maxsize) -> None:
        """Do nothing for the next requests but answer `hook`.

        Args:
            resources: A regular expression, such as `order|finalize`.
            hook: An answer, a problem, or a function of the `Request` that may return
                either. A function that returns False has not acted.
            times: How often it acts.
        """
        self._hooks.append([f"before ({resources})", hook, times])

    def after(self, resources: str, hook: Hook, times: int = sys.maxsize) -> None:
        """Do what is asked; then a function may change the `Answer` or replace it."""
        self._hooks.append([f"after ({resources})", hook, times])

    def overrule(self, moment: str, subject: object) -> Answer | Problem | None:
        """Return what is said instead at a moment such as `before newOrder`."""
        for entry in self._hooks:
            moments, hook, times = entry
            if times and re.fullmatch(moments, moment):
                said = hook(subject) if callable(hook) else hook
                entry[2] -= said is not False
                if isinstance(said, Answer | Problem):
                    return said
        return None

    def reject_nonce(self) -> bool:
        """Whether a good nonce is called bad this time."""
        if self.nonce_rejections > 0:
            self.nonce_rejections -= 1
            return True
        return self.random.random() < self.rejection_rate


def processing(answer: Answer) -> bool:
    """Show a valid order as one still worked on."""
    if answer.document.get("status") != "valid":
        return False
    del answer.document["certificate"]
    answer.document["status"] = "processing"
    return True


def without_error(answer: Answer) -> None:
    """Show no reason for an invalid challenge, as acme2certifier does."""
    for challenge in answer.document.get("challenges", [answer.document]):
        challenge.pop("error", None)


def never_invalid(answer: Answer) -> None:
    """Show an invalid order as pending, as acme2certifier does."""
    if answer.document.get("status") == "invalid":
        answer.document.pop("error", None)
        answer.document["status"] = "pending"


def upper_case(answer: Answer) -> None:
    """Show the names of an order or an authorization in upper case."""
    one = answer.document.get("identifier", {"value": ""})
    for shown in answer.document.get("identifiers", [one]):
        shown["value"] = shown["value"].upper()


def shifted(draft: Draft, by: timedelta) -> Draft:
    """Return a draft for another time."""
    start, end = draft.not_before + by, draft.not_after + by
    return replace(draft, not_before=start, not_after=end)
