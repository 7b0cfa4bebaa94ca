"""A store on every platform: a folder for each certificate, in PEM.

    <store>/<friendly name>/cert.pem, chain.pem, fullchain.pem, privkey.pem
                            and cert.pfx if a password for it is given
"""

from __future__ import annotations

import logging
import os
import shutil
from typing import TYPE_CHECKING

from cryptography import x509

from letsencrypt_mdaemon.certificate import thumbprint
from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.files import make_private_folder, read_limited, write_private

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from letsencrypt_mdaemon.certificate import Certificate

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
        """Yield each certificate with its friendly name, which is its folder's."""
        for folder in self._folders():
            leaf = _leaf(folder)
            if leaf is not None:
                yield leaf, folder.name

    def install(self, certificate: Certificate) -> None:
        """Put a certificate into the store, if it is not there; all of it or nothing.

        Raises:
            DeployError: If it cannot be written.
        """
        final = self.folder / certificate.friendly_name
        if _leaf(final) == certificate.leaf:
            return
        unfinished = self.folder / (_UNFINISHED + certificate.friendly_name)
        files = {
            "privkey.pem": certificate.key_pem,
            "cert.pem": certificate.cert_pem,
            "chain.pem": certificate.chain_pem,
            "fullchain.pem": certificate.fullchain_pem,
        }
        if self._pfx_password:
            files["cert.pfx"] = certificate.pkcs12(self._pfx_password)
        try:
            self._remove_unfinished()
            make_private_folder(unfinished)
            for name, data in files.items():
                write_private(unfinished / name, data)
            if final.exists():
                aside = self.folder / f"{_UNFINISHED}{final.name} damaged"
                final.rename(aside)
            unfinished.rename(final)
        except OSError as exc:
            shutil.rmtree(unfinished, ignore_errors=True)
            message = f"The certificate cannot be put into the store {self.folder}: "
            hint = "Make room, or let this account write there. The certificate is kept."
            raise DeployError(f"{message}{exc.strerror}.", hint=hint) from exc

    def remove(self, wanted: str) -> None:
        """Remove the certificate with this thumbprint, if it is there.

        Raises:
            DeployError: If it cannot be removed.
        """
        for folder in self._folders():
            leaf = _leaf(folder)
            if leaf is not None and thumbprint(leaf) == wanted:
                try:
                    # A rename is whole; what a crash leaves is swept up later.
                    aside = self.folder / (_UNFINISHED + folder.name)
                    folder.rename(aside)
                    shutil.rmtree(aside)
                except OSError as exc:
                    message = f"{folder} cannot be removed: {exc.strerror}."
                    raise DeployError(message, hint="Remove it by hand.") from exc

    def _folders(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        with os.scandir(self.folder) as listing:
            names = sorted(item.name for item in listing if item.is_dir())
        return [
            self.folder / name for name in names if not name.startswith(_UNFINISHED)
        ]

    def _remove_unfinished(self) -> None:
        if self.folder.is_dir():
            for folder in self.folder.glob(f"{_UNFINISHED}*"):
                shutil.rmtree(folder)


def _leaf(folder: Path) -> x509.Certificate | None:
    for name in ("cert.pem", "fullchain.pem"):
        try:
            pem = read_limited(folder / name, LIMIT)
            return x509.load_pem_x509_certificates(pem)[0]
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as exc:
            _log.warning("%s is left out: %s", folder / name, exc)
    return None
