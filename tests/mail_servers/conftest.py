"""Mail servers and web servers from Debian's packages, seen by nobody but these tests.

They come unpacked, not installed: a file system laid over /usr and /etc shows them
where they expect themselves, to this process and what it starts. Dovecot, Postfix and
Apache start as root and become other users, so without root they are left out, aloud.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests import debian_archive
from tests.integration import private_network

MAIL = ("dovecot-imapd", "dovecot-pop3d", "postfix")
WEB = ("nginx-light", "apache2-bin", "haproxy")
NEEDS_ROOT = ["test_dovecot.py", "test_postfix.py"]

collect_ignore = [] if os.geteuid() == 0 else NEEDS_ROOT


def pytest_report_header() -> str:
    """Say what is left out, and why."""
    if collect_ignore:
        return "LEFT OUT, as only root can run them: Dovecot, Postfix and Apache"
    return "Dovecot, Postfix, nginx, Apache and HAProxy from Debian's packages"


@pytest.fixture(scope="session", autouse=True)
def packages(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Have the programs in /usr, and loopback to ourselves."""
    cache = request.config.cache
    assert cache is not None
    tree = cache.mkdir("debian") / "mail-servers"
    if not (tree / "usr/sbin/haproxy").exists():
        try:
            debian_archive.unpack(*MAIL, *WEB, into=tree)
        except debian_archive.ArchiveError as exc:
            pytest.fail(str(exc), pytrace=False)
    folder = tmp_path_factory.mktemp("network")
    private_network.enter(folder, keep_users=os.geteuid() == 0)
    for name in ("usr", "etc"):
        private_network.lay_over(tree / name, Path("/", name))


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder that the servers' own users can reach, as pytest's are not."""
    with TemporaryDirectory(prefix="mail-server-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder
