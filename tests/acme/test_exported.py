"""The account of one server, taken to another one in an encrypted file."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest

from letsencrypt_mdaemon.acme.exported import FORMAT, MAX_EXPORT_BYTES, seal, unseal
from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.state.memory import Account
from tests.program import Program

CA = "https://ca.example.test/directory"
PASSPHRASE = "five words are good enough"  # noqa: S105 - of no account
ACCOUNT = Account({"kty": "EC", "d": "the secret"}, "https://ca.example.test/1")


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    file = tmp_path / "passphrase.txt"
    file.write_text(f"{PASSPHRASE}\n")
    return file


def test_the_account_comes_back_with_the_passphrase_only() -> None:
    data = seal(ACCOUNT, CA, PASSPHRASE)

    assert unseal(data, PASSPHRASE, CA) == ACCOUNT
    assert b"the secret" not in data
    assert len(data) < MAX_EXPORT_BYTES
    assert data != seal(ACCOUNT, CA, PASSPHRASE), "each has a salt of its own"
    with pytest.raises(ConfigError, match="passphrase does not open"):
        unseal(data, PASSPHRASE + "!", CA)


def test_an_account_at_another_ca_is_refused() -> None:
    data = seal(ACCOUNT, CA, PASSPHRASE)

    with pytest.raises(ConfigError, match=r"another CA: https://ca\.example\.test/"):
        unseal(data, PASSPHRASE, "https://other.example.test/directory")


def test_a_short_passphrase_is_refused() -> None:
    with pytest.raises(ConfigError, match="less than 16 characters"):
        seal(ACCOUNT, CA, "x" * 15)


@pytest.mark.parametrize("at", range(0, 300, 17))
def test_a_changed_file_is_refused(at: int) -> None:
    data = bytearray(seal(ACCOUNT, CA, PASSPHRASE))
    data[at] ^= 1

    with pytest.raises(ConfigError):
        unseal(bytes(data), PASSPHRASE, CA)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{}", b"[]", b"null", b"\xff", b"[" * 9999),
        json.dumps({"format": FORMAT}).encode(),
        json.dumps({"format": FORMAT, "salt": "!", "sealed": ""}).encode(),
        json.dumps({"format": FORMAT, "salt": 1, "sealed": ""}).encode(),
        json.dumps({"format": FORMAT, "salt": "", "sealed": []}).encode(),
        json.dumps({"format": FORMAT, "salt": "", "sealed": "\u20ac"}).encode(),
        json.dumps({"format": "another", "salt": "", "sealed": ""}).encode(),
    ],
)
def test_any_other_file_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigError):
        unseal(data, PASSPHRASE, CA)


def account_file(program: Program) -> Path:
    """Return the file that holds the account."""
    (file,) = program.state.glob("*/account.json")
    return file


def exported_to(program: Program, file: Path, passphrase: Path) -> list[str]:
    """Export the account; return the options that import it."""
    words = ["--passphrase-file", str(passphrase)]
    ran = program.here("account export", "--to", str(file), *words)
    assert ran.report["file"] == str(file)
    return ["--from", str(file), *words]


def test_another_server_uses_the_account_and_registers_none(
    program: Program, ca: CertificateAuthority, tmp_path: Path, passphrase: Path
) -> None:
    assert program.here("renew").exit_code == 0
    (url,) = ca.accounts
    words = exported_to(program, tmp_path / "account.json", passphrase)
    account_file(program).unlink()

    assert program.here("account import", *words).report["account"] == url

    kept = account_file(program).read_bytes()
    assert program.here("renew", "--force").exit_code == 0
    assert list(ca.accounts) == [url]
    assert program.here("account import", *words).report["account"] == url
    assert account_file(program).read_bytes() == kept, "again changes nothing"
    assert not list(program.state.glob("*/account.json.retired*"))


def test_a_key_that_was_rolled_over_is_taken_without_a_question(
    program: Program, ca: CertificateAuthority, tmp_path: Path, passphrase: Path
) -> None:
    assert program.here("renew").exit_code == 0
    before = account_file(program).read_bytes()
    assert program.here("account rollover").exit_code == 0
    words = exported_to(program, tmp_path / "account.json", passphrase)
    rolled = json.loads(account_file(program).read_bytes())["key"]
    account_file(program).write_bytes(before)  # as on the other servers
    program.agrees = False

    assert program.here("account import", *words).exit_code == 0

    assert json.loads(account_file(program).read_bytes())["key"] == rolled
    assert program.here("renew", "--force").exit_code == 0
    assert len(ca.accounts) == 1


def test_another_account_is_set_aside_only_with_consent(
    program: Program, ca: CertificateAuthority, tmp_path: Path, passphrase: Path
) -> None:
    assert program.here("renew").exit_code == 0
    (first,) = ca.accounts
    words = exported_to(program, tmp_path / "account.json", passphrase)
    account_file(program).unlink()
    assert program.here("renew", "--force").exit_code == 0
    second = account_file(program).read_bytes()
    program.agrees = False

    refused = program.here("account import", *words)

    assert refused.exit_code == 2
    assert "takes its place" in refused.report["error"]["message"]
    assert account_file(program).read_bytes() == second
    assert program.here("account import", *words, "--yes").report["account"] == first
    (aside,) = program.state.glob("*/account.json.retired*")
    assert aside.read_bytes() == second


def test_an_account_that_the_ca_does_not_know_is_not_taken(
    program: Program, ca: CertificateAuthority, tmp_path: Path, passphrase: Path
) -> None:
    assert program.here("renew").exit_code == 0
    words = exported_to(program, tmp_path / "account.json", passphrase)
    account_file(program).unlink()
    ca.accounts.clear()

    assert program.here("account import", *words).exit_code == 3
    assert not list(program.state.glob("*/account.json"))


def test_an_export_is_private_and_replaces_nothing(
    program: Program, ca: CertificateAuthority, tmp_path: Path, passphrase: Path
) -> None:
    assert program.here("renew").exit_code == 0
    file, ours = tmp_path / "account.json", tmp_path / "ours"
    ours.write_text("ours")
    exported_to(program, file, passphrase)
    before = file.read_bytes()
    words = ("--passphrase-file", str(passphrase))

    again = program.here("account export", "--to", str(file), *words)

    assert again.exit_code == 2
    assert file.read_bytes() == before
    if sys.platform != "win32":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        (link := tmp_path / "link").symlink_to(ours)
        linked = program.here("account export", "--to", str(link), *words)
        assert linked.exit_code == 2
    assert ours.read_text() == "ours"
    assert PASSPHRASE not in again.messages
    assert list(ca.accounts)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--from", "nowhere"), "Could not read nowhere"),
        (("--from", "."), "Could not read ."),
        (("--passphrase-file", "nowhere"), "(--passphrase-file)"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    program: Program, passphrase: Path, words: tuple[str, str], text: str
) -> None:
    given = {"--from": str(passphrase), "--passphrase-file": str(passphrase)}
    given |= {words[0]: words[1]}

    ran = program.here(
        "account import", *(word for row in given.items() for word in row)
    )

    assert ran.exit_code == 2
    assert text in ran.report["error"]["message"]


def test_a_wrong_passphrase_changes_nothing(
    program: Program, ca: CertificateAuthority, tmp_path: Path, passphrase: Path
) -> None:
    assert program.here("renew").exit_code == 0
    words = exported_to(program, tmp_path / "account.json", passphrase)
    before, requests = account_file(program).read_bytes(), len(ca.requests)
    passphrase.write_text("another passphrase, long enough")

    ran = program.here("account import", *words)

    assert ran.exit_code == 2
    assert "does not open the file" in ran.report["error"]["message"]
    assert account_file(program).read_bytes() == before
    assert len(ca.requests) == requests
