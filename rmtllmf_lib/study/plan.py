"""What a study will cost before anything starts: jobs, hours, disk and memory of each stage, from rates of a machine.

Work is counted exactly where the study file decides it, and divided by rates. The rates are those that
`python -m benchmarks.gpu --json FILE` measured on the machine, or `PROJECTED` where there is none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd
from pydantic import PositiveInt

from rmtllmf_lib.arrays import real_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import OPENAI_VIT
from rmtllmf_lib.model.foreign import read_json
from rmtllmf_lib.protection.resilience import protection_named
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.study.file import SuiteSpec
from rmtllmf_lib.study.study import Study
from rmtllmf_lib.tasks.base import VALIDATION_AT_MOST
from rmtllmf_lib.tasks.inventory import OFFICIAL
from rmtllmf_lib.tasks.vision import EUROSAT_TEST_FRACTION
from rmtllmf_lib.training.combinations import sample_combinations
from rmtllmf_lib.training.finetune import RECIPES
from rmtllmf_lib.validated import validated, validated_call

CHUNK = 8  # models in a part of a study
PIXELS = 3 * 224**2  # bytes of a decoded image
TOWER = 4 * 86_192_640  # bytes of ViT-B/16's image tower
FORWARD = 35.1e9  # operations of its forward pass


@validated
class Rates:
    """What a machine does: images a second, and seconds for one vector or model of ViT-B/16's size.

    Attributes
    ----------
    train_images, cropped_images : float
        Of fine-tuning: on the device alone, and with images that are decoded and cropped by the host.
    test_images, realigned_images, rounded_images : float
        Of evaluation, of realignment in float32, and of realignment with matrix products in bfloat16.
    fuse_s, noise_s : float
        To fuse eight vectors, and to draw the errors of eight.
    train_gib : float
        Memory of the device in fine-tuning.
    source : str
        How the rates were found.
    """

    train_images: float
    cropped_images: float
    test_images: float
    realigned_images: float
    rounded_images: float
    fuse_s: float
    noise_s: float
    train_gib: float
    source: str

    __repr__ = short_repr

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name != "source":
                a_rate = field.name.endswith("images")
                real_number(getattr(self, field.name), field.name, minimum=0, positive=a_rate)


# Assumed, not measured: an H100 (SXM) with 989 TFLOP/s in bfloat16 and 67 in float32 (its data sheet), of which
# training gets .35 and float32 .6. A host with 16 cores, of which 8 decode and crop, at .007 s an image and core.
PROJECTED = Rates(
    train_images=0.35 * 989e12 / (3 * FORWARD),
    cropped_images=8 / 0.007,
    test_images=0.6 * 67e12 / FORWARD,
    realigned_images=0.6 * 67e12 / (3 * FORWARD),
    rounded_images=0.35 * 989e12 / (3 * FORWARD),
    fuse_s=0.1,
    noise_s=1.7,
    train_gib=40.0,
    source="projected for an H100, not measured",
)


@dataclass(frozen=True)
class Counts:
    """Work of a study, counted.

    Attributes
    ----------
    vectors : int
        Fine-tunings.
    models, parts : int
        Models that are scored, and stored parts that they are computed in.
    trained, realigned, tested : int
        Images that pass through training, realignment and evaluation, each time counted.
    draws : int
        Times that the errors of all users are drawn.
    kept : int
        Images of validation and test sets that are kept decoded.
    rounded : bool
        Whether the realignment multiplies matrices in bfloat16.
    """

    vectors: int
    models: int
    parts: int
    trained: int
    realigned: int
    tested: int
    draws: int
    kept: int
    rounded: bool

    __repr__ = short_repr


@validated_call
def read_rates(path: str | Path) -> Rates:
    """Rates from a file of `python -m benchmarks.gpu --json FILE`; `InputError` for any other, or a small tower's."""
    content = read_json(path)
    rates, machine = content.get("rates"), content.get("machine")
    names = [field.name for field in fields(Rates) if field.name != "source"]
    if not isinstance(rates, dict) or not isinstance(machine, str) or not all(name in rates for name in names):
        raise InputError(f"{path} holds no rates: expected a file of `python -m benchmarks.gpu --json {path}`")
    if content.get("small"):
        raise InputError(f"{path} holds the rates of a small tower: measure ViT-B/16's, without --small")
    return Rates(**{name: float(rates[name]) for name in names}, source=f"measured on {machine}")


@validated_call
def count_work(study: Study, suite: SuiteSpec, suites: PositiveInt | None = None) -> Counts:
    """Count the work of a study of the paper's data sets on ViT-B/16.

    A realignment counts with the study's recipe; protections that train more, such as few-shot specialists, take
    longer. Choices of lambda inside a protection are not counted.

    Parameters
    ----------
    suites : int, optional
        As in a study file: fine-tunings and models of so many seeds.

    Raises
    ------
    InputError
        for another backbone, or a task that is none of the eight data sets.
    """
    if suite.backbone != OPENAI_VIT:
        raise InputError(f"backbone is {suite.backbone!r}: expected {OPENAI_VIT!r}, whose work is counted here")
    names = tuple(text.rpartition(":")[2].partition("=")[0] for text in suite.tasks)
    if unknown := [name for name in names if name not in OFFICIAL]:
        raise InputError(f"task {unknown[0]!r} has an unknown number of images: expected {', '.join(OFFICIAL)}")
    sizes = {name: _splits(name) for name in names}
    combinations = sample_combinations(names, study.sizes, study.per_size, study.first_seed)
    by_size = [sum(len(c) == size for c in combinations) for size in {len(c) for c in combinations}]
    chunks = sum(math.ceil(count / CHUNK) for count in by_size)

    def images(split: int, limit: int | None) -> int:
        """Images of all combinations' tasks."""
        each = {name: min(sizes[name][split], limit or sizes[name][split]) for name in names}
        return sum(each[name] for combination in combinations for name in combination)

    repeats = suites or 1
    models = parts = realigned = tested = draws = 0
    for name in study.protections:
        protection = protection_named(name)
        for scenario in study.scenarios if protection.receives else (None,):
            for count in study.per_class if protection.remembers else (0,):
                noisy = scenario is not None and scenario.mean_mse > 0 and protection.sends is None
                seeds = repeats * (study.seeds if count or noisy else 1)  # others are the same for each seed
                models += seeds * len(combinations)
                parts += seeds * chunks
                tested += seeds * images(2, study.test_images)
                draws += seeds * bool(noisy)
                if protection.trains:
                    steps = study.realignment.steps * study.realignment.batch_size
                    realigned += seeds * len(combinations) * steps
                    tested += len(study.lr_grid) * images(1, study.validation_images) * (name not in study.lr)
                    realigned += len(study.lr_grid) * steps * (name not in study.lr)
                tested += len(study.lam_grid.get(name, ())) * images(1, study.validation_images)
    recipe = RECIPES[OPENAI_VIT]
    vectors = 0 if suite.vectors else len(names) * repeats
    each = (suite.steps or recipe.steps) * recipe.batch_size
    scored = sum(sizes[name][2] * 2 + sizes[name][1] for name in names) * repeats if vectors else 0
    kept = sum(sizes[name][1] + sizes[name][2] for name in names)
    return Counts(vectors, models, parts, vectors * each, realigned, tested + scored, draws, kept, bool(study.autocast))


def _splits(name: str) -> tuple[int, int, int]:
    """Training, validation and test images of a data set; where it has no split, a fifth is for testing."""
    official = OFFICIAL[name]
    test = official[1] if len(official) == 2 else round(EUROSAT_TEST_FRACTION * official[0])
    train = sum(official) - test
    validation = min(VALIDATION_AT_MOST, round(0.1 * train))
    return train - validation, validation, test


@validated_call
def plan(counts: Counts, rates: Rates = PROJECTED, gpus: PositiveInt = 1) -> pd.DataFrame:
    """The stages of a study: what each takes.

    Parameters
    ----------
    gpus : int
        Of a cluster that shares one store: fine-tunings and parts are spread over them.

    Returns
    -------
    DataFrame with the columns stage, jobs, gpu_hours (of one GPU), wall_hours (with all of them), disk_gb (10^9 bytes
    that it leaves), host_gb and device_gb (memory at most, of each job)
    """
    training = counts.trained / min(rates.train_images, rates.cropped_images)
    scoring = counts.tested / rates.test_images
    realigning = counts.realigned / (rates.rounded_images if counts.rounded else rates.realigned_images)
    merging = counts.models * rates.fuse_s + counts.draws * rates.noise_s
    suite_gb = 17 * TOWER / 1e9  # base, eight vectors, eight received ones
    rows = [
        ("images, checked and decoded", 1, counts.kept / rates.cropped_images, 0, counts.kept * PIXELS / 1e9, 2.0, 0.0),
        (
            "task vectors", counts.vectors, training, counts.vectors,
            (counts.vectors + 3 * min(gpus, counts.vectors)) * TOWER / 1e9, 8 * TOWER / 1e9, rates.train_gib,
        ),
        ("models: fused, noise", counts.parts, merging, counts.parts, 0.0, suite_gb, 2 * TOWER / 1e9),
        ("models: realigned", counts.parts, realigning, counts.parts, 0.0, suite_gb, rates.train_gib / 2),
        ("models: scored", counts.parts, scoring, counts.parts, 20_000 * counts.parts / 1e9, suite_gb, 6.0),
    ]  # fmt: skip
    table = []
    for stage, jobs, seconds, shared, disk, host, device in rows:
        rounds = math.ceil(shared / gpus) / shared if shared else 1.0  # the last round may leave GPUs idle
        gpu_hours = seconds / 3600 if device else 0.0
        table.append((stage, jobs, gpu_hours, seconds / 3600 * rounds, disk, host, device))
    names = ["stage", "jobs", "gpu_hours", "wall_hours", "disk_gb", "host_gb", "device_gb"]
    return pd.DataFrame(table, columns=names)
