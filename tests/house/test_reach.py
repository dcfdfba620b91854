"""Everybody reaches everything: axe, keyboard, fingers and small screens, on wide and narrow pages, light and dark."""

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from browser import open_browser, open_page, visit
from built import PAGES, shared_book

SETTINGS = [(width, dark) for width in (1400, 390) for dark in (False, True)]
LIMITS = {"book/intro": 1.5e6}  # bytes that a browser reads for a page; for all others:
LIMIT = 2e6
FINGER = 44  # px

AXE = resources.files("axe_playwright_python").joinpath("axe.min.js")

SEVERE = """async () => {
    const options = {resultTypes: ['violations'], preload: false, iframes: false};
    const {violations} = await axe.run(document, options);
    return violations.filter(each => ['serious', 'critical'].includes(each.impact)).map(each =>
        `${each.id}: ${each.nodes.length}, such as ${each.nodes[0].html.slice(0, 200)}`);
}"""

# Formulas that are cut off or cannot be scrolled to their end from the keyboard.
UNREACHABLE = """() => [...document.querySelectorAll("mjx-container[display='true']")].filter(formula => {
    const inside = formula.querySelector('mjx-math');
    if (!inside) return true;
    const width = inside.getBoundingClientRect().width, room = formula.clientWidth;
    if (width <= room + 1) return false;
    let scroller = formula;
    while (scroller && scroller.scrollWidth <= scroller.clientWidth + 1) scroller = scroller.parentElement;
    return !scroller || scroller.tabIndex !== 0 || getComputedStyle(scroller).overflowX === 'visible';
}).map(formula => formula.textContent.slice(0, 80))"""


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_book(tmp_path_factory)[0]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


def severe(page: Page) -> list[str]:
    """What axe finds serious or critical on an open page."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    found: list[str] = page.evaluate(SEVERE)
    return found


# The pages of the reference are made alike: axe looks at their list and at one of them.
ALIKE = [
    name for name in PAGES if name.startswith("book/api/") and name not in ("book/api/index", "book/api/protection")
]


@pytest.mark.parametrize("name", [name for name in PAGES if name not in ALIKE])
def test_axe_and_formulas(html: Path, chromium: Browser, name: str) -> None:
    with open_page(chromium, (html / f"{name}.html").as_uri()) as (page, problems):
        for width, dark in SETTINGS:
            page.emulate_media(color_scheme="dark" if dark else "light")
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_function(f"() => document.documentElement.dataset.theme === '{'dark' if dark else 'light'}'")
            page.wait_for_timeout(300)  # what is wide is marked after a change of the width
            assert severe(page) == [], (width, dark)
            assert page.evaluate(UNREACHABLE) == [], (width, dark)
            assert page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth") <= 0
        assert problems == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_light(html: Path, name: str) -> None:
    """The page and the pictures that it shows at once; styles, fonts and formulas come with the first page alone."""
    path = html / f"{name}.html"
    size = path.stat().st_size
    text = path.read_text(encoding="utf-8")
    for image in {word.split('"')[0] for word in text.split("<img ") for word in word.split('src="')[1:2]}:
        if not image.startswith("data:") and (file := (path.parent / image).resolve()).is_file():
            size += file.stat().st_size
    assert size < LIMITS.get(name, LIMIT), f"{size / 1e6:.2f} MB"


@pytest.mark.parametrize("name", [name for name in PAGES if name.startswith("notebooks/")])
def test_sliders_by_keyboard_and_by_finger(html: Path, chromium: Browser, name: str) -> None:
    with open_page(chromium, (html / f"{name}.html").as_uri(), width=390) as (page, problems):
        for slider in page.locator("article input[type=range]").all():
            box = slider.bounding_box()
            assert box is not None and box["height"] >= FINGER and box["width"] >= FINGER
            slider.focus()
            for key, change in (("Home", None), ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1)):
                page.keyboard.press(key)
                if change is not None and int(slider.get_attribute("max") or 0) >= 2:
                    assert int(slider.input_value()) == change
            assert 0 < len(slider.get_attribute("aria-valuetext") or "") < 100  # the picture's label has the values
        assert problems == []


def test_search_finds_functions(html: Path, chromium: Browser) -> None:
    with open_page(chromium, (html / "search.html").as_uri() + "?q=sic_mse") as (page, problems):
        page.wait_for_selector("#search-results ul.search li a[href*='api/wireless']")
        assert problems == []


BAD = """<!doctype html><html lang="en"><head><title>Bad</title></head><body><main><h1>Bad</h1>
<p style="color: #bbb; background: #fff">pale</p><img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">
<mjx-container display="true" style="display: block; width: 90px; overflow-x: auto"><mjx-math
style="display: inline-block; width: 900px">x</mjx-math></mjx-container></main></body></html>"""


def test_the_tests_see_what_is_bad(tmp_path: Path, chromium: Browser) -> None:
    (tmp_path / "bad.html").write_text(BAD)
    with open_page(chromium, "about:blank") as (page, _):
        visit(page, (tmp_path / "bad.html").as_uri())
        found = json.dumps(severe(page))
        assert "color-contrast" in found and "image-alt" in found
        assert page.evaluate(UNREACHABLE) == ["x"]
        page.evaluate("() => { document.querySelector('mjx-container').tabIndex = 0; }")
        assert page.evaluate(UNREACHABLE) == []
