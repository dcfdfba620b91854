"""Modulation and coding schemes (MCS), and the worst link over which each one still decodes.

A code of 3072 bits goes from no errors seen to useless within a few tenths of a dB, so a link with a code is described
by one number, its threshold: `thresholds.csv` holds the word errors measured with the library's own code, demapper and
decoder on a grid of SNRs. `tools/measure_thresholds.py` makes that file.

No error in 64 words is not an error rate of 0: at 95 % confidence it says that less than 1 - .05^(1/64) = 4.6 % of the
words are wrong at that SNR.

An MSE mu of the LMMSE estimate is an SNR of 1/mu - 1 per symbol.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Annotated

import pandas as pd
import torch
from pydantic import Field, PositiveInt

from rmtllmf_lib.arrays import torch_generator
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.transport.digital import Coded
from rmtllmf_lib.transport.modulation import ConstellationBits
from rmtllmf_lib.transport.scheme import Scheme
from rmtllmf_lib.validated import validated, validated_call

GRID_DB = 0.2  # step of the SNRs at which words are sent


@validated
class Mcs:
    """A modulation and coding scheme.

    Parameters
    ----------
    constellation_bits : int
        Bits per symbol: 2 for QPSK, 4, 6, … for QAM.
    rate : float
        Information bits per coded bit, 0.2 … 0.92.
    """

    constellation_bits: ConstellationBits
    rate: Annotated[float, Field(ge=0.2, le=0.92)]

    def scheme(self, bits: int, clip: float) -> Coded:
        """The scheme of `transport.send` for numbers of so many bits, clipped at so many rms."""
        return Coded(bits, clip, self.rate, self.constellation_bits)

    def __str__(self) -> str:
        name = "QPSK" if self.constellation_bits == 2 else f"{2**self.constellation_bits}-QAM"
        return f"{name} {self.rate:.3g}"


@validated_call
def mse_of(snr_db: float) -> float:
    """MSE of the LMMSE estimate of a unit-power symbol at an SNR in dB, 1/(1 + SNR)."""
    return 1 / (1 + 10 ** (snr_db / 10))


@validated_call
def word_errors(mcs: Mcs, snr_db: float, words: PositiveInt, *, generator: torch.Generator) -> int:
    """How many of so many codewords of random numbers arrive with an error.

    Parameters
    ----------
    snr_db : float, dB
        Per symbol, in white Gaussian noise.
    generator : torch.Generator
        On the CPU; draws the numbers and the noise.
    """
    torch_generator(generator)
    scheme, mse = mcs.scheme(1, 2.0), mse_of(snr_db)
    n = words * scheme.reals_per_block
    x = 1 - 2 * torch.randint(2, (n,), generator=generator).float()
    symbols = scheme.modulate(x)
    noise = torch.randn(len(symbols), dtype=torch.complex64, generator=generator)
    estimate = (1 - mse) * symbols + math.sqrt(mse * (1 - mse)) * noise
    wrong = scheme.detect(estimate, mse, n).values.sign() != x
    return int(wrong.view(words, -1).any(1).sum())


@cache
def measured() -> pd.DataFrame:
    """The shipped measurements: constellation_bits, rate, snr_db, words (sent), errors (words that arrived wrong)."""
    with (files("rmtllmf_lib.transport") / "thresholds.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


@validated_call
def thresholds(table: pd.DataFrame) -> dict[Mcs, float]:
    """Largest MSE at which each scheme decodes, from measured word errors.

    It is that of the lowest SNR at which, and at the next lower one of the grid, no word was wrong: the second leaves a
    margin of `GRID_DB`. How far the word error rate falls over it was not measured; for what the words without errors
    say, see the head of this module.

    Parameters
    ----------
    table : DataFrame
        As `measured`.

    Raises
    ------
    InputError
        for a missing column, or a scheme for which no two neighbours are without errors.
    """
    columns = ("constellation_bits", "rate", "snr_db", "words", "errors")
    if missing := [name for name in columns if name not in table]:
        raise InputError(f"the table has no column {', '.join(missing)}: expected {', '.join(columns)}")
    found: dict[Mcs, float] = {}
    for (bits, rate), rows in table.groupby(["constellation_bits", "rate"]):
        ordered = rows.sort_values("snr_db", ascending=False)
        clean = ordered["snr_db"][(ordered["errors"] == 0).cummin()].tolist()
        if len(clean) < 2:
            raise InputError(
                f"{bits} bits a symbol at rate {rate} have errors at {ordered['snr_db'].max()} dB: go higher"
            )
        found[Mcs(bits, float(rate))] = mse_of(float(clean[-2]))
    return found


@cache
def measured_thresholds() -> Mapping[Mcs, float]:
    """The `thresholds` of the shipped measurements."""
    return MappingProxyType(thresholds(measured()))


@validated_call
def threshold(mcs: Mcs) -> float:
    """Largest MSE at which a scheme decodes, as measured; InputError for one that was not measured."""
    known = measured_thresholds()
    if mcs not in known:
        names = ", ".join(map(str, known))
        raise InputError(f"mcs is {mcs}: expected one with a measured threshold, {names}; or measure its own")
    return known[mcs]


@validated_call
def channel_uses(scheme: Scheme, numbers: PositiveInt) -> int:
    """Symbols in which a scheme sends so many numbers, those of padding included."""
    return -(-numbers // scheme.reals_per_block) * scheme.symbols_per_block
