"""The noise covariance from silent snapshots, against its Wishart law, and receivers built on it."""

import numpy as np
import pytest

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.adversary import attacked_cov, jammer_power
from rmtllmf_lib.wireless.channel import draw_uplinks
from rmtllmf_lib.wireless.receiver import error_cov, sic_filters, sic_mse
from rmtllmf_lib.wireless.sensing import draw_snapshots, nulling_cov, sensed_cov
from wireless import colored, complex_normal, unit_uplink


def silent(count: int, rx: int = 4, drops: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """One covariance, and snapshots of it in many drops."""
    rng = np.random.default_rng(3)
    C = colored(rng, rx=rx)
    uplink = unit_uplink(rng, drops, rx=rx, users=1)
    return C, draw_snapshots(uplink, C, count, rng)


def test_without_a_floor_it_follows_the_wishart_law() -> None:
    """`E S = C` and `cov(S_ij, S_kl) = C_ik C_jl* / K`, the second moments of a complex Wishart matrix over K."""
    K = 5
    C, snapshots = silent(K)
    S = sensed_cov(snapshots, 0.0)
    error = 5 / len(S) ** 0.5 * np.abs(C).max()
    assert np.abs(S.mean(axis=0) - C).max() < error
    moved = (S - C).reshape(len(S), -1)
    found = np.einsum("ni,nj->ij", moved, moved.conj()) / len(S)
    expected = np.kron(C, C.conj()) / K
    assert np.abs(found - expected).max() < 20 / len(S) ** 0.5 * np.abs(expected).max()


def test_the_determinant_follows_the_wishart_law() -> None:
    """`log det(K S)` has the mean `log det C + sum_i psi(K - i)`, i = 0 … rx - 1."""
    from scipy.special import psi

    K = 6
    C, snapshots = silent(K)
    found = np.linalg.slogdet(K * sensed_cov(snapshots, 0.0))[1]
    expected = np.linalg.slogdet(C)[1] + psi(K - np.arange(4)).sum()
    assert abs(found.mean() - expected) < 4 * found.std() / len(found) ** 0.5


@pytest.mark.parametrize("K", [1, 3, 12])
def test_with_a_floor_it_is_the_most_likely_covariance(K: int) -> None:
    """No covariance with that floor makes the snapshots more likely: those close by and far off are tried."""
    rng = np.random.default_rng(K)
    C, snapshots = silent(K, drops=1)
    floor = 0.6 * np.linalg.eigvalsh(C)[0]
    found = sensed_cov(snapshots[0], floor)
    assert np.linalg.eigvalsh(found)[0] > (1 - 1e-9) * floor
    S = snapshots[0] @ snapshots[0].conj().T / K

    def likelihood(cov: np.ndarray) -> float:
        return float(-np.linalg.slogdet(cov)[1] - np.trace(np.linalg.solve(cov, S)).real)

    best = likelihood(found)
    for size in (1e-3, 1e-2, 0.1, 1.0):
        for _ in range(50):
            step = colored(rng, rx=4) - colored(rng, rx=4)
            values, vectors = np.linalg.eigh(found + size * step)
            other = (vectors * values.clip(floor)) @ vectors.conj().T
            assert likelihood(other) <= best + 1e-9


def test_many_snapshots_give_the_matched_receiver() -> None:
    rng = np.random.default_rng(0)
    uplink = draw_uplinks(30, rng)
    C = attacked_cov(uplink, jammer_power(uplink, 9), "sum-rate")
    sensed = sensed_cov(draw_snapshots(uplink, C, 20_000, rng), uplink.noise_floor)
    found = np.einsum("...ii->...i", error_cov(uplink, C, sensed)).real
    np.testing.assert_allclose(found, sic_mse(uplink, C), rtol=0.02)


def test_each_drop_has_its_own_floor() -> None:
    snapshots = np.zeros((2, 3, 4), complex)
    found = sensed_cov(snapshots, [1.0, 2.0])
    np.testing.assert_allclose(found, np.array([1.0, 2.0])[:, None, None] * np.eye(3))


def test_nulling_takes_nothing_from_the_jammer_s_direction() -> None:
    rng = np.random.default_rng(1)
    uplink = unit_uplink(rng, 5)
    jammer = complex_normal(rng, 5, 6)
    C = 0.3 * np.eye(6) + 3 * jammer[:, :, None] * jammer[:, None, :].conj()
    filters = sic_filters(uplink, nulling_cov(C, 1))
    leaked = np.abs(filters @ jammer[..., None]) / np.linalg.norm(filters, axis=-1)[..., None]
    assert leaked.max() < 1e-6
    np.testing.assert_allclose(nulling_cov(C, 0), C, atol=1e-12)
    # nulling one direction costs at most what whitening loses: whitening is optimal
    nulled = np.einsum("...ii->...i", error_cov(uplink, C, nulling_cov(C, 1))).real
    assert (nulled > sic_mse(uplink, C) - 1e-12).all()


@pytest.mark.parametrize("shape", [(4, 0), (0, 4), (4,)])
def test_no_snapshots_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"snapshots has shape"):
        sensed_cov(np.ones(shape), 1.0)


def test_fewer_snapshots_than_antennas_need_a_floor() -> None:
    with pytest.raises(InputError, match=r"3 snapshots of 4 antennas and noise_floor is 0"):
        sensed_cov(np.ones((4, 3)), 0.0)
    assert sensed_cov(np.ones((4, 3)), 0.1).shape == (4, 4)


def test_bad_counts_and_matrices_are_refused() -> None:
    uplink = unit_uplink(np.random.default_rng(0))
    with pytest.raises(InputError, match="count is 0"):
        draw_snapshots(uplink, np.eye(6), 0, np.random.default_rng(0))
    with pytest.raises(InputError, match="noise_cov"):
        draw_snapshots(uplink, np.eye(5), 3, np.random.default_rng(0))
    with pytest.raises(InputError, match="directions is 6"):
        nulling_cov(np.eye(6), 6)
    with pytest.raises(InputError, match="noise_floor"):
        sensed_cov(np.ones((4, 5)), -1.0)
