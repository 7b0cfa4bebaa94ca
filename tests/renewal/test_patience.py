"""After what failed before, a run waits, goes on without, or tries all the same."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from letsencrypt_mdaemon import text
from letsencrypt_mdaemon.acme import transport
from letsencrypt_mdaemon.acme.http import TransientError
from letsencrypt_mdaemon.authorities import Limits
from letsencrypt_mdaemon.cli.text import when
from letsencrypt_mdaemon.errors import AcmeError, ChallengeError, ConfigError
from letsencrypt_mdaemon.pki.certificate import (
    Certificate,
    PrivateKey,
    new_key,
    thumbprint,
)
from letsencrypt_mdaemon.renewal import run
from letsencrypt_mdaemon.renewal.adapters import Adapters, Outcome, Request
from letsencrypt_mdaemon.sandbox.ca.messages import Problem
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.state.folder import CaState, State
from letsencrypt_mdaemon.state.ledger import CLOCK_ERROR
from letsencrypt_mdaemon.state.memory import OpenOrder, Window
from tests.certificates import START, certificate, leaf
from tests.fakes import TARGETS, MemoryIssuer, MemoryServer, MemoryStore
from tests.program import HOST_NAME, Program

NAMES = (FIRST, IMAP) = ("mail.example.test", "imap.example.test")
POP = "pop.example.test"
ALL = (*NAMES, POP)
DIRECTORY = "https://ca.test/directory"
ORDER = Request(names=NAMES, key_type="p256", directory_url=DIRECTORY, timeout=0)
LIMITS = Limits(exact_set=5, failures=5)
SECOND, MINUTE, HOUR = (timedelta(seconds=n) for n in (1, 60, 3600))
DAY = timedelta(days=1)
SELF_SERVICE = "https://ca.test/sfe/v1/unpause?jwt=abc"
LIMITED: dict[str, object] = {"type": "urn:ietf:params:acme:error:rateLimited"}


class Issuer(MemoryIssuer):
    """A CA in memory whose orders are counted, and written into the account book.

    Attributes:
        tried: The names of each try, also of those that failed.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.tried: list[tuple[str, ...]] = []
        serials = itertools.count(2)
        super().__init__(
            lambda names: certificate(
                names, start=scene.now, serial=next(serials), own_key=new_key("p256")
            )
        )

    def obtain(
        self,
        names: Sequence[str],
        replaces: x509.Certificate | None,
        key: PrivateKey | None,
    ) -> Certificate:
        """Return a new certificate, or fail."""
        self.tried.append(tuple(names))
        obtained = super().obtain(names, replaces, key)
        ca = self.scene.ca
        ca.save(ca.ledger().issued(names, self.scene.now))
        return obtained


@dataclass
class Scene:
    """An installation in memory, its CA, and a clock that stands still."""

    folder: Path
    now: datetime = START
    order: Request = ORDER
    store: MemoryStore = field(default_factory=MemoryStore)

    def __post_init__(self) -> None:
        """Let the server use a certificate that somebody chose by hand."""
        self.first = leaf(ALL, serial=1)
        self.store.put(self.first, "chosen by hand")
        self.server = MemoryServer(self.store, self.first)
        self.state = State(self.folder)
        self.issuer = Issuer(self)

    @property
    def ca(self) -> CaState:
        """What is remembered at the CA."""
        return self.state.ca(DIRECTORY, staging=False)

    @property
    def parts(self) -> Adapters:
        """What a run works with."""
        return Adapters(
            store=self.store,
            server=self.server,
            observe=self.server.observe,
            state=self.state,
            ca=self.ca,
            issuer=lambda: self.issuer,
        )

    def renew(self, **order: object) -> Outcome:
        """Run with an order that differs from the usual one."""
        wanted = self.order._replace(**order)  # type: ignore[arg-type]
        memory = self.parts.state.load()
        return run.renew(wanted, self.parts, memory, now=self.now)

    def failing(self, error: AcmeError, **order: object) -> AcmeError:
        """Run with a CA that fails, and return the error."""
        self.issuer.errors.append(error)
        with pytest.raises(AcmeError) as caught:
            self.renew(**order)
        assert self.issuer.errors == [], "it was not asked"
        return caught.value

    def waits(self, **order: object) -> timedelta:
        """Run, which must not try, and return for how long."""
        tried = len(self.issuer.tried)
        outcome = self.renew(**order)
        assert not outcome.renewed
        assert len(self.issuer.tried) == tried
        assert outcome.waits_until is not None
        return outcome.waits_until - self.now


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "state")


def unproven(*names: str) -> ChallengeError:
    """Return what a CA says that cannot validate some names."""
    return ChallengeError("It failed.", names=dict.fromkeys(names, "Nobody answers."))


def limit(seconds: float | None, *names: str) -> AcmeError:
    """Return what a CA says whose limit is reached, perhaps for some names."""
    said = dict.fromkeys(names, "Too many.")
    return AcmeError("Too many.", problem=LIMITED, retry_after=seconds, names=said)


def pause(*names: str) -> AcmeError:
    """Return what Let's Encrypt says of names that failed too often."""
    text = f"Your account is paused. Please visit: {SELF_SERVICE}"
    said = dict.fromkeys(names, text)
    return AcmeError(text, problem=LIMITED, paused=SELF_SERVICE, names=said)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was warned of."""
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


# A name that failed


def test_a_name_that_failed_is_not_tried_before_its_time_and_then_is(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    for wait in (MINUTE, 10 * MINUTE, 100 * MINUTE, 20 * HOUR, 20 * HOUR):
        scene.failing(unproven(FIRST))
        assert scene.waits() == wait
        scene.now += wait - SECOND
        assert scene.waits() == SECOND
        scene.now += SECOND

    outcome = scene.renew()

    assert outcome.renewed
    assert len(scene.issuer.tried) == 6
    assert any("--force tries now" in line for line in warnings(caplog))


def test_what_waits_is_said_with_the_words_of_the_ca(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.failing(unproven(IMAP))

    outcome = scene.renew()

    (said,) = warnings(caplog)
    assert said.startswith(
        f"{IMAP} could not be validated on {text.when(START, START)}"
    )
    assert ": Nobody answers. The next attempt is after" in said
    assert text.when(START + MINUTE, START) in said
    assert "did not obtain the certificate" in outcome.reason, (
        "why it is due is still said"
    )


def test_a_name_that_works_again_begins_anew(scene: Scene) -> None:
    for _ in range(3):
        scene.failing(unproven(FIRST))
        scene.now += DAY
    assert scene.renew().renewed
    scene.now += 80 * DAY
    scene.issuer.errors.append(AcmeError("No advice."))
    scene.failing(unproven(FIRST))

    assert scene.waits() == MINUTE


def test_other_names_do_not_wait_for_one_that_failed(scene: Scene) -> None:
    scene.failing(unproven(POP), names=ALL)

    assert scene.renew(names=NAMES).renewed


def test_near_the_end_it_is_tried_every_two_hours(scene: Scene) -> None:
    scene.now = scene.first.not_valid_after_utc - 2 * DAY
    for wait in (MINUTE, 10 * MINUTE, 100 * MINUTE, 100 * MINUTE, 100 * MINUTE):
        scene.failing(unproven(FIRST))
        assert scene.waits() == wait
        scene.now += wait


def test_a_dry_run_tells_that_it_is_due_and_waits(scene: Scene) -> None:
    scene.failing(unproven(FIRST))

    outcome = scene.renew(dry_run=True)

    assert outcome.waits_until == scene.now + MINUTE
    assert scene.issuer.tried == [NAMES]


def test_a_certificate_that_is_there_already_is_put_into_use_without_waiting(
    scene: Scene,
) -> None:
    scene.renew(issue_only=True, scheduled=True)
    ledger = scene.ca.ledger().failed({FIRST: "no"}, scene.now)
    scene.ca.save(ledger)

    assert scene.renew().renewed


def test_a_wait_on_an_expired_certificate_has_the_code_of_what_failed(
    scene: Scene,
) -> None:
    scene.now = scene.first.not_valid_after_utc
    codes = []
    for error in (unproven(FIRST), limit(None)):
        scene.failing(error, force=True)
        outcome = scene.renew()
        assert outcome.error is not None
        assert "The certificate in use expired on" in outcome.error.message
        codes.append(outcome.error.exit_code)
        assert scene.renew(dry_run=True).error is None
        assert scene.renew(issue_only=True).error is None
        scene.now += DAY

    assert codes == [4, 3]
    assert scene.store.kept.keys() == {thumbprint(scene.first)}


def test_a_wait_on_an_expired_certificate_for_no_failure_has_code_5(
    scene: Scene,
) -> None:
    scene.now = scene.first.not_valid_after_utc
    forced(scene, 0, 0, 0, 0, 0)

    error = scene.renew(limits=LIMITS).error

    assert error is not None
    assert error.exit_code == 5


# What is no failure of a name


@pytest.mark.parametrize(
    "error",
    [
        AcmeError("It does not like us."),
        AcmeError(
            "No.", problem={"type": "urn:ietf:params:acme:error:rejectedIdentifier"}
        ),
        TransientError("It cannot be reached."),
        TransientError("It has trouble.", problem={"type": "about:blank"}),
    ],
)
def test_an_ordinary_failure_does_not_make_the_next_run_wait(
    scene: Scene, error: AcmeError
) -> None:
    for _ in range(5):
        scene.failing(error)

    assert scene.ca.ledger().failures == ()
    assert scene.renew().renewed


def test_what_the_ca_issued_for_nothing_is_not_ordered_again_at_once(
    scene: Scene,
) -> None:
    useless = AcmeError("It returned a certificate for another key.")
    useless.spent = True
    for wait in (MINUTE, 10 * MINUTE, 100 * MINUTE, 20 * HOUR):
        scene.failing(useless)
        assert scene.waits() == wait
        scene.now += wait


def test_a_wrong_setting_does_not_make_the_next_run_wait(scene: Scene) -> None:
    scene.issuer.errors.append(ConfigError("Agree first."))
    with pytest.raises(ConfigError):
        scene.renew()

    assert scene.renew().renewed


@pytest.mark.parametrize("seconds", [90, 3600, 86400])
@pytest.mark.parametrize(
    "make", [limit, lambda n: TransientError("Down.", retry_after=n)]
)
def test_a_ca_that_says_when_to_come_again_is_left_alone_until_then(
    scene: Scene, make: type[AcmeError], seconds: int
) -> None:
    scene.failing(make(seconds))  # type: ignore[arg-type]

    assert scene.waits() == timedelta(seconds=seconds)
    scene.now += timedelta(seconds=seconds)
    assert scene.renew().renewed


def test_a_limit_without_a_moment_is_waited_for_as_for_a_name(scene: Scene) -> None:
    for wait in (MINUTE, 10 * MINUTE):
        scene.failing(limit(None))
        assert scene.waits() == wait
        scene.now += wait


def test_a_limit_is_everybodys_whatever_the_names(scene: Scene) -> None:
    scene.failing(limit(3600))

    assert scene.waits(names=ALL) == HOUR


# Paused


def test_while_it_is_paused_every_run_fails_and_asks_for_nothing(scene: Scene) -> None:
    scene.failing(pause(FIRST))
    for _ in range(3):
        scene.now += 30 * DAY
        with pytest.raises(AcmeError) as caught:
            scene.renew()
        assert caught.value.exit_code == 3
        assert SELF_SERVICE in caught.value.hint
        assert SELF_SERVICE in str(caught.value)
        assert caught.value.paused == SELF_SERVICE

    assert scene.issuer.tried == [NAMES]
    (failure,) = scene.ca.ledger().failures
    assert len(failure.times) == 1


def test_a_pause_ends_when_somebody_forces_an_order_and_that_works(
    scene: Scene,
) -> None:
    scene.failing(pause(FIRST))
    scene.failing(pause(FIRST), force=True)
    with pytest.raises(AcmeError):
        scene.renew()

    assert scene.renew(force=True).renewed

    assert scene.ca.ledger().failures == ()


def test_a_pause_that_names_nobody_is_the_accounts(scene: Scene) -> None:
    scene.failing(pause())

    with pytest.raises(AcmeError, match="has paused this account"):
        scene.renew()


def test_a_pause_counts_for_the_name_it_tells(scene: Scene) -> None:
    scene.failing(pause(POP), names=ALL)

    with pytest.raises(AcmeError, match=f"has paused for {POP}"):
        scene.renew(names=ALL)
    assert scene.renew(names=NAMES).renewed


# By force


@pytest.mark.parametrize("error", [unproven(FIRST), limit(86400), pause(FIRST)])
def test_by_force_it_is_tried_at_once(scene: Scene, error: AcmeError) -> None:
    for _ in range(4):
        scene.failing(error, force=True)

    assert scene.renew(force=True).renewed


@pytest.mark.parametrize("limits", [None, LIMITS])
def test_what_is_spent_by_force_is_said(
    scene: Scene, limits: Limits | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    levels = []
    for number in range(1, 7):
        caplog.clear()
        assert scene.renew(force=True, limits=limits).renewed
        said = f"uses number {number} of the 5 certificates a week"
        if limits is None:
            said = f"for exactly these names in the last 7 days: {number - 1}."
        (record,) = [r for r in caplog.records if said in r.getMessage()]
        levels.append(record.levelno)

    little = logging.WARNING if limits else logging.INFO
    assert levels == [logging.INFO] * 3 + [little] * 3


def test_a_failure_before_a_forced_order_is_counted_in_words(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(3):
        scene.issuer.errors.append(unproven(NAMES[1]))
        with pytest.raises(ChallengeError):
            scene.renew(force=True)

    assert f"{NAMES[1]} failed once, last on " in caplog.text
    assert f"{NAMES[1]} failed 2 times, last on " in caplog.text


# The limit of a week


def forced(scene: Scene, *days: int) -> None:
    """Force orders, so many days apart."""
    for apart in days:
        assert scene.renew(force=True, limits=LIMITS).renewed
        scene.now += apart * DAY
    # Somebody restores the machine from before: that makes it due.
    scene.server.values = dict.fromkeys(TARGETS, thumbprint(scene.first))
    for ours in scene.store.kept.keys() - {thumbprint(scene.first)}:
        scene.store.remove(ours)


def test_what_a_ca_issues_in_a_week_is_not_exceeded(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    forced(scene, 1, 1, 1, 1, 1)

    assert scene.waits(limits=LIMITS) == 2 * DAY + CLOCK_ERROR
    assert any("names is reached" in line for line in warnings(caplog))
    scene.now += 2 * DAY + CLOCK_ERROR
    assert scene.renew(limits=LIMITS).renewed


def test_a_ca_that_publishes_no_limit_has_none(scene: Scene) -> None:
    forced(scene, 0, 0, 0, 0, 0, 0)

    assert scene.renew().renewed


def test_the_limit_of_a_week_is_for_exactly_these_names(scene: Scene) -> None:
    forced(scene, 0, 0, 0, 0, 0)

    assert scene.renew(names=NAMES[:1], limits=LIMITS).renewed
    assert scene.waits(names=NAMES[::-1], limits=LIMITS) == 7 * DAY + CLOCK_ERROR


def test_a_forced_order_is_a_new_one(scene: Scene) -> None:
    left = OpenOrder("https://ca.test/1", "", NAMES, "p256", "")
    scene.ca.save(left)
    scene.failing(AcmeError("Not now."))
    assert scene.ca.order() == left

    scene.failing(AcmeError("Not now."), force=True)

    assert scene.ca.order() is None


def test_the_limit_of_a_week_does_not_hold_an_order_that_is_open(scene: Scene) -> None:
    forced(scene, 0, 0, 0, 0, 0)
    scene.ca.save(OpenOrder("https://ca.test/1", "", NAMES, "p256", ""))

    assert scene.renew(limits=LIMITS).renewed


# Without the names that wait


def test_it_goes_on_without_the_names_that_wait(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.store.kept.clear()
    scene.failing(unproven(POP), names=ALL)

    outcome = scene.renew(names=ALL, drop=True)

    assert outcome.renewed
    assert scene.issuer.tried == [ALL, NAMES]
    assert [item.name for item in outcome.dropped] == [POP]
    assert any(f"Dropping {POP} from" in line for line in warnings(caplog))
    assert not scene.renew(names=ALL, drop=True).renewed
    assert scene.issuer.tried == [ALL, NAMES]
    scene.now += DAY
    assert scene.renew(names=ALL, drop=True).dropped == ()
    assert scene.issuer.tried == [ALL, NAMES, ALL]


@pytest.mark.parametrize("names", [(FIRST,), (FIRST, POP)])
def test_it_waits_with_the_first_name(scene: Scene, names: tuple[str, ...]) -> None:
    scene.failing(unproven(*names), names=ALL)

    assert scene.waits(names=ALL, drop=True) == MINUTE


def test_it_waits_with_a_name_that_the_certificate_in_use_covers(scene: Scene) -> None:
    scene.failing(unproven(POP), names=ALL)

    assert scene.waits(names=ALL, drop=True) == MINUTE


def test_it_goes_without_such_a_name_in_the_last_week_only(scene: Scene) -> None:
    end = scene.first.not_valid_after_utc
    for left, names in ((7 * DAY + SECOND, ALL), (7 * DAY, NAMES)):
        scene.now = end - left
        scene.failing(pause(POP), names=ALL, force=True)
        with suppress(AcmeError):
            scene.renew(names=ALL, drop=True)
        assert scene.issuer.tried[-1] == names


LIMITS_OF_NAMES = [lambda *names: limit(3600, *names), pause]


@pytest.mark.parametrize("make", LIMITS_OF_NAMES)
def test_a_limited_name_is_waited_for_though_the_certificate_in_use_lacks_it(
    scene: Scene, make: Callable[..., AcmeError]
) -> None:
    scene.renew(names=NAMES)
    scene.issuer.errors.append(AcmeError("No advice."))

    error = scene.failing(make(POP), names=ALL, drop=True)

    assert error.exit_code == 3
    assert list(error.names) == [POP]
    assert scene.issuer.tried == [NAMES, ALL]
    with suppress(AcmeError):  # a pause ends each run
        scene.renew(names=ALL, drop=True)
    assert scene.issuer.tried == [NAMES, ALL]


@pytest.mark.parametrize("make", LIMITS_OF_NAMES)
def test_a_limited_name_is_dropped_in_the_last_week(
    scene: Scene, make: Callable[..., AcmeError]
) -> None:
    scene.renew(names=NAMES)
    scene.now += 83 * DAY
    scene.issuer.errors += [AcmeError("No advice."), make(POP)]

    outcome = scene.renew(names=ALL, drop=True)

    assert outcome.renewed
    assert scene.issuer.tried[-2:] == [ALL, NAMES]
    assert [item.name for item in outcome.dropped] == [POP]
    # It is tried again, but not waited for: the certificate lacks it already.
    scene.now += DAY
    assert scene.renew(names=ALL, drop=True).waits_until is None


def test_names_that_are_refused_one_after_another_are_all_dropped(
    scene: Scene,
) -> None:
    scene.store.kept.clear()
    scene.issuer.errors += [unproven(POP), unproven(IMAP)]

    outcome = scene.renew(names=ALL, drop=True)

    assert outcome.renewed
    assert scene.issuer.tried == [ALL, NAMES, (FIRST,)]
    assert {item.name for item in outcome.dropped} == {POP, IMAP}


def test_a_refusal_of_names_that_nobody_asked_for_is_not_repeated(
    scene: Scene,
) -> None:
    scene.store.kept.clear()

    scene.failing(unproven("?"), names=ALL, drop=True)

    assert scene.issuer.tried == [ALL]


def test_without_a_paused_name_it_goes_on_as_well(scene: Scene) -> None:
    scene.store.kept.clear()
    scene.failing(pause(POP), names=ALL)
    scene.now += 30 * DAY

    assert scene.renew(names=ALL, drop=True).renewed

    assert scene.issuer.tried[-1] == NAMES


# What is in use


def test_what_is_in_use_has_to_be_what_was_put_into_use_last(scene: Scene) -> None:
    older = scene.renew().certificate
    assert older is not None
    scene.now += DAY
    scene.renew(force=True)
    scene.server.values = dict.fromkeys(TARGETS, thumbprint(older))

    outcome = scene.renew()

    assert outcome.renewed
    assert "not the last one that this program activated" in outcome.reason
    assert not scene.renew().renewed


def test_what_went_back_was_put_into_use_last(scene: Scene) -> None:
    scene.renew()
    scene.now += DAY
    scene.renew(force=True)
    assert run.roll_back(ORDER, scene.parts, scene.state.load(), now=scene.now).renewed

    assert not scene.renew().renewed


def test_why_a_ca_suggests_to_renew_is_part_of_the_reason(scene: Scene) -> None:
    scene.renew()
    url = "https://ca.test/why"
    past = Window(start=scene.now - HOUR, end=scene.now - MINUTE, explanation_url=url)
    scene.issuer.windows.append(past)

    outcome = scene.renew()

    assert outcome.renewed
    assert outcome.reason.endswith(f"the CA's reason: {url}")


# The whole command


def test_a_certificate_that_cannot_be_used_is_not_ordered_again_at_once(
    program: Program, ca: CertificateAuthority
) -> None:
    ca.faults.after("certificate", lambda answer: answer.chain.pop(0))
    assert program.here("renew").exit_code == 3
    assert orders(ca) == 1

    ran = program.here("renew")

    assert ran.exit_code == 3
    assert ran.report["waiting_until"]
    assert orders(ca) == 0
    assert len(program.here("status").report["ledger"]["issued_this_week"]) == 1


@pytest.fixture
def one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent twice: that only takes its time."""
    monkeypatch.setattr(transport, "ATTEMPTS", 1)


def orders(ca: CertificateAuthority) -> int:
    """Return how often an order was asked for, since the last time."""
    found = [known for known in ca.requests if known.resource == "newOrder"]
    ca.requests.clear()
    return len(found)


def test_a_name_that_failed_waits_also_in_the_next_process(
    program: Program, ca: CertificateAuthority
) -> None:
    ca.resolve = lambda _: None
    assert program.here("renew").exit_code == 4
    ca.resolve = lambda _: "127.0.0.1"
    assert orders(ca) == 1

    ran = program.here("renew")
    shown = program.here("renew", as_json=False)

    assert ran.exit_code == shown.exit_code == 4
    assert not ran.report["renewed"]
    assert ran.report["waiting_until"]
    assert HOST_NAME in ran.report["warnings"][0]
    again = when(ran.report["waiting_until"])
    assert shown.output.startswith(f"Waiting: due, next try after {again}. --force ")
    assert ca.requests == []
    assert program.here("renew", "--force").report["renewed"]


@pytest.mark.usefixtures("one_try")
def test_a_limit_is_told_with_its_moment_and_nothing_is_asked_until_then(
    program: Program, ca: CertificateAuthority
) -> None:
    refusal = Problem("rateLimited", "Too many.", 429, headers={"Retry-After": "7200"})
    ca.faults.before("newOrder", refusal, times=1)
    before = datetime.now(UTC)
    assert program.here("renew").exit_code == 3
    ca.requests.clear()

    ran = program.here("renew")

    assert ran.exit_code == 3
    until = datetime.fromisoformat(ran.report["waiting_until"])
    assert timedelta(hours=1.9) < until - before < timedelta(hours=2.1)
    assert ca.requests == []


@pytest.mark.usefixtures("one_try")
def test_a_pause_fails_every_run_with_the_url_and_without_a_request(
    program: Program, ca: CertificateAuthority
) -> None:
    text = f"Your account is paused for {HOST_NAME}. Please visit: {SELF_SERVICE}."
    ca.faults.before("newOrder", Problem("rateLimited", text, 429), times=1)
    mail = ("--to", "root@example.test")
    assert program.here("renew", *mail).exit_code == 3
    ca.requests.clear()
    for _ in range(2):
        ran = program.here("renew", *mail)

        assert ran.exit_code == 3
        assert SELF_SERVICE in ran.report["error"]["hint"]

    program.server.wait_for(lambda: program.server.delivered)
    assert ca.requests == []
    assert SELF_SERVICE in program.server.delivered[-1].read_text("ascii")
    status = program.here("status").report
    assert status["waiting"]["until"] is None
    assert status["ledger"]["failing"][0]["paused"] == SELF_SERVICE
    assert SELF_SERVICE in program.here("status", as_json=False).output
    assert program.here("renew", "--force").report["renewed"]


def runs(program: Program, apart: timedelta, count: int = 6) -> None:
    """Let the schedule have started so many runs."""
    file = program.state / "installation.json"
    document = json.loads(file.read_bytes())
    now = datetime.now(UTC)
    document["runs"] = [
        (now - number * apart).isoformat() for number in range(count, 0, -1)
    ]
    file.write_text(json.dumps(document), "utf-8")


@pytest.fixture
def mails(program: Program) -> list[Path]:
    """The mails that the server has delivered."""
    return program.server.delivered


def test_a_schedule_that_is_too_sparse_is_warned_of_also_in_the_mail(
    program: Program, ca: CertificateAuthority, mails: list[Path]
) -> None:
    assert program.here("renew").exit_code == 0
    runs(program, 14 * DAY)
    warning = "Scheduled runs are 14 days apart, too infrequent for a certificate "
    warning += "valid for 90 days"

    good = program.here("renew")
    ca.resolve = lambda _: None
    bad = program.here("renew", "--force", "--to", "root@example.test")

    assert good.exit_code == 0
    assert bad.exit_code == 4
    for ran in (good, bad):
        assert any(warning in line for line in ran.report["warnings"])
    program.server.wait_for(lambda: mails)
    assert warning in mails[0].read_text("ascii").replace("\n    ", " ")


@pytest.mark.parametrize(("apart", "count"), [(DAY, 6), (14 * DAY, 2)])
def test_a_schedule_that_is_close_enough_or_not_known_is_not_warned_of(
    program: Program, apart: timedelta, count: int
) -> None:
    assert program.here("renew").exit_code == 0
    runs(program, apart, count)

    assert program.here("renew").report["warnings"] == []
    assert program.here("status").report["schedule"]["warning"] is None


def test_why_the_ca_suggests_to_renew_is_told_in_status_log_and_mail(
    program: Program, ca: CertificateAuthority, mails: list[Path]
) -> None:
    assert program.here("renew").exit_code == 0
    now = datetime.now(UTC).replace(microsecond=0)
    ca.suggested_window = (now - DAY, now - HOUR)
    ca.explanation_url = "https://ca.test/incident/1"
    ca.resolve = lambda _: None

    ran = program.here("renew", "--to", "root@example.test")

    assert ran.exit_code == 4
    assert ca.explanation_url in program.log()
    program.server.wait_for(lambda: mails)
    assert ca.explanation_url in mails[0].read_text("ascii")
    status = program.here("status").report
    assert status["advice"]["explanation_url"] == ca.explanation_url
    assert ca.explanation_url in status["reason"]
    assert ca.explanation_url in program.here("status", as_json=False).output
    ca.resolve = lambda _: "127.0.0.1"
    done = program.here("renew", "--force")
    assert done.report["renewed"]
