"""Ask several at once, in a bounded number of threads, within a common timeout."""

from __future__ import annotations

import errno
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

_LACKS = {errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOBUFS}
# Too many open files, not enough memory (twice), no resources, commitment limit, no
# buffers for sockets.
_WINDOWS_LACKS = {4, 8, 14, 1450, 1455, 10055}


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
        ask: Called in a thread; what it raises is raised here.
        timeout: Seconds for all of them together.

    Raises:
        RuntimeError: If the system allows not a single thread.
    """
    waiting: SimpleQueue[_Question] = SimpleQueue()
    answers: SimpleQueue[tuple[_Question, _Answer | Exception]] = SimpleQueue()
    deadline = time.monotonic() + timeout

    def work() -> None:
        with suppress(Empty):
            while time.monotonic() <= deadline:
                question = waiting.get_nowait()
                try:
                    answers.put((question, ask(question)))
                except Exception as exc:  # noqa: BLE001 - raised below
                    answers.put((question, exc))

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
    found: dict[_Question, _Answer] = {}
    with suppress(Empty):
        for _ in questions:
            left = max(deadline - time.monotonic(), 0)
            question, answer = answers.get(timeout=left)
            if isinstance(answer, Exception):
                raise answer
            found[question] = answer
    return {question: found[question] for question in questions if question in found}


def is_lack(error: BaseException) -> bool:
    """Whether this machine lacks memory, threads, processes or open files."""
    if isinstance(error, OSError):
        return error.errno in _LACKS or getattr(error, "winerror", 0) in _WINDOWS_LACKS
    return isinstance(error, MemoryError) or "can't start new thread" in str(error)
