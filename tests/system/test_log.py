"""The log is begun anew by each run, keeps its history, and never stops a run."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from letsencrypt_mdaemon.system import log
from letsencrypt_mdaemon.system.log import Console, FileLog, Lines
from tests.fakes import full_disk, read_only

NOW = datetime(2026, 3, 1, 12, 30, 15, tzinfo=UTC)
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


@pytest.fixture(autouse=True)
def logger() -> Iterator[logging.Logger]:
    """The package's logger, left as it was found."""
    logger = logging.getLogger(log.PACKAGE)
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


@contextmanager
def logging_to(
    folder: Path, *, keep: int = 3, now: datetime = NOW
) -> Iterator[FileLog]:
    """Log into a folder as a run does."""
    handler = FileLog(folder, now=now, keep=keep)
    logger = logging.getLogger(log.PACKAGE)
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        handler.close()


def run(folder: Path, *messages: str, keep: int = 3, ended: datetime = NOW) -> str:
    """Log some messages in a run of its own, and return the whole log."""
    with logging_to(folder, keep=keep) as handler:
        for message in messages:
            logging.getLogger(f"{log.PACKAGE}.some").info(message)
    stamp = ended.timestamp()
    os.utime(handler.path, (stamp, stamp))
    return handler.path.read_text("utf-8-sig")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# The file


def test_the_log_has_the_old_scripts_name_and_is_made_with_its_folder(
    tmp_path: Path,
) -> None:
    run(tmp_path / "new" / "Logs")
    assert names(tmp_path / "new" / "Logs") == ["LetsEncrypt.log"]


def test_its_first_line_starts_with_date_and_time(tmp_path: Path) -> None:
    local = NOW.astimezone()
    assert run(tmp_path).startswith(f"{local:%Y-%m-%d %H:%M:%S %z} letsencrypt-mdaemon")


def test_the_time_is_local_whatever_it_was_given_in(tmp_path: Path) -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    with logging_to(tmp_path, now=elsewhere) as handler:
        pass
    assert handler.path.read_text("utf-8-sig") == run(tmp_path / "other")


def test_it_is_begun_anew_by_each_run(tmp_path: Path) -> None:
    assert "first" in run(tmp_path, "first")
    assert "first" not in run(tmp_path, "second")


@settings(deadline=None)
@given(st.text())
def test_every_line_has_a_time_stamp(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    written = run(tmp_path_factory.mktemp("log"), text + "\n\nmore\r\nand\x85more")
    assert all(re.match(STAMP, line) for line in written.splitlines())


def test_levels_other_than_the_ordinary_are_named(tmp_path: Path) -> None:
    with logging_to(tmp_path) as handler:
        logging.getLogger(log.PACKAGE).warning("careful\nplease")
        logging.getLogger(log.PACKAGE).info("fine")
    _, *lines = handler.path.read_text("utf-8-sig").splitlines()
    assert [re.sub(STAMP, "", line) for line in lines] == [
        "WARNING: careful",
        "please",
        "fine",
    ]


def test_there_is_no_progress_in_it(tmp_path: Path) -> None:
    with logging_to(tmp_path) as handler:
        logging.getLogger(log.PACKAGE).info("waiting", extra={"progress": True})
    assert "waiting" not in handler.path.read_text("utf-8-sig")


def test_an_unexpected_error_is_in_it_with_where_it_came_from(tmp_path: Path) -> None:
    with logging_to(tmp_path) as handler:
        try:
            int("x")
        except ValueError as exc:
            handler.emit_traceback(exc)
    written = handler.path.read_text("utf-8-sig")
    assert "line" in written
    assert "ValueError: invalid literal" in written
    assert all(re.match(STAMP, line) for line in written.splitlines())


def test_any_character_can_be_written(tmp_path: Path, logger: logging.Logger) -> None:
    # As in a run. Besides, pytest could not hand the half character on to its parent.
    logger.propagate = False
    written = run(tmp_path, "Grüße \N{SNOWMAN} \ud800")
    assert "Grüße \N{SNOWMAN} \\ud800\n" in written


def test_what_is_written_is_there_at_once(tmp_path: Path) -> None:
    with logging_to(tmp_path) as handler:
        logging.getLogger(log.PACKAGE).info("now")
        assert "now" in handler.path.read_text("utf-8-sig")


# The earlier ones


def named(moment: datetime) -> str:
    return f"LetsEncrypt-{moment.astimezone():%Y%m%d-%H%M%S}.log"


def test_the_last_logs_are_kept_under_the_time_they_ended(tmp_path: Path) -> None:
    days = [NOW + timedelta(days=day) for day in range(6)]
    for day in days:
        run(tmp_path, f"run of {day}", ended=day)
    assert names(tmp_path) == [*map(named, days[2:5]), "LetsEncrypt.log"]
    for day in days[2:5]:
        assert f"run of {day}" in (tmp_path / named(day)).read_text("utf-8-sig")


def test_runs_of_one_second_are_all_kept(tmp_path: Path) -> None:
    for number in range(5):
        run(tmp_path, f"run {number}", keep=10)
    kept = names(tmp_path)[:-1]
    assert len(kept) == 4
    in_order = "".join((tmp_path / name).read_text("utf-8-sig") for name in kept)
    assert re.findall(r"run \d", in_order) == ["run 0", "run 1", "run 2", "run 3"]


def test_too_many_runs_of_one_second_are_no_trouble(tmp_path: Path) -> None:
    for number in range(15):
        run(tmp_path, f"run {number}", keep=30)
    assert "run 14" in (tmp_path / "LetsEncrypt.log").read_text("utf-8-sig")


def test_none_is_kept_if_none_is_wanted(tmp_path: Path) -> None:
    run(tmp_path, ended=NOW)
    run(tmp_path, ended=NOW + timedelta(days=1))
    run(tmp_path, keep=0)
    assert names(tmp_path) == ["LetsEncrypt.log"]


def test_files_that_only_look_like_logs_of_ours_stay(tmp_path: Path) -> None:
    theirs = ["LetsEncrypt-1-2.log", "LetsEncrypt-20260101-000000-mine.log"]
    theirs += ["LetsEncrypt-20260101-000000.log.txt", "SMTP-20260101-000000.log"]
    for name in theirs:
        (tmp_path / name).touch()
    run(tmp_path, keep=0)
    assert set(theirs) < set(names(tmp_path))


@pytest.mark.parametrize("when", [0, 1e10, 1e11])
def test_a_log_of_an_odd_time_is_no_trouble(tmp_path: Path, when: float) -> None:
    run(tmp_path, "first")
    os.utime(tmp_path / "LetsEncrypt.log", (when, when))
    assert "second" in run(tmp_path, "second")
    assert len(names(tmp_path)) == 2


def test_an_earlier_log_that_cannot_be_renamed_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Somebody may have it open, on Windows.
    run(tmp_path, "first")
    with read_only(tmp_path, refused=1):
        written = run(tmp_path, "second")
    assert "second" in written
    assert "first" not in written
    assert f"Could not keep the earlier logs in {tmp_path}" in caplog.text


# Logs that cannot be written


@pytest.mark.parametrize("failing", [full_disk, read_only])
def test_a_log_that_cannot_be_begun_is_an_error_for_the_caller_to_say(
    tmp_path: Path, failing: Callable[[Path], AbstractContextManager[None]]
) -> None:
    with failing(tmp_path), pytest.raises(OSError, match=r"too large|denied|space"):
        FileLog(tmp_path, now=NOW, keep=3)


def test_a_folder_in_the_logs_place_is_an_error_and_stays(tmp_path: Path) -> None:
    (tmp_path / "LetsEncrypt.log").mkdir()
    with pytest.raises(OSError, match=r"directory|denied"):
        FileLog(tmp_path, now=NOW, keep=3)
    assert names(tmp_path) == ["LetsEncrypt.log"]


def test_a_file_in_the_folders_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "Logs").touch()
    with pytest.raises(OSError, match="exists"):
        FileLog(tmp_path / "Logs", now=NOW, keep=3)


if sys.platform != "win32":  # there no disk can be made full

    def test_a_disk_that_fills_up_is_one_warning_and_no_failure(
        tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        logger = logging.getLogger(log.PACKAGE)
        with logging_to(tmp_path) as handler:
            logger.info("fits")
            with full_disk(tmp_path):
                (tmp_path / "other").touch()  # now it is full
                logger.info("does not fit")
                logger.info("nor does this")
            logger.info("room again, but it was given up")
        assert handler not in logger.handlers
        (warning,) = [
            item for item in caplog.messages if "logging to it stopped" in item
        ]
        assert warning.startswith(
            f"Could not write {handler.path}; logging to it stopped: "
        )
        written = handler.path.read_text("utf-8-sig")
        assert "fits" in written
        assert "given up" not in written

    def test_a_disk_that_is_full_at_the_end_is_a_warning(
        tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with full_disk(tmp_path / "other"):
            with logging_to(tmp_path) as handler:
                handler.stream.write("not flushed yet")
                (tmp_path / "other").touch()
            assert handler.stream.closed
        assert f"{handler.path} is incomplete" in caplog.text


# For the mail


def test_the_last_lines_of_a_run_are_collected(logger: logging.Logger) -> None:
    lines = Lines(limit=2)
    logger.addHandler(lines)
    logger.info("gone")
    logger.warning("two\nlines")
    logger.info("waiting", extra={"progress": True})
    logger.info("last")
    assert [re.sub(STAMP, "", line) for line in lines] == [
        "WARNING: two",
        "lines",
        "last",
    ]
    assert all(re.match(STAMP, line) for line in lines)
    assert lines.warnings == ["two\nlines"]


# The console


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def show(logger: logging.Logger, stream: io.StringIO) -> str:
    logger.addHandler(Console(stream))
    logger.info("plain")
    logger.warning("careful")
    logger.error("broken")
    logger.log(logging.WARNING + 1, "odd")
    return stream.getvalue()


def test_without_a_terminal_there_is_no_colour_and_no_progress(
    logger: logging.Logger,
) -> None:
    stream = io.StringIO()
    logger.addHandler(Console(stream))
    logger.info("waiting", extra={"progress": True})
    logger.removeHandler(logger.handlers[-1])
    assert show(logger, stream) == (
        "plain\nwarning: careful\nerror: broken\nlevel 31: odd\n"
    )


def test_on_a_terminal_what_is_not_ordinary_is_in_colour(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(log, "takes_colours", lambda _: True)
    assert show(logger, Terminal()) == (
        "plain\n"
        "\x1b[33mwarning: careful\x1b[0m\n"
        "\x1b[31merror: broken\x1b[0m\n"
        "\x1b[33mlevel 31: odd\x1b[0m\n"
    )


def test_a_console_that_shows_sequences_as_characters_gets_none(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(log, "takes_colours", lambda _: False)
    assert "\x1b" not in show(logger, Terminal())


@pytest.mark.parametrize(("value", "coloured"), [("1", False), ("", True)])
def test_no_color_is_honoured_unless_it_is_empty(
    logger: logging.Logger,
    monkeypatch: pytest.MonkeyPatch,
    value: str,
    *,
    coloured: bool,
) -> None:
    monkeypatch.setenv("NO_COLOR", value)
    monkeypatch.setattr(log, "takes_colours", lambda _: True)
    assert ("\x1b" in show(logger, Terminal())) == coloured


def test_progress_is_one_line_that_is_wiped_by_the_next_message(
    logger: logging.Logger,
) -> None:
    stream = Terminal()
    logger.addHandler(Console(stream))
    logger.info("waiting %s", "x" * 100, extra={"progress": True})
    shown = stream.getvalue()
    assert shown.startswith("  ... waiting xxx")
    assert len(shown) < 80
    assert "\n" not in shown
    logger.info("done")
    assert stream.getvalue() == f"{shown}\r{' ' * len(shown)}\rdone\n"
    logger.info("more")
    assert stream.getvalue().endswith("\rdone\nmore\n")


def test_progress_is_not_drawn_more_often_than_anybody_can_read(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 100.0, 100.05, 100.2, 100.2])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    stream = Terminal()
    logger.addHandler(Console(stream))
    for number in range(3):
        logger.info("step %d", number, extra={"progress": True})
    assert re.findall(r"step \d", stream.getvalue()) == ["step 0", "step 2"]


@pytest.mark.parametrize(
    ("holds", "show", "shown"),
    [
        (False, False, "Due\nOrdered\nChanged\n"),
        (True, True, "Ordered\nDue\nChanged\n"),
        (True, False, "Ordered\n"),
    ],
)
def test_what_the_result_says_too_is_held_back_until_there_is_none(
    logger: logging.Logger, *, holds: bool, show: bool, shown: str
) -> None:
    stream = io.StringIO()
    log.start(stream, verbose=False, holds=holds)
    logger.info("Due", extra={"result": True})
    logger.info("Ordered")
    logger.info("Changed", extra={"result": True})

    log.settle(show=show)

    assert stream.getvalue() == shown


def test_a_run_that_shall_say_more_holds_nothing_back(logger: logging.Logger) -> None:
    stream = io.StringIO()
    _, lines = log.start(stream, verbose=True, holds=True)

    logger.info("Due", extra={"result": True})

    assert stream.getvalue() == "Due\n"
    assert len(list(lines)) == 1


def test_a_terminal_that_goes_away_stops_nothing(logger: logging.Logger) -> None:
    stream = Terminal()
    logger.addHandler(Console(stream))
    stream.close()
    logger.info("waiting", extra={"progress": True})


if sys.platform != "win32":

    def on_a_terminal(logger: logging.Logger) -> str:
        """Return what a real terminal gets."""
        ours, theirs = os.openpty()
        try:
            with os.fdopen(theirs, "w", encoding="utf-8") as stream:
                logger.addHandler(Console(stream))
                logger.info("waiting", extra={"progress": True})
                logger.warning("careful")
                shown = b""
                # A terminal gives what was written in pieces, as it likes.
                while b"careful" not in shown or not shown.endswith(b"\n"):
                    shown += os.read(ours, 1000)
                return shown.decode()
        finally:
            os.close(ours)

    def test_a_pseudo_terminal_is_a_terminal(
        logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("NO_COLOR", raising=False)
        shown = on_a_terminal(logger)
        assert "... waiting" in shown
        assert "\x1b[33mwarning: careful\x1b[0m" in shown
        monkeypatch.setenv("NO_COLOR", "1")
        assert "\x1b" not in on_a_terminal(logger)


# Where all of it goes


def test_a_run_begins_with_its_own_handlers_and_leaves_the_root_logger_alone(
    logger: logging.Logger,
) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    log.start(io.StringIO(), verbose=True)
    started, lines = log.start(stream, verbose=False)
    assert started is logger
    logging.getLogger(f"{log.PACKAGE}.some").debug("small")
    logging.getLogger(f"{log.PACKAGE}.some").info("large")
    assert stream.getvalue() == "large\n"
    assert [re.sub(STAMP, "", line) for line in lines] == ["large"]
    assert (root.handlers, root.level) == before
    assert not logger.propagate


def test_a_run_that_shall_say_more_does(logger: logging.Logger) -> None:
    stream = io.StringIO()
    log.start(stream, verbose=True)
    logger.debug("small")
    assert stream.getvalue() == "small\n"


def test_the_log_goes_where_it_is_told_else_to_the_server(tmp_path: Path) -> None:
    (tmp_path / "Logs").mkdir()
    given, server = tmp_path / "given", tmp_path / "Logs"
    assert log.folder(given, server) == given
    assert log.folder(None, server) == server


@pytest.mark.parametrize("file", ["setup.cfg", "nothing"])
def test_without_both_it_goes_into_a_checkout_if_the_program_runs_from_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    (tmp_path / file).touch()
    (tmp_path / "logs").mkdir()
    monkeypatch.setattr(log, "__file__", str(tmp_path / "package" / "system" / "x.py"))
    is_checkout = file == "setup.cfg"
    assert log.folder(None, None) == (tmp_path / "logs" if is_checkout else None)
    gone = tmp_path / "gone"
    assert log.folder(None, gone) == (tmp_path / "logs" if is_checkout else gone)
