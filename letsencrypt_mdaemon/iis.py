"""The certificate of an IIS site's https bindings, by Windows' own tools.

IIS keeps the bindings, http.sys their certificates; a new one counts for the next
connection, so that nothing has to be reloaded.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from xml.etree import ElementTree as ET

from letsencrypt_mdaemon import process
from letsencrypt_mdaemon.errors import ConfigError, DeployError, words
from letsencrypt_mdaemon.state import Change, Target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from letsencrypt_mdaemon.errors import Error

_log = logging.getLogger(__name__)

FILE = "IIS"
"""Stands for the INI file in a `Target`."""
APPLICATION = "{4dc3e181-e14b-4a21-b022-59fc669b0914}"
"""How IIS signs its bindings in http.sys."""
_SNI, _CENTRAL_STORE = 1, 2

# netsh's labels are in the system's language; only the shapes of values are safe.
_HASH = re.compile(r":\s*([0-9a-f]{40})\s*$", re.IGNORECASE | re.MULTILINE)
_GUID = re.compile(r"\{[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\}", re.IGNORECASE)


class Run(Protocol):
    """Runs a program: `process.run`."""

    def __call__(
        self, program: Path, *arguments: str, failure: type[Error] = ...
    ) -> process.Ended:
        """Run it to its end."""
        ...


@dataclass(frozen=True, slots=True)
class Binding:
    """One https binding of a site.

    Args:
        information: `ip:port:host`, as IIS writes it.
        flags: 1 = SNI, 2 = central certificate store.
    """

    information: str
    flags: int = 0

    @property
    def where(self) -> str:
        """How netsh calls it."""
        address, port, host = self.information.rsplit(":", 2)
        if self.flags & _SNI and host:
            return f"hostnameport={host}:{port}"
        return f"ipport={'0.0.0.0' if address in {'', '*'} else address}:{port}"  # noqa: S104 - what http.sys calls them all


@dataclass(frozen=True, slots=True)
class Bound:
    """What http.sys has for a binding.

    Args:
        is_usual: Whether the policy for clients' certificates is what a new one gets.
    """

    thumbprint: str
    application: str = APPLICATION
    store: str = "My"
    is_usual: bool = True


def parse_sites(xml: str) -> dict[str, list[Binding]]:
    """Return the https bindings of each site from appcmd's XML.

    Raises:
        ValueError: If it is something else.
    """
    try:
        document = ET.fromstring(xml)  # noqa: S314 - from a program of the system
    except ET.ParseError as exc:
        raise ValueError(str(exc)) from exc
    if document.tag != "appcmd":
        message = f"it is <{document.tag}>, not <appcmd>"
        raise ValueError(message)
    sites = {}
    for site in document.iter("SITE"):
        sites[site.attrib.get("SITE.NAME", "")] = [
            Binding(
                item.attrib["bindingInformation"], int(item.attrib.get("sslFlags", "0"))
            )
            for item in site.iter("binding")
            if item.attrib.get("protocol") == "https"
            and item.attrib.get("bindingInformation", "").count(":") > 1
        ]
    return sites


def parse_bound(output: str) -> Bound | None:
    """Return what `netsh http show sslcert` shows of one binding, in any language."""
    found = _HASH.search(output)
    guid = _GUID.search(output, found.end()) if found else None
    if not found or not guid:
        return None
    values = [
        line.rpartition(" : ")[2].strip()
        for line in output[guid.end() :].splitlines()
        if " : " in line
    ]
    store = values[0] if values and values[0] != "(null)" else "My"
    # Revocation is checked, not only from the cache; usage is checked; two numbers and
    # two lists; no mapper, no negotiation. The words for yes and no are unknown.
    match values[1:10]:
        case [yes, no, usage, "0", "0", "(null)", "(null)", mapper, negotiate]:
            is_usual = yes == usage and no == mapper == negotiate and yes != no
        case _:
            is_usual = False
    return Bound(found[1].lower(), guid[0].lower(), store, is_usual)


class Iis:
    """One site of this machine's IIS.

    Args:
        site: Its name.
        add: Whether a site without an https binding gets `*:443`.
        windows: Windows' folder; by default, what SystemRoot says.
    """

    def __init__(
        self,
        site: str,
        *,
        add: bool = False,
        run: Run = process.run,
        windows: Path | None = None,
    ) -> None:
        self.site = site
        self.add = add
        self._run = run
        root = windows or Path(os.environ.get("SystemRoot", r"C:\Windows"))  # noqa: SIM112 - Windows' spelling
        self._appcmd = root / "System32" / "inetsrv" / "appcmd.exe"
        self._netsh = root / "System32" / "netsh.exe"

    def named(self) -> dict[Target, str]:
        """Return the thumbprint of each binding that is ours to change.

        Raises:
            ConfigError: If there is no such site, or IIS cannot be asked.
        """
        found = {}
        for binding in self._bindings():
            bound = self._bound(binding)
            found[self._target(binding)] = bound.thumbprint if bound else ""
        return found

    def bind(self, thumbprint: str, *, dry_run: bool = False) -> list[Change]:
        """Give every binding the certificate; all of them, or none.

        Raises:
            ConfigError: If there is no such site, or IIS cannot be asked.
            DeployError: If a binding cannot be changed; all are as before then.
        """
        bindings = self._bindings()
        is_new = not bindings and self.add and not self._all()
        if is_new:
            bindings = [Binding("*:443:")]
        if not bindings:
            _log.warning("The IIS site %r has no https binding to change", self.site)
        changes: list[Change] = []
        try:
            for binding in bindings:
                bound = self._bound(binding)
                before = bound.thumbprint if bound else ""
                if before != thumbprint.lower():
                    if not dry_run:
                        self._replace(binding, bound, thumbprint.lower())
                    target = self._target(binding)
                    changes.append(Change(target, 0, before, thumbprint.lower()))
            if is_new and not dry_run:
                # Last: before, the site would answer at 443 without a certificate.
                self._add_binding()
        except DeployError:
            if not dry_run:
                self.restore(changes)
            raise
        return changes

    def restore(self, changes: Sequence[Change]) -> None:
        """Put former certificates back where ours still is.

        Raises:
            DeployError: If a binding cannot be changed.
        """
        if not changes:
            return
        bindings = {self._target(binding): binding for binding in self._bindings()}
        for change in changes:
            binding = bindings.get(change.target) or _read(change.target)
            bound = self._bound(binding)
            # Of a run killed between deleting and adding, the binding has none.
            is_cut = bound is None and change.before and change.target in bindings
            if is_cut or (bound and bound.thumbprint == change.after.lower()):
                self._replace(binding, bound, change.before)

    def _target(self, binding: Binding) -> Target:
        return Target(FILE, self.site, f"https {binding.information}", "sha1:lower")

    def _all(self) -> list[Binding]:
        """Return the https bindings, also those that are not ours to change."""
        if not self._appcmd.is_file():
            message = (
                f"{self._appcmd} is not there: IIS's management tools are missing."
            )
            hint = "Install IIS Management Scripts and Tools, or unset iis-site-name."
            raise ConfigError(message, hint=hint)
        ended = self._run(
            self._appcmd, "list", "site", "/config:*", "/xml", failure=ConfigError
        )
        try:
            sites: Mapping[str, list[Binding]] = parse_sites(ended.output)
        except ValueError as exc:
            message = f"appcmd (exit code {ended.code}) does not list IIS's sites: "
            message += f"{exc}: {words(ended.output, 200)}."
            hint = "Run as an administrator."
            raise ConfigError(message, hint=hint) from exc
        for name, bindings in sites.items():
            if name.lower() == self.site.lower():
                return bindings
        message = f"IIS has no site {self.site!r}; there are: "
        message += f"{', '.join(sites) or 'none'}."
        raise ConfigError(message, hint="Correct iis-site-name.")

    def _bindings(self) -> list[Binding]:
        ours = []
        for binding in self._all():
            if binding.flags & _CENTRAL_STORE:
                what = "IIS [%s] https %s is left alone: central certificate store"
                _log.warning(what, self.site, binding.information)
            else:
                ours.append(binding)
        return ours

    def _bound(self, binding: Binding) -> Bound | None:
        # Its exit code is 1 for nothing found and for all else.
        shown = self._run(
            self._netsh, "http", "show", "sslcert", binding.where, failure=DeployError
        )
        return parse_bound(shown.output)

    def _replace(self, binding: Binding, former: Bound | None, new: str) -> None:
        """Delete and add: `update sslcert` is missing in older Windows.

        Raises:
            DeployError: If it fails; the former one is back then.
        """
        if former and not former.is_usual:
            what = "%s: the policy for clients' certificates is reset to the usual one"
            _log.warning(what, self._target(binding))
        if former:
            self._do(self._netsh, "http", "delete", "sslcert", binding.where)
        if not new:
            return
        try:
            self._put(binding, former, new)
        except DeployError:
            if self._bound(binding):
                self._do(self._netsh, "http", "delete", "sslcert", binding.where)
            if former:
                self._put(binding, former, former.thumbprint)
            raise

    def _put(self, binding: Binding, former: Bound | None, thumbprint: str) -> None:
        like = former or Bound(thumbprint)
        self._do(
            *(self._netsh, "http", "add", "sslcert", binding.where),
            f"certhash={thumbprint}",
            f"appid={like.application}",
            f"certstorename={like.store}",
        )
        bound = self._bound(binding)
        if bound is None or bound.thumbprint != thumbprint:
            message = f"{self._target(binding)} does not have {thumbprint} afterwards."
            raise DeployError(message, hint="See netsh http show sslcert.")

    def _add_binding(self) -> None:
        self._do(
            *(self._appcmd, "set", "site", f"/site.name:{self.site}"),
            "/+bindings.[protocol='https',bindingInformation='*:443:']",
        )

    def _do(self, program: Path, *arguments: str) -> None:
        ended = self._run(program, *arguments, failure=DeployError)
        if ended.code:
            message = f"{program.name} {' '.join(arguments)} ended with {ended.code}: "
            message += f"{words(ended.output, 200)}."
            hint = "Run as an administrator, with the certificate in Windows' store."
            raise DeployError(message, hint=hint)


def _read(target: Target) -> Binding:
    """Return the binding of a change whose site has it no more."""
    information = target.key.removeprefix("https ")
    return Binding(information, _SNI if information.rpartition(":")[2] else 0)
