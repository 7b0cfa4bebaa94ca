"""Errors that people can act on, and words of others that do no harm."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from letsencrypt_mdaemon import errors
from letsencrypt_mdaemon.errors import (
    AcmeError,
    BusyError,
    ChallengeError,
    ConfigError,
    DeployError,
    Error,
)
from letsencrypt_mdaemon.text import printable


def kinds(top: type[Error] = Error) -> dict[str, int]:
    """Return the classes of the module with their exit codes."""
    found = {top.__name__: top.exit_code}
    for kind in top.__subclasses__():
        if kind.__module__ == errors.__name__:
            found |= kinds(kind)
    return found


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    told = re.findall(r"(\w*Error) +([0-9]+)", errors.__doc__ or "")

    assert {name: int(code) for name, code in told} == kinds()


def test_each_kind_of_error_has_an_exit_code_of_its_own() -> None:
    codes = list(kinds().values())

    assert sorted(codes) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "kind", [Error, ConfigError, AcmeError, ChallengeError, DeployError, BusyError]
)
def test_an_error_is_its_message_and_has_a_hint_beside_it(kind: type[Error]) -> None:
    error = kind("C:\\x.ini is not there.", hint="Look again.")

    assert str(error) == error.message == "C:\\x.ini is not there."
    assert error.hint == "Look again."
    assert kind("x").hint == ""


def test_an_acme_error_keeps_what_the_ca_said() -> None:
    problem: dict[str, object] = {"type": "urn:ietf:params:acme:error:rateLimited"}
    error = AcmeError("Too many.", problem=problem, retry_after=60.0)

    assert error.problem == problem
    assert error.retry_after == 60.0
    assert AcmeError("x").problem == {}
    assert AcmeError("x").retry_after is None


def test_a_challenge_error_is_an_acme_error_that_tells_which_names_failed() -> None:
    error = ChallengeError("No.", names={"mail.example.test": "timeout"})

    assert isinstance(error, AcmeError)
    assert error.names == {"mail.example.test": "timeout"}
    assert ChallengeError("No.").names == {}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Grüße, 世界 \\ 'x'", "Grüße, 世界 \\ 'x'"),
        ("two\r\nlines\tand more", "two  lines and more"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b2J", r"\x9b2J"),
        ("a\u202egnp.exe", r"a\u202egnp.exe"),
        ("\u2028next", r"\u2028next"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
        ("nul\0", r"nul\x00"),
        (404, "404"),
        (None, "None"),
    ],
)
def test_words_of_others_do_nothing_to_a_terminal(text: object, shown: str) -> None:
    assert printable(text) == shown


def test_words_of_others_end_at_the_limit() -> None:
    assert printable("x" * 10, 10) == "x" * 10
    assert printable("x" * 11, 10) == "x" * 7 + "..."
    assert printable("\0" * 11, 10) == r"\x00\x0..."


@given(st.text(st.characters()), st.integers(1, 30))
@example("\ud800\x1b\x9b\u2028\u202e" * 10, 30)
def test_any_words_become_short_and_printable(text: str, limit: int) -> None:
    shown = printable(text, limit)

    assert shown.isprintable()
    assert len(shown) <= limit
    assert printable(shown, limit) == shown
    shown.encode()


@pytest.mark.parametrize("kind", [Error, ConfigError])
def test_after_issuance_what_this_machine_refuses_is_the_servers_error(
    kind: type[Error],
) -> None:
    with pytest.raises(DeployError) as caught, errors.after_issuance():
        raise kind("It is full.", hint="Make room.")

    assert (caught.value.message, caught.value.hint) == ("It is full.", "Make room.")


def test_after_issuance_other_errors_stay_what_they_are() -> None:
    with pytest.raises(BusyError), errors.after_issuance():
        raise BusyError("Another run.")
