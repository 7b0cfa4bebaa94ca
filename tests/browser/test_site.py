"""The site of docs/ in a real browser: readable for everybody, all from one place."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page

from tests.limits import HANG_SECONDS
from tests.scene import serving

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("index", "settings", "commands", "how-it-works")
HEIGHT = 900


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the site, as `tox -e docs` makes it."""
    made = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", DOCS, made],
        check=True,
        timeout=HANG_SECONDS,
    )
    with serving(made) as port:
        yield f"http://127.0.0.1:{port}"


def colours(page: Page) -> str:
    found = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert isinstance(found, str)
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_usable_and_asks_nobody_else(  # noqa: PLR0913, PLR0917 - fixtures
    browser: Browser,
    axe: str,
    site: str,
    album: Path,
    name: str,
    width: int,
    scheme: Literal["light", "dark"],
) -> None:
    size: Any = {"width": width, "height": HEIGHT}
    page = browser.new_page(viewport=size, color_scheme=scheme)
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{site}/{name}.html")
    page.screenshot(path=album / f"site-{name}-{width}-{scheme}.png")

    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert (colours(page) == "rgb(255, 255, 255)") == (scheme == "light")
    assert [url for url in asked if not url.startswith(site)] == []
    assert complaints == []
    page.add_script_tag(content=axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert found["violations"] == []
    assert len(found["passes"]) > 20
    page.close()


def test_the_pictures_are_shown(browser: Browser, site: str) -> None:
    page = browser.new_page()
    page.goto(f"{site}/how-it-works.html")

    widths = page.eval_on_selector_all("img", "all => all.map(x => x.naturalWidth)")

    assert widths == [480, 480]
    page.close()


def test_the_search_finds_a_word_of_a_page(browser: Browser, site: str) -> None:
    page = browser.new_page()
    page.goto(f"{site}/search.html?q=HAProxy")

    result = page.locator("#search-results li a").first
    result.wait_for()

    assert "port-80.html" in (result.get_attribute("href") or "")
    page.close()
