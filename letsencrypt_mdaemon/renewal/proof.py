"""Judge what each endpoint serves, before and after a change, without I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from letsencrypt_mdaemon.renewal.adapters import Proof, Row
from letsencrypt_mdaemon.verify.served import Answer
from letsencrypt_mdaemon.verify.verdict import described, differences

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from letsencrypt_mdaemon.renewal.adapters import Verdict
    from letsencrypt_mdaemon.verify.endpoints import Endpoint
    from letsencrypt_mdaemon.verify.served import Served

_SILENT = {Answer.NOT_LISTENING, Answer.TIMED_OUT}


def prints(served: Served) -> str:
    """Return what an endpoint serves, as an attempt keeps it: all thumbprints."""
    return " ".join(sorted(served.shown))


def baseline(
    seen: Mapping[Endpoint, Served], ours: Collection[str], *, given: bool
) -> dict[str, str]:
    """Return the endpoints whose certificate is ours to change, with what they serve.

    If neither the server's files name one of a port's certificates nor we obtained it,
    the port belongs to another program, unless the administrator named the endpoints.
    """
    return {
        str(at): prints(served)
        for at, served in seen.items()
        if served.shown and (given or served.shown & set(ours))
    }


class Judge:
    """Judges endpoints by what they served before a change.

    Args:
        before: What each endpoint of ours served; see `baseline`.
        new: The thumbprint of the new certificate.
        ours: The thumbprints that the server's files name, and that we obtained.
        given: Whether the administrator named the endpoints.
    """

    def __init__(
        self,
        before: Mapping[str, str],
        new: str,
        ours: Collection[str],
        *,
        given: bool,
        now: datetime,
    ) -> None:
        self.before = before
        self.new = new
        self.ours = {*ours, *(each for row in before.values() for each in row.split())}
        self.given = given
        self.now = now

    def __call__(self, seen: Mapping[Endpoint, Served]) -> Proof:
        """Return the verdict on every endpoint.

        Skips an endpoint where nobody listened, and nobody has to: one of the usual
        ports, another address of a name, or a server that is off.
        """
        listening = {at.url for at, served in seen.items() if served.is_listening}
        rows = []
        for at, served in seen.items():
            missing = self.given and listening and at.url not in listening
            needed = str(at) in self.before or missing
            if served.is_listening or needed:
                verdict = self._verdict(str(at), served)
                rows.append(Row(str(at), verdict, self._reason(verdict, served)))
        return Proof(tuple(rows))

    def _verdict(self, endpoint: str, served: Served) -> Verdict:
        shown, before = served.shown, self.before.get(endpoint, "").split()
        if not shown:
            if not before or served.outcome is Answer.TURNED_AWAY:
                return "unproven"
            return "silent" if served.outcome in _SILENT else "broken"
        if shown == {self.new}:
            return "new" if served.serves(shown) else "unproven"
        if before:
            return "old" if shown <= {self.new, *self.ours} else "broken"
        if shown & self.ours:
            return "old"
        return "unproven" if self.given else "foreign"

    def _reason(self, verdict: Verdict, served: Served) -> str:
        if served.leaf is None:
            return str(served)
        phrases = [served.detail] if served.detail else []
        if verdict != "new" and not differences(served):
            phrases.append(f"serves {described(served.leaf)}")
            if served.leaf.not_valid_after_utc <= self.now:
                phrases.append("which has expired")
        return ", ".join([*phrases, *differences(served)])


def restored(before: Mapping[str, str], seen: Mapping[Endpoint, Served]) -> Proof:
    """Return which endpoints serve again what they served before a change.

    Those that do not are old, or silent if nobody answers.
    """
    answers = {str(at): served for at, served in seen.items()}
    rows = []
    for endpoint, was in before.items():
        served = answers.get(endpoint)
        if served is None:
            rows.append(Row(endpoint, "old", "not checked any more"))
            continue
        silent = served.outcome in _SILENT
        verdict: Verdict = "silent" if silent else "old"
        if not silent and prints(served) == was:
            verdict = "new"
        rows.append(Row(endpoint, verdict, "" if verdict == "new" else _shown(served)))
    return Proof(tuple(rows))


def _shown(served: Served) -> str:
    return f"serves {described(served.leaf)}" if served.leaf else str(served)
