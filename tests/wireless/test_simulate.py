"""Simulated MSEs against the formulas, and the receivers by antennas against textbook algebra."""

import numpy as np
import pytest

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.channel import Uplink
from rmtllmf_lib.wireless.receiver import error_cov, lmmse_filter, lmmse_mse, sic_mse
from rmtllmf_lib.wireless.simulate import (
    covariance_root,
    decide,
    draw_symbols,
    measure_mse,
    posterior_mean,
    receive,
    sample_cov,
)
from wireless import colored, complex_normal, unit_uplink

ORDERS = ["weakest-first", "strongest-first"]
QAM64 = np.array([a + 1j * b for a in range(-7, 8, 2) for b in range(-7, 8, 2)]) / np.sqrt(42)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.mark.parametrize("symbols", ["gaussian", "qam64"])
@pytest.mark.parametrize("order", ORDERS)
def test_perfect_cancellation_has_the_mse_of_the_formula(rng: np.random.Generator, symbols: str, order: str) -> None:
    """Eq. (5), with coloured noise in a batch of drops."""
    uplink = unit_uplink(rng, 3)
    C = colored(rng, 3)
    found = measure_mse(uplink, C, n=20_000, rng=rng, symbols=symbols, order=order)
    assert found.n == 20_000 and found.mse.shape == (3, 4)
    assert (np.abs(found.mse - sic_mse(uplink, C, order)) < 3 * found.standard_error).all()
    assert (found.standard_error < 0.02 * found.mse).all()
    assert np.isnan(found.symbol_errors).all() == (symbols == "gaussian")


@pytest.mark.parametrize("receiver", ["sic", "lmmse"])
@pytest.mark.parametrize("mismatched", [False, True])
def test_errors_across_users(rng: np.random.Generator, receiver: str, mismatched: bool) -> None:
    """The whole covariance, real and imaginary parts, of matched and of jammer-unaware receivers."""
    uplink = unit_uplink(rng)
    C = colored(rng)
    design = uplink.thermal_cov if mismatched else None
    n = 60_000
    found = measure_mse(uplink, C, n=n, rng=rng, receiver=receiver, design_cov=design)
    wanted = error_cov(uplink, C, design, receiver=receiver)
    power = np.einsum("ii->i", wanted).real
    spread = np.sqrt(np.outer(power, power) / (2 * n))  # of either part, for Gaussian errors without correlation
    part = (found.error_cov - wanted) / np.sqrt(2) / spread
    assert np.abs(part.real).max() < 3 and np.abs(part.imag).max() < 3
    np.testing.assert_allclose(np.einsum("ii->i", found.error_cov).real, found.mse)
    np.testing.assert_allclose(found.standard_error, power / np.sqrt(n), rtol=0.05)
    if mismatched or receiver == "lmmse":
        assert (np.abs(wanted - np.diag(power)) > 3 * spread).any()  # there is a correlation to be seen


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("mismatched", [False, True])
def test_cancelling_own_estimates_is_joint_lmmse(rng: np.random.Generator, order: str, mismatched: bool) -> None:
    """Estimate by estimate, not only on average: linear estimates leave nothing to be gained by cancellation."""
    uplink = unit_uplink(rng, 2, 3, rx=5, users=6)
    C = colored(rng, 2, 3, rx=5)
    design = uplink.thermal_cov if mismatched else C
    s = draw_symbols((2, 3, 6, 40), rng)
    y = uplink.G @ s + covariance_root(C) @ complex_normal(rng, 2, 3, 5, 40)
    found, decisions = receive(y, uplink, design, order=order, cancellation="soft")
    np.testing.assert_allclose(found, lmmse_filter(uplink, design) @ y, rtol=0, atol=1e-10)
    assert decisions is None


def test_own_estimates_have_the_mse_of_joint_lmmse(rng: np.random.Generator) -> None:
    uplink = unit_uplink(rng)
    C = 3 * colored(rng)
    found = measure_mse(uplink, C, n=40_000, rng=rng, cancellation="soft")
    assert (np.abs(found.mse - lmmse_mse(uplink, C)) < 3 * found.standard_error).all()
    assert (lmmse_mse(uplink, C) - sic_mse(uplink, C) > 3 * found.standard_error).any()


def test_mistakes_propagate(rng: np.random.Generator) -> None:
    """Wrong decisions cost the later users, soft ones less; with few mistakes nothing is lost."""
    uplink = unit_uplink(rng, floor=1)
    noisy, quiet = (
        {
            how: measure_mse(
                uplink, level * uplink.thermal_cov, n=20_000, rng=np.random.default_rng(1), symbols="qam64",
                cancellation=how,
            )
            for how in ("genie", "hard", "soft")
        }
        for level in (0.3, 1e-5)
    )  # fmt: skip
    first, last = np.argsort(uplink.received_power)[[0, -1]]
    assert noisy["genie"].mse[first] == noisy["hard"].mse[first] == noisy["soft"].mse[first]
    cost = {how: noisy[how].mse[last] - noisy["genie"].mse[last] for how in noisy}
    assert cost["hard"] > 1.1 * cost["soft"] > 10 * noisy["soft"].standard_error[last]
    assert noisy["hard"].symbol_errors[last] > noisy["genie"].symbol_errors[last] > 0
    for how in ("hard", "soft"):
        np.testing.assert_array_equal(quiet[how].symbol_errors, 0)
        np.testing.assert_allclose(quiet[how].mse, quiet["genie"].mse, rtol=1e-9)


def test_decisions_and_means_against_all_64_points(rng: np.random.Generator) -> None:
    mse = np.array([0.02, 0.3, 0.9])
    s = draw_symbols((3, 50), rng, "qam64")
    spread = np.sqrt(mse * (1 - mse))[:, None]
    estimates = (1 - mse[:, None]) * s + spread * draw_symbols((3, 50), rng)
    distance = np.abs(estimates[..., None] - (1 - mse[:, None, None]) * QAM64) ** 2
    np.testing.assert_allclose(decide(estimates, mse), QAM64[distance.argmin(axis=-1)])
    weight = np.exp(-distance / (mse * (1 - mse))[:, None, None])
    np.testing.assert_allclose(posterior_mean(estimates, mse), weight @ QAM64 / weight.sum(axis=-1), atol=1e-12)


def test_means_at_the_ends(rng: np.random.Generator) -> None:
    s = draw_symbols((2, 50), rng, "qam64")
    ends = np.array([0.0, 1.0])
    estimates = s * (1 - ends[:, None])
    np.testing.assert_allclose(posterior_mean(estimates, ends), [s[0], np.zeros(50)], atol=1e-15)
    assert np.isfinite(decide(estimates, ends)).all()
    np.testing.assert_allclose(decide(estimates, ends)[0], s[0])


def test_symbols_have_power_one(rng: np.random.Generator) -> None:
    for kind, variance in (("gaussian", 1.0), ("qam64", 0.381)):  # of |s|^2
        s = draw_symbols((2, 40_000), rng, kind)
        assert np.abs((np.abs(s) ** 2).mean() - 1) < 3 * np.sqrt(variance / s.size)
        assert np.abs((s**2).mean()) < 3 / np.sqrt(s.size) and np.abs(s.mean()) < 3 / np.sqrt(s.size)
    assert np.abs(np.abs(s[..., None] - QAM64).min(axis=-1)).max() < 1e-15


def test_standard_errors_are_what_repetitions_show(rng: np.random.Generator) -> None:
    uplink = unit_uplink(rng, 300, rx=2, users=2)
    same = Uplink(np.broadcast_to(uplink.H[:1], uplink.H.shape), uplink.power[0], uplink.noise_floor[0])
    found = measure_mse(same, same.thermal_cov, n=200, rng=rng)
    np.testing.assert_allclose(found.mse.std(axis=0), found.standard_error.mean(axis=0), rtol=0.15)


@pytest.mark.parametrize("cancellation", ["genie", "hard", "soft"])
def test_special_links(rng: np.random.Generator, cancellation: str) -> None:
    """One user; more users than antennas; nothing sent; no noise; noise in one direction only."""
    options = {"n": 4000, "rng": rng, "symbols": "qam64", "cancellation": cancellation}
    one = unit_uplink(rng, users=1)
    found = measure_mse(one, one.thermal_cov, **options)
    assert abs(found.mse[0] - sic_mse(one, one.thermal_cov)[0]) < 3 * found.standard_error[0]

    many = unit_uplink(rng, rx=2, users=5)
    found = measure_mse(many, many.thermal_cov, **options)
    if cancellation == "genie":
        assert (np.abs(found.mse - sic_mse(many, many.thermal_cov)) < 3 * found.standard_error).all()
    assert np.isfinite(found.mse).all()

    silent = Uplink(many.H, many.power * [1, 0, 1, 1, 0], many.noise_floor)
    found = measure_mse(silent, silent.thermal_cov, **options)
    assert (np.abs(found.mse[[1, 4]] - 1) < 3 * found.standard_error[[1, 4]]).all() and np.isfinite(found.mse).all()

    clean = unit_uplink(rng)
    np.testing.assert_allclose(measure_mse(clean, np.zeros((6, 6)), **options).mse, 0, atol=1e-20)

    h = clean.G[:, [0]]
    along = h @ h.conj().T
    found = measure_mse(clean, along, **options)
    np.testing.assert_allclose(found.mse, sic_mse(clean, along), rtol=0.1, atol=1e-15)


@pytest.mark.parametrize("scale", [1e-20, 1e6])
def test_units_do_not_matter(rng: np.random.Generator, scale: float) -> None:
    uplink = unit_uplink(rng)
    scaled = Uplink(uplink.H, uplink.power * scale, uplink.noise_floor * scale)
    one, other = (
        measure_mse(link, link.thermal_cov, n=100, rng=np.random.default_rng(0)).mse for link in (uplink, scaled)
    )
    np.testing.assert_allclose(one, other, rtol=1e-9)


def test_root_of_a_singular_covariance(rng: np.random.Generator) -> None:
    factor = complex_normal(rng, 2, 5, 2)
    C = factor @ factor.conj().swapaxes(-1, -2)
    root = covariance_root(C)
    np.testing.assert_allclose(root @ root.conj().swapaxes(-1, -2), C, atol=1e-12)
    # the only one that is Hermitian and positive semidefinite: no choice of eigenvectors is left
    np.testing.assert_allclose(root, root.conj().swapaxes(-1, -2), atol=1e-12)
    assert np.linalg.eigvalsh(root).min() > -1e-7
    symbols = draw_symbols((2, 5, 20_000), rng)
    np.testing.assert_allclose(sample_cov(root @ symbols), C, atol=0.05 * np.abs(C).max())


def test_sample_covariance_is_the_mean_over_samples() -> None:
    signals = np.array([[1, 1j, -1], [2, 0, 1j]])
    mean = sum(np.outer(x, x.conj()) for x in signals.T) / 3
    np.testing.assert_allclose(sample_cov(signals), mean)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 1}, "n is 1"),
        ({"symbols": "qam16"}, "symbols is 'qam16'"),
        ({"order": "best-first"}, "order is 'best-first'"),
        ({"receiver": "zf"}, "receiver is 'zf'"),
        ({"cancellation": "none"}, "cancellation is 'none'"),
        ({"cancellation": "hard"}, "cancellation is 'hard' with Gaussian"),
        ({"design_cov": np.diag([-1.0, 1, 1, 1, 1, 1])}, "design_cov is indefinite"),
    ],
)
def test_bad_input(rng: np.random.Generator, options: dict, message: str) -> None:
    uplink = unit_uplink(rng)
    with pytest.raises(InputError, match=message):
        measure_mse(uplink, uplink.thermal_cov, **{"n": 10, "rng": rng, **options})


def test_bad_noise_and_a_genie_that_knows_nothing(rng: np.random.Generator) -> None:
    uplink = unit_uplink(rng)
    with pytest.raises(InputError, match=r"noise_cov has shape \(3, 3\)"):
        measure_mse(uplink, np.eye(3), n=10, rng=rng)
    with pytest.raises(InputError, match=r"noise_cov has shape \(3, 6, 6\)"):
        measure_mse(uplink, np.stack([np.eye(6)] * 3), n=10, rng=rng)
    with pytest.raises(InputError, match="sent is None"):
        receive(np.zeros((6, 3), complex), uplink, uplink.thermal_cov)
