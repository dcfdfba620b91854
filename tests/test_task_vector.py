"""Points, differences, and their algebra."""

import json
import operator
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from rmtllmf_lib import pieces
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.layout import GROUPS, Layout
from rmtllmf_lib.task_vector import TaskVector, Weights, cosine_matrix, finite_number

LAYOUT = Layout(
    (
        "visual.class_embedding",
        "visual.conv1.weight",
        "visual.ln_post.bias",
        "visual.proj",
        "visual.transformer.resblocks.0.attn.in_proj_bias",
        "visual.transformer.resblocks.0.mlp.c_fc.weight",
    ),
    ((4,), (2, 1, 2, 2), (4,), (4, 2), (12,), (3, 4)),
)
SIZE = LAYOUT.size
EPS = float(np.finfo(np.float32).eps)


def random_values(seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))


BASE = Weights(LAYOUT, random_values(0))


def vector(values: Tensor | np.ndarray | int, **info: str) -> TaskVector:
    if isinstance(values, int):
        values = random_values(values)
    return TaskVector(LAYOUT, torch.as_tensor(values), BASE.hash, info)


numbers = st.floats(-1e3, 1e3, width=32)
vectors = arrays(np.float32, SIZE, elements=numbers).map(vector)
factors = st.floats(-10, 10)


def close(a: TaskVector, b: TaskVector, size: float) -> bool:
    """Whether two vectors agree to a few roundings of numbers of this size."""
    return (a.values - b.values).abs().max().item() <= 4 * EPS * size + 1e-37


def largest(*taus: TaskVector) -> float:
    return max(tau.values.abs().max().item() for tau in taus)


# --- the vector space -------------------------------------------------------------------------------------------


@given(vectors, vectors, vectors)
def test_addition(a: TaskVector, b: TaskVector, c: TaskVector) -> None:
    assert torch.equal((a + b).values, (b + a).values)
    assert close((a + b) + c, a + (b + c), 3 * largest(a, b, c))
    assert torch.equal((a - b).values, (a + (-b)).values)
    assert not (a - a).values.any()
    assert torch.equal(sum([a, b, c]).values, (a + b + c).values)


@given(vectors, vectors, factors, factors)
def test_scaling(a: TaskVector, b: TaskVector, x: float, y: float) -> None:
    size = 20 * largest(a, b)
    assert close(x * (a + b), x * a + x * b, size)
    assert close((x + y) * a, x * a + y * a, size)
    assert close(x * (y * a), (x * y) * a, 10 * size)
    assert torch.equal((x * a).values, (a * x).values)
    assert torch.equal((1 * a).values, a.values)
    assert torch.equal((-1 * a).values, (-a).values)
    if abs(x) > 1e-3:
        assert close((x * a) / x, a, size)


@given(vectors, vectors, factors)
def test_inner_product(a: TaskVector, b: TaskVector, x: float) -> None:
    reference = a.values.double() @ b.values.double()
    bound = 1e-12 * a.norm * b.norm + 1e-300
    assert abs(a.dot(b) - reference.item()) <= bound
    assert abs(a.dot(b)) <= a.norm * b.norm * (1 + 1e-12)
    assert a.norm == pytest.approx(torch.linalg.vector_norm(a.values.double()).item(), rel=1e-12)
    assert a.rms == pytest.approx(a.norm / SIZE**0.5)
    assert (x * a).norm == pytest.approx(abs(x) * a.norm, rel=1e-5, abs=1e-35)


@given(vectors, st.sets(st.sampled_from(GROUPS), min_size=1))
def test_groups_partition_the_norm(a: TaskVector, groups: set[str]) -> None:
    only, without = a.only(*groups), a.without(*groups)
    assert torch.equal((only + without).values, a.values)
    assert not (only.values * without.values).any()
    assert only.norm**2 + without.norm**2 == pytest.approx(a.norm**2, rel=1e-12)
    assert torch.equal(a.without(*groups).values, a.only(*set(GROUPS) - groups).values)
    assert torch.equal(sum(a.only(group) for group in GROUPS).values, a.values)


def test_groups_by_name() -> None:
    only = vector(torch.ones(SIZE)).only("embeddings", "projection").state_dict()
    assert {name for name, tensor in only.items() if tensor.any()} == {
        "visual.class_embedding",
        "visual.conv1.weight",
        "visual.proj",
    }
    with pytest.raises(InputError, match="unknown group 'head'; known groups are embeddings"):
        vector(1).without("head")


@given(st.lists(vectors.filter(lambda tau: tau.norm > 0), min_size=1, max_size=5))
def test_cosines_against_pairs(taus: list[TaskVector]) -> None:
    cosines = cosine_matrix(taus)
    assert cosines.dtype == np.float64
    for i, a in enumerate(taus):
        for j, b in enumerate(taus):
            x, y = a.values.double(), b.values.double()
            reference = (x / torch.linalg.vector_norm(x)) @ (y / torch.linalg.vector_norm(y))
            assert cosines[i, j] == pytest.approx(reference.item(), abs=1e-12)
    assert np.array_equal(cosines, cosines.T)
    assert np.array_equal(np.diag(cosines), np.ones(len(taus)))
    assert (np.abs(cosines) <= 1).all()


def test_cosines_over_many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where the buffer is cut nor the number of threads changes the result."""
    monkeypatch.setattr(pieces, "PIECE", 2**16)  # two blocks to a piece
    layout = Layout(("visual.proj",), ((2**18 + 77,),))
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(layout.size, generator=generator)
    taus = [
        TaskVector(layout, 1e-30 * (common + k * torch.randn(layout.size, generator=generator)), "b") for k in range(4)
    ]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = cosine_matrix(taus)
        torch.set_num_threads(2)
        two = cosine_matrix(taus)
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(one, two)
    reference = np.corrcoef([1e30 * tau.values.double().numpy() for tau in taus])
    rows = np.stack([tau.values.double().numpy() for tau in taus])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(one, rows @ rows.T, rtol=0, atol=1e-12)
    np.testing.assert_allclose(one, reference, atol=0.01)


def test_cosine_of_a_zero_vector() -> None:
    with pytest.raises(InputError, match="task vector 1 of 'mnist' is zero and has no direction"):
        cosine_matrix([vector(1), vector(torch.zeros(SIZE), task="mnist")])
    with pytest.raises(InputError, match="at least one task vector"):
        cosine_matrix([])


# --- scalars ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [0.5, np.float64(0.5), np.float32(0.5), np.float16(0.5), Fraction(1, 2)])
def test_kinds_of_real_numbers(half: float) -> None:
    tau = vector(1)
    for result in (half * tau, tau * half, tau / (1 / half)):
        assert isinstance(result, TaskVector)
        assert torch.equal(result.values, 0.5 * tau.values)
    assert torch.equal((np.int64(2) * tau).values, (tau + tau).values)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), np.float32("nan"), 1j, np.complex64(1), True, np.True_])
def test_numbers_that_do_not_scale(bad: complex) -> None:
    for way in (lambda: bad * vector(1), lambda: vector(1) * bad, lambda: vector(1) / bad):
        with pytest.raises(InputError, match="of a task vector is .*, expected a real finite number"):
            way()


def test_division_by_zero_and_overflow() -> None:
    with pytest.raises(InputError, match="cannot be divided by 0"):
        vector(1) / 0
    with pytest.raises(InputError, match="'visual.class_embedding' holds .* NaN or infinite"):
        vector(torch.full((SIZE,), 1e10)) * 1e30


@pytest.mark.parametrize("other", ["x", None, [1.0], np.ones(SIZE), np.ones(()), torch.ones(SIZE), 3, 0.0, False, BASE])
@pytest.mark.parametrize("operation", [operator.add, operator.sub])
def test_nothing_else_can_be_added(other: object, operation: Callable) -> None:
    if other is BASE and operation is operator.add:
        pytest.skip("a point plus a difference is a point")
    with pytest.raises(TypeError):
        operation(vector(1), other)


@pytest.mark.parametrize("other", ["x", None, [1.0], np.ones(SIZE), torch.ones(SIZE), BASE])
def test_nothing_else_can_be_multiplied(other: object) -> None:
    for way in (lambda: vector(1) * other, lambda: other * vector(1), lambda: vector(1) / other):
        with pytest.raises(TypeError):
            way()
    with pytest.raises(TypeError):
        vector(1) * vector(1)


def test_finite_number() -> None:
    assert finite_number(np.float32(0.5), "x") == 0.5
    with pytest.raises(InputError, match="the step is '1', expected a real finite number"):
        finite_number("1", "the step")


# --- points -----------------------------------------------------------------------------------------------------


def test_points_and_differences() -> None:
    tuned = Weights(LAYOUT, random_values(1))
    tau = tuned - BASE
    assert tau.base_hash == BASE.hash
    assert torch.equal(tau.values, tuned.values - BASE.values)
    for again in (BASE + tau, tau + BASE):
        assert isinstance(again, Weights)
        assert again.base_hash == again.origin == BASE.hash
        torch.testing.assert_close(again.values, tuned.values)
    back = (BASE + tau) - tau
    assert back.base_hash == BASE.hash
    torch.testing.assert_close(back.values, BASE.values)
    assert tuned.base_hash is None
    assert tuned.origin == tuned.hash


def test_derived_points_take_vectors_of_their_base() -> None:
    a, b = vector(1), vector(2)
    point = BASE + a
    assert (point + b).base_hash == BASE.hash
    assert (point - BASE).base_hash == (BASE - point).base_hash == BASE.hash
    assert (point - (BASE + b)).base_hash == BASE.hash


def test_points_cannot_be_added() -> None:
    with pytest.raises(TypeError, match=r"two Weights are points and cannot be added; add a task vector \(a - b\)"):
        BASE + BASE
    with pytest.raises(TypeError, match="cannot be summed; sum their task vectors"):
        sum([BASE, BASE])
    for way in (lambda: 2 * BASE, lambda: BASE + 1.0, lambda: vector(1) - BASE, lambda: BASE - 0, lambda: 3 + BASE):
        with pytest.raises(TypeError):
            way()


def test_empty_sum_is_no_vector() -> None:
    """`sum([])` is the number 0, of no base; it is refused where it would pass silently."""
    with pytest.raises(TypeError):
        BASE + sum([])
    zero = BASE - BASE
    assert torch.equal((BASE + sum([], zero)).values, BASE.values)


def test_another_base() -> None:
    other = Weights(LAYOUT, random_values(9))
    tau = vector(1, task="svhn")
    stranger = TaskVector(LAYOUT, random_values(2), other.hash, {"task": "dtd"})
    for way in (
        lambda: tau + stranger,
        lambda: tau - stranger,
        lambda: tau.dot(stranger),
        lambda: sum([tau, stranger]),
        lambda: cosine_matrix([tau, stranger]),
    ):
        with pytest.raises(InputError, match=f"of 'dtd' belongs to another base: {other.hash[:12]}.*{BASE.hash[:12]}"):
            way()
    for way in (lambda: BASE + stranger, lambda: stranger + BASE, lambda: BASE - stranger):
        with pytest.raises(InputError, match="the task vector of 'dtd' belongs to another base"):
            way()
    with pytest.raises(InputError, match="the first point belongs to another base"):
        (BASE + tau) - other


def test_another_layout() -> None:
    layout = Layout(LAYOUT.names[:-1], LAYOUT.shapes[:-1])
    short = TaskVector(layout, torch.ones(layout.size), BASE.hash)
    point = Weights(layout, torch.ones(layout.size))
    for way in (lambda: vector(1) + short, lambda: BASE + short, lambda: point - BASE, lambda: vector(1).dot(short)):
        with pytest.raises(InputError, match=r"does not match; missing: 1 \(visual.transformer.*c_fc.weight\)"):
            way()


def test_hash_tells_every_bit_and_the_layout() -> None:
    values = random_values(0)
    assert Weights(LAYOUT, values.clone()).hash == BASE.hash
    values[-1] = torch.nextafter(values[-1], torch.tensor(9.0))
    assert Weights(LAYOUT, values).hash != BASE.hash
    renamed = Layout(("visual.class_embeddinh", *LAYOUT.names[1:]), LAYOUT.shapes)
    assert Weights(renamed, random_values(0)).hash != BASE.hash


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(SIZE - 1), rf"shape \({SIZE},\), got torch.float32 on cpu of shape \({SIZE - 1},\)"),
        (torch.zeros(SIZE, dtype=torch.float64), "got torch.float64"),
        (torch.zeros(SIZE, device="meta"), "on meta"),
        (torch.zeros(2 * SIZE)[::2], "contiguous"),
        (torch.zeros(SIZE, requires_grad=True), "without gradient"),
        (torch.full((SIZE,), float("nan")), "'visual.class_embedding' holds 4 numbers of 4 that are NaN"),
    ],
)
def test_refused_buffers(values: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        vector(values)
    with pytest.raises(InputError, match=message):
        Weights(LAYOUT, values)


def test_info_is_text_and_does_not_survive_algebra() -> None:
    given_info = {"task": "mnist"}
    tau = TaskVector(LAYOUT, random_values(1), BASE.hash, given_info)
    given_info["task"] = "changed"
    assert tau.info == {"task": "mnist"}
    for result in (tau + tau, 2 * tau, -tau, tau.only("mlp")):
        assert result.info == {}
    with pytest.raises(InputError, match=r"info maps text to text, but not for 1 \(accuracy\)"):
        TaskVector(LAYOUT, random_values(1), BASE.hash, {"accuracy": 0.5})  # type: ignore[dict-item]


def test_repr_is_short() -> None:
    assert "mnist" in repr(vector(1, task="mnist"))
    assert len(repr(vector(1, task="mnist"))) < 100
    assert len(repr(BASE + vector(1))) < 100


# --- models and state dicts -------------------------------------------------------------------------------------


def model(seed: int = 0) -> open_clip.CLIP:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vision = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 2, "head_width": 8}
        text = {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1}
        return open_clip.CLIP(8, vision, text).eval()


def test_only_the_vision_tower_is_taken() -> None:
    clip = model()
    weights = Weights.from_module(clip)
    assert weights.layout.size == sum(parameter.numel() for parameter in clip.visual.parameters())
    assert set(weights.layout.groups) == set(GROUPS)
    for other in (
        Weights.from_module(clip.visual),
        Weights.from_state_dict(clip.state_dict()),
        Weights.from_state_dict(clip.visual.state_dict(), prefix=""),
        Weights.from_state_dict({f"net.{k}": v for k, v in clip.visual.state_dict().items()}, prefix="net."),
    ):
        assert other.hash == weights.hash
    assert torch.equal(weights.state_dict()["visual.proj"], clip.visual.proj)


def test_weights_are_copied_in_and_out() -> None:
    first, second = model(0), model(1)
    weights = Weights.from_module(first)
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = first.visual(images)
        assert not torch.equal(second.visual(images), wanted)
        weights.load_into(second)
        assert torch.equal(second.visual(images), wanted)
        second.visual.proj.zero_()
    assert Weights.from_module(first).hash == weights.hash == Weights(weights.layout, weights.values.clone()).hash
    weights.load_into(second.visual)
    assert Weights.from_module(second).hash == weights.hash


def test_loading_into_another_architecture() -> None:
    with pytest.raises(InputError, match="the layout of the weights does not match; missing: "):
        BASE.load_into(model())


def test_integer_buffers_and_other_names() -> None:
    state = model().state_dict()
    with pytest.raises(InputError, match="'visual.steps' holds torch.int64"):
        Weights.from_state_dict({**state, "visual.steps": torch.tensor(3)})
    Weights.from_state_dict({**state, "steps": torch.tensor(3)})
    with pytest.raises(InputError, match=r"no name in the state dict starts with 'visual.', found 1 \(proj\)"):
        Weights.from_state_dict({"proj": torch.zeros(3)})
    state["visual.ln_pre.bias"] = torch.full_like(state["visual.ln_pre.bias"], float("nan"))
    with pytest.raises(InputError, match="'visual.ln_pre.bias' holds 16 numbers of 16"):
        Weights.from_state_dict(state)


# --- files ------------------------------------------------------------------------------------------------------


@given(values=arrays(np.float32, SIZE, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_round_trip_is_bit_exact(values: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "tau.safetensors"
    tau = vector(values, task="mnist", note="naïve")
    tau.save(path)
    again = TaskVector.load(path, BASE)
    assert again.values.numpy().tobytes() == values.tobytes()
    assert (again.layout, again.base_hash, again.info, again.hash) == (LAYOUT, BASE.hash, tau.info, tau.hash)


def test_round_trip_of_points(tmp_path: Path) -> None:
    for point in (BASE, BASE + vector(1)):
        point.save(tmp_path / "w.safetensors")
        again = Weights.load(tmp_path / "w.safetensors")
        assert (again.hash, again.base_hash, again.origin) == (point.hash, point.base_hash, point.origin)


def test_other_tools_can_read_the_file(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    vector(1).save(tmp_path / "tau.safetensors")
    tensors = load_file(tmp_path / "tau.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == dict(
        zip(LAYOUT.names, LAYOUT.shapes, strict=True)
    )


def test_the_files_data_are_the_flat_buffer(tmp_path: Path) -> None:
    vector(1, task="x").save(tmp_path / "tau.safetensors")
    raw = (tmp_path / "tau.safetensors").read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    metadata = json.loads(raw[8 : 8 + length])["__metadata__"]
    assert raw[8 + length :] == vector(1).values.numpy().tobytes()
    assert metadata["base_hash"] == BASE.hash
    assert metadata["layout_hash"] == LAYOUT.hash
    assert metadata["info.task"] == "x"


def test_one_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "tau.safetensors"
    vector(1).save(path)
    raw = bytearray(path.read_bytes())
    raw[-4] ^= 1
    path.write_bytes(raw)
    with pytest.raises(InputError, match="is damaged: its numbers do not match its checksum"):
        TaskVector.load(path)


def test_changed_tensors_are_noticed(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = tmp_path / "tau.safetensors"
    vector(1).save(path)
    with open(path, "rb") as file:
        metadata = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))["__metadata__"]
    tensors = load_file(path)
    del tensors["visual.proj"]
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(InputError, match="has other tensors than its metadata says"):
        TaskVector.load(path)


def test_loading_the_wrong_file(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    BASE.save(path)
    with pytest.raises(InputError, match="holds rmtllmf-weights version 1, expected rmtllmf-task-vector version 1"):
        TaskVector.load(path)
    vector(1, task="dtd").save(path)
    with pytest.raises(InputError, match="the task vector of 'dtd' belongs to another base"):
        TaskVector.load(path, Weights(LAYOUT, random_values(5)))
    short = Layout(LAYOUT.names[:-1], LAYOUT.shapes[:-1])
    with pytest.raises(InputError, match="the layout of the task vector does not match; not expected: 1"):
        TaskVector.load(path, Weights(short, torch.ones(short.size)))
