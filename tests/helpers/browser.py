"""Open built pages in a real browser, over `file://`, and list what is wrong with them."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
LOCAL = ("file:", "data:", "blob:", "about:")

# What can only be checked once the page is laid out.
JUDGE = """() => {
    const problems = [];
    const article = document.querySelector('article, main') || document.body;
    const overflow = document.documentElement.scrollWidth - window.innerWidth;
    if (overflow > 0) problems.push(`the page is ${overflow} px wider than the window`);
    for (const formula of document.querySelectorAll('mjx-merror, [data-mjx-error]'))
        problems.push(`formula in error: ${formula.textContent} ${formula.dataset.mjxError || ''}`);
    for (const formula of article.querySelectorAll('.math'))
        if (!formula.querySelector('mjx-container')) problems.push(`formula not set: ${formula.textContent}`);
    for (const formula of article.querySelectorAll('span.math')) {
        const set = formula.querySelector('mjx-math, mjx-container > svg');
        const cut = set ? set.getBoundingClientRect().right - formula.getBoundingClientRect().right : 0;
        if (cut > 1) problems.push(`formula cut off by ${Math.round(cut)} px: ${set.textContent}`);
    }
    for (const image of article.querySelectorAll('img')) {
        if (!(image.alt || '').trim()) problems.push(`image without alt text: ${image.src}`);
        if (!(image.complete && image.naturalWidth)) problems.push(`image not shown: ${image.src}`);
    }
    for (const broken of article.querySelectorAll('.problematic, .system-message'))
        problems.push(`broken markup: ${broken.textContent}`);
    return problems;
}"""


def find_browser() -> str | None:
    """Return the path of an installed Chromium or Chrome; `CHROME` in the environment goes first."""
    names = (os.environ.get("CHROME", ""), *NAMES)
    return next((path for name in names if name and (path := shutil.which(name))), None)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start the installed browser; without one the tests are skipped, but with CI=true they fail."""
    path = find_browser()
    if path is None:
        reason = f"no browser found: install Chromium or set CHROME (looked for {', '.join(NAMES)})"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def visit(page: Page, url: str) -> None:
    """Load `url`, and wait until formulas are set and fonts are there."""
    page.goto(url, wait_until="load")
    page.evaluate("() => window.MathJax && window.MathJax.startup && window.MathJax.startup.promise")
    page.evaluate("() => document.fonts.ready.then(() => true)")


@contextmanager
def open_page(browser: Browser, url: str, *, width: int = 1280, dark: bool = False) -> Iterator[tuple[Page, list[str]]]:
    """Open `url` in a fresh profile; yield the page and the growing list of its problems."""
    problems: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
    # A request that leaves the machine is reported and stopped.
    context.route(lambda target: not target.startswith(LOCAL), lambda route: route.abort())
    page = context.new_page()
    page.on("request", lambda request: request.url.startswith(LOCAL) or problems.append(f"external {request.url}"))
    page.on("requestfailed", lambda request: problems.append(f"failed {request.url} {request.failure}"))
    page.on("console", lambda message: message.type == "error" and problems.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: problems.append(f"script error: {error}"))
    try:
        visit(page, url)
        yield page, problems
    finally:
        context.close()


def judge(browser: Browser, url: str, *, width: int = 1280, dark: bool = False) -> list[str]:
    """Return everything that is wrong with the page at `url`."""
    with open_page(browser, url, width=width, dark=dark) as (page, problems):
        return [*page.evaluate(JUDGE), *problems]


def judge_both(page: Page, problems: list[str]) -> list[str]:
    """Return everything that is wrong with an open page, in light and then in dark mode."""
    found = [*page.evaluate(JUDGE)]
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("() => document.documentElement.dataset.theme === 'dark'")
    return [*found, *page.evaluate(JUDGE), *problems]


def judge_at_each_width(page: Page, problems: list[str]) -> list[str]:
    """Everything that is wrong with an open page at its width and then on a telephone, both in light and in dark."""
    found = judge_both(page, [])
    page.emulate_media(color_scheme="light")
    page.wait_for_function("() => document.documentElement.dataset.theme === 'light'")
    page.set_viewport_size({"width": 390, "height": 900})
    return [*found, *(f"at 390 px: {problem}" for problem in judge_both(page, problems))]
