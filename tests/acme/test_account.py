"""The account at the CA: bound to another, shown, given a new key, closed."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from letsencrypt_mdaemon.acme import transport
from letsencrypt_mdaemon.acme.account import Accounts
from letsencrypt_mdaemon.acme.external import ExternalAccount
from letsencrypt_mdaemon.acme.transport import ATTEMPTS
from letsencrypt_mdaemon.errors import AcmeError, ConfigError
from letsencrypt_mdaemon.sandbox.ca.faults import Faults
from letsencrypt_mdaemon.sandbox.ca.messages import LOST, Answer, Problem, html
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.state.folder import CaState
from letsencrypt_mdaemon.state.memory import Account
from letsencrypt_mdaemon.system.locks import exclusive_lock
from tests.program import PREFIX, Program, at
from tests.scene import NAME, Scene, scene_in, without

KID, MAC = "kid-1", bytes(range(48))
TEXT = urlsafe_b64encode(MAC).decode()
WRONG = urlsafe_b64encode(MAC[::-1]).decode()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with scene_in(tmp_path) as scene:
        yield scene


@pytest.fixture
def bound(tmp_path: Path) -> Iterator[Scene]:
    """A scene whose CA requires an external account (EAB) to another."""
    with scene_in(tmp_path, external_accounts={KID: MAC}) as scene:
        yield scene


def accounts(scene: Scene) -> Accounts:
    """Return the account as a new run has it."""
    return scene.issuer().accounts


def kept(scene: Scene) -> Account:
    """Return the account as it is on disk."""
    account = scene.state.account()
    assert account is not None
    return account


# An account that is bound to one at the CA's web site (RFC 8555, 7.3.4)


def test_an_account_is_bound_to_the_one_at_the_web_site(bound: Scene) -> None:
    external = ExternalAccount.read(KID, TEXT)

    assert bound.obtain(external=lambda: external).names == (NAME,)

    (request,) = bound.requests("newAccount")
    binding = request.payload["externalAccountBinding"]
    assert binding.keys() == {"protected", "payload", "signature"}
    assert bound.obtain().names == (NAME,), "it is asked for once"


@pytest.mark.parametrize(
    ("kid", "key", "said"),
    [(KID, WRONG, "JWS verification error"), ("kid-2", TEXT, "is unknown")],
)
def test_a_wrong_external_account_is_refused_and_may_be_corrected(
    bound: Scene, kid: str, key: str, said: str
) -> None:
    wrong, right = ExternalAccount.read(kid, key), ExternalAccount.read(KID, TEXT)

    error = bound.failing(external=lambda: wrong)

    assert said in str(error)
    assert "eab-kid" in error.hint
    assert "eab-key-file" in error.hint
    assert bound.ca.accounts == {}
    assert bound.obtain(external=lambda: right).names == (NAME,)


def test_an_external_account_that_is_not_wanted_does_no_harm(scene: Scene) -> None:
    external = ExternalAccount.read(KID, TEXT)

    assert scene.obtain(external=lambda: external).names == (NAME,)


@given(st.binary(min_size=1))
@example(b"\xfb\xff\xfe")
@example(b"\0")
def test_the_key_is_read_however_the_web_site_shows_it(key: bytes) -> None:
    shown = urlsafe_b64encode(key).decode()
    for text in (shown, shown.rstrip("="), b64encode(key).decode(), f" {shown}\r\n"):
        assert ExternalAccount.read(KID, text) == ExternalAccount(KID, key)


@given(st.text())
@example("")
@example("A")
@example("AA AA")
@example("AAAA\nAAAA")
@example("AAAAA")
@example("\uff21" * 4)
def test_any_text_is_a_key_or_an_error_that_does_not_quote_it(text: str) -> None:
    said = ""
    try:
        said = repr(ExternalAccount.read(KID, text))
    except ValueError as exc:
        said = str(exc)
    assert said in {
        f"ExternalAccount(kid={KID!r})",
        "is not base64url",
        "is not base64url: its end is missing",
    }


# Shown (7.1.2)


def test_an_account_is_shown_as_the_ca_has_it(scene: Scene) -> None:
    scene.obtain(contact=["postmaster@example.test"])

    found = accounts(scene).document()

    assert found["status"] == "valid"
    assert found["contact"] == ["mailto:postmaster@example.test"]


def deactivate(run: Accounts) -> object:
    return run.deactivate()


def roll_over(run: Accounts) -> object:
    return run.roll_over()


def show(run: Accounts) -> object:
    return run.document()


EACH = pytest.mark.parametrize("act", [show, deactivate, roll_over])


@EACH
def test_nothing_is_registered_only_to_be_shown_or_changed(
    scene: Scene, act: Callable[[Accounts], object]
) -> None:
    with pytest.raises(ConfigError, match="There is no account") as caught:
        act(accounts(scene))

    assert "`renew` registers one" in caught.value.hint
    assert scene.count("newAccount", "newNonce") == (0, 0)


@EACH
def test_a_closed_account_is_told_with_the_file_to_remove(
    scene: Scene, act: Callable[[Accounts], object]
) -> None:
    scene.obtain()
    (account,) = scene.ca.accounts.values()
    account.document["status"] = "deactivated"

    with pytest.raises(AcmeError, match="is deactivated") as caught:
        act(accounts(scene))

    assert str(scene.state.folder / "account.json") in caught.value.hint
    assert kept(scene).next_key == {}


@EACH
def test_an_account_that_the_ca_has_lost_is_told_and_kept(
    scene: Scene, act: Callable[[Accounts], object]
) -> None:
    scene.obtain()
    before = kept(scene)
    scene.ca.accounts.clear()

    with pytest.raises(AcmeError, match="accountDoesNotExist") as caught:
        act(accounts(scene))

    assert "account.json" in caught.value.hint
    assert kept(scene) == before
    assert scene.obtain().names == (NAME,)


# Closed (7.3.6)


def test_a_closed_account_is_set_aside_and_the_next_run_makes_another(
    scene: Scene,
) -> None:
    scene.obtain()
    first = kept(scene)

    assert accounts(scene).deactivate() == first.url

    assert scene.ca.accounts[first.url].document["status"] == "deactivated"
    assert scene.state.account() is None
    (aside,) = scene.state.folder.glob("account.json.retired-*")
    assert json.loads(aside.read_bytes())["key"] == first.key
    assert scene.obtain().names == (NAME,)
    assert kept(scene).url != first.url
    assert kept(scene).key != first.key


def test_an_account_that_could_not_be_closed_stays_in_use(scene: Scene) -> None:
    scene.obtain()
    before = kept(scene)
    scene.ca.faults.before("account", html(503), times=ATTEMPTS)

    with pytest.raises(AcmeError):
        accounts(scene).deactivate()

    assert kept(scene) == before
    assert scene.obtain().names == (NAME,)


# A new key (7.3.5)


def test_a_new_key_takes_the_place_of_the_old_one(scene: Scene) -> None:
    scene.obtain()
    before = kept(scene)

    assert accounts(scene).roll_over() == before.url

    after = kept(scene)
    assert after.url == before.url
    assert after.key != before.key
    assert after.next_key == {}
    assert scene.obtain().names == (NAME,)
    assert scene.count("newAccount", "keyChange") == (1, 1)
    assert len(scene.ca.accounts) == 1


def test_the_new_key_is_on_disk_before_the_ca_hears_of_it(scene: Scene) -> None:
    scene.obtain()
    before = kept(scene)
    seen: list[Account] = []

    def look(_: object) -> bool:
        seen.append(kept(scene))
        return False

    scene.ca.faults.before("keyChange", look)
    accounts(scene).roll_over()

    (during,) = seen
    assert during.key == before.key
    assert during.next_key == kept(scene).key


class KilledError(BaseException):
    """The end of the process, at which nothing more can be done."""


@pytest.mark.parametrize("saves", [0, 1])
@pytest.mark.parametrize("dies", ["before", "after"])
def test_a_rollover_that_is_killed_leaves_an_account_that_works(
    scene: Scene, saves: int, dies: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.obtain()
    before = kept(scene)
    save, count = CaState.save, iter(range(10))

    def dying(self: CaState, account: Account) -> None:
        last = next(count) == saves
        if last and dies == "before":
            raise KilledError
        save(self, account)
        if last:
            raise KilledError

    monkeypatch.setattr(CaState, "save", dying)
    with pytest.raises(KilledError):
        accounts(scene).roll_over()
    monkeypatch.undo()

    # The CA has heard of it only if the new key was on disk.
    assert scene.count("keyChange") == (saves,)
    assert scene.obtain().names == (NAME,)
    assert kept(scene).url == before.url
    assert kept(scene).next_key == {}
    assert (kept(scene).key != before.key) == bool(saves)
    assert len(scene.ca.accounts) == 1


class Outage:
    """A CA that is down for key changes, and for those who ask what became of one.

    Args:
        scene: Where the CA is.
        moment: Whether it goes down before it hears of a new key, or after it took it.
    """

    def __init__(self, scene: Scene, moment: str, fault: Answer) -> None:
        self.fault, self.is_on = fault, moment == "before"
        scene.ca.faults.before("keyChange|newAccount", self.refuse)
        if moment == "after":
            scene.ca.faults.after("keyChange", self.begin, times=1)

    def refuse(self, _: object) -> Answer | bool:
        """Answer that it is down."""
        return self.is_on and self.fault

    def begin(self, _: object) -> Answer:
        """Be down from now on."""
        self.is_on = True
        return self.fault


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("fault", [LOST, html(502), html(200)])
def test_a_rollover_that_is_never_answered_is_settled_by_the_next_run(
    scene: Scene, moment: str, fault: Answer
) -> None:
    scene.obtain()
    before = kept(scene)
    outage = Outage(scene, moment, fault)

    with pytest.raises(AcmeError):
        accounts(scene).roll_over()
    with pytest.raises(AcmeError):
        accounts(scene).document()

    during = kept(scene)
    assert during.key == before.key
    assert during.next_key
    outage.is_on = False
    assert scene.obtain().names == (NAME,)
    after = kept(scene)
    assert after.next_key == {}
    assert after.url == before.url
    assert after.key == (before.key if moment == "before" else during.next_key)
    assert len(scene.ca.accounts) == 1


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_rollover_may_be_run_again_after_it_was_interrupted(
    scene: Scene, moment: str
) -> None:
    scene.obtain()
    outage = Outage(scene, moment, html(503))
    with pytest.raises(AcmeError):
        accounts(scene).roll_over()
    during = kept(scene)
    outage.is_on = False

    assert accounts(scene).roll_over() == during.url

    assert kept(scene).key not in (during.key, during.next_key)
    assert scene.obtain().names == (NAME,)
    assert len(scene.ca.accounts) == 1


def test_a_ca_may_agree_to_a_new_key_without_a_word(scene: Scene) -> None:
    scene.obtain()
    before = kept(scene)
    scene.ca.faults.after("keyChange", lambda answer: answer.document.clear())

    assert accounts(scene).roll_over() == before.url

    assert kept(scene).key != before.key
    assert scene.obtain().names == (NAME,)


@pytest.mark.parametrize("fault", [LOST, html(502)])
def test_a_rollover_whose_answer_got_lost_is_not_mistaken_for_a_refusal(
    scene: Scene, fault: Answer
) -> None:
    scene.obtain()
    before = kept(scene)
    scene.ca.faults.after("keyChange", fault, times=1)

    assert accounts(scene).roll_over() == before.url

    assert kept(scene).key != before.key
    assert kept(scene).next_key == {}
    assert scene.obtain().names == (NAME,)
    assert len(scene.ca.accounts) == 1


RUNS: tuple[Callable[[Scene], object], ...] = (
    lambda scene: accounts(scene).roll_over(),
    lambda scene: accounts(scene).document(),
    lambda scene: scene.obtain(),
)
FAULTS = st.tuples(
    st.sampled_from(["before", "after"]),
    st.sampled_from(["keyChange", "newAccount", "keyChange|newAccount", "newNonce"]),
    st.sampled_from(
        [
            *(LOST, html(200), html(403), html(501), html(502)),
            Problem("serverInternal", "No", 500),
            Problem("serverInternal", "No", 503, headers={"Retry-After": "9999"}),
            Problem("externalAccountRequired", "No", 403),
            Problem("malformed", "No"),
            Problem("rateLimited", "No", 429),
            Problem("unauthorized", "No", 403),
            Problem("badNonce", "No"),
        ]
    ),
    st.integers(1, 2 * ATTEMPTS),
)


@settings(max_examples=25)
@given(st.lists(FAULTS, max_size=4), st.lists(st.sampled_from(RUNS), max_size=3))
@example([("before", "keyChange|newAccount", html(200), 2)], [])
@example([("after", "keyChange", Problem("serverInternal", "No", 500), 5)], [])
def test_whatever_goes_wrong_during_a_rollover_the_account_is_not_lost(
    faults: list[tuple[str, str, Answer | Problem, int]],
    runs: list[Callable[[Scene], object]],
) -> None:
    with TemporaryDirectory() as folder, scene_in(Path(folder)) as scene:
        scene.obtain()
        url = kept(scene).url
        for moment, resources, fault, times in faults:
            getattr(scene.ca.faults, moment)(resources, fault, times=times)
        for run in (RUNS[0], *runs):
            with suppress(AcmeError):
                run(scene)
        scene.ca.faults = Faults(validation_in_answer=True)

        assert scene.obtain().names == (NAME,)

        assert kept(scene).url == url
        assert kept(scene).next_key == {}
        assert len(scene.ca.accounts) == 1


REFUSALS = [
    Problem("malformed", "The new key has an account already", 409),
    Problem("rejectedIdentifier", "Not implemented", 501),
    Problem("unauthorized", "Not now", 403),
    Problem("badPublicKey", "Not this one"),
    Problem("malformed", "No", 404),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda each: str(each.status))
def test_a_refused_rollover_leaves_the_account_as_it_was(
    scene: Scene, refusal: Problem
) -> None:
    scene.obtain()
    before = kept(scene)
    scene.ca.faults.before("keyChange", refusal)

    with pytest.raises(AcmeError, match=f"HTTP {refusal.status}") as caught:
        accounts(scene).roll_over()

    assert refusal.detail in str(caught.value)
    if refusal.kind != "unauthorized":
        assert caught.value.hint == "The account keeps its key."
    assert kept(scene) == before
    assert scene.obtain().names == (NAME,)


def test_a_rollover_refused_by_a_page_leaves_an_account_that_works(
    scene: Scene,
) -> None:
    scene.obtain()
    before = kept(scene)
    scene.ca.faults.before("keyChange", html(501))

    with pytest.raises(AcmeError, match="HTTP 501"):
        accounts(scene).roll_over()

    assert scene.obtain().names == (NAME,)
    assert kept(scene) == before


@pytest.mark.parametrize("kind", ["externalAccountRequired", "malformed"])
def test_a_ca_that_refuses_to_look_for_a_new_key_does_not_lock_us_out(
    scene: Scene, kind: str
) -> None:
    scene.obtain()
    before = kept(scene)

    scene.ca.faults.before("keyChange", LOST, times=ATTEMPTS)
    with pytest.raises(AcmeError):
        accounts(scene).roll_over()
    scene.ca.faults.before("newAccount", Problem(kind, "No"), times=1)

    assert scene.obtain().names == (NAME,)

    assert kept(scene) == before


def test_a_ca_that_was_set_up_anew_during_a_rollover_gets_a_new_account(
    scene: Scene,
) -> None:
    scene.obtain()
    scene.ca.faults.before("keyChange", LOST, times=ATTEMPTS)
    with pytest.raises(AcmeError):
        accounts(scene).roll_over()
    scene.ca.accounts.clear()

    assert scene.obtain().names == (NAME,)

    assert kept(scene).next_key == {}
    assert kept(scene).url in scene.ca.accounts


@pytest.mark.parametrize("next_key", [{"kty": "odd"}, {"d": "AA"}])
def test_a_next_key_that_makes_no_sense_is_forgotten(
    scene: Scene, next_key: dict[str, str]
) -> None:
    scene.obtain()
    before = kept(scene)
    scene.state.save(Account(before.key, before.url, next_key))

    assert scene.obtain().names == (NAME,)

    assert kept(scene) == before


def test_a_ca_without_key_change_is_told_and_not_tried(scene: Scene) -> None:
    scene.obtain()
    before = kept(scene)
    scene.ca.faults.after("directory", without("keyChange"))

    with pytest.raises(ConfigError, match="does not support key changes") as caught:
        accounts(scene).roll_over()

    assert "Deactivate the account instead" in caught.value.hint
    assert kept(scene) == before
    assert scene.count("keyChange") == (0,)


# The commands


def test_the_account_is_shown_with_the_caa_record_that_names_it(
    program: Program,
) -> None:
    assert program.here("renew", "--contact", "root@example.test").exit_code == 0

    report = program.here("account show").report
    shown = program.here("account show", as_json=False).output

    url = report["account"]
    assert report["command"] == "account show"
    assert report["status"] == "valid"
    assert report["contact"] == ["mailto:root@example.test"]
    assert report["caa_parameters"] == f"accounturi={url}; validationmethods=http-01"
    for text in (url, "valid", "mailto:root@example.test", report["caa_parameters"]):
        assert text in shown


def test_what_a_ca_says_of_an_account_cannot_act_on_a_terminal(
    program: Program, ca: CertificateAuthority
) -> None:
    assert program.here("renew").exit_code == 0
    hostile = {"contact": ["mailto:\x1b[2J", {"a": 1}, None], "status": ["\x9b"]}
    ca.faults.after("account", lambda answer: answer.document.update(hostile))

    shown = program.here("account show", as_json=False)

    assert shown.exit_code == 0
    assert all(line.isprintable() for line in shown.output.splitlines())
    ca.faults.after("account", lambda answer: answer.document.update(contact="x"))
    assert program.here("account show").report["contact"] == []


def test_the_commands_change_the_account_and_say_so(
    program: Program, ca: CertificateAuthority
) -> None:
    assert program.here("renew").exit_code == 0
    (url,) = ca.accounts

    assert program.here("account rollover").report["account"] == url
    shown = program.here("account rollover", as_json=False)
    assert shown.output == f"The account {url} has a new key.\n"
    closed = program.here("account deactivate", as_json=False)
    assert closed.output == f"The account {url} is closed.\n"
    gone = program.here("account show")
    assert gone.exit_code == 2
    assert "There is no account" in gone.report["error"]["message"]
    again = program.here("account deactivate")
    assert again.exit_code == 2
    assert program.here("renew", "--force").exit_code == 0
    assert len(ca.accounts) == 2


def test_a_ca_that_cannot_be_had_is_exit_code_3_and_changes_nothing(
    program: Program, ca: CertificateAuthority
) -> None:
    assert program.here("renew").exit_code == 0
    (file,) = program.state.glob("*/account.json")
    before = file.read_bytes()
    ca.faults.before("keyChange", Problem("serverInternal", "Not implemented", 501))

    ran = program.here("account rollover")

    assert ran.exit_code == 3
    assert "HTTP 501: Not implemented (serverInternal)" in ran.messages
    assert file.read_bytes() == before


def test_terms_that_changed_are_told_with_their_url_and_agreed_to_at_the_ca(
    program: Program, ca: CertificateAuthority
) -> None:
    url = "https://ca.test/agree"
    changed = Problem("userActionRequired", "New terms.", 403, more={"instance": url})
    ca.faults.before("newOrder", changed, times=1)

    ran = program.here("renew")

    assert ran.exit_code == 3
    assert url in ran.report["error"]["message"]
    assert "agree, and run again" in ran.report["error"]["hint"]
    assert program.here("renew").report["renewed"], "nothing is to be waited for"


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("letsencrypt", "acme-v02.api.letsencrypt.org"),
        ("google", "dv.acme-v02.api.pki.goog"),
        ("zerossl", "acme.zerossl.com"),
    ],
)
def test_a_ca_may_be_named_and_is_asked_through_the_proxy_of_the_environment(
    program: Program, name: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "ATTEMPTS", 1)
    monkeypatch.delenv("no_proxy", raising=False)
    environ = {"NO_PROXY": "", "HTTPS_PROXY": "http://127.0.0.1:1"}

    ran = program.here("renew", "--force", "--directory-url", name, environ=environ)

    assert ran.exit_code == 3
    message = ran.report["error"]["message"]
    assert message.startswith(f"Could not reach https://{host}/")
    assert " through the proxy 127.0.0.1:1: " in message


@pytest.mark.parametrize("command", ["show", "rollover", "deactivate"])
def test_nothing_is_done_to_an_account_while_another_run_may_use_it(
    program: Program, ca: CertificateAuthority, command: str
) -> None:
    with exclusive_lock(program.state / "lock"):
        ran = program.here(f"account {command}")

    assert ran.exit_code == 6
    assert ca.requests == []


@pytest.fixture
def binding(beside: Program, tmp_path: Path) -> Iterator[Program]:
    """The program beside a sandbox, and a CA that wants an external account."""
    port = beside.server.http_port
    folder = tmp_path / "ca"
    with CertificateAuthority(
        folder, http_port=port, external_accounts={KID: MAC}
    ) as ca:
        beside.options += [*at(ca.directory_url, ca.ca_bundle), "--key-type", "p256"]
        yield beside


@pytest.mark.parametrize("head", ["", "\ufeff"])
def test_the_external_key_comes_from_a_file(
    binding: Program, tmp_path: Path, head: str
) -> None:
    file = tmp_path / "eab.txt"
    file.write_text(f"{head}{TEXT}\r\n", "utf-8")

    ran = binding.here("renew", "--eab-kid", KID, "--eab-key-file", str(file))

    assert ran.exit_code == 0, ran.messages
    file.unlink()
    later = binding.here("renew", "--force", "--eab-kid", KID)
    assert later.exit_code == 0, "it is needed only once"


def test_the_external_key_comes_from_the_environment_and_is_told_nobody(
    binding: Program,
) -> None:
    environ = {f"{PREFIX}EAB_KID": KID, f"{PREFIX}EAB_KEY": TEXT}

    ran = binding.here("renew", "-v", environ=environ)

    assert ran.exit_code == 0, ran.messages
    told = [ran.output, ran.messages, binding.log()]
    told += [binding.here("config show", environ=environ).output]
    files = [path for path in binding.state.rglob("*") if path.is_file()]
    assert files
    told += [path.read_bytes().decode("utf-8", "replace") for path in files]
    assert not [text for text in told if TEXT[:20] in text]


def test_the_external_key_is_no_argument(binding: Program) -> None:
    ran = binding.here("renew", "--eab-kid", KID, "--eab-key", TEXT)

    assert ran.exit_code == 2
    assert "No such option" in ran.report["error"]["message"]


@pytest.mark.parametrize(
    ("kid", "key", "said"),
    [
        ("", "", "requires an external account (EAB)"),
        (KID, "", "its key (eab-key-file) is missing"),
        ("", TEXT, "eab-kid is missing"),
        (KID, "not base64url!", "is not base64url"),
        (KID, TEXT[:-3], "is not base64url: its end is missing"),
    ],
)
def test_an_external_account_that_is_not_complete_is_told_before_any_request(
    binding: Program, kid: str, key: str, said: str
) -> None:
    ran = binding.here(
        "renew", environ={f"{PREFIX}EAB_KID": kid, f"{PREFIX}EAB_KEY": key}
    )

    assert ran.exit_code == 2
    assert said in ran.report["error"]["message"]
    assert ran.report["error"]["hint"]
    assert not key or key not in ran.output + ran.messages


def test_a_key_file_over_the_limit_is_refused_and_the_limit_named(
    binding: Program, tmp_path: Path
) -> None:
    (tmp_path / "eab.txt").write_bytes(b"x" * ((64 << 10) + 1))

    ran = binding.here(
        "renew", "--eab-kid", KID, "--eab-key-file", str(tmp_path / "eab.txt")
    )

    assert ran.exit_code == 2
    assert ran.report["error"]["message"].endswith(
        "(eab-key-file): it is larger than 64 kB, the limit for a secret"
    )


@pytest.mark.parametrize("content", [None, b"\xff\xfe\0\1", b""])
def test_a_key_file_that_cannot_be_used_is_told(
    binding: Program, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "eab.txt"
    if content is not None:
        file.write_bytes(content)

    ran = binding.here("renew", "--eab-kid", KID, "--eab-key-file", str(file))

    assert ran.exit_code == 2
    assert "eab-key-file" in ran.report["error"]["message"]
