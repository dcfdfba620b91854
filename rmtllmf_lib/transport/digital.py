"""Schemes that send bits over Gray-labelled QAM: PCM, PCM with an LDPC code, and the bits of float32 as they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from rmtllmf_lib.arrays import Real
from rmtllmf_lib.transport.modulation import (
    SMALLEST_VARIANCE,
    Code,
    ConstellationBits,
    alphabet,
    bits_of,
    decode,
    demapper,
    expected_symbols,
    ldpc,
    mapper,
    nearest,
    posterior_mean,
    scrambling,
    symbols_of,
)
from rmtllmf_lib.transport.quantise import gaussian_quantiser, quantise
from rmtllmf_lib.transport.scheme import Detected, checked, error_of, padded
from rmtllmf_lib.validated import validated

WordBits = Annotated[int, Field(ge=1, le=16)]
Clip = Annotated[float, Field(gt=0)]


@validated
class Pcm:
    """Numbers quantised uniformly to words of bits, sent uncoded over Gray-labelled QAM (64-QAM by default).

    The bits of a group of words are sorted: the most significant ones take the most reliable bits of the symbols.

    Parameters
    ----------
    bits : int
        Word length b, 1 … 16.
    clip : float
        kappa > 0: the range is [−kappa, kappa] in units of rms(x). The error of a number beyond it is unbounded (see
        `quantise`); 4 is near the optimum for N(0, 1) and eight bits, heavy tails need more.
    constellation_bits : int
        Bits per symbol: 2, 4, 6, 8 or 10.
    """

    bits: WordBits = 8
    clip: Clip = 4.0
    constellation_bits: ConstellationBits = 6

    @property
    def reals_per_block(self) -> int:
        """The smallest number of words that fills whole symbols."""
        return math.lcm(self.bits, self.constellation_bits) // self.bits

    @property
    def symbols_per_block(self) -> int:
        """Number of symbols that these words fill."""
        return math.lcm(self.bits, self.constellation_bits) // self.constellation_bits

    def modulate(self, x: Tensor, user: int = 0) -> Tensor:
        """See `Scheme`."""
        words = _words(padded(x, self.reals_per_block, user), self.bits, self.clip)
        sent = _sorting(self.bits, self.constellation_bits)
        stream = words.view(-1, len(sent))[:, torch.from_numpy(sent).to(x.device)].flatten()
        return _send(stream, self.constellation_bits, user)

    def detect(self, estimate: Tensor, mse: float, n: int, user: int = 0) -> Detected:
        """See `Scheme`."""
        mse = checked(self, estimate, mse, n, user)
        stream, decide, expect = _receive(estimate, mse, self.constellation_bits, user)
        back = torch.from_numpy(np.argsort(_sorting(self.bits, self.constellation_bits))).to(stream.device)
        words = stream.view(-1, len(back))[:, back].view(-1, self.bits)
        return Detected(_numbers(words[:n], self.clip), decide, expect)

    def bit_error_rates(self, mse: float) -> Real:
        """P_{b,i} (bits,), most significant bit first: exact for Gaussian noise, averaged over the words of a group."""
        return np.diagonal(self._flips(mse)).copy()

    def distortion(self, mse: float) -> float:
        """Exact for N(0, 1) and Gaussian noise.

        Σ_i P_{b,i} 4^i Δ² for the bit errors (Section IV), plus the quantiser's distortion (kappa² 4^−b/3 and the
        overload), plus cross terms: the bits of a normal number are dependent (except for the largest numbers, 2^(b−2)
        is set where 2^(b−1) is not), so errors of two bits of one word partly cancel.
        """
        quantiser = gaussian_quantiser(2**self.bits, self.clip)
        flips = self._flips(mse)
        # An error in bit i changes the number by ±2^i Δ: up where the bit is 0.
        steps = quantiser.midpoints[1] - quantiser.midpoints[0]
        change = steps * 2.0 ** np.arange(self.bits - 1, -1, -1)
        signs = 1 - 2 * ((np.arange(2**self.bits)[:, None] >> np.arange(self.bits - 1, -1, -1)) & 1)
        together = signs.T @ (quantiser.probability[:, None] * signs)
        with_rounding = signs.T @ (quantiser.midpoints * quantiser.probability - quantiser.first)
        return float(
            quantiser.distortion()
            + change @ (together * flips) @ change
            + 2 * np.sum(change * with_rounding * np.diagonal(flips))
        )

    def _flips(self, mse: float) -> Real:
        """Pr(bits i and j of a word are both wrong) (bits, bits), averaged over the words of a group."""
        mse = error_of(mse)
        within = alphabet(self.constellation_bits).flips(mse / (1 - mse) / 2)
        place = np.argsort(_sorting(self.bits, self.constellation_bits)).reshape(-1, self.bits)
        symbol, inside = np.divmod(place, self.constellation_bits)
        rank, dimension = inside // 2, 2 * symbol + inside % 2
        rates = np.diagonal(within)[rank]
        shared = dimension[:, :, None] == dimension[:, None, :]
        joint = np.where(shared, within[rank[:, :, None], rank[:, None, :]], rates[:, :, None] * rates[:, None, :])
        return np.asarray(joint.mean(0))


@validated
class RawFloat:
    """The 32 bits of each float32, uncoded, most significant first: an example of what not to do.

    One wrong bit of the exponent changes a number by up to 2^128, or makes it infinite or NaN: the error has neither
    a bound nor a variance.

    Parameters
    ----------
    non_finite : {"zero", "keep"}
        Whether the receiver replaces NaN and infinity by zero, as a task vector needs, or keeps them. Huge finite
        numbers stay, since no receiver can recognise them. `Detected.lost` counts NaN and infinity in either case.
    constellation_bits : int
        Bits per symbol: 2, 4, 6, 8 or 10.
    """

    non_finite: Literal["zero", "keep"] = "zero"
    constellation_bits: ConstellationBits = 6

    @property
    def reals_per_block(self) -> int:
        """The smallest number of floats that fills whole symbols."""
        return math.lcm(32, self.constellation_bits) // 32

    @property
    def symbols_per_block(self) -> int:
        """Number of symbols that these floats fill."""
        return math.lcm(32, self.constellation_bits) // self.constellation_bits

    def modulate(self, x: Tensor, user: int = 0) -> Tensor:
        """See `Scheme`."""
        words = _unpack(padded(x, self.reals_per_block, user).view(torch.int32), 32)
        return _send(words.flatten(), self.constellation_bits, user)

    def detect(self, estimate: Tensor, mse: float, n: int, user: int = 0) -> Detected:
        """See `Scheme`."""
        mse = checked(self, estimate, mse, n, user)
        stream, decide, expect = _receive(estimate, mse, self.constellation_bits, user)
        places = torch.arange(31, -1, -1, dtype=torch.int32, device=stream.device)
        words = stream.view(-1, 32)[:n].int().bitwise_left_shift_(places).sum(1, dtype=torch.int32)
        values = words.view(torch.float32)
        finite = values.isfinite()
        if self.non_finite == "zero":
            values = torch.where(finite, values, 0.0)
        return Detected(values, decide, expect, int((~finite).sum()))

    def distortion(self, mse: float) -> None:
        """None: the received numbers may be infinite."""
        error_of(mse)


@validated
class Coded:
    """PCM words protected by the 5G LDPC code (3GPP TS 38.212) on Gray-labelled QAM: nearly exact, or useless.

    Parameters
    ----------
    bits, clip, constellation_bits
        As for `Pcm`.
    rate : float
        Information bits per coded bit, 0.2 … 0.92. At 1/2 on 64-QAM decoding fails above an MSE of about .08.
    iterations : int
        Limit of belief propagation iterations. Decoding takes nearly all the time of a link.
    measures : bool
        Whether the receiver takes the noise from the power of its estimates, over a block of them, and not from the MSE
        that it was told. Where it does not know of a jammer it is told too little, and trusts what it should not.
    """

    bits: WordBits = 8
    clip: Clip = 4.0
    rate: Annotated[float, Field(ge=0.2, le=0.92)] = 0.5  # the range that the 5G code supports
    constellation_bits: ConstellationBits = 6
    iterations: Annotated[int, Field(ge=1)] = 20
    measures: bool = False

    @property
    def reals_per_block(self) -> int:
        """Words per codeword, 3072 bits or slightly less: long enough for a steep threshold."""
        return 3072 // self.bits

    @property
    def symbols_per_block(self) -> int:
        """Symbols per codeword, rounded up."""
        return math.ceil(self.reals_per_block * self.bits / self.rate / self.constellation_bits)

    def modulate(self, x: Tensor, user: int = 0) -> Tensor:
        """See `Scheme`."""
        words = _words(padded(x, self.reals_per_block, user), self.bits, self.clip)
        return self._encode(words.view(-1, self.reals_per_block * self.bits).float(), user)

    def detect(self, estimate: Tensor, mse: float, n: int, user: int = 0) -> Detected:
        """See `Scheme`: `hard` re-encodes the decoded bits, `soft` uses the decoder's probabilities."""
        mse = checked(self, estimate, mse, n, user)
        variance = torch.tensor(max(self._variance(estimate, mse), SMALLEST_VARIANCE), device=estimate.device)
        logits = demapper(self.constellation_bits, estimate.device)(estimate / (1 - mse), variance)
        flip = 1 - 2 * scrambling(user, len(logits), logits.device).float()
        logits = (logits * flip).view(-1, self.symbols_per_block * self.constellation_bits)
        decoded, improved = decode(self._code(estimate.device), logits, self.iterations)
        return Detected(
            _numbers(decoded.view(-1, self.bits)[:n], self.clip),
            lambda: self._encode(decoded, user),
            lambda: expected_symbols(improved.flatten() * flip, self.constellation_bits),
        )

    def distortion(self, mse: float) -> None:
        """None: there is no closed form. Far below the threshold it is the quantiser's, `Pcm.distortion(0)`."""
        error_of(mse)

    def _variance(self, estimate: Tensor, mse: float) -> float:
        """Of the noise on unit-power symbols, once the shrinkage by 1 - mse is taken off the estimate."""
        if not self.measures:
            return mse / (1 - mse)
        return float(torch.view_as_real(estimate).square().sum(-1).mean()) / (1 - mse) ** 2 - 1

    def _encode(self, words: Tensor, user: int) -> Tensor:
        return _send(self._code(words.device).encoder(words).flatten().to(torch.uint8), self.constellation_bits, user)

    def _code(self, device: torch.device) -> Code:
        k, n = self.reals_per_block * self.bits, self.symbols_per_block * self.constellation_bits
        return ldpc(k, n, self.constellation_bits, device)


@lru_cache
def _sorting(bits: int, constellation_bits: int) -> np.ndarray:
    """Index of the bit of a group of words that goes to each bit of its symbols (lcm of both,)."""
    size = math.lcm(bits, constellation_bits)
    places = np.argsort(np.arange(size) % constellation_bits // 2, kind="stable")
    sources = np.argsort(np.arange(size) % bits, kind="stable")
    sorting = np.empty(size, int)
    sorting[places] = sources
    return sorting


def _unpack(words: Tensor, bits: int) -> Tensor:
    """Bits (n, bits) uint8 of words (n,) int32, most significant first."""
    places = torch.arange(bits - 1, -1, -1, dtype=torch.int32, device=words.device)
    return (words.unsqueeze(1) >> places).bitwise_and_(1).to(torch.uint8)


def _words(x: Tensor, bits: int, clip: float) -> Tensor:
    return _unpack(quantise(x, 2**bits, clip), bits)


def _numbers(words: Tensor, clip: float) -> Tensor:
    """Midpoints (n,) float32 of words (n, bits)."""
    step = 2 * clip / 2 ** words.shape[1]
    weights = step * 2.0 ** torch.arange(words.shape[1] - 1, -1, -1, device=words.device)
    return words.float() @ weights + (step / 2 - clip)


def _send(stream: Tensor, constellation_bits: int, user: int) -> Tensor:
    """Symbols of bits (m · constellation_bits,) uint8, after scrambling."""
    mixed = stream ^ scrambling(user, len(stream), stream.device)
    return mapper(constellation_bits, stream.device)(mixed)


def _receive(
    estimate: Tensor, mse: float, constellation_bits: int, user: int
) -> tuple[Tensor, Callable[[], Tensor], Callable[[], Tensor]]:
    """Decided bits with scrambling removed, and functions that make hard and soft symbols."""
    symbols = alphabet(constellation_bits)
    received = torch.view_as_real(estimate) / (1 - mse)
    index = nearest(received, symbols.levels)
    stream = bits_of(index, symbols)
    stream ^= scrambling(user, len(stream), stream.device)

    def expect() -> Tensor:
        return torch.view_as_complex(posterior_mean(received, symbols.levels, mse / (1 - mse) / 2))

    return stream, lambda: symbols_of(index, symbols.levels), expect
