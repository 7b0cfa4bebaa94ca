"""The host name is decided by what the server shows; the greeting only confirms."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.mdaemon import folders, host_name
from letsencrypt_mdaemon.mdaemon.host_name import Domain, Source, Witnesses
from tests.fakes import LOCALHOST, talker
from tests.limits import HANG_SECONDS, SOON_SECONDS

# The decision

TEST, ORG = "mail.example.test", "mx.example.org"
SERVER = {"": TEST}
BOTH = {"example.test": TEST, "example.org": ORG}
UNUSABLE = {"example.test": "[192.0.2.1]"}


def found(
    hosts: dict[str, str], domains: dict[str, str], in_use: str = ""
) -> Witnesses:
    """Return witnesses.

    Args:
        hosts: The FQDN by domain; of "" it is the server's.
        domains: The kinds of places, and the default domains that they show.
    """
    sources = [Source(f"[{domain}] FQDN", hosts[domain], domain) for domain in hosts]
    return Witnesses(
        server=tuple(source for source in sources if not source.domain),
        domains=tuple(
            Domain(kind, kind, domain)
            for kind in domains
            for domain in domains[kind].split()
        ),
        hosts=tuple(source for source in sources if source.domain),
        in_use=Source("our certificate in use", in_use) if in_use else None,
    )


@pytest.mark.parametrize(
    ("hosts", "domains", "in_use", "name"),
    [
        # The server's own key, whatever else there is.
        (SERVER, {}, "", TEST),
        (SERVER, {}, ORG, TEST),
        (SERVER | {"example.org": ORG}, {"file": "example.org"}, ORG, TEST),
        ({"": "[192.0.2.1]"}, {}, TEST, None),
        # The default domain is known.
        (BOTH, {"file": "example.org"}, "", ORG),
        (BOTH, {"file": "example.org"}, TEST, ORG),
        (BOTH, {"folder": "example.org"}, "", ORG),
        (BOTH, {"alias": "example.org"}, "", ORG),
        (BOTH, {"file": "example.org", "folder": "example.org"}, "", ORG),
        # It has no host name: no other domain's is taken.
        ({"example.org": ORG}, {"file": "example.test"}, "", None),
        ({"example.org": ORG}, {"folder": "example.test"}, "", None),
        ({"example.org": ORG}, {"alias": "example.test"}, "", None),
        ({"example.org": ORG}, {"file": "example.test"}, TEST, TEST),
        ({"example.org": ORG}, {"file": "example.test"}, ORG, ORG),
        # It has one that no CA can certify.
        (UNUSABLE, {"file": "example.test"}, "", None),
        (UNUSABLE, {"file": "example.test"}, TEST, None),
        # Two folders of a system account: another kind of place chooses.
        (BOTH, {"folder": "example.test example.org"}, "", None),
        (BOTH, {"folder": "example.test example.org", "file": "example.org"}, "", ORG),
        # Places that disagree.
        (BOTH, {"file": "example.test", "folder": "example.org"}, "", None),
        (BOTH, {"file": "example.test", "folder": "example.org"}, ORG, ORG),
        ({"example.org": ORG}, {"file": "a.test", "alias": "example.org"}, "", None),
        # The default domain is unknown.
        ({"example.org": ORG}, {}, "", ORG),
        ({"example.org": ORG}, {}, TEST, ORG),
        (BOTH, {}, "", None),
        (BOTH, {}, TEST, TEST),
        (BOTH, {}, "other.example", None),
        (BOTH | UNUSABLE, {}, ORG, ORG),
        # The files have no host name at all.
        ({}, {}, "", None),
        ({}, {}, TEST, TEST),
        ({}, {"file": "example.test"}, "", None),
        ({}, {"folder": "a.test b.test"}, TEST, TEST),
    ],
)
def test_the_files_decide_then_our_certificate_and_nothing_is_guessed(
    hosts: dict[str, str], domains: dict[str, str], in_use: str, name: str | None
) -> None:
    assert found(hosts, domains, in_use).decide() == name


def refused(witnesses: Witnesses, greeted: Source | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        host_name.host_name(witnesses, lambda: greeted)
    assert "--host-name" in caught.value.hint
    return caught.value


def test_what_is_unclear_is_shown_with_every_witness() -> None:
    hosts = {"example.org": ORG}
    domains = {"file": "example.test", "folder": "example.org"}

    error = refused(found(hosts, domains, TEST), Source("the SMTP greeting", TEST))

    assert error.message.splitlines() == [
        "The SMTP host name of the default domain is unclear:",
        "  - file shows the default domain example.test",
        "  - folder shows the default domain example.org",
        f"  - [example.org] FQDN gives {ORG}",
        f"  - our certificate in use gives {TEST}",
        f"  - the SMTP greeting gives {TEST}",
    ]


def test_a_default_domain_without_a_host_name_is_named() -> None:
    error = refused(found({"example.org": ORG}, {"file": "example.test"}))

    assert error.message.splitlines() == [
        "The default domain example.test has no SMTP host name in the files of App:",
        "  - file shows the default domain example.test",
        f"  - [example.org] FQDN gives {ORG}",
    ]


def test_a_certificate_for_another_domain_goes_on_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    witnesses = found({"example.org": ORG}, {"file": "example.test"}, ORG)

    assert host_name.host_name(witnesses, lambda: None) == ORG

    (record,) = caplog.records
    assert "the default domain is example.test" in record.message
    assert "--host-name" in record.message


@pytest.mark.parametrize("says", [ORG, "other.example", "[192.0.2.1]", ""])
def test_the_greeting_neither_chooses_nor_vetoes(says: str) -> None:
    def heard() -> Source:
        return Source("the SMTP greeting", says)

    assert host_name.host_name(found(SERVER, {}), heard) == TEST
    assert "is unclear" in refused(found(BOTH, {}), heard()).message
    assert "no key FQDN" in refused(found({}, {}), heard()).message


def test_where_the_name_is_clear_nobody_is_asked_for_a_greeting() -> None:
    assert host_name.host_name(found(SERVER, {}), lambda: pytest.fail("asked")) == TEST


# The files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The least that counts as an MDaemon."""
    return install(tmp_path / "MDaemon")


def install(root: Path) -> Path:
    (root / "App").mkdir(parents=True)
    tell(root / "App" / "MDaemon.ini", "")
    return root


def tell(ini: Path, text: str) -> None:
    ini.write_bytes(text.replace("\n", "\r\n").encode())


def seen(root: Path, in_use: str = "") -> Witnesses:
    return host_name.witnesses(folders.IniFiles(root), in_use)


def decide(root: Path) -> str:
    return host_name.host_name(seen(root), lambda: None)


def test_the_host_name_stands_in_mdaemon_ini(root: Path) -> None:
    tell(root / "App" / "MDaemon.ini", "[Domain]\nfqdn = Mail.Example.Test.\n")
    (source,) = seen(root).server
    where = f"{Path('App/MDaemon.ini')} [Domain] fqdn"
    assert source == Source(where, "Mail.Example.Test.")
    assert decide(root) == "mail.example.test"


def test_an_international_host_name_becomes_ascii(root: Path) -> None:
    tell(root / "App" / "MDaemon.ini", "[Domain]\nFQDN=mail.bücher.example\n")
    assert decide(root) == "mail.xn--bcher-kva.example"


DOMAINS = """\
[example.test]
FQDN=mail.example.test
[example.org]
FQDN=mx.example.org
[empty.example]
FQDN=
"""


def test_of_several_domains_the_one_counts_that_mdaemon_ini_names(root: Path) -> None:
    tell(root / "App" / "MDaemon.ini", "[Domain]\nName=Example.Org\n")
    tell(root / "App" / "Domains.dat", DOMAINS)
    assert decide(root) == "mx.example.org"


@pytest.mark.parametrize("key", ["Name", "DefaultDomain", "Whatever"])
def test_the_default_domains_own_section_may_be_in_mdaemon_ini(
    root: Path, key: str
) -> None:
    tell(root / "App" / "MDaemon.ini", f"[Domain]\n{key}=example.org\n{DOMAINS}")
    tell(root / "App" / "Domains.dat", "[example.org]\nIP=127.0.0.1\n")
    assert decide(root) == "mx.example.org"


@pytest.mark.parametrize("value", ["Domains.dat", "Yes", "25.0.1", "C:\\MDaemon"])
def test_other_values_beside_it_show_no_domain(root: Path, value: str) -> None:
    tell(root / "App" / "MDaemon.ini", f"[Domain]\nDatabase={value}\n")
    tell(root / "App" / "Domains.dat", "[example.test]\nFQDN=mail.example.test\n")
    assert seen(root).domains == ()
    assert decide(root) == "mail.example.test"


def test_the_system_accounts_folder_shows_the_default_domain(root: Path) -> None:
    tell(root / "App" / "Domains.dat", DOMAINS)
    (root / "users" / "Example.org" / "mdaemon").mkdir(parents=True)
    (root / "users" / "example.test" / "frank").mkdir(parents=True)
    (root / "users" / "a file").touch()
    where = str(Path("users/Example.org/mdaemon"))
    assert seen(root).domains == (Domain("folder", where, "example.org"),)
    assert decide(root) == "mx.example.org"


@pytest.mark.parametrize(
    "line",
    [
        "MDaemon@$LOCALDOMAIN$ = MDaemon@Example.org",
        "listserv@$LocalDomain$=mdaemon@example.org",
        '"list-serv@$LOCALDOMAIN$","MDaemon@example.org"',
        "[Alias]\nlistserver@$LOCALDOMAIN$\tMDaemon@example.org",
    ],
)
@pytest.mark.parametrize("encoding", ["ascii", "utf-16"])
def test_the_built_in_aliases_show_the_default_domain(
    root: Path, line: str, encoding: str
) -> None:
    tell(root / "App" / "Domains.dat", DOMAINS)
    (root / "App" / "Alias.dat").write_bytes(f"{line}\r\n".encode(encoding))
    where = f"{Path('App/Alias.dat')} (built-in alias)"
    assert seen(root).domains == (Domain("alias", where, "example.org"),)
    assert decide(root) == "mx.example.org"


def test_an_administrators_alias_shows_nothing(root: Path) -> None:
    line = "info@example.test = MDaemon@example.org\r\n"
    (root / "App" / "Alias.dat").write_text(line)
    assert seen(root).domains == ()


def test_of_several_domains_none_is_guessed(root: Path) -> None:
    tell(root / "App" / "Domains.dat", DOMAINS)
    with pytest.raises(ConfigError, match="is unclear") as caught:
        decide(root)
    file = Path("App/Domains.dat")
    assert caught.value.message.splitlines()[1:] == [
        f"  - {file} [example.test] FQDN gives mail.example.test",
        f"  - {file} [example.org] FQDN gives mx.example.org",
    ]
    assert "--host-name" in caught.value.hint


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("[192.0.2.1]", "is an IP address"),
        ("192.0.2.1", "is an IP address"),
        ("[IPv6:2001:db8::1]", "is an IP address"),
        ("mailserver", "has no dot"),
        ("*.example.test", "is a wildcard"),
        ("mail_1.example.test", "is not a DNS label"),
    ],
)
@pytest.mark.parametrize("in_use", ["", "mail.example.test"])
def test_a_host_name_no_certificate_can_hold_is_refused_with_the_reason(
    root: Path, value: str, reason: str, in_use: str
) -> None:
    tell(root / "App" / "MDaemon.ini", f"[Domain]\nFQDN={value}\n")
    error = refused(seen(root, in_use))
    assert f"[Domain] FQDN gives {value!r}, which" in error.message
    assert reason in error.message


def test_if_nothing_tells_a_name_the_error_says_what_was_looked_for(root: Path) -> None:
    with pytest.raises(ConfigError, match="no key FQDN") as caught:
        decide(root)
    assert "--host-name" in caught.value.hint


def test_a_hostile_value_is_shown_without_its_control_characters(root: Path) -> None:
    tell(root / "App" / "MDaemon.ini", "[Domain]\nFQDN=\x1b[31mevil\x07\u202e\n")
    with pytest.raises(ConfigError) as caught:
        decide(root)
    listed = caught.value.message.replace("\n", "")
    assert listed.isprintable()


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_odd_files_beside_mdaemon_ini_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    root = install(tmp_path_factory.mktemp("odd") / "MDaemon")
    tell(root / "App" / "MDaemon.ini", "[Domain]\nName=example.test\n")
    tell(root / "App" / "Domains.dat", "[example.test]\nFQDN=mail.example.test\n")
    (root / "App" / "Other.dat").write_bytes(data)
    assert "mail.example.test" in {source.value for source in seen(root).hosts}


def test_a_folder_named_like_a_database_is_passed_by(root: Path) -> None:
    (root / "App" / "Folder.dat").mkdir()
    tell(root / "App" / "Domains.dat", DOMAINS)
    assert {source.value for source in seen(root).hosts} == {TEST, ORG}


# What it greets with


def greeting(
    says: bytes, *, forever: bool = False, timeout: float = HANG_SECONDS
) -> Source:
    with talker(says=says, forever=forever) as address:
        source = host_name.greeting(address, timeout)
    assert source is not None
    return source


@pytest.mark.parametrize(
    ("says", "name"),
    [
        (b"220 mail.example.test ESMTP MDaemon 25.0; hello\r\n", "mail.example.test"),
        (b"220 mail.example.test\r\n", "mail.example.test"),
        (b"220-mail.example.test ESMTP\r\n220-x\r\n220 \r\n", "mail.example.test"),
        (b"220 [192.0.2.1] ESMTP\r\n", "[192.0.2.1]"),
    ],
)
def test_the_server_greets_with_its_name(says: bytes, name: str) -> None:
    assert greeting(says).value == name


def test_the_greeting_says_where_it_was_heard() -> None:
    with talker(says=b"220 mail.example.test ESMTP\r\n") as address:
        source = host_name.greeting(address)
    assert source is not None
    assert source.where == f"the SMTP greeting at 127.0.0.1 port {address[1]}"
    assert str(source).endswith("gives mail.example.test")


@pytest.mark.parametrize("code", ["220", "220-x.example.test\r\n220", "554"])
def test_the_server_is_left_with_a_farewell(code: str) -> None:
    heard: list[bytes] = []
    says = f"{code} mail.example.test\r\n".encode()
    with talker(says=says, heard=heard) as address:
        host_name.greeting(address)
    assert b"".join(heard) == b"QUIT\r\n"


@pytest.mark.parametrize(
    "says",
    [
        b"220 ready\r\n",
        b"220 Welcome. Come in\r\n",
        b"220\r\n",
        b"220  two.blanks.example\r\n",
        b"421 mail.example.test too many connections\r\n",
        b"554 mail.example.test\r\n",
        b"220mail.example.test\r\n",
        b"220 mail.exa\x1b[31mmple.test\r\n",
        b"220 m\xc3\xa4il.example.test\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\n",
        b"220 cut.off.example",
        b"220-never.ends.example\r\n",
    ],
)
def test_an_odd_greeting_gives_no_name_and_is_shown_harmlessly(says: bytes) -> None:
    source = greeting(says)
    assert source.value == ""
    assert str(source).isprintable()
    assert re.search("has no host name: '.+'|no whole greeting: .+", str(source))


def test_a_server_that_hangs_up_without_a_word_gives_no_name() -> None:
    assert "no whole greeting: it hung up" in str(greeting(b""))


def test_connected_without_a_greeting_is_another_text_than_nobody_listening() -> None:
    with socket.create_server((LOCALHOST, 0)) as listener:
        address = listener.getsockname()
    nobody = host_name.greeting(address)
    silent = greeting(b"", forever=True, timeout=SOON_SECONDS)
    assert nobody is not None
    assert (nobody.value, silent.value) == ("", "")
    assert f"nobody listens at 127.0.0.1 port {address[1]}: " in str(nobody)
    assert "connected, but sent no greeting in 0.5 s" in str(silent)
    assert host_name.GREETING_SECONDS >= 35


@pytest.mark.parametrize("piece", [b"220-mail.example.test\r\n", b"220 x" * 1000])
def test_a_greeting_without_end_gives_no_name(piece: bytes) -> None:
    source = greeting(piece, forever=True)
    assert source.value == ""
    assert "the greeting has no end" in str(source)


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_a_greeting_is_a_plain_word_or_nothing(says: bytes) -> None:
    value = greeting(b"220 " + says + b"\r\n").value
    assert not value or (value.isascii() and value.isprintable() and "." in value)


def test_an_address_that_cannot_be_looked_up_gives_no_name() -> None:
    assert host_name.greeting(None) is None
    source = host_name.greeting(("x" * 70 + ".example", 25))
    assert source is not None
    assert source.value == ""


def test_the_mail_domains_are_the_folders_of_users_and_the_sections(root: Path) -> None:
    tell(root / "App" / "Domains.dat", DOMAINS)
    for name in ("Example.NET", "no domain", "example.test"):
        (root / "Users" / name).mkdir(parents=True)
    (root / "Users" / "file.example.com").touch()

    domains = host_name.mail_domains(folders.IniFiles(root))

    assert domains == ("example.net", "example.org", "example.test")
