"""Run a setup program, press its buttons, show what it shows; Windows runs this.

Its arguments are the command line, and "yes" or "no" as the answer to questions. The
default button of each page is pressed: Next, Install, Finish, OK. Printed as JSON: the
exit code, and every text that was to be seen.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import time
from ctypes import wintypes

assert sys.platform == "win32"

user32 = ctypes.windll.user32
Found = ctypes.WINFUNCTYPE(ctypes.c_bool, wintypes.HWND, wintypes.LPARAM)
OK, YES, NO = 1, 6, 7  # IDOK, IDYES, IDNO
LOST_SECONDS = 5
CLICK, GET_TEXT = 0x00F5, 0x000D  # BM_CLICK, WM_GETTEXT
ANSWERS = {"yes": YES, "no": NO}


def text_of(window: int) -> str:
    """Return the text of a window or a control, also what is in a field."""
    text = ctypes.create_unicode_buffer(2000)
    # A busy program is not waited for: it is looked at again.
    user32.SendMessageTimeoutW(window, GET_TEXT, len(text), text, 0, 1000, None)
    return text.value


def windows_of(process: int) -> list[int]:
    """Return the visible windows of a process."""
    found: list[int] = []

    def take(window: int, _: int) -> bool:
        owner = wintypes.DWORD()
        user32.GetWindowThreadProcessId(window, ctypes.byref(owner))
        if owner.value == process and user32.IsWindowVisible(window):
            found.append(window)
        return True

    user32.EnumWindows(Found(take), 0)
    return found


def controls_of(window: int) -> dict[int, int]:
    """Return the visible controls of a window, by number."""
    found: dict[int, int] = {}

    def take(control: int, _: int) -> bool:
        if user32.IsWindowVisible(control):
            found[user32.GetDlgCtrlID(control)] = control
        return True

    user32.EnumChildWindows(window, Found(take), 0)
    return found


line, answer = sys.argv[1:]
seen: list[str] = []
# What each window had at the last look, and when its button was pressed: each page has
# controls of its own, and its button is pressed when all of them are there. A second
# press may pass over the next page; but the first is lost if the button is taken away.
before: dict[int, dict[int, int]] = {}
pressed: dict[int, tuple[dict[int, int], float]] = {}
program = subprocess.Popen(line)
while program.poll() is None:
    for window in windows_of(program.pid):
        controls = controls_of(window)
        seen += [text_of(control) for control in (window, *controls.values())]
        wanted = ANSWERS[answer] if YES in controls else OK
        is_ready = wanted in controls and user32.IsWindowEnabled(controls[wanted])
        page, at = pressed.get(window, ({}, 0))
        is_new = controls != page or time.monotonic() > at + LOST_SECONDS
        if is_ready and is_new and controls == before.get(window):
            pressed[window] = controls, time.monotonic()
            user32.PostMessageW(controls[wanted], CLICK, 0, 0)
        before[window] = controls
    time.sleep(0.05)
shown = {"code": program.returncode, "seen": list(dict.fromkeys(filter(None, seen)))}
print(json.dumps(shown))  # noqa: T201
