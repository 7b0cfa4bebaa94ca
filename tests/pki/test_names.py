"""Names of the certificate: normalised, or refused with the reason."""

from __future__ import annotations

import re

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from letsencrypt_mdaemon.pki.names import normalise, split, twins

# Any text, and text that looks enough like a name to reach every rule.
PIECES = st.sampled_from(
    [
        *("a", "Z", "0", "-", ".", ".", "_", "*", " ", "[", "]", ":", "%", "1.2.3.4"),
        *(
            "xn--",
            "xn--mnchen-3ya",
            "example",
            "ü",
            "ß",
            "\u0131",
            "\u0130",
            "世",
            "\u3002",
        ),
        *("\uff0e", "\u00ad", "\u200d", "\u0301", "\uff0a", "\ud800", "\0", "\n"),
    ]
)
TEXTS = st.one_of(st.text(st.characters()), st.lists(PIECES, max_size=12).map("".join))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("mail.example.test", "mail.example.test"),
        ("MAIL.Example.TEST", "mail.example.test"),
        ("mail.example.test.", "mail.example.test"),
        ("  mail.example.test\t\r\n", "mail.example.test"),
        ("mx-1.4u.example.test", "mx-1.4u.example.test"),
        ("a--b.example.test", "a--b.example.test"),
        ("1.2.3.4.example.test", "1.2.3.4.example.test"),
        ("münchen.example.test", "xn--mnchen-3ya.example.test"),
        ("MÜNCHEN.example.test", "xn--mnchen-3ya.example.test"),
        ("mu\u0308nchen.example.test", "xn--mnchen-3ya.example.test"),
        ("münchen\u3002example\u3002test\u3002", "xn--mnchen-3ya.example.test"),
        ("XN--Mnchen-3YA.example.test", "xn--mnchen-3ya.example.test"),
        ("straße.example.test", "xn--strae-oqa.example.test"),
        ("mail.例え.test", "mail.xn--r8jz45g.test"),
        ("a" * 63 + ".example.test", "a" * 63 + ".example.test"),
        (".".join(["a" * 49] * 5) + ".com", ".".join(["a" * 49] * 5) + ".com"),
    ],
)
def test_a_name_is_written_as_certificates_hold_it(text: str, name: str) -> None:
    assert normalise(text) == name


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        (" \t", "is empty"),
        (".", "is empty"),
        ("*.example.test", "is a wildcard, which a CA cannot validate over HTTP"),
        ("mail.*.test", "is a wildcard"),
        ("192.0.2.1", "is an IP address"),
        ("192.0.2.1.", "is an IP address"),
        ("[192.0.2.1]", "is an IP address"),
        ("2001:db8::1", "is an IP address"),
        ("[2001:db8::1]", "is an IP address"),
        ("[IPv6:2001:db8::1]", "is an IP address"),
        ("fe80::1%eth0", "is an IP address"),
        ("192.0.2.1:80", "has the part '1:80'"),
        ("127.1", "ends in a number"),
        ("192.0.02.1", "ends in a number"),
        ("\uff11\uff19\uff12.0.2.1", "ends in a number"),
        ("localhost", "has no dot"),
        ("MAILSERVER.", "has no dot"),
        ("a..example.test", "has the part ''"),
        (".example.test", "has the part ''"),
        ("example.test..", "has the part ''"),
        ("-mail.example.test", "has the part '-mail'"),
        ("mail-.example.test", "has the part 'mail-'"),
        ("my_mail.example.test", "has the part 'my_mail'"),
        ("mail example.test", "has the part 'mail example'"),
        ("mail.example.test\0", r"has the part 'test\x00'"),
        ("https://example.test/", "has the part 'https://example'"),
        ("a" * 64 + ".example.test", "which is not a DNS label"),
        (".".join(["a" * 49] * 5) + ".test", "longer than the 253 characters"),
        ("xn--.example.test", "is not a valid international name"),
        ("XN--A.example.test", "is not a valid international name"),
        ("mail.☃\u200d.test", "is not a valid international name"),
        ("ü" * 60 + ".example.test", "is not a valid international name"),
        ("\ud800.example.test", "is not a valid international name"),
    ],
)
def test_a_name_no_ca_could_prove_is_refused_with_the_reason(
    text: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        normalise(text)


@given(TEXTS)
@example("xn--\u3002")
@example("\u00ad.")
@example("xn--" + "9" * 60 + ".example.test")
def test_any_text_is_normalised_once_and_for_all_or_refused(text: str) -> None:
    try:
        name = normalise(text)
    except ValueError as exc:
        event(str(exc).split("'")[0])
        return
    assert normalise(name) == name
    assert name.isascii()
    assert name == name.lower()
    assert "." in name
    assert len(name) <= 253


def test_lists_are_separated_by_commas_and_blanks_and_may_be_repeated() -> None:
    texts = ["a.test,b.test", " c.test ;\td.test\r\n e.test,,", "", " , "]

    assert split(texts) == ["a.test", "b.test", "c.test", "d.test", "e.test"]


@pytest.mark.parametrize(
    ("names", "added"),
    [
        (["a.test"], {"www.a.test"}),
        (["www.a.test"], {"a.test", "www.www.a.test"}),
        (["a.test", "www.a.test"], {"www.www.a.test"}),
        ([], set()),
    ],
)
def test_a_name_has_a_twin_with_or_without_www(
    names: list[str], added: set[str]
) -> None:
    assert twins(names) == added
