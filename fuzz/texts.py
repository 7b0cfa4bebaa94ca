"""What files and command lines hold: each function takes any bytes, and raises nothing.

An assertion in one of them is a property that has to hold for every input.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path

from cryptography import x509

from letsencrypt_mdaemon.cli import legacy
from letsencrypt_mdaemon.config.load import load
from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.mdaemon import forms, ini
from letsencrypt_mdaemon.state import codec, memory
from letsencrypt_mdaemon.state.ledger import Failure, Issuance, Ledger
from letsencrypt_mdaemon.windows import access
from tests.certificates import OPENSSL_PEM, START

SEPARATOR = b"\n===\n"
"""Between the parts of an input that has several."""

_CERTIFICATES = x509.load_pem_x509_certificates(OPENSSL_PEM)
_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-")
_EDIT = ini.Encoding(b"", "utf-8", "replace")


def _parts(data: bytes, count: int) -> list[bytes]:
    """Return the parts of an input; missing ones are empty."""
    parts = data.split(SEPARATOR, count - 1)
    return parts + [b""] * (count - len(parts))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def read_ini(data: bytes) -> None:
    """Read an INI file, set a value, change one, and merge with another file."""
    file, section, key, value, other = _parts(data, 5)
    found = ini.entries(file)
    for entry in found:
        assert 0 <= entry.start <= entry.end <= len(file)
    place, text = (_text(section), _text(key)), _text(value)
    with suppress(ValueError):
        changed = ini.set_value(file, *place, text)
        assert {entry.value for entry in ini.lookup(changed, *place)} == {text}
        after = ini.entries(changed)
        assert len(after) in {len(found), len(found) + 1}
    if found:
        with suppress(ValueError):
            changed = ini.substitute(file, {found[-1]: text})
            last = found[-1]
            assert changed[: last.start] == file[: last.start]
            assert changed.endswith(file[last.end :])
    with suppress(ValueError):
        ini.merged(file, other, file)


def find_forms(data: bytes) -> None:
    """Find a certificate's names in a text, and read a form's spelling."""
    text = _text(data)
    for hit in forms.find(text, _CERTIFICATES):
        named = text[hit.start : hit.end]
        assert hit.form.write(hit.certificate).lower() == named.lower()
        assert forms.parse(str(hit.form)) == hit.form
        assert hit.form.shape().search(text)
    with suppress(ValueError):
        assert str(forms.parse(text)) == text.strip().lower()


def translate_switches(data: bytes) -> None:
    """Translate a command line of the old script; a line is an argument."""
    words = _text(data).split("\n")
    if legacy.is_legacy(words):
        with suppress(ConfigError):
            assert legacy.translate(words)[0] == "renew"


def load_settings(data: bytes) -> None:
    """Load a config file, and show what it sets."""
    file = Path(_FOLDER.name, "letsencrypt-mdaemon.ini")
    file.write_bytes(data)
    with suppress(ConfigError):
        json.dumps(load({}, {}, file).shown()).encode()


_RECORDS: tuple[type, ...] = (
    *(memory.Memory, memory.Attempt, memory.Account, memory.OpenOrder, memory.Draw),
    Ledger,
)


def read_state(data: bytes) -> None:
    """Read a state file; the first byte says which. What is read is written again."""
    kind, file = data[:1], data[1:]
    number = b"012345".find(kind) if kind else -1
    with suppress(*codec.DAMAGE):
        if number < 0:
            codec.decode_pending(file)
        elif _RECORDS[number] is Ledger:
            codec.decode_ledger(file)
        else:
            record: object = codec.decode(file, _RECORDS[number])
            assert codec.decode(codec.encode(record), _RECORDS[number]) == record


def read_access_list(data: bytes) -> None:
    """Read an access list, and let one more account read."""
    listed = _text(data)
    sid = "S-1-5-80-1"
    with suppress(ValueError):
        entries = access.entries(listed)
        access.strangers(listed)
        access.readers(listed)
        private = access.is_private(listed, [])
        assert private == all(
            entry.sid in {access.SYSTEM, access.ADMINISTRATORS}
            for entry in entries
            if entry.allows
        )
        if "NO_ACCESS_CONTROL" not in listed:
            assert access.entries(access.with_reader(listed, sid))[-1].sid == sid


def _records() -> list[bytes]:
    target = memory.Target("App/MDaemon.ini", "Domain", "Certificate", "sha1:upper")
    change = memory.Change(target, 3, "AB", "CD")
    issued = memory.Issued("AB", "https://ca.test/dir", ("mail.example.test",), START)
    ledger = Ledger(
        issuances=(Issuance(("mail.example.test",), START),),
        failures=(Failure("mail.example.test", (START,), "no answer"),),
    )
    records = (
        memory.Memory(targets=(target,), issued=(issued,), runs=(START,)),
        memory.Attempt("AB", {"smtp://[::1]:25": "CD"}, (change,)),
        memory.Account({"kty": "EC", "crv": "P-256"}, "https://ca.test/acct/1"),
        memory.OpenOrder("https://ca.test/1", "https://ca.test/2", (), "p256", "PEM"),
        memory.Draw("AB", START, START, START, START),
        ledger,
    )
    return [
        str(number).encode() + codec.encode(record)
        for number, record in enumerate(records)
    ]


_THUMBPRINT = forms.DEFAULT.write(_CERTIFICATES[0])

TARGETS = {
    "ini": (
        read_ini,
        [
            b"[Domain]\r\nName=a\r\n; no\r\n===\nDomain\n===\nName\n===\nb\n===\nx=1",
            b"a=1\n[b]\n===\nb\n===\nc\n===\nd",
            "\ufeff[ä]\r\nKey = ü\r\n".encode() + b"\n===\n\n===\nKey\n===\nv",
            "\ufeff[a]\nb=c\n".encode("utf-16-le"),
        ],
    ),
    "forms": (
        find_forms,
        [form.write(_CERTIFICATES[0]).encode() for form in forms.every()[::7]]
        + [_THUMBPRINT.encode() + b",0x" + _THUMBPRINT.lower().encode()]
        + [str(form).encode() for form in forms.every()[::9]],
    ),
    "legacy": (
        translate_switches,
        [
            b"-AlternateHostNames\na,b\n-To:x@y.test\n-Skip\n--verbose",
            "\u2013RemoveOldCertificates:$false\n-IIS:\nDefault".encode(),
        ],
    ),
    "config": (
        load_settings,
        [
            (
                b"[letsencrypt-mdaemon]\nagree-tos = yes\nto = a@b.test, c@d.test\n"
                b"endpoint = smtp://[::1]:25\nstore = pem:C\nrenew-days = 30\n"
                b"[target mail]\nfile = App/MDaemon.ini\nkey = k\nform = sha1:upper\n"
            ),
            (
                b"[letsencrypt-mdaemon]\nmail-server = mail:587\ndelay = 5\n"
                b"directory-url = zerossl\nhost-name = m\xc3\xbcnchen.test\n"
            ),
        ],
    ),
    "state": (read_state, [*_records(), b"9" + OPENSSL_PEM]),
    "sddl": (
        read_access_list,
        [
            b"D:PAI(A;OICI;FA;;;SY)(A;OICIIO;0x1301bf;;;BA)(D;;FRFW;;;S-1-5-21-1)",
            b"D:NO_ACCESS_CONTROL",
            b"O:SYG:SYD:AI(A;ID;GAGR;;;CO)S:AI(AU;SA;FA;;;WD)",
        ],
    ),
}
"""By name: the function, and inputs of our own to start from."""
