"""Profiles and chains: what the CA offers, what is preferred, what is required."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from letsencrypt_mdaemon.acme.transport import ATTEMPTS
from letsencrypt_mdaemon.errors import AcmeError
from letsencrypt_mdaemon.sandbox.ca.certificates import (
    Draft,
    PublicKey,
    authority,
    new_key,
)
from letsencrypt_mdaemon.sandbox.ca.faults import Faults
from letsencrypt_mdaemon.sandbox.ca.messages import LOST, Answer, Problem, Request, html
from tests.scene import NAME, Fault, Scene, certificate_of, scene_in, showing, without

PROFILES = {"classic": "The usual one", "tlsserver": "Without what no server needs"}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with scene_in(tmp_path, profiles=PROFILES) as scene:
        yield scene


def ordered(scene: Scene) -> list[str | None]:
    """Return the profile that each order asked for."""
    return [each.payload.get("profile") for each in scene.requests("newOrder")]


def withdraw(scene: Scene, *names: str) -> None:
    """Let the CA not offer a profile any more."""
    left = {name: PROFILES[name] for name in PROFILES if name not in names}
    scene.ca.profiles = left

    def shown(answer: Answer) -> None:
        answer.document["meta"]["profiles"] = left

    scene.ca.faults.after("directory", shown)


# Profiles (draft-aaron-acme-profiles)


@pytest.mark.parametrize(
    ("wanted", "asked"),
    [
        ((), None),
        (("tlsserver",), "tlsserver"),
        (("shortlived", "tlsserver", "classic"), "tlsserver"),
        (("shortlived",), None),
        (("TLSSERVER",), None),
    ],
)
@pytest.mark.parametrize("required", [False, True])
def test_the_first_profile_that_is_offered_is_asked_for(
    scene: Scene,
    wanted: tuple[str, ...],
    asked: str | None,
    required: bool,  # noqa: FBT001
    caplog: pytest.LogCaptureFixture,
) -> None:
    lacking = bool(wanted) and asked is None
    if lacking and required:
        error = scene.failing(profiles=wanted, require_profile=True)
        assert f"The CA offers no profile {wanted[0]}" in str(error)
        assert "it offers classic, tlsserver" in str(error)
        assert "require-profile" in error.hint
        assert ordered(scene) == []
        return

    assert scene.obtain(profiles=wanted, require_profile=required).names == (NAME,)

    assert ordered(scene) == [asked]
    assert ("The CA offers no profile" in caplog.text) == lacking


@pytest.mark.parametrize(
    "fault",
    [
        without("meta"),
        showing(meta={}),
        showing(meta=[]),
        showing(meta={"profiles": None}),
        showing(meta={"profiles": ["classic"]}),
        showing(meta={"profiles": "classic"}),
    ],
)
def test_a_ca_that_lists_no_profiles_is_asked_for_none(
    tmp_path: Path, fault: Callable[[Answer], object]
) -> None:
    with scene_in(tmp_path) as scene:
        scene.obtain()
        scene.ca.faults.after("directory", fault)

        assert scene.obtain(profiles=("classic",)).names == (NAME,)

        assert ordered(scene) == [None, None]
        error = scene.failing(profiles=("classic",), require_profile=True)
        assert "it offers none" in str(error)


def test_names_of_profiles_cannot_act_on_a_terminal(scene: Scene) -> None:
    hostile = {"\x1b[2J": "", "\u202ex": ""}
    scene.ca.faults.after("directory", showing(meta={"profiles": hostile}))

    error = scene.failing(profiles=("classic",), require_profile=True, agree_tos=False)

    assert str(error).isprintable()


def test_a_profile_that_was_withdrawn_between_runs_makes_way_for_the_next_best(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    preferred = ("tlsserver", "classic")
    scene.obtain(profiles=preferred)
    withdraw(scene, "tlsserver")
    scene.obtain(profiles=preferred)
    withdraw(scene, "tlsserver", "classic")
    scene.obtain(profiles=preferred)

    assert ordered(scene) == ["tlsserver", "classic", None]
    assert "The CA offers no profile tlsserver or classic" in caplog.text


def test_a_profile_that_is_listed_and_refused_is_left_out(scene: Scene) -> None:
    scene.ca.profiles = {"classic": ""}  # The directory is older than that.

    assert scene.obtain(profiles=("tlsserver",)).names == (NAME,)

    assert ordered(scene) == ["tlsserver", None]


def test_a_required_profile_that_is_listed_and_refused_ends_the_run(
    scene: Scene,
) -> None:
    scene.ca.profiles = {"classic": ""}

    error = scene.failing(profiles=("tlsserver",), require_profile=True)

    assert "There is no profile tlsserver (invalidProfile)" in str(error)
    assert error.hint
    assert ordered(scene) == ["tlsserver"]


def test_an_order_with_another_profile_than_required_is_not_gone_on_with(
    scene: Scene,
) -> None:
    scene.ca.faults.after("newOrder", showing(profile="classic"), times=1)

    error = scene.failing(profiles=("tlsserver",), require_profile=True)

    assert "tlsserver" in str(error)
    assert scene.count("authorization", "finalize") == (0, 0)
    assert scene.state.order() is None


def test_an_order_that_does_not_say_its_profile_is_gone_on_with(scene: Scene) -> None:
    scene.ca.faults.after("newOrder|order|finalize", without("profile"))

    certificate = scene.obtain(profiles=("tlsserver",), require_profile=True)

    assert certificate.names == (NAME,)


def test_an_order_left_open_with_another_profile_than_required_is_not_resumed(
    scene: Scene,
) -> None:
    scene.ca.faults.before("challenge", html(500), times=ATTEMPTS)
    scene.failing(profiles=("classic",))

    scene.obtain(profiles=("tlsserver",), require_profile=True)

    assert ordered(scene) == ["classic", "tlsserver"]


def test_an_order_left_open_with_a_profile_withdrawn_meanwhile_is_resumed(
    scene: Scene,
) -> None:
    scene.ca.faults.before("challenge", html(500), times=ATTEMPTS)
    scene.failing(profiles=("tlsserver",))
    withdraw(scene, "tlsserver")

    assert scene.obtain(profiles=("tlsserver",)).names == (NAME,)

    assert ordered(scene) == ["tlsserver"]


# A profile and a predecessor at once (RFC 9773, 5)

REFUSALS = [
    Problem("alreadyReplaced", "Replaced.", 409),
    Problem("malformed", "Another CA's.", 400),
    Problem("malformed", "Not found.", 404),
    Problem("unauthorized", "Not yours.", 403),
    Problem("serverInternal", "Oops.", 500),
]


def shown(request: Request) -> list[str]:
    """Return what of the two an order had."""
    return sorted(request.payload.keys() & {"profile", "replaces"})


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda each: str(each.status))
@pytest.mark.parametrize("required", [False, True])
def test_a_refused_predecessor_does_not_cost_the_profile(
    scene: Scene,
    refusal: Problem,
    required: bool,  # noqa: FBT001
) -> None:
    first = scene.obtain().leaf
    scene.ca.requests.clear()
    scene.ca.faults.before(
        "newOrder", lambda request: refusal if "replaces" in request.payload else False
    )

    scene.obtain(replaces=first, profiles=("tlsserver",), require_profile=required)

    orders = scene.requests("newOrder")
    assert shown(orders[0]) == ["profile", "replaces"]
    assert shown(orders[-1]) == ["profile"]
    assert len(orders) == (ATTEMPTS + 1 if refusal.status == 500 else 2)


@pytest.mark.parametrize("refusal", REFUSALS[:4], ids=lambda each: str(each.status))
def test_a_refused_profile_does_not_cost_the_predecessor_unless_that_is_refused_too(
    scene: Scene, refusal: Problem
) -> None:
    first = scene.obtain().leaf
    scene.ca.requests.clear()
    scene.ca.profiles = {"classic": ""}
    scene.obtain(replaces=first, profiles=("tlsserver",))
    second = scene.obtain().leaf
    scene.ca.faults.before(
        "newOrder",
        lambda request: refusal if shown(request) == ["replaces"] else False,
    )
    scene.obtain(replaces=second, profiles=("tlsserver",))

    assert [shown(each) for each in scene.requests("newOrder")] == [
        ["profile", "replaces"],
        ["replaces"],
        [],
        ["profile", "replaces"],
        ["replaces"],
        [],
    ]


def test_a_required_profile_is_refused_whatever_becomes_of_the_predecessor(
    scene: Scene,
) -> None:
    first = scene.obtain().leaf
    scene.ca.requests.clear()
    scene.ca.profiles = {"classic": ""}

    error = scene.failing(replaces=first, profiles=("tlsserver",), require_profile=True)

    assert "invalidProfile" in str(error)
    assert len(scene.requests("newOrder")) == 1


# Alternate chains (RFC 8555, 7.4.2)


@pytest.fixture
def forked(tmp_path: Path) -> Iterator[Scene]:
    """A scene whose CA offers two other chains."""
    with scene_in(tmp_path, alternates=2) as scene:
        yield scene


def root_of(scene: Scene, **options: Any) -> str:  # noqa: ANN401
    """Obtain a certificate, and return which root its chain leads to."""
    top = scene.obtain(**options).chain[-1]
    (root,) = [each for each in scene.ca.roots if each.subject == top.issuer]
    top.verify_directly_issued_by(root)
    return root.subject.rfc4514_string().removeprefix("CN=")


@pytest.mark.parametrize(
    ("wanted", "got", "fetched"),
    [
        ("", "Sandbox Root 0", 1),
        ("Sandbox Root 0", "Sandbox Root 0", 1),
        ("Sandbox Intermediate", "Sandbox Root 0", 1),
        ("Sandbox Root 2", "Sandbox Root 2", 3),
        ("sandbox root 1", "Sandbox Root 1", 3),
    ],
)
def test_the_chain_is_the_one_preferred(
    forked: Scene,
    wanted: str,
    got: str,
    fetched: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert root_of(forked, preferred_chain=wanted) == got

    assert len(forked.requests("certificate")) <= fetched
    assert "preferred-chain" not in caplog.text


@pytest.mark.parametrize("wanted", ["Nobody", "Sandbox", "Root 1", "CN=Sandbox Root 1"])
def test_a_chain_that_is_not_offered_is_warned_of_and_the_first_used(
    forked: Scene, wanted: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert root_of(forked, preferred_chain=wanted) == "Sandbox Root 0"

    assert f"no chain that leads to {wanted} (preferred-chain)" in caplog.text


def test_a_chain_with_a_malformed_name_leads_nowhere(
    forked: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    def spoil(answer: Answer) -> Answer:
        der = answer.chain[0].public_bytes(Encoding.DER)
        name = b"Sandbox Intermediate"
        assert der.count(name) == 1
        spoilt = x509.load_der_x509_certificate(der.replace(name, b"\xff" * len(name)))
        pem = spoilt.public_bytes(Encoding.PEM)
        return Answer(200, headers=answer.headers, body=pem)

    forked.ca.faults.after("certificate", spoil)

    assert len(forked.obtain(preferred_chain="Nobody").chain) == 1
    assert "no chain that leads to Nobody" in caplog.text


def test_links_to_other_chains_may_be_relative(forked: Scene) -> None:
    def shorten(answer: Answer) -> None:
        links = answer.headers["Link"]
        base = forked.ca.directory_url.partition("/acme/")[0]
        assert base in links
        answer.headers["Link"] = links.replace(base, "")

    forked.ca.faults.after("certificate", shorten)

    assert root_of(forked, preferred_chain="Sandbox Root 2") == "Sandbox Root 2"


def other_leaf(answer: Answer) -> None:
    answer.chain[0] = certificate_of(1, b"somebody else's key")


def with_a_leap(answer: Answer) -> None:
    answer.chain[1:] = [certificate_of(1, None)]


def nothing(answer: Answer) -> Answer:
    return Answer(200, headers=answer.headers, body=b"\n")


@pytest.mark.parametrize(
    "fault",
    [
        lambda _: Problem("malformed", "None.", 404),
        lambda _: html(404),
        lambda _: html(503),
        lambda _: LOST,
        lambda _: html(200),
        nothing,
        other_leaf,
        with_a_leap,
    ],
)
def test_another_chain_that_cannot_be_used_costs_no_certificate(
    tmp_path: Path,
    fault: Callable[[Answer], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with scene_in(tmp_path, alternates=1) as scene:
        first: list[Answer] = []

        def spoil(answer: Answer) -> object:
            first.append(answer)
            return fault(answer) if len(first) > 1 else None

        scene.ca.faults.after("certificate", spoil)

        assert root_of(scene, preferred_chain="Sandbox Root 1") == "Sandbox Root 0"

    assert "no chain that leads to Sandbox Root 1" in caplog.text
    assert len(first) > 1


def chain_of(scene: Scene, number: int, *above: x509.Certificate) -> Fault:
    """Return a fault: the chain below one root also has other members."""

    def fault(answer: Answer) -> None:
        if answer.chain[1] == scene.ca.intermediates[number]:
            answer.chain += above

    return fault


def cross_sign(root: x509.Certificate, *, expired: bool) -> x509.Certificate:
    """Return a root as another root signs it."""
    signer, now = new_key(), datetime.now(UTC)
    days = timedelta(days=-1 if expired else 1)
    return Draft(
        common_name=root.subject.rfc4514_string().removeprefix("CN="),
        key=cast("PublicKey", root.public_key()),
        issuer=authority("Old Root", now, signer),
        signer=signer,
        not_before=now - timedelta(days=2),
        not_after=now + days,
        is_ca=True,
    ).sign()


def test_a_cross_sign_is_kept_for_clients_without_the_new_root(
    forked: Scene,
) -> None:
    above = cross_sign(forked.ca.root, expired=False)
    forked.ca.faults.after("certificate", chain_of(forked, 0, above))

    assert forked.obtain().chain[2:] == (above,)

    assert forked.count("certificate") == (1,)


def test_another_chain_is_tried_before_one_with_an_expired_cross_sign(
    forked: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    above = cross_sign(forked.ca.root, expired=True)
    forked.ca.faults.after("certificate", chain_of(forked, 0, above))

    assert root_of(forked) in {"Sandbox Root 1", "Sandbox Root 2"}

    assert "CN=Sandbox Root 0" not in caplog.text


def test_a_chain_with_an_expired_cross_sign_is_used_up_to_it_if_there_is_no_other(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    above = cross_sign(scene.ca.root, expired=True)
    scene.ca.faults.after("certificate", chain_of(scene, 0, above))

    assert root_of(scene) == "Sandbox Root 0"

    assert "certificate 3 of its chain (CN=Sandbox Root 0) expired on" in caplog.text


def test_another_chain_is_tried_if_the_first_cannot_be_used(forked: Scene) -> None:
    forked.ca.faults.after("certificate", with_a_leap, times=1)

    assert root_of(forked) in {"Sandbox Root 1", "Sandbox Root 2"}


@pytest.mark.parametrize(
    "link",
    [
        '<https://[bad>;rel="alternate"',
        '<//[::1>;rel="alternate"',
        "<>",
        "nonsense",
        '<http://127.0.0.1:1/x>;rel="alternate"',
        '<file:///etc/passwd>;rel="alternate"',
        '<x>;rel="alternative"',
        "<x>;rel",
        ";;;,,,<",
    ],
)
def test_a_link_that_makes_no_sense_costs_no_certificate(
    forked: Scene, link: str
) -> None:
    def spoil(answer: Answer) -> None:
        answer.headers["Link"] = link

    forked.ca.faults.after("certificate", spoil, times=1)

    assert root_of(forked, preferred_chain="Sandbox Root 2") == "Sandbox Root 0"


def test_a_ca_with_very_many_chains_is_not_asked_for_all_of_them(
    forked: Scene,
) -> None:
    def many(answer: Answer) -> None:
        path = urlsplit(forked.ca.directory_url).path
        answer.headers["Link"] = ",".join([f'<{path}>;rel="alternate"'] * 1000)

    forked.ca.faults.after("certificate", many, times=1)

    assert root_of(forked, preferred_chain="Nobody") == "Sandbox Root 0"

    assert len(forked.requests("directory")) < 20


# What is issued is counted


def test_a_certificate_that_is_fetched_by_a_later_run_is_counted_once(
    scene: Scene,
) -> None:
    for _ in range(2):
        scene.ca.faults.before("certificate", html(503), times=ATTEMPTS)
        with pytest.raises(AcmeError) as caught:
            scene.obtain()
        assert not caught.value.spent

    scene.obtain()

    assert len(scene.ca.issued) == 1
    (issuance,) = scene.state.ledger().issuances
    assert issuance.names == (NAME,)


def test_a_certificate_that_comes_after_the_patience_is_counted(scene: Scene) -> None:
    def late(answer: Answer) -> bool:
        if answer.document.get("status") == "valid":
            answer.document["status"] = "processing"
        return True

    scene.ca.faults.after("finalize|order", late, times=200)
    scene.failing(timeout=1.0)
    assert scene.state.ledger().issuances == ()

    scene.obtain(timeout=10_000.0)

    assert len(scene.state.ledger().issuances) == 1


@pytest.mark.parametrize(
    "fault",
    [
        lambda _: html(200),
        lambda _: html(404),
        lambda _: Problem("malformed", "None.", 404),
        other_leaf,
        with_a_leap,
    ],
)
def test_a_certificate_that_is_of_no_use_is_counted_and_told_as_spent(
    scene: Scene, fault: Callable[[Answer], object]
) -> None:
    scene.ca.faults.after("certificate", fault, times=2)
    assert scene.failing().spent
    assert scene.state.order() is None
    scene.ca.faults = Faults(validation_in_answer=True)

    scene.obtain()

    assert len(scene.ca.issued) == len(scene.state.ledger().issuances) == 2
