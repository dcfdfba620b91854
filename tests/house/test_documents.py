"""What documents and workflows name must exist: commands, options, names of the library, files."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pybtex.database
import pytest
import typer.main
import yaml

from places import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "book").glob("*.md"))]
WORKFLOWS = sorted((ROOT / ".github").rglob("*.yml"))

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("path", [*DOCUMENTS, *WORKFLOWS], ids=lambda path: path.name)
def test_make_targets_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for words in re.findall(r"(?:`|run: |^ *)make ([^`\n#]*)", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
        named = [word for word in words.split() if re.fullmatch("[a-z]+", word)]
        assert set(named) - targets == set(), words


@each_document
def test_links_between_files_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


@each_document
def test_names_of_the_library_exist(path: Path) -> None:
    for block in blocks(path, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rmtllmf_lib"):
                module = importlib.import_module(node.module or "")
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@each_document
def test_commands_and_their_options_exist(path: Path) -> None:
    """Each `rmtllmf …` line of a console block: its commands, options and notebook."""
    cli = importlib.import_module("rmtllmf_lib.command.cli")
    lines = [line for block in blocks(path, "console") for line in block.replace("\\\n", " ").splitlines()]
    for line in (line for line in lines if line.startswith("rmtllmf ")):
        command = typer.main.get_command(cli.app)
        words = shlex.split(line, comments=True)[1:]
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not getattr(command, "commands", {}), f"no such command: {line}"
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word.split("=")[0] for word in words if re.match("--?[a-z]", word)} - known - {"--help"} == set(), line
        assert [word for word in words if word.startswith("notebooks/") and not (ROOT / word).exists()] == [], line


def test_each_notebook_is_executed_once_for_a_push() -> None:
    """One job runs everything, without a matrix; the others leave the notebooks out."""
    jobs = [job for path in WORKFLOWS for job in yaml.safe_load(path.read_text())["jobs"].values()]
    commands = [(step["run"], "strategy" in job) for job in jobs for step in job["steps"] if "run" in step]
    light = {"make test ARGS=tests", ".ci/oldest", "make check", "make lint", "make html", "make links"}
    assert [command for command in commands if command[0] not in light] == [(".ci/run", False)]
    scripts = {command.split()[0] for command, _ in commands if command.startswith(".ci/")}
    assert [script for script in scripts if not (ROOT / script).stat().st_mode & 0o111] == []
    last = (ROOT / ".ci" / "run").read_text().strip().splitlines()[-1].split()
    assert last[0] == "exec" and {"make", "lint", "test"} <= set(last)
    assert "tests" in (ROOT / ".ci" / "oldest").read_text().strip().splitlines()[-1]


def test_the_job_that_publishes_alone_may_write() -> None:
    texts = [yaml.safe_load(path.read_text()) for path in WORKFLOWS]
    assert [text["permissions"] for text in texts] == [{"contents": "read"}] * len(texts)
    granted = {name: job["permissions"] for text in texts for name, job in text["jobs"].items() if "permissions" in job}
    assert granted == {"publish": {"pages": "write", "id-token": "write"}}


def test_conda_installs_what_pip_does() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [each["pip"] for each in environment["dependencies"] if isinstance(each, dict)]
    assert pip == ["-c constraints.txt", "-e .[book,test]"]
    assert "-c constraints.txt -e '.[book,test]'" in (ROOT / "Makefile").read_text()
    assert {"python=3.11", "pip", "make"} <= {each for each in environment["dependencies"] if isinstance(each, str)}


def test_hooks_before_a_commit_run_the_tools_of_make_lint() -> None:
    hooks = [
        hook
        for each in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
        for hook in each["hooks"]
    ]
    wanted = re.findall(r"^\t@\$\(PY\) -m (ruff \w+|mypy)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert len(wanted) == 3
    assert [tool for tool in wanted if not any(f".venv/bin/{tool}" in hook["entry"] for hook in hooks)] == []


def test_the_paper_is_cited_alike() -> None:
    """What CITATION.cff asks to cite is the paper as the book cites it."""
    asked = yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]
    entry = pybtex.database.parse_file(str(ROOT / "book" / "references.bib")).entries["djuhera2024rmtllmf"]
    plain = {field: value.replace("{", "").replace("}", "") for field, value in entry.fields.items()}
    assert (asked["title"], asked["journal"], str(asked["year"])) == (plain["title"], plain["journal"], plain["year"])
    people = [(" ".join(p.first_names + p.middle_names), " ".join(p.last_names)) for p in entry.persons["author"]]
    assert [(author["given-names"], author["family-names"]) for author in asked["authors"]] == people
