"""The evidence on which claims are measured: drops of the uplink; a suite and the results of studies."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch

from rmtllmf_lib.arrays import Real
from rmtllmf_lib.chapters.verdicts import comparisons
from rmtllmf_lib.chapters.verdicts.claims import NoIntervalError, UntestableError
from rmtllmf_lib.chapters.verdicts.comparisons import Comparison, all_of
from rmtllmf_lib.chapters.words import percent
from rmtllmf_lib.chapters.worst_case_noise import paper_link
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.arithmetic import lambda_n
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.protection.realign import REALIGNMENT
from rmtllmf_lib.study.compare import gap
from rmtllmf_lib.study.intervals import over_seeds
from rmtllmf_lib.training.combinations import evaluate_combinations
from rmtllmf_lib.training.finetune import Recipe
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.scenario import Scenario
from rmtllmf_lib.transport.statistics import ErrorStatistics
from rmtllmf_lib.wireless.adversary import jammer_power
from rmtllmf_lib.wireless.channel import Uplink

RUN = ["scenario", "protection", "per_class", "seed", "combination", "task"]


def joined(*tables: pd.DataFrame) -> pd.DataFrame:
    """The rows of several tables of `run_study`, each run once; of those in several tables the first is kept."""
    return pd.concat(tables, ignore_index=True).drop_duplicates(RUN, ignore_index=True)


def _named(condition: Mapping[str, object]) -> str:
    return ", ".join(f"{column} {value}" for column, value in condition.items())


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with the half width of its 95 % interval, NaN for one seed: it has no ends.

    `seeds` is their number, which only comparisons need.
    """

    mean: float
    half_width: float
    seeds: int = 0

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

    def above(self, level: float = 0.0) -> Comparison:
        """Say that all of the interval is above a level; a NoIntervalError where there is none."""
        half_width = self._known_half_width()
        if self.seeds < 2:
            raise InputError(f"seeds is {self.seeds}: expected the number behind the interval, two or more, to compare")
        return comparisons.above(self.mean, half_width, self.seeds, level)

    def below(self, level: float = 0.0) -> Comparison:
        """Say that all of the interval is below a level."""
        return Interval(-self.mean, self.half_width, self.seeds).above(-level)

    def apart_from(self, level: float) -> Comparison:
        """Say that the interval does not hold a level."""
        return self.above(level) if self.mean > level else self.below(level)

    def within(self, level: float) -> Comparison:
        """Say that the interval ends less than a level from 0 on both sides."""
        return all_of([self.above(-level), self.below(level)])

    def __sub__(self, other: Interval) -> Interval:
        """The difference of two means, whatever they share: above 0 where one interval is above the other."""
        seeds = min(self.seeds, other.seeds)
        return Interval(self.mean - other.mean, self.half_width + other.half_width, seeds)

    @property
    def points(self) -> str:
        """Mean and half width in points of a hundred: "53 ± 2"."""
        return percent(self.mean, self.half_width)

    def __str__(self) -> str:
        return f"{self.points} %"


@dataclass(frozen=True, eq=False)
class LinkEvidence:
    """The evidence for claims about the link.

    Attributes
    ----------
    drops : Uplink
        Batch shape (n,).
    jnr_db : float, dB
        Jammer over noise per antenna.
    seed : int
        Seed of all random numbers.
    sent : mapping
        Way of sending to the statistics of the errors of task vectors that were sent over the first drop.
    """

    drops: Uplink
    jnr_db: float = 9.0
    seed: int = 0
    sent: Mapping[str, ErrorStatistics] = field(default_factory=dict)

    @cached_property
    def power(self) -> Real:
        """Budget of the jammer in each drop, W."""
        return jammer_power(self.drops, self.jnr_db)

    @cached_property
    def snrs(self) -> pd.DataFrame:
        """What `paper_link.search_snrs` finds with as many new drops, at most 60."""
        return paper_link.search_snrs(paper_link.CANDIDATES, min(60, *self.drops.batch_shape), self.seed)

    def rng(self) -> np.random.Generator:
        """Return a new random number generator, the same for every claim."""
        return np.random.default_rng(self.seed)


@dataclass(frozen=True, eq=False)
class ModelEvidence:
    """The evidence for claims about task vectors and the fused model.

    Attributes
    ----------
    suite : Suite
    results : DataFrame
        Rows of `run_study`, of as many studies as the claims at hand need.
    wde : DataFrame
        From `study.interference.wde_under`; scenarios are named as by `ablations.tables.noise_readings`, and "clean".
    cosines : DataFrame
        From `study.interference.cosine_study`, with the same names.
    images : int
        Test images of each task, for models that are in no study.
    draws : int
        Whole noisy models, where shares of them are counted.
    realignment : Recipe
        Of the studies.
    seed : int
        Seed of all random numbers.
    """

    suite: Suite
    results: pd.DataFrame = field(default_factory=pd.DataFrame)
    wde: pd.DataFrame = field(default_factory=pd.DataFrame)
    cosines: pd.DataFrame = field(default_factory=pd.DataFrame)
    images: int = 50
    draws: int = 200
    realignment: Recipe = REALIGNMENT
    seed: int = 0

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
        if rows.empty:
            raise UntestableError(f"no study here has {_named(condition)}")
        (found,) = over_seeds(rows.assign(all=0), ["all"]).itertuples()
        return Interval(found.mean, found.half_width, found.n)

    def gain(self, one: dict[str, object], other: dict[str, object], share: float = 0.0) -> Interval:
        """Difference in normalised accuracy of one condition and another, paired by seed; all tasks fused.

        A share of the first is taken off, seed by seed: below 0, the second lacks less than this share of the first.
        """
        rows = self.everything
        first = np.logical_and.reduce([rows[column] == value for column, value in one.items()])
        kept = rows["normalized"].where(~first, (1 - share) * rows["normalized"])
        try:
            (found,) = gap(rows.assign(normalized=kept), one, other).itertuples()
        except InputError:
            raise UntestableError(f"no study here has both {_named(one)}, and {_named(other)}") from None
        return Interval(found.mean, found.half_width, found.n)

    @cached_property
    def interference(self) -> dict[tuple[str, str], Interval]:
        """WDE a task, by scenario and protection."""
        table = over_seeds(self.wde, ["scenario", "protection"], "wde")
        return {(row.scenario, row.protection): Interval(row.mean, row.half_width, row.n) for row in table.itertuples()}

    def cosine(self, scenario: str, definition: str = "received") -> pd.Series:
        """Cosines of every two task vectors after a link, or what a definition makes of them."""
        rows = self.cosines
        return rows.loc[(rows["scenario"] == scenario) & (rows["definition"] == definition), "cosine"]

    @cached_property
    def clean(self) -> float:
        """Normalised accuracy of all tasks fused without noise."""
        return self.point(scenario="clean", protection="unprotected").mean

    @cached_property
    def guessing(self) -> float:
        """Normalised accuracy of guessing, mean over the tasks."""
        reference = self.everything.groupby("task")["reference"].first()
        return float(np.mean([1 / len(self.suite.tasks[name].class_names) / own for name, own in reference.items()]))


def at_least_three(evidence: ModelEvidence) -> int:
    """Return the number of tasks, for rules that compare all of them with two; an UntestableError below three."""
    if (n := len(evidence.suite.taus)) < 3:
        raise UntestableError(f"here {n} tasks are fused, and the rule compares two with all: take three or more")
    return n
