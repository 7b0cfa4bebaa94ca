"""The whole job on a small MDaemon with a small CA, told in plain words."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509

from letsencrypt_mdaemon.errors import Error
from letsencrypt_mdaemon.sandbox import mdaemon
from letsencrypt_mdaemon.sandbox.ca import CertificateAuthority

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Say = Callable[[str], None]

HOST_NAME = "mail.example.test"
ALTERNATES = "imap.example.test,bücher.example.test"
NAMES = {HOST_NAME, "imap.example.test", "xn--bcher-kva.example.test"}
DEADLINE = 120
"""Seconds for one run of the program."""


def run(directory: Path | None, *, keep: bool, say: Say) -> dict[str, Any]:
    """Play the demo in a folder; return what was done, and what was seen afterwards.

    Args:
        directory: Where; None = a temporary folder.
        keep: Leave the folder's content there.
        say: Takes one line of the story.

    Raises:
        Error: If the folder cannot be used, or a part cannot be started.
    """
    folder = directory or Path(tempfile.mkdtemp(prefix="letsencrypt-mdaemon-demo-"))
    server_folder, ca_folder = folder / "mdaemon", folder / "ca"
    for part in (server_folder, ca_folder):
        if part.exists():
            message = f"{part} is there already."
            raise Error(message, hint="Name another folder, or remove it.")
    with ExitStack() as exits:
        if not keep:
            exits.callback(
                _clear, folder, [server_folder, ca_folder], directory is None
            )
        say(
            f"1. A small MDaemon is made in {server_folder}, with a self-signed certificate."
        )
        layout = mdaemon.create(server_folder, host_name=HOST_NAME)
        before = {
            name: (server_folder / name).read_bytes() for name in mdaemon.INI_FILES
        }
        server = exits.enter_context(mdaemon.Server(server_folder))
        say(
            f"   It serves webmail's folder on port {server.http_port}, greets by SMTP on"
        )
        say(f"   port {server.smtp_port}, and looks for semaphore files.")
        ca = exits.enter_context(
            CertificateAuthority(ca_folder, http_port=server.http_port)
        )
        say(f"   A small CA answers at {ca.directory_url}.")
        command = [
            *("letsencrypt-mdaemon", "renew", "--agree-tos"),
            *("--mdaemon-dir", str(server_folder)),
            *("--store", f"pem:{layout.certificates}"),
            *("--directory-url", ca.directory_url, "--ca-bundle", str(ca.ca_bundle)),
            *("--smtp-address", f"127.0.0.1:{server.smtp_port}"),
            *("--alternate-host-names", ALTERNATES),
            *("--to", "postmaster@example.test", "--skip-port-check"),
        ]
        say("2. The certificate is renewed, as you would do it:")
        say(f"   $ {shlex.join(command)}")
        first = _renew(command, say)
        checks = _checks(server, before, first, ca)
        say("3. The same again, as the Task Scheduler does twice a day:")
        second = _renew(command, say)
        checks["The second run finds nothing due, and orders nothing"] = (
            second.get("renewed") is False and len(ca.orders) == 1
        )
        log = layout.logs / "LetsEncrypt.log"
        earlier = sorted(layout.logs.glob("LetsEncrypt-*.log"))
        text = earlier[-1].read_text("utf-8") if earlier else ""
        say("4. The log of the first run:")
        for line in text.splitlines():
            say(f"   {line}")
        say("5. Seen with our own eyes, in the files and at the ports:")
        for what, seen in checks.items():
            say(f"   {'yes' if seen else 'NO '}  {what}")
        good = all(checks.values())
        say("Everything is as it should be." if good else "Something is wrong.")
        if keep:
            say(f"Where to look: {layout.certificates} (the certificates), {log},")
            say(f"and {server_folder / 'App' / 'MDaemon.ini'} (which one is in use).")
        else:
            say(
                "All of it is removed again; to look around: demo --directory DIR --keep"
            )
    return {
        "exit_code": 0 if good else 1,
        "directory": str(folder) if keep else None,
        "command": command,
        "first": first,
        "second": second,
        "checks": [{"what": what, "seen": seen} for what, seen in checks.items()],
        "log": text.splitlines(),
    }


def _renew(command: list[str], say: Say) -> dict[str, Any]:
    """Run the program for real, show what it says, and return what it reports."""
    arguments = [sys.executable, "-m", "letsencrypt_mdaemon", *command[1:], "--json"]
    ours = "LETSENCRYPT_MDAEMON_"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    # A proxy for the world is none for this machine.
    environment |= {"NO_PROXY": "127.0.0.1,localhost", "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            output, messages = process.communicate(timeout=DEADLINE)
        except BaseException:
            process.kill()
            raise
    for line in messages.splitlines():
        say(f"   | {line}")
    try:
        report: dict[str, Any] = json.loads(output)
    except ValueError:
        report = {"exit_code": process.returncode, "output": output}
    if report.get("renewed") is not None:
        say(
            f"   = {'renewed' if report['renewed'] else 'not renewed'}: {report['reason']}"
        )
    return report


def _checks(
    server: mdaemon.Server,
    before: Mapping[str, bytes],
    report: Mapping[str, Any],
    ca: CertificateAuthority,
) -> dict[str, bool]:
    """Look at what is there now, whatever the program says about it."""
    layout = server.layout
    wanted = (report.get("certificate") or {}).get("thumbprint", "?")
    stored = [
        x509.load_pem_x509_certificates(file.read_bytes())
        for file in layout.certificates.glob("*/fullchain.pem")
        if file.parent.name != "self-signed"
    ]
    new = stored[0] if stored else []
    names = (
        new[0].extensions.get_extension_for_class(x509.SubjectAlternativeName)
        if new
        else None
    )
    return {
        "One new certificate is in the store, for the three names": len(stored) == 1
        and names is not None
        and set(names.value.get_values_for_type(x509.DNSName)) == NAMES,
        "Its chain leads to the CA's root": bool(new) and _leads_to(new, ca.root),
        "Mail, webmail and Remote Administration name it in their INI files": set(
            mdaemon.bound(layout.folder).values()
        )
        == {wanted},
        "Only the lines that name a certificate have changed": all(
            _differs_only_in_targets(name, data, (layout.folder / name).read_bytes())
            for name, data in before.items()
        ),
        "The other certificate in webmail's list is still there": (
            mdaemon.FOREIGN.lower().encode()
            in (layout.folder / mdaemon.TARGETS["webmail"].file).read_bytes()
        ),
        "Mail and webmail have reloaded it (Remote Administration at its next start)": {
            server.serving["mail"],
            server.serving["webmail"],
        }
        == {wanted},
        "No token file is left in the webroot": not [
            path for path in layout.webroot.rglob("*") if path.is_file()
        ],
    }


def _leads_to(chain: list[x509.Certificate], root: x509.Certificate) -> bool:
    try:
        for child, parent in zip(chain, [*chain[1:], root], strict=True):
            child.verify_directly_issued_by(parent)
    except (ValueError, TypeError):
        return False
    return True


def _differs_only_in_targets(name: str, before: bytes, after: bytes) -> bool:
    keys = {
        target.key.lower().encode()
        for target in mdaemon.TARGETS.values()
        if target.file == name
    }
    old, new = before.split(b"\r\n"), after.split(b"\r\n")
    return len(old) == len(new) and all(
        one == other or one.split(b"=")[0].lower() in keys
        for one, other in zip(old, new, strict=True)
    )


def _clear(folder: Path, parts: list[Path], temporary: bool) -> None:  # noqa: FBT001
    for part in parts:
        shutil.rmtree(part, ignore_errors=True)
    if temporary:
        shutil.rmtree(folder, ignore_errors=True)
