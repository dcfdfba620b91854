"""Points, differences and bases; towers of models; files."""

import dataclasses
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.layout import GROUPS, Layout
from rmtllmf_lib.model.task_vector import TaskVector, Weights, cosine_matrix
from rmtllmf_lib.model.tensor_file import write_own
from vectors import BASE, LAYOUT, SIZE, model, random_values, unhurried, vector

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
    """`sum([])` is the number 0, without a base; it is refused where it would be accepted silently."""
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


def test_hash_depends_on_every_bit_and_the_layout() -> None:
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
    with pytest.raises(InputError, match="accuracy"):
        TaskVector(LAYOUT, random_values(1), BASE.hash, {"accuracy": 0.5})  # type: ignore[dict-item]


def test_a_copy_with_other_info() -> None:
    tau = dataclasses.replace(vector(1, task="mnist"), info={"task": "svhn"})
    assert (tau.info, tau.hash) == ({"task": "svhn"}, vector(1).hash)


def test_repr_is_short() -> None:
    assert "mnist" in repr(vector(1, task="mnist"))
    assert len(repr(vector(1, task="mnist", recipe="x" * 200))) < 100
    assert len(repr(BASE + vector(1))) < 100


# --- models and state dicts -------------------------------------------------------------------------------------


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


@unhurried
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
    assert metadata["info.task"] == "x"


@pytest.mark.parametrize("kind", [TaskVector, Weights])
def test_one_flipped_bit_is_noticed(kind: type[TaskVector | Weights], tmp_path: Path) -> None:
    """Wherever it is: in the numbers, or in the header with task, base, accuracy, types and shapes."""
    path = tmp_path / "x.safetensors"
    tau = vector(1, task="mnist", accuracy="0.873", n_train="4000")
    (tau if kind is TaskVector else BASE + tau).save(path)
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    places = [*range(8, 8 + 900), *range(start - 300, start), start, len(whole) - 4]
    for place in places:
        raw = bytearray(whole)
        raw[place] ^= 1 << place % 8
        path.write_bytes(raw)
        with pytest.raises(InputError):
            kind.load(path)


def test_a_file_of_version_1_is_read_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from safetensors.torch import save_file

    path, tau = tmp_path / "x.safetensors", vector(1)
    metadata = {"format": "rmtllmf-task-vector", "format_version": "1", "base_hash": BASE.hash, "hash": tau.hash}
    save_file(tau.state_dict(), path, metadata)
    assert TaskVector.load(path, BASE).hash == tau.hash
    assert "no checksum covers its metadata" in caplog.text
    save_file(tau.state_dict(), path, {**metadata, "hash": BASE.hash})
    with pytest.raises(InputError, match="is damaged"):
        TaskVector.load(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n_train", "200000"), ("n_train", "many"), ("n_train", "-1"), ("classes", "0"), ("data_seed", str(10**30)),
        ("data_seed", "1.5"),
        ("difficulty", "9"), ("difficulty", "-1"), ("difficulty", "much"),
        ("accuracy", "nan"), ("accuracy", "1.2"), ("base_accuracy", "1e-3x"),
        ("folder", "/etc"), ("folder", "../../photos"), ("folder", "~/photos"), ("folder", "C:\\photos"),
        ("folder", "a\\..\\..\\b"), ("source", "web"), ("head", "mlp"), ("task", "../x"), ("task", "a b"),
        ("note", "\x1b[2J"), ("note", "x" * 20_000),
    ],
)  # fmt: skip
def test_what_a_received_vector_says_of_itself_is_checked(key: str, value: str, tmp_path: Path) -> None:
    vector(1, **{key: value}).save(tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=key):
        TaskVector.load(tmp_path / "x.safetensors")


def test_what_a_vector_of_ours_says_is_accepted(tmp_path: Path) -> None:
    info = {"task": "pets-2.b", "n_train": "", "data_seed": "7", "accuracy": "1.000000", "folder": "photos/pets",
            "source": "folder", "head": "text", "classes": "37", "recipe": "{}", "note": "naïve"}  # fmt: skip
    vector(1, **info).save(tmp_path / "x.safetensors")
    assert TaskVector.load(tmp_path / "x.safetensors").info == info


def test_a_vector_of_a_large_data_set_can_be_read_again(tmp_path: Path) -> None:
    """Images of files are as many as there are; those that are drawn cost as much time as a vector asks for."""
    vector(1, source="torchvision", n_train="550000").save(tmp_path / "x.safetensors")
    assert TaskVector.load(tmp_path / "x.safetensors").info["n_train"] == "550000"
    for source in ({"source": "procedural"}, {}):
        vector(1, **source, n_train="550000").save(tmp_path / "y.safetensors")
        with pytest.raises(InputError, match="n_train is 550000"):
            TaskVector.load(tmp_path / "y.safetensors")


def test_changed_tensors_are_noticed(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = tmp_path / "tau.safetensors"
    vector(1).save(path)
    with open(path, "rb") as file:
        metadata = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))["__metadata__"]
    tensors = load_file(path)
    del tensors["visual.proj"]
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(InputError, match="is damaged"):
        TaskVector.load(path)


def test_loading_the_wrong_file(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    BASE.save(path)
    with pytest.raises(InputError, match=r"rmtllmf-weights.*expected .rmtllmf-task-vector"):
        TaskVector.load(path)
    vector(1, task="dtd").save(path)
    with pytest.raises(InputError, match="the task vector of 'dtd' belongs to another base"):
        TaskVector.load(path, Weights(LAYOUT, random_values(5)))
    short = Layout(LAYOUT.names[:-1], LAYOUT.shapes[:-1])
    with pytest.raises(InputError, match="the layout of the task vector does not match; not expected: 1"):
        TaskVector.load(path, Weights(short, torch.ones(short.size)))


def test_control_characters_of_a_received_file_do_not_reach_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for metadata, tensors in [({"base_hash": "\x1b[2J"}, vector(1).state_dict()),
                              ({"base_hash": BASE.hash}, {"visual.\x1b[2J": torch.ones(2)})]:  # fmt: skip
        write_own(path, "rmtllmf-task-vector", tensors, metadata)
        with pytest.raises(InputError) as caught:
            TaskVector.load(path, BASE)
        assert str(caught.value).isprintable()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux says what lies where in memory")
def test_a_vector_may_stay_in_its_file(tmp_path: Path) -> None:
    tau = vector(3, task="a")
    tau.save(tmp_path / "tau.safetensors")
    mapped = TaskVector.load(tmp_path / "tau.safetensors", BASE, mapped=True)
    assert mapped.hash == tau.hash and mapped.info == tau.info and mapped.values.is_contiguous()

    def in_file(values: Tensor) -> bool:
        regions = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if "tau.safe" in line]
        bounds = [[int(end, 16) for end in region[0].split("-")] for region in regions]
        return any(low <= values.data_ptr() < high for low, high in bounds)

    assert in_file(mapped.values) and not in_file(TaskVector.load(tmp_path / "tau.safetensors").values)
    vector(4).save(tmp_path / "tau.safetensors")  # another file of that name, and the vector keeps the old one
    assert torch.equal(mapped.values, tau.values)


def test_a_mapped_vector_of_a_damaged_or_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tau.safetensors"
    vector(3).save(path)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="is damaged"):
        TaskVector.load(path, mapped=True)
    BASE.save(path)
    with pytest.raises(InputError, match="rmtllmf-weights"):
        TaskVector.load(path, mapped=True)
