"""Adapters in PEFT's folders: a round trip without loss, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.payload.lora import ALL, Lora
from rmtllmf_lib.payload.peft_folder import CONFIG, MODEL, load_adapter, save_adapter
from small import small_backbone

BASE = small_backbone(layers=2).weights
LORAS = [
    Lora(4, 8.0, ("v", "q")), Lora(2, 3.5, ALL), Lora(3, 3.0, ALL, frozen=True, seed=9), Lora(1, 1.0, ("k", "c_proj")),
]  # fmt: skip
HEAD = "base_model.model.vision_model.encoder.layers."


def numbers_of(lora: Lora, seed: int = 0) -> TaskVector:
    layout = lora.numbers_layout(BASE.layout)
    values = torch.randn(layout.size, generator=torch.Generator().manual_seed(seed))
    return TaskVector(layout, values, BASE.origin)


def saved(folder: Path, lora: Lora) -> Path:
    save_adapter(folder, lora, lora.encoded(numbers_of(lora)), BASE.layout, dropout=0.1, base_model="base")
    return folder


@pytest.mark.parametrize("lora", LORAS)
def test_the_round_trip_is_exact(tmp_path: Path, lora: Lora) -> None:
    again, encoded = load_adapter(saved(tmp_path / "new" / "folder", lora), BASE)
    assert again == lora
    assert torch.equal(encoded.numbers.values, numbers_of(lora).values)
    assert encoded.numbers.layout == numbers_of(lora).layout and encoded.numbers.base_hash == BASE.origin
    before = lora.decode(lora.encoded(numbers_of(lora)), BASE.layout)
    assert torch.equal(again.decode(encoded, BASE.layout).values, before.values)
    files = {path.name: path.read_bytes() for path in (tmp_path / "new" / "folder").iterdir()}
    save_adapter(tmp_path / "two", again, encoded, BASE.layout, dropout=0.1, base_model="base")
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()}


def test_the_files_are_those_of_peft(tmp_path: Path) -> None:
    """Each matrix of Hugging Face's tower changes by lora_alpha/r B A, as PEFT forms it."""
    lora = LORAS[1]
    folder = saved(tmp_path, lora)
    config, tensors = json.loads((folder / CONFIG).read_text()), load_file(folder / MODEL)
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["lora_dropout"]) == ("LORA", 2, 3.5, 0.1)
    assert config["target_modules"] == ["fc1", "fc2", "k_proj", "out_proj", "q_proj", "v_proj"]
    assert config["bias"] == "none" and not config["use_rslora"] and config["base_model_name_or_path"] == "base"
    tau = lora.decode(lora.encoded(numbers_of(lora)), BASE.layout).state_dict()
    for block in range(2):
        ours = f"visual.transformer.resblocks.{block}."

        def change(module: str, block: int = block) -> np.ndarray:
            name = f"{HEAD}{block}.{module}."
            A, B = (tensors.pop(f"{name}lora_{factor}.weight").numpy() for factor in "AB")
            return np.asarray(config["lora_alpha"] / config["r"] * B @ A)

        fused = np.concatenate([change(f"self_attn.{part}_proj") for part in "qkv"])
        assert np.allclose(tau[ours + "attn.in_proj_weight"], fused, atol=1e-5)
        for module, name in (
            ("self_attn.out_proj", "attn.out_proj"),
            ("mlp.fc1", "mlp.c_fc"),
            ("mlp.fc2", "mlp.c_proj"),
        ):
            assert np.allclose(tau[f"{ours}{name}.weight"], change(module), atol=1e-5)
    assert not tensors


def rewritten(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], metadata: bool = False) -> Path:
    """The adapter as another program writes it, after a change of its tensors."""
    with safe_open(folder / MODEL, framework="pt") as file:
        about = dict(file.metadata())
    save_file(change(load_file(folder / MODEL)), folder / MODEL, about if metadata else {"format": "pt"})
    return folder


@pytest.mark.parametrize("lora", LORAS)
def test_adapters_of_others_are_read(tmp_path: Path, lora: Lora) -> None:
    """Without our metadata, in half precision, and by the names of a tower that is not wrapped."""

    def theirs(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name.replace("vision_model.", ""): tensor.half() for name, tensor in tensors.items()}

    again, encoded = load_adapter(rewritten(saved(tmp_path, lora), theirs), BASE)
    assert not again.frozen and "in_proj" not in again.matrices and (again.rank, again.alpha) == (lora.rank, lora.alpha)
    before, after = lora.decode(lora.encoded(numbers_of(lora)), BASE.layout), again.decode(encoded, BASE.layout)
    assert 0 < (after - before).norm < 2e-3 * before.norm


def without(end: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if not name.endswith(end)}


@pytest.mark.parametrize("metadata", [True, False])
def test_a_missing_a_is_refused(tmp_path: Path, metadata: bool) -> None:
    for end, message in (
        ("lora_A.weight", "no A for self_attn.q_proj of block 0"),
        ("0.self_attn.v_proj.lora_A.weight", "no A for self_attn.v_proj of block 0"),
        ("1.self_attn.q_proj.lora_B.weight", "no B for self_attn.q_proj of block 1"),
    ):
        folder = rewritten(saved(tmp_path / end, LORAS[0]), without(end), metadata)
        with pytest.raises(InputError, match=message):
            load_adapter(folder, BASE)


def test_tensors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    first = f"{HEAD}0.self_attn.q_proj.lora_A.weight"

    def refused(message: str, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], **options: bool) -> None:
        folder = tmp_path / str(len([*tmp_path.iterdir()]))
        with pytest.raises(InputError, match=message):
            load_adapter(rewritten(saved(folder, LORAS[0]), change, **options), BASE)

    text = "base_model.model.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight"
    refused("text_model.*expected A and B of matrices of a CLIP vision tower", lambda t: {**t, text: torch.ones(4, 64)})
    refused("expected A and B of matrices", lambda t: {**t, "base_model.model.classifier.weight": torch.ones(4, 64)})
    refused("is empty", lambda _: {})
    refused(r"A \(4, 63\)", lambda t: {**t, first: torch.ones(4, 63)})
    refused(r"expected \(4, 64\)", lambda t: {**t, first: torch.ones(3, 64)})
    refused("NaN or infinite", lambda t: {**t, first: torch.full((4, 64), torch.nan)})
    refused("expected floating-point", lambda t: {**t, first: torch.ones(4, 64, dtype=torch.int64)})
    refused("same matrices in every block", lambda t: {n: x for n, x in t.items() if ".1.self_attn" not in n})
    more = {f"{HEAD}2.self_attn.{part}_proj.lora_{factor}.weight": torch.ones((4, 64) if factor == "A" else (64, 4))
            for part in "qv" for factor in "AB"}  # fmt: skip
    refused("the base lacks", lambda t: {**t, **more})
    folder = saved(tmp_path / "frozen", LORAS[2])
    with pytest.raises(InputError, match="another A"):
        load_adapter(rewritten(folder, lambda t: {**t, first: t[first] + 1}, metadata=True), BASE)
    with pytest.raises(InputError, match="trained on another base"):
        load_adapter(saved(tmp_path / "base", LORAS[0]), small_backbone(seed=1, layers=2).weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_rslora": True}, "use_rslora = True"), ({"use_dora": True}, "use_dora = True"), ({"r": 0}, "is 0"),
        ({"rank_pattern": {"fc1": 2}}, "rank_pattern = "), ({"bias": "all"}, "bias = all"), ({"r": 5}, "save it again"),
        ({"peft_type": "IA3"}, "peft_type 'IA3'"), ({"modules_to_save": ["proj"]}, "modules_to_save"),
        ({"lora_alpha": None}, "lora_alpha in .* is None"), ({"lora_alpha": -1}, "lora_alpha"), ({"r": True}, "r in"),
    ],
)  # fmt: skip
def test_settings_that_are_no_plain_lora_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    folder = saved(tmp_path, LORAS[0])
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=message):
        load_adapter(folder, BASE)


def test_files_that_are_missing_or_no_files_of_peft_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="adapter_config.json does not exist"):
        load_adapter(tmp_path, BASE)
    folder = saved(tmp_path / "x", LORAS[0])
    for text, message in (("{", "is not JSON"), ("[1]", "holds a list"), ("[" * 10**5, "is not JSON")):
        (folder / CONFIG).write_text(text)
        with pytest.raises(InputError, match=message):
            load_adapter(folder, BASE)
    saved(folder, LORAS[0])
    (folder / MODEL).write_bytes((folder / MODEL).read_bytes()[:-10])
    with pytest.raises(InputError, match="corrupt or truncated"):
        load_adapter(folder, BASE)
    with pytest.raises(InputError, match="the payload's numbers"):
        save_adapter(folder, replace(LORAS[0], rank=1), LORAS[0].encoded(numbers_of(LORAS[0])), BASE.layout)


@pytest.mark.parametrize("text", ["{", "[]", '{"rank": 4}', '{"rank": 4, "alpha": 8.0, "matrices": ["x"]}'])
def test_metadata_that_cannot_be_read_are_refused(tmp_path: Path, text: str) -> None:
    folder = saved(tmp_path, LORAS[0])
    save_file(load_file(folder / MODEL), folder / MODEL, {"rmtllmf_lora": text})
    with pytest.raises(InputError, match="metadata .* cannot be read"):
        load_adapter(folder, BASE)
