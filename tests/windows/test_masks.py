"""What `selftest --report` says of a folder and an account, as Windows shows them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from letsencrypt_mdaemon.app import masks

assert sys.platform == "win32"

from letsencrypt_mdaemon.windows import security  # noqa: E402 - Windows only

SHOWN = re.compile(
    r"S-1-(?:\d+-)+\d+|S-1-5-21-<domain>-\d+|<service>|<account or group>"
)


def test_a_folder_is_shown_with_owner_and_list_and_without_accounts(
    tmp_path: Path,
) -> None:
    found = masks.permissions(tmp_path)
    assert found["entries"]
    shown = {found["owner"], *(entry["sid"] for entry in found["entries"])}
    assert all(map(SHOWN.fullmatch, shown)), shown
    ours = security.own_sid()
    assert ours.startswith("S-1-5-21-")
    assert ours not in shown
    assert masks.sid(ours) in shown


def test_the_machine_is_shown_by_numbers() -> None:
    found = masks.windows()
    assert found is not None
    assert found["account"] == masks.sid(security.own_sid())
    assert {found["ansi"], found["oem"]} <= set(range(1, 65536))
    assert found["language"] > 0
