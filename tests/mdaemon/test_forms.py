"""How a value names a certificate: written, found again, and nothing else found."""

from __future__ import annotations

import re
from base64 import b64encode
from itertools import pairwise

import pytest
from cryptography import x509
from hypothesis import example, given
from hypothesis import strategies as st

from letsencrypt_mdaemon.mdaemon import forms
from letsencrypt_mdaemon.mdaemon.forms import DEFAULT, Form, Hit, every, find, parse
from tests import certificates
from tests.certificates import OPENSSL_PEM, leaf

# The serial numbers have a high first bit, so that DER puts a zero byte before them.
ONE = leaf(serial=0xF00102030405060708090A0B0C0D0E0FABCD)
TWO = leaf(serial=0xFFEEDDCCBBAA99887766554433221100FEDC)
OTHER = leaf(serial=0x8899AABBCCDDEEFF0123456789ABCDEF0F1E)

SAMPLE = x509.load_pem_x509_certificate(OPENSSL_PEM)

NAMES = {text: name for name, text in forms.SEPARATORS.items()}
FORMS = st.sampled_from(every())
HASHES = pytest.mark.parametrize(
    "form", [form for form in every() if form.source in {"sha1", "sha256"}], ids=str
)
ALL_FORMS = pytest.mark.parametrize("form", every(), ids=str)

# What stands around a name: anything, but no piece of a number or of base64.
BEFORE = st.text(st.characters()).filter(
    lambda text: not re.search(r"[\w+/]\Z|(?<![^\W_])[0-9a-fA-F]{2}[ :,-]\Z", text)
)
AFTER = st.text(st.characters()).filter(
    lambda text: not re.match(r"[\w+/=]|[ :,-][0-9a-fA-F]{2}(?![^\W_])", text)
)
PIECES = st.sampled_from(
    [
        *(form.write(certificate) for form in every() for certificate in (ONE, TWO)),
        *("0x", "=", ",", ", ", ";", " ", ":", "-", "00", "ab", "\n", "\0", "é", "_"),
    ]
)


# Written


@pytest.mark.parametrize(
    ("form", "written"),
    [
        # openssl x509 -fingerprint -sha1
        (
            "sha1:upper:colon",
            "08:BC:94:C7:5C:24:92:E2:7A:3E:C6:B4:8F:E0:77:0E:73:09:56:6C",
        ),
        ("sha1:upper", "08BC94C75C2492E27A3EC6B48FE0770E7309566C"),
        ("sha1:lower", "08bc94c75c2492e27a3ec6b48fe0770e7309566c"),
        (
            "sha1:lower:space",
            "08 bc 94 c7 5c 24 92 e2 7a 3e c6 b4 8f e0 77 0e 73 09 56 6c",
        ),
        (
            "sha1:upper:dash",
            "08-BC-94-C7-5C-24-92-E2-7A-3E-C6-B4-8F-E0-77-0E-73-09-56-6C",
        ),
        (
            "sha1:lower:comma",
            "08,bc,94,c7,5c,24,92,e2,7a,3e,c6,b4,8f,e0,77,0e,73,09,56,6c",
        ),
        ("sha1:upper:reversed", "6C5609730E77E08FB4C63E7AE292245CC794BC08"),
        # openssl x509 -outform der | openssl sha1 -binary | base64
        ("sha1:base64", "CLyUx1wkkuJ6Psa0j+B3DnMJVmw="),
        # openssl x509 -fingerprint -sha256
        (
            "sha256:upper",
            "D368C23C9FCEE15F340544C6B274468B942288DF9817D7D70D05048DD9EB5544",
        ),
        # openssl x509 -serial
        ("serial:upper", "8F00112233445566AA"),
        ("serial:lower:reversed", "aa665544332211008f"),
        ("derserial:lower:space", "00 8f 00 11 22 33 44 55 66 aa"),
        ("serial:decimal", "2637889225218655086250"),
    ],
)
def test_a_form_writes_what_openssl_says(form: str, written: str) -> None:
    assert parse(form).write(SAMPLE) == written


def test_the_zero_byte_stands_only_before_a_high_first_bit() -> None:
    form = parse("derserial:lower")

    assert form.write(leaf(serial=0x80_01020304050607)) == "008001020304050607"
    assert form.write(leaf(serial=0x7F_01020304050607)) == "7f01020304050607"


# Spelled


@ALL_FORMS
def test_a_form_is_read_as_it_is_spelled(form: Form) -> None:
    assert parse(str(form)) == form
    assert parse(f" {str(form).upper()}\t") == form


def test_each_form_is_spelled_in_its_own_way() -> None:
    assert len({str(form) for form in every()}) == len(every())
    assert DEFAULT in every()
    assert str(DEFAULT) == "sha1:upper"


@pytest.mark.parametrize(
    "text", ["", "sha1", "md5:upper", "sha1:decimal", "sha1:upper:", "sha1 upper"]
)
def test_what_is_no_form_is_refused(text: str) -> None:
    message = (
        f"{text!r} is not a form; examples are sha1:upper, sha1:lower:colon and "
        "sha256:base64"
    )

    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse(text)


# Found


@ALL_FORMS
def test_what_is_written_is_found_in_the_same_form(form: Form) -> None:
    name = form.write(ONE)

    assert find(name, [TWO, ONE]) == [Hit(ONE, form, 0, len(name))]


@ALL_FORMS
def test_it_is_found_in_other_words(form: Form) -> None:
    name = form.write(ONE)

    for around in ("Certificate={}", "<{}>", '"{}"', "x: {}.", "\0{}\0", "\\{}\\"):
        start = around.index("{}")
        assert find(around.format(name), [ONE, TWO]) == [
            Hit(ONE, form, start, start + len(name))
        ]


@ALL_FORMS
def test_each_certificate_of_a_list_is_found_in_its_place(form: Form) -> None:
    names = [form.write(one) for one in (TWO, OTHER, ONE, TWO)]

    for separator in (";", ", ", "; ", "|", "\t", "\r\n", "  ", " | "):
        text = separator.join(names)
        assert find(text, [ONE, TWO]) == [
            Hit(TWO, form, 0, len(names[0])),
            Hit(ONE, form, text.index(names[2]), text.index(names[2]) + len(names[2])),
            Hit(TWO, form, len(text) - len(names[3]), len(text)),
        ]


@given(before=BEFORE, form=FORMS, prefixed=st.booleans(), after=AFTER)
def test_a_name_is_found_in_any_text(
    before: str, form: Form, *, prefixed: bool, after: str
) -> None:
    if prefixed and form.style in {"upper", "lower"}:
        before += "=0x"
    name = form.write(ONE)

    hits = find(before + name + after, [ONE])

    assert Hit(ONE, form, len(before), len(before) + len(name)) in hits


@given(st.lists(PIECES | st.text(st.characters(), max_size=3), max_size=8).map("".join))
@example("0x" + parse("derserial:upper:dash").write(ONE))
def test_whatever_the_text_the_places_are_right(text: str) -> None:
    hits = find(text, [ONE, TWO])

    for hit in hits:
        name = hit.form.write(hit.certificate)
        written = text[hit.start : hit.end]
        assert written == name or written.upper() == name
    for one, other in pairwise(hits):
        assert one.end <= other.start


def looked_for(text: str, known: list[x509.Certificate]) -> list[Hit]:
    """Find names the plain way: look for each name of each certificate."""
    folded = "".join(letter.lower() if letter.isascii() else letter for letter in text)
    hits: dict[tuple[int, int], Hit] = {}
    for certificate in known:
        for form in every():
            name = form.write(certificate)
            if form.style == "upper" or (
                form.source.endswith("serial") and certificate.serial_number < 1 << 56
            ):
                continue
            plain = text if form.style == "base64" else folded
            for match in form.shape().finditer(plain):
                place = match.span()
                if match[0] == name and place not in hits:
                    is_upper = form.style == "lower" and text[slice(*place)] != name
                    style = "upper" if is_upper else form.style
                    hits[place] = Hit(certificate, form._replace(style=style), *place)
    return [hits[place] for place in sorted(hits)]


@given(st.lists(PIECES | st.text("aAfF0 :,-x", max_size=9), max_size=8).map("".join))
@example("9" * 17 + "/" + "0x" + "aB" * 20)
def test_what_is_looked_up_is_what_is_looked_for(text: str) -> None:
    known = [OTHER, ONE, leaf(serial=ONE.serial_number, own_key=certificates.key(5))]
    known += [TWO, leaf(serial=0xAAAA0A)]

    assert find(text, known) == looked_for(text, known)


@pytest.mark.parametrize("separator", list(forms.SEPARATORS.values()))
def test_the_case_is_kept(separator: str) -> None:
    upper = Form("sha1", "upper", NAMES[separator])
    lower = Form("sha1", "lower", NAMES[separator])
    mixed = upper.write(SAMPLE)[:20] + lower.write(SAMPLE)[20:]

    assert [hit.form for hit in find(upper.write(SAMPLE), [SAMPLE])] == [upper]
    assert [hit.form for hit in find(lower.write(SAMPLE), [SAMPLE])] == [lower]
    assert [hit.form for hit in find(mixed, [SAMPLE])] == [upper]


@ALL_FORMS
def test_it_is_not_found_in_the_middle_of_anything_longer(form: Form) -> None:
    name = form.write(ONE)
    pieces = {"a", "7", "G", "é"}
    if form.style == "base64":
        pieces |= {"+", "/"}
        assert find(name + "=", [ONE]) == []
    if form.separator:
        separator = forms.SEPARATORS[form.separator]
        assert find(f"0x0a{separator}{name}", [ONE]) == []
        before, after = f"0a{separator}", f"{separator}B7"
        assert find(before + name, [ONE]) == []
        assert find(name + after, [ONE]) == []
        assert find(f"{before}{name}{after}", [ONE]) == []
    if form.separator and form.source == "derserial":
        # What is not spoiled is the serial number without the zero byte.
        pieces = set()
    for piece in pieces:
        assert find(piece + name, [ONE]) == []
        assert find(name + piece, [ONE]) == []
    if form.source in {"sha1", "sha256"}:
        assert find(name[1:], [ONE]) == []
        assert find(name[:-1], [ONE]) == []


def test_a_prefix_of_hex_is_no_prefix_of_decimal() -> None:
    hexadecimal, decimal = parse("serial:upper"), parse("serial:decimal")

    assert len(find("0x" + hexadecimal.write(ONE), [ONE])) == 1
    assert find("0x" + decimal.write(ONE), [ONE]) == []


def test_base64_is_found_in_its_own_case_only() -> None:
    name = parse("sha1:base64").write(ONE)

    assert find(name.swapcase(), [ONE]) == []


def test_a_short_serial_number_is_not_searched() -> None:
    short, long = leaf(serial=0xF1_020304050607), leaf(serial=0xF1_02030405060708)

    for form in every():
        expected = form.source in {"sha1", "sha256"}
        assert bool(find(form.write(short), [short])) == expected
        assert len(find(form.write(long), [long])) == 1


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@pytest.mark.parametrize("serial", [b"\x00", b"\x80", b"\xff"])
def test_a_serial_number_that_rfc_5280_forbids_is_no_obstacle(serial: bytes) -> None:
    odd = certificates.with_bytes(
        leaf(serial=0x5F), b"\x02\x01\x5f\x30", b"\x02\x01" + serial + b"\x30"
    )

    assert find("0080ff", [odd]) == []
    assert [hit.certificate for hit in find(DEFAULT.write(odd), [odd])] == [odd]


def test_two_certificates_with_one_serial_number_are_found_once() -> None:
    namesake = leaf(serial=ONE.serial_number, own_key=certificates.key(5))

    hits = find(parse("serial:upper").write(ONE), [ONE, namesake])

    assert [hit.certificate for hit in hits] == [ONE]


# The shape of any certificate's name


@ALL_FORMS
def test_the_shape_is_that_of_what_is_written(form: Form) -> None:
    name = form.write(OTHER)
    text = f"x = {name};{name}"

    places = [match.span() for match in form.shape().finditer(text)]

    start = text.index(name)
    assert places == [
        (start, start + len(name)),
        (start + len(name) + 1, len(text)),
    ]


@ALL_FORMS
def test_the_shape_is_of_no_other_form(form: Form) -> None:
    def kind(other: Form) -> tuple[object, ...]:
        case = "hex" if other.style in {"upper", "lower"} else other.style
        return case, other.separator, other.source == "sha256"

    for other in every():
        matches = form.shape().fullmatch(other.write(ONE)) is not None
        if kind(other) != kind(form):
            assert not matches
        elif other.source == form.source:
            assert matches


@HASHES
def test_the_shape_stands_alone(form: Form) -> None:
    shape = form.shape()
    name = form.write(ONE)
    separator = forms.SEPARATORS[form.separator]

    for text in (f"a{name}", f"{name}a", f"é{name}", f"{name}é", name[1:], name[:-1]):
        assert not shape.search(text)
    if form.separator:
        assert not shape.search(f"ab{separator}{name}")
        assert not shape.search(f"{name}{separator}ab")


@pytest.mark.parametrize("separator", forms.SEPARATORS)
def test_the_shape_of_a_serial_number_has_8_to_21_bytes(separator: str) -> None:
    hexadecimal = Form("serial", "upper", separator).shape()
    base64 = Form("serial", "base64").shape()

    for length in range(24):
        matches = 8 <= length <= 21
        data = bytes([0xAB]) * length
        text = data.hex(forms.SEPARATORS[separator]) if separator else data.hex()
        assert bool(hexadecimal.search(text)) == matches
        assert bool(base64.search(b64encode(data).decode())) == matches


@given(st.integers(2**56, 2**159 - 1), FORMS)
@example(2**56, parse("serial:decimal"))
@example(2**159 - 1, parse("serial:decimal"))
def test_any_long_serial_number_has_the_shape(serial: int, form: Form) -> None:
    assert form.shape().fullmatch(form.write(leaf(serial=serial)))
