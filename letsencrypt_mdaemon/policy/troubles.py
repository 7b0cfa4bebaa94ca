"""What would lose mail, or shows that nothing guards it: codes with what to do."""

# ruff: noqa: ISC004 - `Code.__new__` keeps codes with the same texts apart

from __future__ import annotations

from enum import Enum, StrEnum
from typing import NamedTuple, Self


class Weight(StrEnum):
    """How bad it is."""

    LOSES = "loses mail"  # now, or as soon as senders look again
    WARNING = "warning"
    NOTE = "note"


class Code(Enum):
    """What was seen; programs may rely on the spelling, such as `sts-mx-missing`.

    Attributes:
        change: The one thing to do; "" if nothing needs to be done.
    """

    change: str
    weight: Weight

    def __new__(cls, change: str, weight: Weight = Weight.WARNING) -> Self:
        """Let codes with the same advice differ."""
        code = object.__new__(cls)
        code._value_ = len(cls.__members__)
        code.change, code.weight = change, weight
        return code

    def __str__(self) -> str:
        return self.name.lower().replace("_", "-")

    DNS_BOGUS = (
        "Repair the zone's DNSSEC, for example with dnsviz.net: senders that validate "
        "send nothing until then.",
        Weight.LOSES,
    )
    DNS_FAILS = "Check the domain's DNS servers, then run this again."
    DNSSEC_UNSIGNED = (
        "Nothing, unless you want DANE: it needs a signed zone.",
        Weight.NOTE,
    )
    MX_NONE = (
        "Nothing, if the domain receives no mail. Else add an MX record.",
        Weight.NOTE,
    )
    MX_ELSEWHERE = ("Nothing: that host's certificate is not this one.", Weight.NOTE)
    MX_NAME_MISSING = (
        "Add the host to alternate-host-names: senders that check names (MTA-STS, "
        "RequireTLS) do not accept this certificate for it."
    )
    TLSA_NO_MATCH = (
        "Publish the record that `status` shows, beside the present ones.",
        Weight.LOSES,
    )
    TLSA_PARTLY = "Let all servers of the zone have the same records."
    STS_NONE = (
        "Nothing, unless you want MTA-STS: senders may deliver without TLS.",
        Weight.NOTE,
    )
    STS_RECORD_INVALID = (
        'Publish exactly one TXT record, such as "v=STSv1; id=20260101T000000".'
    )
    STS_UNREACHABLE = (
        "Let mta-sts.<domain> answer on port 443: senders that have no policy yet get "
        "none."
    )
    STS_CERTIFICATE = (
        "Give mta-sts.<domain> a valid certificate: senders ignore the policy."
    )
    STS_REDIRECT = "Serve the policy at mta-sts.<domain> itself, without a redirect."
    STS_STATUS = "Serve the policy at /.well-known/mta-sts.txt with status 200."
    STS_TOO_LARGE = "Shorten the policy: senders read 64 KB at most."
    STS_INVALID = "Correct the policy: senders ignore it as it is (RFC 8461, 3.2)."
    STS_TESTING = ("Set mode: enforce when the reports are good.", Weight.NOTE)
    STS_MX_MISSING = (
        "Add the host to the policy's mx lines, then change the id in DNS.",
        Weight.LOSES,
    )
    STS_NAME_MISSING = (
        "Add the host to alternate-host-names and renew: senders that enforce the "
        "policy do not deliver to it.",
        Weight.LOSES,
    )
    STS_NO_TLS = (
        "Let the port offer STARTTLS: senders that enforce the policy do not deliver.",
        Weight.LOSES,
    )
    STS_NOT_TRUSTED = (
        "Renew: senders that enforce the policy do not deliver to this certificate.",
        Weight.LOSES,
    )
    STS_ID_UNCHANGED = (
        "Change the id in the domain's _mta-sts record: senders keep the former policy."
    )
    STS_SHORT = (
        "Set max_age to a week or more: a short policy protects little.",
        Weight.NOTE,
    )
    REQUIRETLS_UNPROVEN = (
        "Nothing, unless people send with RequireTLS: they need DNSSEC or MTA-STS.",
        Weight.NOTE,
    )
    TLSRPT_NONE = (
        "Add a TXT record _smtp._tls, so that senders report failures of TLS.",
        Weight.NOTE,
    )
    TLSRPT_INVALID = (
        'Publish exactly one TXT record, such as "v=TLSRPTv1; rua=mailto:tls@<domain>".'
    )
    CAA_NONE = (
        "Nothing: any CA may issue. `account show` shows a record that allows one.",
        Weight.NOTE,
    )
    CAA_RECORDS = ("Nothing: `doctor` checks whether they allow this CA.", Weight.NOTE)
    GOOD = ("", Weight.NOTE)


class Trouble(NamedTuple):
    """One row of the table.

    Args:
        subject: The domain or the name.
        seen: What was seen, in a phrase; as others sent it.
    """

    subject: str
    code: Code
    seen: str
    weight: Weight

    @classmethod
    def of(cls, subject: str, code: Code, seen: str) -> Trouble:
        """Return a row as bad as its code usually is."""
        return cls(subject, code, seen, code.weight)
