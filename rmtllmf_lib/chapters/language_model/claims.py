"""What holds for a language model: rules that can come out either way, recorded as the paper's own claims are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rmtllmf_lib.chapters.verdicts.claims import Claim, Finding, UntestableError, graded
from rmtllmf_lib.chapters.verdicts.comparisons import Comparison, all_of
from rmtllmf_lib.chapters.verdicts.evidence import Interval

ANSWER = ("coded-tsv", "coded-tsv-realigned")
MARGIN = 0.01  # what counts as not below: one point
SHARE = 0.95  # of the specialists, that must be reached without a memory


@dataclass(frozen=True)
class LanguageEvidence:
    """Stored results of the public text tasks.

    Attributes
    ----------
    leads : DataFrame
        Of the book's results "language_model": a row for each condition, with leads over the references.
    """

    leads: pd.DataFrame

    def row(self, protection: str | tuple[str, ...], per_class: int, scenario: str = "SR") -> pd.Series:
        """The condition of a protection, or of the one among several that there is, under a link."""
        names = [protection] if isinstance(protection, str) else [*protection]
        rows = self.leads[self.leads["protection"].isin(names) & (self.leads["scenario"] == scenario)]
        rows = rows[rows["per_class"] == per_class]
        if rows.empty:
            raise UntestableError(f"the results have no {names[0]} under {scenario} with {per_class} examples a class")
        return rows.iloc[0]

    def lead(self, protection: str | tuple[str, ...], reference: str, per_class: int) -> Interval:
        """Its lead under SR over a reference, by the name of its columns."""
        row = self.row(protection, per_class)
        if pd.isna(row[f"{reference}_lead"]):
            raise UntestableError(f"the results have no {reference} with {per_class} examples a class")
        return Interval(row[f"{reference}_lead"], row[f"{reference}_half_width"], int(row["n"]))

    def memories(self, reference: str = "control") -> list[int]:
        """Examples a class of the memories that the results have beside a reference, from the smallest."""
        rows = self.leads[(self.leads["per_class"] > 0) & self.leads["protection"].isin(ANSWER)]
        return sorted(set(rows.loc[rows[f"{reference}_lead"].notna(), "per_class"]))


def _above_controls(evidence: LanguageEvidence) -> Finding:
    counts = {name: evidence.memories(name) for name in ("control", "stronger")}
    if not counts["control"]:
        raise UntestableError("the results have no answer with a memory")
    leads = {name: {k: evidence.lead(ANSWER, name, k) for k in found} for name, found in counts.items()}
    over = {name: all_of(each.above() for each in found.values()) for name, found in leads.items() if found}
    numbers: dict[str, Any] = {name: {f"k{k}": each for k, each in found.items()} for name, found in leads.items()}
    listed = {name: _listed(found) or "not computed" for name, found in leads.items()}
    both = all_of(over.values()) if len(over) == len(counts) else Comparison(False, 1.0, over["control"].seeds)
    return graded(both, over["control"], k=_counts(counts["control"]), listed=listed, **numbers)


def _not_below(evidence: LanguageEvidence) -> Finding:
    """Not below by more than `MARGIN`, without a memory and with every one."""
    counts = [0, *evidence.memories("noiseless")]
    leads = {k: evidence.lead(ANSWER, "noiseless", k) for k in counts}
    sure = all_of(each.above(-MARGIN) for each in leads.values())
    below = [each.below() for each in leads.values()]
    caveat = Comparison(not any(below), max(each.p for each in below), min(each.seeds for each in below))
    numbers: dict[str, Any] = {f"k{k}": each for k, each in leads.items()}
    return graded(sure, caveat.sure, sure, k=_counts(counts), listed=_listed(leads), **numbers)


def _without_memory(evidence: LanguageEvidence) -> Finding:
    row = evidence.row("coded-tsv", 0)
    found = Interval(row["mean"], row["half_width"], int(row["n"]))
    sure = found.above(SHARE)
    return graded(sure, found.mean > SHARE, sure, share=found)


def _worth_of_the_link(evidence: LanguageEvidence) -> Finding:
    counts = evidence.memories()
    if not counts:
        raise UntestableError("the results have no R-MTLLMF with a memory")
    leads = {k: evidence.lead("rmtllmf", "control", k) for k in counts}
    every = all_of(each.above() for each in leads.values())
    some = next((each.above() for each in leads.values() if each.above()), every)
    numbers: dict[str, Any] = {f"k{k}": each for k, each in leads.items()}
    return graded(every, some, k=_counts(counts), listed=_listed(leads), **numbers)


def _counts(counts: list[int]) -> str:
    return ", ".join(map(str, counts))


def _listed(leads: dict[int, Interval]) -> str:
    return ", ".join(each.points for each in leads.values())


def _claim(label: str, statement: str, ours: str, measure: Callable[[Any], Finding], where: str) -> Claim:
    return Claim(label, "V", statement, f"({{numref}}`{where}`)", measure, ours=ours)


CLAIMS = (
    _claim(
        "Language: worth of the link",
        "Under attack, R-MTLLMF is above the base realigned, which needs no link.",
        "with {k} examples a class by {listed} points", _worth_of_the_link, "fig-lm-answer",
    ),
    _claim(
        "Language: above both controls",
        "Under attack, the answer is above what the station could do without the link.",
        "with {k} examples a class {listed[control]} points above the base realigned, and {listed[stronger]} above the "
        "station's own specialists", _above_controls, "fig-lm-answer",
    ),
    _claim(
        "Language: as good as no noise",
        "The answer under attack is not below R-MTLLMF with full vectors and no noise at all.",
        "with {k} examples a class it leads by {listed} points", _not_below, "fig-lm-answer",
    ),
    _claim(
        "Language: without a memory",
        "Without any memory the answer under attack keeps 95 % of the specialists' accuracy.",
        "{share}", _without_memory, "fig-lm-links",
    ),
)  # fmt: skip
