"""The book's stored results: tables that take longer than a chapter, each written by a script of `workflow`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

import rmtllmf_lib
from rmtllmf_lib.errors import InputError

RESULTS = Path(rmtllmf_lib.__file__).resolve().parents[1] / "book" / "results"

_TEXTS = ("correlation", "link", "scale", "signs")  # "" where a condition has none


def stored_results(name: str, folder: Path = RESULTS) -> pd.DataFrame:
    """Return a table of the book's results, such as "the_answer" or, with a row for each suite, "the_answer_suites".

    Those of another `folder` are read in the same way.

    Raises
    ------
    InputError
        where it is not there.
    """
    texts = dict.fromkeys(_TEXTS, "str")  # where all are empty, too
    table = pd.read_csv(_path(f"{name}.csv", folder), keep_default_na=False, na_values=[""], dtype=texts)
    return table.fillna({column: "" for column in _TEXTS if column in table})


def made(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """Return what made a table of that name: command, versions and settings; errors as `stored_results`."""
    found: dict[str, Any] = json.loads(_path(f"{name}.json", folder).read_text(encoding="utf-8"))
    return found


def _path(file: str, folder: Path) -> Path:
    path = folder / file
    if not path.is_file():
        script = path.stem.removesuffix("_suites")
        raise InputError(f"{path} is not there: run python -m workflow.{script}, or read the book in its checkout")
    return path
