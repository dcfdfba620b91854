"""Logits as a function of the weights, and products with their Jacobian J: directions, rows, and the Gram matrix J Jᵀ.

For noise of variance s² in every parameter, the logits of an image change to first order by N(0, s² J Jᵀ), Eq. (10). So
the C × C matrix J Jᵀ is all that is needed of the Jacobian, which has C × (number of parameters) entries and is never
formed.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.func import jvp
from torch.nn import functional

from rmtllmf_lib.arrays import Real, torch_generator, whole_number
from rmtllmf_lib.disentanglement.first_order import FirstOrder
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.model.differentiable_tower import Layers, Recorded, forward, steps
from rmtllmf_lib.model.layout import Layout, require_finite
from rmtllmf_lib.model.task_vector import Weights
from rmtllmf_lib.model.tower import Tower, embed, encode, read_tower
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.tasks.base import Split
from rmtllmf_lib.training.evaluate import BATCH, prepare
from rmtllmf_lib.training.heads import Head
from rmtllmf_lib.validated import validated_call, validated_init

AT_HAND = 2**21  # numbers that `gram` works on at a time for a small model: 8 MiB
COPIES = 4  # of the gradients of the widest activations that exist at once


@validated_init
@dataclass(frozen=True, eq=False)
class Network:
    """Logits of fixed images under a fixed head, as a function of the weights; made by `network`.

    Attributes
    ----------
    tower : Tower
    layout : Layout
        Of the flat weights.
    patches : (n, patches, 3 * patch**2) float32
        The images, cut into patches.
    labels : (n,) int64
        Their classes.
    rows : (C, d) float32
        Of the head, times its logit scale.
    """

    tower: Tower
    layout: Layout
    patches: Tensor
    labels: Tensor
    rows: Tensor

    __repr__ = short_repr

    def __len__(self) -> int:
        return len(self.patches)

    @property
    def classes(self) -> int:
        """Number of classes C."""
        return len(self.rows)

    @torch.no_grad()
    def logits(self, values: Tensor) -> Tensor:
        """Logits (n, C) float32 at flat weights (P,), by the fast forward pass, which cannot be differentiated."""
        weights = self.layout.views(values)
        parts = (encode(self.tower, weights, embed(self.tower, weights, part)) for part in self.patches.split(BATCH))
        return torch.cat([functional.normalize(part, dim=-1) @ self.rows.T for part in parts])

    def differentiable(self, weights: Mapping[str, Tensor], patches: Tensor | None = None) -> Tensor:
        """Logits (n, C) at named weights, for `torch.func`; of all images, or of the given patches."""
        return forward(Layers(self.tower, weights), self.patches if patches is None else patches, self.rows)


@validated_call
def network(backbone: Backbone, split: Split, head: Head, *, limit: int | None = None, device: str = "cpu") -> Network:
    """Logits of the images of a split as a function of the weights alone.

    Parameters
    ----------
    limit : int, optional
        Use only so many images, stratified by class, the same ones each time.
    device : as in `evaluate.prepare`

    Raises
    ------
    InputError
        for an empty split, a tower that `read_tower` refuses, a head of another dimension, or a device that does not
        exist.
    """
    tower = read_tower(backbone.tower)
    ready = prepare(backbone, split, limit=limit, device=device, keep=False)
    features = backbone.output_dim
    if head.weight.shape[1] != features:
        raise InputError(
            f"the head has {head.weight.shape[1]} columns and backbone {backbone.name!r} makes {features} features: "
            "expected one column for each; build the head with the same backbone"
        )
    rows = (head.logit_scale * head.weight).to(ready.device)
    return Network(tower, backbone.weights.layout, torch.cat([*ready.cut()]), ready.split.labels, rows)


@validated_call
def logits(net: Network, weights: Weights) -> Real:
    """Logits (n, C) float64 of a model, in NumPy.

    Raises
    ------
    InputError
        for weights of another layout, or a logit that is not finite.
    """
    return finite(net.logits(flat_values(net, weights)))


@validated_call
def along(net: Network, weights: Weights, direction: Tensor) -> tuple[Real, Real]:
    """Logits and their derivative J Δθ along a direction in parameter space, by forward mode.

    Parameters
    ----------
    direction : (P,) float32
        For example Δθ of Eq. (9).

    Returns
    -------
    logits, J Δθ : (n, C) float64 each

    Raises
    ------
    InputError
        for weights or a direction of another layout, or a direction that is not finite.
    """
    values = flat_values(net, weights)
    if direction.shape != values.shape:
        raise InputError(f"the direction has shape {tuple(direction.shape)}: expected {tuple(values.shape)}")
    require_finite(net.layout, direction, "the direction at ")
    views, moves = net.layout.views(values), net.layout.views(direction.to(values))
    with warnings.catch_warnings():  # torch uses its own deprecated API here
        warnings.filterwarnings("ignore", message="`torch.jit.script` is", category=FutureWarning)
        parts = [
            jvp(partial(net.differentiable, patches=patches), (views,), (moves,))
            for patches in net.patches.split(BATCH)
        ]
    return finite(torch.cat([part[0] for part in parts])), finite(torch.cat([part[1] for part in parts]))


@validated_call
def row(net: Network, weights: Weights, cotangent: Tensor) -> Tensor:
    """Linear combination Σ_nk c_nk J_nk of rows of the Jacobian, over images n and classes k, by reverse mode.

    Parameters
    ----------
    cotangent : (n, C) float32
        c. A single 1 selects a row; 1 and -1 for the same image give the difference of two rows.

    Returns
    -------
    (P,) float32
    """
    values = flat_values(net, weights)
    if cotangent.shape != (len(net), net.classes):
        raise InputError(f"the cotangent has shape {tuple(cotangent.shape)}: expected {(len(net), net.classes)}")
    total = torch.zeros_like(values)
    leaves = {name: view.detach().requires_grad_() for name, view in net.layout.views(values).items()}
    for name, view in net.layout.views(total).items():
        leaves[name].grad = view  # gradients accumulate in place, without a second buffer of the whole network
    for patches, part in zip(net.patches.split(BATCH), cotangent.to(values).split(BATCH), strict=True):
        torch.autograd.backward(net.differentiable(leaves, patches), part)
    return total


@validated_call
def gram(net: Network, weights: Weights, *, chunk: int | None = None) -> Real:
    """Exact J Jᵀ of every image: inner products (n, C, C) of the gradients of its logits.

    Reverse mode runs through the network step by step, for all C logits of some images at once, and never forms the
    gradient of a weight matrix. With inputs a_t and gradients δ_kt at the output of a linear layer, for token t, the
    gradient of logit k is Σ_t δ_kt a_tᵀ, so two of them have the inner product Σ_tt' (δ_kt · δ_lt')(a_t · a_t').

    Parameters
    ----------
    chunk : int, optional
        Images per pass. Default: as many as keep the intermediate numbers below `AT_HAND`, or below the size of the
        model if that is larger.

    Returns
    -------
    (n, C, C) float64, symmetric positive semidefinite.
    """
    layers = Layers(net.tower, net.layout.views(flat_values(net, weights)))
    if chunk is None:
        hidden = layers.weights["visual.transformer.resblocks.0.mlp.c_fc.bias"].numel()
        image = COPIES * net.classes * (net.patches.shape[1] + 1) * hidden
        chunk = max(1, max(AT_HAND, net.layout.size) // image)
    whole_number(chunk, "chunk")
    return finite(torch.cat([_gram(net, layers, patches) for patches in net.patches.split(chunk)]))


def _gram(net: Network, layers: Layers, patches: Tensor) -> Tensor:
    passes, inputs = steps(net.tower, net.rows), [patches]
    with torch.no_grad():
        for step in passes[:-1]:
            inputs.append(step(layers, inputs[-1]))
    n, c = len(patches), net.classes
    cotangents = torch.eye(c).to(patches)[:, None].expand(c, n, c)
    total = cotangents.new_zeros((n, c, c), dtype=torch.float64)
    for step in reversed(passes):
        recorded: list[Recorded] = []
        x = inputs.pop().detach().requires_grad_()
        output = step(replace(layers, recorded=recorded), x)
        outputs = [tensor for tensor, _ in recorded]
        *deltas, cotangents = torch.autograd.grad(output, [*outputs, x], cotangents, is_grads_batched=True)
        for _, inner_products in recorded:
            total += inner_products(deltas.pop(0).transpose(0, 1))
    return total


@dataclass(frozen=True, eq=False)
class GramEstimate:
    """An estimate of J Jᵀ from random directions.

    Attributes
    ----------
    gram : (n, C, C) float64
    error : (n, C, C) float64
        Standard error of every entry.
    probes : int
        Number of random directions.
    """

    gram: Real
    error: Real
    probes: int

    __repr__ = short_repr


@validated_call
def estimate_gram(net: Network, weights: Weights, probes: int, *, generator: torch.Generator) -> GramEstimate:
    """Estimate of J Jᵀ of every image: the mean of (J v)(J v)ᵀ over random v ~ N(0, I), as in Hutchinson's estimator.

    One direction serves all images and classes in one forward pass, while the exact matrix of a ViT-B/16 costs C
    backward passes per image. The relative standard error of a squared row norm is √(2 / probes).

    Parameters
    ----------
    probes : int
        At least 2.
    generator : torch.Generator
        On the CPU.
    """
    whole_number(probes, "probes", minimum=2)  # one has no standard error
    torch_generator(generator)
    mean = np.zeros((len(net), net.classes, net.classes))
    squares = np.zeros_like(mean)
    for count in range(1, probes + 1):  # Welford's update, which avoids cancellation
        _, moved = along(net, weights, torch.randn(net.layout.size, generator=generator))
        product = moved[:, :, None] * moved[:, None, :]
        before = product - mean
        mean += before / count
        squares += before * (product - mean)
    return GramEstimate(mean, np.sqrt(squares / (probes - 1) / probes), probes)


@validated_call
def first_order(net: Network, weights: Weights, jacobian_gram: Real | None = None) -> FirstOrder:
    """Logits and J Jᵀ of a model, the latter exact unless an estimate is given."""
    return FirstOrder(logits(net, weights), gram(net, weights) if jacobian_gram is None else jacobian_gram)


@validated_call
def flat_values(net: Network, weights: Weights) -> Tensor:
    """The weights (P,) on the device of the network's images; an InputError for another layout."""
    weights.layout.require_equal(net.layout, "the weights")
    return weights.values.to(net.patches.device)


@validated_call
def finite(numbers: Tensor) -> Real:
    """Computed numbers as a float64 array; an InputError where one is NaN or infinite."""
    if not numbers.isfinite().all():
        raise InputError(
            f"{int((~numbers.isfinite()).sum())} of {numbers.numel()} outputs of the model are NaN or infinite: "
            "expected finite ones; its weights are destroyed, take less noise"
        )
    return numbers.detach().cpu().double().numpy()
