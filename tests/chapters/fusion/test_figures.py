"""Figures: drawn from small tables without a warning, with labels and the numbers of the table."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from PIL import Image
from scipy import stats

from drawn import finished, legend, line, names, style_of_the_book  # noqa: F401 - a fixture for every test here
from rmtllmf_lib.chapters.fusion import figures as fusion
from rmtllmf_lib.published import normalized_accuracy_vit_b16
from rmtllmf_lib.tasks.images import LazyImages
from small import CLASSES, small_task


def assert_labelled(ax: Axes) -> None:
    assert ax.get_xlabel() and ax.get_ylabel()


def test_gallery_shows_one_image_of_each_class() -> None:
    tasks = {"a": small_task("a"), "b": small_task("b", seed=1)}
    figure = finished(fusion.gallery(tasks, per_task=7))
    rows = np.reshape(np.array(figure.axes, object), (2, 7))
    for row, task in zip(rows, tasks.values(), strict=True):
        assert [ax.get_title() for ax in row] == [*CLASSES, "", ""]
        assert task.title in [text.get_text() for text in row[0].texts]
        for label, ax in enumerate(row[:5]):
            first = int(torch.nonzero(task.test.labels == label)[0])
            shown = np.asarray(ax.images[0].get_array())
            assert np.array_equal(shown, task.test.inputs[first].permute(1, 2, 0))  # type: ignore[index]
        assert all(not ax.images for ax in row[5:])


def test_gallery_leaves_out_what_is_not_there() -> None:
    task = small_task()
    without = replace(task, test=task.test.subset(torch.flatten(torch.nonzero(task.test.labels != 2))))
    figure = finished(fusion.gallery({"a": without}, per_task=3))
    assert [bool(ax.images) for ax in figure.axes] == [True, True, False]


def test_gallery_of_images_that_are_decoded_on_demand() -> None:
    task = small_task()
    arrays = [image.permute(1, 2, 0).numpy() for image in task.test.inputs]  # type: ignore[union-attr]
    lazy = replace(task, test=replace(task.test, inputs=LazyImages(arrays, Image.fromarray)))
    figure = finished(fusion.gallery({"a": lazy}, per_task=2))
    assert np.array_equal(np.asarray(figure.axes[1].images[0].get_array()), arrays[1])


def test_single_tasks() -> None:
    table = pd.DataFrame(
        {"task": ["b", "a"], "classes": [10, 4], "images": [9, 9], "zero_shot": [0.5, 0.25], "fine_tuned": [0.9, 1.0]}
    )
    ax = fusion.single_tasks(table, {"a": "Apples", "b": "Boats"})
    finished(ax)
    assert ax.get_ylabel() == "test accuracy (%)"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["Boats", "Apples"]
    assert [bar.get_height() for bar in ax.patches] == [50, 25, 90, 100]
    assert set(legend(ax)) == {"zero-shot", "fine-tuned on this task", "chance"}
    chance = ax.collections[0].get_segments()  # type: ignore[attr-defined]
    assert [segment[0][1] for segment in chance] == [10, 25]


def test_cosine_heatmap() -> None:
    cosines = np.array([[1, 0.2, -0.1], [0.2, 1, 0.05], [-0.1, 0.05, 1]])
    ax = fusion.cosine_heatmap(cosines, ["one", "two", "three"])
    figure = finished(ax)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["one", "two", "three"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["one", "two", "three"]
    shown = sorted(text.get_text() for text in ax.texts if text.get_text())
    assert shown == sorted(["0.20", "0.20", "-0.10", "-0.10", "0.05", "0.05"])  # the diagonal is left out
    assert figure.axes[1].get_ylabel() == "cosine similarity"


def test_lambda_sweep() -> None:
    lams = [0.0, 0.5, 1.0]
    rows = [(n, lam, 0.9 - (lam - 1 / n) ** 2) for n in (2, 3) for lam in lams]
    table = pd.DataFrame(rows, columns=["n_tasks", "lam", "score"])
    ax = fusion.lambda_sweep(table, {3: 0.5, 2: 0.5})
    finished(ax)
    assert_labelled(ax)
    assert names(ax) == ["N = 3", "N = 2"]
    for n in (2, 3):
        x, y = line(ax, f"N = {n}")
        np.testing.assert_allclose(x, lams)
        np.testing.assert_allclose(y, 100 * table.loc[table["n_tasks"] == n, "score"])
    marks = [each.get_data() for each in ax.get_lines() if each.get_marker() == "o"]
    np.testing.assert_allclose([(x[0], y[0]) for x, y in marks], [(0.5, 90.0), (0.5, 100 * (0.9 - (1 / 6) ** 2))])


def test_accuracy_against_n() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"n_tasks": np.repeat([2, 3, 4], [6, 4, 1]), "normalized": rng.uniform(0.8, 1.0, 11)})
    before = table.copy()
    ax = fusion.accuracy_against_n(table, normalized_accuracy_vit_b16())
    finished(ax)
    assert_labelled(ax)
    x, y = line(ax, "embedded CLIP, mean")
    np.testing.assert_allclose(x, [2, 3, 4])
    np.testing.assert_allclose(y, 100 * table.groupby("n_tasks")["normalized"].mean())
    (published,) = [label for label in names(ax) if "published" in label]
    np.testing.assert_allclose(line(ax, published)[1][:2], [95.8, 91.5])
    assert sum(len(each.get_xdata()) == 11 for each in ax.get_lines()) == 1  # every combination is there
    pd.testing.assert_frame_equal(table, before)


def study_rows(protections: dict[str, list[str]], sizes: tuple[int, ...], seeds: int) -> pd.DataFrame:
    """Rows of a study: protections with their scenarios, three combinations of each size."""
    rng = np.random.default_rng(1)
    rows = [
        (scenario, protection, seed, n, f"{n}-{combination}", task, rng.uniform(0.2, 0.9))
        for protection, scenarios in protections.items()
        for scenario in scenarios
        for seed in range(seeds)
        for n in sizes
        for combination in range(3)
        for task in "ab"
    ]
    columns = ["scenario", "protection", "seed", "n_tasks", "combination", "task", "normalized"]
    return pd.DataFrame(rows, columns=columns)


@pytest.mark.parametrize("seeds", [1, 4])
def test_accuracy_under_noise(seeds: int) -> None:
    links = ["ideal", "SR"]
    table = study_rows({"unprotected": ["clean", *links], "base": ["no link"]}, (2, 3, 4), seeds)
    few = study_rows({"rmtllmf": links, "noise-aware": links, "control": ["no link"]}, (2, 4), seeds)
    figure = finished(fusion.accuracy_under_noise(table, few, links))
    assert [ax.get_title() for ax in figure.axes] == ["ideal, MSE 0.013", "SR, MSE 0.21"]
    assert figure.axes[0].get_ylabel() and all(ax.get_xlabel() for ax in figure.axes)
    assert legend(figure.legends[0]) == ["the paper, N = 8"]
    assert set(names(figure.axes[-1])) == {
        "no noise", "unprotected", "base, zero-shot", "R-MTLLMF", "noise-aware lambda, realigned", "base, realigned",
    }  # fmt: skip
    for ax, link in zip(figure.axes, links, strict=True):
        for label, scenario, protection in (
            ("no noise", "clean", "unprotected"), ("unprotected", link, "unprotected"),
            ("base, zero-shot", "no link", "base"),
        ):  # fmt: skip
            own = table[(table["scenario"] == scenario) & (table["protection"] == protection)]
            x, y = line(ax, label)
            np.testing.assert_allclose(x, [2, 3, 4])
            np.testing.assert_allclose(y, 100 * own.groupby("n_tasks")["normalized"].mean())
        assert len(ax.containers) == 3
        scenarios = {"rmtllmf": link, "noise-aware": link, "control": "no link"}
        for bars, (protection, scenario) in zip(ax.containers, scenarios.items(), strict=True):
            own = few[(few["scenario"] == scenario) & (few["protection"] == protection)]
            assert_errorbars(bars, own.groupby(["n_tasks", "seed"])["normalized"].mean().unstack())
        stars = [each.get_data() for each in ax.get_lines() if each.get_marker() == "*" and len(each.get_xdata())]
        expected = {"ideal": [36.3, 89.1], "SR": [5.0, 54.8]}[link]
        np.testing.assert_allclose([float(y[0]) for _, y in stars], expected)
    (band, *_) = figure.axes[0].collections
    single = table[table["scenario"] == "clean"].groupby(["n_tasks", "combination"])["normalized"].mean()
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((100 * single.min(), 100 * single.max()))


def test_accuracy_per_task() -> None:
    table = pd.DataFrame({"a": [0.5, 0.123], "b": [1.0, 0.0]}, index=["one", "other"])
    ax = fusion.accuracy_per_task(table, {"a": "Task A", "b": "Task B", "c": "unused"})
    finished(ax)
    assert [text.get_text() for text in ax.texts] == ["50", "100", "12", "0"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["Task A", "Task B"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["one", "other"]


def test_link_to_fusion() -> None:
    scenarios = {"link, ideal": (0.01, 0.02, 0.03), "link, SR": (0.1, 0.2, 0.6)}
    rows = [(label, curve, rng, 0.05) for rng, (label, curve) in enumerate((s, c) for c in "xy" for s in scenarios)]
    points = pd.DataFrame(rows, columns=["label", "curve", "mean", "half_width"])
    points["mean"] = 0.2 * points["mean"]
    points.loc[3, "half_width"] = np.nan  # one seed
    figure = finished(fusion.link_to_fusion(scenarios, points))
    left, right = figure.axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == [*scenarios]
    dots, mean = left.get_lines()[2:4]
    np.testing.assert_allclose(dots.get_xdata(), scenarios["link, SR"])
    np.testing.assert_allclose(mean.get_xdata(), 0.3)
    assert legend(figure.legends[0]) == ["x", "y"]
    for bars, curve in zip(right.containers, "xy", strict=True):
        own = points[points["curve"] == curve]
        np.testing.assert_allclose(np.asarray(bars[0].get_xdata(), float), 100 * own["mean"].to_numpy(float))
        assert np.round(np.asarray(bars[0].get_ydata(), float)).tolist() == [0, -1]


def assert_errorbars(bars: Any, values: pd.DataFrame) -> None:
    """Means in percent of `values` (mse, seed), and their 95 % intervals; one seed has no spread."""
    points, _, (intervals,) = bars
    np.testing.assert_allclose(np.asarray(points.get_ydata(), float), 100 * values.mean(axis=1))
    half = [np.ptp(segment[:, 1]) / 2 for segment in intervals.get_segments()]
    seeds = values.shape[1]
    expected = stats.sem(values, axis=1) * stats.t.ppf(0.975, seeds - 1) if seeds > 1 else 0.0
    np.testing.assert_allclose(half, 100 * np.broadcast_to(expected, len(half)), atol=1e-9)
