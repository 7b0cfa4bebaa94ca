"""The values that a run remembers for the next one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.state.told import Rehearsed, Told

if TYPE_CHECKING:
    import random


def utc(moment: datetime) -> datetime:
    """Return a moment in UTC, to the second, as files and reports hold it."""
    return moment.astimezone(UTC).replace(microsecond=0)


MAX_ISSUED = 50
"""The certificates that are remembered, newest last."""

MAX_RUNS = 10
"""The scheduled runs that are remembered."""

IIS = "IIS"
"""Stands for the file of a target that is a binding of an IIS site."""


class Target(NamedTuple):
    """An INI value that names the certificate, or a binding of an IIS site.

    Args:
        file: Path below the installation, with forward slashes; or `IIS`.
        form: How the value names the certificate; see `mdaemon.forms`.
    """

    file: str
    section: str
    key: str
    form: str

    def __str__(self) -> str:
        """Return the target as messages show it."""
        return f"{self.file} [{self.section}] {self.key}"


class Change(NamedTuple):
    """A target's value, before and after.

    Args:
        line: Counted from 1; 0 if the file did not have the key.
    """

    target: Target
    line: int
    before: str
    after: str


class Attempt(NamedTuple):
    """A certificate being put into use: kept until it is verified or rolled back.

    Args:
        before: The thumbprint that each endpoint served before.
        changes: The changes to the server's files.
        undoing: Whether the rollback has begun.
        failed: When the rollback ended; None while the attempt is under way.
        rungs: The rungs of the reload ladder that were taken since the last change.
    """

    thumbprint: str
    before: dict[str, str]
    changes: tuple[Change, ...]
    undoing: bool = False
    failed: datetime | None = None
    rungs: tuple[str, ...] = ()


class Restart(NamedTuple):
    """A restart of the server's service: kept until it runs again.

    Args:
        service: Its name.
        at: When this program was about to stop it.
    """

    service: str
    at: datetime


class Rung(NamedTuple):
    """A rung of the reload ladder, and what it did when it was taken.

    Args:
        kinds: The kinds of endpoint that it changes.
        seconds: Until the last of them had changed.
    """

    name: str
    kinds: tuple[str, ...]
    seconds: int


class Issued(NamedTuple):
    """A certificate this program obtained.

    Args:
        names: The names that were ordered; the CA may have added their `www.` twins.
        verified: When every port that speaks TLS served it; None if never.
        revoked: When this program revoked it; None if it did not.
        rolled_back: When it was, if it was not activated since.
        advised: When it was issued, if the CA's advice (ARI) was the reason.
    """

    thumbprint: str
    directory_url: str
    names: tuple[str, ...]
    verified: datetime | None = None
    revoked: datetime | None = None
    rolled_back: datetime | None = None
    advised: datetime | None = None


class PutBack(NamedTuple):
    """A target that somebody made name another certificate than the activated one.

    Args:
        target: As messages show it.
        thumbprint: Of the certificate that it named; "" if unknown.
        at: When a run found it.
    """

    target: str
    thumbprint: str
    at: datetime


class Revocation(NamedTuple):
    """When the CA revoked a certificate, and whether as its key is compromised."""

    at: datetime
    is_compromised: bool = False


class Checked(NamedTuple):
    """A CA's answer whether a certificate is revoked (its CRL).

    Args:
        at: When the CA was asked.
        revoked: When the CA revoked it; None if it did not, or gave no answer.
    """

    thumbprint: str
    at: datetime
    revoked: datetime | None


class Dropped(NamedTuple):
    """A requested name that the certificate lacks, because its validation failed.

    Args:
        since: When the CA first could not validate it.
        tried: When it was tried last.
        why: The CA's message.
    """

    name: str
    since: datetime
    tried: datetime
    why: str


class Hold(NamedTuple):
    """A person's choice of certificate, which no run replaces for a while.

    Args:
        until: When runs may replace it again; they may earlier if it turns bad.
        why: The command that began it: use, no-activate, or rollback.
    """

    thumbprint: str
    since: datetime
    until: datetime
    why: str


class Memory(NamedTuple):
    """The memory of an installation, whatever the CA.

    Args:
        compromised: Public keys that must not be used again: SHA-256 in hex.
        runs: When the last scheduled runs began.
        in_use: The thumbprint that was put into use last; "" if unknown.
        exit_code: Of the last scheduled run; None if there was none, or it was killed.
        rungs: What each rung of the reload ladder did last.
        restarted: When this program last restarted the server.
        sizes: The bytes of each target's file when it was last read.
        host_name: The first name of that certificate; "" if unknown.
        put_back: What somebody changed in the server's files in the last week.
        checked: The CRLs' answers about certificates in use.
        proven: The endpoints that served the certificate when it was put into use.
        told: What was mailed.
        rehearsed: The last rehearsal; None if there was none.
        disabled: The scheduled tasks that `setup` disabled.
        hold: The certificate that a person chose last; None after its release.
        intermediates: The issuers that this program added to the store, by thumbprint.
        succeeded: When the last run of `renew` that ended well began.
        hooked: The thumbprint for which the hook `after-activation` ran last.
        script: The command of our LetsEncrypt.ps1; empty if it is not installed.
    """

    targets: tuple[Target, ...] = ()
    issued: tuple[Issued, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    compromised: tuple[str, ...] = ()
    runs: tuple[datetime, ...] = ()
    in_use: str = ""
    exit_code: int | None = None
    rungs: tuple[Rung, ...] = ()
    restarted: datetime | None = None
    sizes: dict[str, int] = {}  # noqa: RUF012 - nobody changes it
    host_name: str = ""
    put_back: tuple[PutBack, ...] = ()
    checked: tuple[Checked, ...] = ()
    proven: tuple[str, ...] = ()
    told: Told = Told()
    rehearsed: Rehearsed | None = None
    disabled: tuple[str, ...] = ()
    hold: Hold | None = None
    intermediates: tuple[str, ...] = ()
    succeeded: datetime | None = None
    hooked: str = ""
    script: tuple[str, ...] = ()

    def revoked(self, thumbprint: str) -> datetime | None:
        """Return when this program or the CA revoked a certificate; None if not."""
        rows = [(row.thumbprint, row.revoked) for row in self.issued]
        rows += [(row.thumbprint, row.revoked) for row in self.checked]
        found = (at for digest, at in rows if digest == thumbprint and at)
        return next(found, None)

    def find(self, thumbprint: str) -> Issued | None:
        """Return the record of a certificate; None if there is none."""
        found = (old for old in reversed(self.issued) if old.thumbprint == thumbprint)
        return next(found, None)

    def remember(self, item: Issued) -> Memory:
        """Return the memory with a certificate added or replaced."""
        others = [old for old in self.issued if old.thumbprint != item.thumbprint]
        return self._replace(issued=tuple([*others, item][-MAX_ISSUED:]))


class Account(NamedTuple):
    """Our account at a CA.

    Args:
        key: The private account key as JWK.
        url: The account's URL; "" until the CA has sent it.
        next_key: The new key while a rollover is under way; else empty.
        contact: The mail addresses that the CA has; empty if that is unknown.
    """

    key: dict[str, str]
    url: str
    next_key: dict[str, str] = {}  # noqa: RUF012 - nobody changes it
    contact: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Hide the key."""
        return f"Account(url={self.url!r})"


class OpenOrder(NamedTuple):
    """An unfinished order: its URL, and the key of its certificate.

    Args:
        issued: Whether the CA has issued, and the ledger has a record of that.
    """

    url: str
    finalize: str
    names: tuple[str, ...]
    key_type: str
    key_pem: str
    issued: bool = False

    def __repr__(self) -> str:
        """Hide the key."""
        return f"OpenOrder(url={self.url!r}, names={self.names!r})"


class Window(NamedTuple):
    """When the CA suggests to renew, and a page that explains why (RFC 9773, 4.2)."""

    start: datetime
    end: datetime
    explanation_url: str = ""

    def draw(self, generator: random.Random) -> datetime:
        """Return a random moment in the window, all equally likely."""
        return self.start + (self.end - self.start) * generator.random()


class Draw(NamedTuple):
    """The moment drawn once from the CA's suggested window (RFC 9773, 4.2).

    Args:
        at: The moment drawn; None if the CA suggested no window.
        ask_again: The earliest time for the next request to the CA (4.3).
    """

    thumbprint: str
    start: datetime | None
    end: datetime | None
    at: datetime | None
    ask_again: datetime
    explanation_url: str = ""

    def holds(self, now: datetime) -> bool:
        """Whether it is too early to ask the CA again.

        At most for two days, in case the clock was wrong when the moment was drawn.
        """
        return now < self.ask_again < now + timedelta(days=2)

    def asked(
        self, window: Window | None, ask_again: datetime, generator: random.Random
    ) -> Draw:
        """Return the draw after the CA's answer: only a new window is drawn from."""
        if window is None or (window.start, window.end) == (self.start, self.end):
            return self._replace(ask_again=ask_again)
        at = window.draw(generator).replace(microsecond=0)
        url = window.explanation_url
        return Draw(self.thumbprint, window.start, window.end, at, ask_again, url)

    def moment(self, now: datetime, interval: timedelta) -> datetime | None:
        """Return when the certificate is due by the CA's advice; None without advice.

        The first run after the moment drawn renews. If the next run comes after the end
        of the window, this run renews (4.2): only inside the window a renewal is exempt
        from Let's Encrypt's limits, and too early is better than too late.

        Args:
            interval: The time until the next run.
        """
        if self.at is None or self.end is None:
            return None
        following = now + interval
        return min(self.at, now) if following > self.end else self.at
