"""A machine that does not let the program write: found before the CA is asked."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.system import disk
from tests.fakes import read_only
from tests.hostile.attacker import UID, open_to_all
from tests.program import Program, Ran, run

pytestmark = pytest.mark.usefixtures("attacker")
"""Root mounts, and makes files that not even root can write."""

READ_ONLY = "mount --bind {0} {0} && mount -o remount,ro,bind {0}"
FULL = (
    "mkdir /tmp/kept.$$ && cp -a {0}/. /tmp/kept.$$ && "
    "mount -t tmpfs -o size=1m none {0} && cp -a /tmp/kept.$$/. {0} && "
    "rm -r /tmp/kept.$$ && {{ cat /dev/zero > {0}/fill 2> /dev/null || true; }}"
)
PLACES = ["files", "webroot", "store", "state"]
COMMANDS = ["renew", "renew --dry-run", "doctor"]


def place(program: Program, name: str) -> Path:
    """Return the folder of one of the places that a run writes to."""
    program.state.mkdir(parents=True, exist_ok=True)
    program.layout.certificates.mkdir(exist_ok=True)
    return {
        "files": program.layout.app,
        "webroot": program.layout.webroot,
        "store": program.layout.certificates,
        "state": program.state,
    }[name]


def mounted(program: Program, mount: str, folder: Path, command: str) -> Ran:
    """Run a command where a folder is mounted like this, for it alone."""
    name, *options = command.split()
    line = shlex.join(program.command(name, *options))
    at = mount.format(shlex.quote(str(folder)))
    return run(["unshare", "--mount", "sh", "-c", f"{at} && exec {line}"])


def orders(ca: CertificateAuthority) -> list[str]:
    """Return what the CA was asked, without its directory."""
    asked = [request.resource for request in ca.requests]
    return [resource for resource in asked if resource != "directory"]


def nothing_changed(program: Program, before: dict[str, bytes]) -> bool:
    """Whether the server's files are as they were, and none of ours is there."""
    return program.snapshot() == before and program.tokens() == []


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", PLACES)
def test_what_is_mounted_read_only_is_found_before_the_ca_is_asked(
    name: str, command: str, program: Program, ca: CertificateAuthority
) -> None:
    folder = place(program, name)
    before = program.snapshot()

    ran = mounted(program, READ_ONLY, folder, command)

    assert ran.exit_code == 2, ran.messages
    assert f"{folder}" in ran.report["error"]["message"]
    assert os.strerror(errno.EROFS) in ran.report["error"]["message"]
    assert orders(ca) == []
    assert nothing_changed(program, before)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", PLACES)
def test_a_full_disk_is_found_before_the_ca_is_asked(
    name: str, command: str, program: Program, ca: CertificateAuthority
) -> None:
    folder = place(program, name)
    before = program.snapshot()

    ran = mounted(program, FULL, folder, command)

    assert ran.exit_code == 1, ran.messages
    assert f"{folder}" in ran.report["error"]["message"]
    assert os.strerror(errno.ENOSPC) in ran.report["error"]["message"]
    assert "Make room" in ran.report["error"]["hint"]
    assert orders(ca) == []
    assert nothing_changed(program, before)


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Let not even root change something."""
    made = subprocess.run(["chattr", "+i", str(path)], check=False, capture_output=True)
    if made.returncode:
        pytest.skip("this file system has no immutable files")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_is_immutable_is_found_before_the_ca_is_asked(
    what: str, command: str, program: Program, ca: CertificateAuthority
) -> None:
    app = program.layout.app
    before = program.snapshot()

    with immutable(app / "MDaemon.ini" if what == "file" else app):
        ran = program.run(*command.split())

    assert ran.exit_code == 2, ran.messages
    assert str(app / "MDaemon.ini") in ran.report["error"]["message"]
    assert orders(ca) == []
    assert nothing_changed(program, before)


def test_all_that_refuses_is_listed_at_once(
    program: Program, ca: CertificateAuthority
) -> None:
    with read_only(program.layout.folder):
        ran = program.here("renew", "--dry-run")

    assert ran.exit_code == 2
    message = ran.report["error"]["message"]
    for name in ("MDaemon.ini", "WorldClient.ini", "WebAdmin.ini"):
        assert str(program.layout.folder.joinpath(name).name) in message
    assert str(program.layout.webroot) in message
    assert str(program.layout.certificates) in message
    assert str(program.state) in message
    assert orders(ca) == []


AS_HIM = f"""
import os, pathlib, sys
from letsencrypt_mdaemon.system import disk  # perhaps only root can read it
os.setgroups([])
os.setresgid({UID}, {UID}, {UID})
os.setresuid({UID}, {UID}, {UID})
for path in map(pathlib.Path, sys.argv[1:]):
    try:
        disk.ask_to_write(path)
        print("may")
    except OSError as exc:
        print(exc.strerror)
"""


def test_another_user_may_do_what_his_folders_allow(ground: Path) -> None:
    ours, his, open_folder = (ground / name for name in ("ours", "his", "open"))
    for folder in (ours, his, open_folder):
        folder.mkdir()
        (folder / "a.ini").write_bytes(b"[a]\n")
        (folder / "a.ini").chmod(0o644)
    shutil.chown(his, UID, UID)
    open_to_all(open_folder)
    (open_folder / "locked.ini").write_bytes(b"")
    (open_folder / "locked.ini").chmod(0o444)
    asked = [
        *(ours / "a.ini", ours / "new", ours / "far" / "below" / "new"),
        *(his / "a.ini", his / "far" / "below" / "new"),
        *(open_folder / "a.ini", open_folder / "locked.ini", ours / "a.ini" / "x"),
    ]

    command = [sys.executable, "-c", AS_HIM, *map(str, asked)]
    answers = subprocess.run(command, check=True, capture_output=True, text=True).stdout

    denied = os.strerror(errno.EACCES)
    assert answers.splitlines() == [
        *(denied, denied, denied, "may", "may", "may", "it is read-only"),
        os.strerror(errno.ENOTDIR),
    ]
    assert sorted(path.name for path in ground.rglob("*") if path.is_file()) == [
        *("a.ini", "a.ini", "a.ini", "locked.ini"),
    ]


def test_what_is_issued_already_ends_with_5_and_is_used_by_the_next_run(
    program: Program, ca: CertificateAuthority
) -> None:
    with read_only(program.layout.app, allowed=1, refused=3):
        assert program.here("renew", "--no-reload").exit_code == 5
    before = program.bound()

    for command in ("renew", "renew --dry-run", "activate"):
        ran = mounted(program, READ_ONLY, program.layout.app, command)
        assert ran.exit_code == 5, ran.messages
        assert str(program.layout.app) in ran.report["error"]["message"]
    assert program.bound() == before

    ran = program.here("renew", "--no-reload")
    assert ran.exit_code == 0, ran.messages
    assert len(ca.issued) == 1


def test_while_nothing_is_due_what_refuses_is_a_warning_and_a_dry_run_fails(
    program: Program,
) -> None:
    assert program.here("renew", "--no-reload").exit_code == 0

    ran = mounted(program, READ_ONLY, program.layout.app, "renew --no-reload")
    dry = mounted(program, READ_ONLY, program.layout.app, "renew --dry-run")

    assert ran.exit_code == 0, ran.messages
    (warning,) = ran.report["warnings"]
    assert warning.startswith(
        f"The next renewal would fail. Could not write {program.layout.app}"
    )
    assert dry.exit_code == 2, dry.messages


def test_a_rehearsal_needs_no_store_and_no_files_but_a_webroot(
    program: Program, ca: CertificateAuthority
) -> None:
    staging = ["renew", "--staging", "--dry-run"]
    for name, code in (("files", 0), ("store", 0), ("webroot", 2), ("state", 2)):
        ran = mounted(program, READ_ONLY, place(program, name), " ".join(staging))
        assert ran.exit_code == code, ran.messages
    assert orders(ca) == []


def test_a_state_that_fails_after_the_ca_issued_ends_with_5(
    program: Program, ca: CertificateAuthority
) -> None:
    def lock_up(_: object) -> None:
        patch.setattr(disk, "create", refused)

    def refused(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    ca.faults.after("finalize", lock_up, times=1)
    with pytest.MonkeyPatch.context() as patch:
        ran = program.here("renew", "--no-reload")

    assert ran.exit_code == 5, ran.messages
    assert "Could not write" in ran.report["error"]["message"]
    again = program.here("renew", "--no-reload")
    assert again.exit_code == 0, again.messages
    assert len(ca.issued) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device")
def test_a_device_that_is_always_full_is_no_place_for_tokens(program: Program) -> None:
    ran = program.here("renew", "--dry-run", "--webroot", "/dev/full")

    assert ran.exit_code == 2
    assert "/dev/full is not a folder" in ran.report["error"]["message"]
