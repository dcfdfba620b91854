"""Published fine-tuned models, from files to task vectors that `evaluate` accepts, and back to other programs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from artifacts import write_two_tasks
from rmtllmf_lib.command import cli
from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.tasks.base import CLIP_MEAN, CLIP_STD
from small import small_backbone, small_tau


@pytest.fixture
def backbone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Backbone:
    small = replace(small_backbone(), mean=CLIP_MEAN, std=CLIP_STD)
    monkeypatch.setattr("rmtllmf_lib.model.backbone.load_backbone", lambda *_, **__: small)
    monkeypatch.chdir(tmp_path)
    return small


def write_model(path: Path, weights: Weights) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights.state_dict(), path)
    return path


@pytest.fixture
def models(backbone: Backbone) -> dict[str, TaskVector]:
    """Two tuned models on disk, one in a folder of its own and one as a file, and their base."""
    base = backbone.weights
    taus = {name: small_tau(base, seed, size=1e-3) for seed, name in enumerate(("warm", "cold"))}
    write_model(Path("models/warm/model.safetensors"), base + taus["warm"])
    torch.save((base + taus["cold"]).state_dict(), "models/cold.pt")
    write_model(Path("models/base/model.safetensors"), base)
    return taus


IMPORT = "import warm=models/warm cold=models/cold.pt --out tau"


def test_from_models_to_a_table(models: dict[str, TaskVector], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(f"{IMPORT} --published-base models/base".split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["task", "names", "change", "note"]
    assert [line.split()[:2] for line in lines[1:3]] == [["warm", "open_clip"], ["cold", "open_clip"]]
    assert lines[-1] == "2 task vectors in tau"
    for name, tau in models.items():
        read = TaskVector.load(f"tau/{name}.safetensors")
        torch.testing.assert_close(read.values, tau.values, rtol=0, atol=1e-7)
        assert read.info["task"] == name and read.base_hash == tau.base_hash
    images = write_two_tasks(Path("images").absolute())
    tasks = f"--task folder:warm --task folder:cold --root {images} --head prototype"
    assert cli.main(f"evaluate tau/warm.safetensors tau/cold.safetensors {tasks}".split()) == 0
    assert "2 task vectors at lambda = 0.7" in capsys.readouterr().out


def test_an_imported_vector_needs_a_task(models: dict[str, TaskVector], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(IMPORT.split()) == 0
    assert cli.main("evaluate tau/warm.safetensors".split()) == 2
    assert "'warm'" in capsys.readouterr().err


def test_existing_vectors_are_kept(models: dict[str, TaskVector], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main("import cold=models/cold.pt --out tau".split()) == 0
    kept = Path("tau/cold.safetensors").read_bytes()
    assert cli.main("import cold=models/warm --out tau".split()) == 2
    assert "tau/cold.safetensors" in capsys.readouterr().err
    assert Path("tau/cold.safetensors").read_bytes() == kept
    assert cli.main("import cold=models/warm --out tau --overwrite".split()) == 0
    assert Path("tau/cold.safetensors").read_bytes() != kept


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("warm=models/warm cold=models/warm", "are the same model: give 'warm' or 'cold' its own"),
        ("warm=models/base", "models/base/model.safetensors is the base itself"),
        ("warm=models/warm warm=models/cold.pt", "task 'warm' is given twice"),
        ("models/warm", "'models/warm' does not name a task and a model: expected TASK=PATH"),
        ("a/b=models/warm", "expected TASK=PATH"),
        ("warm=", "expected TASK=PATH"),
        ("warm=models/warm cold=models/none", "models/none does not exist"),
        ("warm=models/warm cold=models", "models is a folder"),
        ("warm=models/warm cold=models/other.safetensors", "it was fine-tuned from another base"),
        ("warm=models/warm --published-base models/cold.pt", "the imported base is not the given base"),
    ],
)
def test_bad_input_writes_nothing(
    models: dict[str, TaskVector], words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(Path("models/other.safetensors"), small_backbone(9).weights)
    assert cli.main([*f"import {words} --out tau".split()]) == 2
    assert message in capsys.readouterr().err
    assert not Path("tau").exists()


def test_export_and_import_give_the_same_vector(
    models: dict[str, TaskVector], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(IMPORT.split()) == 0
    assert cli.main("export tau/warm.safetensors --out warm.safetensors".split()) == 0
    assert cli.main("export tau/warm.safetensors --as hugging_face --out warm_hf".split()) == 0
    for place in ("warm.safetensors", "warm_hf"):
        assert cli.main(f"import warm={place} --out again --overwrite".split()) == 0
        assert TaskVector.load("again/warm.safetensors").hash == TaskVector.load("tau/warm.safetensors").hash
    assert sorted(path.name for path in Path("warm_hf").iterdir()) == [
        "config.json", "model.safetensors", "preprocessor_config.json"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("tau/warm.safetensors --out x.pt", "ends in .safetensors"),
        ("tau/warm.safetensors --out x --as onnx", "onnx"),
        ("tau/none.safetensors --out x.safetensors", "tau/none.safetensors does not exist"),
        ("tau/warm.safetensors --out tau/warm.safetensors", "which it would destroy"),
        ("tau/warm.safetensors --out models/cold.pt", "exists and is"),
        ("tau/warm.safetensors --out models/base --as hugging_face", "models/base/model.safetensors exists and is"),
    ],
)
def test_bad_exports_write_nothing(
    models: dict[str, TaskVector], words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(IMPORT.split()) == 0
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert cli.main(["export", *words.split()]) == 2
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
