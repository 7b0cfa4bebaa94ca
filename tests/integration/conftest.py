"""Real ACME servers as fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from tests.integration import acme_servers, pebble_package, private_network
from tests.integration.acme_servers import AcmeServer
from tests.integration.pebble_package import NoPebbleError, Pebble

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put these tests last: what runs after them would run in the private network."""
    items.sort(key=lambda item: HERE in item.path.parents)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The DNS server of the tests, and whether they have the network to themselves."""

    dns: str
    why_not_private: OSError | None

    def must_be_private(self) -> None:
        """Fail the test unless port 80 and the system's name resolution are ours."""
        if self.why_not_private is not None:
            pytest.fail(
                "This server asks on port 80 and resolves names as the system does, so "
                "it needs Linux namespaces of its own, which this process did not get: "
                f"{self.why_not_private}. A container may forbid them; other threads "
                "in this process prevent them, so run tests/integration by itself.",
                pytrace=False,
            )


@pytest.fixture(scope="session")
def pebble_programs(request: pytest.FixtureRequest) -> Pebble:
    """Pebble, from Debian's archive if it is not installed."""
    cache = request.config.cache
    assert cache is not None
    try:
        return pebble_package.find(cache.mkdir("debian"))
    except NoPebbleError as exc:
        why = str(exc)
    pytest.fail(why, pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def network(
    pebble_programs: Pebble, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Network]:
    """Leave the outer network, which only fetching Pebble needs, for good."""
    folder = tmp_path_factory.mktemp("network")
    port, why_not_private = 53, None
    try:
        private_network.enter(folder)
    except OSError as exc:
        port, why_not_private = acme_servers.free_port(), exc
    with (
        pytest.MonkeyPatch.context() as patch,
        acme_servers.name_server(pebble_programs.dns, folder, port=port) as dns,
    ):
        patch.setenv("no_proxy", "*")
        yield Network(dns=dns, why_not_private=why_not_private)


class StartPebble(Protocol):
    """Start a Pebble that makes life as hard as asked; it ends with the test.

    Args:
        nonce_reject: Percentage of good nonces that are refused.
        authz_reuse: Percentage of authorizations that are reused while valid.
        alternate_roots: Number of chains offered beside the first.
        chain_length: Number of intermediate certificates.
        sleeps: Whether each validation waits up to 15 seconds.
        eab_required: Whether a new account needs EAB_KEY_ID and EAB_MAC_KEY.
    """

    def __call__(  # noqa: PLR0913 - all by name
        self,
        *,
        nonce_reject: int = 0,
        authz_reuse: int = 0,
        alternate_roots: int = 0,
        chain_length: int = 1,
        sleeps: bool = False,
        eab_required: bool = False,
    ) -> AcmeServer: ...


@pytest.fixture
def pebble(
    pebble_programs: Pebble, network: Network, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartPebble]:
    """A function that starts Pebble."""

    def start(  # noqa: PLR0913 - as the protocol says
        *,
        nonce_reject: int = 0,
        authz_reuse: int = 0,
        alternate_roots: int = 0,
        chain_length: int = 1,
        sleeps: bool = False,
        eab_required: bool = False,
    ) -> AcmeServer:
        environment = {
            "PEBBLE_WFE_NONCEREJECT": str(nonce_reject),
            "PEBBLE_AUTHZREUSE": str(authz_reuse),
            "PEBBLE_ALTERNATE_ROOTS": str(alternate_roots),
            "PEBBLE_CHAIN_LENGTH": str(chain_length),
            "PEBBLE_VA_NOSLEEP": "0" if sleeps else "1",
        }
        return running.enter_context(
            acme_servers.pebble(
                pebble_programs.server,
                tmp_path_factory.mktemp("pebble"),
                dns=network.dns,
                environment=environment,
                eab_required=eab_required,
            )
        )

    with ExitStack() as running:
        yield start


@pytest.fixture
def caddy(
    network: Network, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AcmeServer]:
    """Caddy with Smallstep's ACME server."""
    network.must_be_private()
    with acme_servers.caddy(tmp_path_factory.mktemp("caddy")) as server:
        yield server


@pytest.fixture
def acme2certifier(
    network: Network, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AcmeServer]:
    """acme2certifier, the one server here with renewal information and profiles."""
    network.must_be_private()
    with acme_servers.acme2certifier(tmp_path_factory.mktemp("a2c")) as server:
        yield server


@pytest.fixture
def bound_acme2certifier(
    network: Network, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AcmeServer]:
    """acme2certifier, where new accounts need an external account."""
    network.must_be_private()
    folder = tmp_path_factory.mktemp("a2c")
    with acme_servers.acme2certifier(folder, eab_required=True) as server:
        yield server


@pytest.fixture(params=["pebble", "caddy", "acme2certifier"])
def acme_server(request: pytest.FixtureRequest) -> AcmeServer:
    """Each of the servers in turn."""
    server: AcmeServer | StartPebble = request.getfixturevalue(request.param)
    return server if isinstance(server, AcmeServer) else server()
