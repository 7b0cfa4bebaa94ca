"""A published file is whole, private at first, and never written through a link."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from letsencrypt_mdaemon.errors import ConfigError, Error
from letsencrypt_mdaemon.system.handles import Folder
from letsencrypt_mdaemon.system.publish import publish

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="no modes, no such links")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    for data in (b"first", b"second"):
        publish(tmp_path / "a.html", data)

        assert (tmp_path / "a.html").read_bytes() == data
    assert os.listdir(tmp_path) == ["a.html"]  # noqa: PTH208 - hidden ones as well


@POSIX
def test_a_new_file_is_its_owner_s_and_a_former_one_keeps_its_mode(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.html"
    publish(path, b"first")
    assert mode(path) == 0o600

    path.chmod(0o644)
    publish(path, b"second")
    assert mode(path) == 0o644


@POSIX
def test_whoever_reads_the_former_file_sees_no_half(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    publish(path, b"first")
    with path.open("rb") as file:
        publish(path, b"second")

        assert file.read() == b"first"


@POSIX
@pytest.mark.parametrize("exists", [True, False])
def test_a_link_is_refused(tmp_path: Path, *, exists: bool) -> None:
    target, link = tmp_path / "target", tmp_path / "a.html"
    if exists:
        target.write_bytes(b"theirs")
    link.symlink_to(target)

    with pytest.raises(ConfigError, match=r"a\.html: it is a link"):
        publish(link, b"ours")

    assert link.is_symlink()
    assert target.exists() == exists
    assert not exists or target.read_bytes() == b"theirs"


@POSIX
def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    if sys.platform != "win32":
        os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(ConfigError, match="it is no regular file"):
            publish(tmp_path / name, b"ours")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Could not write .*No such file"):
        publish(tmp_path / "nowhere" / "a.html", b"ours")


@POSIX
def test_a_read_only_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    publish(path, b"first")
    path.chmod(0o400)

    with pytest.raises(ConfigError, match=r"it is read-only|Permission denied"):
        publish(path, b"second")
    assert path.read_bytes() == b"first"


def test_after_a_failure_the_former_file_is_all_that_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path / "a.html", b"first")

    def fail(*_: object) -> None:
        raise OSError(5, "I/O error")

    monkeypatch.setattr(Folder, "rename", fail)
    with pytest.raises(Error, match="I/O error"):
        publish(tmp_path / "a.html", b"second")

    assert os.listdir(tmp_path) == ["a.html"]  # noqa: PTH208
    assert (tmp_path / "a.html").read_bytes() == b"first"
