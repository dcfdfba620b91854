"""Studies of lost users, against deliveries and merging by hand."""

import numpy as np
import pandas as pd
import pytest

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import load_backbone
from rmtllmf_lib.study.outage import HEARD, LOST, by_users_lost, outage_study, uncoded_study
from rmtllmf_lib.transport.coded_payload import LADDER, plan


def test_a_study_of_lost_users_is_made_of_deliveries() -> None:
    """Whom a scenario's name calls lost are those in outage, and all others send the smallest payload."""
    layout = load_backbone("tiny").weights.layout
    study = outage_study(8, 4, 50)
    assert study.protections == ("coded-tsv",) and study.sizes == (8,) and study.test_images == 50
    counts = []
    for scenario in study.scenarios:
        count, _, gone = scenario.name.partition(" lost:")
        assert isinstance(scenario.mse, tuple)
        plans = [plan(mse, layout) for mse in scenario.mse]
        assert [str(place) for place, each in enumerate(plans) if each is None] == gone.split()
        assert {each.sent for each in plans if each is not None} == {LADDER[-1]}
        counts.append(int(count))
        assert counts[-1] == len(gone.split())
    assert [counts.count(lost) for lost in range(8)] == [1] + [4] * 7
    assert counts == sorted(counts)


def test_all_users_are_lost_about_equally_often() -> None:
    study = outage_study(8, 4, 50)
    lost = np.sum([[mse == LOST for mse in each.mse] for each in study.scenarios], axis=0)  # type: ignore[union-attr]
    assert np.ptp(lost) <= 4  # of 14 on average


def test_without_a_code_all_users_have_one_error() -> None:
    study = uncoded_study(3, (0.1, 2.0), ("task", "weight"), 50)
    assert [(each.scale, each.mse) for each in study.scenarios] == [
        ("task", 0.1), ("task", 2.0), ("weight", 0.1), ("weight", 2.0)
    ]  # fmt: skip
    assert set(study.protections) == {"unprotected", "base"}


def test_rows_become_a_table_of_suites() -> None:
    rows = pd.DataFrame(
        [
            ("0 lost:", "task", "coded-tsv", HEARD, 0, 0, 0.8, 1.0),
            ("0 lost:", "task", "coded-tsv", HEARD, 0, 0, 0.6, 0.8),
            ("1 lost: 0", "task", "coded-tsv", 0.75, 1, 0, 0.5, 0.6),
            ("1 lost: 1", "task", "coded-tsv", 0.75, 1, 0, 0.3, 0.4),
            ("task 2", "task", "unprotected", 2.0, 0, 1, 0.2, 0.3),
            ("no link", np.nan, "base", np.nan, 0, 1, 0.1, 0.2),
        ],
        columns=["scenario", "scale", "protection", "mse", "outage", "seed", "accuracy", "normalized"],
    )  # fmt: skip
    found = by_users_lost(rows)
    assert found.to_numpy().tolist() == [
        ["coded", 0, 0.0, 0, pytest.approx(0.7), pytest.approx(0.9)],
        ["coded", 1, 0.0, 0, pytest.approx(0.4), pytest.approx(0.5)],
        ["task", 0, 2.0, 1, pytest.approx(0.2), pytest.approx(0.3)],
        ["base", 0, 0.0, 1, pytest.approx(0.1), pytest.approx(0.2)],
    ]


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="users is 1"):
        outage_study(1, 4, 50)
    with pytest.raises(InputError, match="per_size"):
        outage_study(8, 0, 50)
    with pytest.raises(InputError, match="no column outage"):
        by_users_lost(
            pd.DataFrame(columns=["scenario", "scale", "protection", "mse", "seed", "accuracy", "normalized"])
        )
    with pytest.raises(InputError, match="scale is 'none'"):
        uncoded_study(8, (0.1,), ("none",), 50)
