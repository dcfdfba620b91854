"""Ablations: readings of the noise, their comparison with the paper, and paired differences."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from rmtllmf_lib.chapters.ablations.tables import (
    costs,
    distance_to_paper,
    noise_readings,
    reading_table,
)
from rmtllmf_lib.transport.surrogate import CORRELATIONS, SCALES
from vectors import BASE, vector

TAUS = [vector(seed) * 0.1 for seed in (1, 2, 3)]


def table(rows: list[tuple], *columns: str) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(columns))


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
