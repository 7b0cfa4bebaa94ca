"""What a run remembers survives anything: kept whole, private, or set aside."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from letsencrypt_mdaemon.errors import ConfigError, DeployError, Error
from letsencrypt_mdaemon.pki.certificate import Certificate, key_pem
from letsencrypt_mdaemon.state.folder import CaState, State
from letsencrypt_mdaemon.state.ledger import Failure, Issuance, Ledger
from letsencrypt_mdaemon.state.memory import (
    MAX_ISSUED,
    Account,
    Attempt,
    Change,
    Checked,
    Draw,
    Dropped,
    Hold,
    Issued,
    Memory,
    OpenOrder,
    PutBack,
    Restart,
    Rung,
    Target,
)
from letsencrypt_mdaemon.state.told import Mailed, Rehearsed, Told, WouldFail
from tests.certificates import certificate, key, leaf
from tests.fakes import (
    contents,
    full_disk,
    huge,
    odd_version,
    private,
    read_only,
    unreadable,
)

NOW = datetime(2026, 3, 1, 12, 30, 15, tzinfo=UTC)
URL = "https://ca.example.test/directory"
TARGET = Target("App/MDaemon.ini", "SSL", "Certificate", "sha1:upper")

# Windows makes no time of a number beyond the year 3000.
MOMENTS = st.integers(0, 250_000_000_000).map(
    lambda n: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=n)
)
TEXT = st.text(max_size=6)
TEXTS = st.lists(TEXT, max_size=2).map(tuple)
TIMES = st.lists(MOMENTS, min_size=1, max_size=2).map(tuple)
TARGETS = st.builds(Target, TEXT, TEXT, TEXT, TEXT)
ISSUED = st.builds(
    Issued,
    TEXT,
    TEXT,
    st.lists(TEXT, max_size=2).map(tuple),
    *[st.none() | MOMENTS] * 4,
)
PUT_BACK = st.builds(PutBack, TEXT, TEXT, MOMENTS)
CHECKED = st.builds(Checked, TEXT, MOMENTS, st.none() | MOMENTS)
HOLDS = st.builds(Hold, TEXT, MOMENTS, MOMENTS, TEXT)
DROPPED = st.builds(Dropped, TEXT, MOMENTS, MOMENTS, TEXT)
TOLD = st.builds(
    Told,
    since=st.none() | MOMENTS,
    mailed=st.lists(st.builds(Mailed, TEXT, MOMENTS), max_size=2).map(tuple),
    begins=st.none() | MOMENTS,
    ends=st.none() | MOMENTS,
)
WOULD_FAIL = st.builds(WouldFail, TEXT, MOMENTS, TEXT, TEXT, TEXT)
REHEARSED = st.builds(
    Rehearsed, TEXT, MOMENTS, st.lists(WOULD_FAIL, max_size=2).map(tuple)
)
CHANGES = st.builds(Change, TARGETS, st.integers(0, 9), TEXT, TEXT)
RUNGS = st.builds(Rung, TEXT, st.lists(TEXT, max_size=2).map(tuple), st.integers(0, 9))

SAMPLES: dict[str, Any] = {
    "installation.json": Memory(
        (TARGET,), (Issued("AB", URL, ("mail.example.test",), None, NOW),),
        compromised=("ab",), runs=(NOW,), in_use="AB",
        rungs=(Rung("RELOADCACHE.SEM", ("mail",), 1),), restarted=NOW,
        put_back=(PutBack("x.ini [SSL] Certificate", "AB", NOW),),
        checked=(Checked("AB", NOW, None),), hold=Hold("AB", NOW, NOW, "use"),
    ),
    "attempt.json": Attempt("AB", {"https://127.0.0.1:443": "CD"}, (
        Change(TARGET, 3, "CD", "AB"),
    ), failed=NOW, rungs=("RELOADCACHE.SEM",)),
    "restart.json": Restart("MDaemon", NOW),
    "account.json": Account({"kty": "EC", "d": "hidden"}, f"{URL}/1"),
    "order.json": OpenOrder(URL, URL, ("mail.example.test",), "p256", "hidden"),
    "pending.pem": certificate(),
    "renewal.json": Draw("AB", NOW, NOW, NOW, NOW, "https://example.test/why"),
    "ledger.json": Ledger(
        (Issuance(("mail.example.test",), NOW),),
        (Failure("a.test", (NOW,), "no", NOW, ""), Failure("", (NOW, NOW), "", None)),
    ),
}  # fmt: skip


def save(state: State, name: str, value: Any) -> Path:  # noqa: ANN401
    """Save a value, and return the file that holds it."""
    ca = state.ca(URL, staging=False)
    savers: dict[str, Callable[[Any], None]] = {
        "installation.json": state.save,
        "attempt.json": state.save,
        "restart.json": state.save,
        "account.json": ca.save,
        "order.json": ca.save,
        "pending.pem": ca.keep,
        "renewal.json": ca.save,
        "ledger.json": ca.save,
    }
    savers[name](value)
    (path,) = state.folder.rglob(name)
    return path


def load(state: State, name: str) -> Any:  # noqa: ANN401
    ca = state.ca(URL, staging=False)
    loaders: dict[str, Callable[[], Any]] = {
        "installation.json": state.load,
        "attempt.json": state.attempt,
        "restart.json": state.restart,
        "account.json": ca.account,
        "order.json": ca.order,
        "pending.pem": ca.pending,
        "renewal.json": ca.draw,
        "ledger.json": ca.ledger,
    }
    value = loaders[name]()
    # Keys know no equality.
    return (value.chain, value.key_pem) if isinstance(value, Certificate) else value


def sample(name: str) -> Any:  # noqa: ANN401
    """Return a sample as it is loaded."""
    value = SAMPLES[name]
    return (value.chain, value.key_pem) if isinstance(value, Certificate) else value


def is_nothing(value: object) -> bool:
    return value is None or value in (Memory(), Ledger())


each = pytest.mark.parametrize("name", SAMPLES)


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "state")


@pytest.fixture
def ca(state: State) -> CaState:
    return state.ca(URL, staging=False)


# Round trips


@each
def test_what_is_saved_is_loaded(state: State, name: str) -> None:
    assert is_nothing(load(state, name))
    save(state, name, SAMPLES[name])
    assert load(State(state.folder), name) == sample(name)


@pytest.mark.parametrize(
    ("name", "added"),
    [("attempt.json", ["rungs"]), ("installation.json", ["rungs", "restarted"])],
)
def test_files_of_earlier_versions_lack_what_was_added(
    state: State, name: str, added: list[str]
) -> None:
    path = save(state, name, SAMPLES[name])
    held = json.loads(path.read_bytes())
    path.write_text(json.dumps({k: v for k, v in held.items() if k not in added}))

    found = load(State(state.folder), name)

    assert found == sample(name)._replace(
        **{field: type(found)._field_defaults[field] for field in added}
    )


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "installation.json": st.builds(
                Memory,
                st.lists(TARGETS, max_size=2).map(tuple),
                st.lists(ISSUED, max_size=2).map(tuple),
                st.lists(DROPPED, max_size=2).map(tuple),
                compromised=st.lists(TEXT, max_size=2).map(tuple),
                runs=st.lists(MOMENTS, max_size=2).map(tuple),
                in_use=TEXT,
                exit_code=st.none() | st.integers(0, 9),
                rungs=st.lists(RUNGS, max_size=2).map(tuple),
                restarted=st.none() | MOMENTS,
                succeeded=st.none() | MOMENTS,
                put_back=st.lists(PUT_BACK, max_size=2).map(tuple),
                checked=st.lists(CHECKED, max_size=2).map(tuple),
                told=TOLD,
                rehearsed=st.none() | REHEARSED,
                hold=st.none() | HOLDS,
            ),
            "attempt.json": st.builds(
                Attempt,
                TEXT,
                st.dictionaries(TEXT, TEXT, max_size=2),
                st.lists(CHANGES, max_size=2).map(tuple),
                st.booleans(),
                st.none() | MOMENTS,
                st.lists(TEXT, max_size=2).map(tuple),
            ),
            "restart.json": st.builds(Restart, TEXT, MOMENTS),
            "account.json": st.builds(
                Account,
                st.dictionaries(TEXT, TEXT),
                TEXT,
                st.dictionaries(TEXT, TEXT),
            ),
            "order.json": st.builds(
                OpenOrder, TEXT, TEXT, st.lists(TEXT).map(tuple), TEXT, TEXT
            ),
            "renewal.json": st.builds(
                Draw,
                TEXT,
                *[st.none() | MOMENTS] * 3,
                MOMENTS,
                TEXT,
            ),
            "ledger.json": st.builds(
                Ledger,
                st.lists(st.builds(Issuance, TEXTS, MOMENTS), max_size=2).map(tuple),
                st.lists(
                    st.builds(Failure, TEXT, TIMES, TEXT, st.none() | MOMENTS, TEXT),
                    max_size=2,
                ).map(tuple),
            ),
        }
    )
)
def test_whatever_is_saved_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, object]
) -> None:
    state = State(tmp_path_factory.mktemp("state"))
    for name, value in values.items():
        save(state, name, value)
    assert {name: load(state, name) for name in values} == values


@each
def test_what_is_saved_anew_replaces_the_former(state: State, name: str) -> None:
    path = save(state, name, SAMPLES[name])
    before = path.read_bytes()
    save(state, name, SAMPLES[name])
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir() if item.is_file()] == [name]


def test_what_is_forgotten_is_gone_and_may_be_forgotten_twice(
    state: State, ca: CaState
) -> None:
    forget = {
        "attempt.json": state.forget_attempt,
        "restart.json": state.forget_restart,
        "order.json": ca.forget_order,
        "pending.pem": ca.forget_pending,
    }
    for name, function in forget.items():
        save(state, name, SAMPLES[name])
        function()
        function()
        assert is_nothing(load(state, name))


def test_an_order_is_forgotten_once_its_certificate_is_kept(ca: CaState) -> None:
    ca.save(SAMPLES["order.json"])
    ca.keep(certificate())
    assert ca.order() is None


def test_a_certificate_is_remembered_once_and_the_oldest_are_forgotten() -> None:
    memory = Memory((TARGET,), ())
    for number in range(MAX_ISSUED + 5):
        memory = memory.remember(Issued(str(number), URL, ()))
    memory = memory.remember(Issued("7", URL, ("new",)))
    assert len(memory.issued) == MAX_ISSUED
    assert memory.targets == (TARGET,)
    assert memory.find("4") is None
    found = memory.find("7")
    assert found is not None
    assert found.names == ("new",)
    assert [item.thumbprint for item in memory.issued].count("7") == 1
    assert memory.issued[-1] == found


EARLIER: dict[str, tuple[str, Any]] = {
    "installation.json": (
        """{
          "targets": [{"file": "a.ini", "section": "SSL", "key": "k", "form": "f"}],
          "issued": [{
            "thumbprint": "AB", "directory_url": "u", "names": ["mail.example.test"],
            "obtained": "2026-03-01T12:30:15+00:00", "verified": null
          }]
        }""",
        Memory(
            (Target("a.ini", "SSL", "k", "f"),),
            (Issued("AB", "u", ("mail.example.test",)),),
        ),
    ),
    "account.json": ('{"key": {"kty": "EC"}, "url": "u"}', Account({"kty": "EC"}, "u")),
    "order.json": (
        """{
          "url": "u", "finalize": "f", "names": ["mail.example.test"],
          "key_type": "p256", "key_pem": "pem"
        }""",
        OpenOrder("u", "f", ("mail.example.test",), "p256", "pem"),
    ),
}


@pytest.mark.parametrize("name", EARLIER)
def test_a_file_of_an_earlier_version_is_loaded(state: State, name: str) -> None:
    text, expected = EARLIER[name]
    save(state, name, SAMPLES[name]).write_text(text)

    assert load(state, name) == expected


# Damage

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(
        ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "\ud800"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


PEM = SAMPLES["pending.pem"].key_pem + SAMPLES["pending.pem"].fullchain_pem


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:  # noqa: ANN401
    """Return the way to everything in a JSON document."""
    found = [path]
    inner = enumerate(value) if isinstance(value, list) else ()
    for key_, item in value.items() if isinstance(value, dict) else inner:
        found += places(item, (*path, key_))
    return found


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw the name of a file of ours, and something odd that it may hold."""
    name = draw(st.sampled_from(list(SAMPLES)))
    if draw(st.booleans()):
        return name, draw(st.binary(max_size=60))
    if name.endswith(".pem"):
        data = bytearray(PEM)
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
        return name, bytes(data[: draw(st.integers(0, len(data)))])
    document = DOCUMENTS[name]
    *way, last = draw(st.sampled_from(places(document)[1:]))
    document = json.loads(json.dumps(document))
    parent = document
    for step in way:
        parent = parent[step]
    if draw(st.booleans()):
        del parent[last]
    else:
        parent[last] = draw(JSON)
    return name, json.dumps(document).encode()


@pytest.fixture(scope="module", autouse=True)
def documents(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Write each sample once, to know what the files look like."""
    state = State(tmp_path_factory.mktemp("documents"))
    for name, value in SAMPLES.items():
        path = save(state, name, value)
        if name.endswith(".json"):
            DOCUMENTS[name] = json.loads(path.read_bytes())


DOCUMENTS: dict[str, Any] = {}


@settings(deadline=None)
@given(damaged())
@example(("account.json", b"[]"))
@example(("account.json", b'{"key": [], "url": ""}'))
@example(("account.json", b'{"key": {}, "url": 1}'))
@example(("installation.json", b'{"targets": {}, "issued": []}'))
@example(("installation.json", b'{"targets": [1], "issued": []}'))
@example(("installation.json", b'{"targets": [], "issued": [1]}'))
@example(("renewal.json", b'{"thumbprint": "", "start": "2026-01-01"}'))
@example(("attempt.json", b'{"before": [], "undoing": 1}'))
@example(("account.json", b"[" * 100_000))
@example(("order.json", b"9" * 10_000))
@example(("installation.json", b""))
@example(("pending.pem", certificate().fullchain_pem))
@example(("pending.pem", certificate().key_pem))
@example(("pending.pem", key_pem(key(7)) + certificate().fullchain_pem))
@example(("pending.pem", certificate().key_pem + odd_version(leaf())))
def test_a_file_may_hold_anything_and_is_rebuilt(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[str, bytes]
) -> None:
    name, data = case
    state = State(tmp_path_factory.mktemp("state"))
    path = save(state, name, SAMPLES[name])
    path.write_bytes(data)
    value = load(state, name)
    if aside := list(path.parent.glob(f"{name}.damaged-*")):
        assert is_nothing(value)
        assert [item.read_bytes() for item in aside] == [data]
        assert not path.exists()
    else:
        assert type(value) is type(sample(name))
    save(state, name, SAMPLES[name])
    assert load(state, name) == sample(name)


@each
def test_a_damaged_file_is_set_aside_under_another_name_and_said(
    state: State, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = save(state, name, SAMPLES[name])
    for data in (b"\0", b"{}"):
        path.write_bytes(data)
        assert is_nothing(load(state, name))
        assert not path.exists()
    kept = [item.read_bytes() for item in path.parent.glob(f"{name}.damaged-*")]
    assert sorted(kept) == [b"\0", b"{}"]
    assert len(caplog.messages) == 2
    for message in caplog.messages:
        assert message.startswith(f"{path} is damaged")
        assert f"was renamed to {name}.damaged-" in message


@pytest.mark.parametrize(
    "moment", ["2026-01-01T00:00:00", "0001-01-01T00:00:00+14:00", "2026", "", None]
)
def test_a_moment_that_is_none_is_damage(ca: CaState, moment: str | None) -> None:
    ca.save(SAMPLES["renewal.json"])
    path = ca.folder / "renewal.json"
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps(document | {"ask_again": moment}))
    assert ca.draw() is None
    assert not path.exists()


@each
@pytest.mark.parametrize("make", [Path.mkdir, huge])
def test_what_is_no_file_of_ours_at_all_is_set_aside(
    state: State, name: str, make: Callable[[Path], None]
) -> None:
    path = save(state, name, SAMPLES[name])
    path.unlink()
    make(path)
    assert is_nothing(load(state, name))
    save(state, name, SAMPLES[name])
    assert load(state, name) == sample(name)


def test_a_pending_certificate_without_its_own_key_is_set_aside(
    state: State, ca: CaState
) -> None:
    save(state, "pending.pem", Certificate(certificate().chain, key(7)))
    assert ca.pending() is None
    assert [path.name[:12] for path in ca.folder.iterdir()] == ["pending.pem."]


# Privacy


@each
def test_every_file_and_folder_is_private_from_the_first_byte(
    state: State, name: str
) -> None:
    state.folder.mkdir(mode=0o700)
    with private(state.folder):
        path = save(state, name, SAMPLES[name])
        path.write_bytes(b"damaged")
        load(state, name)
        save(state, name, SAMPLES[name])
    assert path.exists()


def test_the_state_folder_itself_is_made_private(state: State) -> None:
    with private(state.folder):
        save(state, "account.json", SAMPLES["account.json"])


def test_no_repr_shows_a_key(ca: CaState) -> None:
    ca.keep(certificate())
    pem = certificate().key_pem.decode().splitlines()[1]
    for value in (*SAMPLES.values(), ca.pending()):
        assert "hidden" not in repr(value)
        assert pem not in repr(value)
        assert "PrivateKey" not in repr(value)
    assert URL in repr(SAMPLES["account.json"])


# Disks that fail


@each
@pytest.mark.parametrize("failing", [full_disk, read_only])
def test_what_cannot_be_saved_is_an_error_and_the_former_stays(
    state: State, name: str, failing: Callable[..., Any]
) -> None:
    save(state, name, SAMPLES[name])
    before = contents(state.folder)
    expected = Error if failing is full_disk else ConfigError
    expected = DeployError if name == "pending.pem" else expected
    with (
        failing(state.folder),
        pytest.raises(Error, match="Could not write") as error,
    ):
        save(state, name, SAMPLES[name])
    assert type(error.value) is expected
    assert name in error.value.message
    assert error.value.hint
    assert contents(state.folder) == before


def test_a_certificate_that_cannot_be_kept_leaves_its_order(
    state: State, ca: CaState
) -> None:
    # So that the next run can take it from the CA.
    ca.save(SAMPLES["order.json"])
    with full_disk(state.folder), pytest.raises(DeployError):
        ca.keep(certificate())
    assert ca.order() == SAMPLES["order.json"]
    assert ca.pending() is None


@each
def test_what_cannot_be_read_is_an_error_and_stays(state: State, name: str) -> None:
    # It may be fine: setting it aside would lose the account.
    path = save(state, name, SAMPLES[name])
    with unreadable(path), pytest.raises(Error, match="Could not read") as caught:
        load(state, name)
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert load(state, name) == sample(name)


def test_what_cannot_be_forgotten_is_an_error(state: State, ca: CaState) -> None:
    save(state, "order.json", SAMPLES["order.json"])
    with read_only(state.folder), pytest.raises(Error, match="Could not remove"):
        ca.forget_order()


def test_what_cannot_be_set_aside_is_an_error(state: State) -> None:
    path = save(state, "account.json", SAMPLES["account.json"])
    path.write_bytes(b"damaged")
    with (
        read_only(state.folder),
        pytest.raises(Error, match="Could not rename") as caught,
    ):
        load(state, "account.json")
    assert str(path) in caught.value.message
    assert path.read_bytes() == b"damaged"


def test_a_folder_that_is_a_file_is_an_error(state: State) -> None:
    state.folder.write_bytes(b"theirs")
    for name, value in SAMPLES.items():
        with pytest.raises(Error, match="Could not"):
            save(state, name, value)
    assert state.folder.read_bytes() == b"theirs"


# Folders

URLS = st.one_of(
    st.text(max_size=12).map("https://{}".format),
    st.text("aAb./_-:%?=~\\ ", max_size=12).map("https://ca/{}".format),
    st.sampled_from(
        ["http://localhost:14000/dir", "https://con", "https://ca/" + "x" * 500]
    ),
)


CAS = st.tuples(URLS, st.booleans())


@settings(deadline=None)
@given(CAS, CAS)
@example(("https://ca/a_b", False), ("https://ca/a/b", False))
@example(("https://ca/a", False), ("https://ca/A", False))
@example(("https://ca/a", False), ("http://ca/a", False))
@example(("https://staging", False), ("https://ca", True))
@example(("https://../../x", True), ("https://..", True))
def test_cas_never_share_a_folder_nor_leave_the_state_folder(
    one: tuple[str, bool], two: tuple[str, bool]
) -> None:
    state = State(Path("state"))
    folders = [state.ca(url, staging=staging).folder for url, staging in (one, two)]
    for folder, (_, staging) in zip(folders, (one, two), strict=True):
        top = state.folder / "staging" if staging else state.folder
        assert folder.parent == top
        # A name that Windows takes as it is.
        assert re.fullmatch(r"(?!\.)[a-z0-9._-]*-[0-9a-f]{12}", folder.name)
        assert len(folder.name) < 80
    assert (len({str(folder).lower() for folder in folders}) == 1) == (one == two)


def test_the_folder_of_a_ca_can_be_recognised() -> None:
    folder = State(Path("state")).ca(URL, staging=False).folder
    assert folder.name.startswith("ca.example.test_directory-")


def test_other_things_in_the_state_folder_have_their_places(tmp_path: Path) -> None:
    state = State(tmp_path)
    assert state.lock == tmp_path / "lock"
    assert state.backups == tmp_path / "backups"
