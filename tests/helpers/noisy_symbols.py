"""Symbols as a linear MMSE receiver hands them on, for the tests of what follows it."""

import torch
from torch import Tensor

from rmtllmf_lib.transport.scheme import Scheme


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, generator=generator(seed))


def received(symbols: Tensor, mse: float, seed: int = 1) -> Tensor:
    """(1 − mu) s + n with Var n = mu (1 − mu)."""
    noise = torch.randn(len(symbols), generator=generator(seed), dtype=torch.complex64)
    return (1 - mse) * symbols + (mse * (1 - mse)) ** 0.5 * noise


def mean_and_error(numbers: Tensor, together: int = 1) -> tuple[float, float]:
    """Mean of numbers and its standard error; so many in a row may depend on one another."""
    rows = numbers.double()[: len(numbers) // together * together].view(-1, together).mean(1)
    return float(rows.mean()), float(rows.std() / len(rows) ** 0.5)


def squared_error(scheme: Scheme, mse: float, n: int, seed: int = 0) -> tuple[float, float]:
    """E(x^ − x)² for n standard normal numbers, and its standard error."""
    x = normal(n, seed)
    values = scheme.detect(received(scheme.modulate(x), mse, seed + 1), mse, n).values
    return mean_and_error((values - x).double().square(), scheme.reals_per_block)
