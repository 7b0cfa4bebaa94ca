"""Problem documents (RFC 8555, section 6.7, and RFC 7807)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NoReturn

from letsencrypt_mdaemon.acme.http import Reply, TransientError, html_title
from letsencrypt_mdaemon.errors import AcmeError, problem_kind
from letsencrypt_mdaemon.text import printable, when

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_PAUSE_SECONDS = 30.0
"""If the CA asks for a longer pause in the middle of a request, the run ends."""

BIND_ACCOUNT = (
    "Get a key ID and a MAC key from the CA's web site; set eab-kid and eab-key-file."
)
_SET_CONTACT = "Set contact to a mail address that the CA accepts."

HINT_BY_KIND = {
    "accountDoesNotExist": "Remove account.json in the state folder; the next run "
    "registers a new account.",
    "alreadyRevoked": "Nothing to do; renew the certificate if it is still in use.",
    "badRevocationReason": "Choose another --reason.",
    "caa": "Change the CAA records of the name, or choose another CA.",
    "externalAccountRequired": BIND_ACCOUNT,
    "invalidContact": _SET_CONTACT,
    "invalidProfile": "Choose another profile, or none.",
    "rateLimited": "Do not force further runs; the scheduled runs try again.",
    "rejectedIdentifier": "Remove the name, or choose another CA.",
    "unsupportedContact": _SET_CONTACT,
    "userActionRequired": "Open the URL that the CA names, agree, and run again.",
}

# Let's Encrypt refuses a name that failed too often, without Retry-After, and names the
# page on which to resume.
_PAUSED = re.compile(r"\bvisit:?\s+(https://[^\s<>\"]+)", re.IGNORECASE)


def refuse(reply: Reply) -> NoReturn:
    """Raise the error that a refusal means.

    Errors come as problem documents (RFC 8555, 6.7), or as HTML from a load balancer.
    """
    problem, status, wait = reply.problem, reply.status, reply.retry_after
    said = describe(problem) or printable(html_title(reply.body), 200)
    kind = problem_kind(problem)
    hint, paused = HINT_BY_KIND.get(kind, ""), ""
    transient = status in {429, 500, 502, 503, 504}
    if kind == "rateLimited":
        # Most limits hold for hours. For one that passes soon, the CA says so.
        brief = wait is not None and wait <= MAX_PAUSE_SECONDS
        transient = brief and status in {429, 503}
    if reply.location and status < 400:  # noqa: PLR2004 - RFC 9110, 15.4
        said = f"it redirects to {printable(reply.location, 300)}, which no CA does"
        hint = "Check directory-url, and whether a proxy answers instead of the CA."
    elif wait is not None and (transient or kind == "rateLimited"):
        # Rounded up. `Reply.retry_after` is a day at most, whatever the CA asks for.
        until = datetime.now(UTC) + timedelta(seconds=wait + 59)
        hint = f"Do not try again before {when(until)}."
    elif kind == "rateLimited" and (url := _PAUSED.search(said)):
        paused = url[1].rstrip(".,;:")
        hint = f"Open {paused} to resume, then run `renew --force`; until then, "
        hint += "every attempt fails."
    elif transient:
        hint = "The CA is overloaded or unavailable; try again later."
    message = f"{printable(reply.url, 300)} refused with HTTP {status}"
    message += f": {said}." if said else "."
    error = TransientError if transient else AcmeError
    raise error(message, hint=hint, problem=problem, retry_after=wait, paused=paused)


def describe(problem: Mapping[str, object]) -> str:
    """Return a problem document's text with its subproblems (RFC 8555, 6.7.1)."""
    parts = [_describe_one(problem)]
    subproblems = problem.get("subproblems")
    for sub in subproblems if isinstance(subproblems, list) else []:
        if isinstance(sub, dict):
            identifier = sub.get("identifier")
            value = identifier.get("value") if isinstance(identifier, dict) else None
            name = printable(value, 260) if isinstance(value, str) else "?"
            parts.append(f"[{name}: {_describe_one(sub)}]")
    if isinstance(instance := problem.get("instance"), str):
        parts.append(f"- see {printable(instance, 300)}")
    return printable(" ".join(part for part in parts if part), 5000)


def _describe_one(problem: Mapping[str, object]) -> str:
    """Return detail (or title) and type; ignore other JSON values in their place."""
    texts = (problem.get(name) for name in ("detail", "title"))
    said = next((text for text in texts if isinstance(text, str) and text), "")
    kind = printable(problem_kind(problem), 200)
    parts = (printable(said, 1000).strip().rstrip("."), f"({kind})" if kind else "")
    return " ".join(part for part in parts if part)


def may_pass(error: AcmeError) -> bool:
    """Whether a later run may succeed with the same order."""
    return error.is_limit or isinstance(error, TransientError)
