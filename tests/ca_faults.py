"""What CAs show otherwise than others: hooks for the faults of the sandbox's CA."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from letsencrypt_mdaemon.sandbox.ca.certificates import Draft
from letsencrypt_mdaemon.sandbox.ca.messages import Answer


def processing(answer: Answer) -> bool:
    """Show a valid order as still processing."""
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
    """Return a draft with another validity period."""
    start, end = draft.not_before + by, draft.not_after + by
    return replace(draft, not_before=start, not_after=end)
