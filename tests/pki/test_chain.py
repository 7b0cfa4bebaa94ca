"""What a chain is worth, seen on chains that are good, short, mixed up, and hostile."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import permutations
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.pki.chain import Chain, Ending, Roots, title, trace, unneeded
from tests import certificates
from tests.certificates import START, authority

NOW = START + timedelta(days=1)
ROOT = certificates.root().certificate
ISSUER = certificates.intermediate().certificate
LEAF = certificates.leaf()
STRANGER = certificates.authority("Example Stranger", own_key=certificates.key(7))
# One key and name, twice: a root, and the same cross-signed by an older one.
NEW_ROOT = authority("Example Root YR", own_key=certificates.key(11))
CROSS = authority(
    "Example Root YR", issuer=certificates.root(), own_key=certificates.key(11)
)
NEW_ISSUER = authority("Example YR1", issuer=NEW_ROOT, own_key=certificates.key(12))
NEW_LEAF = certificates.leaf(issuer=NEW_ISSUER)


@pytest.fixture
def roots_file(tmp_path: Path) -> Path:
    file = tmp_path / "roots.pem"
    file.write_bytes(ROOT.public_bytes(Encoding.PEM))
    return file


@pytest.fixture
def roots(roots_file: Path) -> Roots:
    return Roots(roots_file, now=NOW)


def looked_at(
    *chain: x509.Certificate, issued: Sequence[x509.Certificate] = ()
) -> Chain:
    """Judge a chain where nobody knows the root."""
    return trace(chain, Roots(now=NOW), issued)


def test_a_chain_to_a_known_root_is_trusted(roots: Roots) -> None:
    assert trace([LEAF, ISSUER], roots) == Chain(
        in_order=True, ending=Ending.ROOT, ends_at="CN=Example Root"
    )


def test_a_private_root_is_nobodys_but_the_chain_is_as_issued() -> None:
    found = looked_at(LEAF, ISSUER, issued=[LEAF, ISSUER])

    assert found.ending is Ending.AS_ISSUED
    assert found.is_complete
    assert found.as_issued
    assert found.distrust == "unable to get local issuer certificate"


def test_a_root_that_is_sent_along_is_needless() -> None:
    found = looked_at(LEAF, ISSUER, ROOT, issued=[LEAF, ISSUER])

    assert found.in_order
    assert found.ending is Ending.ROOT_SENT
    assert found.is_complete
    assert found.as_issued
    assert found.ends_at == "CN=Example Root"
    assert found.distrust == "self-signed certificate in certificate chain"


def test_a_root_that_was_issued_along_need_not_be_sent() -> None:
    found = looked_at(LEAF, ISSUER, issued=[LEAF, ISSUER, ROOT])

    assert found.ending is Ending.AS_ISSUED
    assert found.missing == ()


def test_a_missing_intermediate_is_named_if_it_was_issued(roots: Roots) -> None:
    for found in (
        looked_at(LEAF, issued=[LEAF, ISSUER]),
        trace([LEAF], roots, [LEAF, ISSUER]),
    ):
        assert found.ending is Ending.MISSING
        assert found.is_complete is False
        assert found.as_issued is False
        assert found.missing == ("CN=Example R1",)
        assert found.ends_at == "CN=Example R1"
        assert found.distrust


def test_what_is_missing_is_not_known_where_nothing_was_issued() -> None:
    found = looked_at(LEAF)

    assert found.ending is Ending.UNKNOWN
    assert found.is_complete is None
    assert found.as_issued is None
    assert found.ends_at == "CN=Example R1"


def test_a_leaf_by_the_rules_of_public_cas_lacks_its_intermediate() -> None:
    validated = "2.23.140.1.2.1"
    found = looked_at(certificates.leaf(policies=["1.2.3", validated]))

    assert found.ending is Ending.MISSING
    assert found.is_complete is False
    assert found.as_issued is None
    assert found.missing == ("CN=Example R1",)
    own = looked_at(certificates.leaf(policies=["1.2.3", "2.23.140.11"]))
    assert own.ending is Ending.UNKNOWN


def test_an_intermediate_that_is_seen_elsewhere_is_missing() -> None:
    there = trace([LEAF], Roots(now=NOW), known=[ROOT, LEAF, ISSUER])

    assert there.ending is Ending.MISSING
    assert there.missing == ("CN=Example R1",)


def test_a_private_root_that_is_seen_elsewhere_need_not_be_sent() -> None:
    signed = certificates.leaf(issuer=certificates.root())

    assert trace([signed], Roots(now=NOW), known=[ROOT]).ending is Ending.UNKNOWN


def test_a_self_signed_certificate_is_its_own_end() -> None:
    found = looked_at(STRANGER.certificate)

    assert found.in_order
    assert found.ending is Ending.SELF_SIGNED
    assert found.distrust == "self-signed certificate"


def test_a_chain_in_another_order_is_followed_and_said_to_be(roots: Roots) -> None:
    for others in permutations([ISSUER, ROOT, STRANGER.certificate]):
        found = trace([LEAF, *others], roots)

        assert not found.in_order
        assert found.ending is Ending.ROOT_SENT
        assert found.distrust == ""


def test_a_certificate_that_does_not_belong_there_is_seen(roots: Roots) -> None:
    found = trace([LEAF, ISSUER, STRANGER.certificate], roots)

    assert not found.in_order
    assert found.ending is Ending.ROOT


def test_one_that_only_bears_the_issuers_name_is_not_the_issuer() -> None:
    impostor = authority("Example R1", own_key=certificates.key(8))

    found = looked_at(LEAF, impostor.certificate)

    assert found.ending is Ending.UNKNOWN
    assert not found.in_order


def test_a_chain_cut_short_by_a_root_of_the_server_is_seen(tmp_path: Path) -> None:
    """As by Windows, when the new root is among its trusted ones (Gen Y, 2026)."""
    issued = [NEW_LEAF, NEW_ISSUER.certificate, CROSS.certificate]
    both = tmp_path / "both.pem"
    pems = [one.public_bytes(Encoding.PEM) for one in (ROOT, NEW_ROOT.certificate)]
    both.write_bytes(b"".join(pems))
    new = Roots(both, now=NOW)
    old = tmp_path / "old.pem"
    old.write_bytes(ROOT.public_bytes(Encoding.PEM))

    for chain in (issued[:2], [*issued[:2], NEW_ROOT.certificate]):
        # Who knows the new root can follow it; who does not cannot.
        found = trace(chain, new, issued)
        assert found.distrust == ""
        assert found.is_complete
        assert found.as_issued is False
        assert found.missing == ("CN=Example Root YR",)
        assert trace(chain, Roots(old, now=NOW), issued).distrust
    assert trace(issued, Roots(old, now=NOW), issued).distrust == ""


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (START - timedelta(days=1), "certificate is not yet valid"),
        (START + timedelta(days=91), "certificate has expired"),
    ],
)
def test_dates_cost_the_trust_and_not_the_root(
    now: datetime, why: str, roots_file: Path
) -> None:
    found = trace([LEAF, ISSUER], Roots(roots_file, now=now))

    assert found.ending is Ending.ROOT
    assert found.distrust.startswith(why)


def test_mozillas_roots_are_among_the_trusted() -> None:
    """Let's Encrypt's own is: whoever it signs is trusted, once it is in the list."""
    import certifi  # noqa: PLC0415

    pem = Path(certifi.where()).read_bytes()
    (isrg,) = (
        one
        for block in pem.split(b"-----END CERTIFICATE-----\n")
        if b"# Subject: CN=ISRG Root X1 " in block
        for one in x509.load_pem_x509_certificates(
            block + b"-----END CERTIFICATE-----\n"
        )
    )

    found = trace([isrg], Roots(now=NOW))

    assert found.distrust == ""
    assert found.ending is Ending.SELF_SIGNED


@pytest.mark.parametrize("content", [None, b"", b"no PEM"])
def test_a_file_without_roots_is_refused(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "roots.pem"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ValueError, match=r"roots\.pem contains no PEM certificates"):
        Roots(file, now=NOW)


# Hostile certificates


def named(text: str) -> x509.Certificate:
    """Return a self-signed certificate with this organisation."""
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, text)])
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=certificates.key().public_key(),
        serial_number=1,
        not_valid_before=START,
        not_valid_after=START + timedelta(days=1),
    )
    return builder.sign(certificates.key(), hashes.SHA256())


@pytest.mark.parametrize("part", ["subject", "issuer"])
def test_a_hostile_subject_is_shown_harmless(part: str) -> None:
    hostile = named("\x1b]0;owned\x07\r\nFrom: <root>\u202e\x9b31m")

    shown = title(hostile, "subject" if part == "subject" else "issuer")

    assert shown.isprintable()
    assert "owned" in shown
    assert trace([hostile], Roots(now=NOW)).ends_at == shown


@pytest.mark.parametrize("odd", [b"\x0c\6br\xff\xfeen", b"\x03\6\0roken"])
def test_a_subject_that_cannot_be_read_is_shown_as_a_question_mark(odd: bytes) -> None:
    broken = certificates.with_bytes(named("broken"), b"\x0c\6broken", odd)

    assert title(broken, "subject") == "?"
    assert trace([broken], Roots(now=NOW)).ends_at == "?"


def test_a_very_long_subject_is_cut() -> None:
    name = x509.Name(
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "x" * 60) for _ in range(100)
    )
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=certificates.key().public_key(),
        serial_number=1,
        not_valid_before=START,
        not_valid_after=START + timedelta(days=1),
    )
    long = builder.sign(certificates.key(), hashes.SHA256())

    assert len(title(long, "subject")) <= 300


@given(
    st.lists(
        st.sampled_from(
            [LEAF, ISSUER, ROOT, STRANGER.certificate, CROSS.certificate, NEW_LEAF]
        ),
        min_size=1,
        max_size=12,
    ),
    st.lists(st.sampled_from([LEAF, ISSUER, ROOT])),
)
def test_any_heap_of_certificates_can_be_assessd(
    chain: list[x509.Certificate], issued: list[x509.Certificate]
) -> None:
    found = trace(chain, _ROOTS, issued)

    assert found.ends_at
    assert found.in_order or len(chain) > 1


_ROOTS = Roots(now=NOW)


def test_issuers_are_needed_up_to_every_root_and_no_others() -> None:
    above = [NEW_ISSUER.certificate, NEW_ROOT.certificate, CROSS.certificate]
    every = [*above, ROOT, ISSUER]
    added = {thumbprint(one): one for one in every}
    gone = unneeded([NEW_LEAF], added, every, now=NOW)
    # The cross-signed one needs the old root, and nothing needs the other issuer.
    assert gone == [thumbprint(ISSUER)]
    assert set(unneeded([], added, every, now=NOW)) == set(added)


def test_an_expired_issuer_is_not_needed_and_what_was_there_before_is_not_named() -> (
    None
):
    end = ISSUER.not_valid_after_utc
    added = {thumbprint(ISSUER): ISSUER}
    assert unneeded([LEAF], added, [ISSUER, ROOT], now=NOW) == []
    assert unneeded([LEAF], added, [ISSUER, ROOT], now=end) == [thumbprint(ISSUER)]
    assert unneeded([], {}, [ISSUER, ROOT], now=end) == []
