"""Tables of the book's results, and beside them what made them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from rmtllmf_lib import __version__
from rmtllmf_lib.chapters.results import made, stored_results
from rmtllmf_lib.storage.atomic import atomic_write


def versions() -> dict[str, str]:
    """Versions that decide results."""
    return {"rmtllmf": __version__, "torch": torch.__version__}


def continued(path: Path, cells: Sequence[Mapping[str, Any]], suites: int) -> tuple[int, pd.DataFrame]:
    """The number of cells, from the first, that the tables at `path` hold already, and their rows suite by suite.

    They hold them if the JSON file beside says the same settings and versions, and every suite is there; else (0, no
    rows), and everything is computed anew. So a table that one machine began another one finishes.
    """
    nothing = 0, pd.DataFrame()
    if not path.with_suffix(".json").is_file():
        return nothing
    record = made(path.stem, path.parent)
    begun = record.get("cells", [])
    if record.get("versions") != versions() or begun != json.loads(json.dumps([*cells]))[: len(begun)]:
        print(f"{path} is of other settings or versions: all of it is computed anew", flush=True)
        return nothing
    rows = stored_results(f"{path.stem}_suites", path.parent)
    if {*rows["seed"]} != {*range(suites)}:
        print(f"{path} is of {rows['seed'].nunique()} suites, not {suites}: all of it is computed anew", flush=True)
        return nothing
    print(f"{len(begun)} of {len(cells)} parts are in {path}", flush=True)
    return len(begun), rows


def write_results(tables: Mapping[Path, pd.DataFrame], record: Path, command: str, origin: Mapping[str, Any]) -> None:
    """Write tables with six digits, and to `record` the command, the versions, and whatever else decided them."""
    record.parent.mkdir(exist_ok=True)
    for path, table in tables.items():
        with atomic_write(path) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
    with atomic_write(record) as temporary:
        temporary.write_text(json.dumps({"command": command, "versions": versions(), **origin}, indent=1) + "\n")
