"""The paper's link numbers: definitions by hand, bounds by trial, searches that find what they were given."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from links import link
from rmtllmf_lib.chapters.worst_case_noise import paper_link
from rmtllmf_lib.chapters.worst_case_noise.paper_link import (
    DETECTORS,
    OVER_ALL_ELSE,
    PAPER,
    SNR_READINGS,
    Setting,
    all_snrs_db,
    attacked_mse,
    beside_paper,
    closest_power,
    closest_settings,
    ideal_link,
    jnr_of_snr_drop,
    mean_mse,
    mean_snr_db,
    mse_curves,
    search_snrs,
    snr_readings,
    white_noise_bound,
)
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.adversary import attack, jammer_power
from rmtllmf_lib.wireless.channel import Uplink, with_floor
from rmtllmf_lib.wireless.receiver import lmmse_mse, sic_mse


def test_snr_readings_by_hand() -> None:
    uplink = Uplink(2 * np.eye(2)[None], [1.0, 4.0], 0.5)  # received powers 4 and 16, trace of the noise 1
    expected = [20, 10, 8, 4]
    for reading, ratio in zip(SNR_READINGS, expected, strict=True):
        assert mean_snr_db(uplink, uplink.thermal_cov, reading) == pytest.approx(10 * np.log10(ratio))
    with pytest.raises(InputError, match="reading is 'loud'"):
        mean_snr_db(uplink, uplink.thermal_cov, "loud")


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(4, 3), (2, 5), (16, 8)]), st.floats(-3, 3))
def test_white_noise_bound(seed: int, size: tuple, level: float) -> None:
    """No drop gets below it, in either order; users that do not interfere attain it."""
    uplink = link(seed, *size, 10**level)
    snr = mean_snr_db(uplink, uplink.thermal_cov, "one user's power over all noise")
    bound = white_noise_bound(snr, size[0])
    for order in ("weakest-first", "strongest-first"):
        assert sic_mse(uplink, uplink.thermal_cov, order).mean() >= bound * (1 - 1e-9)  # type: ignore[arg-type]
    apart = Uplink(np.eye(*size), 0.3, 10**level)
    if size[0] >= size[1]:
        snr = mean_snr_db(apart, apart.thermal_cov, "one user's power over all noise")
        assert sic_mse(apart, apart.thermal_cov).mean() == pytest.approx(white_noise_bound(snr, size[0]))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(4, 3), (2, 5), (6, 6)]), st.floats(-2, 6))
def test_rank_one_noise_raises_the_mean_by_one_user_at_most(seed: int, size: tuple, level: float) -> None:
    uplink = link(seed, *size, 0.1)
    for kind in ("strongest-user", "rank-one", "sum-aligned"):
        C = attack(uplink, 10**level, kind).noise_cov
        assert lmmse_mse(uplink, C).mean() <= lmmse_mse(uplink, uplink.thermal_cov).mean() + 1 / size[1] + 1e-9
        for order in ("weakest-first", "strongest-first"):
            assert (sic_mse(uplink, C, order) <= lmmse_mse(uplink, C) + 1e-9).all()  # type: ignore[arg-type]


def test_readings_at_the_papers_snr() -> None:
    uplink = link(0, 4, 3, 0.5, batch=(6,))
    table = snr_readings(uplink)
    assert list(table.index) == list(SNR_READINGS)
    for reading, row in table.iterrows():
        moved = with_floor(uplink, row["snr_db"] - PAPER.loc["none", "snr_db"])
        assert mean_snr_db(moved, moved.thermal_cov, str(reading)) == pytest.approx(PAPER.loc["none", "snr_db"])
        assert row["mse_at_paper_snr"] == pytest.approx(sic_mse(moved, moved.thermal_cov).mean())


def test_jnr_of_snr_drop() -> None:
    uplink = link(0, 4, 3, 0.5, batch=(2,))
    for kind in ("strongest-user", "sum-rate"):
        C = attack(uplink, jammer_power(uplink, jnr_of_snr_drop(5.5)), kind).noise_cov
        for reading in SNR_READINGS:
            assert mean_snr_db(uplink, uplink.thermal_cov, reading) - mean_snr_db(uplink, C, reading) == pytest.approx(
                5.5
            )
    with pytest.raises(InputError, match="drop_db"):
        jnr_of_snr_drop(0.0)


SETTINGS = [Setting(), Setting(1.0, "lmmse"), Setting(3.0, order="strongest-first", knowledge="unaware")]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_ideal_link_has_the_papers_mse(setting: Setting) -> None:
    drops = ideal_link(20, np.random.default_rng(0), setting)
    assert drops.H.shape == (20, 16, 8)
    assert mean_mse(drops, drops.thermal_cov, setting) == pytest.approx(0.013, rel=1e-5)


def test_mean_mse_of_each_receiver() -> None:
    uplink = link(1, 4, 3, 0.2, batch=(5,))
    C = attack(uplink, 1.0).noise_cov
    assert mean_mse(uplink, C, Setting()) == pytest.approx(sic_mse(uplink, C).mean())
    strongest = Setting(order="strongest-first")
    assert mean_mse(uplink, C, strongest) == pytest.approx(sic_mse(uplink, C, "strongest-first").mean())
    assert mean_mse(uplink, C, Setting(receiver="lmmse")) == pytest.approx(lmmse_mse(uplink, C).mean())
    unaware = mean_mse(uplink, C, Setting(knowledge="unaware"))
    assert unaware > mean_mse(uplink, C, Setting())
    assert mean_mse(uplink, uplink.thermal_cov, Setting(knowledge="unaware")) == pytest.approx(
        sic_mse(uplink, uplink.thermal_cov).mean()
    )


def test_closest_power_finds_what_made_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = SETTINGS[2]
    drops = ideal_link(20, np.random.default_rng(1), setting)
    made = PAPER.copy()
    for kind, mse in attacked_mse(drops, 7.3, setting).items():
        made.loc[kind, "mse"] = mse
    monkeypatch.setattr(paper_link, "PAPER", made)
    assert closest_power(drops, setting) == pytest.approx(7.3, abs=0.02)


def test_closest_settings() -> None:
    table = closest_settings(SETTINGS, 15, seed=0)
    assert set(table["setting"]) == {str(setting) for setting in SETTINGS}
    assert table["distance"].is_monotonic_increasing
    assert table["none"].to_numpy() == pytest.approx(0.013, rel=1e-5)
    assert (table["lmmse"] >= table["none"] * (1 - 1e-9)).all()
    row = table.iloc[0]
    logs = np.log([row["strongest-user"] / 0.16, row["sum-rate"] / 0.21])
    assert row["distance"] == pytest.approx(np.sqrt(np.mean(logs**2)))
    assert "unaware" in row["setting"] and "strongest-first" in row["setting"]


def test_mse_curves_grow_with_power() -> None:
    table = mse_curves(SETTINGS[:2], [0.0, 10.0, 20.0], 10, seed=0)
    assert set(table["detection"]) == {"SIC weakest-first", "joint LMMSE"}
    assert set(table["knowledge"]) == {"matched"}
    for _, rows in table.groupby("setting"):
        assert (np.diff(rows[["strongest-user", "sum-rate"]], axis=0) > 0).all()


def test_beside_paper() -> None:
    powers = {"strongest-user": 4.0, "sum-rate": 11.0}
    table = beside_paper({"ours": (SETTINGS[1], powers)}, 12, seed=3)
    assert table.loc["the paper", "MSE"].tolist() == [0.013, 0.16, 0.21]
    assert table.loc["the paper", "SNR (dB)"].tolist() == [-16.2, -21.7, -27.3]
    drops = ideal_link(12, np.random.default_rng(3), SETTINGS[1])
    C = attack(drops, jammer_power(drops, 11.0), "sum-rate").noise_cov
    assert table.loc["ours", ("MSE", "sum-rate")] == pytest.approx(lmmse_mse(drops, C).mean())
    snr = table.loc["ours", "SNR (dB)"]
    assert snr["none"] - snr["strongest-user"] == pytest.approx(10 * np.log10(1 + 10**0.4))


def test_all_snrs_by_hand() -> None:
    apart = Uplink(2 * np.eye(2)[None], [1.0, 4.0], 0.5)  # received powers 4 and 16, noise 0.5 at each antenna
    found = all_snrs_db(apart, apart.thermal_cov)
    assert found["the same, averaged in dB"] == pytest.approx(10 * np.log10(8)) and len(found) == 14
    assert found[OVER_ALL_ELSE] == pytest.approx(5 * np.log10(4 / 17 * 16 / 5))
    for name in DETECTORS:  # nobody interferes: an MSE of 1 / (1 + SNR)
        assert found[f"the mean in dB behind {name}"] == pytest.approx(5 * np.log10(8 * 32))
        assert found[f"one over the mean noise behind {name}"] == pytest.approx(-10 * np.log10((1 / 8 + 1 / 32) / 2))
        assert found[f"one over the mean MSE behind {name}"] == pytest.approx(-10 * np.log10((1 / 9 + 1 / 33) / 2))


def test_search_finds_the_reading_that_made_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the SNRs of one reading in the paper's place, its row is the one without any difference."""
    settings = [Setting(order="strongest-first", knowledge="unaware"), Setting(3.0)]
    first = search_snrs(settings, 12, seed=0)
    row = first[first["setting"] == str(settings[0])].set_index("reading").loc["the mean in dB behind joint LMMSE"]
    made = PAPER.copy()
    made["snr_db"] = row["snr"] - np.array([0, row["fall_strongest-user"], row["fall_sum-rate"]])
    monkeypatch.setattr(paper_link, "PAPER", made)
    again = search_snrs(settings, 12, seed=0)
    best = again.loc[again["off"].idxmin()]
    assert best["reading"] == "the mean in dB behind joint LMMSE" and best["setting"] == str(settings[0])
    assert best[["off", "snr_off", "fall_off", "constant"]].astype(float).to_numpy() == pytest.approx(0, abs=1e-9)
    pd.testing.assert_series_equal(again["snr"], first["snr"])
