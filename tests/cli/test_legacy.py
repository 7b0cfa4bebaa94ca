"""The command lines of the old script, LetsEncrypt.ps1."""

from __future__ import annotations

import shlex
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letsencrypt_mdaemon.cli.legacy import PARAMETERS, is_legacy, translate
from letsencrypt_mdaemon.config import load
from letsencrypt_mdaemon.errors import ConfigError


def problems(line: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        translate(shlex.split(line))
    head, _, listed = caught.value.message.partition(": ")
    assert head == "The command line is invalid"
    assert caught.value.hint == (
        "The old script's parameters are -AlternateHostNames, -IISSiteName, -To, "
        "-RemoveOldCertificates, -SkipPortCheck."
    )
    return listed.removesuffix(".").split("; ")


@pytest.mark.parametrize(
    ("line", "ours"),
    [
        # As the vendor's page and the scripts in the field write it.
        (
            "-AlternateHostNames a.test,b.example.test -IISSiteName MySite",
            "--alternate-host-names a.test,b.example.test --iis-site-name MySite",
        ),
        (
            "-To postmaster@example.test -RemoveOldCertificates -SkipPortCheck",
            "--to postmaster@example.test --remove-old-certificates --skip-port-check",
        ),
        # Any case, any prefix.
        ("-TO a@b.test", "--to a@b.test"),
        ("-alternatehostnames a.test", "--alternate-host-names a.test"),
        (
            "-Alt a.test -Remove -Skip",
            "--alternate-host-names a.test --remove-old-certificates --skip-port-check",
        ),
        (
            "-i S -t a@b.test -r",
            "--iis-site-name S --to a@b.test --remove-old-certificates",
        ),
        # A colon, with and without a blank behind it.
        ("-To:a@b.test", "--to a@b.test"),
        ("-To: a@b.test", "--to a@b.test"),
        ("-IISSiteName:'A: B'", "--iis-site-name 'A: B'"),
        # Lists, as PowerShell passes them: one word, or several.
        ("-A a.test b.test c.test", "--alternate-host-names a.test,b.test,c.test"),
        ("-A a.test, b.test ,c.test", "--alternate-host-names a.test,b.test,c.test"),
        ("-A 'a.test, b.test'", "--alternate-host-names 'a.test, b.test'"),
        (
            "-A:a.test, b.test -S",
            "--alternate-host-names a.test,b.test --skip-port-check",
        ),
        ("-A '' a.test", "--alternate-host-names a.test"),
        (
            "-A a.test -A b.test",
            "--alternate-host-names a.test --alternate-host-names b.test",
        ),
        ("-To a@b.test,c@d.test", "--to a@b.test,c@d.test"),
        # Switches with a value.
        ("-S:$true -R:$false", "--skip-port-check"),
        ("-S:TRUE -R:False", "--skip-port-check"),
        ("-S:1 -R:0", "--skip-port-check"),
        ("-S: $false -R: $true", "--remove-old-certificates"),
        # Other dashes, as word processors make them.
        ("–To a@b.test", "--to a@b.test"),
        ("—To a@b.test ―SkipPortCheck", "--to a@b.test --skip-port-check"),
        # Options of ours behind it.
        ("-To a@b.test --dry-run -x y", "--to a@b.test --dry-run -x y"),
        ("-A a.test --to -b -To", "--alternate-host-names a.test --to -b -To"),
        ("-S -c file.ini", "--skip-port-check -c file.ini"),
        ("-S -v", "--skip-port-check -v"),
    ],
)
def test_the_old_spelling_means_the_same_as_ours(line: str, ours: str) -> None:
    arguments = shlex.split(line)

    assert is_legacy(arguments)
    assert translate(arguments) == ["renew", *shlex.split(ours)]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "renew -To a@b.test",
        "--to a@b.test",
        "-c file.ini renew",
        "-v renew",
        "-h",
        "-vc file.ini renew",
        "--help",
        "-",
        "--",
        "-1",
        "a@b.test -To",
    ],
)
def test_our_own_spelling_is_not_taken_for_the_old_one(line: str) -> None:
    assert not is_legacy(shlex.split(line))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-Staging", ["-Staging matches no parameter"]),
        ("-Tow a@b.test c@d.test", ["-Tow matches no parameter"]),
        ("-x", ["-x matches no parameter"]),
        ("-To", ["-To has no value"]),
        ("-To:", ["-To has no value"]),
        ("-To -S", ["-To has no value"]),
        ("-To --dry-run", ["-To has no value"]),
        ("-To ' , '", ["-To has no value"]),
        ("-To '' -S", ["-To has no value"]),
        ("-I A B", ["'B' has no parameter"]),
        ("-I:A B", ["'B' has no parameter"]),
        ("-S $false", ["'$false' has no parameter"]),
        ("-S:maybe", ["-SkipPortCheck is 'maybe', not $true or $false"]),
        ("-R:", ["-RemoveOldCertificates is '', not $true or $false"]),
        ("-S '\x1b[31m'", [r"'\x1b[31m' has no parameter"]),
        (
            "-Staging yes -a -t: -s:x stray",
            [
                "-Staging matches no parameter",
                "-AlternateHostNames has no value",
                "-To has no value",
                "-SkipPortCheck is 'x', not $true or $false",
                "'stray' has no parameter",
            ],
        ),
    ],
)
def test_everything_that_is_wrong_is_told_at_once(
    line: str, expected: list[str]
) -> None:
    assert problems(line) == expected


def test_one_letter_is_enough_for_each_parameter() -> None:
    letters = [name[0].lower() for name in PARAMETERS]

    assert len(set(letters)) == len(letters)
    assert not {"c", "h", "v"} & set(letters)


def test_each_parameter_is_a_setting_of_ours() -> None:
    settings = {f"--{name}": setting for name, setting in load.settings()}

    assert set(PARAMETERS.values()) <= set(settings)
    for name in ("RemoveOldCertificates", "SkipPortCheck"):
        assert settings[PARAMETERS[name]].flag


WORDS = st.one_of(
    st.text(st.characters(), max_size=6),
    st.sampled_from(["-To", "-A", "-S:", "-R:$false", "–I", "--x", "-v", "", ",", "a"]),
)


@given(st.lists(WORDS, max_size=6))
def test_any_words_are_translated_or_refused(words: list[str]) -> None:
    message = ""
    try:
        ours = translate(words)
    except ConfigError as exc:
        message = exc.message
    else:
        assert ours[0] == "renew"
        for option, value in pairwise(ours):
            if option in {"--to", "--alternate-host-names", "--iis-site-name"}:
                assert value
    assert message.isprintable()
