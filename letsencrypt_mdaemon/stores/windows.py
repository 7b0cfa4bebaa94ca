r"""Windows' own store, which MDaemon uses: LocalMachine\My."""

from __future__ import annotations

import hashlib
import logging
import secrets
import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from letsencrypt_mdaemon.errors import ConfigError, DeployError, Error
from letsencrypt_mdaemon.pki.certificate import (
    is_issued_by,
    is_self_signed,
    thumbprint,
)
from letsencrypt_mdaemon.pki.chain import unneeded
from letsencrypt_mdaemon.system.disk import explained
from letsencrypt_mdaemon.windows import access

assert sys.platform == "win32"  # noqa: S101 - tells the type checker

from letsencrypt_mdaemon.windows import (  # noqa: E402 - so are these
    crypt32,
    keys,
    schannel,
    security,
)
from letsencrypt_mdaemon.windows.key_access import Key  # noqa: E402

if TYPE_CHECKING:
    import ssl
    from collections.abc import Collection, Iterator, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime
    from pathlib import Path

    from letsencrypt_mdaemon.pki.certificate import Certificate, PrivateKey

_log = logging.getLogger(__name__)

MY, CA = "My", "CA"


class WindowsStore:
    r"""The local computer's certificates: those with a key in My, issuers in CA.

    Trusted roots are left to Windows and its administrator: nothing is ever written to
    Root.

    Args:
        storage: Who keeps RSA keys: `csp`, the CSP of Schannel, which every program can
            use; or `cng`, the key storage provider of CNG. It always keeps ECDSA keys.
        exportable: Whether the key can be exported.
        readers: SIDs of accounts that must be able to read the key.
    """

    def __init__(
        self,
        *,
        storage: str = "csp",
        exportable: bool = False,
        readers: Sequence[str] = (access.SYSTEM, access.ADMINISTRATORS),
    ) -> None:
        self.storage = storage
        self.exportable = exportable
        self.readers = readers

    def __str__(self) -> str:
        """Return the setting that names this store."""
        return "windows"

    def certificates(self) -> Iterator[tuple[x509.Certificate, str]]:
        """Yield each certificate of My with its friendly name.

        Raises:
            ConfigError: If the store cannot be read.
        """
        yield from self._read(MY)

    def chain(self, wanted: str) -> tuple[x509.Certificate, ...]:
        """Return a certificate with its issuers in CA; empty if it is not in My."""
        found = [leaf for leaf, _ in self._read(MY) if thumbprint(leaf) == wanted]
        issuers = [issuer for issuer, _ in self._read(CA)] if found else []
        chain = found[:1]
        while chain:
            above = [one for one in issuers if is_issued_by(chain[-1], one)]
            # An older one with the same name and key may be there, too.
            newest = max(above, key=lambda one: one.not_valid_before_utc, default=None)
            if newest is None or newest in chain:
                break
            chain.append(newest)
        return tuple(chain)

    def key(self, wanted: str) -> PrivateKey | None:
        """Return a certificate's private key; None if it cannot be exported."""
        password = secrets.token_hex(24)
        with _explained("read", MY, ConfigError), self._found(wanted) as context:
            if context is None:
                return None
            try:
                pfx = crypt32.exported(context, password)
                key = pkcs12.load_key_and_certificates(pfx, password.encode())[0]
            except (OSError, ValueError) as exc:
                _log.debug("Could not export the key of %s: %s", wanted, exc)
                return None
        if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            return key
        return None

    def key_place(self, wanted: str) -> crypt32.KeyPlace | None:
        """Return where a certificate's private key is kept; None if it has none."""
        with _explained("read", MY, ConfigError), self._found(wanted) as context:
            return None if context is None else crypt32.key_place(context)

    def key_provider(self, wanted: str) -> str | None:
        """Return who keeps a certificate's private key; None if it has none."""
        place = self.key_place(wanted)
        return None if place is None else str(place)

    @contextmanager
    def tls_server(
        self, wanted: str, version: ssl.TLSVersion
    ) -> Iterator[schannel.Server]:
        """Make a TLS server of Windows' own with a certificate, and without a port.

        Raises:
            DeployError: If Windows refuses, also later.
        """
        fail = partial(explained, failure=DeployError, hint="Change key-storage.")
        doing = f"make a handshake ({version.name}) by Schannel"
        with fail(doing), self._found(wanted) as context:
            assert context is not None  # noqa: S101 - it was just installed
            with schannel.server(context, version) as made:
                yield made

    def is_key_usable(self, wanted: str) -> bool:
        """Whether this account can use the certificate's private key."""
        with _explained("read", MY, ConfigError), self._found(wanted) as context:
            return context is not None and crypt32.is_key_usable(context)

    def usable_keys(self) -> set[str]:
        """Return the thumbprints of the certificates with a key that can be used."""
        with (
            _explained("read", MY, ConfigError),
            crypt32.opened(MY, flags=crypt32.READ_ONLY) as store,
        ):
            return {
                hashlib.sha1(crypt32.der(context), usedforsecurity=False)
                .hexdigest()
                .upper()
                for context in crypt32.contexts(store)
                if crypt32.is_key_usable(context)
            }

    def key_readers(self, wanted: str) -> list[str] | None:
        """Return the accounts that may read a certificate's key; None if unknown."""
        place = self.key_place(wanted)
        if place is None:
            return None
        try:
            sids = access.readers(Key(place).access_list())
            return [security.name_of(sid) for sid in sids]
        except (OSError, ValueError) as exc:
            _log.debug(
                "Could not read the access list of the key of %s: %s", wanted, exc
            )
            return None

    def writes(self) -> list[Path]:
        """Return no files, but make sure that Windows opens its stores for writing.

        Whether it creates keys is known only when it does.

        Raises:
            ConfigError: If it refuses.
        """
        for name in (CA, MY):
            with (
                _explained("write", name, ConfigError),
                crypt32.opened(name, provider=crypt32.PHYSICAL),
            ):
                pass
        return []

    def install(self, certificate: Certificate) -> list[str]:
        """Put a certificate with its key into My, and its issuers into CA.

        Returns:
            The thumbprints of the issuers that were not there.

        Raises:
            DeployError: If Windows refuses, or one of `readers` cannot read the key.
        """
        added = self._add_issuers(certificate)
        self._install(certificate)
        self.let_read(certificate.thumbprint)
        return added

    def let_read(self, wanted: str) -> None:
        """Make sure that `readers` can read a certificate's key.

        Raises:
            DeployError: If it has no key, or one of them still cannot read it.
        """
        place = self.key_place(wanted)
        if place is None:
            message = f"{wanted} is in LocalMachine\\{MY} without its key."
            raise DeployError(
                message, hint="Run `selftest` to test the store with temporary keys."
            )
        try:
            access.let_read(Key(place), self.readers)
        except (OSError, ValueError) as exc:
            _log.warning(
                "Could not check or change who may read the private key of %s: %s. If "
                "MDaemon does not serve the certificate, check its permissions in "
                "certlm.msc (All Tasks, Manage Private Keys).",
                wanted,
                exc,
            )

    def _add_issuers(self, certificate: Certificate) -> list[str]:
        issuers = [one for one in certificate.chain[1:] if not is_self_signed(one)]
        with _explained("write", CA, DeployError), crypt32.opened(CA) as store:
            return [
                thumbprint(one)
                for one in issuers
                if crypt32.add_encoded(store, _der(one))
            ]

    def remove_issuers(self, added: Collection[str], *, now: datetime) -> list[str]:
        """Remove issuers from CA that are expired, or that no certificate needs.

        Args:
            added: Their thumbprints.

        Returns:
            The thumbprints of those that are not there any more.

        Raises:
            DeployError: If Windows refuses.
        """
        leaves = [leaf for name in keys.STORES for leaf, _ in self._read(name)]
        issuers = {thumbprint(one): one for one, _ in self._read(CA)}
        there = {each: issuers[each] for each in added if each in issuers}
        doomed = unneeded(leaves, there, issuers.values(), now=now)
        with _explained("write", CA, DeployError):
            for digest in doomed:
                self._delete(digest, CA)
        return [each for each in added if each not in there or each in doomed]

    def _install(self, certificate: Certificate) -> None:
        with _explained("write", MY, DeployError):
            with self._found(certificate.thumbprint) as there:
                if (
                    there is not None
                    and crypt32.key_place(there) is not None
                    and crypt32.friendly_name(there) == certificate.friendly_name
                ):
                    return
                former = None if there is None else crypt32.key_place(there)
            self._import(certificate)
        if former is not None:
            keys.delete_unused(former)

    def remove(self, wanted: str) -> None:
        """Remove the certificate with this thumbprint, and its key, if it is there.

        The key stays if another certificate uses it, or if it is not on this disk.

        Raises:
            DeployError: If Windows refuses.
        """
        with _explained("write", MY, DeployError):
            place = self.key_place(wanted)
            self._delete(wanted)
        if place is not None:
            keys.delete_unused(place)

    def _import(self, certificate: Certificate) -> None:
        with keys.kept(
            certificate, storage=self.storage, exportable=self.exportable
        ) as context:
            crypt32.set_friendly_name(context, certificate.friendly_name)
            # Windows would neither rename an existing one nor give it the key. It stays
            # until its replacement is complete.
            self._delete(certificate.thumbprint)
            with crypt32.opened(MY) as store:
                crypt32.add(store, context)
            with self._found(certificate.thumbprint) as there:
                if there is None or crypt32.der(there) != _der(certificate.leaf):
                    raise OSError("the certificate is not in it afterwards")

    def _delete(self, wanted: str, name: str = MY) -> None:
        # The logical store may be a copy of the one in the registry.
        with (
            crypt32.opened(name, provider=crypt32.PHYSICAL) as store,
            crypt32.found(store, wanted) as context,
        ):
            if context is not None:
                crypt32.delete(context)

    @contextmanager
    def _found(self, wanted: str) -> Iterator[crypt32.Context | None]:
        with (
            crypt32.opened(MY, flags=crypt32.READ_ONLY) as store,
            crypt32.found(store, wanted) as context,
        ):
            yield context

    def _read(self, name: str) -> list[tuple[x509.Certificate, str]]:
        found = []
        with (
            _explained("read", name, ConfigError),
            crypt32.existing(name) as store,
        ):
            for context in crypt32.contexts(store):
                label = crypt32.friendly_name(context)
                try:
                    leaf = x509.load_der_x509_certificate(crypt32.der(context))
                    leaf.extensions  # noqa: B018 - a malformed one raises here
                except (ValueError, x509.InvalidVersion) as exc:
                    _log.debug("Skipping a certificate in %s: %s", name, exc)
                else:
                    found.append((leaf, label))
        return found


def _explained(
    doing: str, name: str, failure: type[Error]
) -> AbstractContextManager[None]:
    """Return a context that explains an error of a store."""
    return explained(
        rf"{doing} the certificate store LocalMachine\{name}",
        failure=failure,
        hint="Run as an administrator, or by the scheduled task as SYSTEM; `selftest` "
        "shows what works.",
    )


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)
