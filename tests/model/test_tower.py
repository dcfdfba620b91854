"""The evaluation forward pass equals open_clip's, for any of its vision transformers."""

import copy
import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import Weights
from rmtllmf_lib.model.tower import Tower, any_tower, cut, embed, encode, patchify, read_tower
from rmtllmf_lib.training.evaluate import predictions, prepare
from rmtllmf_lib.training.loading import normalize
from small import small_backbone, small_head, small_split, small_tau

TINY = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 4, "head_width": 32}


def new_visual(quick_gelu: bool = False, embed_dim: int = 64, **changes: Any) -> Any:
    """A random tower whose numbers are all large enough to matter."""
    torch.manual_seed(0)
    text = {"context_length": 4, "vocab_size": 8, "width": 32, "heads": 1, "layers": 1}
    clip = open_clip.CLIP(embed_dim, {**TINY, **changes}, text, quick_gelu=quick_gelu)
    visual = clip.visual.eval().requires_grad_(False)
    for parameter in visual.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape))
    return visual


def named(visual: Any) -> dict[str, Tensor]:
    return {"visual." + name: tensor for name, tensor in visual.state_dict().items()}


def features(visual: Any, weights: dict[str, Tensor], images: Tensor) -> Tensor:
    tower = any_tower(visual)
    return encode(tower, weights, embed(tower, weights, cut(tower, images)))


@pytest.mark.parametrize(
    ("quick_gelu", "changes"),
    [
        (False, {}),
        (True, {}),
        (False, {"layers": 1}),
        (False, {"head_width": 64}),
        (True, {"image_size": 36}),  # the convolution leaves out the last 4 rows and columns
        (True, {"image_size": 64, "patch_size": 16, "width": 192, "layers": 3, "head_width": 64}),
        (True, {"final_ln_after_pool": True}),
        (True, {"patch_dropout": 0.5}),  # in training only
    ],
)
def test_equals_open_clip(quick_gelu: bool, changes: dict[str, Any]) -> None:
    visual = new_visual(quick_gelu, **changes)
    images = torch.randn(9, 3, *visual.image_size)
    expected = visual(images)
    assert expected.abs().mean() > 0.1
    assert isinstance(any_tower(visual), Tower)
    torch.testing.assert_close(features(visual, named(visual), images), expected, rtol=0, atol=1e-5)


def test_equals_open_clip_at_the_width_of_vit_b_16() -> None:
    config = open_clip.get_model_config("ViT-B-16-quickgelu")
    visual = new_visual(True, config["embed_dim"], **{**config["vision_cfg"], "head_width": 64, "layers": 2})
    assert visual.positional_embedding.shape == (197, 768)
    images = torch.randn(2, 3, 224, 224)
    torch.testing.assert_close(features(visual, named(visual), images), visual(images), rtol=1e-4, atol=1e-4)


def test_tokens_are_not_changed() -> None:
    visual = new_visual()
    tower, weights = read_tower(visual), named(visual)
    tokens = embed(tower, weights, patchify(torch.randn(3, 3, 32, 32), 8))
    before = tokens.clone()
    encode(tower, weights, tokens)
    assert torch.equal(tokens, before)


def test_patches_are_in_the_order_of_the_convolution() -> None:
    images = torch.arange(2 * 3 * 4 * 6).float().view(2, 3, 4, 6)
    patches = patchify(images, 2)
    assert patches.shape == (2, 6, 12)
    for image, row, column in itertools.product(range(2), range(2), range(3)):
        square = images[image, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        assert torch.equal(patches[image, 3 * row + column], square.flatten())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool_type": "avg"}, "'avg'"),
        ({"attentional_pool": True}, "attentional pooling"),
        ({"ls_init_value": 0.1}, "layer scale"),
        ({"no_ln_pre": True}, "without ln_pre"),
        ({"qk_norm": True}, "CustomResidualAttentionBlock"),
        ({"output_tokens": True}, "returns tokens"),
        ({"act_kwargs": {"approximate": "tanh"}}, "tanh"),
    ],
)
def test_other_towers_run_open_clips_own_forward(changes: dict[str, Any], message: str) -> None:
    """With the given weights, on several threads at once; the module keeps its own weights."""
    visual, images = new_visual(**changes), torch.randn(3, 3, 32, 32)
    with pytest.raises(InputError, match=message):
        read_tower(visual)
    before = named(visual)
    moved = [{name: factor * tensor for name, tensor in before.items()} for factor in (0.5, 1.0, 1.5)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda weights: features(visual, weights, images), 4 * moved))
    assert all(torch.equal(tensor, before[name]) for name, tensor in named(visual).items())
    for place, weights in enumerate(moved):
        other = new_visual(**changes)
        other.load_state_dict({name.removeprefix("visual."): tensor for name, tensor in weights.items()})
        expected = other(images)
        expected = expected[0] if isinstance(expected, tuple) else expected
        for one in found[place::3]:
            torch.testing.assert_close(one, expected, rtol=0, atol=1e-5)


def test_blocks_that_differ_are_refused() -> None:
    visual = new_visual()
    visual.transformer.resblocks[2].mlp.gelu = open_clip.transformer.QuickGELU()
    with pytest.raises(InputError, match="differ from one another"):
        read_tower(visual)
    with pytest.raises(InputError, match="type Linear"):
        read_tower(nn.Linear(2, 2))


def test_a_backbone_with_another_tower_is_evaluated() -> None:
    plain, head, split = small_backbone(layers=1), small_head(), small_split(7)
    visual = new_visual(pool_type="avg")
    model = copy.copy(plain.model)
    model.visual = visual
    backbone = replace(plain, model=model, weights=Weights.from_module(visual))
    weights = backbone.weights + small_tau(backbone.weights, 1)
    other = copy.deepcopy(visual)
    weights.load_into(other)
    expected = other(normalize(split.inputs, backbone)) @ head.weight.T
    for images in (split, prepare(backbone, split)):
        assert torch.equal(predictions(backbone, weights, images, head), expected.argmax(1))
