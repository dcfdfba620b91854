"""Names, shapes and places in the flat buffer."""

import itertools

import pytest
import torch

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.layout import GROUPS, Layout, group_of, listing, require_finite

SHAPES = {
    "visual.class_embedding": (4,),
    "visual.conv1.weight": (4, 3, 2, 2),
    "visual.ln_post.bias": (4,),
    "visual.positional_embedding": (5, 4),
    "visual.proj": (4, 2),
    "visual.transformer.resblocks.0.attn.in_proj_weight": (12, 4),
    "visual.transformer.resblocks.0.ln_1.weight": (4,),
    "visual.transformer.resblocks.0.mlp.c_fc.bias": (16,),
}


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("visual.conv1.weight", "embeddings"),
        ("visual.class_embedding", "embeddings"),
        ("visual.positional_embedding", "embeddings"),
        ("visual.transformer.resblocks.11.attn.in_proj_bias", "attention"),
        ("visual.transformer.resblocks.11.attn.out_proj.weight", "attention"),
        ("visual.transformer.resblocks.3.mlp.c_proj.weight", "mlp"),
        ("visual.transformer.resblocks.3.ln_2.bias", "norm"),
        ("visual.ln_pre.weight", "norm"),
        ("visual.ln_post.bias", "norm"),
        ("visual.proj", "projection"),
    ],
)
def test_group_of(name: str, group: str) -> None:
    assert group_of(name) == group


@pytest.mark.parametrize(
    "name", ["conv1.weight", "visual.conv2.weight", "positional_embedding", "visual.proj.weight", "visual.head.bias"]
)
def test_group_of_strange_names(name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}'.*embeddings, attention, mlp, norm, projection"):
        group_of(name)


def test_order_of_the_source_does_not_matter() -> None:
    tensors = state()
    layout = Layout.from_state_dict(tensors)
    turned = Layout.from_state_dict(dict(reversed(tensors.items())))
    assert layout == turned
    assert layout.hash == turned.hash
    assert torch.equal(layout.flatten(tensors), turned.flatten(tensors))


def test_places_follow_each_other() -> None:
    layout = Layout.from_state_dict(state())
    assert layout.names == tuple(sorted(SHAPES))
    assert layout.offsets[0] == 0
    assert [b - a for a, b in itertools.pairwise((*layout.offsets, layout.size))] == list(layout.sizes)


def test_views_share_memory_and_flatten_copies() -> None:
    tensors = state()
    layout = Layout.from_state_dict(tensors)
    values = layout.flatten(tensors)
    views = layout.views(values)
    assert all(torch.equal(views[name], tensor) for name, tensor in tensors.items())
    views["visual.proj"][0, 0] = 7
    assert (values == 7).sum() == 1
    assert tensors["visual.proj"][0, 0] != 7


def test_hash_depends_on_names_and_shapes() -> None:
    a = Layout(("visual.a", "visual.b"), ((2,), (3,)))
    hashes = {
        a.hash,
        Layout(("visual.a", "visual.b"), ((3,), (2,))).hash,
        Layout(("visual.a", "visual.b"), ((2,), (3, 1))).hash,
        Layout(("visual.a", "visual.c"), ((2,), (3,))).hash,
    }
    assert len(hashes) == 4


def test_ranges_partition_the_buffer() -> None:
    layout = Layout.from_state_dict(state())
    owner = torch.full((layout.size,), -1)
    for index, group in enumerate(GROUPS):
        where = layout.ranges(group)
        assert all(first.stop <= second.start for first, second in itertools.pairwise(where))
        for part in where:
            assert (owner[part] == -1).all()
            owner[part] = index
    expected = torch.cat([torch.full((x.numel(),), GROUPS.index(group_of(k))) for k, x in sorted(state().items())])
    assert torch.equal(owner, expected)
    with pytest.raises(InputError, match="'embedding'.*'embeddings'"):
        layout.ranges("embedding")


def test_mismatch_names_a_handful_and_counts() -> None:
    layout = Layout.from_state_dict(state())
    tensors = {f"visual.ln_{i}.bias": torch.zeros(1) for i in range(9)} | {
        "visual.proj": torch.zeros(2, 4),
        "visual.class_embedding": torch.zeros(4),
    }
    with pytest.raises(InputError) as caught:
        Layout.from_state_dict(tensors).require_equal(layout, "the vector")
    message = str(caught.value)
    assert "the vector does not match" in message
    assert "missing: 6 (visual.conv1.weight, visual.ln_post.bias," in message
    assert "not expected: 9 (visual.ln_0.bias, visual.ln_1.bias, visual.ln_2.bias, visual.ln_3.bias, …)" in message
    assert "other shape: 1 (visual.proj: (2, 4), expected (4, 2))" in message
    assert "visual.ln_4" not in message
    layout.require_equal(Layout.from_state_dict(state()))


def test_mismatch_of_equal_size() -> None:
    layout = Layout.from_state_dict(state())
    turned = {**state(), "visual.proj": torch.zeros(2, 4)}
    with pytest.raises(InputError, match=r"match; other shape: 1 \(visual.proj: \(2, 4\), expected \(4, 2\)\);"):
        Layout.from_state_dict(turned).require_equal(layout)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "at least one tensor"),
        ({"proj": torch.zeros(2)}, r"1 \(proj\)"),
        ({"visual.proj": torch.zeros(2, dtype=torch.int64)}, "'visual.proj' holds torch.int64.*leave them out"),
        ({"visual.proj": torch.zeros(2, dtype=torch.complex64)}, "'visual.proj' holds torch.complex64"),
        ({"visual.proj": torch.zeros(2, device="meta")}, "'visual.proj' is not a dense tensor"),
        ({"visual.proj": torch.zeros(2).to_sparse()}, "'visual.proj' is not a dense tensor"),
        ({"visual.proj": 1.0}, "'visual.proj' is a float, expected a tensor"),
    ],
)
def test_refused_state_dicts(tensors: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Layout.from_state_dict(tensors)


@pytest.mark.parametrize(
    ("names", "shapes", "message"),
    [
        (("visual.b", "visual.a"), ((1,), (1,)), "sorted"),
        (("visual.a", "visual.a"), ((1,), (1,)), "sorted and differ"),
        (("visual.a",), ((1,), (1,)), "got 1 and 2"),
    ],
)
def test_refused_layouts(names: tuple, shapes: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Layout(names, shapes)


def test_buffer_of_another_length() -> None:
    layout = Layout.from_state_dict(state())
    with pytest.raises(InputError, match=rf"shape \({layout.size},\), got \(3,\)"):
        layout.views(torch.zeros(3))
    with pytest.raises(InputError, match="the state dict does not match; missing: 1"):
        layout.flatten({name: tensor for name, tensor in state().items() if name != "visual.proj"})


def test_flatten_converts_every_precision() -> None:
    exact = {"visual.proj": torch.tensor([0.5, -2.0, 3.0])}
    layout = Layout.from_state_dict(exact)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert torch.equal(layout.flatten({"visual.proj": exact["visual.proj"].to(dtype)}), exact["visual.proj"])
    grown = layout.flatten({"visual.proj": exact["visual.proj"].clone().requires_grad_()})
    assert not grown.requires_grad


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_not_finite(bad: float) -> None:
    layout = Layout.from_state_dict(state())
    values = layout.flatten(state())
    require_finite(layout, values)
    layout.views(values)["visual.ln_post.bias"][2] = bad
    with pytest.raises(InputError, match="'visual.ln_post.bias' holds 1 numbers of 4 that are NaN or infinite"):
        require_finite(layout, values)


def test_opposite_infinities_do_not_cancel_and_large_numbers_pass() -> None:
    layout = Layout(("visual.proj",), ((4,),))
    with pytest.raises(InputError, match="holds 2 numbers"):
        require_finite(layout, torch.tensor([float("inf"), -float("inf"), 0, 0]))
    require_finite(layout, torch.full((4,), 3e38))  # their sum is infinite


def test_listing() -> None:
    assert listing(["a", "b"]) == "2 (a, b)"
    assert listing(range(9)) == "9 (0, 1, 2, 3, …)"


def test_from_shapes_sorts() -> None:
    assert Layout.from_shapes(dict(reversed(SHAPES.items()))) == Layout.from_state_dict(state())
    with pytest.raises(InputError, match="start with"):
        Layout.from_shapes({"proj": (2, 3)})
