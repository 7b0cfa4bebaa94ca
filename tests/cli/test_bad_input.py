"""A CA, a server, a disk, a network or a user that does what it should not."""

from __future__ import annotations

import errno
import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Thread
from unittest.mock import patch

import pytest

from letsencrypt_mdaemon.acme import issuer, transport
from letsencrypt_mdaemon.mdaemon import folders
from letsencrypt_mdaemon.sandbox import folder as sandbox_folder
from letsencrypt_mdaemon.sandbox.ca.certificates import Draft
from letsencrypt_mdaemon.sandbox.ca.messages import Answer, Problem, html
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from tests.fakes import huge, read_only, watched
from tests.limits import HANG_SECONDS
from tests.program import HOST_NAME, Program, Ran, at, beside_sandbox, environment, here

IMAP = "imap.example.test"
TO = ("--to", "root@example.test")
INI = "App/MDaemon.ini"


def renew(program: Program, *options: str) -> Ran:
    """Renew in this process, without a reload."""
    return program.here("renew", "--no-reload", *options)


def own(program: Program) -> dict[str, bytes]:
    """Return the server's own files: nothing of ours, of mail, or of the store."""
    others = ("certificates", "delivered", "Queues", "bad", "LetsEncrypt")
    return {
        name: data
        for name, data in program.snapshot().items()
        if Path(name).parts[0] not in others
    }


def leftovers(program: Program) -> list[str]:
    """Return what is only there while a run is under way."""
    kinds = r"\.tmp$|\.lck$|\.SEM$|^pending\.pem$|^order\.json$|^presented\.json$"
    kinds += r"|^\.unfinished "
    found = [*program.layout.folder.rglob("*")]
    return [
        str(path)
        for path in found
        if re.search(kinds, path.name) or path in program.tokens()
    ]


def converges(
    program: Program, ca: CertificateAuthority, *options: str, orders: int
) -> None:
    """Check that a run succeeds now, after so many orders in all, and all is tidy."""
    ran = renew(program, *options)

    assert ran.exit_code == 0, ran.messages
    assert program.bound() == {ran.report["certificate"]["thumbprint"]}
    assert len(ca.orders) == orders
    assert leftovers(program) == []


def mail(program: Program) -> str:
    """Return the one mail that was delivered."""
    program.server.wait_for(lambda: program.server.delivered)
    (file,) = program.server.delivered
    return file.read_text("ascii")


@pytest.fixture(autouse=True)
def _once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask a CA that is down only once: asking again is tested with `session`."""
    monkeypatch.setattr(transport, "ATTEMPTS", 1)


# The CA


def test_a_ca_that_cannot_be_reached_changes_nothing(
    program: Program, ca: CertificateAuthority
) -> None:
    before = own(program)

    ran = renew(program, "--directory-url", "https://127.0.0.1:1/directory", *TO)

    assert ran.exit_code == 3
    message = ran.report["error"]["message"]
    assert "Could not reach https://127.0.0.1:1/directory" in message
    assert message in program.log()
    assert own(program) == before
    assert " ".join(message.split()) in " ".join(mail(program).split())
    converges(program, ca, orders=1)


def test_a_ca_that_cannot_be_reached_is_a_warning_while_nothing_is_due(
    program: Program, ca: CertificateAuthority
) -> None:
    assert renew(program).exit_code == 0
    ca.faults.before("directory|renewalInfo", html(503))

    ran = renew(program)

    assert ran.exit_code == 0, ran.messages
    assert not ran.report["renewed"]
    assert any("HTTP 503" in line for line in (ran.messages.splitlines()))


def test_a_ca_that_is_not_trusted_is_not_talked_to(
    program: Program, ca: CertificateAuthority
) -> None:
    before = own(program)
    other = program.layout.certificates / "self-signed" / "cert.pem"

    ran = renew(program, "--ca-bundle", str(other))

    assert ran.exit_code == 3
    assert "Could not make a trusted TLS connection" in ran.report["error"]["message"]
    assert "ca-bundle" in ran.report["error"]["hint"]
    assert ca.requests == []
    assert own(program) == before


@pytest.mark.parametrize("content", [None, b"", b"\x00\x01garbage"])
def test_a_ca_bundle_that_holds_no_certificate_is_named(
    content: bytes | None, program: Program, tmp_path: Path
) -> None:
    bundle = tmp_path / "roots.pem"
    if content is not None:
        bundle.write_bytes(content)

    ran = renew(program, "--ca-bundle", str(bundle))

    assert ran.exit_code in {2, 3}
    assert "ca-bundle" in ran.report["error"]["message"] + ran.report["error"]["hint"]
    assert "bug" not in ran.report["error"]["hint"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (html(200), "instead of a JSON object"),
        (html(503), "HTTP 503"),
        (Answer(document={"hello": "world"}), "is not an ACME directory"),
        (Answer(body=b""), "instead of a JSON object"),
        (Answer(body=b"[" * 50_000), "instead of a JSON object"),
        (Problem("malformed", "There is nothing here", 404), "There is nothing here"),
    ],
    ids=["a page", "an error page", "another document", "nothing", "nesting", "404"],
)
def test_a_wrong_directory_url_is_told_by_what_it_answers(
    answer: Answer | Problem, said: str, program: Program, ca: CertificateAuthority
) -> None:
    before = own(program)
    ca.faults.before("directory", answer, times=1)

    ran = renew(program)

    assert ran.exit_code == 3
    assert said in ran.report["error"]["message"]
    assert ca.directory_url in ran.report["error"]["message"]
    assert own(program) == before
    converges(program, ca, orders=1)


@pytest.mark.parametrize(("status", "orders"), [(503, 1), (200, 2)])
def test_a_page_in_place_of_an_answer_ends_the_run_and_the_next_one_goes_on(
    status: int, orders: int, program: Program, ca: CertificateAuthority
) -> None:
    ca.faults.before("finalize", html(status), times=1)

    ran = renew(program)

    assert ran.exit_code == 3
    assert "Back soon" in ran.report["error"]["message"]
    converges(program, ca, orders=orders)


def test_terms_that_are_not_agreed_to_are_shown_and_nothing_is_made(
    beside: Program, ca: CertificateAuthority
) -> None:
    beside.options += at(ca.directory_url, ca.ca_bundle)[:-1]

    ran = renew(beside)

    assert ran.exit_code == 2
    assert "https://ca.test/terms" in ran.report["error"]["message"]
    assert "--agree-tos" in ran.report["error"]["hint"]
    assert ca.accounts == {}


def test_a_name_that_is_not_served_is_told_with_the_cas_own_words(
    program: Program, ca: CertificateAuthority
) -> None:
    before = own(program)
    ca.resolve = lambda name: None if name == IMAP else "127.0.0.1"

    ran = renew(program, "--alternate-host-names", IMAP, *TO)

    assert ran.exit_code == 4
    error = ran.report["error"]
    said = f"DNS problem: NXDOMAIN looking up A for {IMAP}"
    assert error["names"].keys() == {IMAP}
    assert said in error["names"][IMAP]
    url = f"http://{IMAP}/.well-known/acme-challenge/"
    for text in (error["message"], ran.messages, program.log()):
        assert said in text
        assert url in text
    letter = " ".join(mail(program).split())
    assert said in letter
    assert url in letter
    assert own(program) == before
    assert program.tokens() == []
    assert leftovers(program) == []
    converges(program, ca, orders=2)


def test_a_name_that_leads_to_another_server_is_told_with_what_was_seen_there(
    program: Program, ca: CertificateAuthority, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    ran = renew(program, "--webroot", str(elsewhere))

    assert ran.exit_code == 4
    assert "Invalid response from http://" in ran.report["error"]["names"][HOST_NAME]
    assert list(elsewhere.iterdir()) == []
    converges(program, ca, "--force", orders=2)


def test_a_certificate_for_other_names_is_refused_and_not_asked_for_again(
    program: Program, ca: CertificateAuthority
) -> None:
    before = own(program)

    def another(draft: Draft) -> Draft:
        ca.faults.draft = lambda draft: draft
        return Draft(
            common_name=None,
            names=("other.example.test",),
            key=draft.key,
            issuer=draft.issuer,
            signer=draft.signer,
            not_before=draft.not_before,
            not_after=draft.not_after,
        )

    ca.faults.draft = another

    ran = renew(program)

    assert ran.exit_code == 3
    message = ran.report["error"]["message"]
    assert f"it lacks {HOST_NAME}; it also has other.example.test" in message
    assert own(program) == before
    assert len(list(program.layout.certificates.iterdir())) == 1
    # What the CA issues counts: the next run leaves it alone for a minute.
    assert renew(program).report["waiting_until"]
    converges(program, ca, "--force", orders=2)


def test_a_name_that_the_ca_adds_is_said_and_no_reason_to_renew(
    program: Program, ca: CertificateAuthority
) -> None:
    twin = f"www.{HOST_NAME}"
    ca.faults.draft = lambda draft: replace(draft, names=(*draft.names, twin))

    first, second = renew(program), renew(program)

    assert first.exit_code == second.exit_code == 0
    assert first.report["renewed"]
    assert first.report["certificate"]["names"] == [HOST_NAME, twin]
    assert f"The CA added {twin} to the certificate." in first.messages
    assert not second.report["renewed"]
    assert len(ca.orders) == 1
    wider = renew(program, "--alternate-host-names", twin)
    assert not wider.report["renewed"]


def test_a_clock_a_day_behind_the_cas_is_named_as_the_reason(
    program: Program, ca: CertificateAuthority
) -> None:
    before = own(program)
    ca.clock = lambda: datetime.now(UTC) + timedelta(days=1)

    ran = renew(program)

    assert ran.exit_code == 3
    assert "is not valid before" in ran.report["error"]["message"]
    assert "Check this machine's clock" in ran.report["error"]["hint"]
    assert own(program) == before


def test_a_clock_a_day_ahead_of_the_cas_does_no_harm(
    program: Program, ca: CertificateAuthority
) -> None:
    ca.clock = lambda: datetime.now(UTC) - timedelta(days=1)

    converges(program, ca, orders=1)


HOSTILE = "stop\x1b[2J\x1b]0;pwned\x07\x9b31m\u202etxt\r\nBcc: x@example.test\x00 end"


def hostile_order(ca: CertificateAuthority) -> int:
    problem = Problem(f"rate\x1b[1mLimited{HOSTILE}", HOSTILE, 429)
    problem.more = {
        "instance": f"https://ca.test/{HOSTILE}",
        "subproblems": [
            {"type": HOSTILE, "detail": HOSTILE, "identifier": {"value": HOSTILE}}
        ],
    }
    ca.faults.before("newOrder", problem)
    return 3


def hostile_page(ca: CertificateAuthority) -> int:
    page = f"<html><title>{HOSTILE}</title>".encode()
    ca.faults.before("directory", Answer(500, body=page))
    return 3


def hostile_challenge(ca: CertificateAuthority) -> int:
    def spoil(answer: Answer) -> None:
        for challenge in answer.document["challenges"]:
            challenge["status"] = "invalid"
            challenge["error"] = {"type": HOSTILE, "detail": HOSTILE}
        answer.document["status"] = "invalid"

    ca.faults.after("authorization", spoil)
    return 4


def hostile_name(ca: CertificateAuthority) -> int:
    def spoil(answer: Answer) -> None:
        answer.document["identifier"]["value"] = HOSTILE

    ca.faults.after("authorization", spoil)
    ca.resolve = lambda _: None
    return 4


def hostile_token(ca: CertificateAuthority) -> int:
    ca.faults.token = f"../../{HOSTILE}"
    return 3


def hostile_urls(ca: CertificateAuthority) -> int:
    def spoil(answer: Answer) -> None:
        answer.document["authorizations"] = [f"https://127.0.0.1:1/{HOSTILE}"]

    ca.faults.after("newOrder", spoil)
    return 3


def hostile_terms(ca: CertificateAuthority) -> int:
    def spoil(answer: Answer) -> None:
        answer.document["meta"]["termsOfService"] = f"https://ca.test/{HOSTILE}"

    ca.faults.after("directory", spoil)
    problem = Problem("userActionRequired", HOSTILE, 403)
    ca.faults.before("newAccount", problem)
    return 3


@pytest.mark.parametrize(
    "arrange",
    [
        *(hostile_order, hostile_page, hostile_challenge, hostile_name),
        *(hostile_token, hostile_urls, hostile_terms),
    ],
)
def test_what_a_ca_says_never_reaches_a_terminal_raw(
    arrange: Callable[[CertificateAuthority], int],
    program: Program,
    ca: CertificateAuthority,
) -> None:
    code = arrange(ca)

    ran = renew(program, "-v", *TO)

    assert ran.exit_code == code, ran.messages
    assert "txt" in ran.messages
    for text in (ran.messages, ran.output, program.log(), mail(program)):
        assert [c for c in text if not c.isprintable() and c != "\n"] == []
    assert "\nBcc:" not in mail(program)
    for text in strings(ran.report):
        assert [c for c in text if not c.isprintable() and c != "\n"] == []


def strings(value: object) -> Iterator[str]:
    """Yield every string in a JSON value."""
    if isinstance(value, dict):
        yield from strings([*value.keys(), *value.values()])
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


# The webroot


def missing(webroot: Path) -> None:
    shutil.rmtree(webroot)


def a_file(webroot: Path) -> None:
    shutil.rmtree(webroot)
    webroot.write_text("no folder")


def a_file_in_it(webroot: Path) -> None:
    (webroot / ".well-known").write_text("no folder")


@pytest.mark.parametrize("spoil", [missing, a_file, a_file_in_it])
def test_a_webroot_that_is_none_is_named(
    spoil: Callable[[Path], None], program: Program, ca: CertificateAuthority
) -> None:
    webroot = program.layout.webroot
    spoil(webroot)
    before = own(program)

    ran = renew(program)

    assert ran.exit_code == 2
    assert str(webroot) in ran.report["error"]["message"]
    assert own(program) == before
    for path in (webroot, webroot / ".well-known"):
        if path.is_file():
            path.unlink()
    webroot.mkdir(exist_ok=True)
    converges(program, ca, orders=1)


@pytest.mark.parametrize("allowed", range(4))
def test_a_webroot_that_cannot_be_written_is_named_and_left_clean(
    allowed: int, program: Program, ca: CertificateAuthority
) -> None:
    webroot = program.layout.webroot

    with read_only(webroot, allowed=allowed, refused=1):
        ran = renew(program, "--alternate-host-names", IMAP)

    assert ran.exit_code == 2
    assert str(webroot) in ran.report["error"]["message"]
    assert list(webroot.iterdir()) == []
    ran = renew(program, "--alternate-host-names", IMAP)
    assert ran.exit_code == 0, ran.messages
    assert len(ca.orders) == 1


# INI files


def test_an_ini_file_that_is_read_only_is_found_before_the_ca_is_asked(
    program: Program, ca: CertificateAuthority
) -> None:
    file = program.layout.folder / "WebAdmin" / "WebAdmin.ini"
    file.chmod(0o444)
    before = own(program)

    ran = renew(program, *TO)

    assert ran.exit_code == 2
    message = f"Could not write {file}: it is read-only."
    assert ran.report["error"]["message"] == message
    assert own(program) == before
    assert ca.requests == []
    assert "it is read-only" in mail(program)
    file.chmod(0o644)
    converges(program, ca, orders=1)


def gone(file: Path) -> None:
    file.unlink()


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def empty(file: Path) -> None:
    file.write_bytes(b"")


def binary(file: Path) -> None:
    file.write_bytes(bytes(range(256)) * 40)


def too_large(file: Path) -> None:
    file.unlink()
    huge(file)


DAMAGES = [gone, a_folder, empty, binary, too_large]


@pytest.mark.parametrize("spoil", DAMAGES)
def test_a_main_ini_file_that_is_none_is_named_or_left_out_but_never_changed(
    spoil: Callable[[Path], None], program: Program, ca: CertificateAuthority
) -> None:
    file = program.layout.folder / INI
    good = file.read_bytes()
    spoil(file)
    damaged = file.stat().st_size if file.is_file() else None
    before = own(program)
    # It is the only file that shows the default domain.
    elsewhere = spoil in {empty, binary}

    ran = renew(program, *(["--host-name", HOST_NAME] if elsewhere else []))

    if elsewhere:  # as a server has it that keeps its settings elsewhere
        assert ran.exit_code == 0, ran.messages
        assert own(program)[INI] == before[INI]
    else:
        assert ran.exit_code == 2
        assert str(file) in ran.report["error"]["message"]
        assert own(program) == before
        assert ca.orders == {}
    assert (file.stat().st_size if file.is_file() else None) == damaged
    shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
    file.write_bytes(good)
    converges(program, ca, orders=1)


@pytest.mark.parametrize("spoil", DAMAGES)
def test_another_ini_file_that_is_lost_is_told_and_does_not_stop_the_others_if_gone(
    spoil: Callable[[Path], None], program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "BELIEVED_AFTER_SECONDS", 0.1)
    assert renew(program).exit_code == 0
    target = sandbox_folder.TARGETS["admin"]
    file = program.layout.folder / target.file
    spoil(file)
    before = own(program)

    ran = renew(program, "--force")

    assert ran.exit_code == 5, ran.messages
    assert "WebAdmin.ini" in ran.report["error"]["message"]
    if spoil in {a_folder, too_large}:  # it is there, and cannot be read
        assert own(program) == before
        return
    new = ran.report["certificate"]["thumbprint"]
    for part in ("mail", "webmail"):
        assert sandbox_folder.named(program.layout.folder, part)[0] == new
    assert own(program).get(target.file) == before.get(target.file)


def test_a_list_of_unknown_certificates_is_asked_about_and_nothing_lost(
    program: Program, ca: CertificateAuthority
) -> None:
    (self_signed,) = program.bound()
    assert renew(program).exit_code == 0
    target = sandbox_folder.TARGETS["webmail"]
    file = program.layout.folder / target.file
    bound = sandbox_folder.bound(program.layout.folder)["webmail"].lower().encode()
    file.write_bytes(file.read_bytes().replace(bound, b"ab" * 20))
    before = own(program)

    ran = renew(program)

    assert ran.exit_code == 5
    assert f"{target.file} [SSL] Certificates" in ran.report["error"]["message"]
    assert own(program) == before
    file.write_bytes(
        file.read_bytes().replace(b"ab" * 20, self_signed.lower().encode())
    )
    converges(program, ca, orders=1)


# The state


def leave_pending(program: Program, _: CertificateAuthority) -> None:
    """Leave a certificate that is issued and not in use."""
    with read_only(program.layout.app, allowed=1, refused=3):
        assert renew(program).exit_code == 5


def leave_order(program: Program, ca: CertificateAuthority) -> None:
    """Leave an order that is not done, as a run does that is killed."""
    ca.faults.before("challenge", html(503), times=1)
    assert renew(program).exit_code == 3
    (account,) = program.state.glob("*/account.json")
    account.with_name("presented.json").write_text('{"folders": [], "tokens": {}}')


def leave_draw(program: Program, _: CertificateAuthority) -> None:
    """Leave a moment drawn from the CA's window."""
    assert renew(program).exit_code == 0
    assert renew(program).exit_code == 0


@pytest.mark.parametrize(
    ("name", "leave"),
    [
        ("installation.json", leave_pending),
        ("attempt.json", leave_pending),
        ("pending.pem", leave_pending),
        ("account.json", leave_order),
        ("order.json", leave_order),
        ("presented.json", leave_order),
        ("renewal.json", leave_draw),
        ("lock", leave_draw),
    ],
)
def test_a_state_file_of_random_bytes_is_set_aside_and_rebuilt(
    name: str,
    leave: Callable[[Program, CertificateAuthority], None],
    program: Program,
    ca: CertificateAuthority,
) -> None:
    leave(program, ca)
    (file,) = [*program.state.glob(name), *program.state.glob(f"*/{name}")]
    junk = bytes(range(255, 0, -1)) * 3
    file.write_bytes(junk)

    ran = renew(program)

    assert ran.exit_code == 0, ran.messages
    assert program.bound() == {ran.report["certificate"]["thumbprint"]}
    warned = [line for line in ran.report["warnings"] if str(file) in line]
    assert len(warned) == (name != "lock")
    aside = [path.read_bytes() for path in file.parent.glob(f"{name}.damaged-*")]
    assert aside == ([] if name in {"lock", "presented.json"} else [junk])
    again = renew(program)
    assert again.exit_code == 0, again.messages
    assert str(file) not in again.messages


def test_a_state_folder_that_cannot_be_made_fails_with_a_log_and_a_mail(
    program: Program, tmp_path: Path
) -> None:
    before = own(program)
    (tmp_path / "file").write_text("no folder")
    state = tmp_path / "file" / "state"

    ran = renew(program, "--state-dir", str(state), *TO)

    assert ran.exit_code == 2
    assert str(state) in ran.report["error"]["message"]
    assert ran.report["error"]["message"] in program.log()
    assert str(state) in mail(program)
    assert own(program) == before


# Ourselves


def test_a_fault_of_the_program_leaves_its_trace_in_the_log(program: Program) -> None:
    def stumble(path: Path) -> None:
        if "account.json" in path.name:
            raise ZeroDivisionError("what nobody thought of")

    with watched(program.state, stumble):
        ran = renew(program)

    assert ran.exit_code == 1
    assert "This is a bug" in ran.report["error"]["hint"]
    assert "Traceback" not in ran.messages
    for text in ("Traceback", "in stumble", "ZeroDivisionError: what nobody thought"):
        assert text in program.log()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("can't start new thread"),
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_a_lack_of_memory_or_threads_is_no_bug(
    error: Exception, program: Program
) -> None:
    with patch("letsencrypt_mdaemon.app.renewal.prepare", side_effect=error):
        ran = renew(program)

    assert ran.exit_code == 1
    said = ran.report["error"]
    assert said["message"].startswith("This machine is out of memory, or of threads")
    assert type(error).__name__ in said["message"]
    assert "bug" not in said["hint"]
    assert "Then run this again" in said["hint"]


def test_verify_without_a_single_thread_says_what_lacks(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Thread, "start", refuse)

    ran = program.here("verify")

    assert ran.exit_code == 1
    assert "out of memory, or of threads" in ran.report["error"]["message"]


# Two at once


def test_a_second_run_gives_way_and_leaves_the_log_of_the_first_alone(
    program: Program, ca: CertificateAuthority
) -> None:
    reached, released = threading.Event(), threading.Event()

    def hold(_: object) -> bool:
        reached.set()
        return released.wait(HANG_SECONDS)

    ca.faults.before("challenge", hold, times=1)
    with subprocess.Popen(
        program.command("renew", "--no-reload"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        encoding="utf-8",
    ) as first:
        try:
            assert reached.wait(HANG_SECONDS)
            log = program.log()

            second = renew(program, *TO)

            assert second.exit_code == 6
            message = second.report["error"]["message"]
            assert f"process {first.pid} on {socket.gethostname()}, since " in message
            assert second.report["log"] is None
            assert program.log() == log
            assert list(program.layout.logs.glob("LetsEncrypt-*")) == []
            assert "exit 6" in mail(program)
        finally:
            released.set()
        _, messages = first.communicate(timeout=HANG_SECONDS)

    assert first.returncode == 0, messages
    assert program.log().startswith(log)
    assert "Another run" not in program.log()
    converges(program, ca, orders=1)


# The machine


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_paths_may_have_blanks_and_umlauts(encoding: str, tmp_path: Path) -> None:
    home = tmp_path / "Mein Server – Grüße"
    with (
        beside_sandbox(home / "MDaemon") as program,
        CertificateAuthority(
            home / "Meine CA", http_port=program.server.http_port
        ) as ca,
    ):
        program.options += [*at(ca.directory_url, ca.ca_bundle), "--key-type", "p256"]
        places = ("--state-dir", str(home / "Größe x"), "--log-dir", str(home / "ß ß"))

        ran = program.renew(*places, environ={"PYTHONIOENCODING": encoding})

        assert ran.exit_code == 0, ran.messages
        assert program.bound() == {ran.report["certificate"]["thumbprint"]}
        assert ran.report["log"] == str(home / "ß ß" / "LetsEncrypt.log")
        assert (home / "Größe x" / "installation.json").is_file()
        assert not program.state.exists()


@contextmanager
def full_at(folder: Path, number: int) -> Iterator[list[str]]:
    """Let a disk have no room once: for the n-th file or folder made, or write.

    Yields:
        What there was no room for; in the end empty if there were fewer than n.
    """
    count = itertools.count(1)
    full: list[str] = []
    write = os.write

    def fill(what: str) -> None:
        if next(count) == number:
            full.append(what)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), what)

    def made(path: Path) -> None:
        if not path.exists():
            fill(str(path))

    def written(handle: int, data: bytes) -> int:
        fill("the rest of a file")
        return write(handle, data)

    with pytest.MonkeyPatch.context() as patch, watched(folder, made):
        patch.setattr(os, "write", written)
        yield full


def test_a_full_disk_at_any_write_leaves_all_old_or_all_new_and_the_next_run_mends_it(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only for speed: the CA is quick.
    hasty = partial(issuer.Issuer, sleep=lambda _: time.sleep(0.005))
    monkeypatch.setattr(issuer, "Issuer", hasty)
    folder = program.layout.folder
    (old,) = program.bound()
    before = own(program)
    seen = set()
    for number in itertools.count(1):
        with full_at(folder, number) as full:
            ran = renew(program)

        assert "Traceback" not in ran.messages
        (bound,) = program.bound()
        if bound == old:
            assert own(program) == before
        if not full:
            assert ran.exit_code == 0, ran.messages
            break
        seen.add(Path(full[0]).name if os.sep in full[0] else full[0])
        if ran.exit_code:
            assert "bug" not in ran.report["error"]["hint"], full
        ran = renew(program)
        assert ran.exit_code == 0, (full, ran.messages)
        assert program.bound() == {ran.report["certificate"]["thumbprint"]}
        assert program.tokens() == []
        # As before, but for the account.
        for path in program.layout.certificates.glob("letsencrypt-mdaemon *"):
            shutil.rmtree(path)
        for name, data in before.items():
            (folder / name).write_bytes(data)
        shutil.rmtree(program.state)
    assert number > 30
    for what in ("rest of a file", "backups", "account.json", "pending.pem", ".lck"):
        assert any(what in name for name in seen), what


# Names and mail


def test_a_default_domain_without_a_host_name_gets_no_other_domains(
    program: Program, ca: CertificateAuthority
) -> None:
    for name in (INI, "App/Domains.dat"):
        file = program.layout.folder / name
        file.write_bytes(file.read_bytes().replace(b"FQDN=mail.example.test\r\n", b""))

    ran = renew(program)

    assert ran.exit_code == 2
    message = ran.report["error"]["message"]
    assert "default domain example.test has no SMTP host name" in message
    assert "Domains.dat [example.org] FQDN gives mail.example.org" in message
    assert f"port {program.server.smtp_port} gives {HOST_NAME}" in message
    assert "--host-name" in ran.report["error"]["hint"]
    assert ca.requests == []
    assert renew(program, "--host-name", HOST_NAME).exit_code == 0
    # From now on, the certificate in use shows the name.
    options = ["--alternate-host-names", "imap.example.test", "--force"]
    assert renew(program, *options).report["names"] == [HOST_NAME, "imap.example.test"]
    assert renew(program).report["names"] == [HOST_NAME]


def test_a_mail_that_cannot_be_sent_is_a_warning_and_changes_no_exit_code(
    program: Program, ca: CertificateAuthority
) -> None:
    ca.resolve = lambda _: None

    ran = renew(program, *TO, "--mail-server", "smtp://127.0.0.1:1")

    assert ran.exit_code == ran.report["exit_code"] == 4
    assert any("Could not send the mail" in line for line in ran.report["warnings"])
    assert "Could not send the mail" in program.log()


def test_a_raw_queue_that_is_not_there_is_a_warning_and_changes_no_exit_code(
    program: Program, ca: CertificateAuthority
) -> None:
    ca.resolve = lambda _: None
    program.layout.raw.rename(program.layout.raw.with_name("Elsewhere"))

    ran = renew(program, *TO, "--smtp-address", "127.0.0.1:1")

    assert ran.exit_code == 4
    (warning,) = (
        line for line in ran.report["warnings"] if "Could not send the mail" in line
    )
    assert "[Directories] Raw" in warning
    assert "smtp://127.0.0.1:1 did not accept the mail" in warning
    program.layout.raw.with_name("Elsewhere").rename(program.layout.raw)


@pytest.mark.parametrize(
    "to",
    [
        "a@example.test\nBcc: b@example.test",
        "a@example.test\r\nSubject: x",
        "a@example.test>\r\n",
        "a@example.test\x00",
        "not an address",
    ],
)
def test_recipients_that_could_forge_a_header_are_refused(
    to: str, program: Program, ca: CertificateAuthority
) -> None:
    ran = renew(program, "--to", to)

    assert ran.exit_code == 2
    assert "command line --to" in ran.report["error"]["message"]
    assert ca.requests == []
    assert list(program.layout.raw.iterdir()) == []


def test_a_profile_that_is_required_has_to_be_named(program: Program) -> None:
    ran = renew(program, "--require-profile")

    assert ran.exit_code == 2
    assert "but profile is not" in ran.report["error"]["message"]


def test_two_wrong_settings_are_told_at_once(program: Program) -> None:
    ran = renew(program, "--key-type", "rsa1024", "--keep-logs", "-1")

    assert ran.exit_code == 2
    message = ran.report["error"]["message"]
    assert "--key-type" in message
    assert "--keep-logs" in message


def test_a_folder_without_an_mdaemon_is_refused_with_where_was_looked(
    tmp_path: Path, program: Program
) -> None:
    ran = renew(program, "--mdaemon-dir", str(tmp_path), "--log-dir", str(tmp_path))

    assert ran.exit_code == 2
    assert f"{tmp_path} (command line --mdaemon-dir)" in ran.report["error"]["message"]
    assert "Could not find MDaemon" in (tmp_path / "LetsEncrypt.log").read_text("utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has that store")
def test_problems_that_only_a_use_shows_are_listed_with_the_others(
    tmp_path: Path,
) -> None:
    file = tmp_path / "our.ini"
    file.write_text(
        "[letsencrypt-mdaemon]\nendpoint = ftp://x:21, imaps://y:99999\n"
        "to = anna at example\nstore = windows\n"
    )

    ran = here(["status", "--config", str(file), "--mdaemon-dir", str(tmp_path)])

    assert ran.exit_code == 2
    assert "The configuration has 4 problems:" in ran.messages
    for word in ("ftp://x:21", "imaps://y:99999", "anna at example", "not Windows"):
        assert word in ran.messages
