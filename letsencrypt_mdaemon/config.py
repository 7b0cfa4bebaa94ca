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

from letsencrypt_mdaemon import authorities
from letsencrypt_mdaemon.authorities import AUTHORITIES, LETSENCRYPT
from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.pki.names import normalise, split, unique
from letsencrypt_mdaemon.text import words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from letsencrypt_mdaemon.pki.certificate import KeyType

PREFIX = "LETSENCRYPT_MDAEMON_"
CONFIG = PREFIX + "CONFIG"
FILE_NAME = "letsencrypt-mdaemon.ini"
SECTION = "letsencrypt-mdaemon"

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
    if re.search(r"[\x00-\x1f\x7f]", text.strip()):
        raise ValueError("holds a line break or another control character")
    return text.strip()


def _path(text: str, base: Path) -> Path:
    path = _text(text, base)
    if not path:
        # Joined to the base it would be that folder.
        raise ValueError("is empty; write a path")
    return base / path


def _flag(text: str, _: Path) -> bool:
    answers = {"yes": True, "true": True, "on": True, "1": True}
    answers |= {"no": False, "false": False, "off": False, "0": False, "": False}
    try:
        return answers[text.strip().lower()]
    except KeyError:
        raise ValueError(f"is {text!r}; write yes or no") from None


def _number(low: int, high: int) -> Callable[[str, Path], int]:
    def parse(text: str, _: Path) -> int:
        if not re.fullmatch(r"\s*[0-9]{1,9}\s*", text) or not low <= int(text) <= high:
            raise ValueError(f"is {text!r}; write a whole number from {low} to {high}")
        return int(text)

    return parse


def _one_of(*choices: str) -> Callable[[str, Path], str]:
    def parse(text: str, _: Path) -> str:
        if text.strip().lower() not in choices:
            raise ValueError(f"is {text!r}; choose one of {', '.join(choices)}")
        return text.strip().lower()

    return parse


def _name(text: str, _: Path) -> str:
    try:
        return normalise(text)
    except ValueError as exc:
        raise ValueError(f"{text.strip()!r} {exc}") from None


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
    if re.search(r"[\r\n]", text):
        raise ValueError(f"{text!r} holds a line break")
    addresses = [word.strip() for word in text.split(",") if word.strip()]
    for address in addresses:
        # RFC 5321, 4.1.2, without quoted local parts: nothing that would end a list, or
        # a header's value in a RAW message.
        if not re.fullmatch(
            r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@([A-Za-z0-9.-]+|\[[A-Za-z0-9.:]+\])",
            address,
        ):
            raise ValueError(
                f"{address!r} is not a mail address such as you@example.com"
            )
    return unique(addresses)


def _sender(text: str, base: Path) -> tuple[str, ...]:
    addresses = _addresses(text, base)
    if len(addresses) > 1:
        raise ValueError(f"is {text.strip()!r}; write one address")
    return addresses


def _directory_url(text: str, _: Path) -> str:
    url = text.strip()
    if known := AUTHORITIES.get(url.lower()):
        return known.url
    if "@" in url:
        raise ValueError("holds an @; no login is sent to a CA")
    # RFC 8555, 6.1: HTTPS only. A CA on this very machine may do without.
    host = r"(https://[^/?#\s]+|http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?)"
    if not url.isprintable() or not re.fullmatch(rf"{host}(/\S*)?", url):
        raise ValueError(
            f"is {url!r}; write {', '.join(AUTHORITIES)}, or the https:// URL of a "
            "CA's directory"
        )
    return url


def _store(text: str, base: Path) -> str:
    kind, colon, folder = text.strip().partition(":")
    if kind.lower() == "pem" and folder.strip():
        return f"pem:{_path(folder, base)}"
    if kind.lower() == "windows" and not colon:
        return "windows"
    raise ValueError(f"is {text!r}; write pem:FOLDER or windows")


_HOST = r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+)"


def _is_port(text: str) -> bool:
    return 0 < int(text) < 65536  # noqa: PLR2004 - the highest port plus one


def _server_address(text: str, _: Path) -> tuple[str, int] | None:
    if text.strip().lower() == "none":
        return None
    match = re.fullmatch(rf"{_HOST}(?::([0-9]{{1,5}}))?", text.strip())
    if not match or not _is_port(match[2] or "25"):
        raise ValueError(f"is {text!r}; write HOST:PORT, or none")
    return match[1].strip("[]"), int(match[2] or 25)


def _dns_server(text: str, _: Path) -> tuple[str, int] | None:
    if text.strip().lower() == "none":
        return None
    address = r"(\[[0-9a-fA-F:]+\]|[0-9]{1,3}(?:\.[0-9]{1,3}){3})"
    match = re.fullmatch(rf"{address}(?::([0-9]{{1,5}}))?", text.strip())
    if not match or not _is_port(match[2] or "53"):
        raise ValueError(f"is {text!r}; write ADDRESS:PORT, or none")
    return match[1].strip("[]"), int(match[2] or 53)


def _mail_server(text: str, _: Path) -> str:
    url = text.strip()
    if url.lower() == "raw":
        return "raw"
    if "@" in url:
        raise ValueError("holds an @; a login is set by mail-user and its password")
    match = re.fullmatch(rf"smtps?://{_HOST}(?::([0-9]{{1,5}}))?/?", url)
    if not match or not _is_port(match[2] or "25"):
        raise ValueError(
            f"is {url!r}; write raw, smtp://HOST:PORT or smtps://HOST:PORT"
        )
    return url


def _list(text: str, _: Path) -> tuple[str, ...]:
    return unique(split([text]))


def _semaphores(text: str, base: Path) -> tuple[str, ...]:
    names = _list(text, base)
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_-]+\.SEM", name, re.IGNORECASE):
            raise ValueError(
                f"{name!r} is not the name of a semaphore file such as X.SEM"
            )
    return names


def _setting(  # noqa: PLR0913 - a row of the table of settings
    help: str,  # noqa: A002 - click's word for it
    parse: Callable[[str, Path], Parsed] = _text,
    metavar: str = "TEXT",
    *,
    default: Parsed,
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
        "MDaemon's folder.  [default: found]", _path, "DIR", default=None
    )
    webroot: Path | None = _setting(
        "Folder served on port 80.  [default: WorldClient/HTML]",
        _path,
        "DIR",
        default=None,
    )
    log_dir: Path | None = _setting(
        "Where LetsEncrypt.log goes.  [default: Logs]", _path, "DIR", default=None
    )
    state_dir: Path | None = _setting(
        "Account key and history.  [default: LetsEncrypt/…]",
        _path,
        "DIR",
        default=None,
    )
    store: str = _setting(
        "Where certificates go: pem:FOLDER or windows.", _store, "STORE", default=""
    )
    host_name: str = _setting(
        "First name of the certificate.  [default: the server's]",
        _name,
        "NAME",
        default="",
    )
    alternate_host_names: tuple[str, ...] = _setting(
        "More names, separated by commas.", _names, "NAMES", default=(), many=True
    )
    iis_site_name: str = _setting("IIS site whose https bindings follow.", default="")
    iis_add_binding: bool = _setting(
        "Add *:443 to a site without an https binding.", _flag, default=False
    )
    directory_url: str = _setting(
        "The CA: letsencrypt (default), … or a URL.",
        _directory_url,
        "CA",
        default="",
    )
    ca_bundle: Path | None = _setting(
        "PEM file: trust only these roots for the CA's HTTPS.",
        _path,
        "FILE",
        default=None,
    )
    agree_tos: bool = _setting(
        "Agree to the CA's terms of service.", _flag, default=False
    )
    eab_kid: str = _setting(
        "Key id of the account at the CA's web site (EAB).", default=""
    )
    eab_key_file: Path | None = _setting(
        "File that holds its key.", _path, "FILE", default=None
    )
    eab_key: str = _setting("The key itself.", default="", secret=True)
    profile: tuple[str, ...] = _setting(
        "The CA's profiles preferred, best first.",
        _list,
        "NAMES",
        default=(),
        many=True,
    )
    require_profile: bool = _setting(
        "Fail rather than take another profile.", _flag, default=False
    )
    preferred_chain: str = _setting(
        "Of several chains the one by this issuer (CN).", metavar="NAME", default=""
    )
    key_type: KeyType = _setting(
        "rsa2048 (default), rsa3072, rsa4096, p256 or p384.",
        _one_of("rsa2048", "rsa3072", "rsa4096", "p256", "p384"),
        "TYPE",
        default="rsa2048",
    )
    key_policy: str = _setting(
        "The key of a renewal: new (default), or reuse.",
        _one_of("new", "reuse"),
        "RULE",
        default="new",
    )
    key_storage: str = _setting(
        "Who keeps RSA keys in Windows' store: csp (default), or cng.",
        _one_of("csp", "cng"),
        "KIND",
        default="csp",
    )
    key_exportable: bool = _setting(
        "Let keys be taken out of Windows' store.", _flag, default=False
    )
    renew_days: int = _setting(
        "Renew when no more days than these are left.",
        _number(0, 365),
        "DAYS",
        default=0,
    )
    to: tuple[str, ...] = _setting(
        "Mail these addresses when a run fails.",
        _addresses,
        "ADDRESSES",
        default=(),
        many=True,
    )
    remove_old_certificates: bool = _setting(
        "Remove our superseded certificates.", _flag, default=False
    )
    skip_port_check: bool = _setting(
        "Do not look whether port 80 answers.", _flag, default=False
    )
    staging: bool = _setting(
        "Rehearse with the staging CA; change nothing in use.", _flag, default=False
    )
    no_reload: bool = _setting(
        "Do not tell the server to reload.", _flag, default=False
    )
    dry_run: bool = _setting(
        "Say what would be done; change nothing.", _flag, default=False
    )
    force: bool = _setting(
        "Order a certificate even if none is due.", _flag, default=False
    )
    json: bool = _setting("Print the result as JSON.", _flag, default=False)

    contact: tuple[str, ...] = _setting(
        "Mail addresses the CA may use.",
        _addresses,
        "ADDRESSES",
        default=(),
        many=True,
    )
    max_names: int | None = _setting(
        "Most names the CA allows.  [default: as known, or 100]",
        _number(1, 1000),
        "N",
        default=None,
    )
    delay: int | None = _setting(
        "Longest random wait of a scheduled run.  [default: 300 or 0]",
        _number(0, 3600),
        "SECONDS",
        default=None,
    )
    validation_timeout: int = _setting(
        "Seconds to wait for the CA, in all.",
        _number(1, 86400),
        "SECONDS",
        default=300,
    )
    pfx_password_file: Path | None = _setting(
        "Also write a PKCS#12 file, with this file's password.",
        _path,
        "FILE",
        default=None,
    )
    smtp_address: tuple[str, int] | None = _setting(
        "Where MDaemon greets; or none.",
        _server_address,
        "HOST:PORT",
        default=("127.0.0.1", 25),
    )
    endpoint: tuple[str, ...] = _setting(
        "Ports whose certificates are looked at.", _list, "URLS", default=(), many=True
    )
    public: bool = _setting(
        "Look through DNS as well; may fail behind NAT.", _flag, default=False
    )
    require_trusted: bool = _setting(
        "Fail where a chain is not trusted.", _flag, default=False
    )
    reload_semaphores: tuple[str, ...] = _setting(
        "Semaphore files, gentlest first.",
        _semaphores,
        "NAMES",
        default=("RELOADCACHE.SEM", "RESTARTWC.SEM"),
        many=True,
    )
    reload_timeout: int = _setting(
        "Seconds to wait for each semaphore.", _number(1, 3600), "SECONDS", default=30
    )
    allow_restart: bool = _setting(
        "Restart MDaemon if a port keeps the old certificate.", _flag, default=False
    )
    verify_timeout: int = _setting(
        "Seconds for the ports to change.", _number(1, 3600), "SECONDS", default=60
    )
    on_name_failure: str = _setting(
        "What a name that fails does: fail (default), or drop.",
        _one_of("fail", "drop"),
        "RULE",
        default="fail",
    )
    no_activate: bool = _setting(
        "Obtain and keep; `activate` puts it into use.", _flag, default=False
    )
    mail_server: str = _setting(
        "How mail is sent: raw, smtp://HOST:PORT or smtps://…",
        _mail_server,
        "URL",
        default="raw",
    )
    mail_from: tuple[str, ...] = _setting(
        "Sender of the mail.  [default: the first of --to]",
        _sender,
        "ADDRESS",
        default=(),
    )
    mail_user: str = _setting("Login at the mail server.", default="")
    mail_password_file: Path | None = _setting(
        "File that holds the login's password.", _path, "FILE", default=None
    )
    mail_password: str = _setting("The login's password.", default="", secret=True)
    validation_port: int = _setting(
        "Where a laboratory's CA looks instead of port 80.",
        _number(1, 65535),
        "PORT",
        default=80,
    )
    validation_dns: tuple[str, int] | None = _setting(
        "The DNS server that a laboratory's CA asks.",
        _dns_server,
        "ADDRESS:PORT",
        default=None,
    )
    keep_logs: int = _setting(
        "Earlier logs to keep.", _number(0, 10000), "N", default=30
    )
    keep_backups: int = _setting(
        "Backups of INI files to keep.", _number(1, 10000), "N", default=10
    )

    targets: tuple[TargetText, ...] = ()

    @property
    def ca(self) -> str:
        """The CA's directory URL: the one given, or Let's Encrypt's.

        Its staging service instead, where it is to be one and the CA has one.
        """
        url = self.directory_url or LETSENCRYPT.url
        return (self.staging and authorities.at(url).staging) or url

    @property
    def most_names(self) -> int:
        """How many names a certificate may have, as far as that is known."""
        known = authorities.at(self.ca).most_names
        return self.max_names or known.get((*self.profile, "")[0], 0) or 100

    @property
    def longest_delay(self) -> int:
        """Seconds that a scheduled run waits at most before it asks the CA."""
        if self.delay is not None:
            return self.delay
        return 300 if authorities.is_public(self.ca) else 0


def settings() -> Iterator[tuple[str, Setting]]:
    """Yield every setting with its name as an option is spelled, without dashes."""
    for item in fields(Config):
        if row := item.metadata.get("setting"):
            yield item.name.replace("_", "-"), row


def absolute(name: str, text: str) -> str:
    """Return a setting's text so that it means the same in whatever folder."""
    if name == "store":
        kind, colon, folder = text.partition(":")
        return f"{kind}:{Path(folder).absolute()}" if colon else text
    if dict(settings())[name].metavar in {"DIR", "FILE"}:
        return str(Path(text).absolute())
    return text


def is_flag(name: str) -> bool:
    """Whether a setting is yes or no."""
    return dict(settings())[name].flag


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
        environ: The environment; an empty variable counts as none.
        file: The config file, if there is one.

    Raises:
        ConfigError: Listing every problem, each with where it stands.
    """
    draft = _Draft()
    if file is not None:
        draft.take_file(file)
    draft.take_environment(environ)
    for name, texts in options.items():
        draft.take(name, ",".join(texts), f"command line --{name}", Path())
    if draft.problems:
        raise _error(draft.problems)
    return Loaded(draft.config(), draft.origins, file)


class _Draft:
    """What was taken so far, and what is wrong with it."""

    def __init__(self) -> None:
        self.table = dict(settings())
        self.values: dict[str, Parsed] = {}
        self.origins: dict[str, str] = {}
        self.targets: list[TargetText] = []
        self.problems: list[str] = []

    def config(self) -> Config:
        given = {name.replace("-", "_"): value for name, value in self.values.items()}
        return Config(**given, targets=tuple(self.targets))

    def take(self, name: str, text: str, origin: str, base: Path) -> None:
        try:
            self.values[name] = self.table[name].parse(text, base)
        except ValueError as exc:
            self.problems.append(f"{origin}: {words(exc)}")
        self.origins[name] = origin

    def take_environment(self, environ: Mapping[str, str]) -> None:
        names = {name.replace("-", "_").upper(): name for name in self.table}
        for variable, text in environ.items():
            if not variable.startswith(PREFIX) or variable == CONFIG:
                continue
            name = variable.removeprefix(PREFIX)
            where = f"environment {words(variable)}"
            if name not in names:
                nearest = _nearest(name, names, PREFIX)
                self.problems.append(f"{where}: unknown{nearest}")
            elif text:
                self.take(names[name], text, where, Path())

    def take_file(self, file: Path) -> None:
        sections, problems = _read(file)
        self.problems += problems
        seen = set()
        for section, keys in sections.items():
            where = f"{file} [{words(section)}]"
            name = " ".join(section.lower().split())
            if name in seen:
                self.problems.append(f"{where}: stands there again")
            seen.add(name)
            if section.lower() == SECTION:
                self._take_settings(keys, where, file.absolute().parent)
            elif match := re.fullmatch(r"target\s+(\S.*)", section, re.IGNORECASE):
                self._take_target(match[1].strip(), keys, where)
            else:
                nearest = _nearest(section, [SECTION, "target NAME"])
                self.problems.append(f"{where}: unknown section{nearest}")

    def _take_settings(self, keys: Mapping[str, str], where: str, base: Path) -> None:
        for key, text in keys.items():
            if key in self.table:
                self.take(key, text, f"{where} {key}", base)
            else:
                nearest = _nearest(key, self.table)
                self.problems.append(f"{where} {words(key)}: unknown{nearest}")

    def _take_target(self, name: str, keys: Mapping[str, str], where: str) -> None:
        values = {"file": "", "section": "", "key": "", "form": ""}
        for key, text in keys.items():
            if key not in values:
                nearest = _nearest(key, values)
                self.problems.append(f"{where} {words(key)}: unknown{nearest}")
                continue
            try:
                values[key] = _text(text, Path())
            except ValueError as exc:
                self.problems.append(f"{where} {key}: {exc}")
        if not values["file"] or not values["key"]:
            self.problems.append(f"{where}: file and key are needed")
        parts = re.split(r"[\\/]", values["file"] or "x")
        if {"", ".."} & set(parts) or ":" in values["file"]:
            self.problems.append(f"{where} file: write a path below MDaemon's folder")
        self.targets.append(TargetText(words(name), **values))
        self.origins[f"target {words(name)}"] = where


def _read(file: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Read the config file: INI, where a backslash is just a backslash.

    Returns:
        The sections, and what is wrong. No line is quoted: it may hold a password.
    """
    import configparser  # noqa: PLC0415 - not needed for --help

    parser = configparser.ConfigParser(
        interpolation=None, delimiters=("=",), default_section=""
    )
    try:
        parser.read_string(file.read_text("utf-8-sig"))
    except OSError as exc:
        return {}, [f"{file} cannot be read: {exc.strerror}"]
    except UnicodeDecodeError:
        return {}, [f"{file} is not UTF-8 text: save it as such"]
    except configparser.MissingSectionHeaderError as exc:
        return {}, [f"{file} line {exc.lineno}: stands before [{SECTION}]"]
    except configparser.ParsingError as exc:
        return {}, [
            f"{file} line {line}: is not name = value" for line, _ in exc.errors
        ]
    except (
        configparser.DuplicateSectionError,
        configparser.DuplicateOptionError,
    ) as exc:
        what = getattr(exc, "option", f"[{exc.section}]")
        return {}, [f"{file} line {exc.lineno}: {words(what)} stands there again"]
    return {name: dict(parser[name]) for name in parser.sections()}, []


def _nearest(word: str, known: Iterable[str], prefix: str = "") -> str:
    by_lower = {name.lower(): name for name in known}
    found = get_close_matches(word.lower(), list(by_lower), 1)
    return f"; did you mean {prefix}{by_lower[found[0]]}?" if found else ""


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
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case tuple():
            return ",".join(map(str, value))
        case _:
            return str(value)
