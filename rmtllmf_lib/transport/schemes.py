"""The schemes by name, and those that send amplitudes: analog, and quantised to a few levels (Section IV)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rmtllmf_lib.arrays import Real, one_of, real_number, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.transport.digital import Coded, Pcm, RawFloat
from rmtllmf_lib.transport.modulation import nearest, posterior_mean, symbols_of, transition
from rmtllmf_lib.transport.quantise import Cells, best_clip, dequantise, gaussian_cells, quantise
from rmtllmf_lib.transport.scheme import Detected, Scheme, checked, error_of, padded

__all__ = ["SCHEMES", "Analog", "Coded", "Detected", "Pam", "Pcm", "RawFloat", "Scheme", "scheme_named"]


@dataclass(frozen=True)
class Analog:
    """Two numbers per symbol, s = (x_2i + j x_2i+1)/√2, nothing quantised.

    Parameters
    ----------
    estimate : {"mmse", "unbiased"}
        "mmse" keeps the receiver's estimate, shrunk by 1 − mu: error variance mu, never worse than sending nothing;
        "unbiased" divides by 1 − mu: error variance mu/(1 − mu).
    """

    estimate: str = "mmse"

    def __post_init__(self) -> None:
        if self.estimate not in ("mmse", "unbiased"):
            raise InputError(f"estimate is {self.estimate!r}: expected mmse or unbiased")

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
        return torch.view_as_complex(padded(x, 2).view(-1, 2) * math.sqrt(0.5))

    def detect(self, estimate: Tensor, mse: float, n: int, user: int = 0) -> Detected:
        """See `Scheme`; `soft` is the estimate itself, `hard` an error."""
        mse = checked(self, estimate, mse, n)
        gain = math.sqrt(2) / (1 - mse if self.estimate == "unbiased" else 1)
        return Detected(torch.view_as_real(estimate).flatten()[:n] * gain, None, lambda: estimate)

    def distortion(self, mse: float) -> float:
        """mu, or mu/(1 − mu) without bias: exact for every distribution of mean square 1 (Section IV)."""
        mse = error_of(mse)
        return mse / (1 - mse) if self.estimate == "unbiased" else mse


@dataclass(frozen=True)
class Pam:
    """Each number quantised to one of a few levels, which are the amplitudes of a real dimension, in natural order.

    A wrong decision is then nearly always a neighbour. Amplitudes are scaled to unit mean power for N(0, 1): the inner
    levels occur more often, and equally likely ones would waste 2.7 dB at eight levels. Numbers with heavier tails
    have less power inside the range and send a little less.

    Parameters
    ----------
    levels : int
        L ≥ 2.
    clip : float, optional
        kappa > 0: the range is [−kappa, kappa] in units of rms(x), beyond it a number is cut (see `quantise`). Unless
        told, the range of least distortion for N(0, 1): 2.344 for eight levels (Max 1960).
    """

    levels: int = 8
    clip: float | None = None

    def __post_init__(self) -> None:
        whole_number(self.levels, "levels", 2)
        if self.clip is not None:
            real_number(self.clip, "clip", positive=True)

    @property
    def reals_per_block(self) -> int:
        """Two: one per real dimension."""
        return 2

    @property
    def symbols_per_block(self) -> int:
        """One."""
        return 1

    @property
    def cells(self) -> Cells:
        """The quantiser."""
        return gaussian_cells(self.levels, best_clip(self.levels) if self.clip is None else float(self.clip))

    @property
    def _amplitudes(self) -> Real:
        return self.cells.midpoints / math.sqrt(2 * self.cells.power)

    def modulate(self, x: Tensor, user: int = 0) -> Tensor:
        """See `Scheme`; `user` makes no difference."""
        cells = quantise(padded(x, 2), self.levels, self.cells.clip)
        return symbols_of(cells.view(-1, 2), self._amplitudes)

    def detect(self, estimate: Tensor, mse: float, n: int, user: int = 0) -> Detected:
        """See `Scheme`; `soft` takes the levels to be as likely as for N(0, 1)."""
        mse = checked(self, estimate, mse, n)
        received = torch.view_as_real(estimate) / (1 - mse)
        index = nearest(received, self._amplitudes)
        variance = mse / (1 - mse) / 2

        def expect() -> Tensor:
            return torch.view_as_complex(posterior_mean(received, self._amplitudes, variance, self.cells.probability))

        values = dequantise(index.flatten()[:n], self.levels, self.cells.clip)
        return Detected(values, lambda: symbols_of(index, self._amplitudes), expect)

    def distortion(self, mse: float) -> float:
        """Exact for N(0, 1) and Gaussian noise: quantisation, overload and wrong decisions together."""
        mse = error_of(mse)
        return self.cells.distortion(transition(self._amplitudes, mse / (1 - mse) / 2))


SCHEMES: dict[str, Scheme] = {
    "analog-mmse": Analog(),
    "analog-unbiased": Analog("unbiased"),
    "pam8": Pam(),
    "pcm": Pcm(),
    "ldpc": Coded(),
    "float32": RawFloat(),
}


def scheme_named(scheme: Scheme | str) -> Scheme:
    """`scheme` itself, or the one of `SCHEMES` that has this name; `InputError` for another name."""
    if not isinstance(scheme, str):
        return scheme
    return SCHEMES[one_of(scheme, SCHEMES, "scheme")]
