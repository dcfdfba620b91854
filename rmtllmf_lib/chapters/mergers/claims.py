"""What the chapter on mergers finds, each with the rule that judges it: our own claims, none of the paper's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from rmtllmf_lib.chapters.mergers.tables import crossing, leads, noisy
from rmtllmf_lib.chapters.verdicts.claims import Claim, Finding, graded
from rmtllmf_lib.chapters.verdicts.comparisons import all_of
from rmtllmf_lib.chapters.verdicts.evidence import Interval

SPECTRAL = ("tsv", "iso-c", "wudi")  # mergers that work on singular directions


@dataclass(frozen=True, eq=False)
class MergerEvidence:
    """The stored results.

    Attributes
    ----------
    rows : DataFrame
        From `stored_results("mergers_under_noise_suites")`.
    weak, middle, strong : float
        Three of the measured ratios of noise to signal: the paper's worst link at the scale of task vectors, its ideal
        link at the scale of the weights, and its worst one there.
    """

    rows: pd.DataFrame
    weak: float
    middle: float
    strong: float

    def lead(self, name: str, ratio: float, other: str = "arithmetic", correlation: str = "independent") -> Interval:
        """Lead of a merger over another one at a level of the noise, over the suites."""
        here = noisy(self.rows, correlation)
        found = leads(here[np.isclose(here["ratio"], ratio) & here["merger"].isin([name, other])], other).iloc[0]
        return Interval(float(found["mean"]), float(found["half_width"]), int(found["n"]))

    def crossing(self, name: str, correlation: str = "independent") -> tuple[float, float, float, int]:
        """The ratio at which a merger falls behind the sum: geometric mean, its 95 % interval, number of suites.

        A suite in which the two do not cross between the measured levels has no such ratio, and is left out.
        """
        x = crossing(noisy(self.rows, correlation), name)["log_ratio"].dropna()
        half = stats.t.ppf(0.975, len(x) - 1) * x.std() / len(x) ** 0.5 if len(x) > 1 else np.nan
        middle, low, high = (float(np.exp(x.mean() + shift)) for shift in (0.0, -half, half))
        return middle, low, high, len(x)


def without_noise(seen: MergerEvidence) -> Finding:
    """All of the spectral mergers are surely ahead of the sum."""
    gained = {name: seen.lead(name, 0.0) for name in SPECTRAL}
    return graded(all_of(each.above() for each in gained.values()), **_named(gained))


def on_a_link_of_unit_power(seen: MergerEvidence) -> Finding:
    """They still are where the errors are in proportion to the task vectors."""
    gained = {name: seen.lead(name, seen.weak) for name in SPECTRAL}
    return graded(all_of(each.above() for each in gained.values()), **_named(gained))


def strong_noise(seen: MergerEvidence) -> Finding:
    """All of them are surely behind the sum; with a caveat where none is surely ahead."""
    gained = {name: seen.lead(name, seen.strong) for name in SPECTRAL}
    ahead = any(each.above() for each in gained.values())
    return graded(all_of(each.below() for each in gained.values()), not ahead, **_named(gained), ratio=seen.strong)


def robust_means(seen: MergerEvidence) -> Finding:
    """The trimmed mean is surely ahead of the sum under independent noise, at the middle and the strong level."""
    gained = _at_both(seen, "trimmed-mean")
    return graded(all_of(each.above() for each in gained.values()), **gained)


def scaled_with_depth(seen: MergerEvidence) -> Finding:
    """LiNeS of the sum is surely ahead of the sum at both of these levels."""
    gained = _at_both(seen, "arithmetic+lines")
    return graded(all_of(each.above() for each in gained.values()), **gained)


def common_errors(seen: MergerEvidence) -> Finding:
    """TSV is surely ahead of the sum where errors are common to all users, at the weak and the middle level."""
    gained: dict[str, Any] = {"weak": seen.lead("tsv", seen.weak, correlation="common"),
              "middle": seen.lead("tsv", seen.middle, correlation="common")}  # fmt: skip
    return graded(all_of(each.above() for each in gained.values()), **gained)


def _at_both(seen: MergerEvidence, name: str) -> dict[str, Any]:
    return {"middle": seen.lead(name, seen.middle), "strong": seen.lead(name, seen.strong)}


def _named(intervals: dict[str, Interval]) -> dict[str, Any]:
    return {name.replace("-", "_"): each for name, each in intervals.items()}


_THREE = "TSV {tsv.points}, Iso-C {iso_c.points} and WUDI {wudi.points} points over the sum"

CLAIMS = (
    Claim(
        "Spectral mergers, no noise", "beyond", "Mergers of singular directions beat the plain sum without noise.",
        "({numref}`fig-mer-clean`)", without_noise, ours=_THREE,
    ),
    Claim(
        "Spectral mergers, unit power", "beyond",
        "They keep their lead on a link whose errors are in proportion to the task vectors.",
        "({numref}`fig-mer-noise`)", on_a_link_of_unit_power, ours=_THREE,
    ),
    Claim(
        "Spectral mergers, strong noise", "beyond",
        "Noise of hundreds of times the power of a task vector turns their lead into a loss.",
        "({numref}`fig-mer-noise`)", strong_noise, ours=_THREE,
        why={"holds with caveat": "none of them is surely ahead, and not all are surely behind"},
    ),
    Claim(
        "TSV, common errors", "beyond", "Orthogonal directions keep their lead where all users have the same errors.",
        "({numref}`fig-mer-noise`)", common_errors,
        ours="TSV {weak.points} points over the sum under weak noise, {middle.points} under strong",
    ),
    Claim(
        "Robust means, noise", "beyond", "A mean that resists outliers resists Gaussian noise, too.",
        "({numref}`fig-mer-noise`)", robust_means,
        ours="the trimmed mean {middle.points} points over the sum, {strong.points} under strong noise",
        why={"does not hold": "dropping the extremes of a Gaussian drops signal and noise alike"},
    ),
    Claim(
        "Scaled with depth, noise", "beyond", "Weighting late blocks more than early ones helps the sum under noise.",
        "({numref}`fig-mer-noise`)", scaled_with_depth,
        ours="LiNeS {middle.points} points over the sum, {strong.points} under strong noise",
    ),
)  # fmt: skip
