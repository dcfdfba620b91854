"""The command `rmtllmf`: each subcommand reads its arguments and calls one function of the library.

Modules that import torch are imported by the subcommand that needs them, so that help comes at once.
"""

# ruff: noqa: D301 -- in help texts, \b keeps the lines of a paragraph as they are

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rmtllmf_lib import __version__
from rmtllmf_lib.command.import_command import import_models
from rmtllmf_lib.command.options import BackboneFile
from rmtllmf_lib.command.run_command import PairsCommand, run
from rmtllmf_lib.command.store_command import store_app
from rmtllmf_lib.command.study_command import study
from rmtllmf_lib.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0 done, 1 failed, 2 the user can mend it.

    Bad input and files that cannot be read or written end in one message. Any other exception is a defect of the
    library and keeps its traceback.
    """
    from rmtllmf_lib.command.runner import NotebookError

    try:
        app(args=None if arguments is None else list(arguments), prog_name="rmtllmf")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except (InputError, OSError) as error:
        print(f"rmtllmf: {_told(error)}", file=sys.stderr)
        return 2
    except NotebookError as error:
        print(f"rmtllmf: {error}", file=sys.stderr)
        return 1
    return 0


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"rmtllmf {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Resilient multi-task model fusion over wireless links.

    Several users fine-tune one pre-trained image model, each on a task of their
    own, and send what changed: a task vector. Fusing the vectors gives one model
    for all tasks.

    \b
    A first walk, with nothing to download (two minutes):
      rmtllmf finetune signs digits scenes --out tau
      rmtllmf fuse tau/*.safetensors --out fused.safetensors
      rmtllmf evaluate tau/*.safetensors

    \b
    Each command explains itself:
      rmtllmf finetune --help
    """


_Backbone = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="tiny (comes with the library), ViT-B-16-quickgelu (OpenAI's, through open_clip), or a folder that"
        " 'rmtllmf pretrain' has written.",
    ),
]
_Source = Annotated[
    str,
    typer.Option(
        metavar="SOURCE",
        help="Where the images come from: procedural, torchvision or folder. A task can bring its own, as in"
        " torchvision:mnist or folder:pets.",
    ),
]
_Root = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder that holds the data sets (torchvision, folder).")
]
_Seed = Annotated[int, typer.Option(help="Seed of the drawn images and of the training.")]
_Device = Annotated[str, typer.Option(metavar="cpu|cuda|auto", help="auto is a GPU where there is one.")]
_Lam = Annotated[float | None, typer.Option(metavar="NUMBER", help="lambda itself, such as 0.3.")]
_Rule = Annotated[
    str | None,
    typer.Option(
        metavar="RULE",
        help="lambda from the number N of vectors: published (best values for ViT-B/16: 0.70 for two, 0.29 for eight)"
        " or inverse (1/N, the mean of the models).  [default: published]",
    ),
]


@app.command()
def pretrain(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write the trained base to.")],
    seed: Annotated[int, typer.Option(help="Seed of the images and of the training.")] = 0,
    samples: Annotated[int, typer.Option(help="Image-caption pairs seen in all.")] = 2_560_000,
    pairs: Annotated[int, typer.Option(help="Different pairs that are drawn.")] = 300_000,
    threads: Annotated[
        int | None, typer.Option(help="Threads of torch; the last bits of the result depend on it.")
    ] = None,
) -> None:
    """Train the embedded CLIP from scratch on drawn images.

    Needed only for a base other than the one that comes with the library: three
    quarters of an hour on one core with the defaults, a minute for a try with few samples.

    \b
    Example:
      rmtllmf pretrain --out base --samples 100000 --pairs 20000
      rmtllmf finetune signs digits --backbone base --out tau
    """
    from rmtllmf_lib.training.pretrain import PretrainRecipe
    from rmtllmf_lib.training.pretrain import pretrain as train

    train(out, PretrainRecipe(samples=samples, pairs=pairs, seed=seed), threads=threads)


@app.command()
def finetune(
    tasks: Annotated[
        list[str], typer.Argument(metavar="TASK", help="Names of tasks; for folders of images, name=path or a path.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the task vectors, one file a task.")],
    backbone: _Backbone = "tiny",
    backbone_file: BackboneFile = None,
    source: _Source = "procedural",
    root: _Root = None,
    head: Annotated[
        str,
        typer.Option(
            metavar="text|prototype",
            help="The frozen classifier: class names through the text tower, or the means of the training images'"
            " features, for names that the text tower does not know.",
        ),
    ] = "text",
    seed: _Seed = 0,
    steps: Annotated[int | None, typer.Option(help="Steps of training.  [default: the backbone's recipe]")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.  [default: the backbone's recipe]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.  [default: the backbone's recipe]")] = None,
    device: _Device = "cpu",
    autocast: Annotated[
        str | None, typer.Option(metavar="bfloat16", help="Compute products in this precision.  [default: float32]")
    ] = None,
    train_images: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Train on N images of each task, a tenth of which is kept for validation.  [default: all]"
        ),
    ] = None,
    checkpoint_every: Annotated[int, typer.Option(metavar="STEPS", help="Save the state every so many steps.")] = 250,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace vectors made with other settings.")] = False,
) -> None:
    """Fine-tune the backbone on each task and write its task vector.

    Prints the accuracy on test images before (base: zero-shot with the text head)
    and after (fine_tuned). A run that was stopped goes on where it was: give the
    same command again.

    \b
    Tasks of each source:
      procedural   cars textures landuse signs digits aerial scenes housenumbers
      torchvision  mnist gtsrb eurosat svhn dtd sun397 cars, below --root
      folder       your own: train/<class>/*.jpg and test/<class>/*.jpg

    \b
    Examples:
      rmtllmf finetune signs digits --out tau
      rmtllmf finetune mnist gtsrb --source torchvision --root data \\
          --head prototype --out tau
      rmtllmf finetune pets=photos/pets --source folder --head prototype \\
          --train-images 2000 --out tau
    """
    from rmtllmf_lib.command import commands
    from rmtllmf_lib.tasks.sources import parse_tasks

    base = _load_backbone(backbone, backbone_file)
    recipe = commands.chosen_recipe(base, steps, lr, batch_size)
    specs = parse_tasks(tasks, source, root)
    taus = []
    for spec in specs:
        tau = commands.finetune_task(
            base,
            spec,
            out,
            recipe,
            head=head,
            seed=seed,
            n_train=train_images,
            device=device,
            autocast=autocast,
            checkpoint_every=checkpoint_every,
            overwrite=overwrite,
        )
        taus.append(tau)
        before, after = (float(tau.info[key]) for key in ("base_accuracy", "accuracy"))
        print(f"{out / spec.name}.safetensors: {before:.3f} -> {after:.3f}", file=sys.stderr, flush=True)
    _print(commands.with_means(commands.finetuned_table(taus)))


@app.command()
def fuse(
    vectors: Annotated[list[Path], typer.Argument(metavar="VECTOR", help="Task vectors of one base.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the fused weights go (safetensors).")],
    lam: _Lam = None,
    rule: _Rule = None,
    backbone: _Backbone = "tiny",
    backbone_file: BackboneFile = None,
) -> None:
    """Fuse task vectors into one model: base + lambda * sum.

    The file names the base that it was made from; vectors of another base are
    refused.

    \b
    Examples:
      rmtllmf fuse tau/*.safetensors --out fused.safetensors
      rmtllmf fuse tau/signs.safetensors tau/digits.safetensors --lam 0.7 \\
          --out pair.safetensors
    """
    from rmtllmf_lib.command import commands

    base = _load_backbone(backbone, backbone_file).weights
    count, factor = commands.fuse_files(vectors, base, out, lam, rule)
    print(f"{out}: {count} task vectors at lambda = {factor:.4g} on the base {base.hash[:12]}")


@app.command()
def evaluate(
    models: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE", help="Task vectors, fused weights, or both.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK", help="A task to evaluate on; may be repeated.  [default: the vectors' own]"),
    ] = None,
    backbone: _Backbone = "tiny",
    backbone_file: BackboneFile = None,
    source: _Source = "procedural",
    root: _Root = None,
    head: Annotated[
        str | None,
        typer.Option(metavar="text|prototype", help="The frozen classifier.  [default: the vector's own, else text]"),
    ] = None,
    lam: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER|validation",
            help="lambda itself, or 'validation': the best one on validation images, never on test images.",
        ),
    ] = None,
    rule: _Rule = None,
    seed: Annotated[int, typer.Option(help="Seed of drawn images, for tasks without a vector.")] = 0,
    test_images: Annotated[
        int | None, typer.Option(metavar="N", help="Test on N images of each task.  [default: all]")
    ] = None,
    device: _Device = "cpu",
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table to this file, too.")] = None,
) -> None:
    """Measure accuracy on test images, task by task.

    The columns: base (the backbone alone; with the text head this is zero-shot),
    fine_tuned (the task's own vector), fused (all vectors at one lambda),
    normalized (fused / fine_tuned), and one for each file of fused weights.

    \b
    Examples:
      rmtllmf evaluate tau/*.safetensors
      rmtllmf evaluate tau/*.safetensors --lam validation --csv table.csv
      rmtllmf evaluate fused.safetensors --task signs --task digits
      rmtllmf evaluate tau/mnist.safetensors tau/pets.safetensors --root data
      rmtllmf evaluate tau/mnist.safetensors tau/pets.safetensors \\
          --task torchvision:mnist --task folder:pets=/photos/pets --root data
    """
    from rmtllmf_lib.command import commands
    from rmtllmf_lib.tasks.sources import parse_tasks

    number = _lambda(lam)
    base = _load_backbone(backbone, backbone_file)
    files = commands.read_models(models or [], base.weights)
    specs = parse_tasks(task, source, root) if task else commands.specs_of(files.taus, root)
    if not specs:
        raise InputError("no task to evaluate on: name them, as in --task signs --task digits, or give task vectors")
    table, factor = commands.evaluate_models(
        base, files, specs, head=head, lam=number, rule=rule, seed=seed, n_test=test_images, device=device
    )
    _print(commands.with_means(table))
    if factor is not None:
        print(f"\nfused: {len(files.taus)} task vectors at lambda = {factor:.4g}")
    if csv is not None:
        from rmtllmf_lib.storage.atomic import atomic_write

        with atomic_write(csv) as path:
            table.to_csv(path, index=False)


app.command("import")(import_models)
app.command(cls=PairsCommand)(run)
app.command()(study)
app.add_typer(store_app, name="store")


def _load_backbone(name: str, file: Path | None) -> Any:
    from rmtllmf_lib.model.backbone import load_backbone

    return load_backbone(name, weights_file=file)


def _lambda(text: str | None) -> float | str | None:
    if text is None or text == "validation":
        return text
    try:
        return float(text)
    except ValueError:
        raise InputError(f"lambda is {text!r}: expected a number such as 0.3, or 'validation'") from None


def _print(table: pd.DataFrame) -> None:
    """Rates with three decimals; "-" where no model gives one, and nothing for a mean of counts."""
    shown = {
        name: [f"{value:.3f}" if value == value else "-" for value in column]
        if column.dtype.kind == "f"
        else column.astype(object).where(column.notna(), "").astype(str)
        for name, column in table.items()
    }
    print(type(table)(shown).to_string(index=False))


if __name__ == "__main__":
    sys.exit(main())
