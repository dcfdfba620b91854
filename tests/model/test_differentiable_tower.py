"""The forward pass for differentiation against open_clip's own, and each layer's inner products against autograd's."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rmtllmf_lib.model.differentiable_tower import Layers, steps
from rmtllmf_lib.model.tower import patchify, read_tower
from small import small_backbone, small_head


def images(n: int = 3) -> Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_logits_are_open_clips(quick_gelu: bool, layers: int) -> None:
    backbone, head = small_backbone(1, quick_gelu, layers), small_head()
    tower = read_tower(backbone.model.visual)
    x = patchify(images(), tower.patch)
    for step in steps(tower, head.scale * head.weight):
        x = step(Layers(tower, backbone.weights.state_dict()), x)
    features = functional.normalize(backbone.model.visual(images()), dim=-1)
    torch.testing.assert_close(x, head.scale * features @ head.weight.T, rtol=0, atol=1e-5 * head.scale)


def test_one_image_needs_no_batch_dimension() -> None:
    backbone, head = small_backbone(layers=2), small_head()
    tower = read_tower(backbone.model.visual)
    layers, patches = Layers(tower, backbone.weights.state_dict()), patchify(images(), tower.patch)
    single, batch = patches[1], patches
    for step in steps(tower, head.weight):
        single, batch = step(layers, single), step(layers, batch)
    torch.testing.assert_close(single, batch[1], rtol=0, atol=1e-6)


def test_every_parameter_is_in_one_layer() -> None:
    """A trained tower's parameters all count, so the sum over layers must miss none and take none twice."""
    backbone, head = small_backbone(layers=2), small_head()
    tower = read_tower(backbone.model.visual)
    weights = {name: x.clone().requires_grad_() for name, x in backbone.weights.state_dict().items()}
    left: list = []
    x = patchify(images(1), tower.patch)
    for step in steps(tower, head.weight):
        x = step(Layers(tower, weights, left), x)
    outputs = [output for output, _ in left]
    rows = [torch.autograd.grad(x[0, k], list(weights.values()), retain_graph=True) for k in range(2)]
    deltas = [torch.autograd.grad(x[0, k], outputs, retain_graph=True) for k in range(2)]
    expected = sum(float((a * b).sum()) for a, b in zip(*rows, strict=True))
    parts = [
        products(torch.stack([first[0], second[0]])[None])[0, 0, 1].item()
        for (_, products), first, second in zip(left, *deltas, strict=True)
    ]
    assert sum(parts) == pytest.approx(expected, rel=1e-5)
    # Patches, tokens, ln_pre; two norms and four matrices a block; ln_post, the projection.
    assert len(parts) == 3 + 2 * (2 + 4) + 2
