"""Several questions at once, and no waiting for those that are never answered."""

from collections.abc import Iterator
from threading import Barrier, Event, Lock, Thread, current_thread

import pytest

from letsencrypt_mdaemon.system import parallel
from letsencrypt_mdaemon.system.parallel import ask_all
from tests.limits import HANG_SECONDS, SOON_SECONDS, in_time


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


def test_thousands_of_questions_share_a_hundred_threads() -> None:
    threads: set[Thread] = set()

    def ask(number: int) -> int:
        threads.add(current_thread())
        return -number

    found = ask_all(ask, range(3600), timeout=HANG_SECONDS)

    assert found == {number: -number for number in range(3600)}
    assert list(found) == list(range(3600))
    assert len(threads) <= parallel.MAX_THREADS == 100


def test_after_the_timeout_nothing_further_is_asked(
    ended: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "MAX_THREADS", 1)
    asked: list[str] = []
    threads: list[Thread] = []

    def ask(question: str) -> str:
        asked.append(question)
        threads.append(current_thread())
        ended.wait()
        return question

    assert ask_all(ask, ["held up", "late"], timeout=SOON_SECONDS) == {}

    ended.set()
    threads[0].join(HANG_SECONDS)
    assert asked == ["held up"]


@pytest.mark.parametrize("allowed", [1, 3])
def test_where_the_system_allows_few_threads_these_ask_everything(
    allowed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, lock = Thread.start, Lock()
    started: list[Thread] = []

    def refuse(self: Thread) -> None:
        with lock:
            if len(started) == allowed:
                raise RuntimeError("can't start new thread")
            started.append(self)
        start(self)

    monkeypatch.setattr(Thread, "start", refuse)

    assert len(ask_all(str, range(50), timeout=HANG_SECONDS)) == 50


def test_a_system_that_allows_no_thread_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Thread, "start", refuse)

    with pytest.raises(RuntimeError, match="can't start new thread"):
        ask_all(str, [1], timeout=HANG_SECONDS)


def test_what_a_question_raises_is_raised() -> None:
    def ask(number: int) -> int:
        if number == 2:
            raise MemoryError
        return number

    with pytest.raises(MemoryError):
        ask_all(ask, range(4), timeout=HANG_SECONDS)
