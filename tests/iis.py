"""A small IIS: what `appcmd` and `netsh` would say of it, and do to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import quoteattr

from letsencrypt_mdaemon.errors import Error
from letsencrypt_mdaemon.mdaemon.http_sys import APPLICATION, not_found
from letsencrypt_mdaemon.system.process import ANSI, Ended

ENGLISH = """
SSL Certificate bindings:
-------------------------

    {kind:<29}: {place}
    Certificate Hash             : {hash}
    Application ID               : {application}
    Certificate Store Name       : {store}
    Verify Client Certificate Revocation : Enabled
    Verify Revocation Using Cached Client Certificate Only : Disabled
    Usage Check                  : Enabled
    Revocation Freshness Time    : {freshness}
    URL Retrieval Timeout        : 0
    Ctl Identifier               : (null)
    Ctl Store Name               : {trusted}
    DS Mapper Usage              : {mapper}
    Negotiate Client Certificate : {negotiate}
    Reject Connections           : {reject}
    Disable HTTP2                : Not Set

"""
GERMAN = """
SSL-Zertifikatbindungen:
-------------------------

    {kind:<29}: {place}
    Zertifikathash               : {hash}
    Anwendungs-ID                : {application}
    Zertifikatspeichername       : {store}
    Clientzertifikatsperre überprüfen : Aktiviert
    Sperre nur mit zwischengespeichertem Clientzertifikat überprüfen : Deaktiviert
    Verwendungsüberprüfung       : Aktiviert
    Aktualisierungszeit der Sperre : {freshness}
    Zeitlimit für URL-Abruf      : 0
    Steuerelement-ID             : (null)
    Steuerelementspeichername    : {trusted}
    DS-Zuordnungsverwendung      : {mapper}
    Clientzertifikat aushandeln  : {negotiate}
    Verbindungen ablehnen        : {reject}
    HTTP2 deaktivieren           : Nicht festgelegt

"""
# The last line is in the language of Windows, or in the one of Wine.
NOTHING = f"\nSSL Certificate bindings:\n\n{not_found()}\n"


@dataclass(slots=True)
class Entry:
    """What http.sys has at one endpoint."""

    hash: str
    application: str = APPLICATION
    store: str = "MY"
    negotiate: bool = False
    mapper: bool = False
    freshness: int = 0
    trusted: str = "(null)"
    reject: bool = False
    options: tuple[str, ...] = ()


def _nothing_happens(_: str) -> None:
    pass


@dataclass(slots=True)
class Iis:
    """An IIS: stands in for `process.run`.

    Args:
        sites: The bindings of each site: protocol, information, flags.
        entries: The certificates, as `netsh` names their places.
        shown: How `netsh` writes one.
        on: Called with each command that changes something, before it does.
        refused: Commands that contain this text fail.
        calls: What changed something, or tried.
    """

    sites: dict[str, list[tuple[str, str, int]]] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    shown: str = ENGLISH
    on: Callable[[str], None] = _nothing_happens
    refused: str = "\0"
    calls: list[str] = field(default_factory=list)

    def __call__(
        self,
        program: Path,
        *arguments: str,
        given: str = "",
        failure: type[Error] = Error,
        encoding: str = "oem",
    ) -> Ended:
        """Do what the program would do."""
        assert not given
        tool = re.split(r"[\\/]", str(program))[-1]
        # Through a pipe, appcmd writes in the code page of windows, netsh in DOS's.
        assert (encoding == ANSI) == (tool == "appcmd.exe")
        if tool == "appcmd.exe" and not self.sites:
            message = f"Could not run {program}: No such file."
            raise failure(message)
        command = " ".join([tool, *arguments])
        if " list " in command:
            return Ended(0, self._list())
        if " show " in command:
            return self._show(*arguments[3:] or self.entries)
        self.calls.append(command)
        self.on(command)
        if self.refused in command:
            return Ended(1, "The requested operation requires elevation.")
        if tool == "appcmd.exe":
            return self._set_site(*arguments[2:])
        return self._set_entry(arguments[1], *arguments[3:])

    def _list(self) -> str:
        sites = "".join(
            f"<SITE SITE.NAME={quoteattr(name)} SITE.ID='1' state='Started'>"
            f"<site name={quoteattr(name)} id='1'><bindings>"
            + "".join(
                f"<binding protocol='{protocol}' bindingInformation='{information}'"
                + (f" sslFlags='{flags}' />" if flags else " />")
                for protocol, information, flags in bindings
            )
            + "</bindings><limits /></site></SITE>"
            for name, bindings in self.sites.items()
        )
        return f"<?xml version='1.0' encoding='UTF-8'?>\r\n<appcmd>{sites}</appcmd>\r\n"

    def _show(self, *endpoints: str) -> Ended:
        found = {
            place: self.entries[place] for place in endpoints if place in self.entries
        }
        if not found:
            return Ended(1, NOTHING)
        labels = {"ipport": "IP:port", "hostnameport": "Hostname:port"}
        text = "".join(
            self.shown.format(
                kind=labels[place.partition("=")[0]],
                place=place.partition("=")[2],
                hash=entry.hash,
                application=entry.application,
                store=entry.store,
                freshness=entry.freshness,
                trusted=entry.trusted,
                **{
                    name: self._word(on=getattr(entry, name))
                    for name in ("negotiate", "mapper", "reject")
                },
            )
            for place, entry in found.items()
        )
        return Ended(0, text)

    def _word(self, *, on: bool) -> str:
        words = ["Deaktiviert", "Aktiviert"] if "Zert" in self.shown else []
        return (words or ["Disabled", "Enabled"])[on]

    def _set_site(self, site: str, change: str) -> Ended:
        bindings = self.sites[site.removeprefix("/site.name:")]
        found = re.fullmatch(
            r"/([+-])bindings\.\[protocol='(\w+)',bindingInformation='(.*)'\]", change
        )
        assert found, change
        binding = (found[2], found[3], 0)
        if found[1] == "+":
            bindings.append(binding)
        else:
            bindings.remove(binding)
        return Ended(0, "SITE object changed")

    def _set_entry(self, verb: str, endpoint: str, *options: str) -> Ended:
        if verb == "delete":
            return Ended(0 if self.entries.pop(endpoint, None) else 1, "")
        assert verb == "add", verb
        if endpoint in self.entries:
            return Ended(1, "Error: 183")
        given = dict(option.split("=", 1) for option in options)
        self.entries[endpoint] = Entry(
            given.pop("certhash"),
            given.pop("appid"),
            given.pop("certstorename"),
            negotiate=given.pop("clientcertnegotiation", "") == "enable",
            mapper=given.pop("dsmapperusage", "") == "enable",
            freshness=int(given.pop("revocationfreshnesstime", "0")),
            trusted=given.pop("sslctlstorename", "(null)"),
            options=tuple(f"{name}={value}" for name, value in given.items()),
        )
        return Ended(0, "SSL Certificate successfully added")
