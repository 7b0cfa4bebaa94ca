"""What a CA's CRL proves about a certificate, and what it does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import pytest
from cryptography import x509

from letsencrypt_mdaemon.acme import crl
from letsencrypt_mdaemon.errors import AcmeError
from letsencrypt_mdaemon.state.memory import Revocation
from tests.certificates import START, Signed, authority, intermediate, key, root, sign
from tests.crls import crl as crl_of
from tests.crls import serving

DAY = timedelta(days=1)
NOW = START + 3 * DAY
REVOKED = Revocation(START + DAY)


def certificate(url: str, serial: int = 7) -> x509.Certificate:
    """Return a certificate that names a CRL."""
    point = x509.DistributionPoint([x509.UniformResourceIdentifier(url)], *[None] * 3)
    points = x509.CRLDistributionPoints([point])
    return sign(
        "mail", issuer=intermediate(), serial=serial, extensions=[points]
    ).certificate


def scope(url: str, **parts: object) -> x509.IssuingDistributionPoint:
    """Return of what a CRL is a part."""
    default = {
        "full_name": [x509.UniformResourceIdentifier(url)],
        "relative_name": None,
        "only_contains_user_certs": True,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    return x509.IssuingDistributionPoint(**{**default, **parts})  # type: ignore[arg-type]


def made(
    *serials: int,
    signer: Signed | None = None,
    issuer: Signed | None = None,
    at: datetime = START + 2 * DAY,
    until: datetime | None = None,
    extensions: Sequence[x509.ExtensionType] = (),
) -> bytes:
    """Return a CRL of the intermediate that lists some serial numbers."""
    issuer = issuer or intermediate()
    signing = (signer or issuer).key
    return crl_of(
        issuer.certificate, signing, serials, at=at, until=until, extensions=extensions
    )


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


def asked(answer: Callable[[str], bytes], status: int = 200) -> Revocation | None:
    with serving(answer, status) as url:
        leaf = certificate(url)
        return crl.revocation(leaf, intermediate().certificate, now=NOW)


def test_a_certificate_that_is_listed_is_revoked_and_another_is_not() -> None:
    assert asked(lambda _: made(3, 7, 9)) == REVOKED
    assert asked(lambda _: made(3, 9)) is None


@pytest.mark.parametrize("reason", x509.ReasonFlags)
def test_only_one_reason_says_that_the_key_is_compromised(
    reason: x509.ReasonFlags,
) -> None:
    issuer = intermediate()
    data = crl_of(
        issuer.certificate, issuer.key, [3, 7], at=START + 2 * DAY, reason=reason
    )
    found = asked(lambda _: data)

    is_compromised = reason is x509.ReasonFlags.key_compromise
    assert found == REVOKED._replace(is_compromised=is_compromised)


def test_a_part_of_a_list_counts_only_for_the_certificates_that_name_it() -> None:
    assert asked(lambda url: made(7, extensions=[scope(url)])) == REVOKED
    with pytest.raises(AcmeError, match="is for other certificates"):
        asked(lambda url: made(extensions=[scope(f"{url}2")]))


STRANGER = authority("Example R1", own_key=key(5))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda _: made(signer=STRANGER), "is not signed by the issuer"),
        (lambda _: made(issuer=root()), "is not signed by the issuer"),
        (lambda _: made(until=NOW), "is out of date"),
        (lambda _: made(at=NOW + 2 * DAY), "is from the future"),
        (
            lambda url: made(extensions=[scope(url, indirect_crl=True)]),
            "is for other certificates",
        ),
        (
            lambda _: made(extensions=[x509.DeltaCRLIndicator(1)]),
            "is for other certificates",
        ),
        (lambda _: b"<html>Not here</html>", "returned no CRL"),
        (lambda _: b"", "returned no CRL"),
    ],
)
def test_a_list_that_proves_nothing_is_refused_with_why(
    answer: Callable[[str], bytes], said: str
) -> None:
    with pytest.raises(AcmeError, match=said):
        asked(answer)


def test_another_status_than_200_is_no_list() -> None:
    with pytest.raises(AcmeError, match="HTTP 503"):
        asked(lambda _: made(7), status=503)


def test_a_list_is_read_within_a_limit_of_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(lambda _: made(7)) as url:
        monkeypatch.setattr(crl, "MAX_CRL_BYTES", 100)
        with pytest.raises(AcmeError, match="sent more than 100 bytes"):
            crl.fetch(url)


def test_nobody_there_is_an_error_and_the_second_list_is_asked() -> None:
    issuer = intermediate().certificate
    with pytest.raises(AcmeError, match="Could not reach"):
        crl.revocation(certificate("http://127.0.0.1:1/1.crl"), issuer, now=NOW)
    with serving(lambda _: made(7)) as url:
        names = [
            x509.UniformResourceIdentifier(one)
            for one in ("ldap://ca.test/", "http://127.0.0.1:1/1.crl", url)
        ]
        points = [x509.DistributionPoint([name], *[None] * 3) for name in names]
        leaf = sign(
            "mail",
            issuer=intermediate(),
            serial=7,
            extensions=[x509.CRLDistributionPoints(points)],
        ).certificate

        assert crl.revocation(leaf, issuer, now=NOW) == REVOKED
