"""Standard streams that are closed, or were never there, are no failure of a run."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TextIO

    from typing_extensions import Buffer

NOBODY_READS = {errno.EPIPE, errno.EBADF, errno.EINVAL, errno.EIO, errno.ESHUTDOWN}
"""What writing to a pipe or a terminal that is gone fails with; on Windows EINVAL."""


class _Raw(io.RawIOBase):
    """A stream that loses what can no longer be written.

    Attributes:
        failure: Why, if somebody waits for it: a file on a full disk.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        self.failure: OSError | None = None
        self._raw = raw
        self._is_gone = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()

    def write(self, data: Buffer) -> int | None:
        """Write some bytes, or forget them."""
        if not self._is_gone:
            try:
                return self._raw.write(data)
            except OSError as exc:
                self._is_gone = True
                if exc.errno not in NOBODY_READS:
                    self.failure = exc
        return memoryview(data).nbytes


def prepare() -> None:
    """Let the standard streams fail no write, and print every character."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            # Else the next file that is opened would get the number of the stream, and
            # what others write there.
            null = open(os.devnull, mode, encoding="utf-8")  # noqa: PTH123, SIM115 - light
            setattr(sys, name, null)
        elif mode == "w":
            buffer: Any = stream.buffer
            raw = _Raw(getattr(buffer, "raw", buffer))
            # A redirected console on Windows can print some 250 characters only.
            made = io.TextIOWrapper(
                io.BufferedWriter(raw),
                encoding=stream.encoding,
                errors="backslashreplace",
                line_buffering=bool(stream.line_buffering),
            )
            setattr(sys, name, made)


def failure() -> OSError | None:
    """Return why stdout is incomplete; None if it is not, or if nobody reads it."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _Raw) else None
