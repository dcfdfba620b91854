"""The paper's claims, one by one: what each says, how it is measured here, and the rule from numbers to a verdict."""

import re

from rmtllmf_lib.verdicts import experiments, link, model
from rmtllmf_lib.verdicts.claims import VERDICTS, Claim, Finding, assess, counts, markdown_table
from rmtllmf_lib.verdicts.evidence import Evidence, collect

SECTIONS = ("II-A", "II-B", "II-C", "III", "IV-1", "IV-2", "IV-3", "V")


def _place(claim: Claim) -> tuple[int, int]:
    """By section; numbered equations first, in their order."""
    number = re.match(r"Eq\. \((\d+)\)", claim.label)
    return SECTIONS.index(claim.section), int(number[1]) if number else 99


CLAIMS: tuple[Claim, ...] = tuple(sorted((*model.CLAIMS, *link.CLAIMS, *experiments.CLAIMS), key=_place))

__all__ = [
    "CLAIMS", "SECTIONS", "VERDICTS", "Claim", "Evidence", "Finding", "assess", "collect", "counts", "markdown_table",
]  # fmt: skip
