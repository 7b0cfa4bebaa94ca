"""Orders that go wrong on the way: what is survived, what is told, what is kept."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Condition
from typing import Any

import pytest

from letsencrypt_mdaemon.acme.authorization import MAX_REQUESTS_AT_ONCE
from letsencrypt_mdaemon.acme.http import TransientError
from letsencrypt_mdaemon.acme.transport import ATTEMPTS
from letsencrypt_mdaemon.errors import ACME_ERROR, ChallengeError, ConfigError
from letsencrypt_mdaemon.pki.certificate import KeyType, PrivateKey, key_pem, new_key
from letsencrypt_mdaemon.sandbox.ca.messages import LOST, Answer, Problem, Request, html
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from tests.ca_faults import processing, upper_case
from tests.limits import HANG_SECONDS
from tests.scene import NAME, OTHER, Fault, Scene, scene_in, showing, without


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with scene_in(tmp_path) as scene:
        yield scene


# Requests that get lost


@pytest.mark.parametrize(
    "resource",
    [
        "directory",
        "newAccount",
        "newOrder",
        "authorization",
        "challenge",
        "order",
        "finalize",
        "certificate",
    ],
)
@pytest.mark.parametrize("fault", [LOST, html(503), html(500, retry_after=3)])
def test_a_request_that_got_lost_before_it_was_heard_does_not_end_the_run(
    scene: Scene, resource: str, fault: Answer
) -> None:
    scene.ca.faults.before(resource, fault, times=2)

    assert scene.obtain().names == (NAME,)

    assert scene.count("finalize") == (3 if resource == "finalize" else 1,)


def test_a_nonce_that_cannot_be_had_at_once_does_not_end_the_run(scene: Scene) -> None:
    scene.ca.faults.after("directory", lambda answer: answer.headers.clear())
    scene.ca.faults.before("newNonce", html(503), times=2)

    assert scene.obtain().names == (NAME,)

    assert scene.count("newNonce") == (3,)


def cut(answer: Answer) -> None:
    answer.cut = True


@pytest.mark.parametrize(
    "resource", ["newAccount", "newOrder", "challenge", "finalize", "certificate"]
)
@pytest.mark.parametrize("fault", [LOST, cut, html(502)])
def test_a_request_whose_answer_got_lost_does_not_end_the_run(
    scene: Scene,
    resource: str,
    fault: Any,  # noqa: ANN401
) -> None:
    answer = fault if callable(fault) else lambda _: fault
    scene.ca.faults.after(resource, answer, times=2)

    assert scene.obtain().names == (NAME,)

    assert len(scene.ca.issued) == 1


@pytest.mark.parametrize("fault", [LOST, cut, html(502), html(404)])
def test_a_finalize_that_is_never_answered_is_known_by_the_state_of_the_order(
    scene: Scene,
    fault: Any,  # noqa: ANN401
) -> None:
    answer = fault if callable(fault) else lambda _: fault
    scene.ca.faults.after("finalize", answer)

    assert scene.obtain().names == (NAME,)

    assert len(scene.ca.issued) == 1


def test_finalize_is_not_sent_again_for_an_order_that_is_processing(
    scene: Scene,
) -> None:
    scene.ca.faults.after("finalize", LOST)
    scene.ca.faults.after("order", processing, times=3)

    assert scene.obtain().names == (NAME,)

    assert scene.count("finalize") == (ATTEMPTS,)


def test_json_with_another_content_type_is_still_json(scene: Scene) -> None:
    def as_html(answer: Answer) -> None:
        answer.body = json.dumps(answer.document).encode()

    resources = "directory|newAccount|newOrder|authorization|challenge|order|finalize"
    scene.ca.faults.after(resources, as_html)
    scene.ca.faults.nonce_rejections = 2

    assert scene.obtain().names == (NAME,)


def test_members_that_nobody_knows_and_members_that_come_twice_do_no_harm(
    scene: Scene,
) -> None:
    def odd(answer: Answer) -> None:
        strange = b'{"status": "invalid", "surprise": {"a": [1]}, "\\ud800": null, '
        answer.body = strange + json.dumps(answer.document).encode()[1:]

    scene.ca.faults.after("newOrder|authorization|challenge|order|finalize", odd)

    assert scene.obtain().names == (NAME,)


# Orders


@pytest.mark.parametrize("missing", ["Location", "finalize"])
def test_a_new_order_without_its_place_is_an_error(scene: Scene, missing: str) -> None:
    def fault(answer: Answer) -> None:
        answer.headers.pop(missing, None)
        answer.document.pop(missing, None)

    scene.ca.faults.after("newOrder", fault)

    assert "did not send its URL" in str(scene.failing())
    assert scene.state.order() is None


def test_names_that_the_ca_rejects_are_told_one_by_one(tmp_path: Path) -> None:
    with scene_in(tmp_path, blocked=("a.example.test", "b.example.test")) as scene:
        error = scene.failing("a.example.test", NAME, "b.example.test")

    assert isinstance(error, ChallengeError)
    said = "a.example.test is not served (rejectedIdentifier)"
    assert (
        f"The CA refused 2 names; nothing was changed:\n  - a.example.test: {said}"
        in (str(error))
    )
    assert list(error.names) == ["a.example.test", "b.example.test"]
    assert error.names["a.example.test"] == said
    assert error.hint == "Remove the name, or choose another CA."


def test_a_name_that_only_the_text_mentions_is_refused_as_well(scene: Scene) -> None:
    detail = f'Cannot issue for "{OTHER}": forbidden by policy'
    refusal = Problem("rejectedIdentifier", detail, 400)
    scene.ca.faults.before("newOrder", refusal)

    error = scene.failing(NAME, OTHER)

    assert error.exit_code == 4
    assert error.names == {OTHER: f"{detail} (rejectedIdentifier)"}


def caa(name: str) -> dict[str, object]:
    """Return what a CA says whose second look at CAA found one name closed."""
    return {
        "type": f"{ACME_ERROR}caa",
        "detail": "Rechecking CAA failed",
        "subproblems": [
            {
                "type": f"{ACME_ERROR}caa",
                "detail": "CAA forbids it",
                "identifier": {"type": "dns", "value": name.upper()},
            }
        ],
    }


def test_a_name_that_is_refused_with_the_csr_is_named(scene: Scene) -> None:
    problem = Problem("caa", "Rechecking CAA failed", 403, more=caa(OTHER))
    scene.ca.faults.before("finalize", problem)

    error = scene.failing(NAME, OTHER)

    assert error.exit_code == 4
    assert error.names == {OTHER: "CAA forbids it (caa)"}
    assert "CAA records" in error.hint
    assert scene.state.order() is None


def test_a_name_that_makes_an_order_invalid_is_named(scene: Scene) -> None:
    spoilt = showing(status="invalid", error=caa(OTHER))
    scene.ca.faults.after("finalize", spoilt)

    error = scene.failing(NAME, OTHER)

    assert error.exit_code == 4
    assert error.names == {OTHER: "CAA forbids it (caa)"}
    assert scene.state.order() is None


def test_a_limit_of_a_name_is_no_refusal_of_it(scene: Scene) -> None:
    detail = f'too many failed authorizations (5) for "{OTHER}" in the last 1h0m0s'
    limit = Problem("rateLimited", detail, 429, {"Retry-After": "3600"})
    scene.ca.faults.before("newOrder", limit)

    error = scene.failing(NAME, OTHER)

    assert error.exit_code == 3
    assert error.names == {OTHER: f"{detail} (rateLimited)"}
    assert error.retry_after == 3600


def test_a_paused_name_is_told_to_be_unpaused(scene: Scene) -> None:
    detail = f"Paused for {NAME}. Please visit: https://portal.example.test/unpause"
    scene.ca.faults.before("newOrder", Problem("rateLimited", detail, 429))

    error = scene.failing()

    assert "https://portal.example.test/unpause" in str(error)
    assert "every attempt fails" in error.hint
    assert error.exit_code == 3
    assert error.names == {NAME: f"{detail} (rateLimited)"}
    assert scene.count("newOrder") == (1,)


def test_names_echoed_in_upper_case_are_the_same_names(scene: Scene) -> None:
    scene.ca.faults.after("newOrder|order|authorization|finalize", upper_case)

    assert scene.obtain(NAME, OTHER).names == (NAME, OTHER)


def test_an_order_that_waits_at_the_ca_already_is_gone_on_with(tmp_path: Path) -> None:
    with scene_in(tmp_path, reuse_orders=True) as scene:
        scene.ca.faults.after("newOrder", LOST, times=ATTEMPTS)
        scene.failing()
        assert scene.state.order() is None

        assert scene.obtain().names == (NAME,)

        assert len(scene.ca.orders) == 1


def test_the_key_is_made_while_the_ca_answers(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()

    def make(kind: KeyType) -> PrivateKey:
        assert asked.wait(10)
        return new_key(kind)

    monkeypatch.setattr("letsencrypt_mdaemon.acme.issuer.new_key", make)
    scene.ca.faults.before("newOrder", lambda _: asked.set())

    assert scene.obtain().names == (NAME,)


def test_the_ca_is_asked_again_when_it_wants_to_be_within_reason(scene: Scene) -> None:
    def later(answer: Answer) -> object:
        first = scene.count("order") == (1,)
        answer.headers["Retry-After"] = "7" if first else str(365 * 86400)
        return processing(answer)

    scene.ca.faults.after("finalize|order", later, times=4)

    assert scene.obtain().names == (NAME,)

    assert scene.clock.slept == [0.01, 7, 30, 30, 30]


MANY = [f"host-{number}.example.test" for number in range(20)]


def test_many_names_are_proven_together(scene: Scene) -> None:
    assert scene.obtain(*MANY).names == tuple(MANY)

    # This CA decides in its answers: it need not be asked again.
    assert scene.count("authorization", "challenge", "order") == (20, 20, 1)


def test_before_further_names_the_ca_is_asked_about_those_before_them(
    scene: Scene,
) -> None:
    scene.ca.faults.after("challenge", showing(status="processing"))

    assert scene.obtain(*MANY).names == tuple(MANY)

    assert scene.count("authorization", "challenge", "order") == (20 + 18, 20, 1)


def test_no_more_names_are_validated_at_once_than_a_web_server_can_bear(
    scene: Scene,
) -> None:
    looks: Counter[str] = Counter()
    under_way, most = set[str](), 0

    def begin(answer: Answer) -> None:
        nonlocal most
        under_way.add(answer.document["token"])
        most = max(most, len(under_way))
        answer.document["status"] = "processing"

    def slow(answer: Answer) -> None:
        (challenge,) = answer.document["challenges"][-1:]
        token = challenge["token"]
        if answer.document["status"] == "valid":
            looks[token] += 1
            if looks[token] < 2:
                answer.document["status"] = challenge["status"] = "pending"
            else:
                under_way.discard(token)

    scene.ca.faults.after("challenge", begin)
    scene.ca.faults.after("authorization", slow)

    assert scene.obtain(*MANY).names == tuple(MANY)

    assert most == MAX_REQUESTS_AT_ONCE


def test_names_that_the_ca_does_not_decide_about_hold_up_the_others_for_seconds_only(
    scene: Scene,
) -> None:
    scene.ca.faults.before("challenge", Answer(200, {"status": "processing"}))

    error = scene.failing(*MANY, timeout=60.0)

    assert set(error.names) == set(MANY)
    assert scene.count("challenge") == (20,)
    assert 60 < scene.clock.now < 70


def test_after_a_failure_a_ca_is_asked_one_thing_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CA that cannot bear two answers to challenges at once, like one on SQLite."""
    answer = CertificateAuthority.answer
    asked, busy = Condition(), 0
    together = Barrier(MAX_REQUESTS_AT_ONCE)
    arrived: list[str] = []
    collisions: list[str] = []

    def locked(
        self: CertificateAuthority,
        method: str,
        path: str,
        *more: Any,  # noqa: ANN401
    ) -> Answer:
        nonlocal busy
        if self.resources[self._base + path].name != "challenge":
            return answer(self, method, path, *more)
        with asked:
            arrived.append(path)
            is_first = len(arrived) <= MAX_REQUESTS_AT_ONCE
            busy += not is_first
            asked.notify_all()
        if is_first:
            together.wait(HANG_SECONDS)
            return html(500)
        with asked:
            # Long enough for another thread to come by, if it does not wait.
            if asked.wait_for(lambda: busy > 1, 0.2):
                collisions.append(path)
        said = answer(self, method, path, *more)
        with asked:
            busy -= 1
        return said

    monkeypatch.setattr(CertificateAuthority, "answer", locked)
    with scene_in(tmp_path) as scene:
        names = MANY[:MAX_REQUESTS_AT_ONCE]
        assert scene.obtain(*names).names == tuple(names)

    assert len(arrived) == 2 * MAX_REQUESTS_AT_ONCE
    assert collisions == []


# Authorizations that need no proof, or cannot be proven here


@pytest.mark.parametrize("order", ["ready", "pending"])
def test_what_is_proven_already_needs_no_token_file(scene: Scene, order: str) -> None:
    scene.ca.faults.authorizations_valid = True
    scene.ca.faults.after("newOrder", showing(status=order))
    shutil.rmtree(scene.webroot)

    assert scene.obtain(NAME, OTHER).names == (NAME, OTHER)

    assert scene.count("challenge") == (0,)
    assert not scene.webroot.exists()


def test_only_the_names_not_proven_yet_are_to_be_proven(scene: Scene) -> None:
    def prove_first(_: Request) -> None:
        authorization, *_others = scene.ca.authorizations.values()
        authorization["status"] = "valid"

    scene.ca.faults.before("authorization", prove_first, times=1)

    assert scene.obtain(NAME, OTHER).names == (NAME, OTHER)

    assert scene.count("challenge") == (1,)


def test_a_name_with_two_authorizations_is_proven_twice(scene: Scene) -> None:
    scene.ca.faults.before("challenge", html(500), times=ATTEMPTS)
    scene.failing()
    scene.state.forget_order()
    (earlier,) = scene.ca.authorizations

    def add(answer: Answer) -> None:
        answer.document["authorizations"].append(earlier)

    scene.ca.faults.after("newOrder", add)

    assert scene.obtain().names == (NAME,)

    states = [known["status"] for known in scene.ca.authorizations.values()]
    assert states == ["valid", "valid"]


def test_challenges_of_other_kinds_are_not_looked_at(scene: Scene) -> None:
    def add(answer: Answer) -> None:
        strange = {"type": "dns-persist-01", "status": "invalid", "error": {}}
        answer.document["challenges"][:0] = [strange, None, "http-01", {}]

    scene.ca.faults.after("authorization", add)

    assert scene.obtain().names == (NAME,)


def only_dns(answer: Answer) -> None:
    answer.document["challenges"] = answer.document["challenges"][:1]


def without_token(answer: Answer) -> None:
    answer.document["challenges"][1].pop("token")


def without_url(answer: Answer) -> None:
    answer.document["challenges"][1]["url"] = None


@pytest.mark.parametrize(
    "fault",
    [
        only_dns,
        without_token,
        without_url,
        without("challenges"),
        showing(challenges=1),
    ],
)
def test_a_name_that_cannot_be_proven_over_http_is_told_before_anything_is_tried(
    scene: Scene, fault: Fault
) -> None:
    scene.ca.faults.after("authorization", fault)

    error = scene.failing(NAME, OTHER)

    assert isinstance(error, ChallengeError)
    assert f"no http-01 challenge for {NAME}, {OTHER}" in str(error)
    assert set(error.names) == {NAME, OTHER}
    assert "choose another CA" in error.hint
    assert scene.count("challenge") == (0,)
    assert scene.state.order() is None


@pytest.mark.parametrize("state", ["invalid", "deactivated", "expired", "revoked"])
def test_an_authorization_that_is_over_is_not_tried(scene: Scene, state: str) -> None:
    scene.ca.faults.after("authorization", showing(status=state))

    error = scene.failing()

    assert isinstance(error, ChallengeError)
    assert error.names == {NAME: f"the authorization is {state}"}
    assert "://" not in str(error)
    assert scene.count("challenge") == (0,)


HOSTILE_TOKENS = [
    "",
    ".",
    "..",
    "../../evil",
    "..\\evil",
    "/etc/evil",
    "a/b",
    "C:evil",
    "a.txt",
    "a\0b",
    "a\nb",
    "\xfcml\xe4ut",
    "CON",
    "lpt1",
    "a" * 300,
]


@pytest.mark.parametrize("token", HOSTILE_TOKENS)
def test_a_hostile_token_never_becomes_a_file_name(scene: Scene, token: str) -> None:
    scene.ca.faults.token = token
    before = {*scene.folder.rglob("*")}

    error = scene.failing()

    assert "which is not base64url" in str(error)
    assert scene.count("challenge") == (0,)
    new = {path for path in scene.folder.rglob("*") if path not in before}
    state = scene.state.folder
    assert new <= {state, *state.parents, state / "account.json", state / "order.json"}


def test_no_file_is_written_if_only_the_last_token_is_hostile(scene: Scene) -> None:
    def fault(answer: Answer) -> None:
        if answer.document["identifier"]["value"] == OTHER:
            answer.document["challenges"][1] |= {"token": "../evil"}

    scene.ca.faults.after("authorization", fault)

    assert "which is not base64url" in str(scene.failing(NAME, OTHER))
    assert scene.count("challenge") == (0,)


def test_a_webroot_that_is_not_there_is_told_and_the_order_kept(scene: Scene) -> None:
    scene.webroot.rmdir()
    with pytest.raises(ConfigError, match="webroot"):
        scene.obtain()
    scene.webroot.mkdir()

    assert scene.obtain().names == (NAME,)

    assert scene.count("newOrder") == (1,)


# Finalizing (7.4)


def test_an_order_that_loses_its_finalize_url_is_finalized_all_the_same(
    scene: Scene,
) -> None:
    scene.ca.faults.after("order", without("finalize"))

    assert scene.obtain().names == (NAME,)


def test_an_order_that_lost_its_finalize_url_between_runs_is_finalized_too(
    scene: Scene,
) -> None:
    scene.ca.faults.after("order", without("finalize"))
    scene.ca.faults.before("finalize", html(500), times=ATTEMPTS)
    scene.failing()

    assert scene.obtain().names == (NAME,)

    assert scene.count("newOrder") == (1,)


@pytest.mark.parametrize("polls", [0, 1, 5])
def test_an_order_may_be_worked_on_for_a_while(scene: Scene, polls: int) -> None:
    scene.ca.faults.after("finalize|order", processing, times=polls)

    assert scene.obtain().names == (NAME,)

    assert scene.count("order") == (1 + polls,)


@pytest.mark.parametrize("answer", [without("status"), showing(status="ready")])
def test_finalize_may_tell_little(scene: Scene, answer: Fault) -> None:
    def fault(said: Answer) -> None:
        said.headers.pop("Location")
        answer(said)

    scene.ca.faults.after("finalize", fault)

    assert scene.obtain().names == (NAME,)


def test_an_order_that_is_not_quite_ready_is_finalized_a_moment_later(
    scene: Scene,
) -> None:
    early = Problem("orderNotReady", "Not yet.", 403)
    scene.ca.faults.before("finalize", early, times=3)

    assert scene.obtain().names == (NAME,)

    assert scene.count("finalize") == (4,)


def test_an_order_that_never_gets_ready_is_given_up_after_the_patience(
    scene: Scene,
) -> None:
    early = Problem("orderNotReady", "Not yet.", 403)
    scene.ca.faults.before("finalize", early)

    error = scene.failing(timeout=60.0)

    assert "Not yet (orderNotReady)" in str(error)
    assert 60 <= scene.clock.now < 70


def test_an_order_that_gets_invalid_when_it_was_ready_is_told_with_its_error(
    scene: Scene,
) -> None:
    problem = {"type": "urn:ietf:params:acme:error:caa", "detail": "CAA forbids it."}
    invalid = showing(status="invalid", error=problem)
    scene.ca.faults.after("finalize", showing(status="processing"))
    scene.ca.faults.after(
        "order", lambda answer: scene.count("finalize") == (1,) and invalid(answer)
    )

    error = scene.failing()

    assert str(error) == "The CA made the order invalid: CAA forbids it (caa)."
    assert error.problem == problem
    assert "CAA records" in error.hint
    assert scene.state.order() is None


def test_an_order_that_is_invalid_when_it_is_to_be_finalized_is_told_as_such(
    scene: Scene,
) -> None:
    def invalidate(_: Request) -> None:
        (authorization,) = scene.ca.authorizations.values()
        authorization["status"] = "deactivated"

    scene.ca.faults.before("finalize", invalidate)

    error = scene.failing()

    assert str(error) == "The CA made the order invalid: no reason given."
    assert scene.state.order() is None


def test_a_refused_signing_request_is_not_resumed(scene: Scene) -> None:
    refusal = Problem("badCSR", "The key is too weak.")
    scene.ca.faults.before("finalize", refusal, times=1)

    assert "The key is too weak (badCSR)" in str(scene.failing())

    assert scene.state.order() is None
    assert scene.obtain().names == (NAME,)


@pytest.mark.parametrize(
    "fault", [html(500), LOST, Problem("rateLimited", "Later.", 429)]
)
def test_a_ready_order_that_cannot_be_finalized_now_is_resumed(
    scene: Scene, fault: Answer | Problem
) -> None:
    times = 1 if isinstance(fault, Problem) else ATTEMPTS
    scene.ca.faults.before("finalize", fault, times=times)
    scene.failing()
    left = scene.state.order()

    certificate = scene.obtain()

    assert left is not None
    assert left.key_pem == key_pem(certificate.key).decode()
    assert scene.count("newOrder", "challenge") == (1, 1)


# Waiting for the certificate, and fetching it


def test_an_order_that_is_worked_on_too_long_is_resumed_by_the_next_run(
    scene: Scene,
) -> None:
    scene.ca.faults.after("finalize|order", processing)

    error = scene.failing(timeout=60.0)

    (url,) = scene.ca.orders
    left = scene.state.order()
    assert (
        f"did not issue the certificate within 60 s: the order {url} is 'processing'"
        in str(error)
    )
    assert error.hint == "The next run resumes this order."
    assert 60 <= scene.clock.now < 70
    assert left is not None
    assert left.url == url

    done = showing(status="valid", certificate=scene.order["certificate"])
    scene.ca.faults.after("order", done)
    certificate = scene.obtain()

    assert left.key_pem == key_pem(certificate.key).decode()
    assert scene.count("newOrder", "finalize", "challenge") == (1, 1, 1)


def test_a_certificate_that_is_not_there_at_first_is_fetched_a_moment_later(
    scene: Scene,
) -> None:
    missing = Problem("malformed", "No certificate.", 404)
    scene.ca.faults.before("certificate", missing, times=1)

    assert scene.obtain().names == (NAME,)

    assert 2 in scene.clock.slept


@pytest.mark.parametrize("fault", [Problem("malformed", "None.", 404), html(404)])
def test_a_certificate_that_never_gets_there_is_ordered_anew(
    scene: Scene, fault: Answer | Problem
) -> None:
    scene.ca.faults.before("certificate", fault, times=2)

    assert "refused with HTTP 404" in str(scene.failing())

    assert scene.state.order() is None
    assert scene.obtain().names == (NAME,)
    assert scene.count("newOrder") == (2,)


def test_a_certificate_that_could_not_be_fetched_now_is_fetched_by_the_next_run(
    scene: Scene,
) -> None:
    scene.ca.faults.before("certificate", LOST, times=ATTEMPTS)
    assert isinstance(scene.failing(), TransientError)

    assert scene.obtain().names == (NAME,)

    assert scene.count("newOrder", "finalize") == (1, 1)
    assert len(scene.ca.issued) == 1
