"""The small MDaemon, spoken to as its users do: by files, HTTP and SMTP."""

import http.client
import os
import re
import smtplib
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from letsencrypt_mdaemon.errors import Error
from letsencrypt_mdaemon.sandbox.folder import (
    FOREIGN,
    INI_FILES,
    TARGETS,
    Layout,
    bound,
    create,
    parse_raw,
    read_value,
)
from letsencrypt_mdaemon.sandbox.mdaemon import Page, Request, Server
from letsencrypt_mdaemon.sandbox.ports import PORTS
from tests.limits import HANG_SECONDS

CHALLENGE = ".well-known/acme-challenge/LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"
NEW = "00112233445566778899AABBCCDDEEFF00112233"
RAW = b"From <a@example.test>\r\nTo <b@example.test>\r\n\r\nHello\r\n"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return create(tmp_path / "MDaemon", now=NOW)


@pytest.fixture
def server(layout: Layout) -> Iterator[Server]:
    with Server(layout.folder, pickup=0.01) as running:
        yield running


def leaf(layout: Layout) -> x509.Certificate:
    pem = (layout.certificates / "self-signed" / "cert.pem").read_bytes()
    return x509.load_pem_x509_certificate(pem)


def thumbprint(layout: Layout) -> str:
    return leaf(layout).fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303  a name


def rename_all(layout: Layout, new: str) -> None:
    """Name another certificate in all three files, each in its own form."""
    old = thumbprint(layout)
    for target in TARGETS.values():
        file = layout.folder / target.file
        data = file.read_bytes()
        for form in (
            str.upper,
            str.lower,
            lambda hex_: re.sub("..(?=.)", r"\g<0> ", hex_),
        ):
            data = data.replace(form(old).encode(), form(new).encode())
        file.write_bytes(data)


def get(server: Server, path: str) -> tuple[int, str | None, bytes]:
    """Return status, content type and body."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", server.http_port, timeout=HANG_SECONDS
    )
    try:
        connection.request("GET", path, headers={"Host": "mail.example.test"})
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type"), answer.read()
    finally:
        connection.close()


def drop(folder: Path, name: str, data: bytes = b"") -> Path:
    """Put a complete file there at once, as a careful program does."""
    unfinished = folder / f"{name}.tmp"
    unfinished.write_bytes(data)
    return unfinished.rename(folder / name)


def two_passes(server: Server) -> None:
    """Wait until the server has certainly looked at all that is there now."""
    seen = server.passes
    server.wait_for(lambda: server.passes >= seen + 2)


# The folder


def test_the_folder_has_the_places_of_a_real_server(layout: Layout) -> None:
    folder = layout.folder
    for place in ("App", "WorldClient/HTML", "Logs", "Queues/Raw", "LetsEncrypt"):
        assert (folder / place).is_dir()
    assert layout.app == folder / "App"
    assert layout.webroot == folder / "WorldClient" / "HTML"
    assert layout.raw == folder / "Queues" / "Raw"
    assert layout.logs == folder / "Logs"
    assert layout.letsencrypt == folder / "LetsEncrypt"
    assert layout.certificates == folder / "certificates"
    assert vars(layout) == vars(Layout(folder))


@pytest.mark.parametrize("name", INI_FILES)
def test_every_line_of_an_ini_file_ends_with_crlf(layout: Layout, name: str) -> None:
    data = (layout.folder / name).read_bytes()
    assert data.endswith(b"\r\n")
    assert data.count(b"\r\n") == data.count(b"\n") == data.count(b"\r")


def test_comments_have_bytes_that_are_windows_1252_and_not_utf_8(
    layout: Layout,
) -> None:
    for name in set(INI_FILES) - {"WebAdmin/WebAdmin.ini"}:
        data = (layout.folder / name).read_bytes()
        comment = data.split(b"\r\n")[0]
        assert comment.startswith(b";")
        assert {0xFC, 0x80, 0x85} <= set(comment)
        with pytest.raises(UnicodeDecodeError):
            data.decode("utf-8")


def test_one_ini_file_is_utf_8_and_its_first_section_follows_a_byte_order_mark(
    layout: Layout,
) -> None:
    data = (layout.folder / "WebAdmin/WebAdmin.ini").read_bytes()
    assert data.startswith(b"\xef\xbb\xbf[SSL]\r\n")
    assert "ü" in data.decode("utf-8-sig")


def test_each_file_names_the_certificate_in_its_own_form(layout: Layout) -> None:
    ours = thumbprint(layout)
    lines = {
        part: (layout.folder / target.file).read_bytes().decode("latin-1").split("\r\n")
        for part, target in TARGETS.items()
    }
    assert f"Certificate={ours}" in lines["mail"]
    assert f"Certificates={ours.lower()},{FOREIGN.lower()}" in lines["webmail"]
    pairs = " ".join(ours[i : i + 2] for i in range(0, 40, 2))
    assert f"Certificate={pairs}" in lines["admin"]
    assert bound(layout.folder) == dict.fromkeys(("mail", "webmail", "admin"), ours)


def test_another_section_names_a_foreign_certificate_by_the_same_key(
    layout: Layout,
) -> None:
    ini = layout.app / "MDaemon.ini"
    assert read_value(ini, "Partner", "Certificate") == FOREIGN


def test_the_files_hold_what_trips_careless_readers(layout: Layout) -> None:
    assert (
        read_value(layout.app / "MDaemon.ini", "special", "IMAPKEYWORDFLAGS") == "Yes"
    )
    help_url = read_value(
        layout.folder / "WorldClient/WorldClient.ini", "General", "HelpURL"
    )
    assert help_url == "https://help.example.test/?topic=ssl&lang=de"
    domains = layout.folder / "WorldClient/Domains.ini"
    key = "WorldClientAPI:AllowTheseExternalOrigins"
    assert (
        read_value(domains, "Default:Settings", key) == "https://intranet.example.test"
    )


def test_the_raw_queue_is_named_by_an_absolute_path_of_this_platform(
    layout: Layout,
) -> None:
    value = read_value(layout.app / "MDaemon.ini", "Directories", "Raw")
    assert Path(value).is_absolute()
    assert value == str(layout.raw)


def test_the_domain_database_has_a_section_for_each_domain(tmp_path: Path) -> None:
    layout = create(tmp_path / "other", host_name="mx.example.net")
    database = layout.app / "Domains.dat"
    sections = re.findall(rb"^\[(.+)\]\r$", database.read_bytes(), re.MULTILINE)
    assert sections == [b"example.test", b"example.org"]
    assert read_value(database, "example.test", "FQDN") == "mx.example.net"
    assert read_value(database, "example.org", "FQDN") == "mail.example.org"
    assert read_value(layout.app / "MDaemon.ini", "Domain", "FQDN") == "mx.example.net"


def test_the_certificate_is_self_signed_for_the_host_name_and_ten_years(
    layout: Layout,
) -> None:
    certificate = leaf(layout)
    certificate.verify_directly_issued_by(certificate)
    assert certificate.subject.rfc4514_string() == "CN=mail.example.test"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["mail.example.test"]
    assert certificate.not_valid_before_utc == NOW
    assert certificate.not_valid_after_utc == NOW + timedelta(days=3652)


def test_the_store_holds_certificate_and_private_key(layout: Layout) -> None:
    store = layout.certificates / "self-signed"
    assert sorted(path.name for path in store.iterdir()) == [
        "cert.pem",
        "chain.pem",
        "fullchain.pem",
        "privkey.pem",
    ]
    assert (store / "chain.pem").read_bytes() == b""
    assert (store / "fullchain.pem").read_bytes() == (store / "cert.pem").read_bytes()
    key = serialization.load_pem_private_key(
        (store / "privkey.pem").read_bytes(), password=None
    )
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 2048
    assert key.public_key() == leaf(layout).public_key()
    if os.name == "posix":
        assert stat.S_IMODE((store / "privkey.pem").stat().st_mode) == 0o600


def test_no_sandbox_is_made_where_something_is(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", "utf-8")
    with pytest.raises(Error, match="is not empty") as caught:
        create(tmp_path)
    assert "does not exist yet" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_with_an_umlaut_will_do(tmp_path: Path) -> None:
    folder = tmp_path / "Büro"
    folder.mkdir()
    layout = create(folder)
    with Server(folder, pickup=0.01) as server:
        assert server.raw == layout.raw


def test_a_folder_that_windows_1252_cannot_name_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "Łódź"
    with pytest.raises(Error, match="characters that Windows-1252 lacks"):
        create(folder)
    assert not folder.exists()


# Reading INI values


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"[s]\r\nk=1\r\nk=2\r\n", "1"),
        (b"[S]\r\n K = a=b \r\n", "a=b"),
        (b"k=0\r\n[t]\r\nk=2\r\n[s]\r\nk=1", "1"),
        (b"[s]\r\n;k=0\r\nk=1\r\n", "1"),
        (b"[s]\r\n[t]\r\nk=1\r\n", ""),
        (b"[s]\r\nk\r\n", ""),
        (b"[s]\r\nk=\xfc\x85\r\n", "ü…"),
        (b"\xef\xbb\xbf[s]\r\nk=\xc3\xbc\r\n", "ü"),
    ],
)
def test_a_value_is_read_as_windows_reads_it(
    tmp_path: Path, data: bytes, value: str
) -> None:
    file = tmp_path / "a.ini"
    file.write_bytes(data)
    assert read_value(file, "s", "k") == value


def test_a_file_that_is_missing_has_no_values(tmp_path: Path) -> None:
    assert read_value(tmp_path / "none.ini", "s", "k") == ""
    assert bound(tmp_path) == {"mail": "", "webmail": "", "admin": ""}


# Starting and ending


def test_a_folder_that_is_no_sandbox_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "App").mkdir()
    ini = tmp_path / "App" / "MDaemon.ini"
    ini.write_bytes(b"[Directories]\r\nRaw=C:\\MDaemon\\Queues\\Raw\r\n")
    semaphore = tmp_path / "App" / "RESTART.SEM"
    semaphore.touch()
    with pytest.raises(Error, match="is not a sandbox"), Server(tmp_path):
        pass
    assert semaphore.exists()


def test_the_webroot_is_served_on_the_port_asked_for(layout: Layout) -> None:
    (layout.webroot / "hello").write_bytes(b"hello")
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with Server(layout.folder, http_port=port) as server:
        assert server.http_port == port
        assert get(server, "/hello")[2] == b"hello"


def test_a_port_in_use_is_named_and_nothing_stays_behind(layout: Layout) -> None:
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(Error, match=f"Could not listen on 127.0.0.1:{port}: "),
            Server(layout.folder, http_port=port),
        ):
            pass
    assert set(threading.enumerate()) <= before


def test_without_aiosmtpd_the_error_says_what_to_install(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(threading.enumerate())
    monkeypatch.setitem(sys.modules, "aiosmtpd.smtp", None)
    with pytest.raises(Error, match="aiosmtpd") as caught, Server(layout.folder):
        pass
    assert caught.value.hint == 'Run pip install "letsencrypt-mdaemon[demo]".'
    assert set(threading.enumerate()) <= before


def test_all_ends_on_the_way_out_though_clients_hold_their_connections(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Page, "timeout", 0.2)
    before = set(threading.enumerate())
    with Server(layout.folder) as server:
        ports = [server.http_port, server.smtp_port]
        web = socket.create_connection(
            ("127.0.0.1", server.http_port), timeout=HANG_SECONDS
        )
        mail = socket.create_connection(
            ("127.0.0.1", server.smtp_port), timeout=HANG_SECONDS
        )
        assert mail.recv(100).startswith(b"220 ")
        assert set(threading.enumerate()) - before
    assert set(threading.enumerate()) <= before
    with suppress(ConnectionResetError):  # it was not even accepted
        assert web.recv(100) == b""
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS)
    web.close()
    mail.close()


def test_waiting_for_what_does_not_come_is_an_error(server: Server) -> None:
    with pytest.raises(TimeoutError, match="was not met within 0 s"):
        server.wait_for(lambda: server.semaphores, timeout=0)


def test_it_can_be_run_by_hand_until_its_input_ends(tmp_path: Path) -> None:
    folder = tmp_path / "by hand"
    command = [sys.executable, "-m", "letsencrypt_mdaemon.sandbox.mdaemon"]
    with subprocess.Popen(
        [*command, "--directory", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.fullmatch(r"HTTP port (\d+), SMTP (\d+)\n", said)
        assert found, said
        endpoints = [process.stdout.readline() for _ in PORTS]
        assert endpoints[0] == f"smtp: smtp+starttls://127.0.0.1:{found[2]}\n"
        assert endpoints[-1].startswith("admin: https://127.0.0.1:")
        with smtplib.SMTP("127.0.0.1", int(found[2]), timeout=HANG_SECONDS) as client:
            assert client.noop()[0] == 250
        process.stdin.close()
        assert process.wait(30) == 0
    assert (folder / "App" / "MDaemon.ini").is_file()


# HTTP


def test_a_token_in_a_dot_folder_is_served_as_plain_text(server: Server) -> None:
    file = server.layout.webroot / CHALLENGE
    file.parent.mkdir(parents=True)
    file.write_bytes(b"token.key")
    assert get(server, f"/{CHALLENGE}") == (200, "text/plain", b"token.key")


def test_requests_are_recorded_with_the_name_they_asked_for(server: Server) -> None:
    get(server, f"/{CHALLENGE}")
    assert server.requests == [
        Request("GET", f"/{CHALLENGE}", "mail.example.test", 404)
    ]


def test_a_folder_is_never_listed(server: Server) -> None:
    folder = server.layout.webroot / ".well-known"
    folder.mkdir()
    (folder / "secret-name").touch()
    status, _, body = get(server, "/.well-known/")
    assert status == 404
    assert b"secret-name" not in body


@pytest.mark.parametrize(
    "path", ["/../../App/MDaemon.ini", "/%2e%2e/%2e%2e/App/MDaemon.ini"]
)
def test_nothing_outside_the_webroot_is_served(server: Server, path: str) -> None:
    assert get(server, path)[0] == 404


def test_a_broken_request_is_answered_and_recorded(server: Server) -> None:
    with socket.create_connection(
        ("127.0.0.1", server.http_port), timeout=HANG_SECONDS
    ) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert b"Bad request syntax" in client.makefile("rb").read()
    assert [request.status for request in server.requests] == [400]


def test_a_silent_client_does_not_hold_up_the_others(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Page, "timeout", HANG_SECONDS)
    with socket.create_connection(
        ("127.0.0.1", server.http_port), timeout=HANG_SECONDS
    ):
        assert get(server, "/none")[0] == 404


# SMTP


def test_it_greets_with_its_host_name(server: Server) -> None:
    with smtplib.SMTP(timeout=HANG_SECONDS) as client:
        code, banner = client.connect("127.0.0.1", server.smtp_port)
        assert (code, banner.split()[0]) == (220, b"mail.example.test")
        code, answer = client.ehlo("client.example.test")
        assert (code, answer.splitlines()[0]) == (250, b"mail.example.test")


def test_mail_taken_by_smtp_is_delivered_with_its_envelope_on_top(
    server: Server,
) -> None:
    body = "Subject: one\r\n\r\n..two dots\r\n"
    with smtplib.SMTP("127.0.0.1", server.smtp_port, timeout=HANG_SECONDS) as client:
        to = ["b@example.test", "c@example.test"]
        client.sendmail("a@example.test", to, body)
        client.sendmail("a@example.test", "d@example.test", "Subject: two\r\n\r\n")
    folder = server.layout.delivered
    assert server.delivered == [folder / "0001.eml", folder / "0002.eml"]
    assert (folder / "0001.eml").read_bytes() == (
        b"Return-Path: <a@example.test>\r\n"
        b"Delivered-To: b@example.test\r\nDelivered-To: c@example.test\r\n"
    ) + body.encode()
    assert b"Subject: two" in (folder / "0002.eml").read_bytes()


def test_a_restarted_server_overwrites_no_mail(layout: Layout) -> None:
    for _ in range(2):
        with Server(layout.folder, pickup=0.01) as server:
            drop(layout.raw, "a.raw", RAW)
            server.wait_for(lambda: server.delivered)
    names = sorted(path.name for path in layout.delivered.iterdir())
    assert names == ["0001.eml", "0002.eml"]


# Semaphores


@pytest.mark.parametrize("name", ["RELOADCACHE.SEM", "ReloadCache.sem"])
def test_a_semaphore_is_taken_whatever_its_letter_case(
    server: Server, name: str
) -> None:
    file = drop(server.layout.app, name)
    server.wait_for(lambda: server.semaphores)
    assert not file.exists()
    assert server.semaphores == ["RELOADCACHE.SEM"]


def test_semaphores_left_while_it_was_stopped_are_taken_oldest_first(
    layout: Layout,
) -> None:
    for age, name in ((1, "ALIAS.SEM"), (3, "RESTARTWC.SEM"), (2, "DNS.SEM")):
        file = drop(layout.app, name)
        os.utime(file, (1_700_000_000 - age, 1_700_000_000 - age))
    with Server(layout.folder, pickup=0.01) as server:
        server.wait_for(lambda: len(server.semaphores) == 3)
        assert server.semaphores == ["RESTARTWC.SEM", "DNS.SEM", "ALIAS.SEM"]


@pytest.mark.parametrize("lock", ["LOCKSEMS.SEM", "LockSems.sem"])
def test_nothing_is_taken_while_locksems_stands(layout: Layout, lock: str) -> None:
    lock_file = drop(layout.app, lock)
    file = drop(layout.app, "RESTARTWC.SEM")
    with Server(layout.folder, pickup=0.01) as server:
        two_passes(server)
        assert lock_file.exists()
        assert file.exists()
        assert server.semaphores == []
        lock_file.unlink()
        server.wait_for(lambda: not file.exists())
        assert server.semaphores == ["RESTARTWC.SEM"]


def test_a_semaphore_to_ignore_stays_and_others_are_taken(server: Server) -> None:
    server.ignore.add("RESTARTWC.SEM")
    stays = drop(server.layout.app, "restartwc.sem")
    drop(server.layout.app, "RELOADCACHE.SEM")
    server.wait_for(lambda: server.semaphores)
    two_passes(server)
    assert stays.exists()
    assert server.semaphores == ["RELOADCACHE.SEM"]


def test_what_is_no_semaphore_file_stays_and_does_nothing(server: Server) -> None:
    app = server.layout.app
    old = server.serving.copy()
    rename_all(server.layout, NEW)
    others = [drop(app, "RESTART.SEM.bak"), drop(app, "EDITUSER.LCK")]
    (app / "RESTART.SEM").mkdir()
    two_passes(server)
    assert all(path.exists() for path in others)
    assert (app / "RESTART.SEM").is_dir()
    assert server.semaphores == []
    assert server.serving == old


@pytest.mark.parametrize(
    ("semaphore", "parts"),
    [
        ("RELOADCACHE.SEM", {"mail"}),
        ("RESTARTWC.SEM", {"webmail"}),
        ("RESTART.SEM", {"mail", "webmail", "admin"}),
        ("DOMAINS.SEM", set()),
    ],
)
def test_a_part_serves_a_new_certificate_once_its_semaphore_is_taken(
    server: Server, semaphore: str, parts: set[str]
) -> None:
    old = thumbprint(server.layout)
    assert server.serving == {"mail": old, "webmail": old, "admin": old}
    rename_all(server.layout, NEW)
    two_passes(server)
    assert server.serving == {"mail": old, "webmail": old, "admin": old}
    drop(server.layout.app, semaphore)
    server.wait_for(lambda: server.semaphores)
    assert {part for part in TARGETS if server.serving[part] == NEW} == parts
    assert {part for part in TARGETS if server.serving[part] == old} == set(
        TARGETS
    ) - parts


def test_a_semaphore_waits_while_an_ini_file_cannot_be_read(server: Server) -> None:
    ini = server.layout.app / "MDaemon.ini"
    aside = ini.rename(ini.with_suffix(".aside"))
    ini.mkdir()
    file = drop(server.layout.app, "RELOADCACHE.SEM")
    two_passes(server)
    assert file.exists()
    with server.changed:  # it must not look between the two
        ini.rmdir()
        aside.rename(ini)
    server.wait_for(lambda: server.semaphores)
    assert server.serving["mail"] == thumbprint(server.layout)


# The RAW queue


def test_a_raw_message_is_delivered_as_a_mail(server: Server) -> None:
    file = drop(
        server.layout.raw,
        "md0001.RAW",
        b"FROM <md@example.test>\r\nto <a@example.test, b@example.test>\r\n"
        b"CC <c@example.test>\r\nReplyTo <d@example.test>\r\nSubject <It failed>\r\n"
        b"Header <X-One: 1>\r\nHeader <X-Two: 2>\r\n\r\nLine one\r\n\r\n<two>\r\n",
    )
    server.wait_for(lambda: server.delivered)
    assert not file.exists()
    assert server.delivered[0].read_bytes() == (
        b"From: md@example.test\r\nTo: a@example.test, b@example.test\r\n"
        b"Cc: c@example.test\r\nReply-To: d@example.test\r\nSubject: It failed\r\n"
        b"X-One: 1\r\nX-Two: 2\r\n\r\nLine one\r\n\r\n<two>\r\n"
    )


def test_files_with_another_extension_are_not_looked_at(server: Server) -> None:
    raw = server.layout.raw
    others = [drop(raw, name, RAW) for name in ("a.tmp", "b.raw.part", "raw")]
    two_passes(server)
    assert [path.read_bytes() for path in others] == [RAW] * 3
    assert server.delivered == []
    assert list(server.layout.bad.iterdir()) == []


def test_the_raw_queue_is_where_mdaemon_ini_says(
    layout: Layout, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    ini = layout.app / "MDaemon.ini"
    old, new = str(layout.raw).encode("cp1252"), str(elsewhere).encode("cp1252")
    ini.write_bytes(ini.read_bytes().replace(old, new))
    stays = drop(layout.raw, "a.raw", RAW)
    with Server(layout.folder, pickup=0.01) as server:
        drop(elsewhere, "b.raw", RAW)
        server.wait_for(lambda: server.delivered)
        two_passes(server)
    assert stays.exists()
    assert len(server.delivered) == 1


MALFORMED = [
    (b"", "no blank line"),
    (b"\r\n\r\nbody", "not a RAW header: ''"),
    (RAW.replace(b"\r\n\r\n", b"\r\n"), "no blank line"),
    (RAW.replace(b"\r\n", b"\n"), "no blank line"),
    (RAW.replace(b"\r\nTo", b"\nTo"), "not a RAW header"),
    (RAW.replace(b"From <a@example.test>\r\n", b""), "header missing: from"),
    (RAW.replace(b"To <b@example.test>", b"CC <b@example.test>"), "missing: to"),
    (
        RAW.replace(b"From <a@example.test>", b"From: a@example.test"),
        "not a RAW header",
    ),
    (RAW.replace(b"From <", b"From<"), "not a RAW header"),
    (RAW.replace(b"test>\r\nTo", b"test> \r\nTo"), "not a RAW header"),
    (RAW.replace(b"From <", b"Sender <"), "not a RAW header"),
    (RAW.replace(b"From <a@", b"From <<a@"), "not a RAW header"),
    (RAW.replace(b"a@example.test", b"a\t@example.test"), "not a RAW header"),
    (RAW.replace(b"a@example.test", b"nobody"), "malformed value"),
    (RAW.replace(b"a@example.test", b"a@example.test, c@example.test"), "malformed"),
    (RAW.replace(b"b@example.test", b"b@example.test, "), "malformed value"),
    (RAW.replace(b"b@example.test", b""), "malformed value"),
    (b"Header <no colon>\r\n" + RAW, "malformed value"),
    (b"From <c@example.test>\r\n" + RAW, "given twice"),
    (RAW.replace(b"Hello", b"Gr\xfc\xdfe"), "'ascii' codec can't decode byte 0xfc"),
]


def test_a_malformed_raw_message_is_put_aside_with_the_reason(server: Server) -> None:
    for number, (data, _) in enumerate(MALFORMED):
        assert data != RAW
        drop(server.layout.raw, f"{number}.raw", data)
    bad = server.layout.bad
    server.wait_for(lambda: len(list(bad.iterdir())) == 2 * len(MALFORMED))
    for number, (data, reason) in enumerate(MALFORMED):
        assert (bad / f"{number}.raw").read_bytes() == data
        assert reason in (bad / f"{number}.raw.txt").read_text("utf-8")
    assert list(server.layout.raw.iterdir()) == []
    assert server.delivered == []


def test_a_malformed_message_waits_while_it_cannot_be_put_aside(
    server: Server,
) -> None:
    server.layout.bad.rmdir()
    file = drop(server.layout.raw, "a.raw", b"nonsense")
    two_passes(server)
    assert file.exists()
    server.layout.bad.mkdir()
    server.wait_for((server.layout.bad / "a.raw").exists)


def test_a_good_message_is_delivered_beside_a_bad_one(server: Server) -> None:
    drop(server.layout.raw, "a.raw", b"nonsense")
    drop(server.layout.raw, "b.raw", RAW)
    server.wait_for(lambda: server.delivered)
    server.wait_for((server.layout.bad / "a.raw").exists)


@given(
    st.binary()
    | st.lists(st.sampled_from(RAW.split(b" ")) | st.binary()).map(b" ".join)
)
def test_any_bytes_are_a_mail_or_malformed(data: bytes) -> None:
    try:
        mail = message_from_bytes(parse_raw(data), policy=policy.SMTP)
    except ValueError:
        return
    assert "@" in mail["From"]
    assert "@" in mail["To"]


@given(
    subject=st.from_regex(r"[ -;=?-~]*", fullmatch=True),
    body=st.text(st.characters(max_codepoint=127)),
)
def test_subject_and_body_arrive_as_they_were(subject: str, body: str) -> None:
    head = f"From <a@example.test>\r\nTo <b@example.test>\r\nSubject <{subject}>"
    mail = parse_raw(f"{head}\r\n\r\n{body}".encode())
    _, _, rest = mail.partition(b"Subject: ")
    assert rest == f"{subject}\r\n\r\n{body}".encode()
