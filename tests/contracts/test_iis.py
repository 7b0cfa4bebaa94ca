"""What is done to an IIS, whatever language its tools speak."""

from __future__ import annotations

from copy import deepcopy
from datetime import timedelta

import pytest

from letsencrypt_mdaemon.errors import ConfigError, DeployError
from letsencrypt_mdaemon.mdaemon.http_sys import HttpSys
from letsencrypt_mdaemon.mdaemon.iis import Site
from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.state.memory import Change, Target
from letsencrypt_mdaemon.system.process import Ended
from tests.certificates import START, certificate
from tests.iis import ENGLISH, GERMAN, Entry, Iis

NAME = "Webmail"
OLD = certificate().leaf
NEW = certificate(start=START + timedelta(days=60)).leaf
WAS, NOW = (thumbprint(leaf).lower() for leaf in (OLD, NEW))
KNOWN = {thumbprint(leaf): leaf for leaf in (OLD, NEW)}
FOREIGN = "ab" * 20
EVERYWHERE = "ipport=0.0.0.0:443"
NAMED = "hostnameport=mail.example.test:443"
OTHERS = "ipport=192.0.2.1:443"


def target(information: str) -> Target:
    return Target("IIS", NAME, f"https {information}", "sha1:lower")


ALL = target("*:443:")
SNI = target("*:443:mail.example.test")
ADDED = Change(Target("IIS", NAME, "bindings", ""), 0, "", "https *:443:")


@pytest.fixture(params=[ENGLISH, GERMAN], ids=["English", "German"])
def iis(request: pytest.FixtureRequest) -> Iis:
    return Iis(
        {
            NAME: [
                ("http", "*:80:", 0),
                ("https", "*:443:", 0),
                ("https", "*:443:mail.example.test", 1),
            ],
            "Other": [("https", "192.0.2.1:443:", 0)],
        },
        {EVERYWHERE: Entry(WAS), NAMED: Entry(FOREIGN), OTHERS: Entry(WAS)},
        request.param,
    )


def site(iis: Iis, name: str = NAME, *, add_binding: bool = False) -> Site:
    return Site(name, KNOWN, add_binding=add_binding, run=iis)


def hashes(iis: Iis) -> dict[str, str]:
    return {endpoint: entry.hash for endpoint, entry in iis.entries.items()}


def without_https(iis: Iis) -> None:
    iis.sites[NAME] = [("http", "*:80:", 0)]
    del iis.entries[EVERYWHERE], iis.entries[NAMED]


def test_the_bindings_of_the_site_tell_which_certificates_they_have(iis: Iis) -> None:
    assert site(iis).named() == {ALL: OLD, SNI: None}
    assert iis.calls == []


def test_a_certificate_of_any_site_is_referenced(iis: Iis) -> None:
    iis.entries[OTHERS].hash = NOW
    assert HttpSys(iis).references() == {WAS.upper(), FOREIGN.upper(), NOW.upper()}


def test_only_the_https_bindings_of_the_site_change(iis: Iis) -> None:
    before = deepcopy(iis.sites)
    changes = site(iis).bind(NEW, dry_run=False)
    assert changes == [Change(ALL, 0, WAS, NOW), Change(SNI, 0, FOREIGN, NOW)]
    assert hashes(iis) == {EVERYWHERE: NOW, NAMED: NOW, OTHERS: WAS}
    assert iis.sites == before


def test_a_dry_run_tells_the_changes_and_makes_none(iis: Iis) -> None:
    planned = site(iis).bind(NEW, dry_run=True)
    assert iis.calls == []
    assert planned == site(iis).bind(NEW, dry_run=False)


def test_binding_twice_changes_nothing_more(iis: Iis) -> None:
    site(iis).bind(NEW, dry_run=False)
    iis.calls.clear()
    assert site(iis).bind(NEW, dry_run=False) == []
    assert iis.calls == []


def test_changes_are_taken_back(iis: Iis) -> None:
    before = deepcopy(iis.entries)
    site(iis).restore(site(iis).bind(NEW, dry_run=False))
    assert iis.entries == before


def test_what_somebody_else_chose_since_stays(iis: Iis) -> None:
    changes = site(iis).bind(NEW, dry_run=False)
    iis.entries[EVERYWHERE].hash = FOREIGN
    site(iis).restore(changes)
    assert hashes(iis)[EVERYWHERE] == FOREIGN
    assert hashes(iis)[NAMED] == FOREIGN


def test_a_binding_without_a_certificate_gets_one_and_loses_it_again(iis: Iis) -> None:
    del iis.entries[EVERYWHERE]
    changes = site(iis).bind(NEW, dry_run=False)
    assert Change(ALL, 0, "", NOW) in changes
    assert hashes(iis)[EVERYWHERE] == NOW
    site(iis).restore(changes)
    assert EVERYWHERE not in iis.entries


def test_the_store_and_the_application_of_the_former_certificate_come_back(
    iis: Iis,
) -> None:
    application = "{00112233-4455-6677-8899-aabbccddeeff}"
    iis.entries[EVERYWHERE] = Entry(WAS, application, "WebHosting")
    changes = site(iis).bind(NEW, dry_run=False)
    assert iis.entries[EVERYWHERE] == Entry(NOW, application, "MY")
    site(iis).restore(changes)
    assert iis.entries[EVERYWHERE] == Entry(WAS, application, "WebHosting")


@pytest.mark.parametrize("where", ["add sslcert hostname", "delete sslcert hostname"])
def test_a_step_that_fails_puts_the_former_certificates_back(
    iis: Iis, where: str
) -> None:
    before = hashes(iis)

    def refuse_new(command: str) -> None:
        iis.refused = where if before[NAMED] not in command else "\0"

    iis.on = refuse_new
    with pytest.raises(DeployError, match="exited with 1: The requested operation"):
        site(iis).bind(NEW, dry_run=False)
    assert hashes(iis) == before


def test_a_run_killed_between_two_steps_can_be_taken_back(iis: Iis) -> None:
    planned = site(iis).bind(NEW, dry_run=True)
    before = hashes(iis)
    del iis.entries[EVERYWHERE]
    resumed = site(iis).bind(NEW, dry_run=False)
    site(iis).restore([*planned, *resumed])
    assert hashes(iis) == before


def test_a_certificate_that_netsh_did_not_set_is_noticed(iis: Iis) -> None:
    def forget(command: str) -> None:
        if NOW in command:
            iis.shown = iis.shown.replace("{hash}", FOREIGN)

    iis.on = forget
    with pytest.raises(DeployError, match=f"set {NOW} .* shows {FOREIGN}"):
        site(iis).bind(NEW, dry_run=False)


def test_bindings_of_one_endpoint_change_once(iis: Iis) -> None:
    iis.sites[NAME] = [("https", "*:443:a.test", 0), ("https", "*:443:b.test", 0)]
    (change,) = site(iis).bind(NEW, dry_run=False)
    assert change.target == target("*:443:a.test")


def test_the_central_store_is_left_alone(
    iis: Iis, caplog: pytest.LogCaptureFixture
) -> None:
    iis.sites[NAME] = [("https", "*:443:mail.example.test", 3)]
    central = site(iis, add_binding=True)
    assert central.named() == {}
    assert central.bind(NEW, dry_run=False) == []
    assert iis.calls == []
    assert caplog.text.count("central certificate store") == 1


def test_flags_of_the_binding_are_set_again(iis: Iis) -> None:
    iis.sites[NAME] = [("https", "[::1]:8443:", 32 | 64)]
    site(iis).bind(NEW, dry_run=False)
    options = iis.entries["ipport=[::1]:8443"].options
    assert options == ("disabletls13=enable", "disablelegacytls=enable")


def test_the_settings_of_client_certificates_are_kept(
    iis: Iis, caplog: pytest.LogCaptureFixture
) -> None:
    kept = {"negotiate": True, "mapper": True, "freshness": 60, "trusted": "Clients"}
    iis.entries[EVERYWHERE] = Entry(WAS, **kept)  # type: ignore[arg-type]
    changes = site(iis).bind(NEW, dry_run=False)
    assert iis.entries[EVERYWHERE] == Entry(NOW, **kept)  # type: ignore[arg-type]
    site(iis).restore(changes)
    assert iis.entries[EVERYWHERE] == Entry(WAS, **kept)  # type: ignore[arg-type]
    assert "reset" not in caplog.text


def test_a_binding_without_such_settings_is_set_once(iis: Iis) -> None:
    site(iis).bind(NEW, dry_run=False)
    assert len([call for call in iis.calls if f"add sslcert {EVERYWHERE}" in call]) == 1


def test_what_else_was_set_and_is_lost_is_told(
    iis: Iis, caplog: pytest.LogCaptureFixture
) -> None:
    site(iis).bind(NEW, dry_run=False)
    assert "reset" not in caplog.text
    iis.entries[EVERYWHERE].reject = True
    site(iis).bind(OLD, dry_run=False)
    assert f"{EVERYWHERE}: the new certificate reset these settings" in caplog.text


def test_where_no_port_has_a_certificate_none_is_referenced(iis: Iis) -> None:
    iis.entries.clear()
    assert HttpSys(iis).references() == set()


def test_a_netsh_that_does_not_say_is_not_taken_for_none(iis: Iis) -> None:
    def broken(*_: object, **__: object) -> Ended:
        return Ended(1, "The parameter is incorrect.")

    with pytest.raises(DeployError, match=r"netsh.* http show sslcert exited with 1"):
        HttpSys(broken).references()
    assert HttpSys(iis).references()


def test_a_site_without_https_gets_a_binding_only_when_asked(
    iis: Iis, caplog: pytest.LogCaptureFixture
) -> None:
    without_https(iis)
    assert site(iis).bind(NEW, dry_run=False) == []
    assert "has no HTTPS binding; set iis-add-binding to add one" in caplog.text
    assert site(iis, add_binding=True).named() == {ALL: None}
    before = deepcopy((iis.sites, iis.entries))

    asked = site(iis, add_binding=True)
    changes = asked.bind(NEW, dry_run=False)

    assert changes == [Change(ALL, 0, "", NOW), ADDED]
    assert iis.sites[NAME] == [("http", "*:80:", 0), ("https", "*:443:", 0)]
    assert hashes(iis)[EVERYWHERE] == NOW
    assert asked.bind(NEW, dry_run=False) == []
    asked.restore(changes)
    assert (iis.sites, iis.entries) == before


@pytest.mark.parametrize("refused", ["add sslcert", "set site"])
def test_a_new_binding_and_its_certificate_come_together_or_not_at_all(
    iis: Iis, refused: str
) -> None:
    without_https(iis)
    iis.refused = refused
    with pytest.raises(DeployError):
        site(iis, add_binding=True).bind(NEW, dry_run=False)
    assert iis.sites[NAME] == [("http", "*:80:", 0)]
    assert hashes(iis) == {OTHERS: WAS}


def test_a_site_is_found_in_either_case_or_the_sites_are_told(iis: Iis) -> None:
    assert len(site(iis, "webMAIL").named()) == 2
    with pytest.raises(ConfigError, match=r"no site 'Shop'\. It has: Other, Webmail"):
        site(iis, "Shop").bind(NEW, dry_run=False)


def test_without_appcmd_it_is_told_what_to_install() -> None:
    with pytest.raises(ConfigError, match=r"Could not run .*appcmd\.exe") as caught:
        site(Iis()).named()
    assert "Management Scripts and Tools" in caught.value.hint


def test_the_flags_of_each_binding_are_told(iis: Iis) -> None:
    assert site(iis).flags() == {ALL: 0, SNI: 1}
