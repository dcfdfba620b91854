"""The built book, opened from its folder in a real browser: it must need no network and show no error."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from browser import judge, judge_at_each_width, open_browser, open_page, visit
from built import CONTENTS, PAGES, shared_book
from places import ROOT
from tools import paper_map

each_page = pytest.mark.parametrize("name", PAGES)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Build the book from the committed outputs; return its folder and what the builder said."""
    return shared_book(tmp_path_factory)


@pytest.fixture(scope="module")
def html(build: tuple[Path, str]) -> Path:
    return build[0]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


def test_builds_without_a_warning(build: tuple[Path, str]) -> None:
    assert re.findall(r".*(?:WARNING|ERROR|CRITICAL).*", build[1]) == []


def test_has_no_page_beyond_its_contents(html: Path) -> None:
    generated = {"index", "search", "genindex", "prf-prf"}
    pages = {str(page.relative_to(html).with_suffix("")) for page in html.rglob("*.html")} - generated
    assert {page for page in pages if not page.startswith(("_static", "code/"))} == set(PAGES)


@dataclass(frozen=True)
class Look:
    """What was found on a page; its formulas take seconds to set, so it is opened once.

    `problems` are those on a wide screen and on a telephone, each in light and in dark.
    """

    problems: list[str]
    formulas: int
    text: str
    captions: list[str]


@pytest.fixture(scope="module")
def window(chromium: Browser) -> Iterator[Callable[[Path], tuple[Page, list[str]]]]:
    """Opens pages one after the other in one window: a fresh one takes longer than most pages."""
    with open_page(chromium, "about:blank") as (page, problems):

        def at(path: Path) -> tuple[Page, list[str]]:
            problems.clear()
            page.emulate_media(color_scheme="light")
            page.set_viewport_size({"width": 1280, "height": 900})
            visit(page, path.as_uri())
            return page, problems

        yield at


@pytest.fixture(scope="module")
def look(html: Path, window: Callable[[Path], tuple[Page, list[str]]]) -> Callable[[str], Look]:
    @cache
    def at(name: str) -> Look:
        page, problems = window(html / f"{name}.html")
        formulas, text = page.locator("article mjx-container").count(), page.locator("article").inner_text()
        captions = page.locator("article figcaption").all_inner_texts()
        return Look(judge_at_each_width(page, problems), formulas, text, captions)

    return at


@each_page
def test_page_has_no_problem(look: Callable[[str], Look], name: str) -> None:
    assert look(name).problems == []


@each_page
def test_formulas_reach_the_page(look: Callable[[str], Look], name: str) -> None:
    """Every formula of the source is set, and none is left as raw TeX in the text."""
    source = next(path for suffix in (".md", ".ipynb") if (path := ROOT / f"{name}{suffix}").exists())
    assert (look(name).formulas > 0) == bool(re.search(r"\$\S", source.read_text()))
    assert re.findall(r"\\[(\[]|\$\$|\{(?:eq|numref|cite)\}", look(name).text) == []


@each_page
def test_figures_are_numbered(look: Callable[[str], Look], name: str) -> None:
    assert [caption for caption in look(name).captions if not re.match(r"Fig\. (?:\d+\.)?\d+\s", caption)] == []


@each_page
def test_units_stay_with_their_numbers(look: Callable[[str], Look], name: str) -> None:
    assert [caption for caption in look(name).captions if re.search(r"\d (?:%|dB)(?!\w)", caption)] == []


@pytest.mark.parametrize("name", ["rmtllmf_lib/wireless/receiver", "tests/wireless/test_receiver"])
def test_a_page_of_code_has_no_problem(look: Callable[[str], Look], name: str) -> None:
    assert look(f"code/{name}").problems == []


def dead_links(page: Path, anchors: Callable[[Path], set[str]]) -> list[str]:
    """The links of a page to files or anchors of the book that are not there."""
    links = set(re.findall(r'<a [^>]*href="(?!\w+:)([^"#]*)#?([^"]*)"', page.read_text(encoding="utf-8")))
    targets = {(path, anchor): (page.parent / path if path else page).resolve() for path, anchor in links}
    return [
        f"{page.name}: {path}#{anchor}"
        for (path, anchor), target in targets.items()
        if not target.exists() or (anchor and target.suffix == ".html" and anchor not in anchors(target))
    ]


def test_every_link_inside_the_book_leads_somewhere(html: Path, tmp_path: Path) -> None:
    """Those of the map, of equations and figures to their code, and back, among them."""

    @cache
    def anchors(page: Path) -> set[str]:
        return set(re.findall(r' id="([^"]+)"', page.read_text(encoding="utf-8")))

    pages = [html / f"{name}.html" for name in PAGES] + [*(html / "code").rglob("*.html")]
    assert [link for page in pages for link in dead_links(page, anchors)] == []
    (tmp_path / "bad.html").write_text('<a href="gone.html#x"></a><a class="b" href="#y"></a><a id="z" href="#z"></a>')
    assert sorted(dead_links(tmp_path / "bad.html", anchors)) == ["bad.html: #y", "bad.html: gone.html#x"]


def test_equations_and_figures_lead_to_their_code(html: Path) -> None:
    """Each numbered equation and each drawn figure, with the number that the map has for it."""
    equations: dict[str, str] = {}
    figures: dict[str, str] = {}
    for name in PAGES:
        text = (html / f"{name}.html").read_text(encoding="utf-8")
        found = re.findall(r'id="equation-(eq-[\w-]+)">\s*<span class="eqno">\(([\d.]+)\)', text)
        assert len(found) == text.count('class="eqno"'), f"{name}: an equation with a number and without eq-…"
        equations |= dict(found)
        drawn = re.findall(r'<figure[^>]* id="(fig-[\w-]+)">(.*?)</figure>', text, flags=re.DOTALL)
        figures |= {label: re.findall(r"Fig. ([\d.]*\d)", body)[0] for label, body in drawn}
        linked = [label for label, body in drawn if "code-links" in body]
        assert linked == [label for label, _ in drawn if paper_map.places()[label].drawn_by]
        assert text.count('<p class="code-links">') == len(found) + len(linked), f"{name}: an equation without links"
    assert equations | figures == {label: place.number for label, place in paper_map.places().items()}


@pytest.mark.parametrize(
    "anchor", ["01_system_model.html#equation-eq-sm-rate", "03_worst_case_noise.html#fig-wcn-units"]
)
def test_a_link_ends_at_its_target(html: Path, window: Callable[[Path], tuple[Page, list[str]]], anchor: str) -> None:
    """Although formulas above it change the height of the page when they are typeset."""
    page, problems = window(html / "book" / "map.html")
    visit(page, f"{(html / 'notebooks').as_uri()}/{anchor}")
    top = "id => document.getElementById(id).getBoundingClientRect().top"
    for _ in range(50):  # until the page has come to rest, on a busy machine
        page.wait_for_timeout(200)
        if 0 <= (found := page.evaluate(top, anchor.partition("#")[2])) < 120:
            break
    assert 0 <= found < 120
    assert problems == []


def test_index_leads_to_the_first_page(html: Path, window: Callable[[Path], tuple[Page, list[str]]]) -> None:
    target = re.search(r"url=([^\"]+)\"", (html / "index.html").read_text())
    assert target is not None
    page, problems = window(html / "search.html")
    page.goto((html / "index.html").as_uri(), wait_until="commit")
    page.wait_for_url((html / target[1]).as_uri())
    assert page.locator("article h1").count() == 1
    assert problems == []
    assert target[1] == f"{CONTENTS['root']}.html"


def test_search_finds_a_word_of_the_text_and_not_another(
    html: Path, window: Callable[[Path], tuple[Page, list[str]]]
) -> None:
    page, problems = window(html / f"{CONTENTS['root']}.html")
    page.keyboard.press("Control+k")
    page.locator("#search-input:visible").fill("fusion")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=fusion")
    # results come in one by one
    page.locator("#search-results ul.search li > a[href*='04_fusion']").first.click()
    page.wait_for_load_state("load")
    assert page.locator("article h1").count() == 1
    page.goto((html / "search.html").as_uri() + "?q=zyzzyva")
    page.wait_for_function("() => /did not match|no results/i.test(document.body.innerText)")
    assert page.locator("#search-results ul.search li").count() == 0
    assert problems == []


def test_reader_can_switch_to_dark(html: Path, chromium: Browser) -> None:
    """The switch changes the page, and the choice outlives a reload."""
    background = "() => getComputedStyle(document.body).backgroundColor"
    with open_page(chromium, (html / "search.html").as_uri()) as (page, problems):
        light = page.evaluate(background)
        for _ in range(3):  # auto, light, dark, in the theme's order
            page.locator("button.theme-switch-button:visible").first.click()
            if page.locator("html").get_attribute("data-theme") == "dark":
                break
        dark = page.evaluate(background)
        page.reload()
        assert page.locator("html").get_attribute("data-theme") == "dark"
        assert page.evaluate(background) == dark != light
        assert problems == []


BAD = """<!doctype html><title>Bad</title><body><article>
<img src="https://example.org/a.png" alt="far away"><img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">
<div style="width: 5000px">wide</div><span class="math">\\(x\\)</span><mjx-merror>\\nix</mjx-merror>
<script>console.error("ouch"); undefinedName.call()</script></article></body>"""


def test_the_judge_sees_each_kind_of_problem(tmp_path: Path, chromium: Browser) -> None:
    """A page that has them all: the tests above can fail."""
    (tmp_path / "bad.html").write_text(BAD)
    problems = "\n".join(judge(chromium, (tmp_path / "bad.html").as_uri()))
    for expected in ("external https", "without alt", "wider", "not set", "in error", "console: ouch", "script error"):
        assert expected in problems
