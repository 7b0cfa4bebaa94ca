"""The command `doctor`, and what the doctor says of names that a CA refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from letsencrypt_mdaemon.authorities import AUTHORITIES, Authority
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.state.folder import State
from letsencrypt_mdaemon.state.ledger import Ledger
from letsencrypt_mdaemon.system.locks import exclusive_lock
from tests.fakes import read_only
from tests.laboratory import Dns, dns_server, moved, page, web
from tests.program import HOST_NAME, Program, Ran
from tests.servers import LOCALHOST, OTHER_HOST, free_port, listening

OTHER = "imap.example.test"
NOWHERE = "nowhere.example.test"
CA = "ca.example.test"
KEYS = {
    *(
        "schema",
        "command",
        "generator",
        "exit_code",
        "days_left",
        "verdict",
        "names",
        "machine",
        "account",
    ),
    *("fetched", "warnings", "log"),
}


@pytest.fixture(scope="module")
def living_dns() -> Iterator[Dns]:
    with dns_server(Dns(zones=["example.test", "test"])) as living:
        yield living


@pytest.fixture
def names(living_dns: Dns) -> Dns:
    """A DNS in which the server has its names."""
    living_dns.broken.clear()
    living_dns.records = {
        HOST_NAME: {"A": [LOCALHOST]},
        OTHER: {"A": [LOCALHOST]},
    }
    return living_dns


@pytest.fixture
def patient(program: Program, names: Dns) -> Program:
    """The program, asking that DNS, and the sandbox's web server instead of port 80."""
    start = program.options.index("--skip-port-check")
    del program.options[start : start + 3]
    program.options += [
        *("--validation-dns", f"{LOCALHOST}:{names.port}"),
        *("--validation-port", str(program.server.http_port)),
    ]
    return program


def codes(ran: Ran, name: str = HOST_NAME) -> list[str]:
    """Return what was found about a name."""
    (row,) = (row for row in ran.report["names"] if row["name"] == name)
    return [finding["code"] for finding in row["findings"]]


def machine(ran: Ran) -> list[str]:
    """Return what was found about the machine."""
    return [finding["code"] for finding in ran.report["machine"]]


def test_doctor_tells_that_all_is_well(patient: Program) -> None:
    before = patient.snapshot()

    ran = patient.run("doctor", "--alternate-host-names", OTHER)

    assert ran.exit_code == 0, ran.messages
    assert ran.report.keys() == KEYS
    assert ran.report["names"] == [
        {"name": name, "served_at": [LOCALHOST], "findings": [], "caa_record": None}
        for name in (HOST_NAME, OTHER)
    ]
    assert ran.report["machine"] == []
    assert ran.report["fetched"] is True
    assert {request.host for request in patient.server.requests} == {HOST_NAME, OTHER}
    assert patient.snapshot() == before
    assert patient.tokens() == []


def test_doctor_tells_it_to_people_as_well(patient: Program) -> None:
    shown = patient.here("doctor", as_json=False)

    assert shown.exit_code == 0
    assert shown.output == (
        f"{HOST_NAME}: good\n  served at    127.0.0.1\nThis machine and the CA: good\n"
        "Every name can be validated as far as this machine sees.\n"
    )


def test_a_name_that_would_fail_wherever_we_stand_ends_the_command_with_4(
    patient: Program,
) -> None:
    ran = patient.here("doctor", "--alternate-host-names", NOWHERE)

    assert ran.exit_code == ran.report["exit_code"] == 4
    assert ran.report.keys() == KEYS | {"error"}
    assert codes(ran) == []
    assert codes(ran, NOWHERE) == ["dns-nxdomain"]
    (finding,) = ran.report["names"][1]["findings"]
    assert finding.keys() == {"code", "weight", "seen", "ca", "change"}
    assert finding["weight"] == "failure"
    assert finding["change"].startswith("Add an A record")
    error = ran.report["error"]
    assert error["type"] == "ChallengeError"
    assert list(error["names"]) == [NOWHERE]
    assert error["names"][NOWHERE] in error["message"]


def test_what_would_fail_is_told_to_people_with_what_to_do(patient: Program) -> None:
    shown = patient.here("doctor", "--alternate-host-names", NOWHERE, as_json=False)

    assert shown.exit_code == 4
    assert f"{HOST_NAME}: good\n" in shown.output
    assert (
        f"{NOWHERE}: would fail\n"
        f"  failure      dns-nxdomain: {NOWHERE} does not exist, according to "
        f"ns.example.test ({OTHER_HOST})\n"
        "  effect       Validation fails (dns): NXDOMAIN.\n"
        "  to do        Add an A record (and AAAA if the server has IPv6) to the "
        "domain's public DNS, or remove the name from the settings.\n"
    ) in shown.output
    assert shown.output.endswith(f"\n1 of 2 names would fail: {NOWHERE}.\n")
    assert "error: The CA cannot validate" in shown.messages
    assert "dns-nxdomain" in shown.messages


@pytest.mark.parametrize("status", ["404 Not Found", "503 Busy"])
def test_what_depends_on_where_we_stand_is_a_warning(
    status: str, patient: Program
) -> None:
    with listening(web(lambda *_: page(b"", status))) as port:
        ran = patient.here("doctor", "--validation-port", str(port))

    assert ran.exit_code == 0
    assert codes(ran) == [f"http-status-{status[:3]}"]
    assert machine(ran) == ["webroot-not-served"]
    assert ran.report["names"][0]["findings"][0]["weight"] == "warning"


def test_a_port_where_nobody_listens_is_a_warning(patient: Program) -> None:
    shown = patient.here("doctor", "--validation-port", str(free_port()), as_json=False)

    assert shown.exit_code == 0
    assert f"{HOST_NAME}: may fail (port80-refused)\n" in shown.output
    here = (
        "  warning      port80-refused: port 80 of this machine: could not connect to"
    )
    assert here in shown.output.partition("This machine and the CA:")[2]
    assert shown.output.endswith(f"\n1 of 1 names may fail: {HOST_NAME}.\n")


def test_what_was_not_checked_is_not_called_good(patient: Program) -> None:
    shown = patient.here("doctor", "--skip-port-check", as_json=False)

    assert shown.output.splitlines() == [
        f"{HOST_NAME}: no problem in DNS, port 80 not checked",
        "This machine and the CA: good, but port 80 was not checked",
        "DNS shows no problem. Port 80 was not checked: no token file was fetched.",
    ]


@pytest.mark.parametrize("closed", [True, False])
def test_one_cause_is_said_once_and_not_once_a_name(
    patient: Program, *, closed: bool, names: Dns
) -> None:
    more = [f"{word}.example.test" for word in ("imap", "pop", "smtp")]
    names.records |= {name: {"A": [LOCALHOST]} for name in more}
    options = ["--alternate-host-names", ",".join(more)]
    with listening(web(lambda *_: moved("http://127.0.0.1/x"))) as port:
        used = free_port() if closed else port
        options += ["--validation-port", str(used)]
        shown = patient.here("doctor", *options, as_json=False).output
        refused = patient.here("doctor", *options).report

    code = "port80-refused" if closed else "http-redirect-host"
    assert shown.count("  to do ") == 1
    for name in (HOST_NAME, *more):
        assert f"{name}: may fail ({code})\n" in shown
    assert all(
        [item["code"] for item in row["findings"]] == [code] for row in refused["names"]
    )


def test_the_last_line_says_that_the_names_are_not_to_blame(patient: Program) -> None:
    missing = patient.layout.folder / "missing"

    shown = patient.here("doctor", "--webroot", str(missing), as_json=False)

    assert shown.output.splitlines()[-1] == (
        "No name has a problem of its own, but this machine or the CA has one."
    )


def test_without_the_port_check_nothing_is_fetched(patient: Program) -> None:
    ran = patient.here("doctor", "--skip-port-check", "--host-name", NOWHERE)

    assert ran.exit_code == 4
    assert codes(ran, NOWHERE) == ["dns-nxdomain"]
    assert patient.server.requests == []


def test_a_resolver_that_is_down_is_a_warning(
    patient: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "letsencrypt_mdaemon.doctor.nameservers.QUERY_TIMEOUT_SECONDS", 0.2
    )
    ran = patient.here("doctor", "--validation-dns", f"{LOCALHOST}:{free_port()}")

    assert ran.exit_code == 0
    assert codes(ran) == ["dns-unreachable"]


def test_more_names_than_the_ca_allows_fail(
    patient: Program, ca: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = Authority(url=ca.directory_url, most_names={"": 1})
    monkeypatch.setitem(AUTHORITIES, "limited", limited)

    ran = patient.here("doctor", "--alternate-host-names", OTHER)

    assert ran.exit_code == 4
    assert machine(ran) == ["too-many-names"]
    assert codes(ran) == []


def test_names_of_a_private_network_fail_at_a_public_ca(patient: Program) -> None:
    start = patient.options.index("--ca-bundle")
    del patient.options[start : start + 2]
    url = "https://ca.example.org/directory"

    # Nothing answers there by this proxy.
    environ = {"HTTPS_PROXY": f"http://{LOCALHOST}:1", "NO_PROXY": ""}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("letsencrypt_mdaemon.acme.transport.ATTEMPTS", 1)
        ran = patient.here("doctor", "--directory-url", url, environ=environ)

    assert ran.exit_code == 4
    assert codes(ran) == ["name-not-public-tld"]
    assert "ca-unreachable" in machine(ran)


def ours(patient: Program, ca: CertificateAuthority, names: Dns, value: str) -> Ran:
    """Have an account at a CA that has a name for CAA records, and examine the name."""
    assert patient.here("renew").exit_code == 0
    meta = {"caaIdentities": [CA, 7, "\x1b"]}
    ca.faults.after("directory", lambda answer: answer.document["meta"].update(meta))
    if value:
        names.records[HOST_NAME]["CAA"] = [f'0 issue "{value}"']
    return patient.here("doctor")


def test_the_record_that_lets_only_our_account_get_certificates_is_shown(
    patient: Program, ca: CertificateAuthority, names: Dns
) -> None:
    ran = ours(patient, ca, names, "")

    assert ran.exit_code == 0
    (account,) = (known.url for known in ca.accounts.values())
    assert ran.report["account"] == account
    record = ran.report["names"][0]["caa_record"]
    assert f"validationmethods=http-01; accounturi={account}" in record
    shown = patient.here("doctor", as_json=False).output
    assert f"publish in DNS:\n  {record}\n" in shown


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (f"{CA}; accounturi=https://{CA}/other", "caa-accounturi"),
        (f"{CA}; validationmethods=dns-01", "caa-method"),
        (";", "caa-forbids"),
    ],
)
def test_caa_records_that_exclude_us_fail(
    value: str, code: str, patient: Program, ca: CertificateAuthority, names: Dns
) -> None:
    ran = ours(patient, ca, names, value)

    assert ran.exit_code == 4
    assert codes(ran) == [code]


def test_the_certificate_in_use_and_the_clock_are_looked_at(
    patient: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert patient.here("renew").exit_code == 0
    monkeypatch.setattr(
        "letsencrypt_mdaemon.sandbox.ca.server.Handler.date_time_string",
        lambda _: "Thu, 01 Jan 2026 00:00:00 GMT",
    )

    found = machine(patient.here("doctor"))

    assert "client-auth" in found
    assert "clock-skew" in found


@pytest.mark.parametrize("paused", ["", "https://ca.example.test/unpause"])
def test_what_keeps_the_next_run_from_trying_is_a_warning(
    patient: Program, ca: CertificateAuthority, paused: str
) -> None:
    state = State(patient.state).ca(ca.directory_url, staging=False)
    failed = Ledger().failed({HOST_NAME: "no"}, datetime.now(UTC), paused=paused)
    state.save(failed)

    ran = patient.here("doctor")

    assert ran.exit_code == 0
    (finding,) = (
        item
        for item in ran.report["machine"]
        if item["code"] in {"ca-paused", "rate-limit-local-ledger"}
    )
    assert finding["code"] == ("ca-paused" if paused else "rate-limit-local-ledger")
    assert finding["weight"] == "warning"
    assert paused in finding["seen"]
    assert HOST_NAME in finding["seen"]


def test_a_ca_that_is_down_is_a_warning(
    patient: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letsencrypt_mdaemon.acme.transport.ATTEMPTS", 1)

    ran = patient.here("doctor", "--directory-url", "https://127.0.0.1:1/directory")

    assert ran.exit_code == 0
    assert machine(ran) == ["ca-unreachable"]


def test_files_and_folders_that_a_renewal_could_not_write_are_found(
    patient: Program,
) -> None:
    with read_only(patient.layout.folder):
        ran = patient.here("doctor")

    assert ran.exit_code == 2
    assert set(machine(ran)) == {
        *("state-unusable", "ini-not-writable", "store-unusable"),
        "webroot-not-writable",
    }
    # As it is not sure that nobody else does, no file is shown.
    assert patient.server.requests == []
    assert codes(ran) == []


def test_targets_that_are_not_known_are_a_warning(patient: Program) -> None:
    for name in (
        "App/MDaemon.ini",
        "WorldClient/WorldClient.ini",
        "WebAdmin/WebAdmin.ini",
    ):
        file = patient.layout.folder / name
        data = re.sub(rb"(?im)^(Certificates?=).*", rb"\1", file.read_bytes())
        file.write_bytes(data)

    ran = patient.here("doctor")

    assert ran.exit_code == 0
    assert machine(ran) == ["targets-unknown"]


def test_a_webroot_that_is_not_there_is_found(patient: Program) -> None:
    missing = patient.layout.folder / "missing"

    ran = patient.here("doctor", "--webroot", str(missing))

    assert ran.exit_code == 2
    assert machine(ran) == ["webroot-not-writable"]


def test_while_another_run_shows_files_the_doctor_shows_none(patient: Program) -> None:
    with exclusive_lock(patient.state / "lock"):
        ran = patient.here("doctor")

    assert ran.exit_code == 6
    assert patient.server.requests == []


def test_what_servers_say_reaches_nobody_raw(patient: Program, names: Dns) -> None:
    bad = "\x1b[31m\x07\x9b"
    names.records[HOST_NAME]["CNAME"] = [r"\027[31m.example.test."]
    with listening(web(lambda *_: page(b"", f"404 {bad}", f"Server: {bad}"))) as port:
        options = ["--validation-port", str(port), "--alternate-host-names", OTHER]
        shown = patient.here("doctor", *options, as_json=False)
        ran = patient.here("doctor", *options)

    for text in (shown.output, shown.messages, ran.output, ran.messages):
        assert text.replace("\n", "").isprintable()
    assert r"\x1b[31m\x07" in shown.output


# In renew


def refused(patient: Program, ca: CertificateAuthority, *options: str) -> Ran:
    """Let the CA find no name, and renew."""
    ca.resolve = lambda _: None
    return patient.here("renew", "--to", "root@example.test", *options)


def test_renew_puts_what_the_doctor_sees_beside_the_cas_words(
    patient: Program, ca: CertificateAuthority, names: Dns
) -> None:
    del names.records[HOST_NAME]

    ran = refused(patient, ca)

    assert ran.exit_code == 4
    error = ran.report["error"]
    seen = f"{HOST_NAME} does not exist, according to ns.example.test ({OTHER_HOST}) "
    seen += "(dns-nxdomain)"
    assert "NXDOMAIN looking up A" in error["message"]
    assert f"Seen from this machine:\n  - {seen}" in error["message"]
    assert error["names"][HOST_NAME].endswith(f" - seen from here: {seen}")
    assert "NXDOMAIN looking up A" in error["names"][HOST_NAME]
    assert error["hint"].startswith("Add an A record")
    (finding,) = error["findings"][HOST_NAME]["findings"]
    assert finding["code"] == "dns-nxdomain"
    assert seen in ran.messages
    assert seen in patient.log()
    patient.server.wait_for(lambda: patient.server.delivered)
    mail = patient.server.delivered[0].read_text("ascii")
    assert seen in mail
    assert "Add an A record" in mail
    assert patient.tokens() == []


def test_a_cause_of_some_names_only_is_said_once_too(
    patient: Program, names: Dns
) -> None:
    kind = "AAAA" if ":" in OTHER_HOST else "A"
    more = [f"{word}.example.test" for word in ("imap", "pop", "smtp")]
    names.records |= {name: {kind: [OTHER_HOST]} for name in more}

    options = ["--alternate-host-names", ",".join(more)]
    shown = patient.here("doctor", *options, as_json=False).output

    assert f"{HOST_NAME}: good\n" in shown
    assert f"{more[0]}: may fail\n  warning      port80-refused: could not" in shown
    for name in more[1:]:
        assert f"{name}: may fail (port80-refused)\n" in shown
    assert shown.count("  to do ") == 1


def test_renew_says_a_cause_once_with_the_names_that_have_it(
    patient: Program, ca: CertificateAuthority, names: Dns
) -> None:
    del names.records[HOST_NAME], names.records[OTHER]

    error = refused(patient, ca, "--alternate-host-names", OTHER).report["error"]

    assert error["message"].count("(dns-nxdomain)") == 1
    assert error["message"].endswith(f"(dns-nxdomain); the same for {OTHER}")


def test_the_ports_of_webmail_in_the_servers_files_are_looked_at(
    patient: Program,
) -> None:
    with listening(web(lambda *_: page(b"Hello"))) as port:
        file = patient.layout.folder / "WorldClient" / "WorldClient.ini"
        file.write_bytes(
            b"[WebServer]\r\nPort=%d\r\nSSLPort=x\r\nPortal=99999\r\n" % port
            + file.read_bytes()
        )
        ran = patient.here("doctor", "--validation-port", str(free_port()))

    assert machine(ran) == codes(ran) == ["webmail-other-port"]
    seen = ran.report["machine"][0]["seen"]
    assert f"; port {port} of this machine answers in HTTP" in seen


def test_where_all_is_well_from_here_the_suspects_are_named(
    patient: Program, ca: CertificateAuthority
) -> None:
    error = refused(patient, ca).report["error"]

    assert f"the file can be read: {HOST_NAME}" in error["message"]
    assert "Location and Dynamic Screening" in error["hint"]
    assert patient.tokens() == []


def test_renew_without_the_port_check_fetches_nothing(
    patient: Program, ca: CertificateAuthority
) -> None:
    error = refused(patient, ca, "--skip-port-check").report["error"]

    assert "no problem in DNS. It did not check port 80." in error["message"]
    assert patient.server.requests == []


def test_a_doctor_that_fails_changes_nothing(
    patient: Program, ca: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("letsencrypt_mdaemon.app.checkup.check_names", fail)

    ran = refused(patient, ca)

    assert ran.exit_code == 4
    error = ran.report["error"]
    assert "Seen from" not in error["message"]
    assert error["findings"] == {}
    assert error["hint"].startswith("Correct each name in DNS")
    assert "Zero" not in ran.messages


def test_what_servers_say_reaches_no_log_and_no_mail_raw(
    patient: Program, ca: CertificateAuthority
) -> None:
    bad = "\x1b[31m\x07\x9b"
    with listening(web(lambda *_: moved(f"http://{bad}/"))) as port:
        ran = refused(patient, ca, "--validation-port", str(port))

    assert "http-redirect-invalid" in ran.report["error"]["message"]
    patient.server.wait_for(lambda: patient.server.delivered)
    mail = patient.server.delivered[0].read_text("ascii")
    for text in (ran.output, ran.messages, patient.log(), mail):
        assert text.replace("\n", "").isprintable()
        assert "http-redirect-invalid" in text


def test_names_that_the_ca_made_up_are_not_examined(
    patient: Program, ca: CertificateAuthority, names: Dns
) -> None:
    names.asked.clear()

    def rename(answer: object) -> None:
        answer.document["identifier"]["value"] = "\x1b[31m.example.test"  # type: ignore[attr-defined]

    ca.faults.after("authorization", rename)

    ran = refused(patient, ca)

    assert ran.exit_code == 4
    assert names.asked == []
    assert ran.report["error"]["findings"] == {}
