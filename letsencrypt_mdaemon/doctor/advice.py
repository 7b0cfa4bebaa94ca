"""What to do about each finding."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
    """How much a finding means."""

    FAILURE = "failure"  # the name would fail, wherever we stand
    WARNING = "warning"  # it would, as seen from here
    NOTE = "note"  # worth knowing, and nothing is wrong


@dataclass(frozen=True, slots=True)
class Advice:
    """What a code means.

    Args:
        ca: How the CA will see it; empty if it does not see it at all.
        change: What to change in MDaemon, IIS, DNS or the firewall.
    """

    ca: str
    change: str
    weight: Weight = Weight.WARNING


_FALLBACK = (
    "An IPv6 address is asked first. Let's Encrypt takes IPv4 if it cannot connect "
    "there at all; after a redirect, and at other CAs, the name fails."
)


_NOT_THE_FILE = "The answer is not the token's file, so the name fails (unauthorized)."


_REDIRECT = "The redirect is not followed, so the name fails (connection)."


_LEAVE_PATH = (
    "Leave /.well-known/acme-challenge/ out of the redirect, or redirect to http:// "
    "or https:// of a public name on the usual port, with status 301, 302, 307 or "
    "308."
)


ADVICE = {
    Code.NAME_NOT_PUBLIC_TLD: Advice(
        "A public CA refuses the name at once (rejectedIdentifier).",
        "Use a name below a domain of yours on the Internet: correct the SMTP host "
        "name in the Domain Manager (Host name & IP), or leave the name out.",
    ),
    Code.TOO_MANY_NAMES: Advice(
        "The order is refused as a whole.",
        "Remove some names from alternate-host-names.",
    ),
    Code.DNS_NXDOMAIN: Advice(
        "NXDOMAIN: the name fails (dns).",
        "Add an A record (and AAAA if the server has IPv6) in the public DNS of the "
        "domain, or leave the name out.",
    ),
    Code.DNS_SERVFAIL: Advice(
        "SERVFAIL: the name fails (dns, or caa).",
        "Look at the zone's DNS servers, and at its DNSSEC: a DS record whose key is "
        "gone does this. Test it at dnsviz.net.",
    ),
    Code.DNS_NO_ADDRESS: Advice(
        "The name exists without an address: it fails (dns).",
        "Add an A record (and AAAA if the server has IPv6) in the public DNS.",
    ),
    Code.DNS_UNREACHABLE: Advice(
        "The CA asks DNS by itself, and may get on well.",
        "Look at this machine's DNS settings: the CA has to be found as well.",
    ),
    Code.ADDR_PRIVATE: Advice(
        "Reserved and private addresses are not asked: the name fails.",
        "Publish the public address. Where DNS inside and outside differ, see that "
        "the outside one has it.",
    ),
    Code.ADDR_NOT_OURS: Advice(
        _NOT_THE_FILE,
        "This machine would serve the file, but the address leads elsewhere: correct "
        "the DNS record, or the port forwarding of the router for port 80.",
    ),
    Code.ADDR_MANY: Advice(
        "The CA takes any of them, so all of them have to serve the file.",
        "Publish only the addresses of this server.",
        Weight.NOTE,
    ),
    Code.CAA_FORBIDS: Advice(
        "The CA must not issue for the name: it fails (caa).",
        "Add a CAA record with this CA's issuer domain, or remove the CAA records.",
    ),
    Code.CAA_ACCOUNTURI: Advice(
        "The CA must not issue to this account: the name fails (caa).",
        "Put this account's URL into accounturi of the CAA record.",
    ),
    Code.CAA_METHOD: Advice(
        "The CA must not validate by http-01: the name fails (caa).",
        "Add http-01 to validationmethods of the CAA record.",
    ),
    Code.AAAA_UNREACHABLE: Advice(
        _FALLBACK,
        "Let webmail listen on IPv6 and open port 80 for it, or remove the AAAA "
        "record.",
    ),
    Code.AAAA_DIFFERENT_CONTENT: Advice(
        "An IPv6 address is asked first, and its answer counts: the name fails.",
        "Correct or remove the AAAA record, or let webmail listen on IPv6 as well.",
    ),
    Code.PORT80_REFUSED: Advice(
        "Connection refused: the name fails (connection).",
        "Let webmail's web server bind to port 80 as well, and forward port 80 to "
        "this machine.",
    ),
    Code.PORT80_TIMEOUT: Advice(
        "Timeout during connect, likely a firewall problem: the name fails "
        "(connection).",
        "Open port 80 for everybody in the firewall and forward it to this machine. "
        "The CA asks from several countries: Location and Dynamic Screening must let "
        "it in.",
    ),
    Code.HAIRPIN_UNKNOWN: Advice(
        "It cannot be told from here; the CA may well get through.",
        "Test it from outside, such as at letsdebug.net: many routers do not lead "
        "from inside to their own public address.",
    ),
    Code.PROXY_INTERCEPTS: Advice(
        "It cannot be told from here: the answer is a proxy's on our side.",
        "Let this machine reach port 80 without the proxy, or test it from outside, "
        "such as at letsdebug.net.",
    ),
    Code.HTTP_NO_ANSWER: Advice(
        "The answer does not come, or is not HTTP: the name fails (connection).",
        "See which program listens on port 80, and whether Dynamic Screening or a "
        "firewall cuts connections.",
    ),
    Code.HTTP_STATUS: Advice(
        _NOT_THE_FILE,
        "Let the web server on port 80 show /.well-known/acme-challenge/ of the "
        "webroot to everybody, with status 200.",
    ),
    Code.HTTP_404_EXTENSIONLESS: Advice(
        _NOT_THE_FILE,
        "The web server shows the webroot, but no file without an extension or no "
        "folder with a dot: allow both for /.well-known/acme-challenge/.",
    ),
    Code.IIS_MIME: Advice(
        _NOT_THE_FILE,
        "IIS serves no file without a MIME type: add one for the extension '.' "
        "(text/plain) to the folder .well-known/acme-challenge, and nothing else.",
    ),
    Code.HTTP_REDIRECT_303: Advice(_REDIRECT, _LEAVE_PATH),
    Code.HTTP_REDIRECT_PORT: Advice(_REDIRECT, _LEAVE_PATH),
    Code.HTTP_REDIRECT_SCHEME: Advice(_REDIRECT, _LEAVE_PATH),
    Code.HTTP_REDIRECT_HOST: Advice(_REDIRECT, _LEAVE_PATH),
    Code.HTTP_REDIRECT_LOOP: Advice(_REDIRECT, _LEAVE_PATH),
    Code.HTTP_REDIRECT_INVALID: Advice(_REDIRECT, _LEAVE_PATH),
    Code.HTTP_REDIRECT_MISSING_SLASH: Advice(
        _REDIRECT,
        "The redirect's target lacks the slash behind the host name: write "
        "https://mail.example.com/ in the web server's redirect.",
    ),
    Code.HTTPS_FAILED: Advice(
        "The redirect leads to HTTPS, and there is no TLS 1.2 or better: the name "
        "fails. The certificate there does not matter.",
        "Let port 443 answer with TLS 1.2, or leave /.well-known/acme-challenge/ out "
        "of the redirect.",
    ),
    Code.BODY_HTML_LOGIN_PAGE: Advice(
        _NOT_THE_FILE,
        "An HTML page comes in place of the file: let the web server on port 80 serve "
        "/.well-known/acme-challenge/ from the webroot, without a login.",
    ),
    Code.BODY_BOM: Advice(
        _NOT_THE_FILE,
        "Something puts a byte order mark before the file: serve it as it is.",
    ),
    Code.BODY_TOO_LONG: Advice(
        "Of the answer 128 bytes are read, and fewer have to be all: the name fails.",
        "Something adds to the file, or another answer comes in its place: serve the "
        "file as it is.",
    ),
    Code.WORLDCLIENT_HTTPS_REDIRECT: Advice(
        "The redirect to HTTPS is followed, whatever the certificate there.",
        "Nothing has to be changed.",
        Weight.NOTE,
    ),
    Code.UNFINISHED: Advice(
        "It is not known.",
        "Run `letsencrypt-mdaemon doctor`, which takes more time.",
    ),
    Code.WEBROOT_NOT_SERVED: Advice(
        _NOT_THE_FILE,
        "Another program, or another folder, is served on port 80: let webmail's web "
        "server have the port, or set webroot to the folder that is served.",
    ),
    Code.WEBROOT_NOT_WRITABLE: Advice(
        "No token can be shown, so every name fails.",
        "Set webroot to the folder that is served on port 80, and let this account "
        "write there.",
    ),
    Code.WEBMAIL_OTHER_PORT: Advice(
        "Connection refused: only port 80 is asked.",
        "Add port 80 to the ports that webmail's web server binds to, or forward port "
        "80 to it.",
    ),
    Code.WEBMAIL_HTTPS_ONLY: Advice(
        "Connection refused: port 80 is asked first, always.",
        "In webmail's SSL & HTTPS settings choose HTTP and HTTPS, or HTTP redirected "
        "to HTTPS, in place of HTTPS only; and let it bind to port 80.",
    ),
    Code.INI_NOT_WRITABLE: Advice(
        "",
        "Let this account write the file; otherwise the certificate is issued and "
        "cannot be put into use.",
    ),
    Code.TARGETS_UNKNOWN: Advice(
        "",
        "Choose any certificate of the store once in MDaemon's SSL & TLS dialog, or "
        "name the INI values in [target …] sections of the config file.",
    ),
    Code.STORE_UNUSABLE: Advice(
        "", "Name another store, or let this account read and write there."
    ),
    Code.STATE_UNUSABLE: Advice(
        "", "Set state-dir to a folder in which this account may write."
    ),
    Code.CA_UNREACHABLE: Advice(
        "",
        "Let this machine reach the CA by HTTPS: look at DNS, the firewall, the proxy "
        "and directory-url.",
    ),
    Code.CA_PAUSED: Advice(
        "It refuses every order for it.",
        "Open the URL that the CA has given, then run `renew --force`.",
    ),
    Code.RATE_LIMIT_LOCAL_LEDGER: Advice(
        "",
        "Nothing, if what is wrong has been mended: a later run tries again. "
        "`renew --force` tries at once.",
    ),
    Code.CLOCK_SKEW: Advice(
        "",
        "Set the clock, or let the Windows Time service do it: certificates would "
        "seem not valid yet, or expired.",
    ),
    Code.CLIENT_AUTH: Advice(
        "",
        "Where the other side refuses, look into the outbound SMTP log, and let "
        "MDaemon send without a client certificate.",
        Weight.NOTE,
    ),
}
