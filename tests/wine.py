"""Where Wine is not Windows: a mark for tests that can only fail there."""

from __future__ import annotations

import sys

import pytest

DIFFERS = "wine_differs"


def is_wine() -> bool:
    """Whether this is Python for Windows, and Wine is what runs it."""
    if sys.platform != "win32":
        return False
    import ctypes  # noqa: PLC0415 - Windows only

    return hasattr(ctypes.windll.ntdll, "wine_get_version")


windows_too = pytest.mark.windows_too
"""Of files whose tests need nothing of Windows, those that `tox -e wine` runs there."""


def wine_differs(reason: str) -> pytest.MarkDecorator:
    """Mark a test, or one parameter of it, that Wine fails and Windows should pass.

    Args:
        reason: What Wine does otherwise; it is printed in the summary.
    """
    return getattr(pytest.mark, DIFFERS)(reason)  # type: ignore[no-any-return]


def expect_difference(request: pytest.FixtureRequest, reason: str) -> None:
    """Do the same from inside of a test, where only one of its parameters differs."""
    if is_wine():
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
