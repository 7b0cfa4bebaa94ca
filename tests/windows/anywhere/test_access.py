"""Who may do what, as Windows writes it down."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letsencrypt_mdaemon.windows import access
from letsencrypt_mdaemon.windows.access import ADMINISTRATORS, READ, SYSTEM

# What Windows Server gives a folder made in C:\\, and one in C:\\Program Files.
MADE_IN_C = (
    "O:BAG:DUD:AI(A;OICIID;FA;;;BA)(A;OICIID;FA;;;SY)(A;OICIID;0x1200a9;;;BU)"
    "(A;ID;0x1301bf;;;AU)(A;OICIIOID;SDGXGWGR;;;AU)"
)
PROGRAM_FILES = (
    "D:PAI(A;;0x1301bf;;;SY)(A;OICIIO;GA;;;SY)(A;;0x1301bf;;;BA)(A;OICIIO;GA;;;BA)"
    "(A;;0x1200a9;;;BU)(A;OICIIO;GXGR;;;BU)(A;OICIIO;GA;;;CO)"
)


BOB = "S-1-5-21-1-2-3-1105"


@pytest.mark.parametrize(
    ("listed", "who"),
    [
        (MADE_IN_C, ["S-1-5-11"]),
        (PROGRAM_FILES, []),
        ("D:(A;;FW;;;WD)", [access.EVERYONE]),
        ("D:(A;;GA;;;BU)", ["S-1-5-32-545"]),
        ("D:(A;;WD;;;IU)", ["S-1-5-4"]),
        ("D:(A;;FR;;;BU)(A;;FX;;;AU)", []),
        ("D:(D;;FA;;;BU)(A;;FA;;;BU)", []),
        ("D:(A;OICIIO;FA;;;BU)", ["S-1-5-32-545"]),
        ("D:(D;OICIIO;FA;;;BU)(A;;FA;;;BU)", ["S-1-5-32-545"]),
        ("D:NO_ACCESS_CONTROL", [access.EVERYONE]),
        ("D:P", []),
        (access.private([]), []),
        # One user, groups of a domain, and others that nobody has to know.
        (f"D:(A;;FA;;;{BOB})", [BOB]),
        ("D:(A;;FA;;;DU)(A;;FA;;;PU)(A;;FA;;;LA)", ["DU", "PU", "LA"]),
        ("D:(A;;FA;;;S-1-15-2-1)", ["S-1-15-2-1"]),
        # Who makes a file owns it; what is not inherited means nobody.
        ("D:(A;OICIIO;GA;;;CO)(A;;FA;;;OW)", []),
        ("D:(A;OICI;GA;;;CO)", [access.CREATOR_OWNER]),
        (f"D:(A;;FA;;;{access.TRUSTED_INSTALLER})(A;;FA;;;SY)(A;;FA;;;BA)", []),
        # What a folder made in C:\\ has on a server.
        ("D:(A;OICIID;0x1200a9;;;BU)(A;CIID;LC;;;BU)", ["S-1-5-32-545"]),
        ("D:(A;CIIOID;DC;;;BU)", ["S-1-5-32-545"]),
    ],
)
def test_whoever_may_change_a_folder_and_is_not_trusted_is_named(
    listed: str, who: list[str]
) -> None:
    assert access.strangers(listed) == who
    assert access.strangers(listed, who) == []


@pytest.mark.parametrize(
    ("listed", "who"),
    [
        (MADE_IN_C, ["S-1-5-11"]),  # they may delete it, and so rename it
        (PROGRAM_FILES, []),
        ("D:(A;OICI;0x1200a9;;;BU)(A;CI;LC;;;BU)(A;CIIO;DC;;;BU)", []),
        ("D:(A;;DT;;;BU)", ["S-1-5-32-545"]),
        ("D:(A;;WD;;;BU)", ["S-1-5-32-545"]),
        ("D:(A;;WO;;;BU)", ["S-1-5-32-545"]),
        ("D:(A;;SD;;;BU)", ["S-1-5-32-545"]),
        ("D:(A;OICIIO;FA;;;BU)", []),
        (f"D:(A;;FA;;;{BOB})", [BOB]),
    ],
)
def test_of_a_parent_only_the_rights_to_exchange_it_count(
    listed: str, who: list[str]
) -> None:
    assert access.strangers(listed, is_parent=True) == who


@pytest.mark.parametrize(
    ("listed", "sid"),
    [
        (MADE_IN_C, ADMINISTRATORS),
        ("O:SYD:", SYSTEM),
        (f"O:{BOB}G:DUD:P", BOB),
        (access.private([], BOB), BOB),
    ],
)
def test_the_owner_is_read(listed: str, sid: str) -> None:
    assert access.owner(listed) == sid


def test_without_an_owner_nobody_is_trusted() -> None:
    with pytest.raises(ValueError, match="has no owner"):
        access.owner("D:P")


@pytest.mark.parametrize(
    ("listed", "may"),
    [
        ("D:(A;;FR;;;S-1-5-21-7)", True),
        ("D:(A;;0x1;;;S-1-5-21-7)", True),
        ("D:(A;;GR;;;S-1-5-21-7)", True),
        ("D:(A;;GA;;;WD)", True),
        ("D:(A;;0x20000;;;S-1-5-21-7)", False),
        ("D:(D;;FR;;;S-1-5-21-7)(A;;FA;;;WD)", False),
        ("D:(A;;FA;;;S-1-5-21-77)", False),
        ("D:", False),
    ],
)
def test_who_may_read_is_told_by_the_first_entry_that_says_so(
    listed: str,
    may: bool,  # noqa: FBT001 - a column
) -> None:
    assert access.may(listed, "S-1-5-21-7", READ) is may


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "D:(A;;FR;;;SY",
        "D:(A;;??;;;SY)",
        "D:(XA;;FR;;;SY;(@User.x==1))",
        "D:(OA;;FR;;;SY)",
        "O:SYG:SY",
    ],
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"has|are not rights"):
        access.entries(text)


@pytest.mark.parametrize("piece", ["D:(A;;FR;;;SY)D:", "O:G", "O:", "(A;;FA;;;SY)S:"])
def test_a_long_list_of_a_stranger_is_refused_and_keeps_nobody_busy(piece: str) -> None:
    with pytest.raises(ValueError, match="has no access list"):
        access.strangers(piece * 50_000)


def test_what_is_audited_is_no_entry() -> None:
    listed = "O:SYG:BAD:PAI(A;;FA;;;SY)S:AI(AU;SA;FA;;;WD)"
    assert [entry.sid for entry in access.entries(listed)] == [SYSTEM]


@given(st.text(alphabet="ADOPIC;:()0x1fSYBUWG-", max_size=60))
def test_any_text_is_a_list_or_an_error(text: str) -> None:
    with suppress(ValueError):
        access.entries(f"D:{text}")


@given(st.lists(st.sampled_from(["S-1-5-21-1", "S-1-5-21-2", SYSTEM]), max_size=4))
def test_the_list_of_our_folders_lets_in_whom_it_names_alone(sids: list[str]) -> None:
    listed = access.private(sids)
    assert access.is_private(listed, sids)
    for sid in (SYSTEM, ADMINISTRATORS, *sids):
        assert access.may(listed, sid, READ)
        assert listed.count(f";{sid})") == 1
    assert not access.is_private(access.with_reader(listed, "S-1-5-21-9"), sids)
    assert access.owner(listed) == ADMINISTRATORS


def test_a_reader_that_is_added_may_read_unless_he_is_denied() -> None:
    added = access.with_reader("D:PAI(A;;GA;;;SY)", "S-1-5-21-9")
    assert added == "D:PAI(A;;GA;;;SY)(A;;FR;;;S-1-5-21-9)"
    assert access.may(added, "S-1-5-21-9", READ)
    denied = access.with_reader("D:(D;;FR;;;S-1-5-21-9)", "S-1-5-21-9")
    assert not access.may(denied, "S-1-5-21-9", READ)


class Listed:
    """Something with an access list."""

    def __init__(self, text: str) -> None:
        self.text = text

    def access_list(self) -> str:
        """Return it; some cannot be read."""
        if not self.text:
            raise PermissionError(13, "Access is denied")
        return self.text

    def set_access_list(self, text: str) -> None:
        """Take no other."""
        raise AssertionError(text)


def test_who_may_read_is_listed() -> None:
    listed = "D:(A;;FR;;;SY)(A;;FX;;;BA)(D;;FR;;;BU)(A;;FA;;;BU)(A;;GR;;;S-1-5-21-9)"
    assert access.readers(listed) == [SYSTEM, "S-1-5-21-9"]
    assert access.readers("D:NO_ACCESS_CONTROL") == [access.EVERYONE]


def test_a_list_that_lets_everybody_do_everything_gets_no_entries() -> None:
    access.let_read(Listed("D:NO_ACCESS_CONTROL"), ["S-1-5-21-9"])
