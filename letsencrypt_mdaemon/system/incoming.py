"""What the other end of a connection sends, within limits of time and size."""

from __future__ import annotations

import io
import time
from http.client import HTTPException
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

    from typing_extensions import Buffer


class Incoming(io.RawIOBase):
    """What a connection sends until a deadline: at most so many bytes.

    A timeout of the socket alone begins anew with each byte: who sends a byte every few
    seconds is listened to for ever.

    Args:
        deadline: On the monotonic clock.
        most: Bytes in all, counted as they arrive.
    """

    def __init__(self, connection: socket.socket, deadline: float, most: float) -> None:
        self.most = most
        self._connection = connection
        # Holds the socket open, which `http.client` closes before it reads the last.
        self._stream = connection.makefile("rb", buffering=0)
        self._deadline = deadline
        self._received = 0

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return what `http.client` reads from."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """Return True, which `BufferedReader` requires."""
        return True

    def close(self) -> None:
        """Let go of the socket."""
        self._stream.close()
        super().close()

    def readinto(self, buffer: Buffer) -> int:
        """Read what has arrived.

        Raises:
            TimeoutError: The deadline has passed.
            HTTPException: The answer is too long.
        """
        before = self._connection.gettimeout()
        self._connection.settimeout(seconds_left(self._deadline))
        try:
            count = self._stream.readinto(buffer) or 0
        finally:
            self._connection.settimeout(before)
        self._received += count
        if self._received > self.most:
            raise HTTPException(f"more than {self.most / 1024:.0f} KB")
        return count


def seconds_left(deadline: float) -> float:
    """Return the seconds left until a deadline, of which there must be some."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left
