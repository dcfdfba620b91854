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
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.storage.atomic import atomic_write


def versions() -> dict[str, str]:
    """Versions that decide results."""
    return {"rmtllmf": __version__, "torch": torch.__version__}


def continued(path: Path, cells: Sequence[Mapping[str, Any]], suites: int, base: str) -> tuple[int, pd.DataFrame]:
    """The number of cells, from the first, that the tables at `path` hold already, and their rows suite by suite.

    So a table that one machine began another one finishes. Settings, versions, base and number of suites must be those
    of the tables; changes of the code are not noticed.

    Parameters
    ----------
    cells : sequence of mapping
        All settings of each.
    base : str
        Hash of the base of all models.

    Raises
    ------
    InputError
        where the tables are of others: nothing is overwritten.
    """
    if not path.with_suffix(".json").is_file():
        return 0, pd.DataFrame()
    record, asked = made(path.stem, path.parent), json.loads(json.dumps([*cells]))
    begun = record.get("cells", [])
    both = min(len(begun), len(asked))
    rows = recorded_rows(path.with_name(f"{path.stem}_suites.csv"), record)
    same = record.get("versions") == versions() and record.get("base", base) == base and begun[:both] == asked[:both]
    if not same or {*rows["seed"]} != {*range(suites)}:
        raise InputError(
            f"{path} is of other settings, versions, base or suites than those asked for, so it cannot be gone on "
            "with: give another --out, or --anew to replace it"
        )
    print(f"{len(begun)} of {len(cells)} parts are in {path}", flush=True)
    return len(begun), rows


def recorded_rows(path: Path, record: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of a table that its record knows of: one that was killed after the table has written more of them.

    Raises
    ------
    InputError
        where there are fewer.
    """
    rows = stored_results(path.stem, path.parent)
    known = record.get("rows", {}).get(path.name, len(rows))
    if len(rows) < known:
        raise InputError(f"{path} has {len(rows)} rows: expected {known}; get it again, or give --anew to replace it")
    return rows[:known]


def write_results(tables: Mapping[Path, pd.DataFrame], record: Path, command: str, origin: Mapping[str, Any]) -> None:
    """Write tables with six digits, and to `record` the command, the versions, and whatever else decided them.

    The record comes last, with the number of rows of each table: where it does not come, `recorded_rows` are those of
    the record before.
    """
    record.parent.mkdir(exist_ok=True)
    for path, table in tables.items():
        with atomic_write(path) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
    rows = {path.name: len(table) for path, table in tables.items()}
    content = {"command": command, "versions": versions(), **origin, "rows": rows}
    with atomic_write(record) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
