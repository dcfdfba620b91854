"""Studies as small JSON files: the suite of users, and the study.

    {"suite": {"backbone": "tiny", "tasks": ["signs", "digits"]},
     "study": {"scenarios": [{"name": "ideal", "mse": 0.013, "scale": "weight", "correlation": "half"}],
               "protections": ["unprotected", "rmtllmf", "control"], "seeds": 5}}

Settings that are left out have their defaults. `save_study` writes all of them. With `"suites": 5` beside them, and one
seed in the study, the repetitions are five suites, with data and fine-tuning of their own: see `suites`.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar

import pandas as pd
from pydantic import Field, NonNegativeInt, PositiveInt

from rmtllmf_lib.arrays import file_path
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import Backbone, load_backbone
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.storage.atomic import atomic_write
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.intervals import over_seeds
from rmtllmf_lib.study.study import Study, run_study, write_table
from rmtllmf_lib.study.suites import run_over_suites
from rmtllmf_lib.tasks.base import TASK_NAMES
from rmtllmf_lib.tasks.embedded.difficulty import severity
from rmtllmf_lib.tasks.sources import parse_tasks
from rmtllmf_lib.training.finetune import Recipe, recipe_for
from rmtllmf_lib.training.loading import resolve_device
from rmtllmf_lib.training.suite import Suite, load_suite, with_vectors
from rmtllmf_lib.transport.scenario import CLEAN, inject_mse
from rmtllmf_lib.validated import validated, validated_call
from rmtllmf_lib.workers import allowed


@validated
class SuiteSpec:
    """The users of a study; each field as in `load_suite` and `load_backbone`, with `~` for the home folder.

    `steps` are those of the fine-tuning; default the backbone's recipe.
    """

    backbone: str = "tiny"
    weights_file: str | None = None
    tasks: Annotated[tuple[str, ...], Field(min_length=1)] = TASK_NAMES
    source: str = "procedural"
    root: str | None = None
    head: str = "text"
    vectors: str | None = None
    seed: NonNegativeInt = 0
    autocast: str | None = None
    difficulty: str | float | None = None
    steps: PositiveInt | None = None

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if self.difficulty is not None:
            severity(self.difficulty)
        for name in ("backbone", "weights_file", "root", "vectors"):
            if path := getattr(self, name):
                object.__setattr__(self, name, os.path.expanduser(path))

    def load(self, *, device: str = "cpu", store: Store | None = None) -> Suite:
        """The suite, with task vectors from files or the store, or trained."""
        settings = asdict(self)
        backbone = load_backbone(settings.pop("backbone"), weights_file=settings.pop("weights_file"))
        settings["recipe"] = self._recipe(backbone, settings.pop("steps"))
        return load_suite(backbone, settings.pop("tasks"), **settings, device=device, store=store)

    def again(self, suite: Suite, seed: int, *, store: Store | None = None) -> Suite:
        """The suite of another seed: that of this one, whose real images are not read again, with other vectors.

        Raises
        ------
        InputError
            for users whose images are drawn, which have others for each seed, or whose vectors come from files.
        """
        specs = parse_tasks(self.tasks, self.source, Path(self.root) if self.root else None)
        if any(spec.source == "procedural" for spec in specs):
            raise InputError(f"seed is {seed} but images are drawn anew for each seed: load the suite of that seed")
        if self.vectors is not None:
            raise InputError(f"vectors are those in {self.vectors}: leave them out, to train some with seed {seed}")
        recipe = self._recipe(suite.backbone, self.steps)
        return with_vectors(suite, recipe, seed, autocast=self.autocast, store=store)

    @staticmethod
    def _recipe(backbone: Backbone, steps: int | None) -> Recipe | None:
        return None if steps is None else recipe_for(backbone, steps=steps)


@dataclass(frozen=True)
class _File:
    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True}

    study: Study
    suite: SuiteSpec = field(default_factory=SuiteSpec)
    suites: PositiveInt | None = None


@validated_call
def load_study(path: str | Path) -> tuple[Study, SuiteSpec]:
    """Read a study file; how many suites it asks for is left to `run_study_file`. Errors as in `read_study`."""
    found = _read(path)
    return found.study, found.suite


@validated_call
def read_study(path: str | Path) -> tuple[Study, SuiteSpec, int | None]:
    """Read a study file, with the number of suites that it asks for, None without one.

    Raises
    ------
    InputError
        for invalid JSON, unknown or missing fields, and values of another type or out of range; the message lists all
        of them with their places in the file.
    """
    found = _read(path)
    return found.study, found.suite, found.suites


def _read(path: str | Path) -> _File:
    from pydantic import TypeAdapter, ValidationError

    path = file_path(path, "path")
    try:
        return TypeAdapter(_File).validate_json(path.read_bytes())
    except ValidationError as error:
        problems = []
        for part in error.errors(include_url=False):
            place = ".".join(map(str, part["loc"])) or "the file"
            value = "" if isinstance(part["input"], dict | bytes) else f" is {part['input']!r}"
            problems.append(f"{place}{value}: {part['msg']}")
        raise InputError(f"{path} is not a study file: " + "; ".join(problems)) from None


@validated_call
def save_study(path: str | Path, study: Study, suite: SuiteSpec | None = None) -> None:
    """Write a study file with all settings, defaults included."""
    content = {"suite": asdict(suite or SuiteSpec()), "study": asdict(study)}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def example() -> Study:
    """An example study of a few minutes: the paper's three MSEs for all eight tasks."""
    return Study(
        scenarios=(CLEAN, *inject_mse("half")),
        protections=("unprotected", "rmtllmf", "noise-aware", "control", "base"),
        sizes=(len(TASK_NAMES),),
    )


@validated_call
def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean normalised accuracy of each condition over tasks and combinations, with its interval over the seeds."""
    rows = over_seeds(table, ["scenario", "protection", "per_class", "n_tasks"])
    return rows.round({"mean": 3, "half_width": 3}).rename(columns={"n": "seeds"})


@validated_call
def run_study_file(
    path: str | Path,
    out: str | Path | None = None,
    *,
    workers: int = 1,
    device: str = "cpu",
    store: Store | None = None,
) -> pd.DataFrame:
    """The table of the study in a file, see `run_study` and `run_over_suites`; an interrupted study resumes.

    Parameters
    ----------
    out : path, optional
        Output file for the table, see `write_table`.
    workers, device, store
        As in `run_study` and `load_suite`.
    """
    allowed(workers)
    resolve_device(device)
    found = _read(path)
    study, spec = found.study, found.suite
    suite = spec.load(device=device, store=store)
    if found.suites is None:
        table = run_study(study, suite, store=store, workers=workers)
    else:

        def suite_of(number: int) -> Suite:
            return replace(spec, seed=spec.seed + number).load(device=device, store=store) if number else suite

        table = run_over_suites(study, suite_of, found.suites, store=store, workers=workers)
    if out is not None:
        write_table(table, out, study, suite, suites=found.suites)
    return table
