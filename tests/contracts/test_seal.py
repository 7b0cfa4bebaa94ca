"""What every seal does: a fake one everywhere, DPAPI on Windows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from letsencrypt_mdaemon.state.folder import SEALED, CaState, Seal, State
from letsencrypt_mdaemon.state.memory import Account, OpenOrder
from letsencrypt_mdaemon.state.pins import NextKey
from tests.certificates import START, certificate
from tests.fakes import contents

SECRET = b"-----BEGIN PRIVATE KEY-----"


class Reversing:
    """Reverses what it seals: `state.Seal`."""

    def close(self, data: bytes) -> bytes:
        """Return it from behind, marked."""
        return b"<" + data[::-1]

    def open(self, data: bytes) -> bytes:
        """Return it from the front."""
        if data[:1] != b"<":
            raise ValueError("it cannot be decrypted")
        return data[:0:-1]


SEALS: list[type[Seal]] = [Reversing]
if sys.platform == "win32":
    from letsencrypt_mdaemon.windows.security import MachineSeal

    SEALS.append(MachineSeal)


@pytest.fixture(params=SEALS)
def seal(request: pytest.FixtureRequest) -> Seal:
    made: Seal = request.param()
    return made


@pytest.mark.parametrize("data", [b"", SECRET, bytes(range(256)) * 100])
def test_what_is_closed_can_be_opened_and_shows_nothing(
    seal: Seal, data: bytes
) -> None:
    closed = seal.close(data)
    assert seal.open(closed) == data
    assert not data or data not in closed


@pytest.mark.parametrize("data", [b"", b"nonsense", SECRET])
def test_what_it_has_not_closed_is_refused(seal: Seal, data: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be decrypted"):
        seal.open(data)


ACCOUNT = Account({"kty": "EC", "d": "secret"}, "https://ca.test/1")
ORDER = OpenOrder("https://ca.test/2", "https://ca.test/3", ("a.test",), "p256", "key")
PENDING = certificate()


def fill(state: CaState) -> None:
    """Keep all that has a private key."""
    state.save(ACCOUNT)
    state.keep(PENDING)
    state.save(ORDER)


def pending_pem(state: CaState) -> bytes:
    """Return the pending certificate's key and chain."""
    pending = state.pending()
    assert pending is not None
    return pending.key_pem + pending.fullchain_pem


def test_every_file_with_a_private_key_is_sealed(seal: Seal, tmp_path: Path) -> None:
    state = CaState(tmp_path, seal=seal)
    fill(state)
    for name, data in contents(tmp_path).items():
        assert data.startswith(SEALED), name
        for secret in (b"PRIVATE KEY", b"kty", b"key_pem"):
            assert secret not in data, name
    assert state.account() == ACCOUNT
    assert state.order() == ORDER
    assert pending_pem(state) == PENDING.key_pem + PENDING.fullchain_pem


def test_the_next_key_is_sealed(seal: Seal, tmp_path: Path) -> None:
    state, key = State(tmp_path, seal=seal), NextKey(SECRET.decode(), "p256", START)
    state.save(key)
    data = (tmp_path / "next-key.json").read_bytes()
    assert data.startswith(SEALED)
    assert SECRET not in data
    assert state.next_key() == key


def test_what_was_kept_in_plain_is_read_and_sealed_when_it_is_next_written(
    seal: Seal, tmp_path: Path
) -> None:
    fill(CaState(tmp_path))
    state = CaState(tmp_path, seal=seal)
    assert state.account() == ACCOUNT
    assert pending_pem(state) == PENDING.key_pem + PENDING.fullchain_pem
    state.save(ACCOUNT)
    assert (tmp_path / "account.json").read_bytes().startswith(SEALED)


@pytest.mark.parametrize("here", ["with a seal", "without one"])
def test_what_another_machine_sealed_is_set_aside_and_said(
    seal: Seal, here: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "account.json").write_bytes(SEALED + b"by another machine")
    state = CaState(tmp_path, seal=seal if here == "with a seal" else None)
    assert state.account() is None
    assert "account.json is damaged" in caplog.text
    (aside,) = tmp_path.iterdir()
    assert aside.name.startswith("account.json.damaged")
