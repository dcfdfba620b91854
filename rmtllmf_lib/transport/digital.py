"""Schemes that send bits over Gray-labelled QAM: PCM, PCM with an LDPC code, and the bits of float32 as they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from rmtllmf_lib.arrays import Real, real_number, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.transport.modulation import (
    SMALLEST_VARIANCE,
    Code,
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
from rmtllmf_lib.transport.quantise import gaussian_cells, quantise
from rmtllmf_lib.transport.scheme import Detected, checked, error_of, padded

CONSTELLATIONS = (2, 4, 6, 8, 10)


@dataclass(frozen=True)
class Pcm:
    """Numbers quantised uniformly to words of bits, sent uncoded over Gray-labelled QAM (64-QAM by default).

    The bits of a group of words are sorted: the most significant ones take the most reliable bits of the symbols.

    Parameters
    ----------
    bits : int
        b, 1 … 16, of a word.
    clip : float
        kappa > 0: the range is [−kappa, kappa] in units of rms(x). The error of a number beyond it has no bound
        (see `quantise`); 4 is about best for N(0, 1) and eight bits, heavy tails want more.
    constellation_bits : int
        Bits per symbol: 2, 4, 6, 8 or 10.
    """

    bits: int = 8
    clip: float = 4.0
    constellation_bits: int = 6

    def __post_init__(self) -> None:
        _check_words(self.bits, self.clip, self.constellation_bits)

    @property
    def reals_per_block(self) -> int:
        """As many words as fill whole symbols."""
        return math.lcm(self.bits, self.constellation_bits) // self.bits

    @property
    def symbols_per_block(self) -> int:
        """Symbols that these words fill."""
        return math.lcm(self.bits, self.constellation_bits) // self.constellation_bits

    def modulate(self, x: Tensor, user: int = 0) -> Tensor:
        """See `Scheme`."""
        words = _words(padded(x, self.reals_per_block), self.bits, self.clip)
        sent = _sorting(self.bits, self.constellation_bits)
        stream = words.view(-1, len(sent))[:, torch.from_numpy(sent).to(x.device)].flatten()
        return _send(stream, self.constellation_bits, user)

    def detect(self, estimate: Tensor, mse: float, n: int, user: int = 0) -> Detected:
        """See `Scheme`."""
        mse = checked(self, estimate, mse, n)
        stream, decide, expect = _receive(estimate, mse, self.constellation_bits, user)
        back = torch.from_numpy(np.argsort(_sorting(self.bits, self.constellation_bits))).to(stream.device)
        words = stream.view(-1, len(back))[:, back].view(-1, self.bits)
        return Detected(_numbers(words[:n], self.clip), decide, expect)

    def bit_error_rates(self, mse: float) -> Real:
        """P_{b,i} (bits,), the most significant bit first: exact for Gaussian noise, averaged over a group's words."""
        return np.diagonal(self._flips(mse)).copy()

    def distortion(self, mse: float) -> float:
        """Exact for N(0, 1) and Gaussian noise.

        Σ_i P_{b,i} 4^i Δ² of the bit errors (Section IV) on top of the quantiser's distortion (kappa² 4^−b/3 and the
        overload), and what that leaves out: bits of a normal number are dependent (beside the largest numbers,
        2^(b−2) is set where 2^(b−1) is not), so errors of two bits of one word partly cancel.
        """
        cells = gaussian_cells(2**self.bits, self.clip)
        flips = self._flips(mse)
        # An error in bit i changes the number by ±2^i Δ: up where the bit is 0.
        steps = cells.midpoints[1] - cells.midpoints[0]
        change = steps * 2.0 ** np.arange(self.bits - 1, -1, -1)
        signs = 1 - 2 * ((np.arange(2**self.bits)[:, None] >> np.arange(self.bits - 1, -1, -1)) & 1)
        together = signs.T @ (cells.probability[:, None] * signs)
        with_rounding = signs.T @ (cells.midpoints * cells.probability - cells.first)
        return float(
            cells.distortion()
            + change @ (together * flips) @ change
            + 2 * np.sum(change * with_rounding * np.diagonal(flips))
        )

    def _flips(self, mse: float) -> Real:
        """Pr(bits i and j of a word both arrive wrong) (bits, bits), averaged over a group's words."""
        mse = error_of(mse)
        within = alphabet(self.constellation_bits).flips(mse / (1 - mse) / 2)
        place = np.argsort(_sorting(self.bits, self.constellation_bits)).reshape(-1, self.bits)
        symbol, inside = np.divmod(place, self.constellation_bits)
        rank, dimension = inside // 2, 2 * symbol + inside % 2
        rates = np.diagonal(within)[rank]
        shared = dimension[:, :, None] == dimension[:, None, :]
        joint = np.where(shared, within[rank[:, :, None], rank[:, None, :]], rates[:, :, None] * rates[:, None, :])
        return np.asarray(joint.mean(0))


@dataclass(frozen=True)
class RawFloat:
    """The 32 bits of each float32, uncoded, in order of significance as they lie in memory: what not to do.

    One wrong bit of the exponent changes a number by up to 2^128, or makes it infinite or NaN: the error has neither
    a bound nor a variance.

    Parameters
    ----------
    non_finite : {"zero", "keep"}
        What the receiver puts in the place of NaN and infinity. "zero" is the least that any receiver would do, and
        what a task vector needs; huge finite numbers stay, for no receiver can tell. `Detected.lost` counts either way.
    constellation_bits : int
        Bits per symbol: 2, 4, 6, 8 or 10.
    """

    non_finite: str = "zero"
    constellation_bits: int = 6

    def __post_init__(self) -> None:
        if self.non_finite not in ("zero", "keep"):
            raise InputError(f"non_finite is {self.non_finite!r}: expected zero or keep")
        _check_constellation(self.constellation_bits)

    @property
    def reals_per_block(self) -> int:
        """As many floats as fill whole symbols."""
        return math.lcm(32, self.constellation_bits) // 32

    @property
    def symbols_per_block(self) -> int:
        """Symbols that these floats fill."""
        return math.lcm(32, self.constellation_bits) // self.constellation_bits

    def modulate(self, x: Tensor, user: int = 0) -> Tensor:
        """See `Scheme`."""
        words = _unpack(padded(x, self.reals_per_block).view(torch.int32), 32)
        return _send(words.flatten(), self.constellation_bits, user)

    def detect(self, estimate: Tensor, mse: float, n: int, user: int = 0) -> Detected:
        """See `Scheme`."""
        mse = checked(self, estimate, mse, n)
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


@dataclass(frozen=True)
class Coded:
    """PCM words behind the LDPC code of 5G (3GPP TS 38.212) on Gray-labelled QAM: all but exact, or useless.

    Parameters
    ----------
    bits, clip, constellation_bits
        As for `Pcm`.
    rate : float
        Information bits per coded bit, 0.2 … 0.92. At 1/2 on 64-QAM decoding fails above an MSE of about .08.
    iterations : int
        Of belief propagation, at most. Decoding takes nearly all the time of a link.
    """

    bits: int = 8
    clip: float = 4.0
    rate: float = 0.5
    constellation_bits: int = 6
    iterations: int = 20

    def __post_init__(self) -> None:
        _check_words(self.bits, self.clip, self.constellation_bits)
        whole_number(self.iterations, "iterations")
        if not 0.2 <= real_number(self.rate, "rate") <= 0.92:
            raise InputError(f"rate is {self.rate:g}: expected a number in [0.2, 0.92], which the code of 5G supports")

    @property
    def reals_per_block(self) -> int:
        """Words of one codeword, 3072 bits or just below: long enough for a steep threshold."""
        return 3072 // self.bits

    @property
    def symbols_per_block(self) -> int:
        """Symbols of one codeword, the last one full."""
        return math.ceil(self.reals_per_block * self.bits / self.rate / self.constellation_bits)

    def modulate(self, x: Tensor, user: int = 0) -> Tensor:
        """See `Scheme`."""
        words = _words(padded(x, self.reals_per_block), self.bits, self.clip)
        return self._encode(words.view(-1, self.reals_per_block * self.bits).float(), user)

    def detect(self, estimate: Tensor, mse: float, n: int, user: int = 0) -> Detected:
        """See `Scheme`: `hard` encodes the decoded bits again, `soft` takes the decoder's probabilities."""
        mse = checked(self, estimate, mse, n)
        variance = torch.tensor(max(mse / (1 - mse), SMALLEST_VARIANCE), device=estimate.device)
        logits = demapper(self.constellation_bits, estimate.device)(estimate / (1 - mse), variance)
        flip = 1 - 2 * scrambling(whole_number(user, "user", 0), len(logits), logits.device).float()
        logits = (logits * flip).view(-1, self.symbols_per_block * self.constellation_bits)
        decoded, improved = decode(self._code(estimate.device), logits, self.iterations)
        return Detected(
            _numbers(decoded.view(-1, self.bits)[:n], self.clip),
            lambda: self._encode(decoded, user),
            lambda: expected_symbols(improved.flatten() * flip, self.constellation_bits),
        )

    def distortion(self, mse: float) -> None:
        """None: no closed form. Far below the threshold it is the quantiser's, `Pcm.distortion(0)`."""
        error_of(mse)

    def _encode(self, words: Tensor, user: int) -> Tensor:
        return _send(self._code(words.device).encoder(words).flatten().to(torch.uint8), self.constellation_bits, user)

    def _code(self, device: torch.device) -> Code:
        k, n = self.reals_per_block * self.bits, self.symbols_per_block * self.constellation_bits
        return ldpc(k, n, self.constellation_bits, device)


def _check_constellation(constellation_bits: int) -> None:
    if constellation_bits not in CONSTELLATIONS or isinstance(constellation_bits, bool):
        raise InputError(
            f"constellation_bits is {constellation_bits!r}: expected one of {', '.join(map(str, CONSTELLATIONS))}"
        )


def _check_words(bits: int, clip: float, constellation_bits: int) -> None:
    if whole_number(bits, "bits") > 16:
        raise InputError(f"bits is {bits}: expected at most 16")
    real_number(clip, "clip", positive=True)
    _check_constellation(constellation_bits)


@lru_cache
def _sorting(bits: int, constellation_bits: int) -> np.ndarray:
    """Which bit of a group of words goes to each place of its symbols (lcm of both,)."""
    size = math.lcm(bits, constellation_bits)
    places = np.argsort(np.arange(size) % constellation_bits // 2, kind="stable")
    sources = np.argsort(np.arange(size) % bits, kind="stable")
    order = np.empty(size, int)
    order[places] = sources
    return order


def _unpack(words: Tensor, bits: int) -> Tensor:
    """Bits (n, bits) uint8 of words (n,) int32, the most significant first."""
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
    """Symbols of bits (m · constellation_bits,) uint8, scrambled."""
    mixed = stream ^ scrambling(whole_number(user, "user", 0), len(stream), stream.device)
    return mapper(constellation_bits, stream.device)(mixed)


def _receive(
    estimate: Tensor, mse: float, constellation_bits: int, user: int
) -> tuple[Tensor, Callable[[], Tensor], Callable[[], Tensor]]:
    """Uncoded bits as they were before scrambling, and what makes hard and soft symbols."""
    symbols = alphabet(constellation_bits)
    received = torch.view_as_real(estimate) / (1 - mse)
    index = nearest(received, symbols.levels)
    stream = bits_of(index, symbols)
    stream ^= scrambling(whole_number(user, "user", 0), len(stream), stream.device)

    def expect() -> Tensor:
        return torch.view_as_complex(posterior_mean(received, symbols.levels, mse / (1 - mse) / 2))

    return stream, lambda: symbols_of(index, symbols.levels), expect
