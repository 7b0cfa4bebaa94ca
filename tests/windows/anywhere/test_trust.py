"""What SYSTEM runs and reads, and who else could change it: by made-up access lists."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from letsencrypt_mdaemon.app import trust
from letsencrypt_mdaemon.errors import ConfigError, Doubt
from letsencrypt_mdaemon.windows import access
from letsencrypt_mdaemon.windows.trust import Examiner, is_reparse_point, mending

SAFE = f"O:{access.TRUSTED_INSTALLER}D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;;FR;;;BU)"
# What a folder made in C: by an administrator inherits on a server, and on a desktop.
MADE_IN_C = "O:BAD:AI(A;OICIID;FA;;;SY)(A;OICIID;FA;;;BA)(A;CIID;LC;;;BU)"
ON_A_DESKTOP = "O:BAD:AI(A;OICIID;FA;;;SY)(A;OICIID;FA;;;BA)(A;OICIID;0x1301bf;;;AU)"
BOB = "S-1-5-21-1-2-3-1105"
PLANTED = f"O:{BOB}D:(A;;FA;;;SY)(A;;FA;;;BA)"


class Lists:
    """The access lists of a machine, by path; the others are safe."""

    def __init__(self) -> None:
        self.of: dict[Path, str] = {}

    def __call__(self, path: Path) -> Listed:
        return Listed(self.of.get(path, SAFE))


class Listed:
    """A file's owner and access list."""

    def __init__(self, text: str) -> None:
        self.text = text

    def access_list(self) -> str:
        """Return it; some cannot be read."""
        if not self.text:
            raise PermissionError(13, "Access is denied")
        return self.text

    def set_access_list(self, text: str) -> None:
        """Take no other: nothing is repaired."""
        raise AssertionError(text)


@pytest.fixture
def lists() -> Lists:
    return Lists()


@pytest.fixture
def examiner(lists: Lists) -> Examiner:
    return Examiner(lists, lambda sid: f"<{sid}>")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """MDaemon's folder, with a state folder and a config file."""
    root = tmp_path / "MDaemon"
    (root / "LetsEncrypt" / "letsencrypt-mdaemon" / "ca").mkdir(parents=True)
    (root / "LetsEncrypt" / "letsencrypt-mdaemon" / "ca" / "account.json").touch()
    (root / "LetsEncrypt" / "letsencrypt-mdaemon.ini").touch()
    return root


@pytest.fixture
def state(root: Path) -> Path:
    return root / "LetsEncrypt" / "letsencrypt-mdaemon"


def whys(found: list[Doubt]) -> dict[Path, str]:
    return {row.path: row.why for row in found}


def test_a_state_folder_for_administrators_alone_is_trusted(
    examiner: Examiner, state: Path
) -> None:
    assert trust.examine_state(examiner, state, state.parents[1]) == []
    assert (
        trust.examine_state(examiner, state / "not" / "there", state.parents[1]) == []
    )


@pytest.mark.parametrize(
    ("place", "listed", "why"),
    [
        (".", PLANTED, f"belongs to <{BOB}>"),
        (".", MADE_IN_C, "Users can change it"),
        ("ca", PLANTED, f"belongs to <{BOB}>"),
        ("ca/account.json", PLANTED, f"belongs to <{BOB}>"),
        ("ca/account.json", ON_A_DESKTOP, "Authenticated Users can change it"),
        ("..", PLANTED, f"belongs to <{BOB}>"),
        (
            "..",
            ON_A_DESKTOP,
            "Authenticated Users can delete, rename or take it over",
        ),
        ("../../..", "D:P", "could not read who can change it: 'D:P' has no owner"),
        (".", "", "could not read who can change it: [Errno 13] Access is denied"),
    ],
)
def test_a_state_folder_that_others_own_or_change_is_doubted(  # noqa: PLR0913, PLR0917
    place: str,
    listed: str,
    why: str,
    examiner: Examiner,
    lists: Lists,
    state: Path,
) -> None:
    path = Path(os.path.normpath(state / place))
    lists.of[path] = listed
    assert whys(trust.examine_state(examiner, state, state.parents[1])) == {path: why}


def test_of_a_state_folder_to_come_the_parents_count(
    examiner: Examiner, lists: Lists, state: Path
) -> None:
    lists.of[state.parent] = PLANTED
    assert whys(
        trust.examine_state(examiner, state.parent / "new", state.parents[1])
    ) == {state.parent: f"belongs to <{BOB}>"}
    lists.of[state.parent] = MADE_IN_C  # others may make folders there, but not this
    assert trust.examine_state(examiner, state, state.parents[1]) == []


def test_who_can_change_mdaemons_folder_is_not_trusted_with_the_state_in_it(
    examiner: Examiner, lists: Lists, state: Path
) -> None:
    lists.of[state.parents[1]] = ON_A_DESKTOP
    assert trust.examine_state(examiner, state, state.parents[1]) == []
    lists.of[state / "ca" / "account.json"] = PLANTED
    (doubt,) = trust.examine_state(examiner, state, state.parents[1])
    assert doubt.path == state / "ca" / "account.json"


def reparse_points(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Path], None]:
    """Let lstat say that some path is a junction, as Windows does."""
    junctions: set[Path] = set()
    lstat = Path.lstat

    class Status:
        st_file_attributes = stat.FILE_ATTRIBUTE_REPARSE_POINT

    monkeypatch.setattr(
        Path, "lstat", lambda self: Status() if self in junctions else lstat(self)
    )
    return junctions.add


@pytest.mark.parametrize("place", [".", "..", "../..", "ca", "ca/account.json"])
def test_a_state_folder_at_a_junction_is_doubted_whoever_made_it(
    place: str, examiner: Examiner, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(os.path.normpath(state / place))
    reparse_points(monkeypatch)(path)
    assert is_reparse_point(path)
    (doubt,) = trust.examine_state(examiner, state, state.parents[1])
    assert doubt.path == path
    assert doubt.why.startswith("is a link or a mount point")


def test_this_account_is_trusted_with_its_own_state_but_not_with_what_system_runs(
    lists: Lists, state: Path
) -> None:
    lists.of[state] = f"O:{BOB}D:(A;OICI;FA;;;{BOB})"
    ours = Examiner(lists, lambda sid: f"<{sid}>", [BOB])
    assert trust.examine_state(ours, state, state.parents[1]) == []
    theirs = Examiner(lists, lambda sid: f"<{sid}>")
    assert whys(theirs.places([state])) == {
        state: f"belongs to <{BOB}>; <{BOB}> can change it"
    }


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders of a Python, of an environment, and of libraries."""
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    base, venv = tmp_path / "Python311", tmp_path / "venv"
    found = [venv / "Scripts", venv, base, venv / "Lib" / "site-packages"]
    for path in found:
        path.mkdir(parents=True, exist_ok=True)
    return found


def test_every_folder_that_python_runs_from_counts(
    examiner: Examiner, lists: Lists, python: list[Path], root: Path
) -> None:
    file = root / "LetsEncrypt" / "letsencrypt-mdaemon.ini"
    assert trust.examine_program(examiner, python, file, root) == []
    for path in python:
        lists.of = {path: MADE_IN_C}
        (doubt,) = trust.examine_program(examiner, python, file, root)
        assert (doubt.path, doubt.why) == (path, "Users can change it")
        assert doubt.commands == ()  # no command makes C:\Python311 a good place
    lists.of = {python[0].parents[1]: MADE_IN_C}  # as C:\ itself
    assert trust.examine_program(examiner, python, file, root) == []
    lists.of = {python[0].parents[1]: ON_A_DESKTOP}
    (doubt,) = trust.examine_program(examiner, python, file, root)
    assert "delete, rename or take it over" in doubt.why


def test_the_config_file_and_its_folder_are_mended_by_two_commands(
    examiner: Examiner, lists: Lists, python: list[Path], root: Path
) -> None:
    folder = root / "LetsEncrypt"
    lists.of[folder] = ON_A_DESKTOP
    file = folder / "letsencrypt-mdaemon.ini"
    (doubt,) = trust.examine_program(examiner, python, file, root)
    assert doubt.path == folder
    assert doubt.commands == (
        ("icacls", str(folder), "/setowner", "*S-1-5-32-544"),
        (
            *("icacls", str(folder), "/inheritance:r", "/remove:g", "*S-1-5-11"),
            *("/grant:r", "*S-1-5-18:(OI)(CI)F", "*S-1-5-32-544:(OI)(CI)F"),
        ),
    )
    lists.of = {file: PLANTED}
    (doubt,) = trust.examine_program(examiner, python, file, root)
    assert doubt.commands[1][-2:] == ("*S-1-5-18:F", "*S-1-5-32-544:F")


def test_a_hook_is_doubted_with_its_folder_and_what_is_above(
    examiner: Examiner, lists: Lists, root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "Scripts" / "Certificates"
    folder.mkdir(parents=True)
    hook = folder / "hook.cmd"
    hook.touch()
    assert trust.examine_hook(examiner, hook, root) == []
    for path, text in ((hook, PLANTED), (folder, MADE_IN_C)):
        lists.of = {path: text}
        (doubt,) = trust.examine_hook(examiner, hook, root)
        assert doubt.path == path
    lists.of = {folder.parent: MADE_IN_C}
    assert trust.examine_hook(examiner, hook, root) == []
    lists.of = {folder.parent: ON_A_DESKTOP}
    (doubt,) = trust.examine_hook(examiner, hook, root)
    assert "delete, rename or take it over" in doubt.why


def test_mdaemons_own_folder_causes_a_warning_only(
    examiner: Examiner,
    lists: Lists,
    python: list[Path],
    root: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lists.of[root] = ON_A_DESKTOP
    file = root / "LetsEncrypt" / "letsencrypt-mdaemon.ini"
    assert trust.examine_program(examiner, python, file, root) == []
    assert "MDaemon's own folder is not safe" in caplog.text


def test_a_python_of_one_user_is_doubted_whatever_its_list(
    examiner: Examiner,
    python: list[Path],
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "Python311"))
    (doubt,) = trust.examine_program(examiner, python, None, root)
    assert (doubt.path, doubt.commands) == (tmp_path / "Python311", ())
    assert doubt.why == "is below one user's own folder"


def test_the_refusal_says_what_to_do_with_each(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = root / "LetsEncrypt"
    mended = Doubt(folder, "Users can change it", mending(folder, []))
    python = Doubt(tmp_path / "Python311", "Users can change it")
    found: list[Doubt] = []
    monkeypatch.setattr(trust, "program_doubts", lambda *_: found)
    trust.require_program(None, root)
    hints = []
    for rows, told in (
        ([mended], "icacls"),
        ([python], "Install Python for all users"),
    ):
        found[:] = rows
        with pytest.raises(ConfigError) as caught:
            trust.require_program(None, root)
        assert caught.value.exit_code == 2
        assert all(f"{row.path}: {row.why}" in caught.value.message for row in rows)
        assert told in caught.value.hint
        hints.append(caught.value.hint)
    assert "Program Files" not in hints[0]
    assert "icacls" not in hints[1]
