"""What DNS says, and what that is worth."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from letsencrypt_mdaemon.policy.network import Server


class State(Enum):
    """What an answer is worth (RFC 4035, 4.3)."""

    SECURE = "secure"
    INSECURE = "unsigned"
    BOGUS = "bogus"
    FAILED = "no answer"


class Answer(NamedTuple):
    """What DNS says about a name and a type of record.

    Args:
        rdatas: The records; none if there are none.
        exists: Whether the name exists.
        owner: The name that the aliases lead to.
        ttl: Seconds that caches may keep the answer; 0 without records.
        why: Why it is bogus, or failed.
        servers: Those of the zone that answered.
    """

    state: State
    rdatas: tuple[Any, ...] = ()
    exists: bool = True
    owner: str = ""
    ttl: int = 0
    why: str = ""
    servers: tuple[Server, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether it is an answer that senders would act upon."""
        return self.state in (State.SECURE, State.INSECURE)
