"""Figures of the chapter on worst-case noise: drawn from small tables, with labels and the numbers of the table."""

import numpy as np
import pandas as pd

from drawn import finished, legend, line, names, style_of_the_book  # noqa: F401 - a fixture for every test here
from rmtllmf_lib.chapters.style import GREY
from rmtllmf_lib.chapters.worst_case_noise import figures as worst_case
from rmtllmf_lib.chapters.worst_case_noise.figures import LOOKS, NAMES
from rmtllmf_lib.wireless.adversary import KINDS


def test_every_attack_has_a_look_of_its_own() -> None:
    assert set(LOOKS) == {"none", *KINDS}
    assert len(set(NAMES.values())) == len(LOOKS)
    assert len({(look["color"], look["linestyle"]) for look in LOOKS.values()}) == len(LOOKS)


def test_allocation() -> None:
    table = pd.DataFrame(
        {
            "panel": ["bare"] * 2 + ["noisy"] * 2,
            "direction": [1, 2] * 2,
            "signal_db": [20.0, 3.0] * 2,
            "level_db": [4.0, 2.0, 9.0, 5.0],
            "floor_db": [-np.inf, -np.inf, 5.0, 5.0],
        }
    )
    figure = finished(worst_case.allocation(table))
    for ax, levels, floor in zip(figure.axes, ([4, 2], [9, 5]), (None, 5), strict=True):
        np.testing.assert_allclose(line(ax, r"signal $\upsilon_i$")[1], [20, 3])
        thermal, jammed = ax.containers
        np.testing.assert_allclose([bar.get_y() + bar.get_height() for bar in jammed], levels)
        tops = [bar.get_y() + bar.get_height() for bar in thermal]
        np.testing.assert_allclose(tops, floor if floor is not None else ax.get_ylim()[0])
        np.testing.assert_allclose(line(ax, "white jammer")[1], 0)
    assert [ax.get_title() for ax in figure.axes] == ["bare", "noisy"]
    assert "dB" in figure.axes[0].get_ylabel()


def test_unit_of_power() -> None:
    table = pd.DataFrame({"unit_w": [1e-3, 1.0, 1e3], "sum_rate": [3.0, 2.0, 4.0]})
    ax = worst_case.unit_of_power(table, right=2.0, white=5.0)
    finished(ax)
    np.testing.assert_allclose(line(ax, "Eq. (14) as printed"), [[1e-3, 1, 1e3], [3, 2, 4]])
    np.testing.assert_allclose(line(ax, "power counted once")[1], 2)
    np.testing.assert_allclose(line(ax, "white jammer")[1], 5)
    assert ax.get_xscale() == "log" and "(W)" in ax.get_xlabel() and "nats" in ax.get_ylabel()


def test_against_power() -> None:
    rows = [
        (kind, jnr, drop, 10 * k + jnr + drop, k + 0.1 * drop, 0.1 * (k + 1))
        for k, kind in enumerate(("minimax", "white"))
        for jnr in (0, 10)
        for drop in (0, 1)
    ]
    table = pd.DataFrame(rows, columns=["kind", "jnr_db", "drop", "sum_rate", "max_rate", "mse"])
    labels = {"sum_rate": "sum rate (nats)", "max_rate": "best rate (nats)", "mse": "mean MSE"}
    figure = finished(worst_case.against_power(table, labels))
    first, second, third, corner = figure.axes
    np.testing.assert_allclose(line(first, NAMES["minimax"]), [[0, 10], [0.5, 10.5]])
    np.testing.assert_allclose(line(second, "white")[1], 1.05)
    np.testing.assert_allclose(line(third, "white")[1], 0.2)
    assert [ax.get_ylabel() for ax in (first, second, third)] == list(labels.values())
    assert [ax.get_yscale() for ax in (first, second, third)] == ["linear", "linear", "log"]
    assert set(legend(corner)) == {NAMES["minimax"], "white"}
    assert "dB" in third.get_xlabel()


def test_user_rates() -> None:
    table = pd.DataFrame(
        {"kind": ["none"] * 3 + ["white"] * 3, "rank": [2, 1, 3] * 2, "alone": range(6), "sic": range(6, 0, -1)}
    )
    figure = finished(worst_case.user_rates(table, {"alone": "each alone", "sic": "all"}))
    left, right = figure.axes
    np.testing.assert_allclose(line(left, "no jammer"), [[1, 2, 3], [1, 0, 2]])
    np.testing.assert_allclose(line(right, "white"), [[1, 2, 3], [2, 3, 1]])
    assert [left.get_title(), right.get_title()] == ["each alone", "all"]
    assert names(right) == ["white", "no jammer"]


def test_bounds() -> None:
    table = pd.DataFrame({"kind": ["minimax"] * 2 + ["minimax-sic"] * 2, "steps": [1, 2] * 2, "gap": [1, 0.1, 2, 0.2]})
    ax = worst_case.bounds(table)
    finished(ax)
    np.testing.assert_allclose(line(ax, NAMES["minimax-sic"]), [[1, 2], [2, 0.2]])
    assert ax.get_yscale() == "log"


def test_error_covariances() -> None:
    E = np.array([[0.04, 0.03j], [-0.03j, 0.09]])
    apart = np.diag([0.2, 0.4]).astype(complex)
    before = E.copy()
    figure = finished(
        worst_case.error_covariances({"A": {"none": E, "white": apart}, "B": {"none": apart, "white": E}})
    )
    panels = [ax for ax in figure.axes if ax.images]
    shown = [np.ma.getdata(ax.images[0].get_array()) for ax in panels]
    for image, correlation in zip(shown, (0.5, 0, 0, 0.5), strict=True):
        assert np.isnan(image.diagonal()).all()
        np.testing.assert_allclose([image[0, 1], image[1, 0]], correlation)
    mses = [0.065, 0.3, 0.3, 0.065]
    assert [ax.get_xlabel() for ax in panels] == [f"mean MSE {mse:.2f}" for mse in mses]
    assert [ax.get_title() for ax in panels] == ["no jammer", "white", "", ""]
    assert [panels[0].get_ylabel(), panels[2].get_ylabel()] == ["A", "B"]
    np.testing.assert_array_equal(E, before)


def test_paper_plane() -> None:
    table = pd.DataFrame(
        {
            "setting": ["a", "a", "b", "b"],
            "detection": ["SIC", "SIC", "LMMSE", "LMMSE"],
            "knowledge": ["matched", "matched", "unaware", "unaware"],
            "strongest-user": [0.02, 0.05, 0.03, 0.1],
            "sum-rate": [0.1, 0.4, 0.05, 0.2],
        }
    )
    ax = worst_case.paper_plane(table, (0.16, 0.21), reachable=0.14, near=["b"])
    finished(ax)
    curves = ax.get_lines()
    np.testing.assert_allclose(curves[0].get_data(), [[0.02, 0.05], [0.1, 0.4]])
    assert curves[0].get_linestyle() == "-" and curves[1].get_linestyle() == "--"
    assert curves[0].get_color() != curves[1].get_color()
    np.testing.assert_allclose(np.ravel(curves[2].get_data()), [0.16, 0.21])
    np.testing.assert_allclose(np.asarray(curves[3].get_xdata(), float), 0.14)
    assert curves[0].get_color() == GREY != curves[1].get_color()
    expected = ["b", "others, matched", "others, unaware", "most for a matched receiver", "the paper"]
    assert legend(ax) == expected


def test_csi_loss() -> None:
    rows = [
        ("sum-rate", how, rho, drop, 10 - 6 * rho + drop, 4 + drop, 10 + drop)
        for how in ("noisy", "posterior")
        for rho in (0.0, 0.5, 1.0)
        for drop in (0, 1)
    ]
    columns = ["kind", "estimate", "quality", "drop", "objective", "best", "white"]
    ax = worst_case.csi_loss(pd.DataFrame(rows, columns=columns))
    finished(ax)
    name = NAMES["sum-rate"]
    for how in ("estimate taken for the truth", "hedged"):
        np.testing.assert_allclose(line(ax, f"{name}: {how}"), [[1, 0.5], [0, 0.5]], atol=1e-12)
    assert ax.get_xscale() == "log"
    assert "white noise" in names(ax)
