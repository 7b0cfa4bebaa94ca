"""What is said before TLS, line by line."""

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letsencrypt_mdaemon.verify import starttls
from letsencrypt_mdaemon.verify.starttls import (
    Conversation,
    NoStarttlsError,
    ProtocolError,
    TurnedAwayError,
)

STARTS: dict[str, Callable[[], Conversation]] = {
    "smtp": lambda: starttls.smtp("192.0.2.1"),
    "imap": starttls.imap,
    "pop3": starttls.pop3,
}


COMMANDS = {
    *(b"EHLO [192.0.2.1]\r\n", b"STARTTLS\r\n", b"a1 CAPABILITY\r\n"),
    *(b"a2 STARTTLS\r\n", b"CAPA\r\n", b"STLS\r\n", b"TLS"),
}


def said_by(conversation: Conversation, *lines: bytes) -> list[bytes]:
    """Return what is said when these lines are answered."""
    said = [next(conversation)]
    try:
        for line in lines:
            said.append(conversation.send(line))  # noqa: PERF401 - it ends in between
    except StopIteration:
        said.append(b"TLS")
    return [command for command in said if command]


def test_smtp_greets_asks_and_starts() -> None:
    lines = [b"220 mail", b"250-mail", b"250-starttls", b"250 SIZE", b"220 go"]

    said = said_by(starttls.smtp("192.0.2.1"), *lines)

    assert said == [b"EHLO [192.0.2.1]\r\n", b"STARTTLS\r\n", b"TLS"]


@pytest.mark.parametrize(
    ("address", "literal"),
    [
        ("2001:db8::1", b"[IPv6:2001:db8::1]"),
        ("fe80::1%eth0", b"[IPv6:fe80::1]"),
        ("192.0.2.1", b"[192.0.2.1]"),
    ],
)
def test_smtp_says_who_we_are_by_our_address(address: str, literal: bytes) -> None:
    assert said_by(starttls.smtp(address), b"220") == [b"EHLO %s\r\n" % literal]


def test_the_name_of_an_smtp_server_is_not_taken_for_what_it_offers() -> None:
    with pytest.raises(NoStarttlsError):
        said_by(starttls.smtp("192.0.2.1"), b"220 x", b"250-STARTTLS", b"250 SIZE 1")


def test_an_smtp_server_that_knows_no_extensions_offers_none() -> None:
    with pytest.raises(NoStarttlsError, match='answers EHLO with "502 What"'):
        said_by(starttls.smtp("192.0.2.1"), b"220 x", b"502 What")


def test_imap_asks_and_starts_whatever_is_said_in_between() -> None:
    lines = [b"* ok hello", b"* capability imap4rev1 starttls", b"a1 OK", b"* 1 EXISTS"]

    said = said_by(starttls.imap(), *lines, b"a2 OK go")

    assert said == [b"a1 CAPABILITY\r\n", b"a2 STARTTLS\r\n", b"TLS"]


def test_an_imap_server_that_answers_for_somebody_else_is_not_understood() -> None:
    with pytest.raises(ProtocolError, match='sends "a9 OK", which is not IMAP'):
        said_by(starttls.imap(), b"* OK", b"a9 OK")


def test_pop3_asks_and_starts() -> None:
    lines = [b"+OK", b"+OK list", b"UIDL", b"stls", b".", b"+OK go"]

    said = said_by(starttls.pop3(), *lines)

    assert said == [b"CAPA\r\n", b"STLS\r\n", b"TLS"]


@pytest.mark.parametrize("name", STARTS)
@given(lines=st.lists(st.binary(max_size=50), max_size=20))
def test_whatever_a_server_says_is_understood_or_told_in_harmless_words(
    name: str, lines: list[bytes]
) -> None:
    with suppress(NoStarttlsError, ProtocolError, TurnedAwayError):
        said = said_by(STARTS[name](), *lines)
        # Nothing of what it says is said back to it.
        assert set(said) <= COMMANDS


@given(
    line=st.binary(min_size=1, max_size=500).filter(lambda line: line[:1] not in b"+*2")
)
def test_what_is_no_greeting_is_quoted_in_harmless_words(line: bytes) -> None:
    for start in STARTS.values():
        with pytest.raises(ProtocolError) as caught:
            said_by(start(), line)

        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 200
