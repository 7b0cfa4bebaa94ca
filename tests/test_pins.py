"""What is pinned is what setup.cfg and pyproject.toml ask for."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).parents[1]
CONSTRAINTS = CHECKOUT / "constraints.txt"
PACKAGING = CHECKOUT / "packaging" / "windows"
HASHED = {
    # What each is made from: extras of setup.cfg, groups of pyproject.toml.
    PACKAGING / "requirements.txt": (("", "demo"), ("freeze",)),
    PACKAGING / "audit.txt": ((), ("audit",)),
    CHECKOUT / "tests/windows/machine/requirements.txt": (("", "demo", "test"), ()),
}
WORKFLOWS = list((CHECKOUT / ".github" / "workflows").glob("*.yml"))
AGAIN = "Run: tox -e pins"
WINDOWS = {"sys_platform": "win32", "python_version": "3.11", "extra": ""}


def _asked(extras: Iterable[str], groups: Iterable[str]) -> list[Requirement]:
    """Return the requirements of setup.cfg ("" = all installations) and pyproject."""
    config = ConfigParser()
    config.read(CHECKOUT / "setup.cfg")
    rows = {"": config["options"]["install_requires"]}
    rows |= config["options.extras_require"]
    texts = [line for extra in extras for line in rows[extra].split("\n") if line]
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    texts += [text for name in groups for text in project["dependency-groups"][name]]
    return [Requirement(text) for text in texts]


def _pins(file: Path) -> dict[str, str]:
    rows = re.findall(r"^([\w.-]+)==([^ \n]+)", file.read_text(), re.MULTILINE)
    return dict(rows)


def _everything() -> list[Requirement]:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    return _asked(("", "apprise", "demo", "test"), project["dependency-groups"])


def _unmet(asked: Iterable[Requirement], pins: dict[str, str]) -> list[str]:
    return [
        f"{item}, pinned: {pins.get(canonicalize_name(item.name))}"
        for item in asked
        if not item.specifier.contains(
            pins.get(canonicalize_name(item.name), "0.dev0"), prereleases=True
        )
    ]


def test_every_requirement_is_pinned_to_a_version_that_it_allows() -> None:
    assert not _unmet(_everything(), _pins(CONSTRAINTS)), AGAIN


def test_nothing_is_pinned_that_nobody_asks_for_any_more() -> None:
    text = CONSTRAINTS.read_text()
    rows = re.findall(r"^([\w.-]+)==.*\n((?:    #.*\n)+)", text, re.MULTILINE)
    files = ("(setup.cfg)", "(pyproject.toml:")
    direct = {name for name, via in rows if any(file in via for file in files)}
    assert direct == {canonicalize_name(item.name) for item in _everything()}, AGAIN
    assert len(rows) == len(_pins(CONSTRAINTS))


def test_constraints_have_no_hashes_as_pip_refuses_them_for_a_folder() -> None:
    assert "--hash" not in CONSTRAINTS.read_text()


@pytest.mark.parametrize(
    "file", HASHED, ids=lambda file: str(file.relative_to(CHECKOUT))
)
def test_a_hashed_file_has_what_is_asked_for_in_the_versions_of_the_constraints(
    file: Path,
) -> None:
    pins, text = _pins(file), file.read_text()
    assert pins.items() <= _pins(CONSTRAINTS).items(), AGAIN
    asked = _asked(*HASHED[file])
    there = [x for x in asked if not x.marker or x.marker.evaluate(WINDOWS)]
    assert not _unmet(there, pins), AGAIN
    rows = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(rows) == len(pins)
    for row in rows:
        assert re.fullmatch(r"\S+ (\\\n    --hash=sha256:[0-9a-f]{64} ?)+\n", row)


@pytest.mark.parametrize("file", [CONSTRAINTS, *HASHED], ids=lambda file: file.name)
def test_pins_name_no_registry(file: Path) -> None:
    assert "//" not in file.read_text()
    assert "index" not in file.read_text()


def test_the_form_of_every_workflow_is_checked() -> None:
    commands = (CHECKOUT / "tox.ini").read_text()
    assert [file.name for file in WORKFLOWS if file.name not in commands] == []


def test_actions_are_pinned_by_commit() -> None:
    used = [
        line.split("uses:")[1].strip()
        for file in WORKFLOWS
        for line in file.read_text().splitlines()
        if "uses:" in line
    ]
    assert used
    for action in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action
