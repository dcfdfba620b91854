"""Noise scenarios of the chapter on fusion: from one drop of the uplink, next to the paper's own numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rmtllmf_lib.chapters.words import percent
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.protection.resilience import PROTECTIONS
from rmtllmf_lib.published import PAPER_LINKS
from rmtllmf_lib.study.compare import gap
from rmtllmf_lib.study.intervals import over_seeds
from rmtllmf_lib.transport.scenario import Scenario, from_link
from rmtllmf_lib.wireless.adversary import attacked_cov, jammer_power
from rmtllmf_lib.wireless.channel import Uplink
from rmtllmf_lib.wireless.receiver import Order, error_cov

ORDER: Order = "strongest-first"  # the order that comes close to the paper's three MSEs

ATTACKS: Mapping[str, str | None] = {"ideal": None, "SU": "strongest-user", "SR": "sum-rate"}


def closest_drop(uplink: Uplink, jnr_db: float) -> Uplink:
    """The drop whose three mean MSEs come closest to the paper's .013, .16 and .21 (Section IV-1).

    The receiver decodes the strongest user first and does not know of the jammer: the one setting that comes close on
    average, see `tables.paper_link.closest_settings`. Close is meant in ratios, not in differences.

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
        noise = attacked_cov(uplink, power, kind or "none")
        error = error_cov(uplink, noise, uplink.thermal_cov, ORDER)
        mse = np.einsum("...ii->...i", error).real.mean(axis=-1)
        distance += np.log(mse / PAPER_LINKS[name].mse) ** 2
    return uplink[int(distance.argmin())]


def link_scenarios(
    uplink: Uplink, jnr_db: float, *, scale: str = "weight", correlation: str = "half"
) -> tuple[Scenario, ...]:
    """What one drop does to the users: no jammer, the paper's two attacks, and a receiver that knows of them or not.

    Parameters
    ----------
    uplink : Uplink
        A single drop.
    jnr_db : float, dB
        Jammer over noise per antenna, the same for both attacks.
    scale, correlation
        Of the errors in the parameters, see `Scenario`.

    Returns
    -------
    tuple of Scenario
        With an MSE for each user, named "link, ideal", "link, SU known", "link, SU unknown", "link, SR known" and
        "link, SR unknown", with the scale in front if it is not "weight".
    """
    power = float(jammer_power(uplink, jnr_db))
    start = "link" if scale == "weight" else f"{scale}, link"
    found = []
    for name, kind in ATTACKS.items():
        for aware in (True, False) if kind else (True,):
            told = "" if kind is None else " known" if aware else " unknown"
            found.append(
                from_link(
                    f"{start}, {name}{told}", uplink, kind, power if kind else 0.0,
                    aware=aware, order=ORDER, scale=scale, correlation=correlation,
                )
            )  # fmt: skip
    return tuple(found)


def beside_paper(table: pd.DataFrame, protections: Sequence[str]) -> pd.DataFrame:
    """Normalised accuracy of all tasks fused, with its interval over the seeds, beside what the paper reports.

    Parameters
    ----------
    table : DataFrame
        Of `run_study`, with scenarios of the names of `PAPER_LINKS`; the largest number of tasks counts.
    protections : sequence of str
        In the order of the columns.

    Returns
    -------
    DataFrame of str, one row per scenario; a column per protection such as "65 ± 3", in %, and the paper's two
    """
    largest = table[table["n_tasks"] == table["n_tasks"].max()]
    points = over_seeds(largest, ["scenario", "protection"]).set_index(["scenario", "protection"])
    rows = {}
    for name, paper in PAPER_LINKS.items():
        row = {}
        for protection in protections:
            own = name if PROTECTIONS[protection].receives else "no link"
            point = points.loc[(own, protection)]
            row[PROTECTIONS[protection].title] = percent(point["mean"], point["half_width"])
        low, high = (f"{100 * value:.3g}" for value in paper.unprotected)
        row["paper, unprotected"] = low if low == high else f"{low}–{high}"
        row["paper, R-MTLLMF"] = f"{100 * paper.rmtllmf:.3g}"
        rows[name] = row
    return pd.DataFrame(rows).T


def against_each(table: pd.DataFrame, one: Mapping[str, Any], protection: str) -> pd.DataFrame:
    """How much better one condition is than a protection under each of the paper's links, paired by seed.

    Parameters
    ----------
    table : DataFrame
        Of `run_study`.
    one : dict of column to value
        Which rows to compare, as in `ablation.gap`; the same for every link.

    Returns
    -------
    DataFrame with columns mean, half_width, n, scenario
    """
    parts = [gap(table, one, {"scenario": name, "protection": protection}).assign(scenario=name) for name in ATTACKS]
    return pd.concat(parts, ignore_index=True)


def per_task(table: pd.DataFrame, conditions: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """Accuracy of every task, mean over seeds and combinations.

    Parameters
    ----------
    table : DataFrame
        Of `run_study`.
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
    """Normalised accuracy under the scenarios of `link_scenarios`, as `figures.fusion.link_to_fusion` draws it.

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
