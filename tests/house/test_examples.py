"""Every example of the pages for doing runs as it is pasted: block after block, in an empty folder.

Training is cut to two steps, studies and chapters to what a template or a parameter makes of them; what needs data or
machines that are not here is named below, with the reason. What a reader is told to bring, is brought.
"""

import importlib
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from image_files import write_image
from places import ROOT
from rmtllmf_lib.command import cli
from rmtllmf_lib.training import finetune, suite
from vision_files import write_mnist

PAGES = ("README", "book/your_tasks", "book/your_channel", "book/sionna_channel", "book/your_attack",
         "book/your_merger", "book/your_payload", "book/rerun", "book/paper_scale")  # fmt: skip

# Lines of console blocks that are not run here, with the reason; by how they begin.
NOT_RUN = {
    "make": "builds or tests everything",
    "pip": "needs the registry",
    "snakemake": "tests/house/test_workflow.py runs it",
    "cp notebooks": "follows runs at paper scale",
    "rmtllmf data check": "tests/tasks/test_inventory.py runs it, on data sets that it makes",
    "rmtllmf plan": "tests/study/test_plan.py runs it, and compares what the page shows",
    "python -m benchmarks.gpu": "takes minutes of a GPU",
    "python -m workflow.try_scale": "takes minutes to hours",
    "rmtllmf run": "chapters run in their own tests, their parameters are looked at here",
}
AT_PAPER_SCALE = ("ViT-B-16", "published", "runs/clip-b16")  # weights and data that are not here


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of a page's examples, in order."""
    text = (ROOT / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(r"^```(python|console)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def lines(block: str) -> list[list[str]]:
    """The commands of a console block."""
    joined = block.replace("\\\n", " ").splitlines()
    return [words for line in joined if (words := shlex.split(line, comments=True))]


def is_left_out(words: list[str]) -> bool:
    line = " ".join(words)
    return any(line.startswith(start) for start in NOT_RUN) or any(name in line for name in AT_PAPER_SCALE)


def write_folder(root: Path, classes: tuple[str, ...]) -> None:
    for label, name in enumerate(classes):
        for part, count in (("train", 12), ("test", 3)):
            for shade in range(count):
                write_image(root / part / name / f"{shade}.jpg", 3 * label, (40, 30), shade)


def write_tables(root: Path, classes: tuple[str, ...]) -> None:
    root.mkdir(parents=True)
    for part, count in (("train", 12), ("test", 3)):
        lines = [f"{name}\tnumber {number} is about {name}" for number in range(count) for name in classes]
        (root / f"{part}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the pages say that a reader brings; training takes two steps."""
    write_folder(tmp_path / "my_task", ("cat", "dog", "horse"))
    write_folder(tmp_path / "photos" / "pets", ("cat", "dog", "rabbit"))
    write_tables(tmp_path / "my_texts", ("sport", "get_the_weather"))
    write_tables(tmp_path / "texts" / "moods", ("joy", "anger"))
    write_mnist(tmp_path / "data")
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    usual = finetune.recipe_for

    def short(*given: Any, **settings: Any) -> Any:
        return replace(usual(*given, **settings), steps=2, warmup_steps=0)

    monkeypatch.setattr(finetune, "recipe_for", short)
    monkeypatch.setattr(suite, "recipe_for", short)
    monkeypatch.setenv("RMTLLMF_HOME", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_examples_run_as_pasted(page: str, reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page == "book/sionna_channel":
        pytest.importorskip("sionna")
    names: dict[str, object] = {}
    ran = 0
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, page, "exec"), names)
            ran += 1
            continue
        for words in lines(text):
            if words[:2] == ["rmtllmf", "run"]:
                check_run(words)
                continue
            if is_left_out(words):
                continue
            assert words[0] == "rmtllmf", f"{words[0]} is neither run here nor named with a reason"
            given = list(words[1:])
            if given[0] == "study" and "--template" not in given:
                shrink(Path(given[1]))
            expanded = [str(path) for word in given for path in (sorted(Path().glob(word)) if "*" in word else [word])]
            assert cli.main(expanded) == 0, " ".join(words)
            ran += 1
    assert ran or page in ("book/paper_scale", "book/rerun")


def check_run(words: list[str]) -> None:
    """A chapter is not executed, but what is given to it must be accepted."""
    runner = importlib.import_module("rmtllmf_lib.command.runner")
    given = {words[at + 1]: words[at + 2] for at, word in enumerate(words) if word == "-p"}
    path = ROOT / words[2]
    runner.checked_values(given, runner.parameters(path), path)


def shrink(path: Path) -> None:
    """Make a study of the template that takes seconds."""
    study = json.loads(path.read_text())
    body = study["study"]
    body |= {"seeds": 1, "test_images": 20, "sizes": [2], "per_size": 1}
    body["scenarios"], body["protections"] = body["scenarios"][:1], body["protections"][:1]
    path.write_text(json.dumps(study))


def test_what_is_left_out_is_there_to_leave_out() -> None:
    """No reason outlives its example."""
    shell = [text for page in PAGES for language, text in blocks(page) if language == "console"]
    every = [" ".join(words) for text in shell for words in lines(text)]
    assert [start for start in NOT_RUN if not any(line.startswith(start) for line in every)] == []
    assert [name for name in AT_PAPER_SCALE if not any(name in line for line in every)] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ("README", "book/paper_scale")])
def test_a_page_says_how_long_it_takes(page: str) -> None:
    text = (ROOT / f"{page}.md").read_text(encoding="utf-8")
    assert re.search(r"\b(takes?|runs in) [^.]*\b(seconds?|minutes?|hours?)\b", text)
