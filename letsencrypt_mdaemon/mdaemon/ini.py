"""Set values in an INI file's bytes, and change no other byte.

The rules are common to both readers of such files: Windows' profile functions and the
library of MDaemon's vendor.

- A line ends at CRLF, LF or CR, nowhere else. `str.splitlines` would also split at
  U+0085, which is an ellipsis in Windows-1252.
- A comment is a whole line that starts with ``;`` or ``#``. The rest of a value's line
  belongs to the value.
- The first ``=`` splits key and value; keys like ``WorldClientAPI:Origins`` exist.
- The name of a section ends at the last ``]`` of its line, so ``[a]b]`` is ``a]b``:
  both readers do it, and no part of the name is lost.
- A repeated section continues. Of two equal keys one reader takes the first and one
  the last, so a change has to set both.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

BLANKS = " \t"
LINE = re.compile(r"([^\r\n]*)(\r\n|\r|\n|\Z)")


@dataclass(frozen=True, slots=True)
class Entry:
    """One ``key=value`` line: its names, its value and the value's place.

    Args:
        section: The section's name; empty before the first one.
        key: The text before the first ``=``, stripped of blanks.
        value: The text after it, stripped of blanks; may be a secret.
        line: Counted from 1.
        start: The offset of the value's first byte.
        end: The offset after its last byte; equal to `start` if it is empty.
    """

    section: str
    key: str
    value: str = field(repr=False)
    line: int
    start: int
    end: int


class Encoding(NamedTuple):
    """How the bytes of a file become text and the same bytes again."""

    mark: bytes
    codec: str
    errors: str = "strict"

    def encode(self, text: str) -> bytes:
        """Return the bytes of `text`.

        Raises:
            ValueError: If the encoding lacks a character.
        """
        try:
            return text.encode(self.codec, self.errors)
        except UnicodeEncodeError as exc:
            message = f"the encoding of the file ({self.codec}) lacks a character"
            raise ValueError(message) from exc


class Line(NamedTuple):
    """A line: its text without the line break, its offsets with it."""

    text: str
    ending: str
    start: int
    end: int


def entries(data: bytes) -> list[Entry]:
    """Return every ``key=value`` line of a file; ignore other lines."""
    encoding, lines = _read(data)
    found = []
    section = ""
    for number, line in enumerate(lines, start=1):
        name = _section_name(line.text)
        if name is not None:
            section = name
            continue
        head, equals, tail = line.text.partition("=")
        key = head.strip(BLANKS)
        if not equals or not key or key.startswith((";", "#")):
            continue
        value = tail.strip(BLANKS)
        blanks = tail[: len(tail) - len(tail.lstrip(BLANKS))]
        start = line.start + len(encoding.encode(head + equals + blanks))
        end = start + len(encoding.encode(value))
        found.append(Entry(section, key, value, number, start, end))
    return found


def lookup(data: bytes, section: str, key: str) -> list[Entry]:
    """Return all entries with this section and key, in any case."""
    return matching(entries(data), section, key)


def matching(found: Iterable[Entry], section: str, key: str) -> list[Entry]:
    """Return the entries with this section and key, in any case."""
    return [
        entry
        for entry in found
        if _same(entry.section, section) and _same(entry.key, key)
    ]


def substitute(
    data: bytes, edits: Mapping[Entry, str], found: Iterable[Entry] | None = None
) -> bytes:
    """Return `data` with a new value for each of these entries.

    Args:
        found: The entries of `data`, if they are known.

    Raises:
        ValueError: If an entry is not one of `data`; or if no line can hold a value,
            because of a line break, a blank at either end, or a character that the
            file's encoding lacks.
    """
    encoding = _encoding(data)
    known = entries(data) if found is None else found
    places = {entry: place for place, entry in enumerate(known)}
    pieces = []
    done = 0
    for entry in sorted(edits, key=lambda entry: entry.start):
        if entry not in places:
            message = f"[{entry.section}] {entry.key}: the file has changed"
            raise ValueError(message)
        pieces += [data[done : entry.start], encoding.encode(edits[entry])]
        done = entry.end
    result = b"".join([*pieces, data[done:]])
    # Reading the result back finds line breaks and blanks, and also a value that makes
    # the file look like one in another encoding.
    after = entries(result)
    for entry, value in edits.items():
        if len(after) != len(places) or after[places[entry]].value != value:
            message = f"[{entry.section}] {entry.key}: no line can hold this value"
            raise ValueError(message)
    return result


def set_value(data: bytes, section: str, key: str, value: str) -> bytes:
    """Return `data` with this value at every such key, or with the key added.

    A new key goes after the last key of the first section by that name, because Windows
    reads no further. A new section goes to the end of the file.

    Raises:
        ValueError: See `substitute`; or if no line can hold the section or key.
    """
    found = lookup(data, section, key)
    if found:
        return substitute(data, dict.fromkeys(found, value))
    return _extended(data, [(section, key, value)])


def _extended(data: bytes, new: Iterable[tuple[str, str, str]]) -> bytes:
    """Return `data` with new keys: (section, key, value)."""
    encoding, lines = _read(data)
    ending = next((line.ending for line in lines if line.ending), "\r\n")
    unfinished = any(line.text and not line.ending for line in lines)
    ends = _ends_of_sections(data)
    texts: dict[str, list[str]] = {}
    for section, key, value in new:
        head = [] if section.lower() in ends else [f"[{section}]"]
        texts.setdefault(section.lower(), head).append(f"{key}={value}")
    pieces, done = [], 0
    # New sections follow whatever goes to the end of the last one.
    for section in sorted(texts, key=lambda name: ends.get(name, len(data) + 1)):
        place = ends.get(section, len(data))
        pieces += [data[done:place]]
        if place == len(data) and unfinished:
            pieces.append(encoding.encode(ending))
            unfinished = False
        pieces += [encoding.encode(text + ending) for text in texts[section]]
        done = place
    result = b"".join([*pieces, data[done:]])
    written = _by_place(entries(result))
    for section, key, value in new:
        if _values(written.get((section.lower(), key.lower()))) != [value]:
            message = f"[{section}] {key}: no line can hold this section, key and value"
            raise ValueError(message)
    return result


def merged(base: bytes, late: bytes, onto: bytes) -> bytes:
    """Return `onto` with what changed from `base` to `late`.

    A value that `onto` does not have as `base` has it is newer, and stays.

    Raises:
        ValueError: If no line of `onto` can hold a value.
    """
    found = entries(onto)
    before, after, now = map(_by_place, (entries(base), entries(late), found))
    edits: dict[Entry, str] = {}
    new: list[tuple[str, str, str]] = []
    for place, changed in after.items():
        if _values(changed) != _values(before.get(place)) == _values(now.get(place)):
            first, there = changed[0], now.get(place, [])
            if len(there) == len(changed):
                edits |= zip(there, _values(changed), strict=True)
            elif there:  # Windows reads the first one.
                edits |= dict.fromkeys(there, first.value)
            else:
                new.append((first.section, first.key, first.value))
    gone = {
        place
        for place, values in before.items()
        if place not in after and _values(now.get(place)) == _values(values)
    }
    onto = substitute(onto, edits, found) if edits else onto
    return _without(_extended(onto, new) if new else onto, gone)


def _by_place(found: Iterable[Entry]) -> dict[tuple[str, str], list[Entry]]:
    places: dict[tuple[str, str], list[Entry]] = {}
    for entry in found:
        place = entry.section.lower(), entry.key.lower()
        places.setdefault(place, []).append(entry)
    return places


def _values(found: list[Entry] | None) -> list[str]:
    return [entry.value for entry in found or ()]


def _without(data: bytes, gone: Collection[tuple[str, str]]) -> bytes:
    places = _by_place(entries(data)) if gone else {}
    lines = {entry.line for place in gone for entry in places.get(place, ())}
    if not lines:
        return data
    encoding, every = _read(data)
    left = (row for number, row in enumerate(every, 1) if number not in lines)
    return encoding.mark + b"".join(data[row.start : row.end] for row in left)


def _read(data: bytes) -> tuple[Encoding, list[Line]]:
    encoding = _encoding(data)
    start = len(encoding.mark)
    text = data[start:].decode(encoding.codec, encoding.errors)
    lines = []
    for match in LINE.finditer(text):
        end = start + len(encoding.encode(match[0]))
        lines.append(Line(match[1], match[2], start, end))
        start = end
    return encoding, lines


def _encoding(data: bytes) -> Encoding:
    """Return an encoding that turns text back into the same bytes.

    An ASCII file does not show the encoding of other characters, so it gets none.
    Latin-1 stands for any code page: its text may be wrong, but every byte is one
    character and becomes the same byte again.
    """
    if len(data) % 2 == 0:
        # Windows reads half surrogate pairs, so they must not fail or change.
        if data.startswith(codecs.BOM_UTF16_LE):
            return Encoding(codecs.BOM_UTF16_LE, "utf-16-le", "surrogatepass")
        if data.startswith(codecs.BOM_UTF16_BE):
            return Encoding(codecs.BOM_UTF16_BE, "utf-16-be", "surrogatepass")
    mark = codecs.BOM_UTF8 if data.startswith(codecs.BOM_UTF8) else b""
    if data.isascii():
        return Encoding(mark, "ascii")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return Encoding(mark, "latin-1")
    return Encoding(mark, "utf-8")


def _section_name(text: str) -> str | None:
    text = text.strip(BLANKS)
    if text.startswith("[") and "]" in text:
        return text[1 : text.rindex("]")].strip(BLANKS)
    return None


def _ends_of_sections(data: bytes) -> dict[str, int]:
    """Return the offset after the last key of the first section of each name."""
    encoding, lines = _read(data)
    with_key = {entry.line for entry in entries(data)}
    section: str | None = ""
    ends = {"": len(encoding.mark)}
    for number, line in enumerate(lines, start=1):
        name = _section_name(line.text)
        if name is not None:
            section = None if name.lower() in ends else name.lower()
        if section is not None and (name is not None or number in with_key):
            ends[section] = line.end
    return ends


def _same(one: str, other: str) -> bool:
    return one.lower() == other.lower()
