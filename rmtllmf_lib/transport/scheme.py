"""What every scheme offers: numbers to symbols and back (Section IV), and the checks that all of them share.

Numbers are normalised before they get here: x = tau / a, a = rms(tau), mean square 1. Symbols have unit mean power. The
receiver hands back its linear MMSE estimate s^ = (1 − mu) s + n with Var n = mu (1 − mu), mu the MSE of the link.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rmtllmf_lib.arrays import real_number, whole_number
from rmtllmf_lib.errors import InputError


@dataclass(frozen=True)
class Detected:
    """What a receiver makes of one block.

    Parameters
    ----------
    values : Tensor, (n,) float32
        Received numbers x^.
    decide : callable, optional
        Makes `hard`; None where symbols carry no finite alphabet.
    expect : callable
        Makes `soft`.
    lost : int
        Numbers that arrived as NaN or infinity, whatever the scheme put in their place.
    """

    values: Tensor
    decide: Callable[[], Tensor] | None
    expect: Callable[[], Tensor]
    lost: int = 0

    @property
    def hard(self) -> Tensor:
        """Symbols (m,) complex64 of the decisions, modulated again; computed when asked for.

        Raises
        ------
        InputError
            The scheme is analog: there is nothing to decide.
        """
        if self.decide is None:
            raise InputError(
                "cancellation is 'hard' for analog symbols, which come from no alphabet: "
                "expected 'genie' or 'soft', or a scheme that quantises"
            )
        return self.decide()

    @property
    def soft(self) -> Tensor:
        """Posterior means of the symbols (m,) complex64; computed when asked for."""
        return self.expect()


class Scheme(Protocol):
    """Numbers to symbols and back. Every call handles one block by itself: the same input gives the same output."""

    @property
    def reals_per_block(self) -> int:
        """Numbers that are encoded together; the last of them are padded with zeros where a length needs it."""

    @property
    def symbols_per_block(self) -> int:
        """Symbols that carry `reals_per_block` numbers: n numbers need ceil(n / reals) * symbols of them."""

    def modulate(self, x: Tensor, user: int = 0) -> Tensor:
        """Symbols (m,) complex64, unit mean power, of numbers (n,) of mean square 1.

        Parameters
        ----------
        user : int
            Whose scrambling sequence is used: symbols of different users stay uncorrelated where their bits are alike.
        """

    def detect(self, estimate: Tensor, mse: float, n: int, user: int = 0) -> Detected:
        """The n numbers in the receiver's LMMSE estimates (m,) of MSE `mse` in [0, 1) (normalised, Eq. (5))."""

    def distortion(self, mse: float) -> float | None:
        """Predicted E(x^ − x)² for x ~ N(0, 1); None where there is no closed form."""


def padded(x: Tensor, multiple: int) -> Tensor:
    """Numbers (n,) as float32, zeros behind them up to a multiple."""
    if x.dim() != 1 or not len(x) or not x.is_floating_point():
        raise InputError(f"x has shape {tuple(x.shape)} and dtype {x.dtype}: expected real numbers in one dimension")
    if not x.isfinite().all():
        raise InputError("x holds NaN or infinity: expected finite numbers")
    return torch.nn.functional.pad(x.float(), (0, -len(x) % multiple))


def error_of(mse: float) -> float:
    """A normalised MSE in [0, 1); `InputError` otherwise."""
    mse = real_number(mse, "mse")
    if not 0 <= mse < 1:
        raise InputError(f"mse is {mse:g}: expected a number in [0, 1), the error of a unit-power symbol")
    return mse


def checked(scheme: Scheme, estimate: Tensor, mse: float, n: int) -> float:
    """`mse`, where the arguments of `Scheme.detect` fit one another."""
    symbols = -(-whole_number(n, "n") // scheme.reals_per_block) * scheme.symbols_per_block
    if estimate.shape != (symbols,) or estimate.dtype != torch.complex64:
        raise InputError(
            f"estimate has shape {tuple(estimate.shape)} and dtype {estimate.dtype}: "
            f"expected ({symbols},) and complex64 for {n} numbers"
        )
    if not torch.view_as_real(estimate).isfinite().all():
        raise InputError("estimate holds NaN or infinity: expected finite numbers")
    return error_of(mse)
