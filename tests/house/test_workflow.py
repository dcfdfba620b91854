"""The workflow for other scales: its settings fit the chapters, and it runs, on small things, to a notebook."""

from __future__ import annotations

import json
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
from rmtllmf_lib.model.backbone import OPENAI_VIT
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.tasks.sources import load_task
from workflow import try_scale

SNAKEFILE = ROOT / "workflow" / "Snakefile"
PROFILES = ROOT / "workflow" / "profiles"
LOCAL = PROFILES / "local"
SETTINGS = sorted((ROOT / "workflow").glob("*.yaml"))


# Plans several workflows in one process: for each line of options the exit status and what was printed.
PLAN = """
import contextlib, io, json, sys
from snakemake.cli import main

plans = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
        try:
            main(words)
        except SystemExit as done:
            plans.append((done.code, said.getvalue()))
print(json.dumps(plans))
"""


def snakemake(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of Snakemake as a user would, with this interpreter's command `rmtllmf`."""
    path = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(cwd), "OMP_NUM_THREADS": "1"}
    store = {"RMTLLMF_HOME": str(cwd / "store")}
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT if command[0] == "-c" else cwd,
        env={**path, **store}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """What Snakemake would do for each setting, and for one that lacks tasks and chapters."""
    folder = tmp_path_factory.mktemp("plans")
    wrong = yaml.safe_load((ROOT / "workflow" / "tiny.yaml").read_text())
    del wrong["chapters"], wrong["tasks"]
    (folder / "wrong.yaml").write_text(yaml.safe_dump(wrong))
    options = ["--cores=1", "--profile", str(LOCAL), "--dry-run", "--forceall", "--configfile"]
    files = [*SETTINGS, folder / "wrong.yaml"]
    words = [["--snakefile", str(SNAKEFILE), *options, str(file)] for file in files]
    done = snakemake("-c", PLAN, json.dumps(words), cwd=folder)
    assert done.returncode == 0, done.stderr
    return dict(zip([file.stem for file in files], json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda path: path.stem)
def test_a_setting_fits_the_commands_and_the_chapters(plans: dict[str, tuple[int, str]], setting: Path) -> None:
    config = yaml.safe_load(setting.read_text())
    status, plan = plans[setting.stem]
    assert status == 0, plan
    asked = [shlex.split(line) for line in re.findall(r"^Shell command: (rmtllmf .*)$", plan, re.MULTILINE)]
    gpus = {int(found) for found in re.findall(r"resources: .*\bgpu=(\d+)", plan)}
    assert gpus == {int(config.get("device", "cpu") != "cpu")}
    trained = [words for words in asked if words[1] == "finetune"]
    assert sorted(words[2] for words in trained) == sorted(config["tasks"])
    ran = [words for words in asked if words[1] == "run"]
    assert sorted(Path(words[2]).stem for words in ran) == sorted(config["chapters"])
    for words in ran:
        given = dict(word.split("=", 1) for word in words[words.index("-o") + 2 :] if word != "-p")
        chapter = ROOT / words[2]
        values = runner.checked_values(given, runner.parameters(chapter), chapter)
        assert values.get("task_names", config["tasks"]) == config["tasks"]
    for words in trained:  # the options are those of the command
        assert cli.main([*words[1:], "--help"]) == 0


def test_a_setting_that_lacks_something_is_refused(plans: dict[str, tuple[int, str]]) -> None:
    status, message = plans["wrong"]
    assert status != 0 and "tasks, chapters" in message


def test_slurm_is_asked_for_a_gpu_by_the_jobs_alone() -> None:
    """The plugin turns their resource into --gpus and refuses a second request for one."""
    profile = yaml.safe_load((PROFILES / "slurm" / "config.yaml").read_text())
    assert profile["executor"] == "slurm" and "slurm_extra" not in str(profile)


COMMANDS = [["finetune"], *(["run", chapter] for chapter in (*try_scale.CHAPTERS, *try_scale.WITHOUT_A_BACKBONE))]


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """The commands that the trial of all chapters gives; none is run, and no weights are written."""
    commands: list[list[str]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(try_scale, "run", lambda words, _: commands.append(words))
        patch.setattr(try_scale, "write_weights", lambda _: None)
        assert try_scale.main(["--out", str(tmp_path_factory.mktemp("scale"))]) == 0
    return commands


@pytest.mark.parametrize("place", range(len(COMMANDS)), ids=lambda place: COMMANDS[place][-1])
def test_the_trial_gives_commands_that_fit(tried: list[list[str]], place: int) -> None:
    words, (command, *chapter) = tried[place], COMMANDS[place]
    assert words[0] == command and len(tried) == len(COMMANDS)
    if not chapter:  # the options are those of the command
        assert words[1:3] == ["folder:stripes", "folder:dots"] and cli.main([*words, "--help"]) == 0
        return
    path = ROOT / words[1]
    assert path.stem == chapter[0]
    given = dict(word.split("=", 1) for word in words[words.index("-o") + 2 :] if word != "-p")
    values = runner.checked_values(given, runner.parameters(path), path)
    if "backbone_name" in values:
        assert (values["backbone_name"], values["task_names"]) == (OPENAI_VIT, ["folder:stripes", "folder:dots"])


def test_a_command_that_fails_ends_the_trial(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        try_scale.run(["run", str(tmp_path / "none.ipynb"), "--list"], tmp_path)
    assert stopped.value.code not in (0, None)
    assert re.search(r"the largest process had \d+\.\d GB", capfd.readouterr().out)


def test_the_trial_refuses_a_chapter_that_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        try_scale.main(["04_fusoin"])
    assert "04_fusoin" in capsys.readouterr().err


def test_every_chapter_with_a_backbone_is_tried() -> None:
    with_backbone = {
        path.stem
        for path in (ROOT / "notebooks").glob("*.ipynb")
        if "backbone_name" in {parameter.name for parameter in runner.parameters(path)}
    }
    assert with_backbone == set(try_scale.CHAPTERS)


def test_the_images_of_the_trial_are_two_tasks_of_40(tmp_path: Path) -> None:
    try_scale.write_images(tmp_path)
    for name, classes in try_scale.TASKS.items():
        task = load_task(name, "folder", root=tmp_path)
        assert len(task.class_names) == classes
        assert len(task.train) + len(task.validation) + len(task.test) == 40


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
    done = snakemake("-m", "snakemake", "--snakefile", SNAKEFILE, "--cores=1", "--configfile=mine.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = nbformat.read(tmp_path / "runs" / "of mine" / "small.ipynb", as_version=4)
    assert made.cells[-1].outputs[0].text == "tiny ['signs'] 3 ['signs.safetensors'] 1 0.25\n"
    assert TaskVector.load(tmp_path / "runs" / "of mine" / "tau" / "signs.safetensors").info["data_seed"] == "3"
