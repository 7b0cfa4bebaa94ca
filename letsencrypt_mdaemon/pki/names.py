"""DNS names in the form that certificates use; other names are refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
MAX_NAME_LENGTH = 253
"""In characters, without the root's dot (RFC 1035, 2.3.4)."""


def normalise(text: str) -> str:
    """Return a DNS name in lower-case ASCII without its trailing dot.

    U-labels become A-labels (RFC 5891, after the UTS 46 mapping of browsers).

    Raises:
        ValueError: With the reason, if no CA could validate the name by http-01.
    """
    name = text.strip()
    if "*" in name:
        # RFC 8555, 8.3 with 7.1.3: CAs validate wildcards by dns-01 only.
        raise ValueError(
            "is a wildcard, which a CA cannot validate over HTTP; list each name"
        )
    if _is_ip(name.removesuffix(".")):
        raise ValueError("is an IP address; only DNS names can go into the certificate")
    if not name.isascii() or "xn--" in name.lower():
        name = _to_ascii(name)
    # Only after the mapping, which turns U+3002 into a dot.
    name = name.removesuffix(".").lower()
    if not name:
        raise ValueError("is empty")
    labels = name.split(".")
    if len(labels) == 1:
        raise ValueError(
            "has no dot; a public CA needs a full name such as mail.example.com"
        )
    for label in labels:
        if not _LABEL.match(label):
            raise ValueError(
                f"has the part {label!r}, which is not a DNS label (RFC 1123, 2.1)"
            )
    if len(name) > MAX_NAME_LENGTH:
        raise ValueError(f"is longer than the {MAX_NAME_LENGTH} characters of DNS")
    if labels[-1].isdigit():
        raise ValueError("ends in a number, as no top-level domain does")
    return name


def split(texts: Iterable[str]) -> list[str]:
    """Return the words of some lists separated by commas or blanks, as written."""
    return [word for text in texts for word in re.split(r"[,;\s]+", text) if word]


def twins(names: Iterable[str]) -> set[str]:
    """Return the names that a CA may add: each with `www.`, or without it."""
    asked = set(names)
    shorter = {name.removeprefix("www.") for name in asked}
    return (shorter | {f"www.{name}" for name in asked}) - asked


def _is_ip(name: str) -> bool:
    import ipaddress  # noqa: PLC0415 - seldom needed

    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        # RFC 5321, 4.1.3: an address literal as a mail server's name, [IPv6:...].
        return name.startswith("[") and name.endswith("]")
    return True


def _to_ascii(name: str) -> str:
    import idna  # noqa: PLC0415 - rarely needed, and slow to import

    try:
        return idna.encode(name, uts46=True).decode("ascii")
    except UnicodeError as exc:  # IDNAError is one
        raise ValueError(f"is not a valid international name: {exc}") from exc
