"""`doctor --mail` says what senders that insist on TLS would stumble over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from letsencrypt_mdaemon.app import mail_checkup, mail_policy, renewal
from letsencrypt_mdaemon.policy.mta_sts import FetchError, Policy
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.state.folder import State
from tests.program import HOST_NAME, Program, Ran
from tests.signed import SignedZone, World, world

DAY = timedelta(days=1)
NOW = datetime.now(UTC)
ADDRESS = "mail 60 IN A 192.0.2.9"
MX_RECORD = "@ 60 IN MX 10 mail"
STS = '_mta-sts 60 IN TXT "v=STSv1; id=1"'
REPORTS = '_smtp._tls 60 IN TXT "v=TLSRPTv1; rua=mailto:tls@example.test"'
CAA = '@ 60 IN CAA 0 issue "ca.example.net"'
GOOD = [ADDRESS, MX_RECORD, STS, REPORTS, CAA, "mta-sts 60 IN A 192.0.2.9"]
ENFORCED = Policy("enforce", (HOST_NAME,), 604800)


class Mail:
    """What DNS and the policy host say."""

    def __init__(self) -> None:
        self.records = list(GOOD)
        self.zones: list[SignedZone] = []
        self.policy: Policy | FetchError = ENFORCED
        self.is_bogus = False
        self._made: tuple[object, World] | None = None

    def world(self) -> World:
        key = (tuple(self.records), len(self.zones), self.is_bogus)
        if self._made is None or self._made[0] != key:
            self._made = (key, self._signed())
        return self._made[1]

    def _signed(self) -> World:
        made = world(*self.records, zones=self.zones)
        for zone in made.zones.values():
            zone.since, zone.until = NOW - DAY, NOW + 30 * DAY
            if self.is_bogus and zone.name == "example.test":
                zone.until = NOW - DAY / 2
        made.refresh()
        return made

    def fetch(self, _name: str, at: list[str]) -> Policy:
        assert at == ["192.0.2.9"]
        if isinstance(self.policy, FetchError):
            raise self.policy
        return self.policy


@pytest.fixture
def mail(monkeypatch: pytest.MonkeyPatch) -> Mail:
    made = Mail()
    monkeypatch.setattr(
        mail_policy,
        "validator",
        lambda _config, at=None: made.world().validator(at=at or NOW),
    )
    monkeypatch.setattr(mail_checkup, "fetch", made.fetch)
    return made


def doctor(program: Program, *, code: int = 0, as_json: bool = True) -> Ran:
    words = ("--mail", "--mail-domains", "example.test")
    ran = program.here("doctor", *words, as_json=as_json)
    assert ran.exit_code == code, (ran.output, ran.messages)
    return ran


def codes(ran: Ran, *, bad: bool = True) -> set[str]:
    rows = ran.report["mail"]
    return {row["code"] for row in rows if not bad or row["weight"] != "note"}


@pytest.fixture
def renewed(program: Program, mail: Mail) -> Program:
    assert program.here("renew").exit_code == 0
    assert mail.records
    return program


def test_a_domain_that_keeps_everything_has_nothing_bad(
    renewed: Program, mail: Mail
) -> None:
    ran = doctor(renewed)

    assert mail.records
    assert codes(ran) == set()
    assert codes(ran, bad=False) == {"caa-records", "good"}
    assert ran.report["verdict"] == "No sender that insists on TLS would fail."
    text = doctor(renewed, as_json=False).output
    assert f'{HOST_NAME}: example.test: 0 issue "ca.example.net"' in text


@pytest.mark.parametrize(
    ("without", "more", "policy", "code"),
    [
        (STS, [], ENFORCED, "sts-none"),
        (REPORTS, [], ENFORCED, "tlsrpt-none"),
        (CAA, [], ENFORCED, "caa-none"),
        ("", [STS.replace("id=1", "id=2")], ENFORCED, "sts-record-invalid"),
        (REPORTS, ['_smtp._tls 60 IN TXT "v=TLSRPTv1;"'], ENFORCED, "tlsrpt-invalid"),
        ("", ["@ 60 IN MX 20 mx.else.test."], ENFORCED, "mx-elsewhere"),
        (MX_RECORD, ["@ 60 IN MX 0 ."], ENFORCED, "mx-none"),
        ("", [], ENFORCED._replace(max_age=60), "sts-short"),
        ("", [], ENFORCED._replace(mode="testing"), "sts-testing"),
        ("", [], FetchError("certificate", "it has expired"), "sts-certificate"),
        ("", [], FetchError("redirect", "HTTP 301"), "sts-redirect"),
        ("", [], FetchError("too-large", "it is large"), "sts-too-large"),
        ("", [], FetchError("unreachable", "refused"), "sts-unreachable"),
        ("", [], FetchError("invalid", "its mode is odd"), "sts-invalid"),
        ("", [], FetchError("status", "HTTP 404"), "sts-status"),
    ],
)
def test_what_is_odd_has_a_code_and_loses_nothing(  # noqa: PLR0913, PLR0917 - a table
    renewed: Program,
    mail: Mail,
    without: str,
    more: list[str],
    policy: Policy | FetchError,
    code: str,
) -> None:
    mail.records = [row for row in mail.records if row != without] + more
    mail.policy = policy
    if "else.test" in str(more):
        mail.policy = ENFORCED._replace(mx=(HOST_NAME, "mx.else.test"))

    ran = doctor(renewed)

    assert code in codes(ran, bad=False)
    (row,) = [row for row in ran.report["mail"] if row["code"] == code]
    assert row["change"]


@pytest.mark.parametrize("mode", ["enforce", "testing"])
@pytest.mark.parametrize(
    ("more", "mx", "code"),
    [
        ([], ("other.example.test",), "sts-mx-missing"),
        (["@ 60 IN MX 5 mx2", "mx2 60 IN A 192.0.2.9"], None, "sts-name-missing"),
    ],
)
def test_an_enforced_policy_that_the_server_fails_loses_mail(  # noqa: PLR0913, PLR0917 - a table
    renewed: Program,
    mail: Mail,
    mode: str,
    more: list[str],
    mx: tuple[str, ...] | None,
    code: str,
) -> None:
    mail.records += more
    mail.policy = Policy(mode, mx or (HOST_NAME, "mx2.example.test"), 604800)

    ran = doctor(renewed, code=5 if mode == "enforce" else 0)

    (row,) = [row for row in ran.report["mail"] if row["code"] == code]
    assert row["weight"] == ("loses mail" if mode == "enforce" else "warning")


def test_a_bogus_zone_loses_mail(renewed: Program, mail: Mail) -> None:
    mail.is_bogus = True

    assert "dns-bogus" in codes(doctor(renewed, code=5))


def test_an_unsigned_domain_without_a_policy_proves_nothing(
    renewed: Program, mail: Mail
) -> None:
    mail.records.remove(STS)
    mail.zones = [
        SignedZone("plain.test", [f"@ 60 IN MX 10 {HOST_NAME}."], is_signed=False)
    ]

    ran = renewed.here("doctor", "--mail", "--mail-domains", "plain.test")

    assert {"dnssec-unsigned", "requiretls-unproven"} <= codes(ran, bad=False)


def test_records_that_match_nothing_lose_mail(renewed: Program, mail: Mail) -> None:
    mail.records.append("_25._tcp.mail 60 IN TLSA 3 1 1 " + "ab" * 32)

    assert "tlsa-no-match" in codes(doctor(renewed, code=5))


def test_a_policy_that_changed_without_its_id_is_found(
    renewed: Program, mail: Mail
) -> None:
    words = ("--mail-domains", "example.test")
    state = State(renewed.state)
    assert renewed.here("renew", *words).exit_code == 0
    assert (look := state.mail())
    assert look.needed == (HOST_NAME,)
    mail.policy = ENFORCED._replace(max_age=700_000)

    assert "sts-id-unchanged" in codes(doctor(renewed))
    mail.records[mail.records.index(STS)] = STS.replace("id=1", "id=2")
    assert codes(doctor(renewed)) == set()


def test_check_warns_of_what_loses_mail(renewed: Program, mail: Mail) -> None:
    mail.policy = ENFORCED._replace(mx=("other.example.test",))
    assert renewed.here("renew", "--mail-domains", "example.test").exit_code == 0

    ran = renewed.here("check", as_json=False)

    assert ran.exit_code == 1
    assert (
        f"example.test loses mail: the policy does not list {HOST_NAME}" in ran.output
    )


def test_a_name_that_an_enforced_policy_needs_is_never_dropped(
    program: Program, ca: CertificateAuthority, mail: Mail
) -> None:
    mail.records += ["@ 60 IN MX 20 mx2", "mx2 60 IN A 192.0.2.9"]
    mail.policy = Policy("enforce", ("*.example.test",), 604800)
    more = "mx2.example.test"
    ca.blocked = {more}
    words = ("--alternate-host-names", more, "--on-name-failure", "drop")

    ran = program.here("renew", *words, "--mail-domains", "example.test")

    assert ran.exit_code in {3, 4}, ran.messages
    (program.state / "mail.json").unlink()
    mail.policy = ENFORCED
    later = program.here("renew", *words, "--force", "--mail-domains", "example.test")
    assert later.exit_code == 0, later.messages
    assert later.report["certificate"]["names"] == [HOST_NAME]


def test_a_needed_name_stays_needed_while_the_policy_cannot_be_fetched(
    renewed: Program, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "MAIL_PAUSE", timedelta())
    words = ("renew", "--mail-domains", "example.test")

    def needed() -> tuple[str, ...]:
        assert renewed.here(*words).exit_code == 0
        look = State(renewed.state).mail()
        assert look is not None
        return look.needed

    assert needed() == (HOST_NAME,)
    mail.policy = FetchError("unreachable", "refused")
    assert needed() == (HOST_NAME,)
    assert needed() == (HOST_NAME,)
    mail.policy = ENFORCED
    mail.is_bogus = True
    assert needed() == (HOST_NAME,)
    mail.is_bogus = False
    mail.records.remove(STS)
    assert needed() == ()


def test_a_laboratory_is_told_that_it_has_no_root(program: Program) -> None:
    ran = program.here("doctor", "--mail")

    assert ran.exit_code == 2
    assert "has no root" in ran.report["error"]["message"]
