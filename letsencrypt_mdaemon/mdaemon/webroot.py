"""Serve token files for http-01 in the webroot (RFC 8555, 8.3)."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import AcmeError, ConfigError
from letsencrypt_mdaemon.mdaemon.folders import child, is_below
from letsencrypt_mdaemon.system import disk
from letsencrypt_mdaemon.system.handles import PUBLIC, Folder
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from letsencrypt_mdaemon.mdaemon.folders import IniFiles

_log = logging.getLogger(__name__)

FOLDERS = (".well-known", ".well-known/acme-challenge")
MAX_FILE_BYTES = 1 << 20
"""A key authorization has about 100 bytes; the journal of 100 of them has 20,000."""

WEB_CONFIG = "web.config"
# IIS serves files without an extension only if a MIME type is set for them. The section
# "handlers" is locked: with it IIS answers 500, as it does if a type is set twice.
_WEB_CONFIG = b"""<?xml version="1.0" encoding="UTF-8"?>
<configuration>
  <system.webServer>
    <staticContent>
      <remove fileExtension="." />
      <mimeMap fileExtension="." mimeType="text/plain" />
    </staticContent>
  </system.webServer>
</configuration>
"""

# Base64url (RFC 8555, 8.1), and short enough for a file name.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,200}\Z")
# Base64url as well, but Windows opens a device by such a name.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])\Z", re.IGNORECASE)


MAX_PORTS = 8
"""Ports of webmail that are looked at."""


def webmail_ports(files: IniFiles) -> list[int]:
    """Return what looks like a port in WorldClient.ini: no key is documented."""
    try:
        entries = files.entries(child(files.root, "WorldClient", "WorldClient.ini"))
    except ConfigError:
        return []
    found = [entry.value for entry in entries if "port" in entry.key.lower()]
    ports = [int(text) for text in found if re.fullmatch(r"[1-9][0-9]{0,4}", text)]
    return [port for port in ports if port < 1 << 16][:MAX_PORTS]


@dataclass(slots=True)
class Webroot:
    """The challenge folder below a webroot.

    Args:
        folder: The webroot; `.well-known/acme-challenge` is created below it.
        journal: A file that lists what we create there, so that the run after a crash
            can remove it.
        web_config: Whether IIS serves the folder, and needs a web.config there.
    """

    folder: Path
    journal: Path
    web_config: bool = False

    def writes(self) -> list[Path]:
        """Return the files that validation needs here: the journal, and a token's.

        Raises:
            ConfigError: If the webroot is missing, or has something else in the way.
        """
        self._missing_folders()
        return [self.journal, self._file("token")]

    @contextmanager
    def present(self, tokens: Mapping[str, str]) -> Iterator[None]:
        """Serve the token files while the context lasts.

        Args:
            tokens: Key authorization by token.

        Raises:
            AcmeError: If a token is not allowed as a file name; no file is written.
            ConfigError: If the files must not be written, or the webroot is missing.
            Error: If they cannot, because the disk is full or fails.
        """
        for token in tokens:
            if not _is_file_name(token):
                message = f"The CA sent the token {printable(token, 80)!r}, which is "
                message += "not base64url (RFC 8555, 8.1) or names a device."
                hint = "Check the directory URL, or contact the CA's operators."
                raise AcmeError(message, hint=hint)
        self.sweep()
        missing = self._missing_folders()
        texts = {token: text.encode("ascii") for token, text in tokens.items()}
        # Before the journal lists them as ours.
        absent = [token for token in texts if not self._is_there(token, texts[token])]
        journal: dict[str, object] = {"folders": missing, "tokens": dict(tokens)}
        if self.web_config and not os.path.lexists(self._file(WEB_CONFIG)):
            journal[WEB_CONFIG] = True
            texts[WEB_CONFIG] = _WEB_CONFIG
            absent.append(WEB_CONFIG)
        try:
            with disk.explained(f"write {self.journal}"):
                disk.make_private_folder(self.journal.parent)
                disk.write_private(self.journal, json.dumps(journal).encode())
            for name in missing:
                self._make(self.folder / name)
            for token in absent:
                self._create(self._file(token), texts[token])
            yield
        finally:
            self.sweep()

    def sweep(self) -> None:
        """Remove the files and folders in the journal that are still ours."""
        journal = self._journal()
        if journal is None:
            return
        folders, texts = journal
        if not is_below(self._file("x"), self.folder):
            _log.warning("Skipping %s: a link leads out of it", self.folder)
            return
        if [token for token in texts if not self._is_removed(token, texts[token])]:
            return
        for name in reversed(folders):
            path = self.folder / name
            try:
                with self._inside(path.parent) as folder:
                    folder.remove_folder(path.name)
            except OSError as exc:
                _log.debug("Could not remove %s: %s", path, exc)
        try:
            with suppress(FileNotFoundError):
                disk.delete(self.journal)
        except OSError as exc:
            _log.warning("Could not remove %s: %s", self.journal, disk.reason(exc))

    def _is_removed(self, token: str, text: bytes) -> bool:
        """Remove a token file if it is ours; return False if that fails."""
        file = self._file(token)
        try:
            # A run that was killed while writing leaves the start of the text.
            if text.startswith(disk.read_limited(file, MAX_FILE_BYTES)):
                with self._inside(file.parent) as folder:
                    folder.remove(file.name)
        except (FileNotFoundError, ValueError):
            return True
        except OSError as exc:
            _log.warning(
                "Could not remove the token file %s: %s", file, disk.reason(exc)
            )
            return False
        return True

    def _journal(self) -> tuple[list[str], dict[str, bytes]] | None:
        """Return the folders and the texts by token in the journal, if there is one."""
        try:
            document = json.loads(disk.read_limited(self.journal, MAX_FILE_BYTES))
            texts = {
                token: str(text).encode("ascii")
                for token, text in document["tokens"].items()
                if _is_file_name(token)
            }
            if document.get(WEB_CONFIG):
                texts[WEB_CONFIG] = _WEB_CONFIG
            return [name for name in FOLDERS if name in document["folders"]], texts
        except FileNotFoundError:
            return None
        except OSError as exc:
            _log.warning("Could not read %s: %s", self.journal, disk.reason(exc))
            return None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            _log.warning("%s is damaged and was discarded", self.journal)
            return [], {}

    def _missing_folders(self) -> list[str]:
        if not self.folder.is_dir():
            message = f"The webroot {self.folder} is not a folder."
            hint = "Set webroot to the folder that port 80 serves."
            raise ConfigError(message, hint=hint)
        missing = []
        for name in FOLDERS:
            folder = self.folder / name
            if not is_below(folder, self.folder):
                message = f"{folder} is a link that leads out of the webroot."
                raise ConfigError(message, hint="Remove the link.")
            if not folder.is_dir():
                if folder.exists() or folder.is_symlink():
                    message = f"{folder} is not a folder."
                    raise ConfigError(message, hint="Remove it.")
                missing.append(name)
        return missing

    def _is_there(self, token: str, text: bytes) -> bool:
        """Whether the file exists already, from a run whose journal was lost."""
        file = self._file(token)
        try:
            if disk.read_limited(file, MAX_FILE_BYTES) == text:
                return True
        except FileNotFoundError:
            if not file.is_symlink():
                return False
        except (OSError, ValueError) as exc:
            _log.debug("%s: %s", file, exc)
        message = f"{file} already exists, and this program did not create it."
        raise ConfigError(message, hint="Remove it if nothing else needs it.")

    # The web server may use another account, so what is made is for all to read.

    def _make(self, path: Path) -> None:
        with (
            disk.explained(f"create the folder {path}"),
            self._inside(path.parent) as folder,
        ):
            folder.make_folder(path.name, 0o755, inherits=True)

    def _create(self, file: Path, text: bytes) -> None:
        with (
            disk.explained(f"write the token file {file}"),
            self._inside(file.parent) as folder,
        ):
            folder.create(file.name, text, mode=PUBLIC, durable=False)

    @contextmanager
    def _inside(self, path: Path) -> Iterator[Folder]:
        """Open a folder of the webroot; on Windows it cannot be replaced from then on.

        Raises:
            OSError: If it is none, or a link leads out of the webroot.
        """
        with Folder(path) as folder:
            if not is_below(folder.path, self.folder):
                raise OSError(errno.ELOOP, "A link leads out of the webroot", str(path))
            yield folder

    def _file(self, token: str) -> Path:
        return self.folder / FOLDERS[-1] / token


def _is_file_name(token: str) -> bool:
    return bool(_TOKEN.match(token)) and not _DEVICE.match(token)
