"""The schemes by name, and those that send amplitudes: analog, or quantised to a few levels (Section IV)."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from rmtllmf_lib.arrays import Real, one_of
from rmtllmf_lib.transport.digital import Clip, Coded, Pcm, RawFloat
from rmtllmf_lib.transport.modulation import nearest, posterior_mean, symbols_of, transition
from rmtllmf_lib.transport.quantise import GaussianQuantiser, best_clip, dequantise, gaussian_quantiser, quantise
from rmtllmf_lib.transport.scheme import Detected, Scheme, checked, error_of, padded
from rmtllmf_lib.validated import validated


@validated
class Analog:
    """Two numbers per symbol, s = (x_2i + j x_2i+1)/√2, without quantisation.

    Parameters
    ----------
    estimate : {"mmse", "unbiased"}
        "mmse" keeps the receiver's estimate, shrunk by 1 − mu: error variance mu, never more than that of zeros;
        "unbiased" divides by 1 − mu: error variance mu/(1 − mu).
    """

    estimate: Literal["mmse", "unbiased"] = "mmse"

    @property
    def reals_per_block(self) -> int:
        """Two: one per real dimension."""
        return 2

    @property
    def symbols_per_block(self) -> int:
        """One."""
        return 1

    def modulate(self, x: Tensor, user: int = 0) -> Tensor:
        """See `Scheme`; `user` makes no difference."""
        return torch.view_as_complex(padded(x, 2, user).view(-1, 2) * math.sqrt(0.5))

    def detect(self, estimate: Tensor, mse: float, n: int, user: int = 0) -> Detected:
        """See `Scheme`; `soft` is the estimate itself, `hard` an error."""
        mse = checked(self, estimate, mse, n, user)
        gain = math.sqrt(2) / (1 - mse if self.estimate == "unbiased" else 1)
        return Detected(torch.view_as_real(estimate).flatten()[:n] * gain, None, lambda: estimate)

    def distortion(self, mse: float) -> float:
        """mu, or mu/(1 − mu) for "unbiased": exact for every distribution of mean square 1 (Section IV)."""
        mse = error_of(mse)
        return mse / (1 - mse) if self.estimate == "unbiased" else mse


@validated
class Pam:
    """Each number quantised to one of a few levels, which are the amplitudes of a real dimension in natural order.

    A wrong decision is then nearly always a neighbour. Amplitudes are scaled to unit mean power for N(0, 1): the inner
    levels occur more often, and scaling for equally likely ones would waste 2.7 dB at eight levels. Numbers with
    heavier tails have less power inside the range and transmit slightly less power.

    Parameters
    ----------
    levels : int
        L ≥ 2.
    clip : float, optional
        kappa > 0: the range is [−kappa, kappa] in units of rms(x), beyond which numbers are clipped (see `quantise`).
        Default: the range of least distortion for N(0, 1), 2.344 for eight levels (Max 1960).
    """

    levels: Annotated[int, Field(ge=2)] = 8
    clip: Clip | None = None

    @property
    def reals_per_block(self) -> int:
        """Two: one per real dimension."""
        return 2

    @property
    def symbols_per_block(self) -> int:
        """One."""
        return 1

    @property
    def quantiser(self) -> GaussianQuantiser:
        """The quantiser of N(0, 1) with these levels."""
        return gaussian_quantiser(self.levels, best_clip(self.levels) if self.clip is None else self.clip)

    @property
    def _amplitudes(self) -> Real:
        return self.quantiser.midpoints / math.sqrt(2 * self.quantiser.power)

    def modulate(self, x: Tensor, user: int = 0) -> Tensor:
        """See `Scheme`; `user` makes no difference."""
        index = quantise(padded(x, 2, user), self.levels, self.quantiser.clip)
        return symbols_of(index.view(-1, 2), self._amplitudes)

    def detect(self, estimate: Tensor, mse: float, n: int, user: int = 0) -> Detected:
        """See `Scheme`; `soft` weighs the levels by their probability under N(0, 1)."""
        mse = checked(self, estimate, mse, n, user)
        received = torch.view_as_real(estimate) / (1 - mse)
        index = nearest(received, self._amplitudes)
        variance = mse / (1 - mse) / 2

        def expect() -> Tensor:
            return torch.view_as_complex(
                posterior_mean(received, self._amplitudes, variance, self.quantiser.probability)
            )

        values = dequantise(index.flatten()[:n], self.levels, self.quantiser.clip)
        return Detected(values, lambda: symbols_of(index, self._amplitudes), expect)

    def distortion(self, mse: float) -> float:
        """Exact for N(0, 1) and Gaussian noise, including quantisation, overload and wrong decisions."""
        mse = error_of(mse)
        return self.quantiser.distortion(transition(self._amplitudes, mse / (1 - mse) / 2))


SCHEMES: dict[str, Scheme] = {
    "analog-mmse": Analog(),
    "analog-unbiased": Analog("unbiased"),
    "pam8": Pam(),
    "pcm": Pcm(),
    "ldpc": Coded(),
    "float32": RawFloat(),
}


def scheme_named(scheme: Scheme | str) -> Scheme:
    """`scheme` itself, or the one of `SCHEMES` with this name; `InputError` for anything else."""
    return scheme if isinstance(scheme, Scheme) else SCHEMES[one_of(scheme, SCHEMES, "scheme")]
