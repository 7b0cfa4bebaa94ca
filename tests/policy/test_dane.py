"""TLSA records are looked up as senders look them up."""

from __future__ import annotations

import dns.message
import dns.rdatatype
import dns.rrset
import pytest
from dns.rdatatype import MX, TLSA, A

from letsencrypt_mdaemon.pki.tlsa import Tlsa
from letsencrypt_mdaemon.policy.dane import MAX_RECORDS, Found, look_up, mx_hosts
from tests.signed import SignedZone, World, world

NAME = "mail.example.test"
AB, CD = "ab" * 32, "cd" * 32
PIN = Tlsa(3, 1, 1, AB)


def found(
    of: World,
    *domains: str,
    names: tuple[str, ...] = (NAME,),
    ports: tuple[int, ...] = (),
) -> Found:
    return look_up(of.validator(), names, ports, domains)


def owners(of: Found) -> list[str]:
    return [row.owner for row in of.ports]


HOST = "mail 3600 IN A 192.0.2.9"


def test_a_port_25_of_each_name_and_each_mx_host_is_looked_up() -> None:
    dns_ = world(
        HOST,
        "backup 3600 IN A 192.0.2.10",
        f"_25._tcp.mail 300 IN TLSA 3 1 1 {AB}",
        f"_25._tcp.backup 60 IN TLSA 3 1 1 {CD}",
        "@ 60 IN MX 10 mail",
        "@ 60 IN MX 20 backup",
    )

    rows = found(dns_, "example.test")

    assert owners(rows) == [f"_25._tcp.{NAME}", "_25._tcp.backup.example.test"]
    assert rows.ports[0].records == (PIN,)
    assert rows.ports[0].ttl == 300
    assert rows.failed == ()


def test_other_ports_are_looked_up_for_names_only() -> None:
    dns_ = world(
        HOST,
        "mx 60 IN A 192.0.2.9",
        f"_465._tcp.mail 300 IN TLSA 1 1 1 {AB}",
        f"_465._tcp.mx 300 IN TLSA 3 1 1 {AB}",
        "@ 60 IN MX 10 mx",
    )

    rows = found(dns_, "example.test", ports=(465, 993))

    assert owners(rows) == [f"_465._tcp.{NAME}"]
    assert rows.ports[0].records == (Tlsa(1, 1, 1, AB),)


def test_a_name_without_records_costs_one_question() -> None:
    dns_ = world(HOST)

    found(dns_, ports=(25, 110, 143, 465, 587, 993, 995, 443, 444))

    asked = [row for row in dns_.asked if row[2] == "TLSA" and row[0] == "ns1.test"]
    # What does not exist has nothing below it (RFC 8020).
    assert [name for _, name, _ in asked] == [f"_tcp.{NAME}"]


@pytest.mark.parametrize(
    "records",
    [
        ["_25._tcp.mail 60 IN CNAME tlsa", f"tlsa 60 IN TLSA 3 1 1 {AB}"],
        [f"*._tcp.mail 60 IN TLSA 3 1 1 {AB}"],
    ],
)
def test_aliases_and_wildcards_of_the_records_are_followed(records: list[str]) -> None:
    rows = found(world(HOST, *records))

    assert owners(rows) == [f"_25._tcp.{NAME}"]
    assert rows.ports[0].records == (PIN,)


def test_the_name_that_an_alias_leads_to_comes_first() -> None:
    """RFC 7671, 7."""
    alias = "alias 60 IN CNAME mail.example.test."
    here, there = (
        f"_25._tcp.alias 60 IN TLSA 3 1 1 {CD}",
        f"_25._tcp.mail 60 IN TLSA 3 1 1 {AB}",
    )
    names = ("alias.example.test",)

    both = found(world(HOST, alias, here, there), names=names)
    one = found(world(HOST, alias, here), names=names)

    assert owners(both) == [f"_25._tcp.{NAME}"]
    assert owners(one) == ["_25._tcp.alias.example.test"]


def test_unsigned_zones_have_no_records() -> None:
    plain = SignedZone(
        "plain.test",
        [
            "@ 60 IN MX 10 mx",
            "mx 60 IN A 192.0.2.9",
            f"_25._tcp.mx 60 IN TLSA 3 1 1 {AB}",
        ],
        is_signed=False,
    )

    rows = found(world(HOST, zones=[plain]), "plain.test")

    assert rows == Found(hosts=(NAME, "mx.plain.test"))


def test_an_alias_into_an_unsigned_zone_keeps_the_records_of_its_own_name() -> None:
    """RFC 7672, 2.2.2."""
    plain = SignedZone("plain.test", ["mx 60 IN A 192.0.2.9"], is_signed=False)
    signed = ["away 60 IN CNAME mx.plain.test.", f"_25._tcp.away 60 IN TLSA 3 1 1 {AB}"]
    dns_ = world(*signed, zones=[plain])

    rows = found(dns_, names=("away.example.test", "mx.plain.test"))

    assert owners(rows) == ["_25._tcp.away.example.test"]
    assert not [row for row in dns_.asked if "_tcp.mx.plain.test" in row[1]]


def test_the_signed_mx_host_of_an_unsigned_domain_is_looked_up() -> None:
    plain = SignedZone("plain.test", [f"@ 60 IN MX 10 {NAME}."], is_signed=False)
    dns_ = world(HOST, f"_25._tcp.mail 60 IN TLSA 3 1 1 {AB}", zones=[plain])

    assert owners(found(dns_, "plain.test", names=())) == [f"_25._tcp.{NAME}"]


def test_what_only_some_servers_have_is_no_record_of_all() -> None:
    dns_ = world(HOST, f"_25._tcp.mail 60 IN TLSA 3 1 1 {AB}")
    older = World(
        *[
            SignedZone(z.name, z.records, key=z.key)
            if z.name != "example.test"
            else SignedZone(
                z.name,
                [HOST, f"_25._tcp.mail 900 IN TLSA 3 1 1 {CD}"],
                key=z.key,
            )
            for z in dns_.zones.values()
        ]
    )
    query = dns.message.make_query(f"_25._tcp.{NAME}", TLSA)

    def other(response: dns.message.Message) -> None:
        response.answer[:] = older.answer(query).answer

    dns_.broken["ns2.test", TLSA] = other

    (row,) = found(dns_).ports

    assert row.records == ()
    assert set(row.partly) == {PIN, Tlsa(3, 1, 1, CD)}
    assert row.ttl == 900


def test_what_cannot_be_looked_up_says_why() -> None:
    dns_ = world(HOST, f"_25._tcp.mail 60 IN TLSA 3 1 1 {AB}", "@ 60 IN MX 10 mail")
    dns_.broken[f"_25._tcp.{NAME}", TLSA] = "silent"
    dns_.broken["example.test", MX] = "silent"

    rows = found(dns_, "example.test")

    (row,) = rows.ports
    assert "no DNS server answers" in row.why
    assert rows.failed[0][0] == "example.test"


def test_a_host_that_is_bogus_says_why() -> None:
    dns_ = world(HOST)

    def strip(response: dns.message.Message) -> None:
        response.answer.pop()

    dns_.broken[NAME, A] = strip

    assert "nothing proves" in found(dns_).ports[0].why


def test_a_hundred_records_are_read_and_more_do_not_count() -> None:
    rows = [f"_25._tcp.mail 60 IN TLSA 3 1 1 {number:064x}" for number in range(150)]
    rows += [f"_25._tcp.mail 60 IN TLSA {u} 9 200 {'ab' * u}" for u in range(4, 9)]

    (row,) = found(world(HOST, *rows)).ports

    assert len(row.records) == MAX_RECORDS == 100


@pytest.mark.parametrize(
    ("records", "hosts"),
    [
        (["@ 60 IN MX 20 b.test.", "@ 60 IN MX 5 A.Test."], ["a.test", "b.test"]),
        (["@ 60 IN MX 0 ."], []),  # RFC 7505
        ([], ["example.test"]),
        (
            [f"@ 60 IN MX {n} m{n}.test." for n in range(50)],
            [f"m{n}.test" for n in range(20)],
        ),
    ],
)
def test_mx_hosts(records: list[str], hosts: list[str]) -> None:
    answer = world(*records).validator().look_up("example.test", MX)

    assert mx_hosts(answer) == hosts


def test_a_domain_that_does_not_exist_has_no_hosts() -> None:
    answer = world().validator().look_up("nobody.example.test", MX)

    assert mx_hosts(answer) == []
