"""The plan of a study: what it counts is what the study would compute."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from places import ROOT
from rmtllmf_lib.command import cli
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.storage.canonical import config_key
from rmtllmf_lib.study.file import SuiteSpec, read_study
from rmtllmf_lib.study.plan import PROJECTED, TOWER, Counts, Rates, count_work, plan, read_rates
from rmtllmf_lib.study.study import Study, study_units
from rmtllmf_lib.tasks.inventory import OFFICIAL
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.scenario import CLEAN, Scenario
from small import small_backbone, small_head, small_task, small_tau

NAMES = ("mnist", "dtd", "svhn")
SPEC = SuiteSpec("ViT-B-16-quickgelu", tasks=tuple(f"torchvision:{name}" for name in NAMES), root="data")
NOISY = Scenario("noisy", 0.1, "weight", "half")
STUDY = Study(
    (CLEAN, NOISY), ("unprotected", "rmtllmf", "control", "base"), seeds=2, per_class=(1, 2), test_images=2000
)
PAPER = ROOT / "workflow" / "paper_study.json"


def suite() -> Suite:
    backbone = small_backbone(layers=1)
    tasks = {name: small_task(name, seed, n=10) for seed, name in enumerate(NAMES)}
    heads = {name: small_head(seed) for seed, name in enumerate(NAMES)}
    taus = {name: small_tau(backbone.weights, seed, task=name) for seed, name in enumerate(NAMES)}
    return Suite(backbone, tasks, heads, taus)


@pytest.mark.parametrize("change", [{}, {"sizes": (3,)}, {"per_size": 1, "seeds": 3}, {"test_images": None}])
def test_counts_are_those_of_the_units(change: dict[str, Any]) -> None:
    study = replace(STUDY, **change)
    units = {config_key(unit.described()): unit for unit in study_units(study, suite())}.values()
    found = count_work(study, replace(SPEC, vectors="tau"))
    assert found.parts == len(units)
    assert found.models == sum(len(unit.combinations) for unit in units)
    steps = study.realignment.steps * study.realignment.batch_size
    assert found.realigned == sum(steps * len(unit.combinations) for unit in units if unit.recipe)
    limit = study.test_images or 10**9
    assert found.tested == sum(
        min(OFFICIAL[name][1], limit) for unit in units for combination in unit.combinations for name in combination
    )
    assert (found.vectors, found.trained) == (0, 0)


def test_fine_tuning_and_choices_are_counted() -> None:
    plain = count_work(STUDY, SPEC)
    assert plain.vectors == 3 and plain.trained == 3 * 2000 * 128
    tests = sum(OFFICIAL[name][1] for name in NAMES)
    validation = 5000 + 376 + 5000
    vectors = count_work(STUDY, replace(SPEC, vectors="tau"))
    assert plain.tested - vectors.tested == 2 * tests + validation
    assert plain.kept == tests + validation
    assert count_work(STUDY, SPEC, 5).vectors == 15
    assert count_work(STUDY, replace(SPEC, steps=10)).trained == 3 * 10 * 128
    chosen = count_work(replace(STUDY, lr_grid=(1e-4, 1e-3)), SPEC)
    assert chosen.realigned > plain.realigned and chosen.tested > plain.tested
    assert count_work(replace(STUDY, lam_grid={"rmtllmf": (0.1, 0.3)}), SPEC).tested > plain.tested


def test_hours_are_work_over_rates() -> None:
    rates = Rates(100.0, 50.0, 200.0, 25.0, 80.0, 0.5, 2.0, 30.0, "test")
    counts = Counts(4, 10, 2, 360_000, 90_000, 720_000, 3, 1000, False)
    table = plan(counts, rates).set_index("stage")
    hours = dict(table["gpu_hours"])
    assert hours["task vectors"] == pytest.approx(2.0)  # bound by the host's crops
    assert hours["models: realigned"] == pytest.approx(1.0)
    assert hours["models: scored"] == pytest.approx(1.0)
    assert hours["models: fused, noise"] == pytest.approx((5 + 6) / 3600)
    rounded = plan(replace(counts, rounded=True), rates).set_index("stage")
    assert rounded.loc["models: realigned", "gpu_hours"] == pytest.approx(90_000 / 80 / 3600)
    # four vectors on eight GPUs keep four of them busy, two parts two
    spread = plan(counts, rates, 8).set_index("stage")
    assert spread.loc["task vectors", "wall_hours"] == pytest.approx(0.5)
    assert spread.loc["models: scored", "wall_hours"] == pytest.approx(0.5)
    assert spread["gpu_hours"].sum() == pytest.approx(table["gpu_hours"].sum())
    three = plan(counts, rates, 3).set_index("stage")
    assert three.loc["task vectors", "wall_hours"] == pytest.approx(1.0)  # two rounds
    assert table.loc["task vectors", "disk_gb"] == pytest.approx((4 + 3) * TOWER / 1e9)


def test_what_cannot_be_counted() -> None:
    with pytest.raises(InputError, match="'tiny'"):
        count_work(STUDY, SuiteSpec())
    with pytest.raises(InputError, match="'pets'"):
        count_work(STUDY, replace(SPEC, tasks=("folder:pets=photos/pets",)))
    with pytest.raises(InputError, match="test_images"):
        replace(PROJECTED, test_images=0.0)


def test_rates_from_the_benchmark(tmp_path: Path) -> None:
    names = ("train_images", "cropped_images", "test_images", "realigned_images", "rounded_images", "fuse_s",
             "noise_s", "train_gib")  # fmt: skip
    content = {"machine": "a GPU", "small": False, "rates": {**dict.fromkeys(names, 2.0), "copy": 3.0}}
    file = tmp_path / "rates.json"
    file.write_text(json.dumps(content))
    assert read_rates(file) == Rates(*[2.0] * 8, "measured on a GPU")
    file.write_text(json.dumps({**content, "small": True}))
    with pytest.raises(InputError, match="small"):
        read_rates(file)
    file.write_text(json.dumps({**content, "rates": {"copy": 1.0}}))
    with pytest.raises(InputError, match="holds no rates"):
        read_rates(file)


def test_the_page_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "book" / "paper_scale.md").read_text(encoding="utf-8")
    for words in (["plan", str(PAPER)], ["plan", str(PAPER), "--gpus", "8"]):
        assert cli.main(words) == 0
        last = capsys.readouterr().out.rstrip().splitlines()
        assert last[-1] in page, last[-1]
    assert cli.main(["plan", str(PAPER)]) == 0
    assert capsys.readouterr().out.strip() in page


def test_the_paper_s_study_is_whole() -> None:
    study, suite, suites = read_study(PAPER)
    assert sorted(text.rpartition(":")[2] for text in suite.tasks) == sorted(OFFICIAL)
    assert study.sizes is None and study.per_size is None and suites is None
    assert count_work(study, suite).models == 247 * (1 + 3 + 4 * 3 + 3 * 3)


def test_bad_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", str(PAPER), "--gpus", "0"]) == 2
    assert cli.main(["plan", str(PAPER), "--rates", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err
