"""Say the result of a command in a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from letsencrypt_mdaemon.cli.text import day, when

if TYPE_CHECKING:
    from letsencrypt_mdaemon.cli.document import Document
    from letsencrypt_mdaemon.verify.verdict import Verification


def status(found: Document) -> str:
    """Return what counts of a status."""
    leaf, pending = found["certificate"], found["pending"]
    until = f"valid until {day(leaf['not_after'])}" if leaf else "nothing known in use"
    if found["due"]:
        due = "due now"
    else:
        due = f"due {when(found['due_at'])}" if found["due_at"] else "not due"
    issued = "; another certificate is issued and not in use" if pending else ""
    return f"{found['names'][0]}: {until}, {due}{issued}."


def verification(found: Verification) -> str:
    """Return what the ports serve, if nothing is wrong with them."""
    if not found.is_listening:
        why = "" if found.is_running else ": MDaemon's service is stopped"
        return f"No port listens, so nothing could be verified{why}."
    answering = [port for port in found.ports if port.served.is_listening]
    count = len(answering)
    serve = "1 port serves" if count == 1 else f"All {count} ports serve"
    if found.expected is None:
        return f"{serve} a valid certificate; the expected one is unknown."
    return f"{serve} the expected certificate."
