"""The trust anchors of DNSSEC: hashes of the root zone's keys."""

from __future__ import annotations

from typing import NamedTuple


class Anchor(NamedTuple):
    """The DS record of a key that signs the root's keys (RFC 4034, 5.1)."""

    key_tag: int
    algorithm: int
    digest_type: int
    digest: str


ROOT = (
    # KSK-2017 and KSK-2024 (data.iana.org/root-anchors/root-anchors.xml).
    Anchor(
        20326,
        8,
        2,
        "e06d44b80b8f1d39a95c0b0d7c65d08458e880409bbc683457104237c7f8ec8d",
    ),
    Anchor(
        38696,
        8,
        2,
        "683d2d0acb8c9b712a1948b27f741219298d0a450d612c483af444a4c0fb2b16",
    ),
)

LABORATORY: tuple[Anchor, ...] = ()
"""The anchors of a laboratory's own root (`validation-dns`); tests put theirs here."""
