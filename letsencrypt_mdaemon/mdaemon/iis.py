"""Set the certificate of an IIS site's HTTPS bindings with the system's tools.

IIS keeps the bindings; `appcmd` lists them. http.sys keeps the certificate of each
address and port, or host and port; `netsh http` shows and sets it. Both tools write in
the system's language, so the program relies on the shape of their output, not on words.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree as ET

from letsencrypt_mdaemon.errors import ConfigError, DeployError, Error
from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.state.memory import IIS, Change, Target
from letsencrypt_mdaemon.system import process
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cryptography import x509

_log = logging.getLogger(__name__)

APPLICATION = "{4dc3e181-e14b-4a21-b022-59fc669b0914}"
"""The application ID of IIS at http.sys."""

_STORE = "MY"
_EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - nothing is bound here

# IIS's sslFlags, since 8.0 and since Windows Server 2022. http.sys has them, too, but
# loses them with the certificate.
_SNI, _CENTRAL = 1, 2

_OPTIONS = {
    4: "disablehttp2",
    8: "disableocspstapling",
    16: "disablequic",
    32: "disabletls13",
    64: "disablelegacytls",
}

_HASH = re.compile(r":\s*([0-9a-fA-F]{40})\s*$", re.MULTILINE)

# After the application ID comes the store, then the other settings.
_APPLICATION = re.compile(
    r":\s*(\{[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\})[ \t]*\r?\n"
    r"[^\r\n]*:[ \t]*(\S*)[ \t]*(?:\r?\n|\Z)"
)

_NEW = "*:443:"


class Binding(NamedTuple):
    """An HTTPS binding of a site.

    Args:
        information: Address, port and host, as IIS writes them: `*:443:`.
        flags: IIS's `sslFlags`.
    """

    information: str
    flags: int = 0

    @property
    def endpoint(self) -> str:
        """Return the endpoint as `netsh` names it."""
        # An IPv6 address contains colons.
        address, port, host = self.information.rsplit(":", 2)
        if self.flags & _SNI:
            return f"hostnameport={host}:{port}"
        every = address in {"", "*"}
        return f"ipport={_EVERY_ADDRESS if every else address}:{port}"


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


class Site:
    """A site, and the certificates of its HTTPS bindings.

    Args:
        known: Certificates by thumbprint.
        add_binding: Whether to add an HTTPS binding to a site without one.

    Raises:
        ConfigError: By each method, if there is no such site, or no IIS.
        DeployError: By each method, if a tool fails.
    """

    def __init__(
        self,
        name: str,
        known: Mapping[str, x509.Certificate],
        *,
        add_binding: bool = False,
        run: process.Run = process.run,
    ) -> None:
        system = process.windows_system()
        self.name = name
        self.known = known
        self.add_binding = add_binding
        self._run = run
        # The target for a change of the list of bindings.
        self._list = Target(IIS, name, "bindings", "")
        self._warned: set[str] = set()
        self._appcmd = system / "inetsrv" / "appcmd.exe"
        self._netsh = system / "netsh.exe"

    def named(self) -> dict[Target, x509.Certificate | None]:
        """Return the known certificate of each binding."""
        return {
            target: self.known.get(found.thumbprint.upper()) if found else None
            for target, binding in self._targets(self._bindings()).items()
            for found in [self._show(binding)]
        }

    def references(self) -> set[str]:
        """Return the thumbprints of all certificates at http.sys, for every site."""
        output = self._do(self._netsh, "http", "show", "sslcert")
        return {found.upper() for found in _HASH.findall(output)}

    def bind(self, certificate: x509.Certificate, *, dry_run: bool) -> list[Change]:
        """Set this certificate for every HTTPS binding, or undo it if a tool fails."""
        after = thumbprint(certificate).lower()
        bindings = self._bindings()
        targets = self._targets(bindings)
        changes = [
            Change(target, 0, before, after)
            for target, binding in targets.items()
            if (before := str(self._show(binding) or "")) != after
        ]
        if targets and not bindings:
            # Last: until then, the port would have no certificate.
            changes.append(Change(self._list, 0, "", f"https {_NEW}"))
        if dry_run:
            return changes
        for count, change in enumerate(changes, 1):
            try:
                self._make(targets.get(change.target), change.after)
            except Error:
                try:
                    self.restore(changes[:count])
                except Error as exc:
                    _log.error("Could not restore IIS: %s %s", exc.message, exc.hint)
                raise
        return changes

    def restore(self, changes: Sequence[Change]) -> None:
        """Undo the changes whose certificates nobody has changed since."""
        bindings = self._bindings()
        targets = self._targets(bindings)
        # A run that continued a killed one may have two changes of a target; the first
        # one holds the original value.
        first = {change.target: change for change in reversed(changes)}
        for target, change in first.items():
            binding = targets.get(target)
            if target == self._list:
                if any(item.information == _NEW for item in bindings):
                    self._make(None, change.before)
            elif binding is None:
                _log.warning("Could not restore %s: it no longer exists.", target)
            else:
                now = str(self._show(binding) or "")
                # A killed run may have deleted the certificate and set none.
                if now in {"", change.after} and now != change.before:
                    self._make(binding, change.before)

    def _targets(self, bindings: Sequence[Binding]) -> dict[Target, Binding]:
        """Return the bindings that get a certificate, one for each endpoint.

        Without any bindings, this is the binding to add.
        """
        if not bindings and self.add_binding:
            bindings = (Binding(_NEW),)
        elif not bindings:
            name = printable(self.name)
            self._warn(f"{name} has no HTTPS binding; set iis-add-binding to add one.")
        by_endpoint: dict[str, Binding] = {}
        for binding in bindings:
            if binding.flags & _CENTRAL:
                skipped = f"skipping {printable(binding.information)}"
                self._warn(f"{skipped}, which uses the central certificate store.")
            else:
                by_endpoint.setdefault(binding.endpoint, binding)
        return {
            Target(IIS, self.name, f"https {item.information}", "sha1:lower"): item
            for item in by_endpoint.values()
        }

    def _warn(self, text: str) -> None:
        """Log a warning once, however often the site is read."""
        if text not in self._warned:
            _log.warning("IIS: %s", text)
        self._warned.add(text)

    def _bindings(self) -> tuple[Binding, ...]:
        arguments = ("list", "site", "/config:*", "/xml")
        try:
            ended = self._run(self._appcmd, *arguments, failure=ConfigError)
        except ConfigError as exc:
            hint = "Install IIS with its Management Scripts and Tools, or remove "
            raise ConfigError(exc.message, hint=f"{hint}iis-site-name.") from exc
        try:
            found = sites(ended.output if ended.code == 0 else "")
        except ValueError as exc:
            message = f"Could not list IIS's sites: {self._appcmd} exited with "
            message += f"{ended.code}: {printable(ended.output, 300)!r}."
            hint = "Run it by hand as administrator: appcmd list site."
            raise ConfigError(message, hint=hint) from exc
        by_name = {name.lower(): bindings for name, bindings in found.items()}
        if self.name.lower() not in by_name:
            message = f"IIS has no site {printable(self.name)!r}. It has: "
            message += f"{', '.join(map(printable, sorted(found))) or 'none'}."
            raise ConfigError(message, hint="Correct iis-site-name.")
        return by_name[self.name.lower()]

    def _show(self, binding: Binding) -> Record | None:
        # The exit code is 1 for no certificate and for some failures. "add" tells them
        # apart, because it replaces nothing.
        show = ("http", "show", "sslcert", binding.endpoint)
        return read_record(self._run(self._netsh, *show, failure=DeployError).output)

    def _make(self, binding: Binding | None, value: str) -> None:
        """Set a binding's certificate; without a binding, add or remove the new one."""
        if binding is not None:
            self._set(binding, value)
            return
        # See "Bindings" in IIS's configuration reference.
        entry = f"bindings.[protocol='https',bindingInformation='{_NEW}']"
        change = f"/{'+' if value else '-'}{entry}"
        self._do(self._appcmd, "set", "site", f"/site.name:{self.name}", change)

    def _set(self, binding: Binding, value: str) -> None:
        # "update sslcert" needs Windows 10, and resets the same settings.
        wanted, _, store = value.partition(" ")
        before = self._show(binding)
        http = (self._netsh, "http")
        if before:
            self._do(*http, "delete", "sslcert", binding.endpoint)
        if not wanted:
            return
        self._do(
            *(*http, "add", "sslcert", binding.endpoint),
            f"certhash={wanted}",
            f"appid={before.application if before else APPLICATION}",
            f"certstorename={store or _STORE}",
            *(
                f"{name}=enable"
                for bit, name in _OPTIONS.items()
                if binding.flags & bit
            ),
        )
        now = self._show(binding)
        if now is None or now.thumbprint != wanted:
            message = f"netsh set {wanted} for {binding.endpoint}, but http.sys shows "
            message += f"{now or 'no certificate'}."
            hint = "Check the output of: netsh http show sslcert."
            raise DeployError(message, hint=hint)
        lost = [line for line in before.rest if line not in now.rest] if before else []
        if lost:
            what = "%s: the new certificate reset these settings: %s"
            _log.warning(what, binding.endpoint, printable("; ".join(lost), 500))

    def _do(self, program: Path, *arguments: str) -> str:
        ended = self._run(program, *arguments, failure=DeployError)
        if ended.code:
            message = f"{program.name} {' '.join(arguments)} exited with {ended.code}: "
            message += f"{printable(ended.output, 300)}"
            raise DeployError(message, hint="Run as an administrator.")
        return ended.output


def sites(xml: str) -> dict[str, tuple[Binding, ...]]:
    """Return the HTTPS bindings of each site from `appcmd list site /config:* /xml`.

    Raises:
        ValueError: If the output is not XML.
    """
    try:
        # Windows' own program wrote it, from settings of administrators.
        document = ET.fromstring(xml.strip())  # noqa: S314
    except ET.ParseError as exc:
        raise ValueError(f"not XML: {exc}") from exc
    return {
        site.get("name", ""): tuple(
            Binding(found.get("bindingInformation", ""), int(found.get("sslFlags", 0)))
            for found in site.iterfind("bindings/binding")
            if found.get("protocol") == "https"
            and found.get("bindingInformation", "").count(":") > 1
        )
        for site in document.iterfind("SITE/site")
    }


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
