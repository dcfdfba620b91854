"""Bits on Gray-labelled QAM: Sionna's mapper, demapper and LDPC code, and closed forms.

Square QAM is a product of two Gray-labelled amplitude alphabets (3GPP TS 38.211, 5.1): even bits select the real part,
odd bits the imaginary part. So hard decisions, error rates and posterior means need √M levels, not M points, and are
computed here; labels and amplitudes are Sionna's. Hard decisions are to the nearest point, as in Sionna's max-log
demapper (its exact demapper may decide a bit differently in strong noise).

Sionna is an optional dependency, imported when first used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from rmtllmf_lib.arrays import Real, one_of, real_array
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.transport.quantise import interval_probability
from rmtllmf_lib.validated import validated_call

ConstellationBits = Literal[2, 4, 6, 8, 10]

# Stands for a variance of 0, where a Gaussian has no density; far below what float32 symbols resolve.
SMALLEST_VARIANCE = 1e-10

DECODED_AT_ONCE = 32  # codewords decoded together; more do not fit into the cache
CHECK_EVERY = 4  # iterations between two checks for decoded codewords


@contextmanager
def needs_sionna() -> Iterator[None]:
    """Turn a failed import of Sionna into an `InputError` that says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "sionna":
            raise
        raise InputError(
            "the digital schemes modulate and code with Sionna, which is not installed: pip install 'rmtllmf[link]'"
        ) from error


@dataclass(frozen=True)
class Alphabet:
    """One real dimension of a square QAM constellation of unit power.

    Parameters
    ----------
    levels : ndarray, (L,)
        Amplitudes, ascending and equally spaced.
    labels : ndarray, (L, log2 L) uint8
        Bits of each amplitude, the most reliable first.
    """

    levels: Real
    labels: np.ndarray[Any, np.dtype[np.uint8]]

    __repr__ = short_repr

    def flips(self, variance: float) -> Real:
        """Pr(bits a and b of one amplitude are both wrong) (log2 L, log2 L); the diagonal holds the error rates.

        Exact for nearest-level decisions, equally likely amplitudes and Gaussian noise of this variance.
        """
        wrong = (self.labels[:, None] != self.labels[None]).astype(float)
        joint = transition(self.levels, variance) / len(self.levels)
        return np.asarray(np.einsum("st,sta,stb->ab", joint, wrong, wrong))


@validated_call
def transition(levels: Real, variance: NonNegativeFloat) -> Real:
    """Pr(level i is decided as level j) (L, L) for equally spaced levels in Gaussian noise, nearest-level decisions."""
    levels = real_array(levels, "levels")
    bounds = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
    distance = (bounds - levels[:, None]) / np.sqrt(max(variance, SMALLEST_VARIANCE**2))
    return interval_probability(distance[:, :-1], distance[:, 1:])


@lru_cache
def alphabet(constellation_bits: int) -> Alphabet:
    """Alphabet of Sionna's QAM with this (even) number of bits per symbol."""
    one_of(constellation_bits, ConstellationBits, "constellation_bits")
    with needs_sionna():
        from sionna.phy.mapping import qam
    width = constellation_bits // 2
    labels = (np.arange(2**width)[:, None] >> np.arange(width - 1, -1, -1)) & 1
    weights = 1 << np.arange(constellation_bits - 1, -1, -2)  # of the even bits, which select the real part
    amplitudes = qam(constellation_bits, precision="double")[labels @ weights].real
    ascending = np.argsort(amplitudes)
    return Alphabet(amplitudes[ascending], labels[ascending].astype(np.uint8))


@lru_cache
def mapper(constellation_bits: int, device: torch.device) -> Any:
    """Sionna's mapper from bits (m · constellation_bits,) to symbols (m,) complex64."""
    with needs_sionna():
        from sionna.phy.mapping import Mapper
    return Mapper("qam", constellation_bits, precision="single", device=str(device))


@lru_cache
def demapper(constellation_bits: int, device: torch.device) -> Any:
    """Sionna's exact demapper from unbiased symbols and their noise variance to log Pr(1)/Pr(0) of the bits."""
    with needs_sionna():
        from sionna.phy.mapping import Demapper
    return Demapper("app", "qam", constellation_bits, precision="single", device=str(device))


class Code(NamedTuple):
    """5G LDPC code (3GPP TS 38.212) in Sionna's blocks; both decoders return the state of belief propagation."""

    encoder: Any
    to_words: Any  # log Pr(1)/Pr(0) of the code's bits (…, n) to information bits (…, k)
    to_code: Any  # the same to better log Pr(1)/Pr(0) (…, n)


@lru_cache(maxsize=4)
def ldpc(k: int, n: int, constellation_bits: int, device: torch.device) -> Code:
    """Code of k information bits in n code bits, interleaved for symbols of this many bits."""
    with needs_sionna():
        from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder
    where = {"precision": "single", "device": str(device)}
    encoder = LDPC5GEncoder(k, n, num_bits_per_symbol=constellation_bits, **where)
    to_words = LDPC5GDecoder(encoder, return_state=True, **where)
    to_code = LDPC5GDecoder(encoder, return_state=True, hard_out=False, return_infobits=False, **where)
    return Code(encoder, to_words, to_code)


@validated_call
def decode(code: Code, logits: Tensor, iterations: PositiveInt) -> tuple[Tensor, Tensor]:
    """Decode by belief propagation until a codeword is found, or up to a number of iterations.

    Sionna always runs all iterations; here a word is finished as soon as its decided information bits, encoded again,
    equal its decided code bits, which good links reach at the first check.

    Parameters
    ----------
    logits : Tensor, (words, n)
        log Pr(1)/Pr(0) of the code's bits.

    Returns
    -------
    bits : Tensor, (words, k) float32
    improved : Tensor, (words, n)
        log Pr(1)/Pr(0) of the code's bits after decoding.
    """
    bits = logits.new_empty(len(logits), code.encoder.k)
    improved = torch.empty_like(logits)
    for batch in torch.arange(len(logits), device=logits.device).split(DECODED_AT_ONCE):
        state, done = None, 0
        while done < iterations and len(batch):
            steps = min(CHECK_EVERY, iterations - done)
            if steps > 1:
                _, state = code.to_code(logits[batch], num_iter=steps - 1, msg_v2c=state)
            bits[batch], _ = code.to_words(logits[batch], num_iter=1, msg_v2c=state)
            improved[batch], state = code.to_code(logits[batch], num_iter=1, msg_v2c=state)
            open_ = ((improved[batch] > 0) != (code.encoder(bits[batch]) > 0.5)).any(1)
            batch, state, done = batch[open_], state[open_], done + steps
    return bits, improved


@lru_cache(maxsize=32)
def scrambling(user: int, length: int, device: torch.device) -> Tensor:
    """Fixed pseudo-random bits (length,) uint8 of a user.

    They are added modulo 2 to the bits sent. The bits of weights are far from equally likely (few numbers are large,
    most exponents are similar): without scrambling, the symbols' mean power would differ from 1, error rates would
    differ from those of equally likely points, and the users' symbols would be correlated.
    """
    packed = np.frombuffer(np.random.default_rng(user).bytes(-(-length // 8)), np.uint8)
    return torch.from_numpy(np.unpackbits(packed)[:length]).to(device)


@validated_call
def nearest(y: Tensor, levels: Real) -> Tensor:
    """Index (…) int32 of the nearest of equally spaced levels (L,)."""
    levels = real_array(levels, "levels")
    step = (levels[-1] - levels[0]) / (len(levels) - 1)
    return y.sub(float(levels[0])).div_(float(step)).round_().clamp_(0, len(levels) - 1).int()


@validated_call
def bits_of(index: Tensor, alphabet: Alphabet) -> Tensor:
    """Labels (m · bits,) uint8 of amplitudes (m, 2), in the order that the mapper expects."""
    labels = torch.from_numpy(alphabet.labels).to(index.device)
    return labels[index].transpose(1, 2).flatten()


@validated_call
def symbols_of(index: Tensor, levels: Real) -> Tensor:
    """Symbols (m,) complex64 of amplitudes (m, 2)."""
    amplitudes = torch.as_tensor(real_array(levels, "levels"), dtype=torch.float32, device=index.device)
    return torch.view_as_complex(amplitudes[index])


@validated_call
def posterior_mean(y: Tensor, levels: Real, variance: NonNegativeFloat, probability: Real | None = None) -> Tensor:
    """E(level | y) (…) float32 for y = level + noise of this variance; all levels (L,) equally likely by default."""
    points = torch.as_tensor(real_array(levels, "levels"), dtype=torch.float32, device=y.device)
    # Levels first: sums and exponentials then run over long rows, five times faster than torch's softmax over eight.
    logits = (y.flatten() - points[:, None]).square_().div_(-2 * max(variance, SMALLEST_VARIANCE))
    if probability is not None:
        logits += torch.as_tensor(np.log(np.maximum(real_array(probability, "probability"), np.finfo(float).tiny))).to(
            points
        )[:, None]
    weights = logits.sub_(logits.amax(0)).exp_()
    return (points @ weights).div_(weights.sum(0)).view_as(y)


@validated_call
def expected_symbols(logits: Tensor, constellation_bits: int) -> Tensor:
    """E(s) (m,) complex64 of symbols whose bits are independent with log Pr(1)/Pr(0) = `logits` (m · bits,).

    TS 38.211 builds an amplitude as (1 − 2 b_0)(4 − (1 − 2 b_2)(2 − (1 − 2 b_4))) for 64-QAM: a product of
    independent factors, so that every 1 − 2 b may be replaced by its mean −tanh(logit/2).
    """
    unit = float(alphabet(constellation_bits).levels[-1]) / (2 ** (constellation_bits // 2) - 1)
    signs = (logits / -2).tanh_().view(-1, constellation_bits // 2, 2)
    amplitude = torch.ones_like(signs[:, 0])
    for i in range(constellation_bits // 2 - 1, -1, -1):
        scale = 2 ** (constellation_bits // 2 - 1 - i)
        amplitude = signs[:, i] * (scale - amplitude if scale > 1 else amplitude)
    return torch.view_as_complex((amplitude * unit).contiguous())
