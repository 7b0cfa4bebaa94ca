"""The first installation, and what goes wrong with it."""

from __future__ import annotations

from collections.abc import Callable

from tests.fleet.fleet import WORDS, Fleet, Host

Start = Callable[[int], Fleet]
WRONG = "-e", "letsencrypt_mdaemon_checksum=" + 64 * "0"


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


def test_a_package_with_another_checksum_is_not_installed(start: Start) -> None:
    fleet = start(1)
    fleet.inventory()

    played = fleet.play("install", *WRONG)

    assert played.exit_code == 2
    assert "is not the one with this checksum. Nothing was installed." in played.output
    assert fleet.hosts[0].run("find", "/opt", "-type", "f") == ""


def test_check_mode_on_a_new_server_changes_nothing(start: Start) -> None:
    fleet = start(1)
    fleet.inventory()

    played = fleet.play("install", "--check")

    assert played.exit_code == 0, played.output
    assert _is_untouched(fleet.hosts[0])
    assert not fleet.count("newOrder 201")


def test_a_wrong_passphrase_is_said_and_never_shown(start: Start) -> None:
    fleet = start(2)
    fleet.inventory(fleet.hosts[0].name)
    assert fleet.play("install", "--limit", fleet.hosts[0].name).exit_code == 0
    (fleet.folder / "passphrase.txt").write_text("another one of 16 letters")

    played = fleet.play("install", "--limit", fleet.hosts[1].name, "-vvv", "--diff")

    assert played.exit_code == 2
    assert "passphrase" in played.output.partition("fatal:")[2]
    assert "another one of 16 letters" not in played.output
    assert WORDS not in played.output
    assert fleet.count("newOrder 201") == 1


def test_a_server_on_new_hardware_takes_one_order_and_no_account(start: Start) -> None:
    fleet = start(2)
    fleet.inventory(fleet.hosts[0].name)
    assert fleet.play("install").exit_code == 0
    host = fleet.hosts[1]
    # A backup of MDaemon's folder, without what this program had.
    host.run("rm", "-r", "/opt/letsencrypt-mdaemon", "/srv/MDaemon/certificates")
    host.run("rm", "-r", "/srv/MDaemon/LetsEncrypt")

    played = fleet.play("install", "--limit", host.name)

    assert played.exit_code == 0, played.output
    assert fleet.count("newAccount 201") == 1
    assert fleet.count("newOrder 201") == 3

    # An account that another machine sealed cannot be read here.
    (sealed,) = (host.root / "srv/MDaemon/LetsEncrypt").rglob("account.json")
    sealed.write_bytes(b"sealed for this machine\nby another")

    played = fleet.play("install", "--limit", host.name)

    assert played.exit_code == 0, played.output
    assert fleet.count("newAccount 201") == 1
    assert fleet.count("newOrder 201") == 3
