"""MTA-STS policies are fetched and read as senders do (RFC 8461)."""

from __future__ import annotations

import ssl
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letsencrypt_mdaemon.policy import mta_sts
from letsencrypt_mdaemon.policy.mta_sts import FetchError, Policy, identifier, parse
from tests.limits import HANG_SECONDS
from tests.policy.policy_host import DOMAIN, ok, serving, trusted
from tests.servers import LOCALHOST, free_port

POLICY = b"version: STSv1\r\nmode: enforce\r\nmx: *.example.test\r\nmax_age: 604800\r\n"


@pytest.mark.parametrize(
    ("texts", "tag"),
    [
        ([], None),
        (["v=spf1 -all"], None),
        (["v=STSv10; id=1"], None),
        (["v=STSv1; id=20260101T000000"], "20260101T000000"),
        (["v=STSv1;id=1;"], "1"),
        (["v=STSv1 ; x=y ; id=1 ;", "other"], "1"),
    ],
)
def test_the_id_is_read_from_the_only_record(texts: list[str], tag: str | None) -> None:
    assert identifier(texts) == tag


@pytest.mark.parametrize(
    "texts",
    [
        ["v=STSv1; id=1", "v=STSv1; id=2"],
        ["v=STSv1"],
        ["v=STSv1; id="],
        ["v=STSv1; id=" + "x" * 33],
        ["v=STSv1; id=a b"],
        ["v=STSv1; xid=1"],
    ],
)
def test_a_record_that_senders_ignore_is_refused(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="record"):
        identifier(texts)


def test_a_policy_is_read() -> None:
    text = b"version: STSv1\nmode:testing \nmode: none\nmx: Mail.Example.Test\n"
    text += b"future_field: whatever it is\nmx: *.b.test\nmax_age: 86400"

    policy = parse(text)

    assert policy == Policy("testing", ("mail.example.test", "*.b.test"), 86400)


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        ("mail.example.test", True),
        ("MAIL.example.test", True),
        ("example.test", False),
        ("a.mail.example.test", False),
        ("mail.example.test.evil.test", False),
    ],
)
def test_a_star_stands_for_one_label(host: str, is_allowed: bool) -> None:  # noqa: FBT001
    assert parse(POLICY).allows(host) is is_allowed


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\xff\xfe", b"<html>", b"version STSv1"),
        POLICY.replace(b"STSv1", b"STSv2"),
        POLICY.replace(b"enforce", b"Enforce"),
        POLICY.replace(b"mx: *.example.test\r\n", b""),
        POLICY.replace(b"604800", b"-1"),
        POLICY.replace(b"604800", b"9" * 11),
        POLICY.replace(b"*.example.test", b"*.*.test"),
        POLICY.replace(b"*.example.test", b"mail.example.test\x00"),
        POLICY.replace(b"*.example.test", b"\xd0\xbf.test"),
        POLICY.replace(b"mode: enforce\r\n", b"mode: enforce\r\r\n"),
        POLICY.replace(b"\r\n", b"\r"),
        POLICY + b"mx: a.test\n" * 101,
        POLICY + b": no name\n",
    ],
)
def test_a_policy_that_senders_ignore_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(data)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_answer_is_a_policy_or_refused(data: bytes) -> None:
    for text in (data, POLICY + data):
        try:
            found = parse(text)
        except ValueError:
            continue
        assert found.mode in mta_sts.MODES


# The fetch


def fetch(port: int, timeout: float = HANG_SECONDS) -> Policy:
    return mta_sts.fetch(
        DOMAIN, timeout=timeout, addresses=[LOCALHOST], port=port, trusted=trusted()
    )


def test_a_policy_is_fetched_by_the_name_of_its_host() -> None:
    with serving(ok(POLICY)) as port:
        assert fetch(port) == Policy("enforce", ("*.example.test",), 604800)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (ok(POLICY, status=b"301 Moved\r\nLocation: https://other.test/"), "redirect"),
        (ok(POLICY, status=b"404 Not Found"), "status"),
        (ok(POLICY, status=b"500 Oops"), "status"),
        (ok(POLICY, kind=b"text/html"), "invalid"),
        (ok(b"<html>"), "invalid"),
        (ok(POLICY + b"x: y\n" * 200_000), "too-large"),
        (b"no http at all\r\n\r\n", "unreachable"),
        (b"", "unreachable"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500, "unreachable"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 300_000, "unreachable"),
    ],
)
def test_what_senders_do_not_take_is_none(answer: bytes, kind: str) -> None:
    with serving(answer) as port, pytest.raises(FetchError) as caught:
        fetch(port)

    assert caught.value.kind == kind, caught.value


def test_a_wrong_certificate_is_none() -> None:
    with serving(ok(POLICY), name=DOMAIN) as port, pytest.raises(FetchError) as caught:
        fetch(port)
    assert caught.value.kind == "certificate"
    old = timedelta(days=60)
    with serving(ok(POLICY), age=old) as port, pytest.raises(FetchError) as caught:
        fetch(port)
    assert caught.value.kind == "certificate"
    assert "expired" in str(caught.value)


def test_nobody_there_is_none() -> None:
    with pytest.raises(FetchError) as caught:
        fetch(free_port())
    assert caught.value.kind == "unreachable"


def test_who_sends_a_byte_now_and_then_is_not_listened_to_for_ever() -> None:
    def drip(tls: ssl.SSLSocket) -> None:
        tls.settimeout(HANG_SECONDS)
        for byte in ok(POLICY * 5000):
            tls.sendall(bytes([byte]))

    with serving(drip) as port, pytest.raises(FetchError) as caught:
        fetch(port, timeout=0.5)

    assert caught.value.kind == "unreachable"
