"""Every code has its entry in the pages about failures; what they quote is printed."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import click
import pytest
from acme.messages import ERROR_CODES

from letsencrypt_mdaemon import errors
from letsencrypt_mdaemon.acme import problem
from letsencrypt_mdaemon.app.health import Grade
from letsencrypt_mdaemon.cli.main import cli
from letsencrypt_mdaemon.config import load
from letsencrypt_mdaemon.doctor import findings
from letsencrypt_mdaemon.pki.chain import Ending
from letsencrypt_mdaemon.policy import troubles
from letsencrypt_mdaemon.renewal import spare
from letsencrypt_mdaemon.verify import verdict
from letsencrypt_mdaemon.verify.served import Answer
from tests import schemas

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = ("troubles", "doctor-codes")
PARTS = ("You see", "Why", "Do")

SHORT = 4
"""Letters of a quotation that say nothing, such as "OK - "."""


class Entry(NamedTuple):
    """What a page says of a code or a message.

    Args:
        title: Without the marks of code.
        parts: The texts by their names; see `PARTS`.
    """

    section: str
    title: str
    is_code: bool
    parts: list[tuple[str, str]]


def anchor(title: str) -> str:
    """Return the end of the URL of a heading, as code hosts and the site make it."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


@cache
def entries(page: str) -> list[Entry]:
    found = []
    text = (DOCS / f"{page}.md").read_text("utf-8")
    for section in re.split(r"(?m)^## ", text)[1:]:
        name, *rest = re.split(r"(?m)^### ", section)
        for entry in rest:
            title, _, body = entry.partition("\n")
            parts = re.findall(r"(?ms)^- \*\*([^*]+):\*\*\s*(.*?)(?=^- |\Z)", body)
            found.append(
                Entry(
                    name.partition("\n")[0].strip(),
                    title.replace("`", ""),
                    title.startswith("`") and title.endswith("`"),
                    [(part, " ".join(said.split())) for part, said in parts],
                )
            )
    return found


def titles(section: str, *, codes: bool = True) -> Counter[str]:
    found = [x for x in entries("troubles") if x.section == section]
    assert found, section
    return Counter(x.title for x in found if x.is_code or not codes)


def kinds(kind: type[errors.Error] = errors.Error) -> Iterator[type[errors.Error]]:
    """Yield a kind of error and those below it."""
    yield kind
    for below in kind.__subclasses__():
        yield from kinds(below)


def enum_of(schema: str, *path: str) -> set[str]:
    """Return what a schema of the JSON allows in a place."""
    found = json.loads((schemas.FOLDER / f"{schema}.json").read_text("utf-8"))
    for key in path:
        found = found[key]
    return set(cast("list[str]", found["enum"]))


def test_every_code_of_the_doctor_has_one_entry() -> None:
    codes = [*findings.Code, *troubles.Code]

    assert Counter(x.title for x in entries("doctor-codes") if x.is_code) == Counter(
        map(str, codes)
    )
    assert all(x.is_code for x in entries("doctor-codes"))


def test_every_exit_code_has_one_entry_with_the_kinds_of_errors_that_end_with_it() -> (
    None
):
    ends: dict[int, set[str]] = {0: set(), errors.ConfigError.exit_code: {"UsageError"}}
    for kind in kinds():
        ends.setdefault(kind.exit_code, set()).add(kind.__name__)
    text = (DOCS / "troubles.md").read_text("utf-8")
    said = {
        int(code): set(re.findall(r"`(\w*Error)`", body))
        for code, body in re.findall(r"(?ms)^### Exit code (\d)$(.*?)^- ", text)
    }

    assert titles("Exit codes", codes=False) == Counter(
        f"Exit code {code}" for code in ends
    )
    assert said == ends
    types = enum_of("common", "$defs", "error", "properties", "type")
    assert set().union(*ends.values()) == types


def test_every_state_of_check_has_one_entry() -> None:
    assert titles("check and report", codes=False) == Counter(
        f"check ends with {grade.value}: {grade.name}" for grade in Grade
    )


def test_every_kind_of_problem_that_the_program_knows_has_one_entry() -> None:
    handled = {*problem.HINT_BY_KIND, *problem._ABOUT_NAMES}  # noqa: SLF001 - its list

    found = titles("What the CA answers")

    assert handled <= found.keys() <= handled | ERROR_CODES.keys()
    assert set(found.values()) == {1}


def test_every_verdict_on_a_port_has_one_entry() -> None:
    rows = ("$defs", "proof", "oneOf")
    common = json.loads((schemas.FOLDER / "common.json").read_text("utf-8"))
    (proof,) = (x for x in common[rows[0]][rows[1]][rows[2]] if x["type"] == "object")
    port = proof["properties"]["ports"]["items"]["properties"]

    assert titles("Verdicts on ports") == Counter(port["verdict"]["enum"])


def test_every_word_of_verify_has_one_entry() -> None:
    codes = [x.name.lower() for x in (*Answer, *Ending)]
    flaws = [*verdict._FLAWS]  # noqa: SLF001 - its list

    assert titles("What verify finds") == Counter([*codes, *flaws])


def test_every_reason_for_a_hold_has_one_entry() -> None:
    common = json.loads((schemas.FOLDER / "common.json").read_text("utf-8"))
    (held,) = (x for x in common["$defs"]["hold"]["oneOf"] if x["type"] == "object")

    assert titles("Waiting and holding") == Counter(held["properties"]["by"]["enum"])


def test_every_reason_for_a_renewal_is_in_the_table_of_reasons() -> None:
    text = (DOCS / "troubles.md").read_text("utf-8")
    (table,) = re.findall(r"(?s)## Why a certificate is due\n(.*?)\n## ", text)
    files = [ROOT / f"letsencrypt_mdaemon/renewal/{x}.py" for x in ("due", "hold")]
    texts = [x for file in files for x in texts_of(ast.parse(file.read_text("utf-8")))]
    reasons = {x.partition("`")[0].strip() for x in texts if " " in x.strip()}

    assert "the certificate in use is self-signed" in reasons
    assert {x for x in reasons if x not in table} == set()
    causes = re.findall("(?m)^\\| `([^`]+)` \\|", table.partition("| cause |")[2])
    assert Counter(causes) == Counter([*spare.REMEDIES])


def enums(schema: object) -> Iterator[str]:
    """Yield the words of all lists of a schema."""
    if isinstance(schema, dict):
        yield from (x for x in schema.get("enum", ()) if isinstance(x, str))
    if isinstance(schema, dict | list):
        below = schema.values() if isinstance(schema, dict) else schema
        for each in below:
            yield from enums(each)


def test_every_word_that_the_json_chooses_from_a_list_is_explained() -> None:
    # The report is for the authors, who made the words.
    files = {*schemas.FOLDER.glob("*.json")} - {schemas.FOLDER / "selftest-report.json"}
    words = {x for file in files for x in enums(json.loads(file.read_text("utf-8")))}
    pages = (*PAGES, "notifications")
    text = "\n".join((DOCS / f"{page}.md").read_text("utf-8") for page in pages)
    explained = {*re.findall("`([^`\n]+)`", text)}

    assert words - explained == set()


@pytest.mark.parametrize("page", PAGES)
def test_every_entry_has_three_parts_and_an_anchor_of_its_own(page: str) -> None:
    found = entries(page)

    bad = {
        x.title: x.parts
        for x in found
        if tuple(part for part, _ in x.parts) != PARTS
        or not all(re.search(r"\w{3}", said) for _, said in x.parts)
    }
    assert bad == {}
    headings = [*(x.title for x in found), *{x.section for x in found}]
    anchors = Counter(map(anchor, headings))
    assert [each for each, number in anchors.items() if number > 1] == []


@cache
def printed() -> str:
    """Return all texts of the program, without what documents it."""
    return "\n".join(
        text
        for file in (ROOT / "letsencrypt_mdaemon").rglob("*.py")
        for text in texts_of(ast.parse(file.read_text("utf-8")))
    )


def texts_of(tree: ast.AST) -> Iterator[str]:
    docstrings = {id(x.value) for x in ast.walk(tree) if isinstance(x, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            yield str(node.value)


def is_printed(text: str) -> bool:
    """Whether the program has a text; it may put one together from two."""
    # `disk.explained` puts these words before what it is given.
    words = text.removeprefix("Could not ").split(" ")
    if len(re.findall("[A-Za-z]", text)) < SHORT:
        return True
    halves = [(" ".join(words[:n]), " ".join(words[n:])) for n in range(len(words))]
    return any(all(half in printed() for half in each) for each in halves)


def quoted(page: str) -> Iterator[tuple[str, str]]:
    """Yield the title of each entry with what it quotes, but for the placeholders."""
    said = [(entry.title, dict(entry.parts)["You see"]) for entry in entries(page)]
    text = (DOCS / f"{page}.md").read_text("utf-8")
    for table in re.findall(
        r"(?m)^\| (?:clause|reason|cause) \|.*\n\|-.*\n((?:\|.*\n)+)", text
    ):
        said += re.findall(r"(?m)^\| ((.*?)) \|", table)
    for title, words in said:
        for quotation in re.findall("`([^`]+)`", words):
            for piece in re.split("<[^<>]*>", quotation):
                yield title, piece.strip(" ():;,.")


@pytest.mark.parametrize("page", PAGES)
def test_what_the_pages_quote_is_what_the_program_says(page: str) -> None:
    pieces = list(quoted(page))

    assert len(pieces) > len(entries(page))
    assert [each for each in pieces if not is_printed(each[1])] == []


@pytest.mark.parametrize("page", PAGES)
def test_what_the_pages_advise_are_commands_and_settings(page: str) -> None:
    advice = " ".join(dict(entry.parts)["Do"] for entry in entries(page))
    wrong = []
    settings = {name for name, _ in load.settings()}
    known = {*settings, *cli.commands, *(x.title for x in entries("doctor-codes"))}
    for span in re.findall("`([^`]+)`", advice):
        name, equals, _ = span.partition(" = ")
        if name not in known and (equals or re.fullmatch("[a-z]+(-[a-z]+)+", name)):
            wrong.append(span)
        command: click.Command | None = cli
        words = span.split()
        while words and isinstance(command, click.Group):
            command = command.commands.get(words.pop(0))
        if command is None:
            continue
        context = cli.make_context("", ["status"], resilient_parsing=True)
        params = command.get_params(click.Context(command, parent=context))
        has = {option for x in params for option in x.opts}
        wrong += [f"{span}: {x}" for x in words if x[:2] == "--" and x not in has]

    assert wrong == []
