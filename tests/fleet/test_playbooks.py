"""The playbooks as Ansible's own tools see them; those for Windows never ran."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fleet.fleet import PLAYBOOKS
from tests.limits import HANG_SECONDS

FILES = sorted(PLAYBOOKS.rglob("*.yml"))


@pytest.fixture
def tools(collections: Path, tmp_path: Path) -> dict[str, str]:
    """Return the environment of Ansible's tools."""
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
        "ANSIBLE_COLLECTIONS_PATH": str(collections),
    }


def _run(tools: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        command,
        cwd=PLAYBOOKS,
        env=tools,
        check=False,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_playbook_and_the_example_inventory_are_read(
    tools: dict[str, str],
) -> None:
    names = ("install.yml", "account.yml", "collect.yml", "renew.yml")
    inventory = "inventory.example.yml"

    _run(tools, "ansible-playbook", "-i", inventory, "--syntax-check", *names)
    hosts = json.loads(_run(tools, "ansible-inventory", "-i", inventory, "--list"))

    assert len(hosts["_meta"]["hostvars"]) == 3


def test_ansible_lint_passes_them_for_production(tools: dict[str, str]) -> None:
    _run(tools, "ansible-lint", "--offline", "--strict", "--profile", "production")


def _tasks(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield row
        for part in ("tasks", "block", "always"):
            yield from _tasks(row.get(part, []))


def _uses(module: str) -> Iterator[tuple[Path, str, set[str]]]:
    """Yield where modules of a collection are used: the file, the module, options."""
    for file in FILES:
        document = yaml.safe_load(file.read_text())
        for task in _tasks(document) if isinstance(document, list) else ():
            for name in (name for name in task if str(name).startswith(module)):
                yield file, name, {*task[name]}


def test_no_module_for_windows_gets_an_option_that_it_does_not_have(
    tools: dict[str, str],
) -> None:
    uses = list(_uses("ansible.windows."))
    modules = sorted({name for _, name, _ in uses})
    told = json.loads(_run(tools, "ansible-doc", "-j", "-t", "module", *modules))

    wrong = {
        (file.name, name, *(options - told[name]["doc"]["options"].keys()))
        for file, name, options in uses
        if options - told[name]["doc"]["options"].keys()
    }

    assert len(modules) >= 6
    assert not wrong


def test_what_windows_does_linux_does_too() -> None:
    tasks = PLAYBOOKS / "roles/letsencrypt_mdaemon/tasks"
    for windows in tasks.glob("*_windows.yml"):
        linux = windows.with_name(windows.name.replace("windows", "linux"))
        assert linux.exists()
        if "account" in windows.name or windows.name.startswith("run"):
            names = [
                [task["name"] for task in _tasks(yaml.safe_load(file.read_text()))]
                for file in (windows, linux)
            ]
            assert names[0] == names[1]


def test_what_carries_a_secret_is_never_logged() -> None:
    for file in FILES:
        document = yaml.safe_load(file.read_text())
        for task in _tasks(document) if isinstance(document, list) else ():
            secret = re.search(r"passphrase_file|account_file", json.dumps(task))
            copies = any(str(name).endswith("copy") for name in task)
            if secret and copies:
                assert task.get("no_log") is True, f"{file}: {task['name']}"
