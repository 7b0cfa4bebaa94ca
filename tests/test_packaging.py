"""What is made of the frozen folder: versions that sort, the manifest for winget."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from letsencrypt_mdaemon import __version__

ROOT = Path(__file__).parents[1]
PACKAGING = ROOT / "packaging" / "windows"
SCRIPT = PACKAGING / "letsencrypt-mdaemon.nsi"
URL = "https://example.com/letsencrypt-mdaemon-0.1.0-x64.exe"


@pytest.fixture
def comparable(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    monkeypatch.syspath_prepend(PACKAGING)
    module = runpy.run_path(str(PACKAGING / "installer.py"))
    found: Callable[[str], str] = module["comparable"]
    return found


def test_the_numbers_of_versions_sort_as_the_versions_do(
    comparable: Callable[[str], str],
) -> None:
    rising = ["0.1.0a1", "0.1.0b1", "0.1.0b2", "0.1.0rc1", "0.1.0", "0.1.1", "0.10.0"]

    numbers = [tuple(map(int, comparable(one).split("."))) for one in rising]

    assert all(one < other for one, other in pairwise(numbers))
    assert {len(one) for one in numbers} == {4}
    assert max(map(max, numbers)) < 1 << 16


@pytest.mark.parametrize("version", ["0.1.0.dev1", "0.1.0+local", "1!0.1.0", "1.2.3.4"])
def test_a_version_that_is_none_of_a_release_is_refused(
    comparable: Callable[[str], str], version: str
) -> None:
    with pytest.raises(ValueError, match=r"a version to release|more than three"):
        comparable(version)


# The rules of winget's schemas, 1.6.0, for the fields that are written.

TEXT = {"type": "string", "minLength": 3, "maxLength": 256}
HEAD: dict[str, Any] = {
    "PackageIdentifier": {
        "type": "string",
        "pattern": r'^[^.\s\\/:*?"<>|]{1,32}(\.[^.\s\\/:*?"<>|]{1,32}){1,7}$',
        "maxLength": 128,
    },
    "PackageVersion": {"type": "string", "pattern": r'^[^\\/:*?"<>|]+$'},
    "ManifestVersion": {"const": "1.6.0"},
}
LOCALE = {"type": "string", "pattern": "^[a-z]{2}-[A-Z]{2}$"}
RESPONSES = ["installInProgress", "downgrade", "packageInUse", "invalidParameter"]


def schema(kind: str, **fields: object) -> dict[str, Any]:
    """Return a schema that requires these fields, and allows no other."""
    properties = {**HEAD, "ManifestType": {"const": kind}, **fields}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


INSTALLER = {
    "type": "object",
    "properties": {
        "Architecture": {"enum": ["x86", "x64", "arm", "arm64", "neutral"]},
        "InstallerUrl": {"type": "string", "pattern": "^https://.+$"},
        "InstallerSha256": {"type": "string", "pattern": "^[A-Fa-f0-9]{64}$"},
    },
    "required": ["Architecture", "InstallerUrl", "InstallerSha256"],
    "additionalProperties": False,
}
CODE = {
    "type": "object",
    "properties": {
        "InstallerReturnCode": {"type": "integer", "minimum": 1},
        "ReturnResponse": {"enum": RESPONSES},
    },
    "additionalProperties": False,
}
SCHEMAS = {
    "yaml": schema("version", DefaultLocale=LOCALE),
    "installer.yaml": schema(
        "installer",
        Platform={"const": ["Windows.Desktop"]},
        InstallerType={"enum": ["nullsoft"]},
        Scope={"enum": ["user", "machine"]},
        InstallModes={"items": {"enum": ["interactive", "silent"]}},
        ElevationRequirement={"enum": ["elevationRequired", "elevatesSelf"]},
        UpgradeBehavior={"enum": ["install", "uninstallPrevious"]},
        Commands={"items": {"type": "string", "maxLength": 40}, "maxItems": 16},
        ProductCode={"type": "string", "minLength": 1, "maxLength": 255},
        ExpectedReturnCodes={"type": "array", "items": CODE},
        Installers={"type": "array", "items": INSTALLER, "minItems": 1},
    ),
    "locale.en-US.yaml": schema(
        "defaultLocale",
        PackageLocale=LOCALE,
        Publisher=TEXT,
        PackageName=TEXT,
        License=TEXT,
        ShortDescription=TEXT,
        Moniker={"type": "string", "maxLength": 40},
        Tags={
            "type": "array",
            "items": {"type": "string", "maxLength": 40},
            "maxItems": 16,
            "uniqueItems": True,
        },
    ),
}


@pytest.fixture
def manifest(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """What is written for a setup program; by file name, without the identifier."""
    setup = tmp_path / "setup.exe"
    setup.write_bytes(b"a setup program")
    out = tmp_path / "out"
    subprocess.run(
        [sys.executable, PACKAGING / "winget.py", setup, "0.1.0", URL, out], check=True
    )
    name = "letsencrypt-mdaemon.letsencrypt-mdaemon."
    return {
        file.name.removeprefix(name): json.loads(file.read_bytes())
        for file in out.iterdir()
    }


def test_the_manifest_keeps_the_rules_of_winget(
    manifest: dict[str, dict[str, Any]],
) -> None:
    assert manifest.keys() == SCHEMAS.keys()
    for name, document in manifest.items():
        jsonschema.validate(document, SCHEMAS[name])
        assert document["PackageVersion"] == "0.1.0"
    (installer,) = manifest["installer.yaml"]["Installers"]
    assert installer["InstallerUrl"] == URL
    assert installer["InstallerSha256"] == (
        "203E123ECE3B15215C5C3A07AE62B5D50F166A05982C75BD422CE69CAAB1B259"
    )


def test_the_manifest_says_what_the_setup_program_does(
    manifest: dict[str, dict[str, Any]],
) -> None:
    script = SCRIPT.read_text()
    defined = dict(re.findall(r"^!define (\w+) (\d+)$", script, re.MULTILINE))
    installer, locale = manifest["installer.yaml"], manifest["locale.en-US.yaml"]
    codes = {
        row["ReturnResponse"]: str(row["InstallerReturnCode"])
        for row in installer["ExpectedReturnCodes"]
    }

    assert codes == {
        "installInProgress": defined["ANOTHER_SETUP"],
        "downgrade": defined["NEWER_INSTALLED"],
        "packageInUse": defined["STILL_RUNNING"],
        "invalidParameter": defined["WRONG_FOLDER"],
    }
    # By these winget finds what is installed.
    assert f'!define NAME "{installer["ProductCode"]}"' in script
    assert r'Uninstall\${NAME}"' in script
    assert 'DisplayName "${NAME}"' in script
    assert locale["PackageName"] == installer["ProductCode"]
    assert locale["Publisher"] == f"{installer['ProductCode']} contributors"
    assert '!define PUBLISHER "${NAME} contributors"' in script


def test_the_man_page_is_of_this_version_and_of_its_date_in_the_changelog() -> None:
    page = (ROOT / "docs" / "man" / "letsencrypt-mdaemon.1").read_text("utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")

    # All else in it is checked by "tox -e docs".
    title = re.compile(r'^\.TH "[A-Z-]+" "1" "(.+)" "(.+)" "', re.MULTILINE)
    ((date, version),) = title.findall(page)
    assert version == __version__
    assert f"\n## {version} \N{EN DASH} {date}\n" in changes
