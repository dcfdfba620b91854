"""Payloads compared: task vectors as they arrive, by what users send, and what a model classifies, task by task.

A study sends what its protections name. Here one may ask for any payload, coded or analog, and for any merger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from pydantic import PositiveInt

from rmtllmf_lib.arrays import one_of
from rmtllmf_lib.model.task_vector import TaskVector, Weights, require_alike
from rmtllmf_lib.payload.payload import Encoded, Payload
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.study.units import Bench
from rmtllmf_lib.tasks.base import SPLITS
from rmtllmf_lib.training.evaluate import predictions
from rmtllmf_lib.transport.coded_payload import Quantised
from rmtllmf_lib.transport.scenario import CLEAN, Scenario
from rmtllmf_lib.validated import validated_call, validated_init
from rmtllmf_lib.wireless.information import repeated_mse


@validated_init
@dataclass(frozen=True)
class Way:
    """A way to the station.

    Attributes
    ----------
    payload : Payload
    bits : int, optional
        Of each number, sent with a code and so without errors; None: numbers as they are, sent analog over `link`.
    link : Scenario
        Errors of analog numbers in one channel use.
    repeats : int
        Channel uses of each analog symbol; the station combines them to the least mean square error.
    """

    payload: Payload
    bits: PositiveInt | None = None
    link: Scenario = CLEAN
    repeats: PositiveInt = 1

    __repr__ = short_repr


@validated_call
def arrivals(way: Way, taus: Sequence[TaskVector], base: Weights, *, generator: torch.Generator) -> list[TaskVector]:
    """The users' task vectors as decoded.

    A link with the scale "weight" or "unit" has errors of that size in one use of an analog task vector; the same
    power is spent on the numbers of any other payload, whose noise-to-signal ratio is therefore that of the vector.

    Parameters
    ----------
    taus : sequence of TaskVector
        One per user.
    generator : torch.Generator
        On the CPU; draws the errors of analog numbers.

    Raises
    ------
    InputError
        for no vectors, vectors that the payload cannot stand for, or a link for another number of users.
    """
    require_alike(taus)
    if way.bits is not None:
        return [Quantised(way.payload, way.bits).arrived(tau) for tau in taus]
    encoded = [way.payload.encode(tau) for tau in taus]
    numbers = _with_errors([each.numbers for each in encoded], way, taus, base, generator)
    pairs = zip(numbers, encoded, taus, strict=True)
    return [way.payload.decode(Encoded(each, known.side), tau.layout) for each, known, tau in pairs]


def _with_errors(
    numbers: Sequence[TaskVector], way: Way, taus: Sequence[TaskVector], base: Weights, generator: torch.Generator
) -> list[TaskVector]:
    """The numbers after all uses of the link, which they cross in the place of a vector's first ones."""
    ratios = error_ratios(way.link, taus, base, way.repeats)
    variances = [ratio * each.rms**2 for ratio, each in zip(ratios, numbers, strict=True)]
    link = replace(way.link, mse=tuple(variances), scale="unit")
    carriers = []
    for each, tau in zip(numbers, taus, strict=True):
        values = torch.zeros(tau.layout.size)
        values[: each.layout.size] = each.values
        carriers.append(replace(tau, values=values))
    arrived = link.receive(carriers, base, generator=generator)
    return [
        replace(each, values=got.values[: each.layout.size].clone()) for each, got in zip(numbers, arrived, strict=True)
    ]


@validated_call
def error_ratios(link: Scenario, taus: Sequence[TaskVector], base: Weights, repeats: PositiveInt = 1) -> list[float]:
    """Power of each user's errors over that of what it sends analog, after so many uses of the link.

    With the scale "task" the MSE of one use is combined by `repeated_mse`, with the others the ratio is divided by n.

    Raises
    ------
    InputError
        for no vectors, or a link for another number of users.
    """
    require_alike(taus)
    errors = link.error_cov(taus, base).diagonal()
    ratios = [float(error) / tau.rms**2 for error, tau in zip(errors, taus, strict=True)]
    if link.scale == "task" and link.mean_mse > 0:
        return [float(each) for each in repeated_mse(ratios, repeats)]
    return [ratio / repeats for ratio in ratios]


@validated_call
def task_accuracies(bench: Bench, weights: Weights, split: str, images: PositiveInt | None) -> pd.Series:
    """Accuracy of a model on each task of a suite.

    Parameters
    ----------
    split : str
        "train", "validation" or "test".
    images : int or None
        Upper bound for the images per task.

    Returns
    -------
    Series of float, in [0, 1], by task name
    """
    one_of(split, SPLITS, "split")
    suite, found = bench.suite, {}
    for name in suite.taus:
        prepared = bench.prepared(name, split, images)
        predicted = predictions(suite.backbone, weights, prepared, suite.heads[name])
        found[name] = float((predicted == prepared.split.labels).float().mean())
    return pd.Series(found)
