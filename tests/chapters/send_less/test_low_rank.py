"""Figures and numbers of low-rank training and of rounds: drawn from a small table, with the numbers of the table."""

import numpy as np
import pandas as pd
import pytest

from drawn import centres, finished, legend, style_of_the_book  # noqa: F401 - a fixture for every test here
from rmtllmf_lib.chapters.send_less import figures, low_rank
from rmtllmf_lib.training.finetune import Recipe
from rmtllmf_lib.training.suite import Suite
from small import small_backbone, small_head, small_task

METHODS = {"full": 1000, "LoRA, all": 100, "L-LoRA, all": 60}


def stored() -> pd.DataFrame:
    one_shot = [
        (method, numbers, merger, "clean", 1, numbers // 2, 0.9 - 0.1 * k - 0.01 * j, 0.02)
        for k, (method, numbers) in enumerate(METHODS.items())
        for j, merger in enumerate(("specialists", "arithmetic", "tsv"))
    ]
    rounds = [
        ("FedAvg", 1000, "average", link, number, 500 * number, 0.7 + 0.08 * number - drop, 0.01)
        for link, drop in (("clean", 0.0), ("SR", 0.05))
        for number in (1, 2, 3)
    ]
    return pd.DataFrame(one_shot + rounds, columns="method numbers merger link round uses mean half_width".split())


def test_low_rank_has_a_row_for_each_method() -> None:
    ax = figures.low_rank(stored())
    finished(ax)
    assert legend(ax) == ["own specialists", "plain sum", "TSV-Merge"]
    assert [tick.get_text().split("\n") for tick in ax.get_yticklabels()] == [
        [method, f"{numbers:,} numbers"] for method, numbers in METHODS.items()
    ]
    np.testing.assert_allclose(centres(ax, "plain sum"), [[89, 79, 69], [0, 1, 2]])
    np.testing.assert_allclose(centres(ax, "own specialists")[0], [90, 80, 70])


def test_rounds_against_uses() -> None:
    ax = figures.rounds(stored())
    finished(ax)
    assert ax.get_xscale() == "log" and len(legend(ax)) == 5
    np.testing.assert_allclose(centres(ax, "FedAvg, exact uploads"), [[500, 1000, 1500], [78, 86, 94]])
    np.testing.assert_allclose(centres(ax, "FedAvg, errors of SR")[1], [73, 81, 89])
    np.testing.assert_allclose(centres(ax, "whole vectors, TSV-Merge"), [[500], [88]])
    np.testing.assert_allclose(centres(ax, "LoRA, L-LoRA, plain sum"), [[50, 30], [79, 69]])


def test_the_first_round_above_a_level() -> None:
    rows = stored()
    assert [low_rank.first_round_above(rows, level) for level in (0.5, 0.8, 0.9, 0.95)] == [1, 2, 3, 0]
    assert low_rank.first_round_above(rows, 0.8, "SR") == 2


@pytest.mark.usefixtures("one_thread")
def test_the_numbers_of_linear_users_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = small_backbone(layers=2)
    tasks = {name: small_task(name, seed) for seed, name in enumerate("ab")}
    suite = Suite(backbone, tasks, {name: small_head(seed) for seed, name in enumerate("ab")}, {})
    recipe = Recipe(steps=3, batch_size=8, lr=1e-2)
    monkeypatch.setattr(low_rank, "recipe_for", lambda *_, **__: recipe)
    found = low_rank.linear_users(suite, ("a", "b"), steps=3, lr=1e-2)
    assert found["L-LoRA"] < 1e-6 < 0.01 < found["LoRA"]
