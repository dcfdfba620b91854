"""Tables of the chapter on the physical layer, against single drops by hand."""

import numpy as np
import pandas as pd
import pytest

from rmtllmf_lib.chapters.physical_layer import tables
from rmtllmf_lib.chapters.physical_layer.tables import GAIN, MATCHED, UNAWARE, snapshots_named
from rmtllmf_lib.chapters.results import stored_results
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import load_backbone
from rmtllmf_lib.transport.coded_payload import plan
from rmtllmf_lib.wireless.adversary import attacked_cov, jammer_power
from rmtllmf_lib.wireless.channel import draw_uplinks
from rmtllmf_lib.wireless.mismatch import scaled_mse
from rmtllmf_lib.wireless.receiver import error_cov, sic_mse
from rmtllmf_lib.wireless.sensing import draw_snapshots, sensed_cov

CELLS = draw_uplinks(12, np.random.default_rng(0), num_users=3, num_rx_antennas=4)


def test_sensing_has_every_receiver_in_every_case() -> None:
    found = tables.sense(CELLS, 9.0, ("strongest-user", "sum-rate"), (2, 500), 1)
    assert found.groupby(["kind", "order", "knowledge", "snapshots"]).size().unique().tolist() == [12]
    C = attacked_cov(CELLS, jammer_power(CELLS, 9.0), "sum-rate")
    rows = found[(found["kind"] == "sum-rate") & (found["order"] == "strongest-first")].set_index("knowledge")
    np.testing.assert_allclose(rows.loc[MATCHED, "mse"], sic_mse(CELLS, C, "strongest-first").mean(axis=-1))
    by_hand = np.einsum("...ii->...i", error_cov(CELLS, C, CELLS.thermal_cov, "strongest-first")).real.mean(axis=-1)
    np.testing.assert_allclose(rows.loc[UNAWARE, "mse"], by_hand)
    assert (rows["scaled"] <= rows["mse"] + 1e-12).all()  # no scale is worse than the best one
    sensed = rows.loc["sensed"].groupby("snapshots")["mse"].mean()
    assert sensed[500] < sensed[2] and sensed[500] < 1.1 * rows.loc[MATCHED, "mse"].mean()


def test_needed_is_where_the_curve_stays() -> None:
    """It dips under the level and leaves it again: only from the last time on it counts."""
    sensed = {1: 2.0, 2: 1.05, 4: 1.3, 8: 1.1, 16: 1.0}
    rows = [("SU", "weakest-first", "sensed", count, 0, value, value) for count, value in sensed.items()]
    rows += [("SU", "weakest-first", UNAWARE, 0, 0, 1.2, 1.0), ("SU", "weakest-first", MATCHED, 0, 0, 1.0, 0.5)]
    table = pd.DataFrame(rows, columns=["kind", "order", "knowledge", "snapshots", "drop", "mse", "scaled"])
    (found,) = tables.needed(table).itertuples()
    assert (found.needed, found.gains) == (8, 8)
    (found,) = tables.needed(table, margin=0.0).itertuples()
    assert found.needed == 16
    (found,) = tables.needed(table, "scaled").itertuples()
    assert found.needed == np.inf and found.gains == 16


def test_intervals_over_drops() -> None:
    found = tables.over_drops(pd.Series([1.0, 2.0, 3.0]))
    assert (found.mean, found.seeds) == (2.0, 3)
    assert found.half_width == pytest.approx(4.302653 / 3**0.5, rel=1e-5)  # Student's t, two degrees of freedom
    assert np.isnan(tables.over_drops(pd.Series([1.0])).half_width)


def test_pilots_approach_known_channels() -> None:
    C = {"thermal": CELLS.thermal_cov}
    found = tables.pilots(CELLS, C, (3, 10**7), 0.5, 1, "weakest-first")
    means = found[found["cancelled"] == "estimated"].groupby("length")[["mse", "quality", "lost"]].mean()
    assert means.loc[3, "mse"] > means.loc[10**7, "mse"] == pytest.approx(means.loc[0, "mse"], rel=1e-3)
    assert means.loc[0, "quality"] == 1 > means.loc[10**7, "quality"] > means.loc[3, "quality"]
    known = sic_mse(CELLS, CELLS.thermal_cov)
    np.testing.assert_allclose(found[found["length"] == 0]["mse"][:12], known.mean(axis=-1))
    np.testing.assert_array_equal(found[found["length"] == 0]["lost"][:12], (known > 0.5).sum(axis=-1))


def test_directions_compare_protections_in_the_same_drops() -> None:
    found = tables.directions(
        20, 0, jnr_db=20.0, jammers=2, user_spread_deg=10.0, jammer_spreads_deg=(0.0, 5.0), errors_deg=(0.0, 3.0),
        snapshots=(8,), order="weakest-first",
    )  # fmt: skip
    assert found.groupby(["jammer_spread", "protection", "setting"]).size().unique().tolist() == [20]
    means = found.groupby(["jammer_spread", "protection", "setting"])["mse"].mean()
    assert means[0.0, "directions", 0.0] == pytest.approx(means[0.0, "matched", 0.0], rel=1e-6)
    assert means[0.0, "matched", 0.0] < means[0.0, "directions", 3.0] < means[0.0, "none", 0.0]
    assert means[5.0, "matched", 0.0] < means[5.0, "directions", 0.0]
    clean = found[found["protection"] == "no jammer"].groupby("jammer_spread")["mse"]
    assert clean.mean().nunique() == 1


def test_the_largest_mse_is_the_last_that_has_a_plan() -> None:
    layout = load_backbone("tiny").weights.layout
    limit = tables.largest_mse(layout)
    assert plan(limit, layout) is not None
    assert plan(np.nextafter(limit, 1), layout) is None


def test_users_lost_are_those_above_the_limit() -> None:
    found = tables.users_lost(CELLS, (0.0, 25.0), ("sum-rate",), (8,), 0.6, 3)
    C = attacked_cov(CELLS, jammer_power(CELLS, 25.0), "sum-rate")
    sensed = sensed_cov(draw_snapshots(CELLS, C, 8, np.random.default_rng(3)), CELLS.noise_floor)
    expected = {
        MATCHED: sic_mse(CELLS, C),
        GAIN: scaled_mse(CELLS, C, CELLS.thermal_cov),
        snapshots_named(8): scaled_mse(CELLS, C, sensed),
        UNAWARE: np.einsum("...ii->...i", error_cov(CELLS, C, CELLS.thermal_cov)).real,
    }
    rows = found[(found["jnr_db"] == 25.0) & (found["order"] == "weakest-first")]
    assert set(rows["knowledge"]) == set(expected)
    for name, mse in expected.items():
        here = rows[rows["knowledge"] == name]
        np.testing.assert_array_equal(here["lost"], (mse > 0.6).sum(axis=-1))
        np.testing.assert_allclose(here["mse"], mse.mean(axis=-1))
        noise = mse if name == UNAWARE else 1 / (1 / mse - 1)  # SNR = 1/mu - 1
        np.testing.assert_allclose(here["ratio"], noise.mean(axis=-1))


def stored(users: int = 2) -> pd.DataFrame:
    rows = [("coded", lost, 0.0, seed, 1.0 - lost / 4 + seed / 100) for lost in range(users) for seed in (0, 1)]
    rows += [("base", 0, 0.0, seed, 0.4 + seed / 100) for seed in (0, 1)]
    rows += [("task", 0, mse, seed, value) for mse, value in ((0.01, 0.8), (1.0, 0.2)) for seed in (0, 1)]
    rows += [("weight", 0, mse, seed, value) for mse, value in ((0.01, 0.7), (1.0, 0.1)) for seed in (0, 1)]
    return pd.DataFrame(rows, columns=["sent", "lost", "mse", "seed", "normalized"])


def test_accuracies_are_means_over_the_drops() -> None:
    lost = pd.DataFrame(
        [("SR", "weakest-first", 9.0, MATCHED, 0, 0, 0.9, 0.1), ("SR", "weakest-first", 9.0, MATCHED, 1, 2, 0.9, 50.0)],
        columns=["kind", "order", "jnr_db", "knowledge", "drop", "lost", "mse", "ratio"],
    )  # fmt: skip
    found = tables.accuracies(lost, stored(), 2).set_index(["sent", "seed"])["normalized"]
    assert found["coded", 0] == pytest.approx((1.0 + 0.4) / 2)  # with both lost the base is left
    assert found["coded", 1] == pytest.approx((1.01 + 0.41) / 2)
    assert found["task", 0] == pytest.approx((0.5 + 0.2) / 2)  # half way in the logarithm; constant beyond the table
    assert found["weight", 1] == pytest.approx(0.1 + 0.6 * np.log(0.9) / np.log(0.01))  # of the MSE
    with pytest.raises(InputError, match="2 numbers of lost users: expected 3"):
        tables.accuracies(lost, stored(), 3)


def test_the_book_s_table() -> None:
    found = stored_results("users_lost")
    coded = found[found["sent"] == "coded"].pivot(index="seed", columns="lost", values="normalized")
    assert coded.shape == (5, 8) and coded.notna().all(axis=None)
    assert (coded[0] > coded[7]).all()
    assert set(found["sent"]) == {"coded", "base", "task", "weight"}
