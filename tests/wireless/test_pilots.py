"""Receivers that know the channels from pilots: their law, and what the error of an estimate counts for."""

import numpy as np
import pytest

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.channel import Uplink
from rmtllmf_lib.wireless.csi import imperfect_csi
from rmtllmf_lib.wireless.pilots import (
    channel_from_pilots,
    pilot_quality,
    with_estimation_error,
)
from rmtllmf_lib.wireless.receiver import lmmse_filter
from wireless import colored, complex_normal, unit_uplink


def pilots_sent(uplink: Uplink, root: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Estimates (drop, rx, user) by the book: orthogonal sequences through the antennas, correlated, not shrunk."""
    users = uplink.num_users
    phases = np.outer(np.arange(users), np.arange(length))
    sequences = np.exp(2j * np.pi * phases / length)  # rows of a Fourier matrix: orthogonal, of power 1 a symbol
    noise = root @ complex_normal(rng, len(uplink.H), uplink.num_rx_antennas, length)
    y = uplink.G @ sequences + noise
    return y @ sequences.conj().T / length / np.sqrt(uplink.power)[:, None, :]


def test_estimates_have_the_law_of_pilots_sent_through_the_antennas() -> None:
    rng = np.random.default_rng(0)
    count, length, gain = 20_000, 5, np.array([1.0, 0.3, 0.1])
    H = complex_normal(rng, count, 2, 3) * np.sqrt(gain)
    uplink = Uplink(H, np.array([0.5, 1.0, 2.0]), np.asarray(0.4))
    C = colored(rng, rx=2)
    sent = pilots_sent(uplink, np.linalg.cholesky(C), length, rng)
    rho = pilot_quality(uplink, length, noise=np.trace(C).real / 2, gain=np.broadcast_to(gain, (count, 3)))
    estimate = channel_from_pilots(uplink, C, length, rng, gain=np.broadcast_to(gain, (count, 3))).H
    for q in range(3):
        for found, expected in ((estimate[..., q], rho[0, q] * sent[..., q]),):
            error, wanted = found - rho[:, q, None] * H[..., q], expected - rho[:, q, None] * H[..., q]
            covs = [np.einsum("ni,nj->ij", each, each.conj()) / count for each in (error, wanted)]
            np.testing.assert_allclose(*covs, atol=0.08 * np.abs(covs[1]).max())


def test_in_white_noise_the_error_is_what_the_quality_says() -> None:
    """Variance (1 - rho) b, uncorrelated with the estimate, as of `imperfect_csi`."""
    rng = np.random.default_rng(1)
    count, b = 40_000, 0.5
    uplink = Uplink(np.sqrt(b) * complex_normal(rng, count, 2, 2), np.array([1.0, 3.0]), np.asarray(0.7))
    gain = np.full((count, 2), b)
    rho = pilot_quality(uplink, 4, gain=gain)[0]
    np.testing.assert_allclose(rho, 4 * b * np.array([1, 3]) / (4 * b * np.array([1, 3]) + 0.7))
    by_pilots = channel_from_pilots(uplink, uplink.thermal_cov, 4, rng, gain=gain).H
    by_quality = imperfect_csi(uplink, rho, rng, estimate="mmse", gain=gain).H
    for estimate in (by_pilots, by_quality):
        error = uplink.H - estimate
        np.testing.assert_allclose(np.mean(np.abs(error) ** 2, axis=(0, 1)), (1 - rho) * b, rtol=0.03)
        assert np.abs(np.mean(error * estimate.conj(), axis=(0, 1))).max() < 0.01


def test_the_error_of_the_estimate_counts_as_noise() -> None:
    """Averaged over channels behind one estimate, no perturbed filter does better than the one designed for it."""
    rng = np.random.default_rng(6)
    rho, b, count = 0.6, 1.0, 20_000
    estimate = Uplink(np.sqrt(rho) * complex_normal(rng, 4, 2), np.array([1.0, 2.0]), np.asarray(0.3))
    H = estimate.H + np.sqrt((1 - rho) * b) * complex_normal(rng, count, 4, 2)
    G, C = H * np.sqrt(estimate.power), colored(rng, rx=4)
    F = lmmse_filter(estimate, with_estimation_error(C, estimate, rho, gain=[b, b]))

    def mse(filters: np.ndarray) -> float:
        B = np.eye(2) - filters @ G
        return float((np.abs(B) ** 2).sum() / count + np.trace(filters @ C @ filters.conj().T).real)

    best = mse(F)
    assert best < mse(lmmse_filter(estimate, C))
    for size in (0.05, 0.2):
        for _ in range(20):
            assert mse(F + size * np.abs(F).max() * complex_normal(rng, 2, 4)) > best


def test_longer_pilots_help_and_the_limit_is_the_truth() -> None:
    rng = np.random.default_rng(7)
    uplink, C = unit_uplink(rng, 4), colored(rng, 4)
    near = channel_from_pilots(uplink, C, 10**9, np.random.default_rng(0)).H
    np.testing.assert_allclose(near, uplink.H, atol=1e-3)
    short, long = (pilot_quality(uplink, length) for length in (4, 40))
    assert (short < long).all() and (long < 1).all()


def test_a_silent_user_is_estimated_as_absent() -> None:
    rng = np.random.default_rng(8)
    uplink = Uplink(complex_normal(rng, 4, 2), [1.0, 0.0], 0.1)
    assert not channel_from_pilots(uplink, uplink.thermal_cov, 2, rng).H[:, 1].any()


def test_bad_pilots_are_refused() -> None:
    rng = np.random.default_rng(9)
    uplink = unit_uplink(rng)
    with pytest.raises(InputError, match="length is 3"):
        pilot_quality(uplink, 3)
    with pytest.raises(InputError, match="noise"):
        pilot_quality(uplink, 4, noise=-1.0)
    with pytest.raises(InputError, match="quality"):
        with_estimation_error(np.eye(6), uplink, 1.5)
