"""What the pages say of the program's parts is what the program has."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from letsencrypt_mdaemon.errors import Error
from letsencrypt_mdaemon.mdaemon import webroot
from tests import program
from tests.limits import HANG_SECONDS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
DRAWN = [DOCS / "pictures" / name for name in ("house.svg", "run.svg")]
ELSEWHERE = (
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/README.md"),
    *("benchmarks/README.md", "examples/ansible/README.md"),
)
SVG = "{http://www.w3.org/2000/svg}"


def blocks(page: str, language: str) -> list[str]:
    """Return the code that a page shows in a language."""
    text = (DOCS / page).read_text("utf-8")
    return re.findall(rf"(?s)```{language}\n(.*?)```", text)


def drawing(name: str) -> ET.Element:
    return ET.parse(DOCS / "pictures" / name).getroot()  # noqa: S314 - our own file


def floors() -> list[list[str]]:
    """Return the rooms of each floor of the picture, the highest floor first."""
    found = []
    for group in drawing("house.svg").iterfind(f"{SVG}g"):
        names = [x.text or "" for x in group.iterfind(f"{SVG}text[@class='name']")]
        found.append(sorted(names))
    return found


@pytest.mark.parametrize("file", DRAWN, ids=lambda file: file.name)
def test_a_picture_describes_itself_and_needs_nothing_from_elsewhere(
    file: Path,
) -> None:
    text = file.read_text("utf-8")
    root = ET.fromstring(text)  # noqa: S314 - our own file

    for part in ("title", "desc"):
        element = root.find(f"{SVG}{part}")
        assert element is not None
        assert element.text
        assert element.get("id") in (root.get("aria-labelledby") or "").split()
    assert root.find(f".//{SVG}script") is None
    assert "href" not in text
    assert "@import" not in text
    assert re.findall(r"https?:", text) == ["http:"]  # the name of the format
    assert "prefers-color-scheme: dark" in text


def test_the_pages_give_every_picture_a_text() -> None:
    shown: dict[str, str] = {}
    for page in DOCS.glob("*.md"):
        text = page.read_text("utf-8")
        shown |= {file: alt for alt, file in re.findall(r"!\[(.*)\]\((.+?)\)", text)}

    for file in DRAWN:
        assert shown[f"pictures/{file.name}"], file


def test_the_picture_of_the_house_is_the_import_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contract = project["tool"]["importlinter"]["contracts"][0]
    wanted = [sorted(layer.split(" | ")) for layer in contract["layers"]]
    # One floor on the picture, on which errors is the lowest.
    *upper, values, errors = wanted
    ground = sorted(set(values + errors) - {"_version"})

    assert floors() == [*upper, ground]


def test_the_picture_of_the_run_shows_only_exit_codes_that_there_are() -> None:
    ends = {"good": {0}, "bad": {kind.exit_code for kind in kinds(Error)}}
    for group in drawing("run.svg").iterfind(f"{SVG}g"):
        words = [x.text or "" for x in group.iterfind(f"{SVG}text")][2:]
        looks = [x.get("class") or "" for x in group.iterfind(f"{SVG}rect")][1:]
        assert len(words) == len(looks)
        for word, look in zip(words, looks, strict=True):
            assert int(word.split()[0]) in ends[look], word


def kinds(base: type[Error]) -> list[type[Error]]:
    """Return an error and every kind of it."""
    return [base, *(x for kind in base.__subclasses__() for x in kinds(kind))]


def test_the_page_about_json_lists_every_schema_with_its_title() -> None:
    rows = dict(
        re.findall(
            r"(?m)^\| \[([a-z-]+)\.json\]\(schemas/\1\.json\) \| (.*) \|$",
            (DOCS / "json.md").read_text("utf-8"),
        )
    )
    schemas = {
        file.stem: json.loads(file.read_text("utf-8"))["title"]
        for file in (DOCS / "schemas").glob("*.json")
        if file.stem != "common"
    }

    assert rows == schemas


def follow(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the page's example with a command of ours."""
    (code,) = blocks("json.md", "python")
    shown = '["letsencrypt-mdaemon", "status", "--json"]'
    assert shown in code
    return subprocess.run(
        [sys.executable, "-c", code.replace(shown, repr(command))],
        capture_output=True,
        encoding="utf-8",
        env=program.environment(),
        timeout=HANG_SECONDS,
        check=False,
    )


def test_the_example_for_json_shows_the_server(tmp_path: Path) -> None:
    with program.beside_sandbox(tmp_path / "MDaemon") as ours:
        status = ours.run("status").report
        done = follow(ours.command("status"))

    assert done.returncode == 0, done.stderr
    name, days, _ = done.stdout.split(maxsplit=2)
    assert name == program.HOST_NAME
    assert float(days) == pytest.approx(status["days_left"], abs=1)


def test_the_example_for_json_ends_with_the_error(tmp_path: Path) -> None:
    words = ["status", "--mdaemon-dir", str(tmp_path), "--json"]
    done = follow([sys.executable, "-m", "letsencrypt_mdaemon", *words])

    assert done.returncode == 1
    assert str(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr


def test_the_web_config_to_copy_is_the_one_that_the_program_writes() -> None:
    static, rewrite = blocks("port-80.md", "xml")

    assert static.encode() == webroot._WEB_CONFIG  # noqa: SLF001 - the same bytes
    rule = ET.fromstring(rewrite).find(".//match")  # noqa: S314 - our own page
    assert rule is not None
    # IIS matches the path without its first slash.
    assert re.search(rule.get("url", ""), ".well-known/acme-challenge/token")


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_page_that_is_not_on_the_site_links_to_files_that_exist(name: str) -> None:
    """Sphinx checks those of the site, and with them README.md."""
    text = (ROOT / name).read_text("utf-8")
    links = re.findall(r"\]\(([^()#:\s]+)(?:#[^()]*)?\)", text)

    assert [x for x in links if not (ROOT / name).parent.joinpath(x).exists()] == []
