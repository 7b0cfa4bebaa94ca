"""The whole command against ACME servers that others wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from tests.integration.acme_servers import AcmeServer
from tests.integration.conftest import StartPebble
from tests.program import HOST_NAME, at, beside_sandbox

ALTERNATES = "imap.example.test,pop.example.test"


def _options(server: AcmeServer) -> list[str]:
    # One of the CAs wants a contact.
    contact = ["--contact", "postmaster@example.test"]
    return [*at(server.directory_url, server.ca_bundle), *contact]


def _leads_to_root(chain: list[x509.Certificate], root: Path) -> bool:
    top = x509.load_pem_x509_certificate(root.read_bytes())
    for child, parent in zip(chain, [*chain[1:], top], strict=True):
        if child != top:
            child.verify_directly_issued_by(parent)
    return True


def test_a_certificate_is_issued_bound_and_not_due_afterwards(
    acme_server: AcmeServer, tmp_path: Path
) -> None:
    with beside_sandbox(
        tmp_path / "MDaemon", http_port=acme_server.http_port
    ) as program:
        program.options += _options(acme_server)

        first = program.renew("--alternate-host-names", ALTERNATES)

        assert first.exit_code == 0, first.messages
        certificate = first.report["certificate"]
        assert set(certificate["names"]) == {HOST_NAME, *ALTERNATES.split(",")}
        assert program.bound() == {certificate["thumbprint"]}
        assert first.report["reloaded"] == ["RELOADCACHE.SEM", "RESTARTWC.SEM"]
        assert program.tokens() == []
        (new,) = program.layout.certificates.glob("letsencrypt-mdaemon *")
        chain = x509.load_pem_x509_certificates((new / "fullchain.pem").read_bytes())
        assert _leads_to_root(chain, acme_server.root)

        second = program.renew("--alternate-host-names", ALTERNATES)

        assert second.exit_code == 0, second.messages
        assert not second.report["renewed"]
        assert program.bound() == {certificate["thumbprint"]}
        assert len(list(program.layout.certificates.glob("letsencrypt-mdaemon *"))) == 1


def test_a_certificate_is_replaced_by_another_when_forced(
    acme_server: AcmeServer, tmp_path: Path
) -> None:
    with beside_sandbox(
        tmp_path / "MDaemon", http_port=acme_server.http_port, tls=True
    ) as program:
        program.server.reloads["RELOADCACHE.SEM"] = ("mail", "webmail", "admin")
        program.options += _options(acme_server)
        first = program.renew("--key-type", "p256")
        assert first.exit_code == 0, first.messages

        second = program.renew(
            "--key-type", "p256", "--force", "--remove-old-certificates"
        )

        assert second.exit_code == 0, second.messages
        assert second.report["removed"] == [first.report["certificate"]["thumbprint"]]
        assert program.bound() == {second.report["certificate"]["thumbprint"]}


def test_a_name_that_is_not_served_fails_with_the_words_of_the_ca(
    acme_server: AcmeServer, tmp_path: Path
) -> None:
    with beside_sandbox(
        tmp_path / "MDaemon", http_port=acme_server.http_port
    ) as program:
        program.options += _options(acme_server)
        before = program.snapshot()
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()

        ran = program.renew(
            *("--webroot", str(elsewhere), "--validation-timeout", "30"),
            *("--to", "postmaster@example.test"),
        )

        assert ran.exit_code == 4, ran.messages
        assert list(ran.report["error"]["names"]) == [HOST_NAME]
        assert f"http://{HOST_NAME}/.well-known/acme-challenge/" in ran.messages
        program.server.wait_for(lambda: program.server.delivered)
        mail = program.server.delivered[0].read_text("ascii")
        assert HOST_NAME in mail
        after = program.snapshot()
        assert {
            k: v for k, v in after.items() if not k.startswith("delivered")
        } == before
        assert list(elsewhere.rglob("*")) == []


@pytest.mark.parametrize("percent", [50, 90])
def test_rejected_nonces_do_not_matter(
    percent: int, pebble: StartPebble, tmp_path: Path
) -> None:
    server = pebble(nonce_reject=percent)
    with beside_sandbox(tmp_path / "MDaemon", http_port=server.http_port) as program:
        program.options += _options(server)

        ran = program.renew("--alternate-host-names", ALTERNATES)

        assert ran.exit_code == 0, ran.messages


def test_a_ca_that_takes_its_time_is_waited_for(
    pebble: StartPebble, tmp_path: Path
) -> None:
    server = pebble(sleeps=True, nonce_reject=5)
    with beside_sandbox(tmp_path / "MDaemon", http_port=server.http_port) as program:
        program.options += _options(server)

        ran = program.renew("--alternate-host-names", ALTERNATES)

        assert ran.exit_code == 0, ran.messages


def test_names_that_the_ca_knows_already_need_no_token(
    pebble: StartPebble, tmp_path: Path
) -> None:
    server = pebble(authz_reuse=100)
    with beside_sandbox(tmp_path / "MDaemon", http_port=server.http_port) as program:
        program.options += _options(server)
        assert program.renew().exit_code == 0
        fetched = len(program.server.requests)

        ran = program.renew("--force")

        assert ran.exit_code == 0, ran.messages
        assert len(program.server.requests) == fetched


def test_a_longer_chain_is_kept_whole(pebble: StartPebble, tmp_path: Path) -> None:
    server = pebble(chain_length=3)
    with beside_sandbox(tmp_path / "MDaemon", http_port=server.http_port) as program:
        program.options += _options(server)

        assert program.renew().exit_code == 0

        (new,) = program.layout.certificates.glob("letsencrypt-mdaemon *")
        chain = x509.load_pem_x509_certificates((new / "fullchain.pem").read_bytes())
        assert len(chain) == 4
        assert _leads_to_root(chain, server.root)


def test_an_account_that_the_ca_has_forgotten_is_registered_anew(
    pebble: StartPebble, tmp_path: Path
) -> None:
    server = pebble()
    with beside_sandbox(tmp_path / "MDaemon", http_port=server.http_port) as program:
        program.options += _options(server)
        assert program.renew().exit_code == 0
        (account,) = program.state.glob("*/account.json")
        text = account.read_text("utf-8")
        account.write_text(text.replace("my-account/", "my-account/gone"), "utf-8")

        ran = program.renew("--force")

        assert ran.exit_code == 0, ran.messages
