"""Export of a fused model for other programs: as a file of open_clip, or as a folder of Hugging Face.

`checkpoints.load_published` reads both back with the same numbers. The files record the base, so that they are not
taken for models of another one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from rmtllmf_lib.arrays import file_path
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.model.hugging_face import hugging_face_config, hugging_face_preprocessing, to_hugging_face
from rmtllmf_lib.model.task_vector import Weights
from rmtllmf_lib.storage.atomic import atomic_write
from rmtllmf_lib.storage.tensors import save_tensors
from rmtllmf_lib.validated import validated_call

FILES = ("model.safetensors", "preprocessor_config.json", "config.json")  # of a Hugging Face folder


@validated_call
def export_open_clip(path: str | Path, weights: Weights, backbone: Backbone) -> None:
    """Write the whole CLIP, with `weights` as its image tower, as a file for `open_clip.create_model(pretrained=…)`.

    Parameters
    ----------
    path : path
        A name that ends in `.safetensors`, by which open_clip tells the format.
    weights : Weights
        Of this backbone: fused, or fine-tuned.
    backbone : Backbone
        Gives the text tower and the logit scale.

    Raises
    ------
    InputError
        for another name, and for weights of another base or architecture.
    """
    path = file_path(path, "path")
    if path.suffix != ".safetensors":
        raise InputError(f"path is {str(path)!r}: expected a name that ends in .safetensors, as open_clip needs")
    _require_own(weights, backbone)
    tensors = {name: tensor for name, tensor in backbone.model.state_dict().items() if name not in weights.layout.names}
    _write(path, {**tensors, **weights.state_dict()}, weights)


@validated_call
def export_hugging_face(folder: str | Path, weights: Weights, backbone: Backbone) -> None:
    """Write the image tower as a folder for `transformers`, `CLIPVisionModelWithProjection.from_pretrained(folder)`.

    `CLIPVisionModel` reads it, too, and leaves the projection out. `CLIPImageProcessor` finds its settings there.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    weights, backbone
        As in `export_open_clip`.

    Raises
    ------
    InputError
        for weights of another base or architecture, and towers that Hugging Face's CLIP cannot be.
    """
    folder = file_path(folder, "folder")
    _require_own(weights, backbone)
    settings = {"config.json": hugging_face_config(backbone)}
    settings = {"preprocessor_config.json": hugging_face_preprocessing(backbone), **settings}
    tensors = to_hugging_face(weights)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "model.safetensors", tensors, weights)
    for name, content in settings.items():  # config.json last: with it, the folder counts as a model
        with atomic_write(folder / name) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _require_own(weights: Weights, backbone: Backbone) -> None:
    weights.layout.require_equal(backbone.weights.layout, "the weights")
    if weights.origin != backbone.weights.hash:
        raise InputError(
            f"the weights were made from another base: {weights.origin[:12]}…, expected {backbone.weights.hash[:12]}… "
            f"of the backbone {backbone.name!r}; give their own backbone, since the text tower is taken from it"
        )


def _write(path: Path, tensors: dict[str, Tensor], weights: Weights) -> None:
    about: dict[str, Any] = {"format": "pt", "base_hash": weights.origin}  # both libraries ask for the first
    with atomic_write(path) as temporary:
        save_tensors(temporary, {name: tensor.contiguous() for name, tensor in tensors.items()}, about)
