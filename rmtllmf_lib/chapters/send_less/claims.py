"""What the answer is claimed to do: rules that can come out either way, recorded as the paper's own claims are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rmtllmf_lib.chapters.verdicts.claims import Claim, Finding, UntestableError, graded
from rmtllmf_lib.chapters.verdicts.comparisons import Comparison, all_of
from rmtllmf_lib.chapters.verdicts.evidence import Interval
from rmtllmf_lib.study.compare import gap

ANSWER = ("coded-tsv", "coded-tsv-realigned")
MARGIN = 0.01  # what counts as not below: one point
SHARE = 0.95  # of the noiseless baseline, that must be reached without a memory


@dataclass(frozen=True)
class AnswerEvidence:
    """Stored results of one difficulty and number of tasks.

    Attributes
    ----------
    leads : DataFrame
        Of the book's results "the_answer": a row for each condition, with leads over the references.
    suites : DataFrame
        "the_answer_suites": the values of every suite, with the channel uses of all users.
    full_uses : int
        Channel uses of one whole vector.
    """

    leads: pd.DataFrame
    suites: pd.DataFrame
    full_uses: int

    def lead(self, reference: str, per_class: int) -> Interval:
        """The lead of the answer over a reference, by the name of its columns, lambda chosen on validation images."""
        ours = self.leads["protection"].isin(ANSWER) & (self.leads["lam_rule"] == "chosen")
        rows = self.leads[ours & (self.leads["per_class"] == per_class)]
        if rows.empty or pd.isna(rows[f"{reference}_lead"].iloc[0]):
            raise UntestableError(f"the results have no answer with {per_class} images per class beside {reference}")
        row = rows.iloc[0]
        return Interval(row[f"{reference}_lead"], row[f"{reference}_half_width"], int(row["n"]))

    def over_noiseless(self, per_class: int) -> list[Interval]:
        """The leads over full vectors without noise, with either rule for lambda."""
        return [self.lead(name, per_class) for name in ("noiseless", "noiseless_given")]

    @property
    def memories(self) -> list[int]:
        """Images per class of the memories that the results have, from the smallest."""
        return sorted(set(self.leads["per_class"]))


def _above_controls(evidence: AnswerEvidence) -> Finding:
    counts = [count for count in evidence.memories if count]
    if not counts:
        raise UntestableError("the results have no answer with a memory")
    leads = {name: {count: evidence.lead(name, count) for count in counts} for name in ("control", "stronger")}
    over = {name: all_of(each.above() for each in found.values()) for name, found in leads.items()}
    numbers: dict[str, Any] = {
        name: {f"k{count}": each for count, each in found.items()} for name, found in leads.items()
    }
    listed = {name: _listed(found) for name, found in leads.items()}
    return graded(all_of(over.values()), over["control"], k=_counts(counts), listed=listed, **numbers)


def _not_below(evidence: AnswerEvidence) -> Finding:
    """Not below by more than `MARGIN`, with the better of both rules for the baseline's lambda."""
    counts = evidence.memories
    pairs = {count: evidence.over_noiseless(count) for count in counts}
    leads = {count: _smaller(pair) for count, pair in pairs.items()}
    sure, caveat = _not_below_any(pairs.values())
    numbers = {f"k{count}": each for count, each in leads.items()}
    return graded(sure, caveat.sure, sure, k=_counts(counts), listed=_listed(leads), **numbers)


def _smaller(pair: Sequence[Interval]) -> Interval:
    return min(pair, key=lambda each: each.mean)


def _not_below_any(pairs: Iterable[Sequence[Interval]]) -> tuple[Comparison, Comparison]:
    """Whether no lead is below by `MARGIN`, and whether none is surely below."""
    leads = [each for pair in pairs for each in pair]
    below = [each.below() for each in leads]
    nearly = Comparison(not any(below), max(each.p for each in below), min(each.seeds for each in below))
    return all_of(each.above(-MARGIN) for each in leads), nearly


def _without_memory(evidence: AnswerEvidence) -> Finding:
    rows = evidence.suites[(evidence.suites["per_class"] == 0) & (evidence.suites["lam_rule"] == "chosen")]
    if not {"unprotected", "coded-tsv"} <= set(rows["protection"]):
        raise UntestableError("the results have no answer without a memory")
    scaled = rows.assign(normalized=rows["normalized"].where(rows["protection"] != "unprotected", 0.0))
    level = rows.assign(normalized=SHARE * rows["normalized"]).query("protection == 'unprotected'")
    both = pd.concat([scaled[scaled["protection"] == "coded-tsv"], level])
    over = gap(both, {"protection": "coded-tsv"}, {"protection": "unprotected"}).iloc[0]
    above = Interval(over["mean"], over["half_width"], int(over["n"])).above()
    means = rows.groupby("protection")["normalized"].mean()
    users = rows["n_tasks"].max()
    uses = rows.loc[rows["protection"] == "coded-tsv", "uses"].max() / users
    fits = uses <= evidence.full_uses
    return graded(
        above if fits else False, above, above, share=100 * means["coded-tsv"] / means["unprotected"],
        uses=100 * uses / evidence.full_uses,
    )  # fmt: skip


@dataclass(frozen=True)
class DifficultyEvidence:
    """Stored results at difficulties other than that of the text.

    Attributes
    ----------
    at : dict of difficulty to AnswerEvidence
    """

    at: Mapping[str, AnswerEvidence]


def _same_order(evidence: DifficultyEvidence) -> Finding:
    """Above the base, realigned where there is a memory, and not below no noise by more than `MARGIN`."""
    over = {
        name: {f"k{k}": found.lead("control", k) for k in found.memories} for name, found in evidence.at.items()
    }  # fmt: skip
    if not over:
        raise UntestableError("the results are of one difficulty")
    pairs = {(name, k): found.over_noiseless(k) for name, found in evidence.at.items() for k in found.memories}
    near = {name: {f"k{k}": _smaller(pairs[name, k]) for k in found.memories} for name, found in evidence.at.items()}
    above = all_of(each.above() for leads in over.values() for each in leads.values())
    level, nearly_level = _not_below_any(pairs.values())
    counts = sorted({k for _, k in pairs})
    listed, nearly = ("; ".join(f"{name} {_listed(leads)}" for name, leads in each.items()) for each in (over, near))
    return graded(
        all_of((above, level)), above.sure and nearly_level.sure, above,
        k=_counts(counts), listed=listed, nearly=nearly, over=over, near=near,
    )  # fmt: skip


def _counts(counts: list[int]) -> str:
    return ", ".join(map(str, counts))


def _listed(leads: Mapping[Any, Interval]) -> str:
    return ", ".join(each.points for each in leads.values())


def _claim(label: str, statement: str, ours: str, where: str, measure: Callable[[Any], Finding], **why: str) -> Claim:
    return Claim(label, "V", statement, where, measure, ours=ours, why=why)


CLAIMS = (
    _claim(
        "Above both controls", "Under attack, the answer is above what the station could do without the link.",
        "with {k} images per class {listed[control]} points above the base realigned, and {listed[stronger]} above the "
        "station's own specialists", "({numref}`fig-send-answer`)", _above_controls,
    ),
    _claim(
        "As good as no noise",
        "The answer under attack is not below R-MTLLMF with full vectors and no noise at all.",
        "with {k} images per class it leads by {listed} points, over the better of two rules for $\\lambda$",
        "({numref}`fig-send-answer`)", _not_below,
    ),
    _claim(
        "Without a memory",
        "Without any memory it keeps 95 % of the noiseless fusion, in no more channel uses than a whole vector.",
        "{share:.0f} % of it, in {uses:.0f} % of the uses", "({numref}`fig-send-answer`)", _without_memory,
    ),
)  # fmt: skip

OTHER_DIFFICULTIES = (
    _claim(
        "Easier and harder tasks",
        "At other difficulties, too, the answer under attack is above the base, realigned where there is a memory, and "
        "not below R-MTLLMF with full vectors and no noise.",
        "with {k} images per class it leads the base by {listed} points, and R-MTLLMF without noise, over the better "
        "of two rules for $\\lambda$, by {nearly}", "({numref}`fig-send-difficulty`)", _same_order,
    ),
)  # fmt: skip
