"""What every store does, and what the one of PEM files does besides."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12

from letsencrypt_mdaemon.errors import ConfigError, DeployError
from letsencrypt_mdaemon.pki.certificate import (
    OURS,
    KeyType,
    key_pem,
    new_key,
    thumbprint,
)
from letsencrypt_mdaemon.renewal.store import Store
from letsencrypt_mdaemon.stores.pem import PemStore
from tests.certificates import START, certificate, leaf
from tests.fakes import (
    MemoryStore,
    contents,
    full_disk,
    huge,
    odd_version,
    private,
    read_only,
    unreadable,
    watched,
)
from tests.wine import expect_difference, is_wine

# Wine's store takes no other keys; the tests of keys have all kinds.
ONE = certificate(own_key=new_key("rsa2048"))
TWO = certificate(start=START + timedelta(days=60), own_key=new_key("rsa2048"))
THEIRS = leaf(["theirs.example.org"])
PASSWORD = b"correct horse"
OTHER_KEY = key_pem(new_key("p256"))
ED25519_KEY, LOCKED_KEY = (
    key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    for key, encryption in (
        (Ed25519PrivateKey.generate(), NoEncryption()),
        (new_key("p256"), BestAvailableEncryption(PASSWORD)),
    )
)
FILES = {"cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"}


@dataclass(frozen=True, slots=True)
class Shelf:
    """A store of some kind, and how somebody else puts a certificate there."""

    store: Store
    put: Callable[[x509.Certificate, str], None]

    def names(self) -> dict[str, str]:
        """Return the friendly names by thumbprint."""
        found = list(self.store.certificates())
        names = {thumbprint(leaf): name for leaf, name in found}
        assert len(names) == len(found), "one of them is there twice"
        return names


def in_memory(_: Path) -> Shelf:
    store = MemoryStore()
    return Shelf(store, store.put)


def in_pem_files(folder: Path) -> Shelf:
    def put(leaf: x509.Certificate, name: str) -> None:
        (folder / name).mkdir(parents=True)
        (folder / name / "cert.pem").write_bytes(leaf.public_bytes(Encoding.PEM))

    return Shelf(PemStore(folder), put)


KINDS = [in_memory, in_pem_files]
WINDOWS: tuple[type, ...] = ()

if sys.platform == "win32":
    from letsencrypt_mdaemon.stores.windows import WindowsStore
    from tests.windows.machine_store import put_into_my

    def in_windows(_: Path) -> Shelf:
        return Shelf(WindowsStore(exportable=True), put_into_my)

    KINDS.append(in_windows)
    WINDOWS = (WindowsStore,)


@pytest.fixture(params=KINDS)
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shelf]:
    make: Callable[[Path], Shelf] = request.param
    shelf = make(tmp_path / "certificates")
    yield shelf
    for digest in shelf.names():
        shelf.store.remove(digest)


# Every store


def test_a_new_store_is_empty(shelf: Shelf) -> None:
    assert shelf.names() == {}


def test_what_is_installed_is_there_under_its_friendly_name(shelf: Shelf) -> None:
    shelf.store.install(ONE)
    shelf.store.install(TWO)
    assert shelf.names() == {
        ONE.thumbprint: ONE.friendly_name,
        TWO.thumbprint: TWO.friendly_name,
    }
    assert ONE.friendly_name != TWO.friendly_name
    assert all(name.startswith(f"{OURS} ") for name in shelf.names().values())


def test_what_is_installed_twice_is_there_once(shelf: Shelf) -> None:
    shelf.store.install(ONE)
    shelf.store.install(ONE)
    assert shelf.names() == {ONE.thumbprint: ONE.friendly_name}


def test_what_somebody_else_put_there_is_found_by_the_name_they_gave_it(
    shelf: Shelf,
) -> None:
    shelf.put(THEIRS, "Grüße, by hand")
    shelf.store.install(ONE)
    assert shelf.names()[thumbprint(THEIRS)] == "Grüße, by hand"


def test_what_is_removed_is_gone_and_nothing_else(shelf: Shelf) -> None:
    shelf.put(THEIRS, "theirs")
    shelf.store.install(ONE)
    shelf.store.install(TWO)
    shelf.store.remove(ONE.thumbprint)
    assert shelf.names().keys() == {TWO.thumbprint, thumbprint(THEIRS)}
    shelf.store.remove(thumbprint(THEIRS))
    assert shelf.names().keys() == {TWO.thumbprint}


def test_what_is_not_there_may_be_removed(shelf: Shelf) -> None:
    shelf.store.remove(ONE.thumbprint)
    shelf.store.install(TWO)
    shelf.store.remove(ONE.thumbprint)
    shelf.store.remove("")
    assert shelf.names().keys() == {TWO.thumbprint}


def test_what_was_removed_may_be_installed_again(shelf: Shelf) -> None:
    for _ in range(2):
        shelf.store.install(ONE)
        shelf.store.remove(ONE.thumbprint)
    shelf.store.install(ONE)
    assert shelf.names() == {ONE.thumbprint: ONE.friendly_name}


def test_the_chain_of_what_is_installed_is_given_back(shelf: Shelf) -> None:
    shelf.store.install(ONE)
    assert len(ONE.chain) > 1
    assert shelf.store.chain(ONE.thumbprint) == ONE.chain
    assert shelf.store.chain(TWO.thumbprint) == ()


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa2048"])
def test_the_key_of_what_is_installed_is_given_back(
    request: pytest.FixtureRequest, shelf: Shelf, kind: KeyType
) -> None:
    if "in_windows" in request.node.name:
        expect_difference(request, "Wine exports no PFX, and imports none of ECDSA")
    own = certificate(serial=7, own_key=new_key(kind))
    shelf.store.install(ONE)
    shelf.store.install(own)
    found = shelf.store.key(own.thumbprint)
    assert found is not None
    assert key_pem(found) == own.key_pem


def test_the_usable_keys_are_those_that_are_usable_one_by_one(shelf: Shelf) -> None:
    shelf.put(THEIRS, "no key")
    shelf.store.install(ONE)

    found = set(shelf.store.usable_keys())

    assert found == {each for each in shelf.names() if shelf.store.is_key_usable(each)}
    assert thumbprint(THEIRS) not in found
    if not is_wine() or not isinstance(shelf.store, WINDOWS):
        assert found == {ONE.thumbprint}


def test_there_is_no_key_of_what_is_not_there_or_came_without_one(shelf: Shelf) -> None:
    shelf.put(THEIRS, "theirs")
    shelf.store.install(ONE)
    assert shelf.store.key(thumbprint(THEIRS)) is None
    assert shelf.store.key(TWO.thumbprint) is None
    assert shelf.store.key("") is None
    shelf.store.remove(ONE.thumbprint)
    assert shelf.store.key(ONE.thumbprint) is None


# PEM files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "certificates"


@pytest.fixture
def store(folder: Path) -> PemStore:
    return PemStore(folder)


def names(store: PemStore) -> list[str]:
    return [name for _, name in store.certificates()]


def test_a_certificate_is_a_folder_of_pem_files(store: PemStore, folder: Path) -> None:
    store.install(ONE)
    name = ONE.friendly_name
    assert contents(folder) == {
        f"{name}/cert.pem": ONE.cert_pem,
        f"{name}/chain.pem": ONE.chain_pem,
        f"{name}/fullchain.pem": ONE.fullchain_pem,
        f"{name}/privkey.pem": ONE.key_pem,
    }


def test_another_process_finds_it(store: PemStore, folder: Path) -> None:
    store.install(ONE)
    assert list(PemStore(folder).certificates()) == [(ONE.leaf, ONE.friendly_name)]


@pytest.mark.parametrize("password", [None, b""])
def test_there_is_no_pkcs12_file_without_a_password(
    folder: Path, password: bytes | None
) -> None:
    PemStore(folder, pfx_password=password).install(ONE)
    assert {path.name for path in (folder / ONE.friendly_name).iterdir()} == FILES


def test_a_pkcs12_file_is_encrypted_by_the_password(folder: Path) -> None:
    store = PemStore(folder, pfx_password=PASSWORD)
    assert PASSWORD.decode() not in repr(store)
    store.install(ONE)
    data = (folder / ONE.friendly_name / "cert.pfx").read_bytes()
    loaded = load_pkcs12(data, PASSWORD)
    assert loaded.cert is not None
    assert loaded.cert.certificate == ONE.leaf
    assert [item.certificate for item in loaded.additional_certs] == [ONE.chain[1]]
    assert loaded.key is not None
    with pytest.raises(ValueError, match="password"):
        load_pkcs12(data, b"wrong")


def test_a_pkcs12_file_that_is_wanted_later_is_added(
    store: PemStore, folder: Path
) -> None:
    store.install(ONE)
    PemStore(folder, pfx_password=PASSWORD).install(ONE)
    files = {path.name for path in (folder / ONE.friendly_name).iterdir()}
    assert files == FILES | {"cert.pfx"}


def test_files_and_folders_are_private_from_the_first_byte(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir(mode=0o700)
    store = PemStore(tmp_path / "new" / "certificates", pfx_password=PASSWORD)
    with private(tmp_path / "new"):
        store.install(ONE)
        store.install(TWO)
        store.remove(ONE.thumbprint)
    assert names(store) == [TWO.friendly_name]


@pytest.mark.parametrize("password", [None, PASSWORD])
def test_what_is_complete_is_not_written_again(
    folder: Path, password: bytes | None
) -> None:
    store = PemStore(folder, pfx_password=password)
    store.install(ONE)
    with read_only(folder):
        store.install(ONE)


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"x")])
def test_what_is_damaged_is_mended(
    store: PemStore, folder: Path, name: str, damage: Callable[[Path], object]
) -> None:
    store.install(ONE)
    before = contents(folder)
    damage(folder / ONE.friendly_name / name)
    store.install(ONE)
    assert contents(folder) == before
    assert [path.name for path in folder.iterdir()] == [ONE.friendly_name]


# What else may lie there


def test_a_certificate_with_its_chain_in_one_file_is_found(
    store: PemStore, folder: Path
) -> None:
    (folder / "theirs").mkdir(parents=True)
    (folder / "theirs" / "fullchain.pem").write_bytes(ONE.fullchain_pem)
    assert list(store.certificates()) == [(ONE.leaf, "theirs")]


def make_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_bytes(b"a file where a folder is looked for")


@pytest.mark.parametrize(
    "make",
    [
        Path.mkdir,
        huge,
        make_file,
        lambda path: None,  # noqa: ARG005 - an empty folder
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"nonsense"),
        lambda path: path.write_bytes(ONE.key_pem),
        lambda path: path.write_bytes(ONE.cert_pem[:200]),
        lambda path: path.write_bytes(odd_version(THEIRS)),
    ],
)
def test_what_is_no_certificate_is_left_out_and_left_alone(
    store: PemStore, folder: Path, make: Callable[[Path], object]
) -> None:
    (folder / "odd").mkdir(parents=True)
    make(folder / "odd" / "cert.pem")
    before = contents(folder)
    store.install(ONE)
    assert names(store) == [ONE.friendly_name]
    store.remove(ONE.thumbprint)
    assert contents(folder) == before


def test_a_file_beside_the_folders_is_passed_by_without_a_word(
    store: PemStore, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.install(ONE)
    (folder / "README").write_bytes(b"theirs")
    assert names(store) == [ONE.friendly_name]
    assert caplog.messages == []


def test_a_certificate_that_cannot_be_read_is_left_out_and_said(
    store: PemStore, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.install(ONE)
    store.install(TWO)
    path = folder / ONE.friendly_name / "cert.pem"
    (folder / ONE.friendly_name / "fullchain.pem").unlink()
    with unreadable(path):
        assert names(store) == [TWO.friendly_name]
    assert f"Skipping {path}: " in caplog.text


def test_a_store_that_is_a_file_is_an_error(store: PemStore, folder: Path) -> None:
    folder.write_bytes(b"theirs")
    with pytest.raises(ConfigError, match="Could not read") as caught:
        list(store.certificates())
    assert str(folder) in caught.value.message
    assert caught.value.hint
    with pytest.raises(DeployError, match=r"Could not put .* into the store"):
        store.install(ONE)
    assert folder.read_bytes() == b"theirs"


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"nonsense"),
        lambda path: path.write_bytes(ONE.cert_pem),
        lambda path: path.write_bytes(OTHER_KEY),
        lambda path: path.write_bytes(ONE.key_pem[:80]),
        lambda path: path.write_bytes(LOCKED_KEY),
        lambda path: path.write_bytes(ED25519_KEY),
    ],
)
def test_a_key_that_is_missing_or_another_is_not_given_away(
    store: PemStore, folder: Path, damage: Callable[[Path], object]
) -> None:
    store.install(ONE)
    damage(folder / ONE.friendly_name / "privkey.pem")
    assert store.key(ONE.thumbprint) is None


def test_a_key_that_cannot_be_read_is_not_given_away(
    store: PemStore, folder: Path
) -> None:
    store.install(ONE)
    with unreadable(folder / ONE.friendly_name / "privkey.pem"):
        assert store.key(ONE.thumbprint) is None
    assert store.key(ONE.thumbprint) is not None


# After a kill


class KilledError(BaseException):
    """The end of the process, at which nothing more can be done."""


def killed_after(folder: Path, changes: int, act: Callable[[], object]) -> bool:
    """Act until so many changes are made; return whether that was too early."""
    done = 0

    def kill(_: Path) -> None:
        nonlocal done
        done += 1
        if done > changes:
            raise KilledError

    try:
        with watched(folder, kill):
            act()
    except KilledError:
        return True
    return False


def test_a_run_killed_while_it_installs_leaves_all_or_nothing(
    store: PemStore, folder: Path
) -> None:
    folder.mkdir()
    steps = 0
    while killed_after(folder, steps, lambda: store.install(ONE)):
        found = [path for path in folder.iterdir() if path.name == ONE.friendly_name]
        assert bool(found) == bool(names(store))
        for path in found:
            assert {item.name for item in path.iterdir()} == FILES
        store.install(TWO)
        assert {path.name for path in folder.iterdir()} <= {
            ONE.friendly_name,
            TWO.friendly_name,
        }
        store.remove(ONE.thumbprint)
        store.remove(TWO.thumbprint)
        steps += 1
    assert steps > 4
    assert names(store) == [ONE.friendly_name]


def test_a_run_killed_while_it_mends_loses_nothing_that_the_next_cannot_mend(
    store: PemStore, folder: Path
) -> None:
    store.install(ONE)
    complete = contents(folder)
    steps = 0
    damaged = folder / ONE.friendly_name / "chain.pem"
    damaged.unlink()
    while killed_after(folder, steps, lambda: store.install(ONE)):
        store.install(ONE)
        assert contents(folder) == complete
        damaged.unlink()
        steps += 1
    assert steps >= 8


def test_a_run_killed_while_it_removes_leaves_all_or_nothing(
    store: PemStore, folder: Path
) -> None:
    steps = 0
    store.install(ONE)
    while killed_after(folder, steps, lambda: store.remove(ONE.thumbprint)):
        assert names(store) in ([], [ONE.friendly_name])
        store.install(ONE)
        assert [path.name for path in folder.iterdir()] == [ONE.friendly_name]
        steps += 1
    assert steps > 1
    assert list(folder.iterdir()) == []


def test_whatever_is_left_under_our_unfinished_names_is_removed(
    store: PemStore, folder: Path, tmp_path: Path
) -> None:
    (folder / ".unfinished x" / "deep").mkdir(parents=True)
    (folder / ".unfinished y").write_bytes(b"a file")
    (folder / ".unfinished z").symlink_to(tmp_path)
    assert names(store) == []
    store.install(ONE)
    assert [path.name for path in folder.iterdir()] == [ONE.friendly_name]
    assert tmp_path.is_dir()


# Disks that fail


def test_a_full_disk_is_an_error_and_nothing_half_there(
    store: PemStore, folder: Path
) -> None:
    folder.mkdir()
    with (
        full_disk(folder),
        pytest.raises(DeployError, match=r"Could not put .* into the store") as caught,
    ):
        store.install(ONE)
    assert str(folder) in caught.value.message
    assert "Make room" in caught.value.hint
    assert list(folder.iterdir()) == []


def fails_at(folder: Path, step: int, act: Callable[[], object]) -> bool:
    """Whether it fails if one change in the folder is refused."""
    try:
        with read_only(folder, allowed=step, refused=1):
            act()
    except DeployError:
        return True
    return False


def finished(folder: Path) -> dict[str, bytes]:
    """Return what is in the store, without what the next run sweeps up."""
    return {name: data for name, data in contents(folder).items() if name[0] != "."}


STEPS = 40
"""More than there are, so that each of them is refused once."""


def test_a_failure_at_any_step_of_installing_leaves_nothing_half_there(
    store: PemStore, folder: Path
) -> None:
    store.install(TWO)
    before = contents(folder)
    store.install(ONE)
    complete = contents(folder)
    failures = 0
    for step in range(STEPS):
        store.remove(ONE.thumbprint)
        failed = fails_at(folder, step, lambda: store.install(ONE))
        assert contents(folder) == (before if failed else complete)
        assert len(list(folder.iterdir())) == 2 - failed
        failures += failed
    assert 4 < failures < STEPS  # on Windows a step is fewer calls


def test_a_failure_at_any_step_of_mending_keeps_what_was_there(
    store: PemStore, folder: Path
) -> None:
    store.install(ONE)
    complete = contents(folder)
    lacking = folder / ONE.friendly_name / "chain.pem"
    failures = 0
    for step in range(STEPS):
        lacking.unlink(missing_ok=True)
        before = finished(folder)
        failed = fails_at(folder, step, lambda: store.install(ONE))
        assert finished(folder) == (before if failed else complete)
        failures += failed
    assert 4 < failures < STEPS  # on Windows a step is fewer calls


def test_what_cannot_be_removed_is_an_error_and_stays(
    store: PemStore, folder: Path
) -> None:
    store.install(ONE)
    before = contents(folder)
    with (
        read_only(folder),
        pytest.raises(DeployError, match="Could not remove") as caught,
    ):
        store.remove(ONE.thumbprint)
    assert str(folder / ONE.friendly_name) in caught.value.message
    assert caught.value.hint
    assert contents(folder) == before
