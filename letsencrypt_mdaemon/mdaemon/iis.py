"""Set the certificate of an IIS site's HTTPS bindings with the system's tools.

IIS keeps the bindings; `appcmd` lists them. http.sys keeps the certificate of each
address and port, or host and port; `netsh http` shows and sets it. Both tools write in
the system's language, so the program relies on the shape of their output, not on words.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import ConfigError, DeployError, Error
from letsencrypt_mdaemon.mdaemon.http_sys import (
    APPLICATION,
    HASH,
    STORE,
    Binding,
    Record,
    read_record,
    sites,
)
from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.state.memory import IIS, Change, Target
from letsencrypt_mdaemon.system import process
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography import x509

_log = logging.getLogger(__name__)

_NEW = "*:443:"


class Site:
    """A site, and the certificates of its HTTPS bindings.

    Args:
        known: Certificates by thumbprint.
        add_binding: Whether to add an HTTPS binding to a site without one.
    """

    def __init__(
        self,
        name: str,
        known: Mapping[str, x509.Certificate],
        *,
        add_binding: bool = False,
        run: process.Run = process.run,
    ) -> None:
        system = Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32"
        self.name = name
        self.known = known
        self.add_binding = add_binding
        self._run = run
        self._warned: set[str] = set()
        self._appcmd = system / "inetsrv" / "appcmd.exe"
        self._netsh = system / "netsh.exe"

    def named(self) -> dict[Target, x509.Certificate | None]:
        """Return the known certificate of each binding.

        Raises:
            ConfigError: If there is no such site, or no IIS.
        """
        shown = {
            target: self._show(item)
            for target, item in self._targets(self._bindings()).items()
        }
        return {
            target: self.known.get(found.thumbprint.upper()) if found else None
            for target, found in shown.items()
        }

    def references(self) -> set[str]:
        """Return the thumbprints of all certificates at http.sys, for every site.

        Raises:
            DeployError: If netsh fails.
        """
        output = self._do(self._netsh, "http", "show", "sslcert")
        return {found.upper() for found in HASH.findall(output)}

    def bind(self, certificate: x509.Certificate, *, dry_run: bool) -> list[Change]:
        """Set this certificate for every HTTPS binding.

        Raises:
            ConfigError: If there is no such site, or no IIS; nothing is changed.
            DeployError: If a tool fails; the changes are undone as far as possible.
        """
        after = thumbprint(certificate).lower()
        bindings = self._bindings()
        targets = self._targets(bindings)
        changes: list[Change] = []
        for target, binding in targets.items():
            before = self._show(binding)
            if str(before or "") != after:
                changes.append(Change(target, 0, str(before or ""), after))
        if targets and not bindings:
            # Last: until then, the port would have no certificate.
            changes.append(Change(self._list(), 0, "", f"https {_NEW}"))
        if dry_run:
            return changes
        for count, change in enumerate(changes, 1):
            try:
                self._make(targets.get(change.target), change.after)
            except Error:
                self._take_back(changes[:count])
                raise
        return changes

    def restore(self, changes: Sequence[Change]) -> None:
        """Undo the changes whose certificates nobody has changed since.

        Raises:
            ConfigError: If there is no such site, or no IIS.
            DeployError: If a tool fails.
        """
        bindings = self._bindings()
        targets = self._targets(bindings)
        # A run that continued a killed one may have two changes of a target; the first
        # one holds the original value.
        first = {change.target: change for change in reversed(changes)}
        for target, change in first.items():
            binding = targets.get(target)
            if target == self._list():
                if any(item.information == _NEW for item in bindings):
                    self._make(None, change.before)
            elif binding is None:
                _log.warning("Could not restore %s: it no longer exists.", target)
            else:
                now = str(self._show(binding) or "")
                # A killed run may have deleted the certificate and set none.
                if now in {"", change.after} and now != change.before:
                    self._make(binding, change.before)

    def _take_back(self, changes: Sequence[Change]) -> None:
        try:
            self.restore(changes)
        except Error as exc:
            _log.error("Could not restore IIS: %s %s", exc.message, exc.hint)

    def _list(self) -> Target:
        """Return the target for a change of the list of bindings."""
        return Target(IIS, self.name, "bindings", "")

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
            if binding.is_central:
                place = printable(binding.information)
                self._warn(
                    f"skipping {place}, which uses the central certificate store."
                )
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
            f"certstorename={store or STORE}",
            *binding.options,
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
