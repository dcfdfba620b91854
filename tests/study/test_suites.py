"""Suites as seeds: paired by suite, settings from the first one's validation images, leads by plain subtraction."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.study import choose_settings, run_study
from rmtllmf_lib.study.suites import CONDITION, by_suite, choices_in, grid_ends, leads, link_benefit, run_over_suites
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.scenario import CLEAN
from small import small_backbone, small_head, small_task, small_tau
from studies import NAMES, NOISY, STUDY, require_same

WANTED = replace(
    STUDY, scenarios=(CLEAN, NOISY), protections=("rmtllmf", "control", "few-shot-specialists"), seeds=1,
    per_class=(1,), sizes=(2,), per_size=1, lr_grid=(1e-3, 1e-2), lam_grid={"rmtllmf": (0.05, 0.4)},
)  # fmt: skip


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


def test_what_was_chosen_is_read_from_the_table_and_taken_for_later_suites(
    table: pd.DataFrame, store: Store, tmp_path: Path
) -> None:
    """Stored as text, and without suite 0, from whose validation images it was chosen."""
    by_suite(table).to_csv(tmp_path / "rows.csv", index=False, float_format="%.6g")
    rows = pd.read_csv(tmp_path / "rows.csv", keep_default_na=False, na_values=[""]).fillna({"correlation": ""})
    found = choices_in(rows, WANTED)
    assert found == choose_settings(WANTED, suite_of(0), store=store) and len(found) == 4

    def later(number: int) -> Suite:
        assert number == 2
        return suite_of(number)

    own = table[table["lam_rule"].eq("chosen") | table["protection"].ne("rmtllmf")].drop(columns="lam_rule")
    again = run_over_suites(WANTED, later, 3, first=2, chosen=found, store=Store(tmp_path / "store"))
    require_same(own[own["seed"] == 2].reset_index(drop=True), again)
    assert choices_in(rows, replace(WANTED, protections=("control",), lr={"control": 1e-3})) == {}
    with pytest.raises(InputError, match="first is 3: expected less than suites, 3"):
        run_over_suites(WANTED, later, 3, first=3, chosen=found)
    for wrong in (rows[rows["protection"] != "control"], rows.assign(lr=rows["lr"] + rows["seed"])):
        with pytest.raises(InputError, match=r"rows hold [03] choices for (rmtllmf|control) .*choose them anew"):
            choices_in(wrong, WANTED)


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
    assert not found.duplicated([*CONDITION]).any() and len(found) == 6 and set(found["n"]) == {3}
    by_suite = table.groupby([*CONDITION, "seed"])["normalized"].mean()
    for row in found.to_dict("records"):
        own = by_suite.loc[tuple(row[name] for name in CONDITION)].to_numpy()
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
    mixed = leads(table.sample(frac=1, random_state=0)).sort_values([*CONDITION], ignore_index=True)
    pd.testing.assert_frame_equal(mixed, leads(table).sort_values([*CONDITION], ignore_index=True))


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
    more = pd.concat([table, table[table["protection"] != "control"].assign(per_class=7)])  # a memory without a control
    found = leads(more).set_index("per_class")["control_lead"]
    assert found.loc[7].isna().all() and found.loc[1].notna().sum() == 5


def test_leads_where_a_label_is_missing(table: pd.DataFrame) -> None:
    """Tables that were read from a file may have NaN where there is no correlation."""
    found, plain = leads(table.replace({"correlation": {"": np.nan}})), leads(table)
    pd.testing.assert_frame_equal(found.drop(columns="correlation"), plain.drop(columns="correlation"))


def test_choices_at_an_end_of_their_grid() -> None:
    rows = pd.DataFrame(
        [
            (2, 1, "SR", "half", "rmtllmf", "chosen", 0.1, 3e-4), (2, 1, "SR", "half", "rmtllmf", "given", 0.7, 1e-3),
            (2, 1, "ideal", "half", "rmtllmf", "chosen", 0.5, 1e-4),
            (2, 1, "no link", "", "control", "given", 0.0, 1e-4), (2, 0, "no link", "", "base", "given", 0.0, np.nan),
        ],
        columns=[*CONDITION, "lam", "lr"],
    )  # fmt: skip
    lrs, lams = (1e-3, 1e-4, 3e-4), {"rmtllmf": (0.5, 0.1, 0.02)}
    found = grid_ends(rows, lrs, lams)
    assert list(found[["protection", "scenario", "lam_rule", "setting", "value", "end"]].itertuples(index=False)) == [
        ("rmtllmf", "SR", "chosen", "lr", 3e-4, ""),
        ("rmtllmf", "SR", "given", "lr", 1e-3, "largest"),
        ("rmtllmf", "ideal", "chosen", "lr", 1e-4, "smallest"),
        ("control", "no link", "given", "lr", 1e-4, "smallest"),
        ("rmtllmf", "SR", "chosen", "lam", 0.1, ""),
        ("rmtllmf", "ideal", "chosen", "lam", 0.5, "largest"),
    ]
    assert set(grid_ends(rows, (), lams)["setting"]) == {"lam"}  # rates that were not chosen
    assert grid_ends(rows[3:], (), {}).empty
    with pytest.raises(InputError, match=r"lr is 0\.0003: expected one of \[0\.001, 0\.0001\]"):
        grid_ends(rows, lrs[:2], lams)
    with pytest.raises(InputError, match=r"lam of rmtllmf is 0\.1: expected one of \[\]"):
        grid_ends(rows, lrs, {"control": (0.1,)})
    with pytest.raises(InputError, match="'lr'"):
        grid_ends(rows.drop(columns="lr"), lrs, lams)
