"""URLs that hold secrets: who has one may send in our name."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from letsencrypt_mdaemon.text import printable


def require_https(url: str) -> None:
    """Require https and a host without a login; a host of this machine may do without.

    Raises:
        ValueError: With the problem, which does not quote the URL.
    """
    parts = _parts(url)
    local = parts is not None and _is_loopback(parts.hostname)
    good = parts is not None and parts.hostname and "@" not in parts.netloc
    if not good or parts is None or parts.scheme not in {"https", *["http"] * local}:
        raise ValueError("must begin with https:// and a host, without a login")


def scheme(url: str) -> str:
    """Return the scheme in lower case; "" if there is none."""
    found, colon, _ = url.partition("://")
    good = colon and re.fullmatch("[A-Za-z][A-Za-z0-9+.-]*", found)  # RFC 3986, 3.1
    return found.lower() if good else ""


def shown(url: str) -> str:
    """Return the part of a URL that is no secret: scheme and host."""
    parts = _parts(url)
    if parts is None or parts.hostname is None:
        return f"{printable(scheme(url), 40)}://..."
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = f":{parts.port}" if parts.port else ""
    return printable(f"{parts.scheme}://{host}{port}", 300)


def without(text: str, url: str) -> str:
    """Return a text without a URL, and without its path and query."""
    parts = _parts(url)
    secrets = [url, printable(url, 300)]
    if parts is not None:
        secrets += [parts.path, parts.query, *parts.path.split("/")]
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) > 3:  # noqa: PLR2004 - shorter ones are words
            text = text.replace(secret, "...")
    return text


def _parts(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises
    except ValueError:
        return None
    return parts


def _is_loopback(host: str | None) -> bool:
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"
