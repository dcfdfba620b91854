"""Figures of the chapter on a language model: drawn from small tables, with labels and the numbers of the table."""

import numpy as np
import pandas as pd

from drawn import centres, finished, legend, style_of_the_book  # noqa: F401 - a fixture for every test here
from rmtllmf_lib.chapters.language_model import figures


def test_tasks_are_means_over_seeds() -> None:
    rows = pd.DataFrame(
        [(seed, name, 2 + place, 0.5, 0.6, 0.8 + 0.1 * seed) for seed in (0, 1) for place, name in enumerate("ab")],
        columns=["seed", "task", "classes", "zero_shot", "prototype", "fine_tuned"],
    )
    ax = figures.tasks(rows)
    finished(ax)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a (2)", "b (3)"]
    assert legend(ax) == ["zero-shot, by class names", "base with prototypes", "fine-tuned"]
    np.testing.assert_allclose([line.get_xdata()[0] for line in ax.get_lines()], [50, 60, 85])


def test_links_without_a_memory() -> None:
    rows = pd.DataFrame(
        [("clean", "unprotected", "chosen", 0.9, 0.01), ("SR", "unprotected", "chosen", 0.7, 0.02),
         ("SR", "unprotected", "given", 0.3, 0.02), ("SR", "coded-tsv", "chosen", 0.96, 0.01),
         ("no link", "base", "given", 0.7, None), ("SU", "unprotected", "chosen", 0.5, 0.01)],
        columns=["scenario", "protection", "lam_rule", "mean", "half_width"],
    )  # fmt: skip
    ax = figures.links(rows, {"no link": "none", "clean": "no noise", "SR": "SR"})
    finished(ax)
    np.testing.assert_allclose(centres(ax, "plain sum, $\\lambda$ chosen"), [[0.9, 1.9], [90, 70]])
    np.testing.assert_allclose(centres(ax, "plain sum, published $\\lambda$")[1], [30])
    np.testing.assert_allclose(centres(ax, "the answer")[1], [96])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["none", "no noise", "SR"]


def test_drawn_tasks() -> None:
    table = pd.DataFrame({"task": ["x", "y"], "classes": [2, 4], "base": [0.6, 0.5], "merged": [0.7, 0.6]})
    ax = figures.drawn(table, {"base": "base", "merged": "eight tasks merged"})
    finished(ax)
    assert legend(ax) == ["base", "eight tasks merged", "guessing"]
    np.testing.assert_allclose(ax.get_lines()[1].get_xdata(), [70, 60])
    np.testing.assert_allclose(ax.get_lines()[2].get_xdata(), [50, 25])
