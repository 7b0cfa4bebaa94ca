"""`renew`: what a run leaves in the files, at the CA, in the log and in mailboxes."""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key, pkcs12

from letsencrypt_mdaemon.app import build
from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.sandbox import mdaemon
from letsencrypt_mdaemon.sandbox.ca.certificates import ari_name
from letsencrypt_mdaemon.sandbox.ca.messages import Problem
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.sandbox.folder import FOREIGN, INI_FILES, TARGETS, bound
from letsencrypt_mdaemon.windows.service import STOPPED, Status
from tests.fakes import MemoryEventLog, MemoryService, read_only
from tests.program import HOST_NAME, PREFIX, Program, Ran, here, run

IMAP, POP = "imap.example.test", "pop.example.test"
BOOKS = "xn--bcher-kva.example.test"
UNKNOWN = "AA" * 20
"""Thumbprint of a certificate that nobody has."""


# What there is to see


def folders(program: Program) -> list[Path]:
    """Return the folders of our certificates in the store."""
    return sorted(program.layout.certificates.glob("letsencrypt-mdaemon *"))


def leaf(folder: Path) -> x509.Certificate:
    """Return the certificate in a folder of the store."""
    return x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())


def stored(program: Program) -> set[str]:
    """Return the thumbprints of all the certificates in the store."""
    files = program.layout.certificates.glob("*/cert.pem")
    return {thumbprint(leaf(file.parent)) for file in files}


def asked(ca: CertificateAuthority) -> list[str]:
    """Return what the CA was asked for since the last time, in order."""
    resources = [request.resource for request in ca.requests]
    ca.requests.clear()
    return resources


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return everything below a folder: when it was changed, and its bytes."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in folder.rglob("*")
    }


def semaphores(program: Program) -> list[str]:
    """Return the semaphore files that wait for the server."""
    return [path.name for path in program.layout.app.glob("*.SEM")]


def mails(program: Program) -> list[Path]:
    """Return all mails, delivered or not."""
    layout = program.layout
    places = (layout.raw, layout.delivered, layout.bad)
    return [path for place in places for path in place.iterdir()]


# What there is to do


def renewed(program: Program, *options: str) -> str:
    """Renew without a reload, and return the new certificate's thumbprint."""
    ran = program.here("renew", "--no-reload", *options)
    assert ran.exit_code == 0, ran.messages
    assert ran.report["renewed"], ran.report["reason"]
    return str(ran.report["certificate"]["thumbprint"])


def rewritten(data: bytes, old: str, new: str) -> bytes:
    """Return an INI file of the sandbox with another thumbprint, in its own form."""
    forms = (str.upper, str.lower, lambda text: bytes.fromhex(text).hex(" ").upper())
    for form in forms:
        data = data.replace(form(old).encode(), form(new).encode())
    return data


def forget_partner(program: Program) -> None:
    """Take the other certificate out of webmail's list: nobody knows that one."""
    file = program.layout.folder / TARGETS["webmail"].file
    partner = f",{FOREIGN}".lower().encode()
    file.write_bytes(file.read_bytes().replace(partner, b""))


def choose(program: Program, new: str, *parts: str) -> None:
    """Choose a certificate by hand for parts of the server, as in its dialog."""
    named = bound(program.layout.folder)
    for part in parts or TARGETS:
        file = program.layout.folder / TARGETS[part].file
        file.write_bytes(rewritten(file.read_bytes(), named[part], new))


def configure(program: Program, text: str) -> Path:
    """Write the config file where it is looked for."""
    file = program.layout.letsencrypt / "letsencrypt-mdaemon.ini"
    file.write_text(text, "utf-8")
    return file


@pytest.mark.parametrize("inside", ["", "App", "App/MDaemon.ini"])
def test_the_config_file_is_found_by_any_path_that_finds_the_server(
    program: Program, inside: str
) -> None:
    file = configure(program, "[letsencrypt-mdaemon]\nkey-type = p384\n")
    place = str(program.layout.folder / inside)

    ran = here(["config", "show", "--mdaemon-dir", place, "--json"])

    assert ran.report["config_file"] == str(file)
    assert ran.report["settings"]["key-type"]["value"] == "p384"


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    """Serve a certificate over TLS, and nothing else, on a port of this machine."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "fullchain.pem", folder / "privkey.pem")

    class Handshake(BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                context.wrap_socket(self.request, server_side=True).close()

    with (
        ThreadingTCPServer(("127.0.0.1", 0), Handshake) as server,
        mdaemon.thread(partial(server.serve_forever, 0.02), server.shutdown),
    ):
        yield server.server_address[1]


# The whole job


def test_the_first_run_puts_a_certificate_into_use(
    program: Program, ca: CertificateAuthority
) -> None:
    before = program.snapshot()
    (old,) = program.bound()

    ran = program.renew("--alternate-host-names", f"{IMAP},{POP}")

    assert ran.exit_code == 0, ran.messages
    report = ran.report
    assert report["renewed"]
    assert report["reason"] == "the certificate in use is self-signed"
    assert report["names"] == [HOST_NAME, IMAP, POP]
    new = report["certificate"]["thumbprint"]
    assert [change["file"] for change in report["changes"]] == [
        target.file for target in sorted(TARGETS.values())
    ]
    # Only the three values differ: the list's other entry, remarks, odd bytes stay.
    (place,) = folders(program)
    inside = place.relative_to(program.layout.folder)
    files = ("cert.pem", "chain.pem", "fullchain.pem", "privkey.pem")
    after = program.snapshot()
    assert {str(inside / name) for name in files} == after.keys() - before.keys()
    for name, data in before.items():
        own = name in INI_FILES
        assert after[name] == (rewritten(data, old, new) if own else data), name
    assert sum(after[name] != before[name] for name in before) == 3
    assert program.bound() == {new}
    assert program.server.semaphores == ["RELOADCACHE.SEM", "RESTARTWC.SEM"]
    assert report["reloaded"] == program.server.semaphores
    assert program.server.serving["mail"] == new
    assert program.server.serving["webmail"] == new
    assert len(ca.orders) == 1


def test_the_store_gets_the_chain_and_a_private_key(
    program: Program, ca: CertificateAuthority
) -> None:
    new = renewed(program)

    (place,) = folders(program)
    pem = (place / "fullchain.pem").read_bytes()
    chain = x509.load_pem_x509_certificates(pem)
    assert thumbprint(chain[0]) == new
    assert chain[0] == leaf(place)
    assert pem == b"".join(
        (place / name).read_bytes() for name in ("cert.pem", "chain.pem")
    )
    for child, parent in zip(chain, [*chain[1:], ca.root], strict=True):
        child.verify_directly_issued_by(parent)
    file = place / "privkey.pem"
    key = load_pem_private_key(file.read_bytes(), None)
    assert key.public_key() == chain[0].public_key()
    if os.name == "posix":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_nothing_is_left_of_the_challenges(program: Program) -> None:
    before = tree(program.layout.webroot).keys()

    renewed(program, "--alternate-host-names", f"{IMAP},{POP}")

    assert len(program.server.requests) == 3
    assert tree(program.layout.webroot).keys() == before


def test_a_second_run_finds_nothing_due_and_orders_nothing(
    program: Program, ca: CertificateAuthority
) -> None:
    new = renewed(program)
    before = program.snapshot()
    asked(ca)

    ran = program.renew()

    assert ran.exit_code == 0, ran.messages
    assert not ran.report["renewed"]
    assert ran.report["reason"].startswith("the certificate in use is valid until ")
    assert ran.report["certificate"]["thumbprint"] == new
    assert set(asked(ca)) <= {"directory", "renewalInfo"}
    assert program.snapshot() == before
    assert program.server.semaphores == []


def test_one_account_serves_all_orders(
    program: Program, ca: CertificateAuthority
) -> None:
    renewed(program)
    renewed(program, "--force")
    renewed(program, "--alternate-host-names", IMAP)

    assert len(ca.accounts) == 1
    assert asked(ca).count("newAccount") == 1


# Proof


def test_every_port_is_seen_to_serve_the_new_certificate(secure: Program) -> None:
    ran = secure.renew()

    assert ran.exit_code == 0, ran.messages
    new = ran.report["certificate"]["thumbprint"]
    proof = ran.report["proof"]
    assert set(proof.pop("new")) == set(secure.server.endpoints.values())
    assert {row["verdict"] for row in proof.pop("ports")} == {"new"}
    others = ("old", "broken", "silent", "unproven", "foreign")
    assert proof == {verdict: [] for verdict in others}
    assert ran.report["reloaded"] == ["RELOADCACHE.SEM"]
    assert ran.report["warnings"] == []
    assert set(secure.here("status").report["served"].values()) == {new}


def test_the_server_is_restarted_only_if_that_is_allowed_and_needed(
    secure: Program,
) -> None:
    secure.server.reloads["RELOADCACHE.SEM"] = ("mail", "webmail")
    secure.options += ["--reload-semaphores", "RELOADCACHE.SEM"]
    admin = secure.server.endpoints["admin"]

    first = secure.here("renew")

    assert first.exit_code == 5
    assert f"still serve the old one: {admin}." in first.report["error"]["message"]
    assert secure.server.semaphores == ["RELOADCACHE.SEM"]
    status = secure.here("status", as_json=False).output
    ports = len(secure.server.endpoints)
    said = f"{ports - 1} of {ports} ports; {admin} still serves the old one\n"
    assert f"  in use on    {said}" in status
    assert "not in use yet" not in status
    second = secure.here("renew", "--allow-restart")
    assert second.exit_code == 0, second.messages
    assert secure.server.semaphores[1:] == ["RELOADCACHE.SEM", "RESTART.SEM"]
    new = second.report["certificate"]["thumbprint"]
    assert set(secure.server.serving.values()) == {new}


def use_service(monkeypatch: pytest.MonkeyPatch, service: MemoryService) -> None:
    monkeypatch.setattr(build, "windows_service", lambda _root: service)


def test_the_service_is_restarted_if_the_server_takes_no_semaphore_up(
    secure: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    secure.server.ignore.add("RELOADCACHE.SEM")
    service = MemoryService()
    use_service(monkeypatch, service)
    # It serves the old certificate, so the restart of this fake one changes nothing.
    options = ("--allow-restart", "--reload-timeout", "1", "--verify-timeout", "1")

    ran = secure.here("renew", *options)

    assert service.done == ["stop", "start"]
    assert ran.exit_code == 5
    assert "still serve the old one" in ran.report["error"]["message"]
    assert "Restarted the service good" in secure.log()


def test_the_service_is_not_restarted_unless_that_is_allowed_and_it_runs(
    secure: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    secure.server.ignore.add("RELOADCACHE.SEM")
    service = MemoryService()
    use_service(monkeypatch, service)
    options = ("--reload-timeout", "1", "--verify-timeout", "1")

    secure.here("renew", *options)
    secure.here("renew", *options, "--allow-restart", "--no-reload")
    service.now = Status(STOPPED)
    secure.here("renew", *options, "--allow-restart")

    assert service.done == []


def test_a_service_that_cannot_be_restarted_is_told_and_the_next_run_goes_on(
    secure: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    secure.server.ignore.add("RELOADCACHE.SEM")
    use_service(monkeypatch, MemoryService("denied"))
    options = ("--allow-restart", "--reload-timeout", "1", "--verify-timeout", "1")

    failed = secure.here("renew", *options)

    assert failed.exit_code == 5
    assert failed.report["error"]["message"] == (
        "Could not stop the service denied: Access is denied (Windows error 5); "
        "it is running."
    )
    secure.server.ignore.clear()
    again = secure.here("renew", "--allow-restart")
    assert again.exit_code == 0, again.messages
    assert again.report["renewed"]


def test_a_server_whose_service_is_stopped_is_asked_for_nothing(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = MemoryService()
    service.now = Status(STOPPED)
    use_service(monkeypatch, service)

    ran = program.here("renew", "--smtp-address", "none")

    assert ran.exit_code == 0, ran.messages
    assert ran.report["warnings"][0] == (
        "The service good is stopped. MDaemon uses the certificate that its files name "
        "after its next start."
    )
    assert program.server.semaphores == semaphores(program) == service.done == []


def test_a_certificate_that_a_port_does_not_take_is_rolled_back(
    secure: Program,
) -> None:
    (old,) = secure.bound()
    before = secure.snapshot()
    secure.server.spoil(mdaemon.Fault.NO_TLS, "webmail")

    ran = secure.here("renew", "--to", "anna@example.test")

    assert ran.exit_code == 5
    webmail = secure.server.endpoints["webmail"]
    assert f"The new certificate broke {webmail}" in ran.report["error"]["message"]
    after = secure.snapshot()
    assert {name: after[name] for name in before} == before
    assert set(secure.here("status").report["served"].values()) == {old}
    secure.server.wait_for(lambda: secure.server.delivered)
    later = secure.here("renew")
    assert later.exit_code == 5
    assert "The certificate in use is self-signed" in later.report["error"]["message"]
    assert not later.report["renewed"]
    assert secure.bound() == {old}
    secure.server.faults.clear()
    cured = secure.here("activate")
    assert cured.exit_code == 0, cured.messages
    assert secure.bound() == {cured.report["certificate"]["thumbprint"]} != {old}


def test_rollback_goes_back_to_the_certificate_before(secure: Program) -> None:
    first = secure.here("renew").report["certificate"]
    second = secure.here("renew", "--force").report["certificate"]
    assert secure.bound() == {second["thumbprint"]}

    ran = secure.here("rollback")

    assert ran.exit_code == 0, ran.messages
    assert ran.report["certificate"] == first
    assert secure.bound() == {first["thumbprint"]}


@pytest.mark.parametrize("how", ["the config file", "the command line"])
def test_a_dry_run_of_rollback_changes_no_byte(
    how: str, secure: Program, tmp_path: Path
) -> None:
    assert secure.here("renew").exit_code == 0
    assert secure.here("renew", "--force").exit_code == 0
    file = secure.layout.letsencrypt / "letsencrypt-mdaemon.ini"
    options = ["--dry-run"] if how == "the command line" else []
    if not options:
        file.write_text("[letsencrypt-mdaemon]\ndry-run = yes\n", "utf-8")
    seen = tree(tmp_path)

    ran = secure.here("rollback", *options)

    assert ran.exit_code == 0, ran.messages
    assert tree(tmp_path) == seen
    assert ran.report["dry_run"]
    assert len(ran.report["changes"]) == 3
    assert ran.report["reason"].startswith("would roll back to the certificate")
    shown = secure.here("rollback", *options, as_json=False).output
    assert "Dry run: nothing was changed" in shown
    assert "would change" in shown


@pytest.mark.parametrize("command", ["activate", "rollback"])
def test_a_rehearsal_puts_nothing_into_use(
    command: str, program: Program, ca: CertificateAuthority
) -> None:
    assert program.here("renew", "--no-reload").exit_code == 0
    asked(ca)
    before = program.snapshot()

    ran = program.here(command, environ={f"{PREFIX}STAGING": "yes"})

    assert ran.exit_code == 2
    assert "with staging = yes, nothing in use is changed" in ran.messages
    assert asked(ca) == []
    assert program.snapshot() == before


def test_a_certificate_may_be_obtained_now_and_put_into_use_later(
    program: Program, ca: CertificateAuthority
) -> None:
    (old,) = program.bound()

    issued = program.here("renew", "--no-activate")

    assert issued.exit_code == 0, issued.messages
    assert not issued.report["renewed"]
    assert program.bound() == {old}
    activated = program.here("activate")
    assert activated.exit_code == 0, activated.messages
    assert program.bound() == {activated.report["certificate"]["thumbprint"]} != {old}
    assert len(ca.orders) == 1


# Due again


def test_other_names_are_a_reason_to_renew(program: Program) -> None:
    renewed(program, "--alternate-host-names", IMAP)

    ran = program.here("renew", "--no-reload", "--alternate-host-names", POP)

    assert ran.report["reason"] == f"the names changed: with {POP}, without {IMAP}"
    assert ran.report["certificate"]["names"] == [HOST_NAME, POP]
    assert program.bound() == {ran.report["certificate"]["thumbprint"]}


def test_another_kind_of_key_is_a_reason_to_renew(program: Program) -> None:
    renewed(program)

    ran = program.here("renew", "--no-reload", "--key-type", "p384")

    assert ran.report["renewed"]
    assert ran.report["reason"] == "the key type is p256, and key-type is p384"


def test_a_certificate_that_the_store_has_lost_is_a_reason_to_renew(
    program: Program,
) -> None:
    forget_partner(program)
    lost = renewed(program)
    (place,) = folders(program)
    shutil.rmtree(place)

    ran = program.here("renew", "--no-reload")

    assert ran.report["renewed"]
    assert ran.report["reason"] == (
        "the server's files name no certificate that is in the store"
    )
    assert program.bound() == {ran.report["certificate"]["thumbprint"]} != {lost}
    replaced = {line for line in ran.report["warnings"] if lost.lower() in line.lower()}
    assert len(replaced) == 2  # the third one has it in pairs


def test_another_certificate_chosen_by_hand_is_replaced_by_ours_without_an_order(
    program: Program, ca: CertificateAuthority
) -> None:
    (self_signed,) = program.bound()
    ours = renewed(program)
    choose(program, self_signed, "webmail")

    ran = program.here("renew", "--no-reload")

    assert ran.report["renewed"]
    assert ran.report["reason"] == (
        "the server's files name different certificates, probably because somebody "
        "chose another one in MDaemon's settings; a good one is in the store"
    )
    assert program.bound() == {ours}
    assert len(ca.orders) == 1


@pytest.mark.parametrize(
    ("lifetime", "age", "reason"),
    [
        (90, 70, "a third or less of the certificate's lifetime is left: it expires"),
        (6, 4, "half or less of the certificate's lifetime is left: it expires"),
    ],
)
def test_a_certificate_that_expires_soon_is_renewed(
    lifetime: int,
    age: int,
    reason: str,
    program: Program,
    ca: CertificateAuthority,
) -> None:
    ca.faults.before("renewalInfo", Problem("malformed", "No advice", 404))
    ca.lifetime = timedelta(days=lifetime)
    ca.clock = lambda: datetime.now(UTC) - timedelta(days=age)
    renewed(program)

    ran = program.here("renew", "--no-reload")

    assert ran.report["renewed"]
    assert ran.report["reason"].startswith(reason)


def test_a_window_in_the_past_is_a_reason_to_renew(
    program: Program, ca: CertificateAuthority
) -> None:
    renewed(program)
    (first,) = ca.issued
    ca.suggested_window = past(hours=2), past(hours=1)
    ca.explanation_url = "https://ca.test/mass-revocation"

    ran = program.here("renew", "--no-reload")

    assert ran.report["renewed"]
    assert ran.report["reason"].startswith("the CA suggests renewing the certificate")
    assert "https://ca.test/mass-revocation" in program.log()
    (order,) = [r.payload for r in ca.requests if r.resource == "newOrder"][1:]
    assert order["replaces"] == first


def past(**ago: int) -> datetime:
    """Return a moment some time ago."""
    return datetime.now(UTC) - timedelta(**ago)


def test_the_ca_is_not_asked_for_its_advice_at_every_run(
    program: Program, ca: CertificateAuthority
) -> None:
    renewed(program)
    asked(ca)
    assert program.here("renew").exit_code == 0
    assert asked(ca) == ["directory", "renewalInfo"]

    ran = program.here("renew")

    assert ran.exit_code == 0
    assert asked(ca) == []


def test_told_to_ask_the_ca_it_learns_of_a_mass_revocation_at_once(
    program: Program, ca: CertificateAuthority
) -> None:
    first = renewed(program)
    assert not program.here("renew").report["renewed"]
    ca.suggested_window = (past(days=2), past(days=1))
    assert not program.here("renew").report["renewed"]

    ran = program.here("renew", "--ask-ca")
    again = program.here("renew", "--ask-ca")

    assert ran.report["renewed"]
    assert program.bound() != {first}
    # As often as it is asked: this certificate is not concerned, or was ordered for it.
    assert again.exit_code == 0
    assert not again.report["renewed"]


# Told otherwise


def test_force_orders_though_nothing_is_due(
    program: Program, ca: CertificateAuthority
) -> None:
    first = renewed(program)

    ran = program.here("renew", "--no-reload", "--force")

    assert ran.report["reason"] == "--force requests a new order"
    second = ran.report["certificate"]["thumbprint"]
    assert program.bound() == {second} != {first}
    assert stored(program) >= {first, second}
    assert ari_name(leaf(folders(program)[0])) in ca.issued


@pytest.mark.parametrize(
    "before", ["nothing", "a run", "a run that failed", "a run that was killed"]
)
def test_a_dry_run_changes_no_byte_and_orders_nothing(
    before: str, program: Program, ca: CertificateAuthority, tmp_path: Path
) -> None:
    if before == "a run":
        renewed(program)
    if before == "a run that failed":
        with read_only(program.layout.app, allowed=1, refused=3):
            assert program.here("renew", "--no-reload").exit_code == 5
    if before == "a run that was killed":
        leave_a_token(program)
    asked(ca)
    seen = tree(tmp_path)

    options = ("--force",) if before == "a run" else ()
    ran = program.here("renew", "--dry-run", "--to", "root@example.test", *options)

    assert ran.exit_code == 0, ran.messages
    assert tree(tmp_path) == seen
    assert set(asked(ca)) <= {"directory", "renewalInfo"}
    assert ran.report["dry_run"]
    assert not ran.report["renewed"]
    assert ran.report["log"] is None
    assert len(ran.report["targets"]) == 3
    assert len(ran.report["changes"]) == (3 if before == "a run that failed" else 0)


def test_a_dry_run_ends_like_a_run_that_accepts_no_terms_of_service(
    program: Program,
) -> None:
    assert program.here("renew", "--dry-run").exit_code == 0
    agreed = list(program.options)
    program.options.remove("--agree-tos")

    dry = program.here("renew", "--dry-run")
    shown = program.here("renew", "--dry-run", as_json=False)
    real = program.here("renew")

    assert dry.exit_code == real.exit_code == 2
    said = "You have not agreed to the CA's terms of service: https://"
    assert dry.report["error"]["message"].startswith(said)
    assert dry.report["error"]["message"] == real.report["error"]["message"]
    assert shown.output.startswith("Dry run: the run would fail; nothing was changed")
    # Once there is an account, the CA does not ask for them.
    program.options[:] = agreed
    renewed(program)
    program.options.remove("--agree-tos")
    again = program.here("renew", "--dry-run", "--force")
    assert (again.exit_code, again.report["warnings"]) == (0, [])


def test_a_dry_run_without_a_ca_cannot_ask_for_its_terms(program: Program) -> None:
    program.options.remove("--agree-tos")
    nobody = ("--directory-url", "https://localhost:1/directory")

    ran = program.here("renew", "--dry-run", *nobody)

    assert ran.exit_code == 0, ran.messages
    (warning,) = ran.report["warnings"]
    assert warning.startswith("Could not ask the CA for its terms of service: ")


def shown(program: Program, *words: str) -> dict[str, str]:
    """Return the first value of each row that a command prints."""
    ran = program.here(*words, as_json=False)
    assert ran.exit_code == 0, ran.messages
    rows = [line for line in ran.output.splitlines() if line.startswith("  ")]
    return {line[2:14].strip(): line[15:] for line in rows if line[2] != " "}


def test_a_dry_run_with_nothing_due_would_change_nothing(secure: Program) -> None:
    due = shown(secure, "renew", "--dry-run")
    waiting = shown(secure, "renew", "--dry-run", "--no-activate")
    renewed(secure)
    idle = shown(secure, "renew", "--dry-run")

    assert "would change" in due
    assert due["due"] == "now"
    assert not {"would change"} & {*waiting, *idle}
    assert "CA" in waiting
    assert "CA" not in idle
    assert idle["due"].startswith("2")


def test_the_certificate_in_use_and_the_new_one_have_rows_of_their_own(
    secure: Program,
) -> None:
    (first, second) = (
        secure.here("renew", "--force").report["certificate"]["thumbprint"]
        for _ in range(2)
    )

    back = shown(secure, "rollback", "--dry-run")
    issued = shown(secure, "renew", "--force", "--no-activate")
    waits = shown(secure, "activate", "--dry-run")
    still = shown(secure, "activate", "--dry-run", "--no-reload")

    assert (back["in use"], back["new"]) == (second, first)
    assert issued["in use"] == waits["in use"] == still["in use"] == second
    assert issued["new"] == waits["new"] not in {first, second}
    assert not {"certificate", "valid until"} & {*back, *issued, *waits}


def test_a_dry_run_of_activate_with_nothing_pending_says_so(program: Program) -> None:
    ran = program.here("activate", "--dry-run", as_json=False)

    assert ran.exit_code == 0, ran.messages
    assert "  reason       no certificate waits for activation" in ran.output
    assert "would change" not in ran.output
    assert "  due " not in ran.output
    assert program.here("activate", "--dry-run").report["due_at"] is None


def leave_a_token(program: Program) -> None:
    """Leave what a run leaves that is killed while the CA validates."""
    renewed(program, "--host-name", "www.example.test")
    (account,) = program.state.glob("*/account.json")
    journal = {"folders": [".well-known"], "tokens": {"token": "token.x"}}
    account.with_name("presented.json").write_text(json.dumps(journal))
    place = program.layout.webroot / ".well-known" / "acme-challenge"
    place.mkdir(parents=True)
    (place / "token").write_text("token.x")


def test_a_dry_run_that_fails_leaves_no_trace_and_mails_nobody(
    program: Program, tmp_path: Path
) -> None:
    seen = tree(tmp_path)

    ran = program.here(
        "renew", "--dry-run", "--require-profile", "--to", "root@example.test"
    )

    assert ran.exit_code == 2
    assert tree(tmp_path) == seen


def test_a_rehearsal_obtains_a_certificate_and_puts_it_to_no_use(
    program: Program, ca: CertificateAuthority
) -> None:
    before = program.snapshot()

    ran = program.here("renew", "--staging")

    assert ran.exit_code == 0, ran.messages
    assert not ran.report["renewed"]
    assert ran.report["staging"]
    assert ran.report["reason"].startswith("the CA issued a certificate; a rehearsal")
    assert len(ca.issued) == 1
    assert program.snapshot() == before
    assert program.server.semaphores == []
    (kept,) = program.state.rglob("pending.pem")
    assert (program.state / "staging") in kept.parents


def test_a_second_rehearsal_says_that_it_was_done(
    program: Program, ca: CertificateAuthority
) -> None:
    first = program.here("renew", "--staging").report
    asked(ca)

    ran = program.here("renew", "--staging")

    assert ran.exit_code == 0, ran.messages
    assert ran.report["reason"].startswith("an earlier rehearsal")
    assert ran.report["certificate"] == first["certificate"]
    assert asked(ca) == []
    again = program.here("renew", "--staging", "--force")
    assert again.report["certificate"] != first["certificate"]


def test_a_rehearsal_has_an_account_of_its_own_and_no_say_in_the_real_run(
    program: Program, ca: CertificateAuthority
) -> None:
    rehearsed = program.here("renew", "--staging").report["certificate"]["thumbprint"]

    new = renewed(program)

    assert new != rehearsed
    assert len(ca.accounts) == 2


def test_without_a_reload_no_semaphore_is_written(program: Program) -> None:
    ran = program.here("renew", "--no-reload")

    assert ran.report["renewed"]
    assert ran.report["reloaded"] == []
    passes = program.server.passes
    program.server.wait_for(lambda: program.server.passes > passes + 1)
    assert program.server.semaphores == semaphores(program) == []
    assert "Skipping the reload (no-reload)." in program.log()


def test_a_server_that_does_not_answer_is_a_warning(program: Program) -> None:
    program.server.ignore.add("RELOADCACHE.SEM")

    ran = program.here("renew", "--reload-timeout", "1")

    assert ran.exit_code == 0, ran.messages
    assert ran.report["renewed"]
    assert ran.report["reloaded"] == program.server.semaphores == []
    warning = "MDaemon did not process RELOADCACHE.SEM within 1 s"
    assert any(warning in line for line in ran.report["warnings"])
    assert semaphores(program) == []
    assert program.bound() == {ran.report["certificate"]["thumbprint"]}
    assert not program.here("renew").report["renewed"]


def test_a_server_that_does_not_run_is_asked_for_nothing(program: Program) -> None:
    program.server.ignore.add("WATCHDOG.SEM")

    ran = program.here("renew", "--smtp-address", "none", "--reload-timeout", "1")

    assert ran.exit_code == 0, ran.messages
    assert ran.report["renewed"]
    warning = "MDaemon uses the certificate that its files name after its next start"
    assert any(warning in line for line in ran.report["warnings"])
    assert program.server.semaphores == semaphores(program) == []


def test_old_certificates_are_removed_if_ours_superseded_and_named_nowhere(
    secure: Program,
) -> None:
    program = secure
    (self_signed,) = program.bound()
    for_others = renewed(program, "--host-name", "www.example.test")
    named = renewed(program)
    notes = program.layout.app / "Notes.dat"
    notes.write_text(f"Partner knows {named}\n")
    superseded = renewed(program, "--force")

    ran = program.here("renew", "--force", "--remove-old-certificates")

    assert ran.report["removed"] == [superseded]
    new = ran.report["certificate"]["thumbprint"]
    assert stored(program) == {self_signed, for_others, named, new}


def test_a_pkcs12_file_is_written_if_there_is_a_password(
    program: Program, tmp_path: Path
) -> None:
    password = tmp_path / "password.txt"
    password.write_text("grün und 3 Blanks\n", "utf-8")

    new = renewed(program, "--pfx-password-file", str(password))

    (place,) = folders(program)
    data = (place / "cert.pfx").read_bytes()
    held = pkcs12.load_pkcs12(data, "grün und 3 Blanks".encode())
    assert held.cert is not None
    assert thumbprint(held.cert.certificate) == new
    assert held.key is not None
    assert len(held.additional_certs) == 1
    if os.name == "posix":
        assert stat.S_IMODE((place / "cert.pfx").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_a_pkcs12_password_that_is_none_is_refused(
    content: bytes | None, program: Program, ca: CertificateAuthority, tmp_path: Path
) -> None:
    password = tmp_path / "password.txt"
    if content is not None:
        password.write_bytes(content)

    ran = program.here("renew", "--pfx-password-file", str(password))

    assert ran.exit_code == 2
    assert "pfx-password-file" in ran.report["error"]["message"]
    assert ca.orders == {}


# Names


def test_the_host_name_is_read_from_the_servers_files(program: Program) -> None:
    ran = program.here("renew", "--dry-run", "--smtp-address", "none")

    assert ran.report["names"] == [HOST_NAME]


def test_a_host_name_given_overrides_the_servers(program: Program) -> None:
    ran = program.here("renew", "--no-reload", "--host-name", "WWW.example.test.")

    assert ran.report["names"] == ["www.example.test"]
    assert ran.report["certificate"]["names"] == ["www.example.test"]


def test_alternate_names_may_be_written_in_odd_ways(program: Program) -> None:
    ran = program.renew(
        *("--alternate-host-names", " IMAP.Example.Test ,,pop.example.test.;"),
        *("--alternate-host-names", "bücher.example.test  imap.example.test"),
        *("--alternate-host-names", HOST_NAME),
    )

    assert ran.exit_code == 0, ran.messages
    assert ran.report["names"] == [HOST_NAME, IMAP, POP, BOOKS]
    (place,) = folders(program)
    names = leaf(place).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert set(names.value.get_values_for_type(x509.DNSName)) == {
        *(HOST_NAME, IMAP, POP, BOOKS)
    }


@pytest.mark.parametrize("where", ["option", "environment", "file"])
def test_alternate_names_are_read_wherever_they_are_written(
    where: str, program: Program
) -> None:
    text = "bücher.example.test, IMAP.example.test"
    options = ["--alternate-host-names", text] if where == "option" else []
    environ = {}
    if where == "environment":
        environ[f"{PREFIX}ALTERNATE_HOST_NAMES"] = text
    if where == "file":
        configure(program, f"[letsencrypt-mdaemon]\nalternate-host-names = {text}\n")

    ran = program.renew("--dry-run", *options, environ=environ)

    assert ran.exit_code == 0, ran.messages
    assert ran.report["names"] == [HOST_NAME, BOOKS, IMAP]


# Targets


def test_targets_in_the_config_file_are_the_only_ones(program: Program) -> None:
    (old,) = program.bound()
    configure(
        program,
        "[target post]\nfile = app\\MDAEMON.INI\nsection = ssl\nkey = certificate\n",
    )

    new = renewed(program)

    assert bound(program.layout.folder) == {
        "mail": new,
        "webmail": old,
        "admin": old,
    }


def test_targets_once_learned_are_remembered(program: Program) -> None:
    forget_partner(program)
    first = renewed(program)
    shutil.rmtree(program.layout.certificates)
    choose(program, UNKNOWN)

    second = renewed(program)

    assert program.bound() == {second} != {first}
    memory = json.loads((program.state / "installation.json").read_text("utf-8"))
    assert {item["file"] for item in memory["targets"]} == {
        target.file for target in TARGETS.values()
    }


def test_a_certificate_that_only_a_port_serves_tells_the_targets(
    program: Program, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "self-signed"
    (program.layout.certificates / "self-signed").rename(elsewhere)

    with serving(elsewhere) as port:
        new = renewed(program, "--endpoint", f"https://127.0.0.1:{port}")

    assert program.bound() == {new}
    assert stored(program) == {new}


def test_a_new_server_gets_a_certificate_and_waits_until_somebody_chooses_it(
    program: Program, ca: CertificateAuthority
) -> None:
    choose(program, UNKNOWN)
    before = stored(program)

    first = program.here("renew")
    assert "newOrder" in asked(ca)
    again = program.here("renew")
    assert asked(ca) == []

    assert (first.exit_code, again.exit_code) == (5, 5)
    error = first.report["error"]
    assert error["message"].startswith("The certificate is issued and in the store")
    (new,) = stored(program) - before
    assert re.search(f"select 'letsencrypt-mdaemon {HOST_NAME} .*?' on", error["hint"])
    assert "Security > Security Manager > SSL & TLS" in error["hint"]
    assert again.report["error"] == error

    choose(program, new)
    chosen = program.here("renew")

    assert chosen.exit_code == 0, chosen.messages
    assert program.bound() == {new}
    assert "newOrder" not in asked(ca)
    assert not program.here("renew").report["renewed"]


def test_a_new_server_whose_state_is_lost_waits_with_the_certificate_of_the_store(
    program: Program, ca: CertificateAuthority
) -> None:
    choose(program, UNKNOWN)
    assert program.here("renew").exit_code == 5
    asked(ca)
    (pending,) = program.state.rglob("pending.pem")
    pending.unlink()

    again = program.here("renew")

    assert again.exit_code == 5, again.messages
    assert "its files name no certificate" in again.report["error"]["message"]
    assert asked(ca) == []


# The log


def test_the_log_tells_the_story_of_the_run_line_by_line(secure: Program) -> None:
    (old,) = secure.bound()

    ran = secure.here("renew", "--alternate-host-names", IMAP)

    assert ran.exit_code == 0, ran.messages
    assert Path(ran.report["log"]) == secure.layout.logs / "LetsEncrypt.log"
    new = ran.report["certificate"]["thumbprint"]
    lines = secure.log().splitlines()
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "
    assert all(re.match(stamp, line) for line in lines)
    assert re.fullmatch(stamp + r"[+-]\d{4} letsencrypt-mdaemon started", lines[0])
    story = [line[20:] for line in lines[1:]]
    value = "App/MDaemon.ini [SSL] Certificate"
    for said in (
        f"{value} names the certificate by its SHA-1 thumbprint",
        "Due: the certificate in use is self-signed",
        f"{value}: {old} -> {new}",
        "MDaemon processed RELOADCACHE.SEM",
    ):
        assert said in story
    assert any(line.startswith("Ordered a certificate for mail.") for line in story)
    assert story == ran.messages.splitlines()


def test_each_run_begins_its_log_anew_and_keeps_earlier_ones(program: Program) -> None:
    renewed(program)
    first = program.log()
    renewed(program, "--force")
    second = program.log()

    program.here("renew", "--keep-logs", "1")

    assert "Nothing is due" in program.log()
    assert "--force requests" not in program.log()
    (kept,) = program.layout.logs.glob("LetsEncrypt-*.log")
    assert kept.read_text("utf-8") == second != first


def test_the_log_goes_where_it_is_told_to(program: Program, tmp_path: Path) -> None:
    place = tmp_path / "Protokolle – heute"

    ran = program.here("renew", "--no-reload", "--log-dir", str(place))

    assert Path(ran.report["log"]) == place / "LetsEncrypt.log"
    assert "Due: " in (place / "LetsEncrypt.log").read_text("utf-8")
    assert list(program.layout.logs.iterdir()) == []


# Mail


def fail(program: Program, ca: CertificateAuthority, *options: str) -> Ran:
    """Let a run fail because the CA finds no name."""
    ca.resolve = lambda _: None
    ran = program.here("renew", *options)
    assert ran.exit_code == 4, ran.messages
    return ran


def test_a_failed_run_is_mailed_with_what_to_do_and_what_is_in_use(
    program: Program, ca: CertificateAuthority
) -> None:
    (in_use,) = program.bound()

    ran = fail(program, ca, "--to", "anna@example.test,berta@example.test")

    program.server.wait_for(lambda: program.server.delivered)
    (mail,) = mails(program)
    text = mail.read_text("ascii")
    head, body = text.split("\n\n", 1)
    assert "To: anna@example.test,berta@example.test" in head
    subject = f"Subject: [{HOST_NAME}] certificate not renewed: {HOST_NAME} (dns-"
    assert subject in head
    flat = " ".join(body.split())
    assert " ".join(ran.report["error"]["message"].split()) in flat
    assert ran.report["error"]["hint"] in flat
    assert f"In use now: {in_use} for {HOST_NAME}, valid until " in flat
    assert "Due: the certificate in use is self-signed" in body


def test_a_failed_run_is_mailed_to_nobody_unless_asked(
    program: Program, ca: CertificateAuthority
) -> None:
    fail(program, ca)

    assert mails(program) == []


@pytest.fixture
def event_log(monkeypatch: pytest.MonkeyPatch) -> MemoryEventLog:
    system_log = MemoryEventLog()
    monkeypatch.setattr(build, "event_log", lambda: system_log.error)
    return system_log


def test_a_failed_run_is_one_entry_in_the_systems_log_and_a_good_one_none(
    program: Program, event_log: MemoryEventLog
) -> None:
    good = program.here("renew")
    assert good.exit_code == 0, good.messages
    assert event_log.entries == []

    failed = program.here("renew", "--force", "--store", f"pem:{__file__}/x")
    program.here("renew", "--force", "--endpoint", "imap://%1%%2\x1b.test")

    error = failed.report["error"]
    (event, text), (_, escaped) = event_log.entries
    assert event == failed.exit_code == 2
    assert text.endswith(f"\r\n{error['hint']}")
    assert error["hint"]
    assert r"imap://% 1% % 2\\x1b.test" in escaped


def test_a_dry_run_that_fails_is_no_entry_in_the_systems_log(
    program: Program, event_log: MemoryEventLog
) -> None:
    assert program.here("renew", "--dry-run", "--endpoint", "x").exit_code == 2
    assert event_log.entries == []


def test_a_systems_log_that_takes_nothing_is_a_warning(
    program: Program, event_log: MemoryEventLog
) -> None:
    event_log.failing = True

    failed = program.here("renew", "--endpoint", "x")

    assert failed.exit_code == 2
    assert failed.report["warnings"][-1] == (
        "Could not write to Windows' event log: The event log file is full."
    )


def test_a_run_that_succeeds_is_not_mailed(program: Program) -> None:
    renewed(program, "--to", "anna@example.test")
    assert not program.here("renew", "--to", "anna@example.test").report["renewed"]

    assert mails(program) == []


# Secrets


def secrets(program: Program) -> set[str]:
    """Return what nobody may see: every line of a key, and the account's `d`."""
    found = set()
    for file in program.layout.folder.rglob("*"):
        if file.suffix in {".pem", ".json"}:
            text = file.read_text("utf-8").replace("\\n", "\n")
            found |= set(re.findall(r'"d": "([^"]+)"', text))
            for key in re.findall(r"PRIVATE KEY-+\n(.+?)-+END", text, re.DOTALL):
                found |= set(key.split())
    return found


def test_no_secret_is_in_a_log_a_message_or_a_mail(
    program: Program, ca: CertificateAuthority, tmp_path: Path
) -> None:
    password = tmp_path / "password.txt"
    password.write_text("pfx-secret")
    options = ["-v", "--no-reload", "--to", "anna@example.test", "--force"]
    options += ["--pfx-password-file", str(password)]
    environ = {f"{PREFIX}MAIL_PASSWORD": "mail-secret"}
    hidden, rans = {"pfx-secret", "mail-secret"}, []

    def renew(exit_code: int) -> None:
        ran = program.here("renew", *options, environ=environ)
        assert ran.exit_code == exit_code, ran.messages
        rans.append(ran)
        hidden.update(secrets(program))

    renew(0)
    with read_only(program.layout.app, allowed=1, refused=3):
        renew(5)  # with a pending certificate
    ca.faults.before("finalize", Problem("rateLimited", "Later", 429), times=1)
    renew(3)  # with an open order
    (account,) = program.state.glob("*/account.json")
    account.write_text(
        account.read_text("utf-8").replace('"P-256"', '"P-257"'), "utf-8"
    )
    renew(0)
    rans.append(program.here("config show", *options, environ=environ))
    rans.append(program.here("status", *options, environ=environ))

    program.server.wait_for(lambda: len(program.server.delivered) == 3)
    logs = [file.read_text("utf-8") for file in program.layout.logs.iterdir()]
    letters = [file.read_text("ascii") for file in mails(program)]
    assert len(logs) == 4
    assert len(hidden) > 20
    for text in [*logs, *letters, *(ran.output + ran.messages for ran in rans)]:
        assert not [secret for secret in hidden if secret in text]


# As the old script was called


def test_the_old_scripts_command_line_works_unchanged(
    program: Program, ca: CertificateAuthority
) -> None:
    environ = {
        f"{PREFIX}MDAEMON_DIR": str(program.layout.folder),
        f"{PREFIX}STORE": f"pem:{program.layout.certificates}",
        f"{PREFIX}DIRECTORY_URL": ca.directory_url,
        f"{PREFIX}CA_BUNDLE": str(ca.ca_bundle),
        f"{PREFIX}AGREE_TOS": "yes",
        f"{PREFIX}KEY_TYPE": "p256",
        f"{PREFIX}SMTP_ADDRESS": f"127.0.0.1:{program.server.smtp_port}",
        f"{PREFIX}ENDPOINT": "https://127.0.0.1:1",
    }
    this = [sys.executable, "-m", "letsencrypt_mdaemon"]
    switches = ["-AlternateHostNames", f"{IMAP},{POP}", "-IISSiteName", "My Site"]
    switches += ["-To", "x@example.test", "-RemoveOldCertificates", "-SkipPortCheck"]

    first = run([*this, *switches], environ)

    assert first.exit_code == 0, first.messages
    head, reason, *_ = first.output.splitlines()
    assert re.fullmatch(
        rf"Renewed: {HOST_NAME} and 2 more, valid until [0-9-]+ \(in [0-9]+ days\)",
        head,
    )
    assert reason == "  reason       the certificate in use is self-signed"
    assert "Ignoring iis-site-name = My Site: this system is not Windows." in (
        first.messages
    )
    assert "Ignoring iis-site-name" in program.log()
    (place,) = folders(program)
    assert program.bound() == {thumbprint(leaf(place))}

    # In the spellings that PowerShell takes, from a run that fails.
    ca.resolve = lambda _: None
    odd = ["-alternatehostnames", IMAP, "-to:x@example.test", "-skip:$true"]
    second = run([*this, *odd, "--force"], environ)

    assert second.exit_code == 4, second.messages
    program.server.wait_for(lambda: program.server.delivered)


def test_a_wrong_switch_of_the_old_script_is_refused_with_the_right_ones() -> None:
    ran = run([sys.executable, "-m", "letsencrypt_mdaemon", "-Staging"])

    assert ran.exit_code == 2
    assert "-Staging matches no parameter" in ran.messages
    assert "-AlternateHostNames" in ran.messages


def test_the_ca_is_asked_through_the_proxy_of_the_settings(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letsencrypt_mdaemon.acme.transport.ATTEMPTS", 1)
    everything = {"NO_PROXY": "", "no_proxy": ""}

    ran = program.here("renew", "--proxy", "127.0.0.1:1", environ=everything)

    assert ran.exit_code == 3, ran.messages
    assert " through the proxy 127.0.0.1:1: " in ran.report["error"]["message"]
