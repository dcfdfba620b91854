"""The commands finetune, fuse and evaluate, from arguments to files and tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from artifacts import write_two_tasks
from rmtllmf_lib.command import cli, commands
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.tasks.base import CLIP_MEAN, CLIP_STD
from small import small_backbone


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two_tasks(tmp_path_factory.mktemp("images"))


@pytest.fixture(autouse=True)
def small_instead_of_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(small_backbone(), mean=CLIP_MEAN, std=CLIP_STD)  # the pixel statistics of tasks
    monkeypatch.setattr("rmtllmf_lib.model.backbone.load_backbone", lambda *_, **__: small)


def test_from_images_to_a_table(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    short = "--steps 5 --batch-size 8 --head prototype --out tau"
    assert cli.main(f"finetune warm mine=cold --source folder --root {images} {short}".split()) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0].split() == ["task", "head", "classes", "train", "test", "base", "fine_tuned"]
    assert [line.split()[0] for line in shown.out.splitlines()[1:]] == ["warm", "mine", "mean"]
    assert "tau/warm.safetensors: " in shown.err
    assert cli.main("fuse tau/warm.safetensors tau/mine.safetensors --lam 0.5 --out fused.st".split()) == 0
    assert capsys.readouterr().out.startswith("fused.st: 2 task vectors at lambda = 0.5 on the base ")
    words = "evaluate tau/warm.safetensors tau/mine.safetensors fused.st --task folder:warm --task folder:mine=cold"
    assert cli.main(f"{words} --root {images} --lam 0.5 --csv table.csv".split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [*commands.COLUMNS, "fused.st"]
    assert lines[-1] == "fused: 2 task vectors at lambda = 0.5"
    table = pd.read_csv("table.csv")
    assert list(table["task"]) == ["warm", "mine"] and table["fused"].tolist() == table["fused.st"].tolist()
    assert lines[1].split()[4:] == [f"{value:.3f}" for value in table.loc[0, "base":]]


def test_how_many_images_to_train_and_to_test_on(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    short = "--steps 2 --batch-size 4 --head prototype --out tau"
    assert cli.main(f"finetune warm --source folder --root {images} --train-images 9 {short}".split()) == 0
    learnt_from = capsys.readouterr().out.splitlines()[1].split()[3]
    assert cli.main(f"evaluate tau/warm.safetensors --root {images} --test-images 6 --csv table.csv".split()) == 0
    tested = pd.read_csv("table.csv")["test"].tolist()
    info = TaskVector.load(tmp_path / "tau" / "warm.safetensors").info
    assert (info["n_train"], learnt_from, info["train_images"]) == ("9", "8", "8")  # one is kept for validation
    assert tested == [6] and int(info["test_images"]) > 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("evaluate", "no task to evaluate on"),
        ("evaluate --task signs --lam half", "--lam is 'half'"),
        ("evaluate nothing.st --task signs", "nothing.st does not exist"),
        ("fuse nothing.st --out fused.st", "nothing.st does not exist"),
        ("finetune nowhere --source folder --out tau", "nowhere is not a folder"),
        ("finetune mnist --source torchvision --out tau", "give --root"),
        ("finetune mnist --source torchvision --root . --out tau", "MNIST"),
        ("finetune nothing --out tau", "procedural task is 'nothing'"),
        ("finetune signs --steps 0 --out tau", "--steps is 0"),
        (
            "finetune warm --source folder --root IMAGES --autocast bf16 --steps 1 --head prototype --out tau",
            "--autocast is 'bf16'",
        ),
        ("finetune warm --source folder --root IMAGES --head paper --out tau", "--head is 'paper'"),
    ],
)
def test_bad_arguments_are_one_message(
    words: str,
    message: str,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words.replace("IMAGES", str(images)).split()) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("rmtllmf: ") and message in shown.err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
