"""Names of a CLIP vision tower in Hugging Face's models and in open_clip's, in both directions.

There queries, keys and values are three matrices, here they are one; and the projection is transposed. No number
changes on the way, so that a tower that goes there and back is the same, bit for bit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.model.layout import PREFIX, listing, require_float
from rmtllmf_lib.model.task_vector import Weights
from rmtllmf_lib.validated import validated_call

PROJECTION = PREFIX + "proj"

_NAMES = (  # Hugging Face's, and open_clip's below `visual.`; for each block and both leaves
    ("embeddings.class_embedding", "class_embedding"),
    ("embeddings.patch_embedding.weight", "conv1.weight"),
    ("embeddings.position_embedding.weight", "positional_embedding"),
    ("pre_layrnorm.{leaf}", "ln_pre.{leaf}"),  # spelt so
    ("post_layernorm.{leaf}", "ln_post.{leaf}"),
    ("encoder.layers.{i}.layer_norm1.{leaf}", "transformer.resblocks.{i}.ln_1.{leaf}"),
    ("encoder.layers.{i}.layer_norm2.{leaf}", "transformer.resblocks.{i}.ln_2.{leaf}"),
    ("encoder.layers.{i}.mlp.fc1.{leaf}", "transformer.resblocks.{i}.mlp.c_fc.{leaf}"),
    ("encoder.layers.{i}.mlp.fc2.{leaf}", "transformer.resblocks.{i}.mlp.c_proj.{leaf}"),
    ("encoder.layers.{i}.self_attn.out_proj.{leaf}", "transformer.resblocks.{i}.attn.out_proj.{leaf}"),
)
_THIRDS = re.compile(r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)")
_FUSED = re.compile(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)")


@validated_call
def from_hugging_face(state_dict: Mapping[str, Any], prefix: str = "vision_model.") -> dict[str, Tensor]:
    """Rename the entries of a Hugging Face CLIP vision tower to open_clip's names, with `visual.` in front.

    Parameters
    ----------
    state_dict : mapping of name to tensor
        Of a `CLIPModel`, `CLIPVisionModel` or `CLIPVisionModelWithProjection`; only the vision part is used, of
        floating-point tensors.
    prefix : str
        Prefix of the tower's names.

    Returns
    -------
    dict of name to tensor
        Queries, keys and values are concatenated and the projection is transposed; `position_ids` is dropped.

    Raises
    ------
    InputError
        if the tower has an entry that a CLIP vision tower lacks, or only some of queries, keys and values.
    """
    tower: dict[str, Tensor] = {}
    attention: dict[str, dict[str, Tensor]] = {}
    strange = []
    # beside the tower, where the tower has a prefix of its own
    projection = prefix.removesuffix("vision_model.") + "visual_projection.weight"
    for name, tensor in state_dict.items():
        if not (name == projection or name.startswith(prefix)) or name.endswith("embeddings.position_ids"):
            continue
        require_float(name, tensor)
        if name == projection:
            tower[PROJECTION] = tensor.T
            continue
        end = name[len(prefix) :]
        if part := _THIRDS.fullmatch(end):
            target = f"{PREFIX}transformer.resblocks.{part[1]}.attn.in_proj_{part[3]}"
            attention.setdefault(target, {})[part[2]] = tensor
        elif renamed := _renamed(end, 0):
            tower[PREFIX + renamed] = tensor
        else:
            strange.append(name)
    if strange:
        raise InputError(
            f"entries that no CLIP vision tower has: {listing(strange)}; they change what the "
            "model computes, so merge them into a plain tower and save that"
        )
    for target, parts in attention.items():
        if set(parts) != set("qkv"):
            raise InputError(f"{target!r} needs q, k and v, found only {', '.join(sorted(parts))}")
        tower[target] = torch.cat([parts["q"], parts["k"], parts["v"]])
    return tower


@validated_call
def to_hugging_face(weights: Weights) -> dict[str, Tensor]:
    """The tower under the names of Hugging Face's `CLIPVisionModelWithProjection`; `from_hugging_face` undoes it.

    Parameters
    ----------
    weights : Weights
        A plain open_clip vision transformer.

    Returns
    -------
    dict of name to tensor
        float32, contiguous; queries, keys and values and what needs no new order are views of the weights.

    Raises
    ------
    InputError
        for a tensor that a Hugging Face tower has no place for.
    """
    tensors: dict[str, Tensor] = {}
    strange = []
    for name, tensor in weights.state_dict().items():
        end = name.removeprefix(PREFIX)
        if name == PROJECTION:
            tensors["visual_projection.weight"] = tensor.T.contiguous()
        elif fused := _FUSED.fullmatch(end):
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                tensors[f"vision_model.encoder.layers.{fused[1]}.self_attn.{part}_proj.{fused[2]}"] = third
        elif renamed := _renamed(end, 1):
            tensors[f"vision_model.{renamed}"] = tensor
        else:
            strange.append(name)
    if strange:
        raise InputError(
            f"the weights have {listing(strange)}, which Hugging Face's CLIP vision tower has no place for: expected a "
            "plain vision transformer of open_clip; export it as an open_clip file"
        )
    return tensors


def _renamed(name: str, side: int) -> str | None:
    """The other side's name of a tensor that is named alike but for words; None for any other."""
    for pair in _NAMES:
        pattern = re.escape(pair[side]).replace(r"\{i\}", r"(?P<i>\d+)").replace(r"\{leaf\}", "(?P<leaf>weight|bias)")
        if found := re.fullmatch(pattern, name):
            return pair[1 - side].format(**found.groupdict())
    return None


@validated_call
def hugging_face_config(backbone: Backbone) -> dict[str, Any]:
    """The settings of a `CLIPVisionModelWithProjection` that computes what the backbone's image tower computes.

    Raises
    ------
    InputError
        for a tower with another activation than GELU or QuickGELU, or another pooling than the class token.
    """
    tower: Any = backbone.model.visual
    block = tower.transformer.resblocks[0]
    activation = type(block.mlp.gelu).__name__
    names = {"QuickGELU": "quick_gelu", "GELU": "gelu"}
    if activation not in names or not isinstance(tower.ln_pre, nn.LayerNorm):
        raise InputError(
            f"the tower's activation is {activation} and its first layer {type(tower.ln_pre).__name__}: expected GELU "
            "or QuickGELU and a LayerNorm, as Hugging Face's CLIP has; export it as an open_clip file"
        )
    if tower.attn_pool is not None or tower.pool_type != "tok" or tower.final_ln_after_pool:
        raise InputError(
            f"the tower pools by {tower.pool_type!r}: expected the class token, as Hugging Face's CLIP does; export it "
            "as an open_clip file"
        )
    return {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "dtype": "float32",
        "hidden_act": names[activation],
        "hidden_size": tower.conv1.out_channels,
        "image_size": backbone.image_size,
        "intermediate_size": block.mlp.c_fc.out_features,
        "layer_norm_eps": tower.ln_pre.eps,
        "num_attention_heads": block.attn.num_heads,
        "num_channels": tower.conv1.in_channels,
        "num_hidden_layers": len(tower.transformer.resblocks),
        "patch_size": tower.conv1.kernel_size[0],
        "projection_dim": tower.proj.shape[1],
    }


@validated_call
def hugging_face_preprocessing(backbone: Backbone) -> dict[str, Any]:
    """The settings of a `CLIPImageProcessor` that prepares images as the backbone's were: resized, cropped, scaled."""
    side = backbone.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": 3,  # bicubic
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_convert_rgb": True,
        "do_normalize": True,
        "image_mean": list(backbone.mean),
        "image_std": list(backbone.std),
    }
