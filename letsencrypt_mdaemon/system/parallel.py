"""Ask several at once, in a bounded number of threads, within a common timeout."""

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

MAX_THREADS = 100
"""More than a machine has ports to look at: what does not answer holds a thread."""


def ask_all(
    ask: Callable[[_Question], _Answer],
    questions: Iterable[_Question],
    *,
    timeout: float,
) -> dict[_Question, _Answer]:
    """Return the answers that arrive in time, in the order of the questions.

    A late thread is left running: nothing can end a DNS look-up before the system does.
    It asks nothing further.

    Args:
        ask: Called in a thread; must not raise.
        timeout: Seconds for all of them together.

    Raises:
        RuntimeError: If the system allows not a single thread.
    """
    waiting: SimpleQueue[_Question] = SimpleQueue()
    answers: SimpleQueue[tuple[_Question, _Answer]] = SimpleQueue()
    deadline = time.monotonic() + timeout

    def work() -> None:
        with suppress(Empty):
            while time.monotonic() <= deadline:
                question = waiting.get_nowait()
                answers.put((question, ask(question)))

    questions = list(dict.fromkeys(questions))
    for question in questions:
        waiting.put(question)
    for number in range(min(len(questions), MAX_THREADS)):
        try:
            Thread(target=work, daemon=True).start()
        except RuntimeError:
            if number == 0:
                raise
            break  # Those that run ask everything.
    found = {}
    with suppress(Empty):
        for _ in questions:
            left = max(deadline - time.monotonic(), 0)
            question, answer = answers.get(timeout=left)
            found[question] = answer
    return {question: found[question] for question in questions if question in found}
