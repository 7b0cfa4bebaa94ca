"""Declare the settings: the fields of `Config` are the only list of them.

Every setting has one name: `--host-name` on the command line, `host-name` in the file,
`LETSENCRYPT_MDAEMON_HOST_NAME` in the environment. The options of the commands, their
help and `config show` are made from the fields.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from letsencrypt_mdaemon import authorities
from letsencrypt_mdaemon.authorities import AUTHORITIES, LETSENCRYPT
from letsencrypt_mdaemon.config.parsers import (
    TargetText,
    parse_addresses,
    parse_directory_url,
    parse_dns_server,
    parse_flag,
    parse_list,
    parse_mail_server,
    parse_name,
    parse_names,
    parse_number,
    parse_path,
    parse_semaphores,
    parse_sender,
    parse_server_address,
    parse_store,
    setting,
)

if TYPE_CHECKING:
    from pathlib import Path

    from letsencrypt_mdaemon.pki.certificate import KeyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The value of every setting."""

    # The server

    mdaemon_dir: Path | None = setting(
        "MDaemon's folder.", parse_path, "DIR", usual="detected"
    )
    webroot: Path | None = setting(
        "Folder served on port 80.", parse_path, "DIR", usual=r"WorldClient\HTML"
    )
    smtp_address: tuple[str, int] | None = setting(
        "MDaemon's SMTP address, to read its greeting; or none.",
        parse_server_address,
        "HOST:PORT",
        default=("127.0.0.1", 25),
    )
    iis_site_name: str = setting(
        "IIS site whose HTTPS bindings also get the certificate.", default=""
    )
    iis_add_binding: bool = setting(
        "Add *:443 to that site if it has no HTTPS binding.", parse_flag
    )

    # The certificate

    host_name: str = setting(
        "First name of the certificate.",
        parse_name,
        "NAME",
        default="",
        usual="MDaemon's",
    )
    alternate_host_names: tuple[str, ...] = setting(
        "More names, separated by commas.", parse_names, "NAMES", many=True
    )
    key_type: KeyType = setting(
        "Type of the key: rsa2048, rsa3072, rsa4096, p256 or p384.",
        metavar="TYPE",
        choices=("rsa2048", "rsa3072", "rsa4096", "p256", "p384"),
        default="rsa2048",
    )
    key_policy: str = setting(
        "Key of the next certificate: new, or reuse.",
        metavar="RULE",
        choices=("new", "reuse"),
        default="new",
    )
    renew_days: int = setting(
        "Renew when this number of days is left.",
        parse_number(0, 365),
        "DAYS",
        default=0,
        usual="off",
    )
    on_name_failure: str = setting(
        "If a name fails validation: fail the run, or drop the name.",
        metavar="RULE",
        choices=("fail", "drop"),
        default="fail",
    )

    # The CA

    directory_url: str = setting(
        f"CA: {', '.join(AUTHORITIES)}, or the URL of its directory.",
        parse_directory_url,
        "CA",
        choices=tuple(AUTHORITIES),
        default="",
        usual="letsencrypt",
    )
    agree_tos: bool = setting("Agree to the CA's terms of service.", parse_flag)
    contact: tuple[str, ...] = setting(
        "Mail addresses that the CA may use.", parse_addresses, "ADDRESSES", many=True
    )
    eab_kid: str = setting("Key ID for external account binding (EAB).", default="")
    eab_key_file: Path | None = setting("File with the EAB key.", parse_path, "FILE")
    eab_key: str = setting("The EAB key.", default="", secret=True)
    profile: tuple[str, ...] = setting(
        "Preferred certificate profiles, in order.", parse_list, "NAMES", many=True
    )
    require_profile: bool = setting(
        "Fail if the CA offers none of these profiles.", parse_flag
    )
    preferred_chain: str = setting(
        "Prefer the chain with this issuer (CN).", metavar="NAME", default=""
    )
    ca_bundle: Path | None = setting(
        "PEM file with the only roots to trust for the CA's HTTPS.", parse_path, "FILE"
    )
    delay: int | None = setting(
        "Maximum random delay of a scheduled run.",
        parse_number(0, 3600),
        "SECONDS",
        usual="300 or 0",
    )
    validation_timeout: int = setting(
        "Time for all requests about one certificate.",
        parse_number(1, 86400),
        "SECONDS",
        default=300,
    )

    # Storage

    store: str = setting(
        "Certificate store: windows, or pem:FOLDER.",
        parse_store,
        "STORE",
        choices=("windows", "pem:"),
        default="",
        usual="windows" if sys.platform == "win32" else "a pem: folder in state-dir",
    )
    key_storage: str = setting(
        "Key storage provider for RSA keys in Windows' store: csp or cng.",
        metavar="KIND",
        choices=("csp", "cng"),
        default="csp",
    )
    key_exportable: bool = setting(
        "Let keys be exported from Windows' store.", parse_flag
    )
    pfx_password_file: Path | None = setting(
        "Also write cert.pfx, encrypted with the password in this file.",
        parse_path,
        "FILE",
    )
    state_dir: Path | None = setting(
        "Account key and history.",
        parse_path,
        "DIR",
        usual=r"LetsEncrypt\letsencrypt-mdaemon",
    )
    log_dir: Path | None = setting(
        "Folder of LetsEncrypt.log.", parse_path, "DIR", usual="Logs"
    )
    keep_logs: int = setting(
        "Number of earlier logs to keep.", parse_number(0, 10000), "N", default=30
    )
    remove_old_certificates: bool = setting(
        "Remove this program's superseded certificates.", parse_flag
    )

    # Reload and ports

    reload_semaphores: tuple[str, ...] = setting(
        "Semaphore files, the least disruptive first.",
        parse_semaphores,
        "NAMES",
        default=("RELOADCACHE.SEM", "RESTARTWC.SEM"),
        many=True,
    )
    reload_timeout: int = setting(
        "Time to wait for each semaphore.",
        parse_number(1, 3600),
        "SECONDS",
        default=30,
    )
    allow_restart: bool = setting(
        "Restart MDaemon if a port still serves the old certificate.", parse_flag
    )
    endpoint: tuple[str, ...] = setting(
        "URLs of the ports.",
        parse_list,
        "URLS",
        usual="mail ports, 443 and 444",
        many=True,
    )
    verify_timeout: int = setting(
        "Time that the ports have to change.",
        parse_number(1, 3600),
        "SECONDS",
        default=60,
    )
    public: bool = setting("Also check the ports at the addresses in DNS.", parse_flag)
    require_trusted: bool = setting("Fail if a chain is not trusted.", parse_flag)

    # Mail when a run fails

    to: tuple[str, ...] = setting(
        "Recipients of the mail when a run fails.",
        parse_addresses,
        "ADDRESSES",
        many=True,
    )
    mail_from: tuple[str, ...] = setting(
        "Sender of the mail.",
        parse_sender,
        "ADDRESS",
        default=(),
        usual="the first recipient",
    )
    mail_server: str = setting(
        "Mail server: raw, smtp://HOST:PORT or smtps://HOST:PORT.",
        parse_mail_server,
        "URL",
        choices=("raw", "smtp://", "smtps://"),
        default="raw",
    )
    mail_user: str = setting("Login at the mail server.", default="")
    mail_password_file: Path | None = setting(
        "File with the password of the login.", parse_path, "FILE"
    )
    mail_password: str = setting("The password of the login.", default="", secret=True)

    # For one run

    staging: bool = setting(
        "Rehearse with the staging CA; change nothing in use.", parse_flag
    )
    dry_run: bool = setting("Show what a run would do; change nothing.", parse_flag)
    force: bool = setting("Order a certificate even if none is due.", parse_flag)
    no_activate: bool = setting(
        "Obtain and keep the certificate; do not use it yet.", parse_flag
    )
    no_reload: bool = setting("Do not make the server reload.", parse_flag)
    skip_port_check: bool = setting("Do not check whether port 80 answers.", parse_flag)
    json: bool = setting("Print the result as JSON.", parse_flag)

    # For a CA in a laboratory

    validation_port: int = setting(
        "Port that a CA in a laboratory checks.",
        parse_number(1, 65535),
        "PORT",
        default=80,
    )
    validation_dns: tuple[str, int] | None = setting(
        "DNS server that a CA in a laboratory asks.", parse_dns_server, "ADDRESS:PORT"
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
