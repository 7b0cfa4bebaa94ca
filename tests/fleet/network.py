"""Addresses of the fleet."""

from __future__ import annotations

HUB = "10.77.0.254"
"""Where the controller and the CA are."""


def address(number: int) -> str:
    """Return the address of a host; the first has the number 1."""
    return f"10.77.0.{number}"


def name(number: int) -> str:
    """Return the name of a host, which is that of its certificate."""
    return f"mail{number}.example.test"
