"""Knot DNS, Unbound and Postfix from Debian's packages, seen by nobody but these tests.

They come unpacked, not installed, in a network of their own with a root of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests import debian_archive
from tests.integration import private_network
from tests.policy.senders import sender
from tests.policy.senders.servers import Zones, zones

PACKAGES = ("knot", "unbound", "postfix")
NEEDS_ROOT = ["test_mail.py", "test_secure.py"]

collect_ignore = [] if os.geteuid() == 0 else NEEDS_ROOT


def pytest_report_header() -> str:
    """Say what is left out, and why."""
    if collect_ignore:
        return "LEFT OUT, as only root can run Postfix: " + ", ".join(collect_ignore)
    return "Knot DNS, Unbound and Postfix from Debian's packages"


@pytest.fixture(scope="session", autouse=True)
def packages(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Have the programs in /usr, and loopback to ourselves."""
    cache = request.config.cache
    assert cache is not None
    tree = cache.mkdir("debian") / "senders"
    if not (tree / "usr/sbin/knotd").exists():
        try:
            debian_archive.unpack(*PACKAGES, into=tree)
        except debian_archive.ArchiveError as exc:
            pytest.fail(str(exc), pytrace=False)
    folder = tmp_path_factory.mktemp("network")
    private_network.enter(folder, keep_users=os.geteuid() == 0)
    private_network.add_address(sender.ADDRESS)
    for name, text in private_network.RESOLVER.items():
        # What is laid over /etc would hide these.
        (tree / "etc" / name).write_text(text, "ascii")
    for name in ("usr", "etc"):
        private_network.lay_over(tree / name, Path("/", name))


@pytest.fixture(scope="session")
def dns(packages: None) -> Iterator[Zones]:
    """Run the root, all zones below it, and a resolver that validates."""
    del packages
    with TemporaryDirectory(prefix="zones-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with zones(folder) as running:
            yield running
