"""Comparisons of the attacks: the numbers of the receivers and attacks, in the right row."""

import numpy as np
import pandas as pd
import pytest

from links import link
from rmtllmf_lib.chapters.worst_case_noise.tables import (
    allocation_table,
    attack_settings,
    certificates,
    compare_attacks,
    csi_sweep,
    mse_by_rank,
    power_sweep,
    user_rates,
)
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.adversary import attack, jammer_power, largest_rate
from rmtllmf_lib.wireless.channel import Uplink, draw_uplinks
from rmtllmf_lib.wireless.csi import imperfect_csi
from rmtllmf_lib.wireless.receiver import interference_free_rates, sic_mse, sic_rates, sum_rate

KINDS = ["none", "white", "strongest-user"]


def test_compare_attacks() -> None:
    uplink = link(3, 6, 4, 0.1, batch=(5,))
    table = compare_attacks(uplink, 0.8, KINDS, "strongest-first")
    assert list(table["kind"].unique()) == KINDS
    assert (table.groupby("kind")["drop"].apply(list).map(lambda drops: drops == [0, 1, 2, 3, 4])).all()
    for kind in KINDS:
        cov = uplink.thermal_cov if kind == "none" else attack(uplink, 0.8, kind).noise_cov
        rows = table[table["kind"] == kind]
        rates = sic_rates(uplink, cov, "strongest-first")
        np.testing.assert_allclose(rows["max_rate"], rates.max(axis=-1))
        np.testing.assert_allclose(rows["max_rate_silent"], interference_free_rates(uplink, cov).max(axis=-1))
        np.testing.assert_allclose(rows["sum_rate"], sum_rate(uplink, cov))
        np.testing.assert_allclose(rows["mse"], sic_mse(uplink, cov, "strongest-first").mean(axis=-1))
        best = rates.argmax(axis=-1) == uplink.received_power.argmax(axis=-1)
        np.testing.assert_array_equal(rows["strongest_is_best"], best)


def test_the_strongest_user_is_the_best_until_it_is_attacked() -> None:
    uplink = link(3, 8, 4, 0.01, batch=(20,), spread=1)
    best = compare_attacks(uplink, 1.0, KINDS).groupby("kind")["strongest_is_best"].mean()
    assert best["none"] == 1
    assert best["strongest-user"] < 0.2


def test_attack_settings() -> None:
    ratios = [np.inf, 10.0, 0.0]
    table = attack_settings(3, np.random.default_rng(0), ["white", "rank-one"], ratios, num_users=2, num_rx_antennas=3)
    assert len(table) == 2 * 3 * 2 * 3
    assert not table.isna().any().any()
    assert np.isinf(table.loc[(table["kind"] == "rank-one") & (table["jnr_db"] == np.inf), "sum_rate"]).all()
    generator = np.random.default_rng(0)
    for spread, nearest, farthest in (("100…1000 m", 100.0, 1000.0), ("all at 550 m", 550.0, 550.0)):
        drops = draw_uplinks(3, generator, num_users=2, num_rx_antennas=3, nearest_m=nearest, farthest_m=farthest)
        power = 3 * drops.noise_floor * 10  # the default floor, 10 dB below
        for ratio, floor in ((np.inf, 0.0), (10.0, 1.0), (0.0, 10.0)):
            cov = (power / 3 + floor * drops.noise_floor)[:, None, None] * np.eye(3)
            chosen = (table["spread"] == spread) & (table["jnr_db"] == ratio) & (table["kind"] == "white")
            np.testing.assert_allclose(table.loc[chosen, "sum_rate"], sum_rate(drops, cov), rtol=1e-9)
    for bad in ([np.inf], [], [np.nan, 1.0]):
        with pytest.raises(InputError, match="jnr_db is"):
            attack_settings(1, np.random.default_rng(0), ["white"], bad)


def test_power_sweep_and_mse_by_rank() -> None:
    uplink = link(3, 5, 3, 0.1, batch=(4,))
    table = power_sweep(uplink, [0, 20], ["white", "sum-rate"])
    assert list(table.columns[:1]) == ["jnr_db"]
    expected = compare_attacks(uplink, jammer_power(uplink, 20), ["white", "sum-rate"])
    pd.testing.assert_frame_equal(table[table["jnr_db"] == 20].drop(columns="jnr_db").reset_index(drop=True), expected)
    ranked = mse_by_rank(uplink, [0, 20], ["white", "sum-rate"])
    assert ranked.shape == (2, 2, 3)
    np.testing.assert_allclose(
        ranked.mean(axis=-1).ravel(), table.groupby(["jnr_db", "kind"], sort=False)["mse"].mean()
    )
    one = Uplink(np.eye(3), [3.0, 1.0, 2.0], 0.1)  # orthogonal users
    level = 0.1 + jammer_power(one, 0) / 3
    assert mse_by_rank(Uplink(one.H[None], one.power, 0.1), [0], ["white"])[0, 0] == pytest.approx(
        [1 / (1 + p / level) for p in (1, 2, 3)]
    )


def test_user_rates() -> None:
    uplink = Uplink(np.eye(3), [3.0, 1.0, 2.0], 0.1)
    table = user_rates(uplink, 1.0, ["none", "strongest-user"])
    none, jammed = (table[table["kind"] == kind] for kind in ("none", "strongest-user"))
    assert list(none["rank"]) == [1, 2, 3]
    for column in ("alone", "sic"):  # orthogonal users do not interfere
        np.testing.assert_allclose(none[column], np.log1p(np.array([1, 2, 3]) / 0.1))
        np.testing.assert_allclose(jammed[column], np.log1p([1 / 0.1, 2 / 0.1, 3 / 1.1]))


def test_allocation_table() -> None:
    uplink = Uplink(np.eye(4, 3), [100.0, 1.0, 0.01], 0.0)
    table = allocation_table(uplink, 4.0, {"bare": np.inf, "noisy": 0.0})
    assert list(table["panel"].unique()) == ["bare", "noisy"]
    np.testing.assert_allclose(table["signal_db"], [20, 0, -20] * 2, atol=1e-9)
    for panel, floor in (("bare", 0.0), ("noisy", 1.0)):
        rows = table[table["panel"] == panel]
        level = 10 ** (rows["level_db"] / 10)
        assert (level - floor).sum() == pytest.approx(4)
        np.testing.assert_allclose(10 ** (rows["floor_db"] / 10), floor, atol=0)
        assert (np.diff(level) <= 0).all()
    assert table["filled"].tolist() == [True, True, True, True, True, False]


def test_csi_sweep() -> None:
    uplink = link(5, 6, 3, 0.05, batch=(6,))
    table = csi_sweep(uplink, 1.0, {"sum-rate": "posterior", "minimax": "noisy"}, [0.0, 0.7, 1.0], seed=3)
    assert len(table) == 2 * 3 * 6
    white = attack(uplink, 1.0, "white").noise_cov
    for kind, estimate, rate in (("sum-rate", "posterior", sum_rate), ("minimax", "noisy", largest_rate)):
        rows = table[table["kind"] == kind]
        assert set(rows["estimate"]) == {estimate}
        perfect, partly = rows[rows["quality"] == 1], rows[rows["quality"] == 0.7]
        np.testing.assert_allclose(perfect["objective"], perfect["best"], rtol=1e-9)
        np.testing.assert_allclose(partly["white"], rate(uplink, white))
        believed = imperfect_csi(uplink, 0.7, np.random.default_rng(3), estimate=estimate)  # type: ignore[arg-type]
        np.testing.assert_allclose(partly["objective"], attack(uplink, 1.0, kind, csi=believed).objective)
        assert (rows["objective"] >= rows["best"] * (1 - 1e-6)).all()
    hedged = table[(table["kind"] == "sum-rate") & (table["quality"] == 0)]
    np.testing.assert_allclose(hedged["objective"], hedged["white"], rtol=0.2)
    with pytest.raises(InputError, match="kind is 'white'"):
        csi_sweep(uplink, 1.0, {"white": "noisy"}, [1.0], seed=0)


def test_certificates() -> None:
    sizes = [(3, 2), (2, 4)]
    table = certificates(sizes, np.random.default_rng(0), ["sum-rate", "minimax", "white"], 10.0)
    assert list(zip(table["num_rx_antennas"], table["num_users"], strict=True)) == [s for s in sizes for _ in range(3)]
    gap = table.set_index(["num_rx_antennas", "kind"])["gap"]
    assert gap[[(3, "sum-rate"), (2, "minimax")]].max() < 1e-6
    assert gap[3, "white"] > 1e-3
    assert (table["iterations"] >= 0).all()
