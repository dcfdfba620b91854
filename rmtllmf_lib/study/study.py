"""A study: scenarios × protections × combinations of tasks × seeds, from its description to one tidy table.

The description is a frozen dataclass that fits in a small JSON file. The work is cut into units that are stored one by
one, see `parts`; so a study that was stopped goes on where it was, and a study that grows (more seeds, more scenarios)
or shares conditions with another computes only what is new.

Training and every choice (step sizes, lambda) see training and validation images alone. Test images are looked at once,
to score the models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from rmtllmf_lib import __version__
from rmtllmf_lib.arrays import real_number, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.fusion import lambda_n
from rmtllmf_lib.protection.realign import REALIGNMENT
from rmtllmf_lib.protection.resilience import protection_named
from rmtllmf_lib.storage.atomic import atomic_write
from rmtllmf_lib.storage.canonical import config_key
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.parts import build_parts
from rmtllmf_lib.study.units import Bench, Unit, run_unit, specialists
from rmtllmf_lib.training.evaluate import normalized_accuracy, task_combinations
from rmtllmf_lib.training.finetune import Recipe, require_autocast
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.scenario import Scenario

NO_LINK = "no link"  # in the column `scenario`, of protections that look at nothing that was received

_CHUNK = 8  # combinations in a unit: what a kill can cost, at most


@dataclass(frozen=True)
class Study:
    """What to compute.

    Attributes
    ----------
    scenarios : tuple of Scenario
    protections : tuple of str
        Names in `resilience.PROTECTIONS`.
    seeds : int
        Repetitions; each has noise, a memory and an order of training of its own. The same seed has the same ones for
        all scenarios and protections, so that differences are paired. Data and task vectors are the suite's.
    per_class : tuple of int
        Images of each class in the memory; a smaller memory is part of a larger one.
    sizes : tuple of int, optional
        Numbers of tasks to fuse; None: 2 to all.
    per_size : int, optional
        Combinations of each size, chosen so that every task occurs about as often; None: all.
    test_images : int, optional
        Of each task; None: all.
    lam : dict of int to float, optional
        lambda_N by N, such as `choose_lambdas` finds; None: `fusion.lambda_n`.
    realignment : Recipe
        Steps, batch, learning rate. What is frozen is up to each protection.
    lr : dict of str to float
        Learning rates of single protections, instead of the recipe's.
    lr_grid : tuple of float
        If not empty, the learning rate is chosen from it for each scenario, protection and memory size, on validation
        images, the largest combination and random numbers of their own. `lr` goes first.
    validation_images : int, optional
        Of each task, for that choice.
    autocast : "bfloat16", optional
        Precision of the products in the realignment.
    """

    scenarios: tuple[Scenario, ...]
    protections: tuple[str, ...]
    seeds: int = 3
    per_class: tuple[int, ...] = (10,)
    sizes: tuple[int, ...] | None = None
    per_size: int | None = None
    test_images: int | None = 500
    lam: Mapping[int, float] | None = None
    realignment: Recipe = REALIGNMENT
    lr: Mapping[str, float] = field(default_factory=dict)
    lr_grid: tuple[float, ...] = ()
    validation_images: int | None = 100
    autocast: str | None = None

    def __post_init__(self) -> None:
        for name in ("scenarios", "protections", "per_class", "lr_grid"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.sizes is not None:
            object.__setattr__(self, "sizes", tuple(self.sizes))
        for name in self.protections:
            protection_named(name)
        for name in self.lr:
            protection_named(name)
        _require_some(self.protections, "protections")
        _require_some(self.per_class, "per_class")
        if self.sizes is not None:
            _require_some(self.sizes, "sizes")
        if any(protection_named(name).receives for name in self.protections):
            _require_some([scenario.name for scenario in self.scenarios], "scenarios")
        if NO_LINK in (scenario.name for scenario in self.scenarios):
            raise InputError(f"a scenario is called {NO_LINK!r}: choose another name, this one is taken")
        whole_number(self.seeds, "seeds")
        for count in self.per_class:
            whole_number(count, "a number of per_class")
        for name in ("per_size", "test_images", "validation_images"):
            if getattr(self, name) is not None:
                whole_number(getattr(self, name), name)
        require_autocast(self.autocast)
        for size, value in (self.lam or {}).items():
            real_number(value, f"lam of {size} tasks")
        for lr in (*self.lr_grid, *self.lr.values()):
            replace(self.realignment, lr=lr)


def _require_some(items: Sequence[Any], what: str) -> None:
    if not items or len(set(items)) < len(items):
        raise InputError(f"{what} are {list(items)}: expected at least one, each named once")


def sample_combinations(
    names: Sequence[str], sizes: Sequence[int] | None = None, per_size: int | None = None
) -> list[tuple[str, ...]]:
    """Combinations of tasks, all of them or `per_size` of each size, in which the tasks occur about equally often.

    The choice is fixed: it depends on the arguments alone.
    """
    chosen: list[tuple[str, ...]] = []
    everything = task_combinations(names, sizes)
    for size in sorted({len(combination) for combination in everything}):
        candidates = [combination for combination in everything if len(combination) == size]
        if per_size is None or per_size >= len(candidates):
            chosen += candidates
            continue
        order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(size)).tolist()
        used = dict.fromkeys(names, 0)
        picked = []
        for _ in range(per_size):
            best = min(order, key=lambda place: sum(used[name] ** 2 + 2 * used[name] for name in candidates[place]))
            order.remove(best)
            picked.append(best)
            for name in candidates[best]:
                used[name] += 1
        chosen += [candidates[place] for place in sorted(picked)]
    return chosen


def run_study(
    study: Study, suite: Suite, *, store: Store | None = None, workers: int = 1, progress: bool = True
) -> pd.DataFrame:
    """Compute a study, or take it from the store; what was begun is finished.

    Parameters
    ----------
    suite : Suite
        Tasks, heads, task vectors; evaluation and realignment run on its device.
    store : Store, optional
        Default: the user's. Parts are kept under "study-part", the table under "study".
    workers : int
        Processes with one thread each. The table does not depend on it. Take one on a GPU.
    progress : bool
        A bar with an estimate of the time left, on a terminal only.

    Returns
    -------
    DataFrame, one row for each model and task that it was tested on: `scenario`, `scale`, `correlation`, `mse` (mean
    over the users), `protection`, `per_class` (0 without a memory), `seed`, `combination` (names joined by +),
    `n_tasks`, `task`, `lam` (as used, mean over the users), `lr` (NaN without realignment), `images`, `accuracy`,
    `reference` (the specialist's), `normalized`, `model` (start of the hash of the weights), `samples`, `steps`,
    `bytes`, `seconds` (the protection's budget; wall time is the one column that differs from run to run).
    Protections that look at nothing that was received have the scenario "no link" and no MSE.

    Raises
    ------
    InputError
        for a size of combination that the suite does not have, or scenarios of another number of users.
    """
    store = store or Store()
    _require_fitting(study, suite)
    config = _config(study, suite)
    bench = Bench(suite)

    def assemble() -> pd.DataFrame:
        parts = _parts(store, bench, study, workers, progress)
        (own,) = parts([None])
        units = study_units(study, suite, _learning_rates(study, suite, parts))
        tables = parts([unit for _, _, unit in units])
        rows = [_labelled(*unit, table) for unit, table in zip(units, tables, strict=True)]
        return _scored(pd.concat(rows, ignore_index=True), own)

    # The parts come first: a second run of this study shares them, while the table's lock would make it wait.
    found = None if (Path(store.root) / "study" / config_key(config)).is_dir() else assemble()
    return store.table("study", config, lambda: assemble() if found is None else found)


def _parts(store: Store, bench: Bench, study: Study, workers: int, progress: bool) -> Any:
    origin = provenance(bench.suite)

    def run(units: Sequence[Unit | None]) -> list[pd.DataFrame]:
        configs = [_part_config(unit, study, origin) for unit in units]
        build = partial(_build, bench, units, study.test_images)
        return build_parts(store, "study-part", configs, build, workers=workers, progress=progress)

    return run


def _build(bench: Bench, units: Sequence[Unit | None], images: int | None, place: int) -> pd.DataFrame:
    unit = units[place]
    return specialists(bench, images) if unit is None else run_unit(bench, unit)


def _part_config(unit: Unit | None, study: Study, origin: Mapping[str, Any]) -> dict[str, Any]:
    decides = {"specialists": study.test_images} if unit is None else {"unit": unit.described()}
    return {**decides, **origin}


def _fixed_rates(study: Study) -> dict[tuple[str, str, int], float]:
    return {
        (NO_LINK if scenario is None else scenario.name, name, count): study.lr.get(name, study.realignment.lr)
        for scenario, name, count in _conditions(study)
        if protection_named(name).trains
    }


def _learning_rates(study: Study, suite: Suite, parts: Any) -> dict[tuple[str, str, int], float]:
    """The learning rate of each scenario, protection and memory size, chosen where there is a choice."""
    rates, grid = _fixed_rates(study), sorted(study.lr_grid)
    open_ = [condition for condition in _conditions(study) if protection_named(condition[1]).trains and grid]
    open_ = [condition for condition in open_ if condition[1] not in study.lr]
    if not open_:
        return rates
    largest = max(sample_combinations(tuple(suite.tasks), study.sizes, study.per_size), key=len)
    trials = [
        Unit(
            scenario, name, 0, count, (largest,), (_lam(study, len(largest)),),
            replace(study.realignment, lr=lr), study.autocast, "validation", study.validation_images,
        )
        for (scenario, name, count), lr in product(open_, grid)
    ]  # fmt: skip
    scores = np.array([(table["correct"] / table["images"]).mean() for table in parts(trials)])
    best = scores.reshape(len(open_), len(grid)).argmax(axis=1)
    for (scenario, name, count), place in zip(open_, best, strict=True):
        rates[NO_LINK if scenario is None else scenario.name, name, count] = grid[place]
    return rates


def _conditions(study: Study) -> list[tuple[Scenario | None, str, int]]:
    """Scenario, protection, memory size, without repeating what does not depend on one of them."""
    found: list[tuple[Scenario | None, str, int]] = []
    for name in study.protections:
        protection = protection_named(name)
        scenarios: Sequence[Scenario | None] = study.scenarios if protection.receives else (None,)
        counts = study.per_class if protection.remembers else (0,)
        found += [(scenario, name, count) for scenario in scenarios for count in counts]
    return found


def study_units(
    study: Study, suite: Suite, rates: Mapping[tuple[str, str, int], float] | None = None
) -> list[tuple[str, int, Unit]]:
    """The units of a study, each with the name of its scenario, or "no link", and its seed.

    Parameters
    ----------
    rates : dict of (scenario, protection, per_class) to float, optional
        Chosen learning rates; default: those that the study names.
    """
    rates = _fixed_rates(study) if rates is None else rates
    combinations = sample_combinations(tuple(suite.tasks), study.sizes, study.per_size)
    chunks = []
    for size in sorted({len(c) for c in combinations}, reverse=True):
        same = [c for c in combinations if len(c) == size]
        chunks += [tuple(same[start : start + _CHUNK]) for start in range(0, len(same), _CHUNK)]
    units = []
    for scenario, name, count in _conditions(study):
        shown = NO_LINK if scenario is None else scenario.name
        rate = rates.get((shown, name, count))
        recipe = None if rate is None else replace(study.realignment, lr=rate)
        for seed in range(study.seeds):
            for chunk in chunks:
                lams = tuple(_lam(study, len(c)) for c in chunk)
                autocast = study.autocast if recipe else None
                unit = Unit(
                    scenario, name, seed, count, chunk, lams, recipe, autocast, "test", study.test_images
                )  # fmt: skip
                units.append((shown, seed, unit))
    return units


def _lam(study: Study, size: int) -> float:
    return lambda_n(size) if study.lam is None else float(study.lam[size])


def _labelled(scenario: str, seed: int, unit: Unit, table: pd.DataFrame) -> pd.DataFrame:
    link = unit.scenario
    labels = {
        "scenario": scenario,
        "scale": link.scale if link else "",
        "correlation": link.correlation if link else "",
        "mse": link.mean_mse if link else np.nan,
        "protection": unit.protection,
        "per_class": unit.per_class,
        "seed": seed,
    }
    table = table.assign(lr=unit.recipe.lr if unit.recipe else np.nan, **labels)
    return table[[*labels, *(name for name in table if name not in labels)]]


def _scored(rows: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    accuracy = rows.pop("correct") / rows["images"]
    reference = rows["task"].map((own["correct"] / own["images"]).set_axis(own["task"]))
    place = rows.columns.get_loc("images") + 1
    for name, column in (
        ("normalized", normalized_accuracy(accuracy, reference)), ("reference", reference), ("accuracy", accuracy)
    ):  # fmt: skip
        rows.insert(place, name, column)
    return rows


def _require_fitting(study: Study, suite: Suite) -> None:
    combinations = sample_combinations(tuple(suite.tasks), study.sizes, study.per_size)
    for size in {len(c) for c in combinations}:
        if study.lam is not None and size not in study.lam:
            raise InputError(f"lam has no value for {size} tasks: it has them for {sorted(study.lam)}; add it")
    taus = list(suite.taus.values())
    for scenario in study.scenarios:
        scenario.error_cov(taus, suite.backbone.weights)


def _plain(study: Study) -> dict[str, Any]:
    described = asdict(study)
    described["lam"] = None if study.lam is None else {str(n): float(value) for n, value in study.lam.items()}
    return described


def provenance(suite: Suite) -> dict[str, Any]:
    """What results computed from a suite depend on, besides their own settings: data, vectors, device, versions."""
    tasks = {
        name: {"data": task.fingerprint, "head": suite.heads[name].hash, "tau": suite.taus[name].hash}
        for name, task in suite.tasks.items()
    }
    # in a list too: the order of the users decides which noise is whose
    versions = {"rmtllmf": __version__, "torch": torch.__version__}
    base = suite.backbone.weights.hash
    return {"base": base, "users": list(tasks), "tasks": tasks, "device": suite.device, "versions": versions}


def _config(study: Study, suite: Suite) -> dict[str, Any]:
    return {"study": _plain(study), **provenance(suite)}


def study_key(study: Study, suite: Suite) -> str:
    """Under which the store keeps the table: of kind "study"."""
    return config_key(_config(study, suite))


def write_table(table: pd.DataFrame, path: str | Path, study: Study, suite: Suite) -> None:
    """Write a study's table as parquet, and what it was made from beside it, as JSON."""
    path = Path(path)
    with atomic_write(path) as temporary:
        table.to_parquet(temporary, engine="pyarrow")
    with atomic_write(path.with_name(f"{path.stem}.provenance.json")) as temporary:
        temporary.write_text(json.dumps(_config(study, suite), indent=1) + "\n", encoding="utf-8")
