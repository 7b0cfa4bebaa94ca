"""Read the bindings of IIS and http.sys from the output of appcmd and netsh."""

from __future__ import annotations

import re
from typing import NamedTuple

APPLICATION = "{4dc3e181-e14b-4a21-b022-59fc669b0914}"
"""The application ID of IIS at http.sys."""

STORE = "MY"
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

HASH = re.compile(r":\s*([0-9a-fA-F]{40})\s*$", re.MULTILINE)

# After the application ID comes the store, then the other settings.
_APPLICATION = re.compile(
    r":\s*(\{[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\})[ \t]*\r?\n"
    r"[^\r\n]*:[ \t]*(\S*)[ \t]*(?:\r?\n|\Z)"
)


class Binding(NamedTuple):
    """An HTTPS binding of a site.

    Args:
        information: Address, port and host, as IIS writes them: `*:443:`.
        flags: IIS's `sslFlags`.
    """

    information: str
    flags: int = 0

    @property
    def is_central(self) -> bool:
        """Whether IIS uses its central certificate store."""
        return bool(self.flags & _CENTRAL)

    @property
    def endpoint(self) -> str:
        """Return the endpoint as `netsh` names it."""
        # An IPv6 address contains colons.
        address, port, host = self.information.rsplit(":", 2)
        if self.flags & _SNI:
            return f"hostnameport={host}:{port}"
        every = address in {"", "*"}
        return f"ipport={_EVERY_ADDRESS if every else address}:{port}"

    @property
    def options(self) -> list[str]:
        """Return the flags as options of `netsh`."""
        return [f"{name}=enable" for bit, name in _OPTIONS.items() if self.flags & bit]


class Record(NamedTuple):
    """The certificate of an endpoint at http.sys.

    Args:
        rest: The lines about other settings.
    """

    thumbprint: str
    application: str = APPLICATION
    store: str = STORE
    rest: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the thumbprint, and the store if it is not the usual one."""
        usual = self.store.upper() == STORE
        return self.thumbprint if usual else f"{self.thumbprint} {self.store}"


def sites(xml: str) -> dict[str, tuple[Binding, ...]]:
    """Return the HTTPS bindings of each site from `appcmd list site /config:* /xml`.

    Raises:
        ValueError: If the output is not XML.
    """
    from xml.etree import ElementTree as ET  # noqa: PLC0415 - seldom needed

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
    certificate, application = HASH.search(output), _APPLICATION.search(output)
    if certificate is None or application is None:
        return None
    rest = [" ".join(line.split()) for line in output[application.end() :].splitlines()]
    store = application[2]
    return Record(
        certificate[1].lower(),
        application[1].lower(),
        # "(null)" is the same in every language.
        STORE if store.startswith("(") or not store else store,
        tuple(line for line in rest if line),
    )
