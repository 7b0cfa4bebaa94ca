"""IIS's bindings: what the tools say, and what is changed by them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import pytest

from letsencrypt_mdaemon.assembly import MailServer
from letsencrypt_mdaemon.certificate import thumbprint
from letsencrypt_mdaemon.errors import ConfigError, DeployError
from letsencrypt_mdaemon.iis import APPLICATION, Binding, Bound, Iis, parse_bound
from letsencrypt_mdaemon.state import Attempt, Change, State, Target
from letsencrypt_mdaemon.webroot import FOLDERS, WEB_CONFIG_TEXT, Webroot
from tests import certificates
from tests.certificates import START
from tests.iis import GERMAN, FakeIis

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryptography import x509

    from letsencrypt_mdaemon.mdaemon import Semaphores
    from letsencrypt_mdaemon.targets import Bindings

OLD, NEW = "a" * 40, "b" * 40
SITE = 'My "Site"'


@pytest.fixture
def fake(tmp_path: Path) -> FakeIis:
    bindings = [("*:443:", 0), ("*:443:mail.test", 1), ("*:8443:ccs.test", 3)]
    was = {"certhash": OLD, "appid": APPLICATION}
    bound = {"0.0.0.0:443": dict(was), "mail.test:443": dict(was)}
    return FakeIis(tmp_path, {SITE: bindings, "Empty": []}, bound)


def site(fake: FakeIis, name: str = SITE, *, add: bool = False) -> Iis:
    return Iis(name, add=add, run=fake, windows=fake.windows)


def hashes(fake: FakeIis) -> dict[str, str]:
    return {where: item["certhash"] for where, item in fake.bound.items()}


@pytest.mark.parametrize(
    ("binding", "where"),
    [
        (Binding("*:443:"), "ipport=0.0.0.0:443"),
        (Binding("192.0.2.1:444:a.test"), "ipport=192.0.2.1:444"),
        (Binding("[::1]:443:"), "ipport=[::1]:443"),
        (Binding("*:443:a.test", 1), "hostnameport=a.test:443"),
    ],
)
def test_netsh_is_told_which_binding(binding: Binding, where: str) -> None:
    assert binding.where == where


def test_netsh_is_read_in_any_language() -> None:
    shown = GERMAN.format(
        where="0.0.0.0:443", hash=OLD.upper(), appid=APPLICATION, negotiate="Aktiviert"
    )

    assert parse_bound(shown) == Bound(OLD, is_usual=False)
    assert parse_bound("The system cannot find the file specified.") is None


def test_every_binding_changes_and_is_restored(fake: FakeIis) -> None:
    changes = site(fake).bind(NEW)

    assert hashes(fake) == {"0.0.0.0:443": NEW, "mail.test:443": NEW}
    assert [str(change.target) for change in changes] == [
        f"IIS [{SITE}] https *:443:",
        f"IIS [{SITE}] https *:443:mail.test",
    ]
    site(fake).restore(changes)
    assert hashes(fake) == {"0.0.0.0:443": OLD, "mail.test:443": OLD}


def test_a_binding_that_somebody_changed_since_is_not_restored(fake: FakeIis) -> None:
    changes = site(fake).bind(NEW)
    fake.bound["0.0.0.0:443"]["certhash"] = "c" * 40

    site(fake).restore(changes)

    assert hashes(fake) == {"0.0.0.0:443": "c" * 40, "mail.test:443": OLD}


def test_a_dry_run_changes_nothing(fake: FakeIis) -> None:
    assert len(site(fake).bind(NEW, dry_run=True)) == 2

    assert set(hashes(fake).values()) == {OLD}
    assert not [call for call in fake.calls if "delete" in call or "add" in call]


def test_a_refused_certificate_leaves_the_former_one(fake: FakeIis) -> None:
    fake.refused = {NEW}

    with pytest.raises(DeployError, match=r"netsh\.exe http add sslcert"):
        site(fake).bind(NEW)

    assert hashes(fake) == {"0.0.0.0:443": OLD, "mail.test:443": OLD}


def test_the_central_store_is_left_alone(
    fake: FakeIis, caplog: pytest.LogCaptureFixture
) -> None:
    site(fake).bind(NEW)

    assert "ccs.test is left alone: central certificate store" in caplog.text


def test_a_policy_that_is_lost_is_warned_of(
    fake: FakeIis, caplog: pytest.LogCaptureFixture
) -> None:
    fake.negotiate = "Aktiviert"

    site(fake).bind(NEW)

    assert "the policy for clients' certificates is reset" in caplog.text


@pytest.mark.parametrize(("add", "sites"), [(True, [("*:443:", 0)]), (False, [])])
def test_a_binding_is_made_only_when_asked(
    fake: FakeIis, sites: list[tuple[str, int]], *, add: bool
) -> None:
    fake.bound.clear()

    site(fake, "Empty", add=add).bind(NEW)

    assert fake.sites["Empty"] == sites
    assert hashes(fake) == dict.fromkeys(["0.0.0.0:443"][: len(sites)], NEW)


def test_an_unknown_site_is_told_with_those_there_are(fake: FakeIis) -> None:
    with pytest.raises(ConfigError, match=r"no site 'Other'; there are: My .*, Empty"):
        site(fake, "Other").named()


def test_missing_tools_are_told(fake: FakeIis) -> None:
    (fake.windows / "System32" / "inetsrv" / "appcmd.exe").unlink()

    with pytest.raises(ConfigError, match="management tools are missing"):
        site(fake).named()


def test_a_change_in_iis_survives_the_attempt_file(
    fake: FakeIis, tmp_path: Path
) -> None:
    attempt = Attempt(NEW, {}, tuple(site(fake).bind(NEW)))
    state = State(tmp_path / "state")

    state.save_attempt(attempt)

    assert state.attempt() == attempt


@dataclass
class Files:
    """INI bindings that change once and can be restored."""

    changes: list[Change]
    restored: list[Change] = field(default_factory=list)

    def bind(self, *_: object, **__: object) -> list[Change]:
        return self.changes

    def named(self, _: object) -> dict[Target, x509.Certificate | None]:
        return {}

    def references(self, **_: object) -> set[str]:
        return set()

    def restore(self, changes: Sequence[Change], **_: object) -> None:
        self.restored += changes


def server(fake: FakeIis, files: Files) -> MailServer:
    bindings, semaphores = cast("Bindings", files), cast("Semaphores", None)
    return MailServer(bindings, semaphores, False, [], known={}, iis=site(fake))  # noqa: FBT003


INI = Change(Target("App/MDaemon.ini", "SSL", "Hash", "sha1"), 1, OLD, NEW)


def test_the_files_are_restored_if_iis_refuses_the_certificate(fake: FakeIis) -> None:
    leaf = certificates.leaf()
    fake.refused = {thumbprint(leaf).lower()}
    files = Files([INI])

    with pytest.raises(DeployError):
        server(fake, files).bind(leaf, now=START)

    assert files.restored == [INI]


def test_a_roll_back_splits_the_changes(fake: FakeIis) -> None:
    leaf = certificates.leaf()
    files = Files([INI])
    changes = server(fake, files).bind(leaf, now=START)
    assert set(hashes(fake).values()) == {thumbprint(leaf).lower()}

    server(fake, files).restore(changes, now=START)

    assert files.restored == [INI]
    assert set(hashes(fake).values()) == {OLD}


def test_iis_gets_a_web_config_as_long_as_tokens_are_shown(tmp_path: Path) -> None:
    webroot = Webroot(tmp_path, tmp_path / "s" / "presented.json", iis=True)
    file = tmp_path / FOLDERS[-1] / "web.config"

    with webroot.present({"token": "token.print"}):
        assert file.read_text("ascii") == WEB_CONFIG_TEXT

    assert not (tmp_path / ".well-known").exists()


def test_a_web_config_of_somebody_else_stays(tmp_path: Path) -> None:
    webroot = Webroot(tmp_path, tmp_path / "s" / "presented.json", iis=True)
    file = tmp_path / FOLDERS[-1] / "web.config"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")

    with webroot.present({"token": "token.print"}):
        assert not file.read_bytes()

    assert file.exists()


def test_a_binding_names_the_certificate_that_is_known(fake: FakeIis) -> None:
    leaf = certificates.leaf()
    known = {thumbprint(leaf): leaf}
    seen = replace(server(fake, Files([])), known=known)
    changes = seen.bind(leaf, now=START)

    assert seen.named([]) == {change.target: leaf for change in changes}
    assert seen.references() == set(known)


def test_a_run_killed_within_a_step_is_restored(fake: FakeIis) -> None:
    changes = site(fake).bind(NEW)
    del fake.bound["mail.test:443"]

    site(fake).restore(changes)

    assert hashes(fake) == {"0.0.0.0:443": OLD, "mail.test:443": OLD}
