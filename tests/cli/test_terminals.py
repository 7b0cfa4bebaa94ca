"""What commands print at terminals of any width, in colour or not, in old encodings."""

from __future__ import annotations

import sys

import pytest

from tests.limits import HANG_SECONDS
from tests.program import HOST_NAME, Program, environment

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no such terminal"
)

SHOWN = {
    "status": "valid until",
    "certificates list": "valid until",
    "check --no-ports": "days left",
    "setup --yes --no-schedule": "9 test mail",
    "renew": "Nothing due until",
    "renew --help": "Renew the certificate if it is due",
}


@pytest.fixture
def renewed(secure: Program) -> Program:
    """A server with a certificate of ours in use."""
    ran = secure.here("renew", "--to", "postmaster@example.test")
    assert ran.exit_code == 0, ran.messages
    return secure


@pytest.mark.parametrize(
    ("columns", "environ"),
    [
        (60, {"NO_COLOR": "1"}),
        (80, {"NO_COLOR": "1", "PYTHONIOENCODING": "cp437"}),
        (200, {"NO_COLOR": "1", "PYTHONIOENCODING": "utf-8", "PYTHONUTF8": "1"}),
        (80, {"TERM": "dumb"}),
    ],
)
def test_commands_print_whole_sentences_without_escapes(
    renewed: Program, columns: int, environ: dict[str, str]
) -> None:
    import pexpect  # noqa: PLC0415 - not on Windows

    for words, expected in SHOWN.items():
        name, dash, options = words.partition(" --")
        program, *rest = renewed.command(name, *f"{dash}{options}".split())
        rest.remove("--json")
        terminal = pexpect.spawn(
            program,
            rest,
            env={**environment(), **environ, "COLUMNS": str(columns)},
            dimensions=(24, columns),
            timeout=HANG_SECONDS,
        )
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert isinstance(terminal.before, bytes)
        output = terminal.before.decode("cp437" if columns == 80 else "utf-8")
        # 1 = check's warning: nothing is scheduled here.
        assert terminal.exitstatus in {0, 1}, output
        text = " ".join(output.split())
        assert expected in text
        assert "\x1b" not in output.replace("\x1b[K", "")
        assert "Traceback" not in output
        if "help" not in words:
            assert HOST_NAME in text or words == "renew"
        else:
            assert max(map(len, output.splitlines())) <= columns


@pytest.mark.parametrize("name", ["certificates list", "verify", "status"])
def test_lines_are_broken_at_the_width_of_the_terminal(
    renewed: Program, name: str
) -> None:
    import pexpect  # noqa: PLC0415 - not on Windows

    program, *rest = renewed.command(name)
    rest.remove("--json")
    terminal = pexpect.spawn(
        program,
        rest,
        env={**environment(), "NO_COLOR": "1"},
        encoding="utf-8",
        dimensions=(24, 80),
        timeout=HANG_SECONDS,
    )
    terminal.expect(pexpect.EOF)
    terminal.close()

    lines = str(terminal.before).splitlines()
    # A word such as a path stays whole; the others are beside it where there is room.
    assert [line for line in lines if len(line) > 80 and " " in line.strip()] == []
    piped = renewed.here(name, as_json=False).output
    assert max(map(len, piped.splitlines())) > 80 or name == "verify"


@pytest.mark.parametrize("words", ["setup --yes --no-schedule", "selftest"])
def test_the_progress_line_is_erased_before_a_result_is_printed(
    secure: Program, words: str
) -> None:
    import pexpect  # noqa: PLC0415 - not on Windows

    name, *options = words.split()
    program, *rest = secure.command(name, *options)
    rest.remove("--json")
    terminal = pexpect.spawn(
        program,
        rest,
        env=environment(),
        encoding="utf-8",
        dimensions=(24, 80),
        timeout=HANG_SECONDS,
    )
    terminal.expect(pexpect.EOF)
    terminal.close()
    output = str(terminal.before)

    assert "  ... testing " in output
    shown = [as_shown(line) for line in output.split("\r\n")]
    assert [line for line in shown if line.lstrip().startswith("...")] == []
    if name == "setup":
        steps = [line for line in shown if line[:2] in {f"{n} " for n in range(1, 10)}]
        assert len(steps) == 9


def as_shown(line: str) -> str:
    """Return what a terminal shows of a line: a carriage return starts it again."""
    shown = ""
    for part in line.split("\r"):
        shown = part + shown[len(part) :]
    return shown.rstrip()
