"""Choices of lambda and learning rate: those of a plain search on validation images, the same rule for every method."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.study import Choice, Study, choose_settings, run_study, study_units
from rmtllmf_lib.study.units import Bench, Unit, models
from rmtllmf_lib.training.combinations import sample_combinations
from rmtllmf_lib.training.evaluate import accuracy
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.scenario import Scenario
from studies import NOISY, QUICK, STUDY, make_suite

STUDIED = replace(
    STUDY, scenarios=(NOISY,), seeds=1, per_class=(1, 2), per_size=1,
    protections=("rmtllmf", "noise-aware", "control", "few-shot-specialists"),
    lr_grid=(1e-4, 3e-2), lam_grid={"rmtllmf": (1.2, 0.1, 0.5), "few-shot-specialists": (0.5, 1.5)},
    validation_images=None,
)  # fmt: skip


@pytest.fixture(scope="module")
def suite() -> Suite:
    return make_suite()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def score(suite: Suite, unit: Unit) -> float:
    """Mean accuracy on validation images, by the plain way."""
    ((members, found),) = models(Bench(suite), unit)
    values = [accuracy(suite.backbone, found.weights, suite.tasks[q].validation, suite.heads[q]) for q in members]
    return sum(values) / len(values)


def best(scores: dict[float, float]) -> float:
    return max(sorted(scores), key=scores.__getitem__)


def test_choices_are_those_of_a_plain_search(suite: Suite, store: Store) -> None:
    """Lambda for each number of tasks before any realignment; then the rate, for the largest number, with it."""
    chosen = choose_settings(STUDIED, suite, store=store)
    conditions = {(unit.scenario, unit.protection, unit.per_class) for unit in study_units(STUDIED, suite)}
    assert chosen.keys() == conditions and len(conditions) == 8
    combinations = {len(c): c for c in sample_combinations(("a", "b", "c"), None, 1)}
    seen = set()
    for (scenario, name, count), choice in chosen.items():
        unit = Unit(scenario, name, 0, count, (("a",),), (0.3,), QUICK, None, "validation", None)
        assert choice.lam.keys() == (combinations.keys() if name in STUDIED.lam_grid else set())
        for size, lam in choice.lam.items():
            tried = {
                value: score(suite, replace(unit, combinations=(combinations[size],), lams=(value,), realigned=False))
                for value in STUDIED.lam_grid[name]
            }
            assert lam == best(tried)
            seen.add((name, lam))
        given = {"rmtllmf": None, "few-shot-specialists": None, "noise-aware": 0.55, "control": 0.55}[name]
        used = choice.lam.get(3, given)
        assert used is not None
        rates = {
            lr: score(suite, replace(
                unit, combinations=(combinations[3],), lams=(used,), recipe=replace(QUICK, lr=lr)
            ))
            for lr in STUDIED.lr_grid
        }  # fmt: skip
        assert choice.lr == best(rates)
    assert seen - {(name, min(grid)) for name, grid in STUDIED.lam_grid.items()}  # not just the first of a grid


def test_models_use_the_choices(suite: Suite, store: Store) -> None:
    table = run_study(STUDIED, suite, store=store)
    for (scenario, name, count), choice in choose_settings(STUDIED, suite, store=store).items():
        rows = table[(table["protection"] == name) & (table["per_class"] == count)]
        assert set(rows["scenario"]) == {scenario.name if scenario else "no link"}
        assert set(rows["lr"]) == {choice.lr}
        for size, lam in choice.lam.items():
            assert set(rows.loc[rows["n_tasks"] == size, "lam"]) == {lam}
    given = {key: Choice({2: 0.25, 3: 0.125}, 1e-3) for key in choose_settings(STUDIED, suite, store=store)}
    forced = run_study(STUDIED, suite, chosen=given, store=store)
    own = forced[forced["protection"].isin(STUDIED.lam_grid)]
    assert set(forced["lr"]) == {1e-3} and set(own["lam"]) == {0.25, 0.125}
    # what is stored under the study's name is not what other choices gave
    assert not run_study(STUDIED, suite, store=store)["model"].equals(forced["model"])


@pytest.mark.parametrize(
    "condition",
    [
        (replace(NOISY, mse=0.3), "rmtllmf", 1), (None, "rmtllmf", 1), (NOISY, "realign", 1), (NOISY, "rmtllmf", 7),
        (NOISY, "control", 1),
    ],
)  # fmt: skip
def test_chosen_settings_of_no_condition_are_refused(
    suite: Suite, store: Store, condition: tuple[Scenario | None, str, int]
) -> None:
    chosen = {(NOISY, "rmtllmf", 1): Choice(lr=1e-3), condition: Choice(lr=1e-3)}
    for call in (partial(run_study, store=store), study_units):
        with pytest.raises(InputError, match=rf"chosen has settings for .*'{condition[1]}', {condition[2]}.*leave"):
            call(STUDIED, suite, chosen=chosen)


def test_lambda_before_realignment_is_chosen_once_for_all_memories(suite: Suite, tmp_path: Path) -> None:
    """R-MTLLMF's start has no memory, so its choice cannot depend on one, and costs nothing for the second."""
    only = replace(STUDIED, protections=("rmtllmf",), lr_grid=())
    chosen = choose_settings(only, suite, store=Store(tmp_path))
    one, two = (chosen[NOISY, "rmtllmf", count] for count in (1, 2))
    assert one == two and one.lr is None
    assert sum(len(path.name) == 64 for path in tmp_path.glob("study-part/*")) == 2  # a part for each number of tasks


def test_nothing_to_choose(suite: Suite, tmp_path: Path) -> None:
    assert choose_settings(STUDY, suite, store=Store(tmp_path)) == {}
    assert choose_settings(replace(STUDIED, protections=("base",)), suite, store=Store(tmp_path)) == {}


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"control": (0.5,)}, "'control', which uses none"),
        ({"prayer": (0.5,)}, "protection is 'prayer'"),
        ({"rmtllmf": ()}, r"lam_grid is \(\)"),
        ({"rmtllmf": (float("inf"),)}, "lam_grid.*inf"),
    ],
)
def test_grids_of_lambda_that_are_none(grid: dict[str, tuple[float, ...]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Study((NOISY,), ("rmtllmf",), lam_grid=grid)
