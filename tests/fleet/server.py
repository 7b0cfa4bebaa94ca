"""A host's MDaemon: the sandbox, and the ways between it and the CA.

python -m tests.fleet.server NAME ADDRESS CA-PORT
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from socketserver import ThreadingUDPServer

from letsencrypt_mdaemon.sandbox import folder
from letsencrypt_mdaemon.sandbox.mdaemon import Server, thread
from tests.fleet.network import HUB
from tests.fleet.relay import relay
from tests.program import NoDns

MDAEMON = Path("/srv/MDaemon")
READY = Path("/srv/ready.json")


async def serve(address: str, ca_port: int) -> None:
    """Let the CA reach port 80, and this host the CA, for ever."""
    await relay((address, 80), ("127.0.0.1", 80))
    await relay(("127.0.0.1", ca_port), (HUB, ca_port))
    await asyncio.Event().wait()


def main(name: str, address: str, ca_port: str) -> None:
    """Run the server until the host ends."""
    with Path("/etc/hosts").open("a") as hosts:
        hosts.write(f"127.0.0.1 {name}\n")
    layout = folder.create(MDAEMON, host_name=name)
    with (
        Server(MDAEMON, http_port=80, tls=True) as server,
        ThreadingUDPServer(("127.0.0.1", 0), NoDns) as dns,
        thread(dns.serve_forever, dns.shutdown),
    ):
        # Remote Administration takes seconds of waiting, which show nothing here.
        ports = server.endpoints.items()
        watched = [endpoint for name, endpoint in ports if "admin" not in name]
        settings = {
            "mdaemon-dir": str(MDAEMON),
            "store": f"pem:{layout.certificates}",
            "smtp-address": f"127.0.0.1:{server.smtp_port}",
            "endpoint": ",".join(watched),
            "validation-dns": f"127.0.0.1:{dns.server_address[1]}",
        }
        fresh = READY.with_suffix(".tmp")
        fresh.write_text(json.dumps(settings))
        fresh.rename(READY)
        asyncio.run(serve(address, int(ca_port)))


if __name__ == "__main__":
    main(*sys.argv[1:])
