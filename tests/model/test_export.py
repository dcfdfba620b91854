"""Export for open_clip and Hugging Face: round trips, and the other libraries' own outputs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import Backbone, fresh_tower
from rmtllmf_lib.model.checkpoints import load_published
from rmtllmf_lib.model.export import export_hugging_face, export_open_clip
from rmtllmf_lib.model.foreign import read_metadata
from rmtllmf_lib.model.hugging_face import from_hugging_face, hugging_face_config, to_hugging_face
from rmtllmf_lib.model.task_vector import Weights
from small import small_backbone, small_tau
from vectors import unhurried

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def fused(backbone: Backbone, seed: int = 1) -> Weights:
    return backbone.weights + small_tau(backbone.weights, seed)


def ours(backbone: Backbone, weights: Weights) -> torch.Tensor:
    with torch.no_grad():
        return fresh_tower(backbone, weights)(IMAGES)


@pytest.mark.parametrize("export", [export_open_clip, export_hugging_face])
@settings(unhurried, max_examples=8)
@given(seed=st.integers(0, 2**32 - 1))
def test_round_trip_keeps_every_bit(export: Any, seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    backbone = small_backbone(layers=2)
    weights, place = fused(backbone, seed), tmp_path_factory.mktemp("x") / "model.safetensors"
    export(place, weights, backbone)
    read = load_published(place, backbone.weights)
    assert torch.equal(read.weights.values.view(torch.int32), weights.values.view(torch.int32))
    assert read.notes == ()


@pytest.mark.parametrize("quick", [False, True])
def test_open_clip_computes_the_same(quick: bool, tmp_path: Path) -> None:
    """By its own reader of checkpoints, into a model of other random weights."""
    backbone = small_backbone(quick_gelu=quick)
    weights = fused(backbone)
    export_open_clip(tmp_path / "x.safetensors", weights, backbone)
    other = small_backbone(9, quick_gelu=quick)
    model = replace(other, model=other.model).model
    found = open_clip.factory.load_checkpoint(model, str(tmp_path / "x.safetensors"))
    assert not found.missing_keys and not found.unexpected_keys
    with torch.no_grad():
        torch.testing.assert_close(model.visual(IMAGES), ours(backbone, weights), rtol=0, atol=0)
        texts = torch.arange(24).reshape(2, 12) % 20
        torch.testing.assert_close(model.encode_text(texts), backbone.model.encode_text(texts), rtol=0, atol=0)


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("shard", [None, "40KB"])
def test_transformers_computes_the_same(quick: bool, shard: str | None, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    backbone = small_backbone(quick_gelu=quick)
    weights = fused(backbone)
    export_hugging_face(tmp_path / "x", weights, backbone)
    model, about = transformers.CLIPVisionModelWithProjection.from_pretrained(tmp_path / "x", output_loading_info=True)
    assert not any(about[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        found = model.eval()(IMAGES).image_embeds
    torch.testing.assert_close(found, ours(backbone, weights), rtol=0, atol=1e-5)
    # without the projection
    plain = transformers.CLIPVisionModel.from_pretrained(tmp_path / "x").eval()
    with torch.no_grad():
        pooled = plain(IMAGES).pooler_output
    torch.testing.assert_close(pooled @ weights.state_dict()["visual.proj"], found, rtol=0, atol=1e-5)
    # what transformers writes is read again, in shards, too
    sizes = {} if shard is None else {"max_shard_size": shard}
    model.save_pretrained(tmp_path / "y", **sizes)
    assert (tmp_path / "y" / "model.safetensors.index.json").is_file() is (shard is not None)
    assert load_published(tmp_path / "y", backbone.weights).weights.hash == weights.hash
    plain.save_pretrained(tmp_path / "z", **sizes)
    tower = load_published(tmp_path / "z", backbone.weights)
    assert "no projection" in tower.notes[0]
    differing = (tower.weights - weights).state_dict()
    assert [name for name, change in differing.items() if change.any()] == ["visual.proj"]


def test_transformers_prepares_images_as_we_do(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    backbone = small_backbone()
    export_hugging_face(tmp_path, fused(backbone), backbone)
    prepare = transformers.CLIPImageProcessor.from_pretrained(tmp_path)
    pixels = torch.randint(0, 256, (32, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = prepare(images=pixels.numpy(), return_tensors="pt").pixel_values[0]
    mean, std = (torch.tensor(values)[:, None, None] for values in (backbone.mean, backbone.std))
    torch.testing.assert_close(found, (pixels.permute(2, 0, 1) / 255 - mean) / std, rtol=0, atol=1e-5)


def test_names_and_settings_of_the_folder(tmp_path: Path) -> None:
    backbone = small_backbone(quick_gelu=True)
    export_hugging_face(tmp_path, fused(backbone), backbone)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["hidden_act"], config["num_attention_heads"], config["num_hidden_layers"]) == ("quick_gelu", 2, 4)
    assert (config["patch_size"], config["intermediate_size"], config["projection_dim"]) == (8, 256, 64)
    names = load_file(tmp_path / "model.safetensors")
    assert "vision_model.pre_layrnorm.weight" in names and "visual_projection.weight" in names
    assert read_metadata(tmp_path / "model.safetensors")["format"] == "pt"


def test_there_and_back_loses_no_tensor() -> None:
    weights = small_backbone().weights
    back = from_hugging_face(to_hugging_face(weights))
    assert back.keys() == weights.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in weights.state_dict().items())


def test_another_base_is_refused(tmp_path: Path) -> None:
    backbone, other = small_backbone(), small_backbone(4)
    for export, place in ((export_open_clip, "x.safetensors"), (export_hugging_face, "x")):
        with pytest.raises(InputError, match="another base"):
            export(tmp_path / place, fused(other), backbone)
    assert not [*tmp_path.iterdir()]
    export_open_clip(tmp_path / "x.safetensors", fused(backbone), backbone)
    with pytest.raises(InputError, match="another base"):
        load_published(tmp_path / "x.safetensors", other.weights)


def test_towers_that_hugging_face_lacks() -> None:
    backbone = small_backbone()
    backbone.model.visual.pool_type = "avg"
    with pytest.raises(InputError, match="'avg'"):
        hugging_face_config(backbone)
    tensors = {**backbone.weights.state_dict(), "visual.transformer.resblocks.0.ls_1.gamma": torch.ones(2)}
    with pytest.raises(InputError, match=r"ls_1\.gamma"):
        to_hugging_face(Weights.from_state_dict(tensors))
    with pytest.raises(InputError, match=r"\.safetensors"):
        export_open_clip("x.pt", backbone.weights, backbone)


# --- shards -------------------------------------------------------------------------------------------------------


def shards(folder: Path, weights: Weights, suffix: str = ".safetensors") -> Path:
    """A model in three shards and their index."""
    folder.mkdir(exist_ok=True)
    tensors = to_hugging_face(weights)
    owners = {name: f"model-{i % 3 + 1:05d}-of-00003{suffix}" for i, name in enumerate(tensors)}
    for file in set(owners.values()):
        part = {name: tensor.clone() for name, tensor in tensors.items() if owners[name] == file}
        save_file(part, folder / file) if suffix == ".safetensors" else torch.save(part, folder / file)
    index = folder / ("model.safetensors.index.json" if suffix == ".safetensors" else "pytorch_model.bin.index.json")
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": owners}))
    return index


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize("as_folder", [True, False])
def test_shards_with_an_index(suffix: str, as_folder: bool, tmp_path: Path) -> None:
    backbone = small_backbone()
    weights = fused(backbone)
    index = shards(tmp_path, weights, suffix)
    assert load_published(tmp_path if as_folder else index, backbone.weights).weights.hash == weights.hash


def test_a_bin_file_in_a_folder(tmp_path: Path) -> None:
    backbone = small_backbone()
    weights = fused(backbone)
    torch.save(
        {name: tensor.clone() for name, tensor in to_hugging_face(weights).items()}, tmp_path / "pytorch_model.bin"
    )
    assert load_published(tmp_path, backbone.weights).weights.hash == weights.hash


class Harmful:
    def __reduce__(self) -> tuple[Any, Any]:
        return (print, ("run",))


def test_a_pickled_object_in_a_shard_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backbone = small_backbone()
    index = shards(tmp_path, fused(backbone), ".bin")
    torch.save({"x": Harmful()}, tmp_path / "model-00002-of-00003.bin")
    with pytest.raises(InputError, match="00002.*refused"):
        load_published(index, backbone.weights)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder, index: (folder / "model-00002-of-00003.safetensors").unlink(), "lacks model-00002"),
        (lambda folder, index: index.write_text('{"weight_map": {}}'), "no weight_map"),
        (lambda folder, index: index.write_text('{"weight_map": {"a": 3}}'), "no weight_map"),
        (lambda folder, index: index.write_text('{"weight_map": {"a": "../x.safetensors"}}'), r"\.\./x\.safetensors"),
        (lambda folder, index: index.write_text('{"weight_map": {"a": "/etc/passwd"}}'), "/etc/passwd"),
        (lambda folder, index: index.write_text('{"weight_map": {"a": "x.index.json"}}'), r"x\.index\.json"),
        (
            lambda folder, index: save_file({"a": torch.ones(1)}, folder / "model-00003-of-00003.safetensors"),
            "00003.*differ in .* tensors",
        ),
        (
            lambda folder, index: (folder / "model-00001-of-00003.safetensors").write_bytes(b"\x01" * 40),
            "00001.*corrupt",
        ),
    ],
)
def test_spoilt_shards(spoil: Any, message: str, tmp_path: Path) -> None:
    backbone = small_backbone()
    index = shards(tmp_path, fused(backbone))
    spoil(tmp_path, index)
    with pytest.raises(InputError, match=message):
        load_published(index, backbone.weights)
