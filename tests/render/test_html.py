"""The report as HTML: every foreign word is text. See also tests/browser."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from letsencrypt_mdaemon.app import fleet
from letsencrypt_mdaemon.app.collected import read
from letsencrypt_mdaemon.render import html
from tests import fleets
from tests.fleets import HOSTILE, NOW, status

VOID = {"meta", "wbr"}


class Page(HTMLParser):
    """What a browser makes of it: elements, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.tags.append(tag)
        self.attributes += attrs
        self.open += [] if tag in VOID else [tag]

    def handle_endtag(self, tag: str) -> None:
        """See that what ends began last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.texts.append(data)

    @property
    def ids(self) -> list[str | None]:
        """The marks that links lead to."""
        return [value for key, value in self.attributes if key == "id"]


def written(*documents: object) -> str:
    servers = [read(document, "a.json", NOW) for document in documents]
    return html.write(fleet.of(servers, NOW), title="Title").decode()


def test_a_hostile_text_makes_no_element_and_no_attribute() -> None:
    good = Page(written(*[status(state="WARNING", problem="x")] * len(HOSTILE)))
    page = Page(written(*map(fleets.hostile, HOSTILE)))

    kept = {"html", "head", "meta", "title", "style", "body", "a", "header", "h1", "h2"}
    kept |= {"main", "section", "table", "caption", "thead", "tbody", "tr", "th", "td"}
    kept |= {
        "wbr",
        "span",
        "strong",
        "svg",
        "rect",
        "small",
        "details",
        "summary",
        "div",
    }
    kept |= {"dl", "dt", "dd", "p", "ul", "li", "wbr"}
    assert set(page.tags) == set(good.tags) <= kept
    names = {key for key, _ in page.attributes}
    assert names == {key for key, _ in good.attributes}
    assert not {name for name in names if name.startswith("on")} | ({"style"} & names)


@pytest.mark.parametrize("text", HOSTILE[:4])
def test_a_hostile_text_is_shown_as_it_is(text: str) -> None:
    assert text in Page(written(fleets.hostile(text))).texts


def test_no_character_turns_a_line_around() -> None:
    page = written(*map(fleets.hostile, HOSTILE))

    assert all(c.isprintable() or c == "\n" for c in page)


def test_links_lead_only_to_marks_in_the_page() -> None:
    page = Page(written(*map(fleets.hostile, HOSTILE)))

    links = [value for key, value in page.attributes if key == "href"]
    assert len(links) == len(HOSTILE) + 1
    assert all(link and link.removeprefix("#") in page.ids for link in links)
    assert len(page.ids) == len(set(page.ids))
    assert not {"src", "srcset", "action"} & {key for key, _ in page.attributes}


def test_the_policy_allows_the_style_sheet_and_nothing_else() -> None:
    page = written(status())

    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'"
    values = [value for key, value in Page(page).attributes if key == "content"]
    assert f"{policy}; form-action 'none'" in values
    assert "url(" not in style
    assert "@import" not in style
    first = page.index("Content-Security-Policy")
    assert first < page.index("<style>")


def test_the_report_on_one_server_shows_its_details() -> None:
    assert ("open", "") in Page(written(status())).attributes
    assert ("open", "") not in Page(written(status(), status())).attributes


def test_what_is_known_is_shown() -> None:
    texts = Page(written(status("mail.a.test", state="WARNING", problem="Why!"))).texts

    for text in (
        *("mail.a.test", "imap.mail.a.test", "2027-01-27", "60"),
        *("5 of 5", "7 hours ago", "Why!", "mail.a.test:993", "serves it", "windows"),
    ):
        assert text in texts, text
