"""Orders that an earlier run left open: resumed if they still serve."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from letsencrypt_mdaemon.acme.transport import ATTEMPTS
from letsencrypt_mdaemon.pki.certificate import key_pem
from letsencrypt_mdaemon.sandbox.ca.messages import LOST, Problem, html
from tests.scene import NAME, OTHER, Scene, scene_in, showing


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with scene_in(tmp_path) as scene:
        yield scene


@pytest.fixture
def left_open(scene: Scene) -> Scene:
    """Return a scene where a run ended before it could say that a token is there."""
    scene.ca.faults.before("challenge", html(500), times=ATTEMPTS)
    scene.failing()
    assert scene.state.order() is not None
    scene.ca.requests.clear()
    return scene


def test_a_pending_order_is_resumed_with_its_key(left_open: Scene) -> None:
    left = left_open.state.order()

    certificate = left_open.obtain()

    assert left is not None
    assert left.key_pem == key_pem(certificate.key).decode()
    assert left_open.count("newOrder") == (0,)


def expire(scene: Scene) -> None:
    scene.order["expires"] = "2001-01-01T00:00:00Z"


def disappear(scene: Scene) -> None:
    gone = Problem("malformed", "There is no such order", 404)
    scene.ca.faults.before("order", gone, times=1)


def belong_to_another(scene: Scene) -> None:
    refusal = Problem("unauthorized", "Not yours", 403)
    scene.ca.faults.before("order", refusal, times=1)


def make_no_sense(scene: Scene) -> None:
    scene.ca.faults.after("order", lambda _: html(200), times=1)


def be_in_a_strange_state(scene: Scene) -> None:
    scene.ca.faults.after("order", showing(status="\x1b[2J"), times=1)


def break_the_ca(scene: Scene) -> None:
    scene.ca.faults.before("order", html(500), times=ATTEMPTS)


@pytest.mark.parametrize(
    "event",
    [
        expire,
        disappear,
        belong_to_another,
        make_no_sense,
        be_in_a_strange_state,
        break_the_ca,
    ],
)
def test_an_order_that_cannot_be_resumed_makes_way_for_a_new_one(
    left_open: Scene, caplog: pytest.LogCaptureFixture, event: Callable[[Scene], None]
) -> None:
    caplog.set_level("INFO")
    event(left_open)

    assert left_open.obtain().names == (NAME,)

    assert left_open.count("newOrder") == (1,)
    (said,) = [
        line for line in caplog.messages if "Could not resume the open order" in line
    ]
    assert said.isprintable()


def test_an_order_that_cannot_be_read_now_is_kept_until_there_is_a_new_one(
    left_open: Scene,
) -> None:
    left_open.ca.faults.before("order|newOrder", LOST, times=2 * ATTEMPTS)
    left_open.failing()

    assert left_open.obtain().names == (NAME,)

    assert len(left_open.ca.orders) == 1


@pytest.mark.parametrize("options", [{"key_type": "p384"}, {"names": (NAME, OTHER)}])
def test_an_order_for_something_else_is_not_resumed(
    left_open: Scene, options: dict[str, Any]
) -> None:
    names = options.pop("names", (NAME,))

    assert left_open.obtain(*names, **options).names == names

    assert left_open.count("newOrder") == (1,)


def test_an_order_for_the_same_names_in_another_order_is_resumed(scene: Scene) -> None:
    scene.ca.faults.before("challenge", html(500), times=2 * ATTEMPTS)
    scene.failing(NAME, OTHER)

    assert set(scene.obtain(OTHER, NAME).names) == {NAME, OTHER}

    assert scene.count("newOrder") == (1,)


def test_an_order_whose_key_cannot_be_read_is_not_resumed(left_open: Scene) -> None:
    file = left_open.state.folder / "order.json"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("PRIVATE KEY", "PUBLIC KEY"), encoding="utf-8")

    assert left_open.obtain().names == (NAME,)

    assert left_open.count("newOrder", "order") == (1, 1)


def test_an_order_that_disappears_on_the_way_makes_way_for_a_new_one(
    scene: Scene,
) -> None:
    gone = Problem("malformed", "There is no such order", 404)
    scene.ca.faults.before("order", gone, times=2)

    assert "There is no such order" in str(scene.failing())
    assert scene.obtain().names == (NAME,)

    assert scene.count("newOrder") == (2,)


def test_an_order_that_expires_on_the_way_is_told_and_not_resumed(
    scene: Scene,
) -> None:
    scene.ca.faults.before("challenge", lambda _: expire(scene), times=1)

    assert "made the order invalid: no reason given" in str(scene.failing())

    assert scene.state.order() is None
    assert scene.obtain().names == (NAME,)
