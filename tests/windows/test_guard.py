"""What others can change is refused, before it is read, locked or run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import letsencrypt_mdaemon
from letsencrypt_mdaemon.app import build, trust
from letsencrypt_mdaemon.cli.context import Context
from letsencrypt_mdaemon.config.settings import Config
from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.windows import access
from tests.wine import wine_differs

assert sys.platform == "win32"

from letsencrypt_mdaemon.windows import security  # noqa: E402 - Windows only

SHARED = "O:BAD:AI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;0x1301bf;;;AU)"
PRIVATE = access.private([])
PLANTED = "O:S-1-5-21-9-9-9-1105D:(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"


def pretend(
    monkeypatch: pytest.MonkeyPatch,
    lists: Mapping[Path, str] | None = None,
    *,
    others: str = PRIVATE,
) -> None:
    """Let lists be what they are not; Wine keeps none."""
    known = lists or {}
    monkeypatch.setattr(
        security.Folder, "access_list", lambda self: known.get(self.path, others)
    )


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(state_dir=tmp_path / "LetsEncrypt" / "state")


def test_system_refuses_folders_and_settings_that_users_can_change(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, others=SHARED)
    monkeypatch.setattr(security, "own_sid", lambda: access.SYSTEM)
    settings = tmp_path / "settings.ini"
    settings.touch()
    with (
        pytest.raises(ConfigError) as caught,
        build.locked_state(config, tmp_path, settings),
    ):
        pass
    assert not (tmp_path / "LetsEncrypt").exists()
    monkeypatch.setattr(trust, "MAX_SHOWN", 1000)
    found = trust.program_doubts(settings, tmp_path)
    package = Path(letsencrypt_mdaemon.__file__).parent
    base = Path(sys.base_prefix)
    for path in (Path(sys.executable).parent, base, base / "Lib", package, settings):
        assert any(
            row.path == path and "Authenticated Users can change it" in row.why
            for row in found
        ), path
    assert "Authenticated Users" in caught.value.message


def test_system_does_not_even_read_settings_that_users_can_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(security, "own_sid", lambda: access.SYSTEM)
    settings = tmp_path / "settings.ini"
    settings.write_text("no settings at all")
    for listed in (PLANTED, SHARED):
        pretend(monkeypatch, {settings: listed})
        with pytest.raises(ConfigError, match="must not follow") as caught:
            _ = Context("renew", {}, file=str(settings)).config
        assert "icacls" in caught.value.hint
    pretend(monkeypatch)
    with pytest.raises(ConfigError) as caught:
        _ = Context("renew", {}, file=str(settings)).config
    assert "must not follow" not in caught.value.message


def test_an_administrator_may_run_it_from_anywhere(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "settings.ini"
    settings.touch()
    pretend(monkeypatch, {settings: SHARED})
    with build.locked_state(config, tmp_path, settings) as state:
        assert state.lock.exists()


def test_system_runs_what_only_administrators_can_change(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(security, "own_sid", lambda: access.SYSTEM)
    pretend(monkeypatch)
    with build.locked_state(config, tmp_path, tmp_path / "settings.ini"):
        pass


@pytest.mark.parametrize("listed", [PLANTED, SHARED])
@pytest.mark.parametrize("place", ["state", "LetsEncrypt", "account.json"])
def test_a_state_folder_of_others_is_refused_before_it_is_locked_or_read(
    place: str,
    listed: str,
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert config.state_dir is not None
    config.state_dir.mkdir(parents=True)
    (config.state_dir / "account.json").write_text("{}")
    pretend(
        monkeypatch,
        {
            path: listed
            for path in (
                config.state_dir,
                *config.state_dir.parents,
                *config.state_dir.iterdir(),
            )
            if path.name == place
        },
    )
    with (
        pytest.raises(ConfigError, match="is not trusted") as caught,
        build.locked_state(config, tmp_path, None),
    ):
        pass
    assert caught.value.exit_code == 2
    assert "icacls" in caught.value.hint
    assert [path.name for path in config.state_dir.iterdir()] == ["account.json"]
    with pytest.raises(ConfigError, match="is not trusted"):
        build.state_of(config, tmp_path)


def test_a_new_state_folder_is_private_from_the_start(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Wine stores owner and list as a mode, and knows no Administrators.
    monkeypatch.setattr(security, "is_administrator", lambda: False)
    assert config.state_dir is not None
    trust.make_state(config.state_dir, tmp_path)
    us = security.own_sid()
    for folder in (config.state_dir, config.state_dir.parent):
        listed = security.Folder(folder).access_list()
        assert access.is_private(listed, [us])
        assert access.owner(listed) == us
    assert not access.is_private(security.Folder(tmp_path).access_list(), [us])


@wine_differs("Wine takes a new list and keeps the old one")
def test_a_state_folder_that_others_can_read_becomes_private(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert config.state_dir is not None
    config.state_dir.mkdir(parents=True)
    trust.make_state(config.state_dir, tmp_path)
    assert "can read the folder" not in caplog.text


def test_accounts_that_windows_writes_as_two_letters_are_compared_as_sids() -> None:
    shown = security.as_text(
        security.as_bytes("D:(A;;FA;;;LA)(A;;FA;;;SY)(A;;FA;;;DU)")
    )
    administrator, system, users = (row.sid for row in access.entries(shown))
    assert administrator.startswith("S-1-5-21-")
    assert administrator.endswith("-500")
    assert system == access.SYSTEM
    assert users.endswith("-513")
    assert access.strangers(shown, [administrator]) == [users]


def test_a_script_that_others_made_is_not_put_back_for_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "LetsEncrypt" / "LetsEncrypt.ps1.vendor"
    script.parent.mkdir()
    script.touch()
    pretend(monkeypatch)
    trust.require_script(script, tmp_path)
    pretend(monkeypatch, {script: PLANTED})
    with pytest.raises(ConfigError, match="SYSTEM must not run a script") as caught:
        trust.require_script(script, tmp_path)
    assert f"Delete {script}" in caught.value.hint
    assert "icacls" in caught.value.hint
