"""The guard of outputs, alone and in every command that writes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from safetensors.torch import save_file

from rmtllmf_lib.command import cli, outputs
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.arithmetic import fuse
from rmtllmf_lib.study.file import example, save_study
from small import small_backbone, small_tau


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    backbone = small_backbone()
    for seed, name in enumerate("abc"):
        small_tau(backbone.weights, seed, task=name).save(folder / f"tau/{name}.safetensors")
    fuse(backbone.weights, [small_tau(backbone.weights, 0)], 0.3).save(folder / "fused.safetensors")
    save_file(backbone.weights.state_dict(), folder / "model.safetensors")
    return folder


@pytest.fixture
def files(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """One file of each kind in the current folder; no command may load a base or start to work."""
    shutil.copytree(models, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    nbformat.write(notebook, "n.ipynb")
    nbformat.write(notebook, "done.ipynb")
    nbformat.write(notebook, "m.failed.ipynb")
    save_study("s.json", example())
    Path("table.csv").write_text("task,head,classes,test,base\nsigns,text,2,2,0.5\n")
    Path("table.parquet").write_bytes(b"PAR1" + bytes(20))
    Path("notes.txt").write_text("mine")
    Path("base").mkdir()
    Path("base/provenance.json").write_text('{"sha256": "0", "config_sha256": "0"}')
    os.symlink("tau/a.safetensors", "link.safetensors")
    os.link("tau/b.safetensors", "hard.safetensors")

    def loaded(*_: Any, **__: Any) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr("rmtllmf_lib.model.backbone.load_backbone", loaded)
    monkeypatch.setattr("rmtllmf_lib.study.file.run_study_file", loaded)
    monkeypatch.setattr("rmtllmf_lib.command.runner.run_notebook", loaded)
    monkeypatch.setattr("rmtllmf_lib.training.pretrain.pretrain", loaded)
    return contents()


def contents() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
@pytest.mark.parametrize(
    "words",
    [
        "fuse --out tau/a.safetensors tau/b.safetensors tau/a.safetensors",
        "fuse tau/a.safetensors --out link.safetensors",
        "fuse link.safetensors --out ./tau/../tau/a.safetensors",
        "fuse tau/b.safetensors --out hard.safetensors",
        "evaluate tau/a.safetensors --csv tau/a.safetensors",
        "study s.json --out s.json",
        "study s.json --out ./s.json",
        "run n.ipynb -o n.ipynb",
        "run m.failed.ipynb -o m.ipynb",
        "import a=tau/a.safetensors --out tau",
        "import a=model.safetensors model=tau/a.safetensors --out .",
        "finetune model=tau --backbone-file model.safetensors --out .",
    ],
)
def test_an_output_is_no_input(
    words: str, more: list[str], files: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words.split(), *more]) == 2
    assert "is the input" in capsys.readouterr().err
    assert contents() == files


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("fuse tau/a.safetensors --out", "fused weights"),
        ("evaluate tau/a.safetensors --csv", "a table of accuracies"),
        ("study s.json --out", "a parquet table"),
    ],
)
def test_files_of_another_kind_stay(
    words: str, kind: str, more: list[str], files: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    for other in ("notes.txt", "tau/c.safetensors", "fused.safetensors", "table.csv", "table.parquet", "done.ipynb"):
        if outputs.kind_of(Path(other)) == kind:
            continue
        assert cli.main([*words.split(), other, *more]) == 2
        assert f"not {kind}" in capsys.readouterr().err
    assert contents() == files


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("run n.ipynb -o other.ipynb", "another file"),
        ("import model=tau/a.safetensors --out .", "another file"),
        ("finetune model --out .", "another file"),
        ("pretrain --out .", "another file"),
        ("fuse tau/a.safetensors --out tau", "a folder"),
        ("evaluate tau/a.safetensors --csv /dev/null", "a device or pipe"),
    ],
)
def test_other_things_in_the_way_stay(
    words: str, found: str, more: list[str], files: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("other.ipynb").write_text("not a notebook")
    words = words.replace("finetune model", "finetune model=tau")
    before = contents()
    assert cli.main([*words.split(), *more]) == 2
    assert f"exists and is {found}" in capsys.readouterr().err
    assert contents() == before


@pytest.mark.parametrize(
    "words",
    [
        "fuse tau/a.safetensors --out fused.safetensors",
        "evaluate tau/a.safetensors --csv table.csv",
        "study s.json --out table.parquet",
        "run n.ipynb -o done.ipynb",
        "import a=model.safetensors --out tau",
        "pretrain --out base",
    ],
)
def test_an_existing_result_wants_overwrite(
    words: str, files: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words.split()) == 2
    assert "--overwrite" in capsys.readouterr().err and contents() == files
    with pytest.raises(AssertionError, match="work began"):
        cli.main([*words.split(), "--overwrite"])


def test_where_nothing_can_be_written(files: dict[str, bytes]) -> None:
    for out in (Path("notes.txt/x.safetensors"), Path("/proc/x/y.safetensors"), Path("tau", "n" * 300)):
        with pytest.raises(InputError) as caught:
            outputs.guard(out, "fused weights")
        assert str(out.parent) in str(caught.value)
    outputs.guard(Path("new/folder/x.safetensors"), "fused weights")
    assert contents() == files and not Path("new").exists()
    with pytest.raises(InputError, match="MB left"):
        outputs.require_writable(Path("new"), 10**18)


def test_empty_files_and_dangling_links_may_be_filled(files: dict[str, bytes]) -> None:
    Path("empty").touch()
    outputs.guard(Path("empty"), "fused weights", overwrite=True)
    os.symlink("nowhere", "dangling")
    outputs.guard(Path("dangling"), "fused weights")
