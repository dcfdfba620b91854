"""Directions, rows and Gram matrices against a brute-force Jacobian of open_clip's own module."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call, jacrev
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from rmtllmf_lib.disentanglement.linearise import Network, along, estimate_gram, first_order, gram, logits, network, row
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.training.heads import Head
from rmtllmf_lib.training.loading import normalize
from small import CLASSES, small_backbone, small_head, small_split, small_tau
from vectors import BASE

N = 4


@cache
def setting(quick_gelu: bool = False) -> tuple[Backbone, Head, Network, Weights]:
    backbone, head = small_backbone(2, quick_gelu, layers=2), small_head()
    return backbone, head, network(backbone, small_split(N), head), backbone.weights + small_tau(backbone.weights, 1)


@cache
def brute_force(quick_gelu: bool = False) -> np.ndarray:
    """Jacobian (n, C, P) by reverse mode through open_clip's module, one row after the other."""
    backbone, head, _, weights = setting(quick_gelu)
    images = normalize(small_split(N).inputs, backbone)

    def function(named: dict[str, Tensor]) -> Tensor:
        bare = {name.removeprefix("visual."): x for name, x in named.items()}
        features = functional_call(backbone.model.visual, bare, (images,))
        return head.logit_scale * functional.normalize(features, dim=-1) @ head.weight.T

    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels do not support batched gradients
        rows = jacrev(function)(weights.state_dict())
    return torch.cat([rows[name].flatten(2) for name in weights.layout.names], 2).double().numpy()


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_gram_is_that_of_the_jacobian(quick_gelu: bool) -> None:
    _, _, net, weights = setting(quick_gelu)
    jacobian = brute_force(quick_gelu)
    expected = jacobian @ jacobian.swapaxes(1, 2)
    largest = np.abs(expected).max((1, 2), keepdims=True)
    assert (np.abs(gram(net, weights) - expected) < 1e-5 * largest).all()
    model = first_order(net, weights)
    differences = np.linalg.norm(jacobian[:, :1] - jacobian, axis=2)
    np.testing.assert_allclose(model.difference_norms([0] * N), differences, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(model.row_norms, np.linalg.norm(jacobian, axis=2), rtol=1e-5)


def test_gram_does_not_depend_on_the_chunk() -> None:
    _, _, net, weights = setting()
    for chunk in (1, 3, 100):
        whole = gram(net, weights)
        np.testing.assert_allclose(gram(net, weights, chunk=chunk), whole, rtol=0, atol=1e-6 * whole.max())


def test_directions() -> None:
    _, _, net, weights = setting()
    direction = torch.randn(weights.layout.size, generator=torch.Generator().manual_seed(3))
    clean, moved = along(net, weights, direction)
    expected = brute_force() @ direction.double().numpy()
    np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(clean, logits(net, weights), rtol=0, atol=1e-4)
    again = along(net, weights, -3 * direction)[1]
    np.testing.assert_allclose(again, -3 * moved, rtol=0, atol=1e-5 * np.abs(again).max())


def test_rows() -> None:
    """One row, the difference of two, and a mixture over images; the weights stay unchanged."""
    _, _, net, weights = setting()
    before = weights.values.clone()
    for seed in range(2):
        cotangent = torch.randn(N, net.classes, generator=torch.Generator().manual_seed(seed))
        expected = np.einsum("nk,nkp->p", cotangent.double().numpy(), brute_force())
        np.testing.assert_allclose(row(net, weights, cotangent), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    difference = torch.zeros(N, net.classes)
    difference[1, 0], difference[1, 2] = 1, -1
    expected = brute_force()[1, 0] - brute_force()[1, 2]
    np.testing.assert_allclose(row(net, weights, difference), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert torch.equal(weights.values, before) and not weights.values.requires_grad


def test_batches_of_images_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, net, weights = setting()
    cotangent = torch.randn(N, net.classes, generator=torch.Generator().manual_seed(0))
    direction = torch.randn(weights.layout.size, generator=torch.Generator().manual_seed(3))
    whole = row(net, weights, cotangent), along(net, weights, direction)[1], logits(net, weights)
    monkeypatch.setattr("rmtllmf_lib.disentanglement.linearise.BATCH", 3)
    parts = row(net, weights, cotangent), along(net, weights, direction)[1], logits(net, weights)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_standard_error_of_the_estimate() -> None:
    _, _, net, weights = setting()
    exact = gram(net, weights)
    found = estimate_gram(net, weights, 60, generator=torch.Generator().manual_seed(0))
    scores = (found.gram - exact) / found.error
    assert np.abs(scores).max() < 4.5 and found.probes == 60
    diagonal = np.diagonal(found.error / exact, axis1=1, axis2=2)
    np.testing.assert_allclose(diagonal.mean(), np.sqrt(2 / 60), rtol=0.2)
    model = first_order(net, weights, found.gram)
    np.testing.assert_array_equal(model.gram, found.gram)


def test_logits_are_those_of_evaluation() -> None:
    backbone, head, net, weights = setting()
    images = normalize(small_split(N).inputs, backbone)
    visual = {name.removeprefix("visual."): x for name, x in weights.state_dict().items()}
    features = functional.normalize(functional_call(backbone.model.visual, visual, (images,)), dim=-1)
    np.testing.assert_allclose(logits(net, weights), head.logit_scale * features @ head.weight.T, rtol=0, atol=1e-4)
    assert len(net) == N and net.classes == len(CLASSES) and net.labels.tolist() == [0, 1, 2, 3]


def test_one_class_and_one_image() -> None:
    backbone, _, _, weights = setting()
    net = network(backbone, small_split(1), small_head(classes=("one",)))
    assert gram(net, weights).shape == (1, 1, 1) and logits(net, weights).shape == (1, 1)
    assert first_order(net, weights).predicted.tolist() == [0]


def test_limit_is_stratified() -> None:
    backbone, head, _, _ = setting()
    assert sorted(network(backbone, small_split(40), head, limit=10).labels.tolist()) == sorted([0, 1, 2, 3, 4] * 2)


def test_bad_input() -> None:
    backbone, head, net, weights = setting()
    with pytest.raises(InputError, match="the head has 7 columns and backbone 'small' makes 64 features"):
        network(backbone, small_split(2), small_head(dimension=7))
    with pytest.raises(InputError, match="the split is empty"):
        network(backbone, small_split(0), head)
    direction = torch.zeros(weights.layout.size)
    direction[5] = torch.nan
    for bad in (direction, torch.full_like(direction, torch.inf)):
        with pytest.raises(InputError, match="the direction at 'visual.class_embedding' holds .* NaN or infinite"):
            along(net, weights, bad)
    with pytest.raises(InputError, match="the direction has shape .3,."):
        along(net, weights, torch.zeros(3))
    with pytest.raises(InputError, match=f"the cotangent has shape .1, 5.: expected .{N}, 5."):
        row(net, weights, torch.zeros(1, 5))
    for call in (logits, gram, first_order):
        with pytest.raises(InputError, match="the layout of the weights does not match"):
            call(net, BASE)  # type: ignore[operator]
    for chunk in (0, -1, 1.5):
        with pytest.raises(InputError, match="chunk is"):
            gram(net, weights, chunk=chunk)  # type: ignore[arg-type]
    for probes in (1, 0, 2.5, True):
        with pytest.raises(InputError, match="probes is"):
            estimate_gram(net, weights, probes, generator=torch.Generator())  # type: ignore[arg-type]


def test_a_destroyed_model_is_refused() -> None:
    _, _, net, weights = setting()
    huge = TaskVector(weights.layout, torch.full_like(weights.values, 3e38), weights.origin)
    with pytest.raises(InputError, match="NaN or infinite"):
        logits(net, weights + huge)
