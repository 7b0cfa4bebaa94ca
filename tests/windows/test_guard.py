"""As SYSTEM the program refuses to run from a folder that others may change."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import letsencrypt_mdaemon
from letsencrypt_mdaemon.app import build
from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.state.folder import State
from letsencrypt_mdaemon.windows import access
from tests.wine import wine_differs

assert sys.platform == "win32"

from letsencrypt_mdaemon.windows import security  # noqa: E402 - Windows only

SHARED = "D:AI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;0x1301bf;;;AU)"


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every list be that of a folder made in C: by just anybody."""
    monkeypatch.setattr(security.Folder, "access_list", lambda _: SHARED)


@pytest.mark.usefixtures("shared")
def test_system_refuses_folders_and_settings_that_users_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(security, "own_sid", lambda: access.SYSTEM)
    settings = tmp_path / "settings.ini"
    with pytest.raises(ConfigError) as caught:
        build.guard(State(tmp_path), settings)
    package = Path(letsencrypt_mdaemon.__file__).parent
    for path in (Path(sys.executable).parent, package, settings, settings.parent):
        assert f"{path}: Authenticated Users" in caught.value.message


@pytest.mark.usefixtures("shared")
def test_an_administrator_may_run_it_from_anywhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build.guard(State(tmp_path), None)
    assert "is not private" in caplog.text


def test_system_runs_what_only_administrators_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(security, "own_sid", lambda: access.SYSTEM)
    monkeypatch.setattr(
        security.Folder, "access_list", lambda _: access.private([access.SYSTEM])
    )
    build.guard(State(tmp_path), tmp_path / "settings.ini")


@wine_differs("Wine takes a new list and keeps the old one")
def test_the_state_folder_becomes_private(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build.guard(State(tmp_path), None)
    assert "is not private" not in caplog.text
