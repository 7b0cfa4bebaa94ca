"""Token files for http-01 in the folder that the web server publishes (RFC 8555, 8.3)."""

from __future__ import annotations

import json
import logging
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import AcmeError, ConfigError, words
from letsencrypt_mdaemon.files import make_private_folder, write_private

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_log = logging.getLogger(__name__)

# Base64url (RFC 8555, 8.1), and no longer than a file name may be.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,200}\Z")
# Base64url as well, but Windows opens a device when asked for such a file.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])\Z", re.IGNORECASE)


class Webroot:
    """The challenge folder below a webroot.

    Args:
        folder: The webroot; `.well-known/acme-challenge` is made below it.
        journal: A file of ours that names the token files while they exist, so that
            the run after a crash can remove them.
    """

    def __init__(self, folder: Path, journal: Path) -> None:
        self.folder = folder
        self.journal = journal

    @contextmanager
    def present(self, tokens: Mapping[str, str]) -> Iterator[None]:
        """Show the tokens' files as long as the context lasts.

        Args:
            tokens: Key authorization by token.

        Raises:
            AcmeError: If a token may not become a file name; no file is written then.
            ConfigError: If the files cannot be written there.
        """
        for token in tokens:
            if not _TOKEN.match(token) or _DEVICE.match(token):
                message = f"The CA sent the token {words(token, 80)!r}, not a base64url"
                raise AcmeError(
                    f"{message} one as RFC 8555, 8.1 asks; no file was written for it.",
                    hint="Check the directory URL; tell the CA's operators.",
                )
        self.sweep()
        made: list[Path] = []
        try:
            folder = self._make_folders(made)
            make_private_folder(self.journal.parent)
            write_private(self.journal, json.dumps(dict(tokens)).encode())
            for token, text in tokens.items():
                _create(folder / token, text.encode("ascii"))
            yield
        finally:
            self.sweep()
            for folder in reversed(made):
                _remove_if_empty(folder)

    def sweep(self) -> None:
        """Remove the token files that the journal names, if they are still ours."""
        try:
            tokens = json.loads(self.journal.read_bytes())
            texts = {str(token): str(text) for token, text in tokens.items()}
        except FileNotFoundError:
            return
        except (ValueError, AttributeError, OSError) as exc:
            _log.warning("%s could not be read: %s", self.journal, exc)
            texts = {}
        left = False
        for token, text in texts.items():
            if not _TOKEN.match(token):
                continue  # The journal is a file as well, and may hold anything.
            file = self.folder / ".well-known" / "acme-challenge" / token
            try:
                # A run that was killed while writing leaves the text's beginning.
                if text.encode().startswith(file.read_bytes()):
                    file.unlink()
            except FileNotFoundError:
                pass
            except OSError as exc:
                left = True
                _log.warning("The token file %s could not be removed: %s", file, exc)
        if not left:
            self.journal.unlink(missing_ok=True)

    def _make_folders(self, made: list[Path]) -> Path:
        hint = "Set webroot to the folder that is served on port 80."
        if not self.folder.is_dir():
            message = f"The webroot {self.folder} is not there, or is no folder."
            raise ConfigError(message, hint=hint)
        inside = self.folder.resolve()
        folder = self.folder
        for part in (".well-known", "acme-challenge"):
            folder /= part
            if not folder.resolve().is_relative_to(inside):
                message = f"{folder} is a link to {folder.resolve()}, out of the webroot."
                raise ConfigError(message, hint="Remove the link, or set webroot to it.")
            try:
                folder.mkdir()
                made.append(folder)
            except FileExistsError:
                if not folder.is_dir():
                    message = f"{folder} is not a folder."
                    raise ConfigError(message, hint="Remove it.") from None
            except OSError as exc:
                message = f"The folder {folder} cannot be made: {exc.strerror}."
                raise ConfigError(message, hint="Run as one who may write there.") from exc
        return folder


def _create(file: Path, text: bytes) -> None:
    hint = "Run as one who may write there."
    try:
        with file.open("xb") as stream:
            stream.write(text)
        file.chmod(0o644)  # The web server may run as somebody else.
    except FileExistsError:
        if not file.is_file() or file.read_bytes() != text:
            message = f"{file} is there already, and is not ours."
            hint = "Remove it if nothing else needs it."
            raise ConfigError(message, hint=hint) from None
    except OSError as exc:
        message = f"The token file {file} cannot be written: {exc.strerror}."
        raise ConfigError(message, hint=hint) from exc


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        _log.debug("%s stays: it is not empty", folder)
