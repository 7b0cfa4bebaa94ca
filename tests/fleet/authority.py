"""The fleet's CA: the sandbox's, with limits as Let's Encrypt has them.

python -m tests.fleet.authority FOLDER ACCOUNTS ORDERS PERIOD
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from pathlib import Path

from letsencrypt_mdaemon.sandbox.ca.messages import Answer, Problem, Request
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from tests.fleet import network
from tests.fleet.relay import relay


class Limit:
    """So many requests in a period; more are refused until there is room again."""

    def __init__(self, what: str, most: int, period: float) -> None:
        self.what, self.most, self.period = what, most, period
        self.granted: list[float] = []

    def __call__(self, _: Request) -> Problem | None:
        """Return the refusal, if any (RFC 8555, 6.6)."""
        now = time.monotonic()
        self.granted = [at for at in self.granted if at > now - self.period]
        if len(self.granted) < self.most:
            self.granted.append(now)
            return None
        wait = str(int(self.granted[0] + self.period - now) + 1)
        detail = f"too many {self.what}"
        return Problem("rateLimited", detail, 429, {"Retry-After": wait})


def resolve(name: str) -> str | None:
    """Return the address of a host of the fleet."""
    found = re.fullmatch(r"mail(\d+)\.example\.test", name)
    return network.address(int(found[1])) if found else None


def main(folder: Path, accounts: int, orders: int, period: float) -> None:
    """Run the CA for ever; each request is a line in FOLDER/requests."""
    with CertificateAuthority(folder, http_port=80, resolve=resolve) as ca:
        limits = {
            "newAccount": Limit("new registrations", accounts, period),
            "newOrder": Limit("new orders", orders, period),
        }
        requests = (folder / "requests").open("a", buffering=1)

        def record(answer: Answer) -> None:
            requests.write(f"{ca.requests[-1].resource} {answer.status}\n")

        def limited(request: Request) -> Problem | None:
            # Whoever only looks for an account registers none (7.3.1).
            if request.payload.get("onlyReturnExisting"):
                return None
            return limits[request.resource](request)

        for resource in limits:
            ca.faults.before(resource, limited)
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
    where, *numbers = sys.argv[1:]
    main(Path(where), int(numbers[0]), int(numbers[1]), float(numbers[2]))
