"""The programs that stand for IIS are really started, and told what is meant."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from letsencrypt_mdaemon.errors import ConfigError, DeployError
from letsencrypt_mdaemon.mdaemon.http_sys import APPLICATION
from letsencrypt_mdaemon.mdaemon.iis import Site
from letsencrypt_mdaemon.pki.certificate import thumbprint
from tests.certificates import certificate
from tests.iis import ENGLISH, NOTHING
from tests.program import beside_sandbox

assert sys.platform == "win32"

from letsencrypt_mdaemon.stores.windows import WindowsStore  # noqa: E402 - Windows only
from tests.windows.machine_store import put_into_my  # noqa: E402

DRIVE = Path("C:\\")
LOG = DRIVE / "recorder.log"
SYSTEM = Path(os.environ["SYSTEMROOT"]) / "System32"
TOOLS = {
    "appcmd": SYSTEM / "inetsrv" / "appcmd.exe",
    "netsh": SYSTEM / "netsh.exe",
}
LEAF = certificate().leaf
NOW = thumbprint(LEAF).lower()
SITES = """<?xml version="1.0" encoding="UTF-8"?>
<appcmd>
  <SITE SITE.NAME="My Webmail" SITE.ID="2" bindings="https/*:443:" state="Started">
    <site name="My Webmail" id="2">
      <bindings>
        <binding protocol="http" bindingInformation="*:80:" />
        <binding protocol="https" bindingInformation="*:443:a.test" sslFlags="1" />
      </bindings>
    </site>
  </SITE>
</appcmd>
"""


@pytest.fixture(autouse=True)
def recorders(tmp_path: Path) -> Iterator[None]:
    """Put recorders in the place of the system's tools."""
    kept = {}
    for name, tool in TOOLS.items():
        tool.parent.mkdir(exist_ok=True)
        if tool.exists():
            kept[tool] = tmp_path / f"{name}.exe"
            shutil.copy(tool, kept[tool])
        shutil.copy(DRIVE / "recorder.exe", tool)
    try:
        yield
    finally:
        LOG.unlink(missing_ok=True)
        for name, tool in TOOLS.items():
            (DRIVE / f"recorder-{name}.txt").unlink(missing_ok=True)
            tool.unlink()
            if tool in kept:
                shutil.copy(kept[tool], tool)


def answer(tool: str, text: str, code: int = 0) -> None:
    # Through a pipe, appcmd writes in the code page of windows.
    (DRIVE / f"recorder-{tool}.txt").write_text(f"{code}\n{text}", "mbcs")


def recorded() -> list[str]:
    """Return the command lines, without the paths of the programs."""
    lines = LOG.read_text("utf-8").splitlines()
    return [line.partition(".exe")[2].lstrip('" ') for line in lines]


def shown(digest: str) -> str:
    return ENGLISH.format(
        kind="Hostname:port",
        place="a.test:443",
        hash=digest,
        application=APPLICATION,
        store="MY",
        freshness=0,
        trusted="(null)",
        **dict.fromkeys(["mapper", "negotiate", "reject"], "Disabled"),
    )


def test_the_certificate_of_a_binding_is_replaced_by_netsh() -> None:
    answer("appcmd", SITES)
    answer("netsh", shown("ab" * 20))

    # What was added is not what the recorder shows: so it is noticed, and not taken for
    # what a run may take back.
    with pytest.raises(DeployError, match=r"netsh set \w+ for .*, but http\.sys shows"):
        Site("My Webmail", {}).bind(LEAF, dry_run=False)

    place = "hostnameport=a.test:443"
    assert recorded()[:5] == [
        "list site /config:* /xml",
        f"http show sslcert {place}",
        f"http show sslcert {place}",
        f"http delete sslcert {place}",
        f"http add sslcert {place} certhash={NOW} appid={APPLICATION} certstorename=MY",
    ]


def test_what_netsh_shows_is_the_certificate_of_the_binding() -> None:
    answer("appcmd", SITES)
    answer("netsh", shown(NOW))
    site = Site("My Webmail", {thumbprint(LEAF): LEAF})
    assert list(site.named().values()) == [LEAF]
    assert site.bind(LEAF, dry_run=False) == []


def test_a_new_binding_is_asked_for_by_the_name_of_the_site() -> None:
    answer("appcmd", SITES.replace("https", "http"))
    answer("netsh", shown(NOW))
    Site("My Webmail", {}, add_binding=True).bind(LEAF, dry_run=False)
    assert (
        'set site "/site.name:My Webmail" '
        "/+bindings.[protocol='https',bindingInformation='*:443:']" in recorded()
    )


def test_a_site_is_found_whose_name_is_not_ascii() -> None:
    answer("appcmd", SITES.replace("My Webmail", "Prüf"))
    answer("netsh", shown(NOW))
    site = Site("Prüf", {thumbprint(LEAF): LEAF})
    assert list(site.named().values()) == [LEAF]


def test_a_netsh_that_fails_is_a_failure() -> None:
    answer("appcmd", SITES)
    answer("netsh", NOTHING, 1)
    with pytest.raises(DeployError, match=r"netsh\.exe http add .* exited with 1"):
        Site("My Webmail", {}).bind(LEAF, dry_run=False)


def test_an_appcmd_that_fails_is_a_failure() -> None:
    answer("appcmd", "ERROR ( message:Access denied. )", 5)
    with pytest.raises(ConfigError, match=r"exited with 5: 'ERROR \( message:Access"):
        Site("My Webmail", {}).named()


def test_without_iis_it_is_told_what_to_install() -> None:
    TOOLS["appcmd"].rename(DRIVE / "recorder-appcmd.txt")
    try:
        with pytest.raises(ConfigError) as caught:
            Site("My Webmail", {}).named()
    finally:
        (DRIVE / "recorder-appcmd.txt").rename(TOOLS["appcmd"])
    assert "Management Scripts and Tools" in caught.value.hint


def test_a_run_looks_at_iis_if_a_site_is_named(tmp_path: Path) -> None:
    answer("appcmd", SITES)
    answer("netsh", shown("ab" * 20))
    with beside_sandbox(tmp_path / "MDaemon") as program:
        for folder in program.layout.certificates.iterdir():
            pem = (folder / "cert.pem").read_bytes()
            put_into_my(x509.load_pem_x509_certificate(pem), "sandbox")
        program.options += ["--store", "windows", "--iis-site-name", "My Webmail"]
        try:
            ran = program.here("status")
        finally:
            store = WindowsStore()
            for leaf, name in list(store.certificates()):
                if name == "sandbox":
                    store.remove(thumbprint(leaf))
    assert ran.exit_code == 0, ran.messages
    targets = {target["file"]: target["key"] for target in ran.report["targets"]}
    assert targets["IIS"] == "https *:443:a.test"


def test_iis_and_a_folder_of_certificates_do_not_go_together(tmp_path: Path) -> None:
    with beside_sandbox(tmp_path / "MDaemon") as program:
        ran = program.here("status", "--iis-site-name", "My Webmail")
    assert ran.exit_code == 2
    assert "IIS cannot use certificates from the store pem:" in ran.messages
