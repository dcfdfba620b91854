"""Moments of the errors between sent and received vectors, to compare a link with the Gaussian surrogate (Section IV).

Errors are normalised: those of user q are divided by `a_q = rms(tau_q)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rmtllmf_lib.arrays import Real, instance_of
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import TaskVector, require_alike
from rmtllmf_lib.reprs import short_repr

_NUMBERS_AT_ONCE = 2**16  # of each user: with eight users in float64, 4 MiB


@dataclass(frozen=True, eq=False)
class ErrorStatistics:
    """Errors `e_q = (tau^_q - tau_q) / a_q` over all numbers of a vector.

    Attributes
    ----------
    table : DataFrame
        One row per user: `user`; `scale`, a_q; `variance`, the mean of e^2, which includes the bias of a shrinking
        estimate, with its `standard_error`; `bias`, the mean of e; `gain`, `<tau^, tau> / <tau, tau>`;
        `excess_kurtosis`, `mean e^4 / (mean e^2)^2 - 3`, which is 0 for Gaussian errors, and `kurtosis_error`, its
        standard error in that case; `sent_kurtosis`, that of the numbers sent. NaN where tau_q is zero or there are no
        errors.
    correlation : (user, user) float
        `mean(e_q e_k) / sqrt(mean e_q^2 mean e_k^2)`; NaN for a user without errors.
    """

    table: pd.DataFrame
    correlation: Real

    __repr__ = short_repr

    def _repr_html_(self) -> str:
        """The table, where a notebook shows the statistics."""
        return str(self.table.to_html(index=False, float_format="{:.3g}".format))


class Moments:
    """Running sums over blocks of numbers; the blocks are not kept.

    Parameters
    ----------
    users : int
    """

    def __init__(self, users: int) -> None:
        self.count = 0
        self.gram = torch.zeros(users, users, dtype=torch.float64)
        self.first, self.fourth, self.cross, self.power, self.tails = torch.zeros(5, users, dtype=torch.float64)

    def add(self, sent: Tensor, received: Tensor) -> None:
        """Add numbers (user, n), normalised by a_q."""
        for x, arrived in zip(
            sent.split(_NUMBERS_AT_ONCE, dim=1), received.split(_NUMBERS_AT_ONCE, dim=1), strict=True
        ):
            x = x.double()
            e = arrived.double() - x
            squares = e.square()
            self.count += x.shape[1]
            self.gram.addmm_(e, e.T)
            self.first += e.sum(1)
            self.fourth += torch.linalg.vecdot(squares, squares)
            self.cross += torch.linalg.vecdot(x, e)
            self.power += torch.linalg.vecdot(x, x)
            self.tails += x.square().square().sum(1)

    def merge(self, other: Moments) -> None:
        """Add the sums of other blocks."""
        self.count += other.count
        for name in ("gram", "first", "fourth", "cross", "power", "tails"):
            getattr(self, name).add_(getattr(other, name))

    def statistics(self, scales: Sequence[float]) -> ErrorStatistics:
        """Statistics of all blocks so far, for the scales a_q."""
        n = self.count
        gram = self.gram.numpy() / n
        sums = (self.fourth, self.first, self.cross, self.power, self.tails)
        fourth, first, cross, power, tails = (x.numpy() / n for x in sums)
        variance = gram.diagonal().copy()
        sent = np.asarray(scales) > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            columns = {
                "variance": variance,
                "standard_error": np.sqrt(np.maximum(fourth - variance**2, 0) / n),
                "bias": first,
                "gain": 1 + cross / power,
                "excess_kurtosis": fourth / variance**2 - 3,
                "kurtosis_error": np.where(variance > 0, np.sqrt(24 / n), np.nan),
                "sent_kurtosis": tails / power**2 - 3,
            }
            correlation = gram / np.sqrt(np.outer(variance, variance))
        known = {name: np.where(sent, column, np.nan) for name, column in columns.items()}
        table = pd.DataFrame({"user": np.arange(len(variance)), "scale": np.asarray(scales, float), **known})
        return ErrorStatistics(table, np.where(np.outer(sent, sent), correlation, np.nan))


def error_statistics(sent: Sequence[TaskVector], received: Sequence[TaskVector]) -> ErrorStatistics:
    """Statistics of the errors between sent and received task vectors.

    Parameters
    ----------
    sent, received : sequences of TaskVector
        One per user, all of one layout and base.

    Raises
    ------
    InputError
        if there are none, or their numbers, layouts or bases differ.
    """
    require_vectors(sent, "sent")
    require_vectors(received, "received")
    if len(sent) != len(received):
        raise InputError(f"{len(sent)} task vectors were sent and {len(received)} received: expected equal numbers")
    require_alike([*sent, *received])
    scales = [tau.rms for tau in sent]
    moments = Moments(len(sent))
    units = torch.tensor([[scale or 1.0] for scale in scales], dtype=torch.float64)
    for start in range(0, sent[0].layout.size, _NUMBERS_AT_ONCE):
        x, arrived = (
            torch.stack([tau.values[start : start + _NUMBERS_AT_ONCE] for tau in taus]).double() / units
            for taus in (sent, received)
        )
        moments.add(x, arrived)
    return moments.statistics(scales)


def require_vectors(taus: Sequence[TaskVector], name: str) -> None:
    """`InputError` unless this is a list or a tuple of task vectors."""
    for index, tau in enumerate(instance_of(taus, (list, tuple), instance_of(name, str, "name"))):
        instance_of(tau, TaskVector, f"{name}[{index}]")
