"""What others may import, used with its types: mypy checks this file as well."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import letsencrypt_mdaemon
from letsencrypt_mdaemon import (
    BusyError,
    Certificate,
    ChallengeError,
    Config,
    ConfigError,
    Error,
    Outcome,
    load_config,
    renew,
)
from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.system.locks import exclusive_lock
from tests.program import HOST_NAME, Program, run

EXAMPLE = Path(__file__).parents[1] / "examples" / "renew.py"


def names_of(certificate: Certificate) -> tuple[str, ...]:
    return certificate.names


def when(outcome: Outcome) -> str:
    return outcome.reason if outcome.next_at is None else outcome.next_at.isoformat()


def settings(program: Program) -> dict[str, str | bool]:
    """Return the options of the program as the API takes them."""
    named: dict[str, str | bool] = {}
    options = iter(program.options)
    for option in options:
        flag = option in {"--agree-tos", "--skip-port-check"}
        named[option[2:].replace("-", "_")] = True if flag else next(options)
    return named


def test_keyword_arguments_override_the_file(tmp_path: Path) -> None:
    file = tmp_path / "ours.ini"
    file.write_text("[letsencrypt-mdaemon]\nkey-type = p256\nkeep-logs = 2\n", "utf-8")

    config: Config = load_config(
        file, keep_logs=3, agree_tos=True, alternate_host_names=["b.test", "a.test"]
    )

    assert (config.key_type, config.keep_logs, config.agree_tos) == ("p256", 3, True)
    assert config.alternate_host_names == ("b.test", "a.test")


def test_the_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETSENCRYPT_MDAEMON_KEY_TYPE", "p384")

    assert load_config().key_type == Config().key_type


def test_every_wrong_setting_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(key_typ="p256", keep_logs=-1)

    assert "argument key-typ: unknown; did you mean key-type?" in caught.value.message
    assert "argument keep-logs: " in caught.value.message


def test_a_certificate_is_renewed_without_log_and_mail(program: Program) -> None:
    config = load_config(**settings(program), to="root@example.test")

    first, second = renew(config), renew(config)

    assert first.renewed
    assert first.certificate is not None
    assert program.bound() == {thumbprint(first.certificate)}
    assert not second.renewed
    assert second.next_at is not None
    assert not list(program.layout.logs.iterdir())


def test_a_failure_is_raised_with_its_type_and_not_mailed(
    program: Program, ca: CertificateAuthority
) -> None:
    config = load_config(**settings(program), to="root@example.test")
    ca.resolve = lambda _: None

    with pytest.raises(ChallengeError) as caught:
        renew(config)

    assert list(caught.value.names) == [HOST_NAME]
    assert not list(program.layout.logs.iterdir())
    assert list(program.layout.folder.rglob("*.raw")) == []


def test_only_one_run_at_a_time(program: Program) -> None:
    with exclusive_lock(program.state / "lock"), pytest.raises(BusyError):
        renew(load_config(**settings(program)))


def test_a_dry_run_writes_nothing(program: Program) -> None:
    outcome = renew(load_config(**settings(program), dry_run=True))

    assert not outcome.renewed
    assert not program.state.exists()


def test_the_example_runs(program: Program, tmp_path: Path) -> None:
    lines = [
        f"{name.replace('_', '-')} = {'yes' if value is True else value}\n"
        for name, value in settings(program).items()
    ]
    file = tmp_path / "ours.ini"
    file.write_text("[letsencrypt-mdaemon]\n" + "".join(lines), "utf-8")

    ran = run([sys.executable, str(EXAMPLE), str(file)])

    assert ran.exit_code == 0, ran.messages
    assert ran.output.startswith("Valid until ")


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
