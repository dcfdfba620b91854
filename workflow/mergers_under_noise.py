"""Every merger with its own lambda: without noise, under noise of every power and correlation, and with a faulty user.

    python -m workflow.mergers_under_noise

writes three files to `book/results`: `mergers_under_noise.csv`, one row per condition and merger, with intervals over
suites that differ in images, fine-tuning and noise; `…_suites.csv`, the values of every suite; and `….json`, the
settings and versions. Lambda is chosen on validation images of suite 0, for every merger, number of tasks and noise,
and there is no memory. Everything that it computes is stored in parts: stopped, it goes on where it was. Chapter 8
shows the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from rmtllmf_lib.fusion.arithmetic import choose_lambda
from rmtllmf_lib.fusion.mergers import merge, merger_named
from rmtllmf_lib.model.backbone import load_backbone
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.seeds import generator_for
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.intervals import over_seeds
from rmtllmf_lib.study.study import Choice, Condition, Study, provenance, run_study
from rmtllmf_lib.study.units import Bench, Unit
from rmtllmf_lib.training.combinations import sample_combinations
from rmtllmf_lib.training.evaluate import accuracy
from rmtllmf_lib.training.suite import Suite, load_suite
from rmtllmf_lib.transport.scenario import CLEAN, Scenario, noise_to_signal
from workflow.results import write_results

OUT = Path(__file__).parents[1] / "book" / "results" / "mergers_under_noise.csv"
SUITES, USERS = 5, 8
TEST_IMAGES, VALIDATION_IMAGES = 150, 60

NOISY = (
    "arithmetic", "arithmetic+lines", "ties", "pcb", "consensus", "model-stock", "tsv", "iso-c", "wudi", "median",
    "trimmed-mean", "multi-krum",
)  # fmt: skip
FREE_OF_NOISE = (*NOISY, "arithmetic+svc", "ties-sum", "breadcrumbs", "magmax", "iso-cts", "geometric-median")
HALF_COMMON = ("arithmetic", "arithmetic+lines", "tsv", "iso-c", "wudi", "trimmed-mean")
WITH_A_FAULTY_USER = (*NOISY, "geometric-median")

# From the worst link of the paper at the scale of task vectors to beyond it at the scale of the weights.
LEVELS = (
    (0.21, "task"), (0.0015, "weight"), (0.013, "weight"), (0.05, "weight"), (0.21, "weight"), (0.6, "weight"),
)  # fmt: skip

FAULTS = ("none", "garbage", "negated", "hundredfold")  # what one of the users sends

_FAULT = 3  # purpose of random numbers, after those of `units`

_CONDITION = ["n_tasks", "faulty", "scenario", "scale", "correlation", "mse", "ratio", "merger"]


@dataclass(frozen=True)
class Stage:
    """Mergers that are compared with one another: so many tasks fused, under errors of one correlation or none."""

    n_tasks: int
    correlation: str  # "" without noise
    mergers: tuple[str, ...]
    faults: tuple[str, ...] = FAULTS[:1]

    @property
    def scenarios(self) -> tuple[Scenario, ...]:
        """One for each level of the noise."""
        if not self.correlation:
            return (CLEAN,)
        return tuple(Scenario(f"{mse:g} {scale}", mse, scale, self.correlation) for mse, scale in LEVELS)

    def study(self, number: int = 0) -> Study:
        """What is scored on suite `number`: combinations in which every task occurs once."""
        return Study(
            self.scenarios, tuple(f"merge-{name}" for name in self.mergers), seeds=1, sizes=(self.n_tasks,),
            per_size=USERS // self.n_tasks, test_images=TEST_IMAGES, validation_images=VALIDATION_IMAGES,
            first_seed=number,
        )  # fmt: skip


STAGES = (
    Stage(8, "", FREE_OF_NOISE),
    Stage(8, "independent", NOISY),
    Stage(8, "common", NOISY),
    Stage(8, "", WITH_A_FAULTY_USER, FAULTS),
    Stage(2, "", NOISY),
    Stage(4, "", NOISY),
    Stage(8, "half", HALF_COMMON),
)


@lru_cache(maxsize=SUITES)
def drawn_suite(seed: int) -> Suite:
    """The eight drawn tasks of one seed, calibrated."""
    return load_suite(load_backbone("tiny"), difficulty="calibrated", seed=seed)


def chosen_lambda(bench: Bench, stage: Stage, scenario: Scenario, merger: str) -> float:
    """The best of every second lambda of the merger's grid, widened, on validation images and with their own noise."""
    suite = bench.suite
    combinations = sample_combinations(tuple(suite.tasks), (stage.n_tasks,), USERS // stage.n_tasks)
    unit = Unit(
        scenario, f"merge-{merger}", 0, 0, tuple(combinations), (), None, None, "validation", VALIDATION_IMAGES
    )  # fmt: skip
    grid = merger_named(merger).grid[::2]

    def choose() -> float:
        received = bench.received(unit)
        merged = {names: merge(merger, [received[name] for name in names]) for names in combinations}

        def score(lam: float) -> float:
            models = {names: suite.backbone.weights + lam * tau for names, tau in merged.items()}
            return float(np.mean([
                accuracy(suite.backbone, model, bench.prepared(name, unit.split, unit.images), suite.heads[name])
                for names, model in models.items() for name in names
            ]))  # fmt: skip

        lam, tried = choose_lambda(score, grid, widen=True)
        while lam == tried["lam"].max():  # Model Stock divides by what noise leaves of the vectors' cosines
            lam, tried = choose_lambda(score, (lam,), widen=True)
        return lam

    config = {**unit.described(), "grid": grid, "widen": True, **provenance(suite)}
    return float(Store().json("merger-lambda", config, choose))


def with_fault(suite: Suite, fault: str, user: str, number: int) -> Suite:
    """The suite with what one user sends in place of its vector; "garbage" is Gaussian, with the vector's norm."""
    tau = suite.taus[user]
    noise = torch.randn(tau.layout.size, generator=generator_for(number, _FAULT, 0))
    sent = {
        "none": tau,
        "garbage": TaskVector(tau.layout, noise * (tau.norm / float(noise.norm())), tau.base_hash),
        "negated": tau * -1.0,
        "hundredfold": tau * 100.0,
    }
    return replace(suite, taus={**suite.taus, user: sent[fault]})


def run_stage(stage: Stage, suites: int = SUITES) -> pd.DataFrame:
    """The means over the tasks of every condition of a stage, merger and suite; the faulty user's task is left out."""
    first = drawn_suite(0)
    bench = Bench(first)
    chosen: dict[Condition, Choice] = {
        (scenario, f"merge-{name}", 0): Choice({stage.n_tasks: chosen_lambda(bench, stage, scenario, name)})
        for scenario in stage.scenarios
        for name in stage.mergers
    }
    ratios = {each.name: noise_to_signal(each, [*first.taus.values()], first.backbone.weights)
              for each in stage.scenarios}  # fmt: skip
    tables = []
    for number in range(suites):
        suite = drawn_suite(number)
        user = list(suite.taus)[number % USERS]
        for fault in stage.faults:
            table = run_study(stage.study(number), with_fault(suite, fault, user, number), chosen=chosen)
            tables.append(table.assign(faulty=fault) if len(stage.faults) == 1 else _others(table, user, fault))
    table = pd.concat(tables, ignore_index=True)
    table["merger"] = table["protection"].str.removeprefix("merge-")
    table["ratio"] = table["scenario"].map(ratios)
    means = table.groupby([*_CONDITION, "seed"], sort=False)[["lam", "accuracy", "normalized"]].mean()
    return means.reset_index()


def _others(table: pd.DataFrame, user: str, fault: str) -> pd.DataFrame:
    """The rows of all tasks but one; "nothing" is the case without a fault, of the same tasks."""
    return table[table["task"] != user].assign(faulty="nothing" if fault == "none" else fault)


def summarised(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and interval over the suites for each condition and merger, and by how much it is behind the best one.

    `behind` is the paired difference to the merger with the highest mean under the same condition, with `behind_width`
    half of its 95 % interval; an interval that reaches 0 leaves open which of the two is better.
    """
    found = over_seeds(rows, _CONDITION).merge(rows.groupby(_CONDITION, sort=False)["lam"].mean().reset_index())
    parts = []
    for _, means in found.groupby(_CONDITION[:-1], sort=False):
        best = means.loc[means["mean"].idxmax()]
        here = rows.merge(means[_CONDITION], on=_CONDITION)
        top = here[here["merger"] == best["merger"]].set_index("seed")["normalized"]
        gaps = over_seeds(here.assign(behind=here["seed"].map(top) - here["normalized"]), ["merger"], "behind")
        renamed = gaps.rename(columns={"mean": "behind", "half_width": "behind_width"}).drop(columns="n")
        parts.append(means.merge(renamed, on="merger"))
    return pd.concat(parts, ignore_index=True)


def write(rows: pd.DataFrame, path: Path, stages: Sequence[Stage]) -> None:
    """Write both tables, and what made them."""
    tables = {path: summarised(rows), path.with_name(f"{path.stem}_suites.csv"): rows}
    origin = {
        "test_images": TEST_IMAGES,
        "validation_images": VALIDATION_IMAGES,
        "stages": [asdict(stage) for stage in stages],
    }
    write_results(tables, path.with_suffix(".json"), "python -m workflow.mergers_under_noise", origin)


def results(stages: Sequence[Stage], suites: int = SUITES) -> Iterator[pd.DataFrame]:
    """All rows so far, after each stage."""
    tables: list[pd.DataFrame] = []
    for stage in stages:
        tables.append(run_stage(stage, suites))
        yield pd.concat(tables, ignore_index=True)


def main() -> None:
    """Compute all stages, and write the table after each of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--suites", type=int, default=SUITES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for place, rows in enumerate(results(STAGES, options.suites), 1):
        write(rows, options.out, STAGES[:place])


if __name__ == "__main__":
    main()
