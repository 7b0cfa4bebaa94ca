"""The report in a real browser: readable for everybody, and inert."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page

from tests import fleets
from tests.fleets import HOSTILE
from tests.program import here

Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
WIDTHS = (360, 768, 1440)
HEIGHT = 900
TABBED = "() => document.activeElement.outerHTML"


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on good, bad, broken and hostile files."""
    folder = tmp_path_factory.mktemp("report")
    collected = fleets.make_mixed(folder / "collected", now=datetime.now(UTC))
    file = folder / "report.html"
    ran = here(["report", "--from", str(collected), "--html", str(file)])
    assert ran.exit_code == 2, ran.output
    return file


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on one server."""
    folder = tmp_path_factory.mktemp("small")
    collected = folder / "collected"
    collected.mkdir()
    document = fleets.status(now=datetime.now(UTC), state="WARNING", problem="x")
    fleets.write(collected, "a.json", document)
    file = folder / "report.html"
    here(["report", "--from", str(collected), "--html", str(file)])
    return file


class Visit:
    """A page, and all that happened on it."""

    def __init__(self, page: Page, file: Path) -> None:
        self.page = page
        self.requests: list[str] = []
        self.happened: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("dialog", self._dismiss)
        page.on("popup", lambda popup: self.happened.append(popup.url))
        page.on("download", lambda got: self.happened.append(got.url))
        page.on("pageerror", lambda error: self.happened.append(str(error)))
        page.on("console", lambda line: self.happened.append(line.text))
        page.goto(file.as_uri())

    def _dismiss(self, dialog: Any) -> None:  # noqa: ANN401 - playwright's
        self.happened.append(dialog.message)
        dialog.dismiss()


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> Scheme:
    """The colours that a reader prefers."""
    chosen: Scheme = request.param
    return chosen


@pytest.fixture
def visit(browser: Browser, report: Path) -> Iterator[Visit]:
    """The report in a window of the usual width."""
    page = browser.new_page(viewport={"width": 1440, "height": HEIGHT})
    yield Visit(page, report)
    page.close()


def colours(page: Page, selector: str = "body") -> tuple[str, str]:
    """Return the background and the text's colour."""
    found = page.eval_on_selector(
        selector,
        "x => { const s = getComputedStyle(x); return [s.backgroundColor, s.color] }",
    )
    return found[0], found[1]


@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_every_width_in_both_schemes(
    browser: Browser, report: Path, album: Path, width: int, scheme: Scheme
) -> None:
    size: Any = {"width": width, "height": HEIGHT}
    page = browser.new_page(viewport=size, color_scheme=scheme)
    page.goto(report.as_uri())
    page.screenshot(path=album / f"{width}-{scheme}.png")
    page.eval_on_selector_all("details", "all => all[1].open = true")
    page.screenshot(path=album / f"{width}-{scheme}-open.png", full_page=True)

    assert page.evaluate("document.documentElement.scrollWidth") == width
    dark = colours(page)[0] == "rgb(20, 24, 29)"
    assert dark == (scheme == "dark")
    page.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", ["many", "one"])
def test_axe_finds_nothing(  # noqa: PLR0913, PLR0917 - fixtures
    browser: Browser,
    axe: str,
    report: Path,
    small: Path,
    width: int,
    scheme: Scheme,
    count: str,
) -> None:
    size: Any = {"width": width, "height": HEIGHT}
    # The policy of the page forbids every script, also this one.
    page = browser.new_page(viewport=size, color_scheme=scheme, bypass_csp=True)
    page.goto({"many": report, "one": small}[count].as_uri())
    # Each has the same elements.
    opened = "all => all.slice(0, 10).forEach(x => x.open = true)"
    page.eval_on_selector_all("details", opened)
    page.add_script_tag(content=axe)

    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")

    assert found["violations"] == []
    assert len(found["passes"]) > 20
    page.close()


def test_it_makes_no_request_and_runs_nothing(visit: Visit, report: Path) -> None:
    page = visit.page
    page.eval_on_selector_all("details", "all => all.forEach(x => x.open = true)")
    page.wait_for_load_state("networkidle")

    assert visit.requests == [report.as_uri()]
    assert visit.happened == []
    assert page.title() == f"Certificates of {len(HOSTILE) + 20} mail servers"
    assert page.locator("script, img, iframe, object, link, form, base").count() == 0
    assert page.locator("[style], [onload], [onerror]").count() == 0
    text = page.inner_text("main")
    assert all(item in text for item in HOSTILE[:4])


def test_its_policy_stops_what_would_get_through(
    browser: Browser, report: Path
) -> None:
    """As if the escaping had a hole."""
    text = report.read_text("utf-8")
    hole = report.with_name("hole.html")
    hole.write_text(text.replace("<main>", f"<main>{''.join(HOSTILE[:3])}", 1), "utf-8")
    page = browser.new_page()
    visit = Visit(page, hole)
    page.wait_for_load_state("networkidle")

    assert page.locator("script, img").count() > 0
    assert page.title() == f"Certificates of {len(HOSTILE) + 20} mail servers"
    asked = [url for url in visit.requests if not url.startswith("file:")]
    assert len([x for x in visit.happened if "Content Security Policy" in x]) >= 3
    assert not asked
    page.close()


def test_without_scripts_it_is_all_there(browser: Browser, report: Path) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(report.as_uri())
    details = page.locator("details").nth(0)
    inside = details.locator("dl")

    assert not inside.is_visible()
    details.locator("summary").click()
    assert inside.is_visible()
    page.close()


def test_tab_reaches_every_link_and_every_server(visit: Visit) -> None:
    page = visit.page
    wanted = page.locator("a, summary").count()

    reached = []
    for _ in range(wanted):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(TABBED))

    assert len(set(reached)) == wanted
    assert reached[0].startswith("<a ")
    assert "Skip to the servers" in reached[0]
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_the_first_link_skips_to_the_servers(visit: Visit) -> None:
    page = visit.page
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")

    assert "#server-1" in page.evaluate(TABBED)


def test_the_link_of_a_server_opens_its_details(visit: Visit) -> None:
    page = visit.page
    last = page.locator("details").last

    page.locator("tbody th a").nth(page.locator("details").count() - 1).click()

    assert last.get_attribute("open") == ""
    assert last.locator("dl").is_visible()


def test_a_screen_reader_gets_tables_also_on_a_narrow_screen(
    browser: Browser, small: Path
) -> None:
    for width in WIDTHS:
        page = browser.new_page(viewport={"width": width, "height": HEIGHT})
        page.goto(small.as_uri())
        tree = page.locator("#servers").aria_snapshot()
        page.close()

        for line in (
            *('table "Verdict, certificate and reasons, by server"',),
            *('columnheader "Days"', 'rowheader "mail.example.test"', 'cell "5 of 5"'),
        ):
            assert line in tree, (width, line, tree)


def test_it_prints_on_a4(visit: Visit, album: Path) -> None:
    page = visit.page
    page.locator("details").nth(0).locator("summary").click()

    data = page.pdf(path=album / "report.pdf", prefer_css_page_size=True)

    boxes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", data)
    points = {(round(float(width)), round(float(height))) for width, height in boxes}
    assert points == {(842, 595)}  # A4, landscape: 297 by 210 mm
    assert 2 <= len(boxes) <= 8
    page.emulate_media(media="print", color_scheme="dark")
    assert colours(page) == ("rgb(255, 255, 255)", "rgb(0, 0, 0)")
    assert page.locator("details").nth(0).is_visible()
    assert not page.locator("details").nth(1).is_visible()
