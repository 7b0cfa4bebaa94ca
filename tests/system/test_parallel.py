"""Several questions at once, and no waiting for those that are never answered."""

from collections.abc import Iterator
from threading import Barrier, Event

import pytest

from letsencrypt_mdaemon.system.parallel import ask_all
from tests.limits import HANG_SECONDS, in_time


@pytest.fixture
def ended() -> Iterator[Event]:
    """Set when the test is over, so that no thread outlives it for long."""
    event = Event()
    yield event
    event.set()


def test_all_are_asked_at_the_same_time() -> None:
    meeting = Barrier(20)

    def ask(number: int) -> int:
        meeting.wait(HANG_SECONDS)  # it opens only when all are there
        return number * number

    found = ask_all(ask, range(20), timeout=HANG_SECONDS)

    assert found == {number: number * number for number in range(20)}
    assert list(found) == list(range(20))


def test_those_that_do_not_answer_in_time_are_left_behind(ended: Event) -> None:
    def ask(question: str) -> str:
        if question == "never":
            ended.wait()
        return question.upper()

    found = in_time(
        lambda seconds: ask_all(ask, ["first", "never", "last"], timeout=seconds),
        lambda found: len(found) > 1,
    )

    assert found == {"first": "FIRST", "last": "LAST"}


def test_a_question_is_asked_once_however_often_it_is_there() -> None:
    asked: list[str] = []

    ask_all(asked.append, ["same", "same"], timeout=HANG_SECONDS)

    assert asked == ["same"]


def test_no_questions_have_no_answers() -> None:
    assert ask_all(str, [], timeout=HANG_SECONDS) == {}
