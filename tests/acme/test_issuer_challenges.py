"""Names that the CA does not find proven, however it says so, or never judges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from letsencrypt_mdaemon.acme.authorization import AFTER_FAILURE_SECONDS
from letsencrypt_mdaemon.acme.transport import ATTEMPTS
from letsencrypt_mdaemon.errors import ChallengeError
from letsencrypt_mdaemon.sandbox.ca.messages import Answer, Problem, Request, html
from tests.ca_faults import never_invalid, upper_case, without_error
from tests.scene import NAME, OTHER, Fault, Scene, scene_in, showing

THIRD = "pop.example.test"


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with scene_in(tmp_path) as scene:
        yield scene


def unproven(scene: Scene, *names: str, **options: float) -> ChallengeError:
    """Return the error of a run, after which nothing is left to be resumed."""
    error = scene.failing(*(names or (NAME,)), **options)
    assert isinstance(error, ChallengeError)
    assert error.exit_code == 4
    assert scene.state.order() is None
    return error


def nowhere(*names: str) -> Callable[[str], str | None]:
    """Return a DNS that knows all names but these."""
    return lambda name: None if name in names else "127.0.0.1"


def test_a_name_that_is_not_proven_is_told_with_its_url_and_the_words_of_the_ca(
    scene: Scene,
) -> None:
    scene.ca.resolve = nowhere(NAME)

    error = unproven(scene, NAME, OTHER)

    (token,) = [
        known["challenges"][0]["token"]
        for known in scene.ca.authorizations.values()
        if known["identifier"]["value"] == NAME
    ]
    said = "DNS problem: NXDOMAIN looking up A for mail.example.test"
    url = f"http://{NAME}/.well-known/acme-challenge/{token}"
    assert "could not validate 1 name; nothing was changed:" in str(error)
    assert f"\n  - {NAME}: {url}: {said}" in str(error)
    assert set(error.names) == {NAME}
    assert error.hint.startswith("Correct each name in DNS")


def test_a_web_server_that_shows_something_else_is_told_as_the_ca_saw_it(
    scene: Scene,
) -> None:
    def replace_file(_: Request) -> None:
        for file in scene.webroot.rglob("*"):
            if file.is_file():
                file.write_text("<html>Log in", encoding="utf-8")

    scene.ca.faults.before("challenge", replace_file)

    with pytest.raises(ChallengeError) as caught:
        scene.obtain()

    assert 'did not match this challenge. Expected "' in str(caught.value)
    assert '(got "<html>Log in")' in str(caught.value)


def test_a_name_that_is_not_proven_is_told_in_lower_case(scene: Scene) -> None:
    scene.ca.resolve = nowhere(NAME)
    scene.ca.faults.after("newOrder|order|authorization", upper_case)

    assert set(unproven(scene, NAME, OTHER).names) == {NAME}


def test_every_name_that_is_not_proven_is_told_at_once(scene: Scene) -> None:
    scene.ca.resolve = nowhere(NAME, OTHER)

    error = unproven(scene, NAME, OTHER, THIRD)

    assert "could not validate 2 names" in str(error)
    assert set(error.names) == {NAME, OTHER}


def undecided(name: str, looks: int) -> Callable[[Answer], object]:
    """Return a fault: a name's authorization is shown as pending for some looks."""
    left = [looks]

    def fault(answer: Answer) -> None:
        document = answer.document
        if document["identifier"]["value"] == name and document["status"] == "invalid":
            left[0] -= 1
            if left[0] >= 0:
                document["status"] = "pending"
                challenge = document["challenges"][0]
                challenge["status"] = "processing"
                challenge.pop("error")

    return fault


def test_a_name_that_is_judged_a_moment_later_is_told_with_the_first(
    scene: Scene,
) -> None:
    scene.ca.resolve = nowhere(NAME, OTHER)
    scene.ca.faults.after("authorization", undecided(OTHER, looks=3))

    assert set(unproven(scene, NAME, OTHER).names) == {NAME, OTHER}


def test_a_name_that_is_never_judged_is_not_waited_for_when_another_failed(
    scene: Scene,
) -> None:
    scene.ca.resolve = nowhere(NAME, OTHER)
    scene.ca.faults.after("authorization", undecided(OTHER, looks=1000))

    assert set(unproven(scene, NAME, OTHER).names) == {NAME}

    assert AFTER_FAILURE_SECONDS < scene.clock.now < AFTER_FAILURE_SECONDS + 6


def test_names_that_are_never_judged_are_told_after_the_patience(scene: Scene) -> None:
    scene.ca.faults.before("challenge", Answer(200, {"status": "processing"}))

    error = unproven(scene, NAME, OTHER, timeout=60.0)

    said = "the CA did not check it within 60 s"
    assert error.names == {NAME: said, OTHER: said}
    assert 60 < scene.clock.now < 70


def test_an_order_that_stays_behind_its_authorizations_is_given_up_and_resumed(
    scene: Scene,
) -> None:
    def behind(answer: Answer) -> object:
        answer.document["status"] = "pending"
        return True

    scene.ca.faults.after("order", behind, times=20)

    error = scene.failing(timeout=30.0)

    assert not isinstance(error, ChallengeError)
    assert "validated every name but did not go on within 30 s" in str(error)
    assert error.hint == "The next run resumes this order."
    scene.ca.faults.after("order", lambda _: None)
    assert scene.obtain(timeout=3000.0).names == (NAME,)
    assert scene.count("newOrder", "challenge") == (1, 1)


def test_an_order_that_is_invalid_though_its_names_are_proven_is_told_as_such(
    scene: Scene,
) -> None:
    def invalid(answer: Answer) -> None:
        answer.document.update(status="invalid", error={"detail": "Changed our mind."})

    scene.ca.faults.after("order", invalid)

    error = scene.failing()

    assert not isinstance(error, ChallengeError)
    assert str(error) == "The CA made the order invalid: Changed our mind."
    assert scene.state.order() is None


# The ways to say no


def test_an_authorization_may_be_invalid_without_a_reason(scene: Scene) -> None:
    scene.ca.resolve = nowhere(NAME)
    scene.ca.faults.after("authorization|challenge", without_error)

    assert unproven(scene).names == {NAME: "the authorization is invalid"}


def test_an_order_may_stay_pending_though_a_name_is_not_proven(scene: Scene) -> None:
    scene.ca.resolve = nowhere(NAME)
    scene.ca.faults.after("authorization|challenge", without_error)
    scene.ca.faults.after("order", never_invalid)

    assert unproven(scene, NAME, OTHER).names == {NAME: "the authorization is invalid"}

    assert scene.clock.now < 3


def test_a_failed_challenge_may_stay_pending_with_an_error(scene: Scene) -> None:
    scene.ca.resolve = nowhere(NAME)
    scene.ca.faults.failures_stay_pending = True

    error = unproven(scene, NAME, OTHER)

    assert "NXDOMAIN" in error.names[NAME]
    assert set(error.names) == {NAME}
    assert scene.clock.now < 3


def test_the_error_of_an_earlier_try_is_not_taken_for_this_ones(scene: Scene) -> None:
    def remember(answer: Answer) -> None:
        if answer.document["status"] == "pending":
            answer.document["challenges"][1]["error"] = {"detail": "an earlier try"}

    scene.ca.faults.after("authorization", remember)

    assert scene.obtain(NAME, OTHER).names == (NAME, OTHER)


def test_only_the_challenge_may_be_invalid(scene: Scene) -> None:
    def pending(answer: Answer) -> None:
        if "challenges" in answer.document:
            answer.document["status"] = "pending"

    scene.ca.resolve = nowhere(NAME)
    scene.ca.faults.after("authorization", pending)
    scene.ca.faults.after("order", never_invalid)

    assert "NXDOMAIN" in unproven(scene).names[NAME]


def test_the_answer_to_a_challenge_may_be_the_failure_itself(scene: Scene) -> None:
    scene.ca.resolve = nowhere(NAME)
    scene.ca.faults.after("challenge", Problem("dns", "the POST's words", 400))

    assert "NXDOMAIN" in unproven(scene).names[NAME]


def test_the_answer_to_a_challenge_may_be_the_only_failure(scene: Scene) -> None:
    scene.ca.faults.before("challenge", Problem("dns", "Found nothing.", 400))

    error = unproven(scene, NAME, OTHER)

    assert set(error.names) == {NAME, OTHER}
    assert error.names[NAME] == "Found nothing (dns)"


def test_a_challenge_that_was_decided_meanwhile_may_be_refused(scene: Scene) -> None:
    decided = Problem("malformed", "The authorization is decided already", 400)
    scene.ca.faults.after("challenge", decided)
    scene.ca.faults.after("order", showing(status="pending"), times=1)

    assert scene.obtain(NAME, OTHER).names == (NAME, OTHER)


def test_a_challenge_that_somebody_else_answered_is_left_alone(scene: Scene) -> None:
    def answer_it(answer: Answer) -> None:
        if answer.document["status"] == "pending":
            answer.document["challenges"][1]["status"] = "processing"

    scene.ca.faults.after("authorization", answer_it)

    unproven(scene, timeout=5.0)

    assert scene.count("challenge") == (0,)


@pytest.mark.parametrize(
    ("fault", "times"),
    [
        (html(500), ATTEMPTS),
        (html(403), 1),
        (Problem("serverInternal", "Oops.", 500), ATTEMPTS),
        (Problem("rateLimited", "Later.", 429), 1),
    ],
)
def test_a_ca_that_cannot_validate_now_has_not_found_the_name_unproven(
    scene: Scene, fault: Answer | Problem, times: int
) -> None:
    scene.ca.faults.before("challenge", fault, times=times)

    error = scene.failing()

    assert not isinstance(error, ChallengeError)
    assert scene.obtain().names == (NAME,)
    assert scene.count("newOrder") == (1,)


def without_link(answer: Answer) -> None:
    del answer.headers["Link"]


def without_status(answer: Answer) -> None:
    answer.document["challenges"][1].pop("status", None)


@pytest.mark.parametrize(
    ("resource", "fault"),
    [("challenge", without_link), ("authorization", without_status)],
)
def test_a_challenge_needs_neither_a_link_nor_a_status(
    scene: Scene, resource: str, fault: Fault
) -> None:
    scene.ca.faults.after(resource, fault)

    assert scene.obtain(NAME, OTHER).names == (NAME, OTHER)


@pytest.mark.parametrize("listed", [None, 5, "https://ca.test", [None, 5, []], {}])
def test_an_order_whose_authorizations_make_no_sense_is_given_up(
    scene: Scene, listed: object
) -> None:
    scene.ca.faults.after("newOrder", showing(authorizations=listed))

    assert "did not go on" in str(scene.failing())


@pytest.mark.parametrize("identifier", [None, "a.test", {}, {"value": [1]}])
def test_an_authorization_need_not_say_whose_it_is(
    scene: Scene, identifier: object
) -> None:
    scene.ca.faults.after("authorization", showing(identifier=identifier))

    assert scene.obtain(NAME, OTHER).names == (NAME, OTHER)


def test_hostile_words_of_the_ca_cannot_act_on_a_terminal(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    def hostile(answer: Answer) -> None:
        document = answer.document
        document["identifier"]["value"] = "\x1b[2Jmail"
        if document["status"] == "invalid":
            document["challenges"][0]["error"] = {"detail": "\x1b[2J\x07", "type": "\n"}

    caplog.set_level("INFO", "letsencrypt_mdaemon.acme")
    scene.ca.resolve = nowhere(NAME)
    scene.ca.faults.after("authorization", hostile)

    error = unproven(scene)

    assert str(error).replace("\n  - ", "").isprintable()
    assert all(f"{name}{said}".isprintable() for name, said in error.names.items())
    assert any("Asking the CA to validate" in message for message in caplog.messages)
    assert all(message.isprintable() for message in caplog.messages)
