"""Everything that the claims are measured on: cells of the uplink, a suite, and the results of studies."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import pandas as pd

from rmtllmf_lib.arrays import Real
from rmtllmf_lib.chapters.fusion.tables import closest_drop, link_scenarios
from rmtllmf_lib.chapters.verdicts.claims import NoIntervalError
from rmtllmf_lib.chapters.words import percent
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.compare import gap
from rmtllmf_lib.study.interference import wde_under
from rmtllmf_lib.study.intervals import over_seeds
from rmtllmf_lib.study.study import Study, run_study
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.scenario import CLEAN, inject_mse
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

    def __str__(self) -> str:
        return f"{percent(self.mean, self.half_width)} %"


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the claims are measured on.

    Attributes
    ----------
    cells : Uplink
        Drops of the uplink, batch shape (n,).
    jnr_db : float, dB
        Jammer over noise per antenna.
    suite : Suite
    results : DataFrame
        Of `run_study`: all tasks fused, and the conditions of `collect`.
    wde : DataFrame
        Of `study.interference.wde_under`, for no noise and for the paper's links.
    images : int
        Test images of each task, for what no study has.
    seed : int
        From which random numbers follow.
    """

    cells: Uplink
    jnr_db: float
    suite: Suite
    results: pd.DataFrame
    wde: pd.DataFrame
    images: int = 50
    seed: int = 0

    @cached_property
    def power(self) -> Real:
        """Budget of the jammer in each cell, W."""
        return jammer_power(self.cells, self.jnr_db)

    def rng(self) -> np.random.Generator:
        """Random numbers, the same for every claim."""
        return np.random.default_rng(self.seed)

    @cached_property
    def everything(self) -> pd.DataFrame:
        """The rows in which all tasks are fused."""
        return self.results[self.results["n_tasks"] == self.results["n_tasks"].max()]

    def point(self, **condition: object) -> Interval:
        """Normalised accuracy under a condition, all tasks fused: `point(scenario="SR", protection="rmtllmf")`."""
        rows = self.everything
        for column, value in condition.items():
            rows = rows[rows[column] == value]
        (found,) = over_seeds(rows.assign(all=0), ["all"]).itertuples()
        return Interval(found.mean, found.half_width)

    def gain(self, one: dict[str, object], other: dict[str, object], n_tasks: int | None = None) -> Interval:
        """How much better one condition is than another, paired by seed; all tasks fused, or `n_tasks` of them."""
        rows = self.everything if n_tasks is None else self.results[self.results["n_tasks"] == n_tasks]
        (found,) = gap(rows, one, other).itertuples()
        return Interval(found.mean, found.half_width)

    @cached_property
    def clean(self) -> float:
        """Normalised accuracy of all tasks fused without noise."""
        return self.point(scenario="clean", protection="unprotected").mean

    @cached_property
    def guessing(self) -> float:
        """Normalised accuracy of guessing, mean over the tasks."""
        reference = self.everything.groupby("task")["reference"].first()
        chance = {name: 1 / len(task.class_names) for name, task in self.suite.tasks.items()}
        return float(np.mean([chance[name] / value for name, value in reference.items()]))


def studies(cell: Uplink, jnr_db: float, n_tasks: int, *, seeds: int, test_images: int) -> tuple[Study, ...]:
    """The studies that the claims need: parts of those of the chapters, under the same settings.

    So whoever has run the chapters has their parts in the store, and computes nothing again.

    Parameters
    ----------
    cell : Uplink
        A single drop, for the scenarios from a link.
    n_tasks : int
        All of the suite's.
    """
    links = inject_mse("half")
    plain = Study((CLEAN, *links), ("unprotected", "base"), seeds=seeds, sizes=(n_tasks,), test_images=test_images)
    other = (
        *(replace(each, name=f"task, {each.name}") for each in inject_mse("half", "task")),
        *(replace(each, name=f"independent, {each.name}") for each in inject_mse("independent")),
    )
    known = tuple(each for each in link_scenarios(cell, jnr_db) if "SU" in each.name)
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
    cells: int = 200,
    jnr_db: float = 9.0,
    link_cells: int = 500,
    images: int = 50,
    seed: int = 0,
    workers: int = 1,
    store: Store | None = None,
) -> Evidence:
    """Draw the cells and run the studies, or take them from the store.

    Parameters
    ----------
    suite : Suite
        With three tasks or more.
    seeds, test_images
        Of the studies, see `Study`; those of the chapters, for nothing to be computed twice.
    cells : int
        Drops of the uplink on which the claims about the link are measured.
    jnr_db : float, dB
        Jammer over noise per antenna.
    link_cells : int
        Drops among which the one of `tables.fusion.closest_drop` is chosen.
    images : int
        Test images of each task, for what no study has.
    workers : int
        Processes, see `run_study`.
    """
    drawn = draw_uplinks(max(cells, link_cells), np.random.default_rng(seed), num_users=len(suite.taus))
    cell = closest_drop(drawn[:link_cells], jnr_db)
    wanted = studies(cell, jnr_db, len(suite.taus), seeds=seeds, test_images=test_images)
    tables = [run_study(study, suite, store=store, workers=workers) for study in wanted]
    keys = ["scenario", "protection", "per_class", "seed", "combination", "task"]
    results = pd.concat(tables, ignore_index=True).drop_duplicates(keys, ignore_index=True)
    under = partial(wde_under, suite, seeds=seeds, images=test_images, store=store, workers=workers)
    ideal, _, attacked = inject_mse("half")
    errors = [under([CLEAN], ["unprotected"]), under([ideal, attacked], ["unprotected", "rmtllmf"])]
    return Evidence(drawn[:cells], jnr_db, suite, results, pd.concat(errors), images, seed)
