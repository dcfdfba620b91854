"""What a user may send: payloads, coded or analog, merged by a sum or by TSV-Merge, without any realignment.

    python -m workflow.payloads

writes three files to `book/results`: `payloads.csv`, one row for each way of sending and merging with its interval over
suites; `payloads_suites.csv`, the values of every suite; and `payloads.json`, the settings and versions. lambda is
chosen on validation images of suite 0, the scores are those of test images. Chapter 9 shows the tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch

from rmtllmf_lib.fusion.arithmetic import choose_lambda
from rmtllmf_lib.fusion.mergers import merge, merger_named
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.payload.low_rank import LowRank
from rmtllmf_lib.payload.payload import Full, Payload
from rmtllmf_lib.payload.signs import Signs
from rmtllmf_lib.payload.sparse import Sparse
from rmtllmf_lib.seeds import generator_for
from rmtllmf_lib.study.intervals import over_seeds
from rmtllmf_lib.study.payloads import Way, arrivals, task_accuracies
from rmtllmf_lib.study.units import NOISE, Bench, specialists
from rmtllmf_lib.transport.coded_payload import LADDER, Quantised, full_uses, plan
from rmtllmf_lib.transport.scenario import inject_mse
from workflow.results import write_results
from workflow.when_the_link_helps import SUITES, drawn_suite

OUT = Path(__file__).parents[1] / "book" / "results" / "payloads.csv"
DIFFICULTY = "calibrated"
VALIDATION_IMAGES, TEST_IMAGES = 100, 250
MERGERS = ("arithmetic", "tsv")
LOST = (1, 2, 3, 4, 6)  # users in outage
STARTS = (0, 2, 4, 6)  # the first of them, of eight in a circle
NAMES = ["payload", "bits", "link", "scale", "correlation", "signs", "repeats", "merger", "reloaded"]


@dataclass(frozen=True)
class Condition:
    """A way of sending under its name, a merger, and whether the base's own embeddings are reloaded after it."""

    payload: str
    way: Way
    merger: str
    reloaded: bool = False

    def labels(self) -> dict[str, object]:
        """The columns that tell it from others; no bits for numbers that are sent analog, or not at all."""
        way, noisy = self.way, self.way.link.mean_mse > 0
        link = {"link": way.link.name, "scale": way.link.scale, "correlation": way.link.correlation}
        shown = link | {"signs": way.link.signs} if noisy else dict.fromkeys((*link, "signs"), "")
        rest = {"repeats": way.repeats, "merger": self.merger, "reloaded": self.reloaded}
        return {"payload": self.payload, "bits": way.bits, **shown, **rest}


def payloads() -> dict[str, tuple[Payload, tuple[int, ...]]]:
    """The payloads by name, with the bits of their numbers."""
    ranks = {f"rank {rank}": (LowRank(rank), (4, 3, 2)) for rank in (8, 4, 2, 1)}
    shares = {f"largest {share:.0%}": (Sparse(share), (3,)) for share in (0.1, 0.05, 0.02)}
    return {"full": (Full(), (4, 3, 2)), **ranks, **shares, "signs": (Signs(), (1,))}


def conditions() -> Iterator[Condition]:
    """Everything that is compared: exact, coded, analog at equal channel uses, and balanced signs."""
    for merger in MERGERS:
        yield Condition("full", Way(Full()), merger)
        for name, (payload, widths) in payloads().items():
            for bits in widths:
                yield Condition(name, Way(payload, bits), merger)
        for scale in ("task", "weight"):
            for correlation in ("independent", "half"):
                attacked = next(link for link in inject_mse(correlation, scale) if link.name == "SR")
                for name, payload, repeats in (
                    ("full", Full(), 1), ("rank 8", LowRank(8), 6), ("rank 4", LowRank(4), 13)
                ):  # fmt: skip
                    yield Condition(name, Way(payload, link=attacked, repeats=repeats), merger)
    for correlation in ("half", "common"):
        for link in inject_mse(correlation):
            for signs in ("plain", "balanced"):
                yield Condition("full", Way(Full(), link=replace(link, signs=signs)), "arithmetic", reloaded=True)


def merged(bench: Bench, condition: Condition, seed: int, split: str) -> TaskVector:
    """The users' vectors as they arrive and are merged; noise of its own for each seed and split."""
    taus = list(bench.suite.taus.values())
    generator = generator_for(seed, NOISE, int(split != "test"))
    arrived = arrivals(condition.way, taus, bench.suite.backbone.weights, generator=generator)
    tau = merge(condition.merger, arrived)
    return tau.without("embeddings") if condition.reloaded else tau


def chosen_lambda(bench: Bench, condition: Condition) -> float:
    """The lambda with which most validation images are classified, in the mean over the tasks."""
    tau, base = merged(bench, condition, 0, "validation"), bench.suite.backbone.weights

    def score(lam: float) -> float:
        return float(task_accuracies(bench, base + lam * tau, "validation", VALIDATION_IMAGES).mean())

    return choose_lambda(score, merger_named(condition.merger).grid, widen=True)[0]


def outages(bench: Bench, lam: float, own: pd.Series) -> Iterator[dict[str, object]]:
    """Rows of the answer without some of its users: over all tasks, those heard, and those lost."""
    names, base = list(bench.suite.taus), bench.suite.backbone.weights
    arrived = {name: LADDER[0].arrived(tau) for name, tau in bench.suite.taus.items()}
    for count in LOST:
        for start in STARTS:
            lost = [names[(start + place) % len(names)] for place in range(count)]
            heard = [name for name in names if name not in lost]
            model = base + lam * merge("tsv", [arrived[name] for name in heard])
            found = task_accuracies(bench, model, "test", TEST_IMAGES) / own
            for tasks, chosen in (("all", names), ("heard", heard), ("lost", lost)):
                yield {"lost": count, "tasks": tasks, "lam": lam, "normalized": float(found[chosen].mean())}


def rows(suites: int = SUITES) -> pd.DataFrame:
    """One row for each condition and suite, and for each outage."""
    every = list(conditions())
    bench = Bench(drawn_suite(DIFFICULTY, 0))
    lams = [chosen_lambda(bench, condition) for condition in every]
    found = []
    for seed in range(suites):
        bench = Bench(drawn_suite(DIFFICULTY, seed))
        base = bench.suite.backbone.weights
        counts = specialists(bench, TEST_IMAGES).set_index("task")
        own = counts["correct"] / counts["images"]
        for condition, lam in zip(every, lams, strict=True):
            model = base + lam * merged(bench, condition, seed, "test")
            score = (task_accuracies(bench, model, "test", TEST_IMAGES) / own).mean()
            found.append({**condition.labels(), "lost": 0, "tasks": "all", "seed": seed, "lam": lam,
                          "normalized": float(score)})  # fmt: skip
            if condition.merger == "tsv" and condition.way == Way(LowRank(8), 3):
                found += [{**condition.labels(), "seed": seed, **row} for row in outages(bench, lam, own)]
    return pd.DataFrame(found)


def summarised(table: pd.DataFrame) -> pd.DataFrame:
    """Means over suites with their intervals, lambda, the bits of a user, and its channel uses under SR."""
    keys = [*NAMES, "lost", "tasks"]
    means = over_seeds(table, keys)
    lams = table.groupby(keys, sort=False, dropna=False)["lam"].first().reset_index()
    layout = drawn_suite(DIFFICULTY, 0).backbone.weights.layout
    known = payloads()
    sizes = []
    for name, bits, repeats in zip(means["payload"], means["bits"], means["repeats"], strict=True):
        payload = known[name][0]
        if pd.notna(bits):
            sent = Quantised(payload, int(bits))
            under_sr = plan(0.21, layout, budget=10**9, ladder=[sent])
            sizes.append((sent.size(layout), under_sr.uses if under_sr else None))
        else:
            sizes.append((None, repeats * -(-payload.numbers_layout(layout).size // 2)))
    columns = pd.DataFrame(sizes, columns=["bits_a_user", "uses"])
    return pd.concat([means.merge(lams, on=keys), columns], axis=1)


def write(table: pd.DataFrame, path: Path) -> None:
    """Write both tables, and what made them."""
    layout = drawn_suite(DIFFICULTY, 0).backbone.weights.layout
    origin = {
        "settings": {
            "difficulty": DIFFICULTY, "suites": int(table["seed"].nunique()), "test_images": TEST_IMAGES,
            "validation_images": VALIDATION_IMAGES, "full_vector_uses": full_uses(layout),
        },
        "conditions": [condition.labels() for condition in conditions()],
    }  # fmt: skip
    tables = {path: summarised(table), path.with_name(f"{path.stem}_suites.csv"): table}
    write_results(tables, path.with_suffix(".json"), "python -m workflow.payloads", origin)


def main() -> None:
    """Compute everything, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--suites", type=int, default=SUITES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    write(rows(options.suites), options.out)


if __name__ == "__main__":
    main()
