"""Make adapters from the settings."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import ConfigError, DeployError
from letsencrypt_mdaemon.mdaemon import folders
from letsencrypt_mdaemon.state.folder import State
from letsencrypt_mdaemon.stores.pem import PemStore
from letsencrypt_mdaemon.system.disk import sweep
from letsencrypt_mdaemon.system.locks import exclusive_lock
from letsencrypt_mdaemon.verify import endpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from cryptography import x509

    from letsencrypt_mdaemon.acme.account import ExternalAccount
    from letsencrypt_mdaemon.config.load import Loaded
    from letsencrypt_mdaemon.config.settings import Config
    from letsencrypt_mdaemon.mdaemon import iis
    from letsencrypt_mdaemon.renewal.adapters import Store
    from letsencrypt_mdaemon.system.mail import Transport
    from letsencrypt_mdaemon.verify.endpoints import Endpoint
    from letsencrypt_mdaemon.windows.service import Service

_log = logging.getLogger(__name__)


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


def state_of(config: Config, root: Path) -> State:
    """Return the state folder; by default a folder beside the old script."""
    default = folders.child(root, "LetsEncrypt") / "letsencrypt-mdaemon"
    folder = config.state_dir or default
    if sys.platform == "win32":
        from letsencrypt_mdaemon.windows.security import MachineSeal  # noqa: PLC0415

        return State(folder, read_only=config.dry_run, seal=MachineSeal())
    return State(folder, read_only=config.dry_run)


def note_end(config: Config, root: Path, exit_code: int) -> None:
    """Save the exit code of a scheduled run, because cron does not."""
    state = state_of(config, root)
    state.save(state.load()._replace(exit_code=exit_code))


@contextmanager
def locked(
    config: Config, root: Path, config_file: Path | None = None
) -> Iterator[State]:
    """Be the only run at an installation, and tidy up what a killed one left.

    Raises:
        BusyError: If another run holds the lock.
        ConfigError: If this is SYSTEM, and others may change its program or config.
        Error: If the state folder cannot be used.
    """
    state = state_of(config, root)
    with exclusive_lock(state.lock):
        guard(state, config_file)
        sweep(state.folder)
        yield state


def guard(state: State, config_file: Path | None) -> None:
    """Make the state folder private, and let SYSTEM trust no shared folder.

    Only on Windows; elsewhere their mode makes folders private.

    Raises:
        ConfigError: If this is SYSTEM, and others may change its program or config.
    """
    if sys.platform == "win32":
        from letsencrypt_mdaemon.windows import access, security  # noqa: PLC0415

        us = security.own_sid()
        if us == access.SYSTEM:
            require_trusted(config_file)
        try:
            access.keep_private(security.Folder(state.folder), [us])
        except (DeployError, OSError, ValueError) as exc:
            _log.warning("The folder %s is not private: %s", state.folder, exc)


def require_trusted(config_file: Path | None) -> None:
    """Refuse to let SYSTEM run a program that others may change, on Windows.

    Raises:
        ConfigError: If others may change the program or its config file.
    """
    if sys.platform == "win32":
        from letsencrypt_mdaemon.windows import access, security  # noqa: PLC0415

        # A frozen program holds its modules; its libraries are beside it.
        trusted = [Path(sys.executable).parent]
        if getattr(sys, "frozen", False):
            trusted.append(trusted[0] / "_internal")
        else:
            trusted.append(Path(__file__).parents[1])
        if config_file is not None:
            trusted += [config_file, config_file.absolute().parent]
        access.refuse_shared({str(path): security.Folder(path) for path in trusted})


def send_mail(
    config: Config, find_root: Callable[[], Path], subject: str, lines: Iterable[str]
) -> tuple[str, ...]:
    """Send a mail to the recipients in the settings.

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
    transport: Transport = RawQueue(lambda: folders.raw_queue(find_root()))
    if config.mail_server != "raw":
        password = config.mail_password
        if config.mail_password_file:
            password = _secret(config.mail_password_file, "mail-password-file")
        transport = Smtp(config.mail_server, config.mail_user, password)
    return (*mail.recipients, transport.send(mail))


def certificate_store(config: Config, state: State, root: Path) -> Store:
    """Return the store that the settings name."""
    kind, _, folder = config.store.partition(":")
    if sys.platform == "win32" and kind in {"", "windows"}:
        from letsencrypt_mdaemon.stores.windows import WindowsStore  # noqa: PLC0415
        from letsencrypt_mdaemon.windows import access  # noqa: PLC0415

        # To reuse a key, the program has to export it.
        exportable = config.key_exportable or config.key_policy == "reuse"
        return WindowsStore(
            storage=config.key_storage,
            exportable=exportable,
            readers=[access.SYSTEM, access.ADMINISTRATORS, *_service_sid(root)],
        )
    if kind == "windows":
        message = "Cannot use store = windows: this system is not Windows."
        raise ConfigError(message, hint="Set a folder instead: --store pem:FOLDER.")
    password = None
    if config.pfx_password_file:
        text = _secret(config.pfx_password_file, "pfx-password-file")
        if not text:
            message = f"{config.pfx_password_file} (pfx-password-file) is empty."
            raise ConfigError(message, hint="Write the password into it.")
        password = text.encode()
    path = Path(folder) if folder else state.folder / "certificates"
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


def external_account(config: Config) -> ExternalAccount | None:
    """Return the external account at the CA, if the settings name one."""
    from letsencrypt_mdaemon.acme.account import ExternalAccount  # noqa: PLC0415 - slow

    key = config.eab_key
    if config.eab_key_file:
        key = _secret(config.eab_key_file, "eab-key-file")
    if not config.eab_kid and not key:
        return None
    if not config.eab_kid or not key:
        missing = "its key (eab-key-file)" if config.eab_kid else "eab-kid"
        message = f"The external account is incomplete: {missing} is missing."
        raise ConfigError(message, hint="The CA's web site shows both.")
    try:
        return ExternalAccount.read(config.eab_kid, key)
    except ValueError as exc:
        where = config.eab_key_file or "eab-key"
        message = f"The key of the external account ({where}) {exc}."
        raise ConfigError(message, hint="Copy it from the CA's web site.") from exc


def _secret(path: Path, setting: str) -> str:
    try:
        # Windows' editors may write a byte order mark.
        return path.read_text("utf-8-sig").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as exc:
        message = f"Could not read {path} ({setting}): {exc}"
        hint = "Check the path and its permissions."
        raise ConfigError(message, hint=hint) from exc


def server_endpoints(config: Config) -> list[Endpoint]:
    """Return the endpoints of the settings, else this machine's usual ones."""
    if not config.endpoint:
        return endpoints.usual(endpoints.own_addresses())
    given, problems = [], []
    for url in config.endpoint:
        try:
            given.append(endpoints.Endpoint.parse(url))
        except ValueError as exc:
            problems.append(str(exc))
    if problems:
        raise ConfigError("; ".join(problems), hint="Correct the setting endpoint.")
    return endpoints.resolved(given)
