"""Problem documents (RFC 8555, section 6.7, and RFC 7807)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NoReturn

from letsencrypt_mdaemon.acme.http import Reply, TransientError, html_title
from letsencrypt_mdaemon.errors import AcmeError, ChallengeError, problem_kind
from letsencrypt_mdaemon.text import printable, when

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

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

_ABOUT_NAMES = {
    *("caa", "connection", "dns", "incorrectResponse", "malformed"),
    *("rejectedIdentifier", "tls", "unauthorized", "unsupportedIdentifier"),
}
"""Problems with the names that their text mentions."""

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
    parts += [f"[{name}: {_describe_one(sub)}]" for name, sub in _parts(problem)]
    if isinstance(instance := problem.get("instance"), str):
        parts.append(f"- see {printable(instance, 300)}")
    return printable(" ".join(part for part in parts if part), 5000)


def about_names(error: AcmeError, names: Collection[str]) -> AcmeError:
    """Return a refusal together with the names that it is about.

    Subproblems give them (RFC 8555, 6.7.1), or only the text does: Let's Encrypt sends
    no subproblem if a single name is refused.

    Args:
        names: The names of the order.

    Returns:
        The error itself for a limit or a pause, and if no name is refused; else a
        `ChallengeError`.
    """
    kind, problem = error.kind, error.problem
    waits = error.is_limit or bool(error.paused)
    if error.names or (isinstance(error, TransientError) and not waits):
        return error
    parts = [(name.lower(), sub) for name, sub in _parts(problem)]
    parts = [(name, sub) for name, sub in parts if name in names]
    if not parts and (waits or kind in _ABOUT_NAMES):
        words = set(re.findall(r"[a-z0-9.-]+", _describe_one(problem).lower()))
        parts = [(name, problem) for name in names if {name, f"{name}."} & words]
    refused = [each for each in parts if problem_kind(each[1]) != "rateLimited"]
    if waits or not refused:
        error.names = {name: _describe_one(sub) for name, sub in parts}
        error.is_limit = waits or bool(parts)
        return error
    said = {name: _describe_one(sub) for name, sub in refused}
    hints = [HINT_BY_KIND.get(problem_kind(sub), error.hint) for _, sub in refused]
    lines = "".join(f"\n  - {name}: {text}" for name, text in said.items())
    count = "1 name" if len(said) == 1 else f"{len(said)} names"
    return ChallengeError(
        f"The CA refused {count}; nothing was changed:{lines}",
        hint=" ".join(filter(None, dict.fromkeys(hints))),
        problem=problem,
        names=said,
    )


def _parts(
    problem: Mapping[str, object],
) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield a problem's subproblems, each with its name; "?" if it has none."""
    subproblems = problem.get("subproblems")
    for sub in subproblems if isinstance(subproblems, list) else []:
        if isinstance(sub, dict):
            identifier = sub.get("identifier")
            value = identifier.get("value") if isinstance(identifier, dict) else None
            yield printable(value, 260) if isinstance(value, str) else "?", sub


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
