"""Studies of what is left of the fused model when users are lost, and of the same users without a code.

Their scenarios are not links but cuts through all links: with a code, what counts of a link is who is heard; without
one, how large the errors are. A link then needs no study of its own: its users' MSEs say which condition it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from pydantic import PositiveInt

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.study.study import Study
from rmtllmf_lib.training.combinations import sample_combinations
from rmtllmf_lib.transport.scenario import Scenario
from rmtllmf_lib.validated import validated_call

HEARD = 0.5  # an MSE at which the lowest payload of the ladder is sent, and no higher one
LOST = 1.0  # that of a user who is not heard


@validated_call
def outage_study(users: PositiveInt, per_size: PositiveInt, test_images: PositiveInt) -> Study:
    """The study of coded payloads with 0 to all but one user in outage, evaluated on the tasks of all.

    Parameters
    ----------
    users : int
        Q, at least 2: all of the suite's, in its order.
    per_size : int
        Sets of lost users for each number of them, in which all are lost about equally often; the same in every suite.
    test_images : int
        Per task.

    Returns
    -------
    Study
        Scenarios are named "2 lost: 0 5" with the places of those in outage; the others send the lowest payload.
    """
    if users < 2:
        raise InputError(f"users is {users}: expected at least 2, of whom one can be lost")
    names = [str(place) for place in range(users)]
    scenarios = []
    for heard in sample_combinations(names, range(1, users + 1), per_size)[::-1]:
        gone = [name for name in names if name not in heard]
        title = f"{len(gone)} lost: {' '.join(gone)}".strip()
        scenarios.append(Scenario(title, tuple(HEARD if name in heard else LOST for name in names), "task"))
    return Study(tuple(scenarios), ("coded-tsv",), seeds=1, sizes=(users,), test_images=test_images)


@validated_call
def uncoded_study(users: PositiveInt, mse: Sequence[float], scales: Sequence[str], test_images: PositiveInt) -> Study:
    """The study of whole task vectors sent without a code, all users at one MSE, and of the base alone.

    The error of the sum has the variance of the users' mean MSE, whoever contributes it, so equal MSEs stand for all.

    Parameters
    ----------
    users : int
        Q, all of the suite's.
    mse : sequence of float
    scales : sequence of str
        References of the error variance, see `surrogate.noise_power`.
    test_images : int
        Per task.
    """
    scenarios = tuple(Scenario(f"{scale} {mu:g}", float(mu), scale) for scale in scales for mu in mse)
    return Study(scenarios, ("unprotected", "base"), seeds=1, sizes=(users,), test_images=test_images)


@validated_call
def by_users_lost(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean normalised accuracy of every suite, by what was sent and how the link was.

    Parameters
    ----------
    rows : DataFrame
        From `run_over_suites` of the two studies.

    Returns
    -------
    DataFrame with columns sent ("coded", a scale of errors, or "base"), lost (users; 0 without a code), mse (0 with a
    code), seed, accuracy, normalized
    """
    needed = {"scenario", "scale", "protection", "mse", "outage", "seed", "accuracy", "normalized"}
    if missing := sorted(needed - set(rows)):
        raise InputError(f"the table has no column {', '.join(missing)}: expected the rows of a study")
    coded = rows["protection"] == "coded-tsv"
    sent = rows["scale"].mask(coded, "coded").mask(rows["protection"] == "base", "base")
    table = rows.assign(sent=sent, lost=rows["outage"], mse=rows["mse"].mask(coded | (sent == "base"), 0.0))
    keys = ["sent", "lost", "mse", "seed"]
    return table.groupby(keys, sort=False)[["accuracy", "normalized"]].mean().reset_index()
