"""The jammer's budget, its covariance, and the largest rate that is left."""

import tracemalloc

import numpy as np
import pytest

from links import link
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.adversary import attack, attacked_cov, jammer_power, largest_rate
from rmtllmf_lib.wireless.channel import Uplink
from wireless import textbook_rates, unit_uplink


def test_jammer_power() -> None:
    uplink = link(0, 4, 2, 0.5, batch=(3,))
    np.testing.assert_allclose(jammer_power(uplink, 10), 4 * 0.5 * 10)
    white = attack(uplink, jammer_power(uplink, 3), "white").noise_cov - uplink.thermal_cov
    np.testing.assert_allclose(white[0, 0, 0] / 0.5, 10**0.3)
    with pytest.raises(InputError, match="noise_floor is 0"):
        jammer_power(link(0, 4, 2), 10)
    with pytest.raises(InputError, match="jnr_db"):
        jammer_power(uplink, np.nan)


def test_largest_rate() -> None:
    uplink = unit_uplink(np.random.default_rng(0))
    cov = attack(uplink, 2.0, "strongest-user").noise_cov
    assert largest_rate(uplink, cov, "weakest-first") == pytest.approx(
        textbook_rates(uplink, cov, "weakest-first").max()
    )
    alone = [np.log1p((g.conj() @ np.linalg.solve(cov, g)).real) for g in uplink.G.T]
    assert largest_rate(uplink, cov) == pytest.approx(max(alone))


def test_attacked_cov() -> None:
    uplink = link(0, 4, 2, 0.5, batch=(3,))
    assert np.array_equal(attacked_cov(uplink, 2.0, "none"), uplink.thermal_cov)
    first = attacked_cov(uplink, 2.0, "minimax-sic", "strongest-first")
    assert np.array_equal(first, attack(uplink, 2.0, "minimax-sic", order="strongest-first").noise_cov)


def test_silence_is_the_best_that_powers_can_do() -> None:
    """No powers give any user more than it has alone, and being alone at full power is one of the choices."""
    uplink, generator = unit_uplink(np.random.default_rng(1)), np.random.default_rng(2)
    cov = attack(uplink, 3.0, "strongest-user").noise_cov
    best = largest_rate(uplink, cov)
    for _ in range(50):
        power = uplink.power * generator.random(4) * (generator.random(4) < 0.5)
        assert largest_rate(Uplink(uplink.H, power, uplink.noise_floor), cov, "weakest-first") <= best * (1 + 1e-12)
    only = [Uplink(uplink.H, uplink.power * np.eye(4)[q], uplink.noise_floor) for q in range(4)]
    assert max(float(largest_rate(each, cov, "weakest-first")) for each in only) == pytest.approx(float(best))


def test_largest_rate_needs_no_copy_of_the_covariance_for_each_user() -> None:
    """At 64 antennas, 32 users and 10,000 drops the copies took 21 GB."""
    uplink = link(0, 24, 16, 0.5, batch=(600,))
    cov = attacked_cov(uplink, 2.0, "sum-rate")
    tracemalloc.start()
    best = largest_rate(uplink, cov)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * cov.nbytes
    alone = [np.log1p((g.conj() @ np.linalg.solve(cov[3], g)).real) for g in uplink.G[3].T]
    assert best[3] == pytest.approx(max(alone), rel=1e-13)
