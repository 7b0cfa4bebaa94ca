"""Completion in PowerShell; click itself knows bash, zsh and fish."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from click.shell_completion import ShellComplete, add_completion_class

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# Without an answer, PowerShell completes a path. A command element that ends before the
# cursor is a finished word.
_SOURCE = """\
Register-ArgumentCompleter -Native -CommandName %(prog_name)s -ScriptBlock {
    param($word, $line, $cursor)
    $before = $line.CommandElements | Where-Object { $_.Extent.EndOffset -lt $cursor }
    $words = @($before | ForEach-Object { $_.Extent.Text.Trim('"', "'") })
    try {
        $env:COMP_WORDS = (@($words) + "$word".Trim('"', "'")) -join "`n"
        $env:%(complete_var)s = 'powershell_complete'
        %(prog_name)s | Where-Object { $_ } | ForEach-Object {
            $text, $help = $_ -split "`t", 2
            [System.Management.Automation.CompletionResult]::new(
                $text, $text, 'ParameterValue', $help)
        }
    } finally {
        Remove-Item Env:%(complete_var)s
        Remove-Item Env:COMP_WORDS
    }
}
"""


@add_completion_class
class PowerShellComplete(ShellComplete):
    """Answers with one line for each completion: the text, a tab, and its help."""

    name = "powershell"
    source_template = _SOURCE

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one to complete, and that."""
        *before, incomplete = os.environ.get("COMP_WORDS", "").split("\n")
        return before[1:], incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """Return a line; an item without help has its text, as there must be some."""
        help_ = " ".join((item.help or item.value).split())
        return f"{item.value}\t{help_}"

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """Return the completions but for paths, which PowerShell completes."""
        found = super().get_completions(args, incomplete)
        return [item for item in found if item.type == "plain"]
