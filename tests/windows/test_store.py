"""What only Windows' own store does: where things land, and whose the key is."""

from __future__ import annotations

import ctypes
import ssl
import sys
from collections.abc import Iterator
from ctypes import POINTER, byref, c_size_t, wintypes

import pytest
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
from tests.certificates import certificate
from tests.wine import wine_differs

assert sys.platform == "win32"

import winreg  # noqa: E402 - Windows only

from letsencrypt_mdaemon.stores.windows import WindowsStore  # noqa: E402 - Windows
from letsencrypt_mdaemon.windows import crypt32  # noqa: E402
from tests.windows.machine_store import put_into_my  # noqa: E402

STORES = r"SOFTWARE\Microsoft\SystemCertificates"
CALG_SHA_256 = 0x800C


@pytest.fixture
def store() -> Iterator[WindowsStore]:
    store = WindowsStore()
    before = {thumbprint(leaf) for leaf, _ in store.certificates()}
    yield store
    for leaf, _ in store.certificates():
        if thumbprint(leaf) not in before:
            store.remove(thumbprint(leaf))


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
    place = store.key_place(own.thumbprint)
    assert place is not None
    advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)
    acquire = advapi32.CryptAcquireContextW
    acquire.argtypes = (
        *(POINTER(c_size_t), wintypes.LPCWSTR, wintypes.LPCWSTR),
        *(wintypes.DWORD, wintypes.DWORD),
    )
    create = advapi32.CryptCreateHash
    create.argtypes = (
        *(c_size_t, wintypes.UINT, c_size_t, wintypes.DWORD, POINTER(c_size_t)),
    )
    feed = advapi32.CryptHashData
    feed.argtypes = (c_size_t, ctypes.c_char_p, wintypes.DWORD, wintypes.DWORD)
    sign = advapi32.CryptSignHashW
    sign.argtypes = (
        *(c_size_t, wintypes.DWORD, wintypes.LPCWSTR, wintypes.DWORD),
        *(ctypes.c_char_p, POINTER(wintypes.DWORD)),
    )
    key, digest, size = c_size_t(), c_size_t(), wintypes.DWORD(512)
    # PROV_RSA_AES signs SHA-256; of the machine's key set, without a question.
    assert acquire(byref(key), place.container, None, 24, 0x20 | 0x40)
    assert create(key, CALG_SHA_256, 0, 0, byref(digest))
    assert feed(digest, b"hello", 5, 0)
    signature = ctypes.create_string_buffer(size.value)
    assert sign(digest, 1, None, 0, signature, byref(size))
    public = own.leaf.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    public.verify(
        signature.raw[: size.value][::-1], b"hello", padding.PKCS1v15(), hashes.SHA256()
    )


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
    monkeypatch.setattr("letsencrypt_mdaemon.stores.windows._pfx", lambda *_: b"no PFX")
    with pytest.raises(DeployError, match=r"Could not write .*LocalMachine\\My"):
        store.install(own)
    names = [name for leaf, name in store.certificates() if leaf == own.leaf]
    assert names == ["by hand"]


def test_a_wrong_password_is_an_error_even_if_windows_gives_no_code(
    own: Certificate,
) -> None:
    from letsencrypt_mdaemon.stores import windows  # noqa: PLC0415

    pfx = windows._pfx(own, "right")  # noqa: SLF001 - there is no other way to it
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


@wine_differs("Wine forgets that the key is the machine's (0x8009200B)")
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
    place = store.key_place(own.thumbprint)
    assert place is not None
    assert place.kind == 0
    assert store.is_key_usable(own.thumbprint)


def test_there_is_no_key_to_use_of_what_is_not_there(store: WindowsStore) -> None:
    assert not store.is_key_usable("00" * 20)
    assert store.key_place("00" * 20) is None
    assert store.key_readers("no hex") is None
