"""Tables of the system model: each against the formulas of the receivers, a textbook, or a limit."""

import numpy as np
import pytest

from rmtllmf_lib.chapters.system_model.tables import (
    budgets,
    coded_distortion,
    ladder,
    measured_mse,
    mse_by_receiver,
    propagation,
    sum_rates,
)
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.channel import draw_uplinks
from rmtllmf_lib.wireless.receiver import by_rank, lmmse_mse, sic_mse
from wireless import textbook_rates, unit_uplink


@pytest.mark.parametrize("order", ["weakest-first", "strongest-first"])
def test_ladder_takes_one_user_after_another(order: str) -> None:
    uplink = unit_uplink(np.random.default_rng(2))
    table = ladder(uplink, order)  # type: ignore[arg-type]
    assert len(table) == 16
    wanted = table[table["state"] == "wanted"]
    assert list(wanted["step"]) == list(wanted["position"]) == [1, 2, 3, 4]
    assert wanted["snr_db"].is_monotonic_increasing == (order == "weakest-first")
    rates = textbook_rates(uplink, uplink.thermal_cov, order)
    assert wanted["rate"].to_numpy() == pytest.approx(rates[wanted["user"]])
    assert wanted["mse"].to_numpy() == pytest.approx(np.exp(-rates[wanted["user"]]))
    counts = table.groupby("step")["state"].value_counts().unstack(fill_value=0)
    assert list(counts["decoded"]) == [0, 1, 2, 3] and list(counts["interferes"]) == [3, 2, 1, 0]


def test_one_drop_is_asked_for() -> None:
    batch = unit_uplink(np.random.default_rng(2), 3)
    for table in (ladder, lambda uplink: measured_mse(uplink, 100, np.random.default_rng(0))):
        with pytest.raises(InputError, match=r"batch shape \(3,\): expected one drop"):
            table(batch)


def test_measured_mse_stands_beside_its_own_theory() -> None:
    uplink = unit_uplink(np.random.default_rng(3))
    table = measured_mse(uplink, 20_000, np.random.default_rng(4))
    assert len(table) == 2 * 2 * 4
    assert (np.abs(table["measured"] - table["theory"]) < 4 * table["standard_error"]).all()
    weakest = table[(table["order"] == "weakest-first") & (table["symbols"] == "gaussian")]
    assert weakest["theory"].to_numpy() == pytest.approx(by_rank(sic_mse(uplink, uplink.thermal_cov), uplink))


def test_sum_rates_agree_for_one_user_alone() -> None:
    table = sum_rates([1, 3], 20, np.random.default_rng(5), num_rx_antennas=4)
    alone = table[table["users"] == 1]
    assert alone["published"].to_numpy() == pytest.approx(alone["right"].to_numpy(), rel=1e-12)
    several = table[table["users"] == 3]
    assert (several["right"] > several["published"] + 0.5).all()
    assert list(several["seed"]) == list(range(20))


def test_receivers_are_compared_user_by_user() -> None:
    cells = draw_uplinks(6, np.random.default_rng(6), num_users=3, num_rx_antennas=4)
    table = mse_by_receiver(cells).set_index(["receiver", "seed", "rank"])["mse"]
    C = cells.thermal_cov
    for receiver, mse in (
        ("strongest-first", sic_mse(cells, C, "strongest-first")),
        ("joint LMMSE", lmmse_mse(cells, C)),
    ):
        ranked = by_rank(mse, cells)
        assert table[receiver].to_numpy() == pytest.approx(ranked.ravel())
    products = np.log(table).groupby(["receiver", "seed"]).sum()
    assert products["weakest-first"].to_numpy() == pytest.approx(products["strongest-first"].to_numpy())


def test_real_cancellation_costs_something_and_a_clean_link_nothing() -> None:
    cells = draw_uplinks(20, np.random.default_rng(7), num_users=4, num_rx_antennas=6)
    table = propagation(cells, [-5, 40], 300, np.random.default_rng(8))
    means = table.groupby(["gain_db", "order", "cancellation"])["excess"].mean()
    for order in ("weakest-first", "strongest-first"):
        noisy, clean = means[-5, order], means[40, order]
        assert noisy["genie"] == pytest.approx(1, abs=0.03)
        assert noisy["genie"] < noisy["soft"] < noisy["hard"]
        assert clean[["genie", "soft", "hard"]].to_numpy() == pytest.approx(1, abs=0.05)
        ratio = lmmse_mse(cells, 10**0.5 * cells.thermal_cov).mean(-1)
        ratio /= sic_mse(cells, 10**0.5 * cells.thermal_cov, order).mean(-1)  # type: ignore[arg-type]
        assert noisy["linear"] == pytest.approx(ratio.mean())
    errors = table.groupby(["gain_db", "cancellation"])["symbol_errors"].mean()
    assert errors[40, "hard"] == 0 < errors[-5, "genie"] < errors[-5, "hard"]


def test_settings_share_places_and_fading() -> None:
    settings = {"as it is": {}, "8 antennas": {"num_rx_antennas": 8}, "again": {}}
    table = budgets(settings, 30, 9).set_index(["setting", "order", "seed"]).sort_index()["mse"]
    assert np.array_equal(table["as it is"], table["again"])
    assert (table["8 antennas"].groupby("order").mean() > table["as it is"].groupby("order").mean()).all()
    cells = draw_uplinks(30, np.random.default_rng(9))
    expected = sic_mse(cells, cells.thermal_cov, "strongest-first").mean(-1)
    assert table["as it is", "strongest-first"].to_numpy() == pytest.approx(expected)


def test_codes_leave_no_less_than_the_link_allows() -> None:
    cells = draw_uplinks(5, np.random.default_rng(10), num_users=3, num_rx_antennas=4)
    table = coded_distortion(cells)
    assert table["gaussian"].to_numpy() == pytest.approx(by_rank(sic_mse(cells, cells.thermal_cov), cells).ravel())
    assert (table["qam64"] >= table["gaussian"] - 1e-12).all() and (table["qam64"] >= 1 / 64 - 1e-12).all()
    assert table["qam64"].to_numpy() == pytest.approx(np.exp(-table["qam64_rate"]))
    assert (table["qam64"] > 1.5 * table["gaussian"]).any()
