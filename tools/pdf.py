"""Print a built page as a PDF, formulas set, with the installed Chromium: `python tools/pdf.py PAGE.html OUT.pdf`."""

import os
import re
import shutil
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LONG = 30 * 60 * 1000  # ms: a whole book has thousands of formulas


LINK = re.compile(r'(<a\b[^>]*?)\shref="([^"]*)"')


def for_paper(text: str, name: str) -> str:
    """Return a page, `name` as its links have it, whose links lead to itself or to the web.

    The builder writes links within its single page as if they led to other pages, and those to files of the book would
    name folders of whoever built it.
    """

    def kept(match: re.Match[str]) -> str:
        start, target = match.groups()
        place = target.removeprefix(name) if target.startswith(f"{name}#") else target
        return f'{start} href="{place}"' if place.startswith(("#", "http://", "https://", "mailto:")) else start

    return LINK.sub(kept, text)


def at_root(page: Path) -> Path:
    """Write a copy of `page` beside the folder `_static`, and return its path.

    The single page lies in a folder, and what it loads (styles, drawings, formulas) is named from the folder above.
    """
    root = next((folder for folder in page.resolve().parents if (folder / "_static").is_dir()), None)
    if root is None:
        raise FileNotFoundError(f"no folder _static above {page}: build it with jupyter-book's builder singlehtml")
    copy = root / "print.html"
    name = page.resolve().relative_to(root).as_posix()
    copy.write_text(for_paper(page.read_text(encoding="utf-8"), name), encoding="utf-8")
    return copy


def print_page(page: Path, out: Path, browser: str) -> None:
    """Write `page` to `out` as A4, light, without the folded code."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        try:
            opened = chromium.new_page(color_scheme="light")
            opened.set_default_timeout(LONG)
            opened.goto(at_root(page).as_uri(), wait_until="load")
            opened.evaluate("() => window.MathJax && window.MathJax.startup && window.MathJax.startup.promise")
            margin = {"top": "18mm", "bottom": "18mm", "left": "16mm", "right": "16mm"}
            out.parent.mkdir(parents=True, exist_ok=True)
            opened.pdf(path=out, format="A4", margin=margin, print_background=True, outline=True, tagged=True)
        finally:
            chromium.close()


def main() -> int:
    """Print the page that the arguments name; return 1 without a browser."""
    if len(sys.argv) != 3:
        print("usage: python tools/pdf.py PAGE.html OUT.pdf", file=sys.stderr)
        return 2
    names = (os.environ.get("CHROME", ""), *NAMES)
    browser = next((path for name in names if name and (path := shutil.which(name))), None)
    if browser is None:
        print(f"no browser found: install Chromium or set CHROME (looked for {', '.join(NAMES)})", file=sys.stderr)
        return 1
    print_page(Path(sys.argv[1]), Path(sys.argv[2]), browser)
    print(f"The book: {Path(sys.argv[2]).resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
