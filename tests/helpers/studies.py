"""A study of three small users, for the tests of studies."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from rmtllmf_lib.study.study import Study
from rmtllmf_lib.training.finetune import Recipe
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.scenario import CLEAN, Scenario
from small import small_backbone, small_head, small_task, small_tau

NAMES = ("a", "b", "c")
QUICK = Recipe(steps=2, batch_size=10, lr=1e-3, freeze=("embeddings",))
NOISY = Scenario("noisy", (0.02, 0.1, 0.05), "weight", "half")
STUDY = Study(
    (CLEAN, NOISY), ("unprotected", "rmtllmf", "noise-aware", "control", "base"), seeds=2, per_class=(1, 2),
    test_images=20, realignment=QUICK,
)  # fmt: skip

SHORT = replace(STUDY, seeds=1, sizes=(3,))


def make_suite() -> Suite:
    backbone = small_backbone(layers=2)
    tasks = {name: small_task(name, seed) for seed, name in enumerate(NAMES)}
    heads = {name: small_head(seed) for seed, name in enumerate(NAMES)}
    taus = {name: small_tau(backbone.weights, seed, task=name) for seed, name in enumerate(NAMES)}
    return Suite(backbone, tasks, heads, taus)


def require_same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """All but the wall time."""
    pd.testing.assert_frame_equal(one.drop(columns="seconds"), other.drop(columns="seconds"))


def short(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the table of `STUDY` that are those of `SHORT`."""
    return table[(table["seed"] == 0) & (table["n_tasks"] == 3)].reset_index(drop=True)
