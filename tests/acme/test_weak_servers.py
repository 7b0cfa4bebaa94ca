"""A web server with a short queue, and a CA whose database bears one at a time."""

from __future__ import annotations

import http.client
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from letsencrypt_mdaemon.sandbox.ca.messages import Answer, Problem
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from tests.scene import Scene, serving

MANY = [f"host-{number}.example.test" for number in range(100)]

_SHORT_QUEUE = """
import sys, time
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler

class Handler(SimpleHTTPRequestHandler):
    timeout = 5

    def do_GET(self):
        time.sleep(0.02)
        super().do_GET()

class Server(HTTPServer):
    request_queue_size = 1

with Server(("127.0.0.1", 0), partial(Handler, directory=sys.argv[1])) as server:
    print(server.server_port, flush=True)
    server.serve_forever()
"""
"""One request after the other; one more may wait, and the others are not let in."""


@contextmanager
def short_queue(folder: Path) -> Iterator[int]:
    """Publish a folder by such a web server, in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", _SHORT_QUEUE, str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere a full queue refuses connections"
)
def test_a_hundred_names_are_proven_by_a_web_server_with_a_short_queue(
    tmp_path: Path,
) -> None:
    with (
        short_queue(tmp_path / "webroot") as port,
        CertificateAuthority(tmp_path / "ca", http_port=port) as ca,
    ):
        scene = Scene(ca, tmp_path)
        certificate = scene.obtain(*MANY, sleep=time.sleep, clock=time.monotonic)

    assert certificate.names == tuple(MANY)


class OnSqlite(CertificateAuthority):
    """A CA that writes to a SQLite file for each challenge, and waits for nobody."""

    refused = 0

    def answer(
        self, method: str, path: str, headers: http.client.HTTPMessage, body: bytes
    ) -> Answer:
        """Answer like others, once the challenge is in the file."""
        resource = self.resources.get(self._base + path)
        if resource is None or resource.name != "challenge":
            return super().answer(method, path, headers, body)
        file = self.folder / "acme.db"
        with closing(sqlite3.connect(file, timeout=0)) as database:
            try:
                database.execute("BEGIN EXCLUSIVE")
                database.execute("CREATE TABLE IF NOT EXISTS challenge (path TEXT)")
                database.execute("INSERT INTO challenge VALUES (?)", [path])
                time.sleep(0.05)  # a slow disk
                database.commit()
            except sqlite3.OperationalError as exc:
                with self.lock:
                    self.refused += 1
                return Problem("serverInternal", str(exc), 500).answer
        return super().answer(method, path, headers, body)


def test_a_ca_whose_database_is_locked_gets_its_challenges_one_by_one(
    tmp_path: Path,
) -> None:
    names = MANY[:20]
    with (
        serving(tmp_path / "webroot") as port,
        OnSqlite(tmp_path / "ca", http_port=port) as ca,
    ):
        ca.faults.validation_in_answer = True
        scene = Scene(ca, tmp_path)
        assert scene.obtain(*names).names == tuple(names)

    # Of the first six at once, all but one; those that follow come one by one.
    assert 0 < ca.refused <= 2 * 6
