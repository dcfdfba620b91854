"""Tables of the chapter on fusion: accuracies beside the paper's, and noise scenarios from one drop of the uplink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rmtllmf_lib.chapters.tidy import stacked
from rmtllmf_lib.chapters.words import percent
from rmtllmf_lib.chapters.worst_case_noise.paper_link import ATTACKS, Setting, user_mse
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.protection.resilience import PROTECTIONS
from rmtllmf_lib.published import CLIP_RESULTS, PAPER_LINKS
from rmtllmf_lib.study.compare import gap
from rmtllmf_lib.study.intervals import over_seeds
from rmtllmf_lib.study.study import NO_LINK
from rmtllmf_lib.training.calibration import MEASURES
from rmtllmf_lib.transport.scenario import Scenario, from_link
from rmtllmf_lib.wireless.adversary import attacked_cov, jammer_power
from rmtllmf_lib.wireless.channel import Uplink

# The one setting that comes close to the paper's three MSEs on average, see `paper_link.closest_settings`.
CLOSEST = Setting(order="strongest-first", knowledge="unaware")
LINKS = (
    ("ideal", None, True),
    ("SU known", "strongest-user", True),
    ("SU unknown", "strongest-user", False),
    ("SR known", "sum-rate", True),
    ("SR unknown", "sum-rate", False),
)  # name, attack, and whether the receiver knows its covariance


def closest_drop(uplink: Uplink, jnr_db: float) -> Uplink:
    """Return the drop whose three mean MSEs come closest in ratio to the paper's .013, .16 and .21 (Section IV-1).

    The receiver decodes the strongest user first and does not know of the jammer.

    Parameters
    ----------
    uplink : Uplink
        Drops with batch shape (n,), with a noise floor.
    jnr_db : float, dB
        Jammer over noise per antenna.

    Raises
    ------
    InputError
        if there is a single drop.
    """
    if len(uplink.batch_shape) != 1:
        raise InputError(f"uplink has the batch shape {uplink.batch_shape}: expected (n,), some drops to choose from")
    power = jammer_power(uplink, jnr_db)
    distance = np.zeros(uplink.batch_shape)
    for name, kind in ATTACKS.items():
        mse = user_mse(uplink, attacked_cov(uplink, power, kind), CLOSEST).mean(axis=-1)
        distance += np.log(mse / PAPER_LINKS[name].mse) ** 2
    return uplink[int(distance.argmin())]


def link_scenarios(
    uplink: Uplink, jnr_db: float, *, scale: str = "weight", correlation: str = "half"
) -> tuple[Scenario, ...]:
    """Return the scenarios of one drop: no jammer, and the paper's two attacks, known to the receiver or not.

    Parameters
    ----------
    uplink : Uplink
        A single drop.
    jnr_db : float, dB
        Jammer over noise per antenna, the same for both attacks.
    scale, correlation
        How the errors scale and correlate, see `Scenario`.

    Returns
    -------
    tuple of Scenario
        With an MSE for each user, named "link, ideal", "link, SU known", "link, SU unknown", "link, SR known" and
        "link, SR unknown", with the scale in front if it is not "weight".
    """
    power = float(jammer_power(uplink, jnr_db))
    start = "link" if scale == "weight" else f"{scale}, link"
    return tuple(
        from_link(
            f"{start}, {name}", uplink, kind, power if kind else 0.0,
            aware=aware, order=CLOSEST.order, scale=scale, correlation=correlation,
        )
        for name, kind, aware in LINKS
    )  # fmt: skip


def beside_paper(table: pd.DataFrame, protections: Sequence[str]) -> pd.DataFrame:
    """Normalised accuracy of all tasks fused, with its interval over the seeds, beside what the paper reports.

    Parameters
    ----------
    table : DataFrame
        From `run_study`, with scenarios of the names of `PAPER_LINKS`; the largest number of tasks counts.
    protections : sequence of str
        In the order of the columns.

    Returns
    -------
    DataFrame of str, one row per scenario; a column per protection such as "65 ± 3", in %, and the paper's two columns
    """
    largest = table[table["n_tasks"] == table["n_tasks"].max()]
    points = over_seeds(largest, ["scenario", "protection"]).set_index(["scenario", "protection"])
    text = points.apply(lambda row: percent(row["mean"], row["half_width"]), axis=1)
    rows = {}
    for name, paper in PAPER_LINKS.items():
        links = {each: name if PROTECTIONS[each].receives else NO_LINK for each in protections}
        low, high = (f"{100 * value:.3g}" for value in paper.unprotected)
        rows[name] = {PROTECTIONS[each].title: text[link, each] for each, link in links.items()} | {
            "paper, unprotected": low if low == high else f"{low}–{high}",
            "paper, R-MTLLMF": f"{100 * paper.rmtllmf:.3g}",
        }
    return pd.DataFrame(rows).T


def beside_published(measures: pd.DataFrame) -> pd.DataFrame:
    """The measures of difficulty beside those published for CLIP, in %.

    Parameters
    ----------
    measures : DataFrame
        From `calibration.per_task`; the interval of a mean is over its tasks.

    Returns
    -------
    DataFrame of str, one row per measure; columns "here", such as "53 ± 14", and one per published model
    """
    found = over_seeds(measures.melt(ignore_index=False).reset_index(names="seed"), ["variable"], "value")
    here = found.set_index("variable").apply(lambda row: percent(row["mean"], row["half_width"]), axis=1)
    others = {model: {name: f"{100 * value:.0f}" for name, value in row.items()} for model, row in CLIP_RESULTS.items()}
    return pd.DataFrame({"here": here, **others}).loc[list(MEASURES)].rename(index=lambda name: name.replace("_", " "))


def against_each(table: pd.DataFrame, one: Mapping[str, Any], protection: str) -> pd.DataFrame:
    """Difference in accuracy of one condition and a protection under each of the paper's links, paired by seed.

    Parameters
    ----------
    table : DataFrame
        From `run_study`.
    one : dict of column to value
        Which rows to compare, as in `compare.gap`; the same for every link.

    Returns
    -------
    DataFrame with columns scenario, mean, half_width, n
    """
    links = {name: {"scenario": name, "protection": protection} for name in PAPER_LINKS}
    return stacked({name: gap(table, one, link) for name, link in links.items()}, "scenario")


def per_task(table: pd.DataFrame, conditions: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """Accuracy of every task, mean over seeds and combinations.

    Parameters
    ----------
    table : DataFrame
        From `run_study`.
    conditions : mapping of label to (scenario, protection)

    Returns
    -------
    DataFrame, one row per label, one column per task
    """
    rows = {}
    for label, (scenario, protection) in conditions.items():
        chosen = table[(table["scenario"] == scenario) & (table["protection"] == protection)]
        rows[label] = chosen.groupby("task", sort=False)["accuracy"].mean()
    return pd.DataFrame(rows).T


def link_points(table: pd.DataFrame) -> pd.DataFrame:
    """Normalised accuracy under the scenarios of `link_scenarios`, as `figures.link_to_fusion` draws it.

    Returns
    -------
    DataFrame with columns label, curve, mean, half_width, n
        `label` is the scenario's name without its scale, which `curve` names along with the protection.
    """
    points = over_seeds(table, ["scale", "scenario", "protection"])
    titles = [PROTECTIONS[name].title for name in points["protection"]]
    curves = [f"scale {scale}, {title}" for scale, title in zip(points["scale"], titles, strict=True)]
    labels = [name.removeprefix(f"{scale}, ") for scale, name in zip(points["scale"], points["scenario"], strict=True)]
    return points.assign(curve=curves, label=labels)[["label", "curve", "mean", "half_width", "n"]]
