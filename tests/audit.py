"""Audit what a release is made of, as the release does, with a service of our own.

Only the release asks the service that knows vulnerabilities (see `.github`). Ours knows
none, and then one. This checks that every package is pinned with hashes, that the list
of them (SBOM, CycloneDX) is complete, and that a vulnerability is noticed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

from tests.limits import HANG_SECONDS

CHECKOUT = Path(__file__).parents[1]
PINNED = (
    "packaging/windows/requirements.txt",
    "packaging/windows/audit.txt",
    "tests/windows/machine/requirements.txt",
)
VULNERABLE = "requests"
AFFECTED = {"package": {"name": VULNERABLE, "ecosystem": ""}}
ADVICE = {"vulns": [{"id": "TEST-1", "affected": [AFFECTED]}]}


class Service(BaseHTTPRequestHandler):
    """Answers as osv.dev does."""

    vulnerable = ""

    def do_POST(self) -> None:
        """Return the vulnerabilities of a package."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_bad = asked["package"]["name"] == self.vulnerable
        body = json.dumps(ADVICE if is_bad else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def audit(file: Path, service: str) -> tuple[int, set[str]]:
    """Return the exit code of the audit, and `name==version` of all that it lists."""
    with tempfile.TemporaryDirectory() as folder:
        sbom = Path(folder) / "sbom.json"
        ran = subprocess.run(
            (
                *(sys.executable, "-m", "pip_audit", "--strict", "--require-hashes"),
                *("--disable-pip", "--progress-spinner=off", "-r", str(file)),
                *("--format=cyclonedx-json", "--output", str(sbom)),
                *("--vulnerability-service=osv", "--osv-url", service),
                *("--cache-dir", folder),
            ),
            check=False,
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
        )
        if not sbom.is_file():
            sys.exit(f"No list of the packages of {file}:\n{ran.stderr}")
        document = json.loads(sbom.read_bytes())
    if document["bomFormat"] != "CycloneDX":
        sys.exit(f"The list of the packages of {file} is not CycloneDX.")
    listed = document["components"]
    return ran.returncode, {f"{item['name']}=={item['version']}" for item in listed}


def main() -> None:
    """Audit each file, and the first one with a vulnerability."""
    with HTTPServer(("127.0.0.1", 0), Service) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        service = f"http://127.0.0.1:{server.server_port}/v1/query"
        for name in PINNED:
            text = (CHECKOUT / name).read_text()
            pinned = set(re.findall(r"^[\w.-]+==[^ ]+", text, re.MULTILINE))
            code, listed = audit(CHECKOUT / name, service)
            if code or listed != pinned:
                sys.exit(f"{name}: exit code {code}, {sorted(listed ^ pinned)} differ")
            sys.stdout.write(f"{name}: {len(pinned)} packages, each with its hashes\n")
        Service.vulnerable = VULNERABLE
        if audit(CHECKOUT / PINNED[0], service)[0] != 1:
            sys.exit("A vulnerability was not noticed.")
        server.shutdown()
    sys.stdout.write(
        "Not asked: the real service, so known vulnerabilities were not looked for; "
        "the release workflow does that.\n"
    )


if __name__ == "__main__":
    main()
