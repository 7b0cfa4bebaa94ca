"""Real shells complete our command line, with the lines that the page gives."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pexpect
import pytest

from tests import debian_archive
from tests.limits import HANG_SECONDS

PAGE = Path(__file__).parents[2] / "docs" / "usage.md"
PROGRAM = "letsencrypt-mdaemon"
# Completes as the program does; else it shows how it was called.
WRAPPER = f"""#!/bin/sh
test -n "$_LETSENCRYPT_MDAEMON_COMPLETE" || {{ echo "called: $*."; exit; }}
exec '{sys.executable}' -m letsencrypt_mdaemon "$@"
"""
# Unpacked, zsh does not find its own parts, and asks whether to trust what others own.
ZSH = """\
module_path=({tree}/usr/lib/*-linux-gnu/zsh/*([1]))
fpath=({tree}/usr/share/zsh/functions/**/*(/))
autoload -Uz compinit
compinit -u -D
"""


def line(shell: str) -> str:
    """Return the line that the page gives for a shell."""
    found: str
    (found,) = re.findall(
        rf"^\| {shell}[^|]* \|[^|]* \| `(.+)` \|$",
        PAGE.read_text("utf-8"),
        re.MULTILINE,
    )
    return found.replace(r"\|", "|")


def unpacked(request: pytest.FixtureRequest, shell: str) -> Path:
    """Return where a shell of Debian's is, with all that it needs."""
    cache = request.config.cache
    assert cache is not None
    tree = cache.mkdir("debian") / shell
    if not (tree / "usr/bin" / shell).exists() and not (tree / "bin" / shell).exists():
        shutil.rmtree(tree, ignore_errors=True)
        debian_archive.unpack(shell, into=tree)
    return tree


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("typed", "called"),
    [
        ("ren\t-h", "renew -h"),
        ("renew --no-a\t", "renew --no-activate"),
        ("renew --on-name-failure d\t", "renew --on-name-failure drop"),
    ],
)
def test_tab_completes(
    shell: str,
    typed: str,
    called: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    tree = unpacked(request, shell)
    wrapper = tmp_path / "bin" / PROGRAM
    wrapper.parent.mkdir()
    wrapper.write_text(WRAPPER)
    wrapper.chmod(0o755)
    files = {
        "bash": (".bashrc", ""),
        "zsh": (".zshrc", ZSH.format(tree=tree)),
        "fish": (".config/fish/config.fish", ""),
    }
    name, before = files[shell]
    start = tmp_path / name
    start.parent.mkdir(parents=True, exist_ok=True)
    start.write_text(f"{before}{line(shell)}\necho ready\n")
    folders = [str(tmp_path / "bin"), f"{tree}/usr/bin", f"{tree}/bin"]
    libraries = [str(path) for path in tree.glob("*/lib/*-linux-gnu")]
    child = pexpect.spawn(
        next(path for each in folders if (path := shutil.which(shell, path=each))),
        ["-i"],
        env={
            **{k: v for k, v in os.environ.items() if k in {"PYTHONPATH", "LANG"}},
            "HOME": str(tmp_path),
            "PATH": ":".join([*folders, "/usr/bin", "/bin"]),
            "LD_LIBRARY_PATH": ":".join(libraries),
            "TERM": "xterm",
        },
        encoding="utf-8",
        timeout=HANG_SECONDS,
        dimensions=(24, 200),
    )
    try:
        child.expect_exact("ready")
        child.send(f"{PROGRAM} {typed}\r")
        child.expect_exact("called: ")
        child.expect_exact(".\r\n")
        assert child.before == called
    finally:
        child.close(force=True)
