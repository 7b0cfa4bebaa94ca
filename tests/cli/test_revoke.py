"""Certificates that are revoked, and keys that are kept or never used again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from letsencrypt_mdaemon.acme import transport
from letsencrypt_mdaemon.errors import AcmeError, ConfigError
from letsencrypt_mdaemon.pki.certificate import (
    Certificate,
    KeyType,
    public_key_hash,
    thumbprint,
)
from letsencrypt_mdaemon.sandbox import folder
from letsencrypt_mdaemon.sandbox.ca.certificates import ari_name
from letsencrypt_mdaemon.sandbox.ca.messages import LOST, Issued, Problem, html
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from tests.program import HOST_NAME, Program, Ran, at
from tests.scene import Scene, scene_in, without

REUSE = ("--key-policy", "reuse")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with scene_in(tmp_path) as scene:
        yield scene


# What the CA is asked (RFC 8555, 7.6)


def revoke(scene: Scene, certificate: Certificate, *, reason: int = 0) -> None:
    """Revoke a certificate in a new run that has its key at hand."""
    scene.issuer(agree_tos=False).revoke(certificate.leaf, reason, certificate.key)


def at_ca(ca: CertificateAuthority, leaf: x509.Certificate) -> Issued:
    """Return what the CA knows of a certificate."""
    return ca.issued[ari_name(leaf)]


def test_a_certificate_is_revoked_by_the_account_with_the_reason(scene: Scene) -> None:
    certificate = scene.obtain()

    scene.issuer().revoke(certificate.leaf, 4, None)

    assert at_ca(scene.ca, certificate.leaf).revoked
    (request,) = scene.requests("revokeCert")
    assert request.payload["reason"] == 4


def belong_to_another(scene: Scene) -> None:
    (scene.state.folder / "account.json").unlink()
    scene.obtain("other.example.test")


def lose(scene: Scene) -> None:
    scene.ca.accounts.clear()


def close(scene: Scene) -> None:
    (account,) = scene.ca.accounts.values()
    account.document["status"] = "deactivated"


@pytest.mark.parametrize("event", [belong_to_another, lose, close])
@pytest.mark.parametrize("kind", ["p256", "p384", "rsa2048"])
def test_what_is_not_the_accounts_is_revoked_by_its_own_key(
    scene: Scene, event: Callable[[Scene], None], kind: KeyType
) -> None:
    certificate = scene.obtain(key_type=kind)
    event(scene)

    revoke(scene, certificate)

    assert at_ca(scene.ca, certificate.leaf).revoked


def test_no_account_is_made_to_revoke_what_has_its_key_at_hand(scene: Scene) -> None:
    certificate = scene.obtain()
    scene.state.retire_account()

    revoke(scene, certificate)

    assert at_ca(scene.ca, certificate.leaf).revoked
    assert scene.count("newAccount") == (1,)
    assert scene.state.account() is None


def test_what_is_neither_the_accounts_nor_has_its_key_is_refused(scene: Scene) -> None:
    certificate = scene.obtain()
    belong_to_another(scene)

    with pytest.raises(AcmeError, match="belongs to another account"):
        scene.issuer().revoke(certificate.leaf, 0, None)

    assert not at_ca(scene.ca, certificate.leaf).revoked


@pytest.mark.parametrize("event", [lambda _: None, close])
def test_what_is_revoked_already_is_fine(
    scene: Scene, event: Callable[[Scene], None]
) -> None:
    certificate = scene.obtain()
    revoke(scene, certificate)
    event(scene)

    revoke(scene, certificate)

    assert at_ca(scene.ca, certificate.leaf).revoked


def test_a_revocation_whose_answer_got_lost_is_done(scene: Scene) -> None:
    certificate = scene.obtain()
    scene.ca.faults.after("revokeCert", html(502), times=1)

    revoke(scene, certificate)

    assert at_ca(scene.ca, certificate.leaf).revoked


def test_a_reason_that_the_ca_does_not_take_is_told(scene: Scene) -> None:
    certificate = scene.obtain()
    refusal = Problem("badRevocationReason", "No such reason here")
    scene.ca.faults.before("revokeCert", refusal)

    with pytest.raises(AcmeError, match="No such reason here") as caught:
        revoke(scene, certificate, reason=5)

    assert caught.value.hint == "Choose another --reason."
    assert scene.count("revokeCert") == (1,)


def test_a_ca_that_revokes_nothing_is_told(scene: Scene) -> None:
    certificate = scene.obtain()
    scene.ca.faults.after("directory", without("revokeCert"))

    with pytest.raises(ConfigError, match="does not support revocation"):
        revoke(scene, certificate)


# The commands


def renewed(program: Program, *options: str) -> Ran:
    """Renew, which has to put another certificate into use."""
    ran = program.here("renew", "--no-reload", *options)
    assert ran.exit_code == 0, ran.messages
    assert ran.report["renewed"], ran.report["reason"]
    return ran


def print_of(ran: Ran) -> str:
    """Return the thumbprint of what is in use after a run."""
    return str(ran.report["certificate"]["thumbprint"])


def leaf(program: Program, digest: str) -> x509.Certificate:
    """Return a certificate of the store, which has its private key beside it."""
    for file in program.layout.certificates.glob("*/cert.pem"):
        found = x509.load_pem_x509_certificate(file.read_bytes())
        if thumbprint(found) == digest:
            key = file.with_name("privkey.pem").read_bytes()
            loaded = load_pem_private_key(key, None)
            assert loaded.public_key() == found.public_key()
            return found
    raise AssertionError(digest)


def key_of(program: Program, ran: Ran) -> str:
    """Return the hash of the public key that is in use after a run."""
    return public_key_hash(leaf(program, print_of(ran)))


def compromise(program: Program, digest: str) -> None:
    """Revoke a certificate because others have its key."""
    ran = program.here("revoke", "--thumbprint", digest, "--reason", "keyCompromise")
    assert ran.exit_code == 0, ran.messages


def test_what_was_revoked_is_due_and_replaced(
    program: Program, ca: CertificateAuthority
) -> None:
    first = renewed(program)
    old = leaf(program, print_of(first))

    ran = program.here("revoke", "--thumbprint", print_of(first))

    assert ran.exit_code == 0, ran.messages
    assert ran.report["reason"] == "unspecified"
    assert ran.report["certificate"] == first.report["certificate"]
    assert at_ca(ca, old).revoked
    status = program.here("status").report
    assert status["due"]
    assert "was revoked on" in status["reason"]
    second = renewed(program)
    assert "was revoked on" in second.report["reason"]
    assert key_of(program, second) != public_key_hash(old)
    assert not program.here("status").report["due"]


def test_a_thumbprint_may_be_written_as_people_write_it(
    program: Program, ca: CertificateAuthority
) -> None:
    first = print_of(renewed(program))
    shown = ":".join(first[at : at + 2].lower() for at in range(0, 40, 2))

    ran = program.here("revoke", "--thumbprint", shown, as_json=False)

    assert ran.exit_code == 0, ran.messages
    assert ran.output.startswith(f"Revoked: {first} for {HOST_NAME}, valid until ")
    assert "It is still in use. Run `letsencrypt-mdaemon renew` now." in ran.output
    assert all(issued.revoked for issued in ca.issued.values())
    renewed(program)
    again = program.here("revoke", "--thumbprint", shown, as_json=False)
    assert again.exit_code == 0
    assert "still in use" not in again.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "No certificate given"),
        (("--thumbprint", "12"), "holds no certificate 12"),
        (("--thumbprint", "AB" * 20), "holds no certificate ABAB"),
        (("--thumbprint", "AB" * 20, "--reason", "boredom"), "'boredom'"),
    ],
)
def test_what_cannot_be_revoked_is_told_without_asking_the_ca(
    program: Program, ca: CertificateAuthority, options: tuple[str, ...], said: str
) -> None:
    for program.agrees in (True, False):
        ran = program.here("revoke", *options)

        assert ran.exit_code == 2
        assert said in ran.report["error"]["message"]
        assert "consent" not in ran.report["error"]["message"]
        assert ca.requests == []


def test_a_refused_revocation_is_exit_code_3_and_changes_nothing(
    program: Program, ca: CertificateAuthority
) -> None:
    first = print_of(renewed(program))
    ca.faults.before("revokeCert", Problem("malformed", "Not this one"))

    ran = program.here("revoke", "--thumbprint", first)

    assert ran.exit_code == 3
    message = ran.report["error"]["message"]
    assert message.startswith(f"The certificate {first} is NOT revoked: https://")
    assert "Not this one" in message
    assert not program.here("status").report["due"]


def test_a_ca_that_revokes_nothing_leaves_no_doubt(
    program: Program, ca: CertificateAuthority
) -> None:
    first = print_of(renewed(program))
    ca.faults.after("directory", without("revokeCert"))

    ran = program.here("revoke", "--thumbprint", first)

    assert ran.exit_code == 2
    assert f"The certificate {first} is NOT revoked" in ran.report["error"]["message"]


def test_a_revocation_without_an_answer_is_to_be_repeated(
    program: Program, ca: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "ATTEMPTS", 1)
    first = print_of(renewed(program))
    ca.faults.after("revokeCert", LOST, times=1)

    ran = program.here("revoke", "--thumbprint", first)

    assert ran.exit_code == 3
    error = ran.report["error"]
    assert f"The certificate {first} may not be revoked: " in error["message"]
    assert error["hint"].endswith("Then run `revoke` again.")
    assert program.here("revoke", "--thumbprint", first).exit_code == 0


def test_what_nobody_remembers_is_due_all_the_same_once_it_is_revoked(
    program: Program,
) -> None:
    first = print_of(renewed(program))
    (program.state / "installation.json").unlink()
    assert not program.here("status").report["due"]

    assert program.here("revoke", "--thumbprint", first).exit_code == 0

    assert "was revoked on" in program.here("status").report["reason"]
    assert print_of(renewed(program)) != first


def test_what_waits_to_be_put_into_use_may_be_revoked_and_is_forgotten(
    program: Program, ca: CertificateAuthority
) -> None:
    assert program.here("renew", "--no-activate").exit_code == 0
    (pending,) = [program.here("status").report["pending"]["thumbprint"]]

    assert program.here("revoke", "--thumbprint", pending).exit_code == 0

    assert program.here("status").report["pending"] is None
    assert all(issued.revoked for issued in ca.issued.values())
    assert print_of(renewed(program)) != pending


# Keys that are kept


def test_a_key_is_kept_if_wanted_and_its_tlsa_record_is_shown(program: Program) -> None:
    first = renewed(program, *REUSE)
    second = renewed(program, "--force", *REUSE)

    record = f"_25._tcp.{HOST_NAME}. IN TLSA 3 1 1 {key_of(program, first)}"
    assert print_of(first) != print_of(second)
    assert key_of(program, second) == key_of(program, first)
    assert first.report["tlsa"] == second.report["tlsa"] == record
    assert program.here("status", *REUSE).report["tlsa"] == record
    shown = program.here("renew", "--no-reload", *REUSE, as_json=False).output
    assert f"  TLSA record  {record}\n" in shown
    assert record in program.here("status", *REUSE, as_json=False).output


def test_a_key_is_not_kept_and_no_record_shown_unless_wanted(program: Program) -> None:
    first, second = renewed(program), renewed(program, "--force")

    assert key_of(program, second) != key_of(program, first)
    assert first.report["tlsa"] is None
    assert program.here("status").report["tlsa"] is None
    assert "TLSA" not in program.here("status", as_json=False).output


def change_its_kind(_: Program) -> tuple[str, ...]:
    return ("--key-type", "p384")


def lose_it(program: Program) -> tuple[str, ...]:
    for file in program.layout.certificates.glob("*/privkey.pem"):
        file.unlink()
    return ()


def exchange_it(program: Program) -> tuple[str, ...]:
    (file,) = program.layout.certificates.glob("letsencrypt-mdaemon */privkey.pem")
    renewed(program, "--force")
    (other,) = set(
        program.layout.certificates.glob("letsencrypt-mdaemon */privkey.pem")
    ) - {file}
    other.write_bytes(file.read_bytes())
    return ()


@pytest.mark.parametrize("event", [change_its_kind, lose_it, exchange_it])
def test_a_key_that_cannot_be_kept_is_replaced_with_a_warning(
    program: Program, event: Callable[[Program], tuple[str, ...]]
) -> None:
    first = key_of(program, renewed(program, *REUSE))
    options = event(program)

    ran = renewed(program, "--force", *REUSE, *options)

    assert key_of(program, ran) != first
    (said,) = [line for line in ran.report["warnings"] if "cannot be reused" in line]
    assert "Publish its TLSA record" in said


def by_hand(program: Program, old: str, new: str, *names: str) -> None:
    """Choose another certificate in some of the server's files."""
    for name in names:
        file = program.layout.folder / folder.TARGETS[name].file
        data = file.read_bytes()
        for form in (str.upper, str.lower, lambda text: bytes.fromhex(text).hex(" ")):
            data = data.replace(form(old).encode(), form(new).encode())
            data = data.replace(form(old).upper().encode(), form(new).upper().encode())
        file.write_bytes(data)
    assert new in program.bound()


@pytest.mark.parametrize("names", [["mail"], ["mail", "webmail", "admin"]])
def test_a_key_is_kept_also_after_somebody_chose_another_certificate(
    program: Program, names: list[str]
) -> None:
    (theirs,) = program.bound()
    first = renewed(program, *REUSE)
    by_hand(program, print_of(first), theirs, *names)

    second = renewed(program, *REUSE)

    assert key_of(program, second) == key_of(program, first)


def test_a_key_is_kept_also_by_another_ca(program: Program, tmp_path: Path) -> None:
    first = renewed(program, *REUSE)
    port = program.server.http_port
    with CertificateAuthority(tmp_path / "other", http_port=port) as other:
        there = at(other.directory_url, other.ca_bundle)

        second = renewed(program, *REUSE, *there)

        assert (
            "did not obtain the certificate in use from this CA"
            in second.report["reason"]
        )
        assert key_of(program, second) == key_of(program, first)
        bad = key_of(program, first)
        compromise(program, print_of(first))
        third = renewed(program, *REUSE, *there)
        assert key_of(program, third) != bad


# Keys that are compromised


def test_a_compromised_key_is_never_used_again_whatever_the_policy(
    program: Program,
) -> None:
    first = renewed(program, *REUSE)
    compromise(program, print_of(first))

    second = renewed(program, *REUSE)
    third = renewed(program, "--force", *REUSE)

    bad, good = key_of(program, first), key_of(program, second)
    assert good != bad
    assert key_of(program, third) == good
    assert "revoked as compromised" in str(second.report["warnings"])
    assert second.report["tlsa"].endswith(good)


def test_a_key_is_compromised_with_every_certificate_that_has_it(
    program: Program,
) -> None:
    first = renewed(program, *REUSE)
    second = renewed(program, "--force", *REUSE)
    bad = key_of(program, first)
    assert key_of(program, second) == bad

    compromise(program, print_of(first))

    # Nothing uses it; the other one may have to be revoked, too.
    with pytest.raises(AssertionError, match=print_of(first)):
        leaf(program, print_of(first))
    assert key_of(program, second) == bad
    status = program.here("status", *REUSE).report
    assert status["due"]
    assert "revoked as compromised" in status["reason"]
    third = renewed(program, *REUSE)
    assert key_of(program, third) != bad


def test_an_order_left_open_with_a_compromised_key_is_not_gone_on_with(
    program: Program, ca: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "ATTEMPTS", 1)
    first = renewed(program, *REUSE)
    ca.faults.before("finalize", html(503), times=1)
    assert program.here("renew", "--force", *REUSE).exit_code == 3
    assert list(program.state.glob("*/order.json"))
    compromise(program, print_of(first))

    second = renewed(program, *REUSE)

    assert key_of(program, second) != key_of(program, first)


def test_a_certificate_that_waits_with_a_compromised_key_is_not_put_into_use(
    program: Program,
) -> None:
    first = renewed(program, *REUSE)
    assert program.here("renew", "--force", "--no-activate", *REUSE).exit_code == 0
    assert program.here("status", *REUSE).report["pending"]
    compromise(program, print_of(first))

    assert program.here("status", *REUSE).report["pending"] is None
    second = renewed(program, *REUSE)

    assert key_of(program, second) != key_of(program, first)


def test_a_revocation_that_is_killed_puts_nothing_compromised_into_use(
    program: Program,
) -> None:
    first = renewed(program, *REUSE)
    assert program.here("renew", "--force", "--no-activate", *REUSE).exit_code == 0
    (file,) = program.state.glob("*/pending.pem")
    waiting = file.read_bytes()
    compromise(program, print_of(first))
    file.write_bytes(waiting)  # before it was removed

    second = renewed(program, *REUSE)

    assert key_of(program, second) != key_of(program, first)


def test_a_key_is_compromised_also_if_the_ca_cannot_be_told(
    program: Program, ca: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "ATTEMPTS", 1)
    first = renewed(program, *REUSE)
    ca.faults.before("revokeCert", Problem("serverInternal", "Oops", 500), times=1)
    options = ("--thumbprint", print_of(first), "--reason", "keycompromise")
    assert program.here("revoke", *options).exit_code == 3

    second = renewed(program, *REUSE)

    assert key_of(program, second) != key_of(program, first)
    revoked = leaf(program, print_of(first))
    assert program.here("revoke", *options).exit_code == 0
    assert at_ca(ca, revoked).revoked
    with pytest.raises(AssertionError, match=print_of(first)):
        leaf(program, print_of(first))


@pytest.mark.parametrize("reason", ["superseded", "keyCompromise"])
def test_nothing_goes_back_to_what_was_revoked(secure: Program, reason: str) -> None:
    prints = []
    for _ in range(3):
        ran = secure.here("renew", "--force", *REUSE)
        assert ran.exit_code == 0, ran.messages
        prints.append(print_of(ran))
    revoked = prints[1] if reason == "superseded" else prints[0]
    done = secure.here("revoke", "--thumbprint", revoked, "--reason", reason)
    assert done.exit_code == 0, done.messages

    ran = secure.here("rollback")

    if reason == "superseded":
        assert secure.bound() == {prints[0]}
    else:
        assert ran.exit_code == 2
        assert secure.bound() == {prints[2]}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("revoke", f" for {HOST_NAME}, by "),
        ("account deactivate", "This closes the account at https://"),
    ],
)
def test_without_consent_nothing_is_asked_of_the_ca(
    program: Program, ca: CertificateAuthority, command: str, said: str
) -> None:
    digest = print_of(renewed(program))
    program.agrees = False
    before = len(ca.requests)
    options = ["--thumbprint", digest] if command == "revoke" else []

    ran = program.here(command, *options)

    assert ran.exit_code == 2
    message = ran.report["error"]["message"]
    assert message.startswith(f"`{command}` needs your consent. ")
    assert said in message
    final = "The CA will revoke it, with the reason unspecified. This is final"
    assert (final in message) is bool(options)
    assert ("Used by: mail, webmail, Remote Administration" in message) is bool(options)
    assert len(ca.requests) == before
