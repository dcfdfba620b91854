"""The interface of a scheme, from numbers to symbols and back (Section IV), and the checks that all schemes share.

Numbers are normalised beforehand: x = tau / a, a = rms(tau), mean square 1. Symbols have unit mean power. The receiver
provides its linear MMSE estimate s^ = (1 − mu) s + n with Var n = mu (1 − mu), where mu is the MSE of the link.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from rmtllmf_lib.arrays import instance_of, real_number, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.reprs import short_repr


@dataclass(frozen=True)
class Detected:
    """Result of detecting one block.

    Parameters
    ----------
    values : Tensor, (n,) float32
        Received numbers x^.
    decide : callable, optional
        Computes `hard`; None where symbols come from no finite alphabet.
    expect : callable
        Computes `soft`.
    lost : int
        How many numbers arrived as NaN or infinity, before any replacement.
    """

    values: Tensor
    decide: Callable[[], Tensor] | None
    expect: Callable[[], Tensor]
    lost: int = 0

    __repr__ = short_repr

    @property
    def hard(self) -> Tensor:
        """Re-modulated decisions (m,) complex64; computed on access.

        Raises
        ------
        InputError
            for an analog scheme, which has no decisions.
        """
        if self.decide is None:
            raise InputError(
                "cancellation is 'hard' for analog symbols, which come from no alphabet: "
                "expected 'genie' or 'soft', or a scheme that quantises"
            )
        return self.decide()

    @property
    def soft(self) -> Tensor:
        """Posterior means of the symbols (m,) complex64; computed on access."""
        return self.expect()


@runtime_checkable
class Scheme(Protocol):
    """Mapping of numbers to symbols and back. Calls are independent: the same input gives the same output."""

    @property
    def reals_per_block(self) -> int:
        """How many numbers are encoded together; the last block is padded with zeros."""

    @property
    def symbols_per_block(self) -> int:
        """How many symbols carry `reals_per_block` numbers: n numbers take ceil(n / reals) * symbols."""

    def modulate(self, x: Tensor, user: int = 0) -> Tensor:
        """Symbols (m,) complex64, unit mean power, of numbers (n,) of mean square 1.

        Parameters
        ----------
        user : int
            Selects the scrambling sequence, so that different users' symbols are uncorrelated even for equal bits.
        """

    def detect(self, estimate: Tensor, mse: float, n: int, user: int = 0) -> Detected:
        """Recover n numbers from the receiver's LMMSE estimates (m,) with MSE `mse` in [0, 1) (normalised, Eq. (5))."""

    def distortion(self, mse: float) -> float | None:
        """Predicted E(x^ − x)² for x ~ N(0, 1); None where there is no closed form."""


def padded(x: Tensor, multiple: int, user: int) -> Tensor:
    """Numbers (n,) as float32, padded with zeros to a multiple; checks the arguments of `Scheme.modulate`."""
    whole_number(user, "user", 0)
    instance_of(x, Tensor, "x")
    if x.dim() != 1 or not len(x) or not x.is_floating_point():
        raise InputError(f"x has shape {tuple(x.shape)} and dtype {x.dtype}: expected real numbers in one dimension")
    if not x.isfinite().all():
        raise InputError("x holds NaN or infinity: expected finite numbers")
    return torch.nn.functional.pad(x.float(), (0, -len(x) % whole_number(multiple, "multiple")))


def error_of(mse: float) -> float:
    """Normalised MSE in [0, 1); `InputError` otherwise."""
    mse = real_number(mse, "mse")
    if not 0 <= mse < 1:
        raise InputError(f"mse is {mse:g}: expected a number in [0, 1), the error of a unit-power symbol")
    return mse


def checked(scheme: Scheme, estimate: Tensor, mse: float, n: int, user: int) -> float:
    """`mse` as a float; checks the arguments of `Scheme.detect` against each other."""
    whole_number(user, "user", 0)
    instance_of(scheme, Scheme, "scheme")
    instance_of(estimate, Tensor, "estimate")
    symbols = -(-whole_number(n, "n") // scheme.reals_per_block) * scheme.symbols_per_block
    if estimate.shape != (symbols,) or estimate.dtype != torch.complex64:
        raise InputError(
            f"estimate has shape {tuple(estimate.shape)} and dtype {estimate.dtype}: "
            f"expected ({symbols},) and complex64 for {n} numbers"
        )
    if not torch.view_as_real(estimate).isfinite().all():
        raise InputError("estimate holds NaN or infinity: expected finite numbers")
    return error_of(mse)
