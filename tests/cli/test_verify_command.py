"""`verify`: the whole command, beside a server's files and real ports."""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from letsencrypt_mdaemon.app import build
from letsencrypt_mdaemon.pki.certificate import Certificate
from letsencrypt_mdaemon.sandbox import folder
from letsencrypt_mdaemon.stores.pem import PemStore
from letsencrypt_mdaemon.verify import endpoints
from letsencrypt_mdaemon.verify.endpoints import Endpoint
from tests import certificates, servers
from tests.fakes import MemoryService
from tests.limits import HANG_SECONDS
from tests.program import Ran, beside_sandbox, environment, here, run
from tests.servers import LOCALHOST, Serve, context, endpoint, honest

NAME = "mail.example.test"
OTHER = "imap.example.test"
START = datetime.now(UTC) - timedelta(days=10)
RIGHT = certificates.certificate((NAME, OTHER), start=START)
WRONG = certificates.certificate(("old.example.test",), start=START)
ROOT = certificates.root().certificate
NOWHERE = "https://127.0.0.1:1"


def name_everywhere(layout: folder.Layout, old: str, new: str) -> None:
    """Name another certificate in all the files, each in its own form."""
    for target in folder.TARGETS.values():
        file = layout.folder / target.file
        data = file.read_bytes()
        for was, now in ((old, new), (old.lower(), new.lower())):
            data = data.replace(was.encode(), now.encode())
            data = data.replace(spaced(was), spaced(now))
        file.write_bytes(data)


def spaced(digest: str) -> bytes:
    return re.sub("..(?=.)", r"\g<0> ", digest).encode()


@dataclass(slots=True)
class Scene:
    """The files of an MDaemon, and ports that may be its own."""

    layout: folder.Layout
    exits: ExitStack
    at: list[str] = field(default_factory=list)

    def open(self, scheme: str, serve: Serve | Certificate = RIGHT) -> Endpoint:
        """Open a port that serves a certificate, or does something else."""
        if isinstance(serve, Certificate):
            serve = honest(scheme, context(serve.chain, serve.key))
        opened = self.exits.enter_context(endpoint(scheme, serve))
        self.at.append(str(opened))
        return opened

    @property
    def options(self) -> list[str]:
        """What every command is given."""
        return [
            *("--mdaemon-dir", str(self.layout.folder)),
            *("--store", f"pem:{self.layout.certificates}"),
            *("--smtp-address", "none"),
            *(f"--endpoint={url}" for url in self.at),
        ]

    def verify(self, *options: str, as_json: bool = True) -> Ran:
        """Run the command in this process."""
        reports = ["--json"] if as_json else []
        return here(["verify", *self.options, *options, *reports])

    def ports(self, *options: str) -> list[dict[str, Any]]:
        """Run it, and return what it tells of each port."""
        rows: list[dict[str, Any]] = self.verify(*options).report["ports"]
        return rows


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A server whose files name the right certificate, which is in the store."""
    layout = folder.create(tmp_path / "MDaemon", host_name=NAME)
    (old,) = set(folder.bound(layout.folder).values())
    PemStore(layout.certificates).install(RIGHT)
    name_everywhere(layout, old, RIGHT.thumbprint)
    with ExitStack() as exits:
        yield Scene(layout, exits)


def rows(ran: Ran) -> list[str]:
    """Return the rows of the table that was printed."""
    marks = ("ok ", "FAIL ", "- ")
    return [line for line in ran.output.splitlines() if line.startswith(marks)]


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    """A file with the private CA's root."""
    file = tmp_path / "roots.pem"
    file.write_bytes(ROOT.public_bytes(Encoding.PEM))
    return file


# All is well


def test_the_ports_of_a_server_that_serves_what_its_files_name_are_proven(
    tmp_path: Path,
) -> None:
    with beside_sandbox(tmp_path / "MDaemon", tls=True) as program:
        (named,) = program.bound()

        ran = program.here("verify")
        table = program.here("verify", as_json=False)

    assert ran.exit_code == table.exit_code == 0, ran.messages
    report = ran.report
    assert report["proven"] is True
    assert report["names"] == [NAME]
    assert [one["thumbprint"] for one in report["expected"]] == [named]
    assert len(report["ports"]) == 9
    for port in report["ports"]:
        assert port["good"]
        assert port["expected"] is True
        assert port["certificate"]["thumbprint"] == named
    # The path may be longer than a line.
    store = f"pem:{program.layout.certificates}"
    assert " ".join(table.output.split()).startswith(f"Store: {store} Expected: ")
    lines = table.output.splitlines()
    assert any(line.startswith(f"Expected: {named}, valid until ") for line in lines)
    assert len([line for line in lines if line.startswith("ok ")]) == 9
    assert lines[-1] == "Every port: its certificate is self-signed."


def test_the_table_shows_until_when_in_local_time(scene: Scene) -> None:
    end = datetime(START.year + 1, 2, 25, 22, 30, tzinfo=UTC)
    late = certificates.certificate((NAME,), start=START, lifetime=end - START)
    scene.open("imaps", late)
    command = [sys.executable, "-m", "letsencrypt_mdaemon", "verify", *scene.options]

    for zone, day in (("UTC0", "02-25"), ("XXX-5:30", "02-26")):
        (row,) = rows(run(command, {"TZ": zone}))
        assert f" {end.year}-{day} " in row


def test_the_remarks_show_days_in_local_time(scene: Scene) -> None:
    end = datetime(START.year - 1, 2, 25, 22, 30, tzinfo=UTC)
    old = certificates.certificate((NAME,), start=end - timedelta(days=90))
    scene.open("imaps", old)
    command = [sys.executable, "-m", "letsencrypt_mdaemon", "verify", *scene.options]

    for zone, day in (("UTC0", "02-25"), ("XXX-5:30", "02-26")):
        text = " ".join(run(command, {"TZ": zone}).output.split())
        assert f"its certificate expired on {end.year}-{day} (" in text
        assert f"by CN=Example R1, until {end.year}-{day}." in text


def test_the_json_tells_everything_of_a_port(scene: Scene) -> None:
    at = scene.open("imaps")

    report = scene.verify().report

    assert report.keys() == {
        *(
            "schema",
            "command",
            "generator",
            "exit_code",
            "days_left",
            "verdict",
            "warnings",
            "log",
        ),
        *("mdaemon_dir", "store", "names", "expected", "proven", "ports"),
    }
    assert (report["schema"], report["command"], report["exit_code"]) == (
        1,
        "verify",
        0,
    )
    (port,) = report["ports"]
    assert isinstance(port.pop("seconds"), float)
    certificate = {
        "thumbprint": RIGHT.thumbprint,
        "names": [NAME, OTHER],
        "issuer": "CN=Example R1",
        "not_before": START.isoformat(timespec="seconds"),
        "not_after": (START + timedelta(days=90)).isoformat(timespec="seconds"),
    }
    assert report["expected"] == [certificate]
    assert port == {
        "endpoint": str(at),
        "address": LOCALHOST,
        "port": at.port,
        "origin": "given",
        "good": True,
        "flaw": None,
        "server_name": NAME,
        "only_key": None,
        "outcome": "served",
        "detail": "",
        "certificate": certificate,
        "expected": True,
        "tls": "TLS 1.3",
        "chain": {
            "subjects": ["", "CN=Example R1"],
            "in_order": True,
            "complete": True,
            "ending": "as_issued",
            "ends_at": "CN=Example Root",
            "missing": [],
            "replaced": [],
            "as_issued": True,
            "trusted": False,
            "distrust": "unable to get local issuer certificate",
        },
        "differently": [],
    }


def usual_ports(monkeypatch: pytest.MonkeyPatch, ports: Mapping[str, int]) -> None:
    """Let these be the ports that are looked at without any --endpoint."""
    table = {scheme: (port,) for scheme, port in ports.items()}
    monkeypatch.setattr(endpoints, "PORTS", table)


def test_without_an_endpoint_the_usual_ports_of_this_machine_are_looked_at(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = [scene.open(scheme) for scheme in endpoints.PORTS]
    usual_ports(monkeypatch, {at.scheme: at.port for at in opened})
    scene.at.clear()

    report = scene.verify().report
    table = scene.verify(as_json=False)

    assert table.exit_code == 0
    assert report["proven"] is True
    ports = {port["endpoint"]: port for port in report["ports"]}
    for at in opened:
        assert ports[str(at)]["origin"] == "own"
        assert ports[str(at)]["expected"] is True
        assert ports[f"{at.scheme}://[::1]:{at.port}"]["outcome"] == "not_listening"
    # One row for each port, and no word of the addresses where nobody listens.
    assert [line[:24].split() for line in rows(table)] == [
        ["ok", str(at.port), at.scheme] for at in sorted(opened, key=lambda at: at.port)
    ]
    assert "::1" not in table.output
    assert LOCALHOST not in table.output


@servers.needs_ipv6
def test_addresses_that_answer_differently_are_told_apart(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as exits:
        serve = honest("imaps", context(WRONG.chain, WRONG.key))
        with servers.listening(serve, "::1") as port:
            right = honest("imaps", context(RIGHT.chain, RIGHT.key))
            exits.enter_context(servers.listening(right, LOCALHOST, port))
            usual_ports(monkeypatch, {"imaps": port})

            ran = scene.verify(as_json=False)

    assert ran.exit_code == 5
    assert sorted(row.split()[0] for row in rows(ran)) == ["FAIL", "ok"]
    assert {row.split()[-1] for row in rows(ran)} == {LOCALHOST, "::1"}
    assert f"{port} imaps at ::1 (another certificate)" in ran.messages


def test_a_running_server_where_no_port_listens_is_a_failure(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual_ports(monkeypatch, {"imaps": servers.free_port()})

    ran = scene.verify()
    table = scene.verify(as_json=False)

    assert ran.exit_code == table.exit_code == 5
    assert ran.report["proven"] is False
    assert ran.report["error"]["message"] == "Verification failed: no port listens."
    assert "Start MDaemon" in ran.report["error"]["hint"]
    assert table.output.splitlines()[-1] == (
        "No port listens, so nothing could be verified."
    )
    assert not list(scene.layout.folder.rglob("*.SEM"))


@pytest.mark.parametrize(
    ("kind", "code"), [("disabled", 0), ("good", 5), ("absent", 5), (None, 5)]
)
def test_a_stopped_service_of_which_no_port_listens_is_no_failure(
    kind: str | None, code: int, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual_ports(monkeypatch, {"imaps": servers.free_port()})
    found = None if kind is None else MemoryService(kind)
    monkeypatch.setattr(build, "windows_service", lambda _: found)

    ran = scene.verify()
    table = scene.verify(as_json=False)

    assert ran.exit_code == table.exit_code == code
    assert ran.report["proven"] is (False if code else None)
    stopped = "MDaemon's service is stopped" in " ".join(table.output.split())
    assert stopped == (code == 0)


# Something is wrong


def test_a_port_with_another_certificate_is_named_with_what_to_do(scene: Scene) -> None:
    scene.open("imaps")
    wrong = scene.open("smtp+starttls", WRONG)

    ran = scene.verify()
    table = scene.verify(as_json=False)

    assert ran.exit_code == table.exit_code == 5
    report = ran.report
    assert report["proven"] is False
    assert [port["good"] for port in report["ports"]] == [True, False]
    assert [port["expected"] for port in report["ports"]] == [True, False]
    assert report["error"] == {
        "type": "DeployError",
        "message": "Verification failed: "
        f"{wrong.port} smtp+starttls (another certificate).",
        "hint": "Restart MDaemon, so that it loads the certificate that its files "
        "name. If another program owns a port, list only MDaemon's ports with "
        "--endpoint.",
    }
    assert report["error"]["message"] in table.messages
    assert report["error"]["hint"] in table.messages
    (row,) = (row for row in rows(table) if row.startswith("FAIL"))
    assert row.split()[1:4] == [str(wrong.port), "smtp+starttls", "another"]
    text = " ".join(table.output.split())
    assert (
        f"{wrong.port} smtp+starttls: serves {WRONG.thumbprint} for old.example.test, "
        f"by CN=Example R1, until {(START + timedelta(days=90)).astimezone():%Y-%m-%d}."
        in text
    )


def test_three_kinds_of_failure_are_three_answers(scene: Scene) -> None:
    stripped = servers.OFFERS_NONE["pop3"]

    def without_stls(connection: socket.socket) -> None:
        servers.talk("pop3+stls", connection, [], offers=stripped)

    scene.at.append(NOWHERE)
    scene.open("pop3+stls", without_stls)
    scene.open("imaps", servers.says(b"* OK no TLS here\r\n"))

    ran = scene.verify()
    table = scene.verify(as_json=False)

    assert ran.exit_code == 5
    assert [
        (port["outcome"], port["detail"], port["good"]) for port in ran.report["ports"]
    ] == [
        ("not_listening", "refuses the connection", False),
        ("no_starttls", "", False),
        ("handshake_failed", 'sends "* OK no TLS here" instead of TLS', False),
    ]
    for words in (
        "not listening: refuses the connection.",
        "no STARTTLS offered.",
        'handshake failed: sends "* OK no TLS here" instead of TLS.',
    ):
        assert words in table.output


def test_a_name_that_gets_another_certificate_is_told(scene: Scene) -> None:
    made = context(RIGHT.chain, RIGHT.key)
    other = context(WRONG.chain, WRONG.key)

    def choose(connection: ssl.SSLObject, name: str | None, _: object) -> None:
        if name == OTHER:
            connection.context = other

    made.sni_callback = choose
    scene.open("https", honest("https", made))

    assert scene.verify().exit_code == 0
    ran = scene.verify("--alternate-host-names", OTHER)
    table = scene.verify("--alternate-host-names", OTHER, as_json=False)

    assert ran.exit_code == 5
    (port,) = ran.report["ports"]
    assert port["expected"] is False
    assert [one["server_name"] for one in port["differently"]] == [OTHER]
    assert port["differently"][0]["certificate"]["thumbprint"] == WRONG.thumbprint
    text = " ".join(table.output.split())
    assert f"for the name {OTHER}, it serves {WRONG.thumbprint}" in text
    assert "(another certificate for some names)" in table.messages


def test_status_judges_a_port_by_all_names_as_verify_does(scene: Scene) -> None:
    made = context(RIGHT.chain, RIGHT.key)
    other = context(WRONG.chain, WRONG.key)

    def choose(connection: ssl.SSLObject, name: str | None, _: object) -> None:
        if name == OTHER:
            connection.context = other

    made.sni_callback = choose
    at = scene.open("https", honest("https", made))

    one = here(["status", *scene.options, "--json"])
    both = here(["status", *scene.options, "--alternate-host-names", OTHER, "--json"])

    assert one.report["proof"]["new"] == [str(at)]
    assert both.report["proof"]["new"] == []
    (port,) = both.report["proof"]["ports"]
    assert f"for the name {OTHER}" in port["reason"]
    assert WRONG.thumbprint in port["reason"]


def test_an_endpoint_by_name_is_asked_for_that_name_wherever_it_is(
    scene: Scene,
) -> None:
    at = scene.open("https")
    scene.at[:] = [f"https://localhost:{at.port}"]

    ran = scene.verify()
    table = scene.verify(as_json=False)

    assert ran.exit_code == 0, ran.messages
    listening = [p for p in ran.report["ports"] if p["outcome"] == "served"]
    assert [port["server_name"] for port in listening] == ["localhost"]
    assert [port["address"] for port in listening] == [LOCALHOST]
    assert "its certificate does not cover localhost." in table.output


def test_outdated_tls_is_a_failed_handshake_with_the_certificate_to_see(
    scene: Scene,
) -> None:
    made = servers.only(context(RIGHT.chain, RIGHT.key), ssl.TLSVersion.TLSv1)
    scene.open("smtps", honest("smtps", made))

    ran = scene.verify()

    assert ran.exit_code == 5
    (port,) = ran.report["ports"]
    assert port["outcome"] == "handshake_failed"
    assert port["detail"] == "offers only TLS 1.0, which clients refuse"
    assert port["tls"] == "TLS 1.0"
    assert port["certificate"]["thumbprint"] == RIGHT.thumbprint


# Which certificate is the right one


def test_where_the_files_are_not_known_to_name_one_it_is_only_reported(
    scene: Scene,
) -> None:
    name_everywhere(scene.layout, RIGHT.thumbprint, folder.FOREIGN)
    scene.open("imaps", WRONG)

    ran = scene.verify()
    table = scene.verify(as_json=False)

    assert ran.exit_code == 0, ran.messages
    report = ran.report
    assert report["expected"] is None
    assert report["proven"] is None
    (port,) = report["ports"]
    assert port["expected"] is None
    assert port["certificate"]["thumbprint"] == WRONG.thumbprint
    unknown = "\nThe expected certificate is unknown: no known INI"
    assert unknown in table.output
    assert f"{WRONG.thumbprint[:8]}..." in table.output


def test_where_it_is_not_known_a_port_should_serve_one_all_the_same(
    scene: Scene,
) -> None:
    name_everywhere(scene.layout, RIGHT.thumbprint, folder.FOREIGN)
    scene.open("imaps", servers.says(b"no TLS"))

    assert scene.verify().exit_code == 5


@pytest.fixture
def targets(scene: Scene) -> list[str]:
    """Options that say where the server's files name the certificate."""
    target = folder.TARGETS["mail"]
    file = scene.layout.folder / "settings.ini"
    file.write_text(
        f"[target mail]\nfile = {target.file}\nsection = {target.section}\n"
        f"key = {target.key}\n"
    )
    return ["--config", str(file)]


def test_a_certificate_that_nobody_knows_is_served_by_nobody(
    scene: Scene, targets: list[str]
) -> None:
    scene.open("imaps")
    assert scene.verify(*targets).exit_code == 0
    name_everywhere(scene.layout, RIGHT.thumbprint, WRONG.thumbprint)

    ran = scene.verify(*targets)
    table = scene.verify(*targets, as_json=False)

    assert ran.exit_code == 5
    assert ran.report["expected"] == []
    assert "The server's files name an unknown certificate." in table.output


def test_a_target_that_is_not_there_is_a_configuration_error(
    scene: Scene, targets: list[str]
) -> None:
    (scene.layout.folder / folder.TARGETS["mail"].file).rename(
        scene.layout.folder / "App" / "Other.ini"
    )
    (scene.layout.app / "MDaemon.ini").write_text("")
    scene.layout.folder.joinpath("settings.ini").write_text(
        "[target mail]\nfile = App/Missing.ini\nsection = S\nkey = k\n"
    )
    scene.open("imaps")

    ran = scene.verify(*targets)

    assert ran.exit_code == 2
    assert "Missing.ini" in ran.report["error"]["message"]


def test_each_of_several_certificates_that_the_files_name_is_right(
    scene: Scene,
) -> None:
    PemStore(scene.layout.certificates).install(WRONG)
    file = scene.layout.folder / folder.TARGETS["admin"].file
    data = file.read_bytes()
    file.write_bytes(data.replace(spaced(RIGHT.thumbprint), spaced(WRONG.thumbprint)))
    scene.open("imaps")
    scene.open("https", WRONG)

    ran = scene.verify()

    assert ran.exit_code == 0, ran.messages
    found = {one["thumbprint"] for one in ran.report["expected"]}
    assert found == {RIGHT.thumbprint, WRONG.thumbprint}


def test_a_server_without_a_clear_name_is_asked_without_a_name(scene: Scene) -> None:
    for file in scene.layout.app.iterdir():
        file.write_bytes(file.read_bytes().replace(b"FQDN", b"Name"))
    scene.open("imaps")

    ran = scene.verify()

    assert ran.exit_code == 0, ran.messages
    assert ran.report["names"] == []
    (port,) = ran.report["ports"]
    assert port["server_name"] == ""
    warning = "Checking the ports without SNI."
    assert any(warning in text for text in ran.report["warnings"])


# Chains


def test_a_private_chain_is_reported_and_refused_only_on_demand(
    scene: Scene, roots: Path
) -> None:
    scene.open("imaps")

    assert scene.verify().exit_code == 0
    refused = scene.verify("--require-trusted")
    table = scene.verify("--require-trusted", as_json=False)
    trusted = scene.verify("--require-trusted", "--ca-bundle", str(roots))

    assert refused.exit_code == 5
    assert refused.report["ports"][0]["good"] is False
    assert "(not trusted)" in refused.report["error"]["message"]
    assert "--ca-bundle" in refused.report["error"]["hint"]
    text = "its certificate is not trusted: unable to get local issuer certificate."
    assert text in table.output
    assert trusted.exit_code == 0, trusted.messages
    assert trusted.report["ports"][0]["chain"]["trusted"] is True
    assert trusted.report["ports"][0]["chain"]["ending"] == "root"


LEAF, ISSUER = RIGHT.chain


@pytest.mark.parametrize(
    ("chain", "word", "remark", "code"),
    [
        ([LEAF, ISSUER], "complete", "", 0),
        ([LEAF, ISSUER, ROOT], "complete", "", 0),
        ([LEAF], "incomplete", "its chain lacks CN=Example R1.", 5),
        ([LEAF, ROOT, ISSUER], "wrong order", "its chain is in the wrong order", 0),
        ([LEAF, ROOT], "wrong order", "its chain is in the wrong order", 5),
    ],
)
def test_the_chain_is_told_as_it_was_sent_and_fails_without_its_intermediate(
    chain: list[x509.Certificate], word: str, remark: str, code: int, scene: Scene
) -> None:
    scene.open("imaps", honest("imaps", context(chain, RIGHT.key)))

    ran = scene.verify(as_json=False)
    (port,) = scene.ports()

    assert ran.exit_code == code, ran.messages
    assert ("(incomplete chain)" in ran.messages) == bool(code)
    assert port["flaw"] == ("incomplete chain" if code else None)
    (row,) = rows(ran)
    assert f"  {word}  " in row
    assert len(port["chain"]["subjects"]) == len(chain)
    notes = ran.output.partition(row)[2].strip()
    assert remark in notes
    assert bool(remark) == bool(notes)


def test_a_chain_that_is_not_kept_is_not_known_to_lack_anything(scene: Scene) -> None:
    for file in scene.layout.certificates.glob("*/fullchain.pem"):
        file.write_bytes(b"damaged")
    scene.open("imaps", honest("imaps", context([LEAF], RIGHT.key)))

    ran = scene.verify(as_json=False)
    (port,) = scene.ports()

    assert ran.exit_code == 0, ran.messages
    assert port["chain"]["as_issued"] is None
    assert "its chain ends before CN=Example R1, neither sent nor known." in ran.output
    # Another port shows that it is an intermediate.
    scene.open("https")
    assert scene.verify().exit_code == 5
    assert [port["flaw"] for port in scene.ports()] == ["incomplete chain", None]


def test_a_public_certificate_without_its_intermediate_is_not_good(
    scene: Scene,
) -> None:
    """Its own policy says that no root signed it; the store does not know it."""
    key = certificates.key(21)
    public = certificates.leaf(
        (NAME,), own_key=key, start=START, policies=["2.23.140.1.2.1"]
    )
    scene.open("imaps", honest("imaps", context([public], key)))

    (port,) = scene.ports()

    assert port["flaw"] == "incomplete chain"
    assert port["chain"]["ending"] == "missing"
    assert port["chain"]["missing"] == ["CN=Example R1"]
    assert scene.verify().exit_code == 5


@pytest.mark.parametrize(
    ("starts", "fault", "remark"),
    [
        (-300, "expired certificate", "expired on {end:%Y-%m-%d} ("),
        (
            30,
            "certificate not yet valid",
            "is not valid before {start:%Y-%m-%d}",
        ),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_a_certificate_out_of_its_time_is_a_failure(
    starts: int, fault: str, remark: str, scene: Scene, *, known: bool
) -> None:
    start = (START + timedelta(days=starts)).astimezone()
    other = certificates.certificate((NAME,), start=start)
    if known:
        name_everywhere(scene.layout, RIGHT.thumbprint, other.thumbprint)
    else:
        name_everywhere(scene.layout, RIGHT.thumbprint, "")
    scene.open("imaps", other)

    ran = scene.verify(as_json=False)

    assert ran.exit_code == 5, ran.messages
    assert f"({fault})" in ran.messages
    said = remark.format(start=start, end=start + timedelta(days=90))
    assert f"its certificate {said}" in ran.output.replace("\n    ", " ")


# Through DNS


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What DNS knows of the names below example.test."""
    zone: dict[str, str] = {}
    ask = socket.getaddrinfo

    def answer(host: str, *rest: Any, **more: Any) -> Any:  # noqa: ANN401
        if not host.endswith(".example.test"):
            return ask(host, *rest, **more)
        if host not in zone:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return ask(zone[host], *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return zone


def test_public_looks_at_the_same_ports_through_dns(
    scene: Scene, dns: dict[str, str]
) -> None:
    dns[NAME] = dns[OTHER] = LOCALHOST
    at = scene.open("imaps")

    ran = scene.verify(
        "--public", "--alternate-host-names", f"{OTHER},pop.example.test"
    )
    table = scene.verify("--public", as_json=False)

    assert ran.exit_code == 0, ran.messages
    given, public = ran.report["ports"]
    assert given["origin"] == "given"
    assert public["origin"] == "dns"
    assert public["endpoint"] == f"imaps://{NAME}:{at.port}"
    assert public["address"] == LOCALHOST
    assert public["server_name"] == NAME
    (warning,) = ran.report["warnings"]
    assert warning == "DNS has no address for pop.example.test, or does not answer."
    lines = table.output.splitlines()
    here_, through_dns = rows(table)
    assert here_.split()[-1] == LOCALHOST
    assert through_dns.split()[-1] == NAME
    assert lines[lines.index(through_dns) - 1] == (
        "At the addresses in DNS (this can fail behind NAT):"
    )


def test_what_does_not_answer_through_dns_proves_nothing(
    scene: Scene, dns: dict[str, str]
) -> None:
    dns[NAME] = servers.OTHER_HOST  # where nobody listens
    scene.open("imaps")

    ran = scene.verify("--public")

    assert ran.exit_code == 0, ran.messages
    assert ran.report["ports"][1]["outcome"] == "not_listening"


def test_another_certificate_through_dns_is_a_failure_with_its_own_advice(
    scene: Scene, dns: dict[str, str]
) -> None:
    dns[NAME] = servers.OTHER_HOST
    at = scene.open("imaps")
    serve = honest("imaps", context(WRONG.chain, WRONG.key))
    with servers.listening(serve, servers.OTHER_HOST, at.port):
        ran = scene.verify("--public")

    assert ran.exit_code == 5
    assert (
        f"{at.port} imaps at {NAME} (another certificate)"
        in (ran.report["error"]["message"])
    )
    assert ran.report["error"]["hint"] == (
        "Test the ports reached through DNS from outside as well: they may fail only "
        "from inside your network."
    )


# What it is given, and what it needs


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        (
            "--endpoint",
            "ftp://192.0.2.1",
            "'ftp://192.0.2.1' is not an endpoint such as",
        ),
        ("--ca-bundle", "missing.pem", "missing.pem contains no PEM certificates"),
    ],
)
def test_settings_that_cannot_be_used_are_said(
    option: str, value: str, words: str, scene: Scene
) -> None:
    ran = scene.verify(option, value)

    assert ran.exit_code == 2
    assert words in ran.report["error"]["message"]


def test_neither_acme_nor_http_is_imported(scene: Scene) -> None:
    scene.open("imaps")
    program = (
        "import sys\n"
        "from letsencrypt_mdaemon.cli.main import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as exc:\n"
        "    assert exc.code == 0, exc.code\n"
        "unwanted = {'acme', 'josepy', 'requests', 'letsencrypt_mdaemon.acme'}\n"
        "print('imported:', *sorted(unwanted & sys.modules.keys()), file=sys.stderr)\n"
    )

    ran = run([sys.executable, "-c", program, "verify", *scene.options])

    assert ran.exit_code == 0, ran.messages
    assert "  expected  " in ran.output
    assert ran.messages.splitlines() == ["imported:"]


def hostile() -> Certificate:
    """Return a certificate that would like to write on the terminal."""
    text = "\x1b]0;owned\x07\r\n\x9b31m\u202eevil\u2028\u00e9\u4e00"
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, text)])
    names = x509.SubjectAlternativeName(
        [x509.DNSName("mail.example.test"), x509.DNSName("\x1b[2J.example.test\r\n")]
    )
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=certificates.key().public_key(),
        serial_number=4711,
        not_valid_before=START,
        not_valid_after=START + timedelta(days=90),
    )
    builder = builder.add_extension(names, critical=False)
    signed = builder.sign(certificates.key(), hashes.SHA256())
    return Certificate((signed,), certificates.key())


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
@pytest.mark.parametrize("as_json", [True, False])
def test_nothing_hostile_reaches_the_terminal_the_log_or_the_json(
    encoding: str, scene: Scene, *, as_json: bool
) -> None:
    scene.open("imaps", hostile())
    scene.open("smtp+starttls", servers.says(b"554 \x1b]0;owned\x07 \xff\x9b31m\r\n"))
    options = ["-v", *scene.options, *(["--json"] if as_json else [])]
    command = [sys.executable, "-m", "letsencrypt_mdaemon", "verify", *options]

    ran = run_bytes(command, encoding)

    assert ran.exit_code == 5, ran.messages
    for text in (ran.output, ran.messages):
        assert all(char.isprintable() or char == "\n" for char in text)
    assert "owned" in ran.output
    if as_json:
        assert ran.output.isascii()
        rows = json.loads(ran.output)["ports"]
        shown = [rows[0]["certificate"]["issuer"], *rows[0]["certificate"]["names"]]
        assert all(text.isprintable() for text in shown)


def run_bytes(command: list[str], encoding: str) -> Ran:
    """Run the program on a console of this encoding."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment() | {"PYTHONIOENCODING": encoding},
        timeout=HANG_SECONDS,
        check=False,
    )
    return Ran(
        done.returncode, done.stdout.decode(encoding), done.stderr.decode(encoding)
    )


def test_a_certificate_that_cannot_be_read_stops_no_other_command(scene: Scene) -> None:
    # Its organisation: Teletex, in bytes that are no text in any character set.
    (organisation,) = hostile().leaf.subject
    text = str(organisation.value).encode()
    old, new = b"\x0c%c" % len(text) + text, b"\x14%c" % len(text) + b"\xff" * len(text)
    broken = certificates.with_bytes(hostile().leaf, old, new)
    serve = honest("imaps", context([broken], certificates.key()))
    scene.open("imaps", serve)

    for name in ("discover", "status", "verify"):
        ran = here([name, *scene.options, "--json"])

        assert ran.exit_code == (5 if name == "verify" else 0), ran.messages
    assert scene.ports()[0]["certificate"]["issuer"] == "?"


def test_the_table_fits_a_hundred_columns_whatever_is_in_it(scene: Scene) -> None:
    long = ".".join(["a" * 50] * 4) + ".example.test"
    made = certificates.certificate([f"host{n}.{long}" for n in range(3)], start=START)
    scene.open("smtp+starttls", made)
    scene.open("imap+starttls", made)
    scene.open("https", servers.says(b"x" * 5000))
    scene.at.append(f"https://{'b' * 63}.{'c' * 64}.test:65535")

    ran = scene.verify(as_json=False)

    lines = ran.output.splitlines()
    assert len(lines) > 8
    # A word may be longer than a line, and stay whole to be copied.
    assert all(len(line) <= 100 or " " not in line.strip() for line in lines)
    assert ran.output.encode("cp1252")
