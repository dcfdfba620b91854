"""Ablations: readings of the noise, their comparison with the paper, and paired differences."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from rmtllmf_lib.chapters.ablations.tables import (
    chosen_before,
    costs,
    distance_to_paper,
    link_choices,
    noise_readings,
    over_control,
    reading_table,
    require_memories,
    who_is_ahead,
)
from rmtllmf_lib.chapters.results import made, stored_results
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.study.study import Choice
from rmtllmf_lib.study.suites import CONDITION, leads
from rmtllmf_lib.transport.scenario import Scenario
from rmtllmf_lib.transport.surrogate import CORRELATIONS, SCALES
from vectors import BASE, vector

TAUS = [vector(seed) * 0.1 for seed in (1, 2, 3)]


def table(rows: list[tuple], *columns: str) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(columns))


@pytest.mark.parametrize(
    ("clean", "attacked", "message"),
    [
        ([1, 10], [1], r"per_class_attacked is \[1\]: expected 1 and 10 among"),
        ([1, 5], [1, 10], r"per_class is \[1, 5\]: expected 1 and 10 among"),
        ([10, 20], [1, 10], "expected 1 and 10 among"),
        ([10, 1], [1, 10], "larger than the one before"),
        ([1, 10, 10], [1, 10], "larger than the one before"),
    ],
)
def test_sizes_of_the_memory_that_the_claims_need(clean: list[int], attacked: list[int], message: str) -> None:
    require_memories([1, 10], [10, 1])
    with pytest.raises(InputError, match=message):
        require_memories(clean, attacked)


# --- readings ---------------------------------------------------------------------------------------------------------


def test_every_reading_of_every_link() -> None:
    found = noise_readings()
    assert len({reading.name for reading in found}) == len(found) == 3 * len(SCALES) * len(CORRELATIONS)
    assert {(reading.scale, reading.correlation) for reading in found} == {(s, c) for s in SCALES for c in CORRELATIONS}
    by_name = {reading.name: reading for reading in found}
    assert by_name["weight, half, SR"].mse == 0.21
    assert by_name["snr, common, ideal"].mse == pytest.approx(10**1.62)  # -16.2 dB
    assert [reading.name for reading in noise_readings(["unit"], ["half"])] == [
        f"unit, half, {link}" for link in ("ideal", "SU", "SR")
    ]


def test_readings_beside_the_paper() -> None:
    scenarios = noise_readings(["task", "snr"], ["half"])
    rows = [
        (each.name, protection, seed, 0.5 + 0.1 * seed)
        for each in scenarios
        for protection in ("unprotected", "rmtllmf")
        for seed in (0, 1)
    ]
    found = reading_table(table(rows, "scenario", "protection", "seed", "normalized"), scenarios, TAUS, BASE)
    assert len(found) == 12
    assert_allclose(found["mean"], 0.55)
    assert set(found["n"]) == {2}
    plain = found[(found["scale"] == "task") & (found["protection"] == "unprotected")].set_index("link")
    assert_allclose(plain.loc[["ideal", "SU", "SR"], "paper"], [0.363, 0.05, 0.05])
    assert_allclose(plain.loc[["ideal", "SU", "SR"], "noise_to_signal"], [0.013, 0.16, 0.21])
    protected = found[(found["scale"] == "snr") & (found["protection"] == "rmtllmf")].set_index("link")
    assert_allclose(protected.loc[["ideal", "SU", "SR"], "paper"], [0.891, 0.533, 0.548])


def test_the_nearest_reading_comes_first() -> None:
    rows = table(
        [("task", "half", 0.9, 0.1), ("task", "half", 0.1, 0.5), ("snr", "half", 0.2, 0.1), ("snr", "half", 0.5, 0.5)],
        "scale", "correlation", "mean", "paper",
    )  # fmt: skip
    found = distance_to_paper(rows)
    assert list(found["scale"]) == ["snr", "task"]
    assert_allclose(found["distance"], [np.sqrt(0.01 / 2), np.sqrt((0.64 + 0.16) / 2)])


# --- costs ------------------------------------------------------------------------------------------------------------


def test_costs_count_a_model_once() -> None:
    rows = [
        ("s", name, 5, seed, "a+b", 1e-3, steps, task, 10, 100, seconds)
        for name, steps in (("freeze", 0), ("rmtllmf", 60))
        for seed, seconds in ((0, 1.0), (1, 2.0), (2, 9.0))
        for task in ("a", "b")
    ]
    columns = "scenario protection per_class seed combination lr steps task samples bytes seconds"
    found = costs(table(rows, *columns.split())).set_index("protection")
    assert found.loc["rmtllmf"].to_dict() == {
        "per_class": 5, "samples": 10, "steps": 60, "bytes": 100, "seconds": 1.0
    }  # fmt: skip
    assert found.loc["freeze", "steps"] == 0


# --- what the link is worth -------------------------------------------------------------------------------------------


def leads_table() -> pd.DataFrame:
    rows = [
        ("rmtllmf", "clean", 0.06, 0.02), ("rmtllmf", "ideal", 0.01, 0.02), ("rmtllmf", "SR", -0.05, 0.01),
    ]  # fmt: skip
    return table(rows, "protection", "scenario", "control_lead", "control_half_width").assign(mean=0.9, half_width=0.5)


def test_leads_as_a_table_of_gap() -> None:
    found = over_control(leads_table(), "control")
    assert_allclose(found["mean"], [0.06, 0.01, -0.05])
    assert_allclose(found["half_width"], [0.02, 0.02, 0.01])
    assert who_is_ahead(found) == {"ahead": "no noise", "neither": "ideal", "behind": "SR"}
    assert who_is_ahead(found[:1]) == {"ahead": "no noise", "neither": "none", "behind": "none"}
    assert who_is_ahead(found.assign(scenario="SR, independent")[-1:])["behind"] == "SR (independent errors)"


def test_settings_are_read_back() -> None:
    rows = table(
        [
            ("rmtllmf", "SR", 10, 8, 0.02, 3e-4), ("rmtllmf", "SR", 10, 2, 0.1, 3e-4),
            ("rmtllmf", "ideal", 10, 8, 0.2, 1e-3), ("control", "no link", 10, 8, 0.0, 1e-4),
        ],
        "protection", "scenario", "per_class", "n_tasks", "lam", "lr",
    )  # fmt: skip
    link = Scenario("SR", 0.21, "weight", "half")
    assert chosen_before(rows, [link]) == {
        (link, "rmtllmf", 10): Choice({8: 0.02, 2: 0.1}, 3e-4),
        (None, "control", 10): Choice({8: 0.0}, 1e-4),
    }


def test_the_stored_summary_is_that_of_the_stored_suites() -> None:
    """Both files of the book's results: every condition has a row, and means, intervals and leads agree."""
    summary, rows = (stored_results(f"when_the_link_helps{part}") for part in ("", "_suites"))
    columns = [*CONDITION]
    assert not summary.duplicated(["difficulty", *columns]).any()
    assert not rows.duplicated(["difficulty", *columns, "seed"]).any()
    for difficulty, part in rows.groupby("difficulty"):
        found = leads(part).sort_values(columns, ignore_index=True)
        stored = summary[summary["difficulty"] == difficulty].drop(columns="difficulty")
        stored = stored.sort_values(columns, ignore_index=True)
        pd.testing.assert_frame_equal(found, stored, check_dtype=False, rtol=1e-3, atol=2e-5)
        # one setting for all suites, but for the protection that chooses on its memory
        fixed = part[part["protection"] != "noise-aware"]
        assert (fixed.groupby(columns)[["lam", "lr"]].nunique() <= 1).all(axis=None)
        assert set(found.loc[found["n"] > 1, "n"]) == {part["seed"].nunique()}
    assert summary["mean"].between(0, 1.1).all()
    controls = summary.groupby(["difficulty", "n_tasks", "per_class"])["protection"].agg(set)
    assert all({"rmtllmf", "control", "few-shot-specialists"} <= found for found in controls)


def test_stored_choices_lie_in_the_grids_of_every_study() -> None:
    studies = [study for cell in made("when_the_link_helps")["cells"] for study in cell["studies"]]
    assert all(study["lr_grid"] == studies[0]["lr_grid"] for study in studies)
    assert all(study["lam_grid"] == studies[0]["lam_grid"] for study in studies)
    found, rows = link_choices(), stored_results("when_the_link_helps")
    assert len(found) == rows["lr"].notna().sum() + rows["lam_rule"].eq("chosen").sum()
    largest = found[found["setting"].eq("lr") & found["end"].eq("largest")]
    assert len(largest) == (rows["lr"] == max(studies[0]["lr_grid"])).sum()
