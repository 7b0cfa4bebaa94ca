"""A test file in the webroot, fetched as the CA would fetch a token."""

from __future__ import annotations

import logging
import secrets
import socket
import time
from dataclasses import replace
from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from letsencrypt_mdaemon.doctor import validator
from letsencrypt_mdaemon.doctor.findings import Code, Finding
from letsencrypt_mdaemon.doctor.validator import Fetched, Validator
from letsencrypt_mdaemon.errors import Error
from letsencrypt_mdaemon.system.disk import read_limited
from letsencrypt_mdaemon.system.parallel import ask_all

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager, ExitStack
    from pathlib import Path

    from letsencrypt_mdaemon.doctor.findings import Notes
    from letsencrypt_mdaemon.doctor.validator import AddressOf, Dial

_log = logging.getLogger(__name__)

OVERTIME_SECONDS = 1.0
"""Seconds more for threads that cannot be stopped in time."""
LOCALHOST = "127.0.0.1"
_NO_CONNECTION = {Code.PORT80_REFUSED, Code.PORT80_TIMEOUT}
_WRONG_CONTENT = {
    *(Code.HTTP_STATUS, Code.WEBROOT_NOT_SERVED, Code.BODY_TOO_LONG),
    *(Code.BODY_HTML_LOGIN_PAGE, Code.BODY_BOM),
}
_STATIC = (".txt", ".css", ".js", ".ico", ".png", ".gif", ".jpg", ".svg", ".html")
WEBMAIL_PORTS = (3000, 443)
"""MDaemon's usual ports for webmail, without and with TLS."""
_NOT_SEEN = {Code.UNFINISHED, Code.HAIRPIN_UNKNOWN, Code.PROXY_INTERCEPTS}


class Solver(Protocol):
    """Puts tokens below a folder that the web server serves."""

    folder: Path

    def present(self, tokens: Mapping[str, str]) -> AbstractContextManager[None]:
        """Serve each token's key authorization until the context ends."""
        ...


class Probe:
    """A file of ours in the place of a CA's token, and what fetching it shows.

    Args:
        address_of: Returns the address of a redirect's host.
        dial: How to connect; tests connect elsewhere.
        webmail: Further ports that may be webmail's.
    """

    def __init__(
        self,
        solver: Solver,
        address_of: AddressOf,
        dial: Dial,
        webmail: Sequence[int] = (),
    ) -> None:
        self._ports = tuple(dict.fromkeys([*WEBMAIL_PORTS, *webmail]))
        self._folder = solver.folder
        self._solver = solver
        self._dial = dial
        self._validator = Validator(address_of, dial)
        self._token = secrets.token_urlsafe(32)
        # RFC 8555, 8.3; the text is as long as a key authorization (8.1).
        self._path = f"/.well-known/acme-challenge/{self._token}"
        self._text = f"{self._token}.{secrets.token_urlsafe(32)}"

    def show(self, exits: ExitStack) -> Finding | None:
        """Serve the file until the exits, and read it back; return why that fails."""
        file = self._folder / self._path.removeprefix("/")
        try:
            exits.enter_context(self._solver.present({self._token: self._text}))
            if read_limited(file, 1 << 10) == self._text.encode():
                return None
            seen = f"{file} does not contain what was just written into it"
        except Error as exc:
            seen = exc.message
        except (OSError, ValueError) as exc:
            seen = f"could not read back {file}: {exc}"
        return Finding(kind=Code.WEBROOT_NOT_WRITABLE, seen=seen)

    def fetch(
        self, name: str, addresses: Sequence[str], notes: Notes, deadline: float
    ) -> None:
        """Fetch the file at every address of a name; note where it is, or why not."""

        def fetch(address: str) -> Fetched:
            try:
                return self._fetch(name, address, deadline)
            except Exception as exc:  # noqa: BLE001 - the other addresses count
                _log.debug("%s at %s", name, address, exc_info=True)
                return _unfinished(f"{name} at {address}: {type(exc).__name__}")

        left = deadline - time.monotonic()
        answers = ask_all(fetch, addresses, timeout=left + OVERTIME_SECONDS / 2)
        late = {item: _unfinished(f"{name} at {item}: no answer") for item in addresses}
        found = late | answers
        notes.served += [x for x, fetched in found.items() if not fetched.finding]
        urls = [found[address].urls for address in notes.served]
        kind = Code.WORLDCLIENT_HTTPS_REDIRECT
        notes.findings += [
            Finding(kind=kind, seen=f"{row[0]} redirects to HTTPS")
            for row in urls
            if row[-1].startswith("https:")
        ][:1]
        by_ipv4 = {address for address in addresses if ":" not in address}
        four_is_good = not by_ipv4.isdisjoint(notes.served)
        here = found.get(LOCALHOST)
        missing = _note_missing(name, found, notes)
        for address, fetched in found.items():
            finding = fetched.finding
            if finding is None or address in missing:
                continue
            first = len(fetched.urls) == 1
            lost = finding.kind in _NO_CONNECTION and first
            wrong = finding.kind in _WRONG_CONTENT
            if ":" in address and lost and by_ipv4:
                finding = replace(finding, kind=Code.AAAA_UNREACHABLE)
            elif ":" in address and wrong and four_is_good:
                finding = replace(finding, kind=Code.AAAA_DIFFERENT_CONTENT)
            elif better := self._about_extension(name, address, fetched, deadline):
                finding = replace(finding, kind=better)
            elif first and (lost or wrong) and not _is_own(address):
                here = here or fetch(LOCALHOST)
                if here.finding is None:
                    kind = Code.HAIRPIN_UNKNOWN if lost else Code.ADDR_NOT_OURS
                    seen = f"{finding.seen}; this machine itself serves the file"
                    finding = replace(finding, kind=kind, seen=seen)
            notes.findings.append(finding)

    def port80(self, name: str, deadline: float) -> list[Finding]:
        """Return why this machine itself does not serve the file, if so."""
        fetched = self._fetch(name, LOCALHOST, deadline)
        finding = fetched.finding
        if finding is None:
            return []
        seen = f"port 80 of this machine: {finding.seen}"
        finding = replace(finding, seen=seen)
        silent = finding.kind in (Code.PORT80_REFUSED, Code.HTTP_NO_ANSWER)
        if silent and len(fetched.urls) == 1:
            return self._webmail(finding, deadline)
        if better := self._about_extension(name, LOCALHOST, fetched, deadline):
            finding = replace(finding, kind=better)
        elif finding.kind in _WRONG_CONTENT:
            finding = replace(finding, kind=Code.WEBROOT_NOT_SERVED)
        return [finding]

    def _webmail(self, finding: Finding, deadline: float) -> list[Finding]:
        """Return why port 80 is silent, by the mode of webmail on its other ports."""
        speak = {
            port: validator.protocol(self._dial, LOCALHOST, port, deadline)
            for port in self._ports
        }
        modes = {"http": Code.WEBMAIL_OTHER_PORT, "https": Code.WEBMAIL_HTTPS_ONLY}
        for scheme, kind in modes.items():
            if ports := [port for port in self._ports if speak[port] == scheme]:
                seen = f"{finding.seen}; port {ports[0]} of this machine answers in "
                seen += scheme.upper()
                return [replace(finding, kind=kind, seen=seen)]
        return [finding]

    def _fetch(self, name: str, address: str, deadline: float) -> Fetched:
        content = self._text.encode()
        return self._validator.fetch(name, address, self._path, content, deadline)

    def _about_extension(
        self, name: str, address: str, fetched: Fetched, deadline: float
    ) -> Code | None:
        """Return why the file is not found if a file with an extension is."""
        not_found = fetched.status == HTTPStatus.NOT_FOUND
        sample = _sample(self._folder) if not_found else None
        if sample is None:
            return None
        path, limit = f"/{quote(sample.name)}", validator.MAX_ANSWER_BYTES
        try:
            content = read_limited(sample, limit)
        except (OSError, ValueError):
            return None
        other = self._validator.fetch(name, address, path, content, deadline)
        limit = validator.MAX_BODY_BYTES
        if other.status != HTTPStatus.OK or other.body[:limit] != content[:limit]:
            return None
        is_iis = "Microsoft-IIS" in fetched.server
        return Code.IIS_MIME if is_iis else Code.HTTP_404_EXTENSIONLESS


def _note_missing(name: str, found: Mapping[str, Fetched], notes: Notes) -> set[str]:
    """Note the addresses that do not serve the file, beside others of their kind.

    They are other machines: nodes of a cluster, or what a load balancer leads to.
    """
    families = {":" in address for address in notes.served}
    missing = {
        address: fetched.finding.code
        for address, fetched in found.items()
        if fetched.finding and fetched.finding.kind not in _NOT_SEEN
        if (":" in address) in families
    }
    if missing:
        listed = ", ".join(
            f"{address} ({missing[address]})" for address in sorted(missing)
        )
        seen = f"{name}: {len(notes.served)} of its {len(found)} addresses serve the "
        notes.add(Code.ADDR_NOT_ALL_SERVE, f"{seen}test file; not {listed}")
    return set(missing)


def _unfinished(seen: str) -> Fetched:
    return Fetched(finding=Finding(kind=Code.UNFINISHED, seen=seen), urls=())


def _is_own(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _sample(webroot: Path) -> Path | None:
    """Return a small file with an extension that the web server should serve."""
    try:
        files = [
            path
            for path in islice(webroot.iterdir(), 1000)
            if path.suffix.lower() in _STATIC
            and path.is_file()
            and 0 < path.stat().st_size < validator.MAX_ANSWER_BYTES
        ]
    except OSError:
        return None
    return min(files, key=lambda path: _STATIC.index(path.suffix.lower()), default=None)
