"""What the tools of IIS write, and whole runs beside one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import pytest
from cryptography import x509

from letsencrypt_mdaemon.app import build
from letsencrypt_mdaemon.config.settings import Config
from letsencrypt_mdaemon.mdaemon import server as mdaemon_server
from letsencrypt_mdaemon.mdaemon.http_sys import (
    APPLICATION,
    HttpSys,
    Record,
    read_record,
)
from letsencrypt_mdaemon.mdaemon.iis import Binding, Site, sites
from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.sandbox.mdaemon import Fault
from letsencrypt_mdaemon.state.memory import IIS, Change
from tests.iis import ENGLISH, GERMAN, NOTHING, Entry, Iis
from tests.program import Program

HASH = "0123456789abcdef0123456789abcdef01234567"
FOREIGN = "ab" * 20
EVERYWHERE = "ipport=0.0.0.0:443"
LIST = """<?xml version="1.0" encoding="UTF-8"?>
<appcmd>
  <SITE SITE.NAME="R&amp;D" SITE.ID="2" bindings="http/*:80:" state="Started">
    <site name="R&amp;D" id="2" serverAutoStart="true">
      <bindings>
        <binding protocol="http" bindingInformation="*:80:" />
        <binding protocol="https" bindingInformation="*:443:" />
        <binding protocol="https" bindingInformation="[::1]:444:a.test" sslFlags="1" />
        <binding protocol="net.pipe" bindingInformation="*" />
        <binding protocol="https" bindingInformation="odd" />
      </bindings>
      <limits />
    </site>
  </SITE>
  <SITE SITE.NAME="Empty" SITE.ID="3" bindings="" state="Stopped">
    <site name="Empty" id="3"><bindings /></site>
  </SITE>
</appcmd>
"""


# What they write


def test_the_https_bindings_of_every_site_are_read() -> None:
    bindings = (Binding("*:443:", 0), Binding("[::1]:444:a.test", 1))
    assert sites(LIST) == {"R&D": bindings, "Empty": ()}


@pytest.mark.parametrize(
    "text", ["", "ERROR ( message:x )", LIST[:-20], LIST.replace('"1"', '"Sni"')]
)
def test_what_is_no_list_of_sites_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(not XML|invalid literal)"):
        sites(text)


@pytest.mark.parametrize(
    ("information", "flags", "endpoint"),
    [
        ("*:443:", 0, EVERYWHERE),
        (":443:", 0, EVERYWHERE),
        ("*:443:a.test", 0, EVERYWHERE),
        ("*:443:a.test", 1, "hostnameport=a.test:443"),
        ("192.0.2.1:8443:", 0, "ipport=192.0.2.1:8443"),
        ("[2001:db8::1]:443:", 0, "ipport=[2001:db8::1]:443"),
        ("[::]:443:a.test", 1 | 32, "hostnameport=a.test:443"),
    ],
)
def test_a_binding_has_its_certificate_at_an_endpoint(
    information: str, flags: int, endpoint: str
) -> None:
    assert Binding(information, flags).endpoint == endpoint


@pytest.mark.parametrize("shown", [ENGLISH, GERMAN])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("store", "understood"), [("My", "My"), ("(null)", "MY"), ("", "MY")]
)
def test_a_certificate_is_read_in_any_language(
    shown: str, end: str, store: str, understood: str
) -> None:
    text = shown.format(
        kind="IP:port",
        place="0.0.0.0:443",
        hash=HASH.upper(),
        application=APPLICATION.upper(),
        store=store,
        **dict.fromkeys(["freshness", "trusted", "mapper", "negotiate", "reject"], "x"),
    )

    found = read_record(text.replace("\n", end))

    assert found is not None
    assert found == Record(HASH, APPLICATION, understood, found.rest)
    assert len(found.rest) == 11
    assert str(found) == HASH


def test_a_name_that_looks_like_a_hash_is_none() -> None:
    text = ENGLISH.replace("{place}", f"{HASH}:443").replace("{hash}", FOREIGN)
    text = text.replace("{application}", APPLICATION)
    found = read_record(text)
    assert found is not None
    assert found.thumbprint == FOREIGN


@pytest.mark.parametrize("text", ["", NOTHING, f"x : {HASH}\n", "x : {4dc3}\n"])
def test_where_there_is_no_certificate_none_is_read(text: str) -> None:
    assert read_record(text) is None


# Whole runs


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iis:
    """An IIS on this machine, whose site is named."""
    web = Iis(
        {"Webmail": [("http", "*:80:", 0), ("https", "*:443:", 0)]},
        {EVERYWHERE: Entry(FOREIGN)},
    )

    def web_site(_: Config, known: Mapping[str, x509.Certificate]) -> Site | None:
        return Site("Webmail", known, run=web)

    def other_users() -> dict[str, str]:
        return dict.fromkeys(HttpSys(web).references(), "http.sys, such as IIS")

    monkeypatch.setattr(build, "web_site", web_site)
    monkeypatch.setattr(build, "other_users", other_users)
    return web


def test_a_run_gives_the_binding_the_certificate_of_the_mail_server(
    program: Program, web: Iis
) -> None:
    ran = program.here("renew", "--no-reload")

    assert ran.exit_code == 0, ran.messages
    new = ran.report["certificate"]["thumbprint"]
    assert program.bound() == {new}
    assert web.entries[EVERYWHERE].hash == new.lower()
    (change,) = (c for c in ran.report["changes"] if c["file"] == IIS)
    assert (change["section"], change["key"]) == ("Webmail", "https *:443:")
    assert (change["before"], change["after"]) == (FOREIGN, new.lower())
    status = program.here("status").report
    assert not status["due"], status["reason"]
    assert status["certificate"]["thumbprint"] == new
    assert IIS in {target["file"] for target in status["targets"]}
    calls = len(web.calls)
    assert not program.here("renew", "--no-reload").report["renewed"]
    assert len(web.calls) == calls


def test_a_dry_run_shows_what_would_change_and_changes_nothing(
    program: Program, web: Iis
) -> None:
    shown = program.here("renew", "--dry-run", as_json=False)
    assert shown.exit_code == 0, shown.messages
    assert "IIS [Webmail] https *:443:" in shown.output
    assert web.calls == []

    web.refused = "add sslcert"
    assert program.here("renew", "--no-reload").exit_code == 5
    web.calls.clear()
    ran = program.here("renew", "--dry-run")

    assert ran.exit_code == 0, ran.messages
    assert IIS in {change["file"] for change in ran.report["changes"]}
    assert web.calls == []


def failing(web: Iis) -> Callable[[str], None]:
    """Let IIS refuse every certificate but the one that it had."""

    def refuse(command: str) -> None:
        web.refused = "\0" if FOREIGN in command else "add sslcert"

    return refuse


def test_if_iis_refuses_the_mail_servers_files_are_put_back_as_well(
    program: Program, web: Iis
) -> None:
    before = program.bound()
    web.on = failing(web)

    ran = program.here("renew", "--no-reload")

    assert ran.exit_code == 5
    assert "netsh.exe http add sslcert" in ran.report["error"]["message"]
    assert program.bound() == before
    assert web.entries[EVERYWHERE].hash == FOREIGN


def test_a_roll_back_gives_the_binding_its_former_certificate(
    secure: Program, web: Iis
) -> None:
    before = secure.bound()
    secure.server.spoil(Fault.NO_TLS, "webmail")

    ran = secure.here("renew")

    assert ran.exit_code == 5
    assert "The new certificate broke" in ran.report["error"]["message"]
    assert secure.bound() == before
    assert web.entries[EVERYWHERE].hash == FOREIGN


def test_a_site_that_is_not_there_is_told_before_the_ca_is_asked(
    program: Program, web: Iis
) -> None:
    web.sites = {"Shop": []}
    before = program.bound()

    ran = program.here("renew", "--no-reload")

    assert ran.exit_code == 2
    assert "IIS has no site 'Webmail'. It has: Shop." in ran.messages
    assert program.bound() == before


def test_a_binding_that_a_run_changed_stays_if_the_setting_is_gone(
    secure: Program, web: Iis, monkeypatch: pytest.MonkeyPatch
) -> None:
    del web
    secure.server.spoil(Fault.NO_TLS, "webmail")
    real = mdaemon_server.MailServer.restore

    def forget(
        server: mdaemon_server.MailServer, changes: Sequence[Change], *, now: datetime
    ) -> None:
        real(server._replace(site=None), changes, now=now)

    monkeypatch.setattr(mdaemon_server.MailServer, "restore", forget)
    ran = secure.here("renew")
    assert "Could not restore IIS: iis-site-name is no longer set." in ran.messages


def test_an_old_certificate_that_another_site_uses_is_not_removed(
    secure: Program, web: Iis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No setting names a site.
    monkeypatch.setattr(build, "web_site", lambda *_: None)

    def renewed(*options: str) -> str:
        ran = secure.here("renew", "--no-reload", "--force", *options)
        assert ran.exit_code == 0, ran.messages
        return str(ran.report["certificate"]["thumbprint"])

    first, second = renewed(), renewed()
    web.entries["ipport=192.0.2.1:443"] = Entry(first.lower())

    ran = secure.here("renew", "--force", "--remove-old-certificates")

    assert ran.report["removed"] == [second]
    refused = secure.here("certificates remove", first)
    assert refused.exit_code == 2
    assert "in use: http.sys, such as IIS" in refused.messages
    assert first in {
        thumbprint(x509.load_pem_x509_certificate(file.read_bytes()))
        for file in secure.layout.certificates.glob("*/cert.pem")
    }
