"""What each finding means to the CA, and what to do about it."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from letsencrypt_mdaemon.text import CHOOSE_ONCE


class Code(StrEnum):
    """What was found; programs may rely on the values."""

    NAME_NOT_PUBLIC_TLD = "name-not-public-tld"
    TOO_MANY_NAMES = "too-many-names"
    DNS_NXDOMAIN = "dns-nxdomain"
    DNS_SERVFAIL = "dns-servfail"
    DNS_NO_ADDRESS = "dns-no-address"
    DNS_UNREACHABLE = "dns-unreachable"
    ADDR_PRIVATE = "addr-private"
    ADDR_NOT_OURS = "addr-not-ours"
    ADDR_MANY = "addr-many"
    CAA_FORBIDS = "caa-forbids"
    CAA_ACCOUNTURI = "caa-accounturi"
    CAA_METHOD = "caa-method"
    AAAA_UNREACHABLE = "aaaa-unreachable"
    AAAA_DIFFERENT_CONTENT = "aaaa-different-content"
    PORT80_REFUSED = "port80-refused"
    PORT80_TIMEOUT = "port80-timeout"
    HAIRPIN_UNKNOWN = "hairpin-unknown"
    PROXY_INTERCEPTS = "proxy-intercepts"
    HTTP_NO_ANSWER = "http-no-answer"
    HTTP_STATUS = "http-status-N"
    HTTP_404_EXTENSIONLESS = "http-404-extensionless"
    IIS_MIME = "iis-mime"
    HTTP_REDIRECT_303 = "http-redirect-303"
    HTTP_REDIRECT_PORT = "http-redirect-port"
    HTTP_REDIRECT_SCHEME = "http-redirect-scheme"
    HTTP_REDIRECT_HOST = "http-redirect-host"
    HTTP_REDIRECT_LOOP = "http-redirect-loop"
    HTTP_REDIRECT_MISSING_SLASH = "http-redirect-missing-slash"
    HTTP_REDIRECT_INVALID = "http-redirect-invalid"
    HTTPS_FAILED = "https-failed"
    BODY_HTML_LOGIN_PAGE = "body-html-login-page"
    BODY_BOM = "body-bom"
    BODY_TOO_LONG = "body-too-long"
    WORLDCLIENT_HTTPS_REDIRECT = "worldclient-https-redirect"
    UNFINISHED = "unfinished"
    WEBROOT_NOT_SERVED = "webroot-not-served"
    WEBROOT_NOT_WRITABLE = "webroot-not-writable"
    WEBMAIL_OTHER_PORT = "webmail-other-port"
    WEBMAIL_HTTPS_ONLY = "webmail-https-only"
    INI_NOT_WRITABLE = "ini-not-writable"
    TARGETS_UNKNOWN = "targets-unknown"
    STORE_UNUSABLE = "store-unusable"
    STATE_UNUSABLE = "state-unusable"
    CA_UNREACHABLE = "ca-unreachable"
    CA_PAUSED = "ca-paused"
    RATE_LIMIT_LOCAL_LEDGER = "rate-limit-local-ledger"
    CLOCK_SKEW = "clock-skew"
    CLIENT_AUTH = "client-auth"


class Weight(StrEnum):
    """How bad a finding is."""

    FAILURE = "failure"  # the name fails, wherever the CA connects from
    WARNING = "warning"  # the name fails, as seen from this machine
    NOTE = "note"  # nothing is wrong


class Advice(NamedTuple):
    """What a code means.

    Args:
        ca: What the CA will do; empty if it does not notice.
        change: What to change in MDaemon, IIS, DNS or the firewall.
    """

    ca: str
    change: str
    weight: Weight = Weight.WARNING


_NOT_THE_FILE = "Validation fails (unauthorized): the answer is not the token file."
_REDIRECT = Advice(
    "Validation fails (connection): the CA does not follow the redirect.",
    "Exclude /.well-known/acme-challenge/ from the redirect, or redirect to http:// or "
    "https:// at a public name on the usual port, with status 301, 302, 307 or 308.",
)

ADVICE = {
    Code.NAME_NOT_PUBLIC_TLD: Advice(
        "A public CA refuses the order (rejectedIdentifier).",
        "Use a name in a public domain of yours: correct the SMTP host name in "
        "MDaemon's Domain Manager (Host name & IP), or remove the name from "
        "alternate-host-names.",
    ),
    Code.TOO_MANY_NAMES: Advice(
        "The CA refuses the whole order.", "Remove names from alternate-host-names."
    ),
    Code.DNS_NXDOMAIN: Advice(
        "Validation fails (dns): NXDOMAIN.",
        "Add an A record (and AAAA if the server has IPv6) to the domain's public DNS, "
        "or remove the name from the settings.",
    ),
    Code.DNS_SERVFAIL: Advice(
        "Validation fails (dns, or caa): SERVFAIL.",
        "Check the domain's DNS servers and DNSSEC, for example at dnsviz.net. A "
        "common cause is a DS record whose key is gone.",
    ),
    Code.DNS_NO_ADDRESS: Advice(
        "Validation fails (dns): the name has no address.",
        "Add an A record (and AAAA if the server has IPv6) to the domain's public DNS.",
    ),
    Code.DNS_UNREACHABLE: Advice(
        "Unknown: the CA uses DNS servers of its own.",
        "Correct the DNS settings of this machine: it must find the CA, too.",
    ),
    Code.ADDR_PRIVATE: Advice(
        "Validation fails: the CA does not connect to private addresses.",
        "Publish the server's public address. If DNS differs inside and outside your "
        "network, correct the outside one.",
    ),
    Code.ADDR_NOT_OURS: Advice(
        _NOT_THE_FILE,
        "Correct the DNS record, or forward port 80 from the router to this machine: "
        "now the address leads elsewhere.",
    ),
    Code.ADDR_MANY: Advice(
        "The CA may connect to any of them, so all must serve the token file.",
        "Publish only the addresses of this server.",
        Weight.NOTE,
    ),
    Code.CAA_FORBIDS: Advice(
        "Validation fails (caa): the CA must not issue for the name.",
        "Add a CAA record with this CA's issuer domain, or remove the CAA records.",
    ),
    Code.CAA_ACCOUNTURI: Advice(
        "Validation fails (caa): the CA must not issue to this account.",
        "Set accounturi in the CAA record to the URL of this account.",
    ),
    Code.CAA_METHOD: Advice(
        "Validation fails (caa): the CA must not validate by http-01.",
        "Add http-01 to validationmethods in the CAA record.",
    ),
    Code.AAAA_UNREACHABLE: Advice(
        "The CA connects by IPv6 first. Let's Encrypt then tries IPv4, but not after a "
        "redirect; with other CAs validation fails.",
        "Let webmail listen on IPv6 and open port 80 for IPv6, or remove the AAAA "
        "record.",
    ),
    Code.AAAA_DIFFERENT_CONTENT: Advice(
        "Validation fails: the CA connects by IPv6 first, and that answer counts.",
        "Correct or remove the AAAA record, or let webmail listen on IPv6, too.",
    ),
    Code.PORT80_REFUSED: Advice(
        "Validation fails (connection): connection refused.",
        "Let webmail's web server bind to port 80, and forward port 80 to this "
        "machine.",
    ),
    Code.PORT80_TIMEOUT: Advice(
        "Validation fails (connection): timeout during connect, likely a firewall.",
        "Forward port 80 to this machine, and open it to all countries: in the "
        "firewall, in Location Screening and in Dynamic Screening.",
    ),
    Code.HAIRPIN_UNKNOWN: Advice(
        "Unknown: the CA may reach an address that this machine cannot.",
        "Test the name from outside, for example at letsdebug.net. Many routers do not "
        "connect the inside to their own public address.",
    ),
    Code.PROXY_INTERCEPTS: Advice(
        "Unknown: a proxy on our side answered, not the server.",
        "Exclude port 80 from this machine's proxy, or test the name from outside, for "
        "example at letsdebug.net.",
    ),
    Code.HTTP_NO_ANSWER: Advice(
        "Validation fails (connection): no answer, or none in HTTP.",
        "Check which program listens on port 80, and whether Dynamic Screening or a "
        "firewall cuts connections.",
    ),
    Code.HTTP_STATUS: Advice(
        _NOT_THE_FILE,
        "Let the web server on port 80 serve /.well-known/acme-challenge/ from the "
        "webroot to everybody, with status 200.",
    ),
    Code.HTTP_404_EXTENSIONLESS: Advice(
        _NOT_THE_FILE,
        "Let the web server serve files without an extension, and folders with a dot, "
        "below /.well-known/acme-challenge/. It does serve other files of the webroot.",
    ),
    Code.IIS_MIME: Advice(
        _NOT_THE_FILE,
        "In IIS, add the MIME type text/plain for the extension '.' to the folder "
        ".well-known/acme-challenge, and to no other. IIS serves no file without one.",
    ),
    **dict.fromkeys(
        (
            *(Code.HTTP_REDIRECT_303, Code.HTTP_REDIRECT_PORT),
            *(Code.HTTP_REDIRECT_SCHEME, Code.HTTP_REDIRECT_HOST),
            *(Code.HTTP_REDIRECT_LOOP, Code.HTTP_REDIRECT_INVALID),
        ),
        _REDIRECT,
    ),
    Code.HTTP_REDIRECT_MISSING_SLASH: Advice(
        _REDIRECT.ca,
        "Add the missing slash after the host name in the web server's redirect: "
        "https://mail.example.com/",
    ),
    Code.HTTPS_FAILED: Advice(
        "Validation fails: the redirect leads to HTTPS without TLS 1.2 or later. The "
        "certificate there does not matter.",
        "Enable TLS 1.2 on port 443, or exclude /.well-known/acme-challenge/ from the "
        "redirect.",
    ),
    Code.BODY_HTML_LOGIN_PAGE: Advice(
        _NOT_THE_FILE,
        "Let the web server on port 80 serve /.well-known/acme-challenge/ from the "
        "webroot without a login: an HTML page comes instead.",
    ),
    Code.BODY_BOM: Advice(
        _NOT_THE_FILE,
        "Serve the file unchanged: something adds a byte order mark to it.",
    ),
    Code.BODY_TOO_LONG: Advice(
        "Validation fails (unauthorized): the CA accepts at most 127 bytes.",
        "Serve the file unchanged: something adds to it, or replaces it.",
    ),
    Code.WORLDCLIENT_HTTPS_REDIRECT: Advice(
        "The CA follows the redirect, and ignores the certificate there.",
        "Change nothing.",
        Weight.NOTE,
    ),
    Code.UNFINISHED: Advice(
        "Unknown.", "Run `letsencrypt-mdaemon doctor`, which waits longer."
    ),
    Code.WEBROOT_NOT_SERVED: Advice(
        _NOT_THE_FILE,
        "Let webmail's web server listen on port 80, or set webroot to the folder that "
        "port 80 serves.",
    ),
    Code.WEBROOT_NOT_WRITABLE: Advice(
        "Validation fails for every name: no token file can be served.",
        "Set webroot to the folder that is served on port 80, and let this account "
        "write there.",
    ),
    Code.WEBMAIL_OTHER_PORT: Advice(
        "Validation fails (connection): the CA connects to port 80 only.",
        "Add port 80 to the ports of webmail's web server, or forward port 80 to it.",
    ),
    Code.WEBMAIL_HTTPS_ONLY: Advice(
        "Validation fails (connection): the CA always connects to port 80 first.",
        "In webmail's SSL & HTTPS settings, replace HTTPS only by HTTP and HTTPS, or "
        "by HTTP redirected to HTTPS, and bind to port 80.",
    ),
    Code.INI_NOT_WRITABLE: Advice(
        "",
        "Let this account write the file. Otherwise a new certificate is issued, but "
        "cannot be put into use.",
    ),
    Code.TARGETS_UNKNOWN: Advice(
        "",
        f"{CHOOSE_ONCE}, or name the INI values in [target ...] sections of the config "
        "file.",
    ),
    Code.STORE_UNUSABLE: Advice(
        "", "Let this account read and write the store, or set another store."
    ),
    Code.STATE_UNUSABLE: Advice(
        "", "Set state-dir to a folder that this account can write to."
    ),
    Code.CA_UNREACHABLE: Advice(
        "",
        "Let this machine reach the CA by HTTPS: check DNS, the firewall, the proxy "
        "and directory-url.",
    ),
    Code.CA_PAUSED: Advice(
        "The CA refuses every order for the name.",
        "Open the URL that the CA gave, then run `renew --force`.",
    ),
    Code.RATE_LIMIT_LOCAL_LEDGER: Advice(
        "",
        "Correct the cause, then wait for a later run, or run `renew --force` now.",
    ),
    Code.CLOCK_SKEW: Advice(
        "",
        "Set the clock, or let the Windows Time service set it. With a wrong clock, "
        "certificates seem expired or not yet valid.",
    ),
    Code.CLIENT_AUTH: Advice(
        "",
        "If a server refuses mail, check the outbound SMTP log, and let MDaemon send "
        "without a client certificate.",
        Weight.NOTE,
    ),
}
