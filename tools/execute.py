"""Execute notebooks from top to bottom, in place or into a copy of the book, and store them clean.

Clean means: execution counts 1…n, no timestamps, no version of the interpreter, streams in one piece; so the stored
file changes only when the prose, the code or a result changes. A notebook that fails leaves the stored file untouched.
"""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from rmtllmf_lib.command.kernel import ThisInterpreter
from rmtllmf_lib.storage.atomic import atomic_write

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"file_extension": ".py", "mimetype": "text/x-python", "name": "python", "pygments_lexer": "ipython3"}


def execute(source: Path, target: Path, timeout: float) -> float:
    """Execute the notebook at `source` in its own folder and store it, atomically, at `target`; return the seconds."""
    start = time.monotonic()
    notebook = nbformat.read(source, as_version=4)
    NotebookClient(
        notebook,
        kernel_name=KERNEL["name"],
        kernel_manager_class=ThisInterpreter,
        extra_arguments=["--log-level=ERROR"],
        timeout=timeout,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(source.parent)}},
    ).execute()
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": LANGUAGE})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    nbformat.validate(notebook)
    with atomic_write(target) as place:
        nbformat.write(notebook, place)
    return time.monotonic() - start


def main() -> int:
    """Execute what the command line names; exit status 1 when a notebook failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--into", type=Path, help="a copy of the book to store the results in (default: in place)")
    parser.add_argument("--jobs", type=int, default=1, help="notebooks at once")
    parser.add_argument("--timeout", type=float, default=1200.0, help="seconds for one cell")
    arguments = parser.parse_args()

    def one(source: Path) -> bool:
        target = arguments.into / source if arguments.into else source
        try:
            print(f"{source}: {execute(source, target, arguments.timeout):.0f} s", flush=True)
            return True
        except CellExecutionError as error:
            print(f"{source} failed; nothing was stored.\n{error}", file=sys.stderr, flush=True)
            return False

    with ThreadPoolExecutor(arguments.jobs) as pool:
        return 0 if all(list(pool.map(one, arguments.notebooks))) else 1


if __name__ == "__main__":
    sys.exit(main())
