"""Show and set the certificates of ports at http.sys, by `netsh http`.

http.sys keeps the certificate of each address and port, or host and port, for IIS and
for others. `netsh` writes in the system's language, so the program relies on the shape
of its output, not on words.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.system import process
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_log = logging.getLogger(__name__)

APPLICATION = "{4dc3e181-e14b-4a21-b022-59fc669b0914}"
"""The application ID of IIS at http.sys."""

_STORE = "MY"

_HASH = re.compile(r":\s*([0-9a-fA-F]{40})\s*$", re.MULTILINE)

# After the application ID comes the store, then the other settings.
_APPLICATION = re.compile(
    r":\s*(\{[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\})[ \t]*\r?\n"
    r"[^\r\n]*:[ \t]*(\S*)[ \t]*(?:\r?\n|\Z)"
)

# The settings of client certificates, in the order in which `netsh` shows them after
# the store, and what is set to change their default.
_SETTINGS = (
    "verifyclientcertrevocation=disable",
    "verifyrevocationwithcachedclientcertonly=enable",
    "usagecheck=disable",
    "revocationfreshnesstime={}",
    "urlretrievaltimeout={}",
    "sslctlidentifier={}",
    "sslctlstorename={}",
    "dsmapperusage=enable",
    "clientcertnegotiation=enable",
)


class Record(NamedTuple):
    """The certificate of an endpoint at http.sys.

    Args:
        rest: The lines about other settings.
    """

    thumbprint: str
    application: str = APPLICATION
    store: str = _STORE
    rest: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the thumbprint, and the store if it is not the usual one."""
        usual = self.store.upper() == _STORE
        return self.thumbprint if usual else f"{self.thumbprint} {self.store}"


class HttpSys:
    """The certificates at http.sys.

    Raises:
        DeployError: By each method, if `netsh` fails.
    """

    def __init__(self, run: process.Run = process.run) -> None:
        self._run = run
        self._netsh = process.windows_system() / "netsh.exe"

    def references(self) -> set[str]:
        """Return the thumbprints of all certificates, of whatever program."""
        show = ("http", "show", "sslcert")
        ended = self._run(self._netsh, *show, failure=DeployError)
        found = {digest.upper() for digest in _HASH.findall(ended.output)}
        # The exit code is the same for "none" as for a failure.
        words = " ".join(ended.output.split())
        if ended.code and not found and not_found() not in words:
            raise refused(self._netsh, show, ended)
        return found

    def show(self, endpoint: str) -> Record | None:
        """Return the certificate of an endpoint.

        Args:
            endpoint: As `netsh` names it: `ipport=0.0.0.0:443`.
        """
        # The exit code is 1 for no certificate and for some failures. "add" tells them
        # apart, because it replaces nothing.
        show = ("http", "show", "sslcert", endpoint)
        return read_record(self._run(self._netsh, *show, failure=DeployError).output)

    def set(self, endpoint: str, value: str, switches: Sequence[str] = ()) -> None:
        """Set the certificate of an endpoint, and keep its other settings.

        Args:
            value: The thumbprint, and the store if it is not the usual one; "" removes
                the certificate.
            switches: The further settings to enable.
        """
        # "update sslcert" needs Windows 10, and resets the same settings.
        before = self.show(endpoint)
        if before:
            self._do("delete", endpoint)
        if not value:
            return
        digest, _, store = value.partition(" ")
        options = [
            f"certhash={digest}",
            f"appid={before.application if before else APPLICATION}",
            f"certstorename={store or _STORE}",
            *(f"{name}=enable" for name in switches),
        ]
        self._do("add", endpoint, *options)
        now = self._require(endpoint, digest)
        if before and (more := list(_differing(before, now))):
            # The first answer shows how this language says "disabled".
            self._do("delete", endpoint)
            self._do("add", endpoint, *options, *more)
            now = self._require(endpoint, digest)
        lost = [line for line in before.rest if line not in now.rest] if before else []
        if lost:
            what = "%s: the new certificate reset these settings: %s"
            _log.warning(what, endpoint, printable("; ".join(lost), 500))

    def _require(self, endpoint: str, digest: str) -> Record:
        now = self.show(endpoint)
        if now is None or now.thumbprint != digest:
            message = f"netsh set {digest} for {endpoint}, but http.sys shows "
            message += f"{now or 'no certificate'}."
            hint = "Check the output of: netsh http show sslcert."
            raise DeployError(message, hint=hint)
        return now

    def _do(self, verb: str, endpoint: str, *options: str) -> None:
        arguments = ("http", verb, "sslcert", endpoint, *options)
        ended = self._run(self._netsh, *arguments, failure=DeployError)
        if ended.code:
            raise refused(self._netsh, arguments, ended)


def refused(
    program: Path, arguments: Sequence[str], ended: process.Ended
) -> DeployError:
    """Return the error for a program of Windows that did not do what it should."""
    message = f"{program.name} {' '.join(arguments)} exited with {ended.code}: "
    message += f"{printable(ended.output, 300)}"
    return DeployError(message, hint="Run as an administrator.")


def _differing(before: Record, now: Record) -> Iterator[str]:
    """Yield the options that bring back what was set before; `now` has the defaults."""
    for option, was, line in zip(_SETTINGS, before.rest, now.rest, strict=False):
        label, _, value = was.partition(": ")
        if was != line and line.partition(": ")[0] == label:
            yield option.format(value)


def not_found() -> str:
    """Return how Windows says that something is not there, in its language."""
    if sys.platform == "win32":
        import ctypes  # noqa: PLC0415 - Windows only

        return " ".join(ctypes.FormatError(2).split())
    return "The system cannot find the file specified."


def read_record(output: str) -> Record | None:
    """Read one endpoint from `netsh http show sslcert`, in any language."""
    certificate, application = _HASH.search(output), _APPLICATION.search(output)
    if certificate is None or application is None:
        return None
    rest = [" ".join(line.split()) for line in output[application.end() :].splitlines()]
    store = application[2]
    return Record(
        certificate[1].lower(),
        application[1].lower(),
        # "(null)" is the same in every language.
        _STORE if store.startswith("(") or not store else store,
        tuple(line for line in rest if line),
    )
