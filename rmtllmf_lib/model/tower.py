"""Features of towers from named tensors, for evaluation only.

For the plain vision transformer there is a fast forward pass. It computes what `VisionTransformer.forward` computes in
evaluation mode, to rounding, but reads any mapping of tensors (views of a flat buffer: no model is loaded), and in the
last block it computes the class token alone, since nothing else reaches the output. Every other tower, and that
of a text model, runs its own forward on the same tensors.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import open_clip
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.layout import PREFIX
from rmtllmf_lib.model.text_tower import TextTower
from rmtllmf_lib.validated import validated_call

EMBEDDINGS = ("visual.conv1.weight", "visual.class_embedding", "visual.positional_embedding")

_one_at_a_time = threading.Lock()  # functional_call replaces the module's tensors while it runs


@dataclass(frozen=True)
class Tower:
    """Hyperparameters of a plain vision transformer: what the forward pass needs beside the weights."""

    layers: int
    heads: int
    patch: int
    quick_gelu: bool
    eps: float


AnyTower: TypeAlias = Tower | nn.Module


@validated_call
def any_tower(visual: nn.Module) -> AnyTower:
    """Hyperparameters of the vision tower for the fast forward pass, or the tower itself where that is refused."""
    try:
        return read_tower(visual)
    except InputError:
        return visual


@validated_call
def trainable_tower(tower: nn.Module) -> AnyTower:
    """What `differentiable_tower.features` takes: a text tower itself, or what `read_tower` makes of another.

    Raises
    ------
    InputError
        as `read_tower`.
    """
    return tower if isinstance(tower, TextTower) else read_tower(tower)


def read_tower(visual: Any) -> Tower:
    """Hyperparameters of open_clip's plain vision transformer.

    Raises
    ------
    InputError
        if the tower has a part that our own forward passes do not implement; the message names it.
    """
    known = open_clip.transformer
    _require(type(visual) is known.VisionTransformer, f"a tower of type {type(visual).__name__}")
    _require(visual.attn_pool is None and visual.pool_type == "tok", f"{visual.pool_type!r} or attentional pooling")
    _require(not visual.output_tokens, "a tower that returns tokens")
    _require(visual.conv1.bias is None and len(set(visual.patch_size)) == 1, "patches with a bias, or not square")
    _require(isinstance(visual.ln_pre, nn.LayerNorm), "a tower without ln_pre")
    blocks = list(visual.transformer.resblocks)
    for block in blocks:
        _require(type(block) is known.ResidualAttentionBlock, f"a block of type {type(block).__name__}")
        _require(isinstance(block.ls_1, nn.Identity) and isinstance(block.ls_2, nn.Identity), "layer scale")
        _require(block.attn.in_proj_bias is not None and block.attn.bias_k is None, "attention with other biases")
    heads = {block.attn.num_heads for block in blocks}
    activations = {type(block.mlp.gelu) for block in blocks}
    eps = {part.eps for part in visual.modules() if isinstance(part, nn.LayerNorm)}
    _require(len(heads) == len(activations) == len(eps) == 1, "blocks that differ from one another")
    activation = activations.pop()
    exact = activation is known.QuickGELU or (activation is nn.GELU and blocks[0].mlp.gelu.approximate == "none")
    _require(exact, f"the activation {blocks[0].mlp.gelu}")
    return Tower(len(blocks), heads.pop(), visual.patch_size[0], activation is known.QuickGELU, eps.pop())


def _require(known: bool, what: str) -> None:
    if not known:
        raise InputError(
            f"realignment and linearisation do not support {what}: expected open_clip's plain VisionTransformer "
            "with class-token pooling, as in 'tiny' and 'ViT-B-16-quickgelu'; choose such a backbone"
        )


def cut(tower: AnyTower, images: Tensor) -> Tensor:
    """Images (n, 3, H, W) as `embed` takes them: patches (n, patches, 3 * patch**2); for a module unchanged."""
    return images if isinstance(tower, nn.Module) else patchify(images, tower.patch)


def patchify(images: Tensor, patch: int) -> Tensor:
    """Cut images (n, 3, H, W) into rows (n, patches, 3 * patch**2), so that the first convolution is one product."""
    n, channels, height, width = images.shape
    rows, columns = height // patch, width // patch
    grid = images[:, :, : rows * patch, : columns * patch].reshape(n, channels, rows, patch, columns, patch)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(n, rows * columns, channels * patch**2)


def embed(tower: AnyTower, weights: Mapping[str, Tensor], patches: Tensor) -> Tensor:
    """Tokens (n, patches + 1, width) before `ln_pre`: the class token, then the patches, plus their positions.

    A module embeds its inputs itself: they are returned as they are.
    """
    if isinstance(tower, nn.Module):
        return patches
    kernel, classes, positions = (weights[name] for name in EMBEDDINGS)
    n, count, _ = patches.shape
    tokens = patches.new_empty(n, count + 1, len(classes))
    tokens[:, 0] = classes + positions[0]
    torch.add(functional.linear(patches, kernel.flatten(1)), positions[1:], out=tokens[:, 1:])
    return tokens


def encode(tower: AnyTower, weights: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
    """Features (n, d) of the output of `embed`, as the module computes them in evaluation mode.

    Parameters
    ----------
    weights : mapping
        `Weights.state_dict()`, or the same views on another device.
    tokens
        From `embed`; not changed.
    """
    if isinstance(tower, nn.Module):
        own = {name.removeprefix(PREFIX): tensor for name, tensor in weights.items()}
        with _one_at_a_time:
            features = functional_call(tower, own, (tokens,))
        return features[0] if isinstance(features, tuple) else features
    n, count, width = tokens.shape
    depth = width // tower.heads
    x = _norm(tower, weights, "visual.ln_pre", tokens).view(n * count, width)
    for layer in range(tower.layers - 1):
        block = f"visual.transformer.resblocks.{layer}."
        h = _norm(tower, weights, block + "ln_1", x)
        qkv = functional.linear(h, weights[block + "attn.in_proj_weight"], weights[block + "attn.in_proj_bias"])
        q, k, v = qkv.view(n, count, 3, tower.heads, depth).permute(2, 0, 3, 1, 4).unbind()
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n * count, width)
        _add_linear(x, mixed, weights, block + "attn.out_proj")
        _mlp(tower, weights, block, x)
    x = _last_block(tower, weights, x.view(n, count, width))
    return _norm(tower, weights, "visual.ln_post", x) @ weights["visual.proj"]


def _last_block(tower: Tower, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """The class token (n, width) after the last block; nothing is computed for the other tokens but `ln_1`.

    Keys and values are never formed. The score of token t is q·(K h_t + b) = (Kᵀq)·h_t + q·b, whose last term is the
    same for all tokens and drops out of the softmax; and the weighted mean of the V h_t is V times that of the h_t.
    """
    block = f"visual.transformer.resblocks.{tower.layers - 1}."
    n, _, width = x.shape
    depth = width // tower.heads
    h = _norm(tower, weights, block + "ln_1", x)
    to_query, to_key, to_value = weights[block + "attn.in_proj_weight"].view(3, tower.heads, depth, width)
    query_bias, _, value_bias = weights[block + "attn.in_proj_bias"].view(3, width)
    q = functional.linear(h[:, 0], to_query.reshape(width, width), query_bias)
    q = q.view(n, tower.heads, depth).transpose(0, 1)
    probes = torch.bmm(q * depth**-0.5, to_key).transpose(0, 1)  # (n, heads, width)
    attention = torch.bmm(probes, h.transpose(1, 2)).softmax(-1)  # (n, heads, tokens)
    means = torch.bmm(attention, h).transpose(0, 1)  # (heads, n, width)
    mixed = torch.bmm(means, to_value.transpose(1, 2)).transpose(0, 1).reshape(n, width) + value_bias
    x = x[:, 0].contiguous()
    _add_linear(x, mixed, weights, block + "attn.out_proj")
    _mlp(tower, weights, block, x)
    return x


def _mlp(tower: Tower, weights: Mapping[str, Tensor], block: str, x: Tensor) -> None:
    h = _norm(tower, weights, block + "ln_2", x)
    weight, bias = weights[block + "mlp.c_fc.weight"], weights[block + "mlp.c_fc.bias"]
    if tower.quick_gelu:  # z sigmoid(1.702 z) = silu(1.702 z) / 1.702, and the factors cost nothing in the products
        h = functional.silu(torch.addmm(1.702 * bias, h, weight.T, alpha=1.702), inplace=True)
        _add_linear(x, h, weights, block + "mlp.c_proj", 1 / 1.702)
    else:
        h = functional.linear(h, weight, bias)
        torch.ops.aten.gelu_(h)  # in place: a second buffer of this size would push the first out of the cache
        _add_linear(x, h, weights, block + "mlp.c_proj")


def _add_linear(x: Tensor, h: Tensor, weights: Mapping[str, Tensor], name: str, alpha: float = 1.0) -> None:
    x.add_(weights[name + ".bias"]).addmm_(h, weights[name + ".weight"].T, alpha=alpha)


def _norm(tower: Tower, weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], weights[name + ".weight"], weights[name + ".bias"], tower.eps)
