"""What others may import, used with its types: mypy checks this file as well."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import letsencrypt_mdaemon
from letsencrypt_mdaemon import (
    AcmeError,
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
from letsencrypt_mdaemon.sandbox.ca.messages import Problem
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.system.locks import exclusive_lock
from tests.program import PREFIX, Program, environment

ROOT = Path(__file__).parents[1]


def names_of(certificate: Certificate) -> tuple[str, ...]:
    return certificate.names


def when(outcome: Outcome) -> str:
    return outcome.reason if outcome.next_at is None else outcome.next_at.isoformat()


def settings(program: Program) -> dict[str, Any]:
    """Return the options of every command as settings."""
    found: dict[str, Any] = {}
    for word in program.options:
        if word.startswith("--"):
            found[word.removeprefix("--").replace("-", "_")] = True
        else:
            found[[*found][-1]] = word
    return found


def test_a_configuration_is_loaded_from_a_file_and_settings(tmp_path: Path) -> None:
    file = tmp_path / "ours.ini"
    file.write_text(
        "[letsencrypt-mdaemon]\nkey-type = p256\nrenew-days = 20\n", "utf-8"
    )

    config: Config = load_config(
        str(file),
        renew_days=30,
        alternate_host_names=["imap.example.test", "pop.example.test"],
        webroot=tmp_path / "web",
        agree_tos=True,
        smtp_address="127.0.0.1:2525",
        to=None,
    )

    assert config.key_type == "p256"
    assert config.renew_days == 30
    assert config.alternate_host_names == ("imap.example.test", "pop.example.test")
    assert config.webroot == tmp_path / "web"
    assert config.agree_tos
    assert config.smtp_address == ("127.0.0.1", 2525)
    assert config.to == ()
    assert load_config() == Config()


def test_the_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}KEY_TYPE", "p384")

    assert load_config().key_type == Config().key_type


def test_every_problem_of_the_settings_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(key_typ="p256", key_type="p257", renew_days="soon")

    assert "key_typ: unknown; did you mean key_type?" in caught.value.message
    assert "- key_type: " in caught.value.message
    assert "- renew_days: " in caught.value.message


def test_a_certificate_is_renewed_when_it_is_due(secure: Program) -> None:
    config = load_config(**settings(secure))

    outcome = renew(config)

    assert outcome.renewed
    assert outcome.certificate is not None
    assert secure.bound() == {thumbprint(outcome.certificate)}
    assert outcome.proof is not None
    assert outcome.proof.is_complete
    again = renew(config)
    assert not again.renewed
    assert again.certificate == outcome.certificate
    assert when(again) != again.reason
    assert list(secure.layout.logs.glob("LetsEncrypt*")) == []


def test_a_failure_is_raised_by_its_type_and_mailed_to_nobody(
    program: Program, ca: CertificateAuthority
) -> None:
    ca.faults.before("newOrder", Problem("rejectedIdentifier", "Not this one", 400))

    with pytest.raises(AcmeError, match="Not this one"):
        renew(load_config(**settings(program), to="postmaster@example.test"))

    assert list(program.layout.raw.iterdir()) == []
    assert list(program.layout.logs.glob("LetsEncrypt*")) == []


def test_only_one_run_at_a_time_is_allowed(program: Program) -> None:
    config = load_config(**settings(program))
    program.state.mkdir(parents=True)

    with exclusive_lock(program.state / "lock"), pytest.raises(BusyError):
        renew(config)


def run_with_settings(program: Program, folder: Path, *arguments: str) -> list[str]:
    """Run Python where the config file is; return the lines that it prints."""
    lines = [
        f"{name.replace('_', '-')} = {'yes' if value is True else value}\n"
        for name, value in settings(program).items()
    ]
    file = folder / "letsencrypt-mdaemon.ini"
    file.write_text("[letsencrypt-mdaemon]\n" + "".join(lines), "utf-8")
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_lines_of_the_page_renew(program: Program, tmp_path: Path) -> None:
    page = ROOT / "docs" / "python.md"
    (code,) = re.findall(r"(?s)```python\n(.*?)```", page.read_text("utf-8"))

    printed = run_with_settings(program, tmp_path, "-c", code)

    assert printed == ["True the certificate in use is self-signed"]


def test_the_example_renews(program: Program, tmp_path: Path) -> None:
    example = ROOT / "examples" / "renew.py"
    file = "letsencrypt-mdaemon.ini"

    result, reason = run_with_settings(program, tmp_path, str(example), file)

    assert re.fullmatch(r"Renewed: mail[a-z.]*, valid until 2[\d-]{9}", result)
    assert reason == "Reason: the certificate in use is self-signed"


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
