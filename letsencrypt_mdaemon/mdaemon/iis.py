"""Set the certificate of an IIS site's HTTPS bindings.

IIS keeps the bindings; `appcmd` lists them. http.sys keeps their certificates.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree as ET

from letsencrypt_mdaemon.errors import ConfigError, DeployError, Error
from letsencrypt_mdaemon.mdaemon.http_sys import HttpSys, refused
from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.state.memory import IIS, Change, Target
from letsencrypt_mdaemon.system import process
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography import x509

_log = logging.getLogger(__name__)

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
        self._http = HttpSys(run)

    def named(self) -> dict[Target, x509.Certificate | None]:
        """Return the known certificate of each binding."""
        return {
            target: self.known.get(found.thumbprint.upper()) if found else None
            for target, binding in self._targets(self._bindings()).items()
            for found in [self._http.show(binding.endpoint)]
        }

    def flags(self) -> dict[Target, int]:
        """Return the `sslFlags` of each binding."""
        bindings = self._targets(self._bindings())
        return {target: binding.flags for target, binding in bindings.items()}

    def bind(self, certificate: x509.Certificate, *, dry_run: bool) -> list[Change]:
        """Set this certificate for every HTTPS binding, or undo it if a tool fails."""
        after = thumbprint(certificate).lower()
        bindings = self._bindings()
        targets = self._targets(bindings)
        changes = [
            Change(target, 0, before, after)
            for target, binding in targets.items()
            if (before := str(self._http.show(binding.endpoint) or "")) != after
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
                now = str(self._http.show(binding.endpoint) or "")
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
            ended = self._run(
                self._appcmd, *arguments, failure=ConfigError, encoding=process.ANSI
            )
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

    def _make(self, binding: Binding | None, value: str) -> None:
        """Set a binding's certificate; without a binding, add or remove the new one."""
        if binding is not None:
            options = [name for bit, name in _OPTIONS.items() if binding.flags & bit]
            self._http.set(binding.endpoint, value, options)
            return
        # See "Bindings" in IIS's configuration reference.
        entry = f"bindings.[protocol='https',bindingInformation='{_NEW}']"
        change = f"/{'+' if value else '-'}{entry}"
        arguments = ("set", "site", f"/site.name:{self.name}", change)
        ended = self._run(
            self._appcmd, *arguments, failure=DeployError, encoding=process.ANSI
        )
        if ended.code:
            raise refused(self._appcmd, arguments, ended)


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
