"""Heartbeats: who misses one knows that nothing runs any more.

The convention of healthchecks (healthchecks.io/docs/http_api): `/start`, then the exit
code, with up to 100 kB of log as the body. `rid` says which end belongs to which start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_BODY_BYTES = 10_000
"""The end of the log that is sent; by default a server keeps this much."""


def url(base: str, what: str, run: str) -> str:
    """Return the URL to ping.

    Args:
        what: `start`, `log` (which tells of no run), or an exit code.
        run: The identifier of the run, a UUID.
    """
    parts = urlsplit(base)
    path = f"{parts.path.rstrip('/')}/{what}"
    query = "&".join(filter(None, [parts.query, f"rid={run}"]))
    return urlunsplit((parts.scheme, parts.netloc, path, query, ""))


def body(lines: Iterable[str]) -> str:
    """Return the end of the log, in whole lines unless the last one is too long."""
    text = "\n".join(lines).encode("utf-8", "replace")
    if len(text) > MAX_BODY_BYTES:
        text = text[-MAX_BODY_BYTES:]
        _, _, rest = text.partition(b"\n")
        text = rest or text
    return text.decode("utf-8", "ignore")
