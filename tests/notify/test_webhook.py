"""How what webhooks get is signed."""

from __future__ import annotations

import pytest

from letsencrypt_mdaemon.notify import webhook

# The example of the specification's own libraries (standardwebhooks.com).
KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
IDENTIFIER, TIMESTAMP = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330
BODY = '{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_signature_is_that_of_the_specification() -> None:
    found = webhook.headers(BODY, KEY, identifier=IDENTIFIER, timestamp=TIMESTAMP)

    assert found == {
        "Content-Type": "application/json",
        "webhook-id": IDENTIFIER,
        "webhook-timestamp": str(TIMESTAMP),
        "webhook-signature": SIGNATURE,
    }


@pytest.mark.parametrize(
    "change",
    [
        {"body": BODY + " "},
        {"identifier": "msg_2"},
        {"timestamp": TIMESTAMP + 1},
        {"key": "another"},
    ],
)
def test_a_signature_is_of_the_body_the_message_and_its_time(
    change: dict[str, object],
) -> None:
    usual: dict[str, object] = {
        "body": BODY,
        "key": KEY,
        "identifier": IDENTIFIER,
        "timestamp": TIMESTAMP,
    }

    found = webhook.headers(**{**usual, **change})  # type: ignore[arg-type]

    assert found["webhook-signature"] != SIGNATURE


def test_a_key_may_be_any_text() -> None:
    of_text = webhook.headers(BODY, "abc", identifier="i", timestamp=1)
    of_base64 = webhook.headers(BODY, "whsec_YWJj", identifier="i", timestamp=1)

    assert of_text == of_base64


def test_without_a_key_nothing_is_signed() -> None:
    found = webhook.headers(BODY, "", identifier="i", timestamp=1)

    assert "webhook-signature" not in found


@pytest.mark.parametrize("key", ["!", "abc", "", "ü"])
def test_a_key_that_is_no_key_is_refused_and_not_quoted(key: str) -> None:
    with pytest.raises(ValueError, match="after whsec_") as caught:
        webhook.headers(BODY, f"whsec_{key}", identifier="i", timestamp=1)

    assert str(caught.value) == "is not Base64 after whsec_"
