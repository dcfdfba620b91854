"""The cost against antennas and users: the benchmark's table, and its figure."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from benchmarks import bench_adversary as bench
from benchmarks import bench_mergers
from benchmarks.cost_figure import SOLVER, cost, merging, save
from drawn import finished, legend, style_of_the_book  # noqa: F401 - a fixture for every test here


def test_figure_has_a_curve_for_each_method_and_a_panel_for_each_sweep() -> None:
    sizes = {"antennas": [2, 4, 8], "users": [1, 2]}
    methods = {"antennas": ["rates", "sum-rate", f"sum-rate{SOLVER}"], "users": ["rates", "sum-rate"]}
    other = {"antennas": ("users", 8), "users": ("antennas", 64)}
    table = pd.DataFrame(
        [
            {"sweep": sweep, sweep: size, other[sweep][0]: other[sweep][1], "method": method, "seconds": size * 10.0**i}
            for sweep in sizes
            for i, method in enumerate(methods[sweep])
            for size in sizes[sweep]
        ]
    )
    figure = finished(cost(table))
    for ax, sweep in zip(figure.axes, sizes, strict=True):
        assert ax.get_xlabel().startswith(sweep) and str(other[sweep][1]) in ax.get_xlabel()
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        assert [label.get_text() for label in ax.get_xticklabels()] == [str(size) for size in sizes[sweep]]
        for i, line in enumerate(ax.get_lines()):
            np.testing.assert_array_equal(line.get_xdata(), sizes[sweep])
            np.testing.assert_allclose(line.get_ydata(), np.array(sizes[sweep]) * 10.0**i)
    assert figure.axes[0].get_ylabel() == "time for one drop (s)"
    assert legend(figure.legends[0]) == ["SIC rates, given noise", "sum rate (P1)", "sum rate (P1), convex solver"]


def test_benchmark_measures_every_size_and_certifies_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "SWEEPS", [("antennas", 2, 8), ("antennas", 4, 8), ("users", 4, 8)])
    table = pd.DataFrame(bench.cost())
    assert len(table) == 3 * 4 and (table["seconds"] > 0).all()
    rows = bench.certificates(table)
    assert [row.name.split(",")[0] for row in rows] == list(bench.KINDS)
    assert all(row.verdict == "pass" for row in rows)
    save(table, cost, "cost", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"cost.csv", "cost.png"}
    assert plt.get_fignums() == []


def test_mergers_are_timed_over_vectors_and_width(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sweeps = [("vectors", 2, 24), ("vectors", 4, 24), ("width", 3, 12), ("width", 3, 24)]
    monkeypatch.setattr(bench_mergers, "SWEEPS", sweeps)
    table = pd.DataFrame(bench_mergers.costs())
    assert len(table) == len(sweeps) * len(bench_mergers.COMPARED) and (table["seconds"] > 0).all()
    save(table, merging, "mergers", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"mergers.csv", "mergers.png"}
    figure = finished(merging(table))
    for ax, sweep, sizes, other in zip(figure.axes, ("vectors", "width"), ([2, 4], [12, 24]), ("24", "3"), strict=True):
        assert ax.get_xlabel().endswith(other) and [each.get_text() for each in ax.get_xticklabels()] == [
            *map(str, sizes)
        ]
        for name, line in zip(bench_mergers.COMPARED, ax.get_lines(), strict=True):
            rows = table[(table["sweep"] == sweep) & (table["merger"] == name)]
            np.testing.assert_array_equal(line.get_xdata(), sizes)
            np.testing.assert_allclose(line.get_ydata(), rows["seconds"])
    assert len(legend(figure.legends[0])) == len(bench_mergers.COMPARED)


def test_loop_that_is_written_out_finds_what_the_library_finds() -> None:
    uplink = bench.link(6, 4, 5)
    found, plain = bench.whole(uplink), [bench.written_out(uplink[drop]) for drop in range(5)]
    for ours, theirs in zip(found, zip(*plain, strict=True), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
