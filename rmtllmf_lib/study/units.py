"""Units of work of a study: one protection, scenario and seed, for a few combinations of tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import PositiveInt

from rmtllmf_lib.fusion.arithmetic import fuse
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.payload.cores import Cores
from rmtllmf_lib.protection.few_shot_basis import FIT, received_cores
from rmtllmf_lib.protection.memory import Memory, draw_memory
from rmtllmf_lib.protection.realign import REALIGNMENT
from rmtllmf_lib.protection.resilience import Protected, Station, few_shot_specialists, protect, protection_named
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.seeds import drawn_seed, generator_for
from rmtllmf_lib.training.cores import finetune_cores
from rmtllmf_lib.training.evaluate import Prepared, predictions, prepare
from rmtllmf_lib.training.finetune import Recipe
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.coded_payload import Delivery, Quantised, deliver, full_uses
from rmtllmf_lib.transport.scenario import Scenario
from rmtllmf_lib.validated import validated_call

NOISE, MEMORY, ORDER = range(3)  # purposes of random numbers
FITTING = 4  # one more; 3 is a faulty user's, in workflow/mergers_under_noise.py


@dataclass(frozen=True)
class Unit:
    """The settings that decide the models of a unit and the images they are tested on.

    Attributes
    ----------
    scenario : Scenario or None
        None for a protection that ignores the link.
    protection : str
    seed : int
    per_class : int
        Images per class in the memory; 0 without a memory.
    combinations : tuple of tuples of task names
    lams : tuple of float
        lambda_N of each combination.
    recipe : Recipe or None
        None for a protection that does not train.
    autocast : "bfloat16" or None
    split : "test" or "validation"
        "validation" for choices of settings, with random numbers of its own.
    images : int or None
        Upper bound for the images per task.
    realigned : bool
        False for the models before realignment.
    sends : tuple of Quantised, optional
        What users send where the protection has them send coded payloads; default the protection's own.
    """

    scenario: Scenario | None
    protection: str
    seed: int
    per_class: int
    combinations: tuple[tuple[str, ...], ...]
    lams: tuple[float, ...]
    recipe: Recipe | None
    autocast: str | None
    split: str
    images: int | None
    realigned: bool = True
    sends: tuple[Quantised, ...] | None = None

    __repr__ = short_repr

    def described(self) -> dict[str, Any]:
        """Everything that decides the rows of the unit, as its key in the store; not the scenario's name."""
        config = asdict(self)
        if self.scenario is not None:
            config["scenario"].pop("name")
        if not self.draws:
            config["seed"] = None
        if self.sends is None:  # the protection's own, as before there was a choice
            del config["sends"]
        return config

    @property
    def draws(self) -> bool:
        """Whether the models depend on the seed."""
        noisy, protection = self.scenario is not None and self.scenario.mean_mse > 0, protection_named(self.protection)
        return self.per_class > 0 or protection.draws or (noisy and self.ladder is None)

    @property
    def ladder(self) -> tuple[Quantised, ...] | None:
        """What users send with a code, the best first; None where they send their task vectors."""
        own = protection_named(self.protection).sends
        return own if own is None or self.sends is None else self.sends

    def generator(self, purpose: int) -> torch.Generator:
        """A generator for one purpose, which depends on the seed but not on the scenario or protection."""
        return generator_for(self.seed, purpose, int(self.split != "test"))

    def order(self) -> int:
        """Seed of the order of the images in training."""
        return drawn_seed(self.generator(ORDER))


@dataclass(frozen=True, eq=False)
class Bench:
    """A suite with cached data shared by units: prepared images, the last received vectors, the last memory."""

    suite: Suite
    _kept: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    __repr__ = short_repr

    def __getstate__(self) -> dict[str, Any]:
        """The suite without the cache, for other processes."""
        return {"suite": self.suite, "_kept": {}}

    def prepared(self, name: str, split: str, images: int | None) -> Prepared:
        """The images of a task, prepared for many models."""
        suite, part = self.suite, getattr(self.suite.tasks[name], split)
        make = partial(prepare, suite.backbone, part, limit=images, device=suite.device)
        return self._keep(f"{split} {name}", images, make)

    def received(self, unit: Unit) -> dict[str, TaskVector]:
        """The task vectors of all users as received under the unit's scenario and seed, but of those in outage."""
        scenario, taus = unit.scenario, self.suite.taus
        if scenario is None:
            return dict(taus)
        if (delivery := self.delivery(unit)) is not None:
            return dict(delivery.arrived)
        if (rank := protection_named(unit.protection).basis) is not None:
            return self._in_basis(unit, scenario, rank)
        base = self.suite.backbone.weights

        def draw() -> dict[str, TaskVector]:
            arrived = scenario.receive(list(taus.values()), base, generator=unit.generator(NOISE))
            return dict(zip(taus, arrived, strict=True))

        return self._keep("received", (scenario, unit.seed, unit.split), draw)

    def _in_basis(self, unit: Unit, scenario: Scenario, rank: int) -> dict[str, TaskVector]:
        """What the station estimates where users send in a basis that both ends make from the memory."""
        suite, key = self.suite, (unit.per_class, unit.seed, unit.split, unit.recipe, unit.autocast)

        def known() -> dict[str, TaskVector]:
            return few_shot_specialists(
                Station(
                    suite.backbone,
                    {},
                    0.0,
                    suite.heads,
                    self.memory(unit),
                    recipe=unit.recipe or REALIGNMENT,
                    seed=unit.order(),
                    device=suite.device,
                    autocast=unit.autocast,
                    outage=tuple(suite.taus),
                )
            )

        def fitted() -> tuple[dict[str, Cores], dict[str, TaskVector]]:
            payloads = {name: Cores(own, rank) for name, own in known().items()}
            numbers = {}
            for name, cores in payloads.items():
                task, head, generator = suite.tasks[name], suite.heads[name], unit.generator(FITTING)
                numbers[name] = finetune_cores(
                    suite.backbone, task, head, cores, FIT, generator=generator, device=suite.device, progress=False
                )
            return payloads, numbers

        def draw() -> dict[str, TaskVector]:
            payloads, numbers = self._keep("fitted", (rank, key), fitted)
            power, base = [tau.rms for tau in suite.taus.values()], suite.backbone.weights
            return received_cores(numbers, payloads, power, scenario, base, generator=unit.generator(NOISE))

        return self._keep("in basis", (scenario, rank, key), draw)

    def delivery(self, unit: Unit) -> Delivery | None:
        """What arrives of coded payloads; None where users send their task vectors, or nothing."""
        scenario, ladder = unit.scenario, unit.ladder
        if scenario is None or ladder is None:
            return None
        mse = scenario.symbol_mse
        return self._keep("delivery", (mse, ladder), lambda: deliver(self.suite.taus, mse, ladder=ladder))

    def memory(self, unit: Unit) -> Memory | None:
        """The memory of all tasks; None for a protection without one."""
        if not unit.per_class:
            return None

        def draw() -> Memory:
            size, generator = self.suite.backbone.image_size, unit.generator(MEMORY)
            return draw_memory(self.suite.tasks, unit.per_class, image_size=size, generator=generator)

        return self._keep("memory", (unit.per_class, unit.seed, unit.split), draw)

    def _keep(self, what: str, key: Any, make: Callable[[], Any]) -> Any:
        """The cached value of `what`, made again if the key has changed."""
        if what not in self._kept or self._kept[what][0] != key:
            self._kept[what] = (key, make())
        return self._kept[what][1]


@validated_call
def models(bench: Bench, unit: Unit) -> Iterator[tuple[tuple[str, ...], Protected]]:
    """Yield each combination with its protected model."""
    suite, received, memory = bench.suite, bench.received(unit), bench.memory(unit)
    users = list(suite.taus)
    noisy = unit.scenario if unit.ladder is None else None
    error = noisy.error_cov(list(suite.taus.values()), suite.backbone.weights) if noisy else None
    for combination, lam in zip(unit.combinations, unit.lams, strict=True):
        places = [users.index(name) for name in combination]
        station = Station(
            suite.backbone,
            {name: received[name] for name in combination if name in received},
            lam,
            suite.heads,
            memory,
            None if error is None else error[np.ix_(places, places)],
            unit.recipe or REALIGNMENT,
            unit.order(),
            suite.device,
            unit.autocast,
            tuple(name for name in combination if name not in received),
        )
        yield combination, protect(unit.protection, station, realigned=unit.realigned)


@validated_call
def run_unit(bench: Bench, unit: Unit) -> pd.DataFrame:
    """Rows (combination, n_tasks, task, lam, images, correct, model, outage, uses, samples, steps, bytes, seconds).

    `images` and `correct` count images of the unit's split, `model` is a prefix of the hash of the weights, `outage`
    counts the fused users from whom nothing arrived, `uses` the channel uses of all of them (two numbers a symbol where
    they send their task vectors), and the other columns are the cost of the protection.
    """
    rows = []
    for combination, found in models(bench, unit):
        link = _outage_and_uses(bench, unit, combination)
        cost = (found.weights.hash[:16], *link, found.samples, found.steps, found.bytes, found.seconds)
        for name in combination:
            counts = _count(bench, name, found.weights, unit.split, unit.images)
            rows.append(("+".join(combination), len(combination), name, found.lam, *counts, *cost))
    columns = ["combination", "n_tasks", "task", "lam", "images", "correct"]
    return pd.DataFrame(rows, columns=[*columns, "model", "outage", "uses", "samples", "steps", "bytes", "seconds"])


@validated_call
def specialists(bench: Bench, images: PositiveInt | None) -> pd.DataFrame:
    """Rows (task, images, correct) of each task's own fine-tuned model, which the accuracies are normalised by."""
    base = bench.suite.backbone.weights
    rows = [
        (name, *_count(bench, name, fuse(base, [tau], 1.0), "test", images)) for name, tau in bench.suite.taus.items()
    ]
    return pd.DataFrame(rows, columns=["task", "images", "correct"])


def _outage_and_uses(bench: Bench, unit: Unit, combination: tuple[str, ...]) -> tuple[int, int]:
    if unit.scenario is None:
        return 0, 0
    if (delivery := bench.delivery(unit)) is None:
        return 0, len(combination) * full_uses(bench.suite.backbone.weights.layout)
    heard = [delivery.plans[name].uses for name in combination if name in delivery.plans]
    return len(combination) - len(heard), sum(heard)


def _count(bench: Bench, name: str, weights: Weights, split: str, limit: int | None) -> tuple[int, int]:
    """Number of images of a task, and of those that the model classifies correctly."""
    images = bench.prepared(name, split, limit)
    predicted = predictions(bench.suite.backbone, weights, images, bench.suite.heads[name])
    return len(predicted), int((predicted == images.split.labels).sum())
