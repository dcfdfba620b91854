"""Every combination of tasks, and lambda chosen on validation images."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.arithmetic import fuse, lambda_n
from rmtllmf_lib.tasks.base import Split
from rmtllmf_lib.training.combinations import (
    choose_lambdas,
    evaluate_combinations,
    normalized_accuracy,
    sample_combinations,
    task_combinations,
)
from rmtllmf_lib.training.evaluate import accuracy, prepare
from rmtllmf_lib.training.heads import build_head
from rmtllmf_lib.training.suite import Suite
from small import CLASSES, small_backbone, small_task, small_tau

NAMES = ("one", "two", "three")
GRID = (0.0, 0.4, 0.8)


@given(st.floats(0, 1), st.floats(1e-3, 1))
def test_normalized_accuracy_is_a_ratio(accuracy: float, reference: float) -> None:
    assert normalized_accuracy(accuracy, reference) == accuracy / reference
    np.testing.assert_array_equal(normalized_accuracy([accuracy, 0], [reference, 1]), [accuracy / reference, 0])


@pytest.mark.parametrize("reference", [0, -0.5, math.nan, [0.5, 0]])
def test_a_reference_is_positive(reference: float | list[float]) -> None:
    with pytest.raises(InputError, match="reference accuracy is"):
        normalized_accuracy(0.5, reference)


def test_combinations_are_all_and_in_order() -> None:
    assert task_combinations([*"abc"]) == [("a", "b"), ("a", "c"), ("b", "c"), ("a", "b", "c")]
    eight = task_combinations([*"abcdefgh"])
    assert len(eight) == len(set(eight)) == 247
    assert task_combinations([*"abc"], [1]) == [("a",), ("b",), ("c",)]
    for names, sizes in (("aa", None), ("abc", [4]), ("abc", [0]), ("abc", []), ("", None)):
        with pytest.raises(InputError, match="expected|give each task once"):
            task_combinations([*names], sizes)
    with pytest.raises(InputError, match="names is 'abc'"):
        task_combinations("abc")


@pytest.fixture(scope="module")
def suite() -> Suite:
    backbone = small_backbone()
    taus = {name: small_tau(backbone.weights, i, 0.04, task=name) for i, name in enumerate(NAMES)}
    tasks = {name: small_task(name, i) for i, name in enumerate(NAMES)}
    return Suite(backbone, tasks, {name: build_head(backbone, tasks[name], "prototype") for name in NAMES}, taus)


def test_the_table_of_all_combinations(suite: Suite) -> None:
    table = evaluate_combinations(suite, lambda n: 1 / n, limit=30)
    backbone = suite.backbone
    assert [*table.columns] == ["combination", "n_tasks", "task", "lam", "accuracy", "reference", "normalized"]
    assert [*table["combination"].unique()] == ["one+two", "one+three", "two+three", "one+two+three"]
    assert [*table["n_tasks"]] == [2] * 6 + [3] * 3
    assert [*table["lam"]] == [0.5] * 6 + [1 / 3] * 3
    for row in table.itertuples():
        fused = fuse(backbone.weights, [suite.taus[name] for name in row.combination.split("+")], row.lam)
        images = prepare(backbone, suite.tasks[row.task].test, limit=30)
        assert row.accuracy == accuracy(backbone, fused, images, suite.heads[row.task])
        assert row.reference == accuracy(
            backbone, backbone.weights + suite.taus[row.task], images, suite.heads[row.task]
        )
        assert row.normalized == row.accuracy / row.reference
    assert table["accuracy"].nunique() > 2

    everywhere = evaluate_combinations(suite, lambda n: 1 / n, limit=30, all_tasks=True)
    assert len(everywhere) == 4 * 3
    members = everywhere[everywhere["member"]].drop(columns="member").reset_index(drop=True)
    pd.testing.assert_frame_equal(members, table)


def test_the_table_does_not_depend_on_the_threads(suite: Suite) -> None:
    tables = [evaluate_combinations(suite, lambda n: 0.7, split="validation", threads=threads) for threads in (1, 2, 5)]
    pd.testing.assert_frame_equal(tables[0], tables[1], check_exact=True)
    pd.testing.assert_frame_equal(tables[0], tables[2], check_exact=True)


def test_the_number_of_torch_threads_is_restored(suite: Suite) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        evaluate_combinations(suite, lambda n: 0.7, limit=5, sizes=[2])
        with ThreadPoolExecutor(1) as new:
            assert torch.get_num_threads() == new.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(before)


def test_bad_combinations_are_named(suite: Suite) -> None:
    tasks, heads, taus = suite.tasks, suite.heads, suite.taus
    with pytest.raises(InputError, match="no tasks for two"):
        evaluate_combinations(replace(suite, tasks={k: tasks[k] for k in ("one", "three")}), lambda n: 0.5)
    with pytest.raises(InputError, match="task 'one'"):
        other = replace(heads["one"], class_names=CLASSES[::-1])
        evaluate_combinations(replace(suite, heads={**heads, "one": other}), lambda n: 0.5)
    with pytest.raises(InputError, match="split is 'tests'"):
        evaluate_combinations(suite, lambda n: 0.5, split="tests")
    with pytest.raises(InputError, match="threads is 0"):
        evaluate_combinations(suite, lambda n: 0.5, threads=0)
    with pytest.raises(InputError, match="another base"):
        stranger = small_tau(small_backbone(1).weights, 0)
        evaluate_combinations(replace(suite, taus={**taus, "one": stranger}), lambda n: 0.5, threads=2)
    with pytest.raises(InputError, match="models of three .*expected"):
        hopeless = replace(heads["three"], weight=torch.zeros_like(heads["three"].weight))
        task = replace(tasks["three"], test=replace(tasks["three"].test, labels=torch.full((60,), 3)))
        useless = replace(suite, tasks={**tasks, "three": task}, heads={**heads, "three": hopeless})
        evaluate_combinations(useless, lambda n: 0.5)
    with pytest.raises(InputError, match="1 task vector: expected two or more"):
        evaluate_combinations(replace(suite, taus={"one": taus["one"]}), lambda n: 0.5)
    with pytest.raises(InputError, match="lam(bda)? is nan"):
        evaluate_combinations(suite, lambda n: math.nan)


def poisoned(suite: Suite, part: str) -> Suite:
    """The labels of one part turned by one class, its images made noise."""

    def poison(split: Split, classes: int) -> Split:
        assert isinstance(split.inputs, torch.Tensor)
        noise = torch.randint(256, split.inputs.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        return Split(noise, (split.labels + 1) % classes)

    tasks = {
        name: replace(task, **{part: poison(getattr(task, part), len(task.class_names))})
        for name, task in suite.tasks.items()
    }
    return replace(suite, tasks=tasks)


def test_lambdas_are_chosen_on_validation_images(suite: Suite) -> None:
    chosen, table = choose_lambdas(suite, GRID)
    for part in ("test", "train"):
        same, same_table = choose_lambdas(poisoned(suite, part), GRID)
        assert same == chosen
        pd.testing.assert_frame_equal(same_table, table)
    _, other = choose_lambdas(poisoned(suite, "validation"), GRID)
    assert not np.allclose(other["score"], table["score"])


def test_the_best_lambda_of_every_n(suite: Suite) -> None:
    chosen, table = choose_lambdas(suite, GRID[::-1])  # the order of the grid does not matter
    assert list(table.columns) == ["n_tasks", "lam", "score"] and len(table) == 2 * len(GRID)
    assert set(chosen) == {2, 3}
    for n, group in table.groupby("n_tasks"):
        assert group["lam"].tolist() == [*GRID]
        assert chosen[n] == group["lam"].to_numpy()[np.argmax(group["score"])]  # the first of equals
    rows = evaluate_combinations(suite, partial(lambda_n, rule="constant", value=0.4), split="validation")
    means = rows.groupby("n_tasks")["normalized"].mean()
    np.testing.assert_allclose(table.loc[table["lam"] == 0.4, "score"], means)
    limited, _ = choose_lambdas(suite, GRID, limit=5, threads=2)
    assert set(limited) == {2, 3}


def test_a_sample_of_combinations_is_scored_as_among_all_of_them(suite: Suite) -> None:
    everything = evaluate_combinations(suite, partial(lambda_n, rule="constant", value=0.4), split="validation")
    names = ["+".join(c) for c in sample_combinations([*suite.taus], per_size=1)]
    assert len(names) == 2
    sampled = everything[everything["combination"].isin(names)].reset_index(drop=True)
    rows = evaluate_combinations(
        suite, partial(lambda_n, rule="constant", value=0.4), split="validation", per_size=1, threads=2
    )
    pd.testing.assert_frame_equal(rows, sampled)
    _, table = choose_lambdas(suite, GRID, per_size=1)
    np.testing.assert_allclose(table.loc[table["lam"] == 0.4, "score"], sampled.groupby("n_tasks")["normalized"].mean())


def test_no_lambda_without_a_grid_or_a_second_task(suite: Suite) -> None:
    with pytest.raises(InputError, match="the grid holds 0 numbers and the suite 3 tasks"):
        choose_lambdas(suite, ())
    with pytest.raises(InputError, match="the grid holds 3 numbers and the suite 1 tasks"):
        choose_lambdas(replace(suite, taus={"one": suite.taus["one"]}), GRID)


@pytest.mark.parametrize("per_size", [1, 2, 3, 5, 8, 30])
def test_sampled_combinations_are_balanced(per_size: int) -> None:
    names = [f"task{k}" for k in range(8)]
    chosen = sample_combinations(names, None, per_size)
    assert chosen == sample_combinations(names, None, per_size) and len(set(chosen)) == len(chosen)
    for size in range(2, 9):
        same = [c for c in chosen if len(c) == size]
        everything = list(combinations(names, size))
        assert len(same) == min(per_size, len(everything)) and set(same) <= set(everything)
        counts = [sum(name in c for c in same) for name in names]
        assert max(counts) - min(counts) <= 2
    assert len(sample_combinations(names)) == 247


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("sizes", "23"), ("sizes", 2), ("sizes", [2, True]), ("sizes", [2.0]), ("sizes", [0]), ("sizes", [4]),
        ("per_size", -1), ("per_size", 0), ("per_size", 1.5), ("names", "abc"),
    ],
)  # fmt: skip
def test_combinations_of_bad_arguments(name: str, wrong: Any) -> None:
    with pytest.raises(InputError) as caught:
        sample_combinations(**{"names": ("a", "b", "c"), name: wrong})
    value = repr(wrong[-1] if isinstance(wrong, list) else wrong)
    assert name in str(caught.value) and value in str(caught.value)
