"""Starts and ends the hosts, the CA and the controller."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, NamedTuple

from letsencrypt_mdaemon._version import __version__
from tests.fleet import network
from tests.fleet.authority import Limits
from tests.limits import HANG_SECONDS

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
PLAYBOOKS = CHECKOUT / "examples" / "ansible"
LIMITS = Limits(accounts=10, orders=300, period=10_800)
"""As Let's Encrypt has them."""
WORDS = "words that nobody may see"
"""The passphrase."""
MEMORY = "300m"
"""Of what a host writes, at most."""


class Parts(NamedTuple):
    """What a fleet is made of.

    Args:
        sshd: Where Debian's openssh-server is unpacked.
        collections: Where Ansible finds its collections for Windows.
        package: The program with what it needs, as wheels in an archive.
    """

    sshd: Path
    collections: Path
    package: Path


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

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command on the host; return what it prints.

        Args:
            check: Whether it must not fail.
        """
        done = subprocess.run(
            ["nsenter", "-a", "-t", str(self.leader), *command],
            capture_output=True,
            check=check,
            text=True,
            timeout=HANG_SECONDS,
            env=self.environment,
        )
        return done.stdout

    def signal(self, name: str) -> None:
        """Send its sshd a signal, such as `STOP`."""
        _run("kill", f"-{name}", str(self.leader))

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
    package: Path
    environment: dict[str, str]
    settings: dict[str, str]
    hosts: list[Host] = field(default_factory=list)

    def requests(self) -> list[str]:
        """Return the CA's answers so far, such as `newOrder 201`."""
        file = self.ca / "requests"
        return file.read_text().splitlines() if file.exists() else []

    def count(self, answer: str) -> int:
        """Return how often the CA gave an answer."""
        return self.requests().count(answer)

    def limit(self, limits: Limits) -> None:
        """Let the CA have other limits from now on."""
        fresh = self.ca / "limits.tmp"
        fresh.write_text(json.dumps(limits))
        fresh.rename(self.ca / "limits.json")

    def unplug(self, host: Host) -> None:
        """Take a host off the network."""
        _in(self.hub, "ip", "link", "set", f"v{host.number}", "down")

    def plug_in(self, host: Host) -> None:
        """Bring it back."""
        _in(self.hub, "ip", "link", "set", f"v{host.number}", "up")

    def revoke_all(self) -> None:
        """Let the CA revoke all certificates before it answers anybody again."""
        (self.ca / "revoke").touch()

    def inventory(self, *first: str) -> None:
        """Write the inventory.

        Args:
            first: The host whose account the others use.
        """
        rows = {
            host.name: {
                "ansible_host": network.address(host.number),
                "letsencrypt_mdaemon_settings": self._settings(host),
            }
            for host in self.hosts
        }
        common = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.folder / "key"),
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no "
            "-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
            "ansible_python_interpreter": sys.executable,
            "ansible_remote_tmp": "/run/ansible",
        }
        program = Path(sys.executable).with_name("letsencrypt-mdaemon")
        variables = {
            # They have no cron.
            "letsencrypt_mdaemon_schedule": False,
            "letsencrypt_mdaemon_version": __version__,
            "letsencrypt_mdaemon_package": str(self.package),
            "letsencrypt_mdaemon_checksum": sha256(
                self.package.read_bytes()
            ).hexdigest(),
            "letsencrypt_mdaemon_python": sys.executable,
            "letsencrypt_mdaemon_controller": str(program),
        }
        if first:
            file = str(self.folder / "passphrase.txt")
            variables["letsencrypt_mdaemon_passphrase_file"] = file
        groups: dict[str, Any] = {
            "letsencrypt_mdaemon": {"hosts": rows, "vars": {**common, **variables}},
            "letsencrypt_mdaemon_account": {"hosts": {name: {} for name in first}},
        }
        # JSON is YAML.
        (self.folder / "inventory.yml").write_text(json.dumps(groups))

    def _settings(self, host: Host) -> dict[str, str]:
        """Return the settings of a host."""
        own: dict[str, str] = json.loads(_appeared(host.root / "srv" / "ready.json"))
        return self.settings | own

    def options(self, host: Host) -> list[str]:
        """Return them as options of `renew`, beside those of its config file."""
        return [f"--mdaemon-dir={self._settings(host)['mdaemon-dir']}"]

    @contextmanager
    def start(
        self, playbook: str, *words: str, out: IO[str] | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        """Start a playbook on the controller; killed, it takes all it started along.

        Args:
            out: Where it prints.
        """
        program = Path(sys.executable).with_name("ansible-playbook")
        with subprocess.Popen(
            [
                *("nsenter", "-n", "-t", str(self.hub), "unshare", "--pid", "--fork"),
                *("--kill-child", str(program)),
                *("-i", str(self.folder / "inventory.yml"), f"{playbook}.yml", *words),
            ],
            cwd=PLAYBOOKS,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=out or subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def play(self, playbook: str, *words: str) -> Played:
        """Run a playbook to its end."""
        begun, before = time.monotonic(), len(self.requests())
        said = self.folder / f"{playbook}.out"
        with (
            said.open("w") as out,
            self.start(playbook, *words, out=out) as process,
        ):
            process.wait(HANG_SECONDS)
        taken = time.monotonic() - begun
        # With pytest's -s, what docs/fleet.md shows.
        asked = len(self.requests()) - before
        print(f"\n{playbook} {' '.join(words)}: {taken:.0f} s, {asked} requests")  # noqa: T201
        return Played(process.returncode, said.read_text())


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


@contextmanager
def fleet(parts: Parts, folder: Path, size: int) -> Iterator[Fleet]:
    """Start hosts and a CA, all in namespaces of their own.

    Args:
        size: How many hosts.
    """
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(CHECKOUT),
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
        "ANSIBLE_TIMEOUT": "4",
        "ANSIBLE_FORKS": "4",
        # As by default, but for compression, which takes longer than the way.
        "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=60s",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_COLLECTIONS_PATH": str(parts.collections),
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
        (ca / "limits.json").write_text(json.dumps(LIMITS))
        start(
            *("nsenter", "-n", "-t", str(inside), *python, "tests.fleet.authority"),
            str(ca),
        )
        ready = json.loads(_appeared(ca / "ready.json"))
        port = str(ready.pop("port"))
        ready["allow-restart"] = "true"
        ready["ca-bundle"] = str(ca / "https-root.pem")
        running = Fleet(folder, inside, ca, parts.package, environment, ready)
        (folder / "passphrase.txt").write_text(WORDS)
        for number in range(1, size + 1):
            place = folder / f"host{number}"
            place.mkdir()
            name, address = network.name(number), network.address(number)
            process = start(
                *("unshare", "--net", "--mount", "--uts", "--pid", "--fork"),
                *("--mount-proc", "--kill-child", "/bin/sh", str(HERE / "host.sh")),
                *(
                    name,
                    str(place),
                    str(parts.sshd),
                    MEMORY,
                    *python,
                    "tests.fleet.server",
                ),
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
    return int(until(lambda: file.read_text().split())[0])


def _appeared(file: Path) -> str:
    return str(until(lambda: file.exists() and file.read_text()))


def until(look: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever is looked for
    """Return what is seen, once it is."""
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
