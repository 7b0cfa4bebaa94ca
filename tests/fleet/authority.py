"""The fleet's CA: the sandbox's, with limits as Let's Encrypt has them.

python -m tests.fleet.authority FOLDER

FOLDER/limits.json holds the limits. Each request is a line in FOLDER/requests. When a
file FOLDER/revoke appears, all certificates are revoked, and it is removed.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from pathlib import Path
from typing import NamedTuple

from letsencrypt_mdaemon.sandbox.ca.messages import Answer, Problem, Request
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from tests.fleet import network
from tests.fleet.relay import relay


class Limits(NamedTuple):
    """How many requests are granted in a period of so many seconds."""

    accounts: int
    orders: int
    period: float


class Doorkeeper:
    """Refuses what is beyond the limits (RFC 8555, 6.6)."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.granted: dict[str, list[float]] = {"newAccount": [], "newOrder": []}

    def __call__(self, request: Request) -> Problem | None:
        """Return the refusal, if any."""
        # Whoever only looks for an account registers none (7.3.1).
        if request.payload.get("onlyReturnExisting"):
            return None
        limits = Limits(*json.loads(self.file.read_text()))
        is_order = request.resource == "newOrder"
        most = limits.orders if is_order else limits.accounts
        now = time.monotonic()
        granted = self.granted[request.resource]
        recent = [at for at in granted if at > now - limits.period]
        if len(recent) < most:
            granted.append(now)
            return None
        wait = {"Retry-After": str(int(recent[0] + limits.period - now) + 1)}
        what = "orders" if is_order else "registrations"
        return Problem("rateLimited", f"too many new {what}", 429, wait)


def resolve(name: str) -> str | None:
    """Return the address of a host of the fleet."""
    found = re.fullmatch(r"mail(\d+)\.example\.test", name)
    return network.address(int(found[1])) if found else None


def main(folder: Path) -> None:
    """Run the CA for ever."""
    with CertificateAuthority(folder, http_port=80, resolve=resolve) as ca:
        requests = (folder / "requests").open("a", buffering=1)

        def record(answer: Answer) -> None:
            requests.write(f"{ca.requests[-1].resource} {answer.status}\n")

        def revoke(_: Request) -> None:
            if (folder / "revoke").exists():
                for issued in ca.issued.values():
                    issued.revoked = True
                (folder / "revoke").unlink()

        ca.faults.before("newOrder|newAccount", Doorkeeper(folder / "limits.json"))
        ca.faults.before("directory", revoke)
        ca.faults.after(".*", record)
        port = int(re.findall(r":(\d+)/", ca.directory_url)[0])
        ready = {"directory-url": ca.directory_url, "port": port}
        (folder / "ready.tmp").write_text(json.dumps(ready))
        (folder / "ready.tmp").rename(folder / "ready.json")
        asyncio.run(serve(port))


async def serve(port: int) -> None:
    """Let the hosts reach the CA, for ever."""
    await relay((network.HUB, port), ("127.0.0.1", port))
    await asyncio.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
