"""Config file, environment and options become one frozen `Config`, or one error.

Every setting has one name: `--host-name` on the command line, `host-name` in the file,
`LETSENCRYPT_MDAEMON_HOST_NAME` in the environment. The fields of `Config` are the only
list of them; the command line, the help texts and `config show` are made from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from letsencrypt_mdaemon import authorities
from letsencrypt_mdaemon.authorities import LETSENCRYPT
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
    parse_one_of,
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
    """Everything a run is told from outside."""

    mdaemon_dir: Path | None = setting(
        "MDaemon's folder.  [default: found]", parse_path, "DIR", default=None
    )
    webroot: Path | None = setting(
        "Folder served on port 80.  [default: WorldClient/HTML]",
        parse_path,
        "DIR",
        default=None,
    )
    log_dir: Path | None = setting(
        "Where LetsEncrypt.log goes.  [default: Logs]", parse_path, "DIR", default=None
    )
    state_dir: Path | None = setting(
        "Account key and history.  [default: LetsEncrypt/…]",
        parse_path,
        "DIR",
        default=None,
    )
    store: str = setting(
        "Where certificates go: pem:FOLDER or windows.",
        parse_store,
        "STORE",
        default="",
    )
    host_name: str = setting(
        "First name of the certificate.  [default: the server's]",
        parse_name,
        "NAME",
        default="",
    )
    alternate_host_names: tuple[str, ...] = setting(
        "More names, separated by commas.", parse_names, "NAMES", default=(), many=True
    )
    iis_site_name: str = setting("IIS site whose https bindings follow.", default="")
    iis_add_binding: bool = setting(
        "Add *:443 to a site without an https binding.", parse_flag, default=False
    )
    directory_url: str = setting(
        "The CA: letsencrypt (default), … or a URL.",
        parse_directory_url,
        "CA",
        default="",
    )
    ca_bundle: Path | None = setting(
        "PEM file: trust only these roots for the CA's HTTPS.",
        parse_path,
        "FILE",
        default=None,
    )
    agree_tos: bool = setting(
        "Agree to the CA's terms of service.", parse_flag, default=False
    )
    eab_kid: str = setting(
        "Key id of the account at the CA's web site (EAB).", default=""
    )
    eab_key_file: Path | None = setting(
        "File that holds its key.", parse_path, "FILE", default=None
    )
    eab_key: str = setting("The key itself.", default="", secret=True)
    profile: tuple[str, ...] = setting(
        "The CA's profiles preferred, best first.",
        parse_list,
        "NAMES",
        default=(),
        many=True,
    )
    require_profile: bool = setting(
        "Fail rather than take another profile.", parse_flag, default=False
    )
    preferred_chain: str = setting(
        "Of several chains the one by this issuer (CN).", metavar="NAME", default=""
    )
    key_type: KeyType = setting(
        "rsa2048 (default), rsa3072, rsa4096, p256 or p384.",
        parse_one_of("rsa2048", "rsa3072", "rsa4096", "p256", "p384"),
        "TYPE",
        default="rsa2048",
    )
    key_policy: str = setting(
        "The key of a renewal: new (default), or reuse.",
        parse_one_of("new", "reuse"),
        "RULE",
        default="new",
    )
    key_storage: str = setting(
        "Who keeps RSA keys in Windows' store: csp (default), or cng.",
        parse_one_of("csp", "cng"),
        "KIND",
        default="csp",
    )
    key_exportable: bool = setting(
        "Let keys be taken out of Windows' store.", parse_flag, default=False
    )
    renew_days: int = setting(
        "Renew when no more days than these are left.",
        parse_number(0, 365),
        "DAYS",
        default=0,
    )
    to: tuple[str, ...] = setting(
        "Mail these addresses when a run fails.",
        parse_addresses,
        "ADDRESSES",
        default=(),
        many=True,
    )
    remove_old_certificates: bool = setting(
        "Remove our superseded certificates.", parse_flag, default=False
    )
    skip_port_check: bool = setting(
        "Do not look whether port 80 answers.", parse_flag, default=False
    )
    staging: bool = setting(
        "Rehearse with the staging CA; change nothing in use.",
        parse_flag,
        default=False,
    )
    no_reload: bool = setting(
        "Do not tell the server to reload.", parse_flag, default=False
    )
    dry_run: bool = setting(
        "Say what would be done; change nothing.", parse_flag, default=False
    )
    force: bool = setting(
        "Order a certificate even if none is due.", parse_flag, default=False
    )
    json: bool = setting("Print the result as JSON.", parse_flag, default=False)

    contact: tuple[str, ...] = setting(
        "Mail addresses the CA may use.",
        parse_addresses,
        "ADDRESSES",
        default=(),
        many=True,
    )
    max_names: int | None = setting(
        "Most names the CA allows.  [default: as known, or 100]",
        parse_number(1, 1000),
        "N",
        default=None,
    )
    delay: int | None = setting(
        "Longest random wait of a scheduled run.  [default: 300 or 0]",
        parse_number(0, 3600),
        "SECONDS",
        default=None,
    )
    validation_timeout: int = setting(
        "Seconds to wait for the CA, in all.",
        parse_number(1, 86400),
        "SECONDS",
        default=300,
    )
    pfx_password_file: Path | None = setting(
        "Also write a PKCS#12 file, with this file's password.",
        parse_path,
        "FILE",
        default=None,
    )
    smtp_address: tuple[str, int] | None = setting(
        "Where MDaemon greets; or none.",
        parse_server_address,
        "HOST:PORT",
        default=("127.0.0.1", 25),
    )
    endpoint: tuple[str, ...] = setting(
        "Ports whose certificates are looked at.",
        parse_list,
        "URLS",
        default=(),
        many=True,
    )
    public: bool = setting(
        "Look through DNS as well; may fail behind NAT.", parse_flag, default=False
    )
    require_trusted: bool = setting(
        "Fail where a chain is not trusted.", parse_flag, default=False
    )
    reload_semaphores: tuple[str, ...] = setting(
        "Semaphore files, gentlest first.",
        parse_semaphores,
        "NAMES",
        default=("RELOADCACHE.SEM", "RESTARTWC.SEM"),
        many=True,
    )
    reload_timeout: int = setting(
        "Seconds to wait for each semaphore.",
        parse_number(1, 3600),
        "SECONDS",
        default=30,
    )
    allow_restart: bool = setting(
        "Restart MDaemon if a port keeps the old certificate.",
        parse_flag,
        default=False,
    )
    verify_timeout: int = setting(
        "Seconds for the ports to change.", parse_number(1, 3600), "SECONDS", default=60
    )
    on_name_failure: str = setting(
        "What a name that fails does: fail (default), or drop.",
        parse_one_of("fail", "drop"),
        "RULE",
        default="fail",
    )
    no_activate: bool = setting(
        "Obtain and keep; `activate` puts it into use.", parse_flag, default=False
    )
    mail_server: str = setting(
        "How mail is sent: raw, smtp://HOST:PORT or smtps://…",
        parse_mail_server,
        "URL",
        default="raw",
    )
    mail_from: tuple[str, ...] = setting(
        "Sender of the mail.  [default: the first of --to]",
        parse_sender,
        "ADDRESS",
        default=(),
    )
    mail_user: str = setting("Login at the mail server.", default="")
    mail_password_file: Path | None = setting(
        "File that holds the login's password.", parse_path, "FILE", default=None
    )
    mail_password: str = setting("The login's password.", default="", secret=True)
    validation_port: int = setting(
        "Where a laboratory's CA looks instead of port 80.",
        parse_number(1, 65535),
        "PORT",
        default=80,
    )
    validation_dns: tuple[str, int] | None = setting(
        "The DNS server that a laboratory's CA asks.",
        parse_dns_server,
        "ADDRESS:PORT",
        default=None,
    )
    keep_logs: int = setting(
        "Earlier logs to keep.", parse_number(0, 10000), "N", default=30
    )
    keep_backups: int = setting(
        "Backups of INI files to keep.", parse_number(1, 10000), "N", default=10
    )

    targets: tuple[TargetText, ...] = ()

    @property
    def ca(self) -> str:
        """The CA's directory URL: the one given, or Let's Encrypt's.

        Its staging service instead, where it is to be one and the CA has one.
        """
        url = self.directory_url or LETSENCRYPT.url
        return (self.staging and authorities.at(url).staging) or url

    @property
    def most_names(self) -> int:
        """How many names a certificate may have, as far as that is known."""
        known = authorities.at(self.ca).most_names
        return self.max_names or known.get((*self.profile, "")[0], 0) or 100

    @property
    def longest_delay(self) -> int:
        """Seconds that a scheduled run waits at most before it asks the CA."""
        if self.delay is not None:
            return self.delay
        return 300 if authorities.is_public(self.ca) else 0
