"""INI values that name the certificate are learned, and changed without fear."""

from __future__ import annotations

import codecs
import itertools
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from letsencrypt_mdaemon.errors import ConfigError, DeployError
from letsencrypt_mdaemon.mdaemon import discovery, folders, forms
from letsencrypt_mdaemon.mdaemon.bindings import Bindings
from letsencrypt_mdaemon.mdaemon.discovery import Found
from letsencrypt_mdaemon.mdaemon.folders import IniFiles
from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.state.memory import Change, Target
from tests.certificates import START, leaf, sign
from tests.fakes import contents, huge, read_only, unreadable
from tests.wine import wine_differs

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAME = "mail.example.test"
# With a first bit that makes DER put a zero before it.
OLD = leaf([NAME], serial=0xF1E2D3C4B5A69788796A5B4C3D2E1F00)
NEW = leaf([NAME], start=START + timedelta(days=60))
OTHER = leaf(["other.example.org"])
UNKNOWN = leaf([NAME], start=START - timedelta(days=60))
SELF_SIGNED = sign("MDaemon").certificate

SHA1 = str(forms.DEFAULT)
MAIL = Target("App/MDaemon.ini", "SSL", "Certificate", SHA1)
WEB = Target("WorldClient/WorldClient.ini", "SSL", "Certificates", SHA1)


def write(root: Path, files: Mapping[str, str | bytes]) -> None:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A server whose mail and webmail name the old certificate."""
    root = tmp_path / "MDaemon"
    write(
        root,
        {
            MAIL.file: f"; caf\xe9 \x85\r\n[SSL]\r\nCertificate={thumbprint(OLD)}\r\n",
            WEB.file: "[SSL]\r\nCertificates="
            f"{thumbprint(OTHER)},{thumbprint(OLD)}\r\n",
        },
    )
    return root


def discover(
    root: Path, certificates: Sequence[x509.Certificate], *, skip: Sequence[Path] = ()
) -> list[Found]:
    return discovery.discover(IniFiles(root), certificates, skip=skip)


def bindings(
    root: Path,
    *wanted: Target,
    known: Iterable[x509.Certificate] = (OLD, OTHER),
    ours: Iterable[x509.Certificate] = (OLD,),
) -> Bindings:
    return Bindings(
        IniFiles(root),
        wanted or (MAIL, WEB),
        list(known),
        ours={thumbprint(certificate) for certificate in ours},
        backups=root.parent / "backups",
    )


def bind(root: Path, *wanted: Target, **more: Iterable[x509.Certificate]) -> list[str]:
    """Bind the new certificate, and return what changed as text."""
    bound = bindings(root, *wanted, **more)
    changes = bound.bind(NEW, now=NOW)
    bound.settle()
    assert bound.strays(NEW) == []
    return [f"{item.line}: {item.before} → {item.after}" for item in changes]


def changed(root: Path, *wanted: Target) -> list[Change]:
    bound = bindings(root, *wanted)
    changes = bound.bind(NEW, now=NOW)
    bound.settle()
    return changes


def taken_back(root: Path, changes: list[Change], *wanted: Target) -> None:
    bound = bindings(root, *wanted)
    bound.restore(changes, now=NOW)
    bound.settle()


def bind_value(tmp_path: Path, value: str, form: str = SHA1) -> str:
    """Bind the one target that has a value, and return what it is then."""
    target = Target("x.ini", "a", "b", form)
    write(tmp_path, {target.file: f"[a]\nb={value}\n"})
    bind(tmp_path, target)
    text = (tmp_path / target.file).read_text()
    assert text.startswith("[a]\nb=")
    return text.removeprefix("[a]\nb=").removesuffix("\n")


# Discovering


@pytest.mark.parametrize("form", forms.every(), ids=str)
def test_every_form_is_discovered_and_written_again(
    tmp_path: Path, form: forms.Form
) -> None:
    write(tmp_path, {"App/x.ini": f"[a]\nb = {form.write(OLD)} \n"})
    (found,) = discover(tmp_path, [OTHER, OLD])
    assert found.file == "App/x.ini"
    assert found.line == 2
    assert found.certificate == OLD
    assert found.target is not None
    assert bind(tmp_path, found.target) == [f"2: {form.write(OLD)} → {form.write(NEW)}"]


@pytest.mark.parametrize(
    "name", ["x.ini", "x.dat", "X.INI", "App/x.Dat", "a/b/c/d.ini", "App/Users/x.dat"]
)
def test_ini_and_dat_files_of_any_folder_are_searched(
    tmp_path: Path, name: str
) -> None:
    write(tmp_path, {name: f"a={thumbprint(OLD)}", "y.ini": "a=b", "App/y.dat": ""})
    assert [item.file for item in discover(tmp_path, [OLD])] == [name]


@pytest.mark.parametrize(
    "name",
    [
        *("x.txt", "x.ini.bak", "xini", "x.ini~"),
        *("Users/example.test/x.dat", "QUEUES/x.dat", "logs/x.ini"),
        *("Public Folders/x.dat", "App/Backup/x.ini", "backups/x.ini"),
    ],
)
def test_mail_logs_and_backups_are_not_searched(tmp_path: Path, name: str) -> None:
    write(tmp_path, {name: f"a={thumbprint(OLD)}"})
    assert discover(tmp_path, [OLD]) == []


def test_our_own_folders_are_not_searched(tmp_path: Path) -> None:
    own = tmp_path / "LetsEncrypt" / "state"
    write(own, {"x.ini": f"a={thumbprint(OLD)}", "a/x.ini": f"a={thumbprint(OLD)}"})
    write(tmp_path, {"LetsEncrypt/x.ini": f"a={thumbprint(OLD)}"})
    found = discover(tmp_path, [OLD], skip=[own / ".." / "state"])
    assert [item.file for item in found] == ["LetsEncrypt/x.ini"]


def test_each_certificate_of_a_list_and_each_repeated_key_is_discovered(
    tmp_path: Path,
) -> None:
    text = f"[A]\nb={thumbprint(OTHER)};{thumbprint(OLD).lower()}\n[a]\nB={'0' * 40}\n"
    write(tmp_path, {"x.ini": text + f"b={thumbprint(OLD)}\n"})
    found = discover(tmp_path, [OLD, OTHER])
    assert [(item.line, item.certificate, item.target) for item in found] == [
        (2, OTHER, Target("x.ini", "A", "b", "sha1:upper")),
        (2, OLD, Target("x.ini", "A", "b", "sha1:lower")),
        (5, OLD, Target("x.ini", "a", "b", "sha1:upper")),
    ]


@pytest.mark.parametrize(
    ("mark", "codec"),
    [
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF8, "utf-8"),
        (b"", "cp1252"),
    ],
)
def test_files_in_every_encoding_of_windows_are_understood(
    tmp_path: Path, mark: bytes, codec: str
) -> None:
    text = "; Grüße – 5 €\r\n[Ä]\r\nb=–{}–\r\n; …\r\n"
    write(tmp_path, {"x.ini": mark + text.format(thumbprint(OLD)).encode(codec)})
    (found,) = discover(tmp_path, [OLD])
    assert found.target is not None
    assert found.line == 3
    bind(tmp_path, found.target)
    expected = mark + text.format(thumbprint(NEW)).encode(codec)
    assert (tmp_path / "x.ini").read_bytes() == expected


def test_a_sign_beside_the_value_does_not_hide_it_in_utf_16(tmp_path: Path) -> None:
    # One of its bytes is that of a digit.
    text = f"[a]\r\nb=\u3001{thumbprint(OLD)}\u3001\r\n"
    write(tmp_path, {"x.ini": codecs.BOM_UTF16_LE + text.encode("utf-16-le")})
    (found,) = discover(tmp_path, [OLD])
    assert found.line == 2


@pytest.mark.parametrize(
    "data",
    [
        b"\1\2\xff\xfe" + thumbprint(OLD).encode() + b"\xff",
        b"abc\0" + thumbprint(OLD).encode() + b"\0def",
        b"\0b\0=\0" + thumbprint(OLD).encode("utf-16-le"),
        f"; b={thumbprint(OLD)}".encode(),
        f"[{thumbprint(OLD)}]\nb=c\n".encode(),
        f"{thumbprint(OLD)}=yes\n".encode(),
        codecs.BOM_UTF16_LE + f"b={thumbprint(OLD)}".encode(),
    ],
    ids=["bytes", "nul", "utf-16", "comment", "section", "key", "no utf-16"],
)
def test_what_is_not_in_an_ini_value_is_reported_without_a_target(
    tmp_path: Path, data: bytes
) -> None:
    write(tmp_path, {"x.dat": data})
    (found,) = discover(tmp_path, [OTHER, OLD])
    assert (found.file, found.line, found.target) == ("x.dat", 0, None)
    assert found.certificate == OLD
    assert discovery.learned([found], ()) == ()


def test_a_file_of_50_mb_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, {"App/z.ini": f"a={thumbprint(OLD)}"})
    huge(tmp_path / "App" / "a.dat")
    assert [item.file for item in discover(tmp_path, [OLD])] == ["App/z.ini"]
    assert f"Skipped: Could not read {tmp_path / 'App' / 'a.dat'}" in caplog.text
    assert "larger than" in caplog.text


if sys.platform != "win32":

    def test_a_pipe_that_is_called_like_an_ini_file_is_left_out_and_said(
        tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        os.mkfifo(tmp_path / "x.ini")
        assert discover(tmp_path, [OLD]) == []
        assert "not a regular file" in caplog.text


@wine_differs("its symbolic links lead nowhere")
def test_a_link_out_of_the_server_is_not_followed_but_said(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(root.parent, {"else/x.ini": f"a={thumbprint(OLD)}"})
    (root / "x.ini").symlink_to(root.parent / "else" / "x.ini")
    (root / "else").symlink_to(root.parent / "else", target_is_directory=True)
    assert {item.file for item in discover(root, [OLD])} == {MAIL.file, WEB.file}
    assert f"Skipped: {root / 'x.ini'} leads out" in caplog.text


@settings(deadline=None)
@given(st.binary(max_size=80))
@example(codecs.BOM_UTF16_LE)
@example(b"[a\r\n=b\xc3\0")
def test_no_bytes_are_too_odd_to_be_searched(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    root = tmp_path_factory.mktemp("odd")
    write(root, {"x.ini": data + b"\r\n[a]\r\nb=" + thumbprint(OLD).encode()})
    (found,) = discover(root, [OLD])
    assert found.certificate == OLD


# Learning


def test_a_value_is_learned_once_in_the_form_seen_last(tmp_path: Path) -> None:
    text = f"[A]\nb={thumbprint(OLD)}\n[a]\nB={thumbprint(OLD).lower()}\nc=d\n"
    write(tmp_path, {"x.ini": text})
    learned = discovery.learned(discover(tmp_path, [OLD]), ())
    assert learned == (Target("x.ini", "a", "B", "sha1:lower"),)


def test_what_is_new_counts_more_than_what_is_remembered() -> None:
    old = [Target("x.ini", "A", "b", "sha1:upper"), Target("y.ini", "", "c", SHA1)]
    new = Target("x.ini", "a", "B", "sha256:lower")
    found = [Found("x.ini", 1, new, OLD)]
    assert discovery.learned(found, old) == (new, old[1])


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Believe soon what looks wrong."""
    monkeypatch.setattr(folders, "BELIEVED_AFTER_SECONDS", 0.1)
    monkeypatch.setattr(folders, "POLL_SECONDS", 0.001)


@pytest.mark.usefixtures("brief")
def test_a_target_whose_value_is_gone_is_told_and_hides_no_other(root: Path) -> None:
    write(root, {"empty.ini": "[a]\nb=\n"})
    gone = [
        Target("gone.ini", "a", "b", SHA1),
        Target("empty.ini", "a", "b", SHA1),
        Target("../x.ini", "a", "b", SHA1),
        Target(MAIL.file, "SSL", "Other", SHA1),
    ]
    write(root.parent, {"x.ini": f"[a]\nb={thumbprint(OLD)}"})

    seen, unseen = discovery.look_at(IniFiles(root), [*gone, MAIL], {})

    assert seen == [MAIL]
    assert {item.target for item in unseen} == set(gone)
    assert all(item.is_gone for item in unseen)


@pytest.mark.usefixtures("brief")
def test_a_file_that_cannot_be_read_is_not_gone(root: Path) -> None:
    with unreadable(root / MAIL.file):
        seen, unseen = discovery.look_at(IniFiles(root), [MAIL, WEB], {})

    assert seen == [WEB]
    (only,) = unseen
    assert (only.target, only.is_gone) == (MAIL, False)
    assert "Permission denied" in str(only)


@pytest.mark.parametrize("torn", [b"", b"[SSL]\r\n", b"[SS", None])
def test_a_file_that_is_torn_for_a_moment_is_read_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, torn: bytes | None
) -> None:
    path = root / MAIL.file
    whole = path.read_bytes()
    path.unlink() if torn is None else path.write_bytes(torn)
    pauses = iter([torn, whole])
    monkeypatch.setattr(time, "sleep", lambda _: path.write_bytes(next(pauses) or b""))

    assert discovery.look_at(IniFiles(root), [MAIL], {}) == ([MAIL], [])


def test_a_file_that_has_lost_half_of_its_size_is_read_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = root / MAIL.file
    whole = path.read_bytes()
    pauses = iter([lambda: path.write_bytes(whole * 2)])
    monkeypatch.setattr(time, "sleep", lambda _: next(pauses)())

    files = IniFiles(root)

    assert discovery.look_at(files, [MAIL], {MAIL.file: 3 * len(whole)})[0] == [MAIL]
    assert files.data(path) == whole * 2


def test_a_file_that_changes_all_the_time_is_not_believed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = root / MAIL.file
    numbers = itertools.count()
    monkeypatch.setattr(folders, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(
        time, "sleep", lambda _: path.write_bytes(b"[a]\n%d" % next(numbers))
    )
    path.write_bytes(b"")

    _, (only,) = discovery.look_at(IniFiles(root), [MAIL], {})

    assert not only.is_gone
    assert "changes all the time" in only.why


def test_targets_of_the_config_file_are_checked_all_at_once(root: Path) -> None:
    given = {
        "one": Target("gone.ini", "a", "b", ""),
        "two": Target(MAIL.file, "SSL", "Certificate", "md5:upper"),
        "three": Target(MAIL.file, "SSL", "Certificate", ""),
        "four": Target(r"..\x.ini", "a", "b", ""),
    }
    with pytest.raises(ConfigError) as caught:
        discovery.explicit(IniFiles(root), given)
    for name in ("one", "two", "four"):
        assert f"[target {name}]: " in caught.value.message
    assert "[target three]" not in caught.value.message
    assert discovery.explicit(IniFiles(root), {"three": given["three"]}) == (
        [given["three"]],
        [],
    )


# What they name


def named(root: Path, *wanted: Target) -> list[x509.Certificate | None]:
    return list(bindings(root, *wanted).named([NAME]).values())


def test_each_target_names_a_certificate(root: Path) -> None:
    # In a list of several it is ours.
    assert bindings(root).named([NAME]) == {MAIL: OLD, WEB: OLD}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[SSL]\n",
        "[SSL]\nCertificate=\n",
        "[SSL]\nCertificate=nonsense\n",
        f"[SSL]\nCertificate={thumbprint(UNKNOWN)}\n",
        f"[SSL]\nCertificate={thumbprint(OLD)}\nCertificate={thumbprint(OTHER)}\n",
        f"[SSL]\nCertificate={thumbprint(OLD)}\nCertificate=\n",
    ],
    ids=["nothing", "no key", "empty", "nonsense", "unknown", "two", "one and none"],
)
def test_a_target_without_one_known_certificate_names_none(
    root: Path, text: str
) -> None:
    write(root, {MAIL.file: text})
    assert named(root, MAIL) == [None]


def test_a_key_repeated_with_one_certificate_names_it(root: Path) -> None:
    text = f"Certificate={thumbprint(OLD)}\ncertificate={thumbprint(OLD).lower()}\n"
    write(root, {MAIL.file: f"[SSL]\n{text}"})
    assert named(root, MAIL) == [OLD]


def test_everything_that_a_value_names_is_referenced(root: Path) -> None:
    found = discovery.references(root, [OLD, OTHER, UNKNOWN], skip=[])
    assert found == {thumbprint(OLD), thumbprint(OTHER)}
    found = discovery.references(root, [OLD, OTHER], skip=[root / "WorldClient"])
    assert found == {thumbprint(OLD)}


# Binding


def test_all_targets_name_the_new_certificate_and_no_other_byte_changes(
    root: Path,
) -> None:
    before = contents(root)
    old, new, other = map(thumbprint, (OLD, NEW, OTHER))
    changes = [f"3: {old} → {new}", f"2: {other},{old} → {other},{new}"]
    assert bind(root) == changes
    assert contents(root) == {
        name: data.replace(thumbprint(OLD).encode(), thumbprint(NEW).encode())
        for name, data in before.items()
    }


@settings(deadline=None)
@given(
    before=st.binary(max_size=60),
    after=st.binary(max_size=60),
    ending=st.sampled_from([b"\r\n", b"\n", b"\r"]),
    blanks=st.sampled_from([b"", b" ", b"\t "]),
    value=st.sampled_from([b"{}", b"x {}", b"{},x", b"\xe9;{} ;\x85", b"CERT:{}"]),
)
@example(b"", b"\x85", b"\n", b"", b"{}")
def test_no_byte_around_the_value_changes(  # noqa: PLR0913, PLR0917 - parts of a file
    tmp_path_factory: pytest.TempPathFactory,
    before: bytes,
    after: bytes,
    ending: bytes,
    blanks: bytes,
    value: bytes,
) -> None:
    root = tmp_path_factory.mktemp("bytes")
    assume(b"{}" not in before + after)
    head = before + ending + b"[SSL]" + ending + b"Certificate" + blanks + b"=" + blanks
    whole = head + value + ending + after
    assume(not whole.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)))
    write(root, {MAIL.file: whole.replace(b"{}", thumbprint(OLD).encode())})
    bind(root, MAIL)
    expected = whole.replace(b"{}", thumbprint(NEW).encode())
    assert (root / MAIL.file).read_bytes() == expected


def test_done_twice_it_changes_nothing_and_warns_of_nothing(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bind(root)
    before = contents(root.parent)
    status = (root / MAIL.file).stat()
    # A process that has not seen the new one yet, and one that has.
    assert bind(root) == []
    assert bind(root, known=[OLD, OTHER, NEW], ours=[OLD, NEW]) == []
    assert contents(root.parent) == before
    assert (root / MAIL.file).stat().st_mtime_ns == status.st_mtime_ns
    assert caplog.messages == []


def test_the_former_contents_are_kept(root: Path) -> None:
    before = contents(root)
    bind(root)
    kept = contents(root.parent / "backups").values()
    assert sorted(kept) == sorted(before.values())


def test_a_dry_run_says_the_changes_and_makes_none(root: Path) -> None:
    with read_only(root.parent):
        changes = bindings(root).planned(NEW)
    assert [change.target for change in changes] == [MAIL, WEB]


def test_a_file_with_nothing_to_change_may_be_read_only(root: Path) -> None:
    write(root, {WEB.file: f"[SSL]\nCertificates={thumbprint(NEW)}\n"})
    (root / WEB.file).chmod(0o444)
    assert len(bind(root)) == 1


def test_one_file_written_in_two_ways_gets_both_changes(root: Path) -> None:
    write(root, {"App/x.ini": f"[a]\nb={thumbprint(OLD)}\nc={thumbprint(OLD)}\n"})
    one = Target("App/x.ini", "a", "b", SHA1)
    two = Target(r"app\X.INI", "A", "C", SHA1)
    assert len(bind(root, one, two)) == 2
    text = (root / "App/x.ini").read_text()
    assert text == f"[a]\nb={thumbprint(NEW)}\nc={thumbprint(NEW)}\n"


# Lists


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ("{other},{old}", "sha1:lower"),
        ("{old};{other};{old}", "sha1:upper"),
        ("a={old} b={other}", "sha256:lower:colon"),
        ("{other} , {old}", "sha1:upper:space"),
        ("{other}|{old}|x", "sha1:base64"),
        ("{old} {other}", "serial:decimal"),
        ("{old}; {other}", "derserial:lower:space"),
    ],
)
def test_a_list_keeps_its_other_entries(tmp_path: Path, value: str, form: str) -> None:
    write_as = forms.parse(form).write
    other = write_as(OTHER)
    before = value.format(old=write_as(OLD), other=other)
    after = bind_value(tmp_path, before, form)
    assert after == value.format(old=write_as(NEW), other=other)


def test_a_value_that_names_one_certificate_in_two_ways_names_the_new_one_so(
    tmp_path: Path,
) -> None:
    serial = forms.parse("derserial:lower:space")
    after = bind_value(tmp_path, f"{thumbprint(OLD)} {serial.write(OLD)}")
    assert after == f"{thumbprint(NEW)} {serial.write(NEW)}"


@pytest.mark.parametrize(
    ("listed", "ours", "replaced"),
    [
        ([OTHER, SELF_SIGNED], [SELF_SIGNED], SELF_SIGNED),  # ours
        ([OLD, SELF_SIGNED], [SELF_SIGNED], SELF_SIGNED),  # ours, with other names
        ([UNKNOWN, OLD], [UNKNOWN], UNKNOWN),  # ours, though another lasts longer
        ([SELF_SIGNED, OLD, OTHER], [], OLD),  # the one for our names
        ([UNKNOWN, OLD, UNKNOWN], [], OLD),  # of those the one that lasts longest
    ],
)
def test_in_a_list_ours_is_replaced_else_the_one_for_our_names(
    tmp_path: Path,
    listed: list[x509.Certificate],
    ours: list[x509.Certificate],
    replaced: x509.Certificate,
) -> None:
    write(tmp_path, {"x.ini": f"[a]\nb={','.join(map(thumbprint, listed))}\n"})
    bind(tmp_path, Target("x.ini", "a", "b", SHA1), known=listed, ours=ours)
    after = [NEW if item == replaced else item for item in listed]
    text = (tmp_path / "x.ini").read_text()
    assert text == f"[a]\nb={','.join(map(thumbprint, after))}\n"


def test_in_a_list_of_strangers_none_is_replaced(root: Path) -> None:
    listed = f"{thumbprint(OTHER)},{thumbprint(SELF_SIGNED)}"
    write(root, {WEB.file: f"[SSL]\nCertificates={listed}\n"})
    before = contents(root)
    known = [OLD, OTHER, SELF_SIGNED]
    with pytest.raises(ConfigError, match="lists 2 certificates") as caught:
        bind(root, known=known)
    assert NAME in caught.value.message
    assert caught.value.hint
    with pytest.raises(ConfigError, match="lists 2 certificates"):
        bindings(root, known=known).named([NAME])
    assert contents(root) == before


def test_the_servers_own_certificate_is_replaced_though_it_has_other_names(
    tmp_path: Path,
) -> None:
    # The first run: what the administrator chose once in the server's dialog.
    write(tmp_path, {"x.ini": f"[a]\nb={thumbprint(SELF_SIGNED)}\n"})
    target = Target("x.ini", "a", "b", SHA1)
    assert len(bind(tmp_path, target, known=[SELF_SIGNED], ours=[])) == 1


# Repeated keys


def test_a_repeated_key_changes_everywhere_and_its_lines_are_named(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, two, new = thumbprint(OLD), thumbprint(OLD).lower(), thumbprint(NEW)
    text = "[ssl]\ncertificate={}\n[other]\nCertificate={}\n[SSL]\nCERTIFICATE={}\n"
    write(root, {MAIL.file: text.format(one, one, two)})
    assert bind(root, MAIL) == [f"2: {one} → {new}", f"6: {two} → {new.lower()}"]
    assert (root / MAIL.file).read_text() == text.format(new, one, new.lower())
    (message,) = caplog.messages
    assert str(MAIL) in message
    assert "occurs 2 times (lines 2, 6); changed in line 2, 6" in message


def test_of_a_repeated_key_what_is_new_already_stays(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = f"[SSL]\nCertificate={thumbprint(NEW)}\nCertificate={thumbprint(OLD)}\n"
    write(root, {MAIL.file: text})
    assert bind(root, MAIL) == [f"3: {thumbprint(OLD)} → {thumbprint(NEW)}"]
    assert "(lines 2, 3); changed in line 3" in caplog.text


# Values that name nothing we know


def test_an_unknown_certificate_in_the_known_form_is_replaced_with_a_warning(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(root, {MAIL.file: f"[SSL]\nCertificate=x:{thumbprint(UNKNOWN)};\n"})
    bind(root, MAIL)
    text = (root / MAIL.file).read_text()
    assert text == f"[SSL]\nCertificate=x:{thumbprint(NEW)};\n"
    (message,) = caplog.messages
    assert str(MAIL) in message
    assert thumbprint(UNKNOWN) in message


@pytest.mark.parametrize(
    "value",
    [
        "nonsense",
        "Yes",
        "0" * 39,
        "0" * 41,
        f"{'0' * 40},{'1' * 40}",
        "\x1b[31mred",
        "=" * 5000,
    ],
)
def test_a_value_that_cannot_be_understood_is_an_error_and_nothing_changes(
    root: Path, value: str
) -> None:
    write(root, {WEB.file: f"[SSL]\nCertificates={value}\n"})
    before = contents(root.parent)
    with pytest.raises(ConfigError) as caught:
        bind(root)
    assert str(WEB) in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 500
    assert caught.value.hint
    assert contents(root.parent) == before


def test_an_empty_value_is_filled(tmp_path: Path) -> None:
    assert bind_value(tmp_path, "") == thumbprint(NEW)
    assert bind_value(tmp_path, "", "") == thumbprint(NEW)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "[SSL]\r\nCertificate={}\r\n"),
        ("[A]\nb=c\n[SSL]\nx=y\n[B]\n", "[A]\nb=c\n[SSL]\nx=y\nCertificate={}\n[B]\n"),
        ("[A]\nb=c", "[A]\nb=c\n[SSL]\nCertificate={}\n"),
    ],
)
def test_a_target_whose_key_or_section_is_absent_is_added(
    root: Path, before: str, after: str
) -> None:
    write(root, {MAIL.file: before})
    target = Target(MAIL.file, "SSL", "Certificate", "sha1:lower")
    new = thumbprint(NEW).lower()
    assert bind(root, target) == [f"0:  → {new}"]
    assert (root / MAIL.file).read_bytes().decode() == after.format(new)


def test_a_key_that_no_line_can_hold_is_an_error_and_nothing_changes(
    root: Path,
) -> None:
    before = contents(root.parent)
    with pytest.raises(DeployError, match="Could not write"):
        bind(root, MAIL, Target(WEB.file, "a\nb", "c", SHA1))
    assert contents(root.parent) == before


# Files that cannot be read or written


def test_a_missing_file_is_an_error_and_nothing_changes(root: Path) -> None:
    (root / WEB.file).unlink()
    before = contents(root.parent)
    with pytest.raises(ConfigError, match=r"WorldClient\.ini does not exist"):
        bind(root)
    assert contents(root.parent) == before


def test_a_folder_in_a_files_place_is_an_error_and_nothing_changes(root: Path) -> None:
    (root / WEB.file).unlink()
    (root / WEB.file).mkdir()
    before = contents(root.parent)
    with pytest.raises(ConfigError, match="it is a folder"):
        bind(root)
    assert contents(root.parent) == before


def test_a_read_only_file_is_an_error_and_nothing_changes(root: Path) -> None:
    (root / WEB.file).chmod(0o444)
    before = contents(root.parent)
    with pytest.raises(DeployError, match="it is read-only") as caught:
        bind(root)
    assert str(root / WEB.file) in caught.value.message
    assert contents(root.parent) == before


@wine_differs("its symbolic links lead nowhere")
def test_a_link_out_of_the_server_is_an_error_and_nothing_changes(root: Path) -> None:
    elsewhere = root.parent / "else.ini"
    (root / WEB.file).rename(elsewhere)
    (root / WEB.file).symlink_to(elsewhere)
    before = contents(root.parent)
    with pytest.raises(ConfigError, match="leads out of"):
        bind(root)
    assert contents(root.parent) == before


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_whatever_is_in_a_file_binding_is_done_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    root = tmp_path_factory.mktemp("binary")
    write(root, {MAIL.file: data})
    try:
        bind(root, MAIL)
    except (ConfigError, DeployError):
        assert (root / MAIL.file).read_bytes() == data
    else:
        assert [item.certificate for item in discover(root, [NEW])] == [NEW]


def test_a_failure_at_any_step_leaves_all_files_as_they_were(root: Path) -> None:
    before = contents(root)
    old, new = thumbprint(OLD).encode(), thumbprint(NEW).encode()
    after = {name: data.replace(old, new) for name, data in before.items()}
    refused: list[str] = []
    steps = 60  # more than there are, so that each of them is refused once
    for step in range(steps):
        write(root, before)
        path = fails_at(root, step)
        found = {name: data for name, data in contents(root).items() if name in before}
        assert found == (before if path else after)
        if path:
            refused.append(path)
        for lock in root.rglob("*.lck"):
            lock.unlink()  # when its removal was what was refused
    for target in (MAIL, WEB):
        name = target.file.rpartition("/")[2]
        # The new file is written, and takes the place of the former one.
        assert sum(f"{name}: " in told for told in refused) == 2
        assert sum(f"{name}.lck: " in told for told in refused) == 1


def fails_at(root: Path, step: int) -> str:
    """Return why binding fails if one change in the folder is refused; "" if not."""
    try:
        with read_only(root, allowed=step, refused=1):
            bind(root)
    except DeployError as exc:
        return exc.message
    return ""


# Restoring


def test_changes_can_be_taken_back(root: Path) -> None:
    before = contents(root)
    changes = changed(root)
    taken_back(root, changes)
    assert contents(root) == before
    taken_back(root, changes)
    assert contents(root) == before


def test_what_somebody_changed_meanwhile_is_not_taken_back(root: Path) -> None:
    changes = changed(root)
    mine = f"[SSL]\nCertificate={thumbprint(OTHER)}\n"
    write(root, {MAIL.file: mine})
    taken_back(root, changes)
    assert (root / MAIL.file).read_text() == mine
    assert thumbprint(OLD) in (root / WEB.file).read_text()


def test_of_a_repeated_key_each_gets_its_own_value_back(root: Path) -> None:
    text = f"[SSL]\nCertificate={thumbprint(OLD)}\nCertificate={thumbprint(OTHER)}\n"
    write(root, {MAIL.file: text})
    changes = changed(root, MAIL)
    assert len(changes) == 2
    taken_back(root, changes, MAIL)
    assert (root / MAIL.file).read_text() == text


def test_a_value_that_moved_to_another_line_is_taken_back(root: Path) -> None:
    changes = changed(root)
    path = root / MAIL.file
    path.write_bytes(b"; one line more\r\n" + path.read_bytes())
    taken_back(root, changes)
    assert named(root, MAIL) == [OLD]


def test_a_key_that_was_added_is_emptied(root: Path) -> None:
    write(root, {MAIL.file: "[SSL]\n"})
    changes = changed(root, MAIL)
    taken_back(root, changes, MAIL)
    assert (root / MAIL.file).read_text() == "[SSL]\nCertificate=\n"
