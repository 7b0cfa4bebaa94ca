"""Completion in PowerShell: no PowerShell runs here; a parser reads the script."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import tree_sitter_powershell
from tree_sitter import Language, Parser

from tests.limits import HANG_SECONDS
from tests.program import environment


def answer(instruction: str, words: str = "") -> str:
    """Return what the program prints for a shell."""
    asked = {"_LETSENCRYPT_MDAEMON_COMPLETE": instruction, "COMP_WORDS": words}
    return subprocess.run(
        [sys.executable, "-m", "letsencrypt_mdaemon"],
        env={**environment(), **asked},
        capture_output=True,
        encoding="utf-8",
        timeout=HANG_SECONDS,
        check=True,
    ).stdout


def test_the_script_is_powershell_and_asks_this_program() -> None:
    script = answer("powershell_source")

    tree = Parser(Language(tree_sitter_powershell.language())).parse(script.encode())
    assert not tree.root_node.has_error
    assert "-CommandName letsencrypt-mdaemon " in script
    asked = re.findall(r"\$env:(\w+) = '(\w+)'", script)
    assert asked == [("_LETSENCRYPT_MDAEMON_COMPLETE", "powershell_complete")]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("ren", ["renew"]),
        ("renew\n--no-", ["--no-activate", "--no-reload"]),
        ("renew\n--on-name-failure\n", ["fail", "drop"]),
        ("schedule\nre", ["remove"]),
        # PowerShell completes paths if it gets nothing.
        ("renew\n--config\n", []),
        ("renew\n--webroot\nC:\\Program Files\\M", []),
    ],
)
def test_each_line_is_a_completion_and_its_help(words: str, offered: list[str]) -> None:
    lines = answer("powershell_complete", f"letsencrypt-mdaemon\n{words}").splitlines()

    # Nothing is an empty line, which the script leaves out.
    rows = [line.split("\t") for line in lines if line]
    assert [text for text, _ in rows] == offered
    assert all(help_ for _, help_ in rows)
