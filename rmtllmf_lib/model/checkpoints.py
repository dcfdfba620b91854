"""Other people's fine-tuned CLIP vision towers as `Weights` and `TaskVector`s.

Read are safetensors files and plain state dicts of `torch.save`; with open_clip's names (whole models, towers, and
what training scripts put around them) or with those of Hugging Face's `CLIPModel`, `CLIPVisionModel` and
`CLIPVisionModelWithProjection`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.layout import PREFIX, Layout, listing
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.model.tensor_file import is_pickle, read_tensors, require_file

PROJECTION = PREFIX + "proj"

# A name that every tower of the kind has, and no other part of the model; what stands before it is the prefix.
_ANCHORS = {"open_clip": "conv1.weight", "Hugging Face": "embeddings.patch_embedding.weight"}

_HF_ENDS = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm": "ln_pre",  # spelt so
    "post_layernorm": "ln_post",
}
_HF_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


@dataclass(frozen=True)
class Checkpoint:
    """An imported vision tower.

    Attributes
    ----------
    weights : Weights
    kind : str
        "open_clip" or "Hugging Face": whose names the file used.
    notes : tuple of str
        What the reader of a result should know: tensors taken from the base, half precision.
    """

    weights: Weights
    kind: str
    notes: tuple[str, ...]


def task_vector_from_checkpoint(
    path: str | Path,
    base: Weights,
    info: Mapping[str, str] | None = None,
    *,
    base_checkpoint: str | Path | None = None,
    max_change: float = 0.5,
) -> TaskVector:
    """Task vector of somebody's fine-tuned model, Eq. (1).

    Parameters
    ----------
    path : path
        The fine-tuned model, see `load_checkpoint`.
    base : Weights
        theta_base.
    info : mapping of str to str, optional
        Goes into the vector's metadata; say at least which task, as published files have been mixed up.
        `file` (its name), `names` (the kind) and `note` are added.
    base_checkpoint : path, optional
        The base that the model was fine-tuned from, as its author published it: checked to equal `base`.
    max_change : float
        Largest norm(tau) / norm(theta_base) that passes for fine-tuning. Two bases that were trained apart
        differ by about 1.4, fine-tuned ones from their base by some .01.

    Raises
    ------
    InputError
        if a file cannot be read, is of another architecture, or belongs to another base.
    """
    if base_checkpoint is not None:
        require_same_base(load_checkpoint(base_checkpoint, base).weights, base)
    checkpoint = load_checkpoint(path, base)
    tau = checkpoint.weights - base
    change = tau.norm / base.norm
    if change > max_change:
        raise InputError(
            f"{path} differs from the base by {change:.2f} of the base's norm, expected at most {max_change:g}; "
            "it was fine-tuned from another base, give that one"
        )
    about = {"file": Path(path).name, "names": checkpoint.kind}
    if checkpoint.notes:
        about["note"] = "; ".join(checkpoint.notes)
    return TaskVector(tau.layout, tau.values, tau.base_hash, {**about, **(info or {})})


def load_checkpoint(path: str | Path, base: Weights) -> Checkpoint:
    """Read a fine-tuned model's vision tower, of the same architecture as `base`.

    A projection that the file lacks (Hugging Face's `CLIPVisionModel` has none) is taken from the base, and a
    note says so.

    Raises
    ------
    InputError
        if there is no such file, it is damaged, holds pickled objects, no CLIP vision tower or more than one,
        another architecture, entries that are not floating-point, or NaN or infinite numbers.
    """
    tensors, metadata = _read(path)
    if metadata.get("format") == "rmtllmf-task-vector":
        raise InputError(f"{path} is a task vector, expected a model; read it with TaskVector.load")
    known = metadata.get("base_hash")
    if known and known != base.origin:
        raise InputError(f"{path} was made from another base: {known[:12]}…, expected {base.origin[:12]}…")
    kind, prefix = _find_tower(tensors, path)
    try:
        return _tower(tensors, kind, prefix, base)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _tower(tensors: Mapping[str, Tensor], kind: str, prefix: str, base: Weights) -> Checkpoint:
    if kind == "open_clip":
        tower = {PREFIX + name[len(prefix) :]: x for name, x in tensors.items() if name.startswith(prefix)}
    else:
        tower = from_hugging_face(tensors, prefix)
    notes = []
    halves = sorted({str(x.dtype) for x in tower.values() if x.dtype in (torch.float16, torch.bfloat16)})
    if halves:
        notes.append(f"stored as {' and '.join(halves)}, so the task vector carries rounding errors")
    if PROJECTION in base.layout.names and PROJECTION not in tower:
        tower[PROJECTION] = base.state_dict()[PROJECTION]
        notes.append("the file has no projection, the base's is used (its task vector is 0)")
    layout = Layout.from_state_dict(tower)
    layout.require_equal(base.layout, "the model")
    return Checkpoint(Weights(layout, layout.flatten(tower)), kind, tuple(notes))


def import_task_vectors(
    files: Mapping[str, str | Path],
    base: Weights,
    out: str | Path,
    *,
    base_checkpoint: str | Path | None = None,
    overwrite: bool = False,
) -> pd.DataFrame:
    """Read fine-tuned models, and write the task vector of each as ``<out>/<task>.safetensors``.

    Parameters
    ----------
    files : mapping of task to path
        Of each fine-tuned model, or of the folder with its `model.safetensors`.
    base, base_checkpoint
        As in `task_vector_from_checkpoint`.
    overwrite : bool
        Whether to replace a vector that is there.

    Returns
    -------
    DataFrame with columns task, names (whose names the file used), change (norm of tau over that of the base), note

    Raises
    ------
    InputError
        if a vector is there and may not be replaced, a model is the base itself, or two are one and the same; and
        what `task_vector_from_checkpoint` raises. Nothing is written then.
    """
    folder = Path(out)
    paths = {task: _model_in(Path(path).expanduser()) for task, path in files.items()}
    if there := [task for task in paths if (folder / f"{task}.safetensors").exists() and not overwrite]:
        raise InputError(
            f"{folder / there[0]}.safetensors is there already: choose another folder for the output, or overwrite it"
        )
    if base_checkpoint is not None:
        require_same_base(load_checkpoint(_model_in(Path(base_checkpoint).expanduser()), base).weights, base)
    taus = {task: task_vector_from_checkpoint(path, base, {"task": task}) for task, path in paths.items()}
    owners: dict[str, str] = {}
    for task, tau in taus.items():
        if tau.norm == 0:
            raise InputError(
                f"{paths[task]} is the base itself, nothing was trained: give the model fine-tuned on {task!r}"
            )
        if (other := owners.setdefault(tau.hash, task)) != task:
            raise InputError(f"{paths[other]} and {paths[task]} are the same model: give {other!r} or {task!r} its own")
    folder.mkdir(parents=True, exist_ok=True)
    for task, tau in taus.items():
        tau.save(folder / f"{task}.safetensors")
    rows = [(task, tau.info["names"], tau.norm / base.norm, tau.info.get("note", "")) for task, tau in taus.items()]
    return pd.DataFrame(rows, columns=["task", "names", "change", "note"])


def _model_in(path: Path) -> Path:
    """The file of weights in the folder of a model, as Hugging Face lays it out; any other path as it is."""
    return path / "model.safetensors" if (path / "model.safetensors").is_file() else path


def require_same_base(imported: Weights, base: Weights, tolerance: float = 1e-6) -> None:
    """Raise an InputError unless two points are the same but for the last digits.

    Parameters
    ----------
    tolerance : float
        Largest norm of the difference, relative to the base's. A copy in half precision differs by some 1e-4,
        too much for task vectors of 1e-2.
    """
    imported.layout.require_equal(base.layout, "the imported base")
    if imported.hash == base.hash:
        return
    difference = imported - base
    change = difference.norm / base.norm
    if change > tolerance:
        name, _ = max(difference.state_dict().items(), key=lambda item: item[1].abs().max().item())
        raise InputError(
            f"the imported base is not the given base: they differ by {change:.2g} of its norm, expected at most "
            f"{tolerance:g}, most in {name!r}; load the base that the checkpoints were fine-tuned from"
        )


def from_hugging_face(state_dict: Mapping[str, Tensor], prefix: str = "vision_model.") -> dict[str, Tensor]:
    """Rename the entries of a Hugging Face CLIP vision tower to open_clip's names, with `visual.` in front.

    Parameters
    ----------
    state_dict : mapping of name to tensor
        Of a `CLIPModel`, `CLIPVisionModel` or `CLIPVisionModelWithProjection`; only the vision part is used.
    prefix : str
        What the names of the tower start with.

    Returns
    -------
    dict of name to tensor
        Queries, keys and values are joined and the projection is transposed; `position_ids` is left out.

    Raises
    ------
    InputError
        if the tower has an entry that a CLIP vision tower lacks, or only some of queries, keys and values.
    """
    tower: dict[str, Tensor] = {}
    attention: dict[str, dict[str, Tensor]] = {}
    strange = []
    # beside the tower, where the tower has a prefix of its own
    projection = prefix.removesuffix("vision_model.") + "visual_projection.weight"
    for name, tensor in state_dict.items():
        if name == projection:
            tower[PROJECTION] = tensor.T
            continue
        if not name.startswith(prefix) or name.endswith("embeddings.position_ids"):
            continue
        end = name[len(prefix) :]
        if part := re.fullmatch(r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)", end):
            target = f"{PREFIX}transformer.resblocks.{part[1]}.attn.in_proj_{part[3]}"
            attention.setdefault(target, {})[part[2]] = tensor
        elif renamed := _renamed(end):
            tower[PREFIX + renamed] = tensor
        else:
            strange.append(name)
    if strange:
        raise InputError(f"these entries are not of a CLIP vision tower: {listing(strange)}; remove them")
    for target, parts in attention.items():
        if set(parts) != set("qkv"):
            raise InputError(f"{target!r} is made of q, k and v, found only {', '.join(sorted(parts))}")
        tower[target] = torch.cat([parts["q"], parts["k"], parts["v"]])
    return tower


def _renamed(end: str) -> str | None:
    if end in _HF_ENDS:
        return _HF_ENDS[end]
    stem, _, leaf = end.rpartition(".")
    if leaf not in ("weight", "bias"):
        return None
    if stem in _HF_ENDS:
        return f"{_HF_ENDS[stem]}.{leaf}"
    if (block := re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", stem)) and block[2] in _HF_BLOCK:
        return f"transformer.resblocks.{block[1]}.{_HF_BLOCK[block[2]]}.{leaf}"
    return None


def _find_tower(tensors: Mapping[str, Any], path: str | Path) -> tuple[str, str]:
    """Kind and prefix of the one vision tower among the entries."""
    found = [
        (kind, name.removesuffix(anchor))
        for name in tensors
        for kind, anchor in _ANCHORS.items()
        if name == anchor or name.endswith("." + anchor)
    ]
    if len(found) != 1:
        what = "no CLIP vision tower" if not found else f"more than one vision tower: {listing([p for _, p in found])}"
        raise InputError(
            f"{path} holds {what}, among {listing(list(tensors))}; expected one, with a name that ends in "
            + " or ".join(repr(anchor) for anchor in _ANCHORS.values())
        )
    return found[0]


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    path = require_file(path)
    if not is_pickle(path):
        return read_tensors(path)
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch raises half a dozen types here, its own and pickle's
        reason = str(error) or type(error).__name__
        if "unsupported" in reason.lower() or "TorchScript" in reason:
            raise InputError(
                f"{path} holds pickled Python objects beside its tensors, and is refused: to open them is to run "
                "whatever code the file brings. Where you trust it, load it in the program that wrote it and save "
                "model.state_dict() alone, best with safetensors.torch.save_file"
            ) from error
        raise InputError(f"{path} is damaged or truncated ({reason.splitlines()[0]}); get it again") from error
    # training scripts wrap the state dict together with the epoch and the optimiser's state
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise InputError(f"{path} holds a {type(content).__name__}, expected a state dict; save model.state_dict()")
    return dict(content), {}
