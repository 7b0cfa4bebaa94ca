"""How endpoints are written, and at which addresses they are."""

import logging
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letsencrypt_mdaemon.verify.endpoints import (
    LOOPBACK,
    MAX_ADDRESSES,
    PORTS,
    Endpoint,
    own_addresses,
    public,
    resolved,
    usual,
    worth_checking,
)

NOWHERE = "a" * 64 + ".test"
"""A name that cannot be in DNS; nobody is asked for it."""


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("smtp+starttls://192.0.2.1", Endpoint("smtp+starttls", "192.0.2.1", 25)),
        ("smtp+starttls://192.0.2.1:587", Endpoint("smtp+starttls", "192.0.2.1", 587)),
        ("smtps://mail.example.test", Endpoint("smtps", "mail.example.test", 465)),
        ("imap+starttls://localhost", Endpoint("imap+starttls", "localhost", 143)),
        ("IMAPS://MAIL.example.test/", Endpoint("imaps", "mail.example.test", 993)),
        ("pop3+stls://[2001:db8::1]", Endpoint("pop3+stls", "2001:db8::1", 110)),
        ("pop3s://[::1]:1995", Endpoint("pop3s", "::1", 1995)),
        (
            "https://bücher.example.test",
            Endpoint("https", "xn--bcher-kva.example.test", 443),
        ),
        (
            "https://mail_1.example.test.:444",
            Endpoint("https", "mail_1.example.test", 444),
        ),
        ("https://192.0.2.1:65535", Endpoint("https", "192.0.2.1", 65535)),
    ],
)
def test_an_endpoint_is_a_scheme_a_host_and_a_port(
    url: str, endpoint: Endpoint
) -> None:
    assert Endpoint.parse(url) == endpoint
    assert Endpoint.parse(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mail.example.test",
        "mail.example.test:25",
        "smtp://mail.example.test",
        "smtps://",
        "smtps://:465",
        "smtps:mail.example.test",
        "smtps://mail.example.test:0",
        "smtps://mail.example.test:65536",
        "smtps://mail.example.test:four",
        "smtps://mail.example.test:465/inbox",
        "smtps://mail.example.test?x",
        "smtps://you@mail.example.test",
        "smtps://mail..example.test",
        "smtps://mail example.test",
        "smtps://2001:db8::1",
        "smtps://[mail.example.test",
        "smtps://-\x1b[0m.test",
    ],
)
def test_anything_else_is_refused_by_what_would_do(url: str) -> None:
    with pytest.raises(
        ValueError, match="is not an endpoint such as imaps://"
    ) as caught:
        Endpoint.parse(url)

    assert str(caught.value).isprintable()
    assert all(f"{scheme}://" in str(caught.value) for scheme in PORTS)


@given(st.one_of(st.text(), st.text().map("imaps://{}".format)))
def test_any_text_is_an_endpoint_that_can_be_written_or_is_refused(text: str) -> None:
    try:
        endpoint = Endpoint.parse(text)
    except ValueError:
        return
    assert Endpoint.parse(str(endpoint)) == endpoint
    assert endpoint.host.isascii()


def test_an_address_found_by_a_name_is_written_with_both() -> None:
    endpoint = Endpoint("imaps", "2001:db8::1", 993, "mail.example.test")

    assert endpoint.url == "imaps://mail.example.test:993"
    assert str(endpoint) == "imaps://mail.example.test:993 (2001:db8::1)"


def test_the_usual_ports_are_the_nine_of_mdaemon_at_each_address() -> None:
    ports = [(row.scheme, row.port) for row in usual(["127.0.0.1"])]

    assert ports == [
        ("smtp+starttls", 25),
        ("smtp+starttls", 587),
        ("smtps", 465),
        ("imap+starttls", 143),
        ("imaps", 993),
        ("pop3+stls", 110),
        ("pop3s", 995),
        ("https", 443),
        ("https", 444),
    ]
    both = usual(LOOPBACK)
    assert len(both) == len(set(both)) == 18
    assert {row.host for row in both} == set(LOOPBACK)


# Addresses


def test_this_machine_is_asked_at_both_loopbacks_and_where_its_name_leads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "192.0.2.7")

    assert own_addresses() == ("127.0.0.1", "::1", "192.0.2.7")


def test_a_machine_without_a_good_name_is_asked_at_its_loopbacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: NOWHERE)

    assert own_addresses() == LOOPBACK


def test_addresses_that_tell_nothing_new_are_left_out() -> None:
    addresses = [
        "::1",
        "127.0.1.1",
        "192.0.2.7",
        "fe80::1",
        "0.0.0.0",  # noqa: S104 - to be left out
        "::",
        "192.0.2.7",
    ]

    assert worth_checking(addresses) == ("::1", "192.0.2.7")


def test_of_very_many_addresses_the_first_are_asked_and_the_rest_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    addresses = [f"192.0.2.{number}" for number in range(MAX_ADDRESSES + 2)]

    assert worth_checking(addresses) == tuple(addresses[:MAX_ADDRESSES])
    assert "192.0.2.8, 192.0.2.9" in caplog.text


def test_a_name_is_replaced_by_its_addresses_and_an_address_stays() -> None:
    by_name = Endpoint("imaps", "localhost", 993)
    by_address = Endpoint("imaps", "192.0.2.1", 993)

    found = resolved([by_name, by_address, by_address])

    assert Endpoint("imaps", "127.0.0.1", 993, "localhost") in found
    assert {row.name for row in found[:-1]} == {"localhost"}
    assert found[-1] == by_address
    assert found.count(by_address) == 1


def test_a_name_without_addresses_stays_to_be_said_so() -> None:
    endpoint = Endpoint("imaps", NOWHERE, 993)

    assert resolved([endpoint]) == [endpoint]


def test_the_public_ports_are_the_same_at_each_address_of_the_names(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ports = [*usual(LOOPBACK), Endpoint("https", "192.0.2.1", 8443)]

    # An address is looked up as itself, without DNS.
    found = public(ports, ["192.0.2.1", "192.0.2.2", NOWHERE])

    assert len(found) == len(set(found)) == 20
    assert Endpoint("https", "192.0.2.1", 8443, "192.0.2.1") in found
    assert Endpoint("smtps", "192.0.2.2", 465, "192.0.2.2") in found
    assert f"DNS has no address for {NOWHERE}" in caplog.text


def test_an_address_of_two_names_is_asked_once_for_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [row, row])
    names = ["mail.example.test", "imap.example.test"]

    found = public([Endpoint("https", "127.0.0.1", 443)], names)

    assert found == [Endpoint("https", "192.0.2.1", 443, "mail.example.test")]


def test_of_a_hundred_addresses_in_dns_a_few_are_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"192.0.2.{number}", 0))
        for number in range(100)
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: rows)

    assert len(resolved([Endpoint("https", "many.example.test", 443)])) == MAX_ADDRESSES
