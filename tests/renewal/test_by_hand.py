"""A reload by hand: its rungs, a restart that begins late, and what the ports show."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.renewal import by_hand
from letsencrypt_mdaemon.renewal.by_hand import Reloaded
from letsencrypt_mdaemon.verify.endpoints import Endpoint
from letsencrypt_mdaemon.verify.served import Answer, Served
from tests.fakes import PORTS, RUNGS, MemoryServer, answer
from tests.renewal.test_run import ORDER, Scene, scene

__all__ = ["scene"]


class Restarting(MemoryServer):
    """A server that closes its ports some looks after the semaphore of a restart."""

    looks = -1

    def ladder(self) -> tuple[str, ...]:
        """Return the semaphores, and both ways to restart."""
        return (*RUNGS, "RESTART.SEM", "a restart of the service MDaemon")

    def take(self, rung: str) -> bool:
        """Take up a semaphore."""
        if rung in RUNGS:
            return super().take(rung)
        self.done.append(rung)
        self.looks = 0
        return True

    def observe(self, only: Collection[Endpoint] = ()) -> dict[Endpoint, Served]:
        """Return the old answers, then none, then the new ones."""
        if self.looks >= 0:
            self.looks += 1
        if 1 < self.looks < 4:
            closed = answer(None, Answer.NOT_LISTENING)
            return dict.fromkeys(only or map(Endpoint.parse, PORTS), closed)
        if self.looks >= 4:
            self.restart()
        return super().observe(only)


def reload(scene: Scene, *, restart: bool) -> tuple[Reloaded, Restarting]:
    """Reload a server whose ports need a restart."""
    server = Restarting(scene.store, scene.first)
    server.deaf = set(PORTS)
    parts = scene.parts._replace(server=server, observe=server.observe)
    memory = parts.state.load()
    done = by_hand.reload(
        ORDER._replace(timeout=30), parts, memory, now=scene.now, restart=restart
    )
    return done, server


def test_every_gentle_rung_is_taken_and_no_restart(scene: Scene) -> None:
    done, server = reload(scene, restart=False)

    assert done.rungs == tuple(server.done) == RUNGS
    assert done.proof.new == tuple(PORTS)
    assert done.error is None


def test_a_restart_that_begins_late_is_waited_for_and_made_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_hand, "POLL_SECONDS", 0.0)

    done, server = reload(scene, restart=True)

    assert done.rungs == (*RUNGS, "RESTART.SEM")
    assert server.looks >= 4
    assert done.proof.new == tuple(PORTS)
    assert scene.parts.state.load().restarted == scene.now


def test_a_reload_changes_neither_files_nor_memory(scene: Scene) -> None:
    before = scene.parts.state.load()

    reload(scene, restart=False)

    assert scene.parts.state.load() == before
    assert scene.bound == {thumbprint(scene.first)}
