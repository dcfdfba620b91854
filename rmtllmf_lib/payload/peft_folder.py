"""Adapters in the folders of PEFT: `adapter_config.json` with the settings, `adapter_model.safetensors` with A and B.

The names are those of Hugging Face's `CLIPVisionModel`, so that `PeftModel.from_pretrained` applies what `save_adapter`
wrote, and queries and values can be adapted alone. There queries, keys and values are three matrices: an adapter of the
fused one becomes three with the same A. PEFT itself is not needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rmtllmf_lib.arrays import file_path, real_number, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.foreign import read_json, read_safetensors
from rmtllmf_lib.model.layout import Layout, listing, require_float
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.payload.lora import ROWS, Lora, Matrix, Slot
from rmtllmf_lib.payload.payload import Encoded, require_made_for
from rmtllmf_lib.storage.atomic import atomic_write
from rmtllmf_lib.storage.tensors import save_tensors
from rmtllmf_lib.validated import validated_call

CONFIG, MODEL = "adapter_config.json", "adapter_model.safetensors"

_PREFIX = "base_model.model.vision_model."
_MODULES: Mapping[Matrix, str] = {
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "out_proj": "self_attn.out_proj",
    "c_fc": "mlp.fc1", "c_proj": "mlp.fc2",
}  # fmt: skip
_MATRICES: Mapping[str, Matrix] = {module: matrix for matrix, module in _MODULES.items()}
_FACTOR = re.compile(
    r"base_model\.model\.(?:vision_model\.)?encoder\.layers\.(\d+)\.(self_attn\.(?:[qkv]|out)_proj|mlp\.fc[12])"
    r"\.lora_([AB])\.weight"
)
# Settings under which the change is not alpha/r B A, or which change something else, with the values that do not.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "use_rslora": (False, None), "use_dora": (False, None), "rank_pattern": ({}, None), "alpha_pattern": ({}, None),
    "bias": ("none", None), "lora_bias": (False, None), "modules_to_save": (None, []), "fan_in_fan_out": (False, None),
    "layer_replication": (None, []), "trainable_token_indices": (None, []), "target_parameters": (None, []),
}  # fmt: skip
_OURS, _BASE = "rmtllmf_lora", "rmtllmf_base"  # metadata that PEFT does not read


@validated_call
def save_adapter(
    folder: str | Path, lora: Lora, encoded: Encoded, layout: Layout, *, dropout: float = 0.0, base_model: str = ""
) -> None:
    """Write the factors of a `Lora` as a folder of PEFT.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    encoded : Encoded
        The factors: of `finetune_lora`, or of `lora.encode`.
    layout : Layout
        Of the tower.
    dropout : float
        For whoever trains on, in [0, 1).
    base_model : str
        Name of the base for PEFT, such as "openai/clip-vit-base-patch16".

    Raises
    ------
    InputError
        for factors of another `lora` or layout.
    """
    folder = file_path(folder, "folder")
    real_number(dropout, "dropout", minimum=0, maximum=1)
    numbers = require_made_for(lora, encoded, layout).numbers
    factors, start = numbers.state_dict(), lora.start(layout)
    tensors: dict[str, Tensor] = {}
    for slot in lora.slots(layout):
        A = start[slot.key] if lora.frozen else factors[slot.a]
        for matrix, rows in _parts(slot):
            name = f"{_PREFIX}encoder.layers.{_block(slot)}.{_MODULES[matrix]}"
            # copies, since safetensors refuses tensors that share memory
            tensors |= {f"{name}.lora_A.weight": A.clone(), f"{name}.lora_B.weight": factors[slot.b][rows].clone()}
    targets = sorted({name.split(".")[-3] for name in tensors})
    config = {
        "base_model_name_or_path": base_model, "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
        "init_lora_weights": True, "lora_alpha": lora.alpha, "lora_dropout": dropout, "modules_to_save": None,
        "peft_type": "LORA", "r": lora.rank, "target_modules": targets, "task_type": None, "use_rslora": False,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt", _OURS: json.dumps(asdict(lora)), _BASE: numbers.base_hash}
    with atomic_write(folder / MODEL) as temporary:
        save_tensors(temporary, tensors, metadata)
    with atomic_write(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


@validated_call
def load_adapter(folder: str | Path, base: Weights) -> tuple[Lora, Encoded]:
    """Read a folder of PEFT: of `save_adapter`, with the same numbers, or of a CLIP vision tower by others.

    Parameters
    ----------
    folder : path
    base : Weights
        theta_base, which the adapter was trained on.

    Returns
    -------
    lora : Lora
        Of others' adapters: with A not frozen, and queries, keys and values as separate matrices.
    encoded : Encoded
        `lora.decode` makes the task vector.

    Raises
    ------
    InputError
        for a folder without one of the two files, or a damaged one; settings under which the change is not
        `alpha/r B A` (rank-stabilised, DoRA, ranks by pattern, biases, modules saved whole); an A or B that is missing,
        of another shape, not finite, or of no CLIP vision tower; blocks that are left out; another base.
    """
    folder = file_path(folder, "folder")
    config = read_json(folder / CONFIG)
    tensors, metadata = read_safetensors(folder / MODEL)
    if (known := metadata.get(_BASE)) and known != base.origin:
        raise InputError(f"{folder} was trained on another base: {known[:12]!r}…, expected {base.origin[:12]}…")
    rank, alpha = _settings(config, folder)
    found = _factors(tensors, folder)
    lora = _ours(metadata[_OURS], folder) if _OURS in metadata else _inferred(rank, alpha, found)
    if (lora.rank, lora.alpha) != (rank, alpha):
        raise InputError(f"{folder} has r {rank} and lora_alpha {alpha:g}, but was saved with {lora}: save it again")
    layout, numbers, start = base.layout, lora.numbers_layout(base.layout), lora.start(base.layout)
    factors: dict[str, Tensor] = {}
    wanted: set[tuple[int, Matrix]] = set()
    for slot in lora.slots(layout):
        parts = [(_block(slot), matrix) for matrix, _ in _parts(slot)]
        wanted |= {*parts}
        pairs = [found[part] for part in parts if part in found]
        if len(pairs) < len(parts):
            raise InputError(f"{folder} does not adapt {slot.key!r}: expected the same matrices in every block")
        A, B = pairs[0]["A"].float(), torch.cat([pair["B"] for pair in pairs]).float()
        if A.shape != (rank, slot.shape[1]) or B.shape != (slot.shape[0], rank):
            raise InputError(
                f"{folder} has A {tuple(A.shape)} and B {tuple(B.shape)} for {slot.key!r}: expected "
                f"({rank}, {slot.shape[1]}) and ({slot.shape[0]}, {rank}), of this base and r"
            )
        shared = [pair["A"] for pair in pairs[1:]] + ([start[slot.key]] if lora.frozen else [])
        if not all(torch.equal(A, other.float()) for other in shared):
            raise InputError(f"{folder} has another A for {slot.key!r} than it was saved with: save it again")
        factors |= {slot.b: B} if lora.frozen else {slot.a: A, slot.b: B}
    if extra := sorted(found.keys() - wanted):
        raise InputError(f"{folder} adapts {listing(extra)}, blocks and matrices that the base lacks: use its own base")
    encoded = lora.encoded(TaskVector(numbers, numbers.flatten(factors), base.origin))
    return lora, encoded


def _settings(config: Mapping[str, Any], folder: Path) -> tuple[int, float]:
    """Rank and alpha; an error for what is no plain LoRA."""
    if config.get("peft_type") != "LORA":
        raise InputError(f"{folder / CONFIG} has peft_type {str(config.get('peft_type'))[:80]!r}: expected 'LORA'")
    for name, plain in _PLAIN.items():
        if name in config and config[name] not in plain:
            raise InputError(
                f"{folder / CONFIG} has {name} = {str(config[name])[:80]}: expected {plain[0]}; merge the adapter in "
                "the program that wrote it, and import the whole model"
            )
    rank = whole_number(config.get("r"), f"r in {folder / CONFIG}", maximum=10**6)
    return rank, real_number(config.get("lora_alpha"), f"lora_alpha in {folder / CONFIG}", positive=True)


def _factors(tensors: Mapping[str, Tensor], folder: Path) -> dict[tuple[int, Matrix], dict[str, Tensor]]:
    """A and B by block and matrix."""
    found: dict[tuple[int, Matrix], dict[str, Tensor]] = {}
    if strange := [name for name in tensors if not _FACTOR.fullmatch(name)]:
        raise InputError(
            f"{folder / MODEL} has {listing(strange)}: expected A and B of matrices of a CLIP vision tower, with names "
            f"such as {_PREFIX}encoder.layers.0.self_attn.q_proj.lora_A.weight"
        )
    for name, tensor in tensors.items():
        require_float(name, tensor)
        block, module, factor = _FACTOR.fullmatch(name).groups()  # type: ignore[union-attr]  # all match, as tested
        found.setdefault((int(block), _MATRICES[module]), {})[factor] = tensor
    for (block, matrix), pair in found.items():
        if missing := {"A", "B"} - {*pair}:
            raise InputError(
                f"{folder / MODEL} has no {missing.pop()} for {_MODULES[matrix]} of block {block}: expected A and B of "
                "each matrix; where A is shared by all users, save it with the adapter"
            )
    if not found:
        raise InputError(f"{folder / MODEL} is empty: expected A and B of at least one matrix")
    return found


def _ours(text: str, folder: Path) -> Lora:
    """The settings that `save_adapter` wrote."""
    try:
        return Lora(**json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:  # an InputError is a ValueError
        raise InputError(f"{folder / MODEL} has metadata {text[:80]!r} that cannot be read ({error})") from error


def _inferred(rank: int, alpha: float, found: Mapping[tuple[int, Matrix], Any]) -> Lora:
    """The settings of an adapter of others, from the matrices that it has."""
    matrices = {matrix for _, matrix in found}
    return Lora(rank, alpha, tuple(matrix for matrix in _MODULES if matrix in matrices))


def _block(slot: Slot) -> int:
    return int(slot.tensor.split(".")[3])  # visual.transformer.resblocks.<block>.…


def _parts(slot: Slot) -> list[tuple[Matrix, slice]]:
    """The matrices that PEFT knows in a slot, with their rows of B."""
    if slot.matrix != "in_proj":
        return [(slot.matrix, slice(None))]
    third = slot.shape[0] // 3
    return [(matrix, slice(k * third, (k + 1) * third)) for k, matrix in enumerate(ROWS)]
