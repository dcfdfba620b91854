"""Noise in the parameters, counted: how often predictions change, and how far the first order carries.

The references for what `first_order` predicts. Every draw is a whole noisy model, so one forward pass of all images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rmtllmf_lib.arrays import Real, real_array, whole_number
from rmtllmf_lib.disentanglement.first_order import noise_level
from rmtllmf_lib.disentanglement.linearise import Network, along, finite, flat_values, logits
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import Weights
from rmtllmf_lib.threads import single_threads

VALID = 0.1  # relative linearisation error up to which first-order predictions are called valid


@dataclass(frozen=True, eq=False)
class FlipCount:
    """Whether each noisy model moved each image away from its reference class.

    Attributes
    ----------
    flipped : (draws, n) bool
    """

    flipped: NDArray[np.bool_]

    @property
    def rate(self) -> float:
        """Share of flips among all draws and images."""
        return float(self.flipped.mean())

    @property
    def error(self) -> float:
        """Standard error of `rate`. Images share a draw's noise, so only draws are independent repetitions."""
        rates = self.flipped.mean(1)
        return float(rates.std(ddof=1) / np.sqrt(len(rates)))

    @property
    def per_image(self) -> Real:
        """Share of draws that flipped each image, (n,)."""
        return self.flipped.mean(0)


def count_flips(
    networks: Mapping[str, Network],
    weights: Weights,
    std: float,
    draws: int,
    *,
    generator: torch.Generator,
    references: Mapping[str, ArrayLike] | None = None,
    workers: int = 1,
) -> dict[str, FlipCount]:
    """Add Gaussian noise to all parameters, again and again, and see which predictions change.

    Parameters
    ----------
    networks : mapping of task to Network
        Images with their heads; all meet the same noisy models.
    weights : Weights
        The model without noise.
    std : float ≥ 0
        Standard deviation s of the noise of each parameter, `disentanglement.error.noise_std`.
    draws : int
        At least 2.
    generator : torch.Generator
        On the CPU; gives one number, from which each draw has a seed of its own.
    references : mapping of task to (n,) classes, optional
        What predictions are compared with. Default: those without noise.
    workers : int
        Threads that share the draws; the counts do not depend on it.

    Returns
    -------
    mapping of task to FlipCount
        A model whose logits are not finite counts as a flip of every image.
    """
    whole_number(workers, "workers")
    whole_number(draws, "draws")
    if draws < 2:
        raise InputError("draws is 1; expected 2 or more: one has no standard error")
    scale = noise_level(std)
    values = _shared_values(networks, weights)
    if references is None:
        references = {name: net.logits(values).argmax(1).cpu() for name, net in networks.items()}
    wanted = {name: torch.as_tensor(np.asarray(references[name])) for name in networks}
    seed = _seed(generator)

    def one(draw: int) -> dict[str, Tensor]:
        noisy = torch.add(values, noise_draw(len(values), seed, draw).to(values), alpha=scale)
        moved = {name: net.logits(noisy).cpu() for name, net in networks.items()}
        return {name: (z.argmax(1) != wanted[name]) | ~z.isfinite().all(1) for name, z in moved.items()}

    with single_threads(workers) as pool:
        counted = list(pool.map(one, range(draws)))
    return {name: FlipCount(torch.stack([flips[name] for flips in counted]).numpy()) for name in networks}


def noise_draw(size: int, seed: int, draw: int) -> Tensor:
    """Standard normal numbers (size,) float32 of one draw: the same whatever else is drawn."""
    state = np.random.SeedSequence([seed, draw]).generate_state(1, np.uint64)[0]
    return torch.randn(size, generator=torch.Generator().manual_seed(int(state) >> 1))


@dataclass(frozen=True, eq=False)
class Perturbed:
    """Logits of one task's images under the same noise at several levels, with what the first order makes of it.

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


def perturb(
    networks: Mapping[str, Network],
    weights: Weights,
    stds: ArrayLike,
    draws: int,
    *,
    generator: torch.Generator,
    workers: int = 1,
) -> dict[str, Perturbed]:
    """Logits of models with Gaussian noise in all parameters; the same directions serve all noise levels and tasks.

    Parameters
    ----------
    stds : one or more positive numbers
        Standard deviations s of the noise of each parameter.
    draws : int
        Noisy models for each level.
    generator, workers
        As in `count_flips`.

    Raises
    ------
    InputError
        for a level that is not positive, or noise that makes logits NaN or infinite.
    """
    whole_number(draws, "draws")
    levels = np.atleast_1d(real_array(stds, "the noise levels", positive=True))
    seed = _seed(generator)
    values = _shared_values(networks, weights)

    def moved(draw: int) -> dict[str, Real]:
        noise = noise_draw(len(values), seed, draw).to(values)
        models = [torch.add(values, noise, alpha=s) for s in levels.tolist()]
        return {name: np.stack([finite(net.logits(model)) for model in models]) for name, net in networks.items()}

    with single_threads(workers) as pool:
        disturbed = list(pool.map(moved, range(draws)))
    slopes: dict[str, list[Real]] = {name: [] for name in networks}
    for draw in range(draws):  # forward mode keeps its state in one place for all threads
        noise = noise_draw(weights.layout.size, seed, draw)
        for name, net in networks.items():
            slopes[name].append(along(net, weights, noise)[1])
    return {
        name: Perturbed(
            levels, logits(net, weights), np.stack([one[name] for one in disturbed], axis=1), np.stack(slopes[name])
        )
        for name, net in networks.items()
    }


def linearisation_error(perturbed: Mapping[str, Perturbed]) -> pd.DataFrame:
    """How far logits move otherwise than to first order, as a share of the first-order movement.

    Logits are centred, since a constant added to all of them changes nothing.

    Parameters
    ----------
    perturbed : mapping of task to Perturbed
        From `perturb`, with two classes or more.

    Returns
    -------
    DataFrame with columns task, std, seed, error
        error = ‖z_d − z_u − J Δθ‖ / ‖J Δθ‖ over all images and classes of the task; `seed` numbers the draws.
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


def valid_std(table: pd.DataFrame, limit: float = VALID) -> float:
    """The largest noise level at which the linearisation error is at most `limit`, between levels by a power law.

    Parameters
    ----------
    table : DataFrame
        From `linearisation_error`; its errors are averaged over tasks and draws in the mean square.

    Raises
    ------
    InputError
        if the error passes the limit nowhere in the table: take lower or higher noise levels.
    """
    mean = np.sqrt((table.assign(error=table["error"] ** 2)).groupby("std")["error"].mean())
    stds, errors = mean.index.to_numpy(), mean.to_numpy()
    above = np.flatnonzero(errors > limit)
    if not len(above) or above[0] == 0:
        raise InputError(
            f"the relative linearisation error goes from {errors[0]:.3g} to {errors[-1]:.3g} over the noise levels: "
            f"expected it to pass {limit:g}; take {'lower' if len(above) else 'higher'} ones"
        )
    right = int(above[0])
    logs = np.log(errors[right - 1 : right + 1])
    share = (np.log(limit) - logs[0]) / (logs[1] - logs[0])
    return float(np.exp(np.log(stds[right - 1]) + share * np.log(stds[right] / stds[right - 1])))


def _shared_values(networks: Mapping[str, Network], weights: Weights) -> Tensor:
    """The weights (P,), for all networks; they are on one device."""
    if not networks:
        raise InputError(
            "there is no network: give the images and the head of at least one task, see linearise.network"
        )
    return [flat_values(net, weights) for net in networks.values()][0]


def _centred(logits: Real) -> Real:
    return logits - logits.mean(-1, keepdims=True)


def _length(logits: Real) -> Real:
    return np.sqrt((logits**2).sum((-2, -1)))


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator))


def model_draws(
    networks: Mapping[str, Network],
    weights: Weights,
    stds: ArrayLike,
    draws: int,
    *,
    generator: torch.Generator,
    workers: int = 1,
) -> dict[str, Real]:
    """Logits of whole noisy models, Gaussian noise in all parameters; the same directions serve all noise levels.

    Images of all tasks go through a noisy tower together, each with its own head: `noisy_logits.perturb` without
    derivatives, for many draws.

    Parameters
    ----------
    networks : mapping of task to Network
        Of one tower.
    stds : one or more positive numbers
        Standard deviations of the noise of each parameter.
    draws : int
        Noisy models for each level.
    generator : torch.Generator
        On the CPU; gives one number, from which each draw has a seed of its own.
    workers : int
        Threads that share the draws; the result does not depend on it.

    Returns
    -------
    mapping of task to (levels, draws, images, classes) float64
    """
    whole_number(workers, "workers")
    whole_number(draws, "draws")
    levels = np.atleast_1d(real_array(stds, "the noise levels", positive=True)).tolist()
    together, places = _together(networks)
    values = flat_values(together, weights)
    seed = int(torch.randint(2**62, (), generator=generator))

    def one(draw: int) -> list[list[Tensor]]:
        noise = noise_draw(weights.layout.size, seed, draw).to(values)
        found = [together.logits(values + std * noise) for std in levels]
        return [[logits[images, classes].cpu() for images, classes in places] for logits in found]

    with single_threads(workers) as pool:
        found = list(pool.map(one, range(draws)))
    return {
        name: finite(torch.stack([torch.stack([draw[level][place] for draw in found]) for level in range(len(levels))]))
        for place, name in enumerate(networks)
    }


def _together(networks: Mapping[str, Network]) -> tuple[Network, list[tuple[slice, slice]]]:
    """All images under all heads, and which images and classes are whose."""
    if not networks:
        raise InputError("there is no network: expected those of one task or more")
    first, *_ = nets = list(networks.values())
    places, image, label = [], 0, 0
    for net in nets:
        net.layout.require_equal(first.layout, "a network")
        places.append((slice(image, image + len(net)), slice(label, label + net.classes)))
        image, label = image + len(net), label + net.classes
    parts = [torch.cat([getattr(net, name) for net in nets]) for name in ("patches", "labels", "rows")]
    return Network(first.tower, first.layout, *parts), places
