"""Logits as a function of the weights, and what their Jacobian J says: directions, rows, and the Gram matrix J Jᵀ.

For noise of variance s² in every parameter, the logits of an image move to first order by N(0, s² J Jᵀ), Eq. (10). So
its C × C matrix J Jᵀ holds all that is needed of a Jacobian with C × (number of parameters) entries, which is never
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

from rmtllmf_lib.arrays import Real, whole_number
from rmtllmf_lib.disentanglement.first_order import FirstOrder
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.model.differentiable_tower import Layers, Recorded, forward, steps
from rmtllmf_lib.model.layout import Layout, require_finite
from rmtllmf_lib.model.task_vector import Weights
from rmtllmf_lib.model.tower import Tower, embed, encode, read_tower
from rmtllmf_lib.tasks.base import Split
from rmtllmf_lib.training.evaluate import BATCH, prepare
from rmtllmf_lib.training.heads import Head

AT_HAND = 2**21  # numbers that `gram` works on at a time, of a small model: 8 MiB
COPIES = 4  # of the widest activations' gradients that exist at once


@dataclass(frozen=True, eq=False)
class Network:
    """Logits of fixed images under a fixed head, as a function of the weights; made by `network`.

    Attributes
    ----------
    tower : Tower
    layout : Layout
        Of the flat weights.
    patches : (n, patches, 3 * patch**2) float32
        The images, cut.
    labels : (n,) int64
        Their classes.
    rows : (C, d) float32
        Of the head, times its scale.
    """

    tower: Tower
    layout: Layout
    patches: Tensor
    labels: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.patches)

    @property
    def classes(self) -> int:
        """Number of classes C."""
        return len(self.rows)

    @torch.no_grad()
    def logits(self, values: Tensor) -> Tensor:
        """Logits (n, C) float32 at flat weights (P,): the fast way, which cannot be differentiated."""
        weights = self.layout.views(values)
        parts = (encode(self.tower, weights, embed(self.tower, weights, part)) for part in self.patches.split(BATCH))
        return torch.cat([functional.normalize(part, dim=-1) @ self.rows.T for part in parts])

    def differentiable(self, weights: Mapping[str, Tensor], patches: Tensor | None = None) -> Tensor:
        """Logits (n, C) at named weights, for `torch.func`; of all images, or of the given patches."""
        return forward(Layers(self.tower, weights), self.patches if patches is None else patches, self.rows)


def network(backbone: Backbone, split: Split, head: Head, *, limit: int | None = None, device: str = "cpu") -> Network:
    """Fix images and head, so that what is left depends on the weights alone.

    Parameters
    ----------
    limit : int, optional
        Take so many images only, stratified by class, the same ones each time.
    device : as in `evaluate.prepare`

    Raises
    ------
    InputError
        for an empty split, a tower that `read_tower` does not know, a head of another dimension, a device that is not
        there.
    """
    tower = read_tower(backbone.model.visual)
    ready = prepare(backbone, split, limit=limit, device=device, keep=False)
    features = backbone.model.visual.output_dim
    if head.weight.shape[1] != features:
        raise InputError(
            f"the head has {head.weight.shape[1]} columns and backbone {backbone.name!r} makes {features} features: "
            "expected one column for each; build the head with the same backbone"
        )
    rows = (head.logit_scale * head.weight).to(ready.device)
    return Network(tower, backbone.weights.layout, torch.cat([*ready.cut()]), ready.split.labels, rows)


def logits(net: Network, weights: Weights) -> Real:
    """Logits (n, C) float64 of a model, as NumPy takes them.

    Raises
    ------
    InputError
        for weights of another layout, and where a logit is not finite.
    """
    return finite(net.logits(flat_values(net, weights)))


def along(net: Network, weights: Weights, direction: Tensor) -> tuple[Real, Real]:
    """Logits and their derivative along a direction in parameter space, by forward mode.

    Parameters
    ----------
    direction : (P,) float32
        Δθ of Eq. (9), say.

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
    with warnings.catch_warnings():  # torch compiles some of its own rules in a way that it has itself deprecated
        warnings.filterwarnings("ignore", message="`torch.jit.script` is", category=FutureWarning)
        parts = [
            jvp(partial(net.differentiable, patches=patches), (views,), (moves,))
            for patches in net.patches.split(BATCH)
        ]
    return finite(torch.cat([part[0] for part in parts])), finite(torch.cat([part[1] for part in parts]))


def row(net: Network, weights: Weights, cotangent: Tensor) -> Tensor:
    """A combination of rows of the Jacobian, by reverse mode: the sum over images n and classes k of c_nk J_nk.

    Parameters
    ----------
    cotangent : (n, C) float32
        One 1 and else 0 picks a row, a 1 and a -1 in one line the difference of two.

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
        leaves[name].grad = view  # is added to in place: there is never a second gradient of the whole network
    for patches, part in zip(net.patches.split(BATCH), cotangent.to(values).split(BATCH), strict=True):
        torch.autograd.backward(net.differentiable(leaves, patches), part)
    return total


def gram(net: Network, weights: Weights, *, chunk: int | None = None) -> Real:
    """J Jᵀ of every image, exactly: inner products (n, C, C) of the gradients of its logits.

    Reverse mode goes through the network step by step with all C logits of some images at once, and no gradient of a
    weight matrix is ever formed. With inputs a_t and gradients δ_kt at the output of a linear layer, for token t, the
    gradient of logit k is Σ_t δ_kt a_tᵀ, so two of them have the inner product Σ_tt' (δ_kt · δ_lt')(a_t · a_t').

    Parameters
    ----------
    chunk : int, optional
        Images that go through together. Default: as many as keep the numbers at hand below `AT_HAND`, or below the size
        of the model where that is more.

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
        Directions behind it.
    """

    gram: Real
    error: Real
    probes: int


def estimate_gram(net: Network, weights: Weights, probes: int, *, generator: torch.Generator) -> GramEstimate:
    """J Jᵀ of every image from random directions v ~ N(0, I): the mean of (J v)(J v)ᵀ, as Hutchinson takes a trace.

    One direction serves all images in one forward pass, whatever their number of classes: for a ViT-B/16 the exact
    matrix costs C backward passes an image. The relative standard error of a squared row norm is √(2 / probes).

    Parameters
    ----------
    probes : int
        At least 2.
    generator : torch.Generator
        On the CPU.
    """
    if isinstance(probes, bool) or not isinstance(probes, int) or probes < 2:
        raise InputError(f"probes is {probes!r}; expected a whole number of 2 or more: one has no standard error")
    mean = np.zeros((len(net), net.classes, net.classes))
    squares = np.zeros_like(mean)
    for count in range(1, probes + 1):  # Welford's update: products of very different sizes do not cancel
        _, moved = along(net, weights, torch.randn(net.layout.size, generator=generator))
        product = moved[:, :, None] * moved[:, None, :]
        before = product - mean
        mean += before / count
        squares += before * (product - mean)
    return GramEstimate(mean, np.sqrt(squares / (probes - 1) / probes), probes)


def first_order(net: Network, weights: Weights, jacobian_gram: Real | None = None) -> FirstOrder:
    """What the tests need of a model: its logits and J Jᵀ, exact unless an estimate of it is given."""
    return FirstOrder(logits(net, weights), gram(net, weights) if jacobian_gram is None else jacobian_gram)


def flat_values(net: Network, weights: Weights) -> Tensor:
    """The weights (P,) on the device of the network's images; an InputError if their layout is another."""
    weights.layout.require_equal(net.layout, "the weights")
    return weights.values.to(net.patches.device)


def finite(numbers: Tensor) -> Real:
    """Computed numbers as float64 arrays on the CPU; an InputError where one is NaN or infinite."""
    if not numbers.isfinite().all():
        raise InputError(
            f"{int((~numbers.isfinite()).sum())} of {numbers.numel()} numbers that the model computes are NaN or "
            "infinite: expected finite ones; its weights are destroyed, take less noise"
        )
    return numbers.detach().cpu().double().numpy()
