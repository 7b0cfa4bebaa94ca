"""Hooks that hang, fork, flood or never start: bounded, with all that they start."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.system import hook
from tests.limits import HANG_SECONDS, SOON_SECONDS, in_time

CHILD = """
import os, sys, time
from pathlib import Path
while True:
    Path(sys.argv[1]).write_text(str(time.monotonic()))
    time.sleep(0.02)
"""
"""Shows that it lives."""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Where the hook is; see `write`."""
    if sys.platform == "win32":
        return tmp_path / "hook.cmd"
    return tmp_path / "hook"


def write(program: Path, code: str) -> None:
    """Make a hook of Python code."""
    script = program.with_name("hook.py")
    script.write_text(code, "utf-8")
    if sys.platform == "win32":
        program.write_text(f'@"{sys.executable}" -I "{script}"\r\n')
    else:
        program.write_text(f"#!{sys.executable} -I\n{code}")
        program.chmod(0o700)


def run(
    program: Path, code: str, given: bytes = b"", timeout: float = HANG_SECONDS
) -> hook.Ended:
    """Run Python code as a hook."""
    write(program, code)
    environ = {**os.environ, "CERTIFICATE_THUMBPRINT": "AB"}
    return hook.run(program, environ=environ, given=given, timeout=timeout)


def test_its_code_and_the_end_of_both_streams_are_returned(program: Path) -> None:
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr)"

    ended = run(program, f"{code}\nsys.exit(7)")

    assert ended.code == 7
    assert ended.output.split() == ["out", "err"]


def test_it_gets_the_environment_and_the_input_and_its_own_folder(
    program: Path,
) -> None:
    code = """
import json, os, sys
print(os.environ["CERTIFICATE_THUMBPRINT"], json.load(sys.stdin)["a"], sys.argv[1:])
print(os.getcwd())
"""
    ended = run(program, code, json.dumps({"a": 5}).encode())

    first, second = ended.output.splitlines()
    assert first == "AB 5 []"
    assert Path(second).samefile(program.parent)


def test_who_reads_nothing_is_not_waited_for(program: Path) -> None:
    assert run(program, "pass", b"x" * 10_000_000).code == 0


def test_a_flood_is_read_and_only_its_end_is_kept(program: Path) -> None:
    code = """
import sys
block = b"x" * 65536
for _ in range(16384):
    sys.stdout.buffer.write(block)
print(" the end")
"""
    ended = run(program, code)

    assert ended.code == 0
    assert len(ended.output) <= hook.MAX_OUTPUT_BYTES
    assert ended.output.split()[-2:] == ["the", "end"]


def test_bytes_that_are_no_text_do_no_harm(program: Path) -> None:
    ended = run(program, "import sys; sys.stdout.buffer.write(b'a\\xff\\x00b')")

    assert (ended.output[0], ended.output[-1]) == ("a", "b")


def _beats(file: Path) -> bool:
    """Whether who writes into the file still lives."""
    before = file.read_text()

    def changed(seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if file.read_text() not in {before, ""}:
                return True
            time.sleep(0.02)
        return False

    return changed(SOON_SECONDS)


def family(file: Path, then: str) -> str:
    """Return a hook that starts a child, waits until that lives, and goes on."""
    return f"""
import subprocess, sys, time
from pathlib import Path
file = Path({str(file)!r})
subprocess.Popen([sys.executable, "-I", "-c", {CHILD!r}, str(file)])
while not file.exists():
    time.sleep(0.02)
print("started", flush=True)
{then}
"""


def test_one_that_hangs_is_ended_with_its_child(program: Path, tmp_path: Path) -> None:
    file = tmp_path / "beat"
    code = family(file, "time.sleep(3600)")

    def look(seconds: float) -> hook.Ended:
        return run(program, code, timeout=seconds)

    ended = in_time(look, lambda done: "started" in done.output)

    assert ended.code is None
    assert "started" in ended.output
    assert not _beats(file)


def test_what_a_hook_leaves_behind_is_ended_and_not_waited_for(
    program: Path, tmp_path: Path
) -> None:
    file = tmp_path / "beat"

    ended = run(program, family(file, "sys.exit(3)"))

    assert ended.code == 3
    assert not _beats(file)


@pytest.mark.skipif(sys.platform == "win32", reason="a job has no such way out")
def test_who_leaves_the_group_and_keeps_the_pipe_is_not_waited_for(
    program: Path, tmp_path: Path
) -> None:
    file = tmp_path / "beat"
    child = family(file, "sys.exit(0)").replace(
        "str(file)])", "str(file)], start_new_session=True)"
    )

    ended = run(program, child)

    assert ended.code == 0
    assert _beats(file)
    file.unlink()
    file.mkdir()  # ends it: it cannot write any more


def test_one_that_is_missing_or_no_program_cannot_be_run(program: Path) -> None:
    with pytest.raises(DeployError, match=r"Could not run .*hook"):
        hook.run(program, environ={}, given=b"", timeout=HANG_SECONDS)
    if sys.platform != "win32":
        program.write_text("no program")
        with pytest.raises(DeployError, match=r"Could not run .*hook"):
            hook.run(program, environ={}, given=b"", timeout=HANG_SECONDS)
