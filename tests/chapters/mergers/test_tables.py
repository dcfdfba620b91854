"""Tables of the chapter on mergers: the list of all, the stored results, and what follows from them."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from places import ROOT
from rmtllmf_lib.chapters.mergers import tables
from rmtllmf_lib.chapters.mergers.claims import CLAIMS, SPECTRAL, MergerEvidence
from rmtllmf_lib.chapters.results import stored_results
from rmtllmf_lib.chapters.verdicts.claims import assess
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.mergers import merger_table
from rmtllmf_lib.study.study import Choice
from rmtllmf_lib.transport.scenario import CLEAN, Scenario
from vectors import vector

COLUMNS = [
    "n_tasks",
    "faulty",
    "scenario",
    "scale",
    "correlation",
    "mse",
    "ratio",
    "merger",
    "seed",
    "lam",
    "normalized",
]
LEVELS = {0.0: 0.0, 0.2: 1e-4, 2.0: 1e-3, 20.0: 1e-2}  # ratio of noise to signal, MSE


def results(lead: dict[str, float], slope: float = 0.0, correlation: str = "independent") -> pd.DataFrame:
    """Rows of five suites, in which each merger is ahead of the sum by its lead, less a slope for each level."""
    jitter = np.array([0.01, -0.01, 0.02, -0.02, 0.0])
    rows = [
        (8, "none", f"{mse:g}", "weight", correlation if mse else "independent", mse, ratio, name, seed, 0.5,
         0.8 - 0.1 * level + 0.05 * jitter[seed] + gained * (1 + jitter[seed]) - slope * level * (name != "arithmetic"))
        for level, (ratio, mse) in enumerate(LEVELS.items())
        for name, gained in {"arithmetic": 0.0, **lead}.items()
        for seed in range(5)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


# --- the list ---------------------------------------------------------------------------------------------------------


def test_every_merger_is_described_and_cited() -> None:
    assert set(tables.described()) == set(merger_table()["merger"])
    library = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    for name, text in tables.described().items():
        assert text["line"] and text["formula"], name
        assert not text["cite"] or f"{{{text['cite']}," in library, name
    lines = tables.all_mergers().splitlines()
    assert len(lines) == 2 + len(merger_table())
    assert all(line.count("|") == 5 for line in lines)  # bars of formulas are written out
    assert not any(r"\\vert" in line for line in lines)  # which would be a line break and a word
    (row,) = [line for line in lines if line.startswith("| `tsv`")]
    assert "85.5, 89.0*" in row and "gargiulo2025tsv" in row
    (row,) = [line for line in lines if line.startswith("| `emr`")]
    assert "the task of each image" in row


def test_published_values_are_shares_of_the_fine_tuned() -> None:
    found = tables.published()
    assert found["arithmetic"] == pytest.approx(0.835, abs=0.001)  # as in `published.CLIP_RESULTS`
    assert "consensus" not in found and found.between(0.7, 1).all()


# --- selections -------------------------------------------------------------------------------------------------------


def test_rows_of_one_correlation_come_with_those_without_noise() -> None:
    rows = pd.concat([results({"tsv": 0.05}), results({"tsv": 0.05}, correlation="common").query("mse > 0")])
    found = tables.noisy(rows, "common")
    assert set(found.loc[found["mse"] > 0, "correlation"]) == {"common"}
    assert set(found["ratio"]) == set(LEVELS) and len(found) == 2 * 5 * 4
    more = pd.concat([rows, rows.assign(faulty="garbage"), rows.assign(n_tasks=2)])
    assert len(tables.noisy(more, "common")) == len(found)


def test_conditions_are_those_of_the_rows() -> None:
    rows = results({"tsv": 0.05}).query("seed == 0 and ratio < 1")
    scenarios, chosen = tables.conditions(rows)
    noise = Scenario("0.0001", 1e-4, "weight", "independent")
    assert scenarios == (CLEAN, noise)
    assert chosen == {
        (link, f"merge-{name}", 0): Choice({8: 0.5}) for link in scenarios for name in ("arithmetic", "tsv")
    }


def test_scores_beside_stored_ones() -> None:
    found = pd.DataFrame({"scenario": ["0"] * 4, "protection": ["merge-tsv"] * 2 + ["merge-arithmetic"] * 2,
                          "normalized": [0.5, 0.7, 0.1, 0.3]})  # fmt: skip
    rows = results({"tsv": 0.05}).query("seed == 0 and ratio == 0")
    beside = tables.same_as_stored(found, rows).set_index("merger")
    assert_allclose(beside.loc[["tsv", "arithmetic"], "here"], [0.6, 0.2])
    assert_allclose(beside["stored"], rows.set_index("merger")["normalized"].reindex(beside.index))


# --- what follows -----------------------------------------------------------------------------------------------------


def test_leads_are_paired() -> None:
    found = tables.leads(results({"tsv": 0.05, "wudi": -0.02}))
    tsv = found[found["merger"] == "tsv"]
    assert_allclose(tsv["mean"], 0.05)
    assert (tsv["half_width"] < 0.002).all() and set(tsv["n"]) == {5}
    assert set(found["merger"]) == {"tsv", "wudi"}


def test_a_crossing_is_where_the_difference_is_zero() -> None:
    rows = results({"tsv": 0.07}, slope=0.03)
    found = tables.crossing(rows, "tsv")
    assert len(found) == 5
    last = found.set_index("seed").loc[4, "log_ratio"]  # ahead by .01 at 2 times the signal, by -.02 at 20 times
    assert last == pytest.approx(np.log(2) + np.log(20 / 2) / 3)
    assert tables.crossing(results({"tsv": 0.1}), "tsv")["log_ratio"].isna().all()


def test_the_best_and_those_level_with_it() -> None:
    rows = pd.DataFrame(
        [
            (8, "none", 1e-4, "common", 0.2, "tsv", 0.9, 0.01, 0.0, 0.0),
            (8, "none", 1e-4, "common", 0.2, "wudi", 0.89, 0.01, 0.01, 0.02),
            (8, "none", 1e-4, "common", 0.2, "arithmetic", 0.8, 0.01, 0.1, 0.02),
            (8, "none", 0.0, "independent", 0.0, "arithmetic", 0.85, 0.01, 0.0, 0.0),
        ],
        columns=["n_tasks", "faulty", "mse", "correlation", "ratio", "merger", "mean", "half_width", "behind",
                 "behind_width"],
    )  # fmt: skip
    found = tables.best_at(rows, ["common", "half"])
    assert found.to_numpy().tolist() == [
        ["none", "0", "sum", "85 ± 1", "none", "0 ± 0"], ["common", "0.2", "TSV", "90 ± 1", "WUDI", "10 ± 2"],
    ]  # fmt: skip


def test_faults_as_a_table() -> None:
    clean = results({"median": 0.0}).query("ratio == 0")
    hit = clean.assign(normalized=clean["normalized"] - 0.7 * (clean["merger"] == "arithmetic"))
    rows = pd.concat([clean.assign(faulty="nothing"), hit.assign(faulty="hundredfold")])
    found = tables.under_faults(rows, ["nothing", "hundredfold"])
    assert list(found.index) == ["median", "sum"]
    assert found.loc["sum", "hundredfold"].startswith("10")
    losses = tables.fault_losses(rows)
    assert_allclose(losses.loc[["arithmetic", "median"], "hundredfold"], [70, 0], atol=1e-9)
    with pytest.raises(InputError, match="fault"):
        tables.under_faults(rows, ["sabotage"])


@pytest.mark.parametrize("seconds, merged", [(1.0, 3), (6.0, 1)])
def test_what_takes_long_is_timed_once(seconds: float, merged: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = iter(np.arange(0.0, 60.0, seconds).tolist()), []
    monkeypatch.setattr(tables, "time", SimpleNamespace(process_time=lambda: next(clock)))
    monkeypatch.setattr(tables, "merge", lambda name, *_, **__: calls.append(name))
    found = tables.costs([vector(1)], ["tsv"])
    assert calls == ["tsv"] * merged and found["milliseconds"].item() == 1000 * seconds


def test_costs_and_distances() -> None:
    found = tables.costs([vector(1), vector(2)], ["arithmetic", "tsv"], repeats=1)
    assert list(found["merger"]) == ["arithmetic", "tsv"] and found.loc[0, "ratio"] == 1
    assert (found["milliseconds"] > 0).all()
    assert tables.apart(vector(1), vector(1)) == {"entries": 0.0, "cosine": pytest.approx(1.0)}
    apart = tables.apart(vector(1), -1.0 * vector(1))
    assert apart["entries"] == 1.0 and apart["cosine"] == pytest.approx(-1.0)


# --- claims -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lead, slope, verdicts",
    [
        (0.05, 0.0, ["holds", "holds", "does not hold"]),
        (0.05, 0.03, ["holds", "holds", "holds"]),
        (0.05, 0.06, ["holds", "does not hold", "holds"]),
        (-0.05, 0.0, ["does not hold", "does not hold", "holds"]),
        (0.0, 0.0, ["does not hold", "does not hold", "holds with caveat"]),
    ],
)
def test_claims_can_come_out_either_way(lead: float, slope: float, verdicts: list[str]) -> None:
    names = dict.fromkeys((*SPECTRAL, "trimmed-mean", "arithmetic+lines"), lead)
    rows = pd.concat([results(names, slope), results(names, slope, "common").query("mse > 0")])
    found = assess(CLAIMS, MergerEvidence(rows, weak=0.2, middle=2.0, strong=20.0))
    assert list(found["verdict"][:3]) == verdicts
    ahead = "holds" if verdicts[1] == "holds" and verdicts[2] == "does not hold" else "does not hold"
    assert list(found["verdict"][3:]) == [ahead, verdicts[1] if slope < 0.03 else "does not hold", ahead]
    assert found["ours"].str.len().gt(20).all()


def test_crossings_over_the_suites() -> None:
    seen = MergerEvidence(results({"tsv": 0.1}, slope=0.04), weak=0.2, middle=2.0, strong=20.0)
    middle, low, high, count = seen.crossing("tsv")
    assert 2 < low < middle < high < 20 and count == 5
    assert seen.lead("tsv", 2.0).mean == pytest.approx(0.02)


# --- the stored results -----------------------------------------------------------------------------------------------


def test_the_stored_results_fit_together() -> None:
    rows, summary = (stored_results(f"mergers_under_noise{part}") for part in ("_suites", ""))
    condition = ["n_tasks", "faulty", "scenario", "correlation", "merger"]
    assert not summary.duplicated(condition).any() and not rows.duplicated([*condition, "seed"]).any()
    means = rows.groupby(condition)["normalized"].mean()
    assert_allclose(summary.set_index(condition)["mean"], means.reindex(summary.set_index(condition).index), atol=2e-5)
    assert (rows.groupby(condition)["lam"].nunique() == 1).all()  # one lambda for all suites
    assert set(summary["n"]) == {rows["seed"].nunique()} == {5}
    assert tables.images_behind() > 0
