"""What the doctor finds: each code with what it means to the CA and what to do."""

# ruff: noqa: ISC004, PIE796 - `Code.__new__` keeps codes with the same texts apart

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Self

from letsencrypt_mdaemon.text import CHOOSE_ONCE, printable

MAX_SEEN_CHARACTERS = 600
_NOT_THE_FILE = "Validation fails (unauthorized): the answer is not the token file."
_NOT_FOLLOWED = "Validation fails (connection): the CA does not follow the redirect."
_REDIRECT = (
    "Exclude /.well-known/acme-challenge/ from the redirect, or redirect to http:// or "
    "https:// at a public name on the usual port, with status 301, 302, 307 or 308.",
    _NOT_FOLLOWED,
)


class Weight(StrEnum):
    """How bad a finding is."""

    FAILURE = "failure"  # the name fails, wherever the CA connects from
    WARNING = "warning"  # the name fails, as seen from this machine
    NOTE = "note"  # nothing is wrong


class Code(Enum):
    """What was found; programs may rely on the spelling, such as `dns-nxdomain`.

    Attributes:
        change: What to change in MDaemon, IIS, DNS or the firewall.
        ca: What the CA will do; empty if it does not notice.
    """

    change: str
    ca: str
    weight: Weight

    def __new__(
        cls, change: str, ca: str = "", weight: Weight = Weight.WARNING
    ) -> Self:
        """Let codes with the same advice differ."""
        code = object.__new__(cls)
        code._value_ = len(cls.__members__)
        code.change, code.ca, code.weight = change, ca, weight
        return code

    def __str__(self) -> str:
        return self.name.lower().replace("_", "-")

    NAME_NOT_PUBLIC_TLD = (
        "Use a name in a public domain of yours: correct the SMTP host name in "
        "MDaemon's Domain Manager (Host name & IP), or remove the name from "
        "alternate-host-names.",
        "A public CA refuses the order (rejectedIdentifier).",
    )
    TOO_MANY_NAMES = (
        "Remove names from alternate-host-names.",
        "The CA refuses the whole order.",
    )
    DNS_NXDOMAIN = (
        "Add an A record (and AAAA if the server has IPv6) to the domain's public DNS, "
        "or remove the name from the settings.",
        "Validation fails (dns): NXDOMAIN.",
    )
    DNS_SERVFAIL = (
        "Check the domain's DNS servers and DNSSEC, for example at dnsviz.net. A "
        "common cause is a DS record whose key is gone.",
        "Validation fails (dns, or caa): SERVFAIL.",
    )
    DNS_NO_ADDRESS = (
        "Add an A record (and AAAA if the server has IPv6) to the domain's public DNS.",
        "Validation fails (dns): the name has no address.",
    )
    DNS_UNREACHABLE = (
        "Correct the DNS settings of this machine: it must find the CA, too.",
        "Unknown: the CA uses DNS servers of its own.",
    )
    ADDR_PRIVATE = (
        "Publish the server's public address. If DNS differs inside and outside your "
        "network, correct the outside one.",
        "Validation fails: the CA does not connect to private addresses.",
    )
    ADDR_NOT_OURS = (
        "Correct the DNS record, or forward port 80 from the router to this machine.",
        _NOT_THE_FILE,
    )
    ADDR_MANY = (
        "Publish only the addresses of this server.",
        "The CA may connect to any of them, so all must serve the token file.",
        Weight.NOTE,
    )
    ADDR_NOT_ALL_SERVE = (
        "In a cluster, send /.well-known/acme-challenge/ from all addresses to the "
        "server that renews, the primary one. Else publish only this server's.",
        "Validation fails if the CA connects to one of the others: it chooses any.",
    )
    CAA_FORBIDS = (
        "Add a CAA record with this CA's issuer domain, or remove the CAA records.",
        "Validation fails (caa): the CA must not issue for the name.",
    )
    CAA_ACCOUNTURI = (
        "Set accounturi in the CAA record to the URL of this account.",
        "Validation fails (caa): the CA must not issue to this account.",
    )
    CAA_METHOD = (
        "Add http-01 to validationmethods in the CAA record.",
        "Validation fails (caa): the CA must not validate by http-01.",
    )
    AAAA_UNREACHABLE = (
        "Open port 80 for IPv6 in webmail and firewall, or remove the AAAA record.",
        "The CA connects by IPv6 first. Let's Encrypt then tries IPv4, but not after a "
        "redirect; with other CAs validation fails.",
    )
    AAAA_DIFFERENT_CONTENT = (
        "Correct or remove the AAAA record, or let webmail listen on IPv6, too.",
        "Validation fails: the CA connects by IPv6 first, and that answer counts.",
    )
    PORT80_REFUSED = (
        "Let webmail bind to port 80, and forward port 80 to this machine.",
        "Validation fails (connection): connection refused.",
    )
    PORT80_TIMEOUT = (
        "Forward port 80 to this machine, and open it to all countries: in the "
        "firewall, in Location Screening and in Dynamic Screening.",
        "Validation fails (connection): timeout during connect, likely a firewall.",
    )
    HAIRPIN_UNKNOWN = (
        "Test the name from outside, for example at letsdebug.net. Many routers do not "
        "connect the inside to their own public address.",
        "Unknown: the CA may reach an address that this machine cannot.",
    )
    PROXY_INTERCEPTS = (
        "Exclude port 80 from this machine's proxy, or test the name at letsdebug.net.",
        "Unknown: a proxy on our side answered, not the server.",
    )
    HTTP_NO_ANSWER = (
        "Check which program listens on port 80, and whether Dynamic Screening or a "
        "firewall cuts connections.",
        "Validation fails (connection): no answer, or none in HTTP.",
    )
    HTTP_STATUS = (
        "Let the web server on port 80 serve /.well-known/acme-challenge/ from the "
        "webroot to everybody, with status 200.",
        _NOT_THE_FILE,
    )
    HTTP_404_EXTENSIONLESS = (
        "Let the web server serve files without an extension, and folders with a dot, "
        "below /.well-known/acme-challenge/. It does serve other files of the webroot.",
        _NOT_THE_FILE,
    )
    IIS_MIME = (
        "In IIS, add the MIME type text/plain for the extension '.' to the folder "
        ".well-known/acme-challenge, and to no other. IIS serves no file without one.",
        _NOT_THE_FILE,
    )
    HTTP_REDIRECT_303 = _REDIRECT
    HTTP_REDIRECT_PORT = (
        "In webmail's SSL & HTTPS settings, set the HTTPS port to 443, or replace HTTP "
        "redirected to HTTPS by HTTP and HTTPS. Let another web server redirect to "
        "port 443 (https) or 80 (http).",
        _NOT_FOLLOWED,
    )
    HTTP_REDIRECT_SCHEME = _REDIRECT
    HTTP_REDIRECT_HOST = _REDIRECT
    HTTP_REDIRECT_LOOP = _REDIRECT
    HTTP_REDIRECT_INVALID = _REDIRECT
    HTTP_REDIRECT_MISSING_SLASH = (
        "Add the slash after the redirect's host name: https://mail.example.com/",
        _NOT_FOLLOWED,
    )
    HTTPS_FAILED = (
        "Enable TLS 1.2 on port 443. Or, in webmail's SSL & HTTPS settings, replace "
        "HTTP redirected to HTTPS by HTTP and HTTPS.",
        "Validation fails: the redirect leads to HTTPS without TLS 1.2 or later. The "
        "certificate there does not matter.",
    )
    BODY_HTML_LOGIN_PAGE = (
        "Let the web server on port 80 serve /.well-known/acme-challenge/ from the "
        "webroot without a login: an HTML page comes instead.",
        _NOT_THE_FILE,
    )
    BODY_BOM = (
        "Serve the file unchanged: something adds a byte order mark to it.",
        _NOT_THE_FILE,
    )
    BODY_TOO_LONG = (
        "Serve the file unchanged: something adds to it, or replaces it.",
        "Validation fails (unauthorized): the CA accepts at most 127 bytes.",
    )
    WORLDCLIENT_HTTPS_REDIRECT = (
        "Change nothing.",
        "The CA follows the redirect, and ignores the certificate there.",
        Weight.NOTE,
    )
    UNFINISHED = ("Run `letsencrypt-mdaemon doctor`, which waits longer.", "Unknown.")
    WEBROOT_NOT_SERVED = (
        "Let webmail listen on port 80, or set webroot to the folder served there.",
        _NOT_THE_FILE,
    )
    WEBROOT_NOT_WRITABLE = (
        "Set webroot to the folder that port 80 serves; let this account write there.",
        "Validation fails for every name: no token file can be served.",
    )
    WEBMAIL_OTHER_PORT = (
        "Add port 80 to the ports of webmail's web server, or forward port 80 to it.",
        "Validation fails (connection): the CA connects to port 80 only.",
    )
    WEBMAIL_HTTPS_ONLY = (
        "In webmail's SSL & HTTPS settings, replace HTTPS only by HTTP and HTTPS, and "
        "set the HTTP port to 80. In the mode HTTPS only, webmail never answers there. "
        "HTTP redirected to HTTPS works, too, if the HTTPS port is 443.",
        "Validation fails (connection): the CA always connects to port 80 first.",
    )
    INI_NOT_WRITABLE = (
        "Let this account write the file, so that it can put certificates into use."
    )
    TARGETS_UNKNOWN = f"{CHOOSE_ONCE}, or set [target ...] sections in the config file."
    STORE_UNUSABLE = "Let this account read and write the store, or set another store."
    STATE_UNUSABLE = "Set state-dir to a folder that this account can write to."
    RAW_QUEUE_UNUSABLE = (
        "Correct [Directories] Raw in MDaemon.ini, or set mail-server. Until then, "
        "MDaemon gets the mail about a failed run by SMTP."
    )
    CA_UNREACHABLE = (
        "Check DNS, firewall, proxy and directory-url: this machine must reach the CA."
    )
    CA_PAUSED = (
        "Open the URL that the CA gave, then run `renew --force`.",
        "The CA refuses every order for the name.",
    )
    RATE_LIMIT_LOCAL_LEDGER = (
        "Correct the cause, then wait for a later run, or run `renew --force` now."
    )
    CLOCK_SKEW = (
        "Set the clock, or let the Windows Time service set it. With a wrong clock, "
        "certificates seem expired or not yet valid."
    )
    CLIENT_AUTH = (
        "If a server refuses mail, check the outbound SMTP log, and let MDaemon send "
        "without a client certificate.",
        "",
        Weight.NOTE,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Args:
        seen: What was seen, in a phrase; made harmless to terminals, logs and mails.
        certain: Whether the CA sees the same, wherever it connects from.
        number: The HTTP status of `http-status`, which ends its code.
    """

    kind: Code
    seen: str
    certain: bool = False
    number: int = 0

    def __post_init__(self) -> None:
        """Make harmless what others sent."""
        object.__setattr__(self, "seen", printable(self.seen, MAX_SEEN_CHARACTERS))

    @property
    def code(self) -> str:
        """The code, such as `http-status-404`."""
        kind = str(self.kind)
        return f"{kind}-{self.number}" if self.kind is Code.HTTP_STATUS else kind

    @property
    def weight(self) -> Weight:
        """How bad the finding is."""
        return Weight.FAILURE if self.certain else self.kind.weight

    def __str__(self) -> str:
        """Return what was seen, with the code."""
        return f"{self.seen} ({self.code})"


@dataclass(slots=True)
class Notes:
    """What is found about a name, while it is being examined."""

    served: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    publish: str = ""

    def add(self, kind: Code, seen: str, *, certain: bool = False) -> None:
        """Note one finding."""
        self.findings.append(Finding(kind=kind, seen=seen, certain=certain))
