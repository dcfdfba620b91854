"""Figures of the system model: drawn from small tables, with labels and the numbers of the table."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import drawn
from drawn import legend, style_of_the_book  # noqa: F401 - a fixture for every test here
from rmtllmf_lib.chapters import style
from rmtllmf_lib.chapters.system_model import figures as system
from rmtllmf_lib.chapters.system_model import tables as link_tables
from rmtllmf_lib.study.intervals import over_seeds
from rmtllmf_lib.wireless.channel import Uplink, draw_uplinks


@pytest.fixture(scope="module")
def drops() -> Uplink:
    return draw_uplinks(8, np.random.default_rng(0), num_users=3, num_rx_antennas=4)


def finished(result: Axes | Figure) -> list[Axes]:
    """Axes of the one figure, drawn, with all texts inside it."""
    figure = drawn.finished(result)
    frame = figure.bbox
    for text in figure.findobj(matplotlib.text.Text):
        if text.get_visible() and text.get_text() and text.axes is not None and text.axes.name != "polar":
            box = text.get_window_extent()
            inside = frame.padded(2).fully_containsx(box.x0) and frame.padded(2).fully_containsx(box.x1)
            inside = inside and frame.padded(2).fully_containsy(box.y0) and frame.padded(2).fully_containsy(box.y1)
            beyond_axis = text in text.axes.get_xticklabels() + text.axes.get_yticklabels()
            assert inside or beyond_axis, text.get_text()
    return list(figure.axes)


def labelled(result: Axes | Figure) -> list[Axes]:
    axes = finished(result)
    assert all(ax.get_xlabel() for ax in axes if ax.get_subplotspec() is None or ax.get_subplotspec().is_last_row())  # type: ignore[union-attr]
    assert axes[0].get_ylabel() or not axes[0].get_yticklabels()[0].get_text().isnumeric()  # names need no label
    return axes


def points(ax: Axes, marker: str, colour: str) -> list[tuple[np.ndarray, np.ndarray]]:
    lines = [each for each in ax.get_lines() if each.get_marker() == marker and each.get_color() == colour]
    return [(np.asarray(each.get_xdata(), float), np.asarray(each.get_ydata(), float)) for each in lines]


def test_one_drop_puts_users_where_they_are() -> None:
    table = pd.DataFrame({
        "user": ["1", "2"], "distance_m": [300.0, 900.0], "azimuth": [0.0, 2.0],
        "snr_db": [20.0, 4.0], "without_fading_db": [19.0, 5.0],
    })  # fmt: skip
    polar, ax = finished(system.one_drop(table, 1000))
    (dots,) = polar.collections
    assert np.allclose(dots.get_offsets(), [[0, 300], [2, 900]])
    assert [text.get_text() for text in polar.texts] == ["1", "2"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["2", "1"]
    ((snr, _),) = points(ax, "o", style.BLUE)
    assert list(snr) == [4, 20]


def test_ladder_has_a_row_for_each_step(drops: Uplink) -> None:
    table = link_tables.ladder(drops[0])
    grid, ax = labelled(system.sic_ladder(table))
    marks = [text.get_text() for text in grid.texts]
    assert marks.count("✓") == 3 and len(marks) == 9
    assert [tick.get_text() for tick in grid.get_xticklabels()] == [str(user + 1) for user in table["user"][:3]]
    ((mse, steps),) = points(ax, "o", style.BLUE)
    wanted = table[table["state"] == "wanted"]
    assert list(mse) == list(wanted["mse"]) and list(steps) == [1, 2, 3]


def test_monte_carlo_shows_ratios_with_their_bars(drops: Uplink) -> None:
    table = link_tables.measured_mse(drops[0], 200, np.random.default_rng(1))
    axes = labelled(system.monte_carlo(table))
    assert len(axes) == 4 and len(legend(axes[0])) == 3
    rows = table[(table["order"] == "weakest-first") & (table["symbols"] == "gaussian")]
    ratio = (rows["measured"] / rows["theory"]).to_numpy()
    bars = axes[2].containers[0]
    assert np.allclose(bars.lines[0].get_ydata(), ratio)
    height = np.ptp(np.array(bars.lines[2][0].get_segments())[..., 1], axis=1)
    assert np.allclose(height, 4 * rows["standard_error"] / rows["theory"])


def test_sum_rates_show_the_medians() -> None:
    table = link_tables.sum_rates([1, 2], 9, np.random.default_rng(2), num_rx_antennas=4)
    (ax,) = labelled(system.sum_rates(table))
    ((users, right),), ((_, printed),) = points(ax, "o", style.BLUE), points(ax, "s", style.RED)
    assert list(users) == [1, 2]
    assert np.allclose(right, table.groupby("users")["right"].median())
    assert np.allclose(printed, table.groupby("users")["published"].median())


def test_mse_by_rank_shows_each_receiver(drops: Uplink) -> None:
    table = link_tables.mse_by_receiver(drops)
    (ax,) = labelled(system.mse_by_rank(table))
    assert len(legend(ax)) == 3 and ax.get_yscale() == "log"
    ((_, joint),) = points(ax, "^", style.RED)
    assert np.allclose(joint, table[table["receiver"] == "joint LMMSE"].groupby("rank")["mse"].median())


def test_propagation_shows_what_the_table_has(drops: Uplink) -> None:
    table = link_tables.propagation(drops, [0, 10], 50, np.random.default_rng(3))
    axes = labelled(system.propagation(table[table["cancellation"] != "genie"]))
    assert len(axes) == 2 and len(legend(axes[0])) == 3
    ((gain, excess),) = points(axes[1], "d", style.RED)
    rows = table[(table["order"] == "strongest-first") & (table["cancellation"] == "linear")]
    assert list(gain) == [0, 10] and np.allclose(excess, rows.groupby("gain_db")["excess"].mean())


def test_distortion_has_the_bound_and_the_users(drops: Uplink) -> None:
    users = link_tables.coded_distortion(drops)
    rounding = pd.DataFrame({"rate": [1.0, 2.0], "distortion": [0.5, 0.2]})
    (ax,) = labelled(system.rate_and_distortion(users, rounding))
    rate, bound = ax.get_lines()[0].get_data()
    assert np.allclose(np.log(np.asarray(bound)), -np.asarray(rate))
    ((x, y),) = points(ax, ".", style.ORANGE)
    assert np.allclose(x, users["rate"]) and np.allclose(y, users["qam64"])


def test_placements_are_two_curves_each() -> None:
    distances = pd.DataFrame(
        {"placement": ["distance"] * 3 + ["area"] * 3, "distance_m": [100, 500, 900, 700, 800, 900]}
    )
    mses = pd.DataFrame({"placement": ["distance"] * 2 + ["area"] * 2, "mse": [0.02, 0.01, 0.03, 0.01]})
    _, right = labelled(system.placements(distances, mses))
    assert [list(each.get_xdata()) for each in right.get_lines()] == [[0.01, 0.02], [0.01, 0.03]]


def test_path_losses_grow_downwards() -> None:
    table = pd.DataFrame({
        "model": ["free-space"] * 2 + ["UMa-NLoS"] * 2, "distance_m": [100.0, 1000.0] * 2,
        "loss_db": [80.0, 100.0, 100.0, 140.0],
    })  # fmt: skip
    (ax,) = labelled(system.path_losses(table, 104.6))
    assert ax.yaxis_inverted()
    assert legend(ax) == ["free space", "UMa NLoS", "SNR of 0 dB"]
    assert list(ax.get_lines()[-1].get_ydata()) == [104.6, 104.6]


def test_sensitivity_has_a_row_for_each_setting() -> None:
    table = link_tables.budgets({"as it is": {}, "8 antennas": {"num_rx_antennas": 8}}, 12, 4)
    (ax,) = labelled(system.sensitivity(table))
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["as it is", "8 antennas"]
    ((mse, place),) = points(ax, "o", style.BLUE)
    rows = over_seeds(table[table["order"] == "weakest-first"], ["setting"], "mse").set_index("setting")
    assert np.allclose(mse, rows.loc[["as it is", "8 antennas"], "mean"]) and place[0] < place[1]
    assert ax.yaxis_inverted() and legend(ax)[0] == "the paper's .013"


def test_noise_figures_show_what_rounds_to_the_papers_value() -> None:
    rows = [(nf, "weakest-first", seed, 0.01 * nf + 1e-4 * seed) for nf in (1.0, 2.0) for seed in range(3)]
    table = pd.DataFrame(rows, columns=["noise_figure_db", "order", "seed", "mse"])
    (ax,) = labelled(system.noise_figures(table, ["weakest-first"]))
    ((x, mean),) = points(ax, "o", style.BLUE)
    assert list(x) == [1, 2] and np.allclose(mean, [0.0101, 0.0201])
    assert legend(ax) == ["rounds to .013", "SIC, weakest first"]


def test_errors_beyond_the_axis_are_arrows() -> None:
    table = pd.DataFrame({
        "scheme": ["analog"] * 2 + ["float32"] * 2, "variance": [0.01, 0.02, 1e70, 0.0],
        "predicted": [0.01, 0.02, np.nan, np.nan], "excess_kurtosis": [0.1, -0.1, 90.0, np.nan],
    })  # fmt: skip
    left, right = labelled(system.errors_sent(table, (1e-6, 10.0)))
    inside = np.concatenate([x for x, _ in points(left, "o", style.BLUE)])
    assert list(inside) == [0.01, 0.02]
    assert [list(x) for x, _ in points(left, ">", style.RED) if len(x)] == [[10.0]]
    assert [list(x) for x, _ in points(left, "<", style.RED) if len(x)] == [[1e-6]]
    assert np.nanmax(np.concatenate([x for x, _ in points(right, "o", style.BLUE)])) == 90
