"""What the chapter on the physical layer finds, each with the rule that judges it: our own claims, none of the paper's.

Means are over drops, of which each is an independent repetition; accuracies are over suites.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from rmtllmf_lib.chapters.physical_layer.tables import GAIN, MATCHED, UNAWARE, needed, over_drops
from rmtllmf_lib.chapters.verdicts.claims import Claim, Finding, UntestableError, graded
from rmtllmf_lib.chapters.verdicts.comparisons import all_of, any_of
from rmtllmf_lib.chapters.verdicts.evidence import Interval
from rmtllmf_lib.chapters.worst_case_noise.paper_link import ATTACKS
from rmtllmf_lib.study.intervals import over_seeds

SHORT = {kind: name for name, kind in ATTACKS.items()}
ENOUGH = 8  # snapshots for each antenna


@dataclass(frozen=True, eq=False)
class PhysicalEvidence:
    """The tables of the chapter, see `tables`.

    Attributes
    ----------
    sensing : DataFrame
        From `tables.sense`.
    antennas : int
    lost, accuracies : DataFrame
        From `tables.users_lost` and `tables.accuracies`.
    power, high : float, dB
        A jammer's power at which the receivers are compared, and one at which the end is sought.
    """

    sensing: pd.DataFrame
    antennas: int
    lost: pd.DataFrame = field(default_factory=pd.DataFrame)
    accuracies: pd.DataFrame = field(default_factory=pd.DataFrame)
    power: float = 18.0
    high: float = 20.0

    @property
    def sensed(self) -> str:
        """The receiver of `lost` that has sensed the noise with the most snapshots, or that knows it."""
        names = [str(name) for name in self.lost["knowledge"].unique() if "snapshots" in str(name)]
        return names[-1] if names else MATCHED

    def saved(self, kind: str, order: str, one: str, other: str, jnr_db: float) -> Interval:
        """Users that the receiver `one` hears more than `other`, paired by drop."""
        rows = self.lost[(self.lost["kind"] == kind) & (self.lost["order"] == order) & (self.lost["jnr_db"] == jnr_db)]
        drops = rows.pivot(index="drop", columns="knowledge", values="lost")
        if one not in drops or other not in drops:
            raise UntestableError(f"no table here has {one} and {other} at {jnr_db:g} dB")
        return over_drops(drops[other] - drops[one])

    def accuracy(self, kind: str, order: str, knowledge: str, jnr_db: float, sent: str = "coded") -> Interval:
        """Normalised accuracy over the suites."""
        table = self.accuracies
        here = (table["kind"] == kind) & (table["order"] == order) & (table["knowledge"] == knowledge)
        rows = table[here & (table["jnr_db"] == jnr_db) & (table["sent"] == sent)]
        if rows.empty:
            raise UntestableError(f"no table here has {knowledge} at {jnr_db:g} dB")
        (found,) = over_seeds(rows.assign(all=0), ["all"]).itertuples()
        return Interval(found.mean, found.half_width, found.n)

    def code_gains(self, kind: str, order: str) -> dict[float, Interval]:
        """Accuracy with a code over that without one, both with a matched receiver, by power; paired by suite."""
        table = self.accuracies
        here = (table["kind"] == kind) & (table["order"] == order) & (table["knowledge"] == MATCHED)
        rows = table[here].pivot(index=["jnr_db", "seed"], columns="sent", values="normalized")
        if "task" not in rows:
            raise UntestableError("no table here has task vectors without a code")
        return {float(power): over_drops(part["coded"] - part["task"]) for power, part in rows.groupby(level="jnr_db")}

    def difference(self, kind: str, order: str, one: str, other: str, jnr_db: float) -> Interval:
        """Accuracy of the receiver `one` over that of `other`, paired by suite."""
        table = self.accuracies
        here = (table["kind"] == kind) & (table["order"] == order) & (table["sent"] == "coded")
        rows = table[here & (table["jnr_db"] == jnr_db)].pivot(index="seed", columns="knowledge", values="normalized")
        if one not in rows or other not in rows:
            raise UntestableError(f"no table here has {one} and {other} at {jnr_db:g} dB")
        return over_drops(rows[one] - rows[other])


def enough_snapshots(seen: PhysicalEvidence) -> Finding:
    """Eight for each antenna bring the mean MSE within a tenth of the matched receiver's, in every case."""
    found = needed(seen.sensing)
    names = found["kind"].map(SHORT) + ", " + found["order"].str.replace("-", " ")
    most = float(found["needed"].max())
    listed = ", ".join(f"{count:g} ({name})" for name, count in zip(names, found["needed"], strict=True))
    return graded(most <= ENOUGH * seen.antennas, most < float("inf"), listed=listed, limit=ENOUGH * seen.antennas)


def sensing_saves_users(seen: PhysicalEvidence) -> Finding:
    """Sensing surely saves users beyond what one measured gain a user does, in both orders and under both attacks."""
    saved = {
        f"{SHORT[kind]}_{order.split('-')[0]}": seen.saved(kind, order, seen.sensed, GAIN, seen.power)
        for kind in ("strongest-user", "sum-rate")
        for order in ("weakest-first", "strongest-first")
    }
    gain = {
        f"gain_{SHORT[kind]}": seen.saved(kind, "strongest-first", GAIN, UNAWARE, seen.power)
        for kind in ("strongest-user", "sum-rate")
    }
    sure = [each.above() for each in saved.values()]
    where = [name.replace("_", ", ") + " first" for name, each in saved.items() if each.above()]
    shown: dict[str, Any] = {name: f"{each.mean:.2f} ± {each.half_width:.2f}" for name, each in (saved | gain).items()}
    listed = "; ".join(where)
    return graded(all_of(sure), any_of(sure), power=seen.power, listed=listed, count=len(where), **shown)


def protection_adds(seen: PhysicalEvidence) -> Finding:
    """A receiver that has sensed the jammer surely raises the coded model's accuracy, at every power of the grid."""
    gained: dict[str, Any] = {
        SHORT[kind]: seen.difference(kind, "strongest-first", seen.sensed, UNAWARE, seen.power)
        for kind in ("strongest-user", "sum-rate")
    }
    cheap: dict[str, Any] = {
        f"cheap_{SHORT[kind]}": seen.difference(kind, "strongest-first", GAIN, UNAWARE, seen.power)
        for kind in ("strongest-user", "sum-rate")
    }
    sure = [each.above() for each in gained.values()]
    powers = [float(power) for power in sorted(seen.accuracies["jnr_db"].unique())]
    ahead = {
        kind: {power: seen.difference(kind, "strongest-first", seen.sensed, UNAWARE, power).above() for power in powers}
        for kind in ("strongest-user", "sum-rate")
    }
    everywhere = all_of(each for found in ahead.values() for each in found.values())
    where: dict[str, Any] = {f"where_{SHORT[kind]}": _powers(found) for kind, found in ahead.items()}
    quiet = seen.lost[(seen.lost["jnr_db"] == powers[0]) & (seen.lost["knowledge"] == UNAWARE)]
    where["quiet"] = float(quiet.groupby(["kind", "order"])["lost"].mean().max())
    numbers: dict[str, Any] = {"least": powers[0], "most": powers[-1], **where, **gained, **cheap}
    return graded(everywhere, any_of(sure), power=seen.power, sensed=seen.sensed, **numbers)


def _powers(sure: Mapping[float, object]) -> str:
    """Return at which powers something is sure: "at 15 and 18 dB", or "at none"."""
    *others, last = [f"{power:g}" for power, each in sure.items() if each] or ["none"]
    return f"at {' and '.join(filter(None, [', '.join(others), last]))}" + " dB" * (last != "none")


def code_or_none(seen: PhysicalEvidence) -> Finding:
    """The coded model is surely ahead of whole task vectors at unit power, at every power of the worst jammer."""
    gains = seen.code_gains("sum-rate", "strongest-first")
    ahead = {power: each.above() for power, each in gains.items()}
    behind = [power for power, each in gains.items() if each.below()]
    first, last = min(gains), max(gains)
    return graded(
        all_of(ahead.values()),
        ahead[first],
        quiet=gains[first],
        loud=gains[last],
        last=last,
        surely=max([power for power, sure in ahead.items() if sure], default=first),
        crossed=f"from {min(behind):g} dB on it is surely behind" if behind else "it is nowhere surely behind",
    )


def where_it_ends(seen: PhysicalEvidence) -> Finding:
    """A receiver that knows everything still merges what it merged without a jammer, under both attacks.

    The claim is about any jammer, so that one of them is a counterexample.
    """
    lowest = float(seen.lost["jnr_db"].min())
    orders = ("weakest-first", "strongest-first")
    kept: dict[str, Any] = {
        SHORT[kind]: max(
            (seen.accuracy(kind, order, MATCHED, seen.high) for order in orders), key=lambda each: each.mean
        )
        for kind in ("strongest-user", "sum-rate")
    }
    before = seen.accuracy("sum-rate", "strongest-first", MATCHED, lowest)
    rows = seen.lost[(seen.lost["jnr_db"] == seen.high) & (seen.lost["knowledge"] == MATCHED)]
    users: dict[str, Any] = {
        f"users_{SHORT[str(kind)]}": float(part.groupby("order")["lost"].mean().min())
        for kind, part in rows.groupby("kind")
    }
    ends = [name for name, each in kept.items() if each.mean <= before.mean - 0.02]
    attacks = {"SU": "the attack on one user", "SR": "the attack on the sum rate"}
    ended = "either attack" if len(ends) == len(kept) else " ".join(f"{attacks[name]} alone" for name in ends)
    return graded(not ends, high=seen.high, before=before, ended=ended, **kept, **users)


CLAIMS = (
    Claim(
        "Snapshots", "beyond", "A base station learns a jammer's noise by listening while the users are silent.",
        "({eq}`eq-phy-sensed`, {numref}`fig-phy-snapshots`)", enough_snapshots,
        ours="to come within 10 % of the matched MSE it takes {listed}, where eight an antenna are {limit}",
        why={"holds with caveat": "more than eight an antenna in some cases"},
    ),
    Claim(
        "Sensing or a gain", "beyond", "Knowing the jammer's noise saves users whom a measured gain alone does not.",
        "({numref}`fig-phy-outage`)", sensing_saves_users,
        ours="""at {power:g} dB sensing saves {SU_strongest} of eight users under SU and {SR_strongest} under SR where \
the strongest is decoded first, {SU_weakest} and {SR_weakest} where the weakest is; the gain alone saves {gain_SU} and \
{gain_SR}""",
        why={
            "holds with caveat": "surely in {count} of four cases: {listed}",
            "does not hold": "one number a user does as well",
        },
    ),
    Claim(
        "Physical layer, coded", "beyond", "Protection on the physical layer adds to what a code protects.",
        "({numref}`fig-phy-accuracy`)", protection_adds,
        ours="""at {power:g} dB the merged model has {SU.points} points more under SU and {SR.points} under SR with \
{sensed}, and {cheap_SU.points} and {cheap_SR.points} with a measured gain alone""",
        why={
            "holds with caveat": """\
of the powers tried, {least:g} to {most:g} dB, the gain is sure {where_SU} under SU and {where_SR} under SR; \
under the weakest jammer an unaware receiver loses {quiet:.1f} users""",
            "does not hold": "under neither attack is a gain sure",
        },
    ),
    Claim(
        "Code or none", "beyond", "With a code the merged model is better than without one.",
        "({numref}`fig-phy-accuracy`)", code_or_none,
        ours="""against whole task vectors at unit power, with a matched receiver and SR, it brings {quiet.points} \
points where the jammer is weakest, and {loud.points} at {last:g} dB""",
        why={
            "holds with caveat": "it is surely ahead up to {surely:g} dB, and {crossed}",
            "does not hold": "{crossed}",
        },
    ),
    Claim(
        "Where it ends", "beyond", "A receiver that knows everything keeps the merged model whole under any jammer.",
        "({numref}`fig-phy-outage`, {numref}`fig-phy-accuracy`)", where_it_ends,
        ours="""at {high:g} dB it loses {users_SU:.1f} of eight users under SU and {users_SR:.1f} under SR, and the \
model keeps {SU.points} and {SR.points} %, where it had {before.points} %""",
        why={"does not hold": "so {ended} ends it"},
    ),
)  # fmt: skip
