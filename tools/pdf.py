"""Print a built page as a PDF, formulas set, with the installed Chromium: `python tools/pdf.py PAGE.html OUT.pdf`."""

import os
import shutil
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LONG = 30 * 60 * 1000  # ms: a whole book has thousands of formulas


def print_page(page: Path, out: Path, browser: str) -> None:
    """Write `page` to `out` as A4, light, with the code folded as on the screen."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        try:
            opened = chromium.new_page(color_scheme="light")
            opened.set_default_timeout(LONG)
            opened.goto(page.resolve().as_uri(), wait_until="load")
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
