"""What a run asks of a certificate store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime
    from pathlib import Path

    from cryptography import x509

    from letsencrypt_mdaemon.pki.certificate import Certificate, PrivateKey


class Store(Protocol):
    """Keeps certificates where the server's programs find them."""

    def certificates(self) -> Iterable[tuple[x509.Certificate, str]]:
        """Return each certificate with its friendly name."""

    def chain(self, wanted: str) -> tuple[x509.Certificate, ...]:
        """Return the certificate with this thumbprint and its known issuers."""

    def key(self, wanted: str) -> PrivateKey | None:
        """Return a certificate's private key, or None if the store keeps it."""

    def key_provider(self, wanted: str) -> str | None:
        """Return who keeps a certificate's private key; None for a file."""

    def key_readers(self, wanted: str) -> list[str] | None:
        """Return the accounts that may read a certificate's key; None if unknown."""

    def is_key_usable(self, wanted: str) -> bool:
        """Whether a certificate's private key is there and can be used."""

    def usable_keys(self) -> Collection[str]:
        """Return the thumbprints for which that is so; read the store once."""

    def let_read(self, wanted: str) -> None:
        """Let the server's account read a certificate's key.

        Raises:
            DeployError: If it cannot.
        """

    def writes(self) -> list[Path]:
        """Return the files that `install` writes; a `ConfigError` if it must fail."""
        ...

    def install(self, certificate: Certificate) -> Collection[str]:
        """Install a certificate with its key and friendly name, if it is missing.

        Returns:
            The thumbprints of the issuers that were added, and were not there.
        """
        ...

    def remove(self, wanted: str) -> None:
        """Remove the certificate with this thumbprint and its key, if it is there."""

    def remove_issuers(self, added: Collection[str], *, now: datetime) -> list[str]:
        """Remove issuers that are expired, or that no certificate needs.

        Args:
            added: Their thumbprints; no others are touched.

        Returns:
            The thumbprints of those that are not there any more.
        """
        ...
