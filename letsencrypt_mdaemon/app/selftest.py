"""Test what this program needs on this machine, with temporary objects.

Each check creates an object, checks it, and removes it. It touches nothing that the
server uses, and does not contact the CA.
"""

from __future__ import annotations

import logging
import platform
import sys
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon._version import __version__
from letsencrypt_mdaemon.app import build, scheduling
from letsencrypt_mdaemon.errors import ConfigError, DeployError, Error
from letsencrypt_mdaemon.mdaemon import folders
from letsencrypt_mdaemon.mdaemon.server import PROBE, Semaphores
from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.pki.self_signed import self_signed
from letsencrypt_mdaemon.system import process
from letsencrypt_mdaemon.system.schedule import QUEUED, RUNNING
from letsencrypt_mdaemon.system.tasks import TaskScheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from letsencrypt_mdaemon.app.installation import Installation
    from letsencrypt_mdaemon.pki.certificate import Certificate, KeyType
    from letsencrypt_mdaemon.renewal.store import Store
    from letsencrypt_mdaemon.state.folder import Seal

    if sys.platform == "win32":
        from letsencrypt_mdaemon.stores.windows import WindowsStore

_log = logging.getLogger(__name__)

NAME = "selftest.letsencrypt-mdaemon.invalid"
"""The name in temporary certificates: it cannot exist (RFC 6761, 6.4)."""

RUN_SECONDS = 60.0
"""How long the task of the test may run: it prints a version."""
_DATA = b"letsencrypt-mdaemon selftest"


class Skipped(Exception):  # noqa: N818 - not an error
    """A check does not apply here; the text is the reason."""


class Check(NamedTuple):
    """The result of one check.

    Args:
        result: ok, failed, or skipped.
        detail: What was found, or what failed and what to do.
        failure: The error of a check that failed.
    """

    name: str
    result: str
    detail: str
    seconds: float
    failure: Exception | None = None


class Report(NamedTuple):
    """The results of all checks, and the machine: for a bug report."""

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
            hint="If its advice does not help, attach its output to a bug report.",
        )


def machine() -> dict[str, str]:
    """Return the versions on this machine, without names and addresses."""
    return {
        "letsencrypt-mdaemon": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "frozen": "yes" if getattr(sys, "frozen", False) else "no",
    }


def run(checks: Sequence[tuple[str, Callable[[], str]]]) -> Report:
    """Run every check, even if others fail."""
    done = []
    for name, check in checks:
        _log.info("testing %s", name, extra={"progress": True})
        start = time.monotonic()
        failure: Exception | None = None
        try:
            result, detail = "ok", check()
        except Skipped as exc:
            result, detail = "skipped", str(exc)
        except Error as exc:
            result, detail, failure = "failed", f"{exc.message} {exc.hint}".strip(), exc
        except Exception as exc:  # noqa: BLE001 - shown like any other
            _log.debug("%s", name, exc_info=True)
            result, detail, failure = "failed", f"{type(exc).__name__}: {exc}", exc
        done.append(Check(name, result, detail, time.monotonic() - start, failure))
    return Report(machine(), tuple(done))


def temporary_certificate(kind: KeyType) -> Certificate:
    """Return a self-signed certificate that is valid for a day."""
    start = datetime.now(UTC) - timedelta(hours=1)
    return self_signed([NAME], kind, start=start, days=1)


def store(store: Store, kind: KeyType, *more: Callable[[str], str]) -> str:
    """Check that a certificate is installed, found, and removed.

    Args:
        more: Checks of the certificate with this thumbprint while it is installed.
    """
    certificate = temporary_certificate(kind)
    digest = certificate.thumbprint
    try:
        store.install(certificate)
        if certificate.leaf not in [leaf for leaf, _ in store.certificates()]:
            raise DeployError(
                f"The certificate {digest} was installed, but is not in the store.",
                hint="Check whether another program removes it.",
            )
        found = [inspect(digest) for inspect in more]
    finally:
        store.remove(digest)
    if certificate.leaf in [leaf for leaf, _ in store.certificates()]:
        message = f"The certificate {digest} was removed, but is still in the store."
        raise DeployError(message, hint="Remove it.")
    return "; ".join(["installed, found, removed", *found])


def semaphores(installation: Installation) -> str:
    """Check that MDaemon reacts to a semaphore file that has no effect."""
    app = folders.child(installation.root, "App")
    semaphores = Semaphores(app, (), timeout=installation.config.reload_timeout)
    if reason := semaphores.problem(PROBE):
        raise DeployError(f"{reason}.", hint="Check that MDaemon runs.")
    return f"MDaemon reacted to {PROBE}"


def scheduler(tasks: TaskScheduler, *, patience: float = RUN_SECONDS) -> str:
    """Check that a task is created, runs as SYSTEM, and is deleted.

    Args:
        tasks: A scheduler of tasks with another name than the real one's.
        patience: Seconds until its run must have ended.
    """
    try:
        # Not Python alone: SYSTEM has to find this program, too.
        tasks.install([*scheduling.isolated(), "--version"])
        tasks.start()
        end = time.monotonic() + patience
        while (
            (job := tasks.show())
            and job.last_code is None
            and job.last_result in {"", QUEUED, RUNNING}
            and time.monotonic() < end
        ):
            time.sleep(0.2)
    finally:
        tasks.remove()
    if job is None:
        message = f"The task {tasks.name} was created, but is not there."
        raise DeployError(message, hint="Check the Task Scheduler.")
    if job.last_code != 0:
        result = job.last_result or "did not run"
        if job.last_code is not None:
            result = f"ended with {job.last_code}"
        raise DeployError(
            f"The task {tasks.name}, which runs `{job.command}` as SYSTEM, {result}.",
            hint="SYSTEM must be able to run this program: install it for all users, "
            "below Program Files.",
        )
    return f"created for {job.when}, run as SYSTEM with result 0, deleted"


def python(size: int = sys.maxsize) -> str:
    """Check that Python has 64 bits.

    Windows gives another System32 and another registry to programs of 32 bits.
    """
    if size <= 1 << 32:
        message = "This Python has 32 bits: it does not see all of Windows."
        raise DeployError(message, hint="Install Python for Windows (64-bit).")
    return "64 bits"


def seal(seal: Seal) -> str:
    """Check that sealed data can be opened again on this machine."""
    data = b"self-test"
    closed = seal.close(data)
    if data in closed or seal.open(closed) != data:
        message = "Could not open data that was sealed for this machine."
        raise DeployError(message, hint="The account key could not be saved.")
    return "sealed, opened"


def _cron() -> str:
    try:
        job = scheduling.of_this_system().show()
    except ConfigError as exc:
        raise Skipped(f"{exc.message} {exc.hint}") from exc
    return "`renew` is scheduled" if job else "the crontab can be read"


def checks(installation: Installation) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield the checks for an installation on this system."""
    if sys.platform == "win32":
        yield from _windows_checks(installation)
    else:
        kind = installation.config.key_type
        yield "store", partial(store, installation.store, kind)
        yield "cron", _cron
    yield "semaphores", partial(semaphores, installation)


if sys.platform == "win32":
    import ssl

    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
    from cryptography.hazmat.primitives.serialization import Encoding

    from letsencrypt_mdaemon.verify import loopback
    from letsencrypt_mdaemon.windows import keys, schannel

    def _windows_checks(
        installation: Installation,
    ) -> Iterator[tuple[str, Callable[[], str]]]:
        from letsencrypt_mdaemon.stores.windows import WindowsStore  # noqa: PLC0415
        from letsencrypt_mdaemon.windows import access  # noqa: PLC0415
        from letsencrypt_mdaemon.windows.security import MachineSeal  # noqa: PLC0415

        yield "Python", python
        ours = installation.store
        if isinstance(ours, WindowsStore):
            kinds: list[tuple[str, str, KeyType]] = [
                ("store, RSA key in a CSP", "csp", "rsa2048"),
                ("store, RSA key in CNG", "cng", "rsa2048"),
                ("store, ECDSA key", "cng", "p256"),
            ]
            for name, storage, kind in kinds:
                trial = WindowsStore(
                    storage=storage, exportable=ours.exportable, readers=ours.readers
                )
                more = [_signs, _usable, _exports, serves, _readers]
                yield (
                    name,
                    partial(store, trial, kind, *(partial(x, trial) for x in more)),
                )
        else:
            yield "store", partial(store, ours, installation.config.key_type)
        schtasks = process.system_program("schtasks")
        trial_name = "letsencrypt-mdaemon selftest"
        tasks = TaskScheduler(schtasks, account=access.SYSTEM, name=trial_name)
        yield "Task Scheduler", partial(scheduler, tasks)
        yield "DPAPI", partial(seal, MachineSeal())
        yield "IIS", partial(_iis, installation)

    def _signs(store: WindowsStore, digest: str) -> str:
        place = store.key_place(digest)
        if place is None:
            message = "Windows has the certificate without its key."
            raise DeployError(message, hint="Try the other value of key-storage.")
        if place.kind and place.key_spec != keys.EXCHANGE:
            message = f"Schannel may not use its key ({place})."
            raise DeployError(message, hint="Set key-storage to cng.")
        public = store.chain(digest)[0].public_key()
        signature, data = keys.sign(place, _DATA, public), _DATA
        try:
            if isinstance(public, rsa.RSAPublicKey):
                public.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
            elif isinstance(public, ec.EllipticCurvePublicKey):
                public.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as exc:
            message = f"Its key ({place}) is not that of the certificate."
            hint = "Try the other value of key-storage."
            raise DeployError(message, hint=hint) from exc
        return "its key signs what the certificate verifies"

    def _exports(store: WindowsStore, digest: str) -> str:
        is_given = store.key(digest) is not None
        if is_given != store.exportable:
            how = "cannot" if store.exportable else "can"
            message = f"Its key {how} be exported, against key-exportable."
            raise DeployError(message, hint="Try the other value of key-storage.")
        return "its key can be exported" if is_given else "its key cannot be exported"

    def _usable(store: WindowsStore, digest: str) -> str:
        if not store.is_key_usable(digest):
            message = "Cannot use its private key."
            raise DeployError(message, hint="Try the other value of key-storage.")
        return f"its key can be used ({store.key_place(digest)})"

    def serves(store: WindowsStore, digest: str) -> str:
        """Check that Schannel, as MDaemon uses it, makes handshakes with the key."""
        leaf = store.chain(digest)[0].public_bytes(Encoding.DER)
        versions = [ssl.TLSVersion.TLSv1_2]
        if has_1_3 := sys.getwindowsversion().build >= schannel.TLS_1_3_SINCE:
            versions.append(ssl.TLSVersion.TLSv1_3)
        for version in versions:
            with store.tls_server(digest, version) as server:
                shown = loopback.handshake(server.answer, version, NAME)
            if shown != leaf:
                message = f"Schannel serves another certificate in {version.name}."
                hint = "Try the other value of key-storage."
                raise DeployError(message, hint=hint)
        after = "TLS 1.2 and 1.3" if has_1_3 else "TLS 1.2; this Windows has no TLS 1.3"
        return f"Schannel serves it by {after}"

    def _readers(store: WindowsStore, digest: str) -> str:
        who = store.key_readers(digest)
        return f"accounts that can read its key: {', '.join(who or ['unknown'])}"

    def _iis(installation: Installation) -> str:
        site = build.web_site(installation.config, installation.known)
        if site is None:
            raise Skipped("iis-site-name is not set")
        bound = [
            f"{target}: {thumbprint(leaf) if leaf else 'another, or none'}"
            for target, leaf in site.named().items()
        ]
        return "; ".join(bound) or "the site has no HTTPS binding"
