"""Sphinx extension: a number and its unit stay on one line, and so do the rows of printed tables."""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:%|dB)(?!\w))")
ALIGNED = re.compile(r"\S {2,}\S.*\n.*\S {2,}\S")  # two lines that follow one another have columns
NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"


def keep_units(app: Sphinx, doctree: nodes.document) -> None:
    """Put no-break spaces before units, in prose and captions; code and formulas stay as they are."""
    for text in [*doctree.findall(nodes.Text)]:
        if not isinstance(text.parent, (nodes.FixedTextElement, nodes.literal, nodes.math, nodes.raw)):
            kept = BEFORE_UNIT.sub(NO_BREAK_SPACE, text)
            if kept != text:
                text.parent.replace(text, nodes.Text(kept))


def mark_tables(app: Sphinx, doctree: nodes.document) -> None:
    """Give printed output with a table in it the class `aligned`: its lines do not wrap."""
    for block in doctree.findall(nodes.literal_block):
        if "stream" in block["classes"] and ALIGNED.search(block.astext()):
            block["classes"].append("aligned")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the handlers."""
    app.connect("doctree-read", keep_units)
    app.connect("doctree-read", mark_tables)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
