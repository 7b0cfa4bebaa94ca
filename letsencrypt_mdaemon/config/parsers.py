"""Parse the text of one setting."""

from __future__ import annotations

import re
import sys
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any, TypeAlias

from letsencrypt_mdaemon.authorities import AUTHORITIES
from letsencrypt_mdaemon.pki.names import normalise, split

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Parsed: TypeAlias = Any  # a setting's value; its type is the field's own


def _invalid(text: str, use: str) -> ValueError:
    return ValueError(f"{text!r} is not valid; use {use}")


def parse_text(text: str, _: Path) -> str:
    """Parse one line of text."""
    if re.search(r"[\x00-\x1f\x7f]", text.strip()):
        raise ValueError("contains a line break or another control character")
    return text.strip()


def parse_path(text: str, base: Path) -> Path:
    r"""Parse a path; a relative one starts at the given folder.

    A Windows prompt turns ``"C:\MDaemon\"`` into a path that ends in a quote, and the
    folder of ``C:MDaemon`` would depend on what was typed before: the root is meant.
    """
    path = parse_text(text, base).strip('"')
    if sys.platform == "win32" and re.match("[A-Za-z]:(?![\\\\/])", path):
        path = f"{path[:2]}\\{path[2:]}"
    if not path:
        # Joined to the base, it would be the base itself.
        raise ValueError("the path is empty")
    return base / path


def parse_program(text: str, base: Path) -> Path:
    """Parse the absolute path of a program, in the notation of any system."""
    path = parse_path(text, base)
    word = text.strip().strip('"')
    if not (type(path)(word).is_absolute() or PureWindowsPath(word).is_absolute()):
        raise _invalid(word, "an absolute path; the program gets no arguments")
    return path


def parse_flag(text: str, _: Path) -> bool:
    """Parse yes or no."""
    answers = {"yes": True, "true": True, "on": True, "1": True}
    answers |= {"no": False, "false": False, "off": False, "0": False, "": False}
    if (answer := answers.get(text.strip().lower())) is None:
        raise _invalid(text, "yes or no")
    return answer


def parse_number(low: int, high: int) -> Callable[[str, Path], int]:
    """Return a parser of whole numbers between two bounds, both included."""

    def parse(text: str, _: Path) -> int:
        if not re.fullmatch(r"\s*[0-9]{1,9}\s*", text) or not low <= int(text) <= high:
            raise _invalid(text, f"a number from {low} to {high}")
        return int(text)

    return parse


def parse_one_of(*choices: str) -> Callable[[str, Path], str]:
    """Return a parser of one of these words, in upper or lower case."""

    def parse(text: str, _: Path) -> str:
        if text.strip().lower() not in choices:
            raise _invalid(text, ", ".join(choices))
        return text.strip().lower()

    return parse


def parse_name(text: str, _: Path) -> str:
    """Parse a host name."""
    try:
        return normalise(text)
    except ValueError as exc:
        raise ValueError(f"{text.strip()!r} {exc}") from None


def parse_names(text: str, base: Path) -> tuple[str, ...]:
    """Parse host names, separated by commas or blanks."""
    names, problems = [], []
    for word in split([text]):
        try:
            names.append(parse_name(word, base))
        except ValueError as exc:
            problems.append(str(exc))
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(dict.fromkeys(names))


def parse_addresses(text: str, _: Path) -> tuple[str, ...]:
    """Parse mail addresses, separated by commas."""
    if re.search(r"[\r\n]", text):
        raise ValueError(f"{text!r} contains a line break")
    addresses = [word.strip() for word in text.split(",") if word.strip()]
    for address in addresses:
        # RFC 5321, 4.1.2, without quoted local parts: nothing that could end a list or
        # the value of a header in a RAW message.
        if not re.fullmatch(
            r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@([A-Za-z0-9.-]+|\[[A-Za-z0-9.:]+\])",
            address,
        ):
            raise ValueError(
                f"{address!r} is not a mail address such as you@example.com"
            )
    return tuple(dict.fromkeys(addresses))


def parse_sender(text: str, base: Path) -> tuple[str, ...]:
    """Parse at most one mail address."""
    addresses = parse_addresses(text, base)
    if len(addresses) > 1:
        raise _invalid(text.strip(), "one address")
    return addresses


def parse_directory_url(text: str, _: Path) -> str:
    """Parse the name of a known CA, or the URL of a directory."""
    url = text.strip()
    if authority := AUTHORITIES.get(url.lower()):
        return authority.url
    if "@" in url:
        raise ValueError("contains an @; a CA takes no login")
    # RFC 8555, 6.1: HTTPS only. A CA on this machine may use HTTP.
    host = r"(https://[^/?#\s]+|http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?)"
    if not url.isprintable() or not re.fullmatch(rf"{host}(/\S*)?", url):
        known = ", ".join(AUTHORITIES)
        raise _invalid(url, f"{known}, or the https:// URL of a CA's directory")
    return url


def parse_store(text: str, base: Path) -> str:
    """Parse a certificate store: `pem:FOLDER` or `windows`."""
    kind, colon, folder = text.strip().partition(":")
    if kind.lower() == "pem" and folder.strip():
        return f"pem:{parse_path(folder, base)}"
    if kind.lower() == "windows" and not colon:
        return "windows"
    raise _invalid(text, "windows or pem:FOLDER")


_ADDRESS = r"(\[[0-9a-fA-F:]+\]|[0-9]{1,3}(?:\.[0-9]{1,3}){3})"
_HOST = r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+)"


def parse_server_address(text: str, _: Path) -> tuple[str, int] | None:
    """Parse the SMTP server's host and port, or none."""
    return _place(text, _HOST, 25, "HOST:PORT or none")


def parse_dns_server(text: str, _: Path) -> tuple[str, int] | None:
    """Parse a DNS server's address and port, or none."""
    return _place(text, _ADDRESS, 53, "ADDRESS:PORT or none")


def parse_mail_server(text: str, _: Path) -> str:
    """Parse the way that mail is sent: `raw`, or the URL of an SMTP server."""
    url, use = text.strip(), "raw, smtp://HOST:PORT or smtps://HOST:PORT"
    if url.lower() == "raw":
        return "raw"
    if "@" in url:
        raise ValueError("contains an @; set the login with mail-user and its password")
    if _place(url.removesuffix("/"), rf"smtps?://{_HOST}", 25, use) is None:
        raise _invalid(url, use)
    return url


def parse_proxy(text: str, _: Path) -> str:
    """Parse the URL of an HTTP proxy; without a scheme it is http."""
    url = text.strip()
    if "@" in url:
        raise ValueError("contains an @; a proxy with a login is not supported here")
    found = re.fullmatch(rf"(?:(https?)://)?{_HOST}:([0-9]{{1,5}})/?", url)
    if found is None or not 0 < int(found[3]) < 1 << 16:
        raise _invalid(url, "http://HOST:PORT")
    return f"{found[1] or 'http'}://{found[2]}:{found[3]}"


def _place(text: str, host: str, usual: int, use: str) -> tuple[str, int] | None:
    """Return a host and its port; None for `none`.

    Args:
        host: The pattern of the host, a group.
        usual: The port where the text has none.
    """
    if text.strip().lower() == "none":
        return None
    match = re.fullmatch(rf"{host}(?::([0-9]{{1,5}}))?", text.strip())
    if match is None or not 0 < (port := int(match[2] or usual)) < 1 << 16:
        raise _invalid(text, use)
    return match[1].strip("[]"), port


def parse_urls(text: str, base: Path) -> str:
    """Parse URLs, separated by blanks; they are secrets, so that none is quoted."""
    for word in parse_text(text, base).split():
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://\S+", word):
            raise ValueError("is not valid; use URLs such as https://HOST/PATH")
    return text.strip()


def parse_list(text: str, _: Path) -> tuple[str, ...]:
    """Parse words, separated by commas or blanks; drop repetitions."""
    return tuple(dict.fromkeys(split([text])))


def parse_events(text: str, base: Path) -> tuple[str, ...]:
    """Parse the further events that are mailed."""
    events = tuple(word.lower() for word in parse_list(text, base))
    for event in events:
        parse_one_of("renewed", "every-run")(event, base)
    return events


def parse_semaphores(text: str, base: Path) -> tuple[str, ...]:
    """Parse names of semaphore files."""
    names = parse_list(text, base)
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_-]+\.SEM", name, re.IGNORECASE):
            raise ValueError(
                f"{name!r} is not the name of a semaphore file such as X.SEM"
            )
    return names


def shown(value: object) -> str:
    """Return a setting's value as it is written in the config file."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case (str(host), int(port)):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case tuple() | list():
            return ",".join(map(str, value))
        case _:
            return str(value)


def unquoted(text: str) -> str:
    """Return a value of the file without the quotes around it, as other files need."""
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if is_quoted else text
