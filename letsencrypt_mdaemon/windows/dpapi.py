"""Windows' own encryption for what only this machine may read: DPAPI."""

from __future__ import annotations

import sys

assert sys.platform == "win32"  # noqa: S101 - tells the type checker

import pywintypes  # noqa: E402 - Windows only
import win32crypt  # noqa: E402

# dpapi.h: whatever account runs the program, at a desk or not, has to read it.
UI_FORBIDDEN, LOCAL_MACHINE = 0x1, 0x4


class MachineSeal:
    """Encrypts for this machine, whatever the account: `state.Seal`."""

    def close(self, data: bytes) -> bytes:
        """Return it encrypted.

        Raises:
            OSError: If Windows refuses.
        """
        try:
            return win32crypt.CryptProtectData(
                data, "", None, None, None, UI_FORBIDDEN | LOCAL_MACHINE
            )
        except pywintypes.error as exc:
            raise OSError(None, exc.strerror, None, exc.winerror) from exc

    def open(self, data: bytes) -> bytes:
        """Return what `close` was given.

        Raises:
            ValueError: If it was encrypted elsewhere, or is damaged.
        """
        try:
            _, found = win32crypt.CryptUnprotectData(
                data, None, None, None, UI_FORBIDDEN
            )
        except pywintypes.error as exc:
            raise ValueError(f"it cannot be opened: {exc.strerror}") from exc
        return found
