"""Every figure of the book, one function each: a tidy table in, matplotlib axes out; one module for one chapter.

This module holds what the chapters share, and imports neither torch nor any other part of the library.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import seaborn as sns

# Okabe and Ito's palette: told apart by colour-blind readers and in grey.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#7F7F7F"


def use_style() -> None:
    """The book's look; call once at the top of a chapter."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.95)
    plt.rcParams.update({"figure.dpi": 110, "savefig.bbox": "tight", "figure.constrained_layout.use": True})


def show() -> None:
    """Show the open figures; the last line of a cell with a figure."""
    plt.show()
