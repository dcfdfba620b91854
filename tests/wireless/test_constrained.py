"""Worst noise of given eigenvalues or given antenna powers, against rotations tried, a convex solver and the budget."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import unitary_group

from links import gaussian, link
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.adversary import attack
from rmtllmf_lib.wireless.channel import Uplink
from rmtllmf_lib.wireless.constrained import worst_correlation, worst_rotation
from rmtllmf_lib.wireless.receiver import sum_rate
from vectors import unhurried

FLOORS = pytest.mark.parametrize("floor", [0.0, 0.2])
SIZES = pytest.mark.parametrize(("antennas", "users"), [(1, 1), (2, 2), (4, 2), (3, 5), (6, 4)])


@FLOORS
@SIZES
def test_no_rotation_is_worse(antennas: int, users: int, floor: float) -> None:
    rng = np.random.default_rng(antennas + users)
    uplink = link(antennas + 7 * users, antennas, users, floor, spread=1)
    values = rng.exponential(size=antennas)
    found = worst_rotation(uplink, values)
    np.testing.assert_allclose(np.linalg.eigvalsh(found.noise_cov), floor + np.sort(values), rtol=1e-10, atol=1e-12)
    assert float(sum_rate(uplink, found.noise_cov)) == pytest.approx(float(found.objective), rel=1e-9)
    assert found.lower_bound == found.objective
    U = unitary_group.rvs(antennas, size=3000, random_state=rng).reshape(-1, antennas, antennas)
    tried = (U * values) @ U.conj().swapaxes(-1, -2) + uplink.thermal_cov
    rates = sum_rate(Uplink(np.broadcast_to(uplink.H, (3000, antennas, users)), uplink.power, floor), tried)
    assert rates.min() >= float(found.objective) * (1 - 1e-9)
    if antennas == 2:  # few enough dimensions to come near
        assert rates.min() <= float(found.objective) * 1.05


def test_rotations_that_leave_a_signal_free_of_noise() -> None:
    uplink = link(3, 4, 2, 0.0)
    assert np.isinf(worst_rotation(uplink, [1.0, 0, 0, 0]).objective)
    assert np.isfinite(worst_rotation(uplink, [1.0, 0, 0.1, 0]).objective)  # two directions of signal, both covered
    assert np.isfinite(worst_rotation(link(3, 4, 2, 0.1), [1.0, 0, 0, 0]).objective)
    assert worst_rotation(Uplink(np.zeros((4, 2), complex), np.ones(2), 0.0), np.zeros(4)).objective == 0


@FLOORS
def test_at_the_eigenvalues_of_the_best_jammer_it_is_that_jammer(floor: float) -> None:
    uplink = link(5, 5, 4, floor, batch=(3,), spread=1)
    best = attack(uplink, 2.0)
    values = np.linalg.eigvalsh(best.noise_cov - uplink.thermal_cov).clip(0)
    np.testing.assert_allclose(worst_rotation(uplink, values).objective, best.objective, rtol=1e-9)
    # one component is the rank-one jammer, equal ones are the white jammer
    one = worst_rotation(uplink, [0, 0, 2.0, 0, 0])
    if floor:
        np.testing.assert_allclose(one.objective, attack(uplink, 2.0, "rank-one").objective, rtol=1e-9)
    equal = worst_rotation(uplink, np.full(5, 0.4))
    np.testing.assert_allclose(equal.noise_cov, attack(uplink, 2.0, "white").noise_cov, rtol=1e-9, atol=1e-12)


@FLOORS
@SIZES
def test_no_correlation_is_worse(antennas: int, users: int, floor: float) -> None:
    cp = pytest.importorskip("cvxpy", reason="the reference is the test extra's convex solver")
    rng = np.random.default_rng(antennas * users)
    uplink = link(antennas + 5 * users, antennas, users, floor, spread=1)
    d = rng.exponential(size=antennas) + 0.05
    found = worst_correlation(uplink, d)
    jammer = found.noise_cov - uplink.thermal_cov
    np.testing.assert_allclose(np.diag(jammer).real, d, rtol=1e-12)
    assert np.linalg.eigvalsh(jammer)[0] > -1e-12
    assert found.objective - found.lower_bound <= 1.1e-6 * found.objective
    G = np.block([[uplink.G.real, -uplink.G.imag], [uplink.G.imag, uplink.G.real]])
    error, noise = cp.Variable((2 * users, 2 * users), symmetric=True), cp.Variable((2 * antennas,) * 2, PSD=True)
    block = cp.bmat([[np.eye(2 * users) - error, G.T], [G, noise + floor * np.eye(2 * antennas) + G @ G.T]])
    limits = [block >> 0, cp.diag(noise) == np.tile(d, 2)]
    reference = cp.Problem(cp.Minimize(-cp.log_det(error)), limits).solve(
        solver="CLARABEL", tol_gap_abs=1e-8, tol_gap_rel=1e-8, tol_feas=1e-8
    )
    assert float(found.objective) == pytest.approx(reference / 2, rel=1e-5)


@unhurried
@given(seed=st.integers(0, 2**32 - 1))
def test_moves_that_keep_the_diagonal_raise_the_rate(seed: int) -> None:
    rng = np.random.default_rng(seed)
    uplink = link(seed, 4, 3, 0.1, spread=1)
    d = rng.exponential(size=4) + 0.01
    found = worst_correlation(uplink, d)
    rows = gaussian(rng, 4, 4)
    other = rows @ rows.conj().T
    scale = np.sqrt(d / np.diag(other).real)
    other = scale[:, None] * other * scale + uplink.thermal_cov
    for part in (1e-3, 0.1, 1.0):
        tried = (1 - part) * found.noise_cov + part * other
        assert float(sum_rate(uplink, tried)) >= float(found.lower_bound) * (1 - 1e-12)


@FLOORS
def test_at_the_diagonal_of_the_best_jammer_it_is_that_jammer(floor: float) -> None:
    uplink = link(8, 4, 6, floor, batch=(2,), spread=1)
    best = attack(uplink, 2.0)
    d = np.einsum("...ii->...i", best.noise_cov - uplink.thermal_cov).real
    found = worst_correlation(uplink, d)
    np.testing.assert_allclose(found.objective, best.objective, rtol=3e-6)
    assert found.noise_cov.shape == best.noise_cov.shape and found.iterations > 0
    white = worst_correlation(uplink, np.full(4, 0.5))  # as strong at every antenna, and free to correlate
    assert (best.objective * (1 - 1e-6) <= white.objective).all()
    assert (white.objective <= attack(uplink, 2.0, "white").objective * (1 + 1e-9)).all()


def test_spared_antennas() -> None:
    uplink = link(9, 4, 2, 0.1)
    found = worst_correlation(uplink, [1.0, 0.0, 0.5, 0.0])
    jammer = found.noise_cov - uplink.thermal_cov
    np.testing.assert_allclose(jammer[[1, 3]], 0, atol=1e-15)
    assert abs(jammer[0, 2]) > 1e-3 and found.objective - found.lower_bound <= 1.1e-6 * found.objective
    assert worst_correlation(uplink, np.zeros(4)).objective == pytest.approx(
        float(sum_rate(uplink, uplink.thermal_cov))
    )
    assert np.isinf(worst_correlation(link(9, 4, 2, 0.0), [1.0, 0.0, 0.5, 0.2]).objective)
    deaf = Uplink(uplink.H * [[1], [0], [1], [1]], uplink.power, 0.0)  # nothing to hear where it is spared
    assert np.isfinite(worst_correlation(deaf, [1.0, 0.0, 0.5, 0.2]).objective)


def test_powers_far_apart_and_any_unit() -> None:
    uplink = link(4, 6, 4, 0.01, spread=4)
    d = 10.0 ** np.arange(-5, 1)
    found = worst_correlation(uplink, d)
    assert found.objective - found.lower_bound <= 1.1e-6 * found.objective
    small = worst_correlation(Uplink(uplink.H, uplink.power * 1e-13, 1e-15), d * 1e-13)
    assert float(small.objective) == pytest.approx(float(found.objective), rel=2e-6)


@pytest.mark.parametrize("function", [worst_rotation, worst_correlation])
def test_bad_powers(function) -> None:  # type: ignore[no-untyped-def]
    name = "eigenvalues" if function is worst_rotation else "diagonal"
    for wrong in ([1, 2, -1, 0], [1, np.nan, 1, 1], [1, 2, 3], "a"):
        with pytest.raises(InputError, match=name):
            function(link(1, 4, 2, 0.1), wrong)
    with pytest.raises(InputError, match="uplink"):
        function(None, [1.0])
