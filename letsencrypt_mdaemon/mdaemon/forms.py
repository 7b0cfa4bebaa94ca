"""Recognize the forms in which INI values name certificates, and write them.

The server's form is not documented, so this module knows every plausible one: SHA-1,
SHA-256 or the serial number, in hex of either case with or without separators, or in
base64, with the bytes in either order. A form is written as `sha1:upper:space`.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from cryptography.hazmat.primitives.serialization import Encoding

from letsencrypt_mdaemon.pki.certificate import serial_der

if TYPE_CHECKING:
    from collections.abc import Iterable

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
            return re.compile(rf"(?<!{_ALNUM})[0-9]{{17,49}}(?!{_ALNUM})")
        length = _LENGTHS.get(self.source)
        if self.style == "base64":
            lengths = [length] if length else range(MIN_BYTES, MAX_BYTES + 1)
            every_length = "|".join(
                f"[A-Za-z0-9+/]{{{-(-count * 4 // 3)}}}{'=' * (-count % 3)}"
                for count in lengths
            )
            return re.compile(rf"(?<![\w+/])(?:{every_length})(?![\w+/=])")
        pair, separator = "[0-9a-fA-F]{2}", re.escape(SEPARATORS[self.separator])
        more = length - 1 if length else f"{MIN_BYTES - 1},{MAX_BYTES - 1}"
        # A prefix "0x" is allowed.
        before, after = rf"(?:(?<!{_ALNUM})|(?<=0[xX]))", rf"(?!{_ALNUM})"
        if separator:
            before += rf"(?<!{before}{pair}{separator})"
            after += rf"(?!{separator}{pair}(?!{_ALNUM}))"
        return re.compile(rf"{before}{pair}(?:{separator}{pair}){{{more}}}{after}")


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
    """Return every place in the text that names one of the certificates, in order."""
    folded = text.translate(_LOWER)
    hits: dict[tuple[int, int], Hit] = {}
    for certificate in certificates:
        for form, needle in _needles(certificate):
            plain = text if form.style == "base64" else folded
            start = -1
            while (start := plain.find(needle, start + 1)) >= 0:
                end = start + len(needle)
                alone = form.shape().match(plain, start)
                if alone and alone.end() == end:
                    upper = text[start:end] != plain[start:end]
                    shown = form._replace(style="upper") if upper else form
                    hits.setdefault((start, end), Hit(certificate, shown, start, end))
    return [hits[place] for place in sorted(hits)]


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


# `str.lower` may change a text's length; this does not.
_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


@lru_cache(maxsize=1000)
def _needles(certificate: x509.Certificate) -> tuple[tuple[Form, str], ...]:
    """Return the texts to search for; hex in lower case, as in the folded text."""
    short = len(_bytes(certificate, "serial")) < MIN_BYTES
    found: dict[str, Form] = {}
    for form in every():
        if form.style != "upper" and (form.source in _LENGTHS or not short):
            found.setdefault(form.write(certificate), form)
    return tuple((form, needle) for needle, form in found.items())


def _bytes(certificate: x509.Certificate, source: Source) -> bytes:
    if source == "sha1":
        der = certificate.public_bytes(Encoding.DER)
        return hashlib.sha1(der, usedforsecurity=False).digest()
    if source == "sha256":
        return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()
    der = serial_der(certificate)
    return der if source == "derserial" else der.lstrip(b"\0")
