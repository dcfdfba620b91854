"""The decomposition that attacks share; whitening and filters are tested through the receivers."""

import numpy as np
import pytest

from rmtllmf_lib.wireless.square_root import Whitened, log_gains, thin_svd
from wireless import complex_normal


def is_decomposition(G: np.ndarray, tolerance: float) -> None:
    U, s, right = thin_svd(G)
    size = min(G.shape[-2:])
    assert U.shape == (*G.shape[:-1], size) and s.shape == (*G.shape[:-2], size)
    assert right.shape == (*G.shape[:-2], size, G.shape[-1])
    reference = np.linalg.svd(G, compute_uv=False)
    largest = reference[..., :1]
    assert (np.abs(s - reference) <= 1e-14 * largest).all()
    assert (np.diff(s) <= 1e-14 * largest).all()
    assert (np.abs((U * s[..., None, :]) @ right - G) <= 1e-14 * largest[..., None]).all()
    for unit in (U.conj().swapaxes(-1, -2) @ U, right @ right.conj().swapaxes(-1, -2)):
        np.testing.assert_allclose(unit, np.broadcast_to(np.eye(size), unit.shape), atol=tolerance)


@pytest.mark.parametrize("scale", [1e-140, 1e-20, 1.0, 1e6])
@pytest.mark.parametrize("shape", [(16, 8), (8, 16), (5, 5), (7, 1), (1, 7)])
def test_even_channels(shape: tuple[int, int], scale: float) -> None:
    is_decomposition(scale * complex_normal(np.random.default_rng(0), 300, *shape), 1e-10)


@pytest.mark.parametrize("spread", [0.5, 1.9, 2.1, 4, 12])
def test_channels_of_users_far_apart(spread: float) -> None:
    """On both sides of the ratio at which the shorter way ends."""
    rng = np.random.default_rng(1)
    G = complex_normal(rng, 50, 9, 6) * 10 ** -np.linspace(0, spread, 6)
    is_decomposition(G, 1e-10)
    is_decomposition(G @ np.linalg.qr(complex_normal(rng, 6, 6))[0], 1e-10)


def test_dependent_and_silent_channels_in_one_batch() -> None:
    rng = np.random.default_rng(2)
    G = complex_normal(rng, 5, 6, 4)
    G[1, :, 3] = 2j * G[1, :, 0]
    G[2] = 0
    G[3, :, 1:] = 0
    is_decomposition(G, 1e-10)
    is_decomposition(1e-200 * G, 1e-10)
    is_decomposition(np.ascontiguousarray(G.swapaxes(-1, -2)), 1e-10)


def test_short_way_keeps_the_digits_that_squaring_loses() -> None:
    """Weak directions to a few roundings of the largest, and orthonormal."""
    rng = np.random.default_rng(3)
    left, right = (np.linalg.qr(complex_normal(rng, 200, 8, 8))[0] for _ in range(2))
    values = np.array([1, 0.9, 0.5, 0.3, 0.1, 0.05, 0.03, 0.02])
    G = (left * values) @ right
    U, s, _ = thin_svd(G)
    assert np.abs(s / values - 1).max() < 1e-13
    squared = np.sqrt(np.linalg.eigvalsh(G.conj().swapaxes(-1, -2) @ G)[:, ::-1])
    assert np.abs(squared / values - 1).max() > 3 * np.abs(s / values - 1).max()
    assert np.abs(U.conj().swapaxes(-1, -2) @ U - np.eye(8)).max() < 1e-11


@pytest.mark.parametrize("angle", [1.0, 0.1, 1e-2, 1e-4])
@pytest.mark.parametrize("energy", [1e-6, 1.0, 1e4, 1e10])
def test_rates_of_users_in_nearly_one_direction(angle: float, energy: float) -> None:
    """In closed form; beside a drop of users far apart, which takes the shorter way."""
    near = np.array([[1, np.cos(angle)], [0, 1j * np.sin(angle)], [0, 0]]) * np.sqrt(energy)
    far = np.array([[1, 0], [0, 1], [0, 0]]) * np.sqrt(energy)
    alone = np.log1p(energy)
    # of the second column, the first leaves what is across it, and 1 / (1 + energy) of what is along it
    left = np.log1p(energy * np.sin(angle) ** 2 + energy * np.cos(angle) ** 2 / (1 + energy))
    rates = log_gains(Whitened(np.stack([near, far]).astype(complex), None))
    np.testing.assert_allclose(rates, [[alone, left], [alone, alone]], rtol=1e-11)


def test_rates_where_squares_are_not_positive_definite() -> None:
    W = 1e9 * np.ones((1, 4, 3), dtype=complex)
    rates = log_gains(Whitened(W, None))[0]
    np.testing.assert_allclose(rates, [np.log1p(4e18), np.log(2), np.log(1.5)], rtol=1e-6)
