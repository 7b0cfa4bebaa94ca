"""Accounts, keys, chains and profiles at ACME servers that others wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509

from letsencrypt_mdaemon.pki.certificate import public_key_hash, thumbprint
from tests.integration.acme_servers import (
    EAB_KEY_ID,
    EAB_MAC_KEY,
    PROFILES,
    AcmeServer,
)
from tests.integration.conftest import StartPebble
from tests.program import PREFIX, Program, Ran, at, beside_sandbox

REUSE = ("--key-policy", "reuse")
WRONG_KEY = EAB_MAC_KEY[::-1]


@contextmanager
def program_at(server: AcmeServer, folder: Path) -> Iterator[Program]:
    """Make a sandbox MDaemon, and the program set up for it and a server."""
    with beside_sandbox(folder / "MDaemon", http_port=server.http_port) as program:
        program.options += [
            *at(server.directory_url, server.ca_bundle),
            *("--contact", "postmaster@example.test"),
            *("--key-type", "p256", "--no-reload"),
        ]
        yield program


def renewed(program: Program, *options: str) -> Ran:
    """Renew, which has to put another certificate into use."""
    ran = program.renew(*options)
    assert ran.exit_code == 0, ran.messages
    assert ran.report["renewed"], ran.report["reason"]
    return ran


def done(program: Program, command: str, *options: str) -> Ran:
    """Run another command, which has to work."""
    ran = program.run(command, *options)
    assert ran.exit_code == 0, ran.messages
    return ran


def print_of(ran: Ran) -> str:
    return str(ran.report["certificate"]["thumbprint"])


def chain_of(program: Program, ran: Ran) -> list[x509.Certificate]:
    """Return the chain that is in use after a run, from the store."""
    for file in program.layout.certificates.glob("*/fullchain.pem"):
        chain = x509.load_pem_x509_certificates(file.read_bytes())
        if thumbprint(chain[0]) == print_of(ran):
            return chain
    raise AssertionError(print_of(ran))


def account_file(program: Program) -> Path:
    (file,) = program.state.glob("*/account.json")
    return file


# Accounts


def test_an_account_is_shown_gets_a_new_key_and_is_closed(
    acme_server: AcmeServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with program_at(acme_server, tmp_path) as program:
        renewed(program)
        before = json.loads(account_file(program).read_bytes())
        shown = done(program, "account show").report
        assert shown["account"] == before["url"]
        assert shown["status"] == "valid"

        rolled = program.run("account rollover")

        after = json.loads(account_file(program).read_bytes())
        if request.node.callspec.params["acme_server"] == "caddy":
            # Smallstep's server has no key change.
            assert rolled.exit_code == 3, rolled.messages
            assert "HTTP 501" in rolled.report["error"]["message"]
            assert "keeps its key" in rolled.report["error"]["hint"]
            assert after == before
        else:
            assert rolled.exit_code == 0, rolled.messages
            assert after["url"] == before["url"]
            assert after["key"] != before["key"]
        assert after["next_key"] == {}
        renewed(program, "--force")
        assert json.loads(account_file(program).read_bytes()) == after

        done(program, "account deactivate")

        assert program.run("account show").exit_code == 2
        renewed(program, "--force")
        assert json.loads(account_file(program).read_bytes())["url"] != before["url"]


@pytest.mark.parametrize("taken", [False, True])
def test_a_rollover_that_was_interrupted_is_settled(
    pebble: StartPebble, tmp_path: Path, *, taken: bool
) -> None:
    with program_at(pebble(), tmp_path) as program:
        renewed(program)
        file = account_file(program)
        before = json.loads(file.read_bytes())
        done(program, "account rollover")
        after = json.loads(file.read_bytes())
        # As if the run had died: before the CA took the new key, or after it.
        old, new = (before, after) if taken else (after, before)
        file.write_text(json.dumps({**old, "next_key": new["key"]}), "utf-8")

        renewed(program, "--force")

        assert json.loads(file.read_bytes()) == after


def test_a_closed_account_is_told_with_what_to_do(
    pebble: StartPebble, tmp_path: Path
) -> None:
    with program_at(pebble(), tmp_path) as program:
        renewed(program)
        file = account_file(program)
        kept = file.read_bytes()
        done(program, "account deactivate")
        file.write_bytes(kept)

        ran = program.renew("--force")

        assert ran.exit_code == 3, ran.messages
        assert str(file) in ran.report["error"]["hint"]
        file.unlink()
        renewed(program, "--force")


@pytest.mark.parametrize("name", ["pebble", "acme2certifier"])
def test_an_external_account_is_needed_and_has_to_be_right(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if name == "pebble":
        start: StartPebble = request.getfixturevalue("pebble")
        server = start(eab_required=True)
    else:
        server = request.getfixturevalue("bound_acme2certifier")
    with program_at(server, tmp_path) as program:
        kid = ("--eab-kid", EAB_KEY_ID)

        none = program.renew()
        wrong = program.renew(*kid, environ={f"{PREFIX}EAB_KEY": WRONG_KEY})
        unknown = program.renew(
            "--eab-kid", "nobody", environ={f"{PREFIX}EAB_KEY": EAB_MAC_KEY}
        )

        assert none.exit_code == 2, none.messages
        assert "requires an external account" in none.report["error"]["message"]
        for ran in (wrong, unknown):
            assert ran.exit_code == 3, ran.messages
            assert "eab-kid" in ran.report["error"]["hint"]
        file = tmp_path / "eab.txt"
        file.write_text(f"{EAB_MAC_KEY}\n", "utf-8")
        renewed(program, *kid, "--eab-key-file", str(file))
        renewed(program, "--force")


# Keys


def test_certificates_are_revoked_and_keys_kept_or_never_used_again(
    acme_server: AcmeServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with program_at(acme_server, tmp_path) as program:
        first, second = renewed(program, *REUSE), renewed(program, *REUSE, "--force")
        leaves = [chain_of(program, ran)[0] for ran in (first, second)]
        kept = public_key_hash(leaves[0])
        assert public_key_hash(leaves[1]) == kept
        assert first.report["tlsa"] == second.report["tlsa"]
        assert str(first.report["tlsa"]).endswith(kept)

        done(program, "revoke", "--thumbprint", print_of(first))
        done(program, "revoke", "--thumbprint", print_of(first))
        if request.node.callspec.params["acme_server"] != "acme2certifier":
            # That one takes no revocation by the certificate's key.
            account_file(program).unlink()
        reason = ("--reason", "keyCompromise")
        done(program, "revoke", "--thumbprint", print_of(second), *reason)

        assert "was revoked on" in done(program, "status").report["reason"]
        third = renewed(program, *REUSE)
        assert public_key_hash(chain_of(program, third)[0]) != kept


# Chains


def test_the_chain_is_the_one_preferred(pebble: StartPebble, tmp_path: Path) -> None:
    server = pebble(alternate_roots=2)
    with program_at(server, tmp_path) as program:
        for name, file in [
            *((_common_name(file), file) for file in server.other_roots),
            (_common_name(server.root), server.root),
            ("Nobody", server.root),
        ]:
            ran = renewed(program, "--force", "--preferred-chain", name)

            root = x509.load_pem_x509_certificate(file.read_bytes())
            chain_of(program, ran)[-1].verify_directly_issued_by(root)
            lacks = f"no chain that leads to {name}" in ran.messages
            assert lacks == (name == "Nobody")


def _common_name(file: Path) -> str:
    root = x509.load_pem_x509_certificate(file.read_bytes())
    (name,) = root.subject.get_attributes_for_oid(x509.OID_COMMON_NAME)
    return str(name.value)


# Profiles, and the CA's advice


def test_profiles_are_preferred_or_required(
    acme2certifier: AcmeServer, tmp_path: Path
) -> None:
    with program_at(acme2certifier, tmp_path) as program:
        for profile in PROFILES:
            renewed(program, "--force", "--profile", profile, "--require-profile")
        preferred = renewed(program, "--force", "--profile", "shortlived,tlsserver")
        assert "offers no profile" not in preferred.messages
        unknown = renewed(program, "--force", "--profile", "shortlived")
        assert "The CA offers no profile shortlived" in unknown.messages

        required = program.renew(
            "--force", "--profile", "shortlived", "--require-profile"
        )

        assert required.exit_code == 3
        assert "it offers classic, tlsserver" in required.report["error"]["message"]


def test_a_profile_is_no_matter_where_there_are_none(
    pebble: StartPebble, tmp_path: Path
) -> None:
    with program_at(pebble(), tmp_path) as program:
        assert "it offers none" in renewed(program, "--profile", "classic").messages

        ran = program.renew("--force", "--profile", "classic", "--require-profile")

        assert ran.exit_code == 3


def test_the_cas_advice_is_asked_for_kept_and_shown(
    acme2certifier: AcmeServer, tmp_path: Path
) -> None:
    with program_at(acme2certifier, tmp_path) as program:
        renewed(program)

        later = program.renew()

        assert later.exit_code == 0, later.messages
        assert not later.report["renewed"]
        assert "The CA suggests renewing between " in later.messages
        advice = done(program, "status").report["advice"]
        assert advice["start"] <= advice["drawn"] <= advice["end"]
        renewed(program, "--force")
        assert done(program, "status").report["advice"] is None
