"""The servers do what other tests rely on, asked by the plain acme package."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from acme import client, crypto_util, messages
from acme.challenges import HTTP01
from acme.standalone import HTTP01RequestHandler, HTTP01Server
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from tests.integration import acme_servers
from tests.integration.acme_servers import EAB_KEY_ID, EAB_MAC_KEY, AcmeServer
from tests.integration.conftest import StartPebble
from tests.integration.pebble_package import Pebble

NAMES = ["autodiscover.example.test", "mail.example.test"]


def test_each_server_issues_for_names_that_show_their_token(
    acme_server: AcmeServer,
) -> None:
    acme = account(acme_server)

    chain = x509.load_pem_x509_certificates(
        obtain(acme, acme_server).fullchain_pem.encode()
    )

    names = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert sorted(names.value.get_values_for_type(x509.DNSName)) == NAMES
    root = x509.load_pem_x509_certificate(acme_server.root.read_bytes())
    for certificate, issuer in pairwise([*(one for one in chain if one != root), root]):
        certificate.verify_directly_issued_by(issuer)


def test_each_server_refuses_names_that_show_no_token(acme_server: AcmeServer) -> None:
    acme = account(acme_server)
    order = acme.new_order(signing_request())

    answer(acme, order)

    with pytest.raises(messages.Error):
        acme.begin_finalization(order)


def test_pebble_asks_for_an_external_account_on_demand(pebble: StartPebble) -> None:
    server = pebble(eab_required=True)

    with pytest.raises(messages.Error, match="externalAccountRequired"):
        account(server)
    assert account(server, external=True).net.account is not None


def test_pebble_refuses_good_nonces_on_demand(pebble: StartPebble) -> None:
    with pytest.raises(messages.Error, match="badNonce"):
        account(pebble(nonce_reject=100))


def test_pebble_reuses_valid_authorizations_on_demand(pebble: StartPebble) -> None:
    server = pebble(authz_reuse=100)
    acme = account(server)
    obtain(acme, server)

    again = acme.new_order(signing_request())

    assert {one.body.status for one in again.authorizations} == {messages.STATUS_VALID}


def test_pebble_offers_longer_and_alternate_chains_on_demand(
    pebble: StartPebble,
) -> None:
    server = pebble(chain_length=3, alternate_roots=2)

    order = obtain(account(server), server)

    assert order.fullchain_pem.count("BEGIN CERTIFICATE") == 4
    assert len(order.alternative_fullchains_pem) == 2


def test_acme2certifier_suggests_a_renewal_window(acme2certifier: AcmeServer) -> None:
    acme = account(acme2certifier)
    chain = obtain(acme, acme2certifier).fullchain_pem.encode()

    due, _ = acme.renewal_time(chain)

    leaf = x509.load_pem_x509_certificate(chain)
    assert due is not None
    assert leaf.not_valid_before_utc < due < leaf.not_valid_after_utc


def test_a_server_ends_with_its_block(pebble_programs: Pebble, tmp_path: Path) -> None:
    port = acme_servers.free_port()

    with acme_servers.name_server(pebble_programs.dns, tmp_path, port=port):
        assert is_listening(port)
    assert not is_listening(port)


def test_a_server_ends_with_a_process_that_is_killed(
    pebble_programs: Pebble, tmp_path: Path
) -> None:
    port = acme_servers.free_port()
    program = f"""if True:
        import pathlib, sys
        from tests.integration import acme_servers
        server, folder = map(pathlib.Path, sys.argv[1:])
        with acme_servers.name_server(server, folder, port={port}):
            print("ready", flush=True)
            sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", program, pebble_programs.dns, tmp_path],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert is_listening(port)
        process.kill()

    deadline = time.monotonic() + acme_servers.STOP_SECONDS
    while is_listening(port):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def account(server: AcmeServer, *, external: bool = False) -> client.ClientV2:
    """Return a client with a new account."""
    key = JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
    # The type of verify_ssl is too narrow: requests takes a path as well.
    network = client.ClientNetwork(
        key,
        alg=ES256,
        verify_ssl=str(server.ca_bundle),  # type: ignore[arg-type]
    )
    directory = client.ClientV2.get_directory(server.directory_url, network)
    acme = client.ClientV2(directory, network)
    binding = (
        messages.ExternalAccountBinding.from_data(
            key.public_key(), EAB_KEY_ID, EAB_MAC_KEY, directory
        )
        if external
        else None
    )
    acme.new_account(
        messages.NewRegistration.from_data(
            email="admin@example.test",
            external_account_binding=binding,
            terms_of_service_agreed=True,
        )
    )
    return acme


def obtain(acme: client.ClientV2, server: AcmeServer) -> messages.OrderResource:
    """Return a finalized order for NAMES."""
    order = acme.new_order(signing_request())
    with showing_tokens(acme, order, server.http_port):
        answer(acme, order)
        deadline = datetime.now() + timedelta(seconds=60)  # noqa: DTZ005 - as acme asks
        order = acme.poll_authorizations(order, deadline)
    return acme.finalize_order(order, deadline, fetch_alternative_chains=True)


def answer(acme: client.ClientV2, order: messages.OrderResource) -> None:
    """Tell the server to look for the tokens."""
    for challenge in http_challenges(order):
        acme.answer_challenge(challenge, challenge.response(acme.net.key))


def http_challenges(order: messages.OrderResource) -> list[messages.ChallengeBody]:
    return [
        challenge
        for authorization in order.authorizations
        for challenge in authorization.body.challenges
        if isinstance(challenge.chall, HTTP01)
    ]


@contextmanager
def showing_tokens(
    acme: client.ClientV2, order: messages.OrderResource, port: int
) -> Iterator[None]:
    """Serve the tokens of an order."""
    resources = {
        HTTP01RequestHandler.HTTP01Resource(
            challenge.chall, *challenge.response_and_validation(acme.net.key)
        )
        for challenge in http_challenges(order)
    }
    with HTTP01Server((acme_servers.HOST, port), resources) as web:
        thread = threading.Thread(target=web.serve_forever, args=[0.01])
        thread.start()
        try:
            yield
        finally:
            web.shutdown()
            thread.join()


def signing_request() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return crypto_util.make_csr(pem, NAMES)


def is_listening(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex((acme_servers.HOST, port)) == 0
