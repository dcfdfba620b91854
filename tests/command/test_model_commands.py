"""The commands finetune, fuse and evaluate, from arguments to files and tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from artifacts import write_two_tasks
from rmtllmf_lib.command import cli, commands
from rmtllmf_lib.fusion.mergers import CALIBRATIONS, MERGERS, merge
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.tasks.base import CLIP_MEAN, CLIP_STD
from small import small_backbone, small_tau


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


def test_paths_with_a_tilde_lie_in_the_home_folder(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    for folder in (home, here):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    (home / "images").symlink_to(images)
    short = ["--steps", "1", "--batch-size", "8", "--head", "prototype"]
    assert cli.main(["finetune", "warm", "--source", "folder", "--root=~/images", *short, "--out=~/tau"]) == 0
    assert cli.main(["fuse", "~/tau/warm.safetensors", "--out=~/fused.safetensors"]) == 0
    words = ["evaluate", "~/tau/warm.safetensors", "--root=~/images", "--csv=~/table.csv"]
    assert cli.main([*words, "--test-images", "3"]) == 0
    assert {path.name for path in home.iterdir()} == {"images", "tau", "fused.safetensors", "table.csv"}
    assert list(here.iterdir()) == []
    names: list[str] = []
    small = replace(small_backbone(), mean=CLIP_MEAN, std=CLIP_STD)
    monkeypatch.setattr("rmtllmf_lib.model.backbone.load_backbone", lambda name, **_: names.append(name) or small)
    cli.main(["fuse", "~/tau/warm.safetensors", "--out=x.safetensors", "--backbone=~/base"])
    assert names == [str(home / "base")]


@pytest.mark.parametrize("task", ["mine={}/cold", "{}/cold", "folder:{}/cold", "mine=./images/cold", "images/cold"])
def test_a_folder_needs_no_source(
    task: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("images").symlink_to(images)
    words = ["finetune", task.format(images), "--steps", "1", "--batch-size", "8", "--head", "prototype"]
    assert cli.main([*words, "--out", "tau"]) == 0
    name = "mine" if task.startswith("mine") else "cold"
    assert TaskVector.load(f"tau/{name}.safetensors").info["source"] == "folder"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("finetune warm --device gpu", "--device is 'gpu'"),
        ("finetune warm --device cuda:99", "--device is 'cuda:99'"),
        ("finetune signs --steps 0", "--steps is 0"),
        ("finetune signs --lr nan", "--lr is nan"),
        ("finetune signs --batch-size -4", "--batch-size is -4"),
        ("finetune signs --seed -1", "--seed is -1"),
        ("finetune signs --train-images 0", "--train-images is 0"),
        ("finetune signs --train-images 200000", "--train-images is 200000"),
        ("finetune pets=photos/pets", "photos/pets is not a folder"),
        ("finetune mnist --source torchvision --root nosuch", "nosuch is not a folder"),
        ("evaluate tau.st --test-images 0", "--test-images is 0"),
        ("evaluate tau.st --seed -1", "--seed is -1"),
        ("evaluate tau.st --task torchvision:mnist", "give --root"),
        ("finetune warm --checkpoint-every 0", "--checkpoint-every is 0"),
        ("finetune warm --autocast half", "--autocast is 'half'"),
        ("finetune signs --source drawn", "--source is 'drawn'"),
        ("finetune mnist --source torchvision", "give --root"),
        ("fuse tau.st --rule best", "'best'"),
        ("fuse tau.st --lam 0.3 --rule inverse", "give one of them"),
        ("fuse nosuch.st", "nosuch.st does not exist"),
        ("fuse tau.st --merger tvs", "--merger is 'tvs'"),
        ("fuse tau.st --merger fisher", "rmtllmf evaluate --merger fisher"),
        ("fuse tau.st --merger emr+svc", "which task vectors alone do not give"),
        ("fuse tau.st --merger dare --seed -1", "--seed is -1"),
        ("evaluate tau.st --merger nosuch.py:merge", "nosuch.py is no file"),
        ("evaluate tau.st --merger tsv --lam 0.3 --rule inverse", "give one of them"),
        ("evaluate tau.st --device gpu", "--device is 'gpu'"),
        ("evaluate tau.st --head best", "--head is 'best'"),
        ("evaluate tau.st --lam nan", "nan"),
        ("evaluate nosuch.st", "nosuch.st does not exist"),
        ("import x=nosuch", "nosuch does not exist"),
        ("import x=tau.st --published-base nosuch", "nosuch does not exist"),
        ("import x=tau.st --backbone-file nosuch", "nosuch does not exist"),
    ],
)
def test_what_can_be_refused_is_refused_before_a_base_is_loaded(
    words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tau.st").write_bytes(b"anything")
    monkeypatch.setattr("rmtllmf_lib.model.backbone.load_backbone", lambda *_, **__: pytest.fail("loaded"))
    out = [] if words.startswith("evaluate") else ["--out", "out"]
    assert cli.main([*words.split(), *out]) == 2
    assert message in capsys.readouterr().err and not Path("out").exists()


def test_all_tasks_are_checked_before_the_first_is_trained(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["finetune", "--source", "folder", "--root", str(images), "--batch-size", "8", "--head", "prototype"]
    assert cli.main([*words, "cold", "--steps", "1", "--out", "tau"]) == 0
    monkeypatch.setattr("rmtllmf_lib.training.suite.finetune", lambda *_, **__: pytest.fail("trained"))
    for last, message in (("cold", "cold.safetensors already exists"), ("none", "none")):
        assert cli.main([*words, "warm", last, "--steps", "2", "--out", "tau"]) == 2
        assert message in capsys.readouterr().err
    monkeypatch.setattr("rmtllmf_lib.command.outputs.shutil.disk_usage", lambda _: SimpleNamespace(free=9))
    assert cli.main([*words, "warm", "--steps", "2", "--out", "tau"]) == 2
    assert "MB left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"n_train": "200000"}, "n_train"),
        ({"n_train": "0"}, "n_train"),
        ({"n_train": "many"}, "'many'"),
        ({"n_train": "9" * 5000}, "n_train"),
        ({"data_seed": "1" + "0" * 19}, "data_seed"),
        ({"data_seed": "-1"}, "-1"),
        ({"data_seed": "٣"}, "data_seed"),
        ({"source": "folder", "folder": "/etc"}, "'/etc'"),
        ({"source": "folder", "folder": "pets/../../etc"}, "'pets/../../etc'"),
        ({"source": "folder", "folder": "~/private"}, "'~/private'"),
        ({"source": "folder", "folder": "~root/private"}, "'~root/private'"),
        ({"source": "folder", "folder": "pets\n"}, "printable"),
        ({"source": "http"}, "'http'"),
        ({"task": "a=/etc", "source": "folder"}, "'a=/etc'"),
        ({"task": "../signs"}, "'../signs'"),
        ({"head": "exec"}, "'exec'"),
    ],
)
def test_what_a_vector_says_of_itself_is_checked(
    claims: dict[str, str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    tau = small_tau(small_backbone().weights, 1)
    replace(tau, info={"task": "signs", "source": "procedural", **claims}).save("tau.st")
    if "head" not in claims:
        monkeypatch.setattr("rmtllmf_lib.training.suite.load_spec", lambda *_, **__: pytest.fail("loaded"))
    assert cli.main(["evaluate", "tau.st"]) == 2
    assert message in (shown := capsys.readouterr().err) and len(shown) < 400


def test_mergers_are_listed_and_fuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["fuse", "--merger", "list"]) == cli.main(["evaluate", "--merger", "list"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 2 * (1 + len(MERGERS) + len(CALIBRATIONS))
    assert [line.split()[0] for line in shown[1:4]] == ["arithmetic", "average", "ties"]
    base = small_backbone().weights
    for seed in (1, 2):
        small_tau(base, seed, task=f"t{seed}").save(tmp_path / f"{seed}.st")
    Path("mine.py").write_text("def double(taus):\n    return 2 * sum(taus)\n")
    for merger, factor in (("tsv", 1.0), ("dare", 0.7), ("arithmetic+lines", 1.0), ("mine.py:double", 1.0)):
        assert cli.main(["fuse", "1.st", "2.st", "--merger", merger, "--seed", "3", "--out", f"{merger}.st"]) == 0
        assert f": 2 task vectors by {merger} at lambda = {factor:g} on" in capsys.readouterr().out
        taus = [TaskVector.load(f"{seed}.st") for seed in (1, 2)]
        wanted = merge(merger, taus, generator=torch.Generator().manual_seed(3))
        torch.testing.assert_close(Weights.load(f"{merger}.st").values, (base + factor * wanted).values)
