"""The forward pass for differentiation against open_clip's own, and each layer's inner products against autograd's."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rmtllmf_lib.model.differentiable_tower import Layers, forward
from rmtllmf_lib.model.tower import cut, read_tower
from small import generator, small_backbone, small_head


def images(n: int = 3) -> Tensor:
    return torch.randn(n, 3, 32, 32, generator=generator(1))


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_logits_are_open_clips(quick_gelu: bool, layers: int) -> None:
    backbone, head = small_backbone(1, quick_gelu, layers), small_head()
    tower = read_tower(backbone.model.visual)
    rows, patches = head.logit_scale * head.weight, cut(tower, images())
    found = forward(Layers(tower, backbone.weights.state_dict()), patches, rows)
    features = functional.normalize(backbone.model.visual(images()), dim=-1)
    torch.testing.assert_close(found, features @ rows.T, rtol=0, atol=1e-5 * head.logit_scale)
    single = forward(Layers(tower, backbone.weights.state_dict()), patches[1], rows)  # without a batch dimension
    torch.testing.assert_close(single, found[1], rtol=0, atol=1e-6 * head.logit_scale)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_features_and_gradients_are_open_clips(quick_gelu: bool, layers: int, fused: bool) -> None:
    backbone = small_backbone(3, quick_gelu, layers)
    module = copy.deepcopy(backbone.model.visual).requires_grad_(True)
    expected = module(images())
    downwards = torch.randn(expected.shape, generator=generator(2))
    (expected * downwards).sum().backward()
    tensors = {name: view.clone().requires_grad_(True) for name, view in backbone.weights.state_dict().items()}
    tower = read_tower(module)
    found = forward(Layers(tower, tensors, fused=fused), cut(tower, images()))
    (found * downwards).sum().backward()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(tensors["visual." + name].grad, parameter.grad, rtol=1e-3, atol=2e-5, msg=name)


def test_every_parameter_is_in_one_layer() -> None:
    """The sum over layers must include every parameter exactly once."""
    backbone, head = small_backbone(layers=2), small_head()
    tower = read_tower(backbone.model.visual)
    weights = {name: x.clone().requires_grad_() for name, x in backbone.weights.state_dict().items()}
    recorded: list = []
    x = forward(Layers(tower, weights, recorded), cut(tower, images(1)), head.weight)
    outputs = [output for output, _ in recorded]
    rows = [torch.autograd.grad(x[0, k], list(weights.values()), retain_graph=True) for k in range(2)]
    deltas = [torch.autograd.grad(x[0, k], outputs, retain_graph=True) for k in range(2)]
    expected = sum(float((a * b).sum()) for a, b in zip(*rows, strict=True))
    parts = [
        products(torch.stack([first[0], second[0]])[None])[0, 0, 1].item()
        for (_, products), first, second in zip(recorded, *deltas, strict=True)
    ]
    assert sum(parts) == pytest.approx(expected, rel=1e-5)
    # Patches, tokens, ln_pre; two norms and four matrices a block; ln_post, the projection.
    assert len(parts) == 3 + 2 * (2 + 4) + 2
