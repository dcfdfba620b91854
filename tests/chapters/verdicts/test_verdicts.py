"""Verdicts: claims cover the paper, links lead somewhere, and every rule gives another verdict for other numbers."""

import json
import re
from collections.abc import Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from places import ROOT
from rmtllmf_lib.chapters.verdicts.claims import MEASURES, VERDICTS, Claim, Finding, assess, counts, markdown_table
from rmtllmf_lib.chapters.verdicts.evidence import Interval, ModelEvidence
from rmtllmf_lib.chapters.verdicts.registry import CLAIMS
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.published import PAPER_LINKS

BY_LABEL = {claim.label: claim for claim in CLAIMS}


def judged(label: str, seen: ModelEvidence) -> str:
    """Return the verdict on one claim, whose sentence has all its numbers."""
    row = assess([BY_LABEL[label]], seen).iloc[0]
    assert row["ours"]
    return str(row["verdict"])


# --- the list ---------------------------------------------------------------------------------------------------------


def test_every_numbered_formula_and_every_number_is_there() -> None:
    labels = {claim.label for claim in CLAIMS}
    assert len(labels) == len(CLAIMS) and labels == set(MEASURES)
    assert {f"Eq. ({number})" for number in range(1, 16)} | {"(P1)", "(P2)"} <= labels
    figures = " ".join(claim.paper for claim in CLAIMS)
    for number in (
        "91.2", "89.1", "36.3", "53.3", "54.8", "4–6", "9–14", "21–53", "−16.2", "−21.7", "−27.3", ".013", ".16", ".21",
        ".24", ".48–.52", "10",
    ):  # fmt: skip
        assert number in figures
    for link in PAPER_LINKS.values():  # typed here as text: they are the library's numbers
        assert f"{100 * link.rmtllmf:.1f}" in figures and f"{abs(link.snr_db)}" in figures


def test_claims_are_in_the_order_of_the_paper() -> None:
    sections = ["II-A", "II-B", "II-C", "III", "IV-1", "IV-2", "IV-3", "V"]
    assert list(dict.fromkeys(claim.section for claim in CLAIMS)) == sections
    assert [claim.label for claim in CLAIMS][:3] == ["Eq. (1)", "Eq. (2)", "Eq. (3)"]


def test_all_evidence_exists_in_the_book() -> None:
    cells = [cell for path in (ROOT / "notebooks").glob("*.ipynb") for cell in json.loads(path.read_text())["cells"]]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    figures = {cell["metadata"].get("mystnb", {}).get("figure", {}).get("name") for cell in cells}
    known = figures | set(re.findall(r"^\$\$ \((eq-[a-z0-9-]+)\)", text, re.MULTILINE))
    known |= set(re.findall(r":label: (thm-[a-z0-9-]+)", text))
    for claim in CLAIMS:
        roles = re.findall(r"\{(numref|eq|prf:ref)\}`([a-z0-9-]+)`", claim.where)
        assert roles and {label for _, label in roles} <= known, claim.label
        for role, label in roles:
            assert label.startswith({"numref": "fig-", "eq": "eq-", "prf:ref": "thm-"}[role])


# --- tables -----------------------------------------------------------------------------------------------------------


def toy(label: str, section: str, verdict: Any, paper: str = "") -> Claim:
    found = ("({numref}`fig-x`)", lambda seen: Finding(verdict, {"x": seen}))
    return Claim(label, section, "Says $|x|$.", *found, paper, ours="{x:.0f} %")


TOYS = [toy("A", "I", "holds"), toy("B", "II", "does not hold", "5 %"), toy("C", "II", "holds with caveat")]


def test_claims_become_rows() -> None:
    table = assess(TOYS, 7)
    assert table["verdict"].tolist() == ["holds", "does not hold", "holds with caveat"]
    assert table["ours"].tolist() == ["7 %"] * 3 and table["section"].tolist() == ["I", "II", "II"]
    found = counts(table)
    assert [*found.columns] == [*VERDICTS] and [*found.index] == ["I", "II", "all"]
    assert found.loc["all"].tolist() == [1, 1, 1, 0] and found.loc["I"].tolist() == [1, 0, 0, 0]


def test_a_table_in_markdown() -> None:
    table = assess(TOYS, 7)
    lines = markdown_table(table, "II").splitlines()
    assert lines[0] == "| Claim | The paper | Here | Verdict |" and len(lines) == 4
    assert lines[2] == "| **B** Says $\\vert x\\vert $. | 5 % | 7 % | **does not hold** ({numref}`fig-x`) |"
    assert {line.count("|") for line in lines} == {5}
    assert markdown_table(table, "I").splitlines()[0] == "| Claim | Here | Verdict |"  # the paper gives no figure
    with pytest.raises(InputError, match="III"):
        markdown_table(table, "III")


def test_no_other_verdict() -> None:
    with pytest.raises(InputError, match="maybe"):
        Finding("maybe", {})  # type: ignore[arg-type]


# --- accuracies -------------------------------------------------------------------------------------------------------

LINKS = ("ideal", "SU", "SR")
FOUND: Mapping[tuple[str, str, int], float] = {
    ("clean", "unprotected", 0): 0.87, ("no link", "base", 0): 0.68, ("no link", "control", 10): 0.92,
    ("ideal", "unprotected", 0): 0.66, ("SU", "unprotected", 0): 0.12, ("SR", "unprotected", 0): 0.11,
    ("ideal", "rmtllmf", 10): 0.92, ("SU", "rmtllmf", 10): 0.55, ("SR", "rmtllmf", 10): 0.53,
    ("ideal", "rmtllmf", 5): 0.88, ("ideal", "rmtllmf", 20): 0.93,
    ("ideal", "realign", 10): 0.90, ("ideal", "realign", 20): 0.93, ("SR", "realign", 10): 0.35,
    ("ideal", "reload-train-all", 10): 0.915, ("SR", "reload-train-all", 10): 0.44,
    ("SU", "noise-aware", 10): 0.91, ("SR", "noise-aware", 10): 0.91,
    ("ideal", "freeze", 0): 0.76, ("SU", "freeze", 0): 0.14, ("SR", "freeze", 0): 0.12,
    ("task, SR", "unprotected", 0): 0.87, ("independent, SR", "unprotected", 0): 0.34,
    ("link, SU known", "rmtllmf", 10): 0.89, ("link, SU unknown", "rmtllmf", 10): 0.61,
}  # fmt: skip
WITH_TWO = {("ideal", "rmtllmf", 10): 0.92} | {(link, "rmtllmf", 10): 0.8 for link in LINKS[1:]}


def evidence(
    changed: Mapping[tuple[str, str, int], float] | None = None,
    two: float = 0.9,
    seeds: int = 3,
    half_widths: Mapping[tuple[str, str, int], float] | None = None,
) -> ModelEvidence:
    """Results of an invented study: the numbers of `FOUND`, but for those `changed`.

    Over the seeds all vary alike, by .01, so that differences are exact; but for those that have `half_widths`, which
    are those of their differences from others.
    """
    rows, own = [], half_widths or {}
    quantile = 4.302653  # of Student's t with two degrees of freedom; (1, -2, 1) has the standard deviation sqrt 3
    few = {(name, "unprotected", 0): two for name in LINKS} | WITH_TWO
    for n, found in ((8, {**FOUND, **(changed or {})}), (2, few)):
        for (scenario, protection, per_class), mean in found.items():
            steps, samples = (60, 840) if per_class else (0, 0)
            wave = own.get((scenario, protection, per_class), 0.0) / quantile * np.array([1.0, -2.0, 1.0])
            start, end = (scenario, protection, per_class), (mean, 1.0, steps, samples)
            rows += [
                (*start, seed, n, task, mean + 0.01 * (seed - (seeds - 1) / 2) + wave[seed % 3], *end)
                for seed in range(seeds)
                for task in "ab"
            ]
    columns = ["scenario", "protection", "per_class", "seed", "n_tasks", "task", "normalized", "accuracy", "reference"]
    results = pd.DataFrame(rows, columns=[*columns, "steps", "samples"])
    tasks = {name: SimpleNamespace(class_names=("x",) * 10) for name in "ab"}
    suite: Any = SimpleNamespace(tasks=tasks, backbone=SimpleNamespace(name="tiny"))
    levels = {("clean", "unprotected"): 0.16, ("ideal", "unprotected"): 0.37, ("SR", "unprotected"): 0.89}
    levels |= {("ideal", "rmtllmf"): 0.11, ("SR", "rmtllmf"): 0.52}
    errors = [(*key, seed, value + 0.01 * seed) for key, value in levels.items() for seed in range(seeds)]
    return ModelEvidence(suite, results, pd.DataFrame(errors, columns=["scenario", "protection", "seed", "wde"]))


@cache
def unchanged() -> ModelEvidence:
    return evidence()


def verdict(label: str, changed: Mapping[tuple[str, str, int], float] | None = None) -> str:
    return judged(label, evidence(changed) if changed else unchanged())


@pytest.mark.parametrize(
    ("label", "expected", "changed", "other"),
    [
        ("Baseline", "not testable here", {}, "not testable here"),
        ("Unprotected, ideal", "holds with caveat", {("ideal", "unprotected", 0): 0.37}, "holds"),
        ("Unprotected, ideal", "holds with caveat", {("ideal", "unprotected", 0): 0.87}, "does not hold"),
        ("Unprotected, attacked", "holds with caveat", {("SU", "unprotected", 0): 0.3}, "does not hold"),
        ("R-MTLLMF, ideal", "holds", {("ideal", "rmtllmf", 10): 0.7}, "does not hold"),
        ("R-MTLLMF, attacked", "holds", {("SU", "rmtllmf", 10): 0.8}, "holds with caveat"),
        ("R-MTLLMF, attacked", "holds", {("SR", "rmtllmf", 10): 0.9}, "does not hold"),
        ("SU and SR", "holds", {("SR", "rmtllmf", 10): 0.3}, "does not hold"),
        ("SU and SR", "holds", {("SR", "rmtllmf", 10): 0.49}, "does not hold"),
        ("Factor", "holds with caveat", {("SU", "unprotected", 0): 0.05, ("SR", "unprotected", 0): 0.05}, "holds"),
        ("Factor", "holds with caveat", {("SR", "unprotected", 0): 0.6}, "does not hold"),
        ("Limits", "does not hold", {("no link", "control", 10): 0.5}, "holds"),
        ("Limits", "does not hold", {("SR", "noise-aware", 10): 0.6}, "holds"),
        ("Small noise", "holds with caveat", {("task, SR", "unprotected", 0): 0.5}, "holds"),
        ("Number of tasks", "holds", {("SR", "rmtllmf", 10): 0.9}, "does not hold"),
        ("Reloading", "holds with caveat", {("ideal", "freeze", 0): 0.6}, "does not hold"),
        ("Reloading", "holds with caveat", {("SU", "freeze", 0): 0.8, ("SR", "freeze", 0): 0.8}, "holds"),
        ("Reloading alone", "does not hold", {("ideal", "freeze", 0): 0.6}, "holds"),
        ("Realignment alone", "does not hold", {("ideal", "realign", 10): 0.6}, "holds"),
        ("Realignment alone", "does not hold", {("ideal", "realign", 10): 0.3}, "holds with caveat"),
        ("Kept frozen", "holds", {("SR", "reload-train-all", 10): 0.6}, "holds with caveat"),
        ("Kept frozen", "holds", {(x, "reload-train-all", 10): 0.95 for x in ("ideal", "SR")}, "does not hold"),
        ("Kept frozen", "holds", {("ideal", "reload-train-all", 10): 0.92, ("SR", "reload-train-all", 10): 0.53},
         "not testable here"),
        ("Samples", "holds", {("ideal", "rmtllmf", 20): 0.99}, "does not hold"),
        ("Samples, both", "holds", {("ideal", "realign", 20): 0.9}, "does not hold"),
        ("Samples, both", "holds", {("ideal", "realign", 20): 0.91}, "not testable here"),
        ("Without re-training", "holds with caveat", {}, "holds with caveat"),
        ("Resilient aggregation", "does not hold", {("no link", "control", 10): 0.4}, "holds"),
        ("Physical layer", "holds", {("link, SU known", "rmtllmf", 10): 0.6}, "does not hold"),
        ("Less interference", "holds with caveat", {}, "holds with caveat"),
    ],
)  # fmt: skip
def test_rules_follow_the_numbers(label: str, expected: str, changed: Any, other: str) -> None:
    assert verdict(label) == expected
    assert verdict(label, changed=changed) == other


@pytest.mark.parametrize(
    ("label", "condition", "mean", "half_width", "expected"),
    [
        # R-MTLLMF has .92 on the ideal link, and the paper's loss of 21 to 53 % is .19 to .49 of it
        ("Reloading alone", ("ideal", "freeze", 0), 0.76, 0.07, "holds with caveat"),
        ("Reloading alone", ("ideal", "freeze", 0), 0.76, 0.02, "does not hold"),
        ("Reloading alone", ("ideal", "freeze", 0), 0.76, 0.20, "not testable here"),
        ("Reloading alone", ("ideal", "freeze", 0), 0.62, 0.20, "holds"),
        ("Reloading alone", ("ideal", "freeze", 0), 0.62, 0.40, "not testable here"),
        ("SU and SR", ("SR", "rmtllmf", 10), 0.49, 0.02, "does not hold"),
        ("SU and SR", ("SR", "rmtllmf", 10), 0.49, 0.08, "holds with caveat"),
        ("SU and SR", ("SR", "rmtllmf", 10), 0.49, 0.20, "not testable here"),
        ("SU and SR", ("SR", "rmtllmf", 10), 0.54, 0.02, "holds"),
        ("Kept frozen", ("SR", "reload-train-all", 10), 0.44, 0.10, "holds with caveat"),
        ("Kept frozen", ("SR", "reload-train-all", 10), 0.44, 0.08, "holds"),
        ("Samples, both", ("ideal", "realign", 20), 0.93, 0.01, "holds"),
        ("Samples, both", ("ideal", "realign", 20), 0.93, 0.03, "not testable here"),
        ("Samples, both", ("ideal", "realign", 20), 0.90, 0.005, "does not hold"),
        ("Samples, both", ("ideal", "realign", 20), 0.90, 0.02, "not testable here"),
        ("Resilient aggregation", ("ideal", "rmtllmf", 10), 0.94, 0.03, "does not hold"),
        ("Physical layer", ("link, SU known", "rmtllmf", 10), 0.89, 0.20, "holds"),
        ("Physical layer", ("link, SU known", "rmtllmf", 10), 0.89, 0.30, "does not hold"),
    ],
)
def test_rules_look_at_the_ends_of_an_interval(
    label: str, condition: tuple[str, str, int], mean: float, half_width: float, expected: str
) -> None:
    seen = evidence(changed={condition: mean}, half_widths={condition: half_width})
    assert judged(label, seen) == expected


def test_one_seed_proves_nothing() -> None:
    """Without an interval nothing is surely better, or worse: no claim holds, or fails, by one."""
    with_intervals = (
        "Unprotected, ideal", "Unprotected, attacked", "R-MTLLMF, ideal", "R-MTLLMF, attacked", "SU and SR", "Factor",
        "Limits", "Small noise", "Reloading", "Reloading alone", "Realignment alone", "Kept frozen", "Samples",
        "Samples, both", "Resilient aggregation", "Physical layer", "Less interference",
    )  # fmt: skip
    claims = [BY_LABEL[label] for label in with_intervals]
    found = assess(claims, evidence(seeds=1)).set_index("label")["verdict"]
    assert dict(found[found != "not testable here"]) == {}
    assert "not testable here" not in set(assess(claims, evidence(seeds=2))["verdict"])


def test_intervals() -> None:
    found = unchanged().point(scenario="SR", protection="rmtllmf")
    half = 0.01 * 4.302653 / np.sqrt(3)
    assert (found.mean, found.low, found.high) == pytest.approx((0.53, 0.53 - half, 0.53 + half))
    assert str(Interval(0.534, 0.021)) == "53 ± 2 %" and str(Interval(0.5, np.nan)) == "50 %"
    gain = unchanged().gain({"protection": "control"}, {"scenario": "SR", "protection": "rmtllmf"})
    assert gain.mean == pytest.approx(0.39) and gain.half_width == pytest.approx(0, abs=1e-9)  # paired
    assert unchanged().guessing == pytest.approx(0.1) and unchanged().clean == pytest.approx(0.87)


# --- nothing is computed twice ----------------------------------------------------------------------------------------
