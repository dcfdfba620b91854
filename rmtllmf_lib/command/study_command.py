"""The command `rmtllmf study`: from a JSON file of conditions to one table."""

# ruff: noqa: D301 -- in help texts, \b keeps the lines of a paragraph as they are

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rmtllmf_lib.command.outputs import OVERWRITE, guard, require_writable


def study(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The study, as JSON.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="Output table.  [default: FILE with suffix .parquet]"),
    ] = None,
    workers: Annotated[
        int, typer.Option(metavar="NUMBER", help="Processes, with one thread each; use one on a GPU.")
    ] = 1,
    device: Annotated[str, typer.Option(metavar="cpu|cuda|auto", help="auto is a GPU if there is one.")] = "cpu",
    overwrite: Annotated[bool, typer.Option(OVERWRITE, help="Replace an existing table.")] = False,
    template: Annotated[bool, typer.Option("--template", help="Write an example study to FILE and exit.")] = False,
) -> None:
    """Run a study: fused models under many link scenarios, one table.

    The file says which scenarios (how large the errors of the received task
    vectors are, as a link leaves them with or without a jammer), which
    protections, which combinations of tasks, and how many repetitions. Task
    vectors that are not stored yet are trained first.

    \b
    Protections, among others:
        unprotected   the received vectors, fused
        freeze        fused, with the clean base's embeddings; nothing is trained
        realign       fused, then trained on a memory of a few images per class
        rmtllmf       the paper's: embeddings reloaded and frozen, then realigned
        noise-aware   as rmtllmf, with lambda chosen on the memory
        control       the base alone, realigned: no received vector
        few-shot-specialists   a stronger control: specialists that the station
                      trains on its memory, merged and realigned
        coded-tsv-realigned   low-rank payloads with a code, merged by TSV-Merge
        merge-tsv, merge-tsv-realigned   another merger than the sum, without and
                      with realignment; `rmtllmf fuse --merger list` has all

    Finished parts are stored: an interrupted study resumes with the same command,
    and several processes or machines with a common store share the work. The table
    has one row per model and task; its provenance is written to a JSON file next
    to it.

    \b
    Examples:
      rmtllmf study fig2.json --template
      rmtllmf study fig2.json --workers 2
      rmtllmf study fig2.json --out runs/fig2.parquet --device cuda
    """
    from rmtllmf_lib.arrays import whole_number
    from rmtllmf_lib.errors import InputError
    from rmtllmf_lib.folders import default_root
    from rmtllmf_lib.study import file as study_file
    from rmtllmf_lib.training.loading import resolve_device

    if template:
        if file.exists():
            raise InputError(f"{file} already exists: give the example another name, or delete the file")
        study_file.save_study(file, study_file.example())
        print(file)
        return
    target = out or file.with_suffix(".parquet")
    _, suite = study_file.load_study(file)
    inputs = [file, *map(Path, filter(None, [suite.weights_file]))]
    guard(target, "a parquet table", inputs=inputs, overwrite=overwrite)
    guard(
        target.with_name(f"{target.stem}.provenance.json"),
        "the provenance of a study",
        inputs=inputs,
        overwrite=overwrite,
    )
    require_writable(default_root())
    whole_number(workers, "workers")
    resolve_device(device)
    table = study_file.run_study_file(file, target, workers=workers, device=device)
    print(study_file.summary(table).to_string(index=False))
    print(f"\n{len(table)} rows in {target}")
