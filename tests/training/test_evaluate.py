"""Accuracy on flat weights, and every combination of tasks."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.functional import to_pil_image

import rmtllmf_lib.training.evaluate as module
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import Backbone, vision_tower
from rmtllmf_lib.model.fusion import fuse
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.tasks.base import Split, Task
from rmtllmf_lib.tasks.images import LazyImages
from rmtllmf_lib.training.evaluate import (
    accuracy,
    evaluate_combinations,
    normalized_accuracy,
    predictions,
    prepare,
    task_combinations,
)
from rmtllmf_lib.training.heads import Head, build_head
from rmtllmf_lib.training.loading import normalize
from small import CLASSES, small_backbone, small_head, small_split, small_task, small_tau


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return small_backbone()


@pytest.fixture(scope="module")
def weights(backbone: Backbone) -> Weights:
    return backbone.weights + small_tau(backbone.weights, 1)


def slow_logits(backbone: Backbone, weights: Weights, split: Split, head: Head) -> torch.Tensor:
    """The definition: load the module, encode everything at once."""
    assert isinstance(split.images, torch.Tensor)
    with torch.no_grad():
        features = vision_tower(backbone, weights)(normalize(split.images, backbone))
    return head.logit_scale * torch.nn.functional.normalize(features, dim=-1) @ head.weight.T


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("keep", [False, True])
def test_logits_equal_those_of_the_module(quick_gelu: bool, frozen: bool, keep: bool) -> None:
    backbone = small_backbone(quick_gelu=quick_gelu)
    tau = small_tau(backbone.weights, 1)
    weights = backbone.weights + (tau.without("embeddings") if frozen else tau)
    split, head = small_split(23), small_head()
    expected = slow_logits(backbone, weights, split, head)
    prepared = prepare(backbone, split, batch_size=10, keep=keep)
    assert bool(prepared.tokens) == keep
    torch.testing.assert_close(prepared.logits(weights, head), expected, rtol=0, atol=1e-5 * head.logit_scale)
    assert torch.equal(predictions(backbone, weights, prepared, head), expected.argmax(1))
    assert torch.equal(predictions(backbone, weights, split, head, batch_size=7), expected.argmax(1))


def test_accuracy_counts(backbone: Backbone, weights: Weights) -> None:
    split, head = small_split(24), small_head()
    expected = slow_logits(backbone, weights, split, head).argmax(1)
    assert accuracy(backbone, weights, Split(split.images, expected), head) == 1
    wrong = expected.clone()
    wrong[:6] = (wrong[:6] + 1) % 5
    assert accuracy(backbone, weights, Split(split.images, wrong), head) == 0.75
    assert accuracy(backbone, weights, prepare(backbone, Split(split.images, wrong)), head) == 0.75


def test_a_split_beyond_the_cache_size_is_not_cached(
    backbone: Backbone, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, head = small_split(20), small_head()
    kept = prepare(backbone, split, batch_size=8)
    monkeypatch.setattr(module, "CACHE_BYTES", 1000)
    streamed = prepare(backbone, split, batch_size=8)
    assert kept.patches and kept.tokens and not streamed.patches and not streamed.tokens
    assert torch.equal(kept.logits(weights, head), streamed.logits(weights, head))


def test_lazy_images_are_decoded_once(backbone: Backbone, weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    split, head, decoded = small_split(20), small_head(), []

    def decode(index: int) -> Image.Image:
        decoded.append(index)
        return to_pil_image(split.images[index])

    lazy = Split(LazyImages(range(20), decode), split.labels)
    prepared = prepare(backbone, lazy, batch_size=8)
    expected = prepare(backbone, split, batch_size=8).logits(weights, head)
    assert torch.equal(prepared.logits(weights, head), expected)
    assert torch.equal(prepared.logits(backbone.weights, head), prepared.logits(backbone.weights, head))
    assert sorted(decoded) == [*range(20)]
    monkeypatch.setattr(module, "CACHE_BYTES", 1000)
    streamed = prepare(backbone, lazy, batch_size=8)
    assert torch.equal(streamed.logits(weights, head), expected)


def test_limit_takes_the_same_images_of_every_class(backbone: Backbone) -> None:
    split = small_split(100)
    order = torch.argsort(split.labels, stable=True)  # a folder of images lists one class after the other
    sorted_split = split.subset(order)
    labels = prepare(backbone, sorted_split, limit=20).split.labels
    assert torch.bincount(labels).tolist() == [4] * 5
    again = prepare(backbone, sorted_split, limit=20)
    assert torch.equal(again.split.images, prepare(backbone, sorted_split, limit=20).split.images)
    assert len(prepare(backbone, split, limit=1000).split) == 100


def test_a_destroyed_model_gets_no_credit(backbone: Backbone) -> None:
    values = backbone.weights.values.clone()
    values[:] = 3e38
    split = Split(small_split(5).images, torch.zeros(5, dtype=torch.int64))
    destroyed = Weights(backbone.weights.layout, values)
    assert predictions(backbone, destroyed, split, small_head()).tolist() == [-1] * 5
    assert accuracy(backbone, destroyed, split, small_head()) == 0


def test_bad_input_is_named(backbone: Backbone, weights: Weights) -> None:
    split, head = small_split(6), small_head()
    with pytest.raises(InputError, match="split is empty"):
        accuracy(backbone, weights, split.subset([]), head)
    with pytest.raises(InputError, match="0 to 4 and the head has 3 classes"):
        accuracy(backbone, weights, split, small_head(classes=CLASSES[:3]))
    with pytest.raises(InputError, match="from -1 to"):
        accuracy(backbone, weights, Split(split.images, split.labels - 1), head)
    with pytest.raises(InputError, match="the layout of the weights"):
        accuracy(backbone, small_backbone(layers=2).weights, split, head)
    with pytest.raises(InputError, match="32 columns .* 64 features"):
        accuracy(backbone, weights, split, small_head(dimension=32))
    with pytest.raises(InputError, match="batch_size is 0"):
        accuracy(backbone, weights, split, head, batch_size=0)
    with pytest.raises(InputError, match="limit is 0"):
        prepare(backbone, split, limit=0)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device is 'cuda'"):
            accuracy(backbone, weights, split, head, device="cuda")


@given(st.floats(0, 1), st.floats(1e-3, 1))
def test_normalized_accuracy_is_a_ratio(accuracy: float, reference: float) -> None:
    assert normalized_accuracy(accuracy, reference) == accuracy / reference
    np.testing.assert_array_equal(normalized_accuracy([accuracy, 0], [reference, 1]), [accuracy / reference, 0])


@pytest.mark.parametrize("reference", [0, -0.5, math.nan, [0.5, 0]])
def test_a_reference_is_positive(reference: float | list[float]) -> None:
    with pytest.raises(InputError, match="reference accuracy is"):
        normalized_accuracy(0.5, reference)


def test_combinations_are_all_and_in_order() -> None:
    assert task_combinations("abc") == [("a", "b"), ("a", "c"), ("b", "c"), ("a", "b", "c")]
    eight = task_combinations("abcdefgh")
    assert len(eight) == len(set(eight)) == 247
    assert task_combinations("abc", [1]) == [("a",), ("b",), ("c",)]
    for names, sizes in (("aa", None), ("abc", [4]), ("abc", [0]), ("", None)):
        with pytest.raises(InputError, match="expected|give each task once"):
            task_combinations(names, sizes)


@pytest.fixture(scope="module")
def three(backbone: Backbone) -> tuple[dict[str, TaskVector], dict[str, Task], dict[str, Head]]:
    names = ("one", "two", "three")
    taus = {name: small_tau(backbone.weights, i, 0.04, task=name) for i, name in enumerate(names)}
    tasks = {name: small_task(name, i) for i, name in enumerate(names)}
    heads = {name: build_head(backbone, tasks[name], "prototype") for name in names}
    return taus, tasks, heads


def test_the_table_of_all_combinations(
    backbone: Backbone, three: tuple[dict[str, TaskVector], dict[str, Task], dict[str, Head]]
) -> None:
    taus, tasks, heads = three
    table = evaluate_combinations(backbone, taus, tasks, heads, lambda n: 1 / n, limit=30)
    assert [*table.columns] == ["combination", "n_tasks", "task", "lam", "accuracy", "reference", "normalized"]
    assert [*table["combination"].unique()] == ["one+two", "one+three", "two+three", "one+two+three"]
    assert [*table["n_tasks"]] == [2] * 6 + [3] * 3
    assert [*table["lam"]] == [0.5] * 6 + [1 / 3] * 3
    for row in table.itertuples():
        fused = fuse(backbone.weights, [taus[name] for name in row.combination.split("+")], row.lam)
        images = prepare(backbone, tasks[row.task].test, limit=30)
        assert row.accuracy == accuracy(backbone, fused, images, heads[row.task])
        assert row.reference == accuracy(backbone, backbone.weights + taus[row.task], images, heads[row.task])
        assert row.normalized == row.accuracy / row.reference
    assert table["accuracy"].nunique() > 2

    everywhere = evaluate_combinations(backbone, taus, tasks, heads, lambda n: 1 / n, limit=30, all_tasks=True)
    assert len(everywhere) == 4 * 3
    members = everywhere[everywhere["member"]].drop(columns="member").reset_index(drop=True)
    pd.testing.assert_frame_equal(members, table)


def test_the_table_does_not_depend_on_the_threads(
    backbone: Backbone, three: tuple[dict[str, TaskVector], dict[str, Task], dict[str, Head]]
) -> None:
    taus, tasks, heads = three
    tables = [
        evaluate_combinations(backbone, taus, tasks, heads, lambda n: 0.7, split="validation", threads=threads)
        for threads in (1, 2, 5)
    ]
    pd.testing.assert_frame_equal(tables[0], tables[1], check_exact=True)
    pd.testing.assert_frame_equal(tables[0], tables[2], check_exact=True)


def test_the_number_of_torch_threads_is_restored(
    backbone: Backbone, three: tuple[dict[str, TaskVector], dict[str, Task], dict[str, Head]]
) -> None:
    taus, tasks, heads = three
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        evaluate_combinations(backbone, taus, tasks, heads, lambda n: 0.7, limit=5, sizes=[2])
        with ThreadPoolExecutor(1) as new:
            assert torch.get_num_threads() == new.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(before)


def test_bad_combinations_are_named(
    backbone: Backbone, three: tuple[dict[str, TaskVector], dict[str, Task], dict[str, Head]]
) -> None:
    taus, tasks, heads = three
    with pytest.raises(InputError, match="no tasks for two"):
        evaluate_combinations(backbone, taus, {k: tasks[k] for k in ("one", "three")}, heads, lambda n: 0.5)
    with pytest.raises(InputError, match="task 'one'"):
        other = replace(heads["one"], class_names=CLASSES[::-1])
        evaluate_combinations(backbone, taus, tasks, {**heads, "one": other}, lambda n: 0.5)
    with pytest.raises(InputError, match="split is 'tests'"):
        evaluate_combinations(backbone, taus, tasks, heads, lambda n: 0.5, split="tests")
    with pytest.raises(InputError, match="threads is 0"):
        evaluate_combinations(backbone, taus, tasks, heads, lambda n: 0.5, threads=0)
    with pytest.raises(InputError, match="another base"):
        stranger = small_tau(small_backbone(1).weights, 0)
        evaluate_combinations(backbone, {**taus, "one": stranger}, tasks, heads, lambda n: 0.5, threads=2)
    with pytest.raises(InputError, match="models of three .*expected"):
        hopeless = replace(heads["three"], weight=torch.zeros_like(heads["three"].weight))
        task = replace(tasks["three"], test=replace(tasks["three"].test, labels=torch.full((60,), 3)))
        evaluate_combinations(backbone, taus, {**tasks, "three": task}, {**heads, "three": hopeless}, lambda n: 0.5)
    with pytest.raises(InputError, match="lam is nan"):
        evaluate_combinations(backbone, taus, tasks, heads, lambda n: math.nan)
