"""The LetsEncrypt.ps1 that runs this program: whose it is, and what its text says.

No PowerShell runs here. A parser reads the script; `cli.legacy` knows the parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tree_sitter_powershell
from hypothesis import given
from hypothesis import strategies as st
from tree_sitter import Language, Node, Parser

from letsencrypt_mdaemon.cli import legacy
from letsencrypt_mdaemon.system import drop_in
from letsencrypt_mdaemon.system.schedule import NAME
from letsencrypt_mdaemon.system.tasks import TaskScheduler, task
from tests.schedulers import Schtasks

PROGRAM = r"C:\Program Files\letsencrypt-mdaemon\letsencrypt-mdaemon.exe"
COMMAND = [PROGRAM, "--config", r"C:\MDaemon\LetsEncrypt\x.ini", "renew"]
SYSTEM = "S-1-5-18"
PATHS = st.text(
    st.sampled_from(
        "'\u2018\u2019\u201a\u201b\"`$()[]{};,#&|%@\\ \t\r\nAz09-\u00fc\U0001f512\ud800"
    ),
    max_size=30,
) | st.text(max_size=30)


def parse(data: bytes) -> Node:
    """Return the script's tree, without an error in it."""
    root = Parser(Language(tree_sitter_powershell.language())).parse(data).root_node
    assert not root.has_error, root
    return root


def nodes(node: Node, kind: str) -> Iterator[Node]:
    """Yield the nodes of a kind below a node, in order."""
    if node.type == kind:
        yield node
    for child in node.children:
        yield from nodes(child, kind)


def text_of(node: Node) -> str:
    """Return a node's source."""
    assert node.text is not None
    return node.text.decode()


def leaves(node: Node) -> Iterator[str]:
    """Yield the kinds of the nodes that have nothing below them."""
    if not node.children:
        yield node.type
    for child in node.children:
        yield from leaves(child)


def value(expression: str) -> str:
    """Evaluate an expression of texts in single quotes and `[char]`."""
    units: list[int] = []
    for text, number in re.findall(
        r"'((?:[^']|'')*)'|\[char\]0x([0-9A-F]{4})", expression
    ):
        shown = text.replace("''", "'")
        units += [int(number, 16)] if number else map(ord, shown)
    data = b"".join(unit.to_bytes(2, "little") for unit in units)
    return data.decode("utf-16-le", "surrogatepass")


def test_the_script_parses_and_has_the_parameters_of_the_old_one() -> None:
    root = parse(legacy.script(COMMAND))
    (block,) = nodes(root, "param_block")
    given_names = {
        text_of(next(nodes(row, "variable"))).removeprefix("$"): "[switch]"
        in text_of(row)
        for row in nodes(block, "script_parameter")
    }
    assert given_names == {
        name: legacy.MAX_VALUES.get(name) == 0 for name in legacy.PARAMETERS
    }
    # With it, PowerShell would refuse parameters of later versions, and add its own.
    assert b"CmdletBinding" not in legacy.script(COMMAND)


def test_each_parameter_becomes_the_option_that_the_command_line_gives_it() -> None:
    text = legacy.script(COMMAND).decode()
    found = {name: option for option, name in re.findall(r"'(--\S+)' = \$(\w+)", text)}
    found |= dict(re.findall(r"if \(\$(\w+)\) \{ \$words \+= '(--\S+)' \}", text))
    assert found == legacy.PARAMETERS


def test_the_script_is_ascii_with_the_line_ends_of_windows_and_a_mark() -> None:
    data = legacy.script(["C:\\Pr\u00fcf\\p.exe", "renew"])
    lines = data.decode("ascii").split("\r\n")
    assert not any("\n" in line or "\r" in line for line in lines)
    assert lines[0] == drop_in.MARK
    assert lines[-1] == ""
    assert len(lines) < 60


def test_the_script_ends_with_the_exit_code_of_the_program() -> None:
    *_, code, call, end, _ = legacy.script(COMMAND).decode().split("\r\n")
    assert code == "$global:LASTEXITCODE = 1"
    assert call == "& $program $words"
    assert end == "exit $LASTEXITCODE"


def test_a_value_that_powershell_would_hand_over_as_another_is_refused() -> None:
    text = legacy.script(COMMAND).decode()
    (pattern,) = re.findall(r"-match '(.*)'\)", text)
    for bad in ('My "Site"', "Site\\"):
        assert re.search(pattern, bad)
    for good in ("a,b", "My Site", "o'neil@example.com", r"a\b"):
        assert not re.search(pattern, good)


def test_what_the_program_runs_stands_in_the_script() -> None:
    text = legacy.script(COMMAND).decode()
    (program,) = re.findall(r"\$program = (.*)\r", text)
    (words,) = re.findall(r"(?s)\$words = @\((.*?)\r\n\)", text)
    assert value(program) == PROGRAM
    assert [value(line) for line in words.split(",\r\n")] == COMMAND[1:]


@given(PATHS)
def test_no_path_breaks_out_of_its_quotes(path: str) -> None:
    expression = drop_in.literal(path)
    assert expression.isascii()
    assert "\n" not in expression
    assert "\r" not in expression
    assert value(expression) == path
    root = parse(f"$program = {expression}\r\n".encode())
    assert set(leaves(root)) <= {
        *("$", "variable", "=", "(", ")", "+", "[", "]", "type_identifier"),
        *("verbatim_string_characters", "hexadecimal_integer_literal"),
        "assignement_operator",
    }, root


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    r"""A folder in which files have names such as C:\x\y, also where that is a name."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scheduler(*commands: list[str]) -> TaskScheduler:
    """Return a Task Scheduler with a task for each command."""
    fake = Schtasks()
    for number, command in enumerate(commands):
        xml = task(command, 1, 1, SYSTEM).decode("utf-16")
        xml = xml.replace(f"<Source>{NAME}</Source>", "")
        fake.tasks[f"T{number}"] = re.sub(r"\A<\?xml.*?\?>\s*", "", xml)
    return TaskScheduler(Path("schtasks.exe"), fake, account=SYSTEM)


def at(folder: Path, name: str) -> tuple[str, Path]:
    """Return a file's path as a task has it, and the file itself."""
    path = rf"C:\MDaemon\LetsEncrypt\{name}"
    return (
        (path, folder / path)
        if Path("/").is_absolute()
        else (str(folder / name), folder / name)
    )


@pytest.mark.parametrize(
    "words",
    [
        ["-File", "{}"],
        ["-NoProfile", "-ExecutionPolicy", "Bypass", "{}", "-To", "x@example.test"],
        ["-Command", "& '{}' -AlternateHostNames a,b"],
    ],
)
def test_a_task_that_runs_our_script_is_one_of_this_program(
    folder: Path, words: list[str]
) -> None:
    named, file = at(folder, drop_in.NAME)
    command = ["powershell.exe", *(word.format(named) for word in words)]
    found = scheduler(command, [PROGRAM, "renew"])

    file.write_bytes(b"# the vendor's\r\n")
    assert found.rivals() == ["\\T0"]
    assert list(found.old_names()) == ["\\T0"]
    assert found.twins() == []

    file.write_bytes(legacy.script(COMMAND))
    assert found.rivals() == []
    assert found.old_names() == {}
    assert found.twins() == ["\\T1", "\\T0"]


def test_a_task_that_runs_another_script_as_well_stays_one_of_the_old_script(
    folder: Path,
) -> None:
    named, file = at(folder, drop_in.NAME)
    file.write_bytes(legacy.script(COMMAND))
    other, _ = at(folder, "copy of LetsEncrypt.ps1")
    found = scheduler(["powershell.exe", "-Command", f"& '{named}'; & '{other}'"])
    assert found.rivals() == ["\\T0"]


@pytest.mark.parametrize(
    ("content", "is_ours"),
    [
        ('"C:\\Windows\\powershell.exe" %~dp0LetsEncrypt.ps1 -To x@y.test', True),
        ("powershell.exe -File LetsEncrypt.ps1\r\n", True),
        (f'@echo off\r\nrem LetsEncrypt.ps1\r\n"{PROGRAM}" -To x@y.test\r\n', True),
        (
            "rem letsencrypt-mdaemon\r\npowershell -File D:\\x\\LetsEncrypt.ps1\r\n",
            False,
        ),
        ("rem letsencrypt-mdaemon\r\nother.exe\r\n", False),
        ("", False),
    ],
)
def test_a_batch_file_counts_by_the_script_or_program_that_it_runs(
    folder: Path, content: str, *, is_ours: bool
) -> None:
    named, file = at(folder, "scheduled-renew.cmd")
    file.write_text(content)
    # Where a backslash is no separator, the batch file's folder is the working one.
    (file.parent / drop_in.NAME).write_bytes(legacy.script(COMMAND))
    found = scheduler([named])
    assert found.rivals() == ([] if is_ours else ["\\T0"])


def test_the_example_of_a_batch_file_is_one_of_this_program(folder: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "scheduled-renew.cmd"
    named, file = at(folder, example.name)
    file.write_bytes(example.read_bytes())
    assert scheduler([named]).rivals() == []


def test_a_script_in_the_task_s_own_folder_is_found_there(folder: Path) -> None:
    file = folder / drop_in.NAME
    definition = (
        f"<Task><Exec><Command>powershell</Command><Arguments>.\\{drop_in.NAME} -To x"
        f"</Arguments><WorkingDirectory>{folder}</WorkingDirectory></Exec></Task>"
    )
    assert not drop_in.is_run_by(definition)
    file.write_bytes(legacy.script(COMMAND))
    assert drop_in.is_run_by(definition)


def test_a_file_that_cannot_be_read_is_not_ours(tmp_path: Path) -> None:
    assert not drop_in.is_ours(tmp_path)
    assert not drop_in.is_ours(tmp_path / "missing")
    large = tmp_path / "large"
    large.write_bytes(legacy.script(COMMAND) + b" " * drop_in.MAX_BYTES)
    assert not drop_in.is_ours(large)
