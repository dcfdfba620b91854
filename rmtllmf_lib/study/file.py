"""A study in a small JSON file: who the users are, and what to compute.

    {"suite": {"backbone": "tiny", "tasks": ["signs", "digits"]},
     "study": {"scenarios": [{"name": "ideal", "mse": 0.013, "scale": "weight", "correlation": "half"}],
               "protections": ["unprotected", "rmtllmf", "control"], "seeds": 5}}

What is left out has its default. `save_study` writes every setting.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

import pandas as pd

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import load_backbone
from rmtllmf_lib.storage.atomic import atomic_write
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.intervals import over_seeds
from rmtllmf_lib.study.study import Study, run_study, write_table
from rmtllmf_lib.tasks.base import TASK_NAMES
from rmtllmf_lib.training.suite import Suite, load_suite
from rmtllmf_lib.transport.scenario import CLEAN, inject_mse


@dataclass(frozen=True)
class SuiteSpec:
    """Who the users are; each field as in `load_suite` and `load_backbone`."""

    backbone: str = "tiny"
    checkpoint: str | None = None
    tasks: tuple[str, ...] = TASK_NAMES
    source: str = "procedural"
    root: str | None = None
    head: str = "text"
    vectors: str | None = None
    seed: int = 0
    autocast: str | None = None

    def load(self, *, device: str = "cpu", store: Store | None = None) -> Suite:
        """The suite, its task vectors from files or the store, or trained."""
        backbone = load_backbone(self.backbone, weights_file=self.checkpoint)
        return load_suite(
            backbone, self.tasks, source=self.source, root=self.root, head=self.head, vectors=self.vectors,
            seed=self.seed, device=device, autocast=self.autocast, store=store,
        )  # fmt: skip


@dataclass(frozen=True)
class _File:
    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True}

    study: Study
    suite: SuiteSpec = field(default_factory=SuiteSpec)


def load_study(path: str | Path) -> tuple[Study, SuiteSpec]:
    """Read a study file.

    Raises
    ------
    InputError
        No JSON, an unknown or missing field, a value of another type, or one that `Study` refuses; all at once, each
        with its place in the file.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        found = TypeAdapter(_File).validate_json(Path(path).read_bytes())
    except ValidationError as error:
        told = [f"{'.'.join(map(str, part['loc'])) or 'the file'}: {part['msg']}" for part in error.errors()]
        raise InputError(f"{path} is no study file: " + "; ".join(told)) from None
    return found.study, found.suite


def save_study(path: str | Path, study: Study, suite: SuiteSpec | None = None) -> None:
    """Write a study file with every setting, defaults too."""
    content = {"suite": asdict(suite or SuiteSpec()), "study": asdict(study)}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def example() -> Study:
    """A study of a few minutes, to begin with: the paper's three MSEs for all eight tasks."""
    return Study(
        scenarios=(CLEAN, *inject_mse("half")),
        protections=("unprotected", "rmtllmf", "noise-aware", "control", "base"),
        sizes=(len(TASK_NAMES),),
    )


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Normalised accuracy of each condition: mean over tasks and combinations, with its interval over the seeds."""
    rows = over_seeds(table, ["scenario", "protection", "per_class", "n_tasks"])
    return rows.assign(mean=rows["mean"].round(3), half_width=rows["half_width"].round(3)).rename(
        columns={"n": "seeds"}
    )


def run_study_file(
    path: str | Path,
    out: str | Path | None = None,
    *,
    workers: int = 1,
    device: str = "cpu",
    store: Store | None = None,
) -> pd.DataFrame:
    """Run the study of a file, see `run_study`; a study that was stopped goes on where it was.

    Parameters
    ----------
    out : path, optional
        Where the table goes, as parquet; a JSON file beside it, `<name>.provenance.json`, tells what it
        was made from.
    workers, device, store
        As in `run_study` and `load_suite`.
    """
    study, spec = load_study(path)
    suite = spec.load(device=device, store=store)
    table = run_study(study, suite, store=store, workers=workers)
    if out is not None:
        write_table(table, out, study, suite)
    return table
