"""Import of published towers: names, kinds of files, bases."""

import collections
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.checkpoints import load_published, require_same_base, task_vector_from_published
from rmtllmf_lib.model.hugging_face import from_hugging_face
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from vectors import model

WIDTH, LAYERS, HEADS, PATCH, OUT = 16, 2, 2, 8, 8
BASE = Weights.from_module(model(0))


def hugging_face(seed: int = 1, prefix: str = "vision_model.") -> dict[str, Tensor]:
    """A random tower under Hugging Face's names, far from any base."""
    generator = torch.Generator().manual_seed(seed)
    layer = {
        f"{part}.{leaf}": (shape if leaf == "weight" else shape[:1])
        for part, shape in {
            "layer_norm1": (WIDTH,),
            "layer_norm2": (WIDTH,),
            "self_attn.q_proj": (WIDTH, WIDTH),
            "self_attn.k_proj": (WIDTH, WIDTH),
            "self_attn.v_proj": (WIDTH, WIDTH),
            "self_attn.out_proj": (WIDTH, WIDTH),
            "mlp.fc1": (4 * WIDTH, WIDTH),
            "mlp.fc2": (WIDTH, 4 * WIDTH),
        }.items()
        for leaf in ("weight", "bias")
    }
    shapes = {
        "embeddings.class_embedding": (WIDTH,),
        "embeddings.patch_embedding.weight": (WIDTH, 3, PATCH, PATCH),
        "embeddings.position_embedding.weight": (5, WIDTH),
        **{f"{norm}.{leaf}": (WIDTH,) for norm in ("pre_layrnorm", "post_layernorm") for leaf in ("weight", "bias")},
        **{f"encoder.layers.{i}.{name}": shape for i in range(LAYERS) for name, shape in layer.items()},
    }
    tower = {prefix + name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    tower[prefix + "embeddings.position_ids"] = torch.arange(5)[None]
    tower[prefix.removesuffix("vision_model.") + "visual_projection.weight"] = torch.randn(
        OUT, WIDTH, generator=generator
    )
    return tower


def forward(tower: dict[str, Tensor], images: Tensor, prefix: str = "vision_model.") -> Tensor:
    """The vision tower of Hugging Face's CLIP, written out, with the exact GELU."""

    def weights(name: str) -> tuple[Tensor, Tensor]:
        return tower[f"{prefix}{name}.weight"], tower[f"{prefix}{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, (WIDTH,), *weights(name))

    patches = functional.conv2d(images, tower[prefix + "embeddings.patch_embedding.weight"], stride=PATCH)
    first = tower[prefix + "embeddings.class_embedding"].expand(len(images), 1, -1)
    x = torch.cat([first, patches.flatten(2).transpose(1, 2)], 1)
    x = norm(x + tower[prefix + "embeddings.position_embedding.weight"], "pre_layrnorm")
    for i in range(LAYERS):
        layer = f"encoder.layers.{i}."
        y = norm(x, layer + "layer_norm1")
        q, k, v = (
            functional.linear(y, *weights(f"{layer}self_attn.{p}_proj")).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for p in "qkv"
        )
        scores = q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(-2)
        x = x + functional.linear(mixed, *weights(layer + "self_attn.out_proj"))
        y = functional.linear(norm(x, layer + "layer_norm2"), *weights(layer + "mlp.fc1"))
        x = x + functional.linear(functional.gelu(y), *weights(layer + "mlp.fc2"))
    pooled = norm(x[:, 0], "post_layernorm")
    return pooled @ tower[prefix.removesuffix("vision_model.") + "visual_projection.weight"].T


def write(path: Path, tensors: dict[str, Tensor]) -> Path:
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    else:
        torch.save(tensors, path)
    return path


def tuned(scale: float = 0.01) -> nn.Module:
    """The base's model with a small change of the weights."""
    clip = model(0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in clip.visual.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return clip


@pytest.mark.parametrize("prefix", ["vision_model.", "", "model.vision_model.", "clip."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_hugging_face_tower_computes_the_same(tmp_path: Path, prefix: str, suffix: str) -> None:
    tower = hugging_face(prefix=prefix)
    text = {"text_model.embeddings.token_embedding.weight": torch.zeros(3, 4), "logit_scale": torch.zeros(())}
    published = load_published(write(tmp_path / f"x{suffix}", {**tower, **(text if prefix else {})}), BASE)
    assert (published.kind, published.notes) == ("Hugging Face", ())
    clip = model(5)
    published.weights.load_into(clip)
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(clip.visual(images), forward(tower, images, prefix), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda clip: {**clip.state_dict(), "deconv1.weight": torch.zeros(2)},
        lambda clip: clip.visual.state_dict(),
        lambda clip: {f"module.{name}": x for name, x in clip.state_dict().items()},
        lambda clip: {f"model.{name}": x for name, x in clip.state_dict().items()},
        lambda clip: {f"_orig_mod.{name}": x for name, x in clip.visual.state_dict().items()},
    ],
)
def test_open_clip_names(tmp_path: Path, suffix: str, wrap: Callable) -> None:
    clip = tuned()
    tau = task_vector_from_published(write(tmp_path / f"x{suffix}", wrap(clip)), BASE, {"task": "mnist"})
    assert torch.equal(tau.values, Weights.from_module(clip).values - BASE.values)
    assert tau.base_hash == BASE.hash
    assert tau.info == {"file": f"x{suffix}", "names": "open_clip", "task": "mnist"}


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("zipped", [True, False])
def test_wrapped_by_a_training_script(tmp_path: Path, key: str, zipped: bool) -> None:
    clip = tuned()
    content = {"epoch": 3, "name": "run", key: clip.state_dict(), "optimizer": {"state": {}, "lr": 1e-5}}
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    assert load_published(tmp_path / "x.pt", BASE).weights.hash == Weights.from_module(clip).hash


@pytest.mark.parametrize("state", [tuned().state_dict(), hugging_face()])
def test_what_is_no_tensor_may_lie_beside_the_tower(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = write(tmp_path / "x.pt", state)
    plain = load_published(path, BASE).weights.hash
    torch.save({"epoch": 3, "name": "run", **state}, path)
    assert load_published(path, BASE).weights.hash == plain
    torch.save({**state, next(name for name in state if name.endswith("class_embedding")): 3.0}, path)
    with pytest.raises(InputError, match="class_embedding' is a float"):
        load_published(path, BASE)


def test_missing_projection_comes_from_the_base_with_a_note(tmp_path: Path) -> None:
    tower = {name: x for name, x in hugging_face().items() if "visual_projection" not in name}
    path = write(tmp_path / "x.safetensors", tower)
    published = load_published(path, BASE)
    assert published.notes == ("the file has no projection, the base's is used (its task vector is 0)",)
    tau = task_vector_from_published(path, BASE, max_change=10)
    assert tau.info["note"] == published.notes[0]
    assert not tau.only("projection").values.any()
    assert tau.only("mlp").values.any()


def test_half_precision_is_noted(tmp_path: Path) -> None:
    state = {name: x.half() for name, x in tuned().visual.state_dict().items()}
    tau = task_vector_from_published(write(tmp_path / "x.safetensors", state), BASE)
    assert "stored as torch.float16, so the task vector carries rounding errors" in tau.info["note"]


def test_names_that_wrappers_leave_anywhere(tmp_path: Path) -> None:
    state = tuned().state_dict()
    expected = Weights.from_state_dict(state)
    for place, wrapper in [(".attn.", "_checkpoint_wrapped_module"), (".mlp.", "_fsdp_wrapped_module"),
                           (".transformer.", "_orig_mod"), (".resblocks.", "module")]:  # fmt: skip
        names = {name.replace(place, f".{wrapper}{place}"): tensor for name, tensor in state.items()}
        names = {name.replace(place, f"{place}{wrapper}."): tensor for name, tensor in names.items()}
        assert names.keys() != state.keys()
        published = load_published(write(tmp_path / "x.safetensors", names), BASE)
        assert torch.equal(published.weights.values, expected.values)
    with pytest.raises(InputError, match="twice"):
        load_published(write(tmp_path / "y.pt", {**state, **names}), BASE)


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.vision_model.encoder.layers.0.self_attn.q_proj.lora_A.default.weight",
        "base_model.model.vision_model.encoder.layers.0.self_attn.q_proj.base_layer.weight",
        "base_model.model.visual_projection.modules_to_save.default.weight",
        "vision_model.encoder.layers.0.mlp.fc1.lora.up.weight",
        "vision_model.encoder.layers.0.adapter.down.weight",
    ],
)
def test_an_adapter_that_is_not_merged_is_refused(name: str, tmp_path: Path) -> None:
    """Without it, what is left would be taken for the whole fine-tuning."""
    path = write(tmp_path / "x.safetensors", {**hugging_face(), name: torch.ones(4, 16)})
    with pytest.raises(InputError, match="merge the adapter first"):
        load_published(path, BASE)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_eight_bits_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    state = tuned().visual.state_dict()
    some = {name: tensor.to(dtype) if "mlp" in name else tensor for name, tensor in state.items()}
    with pytest.raises(InputError, match=str(dtype)):
        load_published(write(tmp_path / "x.safetensors", some), BASE)


def test_an_own_point_with_a_changed_base_is_refused(tmp_path: Path) -> None:
    point = BASE + (Weights.from_module(tuned()) - BASE)
    point.save(tmp_path / "point.safetensors")
    raw = (tmp_path / "point.safetensors").read_bytes()
    other = Weights.from_module(model(4))
    (tmp_path / "point.safetensors").write_bytes(raw.replace(BASE.hash.encode(), other.hash.encode()))
    with pytest.raises(InputError, match="is damaged"):
        load_published(tmp_path / "point.safetensors", other)


def test_own_point_and_own_task_vector(tmp_path: Path) -> None:
    point = Weights.from_module(tuned())
    tau = point - BASE
    derived = BASE + tau
    derived.save(tmp_path / "point.safetensors")
    assert load_published(tmp_path / "point.safetensors", BASE).weights.hash == derived.hash
    with pytest.raises(InputError, match="was made from another base"):
        load_published(tmp_path / "point.safetensors", Weights.from_module(model(4)))
    tau.save(tmp_path / "tau.safetensors")
    with pytest.raises(InputError, match="is a task vector, expected a model; read it with TaskVector.load"):
        load_published(tmp_path / "tau.safetensors", BASE)


def test_result_can_be_saved_and_read(tmp_path: Path) -> None:
    tau = task_vector_from_published(write(tmp_path / "x.pt", tuned().state_dict()), BASE, {"task": "dtd"})
    tau.save(tmp_path / "tau.safetensors")
    assert TaskVector.load(tmp_path / "tau.safetensors", BASE).hash == tau.hash


# --- bases ------------------------------------------------------------------------------------------------------


def test_published_base_is_checked(tmp_path: Path) -> None:
    fine = write(tmp_path / "fine.safetensors", tuned().state_dict())
    same = write(tmp_path / "base.safetensors", model(0).state_dict())
    other = write(tmp_path / "other.safetensors", model(4).state_dict())
    assert task_vector_from_published(fine, BASE, published_base=same).norm > 0
    with pytest.raises(InputError, match="the imported base is not the given base: they differ by"):
        task_vector_from_published(fine, BASE, published_base=other)


def test_require_same_base() -> None:
    require_same_base(Weights(BASE.layout, BASE.values.clone()), BASE)
    require_same_base(Weights(BASE.layout, BASE.values * (1 + 1e-7)), BASE)
    values = BASE.values.clone()
    BASE.layout.views(values)["visual.ln_post.bias"][3] += 0.1
    with pytest.raises(InputError, match=r"at most 1e-06, most in 'visual.ln_post.bias'"):
        require_same_base(Weights(BASE.layout, values), BASE)
    with pytest.raises(InputError, match="they differ by"):
        require_same_base(Weights(BASE.layout, BASE.values.half().float()), BASE)


def test_fine_tuned_from_another_base(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", model(4).state_dict())
    with pytest.raises(InputError, match=r"differs from the base by 1\.\d+ of the base's norm, expected at most 0.5"):
        task_vector_from_published(path, BASE)
    path = write(tmp_path / "y.safetensors", hugging_face())
    with pytest.raises(InputError, match="fine-tuned from another base"):
        task_vector_from_published(path, BASE)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0, "0.5", None, True])
def test_a_threshold_is_a_finite_number(tmp_path: Path, value: float) -> None:
    path = write(tmp_path / "x.safetensors", model(4).state_dict())
    with pytest.raises(InputError, match="max_change"):
        task_vector_from_published(path, BASE, max_change=value)
    if value != 0:
        with pytest.raises(InputError, match="tolerance"):
            require_same_base(BASE, BASE, value)


# --- refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_modules_are_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "model.pt"
    torch.save(tuned(), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match="pickled Python objects"):
        load_published(path, BASE)


class Bomb:
    """Runs a call when it is unpickled."""

    def __init__(self, call: Callable, argument: object) -> None:
        self.made_by = (call, (argument,))

    def __reduce__(self) -> tuple:
        return self.made_by


@pytest.mark.parametrize("way", ["python", "shell"])
def test_no_code_is_run(tmp_path: Path, way: str) -> None:
    mark = tmp_path / "mark"
    bomb = Bomb(Path.touch, mark) if way == "python" else Bomb(os.system, f"touch {mark}")
    torch.save({**tuned().state_dict(), "extra": bomb}, tmp_path / "x.pt")
    with pytest.raises(InputError, match="holds pickled Python objects"):
        load_published(tmp_path / "x.pt", BASE)
    assert not mark.exists()
    torch.load(tmp_path / "x.pt", weights_only=False)  # unsafe loading does run the code
    assert mark.exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("keep", [0.01, 0.3, 0.9, 0.999])
def test_truncated_torch_files(tmp_path: Path, zipped: bool, keep: float) -> None:
    path = tmp_path / "x.pt"
    torch.save(tuned().state_dict(), path, _use_new_zipfile_serialization=zipped)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(keep * len(raw))])
    with pytest.raises(InputError, match="is damaged or truncated"):
        load_published(path, BASE)


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(hashlib.sha256(b"x").digest() * 9)
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_published(tmp_path / "x.bin", BASE)
    with pytest.raises(InputError, match="does not exist"):
        load_published(tmp_path / "y.bin", BASE)
    torch.save([torch.zeros(3)], tmp_path / "list.pt")
    with pytest.raises(InputError, match="holds a list, expected a state dict"):
        load_published(tmp_path / "list.pt", BASE)
    torch.save(collections.OrderedDict({1: torch.zeros(3)}), tmp_path / "numbers.pt")
    with pytest.raises(InputError, match="expected a state dict"):
        load_published(tmp_path / "numbers.pt", BASE)


def test_no_tower_or_two(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", {"text.a": torch.zeros(2), "text.b": torch.zeros(2)})
    with pytest.raises(InputError, match=r"no CLIP vision tower.*2 \(text.a, text.b\)"):
        load_published(path, BASE)
    state = {f"{name}.{k}": x for name in ("model", "ema") for k, x in tuned().state_dict().items()}
    with pytest.raises(InputError, match=r"more than one vision tower: 2 \(model.visual., ema.visual.\)"):
        load_published(write(tmp_path / "x.pt", state), BASE)


def changed(change: Callable[[dict[str, Tensor]], object]) -> dict[str, Tensor]:
    tower = hugging_face()
    change(tower)
    return tower


@pytest.mark.parametrize(
    ("tower", "message"),
    [
        (changed(lambda t: t.pop("vision_model.encoder.layers.1.self_attn.k_proj.bias")), "found only q, v"),
        (changed(lambda t: t.pop("vision_model.pre_layrnorm.bias")), r"missing: 1 \(visual.ln_pre.bias\)"),
        (
            changed(lambda t: t.update({"vision_model.encoder.layers.2.mlp.fc1.bias": torch.zeros(64)})),
            r"not expected: 1 \(visual.transformer.resblocks.2.mlp.c_fc.bias\)",
        ),
        (
            changed(lambda t: t.update({"vision_model.embeddings.patch_embedding.bias": torch.zeros(16)})),
            r"1 \(vision_model.embeddings.patch_embedding.bias\)",
        ),
        (
            changed(lambda t: t.update({"vision_model.embeddings.position_embedding.weight": torch.zeros(10, 16)})),
            r"other shape: 1 \(visual.positional_embedding: \(10, 16\), expected \(5, 16\)\)",
        ),
        (
            changed(lambda t: t.update({"vision_model.embeddings.class_embedding": torch.zeros(16).long()})),
            "class_embedding' holds torch.int64",
        ),
        (
            changed(lambda t: t["vision_model.post_layernorm.bias"].fill_(float("nan"))),
            "'visual.ln_post.bias' holds 16 numbers of 16 that are NaN",
        ),
    ],
)
def test_strange_towers(tmp_path: Path, tower: dict[str, Tensor], message: str) -> None:
    with pytest.raises(InputError, match=rf"x\.safetensors: .*{message}"):
        load_published(write(tmp_path / "x.safetensors", tower), BASE)


def test_renaming_loses_nothing() -> None:
    tower = hugging_face()
    renamed = from_hugging_face(tower)
    size = sum(x.numel() for name, x in tower.items() if "position_ids" not in name)
    assert sum(x.numel() for x in renamed.values()) == size
    q, k, v = (tower[f"vision_model.encoder.layers.1.self_attn.{part}_proj.weight"] for part in "qkv")
    assert torch.equal(renamed["visual.transformer.resblocks.1.attn.in_proj_weight"], torch.cat([q, k, v]))
    assert torch.equal(renamed["visual.proj"], tower["visual_projection.weight"].T)
