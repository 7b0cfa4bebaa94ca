"""Recognize the forms in which INI values name certificates, and write them.

The server's form is not documented, so this module knows every plausible one: SHA-1,
SHA-256 or the serial number, in hex of either case with or without separators, or in
base64, with the bytes in either order. A form is written as `sha1:upper:space`.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64decode, b64encode
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from cryptography.hazmat.primitives.serialization import Encoding

from letsencrypt_mdaemon.pki.certificate import serial_der

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cryptography import x509

Source = Literal["sha1", "sha256", "serial", "derserial"]
Style = Literal["upper", "lower", "base64", "decimal"]
SEPARATORS = {"": "", "space": " ", "colon": ":", "dash": "-", "comma": ","}
SOURCES: tuple[Source, ...] = get_args(Source)
MIN_BYTES = 8
"""The shortest serial number to search for; shorter ones would match by chance."""
MAX_BYTES = 21
"""The longest serial number: 20 (RFC 5280, 4.1.2.2), and for some CAs DER's zero."""
_LENGTHS = {"sha1": 20, "sha256": 32}
_CASES: tuple[Style, ...] = ("upper", "lower")
_ALNUM = r"[^\W_]"
_HEXADECIMAL_RUN = re.compile(
    rf"[0-9a-fA-F]{{2}}(?:[ :,-]?[0-9a-fA-F]{{2}}){{{MIN_BYTES - 1},}}"
)
_BASE64 = re.compile(r"(?<![\w+/])[A-Za-z0-9+/]{11,43}={0,2}(?![\w+/=])")
_AROUND = 8
"""Characters beside a name that decide whether it stands alone; at most five do."""


class Form(NamedTuple):
    """One way to name a certificate.

    Args:
        source: The part of the certificate; `derserial` is the serial number with the
            zero byte that DER puts before a high first bit, as Windows' dialogs show.
        separator: The separator's name in hex; see `SEPARATORS`.
        backwards: Whether the last byte comes first, as in Windows' structures.
    """

    source: Source
    style: Style
    separator: str = ""
    backwards: bool = False

    def __str__(self) -> str:
        """Return the form as the config file spells it."""
        parts = [self.source, self.style, self.separator]
        parts.append("reversed" if self.backwards else "")
        return ":".join(part for part in parts if part)

    def write(self, certificate: x509.Certificate) -> str:
        """Return the certificate's name in this form."""
        if self.style == "decimal":
            return str(certificate.serial_number)
        data = _bytes(certificate, self.source)
        if self.backwards:
            data = data[::-1]
        if self.style == "base64":
            return b64encode(data).decode()
        text = SEPARATORS[self.separator].join(f"{byte:02x}" for byte in data)
        return text.upper() if self.style == "upper" else text

    def shape(self) -> re.Pattern[str]:
        """Return a pattern of any certificate's name in this form, in either case.

        It matches a name that stands alone, not one inside a longer text.
        """
        if self.style == "decimal":
            return _decimal()
        length = _LENGTHS.get(self.source)
        if self.style == "base64":
            lengths = [length] if length else range(MIN_BYTES, MAX_BYTES + 1)
            every_length = "|".join(
                f"[A-Za-z0-9+/]{{{-(-count * 4 // 3)}}}{'=' * (-count % 3)}"
                for count in lengths
            )
            return re.compile(rf"(?<![\w+/])(?:{every_length})(?![\w+/=])")
        shortest, longest = (length, length) if length else (MIN_BYTES, MAX_BYTES)
        return _hexadecimal(SEPARATORS[self.separator], shortest, longest)


class Hit(NamedTuple):
    """A place in a text that names a certificate."""

    certificate: x509.Certificate
    form: Form
    start: int
    end: int


DEFAULT = Form("sha1", "upper")
"""The form in which Windows shows a thumbprint, without spaces."""


def parse(text: str) -> Form:
    """Parse a form as the config file spells it.

    Raises:
        ValueError: If there is no such form.
    """
    wanted = text.strip().lower()
    for form in every():
        if str(form) == wanted:
            return form
    raise ValueError(
        f"{text!r} is not a form; examples are {DEFAULT}, sha1:lower:colon and "
        "sha256:base64"
    )


def find(text: str, certificates: Iterable[x509.Certificate]) -> list[Hit]:
    """Return every place in the text that names one of the certificates, in order.

    What looks like a name is looked up: the text is read once, however many
    certificates there are. Of two certificates with one name the first one is meant.
    """
    candidates = list(_candidates(text))
    if not candidates:
        return []
    named = _names(tuple(certificates))
    hits: dict[tuple[int, int], tuple[int, Hit]] = {}
    for name, style, separator, start, end in candidates:
        if name not in named:
            continue
        number, certificate, source, backwards = named[name]
        form = Form(source, style, separator, backwards)
        known = hits.get((start, end))
        if known is None or number < known[0]:
            hits[start, end] = number, Hit(certificate, form, start, end)
    return [hits[place][1] for place in sorted(hits)]


@lru_cache(maxsize=1)
def every() -> tuple[Form, ...]:
    """Return every form."""
    ways = (False, True)
    hexadecimal = product(SOURCES, SEPARATORS, ways, _CASES)
    return (
        *(Form(source, style, sep, way) for source, sep, way, style in hexadecimal),
        *(Form(source, "base64", "", way) for source, way in product(SOURCES, ways)),
        Form("serial", "decimal"),
    )


def _candidates(text: str) -> Iterator[tuple[bytes | str, Style, str, int, int]]:
    """Yield what may be a name: its value, style, separator, start and end."""
    for run in _HEXADECIMAL_RUN.finditer(text):
        # With as much around it as decides whether it stands alone.
        first = max(0, run.start() - _AROUND)
        piece = text[first : run.end() + _AROUND]
        for name, separator in SEPARATORS.items():
            if separator in piece:
                pattern = _hexadecimal(separator, MIN_BYTES, max(_LENGTHS.values()))
                for match in pattern.finditer(piece):
                    digits = match[0].replace(separator, "")
                    style: Style = "lower" if digits == digits.lower() else "upper"
                    start, end = match.span()
                    value = bytes.fromhex(digits)
                    yield value, style, name, first + start, first + end
        for match in _decimal().finditer(piece):
            yield match[0], "decimal", "", first + match.start(), first + match.end()
    for match in _BASE64.finditer(text):
        try:
            value = b64decode(match[0])
        except binascii.Error:
            continue
        if b64encode(value) == match[0].encode():
            yield value, "base64", "", *match.span()


@lru_cache(maxsize=4)
def _names(
    certificates: tuple[x509.Certificate, ...],
) -> dict[bytes | str, tuple[int, x509.Certificate, Source, bool]]:
    """Return which certificate a value means, with its number, source and direction."""
    named: dict[bytes | str, tuple[int, x509.Certificate, Source, bool]] = {}
    for number, certificate in enumerate(certificates):
        is_short = len(_bytes(certificate, "serial")) < MIN_BYTES
        for source, backwards in product(SOURCES, (False, True)):
            if source in _LENGTHS or not is_short:
                value = _bytes(certificate, source)[:: -1 if backwards else 1]
                named.setdefault(value, (number, certificate, source, backwards))
        if not is_short:
            decimal = str(certificate.serial_number)
            named.setdefault(decimal, (number, certificate, "serial", False))
    return named


@lru_cache(maxsize=32)
def _hexadecimal(separator: str, shortest: int, longest: int) -> re.Pattern[str]:
    """Return a pattern of a number of bytes that stand alone."""
    pair, separator = "[0-9a-fA-F]{2}", re.escape(separator)
    # A prefix "0x" is allowed.
    before, after = rf"(?:(?<!{_ALNUM})|(?<=0[xX]))", rf"(?!{_ALNUM})"
    if separator:
        before += rf"(?<!{before}{pair}{separator})"
        after += rf"(?!{separator}{pair}(?!{_ALNUM}))"
    more = f"{{{shortest - 1},{longest - 1}}}"
    return re.compile(rf"{before}{pair}(?:{separator}{pair}){more}{after}")


@lru_cache(maxsize=1)
def _decimal() -> re.Pattern[str]:
    return re.compile(rf"(?<!{_ALNUM})[0-9]{{17,49}}(?!{_ALNUM})")


def _bytes(certificate: x509.Certificate, source: Source) -> bytes:
    if source == "sha1":
        der = certificate.public_bytes(Encoding.DER)
        return hashlib.sha1(der, usedforsecurity=False).digest()
    if source == "sha256":
        return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()
    der = serial_der(certificate)
    return der if source == "derserial" else der.lstrip(b"\0")
