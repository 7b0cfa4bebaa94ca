"""Editing an INI file's bytes: the value changes, every other byte stays."""

from __future__ import annotations

import codecs
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from letsencrypt_mdaemon.mdaemon import ini

OLD = "0A" * 20
NEW = "F1" * 20

# Any bytes, and bytes that look enough like an INI file to reach every branch.
PIECES = st.sampled_from(
    [
        *(b"\r\n", b"\n", b"\r", b"=", b"[", b"]", b";", b"#", b" ", b"\t", b"\0"),
        *(b"a", b"A", b"b", b":", b"[a]", b"a=", b"A =\t", b"\xe9", b"\xc3\xa9"),
        *(b"\x85", b"\x0b", b"\x1c", b"\xa0", b"\xff", b"\xfe", b"\xef\xbb\xbf"),
    ]
)
TEXTS = st.lists(PIECES, max_size=24).map(b"".join)
WIDE = st.one_of(
    TEXTS.map(lambda data: data.decode("latin-1")),
    st.text(st.characters() | st.sampled_from("=[]\r\n\u2028\x85"), max_size=16),
).flatmap(
    lambda text: st.sampled_from(
        [
            codecs.BOM_UTF16_LE + text.encode("utf-16-le", "surrogatepass"),
            codecs.BOM_UTF16_BE + text.encode("utf-16-be", "surrogatepass"),
        ]
    )
)
MARKED = st.sampled_from([codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
FILES = st.one_of(
    st.binary(max_size=60),
    TEXTS,
    WIDE,
    st.builds(bytes.__add__, MARKED, st.binary(max_size=40)),
)
VALUES = st.one_of(st.just(NEW), st.text(max_size=4))
NAMES = st.one_of(st.sampled_from(["a", "A", "b", ""]), st.text(max_size=3))


def summary(data: bytes) -> list[tuple[str, str, str]]:
    return [(entry.section, entry.key, entry.value) for entry in ini.entries(data)]


def is_within(small: bytes, large: bytes) -> bool:
    """Whether `large` is `small` with one piece put in somewhere."""
    added = len(large) - len(small)
    return any(
        large[:place] + large[place + added :] == small
        for place in range(len(small) + 1)
    )


@given(FILES)
@example(codecs.BOM_UTF16_LE + b"a\0=\0\0\xd8")
@example(codecs.BOM_UTF16_LE + b"a=b\r\n")
def test_no_bytes_are_too_odd_to_be_read(data: bytes) -> None:
    for entry in ini.entries(data):
        assert 0 < entry.start <= entry.end <= len(data)
        assert entry.key == entry.key.strip(" \t") != ""
        assert entry.value == entry.value.strip(" \t")
        assert not entry.key.startswith((";", "#"))
        assert not set("\r\n") & set(entry.section + entry.key + entry.value)


@given(FILES)
def test_the_offsets_are_those_of_the_value(data: bytes) -> None:
    for entry in ini.entries(data):
        value = data[entry.start : entry.end]
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        if wide and len(data) % 2 == 0:
            codec = "utf-16-le" if data[:1] == b"\xff" else "utf-16-be"
            assert value.decode(codec, "surrogatepass") == entry.value
            assert entry.start % 2 == 0
        else:
            assert entry.value in {
                value.decode("utf-8", "replace"),
                value.decode("latin-1"),
            }
            assert data[: entry.start].rstrip(b" \t").endswith(b"=")


@given(FILES)
def test_values_appear_in_the_order_of_their_lines(data: bytes) -> None:
    found = ini.entries(data)
    assert [entry.line for entry in found] == sorted({entry.line for entry in found})
    assert all(one.end < other.start for one, other in pairwise(found))


@given(FILES)
def test_writing_the_same_values_gives_the_same_bytes(data: bytes) -> None:
    found = ini.entries(data)
    assert ini.substitute(data, {entry: entry.value for entry in found}) == data


@given(FILES, st.data())
def test_only_the_bytes_of_the_value_change(data: bytes, draw: st.DataObject) -> None:
    found = ini.entries(data)
    chosen = draw.draw(st.sets(st.sampled_from(found)) if found else st.just(set()))
    try:
        result = ini.substitute(data, dict.fromkeys(chosen, NEW))
    except ValueError:
        # A UTF-16 file with half a character; it would be complete afterwards.
        assert len(data) % 2
        assert data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return
    kept = data
    left = result
    for entry in sorted(chosen, key=lambda entry: entry.start, reverse=True):
        kept = kept[: entry.start] + kept[entry.end :]
    after = ini.entries(result)
    for entry, changed in sorted(
        zip(found, after, strict=True), key=lambda pair: pair[0].start, reverse=True
    ):
        assert (entry.section == changed.section) or not data.isascii()
        assert entry.line == changed.line
        if entry in chosen:
            assert changed.value == NEW
            left = left[: changed.start] + left[changed.end :]
    assert left == kept


@given(FILES, VALUES)
def test_a_change_can_be_read_back_repeated_and_undone(data: bytes, value: str) -> None:
    for place, entry in enumerate(ini.entries(data)):
        try:
            result = ini.substitute(data, {entry: value})
        except ValueError:
            continue
        changed = ini.entries(result)[place]
        assert changed.value == value
        assert ini.substitute(result, {changed: value}) == result
        if value and entry.value.isascii():
            assert ini.substitute(result, {changed: entry.value}) == data


@given(FILES, NAMES, NAMES, VALUES)
def test_a_set_value_is_found_and_nothing_else_is_lost(
    data: bytes, section: str, key: str, value: str
) -> None:
    before = ini.lookup(data, section, key)
    try:
        result = ini.set_value(data, section, key, value)
    except ValueError:
        return
    found = ini.lookup(result, section, key)
    assert {entry.value for entry in found} == {value}
    assert len(found) == max(1, len(before))
    assert ini.set_value(result, section, key, value) == result
    if not before:
        assert is_within(data, result)


def test_the_value_alone_changes_in_a_file_as_found_on_servers() -> None:
    data = (
        b"; kept \x85 as it is\r\n"
        b"[Domain]\r\n"
        b"FQDN = mail.example.test \r\n"
        b"\r\n"
        b"[SSL]\n"
        b"  Certificate\t=\t" + OLD.encode() + b" \t\r\n"
        b"# Certificate=comment\r"
        b"Other=x ; not a comment"
    )
    (entry,) = ini.lookup(data, "ssl", "CERTIFICATE")
    assert (entry.section, entry.key, entry.line) == ("SSL", "Certificate", 6)
    assert data[entry.start : entry.end] == OLD.encode()
    result = ini.substitute(data, {entry: NEW})
    assert result == data.replace(OLD.encode(), NEW.encode())


def test_a_repeated_key_in_a_repeated_section_is_found_everywhere() -> None:
    data = b"[a]\nk=1\n[b]\nk=2\n[A]\nK=3\nk=4\n"
    assert [entry.value for entry in ini.lookup(data, "a", "k")] == ["1", "3", "4"]
    assert ini.set_value(data, "a", "k", "9") == (
        b"[a]\nk=9\n[b]\nk=2\n[A]\nK=9\nk=9\n"
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a=1\r\nb=2\nc=3\rd=4", ["1", "2", "3", "4"]),
        (b"a=1\r\r\nb=2\n\rc=3", ["1", "2", "3"]),
        (b"a=1\x85b=2\x0bc=3\x0cd=4\x1ce", ["1\x85b=2\x0bc=3\x0cd=4\x1ce"]),
        ("a=1\u2028b=2\u2029\x85".encode(), ["1\u2028b=2\u2029\x85"]),
    ],
)
def test_lines_end_at_cr_lf_or_both_and_nowhere_else(
    data: bytes, expected: list[str]
) -> None:
    assert [entry.value for entry in ini.entries(data)] == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"WorldClientAPI:AllowTheseExternalOrigins=https://a.example/?b=c", 1),
        (b"a;b=c#d", 1),
        (b"[a=b", 1),
        (b"  ; a=b", 0),
        (b"\t#a=b", 0),
        (b"=b", 0),
        (b" \t =b", 0),
        (b"no equals sign", 0),
        (b"[a]=b", 0),
        (b"", 0),
    ],
)
def test_which_lines_hold_a_value(line: bytes, expected: int) -> None:
    assert len(ini.entries(line)) == expected


@pytest.mark.parametrize(
    ("line", "section"),
    [
        (b"[name]", "name"),
        (b" \t[ name\t] ", "name"),
        (b"[a]b]", "a]b"),
        (b"[a]b] ; why", "a]b"),
        (b"[example.test:Settings]", "example.test:Settings"),
        (b"[]", ""),
        (b"[a", ""),
        (b"a]", ""),
    ],
)
def test_a_section_is_named_up_to_the_last_bracket(line: bytes, section: str) -> None:
    assert summary(line + b"\nk=v") == [(section, "k", "v")]


def test_the_first_equals_sign_splits() -> None:
    assert summary(b"a:b = c = d ") == [("", "a:b", "c = d")]


def test_keys_before_the_first_section_have_an_empty_one() -> None:
    data = b"a=1\n[b]\na=2\n"
    assert [entry.value for entry in ini.lookup(data, "", "a")] == ["1"]


def test_a_byte_order_mark_is_not_part_of_the_first_section() -> None:
    data = codecs.BOM_UTF8 + "[müller.example]\nk=grün\n".encode()
    assert summary(data) == [("müller.example", "k", "grün")]
    (entry,) = ini.lookup(data, "MÜLLER.example", "k")
    assert ini.substitute(data, {entry: "öde"}) == (
        codecs.BOM_UTF8 + "[müller.example]\nk=öde\n".encode()
    )


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_path_with_umlauts_is_read_in_utf_8_and_in_the_code_page(
    encoding: str,
) -> None:
    data = "[Directories]\r\nRaw=C:\\Müller\\Raw\r\n".encode(encoding)
    assert summary(data) == [("Directories", "Raw", "C:\\Müller\\Raw")]


@pytest.mark.parametrize(
    ("mark", "codec"),
    [(codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")],
)
def test_a_utf_16_file_is_edited_in_its_own_encoding(mark: bytes, codec: str) -> None:
    text = "[Größe]\r\nk = old \r\n\ud800=\udc00\r\nl=\U0001f600"
    data = mark + text.encode(codec, "surrogatepass")
    (entry,) = ini.lookup(data, "größe", "K")
    result = ini.substitute(data, {entry: "nëw"})
    expected = text.replace("old", "nëw").encode(codec, "surrogatepass")
    assert result == mark + expected


def test_a_utf_16_file_cut_in_a_character_is_read_as_single_bytes() -> None:
    data = "\ufeff[a]\rk=v".encode("utf-16-le")[:-1]
    assert summary(data) == [("", "\0k\0", "\0v")]


def test_an_edit_that_would_complete_a_cut_utf_16_file_is_refused() -> None:
    data = codecs.BOM_UTF16_BE + b"k=old"
    (entry,) = ini.entries(data)
    with pytest.raises(ValueError, match="no line can hold this value"):
        ini.substitute(data, {entry: "even"})


def test_an_empty_value_can_be_set() -> None:
    data = b"[a]\r\none=\r\ntwo = \t\r\n"
    one, two = ini.entries(data)
    assert one.start == one.end
    assert two.start == two.end
    result = ini.substitute(data, {one: "1", two: "2"})
    assert result == b"[a]\r\none=1\r\ntwo = \t2\r\n"


def test_a_value_can_be_emptied() -> None:
    (entry,) = ini.entries(b"a = b \n")
    assert ini.substitute(b"a = b \n", {entry: ""}) == b"a =  \n"


@pytest.mark.parametrize("value", ["a\nb", "a\r", "\r\nx=y", " a", "a\t"])
def test_a_value_that_no_line_can_hold_is_refused(value: str) -> None:
    (entry,) = ini.entries(b"[s]\nk=v")
    with pytest.raises(ValueError, match=r"\[s\] k: no line can hold this value"):
        ini.substitute(b"[s]\nk=v", {entry: value})


@pytest.mark.parametrize(
    ("data", "value", "codec"),
    [
        (b"k=v", "ö", "ascii"),
        (b"k=v ; \xe9", "€", "latin-1"),
        ("k=v ; é".encode(), "\ud800", "utf-8"),
    ],
)
def test_a_character_that_the_encoding_lacks_is_refused(
    data: bytes, value: str, codec: str
) -> None:
    (entry,) = ini.entries(data)
    with pytest.raises(ValueError, match=rf"\({codec}\) lacks a character"):
        ini.substitute(data, {entry: value})


def test_a_value_that_would_turn_the_file_into_utf_8_is_refused() -> None:
    (entry,) = ini.entries(b"k=\xe9")
    with pytest.raises(ValueError, match="no line can hold this value"):
        ini.substitute(b"k=\xe9", {entry: "Ã©"})


def test_an_entry_of_an_older_version_of_the_file_is_refused() -> None:
    (entry,) = ini.entries(b"[s]\nk=v")
    with pytest.raises(ValueError, match=r"\[s\] k: the file has changed"):
        ini.substitute(b"[s]\nlonger=v", {entry: "w"})


def test_a_value_is_not_in_the_repr() -> None:
    assert "hunter2" not in repr(ini.entries(b"[s]\nPassword=hunter2"))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", b"[s]\r\nk=v\r\n"),
        (b"[s]", b"[s]\r\nk=v\r\n"),
        (b"[s]\n", b"[s]\nk=v\n"),
        (b"[t]\na=b", b"[t]\na=b\n[s]\nk=v\n"),
        (b"[t]\na=b\r\n\r\n", b"[t]\na=b\r\n\r\n[s]\nk=v\n"),
        (b"[S]\ra=b\r\r; about t\r[t]\r", b"[S]\ra=b\rk=v\r\r; about t\r[t]\r"),
        (b"[s]\n; no keys\n[t]\n", b"[s]\nk=v\n; no keys\n[t]\n"),
        (b"[s]\na=1\n[t]\n[s]\nb=2\n", b"[s]\na=1\nk=v\n[t]\n[s]\nb=2\n"),
        (b"[s]\na=1", b"[s]\na=1\nk=v\n"),
        (b"\xef\xbb\xbf[t]\n", b"\xef\xbb\xbf[t]\n[s]\nk=v\n"),
    ],
)
def test_an_absent_key_is_added_behind_the_last_of_its_section(
    data: bytes, expected: bytes
) -> None:
    assert ini.set_value(data, "s", "k", "v") == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", b"k=v\r\n"),
        (b"[s]\n", b"k=v\n[s]\n"),
        (b"; top\na=1\n[s]\n", b"; top\na=1\nk=v\n[s]\n"),
        (b"\xef\xbb\xbf[s]\n", b"\xef\xbb\xbfk=v\n[s]\n"),
    ],
)
def test_a_key_without_a_section_is_added_before_the_first(
    data: bytes, expected: bytes
) -> None:
    assert ini.set_value(data, "", "k", "v") == expected


def test_a_key_is_added_to_a_utf_16_file_in_its_own_encoding() -> None:
    data = "\ufeff[s]\nä=1".encode("utf-16-be")
    expected = "\ufeff[s]\nä=1\nk=ö\n".encode("utf-16-be")
    assert ini.set_value(data, "s", "k", "ö") == expected


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("a]\n[b", "k", "v"),
        (" a", "k", "v"),
        ("a", "k=l", "v"),
        ("a", "k\nl", "v"),
        ("a", " k", "v"),
        ("a", "", "v"),
        ("a", "; k", "v"),
        ("a", "#k", "v"),
        ("a", "[k]", "v"),
        ("a", "k", "v\nl=w"),
        ("a", "k", "v "),
        ("ä", "k", "v"),
    ],
)
def test_names_that_no_line_can_hold_are_refused(
    section: str, key: str, value: str
) -> None:
    with pytest.raises(ValueError, match=r"no line can hold|lacks a character"):
        ini.set_value(b"[x]\n", section, key, value)


def parses(monkeypatch: pytest.MonkeyPatch, count: int) -> int:
    """Return how often a merge of so many changes of each kind reads a file."""
    read = ini._read  # noqa: SLF001 - whoever reads, does it by this
    calls: list[int] = []

    def counted(data: bytes) -> tuple[ini.Encoding, list[ini.Line]]:
        calls.append(len(data))
        return read(data)

    rows = range(count)
    base = b"".join(b"[s%d]\nk=1\ngone=1\n" % row for row in rows)
    late = b"".join(b"[s%d]\nk=2\nnew=1\n[t%d]\nk=3\n" % (row, row) for row in rows)
    with monkeypatch.context() as patch:
        patch.setattr(ini, "_read", counted)
        result = ini.merged(base, late, base)
    assert ini.merged(base, late, result) == result
    assert len(ini.entries(result)) == 3 * count
    return len(calls)


def test_a_merge_reads_a_file_as_often_for_many_changes_as_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert parses(monkeypatch, 100) == parses(monkeypatch, 1)


def test_several_new_keys_come_in_order_after_the_last_one_of_their_section() -> None:
    base = b"[a]\nx=1\n[b]\ny=1"
    late = b"[c]\nk=1\n[a]\nm=1\nx=1\nn=2\n[b]\ny=1\nz=3\n[c]\nl=2\n"

    assert ini.merged(base, late, base) == (
        b"[a]\nx=1\nm=1\nn=2\n[b]\ny=1\nz=3\n[c]\nk=1\nl=2\n"
    )
