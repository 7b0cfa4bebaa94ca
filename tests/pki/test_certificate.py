"""Certificates as values, and the checks before one is used."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtensionOID

from letsencrypt_mdaemon.errors import AcmeError
from letsencrypt_mdaemon.pki.certificate import (
    Certificate,
    KeyType,
    dns_names,
    is_self_signed,
    key_pem,
    key_type,
    load_key,
    new_key,
    signing_request,
    thumbprint,
)
from letsencrypt_mdaemon.pki.chain import title
from letsencrypt_mdaemon.pki.checks import check
from letsencrypt_mdaemon.state.memory import utc
from letsencrypt_mdaemon.text import when
from tests import certificates
from tests.certificates import NAME, OPENSSL_PEM, START, key, leaf

NOW = START + timedelta(days=1)
DAY = timedelta(days=1)
END = START + certificates.LIFETIME
SAN = ExtensionOID.SUBJECT_ALTERNATIVE_NAME


def problems(
    certificate: Certificate, *names: str, now: datetime = NOW
) -> tuple[list[str], str]:
    with pytest.raises(AcmeError) as caught:
        check(certificate, names or [NAME], now=now)
    head, _, listed = caught.value.message.partition(": ")
    assert head == "The CA returned a certificate that cannot be used"
    assert listed.endswith(".")
    return listed.removesuffix(".").split("; "), caught.value.hint


def shown(moment: datetime) -> str:
    """Return a moment as a clock of this machine shows it."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"


def not_signed(leaf: str, *members: str) -> str:
    listed = "; ".join(
        f"certificate {number} of its chain ({member})"
        for number, member in enumerate(members, 2)
    )
    return f"{leaf} is not signed by {listed}"


def odd(data: bytes) -> x509.Certificate:
    """Return a certificate with these bytes as subjectAltName."""
    extension = x509.UnrecognizedExtension(SAN, data)
    signed = certificates.sign("odd", extensions=[extension])
    return signed.certificate


def with_a_repeated_extension() -> x509.Certificate:
    signed = certificates.sign(
        "odd",
        extensions=[
            x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.98"), b"a"),
            x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.99"), b"a"),
        ],
    )
    return certificates.with_bytes(
        signed.certificate, b"\x06\x03\x55\x1d\x62", b"\x06\x03\x55\x1d\x63"
    )


def with_an_unknown_key() -> x509.Certificate:
    """Return a certificate whose key is of an algorithm that nobody knows."""
    return certificates.with_bytes(
        certificates.leaf(),
        bytes.fromhex("06072a8648ce3d0201"),
        bytes.fromhex("06072a8648ce3d027f"),
    )


def with_an_unreadable_subject() -> x509.Certificate:
    return certificates.with_bytes(
        certificates.authority("\u00fc\u00fc").certificate,
        "\u00fc\u00fc".encode(),
        b"\xff\xfe\xfd\xfc",
    )


# What is asked of a certificate


def test_a_certificate_is_its_leaf() -> None:
    certificate = certificates.certificate([NAME, "Imap.Example.TEST"], serial=0x1A2B)

    assert certificate.leaf == certificate.chain[0]
    assert certificate.names == (NAME, "imap.example.test")
    assert certificate.thumbprint == thumbprint(certificate.leaf)
    assert certificate.friendly_name == (
        "letsencrypt-mdaemon mail.example.test 2026-01-01 1A2B"
    )


def test_a_friendly_name_is_short_enough_for_the_name_of_a_file() -> None:
    longest = ".".join(["a" * 61] * 4)

    name = certificates.certificate([longest]).friendly_name

    assert len(name) + len(".unfinished  damaged") < 255


def test_a_certificate_without_names_has_a_friendly_name_as_well() -> None:
    certificate = Certificate((certificates.leaf([]),), certificates.key())

    assert certificate.friendly_name.startswith(
        "letsencrypt-mdaemon no name 2026-01-01"
    )


def test_the_key_is_never_shown() -> None:
    certificate = certificates.certificate()
    secret = certificates.key().private_numbers().private_value

    shown = f"{certificate!r} {certificate} {[certificate]}"

    assert "key" not in shown.lower()
    assert str(secret) not in shown
    assert f"{secret:x}" not in shown


def test_the_thumbprint_is_the_one_that_openssl_and_windows_show() -> None:
    # openssl x509 -noout -fingerprint -sha1, without the colons
    shown = "08BC94C75C2492E27A3EC6B48FE0770E7309566C"

    assert thumbprint(x509.load_pem_x509_certificate(OPENSSL_PEM)) == shown


def test_names_are_the_dns_names_in_lower_case() -> None:
    certificate = x509.load_pem_x509_certificate(OPENSSL_PEM)

    assert dns_names(certificate) == (NAME, "imap.example.test")


def test_the_common_name_is_no_name() -> None:
    assert dns_names(certificates.sign("mail.example.test").certificate) == ()


@pytest.mark.parametrize(
    "data",
    [
        b"junk",
        b"\x30\x02\xa5\x00",  # an ediPartyName
        b"\x30\x04\xa3\x02\x05\x00",  # an x400Address
        b"\x30\x03\x82\x01\xff",  # a DNS name that is not ASCII
        b"\x30\x04\x87\x02\x01\x01",  # an IP address of two bytes
    ],
)
def test_names_that_make_no_sense_are_no_names(data: bytes) -> None:
    assert dns_names(odd(data)) == ()


def test_names_beside_a_repeated_extension_are_no_names() -> None:
    assert dns_names(with_a_repeated_extension()) == ()


def test_self_signed_is_whose_issuer_is_its_subject() -> None:
    assert is_self_signed(certificates.root().certificate)
    assert not is_self_signed(certificates.intermediate().certificate)
    assert not is_self_signed(certificates.leaf())
    assert not is_self_signed(with_an_unreadable_subject())


@pytest.mark.parametrize("kind", get_args(KeyType))
def test_a_new_key_is_of_the_kind_asked_for(kind: KeyType) -> None:
    signed = certificates.sign("x", own_key=new_key(kind))

    assert key_type(signed.certificate) == kind


def test_a_key_of_another_kind_has_a_name_as_well() -> None:
    curve = certificates.sign("x", own_key=ec.generate_private_key(ec.SECP521R1()))

    assert key_type(curve.certificate) == "secp521r1"
    assert key_type(with_an_unknown_key()) == "of another kind"


def test_a_moment_is_kept_in_utc_to_the_second() -> None:
    zone = timezone(timedelta(hours=2))

    moment = utc(datetime(2026, 3, 1, 1, 30, 15, 999_999, tzinfo=zone))

    assert moment.isoformat() == "2026-02-28T23:30:15+00:00"
    assert moment.tzinfo == UTC


# Keys and files


def test_chain_and_key_are_read_as_they_were_written() -> None:
    certificate = certificates.certificate()

    again = Certificate.from_pem(certificate.fullchain_pem, certificate.key_pem)

    assert again.chain == certificate.chain
    assert key_pem(again.key) == key_pem(certificate.key)
    assert certificate.fullchain_pem == certificate.cert_pem + certificate.chain_pem
    assert certificate.cert_pem.count(b"BEGIN CERTIFICATE") == 1
    assert b"BEGIN PRIVATE KEY" in certificate.key_pem


@pytest.mark.parametrize("chain", [b"", b"junk", key_pem(key())])
def test_a_chain_that_is_none_is_refused(chain: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the library's words
        Certificate.from_pem(chain, key_pem(key()))


def test_a_key_that_cannot_be_used_is_refused() -> None:
    encrypted = key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )
    other = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )

    with pytest.raises(ValueError, match="not a private key that can be read"):
        load_key(encrypted)
    with pytest.raises(ValueError, match="Ed25519PrivateKey is neither RSA nor ECDSA"):
        load_key(other)
    for junk in (b"", b"junk", OPENSSL_PEM):
        with pytest.raises(ValueError):  # noqa: PT011 - the library's words
            load_key(junk)


def test_a_pkcs12_file_is_read_with_its_password_only() -> None:
    certificate = certificates.certificate()
    data = certificate.pkcs12(b"pass word")

    read = pkcs12.load_pkcs12(data, b"pass word")

    assert isinstance(read.key, ec.EllipticCurvePrivateKey)
    assert key_pem(read.key) == certificate.key_pem
    assert read.cert is not None
    assert read.cert.certificate == certificate.leaf
    assert read.cert.friendly_name == certificate.friendly_name.encode()
    assert [item.certificate for item in read.additional_certs] == [
        certificates.intermediate().certificate
    ]
    secret = certificates.key().private_numbers().private_value.to_bytes(32, "big")
    assert secret not in data
    for password in (b"password", b"", None):
        with pytest.raises(ValueError):  # noqa: PT011 - the library's words
            pkcs12.load_pkcs12(data, password)


def test_a_request_holds_the_names_and_nothing_else() -> None:
    der = signing_request(key(), [NAME, "imap.example.test"])

    request = x509.load_der_x509_csr(der)
    (extension,) = request.extensions
    assert isinstance(extension.value, x509.SubjectAlternativeName)
    assert extension.value.get_values_for_type(x509.DNSName) == [
        NAME,
        "imap.example.test",
    ]
    assert list(request.subject) == []
    assert request.public_key() == key().public_key()
    assert request.is_signature_valid


# The checks before it is used


def test_what_was_asked_for_is_accepted() -> None:
    certificate = certificates.certificate([NAME, "imap.example.test"])

    check(certificate, ["imap.example.test", NAME], now=NOW)


def test_a_chain_may_end_at_the_leaf_the_intermediate_or_the_root() -> None:
    chain = (
        leaf(),
        certificates.intermediate().certificate,
        certificates.root().certificate,
    )

    for length in (1, 2, 3):
        check(Certificate(chain[:length], key()), [NAME], now=NOW)


def test_an_rsa_certificate_is_accepted() -> None:
    own_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    check(certificates.certificate(own_key=own_key), [NAME], now=NOW)


def test_another_key_is_a_problem() -> None:
    certificate = Certificate(certificates.certificate().chain, key(7))

    found, hint = problems(certificate)

    assert found == ["its key is not ours"]
    assert hint == "Nothing was changed. Report this to the CA."


def test_a_key_that_nobody_knows_is_a_problem() -> None:
    found, _ = problems(Certificate((with_an_unknown_key(),), key()))

    assert found == ["its key is not ours"]


def test_missing_and_extra_names_are_problems() -> None:
    certificate = certificates.certificate([NAME, "b.test", "a.test"])

    found, _ = problems(certificate, NAME, "d.test", "c.test")

    assert found == [
        "it lacks c.test, d.test",
        "it also has a.test, b.test, not requested",
    ]


def test_a_twin_of_a_name_is_no_problem() -> None:
    for names in ([NAME, f"www.{NAME}"], [f"www.{NAME}", NAME]):
        check(certificates.certificate(names), names[:1], now=NOW)


def test_anything_beside_our_names_is_a_problem() -> None:
    others: list[x509.GeneralName] = [
        x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
        x509.RFC822Name("m@a.test"),
        x509.UniformResourceIdentifier("https://a.test/\x1b"),
    ]
    certificate = Certificate((leaf(others=others),), key())

    found, _ = problems(certificate)

    assert found == [
        r"it also has 192.0.2.1, m@a.test, https://a.test/\x1b, not requested"
    ]


@pytest.mark.parametrize(
    "certificate",
    [leaf([]), odd(b"junk"), odd(b"\x30\x02\xa5\x00"), with_a_repeated_extension()],
)
def test_a_missing_or_senseless_subject_alt_name_is_a_problem(
    certificate: x509.Certificate,
) -> None:
    found, _ = problems(Certificate((certificate,), key()))

    assert found == ["it has no subjectAltName, or a malformed one"]


# The chain: the path from the leaf counts, and what is beside it does not


def kept(*chain: x509.Certificate, now: datetime = NOW) -> tuple[list[str], str]:
    """Return the subjects of what is kept of a chain, and what cuts it short."""
    found, cut = check(Certificate(chain, key()), [NAME], now=now)
    assert found.key == key()
    return [title(one, "subject") for one in found.chain[1:]], cut


R1, ROOT = certificates.intermediate().certificate, certificates.root().certificate
OLD_ROOT = certificates.authority("Old Root", own_key=key(3))


def cross_sign(**changes: Any) -> x509.Certificate:  # noqa: ANN401
    """Return the root as the older root signs it."""
    made = certificates.sign(
        "Example Root",
        issuer=OLD_ROOT,
        own_key=key(1),
        extensions=[x509.BasicConstraints(ca=True, path_length=None)],
        **changes,
    )
    return made.certificate


CROSS_SIGN = cross_sign(lifetime=3000 * DAY)


@pytest.mark.parametrize(
    "chain",
    [
        (R1, CROSS_SIGN),
        (R1, CROSS_SIGN, ROOT),
        (ROOT, R1, CROSS_SIGN),
        (CROSS_SIGN, R1, ROOT),
        (R1, R1, CROSS_SIGN, CROSS_SIGN),
        (R1, CROSS_SIGN, OLD_ROOT.certificate),
    ],
)
def test_the_path_is_kept_up_to_a_cross_sign_and_without_a_root(
    chain: tuple[x509.Certificate, ...],
) -> None:
    assert kept(leaf(), *chain) == (["CN=Example R1", "CN=Example Root"], "")


@pytest.mark.parametrize(
    "others",
    [
        (certificates.authority("Another Root").certificate,),
        (leaf(["other.test"]),),
        (with_an_unreadable_subject(), with_an_unknown_key()),
        (cross_sign(start=START - 90 * DAY, lifetime=DAY), ROOT),
    ],
)
def test_a_member_beside_the_path_is_left_out(
    others: tuple[x509.Certificate, ...],
) -> None:
    for chain in [(R1, *others), (*others, R1)]:
        assert kept(leaf(), *chain) == (["CN=Example R1"], "")


def test_a_root_that_signed_the_leaf_is_left_out() -> None:
    signed = leaf(issuer=certificates.root())

    assert kept(signed, ROOT) == ([], "")


def test_an_expired_cross_sign_cuts_the_path_short_and_is_named() -> None:
    end = START - 89 * DAY

    assert kept(leaf(), R1, cross_sign(start=end - DAY, lifetime=DAY)) == (
        ["CN=Example R1"],
        "certificate 3 of its chain (CN=Example Root) expired on " + when(end, NOW),
    )


def test_an_issuer_of_the_same_name_that_is_still_valid_is_taken() -> None:
    old = certificates.sign(
        "Example R1",
        issuer=certificates.root(),
        own_key=key(2),
        start=START - 90 * DAY,
        lifetime=DAY,
        extensions=[x509.BasicConstraints(ca=True, path_length=None)],
    )

    found, cut = check(
        Certificate((leaf(), old.certificate, R1), key()), [NAME], now=NOW
    )

    assert found.chain[1:] == (R1,)
    assert cut == ""


def test_a_leaf_that_no_member_of_the_chain_signed_is_a_problem() -> None:
    found, hint = problems(Certificate((leaf(), ROOT), key()))

    assert found == [not_signed(NAME, "CN=Example Root")]
    assert "Report this to the CA" in hint


def test_a_signature_by_another_key_of_the_same_name_is_a_problem() -> None:
    namesake = certificates.authority("Example R1\x1b[31m", own_key=key(8)).certificate

    found, _ = problems(Certificate((leaf(), namesake), key()))

    assert found == [not_signed(NAME, r"CN=Example R1\x1b[31m")]


def test_a_signature_that_was_tampered_with_is_a_problem() -> None:
    tampered = certificates.with_bytes(leaf(), b"mail.example", b"evil.example")

    found, _ = problems(Certificate((tampered, R1), key()), "evil.example.test")

    assert found == [not_signed("evil.example.test", "CN=Example R1")]


@pytest.mark.parametrize(
    "extensions",
    [
        [],
        [x509.BasicConstraints(ca=False, path_length=None)],
        [x509.UnrecognizedExtension(ExtensionOID.BASIC_CONSTRAINTS, b"junk")],
    ],
)
def test_an_issuer_that_is_no_ca_is_a_problem(
    extensions: list[x509.ExtensionType],
) -> None:
    issuer = certificates.sign("Example R1", own_key=key(2), extensions=extensions)

    found, _ = problems(Certificate((leaf(), issuer.certificate), key()))

    assert found == [
        "certificate 2 of its chain (CN=Example R1) is not a CA certificate"
    ]


def test_issuers_that_make_no_sense_are_problems() -> None:
    chain = (leaf(), with_an_unreadable_subject(), with_an_unknown_key())

    # A list is joined by the same mark as the problems are.
    found, _ = problems(Certificate(chain, key()))

    assert "; ".join(found) == not_signed(NAME, "without a subject", NAME)


def test_an_expired_certificate_is_a_problem_and_maybe_of_the_clock() -> None:
    certificate = certificates.certificate()

    check(certificate, [NAME], now=END - timedelta(seconds=1))
    found, hint = problems(certificate, now=END)

    assert found == [f"mail.example.test expired on {when(END, END)}"]
    assert hint == f"Check this machine's clock: it shows {shown(END)}."


def test_a_certificate_not_yet_valid_is_a_problem_and_maybe_of_the_clock() -> None:
    certificate = certificates.certificate()

    check(certificate, [NAME], now=START)
    early = START - timedelta(hours=3)
    found, hint = problems(certificate, now=early)

    assert found == [f"mail.example.test is not valid before {when(START, early)}"]
    assert hint == f"Check this machine's clock: it shows {shown(early)}."


def test_an_issuer_of_the_leaf_that_expired_is_a_problem_but_not_of_the_clock() -> None:
    late = START + 4000 * DAY
    fresh = leaf(start=late - DAY)

    found, hint = problems(Certificate((fresh, R1), key()), now=late)

    end = when(START + 3285 * DAY, late)
    assert found == [f"certificate 2 of its chain (CN=Example R1) expired on {end}"]
    assert hint == "Nothing was changed. Report this to the CA."


def test_all_problems_are_told_at_once() -> None:
    stranger = certificates.sign("Somebody", own_key=key(8))
    mine = leaf(["b.test"], others=[x509.IPAddress(ipaddress.ip_address("::1"))])
    certificate = Certificate((mine, stranger.certificate), key(9))
    late = START + 91 * DAY

    found, hint = problems(certificate, "a.test", now=late)

    assert found == [
        "its key is not ours",
        "it lacks a.test",
        "it also has b.test, ::1, not requested",
        not_signed("b.test", "CN=Somebody"),
        f"b.test expired on {when(END, late)}",
    ]
    assert "Check this machine's clock" in hint
