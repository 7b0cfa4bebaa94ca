"""Renew from a program of your own: python renew.py CONFIG-FILE."""

from __future__ import annotations

import sys

from letsencrypt_mdaemon import BusyError, Error, load_config, renew


def main(file: str) -> int:
    """Renew once, print what happened, and return an exit code."""
    try:
        # Settings given here override those of the file.
        outcome = renew(load_config(file, agree_tos=True))
    except BusyError as exc:
        print(f"Try again later: {exc.message}")
        return exc.exit_code
    except Error as exc:
        print(f"{type(exc).__name__}: {exc.message} {exc.hint}")
        return exc.exit_code
    result = "Renewed" if outcome.renewed else "Not renewed"
    until = ""
    if outcome.certificate is not None:
        end = outcome.certificate.not_valid_after_utc.astimezone()
        until = f", valid until {end:%Y-%m-%d}"
    print(f"{result}: {outcome.names[0]}{until}")
    print(f"Reason: {outcome.reason}")
    if outcome.error is not None:
        print(f"Not good: {outcome.error.message} {outcome.error.hint}")
        return outcome.error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
