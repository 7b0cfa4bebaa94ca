"""Time limits of tests: generous for hangs, short only for what never comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

_Found = TypeVar("_Found")

HANG_SECONDS = 600.0
"""For what must not hang for ever, however busy the machine is."""
SOON_SECONDS = 0.5
"""For what never comes."""


def in_time(
    look: Callable[[float], _Found], comes: Callable[[_Found], object]
) -> _Found:
    """Return what is seen when what never comes is given up, and the rest was there.

    Args:
        look: Gives up after so many seconds: few, and more only where the machine was
            too busy for what does come.
        comes: Whether that was there.
    """
    seconds = SOON_SECONDS
    while not comes(found := look(seconds)) and seconds < HANG_SECONDS:
        seconds *= 4
    return found
