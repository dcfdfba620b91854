"""Ablations of the protection (Section IV-3): cells of the noise model, paired comparisons, what a protection costs.

The computation is `study.run_study`; here is what comes before it and after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.published import PAPER_LINKS
from rmtllmf_lib.study.intervals import over_seeds
from rmtllmf_lib.transport.scenario import Scenario, inject_mse, inject_snr
from rmtllmf_lib.transport.surrogate import CORRELATIONS, SCALES


def cells(scales: Sequence[str] = SCALES, correlations: Sequence[str] = CORRELATIONS) -> tuple[Scenario, ...]:
    """The paper's three links under every reading of its noise: scale × correlation × MSE.

    With scale "snr" the paper's SNR takes the place of its MSE, see `transport.inject_snr`.

    Returns
    -------
    tuple of Scenario, named "scale, correlation, link"
    """
    found = []
    for scale in scales:
        for correlation in correlations:
            links = inject_snr(correlation) if scale == "snr" else inject_mse(correlation, scale)
            found += [replace(link, name=f"{scale}, {correlation}, {link.name}") for link in links]
    return tuple(found)


def noise_to_signal(scenario: Scenario, taus: Sequence[TaskVector], base: Weights) -> float:
    """Power of the errors over power of the task vectors, k_q, geometric mean over the users; 0 without noise."""
    errors = np.diagonal(scenario.error_cov(taus, base))
    if not errors.all():
        return 0.0
    return float(np.exp(np.mean(np.log(errors / np.array([tau.rms**2 for tau in taus])))))


def cell_table(
    table: pd.DataFrame, scenarios: Sequence[Scenario], taus: Sequence[TaskVector], base: Weights
) -> pd.DataFrame:  # fmt: skip
    """What a study found in each cell, beside what the paper reports of the same link.

    Parameters
    ----------
    table : DataFrame
        Of `run_study`, with the `scenarios` of `cells` and the protections "unprotected" and "rmtllmf", or one of them.

    Returns
    -------
    DataFrame with columns scale, correlation, link, noise_to_signal, protection, mean, half_width, n, paper
        `paper` is the middle of the values that the paper gives.
    """
    reported = {
        "unprotected": {name: sum(link.unprotected) / 2 for name, link in PAPER_LINKS.items()},
        "rmtllmf": {name: link.rmtllmf for name, link in PAPER_LINKS.items()},
    }
    known = pd.DataFrame(
        [
            (each.name, each.scale, each.correlation, each.name.split(", ")[-1], noise_to_signal(each, taus, base))
            for each in scenarios
        ],
        columns=["scenario", "scale", "correlation", "link", "noise_to_signal"],
    )
    rows = known.merge(over_seeds(table, ["scenario", "protection"]), on="scenario").drop(columns="scenario")
    pairs = zip(rows["protection"], rows["link"], strict=True)
    return rows.assign(paper=[reported[protection][link] for protection, link in pairs])


def distance_to_paper(rows: pd.DataFrame) -> pd.DataFrame:
    """How far each reading of the noise is from the paper's figures.

    Parameters
    ----------
    rows : DataFrame
        Of `cell_table`.

    Returns
    -------
    DataFrame with columns scale, correlation, distance
        Root mean square of the differences in normalised accuracy, over links and protections; nearest first.
    """
    squares = rows.assign(distance=(rows["mean"] - rows["paper"]) ** 2)
    means = squares.groupby(["scale", "correlation"], sort=False)["distance"].mean()
    return (means**0.5).sort_values().reset_index()


def in_words(gaps: pd.DataFrame) -> str:
    """The means of a table of `gap` or `over_seeds` with their intervals, "0.31 ± 0.02, …"."""
    return ", ".join(f"{row.mean:.2f} ± {row.half_width:.2f}" for row in gaps.itertuples())


def costs(table: pd.DataFrame) -> pd.DataFrame:
    """What each protection asks for, mean over seeds and scenarios.

    Returns
    -------
    DataFrame with columns protection, per_class, samples, steps, bytes, seconds
        One row for each protection and memory size; `seconds` is the shortest wall time, the one least disturbed.
    """
    once = table.drop_duplicates(["scenario", "protection", "per_class", "seed", "combination", "lr", "steps"])
    groups = once.groupby(["protection", "per_class"], sort=False)
    means = groups[["samples", "steps", "bytes"]].mean()
    return means.assign(seconds=groups["seconds"].min()).reset_index()
