"""What an administrator runs once: do the parts of this machine do what we rely on?

Each check makes something throw-away, looks at it, and removes it. Nothing that the
server uses is touched; no CA is asked.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from letsencrypt_mdaemon._version import __version__
from letsencrypt_mdaemon.app import build
from letsencrypt_mdaemon.errors import DeployError, Error
from letsencrypt_mdaemon.mdaemon import folders
from letsencrypt_mdaemon.mdaemon.semaphores import Semaphores
from letsencrypt_mdaemon.pki.certificate import Certificate, new_key, thumbprint
from letsencrypt_mdaemon.system.tasks import TaskScheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from letsencrypt_mdaemon.app.installation import Installation
    from letsencrypt_mdaemon.pki.certificate import KeyType
    from letsencrypt_mdaemon.renewal.adapters import Store
    from letsencrypt_mdaemon.state.folder import Seal

    if sys.platform == "win32":
        from letsencrypt_mdaemon.stores.windows import WindowsStore

_log = logging.getLogger(__name__)

NAME = "selftest.letsencrypt-mdaemon.invalid"
"""What the throw-away certificates are for: no such name can exist (RFC 6761, 6.4)."""

Result = Literal["ok", "failed", "left out"]


class LeftOut(Exception):  # noqa: N818 - not an error
    """A check has nothing to look at here; the text says why."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried.

    Args:
        detail: What was seen, or what went wrong and what to do.
    """

    name: str
    result: Result
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """What the checks found, and on what machine: what goes into a bug report."""

    machine: dict[str, str]
    checks: tuple[Check, ...]

    @property
    def failed(self) -> list[str]:
        """The names of the checks that failed."""
        return [check.name for check in self.checks if check.result == "failed"]

    def error(self) -> DeployError:
        """Return the failures as an error."""
        return DeployError(
            f"The self-test failed: {', '.join(self.failed)}.",
            hint="Put the whole report into an issue, if its advice does not help.",
        )


def machine() -> dict[str, str]:
    """Return what tells one machine from another; no names, no addresses."""
    return {
        "letsencrypt-mdaemon": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "frozen": "yes" if getattr(sys, "frozen", False) else "no",
    }


def run(checks: Sequence[tuple[str, Callable[[], str]]]) -> Report:
    """Carry out every check, whatever the others find."""
    done = []
    for name, check in checks:
        _log.info("testing %s", name, extra={"progress": True})
        start = time.monotonic()
        result: Result = "ok"
        try:
            detail = check()
        except LeftOut as exc:
            result, detail = "left out", str(exc)
        except Error as exc:
            result, detail = "failed", f"{exc.message} {exc.hint}".strip()
        except Exception as exc:  # noqa: BLE001 - told like any other
            _log.debug("%s", name, exc_info=True)
            result, detail = "failed", f"{type(exc).__name__}: {exc}"
        done.append(Check(name, result, detail, time.monotonic() - start))
    return Report(machine(), tuple(done))


def throw_away(kind: KeyType) -> Certificate:
    """Return a self-signed certificate for a day."""
    key, now = new_key(kind), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    leaf = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False
        )
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    return Certificate((leaf,), key)


def store(
    store: Store, kind: KeyType, *more: Callable[[str], str]
) -> Callable[[], str]:
    """Return a check: a certificate goes into the store, is found, and goes again.

    Args:
        more: Looks at the one with this thumbprint while it is there.
    """

    def check() -> str:
        certificate = throw_away(kind)
        digest = certificate.thumbprint
        try:
            store.install(certificate)
            if certificate.leaf not in [leaf for leaf, _ in store.certificates()]:
                message = f"{digest} was put into the store, and is not there."
                raise DeployError(message, hint="Does another program remove it?")
            seen = [look(digest) for look in more]
        finally:
            store.remove(digest)
        if certificate.leaf in [leaf for leaf, _ in store.certificates()]:
            message = f"{digest} is still in the store."
            raise DeployError(message, hint="Remove it by hand.")
        return "; ".join(["put there, found, removed", *seen])

    return check


def semaphores(installation: Installation) -> Callable[[], str]:
    """Return a check: the server takes up a semaphore file that does nothing else."""

    def check() -> str:
        app = folders.child(installation.root, "App")
        ears = Semaphores(app, (), timeout=installation.config.reload_timeout)
        if reason := ears.deaf():
            raise DeployError(f"{reason}.", hint="Does MDaemon run?")
        return f"{ears.PROBE} was taken up"

    return check


def scheduler(tasks: TaskScheduler) -> Callable[[], str]:
    """Return a check: a task is registered, shown, and deleted.

    Args:
        tasks: For a task of another name than the real one's.
    """

    def check() -> str:
        try:
            tasks.install([sys.executable, "--version"])
            job = tasks.show()
        finally:
            tasks.remove()
        if job is None:
            message = f"The task {tasks.name} was registered, and is not there."
            raise DeployError(message, hint="Look into the Task Scheduler.")
        return f"registered for {job.when}, shown, deleted"

    return check


def of(installation: Installation) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield the checks for an installation on this system."""
    if sys.platform == "win32":
        yield from _of_windows(installation)
    else:
        yield "store", store(installation.store, installation.config.key_type)
    yield "semaphores", semaphores(installation)


if sys.platform == "win32":

    def _of_windows(
        installation: Installation,
    ) -> Iterator[tuple[str, Callable[[], str]]]:
        from letsencrypt_mdaemon.stores.windows import WindowsStore  # noqa: PLC0415
        from letsencrypt_mdaemon.windows import access  # noqa: PLC0415
        from letsencrypt_mdaemon.windows.dpapi import MachineSeal  # noqa: PLC0415

        ours = installation.store
        if isinstance(ours, WindowsStore):
            kinds: list[tuple[str, str, KeyType]] = [
                ("store, RSA key kept by a CSP", "csp", "rsa2048"),
                ("store, RSA key kept by CNG", "cng", "rsa2048"),
                ("store, ECDSA key", "cng", "p256"),
            ]
            for name, storage, kind in kinds:
                trial = WindowsStore(storage=storage, readers=ours.readers)
                yield name, store(trial, kind, *_looks(trial))
        else:
            yield "store", store(ours, installation.config.key_type)
        schtasks = Path(os.environ.get("SystemRoot", r"C:\Windows"))  # noqa: SIM112
        schtasks = schtasks / "System32" / "schtasks.exe"
        trial_name = "letsencrypt-mdaemon selftest"
        tasks = TaskScheduler(schtasks, account=access.SYSTEM, name=trial_name)
        yield "Task Scheduler", scheduler(tasks)
        yield "DPAPI", seal(MachineSeal())
        yield "IIS", _iis(installation)

    def _looks(store: WindowsStore) -> tuple[Callable[[str], str], ...]:
        def usable(digest: str) -> str:
            if not store.is_key_usable(digest):
                message = "Its private key is there, and cannot be used."
                raise DeployError(message, hint="Try the other key-storage.")
            return f"its key can be used ({store.key_place(digest)})"

        def readers(digest: str) -> str:
            who = store.key_readers(digest)
            return f"its key is read by {', '.join(who) if who else 'nobody knows who'}"

        return usable, readers

    def _iis(installation: Installation) -> Callable[[], str]:
        def check() -> str:
            site = build.web_site(installation.config, installation.known)
            if site is None:
                raise LeftOut("no iis-site-name is set")
            bound = [
                f"{target}: {thumbprint(leaf) if leaf else 'another, or none'}"
                for target, leaf in site.named().items()
            ]
            return "; ".join(bound) or "the site has no https binding"

        return check


def seal(seal: Seal) -> Callable[[], str]:
    """Return a check: what is sealed for the machine can be opened again."""

    def check() -> str:
        data = b"self-test"
        closed = seal.close(data)
        if data in closed or seal.open(closed) != data:
            message = "What was sealed for this machine cannot be opened again."
            raise DeployError(message, hint="The account key could not be kept.")
        return "sealed, opened"

    return check
