"""Run a program of the administrator's, bounded in time and output with all it starts.

No shell, no arguments. On POSIX it is the leader of a process group of its own, and on
Windows it and its descendants are in a job: when it ends, or its time is over, whatever
is left of them is ended.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.system.disk import explained

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

if sys.platform == "win32":
    import ctypes

    import win32job
else:
    import signal

MAX_OUTPUT_BYTES = 8 << 10
"""The end of the output that is kept; the rest is read and dropped."""

LAST_BYTES_SECONDS = 1.0
"""For what is still in the pipe; who left the group may hold it open for ever."""

_CREATE_SUSPENDED = 4  # winbase.h


class Ended(NamedTuple):
    """How a program ended.

    Args:
        code: Its exit code; None if its time was over.
        output: The end of what it wrote to both streams.
    """

    code: int | None
    output: str
    seconds: float


def run(
    program: Path, *, environ: Mapping[str, str], given: bytes, timeout: float
) -> Ended:
    """Run a program in its folder, and wait until it ends or its time is over.

    Args:
        environ: All of its environment.
        given: What it reads from its standard input, if it does.
        timeout: Seconds until it is ended, with everything that it started.

    Raises:
        DeployError: If it cannot be started.
    """
    began = time.monotonic()
    hint = "Check that it is a program, and that this account may run it."
    ours, its = os.pipe()
    try:
        with explained(f"run {program}", failure=DeployError, hint=hint):
            group = _Group(program, environ, its)
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(its)
    output = bytearray()
    reader = threading.Thread(target=_keep_end, args=(ours, output), daemon=True)
    try:
        reader.start()
        feeder = threading.Thread(target=_feed, args=(group, given), daemon=True)
        feeder.start()
        code = group.wait(timeout)
    finally:
        group.end()
    reader.join(LAST_BYTES_SECONDS)
    text = bytes(output).decode("utf-8", "replace")
    return Ended(code, text, time.monotonic() - began)


def _keep_end(handle: int, output: bytearray) -> None:
    """Read until nobody can write any more; keep the end."""
    with suppress(OSError):
        while piece := os.read(handle, 1 << 16):
            output += piece
            del output[:-MAX_OUTPUT_BYTES]
    os.close(handle)


def _feed(group: _Group, given: bytes) -> None:
    """Write what it may read; it need not."""
    with suppress(OSError, ValueError), group.input as stream:
        stream.write(given)


class _Group:
    """A process and whatever it starts."""

    def __init__(self, program: Path, environ: Mapping[str, str], output: int) -> None:
        windows = sys.platform == "win32"
        # No window flashes up; and it must not start another before it is in the job.
        flags = getattr(subprocess, "CREATE_NO_WINDOW", 0) | _CREATE_SUSPENDED
        self._process = subprocess.Popen(
            [program],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            bufsize=0,
            cwd=program.parent,
            env=environ,
            creationflags=flags if windows else 0,
            start_new_session=not windows,
        )
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self.input = self._process.stdin
        if sys.platform == "win32":
            self._job = _job_of(self._process)

    def wait(self, timeout: float) -> int | None:
        """Return its exit code; None if it does not end in time."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """End whatever is left of the group."""
        if sys.platform == "win32":
            win32job.TerminateJobObject(self._job, 1)
        else:
            # The number is that of the group while anything is left of it.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


if sys.platform == "win32":

    def _job_of(process: subprocess.Popen[bytes]) -> Any:  # noqa: ANN401 - a handle
        """Put a suspended process into a new job, then let it run.

        Raises:
            OSError: If Windows refuses; the process is ended.
        """
        handle = int(vars(process)["_handle"])
        try:
            # Its stub returns nothing.
            job: Any = vars(win32job)["CreateJobObject"](None, "")
            kind = win32job.JobObjectExtendedLimitInformation
            limits = win32job.QueryInformationJobObject(job, kind)
            # If this process dies, so does the job.
            flag = win32job.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
            limits["BasicLimitInformation"]["LimitFlags"] |= flag
            win32job.SetInformationJobObject(job, kind, limits)
            win32job.AssignProcessToJobObject(job, handle)
        except win32job.error as exc:
            process.kill()
            raise OSError(None, exc.strerror, None, exc.winerror) from exc
        ctypes.windll.ntdll.NtResumeProcess(ctypes.c_void_p(handle))
        return job
