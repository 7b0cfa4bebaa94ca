"""Replies of an ACME server."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import requests

from letsencrypt_mdaemon.errors import AcmeError
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping


class TransientError(AcmeError):
    """A request that was lost on the way or met an overloaded CA."""


@dataclass(frozen=True)
class Reply:
    """A CA's answer."""

    url: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def location(self) -> str:
        """The resource's URL; empty if the CA sent none."""
        location = self.headers.get("Location", "")
        return self._absolute(location) if location else ""

    @property
    def redirect(self) -> str:
        """Where it redirects to; empty if it does not (RFC 9110, 15.4)."""
        return self.location if self.status in {301, 302, 303, 307, 308} else ""

    @property
    def alternates(self) -> list[str]:
        """The URLs of the alternate chains (RFC 8555, 7.4.2; RFC 8288)."""
        links = requests.utils.parse_header_links(self.headers.get("Link", ""))
        found = [
            self._absolute(link["url"])
            for link in links
            if "alternate" in link.get("rel", "").lower().split()
        ]
        return [url for url in found if url]

    def _absolute(self, url: str) -> str:
        """Return a URL that may be relative to this one; "" if it is malformed."""
        try:
            return urljoin(self.url, url)
        except ValueError:
            return ""

    @property
    def retry_after(self) -> float | None:
        """Seconds that the CA asks us to wait."""
        return retry_after(self.headers.get("Retry-After"), datetime.now(UTC))

    @property
    def nonce(self) -> str:
        """The nonce; "" if there is none, or it is not base64url (6.5.1)."""
        nonce = self.headers.get("Replay-Nonce", "")
        return nonce if re.fullmatch(r"[A-Za-z0-9_-]{1,500}", nonce) else ""

    @property
    def is_refusal(self) -> bool:
        """Whether the status is not a success."""
        return not 200 <= self.status < 300  # noqa: PLR2004 - RFC 9110, 15.3

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document of a refusal (6.7); empty for a load balancer's page."""
        problem = (_object(self.body) if self.is_refusal else None) or {}
        return problem if problem.keys() & {"type", "detail"} else {}

    def document(self) -> dict[str, Any]:
        """Return the JSON object.

        Raises:
            AcmeError: If the body is not a JSON object.
        """
        document = _object(self.body)
        if document is None:
            kind = printable(self.headers.get("Content-Type", "no content type"), 80)
            title = printable(html_title(self.body), 80)
            raise AcmeError(
                f"{printable(self.url, 300)} answered with {title!r} ({kind}) instead "
                "of a JSON object.",
                hint="Check directory-url, and whether a proxy answers instead.",
            )
        return document


def retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for, from 0 to a day.

    It is an integer or a date (RFC 9110, 10.2.3), in any time zone; None for anything
    else.
    """
    if value is None:
        return None
    if re.fullmatch(r"\s*-?[0-9]+\s*", value):
        seconds = float(value)
    elif moment := http_date(value):
        seconds = (moment - now).total_seconds()
    else:
        return None
    return min(max(seconds, 0.0), 86400.0)


def http_date(value: str) -> datetime | None:
    """Return an HTTP-date in UTC (RFC 9110, 5.6.7); None if it is not one."""
    try:
        moment = parsedate_to_datetime(value)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def html_title(body: bytes) -> str:
    """Return an HTML page's title, or the beginning of any other body."""
    text = body[:4096].decode("utf-8", "replace")
    title = re.search(r"<title[^>]*>([^<]*)", text, re.IGNORECASE)
    return (title[1] if title else text).strip().rstrip(".")


def _object(body: bytes) -> dict[str, Any] | None:
    """Return a JSON object; None for anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
