"""The evidence on which claims are measured: drops of the uplink, a suite, and the results of studies."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from rmtllmf_lib.arrays import Real
from rmtllmf_lib.chapters.fusion.tables import closest_drop, link_scenarios
from rmtllmf_lib.chapters.verdicts.claims import NoIntervalError
from rmtllmf_lib.chapters.words import percent
from rmtllmf_lib.model.fusion import lambda_n
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.compare import gap
from rmtllmf_lib.study.interference import wde_under
from rmtllmf_lib.study.intervals import over_seeds
from rmtllmf_lib.study.study import Study, run_study
from rmtllmf_lib.training.combinations import evaluate_combinations
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.scenario import CLEAN, Scenario, inject_mse
from rmtllmf_lib.wireless.adversary import jammer_power
from rmtllmf_lib.wireless.channel import Uplink, draw_uplinks


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with the half width of its 95 % interval (NaN for one seed, which has no ends)."""

    mean: float
    half_width: float

    @property
    def low(self) -> float:
        """Lower end; a NoIntervalError where there is none."""
        return self.mean - self._known_half_width()

    @property
    def high(self) -> float:
        """Upper end; a NoIntervalError where there is none."""
        return self.mean + self._known_half_width()

    def _known_half_width(self) -> float:
        if math.isnan(self.half_width):
            raise NoIntervalError
        return self.half_width

    @property
    def points(self) -> str:
        """Mean and half width in points of a hundred: "53 ± 2"."""
        return percent(self.mean, self.half_width)

    def __str__(self) -> str:
        return f"{self.points} %"


@dataclass(frozen=True, eq=False)
class Evidence:
    """The evidence on which claims are measured.

    Attributes
    ----------
    drops : Uplink
        Batch shape (n,).
    jnr_db : float, dB
        Jammer over noise per antenna.
    suite : Suite
    results : DataFrame
        From `run_study`: the studies of `studies`.
    wde : DataFrame
        From `study.interference.wde_under`, for no noise and for the paper's links.
    images : int
        Test images of each task, for models that are in no study.
    seed : int
        Seed of all random numbers.
    """

    drops: Uplink
    jnr_db: float
    suite: Suite
    results: pd.DataFrame
    wde: pd.DataFrame
    images: int = 50
    seed: int = 0

    @cached_property
    def power(self) -> Real:
        """Budget of the jammer in each drop, W."""
        return jammer_power(self.drops, self.jnr_db)

    def rng(self) -> np.random.Generator:
        """Return a new random number generator, the same for every claim."""
        return np.random.default_rng(self.seed)

    @property
    def taus(self) -> list[TaskVector]:
        """Task vectors of the suite."""
        return list(self.suite.taus.values())

    @property
    def lam(self) -> float:
        """The lambda_N with which all tasks are fused."""
        return lambda_n(len(self.suite.taus))

    def received(self, scenario: Scenario) -> list[TaskVector]:
        """Return the task vectors after a link."""
        generator = torch.Generator().manual_seed(self.seed)
        return scenario.receive(self.taus, self.suite.backbone.weights, generator=generator)

    def evaluated(self, lam: Callable[[int], float], **options: Any) -> pd.DataFrame:
        """Return the accuracies of the suite's fused models, see `evaluate_combinations`."""
        return evaluate_combinations(self.suite, lam, progress=False, **options)

    @cached_property
    def everything(self) -> pd.DataFrame:
        """Results with all tasks fused."""
        return self.results[self.results["n_tasks"] == self.results["n_tasks"].max()]

    def point(self, **condition: object) -> Interval:
        """Normalised accuracy under a condition, all tasks fused: `point(scenario="SR", protection="rmtllmf")`."""
        rows = self.everything
        for column, value in condition.items():
            rows = rows[rows[column] == value]
        (found,) = over_seeds(rows.assign(all=0), ["all"]).itertuples()
        return Interval(found.mean, found.half_width)

    def gain(self, one: dict[str, object], other: dict[str, object]) -> Interval:
        """Difference in normalised accuracy of one condition and another, paired by seed; all tasks fused."""
        (found,) = gap(self.everything, one, other).itertuples()
        return Interval(found.mean, found.half_width)

    @cached_property
    def clean(self) -> float:
        """Normalised accuracy of all tasks fused without noise."""
        return self.point(scenario="clean", protection="unprotected").mean

    @cached_property
    def guessing(self) -> float:
        """Normalised accuracy of guessing, mean over the tasks."""
        reference = self.everything.groupby("task")["reference"].first()
        return float(np.mean([1 / len(self.suite.tasks[name].class_names) / own for name, own in reference.items()]))


def studies(drop: Uplink, jnr_db: float, n_tasks: int, *, seeds: int, test_images: int) -> tuple[Study, ...]:
    """Return the studies that the claims need.

    They have the settings of the chapters' studies, so that after those chapters their parts are in the store.

    Parameters
    ----------
    drop : Uplink
        A single drop, for the scenarios from the uplink.
    n_tasks : int
        Tasks in the suite.
    """
    links = inject_mse("half")
    plain = Study((CLEAN, *links), ("unprotected", "base"), seeds=seeds, sizes=(n_tasks,), test_images=test_images)
    other = (
        *(replace(each, name=f"task, {each.name}") for each in inject_mse("half", "task")),
        *(replace(each, name=f"independent, {each.name}") for each in inject_mse("independent")),
    )
    known = tuple(each for each in link_scenarios(drop, jnr_db) if "SU" in each.name)
    return (
        plain,
        replace(plain, scenarios=other, protections=("unprotected",)),
        replace(plain, sizes=(2,), per_size=2, protections=("unprotected",)),
        replace(plain, scenarios=links, sizes=(2, n_tasks), per_size=2, protections=("rmtllmf",)),
        replace(plain, scenarios=links, protections=("freeze", "noise-aware", "control")),
        replace(plain, scenarios=links[:1], protections=("realign", "rmtllmf"), per_class=(5, 10, 20)),
        replace(plain, scenarios=(links[0], links[-1]), protections=("reload-train-all",)),
        replace(plain, scenarios=links[-1:], protections=("realign",)),
        replace(plain, scenarios=known, protections=("rmtllmf",)),
    )


def collect(
    suite: Suite,
    *,
    seeds: int = 3,
    test_images: int = 250,
    drops: int = 200,
    jnr_db: float = 9.0,
    candidates: int = 500,
    images: int = 50,
    seed: int = 0,
    workers: int = 1,
    store: Store | None = None,
) -> Evidence:
    """Draw the drops and run the studies, or take them from the store.

    Parameters
    ----------
    suite : Suite
        With three tasks or more.
    seeds, test_images
        Settings of the studies, see `Study`; with the values of the chapters, nothing is computed twice.
    drops : int
        Drops of the uplink on which claims about the link are measured.
    jnr_db : float, dB
        Jammer over noise per antenna.
    candidates : int
        Drops from which `closest_drop` chooses.
    images : int
        Test images of each task, for models that are in no study.
    workers : int
        Processes, see `run_study`.
    """
    drawn = draw_uplinks(max(drops, candidates), np.random.default_rng(seed), num_users=len(suite.taus))
    drop = closest_drop(drawn[:candidates], jnr_db)
    wanted = studies(drop, jnr_db, len(suite.taus), seeds=seeds, test_images=test_images)
    tables = [run_study(study, suite, store=store, workers=workers) for study in wanted]
    keys = ["scenario", "protection", "per_class", "seed", "combination", "task"]
    results = pd.concat(tables, ignore_index=True).drop_duplicates(keys, ignore_index=True)
    under = partial(wde_under, suite, seeds=seeds, images=test_images, store=store, workers=workers)
    ideal, _, attacked = inject_mse("half")
    errors = [under([CLEAN], ["unprotected"]), under([ideal, attacked], ["unprotected", "rmtllmf"])]
    return Evidence(drawn[:drops], jnr_db, suite, results, pd.concat(errors), images, seed)
