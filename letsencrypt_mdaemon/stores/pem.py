"""A store for every platform: a folder for each certificate, in PEM.

<store>/<friendly name>/cert.pem, chain.pem, fullchain.pem, privkey.pem
                        and cert.pfx if it has a password
"""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from cryptography import x509

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.pki.certificate import load_key, thumbprint
from letsencrypt_mdaemon.system import disk
from letsencrypt_mdaemon.system.disk import explained

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from letsencrypt_mdaemon.pki.certificate import Certificate, PrivateKey

_log = logging.getLogger(__name__)

MAX_FILE_BYTES = 1 << 20
"""Of a PEM file."""
_UNFINISHED = ".unfinished "


class PemStore:
    """Certificates in a folder, also those that others put there in this form.

    Args:
        pfx_password: Also write a PKCS#12 file with this password; there is no default.
        readers: The SIDs that may read the keys, too, on Windows.
        readers_of: Returns who can read a file; None where its mode says so.
    """

    def __init__(
        self,
        folder: Path,
        *,
        pfx_password: bytes | None = None,
        readers: Sequence[str] = (),
        readers_of: Callable[[Path], list[str] | None] | None = None,
    ) -> None:
        self.folder = folder
        self._pfx_password = pfx_password
        self._readers = readers
        self._readers_of = readers_of

    def __str__(self) -> str:
        """Return the setting that names this store."""
        return f"pem:{self.folder}"

    def certificates(self) -> Iterator[tuple[x509.Certificate, str]]:
        """Yield each certificate with its friendly name, the name of its folder.

        Raises:
            ConfigError: If the store cannot be read.
        """
        for folder, leaf in self._read():
            yield leaf, folder.name

    def chain(self, wanted: str) -> tuple[x509.Certificate, ...]:
        """Return a certificate with its issuers; empty if it is not in the store."""
        for folder, _ in self._read(wanted):
            with suppress(OSError, ValueError, x509.InvalidVersion):
                pem = _pem(folder / "fullchain.pem")
                return tuple(x509.load_pem_x509_certificates(pem))
        return ()

    def key(self, wanted: str) -> PrivateKey | None:
        """Return a certificate's private key; None if it is not available."""
        found = (_key(folder, leaf) for folder, leaf in self._read(wanted))
        return next((key for key in found if key is not None), None)

    def is_key_usable(self, wanted: str) -> bool:
        """Whether the certificate's private key is beside it."""
        return self.key(wanted) is not None

    def usable_keys(self) -> set[str]:
        """Return the thumbprints of the certificates with their private key."""
        return {thumbprint(leaf) for folder, leaf in self._read() if _key(folder, leaf)}

    def key_readers(self, wanted: str) -> list[str] | None:
        """Return who can read a certificate's key on Windows; else None.

        Elsewhere the files are private from the start.
        """
        if self._readers_of is not None:
            for folder, _ in self._read(wanted):
                return self._readers_of(folder / "privkey.pem")
        return None

    def key_provider(self, _: str) -> None:
        """Return None: the key is a file."""
        return

    def let_read(self, wanted: str) -> None:
        """Do nothing: the folder decides who reads the key."""

    def writes(self) -> list[Path]:
        """Return a file that the next certificate needs."""
        return [self.folder / "new"]

    def install(self, certificate: Certificate) -> tuple[str, ...]:
        """Put a certificate into the store unless it is there; all of it or nothing.

        Returns:
            No issuers: they are in its folder.

        Raises:
            DeployError: If the store cannot be written.
        """
        final = self.folder / certificate.friendly_name
        files = {
            "privkey.pem": certificate.key_pem,
            "cert.pem": certificate.cert_pem,
            "chain.pem": certificate.chain_pem,
            "fullchain.pem": certificate.fullchain_pem,
        }
        unfinished = self._unfinished(final)
        replaced = self._unfinished(final, " replaced")
        doing = f"put the certificate into the store {self.folder}"
        hint = "Let this account write there; the certificate is kept until then."
        with explained(doing, failure=DeployError, hint=hint):
            try:
                self._sweep()
                if all(_holds(final / name, data) for name, data in files.items()) and (
                    not self._pfx_password or (final / "cert.pfx").is_file()
                ):
                    return ()
                if self._pfx_password:
                    files["cert.pfx"] = certificate.pkcs12(self._pfx_password)
                disk.fill_private_folder(unfinished, files, self._readers)
                if final.exists():
                    disk.rename(final, replaced)
                disk.rename(unfinished, final)
            except OSError:
                shutil.rmtree(unfinished, ignore_errors=True)
                with suppress(OSError):
                    disk.rename(replaced, final)
                raise
        shutil.rmtree(replaced, ignore_errors=True)
        return ()

    def remove_issuers(self, added: Collection[str], *, now: datetime) -> list[str]:
        """Return all of them: this store has no issuers by themselves."""
        del now
        return list(added)

    def remove(self, wanted: str) -> None:
        """Remove the certificate with this thumbprint, if it is there.

        Raises:
            DeployError: If it cannot be removed.
        """
        hint = "Remove it by hand."
        for folder, _ in self._read(wanted):
            with explained(f"remove {folder}", failure=DeployError, hint=hint):
                self._sweep()
                # A rename is whole; the next sweep removes what a crash leaves.
                disk.rename(folder, self._unfinished(folder))
                _remove(self._unfinished(folder))

    def _read(
        self, wanted: str | None = None
    ) -> Iterator[tuple[Path, x509.Certificate]]:
        """Yield each folder with its certificate; only those with this thumbprint."""
        hint = "Set the store to a folder that this account can read."
        doing = f"read the store {self.folder}"
        with explained(doing, hint=hint):
            try:
                found = sorted(self.folder.iterdir())
            except FileNotFoundError:
                return
        for folder in found:
            leaf = None if folder.name.startswith(_UNFINISHED) else _leaf(folder)
            if leaf is not None and (wanted is None or thumbprint(leaf) == wanted):
                yield folder, leaf

    def _unfinished(self, folder: Path, suffix: str = "") -> Path:
        return self.folder / f"{_UNFINISHED}{folder.name}{suffix}"

    def _sweep(self) -> None:
        """Remove what a killed run left behind."""
        if self.folder.is_dir():
            for path in self.folder.glob(f"{_UNFINISHED}*"):
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        disk.delete(path)


def _pem(path: Path) -> bytes:
    return disk.read_limited(path, MAX_FILE_BYTES, "a PEM file")


def _holds(path: Path, data: bytes) -> bool:
    try:
        return _pem(path) == data
    except (OSError, ValueError):
        return False


def _key(folder: Path, leaf: x509.Certificate) -> PrivateKey | None:
    with suppress(OSError, ValueError):
        key = load_key(_pem(folder / "privkey.pem"))
        if key.public_key() == leaf.public_key():
            return key
    return None


def _leaf(folder: Path) -> x509.Certificate | None:
    for name in ("cert.pem", "fullchain.pem"):
        try:
            pem = _pem(folder / name)
            return x509.load_pem_x509_certificates(pem)[0]
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, x509.InvalidVersion) as exc:
            _log.warning("Skipping %s: %s", folder / name, exc)
    return None
