"""The checks of the attacks: silent at the optimum, and loud away from it."""

import numpy as np
import pytest

from links import link
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.adversary import attack, largest_rate
from rmtllmf_lib.wireless.allocation import allocate
from rmtllmf_lib.wireless.channel import Uplink
from rmtllmf_lib.wireless.optimality import kkt_residuals, saddle_margins
from rmtllmf_lib.wireless.receiver import sum_rate

RATES = {"sum-rate": sum_rate, "minimax": largest_rate}


@pytest.mark.parametrize("floor", [0.0, 0.1])
@pytest.mark.parametrize("kind", RATES)
def test_the_optimum_is_a_saddle_point(kind: str, floor: float) -> None:
    uplink = link(1, 5, 3, floor, batch=(4,))
    cov = attack(uplink, 0.7, kind).noise_cov
    margins = saddle_margins(RATES[kind], uplink, 0.7, cov, np.random.default_rng(0), trials=10)
    assert margins.users > 0
    assert margins.jammer > -1e-6  # of the gap that the attack was asked for
    assert margins.trials == 40


def test_a_poor_attack_is_seen_through() -> None:
    uplink = link(1, 5, 3, 0.1, batch=(4,))
    white = attack(uplink, 0.7, "white").noise_cov
    assert saddle_margins(largest_rate, uplink, 0.7, white, np.random.default_rng(0)).jammer < -1e-3


def test_users_that_gain_are_seen() -> None:
    """The rate of a user who meets another's interference: the other one's silence helps."""
    uplink = link(1, 1, 2, 0.1, batch=(4,))

    def rate(drops: Uplink, noise: np.ndarray) -> np.ndarray:
        power = drops.received_power
        return np.asarray(np.log1p(power[..., 0] / (power[..., 1] + noise[..., 0, 0].real)))

    cov = attack(uplink, 0.5, "white").noise_cov
    assert saddle_margins(rate, uplink, 0.5, cov, np.random.default_rng(0)).users < 0


def test_every_move_is_within_the_rules() -> None:
    """Powers between 0 and full, and covariances of the budget over the floor."""
    uplink, budget = link(2, 4, 3, 0.2, batch=(3,)), np.array([0.5, 1.0, 2.0])
    seen = []

    def rate(drops: Uplink, noise: np.ndarray) -> np.ndarray:
        seen.append((drops.power, noise))
        return np.ones(3)

    best = attack(uplink, budget).noise_cov
    saddle_margins(rate, uplink, budget, best, np.random.default_rng(0), trials=6)
    assert len(seen) == 13
    for power, noise in seen:
        assert ((power >= 0) & (power <= uplink.power)).all()
        jammer = noise - uplink.thermal_cov
        assert np.linalg.eigvalsh(jammer).min() > -1e-12
        np.testing.assert_allclose(np.einsum("nii->n", jammer).real, budget)
    assert len({power.tobytes() for power, _ in seen}) == 7
    assert len({noise.tobytes() for _, noise in seen}) == 7


@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_kkt_residuals_of_the_allocation(floor: float) -> None:
    values, power = np.array([[9.0, 1.0, 0.1, 0.0], [5.0, 5.0, 4.0, 1e-3]]), np.array([0.5, 2.0])
    extra, nu = allocate(values, power, floor)
    left = kkt_residuals(values, extra, nu, power, floor)
    assert max(left.stationarity, left.unfilled, left.budget) < 1e-12
    assert left.filled == (3 if floor == 0 else 2)


def test_kkt_residuals_by_hand() -> None:
    """c (c + upsilon) = upsilon / nu: 1 (1 + 2) = 2 / (2/3)."""
    good = kkt_residuals([2.0, 0.0], [1.0, 0.0], 2 / 3, 1.0)
    assert (good.stationarity, good.unfilled, good.budget, good.filled) == (pytest.approx(0), 0, 0, 1)
    assert kkt_residuals([2.0, 0.0], [1.0, 0.0], 1 / 3, 1.0).stationarity == pytest.approx(1)
    assert kkt_residuals([2.0, 0.0], [1.0, 0.0], 2 / 3, 4.0).budget == pytest.approx(0.75)
    # left alone over a floor of 1: its gain 4 / (1 * 5) = .8 is twice the price
    assert kkt_residuals([4.0, 4.0], [1.0, 0.0], 0.4, 1.0, 1.0).unfilled == pytest.approx(1)
    assert kkt_residuals([2.0, 1.0], [1.0, 0.0], 2 / 3, 1.0).unfilled == np.inf  # free of noise


def test_bad_input() -> None:
    uplink = link(0, 3, 2, 0.1)
    with pytest.raises(InputError, match="trials is 0"):
        saddle_margins(sum_rate, uplink, 1.0, uplink.thermal_cov, np.random.default_rng(0), trials=0)
    with pytest.raises(InputError, match="power is -1"):
        saddle_margins(sum_rate, uplink, -1.0, uplink.thermal_cov, np.random.default_rng(0))
    with pytest.raises(InputError, match="nu is 0"):
        kkt_residuals([1.0], [1.0], 0.0, 1.0)
    with pytest.raises(InputError, match="eigenvalues is -1"):
        kkt_residuals([-1.0], [1.0], 1.0, 1.0)
