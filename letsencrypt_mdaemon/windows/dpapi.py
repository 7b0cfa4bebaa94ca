"""Encryption that only this machine can undo: Windows' DPAPI."""

from __future__ import annotations

import sys

assert sys.platform == "win32"  # noqa: S101 - tells the type checker

import pywintypes  # noqa: E402 - Windows only
import win32crypt  # noqa: E402

# dpapi.h: every account that runs the program has to read it, without a dialog.
UI_FORBIDDEN, LOCAL_MACHINE = 0x1, 0x4


class MachineSeal:
    """Encrypts for this machine, whatever the account: `state.folder.Seal`."""

    def close(self, data: bytes) -> bytes:
        """Return the data encrypted.

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
            ValueError: If another machine encrypted it, or it is damaged.
        """
        try:
            _, found = win32crypt.CryptUnprotectData(
                data, None, None, None, UI_FORBIDDEN
            )
        except pywintypes.error as exc:
            raise ValueError(f"it cannot be decrypted: {exc.strerror}") from exc
        return found
