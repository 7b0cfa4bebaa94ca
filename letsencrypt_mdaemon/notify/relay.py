"""Send by Apprise, which knows a hundred services and is not always installed."""

from __future__ import annotations

import importlib
import logging
import sys

from letsencrypt_mdaemon.errors import Error
from letsencrypt_mdaemon.notify import address


def send(url: str, subject: str, body: str) -> None:
    """Send a message by the service that a URL names.

    Whatever Apprise says is dropped: it may quote the URL, which holds secrets.

    Raises:
        Error: If it is not installed, does not know the service, or cannot send.
    """
    what = f"the service {address.scheme(url)}://"
    try:
        # Only now: it is an extra, and slow to import.
        apprise = importlib.import_module("apprise")
    except ImportError:
        message = f"Could not notify {what}: Apprise is not installed."
        hint = "Install it: pip install letsencrypt-mdaemon[apprise]."
        if getattr(sys, "frozen", False):
            hint = "The program without Python cannot have it: use a webhook."
        raise Error(message, hint=hint) from None
    logging.getLogger("apprise").propagate = False
    try:
        # Where a redirect leads, nobody has set.
        asset = apprise.AppriseAsset(http_redirects=False)
        service = apprise.Apprise.instantiate(url, asset=asset)
        is_sent = service is not None and service.notify(title=subject, body=body)
    except Exception as exc:  # noqa: BLE001 - a hundred services' own
        message = f"Could not notify {what}: {type(exc).__name__}."
        raise Error(message, hint=HINT) from None
    if service is None:
        message = f"Apprise does not know {what}, or the rest of its URL is wrong."
        raise Error(message, hint=HINT)
    if not is_sent:
        message = f"Apprise could not send to {what}"
        raise Error(f"{message}.", hint=HINT)


HINT = "Check its URL with `apprise -vv -b test URL`, and the network."
