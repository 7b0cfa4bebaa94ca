"""The commands that change something at the CA."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from letsencrypt_mdaemon.cli import options
from letsencrypt_mdaemon.cli.options import Group, Result, command
from letsencrypt_mdaemon.cli.parameters import offer
from letsencrypt_mdaemon.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from letsencrypt_mdaemon.acme.account import Accounts
    from letsencrypt_mdaemon.cli.context import Context

REASONS = (
    *("unspecified", "keyCompromise", "superseded", "affiliationChanged"),
    "cessationOfOperation",
)

_THUMBPRINT = click.Option(
    ["--thumbprint"],
    metavar="HEX",
    help="SHA-1 thumbprint of the certificate; `status` shows it.",
)
_REASON = click.Option(
    ["--reason"],
    metavar="REASON",
    shell_complete=offer(REASONS),
    default="unspecified",
    help=f"{', '.join(REASONS[:-1])} or {REASONS[-1]}.  [default: unspecified]",
)


@command(
    *("directory-url", "ca-bundle", "json", "mdaemon-dir", "store"),
    takes=(*options.INSTALLATION, *options.ACCOUNT),
    own=(_THUMBPRINT, _REASON, options.YES),
    helps=options.STAGING,
    example="revoke --thumbprint HEX --reason keyCompromise",
)
def revoke(
    context: Context, *, thumbprint: str | None, reason: str, yes: bool
) -> Result:
    """Ask the CA to revoke a certificate.

    The server uses the certificate until `renew` replaces it: run that afterwards.
    After keyCompromise its key is never used again, whatever key-policy says.
    """
    from letsencrypt_mdaemon.app import adapters, certificates  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.cli import document, text  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.pki.certificate import thumbprint as thumbprint_of  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.renewal import revoke as revocation  # noqa: PLC0415 - slow

    reasons = {name.lower(): name for name in revocation.REASONS}
    if reason.lower() not in reasons:
        message = f"--reason: {reason!r} is not valid; use {', '.join(REASONS)}."
        raise ConfigError(message)
    if not thumbprint:
        hint = "Use --thumbprint HEX; `status` and `discover` show thumbprints."
        raise ConfigError("No certificate given.", hint=hint)
    wanted = thumbprint.replace(":", "").replace(" ", "").upper()
    if not yes:
        lines = certificates.described(context.open(), wanted)
        lines.append(
            f"The CA will revoke it, with the reason {reasons[reason.lower()]}. "
            "This is final: it cannot be undone."
        )
        context.confirm(lines, yes=yes)
    context.lock()
    installation = context.open(look=False)
    leaf = revocation.revoke(
        wanted,
        reasons[reason.lower()],
        adapters.adapters(installation),
        directory_url=context.config.ca,
        now=context.now,
    )
    lines = [f"Revoked: {text.in_use([leaf])}."]
    if installation.memory.in_use == thumbprint_of(leaf):
        lines.append("It is still in use. Run `letsencrypt-mdaemon renew` now.")
    revoked = document.certificate(leaf)
    items = {"verdict": lines[0], "reason": reason, "certificate": revoked}
    return Result(items, lambda _: click.echo("\n".join(lines)))


@command(*options.ACCOUNT, helps=options.STAGING, example="account show")
def account_show(context: Context) -> Result:
    """Show the account and its CAA record."""
    from letsencrypt_mdaemon.app import adapters  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.cli import document, text  # noqa: PLC0415 - slow

    context.lock()  # It may have to find out which key the CA knows.
    installation = context.open(look=False)
    found = adapters.accounts(installation).document()
    items = document.account(found, installation.ca.account())
    items["directory_url"] = context.config.ca
    items["verdict"] = f"The status of the account is {items['status'] or 'unknown'}."
    return Result(items, text.print_account)


@command(
    *options.ACCOUNT,
    own=(options.YES,),
    helps=options.STAGING,
    example="account deactivate",
)
def account_deactivate(context: Context, *, yes: bool) -> Result:
    """Close the account for good.

    The next `renew` creates another one.
    """
    question = f"This closes the account at {context.config.ca} for good."
    context.confirm([question], yes=yes)
    return _change(context, "is closed", lambda accounts: accounts.deactivate())


@command(*options.ACCOUNT, helps=options.STAGING, example="account rollover")
def account_rollover(context: Context) -> Result:
    """Give the account a new key."""
    return _change(context, "has a new key", lambda accounts: accounts.roll_over())


_PASSPHRASE = click.Option(
    ["--passphrase-file"],
    type=click.Path(path_type=Path),
    required=True,
    help="File with the passphrase, of at least 16 characters.",
)


@command(
    *options.ACCOUNT,
    own=(
        click.Option(
            ["--to", "file"],
            type=click.Path(path_type=Path),
            required=True,
            help="New file for the account.",
        ),
        _PASSPHRASE,
    ),
    helps=options.STAGING,
    example="account export --to a --passphrase-file b",
)
def account_export(context: Context, *, file: Path, passphrase_file: Path) -> Result:
    """Copy the account for other servers.

    The file holds the account's private key, encrypted with the passphrase. Whoever has
    both can revoke the certificates of all servers that use the account.
    """
    from letsencrypt_mdaemon.acme import exported  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.app import adapters, credentials  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.system import disk  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.text import printable  # noqa: PLC0415

    passphrase = credentials.secret(passphrase_file, "--passphrase-file")
    context.lock()  # It may have to find out which key the CA knows.
    account = adapters.accounts(context.open(look=False)).exported()
    data = exported.seal(account, context.config.ca, passphrase)
    with disk.explained(f"write {file}", hint="Choose a new file in your own folder."):
        disk.create(file, data)
    url = printable(account.url, 300)
    text = f"The account {url} is in {file}, encrypted with the passphrase."
    items = {"verdict": text, "account": url, "file": str(file)}
    return Result(items, lambda _: click.echo(text))


@command(
    *options.ACCOUNT,
    own=(
        click.Option(
            ["--from", "file"],
            type=click.Path(path_type=Path),
            required=True,
            help="File that `account export` wrote.",
        ),
        _PASSPHRASE,
        options.YES,
    ),
    helps=options.STAGING,
    example="account import --from a --passphrase-file b",
)
def account_import(
    context: Context, *, file: Path, passphrase_file: Path, yes: bool
) -> Result:
    """Use the account of another server.

    Asks the CA whether it knows the account. If this server has another one, the file
    of that one is renamed and kept.
    """
    from letsencrypt_mdaemon.acme import exported  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.app import adapters, credentials  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.system import disk  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.text import printable  # noqa: PLC0415

    passphrase = credentials.secret(passphrase_file, "--passphrase-file")
    try:
        limit = exported.MAX_EXPORT_BYTES
        data = disk.read_limited(file, limit, "an account that was exported")
    except (OSError, ValueError) as exc:
        message = f"Could not read {file}: {disk.reason(exc)}."
        raise ConfigError(message, hint="Check --from.") from exc
    account = exported.unseal(data, passphrase, context.config.ca)
    url = printable(account.url, 300)
    former = context.open(look=False, read_only=True).ca.account()
    if former is not None and former.url != account.url:
        question = f"This server has the account {printable(former.url, 300)}."
        context.confirm([f"{question} {url} takes its place."], yes=yes)
    context.lock()
    aside = adapters.accounts(context.open(look=False)).adopt(account)
    text = f"This server uses the account {url} from now on."
    if aside:
        text += f" The former one was renamed to {aside.name}."
    items = {"verdict": text, "account": url}
    return Result(items, lambda _: click.echo(text))


def _change(context: Context, done: str, act: Callable[[Accounts], str]) -> Result:
    from letsencrypt_mdaemon.app import adapters  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.text import printable  # noqa: PLC0415

    context.lock()
    url = printable(act(adapters.accounts(context.open(look=False))), 300)
    text = f"The account {url} {done}."
    return Result({"verdict": text, "account": url}, lambda _: click.echo(text))


account_group = Group(
    "account",
    {
        "Commands": [
            *(account_show, account_export, account_import, account_rollover),
            account_deactivate,
        ]
    },
    help="Show or change the account at the CA.",
    epilog="Example:  letsencrypt-mdaemon account show",
)
