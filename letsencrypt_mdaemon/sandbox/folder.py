"""The folder of a sandbox MDaemon: INI files, RAW messages, certificate store."""

from __future__ import annotations

import re
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from cryptography import x509

from letsencrypt_mdaemon.errors import Error
from letsencrypt_mdaemon.pki import self_signed as certificates
from letsencrypt_mdaemon.pki.certificate import Certificate, load_key

FOREIGN = "0F1E2D3C4B5A69788796A5B4C3D2E1F001234567"
"""Thumbprint of a foreign certificate that the INI files name; it must stay there."""


class Target(NamedTuple):
    """One INI value that names a certificate; `file` is relative to the folder."""

    file: str
    section: str
    key: str


TARGETS = {
    "mail": Target("App/MDaemon.ini", "SSL", "Certificate"),  # upper-case hex
    "webmail": Target("WorldClient/WorldClient.ini", "SSL", "Certificates"),  # a list
    "admin": Target("WebAdmin/WebAdmin.ini", "SSL", "Certificate"),  # "AB CD EF ..."
}
"""Part of the server -> the INI value that names its certificate.

The sandbox made these up; the real server's keys are not public.
"""

# In Windows-1252 this has the bytes 96, FC, DF, 80 and 85: they are not valid UTF-8,
# and str.splitlines splits at one of them.
REMARK = (
    "; Sandbox \u2013 Gr\u00fc\u00dfe, 5 \u20ac\u2026 its certificate keys are made up"
)

INI_FILES = {
    "App/MDaemon.ini": """\
{remark}
[Sandbox]
Made=Yes
[Domain]
Name=example.test
FQDN={host_name}
[Directories]
Raw={raw}
[Special]
IMAPKeywordFlags=Yes
DisabledAccountsSend550=Yes
[SSL]
Certificate={mail}
[Partner]
Certificate={foreign}
""",
    "App/Domains.dat": """\
{remark}
[example.test]
FQDN={host_name}
IP=127.0.0.1
MaxUsers=0
[example.org]
FQDN=mail.example.org
IP=127.0.0.1
MaxUsers=5
""",
    "WorldClient/WorldClient.ini": """\
{remark}
[General]
HelpURL=https://help.example.test/?topic=ssl&lang=de
[Session]
UseCSRFTokens=Yes
[SSL]
Certificates={webmail}
""",
    "WorldClient/Domains.ini": """\
{remark}
[Default:Settings]
WorldClientAPI:AllowTheseExternalOrigins=https://intranet.example.test
[example.test:Settings]
WorldClientAPI:AllowTheseExternalOrigins=https://{host_name}
""",
    # The first section directly follows a byte order mark.
    "WebAdmin/WebAdmin.ini": """\
\ufeff[SSL]
Certificate={admin}
{remark}
[General]
Language=de
""",
}

ADDRESS = r"[^\s@,]+@[^\s@,]+"

RAW_HEADERS = {
    "from": ("From: ", ADDRESS),
    "to": ("To: ", rf"{ADDRESS}(?: *, *{ADDRESS})*"),
    "replyto": ("Reply-To: ", ADDRESS),
    "cc": ("Cc: ", rf"{ADDRESS}(?: *, *{ADDRESS})*"),
    "subject": ("Subject: ", r".*"),
    "header": ("", r"[!-9;-~]+: .*"),
}
"""Header of a RAW message -> the mail's header, and a pattern for the value."""


class Layout:
    """The absolute paths in the sandbox's folder, whether it exists or not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.app = self.folder / "App"
        self.webroot = self.folder / "WorldClient/HTML"
        self.raw = self.folder / "Queues/Raw"
        self.logs = self.folder / "Logs"
        self.letsencrypt = self.folder / "LetsEncrypt"
        self.certificates = self.folder / "certificates"
        self.delivered = self.folder / "delivered"
        self.bad = self.folder / "bad"


def create(
    folder: Path,
    *,
    host_name: str = "mail.example.test",
    now: datetime | None = None,
) -> Layout:
    """Create a sandbox, with a self-signed certificate valid from `now` on.

    Raises:
        Error: If the folder is not empty, or its name does not fit in an INI file.
    """
    layout = Layout(folder)
    if layout.folder.exists() and any(layout.folder.iterdir()):
        raise Error(
            f"{layout.folder} is not empty; no sandbox was created.",
            hint="Choose a folder that does not exist yet.",
        )
    try:
        str(layout.folder).encode("cp1252")
    except UnicodeEncodeError as exc:
        raise Error(
            f"{layout.folder} has characters that Windows-1252 lacks.",
            hint="Choose a folder with a simpler name.",
        ) from exc
    for place in vars(layout).values():
        place.mkdir(parents=True, exist_ok=True)
    certificate = self_signed(host_name, now or datetime.now(UTC))
    write(certificate, layout.certificates / "self-signed")
    thumbprint = certificate.thumbprint
    values = {
        "remark": REMARK,
        "host_name": host_name,
        "raw": str(layout.raw),
        "mail": thumbprint,
        "webmail": f"{thumbprint},{FOREIGN}".lower(),
        "admin": bytes.fromhex(thumbprint).hex(" ").upper(),
        "foreign": FOREIGN,
    }
    for name, template in INI_FILES.items():
        text = template.format_map(values).replace("\n", "\r\n")
        file = layout.folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(text.encode("utf-8" if text[0] == "\ufeff" else "cp1252"))
    return layout


def read_value(file: Path, section: str, key: str) -> str:
    """Return an INI value as Windows' profile functions do; "" if it is missing.

    Names ignore letter case, and the first of two equal keys wins. The program's `ini`
    is not used here, so that each of the two checks the other.
    """
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return ""
    encoding = "utf-8-sig" if data.startswith(b"\xef\xbb\xbf") else "cp1252"
    inside = False
    for line in data.decode(encoding, "replace").split("\n"):
        name, equals, value = line.partition("=")
        if line.startswith("["):
            inside = line.strip().lower() == f"[{section}]".lower()
        elif inside and equals and name.strip().lower() == key.lower():
            return value.strip()
    return ""


def named(folder: Path, part: str) -> list[str]:
    """Return the thumbprints that a part's INI file names now; [""] for none."""
    target = TARGETS[part]
    value = read_value(folder / target.file, target.section, target.key)
    return value.replace(" ", "").upper().split(",")


def bound(folder: Path) -> dict[str, str]:
    """Return the first thumbprint that each part's INI file names now."""
    return {part: named(folder, part)[0] for part in TARGETS}


def parse_raw(data: bytes) -> bytes:
    """Turn a RAW message into an Internet message.

    Where the specification is silent, this is strict: it refuses unknown headers,
    repeated headers, and angle brackets inside a value.

    Raises:
        ValueError: If the message is malformed.
    """
    head, blank, body = data.decode("ascii").partition("\r\n\r\n")
    if not blank:
        raise ValueError("no blank line after the headers")
    lines: list[str] = []
    seen: set[str] = set()
    for line in head.split("\r\n"):
        match = re.fullmatch(r"([A-Za-z]+) <([ -;=?-~]*)>", line)
        name = match[1].lower() if match else ""
        if not match or name not in RAW_HEADERS:
            raise ValueError(f"not a RAW header: {line!r}")
        if name in seen and name != "header":
            raise ValueError(f"header given twice: {line!r}")
        says, pattern = RAW_HEADERS[name]
        if not re.fullmatch(pattern, match[2]):
            raise ValueError(f"malformed value: {line!r}")
        seen.add(name)
        lines.append(says + match[2])
    if missing := {"from", "to"} - seen:
        raise ValueError(f"header missing: {', '.join(sorted(missing))}")
    return "\r\n".join([*lines, "", body]).encode("ascii")


def waiting(folder: Path, suffix: str) -> list[Path]:
    """Return the files with that suffix in any letter case, oldest first."""
    found = []
    for path in folder.glob("*"):
        with suppress(FileNotFoundError):  # removed since it was listed
            if path.suffix.lower() == suffix and path.is_file():
                found.append((path.stat().st_mtime_ns, path.name, path))
    return [path for *_, path in sorted(found)]


def self_signed(host_name: str, now: datetime) -> Certificate:
    """Return a new certificate, valid for ten years, and its key."""
    return certificates.self_signed([host_name], "rsa2048", start=now, days=3652)


def write(certificate: Certificate, place: Path) -> None:
    """Write a certificate with its key to a new folder of the store."""
    place.mkdir()
    (place / "cert.pem").write_bytes(certificate.cert_pem)
    (place / "chain.pem").write_bytes(certificate.chain_pem)
    (place / "fullchain.pem").write_bytes(certificate.fullchain_pem)
    (place / "privkey.pem").touch(mode=0o600)  # restrict it before writing the key
    (place / "privkey.pem").write_bytes(certificate.key_pem)


def find(store: Path, thumbprint: str) -> Certificate | None:
    """Return the certificate with a thumbprint, if the store has it with a key."""
    for file in sorted(store.glob("*/cert.pem")):
        with suppress(OSError, ValueError, x509.InvalidVersion):  # not one of ours
            leaf = x509.load_pem_x509_certificate(file.read_bytes())
            others = file.with_name("chain.pem").read_bytes()
            chain = x509.load_pem_x509_certificates(others) if others else []
            key = load_key(file.with_name("privkey.pem").read_bytes())
            certificate = Certificate((leaf, *chain), key)
            if certificate.thumbprint == thumbprint:
                return certificate
    return None


def tls_context(certificate: Certificate) -> ssl.SSLContext:
    """Return a TLS server's settings; OSError if the key does not match."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory(prefix="sandbox-") as folder:
        file = Path(folder) / "certificate.pem"
        file.write_bytes(certificate.fullchain_pem + certificate.key_pem)
        context.load_cert_chain(file)
    return context
