"""When the CA suggests to renew, and what a renewal replaces (RFC 9773)."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from hypothesis import example, given
from hypothesis import strategies as st

from letsencrypt_mdaemon.acme.certificate import ari_id
from letsencrypt_mdaemon.sandbox.ca.messages import LOST, Answer, Problem, html
from letsencrypt_mdaemon.state.memory import Window
from tests.scene import (
    NAME,
    STRANGER,
    Scene,
    certificate_of,
    scene_in,
)

DAY = timedelta(days=1)
HOUR = 3600.0


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with scene_in(tmp_path) as scene:
        yield scene


# The CA's advice (RFC 9773)


def window_at(scene: Scene) -> tuple[Window | None, float]:
    """Obtain a certificate, and return the CA's advice on it."""
    return scene.issuer().suggested_window(scene.obtain().leaf)


def advice(answer: object, **headers: str) -> Callable[[Answer], Answer]:
    """Return a fault: this document instead of the CA's advice."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps(answer).encode()
    return lambda _: Answer(200, headers=headers, body=body)


def test_the_window_is_the_one_that_the_ca_suggests(scene: Scene) -> None:
    certificate = scene.obtain().leaf
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    middle = certificate.not_valid_before_utc + life * 2 / 3

    window, seconds = scene.issuer().suggested_window(certificate)

    assert window is not None
    assert window.start < middle < window.end
    assert window.end - window.start == pytest.approx(life / 50, abs=2 * DAY / 86400)
    assert window.explanation_url == ""
    assert seconds == 6 * HOUR


def test_advice_is_asked_for_without_an_account(scene: Scene) -> None:
    certificate = scene.obtain().leaf
    scene.ca.requests.clear()

    scene.issuer().suggested_window(certificate)

    assert [known.method for known in scene.ca.requests] == ["GET", "GET"]


@pytest.mark.parametrize("days", [-400, -1, 1, 4000])
def test_a_window_may_be_past_or_far(scene: Scene, days: int) -> None:
    start = datetime.now(UTC).replace(microsecond=0) + days * DAY
    scene.ca.suggested_window = (start, start + DAY)

    window, _ = window_at(scene)

    assert window == Window(start=start, end=start + DAY)


def test_a_window_is_understood_in_any_time_zone(scene: Scene) -> None:
    suggested = {"start": "2027-01-01T00:30:00+02:00", "end": "2026-12-31T23:00:00.5Z"}
    scene.ca.faults.after("renewalInfo", advice({"suggestedWindow": suggested}))

    window, _ = window_at(scene)

    assert window is not None
    assert window.start == datetime(2026, 12, 31, 22, 30, tzinfo=UTC)
    assert window.end == datetime(2026, 12, 31, 23, 0, 0, 500000, tzinfo=UTC)


@pytest.mark.parametrize("length", [-1, 0])
def test_a_window_that_does_not_end_after_its_start_is_no_advice(
    scene: Scene, length: int
) -> None:
    start = datetime.now(UTC)
    scene.ca.suggested_window = (start, start + length * DAY)

    assert window_at(scene) == (None, 6 * HOUR)


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        {"suggestedWindow": None},
        {"suggestedWindow": "soon"},
        {"suggestedWindow": {"start": "2027-01-01T00:00:00Z"}},
        {"suggestedWindow": {"start": 1, "end": 2}},
        {"suggestedWindow": {"start": "soon", "end": "later"}},
        {"suggestedWindow": {"start": "2027-01-01T00:00:00", "end": "2027-01-02"}},
        {
            "suggestedWindow": {
                "start": "2027-01-01T00:00:00Z",
                "end": "9999-12-31T23:59:59-23:59",
            }
        },
    ],
)
def test_advice_that_makes_no_sense_is_none(scene: Scene, document: object) -> None:
    scene.ca.faults.after("renewalInfo", advice(document))

    assert window_at(scene) == (None, 6 * HOUR)


@pytest.mark.parametrize("fault", [html(404), html(500), html(200), LOST])
def test_a_ca_that_fails_to_give_advice_has_none(scene: Scene, fault: Answer) -> None:
    scene.ca.faults.before("renewalInfo", fault)

    assert window_at(scene) == (None, 6 * HOUR)

    assert len(scene.requests("renewalInfo")) <= 4


def test_a_certificate_that_the_ca_does_not_know_has_no_advice(scene: Scene) -> None:
    strange = certificate_of(1, b"somebody else's key")

    assert scene.issuer().suggested_window(strange) == (None, 6 * HOUR)


def test_a_ca_without_advice_is_asked_neither_for_it_nor_to_replace(
    scene: Scene,
) -> None:
    scene.ca.faults.after(
        "directory", lambda answer: answer.document.pop("renewalInfo")
    )
    first = scene.obtain().leaf

    assert scene.issuer().suggested_window(first) == (None, 24 * HOUR)
    scene.obtain(replaces=first)

    assert scene.count("renewalInfo") == (0,)
    assert all("replaces" not in each.payload for each in scene.requests("newOrder"))


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (None, 6 * HOUR),
        ("soon", 6 * HOUR),
        ("0", 60),
        ("-1", 60),
        ("30", 60),
        ("600", 600),
        (str(365 * 86400), 24 * HOUR),
        (format_datetime(datetime(2001, 1, 1, tzinfo=UTC), usegmt=True), 60),
        (format_datetime(datetime(2999, 1, 1, tzinfo=UTC), usegmt=True), 24 * HOUR),
    ],
)
def test_the_ca_is_asked_again_after_a_minute_to_a_day(
    scene: Scene, said: str | None, seconds: float
) -> None:
    def answer(answer: Answer) -> None:
        answer.headers = {} if said is None else {"Retry-After": said}

    scene.ca.faults.after("renewalInfo", answer)

    window, again = window_at(scene)

    assert window is not None
    assert again == seconds


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://ca.example.test/why", "https://ca.example.test/why"),
        ("https://ca.test/\x1b[2J\u202e\r\n", "https://ca.test/\\x1b[2J\\u202e  "),
        ("x" * 5000, "x" * 297 + "..."),
        (None, ""),
        (["a"], "['a']"),
    ],
)
def test_an_explanation_is_shown_without_its_hostile_characters(
    scene: Scene,
    url: object,
    shown: str,
) -> None:
    def answer(answer: Answer) -> None:
        answer.document["explanationURL"] = url

    scene.ca.faults.after("renewalInfo", answer)

    window, _ = window_at(scene)

    assert window is not None
    assert window.explanation_url == shown


def test_an_order_says_which_certificate_it_replaces(scene: Scene) -> None:
    first = scene.obtain().leaf

    scene.obtain(replaces=first)

    assert scene.requests("newOrder")[-1].payload["replaces"] == ari_id(first)
    issued = scene.ca.issued[ari_id(first) or ""]
    assert issued.replaced_by is not None


REFUSALS = [
    Problem("alreadyReplaced", "Replaced.", 409),
    Problem("malformed", "Another CA's.", 400),
    Problem("malformed", "Not found.", 404),
    Problem("unauthorized", "Not yours.", 403),
    Problem("serverInternal", "Oops.", 500),
    html(409),
    html(500),
    LOST,
]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_an_order_whose_predecessor_is_refused_is_sent_once_more_without(
    scene: Scene, refusal: Answer | Problem, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first = scene.obtain().leaf
    scene.ca.requests.clear()
    scene.ca.faults.before(
        "newOrder", lambda request: refusal if "replaces" in request.payload else False
    )

    assert scene.obtain(replaces=first).names == (NAME,)
    assert "sending it again without the certificate that it replaces" in caplog.text

    asked = ["replaces" in known.payload for known in scene.requests("newOrder")]
    assert asked == [True] * (len(asked) - 1) + [False]
    assert len(asked) <= 5


def test_an_order_that_is_refused_without_a_predecessor_is_not_sent_again(
    scene: Scene,
) -> None:
    first = scene.obtain().leaf
    scene.ca.requests.clear()
    scene.ca.faults.before("newOrder", Problem("malformed", "No.", 400))

    scene.failing(replaces=first)
    scene.failing()

    asked = ["replaces" in known.payload for known in scene.requests("newOrder")]
    assert asked == [True, False, False]


@pytest.mark.parametrize(("kind", "times"), [("rateLimited", 1), ("badNonce", 100)])
def test_an_order_refused_for_another_reason_keeps_its_predecessor(
    scene: Scene, kind: str, times: int
) -> None:
    first = scene.obtain().leaf
    scene.ca.requests.clear()
    limit = Problem(kind, "No.", 429 if kind == "rateLimited" else 400)
    scene.ca.faults.before("newOrder", limit)

    scene.failing(replaces=first)

    asked = ["replaces" in known.payload for known in scene.requests("newOrder")]
    assert asked == [True] * times


def test_a_predecessor_without_an_issuer_is_not_mentioned(scene: Scene) -> None:
    scene.obtain(replaces=certificate_of(1, None))

    assert "replaces" not in scene.requests("newOrder")[0].payload


def test_a_lost_account_does_not_hinder_a_replacement(scene: Scene) -> None:
    first = scene.obtain().leaf
    scene.ca.accounts.clear()

    assert scene.obtain(replaces=first).names == (NAME,)


# What the CA calls a certificate (RFC 9773, 4.1)


def test_the_example_of_the_rfc_is_named_as_there() -> None:
    authority = bytes.fromhex("69885B6B87464041E1B37B847BA0AE2CDE01C8D4")

    name = ari_id(certificate_of(0x87654321, authority))

    assert name == "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"


@given(st.integers(1, 2**159 - 1), st.binary(min_size=1, max_size=40))
@example(1, b"\0\0\1")
@example(127, b"\xff")
@example(128, b"\x80")
@example(255, b"\0")
@example(2**158, b"~")
@example(2**159 - 1, b"?" * 20)
def test_a_name_holds_the_key_and_the_serial_number_as_the_certificate_does(
    serial: int, authority: bytes
) -> None:
    certificate = certificate_of(serial, authority)

    key, number = (ari_id(certificate) or "").split(".")

    assert decoded(key) == authority
    content = decoded(number)
    # The INTEGER as it stands in the certificate: tag, length, content.
    assert bytes([2, len(content)]) + content in certificate.tbs_certificate_bytes
    assert int.from_bytes(content, "big", signed=True) == serial


def decoded(text: str) -> bytes:
    assert "=" not in text
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


@pytest.mark.parametrize(
    "extension",
    [
        None,
        x509.AuthorityKeyIdentifier(
            None, [x509.DirectoryName(x509.Name([]))], authority_cert_serial_number=1
        ),
        x509.UnrecognizedExtension(x509.AuthorityKeyIdentifier.oid, b"nonsense"),
    ],
)
def test_a_certificate_without_an_authority_key_has_no_name(
    extension: x509.ExtensionType | None,
) -> None:
    name = x509.Name([])
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    key = STRANGER.public_key()
    builder = x509.CertificateBuilder(name, name, key, 1, start, end)
    if extension:
        builder = builder.add_extension(extension, critical=False)

    assert ari_id(builder.sign(STRANGER, hashes.SHA256())) is None
