"""What all commands share: expanded paths and messages that name options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from rmtllmf_lib.command.app import App, Command
from rmtllmf_lib.command.cli import app as commands
from rmtllmf_lib.errors import InputError


def test_every_command_is_one_of_ours() -> None:
    group: Any = typer.main.get_command(commands)
    groups = [each for each in group.commands.values() if hasattr(each, "commands")]
    found = [each for each in group.commands.values() if each not in groups]
    found += [each for one in groups for each in one.commands.values()]
    assert {one.name for one in groups} == {"store", "data"}
    assert [command.name for command in found if not isinstance(command, Command)] == [] and len(found) > 9


@pytest.mark.parametrize(
    ("message", "typed"),
    [
        ("steps is 0: expected a whole number", "--steps is 0: expected a whole number"),
        ("warmup_steps is 9: expected at most steps = 3", "warmup_steps is 9: expected at most --steps = 3"),
        ("batch_size is 0", "--batch-size is 0"),
        ("task 'a': n_train is 5; use fewer", "task 'a': --train-images is 5; use fewer"),
        ("too much: use fewer (n_train, n_test)", "too much: use fewer (--train-images, n_test)"),
        ("source 'x' reads files: give root, the folder", "--source 'x' reads files: give --root, the folder"),
        ("weights_file 'x' is for 'y'", "--backbone-file 'x' is for 'y'"),
        ("diverged: lower lr, warm up longer", "diverged: lower --lr, warm up longer"),
        ("lam is 'half'", "--lam is 'half'"),
        # no arguments
        ("there is no root of this task", "there is no root of this task"),
        ("'steps is 0' in steps.txt", "'steps is 0' in steps.txt"),
        ("batch_size.txt and x/batch_size are files", "batch_size.txt and x/batch_size are files"),
        ("task 'a' is given twice", "task 'a' is given twice"),
        ("the source is unclear", "the source is unclear"),
    ],
)
def test_messages_name_options(message: str, typed: str) -> None:
    app = App(rich_markup_mode=None)

    @app.command()
    def work(
        steps: int = 1,
        batch_size: int = 1,
        train_images: int = 1,
        source: str = "",
        root: Path = Path(),
        backbone_file: Path = Path(),
        lr: float = 0.1,
        lam: Annotated[float, typer.Option("-l", "--lam")] = 0.1,
        task: str = "",
    ) -> None:
        raise InputError(message)

    with pytest.raises(InputError) as caught:
        CliRunner().invoke(app, [], catch_exceptions=False)
    assert str(caught.value) == typed


def test_a_bad_bound_on_processes_is_refused_before_a_command_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App(rich_markup_mode=None)

    @app.command()
    def work() -> None:
        pytest.fail("began")

    monkeypatch.setenv("RMTLLMF_MAX_WORKERS", "many")
    with pytest.raises(InputError, match="RMTLLMF_MAX_WORKERS is 'many'"):
        CliRunner().invoke(app, [], catch_exceptions=False)
