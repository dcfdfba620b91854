from __future__ import annotations

import os
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
import typer

import rmtllmf_lib
from places import ROOT
from rmtllmf_lib.command import cli, runner
from rmtllmf_lib.command.runner import NotebookError
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.folders import default_root
from rmtllmf_lib.storage.store import Store

COMMANDS = (
    "",
    "pretrain",
    "finetune",
    "fuse",
    "evaluate",
    "import",
    "export",
    "data",
    "data check",
    "plan",
    "pack",
    "unpack",
    "run",
    "study",
    "store",
    "store list",
    "store verify",
    "store clear",
)


def shown_help(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main([*command.split(), "--help"]) == 0
    return capsys.readouterr().out


# ---------------------------------------------------------------- help


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_and_shows_an_example(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = shown_help(command, capsys)
    assert max(map(len, text.splitlines())) <= 80
    assert f"    rmtllmf {command}".rstrip() in text
    assert not re.search(r"[\b\x1b╭│]|\\b|[a-z]\.\.\.$|\[/?(bold|dim|cyan)", text, flags=re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_the_help_are_accepted(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown_help(command, capsys).replace("\\\n", " ")
    examples = re.findall(r"^    rmtllmf (.*)$", text, flags=re.MULTILINE)
    assert examples
    for example in examples:
        words = shlex.split(example, comments=True)
        if "--help" in words:
            continue
        group = typer.main.get_command(cli.app)
        while hasattr(group, "commands"):
            group = group.commands[words.pop(0)]
        try:
            given = group.make_context("example", words).params  # reads the words, runs nothing
        except typer.Exit as done:  # an option that prints a list
            assert done.exit_code == 0
            continue
        if command == "run" and (notebook := ROOT / given["notebook"]).is_file():
            named = {text.partition("=")[0] for text in given["parameter"] or ()}
            assert named - {parameter.name for parameter in runner.parameters(notebook)} == set(), example


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_shows_no_types_of_python(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.findall(r"<(?:int|float|str|path|list)\b.*|[{}]", shown_help(command, capsys)) == []


def test_every_command_is_tested_here() -> None:
    group: Any = typer.main.get_command(cli.app)
    names = [
        f"{name} {sub}".strip()
        for name in group.commands
        for sub in ("", *getattr(group.commands[name], "commands", ()))
    ]
    assert sorted(names) == sorted(COMMANDS[1:])


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = "import sys; from rmtllmf_lib.command.cli import main; main(['--help'])"
    code += "; print({'torch', 'pandas', 'numpy', 'papermill'} & {*sys.modules})"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.endswith("set()\n")
    # Seconds of work, not of waiting: the machine may be busy with something else.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_pretrain_receives_its_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from rmtllmf_lib.training import pretrain

    given: list[Any] = []
    monkeypatch.setattr(pretrain, "pretrain", lambda *some, **more: given.append((*some, more)))
    words = f"pretrain --out {tmp_path} --seed 7 --samples 5000 --pairs 900 --threads 2"
    assert cli.main(words.split()) == 0
    assert cli.main(["pretrain", "--out", str(tmp_path)]) == 0
    recipe = pretrain.PretrainRecipe(samples=5000, pairs=900, seed=7)
    assert given == [(tmp_path, recipe, {"threads": 2}), (tmp_path, pretrain.PretrainRecipe(), {"threads": None})]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"rmtllmf {rmtllmf_lib.__version__}\n"


@pytest.mark.parametrize("words", ["fly", "fuse --out x", "finetune signs", "run", "fuse x --out y --lam many"])
def test_wrong_usage_is_reported(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words.split()) == 2
    assert "Usage: rmtllmf" in (err := capsys.readouterr().err) and "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("finetune signs --out tau --autocast float8", "--autocast is 'float8'"),
        ("evaluate --task signs --head p", "--head is 'p'"),
        ("evaluate --task signs --lam 0.3", "add their files"),
        ("fuse a --out f --lam 0.3 --rule inverse", "does not exist"),
    ],
)
def test_messages_speak_of_what_was_typed(
    words: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "load_backbone", lambda *_: pytest.fail("checked too late"))
    assert cli.main(words.split()) == 2
    assert message in (said := capsys.readouterr().err) and "None" not in said


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (InputError("lam is 'x': expected a number"), 2, "rmtllmf: lam is 'x': expected a number\n"),
        (
            FileNotFoundError(2, "No such file or directory", "some.st"),
            2,
            "rmtllmf: some.st: No such file or directory; check the path\n",
        ),
        (
            OSError(28, "No space left on device"),
            2,
            "rmtllmf: a file that the system does not name: No space left on device; "
            "free some space, or write to another disk\n",
        ),
        (OSError("the disk is gone"), 2, "rmtllmf: the disk is gone\n"),
        (PermissionError(), 2, "rmtllmf: PermissionError\n"),
        (NotebookError("n.ipynb failed"), 1, "rmtllmf: n.ipynb failed\n"),
    ],
)
def test_user_errors_are_one_line(
    error: Exception, status: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(runner, "parameters", fail)
    assert cli.main(["run", "n.ipynb", "--list"]) == status
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", message)


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "parameters", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["run", "n.ipynb", "--list"])


def test_the_exit_status_reaches_the_shell() -> None:
    command = [sys.executable, "-m", "rmtllmf_lib.command.cli", "run", "missing.ipynb"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("rmtllmf: ") and "'missing.ipynb'" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_that_cannot_show_a_character(encoding: str, tmp_path: Path) -> None:
    Store(tmp_path).json("note", {"text": "✓" * 99}, lambda: 1)
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "rmtllmf_lib.command.cli", "store"]
    for words, status in ((["list"], 0), (["clear", "✗"], 2)):
        line = [*command, *words, "--root", str(tmp_path)]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, env=environment)
        assert done.returncode == status and b"Traceback" not in done.stderr
        assert b"\\u271" in done.stdout + done.stderr


# ---------------------------------------------------------------- run


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    book = nbformat.v4.new_notebook()
    book.cells = [
        nbformat.v4.new_code_cell("seed: int = 0  # of every draw\nname = 'a'", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("print(name * seed)\nassert seed < 5"),
    ]
    nbformat.write(book, "n.ipynb")
    return Path("n.ipynb")


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("", {}),
        ("-p seed 1", {"seed": "1"}),
        ("-p seed 1 -p name b", {"seed": "1", "name": "b"}),
        ("-p seed -3", {"seed": "-3"}),
        ("-p name -p", {"name": "-p"}),
        ("-p name --list", {"name": "--list"}),
        ("-p name a=b", {"name": "a=b"}),
        ("-p name=b --parameter=seed=1", {"seed": "1", "name": "b"}),
        ("--parameter name '' -p seed '1 2'", {"name": "", "seed": "1 2"}),
    ],
)
def test_parameters_are_pairs_of_words(
    words: str,
    values: dict[str, str],
    notebook: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(runner, "run_notebook", lambda *given: calls.append(given) or given[1])
    assert cli.main(["run", *shlex.split(words), "n.ipynb", "-o", "out.ipynb"]) == 0
    assert cli.main(["run", "n.ipynb", *shlex.split(words)]) == 0
    assert calls == [(notebook, Path("out.ipynb"), values), (notebook, Path("runs/n.ipynb"), values)]
    assert capsys.readouterr().out == "out.ipynb\nruns/n.ipynb\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-p seed", "needs a name and a value"),
        ("-p", "requires an argument"),
        ("-pseed 1", "has no value|unexpected"),
        ("-p seed 1 -p seed 2", "'seed' is given twice"),
        ("-p sed 1", "did you mean 'seed'"),
        ("-p seed 1.5", "expected int"),
    ],
)
def test_parameters_that_are_not(words: str, message: str, notebook: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "n.ipynb", *words.split()]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not Path("runs").exists()


def test_list_shows_the_parameters(notebook: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "n.ipynb", "--list"]) == 0
    assert capsys.readouterr().out == "seed: int = 0  # of every draw\nname: str = 'a'\n"


# ---------------------------------------------------------------- store


def test_store_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = ["--root", str(tmp_path / "store")]
    where = Store(tmp_path / "store")
    where.json("note", {"seed": 1, "text": "✓" * 99}, lambda: 1)
    where.json("other", {"seed": 2}, lambda: 22)
    assert cli.main(["store", "list", *root]) == 0
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.split()[:4] == ["note", where.list()[0].key[:12], "json", "1"] and first.endswith("✓…")
    assert second.endswith('{"seed": 2}') and last == f"2 entries, 3 bytes in {where.root}"
    assert cli.main(["store", "verify", *root]) == 0
    assert capsys.readouterr().out == f"no problems in {where.root}\n"
    (where.list()[0].path / "data.json").write_text("2")
    assert cli.main(["store", "verify", *root]) == 1
    assert "data.json does not match its checksum\n1 problems in" in capsys.readouterr().out
    assert cli.main(["store", "clear", "note", *root]) == 0
    assert capsys.readouterr().out == f"1 entries removed from {where.root}\n"
    assert cli.main(["store", "clear", "../x", *root]) == 2
    capsys.readouterr()
    assert cli.main(["store", "clear", "notes", *root]) == 2
    assert "no kind 'notes'" in (message := capsys.readouterr().err) and "expected one of note, other" in message
    assert [entry.kind for entry in where.list()] == ["other"]
    assert cli.main(["store", "clear", *root]) == 0 and where.list() == []


def test_the_default_store_is_the_users(capsys: pytest.CaptureFixture[str]) -> None:
    Store().json("note", {"seed": 1}, lambda: 1)
    assert cli.main(["store", "list"]) == 0
    assert capsys.readouterr().out.endswith(f"bytes in {default_root()}\n")
    assert cli.main(["store", "clear", "note"]) == 0
