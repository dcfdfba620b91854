import numpy as np
import pytest

from links import gaussian
from rmtllmf_lib.wireless.minimax import Bracket, _best_response, _curvature, minimax, minimax_sic


def alone(G: np.ndarray, floor: float, gap: float, limit: int = 60) -> Bracket:
    """Reading (ii) for a single drop."""
    found = minimax_sic(G[None], np.array([floor]), gap, limit)
    return Bracket(found.cov[0], found.upper[0], found.lower[0], found.iterations)


SIZES = [(1, 1), (1, 3), (2, 2), (2, 6), (8, 8), (8, 16)]


def columns(seed: int, size: int, users: int, spread: float) -> np.ndarray:
    """G in its range, strongest column of norm one, weakest first."""
    generator = np.random.default_rng(seed)
    G = gaussian(generator, size, users) * 10 ** (-spread / 2 * generator.random(users))
    norms = np.linalg.norm(G, axis=0)
    return G[:, np.argsort(norms)] / norms.max()


def is_jammer(bracket: Bracket) -> None:
    values = np.linalg.eigvalsh(bracket.cov)
    assert values.min() >= -1e-12
    np.testing.assert_allclose(values.sum(axis=-1), 1, rtol=1e-9)


@pytest.mark.parametrize("floor", [0.0, 1e-3, 0.3, 1e3])
@pytest.mark.parametrize(("size", "users"), SIZES)
@pytest.mark.parametrize("spread", [0, 4])
def test_minimax_reaches_the_gap(size: int, users: int, floor: float, spread: float) -> None:
    G = np.stack([columns(seed, size, users, spread) for seed in range(3)])
    bracket = minimax(G, np.full(3, floor), 1e-8, 60)
    is_jammer(bracket)
    assert ((bracket.upper - bracket.lower) <= 1e-8 * bracket.upper).all()
    noise = bracket.cov + floor * np.eye(size)
    sinr = np.einsum("biq,bij,bjq->bq", G.conj(), np.linalg.inv(noise), G).real
    np.testing.assert_allclose(sinr.max(axis=-1), bracket.upper, rtol=1e-8)


@pytest.mark.parametrize("floor", [0.0, 1e-3, 0.3, 1e3])
@pytest.mark.parametrize(("size", "users"), SIZES)
@pytest.mark.parametrize(("spread", "strength"), [(0, 1), (4, 1), (2, 1e-4), (2, 30), (2, 1e4)])
def test_minimax_sic_reaches_the_gap(size: int, users: int, floor: float, spread: float, strength: float) -> None:
    G = strength * columns(5, size, users, spread)
    bracket = alone(G, floor, 1e-6)
    is_jammer(bracket)
    assert bracket.upper - bracket.lower <= 1e-6 * bracket.upper
    assert bracket.iterations <= 40
    cov, largest, rounding = bracket.cov + floor * np.eye(size), 0.0, 0.0
    for g in G.T[::-1]:  # the last one to be decoded meets the noise alone
        rounding = max(rounding, np.finfo(float).eps * np.linalg.cond(cov))  # of the solution, 1e-4 for strong users
        largest = max(largest, (g.conj() @ np.linalg.solve(cov, g)).real)
        cov = cov + np.outer(g, g.conj())
    assert largest == pytest.approx(bracket.upper, rel=1e-6 + rounding)


def test_bounds_hold_wherever_the_solvers_stop() -> None:
    G = columns(3, 4, 7, 2)
    best = [float(minimax(G[None], np.array([0.1]), 1e-9, 60).upper[0]), float(alone(G, 0.1, 1e-7).upper)]
    for limit in range(1, 8):
        early = [minimax(G[None], np.array([0.1]), 1e-9, limit), alone(G, 0.1, 1e-7, limit)]
        for bracket, value in zip(early, best, strict=True):
            assert bracket.lower <= value * (1 + 1e-9)
            assert bracket.upper >= value * (1 - 1e-6)
            assert bracket.iterations <= limit


@pytest.mark.parametrize("strength", [1, 30, 1e3])
@pytest.mark.parametrize("floor", [0.0, 0.3, 30.0])
def test_the_first_bounds_hold_under_strong_interference(strength: float, floor: float) -> None:
    G = np.stack([strength * columns(seed, 4, 6, 1) for seed in range(6)])
    floors = np.full(6, floor)
    best = minimax_sic(G, floors, 1e-8, 100)
    for limit in range(4):
        early = minimax_sic(G, floors, 1e-8, limit)
        assert (early.lower <= best.lower * (1 + 1e-8)).all()
        assert (early.upper >= best.upper * (1 - 1e-8)).all()
        assert (early.lower >= 0.2 * best.lower).all()


def test_orthogonal_users_share_by_their_power() -> None:
    """In closed form: C is diagonal, and every user has the same SINR, the sum of the received powers."""
    G = np.diag([1.0, 0.5, 0.1]).astype(complex)
    bracket = minimax(G[None], np.zeros(1), 1e-10, 60)
    received = np.array([1.0, 0.25, 0.01])
    assert bracket.upper[0] == pytest.approx(received.sum(), rel=1e-9)
    np.testing.assert_allclose(np.diagonal(bracket.cov[0]).real, received / received.sum(), rtol=1e-6)
    found = alone(G[:, ::-1], 0.0, 1e-8)
    assert float(found.upper) == pytest.approx(received.sum(), rel=1e-7)


@pytest.mark.parametrize("floor", [0.0, 0.01])
def test_large_systems(floor: float) -> None:
    G = columns(1, 32, 32, 3)
    bracket = minimax(G[None], np.full(1, floor), 1e-6, 60)
    assert bracket.upper[0] - bracket.lower[0] <= 1e-6 * bracket.upper[0]


def test_large_systems_with_interference() -> None:
    bracket = alone(columns(1, 24, 24, 3), 0.01, 1e-5)
    assert bracket.upper - bracket.lower <= 1e-5 * bracket.upper


@pytest.mark.parametrize("floor", [0.0, 0.05, 0.3])
def test_curvature_is_the_derivative(floor: float) -> None:
    """With this it converges in a dozen steps; with a wrong one it might still, slowly."""
    G, noise = columns(2, 5, 7, 2)[None], np.array([floor])
    weights = np.random.default_rng(0).dirichlet(np.ones(7))[None]
    exact = _curvature(_best_response(G, noise, weights))[0]
    step = 1e-6 * np.eye(7)
    ahead, behind = ([_best_response(G, noise, weights + sign * d).sinr[0] for d in step] for sign in (1, -1))
    change = (np.array(ahead) - behind) / 2e-6
    np.testing.assert_allclose(change.T, exact, rtol=1e-5, atol=1e-5 * np.abs(exact).max())
    assert np.linalg.eigvalsh(exact).max() <= 1e-9 * np.abs(exact).max()


def test_drops_of_a_batch_do_not_affect_each_other() -> None:
    """Neither those that take longer nor silent users."""
    G = np.stack([columns(seed, 4, 7, 2 * seed) for seed in range(4)])
    G[1, :, 2] = 0
    floor = np.array([0.1, 0.3, 0.0, 1e3])
    together = minimax_sic(G, floor, 1e-8, 60)
    for drop in range(4):
        found = alone(G[drop][:, np.abs(G[drop]).max(axis=0) > 0], floor[drop], 1e-8)
        assert together.upper[drop] == pytest.approx(float(found.upper), rel=2e-8)
        np.testing.assert_allclose(together.cov[drop], found.cov, atol=1e-3)
