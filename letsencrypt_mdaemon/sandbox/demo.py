"""Demonstrate a renewal on a small MDaemon with a small CA, step by step."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509

from letsencrypt_mdaemon.errors import ConfigError, DeployError
from letsencrypt_mdaemon.pki.certificate import dns_names, is_issued_by
from letsencrypt_mdaemon.sandbox import mdaemon
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.sandbox.folder import (
    FOREIGN,
    INI_FILES,
    TARGETS,
    Layout,
    bound,
    create,
)
from letsencrypt_mdaemon.system.disk import explained
from letsencrypt_mdaemon.text import day
from letsencrypt_mdaemon.verify.endpoints import Endpoint
from letsencrypt_mdaemon.verify.observe import observe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Say = Callable[[str], None]

HOST_NAME = "mail.example.test"
ALTERNATES = "imap.example.test,bücher.example.test"
NAMES = {HOST_NAME, "imap.example.test", "xn--bcher-kva.example.test"}
RUN_TIMEOUT_SECONDS = 120
_START = """
import sys
folder = sys.argv.pop(1)
if folder not in sys.path:
    sys.path.insert(0, folder)
from letsencrypt_mdaemon.cli.main import main
main()
"""

_ended: list[subprocess.Popen[str]] = []  # Ctrl-C in a Popen's destructor is lost


def run(
    directory: Path | None, *, keep: bool, broken: bool, say: Say
) -> dict[str, Any]:
    """Run the demo in a folder; return its commands, their reports and the checks.

    Args:
        directory: The folder; None = a temporary one.
        keep: Keep the folder's content.
        broken: Let webmail crash with the new certificate, to force a rollback.
        say: Shows one line.

    Raises:
        ConfigError: If the folder cannot be used.
        Error: If a part cannot be started.
    """
    ours = directory is None or not directory.exists()
    folder = directory or Path(tempfile.mkdtemp(prefix="letsencrypt-mdaemon-demo-"))
    server_folder, ca_folder = folder / "mdaemon", folder / "ca"
    for part in (server_folder, ca_folder):
        if part.exists():
            message = f"{part} already exists."
            raise ConfigError(
                message, hint="Choose another folder, or remove this one."
            )
    with ExitStack() as exits:
        if not keep:
            for made in [folder] if ours else [server_folder, ca_folder]:
                exits.callback(shutil.rmtree, made, ignore_errors=True)
        say(f"1. Creating a small MDaemon in {server_folder},")
        say("   with a self-signed certificate.")
        layout = _created(server_folder)
        server = exits.enter_context(mdaemon.Server(server_folder, tls=True))
        before = _ini_files(server)
        say(f"   It serves the webroot on port {server.http_port}, offers TLS on")
        say(f"   {len(server.endpoints)} ports, and checks for semaphore files.")
        old = set(bound(server_folder).values())
        ca = exits.enter_context(
            CertificateAuthority(ca_folder, http_port=server.http_port)
        )
        say(f"   A small CA listens at {ca.directory_url}.")
        if broken:
            say("   Webmail will crash with any other certificate.")
            server.spoil(mdaemon.Fault.DEAD, "webmail")
        command = _command(server, ca)
        say("2. Renewing the certificate, with the command that you would use:")
        say(f"   $ {shlex.join(command)}")
        first = _renew(command, say)
        if broken:
            checks = _check_rollback(server, before, first, old)
        else:
            checks = _check(server, before, first, ca.root)
        checks["The webroot has no token file left"] = not any(
            path.is_file() for path in layout.webroot.rglob("*")
        )
        say("3. Running it again, as the Task Scheduler does twice a day:")
        second = _renew(command, say)
        checks["The second run changed nothing and placed no order"] = (
            second.get("renewed") is False and len(ca.orders) == 1
        )
        log = layout.logs / "LetsEncrypt.log"
        earlier = sorted(layout.logs.glob("LetsEncrypt-*.log"))
        text = earlier[-1].read_text("utf-8") if earlier else ""
        say("4. The log of the first run:")
        for line in text.splitlines():
            say(f"   {line}")
        say("5. Checking the files and the ports independently:")
        for what, seen in checks.items():
            say(f"   {'yes' if seen else 'NO '}  {what}")
        good = all(checks.values())
        say("All checks passed." if good else "A check failed.")
        if keep:
            say(f"The certificates are in {layout.certificates},")
            say(f"the log is {log}, and {layout.app / 'MDaemon.ini'}")
            say("names the certificate in use.")
        else:
            say("The demo removes its files. To keep them: demo --directory DIR --keep")
    return {
        "exit_code": 0 if good else 1,
        "directory": str(folder) if keep else None,
        "command_line": command,
        "first": first,
        "second": second,
        "checks": [{"what": what, "seen": seen} for what, seen in checks.items()],
        "log": text.splitlines(),
    }


def _created(folder: Path) -> Layout:
    """Create the small MDaemon's files."""
    hint = "Choose a folder that this account can write."
    with explained(f"create {folder}", failure=ConfigError, hint=hint):
        return create(folder, host_name=HOST_NAME)


def _command(server: mdaemon.Server, ca: CertificateAuthority) -> list[str]:
    """Return the command line that renews in the sandbox."""
    layout = server.layout
    return [
        *("letsencrypt-mdaemon", "renew", "--agree-tos"),
        *("--mdaemon-dir", str(layout.folder)),
        *("--store", f"pem:{layout.certificates}"),
        *("--directory-url", ca.directory_url, "--ca-bundle", str(ca.ca_bundle)),
        *("--smtp-address", f"127.0.0.1:{server.smtp_port}"),
        *("--endpoint", ",".join(server.endpoints.values())),
        *("--allow-restart", "--verify-timeout", "2"),
        *("--alternate-host-names", ALTERNATES),
        *("--to", "postmaster@example.test", "--skip-port-check"),
    ]


def _renew(command: list[str], say: Say) -> dict[str, Any]:
    """Run the program, show its messages, and return its report."""
    program = [sys.executable]
    if not getattr(sys, "frozen", False):
        # Only this very program, whatever is in the working directory.
        program += ["-I", "-X", "utf8", "-c", _START, str(Path(__file__).parents[2])]
    arguments = [*program, *command[1:], "--json"]
    ours = "LETSENCRYPT_MDAEMON_"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    # A proxy for the Internet does not reach this machine's loopback address.
    environment["NO_PROXY"] = "127.0.0.1,localhost"
    with subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        encoding="utf-8",
        errors="replace",
    ) as process:
        _ended.append(process)
        try:
            output, messages = process.communicate(timeout=RUN_TIMEOUT_SECONDS)
        except BaseException:
            process.kill()
            raise
    for line in messages.splitlines():
        say(f"   | {line}")
    try:
        report: dict[str, Any] = json.loads(output)
    except ValueError:
        report = {"exit_code": process.returncode, "output": output}
    if report.get("renewed"):
        end = day(datetime.fromisoformat(report["certificate"]["not_after"]))
        say(f"   = Renewed: {report['names'][0]}, valid until {end}")
    elif "renewed" in report:
        say(f"   = Not renewed: {report['reason']}")
    else:
        say(f"   = exit code {report['exit_code']}")
    return report


def _check(
    server: mdaemon.Server,
    before: Mapping[str, bytes],
    report: Mapping[str, Any],
    root: x509.Certificate,
) -> dict[str, bool]:
    """Check the result of a renewal, without trusting the program's report."""
    folder, chain = server.layout.folder, _stored(server.layout)
    wanted = (report.get("certificate") or {}).get("thumbprint", "?")
    return {
        "The store has one new certificate, for the three names": bool(chain)
        and set(dns_names(chain[0])) == NAMES,
        "Its chain leads to the CA's root": bool(chain)
        and all(map(is_issued_by, chain, [*chain[1:], root])),
        "The INI files of mail, webmail and Remote Administration name it": (
            set(bound(folder).values()) == {wanted}
        ),
        "Only the lines that name a certificate changed": all(
            _differs_only_in_targets(name, before[name], data)
            for name, data in _ini_files(server).items()
        ),
        "The other certificate in webmail's list is still there": (
            FOREIGN.lower().encode() in (folder / TARGETS["webmail"].file).read_bytes()
        ),
        f"All {len(server.endpoints)} ports serve the new certificate": (
            _served(server) == {wanted}
        ),
    }


def _check_rollback(
    server: mdaemon.Server,
    before: Mapping[str, bytes],
    report: Mapping[str, Any],
    old: set[str],
) -> dict[str, bool]:
    """Check that the rollback restored everything."""
    with suppress(TimeoutError):  # the server checks its queue every 50 ms
        server.wait_for(lambda: server.delivered)
    return {
        "The run failed with exit code 5": (
            report.get("exit_code") == DeployError.exit_code
        ),
        "The INI files are unchanged, byte for byte": before == _ini_files(server),
        f"All {len(server.endpoints)} ports serve the old certificate again": (
            _served(server) == old
        ),
        "The new certificate is still in the store": bool(_stored(server.layout)),
        "The postmaster received one mail": len(server.delivered) == 1,
    }


def _ini_files(server: mdaemon.Server) -> dict[str, bytes]:
    return {name: (server.layout.folder / name).read_bytes() for name in INI_FILES}


def _stored(layout: Layout) -> list[x509.Certificate]:
    """Return the chain of the only new certificate in the store, else nothing."""
    new = set(layout.certificates.glob("*/fullchain.pem"))
    new.discard(layout.certificates / "self-signed" / "fullchain.pem")
    pem = new.pop().read_bytes() if len(new) == 1 else b""
    return x509.load_pem_x509_certificates(pem) if pem else []


def _served(server: mdaemon.Server) -> set[str]:
    """Return the thumbprints that the ports serve; "" for a port without TLS."""
    endpoints = [Endpoint.parse(url) for url in server.endpoints.values()]
    return {seen.thumbprint for seen in observe(endpoints, [HOST_NAME]).values()}


def _differs_only_in_targets(name: str, before: bytes, after: bytes) -> bool:
    keys = {at.key.lower().encode() for at in TARGETS.values() if at.file == name}
    old, new = before.split(b"\r\n"), after.split(b"\r\n")
    return len(old) == len(new) and all(
        one == other or one.split(b"=")[0].lower() in keys
        for one, other in zip(old, new, strict=True)
    )
