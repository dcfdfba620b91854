"""What a claim is, and how a list of them becomes a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from rmtllmf_lib.arrays import one_of
from rmtllmf_lib.chapters.verdicts.comparisons import Comparison
from rmtllmf_lib.chapters.words import markdown
from rmtllmf_lib.recorded import typeset
from rmtllmf_lib.validated import validated

Verdict = Literal["holds", "holds with caveat", "does not hold", "not testable here"]

COLUMNS = ("label", "section", "statement", "paper", "ours", "verdict", "where")
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@validated
class Finding:
    """The verdict of a claim's rule, and the numbers it was drawn from, by their names in the claim's `ours`.

    `rests_on` is the comparison of means over seeds on which the verdict turns, if it turns on one: what is sure, or,
    where nothing is, what would have had to be.
    """

    verdict: Verdict
    numbers: dict[str, Any]
    rests_on: Comparison | None = None


def graded(
    holds: bool | np.bool_ | Comparison,
    caveat: bool | np.bool_ | Comparison = False,
    rests_on: Comparison | None = None,
    **numbers: Any,
) -> Finding:
    """Return the finding of a claim that holds, or else holds with a caveat, or else does not hold.

    Of conditions that are comparisons themselves it rests on the one that gave the verdict, or else on the last.
    """
    compared = [each for each in (holds, caveat) if isinstance(each, Comparison)]
    if rests_on is None and compared:
        rests_on = next((each for each in compared if each), compared[-1])
    return Finding("holds" if holds else "holds with caveat" if caveat else "does not hold", numbers, rests_on)


Measure = Callable[[Any], Finding]


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes
    ----------
    label : str
        Its name in the table, "Eq. (4)".
    section : str
        Section of the paper, "II-A".
    statement : str
        In our words; Markdown with formulas.
    where : str
        Roles of MyST that link to the evidence in the book, such as `numref` with the name of a figure.
    measure : function of the evidence
        Measures, and applies the rule.
    paper : str
        The paper's number; empty where it gives none.
    ours : str
        The sentence with the numbers measured here, a format string for the numbers of a finding.
    why : mapping from verdict to str
        What the sentence goes on with, for the verdicts that need a reason; a format string, too.
    group : str
        For the dozen claims that matter most: the heading under which the first table of verdicts has them.
    """

    label: str
    section: str
    statement: str
    where: str
    measure: Measure
    paper: str = ""
    ours: str = "{ours}"
    why: Mapping[str, str] = field(default_factory=dict)
    group: str = ""


MEASURES: dict[str, Measure] = {}


def measures(label: str) -> Callable[[Measure], Measure]:
    """Return a decorator for the measure of the claim with this label."""

    def register(measure: Measure) -> Measure:
        MEASURES[label] = measure
        return measure

    return register


class UntestableError(Exception):
    """Raised where the evidence lacks what a rule needs; the message says what."""


class NoIntervalError(UntestableError):
    """Raised where a rule needs the interval of a mean over a single seed."""

    def __init__(self) -> None:
        super().__init__("a single seed gives no interval: take two or more")


class _Sentence(Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        return typeset(str(super().format_field(value, format_spec)))


def assess(claims: Sequence[Claim], evidence: Any) -> pd.DataFrame:
    """Measure every claim; one is not testable where the evidence lacks what its rule needs.

    Returns
    -------
    DataFrame with columns label, section, statement, paper, ours, verdict, where, numbers, and rests_on, the
    `Comparison` that the verdict rests on or None; one row per claim, in order
    """
    rows = []
    for claim in claims:
        try:
            found = claim.measure(evidence)
            sentence = "; ".join(filter(None, [claim.ours, claim.why.get(found.verdict)]))
            text = _Sentence().format(sentence, **found.numbers)
            shown = {"verdict": found.verdict, "ours": text, "numbers": found.numbers, "rests_on": found.rests_on}
        except UntestableError as lacking:
            shown = {"verdict": "not testable here", "ours": str(lacking), "numbers": {}, "rests_on": None}
        rows.append(vars(claim) | shown)
    return pd.DataFrame(rows)[[*COLUMNS, "numbers", "rests_on"]]


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """Return the number of claims of each section with each verdict, and in the last row that of all sections."""
    found = pd.crosstab(table["section"], table["verdict"]).reindex(
        index=list(dict.fromkeys(table["section"])), columns=list(VERDICTS), fill_value=0
    )
    found.loc["all"] = found.sum()
    found.index.name = found.columns.name = None
    return found


def markdown_table(table: pd.DataFrame, section: str) -> str:
    """Return the claims of one section as a table of MyST Markdown, whose roles become links in the book.

    Parameters
    ----------
    table : DataFrame
        From `findings.collected`.
    section : str
        Of the paper, such as "II-A".

    Raises
    ------
    InputError
        for a section without claims.
    """
    rows = table[table["section"] == one_of(section, table["section"].unique(), "section")]
    cells = {
        "Claim": [_claim(row) for row in rows.itertuples()],
        "The paper": [row.paper or "–" for row in rows.itertuples()],
        "Here": rows["ours"].tolist(),
        "Verdict": [_verdict(row) for row in rows.itertuples()],
    }
    if not rows["paper"].any():  # an empty column takes room on a phone
        del cells["The paper"]
    return markdown([*cells], zip(*cells.values(), strict=True))


def main_claims(table: pd.DataFrame) -> str:
    """Return the claims that have a group as a table of MyST Markdown, each group under a row with its name."""
    rows = table[table["group"] != ""].sort_values("group", key=lambda each: each.map(_order(each)), kind="stable")
    lines: list[tuple[str, str]] = []
    for group, part in rows.groupby("group", sort=False):  # a column of groups would take a third of a telephone
        lines += [(f"*{group}*", ""), *((_claim(row), _verdict(row)) for row in part.itertuples())]
    return markdown(["Claim", "Verdict"], lines)


def _order(names: Iterable[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(dict.fromkeys(names))}


def _claim(row: Any) -> str:
    return f"**{row.label}** {row.statement}"


def _verdict(row: Any) -> str:
    """Return a verdict with its adjusted p value, the links to its evidence, and that to the code of its rule.

    A comparison that the intervals leave open has none: the verdict follows from its not being sure.
    """
    q = "" if pd.isna(row.q) or not row.sure else ", q < 0.001" if row.q < 0.001 else f", q = {row.q:.2g}"
    return f"**{row.verdict}**{q} {row.where} {{rule}}`{row.label}`"


def as_csv(table: pd.DataFrame) -> str:
    """Return all verdicts, from `findings.collected`, as comma-separated values; `numbers` of each are JSON."""
    numbers = [json.dumps(each, ensure_ascii=False, sort_keys=True) for each in table["numbers"]]
    columns = ["label", "section", "statement", "verdict", "paper", "ours", "numbers", "p", "q", "seeds", "chapter"]
    return str(table.assign(numbers=numbers)[columns].to_csv(index=False, float_format="%.4g", lineterminator="\n"))
