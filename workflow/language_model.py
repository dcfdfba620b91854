"""A language model over the link: the paper's protection, both controls and the answer on public text tasks.

    python -m workflow.language_model --data text

fine-tunes MiniLM on the tasks in that folder and writes four files to `book/results`: `language_model.csv`, a row for
each condition with its lead over both controls and over the fusion without noise; `…_suites.csv`, the values of
every seed; `…_tasks.csv`, accuracies of base and specialists, task by task; and `….json`, the studies, the hashes of
the data and the versions. With `--payloads` it writes the payload files of seed 0 first, which the library ships.

A seed is that of the fine-tuning, and of noise, memory and order of training in the studies; the sentences are the
same. Lambda and learning rate are chosen once, with seed 0, on validation sentences. Everything that is computed is
stored in parts: stopped, it goes on where it was. The files are written anew after each part of a seed, and a later run
takes what they hold, and refuses those of other settings, data or versions; with `--anew` it begins again, as after a
change of the code.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed

from rmtllmf_lib.chapters.results import made
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import load_backbone
from rmtllmf_lib.model.minilm import FILES
from rmtllmf_lib.model.task_vector import cosine_matrix
from rmtllmf_lib.payload.low_rank import LowRank
from rmtllmf_lib.protection.realign import REALIGNMENT
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.study import Study
from rmtllmf_lib.study.suites import CHOSEN, CONDITION, GIVEN, by_suite, choices_in, leads, run_over_suites
from rmtllmf_lib.tasks.base import pinned_sample
from rmtllmf_lib.tasks.sources import parse_tasks
from rmtllmf_lib.training.evaluate import accuracy, prepare
from rmtllmf_lib.training.finetune import Recipe
from rmtllmf_lib.training.heads import build_head
from rmtllmf_lib.training.suite import Suite, assemble_suite, with_vectors
from rmtllmf_lib.transport.coded_payload import Quantised
from rmtllmf_lib.transport.payload_file import write_payload
from rmtllmf_lib.transport.scenario import CLEAN, inject_mse
from rmtllmf_lib.workers import allowed
from workflow.results import recorded_rows, versions, write_results

ROOT = Path(__file__).parents[1]
OUT = ROOT / "book" / "results" / "language_model.csv"
PAYLOADS = ROOT / "rmtllmf_lib" / "assets" / "minilm"

TASKS = ("trec", "snips", "mpqa", "sst2", "emotion", "banking", "subj", "agnews")  # those of short texts first
TEST, VALIDATION, PROTOTYPES = 100, 24, 100  # sentences of each task; the last are training sentences
SENT = Quantised(LowRank(24), 2)

# A quarter of the steps that the backbone's recipe has, counted in sentences: all users train alike.
TRAINED = Recipe(steps=60, batch_size=16, lr=1e-4, warmup_steps=6, freeze=("embeddings",))
REALIGNED = replace(REALIGNMENT, batch_size=32, lr=1e-4)

_OF_SUM = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6)
_OF_TSV = (0.75, 1.0, 1.25, 1.5)
LAMBDAS = {
    **dict.fromkeys(("unprotected", "freeze", "rmtllmf"), _OF_SUM),
    **dict.fromkeys(("merge-tsv", "coded-tsv", "coded-tsv-realigned"), _OF_TSV),
}

MAIN, LINKS, STRONGER = "main", "links", "stronger control"
Part: TypeAlias = tuple[int, str]

# Examples a class in the memory, and which of the conditions: the stronger control trains eight specialists for every
# model, and so takes as long as all others together.
PARTS: tuple[Part, ...] = (
    *((count, MAIN) for count in (0, 1, 10)), (0, LINKS), (2, MAIN), *((count, STRONGER) for count in (10, 1, 2))
)  # fmt: skip

# What the others are compared with, as columns.
NO_NOISE = ", no noise"
REFERENCES = {
    "control": ("control", "base"),
    "stronger": ("few-shot-specialists",),
    "noiseless": (f"rmtllmf{NO_NOISE}", f"unprotected{NO_NOISE}"),
}


def studies(per_class: int, kind: str, users: int = len(TASKS)) -> Iterator[Study]:
    """The studies of a part of the results; the learning rate of realignment is the same for every method.

    Under noise, sums have the published lambda as well, which knows nothing of the noise.
    """
    half = inject_mse("half")
    attacked = tuple(link for link in half if link.name == "SR")
    whole = Study(
        (), ("base",), seeds=1, per_class=(max(per_class, 1),), sizes=(users,), per_size=1, test_images=TEST,
        validation_images=VALIDATION, realignment=REALIGNED, lam_grid=LAMBDAS, sends=((24, 2),),
    )  # fmt: skip
    if kind == STRONGER:
        yield replace(whole, protections=("few-shot-specialists",))
    elif kind == LINKS:
        others = tuple(link for link in half if link not in attacked)
        unit_power = tuple(replace(link, name="SR, unit power", scale="task") for link in attacked)
        yield replace(whole, scenarios=(*half, *unit_power), protections=("unprotected",))
        yield replace(whole, scenarios=(CLEAN,), protections=("merge-tsv",))
        yield replace(whole, scenarios=others, protections=("freeze",))
        yield replace(whole, scenarios=others, protections=("unprotected", "freeze"), lam_grid={})
    elif per_class:
        yield replace(whole, protections=("control",))
        yield replace(whole, scenarios=(CLEAN, *attacked), protections=("rmtllmf",))
        yield replace(whole, scenarios=attacked, protections=("coded-tsv-realigned",))
    else:
        yield replace(whole, protections=("base",))
        yield replace(whole, scenarios=(CLEAN,), protections=("unprotected",))
        yield replace(whole, scenarios=attacked, protections=("freeze", "coded-tsv"))
        yield replace(whole, scenarios=attacked, protections=("unprotected", "freeze"), lam_grid={})


@lru_cache(maxsize=1)
def sentences(data: Path, users: int) -> Suite:
    """The first tasks of a folder and their heads, without vectors."""
    return assemble_suite(load_backbone("minilm"), parse_tasks(TASKS[:users], "folder", data), {})


@lru_cache(maxsize=2)
def public_suite(data: Path, users: int, seed: int) -> Suite:
    """The users of one seed: their specialists, trained or from the store."""
    return with_vectors(sentences(data, users), TRAINED, seed)


def train_user(data: Path, users: int, name: str, seed: int) -> None:
    """Put one user's vector into the store."""
    torch.set_num_threads(1)
    suite = sentences(data, users)
    with_vectors(replace(suite, tasks={name: suite.tasks[name]}, heads={name: suite.heads[name]}), TRAINED, seed)


def train_users(data: Path, users: int, seed: int, workers: int) -> None:
    """Put the vectors of one seed into the store, by several processes."""
    Parallel(workers)(delayed(train_user)(data, users, name, seed) for name in TASKS[:users])


def run_part(data: Path, users: int, part: Part, seed: int, before: pd.DataFrame, workers: int = 1) -> pd.DataFrame:
    """The rows of `by_suite` for a part of a seed, with the channel uses of all users.

    Those `before` are of the seeds before it, and say what seed 0 has chosen.
    """
    tables = []
    for study in studies(*part, users):
        chosen = choices_in(before, study) if seed else None
        suite_of = partial(public_suite, data, users)
        table = run_over_suites(study, suite_of, seed + 1, first=seed, chosen=chosen, workers=workers)
        of_grid = table["protection"].isin([*study.lam_grid])
        tables.append(table.assign(lam_rule=of_grid.map({True: CHOSEN, False: GIVEN})))
    table = pd.concat(tables, ignore_index=True)
    sent = table.groupby([*CONDITION, "seed"], dropna=False)["uses"].mean().rename("uses")
    return by_suite(table).join(sent, on=[*CONDITION, "seed"])


def tasks_table(data: Path, users: int, seed: int) -> pd.DataFrame:
    """Accuracies on the test sentences of each task, and the size of its vector.

    Returns
    -------
    DataFrame with columns seed, task, classes, zero_shot, prototype (the base with means of `PROTOTYPES` sentences for
    a head), fine_tuned, size (norm of the task vector over that of the base), cosine (largest to another task's vector)
    """
    suite, store = public_suite(data, users, seed), Store()
    base, names = suite.backbone.weights, list(suite.tasks)

    def of_base() -> pd.DataFrame:
        rows = []
        for name, task in suite.tasks.items():
            prepared = prepare(suite.backbone, task.test, limit=TEST)
            few = task.train.subset(pinned_sample(task.train.labels, PROTOTYPES, salt="prototypes", least=1))
            heads = suite.heads[name], build_head(suite.backbone, replace(task, train=few), "prototype")
            both = replace(heads[0], weight=torch.cat([head.weight for head in heads]))  # features are computed once
            found = prepared.logits(base, both).split(len(task.class_names), 1)
            rows.append((name, *(float((part.argmax(1) == prepared.split.labels).float().mean()) for part in found)))
        return pd.DataFrame(rows, columns=["task", "zero_shot", "prototype"])

    def of_specialists() -> pd.DataFrame:
        rows, near = [], cosine_matrix(list(suite.taus.values())) - np.eye(len(names))
        for place, (name, task) in enumerate(suite.tasks.items()):
            tau = suite.taus[name]
            test = prepare(suite.backbone, task.test, limit=TEST)
            own = accuracy(suite.backbone, base + tau, test, suite.heads[name])
            rows.append((seed, name, len(task.class_names), own, tau.norm / base.norm, near[place].max()))
        return pd.DataFrame(rows, columns=["seed", "task", "classes", "fine_tuned", "size", "cosine"])

    data_of = {name: [task.fingerprint, suite.heads[name].hash] for name, task in suite.tasks.items()}
    config: dict[str, Any] = {"base": base.hash, "data": data_of, "counts": [TEST, PROTOTYPES], "versions": versions()}
    taus = {name: tau.hash for name, tau in suite.taus.items()}
    own = store.table("language-model-specialists", {**config, "taus": taus, "seed": seed}, of_specialists)
    both = own.merge(store.table("language-model-base", config, of_base), on="task")
    return both[["seed", "task", "classes", "zero_shot", "prototype", "fine_tuned", "size", "cosine"]]


def summarised(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of `leads` over `REFERENCES`; means over seeds with their intervals."""
    clean = rows["protection"].isin(["rmtllmf", "unprotected"]) & (rows["scenario"] == CLEAN.name)
    named = rows.assign(protection=rows["protection"] + clean.map({True: NO_NOISE, False: ""}))
    every = [name for names in REFERENCES.values() for name in names if name in set(named["protection"])]
    table = leads(named, every)
    for reference, names in REFERENCES.items():
        for column in ("mean", "lead", "half_width"):
            columns = [f"{name}_{column}" for name in names if name in every]
            found = table[columns].bfill(axis=1).iloc[:, 0] if columns else float("nan")
            table = table.drop(columns=columns).assign(**{f"{reference}_{column}": found})
    return table.assign(protection=table["protection"].str.removesuffix(NO_NOISE))


def hashes(data: Path, users: int) -> dict[str, str]:
    """SHA-256 of every file of the tasks, by its path in the folder."""
    files = sorted(path for name in TASKS[:users] for path in (data / name).iterdir() if path.is_file())
    return {path.relative_to(data).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def settings(parts: Iterable[Part], users: int) -> dict[str, Any]:
    """What decided the results, beside data, versions and seeds."""
    described = [
        {"per_class": count, "kind": kind, "studies": [asdict(study) for study in studies(count, kind, users)]}
        for count, kind in parts
    ]
    counts = {"test": TEST, "validation": VALIDATION, "prototypes": PROTOTYPES}
    return {"tasks": TASKS[:users], "trained": asdict(TRAINED), **counts, "parts": described}


@dataclass
class Results:
    """What has been computed: rows of `by_suite`, those of `tasks_table`, and seeds with the parts that they have."""

    rows: pd.DataFrame
    tasks: pd.DataFrame
    done: list[tuple[int, Part]]

    def origin(self, data: Path, users: int) -> dict[str, Any]:
        """What decided them, as in the JSON file."""
        parts = [*dict.fromkeys(part for _, part in self.done)]
        done = [{"seed": seed, "per_class": count, "kind": kind} for seed, (count, kind) in self.done]
        return {
            "base": FILES["model.safetensors"],
            "data": hashes(data, users),
            "settings": settings(parts, users),
            "done": done,
        }

    def write(self, data: Path, users: int, path: Path) -> None:
        """Write the tables, and what made them."""
        own = {path: summarised(self.rows), path.with_name(f"{path.stem}_suites.csv"): self.rows}
        tables = {**own, path.with_name(f"{path.stem}_tasks.csv"): self.tasks}
        origin = self.origin(data, users)
        write_results(tables, path.with_suffix(".json"), "python -m workflow.language_model", origin)


def begun(data: Path, users: int, path: Path) -> Results:
    """What the files at `path` hold already; an InputError where other settings, data or versions made them."""
    if not path.with_suffix(".json").is_file():
        return Results(pd.DataFrame(), pd.DataFrame(), [])
    record = made(path.stem, path.parent)
    done = [(each["seed"], (each["per_class"], each["kind"])) for each in record.get("done", [])]
    rows, tasks = (recorded_rows(path.with_name(f"{path.stem}_{kind}.csv"), record) for kind in ("suites", "tasks"))
    found = Results(rows, tasks, done)
    again = json.loads(json.dumps({"versions": versions(), **found.origin(data, users)}))
    if any(record.get(name) != value for name, value in again.items()):
        raise InputError(
            f"{path} is of other settings, data or versions than those asked for, so it cannot be gone on with: give "
            "another --out, or --anew to replace it"
        )
    return found


def write_payloads(data: Path, users: int, folder: Path = PAYLOADS) -> None:
    """Write the payload files of seed 0, one for each task."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, tau in public_suite(data, users, 0).taus.items():
        write_payload(folder / f"{name}.payload", replace(tau, info={**tau.info, "task": name, "seed": "0"}), SENT)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute the parts, seed by seed, and write the tables after each of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder for each of the tasks")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--users", type=int, default=len(TASKS), help="tasks, from the first")
    parser.add_argument("--parts", type=int, default=len(PARTS), help="how many of them, from the first")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--anew", action="store_true", help="replace what is in the files")
    parser.add_argument("--payloads", action="store_true", help="write the payload files of seed 0 first")
    options = parser.parse_args(arguments)
    data, users = options.data, options.users
    torch.set_num_threads(1)
    workers = allowed(options.workers)
    for name in TASKS[:users]:
        if not (data / name).is_dir():
            raise InputError(f"{data} has no folder {name}: expected one for each of {', '.join(TASKS[:users])}")
    found = Results(pd.DataFrame(), pd.DataFrame(), []) if options.anew else begun(data, users, options.out)
    if options.payloads:
        train_users(data, users, 0, workers)
        write_payloads(data, users)
    for seed in range(options.seeds):
        if any((seed, part) not in found.done for part in PARTS[: options.parts]):
            train_users(data, users, seed, workers)
        if seed not in {number for number, _ in found.done}:
            found.tasks = pd.concat([found.tasks, tasks_table(data, users, seed)], ignore_index=True)
        for part in PARTS[: options.parts]:
            if (seed, part) not in found.done:
                rows = run_part(data, users, part, seed, found.rows, workers)
                found.rows = pd.concat([found.rows, rows], ignore_index=True)
                found.done.append((seed, part))
                found.write(data, users, options.out)
                print(f"seed {seed}, {part[0]} a class, {part[1]}: written", flush=True)


if __name__ == "__main__":
    main()
