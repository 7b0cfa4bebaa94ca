"""`doctor --mail`: what senders that insist on TLS stumble over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from letsencrypt_mdaemon.app import mail_checkup
from letsencrypt_mdaemon.cli.options import Result
from letsencrypt_mdaemon.cli.text import print_wrapped, say
from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.policy.troubles import Weight
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from letsencrypt_mdaemon.cli.context import Context
    from letsencrypt_mdaemon.cli.document import Document
    from letsencrypt_mdaemon.policy.troubles import Trouble


def check(context: Context) -> Result:
    """Check the domains that the server receives mail for.

    Raises:
        Error: If nothing can be looked up.
    """
    found = mail_checkup.check(context.open(read_only=True), now=context.now)
    verdict, error = "No sender that insists on TLS would fail.", None
    if bad := [row for row in found.rows if row.weight is Weight.LOSES]:
        subjects = ", ".join(dict.fromkeys(row.subject for row in bad))
        verdict = f"Mail is lost, or will be: {printable(subjects, 300)}."
        error = DeployError(verdict, hint=bad[0].code.change)
    return Result({"verdict": verdict, "mail": _rows(found.rows)}, _print, error)


def _rows(rows: Sequence[Trouble]) -> list[Document]:
    return [
        {
            "subject": printable(row.subject, 300),
            "code": str(row.code),
            "weight": str(row.weight),
            "seen": printable(row.seen, 600),
            "change": row.code.change,
        }
        for row in rows
    ]


def _print(document: Document) -> None:
    """Print each row, and the one thing to do about what is bad."""
    for item in document["mail"]:
        is_bad = item["weight"] != Weight.NOTE
        code = f"{item['weight']}: {item['code']}" if is_bad else item["code"]
        say(f"{item['subject']}: {item['seen']} ({code})")
        if item["change"] and is_bad:
            print_wrapped(f"  {item['change']}", 2)
    say(document["verdict"])
