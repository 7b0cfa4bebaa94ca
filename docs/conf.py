"""How Sphinx makes the site and the man page: "tox -e docs"."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from letsencrypt_mdaemon import __version__
from letsencrypt_mdaemon.cli.main import cli

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "letsencrypt-mdaemon"
author = "letsencrypt-mdaemon contributors"
project_copyright = author
release = version = __version__
# As they are typed: sphinx-click goes by the commands' own names, "account-show".
for _group in cli.commands.values():
    if isinstance(_group, click.Group):
        for _name, _command in _group.commands.items():
            _command.name = _name

CHECKOUT = Path(__file__).parents[1]
# The date of the release, for the man page: it changes with what it describes, and not
# from day to day.
_changes = (CHECKOUT / "CHANGELOG.md").read_text("utf-8")
_dated = re.search(rf"(?m)^## {re.escape(release)} \S (.+)$", _changes)
today = _dated[1] if _dated else "unreleased"

extensions = ["myst_parser", "sphinx_click"]
# The list of pages for who reads the folder; the site has index.md.
exclude_patterns = ["README.md"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False

man_pages = [
    (
        "commands",
        project,
        "keep the Let's Encrypt certificate of an MDaemon mail server up to date",
        author,
        1,
    )
]

# Files outside this folder that are included in a page, and that page.
PAGES = {
    "README.md": "docs/index.md",
    "packaging/windows/README.md": "docs/installing.md",
    "examples/ansible/README.md": "docs/ansible.md",
}


def _adapted(text: str, folder: str) -> str:
    """Let the links of a file in `folder` (of the checkout) lead to pages of the site.

    A link to a folder or page that is not on the site becomes its text.
    """

    def adapt(link: re.Match[str]) -> str:
        shown, target, anchor = link.groups(default="")
        if not target or ":" in target:
            return link[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        path = PAGES.get(path, path)
        elsewhere = path.endswith(".md") and not path.startswith("docs/")
        if elsewhere or (CHECKOUT / path).is_dir():
            return shown
        return f"[{shown}]({posixpath.relpath(path, 'docs')}{anchor})"

    return re.sub(r"\[([^][]*)\]\(([^()#]*)(#[^()]*)?\)", adapt, text)


def _page(_: Sphinx, name: str, source: list[str]) -> None:
    if name != "commands":
        source[0] = _adapted(source[0], "docs")


def _included(_: Sphinx, file: Path, __: str, source: list[str]) -> None:
    path = (CHECKOUT / "docs" / file).resolve()
    source[0] = _adapted(source[0], path.parent.relative_to(CHECKOUT).as_posix())


def _help(_: Sphinx, __: object, lines: list[str]) -> None:
    """Escape what help texts do not mean as markup: "*:443", and backslashes."""
    for number, line in enumerate(lines):
        escaped = re.sub(r"(?<!\*)\*(?!\*)", r"\\*", line.replace("\\", r"\\"))
        lines[number] = escaped.replace("**Required** ", "**Required.** ")


# What Furo's pages lack: the keyboard reaches what scrolls, a heading has a level, and
# each landmark has a name.
ADDED = {
    "<pre": ' tabindex="0"',
    '<div class="table-wrapper': ' tabindex="0"',
    '<p class="caption" role="heading"': ' aria-level="2"',
    '<aside class="sidebar-drawer"': ' aria-label="Site"',
    '<aside class="toc-drawer"': ' aria-label="Page"',
}


def _finish(app: Sphinx, failure: Exception | None) -> None:
    """Let everybody use the pages that were made."""
    if failure is not None or app.builder.format != "html":
        return
    for page in Path(app.outdir).glob("*.html"):
        text = page.read_text("utf-8")
        for element, attribute in ADDED.items():
            # Also what an earlier build made, which had them already.
            tag = rf"({element}[^<>]*?)(?:{attribute})?>"
            text = re.sub(tag, rf"\1{attribute}>", text)
        page.write_text(text, "utf-8")


def setup(app: Sphinx) -> None:
    """Connect what changes sources and pages."""
    app.connect("build-finished", _finish)
    app.connect("source-read", _page)
    app.connect("include-read", _included)
    app.connect("sphinx-click-process-options", _help)
