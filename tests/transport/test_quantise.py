"""The quantiser against Max's table, Monte Carlo, and what clipping costs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from noisy_symbols import mean_and_error, normal
from rmtllmf_lib.transport.quantise import GaussianQuantiser, best_clip, dequantise, interval_probability, quantise

# J. Max, Quantizing for minimum distortion, IRE Trans. Inf. Theory 6(1), 1960, Table II: levels, step, distortion.
MAX = [(2, 1.596, 0.3634), (4, 0.9957, 0.1188), (8, 0.5860, 0.03744), (16, 0.3352, 0.01154), (32, 0.1881, 0.00349)]


@pytest.mark.parametrize(("levels", "step", "distortion"), MAX)
def test_best_range_is_the_published_one(levels: int, step: float, distortion: float) -> None:
    clip = best_clip(levels)
    assert 2 * clip / levels == pytest.approx(step, abs=1e-4 if levels > 2 else 1e-3)
    assert GaussianQuantiser(levels, clip).distortion() == pytest.approx(distortion, abs=1e-5 if levels > 4 else 1e-4)
    # at the optimum the quantised number is uncorrelated with its error, so that powers add up
    assert GaussianQuantiser(levels, clip).power == pytest.approx(
        1 - GaussianQuantiser(levels, clip).distortion(), abs=1e-6
    )


@pytest.mark.parametrize(("levels", "clip"), [(2, 1.0), (3, 1.5), (8, 2.344), (8, 6.0), (7, 0.3), (256, 4.0)])
def test_moments_of_cells(levels: int, clip: float) -> None:
    quantiser = GaussianQuantiser(levels, clip)
    assert quantiser.probability.sum() == pytest.approx(1, abs=1e-12)
    assert quantiser.first.sum() == pytest.approx(0, abs=1e-12)
    assert quantiser.second.sum() == pytest.approx(1, abs=1e-12)
    edges = [-np.inf, *np.linspace(-clip, clip, levels + 1)[1:-1], np.inf]
    for i in {0, levels // 2, levels - 1}:
        for power, found in enumerate((quantiser.probability, quantiser.first, quantiser.second)):
            wanted = quad(lambda x, power=power: x**power * norm.pdf(x), edges[i], edges[i + 1], epsabs=1e-13)[0]
            assert found[i] == pytest.approx(wanted, rel=1e-7, abs=1e-10)
    x = normal(200_000)
    back = dequantise(quantise(x, levels, clip), levels, clip)
    for numbers, wanted in (((back - x).square(), quantiser.distortion()), (back.square(), quantiser.power)):
        mean, error = mean_and_error(numbers)
        assert abs(mean - wanted) < 3 * error + 1e-9


def test_rare_events_keep_their_digits() -> None:
    for lower, upper in ((10.0, 11.0), (-11.0, -10.0)):
        found = interval_probability(np.array([lower]), np.array([upper]))[0]
        assert found == pytest.approx(7.61985e-24, rel=1e-4)


def test_distortion_of_fine_cells_is_granular_noise_and_overload() -> None:
    granular = 4.0**2 * 4.0**-8 / 3  # kappa² 4^−b/3
    overload = 2 * quad(lambda x: (x - 4) ** 2 * norm.pdf(x), 4, np.inf)[0]
    assert GaussianQuantiser(256, 4.0).distortion() == pytest.approx(granular + overload, rel=0.02)


@given(st.floats(-(2.0**100), 2.0**100, width=32), st.integers(1, 16), st.floats(0.5, 50))
def test_error_is_half_a_step_inside_the_range_and_the_excess_beyond(x: float, bits: int, clip: float) -> None:
    back = float(dequantise(quantise(torch.tensor([x]), 2**bits, clip), 2**bits, clip))
    step = 2 * clip / 2**bits
    rounding = 1e-5 * clip
    if abs(x) <= clip:
        assert abs(back - x) <= step / 2 + rounding
    else:
        assert back == pytest.approx(np.copysign(clip - step / 2, x), abs=rounding)


def test_heavy_tails_want_a_wider_range() -> None:
    """What the default range loses on numbers of mean square 1 with the tails of a Laplace law."""
    x = torch.distributions.Exponential(1.0).icdf(torch.rand(200_000, generator=torch.Generator().manual_seed(0)))
    x *= torch.where(torch.arange(len(x)) % 2 == 0, 0.5**0.5, -(0.5**0.5))
    loss = {clip: float((dequantise(quantise(x, 256, clip), 256, clip) - x).square().mean()) for clip in (4.0, 7.0)}
    assert loss[7.0] < loss[4.0] / 5
    assert loss[4.0] > 20 * GaussianQuantiser(256, 4.0).distortion()
