"""Answers are proven from the root on, or not believed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdataset
import dns.rrset
import pytest
from dns.rdatatype import DNSKEY, DS, MX, NSEC, RRSIG, TLSA, A, RdataType

from letsencrypt_mdaemon.policy import anchors
from letsencrypt_mdaemon.policy.answer import State
from letsencrypt_mdaemon.policy.validator import Validator
from tests.signed import NOW, InMemory, SignedZone, World, world

DATA = "ab" * 32
MAIL = "_25._tcp.mail.example.test"
RECORDS = (
    "mail 3600 IN A 192.0.2.9",
    f"_25._tcp.mail 300 IN TLSA 3 1 1 {DATA}",
    "@ 3600 IN MX 10 mail.example.test.",
    "alias 60 IN CNAME mail.example.test.",
    f"_25._tcp.alias 60 IN CNAME {MAIL}.",
    "away 60 IN CNAME mx.plain.test.",
    "loop 60 IN CNAME loop.example.test.",
    "*.wild 60 IN A 192.0.2.7",
    "tree 60 IN DNAME example.test.",
)


def plain() -> SignedZone:
    return SignedZone(
        "plain.test",
        ["@ 60 IN MX 5 mx.plain.test.", "mx 60 IN A 192.0.2.8"],
        is_signed=False,
    )


@pytest.fixture
def dns_world() -> World:
    return world(*RECORDS, zones=[plain()])


@pytest.mark.parametrize(
    ("name", "kind", "texts", "exists"),
    [
        ("mail.example.test", A, ["192.0.2.9"], True),
        ("MAIL.Example.TEST.", A, ["192.0.2.9"], True),
        (MAIL, TLSA, [f"3 1 1 {DATA}"], True),
        ("alias.example.test", A, ["192.0.2.9"], True),
        ("_25._tcp.alias.example.test", TLSA, [f"3 1 1 {DATA}"], True),
        ("a.b.wild.example.test", A, ["192.0.2.7"], True),
        ("mail.tree.example.test", A, ["192.0.2.9"], True),
        # NODATA and NXDOMAIN are told apart.
        ("mail.example.test", TLSA, [], True),
        ("_tcp.mail.example.test", TLSA, [], True),  # an empty non-terminal
        ("a.wild.example.test", TLSA, [], True),
        ("_tcp.nobody.example.test", TLSA, [], False),
        ("nobody", A, [], False),
    ],
)
def test_what_a_signed_zone_says_is_proven(
    name: str, kind: RdataType, texts: list[str], *, exists: bool, dns_world: World
) -> None:
    answer = dns_world.validator().look_up(name, kind)

    assert answer.state is State.SECURE, answer.why
    assert [row.to_text() for row in answer.rdatas] == texts
    assert answer.exists == exists


@pytest.mark.parametrize("name", ["plain.test", "deep.plain.test"])
def test_a_zone_is_unsigned_if_its_parent_proves_that(
    name: str, dns_world: World
) -> None:
    assert dns_world.validator().look_up(name, MX).state is State.INSECURE


def test_an_alias_into_an_unsigned_zone_is_no_proof(dns_world: World) -> None:
    answer = dns_world.validator().look_up("away.example.test", A)

    assert answer.state is State.INSECURE
    assert [row.to_text() for row in answer.rdatas] == ["192.0.2.8"]


def test_a_loop_of_aliases_fails(dns_world: World) -> None:
    answer = dns_world.validator().look_up("loop.example.test", A)

    assert answer.state is State.FAILED
    assert "aliases" in answer.why


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".test", "a." * 200])
def test_what_is_no_name_fails(name: str, dns_world: World) -> None:
    assert dns_world.validator().look_up(name, A).state is State.FAILED


# Lies


def other_data(response: dns.message.Message) -> None:
    for number, rrset in enumerate(response.answer):
        if rrset.rdtype == TLSA:
            wrong = dns.rrset.from_text(
                rrset.name, rrset.ttl, "IN", "TLSA", "3 1 1 " + "cd" * 32
            )
            response.answer[number] = wrong


def no_signature(response: dns.message.Message) -> None:
    response.answer = [x for x in response.answer if x.rdtype != RRSIG]
    response.authority = [x for x in response.authority if x.rdtype != RRSIG]


def nothing_there(response: dns.message.Message) -> None:
    response.answer.clear()


def no_such_name(response: dns.message.Message) -> None:
    response.answer.clear()
    response.set_rcode(dns.rcode.NXDOMAIN)


def other_owner(response: dns.message.Message) -> None:
    """Let a signed record of another name stand for this one."""
    for rrset in response.answer:
        rrset.name = dns.name.from_text("_25._tcp.other.example.test")


@pytest.mark.parametrize(
    "lie", [other_data, no_signature, nothing_there, no_such_name, other_owner]
)
@pytest.mark.parametrize(
    ("name", "kind"),
    [(MAIL, TLSA), ("example.test", DS), ("example.test", DNSKEY)],
)
def test_a_lie_about_a_signed_zone_is_bogus(
    lie: Callable[[dns.message.Message], None],
    name: str,
    kind: RdataType,
    dns_world: World,
) -> None:
    if lie is other_data and kind != TLSA:
        lie = no_signature
    dns_world.broken[name, kind] = lie

    answer = dns_world.validator().look_up(MAIL, TLSA)

    assert answer.state is State.BOGUS
    assert answer.rdatas == ()
    assert answer.why


def test_a_denial_without_a_signature_proves_nothing(dns_world: World) -> None:
    dns_world.broken["mail.example.test", TLSA] = no_signature

    answer = dns_world.validator().look_up("mail.example.test", TLSA)

    assert answer.state is State.BOGUS


def test_a_denial_of_another_name_proves_nothing(dns_world: World) -> None:
    """An NSEC record that is signed, but does not cover the name."""
    response = dns_world.answer(dns.message.make_query("zzz.example.test", A))
    replayed = list(response.authority)

    def lie(answer: dns.message.Message) -> None:
        answer.answer.clear()
        answer.authority[:] = replayed

    dns_world.broken[MAIL, TLSA] = lie

    assert dns_world.validator().look_up(MAIL, TLSA).state is State.BOGUS


def test_a_wildcard_does_not_stand_for_a_name_that_may_exist(dns_world: World) -> None:
    def lie(answer: dns.message.Message) -> None:
        answer.authority.clear()

    dns_world.broken["a.wild.example.test", A] = lie

    answer = dns_world.validator().look_up("a.wild.example.test", A)

    assert answer.state is State.BOGUS
    assert "wildcard" in answer.why


def test_the_parents_record_at_a_zone_cut_denies_nothing_below_it(
    dns_world: World,
) -> None:
    """RFC 6840, 4.1: else a parent could deny what its child has."""
    cut = dns_world.answer(dns.message.make_query("plain.test", DS))
    stolen = [x for x in cut.authority if x.rdtype in (NSEC, RRSIG)]

    def lie(answer: dns.message.Message) -> None:
        answer.answer.clear()
        answer.authority[:] = stolen
        answer.set_rcode(dns.rcode.NXDOMAIN)

    dns_world.broken["mx.plain.test", A] = lie

    # It is unsigned, but not proven to be missing.
    assert dns_world.validator().look_up("mx.plain.test", A).state is State.INSECURE


# Keys, hashes and times


def test_a_signature_that_expired_is_bogus_and_one_of_tomorrow(
    dns_world: World,
) -> None:
    late = dns_world.validator(at=NOW + timedelta(days=31)).look_up(MAIL, TLSA)
    early = dns_world.validator(at=NOW - timedelta(days=2)).look_up(MAIL, TLSA)

    assert (late.state, early.state) == (State.BOGUS, State.BOGUS)
    assert "has expired" in late.why
    assert "not valid yet" in early.why


def test_an_answer_lasts_no_longer_than_its_signature(dns_world: World) -> None:
    soon = dns_world.validator(at=NOW + timedelta(days=30, seconds=-7))

    assert soon.look_up(MAIL, TLSA).ttl == 7
    assert dns_world.validator().look_up(MAIL, TLSA).ttl == 300


def test_another_key_than_the_parent_names_is_bogus(dns_world: World) -> None:
    zone = dns_world.zones[dns.name.from_text("example.test")]
    zone.published_ds = [SignedZone("example.test").ds]
    dns_world.refresh()

    answer = dns_world.validator().look_up(MAIL, TLSA)

    assert answer.state is State.BOGUS
    assert "its parent names" in answer.why


def test_a_key_may_be_rolled_over(dns_world: World) -> None:
    """The parent names both keys for a while."""
    zone = dns_world.zones[dns.name.from_text("example.test")]
    zone.published_ds = [SignedZone("example.test").ds, zone.ds]
    dns_world.refresh()

    assert dns_world.validator().look_up(MAIL, TLSA).state is State.SECURE


@pytest.mark.parametrize("row", ["1 253 2 " + "ab" * 32, "1 13 200 " + "ab" * 32])
def test_a_zone_with_unknown_algorithms_only_is_unsigned(
    row: str, dns_world: World
) -> None:
    """RFC 4035, 5.2."""
    zone = dns_world.zones[dns.name.from_text("example.test")]
    zone.published_ds = [row]
    dns_world.refresh()

    assert dns_world.validator().look_up(MAIL, TLSA).state is State.INSECURE


def test_another_root_is_not_believed(dns_world: World) -> None:
    validator = Validator(InMemory(dns_world), at=NOW, trusted=anchors.ROOT)

    assert validator.look_up(MAIL, TLSA).state is State.BOGUS


def test_roots_anchors_are_those_that_iana_publishes() -> None:
    """As in root.ds of Debian's package dns-root-data, 2024071801."""
    text = (Path(__file__).parent / "root-anchors.txt").read_text("ascii")
    published = {line.partition(" DS ")[2].lower() for line in text.splitlines()}

    ours = {
        f"{x.key_tag} {x.algorithm} {x.digest_type} {x.digest}" for x in anchors.ROOT
    }

    assert ours == published


# Servers


def test_a_resolver_is_asked_where_no_other_server_can_be_reached(
    dns_world: World,
) -> None:
    for kind in (A, DS, DNSKEY, TLSA, MX):
        for number in (1, 2):
            dns_world.broken[f"ns{number}.test", kind] = "silent"

    answer = dns_world.validator().look_up(MAIL, TLSA)

    assert answer.state is State.SECURE, answer.why
    assert {who for who, *_ in dns_world.asked[-3:]} == {""}


def test_silence_is_no_answer_and_no_proof(dns_world: World) -> None:
    dns_world.broken[MAIL, TLSA] = "silent"

    answer = dns_world.validator().look_up(MAIL, TLSA)

    assert answer.state is State.FAILED
    assert not answer.is_known
    assert "no DNS server answers" in answer.why


def test_one_zone_is_looked_up_once(dns_world: World) -> None:
    validator = dns_world.validator()
    validator.look_up(MAIL, TLSA)
    validator.look_up("mail.example.test", A)

    keys = [name for _, name, kind in dns_world.asked if kind == "DNSKEY"]
    assert sorted(keys) == ["", "example.test", "test"] or sorted(keys) == [
        ".",
        "example.test",
        "test",
    ]


def test_all_servers_of_the_zone_are_asked(dns_world: World) -> None:
    validator = dns_world.validator()
    answer = validator.look_up(MAIL, TLSA)
    dns_world.asked.clear()

    rows = validator.at_all_servers(answer, TLSA)

    assert [row.rdatas for row in rows] == [answer.rdatas] * 2
    assert [who for who, *_ in dns_world.asked] == ["ns1.test", "ns2.test"]


def test_a_silent_server_and_a_lame_one_do_not_count(dns_world: World) -> None:
    validator = dns_world.validator()
    answer = validator.look_up(MAIL, TLSA)
    dns_world.broken["ns1.test", TLSA] = "silent"
    assert len(validator.at_all_servers(answer, TLSA)) == 1

    def lame(response: dns.message.Message) -> None:
        response.answer.clear()
        response.authority.clear()
        response.set_rcode(dns.rcode.REFUSED)

    dns_world.broken["ns1.test", TLSA] = lame
    assert len(validator.at_all_servers(answer, TLSA)) == 1
