"""Information of 64-QAM and rate and distortion of rounding, against limits, identities and sampled symbols."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.information import (
    capacity_bits,
    ideal_distortion,
    qam64_information,
    quantised_gaussian,
    repeated_mse,
)
from rmtllmf_lib.wireless.simulate import draw_symbols, posterior_mean
from wireless import complex_normal


def test_64_qam_carries_six_bits_at_most_and_nothing_without_a_link() -> None:
    assert qam64_information([1.0, 1e-6]) == pytest.approx([0, np.log(64)], abs=1e-9)


@settings(deadline=None)
@given(st.floats(1e-4, 1))
def test_carries_no_more_than_a_gaussian_symbol(mse: float) -> None:
    information = qam64_information(mse)
    assert -1e-9 <= information <= min(-np.log(mse), np.log(64)) + 1e-9


def test_at_low_snr_nothing_is_lost() -> None:
    mse = np.array([0.9, 0.99])
    assert qam64_information(mse) == pytest.approx(-np.log(mse), rel=1e-3)


@pytest.mark.parametrize("mse", [0.5, 0.1, 0.02])
def test_slope_is_the_error_of_the_best_estimator(mse: float) -> None:
    """dI/dSNR is the MMSE of the posterior mean (Guo, Shamai, Verdu 2005): sampled, by other formulas."""
    rng = np.random.default_rng(1)
    snr, n = 1 / mse - 1, 200_000
    sent = draw_symbols((n,), rng, "qam64")
    estimate = (1 - mse) * sent + np.sqrt(mse * (1 - mse)) * complex_normal(rng, n)
    errors = np.abs(sent - posterior_mean(estimate[None], np.array([mse]))[0]) ** 2
    step = 1e-3 * snr
    high, low = qam64_information(1 / (1 + np.array([snr + step, snr - step])))
    assert abs((high - low) / (2 * step) - errors.mean()) < 4 * errors.std() / np.sqrt(n)


def test_information_keeps_the_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmtllmf_lib.wireless.information._MSES_AT_ONCE", 10)
    assert qam64_information(np.full((2, 3), 0.1)).shape == (2, 3)
    assert qam64_information(0.1).shape == ()
    many = np.linspace(0.01, 1, 25)
    assert np.array_equal(qam64_information(many)[[0, -1]], qam64_information(many[[0, -1]]))


def test_rounding_is_a_quarter_of_a_bit_from_the_bound() -> None:
    rate, distortion = quantised_gaussian([0.02, 0.2, 1.0])
    assert distortion[:2] == pytest.approx(np.array([0.02, 0.2]) ** 2 / 12, rel=5e-3)
    assert distortion[:2] * np.exp(rate[:2]) == pytest.approx(np.pi * np.e / 6, rel=1e-3)
    assert (distortion > np.exp(-rate)).all()


def test_rounding_agrees_with_samples() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal(400_000)
    for step in (0.5, 1.5):
        cells = np.rint(x / step).astype(int)
        _, place, counts = np.unique(cells, return_inverse=True, return_counts=True)
        means = np.bincount(place, x) / counts
        share = counts / len(x)
        rate, distortion = quantised_gaussian(step)
        assert rate == pytest.approx(-2 * (share * np.log(share)).sum(), rel=5e-3)
        assert distortion == pytest.approx(((x - means[place]) ** 2).mean(), rel=5e-3)


def test_coarse_rounding_tells_nothing() -> None:
    rate, distortion = quantised_gaussian(40.0)
    assert (float(rate), float(distortion)) == pytest.approx((0, 1), abs=1e-9)


@pytest.mark.parametrize("mse", [0, -0.1, 1.1, np.nan, 1j])
def test_bad_mse_is_named(mse: complex) -> None:
    with pytest.raises(InputError, match="mse"):
        qam64_information(mse)


@pytest.mark.parametrize("step", [0, 1e-4, np.inf])
def test_bad_step_is_named(step: float) -> None:
    with pytest.raises(InputError, match="step"):
        quantised_gaussian(step)


@pytest.mark.parametrize("mse", [0.9, 0.5, 0.2, 0.01])
def test_capacity_is_the_mean_information_density(mse: float) -> None:
    """log2 p(y | s)/p(y) of sampled Gaussian symbols in noise; five standard errors."""
    rng, n, variance = np.random.default_rng(2), 200_000, mse / (1 - mse)
    sent = complex_normal(rng, n)
    noise = np.sqrt(variance) * complex_normal(rng, n)
    power = np.abs(sent + noise) ** 2
    density = np.log2((1 + variance) / variance) + (power / (1 + variance) - np.abs(noise) ** 2 / variance) / np.log(2)
    assert abs(density.mean() - capacity_bits(mse)) < 5 * density.std() / np.sqrt(n)
    assert capacity_bits(mse, 7) == pytest.approx(7 * capacity_bits(mse))


@pytest.mark.parametrize("mse", [0.7, 0.21, 0.013])
@pytest.mark.parametrize("uses", [1, 2, 4])
def test_a_scheme_with_feedback_reaches_the_ideal_distortion(mse: float, uses: int) -> None:
    """Elias 1956: send what the receiver has wrong so far, at full power, and let it correct its estimate linearly."""
    rng, n = np.random.default_rng(3), 200_000
    number, estimate, left = complex_normal(rng, n), np.zeros(n, complex), 1.0
    for _ in range(uses):
        symbol = (number - estimate) / np.sqrt(left)
        heard = symbol + np.sqrt(mse / (1 - mse)) * complex_normal(rng, n)
        estimate = estimate + np.sqrt(left) * (1 - mse) * heard
        left *= mse
    errors = np.abs(number - estimate) ** 2
    assert abs(errors.mean() - ideal_distortion(mse, uses)) < 5 * errors.std() / np.sqrt(n)


@settings(deadline=None)
@given(st.floats(1e-3, 1), st.integers(1, 20))
def test_no_repetition_beats_the_ideal_code(mse: float, uses: int) -> None:
    repeated = mse / (uses - (uses - 1) * mse)
    assert ideal_distortion(mse, uses) <= repeated * (1 + 1e-9)
    assert -np.log2(ideal_distortion(mse, uses)) == pytest.approx(capacity_bits(mse, uses), abs=1e-9)


def test_no_capacity_of_what_is_no_link() -> None:
    for function in (capacity_bits, ideal_distortion):
        for mse, uses, message in ((0.0, 1, "mse"), (1.1, 1, "mse"), (0.5, -1, "uses is -1")):
            with pytest.raises(InputError, match=message):
                function(mse, uses)


@settings(deadline=None)
@given(st.floats(1e-6, 1), st.integers(1, 50))
def test_repetition_multiplies_the_ratio_and_codes_do_no_worse(mse: float, uses: int) -> None:
    found = repeated_mse(mse, uses)
    assert 1 / found - 1 == pytest.approx(uses * (1 / mse - 1), rel=1e-6, abs=1e-9)
    assert ideal_distortion(mse, uses) <= found * (1 + 1e-9)
    assert repeated_mse(mse, 1) == pytest.approx(mse)


def test_repetition_against_combined_symbols() -> None:
    rng = np.random.default_rng(4)
    mse, uses, n = 0.21, 5, 200_000
    sent = complex_normal(rng, n)
    noise = np.mean([complex_normal(rng, n) for _ in range(uses)], axis=0) * np.sqrt(mse / (1 - mse))
    gain = (sent.conj() * (sent + noise)).mean().real / (np.abs(sent + noise) ** 2).mean()
    left = np.abs(sent - gain * (sent + noise)) ** 2
    assert abs(left.mean() - repeated_mse(mse, uses)) < 5 * left.std() / np.sqrt(n)
    with pytest.raises(InputError, match="uses"):
        repeated_mse(0.5, 0.5)
    with pytest.raises(InputError, match="mse"):
        repeated_mse(0.0, 2)
