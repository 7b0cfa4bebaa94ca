"""The commands for the certificates of the store, and for the server's reload."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from letsencrypt_mdaemon.cli import options
from letsencrypt_mdaemon.cli.options import YES, Group, Result, command
from letsencrypt_mdaemon.errors import ConfigError

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.app.certificates import Entry
    from letsencrypt_mdaemon.app.installation import Installation
    from letsencrypt_mdaemon.cli.context import Context
    from letsencrypt_mdaemon.cli.document import Document

REPLACED = "The next run of renew replaces it."
"""About a certificate that is used, but not held."""

_ID = click.Argument(["identifier"], metavar="ID")
_OPTIONAL_ID = click.Argument(["identifier"], metavar="[ID]", required=False)


@command(
    *("json", "mdaemon-dir", "store"),
    takes=(*options.INSTALLATION, *options.NAMES, *options.IIS),
    example="certificates",
)
def certificates_list(context: Context) -> Result:
    """Show the certificates of the store.

    Shows which services and ports use each one, and what can be done with it.
    """
    from letsencrypt_mdaemon.app import certificates  # noqa: PLC0415 - slow

    installation = context.open()
    rows = certificates.entries(installation, now=context.now)
    items = {
        "verdict": f"Certificates in the store: {len(rows)}.",
        "mdaemon_dir": str(installation.root),
        "certificates": [_row(row) for row in rows],
    }
    return Result(items, _print_list)


def _row(entry: Entry) -> Document:
    from letsencrypt_mdaemon.cli import document  # noqa: PLC0415 - slow

    return {
        **(document.certificate(entry.leaf) or {}),
        "friendly_name": entry.name,
        "key_type": entry.key,
        "key_provider": entry.provider,
        "ours": entry.is_ours,
        "used_by": list(entry.used_by),
        "served_at": list(entry.served_at),
        "flaw": entry.flaw or None,
        "actions": list(entry.actions),
    }


def _print_list(found: Document) -> None:
    from letsencrypt_mdaemon.cli.text import day, row, say  # noqa: PLC0415 - slow

    rows = found["certificates"]
    if not rows:
        click.echo("The store holds no certificate. `self-signed` makes one.")
    for item in rows:
        names = ", ".join(item["names"]) or item["friendly_name"] or "no name"
        say(f"{item['thumbprint']}  {names}", indent=42)
        row("issued by", item["issuer"])
        row("valid until", day(item["not_after"]))
        row("key", item["key_type"])
        row("key kept by", item["key_provider"])
        row("used by", ", ".join(item["used_by"]))
        row("served at", ", ".join(item["served_at"]))
        row("not usable", item["flaw"])
        row("you can", ", ".join(item["actions"]))


@command(
    *("json", "mdaemon-dir", "store"),
    takes=(*options.INSTALLATION, *options.NAMES, *options.IIS),
    own=(_ID, YES),
    example="certificates remove 3F2A",
)
def certificates_remove(context: Context, *, identifier: str, yes: bool) -> Result:
    """Remove a certificate and its key.

    ID is its thumbprint, or the beginning of it. Refused while the server's files name
    it or cannot be read, or a port serves it.
    """
    from letsencrypt_mdaemon.app import certificates  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.cli import document  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.pki.certificate import thumbprint  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.renewal.removal import forget_issuers  # noqa: PLC0415

    installation = context.open()
    leaf = certificates.find(installation, identifier)
    certificates.require_unused(installation, leaf)
    lines = certificates.described(installation, thumbprint(leaf))
    unseen = [
        str(at)
        for at, served in installation.observed.items()
        if served.is_listening and served.leaf is None
    ]
    if unseen:
        lines.append(f"These ports could not be checked: {', '.join(unseen)}.")
    lines.append("It is removed with its key, and cannot be restored.")
    context.confirm(lines, yes=yes)
    context.lock()
    # Somebody may have chosen it meanwhile.
    certificates.require_unused(context.open(), leaf)
    installation.store.remove(thumbprint(leaf))
    state = installation.state
    forget_issuers(state.load(), installation.store, state, now=context.now)
    text = f"Removed: {thumbprint(leaf)}"
    items = {"verdict": text, "removed": document.certificate(leaf)}
    return Result(items, lambda _: click.echo(text))


certificates_group = Group(
    "certificates",
    {"Commands": [certificates_list, certificates_remove]},
    default="list",
    help="Show or remove certificates of the store.\n\nWithout a command: `list`.",
    epilog="Example:  letsencrypt-mdaemon certificates",
)


def _ask_to_use(
    context: Context,
    *,
    identifier: str | None,
    until: str | None,
    release: bool,
    yes: bool,
) -> None:
    """Refuse a certificate that cannot be used; ask about one that clients doubt."""
    from letsencrypt_mdaemon.app import certificates  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.pki.certificate import (  # noqa: PLC0415 - slow
        is_self_signed,
        thumbprint,
    )
    from letsencrypt_mdaemon.renewal import hold  # noqa: PLC0415 - slow

    if release:
        if identifier or until:
            raise ConfigError("--release takes neither an ID nor --until.")
        return
    installation, now = context.open(look=False), context.now
    leaf = _find(installation, identifier)
    can_use = installation.store.is_key_usable(thumbprint(leaf))
    flaw = certificates.flaw(installation, leaf, now=now, has_usable_key=can_use)
    if flaw:
        raise ConfigError(
            f"The certificate {thumbprint(leaf)} cannot be used: {flaw}.",
            hint="Nothing was changed. `certificates` shows the others.",
        )
    moment = _moment(until, leaf, now)
    if moment is not None and is_self_signed(leaf):
        message = "--until: a self-signed certificate is not held: "
        raise ConfigError(
            f"{message}the next run of `renew` replaces {thumbprint(leaf)}.",
            hint="Nothing was changed. Leave out --until, or use another certificate.",
        )
    held = hold.begin(leaf, "use", now, moment)
    if doubts := certificates.doubts(installation, leaf, now=now):
        known = certificates.described(installation, thumbprint(leaf))
        context.confirm([*known, *doubts, *[REPLACED] * (held is None)], yes=yes)


def _find(installation: Installation, identifier: str | None) -> x509.Certificate:
    from letsencrypt_mdaemon.app import certificates  # noqa: PLC0415 - slow

    if not identifier:
        hint = "Give the beginning of its thumbprint; `certificates` shows them."
        raise ConfigError("No certificate given.", hint=hint)
    return certificates.find(installation, identifier)


def _moment(
    until: str | None, leaf: x509.Certificate, now: datetime
) -> datetime | None:
    """Return when a hold ends; a day begins at midnight of this machine."""
    from datetime import datetime  # noqa: PLC0415

    from letsencrypt_mdaemon.text import day  # noqa: PLC0415 - slow

    if until is None:
        return None
    try:
        moment = datetime.fromisoformat(until).astimezone()
    except (ValueError, OverflowError):
        message = f"--until: {until!r} is not valid; use a date such as 2027-03-31."
        raise ConfigError(message) from None
    if not now < moment < leaf.not_valid_after_utc:
        end = day(leaf.not_valid_after_utc, now)
        message = f"--until: {until} is not between now and the end of the certificate"
        raise ConfigError(f"{message}, {end}.")
    return moment


@command(
    *("json", "mdaemon-dir", "store", "no-reload", "host-name"),
    takes=(*options.DEPLOY, "ca-bundle"),
    own=(
        _OPTIONAL_ID,
        click.Option(
            ["--until"],
            metavar="DATE",
            help="Keep it until then.  [default: 7 days before its end]",
        ),
        click.Option(["--release"], is_flag=True, help="Let `renew` replace it again."),
        YES,
    ),
    helps={"ca-bundle": "PEM file with more roots to trust."},
    example="use 3F2A --until 2027-03-31",
    is_logged=True,
    first=_ask_to_use,
)
def use(
    context: Context,
    *,
    identifier: str | None,
    until: str | None,
    release: bool,
    yes: bool,
) -> Result:
    """Use a certificate of the store.

    ID is its thumbprint, or the beginning of it. The certificate may come from anybody.
    As in a renewal, every port is checked, and a certificate that breaks one is rolled
    back. `renew` does not replace it until 7 days before its end, or until a tenth of
    its lifetime is left if that is less; it obtains another one in time.
    """
    from letsencrypt_mdaemon.cli import commands  # noqa: PLC0415 - slow

    del yes
    if release:
        return _release(context)
    return commands.carry_out(
        context,
        lambda run: run.use(
            leaf := _find(run.installation, identifier),
            context.now,
            until=_moment(until, leaf, context.now),
        ),
    )


def _release(context: Context) -> Result:
    from letsencrypt_mdaemon.cli import document  # noqa: PLC0415 - slow

    state = context.open(look=False).state
    memory = state.load()
    if memory.hold is not None:
        state.save(memory._replace(hold=None))
    done = "Released: `renew` may replace the certificate in use again."
    text = done if memory.hold else "Nothing was held."
    items = {"verdict": text, "released": document.hold(memory.hold)}
    return Result(items, lambda _: click.echo(text))


def _allow_restart(context: Context, *, restart: bool) -> None:
    """Take the rungs that the command line asks for, whatever the settings are."""
    answer = "yes" if restart else "no"
    given = {"no-reload": ("no",), "allow-restart": (answer,)}
    context.options = {**context.options, **given}


@command(
    *("json", "mdaemon-dir", "store"),
    takes=[
        name for name in options.DEPLOY if name not in {"no-reload", "allow-restart"}
    ],
    own=(
        click.Option(
            ["--restart"], is_flag=True, help="Also restart MDaemon: mail is down."
        ),
    ),
    example="reload",
    is_logged=True,
    first=_allow_restart,
)
def reload(context: Context, *, restart: bool) -> Result:
    """Let MDaemon reload its certificate.

    Then checks every port, and changes nothing else. Exits with 5 if a port does not
    serve the certificate that the server's files name.
    """
    from letsencrypt_mdaemon.cli import document  # noqa: PLC0415 - slow

    done = context.prepare().reload(context.now, restart=restart)
    items = {
        "verdict": f"Reloaded: {', '.join(done.rungs) or 'nothing'}",
        "reloaded": list(done.rungs),
        "proof": document.proof(done.proof),
    }
    return Result(items, _print_reload, done.error)


def _print_reload(found: Document) -> None:
    from letsencrypt_mdaemon.cli.text import (  # noqa: PLC0415 - slow
        print_unproven,
        row,
        say,
    )

    say(found["verdict"])
    row("verified at", *found["proof"]["new"])
    print_unproven(found["proof"])
