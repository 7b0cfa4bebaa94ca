"""URLs that hold secrets: what is accepted, and what is shown of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letsencrypt_mdaemon.notify import address


@pytest.mark.parametrize(
    "url",
    [
        *("https://a.test/x", "https://a.test:8443/x?y=z", "https://[2001:db8::1]/x"),
        *("http://127.0.0.1:80/x", "http://[::1]/x", "http://localhost/x"),
    ],
)
def test_https_is_accepted_and_on_this_machine_http(url: str) -> None:
    address.require_https(url)


@pytest.mark.parametrize(
    "url",
    [
        *("http://a.test/x", "http://10.0.0.1/x", "http://127.0.0.1.test/x"),
        *("https://u:p@a.test/x", "https://u@a.test/x", "http://u@127.0.0.1/x"),
        *("https:///x", "https://[::1/x", "https://a.test:99999/x", "ftp://a.test/x"),
        *("", "x", "https:a.test"),
    ],
)
def test_anything_else_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(ValueError, match="must begin with https://") as caught:
        address.require_https(url)

    assert str(caught.value) == "must begin with https:// and a host, without a login"


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://hc.test/SECRET?SECRET#SECRET", "https://hc.test"),
        ("https://SECRET:SECRET@hc.test:8443/SECRET", "https://hc.test:8443"),
        ("https://[2001:db8::1]:8443/SECRET", "https://[2001:db8::1]:8443"),
        ("https://[::1/SECRET", "https://..."),
        ("https:///SECRET", "https://..."),
        ("SECRET", "://..."),
    ],
)
def test_only_scheme_and_host_are_shown(url: str, wanted: str) -> None:
    assert address.shown(url) == wanted


@given(st.text())
def test_any_text_can_be_shown(text: str) -> None:
    assert address.shown(text).isprintable()
    assert address.without("", text) == ""
    address.scheme(text)


def test_a_message_loses_the_url_and_its_parts() -> None:
    url = "https://hc.test/hooks/SECRET?token=OTHER"
    text = f"Could not reach {url}, /hooks/SECRET: SECRET, token=OTHER."

    assert address.without(text, url) == "Could not reach ..., ...: ..., ...."
