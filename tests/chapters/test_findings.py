"""Findings: measured once, shown as a box, recorded, and collected from the notebooks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from rmtllmf_lib.chapters.findings import collected, measured, record
from rmtllmf_lib.chapters.verdicts.claims import Claim, Finding, assess
from rmtllmf_lib.chapters.verdicts.comparisons import Comparison
from rmtllmf_lib.chapters.verdicts.evidence import Interval, NoIntervalError
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.recorded import FINDING, NUMBERS


def toy(label: str, verdict: Any = "holds") -> Claim:
    def rule(seen: Any) -> Finding:
        return Finding(verdict, {"x": seen, "y": Interval(0.5, 0.02)}, Comparison(True, 0.012345678, 5))

    ours, why = "{x:.1f} nats", {"does not hold": "because {y.points} points"}
    return Claim(label, "I", "Says $x$.", "({numref}`fig-x`)", rule, ours=ours, why=why)


TOYS = (toy("A"), toy("B", "does not hold"))


def outputs(run: Callable[[], None]) -> list[dict[str, Any]]:
    """Return what is displayed, which outside a notebook would be lost."""
    shown: list[dict[str, Any]] = []
    with patch("rmtllmf_lib.chapters.findings.display", lambda data, raw: shown.append(data)):
        run()
    return shown


def test_a_box_and_its_records() -> None:
    (box,) = outputs(lambda: record(2.345678, ["B", "A"], TOYS))
    assert box["text/plain"] == "B: does not hold; 2.3 nats; because 50 ± 2 points\nA: holds; 2.3 nats"
    assert (
        "**B** Says $x$ — **does not hold**: 2.3 nats; because 50 ± 2 points ({numref}`fig-x`)." in box["text/markdown"]
    )
    assert box["text/markdown"].startswith(":::{admonition} Our claim, verdict, evidence\n")
    (first, second) = box[FINDING]
    assert first["label"] == "B" and first["numbers"] == {"x": 2.345678, "y": "50 ± 2"} and second["verdict"] == "holds"
    assert first["rests_on"] == {"sure": True, "p": 0.01235, "seeds": 5}
    json.dumps(box)


def test_the_paper_s_claims_are_not_called_ours() -> None:
    with patch("rmtllmf_lib.chapters.findings.assess", lambda claims, seen: assess(TOYS[:1], 1.0)):
        (box,) = outputs(lambda: record(None, ["Eq. (1)"]))
    assert box["text/markdown"].startswith(":::{admonition} Claim, verdict, evidence\n")


def test_only_known_claims_and_each_once() -> None:
    for labels in (["C"], ["A", "A"], "A"):
        with pytest.raises(InputError, match="claim"):
            record(1.0, labels, TOYS)


def test_a_single_seed_gives_no_verdict() -> None:
    def rule(seen: Any) -> Finding:
        raise NoIntervalError

    claim = Claim("A", "I", "Says.", "", rule)
    (box,) = outputs(lambda: record(None, ["A"], [claim]))
    (found,) = box[FINDING]
    assert found["verdict"] == "not testable here" and "single seed" in box["text/plain"]
    assert found["rests_on"] is None


def test_numbers_by_name() -> None:
    (found,) = outputs(
        lambda: measured(a=1 / 3, b="far better", c=Interval(0.5, 0.02), d={"SU": 2}, e=np.array([1.0, np.nan]))
    )
    assert found == {
        NUMBERS: {"a": 0.3333333333, "b": "far better", "c": "50 ± 2", "d.SU": 2.0, "e.0": 1.0, "e.1": "nan"}
    }


def write(path: Path, *found: Any) -> None:
    cells = [{"cell_type": "code", "source": "", "outputs": [{"data": {FINDING: [*found]}}]}]
    path.write_text(json.dumps({"cells": cells}))


def test_chapters_are_collected(tmp_path: Path) -> None:
    ((a, b),) = (each[FINDING] for each in outputs(lambda: record(1.0, ["A", "B"], TOYS)))
    write(tmp_path / "02_y.ipynb", a)
    with pytest.raises(InputError, match="records B"):
        collected(tmp_path, TOYS)
    write(tmp_path / "01_x.ipynb", b)
    table = collected(tmp_path, TOYS)
    assert table["label"].tolist() == ["A", "B"] and table["chapter"].tolist() == ["02_y", "01_x"]
    write(tmp_path / "03_z.failed.ipynb", b)
    write(tmp_path / ".03_z.ipynb", b)
    assert collected(tmp_path, TOYS)["chapter"].tolist() == ["02_y", "01_x"]
    write(tmp_path / "03_z.ipynb", b)
    with pytest.raises(InputError, match="'B' is recorded by 01_x and 03_z"):
        collected(tmp_path, TOYS)


def test_p_values_are_adjusted_for_those_that_have_one(tmp_path: Path) -> None:
    (box,) = outputs(lambda: record(1.0, ["A", "B"], TOYS))
    a, b = box[FINDING]
    write(tmp_path / "01_x.ipynb", a, b)
    assert collected(tmp_path, TOYS)["q"].tolist() == [0.01235, 0.01235]
    b["rests_on"] = None
    write(tmp_path / "01_x.ipynb", a, b)
    table = collected(tmp_path, TOYS)
    assert table["p"].isna().tolist() == table["q"].isna().tolist() == [False, True]
    assert table["sure"].tolist() == [True, False] and table["seeds"].tolist() == [5, 0]
    del b["rests_on"]  # a finding without its comparison is none without a comparison
    write(tmp_path / "01_x.ipynb", a, b)
    with pytest.raises(InputError, match="01_x.ipynb"):
        collected(tmp_path, TOYS)


def test_the_folder_is_this_one_or_its_notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (box,) = outputs(lambda: record(1.0, ["A", "B"], TOYS))
    (tmp_path / "notebooks").mkdir()
    write(tmp_path / "of_mine.ipynb")
    write(tmp_path / "notebooks" / "01_x.ipynb", *box[FINDING])
    for here in (tmp_path, tmp_path / "notebooks"):
        monkeypatch.chdir(here)
        assert collected(claims=TOYS)["chapter"].tolist() == ["01_x"] * 2


def test_what_is_no_notebook_is_named(tmp_path: Path) -> None:
    (tmp_path / "01_x.ipynb").write_text('{"a": 1}')
    with pytest.raises(InputError, match="01_x.ipynb is not a notebook"):
        collected(tmp_path, TOYS)
