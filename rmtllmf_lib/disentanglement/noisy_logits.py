"""Logits of whole noisy models: the reference for what `first_order` predicts, and how far the first order holds.

Every draw adds independent Gaussian noise to all parameters, and all images go through each noisy model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from rmtllmf_lib.arrays import Real, real_array, real_number, seed_number, torch_generator, whole_number
from rmtllmf_lib.disentanglement.linearise import Network, along, finite, flat_values, logits
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import Weights
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.seeds import drawn_seed, generator_for
from rmtllmf_lib.threads import single_threads
from rmtllmf_lib.validated import validated_call

VALID = 0.1  # relative linearisation error up to which first-order predictions are called valid

_Result = TypeVar("_Result")


@validated_call
def noise_draw(size: int, seed: int, draw: int) -> Tensor:
    """Standard normal numbers (size,) float32 of one draw, which depend on the seed and the draw's number alone."""
    whole_number(size, "size")
    whole_number(draw, "draw", minimum=0)
    return torch.randn(size, generator=generator_for(seed_number(seed), draw))


@validated_call
def model_draws(
    networks: Mapping[str, Network],
    weights: Weights,
    stds: ArrayLike,
    draws: int,
    *,
    generator: torch.Generator,
    threads: int = 1,
) -> dict[str, Real]:
    """Logits of models with Gaussian noise in all parameters; the same directions serve all noise levels and tasks.

    The images of all tasks go through a noisy tower together. For many draws; `perturb` adds derivatives.

    Parameters
    ----------
    networks : mapping of task to Network
        Of one tower.
    stds : one or more positive numbers
        Standard deviations s of the noise of each parameter.
    draws : int
        Noisy models for each level.
    generator : torch.Generator
        On the CPU; one number is drawn, which seeds all draws.
    threads : int
        Threads that share the draws; the result does not depend on it.

    Returns
    -------
    mapping of task to (levels, draws, n, C) float64

    Raises
    ------
    InputError
        for no network, a network of another tower, a level that is not positive, or noise that makes logits NaN or
        infinite.
    """
    levels, values, seed = _prepared(networks, weights, stds, generator)
    together, places = _together(list(networks.values()))

    def moved(noise: Tensor) -> list[list[Tensor]]:
        found = [together.logits(values + std * noise) for std in levels.tolist()]
        return [[logits[images, classes].cpu() for images, classes in places] for logits in found]

    found = _map_draws(moved, values, seed, draws, threads)
    return {
        name: finite(torch.stack([torch.stack([draw[level][place] for draw in found]) for level in range(len(levels))]))
        for place, name in enumerate(networks)
    }


@dataclass(frozen=True, eq=False)
class Perturbed:
    """Logits of one task's images under the same noise at several levels, with their first-order movement.

    Attributes
    ----------
    stds : (levels,) float64
        Standard deviations s of the noise of each parameter.
    clean : (n, C) float64
        z_u.
    disturbed : (levels, draws, n, C) float64
        z_d of the noisy models.
    slopes : (draws, n, C) float64
        J v for the noise v of variance 1 of each draw: z_d ≈ z_u + s J v, Eq. (10).
    """

    stds: Real
    clean: Real
    disturbed: Real
    slopes: Real

    __repr__ = short_repr


@validated_call
def perturb(
    networks: Mapping[str, Network],
    weights: Weights,
    stds: ArrayLike,
    draws: int,
    *,
    generator: torch.Generator,
    threads: int = 1,
) -> dict[str, Perturbed]:
    """Logits of models with Gaussian noise in all parameters, next to their derivatives along the same noise.

    Parameters and errors as in `model_draws`.
    """
    levels, values, seed = _prepared(networks, weights, stds, generator)

    def moved(noise: Tensor) -> dict[str, Real]:
        models = [torch.add(values, noise, alpha=s) for s in levels.tolist()]
        return {name: np.stack([finite(net.logits(model)) for model in models]) for name, net in networks.items()}

    disturbed = _map_draws(moved, values, seed, draws, threads)
    slopes: dict[str, list[Real]] = {name: [] for name in networks}
    for draw in range(draws):  # not in threads: forward mode keeps its state in one place for all of them
        noise = noise_draw(len(values), seed, draw)
        for name, net in networks.items():
            slopes[name].append(along(net, weights, noise)[1])
    return {
        name: Perturbed(
            levels, logits(net, weights), np.stack([one[name] for one in disturbed], axis=1), np.stack(slopes[name])
        )
        for name, net in networks.items()
    }


@validated_call
def linearisation_error(perturbed: Mapping[str, Perturbed]) -> pd.DataFrame:
    """Relative error of the linearisation: ‖z_d − z_u − J Δθ‖ / ‖J Δθ‖, over all images and classes of a task.

    Logits are centred first, since a constant added to all logits of an image changes no prediction.

    Parameters
    ----------
    perturbed : mapping of task to Perturbed
        From `perturb`, with two classes or more.

    Returns
    -------
    DataFrame with columns task, std, seed, error
        `seed` numbers the draws.
    """
    rows = []
    for name, task in perturbed.items():
        first = _centred(task.stds[:, None, None, None] * task.slopes)
        rest = _centred(task.disturbed - task.clean) - first
        if not (length := _length(first)).all():
            raise InputError(f"the logits of task {name!r} do not move: expected two classes or more, and noise")
        shares = _length(rest) / length
        rows += [
            (name, std, draw, share)
            for std, row in zip(task.stds, shares, strict=True)
            for draw, share in enumerate(row)
        ]
    return pd.DataFrame(rows, columns=["task", "std", "seed", "error"])


@validated_call
def valid_std(table: pd.DataFrame, limit: float = VALID) -> float:
    """Largest noise level at which the linearisation error is at most `limit`; between levels by a power law.

    Parameters
    ----------
    table : DataFrame
        From `linearisation_error`; the root mean square over tasks and draws is compared with `limit`.

    Raises
    ------
    InputError
        if the error does not pass the limit within the table: take lower or higher noise levels.
    """
    real_number(limit, "limit", positive=True)
    mean = np.sqrt((table.assign(error=table["error"] ** 2)).groupby("std")["error"].mean())
    stds, errors = mean.index.to_numpy(), mean.to_numpy()
    inside = np.flatnonzero(errors <= limit)  # the first levels need not be: under weak noise rounding is the error
    if not len(inside) or inside[-1] == len(errors) - 1:
        raise InputError(
            f"the relative linearisation error goes from {errors[0]:.3g} to {errors[-1]:.3g} over the noise levels: "
            f"expected it to pass {limit:g}; take {'higher' if len(inside) else 'lower'} ones"
        )
    right = int(inside[-1]) + 1
    logs = np.log(errors[right - 1 : right + 1])
    share = (np.log(limit) - logs[0]) / (logs[1] - logs[0])
    return float(np.exp(np.log(stds[right - 1]) + share * np.log(stds[right] / stds[right - 1])))


def _prepared(
    networks: Mapping[str, Network], weights: Weights, stds: ArrayLike, generator: torch.Generator
) -> tuple[Real, Tensor, int]:
    """Noise levels (levels,), the weights (P,) on the networks' device, and the seed of all draws."""
    levels = np.atleast_1d(real_array(stds, "the noise levels", positive=True))
    torch_generator(generator)
    if not networks:
        raise InputError("there is no network: give that of at least one task, see linearise.network")
    values, *_ = [flat_values(net, weights) for net in networks.values()]
    return levels, values, drawn_seed(generator)


def _map_draws(
    moved: Callable[[Tensor], _Result], values: Tensor, seed: int, draws: int, threads: int
) -> list[_Result]:
    """Results of a function of the noise (P,) of each draw, on several threads."""
    whole_number(threads, "threads")
    whole_number(draws, "draws")
    with single_threads(threads) as pool:
        return list(pool.map(lambda draw: moved(noise_draw(len(values), seed, draw).to(values)), range(draws)))


def _together(networks: Sequence[Network]) -> tuple[Network, list[tuple[slice, slice]]]:
    """All images under all heads, and which images and classes belong to each network."""
    places, image, label = [], 0, 0
    for net in networks:
        places.append((slice(image, image + len(net)), slice(label, label + net.classes)))
        image, label = image + len(net), label + net.classes
    parts = [torch.cat([getattr(net, name) for net in networks]) for name in ("patches", "labels", "rows")]
    return Network(networks[0].tower, networks[0].layout, *parts), places


def _centred(logits: Real) -> Real:
    return logits - logits.mean(-1, keepdims=True)


def _length(logits: Real) -> Real:
    return np.sqrt((logits**2).sum((-2, -1)))
