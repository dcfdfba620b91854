"""The option `--merger` of `fuse` and `evaluate`, and the list of what may be given."""

from __future__ import annotations

from typing import Annotated

import typer


def _show_list(name: str) -> str:
    if name == "list":
        from rmtllmf_lib.fusion.mergers import merger_table

        print(merger_table().to_string(index=False))
        raise typer.Exit
    return name


MergerOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="How vectors become one: a name from '--merger list', one with +svc or +lines, or a function of yours,"
        " file.py:function, which is executed.",
        callback=_show_list,
        is_eager=True,
    ),
]
