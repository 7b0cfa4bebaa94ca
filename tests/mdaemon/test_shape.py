"""What `discover --shape` shows: names of files and keys, forms of values."""

from __future__ import annotations

import json
import re
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from letsencrypt_mdaemon.mdaemon import shape
from letsencrypt_mdaemon.mdaemon.folders import IniFiles
from letsencrypt_mdaemon.sandbox.folder import FOREIGN, INI_FILES, TARGETS, create
from tests.program import Program

# Whatever a person, a host or a company may be called; no word of settings is in it.
_LETTERS = st.text("abcdefghijklmnopqrstuvwxyzäéßж0123456789", min_size=2, max_size=9)
secrets = _LETTERS.map(lambda text: f"zq{text}")
FORMS = (
    *("{0}", "{0}.example", "{0}@{1}.org", "https://{0}/{1}", r"C:\Users\{0}\{1}"),
    *("{0}, {1}", "/home/{0}", '"{0}"', "{0}:{1}", "Yes {0}", "SSL{0}", "{0} SSL"),
    *("[{0}]", "{0};{1}", "Domain {0}"),
    # Beside what looks like a certificate's name.
    *(f"{FOREIGN},{{0}}", f"{{0}}: {FOREIGN}", f"{FOREIGN} {{0}} {FOREIGN}"),
)
texts = st.builds(str.format, st.sampled_from(FORMS), secrets, secrets)
names = texts.map(lambda text: re.sub(r'[\\/:*?"<>|;=\[\]]', "-", text))


def ini(rows: list[tuple[str, str, str]], remark: str) -> bytes:
    """Return an INI file with these sections, keys and values."""
    lines = [f"; {remark}", remark]
    for section, key, value in rows:
        lines += [f"[{section}]", f"{key}={value}"]
    return "\r\n".join(lines).encode()


def shown(folder: Path, semaphores: tuple[str, ...] = ()) -> str:
    """Return everything that is shown of a folder."""
    return json.dumps(
        shape.describe(IniFiles(folder), (), semaphores), ensure_ascii=False
    )


# Shrinking an example would write thousands of folders.
@settings(phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.data())
def test_no_secret_comes_out_of_a_value_a_file_or_the_name_of_a_folder(
    data: st.DataObject,
) -> None:
    keys = st.one_of(names, st.sampled_from(["Certificate", "FQDN", "SSLPort", "Path"]))
    sections = st.one_of(names, st.sampled_from(["SSL", "Domain", ""]))
    rows = st.lists(st.tuples(sections, keys, texts), max_size=5)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        folders = ["App", "Users", "WorldClient", f"App/{data.draw(names)}"]
        folders += [f"{data.draw(names)}", f"Users/{data.draw(names)}/Inbox"]
        for folder in folders:
            (root / folder).mkdir(parents=True, exist_ok=True)
            files = [
                "MDaemon.ini",
                f"{data.draw(names)}.ini",
                f"{data.draw(names)}.dat",
            ]
            for file in files:
                content = ini(data.draw(rows), data.draw(texts))
                (root / folder / file).write_bytes(content)
            (root / folder / f"{data.draw(names)}.msg").write_text(data.draw(texts))
        (root / "App" / f"{data.draw(names)}.SEM").touch()

        found = shown(root, (f"{data.draw(names)}.SEM",))

    assert "zq" not in found.lower()
    assert "App/MDaemon.ini" in found


@pytest.mark.parametrize("options", [[], ["-v"]])
def test_the_command_shows_no_value_host_path_or_thumbprint(
    program: Program, options: list[str]
) -> None:
    layout = program.layout
    (in_use,) = program.bound()
    (layout.folder / "Users" / "zqcompany.example" / "zqjohn").mkdir(parents=True)
    mails = layout.folder / "zqcompany.example" / "zqjohn"
    mails.mkdir(parents=True)
    (mails / "zqdoe.ini").write_text("[zqjohn]\nzqkey=zqvalue\nPassword=zqsecret\n")
    (layout.app / "zqlink.ini").symlink_to("/etc/hostname")  # it would be warned of
    (layout.app / "RESTART.SEM.zq").touch()
    words = set()
    for file in INI_FILES:
        text = (layout.folder / file).read_bytes().decode("utf-8", "replace")
        words |= set(re.findall(r"(?m)=(.+)$", text)) - {"Yes\r", "0\r", "5\r", "de\r"}

    ran = program.run("discover", "--shape", *options)
    plain = program.here("discover", "--shape", *options, as_json=False)

    assert ran.exit_code == plain.exit_code == 0
    for seen in (ran.output + ran.messages, plain.output + plain.messages):
        joined = seen.lower().replace(" ", "")
        for word in {*words, in_use, FOREIGN, str(layout.folder), "zq", "example"}:
            assert word.strip().lower().replace(" ", "") not in joined, word
        assert socket.gethostname().lower() not in re.findall(r"[\w.-]+", seen.lower())
    assert ran.report["generator"]["host"] is None
    assert ran.report["warnings"] == []


def test_the_command_shows_where_the_certificate_is_named_and_how(
    program: Program,
) -> None:
    report = program.here("discover", "--shape").report
    text = program.here("discover", "--shape", as_json=False).output

    forms = {
        (row["file"], row["section"], row["key"]): row["form"]
        for row in report["values"]
    }
    assert forms[TARGETS["mail"]] == "<sha1:upper>"
    assert forms[TARGETS["webmail"]] == "<sha1:lower>,<40 hex digits>"
    assert forms[TARGETS["admin"]] == "<sha1:upper:space>"
    assert forms["App/MDaemon.ini", "Domain", "FQDN"] == "host name"
    assert forms["App/Domains.dat", "<name>", "IP"] == "IP address"
    assert set(report["files"]) == set(INI_FILES)
    assert report["semaphores"]["used"] == ["RELOADCACHE.SEM", "RESTARTWC.SEM"]
    assert "  [SSL] Certificates = <sha1:lower>,<40 hex digits>\n" in text


def test_an_unknown_certificate_is_a_form_too_and_its_unusual_key_is_masked(
    tmp_path: Path,
) -> None:
    layout = create(tmp_path / "x")
    value = ":".join(re.findall("..", "0123456789abcdef" * 4))
    (layout.app / "Other.ini").write_text(f"[SSL]\nJohnsOwn={value}\nJohn=1\n")

    found = shape.describe(IniFiles(layout.folder), (), ["RESTART.SEM"])

    (row,) = (row for row in found.values if "64" in row.form)
    assert row[1:] == ("SSL", "<name>", "<64 hex digits>")
    assert found.used == ["RESTART.SEM"]
