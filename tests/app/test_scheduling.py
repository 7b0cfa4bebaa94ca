"""What is told before a command is scheduled that would not run as it does here."""

from __future__ import annotations

import logging
from pathlib import Path, PureWindowsPath

import pytest

from letsencrypt_mdaemon.acme import exchange
from letsencrypt_mdaemon.app import scheduling, trust
from letsencrypt_mdaemon.config import load
from letsencrypt_mdaemon.windows import drives

# What Windows' GetDriveType and QueryDosDevice return.
DRIVES = {
    "C:": (3, r"\Device\HarddiskVolume3"),
    "M:": (4, r"\Device\LanmanRedirector\;M:000000000003e7a1\server\mdaemon"),
    "S:": (3, "\\??\\C:\\MDaemon"),
    "X:": (1, ""),
}


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (r"C:\MDaemon", ""),
        (r"M:\MDaemon", "the drive M: is mapped to a share, for this account only"),
        (
            r"S:\LetsEncrypt",
            r"the drive S: stands for C:\MDaemon (subst), for this account only",
        ),
        (r"X:\nothing", ""),
        (r"\\server\share\MDaemon", ""),
        ("relative", ""),
    ],
)
def test_a_drive_that_only_one_account_has_is_known(path: str, why: str) -> None:
    assert drives.lacking(PureWindowsPath(path), DRIVES.__getitem__) == why


def test_every_path_that_a_scheduled_run_needs_is_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "settings.ini"
    file.write_text(
        "[letsencrypt-mdaemon]\nwebroot = web\nstore = pem:kept\nlog-dir = logs\n"
    )
    loaded = load.load({}, {}, file)

    found = scheduling.paths(loaded.config, file, tmp_path / "MDaemon")

    del found["Python"]
    assert found == {
        "MDaemon's folder": tmp_path / "MDaemon",
        "the config file": file,
        "webroot": tmp_path / "web",
        "store": tmp_path / "kept",
        "log-dir": tmp_path / "logs",
    }


@pytest.mark.parametrize("given", ["", "proxy = proxy.example.test:3128\n"])
def test_a_proxy_that_only_this_account_has_is_told_unless_one_is_set(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    given: str,
) -> None:
    monkeypatch.setattr(
        exchange, "proxy_of", lambda _: "http://me:pass-phrase@10.0.0.1:8080"
    )
    file = tmp_path / "settings.ini"
    file.write_text(f"[letsencrypt-mdaemon]\nagree-tos = yes\n{given}")
    monkeypatch.setattr(trust, "require_program", lambda *_: None)

    with caplog.at_level(logging.WARNING):
        scheduling.command(load.load({}, {}, file), {}, tmp_path)

    warned = "do not get this account's proxy 10.0.0.1:8080." in caplog.text
    assert warned is not bool(given)
    assert "pass-phrase" not in caplog.text
