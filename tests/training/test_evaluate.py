"""Accuracy on flat weights."""

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_pil_image

import rmtllmf_lib.training.evaluate as module
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import Backbone, fresh_tower
from rmtllmf_lib.model.task_vector import Weights
from rmtllmf_lib.tasks.base import Split
from rmtllmf_lib.tasks.images import LazyImages
from rmtllmf_lib.training.evaluate import accuracy, predictions, prepare
from rmtllmf_lib.training.heads import Head
from rmtllmf_lib.training.loading import normalize
from small import CLASSES, small_backbone, small_head, small_split, small_tau


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return small_backbone()


@pytest.fixture(scope="module")
def weights(backbone: Backbone) -> Weights:
    return backbone.weights + small_tau(backbone.weights, 1)


def slow_logits(backbone: Backbone, weights: Weights, split: Split, head: Head) -> torch.Tensor:
    """The definition: load the module, encode everything at once."""
    assert isinstance(split.inputs, torch.Tensor)
    with torch.no_grad():
        features = fresh_tower(backbone, weights)(normalize(split.inputs, backbone))
    return head.logit_scale * torch.nn.functional.normalize(features, dim=-1) @ head.weight.T


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("keep", [False, True])
def test_logits_equal_those_of_the_module(quick_gelu: bool, frozen: bool, keep: bool) -> None:
    backbone = small_backbone(quick_gelu=quick_gelu)
    tau = small_tau(backbone.weights, 1)
    weights = backbone.weights + (tau.without("embeddings") if frozen else tau)
    split, head = small_split(23), small_head()
    expected = slow_logits(backbone, weights, split, head)
    prepared = prepare(backbone, split, batch_size=10, keep=keep)
    assert bool(prepared.tokens) == keep
    torch.testing.assert_close(prepared.logits(weights, head), expected, rtol=0, atol=1e-5 * head.logit_scale)
    assert torch.equal(predictions(backbone, weights, prepared, head), expected.argmax(1))
    assert torch.equal(predictions(backbone, weights, split, head), expected.argmax(1))


def test_accuracy_counts(backbone: Backbone, weights: Weights) -> None:
    split, head = small_split(24), small_head()
    expected = slow_logits(backbone, weights, split, head).argmax(1)
    assert accuracy(backbone, weights, Split(split.inputs, expected), head) == 1
    wrong = expected.clone()
    wrong[:6] = (wrong[:6] + 1) % 5
    assert accuracy(backbone, weights, Split(split.inputs, wrong), head) == 0.75
    assert accuracy(backbone, weights, prepare(backbone, Split(split.inputs, wrong)), head) == 0.75


def test_a_split_beyond_the_cache_size_is_not_cached(
    backbone: Backbone, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, head = small_split(20), small_head()
    kept = prepare(backbone, split, batch_size=8)
    monkeypatch.setattr(module, "CACHE_BYTES", 1000)
    streamed = prepare(backbone, split, batch_size=8)
    assert kept.patches and kept.tokens and not streamed.patches and not streamed.tokens
    assert torch.equal(kept.logits(weights, head), streamed.logits(weights, head))


def test_lazy_images_are_decoded_once(backbone: Backbone, weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    split, head, decoded = small_split(20), small_head(), []

    def decode(index: int) -> Image.Image:
        decoded.append(index)
        return to_pil_image(split.inputs[index])

    lazy = Split(LazyImages(range(20), decode), split.labels)
    prepared = prepare(backbone, lazy, batch_size=8)
    expected = prepare(backbone, split, batch_size=8).logits(weights, head)
    assert torch.equal(prepared.logits(weights, head), expected)
    assert torch.equal(prepared.logits(backbone.weights, head), prepared.logits(backbone.weights, head))
    assert sorted(decoded) == [*range(20)]
    monkeypatch.setattr(module, "CACHE_BYTES", 1000)
    streamed = prepare(backbone, lazy, batch_size=8)
    assert torch.equal(streamed.logits(weights, head), expected)


def test_limit_takes_the_same_images_of_every_class(backbone: Backbone) -> None:
    split = small_split(100)
    order = torch.argsort(split.labels, stable=True)  # a folder of images lists one class after the other
    sorted_split = split.subset(order)
    labels = prepare(backbone, sorted_split, limit=20).split.labels
    assert torch.bincount(labels).tolist() == [4] * 5
    again = prepare(backbone, sorted_split, limit=20)
    assert torch.equal(again.split.inputs, prepare(backbone, sorted_split, limit=20).split.inputs)
    assert len(prepare(backbone, split, limit=1000).split) == 100


def test_a_destroyed_model_gets_no_credit(backbone: Backbone) -> None:
    values = backbone.weights.values.clone()
    values[:] = 3e38
    split = Split(small_split(5).inputs, torch.zeros(5, dtype=torch.int64))
    destroyed = Weights(backbone.weights.layout, values)
    assert predictions(backbone, destroyed, split, small_head()).tolist() == [-1] * 5
    assert accuracy(backbone, destroyed, split, small_head()) == 0


def test_bad_input_is_named(backbone: Backbone, weights: Weights) -> None:
    split, head = small_split(6), small_head()
    with pytest.raises(InputError, match="split is empty"):
        accuracy(backbone, weights, split.subset([]), head)
    with pytest.raises(InputError, match="0 to 4 and the head has 3 classes"):
        accuracy(backbone, weights, split, small_head(classes=CLASSES[:3]))
    with pytest.raises(InputError, match="from -1 to"):
        accuracy(backbone, weights, Split(split.inputs, split.labels - 1), head)
    with pytest.raises(InputError, match="the layout of the weights"):
        accuracy(backbone, small_backbone(layers=2).weights, split, head)
    with pytest.raises(InputError, match="32 columns .* 64 features"):
        accuracy(backbone, weights, split, small_head(dimension=32))
    with pytest.raises(InputError, match="batch_size is 0"):
        prepare(backbone, split, batch_size=0)
    with pytest.raises(InputError, match="limit is 0"):
        prepare(backbone, split, limit=0)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device is 'cuda'"):
            accuracy(backbone, weights, split, head, device="cuda")
