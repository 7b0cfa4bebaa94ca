"""Which TLSA records match which certificates."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from letsencrypt_mdaemon.pki.tlsa import SMTP, Tlsa, of_key
from tests.certificates import NAME, certificate, intermediate, key, root

OURS = certificate()
OTHER = certificate(own_key=key(9))
DER = OURS.leaf.public_bytes(Encoding.DER)
SPKI = OURS.key.public_key().public_bytes(
    Encoding.DER, PublicFormat.SubjectPublicKeyInfo
)
ISSUER = intermediate().certificate
ISSUER_DER = ISSUER.public_bytes(Encoding.DER)
ISSUER_SPKI = ISSUER.public_key().public_bytes(
    Encoding.DER, PublicFormat.SubjectPublicKeyInfo
)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def sha512(data: bytes) -> bytes:
    return hashlib.sha512(data).digest()


@pytest.mark.parametrize(
    ("record", "data"),
    [
        ((3, 1, 1), sha256(SPKI)),
        ((3, 1, 2), sha512(SPKI)),
        ((3, 1, 0), SPKI),
        ((3, 0, 1), sha256(DER)),
        ((3, 0, 2), sha512(DER)),
        ((3, 0, 0), DER),
        ((2, 0, 1), sha256(ISSUER_DER)),
        ((2, 1, 1), sha256(ISSUER_SPKI)),
        ((2, 0, 0), ISSUER_DER),
        ((2, 1, 2), sha512(ISSUER_SPKI)),
    ],
    ids=lambda value: str(value) if isinstance(value, tuple) else "",
)
def test_a_record_matches_what_it_holds(
    record: tuple[int, int, int], data: bytes
) -> None:
    tlsa = Tlsa.read(*record, data)

    assert tlsa.is_usable(SMTP)
    assert tlsa.matches(OURS.chain, NAME)
    assert tlsa.matches(OTHER.chain, NAME) == tlsa.is_of_issuer
    assert not Tlsa.read(*record, data + b"\0").matches(OURS.chain, NAME)
    wrong = bytes([data[0] ^ 1]) + data[1:]
    assert not Tlsa.read(*record, wrong).matches(OURS.chain, NAME)


def test_only_records_of_an_issuer_depend_on_the_name() -> None:
    """RFC 7671, 5.1 and 5.2."""
    issuer = Tlsa.read(2, 1, 1, sha256(ISSUER_SPKI))

    assert of_key(OURS.leaf).matches(OURS.chain, "another.test")
    assert not issuer.matches(OURS.chain, "another.test")


def test_a_root_that_the_server_does_not_send_matches_nothing() -> None:
    held = sha256(root().certificate.public_bytes(Encoding.DER))

    assert not Tlsa.read(2, 0, 1, held).matches(OURS.chain, NAME)


def test_the_record_of_a_key_pins_every_certificate_for_it() -> None:
    record = of_key(OURS.key)

    assert str(record) == f"3 1 1 {sha256(SPKI).hex()}"
    assert record == of_key(OURS.leaf)
    assert record.matches_key(OURS.key)
    assert not record.matches_key(OTHER.key)
    # Another certificate for the same key has other bytes.
    assert not Tlsa.read(3, 0, 1, sha256(DER)).matches_key(OURS.key)


@pytest.mark.parametrize(
    ("record", "data", "at_25", "at_443"),
    [
        ((0, 0, 1), bytes(32), False, True),  # RFC 7672, 3.1.3
        ((1, 1, 1), bytes(32), False, True),
        ((4, 1, 1), bytes(32), False, False),
        ((255, 1, 1), bytes(32), False, False),
        ((3, 2, 1), bytes(32), False, False),
        ((3, 1, 3), bytes(32), False, False),
        ((3, 1, 1), bytes(31), False, False),
        ((3, 1, 1), bytes(33), False, False),
        ((3, 1, 2), bytes(32), False, False),
        ((3, 1, 1), b"", False, False),
    ],
)
def test_what_clients_cannot_use_is_not_usable(
    record: tuple[int, int, int], data: bytes, *, at_25: bool, at_443: bool
) -> None:
    tlsa = Tlsa.read(*record, data)

    assert (tlsa.is_usable(SMTP), tlsa.is_usable(443)) == (at_25, at_443)


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.binary())
def test_any_record_is_read_and_compared(
    usage: int, selector: int, matching: int, data: bytes
) -> None:
    tlsa = Tlsa.read(usage, selector, matching, data)

    assert not tlsa.matches(OURS.chain, NAME)
    assert not tlsa.matches((), NAME)
    assert str(tlsa).startswith(f"{usage} {selector} {matching} ")
