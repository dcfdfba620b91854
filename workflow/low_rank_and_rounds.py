"""What users may train in place of whole weights, and what several rounds buy: LoRA, L-LoRA and federated averaging.

    python -m workflow.low_rank_and_rounds

writes three files to `book/results`: `low_rank_and_rounds.csv`, one row for each condition with its interval over
suites; `…_suites.csv`, the values of every suite; and `….json`, the settings and versions. Learning rates and lambda
are chosen on validation images of suite 0, all scores are those of test images. Everything that is trained is stored:
stopped, it goes on where it was. The files are written anew after each suite, and a later run takes from them the
suites that they hold, and refuses those of other settings or versions; with `--anew` it begins again, as after a
change of the code. Chapter 9 shows the tables.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import torch

from rmtllmf_lib import __version__
from rmtllmf_lib.chapters.results import made
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.arithmetic import choose_lambda
from rmtllmf_lib.fusion.mergers import merge
from rmtllmf_lib.model.backbone import load_backbone
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.payload.lora import ALL, ATTENTION, Lora
from rmtllmf_lib.seeds import generator_for
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.intervals import over_seeds
from rmtllmf_lib.study.units import Bench
from rmtllmf_lib.training.evaluate import predictions
from rmtllmf_lib.training.fedavg import federated_averaging
from rmtllmf_lib.training.finetune import Recipe, recipe_for
from rmtllmf_lib.training.lora import finetune_lora
from rmtllmf_lib.training.suite import Suite, load_suite
from rmtllmf_lib.transport.scenario import Scenario, inject_mse
from workflow.results import recorded_rows, versions, write_results

OUT = Path(__file__).parents[1] / "book" / "results" / "low_rank_and_rounds.csv"
DIFFICULTY = "calibrated"
SUITES = 5
VALIDATION_IMAGES, TEST_IMAGES = 100, 250
FULL = "full"
ADAPTERS = {
    "LoRA, all": Lora(4, 4.0, ALL),
    "LoRA, q and v": Lora(4, 4.0, ("q", "v")),
    "L-LoRA, all": Lora(4, 4.0, ALL, frozen=True),
    "L-LoRA, attention": Lora(4, 4.0, ATTENTION, frozen=True),
}
RATES, MOST_RATES = (1e-2, 2e-2), 5
CHOSEN_ON = ("cars", "digits")  # the tasks whose validation images choose the learning rate
LAMBDAS = {
    "arithmetic": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    "tsv": (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0),
}
ROUNDS, LOCAL_STEPS = 8, 10
TRAINING, AVERAGING = range(2)  # purposes of random numbers
SPECIALISTS = "specialists"  # in place of a merger: each task by its own model
Row: TypeAlias = dict[str, Any]
KEYS = ["method", "numbers", "merger", "link", "round", "uses"]


@dataclass(frozen=True)
class Chosen:
    """What validation images of suite 0 have decided."""

    rates: Mapping[str, float]
    lams: Mapping[tuple[str, str], float]


def bench_of(seed: int) -> Bench:
    """The eight drawn tasks of one seed."""
    return Bench(load_suite(load_backbone("tiny"), difficulty=DIFFICULTY, seed=seed))


def scores(bench: Bench, models: Mapping[str, Weights], split: str = "test") -> pd.Series:
    """Accuracy of a model on each task that is named."""
    images, found = {"test": TEST_IMAGES, "validation": VALIDATION_IMAGES}[split], {}
    for name, weights in models.items():
        prepared = bench.prepared(name, split, images)
        predicted = predictions(bench.suite.backbone, weights, prepared, bench.suite.heads[name])
        found[name] = float((predicted == prepared.split.labels).float().mean())
    return pd.Series(found)


def identity(suite: Suite, names: Iterable[str]) -> Row:
    """What decides the training of some users, beside its settings, as a key of the store."""
    return {
        "base": suite.backbone.weights.hash,
        "data": [suite.tasks[name].fingerprint for name in names],
        "heads": [suite.heads[name].hash for name in names],
        "versions": {"rmtllmf": __version__, "torch": torch.__version__},
    }


def adapted(bench: Bench, lora: Lora, name: str, seed: int, lr: float) -> TaskVector:
    """The vector of one user who trains the factors of an adapter, from the store or trained."""
    suite = bench.suite
    recipe, place = recipe_for(suite.backbone, lr=lr), list(suite.tasks).index(name)
    config = {**identity(suite, [name]), "lora": asdict(lora), "recipe": asdict(recipe), "seed": [seed, place]}

    def train() -> dict[str, torch.Tensor]:
        generator = generator_for(seed, TRAINING, place)
        made = finetune_lora(suite.backbone, suite.tasks[name], suite.heads[name], lora, recipe, generator=generator)
        return {"numbers": made.encoded.numbers.values}

    layout = suite.backbone.weights.layout
    values = Store().tensors("low-rank-factors", config, train)["numbers"]
    numbers = TaskVector(lora.numbers_layout(layout), values, suite.backbone.weights.hash, {"task": name})
    return lora.decode(lora.encoded(numbers), layout)


def chosen_rate(bench: Bench, lora: Lora) -> float:
    """The learning rate with the best specialists on validation images; beyond the grid at its ends."""
    base = bench.suite.backbone.weights
    means: dict[float, float] = {}
    wanted = list(RATES)
    while wanted and len(means) < MOST_RATES:
        for lr in wanted:
            models = {name: base + adapted(bench, lora, name, 0, lr) for name in CHOSEN_ON}
            means[lr] = float(scores(bench, models, "validation").mean())
        best = max(means, key=lambda lr: means[lr])
        wanted = [2 * best] if best == max(means) else [best / 2] if best == min(means) else []
    print(lora, {lr: round(mean, 4) for lr, mean in means.items()}, flush=True)
    return best


def vectors(bench: Bench, seed: int, rates: Mapping[str, float]) -> dict[str, dict[str, TaskVector]]:
    """The users' vectors by method: whole ones, and those of every adapter."""
    names = list(bench.suite.tasks)
    trained = {
        method: {name: adapted(bench, ADAPTERS[method], name, seed, lr) for name in names}
        for method, lr in rates.items()
    }
    return {FULL: dict(bench.suite.taus), **trained}


def chosen_lambdas(bench: Bench, trained: Mapping[str, Mapping[str, TaskVector]]) -> dict[tuple[str, str], float]:
    """The lambda of each method and merger with which most validation images are classified."""
    base, found = bench.suite.backbone.weights, {}
    for method, taus in trained.items():
        for merger, grid in LAMBDAS.items():
            tau = merge(merger, list(taus.values()))

            def score(lam: float, tau: TaskVector = tau) -> float:
                return float(scores(bench, dict.fromkeys(bench.suite.tasks, base + lam * tau), "validation").mean())

            found[method, merger] = choose_lambda(score, grid, widen=True)[0]
    return found


def merged_rows(bench: Bench, trained: Mapping[str, Mapping[str, TaskVector]], chosen: Chosen) -> Iterator[Row]:
    """Rows of every method: its specialists, and its vectors merged."""
    base, layout = bench.suite.backbone.weights, bench.suite.backbone.weights.layout
    own = scores(bench, {name: base + tau for name, tau in bench.suite.taus.items()})
    for method, taus in trained.items():
        numbers = ADAPTERS[method].numbers_layout(layout).size if method in ADAPTERS else layout.size
        about = {"method": method, "numbers": numbers, "link": "clean", "round": 1, "uses": -(-numbers // 2)}
        about |= {"lr": chosen.rates.get(method)}
        specialists = scores(bench, {name: base + tau for name, tau in taus.items()})
        yield about | {"merger": SPECIALISTS, "accuracy": specialists.mean(), "normalized": (specialists / own).mean()}
        for merger in LAMBDAS:
            lam = chosen.lams[method, merger]
            model = base + lam * merge(merger, list(taus.values()))
            found = scores(bench, dict.fromkeys(taus, model))
            yield about | {"merger": merger, "lam": lam, "accuracy": found.mean(), "normalized": (found / own).mean()}


def averaging_rows(bench: Bench, seed: int) -> Iterator[Row]:
    """Rows of federated averaging after each round, without errors and with those of SR in every upload."""
    suite, base = bench.suite, bench.suite.backbone.weights
    own = scores(bench, {name: base + tau for name, tau in suite.taus.items()})
    recipe = recipe_for(suite.backbone, steps=LOCAL_STEPS)
    attacked = next(link for link in inject_mse("half", "task") if link.name == "SR")
    about = {"method": "FedAvg", "numbers": base.layout.size, "merger": "average"}
    for label, link in {"clean": None, "SR": attacked}.items():
        config = {
            **identity(suite, suite.tasks), "recipe": asdict(recipe), "rounds": ROUNDS, "seed": seed,
            "link": link and asdict(link), "test_images": TEST_IMAGES,
        }  # fmt: skip
        table = Store().table("federated-averaging", config, partial(after_rounds, bench, recipe, link, seed))
        for number, part in table.groupby("round"):
            ratios = part.set_index("task")["accuracy"] / own
            yield {
                **about, "link": label, "round": number, "uses": int(part["uses"].iloc[0]), "lr": recipe.lr,
                "lam": 1 / len(suite.tasks), "accuracy": part["accuracy"].mean(), "normalized": ratios.mean(),
            }  # fmt: skip


def after_rounds(bench: Bench, recipe: Recipe, link: Scenario | None, seed: int) -> pd.DataFrame:
    """Accuracy of each task after each round: round, uses, task, accuracy."""
    suite, rows = bench.suite, []
    generator = generator_for(seed, AVERAGING)
    for each in federated_averaging(
        suite.backbone, suite.tasks, suite.heads, recipe, ROUNDS, link=link, generator=generator
    ):
        found = scores(bench, dict.fromkeys(suite.tasks, each.model))
        rows += [(each.number, each.uses, name, value) for name, value in found.items()]
    return pd.DataFrame(rows, columns=["round", "uses", "task", "accuracy"])


def settings_of_study() -> dict[str, Any]:
    """Everything that decides the rows of a suite."""
    return {
        "difficulty": DIFFICULTY, "test_images": TEST_IMAGES, "validation_images": VALIDATION_IMAGES,
        "adapters": {name: asdict(each) for name, each in ADAPTERS.items()},
        "rates": RATES, "most_rates": MOST_RATES, "rates_chosen_on": CHOSEN_ON,
        "lambdas": LAMBDAS, "rounds": ROUNDS, "local_steps": LOCAL_STEPS,
        "recipe": asdict(recipe_for(load_backbone("tiny"))),
    }  # fmt: skip


def write(rows: pd.DataFrame, path: Path) -> None:
    """Write both tables, and what made them."""
    means = over_seeds(rows, KEYS)
    settings = rows.groupby(KEYS, sort=False, dropna=False)[["lr", "lam"]].first().reset_index()
    tables = {path: means.merge(settings, on=KEYS), path.with_name(f"{path.stem}_suites.csv"): rows}
    origin = {"settings": {**settings_of_study(), "suites": int(rows["seed"].nunique())}}
    write_results(tables, path.with_suffix(".json"), "python -m workflow.low_rank_and_rounds", origin)


def begun(path: Path) -> pd.DataFrame:
    """The rows of the suites that the tables at `path` hold already; InputError for those of others."""
    if not path.with_suffix(".json").is_file():
        return pd.DataFrame()
    record = made(path.stem, path.parent)
    rows = recorded_rows(path.with_name(f"{path.stem}_suites.csv"), record)
    settings = {**settings_of_study(), "suites": int(rows["seed"].nunique())}
    if record["versions"] != versions() or record["settings"] != json.loads(json.dumps(settings)):
        raise InputError(
            f"{path} is of other settings or versions, so it cannot be gone on with: give another --out, or --anew to "
            "replace it"
        )
    return rows


def choices(rows: pd.DataFrame) -> Chosen:
    """What suite 0 has chosen, read from the rows of a table."""
    first = rows[(rows["seed"] == 0) & rows["method"].isin([FULL, *ADAPTERS])]
    rates = first[(first["merger"] == SPECIALISTS) & first["lr"].notna()]
    lams = first[first["merger"] != SPECIALISTS].set_index(["method", "merger"])["lam"]
    return Chosen(dict(zip(rates["method"], rates["lr"], strict=True)), lams.to_dict())


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute one suite after the other, and write the tables after each of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--suites", type=int, default=SUITES)
    parser.add_argument("--anew", action="store_true", help="replace what is in the files")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = pd.DataFrame() if options.anew else begun(options.out)
    held = rows["seed"].nunique() if len(rows) else 0
    print(f"{held} of {options.suites} suites are in {options.out}", flush=True)
    chosen = choices(rows) if held else None
    for seed in range(held, options.suites):
        bench = bench_of(seed)
        if chosen is None:
            rates = {method: chosen_rate(bench, lora) for method, lora in ADAPTERS.items()}
            chosen = Chosen(rates, chosen_lambdas(bench, vectors(bench, seed, rates)))
        found = [*merged_rows(bench, vectors(bench, seed, chosen.rates), chosen), *averaging_rows(bench, seed)]
        rows = pd.concat([rows, pd.DataFrame([{"seed": seed, **row} for row in found])], ignore_index=True)
        write(rows, options.out)


if __name__ == "__main__":
    main()
