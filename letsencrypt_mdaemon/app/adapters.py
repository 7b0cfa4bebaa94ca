"""Make the adapters and the request of a run."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from letsencrypt_mdaemon import authorities
from letsencrypt_mdaemon.app import build, credentials, mail_policy
from letsencrypt_mdaemon.errors import ConfigError, Error
from letsencrypt_mdaemon.mdaemon import folders
from letsencrypt_mdaemon.mdaemon.bindings import Bindings
from letsencrypt_mdaemon.mdaemon.server import MailServer, Semaphores
from letsencrypt_mdaemon.renewal import due
from letsencrypt_mdaemon.renewal.adapters import Adapters, Request
from letsencrypt_mdaemon.state.memory import Restart, utc
from letsencrypt_mdaemon.system import disk
from letsencrypt_mdaemon.verify.observe import observe

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cryptography import x509

    from letsencrypt_mdaemon.acme.account import Accounts
    from letsencrypt_mdaemon.acme.issuer import Issuer
    from letsencrypt_mdaemon.app.installation import Installation
    from letsencrypt_mdaemon.mdaemon.webroot import Webroot
    from letsencrypt_mdaemon.state.memory import Revocation, Target
    from letsencrypt_mdaemon.verify.endpoints import Endpoint
    from letsencrypt_mdaemon.verify.served import Served

_log = logging.getLogger(__name__)


def adapters(
    installation: Installation,
    targets: Sequence[Target] = (),
    names: Sequence[str] = (),
) -> Adapters:
    """Return the adapters of a run.

    Args:
        targets: The INI values that name the certificate.
        names: The certificate's names, for which the ports are asked.

    Raises:
        ConfigError: If IIS cannot use the certificates of the store.
    """

    def look(only: Collection[Endpoint] = ()) -> dict[Endpoint, Served]:
        return observe(only or installation.endpoints, names, briefly=bool(only))

    mail_server = server(installation, targets)
    return Adapters(
        store=installation.store,
        server=mail_server,
        observe=look,
        state=installation.state,
        ca=installation.ca,
        issuer=cache(lambda: issuer(installation)),
        revocation=lambda leaf, above: revocation(
            leaf, above, proxy=installation.config.proxy
        ),
        suspects=suspects,
        refusal=lambda request, leaf: as_error(
            refusals(
                installation,
                mail_server,
                leaf,
                orders=leaf is None and not request.activate_only,
                binds=not (request.issue_only or request.rehearse),
            )
        ),
        tlsa=lambda: mail_policy.tlsa(installation),
    )


def refusals(
    installation: Installation,
    mail_server: MailServer,
    leaf: x509.Certificate | None,
    *,
    orders: bool = True,
    binds: bool = True,
) -> dict[tuple[str, Path], Error]:
    """Ask whether a run could write all its files, and change nothing.

    Args:
        leaf: The certificate to put into use; None if it is not issued yet.
        orders: Whether the run orders a certificate.
        binds: Whether it puts one into use.

    Returns:
        What refuses by its kind (state, webroot, store, files) and folder.
    """
    asks = [("state", installation.state.writes), ("state", installation.ca.writes)]
    if orders:
        asks.append(("webroot", webroot(installation).writes))
    is_stored = any(leaf == each for each, _ in installation.stored)
    if not (installation.config.staging or is_stored):
        asks.append(("store", installation.store.writes))
    if binds:
        asks.append(("files", lambda: mail_server.writes(leaf)))
    found: dict[tuple[str, Path], Error] = {}
    for kind, writes in asks:
        try:
            paths = writes()
        except Error as exc:
            found[kind, Path()] = exc
            continue
        for path in paths:
            try:
                with disk.explained(f"write {path}"):
                    disk.ask_to_write(path)
            except Error as exc:
                found.setdefault((kind, path.parent), exc)
    return found


def as_error(found: Mapping[tuple[str, Path], Error]) -> Error | None:
    """Return what refuses as one error; None if nothing does."""
    errors = list({error.message: error for error in found.values()}.values())
    if not errors:
        return None
    if len(errors) == 1:
        return errors[0]
    kind = next((type(x) for x in errors if isinstance(x, ConfigError)), Error)
    lines = "".join(f"\n  - {error.message}" for error in errors)
    message = f"This machine does not let the run write what it has to:{lines}"
    return kind(message, hint=errors[0].hint)


def revocation(
    leaf: x509.Certificate, issuer_of_leaf: x509.Certificate, *, proxy: str = ""
) -> Revocation | None:
    """Return when and why the CA revoked a certificate, by its CRL; None if it did not.

    Raises:
        AcmeError: If the CRL cannot be fetched or trusted.
    """
    from letsencrypt_mdaemon.acme import crl  # noqa: PLC0415 - slow, at most daily

    return crl.revocation(leaf, issuer_of_leaf, now=datetime.now(UTC), proxy=proxy)


def suspects() -> tuple[list[str], list[str]]:
    """Return the tasks that run the old script, and those that run this program.

    None if they cannot be listed. Of this program, a single one is the usual one.
    """
    from letsencrypt_mdaemon.app import scheduling  # noqa: PLC0415 - slow, and seldom

    try:
        scheduler = scheduling.of_this_system()
        return scheduler.rivals(), scheduler.twins()
    except Error as exc:
        _log.debug("Could not list the scheduled tasks: %s", exc)
        return [], []


def request(installation: Installation, names: tuple[str, ...]) -> Request:
    """Return the request of a run, from the settings."""
    config = installation.config
    return Request(
        names=names,
        key_type=config.key_type,
        directory_url=config.ca,
        key_policy=config.key_policy,
        days_left=config.renew_days,
        interval=due.interval(installation.memory.runs),
        limits=authorities.at(config.ca).limits,
        force=config.force,
        ask_ca=config.ask_ca,
        dry_run=config.dry_run,
        drop=config.on_name_failure == "drop",
        rehearse=config.staging,
        issue_only=config.no_activate,
        reload=not config.no_reload,
        may_restart=config.allow_restart,
        given=bool(config.endpoint),
        timeout=config.verify_timeout,
        scheduled=installation.scheduled,
        remove_old=config.remove_old_certificates,
    )


def server(installation: Installation, targets: Sequence[Target]) -> MailServer:
    """Return the mail server.

    Raises:
        ConfigError: If IIS cannot use the certificates of the store.
    """
    config, root = installation.config, installation.root
    rungs = (*config.reload_semaphores, *["RESTART.SEM"] * config.allow_restart)
    return MailServer(
        Bindings(
            installation.files,
            targets,
            list(installation.known.values()),
            ours=installation.ours,
            backups=installation.state.backups,
        ),
        Semaphores(
            folders.child(root, "App"),
            () if config.no_reload else tuple(dict.fromkeys(rungs)),
            timeout=config.reload_timeout,
        ),
        running=lambda: bool((heard := installation.greeted()) and heard.value),
        own_folders=[installation.state.folder],
        look_everywhere=installation.search,
        site=build.web_site(config, installation.known),
        service=build.windows_service(root),
        may_restart=config.allow_restart and not config.no_reload,
        elsewhere=build.other_users,
        note=lambda name: _note_restart(installation, name),
    )


def _note_restart(installation: Installation, service: str) -> None:
    if service:
        installation.state.save(Restart(service, utc(datetime.now(UTC))))
    else:
        installation.state.forget_restart()


def accounts(installation: Installation) -> Accounts:
    """Return the client for our account at the CA."""
    from letsencrypt_mdaemon.acme.account import Accounts  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.acme.transport import Session  # noqa: PLC0415 - slow

    config = installation.config
    delay = config.longest_delay if installation.scheduled else 0.0
    return Accounts(
        Session(config.ca, ca_bundle=config.ca_bundle, proxy=config.proxy, delay=delay),
        installation.ca,
        contact=config.contact,
        agree_tos=config.agree_tos,
        external=lambda: credentials.external_account(config),
    )


def issuer(installation: Installation) -> Issuer:
    """Return the client that obtains certificates from the CA."""
    from letsencrypt_mdaemon.acme.issuer import Issuer  # noqa: PLC0415 - slow

    config = installation.config
    return Issuer(
        accounts(installation),
        webroot(installation).present,
        key_type=config.key_type,
        profiles=config.profile,
        require_profile=config.require_profile,
        preferred_chain=config.preferred_chain,
        timeout=config.validation_timeout,
    )


def webroot(installation: Installation, journal: str = "presented.json") -> Webroot:
    """Return the folder for token files.

    Args:
        journal: The name of the file that lists them; the doctor has one of its own, so
            that it leaves the files of an order alone.
    """
    from letsencrypt_mdaemon.mdaemon.webroot import Webroot  # noqa: PLC0415 - seldom

    config = installation.config
    folder = config.webroot or folders.child(installation.root, "WorldClient", "HTML")
    is_iis = bool(config.iis_site_name) and sys.platform == "win32"
    return Webroot(folder, installation.ca.folder / journal, web_config=is_iis)
