"""PATH gets one entry, and loses it again, whatever else is in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letsencrypt_mdaemon.windows.environment import with_entry, without_entry

OURS = r"C:\Program Files\letsencrypt-mdaemon"


@pytest.mark.parametrize(
    ("value", "changed"),
    [
        ("", OURS),
        (r"C:\Windows", rf"C:\Windows;{OURS}"),
        ("C:\\Windows;", f"C:\\Windows;{OURS};"),
        (r"%SystemRoot%;;C:\x", rf"%SystemRoot%;;C:\x;{OURS}"),
        # Neither is ours: one is below it, one begins like it, one is quoted with more.
        (rf"{OURS}\bin", rf"{OURS}\bin;{OURS}"),
        (f"{OURS}-2", f"{OURS}-2;{OURS}"),
        (f'"C:\\a;{OURS}"', f'"C:\\a;{OURS}";{OURS}'),
        ("C:\\x;" * 2000, "C:\\x;" * 2000 + f"{OURS};"),
    ],
)
def test_an_entry_is_added_at_the_end_and_removed_as_if_it_had_never_been(
    value: str, changed: str
) -> None:
    assert with_entry(value, OURS) == changed
    assert without_entry(changed, OURS) == value


@pytest.mark.parametrize(
    "there", [OURS, OURS.upper(), f"{OURS}\\", f'"{OURS}"', f" {OURS} ", f'"{OURS}\\"']
)
def test_an_entry_is_known_however_it_is_written(there: str) -> None:
    value = rf"C:\a;{there};C:\b"

    assert with_entry(value, OURS) == value
    assert without_entry(value, OURS) == r"C:\a;C:\b"


@given(st.text('ab;:\\"% '))
def test_any_path_is_the_same_after_an_installation_and_a_removal(value: str) -> None:
    assert without_entry(with_entry(value, OURS), OURS) == value
