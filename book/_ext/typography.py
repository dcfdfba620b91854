"""Sphinx extension: a number and its unit stay on one line."""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:%|dB)(?!\w))")
NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"


def keep_units(app: Sphinx, doctree: nodes.document) -> None:
    """Put no-break spaces before units, in prose and captions; code and formulas stay as they are."""
    for text in [*doctree.findall(nodes.Text)]:
        if not isinstance(text.parent, (nodes.FixedTextElement, nodes.literal, nodes.math, nodes.raw)):
            kept = BEFORE_UNIT.sub(NO_BREAK_SPACE, text)
            if kept != text:
                text.parent.replace(text, nodes.Text(kept))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the handler."""
    app.connect("doctree-read", keep_units)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
