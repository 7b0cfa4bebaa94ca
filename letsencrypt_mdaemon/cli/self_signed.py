"""The command that makes a self-signed certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import click

from letsencrypt_mdaemon.cli.certificates import REPLACED
from letsencrypt_mdaemon.cli.options import DEPLOY, YES, Result, command
from letsencrypt_mdaemon.cli.parameters import number
from letsencrypt_mdaemon.errors import ConfigError

if TYPE_CHECKING:
    from typing import Unpack

    from letsencrypt_mdaemon.cli.context import Context

HASHES = ("sha256", "sha384")


class _Asked(TypedDict):
    """The options that are no settings."""

    names: str | None
    organisation: str
    country: str
    digest: str
    days: int
    in_use: bool
    yes: bool


def _ask_to_sign(context: Context, **asked: Unpack[_Asked]) -> None:
    """Refuse what is weak or wrong; ask before clients are to see a warning."""
    import re  # noqa: PLC0415

    digest, country = asked["digest"], asked["country"]
    (kind,) = context.options.get("key-type", ("",))
    weak = re.fullmatch(r"rsa(\d{1,4})", kind.strip().lower())
    if weak and int(weak[1]) < 2048:  # noqa: PLR2004 - RSA's least
        message = f"--key-type: {kind} is refused: RSA keys below 2048 bits can be "
        raise ConfigError(
            f"{message}broken, and clients refuse them.", hint="Use rsa2048 or p256."
        )
    if digest.lower() not in HASHES:
        message = f"--hash: {digest!r} is not valid; use {' or '.join(HASHES)}."
        if digest.lower().replace("-", "") in {"sha1", "md5"}:
            message = f"--hash: {digest} is refused: its signatures can be forged, and "
            message += "clients refuse them."
        raise ConfigError(message, hint="Use sha256.")
    if country and not re.fullmatch("[A-Za-z]{2}", country):
        message = f"--country: {country!r} is not valid; use two letters such as DE."
        raise ConfigError(message)
    _names(asked["names"])
    if asked["in_use"]:
        lines = ["MDaemon will use it on all its ports."]
        lines.append("Every client warns of a self-signed certificate.")
        context.confirm([*lines, REPLACED], yes=asked["yes"])


def _names(text: str | None) -> list[str]:
    """Return the names of a new certificate; wildcards are allowed here."""
    from letsencrypt_mdaemon.pki.names import normalise, split  # noqa: PLC0415 - slow

    names = []
    for word in split([text or ""]):
        star = "*." * word.startswith("*.")
        try:
            names.append(star + normalise(word.removeprefix("*.")))
        except ValueError as exc:
            raise ConfigError(f"--names: {word!r} {exc}.") from None
    return list(dict.fromkeys(names))


@command(
    *("host-name", "alternate-host-names", "key-type", "json", "mdaemon-dir", "store"),
    takes=DEPLOY,
    own=(
        click.Option(
            ["--names"],
            metavar="NAMES",
            help="Names, such as *.example.com.  [default: those of `renew`]",
        ),
        click.Option(
            ["--organisation"], metavar="TEXT", default="", help="In its subject."
        ),
        click.Option(
            ["--country"], metavar="CC", default="", help="Two letters, in its subject."
        ),
        click.Option(
            ["--hash", "digest"],
            metavar="HASH",
            default=HASHES[0],
            help="sha256 or sha384.  [default: sha256]",
        ),
        click.Option(
            ["--days"],
            callback=number(1, 825, int),
            default="365",
            metavar="DAYS",
            help="Its lifetime.  [default: 365]",
        ),
        click.Option(["--use", "in_use"], is_flag=True, help="Let MDaemon use it."),
        YES,
    ),
    example="self-signed --use",
    is_logged=True,
    first=_ask_to_sign,
)
def self_signed(context: Context, **asked: Unpack[_Asked]) -> Result:
    """Make a self-signed certificate.

    For a new server, an emergency, or a trial without a CA. The first certificate of
    the CA replaces it.
    """
    from datetime import timedelta  # noqa: PLC0415

    from letsencrypt_mdaemon.cli import commands, document  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.pki import self_signed as pki  # noqa: PLC0415 - slow

    installation = context.open(look=False)
    made = pki.self_signed(
        _names(asked["names"]) or installation.wanted_names(),
        context.config.key_type,
        # Clients' clocks may be slow.
        start=context.now - timedelta(hours=1),
        days=asked["days"],
        organisation=asked["organisation"],
        country=asked["country"].upper(),
        digest=asked["digest"].lower(),
    )
    installation.store.install(made)
    if not asked["in_use"]:
        text = f"Made: {made.thumbprint} for {', '.join(made.names)}."
        items = {"verdict": text, "certificate": document.certificate(made.leaf)}
        text += f"\nTo use it:  letsencrypt-mdaemon use {made.thumbprint[:8]}"
        return Result(items, lambda _: click.echo(text))
    return commands.carry_out(context, lambda run: run.use(made.leaf, context.now))
