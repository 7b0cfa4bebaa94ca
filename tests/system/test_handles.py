"""Every write goes through one module, and what it makes is as it was asked for."""

from __future__ import annotations

import ast
import errno
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import letsencrypt_mdaemon
from letsencrypt_mdaemon.system import disk
from letsencrypt_mdaemon.system.handles import (
    PUBLIC,
    Folder,
    opened,
    resolved,
)
from letsencrypt_mdaemon.system.identity import Status
from tests.wine import wine_differs

PACKAGE = Path(letsencrypt_mdaemon.__file__).parent

OWNERS = {
    PACKAGE / "system" / "handles.py",
    PACKAGE / "system" / "identity.py",
}
# What changes files by their names: of `os` and `shutil`, and of `Path`. `rmtree` is
# not among them: it goes from handle to handle itself.
FUNCTIONS = {
    *("open", "mkdir", "makedirs", "mkfifo", "mknod", "symlink", "link", "rename"),
    *("renames", "replace", "unlink", "remove", "rmdir", "removedirs", "truncate"),
    *("chmod", "lchmod", "fchmod", "chown", "lchown", "fchown", "utime", "setxattr"),
    *("umask", "copy", "copy2", "copyfile", "copymode", "copystat", "copytree"),
    *("move", "chflags", "mkstemp", "mkdtemp", "NamedTemporaryFile"),
}
METHODS = {
    *("write_text", "write_bytes", "touch", "mkdir", "chmod", "lchmod", "symlink_to"),
    *("hardlink_to", "unlink", "rmdir"),
}
MODULES = {"os", "shutil", "tempfile", "io"}


def changes(tree: ast.AST) -> Iterator[int]:
    """Yield the lines where a module changes files by their names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in MODULES:
            if FUNCTIONS & {alias.name for alias in node.names}:
                yield node.lineno
        elif isinstance(node, ast.Call) and is_change(node):
            yield node.lineno


def is_change(call: ast.Call) -> bool:
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    match call.func:
        case ast.Attribute(ast.Name(module), name) if module in MODULES:
            return name in FUNCTIONS
        case ast.Attribute(
            ast.Name("formatter") | ast.Call(ast.Name("super")), "write_text"
        ):
            return False  # click's
        case ast.Attribute(_, "rename" | "replace"):
            return len(given) == len(call.args) == 1  # not of a string or a date
        case ast.Name("open") | ast.Attribute(_, "open"):
            return any(map(writes, given))
        case ast.Attribute(_, name):
            return name in METHODS
        case _:
            return False


def writes(mode: ast.AST) -> bool:
    text = mode.value if isinstance(mode, ast.Constant) else None
    if not isinstance(text, str):
        return False
    return bool(set(text) & set("wax+")) and set(text) <= set("rwaxbt+")


@pytest.mark.parametrize(
    "code",
    [
        *("open(x, 'w')", "open(x, mode='ab')", "path.open('r+')", "path.open('xb')"),
        *("os.open(x, flags)", "path.write_text('')", "path.write_bytes(b'')"),
        *("os.chmod(x, 0o644)", "path.chmod(0o644)", "os.fchmod(x, 0o644)"),
        *("shutil.copystat(x, y)", "shutil.copymode(x, y)", "os.utime(x)"),
        *("path.mkdir()", "path.symlink_to(x)", "path.rename(x)", "path.replace(x)"),
        *("os.replace(x, y)", "from shutil import copystat", "path.touch()"),
        *("from os import replace, stat", "path.unlink()", "os.remove(x)"),
    ],
)
def test_a_change_by_name_is_noticed(code: str) -> None:
    assert list(changes(ast.parse(code))) == [1]


@pytest.mark.parametrize(
    "code",
    [
        *("open(x)", "path.open('rb')", "text.replace('a', 'w')", "found.remove(x)"),
        *("moment.replace(tzinfo=UTC)", "folder.rename(x, y)", "context.open()"),
    ],
)
def test_reading_is_no_change(code: str) -> None:
    assert not list(changes(ast.parse(code)))


def test_one_module_alone_changes_files() -> None:
    found = {
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in PACKAGE.rglob("*.py")
        if path not in OWNERS and not path.is_relative_to(PACKAGE / "sandbox")
        for line in changes(ast.parse(path.read_text("utf-8")))
    }
    assert not found, "use system/handles.py"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(NotADirectoryError) as caught, Folder(tmp_path / "file"):
        pytest.fail("it was opened")

    assert caught.value.filename == str(tmp_path / "file")


def test_a_path_may_be_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").mkdir()
    monkeypatch.chdir(tmp_path / "one")

    disk.create(Path("file"), b"here")
    disk.create(Path("..") / "above", b"there")

    assert (tmp_path / "one" / "file").read_bytes() == b"here"
    assert disk.read_limited(tmp_path / "one" / ".." / "above", 10) == b"there"


def test_a_new_file_never_takes_the_place_of_another(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"theirs")

    with pytest.raises(FileExistsError), Folder(tmp_path) as folder:
        folder.create("file", b"ours")

    assert (tmp_path / "file").read_bytes() == b"theirs"


@wine_differs("its symbolic links lead nowhere")
def test_a_new_file_is_not_made_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")

    with pytest.raises(FileExistsError), Folder(tmp_path) as folder:
        folder.create("link", b"ours")

    assert not (tmp_path / "nowhere").exists()


def test_a_file_that_cannot_be_filled_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)

    with pytest.raises(OSError, match="No space"), Folder(tmp_path) as folder:
        folder.create("file", b"ours")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (100, "it is larger than 100 bytes, the limit for a secret"),
        (64 << 10, "it is larger than 64 kB, the limit for a secret"),
        (3 << 20, "it is larger than 3 MB, the limit for a secret"),
    ],
)
def test_a_limit_says_which_it_is(tmp_path: Path, limit: int, text: str) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.truncate(limit + 1)

    with pytest.raises(ValueError, match=f"^{text}$"):
        disk.read_limited(tmp_path / "file", limit, "a secret")


if sys.platform != "win32":
    # Modes, umasks and labels as Windows does not have them.

    @pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
    def test_a_mode_is_the_same_under_any_umask(tmp_path: Path, umask: int) -> None:
        former = os.umask(umask)
        try:
            with Folder(tmp_path) as folder:
                folder.create("private", b"")
                folder.create("public", b"", mode=PUBLIC)
                folder.make_folder("folder", 0o755)
        finally:
            assert os.umask(former) == umask

        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()
        }
        assert modes == {"private": 0o600, "public": 0o644, "folder": 0o755}

    def test_what_is_done_in_an_open_folder_is_done_there_wherever_it_is(
        tmp_path: Path,
    ) -> None:
        (tmp_path / "folder").mkdir()
        with Folder(tmp_path / "folder") as folder:
            (tmp_path / "folder").rename(tmp_path / "moved")
            (tmp_path / "folder").mkdir()
            folder.create("new", b"x")
            folder.rename("new", "file")

        assert [path.name for path in (tmp_path / "moved").iterdir()] == ["file"]
        assert list((tmp_path / "folder").iterdir()) == []

    def test_a_folder_that_may_only_be_entered_is_passed(tmp_path: Path) -> None:
        (tmp_path / "way" / "end").mkdir(parents=True)
        (tmp_path / "way").chmod(0o100)
        try:
            disk.create(tmp_path / "way" / "end" / "file", b"x")
            assert disk.read_limited(tmp_path / "way" / "end" / "file", 10) == b"x"
        finally:
            (tmp_path / "way").chmod(0o700)

    def test_a_link_of_ours_leads_to_its_file_step_by_step(tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "file").write_bytes(b"x")
        (tmp_path / "a" / "two").symlink_to("file")
        (tmp_path / "one").symlink_to("a/two")

        assert resolved(tmp_path / "one") == tmp_path / "a" / "file"
        assert resolved(tmp_path / "gone") == tmp_path / "gone"


if sys.platform == "linux":

    def test_labels_are_those_of_the_file_that_is_replaced(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "former").write_bytes(b"")
        given: list[tuple[str, bytes]] = []
        # Not every file system has labels.
        monkeypatch.setattr(os, "listxattr", lambda _: ["a", "refused", "b"])
        monkeypatch.setattr(os, "getxattr", lambda _, name: name.encode())

        def set_one(handle: int, name: str, value: bytes) -> None:
            assert stat.S_ISREG(os.fstat(handle).st_mode)
            if name == "refused":
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))
            given.append((name, value))

        monkeypatch.setattr(os, "setxattr", set_one)
        with opened(tmp_path / "former") as handle:
            like = Status.of(handle)
        with Folder(tmp_path) as folder:
            folder.create("new", b"x", like=like)

        assert given == [("a", b"a"), ("b", b"b")]
