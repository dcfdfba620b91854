"""Import of published fine-tuned CLIP vision towers, and of BERTs, as `Weights` and `TaskVector`s.

Reads safetensors files and plain state dicts of `torch.save`, in one piece or in shards, with open_clip's names (whole
models or towers, also in the wrappers of training scripts) or those of Hugging Face's `CLIPModel`, `CLIPVisionModel`
and `CLIPVisionModelWithProjection`; and of BERTs with Hugging Face's names, see `text_tower.bert_tensors`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from rmtllmf_lib.arrays import real_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.foreign import model_file, read_foreign
from rmtllmf_lib.model.hugging_face import PROJECTION, from_hugging_face
from rmtllmf_lib.model.layout import PREFIX, TEXT_PREFIX, Layout, listing
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.model.tensor_file import read_own
from rmtllmf_lib.model.text_tower import bert_tensors
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.validated import validated_call

# A name that every tower of the kind has, and no other part of the model; what precedes it is the prefix.
_ANCHORS = {"open_clip": "conv1.weight", "Hugging Face": "embeddings.patch_embedding.weight"}

# What wrappers of modules (torch.compile, FSDP, activation checkpoints, data parallel) leave anywhere in a name.
_WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|_?module|_forward_module|_(checkpoint|fsdp)_wrapped_module)\.")

# Part of a name that tells of an adapter, whose effect is not yet in the weights beside it.
_ADAPTER = re.compile(
    r"(?<![^._])(lora|dora|ia3|loha|hada|lokr|oft|boft|vera|adapters?|base_layer|modules_to_save|original_module)(?![^._])",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class PublishedTower:
    """An imported tower.

    Attributes
    ----------
    weights : Weights
    kind : str
        "open_clip", "Hugging Face" or "BERT": the names that the file used.
    notes : tuple of str
        Caveats for results: tensors taken from the base, half precision.
    """

    weights: Weights
    kind: str
    notes: tuple[str, ...]

    __repr__ = short_repr


@validated_call
def task_vector_from_published(
    path: str | Path,
    base: Weights,
    info: Mapping[str, str] | None = None,
    *,
    published_base: str | Path | None = None,
    max_change: float = 0.5,
) -> TaskVector:
    """Task vector of a published fine-tuned model, Eq. (1).

    Parameters
    ----------
    path : path
        Of the fine-tuned model, see `load_published`.
    base : Weights
        theta_base.
    info : mapping of str to str, optional
        Metadata of the vector; name at least the task, as published files have been mixed up.
        `file` (its name), `names` (the kind) and `note` are added.
    published_base : path, optional
        The base of the fine-tuned model, as its author published it: checked to equal `base`.
    max_change : float
        Largest norm(tau) / norm(theta_base) that is accepted as fine-tuning. Two separately trained bases differ by
        about 1.4, a fine-tuned model and its base by about .01.

    Raises
    ------
    InputError
        if a file cannot be read, or has another architecture or base.
    """
    if published_base is not None:
        require_same_base(load_published(published_base, base).weights, base)
    real_number(max_change, "max_change", positive=True)
    published = load_published(path, base)
    tau = published.weights - base
    change = tau.norm / base.norm
    if change > max_change:
        raise InputError(
            f"{path} differs from the base by {change:.2f} of the base's norm, expected at most {max_change:g}; "
            "it was fine-tuned from another base, give that one"
        )
    about = {"file": model_file(path).name, "names": published.kind}
    if published.notes:
        about["note"] = "; ".join(published.notes)
    return TaskVector(tau.layout, tau.values, tau.base_hash, {**about, **(info or {})})


@validated_call
def load_published(path: str | Path, base: Weights) -> PublishedTower:
    """Read the tower of a fine-tuned model, of the same architecture as `base`.

    The path is a file, an index of shards, or the folder with either, as Hugging Face and open_clip lay it out. A
    missing projection (Hugging Face's `CLIPVisionModel` has none) is taken from the base, with a note.

    Raises
    ------
    InputError
        if there is no such file, it is damaged, or it holds pickled objects, no tower of the base's kind or more than
        one, an adapter that is not merged, another architecture, entries that are not floating-point or have only 8
        bits, or NaN or infinite numbers.
    """
    path = model_file(path)
    tensors, metadata = read_foreign(path)
    if metadata.get("format") == "rmtllmf-task-vector":
        raise InputError(f"{path} is a task vector, expected a model; read it with TaskVector.load")
    if metadata.get("format") == "rmtllmf-weights":
        tensors, metadata = read_own(path, "rmtllmf-weights")
    known = metadata.get("base_hash")
    if known and known != base.origin:
        raise InputError(f"{path} was made from another base: {known[:12]}…, expected {base.origin[:12]}…")
    if adapter := [name for name in tensors if _ADAPTER.search(name)]:
        raise InputError(
            f"{path} holds an adapter that is not merged: merge the adapter first, with peft by "
            f"model.merge_and_unload(), and save the whole model; its entries are {listing(adapter, 2)}"
        )
    unwrapped = {_WRAPPERS.sub("", name): tensor for name, tensor in tensors.items()}
    if len(unwrapped) < len(tensors):
        raise InputError(f"{path} holds entries twice, with and without a wrapper's part of the name; save one model")
    tensors = unwrapped
    text = base.layout.names[0].startswith(TEXT_PREFIX)
    kind, prefix = ("BERT", "") if text else _find_tower(tensors, path)
    try:
        return _tower(tensors, kind, prefix, base)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _tower(tensors: Mapping[str, Tensor], kind: str, prefix: str, base: Weights) -> PublishedTower:
    if kind == "BERT":
        tower = bert_tensors(tensors, "the file")
    elif kind == "open_clip":
        tower = {PREFIX + name[len(prefix) :]: x for name, x in tensors.items() if name.startswith(prefix)}
    else:
        tower = from_hugging_face(tensors, prefix)
    layout = Layout.from_state_dict(tower)
    notes = []
    if coarse := [f"{name}: {tensor.dtype}" for name, tensor in tower.items() if tensor.itemsize == 1]:
        raise InputError(
            f"8 bits are too few for a task vector: {listing(coarse)}; get the weights before quantisation"
        )
    if halves := sorted({str(tensor.dtype) for tensor in tower.values() if tensor.itemsize == 2}):
        notes.append(f"stored as {' and '.join(halves)}, so the task vector carries rounding errors")
    if PROJECTION in base.layout.names and PROJECTION not in tower:
        tower[PROJECTION] = base.state_dict()[PROJECTION]
        layout = Layout.from_state_dict(tower)
        notes.append("the file has no projection, the base's is used (its task vector is 0)")
    layout.require_equal(base.layout, "the model")
    return PublishedTower(Weights(layout, layout.flatten(tower)), kind, tuple(notes))


@validated_call
def require_same_base(imported: Weights, base: Weights, tolerance: float = 1e-6) -> None:
    """Raise an InputError unless two points are equal to rounding.

    Parameters
    ----------
    tolerance : float
        Largest norm of the difference, relative to the base's. A copy in half precision differs by about 1e-4, too
        much for task vectors of 1e-2.
    """
    real_number(tolerance, "tolerance", minimum=0)
    imported.layout.require_equal(base.layout, "the imported base")
    if imported.hash == base.hash:
        return
    difference = imported - base
    change = difference.norm / base.norm
    if change > tolerance:
        name, _ = max(difference.state_dict().items(), key=lambda item: item[1].abs().max().item())
        raise InputError(
            f"the imported base is not the given base: they differ by {change:.2g} of its norm, expected at most "
            f"{tolerance:g}, most in {name!r}; load the base that the models were fine-tuned from"
        )


def _find_tower(tensors: Mapping[str, Any], path: str | Path) -> tuple[str, str]:
    """Kind and prefix of the only vision tower among the entries."""
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
