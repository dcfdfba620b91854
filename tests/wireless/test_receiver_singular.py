"""Receivers where the covariance is singular, and what they do not accept."""

import numpy as np
import pytest

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.channel import Uplink
from rmtllmf_lib.wireless.receiver import (
    error_cov,
    interference_free_rates,
    lmmse_error_cov,
    lmmse_filter,
    lmmse_mse,
    require_noise_cov,
    sic_filters,
    sic_mse,
    sic_order,
    sic_rates,
    sum_rate,
    sum_rate_published,
)
from wireless import colored, complex_normal, later_users, unit_uplink

ORDERS = ["weakest-first", "strongest-first"]
TAKING_A_COVARIANCE = [
    *(sic_rates, sic_mse, sum_rate, sum_rate_published, lmmse_mse, lmmse_error_cov, error_cov),
    *(sic_filters, lmmse_filter, interference_free_rates, require_noise_cov),
]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(6)


def on_range(G: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A covariance that lives on range(G), and the same in coordinates of that range."""
    basis = np.linalg.qr(G)[0]
    inner = colored(rng, rx=basis.shape[1])
    return basis @ inner @ basis.conj().T, basis


@pytest.mark.parametrize("order", ORDERS)
def test_noise_on_the_range_of_the_users_only(rng: np.random.Generator, order: str) -> None:
    """As the worst covariance without thermal noise: everything is finite, and as in the smaller space."""
    uplink = unit_uplink(rng)
    C, basis = on_range(uplink.G, rng)
    C = (C + C.conj().T) / 2
    small = Uplink(basis.conj().T @ uplink.H, uplink.power, uplink.noise_floor)
    inner = basis.conj().T @ C @ basis
    np.testing.assert_allclose(sic_rates(uplink, C, order), sic_rates(small, inner, order), rtol=1e-10)
    np.testing.assert_allclose(sum_rate(uplink, C), sum_rate(small, inner), rtol=1e-10)
    np.testing.assert_allclose(sum_rate_published(uplink, C), sum_rate_published(small, inner), rtol=1e-10)
    np.testing.assert_allclose(lmmse_error_cov(uplink, C), lmmse_error_cov(small, inner), atol=1e-10)
    np.testing.assert_allclose(
        sic_filters(uplink, C, order) @ uplink.G, sic_filters(small, inner, order) @ small.G, atol=1e-10
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("rx, users", [(4, 3), (4, 6)])
def test_noise_free_directions_are_the_limit(
    rng: np.random.Generator, order: str, rank: int, rx: int, users: int
) -> None:
    """Rates, MSEs and filters are those of a floor that vanishes; finite ones stay finite."""
    uplink = unit_uplink(rng, rx=rx, users=users)
    factor = complex_normal(rng, rx, rank)
    C = factor @ factor.conj().T
    near = C + 1e-10 * np.eye(rx)
    rates, limit = sic_rates(uplink, C, order), sic_rates(uplink, near, order)
    free = np.array([len(later) < rx - rank for later in later_users(uplink, order)])
    np.testing.assert_array_equal(np.isinf(rates), free)
    assert (limit[free] > 15).all()
    np.testing.assert_allclose(rates[~free], limit[~free], rtol=1e-5)
    np.testing.assert_array_equal(sic_mse(uplink, C, order)[free], 0)
    assert sum_rate(uplink, C) == sum_rate_published(uplink, C) == np.inf
    np.testing.assert_allclose(lmmse_error_cov(uplink, C), lmmse_error_cov(uplink, near), atol=1e-6)
    np.testing.assert_allclose(lmmse_filter(uplink, C), lmmse_filter(uplink, near), atol=1e-5)
    np.testing.assert_allclose(sic_filters(uplink, C, order), sic_filters(uplink, near, order), atol=1e-5)
    np.testing.assert_allclose(error_cov(uplink, C, C, order), error_cov(uplink, C, order=order), atol=1e-9)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("jammed", range(4))
def test_noise_along_one_user_alone(rng: np.random.Generator, order: str, jammed: int) -> None:
    """As the published attack on the strongest user: that user stays finite, the others hear no noise."""
    uplink = unit_uplink(rng)
    h = uplink.H[:, jammed] / np.linalg.norm(uplink.H[:, jammed])
    C = 2.0 * np.outer(h, h.conj())
    C = (C + C.conj().T) / 2
    near = C + 3e-9 * np.eye(6)  # off by as much in the limit as by rounding: the smaller, the worse conditioned
    free = np.arange(4) != jammed
    np.testing.assert_array_equal(np.isinf(sic_rates(uplink, C, order)), free)
    expected = np.log1p(uplink.received_power[jammed] / 2)
    assert sic_rates(uplink, C, order)[jammed] == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(lmmse_error_cov(uplink, C), lmmse_error_cov(uplink, near), atol=1e-7)
    np.testing.assert_allclose(sic_filters(uplink, C, order), sic_filters(uplink, near, order), atol=1e-6)
    np.testing.assert_allclose(lmmse_filter(uplink, C), lmmse_filter(uplink, near), atol=1e-6)


def test_infinite_snr(rng: np.random.Generator) -> None:
    uplink = unit_uplink(rng)
    nothing = np.zeros((6, 6))
    assert (sic_rates(uplink, nothing) == np.inf).all()
    assert (sic_mse(uplink, nothing) == 0).all()
    np.testing.assert_allclose(lmmse_mse(uplink, nothing), 0, atol=1e-15)
    np.testing.assert_allclose(lmmse_filter(uplink, nothing) @ uplink.G, np.eye(4), atol=1e-10)
    crowd = unit_uplink(rng, rx=2, users=5)
    for order in ORDERS:
        assert (
            np.isinf(sic_rates(crowd, np.zeros((2, 2)), order)[sic_order(crowd, order)]).tolist()
            == [False] * 3 + [True] * 2
        )


def test_singular_and_regular_drops_in_one_batch(rng: np.random.Generator) -> None:
    uplink, C = unit_uplink(rng, 3), colored(rng, 3)
    C[1] = on_range(uplink.G[1], rng)[0]
    C[2] = 0
    rates, W = sic_rates(uplink, C), sic_filters(uplink, C)
    for i in range(3):
        np.testing.assert_allclose(rates[i], sic_rates(uplink[i], C[i]), rtol=1e-10)
        np.testing.assert_allclose(W[i], sic_filters(uplink[i], C[i]), atol=1e-9)


def test_users_without_channel_or_power(rng: np.random.Generator) -> None:
    uplink = unit_uplink(rng)
    H, power = uplink.H.copy(), uplink.power.copy()
    H[:, 1], power[2] = 0, 0
    silent = Uplink(H, power, uplink.noise_floor)
    for C in (colored(rng), np.zeros((6, 6)), on_range(uplink.G, rng)[0]):
        for order in ORDERS:
            assert sic_rates(silent, C, order)[[1, 2]].tolist() == [0, 0]
            assert sic_mse(silent, C, order)[[1, 2]].tolist() == [1, 1]
        np.testing.assert_allclose(lmmse_mse(silent, C)[[1, 2]], 1, atol=1e-14)
        np.testing.assert_allclose(lmmse_filter(silent, C)[[1, 2]], 0, atol=1e-14)
    quiet = Uplink(np.zeros((6, 4)), uplink.power, uplink.noise_floor)
    assert sum_rate(quiet, np.zeros((6, 6))) == sum_rate_published(quiet, colored(rng)) == 0


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda C: C + np.triu(np.ones_like(C), 1), "noise_cov is not Hermitian"),
        (lambda C: C - 1e3 * np.eye(6), "noise_cov is indefinite"),
        (lambda C: C * np.nan, "noise_cov holds NaN"),
        (lambda C: C * np.inf, "noise_cov holds NaN or infinity"),
        (lambda C: C[:5, :5], r"noise_cov has shape \(5, 5\): expected \(..., rx, rx\) = \(6, 6\)"),
        (lambda C: C[0], r"noise_cov has shape \(6,\): expected"),
        (lambda C: C.astype(str), "noise_cov has dtype"),
    ],
)
@pytest.mark.parametrize("function", TAKING_A_COVARIANCE)
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_bad_covariances(rng: np.random.Generator, function, spoil, message: str) -> None:
    if function in (sic_filters, lmmse_filter):
        message = message.replace("noise_cov", "design_cov")
    with pytest.raises(InputError, match=message):
        uplink, C = unit_uplink(rng), spoil(colored(rng))
        function(C, uplink) if function is require_noise_cov else function(uplink, C)


def test_other_bad_arguments(rng: np.random.Generator) -> None:
    uplink, C = unit_uplink(rng, 3), colored(rng, 2)
    with pytest.raises(InputError, match=r"noise_cov has shape \(2, 6, 6\): expected .*\(3, 6, 6\)"):
        sic_rates(uplink, C)
    with pytest.raises(InputError, match="order is 'best'"):
        sic_rates(uplink, C[0], "best")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="receiver is 'zf'"):
        error_cov(uplink, C[0], receiver="zf")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="design_cov is indefinite"):
        error_cov(uplink, C[0], -C[0])
    with pytest.raises(InputError, match="noise_cov is indefinite"):
        error_cov(uplink, -C[0], C[0])
    with pytest.raises(InputError, match=r"noise_cov \(3, 1, 6, 6\) and design_cov \(2, 1, 6, 6\) do not fit"):
        error_cov(uplink, np.tile(C[:1, None], (3, 1, 1, 1)), C[:, None])


@pytest.mark.parametrize("order", ORDERS)
def test_diagonal_shared_and_full_covariances_take_different_ways_to_one_result(
    rng: np.random.Generator, order: str
) -> None:
    uplink = unit_uplink(rng, 5)
    C = np.diag(rng.uniform(0.1, 2, 6)).astype(complex)
    rotation = np.linalg.qr(complex_normal(rng, 6, 6))[0]
    turned = Uplink(rotation @ uplink.H, uplink.power, uplink.noise_floor)
    full = rotation @ C @ rotation.conj().T
    expected = sic_rates(uplink, C, order)
    for other in (sic_rates(turned, full, order), sic_rates(turned, np.tile(full, (5, 1, 1)), order)):
        np.testing.assert_allclose(other, expected, rtol=1e-12)
    np.testing.assert_allclose(
        sic_filters(turned, full, order) @ rotation, sic_filters(uplink, C, order), rtol=1e-9, atol=1e-13
    )


# --- covariances that were measured in single precision


def measured(seed: int, samples: int, dtype: type, rx: int = 6) -> np.ndarray:
    """Sample covariance of coloured noise, as a receiver in single precision computes it."""
    rng = np.random.default_rng(seed)
    noise = (complex_normal(rng, rx, samples) * np.linspace(0.2, 2, rx)[:, None]).astype(dtype)
    return noise @ noise.conj().T / dtype(samples)


@pytest.mark.parametrize("seed", range(5))
def test_single_precision_gives_the_results_of_double(seed: int) -> None:
    uplink = unit_uplink(np.random.default_rng(seed))
    found, exact = measured(seed, 100, np.complex64), measured(seed, 100, np.complex128)
    assert found.dtype == np.complex64
    for function in (sic_mse, lmmse_mse, sum_rate, interference_free_rates):
        np.testing.assert_allclose(function(uplink, found), function(uplink, exact), rtol=0, atol=2e-5)
    np.testing.assert_allclose(sic_mse(uplink, found), sic_mse(uplink, exact), rtol=0, atol=1e-6)
    for design in (found, np.stack([found, found])):
        shaped = Uplink(np.broadcast_to(uplink.H, (*design.shape[:-2], 6, 4)), uplink.power, 0.3)
        assert np.isfinite(error_cov(shaped, np.broadcast_to(exact, design.shape), design)).all()


@pytest.mark.parametrize("seed", range(5))
def test_single_precision_with_fewer_samples_than_antennas(seed: int) -> None:
    """Rounding makes some of the zero eigenvalues negative and some positive: none of them is noise."""
    uplink = unit_uplink(np.random.default_rng(seed))
    found, exact = measured(seed, 3, np.complex64), measured(seed, 3, np.complex128)
    np.testing.assert_allclose(sic_mse(uplink, found), sic_mse(uplink, exact), rtol=0, atol=1e-6)
    real = measured(seed, 3, np.complex64).real  # float32, symmetric
    assert real.dtype == np.float32
    assert (sic_mse(uplink, real) <= 1).all()
    C = require_noise_cov(found, uplink)
    np.testing.assert_array_equal(C, C.conj().T)


def test_single_precision_excuses_rounding_alone() -> None:
    uplink, C = unit_uplink(np.random.default_rng(0)), np.eye(6, dtype=np.complex64)
    C[0, 1] = 1e-3
    with pytest.raises(InputError, match="noise_cov is not Hermitian"):
        sic_mse(uplink, C)
    with pytest.raises(InputError, match="noise_cov is indefinite"):
        sic_mse(uplink, np.diag([1, 1, 1, 1, 1, -1e-3]).astype(np.float32))
    with pytest.raises(InputError, match="noise_cov is not Hermitian"):
        sic_mse(uplink, np.eye(6) + 1e-6 * np.triu(np.ones((6, 6)), 1))  # in double precision that is no rounding
