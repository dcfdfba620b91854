"""Figures of the chapter on the physical layer: what is drawn are the numbers of the tables."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rmtllmf_lib.chapters.figure_data import figure_data
from rmtllmf_lib.chapters.physical_layer import figures, tables
from rmtllmf_lib.chapters.physical_layer.tables import GAIN, MATCHED, UNAWARE
from rmtllmf_lib.wireless.channel import draw_uplinks

CELLS = draw_uplinks(6, np.random.default_rng(0), num_users=3, num_rx_antennas=4)
KINDS = ("strongest-user", "sum-rate")


def test_snapshots_shows_the_means() -> None:
    table = tables.sense(CELLS, 9.0, KINDS, (1, 8), 1)
    drawn = figure_data(figures.snapshots(table))
    rows = drawn[(drawn["panel"] == "SR, strongest first") & (drawn["series"] == "sensed")]
    here = table[
        (table["kind"] == "sum-rate") & (table["order"] == "strongest-first") & (table["knowledge"] == "sensed")
    ]
    np.testing.assert_allclose(rows["y"], here.groupby("snapshots")["mse"].mean(), rtol=1e-4)
    assert drawn["panel"].nunique() == 4


def test_pilots_shows_both_ways_of_cancelling() -> None:
    table = tables.pilots(CELLS, {"thermal": CELLS.thermal_cov}, (4, 16), 0.5, 1, "weakest-first")
    drawn = figure_data(figures.pilots(table))
    for series, way in (("thermal", "estimated"), ("thermal, cancelled exactly", "exact")):
        rows = drawn[(drawn["panel"] == "mean MSE") & (drawn["series"] == series)]
        here = table[(table["cancelled"] == way) & (table["length"] > 0)]
        np.testing.assert_allclose(rows["y"], here.groupby("length")["mse"].mean(), rtol=1e-4)


def test_directions_has_a_panel_for_each_spread() -> None:
    table = tables.directions(
        5, 0, jnr_db=20.0, jammers=2, user_spread_deg=10.0, jammer_spreads_deg=(0.0, 5.0), errors_deg=(0.0, 1.0),
        snapshots=(8, 32), order="weakest-first",
    )  # fmt: skip
    figure = figures.directions(table)
    drawn = figure_data(figure)
    rows = drawn[drawn["series"] == "directions sensed"]
    here = table[table["protection"] == "directions"].groupby(["jammer_spread", "setting"])["mse"].mean()
    np.testing.assert_allclose(rows["y"], here, rtol=1e-4)
    lines = {line.get_label(): line.get_ydata()[0] for line in figure.axes[0].lines if len(set(line.get_ydata())) == 1}
    means = table[table["jammer_spread"] == 0].groupby(["protection", "setting"])["mse"].mean()
    np.testing.assert_allclose(lines["8 snapshots"], means["snapshots", 8.0])
    np.testing.assert_allclose(lines["no protection"], means["none", 0.0])


def test_outage_accuracy_and_slider_show_the_same_users() -> None:
    lost = tables.users_lost(CELLS, (0.0, 25.0), KINDS, (8,), 0.6, 3)
    rows = [("coded", gone, 0.0, seed, 1 - gone / 10 + seed / 100) for gone in range(3) for seed in (0, 1)]
    rows += [("base", 0, 0.0, seed, 0.5) for seed in (0, 1)]
    rows += [("task", 0, mse, seed, 0.4) for mse in (0.1, 1.0) for seed in (0, 1)]
    stored = pd.DataFrame(rows, columns=["sent", "lost", "mse", "seed", "normalized"])
    accurate = tables.accuracies(lost, stored, 3)
    means = lost.groupby(["kind", "order", "knowledge", "jnr_db"])["lost"].mean()
    drawn = figure_data(figures.outage(lost, 3))
    for name in (UNAWARE, GAIN, "8 snapshots", MATCHED):
        rows_of = drawn[(drawn["panel"] == "SU, weakest first") & (drawn["series"] == name)]
        np.testing.assert_allclose(rows_of["y"], means["strongest-user", "weakest-first", name], rtol=1e-4)
    drawn = figure_data(figures.accuracy(accurate, "strongest-first", {"task": "uncoded"}))
    assert set(drawn["series"]) == {"uncoded", *(f"coded, {name}" for name in (UNAWARE, GAIN, "8 snapshots", MATCHED))}
    assert (drawn[drawn["series"] == "uncoded"]["y"] == 40).all()
    for ax in figures.accuracy(accurate, "strongest-first", {"task": "uncoded"}, base=0.5).axes:
        (level,) = [line for line in ax.get_lines() if line.get_label() == "base alone"]
        np.testing.assert_allclose(np.asarray(level.get_ydata(), float), 50)
    values, powers, names = figures.bars(lost, accurate, "sum-rate", "strongest-first", 3)
    assert values.shape == (2, 2, 4) and powers == [0.0, 25.0] and names == [UNAWARE, GAIN, "8 snapshots", MATCHED]
    np.testing.assert_allclose(values[1, 0, 3], 100 * means["sum-rate", "strongest-first", MATCHED, 25.0] / 3)
    shown = accurate[(accurate["kind"] == "sum-rate") & (accurate["order"] == "strongest-first")]
    here = shown[(shown["sent"] == "coded") & (shown["knowledge"] == UNAWARE) & (shown["jnr_db"] == 25.0)]
    np.testing.assert_allclose(values[1, 1, 0], 100 * here["normalized"].mean())


def test_users_lost_has_intervals_over_suites_and_the_base() -> None:
    rows = [("coded", gone, seed, 1 - gone / 10 + seed / 100) for gone in range(3) for seed in (0, 1)]
    table = pd.DataFrame(
        [*rows, ("base", 0, 0, 0.5), ("base", 0, 1, 0.5)], columns=["sent", "lost", "seed", "normalized"]
    )
    ax = figures.users_lost(table)
    drawn = figure_data(ax.figure)
    points = drawn[drawn["series"].str.startswith("coded")]
    np.testing.assert_allclose(points["y"], [100.5, 90.5, 80.5])
    np.testing.assert_allclose(points["y_high"] - points["y_low"], 2 * 12.7062 * 0.5, rtol=1e-3)  # t of one degree
    plt.close("all")
