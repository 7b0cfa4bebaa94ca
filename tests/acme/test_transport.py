"""The transport: nonces, requests that get lost, refusals, and what is said of them."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from unittest.mock import patch

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.jwk import JWKEC

from letsencrypt_mdaemon.acme.http import Reply, TransientError
from letsencrypt_mdaemon.acme.jws import Signer
from letsencrypt_mdaemon.acme.transport import (
    ATTEMPTS,
    MAX_BODY_BYTES,
    NONCE_ATTEMPTS,
    Session,
)
from letsencrypt_mdaemon.errors import ACME_ERROR, AcmeError
from tests.peer import (
    PAGE,
    Peer,
    Step,
    Talk,
    bringing,
    cut,
    cut_chunk,
    endless,
    gibberish,
    hang_up,
    ok,
    refusing,
    rejecting,
    reset,
    serving_peer,
    silence,
)
from tests.scene import Clock, Scene, scene_in

KEY = JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
SIGNER = Signer(KEY, "https://ca.example.test/account/1")
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    monkeypatch.setenv("NO_PROXY", "*")
    with serving_peer() as peer:
        yield peer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def session(peer: Peer, clock: Clock) -> Session:
    return Session(peer.url, sleep=clock.sleep)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with scene_in(tmp_path) as scene:
        yield scene


def post(session: Session, peer: Peer) -> Reply:
    return session.post(f"{peer.url}/newOrder", {}, SIGNER)


def nonces(peer: Peer) -> list[str]:
    return [header["nonce"] for header in peer.posts]


# Nonces


def test_a_rejected_nonce_is_replaced_by_the_one_the_rejection_brings(
    session: Session, peer: Peer
) -> None:
    peer.steps = [rejecting("second"), rejecting("third"), ok]

    assert post(session, peer).status == 200

    assert nonces(peer) == ["new-nonce-1", "second", "third"]
    assert len(peer.heads) == 1


def test_a_rejection_without_a_nonce_makes_the_session_fetch_one(
    session: Session, peer: Peer
) -> None:
    peer.steps = [rejecting(), ok]

    assert post(session, peer).status == 200

    assert nonces(peer) == ["new-nonce-1", "new-nonce-2"]


def test_a_ca_that_rejects_every_nonce_is_not_asked_for_ever(
    session: Session, peer: Peer, clock: Clock
) -> None:
    peer.steps = [rejecting("always-this-one")]

    with pytest.raises(AcmeError, match="rejected 100 nonces") as caught:
        post(session, peer)

    assert len(peer.posts) == NONCE_ATTEMPTS
    assert clock.slept == []
    assert f"{peer.url}/newOrder" in str(caught.value)
    assert "always-this-one" not in repr(caught.value)
    assert "new-nonce" not in repr(caught.value)


def test_certificates_can_be_had_from_a_ca_that_rejects_nine_of_ten_nonces(
    scene: Scene,
) -> None:
    scene.ca.faults.rejection_rate = 0.9

    names = ("a.example.test", "b.example.test", "c.example.test")
    assert scene.obtain(*names).names == names


def stock(session: Session, peer: Peer, *nonces: str) -> None:
    """Let the session keep nonces of requests that were under way at once."""
    together = threading.Barrier(len(nonces))

    def step(nonce: str) -> Step:
        def step(talk: Talk) -> None:
            together.wait(10)
            bringing(nonce)(talk)

        return step

    peer.steps = [*map(step, nonces), ok]
    with ThreadPoolExecutor(len(nonces)) as pool:
        list(pool.map(lambda _: post(session, peer), nonces))
    peer.posts.clear()


def test_the_freshest_nonce_is_used_first(session: Session, peer: Peer) -> None:
    stock(session, peer, "old", "old")
    peer.steps = [bringing("fresh-1"), bringing("fresh-2"), ok]

    for _ in range(3):
        post(session, peer)

    assert nonces(peer) == ["old", "fresh-1", "fresh-2"]


def test_nonces_left_from_before_are_not_preferred_to_the_rejections_own(
    session: Session, peer: Peer
) -> None:
    stock(session, peer, "old", "old", "old")
    peer.steps = [rejecting("fresh-1"), rejecting("fresh-2"), ok]

    post(session, peer)

    assert nonces(peer) == ["old", "fresh-1", "fresh-2"]


@pytest.fixture
def switch_often() -> Iterator[None]:
    """Let Python change to another thread as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("switch_often")
def test_threads_do_not_take_each_others_nonces(session: Session, peer: Peer) -> None:
    threads, rounds = 8, 20
    together = threading.Barrier(threads)
    given: dict[tuple[str, int], str] = {}
    used: dict[str, list[str]] = {}

    def step(talk: Talk) -> None:
        header = talk.read()
        mine = used.setdefault(header["url"], [])
        mine.append(header["nonce"])
        # All have sent before any gets an answer.
        together.wait(10)
        if len(mine) > rounds:
            talk.say(200, b"{}")
            return
        nonce = f"for-{header['url'].rpartition('/')[2]}-{len(mine)}"
        given[header["url"], len(mine)] = nonce
        problem = {"type": f"{ACME_ERROR}badNonce"}
        talk.say(400, json.dumps(problem).encode(), nonce)

    peer.steps = [step]
    urls = [f"{peer.url}/{number}" for number in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda url: session.post(url, {}, SIGNER), urls))

    for url in urls:
        assert used[url][1:] == [given[url, number + 1] for number in range(rounds)]


def test_threads_share_the_nonces_of_a_ca_that_answers_soon(
    session: Session, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letsencrypt_mdaemon.acme.transport.NONCE_WAIT_SECONDS", 30)
    together = threading.Barrier(8)
    peer.steps = [bringing(f"nonce-{number}") for number in range(40)]

    def work(_: int) -> None:
        together.wait(10)
        for _ in range(5):
            post(session, peer)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))

    assert len(peer.heads) == 1
    assert len(set(nonces(peer))) == len(peer.posts) == 40


def test_threads_do_not_wait_for_the_nonces_of_a_ca_that_is_slow(
    session: Session, peer: Peer
) -> None:
    together = threading.Barrier(4)

    def step(talk: Talk) -> None:
        together.wait(10)  # None is answered before all four are under way.
        bringing("another")(talk)

    peer.steps = [step]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: post(session, peer), range(4)))

    assert len(peer.heads) == 4


@pytest.mark.parametrize(
    "nonce",
    [
        "AAAAAAAAAAAAAAAAAAAAAAB",  # its last bits mean nothing, and are not 0
        "AAAAA",  # no bytes have this encoding
        "-_-_",
        "0" * 500,
    ],
)
def test_a_nonce_goes_back_as_it_came(session: Session, peer: Peer, nonce: str) -> None:
    peer.new_nonces = [nonce]

    post(session, peer)

    assert nonces(peer) == [nonce]


HOSTILE_NONCES = ["", "two words", "a=", "a+/", 'a"b', "\xe9", "a\tb", "a" * 501]


@pytest.mark.parametrize("nonce", HOSTILE_NONCES)
def test_a_nonce_that_is_not_base64url_is_not_sent_back(
    session: Session, peer: Peer, nonce: str
) -> None:
    peer.steps = [bringing(nonce)]

    for _ in range(2):
        post(session, peer)

    assert nonces(peer) == ["new-nonce-1", "new-nonce-2"]


@pytest.mark.parametrize("nonce", HOSTILE_NONCES)
def test_a_ca_that_gives_no_usable_nonce_is_named(
    session: Session, peer: Peer, nonce: str
) -> None:
    peer.new_nonces = [nonce]

    with pytest.raises(AcmeError, match=f"{peer.url}/newNonce sent no nonce"):
        post(session, peer)

    assert peer.posts == []


# Requests that get lost

LOSSES = [reset, hang_up, cut, cut_chunk, gibberish]


@pytest.mark.parametrize("loss", LOSSES)
def test_a_request_that_was_lost_is_sent_again_with_another_nonce(
    session: Session, peer: Peer, clock: Clock, loss: Step
) -> None:
    peer.steps = [loss, loss, ok]

    assert post(session, peer).status == 200

    assert len(set(nonces(peer))) == len(peer.posts) == (1 if loss is reset else 3)
    assert len(clock.slept) == 2


@pytest.mark.parametrize("loss", LOSSES)
def test_a_request_that_always_gets_lost_is_given_up(
    session: Session, peer: Peer, clock: Clock, loss: Step
) -> None:
    peer.steps = [loss]

    with pytest.raises(TransientError) as caught:
        post(session, peer)

    assert f"Could not reach {peer.url}/newOrder: " in str(caught.value)
    assert "Check the network" in caught.value.hint
    assert caught.value.exit_code == 3
    assert len(peer.heads) == ATTEMPTS
    first, second, third = clock.slept
    assert 0.5 <= first <= 0.6
    assert 1.5 <= second <= 1.8
    assert 4.5 <= third <= 5.4


def test_a_ca_that_falls_silent_is_asked_again(peer: Peer, clock: Clock) -> None:
    session = Session(peer.url, sleep=clock.sleep, timeout=0.25)
    peer.steps = [silence, ok]

    assert post(session, peer).status == 200

    assert len(peer.posts) == 2


def test_a_ca_that_stays_silent_is_named(peer: Peer, clock: Clock) -> None:
    session = Session(peer.url, sleep=clock.sleep, timeout=0.25)
    peer.steps = [silence]

    with pytest.raises(TransientError, match=f"{peer.url}/newOrder: timed out"):
        post(session, peer)

    assert len(peer.posts) == ATTEMPTS


def test_an_endless_answer_is_not_read_to_its_end(session: Session, peer: Peer) -> None:
    peer.steps = [endless]

    with pytest.raises(
        AcmeError, match=f"newOrder sent more than {MAX_BODY_BYTES} bytes"
    ):
        post(session, peer)

    assert len(peer.posts) == 1


# Refusals that pass, and such that do not

LIMIT = f"{ACME_ERROR}rateLimited"


def refusal(session: Session, peer: Peer, step: Step) -> AcmeError:
    """Return the error it makes when a POST is always answered so."""
    peer.steps = [step]
    with pytest.raises(AcmeError) as caught:
        post(session, peer)
    assert caught.value.exit_code == 3
    assert f"{peer.url}/newOrder" in caught.value.message
    return caught.value


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize(
    "body",
    [PAGE, b"", {"message": "slow down"}, {"type": f"{ACME_ERROR}serverInternal"}, [1]],
    ids=["html", "empty", "json", "problem", "list"],
)
def test_an_overloaded_ca_is_asked_again(
    session: Session, peer: Peer, clock: Clock, status: int, body: object
) -> None:
    peer.steps = [refusing(status, body), refusing(status, body), ok]

    assert post(session, peer).status == 200

    assert len(clock.slept) == 2


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        (None, 0.5, 0.6),
        ("7", 7, 8.4),
        ("-1", 0.5, 0.6),
        ("soon", 0.5, 0.6),
        ("Mon, 23 Nov 2026 25:61:00 GMT", 0.5, 0.6),
        ("Mon, 23 Nov 2015 12:00:00 GMT", 0.5, 0.6),
    ],
)
def test_an_overloaded_ca_gets_the_pause_it_asks_for(  # noqa: PLR0913, PLR0917
    session: Session,
    peer: Peer,
    clock: Clock,
    said: str | None,
    least: float,
    most: float,
) -> None:
    headers = {} if said is None else {"Retry_After": said}
    peer.steps = [refusing(503, **headers), ok]

    post(session, peer)

    (slept,) = clock.slept
    assert least <= slept <= most


@pytest.mark.parametrize("hours", [-9.5, 0, 14])
def test_a_pause_is_understood_in_any_time_zone(
    session: Session, peer: Peer, clock: Clock, hours: float
) -> None:
    zone = timezone(timedelta(hours=hours))
    until = format_datetime(datetime.now(zone) + timedelta(seconds=25))
    peer.steps = [refusing(429, Retry_After=until), ok]

    post(session, peer)

    (slept,) = clock.slept
    assert 10 < slept <= 30


@pytest.mark.parametrize("said", ["31", "86400", "9" * 30])
def test_a_ca_that_wants_a_long_pause_ends_the_run_and_says_until_when(
    session: Session, peer: Peer, clock: Clock, said: str
) -> None:
    error = refusal(session, peer, refusing(503, Retry_After=said))

    assert len(peer.posts) == 1
    assert clock.slept == []
    assert error.retry_after == min(float(said), 86400)
    assert isinstance(error, TransientError)
    assert moment_in(error.hint) > datetime.now(UTC) + timedelta(seconds=30)


def moment_in(hint: str) -> datetime:
    """Return when the hint says that it makes sense to try again."""
    words = hint.removeprefix("Do not try again before ").partition(" (in ")[0]
    return datetime.strptime(words, "%Y-%m-%d %H:%M %z")


def test_the_title_of_a_page_is_all_that_is_shown_of_it(
    session: Session, peer: Peer
) -> None:
    error = refusal(session, peer, refusing(503))

    assert str(error).endswith("/newOrder refused with HTTP 503: Back soon.")
    assert error.hint == "The CA is overloaded or unavailable; try again later."
    assert error.problem == {}


@pytest.mark.parametrize("status", [400, 403, 429, 500, 503])
@pytest.mark.parametrize("as_date", [True, False])
def test_a_rate_limit_is_never_tried_again_and_says_until_when(
    session: Session, peer: Peer, clock: Clock, status: int, *, as_date: bool
) -> None:
    zone = timezone(timedelta(hours=9))
    end = datetime.now(zone) + timedelta(hours=5)
    said = format_datetime(end) if as_date else str(5 * 3600)
    problem = {"type": LIMIT, "detail": "too many certificates (5) already issued"}

    error = refusal(session, peer, refusing(status, problem, Retry_After=said))

    assert len(peer.posts) == 1
    assert clock.slept == []
    assert "too many certificates (5) already issued (rateLimited)." in str(error)
    assert end - timedelta(seconds=2) <= moment_in(error.hint)
    assert moment_in(error.hint) <= end + timedelta(minutes=2)
    assert error.retry_after == pytest.approx(5 * 3600, abs=5)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("said", "least"), [("0", 0.5), ("30", 30)])
def test_a_rate_limit_that_is_over_soon_is_waited_for(  # noqa: PLR0913, PLR0917
    session: Session, peer: Peer, clock: Clock, status: int, said: str, least: float
) -> None:
    step = refusing(status, {"type": LIMIT, "detail": "busy"}, Retry_After=said)
    peer.steps = [step, ok]

    assert post(session, peer).status == 200

    (slept,) = clock.slept
    assert least <= slept <= 1.2 * least


def test_a_rate_limit_that_is_always_over_soon_ends_the_run_after_all(
    session: Session, peer: Peer
) -> None:
    step = refusing(429, {"type": LIMIT, "detail": "busy"}, Retry_After="7")

    error = refusal(session, peer, step)

    assert len(peer.posts) == ATTEMPTS
    assert error.retry_after == 7
    assert moment_in(error.hint) > datetime.now(UTC)


@pytest.mark.parametrize(
    ("status", "headers"),
    [(429, {"Retry_After": "31"}), (429, {}), (403, {"Retry_After": "7"})],
)
def test_a_rate_limit_that_is_not_over_soon_is_not_waited_for(
    session: Session, peer: Peer, clock: Clock, status: int, headers: dict[str, str]
) -> None:
    step = refusing(status, {"type": LIMIT, "detail": "too many"}, **headers)

    refusal(session, peer, step)

    assert len(peer.posts) == 1
    assert clock.slept == []


def test_a_paused_account_is_told_to_open_the_url_and_to_stop_trying(
    session: Session, peer: Peer
) -> None:
    url = "https://portal.example.test/unpause?jwt=abc"
    detail = f"Your account is temporarily prevented from … Please visit: {url}"

    error = refusal(session, peer, refusing(429, {"type": LIMIT, "detail": detail}))

    assert len(peer.posts) == 1
    assert url in str(error)
    assert f"Open {url} to resume" in error.hint
    assert "until then, every attempt fails" in error.hint
    assert error.paused == url


def test_a_rate_limit_without_a_time_is_not_taken_for_a_pause(
    session: Session, peer: Peer
) -> None:
    step = refusing(429, {"type": LIMIT, "detail": "too many orders"})

    error = refusal(session, peer, step)

    assert error.hint == "Do not force further runs; the scheduled runs try again."


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 415, 501])
@pytest.mark.parametrize("body", [PAGE, {"type": f"{ACME_ERROR}malformed"}])
def test_a_refusal_that_will_not_pass_is_not_tried_again(
    session: Session, peer: Peer, clock: Clock, status: int, body: object
) -> None:
    error = refusal(session, peer, refusing(status, body))

    assert len(peer.posts) == 1
    assert clock.slept == []
    assert f"refused with HTTP {status}: " in str(error)


def test_the_problem_document_of_a_conflict_is_kept(
    session: Session, peer: Peer
) -> None:
    problem = {"type": f"{ACME_ERROR}alreadyReplaced", "detail": "Replaced before."}

    error = refusal(session, peer, refusing(409, problem))

    assert str(error).endswith("HTTP 409: Replaced before (alreadyReplaced).")
    assert error.problem == problem


def test_terms_that_changed_are_shown_with_the_url_where_to_agree(
    session: Session, peer: Peer
) -> None:
    problem = {
        "type": f"{ACME_ERROR}userActionRequired",
        "detail": "Terms of service have changed",
        "instance": "https://ca.example.test/agree?token=W8Ih3PswD-8",
    }

    error = refusal(session, peer, refusing(403, problem))

    assert "Terms of service have changed" in str(error)
    assert "see https://ca.example.test/agree?token=W8Ih3PswD-8." in str(error)
    assert "agree, and run again" in error.hint


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_signed_request_follows_no_redirect(
    session: Session, peer: Peer, status: int
) -> None:
    step = refusing(status, b"", Location="/elsewhere")

    error = refusal(session, peer, step)

    assert len(peer.posts) == 1
    assert f"it redirects to {peer.url}/elsewhere, which no CA does" in str(error)
    assert "Check directory-url" in error.hint


@pytest.mark.parametrize(
    "body",
    [
        b"<title>\x1b[2J\x07you lost</title>",
        b"\x1b]0;you lost\x07",
        "you \u202etsol".encode(),
        {"type": "\x1b[2J", "detail": "\x00you\r\nlost\x1b[2J"},
        {"type": f"{ACME_ERROR}malformed", "instance": "https://ca.test/\x9b2J"},
        b'{"detail": "x", "subproblems": [' * 20000 + b"]}" * 20000,
    ],
)
def test_what_a_ca_says_cannot_act_on_a_terminal(
    session: Session, peer: Peer, body: object
) -> None:
    error = refusal(session, peer, refusing(400, body))

    assert str(error).isprintable()


def test_a_url_from_the_ca_cannot_act_on_a_terminal(
    session: Session, peer: Peer
) -> None:
    url = f"{peer.url}/\x1b[2J\r\n\u202e"
    for step in (refusing(404), reset, endless):
        peer.steps = [step]
        with pytest.raises(AcmeError) as caught:
            session.post(url, None, SIGNER)
        assert str(caught.value).isprintable()

    peer.steps = [ok]
    reply = Reply(url, 200, {"Content-Type": "\x1b[2J"}, b"\x1b[2J")
    with pytest.raises(AcmeError) as caught:
        reply.document()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "url", ["", "no url", "file:///etc/passwd", "https://", "http://[::1", "http://a:b"]
)
def test_a_url_that_is_none_is_refused_without_asking_anybody(
    session: Session, clock: Clock, url: str
) -> None:
    with pytest.raises(AcmeError, match="is refused: it must begin with https"):
        session.post(url, None, SIGNER)

    assert clock.slept == []


def test_why_a_second_request_got_lost_is_not_mistaken_for_the_first_ones_reason(
    session: Session, peer: Peer
) -> None:
    peer.steps = [refusing(404, {"detail": "the first"}), hang_up]

    def ask_twice() -> None:
        try:
            post(session, peer)
        except AcmeError:
            post(session, peer)

    with pytest.raises(AcmeError) as caught:
        ask_twice()

    assert "the first" not in str(caught.value)
    assert "closed connection" in str(caught.value)


# The first request of all


def test_the_first_request_of_all_waits_a_part_of_the_delay(
    peer: Peer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    session = Session(peer.url, delay=600, sleep=clock.sleep)

    # By chance it may once be less than a second.
    with patch("random.uniform", return_value=99.6) as uniform:
        assert "newOrder" in session.directory
        post(session, peer)

    uniform.assert_any_call(0, 600)
    assert clock.slept == [99.6]
    words = "Waiting 100 s before contacting the CA (random delay)"
    assert words in caplog.messages


def test_different_runs_wait_differently(peer: Peer, clock: Clock) -> None:
    for _ in range(5):
        assert Session(peer.url, delay=600, sleep=clock.sleep).directory

    assert len(set(clock.slept)) > 1
    assert all(0 <= slept <= 600 for slept in clock.slept)


def test_a_wait_of_less_than_a_second_is_not_worth_a_word(
    peer: Peer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    assert Session(peer.url, delay=0.9, sleep=clock.sleep).directory

    assert len(clock.slept) == 1
    assert caplog.messages == []


def test_without_a_delay_nothing_is_waited_for(session: Session, clock: Clock) -> None:
    assert session.directory

    assert clock.slept == []


# Secrets


def test_a_password_that_netrc_has_for_the_host_is_not_sent(
    session: Session, peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n", "ascii")
    monkeypatch.setenv("NETRC", str(netrc))
    seen = []

    def step(talk: Talk) -> None:
        seen.append(talk.headers["Authorization"])
        ok(talk)

    peer.steps = [step]
    post(session, peer)

    assert seen == [None]


def test_neither_keys_nor_nonces_are_in_a_repr() -> None:
    headers = {"Replay-Nonce": "the-nonce"}
    shown = repr(Reply("https://ca.example.test", 200, headers, b"{}"))

    assert "the-nonce" not in shown
    assert "JWKEC" not in repr(SIGNER)
    assert SIGNER.kid in repr(SIGNER)
