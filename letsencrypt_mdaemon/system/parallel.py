"""Ask several at once, each in a thread of its own, within a common timeout."""

from __future__ import annotations

import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_Question = TypeVar("_Question")
_Answer = TypeVar("_Answer")


def ask_all(
    ask: Callable[[_Question], _Answer],
    questions: Iterable[_Question],
    *,
    timeout: float,
) -> dict[_Question, _Answer]:
    """Return the answers that arrive in time, in the order of the questions.

    A late thread is left running: nothing can end a DNS look-up before the system does.

    Args:
        ask: Called in a thread; must not raise.
        timeout: Seconds for all of them together.
    """
    answers: SimpleQueue[tuple[_Question, _Answer]] = SimpleQueue()

    def work(question: _Question) -> None:
        answers.put((question, ask(question)))

    questions = list(dict.fromkeys(questions))
    deadline = time.monotonic() + timeout
    for question in questions:
        Thread(target=work, args=(question,), daemon=True).start()
    found = {}
    with suppress(Empty):
        for _ in questions:
            left = max(deadline - time.monotonic(), 0)
            question, answer = answers.get(timeout=left)
            found[question] = answer
    return {question: found[question] for question in questions if question in found}
