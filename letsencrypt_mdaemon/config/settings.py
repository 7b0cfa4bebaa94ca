"""Declare the settings: the fields of `Config` are the only list of them.

Every setting has one name: `--host-name` on the command line, `host-name` in the file,
`LETSENCRYPT_MDAEMON_HOST_NAME` in the environment. The options of the commands, their
help and `config show` are made from the fields.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon import authorities
from letsencrypt_mdaemon.authorities import AUTHORITIES, LETSENCRYPT
from letsencrypt_mdaemon.config import parsers
from letsencrypt_mdaemon.config.fields import (
    file,
    flag,
    folder,
    number,
    one_of,
    setting,
)

if TYPE_CHECKING:
    from pathlib import Path

    from letsencrypt_mdaemon.pki.certificate import KeyType


class TargetText(NamedTuple):
    """A `[target NAME]` section: one INI value that names the certificate.

    Args:
        file: Path below the installation, with either kind of slash.
        form: Notation of the certificate in the value; empty = the one it has now.
    """

    name: str
    file: str
    section: str
    key: str
    form: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The value of every setting."""

    # The server

    mdaemon_dir: Path | None = folder("MDaemon's folder.", "detected")
    webroot: Path | None = folder("Folder served on port 80.", r"WorldClient\HTML")
    smtp_address: tuple[str, int] | None = setting(
        "MDaemon's SMTP address, to read its greeting; or none.",
        parsers.parse_server_address,
        "HOST:PORT",
        default=("127.0.0.1", 25),
    )
    iis_site_name: str = setting(
        "IIS site whose HTTPS bindings also get the certificate."
    )
    iis_add_binding: bool = flag("Add *:443 to that site if it has no HTTPS binding.")

    # The certificate

    host_name: str = setting(
        "First name of the certificate.", parsers.parse_name, "NAME", usual="MDaemon's"
    )
    alternate_host_names: tuple[str, ...] = setting(
        "More names, separated by commas.", parsers.parse_names, "NAMES", many=True
    )
    key_type: KeyType = one_of(
        "Type of the key: rsa2048, rsa3072, rsa4096, p256 or p384.",
        *("rsa2048", "rsa3072", "rsa4096", "p256", "p384"),
        metavar="TYPE",
    )
    key_policy: str = one_of(
        "Key of the next certificate: new, reuse, or next (made in advance).",
        *("new", "reuse", "next"),
    )
    mail_domains: tuple[str, ...] = setting(
        "Domains whose MX hosts are checked for TLSA records (DANE).",
        parsers.parse_names,
        "NAMES",
        usual="MDaemon's",
        many=True,
    )
    renew_days: int = number(
        "Renew when this number of days is left.", (0, 365), 0, "DAYS", "off"
    )
    rehearse: str = one_of(
        "Let the staging CA check the names before a renewal is due: yes or no.",
        *("yes", "no"),
        metavar="ANSWER",
    )
    on_name_failure: str = one_of(
        "If a name fails validation: fail the run, or drop the name.", "fail", "drop"
    )

    # The CA

    directory_url: str = setting(
        f"CA: {', '.join(AUTHORITIES)}, or the URL of its directory.",
        parsers.parse_directory_url,
        "CA",
        choices=tuple(AUTHORITIES),
        usual="letsencrypt",
    )
    agree_tos: bool = flag("Agree to the CA's terms of service.")
    contact: tuple[str, ...] = setting(
        "Mail addresses that the CA may use.",
        parsers.parse_addresses,
        "ADDRESSES",
        many=True,
    )
    eab_kid: str = setting("Key ID for external account binding (EAB).")
    eab_key_file: Path | None = file("File with the EAB key.")
    eab_key: str = setting("The EAB key.", secret=True)
    profile: tuple[str, ...] = setting(
        "Preferred certificate profiles, in order.",
        parsers.parse_list,
        "NAMES",
        many=True,
    )
    require_profile: bool = flag("Fail if the CA offers none of these profiles.")
    preferred_chain: str = setting(
        "Prefer the chain with this issuer (CN).", metavar="NAME"
    )
    ca_bundle: Path | None = file(
        "PEM file with the only roots to trust for the CA's HTTPS."
    )
    proxy: str = setting(
        "HTTP proxy for everything that is asked of the CA.",
        parsers.parse_proxy,
        "URL",
        usual="the environment's",
    )
    delay: int | None = number(
        "Maximum random delay of a scheduled run.", (0, 3600), None, usual="300 or 0"
    )
    validation_timeout: int = number(
        "Time for all requests about one certificate.", (1, 86400), 300
    )

    # Storage

    store: str = setting(
        "Certificate store: windows, or pem:FOLDER.",
        parsers.parse_store,
        "STORE",
        choices=("windows", "pem:"),
        usual="windows" if sys.platform == "win32" else "a pem: folder in state-dir",
    )
    key_storage: str = one_of(
        "Key storage provider for RSA keys in Windows' store: csp or cng.",
        *("csp", "cng"),
        metavar="KIND",
    )
    key_exportable: bool = flag("Let keys be exported from Windows' store.")
    pfx_password_file: Path | None = file(
        "Also write cert.pfx, encrypted with the password in this file."
    )
    state_dir: Path | None = folder(
        "Account key and history.", r"LetsEncrypt\letsencrypt-mdaemon"
    )
    log_dir: Path | None = folder("Folder of LetsEncrypt.log.", "Logs")
    keep_logs: int = number("Number of earlier logs to keep.", (0, 10000), 30, "N")
    remove_old_certificates: bool = flag(
        "Remove this program's superseded certificates."
    )

    # Reload and ports

    reload_semaphores: tuple[str, ...] = setting(
        "Semaphore files, the least disruptive first.",
        parsers.parse_semaphores,
        "NAMES",
        default=("RELOADCACHE.SEM", "RESTARTWC.SEM"),
        many=True,
    )
    reload_timeout: int = number("Time to wait for each semaphore.", (1, 3600), 30)
    allow_restart: bool = flag(
        "Restart MDaemon if a port still serves the old certificate."
    )
    endpoint: tuple[str, ...] = setting(
        "URLs of the ports.",
        parsers.parse_list,
        "URLS",
        usual="mail ports, 443 and 444",
        many=True,
    )
    verify_timeout: int = number("Time that the ports have to change.", (1, 3600), 60)
    public: bool = flag("Also check the ports at the addresses in DNS.")
    require_trusted: bool = flag("Fail if a chain is not trusted.")

    after_activation: Path | None = setting(
        "Program to run once a certificate is in use; it gets no arguments.",
        parsers.parse_program,
        "FILE",
        default=None,
    )
    after_activation_timeout: int = number(
        "Time that this program and what it starts have.", (1, 3600), 60
    )

    # Messages when something changes

    to: tuple[str, ...] = setting(
        "Recipients of mail when runs fail, would fail or recover, or expiry is near.",
        parsers.parse_addresses,
        "ADDRESSES",
        many=True,
    )
    notify_on: tuple[str, ...] = setting(
        "More events to mail or notify of: renewed, every-run.",
        parsers.parse_events,
        "EVENTS",
        choices=("renewed", "every-run"),
        many=True,
    )
    mail_from: tuple[str, ...] = setting(
        "Sender of the mail.",
        parsers.parse_sender,
        "ADDRESS",
        default=(),
        usual="the first recipient",
    )
    mail_server: str = setting(
        "Mail server: raw, smtp://HOST:PORT or smtps://HOST:PORT.",
        parsers.parse_mail_server,
        "URL",
        choices=("raw", "smtp://", "smtps://"),
        default="raw",
    )
    mail_user: str = setting("Login at the mail server.")
    mail_password_file: Path | None = file("File with the password of the login.")
    mail_password: str = setting("The password of the login.", secret=True)

    # Other notifications, and monitoring

    notify: str = setting(
        "URLs of webhooks, or of Apprise.", parsers.parse_urls, secret=True
    )
    notify_file: Path | None = file(
        "File with the URLs of webhooks, or of Apprise, one a line."
    )
    notify_key: str = setting("The key that signs what webhooks get.", secret=True)
    notify_key_file: Path | None = file(
        "File with the key that signs what webhooks get."
    )
    heartbeat_url: str = setting(
        "URL of a heartbeat, as healthchecks has it.", parsers.parse_urls, secret=True
    )
    heartbeat_url_file: Path | None = file(
        "File with the URL of a heartbeat, as healthchecks has it."
    )
    metrics_file: Path | None = file(
        "File for Prometheus' text collector, replaced after each run."
    )

    # For one run

    staging: bool = flag("Rehearse with the staging CA; change nothing in use.")
    dry_run: bool = flag("Show what a run would do; change nothing.")
    force: bool = flag("Order a certificate even if none is due.")
    ask_ca: bool = flag("Ask the CA now whether to renew, even if it was just asked.")
    no_activate: bool = flag("Obtain and keep the certificate; do not use it yet.")
    no_reload: bool = flag("Do not make the server reload.")
    skip_port_check: bool = flag("Do not check whether port 80 answers.")
    json: bool = flag("Print the result as JSON.")

    # For a CA in a laboratory

    validation_port: int = number(
        "Port that a CA in a laboratory checks.", (1, 65535), 80, "PORT"
    )
    validation_dns: tuple[str, int] | None = setting(
        "DNS server that a CA in a laboratory asks.",
        parsers.parse_dns_server,
        "ADDRESS:PORT",
        default=None,
    )

    targets: tuple[TargetText, ...] = ()

    @property
    def ca(self) -> str:
        """The directory URL of the CA, or of its staging service if it has one."""
        url = self.directory_url or LETSENCRYPT.url
        return (self.staging and authorities.at(url).staging) or url

    @property
    def most_names(self) -> int | None:
        """The number of names that a certificate may have; None if that is unknown."""
        known = authorities.at(self.ca).most_names
        return known.get((*self.profile, "")[0]) or known.get("")

    @property
    def longest_delay(self) -> int:
        """The maximum delay of a scheduled run, in seconds."""
        if self.delay is not None:
            return self.delay
        return 300 if authorities.is_public(self.ca) else 0
