"""The URL of a heartbeat, and the end of the log."""

from __future__ import annotations

import pytest

from letsencrypt_mdaemon.notify import heartbeat
from letsencrypt_mdaemon.notify.heartbeat import MAX_BODY_BYTES

RUN = "c0ffee00-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("base", "what", "wanted"),
    [
        ("https://hc.test/ID", "start", f"https://hc.test/ID/start?rid={RUN}"),
        ("https://hc.test/ID/", "0", f"https://hc.test/ID/0?rid={RUN}"),
        ("https://hc.test/KEY/a?create=1", "4", f"/KEY/a/4?create=1&rid={RUN}"),
        ("https://hc.test:8000", "5", f"https://hc.test:8000/5?rid={RUN}"),
        ("https://hc.test/ID#x", "5", f"https://hc.test/ID/5?rid={RUN}"),
    ],
)
def test_what_happened_is_added_to_the_path(base: str, what: str, wanted: str) -> None:
    assert heartbeat.url(base, what, RUN).endswith(wanted)


def test_a_short_log_is_the_body() -> None:
    assert heartbeat.body(["one", "zwölf"]) == "one\nzwölf"
    assert heartbeat.body([]) == ""


def test_of_a_long_log_whole_lines_of_the_end_are_the_body() -> None:
    lines = [f"{number}: {'ö' * 50}" for number in range(1000)]

    found = heartbeat.body(lines)

    assert MAX_BODY_BYTES - 200 < len(found.encode()) <= MAX_BODY_BYTES
    kept = found.split("\n")
    assert kept == lines[-len(kept) :]


@pytest.mark.parametrize("text", ["a", "ö", "x€", "\udcff"])
def test_of_one_line_that_is_too_long_the_end_is_the_body(text: str) -> None:
    found = heartbeat.body([text * MAX_BODY_BYTES])

    assert MAX_BODY_BYTES - 4 < len(found.encode()) <= MAX_BODY_BYTES
