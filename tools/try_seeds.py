"""Run chapters with other seeds, and with one user, one antenna and two tasks, and print the cells that fail.

A strict check must hold whatever the reader's parameters are. Not part of the tests: a run takes minutes to hours. For
example, chapters 1 and 3 with five seeds, and the chapter on fusion with two tasks and few images:

    python tools/try_seeds.py 01 03 --seeds 0-4
    python tools/try_seeds.py 04 -p task_names '["signs", "digits"]' -p test_images 100 -p seeds 2

A seed's chapters are executed into one folder, beside the stored ones of the others, from which chapter 7 collects
them when it is among those to try. With `RMTLLMF_HOME` set to a folder of its own, its users are trained once for all.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rmtllmf_lib.command.runner import NotebookError, parameters, run_notebook

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
COLLECTING = "07_verdicts"  # reads the executed chapters beside it
CORNERS: tuple[dict[str, Any], ...] = (
    {"num_users": 1},
    {"num_rx_antennas": 1},
    {"num_users": 1, "num_rx_antennas": 1},
    {"task_names": ["signs", "digits"]},
    {"jnr_db": -15.0},
    {"jnr_db": -20.0},
)


def failure(notebook: Path, values: dict[str, Any], folder: Path) -> str:
    """Return the cell that failed with the last line of its error, or an empty text; the output goes to the folder."""
    try:
        run_notebook(notebook, folder / notebook.name, values, progress=False)
    except NotebookError as error:
        text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
        cell = re.search(r"In \[(\d+)\]", text)
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("The notebook up to")]
        return f"cell {cell[1] if cell else '?'}: {lines[-1]}"
    return ""


def try_together(notebooks: list[Path], tried: list[dict[str, Any]], given: dict[str, str]) -> int:
    """Execute the chapters that know a setting into one folder, chapter 7 after them, and count the failures."""
    failed = 0
    for values in tried:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            for stored in NOTEBOOKS.glob("*.ipynb"):
                shutil.copyfile(stored, folder / stored.name)
            for notebook in notebooks:
                known = {parameter.name for parameter in parameters(notebook)}
                if values.keys() <= known:
                    taken = {name: value for name, value in given.items() if name in known} | values
                elif notebook.stem == COLLECTING and len(notebooks) > 1:
                    taken = {"chapters": str(folder)}
                else:
                    continue
                start = time.perf_counter()
                found = failure(notebook, taken, folder)
                failed += bool(found)
                print(f"{notebook.stem} {values}: {found or 'ok'} ({time.perf_counter() - start:.0f} s)", flush=True)
    return failed


def main() -> int:
    """Try every setting of the chapters, and return 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("chapters", nargs="+", help="numbers, such as 01")
    parser.add_argument("--seeds", default="0-19", help="first and last; default: %(default)s")
    parser.add_argument("--no-corners", action="store_true", help="seeds alone")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="parameters")
    given = parser.parse_args()
    first, last = map(int, given.seeds.split("-"))
    notebooks = [found for chapter in given.chapters for found in sorted(NOTEBOOKS.glob(f"{chapter}*.ipynb"))]
    tried: list[dict[str, Any]] = [{"seed": seed} for seed in range(first, last + 1)]
    if not given.no_corners:
        tried += CORNERS
    return int(try_together(notebooks, tried, dict(given.parameters)) > 0)


if __name__ == "__main__":
    sys.exit(main())
