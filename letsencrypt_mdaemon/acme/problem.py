"""Problem documents (RFC 8555, section 6.7, and RFC 7807)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NoReturn

from letsencrypt_mdaemon.acme.http import Reply, TransientError, html_title
from letsencrypt_mdaemon.errors import AcmeError
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping


ERROR = "urn:ietf:params:acme:error:"


MAX_PAUSE_SECONDS = 30.0
"""Seconds; a CA that asks for a longer pause in mid-request ends the run."""


def refuse(reply: Reply) -> NoReturn:
    """Raise what an answer that is no success means.

    Errors come as problem documents (RFC 8555, 6.7), or as HTML from a load balancer.
    """
    problem, status, wait = reply.problem, reply.status, reply.retry_after
    said = describe(problem) or printable(html_title(reply.body), 200)
    kind = kind_of(problem)
    hint, paused = HINTS.get(kind, ""), ""
    transient = status in {429, 500, 502, 503, 504}
    if kind == "rateLimited":
        # Most of a CA's own limits hold for hours; what passes soon, it says so.
        brief = wait is not None and wait <= MAX_PAUSE_SECONDS
        transient = brief and status in {429, 503}
    if reply.location and status < 400:  # noqa: PLR2004 - RFC 9110, 15.4
        said = f"it redirects to {printable(reply.location, 300)}, as no CA does"
        hint = "Check directory-url, and whether a proxy answers instead."
    elif wait is not None and (transient or kind == "rateLimited"):
        # Rounded up. The CA may want more: a day is the most that is believed.
        until = datetime.now(UTC) + timedelta(seconds=wait + 59)
        hint = f"Do not try again before {until:%Y-%m-%d %H:%M} UTC."
    elif kind == "rateLimited" and (url := _PAUSED.search(said)):
        paused = url[1].rstrip(".,;:")
        hint = f"Open {paused} to resume, then `renew --force`; further tries are "
        hint += "useless before."
    elif transient:
        hint = "The CA has trouble: run again later."
    message = f"{printable(reply.url, 300)} refused with HTTP {status}"
    message += f": {said}." if said else "."
    error = TransientError if transient else AcmeError
    raise error(message, hint=hint, problem=problem, retry_after=wait, paused=paused)


# So Let's Encrypt says that a name failed too often to be tried any more; there is no
# Retry-After then.
_PAUSED = re.compile(r"\bvisit:?\s+(https://[^\s<>\"]+)", re.IGNORECASE)


HINTS = {
    "accountDoesNotExist": "Remove account.json in the state folder to register anew.",
    "alreadyRevoked": "Nothing is left to do: renew, if it is still in use.",
    "badRevocationReason": "Choose another --reason.",
    "externalAccountRequired": "Get a key id and a key from the CA's web site; set "
    "eab-kid and eab-key-file.",
    "invalidProfile": "Choose another profile, or none.",
    "invalidContact": "Set contact to a mail address that the CA accepts.",
    "unsupportedContact": "Set contact to a mail address that the CA accepts.",
    "userActionRequired": "Open the URL that the CA names, agree, and run again.",
    "rateLimited": "Do not force further runs; the scheduled ones try again.",
    "rejectedIdentifier": "Leave the name out, or choose another CA.",
    "caa": "Change the CAA records of the name, or choose another CA.",
}


def describe(problem: Mapping[str, object]) -> str:
    """Return a problem document's words, its subproblems included (RFC 8555, 6.7.1)."""
    parts = [_said(problem)]
    subproblems = problem.get("subproblems")
    for sub in subproblems if isinstance(subproblems, list) else []:
        if isinstance(sub, dict):
            identifier = sub.get("identifier")
            value = identifier.get("value") if isinstance(identifier, dict) else None
            name = printable(value, 260) if isinstance(value, str) else "?"
            parts.append(f"[{name}: {_said(sub)}]")
    if isinstance(instance := problem.get("instance"), str):
        parts.append(f"– see {printable(instance, 300)}")
    return printable(" ".join(part for part in parts if part), 5000)


def _said(problem: Mapping[str, object]) -> str:
    """Return detail (or title) and type, whatever else may stand in their places."""
    texts = (problem.get(name) for name in ("detail", "title"))
    said = next((text for text in texts if isinstance(text, str) and text), "")
    kind = printable(kind_of(problem), 200)
    parts = (printable(said, 1000).strip().rstrip("."), f"({kind})" if kind else "")
    return " ".join(part for part in parts if part)


def kind_of(problem: Mapping[str, object]) -> str:
    """Return the type that a problem document names, without ACME's prefix."""
    kind = problem.get("type")
    return kind.removeprefix(ERROR) if isinstance(kind, str) else ""


def may_pass(error: AcmeError) -> bool:
    """Whether a later run may succeed with the same order."""
    limited = kind_of(error.problem) == "rateLimited"
    return limited or isinstance(error, TransientError)
