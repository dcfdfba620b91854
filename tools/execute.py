"""Execute notebooks from top to bottom, in place or into a copy of the book, and store them clean.

Clean means: execution counts 1…n, no timestamps, no version of the interpreter, streams in one piece; so the stored
file changes only when the prose, the code or a result changes. A notebook that fails leaves the stored file untouched,
and the others go on; in a copy of the book it appears with its stored outputs, below a banner that says so.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from rmtllmf_lib.command.kernel import ThisInterpreter
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.recorded import fill
from rmtllmf_lib.storage.atomic import atomic_write

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"file_extension": ".py", "mimetype": "text/x-python", "name": "python", "pygments_lexer": "ipython3"}

COLLECTING = ("07_verdicts.ipynb",)  # read the executed chapters beside them

AGAIN = "Start it again: finished parts are stored, and it goes on from there"
BANNER = """:::{{warning}}
This chapter could not be computed anew: {summary}.
Its outputs are those stored with the book.
:::"""


class ExecutionError(Exception):
    """A notebook was not executed to its end: a `summary` for its readers, and a `remedy` for who started it."""

    def __init__(self, summary: str, remedy: str) -> None:
        super().__init__(summary, remedy)
        self.summary, self.remedy = summary, remedy


async def execute(source: Path, folder: Path, timeout: float) -> nbformat.NotebookNode:
    """Execute the notebook at `source` in a folder and return it clean, with the numbers of its prose filled in.

    Raises
    ------
    ExecutionError
        if a cell raises or takes more than `timeout` seconds, if the kernel dies or does not start.
    """
    notebook = nbformat.read(source, as_version=4)
    where = "no cell was executed"

    def at(cell: nbformat.NotebookNode, cell_index: int) -> None:
        nonlocal where
        number = sum(other.cell_type == "code" for other in notebook.cells[: cell_index + 1])
        where = f"cell [{number}] ({cell.get('id', 'no id')})"

    try:
        await NotebookClient(
            notebook,
            kernel_name=KERNEL["name"],
            kernel_manager_class=ThisInterpreter,
            extra_arguments=["--log-level=CRITICAL"],
            timeout=timeout,
            startup_timeout=120,
            record_timing=False,
            coalesce_streams=True,
            on_cell_execute=at,
            resources={"metadata": {"path": str(folder)}},
        ).async_execute()
    except CellTimeoutError as error:
        remedy = f"{AGAIN}; or give each cell more seconds, as in TIMEOUT={2 * timeout:g}."
        raise ExecutionError(f"{where} took more than {timeout:g} s", remedy) from error
    except DeadKernelError as error:
        if (task := asyncio.current_task()) and task.cancelling():  # nbclient takes that for a dead kernel, too
            raise asyncio.CancelledError from error
        raise ExecutionError(f"the kernel died in {where}", f"{AGAIN}; if memory ran out, with JOBS=1.") from error
    except CellExecutionError as error:
        raise ExecutionError(f"{where} raised {error.ename}", str(error)) from error
    except RuntimeError as error:
        raise ExecutionError(f"{where}, {error}", f"{AGAIN}.") from error
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": LANGUAGE})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    try:
        fill(notebook)
    except InputError as error:
        raise ExecutionError("its prose and its records do not fit", str(error)) from error
    return notebook


def store(notebook: nbformat.NotebookNode, target: Path) -> None:
    """Write a valid notebook to `target`, atomically."""
    nbformat.validate(notebook)
    with atomic_write(target) as place:
        nbformat.write(notebook, place)


def with_banner(source: Path, summary: str) -> nbformat.NotebookNode:
    """Return the notebook at `source` as it is stored, with a banner below its first cell."""
    notebook = nbformat.read(source, as_version=4)
    banner = nbformat.v4.new_markdown_cell(BANNER.format(summary=summary))
    if (notebook.nbformat, notebook.nbformat_minor) < (4, 5):
        del banner["id"]
    notebook.cells.insert(1, banner)
    return notebook


async def execute_all(options: argparse.Namespace, stop: Future[Callable[[], object]]) -> list[Path]:
    """Execute the notebooks, `options.jobs` at once; return those that failed, and set `stop` to what ends all."""
    task = asyncio.current_task()
    assert task is not None
    stop.set_result(partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel))
    free = asyncio.Semaphore(options.jobs)

    async def succeeds(source: Path) -> bool:
        target = options.into / source if options.into else source
        async with free:
            start = time.monotonic()
            try:
                folder = target.parent if source.name in COLLECTING else source.parent
                store(await execute(source, folder, options.timeout), target)
            except ExecutionError as failure:
                print(f"{source} failed: {failure.summary}.\n{failure.remedy}", file=sys.stderr, flush=True)
                if options.into:
                    store(with_banner(source, failure.summary), target)
                return False
            except Exception as error:  # unreadable, say, or a full disk: the others must be attempted all the same
                print(f"{source} failed: {error!r}", file=sys.stderr, flush=True)
                return False
            print(f"{source}: {time.monotonic() - start:.0f} s", flush=True)
            return True

    collecting = [source for source in options.notebooks if source.name in COLLECTING]
    failed = []
    for group in ([source for source in options.notebooks if source not in collecting], collecting):
        done = await asyncio.gather(*map(succeeds, group))
        failed += [source for source, success in zip(group, done, strict=True) if not success]
    return failed


def main(arguments: list[str] | None = None) -> int:
    """Execute what the command line names; exit status 1 when a notebook failed, 130 when interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--into", type=Path, help="a copy of the book to store the results in (default: in place)")
    parser.add_argument("--jobs", type=int, default=1, help="notebooks at once")
    parser.add_argument("--timeout", type=float, default=1200.0, help="seconds for one cell")
    options = parser.parse_args(arguments)

    stop: Future[Callable[[], object]] = Future()
    # Off the main thread, where each notebook's client would put its own handler in the place of Ctrl-C's.
    with ThreadPoolExecutor(1) as aside:
        work = aside.submit(lambda: asyncio.run(execute_all(options, stop)))
        try:
            failed = work.result()
        except KeyboardInterrupt:
            print(f"Interrupted. {AGAIN}.", file=sys.stderr, flush=True)
            stop.result()()  # each client shuts its kernel down
            while not wait([work], timeout=10).done:
                stop.result()()  # nbclient overlooks a cancellation now and then
            return 130
    if failed:
        print(f"{len(failed)} of {len(options.notebooks)} failed: {', '.join(map(str, failed))}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
