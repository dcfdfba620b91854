"""What an adversary knows of the channels."""

import numpy as np
import pytest

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.adversary import attack
from rmtllmf_lib.wireless.channel import Uplink, draw_uplinks
from rmtllmf_lib.wireless.csi import imperfect_csi
from wireless import complex_normal, unit_uplink

ESTIMATES = ["noisy", "mmse", "posterior"]


def drops(count: int) -> Uplink:
    """Rayleigh fading with path gains far apart."""
    rng = np.random.default_rng(1)
    gain = 10.0 ** -np.arange(3)
    return Uplink(complex_normal(rng, count, 8, 3) * np.sqrt(gain), np.array([0.5, 1, 2]), np.asarray(0.1))


def within(values: np.ndarray, expected: np.ndarray | float) -> None:
    """The mean over the first axis, within 3.5 standard errors (tens of comparisons)."""
    assert (np.abs(values.mean(axis=0) - expected) < 3.5 * values.std(axis=0) / len(values) ** 0.5).all()


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.9])
def test_noisy_estimate_has_the_channel_s_power_and_the_given_correlation(rho: float) -> None:
    uplink = drops(20_000)
    H, estimate = uplink.H, imperfect_csi(uplink, rho, np.random.default_rng(2)).H
    gain = 10.0 ** -np.arange(3)
    within(np.abs(estimate[:, 0]) ** 2 / gain, 1)
    cross = estimate[:, 0] * H[:, 0].conj() / gain
    within(cross.real, np.sqrt(rho))
    within(cross.imag, 0)
    users = estimate[:, 0, 0] * H[:, 0, 1].conj()  # errors do not mix the users
    within(users.real, 0)


@pytest.mark.parametrize("rho", [0.2, 0.7])
def test_mmse_estimate_leaves_an_error_that_is_orthogonal_to_it(rho: float) -> None:
    uplink = drops(20_000)
    estimate = imperfect_csi(uplink, rho, np.random.default_rng(3), estimate="mmse").H
    error, gain = uplink.H - estimate, 10.0 ** -np.arange(3)
    product = error[:, 0] * estimate[:, 0].conj() / gain
    within(product.real, 0)
    within(product.imag, 0)
    within(np.abs(error[:, 0]) ** 2 / gain, 1 - rho)


def test_posterior_is_the_mean_received_covariance() -> None:
    """Given the estimate, averaged over the channels that could be behind it."""
    rng, rho = np.random.default_rng(4), np.array([0.9, 0.5, 0.0])
    uplink = drops(1)
    believed = imperfect_csi(uplink, rho, np.random.default_rng(5), estimate="posterior")
    assert believed.H.shape == (1, 8, 11)
    mean = imperfect_csi(uplink, rho, np.random.default_rng(5), estimate="mmse").H
    spread = np.linalg.norm(uplink.H, axis=-2) / 8**0.5 * np.sqrt(1 - rho)
    G = (mean + spread[:, None, :] * complex_normal(rng, 20_000, 8, 3)) * np.sqrt(uplink.power)[:, None, :]
    covariance = G @ G.conj().swapaxes(-1, -2)
    expected = (believed.G @ believed.G.conj().swapaxes(-1, -2))[0]
    within(covariance.real[:, [0, 0, 1], [0, 1, 4]], expected.real[[0, 0, 1], [0, 1, 4]])
    within(covariance.imag[:, 0, 1], expected.imag[0, 1])


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_perfect_knowledge(estimate: str) -> None:
    uplink = unit_uplink(np.random.default_rng(6), 5)
    believed = imperfect_csi(uplink, 1.0, np.random.default_rng(0), estimate=estimate)
    np.testing.assert_array_equal(believed.H[..., :4], uplink.H)
    np.testing.assert_array_equal(believed.noise_floor, uplink.noise_floor)
    true, found = attack(uplink, 1.0), attack(uplink, 1.0, csi=believed)
    np.testing.assert_allclose(found.noise_cov, true.noise_cov, atol=1e-12)


@pytest.mark.parametrize("estimate", ["mmse", "posterior"])
def test_statistics_alone_give_the_white_jammer(estimate: str) -> None:
    uplink = unit_uplink(np.random.default_rng(7), 5)
    believed = imperfect_csi(uplink, 0.0, np.random.default_rng(0), estimate=estimate)
    white = attack(uplink, 2.0, "white")
    np.testing.assert_allclose(attack(uplink, 2.0, csi=believed).noise_cov, white.noise_cov, atol=1e-12)


def test_knowledge_is_worth_something_and_hedging_never_loses_to_white() -> None:
    """In the paper's setting, mean sum rates over drops: what is not known to be estimated badly does harm."""
    uplink = draw_uplinks(300, np.random.default_rng(8))
    budget = 10 * 16 * float(uplink.noise_floor[0])

    def rates(rho: float, estimate: str) -> np.ndarray:
        believed = imperfect_csi(uplink, rho, np.random.default_rng(9), estimate=estimate)
        return attack(uplink, budget, csi=believed).objective

    white = attack(uplink, budget, "white").objective
    hedged = [rates(rho, "posterior").mean() for rho in (0.0, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)]
    assert (np.diff(hedged) < 0).all()
    assert hedged[0] == pytest.approx(white.mean(), rel=1e-9)
    noisy = rates(0.0, "noisy")
    assert ((noisy - white) > 0).mean() > 0.95
    assert rates(0.2, "posterior").mean() < rates(0.2, "noisy").mean()


@pytest.mark.parametrize(
    ("rx", "gain", "slopes"), [(1, None, (0.92, 0.67)), (1, 1.0, (0.707, 0.707)), (64, None, (0.71, 0.70))]
)
def test_the_posterior_is_exact_if_the_mean_power_is_known(rx: int, gain: float | None, slopes: tuple) -> None:
    """Slope of E[h | h^] for weak and for strong estimates; one antenna has two with the power that was drawn."""
    uplink = Uplink(complex_normal(np.random.default_rng(0), 200_000 // rx, rx, 1), 1.0, 0.1)
    estimate = imperfect_csi(uplink, 0.5, np.random.default_rng(1), gain=gain).H.ravel()
    weak = np.abs(estimate) ** 2 < np.log(2)
    for some, slope in zip((weak, ~weak), slopes, strict=True):
        seen, true = estimate[some], uplink.H.ravel()[some]
        assert (true * seen.conj()).sum().real / np.square(np.abs(seen)).sum() == pytest.approx(slope, abs=0.03)


@pytest.mark.parametrize("gain", [-1.0, np.nan, [1.0, 2.0], "high"])
def test_gains_are_powers_of_the_users(gain: object) -> None:
    with pytest.raises(InputError, match="gain "):
        imperfect_csi(drops(2), 0.5, np.random.default_rng(0), gain=gain)  # type: ignore[arg-type]


def test_draws_are_paired_over_qualities() -> None:
    uplink = drops(3)
    low, high = (imperfect_csi(uplink, rho, np.random.default_rng(1)).H for rho in (0.36, 0.64))
    errors = [(low - 0.6 * uplink.H) / 0.8, (high - 0.8 * uplink.H) / 0.6]
    np.testing.assert_allclose(*errors, atol=1e-12)
    each = imperfect_csi(uplink, [0.36, 0.64, 1.0], np.random.default_rng(1)).H
    np.testing.assert_allclose(each[..., 0], low[..., 0])
    np.testing.assert_allclose(each[..., 1], high[..., 1])
    np.testing.assert_array_equal(each[..., 2], uplink.H[..., 2])


@pytest.mark.parametrize(
    ("quality", "options", "message"),
    [
        (1.1, {}, "quality is 1.1"),
        (-0.1, {}, "quality is -0.1"),
        (np.nan, {}, "quality holds NaN"),
        (1j, {}, "quality has dtype complex128"),
        ([0.5, 0.5], {}, r"quality has shape \(2,\): expected \(..., user\) = \(2, 3\)"),
        (0.5, {"estimate": "guess"}, "estimate is 'guess'.*'noisy'"),
    ],
)
def test_bad_input(quality: object, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        imperfect_csi(drops(2), quality, np.random.default_rng(0), **options)
