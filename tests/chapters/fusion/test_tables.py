"""Scenarios from a drop, and tables of the chapter on fusion, against what is computed by hand."""

import numpy as np
import pandas as pd
import pytest

from rmtllmf_lib.chapters.fusion.tables import (
    CLOSEST,
    against_each,
    beside_paper,
    beside_published,
    closest_drop,
    link_points,
    link_scenarios,
    per_task,
)
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.adversary import attack, jammer_power
from rmtllmf_lib.wireless.channel import Uplink, draw_uplinks
from rmtllmf_lib.wireless.receiver import error_cov, sic_mse

JNR_DB = 9.0


def some_drops() -> Uplink:
    return draw_uplinks(30, np.random.default_rng(1))


def mse(drop: Uplink, kind: str | None) -> float:
    """Mean MSE of a receiver that decodes the strongest user first and knows of no jammer."""
    noise = drop.thermal_cov if kind is None else attack(drop, jammer_power(drop, JNR_DB), kind).noise_cov
    return float(np.trace(error_cov(drop, noise, drop.thermal_cov, CLOSEST.order)).real) / drop.num_users


def distance(drop: Uplink) -> float:
    found = [mse(drop, kind) for kind in (None, "strongest-user", "sum-rate")]
    return float(np.square(np.log(np.array(found) / (0.013, 0.16, 0.21))).sum())


def test_the_closest_drop_is_closer_than_all_others() -> None:
    drops = some_drops()
    found = closest_drop(drops, JNR_DB)
    distances = [distance(drops[place]) for place in range(30)]
    np.testing.assert_array_equal(found.H, drops[int(np.argmin(distances))].H)
    assert distance(found) == pytest.approx(min(distances), rel=1e-9)
    assert np.ptp(distances) > 0.5  # it does matter which one


def test_there_must_be_drops_to_choose_from() -> None:
    with pytest.raises(InputError, match="batch shape"):
        closest_drop(some_drops()[0], JNR_DB)


def test_scenarios_of_a_drop() -> None:
    drop = some_drops()[3]
    found = {each.name: each for each in link_scenarios(drop, JNR_DB)}
    assert [*found] == ["link, ideal", "link, SU known", "link, SU unknown", "link, SR known", "link, SR unknown"]
    assert {(each.scale, each.correlation) for each in found.values()} == {("weight", "half")}
    for name, kind in (("ideal", None), ("SU unknown", "strongest-user"), ("SR unknown", "sum-rate")):
        assert found[f"link, {name}"].mean_mse == pytest.approx(mse(drop, kind), rel=1e-9)
    # a receiver that knows the covariance has the MSEs of Eq. (5)
    noise = attack(drop, jammer_power(drop, JNR_DB), "sum-rate").noise_cov
    np.testing.assert_allclose(found["link, SR known"].mse, sic_mse(drop, noise, CLOSEST.order), rtol=1e-9)
    for name in ("SU", "SR"):
        assert found[f"link, {name} known"].mean_mse < found[f"link, {name} unknown"].mean_mse


def test_another_scale_is_part_of_the_name() -> None:
    found = link_scenarios(some_drops()[3], JNR_DB, scale="task", correlation="independent")
    assert {each.name.split(",")[0] for each in found} == {"task"}
    assert {(each.scale, each.correlation) for each in found} == {("task", "independent")}


def study_rows(seeds: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    conditions = [("clean", "unprotected"), ("no link", "control")]
    conditions += [(name, how) for name in ("ideal", "SU", "SR") for how in ("unprotected", "rmtllmf")]
    rows = [
        (scenario, "weight", how, seed, n, task, rng.uniform(0.1, 0.9))
        for scenario, how in conditions
        for seed in range(seeds)
        for n in (2, 8)
        for task in "ab"
    ]
    columns = ["scenario", "scale", "protection", "seed", "n_tasks", "task", "normalized"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(accuracy=table["normalized"] / 2)


def test_numbers_stand_beside_the_papers() -> None:
    table = study_rows()
    found = beside_paper(table, ["unprotected", "rmtllmf", "control"])
    columns = ["unprotected", "R-MTLLMF", "base, realigned", "paper, unprotected", "paper, R-MTLLMF"]
    assert [*found.columns] == columns and [*found.index] == ["ideal", "SU", "SR"]
    assert found["paper, unprotected"].tolist() == ["36.3", "4–6", "4–6"]
    assert found["paper, R-MTLLMF"].tolist() == ["89.1", "53.3", "54.8"]
    assert found["base, realigned"].nunique() == 1  # the control knows no scenario
    own = table[(table["scenario"] == "SU") & (table["protection"] == "rmtllmf") & (table["n_tasks"] == 8)]
    assert found.loc["SU", "R-MTLLMF"].startswith(f"{100 * own['normalized'].mean():.0f} ± ")
    assert "±" not in beside_paper(study_rows(1), ["unprotected"]).loc["SR", "unprotected"]


def test_one_condition_against_each_link() -> None:
    table = study_rows()
    gaps = against_each(table, {"protection": "control"}, "rmtllmf")
    assert gaps["scenario"].tolist() == ["ideal", "SU", "SR"]
    means = table.groupby(["scenario", "protection"])["normalized"].mean()
    for row in gaps.itertuples():
        assert row.mean == pytest.approx(means["no link", "control"] - means[row.scenario, "rmtllmf"])


def test_accuracy_per_task() -> None:
    table = study_rows()
    found = per_task(table, {"clean": ("clean", "unprotected"), "guard": ("SR", "rmtllmf")})
    assert [*found.index] == ["clean", "guard"] and [*found.columns] == ["a", "b"]
    own = table[(table["scenario"] == "SR") & (table["protection"] == "rmtllmf") & (table["task"] == "b")]
    assert found.loc["guard", "b"] == pytest.approx(own["accuracy"].mean())


def test_points_of_the_links() -> None:
    table = study_rows().query("scenario in ['SU', 'SR'] and protection == 'unprotected'")
    other = table.assign(scale="task", scenario="task, " + table["scenario"])
    points = link_points(pd.concat([table, other])).set_index(["curve", "label"])
    assert set(points.index) == {
        (f"scale {scale}, unprotected", label) for scale in ("weight", "task") for label in ("SU", "SR")
    }
    own = table.loc[table["scenario"] == "SU", "normalized"].mean()
    assert points.loc[("scale task, unprotected", "SU"), "mean"] == pytest.approx(own)


def test_measures_of_difficulty_beside_the_published() -> None:
    names = ["zero_shot", "fine_tuned", "zero_shot_normalized", "fused_normalized"]
    measures = pd.DataFrame({name: [0.4 + k / 10, 0.6 + k / 10] for k, name in enumerate(names)}, index=["a", "b"])
    table = beside_published(measures)
    assert [*table.columns] == ["here", "ViT-B/16", "ViT-B/32"] and [*table.index] == [
        n.replace("_", " ") for n in names
    ]
    assert table.loc["zero shot"].tolist() == ["50 ± 127", "55", "48"]  # Student's t with one degree of freedom
