"""Whether names would validate: each reason shown by a server that gives it."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from threading import Event, Thread

import dns.rcode
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from letsencrypt_mdaemon.acme.http import http_date
from letsencrypt_mdaemon.doctor import machine, nameservers, validator
from letsencrypt_mdaemon.doctor.caa import Authority, Property, check
from letsencrypt_mdaemon.doctor.examination import Examined, is_public_name
from letsencrypt_mdaemon.doctor.findings import Code, Finding, Weight
from letsencrypt_mdaemon.doctor.nameservers import Nameservers, Status, is_public
from letsencrypt_mdaemon.text import when
from tests import certificates, servers
from tests.fakes import read_only
from tests.laboratory import (
    ACCOUNT,
    CA,
    FOUR,
    NAME,
    OTHER_FOUR,
    OWN,
    RESOLVER,
    SIX,
    ZONE,
    Dns,
    World,
    dns_server,
    moved,
    page,
    web,
    world,
)
from tests.limits import HANG_SECONDS, in_time
from tests.servers import HAS_IPV6, LOCALHOST, OTHER_HOST

OTHER = f"other.{ZONE}"
PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body></body></html>"


@pytest.fixture(scope="module")
def living_dns() -> Iterator[Dns]:
    with dns_server(Dns()) as living:
        yield living


@pytest.fixture
def lab(tmp_path: Path, living_dns: Dns) -> Iterator[World]:
    with world(tmp_path, living_dns) as made:
        yield made


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody be waited for long."""
    monkeypatch.setattr(validator, "TIMEOUT_SECONDS", 0.4)
    monkeypatch.setattr(nameservers, "QUERY_TIMEOUT_SECONDS", 0.2)


def answering(lab: World, answer: Callable[[str, str], bytes]) -> Examined:
    """Let one server answer at the only address of the name, and examine that."""
    lab.has(NAME, A=FOUR)
    lab.serve(answer, FOUR, LOCALHOST)
    return lab.found()


def only(found: Examined) -> Finding:
    (finding,) = found.findings
    return finding


def secure(answer: Callable[[str, str], bytes]) -> servers.Serve:
    """Answer in TLS, with a certificate that nobody would trust."""
    signed = certificates.sign("", start=certificates.START - timedelta(days=4000))
    made = servers.context([signed.certificate], signed.key)
    serve = web(answer)

    def secured(connection: socket.socket) -> None:
        with suppress(OSError), made.wrap_socket(connection, server_side=True) as tls:
            serve(tls)

    return secured


# A name that is as it should be


def test_a_name_that_is_served_at_all_addresses_has_no_findings(lab: World) -> None:
    found = lab.found()

    assert found.served == (SIX, FOUR)
    assert found.findings == ()
    assert found.weight is Weight.NOTE
    assert {host for host, _ in lab.requests} == {NAME}
    assert not list(lab.folder.rglob("*challenge*"))
    assert not (lab.folder / "journal.json").exists()


def test_white_space_after_the_token_does_not_matter(lab: World) -> None:
    found = answering(lab, lambda *_: page(lab.token() + b" \t\r\n\r\n"))

    assert found.served == (FOUR,)


def test_a_redirect_to_https_is_followed_whatever_the_certificate(lab: World) -> None:
    lab.serve(secure(lab.file), FOUR, port=443, raw=True)
    found = answering(lab, lambda path, host: moved(f"https://{host}{path}"))

    assert found.served == (FOUR,)
    assert only(found).code == "worldclient-https-redirect"
    assert only(found).weight is Weight.NOTE


@pytest.mark.parametrize("status", ["301 A", "302 B", "307 C", "308 D"])
def test_relative_redirects_are_followed(lab: World, status: str) -> None:
    def answer(path: str, host: str) -> bytes:
        if path.startswith("/moved/"):
            return lab.file(path.removeprefix("/moved"), host)
        return moved(f"../../moved{path}", status)

    assert answering(lab, answer).served == (FOUR,)


def test_a_redirect_to_another_name_goes_to_that_names_ipv6_address(
    lab: World,
) -> None:
    lab.has(OTHER, A=OTHER_FOUR, AAAA=SIX)

    found = answering(lab, lambda path, _: moved(f"http://{OTHER}:80{path}#fragment"))

    assert found.served == (FOUR,)
    assert lab.dialled == [(FOUR, 80), (SIX, 80)]
    assert [host for host, _ in lab.requests] == [OTHER]


def test_without_a_port_check_nothing_is_written_or_fetched(lab: World) -> None:
    found = lab.found(fetch=False)

    assert found == Examined(name=NAME)
    assert lab.dialled == []


# Redirects that are not followed


def long(path: str, _: str) -> bytes:
    return moved("/" + "a" * 2000 + path)


def further(path: str, _: str) -> bytes:
    return moved(path + "x")


REDIRECTS: dict[str, list[Callable[[str, str], bytes]]] = {
    "http-redirect-303": [lambda path, _: moved(f"/x{path}", "303 See Other")],
    "http-redirect-port": [
        lambda path, host: moved(f"http://{host}:8080{path}"),
        lambda path, host: moved(f"https://{host}:80{path}"),
        lambda path, host: moved(f"http://{host}:0{path}"),
    ],
    "http-redirect-scheme": [
        lambda *_: moved("file:///etc/passwd"),
        lambda *_: moved("ftp://mail.laboratory.org/x"),
        lambda *_: moved("javascript:alert(1)"),
    ],
    "http-redirect-host": [
        lambda *_: moved("http://127.0.0.1/secret"),
        lambda *_: moved("http://[::1]/secret"),
        lambda *_: moved("http://2130706433/secret"),
        lambda *_: moved("http://localhost/secret"),
        lambda *_: moved("http://printer.local/secret"),
        lambda *_: moved("http:///nowhere"),
    ],
    "http-redirect-loop": [
        lambda path, _: moved(path),
        lambda path, host: moved(f"http://{host.upper()}:80{path}#x"),
        further,
    ],
    "http-redirect-missing-slash": [
        lambda path, host: moved(f"https://{host}{path.removeprefix('/')}"[:-44]),
        lambda *_: moved(f"https://{NAME}.well-known/acme-challenge/x"),
    ],
    "http-redirect-invalid": [
        long,
        lambda *_: moved("http://[::1/x"),
        lambda *_: moved("http://mail.laboratory.org:x/"),
        lambda *_: moved("/\x1b[31m/x"),
    ],
    "http-status-301": [lambda *_: page(b"", "301 Moved")],
    "http-status-300": [lambda path, _: moved(path + "x", "300 Many")],
    "dns-nxdomain": [
        lambda path, _: moved(f"http://nowhere.{ZONE}{path}"),
        lambda path, _: moved(f"http://{'a.' * 200}{ZONE}{path}"),
    ],
    "dns-no-address": [lambda path, _: moved(f"http://{OTHER}{path}")],
    "addr-private": [lambda path, _: moved(f"http://inside.{ZONE}{path}")],
    "port80-refused": [lambda path, _: moved(f"http://closed.{ZONE}{path}")],
    "https-failed": [lambda path, host: moved(f"https://{host}{path}")],
}


@pytest.mark.parametrize(
    ("code", "number"),
    [(code, number) for code, row in REDIRECTS.items() for number in range(len(row))],
)
def test_a_redirect_that_the_ca_does_not_follow_is_told_by_its_reason(
    lab: World, code: str, number: int
) -> None:
    lab.has(OTHER, TXT='"no address"')
    lab.has(f"inside.{ZONE}", A="10.0.0.1")
    lab.has(f"closed.{ZONE}", A=OTHER_FOUR)

    found = answering(lab, REDIRECTS[code][number])

    assert [finding.code for finding in found.findings] == [code]
    assert only(found).seen.isprintable()
    assert found.served == ()
    # Never anywhere else than where the rules lead.
    assert {address for address, _ in lab.dialled} <= {FOUR, OTHER_FOUR, LOCALHOST}


def test_a_redirect_in_a_circle_is_not_followed_at_all(lab: World) -> None:
    lab.has(NAME, A=FOUR)
    lab.serve(lambda path, _: moved(path), FOUR)

    assert lab.codes() == ["http-redirect-loop"]
    assert lab.dialled.count((FOUR, 80)) == 1


def test_a_redirect_is_not_followed_eleven_times(lab: World) -> None:
    lab.has(NAME, A=FOUR)
    lab.serve(further, FOUR)

    assert lab.codes() == ["http-redirect-loop"]
    assert lab.dialled.count((FOUR, 80)) == 11


def test_a_redirect_is_followed_ten_times(lab: World) -> None:
    def answer(path: str, host: str) -> bytes:
        if path.endswith("?" + "x" * 10):
            return lab.file(path.partition("?")[0], host)
        return moved(path + ("x" if "?" in path else "?x"))

    assert answering(lab, answer).served == (FOUR,)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_https_needs_tls_1_2(lab: World, version: ssl.TLSVersion) -> None:
    signed = certificates.certificate()
    made = servers.only(servers.context(signed.chain, signed.key), version)

    def old(connection: socket.socket) -> None:
        with made.wrap_socket(connection, server_side=True) as tls:
            tls.sendall(page(lab.token()))

    lab.serve(old, FOUR, port=443, raw=True)

    found = answering(lab, lambda path, host: moved(f"https://{host}{path}"))

    assert only(found).code == "https-failed"


# Answers that are not the token


BODIES: dict[str, Callable[[bytes], bytes]] = {
    "body-bom": lambda token: page(b"\xef\xbb\xbf" + token),
    "body-too-long": lambda token: page(token + b" " * 128),
    "body-html-login-page": lambda _: page(PAGE, "200 OK", "Content-Type: text/plain"),
    "webroot-not-served": lambda token: page(b" " + token),
    "http-status-401": lambda token: page(token, "401 Unauthorized"),
    "http-status-403": lambda token: page(token, "403 Forbidden"),
    "http-status-404": lambda token: page(token, "404 Not Found"),
    "http-status-204": lambda _: b"HTTP/1.1 204 No Content\r\n\r\n",
    "http-status-206": lambda token: page(token, "206 Partial"),
    "http-status-503": lambda token: page(token, "503 Busy"),
    "proxy-intercepts": lambda token: page(token, "200 OK", "X-Squid-Error: DENIED 0"),
}


@pytest.mark.parametrize("code", BODIES)
def test_another_answer_than_the_token_is_told_by_what_it_is(
    lab: World, code: str
) -> None:
    found = answering(lab, lambda *_: BODIES[code](lab.token()))

    assert only(found).code == code
    assert only(found).weight is Weight.WARNING


@pytest.mark.parametrize("content_type", ["text/html", "TEXT/HTML; charset=utf-8"])
def test_html_is_known_by_its_type_as_well(lab: World, content_type: str) -> None:
    answer = page(b"Sign in!", "200 OK", f"Content-Type: {content_type}")

    assert only(answering(lab, lambda *_: answer)).code == "body-html-login-page"


def test_a_login_proxy_is_no_fault_of_the_server(lab: World) -> None:
    answer = page(PAGE, "511 Network Authentication Required")

    assert only(answering(lab, lambda *_: answer)).code == "proxy-intercepts"


def test_a_body_without_end_is_not_read(lab: World) -> None:
    sent: list[int] = []

    def flood(connection: socket.socket) -> None:
        connection.recv(4096)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n"
        pieces = [head, *[b"A" * 65536] * 16384]
        servers.endless(pieces, sent)(connection)

    lab.has(NAME, A=FOUR)
    lab.serve(flood, FOUR, LOCALHOST, raw=True)

    assert "body-too-long" in lab.codes()
    assert sum(sent) < 64 << 20


def slowly(*_: object) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n"
    while True:
        time.sleep(0.02)
        yield b"a"


def slow_headers(*_: object) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        time.sleep(0.02)
        yield b"X: y\r\n"


def continued(*_: object) -> Iterator[bytes]:
    while True:
        yield b"HTTP/1.1 100 Continue\r\n\r\n"


def endless_header(*_: object) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nX: "
    while True:
        yield b"x" * 4096


def endless_headers(*_: object) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        yield b"X: y\r\n" * 100


SILENT = [
    slowly,
    slow_headers,
    continued,
    endless_header,
    endless_headers,
    lambda *_: b"220 mail.example.test ESMTP\r\n",
    lambda *_: b"",
    lambda *_: b"\x00\xff" * 1000,
    lambda *_: b"HTTP/1.1 \x1b[31m OK\r\n\r\n",
]


@pytest.mark.parametrize("number", range(len(SILENT)))
@pytest.mark.usefixtures("hasty")
def test_an_answer_that_does_not_come_is_given_up(lab: World, number: int) -> None:
    found = answering(lab, SILENT[number])  # type: ignore[arg-type] # or a generator

    assert only(found).code == "http-no-answer"
    assert only(found).seen.isprintable()


@pytest.mark.parametrize("answer", [continued, endless_header])
def test_an_answer_that_becomes_too_much_is_given_up_at_once(
    lab: World, answer: Callable[[], Iterator[bytes]]
) -> None:
    found = answering(lab, answer)  # type: ignore[arg-type] # or a generator

    assert only(found).code == "http-no-answer"
    assert re.search(r"more than (256 KB|65536 bytes)", only(found).seen)


@pytest.mark.usefixtures("hasty")
def test_a_server_that_says_nothing_is_given_up(lab: World) -> None:
    lab.has(NAME, A=FOUR)
    lab.serve(servers.says(), FOUR, raw=True)

    assert "http-no-answer" in lab.codes()


@given(text=st.text(st.characters(codec="latin-1"), max_size=300))
def test_no_redirect_leads_elsewhere_than_to_a_public_name_on_its_port(
    text: str,
) -> None:
    with suppress(validator.FetchError):
        target = validator._target(f"http://{NAME}/x", text, "")  # noqa: SLF001
        assert target.scheme in {"http", "https"}
        assert target.port is None
        assert "@" not in target.netloc
        assert target.geturl().isascii()
        assert target.geturl().isprintable()
        assert " " not in target.geturl()


def test_what_a_server_says_is_shown_harmlessly(lab: World) -> None:
    bad = "\x1b[2J\x07\u0085\x9b1m"
    lab.has(NAME, A=FOUR)
    lab.serve(
        lambda *_: page(bad.encode(), f"200 {bad}", f"Server: {bad}", f"Via: {bad}"),
        FOUR,
        LOCALHOST,
    )

    finding = lab.found().findings[0]

    assert finding.code == "webroot-not-served"
    assert r"\x1b[2J" in finding.seen
    assert finding.seen.isprintable()


# Who answers


def test_port_80_that_is_closed_is_told(lab: World) -> None:
    lab.has(NAME, A=FOUR)
    lab.ways.clear()

    examination = lab.examine()

    assert [x.code for x in examination.names[0].findings] == ["port80-refused"]
    assert [x.code for x in examination.server] == ["port80-refused"]


def test_port_80_behind_a_firewall_is_told(lab: World) -> None:
    lab.has(NAME, A=FOUR)
    lab.ways = {(FOUR, 80): TimeoutError()}

    assert lab.codes() == ["port80-timeout"]


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionRefusedError(111, "x")])
def test_what_this_machine_serves_may_be_out_of_its_reach_from_inside(
    lab: World, error: OSError
) -> None:
    lab.has(NAME, A=FOUR)
    lab.ways[FOUR, 80] = error

    assert lab.codes() == ["hairpin-unknown"]


def test_an_address_that_leads_elsewhere_is_told(lab: World) -> None:
    lab.has(NAME, A=FOUR)
    lab.serve(lambda *_: page(b"Welcome to my router"), FOUR)

    assert lab.codes() == ["addr-not-ours"]


def test_an_address_of_this_machine_does_not_lead_elsewhere(lab: World) -> None:
    lab.authority = Authority(public=False)
    lab.has(NAME, **{"AAAA" if HAS_IPV6 else "A": OTHER_HOST})
    lab.serve(lambda *_: page(b"Mine", "418 Teapot"), OTHER_HOST)

    assert lab.codes() == ["http-status-418"]


def test_an_ipv6_address_where_nobody_listens_is_told(lab: World) -> None:
    del lab.ways[SIX, 80]

    found = lab.found()

    assert found.served == (FOUR,)
    assert only(found).code == "aaaa-unreachable"


def test_an_ipv6_address_that_serves_something_else_is_told(lab: World) -> None:
    lab.serve(lambda *_: page(b"", "404 Not Found"), SIX)

    assert only(lab.found()).code == "aaaa-different-content"


def test_a_machine_without_ipv6_cannot_tell(lab: World) -> None:
    lab.ways[SIX, 80] = OSError(101, "Network is unreachable")

    finding = only(lab.found())

    assert finding.code == "hairpin-unknown"
    assert "this machine has no route there" in finding.seen


def test_of_a_name_with_ipv6_only_the_plain_reason_is_told(lab: World) -> None:
    lab.has(NAME, AAAA=SIX)
    lab.ways.clear()

    assert lab.codes() == ["port80-refused"]


@pytest.mark.parametrize(
    ("server", "code"),
    [("WDaemon/4.0", "http-404-extensionless"), ("Microsoft-IIS/10.0", "iis-mime")],
)
def test_a_server_that_shows_files_only_with_an_extension_is_told(
    lab: World, server: str, code: str
) -> None:
    (lab.webroot / "robots.txt").write_bytes(b"User-agent: *\n" * 20)

    def answer(path: str, host: str) -> bytes:
        if "." in path.rpartition("/")[2]:
            return lab.file(path, host)
        return page(b"", "404 Not Found", f"Server: {server}")

    lab.has(NAME, A=FOUR)
    lab.serve(answer, FOUR, LOCALHOST)
    examination = lab.examine()

    assert [x.code for x in examination.names[0].findings] == [code]
    assert [x.code for x in examination.server] == [code]


def test_a_server_that_shows_no_file_of_the_webroot_is_not_blamed_for_extensions(
    lab: World,
) -> None:
    (lab.webroot / "robots.txt").write_bytes(b"User-agent: *\n")
    answer = page(b"", "404 Not Found", "Server: Microsoft-IIS/10.0")

    assert only(answering(lab, lambda *_: answer)).code == "http-status-404"


HTTP_ONLY, HTTPS_ONLY, BOTH, REDIRECTED = "http only", "https only", "both", "redirect"


@pytest.mark.parametrize(
    ("mode", "ports", "code", "seen"),
    [
        (HTTP_ONLY, (3000, 0), "webmail-other-port", "port 3000"),
        (HTTP_ONLY, (8080, 0), "webmail-other-port", "port 8080"),
        (HTTPS_ONLY, (0, 443), "webmail-https-only", "port 443"),
        (HTTPS_ONLY, (0, 3000), "webmail-https-only", "port 3000"),
        (HTTPS_ONLY, (0, 8443), "webmail-https-only", "port 8443"),
        (BOTH, (8080, 443), "webmail-other-port", "port 8080"),
        (BOTH, (3000, 8443), "webmail-other-port", "port 3000"),
        (REDIRECTED, (8080, 8443), "webmail-other-port", "port 8080"),
    ],
)
def test_the_modes_of_webmail_are_told_apart_on_any_port(
    lab: World, mode: str, ports: tuple[int, int], code: str, seen: str
) -> None:
    lab.has(NAME, A=FOUR)
    lab.ways.clear()
    http, https = ports
    lab.webmail = ports
    if http:
        answer = (lambda *_: moved("https://x/")) if mode == REDIRECTED else lab.file
        lab.serve(answer, LOCALHOST, port=http)
    if https:
        lab.serve(secure(lab.file), LOCALHOST, port=https, raw=True)

    examination = lab.examine()

    (finding,) = examination.server
    assert finding.code == code
    assert f"{seen} of this machine answers in HTTP" in finding.seen
    # The name is not told to bind port 80, which webmail may never do in its mode.
    assert [item.code for item in examination.names[0].findings] == [code]


def test_https_only_is_not_told_to_bind_port_80() -> None:
    advice = Code.WEBMAIL_HTTPS_ONLY.change
    assert "replace HTTPS only by HTTP and HTTPS" in advice
    assert "bind" not in advice


def test_a_redirect_to_another_https_port_is_told_the_two_ways_of_webmail(
    lab: World,
) -> None:
    finding = only(
        answering(lab, lambda path, host: moved(f"https://{host}:444{path}"))
    )

    assert finding.code == "http-redirect-port"
    for way in ("set the HTTPS port to 443", "by HTTP and HTTPS"):
        assert way in finding.kind.change
    assert "Exclude" not in finding.kind.change


@pytest.mark.parametrize("others", [{}, {SIX: 80}])
def test_a_name_of_which_not_all_addresses_serve_the_file_is_told_so_once(
    lab: World, others: dict[str, int]
) -> None:
    third = "192.31.196.9"
    lab.has(NAME, A=[FOUR, OTHER_FOUR, third], **{"AAAA": SIX} if others else {})
    lab.serve(lambda *_: page(b"", "404 Not Found"), OTHER_FOUR)

    found = lab.found()

    assert found.served == ((SIX, FOUR) if others else (FOUR,))
    finding = only(found)
    assert finding.code == "addr-not-all-serve"
    assert finding.weight is Weight.WARNING
    assert f"{OTHER_FOUR} (http-status-404), {third} (port80-refused)" in finding.seen
    assert f"{len(found.served)} of its {3 + len(others)} addresses" in finding.seen
    assert "cluster" in finding.kind.change


def test_another_program_on_port_80_is_told(lab: World) -> None:
    lab.has(NAME, A=FOUR)
    answer = page(b"It works!", "200 OK", "Server: Apache")
    lab.serve(lambda *_: answer, FOUR, LOCALHOST)

    examination = lab.examine()

    (finding,) = examination.server
    assert finding.code == "webroot-not-served"
    assert "by Apache" in finding.seen


def test_as_long_as_a_name_is_served_this_machine_is_not_blamed(lab: World) -> None:
    # MDaemon may bind to the public addresses only.
    del lab.ways[LOCALHOST, 80]

    assert lab.examine().server == ()


# The webroot


def test_a_webroot_that_is_not_there_is_told(lab: World) -> None:
    lab.webroot.rmdir()

    examination = lab.examine()

    (finding,) = examination.server
    assert finding.code == "webroot-not-writable"
    assert str(lab.webroot) in finding.seen
    assert examination.names[0].findings == ()
    assert lab.dialled == []


def test_a_webroot_that_takes_no_files_is_told(lab: World) -> None:
    with read_only(lab.webroot):
        examination = lab.examine()

    assert [x.code for x in examination.server] == ["webroot-not-writable"]


def changed(*_: object) -> bytes:
    return b"quarantined"


def gone(*_: object) -> bytes:
    raise FileNotFoundError(2, "No such file")


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (changed, "does not contain what was just written"),
        (gone, "could not read back"),
    ],
)
def test_a_file_that_is_not_there_once_written_is_told(
    lab: World,
    read: Callable[..., bytes],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("letsencrypt_mdaemon.doctor.web.read_limited", read)

    (finding,) = lab.examine().server

    assert finding.code == "webroot-not-writable"
    assert said in finding.seen


# DNS


def test_a_name_that_does_not_exist_would_fail_for_certain(lab: World) -> None:
    finding = only(lab.found(f"nowhere.{ZONE}"))

    assert finding.code == "dns-nxdomain"
    assert finding.weight is Weight.FAILURE
    assert finding.seen == (
        f"nowhere.{ZONE} does not exist, according to ns.{ZONE} ({OTHER_HOST})"
    )


def test_a_name_that_only_the_resolver_misses_is_not_certain(lab: World) -> None:
    lab.dns.broken[OWN, f"nowhere.{ZONE}"] = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nameservers, "QUERY_TIMEOUT_SECONDS", 0.1)
        finding = only(lab.found(f"nowhere.{ZONE}"))

    assert finding.code == "dns-nxdomain"
    assert finding.weight is Weight.WARNING
    assert finding.seen.endswith("according to the resolver 127.0.0.1")


def test_somebody_who_answers_in_place_of_the_zones_servers_is_not_believed(
    lab: World,
) -> None:
    lab.dns.without_aa = True

    assert only(lab.found(f"nowhere.{ZONE}")).weight is Weight.WARNING


def test_the_zones_servers_count_not_what_the_resolver_says_inside(
    lab: World,
) -> None:
    lab.dns.broken[RESOLVER, NAME] = dns.rcode.NXDOMAIN

    assert lab.found().served == (SIX, FOUR)


def test_servers_at_private_addresses_are_not_the_zones_own(
    lab: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nameservers, "_system", lambda: [LOCALHOST])
    resolver = Nameservers(port=lab.dns.port)

    answer = resolver.look_up(f"nowhere.{ZONE}", "A", time.monotonic() + HANG_SECONDS)

    assert answer.status is Status.NXDOMAIN
    assert not answer.zone


def test_servers_without_glue_are_found_by_the_resolver(lab: World) -> None:
    lab.dns.glue = False

    assert only(lab.found(f"nowhere.{ZONE}")).weight is Weight.FAILURE


def test_no_zone_tells_the_address_of_another_zones_server(lab: World) -> None:
    """Else it could answer for any zone, by saying that the server is its own."""
    name = f"below.{ZONE}"
    lab.dns.zones.append("elsewhere.org")
    lab.dns.referrals[name] = ("ns.elsewhere.org", LOCALHOST)
    lab.has(name, A=FOUR)

    lab.found(name)

    # At that address listens the root, which refers to the zone and is done with it.
    roots = [row for row in lab.dns.asked if row[:2] == ("root", name)]
    assert len(roots) == 1


def test_an_alias_leads_to_the_addresses_of_its_target(lab: World) -> None:
    lab.dns.zones.append("elsewhere.org")
    lab.has(f"alias.{ZONE}", CNAME="target.elsewhere.org.")
    lab.has("target.elsewhere.org", A=FOUR)

    assert lab.found(f"alias.{ZONE}").served == (FOUR,)
    assert lab.codes(f"alias.{ZONE}") == []


def test_an_alias_to_nowhere_would_fail_for_certain(lab: World) -> None:
    lab.has(f"alias.{ZONE}", CNAME=f"nowhere.{ZONE}.")

    finding = only(lab.found(f"alias.{ZONE}"))

    assert (finding.code, finding.weight) == ("dns-nxdomain", Weight.FAILURE)


def test_aliases_in_a_circle_end(lab: World) -> None:
    lab.has(f"a.{ZONE}", CNAME=f"b.{ZONE}.")
    lab.has(f"b.{ZONE}", CNAME=f"a.{ZONE}.")

    assert lab.codes(f"a.{ZONE}") == ["dns-servfail"]


def test_a_zone_that_fails_is_told(lab: World) -> None:
    for role in (RESOLVER, OWN):
        lab.dns.broken[role, NAME] = dns.rcode.SERVFAIL

    assert lab.codes() == ["dns-servfail"]


def test_a_resolver_that_fails_where_the_zone_answers_points_to_dnssec(
    lab: World,
) -> None:
    lab.dns.broken[RESOLVER, NAME] = dns.rcode.SERVFAIL

    found = lab.found()

    assert only(found).code == "dns-servfail"
    assert "DNSSEC" in only(found).seen
    assert found.served == (SIX, FOUR)


def test_a_name_without_an_address_is_told(lab: World) -> None:
    lab.has(NAME, TXT='"nothing"')

    assert lab.codes() == ["dns-no-address"]


@pytest.mark.parametrize("says", [None, b"", b"garbage" * 50])
@pytest.mark.usefixtures("hasty")
def test_a_resolver_that_is_down_is_told_without_waiting_for_it_again(
    lab: World, says: bytes | None
) -> None:
    names = [f"{number}.{ZONE}" for number in range(20)]
    lab.dns.says = says
    if says is None:
        for name in names:
            lab.dns.broken[RESOLVER, name] = None

    examination = lab.examine(*names)

    codes = [x.code for row in examination.names for x in row.findings]
    assert codes == ["dns-unreachable"] * 20
    # Twenty at once may ask twice before they know better; none asks for CAA then.
    assert len(lab.dns.asked) <= 40


def test_a_flood_of_nonsense_is_given_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
        flood.bind((LOCALHOST, 0))
        ended = Event()

        def serve() -> None:
            _, client = flood.recvfrom(4096)
            while not ended.is_set():
                with suppress(OSError):  # nobody listens any more
                    flood.sendto(b"nonsense", client)

        thread = Thread(target=serve)
        thread.start()
        resolver = Nameservers([LOCALHOST], port=flood.getsockname()[1])
        answer = resolver.look_up(NAME, "A", time.monotonic() + 0.3)
        ended.set()
        thread.join()

    assert answer.status is Status.SILENT


def test_no_resolver_at_all_is_told(
    lab: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nameservers, "_system", list)
    answer = Nameservers().look_up(NAME, "A", time.monotonic() + HANG_SECONDS)

    assert answer.status is Status.SILENT
    assert answer.by == "no DNS server is set"
    del lab


def test_the_systems_resolvers_are_addresses() -> None:
    for server in nameservers._system():  # noqa: SLF001
        assert is_public(server) in {True, False}


def test_of_a_hundred_addresses_some_are_asked(lab: World) -> None:
    addresses = [f"192.31.196.{number}" for number in range(1, 101)]
    lab.has(NAME, A=addresses)
    lab.serve(lab.file, *addresses)

    found = lab.found()

    assert only(found).code == "addr-many"
    assert only(found).weight is Weight.NOTE
    assert f"{NAME} has 100 addresses" in only(found).seen
    assert len(found.served) == 6
    # So many fit no datagram.
    assert ("own", NAME, "A", "tcp") in lab.dns.asked


@pytest.mark.parametrize(
    "address",
    [
        *("10.1.2.3", "127.0.0.1", "169.254.1.1", "100.64.0.1", "192.0.2.1"),
        *("224.0.0.1", "0.0.0.0", "255.255.255.255"),  # noqa: S104 - no bind
        *("fe80::1", "fd00::1", "::1", "::ffff:10.0.0.1", "2001:db8::1", "ff02::1"),
    ],
)
def test_a_private_address_is_told_and_not_asked(lab: World, address: str) -> None:
    lab.has(NAME, **{"AAAA" if ":" in address else "A": address})

    found = lab.found()

    assert only(found).code == "addr-private"
    assert address in only(found).seen
    assert {host for host, _ in lab.dialled} <= {LOCALHOST}


def test_a_private_ca_may_ask_private_addresses(lab: World) -> None:
    lab.authority = Authority(public=False)
    lab.has("mail.office.local", A="10.0.0.1")
    lab.dns.zones.append("local")
    lab.serve(lab.file, "10.0.0.1")

    assert lab.found("mail.office.local").served == ("10.0.0.1",)


@pytest.mark.parametrize(
    "name", ["mail.office.local", "mail.example.test", "a.lan", "host.home.arpa"]
)
def test_a_name_that_is_not_on_the_internet_would_fail_for_certain(
    lab: World, name: str
) -> None:
    finding = only(lab.found(name))

    assert finding.code == "name-not-public-tld"
    assert finding.weight is Weight.FAILURE
    assert lab.dns.asked == []


def test_a_top_level_domain_that_the_root_does_not_know_is_not_on_the_internet(
    lab: World,
) -> None:
    finding = only(lab.found("mail.office.intranet"))

    assert finding.code == "name-not-public-tld"
    assert finding.weight is Weight.FAILURE


@pytest.mark.parametrize("name", ["mail.example.com", "local.org", "xtest.net"])
def test_names_that_only_look_private_are_public(name: str) -> None:
    assert is_public_name(name)


# CAA


ISSUE = f"{CA}"
OURS = f"{CA}; accounturi={ACCOUNT}; validationmethods=http-01"


@pytest.mark.parametrize(
    ("records", "code"),
    [
        ([], ""),
        ([f'0 issue "{CA}"'], ""),
        ([f'0 ISSUE " {CA.upper()} "'], ""),
        ([f'0 issue "{OURS}"'], ""),
        ([f'0 issue "{CA};"'], ""),
        (['0 issue "other.example"', f'0 issue "{CA}"'], ""),
        (['0 iodef "mailto:a@example.org"'], ""),
        (['0 issuewild ";"'], ""),
        (['128 issue "other.example"', f'128 issue "{CA}"'], ""),
        (['0 tbs "unknown"'], ""),
        ([f'0 issue "{CA}; validationmethods=dns-01,http-01"'], ""),
        ([f'0 issue "{CA}; foo=bar"'], ""),
        (['0 issue ";"'], "caa-forbids"),
        (['0 issue ""'], "caa-forbids"),
        (['0 issue "other.example"'], "caa-forbids"),
        ([f'0 issue "x{CA}"'], "caa-forbids"),
        ([f'0 issue "{CA}; %%%"'], "caa-forbids"),
        ([f'0 issue "{CA}"', '128 tbs "unknown"'], "caa-forbids"),
        ([f'0 issue "{CA}; accounturi={ACCOUNT}0"'], "caa-accounturi"),
        (
            [f'0 issue "{CA}; accounturi={ACCOUNT}; accounturi={ACCOUNT}"'],
            "caa-accounturi",
        ),
        ([f'0 issue "{CA}; validationmethods=dns-01"'], "caa-method"),
        ([f'0 issue "{CA}; validationmethods="'], "caa-method"),
    ],
)
def test_caa_records_forbid_or_do_not(
    lab: World, records: list[str], code: str
) -> None:
    lab.authority = Authority(identities=frozenset({CA}), account=ACCOUNT)
    lab.has(NAME, A=FOUR, **({"CAA": records} if records else {}))

    found = lab.found()

    assert [finding.code for finding in found.findings] == ([code] if code else [])
    if code:
        assert only(found).weight is Weight.FAILURE
        assert NAME in only(found).seen
    # It is advice: the file is looked for all the same.
    assert found.served == (FOUR,)


def test_the_nearest_caa_records_count(lab: World) -> None:
    lab.authority = Authority(identities=frozenset({CA}))
    lab.has(ZONE, CAA='0 issue "other.example"')
    below = f"a.b.{ZONE}"
    lab.has(below, A=FOUR)

    finding = only(lab.found(below))
    assert finding.code == "caa-forbids"
    assert finding.seen.startswith(f"{ZONE} has the CAA records")

    lab.has(f"b.{ZONE}", CAA=f'0 issue "{CA}"')
    assert lab.codes(below) == []


def test_caa_records_of_an_aliass_target_count(lab: World) -> None:
    lab.authority = Authority(identities=frozenset({CA}))
    lab.has(NAME, CNAME=f"{OTHER}.")
    lab.has(OTHER, A=FOUR, CAA='0 issue "other.example"')

    assert lab.codes() == ["caa-forbids"]


def test_caa_records_that_cannot_be_had_are_told(lab: World) -> None:
    lab.authority = Authority(identities=frozenset({CA}))
    for role in (RESOLVER, OWN):
        lab.dns.broken[role, ZONE] = dns.rcode.SERVFAIL

    finding = only(lab.found())

    assert finding.code == "dns-servfail"
    assert "about CAA" in finding.seen


def test_caa_records_that_only_the_resolver_knows_are_not_certain(lab: World) -> None:
    lab.authority = Authority(identities=frozenset({CA}))
    lab.dns.without_aa = True
    lab.has(NAME, A=FOUR, CAA='0 issue ";"')

    finding = only(lab.found())

    assert (finding.code, finding.weight) == ("caa-forbids", Weight.WARNING)


def test_an_account_that_is_not_registered_yet_might_be_the_one_that_is_meant() -> None:
    records = [Property(0, "issue", f"{CA}; accounturi={ACCOUNT}")]
    authority = Authority(identities=frozenset({CA}))

    finding = check(NAME, records, authority, certain=True)

    assert finding is not None
    assert (finding.code, finding.weight) == ("caa-accounturi", Weight.WARNING)
    assert "our account is not registered yet" in finding.seen


def test_the_record_to_publish_names_the_account_and_would_let_us_get_certificates(
    lab: World,
) -> None:
    lab.authority = Authority(identities=frozenset({CA}), account=ACCOUNT)

    publish = lab.found().publish

    assert publish == (
        f'{NAME}. IN CAA 0 issue "{CA}; validationmethods=http-01; '
        f'accounturi={ACCOUNT}"'
    )
    lab.has(NAME, A=FOUR, CAA=publish.partition(" CAA ")[2])
    assert lab.found() == Examined(name=NAME, served=(FOUR,))


@given(
    st.lists(
        st.builds(
            Property,
            st.integers(0, 255),
            st.sampled_from(["issue", "issuewild", "iodef", "x"]) | st.text(),
            st.text() | st.from_regex(rf"{CA}(; ?[a-z]+=[a-z]*)*", fullmatch=True),
        )
    )
)
def test_whatever_caa_records_hold_the_judgement_is_one_of_three(
    records: list[Property],
) -> None:
    authority = Authority(identities=frozenset({CA}), account=ACCOUNT)

    finding = check(NAME, records, authority, certain=True)

    if finding is not None:
        assert finding.code in {"caa-forbids", "caa-accounturi", "caa-method"}
        assert finding.seen.isprintable()


def test_without_the_cas_names_caa_is_not_judged(lab: World) -> None:
    lab.has(NAME, A=FOUR, CAA='0 issue ";"')

    assert lab.codes() == []


# Many, and at once


def test_every_name_is_examined_and_told_in_order(lab: World) -> None:
    names = [f"{number}.{ZONE}" for number in range(30)]
    for name in names[::2]:
        lab.has(name, A=FOUR)

    examination = lab.examine(*names)

    assert [row.name for row in examination.names] == names
    assert [bool(row.served) for row in examination.names] == [True, False] * 15


class Odd:
    """A DNS that does something else than answering about one name."""

    def __init__(self, lab: World, act: Callable[[], object]) -> None:
        self.other = Nameservers([LOCALHOST], port=lab.dns.port)
        self.act = act

    def look_up(
        self, name: str, kind: nameservers.Kind, deadline: float
    ) -> nameservers.DnsAnswer:
        if name == OTHER:
            self.act()
        return self.other.look_up(name, kind, deadline)


def fail() -> None:
    raise ZeroDivisionError("\x1b[31m")


def test_what_nobody_thought_of_costs_one_name_only(lab: World) -> None:
    examination = lab.doctor(Odd(lab, fail).look_up).examine(
        [NAME, OTHER], timeout=HANG_SECONDS
    )

    good, odd = examination.names
    assert good.served == (SIX, FOUR)
    assert only(odd).code == "unfinished"
    assert only(odd).seen == f"{OTHER}: ZeroDivisionError: \\x1b[31m"


def test_an_address_that_makes_trouble_costs_itself_only(lab: World) -> None:
    lab.ways[SIX, 80] = ZeroDivisionError()

    found = lab.found()

    assert found.served == (FOUR,)
    assert only(found).code == "unfinished"
    assert only(found).seen == f"{NAME} at {SIX}: ZeroDivisionError"


def test_what_hangs_costs_one_name_only(
    lab: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letsencrypt_mdaemon.doctor.web.OVERTIME_SECONDS", 0.0)
    freed = Event()

    try:
        doctor = lab.doctor(Odd(lab, freed.wait).look_up)
        good, hanging = in_time(
            lambda seconds: doctor.examine([NAME, OTHER], timeout=seconds).names,
            lambda found: found[0].served,
        )
    finally:
        freed.set()

    assert good.served == (SIX, FOUR)
    assert f"could not check {OTHER} within " in only(hanging).seen


def test_a_timeout_ends_the_examination(lab: World) -> None:
    for role in (RESOLVER, OWN):
        lab.dns.broken[role, NAME] = None
    lab.has(OTHER, A=FOUR)

    slow, quick = in_time(
        lambda seconds: lab.examine(NAME, OTHER, timeout=seconds).names,
        lambda found: found[1].served,
    )

    assert only(slow).code == "dns-unreachable"
    assert quick.served == (FOUR,)


# This machine


NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        (format_datetime(NOW), False),
        (format_datetime(NOW + timedelta(minutes=4)), False),
        (format_datetime(NOW + timedelta(minutes=6)), True),
        (format_datetime(NOW - timedelta(days=1)), True),
        ("Wed, 25 Nov 2026 12:00:00 GMT", False),
        ("Wed, 25 Nov 2026 12:00:00 -0000", False),
        ("Wed, 25 Nov 2026 14:00:00 +0200", False),
        ("", False),
        ("\x1b[31m", False),
        ("Wed, 99 Nov 2026 99:00:00 GMT", False),
    ],
)
def test_a_clock_that_is_wrong_is_told(said: str, wrong: bool) -> None:  # noqa: FBT001
    found = machine.clock(NOW, http_date(said))

    assert [finding.code for finding in found] == ["clock-skew"] * wrong


def test_both_clocks_are_shown_in_local_time() -> None:
    yesterday = NOW - timedelta(days=1)

    (finding,) = machine.clock(NOW, yesterday)

    assert finding.seen == (
        f"this machine's clock shows {NOW.astimezone():%Y-%m-%d %H:%M}, but the CA's "
        f"shows {when(yesterday, NOW)}"
    )


CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


@pytest.mark.parametrize(
    ("usages", "public", "said"),
    [
        ([SERVER, CLIENT], True, "the next one will not be"),
        ([SERVER, CLIENT], False, ""),
        ([SERVER], True, "for servers only"),
        ([SERVER], False, "for servers only"),
        ([], True, ""),
    ],
)
def test_it_is_told_whether_the_certificate_is_for_clients_as_well(
    usages: list[x509.ObjectIdentifier],
    public: bool,  # noqa: FBT001
    said: str,
) -> None:
    extensions = [x509.ExtendedKeyUsage(usages)] if usages else []
    leaf = certificates.sign("a", extensions=extensions).certificate

    found = machine.client_auth(leaf, public=public)

    assert [finding.code for finding in found] == ["client-auth"] * bool(said)
    assert all(finding.weight is Weight.NOTE for finding in found)
    assert said in "".join(finding.seen for finding in found)
    assert machine.client_auth(None, public=public) == []


# The table


def test_the_codes_are_those_that_others_use_too() -> None:
    assert set(map(str, Code)) >= {
        *("dns-nxdomain", "dns-servfail", "dns-no-address", "addr-private"),
        *("addr-not-ours", "aaaa-unreachable", "aaaa-different-content"),
        *("port80-refused", "port80-timeout", "http-status"),
        *("http-404-extensionless", "http-redirect-303", "http-redirect-port"),
        *("http-redirect-loop", "http-redirect-missing-slash", "body-bom"),
        *("body-html-login-page", "body-too-long", "caa-forbids", "caa-accounturi"),
        *("caa-method", "webroot-not-served", "iis-mime", "hairpin-unknown"),
        *("worldclient-https-redirect", "proxy-intercepts", "name-not-public-tld"),
        *("too-many-names", "clock-skew", "rate-limit-local-ledger"),
    }


def test_every_code_has_advice() -> None:
    assert all(code.change for code in Code)


def test_a_status_ends_its_code() -> None:
    assert Finding(kind=Code.HTTP_STATUS, seen="", number=404).code == "http-status-404"


@given(st.text())
def test_whatever_was_seen_is_shown_harmlessly_and_not_at_length(text: str) -> None:
    seen = Finding(kind=Code.HTTP_STATUS, seen=text, number=404).seen

    assert seen.isprintable()
    assert len(seen) <= 600
