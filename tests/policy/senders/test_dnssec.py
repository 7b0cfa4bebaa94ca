"""Our validator and Unbound are of one mind."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from dns.rdatatype import DS, MX, TLSA, A, RdataType

from letsencrypt_mdaemon.pki.tlsa import Tlsa
from letsencrypt_mdaemon.policy.answer import State
from letsencrypt_mdaemon.policy.dane import Found, look_up
from letsencrypt_mdaemon.renewal.dane import merge
from letsencrypt_mdaemon.state.pins import Pins
from tests.policy.senders.servers import DATA, Zones, text_of

NAMES = [
    ("mail.{}", A),
    ("{}", MX),
    ("_25._tcp.mail.{}", TLSA),
    ("_25._tcp.alias.{}", TLSA),
    ("_tcp.mail.{}", TLSA),  # NODATA: an empty non-terminal
    ("mail.{}", TLSA),  # NODATA
    ("_tcp.nobody.{}", TLSA),  # NXDOMAIN
    ("a.b.wild.{}", A),
    ("a.wild.{}", TLSA),
]
ZONES = {
    "nsec.test": State.SECURE,
    "nsec3.test": State.SECURE,
    "plain.test": State.INSECURE,
    "under.nsec3.test": State.INSECURE,
    "lamed.test": State.SECURE,
    "rolled.test": State.SECURE,
    "wrong.test": State.BOGUS,
    "expired.test": State.BOGUS,
}


@pytest.mark.parametrize(("zone", "state"), ZONES.items())
@pytest.mark.parametrize(("form", "kind"), NAMES)
def test_both_say_the_same(
    form: str, kind: RdataType, zone: str, state: State, dns: Zones
) -> None:
    name = form.format(zone)

    answer = dns.validator().look_up(name, kind)

    assert answer.state.value == dns.second_opinion(name, kind), answer
    # With opt-out, what does not exist cannot be told from what is unsigned.
    is_opt_out = zone == "nsec3.test" and ("nobody" in form or "wild" in form)
    assert answer.state is (State.INSECURE if is_opt_out else state), answer
    if answer.is_known:
        assert answer.exists == ("nobody" not in form)


def test_a_forged_record_is_bogus_and_the_others_are_not(dns: Zones) -> None:
    name = "_25._tcp.mail.forged.test"

    answer = dns.validator().look_up(name, TLSA)

    assert (answer.state, dns.second_opinion(name, TLSA)) == (State.BOGUS, "bogus")
    assert "signature is wrong" in answer.why
    assert dns.validator().look_up("mail.forged.test", A).state is State.SECURE
    assert dns.second_opinion("mail.forged.test", A) == "secure"


def test_servers_that_are_lame_or_silent_do_not_count(dns: Zones) -> None:
    validator = dns.validator()
    answer = validator.look_up("_25._tcp.mail.lamed.test", TLSA)

    rows = validator.at_all_servers(answer, TLSA)

    assert len(answer.servers) == 4
    assert [row.rdatas for row in rows] == [answer.rdatas] * 2
    assert answer.rdatas[0].to_text() == f"3 1 1 {DATA}"


def test_a_delegation_is_proven_by_the_parent(dns: Zones) -> None:
    for name, state in [("nsec.test", State.SECURE), ("test", State.SECURE)]:
        assert dns.validator().look_up(name, DS).state is state


def test_a_zone_may_get_another_key_in_the_right_order_only(dns: Zones) -> None:
    """RFC 6781, 4.1.2: by double signatures."""
    old = dns.static["rolled.test"]
    new = replace(old, key=ec.generate_private_key(ec.SECP256R1()))
    name = "_25._tcp.mail.rolled.test"

    def seen() -> tuple[str, str]:
        dns.forget()
        state = dns.validator().look_up(name, TLSA).state.value
        return state, dns.second_opinion(name, TLSA)

    steps = [
        (text_of(old, new), (old.ds,), "secure"),
        (text_of(old, new), (old.ds, new.ds), "secure"),
        (text_of(new), (old.ds, new.ds), "secure"),
        (text_of(new), (new.ds,), "secure"),
        (text_of(old), (new.ds,), "bogus"),
        (text_of(old), (old.ds,), "secure"),
    ]
    for step, (text, hashes, state) in enumerate(steps):
        dns.write(old, text)
        dns.hashes("rolled.test", *hashes)
        assert seen() == (state, state), step


@pytest.mark.parametrize(("ttl", "wait"), [(1, 1), (86_400, 86_400)])
def test_a_new_record_counts_after_the_ttl(ttl: int, wait: int, dns: Zones) -> None:
    """By a moved clock: nothing here waits for a day."""
    old, new = Tlsa(3, 1, 1, "ab" * 32), Tlsa(3, 1, 1, "cd" * 32)
    zone, owner = "nsec.test", "_25._tcp.mail"
    now = datetime.now(UTC)

    def look() -> Found:
        return look_up(dns.validator(), ["mail.nsec.test"], [], [zone])

    dns.publish(zone, owner, ttl, "TLSA", str(old))
    before, _ = merge(Pins(), look(), now)
    dns.publish(zone, owner, ttl, "TLSA", str(old), str(new))
    (pin,) = merge(before, look(), now + timedelta(days=2))[0].pins

    (counts,) = [row.counts for row in pin.records if row.record == new]
    assert counts == now + timedelta(days=2, seconds=wait)
    dns.publish(zone, owner, 1, "TLSA", f"3 1 1 {DATA}")


def test_a_hundred_records_come_whole(dns: Zones) -> None:
    """They do not fit into a packet: the servers truncate, and are asked by TCP."""
    rows = [f"3 1 1 {number:064x}" for number in range(100)]
    dns.publish("nsec.test", "_25._tcp.mail", 1, "TLSA", *rows)

    (port,) = look_up(dns.validator(), ["mail.nsec.test"], [], []).ports

    assert sorted(map(str, port.records)) == rows
    dns.publish("nsec.test", "_25._tcp.mail", 1, "TLSA", f"3 1 1 {DATA}")
