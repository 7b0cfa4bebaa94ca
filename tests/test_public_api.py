"""What others may import, used with its types: mypy checks this file as well."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import letsencrypt_mdaemon
from letsencrypt_mdaemon import (
    Certificate,
    ChallengeError,
    Config,
    ConfigError,
    Error,
    Outcome,
    load_config,
    renew,
)


def names_of(certificate: Certificate) -> tuple[str, ...]:
    return certificate.names


def when(outcome: Outcome) -> str:
    return outcome.reason if outcome.next_at is None else outcome.next_at.isoformat()


def test_a_configuration_is_loaded_as_documented(tmp_path: Path) -> None:
    file = tmp_path / "ours.ini"
    file.write_text("[letsencrypt-mdaemon]\nkey-type = p256\n", "utf-8")

    config: Config = load_config({}, {}, file).config

    assert config.key_type == "p256"


def test_every_public_name_is_there_and_nothing_else_is() -> None:
    for name in letsencrypt_mdaemon.__all__:
        assert getattr(letsencrypt_mdaemon, name) is not None
    assert not hasattr(letsencrypt_mdaemon, "no_such_name")
    assert callable(renew)


def test_errors_can_be_caught_by_kind() -> None:
    assert issubclass(ChallengeError, Error)
    assert (ConfigError.exit_code, ChallengeError.exit_code) == (2, 4)


def test_importing_the_package_imports_nothing_slow() -> None:
    code = "import sys, letsencrypt_mdaemon; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )

    slow = {"acme", "josepy", "requests", "cryptography", "click"}
    assert not slow & {name.partition(".")[0] for name in done.stdout.split()}
