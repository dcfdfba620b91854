"""All claims of the paper in its order."""

import re

from rmtllmf_lib.chapters.verdicts import experiments, link, model
from rmtllmf_lib.chapters.verdicts.claims import Claim

SECTIONS = ("II-A", "II-B", "II-C", "III", "IV-1", "IV-2", "IV-3", "V")


def _place(claim: Claim) -> tuple[int, int]:
    """By section; numbered equations first, in their order."""
    number = re.match(r"Eq\. \((\d+)\)", claim.label)
    return SECTIONS.index(claim.section), int(number[1]) if number else 99


CLAIMS: tuple[Claim, ...] = tuple(sorted((*model.CLAIMS, *link.CLAIMS, *experiments.CLAIMS), key=_place))
