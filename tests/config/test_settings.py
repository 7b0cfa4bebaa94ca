"""Config file, environment and options: one frozen value, or all that is wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from letsencrypt_mdaemon.authorities import AUTHORITIES, LETSENCRYPT
from letsencrypt_mdaemon.config import load as load_module
from letsencrypt_mdaemon.config.load import PREFIX, Loaded, load, settings
from letsencrypt_mdaemon.config.settings import Config, TargetText
from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.pki.certificate import KeyType
from letsencrypt_mdaemon.system import disk

# A text for each setting, and the value it means. Paths are those below the base.
EXAMPLES: dict[str, tuple[str, object]] = {
    "mdaemon-dir": (r"Mail\MDaemon", Path(r"Mail\MDaemon")),
    "webroot": ("webroot", Path("webroot")),
    "smtp-address": ("[::1]:2525", ("::1", 2525)),
    "iis-site-name": ("Default Web Site", "Default Web Site"),
    "iis-add-binding": ("yes", True),
    "host-name": ("Mail.Example.TEST.", "mail.example.test"),
    "alternate-host-names": ("b.test, A.test;b.test", ("b.test", "a.test")),
    "key-type": ("P256", "p256"),
    "key-policy": ("Reuse", "reuse"),
    "mail-domains": ("Example.com, b.test", ("example.com", "b.test")),
    "renew-days": ("20", 20),
    "rehearse": ("No", "no"),
    "on-name-failure": ("DROP", "drop"),
    "directory-url": ("https://ca.test/directory", "https://ca.test/directory"),
    "agree-tos": ("yes", True),
    "contact": ("a@b.test", ("a@b.test",)),
    "eab-kid": ("kid-1", "kid-1"),
    "eab-key-file": ("eab.txt", Path("eab.txt")),
    "eab-key": ("c2VjcmV0", "c2VjcmV0"),
    "profile": ("tlsserver, classic", ("tlsserver", "classic")),
    "require-profile": ("yes", True),
    "preferred-chain": ("ISRG Root X1", "ISRG Root X1"),
    "ca-bundle": ("roots.pem", Path("roots.pem")),
    "proxy": ("http://proxy.test:3128", "http://proxy.test:3128"),
    "delay": ("0", 0),
    "validation-timeout": (" 60 ", 60),
    "store": ("windows", "windows"),
    "key-storage": ("CNG", "cng"),
    "key-exportable": ("yes", True),
    "pfx-password-file": ("pfx.txt", Path("pfx.txt")),
    "state-dir": ("state", Path("state")),
    "log-dir": (" Log files ", Path("Log files")),
    "keep-logs": ("0", 0),
    "remove-old-certificates": ("true", True),
    "reload-semaphores": ("restartwc.sem", ("restartwc.sem",)),
    "reload-timeout": ("3600", 3600),
    "allow-restart": ("yes", True),
    "endpoint": ("https://a.test imaps://b.test", ("https://a.test", "imaps://b.test")),
    "verify-timeout": ("1", 1),
    "public": ("yes", True),
    "require-trusted": ("yes", True),
    "after-activation": (sys.executable, Path(sys.executable)),
    "after-activation-timeout": ("5", 5),
    "to": ("a@b.test, c@d.test,a@b.test", ("a@b.test", "c@d.test")),
    "notify-on": ("renewed, Every-Run", ("renewed", "every-run")),
    "mail-from": ("a@b.test", ("a@b.test",)),
    "mail-server": ("smtps://mail.test:465", "smtps://mail.test:465"),
    "mail-user": ("DOMAIN\\user", "DOMAIN\\user"),
    "mail-password-file": ("password.txt", Path("password.txt")),
    "mail-password": ("pass % ; word", "pass % ; word"),
    "notify": ("https://a.test/x tgram://b/c", "https://a.test/x tgram://b/c"),
    "notify-file": ("notify.txt", Path("notify.txt")),
    "notify-key": ("whsec_MTIz", "whsec_MTIz"),
    "notify-key-file": ("key.txt", Path("key.txt")),
    "heartbeat-url": ("https://hc.test/ping/1", "https://hc.test/ping/1"),
    "heartbeat-url-file": ("heartbeat.txt", Path("heartbeat.txt")),
    "metrics-file": ("a.prom", Path("a.prom")),
    "staging": ("1", True),
    "dry-run": ("TRUE", True),
    "force": ("yes", True),
    "ask-ca": ("yes", True),
    "no-activate": ("yes", True),
    "no-reload": ("Yes", True),
    "skip-port-check": ("on", True),
    "json": ("yes", True),
    "validation-port": ("5002", 5002),
    "validation-dns": ("[::1]:8053", ("::1", 8053)),
}
SECRETS = ["eab-key", "mail-password", "notify", "notify-key", "heartbeat-url"]
EVERY_SETTING = pytest.mark.parametrize("name", EXAMPLES)
FILE = "letsencrypt-mdaemon.ini"
HEAD = "[letsencrypt-mdaemon]\n"


def loaded(
    folder: Path,
    text: str | bytes | None = None,
    environ: Mapping[str, str] | None = None,
    **options: str,
) -> Loaded:
    """Load a config file of this text, if any, with environment and options."""
    file = None
    if text is not None:
        file = folder / FILE
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    given = {name.replace("_", "-"): (value,) for name, value in options.items()}
    return load(given, environ or {}, file)


def problems(
    folder: Path,
    text: str | bytes | None = None,
    environ: Mapping[str, str] | None = None,
    **options: str,
) -> list[str]:
    """Return what is said to be wrong, with the file's path left out."""
    with pytest.raises(ConfigError) as caught:
        loaded(folder, text, environ, **options)
    message = caught.value.message.replace(str(folder / FILE), FILE)
    head, *lines = message.split("\n  - ")
    if not lines:
        return [head.removeprefix("The configuration is invalid: ")]
    assert head == f"The configuration has {len(lines)} problems:"
    return lines


def value(result: Loaded, name: str) -> object:
    return getattr(result.config, name.replace("-", "_"))


def expected(name: str, base: Path) -> object:
    wanted = EXAMPLES[name][1]
    return base / wanted if isinstance(wanted, Path) else wanted


# Each setting, wherever it is written


def test_there_is_an_example_of_every_setting() -> None:
    assert list(EXAMPLES) == [name for name, _ in settings()]


@EVERY_SETTING
def test_a_setting_can_be_set_in_the_file(name: str, tmp_path: Path) -> None:
    result = loaded(tmp_path, f"{HEAD}{name} = {EXAMPLES[name][0]}\n")

    assert value(result, name) == expected(name, tmp_path)
    assert value(result, name) != value(loaded(tmp_path), name)
    where = f"{tmp_path / FILE} [letsencrypt-mdaemon] {name}"
    assert result.origins == {name: where}


@EVERY_SETTING
def test_a_setting_can_be_set_in_the_environment(name: str, tmp_path: Path) -> None:
    variable = PREFIX + name.upper().replace("-", "_")

    result = loaded(tmp_path, environ={variable: EXAMPLES[name][0], "PATH": "x"})

    assert value(result, name) == expected(name, Path())
    assert result.origins == {name: f"environment {variable}"}


@EVERY_SETTING
def test_a_setting_can_be_set_on_the_command_line(name: str) -> None:
    result = load({name: (EXAMPLES[name][0],)}, {}, None)

    assert value(result, name) == expected(name, Path())
    assert result.origins == {name: f"command line --{name}"}


def test_the_command_line_comes_before_the_environment_before_the_file(
    tmp_path: Path,
) -> None:
    text = f"{HEAD}key-type = p256\nkeep-logs = 1\ndelay = 1\n"
    environ = {PREFIX + "KEEP_LOGS": "2", PREFIX + "DELAY": "2"}

    result = loaded(tmp_path, text, environ, delay="3")

    assert result.config == Config(key_type="p256", keep_logs=2, delay=3)
    assert [result.origins[name].split()[0] for name in ("keep-logs", "delay")] == [
        "environment",
        "command",
    ]


def test_a_repeated_option_adds_to_the_list() -> None:
    result = load({"to": ("a@b.test", "c@d.test,e@f.test")}, {}, None)

    assert result.config.to == ("a@b.test", "c@d.test", "e@f.test")


def test_an_empty_variable_counts_as_none(tmp_path: Path) -> None:
    environ = {PREFIX + "WEBROOT": "", PREFIX + "HOST_NAME": "", PREFIX + "CONFIG": "x"}

    assert loaded(tmp_path, environ=environ) == Loaded(Config(), {}, None)


def test_the_result_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Config().force = True  # type: ignore[misc]


def test_every_setting_says_what_it_is_in_a_sentence() -> None:
    for name, row in settings():
        assert row.help[0].isupper(), name
        assert row.help.endswith((".", "]")), name
        assert row.help.isascii(), name
        assert row.flag == isinstance(EXAMPLES[name][1], bool)
        assert row.many <= isinstance(EXAMPLES[name][1], tuple)


def test_the_kinds_of_keys_are_those_that_can_be_made(tmp_path: Path) -> None:
    kinds = ", ".join(get_args(KeyType))
    for kind in get_args(KeyType):
        assert loaded(tmp_path, key_type=kind).config.key_type == kind
    assert problems(tmp_path, key_type="dsa") == [
        f"command line --key-type: 'dsa' is not valid; use {kinds}"
    ]


# What values mean


@pytest.mark.parametrize("text", ["yes", "true", "ON", " 1 "])
def test_a_flag_can_be_set_in_several_words(text: str, tmp_path: Path) -> None:
    assert loaded(tmp_path, f"{HEAD}agree-tos = {text}").config.agree_tos


@pytest.mark.parametrize("text", ["no", "false", "OFF", " 0 ", ""])
def test_a_flag_can_be_unset_in_several_words(text: str, tmp_path: Path) -> None:
    environ = {PREFIX + "AGREE_TOS": "yes", PREFIX + "FORCE": "no"}

    result = loaded(tmp_path, f"{HEAD}force = yes\n", environ, agree_tos=text)

    assert not result.config.agree_tos
    assert not result.config.force


@pytest.mark.parametrize(
    ("name", "text", "meaning"),
    [
        ("store", "PEM:certs", f"pem:{Path('certs')}"),
        ("store", "pem: /srv/certs ", f"pem:{Path('/srv/certs')}"),
        ("store", "Windows", "windows"),
        ("smtp-address", "none", None),
        ("smtp-address", "mail.test", ("mail.test", 25)),
        ("smtp-address", "192.0.2.1:65535", ("192.0.2.1", 65535)),
        ("smtp-address", "[2001:db8::1]", ("2001:db8::1", 25)),
        ("proxy", " proxy.test:3128", "http://proxy.test:3128"),
        ("proxy", "https://[::1]:8080/", "https://[::1]:8080"),
        ("mail-server", "RAW", "raw"),
        ("mail-server", "smtp://mail.test", "smtp://mail.test"),
        ("mail-server", "smtp://[::1]:25/", "smtp://[::1]:25/"),
        ("directory-url", "http://127.0.0.1:14000/dir", "http://127.0.0.1:14000/dir"),
        ("directory-url", "http://localhost/dir", "http://localhost/dir"),
        ("directory-url", "http://[::1]:14000", "http://[::1]:14000"),
        ("to", "", ()),
        ("to", "o'neil+x{y}=z@[IPv6:::1]", ("o'neil+x{y}=z@[IPv6:::1]",)),
        ("alternate-host-names", "bücher.test", ("xn--bcher-kva.test",)),
        ("reload-semaphores", "", ()),
    ],
)
def test_values_can_be_written_in_several_ways(
    name: str, text: str, meaning: object
) -> None:
    assert value(load({name: (text,)}, {}, None), name) == meaning


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("webroot", " ", "the path is empty"),
        ("webroot", "a\0b", "contains a line break or another control character"),
        ("log-dir", "a\nb", "contains a line break or another control character"),
        ("iis-site-name", "a\nb", "contains a line break or another control character"),
        ("mail-password", "a\tb", "contains a line break or another control character"),
        ("store", "", "'' is not valid; use windows or pem:FOLDER"),
        ("store", "pem:", "'pem:' is not valid; use windows or pem:FOLDER"),
        ("store", "windows:My", "'windows:My' is not valid; use windows or pem:FOLDER"),
        ("store", "pem:a\nb", "contains a line break or another control character"),
        ("host-name", "", "'' is empty"),
        (
            "host-name",
            "*.example.test",
            (
                "'*.example.test' is a wildcard, which a CA cannot validate over HTTP; "
                "list each name"
            ),
        ),
        ("force", "maybe", "'maybe' is not valid; use yes or no"),
        ("force", "\x1b[31m", r"'\x1b[31m' is not valid; use yes or no"),
        ("keep-logs", "-1", "'-1' is not valid; use a number from 0 to 10000"),
        ("keep-logs", "10001", "'10001' is not valid; use a number from 0 to 10000"),
        ("keep-logs", "1.0", "'1.0' is not valid; use a number from 0 to 10000"),
        ("keep-logs", "", "'' is not valid; use a number from 0 to 10000"),
        ("keep-logs", "٣", "'٣' is not valid; use a number from 0 to 10000"),
        ("reload-timeout", "0", "'0' is not valid; use a number from 1 to 3600"),
        ("smtp-address", "", "'' is not valid; use HOST:PORT or none"),
        ("smtp-address", "::1", "'::1' is not valid; use HOST:PORT or none"),
        ("smtp-address", "a.test:0", "'a.test:0' is not valid; use HOST:PORT or none"),
        (
            "smtp-address",
            "a.test:65536",
            "'a.test:65536' is not valid; use HOST:PORT or none",
        ),
        ("smtp-address", "a b", "'a b' is not valid; use HOST:PORT or none"),
        ("proxy", "proxy.test", "'proxy.test' is not valid; use http://HOST:PORT"),
        (
            "proxy",
            "http://me:word@proxy.test:1",
            "contains an @; a proxy with a login is not supported here",
        ),
        (
            "mail-server",
            "mail.test",
            "'mail.test' is not valid; use raw, smtp://HOST:PORT or smtps://HOST:PORT",
        ),
        (
            "mail-server",
            "smtp://mail.test:99999",
            (
                "'smtp://mail.test:99999' is not valid; use raw, smtp://HOST:PORT or "
                "smtps://HOST:PORT"
            ),
        ),
        (
            "reload-semaphores",
            r"RESTARTWC.SEM ..\X.SEM",
            r"'..\\X.SEM' is not the name of a semaphore file such as X.SEM",
        ),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(
    name: str, text: str, problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load({name: (text,)}, {}, None)

    assert caught.value.message == (
        f"The configuration is invalid: command line --{name}: {problem}"
    )


@pytest.mark.parametrize(
    "text",
    [
        *("", "ca.test", "http://ca.test/directory", "ftp://ca.test", "https://"),
        *("https:///directory", "http://localhost.evil.test/", "http://127.0.0.1.test"),
        *(
            "https://ca.test/a b",
            "https://ca.test/\nx",
            "https://ca.test/\x1b",
            "HTTPS",
        ),
        *("http://127.0.0.1:x/", "https://ca.test?x"),
    ],
)
def test_a_ca_is_asked_over_https_only(text: str, tmp_path: Path) -> None:
    problem = (
        f"{text!r} is not valid; use letsencrypt, letsencrypt-staging, zerossl, "
        "google, or the https:// URL of a CA's directory"
    )

    assert problems(tmp_path, directory_url=text) == [
        f"command line --directory-url: {problem}"
    ]


@pytest.mark.parametrize("name", ["directory-url", "mail-server"])
@pytest.mark.parametrize("scheme", ["https", "smtp"])
def test_a_login_in_a_url_is_refused_and_not_shown(name: str, scheme: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({name: (f"{scheme}://user:hunter2@a.test/",)}, {}, None)

    assert "contains an @" in caught.value.message
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize("name", ["to", "contact", "mail-from"])
@pytest.mark.parametrize(
    "text",
    [
        *("a@b.test\nBcc: c@d.test", "a@b.test\r", "x\n,a@b.test"),
    ],
)
def test_an_address_with_a_line_break_is_refused(name: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({name: (text,)}, {}, None)

    assert caught.value.message.endswith(f"{text!r} contains a line break")


@pytest.mark.parametrize("name", ["to", "contact", "mail-from"])
@pytest.mark.parametrize(
    "text",
    [
        *(
            "a",
            "@b.test",
            "a@",
            "a@b@c.test",
            "A <a@b.test>",
            "<a@b.test>",
            "a@b.test>",
        ),
        *('"a"@b.test', "a b@c.test", "a@b c.test", "a;b@c.test", "a\\b@c.test"),
        *("ü@b.test", "a@bücher.test", "a\x00@b.test", "a\x1b@b.test", "(x)a@b.test"),
        *("a@[b", "mailto:a@b.test", "a@b.test\u2028x"),
    ],
)
def test_what_is_no_plain_address_is_refused(name: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({name: (text,)}, {}, None)

    problem = f"{text!r} is not a mail address such as you@example.com"
    assert caught.value.message.endswith(problem)


def test_a_mail_has_one_sender(tmp_path: Path) -> None:
    assert problems(tmp_path, mail_from="a@b.test,c@d.test") == [
        "command line --mail-from: 'a@b.test,c@d.test' is not valid; use one address"
    ]


def test_all_names_that_are_wrong_are_told_with_their_reasons(tmp_path: Path) -> None:
    text = "Good.test, *.a.test 192.0.2.1;[::1],localhost good.test."

    (found,) = problems(tmp_path, alternate_host_names=text)

    assert found == (
        "command line --alternate-host-names: "
        "'*.a.test' is a wildcard, which a CA cannot validate over HTTP; "
        "list each name; "
        "'192.0.2.1' is an IP address; only DNS names can go into the certificate; "
        "'[::1]' is an IP address; only DNS names can go into the certificate; "
        "'localhost' has no dot; a public CA needs a full name such as mail.example.com"
    )


def test_names_may_repeat_and_stand_on_several_lines(tmp_path: Path) -> None:
    text = f"{HEAD}alternate-host-names =\n  A.test,\n  b.test\n  a.test. b.test,,\n"

    assert loaded(tmp_path, text).config.alternate_host_names == ("a.test", "b.test")


def test_the_ca_is_the_one_given_or_lets_encrypts() -> None:
    url = "https://ca.test/directory"

    assert Config().ca == LETSENCRYPT.url
    assert Config(staging=True).ca == LETSENCRYPT.staging
    assert Config(directory_url=url).ca == url
    assert Config(directory_url=url, staging=True).ca == url


@pytest.mark.parametrize("name", AUTHORITIES)
def test_a_ca_may_be_named(tmp_path: Path, name: str) -> None:
    config = loaded(tmp_path, f"{HEAD}directory-url = {name.upper()}").config

    assert config.ca == AUTHORITIES[name].url


def test_a_rehearsal_is_at_the_staging_service_of_a_ca_that_has_one() -> None:
    google = AUTHORITIES["google"]

    assert Config(directory_url=LETSENCRYPT.url, staging=True).ca == LETSENCRYPT.staging
    assert Config(directory_url=google.url, staging=True).ca == google.staging
    zerossl = AUTHORITIES["zerossl"].url
    assert Config(directory_url=zerossl, staging=True).ca == zerossl


def test_the_most_names_are_those_of_the_ca_and_its_profile() -> None:
    assert Config().most_names == 100
    assert Config(profile=("tlsserver", "classic")).most_names == 25
    assert Config(profile=("unheard-of",)).most_names == 100


@pytest.mark.parametrize("url", ["https://ca.test/", AUTHORITIES["zerossl"].url])
def test_a_ca_that_publishes_no_limit_of_names_has_none(url: str) -> None:
    assert Config(directory_url=url).most_names is None
    assert Config(directory_url=url, profile=("tlsserver",)).most_names is None


def test_only_the_cas_that_everybody_asks_are_asked_with_a_delay() -> None:
    assert Config().longest_delay == 300
    assert Config(staging=True).longest_delay == 300
    assert Config(directory_url="https://ca.test/directory").longest_delay == 0
    assert Config(directory_url="https://ca.test/directory", delay=7).longest_delay == 7
    assert Config(delay=0).longest_delay == 0


# The file


def test_relative_paths_start_from_the_files_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / FILE).write_text(
        f"{HEAD}webroot = ../html\nstore = pem:certs\n"
    )
    monkeypatch.chdir(tmp_path)

    config = load({"log-dir": ("logs",)}, {}, Path("sub", FILE)).config

    assert config.webroot == tmp_path / "sub" / ".." / "html"
    assert config.store == f"pem:{tmp_path / 'sub' / 'certs'}"
    assert config.log_dir == Path("logs")


def test_absolute_paths_stay_as_they_are(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"

    result = loaded(tmp_path, f"{HEAD}webroot = {elsewhere}\n")

    assert result.config.webroot == elsewhere


def test_a_backslash_is_just_a_backslash(tmp_path: Path) -> None:
    text = HEAD + r"mail-user = \\server\new\temp%USER%\x41"

    assert loaded(tmp_path, text).config.mail_user == r"\\server\new\temp%USER%\x41"


def test_the_file_may_be_as_windows_editors_save_it(tmp_path: Path) -> None:
    text = f"\ufeff; Grüße\r\n{HEAD}\r\n# {{}}\r\n HOST-NAME=mail.test\r\n"
    data = text.replace("\r\n", "\n").replace("\n", "\r\n").encode()

    assert loaded(tmp_path, data).config == Config(host_name="mail.test")


def test_what_follows_a_value_belongs_to_it(tmp_path: Path) -> None:
    text = f"{HEAD}mail-password = a=b: c ; d # e [f] %(g)s\n"

    assert loaded(tmp_path, text).config.mail_password == "a=b: c ; d # e [f] %(g)s"  # noqa: S105


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    for text in ("", "\ufeff", HEAD, "; nothing\n\n"):
        assert loaded(tmp_path, text).config == Config()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "host-name = mail.test",
            [f"{FILE} line 1: add [letsencrypt-mdaemon] above it"],
        ),
        (
            f"{HEAD}agree-tos\nmail-password: hunter2\nto = a@b.test",
            [
                f"{FILE} line 2: write name = value",
                f"{FILE} line 3: write name = value",
            ],
        ),
        (
            f"{HEAD}= hunter2",
            [f"{FILE} line 2: write name = value"],
        ),
        (
            f"{HEAD}to = a@b.test\nmail-password = hunter2\nTO = b@c.test",
            [f"{FILE} line 4: to appears twice"],
        ),
        (
            f"{HEAD}{HEAD}",
            [f"{FILE} line 2: [letsencrypt-mdaemon] appears twice"],
        ),
        (
            f"{HEAD}[LetsEncrypt-MDaemon]",
            [f"{FILE} [LetsEncrypt-MDaemon]: this section appears twice"],
        ),
        (
            f"{HEAD}\xff".encode("latin-1"),
            [f"{FILE} is not UTF-8 text; save it as UTF-8"],
        ),
        (
            b"\xff\xfe[",
            [f"{FILE} is not UTF-8 text; save it as UTF-8"],
        ),
    ],
)
def test_a_file_that_is_no_ini_is_refused_without_quoting_it(
    text: str | bytes, expected: list[str], tmp_path: Path
) -> None:
    assert problems(tmp_path, text) == expected


def test_an_error_that_the_system_has_no_words_for_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError("the reader is odd")

    monkeypatch.setattr(disk, "read_limited", refuse)

    with pytest.raises(ConfigError, match=r"x\.ini: the reader is odd$"):
        load({}, {}, tmp_path / "x.ini")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for file in (tmp_path / "missing.ini", tmp_path):
        with pytest.raises(ConfigError) as caught:
            load({}, {}, file)
        message = caught.value.message
        assert message.startswith(
            f"The configuration is invalid: Could not read {file}: "
        )


# What is not known


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            f"{HEAD}host_name = a.test",
            "[letsencrypt-mdaemon] host_name: unknown; did you mean host-name?",
        ),
        (
            f"{HEAD}Alternate-Hostnames = a.test",
            (
                "[letsencrypt-mdaemon] alternate-hostnames: unknown; did you mean "
                "alternate-host-names?"
            ),
        ),
        (
            f"{HEAD}zzz = hunter2",
            "[letsencrypt-mdaemon] zzz: unknown",
        ),
        (
            f"{HEAD}\x1b[31m = x",
            r"[letsencrypt-mdaemon] \x1b[31m: unknown",
        ),
        (
            "[LetsEncrypt]",
            "[LetsEncrypt]: unknown section; did you mean letsencrypt-mdaemon?",
        ),
        ("[DEFAULT]", "[DEFAULT]: unknown section"),
        ("[target]", "[target]: unknown section; did you mean target NAME?"),
        ("[target  ]", "[target  ]: unknown section; did you mean target NAME?"),
        ("[\x1b]", r"[\x1b]: unknown section"),
        (
            "[target mail]\nfile = a.ini\nkey = b\nfrom = c",
            "[target mail] from: unknown; did you mean form?",
        ),
    ],
)
def test_an_unknown_key_or_section_is_refused_with_the_nearest_name(
    text: str, problem: str, tmp_path: Path
) -> None:
    assert problems(tmp_path, text) == [f"{FILE} {problem}"]


@pytest.mark.parametrize(
    ("variable", "problem"),
    [
        ("HOSTNAME", "unknown; did you mean LETSENCRYPT_MDAEMON_HOST_NAME?"),
        ("KEEP_LOG", "unknown; did you mean LETSENCRYPT_MDAEMON_KEEP_LOGS?"),
        ("host_name", "unknown; did you mean LETSENCRYPT_MDAEMON_HOST_NAME?"),
        ("XYZ", "unknown"),
        ("", "unknown"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_name(
    variable: str, problem: str, tmp_path: Path
) -> None:
    environ = {PREFIX + variable: "hunter2", "LETSENCRYPT": "x", "letsencrypt_m": "x"}

    assert problems(tmp_path, environ=environ) == [
        f"environment {PREFIX}{variable}: {problem}"
    ]


@pytest.mark.parametrize("name", ["max-names", "keep-backups"])
def test_a_removed_setting_is_skipped_with_a_warning_that_names_it(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    variable = PREFIX + name.upper().replace("-", "_")

    result = loaded(tmp_path, f"{HEAD}{name} = 5\nkeep-logs = 1\n", {variable: "5"})

    assert result.config == Config(keep_logs=1)
    assert [record.getMessage() for record in caplog.records] == [
        f"{where}: skipped, this setting was removed; delete it"
        for where in (
            f"{tmp_path / FILE} [letsencrypt-mdaemon] {name}",
            f"environment {variable}",
        )
    ]


def test_all_problems_are_told_at_once_with_where_they_are(tmp_path: Path) -> None:
    text = (
        f"{HEAD}force = perhaps\nhostname = a.test\nto = x\n"
        "[target a]\nfile = ../a.ini\n[other]\nx = y\n"
    )
    environ = {PREFIX + "KEEP_LOGS": "many", PREFIX + "COLOUR": "no"}

    assert problems(tmp_path, text, environ, host_name="localhost") == [
        f"{FILE} [letsencrypt-mdaemon] force: 'perhaps' is not valid; use yes or no",
        f"{FILE} [letsencrypt-mdaemon] hostname: unknown; did you mean host-name?",
        (
            f"{FILE} [letsencrypt-mdaemon] to: 'x' is not a mail address such as "
            "you@example.com"
        ),
        f"{FILE} [target a]: set both file and key",
        f"{FILE} [target a] file: use a path below MDaemon's folder",
        f"{FILE} [other]: unknown section",
        (
            f"environment {PREFIX}KEEP_LOGS: 'many' is not valid; use a number from 0 "
            "to 10000"
        ),
        f"environment {PREFIX}COLOUR: unknown",
        (
            "command line --host-name: 'localhost' has no dot; a public CA needs a "
            "full name such as mail.example.com"
        ),
    ]


def test_a_broken_file_does_not_hide_other_problems(tmp_path: Path) -> None:
    assert problems(tmp_path, "nonsense", force="perhaps") == [
        f"{FILE} line 1: add [letsencrypt-mdaemon] above it",
        "command line --force: 'perhaps' is not valid; use yes or no",
    ]


# Targets


def test_targets_have_sections_of_their_own(tmp_path: Path) -> None:
    text = (
        r"""
        [target Mail server]
        file = App\MDaemon.ini
        section = SSL
        key = Certificate
        form = sha1:upper:space
        [TARGET webmail]
        file = WorldClient/WorldClient.ini
        Key = Hash
        """
    ).replace("        ", "")

    result = loaded(tmp_path, text)

    assert result.config.targets == (
        TargetText(
            "Mail server", r"App\MDaemon.ini", "SSL", "Certificate", "sha1:upper:space"
        ),
        TargetText("webmail", "WorldClient/WorldClient.ini", "", "Hash", ""),
    )


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("", ": set both file and key"),
        ("key = k", ": set both file and key"),
        ("file = a.ini", ": set both file and key"),
        *(
            (f"file = {file}\nkey = k", " file: use a path below MDaemon's folder")
            for file in (
                *("../a.ini", r"..\a.ini", r"App\..\..\a.ini", "/etc/a.ini"),
                *(
                    r"\\server\share\a.ini",
                    r"C:\a.ini",
                    "C:a.ini",
                    "App//a.ini",
                    "App/",
                ),
                *("a.ini:stream",),
            )
        ),
        (
            "file = a.ini\nkey = k\n  l",
            " key: contains a line break or another control character",
        ),
    ],
)
def test_a_target_that_leads_nowhere_is_refused(
    lines: str, problem: str, tmp_path: Path
) -> None:
    found = problems(tmp_path, f"[target a]\n{lines}\n")

    assert found[0] == f"{FILE} [target a]{problem}"


@pytest.mark.parametrize("other", ["[TARGET A]", "[target  a]", "[target\ta ]"])
def test_two_targets_of_one_name_are_refused(other: str, tmp_path: Path) -> None:
    lines = "file = a.ini\nkey = k\n"

    assert problems(tmp_path, f"[target a]\n{lines}{other}\n{lines}") == [
        f"{FILE} {other}: this section appears twice".replace("\t", " ")
    ]


# What `config show` tells


def test_every_setting_is_shown_with_where_it_comes_from(tmp_path: Path) -> None:
    text = f"{HEAD}webroot = html\n[target a]\nfile = App/a.ini\nsection = S\nkey = k\n"

    rows = loaded(
        tmp_path, text, {PREFIX + "FORCE": "yes"}, to="a@b.test,c@d.test"
    ).shown()

    assert list(rows) == [*EXAMPLES, "target a"]
    assert rows["webroot"] == {
        "value": str(tmp_path / "html"),
        "from": f"{tmp_path / FILE} [letsencrypt-mdaemon] webroot",
    }
    assert rows["force"] == {"value": "yes", "from": f"environment {PREFIX}FORCE"}
    assert rows["to"] == {"value": "a@b.test,c@d.test", "from": "command line --to"}
    assert rows["target a"] == {
        "value": "App/a.ini [S] k",
        "from": f"{tmp_path / FILE} [target a]",
    }
    assert rows["staging"] == {"value": "no", "from": "default"}
    assert rows["log-dir"] == {"value": "", "from": "default", "default": "Logs"}
    assert rows["keep-logs"] == {"value": "30", "from": "default"}
    assert rows["smtp-address"] == {"value": "127.0.0.1:25", "from": "default"}


@EVERY_SETTING
def test_what_is_shown_means_the_same_when_it_is_set(name: str) -> None:
    result = load({name: (EXAMPLES[name][0],)}, {}, None)
    shown = result.shown()[name]["value"]

    if name in SECRETS:
        assert shown == "(set)"
    else:
        assert load({name: (shown,)}, {}, None) == result


def test_a_secret_is_never_shown(tmp_path: Path) -> None:
    secrets = [name for name, row in settings() if row.secret]
    assert secrets == SECRETS

    for name in secrets:
        text = "https://hunter2.test/hunter2"
        result = loaded(tmp_path, f"{HEAD}{name} = {text}\n")

        assert value(result, name) == text
        assert result.shown()[name]["value"] == "(set)"
        assert loaded(tmp_path).shown()[name]["value"] == ""
        for text in (repr(result), str(result.config), str(result.shown())):
            assert "hunter2" not in text


# Anything at all


LINES = st.one_of(
    st.sampled_from(
        [
            *("[letsencrypt-mdaemon]", "[target a]", "[TARGET  b ]", "[target ]", "[]"),
            *("[", "]", "=", " = x", "file = a.ini", "key = k", "form", "\ufeff", "\0"),
            *("  continued", "\tto = x", "; comment", "%(x)s = %(x)s", "a = b = c"),
        ]
    ),
    st.builds(
        "{} = {}".format, st.sampled_from([*EXAMPLES, "x"]), st.text(st.characters())
    ),
    st.text(st.characters(), max_size=8),
)
TEXTS = st.lists(LINES, max_size=8).flatmap(
    lambda lines: st.sampled_from(["\n", "\r\n", "\r"]).map(
        lambda newline: newline.join(lines).encode("utf-8", "surrogatepass")
    )
)


@given(data=st.binary(max_size=60) | TEXTS | TEXTS.map(HEAD.encode().__add__))
@example(data=b"[target ]")
@example(data=b"\xff\xfe[\0")
def test_any_file_is_a_config_or_a_config_error(
    data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    try:
        result = loaded(folder, data)
    except ConfigError as exc:
        event("refused")
        lines = exc.message.split("\n  - ")
    else:
        event("loaded")
        lines = [str(row) for row in result.shown().values()]
    assert all(line.isprintable() for line in lines)


@given(st.sampled_from([*EXAMPLES]), st.text(st.characters()))
def test_any_value_is_understood_or_refused(name: str, text: str) -> None:
    message = ""
    try:
        load({name: (text,)}, {PREFIX + name.upper().replace("-", "_"): text}, None)
    except ConfigError as exc:
        message = exc.message
    assert all(line.isprintable() for line in message.split("\n  - "))


# Files that are no config files


def test_a_file_over_the_limit_is_refused_and_the_limit_named(tmp_path: Path) -> None:
    with (tmp_path / FILE).open("wb") as file:
        file.truncate(200 << 20)

    with pytest.raises(ConfigError) as caught:
        load({}, {}, tmp_path / FILE)

    assert caught.value.message.endswith(
        f"Could not read {tmp_path / FILE}: it is larger than 1 MB, the limit for a "
        "config file"
    )


def test_a_file_of_many_mistakes_compares_and_shows_only_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []

    def matches(word: str, words: list[str], _: int) -> list[str]:
        compared.extend([word] if words else [])
        return []

    monkeypatch.setattr(load_module, "get_close_matches", matches)
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, HEAD + "".join(f"x{n}=1\n[{n}]\n" for n in range(900)))

    assert len(compared) == 100
    head, *lines = caught.value.message.split("\n  - ")
    assert head == "The configuration has 901 problems:"
    assert len(lines) == 101
    assert lines[-1] == "and 801 more"


if sys.platform != "win32":

    def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
        os.mkfifo(tmp_path / FILE)

        with pytest.raises(ConfigError, match="it is not a regular file"):
            load({}, {}, tmp_path / FILE)
