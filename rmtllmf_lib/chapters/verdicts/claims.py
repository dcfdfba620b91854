"""What a claim is, and how a list of them becomes a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from rmtllmf_lib.arrays import one_of
from rmtllmf_lib.recorded import typeset
from rmtllmf_lib.validated import validated

Verdict = Literal["holds", "holds with caveat", "does not hold", "not testable here"]

COLUMNS = ("label", "section", "statement", "paper", "ours", "verdict", "where")
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@validated
class Finding:
    """The verdict of a claim's rule, and the numbers it was drawn from, by their names in the claim's `ours`."""

    verdict: Verdict
    numbers: dict[str, Any]


def graded(holds: bool | np.bool_, caveat: bool | np.bool_ = False, **numbers: Any) -> Finding:
    """Return the finding of a claim that holds, or else holds with a caveat, or else does not hold."""
    return Finding("holds" if holds else "holds with caveat" if caveat else "does not hold", numbers)


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
        Roles that link to the evidence in the book, such as "{numref}`fig-sm-sum-rate`".
    measure : function of the evidence
        Measures, and applies the rule.
    paper : str
        The paper's number; empty where it gives none.
    ours : str
        The sentence with the numbers measured here, a format string for the numbers of a finding.
    why : mapping from verdict to str
        What the sentence goes on with, for the verdicts that need a reason; a format string, too.
    """

    label: str
    section: str
    statement: str
    where: str
    measure: Measure
    paper: str = ""
    ours: str = "{ours}"
    why: Mapping[str, str] = field(default_factory=dict)


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
    DataFrame with columns label, section, statement, paper, ours, verdict, where, numbers; one row per claim, in order
    """
    rows = []
    for claim in claims:
        try:
            found = claim.measure(evidence)
            sentence = "; ".join(filter(None, [claim.ours, claim.why.get(found.verdict)]))
            text = _Sentence().format(sentence, **found.numbers)
            shown = {"verdict": found.verdict, "ours": text, "numbers": found.numbers}
        except UntestableError as lacking:
            shown = {"verdict": "not testable here", "ours": str(lacking), "numbers": {}}
        rows.append(vars(claim) | shown)
    return pd.DataFrame(rows)[[*COLUMNS, "numbers"]]


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

    Raises
    ------
    InputError
        for a section without claims.
    """
    rows = table[table["section"] == one_of(section, table["section"].unique(), "section")]
    cells = {
        "Claim": [f"**{row.label}** {row.statement}" for row in rows.itertuples()],
        "The paper": [row.paper or "–" for row in rows.itertuples()],
        "Here": rows["ours"].tolist(),
        "Verdict": [f"**{row.verdict}** {row.where}" for row in rows.itertuples()],
    }
    if not rows["paper"].any():  # an empty column takes room on a phone
        del cells["The paper"]
    lines = [[*cells], ["---"] * len(cells), *zip(*cells.values(), strict=True)]
    return "\n".join("| " + " | ".join(_cell(each) for each in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Return text that cannot end its cell: bars inside formulas become a command."""
    return text.replace("|", "\\vert ").replace("\n", " ").strip()
