"""The first installation, and what goes wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.fleet.fleet import WORDS, Fleet, Host, Parts, fleet

Start = Callable[[int], Fleet]
WRONG = "-e", "letsencrypt_mdaemon_checksum=" + 64 * "0"


@pytest.fixture(scope="module")
def bare(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Return a server that no test installs anything on."""
    with fleet(parts, tmp_path_factory.mktemp("bare"), 1) as running:
        running.inventory()
        yield running


@pytest.fixture(scope="module")
def pair(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Return two servers, of which at least the first has the program."""
    with fleet(parts, tmp_path_factory.mktemp("pair"), 2) as running:
        first = running.hosts[0].name
        running.inventory(first)
        assert running.play("install", "--limit", first).exit_code == 0
        yield running


def _is_untouched(host: Host) -> bool:
    """Whether nothing was installed, and MDaemon's folder has nothing of ours."""
    ours = host.root / "srv" / "MDaemon" / "LetsEncrypt"
    return not list((host.root / "opt").iterdir()) and not list(ours.rglob("*"))


def test_a_full_disk_stops_the_play_and_mended_it_goes_on(start: Start) -> None:
    fleet = start(3)
    fleet.inventory()
    first, full, last = fleet.hosts
    full.run("fallocate", "-l", "290m", "/opt/full")

    stopped = fleet.play("install", "-e", "letsencrypt_mdaemon_serial=1")

    assert stopped.exit_code == 2
    assert stopped.counts(first.name)["failed"] == 0
    assert stopped.counts(full.name)["failed"] == 1
    assert "No space left on device" in stopped.output
    assert last.name not in stopped.output.partition("PLAY RECAP")[2]
    assert _is_untouched(last)

    full.run("rm", "/opt/full")
    mended = fleet.play("install", "-e", "letsencrypt_mdaemon_serial=1")

    assert mended.exit_code == 0, mended.output
    assert mended.counts(first.name)["changed"] == 0
    assert fleet.count("newOrder 201") == 3


def test_a_package_with_another_checksum_is_not_installed(bare: Fleet) -> None:
    played = bare.play("install", *WRONG)

    assert played.exit_code == 2
    assert "is not the one with this checksum. Nothing was installed." in played.output
    assert bare.hosts[0].run("find", "/opt", "-type", "f") == ""


def test_check_mode_on_a_new_server_changes_nothing(bare: Fleet) -> None:
    host = bare.hosts[0]
    before = host.run("find", "/opt", "/srv/MDaemon")

    played = bare.play("install", "--check")

    assert played.exit_code == 0, played.output
    assert host.run("find", "/opt", "/srv/MDaemon") == before
    assert not bare.count("newOrder 201")


def test_a_wrong_passphrase_is_said_and_never_shown(pair: Fleet) -> None:
    right, another = pair.folder / "passphrase.txt", "another one of 16 letters"
    before = pair.count("newOrder 201")
    right.write_text(another)
    try:
        played = pair.play("install", "--limit", pair.hosts[1].name, "-vvv", "--diff")
    finally:
        right.write_text(WORDS)

    assert played.exit_code == 2
    assert "passphrase" in played.output.partition("fatal:")[2]
    assert another not in played.output
    assert WORDS not in played.output
    assert pair.count("newOrder 201") == before


def test_a_server_on_new_hardware_takes_one_order_and_no_account(pair: Fleet) -> None:
    assert pair.play("install").exit_code == 0
    host, orders = pair.hosts[1], pair.count("newOrder 201")
    # A backup of MDaemon's folder, without what this program had.
    host.run("rm", "-r", "/opt/letsencrypt-mdaemon", "/srv/MDaemon/certificates")
    host.run("rm", "-r", "/srv/MDaemon/LetsEncrypt")

    played = pair.play("install", "--limit", host.name)

    assert played.exit_code == 0, played.output
    assert pair.count("newAccount 201") == 1
    assert pair.count("newOrder 201") == orders + 1

    # An account that another machine sealed cannot be read here.
    (sealed,) = (host.root / "srv/MDaemon/LetsEncrypt").rglob("account.json")
    sealed.write_bytes(b"sealed for this machine\nby another")

    played = pair.play("install", "--limit", host.name)

    assert played.exit_code == 0, played.output
    assert pair.count("newAccount 201") == 1
    assert pair.count("newOrder 201") == orders + 1
