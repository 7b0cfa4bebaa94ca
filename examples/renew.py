"""Renew from a Python program: python renew.py CONFIG_FILE."""

import logging
import sys

from letsencrypt_mdaemon import (
    BusyError,
    ChallengeError,
    Error,
    Outcome,
    load_config,
    renew,
)


def main(file: str) -> int:
    """Renew the certificate if it is due, and return the exit code."""
    logging.basicConfig(level=logging.INFO)
    try:
        outcome: Outcome = renew(load_config(file, agree_tos=True))
    except BusyError:
        return 0  # another run does the work
    except ChallengeError as exc:
        for name, reason in exc.names.items():
            print(f"{name}: {reason}")
        return exc.exit_code
    except Error as exc:
        print(exc.message, exc.hint)
        return exc.exit_code
    if outcome.renewed and outcome.certificate is not None:
        print(f"Valid until {outcome.certificate.not_valid_after_utc:%Y-%m-%d}")
    else:
        print(outcome.reason)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
