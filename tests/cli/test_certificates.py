"""The certificates of the store: shown with their uses, and removed if unused."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from letsencrypt_mdaemon.app import certificates as listing
from letsencrypt_mdaemon.pki.certificate import Certificate, thumbprint
from letsencrypt_mdaemon.pki.self_signed import WEAK_RSA, weakness
from letsencrypt_mdaemon.sandbox import folder as sandbox
from letsencrypt_mdaemon.state.folder import State
from letsencrypt_mdaemon.state.memory import IIS, Attempt, Change, Target
from letsencrypt_mdaemon.system import disk
from tests.certificates import certificate, key
from tests.program import HOST_NAME, Program
from tests.wine import windows_too

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def put(
    program: Program,
    name: str = "bought",
    names: Iterable[str] = (HOST_NAME,),
    **more: Any,  # noqa: ANN401 - as `certificate` takes it
) -> Certificate:
    """Put a certificate of another CA into the store, as another program does."""
    start = more.pop("start", datetime.now(UTC).replace(microsecond=0) - HOUR)
    made = certificate(names, start=start, own_key=key(len(name) + 40), **more)
    sandbox.write(made, program.layout.certificates / name)
    return made


def listed(program: Program) -> dict[str, dict[str, Any]]:
    """Return what `certificates` shows, by thumbprint."""
    ran = program.here("certificates list")
    assert ran.exit_code == 0, ran.messages
    return {item["thumbprint"]: item for item in ran.report["certificates"]}


@windows_too
def test_each_certificate_is_shown_with_its_uses(secure: Program) -> None:
    bought = put(secure)
    (first,) = secure.bound()

    rows = listed(secure)

    assert list(rows) == [first, bought.thumbprint]
    used, free = rows[first], rows[bought.thumbprint]
    assert used["used_by"] == ["mail", "webmail", "Remote Administration"]
    assert len(used["served_at"]) == len(secure.server.endpoints)
    assert used["actions"] == []
    assert used["friendly_name"] == "self-signed"
    assert (free["used_by"], free["served_at"]) == ([], [])
    assert free["actions"] == ["use", "remove"]
    assert free["names"] == [HOST_NAME]
    assert free["key_type"] == "p256"
    assert free["key_provider"] is None
    assert free["ours"] is False
    assert free["flaw"] is None


def test_the_list_is_text_for_people_and_needs_no_command(secure: Program) -> None:
    put(secure)
    options = [*secure.options[:6]]

    ran = secure.here("certificates list", as_json=False)

    assert ran.exit_code == 0, ran.messages
    assert re.search(
        rf"^[0-9A-F]{{40}}  {HOST_NAME}\n  issued by    CN=Example R1\n"
        r"  valid until  \d{4}-\d\d-\d\d \(in 89 days\)\n  key          p256\n"
        r"  you can      use, remove$",
        ran.output,
        re.MULTILINE,
    ), ran.output
    assert "used by      mail, webmail, Remote Administration" in ran.output
    assert secure.here("certificates", *options).exit_code == 0


def test_an_empty_store_says_what_to_do(beside: Program, tmp_path: Path) -> None:
    ran = beside.here(
        "certificates list", "--store", f"pem:{tmp_path / 'none'}", as_json=False
    )

    assert "`self-signed` makes one" in ran.output


@pytest.mark.parametrize(
    ("file", "service"),
    [
        ("App/MDaemon.ini", "mail"),
        ("mdaemon.INI", "mail"),
        ("WorldClient/WorldClient.ini", "webmail"),
        ("WebAdmin/WebAdmin.ini", "Remote Administration"),
        (IIS, "IIS"),
        ("App/Other.ini", "App/Other.ini [SSL] Key"),
    ],
)
def test_a_file_tells_the_service(file: str, service: str) -> None:
    assert listing.service(Target(file, "SSL", "Key", "")) == service


def test_a_certificate_that_cannot_be_used_says_why(secure: Program) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    expired = put(secure, "expired", start=now - 91 * DAY)
    early = put(secure, "not yet valid", start=now + DAY)
    keyless = put(secure, "without a key")
    (secure.layout.certificates / "without a key/privkey.pem").unlink()

    rows = listed(secure)

    for made, why in ((expired, "expired"), (early, "not valid"), (keyless, "key")):
        row = rows[made.thumbprint]
        assert why in row["flaw"]
        assert row["actions"] == ["remove"]
        ran = secure.here("use", made.thumbprint)
        assert ran.exit_code == 2
        assert row["flaw"].split(" (")[0] in ran.report["error"]["message"]


def signed(bits: int, digest: Any) -> x509.Certificate:  # noqa: ANN401 - any hash
    """Return a certificate as nobody makes them any more."""
    weak = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "old")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, weak.public_key(), 1, now, now + DAY)
    return builder.sign(weak, digest)


def test_short_keys_are_weak() -> None:
    assert weakness(signed(1024, hashes.SHA256())) == WEAK_RSA
    assert weakness(signed(2048, hashes.SHA256())) == ""


# Which certificate is meant


def test_the_beginning_of_a_thumbprint_is_enough_if_only_one_begins_so(
    secure: Program,
) -> None:
    made = put(secure)
    digest = made.thumbprint
    shown = ":".join(re.findall("..", digest.lower()))

    for text in (digest[:8], digest.lower(), shown, f"\u200e{digest}"):
        ran = secure.here("certificates remove", text)
        assert ran.exit_code == 0, ran.messages
        sandbox.write(made, secure.layout.certificates / "bought")


def test_what_is_ambiguous_lists_the_candidates(
    secure: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = put(secure), put(secure, "another")

    def alike(leaf: x509.Certificate) -> str:
        return "ABCD" + thumbprint(leaf)[4:]

    monkeypatch.setattr(listing, "thumbprint", alike)

    ran = secure.here("certificates remove", "ab:cd")

    assert ran.exit_code == 2
    message = ran.report["error"]["message"]
    assert message.startswith("ABCD is the beginning of 3 thumbprints: ")
    assert first.thumbprint in message
    assert second.thumbprint in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ABC", "not the beginning of a thumbprint"),
        ("mail.example.test", "not the beginning of a thumbprint"),
        ("A" * 41, "not the beginning of a thumbprint"),
        ("0" * 40, "The store holds no certificate 0000"),
    ],
)
def test_what_names_no_certificate_is_refused(
    secure: Program, text: str, said: str
) -> None:
    for command in ("use", "certificates remove"):
        ran = secure.here(command, text)
        assert ran.exit_code == 2
        assert said in ran.report["error"]["message"]


# Removed


@windows_too
def test_an_unused_certificate_is_removed_with_its_key(secure: Program) -> None:
    made = put(secure)

    ran = secure.here("certificates remove", made.thumbprint[:10])

    assert ran.exit_code == 0, ran.messages
    assert ran.report["removed"]["thumbprint"] == made.thumbprint
    assert not (secure.layout.certificates / "bought").exists()
    assert made.thumbprint not in listed(secure)


@windows_too
def test_what_the_files_name_is_not_removed(secure: Program) -> None:
    (first,) = secure.bound()

    ran = secure.here("certificates remove", first)

    assert ran.exit_code == 2
    assert (
        "in use: mail, webmail, Remote Administration"
        in (ran.report["error"]["message"])
    )
    assert (secure.layout.certificates / "self-signed/privkey.pem").exists()


def test_what_any_other_file_names_is_not_removed(secure: Program) -> None:
    assert secure.here("renew").exit_code == 0
    made = put(secure)
    other = secure.layout.folder / "Gateways" / "other.ini"
    other.parent.mkdir()
    other.write_text(f"[x]\nCertificate={made.thumbprint}\n")

    ran = secure.here("certificates remove", made.thumbprint)

    assert ran.exit_code == 2
    assert "a file of the server" in ran.report["error"]["message"]
    assert (secure.layout.certificates / "bought").exists()


def test_while_a_known_value_cannot_be_read_nothing_is_removed(
    secure: Program,
) -> None:
    assert secure.here("renew").exit_code == 0
    made = put(secure)
    file = secure.layout.folder / "WebAdmin" / "WebAdmin.ini"
    file.unlink()
    file.mkdir()

    ran = secure.here("certificates remove", made.thumbprint)

    assert ran.exit_code == 2
    assert (
        "it may be in use: could not check WebAdmin/WebAdmin.ini"
        in (ran.report["error"]["message"])
    )
    assert (secure.layout.certificates / "bought").exists()

    file.rmdir()  # as if that part of MDaemon were removed
    ran = secure.here("certificates remove", made.thumbprint)
    assert ran.exit_code == 0, ran.messages


def test_what_only_a_port_serves_is_not_removed(secure: Program) -> None:
    (first,) = secure.bound()
    made = put(secure)
    for target in sandbox.TARGETS.values():
        file = secure.layout.folder / target.file
        text = file.read_bytes()
        spaced = " ".join(re.findall("..", first)).encode()
        new = " ".join(re.findall("..", made.thumbprint)).encode()
        text = text.replace(first.encode(), made.thumbprint.encode())
        text = text.replace(first.lower().encode(), made.thumbprint.lower().encode())
        file.write_bytes(text.replace(spaced, new))
    assert secure.bound() == {made.thumbprint}

    ran = secure.here("certificates remove", first)

    assert ran.exit_code == 2
    assert "is in use: " in ran.report["error"]["message"]
    assert "127.0.0.1" in ran.report["error"]["message"]


def test_what_waits_for_activation_is_not_removed(program: Program) -> None:
    assert program.here("renew", "--no-reload").exit_code == 0
    assert program.here("renew", "--no-activate", "--force").exit_code == 0
    rows = listed(program)
    (found,) = [
        digest
        for digest, row in rows.items()
        if row["ours"] and digest not in program.bound()
    ]

    ran = program.here("certificates remove", found)

    assert ran.exit_code == 2
    assert "waits for `activate`" in ran.report["error"]["message"]


def test_what_an_unfinished_renewal_may_put_back_is_not_removed(
    secure: Program,
) -> None:
    assert secure.here("renew").exit_code == 0
    former, other = put(secure, "former"), put(secure, "other")
    served = put(secure, "served")
    target = State(secure.state).load().targets[0]
    change = Change(target, 1, former.thumbprint, "AB" * 20)
    before = {"smtp://127.0.0.1:25": served.thumbprint}
    attempt = Attempt("AB" * 20, before, (change,))
    State(secure.state).save(attempt)

    for made in (former, served):
        ran = secure.here("certificates remove", made.thumbprint)
        assert ran.exit_code == 2
        assert (
            "in use: an unfinished renewal puts it back"
            in (ran.report["error"]["message"])
        )
        assert listed(secure)[made.thumbprint]["actions"] == ["use"]
    assert secure.here("certificates remove", other.thumbprint).exit_code == 0

    State(secure.state).save(attempt._replace(failed=datetime.now(UTC)))
    assert secure.here("certificates remove", former.thumbprint).exit_code == 0


def test_the_list_reads_the_store_a_few_times_however_many_it_holds(
    secure: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []
    read = disk.read_limited

    def counted(path: Path, *limits: Any) -> bytes:  # noqa: ANN401 - as they are
        reads.append(path)
        return read(path, *limits)

    monkeypatch.setattr(disk, "read_limited", counted)
    for number in range(20):
        put(secure, f"bought {number}")

    assert len(listed(secure)) == 21

    often = [path for path in set(reads) if reads.count(path) > 3]
    assert not often


def test_nothing_is_removed_without_consent(secure: Program) -> None:
    made = put(secure)
    secure.agrees = False

    ran = secure.here("certificates remove", made.thumbprint)

    assert ran.exit_code == 2
    assert "needs your consent" in ran.report["error"]["message"]
    assert made.thumbprint in ran.report["error"]["message"]
    assert "Add --yes" in ran.report["error"]["hint"]
    assert (secure.layout.certificates / "bought").exists()
