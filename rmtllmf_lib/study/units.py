"""The unit of work of a study: one protection under one scenario and seed, for a few combinations of tasks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from rmtllmf_lib.model.fusion import fuse
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.protection.memory import Memory, draw_memory
from rmtllmf_lib.protection.realign import REALIGNMENT
from rmtllmf_lib.protection.resilience import Protected, Station, protect
from rmtllmf_lib.training.evaluate import Prepared, predictions, prepare
from rmtllmf_lib.training.finetune import Recipe
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.scenario import Scenario

NOISE, MEMORY, ORDER = range(3)  # what random numbers are for


@dataclass(frozen=True)
class Unit:
    """What decides the models of a unit and what they are tested on.

    Attributes
    ----------
    scenario : Scenario or None
        None for a protection that looks at nothing that was received.
    protection : str
    seed : int
    per_class : int
        Of the memory; 0 where there is none.
    combinations : tuple of tuples of task names
    lams : tuple of float
        lambda_N of each combination.
    recipe : Recipe or None
        None for a protection that does not train.
    autocast : "bfloat16" or None
    split : "test" or "validation"
        "validation" for choices, with random numbers that no other unit has.
    images : int or None
        Of each task, at most.
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

    def described(self) -> dict[str, Any]:
        """What decides the rows of the unit, and nothing else, for the store: not what the scenario is called."""
        config = asdict(self)
        if self.scenario is not None:
            config["scenario"].pop("name")
        if not self.draws:
            config["seed"] = None
        return config

    @property
    def draws(self) -> bool:
        """Whether the seed matters."""
        return self.per_class > 0 or (self.scenario is not None and self.scenario.mean_mse > 0)

    def generator(self, purpose: int) -> torch.Generator:
        """Random numbers of this seed for one purpose, the same for all scenarios and protections."""
        entropy = [self.seed, purpose, int(self.split != "test")]
        state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(state) >> 1)


@dataclass(frozen=True, eq=False)
class Bench:
    """A suite with what units share: images made ready, the vectors received last, the memory drawn last."""

    suite: Suite
    _kept: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        """What goes to another process: the suite alone."""
        return {"suite": self.suite, "_kept": {}}

    def prepared(self, name: str, split: str, images: int | None) -> Prepared:
        """A task's images, for many models."""
        part, device = getattr(self.suite.tasks[name], split), self.suite.device
        return self._keep(
            f"{split} {name}", images, lambda: prepare(self.suite.backbone, part, limit=images, device=device)
        )

    def received(self, unit: Unit) -> dict[str, TaskVector]:
        """All users' vectors under the unit's scenario and seed."""
        scenario, taus = unit.scenario, self.suite.taus
        if scenario is None:
            return dict(taus)
        base = self.suite.backbone.weights

        def draw() -> dict[str, TaskVector]:
            arrived = scenario.receive(list(taus.values()), base, generator=unit.generator(NOISE))
            return dict(zip(taus, arrived, strict=True))

        return self._keep("received", (scenario, unit.seed, unit.split), draw)

    def memory(self, unit: Unit) -> Memory | None:
        """The memory of all tasks."""
        if not unit.per_class:
            return None
        size = self.suite.backbone.image_size

        def draw() -> Memory:
            return draw_memory(
                self.suite.tasks, unit.per_class, image_size=size, generator=unit.generator(MEMORY)
            )  # fmt: skip

        return self._keep("memory", (unit.per_class, unit.seed, unit.split), draw)

    def _keep(self, what: str, key: Any, make: Any) -> Any:
        """The last value for each `what`, made anew for another key."""
        if what not in self._kept or self._kept[what][0] != key:
            self._kept[what] = (key, make())
        return self._kept[what][1]


def models(bench: Bench, unit: Unit) -> Iterator[tuple[tuple[str, ...], Protected]]:
    """The protected model of each combination."""
    suite, received, memory = bench.suite, bench.received(unit), bench.memory(unit)
    users = list(suite.taus)
    error = None
    if unit.scenario is not None:
        error = unit.scenario.error_cov(list(suite.taus.values()), suite.backbone.weights)
    order = int(torch.randint(2**62, (), generator=unit.generator(ORDER)))
    for combination, lam in zip(unit.combinations, unit.lams, strict=True):
        places = [users.index(name) for name in combination]
        station = Station(
            suite.backbone,
            {name: received[name] for name in combination},
            lam,
            suite.heads,
            memory,
            None if error is None else error[np.ix_(places, places)],
            unit.recipe or REALIGNMENT,
            order,
            suite.device,
            unit.autocast,
        )
        yield combination, protect(unit.protection, station)


def run_unit(bench: Bench, unit: Unit) -> pd.DataFrame:
    """Rows (combination, n_tasks, task, lam, images, correct, model, samples, steps, bytes, seconds) of a unit.

    `images` and `correct` count test images of the task (validation images, where the unit says so), `model` starts the
    hash of the weights, the rest is the budget of the protection.
    """
    rows = []
    for combination, found in models(bench, unit):
        budget = (found.weights.hash[:16], found.samples, found.steps, found.bytes, found.seconds)
        for name in combination:
            images = bench.prepared(name, unit.split, unit.images)
            predicted = predictions(bench.suite.backbone, found.weights, images, bench.suite.heads[name])
            labels = images.split.labels
            correct = int((predicted == labels).sum())
            rows.append(("+".join(combination), len(combination), name, found.lam, len(labels), correct, *budget))
    columns = ["combination", "n_tasks", "task", "lam", "images", "correct"]
    return pd.DataFrame(rows, columns=[*columns, "model", "samples", "steps", "bytes", "seconds"])


def specialists(bench: Bench, images: int | None) -> pd.DataFrame:
    """Rows (task, images, correct): each task's own fine-tuned model on its test images, what accuracies are over."""
    rows = []
    for name, tau in bench.suite.taus.items():
        prepared = bench.prepared(name, "test", images)
        weights = fuse(bench.suite.backbone.weights, [tau], 1.0)
        predicted = predictions(bench.suite.backbone, weights, prepared, bench.suite.heads[name])
        rows.append((name, len(predicted), int((predicted == prepared.split.labels).sum())))
    return pd.DataFrame(rows, columns=["task", "images", "correct"])
