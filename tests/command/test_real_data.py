"""The commands on real images, through torchvision's layouts and folders, at the resolution of the tiny base."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from rmtllmf_lib.command import cli
from rmtllmf_lib.model.backbone import load_backbone
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.tasks.sources import load_task
from rmtllmf_lib.training.evaluate import accuracy
from rmtllmf_lib.training.finetune import Recipe, finetune
from rmtllmf_lib.training.heads import build_head

TASKS = {
    "torchvision:mnist": (10, 10_000),
    "torchvision:gtsrb": (43, 860),
    "torchvision:eurosat": (10, None),
    "folder:dtd10": (10, 400),
    "folder:chars74k_digits": (10, 265),
}


def test_all_of_mnist_is_there(real_data: Path) -> None:
    task = load_task("mnist", "torchvision", root=real_data, image_size=32)
    parts = (task.train, task.validation, task.test)
    assert [len(part) for part in parts] == [55_000, 5_000, 10_000]
    assert [part.inputs.shape for part in parts] == [(len(part), 3, 32, 32) for part in parts]


@pytest.mark.parametrize(
    ("name", "classes", "steps"), [("ucmerced", 21, 20), ("scene15", 15, 20), ("stanford_cars", 196, 80)]
)
def test_folders_of_real_images_are_learnt(real_data: Path, name: str, classes: int, steps: int) -> None:
    backbone = load_backbone("tiny")
    task = load_task(name, "folder", root=real_data, image_size=32, n_train=4 * classes, n_test=2 * classes)
    assert (len(task.class_names), len(task.test)) == (classes, 2 * classes)
    head = build_head(backbone, task, "prototype")
    recipe = Recipe(steps=steps, batch_size=64, lr=3e-4, warmup_steps=steps // 10, freeze=("embeddings",))
    tau = finetune(backbone, task, head, recipe, generator=torch.Generator().manual_seed(0), progress=False)
    before, after = (accuracy(backbone, w, task.train, head) for w in (backbone.weights, backbone.weights + tau))
    assert 1.3 / classes < before < after - 0.05, (before, after)


def test_from_real_images_to_a_table(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    short = ["--head", "prototype", "--train-images", "900", "--steps", "40", "--out", "tau"]
    assert cli.main(["finetune", *TASKS, "--root", str(real_data), *short]) == 0
    vectors = sorted(map(str, Path("tau").iterdir()))
    assert vectors == sorted(f"tau/{task.partition(':')[2]}.safetensors" for task in TASKS)
    assert cli.main(["fuse", *vectors, "--out", "fused.safetensors"]) == 0
    words = ["evaluate", *vectors, "fused.safetensors", "--root", str(real_data), "--csv", "table.csv"]
    assert cli.main(words) == 0
    assert "fused: 5 task vectors at lambda = 0.4\n" in capsys.readouterr().out

    table = pd.read_csv("table.csv").set_index("task")
    for task, (classes, test) in TASKS.items():
        row = table.loc[task.partition(":")[2]]
        assert row["classes"] == classes and row["test"] == (test or row["test"])
        assert row["base"] > 1.3 / classes  # even small, the base tells more than chance
        info = TaskVector.load(f"tau/{row.name}.safetensors").info
        assert row["fine_tuned"] == pytest.approx(float(info["accuracy"]), abs=1e-6)
        assert row["fused"] == row["fused.safetensors"]
    assert 250 < table.loc["eurosat", "test"] < 350  # a fifth, by the hash of the names
    assert table["fine_tuned"].mean() > table["base"].mean() + 0.05
    assert table.loc["mnist", "fine_tuned"] > table.loc["mnist", "base"] + 0.03
