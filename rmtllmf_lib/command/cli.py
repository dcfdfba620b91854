"""The command `rmtllmf`: each subcommand parses its arguments and calls the library.

Modules that import torch are imported inside the subcommands that need them, to keep `--help` fast.
"""

# ruff: noqa: D301 -- in help texts, \b keeps the lines of a paragraph as they are

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from rmtllmf_lib import __version__
from rmtllmf_lib.command.app import App
from rmtllmf_lib.command.backbone_option import BackboneFile, BackboneName, load_backbone
from rmtllmf_lib.command.data_command import data_app
from rmtllmf_lib.command.exchange_command import export, import_models
from rmtllmf_lib.command.merger_option import MergerOption
from rmtllmf_lib.command.outputs import OVERWRITE, guard, require_writable
from rmtllmf_lib.command.payload_command import pack, unpack
from rmtllmf_lib.command.plan_command import plan
from rmtllmf_lib.command.pretrain_command import pretrain
from rmtllmf_lib.command.run_command import PairsCommand, run
from rmtllmf_lib.command.store_command import store_app
from rmtllmf_lib.command.study_command import study
from rmtllmf_lib.errors import InputError

app = App(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)


# What to do about errors of the file system.
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space, or write to another disk"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "change its permissions, or give another path"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP), "check the path"),
    errno.EROFS: "give a path on a disk that can be written",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0 for success, 1 for a failed notebook, 2 for bad input.

    Bad input and files that cannot be read or written give a one-line message. Any other exception is a bug and keeps
    its traceback.
    """
    from rmtllmf_lib.command.runner import NotebookError

    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")  # for terminals that cannot show all characters
    logging.basicConfig(format="%(message)s")
    logging.getLogger("rmtllmf_lib.progress").setLevel(logging.INFO)
    try:
        app(args=None if arguments is None else list(arguments), prog_name="rmtllmf")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except (InputError, OSError) as error:
        print(f"rmtllmf: {_message(error)}", file=sys.stderr)
        return 2
    except NotebookError as error:
        print(f"rmtllmf: {error}", file=sys.stderr)
        return 1
    return 0


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        place = "a file that the system does not name" if error.filename is None else os.fsdecode(error.filename)
        return f"{place}: {error.strerror}; {_REMEDIES.get(error.errno or 0, 'check the path and its disk')}"
    return str(error) or type(error).__name__


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"rmtllmf {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Resilient multi-task model fusion over wireless links.

    Several users fine-tune the same pre-trained model, of images or of texts, each
    on a task of their own. Each sends its task vector, the fine-tuned weights minus the
    pre-trained ones, to a base station. The base station fuses the vectors it
    receives: the pre-trained weights plus lambda times the sum of the vectors
    are one model for all tasks.

    The users send at the same time to a base station with several antennas, the
    uplink, while a jammer may transmit noise that makes their symbols harder to
    tell apart. A scenario says how large the errors of the received vectors then
    are, and whether the users share them.

    \b
    In this order, without any download (a few minutes):
      rmtllmf finetune signs digits scenes --out tau # task vectors
      rmtllmf evaluate tau/*.safetensors             # before and after
      rmtllmf fuse tau/*.safetensors --out fused.safetensors
    Then the link, where 'study' trains what it needs:
      rmtllmf study fig2.json --template             # an example to edit
      rmtllmf study fig2.json                        # many links, one table
    And a chapter of the book, with parameters of your own:
      rmtllmf run notebooks/04_fusion.ipynb --list

    \b
    Help for a command:
      rmtllmf finetune --help
    """


_Source = Annotated[
    str,
    typer.Option(
        metavar="SOURCE",
        help="Source of the data: procedural (drawn on the spot), torchvision or folder. A task may name its own, as"
        " in torchvision:mnist or folder:pets.",
    ),
]
_Root = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder with the data sets (torchvision, folder).")]
_Seed = Annotated[int, typer.Option(metavar="NUMBER", help="Seed of the procedural images and of the training.")]
_Difficulty = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|NUMBER",
        help="Of the drawn tasks: easy, calibrated (as hard as photographs are for CLIP), hard, or a number from 0"
        " (easy).  [default: calibrated]",
    ),
]
_Device = Annotated[str, typer.Option(metavar="cpu|cuda|auto", help="auto is a GPU if there is one.")]
_Overwrite = Annotated[bool, typer.Option(OVERWRITE, help="Replace an existing output.")]
_Lam = Annotated[float | None, typer.Option(metavar="NUMBER", help="Value of lambda, such as 0.3.")]
_Rule = Annotated[
    str | None,
    typer.Option(
        metavar="RULE",
        help="Rule for lambda, given the number N of vectors: published (the best values for ViT-B/16: 0.70 for two,"
        " 0.29 for eight) or inverse (1/N, the mean of the models).  [default: published]",
    ),
]


app.command()(pretrain)


@app.command()
def finetune(
    tasks: Annotated[
        list[str],
        typer.Argument(metavar="TASK", help="Task name; for a folder of your own, name=path or just the path."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Output folder, one task vector file per task.")],
    backbone: BackboneName = "tiny",
    backbone_file: BackboneFile = None,
    source: _Source = "procedural",
    root: _Root = None,
    head: Annotated[
        str,
        typer.Option(
            metavar="text|prototype",
            help="The frozen classifier: text features of the class names, or mean features of the training data"
            " (prototype), for class names that the text tower does not know.",
        ),
    ] = "text",
    seed: _Seed = 0,
    difficulty: _Difficulty = None,
    steps: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Training steps.  [default: the backbone's recipe]")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(metavar="RATE", help="Learning rate.  [default: the backbone's recipe]")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Images or texts per step.  [default: the backbone's recipe]")
    ] = None,
    device: _Device = "cpu",
    autocast: Annotated[
        str | None, typer.Option(metavar="bfloat16", help="Precision of matrix products.  [default: float32]")
    ] = None,
    train_images: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER", help="Training inputs per task; a tenth of them is used for validation.  [default: all]"
        ),
    ] = None,
    checkpoint_every: Annotated[int, typer.Option(metavar="NUMBER", help="Training steps between checkpoints.")] = 250,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace task vectors made with other settings.")
    ] = False,
) -> None:
    """Fine-tune the backbone on each task and write the task vectors.

    Prints the test accuracy before (base; zero-shot with the text head) and after
    (fine_tuned). To resume an interrupted run, give the same command again.

    \b
    Tasks by source:
      procedural   cars textures landuse signs digits aerial scenes housenumbers
      of texts     intents questions dates units opinions tenses certainty speech
      torchvision  mnist gtsrb eurosat svhn dtd sun397 cars, below --root
      folder       your images: train/<class>/*.jpg and test/<class>/*.jpg
                   your texts: train.tsv and test.tsv, each line label, tab, text

    \b
    Examples:
      rmtllmf finetune signs digits --out tau
      rmtllmf finetune mnist gtsrb --source torchvision --root data \\
          --head prototype --out tau
      rmtllmf finetune pets=photos/pets --source folder --head prototype \\
          --train-images 2000 --out tau
      rmtllmf finetune topics=texts/topics --backbone minilm --out tau
    """
    from rmtllmf_lib.arrays import one_of, seed_number, whole_number
    from rmtllmf_lib.command import commands
    from rmtllmf_lib.tasks.sources import severities
    from rmtllmf_lib.training.finetune import RECIPES, precision, recipe_for
    from rmtllmf_lib.training.heads import HEAD_KINDS
    from rmtllmf_lib.training.loading import resolve_device

    specs = commands.specs_typed(tasks, source, root)
    one_of(head, HEAD_KINDS, "head")
    if autocast is not None:
        one_of(autocast, ("bfloat16",), "autocast")
    precision(resolve_device(device), autocast)
    seed_number(seed)
    whole_number(checkpoint_every, "checkpoint_every")
    hard = severities(specs, difficulty)
    for spec in specs if train_images is not None else []:
        whole_number(train_images, "n_train", 1, commands.most_images(spec))
    given: dict[str, Any] = {"steps": steps, "lr": lr, "batch_size": batch_size}
    given = {name: value for name, value in given.items() if value is not None}
    replace(RECIPES["tiny"], warmup_steps=0, **given)  # checks them
    require_writable(out)
    for spec in specs:  # a vector made with the same settings is kept, so `prepared` looks at --overwrite
        guard(out / f"{spec.name}.safetensors", "a task vector", inputs=[backbone_file], overwrite=True)
    base = load_backbone(backbone, backbone_file)
    recipe = recipe_for(base, **given)
    options: dict[str, Any] = {"device": device, "autocast": autocast, "checkpoint_every": checkpoint_every}
    options |= {"head": head, "seed": seed, "n_train": train_images, "overwrite": overwrite}
    new = [spec for spec in specs if not (out / f"{spec.name}.safetensors").exists()]
    # beside each new vector a checkpoint: the weights and the two moments of Adam
    require_writable(out, (len(new) + 3) * base.weights.values.nbytes if new else 0)
    trainings = {
        spec.name: commands.prepared(base, spec, out, recipe, difficulty=hard.get(spec.name), **options)
        for spec in specs
    }
    taus = []
    for name, train in trainings.items():
        tau = train()
        taus.append(tau)
        before, after = (float(tau.info[key]) for key in ("base_accuracy", "accuracy"))
        print(f"{out / name}.safetensors: {before:.3f} -> {after:.3f}", file=sys.stderr, flush=True)
    print(commands.shown(commands.finetuned_table(taus)))


@app.command()
def fuse(
    vectors: Annotated[list[Path], typer.Argument(metavar="VECTOR", help="Task vectors of the same base.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Output file for the fused weights (safetensors).")],
    lam: _Lam = None,
    rule: _Rule = None,
    merger: MergerOption = "arithmetic",
    seed: Annotated[int, typer.Option(metavar="NUMBER", help="Seed of mergers that draw at random.")] = 0,
    backbone: BackboneName = "tiny",
    backbone_file: BackboneFile = None,
    overwrite: _Overwrite = False,
) -> None:
    """Fuse task vectors into one model: base + lambda * their sum.

    Or lambda * what another merger makes of them. Task vectors of another base are
    refused. The output records its base.

    \b
    Examples:
      rmtllmf fuse tau/*.safetensors --out fused.safetensors
      rmtllmf fuse tau/signs.safetensors tau/digits.safetensors --lam 0.7 \\
          --out pair.safetensors
      rmtllmf fuse tau/*.safetensors --merger tsv --out tsv.safetensors
      rmtllmf fuse --merger list
    """
    from rmtllmf_lib.arrays import seed_number
    from rmtllmf_lib.command import commands

    guard(out, "fused weights", inputs=[*vectors, backbone_file], overwrite=overwrite)
    commands.require_files(vectors)
    commands.require_merger(merger, of_files=True)
    commands.coefficient(len(vectors), lam, rule, merger)
    seed_number(seed)
    base = load_backbone(backbone, backbone_file).weights
    count, factor = commands.fuse_files(vectors, base, out, lam, rule, merger, seed)
    by = "" if merger == "arithmetic" else f" by {merger}"
    print(f"{out}: {count} task vectors{by} at lambda = {factor:.4g} on the base {base.hash[:12]}")


@app.command()
def evaluate(
    models: Annotated[list[Path] | None, typer.Argument(metavar="FILE", help="Task vectors or fused weights.")] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK", help="A task to evaluate on; repeatable.  [default: the vectors' tasks]"),
    ] = None,
    backbone: BackboneName = "tiny",
    backbone_file: BackboneFile = None,
    source: _Source = "procedural",
    root: _Root = None,
    head: Annotated[
        str | None,
        typer.Option(metavar="text|prototype", help="The frozen classifier.  [default: as in fine-tuning, else text]"),
    ] = None,
    lam: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER|validation",
            help="Value of lambda, or 'validation': the best value on the validation images.",
        ),
    ] = None,
    rule: _Rule = None,
    merger: MergerOption = "arithmetic",
    seed: Annotated[
        int,
        typer.Option(metavar="NUMBER", help="Seed of procedural images of tasks without a vector, and of mergers."),
    ] = 0,
    difficulty: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|NUMBER",
            help="Of drawn tasks without a vector, as in finetune.  [default: calibrated]",
        ),
    ] = None,
    test_images: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Test images per task.  [default: all]")
    ] = None,
    device: _Device = "cpu",
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table to this file as well.")] = None,
    overwrite: _Overwrite = False,
) -> None:
    """Evaluate models on the test images of each task.

    Columns: base (the backbone; zero-shot with the text head), fine_tuned (with the
    task's own vector), fused (all vectors with one lambda), normalized (fused /
    fine_tuned), and one for each file of fused weights. Mergers that need images
    get training images of each task.

    \b
    Examples:
      rmtllmf evaluate tau/*.safetensors
      rmtllmf evaluate tau/*.safetensors --lam validation --csv table.csv
      rmtllmf evaluate tau/*.safetensors --merger tsv --lam validation
      rmtllmf evaluate fused.safetensors --task signs --task digits
      rmtllmf evaluate tau/mnist.safetensors tau/pets.safetensors --root data
      rmtllmf evaluate tau/mnist.safetensors tau/pets.safetensors \\
          --task torchvision:mnist --task folder:pets=/photos/pets --root data
    """
    from rmtllmf_lib.arrays import one_of, seed_number, whole_number
    from rmtllmf_lib.command import commands
    from rmtllmf_lib.training.heads import HEAD_KINDS
    from rmtllmf_lib.training.loading import resolve_device
    from rmtllmf_lib.training.suite import assemble_suite

    number = _lambda(lam)
    if csv is not None:
        guard(csv, "a table of accuracies", inputs=[*(models or []), backbone_file], overwrite=overwrite)
    if not models and (lam is not None or rule is not None):
        raise InputError("lambda says how to fuse task vectors, and none is given: add their files, or leave it out")
    commands.require_files(models or [])
    commands.require_merger(merger)
    if number != "validation" or rule is not None:
        commands.coefficient(max(1, len(models or [])), number, rule, merger)
    if head is not None:
        one_of(head, HEAD_KINDS, "head")
    resolve_device(device)
    seed_number(seed)
    if test_images is not None:
        whole_number(test_images, "n_test")
    typed = commands.specs_typed(task or [], source, root)
    base = load_backbone(backbone, backbone_file)
    taus, points = commands.read_models(models or [], base.weights)
    specs = typed or commands.specs_of(taus, root)
    commands.check_claims(taus, specs)
    if not specs:
        raise InputError("no task to evaluate on: expected task vectors, or tasks, as in --task signs --task digits")
    suite = assemble_suite(base, specs, taus, head, seed=seed, difficulty=difficulty, n_test=test_images, device=device)
    table, factor = commands.evaluate_suite(suite, points, number, rule, merger, seed)
    print(commands.shown(table))
    if factor is not None:
        by = "" if merger == "arithmetic" else f" by {merger}"
        print(f"\nfused: {len(taus)} task vectors{by} at lambda = {factor:.4g}")
    if csv is not None:
        from rmtllmf_lib.storage.atomic import atomic_write

        with atomic_write(csv) as path:
            table.to_csv(path, index=False)


app.command()(pack)
app.command()(unpack)
app.command("import")(import_models)
app.command()(export)
app.command(cls=PairsCommand)(run)
app.command()(study)
app.command()(plan)
app.add_typer(store_app, name="store")
app.add_typer(data_app, name="data")


def _lambda(text: str | None) -> float | str | None:
    if text is None or text == "validation":
        return text
    try:
        return float(text)
    except ValueError:
        raise InputError(f"lam is {text!r}: expected a number such as 0.3, or 'validation'") from None


if __name__ == "__main__":
    sys.exit(main())
