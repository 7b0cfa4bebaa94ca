"""The https bindings of one IIS site, by the system's own tools.

IIS keeps the bindings, which `appcmd` lists; http.sys keeps the certificate of each
address and port, or host and port, which `netsh http` shows and sets. Both write in
the language of the system: what is read is known by its shape, never by a word.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from letsencrypt_mdaemon.errors import ConfigError, DeployError, Error
from letsencrypt_mdaemon.mdaemon.http_sys import (
    APPLICATION,
    HASH,
    STORE,
    Binding,
    Record,
    record,
    sites,
)
from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.state.memory import IIS, Change, Target
from letsencrypt_mdaemon.system import process
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography import x509

    from letsencrypt_mdaemon.system.process import Ended


_log = logging.getLogger(__name__)


_NEW = "*:443:"


class Run(Protocol):
    """`process.run`, or what stands in for it."""

    def __call__(
        self, program: Path, *arguments: str, failure: type[Error] = Error
    ) -> Ended:
        """Run a program to its end."""
        ...


class Site:
    """A site, and the certificates of its https bindings.

    Args:
        known: Certificates by thumbprint.
        add_binding: Whether a site without any https binding gets one.
    """

    def __init__(
        self,
        name: str,
        known: Mapping[str, x509.Certificate],
        *,
        add_binding: bool = False,
        run: Run = process.run,
    ) -> None:
        system = Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32"
        self.name = name
        self.known = known
        self.add_binding = add_binding
        self._run = run
        self._said: set[str] = set()
        self._appcmd = system / "inetsrv" / "appcmd.exe"
        self._netsh = system / "netsh.exe"

    def named(self) -> dict[Target, x509.Certificate | None]:
        """Return which known certificate each binding has.

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
        """Return the thumbprints of all certificates at http.sys, of other sites too.

        Raises:
            DeployError: If they cannot be told.
        """
        output = self._do(self._netsh, "http", "show", "sslcert")
        return {found.upper() for found in HASH.findall(output)}

    def bind(self, certificate: x509.Certificate, *, dry_run: bool) -> list[Change]:
        """Give every https binding this certificate. Done twice, it changes nothing.

        Raises:
            ConfigError: If there is no such site, or no IIS; nothing is changed.
            DeployError: If a tool fails; all is as it was, as far as that can be.
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
            # Last: before, the site would answer there without a certificate.
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
        """Take changes back, where the certificate is still what it became.

        Raises:
            ConfigError: If there is no such site, or no IIS.
            DeployError: If a tool fails.
        """
        bindings = self._bindings()
        targets = self._targets(bindings)
        # A run that went on where a killed one stopped has later ones of a target; what
        # was there at first counts.
        first = {change.target: change for change in reversed(changes)}
        for target, change in first.items():
            binding = targets.get(target)
            if target == self._list():
                if any(item.information == _NEW for item in bindings):
                    self._make(None, change.before)
            elif binding is None:
                _log.warning("%s is not there any more.", target)
            else:
                now = str(self._show(binding) or "")
                # Nothing at all is what a killed run left between its two steps.
                if now in {"", change.after} and now != change.before:
                    self._make(binding, change.before)

    def _take_back(self, changes: Sequence[Change]) -> None:
        try:
            self.restore(changes)
        except Error as exc:
            _log.error("IIS is not as it was: %s %s", exc.message, exc.hint)

    def _list(self) -> Target:
        """Return what a change of the bindings themselves is of."""
        return Target(IIS, self.name, "bindings", "")

    def _targets(self, bindings: Sequence[Binding]) -> dict[Target, Binding]:
        """Return those that get a certificate, one of each endpoint.

        If there are no bindings, it is the one to be added.
        """
        if not bindings and self.add_binding:
            bindings = (Binding(_NEW),)
        elif not bindings:
            name = printable(self.name)
            self._warn(f"{name} has no https binding; iis-add-binding makes one.")
        by_endpoint: dict[str, Binding] = {}
        for binding in bindings:
            if binding.is_central:
                place = printable(binding.information)
                self._warn(f"{place} is left alone: it uses IIS's central store.")
            else:
                by_endpoint.setdefault(binding.endpoint, binding)
        return {
            Target(IIS, self.name, f"https {item.information}", "sha1:lower"): item
            for item in by_endpoint.values()
        }

    def _warn(self, text: str) -> None:
        """Say it once, however often the site is looked at."""
        if text not in self._said:
            _log.warning("IIS: %s", text)
        self._said.add(text)

    def _bindings(self) -> tuple[Binding, ...]:
        arguments = ("list", "site", "/config:*", "/xml")
        try:
            ended = self._run(self._appcmd, *arguments, failure=ConfigError)
        except ConfigError as exc:
            hint = "Install IIS with its Management Scripts and Tools, or leave out "
            raise ConfigError(exc.message, hint=f"{hint}iis-site-name.") from exc
        try:
            found = sites(ended.output if ended.code == 0 else "")
        except ValueError as exc:
            message = f"{self._appcmd} does not list IIS's sites, but ended with "
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
        # That there is none ends with 1, as some failures do; "add" tells them apart,
        # as it replaces nothing.
        ended = self._run(
            self._netsh,
            "http",
            "show",
            "sslcert",
            binding.endpoint,
            failure=DeployError,
        )
        return record(ended.output)

    def _make(self, binding: Binding | None, value: str) -> None:
        """Give a binding a certificate; without one make or remove the new binding."""
        if binding is not None:
            self._set(binding, value)
            return
        # As IIS's configuration reference has it, at "Bindings".
        entry = f"bindings.[protocol='https',bindingInformation='{_NEW}']"
        change = f"/{'+' if value else '-'}{entry}"
        self._do(self._appcmd, "set", "site", f"/site.name:{self.name}", change)

    def _set(self, binding: Binding, value: str) -> None:
        # "update sslcert" is not known before Windows 10, and resets as much.
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
            message = f"{binding.endpoint} has {now or 'no certificate'} after netsh "
            message += f"set {wanted}."
            hint = "Look at: netsh http show sslcert."
            raise DeployError(message, hint=hint)
        lost = [line for line in before.rest if line not in now.rest] if before else []
        if lost:
            what = "%s: with the certificate this was reset: %s"
            _log.warning(what, binding.endpoint, printable("; ".join(lost), 500))

    def _do(self, program: Path, *arguments: str) -> str:
        ended = self._run(program, *arguments, failure=DeployError)
        if ended.code:
            message = f"{program.name} {' '.join(arguments)} ended with {ended.code}: "
            message += f"{printable(ended.output, 300)}"
            raise DeployError(message, hint="Run as an administrator.")
        return ended.output
