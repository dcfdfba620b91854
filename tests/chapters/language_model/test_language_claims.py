"""Rules of what holds for a language model: each verdict has an input."""

import math

import pandas as pd

from rmtllmf_lib.chapters.language_model.claims import CLAIMS, LanguageEvidence
from rmtllmf_lib.chapters.verdicts.claims import assess

BY_LABEL = {claim.label: claim for claim in CLAIMS}
WORTH, ABOVE, AS_GOOD, WITHOUT = BY_LABEL


def evidence(
    ours: dict[str, float] | None = None,
    theirs: float = 0.05,
    half: float = 0.01,
    share: float = 0.97,
    n: int = 5,
    strongest: tuple[int, ...] = (1, 10),
) -> LanguageEvidence:
    rows = []
    for count in (0, 1, 10):
        names = ("coded-tsv-realigned", "rmtllmf") if count else ("coded-tsv", "unprotected")
        for name, lead in zip(names, (0.1, theirs), strict=True):
            row = {"scenario": "SR", "protection": name, "per_class": count, "n": n, "mean": share, "half_width": half}
            for reference in ("control", "stronger", "noiseless"):
                known = reference != "stronger" or count in strongest
                value = (ours or {}).get(reference, lead) if "coded" in name else lead
                row |= {f"{reference}_lead": value if known else None, f"{reference}_half_width": half}
            rows.append(row)
    return LanguageEvidence(pd.DataFrame(rows))


def verdict(label: str, found: LanguageEvidence) -> str:
    return str(assess([BY_LABEL[label]], found)["verdict"].iloc[0])


def test_above_both_controls() -> None:
    assert verdict(ABOVE, evidence()) == "holds"
    assert verdict(ABOVE, evidence({"stronger": 0.005})) == "holds with caveat"
    assert verdict(ABOVE, evidence(strongest=())) == "holds with caveat"
    assert verdict(ABOVE, evidence({"control": 0.005})) == "does not hold"
    none = LanguageEvidence(evidence().leads.query("per_class == 0"))
    assert verdict(ABOVE, none) == "not testable here"


def test_as_good_as_no_noise() -> None:
    assert verdict(AS_GOOD, evidence({"noiseless": 0.005})) == "holds"
    assert verdict(AS_GOOD, evidence({"noiseless": -0.005})) == "holds with caveat"
    assert verdict(AS_GOOD, evidence({"noiseless": -0.02})) == "does not hold"


def test_without_a_memory() -> None:
    assert verdict(WITHOUT, evidence()) == "holds"
    assert verdict(WITHOUT, evidence(share=0.955)) == "holds with caveat"
    assert verdict(WITHOUT, evidence(share=0.94)) == "does not hold"


def test_worth_of_the_link() -> None:
    assert verdict(WORTH, evidence()) == "holds"
    assert verdict(WORTH, evidence(theirs=0.005)) == "does not hold"
    some = evidence(theirs=0.005).leads
    one = (some["per_class"] == 10) & (some["protection"] == "rmtllmf")
    assert verdict(WORTH, LanguageEvidence(some.assign(control_lead=some["control_lead"].mask(one, 0.05)))) == (
        "holds with caveat"
    )


def test_one_seed_has_no_interval_and_so_no_verdict() -> None:
    rows = assess(CLAIMS, evidence(half=math.nan, n=1))
    assert set(rows["verdict"]) == {"not testable here"}
    assert all("two or more" in text for text in rows["ours"])


def test_sentences_name_what_was_measured() -> None:
    rows = assess(CLAIMS, evidence({"control": 0.12})).set_index("label")
    assert "1, 10 examples a class 12 ± 1, 12 ± 1 points" in rows.loc[ABOVE, "ours"]
    assert "with 0, 1, 10 examples a class it leads by 10 ± 1" in rows.loc[AS_GOOD, "ours"]
    assert rows.loc[WITHOUT, "ours"] == "97 ± 1 %"
    assert rows["rests_on"].map(lambda each: each.seeds).eq(5).all()
