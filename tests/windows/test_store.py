"""What only Windows' own store does: where things land, and whose the key is."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from letsencrypt_mdaemon.errors import ConfigError, DeployError
from letsencrypt_mdaemon.pki.certificate import (
    Certificate,
    KeyType,
    new_key,
    thumbprint,
)
from tests.certificates import certificate, root
from tests.wine import wine_differs

assert sys.platform == "win32"

import winreg  # noqa: E402 - Windows only

from letsencrypt_mdaemon.stores.windows import WindowsStore  # noqa: E402 - Windows
from letsencrypt_mdaemon.windows import crypt32, key_forms, keys  # noqa: E402
from letsencrypt_mdaemon.windows.key_access import opened  # noqa: E402
from tests.windows.machine_store import put_into_my  # noqa: E402

STORES = r"SOFTWARE\Microsoft\SystemCertificates"


@pytest.fixture
def store() -> Iterator[WindowsStore]:
    store = WindowsStore()
    before = {thumbprint(leaf) for leaf, _ in store.certificates()}
    issuers = [thumbprint(issuer) for issuer in certificate().chain[1:]]
    far = datetime.max.replace(tzinfo=UTC)
    store.remove_issuers(issuers, now=far)
    yield store
    for leaf, _ in store.certificates():
        if thumbprint(leaf) not in before:
            store.remove(thumbprint(leaf))
    store.remove_issuers(issuers, now=far)


@pytest.fixture(scope="module")
def own() -> Certificate:
    return certificate(own_key=new_key("rsa2048"))


def der(own: Certificate) -> list[bytes]:
    return [one.public_bytes(Encoding.DER) for one in own.chain]


def in_registry(store: str, digest: str) -> bytes:
    """Return what the registry keeps of a certificate; empty if nothing."""
    name = rf"{STORES}\{store}\Certificates\{digest}"
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, name) as key:
            blob: bytes = winreg.QueryValueEx(key, "Blob")[0]
            return blob
    except FileNotFoundError:
        return b""


def is_there(place: crypt32.KeyPlace) -> bool:
    """Whether its provider has a key."""
    try:
        with opened(place):
            return True
    except OSError:
        return False


def place_of(store: WindowsStore, own: Certificate) -> crypt32.KeyPlace:
    place = store.key_place(own.thumbprint)
    assert place is not None
    return place


def test_it_lands_in_the_local_machines_own_store_and_its_issuers_in_ca(
    store: WindowsStore, own: Certificate
) -> None:
    store.install(own)
    leaf, issuer = der(own)
    assert leaf in in_registry("MY", own.thumbprint)
    assert leaf in [data for data, _, _ in ssl.enum_certificates("MY")]
    assert issuer in in_registry("CA", thumbprint(own.chain[1]))
    for digest in (own.thumbprint, thumbprint(own.chain[1])):
        assert in_registry("ROOT", digest) == b""
    store.remove(own.thumbprint)
    assert in_registry("MY", own.thumbprint) == b""


def test_the_machines_key_signs_what_the_certificate_verifies(
    store: WindowsStore, own: Certificate
) -> None:
    store.install(own)
    place = place_of(store, own)
    public = own.leaf.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    signature = keys.sign(place, b"hello", public)
    public.verify(signature, b"hello", padding.PKCS1v15(), hashes.SHA256())


def test_a_csp_is_the_one_of_schannel_with_a_key_for_exchange(
    store: WindowsStore, own: Certificate
) -> None:
    store.install(own)
    place = place_of(store, own)
    assert place.provider == "Microsoft RSA SChannel Cryptographic Provider"
    assert (place.kind, place.key_spec, place.flags) == (12, 1, 0x20)
    assert place.container.startswith("letsencrypt-mdaemon-")
    shown = "Microsoft RSA SChannel Cryptographic Provider, AT_KEYEXCHANGE"
    assert store.key_provider(own.thumbprint) == shown


def test_the_key_goes_with_its_certificate(
    store: WindowsStore, own: Certificate
) -> None:
    store.install(own)
    place = place_of(store, own)
    assert is_there(place)
    store.remove(own.thumbprint)
    assert not is_there(place)
    with pytest.raises(OSError, match="CryptAcquireContext"):
        keys.sign(place, b"hello", own.leaf.public_key())


def test_a_key_that_another_certificate_uses_stays(
    store: WindowsStore, own: Certificate
) -> None:
    store.install(own)
    place = place_of(store, own)
    twin = certificate(serial=98, own_key=own.key)
    der = twin.leaf.public_bytes(Encoding.DER)
    with crypt32.created(der) as context, crypt32.opened("My") as my:
        crypt32.set_key_place(context, place)
        crypt32.add(my, context)
    store.remove(own.thumbprint)
    assert is_there(place)
    assert keys.sign(place, b"hello", own.leaf.public_key())
    store.remove(twin.thumbprint)
    assert not is_there(place)


@pytest.mark.parametrize(
    "change",
    [
        {"provider": "Vendor's HSM Provider"},  # a device: not ours to clear
        {"flags": 0},  # an account's
    ],
)
def test_a_key_that_is_not_on_this_disk_stays(
    own: Certificate, change: dict[str, Any]
) -> None:
    assert isinstance(own.key, rsa.RSAPrivateKey)
    place = keys.keep(own.key, exportable=False)
    try:
        keys.delete_unused(place._replace(**change))
        assert is_there(place)
    finally:
        keys.delete_unused(place)
    assert not is_there(place)


def test_a_key_that_cannot_be_deleted_is_a_warning(
    store: WindowsStore,
    own: Certificate,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(_: object) -> None:
        raise OSError(None, "Access is denied.", None, 5)

    store.install(own)
    place = place_of(store, own)
    with monkeypatch.context() as patch:
        patch.setattr(keys, "delete", refuse)
        store.remove(own.thumbprint)
    assert f"Could not delete the private key {place.container}" in caplog.text
    keys.delete(place)


def test_a_failed_import_leaves_no_key(
    store: WindowsStore, own: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(None, "Access is denied.", None, 5)

    made, keep = [], keys.keep

    def kept(key: rsa.RSAPrivateKey, *, exportable: bool) -> crypt32.KeyPlace:
        made.append(keep(key, exportable=exportable))
        assert is_there(made[0])
        return made[0]

    monkeypatch.setattr(keys, "keep", kept)
    monkeypatch.setattr(crypt32, "add", refuse)
    with pytest.raises(DeployError, match="Access is denied"):
        store.install(own)
    assert [is_there(place) for place in made] == [False]


def test_one_that_gets_our_name_leaves_no_second_key(
    store: WindowsStore, own: Certificate
) -> None:
    store.install(own)
    place = place_of(store, own)
    data = own.leaf.public_bytes(Encoding.DER)
    with crypt32.created(data) as context:
        crypt32.set_key_place(context, place)
        crypt32.set_friendly_name(context, "by hand")
        with (
            crypt32.opened("My", provider=crypt32.PHYSICAL) as my,
            crypt32.found(my, own.thumbprint) as there,
        ):
            assert there is not None
            crypt32.delete(there)
        with crypt32.opened("My") as my:
            crypt32.add(my, context)
    store.install(own)
    assert [name for leaf, name in store.certificates() if leaf == own.leaf] == [
        own.friendly_name
    ]
    assert not is_there(place)
    assert is_there(place_of(store, own))


def test_issuers_that_we_added_go_when_nothing_needs_them(
    store: WindowsStore, own: Certificate
) -> None:
    issuer = thumbprint(own.chain[1])
    now = own.leaf.not_valid_before_utc
    assert store.install(own) == [issuer]
    assert store.install(own) == []
    assert store.remove_issuers([issuer], now=now) == []
    store.remove(own.thumbprint)
    assert store.remove_issuers([], now=now) == []
    assert in_registry("CA", issuer)
    assert store.remove_issuers([issuer], now=now) == [issuer]
    assert in_registry("CA", issuer) == b""
    assert store.remove_issuers([issuer], now=now) == [issuer]


def test_an_expired_issuer_goes_though_its_certificate_is_there(
    store: WindowsStore, own: Certificate
) -> None:
    (issuer,) = store.install(own)
    late = own.chain[1].not_valid_after_utc
    assert store.remove_issuers([issuer], now=late) == [issuer]
    assert store.chain(own.thumbprint) == own.chain[:1]


def test_one_that_is_there_without_a_key_gets_it_and_our_name(
    store: WindowsStore, own: Certificate
) -> None:
    put_into_my(own.leaf, "by hand")
    assert store.key_place(own.thumbprint) is None
    store.install(own)
    assert store.key_place(own.thumbprint) is not None
    names = [name for leaf, name in store.certificates() if leaf == own.leaf]
    assert names == [own.friendly_name]


def test_one_that_cannot_be_imported_leaves_what_is_there(
    store: WindowsStore, own: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_into_my(own.leaf, "by hand")
    monkeypatch.setattr(key_forms, "rsa_blob", lambda _: b"no key")
    with pytest.raises(DeployError, match=r"Could not write .*LocalMachine\\My"):
        store.install(own)
    names = [name for leaf, name in store.certificates() if leaf == own.leaf]
    assert names == ["by hand"]


def test_a_wrong_password_is_an_error_even_if_windows_gives_no_code(
    own: Certificate,
) -> None:
    pfx = key_forms.pfx(own, "right")
    with (
        pytest.raises(OSError, match="PFXImportCertStore"),
        crypt32.imported(pfx, "wrong", crypt32.MACHINE_KEYS),
    ):
        pass


def test_without_rights_it_says_to_run_as_an_administrator(
    store: WindowsStore, own: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(None, "Access is denied.", None, 5)

    monkeypatch.setattr(crypt32, "opened", refuse)
    monkeypatch.setattr(crypt32, "existing", refuse)
    for act in (
        lambda: store.install(own),
        lambda: store.remove(own.thumbprint),
        lambda: list(store.certificates()),
    ):
        with pytest.raises((DeployError, ConfigError)) as caught:
            act()
        assert "Access is denied" in caught.value.message
        assert "administrator" in caught.value.hint


def test_the_system_and_its_administrators_can_read_the_key_and_are_shown(
    store: WindowsStore, own: Certificate
) -> None:
    store.install(own)
    readers = store.key_readers(own.thumbprint)
    assert readers is not None
    assert {r"NT AUTHORITY\SYSTEM", r"BUILTIN\Administrators"} <= set(readers)


def test_a_key_leaves_the_store_only_if_it_was_to(
    store: WindowsStore, own: Certificate
) -> None:
    store.install(own)
    assert store.key(own.thumbprint) is None


@wine_differs("Wine looks for it among the account's keys (0x80090016)")
def test_the_key_can_be_used_by_way_of_the_certificate(
    store: WindowsStore, own: Certificate
) -> None:
    store.install(own)
    assert store.is_key_usable(own.thumbprint)


@pytest.mark.parametrize(
    ("storage", "kind"), [("cng", "rsa2048"), ("csp", "p256"), ("cng", "p384")]
)
@wine_differs("Wine's crypt32 knows no CNG, and so no ECDSA keys")
def test_cng_keeps_keys(store: WindowsStore, storage: str, kind: KeyType) -> None:
    own = certificate(serial=99, own_key=new_key(kind))
    WindowsStore(storage=storage).install(own)
    place = place_of(store, own)
    assert place.kind == 0
    assert store.is_key_usable(own.thumbprint)


def test_there_is_no_key_to_use_of_what_is_not_there(store: WindowsStore) -> None:
    assert not store.is_key_usable("00" * 20)
    assert store.key_place("00" * 20) is None
    assert store.key_readers("no hex") is None


def test_of_two_issuers_with_a_key_the_newer_one_is_in_the_chain(
    store: WindowsStore, own: Certificate
) -> None:
    store.install(own)
    name, key = own.chain[1].subject, root().key
    start = own.chain[1].not_valid_before_utc
    older = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(root().certificate.subject)
        .public_key(own.chain[1].public_key())
        .serial_number(5)
        .not_valid_before(start - timedelta(days=9))
        .not_valid_after(own.chain[1].not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    added = thumbprint(older)
    with crypt32.opened("CA") as issuers:
        crypt32.add_encoded(issuers, older.public_bytes(Encoding.DER))
    try:
        assert store.chain(own.thumbprint) == own.chain
    finally:
        store.remove_issuers([added], now=datetime.max.replace(tzinfo=UTC))
    assert in_registry("CA", added) == b""
