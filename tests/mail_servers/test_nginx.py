"""`verify` against nginx."""

from __future__ import annotations

from pathlib import Path

from tests.mail_servers.scene import Scene, certificate
from tests.mail_servers.servers import nginx


def test_verify_sees_every_port_change_its_certificate(
    folder: Path, tmp_path: Path
) -> None:
    old = certificate(serial=11)
    with nginx(folder, old) as server:
        Scene(tmp_path / "MDaemon").follows_a_change(server, old)
