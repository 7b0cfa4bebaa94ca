"""Orders (RFC 8555, sections 7.1.3 and 7.4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from letsencrypt_mdaemon.acme.http import TransientError
from letsencrypt_mdaemon.acme.problem import kind_of

if TYPE_CHECKING:
    from letsencrypt_mdaemon.acme.http import Reply
    from letsencrypt_mdaemon.errors import AcmeError


@dataclass(slots=True)
class Order:
    """An order as the CA last described it, with what the CA may leave out later."""

    url: str
    document: dict[str, Any]
    finalize: str = ""
    retry_after: float | None = field(default=None)

    @property
    def status(self) -> str:
        """Its status; empty if it has none."""
        return str(self.document.get("status", ""))

    def update(self, reply: Reply) -> None:
        """Take over what the CA answered about it."""
        self.document = reply.document()
        self.retry_after = reply.retry_after
        # Some CAs drop the URL once the order is ready.
        finalize = self.document.get("finalize")
        self.finalize = finalize if isinstance(finalize, str) else self.finalize


def may_pass(error: AcmeError) -> bool:
    """Whether a later run may succeed with the same order."""
    limited = kind_of(error.problem) == "rateLimited"
    return limited or isinstance(error, TransientError)
