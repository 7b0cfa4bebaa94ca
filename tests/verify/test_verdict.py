"""What is said of ports that are not as they should be."""

from datetime import timedelta

import click
import pytest
from click.testing import CliRunner

from letsencrypt_mdaemon.cli.verification import print_verification
from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.pki.chain import Roots
from letsencrypt_mdaemon.verify import verdict
from letsencrypt_mdaemon.verify.endpoints import Endpoint
from letsencrypt_mdaemon.verify.served import Answer, Served
from letsencrypt_mdaemon.verify.verdict import Port, Verification
from tests import certificates

NAME = "mail.example.test"
OTHER = "imap.example.test"
NOW = certificates.START + timedelta(days=1)
RIGHT = certificates.certificate((NAME, OTHER))
WRONG = certificates.certificate((NAME,), serial=4711)
GOOD = Served(outcome=Answer.SERVED, chain=RIGHT.chain, server_name=NAME)
BAD = Served(outcome=Answer.SERVED, chain=WRONG.chain, server_name=NAME)
CLOSED = Served(outcome=Answer.NOT_LISTENING, detail="refuses the connection")
FAILED = Served(outcome=Answer.HANDSHAKE_FAILED, detail="why", server_name=OTHER)
MIXED = Served(
    outcome=Answer.SERVED,
    chain=RIGHT.chain,
    server_name=NAME,
    differently=(Served(outcome=Answer.SERVED, chain=WRONG.chain, server_name=OTHER),),
)
HALF = Served(
    outcome=Answer.SERVED, chain=RIGHT.chain, server_name=NAME, differently=(FAILED,)
)
V4, V6, LAN = "127.0.0.1", "::1", "192.0.2.7"
ROOTS = Roots(now=NOW)


def imaps(host: str = V4, name: str = "") -> Endpoint:
    return Endpoint("imaps", host, 993, name)


def https(host: str = V4) -> Endpoint:
    return Endpoint("https", host, 443)


def judged(
    observed: dict[Endpoint, Served],
    *,
    given: bool = False,
    known: bool = True,
    require_trusted: bool = False,
) -> list[Port]:
    return verdict.assess(
        observed,
        expected={RIGHT.thumbprint} if known else None,
        given=[at for at in observed if given],
        roots=ROOTS,
        issued=lambda wanted: RIGHT.chain if wanted == RIGHT.thumbprint else (),
        require_trusted=require_trusted,
        now=NOW,
    )


def rows(ports: list[Port]) -> list[str]:
    """Return in words which groups there are, with a word on each that is not good."""
    groups = verdict.grouped(ports)
    return [
        verdict.place(group, groups)
        + ("" if group[0].is_good else f": {verdict.fault(group[0])}")
        for group in groups
    ]


def test_our_addresses_that_agree_are_one_row_without_an_address() -> None:
    observed = {imaps(host): GOOD for host in (V4, V6, LAN)}

    assert rows(judged(observed)) == ["993 imaps"]


def test_our_addresses_where_nobody_listens_are_left_out_if_somebody_does() -> None:
    assert rows(judged({imaps(V4): CLOSED, imaps(LAN): BAD})) == [
        "993 imaps: another certificate"
    ]
    assert rows(judged({imaps(V4): CLOSED, imaps(LAN): CLOSED})) == ["993 imaps"]


def test_our_addresses_that_differ_are_told_apart() -> None:
    observed = {imaps(V4): GOOD, imaps(V6): BAD, imaps(LAN): GOOD, https(): GOOD}

    assert rows(judged(observed)) == [
        "443 https",
        "993 imaps at 127.0.0.1, 192.0.2.7",
        "993 imaps at ::1: another certificate",
    ]


def test_given_endpoints_are_told_by_where_they_are_unless_that_is_one_place() -> None:
    assert rows(judged({imaps(): GOOD, https(): GOOD}, given=True)) == [
        "443 https",
        "993 imaps",
    ]
    assert rows(judged({imaps(): GOOD, https(LAN): CLOSED}, given=True)) == [
        "443 https at 192.0.2.7: not listening",
        "993 imaps at 127.0.0.1",
    ]


def test_what_was_found_by_dns_comes_last_by_its_name() -> None:
    observed = {imaps(LAN, NAME): BAD, imaps(V4): GOOD}

    assert rows(judged(observed)) == [
        "993 imaps",
        f"993 imaps at {NAME}: another certificate",
    ]


@pytest.mark.parametrize(
    ("served", "known", "fault"),
    [
        (BAD, True, "another certificate"),
        (MIXED, True, "another certificate for some names"),
        (HALF, True, "handshake failed for some names"),
        (HALF, False, "handshake failed for some names"),
        (FAILED, False, "handshake failed"),
        (Served(outcome=Answer.NO_STARTTLS), True, "no STARTTLS offered"),
    ],
)
def test_each_fault_has_its_words(served: Served, fault: str, *, known: bool) -> None:
    assert rows(judged({imaps(): served}, known=known)) == [f"993 imaps: {fault}"]


@pytest.mark.parametrize("served", [GOOD, BAD, MIXED, CLOSED])
def test_any_certificate_will_do_where_none_is_expected(served: Served) -> None:
    (port,) = judged({imaps(): served}, known=False)

    assert port.is_good
    assert port.is_expected is None


def test_trust_is_looked_at_on_demand_only() -> None:
    (port,) = judged({imaps(): GOOD})
    assert port.is_good
    (port,) = judged({imaps(): GOOD}, require_trusted=True)
    assert not port.is_good
    assert verdict.fault(port) == "not trusted"


def test_every_fault_brings_its_advice_once() -> None:
    observed = {
        imaps(): BAD,
        https(): BAD,
        https(LAN): FAILED,
        imaps(LAN): CLOSED,
        imaps(V6): HALF,
        imaps("192.0.2.8", NAME): BAD,
    }

    message, hint = verdict.failure(judged(observed, given=False))
    _, given = verdict.failure(judged({imaps(): CLOSED}, given=True))
    _, trust = verdict.failure(judged({imaps(): GOOD}, require_trusted=True))

    assert message.startswith("Verification failed: 443 https at ")
    assert hint == (
        "Restart MDaemon, so that it loads the certificate that its files name. If "
        "another program owns a port, list only MDaemon's ports with --endpoint. Where "
        "TLS fails, check MDaemon's SSL & TLS settings and its log. Test the ports "
        "reached through DNS from outside as well: they may fail only from inside your "
        "network."
    )
    assert given == (
        "Start the server on the ports that do not listen, or correct --endpoint."
    )
    assert trust == (
        "If the CA is a private one, set --ca-bundle to a file with its roots."
    )
    assert verdict.failure(judged({imaps(): GOOD})) == ("", "")


def remarks(served: Served) -> list[str]:
    (port,) = judged({imaps(): served})
    return verdict.remarks(port, now=NOW, require_trusted=False)


def test_nothing_is_said_of_what_is_as_it_should_be() -> None:
    assert remarks(GOOD) == []
    assert remarks(CLOSED) == []


def test_answers_for_other_names_are_told() -> None:
    until = (certificates.START + certificates.LIFETIME).astimezone()
    (remark,) = remarks(MIXED)
    assert remark == (
        f"for the name {OTHER}, it serves {WRONG.thumbprint} for {NAME}, by CN=Example "
        f"R1, until {until:%Y-%m-%d}"
    )
    assert remarks(HALF) == [f"for the name {OTHER}, it fails: handshake failed: why"]


def test_of_many_names_a_few_are_told() -> None:
    many = certificates.certificate([f"{n}.example.test" for n in range(24)])
    served = Served(outcome=Answer.SERVED, chain=many.chain)

    assert (
        " for 0.example.test, 1.example.test, 2.example.test and 21 more, by "
        in (remarks(served)[0])
    )


def test_a_chain_cut_short_by_windows_is_told_with_the_place_to_look() -> None:
    new = certificates.authority("Example YR", own_key=certificates.key(21))
    cross = certificates.authority(
        "Example YR", issuer=certificates.root(), own_key=certificates.key(21)
    )
    leaf = certificates.leaf((NAME,), issuer=new)
    served = Served(outcome=Answer.SERVED, chain=(leaf, new.certificate))
    (port,) = verdict.assess(
        {imaps(): served},
        expected=None,
        given=(),
        roots=ROOTS,
        issued=lambda _: (leaf, cross.certificate),
        require_trusted=False,
        now=NOW,
    )

    (remark,) = verdict.remarks(port, now=NOW, require_trusted=False)
    assert remark == (
        "its chain lacks CN=Example YR, which the CA issued with it; on Windows, look "
        "for that name in Trusted Root Certification Authorities"
    )


def test_an_older_certificate_of_the_same_issuer_is_told_with_its_thumbprint() -> None:
    old, new = (
        certificates.authority(
            "Example R9", issuer=certificates.root(), own_key=certificates.key(22)
        )
        for _ in range(2)
    )
    leaf = certificates.leaf((NAME,), issuer=new)
    served = Served(outcome=Answer.SERVED, chain=(leaf, old.certificate))
    (port,) = verdict.assess(
        {imaps(): served},
        expected=None,
        given=(),
        roots=ROOTS,
        issued=lambda _: (leaf, new.certificate),
        require_trusted=False,
        now=NOW,
    )

    assert port.chain is not None
    assert (port.chain.missing, port.chain.as_issued) == ((), False)
    (remark,) = verdict.remarks(port, now=NOW, require_trusted=False)
    end = f"{old.certificate.not_valid_after_utc:%Y-%m-%d}"
    assert remark.startswith(
        f"its chain has {thumbprint(old.certificate)} (CN=Example R9, until {end}) "
        "instead of another certificate of that name and key"
    )


@pytest.mark.parametrize(
    ("served", "known", "running", "proven"),
    [
        (GOOD, True, True, True),
        (BAD, True, True, False),
        (CLOSED, True, True, False),
        (CLOSED, True, False, None),
        (GOOD, False, True, None),
        (FAILED, False, True, False),
    ],
)
def test_it_is_proven_disproven_or_not_known(
    served: Served, *, known: bool, running: bool, proven: bool | None
) -> None:
    found = Verification(
        names=(NAME,),
        expected=(RIGHT.leaf,) if known else None,
        ports=tuple(judged({imaps(): served}, known=known)),
        now=NOW,
        require_trusted=False,
        is_running=running,
    )

    assert found.is_proven is proven
    assert bool(found.failure()[0]) == (proven is False)


@pytest.mark.parametrize("no_color", ["", "1"])
def test_colours_are_for_terminals_and_those_who_like_them(no_color: str) -> None:
    found = Verification(
        names=(NAME,),
        expected=(RIGHT.leaf,),
        ports=tuple(judged({imaps(): BAD, https(): GOOD})),
        now=NOW,
        require_trusted=False,
    )
    command = click.Command(
        "show", callback=lambda: print_verification(found, "windows")
    )

    def shown(*, terminal: bool) -> str:
        ran = CliRunner().invoke(command, env={"NO_COLOR": no_color}, color=terminal)
        assert ran.exception is None
        return ran.output

    assert "\x1b" not in shown(terminal=False)
    assert ("\x1b[31mFAIL  993 imaps" in shown(terminal=True)) == (not no_color)
    assert ("\x1b" in shown(terminal=True)) == (not no_color)


def test_a_remark_on_very_many_ports_counts_them() -> None:
    observed = {Endpoint("imaps", V4, 1000 + n): BAD for n in range(10)}
    observed[https()] = GOOD
    found = Verification(
        names=(NAME,),
        expected=(RIGHT.leaf,),
        ports=tuple(judged(observed)),
        now=NOW,
        require_trusted=False,
    )
    command = click.Command(
        "show", callback=lambda: print_verification(found, "windows")
    )

    text = " ".join(CliRunner().invoke(command).output.split())

    assert "1005 imaps and 4 more: serves " in text
