"""The commands `rmtllmf import` and `rmtllmf export`: models of other programs to task vectors, and back."""

# ruff: noqa: D301 -- in help texts, \b keeps the lines of a paragraph as they are

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rmtllmf_lib.command.backbone_option import BackboneFile, BackboneName, load_backbone
from rmtllmf_lib.command.outputs import guard
from rmtllmf_lib.errors import InputError

FORMATS = ("open_clip", "hugging_face")


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
    safetensors or plain state dicts, in one file or in shards; and adapters of PEFT
    (LoRA). Models of another base are refused, and so is the same model under two
    names.

    \b
    Example, with published models of ViT-B/16 in the folder models:
      rmtllmf import svhn=models/clip-vit-base-patch16_svhn \\
          dtd=models/clip-vit-base-patch16_dtd \\
          --published-base models/clip-vit-base-patch16 --out tau
      rmtllmf evaluate tau/*.safetensors --backbone ViT-B-16-quickgelu \\
          --task torchvision:svhn --task torchvision:dtd --root data
    """
    from rmtllmf_lib.model.foreign import model_file, require_file
    from rmtllmf_lib.payload.published import import_task_vectors
    from rmtllmf_lib.tasks.sources import NAME

    files: dict[str, str] = {}
    for text in models:
        task, equals, path = text.partition("=")
        if not equals or not path or not NAME.fullmatch(task):
            raise InputError(f"{text!r} does not name a task and a model: expected TASK=PATH, as in svhn=models/svhn")
        if task in files:
            raise InputError(f"task {task!r} is given twice: name each once")
        files[task] = path
    inputs = [backbone_file, *(require_file(model_file(path)) for path in files.values())]
    if published_base is not None:
        inputs.append(require_file(model_file(published_base)))
    for task in files:
        guard(out / f"{task}.safetensors", "a task vector", inputs=inputs, overwrite=overwrite)
    base = load_backbone(backbone, backbone_file).weights
    table = import_task_vectors(files, base, out, published_base=published_base, overwrite=overwrite)
    print(table.assign(change=table["change"].map("{:.4f}".format)).to_string(index=False))
    print(f"\n{len(table)} task vectors in {out}")


def export(
    model: Annotated[Path, typer.Argument(metavar="FILE", help="Fused weights, or a task vector.")],
    out: Annotated[Path, typer.Option(metavar="PATH", help="Output file (open_clip) or folder (hugging_face).")],
    form: Annotated[str, typer.Option("--as", metavar="|".join(FORMATS), help="For which program.")] = FORMATS[0],
    backbone: BackboneName = "tiny",
    backbone_file: BackboneFile = None,
) -> None:
    """Write a model for open_clip or Hugging Face's transformers.

    The model is fused or fine-tuned. open_clip gets one file with all of it, and
    Hugging Face a folder with the image tower, its projection and the preparation
    of images. No number changes: 'import' makes the same task vector again.

    \b
    Examples:
      rmtllmf export fused.safetensors --out fused_clip.safetensors \\
          --backbone ViT-B-16-quickgelu
      rmtllmf export fused.safetensors --as hugging_face --out fused_hf \\
          --backbone ViT-B-16-quickgelu

    \b
    And then, in Python, one of
      open_clip.create_model("ViT-B-16-quickgelu",
                             pretrained="fused_clip.safetensors")
      transformers.CLIPVisionModelWithProjection.from_pretrained("fused_hf")
    """
    from rmtllmf_lib.arrays import one_of
    from rmtllmf_lib.command import commands
    from rmtllmf_lib.model.export import FILES, export_hugging_face, export_open_clip
    from rmtllmf_lib.model.foreign import require_file

    one_of(form, FORMATS, "as")
    require_file(model)
    for file in [out] if form == "open_clip" else [out / name for name in FILES]:
        guard(file, "an exported model", inputs=[model, backbone_file])
    if form == "open_clip" and out.suffix != ".safetensors":
        raise InputError(f"the output is {str(out)!r}: expected a name that ends in .safetensors, as open_clip needs")
    base = load_backbone(backbone, backbone_file)
    taus, points = commands.read_models([model], base.weights)
    weights = next(iter(points.values()), None) or base.weights + next(iter(taus.values()))
    write = export_open_clip if form == "open_clip" else export_hugging_face
    write(out, weights, base)
    print(f"{out}: {weights.layout.size:,} weights of the image tower on the base {base.weights.hash[:12]}")
