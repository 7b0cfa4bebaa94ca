"""Whether CAA records let a CA issue to us (RFC 8659, and parameters of RFC 8657)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.doctor.findings import Code, Finding

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

METHOD = "http-01"
_CRITICAL = 128
# The tags that CAs know (RFC 8659, 4; RFC 9495; CA/Browser Forum).
_KNOWN = {
    *("issue", "issuewild", "iodef", "issuemail", "issuevmc"),
    *("contactemail", "contactphone"),
}
# Tag and value of a parameter (RFC 8659, 4.2).
_PARAMETER = re.compile(r"[ \t]*([A-Za-z0-9-]+)[ \t]*=[ \t]*([!-:<-~]*)[ \t]*")


class Property(NamedTuple):
    """One CAA record."""

    flags: int
    tag: str
    value: str

    def __str__(self) -> str:
        """Return the record as zone files have it."""
        return f'{self.flags} {self.tag} "{self.value}"'


class Authority(NamedTuple):
    """The CA, as far as it matters to a name.

    Args:
        identities: The issuer domain names that stand for the CA in CAA records.
        account: The URL of our account there; empty if there is none yet.
        public: Whether the CA issues for public names at public addresses only.
    """

    identities: frozenset[str] = frozenset()
    account: str = ""
    public: bool = True


def check(
    owner: str, records: Sequence[Property], authority: Authority, *, certain: bool
) -> Finding | None:
    """Return why the records forbid the CA to issue to us; None if they do not.

    Args:
        owner: The name that has the records.
        certain: Whether the records come from the zone's own servers.
    """
    critical = [
        item
        for item in records
        if item.flags & _CRITICAL and item.tag.lower() not in _KNOWN
    ]
    issue = [item for item in records if item.tag.lower() == "issue"]
    ours = [
        (item, _objection(parameters, authority))
        for item in issue
        for domain, parameters in [_parse(item.value)]
        if domain in authority.identities
    ]
    kind = Code.CAA_FORBIDS
    if critical:  # RFC 8659, 4.1
        seen = f"{owner} has a critical CAA record with an unknown tag: {critical[0]}"
    elif not issue or any(objection is None for _, objection in ours):
        return None
    elif ours:
        item, objection = ours[0]
        kind, seen = objection or kind, f"{owner} has the CAA record {item}"
    else:
        listed = ", ".join(map(str, issue))
        wanted = " or ".join(sorted(authority.identities))
        seen = f"{owner} has the CAA records {listed}; none names {wanted}"
    if kind is Code.CAA_ACCOUNTURI:
        seen += f"; our account is {authority.account or 'not registered yet'}"
        # An account that we register now may turn out to be the one in the record.
        certain = certain and bool(authority.account)
    return Finding(kind=kind, seen=seen, certain=certain)


def exclusive_record(owner: str, authority: Authority) -> str:
    """Return the record that lets only our account get certificates."""
    identity = min(authority.identities)
    value = f"{identity}; validationmethods={METHOD}; accounturi={authority.account}"
    return f'{owner}. IN CAA 0 issue "{value}"'


def _parse(value: str) -> tuple[str, list[tuple[str, str]]]:
    """Return the issuer domain of an `issue` property and its parameters.

    An empty domain allows nobody, and so does a malformed property.
    """
    domain, *rest = value.split(";")
    if len(rest) == 1 and not rest[0].strip(" \t"):
        rest = []
    matches = [_PARAMETER.fullmatch(part) for part in rest]
    parameters = [(match[1].lower(), match[2]) for match in matches if match]
    if len(parameters) < len(rest):
        return "", []
    return domain.strip(" \t").lower(), parameters


def _objection(
    parameters: Collection[tuple[str, str]], authority: Authority
) -> Code | None:
    """Return which parameter excludes us; None if none does (RFC 8657, 3 and 4)."""
    accounts = [value for tag, value in parameters if tag == "accounturi"]
    # Several accounts can never all be ours.
    if accounts and accounts != [authority.account]:
        return Code.CAA_ACCOUNTURI
    methods = [value for tag, value in parameters if tag == "validationmethods"]
    if any(METHOD not in value.split(",") for value in methods):
        return Code.CAA_METHOD
    return None
