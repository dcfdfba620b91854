"""The commands `rmtllmf store …`: list, verify and clear stored results."""

# ruff: noqa: D301 -- in help texts, \b keeps the lines of a paragraph as they are

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rmtllmf_lib.command.app import App
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.folders import default_root

if TYPE_CHECKING:  # loads numpy, which --help should not wait for
    from rmtllmf_lib.storage.store import Store

store_app = App(rich_markup_mode=None, add_completion=False, no_args_is_help=True)

_StoreRoot = Annotated[
    Path | None,
    typer.Option("--root", metavar="DIR", help="Folder of the store.  [default: $RMTLLMF_HOME or the user's cache]"),
]


@store_app.callback()
def _store() -> None:
    """Manage stored results: task vectors, tables and their parts.

    \b
    Examples:
      rmtllmf store list
      rmtllmf store verify
      rmtllmf store clear
    """


@store_app.command("list")
def store_list(root: _StoreRoot = None) -> None:
    """List the entries: kind, key, format, size, time, configuration.

    \b
    Example:
      rmtllmf store list
    """
    store = _open_store(root)
    entries = store.list()
    for entry in entries:
        config = json.dumps(entry.config, ensure_ascii=False)
        about = config if len(config) <= 60 else f"{config[:59]}…"
        print(f"{entry.kind}  {entry.key[:12]}  {entry.format:11}  {entry.bytes:>11,}  {entry.created}  {about}")
    print(f"{len(entries)} entries, {sum(entry.bytes for entry in entries):,} bytes in {store.root}")


@store_app.command("verify")
def store_verify(root: _StoreRoot = None) -> None:
    """Verify the checksums; exit with status 1 if an entry is damaged.

    Nothing is changed. A damaged entry is recomputed when it is next needed.

    \b
    Example:
      rmtllmf store verify
    """
    store = _open_store(root)
    problems = store.verify()
    for problem in problems:
        print(f"{problem.path}: {problem.reason}")
    print(f"{len(problems)} problems in {store.root}" if problems else f"no problems in {store.root}")
    if problems:
        raise typer.Exit(1)


@store_app.command("clear")
def store_clear(
    kind: Annotated[
        str | None, typer.Argument(metavar="[KIND]", help="Kind of the entries, as in 'store list'.  [default: all]")
    ] = None,
    root: _StoreRoot = None,
) -> None:
    """Remove stored results; they are recomputed when needed.

    \b
    Examples:
      rmtllmf store clear
      rmtllmf store clear task-vector
    """
    store = _open_store(root)
    if kind is not None and store.kinds() and not store.kinds(kind):
        raise InputError(f"there is no kind {kind!r} in {store.root}: expected one of {', '.join(store.kinds())}")
    print(f"{store.clear(kind)} entries removed from {store.root}")


def _open_store(root: Path | None) -> Store:
    from rmtllmf_lib.storage.store import Store

    return Store(root or default_root())
