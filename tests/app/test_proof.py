"""What a run says of ports that take their time, or that it cannot see."""

from __future__ import annotations

import errno
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from letsencrypt_mdaemon.app import build
from letsencrypt_mdaemon.config.settings import Config
from letsencrypt_mdaemon.renewal.climb import MAX_CONNECTIONS
from letsencrypt_mdaemon.sandbox import folder as sandbox
from letsencrypt_mdaemon.verify.endpoints import Endpoint
from letsencrypt_mdaemon.verify.observe import observe
from tests import certificates, servers
from tests.limits import in_time
from tests.program import LOCALHOST, Program, Ran
from tests.servers import Serve, honest


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


# Ports that cannot be seen


def context_of(program: Program, thumbprint: str = "") -> ssl.SSLContext:
    """Return the TLS of a port with a certificate of the store: that in use."""
    thumbprint = thumbprint or sandbox.bound(program.layout.folder)["webmail"]
    found = sandbox.find(program.layout.certificates, thumbprint)
    assert found is not None
    return sandbox.tls_context(found)


def context() -> ssl.SSLContext:
    made = certificates.certificate()
    return servers.context(made.chain, made.key)


ODD: dict[str, tuple[str, Serve, str]] = {
    "turned away": (
        "smtp+starttls",
        servers.says(b"554 5.7.1 Your address is blocked\r\n"),
        'turned away: greets with "554 5.7.1 Your address is blocked"',
    ),
    "too many": (
        "smtp+starttls",
        servers.says(b"421 4.7.0 Too many connections\r\n"),
        'turned away: greets with "421 4.7.0 Too many connections"',
    ),
    "bye": (
        "imap+starttls",
        servers.says(b"* BYE Banned\r\n"),
        'turned away: greets with "* BYE Banned"',
    ),
    "no starttls": (
        "pop3+stls",
        servers.says(b"+OK Hello\r\n+OK\r\nUSER\r\n.\r\n"),
        "no STARTTLS offered",
    ),
    "not tls": (
        "imaps",
        servers.says(b"* OK Hello\r\n"),
        'handshake failed: sends "* OK Hello" instead of TLS',
    ),
}


def these(program: Program, *urls: str) -> tuple[str, str]:
    """Return the option that names more endpoints than those of the server."""
    here = program.server.endpoints.values()
    return "--endpoint", ",".join([*here, *urls])


def renew_with(program: Program, *urls: str) -> Ran:
    """Renew, with more endpoints than those of the server."""
    return program.here("renew", *these(program, *urls))


@pytest.mark.parametrize("name", ODD)
def test_a_named_port_that_cannot_be_seen_is_not_proven_and_fails_the_run(
    secure: Program, name: str
) -> None:
    scheme, serve, reason = ODD[name]
    with servers.endpoint(scheme, serve) as at:
        ran = renew_with(secure, at.url)

        assert ran.exit_code == 5
        proof = ran.report["proof"]
        assert set(proof["new"]) == set(secure.server.endpoints.values())
        assert proof["unproven"] == [at.url]
        (row,) = (row for row in proof["ports"] if row["endpoint"] == at.url)
        assert row == {"endpoint": at.url, "verdict": "unproven", "reason": reason}
        assert f"{at.url} ({reason})" in ran.report["error"]["message"]
        assert "9 of 10 ports proven; not proven: " in secure.log()
        # The certificate is in use, and verify says the same.
        assert secure.bound() == {ran.report["certificate"]["thumbprint"]}
        assert secure.here("verify", *these(secure, at.url)).exit_code == 5
        # So does the next run, until it is proven; it places no order.
        again = renew_with(secure, at.url)
        assert again.exit_code == 5
        assert again.report["reloaded"] == []
        assert again.report["certificate"] == ran.report["certificate"]
    done = secure.here("renew")
    assert done.exit_code == 0, done.messages
    assert done.report["certificate"] == ran.report["certificate"]


def test_a_named_port_where_nobody_listens_is_not_proven(secure: Program) -> None:
    url = f"imaps://{LOCALHOST}:{servers.free_port()}"

    ran = renew_with(secure, url)

    assert ran.exit_code == 5
    assert ran.report["proof"]["unproven"] == [url]
    assert "refuses the connection" in ran.report["error"]["message"]


def test_a_port_that_comes_up_during_the_run_is_proven_after_the_ladder(
    secure: Program,
) -> None:
    """It is down at the first look, and listens when a semaphore is taken up."""
    secure.server.ports.close("webmail")

    ran = secure.here("renew")

    assert ran.exit_code == 0, ran.messages
    assert set(ran.report["proof"]["new"]) == set(secure.server.endpoints.values())


@contextmanager
def usual(
    program: Program, monkeypatch: pytest.MonkeyPatch, *more: Endpoint
) -> Iterator[list[str]]:
    """Let the sandbox's ports, and more, be the usual ones, which nobody named."""
    urls = program.server.endpoints.values()
    found = [*map(Endpoint.parse, urls), *more]

    def endpoints(config: Config) -> list[Endpoint]:
        assert not config.endpoint
        return found

    monkeypatch.setattr(build, "server_endpoints", endpoints)
    place = program.options.index("--endpoint")
    del program.options[place : place + 2]
    yield [*urls]


def test_one_of_the_usual_ports_that_cannot_be_seen_is_a_warning_until_it_is_proven(
    secure: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheme, serve, reason = ODD["turned away"]
    with ExitStack() as exits:
        at = exits.enter_context(servers.endpoint(scheme, serve))
        urls = exits.enter_context(usual(secure, monkeypatch, at))
        ran = secure.here("renew")
        text = secure.here("status", as_json=False).output
        status = secure.here("status").report

    assert ran.exit_code == 0, ran.messages
    assert ran.report["proof"]["unproven"] == [at.url]
    assert set(ran.report["proof"]["new"]) == set(urls)
    assert f"Not proven: {at.url}: {reason}." in ran.report["warnings"]
    assert f"not proven   {at.url}: {reason}" in text
    assert status["proof"]["unproven"] == [at.url]
    assert set(status["proof"]["new"]) == set(urls)
    # Once nobody listens there any more, nothing has to be proven.
    assert secure.here("status").report["proof"]["unproven"] == []


def test_nothing_is_removed_while_a_port_is_unproven(
    secure: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = secure.here("renew").report["certificate"]["thumbprint"]
    scheme, serve, _ = ODD["bye"]
    options = ("renew", "--force", "--remove-old-certificates")
    with ExitStack() as exits:
        at = exits.enter_context(servers.endpoint(scheme, serve))
        exits.enter_context(usual(secure, monkeypatch, at))
        kept = secure.here(*options)
        assert kept.exit_code == 0, kept.messages
        assert kept.report["removed"] == []
    assert first in secure.here(*options).report["removed"]


def test_the_expired_certificate_of_another_program_is_said(
    secure: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = certificates.certificate(start=certificates.START.replace(year=2001))
    serve = honest("https", servers.context(old.chain, old.key))
    with ExitStack() as exits:
        at = exits.enter_context(servers.endpoint("https", serve))
        exits.enter_context(usual(secure, monkeypatch, at))
        ran = secure.here("renew")

    assert ran.exit_code == 0, ran.messages
    assert ran.report["proof"]["foreign"] == [at.url]
    (warning,) = ran.report["warnings"]
    assert warning.startswith(f"Not ours: {at.url}: serves {old.thumbprint} for ")
    assert warning.endswith(", which has expired.")


# All of it, in every form


def within(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let a conversation with a port take no more than this, in every look."""
    monkeypatch.setitem(observe.__kwdefaults__ or {}, "timeout", seconds)


def proven(ran: Ran) -> set[str]:
    """Return the ports that a run has proven."""
    return set(ran.report["proof"]["new"])


def test_every_odd_port_is_counted_and_named_in_text_log_json_and_status(
    secure: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = set(secure.server.endpoints.values())
    down = f"pop3s://{LOCALHOST}:{servers.free_port()}"
    with ExitStack() as exits:
        odd = {down: "not listening: refuses the connection"}
        for name in ("turned away", "no starttls", "not tls"):
            scheme, serve, reason = ODD[name]
            odd[exits.enter_context(servers.endpoint(scheme, serve)).url] = reason
        mute = exits.enter_context(servers.endpoint("smtp+starttls", servers.says()))
        urls = these(secure, *odd, mute.url)

        def renew(seconds: float) -> Ran:
            within(monkeypatch, seconds)
            ran = secure.here("renew", "--force", *urls)
            odd[mute.url] = f"timed out: no answer within {3.5 * seconds:g} s"
            return ran

        ran = in_time(renew, lambda ran: proven(ran) == here)
        log = secure.log()
        status = secure.here("status", *urls).report
        shown = secure.here("status", *urls, as_json=False).output
        text = secure.here("renew", "--force", *urls, as_json=False)

    assert ran.exit_code == text.exit_code == 5
    rows = {row["endpoint"]: row for row in ran.report["proof"]["ports"]}
    assert {at: rows[at]["verdict"] for at in odd} == dict.fromkeys(odd, "unproven")
    assert {at: rows[at]["reason"] for at in odd} == odd
    assert set(ran.report["proof"]["unproven"]) == set(odd)
    assert set(status["proof"]["unproven"]) == set(odd)
    _, _, headline = log.partition(f"In use ({len(here)} of 14 ports proven; not pro")
    headline = headline.partition("\n")[0]
    for at, reason in odd.items():
        assert f"{at} ({reason})" in headline
        assert f"{at} ({reason})" in ran.report["error"]["message"]
        assert f"Not proven: {at}: {reason}." in ran.report["warnings"]
        assert f"{at}: {reason}\n" in text.output
        assert f"{at}: {reason}\n" in shown
    assert text.output.splitlines()[0].endswith("; 9 of 14 ports proven")
    assert len(here) == 9


# Ports that take their time, or want something of us


def test_a_slow_greeting_is_waited_for_in_the_whole_run(
    secure: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The port greets when a conversation without its greeting would be over."""
    here = set(secure.server.endpoints.values())
    late = threading.Event()  # Nobody sets it: it only takes its time.
    pause = 0.0

    def slow(connection: socket.socket) -> None:
        late.wait(pause)
        honest("smtp+starttls", context_of(secure))(connection)

    with servers.endpoint("smtp+starttls", slow) as at:

        def renew(seconds: float) -> Ran:
            nonlocal pause
            pause = 1.5 * seconds
            within(monkeypatch, seconds)
            return secure.here("renew", "--force", *these(secure, at.url))

        ran = in_time(renew, lambda ran: ran.exit_code == 0)

    assert ran.exit_code == 0, ran.messages
    assert proven(ran) == {*here, at.url}
    assert "In use (10 of 10 ports proven): " in secure.log()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_port_that_wants_a_client_certificate_is_judged_by_the_one_that_it_shows(
    secure: Program, version: ssl.TLSVersion
) -> None:
    (former,) = secure.bound()
    stale = ""

    def wants(connection: socket.socket) -> None:
        made = servers.only(context_of(secure, stale), version)
        made.verify_mode = ssl.CERT_REQUIRED
        honest("https", made)(connection)

    with servers.endpoint("https", wants) as at:
        ran = renew_with(secure, at.url)
        assert ran.exit_code == 0, ran.messages
        (row,) = (row for row in ran.report["proof"]["ports"] if row["reason"])
        reason = "wants a client certificate"
        assert row == {"endpoint": at.url, "verdict": "new", "reason": reason}
        assert "In use (10 of 10 ports proven): " in secure.log()
        stale = former
        failed = secure.here("renew", "--force", *these(secure, at.url))

    assert failed.exit_code == 5
    message = failed.report["error"]["message"]
    assert f"still serve the old one: {at.url}. 9 of 10 ports proven." in message


class Screening:
    """A port that bans us after some connections."""

    def __init__(self, program: Program, lets_in: int) -> None:
        self.program = program
        self.left = lets_in
        self.lock = threading.Lock()

    def __call__(self, connection: socket.socket) -> None:
        with self.lock:
            self.left -= 1
            serve = ODD["too many"][1]
            if self.left >= 0:
                serve = honest("smtp+starttls", context_of(self.program))
        serve(connection)


@pytest.mark.parametrize("lets_in", range(1, 6))
def test_a_port_that_bans_us_on_the_way_is_unproven_and_nothing_is_rolled_back(
    secure: Program, lets_in: int
) -> None:
    screening = Screening(secure, lets_in)
    reason = ODD["too many"][2]
    with servers.endpoint("smtp+starttls", screening) as at:
        ran, log = renew_with(secure, at.url), secure.log()
        shown = secure.here("status", *these(secure, at.url), as_json=False).output
        screening.left = 1000
        done = renew_with(secure, at.url)

    assert ran.exit_code == 5
    assert ran.report["proof"]["unproven"] == [at.url]
    assert f"{at.url} ({reason})" in ran.report["error"]["message"]
    assert f"In use (9 of 10 ports proven; not proven: {at.url} ({reason})): " in log
    assert secure.bound() == {ran.report["certificate"]["thumbprint"]}
    assert f"not proven   {at.url}: {reason}" in shown
    assert done.exit_code == 0, done.messages
    assert done.report["certificate"] == ran.report["certificate"]


# All names


class ByName:
    """A port that serves a certificate of the sandbox for each name."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.stale: dict[str, str] = {}

    def __call__(self, connection: socket.socket) -> None:
        made = context_of(self.program)

        def choose(tls: ssl.SSLObject, name: str | None, _: object) -> None:
            if name in self.stale:
                tls.context = context_of(self.program, self.stale[name])

        made.sni_callback = choose
        honest("https", made)(connection)


IMAP = "imap.example.test"


def test_a_stale_certificate_under_the_second_name_is_old_and_not_removed(
    secure: Program,
) -> None:
    secure.options += ["--alternate-host-names", IMAP]
    first = secure.here("renew").report["certificate"]["thumbprint"]
    port = ByName(secure)
    port.stale[IMAP] = first
    with servers.endpoint("https", port) as at:
        options = (*these(secure, at.url), "--force", "--remove-old-certificates")

        ran = secure.here("renew", *options)
        log = secure.log()
        checked = secure.here("verify", *these(secure, at.url))
        status = secure.here("status", *these(secure, at.url)).report

    assert ran.exit_code == checked.exit_code == 5
    said = f"still serve the old one: {at.url}. 9 of 10 ports proven."
    assert said in ran.report["error"]["message"]
    assert said in log
    assert status["due"] is True
    assert status["reason"].startswith("an earlier run obtained a certificate that not")
    assert (secure.layout.certificates).exists()
    assert sandbox.find(secure.layout.certificates, first) is not None
    (bad,) = (row for row in checked.report["ports"] if not row["good"])
    assert bad["differently"][0]["server_name"] == IMAP


# Few connections


def test_a_port_that_never_changes_is_asked_few_times(secure: Program) -> None:
    """However long the patience, a screening would ban whoever connects often."""
    counted: Counter[str] = Counter()
    lock = threading.Lock()
    serve = honest("imaps", context())

    def stale(connection: socket.socket) -> None:
        with lock:
            counted["imaps"] += 1
        with suppress(OSError):
            serve(connection)

    with servers.endpoint("imaps", stale) as at:
        options = (*these(secure, at.url), "--verify-timeout", "8")
        ran = secure.here("renew", *options)

    assert ran.exit_code == 5
    assert ran.report["error"]["message"].startswith("The server's files name the new")
    # At first for the known certificates; then before the change and at the end, with
    # a connection for the other kind of key.
    assert counted["imaps"] <= 1 + MAX_CONNECTIONS + 2 + 2


# A port that no restart can change


def test_a_restart_that_did_not_help_is_not_tried_again(secure: Program) -> None:
    serve = honest("https", context())
    with servers.endpoint("https", serve) as at:
        options = (*these(secure, at.url), "--allow-restart")

        first = secure.here("renew", *options)
        taken = [*secure.server.semaphores]
        second = secure.here("renew", *options)

    assert first.exit_code == second.exit_code == 5
    assert taken.count("RESTART.SEM") == 1
    assert secure.server.semaphores == taken
    for ran in (first, second):
        hint = ran.report["error"]["hint"]
        assert hint.startswith("MDaemon was restarted, so a restart does not help")
        assert "proxy" in hint
        assert "Restart MDaemon" not in hint


def test_the_server_is_restarted_once_a_day_whatever_the_certificate(
    secure: Program,
) -> None:
    serve = honest("https", context())
    with servers.endpoint("https", serve) as at:
        options = (*these(secure, at.url), "--allow-restart")
        secure.here("renew", *options)
        # A new certificate, for another name: a new attempt.
        ran = secure.here("renew", *options, "--alternate-host-names", IMAP)

    assert ran.exit_code == 5
    assert secure.server.semaphores.count("RESTART.SEM") == 1
    hint = ran.report["error"]["hint"]
    assert hint.startswith("This program restarted MDaemon already on ")
    assert "allow-restart" not in hint


def test_a_restart_that_mdaemon_ignores_is_not_said_to_be_forbidden(
    secure: Program,
) -> None:
    secure.server.ignore.add("RESTART.SEM")
    serve = honest("https", context())
    with servers.endpoint("https", serve) as at:
        options = these(secure, at.url)
        forbidden = secure.here("renew", *options)
        ran = secure.here("renew", *options, "--allow-restart", "--reload-timeout", "1")

    hints = [each.report["error"]["hint"] for each in (forbidden, ran)]
    assert hints[0].startswith("Restart MDaemon, or set allow-restart = yes. The next")
    assert hints[1].startswith("MDaemon did not process the request to restart. ")
    assert "allow-restart" not in hints[1]


def test_what_a_person_types_may_restart_again(secure: Program) -> None:
    serve = honest("https", context())
    with servers.endpoint("https", serve) as at:
        options = (*these(secure, at.url), "--allow-restart")
        secure.here("renew", *options)
        secure.here("renew", "--force", *options)

    assert secure.server.semaphores.count("RESTART.SEM") == 2


# This machine's own lack


def test_too_many_open_files_are_no_broken_port(
    secure: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the new certificate is looked for: nothing is rolled back for that."""
    (old,) = secure.bound()
    connect = socket.create_connection
    ours = {Endpoint.parse(url).port for url in secure.server.endpoints.values()}

    def lacks(address: tuple[str, int], *more: Any) -> socket.socket:  # noqa: ANN401
        if address[1] in ours and old not in secure.bound():
            raise OSError(errno.EMFILE, "Too many open files")
        return connect(address, *more)

    with monkeypatch.context() as patched:
        patched.setattr(socket, "create_connection", lacks)
        ran = secure.here("renew")

    assert ran.exit_code == 1
    assert "Too many open files" in ran.report["error"]["message"]
    (new,) = secure.bound()
    assert new != old
    done = secure.here("renew")
    assert done.exit_code == 0, done.messages
    assert secure.bound() == {new}
    assert set(done.report["proof"]["new"]) == set(secure.server.endpoints.values())
