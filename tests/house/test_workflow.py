"""The workflow for other scales: its settings fit the chapters, and it runs, on small things, to a notebook."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from places import ROOT
from rmtllmf_lib.command import cli, runner
from rmtllmf_lib.model.task_vector import TaskVector

PROFILES = ROOT / "workflow" / "profiles"
LOCAL = PROFILES / "local"
SETTINGS = sorted((ROOT / "workflow").glob("*.yaml"))


def snakemake(*words: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Snakemake as a user starts it, with this interpreter's command `rmtllmf`."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile"), "--cores", "1"]
    path = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(cwd), "OMP_NUM_THREADS": "1"}
    store = {"RMTLLMF_HOME": str(cwd / "store")}
    return subprocess.run(
        [*command, *map(str, words)], cwd=cwd, env={**path, **store}, capture_output=True, text=True, check=False
    )


def commands(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in re.findall(r"^Shell command: (rmtllmf .*)$", done.stdout, re.MULTILINE)]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda path: path.stem)
def test_a_setting_fits_the_commands_and_the_chapters(setting: Path) -> None:
    config = yaml.safe_load(setting.read_text())
    planned = snakemake("--configfile", setting, "--profile", LOCAL, "--dry-run", "--forceall")
    asked = commands(planned)
    gpus = {int(found) for found in re.findall(r"resources: .*\bgpu=(\d+)", planned.stdout)}
    assert gpus == {int(config.get("device", "cpu") != "cpu")}
    trained = [words for words in asked if words[1] == "finetune"]
    assert sorted(words[2] for words in trained) == sorted(config["tasks"])
    ran = [words for words in asked if words[1] == "run"]
    assert sorted(Path(words[2]).stem for words in ran) == sorted(config["chapters"])
    for words in ran:
        given = dict(word.split("=", 1) for word in words[words.index("-o") + 2 :] if word != "-p")
        chapter = ROOT / words[2]
        assert runner.checked_values(given, runner.parameters(chapter), chapter)["task_names"] == config["tasks"]
    for words in trained:  # the options are those of the command
        assert cli.main([*words[1:], "--help"]) == 0


def test_slurm_is_asked_for_a_gpu_by_the_jobs_alone() -> None:
    """The plugin makes --gpus of their resource, and refuses a second wish for one."""
    profile = yaml.safe_load((PROFILES / "slurm" / "config.yaml").read_text())
    assert profile["executor"] == "slurm" and "slurm_extra" not in str(profile)


def write_chapter(path: Path) -> None:
    parameters = """backbone_name: str = ""  # the base
head: str = ""  # of every task
seed: int = 1  # of the data
device: str = ""  # to compute on
task_names: list = []  # what is classified
vectors: str = ""  # where their vectors are
workers: int = 9  # processes
own: float = 0.5  # this chapter's alone"""
    code = "import os\nprint(backbone_name, task_names, seed, sorted(os.listdir(vectors)), workers, own)"
    cells = [nbformat.v4.new_code_cell(source) for source in (parameters, code)]
    cells[0].metadata.tags = ["parameters"]
    path.parent.mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def test_from_images_to_a_chapter(tmp_path: Path) -> None:
    write_chapter(tmp_path / "notebooks" / "small.ipynb")
    setting = {
        "runs": "runs/of mine",
        "backbone": "tiny",
        "seed": 3,
        "tasks": ["signs"],
        "finetune": {"steps": 2, "train_images": 120, "overwrite": True},
        "chapters": {"small": {"own": 0.25}},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(setting))
    done = snakemake("--configfile", "mine.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = nbformat.read(tmp_path / "runs" / "of mine" / "small.ipynb", as_version=4)
    assert made.cells[-1].outputs[0].text == "tiny ['signs'] 3 ['signs.safetensors'] 1 0.25\n"
    assert TaskVector.load(tmp_path / "runs" / "of mine" / "tau" / "signs.safetensors").info["data_seed"] == "3"


def test_a_setting_that_cannot_be_is_refused(tmp_path: Path) -> None:
    setting = yaml.safe_load((ROOT / "workflow" / "tiny.yaml").read_text())
    del setting["chapters"], setting["tasks"]
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(setting))
    done = snakemake("--configfile", tmp_path / "wrong.yaml", "--dry-run")
    assert done.returncode != 0 and "the setting lacks tasks, chapters" in done.stdout + done.stderr
