"""What others wrote into a replaced file is carried over, whatever fails meanwhile."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.mdaemon.bindings import Bindings
from letsencrypt_mdaemon.mdaemon.folders import IniFiles
from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.state.memory import Target
from letsencrypt_mdaemon.system import backups, disk
from letsencrypt_mdaemon.system.backups import Backups, back_up, tidy
from tests.certificates import leaf
from tests.fakes import touched
from tests.limits import HANG_SECONDS
from tests.program import unmeasured

# Who dies uses the certificates of the test, which it finds in a file.
OLD, NEW = (
    x509.load_pem_x509_certificates(Path(sys.argv[3]).read_bytes())
    if __name__ == "__main__"
    else (leaf(serial=1), leaf(serial=2))
)
NOW = datetime(2026, 3, 9, tzinfo=UTC)
TARGET = Target("App/MDaemon.ini", "SSL", "Certificate", "sha1:upper")
KILL: int = getattr(signal, "SIGKILL", signal.SIGTERM)
LATE = b"Count=1"

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="an open file is not replaced there"
)


def made(root: Path) -> Bindings:
    """Return what binds certificates in the file below a folder."""
    return Bindings(IniFiles(root), [TARGET], [OLD, NEW], (), backups=root / "backups")


def bound_with_late_change(root: Path) -> Bindings:
    """Bind the new certificate, while another program writes into the former file."""
    path = root / TARGET.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"[Other]\r\nCount=0\r\n[SSL]\r\nCertificate="
        + thumbprint(OLD).encode()
        + b"\r\n"
    )
    bound = made(root)
    with path.open("r+b") as by_another_program:
        text = by_another_program.read().replace(b"Count=0", LATE)
        by_another_program.seek(0)
        bound.bind(NEW, now=NOW)
        by_another_program.write(text)
    return bound


def left(path: Path) -> list[Path]:
    """Return what is beside the file."""
    return sorted(other for other in path.parent.iterdir() if other != path)


def dying(root: Path, number: int) -> None:
    """Die as by `kill -9` at the n-th touch of a file while it is carried over."""
    count = itertools.count(1)
    bound = bound_with_late_change(root)

    def die(path: Path) -> None:
        if path.is_relative_to(root / "App") and next(count) == number:
            os.kill(os.getpid(), KILL)

    with touched(die):
        bound.settle()


@contextmanager
def failing(root: Path, number: int, times: int = 1) -> Iterator[list[Path]]:
    """Let the n-th touch of a file in App fail; yields what failed."""
    count, failed = itertools.count(1), list[Path]()

    def fail(path: Path) -> None:
        if path.is_relative_to(root / "App") and number <= next(count) < number + times:
            failed.append(path)
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with touched(fail):
        yield failed


def test_a_failure_at_any_touch_loses_nothing(tmp_path: Path) -> None:
    for number in itertools.count(1):
        root = tmp_path / str(number)
        path = root / TARGET.file
        bound = bound_with_late_change(root)
        with failing(root, number) as failed, suppress(DeployError):
            bound.settle()

        if not failed:
            assert left(path) == []
            break
        assert LATE in path.read_bytes(), failed
        assert made(root).strays(NEW) == [], failed
    assert number > 10


def test_a_lasting_failure_names_the_file_that_holds_what_was_written(
    tmp_path: Path,
) -> None:
    for number in range(1, 12):
        root = tmp_path / str(number)
        path = root / TARGET.file
        bound = bound_with_late_change(root)
        with failing(root, number, times=sys.maxsize):
            try:
                bound.settle()
            except DeployError as exc:
                message = exc.message
            else:
                assert LATE in path.read_bytes()
                continue
        assert made(root).strays(NEW) == []
        assert LATE in path.read_bytes() or any(
            LATE in other.read_bytes() and str(other) in message for other in left(path)
        )


def test_a_kill_at_any_touch_loses_nothing_and_the_next_run_says_where_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair = tmp_path / "pair.pem"
    pair.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in (OLD, NEW)))
    for number in itertools.count(1):
        root = tmp_path / str(number)
        path = root / TARGET.file
        died = subprocess.run(
            [sys.executable, "-m", __name__, str(root), str(number), str(pair)],
            cwd=Path(__file__).parents[2],
            env=unmeasured(),
            check=False,
            capture_output=True,
            encoding="utf-8",
            timeout=HANG_SECONDS,
        )
        if died.returncode == 0:
            break
        assert abs(died.returncode) == KILL, died.stderr
        for lock in path.parent.glob("*.lck"):
            os.utime(lock, (0, 0))
        caplog.clear()

        again = made(root)
        again.bind(NEW, now=NOW)
        again.settle()

        assert again.strays(NEW) == []
        beside = left(path)
        if LATE not in path.read_bytes():
            assert any(LATE in other.read_bytes() for other in beside)
        for other in beside:
            assert f"{other} is left of a run that was killed" in caplog.text
    assert number > 10


def test_what_a_killed_run_left_is_removed_if_it_is_nobody_elses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bound = bound_with_late_change(tmp_path)
    bound.settle()
    path = tmp_path / TARGET.file
    (backup,) = (tmp_path / "backups").rglob("MDaemon.ini")
    for content in (path.read_bytes(), backup.read_bytes(), b""):
        disk.neighbour(path).write_bytes(content)
    other = path.with_name(".MDaemon.ini.tmp")
    other.write_bytes(b"not ours")

    made(tmp_path).settle()
    bound.bind(NEW, now=NOW)
    bound.settle()

    assert left(path) == [other]
    assert "left of a run" not in caplog.text


def test_a_leftover_that_is_too_large_to_compare_stays_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bound = bound_with_late_change(tmp_path)
    other = disk.neighbour(tmp_path / TARGET.file)
    with other.open("wb") as file:
        file.truncate(backups.MAX_BYTES + 1)

    bound.settle()

    assert other.exists()
    assert f"{other} is left of a run that was killed" in caplog.text


def test_a_backup_is_found_whatever_the_folder_is_called(tmp_path: Path) -> None:
    path = tmp_path / "MDaemon [mail]" / "App" / "MDaemon.ini"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"now")
    kept = Backups(tmp_path / "backups", 10, NOW)
    back_up({path: b"former"}, kept)
    disk.neighbour(path).write_bytes(b"former")

    assert tidy(path, kept.folder) == []

    assert left(path) == []


if __name__ == "__main__":
    dying(Path(sys.argv[1]), int(sys.argv[2]))
