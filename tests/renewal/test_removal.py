"""What a verified certificate leaves behind is removed, and nothing that is used."""

from __future__ import annotations

import pytest

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.pki.certificate import public_key_hash, thumbprint
from letsencrypt_mdaemon.state.memory import utc
from tests.certificates import certificate
from tests.renewal.test_run import DAY, Scene, new, scene, warnings

__all__ = ["scene"]


def issuer() -> str:
    """Return the thumbprint of the CA's only issuer."""
    return thumbprint(certificate().chain[1])


def test_an_issuer_that_was_added_is_remembered(scene: Scene) -> None:
    scene.renew()
    assert scene.parts.state.load().intermediates == (issuer(),)
    scene.now += 80 * DAY
    scene.renew(remove_old=True)
    assert scene.parts.state.load().intermediates == (issuer(),)
    assert issuer() in scene.store.issuers


def test_an_issuer_that_was_there_is_not_ours_to_remove(scene: Scene) -> None:
    scene.store.issuers[issuer()] = certificate().chain[1]
    scene.renew()
    assert scene.parts.state.load().intermediates == ()


def test_an_issuer_that_is_needed_no_more_is_removed_and_forgotten(
    scene: Scene,
) -> None:
    stranger = certificate(serial=77).leaf  # issued nothing
    scene.store.issuers[thumbprint(stranger)] = stranger
    scene.parts.state.save(
        scene.parts.state.load()._replace(intermediates=(thumbprint(stranger),))
    )
    scene.renew()
    assert list(scene.store.issuers) == [issuer()]
    assert scene.parts.state.load().intermediates == (issuer(),)


def test_a_compromised_certificate_goes_once_the_ca_was_told_whatever_the_settings(
    scene: Scene,
) -> None:
    first = new(scene.renew())
    leaf = scene.store.kept[first][0]
    memory = scene.parts.state.load()
    gone = (*memory.compromised, public_key_hash(leaf))
    memory = memory._replace(compromised=gone)
    scene.parts.state.save(memory)
    second = new(scene.renew())
    assert first in scene.store.keys  # the CA may still ask for it
    issued = memory.find(first)
    assert issued is not None
    memory = memory.remember(issued._replace(revoked=utc(scene.now)))
    scene.parts.state.save(memory)
    scene.now += 80 * DAY
    assert scene.renew().removed == (first,)
    assert first not in scene.store.keys
    assert second in scene.store.keys


def test_issuers_that_cannot_be_removed_are_a_warning(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> list[str]:
        raise DeployError("Access is denied.", hint="Run as an administrator.")

    scene.store.remove_issuers = refuse  # type: ignore[method-assign]
    assert scene.renew().renewed
    assert any("Access is denied" in line for line in warnings(caplog))
    assert scene.parts.state.load().intermediates == (issuer(),)


def test_whoever_puts_a_certificate_into_use_lets_the_server_read_its_key(
    scene: Scene,
) -> None:
    assert scene.store.let_in == [new(scene.renew())]
