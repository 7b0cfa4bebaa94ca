"""The account at the CA, the certificate that comes back, and what nobody is told."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from josepy.jwk import JWKEC, JWKRSA

from letsencrypt_mdaemon.errors import AcmeError, ChallengeError, ConfigError
from letsencrypt_mdaemon.pki.certificate import KeyType, key_type
from letsencrypt_mdaemon.sandbox.ca.certificates import Draft
from letsencrypt_mdaemon.sandbox.ca.messages import LOST, Answer, Problem, Request, html
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority, Handler
from letsencrypt_mdaemon.state.memory import Account
from tests.ca_faults import processing, shifted
from tests.scene import (
    NAME,
    OTHER,
    STRANGER,
    Scene,
    certificate_of,
    scene_in,
    state_at,
)

DAY = timedelta(days=1)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with scene_in(tmp_path) as scene:
        yield scene


# The account (RFC 8555, 7.3)


def test_the_account_is_used_again_in_later_runs(scene: Scene) -> None:
    first, second = scene.obtain(), scene.obtain()

    assert first.thumbprint != second.thumbprint
    assert scene.count("newAccount") == (1,)
    assert len(scene.ca.accounts) == 1


def test_the_account_gets_the_contacts_and_the_agreement(scene: Scene) -> None:
    scene.obtain(contact=["postmaster@example.test", "admin@example.test"])

    (request,) = scene.requests("newAccount")
    assert request.payload == {
        "termsOfServiceAgreed": True,
        "contact": ["mailto:postmaster@example.test", "mailto:admin@example.test"],
    }


def contact(scene: Scene) -> list[str]:
    """Return the contact of the CA's only account."""
    (account,) = scene.ca.accounts.values()
    found: list[str] = account.document["contact"]
    return found


def test_a_changed_contact_reaches_the_ca_once(scene: Scene) -> None:
    scene.obtain(contact=["postmaster@example.test"])
    assert scene.count("account") == (0,)

    for _ in range(2):
        scene.obtain(contact=["admin@example.test"])

    assert contact(scene) == ["mailto:admin@example.test"]
    assert scene.count("account", "newAccount") == (1, 1)
    scene.obtain()
    assert contact(scene) == []


def test_an_account_that_the_ca_knows_already_gets_the_contact(scene: Scene) -> None:
    scene.obtain(contact=["postmaster@example.test"])
    account = scene.state.account()
    assert account is not None
    scene.state.save(account._replace(url="", contact=()))

    scene.obtain(contact=["admin@example.test"])
    scene.obtain(contact=["admin@example.test"])

    assert contact(scene) == ["mailto:admin@example.test"]


def test_a_new_account_key_keeps_the_contact(scene: Scene) -> None:
    contact = ["postmaster@example.test"]
    scene.obtain(contact=contact)
    scene.issuer(contact=contact).accounts.roll_over()
    scene.ca.requests.clear()

    scene.obtain(contact=contact)

    assert scene.count("account") == (0,)


def test_a_changed_contact_that_the_ca_refuses_stops_no_order(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.obtain()

    scene.obtain(contact=["a@b@c"])
    scene.obtain(contact=["a@b@c"])

    (_, said) = [line for line in caplog.messages if "Could not change" in line]
    assert "invalidContact" in said
    assert contact(scene) == []


def test_a_contact_that_the_ca_refuses_is_to_be_set_anew(scene: Scene) -> None:
    error = scene.failing(contact=["a@b@c"])

    assert "invalidContact" in str(error)
    assert "Set contact" in error.hint


def test_an_account_that_the_ca_has_lost_is_registered_anew_with_its_key(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.obtain()
    before = scene.state.account()
    scene.ca.accounts.clear()

    assert scene.obtain().names == (NAME,)

    after = scene.state.account()
    assert before is not None
    assert after is not None
    assert after.key == before.key
    assert after.url in scene.ca.accounts
    assert after.url != before.url
    assert "The CA no longer knows our account" in caplog.text


def test_an_account_that_the_ca_has_lost_takes_the_open_order_with_it(
    scene: Scene,
) -> None:
    scene.ca.faults.before("finalize", html(500), times=4)
    scene.failing()
    scene.ca.accounts.clear()

    assert scene.obtain().names == (NAME,)

    assert len(scene.ca.accounts) == 1


def test_a_deactivated_account_is_said_to_be_so_and_not_registered_anew(
    scene: Scene,
) -> None:
    scene.obtain()
    (account,) = scene.ca.accounts.values()
    account.document["status"] = "deactivated"

    error = scene.failing()

    assert "The account is deactivated (unauthorized)" in str(error)
    assert str(scene.state.folder / "account.json") in error.hint
    assert scene.count("newAccount") == (1,)


def test_a_ca_that_wants_an_external_account_is_said_to_do_so(tmp_path: Path) -> None:
    with scene_in(tmp_path, external_accounts={"kid": b"secret"}) as scene:
        with pytest.raises(ConfigError) as caught:
            scene.obtain()

        assert scene.ca.accounts == {}
    assert f"{scene.ca.directory_url} requires an external account (EAB)." in str(
        caught.value
    )
    assert "eab-kid and eab-key-file" in caught.value.hint


def test_no_account_is_made_before_the_terms_are_agreed_to(scene: Scene) -> None:
    with pytest.raises(
        ConfigError,
        match=r"not agreed to the CA's terms of service: https://ca\.test/terms",
    ) as e:
        scene.obtain(agree_tos=False)

    assert "--agree-tos" in e.value.hint
    assert e.value.exit_code == 2
    assert scene.count("newAccount", "newNonce") == (0, 0)
    assert scene.state.account() is None


def test_a_ca_without_terms_is_sent_no_agreement(scene: Scene) -> None:
    scene.ca.faults.after("directory", lambda answer: answer.document.pop("meta"))

    error = scene.failing(agree_tos=False)

    (request,) = scene.requests("newAccount")
    assert request.payload == {}
    assert "userActionRequired" in str(error)


def test_an_agreement_given_before_is_not_asked_for_again(scene: Scene) -> None:
    scene.obtain()

    assert scene.obtain(agree_tos=False).names == (NAME,)


def test_terms_that_changed_are_shown_with_the_url_where_to_agree(scene: Scene) -> None:
    scene.obtain()
    url = "https://ca.example.test/agree"
    changed = Problem("userActionRequired", "New terms.", 403, more={"instance": url})
    scene.ca.faults.before("newOrder", changed)

    error = scene.failing()

    assert f"New terms (userActionRequired) - see {url}." in str(error)
    assert "agree, and run again" in error.hint


def test_an_account_whose_making_was_not_answered_is_found_again(scene: Scene) -> None:
    scene.ca.faults.after("newAccount", LOST, times=4)
    scene.failing()

    assert scene.obtain().names == (NAME,)

    assert scene.count("newAccount") == (5,)
    assert len(scene.ca.accounts) == 1


def test_an_account_without_a_url_is_an_error(scene: Scene) -> None:
    scene.ca.faults.after("newAccount", lambda answer: answer.headers.pop("Location"))

    error = scene.failing()

    assert "registered an account but sent no URL." in str(error)


def test_an_account_url_without_a_host_is_meant_at_the_ca(scene: Scene) -> None:
    def shorten(answer: Answer) -> None:
        path = answer.headers["Location"].removeprefix("https://127.0.0.1:")
        answer.headers["Location"] = "/" + path.partition("/")[2]

    scene.ca.faults.after("newAccount|newOrder", shorten)

    assert scene.obtain().names == (NAME,)


def test_each_ca_gets_an_account_and_a_key_of_its_own(scene: Scene) -> None:
    port = scene.ca.http_port
    with CertificateAuthority(scene.folder / "other", http_port=port) as other:
        other.faults.validation_in_answer = True
        scene.obtain()
        scene.issuer(other).obtain((NAME,))
        scene.obtain()
        scene.issuer(other).obtain((NAME,))

        accounts = [state_at(scene.folder, ca).account() for ca in (scene.ca, other)]
        refused = [request for request in other.requests if not request.resource]

    first, second = accounts
    assert first is not None
    assert second is not None
    assert first.key != second.key
    assert first.url in scene.ca.accounts
    assert second.url in other.accounts
    assert len(scene.ca.accounts) == len(other.accounts) == 1
    assert refused == []


@pytest.mark.parametrize(
    "change",
    [
        {"kty": "oct", "k": "AAAA"},
        {"kty": "odd"},
        {"d": None},
        {"d": "AA", "x": "AA"},
        {"crv": "P-0"},
        {"x": "!"},
    ],
)
def test_an_account_key_that_makes_no_sense_is_replaced(
    scene: Scene, caplog: pytest.LogCaptureFixture, change: dict[str, str | None]
) -> None:
    scene.obtain()
    file = scene.state.folder / "account.json"
    document = json.loads(file.read_bytes())
    changed = {**document["key"], **change}
    document["key"] = {k: v for k, v in changed.items() if v is not None}
    file.write_text(json.dumps(document), encoding="utf-8")

    assert scene.obtain().names == (NAME,)

    assert len(scene.ca.accounts) == 2
    assert "Could not read the account key" in caplog.text


@pytest.mark.parametrize(
    "key",
    [
        JWKRSA(key=rsa.generate_private_key(public_exponent=65537, key_size=2048)),
        JWKEC(key=ec.generate_private_key(ec.SECP384R1())),
    ],
    ids=["rsa2048", "p384"],
)
def test_an_account_key_of_another_kind_is_used_as_it_is(
    scene: Scene, key: JWKRSA | JWKEC
) -> None:
    private = {name: str(value) for name, value in key.to_json().items()}
    scene.state.save(Account(private, ""))

    assert scene.obtain().names == (NAME,)

    (account,) = scene.ca.accounts.values()
    assert account.key == key.public_key()


# The certificate that comes back


@pytest.mark.parametrize("kind", ["rsa2048", "p256", "p384"])
def test_the_certificate_is_for_the_kind_of_key_asked_for(
    scene: Scene, kind: KeyType
) -> None:
    certificate = scene.obtain(NAME, OTHER, key_type=kind)

    assert key_type(certificate.leaf) == kind
    assert certificate.names == (NAME, OTHER)
    assert certificate.leaf.public_key() == certificate.key.public_key()
    assert len(certificate.chain) == 2


def drafted(**changes: object) -> Callable[[Draft], Draft]:
    return lambda draft: replace(draft, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("draft", "said"),
    [
        (drafted(key=STRANGER.public_key()), "its key is not ours"),
        (
            drafted(names=(OTHER,)),
            f"it lacks {NAME}; it also has {OTHER}, not",
        ),
        (
            drafted(names=(NAME, "a.test")),
            "it also has a.test, not requested",
        ),
        (
            drafted(names=(NAME, "10.0.0.1")),
            "it also has 10.0.0.1, not requested",
        ),
        (drafted(names=()), "it has no subjectAltName"),
        (partial(shifted, by=2 * DAY), "is not valid before"),
        (partial(shifted, by=-100 * DAY), "expired on"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_certificate_that_is_not_what_was_asked_for_is_refused(
    scene: Scene, draft: Callable[[Draft], Draft], said: str
) -> None:
    scene.ca.faults.draft = draft

    assert_refused(scene, said)


def reversed_(answer: Answer) -> None:
    answer.chain.reverse()


def first_twice(answer: Answer) -> None:
    answer.chain.insert(0, answer.chain[0])


def with_leaf_after(answer: Answer) -> None:
    answer.chain.append(answer.chain[0])


def with_a_stranger_between(answer: Answer) -> None:
    answer.chain.insert(1, certificate_of(1, None))


def with_a_stranger_after(answer: Answer) -> None:
    answer.chain.append(certificate_of(1, None))


@pytest.mark.parametrize(
    "fault",
    [
        reversed_,
        first_twice,
        with_leaf_after,
        with_a_stranger_between,
        with_a_stranger_after,
    ],
)
def test_a_chain_in_any_order_and_with_strangers_is_used_without_them(
    scene: Scene, fault: Callable[[Answer], None]
) -> None:
    scene.ca.faults.after("certificate", fault)

    certificate = scene.obtain()

    assert certificate.names == (NAME,)
    assert certificate.chain[1:] == (scene.ca.intermediates[0],)


def test_a_chain_that_lacks_a_link_is_refused(scene: Scene) -> None:
    def leap(answer: Answer) -> None:
        answer.chain[1:] = [scene.ca.root]

    scene.ca.faults.after("certificate", leap, times=1)

    assert_refused(
        scene,
        f"{NAME} is not signed by certificate 2 of its chain (CN=Sandbox Root 0)",
    )


def assert_refused(scene: Scene, said: str) -> None:
    """A run fails and keeps nothing; the next one places a new order."""
    error = scene.failing()

    assert said in str(error)
    assert "The CA returned a certificate that cannot be used" in str(error)
    assert error.hint
    assert scene.state.order() is None
    assert scene.state.pending() is None
    scene.ca.faults.draft = lambda draft: draft
    assert scene.obtain().names == (NAME,)
    assert scene.count("newOrder") == (2,)


def test_a_root_at_the_end_of_a_chain_is_left_out(scene: Scene) -> None:
    scene.ca.faults.after("certificate", lambda a: a.chain.append(scene.ca.root))

    assert scene.obtain().chain[1:] == (scene.ca.intermediates[0],)


def test_a_leaf_alone_is_taken_as_nothing_speaks_against_it(scene: Scene) -> None:
    scene.ca.faults.after("certificate", lambda answer: answer.chain.pop())

    assert len(scene.obtain().chain) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        STRANGER.private_bytes(
            ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.NoEncryption()
        ),
        certificate_of(1, None).public_bytes(ser.Encoding.DER),
    ],
    ids=["empty", "html", "nonsense", "key", "der"],
)
def test_what_is_no_chain_in_pem_is_refused(scene: Scene, body: bytes) -> None:
    scene.ca.faults.after("certificate", lambda _: Answer(200, body=body), times=1)

    error = scene.failing()

    assert "is not a certificate chain in PEM" in str(error)
    assert scene.state.order() is None
    assert scene.obtain().names == (NAME,)


# Secrets


def test_neither_keys_nor_nonces_nor_signatures_are_told_to_anybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bodies: list[bytes] = []
    nonces: list[str] = []
    answer = CertificateAuthority.answer

    def overheard(self: CertificateAuthority, *args: Any) -> Answer:  # noqa: ANN401
        said = answer(self, *args)
        bodies.append(args[-1])
        nonces.append(said.headers.get("Replay-Nonce", ""))
        return said

    monkeypatch.setattr(CertificateAuthority, "answer", overheard)
    caplog.set_level(logging.DEBUG)
    with scene_in(tmp_path) as scene:
        scene.ca.faults.nonce_rejections = 3
        scene.ca.faults.after("finalize|order", processing, times=2)
        scene.ca.faults.before("newOrder", html(503), times=1)
        scene.ca.faults.before("certificate", html(404), times=1)
        issuer = scene.issuer()
        certificate = issuer.obtain((NAME,))
        scene.state.keep(certificate)
        scene.ca.faults.before("newOrder", Problem("badNonce", "No."), times=5)
        scene.ca.faults.before("finalize", html(500), times=4)
        with pytest.raises(AcmeError) as caught:
            scene.obtain()
        scene.ca.resolve = lambda _: None
        with pytest.raises(ChallengeError) as unproven:
            scene.obtain(OTHER)
        account, order = scene.state.account(), scene.state.order()

    assert account is not None
    keys = [certificate.key_pem.decode().splitlines()[2], account.key["d"]]
    signed = [json.loads(body) for body in bodies if body]
    secrets = {*keys, *nonces, *(one["signature"] for one in signed)} - {""}
    assert len(secrets) > 30
    values = (issuer, issuer.session, certificate, account, order)
    errors = (caught.value, unproven.value, unproven.value.hint)
    told = caplog.text + "".join(map(repr, (*values, *errors)))
    assert "Ordered a certificate for" in told
    assert [secret for secret in secrets if secret in told] == []


def test_a_certificate_for_one_name_takes_eight_requests(scene: Scene) -> None:
    scene.obtain()

    def shown(request: Request) -> str:
        return f"{request.method} {request.resource}"

    assert [shown(each) for each in scene.ca.requests] == [
        "GET directory",
        "POST newAccount",
        "POST newOrder",
        "POST authorization",
        "POST challenge",
        "POST order",
        "POST finalize",
        "POST certificate",
    ]
    (order,) = scene.requests("newOrder")
    assert order.payload == {"identifiers": [{"type": "dns", "value": NAME}]}


# The clock


@pytest.mark.parametrize("wrong", [timedelta(hours=26), timedelta(days=-400)])
def test_nothing_is_ordered_by_a_clock_that_is_wrong_by_days(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, wrong: timedelta
) -> None:
    theirs = datetime.now(UTC) - wrong
    monkeypatch.setattr(
        Handler, "date_time_string", lambda *_: format_datetime(theirs, usegmt=True)
    )

    error = scene.failing()

    assert f"the CA's shows {theirs.astimezone():%Y-%m-%d %H:%M}" in str(error)
    assert "; no order was placed" in str(error)
    assert "Set the clock" in error.hint
    assert scene.count("newAccount", "newOrder") == (0, 0)


@pytest.mark.parametrize(
    "date",
    [
        *(format_datetime(datetime.now(UTC) + n * DAY, usegmt=True) for n in (1, -1)),
        *("", "yesterday", "Mon, 99 Nov 2026 00:00:00 GMT"),
    ],
    ids=["a day ahead", "a day behind", "none", "no date", "no such day"],
)
def test_a_clock_wrong_by_a_day_or_that_nobody_knows_does_not_stop_an_order(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, date: str
) -> None:
    monkeypatch.setattr(Handler, "date_time_string", lambda *_: date)

    assert scene.obtain().names == (NAME,)
