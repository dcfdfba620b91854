"""What a claim is, and how a list of them becomes a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pandas as pd

from rmtllmf_lib.errors import InputError

Verdict = Literal["holds", "holds with caveat", "does not hold", "not testable here"]

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True)
class Finding:
    """What was measured, in words with numbers, and the verdict that the claim's rule draws from it."""

    verdict: Verdict
    ours: str

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise InputError(f"the verdict is {self.verdict!r}: expected one of {', '.join(VERDICTS)}")


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes
    ----------
    label : str
        What the table calls it, "Eq. (4)".
    section : str
        Of the paper, "II-A".
    statement : str
        In our words; Markdown with formulas.
    paper : str
        The paper's figure; empty where it gives none.
    where : str
        Roles that lead to the evidence in the book, such as "{numref}`fig-sm-sum-rate`".
    measure : function of the evidence
        Measures, and applies the rule.
    """

    label: str
    section: str
    statement: str
    paper: str
    where: str
    measure: Callable[[Any], Finding]


class NoIntervalError(Exception):
    """A rule asked how sure a mean is, and there is a single seed."""


def assess(claims: Sequence[Claim], evidence: Any) -> pd.DataFrame:
    """Measure every claim; one whose rule takes an interval that a single seed does not give is not testable.

    Returns
    -------
    DataFrame with columns label, section, statement, paper, ours, verdict, where; one row per claim, in their order
    """
    rows = []
    for claim in claims:
        try:
            found = claim.measure(evidence)
        except NoIntervalError:
            found = Finding("not testable here", "a single seed gives no interval: take two or more")
        rows.append(
            (claim.label, claim.section, claim.statement, claim.paper, found.ours, found.verdict, claim.where)
        )  # fmt: skip
    return pd.DataFrame(rows, columns=["label", "section", "statement", "paper", "ours", "verdict", "where"])


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """How many claims of each section have each verdict, with a last row for all; a column for every verdict."""
    found = pd.crosstab(table["section"], table["verdict"]).reindex(
        index=list(dict.fromkeys(table["section"])), columns=list(VERDICTS), fill_value=0
    )
    found.loc["all"] = found.sum()
    found.index.name = found.columns.name = None
    return found


def markdown_table(table: pd.DataFrame, section: str) -> str:
    """The claims of one section as a table of MyST Markdown, whose roles become links in the book.

    Raises
    ------
    InputError
        for a section without claims.
    """
    rows = table[table["section"] == section]
    if rows.empty:
        known = ", ".join(dict.fromkeys(table["section"]))
        raise InputError(f"section {section!r} has no claims: expected one of {known}")
    cells = {
        "Claim": [f"**{row.label}** {row.statement}" for row in rows.itertuples()],
        "The paper": [row.paper or "–" for row in rows.itertuples()],
        "Here": rows["ours"].tolist(),
        "Verdict": [f"**{row.verdict}** {row.where}" for row in rows.itertuples()],
    }
    if not rows["paper"].any():  # a column of nothing takes room on a phone
        del cells["The paper"]
    lines = [[*cells], ["---"] * len(cells), *zip(*cells.values(), strict=True)]
    return "\n".join("| " + " | ".join(_cell(each) for each in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Text that cannot end its cell: bars inside formulas are written as a command."""
    return text.replace("|", "\\vert ").replace("\n", " ").strip()
