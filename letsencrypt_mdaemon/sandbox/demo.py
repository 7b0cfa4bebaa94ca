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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509

from letsencrypt_mdaemon.config.load import FILE_NAME
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
from letsencrypt_mdaemon.verify.endpoints import Endpoint
from letsencrypt_mdaemon.verify.observe import observe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Say = Callable[[str], None]
    Serve = Callable[[dict[str, Any]], object]

HOST_NAME = "mail.example.test"
ALTERNATES = "imap.example.test,bücher.example.test"
NAMES = {HOST_NAME, "imap.example.test", "xn--bcher-kva.example.test"}
TO_TRY = (("status",), ("verify",), ("renew", "--force"))
"""Commands for the sandbox that stays up."""
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
    directory: Path | None,
    *,
    keep: bool,
    broken: bool,
    say: Say,
    serve: Serve | None = None,
) -> dict[str, Any]:
    """Run the demo in a folder; return its commands, their reports and the checks.

    Args:
        directory: The folder; None = a temporary one.
        keep: Keep the folder's content.
        broken: Let webmail crash with the new certificate, to force a rollback.
        say: Shows one line.
        serve: Called with the result; the sandbox stays up until it returns.

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
            hint = "Choose another folder, or remove this one."
            raise ConfigError(message, hint=hint)
    with ExitStack() as exits:
        if not keep:
            for made in [folder] if ours else [server_folder, ca_folder]:
                exits.callback(shutil.rmtree, made, ignore_errors=True)
        say(f"1. Creating a small MDaemon in {server_folder},")
        say("   with a self-signed certificate.")
        layout = _created(server_folder)
        server = exits.enter_context(mdaemon.Server(server_folder, tls=True))
        say(f"   It serves the webroot on port {server.http_port}, offers TLS on")
        say(f"   {len(server.endpoints)} ports, and checks for semaphore files.")
        ca = exits.enter_context(
            CertificateAuthority(ca_folder, http_port=server.http_port)
        )
        say(f"   A small CA listens at {ca.directory_url}.")
        report = _renew_twice(server, ca, say, broken=broken)
        at = str(folder) if keep or serve else None
        result = {**report, "directory": at}
        say(report["verdict"])
        if serve is not None:
            say("6. The sandbox stays up until Ctrl-C. Try in another window:")
            for words in TO_TRY:
                say(f"   $ {_quoted(_typed(words, layout))}")
            serve(result)
        if keep:
            say(f"The certificates are in {layout.certificates},")
            log = layout.logs / "LetsEncrypt.log"
            say(f"the log is {log}, and {layout.app / 'MDaemon.ini'}")
            say("names the certificate in use.")
        else:
            say("The demo removes its files. To keep them: demo --directory DIR --keep")
    return result


def _renew_twice(
    server: mdaemon.Server, ca: CertificateAuthority, say: Say, *, broken: bool
) -> dict[str, Any]:
    """Renew, try to renew again, and check the result; return what was seen."""
    layout = server.layout
    before, old = _ini_files(server), set(bound(layout.folder).values())
    if broken:
        say("   Webmail will crash with any other certificate.")
        server.spoil(mdaemon.Fault.DEAD, "webmail")
    file = _configure(server, ca)
    say("2. Renewing the certificate, with the command that you would type:")
    command = _typed(["renew"], layout)
    say(f"   $ {_quoted(command)}")
    say(f"   The config file is {file}.")
    first = _renew(layout, say)
    if broken:
        checks = _check_rollback(server, before, first, old)
    else:
        checks = _check(server, before, first, ca.root)
    checks["The webroot has no token file left"] = not any(
        path.is_file() for path in layout.webroot.rglob("*")
    )
    say("3. Running it again, as the Task Scheduler does twice a day:")
    second = _renew(layout, say)
    checks["The second run changed nothing and placed no order"] = (
        second.get("renewed") is False and len(ca.orders) == 1
    )
    earlier = sorted(layout.logs.glob("LetsEncrypt-*.log"))
    text = earlier[-1].read_text("utf-8") if earlier else ""
    say("4. The log of the first run:")
    for line in text.splitlines():
        say(f"   {line}")
    say("5. Checking the files and the ports independently:")
    for what, seen in checks.items():
        say(f"   {'yes' if seen else 'NO '}  {what}")
    good = all(checks.values())
    return {
        "exit_code": 0 if good else 1,
        "verdict": "All checks passed." if good else "A check failed.",
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


def _configure(server: mdaemon.Server, ca: CertificateAuthority) -> Path:
    """Write the config file, where the program looks for it; return its path."""
    layout = server.layout
    values = {
        "alternate-host-names": ALTERNATES,
        "agree-tos": "yes",
        "to": "postmaster@example.test",
        "allow-restart": "yes",
        "directory-url": ca.directory_url,
        "ca-bundle": ca.ca_bundle.absolute(),
        "store": f"pem:{layout.certificates}",
        "smtp-address": f"127.0.0.1:{server.smtp_port}",
        "endpoint": ",".join(server.endpoints.values()),
        "skip-port-check": "yes",
        # Nobody is asked there, and no other DNS for names that do not exist.
        "validation-dns": "127.0.0.1:1",
        "verify-timeout": "2",
    }
    lines = [f"{name} = {value}\n" for name, value in values.items()]
    file = layout.letsencrypt / FILE_NAME
    file.touch(mode=0o600)  # what others could change would be refused
    file.write_text("".join(["[letsencrypt-mdaemon]\n", *lines]), "utf-8")
    return file


def _arguments(words: Sequence[str], layout: Layout) -> list[str]:
    return [*words, "--mdaemon-dir", str(layout.folder)]


def _typed(words: Sequence[str], layout: Layout) -> list[str]:
    """Return a command line that works at a prompt in any folder."""
    if getattr(sys, "frozen", False):
        program = [sys.executable]
    elif (path := Path(sys.argv[0]).absolute()).name == "__main__.py":
        program = [sys.executable, "-m", path.parent.name]
    else:
        found = shutil.which(path.stem)
        is_on_path = found and Path(found).parent.samefile(path.parent)
        program = [path.stem if is_on_path else str(path)]
    return [*program, *_arguments(words, layout)]


def _quoted(command: Sequence[str]) -> str:
    if sys.platform == "win32":
        return subprocess.list2cmdline(command)
    return shlex.join(command)


def _renew(layout: Layout, say: Say) -> dict[str, Any]:
    """Run the program, show its messages, and return its report."""
    program = [sys.executable]
    if not getattr(sys, "frozen", False):
        # Only this very program, whatever is in the working directory.
        program += ["-I", "-X", "utf8", "-c", _START, str(Path(__file__).parents[2])]
    arguments = [*program, *_arguments(["renew"], layout), "--json"]
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
    say(f"   = {report.get('verdict') or f'exit code {process.returncode}'}")
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
