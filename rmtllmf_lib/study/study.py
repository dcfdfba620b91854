"""A study: scenarios × protections × combinations of tasks × seeds, evaluated into one tidy table.

The description is a frozen dataclass that fits into a small JSON file. The work is divided into units that are stored
separately, see `parts`: an interrupted study resumes, and a study that grows (more seeds, more scenarios) or shares
conditions with another one computes only what is new.

Training and all choices (learning rates, lambda: `choose_settings`) use training and validation images only. Test
images are used once, to score the models.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import groupby, product
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveFloat, PositiveInt

from rmtllmf_lib import __version__
from rmtllmf_lib.arrays import file_path, one_of
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.payload.low_rank import LowRank
from rmtllmf_lib.protection.realign import REALIGNMENT
from rmtllmf_lib.protection.resilience import protection_named
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.storage.atomic import atomic_write
from rmtllmf_lib.storage.canonical import config_key
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.parts import build_parts
from rmtllmf_lib.study.units import Bench, Unit, run_unit, specialists
from rmtllmf_lib.training.combinations import normalized_accuracy, sample_combinations
from rmtllmf_lib.training.finetune import Recipe
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.coded_payload import Quantised, plans
from rmtllmf_lib.transport.digital import WordBits
from rmtllmf_lib.transport.scenario import Scenario
from rmtllmf_lib.validated import validated, validated_call
from rmtllmf_lib.workers import allowed

NO_LINK = "no link"  # in the column `scenario`, for protections that ignore the link

_CHUNK = 8  # combinations in a unit, which bounds what is lost by a kill

Condition = tuple[Scenario | None, str, int]  # scenario, protection, images per class in the memory


@validated
class Study:
    """Description of a study.

    Attributes
    ----------
    scenarios : tuple of Scenario
    protections : tuple of str
        Names in `resilience.PROTECTIONS`.
    seeds : int
        Repetitions, each with its own noise, memory and order of training. A seed gives the same ones for all scenarios
        and protections, so that differences are paired. Data and task vectors are those of the suite.
    per_class : tuple of int
        Images per class in the memory; a smaller memory is a subset of a larger one.
    sizes : tuple of int, optional
        Numbers of tasks to fuse; default 2 to all.
    per_size : int, optional
        Combinations of each size, chosen so that all tasks occur about equally often; default all.
    test_images : int, optional
        Per task; None for all.
    lam : dict of int to float, optional
        lambda_N by N, from `choose_lambdas` for example; default each protection's own, `fusion.lambda_n` for most.
    realignment : Recipe
        Settings of the realignment; `freeze` is overridden by each protection.
    lr : dict of str to float
        Learning rates by protection, in place of the recipe's.
    lr_grid : tuple of float
        If not empty, the learning rate of each scenario, protection and memory size without an entry in `lr` is chosen
        from this grid: on validation images, with the largest combination and separate random numbers.
    lam_grid : dict of str to tuple of float
        Lambdas to choose from, by protection: for each scenario, memory size and number of tasks, the one whose model
        before realignment is the best on validation images. The learning rate is chosen after it.
    validation_images : int, optional
        Per task, for these choices; None for all.
    autocast : "bfloat16", optional
        Precision of the matrix products in the realignment.
    first_seed : int
        Number of the first repetition. It also decides which combinations `per_size` takes.
    sends : tuple of (rank, bits), optional
        Low-rank payloads that users send under protections that have them send coded ones, the best first; default the
        protection's own, which suit the embedded base.
    """

    scenarios: tuple[Scenario, ...]
    protections: tuple[str, ...]
    seeds: Annotated[int, Field(ge=1, le=10_000)] = 3
    per_class: tuple[PositiveInt, ...] = (10,)
    sizes: tuple[int, ...] | None = None
    per_size: PositiveInt | None = None
    test_images: PositiveInt | None = 500
    lam: Mapping[int, float] | None = None
    realignment: Recipe = REALIGNMENT
    lr: Mapping[str, PositiveFloat] = field(default_factory=dict)
    lr_grid: tuple[PositiveFloat, ...] = ()
    validation_images: PositiveInt | None = 100
    autocast: Literal["bfloat16"] | None = None
    lam_grid: Mapping[str, Annotated[tuple[FiniteFloat, ...], Field(min_length=1)]] = field(default_factory=dict)
    first_seed: NonNegativeInt = 0
    sends: Annotated[tuple[tuple[PositiveInt, WordBits], ...], Field(min_length=1)] | None = None

    __repr__ = short_repr

    def __post_init__(self) -> None:
        for name in (*self.protections, *self.lr):
            protection_named(name)
        for name in self.lam_grid:
            if not protection_named(name).scales:
                raise InputError(f"lam_grid has lambdas for {name!r}, which uses none: leave it out")
        named: dict[str, Sequence[Any] | None] = {
            "protections": self.protections, "per_class": self.per_class, "sizes": self.sizes
        }  # fmt: skip
        if any(protection_named(name).receives for name in self.protections):
            named["scenarios"] = [scenario.name for scenario in self.scenarios]
        for what, items in named.items():
            if items is not None and (not items or len(set(items)) < len(items)):
                raise InputError(f"{what} are {list(items)}: expected at least one, each named once")
        if NO_LINK in (scenario.name for scenario in self.scenarios):
            raise InputError(f"a scenario is called {NO_LINK!r}: choose another name, this one is reserved")

    @property
    def ladder(self) -> tuple[Quantised, ...] | None:
        """The payloads of `sends`."""
        return None if self.sends is None else tuple(Quantised(LowRank(rank), bits) for rank, bits in self.sends)


@dataclass(frozen=True)
class Choice:
    """Settings of one condition, chosen on validation images.

    Attributes
    ----------
    lam : dict of int to float
        lambda by number of tasks; empty where it is not chosen.
    lr : float or None
        None where it is not chosen.
    """

    lam: Mapping[int, float] = field(default_factory=dict)
    lr: float | None = None

    __repr__ = short_repr


@validated_call
def run_study(
    study: Study,
    suite: Suite,
    *,
    grid: Mapping[str, Sequence[Any]] | None = None,
    chosen: Mapping[Condition, Choice] | None = None,
    store: Store | None = None,
    workers: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """The table of a study, from the store or computed; an interrupted study resumes.

    Parameters
    ----------
    suite : Suite
        Tasks, heads, task vectors; evaluation and realignment run on its device.
    grid : dict of "lam", "realignment" or both to values, optional
        Values to try in place of the study's, each with each; the table has the rows of one after the other.
    chosen : dict of condition to Choice, optional
        Settings that were chosen before, by `choose_settings` on another suite. Default: chosen on this suite.
    store : Store, optional
        Default: the user's. Parts are stored under "study-part", the table under "study".
    workers : int
        Processes with one thread each, see `build_parts`; use one on a GPU. The table does not depend on it.
    progress : bool
        Show a bar with the estimated time left, on a terminal only.

    Returns
    -------
    DataFrame with one row for each model and task: `scenario`, `scale`, `correlation`, `mse` (mean over the users),
    `protection`, `per_class` (0 without a memory), `seed`, `combination` (names joined by +), `n_tasks`, `task`, `lam`
    (as used, mean over the users), `lr` (NaN without realignment), `images`, `accuracy`, `reference` (the
    specialist's), `normalized`, `model` (prefix of the hash of the weights), `outage` (fused users from whom nothing
    arrived), and the cost: `uses` (of the channel, by all fused users), `samples`, `steps`, `bytes`, `seconds` (wall
    time, the only column that differs between runs).
    Protections that ignore the link have the scenario "no link" and no MSE.

    Raises
    ------
    InputError
        for a size of combination that the suite does not have, scenarios of another number of users, a grid of
        other settings or without values, and settings chosen for what is no condition of the study.
    """
    allowed(workers)
    _require_conditions(chosen or {}, study)
    store = store or Store()
    studies = _over(study, grid or {})
    for each in studies:
        _require_fitting(each, suite)
    bench, parts = Bench(suite), _parts(suite, store, workers, progress)
    run = partial(_run, bench, parts)

    def assemble() -> pd.DataFrame:
        (own,) = parts([{"specialists": study.test_images}], lambda _: specialists(bench, study.test_images))
        units = []
        for each in studies:
            units += study_units(each, suite, _choices(each, suite, run) if chosen is None else chosen)
        rows = [_labelled(unit, table) for unit, table in zip(units, run(units), strict=True)]
        return _scored(pd.concat(rows, ignore_index=True), own)

    # Not built inside `store.table`: its lock would make a second run of this study wait instead of sharing the parts.
    config = _config(study, suite)
    if grid:
        config["grid"] = [_described(each) for each in studies]
    if chosen is not None:
        config["chosen"] = [
            {"scenario": scenario and asdict(scenario), "protection": name, "per_class": count, "lr": choice.lr,
             "lam": {str(n): value for n, value in choice.lam.items()}}
            for (scenario, name, count), choice in chosen.items()
        ]  # fmt: skip
    found = None if (store.root / "study" / config_key(config)).is_dir() else assemble()
    return store.table("study", config, lambda: assemble() if found is None else found)


def _over(study: Study, grid: Mapping[str, Sequence[Any]]) -> list[Study]:
    """The study with each choice of the grid's values in place of its own."""
    for name, values in grid.items():
        one_of(name, ("lam", "realignment"), "grid")
        if not values:
            raise InputError(
                f"grid has {values!r} for {name}: expected at least one value; leave {name} out, or add one"
            )
    return [replace(study, **dict(zip(grid, values, strict=True))) for values in product(*grid.values())]


@validated_call
def choose_settings(
    study: Study, suite: Suite, *, store: Store | None = None, workers: int = 1, progress: bool = True
) -> dict[Condition, Choice]:
    """Lambda and learning rate of each condition of a study that has a grid for them, chosen on validation images.

    One rule for every protection, the controls included: first the lambda whose model before realignment classifies
    most validation images, then, with it, the learning rate whose realigned model does. A tie goes to the smaller one.
    Noise, memory and order of training are drawn for this alone, so no scored model has them.

    Parameters
    ----------
    store, workers, progress
        As in `run_study`, with which the trials are shared.

    Raises
    ------
    InputError
        as `run_study` does.
    """
    allowed(workers)
    _require_fitting(study, suite)
    parts = _parts(suite, store or Store(), workers, progress)
    return _choices(study, suite, partial(_run, Bench(suite), parts))


def _parts(
    suite: Suite, store: Store, workers: int, progress: bool
) -> Callable[[Sequence[Mapping[str, Any]], Callable[[int], pd.DataFrame]], list[pd.DataFrame]]:
    origin = provenance(suite)

    def parts(configs: Sequence[Mapping[str, Any]], build: Callable[[int], pd.DataFrame]) -> list[pd.DataFrame]:
        whole = [{**config, **origin} for config in configs]
        return build_parts(store, "study-part", whole, build, workers=workers, progress=progress)

    return parts


def _run(bench: Bench, parts: Callable[..., list[pd.DataFrame]], units: Sequence[Unit]) -> list[pd.DataFrame]:
    return parts([{"unit": unit.described()} for unit in units], lambda place: run_unit(bench, units[place]))


def _choices(
    study: Study, suite: Suite, run: Callable[[Sequence[Unit]], list[pd.DataFrame]]
) -> dict[Condition, Choice]:
    """The best of the grids for each condition that has one."""
    combinations = _combinations(study, suite)
    first = {len(c): c for c in reversed(combinations)}
    every = conditions(study)

    def trial(condition: Condition, combination: tuple[str, ...], lams: Sequence[float], lr: float | None) -> Unit:
        """The combination with each lambda; realigned if there is a rate, else as it is before."""
        scenario, name, count = condition
        protection = protection_named(name)
        recipe = None
        if lr or protection.starts_from_memory:
            recipe = replace(study.realignment, lr=lr or study.lr.get(name, study.realignment.lr))
        return Unit(
            scenario, name, 0, count if recipe else 0, (combination,) * len(lams), tuple(lams), recipe,
            study.autocast if recipe else None, "validation", study.validation_images, realigned=lr is not None,
            sends=study.ladder,
        )  # fmt: skip

    def best(trials: Sequence[Unit], each: int) -> list[int]:
        """The place of the highest score in each run of `each` lambdas or units."""
        scores = [
            np.reshape(table["correct"] / table["images"], (len(unit.lams), -1)).mean(axis=1)
            for unit, table in zip(trials, run(trials), strict=True)
        ]
        return np.reshape(np.concatenate(scores), (-1, each)).argmax(axis=1).tolist()

    lams: dict[Condition, dict[int, float]] = {condition: {} for condition in every}
    for name, values in study.lam_grid.items():
        grid = sorted(values)
        cases = [(c, size) for c in every if c[1] == name for size in first]
        if cases:
            places = best([trial(c, first[size], grid, None) for c, size in cases], len(grid))
            for (condition, size), place in zip(cases, places, strict=True):
                lams[condition][size] = grid[place]
    rates: dict[Condition, float] = {}
    trained = [c for c in every if protection_named(c[1]).trains and c[1] not in study.lr]
    if study.lr_grid and trained:
        grid, largest = sorted(study.lr_grid), max(first)
        with_lam = {c: (lams[c].get(largest, _lam(study, c[1], largest)),) for c in trained}
        places = best([trial(c, first[largest], with_lam[c], lr) for c, lr in product(trained, grid)], len(grid))
        rates = {condition: grid[place] for condition, place in zip(trained, places, strict=True)}
    return {c: Choice(lams[c], rates.get(c)) for c in every if lams[c] or c in rates}


def _combinations(study: Study, suite: Suite) -> list[tuple[str, ...]]:
    return sample_combinations(tuple(suite.tasks), study.sizes, study.per_size, study.first_seed)


@validated_call
def conditions(study: Study) -> list[Condition]:
    """All conditions; protections without a link or a memory occur once for all scenarios or memory sizes."""
    found: list[Condition] = []
    for name in study.protections:
        protection = protection_named(name)
        scenarios: Sequence[Scenario | None] = study.scenarios if protection.receives else (None,)
        counts = study.per_class if protection.remembers else (0,)
        found += [(scenario, name, count) for scenario in scenarios for count in counts]
    return found


@validated_call
def study_units(study: Study, suite: Suite, chosen: Mapping[Condition, Choice] | None = None) -> list[Unit]:
    """The units of a study.

    Parameters
    ----------
    chosen : dict of condition to Choice, optional
        Settings in place of the study's.

    Raises
    ------
    InputError
        for settings of what is no condition of the study.
    """
    _require_conditions(chosen or {}, study)
    combinations = _combinations(study, suite)
    chunks = []
    for _, group in groupby(sorted(combinations, key=len, reverse=True), len):
        same = tuple(group)
        chunks += [same[start : start + _CHUNK] for start in range(0, len(same), _CHUNK)]
    units = []
    for scenario, name, count in conditions(study):
        recipe, choice = None, (chosen or {}).get((scenario, name, count), Choice())
        if protection_named(name).trains:
            recipe = replace(study.realignment, lr=choice.lr or study.lr.get(name, study.realignment.lr))
        for seed in range(study.first_seed, study.first_seed + study.seeds):
            for chunk in chunks:
                lams = tuple(choice.lam.get(len(c), _lam(study, name, len(c))) for c in chunk)
                autocast = study.autocast if recipe else None
                scored = ("test", study.test_images)
                units.append(
                    Unit(scenario, name, seed, count, chunk, lams, recipe, autocast, *scored, sends=study.ladder)
                )
    return units


def _lam(study: Study, name: str, size: int) -> float:
    if study.lam is None:
        return protection_named(name).published_lam(size)
    if size not in study.lam:
        raise InputError(f"lam has no value for {size} tasks: it has them for {sorted(study.lam)}; add it")
    return float(study.lam[size])


def _labelled(unit: Unit, table: pd.DataFrame) -> pd.DataFrame:
    link = unit.scenario
    labels = {
        "scenario": link.name if link else NO_LINK,
        "scale": link.scale if link else "",
        "correlation": link.correlation if link else "",
        "mse": link.mean_mse if link else np.nan,
        "protection": unit.protection,
        "per_class": unit.per_class,
        "seed": unit.seed,
    }
    return table.assign(lr=unit.recipe.lr if unit.recipe else np.nan, **labels)[[*labels, *table, "lr"]]


def _scored(rows: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    rows = rows.rename(columns={"correct": "accuracy"})
    rows["accuracy"] = rows["accuracy"] / rows["images"]
    place = rows.columns.get_loc("accuracy") + 1
    rows.insert(place, "reference", rows["task"].map((own["correct"] / own["images"]).set_axis(own["task"])))
    rows.insert(place + 1, "normalized", normalized_accuracy(rows["accuracy"], rows["reference"]))
    return rows


def _require_fitting(study: Study, suite: Suite) -> None:
    combinations = _combinations(study, suite)
    for size in {len(c) for c in combinations}:
        _lam(study, study.protections[0], size)
    taus = list(suite.taus.values())
    for scenario in study.scenarios:
        scenario.error_cov(taus, suite.backbone.weights)
        for name in study.protections:
            if (ladder := protection_named(name).sends) is not None:
                _require_some_arrive(name, scenario, study.ladder or ladder, suite, combinations)


def _require_conditions(chosen: Mapping[Condition, Choice], study: Study) -> None:
    known = conditions(study)
    for condition in chosen:
        if condition not in known:
            names = [(scenario and scenario.name, *others) for scenario, *others in (condition, *known)]
            raise InputError(
                f"chosen has settings for {names[0]}: expected a condition of the study (scenario, protection, images "
                f"per class), one of {names[1:]}; leave it out, or choose settings for this study by choose_settings"
            )


def _require_some_arrive(
    name: str,
    scenario: Scenario,
    ladder: Sequence[Quantised],
    suite: Suite,
    combinations: Sequence[tuple[str, ...]],
) -> None:
    """`InputError` for a combination of users who are all in outage, before anything is computed."""
    chosen = plans(suite.taus, scenario.symbol_mse, ladder=ladder)
    lost = {user for user, each in chosen.items() if each is None}
    for combination in combinations:
        if lost.issuperset(combination):
            raise InputError(
                f"all users of {'+'.join(combination)} are in outage under scenario {scenario.name!r}, with MSE "
                f"{scenario.symbol_mse}: {name} needs one who is not; leave the scenario out, or lower its MSE"
            )


@validated_call
def provenance(suite: Suite) -> dict[str, Any]:
    """Everything besides their own settings that results from a suite depend on: data, vectors, device, versions."""
    tasks = {
        name: {"data": task.fingerprint, "head": suite.heads[name].hash, "tau": suite.taus[name].hash}
        for name, task in suite.tasks.items()
    }
    # "users" is a list because the order of the users decides which noise each gets, and keys are sorted
    versions = {"rmtllmf": __version__, "torch": torch.__version__}
    base = suite.backbone.weights.hash
    return {"base": base, "users": list(tasks), "tasks": tasks, "device": suite.device, "versions": versions}


def _config(study: Study, suite: Suite) -> dict[str, Any]:
    return {"study": _described(study), **provenance(suite)}


def _described(study: Study) -> dict[str, Any]:
    described = asdict(study)
    if study.lam is not None:
        described["lam"] = {str(n): float(value) for n, value in study.lam.items()}
    return described


@validated_call
def write_table(
    table: pd.DataFrame, path: str | Path, study: Study, suite: Suite, *, suites: PositiveInt | None = None
) -> None:
    """Write a study's table as parquet, with its provenance in `<name>.provenance.json` next to it.

    Parameters
    ----------
    suites : int, optional
        Their number for a table of `run_over_suites`; `suite` is the first of them then.
    """
    path = file_path(path, "path")
    config = _config(study, suite) | ({} if suites is None else {"suites": suites})
    with atomic_write(path) as temporary:
        table.to_parquet(temporary, engine="pyarrow")
    with atomic_write(path.with_name(f"{path.stem}.provenance.json")) as temporary:
        temporary.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
