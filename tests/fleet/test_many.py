"""Twenty servers, and one whose account they use: from the first day on."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from csv import DictReader
from pathlib import Path

import pytest

from tests.fleet.authority import Limits
from tests.fleet.fleet import LIMITS, WORDS, Fleet, Host, Parts, Played, fleet, until
from tests.fleet.network import address

OTHERS = 20
AT_ONCE = "-e", "letsencrypt_mdaemon_serial=100%"


@pytest.fixture(scope="module")
def many(
    parts: Parts, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Fleet, Played]]:
    """Return all servers, and how they were installed."""
    folder = tmp_path_factory.mktemp("fleet")
    with fleet(parts, folder, 1 + OTHERS) as running:
        running.inventory(running.hosts[0].name)
        yield running, running.play("install")


@pytest.fixture
def installed(many: tuple[Fleet, Played]) -> Fleet:
    """Return the servers, which have the program."""
    assert many[1].exit_code == 0, many[1].output
    return many[0]


@contextmanager
def _program(host: Host, script: str) -> Iterator[None]:
    """Let a host have another program for a while."""
    program = host.root / "opt/letsencrypt-mdaemon/bin/letsencrypt-mdaemon"
    kept = program.read_bytes()
    program.write_text(f"#!/bin/sh\n{script}\n")
    try:
        yield
    finally:
        program.write_bytes(kept)


@contextmanager
def _stopped(host: Host) -> Iterator[None]:
    """Let a host's sshd hang: it is connected to, and says nothing."""
    host.signal("STOP")
    try:
        yield
    finally:
        host.signal("CONT")


@contextmanager
def _unplugged(fleet: Fleet, host: Host) -> Iterator[None]:
    fleet.unplug(host)
    try:
        yield
    finally:
        fleet.plug_in(host)


def _rows(fleet: Fleet) -> dict[str, dict[str, str]]:
    """Return the report's table by the names of its servers."""
    with (fleet.folder / "report.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(DictReader(file))
    return {row["Server"].removesuffix(".json"): row for row in rows}


def test_one_play_installs_all_with_one_account(
    many: tuple[Fleet, Played],
) -> None:
    fleet, played = many

    assert played.exit_code == 0, played.output
    assert fleet.count("newAccount 201") == 1
    assert fleet.count("newOrder 201") == 1 + OTHERS
    # Two at a time: a tenth.
    batches = re.findall(r"TASK .*Ask for the version\]", played.output)
    assert len(batches) == 1 + OTHERS / 2
    assert WORDS not in played.output


def test_a_second_play_changes_nothing(installed: Fleet) -> None:
    before, some = len(installed.requests()), installed.hosts[:6]
    limit = "--limit", ",".join(host.name for host in some)

    played = installed.play("install", *AT_ONCE, *limit)

    assert played.exit_code == 0, played.output
    assert {played.counts(host.name)["changed"] for host in some} == {0}
    assert "newOrder 201" not in installed.requests()[before:]


def test_check_mode_changes_nothing(installed: Fleet) -> None:
    before = len(installed.requests())
    two = ",".join(host.name for host in installed.hosts[:2])

    for playbook in ("install", "renew", "account", "collect"):
        played = installed.play(
            *(playbook, "--check", *AT_ONCE, "-e", "campaign=checked"),
            *("-e", "rollover=true", "--limit", two),
        )
        assert played.exit_code == 0, played.output

    fresh = installed.requests()[before:]
    assert not {"newOrder 201", "keyChange 200"} & {*fresh}
    assert not (installed.folder / "results").exists()


def test_a_dead_a_hanging_and_a_lying_server_are_unknown_and_the_rest_is_told(
    installed: Fleet,
) -> None:
    dead, hanging, lying, flooding, stuck = installed.hosts[1:6]
    flood = "head -c 50000000 /dev/zero | tr '\\0' '['"

    with (
        _unplugged(installed, dead),
        _stopped(hanging),
        _program(lying, "echo '<script>{\"schema\": 1'"),
        _program(flooding, flood),
        _program(stuck, "exec sleep 1d"),
    ):
        # The others have the time that they need on a busy machine.
        limit = f"{{{{ 15 if inventory_hostname == '{stuck.name}' else 900 }}}}"
        words = json.dumps({"letsencrypt_mdaemon_timeout": limit})
        played = installed.play("collect", "-e", words)

    assert played.exit_code == 0, played.output
    rows = _rows(installed)
    assert {*rows} == {host.name for host in installed.hosts}
    why = {
        name: row["Why"] for name, row in rows.items() if row["Verdict"] == "UNKNOWN"
    }
    assert why.keys() == {x.name for x in (dead, hanging, lying, flooding, stuck)}
    # Why it could not, ssh says in many ways: a timeout, no route, a broken pipe.
    for silent in (dead, hanging):
        assert "could not be sent to remote host" in why[silent.name]
        assert address(silent.number) in why[silent.name]
    assert why[lying.name] == "the file is not JSON"
    assert "1 MB" in why[flooding.name]
    assert "Timed out after 15 second" in why[stuck.name]
    assert (installed.folder / "report.html").stat().st_size > 1000
    for file in (installed.folder / "collected").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_mass_revocation_is_renewed_within_the_limit_and_goes_on_when_killed(
    installed: Fleet,
) -> None:
    orders, period = 8, 10
    campaign = (
        *("-e", "campaign=revoked", "-e", "letsencrypt_mdaemon_batch=4"),
        *("-e", f"letsencrypt_mdaemon_orders={orders}"),
        *("-e", f"letsencrypt_mdaemon_period={period}"),
        *("-e", "letsencrypt_mdaemon_poll=1"),
    )
    results = installed.folder / "results" / "revoked"
    before = installed.count("newOrder 201")
    refused = installed.count("newOrder 429")
    installed.limit(Limits(LIMITS.accounts, orders, period))
    installed.revoke_all()

    with installed.start("renew", *campaign) as killed:
        until(
            lambda: killed.poll() is not None or len(list(results.glob("*.done"))) >= 6
        )
        assert killed.poll() is None, "it ended by itself"
        killed.kill()
    assert len(list(results.glob("*.done"))) < 1 + OTHERS

    played = installed.play("renew", *campaign)
    installed.limit(LIMITS)

    assert played.exit_code == 0, played.output
    assert "All servers are done." in played.output
    assert len(list(results.glob("*.done"))) == 1 + OTHERS
    assert installed.count("newOrder 429") == refused
    assert installed.count("newOrder 201") == before + 1 + OTHERS


def test_who_failed_and_why_is_said_and_the_next_play_takes_only_these(
    installed: Fleet,
) -> None:
    well, away, broken = installed.hosts[1:4]
    words = (
        *("-e", "campaign=few"),
        *("--limit", ",".join(host.name for host in (well, away, broken))),
    )
    script = """echo '{"verdict": "The disk is full."}'; exit 1"""
    with _unplugged(installed, away), _program(broken, script):
        played = installed.play("renew", *words)

    assert played.exit_code == 2, played.output
    failed = played.output.partition("TASK [letsencrypt_mdaemon : Say who failed")[2]
    assert f"{broken.name}: The disk is full." in failed
    assert f"{away.name}: " in failed
    assert well.name not in failed.partition("PLAY RECAP")[0].replace(
        f"[{well.name}", ""
    )

    again = installed.play("renew", *words)

    assert again.exit_code == 0, again.output
    ran = again.output.partition("TASK [letsencrypt_mdaemon : Run the program]")[2]
    assert f"[{well.name}]" not in ran.partition("TASK")[0]


def test_a_campaign_needs_a_name_that_is_no_path(installed: Fleet) -> None:
    for name in ("", "../elsewhere", ".."):
        played = installed.play("renew", "-e", f"campaign={name}")
        assert played.exit_code == 2
        assert "Name this campaign" in played.output


def test_a_batch_beyond_the_limit_is_refused_at_once(installed: Fleet) -> None:
    played = installed.play(
        *("renew", "-e", "campaign=wide", "-e", "letsencrypt_mdaemon_orders=3"),
    )

    assert played.exit_code == 2
    assert "does not fit the CA's limit of 3 orders" in played.output
    assert not Path(installed.folder, "results", "wide").exists()


def test_a_new_key_of_the_account_reaches_all_that_share_it(installed: Fleet) -> None:
    """The last test of these: the hosts that it leaves out keep the former key."""
    first, late, *others = installed.hosts[:5]
    few = ",".join(host.name for host in (first, late, *others))
    with _unplugged(installed, late):
        played = installed.play(
            *("account", "-e", "rollover=true", "-vvv", "--diff", "--limit", few)
        )

    assert played.exit_code == 4
    assert played.counts(late.name)["unreachable"] == 1
    assert WORDS not in played.output
    assert "sealed" not in played.output
    assert installed.count("keyChange 200") == 1

    # What was away has the former key, until the play reaches it.
    assert _knows_the_account(installed, others[-1])
    assert not _knows_the_account(installed, late)
    assert installed.play("account", "--limit", late.name).exit_code == 0
    assert _knows_the_account(installed, late)


def _knows_the_account(fleet: Fleet, host: Host) -> bool:
    """Whether the CA takes an order of the host."""
    before = fleet.count("newOrder 201")
    settings = fleet.options(host)
    program = "/opt/letsencrypt-mdaemon/bin/letsencrypt-mdaemon"
    host.run(program, "renew", "--force", *settings, check=False)
    return fleet.count("newOrder 201") > before
