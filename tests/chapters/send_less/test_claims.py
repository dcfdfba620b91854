"""Rules of what the answer is claimed to do: each verdict has an input."""

import pandas as pd
import pytest

from rmtllmf_lib.chapters.send_less.claims import CLAIMS, OTHER_DIFFICULTIES, AnswerEvidence, DifficultyEvidence
from rmtllmf_lib.chapters.verdicts.claims import assess

BY_LABEL = {claim.label: claim for claim in CLAIMS}


def evidence(
    over: dict[str, float], half: float = 0.01, values: tuple[float, float] = (0.86, 0.78), uses: int = 100
) -> AnswerEvidence:
    rows = []
    for count in (0, 1):
        name = "coded-tsv-realigned" if count else "coded-tsv"
        row = {"protection": name, "lam_rule": "chosen", "per_class": count, "n": 5}
        for reference in ("control", "stronger", "noiseless", "noiseless_given"):
            known = count or reference != "stronger"
            row |= {f"{reference}_lead": over.get(reference, 0.1) if known else None, f"{reference}_half_width": half}
        rows.append(row)
    suites = pd.DataFrame(
        [(8, 0, name, "chosen", seed, value + 0.001 * seed, 8 * uses)
         for name, value in zip(("coded-tsv", "unprotected"), values, strict=True) for seed in range(5)],
        columns=["n_tasks", "per_class", "protection", "lam_rule", "seed", "normalized", "uses"],
    )  # fmt: skip
    return AnswerEvidence(pd.DataFrame(rows), suites, 110)


def verdict(label: str, found: AnswerEvidence) -> str:
    return str(assess([BY_LABEL[label]], found)["verdict"].iloc[0])


def test_above_both_controls() -> None:
    assert verdict("Above both controls", evidence({})) == "holds"
    assert verdict("Above both controls", evidence({"stronger": 0.005})) == "holds with caveat"
    assert verdict("Above both controls", evidence({"control": 0.005})) == "does not hold"
    few = evidence({})
    assert verdict("Above both controls", AnswerEvidence(few.leads[:1], few.suites, 110)) != "holds"


def test_as_good_as_no_noise() -> None:
    label = "As good as no noise"
    assert verdict(label, evidence({"noiseless": 0.02})) == "holds"
    assert verdict(label, evidence({"noiseless": 0.005})) == "holds"
    assert verdict(label, evidence({"noiseless_given": -0.005})) == "holds with caveat"
    assert verdict(label, evidence({"noiseless": -0.02})) == "does not hold"
    wider = evidence({"noiseless": 0.0, "noiseless_given": 0.005}, half=0.009)
    wider.leads["noiseless_given_half_width"] = 0.02  # the larger mean, and the interval that reaches too low
    assert verdict(label, wider) == "holds with caveat"


def test_without_a_memory() -> None:
    assert verdict("Without a memory", evidence({})) == "holds"
    assert verdict("Without a memory", evidence({}, uses=120)) == "holds with caveat"
    assert verdict("Without a memory", evidence({}, values=(0.70, 0.78))) == "does not hold"
    other = evidence({})
    lacking = AnswerEvidence(other.leads, other.suites[other.suites["protection"] == "coded-tsv"], 110)
    assert verdict("Without a memory", lacking) == "not testable here"


def at_others(**found: AnswerEvidence) -> pd.Series:
    return assess(OTHER_DIFFICULTIES, DifficultyEvidence(found)).iloc[0]


def test_at_other_difficulties() -> None:
    good, level, below = evidence({}), evidence({"noiseless": -0.005}), evidence({"control": 0.005})
    assert at_others(easy=good, hard=evidence({"noiseless": 0.005}))["verdict"] == "holds"
    assert at_others(easy=good, hard=level)["verdict"] == "holds with caveat"
    assert at_others(easy=good, hard=evidence({"noiseless_given": -0.005}))["verdict"] == "holds with caveat"
    assert at_others(easy=below, hard=good)["verdict"] == "does not hold"
    assert at_others(easy=good, hard=evidence({"noiseless": -0.3}))["verdict"] == "does not hold"
    assert at_others()["verdict"] == "not testable here"
    ours = at_others(easy=good, hard=evidence({"control": 0.2, "noiseless": 0.03}))["ours"]
    assert "with 0, 1 images per class it leads the base by easy 10 ± 1, 10 ± 1; hard 20 ± 1, 20 ± 1 points" in ours
    assert "by easy 10 ± 1, 10 ± 1; hard 3 ± 1, 3 ± 1" in ours


def test_sentences_name_what_was_measured() -> None:
    rows = assess(CLAIMS, evidence({"control": 0.12})).set_index("label")
    assert "1 images per class 12 ± 1 points" in rows.loc["Above both controls", "ours"]
    assert rows.loc["Without a memory", "ours"].startswith("110 % of it, in 91 %")
    assert rows["rests_on"].map(lambda each: each.seeds).eq(5).all()
    assert pytest.approx(0.0, abs=1e-3) == rows.loc["As good as no noise", "rests_on"].p
