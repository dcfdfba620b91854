"""The forward pass of open_clip's vision transformer for differentiation: that of `tower`, but nothing in place.

It is cut into steps and layers, so that a Jacobian can be dealt with one step at a time, and the gradients of a layer's
parameters through what goes into it and the gradients at its output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from rmtllmf_lib.model.tower import Tower

Left: TypeAlias = tuple[Tensor, Callable[[Tensor], Tensor]]
Step: TypeAlias = Callable[["Layers", Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Layers:
    """The layers of a tower, every parameter in one of them.

    Attributes
    ----------
    left : list of (output, function), optional
        Where given, each layer leaves its output here, with a function from gradients (n, C, T, out) there to the inner
        products (n, C, C) of the gradients of its parameters.
    """

    tower: Tower
    weights: Mapping[str, Tensor]
    left: list[Left] | None = None

    def _left(self, output: Tensor, inner_products: Callable[[Tensor], Tensor]) -> Tensor:
        if self.left is not None:
            self.left.append((output, inner_products))
        return output

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map x (…, T, in) to (…, T, out) by a matrix (out, in)."""
        fixed = x.detach()
        return self._left(functional.linear(x, weight, bias), lambda d: _of_linear(d, fixed, bias is not None))

    def named_linear(self, x: Tensor, name: str, suffix: str = ".") -> Tensor:
        """The same with weight and bias of that name."""
        return self.linear(x, self.weights[f"{name}{suffix}weight"], self.weights[f"{name}{suffix}bias"])

    def norm(self, x: Tensor, name: str) -> Tensor:
        """Layer normalisation over the last dimension."""
        plain = functional.layer_norm(x, x.shape[-1:], eps=self.tower.eps)
        output = torch.addcmul(self.weights[name + ".bias"], plain, self.weights[name + ".weight"])
        fixed = plain.detach()
        return self._left(output, lambda d: _products((d * fixed[:, None]).sum(2)) + _products(d.sum(2)))

    def tokens(self, patches: Tensor) -> Tensor:
        """Embedded patches (…, T - 1, width), the class token before them, plus their positions."""
        first = self.weights["visual.class_embedding"].expand(*patches.shape[:-2], 1, -1)
        output = torch.cat([first, patches], -2) + self.weights["visual.positional_embedding"]
        return self._left(output, lambda d: _products(d) + _products(d[:, :, 0]))


def steps(tower: Tower, rows: Tensor) -> list[Step]:
    """The forward pass in steps, from patches (…, patches, p) to the logits (…, C) of a head with these rows (C, d).

    Between two of them nothing passes but one tensor (…, T, width).
    """
    half_blocks: list[Step] = []
    for layer in range(tower.layers):
        block, last = f"visual.transformer.resblocks.{layer}.", layer == tower.layers - 1
        half_blocks += [partial(_attention, block=block, last=last), partial(_mlp, block=block)]
    return [_embed, *half_blocks, partial(_classify, rows=rows)]


def _products(rows: Tensor) -> Tensor:
    """Inner products (n, C, C) of rows (n, C, …)."""
    flat = rows.flatten(2)
    return flat @ flat.mT


def _of_linear(deltas: Tensor, x: Tensor, bias: bool) -> Tensor:
    pairs = x @ x.mT + float(bias)  # a bias is the weight of an input that is always 1
    return (pairs[:, None] @ deltas).flatten(2) @ deltas.flatten(2).mT


def _embed(layers: Layers, patches: Tensor) -> Tensor:
    kernel = layers.weights["visual.conv1.weight"].flatten(1)
    return layers.norm(layers.tokens(layers.linear(patches, kernel)), "visual.ln_pre")


def _attention(layers: Layers, x: Tensor, block: str, last: bool) -> Tensor:
    """The block's first half. After the last one only the class token is read, so only it asks."""
    qkv = layers.named_linear(layers.norm(x, block + "ln_1"), block + "attn", ".in_proj_")
    q, k, v = (part.movedim(-2, -3) for part in qkv.unflatten(-1, (3, layers.tower.heads, -1)).unbind(-3))
    asking = slice(0, 1) if last else slice(None)
    scores = q[..., asking, :] * k.shape[-1] ** -0.5 @ k.mT  # (…, heads, asking tokens, tokens)
    mixed = (scores.softmax(-1) @ v).movedim(-3, -2).flatten(-2)
    return x[..., asking, :] + layers.named_linear(mixed, block + "attn.out_proj")


def _mlp(layers: Layers, x: Tensor, block: str) -> Tensor:
    h = layers.named_linear(layers.norm(x, block + "ln_2"), block + "mlp.c_fc")
    h = h * torch.sigmoid(1.702 * h) if layers.tower.quick_gelu else functional.gelu(h)
    return x + layers.named_linear(h, block + "mlp.c_proj")


def _classify(layers: Layers, x: Tensor, rows: Tensor) -> Tensor:
    features = layers.linear(layers.norm(x, "visual.ln_post"), layers.weights["visual.proj"].T)[..., 0, :]
    return features / features.norm(dim=-1, keepdim=True) @ rows.T
