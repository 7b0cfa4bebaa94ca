"""Programs that do what they should, or not."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from letsencrypt_mdaemon.errors import DeployError, Error
from letsencrypt_mdaemon.system import process
from tests.limits import HANG_SECONDS

PYTHON = Path(sys.executable)


def python(text: str, *arguments: str, **options: object) -> process.Ended:
    return process.run(PYTHON, "-c", text, *arguments, **options)  # type: ignore[arg-type]


def test_its_exit_code_and_what_it_says_on_both_streams_are_returned() -> None:
    text = "import sys; print('out'); sys.stdout.flush(); print('err', file=sys.stderr)"
    ended = python(f"{text}; sys.exit(7)")
    assert ended.code == 7
    assert ended.output.split() == ["out", "err"]


def test_arguments_arrive_as_they_are_given() -> None:
    odd = ["two words", 'a "quoted" one', "back\\slash\\", "", "*", "%PATH%", "$HOME"]
    ended = python("import sys; print(ascii(sys.argv[1:]))", *odd)
    assert ended.output.strip() == ascii(odd)


def test_it_reads_what_it_is_given() -> None:
    ended = python("import sys; print(sys.stdin.read().upper())", given="some lines\n")
    assert ended.output.split() == ["SOME", "LINES"]


def test_it_gets_nothing_to_read_by_default() -> None:
    assert python("import sys; print(len(sys.stdin.read()))").output.strip() == "0"


def test_bytes_that_are_no_text_do_no_harm() -> None:
    ended = python("import sys; sys.stdout.buffer.write(b'a\\xff\\xfeb')")
    assert (ended.output[0], ended.output[-1]) == ("a", "b")


def test_one_that_does_not_end_is_ended_and_named() -> None:
    with pytest.raises(DeployError, match=r"did not end within 1 second") as caught:
        python("import time; time.sleep(300)", timeout=0.6, failure=DeployError)
    assert str(PYTHON) in caught.value.message


@pytest.mark.parametrize("ends", [True, False])
def test_a_program_that_it_leaves_behind_with_our_pipe_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, ends: bool
) -> None:
    monkeypatch.setattr(process, "LAST_WORDS_SECONDS", 0.1)
    stop = tmp_path / "stop"
    waits = f"import os, time\nwhile not os.path.exists({str(stop)!r}): time.sleep(.05)"
    starts = "import subprocess, sys, time; print('said', flush=True); "
    starts += f"subprocess.Popen([sys.executable, '-c', {waits!r}])"
    try:
        if ends:
            assert python(starts, timeout=HANG_SECONDS).output.split() == ["said"]
        else:
            with pytest.raises(Error, match="did not end within"):
                python(f"{starts}; time.sleep(300)", timeout=1)
    finally:
        stop.touch()


def test_more_than_a_pipe_holds_goes_both_ways() -> None:
    ended = python("import sys; print(sys.stdin.read())", given=f"{'x' * 99}\n" * 9999)
    assert len(ended.output) == 9999 * 100 + 1


def test_one_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Error, match=r"Could not run .*nothing\.exe"):
        process.run(tmp_path / "nothing.exe")


def test_the_log_tells_what_was_run(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "letsencrypt_mdaemon.system.process")
    python("print('said')")
    assert "Running" in caplog.text
    assert "ended with 0: said" in caplog.text
