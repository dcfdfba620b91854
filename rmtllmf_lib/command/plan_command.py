"""The command `rmtllmf plan`: what a study takes, before anything starts."""

# ruff: noqa: D301 -- in help texts, \b keeps the lines of a paragraph as they are

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # loads pandas, which --help should not wait for
    import pandas as pd

    from rmtllmf_lib.study.plan import Counts, Rates


def plan(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The study, as JSON, on ViT-B-16-quickgelu.")],
    rates: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Rates of `python -m benchmarks.gpu --json FILE`.  [default: projected for an H100]"
        ),
    ] = None,
    gpus: Annotated[int, typer.Option(metavar="NUMBER", help="GPUs that share one store.")] = 1,
    price: Annotated[float, typer.Option(metavar="NUMBER", help="Of an hour of one GPU.")] = 3.0,
) -> None:
    """Print what a study takes: jobs, hours, disk, memory.

    Nothing is loaded, and nothing starts. What is counted follows from the file: the
    models, the images that each is scored on, the steps of training. It is divided by
    what a machine does in a second: measure yours, since the projected ones are not
    measured. wall_hours is the time with all GPUs at work without a pause.

    \b
    Examples:
      rmtllmf plan workflow/paper_study.json
      rmtllmf plan workflow/paper_study.json --gpus 8
      python -m benchmarks.gpu --json measured.json
      rmtllmf plan workflow/paper_study.json --rates measured.json
    """
    from rmtllmf_lib.arrays import real_number, whole_number
    from rmtllmf_lib.study import plan as planning
    from rmtllmf_lib.study.file import read_study

    whole_number(gpus, "gpus")
    real_number(price, "price", minimum=0)
    given = planning.PROJECTED if rates is None else planning.read_rates(rates)
    study, suite, suites = read_study(file)
    counts = planning.count_work(study, suite, suites)
    print(described(counts, planning.plan(counts, given, gpus), given, gpus, price))


def described(counts: Counts, table: pd.DataFrame, rates: Rates, gpus: int, price: float) -> str:
    """The plan as text: what was counted, the table with its sums, and the price."""
    import pandas as pd

    sums = {
        "stage": "all",
        **table[["gpu_hours", "wall_hours", "disk_gb"]].sum(),
        **table[["host_gb", "device_gb"]].max(),
    }
    whole = pd.concat([table, pd.DataFrame([{"jobs": "", **sums}])], ignore_index=True)
    digits = {"gpu_hours": 1, "wall_hours": 1, "disk_gb": 1, "host_gb": 0, "device_gb": 0}
    for name, places in digits.items():
        whole[name] = [f"{value:,.{places}f}" for value in whole[name]]
    lines = [
        f"rates: {rates.source}",
        f"{counts.vectors:,} fine-tunings, {counts.models:,} models; millions of images: {counts.trained / 1e6:,.1f} "
        f"in fine-tuning, {counts.realigned / 1e6:,.1f} in realignment, {counts.tested / 1e6:,.1f} scored",
        "",
        whole.to_string(index=False),
        "",
        f"{gpus} GPU{'s' * (gpus > 1)}: {sums['wall_hours']:,.1f} hours, {price * sums['gpu_hours']:,.0f} at "
        f"{price:g} an hour",
    ]
    return "\n".join(lines)
