"""The forward pass of open_clip's vision transformer for differentiation: as in `tower`, but nothing in place.

It serves training (reverse mode through torch's fused kernels; a text tower with its own forward) and Jacobians. For
those it is cut into steps, so that a Jacobian can be propagated one step at a time, and into layers, which give the
inner products of their parameters' gradients from the layer's input and the gradients at its output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from rmtllmf_lib.model.tower import AnyTower, Tower, cut, encode
from rmtllmf_lib.reprs import short_repr

Recorded: TypeAlias = tuple[Tensor, Callable[[Tensor], Tensor]]
Step: TypeAlias = Callable[["Layers", Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Layers:
    """The layers of a tower, with every parameter in exactly one of them.

    Attributes
    ----------
    recorded : list of (output, function), optional
        Where given, each layer appends its output, with a function that maps gradients (n, C, T, out) at that output to
        the inner products (n, C, C) of the gradients of the layer's parameters.
    fused : bool
        Use torch's fused attention and normalisation: faster, but for reverse mode only, and without `recorded`.
    """

    tower: Tower
    weights: Mapping[str, Tensor]
    recorded: list[Recorded] | None = None
    fused: bool = False

    __repr__ = short_repr

    def _record(self, output: Tensor, inner_products: Callable[[Tensor], Tensor]) -> Tensor:
        if self.recorded is not None:
            self.recorded.append((output, inner_products))
        return output

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map x (…, T, in) to (…, T, out) by a matrix (out, in)."""
        fixed = x.detach()
        return self._record(functional.linear(x, weight, bias), lambda d: _of_linear(d, fixed, bias is not None))

    def named_linear(self, x: Tensor, name: str) -> Tensor:
        """The same with the weight and bias of that name."""
        return self.linear(x, self.weights[name + ".weight"], self.weights[name + ".bias"])

    def norm(self, x: Tensor, name: str) -> Tensor:
        """Layer normalisation over the last dimension."""
        weight, bias = self.weights[name + ".weight"], self.weights[name + ".bias"]
        if self.fused:
            return functional.layer_norm(x, x.shape[-1:], weight, bias, self.tower.eps)
        plain = functional.layer_norm(x, x.shape[-1:], eps=self.tower.eps)
        fixed = plain.detach()
        output = torch.addcmul(bias, plain, weight)
        return self._record(output, lambda d: _products((d * fixed[:, None]).sum(2)) + _products(d.sum(2)))

    def tokens(self, patches: Tensor) -> Tensor:
        """Embedded patches (…, T - 1, width), the class token before them, plus their positions."""
        first = self.weights["visual.class_embedding"].expand(*patches.shape[:-2], 1, -1)
        output = torch.cat([first, patches], -2) + self.weights["visual.positional_embedding"]
        return self._record(output, lambda d: _products(d) + _products(d[:, :, 0]))

    def queries_keys_values(self, x: Tensor, name: str, asking: slice) -> list[Tensor]:
        """Queries (…, heads, asking tokens, depth), keys and values (…, heads, T, depth) of tokens (…, T, width)."""
        weight, bias = self.weights[name + ".in_proj_weight"], self.weights[name + ".in_proj_bias"]
        if self.fused:  # no queries of tokens that do not ask
            width = x.shape[-1]
            q = self.linear(x[..., asking, :], weight[:width], bias[:width])
            k, v = self.linear(x, weight[width:], bias[width:]).chunk(2, -1)
        else:
            q, k, v = self.linear(x, weight, bias).chunk(3, -1)
            q = q[..., asking, :]
        return [part.unflatten(-1, (self.tower.heads, -1)).movedim(-2, -3) for part in (q, k, v)]

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(q kᵀ / √depth) v, shaped like q."""
        if self.fused:
            return functional.scaled_dot_product_attention(q, k, v)
        return (q * k.shape[-1] ** -0.5 @ k.mT).softmax(-1) @ v


def steps(tower: Tower, rows: Tensor | None = None) -> list[Step]:
    """The forward pass in steps, from patches (…, patches, p) to the logits (…, C) of a head with these rows (C, d).

    Without rows it ends at the features (…, d). Between two steps nothing passes but one tensor (…, T, width).
    """
    half_blocks: list[Step] = []
    for layer in range(tower.layers):
        block, last = f"visual.transformer.resblocks.{layer}.", layer == tower.layers - 1
        half_blocks += [partial(_attend, block=block, last=last), partial(_mlp, block=block)]
    return [_embed, *half_blocks, _project if rows is None else partial(_classify, rows=rows)]


def forward(layers: Layers, patches: Tensor, rows: Tensor | None = None) -> Tensor:
    """All of `steps`: logits (…, C) of patches (…, patches, p), or features (…, d) without rows."""
    x = patches
    for step in steps(layers.tower, rows):
        x = step(layers, x)
    return x


def features(tower: AnyTower, weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Features (n, d) of inputs as `training.loading.batches` yields them, for reverse mode in the named weights.

    Parameters
    ----------
    tower
        From `tower.trainable_tower`.
    """
    if isinstance(tower, nn.Module):
        return encode(tower, weights, inputs)
    return forward(Layers(tower, weights, fused=True), cut(tower, inputs))


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


def _attend(layers: Layers, x: Tensor, block: str, last: bool) -> Tensor:
    """The block's first half. After the last block only the class token is read, so it alone asks there."""
    asking = slice(0, 1) if last else slice(None)
    q, k, v = layers.queries_keys_values(layers.norm(x, block + "ln_1"), block + "attn", asking)
    mixed = layers.attention(q, k, v).movedim(-3, -2).flatten(-2)
    return x[..., asking, :] + layers.named_linear(mixed, block + "attn.out_proj")


def _mlp(layers: Layers, x: Tensor, block: str) -> Tensor:
    h = layers.named_linear(layers.norm(x, block + "ln_2"), block + "mlp.c_fc")
    h = h * torch.sigmoid(1.702 * h) if layers.tower.quick_gelu else functional.gelu(h)
    return x + layers.named_linear(h, block + "mlp.c_proj")


def _project(layers: Layers, x: Tensor) -> Tensor:
    return layers.linear(layers.norm(x, "visual.ln_post"), layers.weights["visual.proj"].T)[..., 0, :]


def _classify(layers: Layers, x: Tensor, rows: Tensor) -> Tensor:
    features = _project(layers, x)
    return features / features.norm(dim=-1, keepdim=True) @ rows.T
