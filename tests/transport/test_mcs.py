"""Thresholds of the coded schemes: against the theory of finite blocks, the link's own decoder, and bad tables."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.transport.mcs import GRID_DB, Mcs, channel_uses, measured, mse_of, threshold, thresholds, word_errors
from rmtllmf_lib.transport.schemes import SCHEMES
from rmtllmf_lib.wireless.information import capacity_bits
from small import generator

NAMES = [Mcs(2, 0.2), Mcs(2, 1 / 3), Mcs(2, 0.5), Mcs(4, 0.5), Mcs(6, 0.5)]


def information_density(bits: int, snr: float, draws: int = 40_000) -> tuple[float, float]:
    """Mean (bits) and variance (bits^2) of log p(y | x)/p(y) of one real dimension of QAM, by Gauss-Hermite."""
    levels = np.arange(1 - 2 ** (bits // 2), 2 ** (bits // 2), 2.0)
    levels /= math.sqrt(np.mean(levels**2))
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    std = 1 / math.sqrt(snr)
    y = levels[:, None] + std * nodes
    apart = np.exp(-((y[:, :, None] - levels) ** 2) / (2 * std**2)).mean(-1)
    density = -(nodes**2) / 2 - np.log(apart)
    density /= math.log(2)
    mean = float((density @ weights).mean())
    return mean, float(((density - mean) ** 2 @ weights).mean())


def normal_approximation_db(mcs: Mcs, error: float, words_bits: int = 3072) -> float:
    """SNR at which the best code of this length fails so often (Polyanskiy, Poor and Verdu 2010, Eq. (223))."""
    reals = 2 * words_bits / mcs.rate / mcs.constellation_bits

    def excess(db: float) -> float:
        mean, variance = information_density(mcs.constellation_bits, 10 ** (db / 10))
        rate = mean - math.sqrt(variance / reals) * norm.isf(error) + math.log2(reals) / 2 / reals
        return rate - words_bits / reals

    return brentq(excess, -10, 25)


@pytest.mark.parametrize("mcs", NAMES, ids=str)
def test_thresholds_are_a_little_above_what_the_best_code_of_that_length_needs(mcs: Mcs) -> None:
    """Within 2 dB: up to .4 of the grid's margin, and what few iterations and bits decoded apart from labels cost."""
    worst = threshold(mcs)
    snr_db = 10 * math.log10(1 / worst - 1)
    assert mcs.rate * mcs.constellation_bits < capacity_bits(worst)
    gap = snr_db - normal_approximation_db(mcs, 1e-2)
    assert 0 < gap < (1.7 if mcs.constellation_bits == 2 else 2.0)


def test_the_order_of_the_thresholds_is_that_of_the_spectral_efficiencies() -> None:
    found = thresholds(measured())
    assert set(found) == set(NAMES)
    efficiency = sorted(found, key=lambda mcs: mcs.rate * mcs.constellation_bits)
    values = [found[mcs] for mcs in efficiency]
    assert values == sorted(values, reverse=True)


@pytest.mark.slow
@pytest.mark.parametrize("mcs", [Mcs(2, 0.5), Mcs(6, 0.5)], ids=str)
def test_words_arrive_at_the_threshold_and_not_a_decibel_below(mcs: Mcs) -> None:
    snr_db = 10 * math.log10(1 / threshold(mcs) - 1)
    assert word_errors(mcs, snr_db, 8, generator=generator()) == 0
    assert word_errors(mcs, snr_db - 1.5, 8, generator=generator()) >= 6


def test_the_measurement_is_that_of_the_tool() -> None:
    table = measured()
    assert (table["errors"] <= table["words"]).all() and (table["words"][table["errors"] == 0] >= 64).all()
    for _, rows in table.groupby(["constellation_bits", "rate"]):
        steps = rows["snr_db"].to_numpy()
        np.testing.assert_allclose(np.diff(steps), -GRID_DB, atol=1e-9)
        assert (rows["errors"].iloc[:2] == 0).all() and (rows["errors"].diff().iloc[1:] >= 0).all()
        assert rows["errors"].iloc[-1] > 0  # the search goes down until words are lost


def table(errors: list[int]) -> pd.DataFrame:
    rows = {"constellation_bits": 2, "rate": 0.5, "words": 10, "errors": errors}
    return pd.DataFrame({**rows, "snr_db": [2.0 - GRID_DB * place for place in range(len(errors))]})


def test_the_threshold_leaves_a_margin() -> None:
    assert thresholds(table([0, 0, 0, 3])) == {Mcs(2, 0.5): pytest.approx(mse_of(2.0 - GRID_DB))}
    assert thresholds(table([0, 0, 1, 0, 0])) == {Mcs(2, 0.5): pytest.approx(mse_of(2.0))}  # an accident is no pass
    with pytest.raises(InputError, match="go higher"):
        thresholds(table([0, 1]))
    with pytest.raises(InputError, match="no column errors"):
        thresholds(table([0, 0]).drop(columns="errors"))


def test_mse_and_snr() -> None:
    assert mse_of(0.0) == 0.5 and 1 / mse_of(-3.0) - 1 == pytest.approx(10**-0.3)


@pytest.mark.parametrize("name", ["analog-mmse", "pam8", "pcm", "float32"])
def test_uses_are_the_symbols_that_are_sent(name: str) -> None:
    import torch

    for n in (1, 2, 7, 1000):
        assert channel_uses(SCHEMES[name], n) == len(SCHEMES[name].modulate(torch.ones(n)))


def test_names() -> None:
    assert str(Mcs(2, 1 / 3)) == "QPSK 0.333" and str(Mcs(6, 0.5)) == "64-QAM 0.5"
