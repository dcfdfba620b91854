"""The command `rmtllmf import`: task vectors of published fine-tuned models."""

# ruff: noqa: D301 -- in help texts, \b keeps the lines of a paragraph as they are

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rmtllmf_lib.command.options import BackboneFile
from rmtllmf_lib.errors import InputError


def import_models(
    models: Annotated[
        list[str], typer.Argument(metavar="TASK=PATH", help="Task name, and file or folder of the fine-tuned model.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Output folder, one task vector file per task.")],
    backbone: Annotated[
        str, typer.Option(metavar="NAME", help="Base of the fine-tuned models, as in 'finetune'.")
    ] = "ViT-B-16-quickgelu",
    backbone_file: BackboneFile = None,
    published_base: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The authors' copy of the base; must equal the backbone.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing task vectors.")] = False,
) -> None:
    """Make task vectors of published fine-tuned models.

    Reads CLIP image towers with open_clip's or Hugging Face's parameter names, from
    safetensors or plain state dicts. Models of another base are refused, and so is
    the same model under two names.

    \b
    Example, with published models of ViT-B/16 in the folder models:
      rmtllmf import svhn=models/clip-vit-base-patch16_svhn \\
          dtd=models/clip-vit-base-patch16_dtd \\
          --published-base models/clip-vit-base-patch16 --out tau
      rmtllmf evaluate tau/*.safetensors --backbone ViT-B-16-quickgelu \\
          --task torchvision:svhn --task torchvision:dtd --root data
    """
    from rmtllmf_lib.model.backbone import load_backbone
    from rmtllmf_lib.model.checkpoints import import_task_vectors
    from rmtllmf_lib.tasks.sources import NAME

    files: dict[str, str] = {}
    for text in models:
        task, equals, path = text.partition("=")
        if not equals or not path or not NAME.fullmatch(task):
            raise InputError(f"{text!r} does not name a task and a model: expected TASK=PATH, as in svhn=models/svhn")
        if task in files:
            raise InputError(f"task {task!r} is given twice: name each once")
        files[task] = path
    base = load_backbone(backbone, weights_file=backbone_file).weights
    table = import_task_vectors(files, base, out, published_base=published_base, overwrite=overwrite)
    shown = table.assign(change=table["change"].map("{:.4f}".format))
    print(shown.to_string(index=False))
    print(f"\n{len(table)} task vectors in {out}")
