"""The current program takes over what its first version left: see README.md."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from socketserver import ThreadingUDPServer
from typing import Any

import pytest
from cryptography import x509

from letsencrypt_mdaemon.app import scheduling
from letsencrypt_mdaemon.sandbox import folder as sandbox_folder
from letsencrypt_mdaemon.sandbox import mdaemon
from letsencrypt_mdaemon.sandbox.ca import accounts
from letsencrypt_mdaemon.sandbox.ca.certificates import public_key
from letsencrypt_mdaemon.sandbox.ca.messages import Account, Issued, Resource
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.system.schedule import NAME, Cron
from letsencrypt_mdaemon.system.tasks import TaskScheduler
from letsencrypt_mdaemon.windows.access import SYSTEM
from tests.program import LOCALHOST, NoDns, Ran, here, run
from tests.schedulers import Crontab, Schtasks

FIRST = Path(__file__).parent / "first"
HOME = "/srv/mdaemon"
PYTHON = "/opt/letsencrypt-mdaemon/bin/python3.11"
CA_URL = "https://127.0.0.1:34493"
CA_FOLDER = "127.0.0.1_34493_acme_sandbox_directory-7be357c8aa6b"
BEFORE = "18E0E6C5959CD530F0707857A363500E8E4C6A7A"
IN_USE = "7CC531CA6CFEA2E1ECF844B6956E2619C3D36554"
NAMES = ["mail.example.test", "imap.example.test", "webmail.example.test"]
RAN = "2026-11-28T14:37:27+00:00"
HOUR = timedelta(hours=1)
WEBMAIL = "WorldClient/WorldClient.ini"


@dataclass(slots=True)
class Upgraded:
    """The installation of the first version, with the current program.

    Args:
        crontab: Its scheduled command.
        account: The account that the first version registered.
    """

    server: mdaemon.Server
    ca: CertificateAuthority
    crontab: Crontab
    account: Account

    @property
    def folder(self) -> Path:
        """MDaemon's."""
        return self.server.layout.folder

    @property
    def config(self) -> str:
        """The config file that the first version read."""
        return str(self.folder / "LetsEncrypt" / "letsencrypt-mdaemon.ini")

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.folder / "LetsEncrypt" / "letsencrypt-mdaemon"

    def __call__(self, *words: str) -> Ran:
        """Run a command with that config file."""
        return here(["--config", self.config, *words, "--json"])

    def scheduled(self) -> Ran:
        """Run the scheduled command word for word, as cron does."""
        assert self.crontab.text is not None
        command = self.crontab.text.split(" ", 5)[5].partition(" >")[0]
        return run(shlex.split(command))

    def bound(self) -> set[str]:
        """Return the thumbprints that the server's files name now."""
        return set(sandbox_folder.bound(self.folder).values())

    def orders(self) -> list[dict[str, Any]]:
        """Return what was ordered."""
        return [r.payload for r in self.ca.requests if r.resource == "newOrder"]


def place(folder: Path, replaced: dict[bytes, bytes]) -> None:
    """Let the files be where they are now, and as private as they were."""
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for old, new in replaced.items():
                data = data.replace(old, new)
            path.write_bytes(data)
        private = "letsencrypt-mdaemon" in path.relative_to(folder).parts
        private = private or path.suffix == ".pem"
        path.chmod((0o700 if private else 0o755) if path.is_dir() else 0o600)


def known(ca: CertificateAuthority, folder: Path, state: Path) -> Account:
    """Let the CA know the account and the certificates that the first version got."""
    document = json.loads((state / "account.json").read_bytes())
    public = {name: text for name, text in document["key"].items() if name != "d"}
    account = Account(public_key(public), document["url"])
    ca.accounts[account.url] = account
    ca.resources[account.url] = Resource("account", accounts.update, account)
    for file in folder.glob("certificates/letsencrypt-mdaemon */cert.pem"):
        leaf = x509.load_pem_x509_certificate(file.read_bytes())
        ca.remember(Issued(leaf, account, NAMES))
    return account


@contextmanager
def upgraded(tmp_path: Path, *parts: str) -> Iterator[Upgraded]:
    """Let a sandbox live in the folder of the first version's."""
    folder = tmp_path / "mdaemon"
    for part in parts:
        shutil.copytree(FIRST / part, folder, dirs_exist_ok=True)
    for empty in vars(sandbox_folder.Layout(folder)).values():
        empty.mkdir(exist_ok=True, parents=True)
    place(folder, {HOME.encode(): str(folder).encode()})
    with (
        mdaemon.Server(folder, tls=True) as server,
        CertificateAuthority(tmp_path / "ca", http_port=server.http_port) as ca,
        ThreadingUDPServer((LOCALHOST, 0), NoDns) as dns,
        mdaemon.thread(partial(dns.serve_forever, 0.005), dns.shutdown),
    ):
        base = ca.directory_url.removesuffix("/acme/sandbox/directory")
        place(folder, {CA_URL.encode(): base.encode()})
        state = folder / "LetsEncrypt" / "letsencrypt-mdaemon"
        # As the first version named it.
        url = ca.directory_url
        readable = re.sub(r"[^a-z0-9.-]+", "_", url.removeprefix("https://"))
        digest = hashlib.sha256(url.encode()).hexdigest()[:12]
        (state / CA_FOLDER).rename(state / f"{readable}-{digest}")
        account = known(ca, folder, state / f"{readable}-{digest}")
        memory = state / "installation.json"
        was = memory.read_text()
        runs = was.index('"runs"')
        lately = (datetime.now(UTC) - 12 * HOUR).isoformat(timespec="seconds")
        memory.write_text(was[:runs] + was[runs:].replace(RAN, lately))
        config = folder / "LetsEncrypt" / "letsencrypt-mdaemon.ini"
        where = {
            "smtp-address": f"{LOCALHOST}:{server.smtp_port}",
            "endpoint": ", ".join(server.endpoints.values()),
            "ca-bundle": str(ca.ca_bundle),
            "validation-dns": f"{LOCALHOST}:{dns.server_address[1]}",
        }
        text = config.read_text()
        for name, value in where.items():
            text = re.sub(rf"(?m)^{name} = .*", f"{name} = {value}", text)
        config.write_text(text)
        line = (FIRST / "crontab").read_text()
        line = line.replace(PYTHON, sys.executable).replace(HOME, str(folder))
        crontab = Crontab(line)
        yield Upgraded(server, ca, crontab, account)


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Upgraded]:
    """The installation with the certificate in use, and a verified one before."""
    with upgraded(tmp_path, "mdaemon") as found:
        cron = Cron(Path("crontab"), found.crontab)
        monkeypatch.setattr(scheduling, "of_this_system", lambda: cron)
        yield found


@pytest.fixture
def pending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Upgraded]:
    """The same, and a certificate that `renew --no-activate` left unused."""
    with upgraded(tmp_path, "mdaemon", "pending") as found:
        cron = Cron(Path("crontab"), found.crontab)
        monkeypatch.setattr(scheduling, "of_this_system", lambda: cron)
        yield found


def test_what_was_in_use_is_in_use_and_nothing_is_wrong(first: Upgraded) -> None:
    status = first("status")
    checked = first("check")

    assert status.exit_code == checked.exit_code == 0, status.messages
    shown = status.report
    assert (shown["state"], shown["problems"]) == ("OK", [])
    assert shown["names"] == NAMES
    assert shown["certificate"]["thumbprint"] == IN_USE
    assert shown["schedule"]["scheduled"]
    assert shown["schedule"]["last_run"]
    assert first("verify").exit_code == 0
    places = {row["file"] for row in first("discover").report["found"]}
    assert places == {"App/MDaemon.ini", "WebAdmin/WebAdmin.ini", WEBMAIL}
    assert first("account", "show").report["account"] == first.account.url
    assert first.orders() == []


def test_the_scheduled_command_works_word_for_word(first: Upgraded) -> None:
    shown = first("schedule", "show").report
    assert shown["job"]["when"] == "03:33, 15:33"

    ran = first.scheduled()

    assert ran.exit_code == 0, ran.messages
    assert ran.output.startswith("Nothing due until 2093-")
    assert first.bound() == {IN_USE}
    assert first.orders() == []
    memory = json.loads((first.state / "installation.json").read_bytes())
    assert len(memory["runs"]) == 2
    assert [row["thumbprint"] for row in memory["issued"]] == [BEFORE, IN_USE]
    assert first("check").exit_code == 0


def test_a_job_without_todays_mark_is_still_a_scheduled_run(first: Upgraded) -> None:
    assert first("renew", "--skip-port-check").exit_code == 0

    memory = json.loads((first.state / "installation.json").read_bytes())
    assert len(memory["runs"]) == 2


def test_what_was_scheduled_with_settings_that_are_gone_still_works(
    first: Upgraded,
) -> None:
    options = ("--max-names=100", "--keep-backups=3", "--skip-port-check")

    ran = first("renew", *options)
    installed = first("schedule", "install", *options)

    assert ran.exit_code == installed.exit_code == 0, ran.messages
    assert "--max-names: skipped, this setting was removed; delete it" in ran.messages
    assert first.crontab.text is not None
    assert first.crontab.text.count("\n") == 1
    assert re.findall(r" (--[a-z-]+)", first.crontab.text) == [
        *("--config", "--scheduled", "--skip-port-check")
    ]
    assert first("schedule", "remove").report["removed"]
    assert first.crontab.text == ""


def test_a_dry_run_changes_nothing(first: Upgraded) -> None:
    kept = {path: path.read_bytes() for path in first.state.rglob("*.json")}

    ran = first("renew", "--dry-run", "--skip-port-check")

    assert ran.exit_code == 0, ran.messages
    assert not ran.report["renewed"]
    assert {path: path.read_bytes() for path in first.state.rglob("*.json")} == kept


def test_what_is_due_is_renewed_with_the_same_account(first: Upgraded) -> None:
    now = datetime.now(UTC)
    first.ca.suggested_window = now - 2 * HOUR, now - HOUR
    for draw in first.state.glob("*/renewal.json"):
        text = re.sub(r'(?<="ask_again": ")[^"]+', RAN, draw.read_text())
        draw.write_text(text)

    ran = first.scheduled()

    assert ran.exit_code == 0, ran.messages
    (order,) = first.orders()
    assert [name["value"] for name in order["identifiers"]] == NAMES
    assert order["replaces"] in first.ca.issued
    assert list(first.ca.accounts) == [first.account.url]
    assert not [r for r in first.ca.requests if r.resource == "newAccount"]
    (new,) = first.bound()
    assert new not in {BEFORE, IN_USE}
    memory = json.loads((first.state / "installation.json").read_bytes())
    assert [row["thumbprint"] for row in memory["issued"]] == [BEFORE, IN_USE, new]
    assert first("verify").exit_code == 0


def test_a_rollback_returns_to_what_the_first_version_verified(first: Upgraded) -> None:
    ran = first("rollback")

    assert ran.exit_code == 0, ran.messages
    assert first.bound() == {BEFORE}
    assert first("activate").exit_code == 0
    assert first.bound() == {IN_USE}


def test_a_certificate_that_waits_is_put_into_use_without_an_order(
    pending: Upgraded,
) -> None:
    waiting = pending("status").report["pending"]["thumbprint"]

    ran = pending.scheduled()

    assert ran.exit_code == 0, ran.messages
    assert pending.bound() == {waiting}
    assert pending.orders() == []


def settings(file: Path) -> dict[str, str]:
    """Return the values that the current program reads, as in `/srv`."""
    ran = here(["--config", str(file), "config", "show", "--json"])
    assert ran.exit_code == 0, ran.messages
    return {
        name: row["value"].replace(str(file.parent), "/srv")
        for name, row in ran.report["settings"].items()
    }


@pytest.mark.parametrize("name", ["settings.ini", "defaults"])
def test_every_setting_means_what_it_meant(name: str, tmp_path: Path) -> None:
    file = tmp_path / "letsencrypt-mdaemon.ini"
    if name == "defaults":
        file.write_text(f"[{NAME}]\nmdaemon-dir = mdaemon\nstore = pem:certificates\n")
    else:
        shutil.copy(FIRST / name, file)
    meant = json.loads((FIRST / "settings.json").read_bytes())[name]

    means = settings(file)

    removed = {"max-names", "keep-backups"}
    assert meant.keys() - means.keys() == removed
    assert {key: means[key] for key in meant.keys() - removed} == {
        key: value for key, value in meant.items() if key not in removed
    }


def test_the_task_of_the_first_version_is_known_as_ours() -> None:
    schtasks = Schtasks()
    text = (FIRST / "task.xml").read_text("utf-16")
    schtasks.text = re.sub(r"\A<\?xml.*?\?>\s*", "", text)

    job = TaskScheduler(Path("schtasks.exe"), schtasks, account=SYSTEM).show()

    assert job is not None
    assert job.when == "03:17, 15:17"
    assert job.words[-1] == "renew"
