"""Starts and ends the hosts, the CA and the controller."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.fleet import network
from tests.limits import HANG_SECONDS

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
PLAYBOOKS = CHECKOUT / "examples" / "ansible"
MEMORY = "300m"
"""Of what a host writes, at most."""


@dataclass(frozen=True)
class Host:
    """A server of the fleet."""

    number: int
    folder: Path
    process: subprocess.Popen[bytes]
    environment: Mapping[str, str]

    @property
    def name(self) -> str:
        """The name in the inventory, and of its certificate."""
        return network.name(self.number)

    def run(self, *command: str) -> str:
        """Run a command on the host; return what it prints."""
        done = subprocess.run(
            ["nsenter", "-a", "-t", str(self.leader), *command],
            capture_output=True,
            check=True,
            text=True,
            timeout=HANG_SECONDS,
            env=self.environment,
        )
        return done.stdout

    @property
    def leader(self) -> int:
        """The first process in the host's namespaces: `sshd` in the end."""
        return _first_child(self.process)

    @property
    def root(self) -> Path:
        """The host's files, as seen from outside."""
        return Path(f"/proc/{self.leader}/root")


@dataclass
class Fleet:
    """Hosts, their CA, and the controller beside it.

    Args:
        settings: What every command on the hosts needs.
    """

    folder: Path
    hub: int
    ca: Path
    environment: dict[str, str]
    settings: dict[str, str]
    hosts: list[Host] = field(default_factory=list)

    def requests(self) -> list[str]:
        """Return the CA's answers so far, such as `newOrder 201`."""
        return (self.ca / "requests").read_text().splitlines()

    def inventory(self, variables: Mapping[str, object], *first: str) -> None:
        """Write the inventory.

        Args:
            first: The host whose account the others use.
        """
        rows = {
            host.name: {
                "ansible_host": network.address(host.number),
                "letsencrypt_mdaemon_settings": self.settings
                | json.loads(_appeared(host.root / "srv" / "ready.json")),
            }
            for host in self.hosts
        }
        common = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.folder / "key"),
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no "
            "-o UserKnownHostsFile=/dev/null -o ControlMaster=no -o LogLevel=ERROR",
            "ansible_python_interpreter": sys.executable,
            "ansible_remote_tmp": "/run/ansible",
        }
        groups: dict[str, Any] = {
            "letsencrypt_mdaemon": {"hosts": rows, "vars": {**common, **variables}},
            "letsencrypt_mdaemon_account": {"hosts": {name: {} for name in first}},
        }
        # JSON is YAML.
        (self.folder / "inventory.yml").write_text(json.dumps(groups))

    def start(self, playbook: str, *words: str) -> subprocess.Popen[str]:
        """Start a playbook on the controller."""
        program = Path(sys.executable).with_name("ansible-playbook")
        return subprocess.Popen(
            [
                *("nsenter", "-n", "-t", str(self.hub), str(program)),
                *("-i", str(self.folder / "inventory.yml"), f"{playbook}.yml", *words),
            ],
            cwd=PLAYBOOKS,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def play(self, playbook: str, *words: str) -> Played:
        """Run a playbook to its end."""
        with self.start(playbook, *words) as process:
            output, _ = process.communicate(timeout=5 * HANG_SECONDS)
        return Played(process.returncode, output)


@dataclass(frozen=True)
class Played:
    """How a playbook ended."""

    exit_code: int
    output: str

    def counts(self, host: str) -> dict[str, int]:
        """Return Ansible's summary of a host, such as `{"changed": 0, ...}`."""
        lines = self.output.partition("PLAY RECAP")[2].splitlines()
        (line,) = [line for line in lines if line.split(":")[0].strip() == host]
        pairs = (pair.split("=") for pair in line.partition(":")[2].split())
        return {name: int(count) for name, count in pairs}


class Limits(NamedTuple):
    """What the CA allows: so much in so many seconds."""

    accounts: int
    orders: int
    period: float


@contextmanager
def fleet(folder: Path, sshd: Path, size: int, limits: Limits) -> Iterator[Fleet]:
    """Start hosts and a CA, all in namespaces of their own.

    Args:
        sshd: Where Debian's openssh-server is unpacked.
        size: How many hosts.
    """
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(CHECKOUT),
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
        "ANSIBLE_TIMEOUT": "4",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_COLLECTIONS_PATH": os.environ.get("FLEET_COLLECTIONS", ""),
        "ANSIBLE_LOCAL_TEMP": str(folder / "ansible"),
    }
    with ExitStack() as ending:

        def start(*command: str) -> subprocess.Popen[bytes]:
            # --fork ignores SIGTERM; --kill-child takes all with it.
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stderr=log
            )
            ending.callback(process.wait)
            ending.callback(process.kill)
            return process

        log = ending.enter_context((folder / "log").open("ab"))
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key"))
        hub = start(*("unshare", "--net", "--kill-child", "--fork", "sleep", "inf"))
        inside = _first_child(hub)
        _in(inside, "ip", "link", "set", "lo", "up")
        _in(inside, "ip", "link", "add", "hub", "type", "bridge")
        _in(inside, "ip", "address", "add", f"{network.HUB}/24", "dev", "hub")
        _in(inside, "ip", "link", "set", "hub", "up")
        ca = folder / "ca"
        ca.mkdir()
        python = (sys.executable, "-m")
        start(
            *("nsenter", "-n", "-t", str(inside), *python, "tests.fleet.authority"),
            *(str(ca), *map(str, limits)),
        )
        ready = json.loads(_appeared(ca / "ready.json"))
        port = str(ready.pop("port"))
        ready["allow-restart"] = "true"
        ready["ca-bundle"] = str(ca / "https-root.pem")
        running = Fleet(folder, inside, ca, environment, ready)
        for number in range(1, size + 1):
            place = folder / f"host{number}"
            place.mkdir()
            name, address = network.name(number), network.address(number)
            process = start(
                *("unshare", "--net", "--mount", "--uts", "--pid", "--fork"),
                *("--mount-proc", "--kill-child", "/bin/sh", str(HERE / "host.sh")),
                *(name, str(place), str(sshd), MEMORY, *python, "tests.fleet.server"),
                *(name, address, port),
            )
            host = Host(number, place, process, environment)
            running.hosts.append(host)
            _plug_in(inside, host, address)
        yield running


def _plug_in(hub: int, host: Host, address: str) -> None:
    """Connect a host with the bridge."""
    inside, cable = _first_child(host.process), f"v{host.number}"
    peer = ("type", "veth", "peer", "name", "eth0", "netns", str(inside))
    _in(hub, "ip", "link", "add", cable, *peer)
    _in(hub, "ip", "link", "set", cable, "master", "hub", "up")
    _in(inside, "ip", "address", "add", f"{address}/24", "dev", "eth0")
    _in(inside, "ip", "link", "set", "eth0", "up")


def _first_child(process: subprocess.Popen[bytes]) -> int:
    file = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return int(_until(lambda: file.read_text().split())[0])


def _appeared(file: Path) -> str:
    return str(_until(lambda: file.exists() and file.read_text()))


def _until(look: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever is looked for
    end = time.monotonic() + HANG_SECONDS
    while not (found := look()):
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)
    return found


def _in(process: int, *command: str) -> None:
    _run("nsenter", "-n", "-t", str(process), *command)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=HANG_SECONDS)


def missing() -> list[str]:
    """Return the programs that the fleet needs and this machine lacks."""
    needed = ("unshare", "nsenter", "ip", "ssh", "ssh-keygen")
    return [name for name in needed if shutil.which(name) is None]
