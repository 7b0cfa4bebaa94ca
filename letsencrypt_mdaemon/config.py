"""Config file, environment and options become one frozen `Config`, or one error.

Every setting has one name: `--host-name` on the command line, `host-name` in the file,
`LETSENCRYPT_MDAEMON_HOST_NAME` in the environment. The fields of `Config` are the only
list of them; the command line, the help texts and `config show` are made from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from letsencrypt_mdaemon.errors import ConfigError, words
from letsencrypt_mdaemon.names import normalise, split, unique

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

PREFIX = "LETSENCRYPT_MDAEMON_"
FILE_NAME = "letsencrypt-mdaemon.ini"
SECTION = "letsencrypt-mdaemon"
LETSENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
LETSENCRYPT_STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"

Parsed: TypeAlias = Any  # a setting's value; its type is the field's own


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How one setting is written, wherever it is written.

    Args:
        parse: Turns the text, and the folder that relative paths start from, into the
            value; raises ValueError with what is wrong.
        many: It may be repeated; the texts are joined by commas before parsing.
        secret: Its value is never shown, and it is no command line option.
    """

    help: str
    metavar: str
    parse: Callable[[str, Path], Parsed]
    flag: bool = False
    many: bool = False
    secret: bool = False


@dataclass(frozen=True, slots=True)
class TargetText:
    """A `[target NAME]` section: one INI value that names the certificate.

    Args:
        file: Path below the installation, with either kind of slash.
        form: How the value names a certificate; empty = as the value does now.
    """

    name: str
    file: str
    section: str
    key: str
    form: str = ""


def _text(text: str, _: Path) -> str:
    return text.strip()


def _path(text: str, base: Path) -> Path:
    return base / text.strip()


def _flag(text: str, _: Path) -> bool:
    answers = {"yes": True, "true": True, "on": True, "1": True}
    answers |= {"no": False, "false": False, "off": False, "0": False, "": False}
    try:
        return answers[text.strip().lower()]
    except KeyError:
        message = f"is {text!r}; write yes or no"
        raise ValueError(message) from None


def _number(low: int, high: int) -> Callable[[str, Path], int]:
    def parse(text: str, _: Path) -> int:
        if not re.fullmatch(r"\s*[0-9]{1,9}\s*", text) or not low <= int(text) <= high:
            message = f"is {text!r}; write a whole number from {low} to {high}"
            raise ValueError(message)
        return int(text)

    return parse


def _one_of(*choices: str) -> Callable[[str, Path], str]:
    def parse(text: str, _: Path) -> str:
        if text.strip().lower() not in choices:
            message = f"is {text!r}; choose one of {', '.join(choices)}"
            raise ValueError(message)
        return text.strip().lower()

    return parse


def _name(text: str, _: Path) -> str:
    try:
        return normalise(text)
    except ValueError as exc:
        message = f"{text.strip()!r} {exc}"
        raise ValueError(message) from None


def _names(text: str, base: Path) -> tuple[str, ...]:
    names, problems = [], []
    for word in split([text]):
        try:
            names.append(_name(word, base))
        except ValueError as exc:
            problems.append(str(exc))
    if problems:
        raise ValueError("; ".join(problems))
    return unique(names)


def _addresses(text: str, _: Path) -> tuple[str, ...]:
    if "\r" in text or "\n" in text:
        message = f"{words(text)!r} holds a line break"
        raise ValueError(message)
    addresses = [word.strip() for word in text.split(",") if word.strip()]
    for address in addresses:
        # Printable ASCII without what would end a RAW header value or a list.
        if not re.fullmatch(r"[!-~]+@[!-~]+", address) or set(address) & set('<>,;"'):
            message = f"{words(address)!r} is not a mail address such as you@example.com"
            raise ValueError(message)
    return unique(addresses)


def _directory_url(text: str, _: Path) -> str:
    url = text.strip()
    # RFC 8555, 6.1: HTTPS only. A CA on this very machine may do without.
    if not re.match(r"https://[^/\s]+|http://(localhost|127\.0\.0\.1|\[::1\])[:/]", url):
        message = f"is {url!r}; a CA's directory is an https:// URL"
        raise ValueError(message)
    return url


def _store(text: str, base: Path) -> str:
    kind, colon, folder = text.strip().partition(":")
    if kind.lower() == "pem" and colon and folder.strip():
        return f"pem:{base / folder.strip()}"
    if kind.lower() == "windows" and not colon:
        return "windows"
    message = f"is {text!r}; write pem:FOLDER or windows"
    raise ValueError(message)


def _server_address(text: str, _: Path) -> tuple[str, int] | None:
    if text.strip().lower() == "none":
        return None
    match = re.fullmatch(r"\s*(\[[0-9a-fA-F:]+\]|[^\s:/]+)(?::([0-9]{1,5}))?\s*", text)
    port = int(match[2] or 25) if match else 0
    if not match or not 0 < port < 65536:  # noqa: PLR2004 - the highest port plus one
        message = f"is {text!r}; write HOST:PORT, or none"
        raise ValueError(message)
    return match[1].strip("[]"), port


def _mail_server(text: str, _: Path) -> str:
    url = text.strip()
    if url.lower() != "raw" and not re.fullmatch(
        r"smtps?://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?/?", url
    ):
        message = f"is {url!r}; write raw, smtp://HOST:PORT or smtps://HOST:PORT"
        raise ValueError(message)
    return url


def _list(text: str, _: Path) -> tuple[str, ...]:
    return unique(split([text]))


def _semaphores(text: str, base: Path) -> tuple[str, ...]:
    names = _list(text, base)
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_-]+\.SEM", name, re.IGNORECASE):
            message = f"{name!r} is not the name of a semaphore file such as X.SEM"
            raise ValueError(message)
    return names


def _setting(  # noqa: PLR0913 - a row of the table of settings
    default: Parsed,
    help: str,  # noqa: A002 - click's word for it
    parse: Callable[[str, Path], Parsed] = _text,
    metavar: str = "TEXT",
    *,
    many: bool = False,
    secret: bool = False,
) -> Any:  # noqa: ANN401 - stands where the field's default stands
    row = Setting(
        help=help,
        metavar=metavar,
        parse=parse,
        flag=parse is _flag,
        many=many,
        secret=secret,
    )
    return field(default=default, metadata={"setting": row}, repr=not secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything a run is told from outside."""

    mdaemon_dir: Path | None = _setting(
        None, "MDaemon's folder.  [default: found]", _path, "DIR"
    )
    webroot: Path | None = _setting(
        None, "Folder served on port 80.  [default: WorldClient/HTML]", _path, "DIR"
    )
    log_dir: Path | None = _setting(
        None, "Where LetsEncrypt.log goes.  [default: Logs]", _path, "DIR"
    )
    state_dir: Path | None = _setting(
        None, "Account key and history.  [default: LetsEncrypt/…]", _path, "DIR"
    )
    store: str = _setting(
        "", "Where certificates go: pem:FOLDER or windows.", _store, "STORE"
    )
    host_name: str = _setting(
        "", "First name of the certificate.  [default: the server's]", _name, "NAME"
    )
    alternate_host_names: tuple[str, ...] = _setting(
        (), "More names, separated by commas.", _names, "NAMES", many=True
    )
    iis_site_name: str = _setting("", "IIS site to bind (not available yet).", _text)
    directory_url: str = _setting(
        "", "The CA.  [default: Let's Encrypt]", _directory_url, "URL"
    )
    ca_bundle: Path | None = _setting(
        None, "PEM file: trust only these roots for the CA's HTTPS.", _path, "FILE"
    )
    agree_tos: bool = _setting(False, "Agree to the CA's terms of service.", _flag)  # noqa: FBT003
    key_type: str = _setting(
        "rsa2048",
        "rsa2048 (default), rsa3072, rsa4096, p256 or p384.",
        _one_of("rsa2048", "rsa3072", "rsa4096", "p256", "p384"),
        "TYPE",
    )
    to: tuple[str, ...] = _setting(
        (), "Mail these addresses when a run fails.", _addresses, "ADDRESSES", many=True
    )
    remove_old_certificates: bool = _setting(
        False,  # noqa: FBT003
        "Remove our superseded certificates.",
        _flag,
    )
    skip_port_check: bool = _setting(False, "Do not look whether port 80 answers.", _flag)  # noqa: FBT003
    staging: bool = _setting(
        False,  # noqa: FBT003
        "Rehearse with the staging CA; change nothing in use.",
        _flag,
    )
    no_reload: bool = _setting(False, "Do not tell the server to reload.", _flag)  # noqa: FBT003
    dry_run: bool = _setting(False, "Say what would be done; change nothing.", _flag)  # noqa: FBT003
    force: bool = _setting(False, "Order a certificate even if none is due.", _flag)  # noqa: FBT003
    json: bool = _setting(False, "Print the result as JSON.", _flag)  # noqa: FBT003

    contact: tuple[str, ...] = _setting(
        (), "Mail addresses the CA may use.", _addresses, "ADDRESSES", many=True
    )
    max_names: int = _setting(
        100, "Most names the CA's profile allows.", _number(1, 1000), "N"
    )
    validation_timeout: int = _setting(
        300, "Seconds to wait for the CA, in all.", _number(1, 86400), "SECONDS"
    )
    pfx_password_file: Path | None = _setting(
        None, "Also write a PKCS#12 file, with this file's password.", _path, "FILE"
    )
    smtp_address: tuple[str, int] | None = _setting(
        ("127.0.0.1", 25), "Where MDaemon greets; or none.", _server_address, "HOST:PORT"
    )
    endpoint: tuple[str, ...] = _setting(
        (), "Ports whose certificates are looked at.", _list, "URLS", many=True
    )
    reload_semaphores: tuple[str, ...] = _setting(
        ("RELOADCACHE.SEM", "RESTARTWC.SEM"),
        "Semaphore files, gentlest first.",
        _semaphores,
        "NAMES",
        many=True,
    )
    reload_timeout: int = _setting(
        30, "Seconds to wait for each semaphore.", _number(1, 3600), "SECONDS"
    )
    mail_server: str = _setting(
        "raw", "How mail is sent: raw, smtp://HOST:PORT or smtps://…", _mail_server, "URL"
    )
    mail_from: tuple[str, ...] = _setting(
        (), "Sender of the mail.  [default: the first of --to]", _addresses, "ADDRESS"
    )
    mail_user: str = _setting("", "Login at the mail server.", _text)
    mail_password_file: Path | None = _setting(
        None, "File that holds the login's password.", _path, "FILE"
    )
    mail_password: str = _setting("", "The login's password.", _text, secret=True)
    keep_logs: int = _setting(30, "Earlier logs to keep.", _number(0, 10000), "N")
    keep_backups: int = _setting(
        10, "Backups of INI files to keep.", _number(1, 10000), "N"
    )

    targets: tuple[TargetText, ...] = ()

    @property
    def ca(self) -> str:
        """The CA's directory URL: the one given, or Let's Encrypt's."""
        return self.directory_url or (
            LETSENCRYPT_STAGING if self.staging else LETSENCRYPT
        )


def settings() -> Iterator[tuple[str, Setting]]:
    """Yield every setting with its name as an option is spelled, without dashes."""
    for item in fields(Config):
        if row := item.metadata.get("setting"):
            yield item.name.replace("_", "-"), row


@dataclass(frozen=True, slots=True)
class Loaded:
    """A `Config`, and for each setting where its value came from."""

    config: Config
    origins: Mapping[str, str]
    file: Path | None

    def shown(self) -> dict[str, dict[str, str]]:
        """Return value and origin of every setting, secrets hidden."""
        rows = {}
        for name, row in settings():
            value = getattr(self.config, name.replace("-", "_"))
            text = "(set)" if row.secret and value else _show(value)
            rows[name] = {"value": text, "from": self.origins.get(name, "default")}
        for target in self.config.targets:
            text = f"{target.file} [{target.section}] {target.key} {target.form}"
            name = f"target {target.name}"
            rows[name] = {"value": text.strip(), "from": self.origins[name]}
        return rows


def load(
    options: Mapping[str, Sequence[str]],
    environ: Mapping[str, str],
    file: Path | None,
) -> Loaded:
    """Merge file, environment and command line, in this order of rising precedence.

    Args:
        options: What the command line gave, by setting name.
        file: The config file, if there is one.

    Raises:
        ConfigError: Listing every problem, each with where it stands.
    """
    problems: list[str] = []
    table = dict(settings())
    values: dict[str, Parsed] = {}
    origins: dict[str, str] = {}

    def take(name: str, text: str, origin: str, base: Path) -> None:
        try:
            values[name] = table[name].parse(text, base)
        except ValueError as exc:
            problems.append(f"{origin}: {exc}")
        origins[name] = origin

    targets: list[TargetText] = []
    if file is not None:
        for section, keys in _read(file).items():
            where = f"{file} [{section}]"
            if section.lower().startswith("target "):
                target = _target(section, keys, where, problems)
                targets.append(target)
                origins[f"target {target.name}"] = where
            elif section.lower() != SECTION:
                known = [SECTION, "target NAME"]
                problems.append(f"{where}: unknown section{_nearest(section, known)}")
            else:
                for key, text in keys.items():
                    if key in table:
                        take(key, text, f"{where} {key}", file.absolute().parent)
                    else:
                        problems.append(f"{where} {key}: unknown{_nearest(key, table)}")
    for name in table:
        variable = PREFIX + name.replace("-", "_").upper()
        if variable in environ:
            take(name, environ[variable], f"environment {variable}", Path())
    problems += _unknown_variables(environ, table)
    for name, texts in options.items():
        take(name, ",".join(texts), f"command line --{name}", Path())
    if problems:
        raise _error(problems)
    given = {name.replace("-", "_"): value for name, value in values.items()}
    return Loaded(Config(**given, targets=tuple(targets)), origins, file)


def _read(file: Path) -> dict[str, dict[str, str]]:
    """Read the config file: INI, where a backslash is just a backslash."""
    import configparser  # noqa: PLC0415 - not needed for --help

    parser = configparser.ConfigParser(
        interpolation=None, delimiters=("=",), default_section=""
    )
    try:
        parser.read_string(file.read_text("utf-8-sig"), source=str(file))
    except (OSError, UnicodeDecodeError) as exc:
        message = f"The config file {file} cannot be read: {exc}"
        raise ConfigError(message, hint="Save it as UTF-8 text.") from exc
    except configparser.Error as exc:
        message = f"The config file is not INI: {words(exc)}"
        hint = f"Settings stand below [{SECTION}] as `name = value`."
        raise ConfigError(message, hint=hint) from exc
    return {section: dict(parser.items(section)) for section in parser.sections()}


def _target(
    section: str, keys: Mapping[str, str], where: str, problems: list[str]
) -> TargetText:
    known = {"file": "", "section": "", "key": "", "form": ""}
    for key in keys.keys() - known.keys():
        problems.append(f"{where} {key}: unknown{_nearest(key, known)}")
    values = known | {key: keys[key].strip() for key in keys.keys() & known.keys()}
    if not values["file"] or not values["key"]:
        problems.append(f"{where}: file and key are needed")
    if {"..", ""} & set(re.split(r"[\\/]", values["file"] or "x")) or (
        ":" in values["file"]
    ):
        problems.append(f"{where} file: write a path below MDaemon's folder")
    return TargetText(section.split(None, 1)[1], **values)


def _unknown_variables(
    environ: Mapping[str, str], table: Mapping[str, Setting]
) -> list[str]:
    known = {PREFIX + name.replace("-", "_").upper() for name in table}
    known.add(PREFIX + "CONFIG")
    return [
        f"environment {variable}: unknown{_nearest(variable, known)}"
        for variable in environ
        if variable.startswith(PREFIX) and variable not in known
    ]


def _nearest(word: str, known: Mapping[str, object] | Sequence[str] | set[str]) -> str:
    found = get_close_matches(word.lower(), list(known), 1) or get_close_matches(
        word, list(known), 1
    )
    return f"; did you mean {found[0]}?" if found else ""


def _error(problems: Sequence[str]) -> ConfigError:
    if len(problems) == 1:
        return ConfigError(f"The configuration is wrong: {problems[0]}")
    lines = "".join(f"\n  - {problem}" for problem in problems)
    return ConfigError(f"The configuration has {len(problems)} problems:{lines}")


def _show(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case (str(host), int(port)):
            return f"{host}:{port}"
        case tuple():
            return ",".join(map(str, value))
        case _:
            return str(value)
