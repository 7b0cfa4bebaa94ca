"""The commands about the account at the CA."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from letsencrypt_mdaemon.cli.options import CONTEXT, PLACES, cli, run_command
from letsencrypt_mdaemon.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from letsencrypt_mdaemon.acme.account import Accounts
    from letsencrypt_mdaemon.cli.run import Run


_THUMBPRINT = click.Option(
    ["--thumbprint"], metavar="HEX", help="Which certificate: its SHA-1, see `status`."
)


_REASON = click.Option(
    ["--reason"],
    metavar="WHY",
    default="unspecified",
    help="unspecified (default), keyCompromise, superseded, affiliationChanged or "
    "cessationOfOperation.",
)


@run_command(
    cli,
    *("directory-url", "ca-bundle", *PLACES, "json"),
    own=(_THUMBPRINT, _REASON),
    example="revoke --thumbprint HEX --reason keyCompromise",
)
def revoke(run: Run, thumbprint: str | None, reason: str) -> None:
    """Tell the CA that a certificate must not be trusted any more.

    It stays in use until another one is: run `renew` afterwards, which finds it due.
    After keyCompromise its key is never used again, whatever key-policy says.
    """
    from datetime import UTC, datetime  # noqa: PLC0415

    from letsencrypt_mdaemon.app import adapters  # noqa: PLC0415
    from letsencrypt_mdaemon.cli import document as report  # noqa: PLC0415
    from letsencrypt_mdaemon.pki.certificate import thumbprint as thumbprint_of  # noqa: PLC0415
    from letsencrypt_mdaemon.renewal import revoke as revocation  # noqa: PLC0415

    reasons = {name.lower(): name for name in revocation.REASONS}
    if reason.lower() not in reasons:
        message = (
            f"--reason is {reason!r}; choose one of {', '.join(reasons.values())}."
        )
        raise ConfigError(message)
    if not thumbprint:
        message = "It is not said which certificate is to be revoked."
        hint = "Say --thumbprint HEX; `status` and `discover` show thumbprints."
        raise ConfigError(message, hint=hint)
    run.be_alone()
    installation = run.installation(look=False)
    leaf = revocation.revoke(
        thumbprint.replace(":", "").replace(" ", "").upper(),
        reasons[reason.lower()],
        adapters.adapters(installation),
        directory_url=run.config.ca,
        now=datetime.now(UTC),
    )
    document = run.document(reason=reason, certificate=report.certificate(leaf))
    if run.config.json:
        report.print_json(document)
    else:
        click.echo(f"Revoked: {report.in_use([leaf])}.")
        if installation.memory.in_use == thumbprint_of(leaf):
            click.echo("It is still in use: run `letsencrypt-mdaemon renew` now.")


@cli.group(
    "account",
    context_settings=CONTEXT,
    epilog="Example:  letsencrypt-mdaemon account show",
)
def account_group() -> None:
    """Show or change the account at the CA."""


ACCOUNT = ("directory-url", "ca-bundle", "staging", "mdaemon-dir", "state-dir", "json")


@run_command(account_group, *ACCOUNT, example="account show")
def account_show(run: Run) -> None:
    """Show the account as the CA has it, and the CAA record that names it."""
    from letsencrypt_mdaemon.app import adapters  # noqa: PLC0415
    from letsencrypt_mdaemon.cli import document as report  # noqa: PLC0415
    from letsencrypt_mdaemon.cli import text  # noqa: PLC0415

    run.be_alone()  # It may have to settle which key the CA knows.
    installation = run.installation(look=False)
    found = adapters.accounts(installation).document()
    document = run.document(
        directory_url=run.config.ca,
        **report.account(found, installation.ca.account()),
    )
    show_as = report.print_json if run.config.json else text.print_account
    show_as(document)


@run_command(account_group, *ACCOUNT, example="account deactivate")
def account_deactivate(run: Run) -> None:
    """Close the account for good; the next `renew` makes another one."""
    _change_account(run, "is closed", lambda accounts: accounts.deactivate())


@run_command(account_group, *ACCOUNT, example="account rollover")
def account_rollover(run: Run) -> None:
    """Give the account a new key."""
    _change_account(run, "has a new key", lambda accounts: accounts.roll_over())


def _change_account(run: Run, done: str, act: Callable[[Accounts], str]) -> None:
    from letsencrypt_mdaemon.app import adapters  # noqa: PLC0415
    from letsencrypt_mdaemon.cli import document as report  # noqa: PLC0415
    from letsencrypt_mdaemon.text import printable  # noqa: PLC0415

    run.be_alone()
    url = printable(act(adapters.accounts(run.installation(look=False))), 300)
    if run.config.json:
        report.print_json(run.document(account=url))
    else:
        click.echo(f"The account {url} {done}.")
