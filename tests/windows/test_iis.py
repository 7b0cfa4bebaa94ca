"""The command lines that appcmd and netsh really get, from recorders in their place."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from letsencrypt_mdaemon.errors import ConfigError, DeployError
from letsencrypt_mdaemon.iis import Iis

SITE = 'My "Site"'
NEW = "b" * 40
SAYS = "<appcmd><SITE SITE.NAME='My &quot;Site&quot;' /></appcmd>"


@pytest.fixture
def windows(tmp_path: Path) -> Path:
    """Return a Windows folder whose two programs are recorders."""
    (tmp_path / "System32" / "inetsrv").mkdir(parents=True)
    for name in ("System32/netsh.exe", "System32/inetsrv/appcmd.exe"):
        shutil.copy(r"C:\recorder.exe", tmp_path / name)
    (tmp_path / "System32/inetsrv/appcmd.exe.says").write_text(SAYS, "ascii")
    (tmp_path / "System32/netsh.exe.says").write_text(
        f"    Hash : {NEW}\n    ID : {{4dc3e181-e14b-4a21-b022-59fc669b0914}}\n",
        "ascii",
    )
    return tmp_path


def calls(windows: Path, name: str) -> list[str]:
    """Return the arguments of each call, as they came."""
    text = (windows / "System32" / f"{name}.calls").read_text("utf-8")
    return [line.partition(".exe")[2].lstrip('" ') for line in text.splitlines()]


def test_a_name_with_spaces_and_quotes_arrives_as_one_argument(windows: Path) -> None:
    site = Iis(SITE, windows=windows)

    site._add_binding()  # noqa: SLF001 - the only command with the name

    (line,) = calls(windows, "inetsrv/appcmd.exe")
    assert line == (
        r'set site "/site.name:My \"Site\"" '
        "/+bindings.[protocol='https',bindingInformation='*:443:']"
    )


def test_the_sites_are_listed_with_their_configuration(windows: Path) -> None:
    assert Iis(SITE, windows=windows).named() == {}

    assert calls(windows, "inetsrv/appcmd.exe") == ["list site /config:* /xml"]


def test_a_tool_that_fails_is_told_with_its_code(windows: Path) -> None:
    (windows / "System32/inetsrv/appcmd.exe.fails").touch()
    (windows / "System32/inetsrv/appcmd.exe.says").write_text("Denied", "ascii")

    with pytest.raises(DeployError, match=r"appcmd\.exe set site .* ended with 3"):
        Iis(SITE, windows=windows)._add_binding()  # noqa: SLF001
    with pytest.raises(ConfigError, match=r"appcmd \(exit code 3\) does not list"):
        Iis(SITE, windows=windows).named()
