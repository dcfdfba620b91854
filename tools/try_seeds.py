"""Run chapters with other seeds, and with one user, one antenna and two tasks, and print the cells that fail.

A strict check must hold whatever the reader's parameters are. Not part of the tests: a run takes minutes to hours. For
example, chapters 1 and 3 with five seeds, and the chapter on fusion with two tasks and few images:

    python tools/try_seeds.py 01 03 --seeds 0-4
    python tools/try_seeds.py 04 -p task_names '["signs", "digits"]' -p test_images 100 -p seeds 2
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rmtllmf_lib.command.runner import NotebookError, parameters, run_notebook

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
CORNERS: tuple[dict[str, Any], ...] = (
    {"num_users": 1},
    {"num_rx_antennas": 1},
    {"num_users": 1, "num_rx_antennas": 1},
    {"task_names": ["signs", "digits"]},
    {"jnr_db": -15.0},
    {"jnr_db": -20.0},
)


def settings(notebook: Path, seeds: list[int], given: dict[str, str]) -> list[dict[str, Any]]:
    """Return the parameters to try: seeds, then the corners, of all what the notebook knows."""
    known = {parameter.name for parameter in parameters(notebook)}
    shared = {name: value for name, value in given.items() if name in known}
    tried: list[dict[str, Any]] = [{"seed": seed} for seed in seeds] if "seed" in known else []
    return [shared | each for each in [*tried, *(corner for corner in CORNERS if corner.keys() <= known)]]


def failure(notebook: Path, values: dict[str, Any]) -> str:
    """Return the cell that failed with the last line of its error, or an empty text."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            run_notebook(notebook, Path(folder) / "out.ipynb", values, progress=False)
        except NotebookError as error:
            text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
            cell = re.search(r"In \[(\d+)\]", text)
            lines = [line for line in text.splitlines() if line.strip() and not line.startswith("The notebook up to")]
            return f"cell {cell[1] if cell else '?'}: {lines[-1]}"
    return ""


def main() -> int:
    """Try every setting of the chapters, and return 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("chapters", nargs="+", help="numbers, such as 01")
    parser.add_argument("--seeds", default="0-19", help="first and last; default: %(default)s")
    parser.add_argument("--no-corners", action="store_true", help="seeds alone")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="parameters")
    given = parser.parse_args()
    first, last = map(int, given.seeds.split("-"))
    failed = 0
    for chapter in given.chapters:
        for notebook in sorted(NOTEBOOKS.glob(f"{chapter}*.ipynb")):
            for values in settings(notebook, list(range(first, last + 1)), dict(given.parameters)):
                if given.no_corners and "seed" not in values:
                    continue
                start = time.perf_counter()
                found = failure(notebook, values)
                failed += bool(found)
                print(f"{notebook.stem} {values}: {found or 'ok'} ({time.perf_counter() - start:.0f} s)", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
