"""The command `rmtllmf pretrain`: a new embedded base."""

# ruff: noqa: D301 -- in help texts, \b keeps the lines of a paragraph as they are

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rmtllmf_lib.command.outputs import OVERWRITE, guard


def pretrain(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Output folder for the trained base.")],
    seed: Annotated[int, typer.Option(metavar="NUMBER", help="Seed of the images and of the training.")] = 0,
    samples: Annotated[
        int, typer.Option(metavar="NUMBER", help="Image-caption pairs seen in training, repeats included.")
    ] = 2_560_000,
    pairs: Annotated[int, typer.Option(metavar="NUMBER", help="Distinct image-caption pairs drawn.")] = 300_000,
    threads: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", help="Number of torch threads; affects the last bits of the result."),
    ] = None,
    overwrite: Annotated[bool, typer.Option(OVERWRITE, help="Replace an existing base.")] = False,
) -> None:
    """Train the embedded CLIP from scratch on procedural images.

    Needed only for another base than the one that ships with the library. The
    defaults take 45 minutes on one core, a trial run with few samples a minute.

    \b
    Example:
      rmtllmf pretrain --out base --samples 100000 --pairs 20000
      rmtllmf finetune signs digits --backbone base --out tau
    """
    from rmtllmf_lib.training.pretrain import FILES, PretrainRecipe
    from rmtllmf_lib.training.pretrain import pretrain as train

    recipe = PretrainRecipe(samples=samples, pairs=pairs, seed=seed)
    record = out / "provenance.json"
    for file in [record] if record.exists() else [out / name for name in FILES]:
        guard(file, "the provenance of a base", overwrite=overwrite)
    train(out, recipe, threads=threads)
