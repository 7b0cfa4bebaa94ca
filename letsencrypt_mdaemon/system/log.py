"""The log of a run: LetsEncrypt.log and its history, the console, the mail."""

from __future__ import annotations

import logging
import os
import re
import stat
import sys
import time
import traceback
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from letsencrypt_mdaemon.system.disk import make_private_folder
from letsencrypt_mdaemon.system.handles import PUBLIC, Folder

if TYPE_CHECKING:
    from collections.abc import Iterator

if sys.platform == "win32":
    import ctypes
    import msvcrt

FILE_NAME = "LetsEncrypt.log"
# Without a mark at its beginning, PowerShell 5.1 and old Notepads take a file for text
# in the code page of Windows.
ENCODING = "utf-8-sig" if sys.platform == "win32" else "utf-8"
_VIRTUAL_TERMINAL_PROCESSING = 0x4  # consoleapi.h
PACKAGE = "letsencrypt_mdaemon"
_EARLIER = re.compile(rf"{Path(FILE_NAME).stem}-\d{{8}}-\d{{6}}[b-j]?\.log")

_log = logging.getLogger(__name__)


class StampedLines(logging.Formatter):
    """Begins every line with the local time, also further lines of a message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines."""
        stamp = datetime.fromtimestamp(record.created).astimezone()
        level = "" if record.levelno == logging.INFO else f"{record.levelname}: "
        text = level + super().format(record)
        lines = text.splitlines() or [""]
        return "\n".join(f"{stamp:%Y-%m-%d %H:%M:%S} {line}" for line in lines)


class FileLog(logging.StreamHandler[TextIO]):
    """LetsEncrypt.log: each run starts a new one and keeps the earlier ones beside it.

    Name and place are those of the vendor's script. If the log cannot be written, the
    run continues with one warning.

    Args:
        keep: How many earlier logs stay.

    Raises:
        OSError: If the log cannot be started.
    """

    def __init__(self, folder: Path, *, now: datetime, keep: int) -> None:
        make_private_folder(folder, 0o755)
        self.path = folder / FILE_NAME
        with Folder(folder) as place:
            try:
                _keep_earlier(place, keep)
            except (OSError, ValueError, OverflowError) as exc:
                _log.warning("Could not keep the earlier logs in %s: %s", folder, exc)
            handle = _started(place)
        stream = os.fdopen(handle, "w", encoding=ENCODING, errors="backslashreplace")
        super().__init__(stream)
        self.setFormatter(StampedLines())
        self.addFilter(_is_no_progress)
        program = PACKAGE.replace("_", "-")
        try:
            stream.write(f"{now.astimezone():%Y-%m-%d %H:%M:%S %z} {program} started\n")
            stream.flush()
        except OSError:
            with suppress(OSError):  # closing tries to write once more
                stream.close()
            raise

    def emit_traceback(self, error: BaseException) -> None:
        """Write the traceback of an unexpected error."""
        text = "".join(traceback.format_exception(error))
        self.emit(logging.makeLogRecord({"msg": text, "levelno": logging.INFO}))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's
        """Stop logging to the file after a failed write, such as on a full disk."""
        logging.getLogger(PACKAGE).removeHandler(self)
        _log.warning(
            "Could not write %s; logging to it stopped: %s", self.path, sys.exception()
        )
        del record

    def close(self) -> None:
        """Close the file."""
        super().close()
        try:
            self.stream.close()
        except OSError as exc:
            _log.warning("%s is incomplete: %s", self.path, exc)


class Lines(logging.Handler):
    """The last lines of a run, for the mail."""

    def __init__(self, limit: int = 300) -> None:
        super().__init__()
        self.setFormatter(StampedLines())
        self.addFilter(_is_no_progress)
        self._records: deque[str] = deque(maxlen=limit)
        self.warnings: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record's text."""
        self._records.append(self.format(record))
        if record.levelno == logging.WARNING:
            self.warnings.append(record.getMessage())

    def __iter__(self) -> Iterator[str]:
        """Yield the lines, oldest first."""
        return iter("\n".join(self._records).splitlines())


class Console(logging.StreamHandler[TextIO]):
    """Messages on stderr; on a terminal in colour, with a progress line.

    Without colour if NO_COLOR is set in the environment (no-color.org), or where
    Windows' console would show the sequences as characters.

    Args:
        holds: Keep back what the printed result repeats, until it is clear whether one
            is printed: `extra={"result": True}`.
    """

    def __init__(self, stream: TextIO, *, holds: bool = False) -> None:
        super().__init__(stream)
        self._holds = holds
        self._held: list[logging.LogRecord] = []
        self._terminal = stream.isatty()
        self._colour = (
            self._terminal and not os.environ.get("NO_COLOR") and takes_colours(stream)
        )
        self._drawn = 0.0
        self._width = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record."""
        if self._holds and getattr(record, "result", False):
            self._held.append(record)
        elif _is_no_progress(record):
            self.clear()
            super().emit(record)
        elif self._terminal and time.monotonic() - self._drawn > 0.1:  # noqa: PLR2004
            self.clear()
            text = f"  ... {record.getMessage()}"[:78]
            self._draw(text)
            self._width = len(text)
            self._drawn = time.monotonic()

    def format(self, record: logging.LogRecord) -> str:
        """Return the text; warnings and errors begin with their level."""
        text = super().format(record)
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
            if self._colour:
                colour = "31" if record.levelno >= logging.ERROR else "33"
                text = f"\x1b[{colour}m{text}\x1b[0m"
        return text

    def settle(self, *, show: bool) -> None:
        """Show what was held back, or forget it."""
        held, self._held, self._holds = self._held, [], not show and self._holds
        for record in held if show else ():
            self.emit(record)

    def clear(self) -> None:
        """Erase the progress line."""
        if self._width:
            self._draw("\r" + " " * self._width + "\r")
            self._width = 0

    def _draw(self, text: str) -> None:
        with suppress(OSError, ValueError):  # a terminal may be closed
            self.stream.write(text)
            self.stream.flush()


def takes_colours(stream: TextIO) -> bool:
    """Let a terminal take sequences for colours; return whether it does.

    Windows' console does not by itself, and cmd.exe switches it off for each program.
    """
    if sys.platform == "win32":
        kernel = ctypes.WinDLL("kernel32")
        try:
            handle = ctypes.c_void_p(msvcrt.get_osfhandle(stream.fileno()))
        except (OSError, ValueError):
            return False
        mode = ctypes.c_ulong()
        if not kernel.GetConsoleMode(handle, ctypes.byref(mode)):
            return False  # it is no console, such as NUL
        wanted = ctypes.c_ulong(mode.value | _VIRTUAL_TERMINAL_PROCESSING)
        return bool(kernel.SetConsoleMode(handle, wanted))
    return True


def start(
    stream: TextIO | None, *, verbose: bool, holds: bool = False
) -> tuple[logging.Logger, Lines]:
    """Start to show and to collect the package's messages.

    Args:
        stream: Where they are shown; None = nowhere.
        holds: See `Console`.

    The root logger is left alone: it belongs to the importing program.
    """
    logger = logging.getLogger(PACKAGE)
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False
    lines = Lines()
    logger.addHandler(lines)
    if stream is not None:
        logger.addHandler(Console(stream, holds=holds and not verbose))
    return logger, lines


def erase_progress() -> None:
    """Erase the progress line, before something is printed to stdout."""
    for handler in logging.getLogger(PACKAGE).handlers:
        if isinstance(handler, Console):
            handler.clear()


def settle(*, show: bool) -> None:
    """Show what was held back for a result, or forget it: the result was printed."""
    for handler in logging.getLogger(PACKAGE).handlers:
        if isinstance(handler, Console):
            handler.settle(show=show)


def folder(given: Path | None, server: Path | None) -> Path | None:
    """Return the folder for the log.

    The given one; else the server's; else `logs` of the checkout that the program runs
    from; else none.
    """
    if given is not None or (server is not None and server.is_dir()):
        return given or server
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "setup.cfg").is_file() and (checkout / "logs").is_dir():
        return checkout / "logs"
    return server


def _is_no_progress(record: logging.LogRecord) -> bool:
    return not getattr(record, "progress", False)


def _keep_earlier(folder: Folder, keep: int) -> None:
    """Rename the last run's log to the time of its last line; remove the oldest."""
    there = {entry.name for entry in folder.path.iterdir()}
    if FILE_NAME in there and keep:
        status = folder.status(FILE_NAME)
        if stat.S_ISREG(status.st_mode):
            ended = datetime.fromtimestamp(status.st_mtime, UTC).astimezone()
            stem = f"{Path(FILE_NAME).stem}-{ended:%Y%m%d-%H%M%S}"
            names = [f"{stem}{letter}.log" for letter in ("", *"bcdefghij")]
            free = next((name for name in names if name not in there), names[-1])
            folder.rename(FILE_NAME, free)
            there.add(free)
    earlier = sorted(name for name in there if _EARLIER.fullmatch(name))
    for old in earlier[: max(len(earlier) - keep, 0)]:
        with suppress(FileNotFoundError):
            folder.remove(old)


def _started(folder: Folder) -> int:
    """Return the handle of a new log; what has its name is removed, never written."""
    with suppress(FileNotFoundError, PermissionError):
        folder.remove(FILE_NAME)
    try:
        return folder.open(FILE_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PUBLIC)
    except FileExistsError:  # on Windows, a program that shows it may keep it open
        handle = folder.open_single(FILE_NAME, os.O_WRONLY, ours=True)
        os.ftruncate(handle, 0)
        return handle
