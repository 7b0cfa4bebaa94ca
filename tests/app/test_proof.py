"""What a run says of ports that take their time, or that it cannot see."""

from __future__ import annotations

from tests.program import Program


def test_a_server_that_takes_five_seconds_to_restart_is_waited_for(
    secure: Program,
) -> None:
    secure.server.reloads = {"RESTART.SEM": ("mail", "webmail", "admin")}
    secure.server.downtime = 5

    ladder = ("--reload-semaphores", "RESTART.SEM")
    ran = secure.here("renew", *ladder, "--verify-timeout", "30")

    assert ran.exit_code == 0, ran.messages
    assert set(ran.report["proof"]["new"]) == set(secure.server.endpoints.values())
    assert ran.report["proof"]["broken"] == []


def test_without_a_reload_the_run_succeeds_and_says_that_nothing_is_proven(
    secure: Program,
) -> None:
    ran = secure.here("renew", "--no-reload")

    assert ran.exit_code == 0, ran.messages
    assert ran.report["proof"] is None
    assert any("Nothing could be verified" in each for each in ran.report["warnings"])
    assert ran.report["removed"] == []


def test_without_proof_no_superseded_certificate_is_removed(secure: Program) -> None:
    first = secure.here("renew").report["certificate"]["thumbprint"]

    ran = secure.here("renew", "--force", "--no-reload", "--remove-old-certificates")

    assert ran.exit_code == 0, ran.messages
    assert ran.report["removed"] == []
    assert any(
        "Superseded certificates are kept" in each for each in ran.report["warnings"]
    )
    again = secure.here("renew", "--force", "--remove-old-certificates")
    assert first in again.report["removed"]
