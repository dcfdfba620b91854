"""Noise scenarios: named descriptions of how a link, an adversary and a receiver disturb the users' task vectors.

A scenario is computed from a drop of the uplink (`from_link`), or takes the paper's own numbers where a figure needs
them (`inject_mse`, `inject_snr`): no single link budget reproduces all link numbers of the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import Field

from rmtllmf_lib.arrays import Real, instance_of, one_of, real_array
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import TaskVector, Weights, require_alike
from rmtllmf_lib.published import PAPER_LINKS
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.transport.balanced import scramble, sign_correlation, unscramble
from rmtllmf_lib.transport.surrogate import CORRELATIONS, SCALES, error_covariance, surrogate
from rmtllmf_lib.validated import validated, validated_call
from rmtllmf_lib.wireless.adversary import attack
from rmtllmf_lib.wireless.channel import Uplink, require_uplink
from rmtllmf_lib.wireless.receiver import Order, Receiver, error_cov

Mse = Annotated[float, Field(ge=0)]


@validated
class Scenario:
    """Errors of the received task vectors, `tau^_q = tau_q + eps_q` with Gaussian eps_q (Section IV).

    Attributes
    ----------
    name : str
        Label in tables and figures.
    mse : float or tuple of one float per user
        mu_q ≥ 0. With scale "snr", the ratio of noise to signal instead.
    scale : {"task", "weight", "unit", "snr"}
        Reference of the error variance, see `surrogate.noise_power`.
    correlation : {"independent", "half", "common"}
        Correlation of the users' errors, see `surrogate.surrogate`.
    signs : {"plain", "balanced"}
        Whether the users scramble what they send, see `balanced`.
    """

    name: Annotated[str, Field(min_length=1)]
    mse: Mse | Annotated[tuple[Mse, ...], Field(min_length=1)]
    scale: str = "weight"
    correlation: str = "independent"
    signs: Literal["plain", "balanced"] = "plain"

    __repr__ = short_repr

    def __post_init__(self) -> None:
        one_of(self.scale, SCALES, "scale")
        one_of(self.correlation, CORRELATIONS, "correlation")

    @property
    def mean_mse(self) -> float:
        """Mean of the MSE over the users."""
        return float(np.mean(self.mse))

    @property
    def symbol_mse(self) -> float | tuple[float, ...]:
        """MSE of the users' symbols, which decides what a code carries: `mse`, or r/(1 + r) of a ratio r ("snr").

        Reference and correlation of the errors make no difference to it.
        """
        if self.scale != "snr":
            return self.mse
        return tuple(r / (1 + r) for r in self.mse) if isinstance(self.mse, tuple) else self.mse / (1 + self.mse)

    def receive(self, taus: Sequence[TaskVector], base: Weights, *, generator: torch.Generator) -> list[TaskVector]:
        """The users' task vectors as received, with one realisation of the noise.

        Raises
        ------
        InputError
            as `surrogate` does, in particular where the scenario has another number of users.
        """
        options = {"scale": self.scale, "correlation": self.correlation}
        if self.signs == "plain":
            return surrogate(taus, base, self.mse, **options, generator=generator)
        return unscramble(surrogate(scramble(taus), base, self.mse, **options, generator=generator))

    def error_cov(self, taus: Sequence[TaskVector], base: Weights) -> Real:
        """Covariance (user, user) of the users' errors in one parameter, known to the base station.

        With balanced signs it is the mean over the places.
        """
        cov = error_covariance(taus, base, self.mse, scale=self.scale, correlation=self.correlation)
        if self.signs == "plain" or not taus:
            return cov
        return cov * (np.eye(len(taus)) + sign_correlation(len(taus)) * (1 - np.eye(len(taus))))


@validated_call
def noise_to_signal(scenario: Scenario, taus: Sequence[TaskVector], base: Weights) -> float:
    """Power of the errors over that of the task vectors, geometric mean over the users; 0 without noise."""
    require_alike(taus)
    errors = np.diagonal(scenario.error_cov(taus, base))
    if not errors.all():
        return 0.0
    return float(np.exp(np.mean(np.log(errors / np.array([tau.rms**2 for tau in taus])))))


CLEAN = Scenario("clean", 0.0)


def from_link(
    name: str,
    uplink: Uplink,
    kind: str | None = None,
    jammer_w: ArrayLike = 0.0,
    *,
    aware: bool = True,
    receiver: Receiver = "sic",
    order: Order = "weakest-first",
    scale: str = "task",
    correlation: str = "independent",
) -> Scenario:
    """Scenario of a link with an adversary and a receiver.

    Parameters
    ----------
    name : str
        Label in tables and figures.
    uplink : Uplink
        One drop, or a batch of them: the coherence blocks of a channel that changes over time or frequency (OFDM), over
        which every vector is spread evenly. The scenario has each user's mean MSE over the batch, the error variance of
        a whole vector; the errors are those of that variance throughout, where the blocks' own would differ.
    kind : str, optional
        One of `adversary.KINDS`; None is thermal noise alone.
    jammer_w : (...) float, W
        Budget of the adversary, one number or one per drop.
    aware : bool
        Whether the receiver knows the jammer's covariance (matched) or assumes thermal noise alone.
    receiver, order
        As in `receiver.error_cov`.
    scale, correlation
        As in `Scenario`.

    Returns
    -------
    Scenario
        Its `mse` has one value per user: the diagonal of `receiver.error_cov`, averaged over the batch.

    Raises
    ------
    InputError
        for a budget without an adversary, an empty name, an unknown scale or correlation, and as `attack`
        and `error_cov` do.
    """
    require_uplink(uplink)
    instance_of(aware, (bool, np.bool_), "aware")
    if real_array(jammer_w, "jammer_w", minimum=0).any() and kind is None:
        raise InputError(f"jammer_w is {jammer_w!r} without an adversary: give a kind of attack, or leave it at 0")
    thermal = uplink.thermal_cov
    noise = thermal if kind is None else attack(uplink, jammer_w, kind, order=order).noise_cov
    error = error_cov(uplink, noise, None if aware else thermal, order, receiver=receiver)
    mse = np.diagonal(error, axis1=-2, axis2=-1).real
    return Scenario(name, tuple(mse.reshape(-1, uplink.num_users).mean(axis=0).tolist()), scale, correlation)


def inject_mse(correlation: str = "independent", scale: str = "weight") -> tuple[Scenario, ...]:
    """The paper's mean MSEs .013, .16 and .21 (ideal, SU and SR), the same for every user."""
    return tuple(Scenario(name, link.mse, scale, correlation) for name, link in PAPER_LINKS.items())


def inject_snr(correlation: str = "half") -> tuple[Scenario, ...]:
    """The paper's SNRs -16.2, -21.7 and -27.3 dB, read as the power of a task vector over that of its error."""
    return tuple(Scenario(name, 10 ** (-link.snr_db / 10), "snr", correlation) for name, link in PAPER_LINKS.items())
