"""A store on every platform: a folder for each certificate, in PEM.

<store>/<friendly name>/cert.pem, chain.pem, fullchain.pem, privkey.pem
                        and cert.pfx if a password for it is given
"""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from cryptography import x509

from letsencrypt_mdaemon.errors import ConfigError, DeployError
from letsencrypt_mdaemon.pki.certificate import load_key, thumbprint
from letsencrypt_mdaemon.system.disk import fill_private_folder, read_limited

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from letsencrypt_mdaemon.pki.certificate import Certificate, PrivateKey

_log = logging.getLogger(__name__)

LIMIT = 1 << 20
"""Bytes of a PEM file."""
_UNFINISHED = ".unfinished "


class PemStore:
    """Certificates in a folder.

    One that somebody else put there in this form counts as well.

    Args:
        pfx_password: Also write a PKCS#12 file with this password; never a default one.
    """

    def __init__(self, folder: Path, *, pfx_password: bytes | None = None) -> None:
        self.folder = folder
        self._pfx_password = pfx_password

    def certificates(self) -> Iterator[tuple[x509.Certificate, str]]:
        """Yield each certificate with its friendly name, which is its folder's.

        Raises:
            ConfigError: If the store cannot be read.
        """
        for folder in self._folders():
            leaf = _leaf(folder)
            if leaf is not None:
                yield leaf, folder.name

    def chain(self, wanted: str) -> tuple[x509.Certificate, ...]:
        """Return the chain that came with a certificate; empty if it is not kept."""
        for folder in self._folders():
            leaf = _leaf(folder)
            if leaf is not None and thumbprint(leaf) == wanted:
                with suppress(OSError, ValueError, x509.InvalidVersion):
                    pem = read_limited(folder / "fullchain.pem", LIMIT)
                    return tuple(x509.load_pem_x509_certificates(pem))
        return ()

    def key(self, wanted: str) -> PrivateKey | None:
        """Return a certificate's private key; None if it cannot be had."""
        for folder in self._folders():
            leaf = _leaf(folder)
            if leaf is not None and thumbprint(leaf) == wanted:
                with suppress(OSError, ValueError):
                    key = load_key(read_limited(folder / "privkey.pem", LIMIT))
                    if key.public_key() == leaf.public_key():
                        return key
        return None

    def key_readers(self, _: str) -> None:
        """Return nothing: its files are private, by the mode they are made with."""
        return

    def install(self, certificate: Certificate) -> None:
        """Put a certificate into the store, if it is not there; all of it or nothing.

        Raises:
            DeployError: If it cannot be written.
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
        try:
            self._sweep()
            if all(_holds(final / name, data) for name, data in files.items()) and (
                not self._pfx_password or (final / "cert.pfx").is_file()
            ):
                return
            if self._pfx_password:
                files["cert.pfx"] = certificate.pkcs12(self._pfx_password)
            fill_private_folder(unfinished, files)
            if final.exists():
                final.rename(replaced)
            unfinished.rename(final)
        except OSError as exc:
            shutil.rmtree(unfinished, ignore_errors=True)
            with suppress(OSError):
                replaced.rename(final)
            message = f"The certificate cannot be put into the store {self.folder}: "
            hint = "Make room, or let this account write there; it is kept till then."
            raise DeployError(f"{message}{exc.strerror or exc}.", hint=hint) from exc
        shutil.rmtree(replaced, ignore_errors=True)

    def remove(self, wanted: str) -> None:
        """Remove the certificate with this thumbprint, if it is there.

        Raises:
            DeployError: If it cannot be removed.
        """
        for folder in self._folders():
            leaf = _leaf(folder)
            if leaf is not None and thumbprint(leaf) == wanted:
                try:
                    self._sweep()
                    # A rename is whole; what a crash leaves then is swept up later.
                    aside = folder.rename(self._unfinished(folder))
                    _remove(aside)
                except OSError as exc:
                    message = f"{folder} cannot be removed: {exc.strerror or exc}."
                    raise DeployError(message, hint="Remove it by hand.") from exc

    def _folders(self) -> list[Path]:
        try:
            found = sorted(self.folder.iterdir())
        except FileNotFoundError:
            return []
        except OSError as exc:
            message = f"The store {self.folder} cannot be read: {exc.strerror or exc}."
            hint = "Name a folder, and let us read it."
            raise ConfigError(message, hint=hint) from exc
        return [path for path in found if not path.name.startswith(_UNFINISHED)]

    def _unfinished(self, folder: Path, suffix: str = "") -> Path:
        return self.folder / f"{_UNFINISHED}{folder.name}{suffix}"

    def _sweep(self) -> None:
        """Remove what a run that was killed left behind."""
        if self.folder.is_dir():
            for path in self.folder.glob(f"{_UNFINISHED}*"):
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _holds(path: Path, data: bytes) -> bool:
    try:
        return read_limited(path, LIMIT) == data
    except (OSError, ValueError):
        return False


def _leaf(folder: Path) -> x509.Certificate | None:
    for name in ("cert.pem", "fullchain.pem"):
        try:
            pem = read_limited(folder / name, LIMIT)
            return x509.load_pem_x509_certificates(pem)[0]
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, x509.InvalidVersion) as exc:
            _log.warning("%s is left out: %s", folder / name, exc)
    return None
