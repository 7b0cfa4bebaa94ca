"""Token files are there while they are needed, and nothing else is ever touched."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from letsencrypt_mdaemon.errors import AcmeError, ConfigError, Error
from letsencrypt_mdaemon.mdaemon.webroot import Webroot
from tests.fakes import contents, full_disk, huge, read_only, unreadable, watched
from tests.limits import HANG_SECONDS
from tests.wine import wine_differs

FOLDER = ".well-known/acme-challenge"
FIRST = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"
TEXT = f"{FIRST}.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
TOKENS = {FIRST: TEXT, "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA": "x.y"}


@pytest.fixture
def html(tmp_path: Path) -> Path:
    """The folder that the web server shows, with a file of its own."""
    html = tmp_path / "WorldClient" / "HTML"
    html.mkdir(parents=True)
    (html / "index.html").write_bytes(b"theirs")
    return html


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ca" / "presented.json"


@pytest.fixture
def webroot(html: Path, journal: Path) -> Webroot:
    return Webroot(html, journal)


def everything(folder: Path) -> set[str]:
    """Return every file and folder, but not where our journal is."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    return {name for name in found if not name.startswith("state")}


def crash(journal: Path, tokens: dict[str, str], folders: list[str]) -> None:
    """Leave the journal of a run that was killed."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    journal.write_text(json.dumps({"folders": folders, "tokens": tokens}))


# Presenting


def test_token_files_are_there_inside_the_context_and_nowhere_else(
    html: Path, webroot: Webroot, journal: Path
) -> None:
    before = everything(html)
    with webroot.present(TOKENS):
        files = {f"{FOLDER}/{token}": text.encode() for token, text in TOKENS.items()}
        assert contents(html) == {**files, "index.html": b"theirs"}
        assert journal.exists()
    assert everything(html) == before
    assert not journal.exists()


def test_token_files_are_gone_after_an_exception(html: Path, webroot: Webroot) -> None:
    before = everything(html)
    with pytest.raises(KeyboardInterrupt), webroot.present(TOKENS):
        raise KeyboardInterrupt
    assert everything(html) == before


def test_nothing_to_present_is_no_error(webroot: Webroot) -> None:
    with webroot.present({}):
        pass


def test_folders_that_were_there_stay(html: Path, webroot: Webroot) -> None:
    (html / FOLDER).mkdir(parents=True)
    with webroot.present(TOKENS):
        pass
    assert (html / FOLDER).is_dir()


def test_folders_that_others_use_meanwhile_stay(html: Path, webroot: Webroot) -> None:
    with webroot.present(TOKENS):
        (html / FOLDER / "theirs").write_bytes(b"x")
    assert contents(html) == {"index.html": b"theirs", f"{FOLDER}/theirs": b"x"}


if sys.platform != "win32":

    def test_a_web_server_of_another_account_may_read_the_files(
        html: Path, webroot: Webroot
    ) -> None:
        former = os.umask(0o077)
        try:
            with webroot.present(TOKENS):
                assert (html / ".well-known").stat().st_mode & 0o777 == 0o755
                assert (html / FOLDER).stat().st_mode & 0o777 == 0o755
                assert (html / FOLDER / FIRST).stat().st_mode & 0o777 == 0o644
        finally:
            os.umask(former)


def test_a_file_of_ours_whose_journal_was_lost_is_used_and_removed(
    html: Path, webroot: Webroot
) -> None:
    (html / FOLDER).mkdir(parents=True)
    (html / FOLDER / FIRST).write_text(TEXT)
    with webroot.present(TOKENS):
        assert (html / FOLDER / FIRST).read_text() == TEXT
    assert contents(html) == {"index.html": b"theirs"}


# Hostile tokens


@pytest.mark.parametrize(
    "token",
    [
        *("../../evil", "..", ".", "", "a/b", "a\\b", "/etc/passwd", "C:evil", "a.b"),
        *("a\0b", "a\n", "a b", "ä", "a:b", "a=", "a+b", "x" * 201, "index.html"),
        *("con", "CON", "nul", "Aux", "prn", "lpt1", "COM9", "com0"),
    ],
)
def test_a_token_that_is_no_base64url_never_becomes_a_file(
    tmp_path: Path, webroot: Webroot, token: str
) -> None:
    before = everything(tmp_path)
    with (
        pytest.raises(AcmeError, match=r"RFC 8555, 8\.1") as caught,
        webroot.present({FIRST: TEXT, token: "x"}),
    ):
        pytest.fail("presented")
    assert everything(tmp_path) == before
    assert caught.value.message.isprintable()
    assert caught.value.hint


@settings(deadline=None)
@given(st.text(max_size=8))
def test_whatever_the_ca_sends_files_are_made_in_one_folder_only(
    tmp_path_factory: pytest.TempPathFactory, token: str
) -> None:
    top = tmp_path_factory.mktemp("any")
    (top / "html").mkdir()
    webroot = Webroot(top / "html", top / "state" / "journal")
    try:
        with webroot.present({token: "x"}):
            assert (top / "html" / FOLDER / token).read_bytes() == b"x"
            assert everything(top) == {
                *("html", "html/.well-known", f"html/{FOLDER}"),
                f"html/{FOLDER}/{token}",
            }
    except AcmeError:
        assert everything(top) == {"html"}


# What is not ours


@pytest.mark.parametrize("theirs", [b"", b"theirs", TEXT.encode()[:20], b"x" * 10000])
def test_a_foreign_file_by_a_tokens_name_is_neither_overwritten_nor_removed(
    html: Path, webroot: Webroot, theirs: bytes
) -> None:
    (html / FOLDER).mkdir(parents=True)
    (html / FOLDER / FIRST).write_bytes(theirs)
    before = contents(html)
    with (
        pytest.raises(
            ConfigError, match="already exists, and this program did not create it"
        ),
        webroot.present(TOKENS),
    ):
        pytest.fail("presented")
    webroot.sweep()
    assert contents(html) == before


def test_a_file_that_somebody_changed_meanwhile_is_not_removed(
    html: Path, webroot: Webroot
) -> None:
    with webroot.present(TOKENS):
        (html / FOLDER / FIRST).write_bytes(b"theirs")
    assert contents(html)[f"{FOLDER}/{FIRST}"] == b"theirs"


def test_a_file_that_somebody_removed_meanwhile_is_no_error(
    html: Path, webroot: Webroot, caplog: pytest.LogCaptureFixture
) -> None:
    with webroot.present(TOKENS):
        (html / FOLDER / FIRST).unlink()
    assert everything(html) == {"index.html"}
    assert caplog.messages == []


def pipe(path: Path) -> None:
    if sys.platform == "win32":
        path.mkdir()
    else:
        os.mkfifo(path)


@pytest.mark.parametrize(
    "make",
    [
        *(Path.mkdir, huge, pipe),
        pytest.param(
            lambda path: path.symlink_to(path.parent / "dangling"),
            marks=wine_differs("its symbolic links lead nowhere"),
        ),
    ],
)
def test_something_odd_by_a_tokens_name_is_refused_and_stays(
    html: Path, webroot: Webroot, make: Callable[[Path], None]
) -> None:
    (html / FOLDER).mkdir(parents=True)
    make(html / FOLDER / FIRST)
    before = everything(html)
    with (
        pytest.raises(ConfigError, match="this program did not create it"),
        webroot.present(TOKENS),
    ):
        pytest.fail("presented")
    assert everything(html) == before


def test_a_foreign_file_that_comes_at_the_last_moment_is_not_overwritten(
    html: Path, webroot: Webroot
) -> None:
    theirs = html / FOLDER / FIRST

    def come_first(path: Path) -> None:
        if path == theirs and not come:
            come.append(path)
            path.write_bytes(b"theirs")

    come: list[Path] = []
    with (
        pytest.raises(ConfigError, match="File exists"),
        watched(html, come_first),
        webroot.present(TOKENS),
    ):
        pytest.fail("presented")
    assert theirs.read_bytes() == b"theirs"


@wine_differs("its symbolic links lead nowhere")
@pytest.mark.parametrize("name", [".well-known", FOLDER])
def test_a_link_out_of_the_webroot_is_refused(
    html: Path, tmp_path: Path, webroot: Webroot, name: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "acme-challenge").mkdir(parents=True)
    (html / name).parent.mkdir(exist_ok=True)
    (html / name).symlink_to(elsewhere, target_is_directory=True)
    before = everything(tmp_path)
    with (
        pytest.raises(ConfigError, match="is a link that leads out of the webroot"),
        webroot.present(TOKENS),
    ):
        pytest.fail("presented")
    assert everything(tmp_path) == before


@wine_differs("its symbolic links lead nowhere")
def test_nothing_is_removed_through_a_link_out_of_the_webroot(
    html: Path,
    tmp_path: Path,
    webroot: Webroot,
    journal: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Put there after a run was killed.
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "acme-challenge").mkdir(parents=True)
    (elsewhere / "acme-challenge" / FIRST).write_text(TEXT)
    (html / ".well-known").symlink_to(elsewhere, target_is_directory=True)
    crash(journal, TOKENS, [".well-known", FOLDER])
    webroot.sweep()
    assert contents(elsewhere) == {f"acme-challenge/{FIRST}": TEXT.encode()}
    assert "a link leads out" in caplog.text


@wine_differs("its symbolic links lead nowhere")
def test_the_webroot_itself_may_be_a_link(
    html: Path, tmp_path: Path, journal: Path
) -> None:
    (tmp_path / "www").symlink_to(html, target_is_directory=True)
    with Webroot(tmp_path / "www", journal).present(TOKENS):
        assert (html / FOLDER / FIRST).read_text() == TEXT


# After a kill

KILLED = """\
import os, sys
from pathlib import Path
from letsencrypt_mdaemon.mdaemon.webroot import Webroot
with Webroot(Path(sys.argv[1]), Path(sys.argv[2])).present({"token-1": "token-1.abc"}):
    os._exit(9)
"""


@pytest.mark.parametrize("next_run", ["sweep", "present"])
def test_what_a_killed_run_left_is_removed_by_the_next(
    html: Path, webroot: Webroot, journal: Path, next_run: str
) -> None:
    before = everything(html)
    command = [sys.executable, "-c", KILLED, str(html), str(journal)]
    assert subprocess.run(command, check=False, timeout=HANG_SECONDS).returncode == 9
    assert (html / FOLDER / "token-1").read_text() == "token-1.abc"
    if next_run == "sweep":
        webroot.sweep()
    else:
        with webroot.present(TOKENS):
            assert not (html / FOLDER / "token-1").exists()
    assert everything(html) == before
    assert not journal.exists()


@pytest.mark.parametrize("written", [0, 1, len(TEXT) - 1, len(TEXT)])
def test_a_token_file_that_was_half_written_is_removed(
    html: Path, webroot: Webroot, journal: Path, written: int
) -> None:
    (html / FOLDER).mkdir(parents=True)
    (html / FOLDER / FIRST).write_text(TEXT[:written])
    crash(journal, TOKENS, [".well-known", FOLDER])
    webroot.sweep()
    assert everything(html) == {"index.html"}


@pytest.mark.parametrize("theirs", [TEXT + "x", TEXT.swapcase(), "x", "\n"])
def test_a_file_whose_content_is_not_ours_survives_the_sweep(
    html: Path, webroot: Webroot, journal: Path, theirs: str
) -> None:
    (html / FOLDER).mkdir(parents=True)
    (html / FOLDER / FIRST).write_text(theirs)
    crash(journal, TOKENS, [".well-known", FOLDER])
    webroot.sweep()
    assert (html / FOLDER / FIRST).read_text() == theirs
    assert not journal.exists()


def test_a_journal_written_before_anything_else_is_no_trouble(
    html: Path, webroot: Webroot, journal: Path
) -> None:
    crash(journal, TOKENS, [".well-known", FOLDER])
    webroot.sweep()
    assert everything(html) == {"index.html"}
    assert not journal.exists()


def test_what_cannot_be_removed_now_is_removed_by_the_next_run(
    html: Path, webroot: Webroot, journal: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with read_only(html, allowed=2 + len(TOKENS)), webroot.present(TOKENS):
        pass
    assert f"Could not remove the token file {html / FOLDER / FIRST}" in caplog.text
    assert f"{FIRST}: Permission denied" in caplog.text
    assert (html / FOLDER / FIRST).exists()
    assert journal.exists()
    webroot.sweep()
    assert everything(html) == {"index.html"}


def test_a_failing_sweep_does_not_hide_what_went_wrong(
    html: Path, webroot: Webroot, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        read_only(html, allowed=2 + len(TOKENS)),
        webroot.present(TOKENS),
    ):
        raise ZeroDivisionError
    assert f"Could not remove the token file {html / FOLDER / FIRST}" in caplog.text
    assert f"{FIRST}: Permission denied" in caplog.text


def test_a_journal_that_cannot_be_removed_is_a_warning(
    webroot: Webroot, journal: Path, caplog: pytest.LogCaptureFixture
) -> None:
    crash(journal, {}, [])
    with read_only(journal.parent):
        webroot.sweep()
    assert f"Could not remove {journal}: Permission denied" in caplog.text


# A hostile journal


@settings(deadline=None)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["tokens", "folders", "x", "../index.html"]),
                    inner,
                    max_size=3,
                )
            ),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode()),
        st.just(b'{"tokens": ' + b"[" * 100_000),
    )
)
def test_a_journal_may_hold_anything(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    top = tmp_path_factory.mktemp("journal")
    (top / "html" / FOLDER).mkdir(parents=True)
    (top / "html" / "index.html").write_bytes(b"")
    (top / "journal").write_bytes(data)
    before = everything(top) - {"journal"}
    Webroot(top / "html", top / "journal").sweep()
    assert everything(top) == before


@pytest.mark.parametrize(
    "token", ["../../index.html", "..", "", "../x", "/etc/hostname", "a\0b", "nul"]
)
def test_a_journal_names_no_file_outside_the_challenge_folder(
    html: Path, webroot: Webroot, journal: Path, token: str
) -> None:
    (html / FOLDER).mkdir(parents=True)
    (html / ".well-known" / "x").write_bytes(b"theirs")
    (html.parent / "empty").mkdir()
    before = everything(html.parent)
    crash(journal, {token: "theirs"}, ["../empty", "..", FOLDER + "/.."])
    webroot.sweep()
    assert everything(html.parent) == before


@pytest.mark.parametrize("make", [Path.mkdir, huge])
def test_a_journal_that_is_no_file_of_ours_is_said(
    html: Path,
    webroot: Webroot,
    journal: Path,
    make: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    journal.parent.mkdir(parents=True)
    make(journal)
    webroot.sweep()
    assert f"{journal} is damaged" in caplog.text
    assert everything(html) == {"index.html"}


def test_a_journal_below_a_file_is_an_error(
    html: Path, webroot: Webroot, journal: Path
) -> None:
    journal.parent.parent.write_bytes(b"theirs")
    with (
        pytest.raises(ConfigError, match=r"Could not write .*presented\.json"),
        webroot.present(TOKENS),
    ):
        pytest.fail("presented")
    assert everything(html) == {"index.html"}


def test_a_journal_that_cannot_be_read_is_a_warning_and_stays(
    webroot: Webroot, journal: Path, caplog: pytest.LogCaptureFixture
) -> None:
    crash(journal, TOKENS, [])
    with unreadable(journal):
        webroot.sweep()
    assert f"Could not read {journal}: Permission denied" in caplog.text
    assert journal.exists()


# A webroot that cannot be used


def test_a_missing_webroot_is_an_error(tmp_path: Path, journal: Path) -> None:
    webroot = Webroot(tmp_path / "gone", journal)
    with (
        pytest.raises(ConfigError, match="gone is not a folder") as caught,
        webroot.present(TOKENS),
    ):
        pytest.fail("presented")
    assert "webroot" in caught.value.hint
    assert everything(tmp_path) == set()


@pytest.mark.parametrize("name", [".", ".well-known", FOLDER])
def test_a_file_in_a_folders_place_is_an_error_and_stays(
    html: Path, webroot: Webroot, name: str
) -> None:
    (html / "index.html").unlink()
    place = html / name
    if name == ".":
        html.rmdir()
        place = html
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(b"theirs")
    before = everything(html.parent)
    with (
        pytest.raises(ConfigError, match=r"is (no|not a) folder"),
        webroot.present(TOKENS),
    ):
        pytest.fail("presented")
    assert everything(html.parent) == before
    assert place.read_bytes() == b"theirs"


@pytest.mark.parametrize("allowed", range(4))
def test_a_webroot_that_cannot_be_written_is_an_error_and_nothing_of_ours_stays(
    html: Path, webroot: Webroot, allowed: int
) -> None:
    # Two folders and two files: each may be what is refused.
    with (
        pytest.raises(ConfigError, match="Permission denied") as caught,
        read_only(html, allowed=allowed, refused=1),
        webroot.present(TOKENS),
    ):
        pytest.fail("presented")
    assert str(html / ".well-known") in caught.value.message
    assert caught.value.hint
    assert everything(html) == {"index.html"}


if sys.platform != "win32":  # there no disk can be made full

    def test_a_full_disk_is_an_error_and_nothing_of_ours_stays(
        html: Path, webroot: Webroot, journal: Path
    ) -> None:
        with (
            pytest.raises(Error, match=r"Could not write the token file") as caught,
            full_disk(html / FOLDER),
            webroot.present(TOKENS),
        ):
            pytest.fail("presented")
        assert caught.value.exit_code == 1
        assert "Make room" in caught.value.hint
        assert everything(html) == {"index.html"}
        assert not journal.exists()


@pytest.mark.parametrize(("failing", "code"), [(full_disk, 1), (read_only, 2)])
def test_a_journal_that_cannot_be_written_is_an_error_and_no_token_is_shown(
    html: Path,
    webroot: Webroot,
    journal: Path,
    failing: Callable[..., contextlib.AbstractContextManager[None]],
    code: int,
) -> None:
    with (
        pytest.raises(Error, match=r"Could not write .*presented\.json") as caught,
        failing(journal.parent.parent),
        webroot.present(TOKENS),
    ):
        pytest.fail("presented")
    assert caught.value.exit_code == code
    assert everything(html) == {"index.html"}


# Under IIS


WEB_CONFIG = f"{FOLDER}/web.config"


@pytest.fixture
def under_iis(html: Path, journal: Path) -> Webroot:
    return Webroot(html, journal, web_config=True)


def test_iis_is_told_the_type_of_the_token_files_while_they_are_there(
    html: Path, under_iis: Webroot
) -> None:
    before = everything(html)
    with under_iis.present(TOKENS):
        text = (html / WEB_CONFIG).read_text()
        assert '<mimeMap fileExtension="." mimeType="text/plain" />' in text
        # Where a folder above tells it as well, twice would be an error.
        assert text.index("<remove") < text.index("<mimeMap")
        assert "handlers" not in text
    assert everything(html) == before


@pytest.mark.parametrize("theirs", [b"<configuration />", b""])
def test_a_web_config_that_is_there_stays_as_it_is(
    html: Path, under_iis: Webroot, theirs: bytes
) -> None:
    (html / FOLDER).mkdir(parents=True)
    (html / WEB_CONFIG).write_bytes(theirs)
    with under_iis.present(TOKENS):
        assert (html / WEB_CONFIG).read_bytes() == theirs
    assert (html / WEB_CONFIG).read_bytes() == theirs


def test_a_web_config_that_somebody_changed_meanwhile_stays(
    html: Path, under_iis: Webroot
) -> None:
    with under_iis.present(TOKENS):
        (html / WEB_CONFIG).write_bytes(b"<configuration />")
    assert everything(html / FOLDER) == {"web.config"}


def test_no_web_config_is_written_without_iis(html: Path, webroot: Webroot) -> None:
    with webroot.present(TOKENS):
        assert not (html / WEB_CONFIG).exists()


def test_the_web_config_of_a_killed_run_is_removed_without_iis_as_well(
    html: Path, webroot: Webroot, journal: Path
) -> None:
    before = everything(html)
    killed = KILLED.replace("[2]))", "[2]), web_config=True)")
    command = [sys.executable, "-c", killed, str(html), str(journal)]
    assert subprocess.run(command, check=False, timeout=HANG_SECONDS).returncode == 9
    assert (html / WEB_CONFIG).exists()
    webroot.sweep()
    assert everything(html) == before
