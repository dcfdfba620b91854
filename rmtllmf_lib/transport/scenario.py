"""Noise scenarios: what a link, an adversary and a receiver do to the users' task vectors, under one name.

A scenario comes from a drop of the uplink (`from_link`), or is put in its place where a figure needs the paper's own
numbers (`inject_mse`, `inject_snr`): the paper's link numbers cannot all be had from one link budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rmtllmf_lib.arrays import Real, real_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.published import PAPER_LINKS
from rmtllmf_lib.transport.surrogate import CORRELATIONS, SCALES, error_covariance, surrogate
from rmtllmf_lib.wireless.adversary import attack
from rmtllmf_lib.wireless.channel import Uplink
from rmtllmf_lib.wireless.receiver import Order, Receiver, error_cov


@dataclass(frozen=True)
class Scenario:
    """Errors of the received task vectors, `tau^_q = tau_q + eps_q` with Gaussian eps_q (Section IV).

    Attributes
    ----------
    name : str
        What tables and figures call it.
    mse : float or tuple of one float per user
        mu_q ≥ 0. With scale "snr", the ratio of noise to signal instead.
    scale : {"task", "weight", "unit", "snr"}
        What the error variance is in proportion to, see `transport.noise_power`.
    correlation : {"independent", "half", "common"}
        Of the users' errors, see `transport.surrogate`.
    """

    name: str
    mse: float | tuple[float, ...]
    scale: str = "weight"
    correlation: str = "independent"

    def __post_init__(self) -> None:
        if not self.name:
            raise InputError("a scenario has an empty name: give it one that tables can show")
        if self.scale not in SCALES:
            raise InputError(f"scenario {self.name!r} has scale {self.scale!r}: expected one of {', '.join(SCALES)}")
        if self.correlation not in CORRELATIONS:
            raise InputError(
                f"scenario {self.name!r} has correlation {self.correlation!r}: expected one of "
                f"{', '.join(CORRELATIONS)}"
            )
        mse: Any = self.mse.tolist() if isinstance(self.mse, np.ndarray) else self.mse
        several = isinstance(mse, Sequence) and not isinstance(mse, str)
        given = mse if several else (mse,)
        values = tuple(real_number(mu, f"an MSE of scenario {self.name!r}") for mu in given)
        if not values or min(values) < 0:
            raise InputError(f"scenario {self.name!r} has mse {self.mse}: expected one number ≥ 0, or one per user")
        object.__setattr__(self, "mse", values if several else values[0])

    @property
    def mean_mse(self) -> float:
        """Mean of the MSE over the users."""
        return float(np.mean(self.mse))

    def receive(self, taus: Sequence[TaskVector], base: Weights, *, generator: torch.Generator) -> list[TaskVector]:
        """The users' task vectors as they arrive, one realisation of the noise.

        Raises
        ------
        InputError
            as `surrogate` does; above all where the scenario has another number of users.
        """
        return surrogate(
            taus, base, self.mse, scale=self.scale, correlation=self.correlation, generator=generator
        )  # fmt: skip

    def error_cov(self, taus: Sequence[TaskVector], base: Weights) -> Real:
        """Covariance (user, user) of the users' errors in one parameter, which the base station knows."""
        return error_covariance(taus, base, self.mse, scale=self.scale, correlation=self.correlation)


CLEAN = Scenario("clean", 0.0)


def from_link(
    name: str,
    uplink: Uplink,
    kind: str | None = None,
    jammer_w: float = 0.0,
    *,
    aware: bool = True,
    receiver: Receiver = "sic",
    order: Order = "weakest-first",
    scale: str = "task",
    correlation: str = "independent",
) -> Scenario:
    """The scenario of one drop: users, an adversary and a receiver.

    Parameters
    ----------
    uplink : Uplink
        A single drop, batch shape ().
    kind : str, optional
        One of `adversary.KINDS`; None: thermal noise alone.
    jammer_w : float, W
        Budget of the adversary.
    aware : bool
        Whether the receiver knows the jammer's covariance (matched), or believes in thermal noise alone.
    receiver, order
        As in `receiver.error_cov`.
    scale, correlation
        As in `Scenario`.

    Raises
    ------
    InputError
        A batch of drops, a budget without an adversary, or what `attack` and `error_cov` raise.
    """
    if uplink.batch_shape:
        raise InputError(f"the uplink holds drops of shape {uplink.batch_shape}: expected a single one, uplink[i]")
    if kind is None and jammer_w:
        raise InputError(f"jammer_w is {jammer_w!r} and there is no adversary: name a kind of attack, or leave it at 0")
    thermal = uplink.thermal_cov
    noise = thermal if kind is None else attack(uplink, jammer_w, kind, order=order).noise_cov
    error = error_cov(uplink, noise, None if aware else thermal, order, receiver=receiver)
    return Scenario(name, tuple(np.diagonal(error).real.tolist()), scale, correlation)


def inject_mse(correlation: str = "independent", scale: str = "weight") -> tuple[Scenario, ...]:
    """The paper's three mean MSEs, .013, .16 and .21, the same for every user: ideal, SU and SR."""
    return tuple(Scenario(name, link.mse, scale, correlation) for name, link in PAPER_LINKS.items())


def inject_snr(correlation: str = "half") -> tuple[Scenario, ...]:
    """The paper's three SNRs, -16.2, -21.7 and -27.3 dB, read as power of a task vector over power of its error."""
    return tuple(Scenario(name, 10 ** (-link.snr_db / 10), "snr", correlation) for name, link in PAPER_LINKS.items())
