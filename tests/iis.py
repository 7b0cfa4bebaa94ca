"""A fake of IIS: appcmd and netsh over bindings kept in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

from letsencrypt_mdaemon.errors import Error
from letsencrypt_mdaemon.process import Ended

if TYPE_CHECKING:
    from pathlib import Path

GERMAN = """
SSL-Zertifikatbindungen:
-------------------------

    IP:Port                      : {where}
    Zertifikathash               : {hash}
    Anwendungs-ID                : {appid}
    Zertifikatspeichername       : My
    Clientzertifikatsperrung überprüfen : Aktiviert
    Zum Überprüfen der Sperrung nur Clientzertifikat im Cache : Deaktiviert
    Verwendungsüberprüfung       : Aktiviert
    Sperraktualisierungszeit     : 0
    Zeitlimit für URL-Abruf      : 0
    Steuerelement-ID             : (null)
    Steuerelement-Speichername   : (null)
    DS-Zuordnungsverwendung      : Deaktiviert
    Clientzertifikat aushandeln  : {negotiate}
"""


@dataclass
class FakeIis:
    """Sites' https bindings, http.sys' certificates, and every call.

    Args:
        windows: Its folder; appcmd.exe is made there.
        refused: Hashes that cannot be added.
    """

    windows: Path
    sites: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    bound: dict[str, dict[str, str]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    negotiate: str = "Deaktiviert"
    calls: list[tuple[str, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Install appcmd."""
        folder = self.windows / "System32" / "inetsrv"
        folder.mkdir(parents=True)
        (folder / "appcmd.exe").touch()

    def __call__(
        self, program: Path, *arguments: str, failure: type[Error] = Error
    ) -> Ended:
        """Do what the program would do."""
        assert issubclass(failure, Error)
        self.calls.append((program.name, *arguments))
        if program.name == "appcmd.exe":
            return self._appcmd(*arguments)
        verb, where = arguments[1], arguments[3].partition("=")[2]
        given = dict(item.split("=", 1) for item in arguments[4:])
        if verb == "show" and where in self.bound:
            shown = self.bound[where]
            return Ended(
                0,
                GERMAN.format(
                    where=where,
                    hash=shown["certhash"],
                    appid=shown["appid"],
                    negotiate=self.negotiate,
                ),
            )
        if verb == "delete" and where in self.bound:
            del self.bound[where]
            return Ended(0, "")
        is_free = where not in self.bound
        if verb == "add" and is_free and given["certhash"] not in self.refused:
            self.bound[where] = given
            return Ended(0, "")
        return Ended(1, "Das System kann die angegebene Datei nicht finden.")

    def _appcmd(self, *arguments: str) -> Ended:
        if arguments[0] == "set":
            name = arguments[2].removeprefix("/site.name:")
            self.sites[name].append(("*:443:", 0))
            return Ended(0, "")
        sites = "".join(
            f"<SITE SITE.NAME={quoteattr(name)} SITE.ID='1'><site><bindings>"
            "<binding protocol='http' bindingInformation='*:80:' sslFlags='0' />"
            + "".join(
                f"<binding protocol='https' bindingInformation='{information}' "
                f"sslFlags='{flags}' />"
                for information, flags in bindings
            )
            + "</bindings></site></SITE>"
            for name, bindings in self.sites.items()
        )
        return Ended(
            0, f'<?xml version="1.0" encoding="UTF-8"?><appcmd>{sites}</appcmd>'
        )
