"""Sphinx extension: pages that a browser opens from a folder, without a network and without an error on its console.

Two things of the theme get in the way of that.
Live code (thebe) is loaded twice by every page although it is switched off here, which ends in a JavaScript error; and
the icon fonts are preloaded as cross-origin requests, which browsers refuse for `file://` (the style sheet then loads
the same fonts without complaint).
"""

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

FONT_PRELOAD = re.compile(r'<link rel="preload" as="font"[^>]*>\s*')


def _is_thebe(asset: Any) -> bool:
    return "thebe" in str(getattr(asset, "filename", asset)) or "THEBE" in getattr(asset, "attributes", {}).get(
        "body", ""
    )


def drop_thebe(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Take thebe's scripts and style sheet off the page."""
    for key in ("script_files", "css_files"):
        if key in context:
            context[key] = [asset for asset in context[key] if not _is_thebe(asset)]


def drop_font_preloads(app: Sphinx, exception: Exception | None) -> None:
    """Strip the cross-origin font preloads from the written pages."""
    if exception is None and app.builder.format == "html":
        for page in Path(app.outdir).rglob("*.html"):
            text = page.read_text(encoding="utf-8")
            stripped = FONT_PRELOAD.sub("", text)
            if stripped != text:
                page.write_text(stripped, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the two handlers, late enough to see what the theme has added."""
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("build-finished", drop_font_preloads)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
