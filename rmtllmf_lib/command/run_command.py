"""The command `rmtllmf run`: execute a notebook with given parameters."""

# ruff: noqa: D301 -- in help texts, \b keeps the lines of a paragraph as they are

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rmtllmf_lib.command.app import Command
from rmtllmf_lib.command.outputs import OVERWRITE, guard
from rmtllmf_lib.errors import InputError


class PairsCommand(Command):
    """Accepts ``-p NAME VALUE``: typer has no repeatable options with two values, so they become ``NAME=VALUE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the two arguments after each ``-p``."""
        joined, rest = [], list(args)
        while rest:
            word = rest.pop(0)
            joined.append(word)
            if word == "--":
                break
            if word in ("-p", "--parameter") and len(rest) >= 1 and "=" not in rest[0]:
                if len(rest) < 2:
                    ctx.fail(f"Option '{word}' needs a name and a value: {word} {rest[0]} VALUE.")
                joined.append(f"{rest.pop(0)}={rest.pop(0)}")
        return super().parse_args(ctx, joined + rest)


def run(
    notebook: Annotated[Path, typer.Argument(metavar="NOTEBOOK", help="Notebook to execute.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", metavar="NAME VALUE", help="Value of a parameter; repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Output notebook.  [default: runs/NOTEBOOK]")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the notebook's parameters and exit.")] = False,
    html: Annotated[bool, typer.Option("--html", help="Render the output as a page for the browser, too.")] = False,
    overwrite: Annotated[bool, typer.Option(OVERWRITE, help="Replace an existing output notebook.")] = False,
) -> None:
    """Execute a notebook of the book with the given parameters.

    Names, types and ranges are checked before anything runs. The output is written
    once the last cell has run; if a cell fails, the notebook is kept next to it as
    *.failed.ipynb.

    \b
    Examples:
      rmtllmf run notebooks/04_fusion.ipynb --list
      rmtllmf run notebooks/04_fusion.ipynb -p seed 1 -p test_images 250
      rmtllmf run notebooks/04_fusion.ipynb -p seed 2 -o runs/seed2.ipynb --html
    """
    from rmtllmf_lib.command import render, runner

    if list_:
        print("\n".join(map(str, runner.parameters(notebook))) or f"{notebook} takes no parameters")
        return
    values: dict[str, str] = {}
    for text in parameter or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"parameter {text!r} has no value: give a name and a value, as in -p seed 1")
        if name in values:
            raise InputError(f"parameter {name!r} is given twice, as {values[name]!r} and {value!r}: give it once")
        values[name] = value
    target = out or Path("runs") / notebook.name
    runner.require_notebook_name(target)
    guard(target, "a notebook", inputs=[notebook], overwrite=overwrite)
    failed = runner.failed_name(target)
    guard(failed, "a notebook", inputs=[notebook], overwrite=True)  # of an earlier run, if it exists
    if html:  # a run may take long: what the page needs is looked at before
        render.require_renderer()
        render.require_folder(render.default_folder(target))
    print(runner.run_notebook(notebook, target, values))
    if html:
        print(render.render_html(target))
