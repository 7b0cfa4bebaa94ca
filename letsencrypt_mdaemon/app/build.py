"""Make adapters from the settings."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.app import credentials, trust
from letsencrypt_mdaemon.errors import ConfigError, DeployError, Error
from letsencrypt_mdaemon.mdaemon import folders
from letsencrypt_mdaemon.state.folder import State
from letsencrypt_mdaemon.state.memory import utc
from letsencrypt_mdaemon.stores.pem import PemStore
from letsencrypt_mdaemon.system.disk import explained, sweep
from letsencrypt_mdaemon.system.locks import exclusive_lock
from letsencrypt_mdaemon.text import when
from letsencrypt_mdaemon.verify import endpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.config.load import Loaded
    from letsencrypt_mdaemon.config.settings import Config
    from letsencrypt_mdaemon.mdaemon import iis
    from letsencrypt_mdaemon.renewal.store import Store
    from letsencrypt_mdaemon.verify.endpoints import Endpoint
    from letsencrypt_mdaemon.windows.service import Service

_log = logging.getLogger(__name__)

NOT_WINDOWS = "This system is not Windows."


def find_root(loaded: Loaded) -> Path:
    """Return MDaemon's folder."""
    origin = loaded.origins.get("mdaemon-dir", "")
    return folders.find(folders.places(loaded.config.mdaemon_dir, origin))


def windows_service(root: Path) -> Service | None:
    """Return the Windows service of the MDaemon in this folder, if there is one."""
    if sys.platform == "win32":
        from letsencrypt_mdaemon.windows import service  # noqa: PLC0415 - Windows only
        from letsencrypt_mdaemon.windows.service_manager import Service  # noqa: PLC0415

        found = Service()
        try:
            return found if found.status() and service.is_of(found, root) else None
        except service.RefusedError as exc:
            _log.debug("Could not check the service %s: %s", found.name, exc)
    return None


def event_log() -> Callable[[int, str], None] | None:
    """Return what writes an event to the system's log for failures, if there is one."""
    if sys.platform == "win32":
        from letsencrypt_mdaemon.windows import eventlog  # noqa: PLC0415 - seldom

        return eventlog.EventLog().error
    return None


def state_of(config: Config, root: Path, *, read_only: bool = False) -> State:
    """Return the state folder; by default a folder beside the old script.

    Args:
        read_only: Leave a damaged file where it is, as a dry run does.

    Raises:
        ConfigError: If others made it, or can change it.
    """
    read_only = read_only or config.dry_run
    default = folders.child(root, "LetsEncrypt") / "letsencrypt-mdaemon"
    folder = config.state_dir or default
    trust.require_state(folder, root)
    if sys.platform == "win32":
        from letsencrypt_mdaemon.windows.security import MachineSeal  # noqa: PLC0415

        return State(folder, read_only=read_only, seal=MachineSeal())
    return State(folder, read_only=read_only)


@contextmanager
def locked_state(config: Config, root: Path, file: Path | None) -> Iterator[State]:
    """Hold the lock of the state folder, and tidy up what a killed run left there.

    A missing folder is made.

    Args:
        file: The config file, if there is one.

    Raises:
        BusyError: If another run holds the lock.
        ConfigError: If others can change the folder; or, as SYSTEM, the program.
        Error: If the folder cannot be used.
    """
    if trust.is_system():
        trust.require_program(file, root)
    state = state_of(config, root)
    trust.make_state(state.folder, root)
    with exclusive_lock(state.lock):
        sweep(state.folder)
        _finish_restart(state, root)
        yield state


def _finish_restart(state: State, root: Path) -> None:
    """Start the server's service if an earlier run stopped it, and could not start it.

    A failure is only a warning: this run may be the one that mends the cause.
    """
    begun = state.restart()
    if begun is None or (found := windows_service(root)) is None:
        return
    from letsencrypt_mdaemon.windows import service  # noqa: PLC0415 - seldom needed

    try:
        if service.resume(found):
            _log.warning(
                "The service %s was still stopped since this program restarted it on "
                "%s. It runs again.",
                found.name,
                when(begun.at),
            )
    except DeployError as exc:
        _log.warning("%s %s", exc.message, exc.hint)
        return
    state.forget_restart()


def note_end(
    config: Config, root: Path, exit_code: int, began: datetime, *, scheduled: bool
) -> None:
    """Save how a run of `renew` ended: cron does not know its exit code."""
    state = state_of(config, root)
    former = memory = state.load()
    if scheduled:
        memory = memory._replace(exit_code=exit_code)
    if not exit_code:
        memory = memory._replace(succeeded=utc(began))
    if memory != former:
        state.save(memory)


def refuse_demo(mdaemon_dir: Path | None) -> None:
    """Refuse a demo as SYSTEM or root in a folder not named, where an MDaemon is.

    Args:
        mdaemon_dir: Where an MDaemon is; None = where the registry says, or usually.

    Raises:
        ConfigError: If this account is SYSTEM or root, and there is an MDaemon.
    """
    if sys.platform == "win32":
        from letsencrypt_mdaemon.windows import access, security  # noqa: PLC0415

        account = "SYSTEM" if security.own_sid() == access.SYSTEM else ""
    else:
        account = "" if os.geteuid() else "root"
    if not account:
        return
    try:
        root = folders.find(folders.places(mdaemon_dir, ""))
    except ConfigError:
        return
    raise ConfigError(
        f"The demo does not run as {account} in a temporary folder, because {root} "
        "is an MDaemon.",
        hint="Run it as another user, or name a folder: demo --directory DIR.",
    )


def send_mail(
    config: Config, find_root: Callable[[], Path], subject: str, lines: Iterable[str]
) -> tuple[str, ...]:
    """Send a mail to the recipients in the settings.

    What cannot go through the RAW queue is given to MDaemon by SMTP.

    Args:
        find_root: Returns MDaemon's folder; called only for its RAW queue.

    Returns:
        The recipients, and last where it was sent.

    Raises:
        Error: If it cannot be sent.
    """
    from letsencrypt_mdaemon.system.mail import Mail, RawQueue, Smtp  # noqa: PLC0415

    sender = (config.mail_from or config.to)[0]
    mail = Mail.compose(sender, config.to, subject, lines)
    if config.mail_server != "raw":
        password = config.mail_password
        if config.mail_password_file:
            password = credentials.secret(
                config.mail_password_file, "mail-password-file"
            )
        smtp = Smtp(config.mail_server, config.mail_user, password)
        return (*mail.recipients, smtp.send(mail))
    try:
        queue = RawQueue(lambda: trust.raw_queue(find_root()))
        return (*mail.recipients, queue.send(mail))
    except Error as exc:
        if config.smtp_address is None:
            raise
        host, port = config.smtp_address
        smtp = Smtp(
            f"smtp://[{host}]:{port}" if ":" in host else f"smtp://{host}:{port}"
        )
        why = exc.message if exc.message.endswith(".") else f"{exc.message}."
        _log.warning("%s Sending the mail to %s instead.", why, smtp.url)
        try:
            return (*mail.recipients, smtp.send(mail))
        except Error as second:
            raise type(exc)(f"{exc} {second}", hint=exc.hint) from second


def certificate_store(config: Config, state: State, root: Path) -> Store:
    """Return the store that the settings name."""
    kind, _, folder = config.store.partition(":")
    if sys.platform == "win32" and kind in {"", "windows"}:
        from letsencrypt_mdaemon.stores.windows import WindowsStore  # noqa: PLC0415
        from letsencrypt_mdaemon.windows import access  # noqa: PLC0415

        # To reuse a key, the program has to export it.
        exportable = config.key_exportable or config.key_policy != "new"
        return WindowsStore(
            storage=config.key_storage,
            exportable=exportable,
            readers=[access.SYSTEM, access.ADMINISTRATORS, *_service_sid(root)],
        )
    if kind == "windows":
        message = f"Cannot use store = windows. {NOT_WINDOWS}"
        raise ConfigError(message, hint="Set a folder instead: --store pem:FOLDER.")
    password = None
    if config.pfx_password_file:
        text = credentials.secret(config.pfx_password_file, "pfx-password-file")
        if not text:
            message = f"{config.pfx_password_file} (pfx-password-file) is empty."
            raise ConfigError(message, hint="Write the password into it.")
        password = text.encode()
    path = Path(folder) if folder else state.folder / "certificates"
    if sys.platform == "win32":
        from letsencrypt_mdaemon.windows import security  # noqa: PLC0415 - Windows only

        return PemStore(
            path,
            pfx_password=password,
            readers=_service_sid(root),
            readers_of=security.readers_of,
        )
    return PemStore(path, pfx_password=password)


def _service_sid(root: Path) -> list[str]:
    """Return the account of MDaemon's service on Windows, which reads the keys."""
    if sys.platform == "win32" and (found := windows_service(root)):
        from letsencrypt_mdaemon.windows import security, service  # noqa: PLC0415

        try:
            return [security.sid_of(found.account())]
        except (service.RefusedError, OSError) as exc:
            _log.warning("Could not find the account of MDaemon's service: %s", exc)
    return []


def web_site(config: Config, known: Mapping[str, x509.Certificate]) -> iis.Site | None:
    """Return the IIS site of the settings; None elsewhere, and in a rehearsal.

    Args:
        known: Certificates by thumbprint.

    Raises:
        ConfigError: If IIS cannot use the store.
    """
    if not config.iis_site_name or config.staging or sys.platform != "win32":
        return None
    if config.store not in {"", "windows"}:
        message = f"IIS cannot use certificates from the store {config.store}."
        raise ConfigError(message, hint="Set store = windows.")
    from letsencrypt_mdaemon.mdaemon import iis  # noqa: PLC0415 - Windows only

    return iis.Site(config.iis_site_name, known, add_binding=config.iis_add_binding)


def other_users() -> dict[str, str]:
    """Return the other services of this machine that use a certificate.

    By its thumbprint. The settings do not matter: an administrator may have given one
    of ours to IIS, Remote Desktop or WinRM by hand.

    Raises:
        DeployError: If http.sys or the registry cannot be asked.
    """
    if sys.platform == "win32":
        from letsencrypt_mdaemon.mdaemon.http_sys import HttpSys  # noqa: PLC0415
        from letsencrypt_mdaemon.windows import registry  # noqa: PLC0415

        with explained("read the registry", failure=DeployError):
            found = registry.certificates()
        return found | dict.fromkeys(HttpSys().references(), "http.sys, such as IIS")
    return {}


def server_endpoints(config: Config) -> list[Endpoint]:
    """Return the endpoints of the settings, else this machine's usual ones."""
    if not config.endpoint:
        return endpoints.usual(endpoints.own_addresses())
    given, wrong = _given_endpoints(config)
    if wrong:
        raise ConfigError("; ".join(wrong), hint="Correct the setting endpoint.")
    return endpoints.resolved(given)


def _given_endpoints(config: Config) -> tuple[list[Endpoint], list[str]]:
    given, wrong = [], []
    for url in config.endpoint:
        try:
            given.append(endpoints.Endpoint.parse(url))
        except ValueError as exc:
            wrong.append(str(exc))
    return given, wrong


def problems(loaded: Loaded) -> list[str]:
    """Return what is wrong with settings, as far as no file or port is needed for it.

    What the parsers of the settings find is not among it.
    """
    _, wrong = _given_endpoints(loaded.config)
    found = [f"{loaded.origins['endpoint']}: {why}" for why in wrong]
    if loaded.config.store == "windows" and sys.platform != "win32":
        where = loaded.origins["store"]
        found.append(f"{where}: 'windows' is not valid; use pem:FOLDER. {NOT_WINDOWS}")
    return found
