"""DNS names as a certificate holds them: normalised, or refused with the reason."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")


def normalise(text: str) -> str:
    """Return a DNS name in lower-case ASCII without its trailing dot.

    U-labels become A-labels (RFC 5891, after the UTS 46 mapping browsers use).

    Raises:
        ValueError: With the reason, if no CA could prove the name by http-01.
    """
    name = text.strip()
    name = name.removesuffix(".")
    if not name:
        message = "is empty"
        raise ValueError(message)
    if "*" in name:
        # RFC 8555, 8.3 with 7.1.3: wildcards are proven by dns-01 only.
        message = "is a wildcard, which cannot be proven over HTTP; list each name"
        raise ValueError(message)
    if _is_ip(name):
        message = "is an IP address; only DNS names can go into this certificate"
        raise ValueError(message)
    if not name.isascii() or "xn--" in name.lower():
        name = _to_ascii(name)
    name = name.lower()
    labels = name.split(".")
    if len(labels) == 1:
        message = "has no dot; a public CA needs a full name such as mail.example.com"
        raise ValueError(message)
    for label in labels:
        if not _LABEL.match(label):
            message = f"has the part {label!r}, which is not a DNS label (RFC 1123, 2.1)"
            raise ValueError(message)
    if len(name) > 253:  # noqa: PLR2004 - RFC 1035, 2.3.4, written without the root
        message = "is longer than the 253 characters that DNS allows"
        raise ValueError(message)
    if labels[-1].isdigit():
        message = "ends in a number, as no top-level domain does"
        raise ValueError(message)
    return name


def split(texts: Iterable[str]) -> list[str]:
    """Return the names in some lists separated by commas or blanks, as written."""
    return [word for text in texts for word in re.split(r"[,;\s]+", text) if word]


def unique(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names without repetitions, in their order."""
    return tuple(dict.fromkeys(names))


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]").split("%")[0])
    except ValueError:
        # RFC 5321, 4.1.3: an address literal as a mail server's name, [IPv6:…].
        return name.startswith("[") and name.endswith("]")
    return True


def _to_ascii(name: str) -> str:
    import idna  # noqa: PLC0415 - rarely needed, and slow to import

    try:
        return idna.encode(name, uts46=True).decode("ascii")
    except idna.IDNAError as exc:
        message = f"is not a valid international name: {exc}"
        raise ValueError(message) from exc
