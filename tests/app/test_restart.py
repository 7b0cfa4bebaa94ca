"""A restart that leaves the server stopped is finished by the next run."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from letsencrypt_mdaemon.app import adapters, build
from letsencrypt_mdaemon.app.installation import Installation
from letsencrypt_mdaemon.config.settings import Config
from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.windows import service
from letsencrypt_mdaemon.windows.service import RUNNING, STOPPED, Status
from tests.fakes import MemoryService


class Failing(MemoryService):
    """A service that does not start, as long as it is told so."""

    fails = True

    def start(self) -> None:
        """Start, or not."""
        if self.fails:
            raise service.RefusedError(service.DENIED, "Access is denied.")
        super().start()


@pytest.fixture(autouse=True)
def _poll_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "POLL_SECONDS", 0)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Failing:
    made = Failing()
    monkeypatch.setattr(build, "windows_service", lambda _: made)
    return made


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(state_dir=tmp_path / "state", allow_restart=True)


def restart(config: Config, root: Path) -> None:
    """Restart the server as a run does, and be told that it failed."""
    with build.locked_state(config, root, None) as state:
        installation = cast(
            "Installation",
            type(
                "Opened",
                (),
                {
                    **dict.fromkeys(["files", "ours"]),
                    "known": {},
                    "greeted": lambda: None,
                    "search": None,
                    "config": config,
                    "root": root,
                    "state": state,
                },
            ),
        )
        server = adapters.server(installation, ())
        with pytest.raises(DeployError, match="it is stopped"):
            server.take(server.ladder()[-1])


def test_the_next_run_starts_what_a_restart_left_stopped(
    config: Config,
    made: Failing,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    restart(config, tmp_path)
    assert made.now == Status(STOPPED)

    with build.locked_state(config, tmp_path, None) as state:
        assert state.restart() is not None
    assert "Could not start the service good" in caplog.text

    made.fails = False
    with build.locked_state(config, tmp_path, None) as state:
        assert made.now == Status(RUNNING)
        assert state.restart() is None
    assert "It runs again" in caplog.text
    assert made.done == ["stop", "start"]


def test_a_server_that_somebody_stopped_stays_stopped(
    config: Config, made: Failing, tmp_path: Path
) -> None:
    made.fails = False
    made.now = Status(STOPPED)
    with build.locked_state(config, tmp_path, None):
        pass
    assert made.now == Status(STOPPED)


def test_a_restart_that_somebody_finished_is_forgotten(
    config: Config, made: Failing, tmp_path: Path
) -> None:
    restart(config, tmp_path)
    made.now = Status(RUNNING)
    with build.locked_state(config, tmp_path, None) as state:
        assert state.restart() is None
    assert made.done == ["stop"]
