"""The findings of the chapter on the physical layer: every rule can come out either way."""

from collections.abc import Callable

import pandas as pd
import pytest

from rmtllmf_lib.chapters.physical_layer.claims import CLAIMS, PhysicalEvidence
from rmtllmf_lib.chapters.physical_layer.tables import GAIN, MATCHED, UNAWARE, snapshots_named
from rmtllmf_lib.chapters.verdicts.claims import assess

ORDERS = ("weakest-first", "strongest-first")
KINDS = ("strongest-user", "sum-rate")
SENSED = snapshots_named(128)
CASES = [(kind, order) for kind in KINDS for order in ORDERS]


def sensing(needed: int) -> pd.DataFrame:
    """Matched from so many snapshots on; 0 for never."""
    rows = []
    for kind, order in CASES:
        rows += [(kind, order, UNAWARE, 0, 3.0, 3.0), (kind, order, MATCHED, 0, 1.0, 1.0)]
        rows += [(kind, order, "sensed", K, *[1.0 if needed and needed <= K else 2.0] * 2) for K in (32, 64, 128, 256)]
    return pd.DataFrame(rows, columns=["kind", "order", "knowledge", "snapshots", "mse", "scaled"]).assign(drop=0)


def lost(users: Callable[[str, str, str, float], float]) -> pd.DataFrame:
    """Users lost by attack, order, receiver and power, with a little noise over the drops that all receivers share."""
    rows = [
        (
            kind,
            order,
            power,
            name,
            drop,
            users(kind, order, name, power) + drop % 3 + (drop % 2) * (name == SENSED) / 10,
        )
        for kind, order in CASES
        for power in (0.0, 18.0, 20.0)
        for name in (UNAWARE, GAIN, SENSED, MATCHED)
        for drop in range(30)
    ]
    return pd.DataFrame(rows, columns=["kind", "order", "jnr_db", "knowledge", "drop", "lost"])


def accurate(value: Callable[[str, str, str, float], float]) -> pd.DataFrame:
    rows = [
        (
            kind,
            order,
            power,
            name,
            "coded",
            seed,
            value(kind, order, name, power) + seed / 50 + (name == SENSED) * seed / 500,
        )
        for kind, order in CASES
        for power in (0.0, 18.0, 20.0)
        for name in (UNAWARE, GAIN, SENSED, MATCHED)
        for seed in range(5)
    ]
    return pd.DataFrame(rows, columns=["kind", "order", "jnr_db", "knowledge", "sent", "seed", "normalized"])


def verdict(label: str, evidence: PhysicalEvidence) -> str:
    (claim,) = [each for each in CLAIMS if each.label == label]
    row = assess([claim], evidence).iloc[0]
    assert row["ours"] and "{" not in row["ours"].replace("{eq}", "").replace("{numref}", "")
    return str(row["verdict"])


@pytest.mark.parametrize("needed, expected", [(128, "holds"), (256, "holds with caveat"), (0, "does not hold")])
def test_snapshots(needed: int, expected: str) -> None:
    assert verdict("Snapshots", PhysicalEvidence(sensing(needed), 16)) == expected


@pytest.mark.parametrize(
    "where, expected",
    [(CASES, "holds"), ([("strongest-user", "strongest-first")], "holds with caveat"), ([], "does not hold")],
)
def test_sensing_or_a_gain(where: list[tuple[str, str]], expected: str) -> None:
    def users(kind: str, order: str, name: str, power: float) -> float:
        return 3.0 if name == UNAWARE else 1.0 if (kind, order) in where and name in (SENSED, MATCHED) else 2.0

    assert verdict("Sensing or a gain", PhysicalEvidence(sensing(32), 16, lost(users))) == expected


@pytest.mark.parametrize(
    "where, expected", [(KINDS, "holds"), (("sum-rate",), "holds with caveat"), ((), "does not hold")]
)
def test_protection_adds(where: tuple[str, ...], expected: str) -> None:
    def value(kind: str, order: str, name: str, power: float) -> float:
        return 0.5 + 0.3 * (kind in where and name != UNAWARE) - 0.01 * (name == SENSED and kind not in where)

    tables = lost(lambda *_: 1.0), accurate(value)
    assert verdict("Physical layer, coded", PhysicalEvidence(sensing(32), 16, *tables)) == expected


def test_protection_that_adds_only_against_a_strong_jammer_has_a_caveat() -> None:
    def value(kind: str, order: str, name: str, power: float) -> float:
        return 0.5 + 0.3 * (name != UNAWARE and power >= 18) - 0.01 * (name == SENSED and power < 18)

    tables = lost(lambda kind, order, name, power: 2.0 * (name == UNAWARE)), accurate(value)
    (claim,) = [each for each in CLAIMS if each.label == "Physical layer, coded"]
    row = assess([claim], PhysicalEvidence(sensing(32), 16, *tables)).iloc[0]
    assert row["verdict"] == "holds with caveat"
    assert "0 to 20 dB, the gain is sure at 18 and 20 dB under SU and at 18 and 20 dB under SR" in row["ours"]
    assert "loses 3.0 users" in row["ours"]  # two, and one that every receiver of these tables loses


@pytest.mark.parametrize(
    "where, expected, words",
    [
        ((), "holds", ""),
        (("sum-rate",), "does not hold", "so the attack on the sum rate alone ends it"),
        (("strongest-user",), "does not hold", "so the attack on one user alone ends it"),
        (KINDS, "does not hold", "so either attack ends it"),
    ],
)
def test_where_it_ends(where: tuple[str, ...], expected: str, words: str) -> None:
    def value(kind: str, order: str, name: str, power: float) -> float:
        return 0.9 - 0.3 * (kind in where and power == 20.0)

    evidence = PhysicalEvidence(sensing(32), 16, lost(lambda *_: 1.0), accurate(value))
    assert verdict("Where it ends", evidence) == expected
    assert assess([CLAIMS[-1]], evidence)["ours"].item().endswith(words)


@pytest.mark.parametrize("end, expected", [(0.5, "holds"), (0.95, "holds with caveat"), (1.2, "does not hold")])
def test_code_or_none(end: float, expected: str) -> None:
    """Without a code the accuracy is level, or falls below and rises above that with one."""
    coded = accurate(lambda kind, order, name, power: 0.9 - power / 100)
    level = accurate(lambda *_: end - 0.2 if end < 1 else end).assign(sent="task")
    tables = lost(lambda *_: 1.0), pd.concat([coded, level], ignore_index=True)
    assert verdict("Code or none", PhysicalEvidence(sensing(32), 16, *tables)) == expected


def test_a_power_that_was_not_tried_is_not_testable() -> None:
    tables = lost(lambda *_: 1.0), accurate(lambda *_: 0.5)
    evidence = PhysicalEvidence(sensing(32), 16, *tables, power=7.0, high=8.0)
    for label in ("Sensing or a gain", "Physical layer, coded", "Where it ends", "Code or none"):
        assert verdict(label, evidence) == "not testable here"
