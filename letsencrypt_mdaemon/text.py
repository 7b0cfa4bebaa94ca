"""Text from outside, made safe to show."""

from __future__ import annotations

CHOOSE_ONCE = "Choose any certificate of the store once in MDaemon's SSL & TLS dialog"
"""What makes the server's files name a certificate that we know."""


def printable(text: object, limit: int = 2000) -> str:
    """Return a text from outside that is safe for terminals, logs and mails.

    A CA's problem document, a greeting or a certificate's subject may contain anything.
    Control and formatting characters become escapes.

    Args:
        limit: The largest number of characters; longer texts are cut.
    """
    shown = "".join(
        char if char.isprintable() else " " if char in "\r\n\t" else ascii(char)[1:-1]
        for char in str(text)[: limit + 1]
    )
    return shown if len(shown) <= limit else shown[: max(limit - 3, 0)] + "..."[:limit]
