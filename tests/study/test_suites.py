"""Suites as seeds: paired by suite, settings from the first one's validation images, leads by plain subtraction."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.study import choose_settings, run_study
from rmtllmf_lib.study.suites import leads, link_benefit, run_over_suites
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.scenario import CLEAN
from small import small_backbone, small_head, small_task, small_tau
from studies import NAMES, NOISY, STUDY, require_same

WANTED = replace(
    STUDY, scenarios=(CLEAN, NOISY), protections=("rmtllmf", "control", "few-shot-specialists"), seeds=1,
    per_class=(1,), sizes=(2,), per_size=1, lr_grid=(1e-3, 1e-2), lam_grid={"rmtllmf": (0.05, 0.4)},
)  # fmt: skip
COLUMNS = ["n_tasks", "per_class", "scenario", "correlation", "protection", "lam_rule"]


def suite_of(number: int) -> Suite:
    backbone, seeds = small_backbone(layers=1), range(10 * number, 10 * number + 3)
    tasks = {name: small_task(name, seed) for name, seed in zip(NAMES, seeds, strict=True)}
    heads = {name: small_head(seed) for seed, name in enumerate(NAMES)}
    taus = {name: small_tau(backbone.weights, seed, task=name) for name, seed in zip(NAMES, seeds, strict=True)}
    return Suite(backbone, tasks, heads, taus)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def table(store: Store) -> pd.DataFrame:
    return link_benefit(WANTED, suite_of, 3, store=store)


def test_one_seed_is_one_suite(table: pd.DataFrame, store: Store) -> None:
    chosen = choose_settings(WANTED, suite_of(0), store=store)
    own = table[table["lam_rule"].eq("chosen") | table["protection"].ne("rmtllmf")].drop(columns="lam_rule")
    for number in range(3):
        single = run_study(replace(WANTED, first_seed=number), suite_of(number), chosen=chosen, store=store)
        require_same(own[own["seed"] == number].reset_index(drop=True), single)
    models = own[(own["scenario"] == "noisy")].groupby("seed")["model"].first()
    assert models.nunique() == 3 and own.groupby("seed")["combination"].nunique().eq(1).all()


def test_later_suites_choose_nothing(table: pd.DataFrame) -> None:
    settings = table.groupby(["scenario", "protection", "lam_rule"])[["lam", "lr"]].nunique()
    assert (settings == 1).all(axis=None)
    rules = table.groupby("protection")["lam_rule"].unique().map(set).to_dict()
    assert rules == {"rmtllmf": {"given", "chosen"}, "control": {"given"}, "few-shot-specialists": {"given"}}
    assert set(table.loc[table["lam_rule"].eq("given") & table["protection"].eq("rmtllmf"), "lam"]) == {0.7}


def test_leads_are_paired_differences(table: pd.DataFrame) -> None:
    found = leads(table)
    assert not found.duplicated(COLUMNS).any() and len(found) == 6 and set(found["n"]) == {3}
    by_suite = table.groupby([*COLUMNS, "seed"])["normalized"].mean()
    for row in found.to_dict("records"):
        own = by_suite.loc[tuple(row[name] for name in COLUMNS)].to_numpy()
        assert row["mean"] == pytest.approx(own.mean())
        for name in ("control", "few-shot-specialists"):
            other = by_suite.xs(name, level="protection").to_numpy()
            assert row[f"{name}_mean"] == pytest.approx(other.mean())
            if row["protection"] == name:
                assert np.isnan(row[f"{name}_lead"])
                continue
            lead = own - other
            half = stats.t.ppf(0.975, 2) * lead.std(ddof=1) / np.sqrt(3)
            assert_allclose([row[f"{name}_lead"], row[f"{name}_half_width"]], [lead.mean(), half], atol=1e-12)


def test_leads_do_not_depend_on_the_order_of_rows(table: pd.DataFrame) -> None:
    mixed = leads(table.sample(frac=1, random_state=0)).sort_values(COLUMNS, ignore_index=True)
    pd.testing.assert_frame_equal(mixed, leads(table).sort_values(COLUMNS, ignore_index=True))


def test_without_a_grid_lambda_is_given(store: Store) -> None:
    plain = replace(WANTED, lam_grid={}, lr_grid=(), protections=("control",))
    assert set(link_benefit(plain, suite_of, 1, store=store)["lam_rule"]) == {"given"}


@pytest.mark.parametrize("change", [{"seeds": 2}, {"first_seed": 1}])
def test_more_seeds_than_suites_are_refused(change: dict[str, int], store: Store) -> None:
    with pytest.raises(InputError, match="seeds is"):
        run_over_suites(replace(WANTED, **change), suite_of, 2, store=store)


def test_what_leads_cannot_do_without(table: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="'lam_rule'"):
        leads(table.drop(columns="lam_rule"))
    with pytest.raises(InputError, match="prayer"):
        leads(table, ["prayer"])
    assert [name for name in leads(table, ["control"]) if "few" in name] == []
