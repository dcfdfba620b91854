"""Tables of the book's results, and beside them what made them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from rmtllmf_lib import __version__
from rmtllmf_lib.storage.atomic import atomic_write


def write_results(tables: Mapping[Path, pd.DataFrame], made: Path, command: str, origin: Mapping[str, Any]) -> None:
    """Write tables with six digits, and to `made` the command, the versions, and whatever else decided them."""
    made.parent.mkdir(exist_ok=True)
    for path, table in tables.items():
        with atomic_write(path) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
    versions = {"rmtllmf": __version__, "torch": torch.__version__}
    with atomic_write(made) as temporary:
        temporary.write_text(json.dumps({"command": command, "versions": versions, **origin}, indent=1) + "\n")
